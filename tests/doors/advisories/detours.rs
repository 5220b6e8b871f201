//! Permissions by a detour: what a user may not do is not done for it by the server, and what it may not have does not come
//! to it out of a stream under another name.

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::{self, consumer};
use futures_util::StreamExt;

use super::super::{World, next, round};
use super::{ask, enter, must};

const TEXT: &str = r#"
accounts {
    A {
        jetstream: enabled
        users: [
            { user: admin, password: p }
            { user: puller, password: p, permissions: { publish: "$JS.API.CONSUMER.MSG.NEXT.>", subscribe: "_INBOX.>" } }
            { user: getter, password: p, permissions: { publish: "$JS.API.DIRECT.GET.>", subscribe: "_INBOX.>" } }
            { user: acker, password: p, permissions: { publish: "$JS.ACK.>", subscribe: "_INBOX.>" } }
            { user: maker, password: p, permissions: { publish: "$JS.API.CONSUMER.CREATE.>", subscribe: "_INBOX.>" } }
            { user: asker, password: p, permissions: { publish: ["$JS.API.INFO", "$SYS.REQ.USER.INFO", "s"], subscribe: "_INBOX.>" } }
            { user: reader, password: p, permissions: { subscribe: { deny: "secret.>" } } }
        ]
        mappings { "alias.*": "secret.$1" }
    }
}
authorization { timeout: 30 }
"#;

