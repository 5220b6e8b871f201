//! Reserved headers that only the server may write, as clients forge them.

use super::super::World;
use super::{enter, must};

const TEXT: &str = r#"
jetstream: enabled
accounts {
    SERVICE { users: [ { user: service, password: p } ], exports: [ { service: ask } ] }
    B { users: [ { user: b, password: p } ], imports: [ { service: { account: SERVICE, subject: ask } } ] }
    A { jetstream: enabled, users: [ { user: a, password: p } ] }
}
authorization { timeout: 30 }
"#;

fn hpub(subject: &str, reply: &str, block: &str) -> String {
    let bytes = block.len();
    format!("HPUB {subject} {reply} {bytes} {bytes}\r\n{block}\r\n")
}

/// Who asks is told by the server, whatever the asker says of itself, in whatever form some reader may take for that header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_cannot_be_forged() {
    let world = World::start(TEXT).await;
    let mut service = enter(&world, "service").await;
    assert_eq!(service.ask("SUB ask 1").await, ["PONG"]);
    let mut asker = enter(&world, "b").await;
    let lie = r#"{"acc":"FORGED"}"#;
    let mut blocks = vec![
        format!("NATS/1.0\r\nX: a\nNats-Request-Info: {lie}\r\n\r\n"),
        format!("NATS/1.0\r\nX: a\rNats-Request-Info: {lie}\r\n\r\n"),
        format!("NATS/1.0\nNats-Request-Info: {lie}\r\n\r\n"),
        format!("NATS/1.0\r\n\r\nNats-Request-Info: {lie}\r\n\r\n"),
        format!("NATS/1.0\r\nNats-Request-Info: {lie}\r\nNats-Request-Info: {lie}\r\n\r\n"),
        format!("NATS/1.0\r\nNats-Request-Info: {lie}"),
        format!("Nats-Request-Info: {lie}\r\n\r\n"),
        format!("\r\nNats-Request-Info: {lie}\r\n\r\n"),
        "no headers at all".to_owned(),
        "\r\n\r\n".to_owned(),
        "NATS/1.0".to_owned(),
    ];
    for name in [
        "Nats-Request-Info",
        "nats-request-info",
        "NATS-REQUEST-INFO",
        " Nats-Request-Info",
        "\tNats-Request-Info",
        "Nats-Request-Info ",
        "Nats-Request-Info\t",
        "Nats-request-Info",
    ] {
        blocks.push(format!("NATS/1.0\r\n{name}: {lie}\r\n\r\n"));
        blocks.push(format!("NATS/1.0\r\nX: y\r\n{name}:{lie}\r\nZ: z\r\n\r\n"));
    }
    for block in &blocks {
        asker.say(&hpub("ask", "inbox", block)).await;
        let head = service.line().await;
        assert!(head.starts_with("HMSG ask 1 _R_."), "{block:?}: {head}");
        let mut lines = Vec::new();
        // The block, up to its empty line, and the empty payload.
        while lines.len() < 2 || !lines[lines.len() - 2..].iter().all(String::is_empty) {
            lines.push(service.line().await);
        }
        assert_eq!(lines[0], "NATS/1.0", "{block:?}: {lines:?}");
        let infos: Vec<&String> =
            lines.iter().filter(|line| line.to_ascii_lowercase().contains("nats-request-info")).collect();
        assert_eq!(infos.len(), 1, "{block:?}: {lines:?}");
        assert!(infos[0].starts_with("Nats-Request-Info: {") && infos[0].contains(r#""acc":"B""#), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("FORGED")), "{block:?}: {lines:?}");
        let first_empty = lines.iter().position(String::is_empty).unwrap();
        assert!(lines.iter().position(|line| line == infos[0]).unwrap() < first_empty, "{lines:?}");
    }
    println!("{} forged blocks", blocks.len());
    world.server.stop().await;
}

/// What a stream stores and answers with: its own words come last, and those it alone writes it takes from nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_streams_write_cannot_be_forged() {
    let world = World::start(TEXT).await;
    let client = world.user("a", "p").await.unwrap();
    must(
        &client,
        "STREAM.CREATE.S",
        r#"{"name":"S","subjects":["s"],"allow_direct":true,"duplicate_window":60000000000}"#,
    )
    .await;
    let mut wire = enter(&world, "a").await;
    assert_eq!(wire.ask("SUB in 1").await, ["PONG"]);
    let mut published = async |block: &str| {
        wire.say(&hpub("s", "in", block)).await;
        let head = wire.line().await;
        let answer = wire.line().await;
        assert!(head.starts_with("MSG in 1 "), "{head}");
        answer
    };
    for (lines, refused) in [
        ("Nats-Stream-Source: S 99 > > s", true),
        ("Nats-Schedule: @every 1s\r\nNats-Schedule-Target: t", true),
        ("Nats-Incr: 5", true),
        ("Nats-Batch-Id: b\r\nNats-Batch-Sequence: 1", true),
        ("Nats-TTL: 5s", true),
        ("Nats-Rollup: all", true),
        ("Nats-Expected-Stream: T", true),
        // In another case they mean nothing.
        ("nats-stream-source: S 99 > > s", false),
        ("NATS-TTL: 5s", false),
        ("nats-rollup: all", false),
        (" Nats-Rollup: all", false),
        ("X: y\nNats-Rollup: all", false),
        ("nats-expected-stream: T", false),
        // The server's own words about another place.
        ("Nats-Stream: FORGED\r\nNats-Sequence: 99\r\nNats-Subject: FORGED", false),
        ("Nats-Num-Pending: 0\r\nNats-Last-Sequence: 99", false),
        ("Nats-Request-Info: {\"acc\":\"FORGED\"}", false),
    ] {
        let answer = published(&format!("NATS/1.0\r\n{lines}\r\n\r\n")).await;
        assert_eq!(answer.contains("\"error\""), refused, "{lines:?}: {answer}");
    }
    // The first of several ids is the message's id, and in another case it is none.
    let one = published("NATS/1.0\r\nNats-Msg-Id: a\r\nNats-Msg-Id: b\r\n\r\n").await;
    assert!(!one.contains("duplicate"), "{one}");
    for (block, duplicate) in [("Nats-Msg-Id: a", true), ("Nats-Msg-Id: b", false), ("nats-msg-id: a", false)] {
        let answer = published(&format!("NATS/1.0\r\n{block}\r\n\r\n")).await;
        assert_eq!(answer.contains("duplicate"), duplicate, "{block}: {answer}");
    }
    // A direct get's own words stand behind those of the message, where a reader that takes the last takes them.
    published("NATS/1.0\r\nNats-Sequence: 99\r\nNats-Subject: FORGED\r\n\r\n").await;
    let got = super::ask(&client, "$JS.API.DIRECT.GET.S.s", "").await;
    let info = must(&client, "STREAM.INFO.S", "").await;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert!(got.contains(&info["state"]["last_seq"].to_string()), "{got}");
    world.server.stop().await;
}

