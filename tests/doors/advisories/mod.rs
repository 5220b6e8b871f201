//! One test for each class of published nats-server advisory that is about the doors; secrets have tests/canary.rs.

mod abuse;
mod circles;
mod detours;
mod fast_paths;
mod frames;
mod headers;
mod keys;
mod names;
mod numbers;
mod settings;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PATIENCE, Wire, World, next, settle};

const TEXT: &str = r#"
accounts {
    A { jetstream: enabled, users: [ { user: a, password: p }, { nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 } ] }
    B { jetstream: enabled, users: [ { user: b, password: p } ] }
}
authorization { timeout: 30 }
"#;

/// The answer to a request, headers behind its payload; what went wrong when there is none.
async fn ask(client: &async_nats::Client, subject: &str, body: impl Into<Bytes>) -> String {
    let answer = client.request(subject.to_owned(), body.into()).await;
    answer.map_or_else(
        |error| error.to_string(),
        |message| {
            let status = message.status.map_or_else(String::new, |status| format!(" {status}"));
            let headers = message.headers.map_or_else(String::new, |headers| format!("{headers:?}"));
            format!("{}{status}{headers}", String::from_utf8_lossy(&message.payload))
        },
    )
}

/// As [`ask`], of the JetStream API, and what must have gone well.
async fn must(client: &async_nats::Client, subject: &str, body: impl Into<Bytes>) -> String {
    let answer = ask(client, &format!("$JS.API.{subject}"), body).await;
    assert!(answer.starts_with('{') && !answer.contains("\"error\":"), "{subject}: {answer}");
    answer
}