/// The server answers on, and delivers to, whatever subject a client names; but never as a request to itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_asks_itself_nothing_for_others() {
    let world = World::start(TEXT).await;
    let admin = world.user("admin", "p").await.unwrap();
    must(&admin, "STREAM.CREATE.S", r#"{"name":"S","subjects":["s"],"allow_direct":true}"#).await;
    must(
        &admin,
        "STREAM.CREATE.R",
        r#"{"name":"R","subjects":["r"],"republish":{"src":"r","dest":"$JS.API.STREAM.DELETE.V"}}"#,
    )
    .await;
    for name in ["c", "d", "held"] {
        let config = format!(r#"{{"stream_name":"S","config":{{"name":"{name}","ack_policy":"explicit"}}}}"#);
        must(&admin, &format!("CONSUMER.CREATE.S.{name}"), config).await;
    }
    must(&admin, "STREAM.CREATE.V", r#"{"name":"V","subjects":["v"]}"#).await;
    assert!(ask(&admin, "s", "").await.contains("\"seq\":1"));
    let mut inbox = admin.subscribe("held").await.unwrap();
    admin.publish_with_reply("$JS.API.CONSUMER.MSG.NEXT.S.held", "held", "1".into()).await.unwrap();
    let held = next(&mut inbox).await.reply.unwrap().to_string();
    let mut cases = 0;
    // An empty message is what deletes, purges and asks.
    for target in [
        "$JS.API.STREAM.DELETE.V",
        "$JS.API.STREAM.PURGE.S",
        "$JS.API.CONSUMER.DELETE.S.held",
        "$JS.ACK.S.held.1.1.1.1.0",
    ] {
        let body = r#"{"batch":1,"no_wait":true}"#;
        let push = format!(
            r#"{{"stream_name":"S","config":{{"name":"push{cases}","deliver_subject":"{target}","ack_policy":"none"}}}}"#
        );
        for (user, subject, payload) in [
            ("puller", "$JS.API.CONSUMER.MSG.NEXT.S.c".to_owned(), body),
            ("puller", "$JS.API.CONSUMER.MSG.NEXT.S.d".to_owned(), "not json"),
            ("puller", "$JS.API.CONSUMER.MSG.NEXT.S.none".to_owned(), body),
            ("getter", "$JS.API.DIRECT.GET.S".to_owned(), r#"{"seq":1}"#),
            ("getter", "$JS.API.DIRECT.GET.S".to_owned(), r#"{"seq":9}"#),
            ("getter", "$JS.API.DIRECT.GET.S.s".to_owned(), ""),
            ("getter", "$JS.API.DIRECT.GET.S".to_owned(), r#"{"multi_last":["s"]}"#),
            ("acker", held.clone(), "+WPI"),
            ("maker", format!("$JS.API.CONSUMER.CREATE.S.push{cases}"), &*push),
            ("asker", "$JS.API.INFO".to_owned(), ""),
            ("asker", "$SYS.REQ.USER.INFO".to_owned(), ""),
            ("asker", "s".to_owned(), ""),
            ("admin", "r".to_owned(), ""),
        ] {
            // The reply that would make an ack is refused by itself.
            let reply = if target.starts_with("$JS.ACK.") { "_INBOX.x" } else { target };
            let mut wire = enter(&world, user).await;
            let said = wire.ask(&format!("PUB {subject} {reply} {}\r\n{payload}", payload.len())).await;
            assert_eq!(said, ["PONG"], "{user} {subject} {reply}");
            cases += 1;
        }
    }
    round(&admin).await;
    // Requests about streams are worked through one after the other: this one comes last.
    must(&admin, "STREAM.CREATE.LAST", r#"{"name":"LAST","subjects":["last"]}"#).await;
    must(&admin, "STREAM.INFO.V", "").await;
    let info = must(&admin, "STREAM.INFO.S", "").await;
    assert!(info.contains(r#""first_seq":1,"#), "{info}");
    let held = must(&admin, "CONSUMER.INFO.S.held", "").await;
    assert!(held.contains(r#""num_ack_pending":1"#), "{held}");
    println!("{cases} requests by the server's mouth");
    world.server.stop().await;
}

/// What is denied to a subscriber does not come out of a stream in any way there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_does_not_come_by_another_way() {
    let world = World::start(TEXT).await;
    let (admin, reader) = (world.user("admin", "p").await.unwrap(), world.user("reader", "p").await.unwrap());
    must(
        &admin,
        "STREAM.CREATE.S",
        r#"{"name":"S","subjects":["secret.>","open.>"],"allow_direct":true,"republish":{"src":"secret.>","dest":"out.>"}}"#,
    )
    .await;
    must(&admin, "STREAM.CREATE.M", r#"{"name":"M","mirror":{"name":"S"},"allow_direct":true}"#).await;
    must(&admin, "STREAM.CREATE.N", r#"{"name":"N","sources":[{"name":"S"}],"allow_direct":true}"#).await;
    let mut audit = reader.subscribe("$JS.EVENT.ADVISORY.API").await.unwrap();
    let mut all = reader.subscribe(">").await.unwrap();
    let mut grouped = reader.queue_subscribe(">", "g".into()).await.unwrap();
    let mut narrow = reader.subscribe("*.x").await.unwrap();
    let mut out = reader.subscribe("out.>").await.unwrap();
    round(&reader).await;
    for subject in ["secret.x", "open.x", "alias.y", "open.end"] {
        assert!(ask(&admin, subject, "TOP").await.contains("\"seq\""), "{subject}");
    }
    // What a stream is told to publish again under another name goes by that name.
    for subject in ["out.x", "out.y"] {
        assert_eq!(next(&mut out).await.subject.as_str(), subject);
    }
    let copied = async {
        for stream in ["M", "N"] {
            while !must(&admin, &format!("STREAM.INFO.{stream}"), "").await.contains(r#""last_seq":4,"#) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(super::super::PATIENCE, copied).await.expect("the copies catch up");
    for subscription in [&mut all, &mut grouped] {
        loop {
            let message = next(subscription).await;
            assert!(!message.subject.starts_with("secret."), "{message:?}");
            if message.subject.as_str() == "open.end" {
                break;
            }
        }
    }
    for _ in ["out.x", "open.x"] {
        assert_ne!(next(&mut narrow).await.subject.as_str(), "secret.x");
    }
    for stream in ["S", "M", "N"] {
        for (subject, body) in [
            (format!("DIRECT.GET.{stream}"), r#"{"seq":1}"#),
            (format!("DIRECT.GET.{stream}"), r#"{"last_by_subj":"secret.x"}"#),
            (format!("DIRECT.GET.{stream}"), r#"{"next_by_subj":"secret.>"}"#),
            (format!("DIRECT.GET.{stream}.secret.x"), ""),
            (format!("STREAM.MSG.GET.{stream}"), r#"{"seq":1}"#),
            (format!("STREAM.MSG.GET.{stream}"), r#"{"last_by_subj":"secret.y"}"#),
        ] {
            let answer = ask(&reader, &format!("$JS.API.{subject}"), body).await;
            assert!(
                answer.contains("404") && !answer.contains("TOP") && !answer.contains("VE9Q"),
                "{subject} {body}: {answer}"
            );
            let answer = ask(&admin, &format!("$JS.API.{subject}"), body).await;
            assert!(answer.contains("TOP") || answer.contains("VE9Q"), "{subject} {body}: {answer}");
        }
        let answer = ask(&reader, &format!("$JS.API.DIRECT.GET.{stream}"), r#"{"seq":2}"#).await;
        assert!(answer.contains("TOP"), "{answer}");
        let mut inbox = reader.subscribe(format!("batch.{stream}")).await.unwrap();
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let body = r#"{"multi_last":["secret.>","open.>"]}"#;
        reader.publish_with_reply(subject, format!("batch.{stream}"), body.into()).await.unwrap();
        let mut subjects = Vec::new();
        loop {
            let message = next(&mut inbox).await;
            if message.status.is_some() {
                break;
            }
            subjects.push(message.headers.unwrap().get("Nats-Subject").unwrap().to_string());
        }
        assert_eq!(subjects, ["open.x", "open.end"]);
        let js = jetstream::new(reader.clone());
        let config = consumer::pull::Config {
            ack_policy: consumer::AckPolicy::None,
            deliver_policy: DeliverPolicy::LastPerSubject,
            filter_subject: ">".to_owned(),
            ..Default::default()
        };
        let pull = js.get_stream(stream).await.unwrap().create_consumer(config).await.unwrap();
        let mut messages = pull.fetch().max_messages(10).messages().await.unwrap();
        let mut subjects = Vec::new();
        while let Some(message) = messages.next().await {
            subjects.push(message.unwrap().subject.to_string());
        }
        assert_eq!(subjects, ["open.x", "open.end"], "{stream}");
        // A message that is kept back is sent again when its time has come, and holds nobody up until then.
        let config = consumer::pull::Config { ack_wait: std::time::Duration::from_secs(3600), ..Default::default() };
        let mut pull = js.get_stream(stream).await.unwrap().create_consumer(config).await.unwrap();
        let mut messages = pull.fetch().max_messages(10).messages().await.unwrap();
        let mut count = 0;
        while let Some(message) = messages.next().await {
            message.unwrap().double_ack().await.unwrap();
            count += 1;
        }
        assert_eq!(count, 2, "{stream}");
        let info = pull.info().await.unwrap();
        assert_eq!((info.num_ack_pending, info.delivered.consumer_sequence), (2, 4), "{stream}: {info:?}");
    }
    // What auditors are told holds the answers.
    admin.publish("open.audited", "".into()).await.unwrap();
    ask(&admin, "$JS.API.STREAM.MSG.GET.S", r#"{"seq":1}"#).await;
    ask(&admin, "$JS.API.STREAM.MSG.GET.S", r#"{"seq":4}"#).await;
    loop {
        let told = String::from_utf8_lossy(&next(&mut audit).await.payload).into_owned();
        let of_stream = told.contains("STREAM.MSG.GET");
        assert!(!(of_stream && told.contains("secret.") && told.contains("VE9Q")), "{told}");
        if of_stream && told.contains("open.end") {
            break;
        }
    }
    world.server.stop().await;
}