/// A status in a message that is stored would be taken for the server's by whoever pulls it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_not_stored() {
    let world = World::start(TEXT).await;
    let client = world.user("a", "p").await.unwrap();
    must(&client, "STREAM.CREATE.S", r#"{"name":"S","subjects":["s"]}"#).await;
    let consumer = r#"{"stream_name":"S","config":{"name":"C","durable_name":"C","ack_policy":"none"}}"#;
    must(&client, "CONSUMER.CREATE.S.C", consumer).await;
    let mut wire = enter(&world, "a").await;
    assert_eq!(wire.ask("SUB in 1\r\nSUB pulled 2").await, ["PONG"]);
    for (block, stored) in [
        ("NATS/1.0 409 Consumer Deleted\r\n\r\n", ""),
        ("NATS/1.0 100 Idle Heartbeat\r\nA: b\r\n\r\n", "NATS/1.0\r\nA: b\r\n\r\n"),
        ("NATS/1.0\r\nA: b\r\n\r\n", "NATS/1.0\r\nA: b\r\n\r\n"),
    ] {
        wire.say(&hpub("s", "in", block)).await;
        let (head, ack) = (wire.line().await, wire.line().await);
        assert!(head.starts_with("MSG in 1 ") && ack.contains("\"seq\""), "{head} {ack}");
        wire.say("PUB $JS.API.CONSUMER.MSG.NEXT.S.C pulled 0\r\n\r\n").await;
        let head = wire.line().await;
        let verb = if stored.is_empty() { "MSG" } else { "HMSG" };
        assert!(head.starts_with(&format!("{verb} s 2 $JS.ACK.S.C.")), "{block:?}: {head}");
        let mut lines = String::new();
        for _ in 0..stored.split("\r\n").count() {
            lines.push_str(&wire.line().await);
            lines.push_str("\r\n");
        }
        assert_eq!(lines, format!("{stored}\r\n"), "{block:?}");
    }
    world.server.stop().await;
}