/// A connection of `user`, whose password is `p`, that has been let in.
async fn enter(world: &World, user: &str) -> Wire {
    let mut wire = world.wire().await;
    let hello = format!(r#"CONNECT {{"verbose":false,"headers":true,"user":"{user}","pass":"p"}}"#);
    assert_eq!(wire.ask(&hello).await, ["PONG"]);
    wire
}

/// What is said to a client that says all of `bytes` at once, to the end or to `until`.
async fn answer(world: &World, bytes: &[u8], until: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    // The other end may have closed before all is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer in time") {
            Ok(0) | Err(_) => break,
            Ok(_) if !until.is_empty() && answer.windows(until.len()).any(|window| window == until) => break,
            Ok(_) => {}
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Crashes before authentication, and a way around it: any four operations, in any order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_of_operations_before_connect_does_anything() {
    const OPS: [&str; 8] = [
        "PUB x 1\r\ny\r\n",
        "HPUB x 12 13\r\nNATS/1.0\r\n\r\ny\r\n",
        "SUB > 1\r\n",
        "UNSUB 1\r\n",
        "PING\r\n",
        "PONG\r\n",
        "CONNECT {}\r\n",
        "INFO {}\r\n",
    ];
    let world = World::start(TEXT).await;
    let a = world.user("a", "p").await.unwrap();
    let mut heard = a.subscribe("x").await.unwrap();
    settle(&a).await;
    let mut orders = Vec::new();
    for number in 0..OPS.len().pow(4) {
        let ops = (0..4).map(|place| OPS[number / OPS.len().pow(place) % OPS.len()]);
        orders.push(ops.collect::<String>());
    }
    for some in orders.chunks(64) {
        let answers = some.iter().map(|order| answer(&world, order.as_bytes(), b"-ERR"));
        for (order, said) in some.iter().zip(futures_util::future::join_all(answers).await) {
            let mut lines = said.lines();
            assert!(lines.next().is_some_and(|line| line.starts_with("INFO {")), "{order:?}: {said}");
            let quiet = lines.all(|line| line.starts_with("-ERR"));
            assert!(quiet && said.contains("-ERR"), "{order:?}: {said}");
        }
    }
    a.publish("x", "last".into()).await.unwrap();
    assert_eq!(next(&mut heard).await.payload, "last");
    world.server.stop().await;
}

/// Crashes by keys, signatures and tokens of any length, and keys of zeros.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_signatures_of_every_length_let_nobody_in() {
    const KEY: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let world = World::start(TEXT).await;
    let mut hellos = Vec::new();
    for length in 0..130 {
        for filler in ["A", "_", "=", "é"] {
            let text = filler.repeat(length);
            hellos.push(format!(r#"{{"nkey":"{KEY}","sig":"{text}"}}"#));
            hellos.push(format!(r#"{{"nkey":"{text}","sig":"{}"}}"#, "A".repeat(86)));
            hellos.push(format!(r#"{{"jwt":"{text}.{text}.{text}","sig":"{text}"}}"#));
        }
        hellos.push(format!(r#"{{"nkey":"{}","sig":"{}"}}"#, &KEY[..length.min(KEY.len())], "A".repeat(86)));
    }
    for some in hellos.chunks(64) {
        let texts: Vec<String> = some.iter().map(|hello| format!("CONNECT {hello}\r\nPING\r\n")).collect();
        let answers = texts.iter().map(|text| answer(&world, text.as_bytes(), b"-ERR"));
        for (hello, said) in some.iter().zip(futures_util::future::join_all(answers).await) {
            assert!(said.contains("-ERR 'Authorization Violation'") && !said.contains("PONG"), "{hello}: {said}");
        }
    }
    world.user("a", "p").await.expect("the server lives");
    world.server.stop().await;
}

/// Crossing accounts: no API request reaches what another account has, whatever it names and by whichever prefix.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_requests_reach_their_own_account_only() {
    let world = World::start(&format!("jetstream {{ domain: hub }}\n{TEXT}")).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    assert!(
        ask(&a, "$JS.API.STREAM.CREATE.S", r#"{"name":"S","subjects":["s"],"allow_direct":true}"#)
            .await
            .contains("did_create")
    );
    let consumer = r#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}"#;
    assert!(ask(&a, "$JS.API.CONSUMER.CREATE.S.C", consumer).await.contains("\"name\":\"C\""));
    assert!(ask(&a, "s", "secret").await.contains("\"seq\":1"));
    let state = async || ask(&a, "$JS.API.STREAM.INFO.S", "").await.split("\"ts\"").next().unwrap().to_owned();
    let before = state().await;
    for (subject, body) in [
        ("STREAM.INFO.S", ""),
        ("STREAM.UPDATE.S", r#"{"name":"S","subjects":["t"]}"#),
        ("STREAM.DELETE.S", ""),
        ("STREAM.PURGE.S", ""),
        ("STREAM.MSG.GET.S", r#"{"seq":1}"#),
        ("STREAM.MSG.DELETE.S", r#"{"seq":1}"#),
        ("STREAM.SNAPSHOT.S", r#"{"deliver_subject":"d"}"#),
        ("DIRECT.GET.S", r#"{"seq":1}"#),
        ("DIRECT.GET.S.s", ""),
        ("CONSUMER.CREATE.S.D", r#"{"stream_name":"S","config":{"durable_name":"D","ack_policy":"explicit"}}"#),
        ("CONSUMER.INFO.S.C", ""),
        ("CONSUMER.DELETE.S.C", ""),
        ("CONSUMER.PAUSE.S.C", r#"{"pause_until":"2999-01-01T00:00:00Z"}"#),
        ("CONSUMER.RESET.S.C", ""),
        ("CONSUMER.MSG.NEXT.S.C", r#"{"batch":1,"no_wait":true}"#),
        ("CONSUMER.LIST.S", ""),
        ("CONSUMER.NAMES.S", ""),
        ("CONSUMER.UNPIN.S.C", r#"{"group":"g"}"#),
        ("CONSUMER.DURABLE.CREATE.S.D", r#"{"stream_name":"S","config":{"durable_name":"D","ack_policy":"explicit"}}"#),
        ("STREAM.RESTORE.S", r#"{"config":{"name":"OTHER","subjects":["s"]},"state":{}}"#),
        ("STREAM.CREATE.M", r#"{"name":"M","mirror":{"name":"S"}}"#),
    ] {
        for prefix in ["$JS.API", "$JS.hub.API"] {
            let said = ask(&b, &format!("{prefix}.{subject}"), body).await;
            // A mirror waits for an origin of its own account.
            if subject.starts_with("STREAM.CREATE") {
                assert!(ask(&b, &format!("{prefix}.STREAM.INFO.M"), "").await.contains("\"messages\":0"));
                must(&b, "STREAM.DELETE.M", "").await;
                continue;
            }
            let denied = said.contains("stream not found") || said.contains("no responders") || said.contains("error");
            assert!(denied && !said.contains("secret") && !said.contains("c2VjcmV0"), "{prefix}.{subject}: {said}");
        }
    }
    // A backup that is restored under the name of another account's stream is a stream of one's own.
    let begun = must(&b, "STREAM.RESTORE.S", r#"{"config":{"name":"S","subjects":["s"]},"state":{}}"#).await;
    let begun: serde_json::Value = serde_json::from_str(&begun).unwrap();
    let chunks = begun["deliver_subject"].as_str().unwrap();
    ask(&b, chunks, "no backup").await;
    let ended = ask(&b, chunks, "").await;
    assert!(ended.contains("error") || ended.contains("no responders"), "{ended}");
    // A subject that names one stream and a body that names another.
    let mismatch = ask(&b, "$JS.API.STREAM.CREATE.T", r#"{"name":"S","subjects":["z"]}"#).await;
    assert!(mismatch.contains("does not match"), "{mismatch}");
    for list in ["STREAM.NAMES", "STREAM.LIST"] {
        assert!(ask(&b, &format!("$JS.API.{list}"), "").await.contains("\"total\":0"));
    }
    // Acks of another account's deliveries do nothing either.
    b.publish("$JS.ACK.S.C.1.1.1.1.0", "+ACK".into()).await.unwrap();
    settle(&b).await;
    assert_eq!(state().await, before);
    world.server.stop().await;
}

/// What a subject names and what its body names are the same, or nothing is done: whoever may use the one must not get the
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_does_what_its_subject_says_or_nothing() {
    let world = World::start(&format!("jetstream {{ domain: hub }}\n{TEXT}")).await;
    let a = world.user("a", "p").await.unwrap();
    for name in ["S", "T"] {
        must(&a, &format!("STREAM.CREATE.{name}"), format!(r#"{{"name":"{name}","subjects":["{name}"]}}"#)).await;
        let consumer = format!(r#"{{"stream_name":"{name}","config":{{"durable_name":"C","ack_policy":"explicit"}}}}"#);
        must(&a, &format!("CONSUMER.CREATE.{name}.C"), consumer).await;
    }
    let state = async || {
        let mut all = String::new();
        for request in ["STREAM.INFO.S", "STREAM.INFO.T", "CONSUMER.NAMES.S", "CONSUMER.NAMES.T", "STREAM.NAMES"] {
            all += must(&a, request, "").await.split("\"ts\"").next().unwrap();
        }
        all
    };
    let before = state().await;
    for (subject, body) in [
        ("STREAM.CREATE.N", r#"{"name":"M","subjects":["n"]}"#),
        ("STREAM.UPDATE.S", r#"{"name":"T","subjects":["T","more"]}"#),
        ("STREAM.RESTORE.N", r#"{"config":{"name":"M","subjects":["n"]},"state":{}}"#),
        ("CONSUMER.CREATE.S", r#"{"stream_name":"T","config":{"name":"D","ack_policy":"none"}}"#),
        ("CONSUMER.CREATE.S.D", r#"{"stream_name":"T","config":{"name":"D","ack_policy":"none"}}"#),
        ("CONSUMER.CREATE.S.D", r#"{"stream_name":"S","config":{"durable_name":"E","ack_policy":"none"}}"#),
        (
            "CONSUMER.CREATE.S.D.S",
            r#"{"stream_name":"S","config":{"name":"D","filter_subject":"other","ack_policy":"none"}}"#,
        ),
        (
            "CONSUMER.CREATE.S.D.S",
            r#"{"stream_name":"S","config":{"name":"D","filter_subjects":["S","other"],"ack_policy":"none"}}"#,
        ),
        ("CONSUMER.DURABLE.CREATE.S.D", r#"{"stream_name":"S","config":{"durable_name":"E","ack_policy":"none"}}"#),
        ("CONSUMER.DURABLE.CREATE.S.D", r#"{"stream_name":"T","config":{"durable_name":"D","ack_policy":"none"}}"#),
    ] {
        for prefix in ["$JS.API", "$JS.hub.API"] {
            let said = ask(&a, &format!("{prefix}.{subject}"), body).await;
            assert!(said.contains("\"error\":{"), "{prefix}.{subject} {body}: {said}");
        }
    }
    assert_eq!(state().await, before);
    // A consumer that is not durable is called as its subject says, as by nats-server.
    let body = r#"{"stream_name":"S","config":{"name":"E","ack_policy":"none"}}"#;
    let made = must(&a, "CONSUMER.CREATE.S.D", body).await;
    assert!(made.contains("\"name\":\"D\"") && !made.contains("\"E\""), "{made}");
    world.server.stop().await;
}
