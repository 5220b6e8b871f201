//! What a user may publish, subscribe to and receive.

use async_nats::jetstream;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{PATIENCE, World, next, settle};

const TEXT: &str = r#"authorization {
    timeout: 30
    default_permissions: { publish: [ "$JS.API.>" ] }
    users: [
        { user: admin, password: p, permissions: { publish: ">", subscribe: ">" } }
        { user: plain, password: p }
        { user: bob, password: p, permissions: {
            publish: { allow: ["req.*", "bob.>"], deny: "bob.secret" }
            subscribe: { allow: ["bob.>", "work q1", "_INBOX_bob.>"], deny: "bob.secret.>" }
        } }
        { user: service, password: p, permissions: {
            subscribe: "req.*", allow_responses: { max: 2, expires: "1m" }
        } }
        { user: reader, password: p, permissions: { subscribe: { deny: "hidden.>" } } }
    ]
}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn violations_are_told_in_nats_servers_words() {
    let world = World::start(TEXT).await;
    let mut wire = world.wire().await;
    let connect = r#"CONNECT {"verbose":false,"user":"bob","pass":"p"}"#;
    assert_eq!(wire.ask(connect).await, ["PONG"]);
    for (said, expected) in [
        ("PUB nope 0\r\n", Some(r#"Permissions Violation for Publish to "nope""#)),
        ("PUB bob.secret 0\r\n", Some(r#"Permissions Violation for Publish to "bob.secret""#)),
        ("PUB bob.x 0\r\n", None),
        ("PUB req.x 0\r\n", None),
        ("PUB req.x.y 0\r\n", Some(r#"Permissions Violation for Publish to "req.x.y""#)),
        ("SUB nope 1", Some(r#"Permissions Violation for Subscription to "nope""#)),
        ("SUB > 1", Some(r#"Permissions Violation for Subscription to ">""#)),
        ("SUB bob.secret.x 1", Some(r#"Permissions Violation for Subscription to "bob.secret.x""#)),
        ("SUB work 1", Some(r#"Permissions Violation for Subscription to "work""#)),
        ("SUB work q2 1", Some(r#"Permissions Violation for Subscription to "work" using queue "q2""#)),
        ("SUB work q1 2", None),
        ("SUB bob.> 3", None),
    ] {
        let mut lines: Vec<String> = expected.iter().map(|text| format!("-ERR '{text}'")).collect();
        lines.push("PONG".to_owned());
        assert_eq!(wire.ask(said).await, lines, "{said}");
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wildcard_does_not_bring_what_is_denied() {
    let world = World::start(TEXT).await;
    let (admin, bob) = (world.user("admin", "p").await.unwrap(), world.user("bob", "p").await.unwrap());
    let mut all = bob.subscribe("bob.>").await.unwrap();
    let mut grouped = bob.queue_subscribe("bob.>", "g".into()).await.unwrap();
    bob.flush().await.unwrap();
    settle(&admin).await;
    let reached = async {
        // The subscription is there once a message comes through.
        loop {
            admin.publish("bob.hello", "".into()).await.unwrap();
            if tokio::time::timeout(std::time::Duration::from_millis(50), all.next()).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
    admin.publish("bob.secret.x", "".into()).await.unwrap();
    admin.publish("bob.end", "".into()).await.unwrap();
    for subscription in [&mut all, &mut grouped] {
        loop {
            let message = next(subscription).await;
            assert_ne!(message.subject.as_str(), "bob.secret.x");
            if message.subject.as_str() == "bob.end" {
                break;
            }
        }
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_may_be_answered_and_nothing_else_published() {
    let world = World::start(TEXT).await;
    let mut service = world.wire().await;
    let connect = r#"CONNECT {"verbose":false,"user":"service","pass":"p"}"#;
    assert_eq!(service.ask(&format!("{connect}\r\nSUB req.* 1")).await, ["PONG"]);
    let mut asker = world.wire().await;
    let connect = r#"CONNECT {"verbose":false,"user":"admin","pass":"p"}"#;
    assert_eq!(asker.ask(&format!("{connect}\r\nSUB inbox 1\r\nPUB req.a inbox 0\r\n")).await, ["PONG"]);
    assert_eq!(service.line().await, "MSG req.a 1 inbox 0");
    assert_eq!(service.line().await, "");
    assert_eq!(service.ask("PUB inbox 1\r\na").await, ["PONG"]);
    assert_eq!(service.ask("PUB inbox 1\r\nb").await, ["PONG"]);
    let refused = |subject| vec![format!(r#"-ERR 'Permissions Violation for Publish to "{subject}"'"#), "PONG".into()];
    assert_eq!(service.ask("PUB inbox 1\r\nc").await, refused("inbox"), "two answers were allowed");
    assert_eq!(service.ask("PUB other 1\r\nd").await, refused("other"));
    assert_eq!(asker.ask("UNSUB 9").await, ["MSG inbox 1 1", "a", "MSG inbox 1 1", "b", "PONG"]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_hold_for_those_who_have_no_permissions() {
    let world = World::start(TEXT).await;
    let mut wire = world.wire().await;
    let connect = r#"CONNECT {"verbose":false,"user":"plain","pass":"p"}"#;
    let violation = r#"-ERR 'Permissions Violation for Publish to "x"'"#;
    assert_eq!(wire.ask(&format!("{connect}\r\nSUB > 1\r\nPUB x 0\r\n")).await, [violation, "PONG"]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_defaults_of_its_own() {
    let world = World::start(
        r#"accounts {
            A {
                default_permissions: { publish: "a.>", subscribe: { deny: "secret" } }
                users: [ { user: plain, password: p }, { user: own, password: p, permissions: { publish: "own" } } ]
            }
            B { users: [ { user: other, password: p } ] }
        }
        authorization { timeout: 30 }"#,
    )
    .await;
    let no = |what: &str| format!("-ERR 'Permissions Violation for {what}'");
    let (publish, subscribe) = (no(r#"Publish to "x""#), no(r#"Subscription to "secret""#));
    for (user, expected) in
        [("plain", vec![&*publish, &*subscribe, "PONG"]), ("own", vec![&*publish, "PONG"]), ("other", vec!["PONG"])]
    {
        let mut wire = world.wire().await;
        let connect = format!(r#"CONNECT {{"verbose":false,"user":"{user}","pass":"p"}}"#);
        let said = wire.ask(&format!("{connect}\r\nPUB x 0\r\n\r\nSUB secret 1")).await;
        assert_eq!(said, expected, "{user}");
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_told_what_it_may_do() {
    let world = World::start(
        r#"authorization { users: [
            { user: free, password: p }
            { user: bob, password: p, permissions: {
                publish: { allow: ["$SYS.REQ.USER.INFO", "bob.>"], deny: "bob.secret" }
                subscribe: { allow: ["inbox", "work q1"], deny: "bob.secret.>" }
            } }
            { user: service, password: p, permissions: {
                publish: "$SYS.REQ.USER.INFO", subscribe: "inbox", allow_responses: { max: 2, expires: "1m" }
            } }
        ] }"#,
    )
    .await;
    for (user, permissions) in [
        ("free", json!(null)),
        (
            "bob",
            json!({
                "publish": {"allow": ["$SYS.REQ.USER.INFO", "bob.>"], "deny": ["bob.secret"]},
                "subscribe": {"allow": ["inbox", "work q1"], "deny": ["bob.secret.>"]},
            }),
        ),
        (
            "service",
            json!({
                "publish": {"allow": ["$SYS.REQ.USER.INFO"]}, "subscribe": {"allow": ["inbox"]},
                "responses": {"max": 2, "ttl": 60_000_000_000_i64},
            }),
        ),
    ] {
        let asker = world.user(user, "p").await.unwrap();
        let mut answers = asker.subscribe("inbox").await.unwrap();
        asker.publish_with_reply("$SYS.REQ.USER.INFO", "inbox", "".into()).await.unwrap();
        let told: Value = serde_json::from_slice(&next(&mut answers).await.payload).unwrap();
        let mut expected = json!({"user": user, "account": "$G", "account_name": "$G"});
        if !permissions.is_null() {
            expected["permissions"] = permissions;
        }
        assert_eq!(told["data"], expected);
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_is_not_to_be_had_from_a_stream() {
    let world = World::start(TEXT).await;
    let admin = jetstream::new(world.user("admin", "p").await.unwrap());
    let config = jetstream::stream::Config { name: "S".into(), subjects: vec!["*.>".into()], ..Default::default() };
    let config = jetstream::stream::Config { subjects: vec!["hidden.>".into(), "open.>".into()], ..config };
    admin.create_stream(config).await.unwrap();
    for subject in ["hidden.x", "open.x"] {
        admin.publish(subject, "".into()).await.unwrap().await.unwrap();
    }
    let reader = jetstream::new(world.user("reader", "p").await.unwrap());
    let stream = reader.get_stream("S").await.unwrap();
    let config =
        jetstream::consumer::pull::Config { ack_policy: jetstream::consumer::AckPolicy::None, ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.fetch().max_messages(10).messages().await.unwrap();
    let mut subjects = Vec::new();
    while let Some(message) = messages.next().await {
        subjects.push(message.unwrap().subject.to_string());
    }
    assert_eq!(subjects, ["open.x"]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_reaches_no_further_than_who_sets_it() {
    let text = r#"
accounts { A {
    jetstream: enabled
    users: [
        { user: admin, password: p }
        { user: bob, password: p, permissions: {
            publish: { deny: [ "t.theirs", "s.theirs" ] }
            subscribe: { deny: "t.secret" }
        } }
    ]
} }
authorization { timeout: 30 }
"#;
    let world = World::start(text).await;
    let admin = jetstream::new(world.user("admin", "p").await.unwrap());
    let config = jetstream::stream::Config {
        name: "S".into(),
        subjects: vec!["s.>".into(), "t.>".into()],
        allow_message_schedules: true,
        ..Default::default()
    };
    admin.create_stream(config).await.unwrap();
    let publish = async |subject: &str, lines: &[&str]| {
        let block = format!("NATS/1.0\r\n{}\r\n\r\n", lines.join("\r\n"));
        let mut wire = world.wire().await;
        let connect = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"user":"bob","pass":"p"}"#;
        let bytes = block.len();
        let mut lines = wire.ask(&format!("{connect}\r\nHPUB {subject} {bytes} {bytes}\r\n{block}")).await;
        assert_eq!(lines.pop().as_deref(), Some("PONG"));
        lines
    };
    let violation = |what: &str| vec![format!("-ERR 'Permissions Violation for {what}'")];
    let every = "Nats-Schedule: @every 1h";
    let target = publish("s.bob", &[every, "Nats-Schedule-Target: t.theirs"]).await;
    assert_eq!(target, violation(r#"Publish to "t.theirs""#));
    let source = publish("s.bob", &[every, "Nats-Schedule-Target: t.bob", "Nats-Schedule-Source: t.secret"]).await;
    assert_eq!(source, violation(r#"Subscription to "t.secret""#));
    let end = publish("t.bob", &["Nats-Schedule-Next: purge", "Nats-Scheduler: s.theirs"]).await;
    assert_eq!(end, violation(r#"Publish to "s.theirs""#));
    let own = publish("s.bob", &[every, "Nats-Schedule-Target: t.bob", "Nats-Schedule-Source: t.open"]).await;
    assert_eq!(own, Vec::<String>::new());
    let own = publish("t.bob", &["Nats-Schedule-Next: purge", "Nats-Scheduler: s.mine"]).await;
    assert_eq!(own, Vec::<String>::new());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_goes_to_nobody_who_is_denied_what_is_in_it() {
    let text = r#"
accounts { A {
    jetstream: enabled
    users: [
        { user: admin, password: p }
        { user: bob, password: p, permissions: { subscribe: { deny: [ "t.secret.*", "old" ] } } }
    ]
} }
authorization { timeout: 30 }
"#;
    let world = World::start(text).await;
    let [admin, bob] = [world.user("admin", "p").await.unwrap(), world.user("bob", "p").await.unwrap()];
    let api = async |client: &async_nats::Client, subject: &str, body: &str| -> serde_json::Value {
        let answer = client.request(format!("$JS.API.STREAM.{subject}"), body.to_owned().into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    for (name, subjects) in [("OPEN", r#""s.>""#), ("CLOSED", r#""t.>""#), ("WAS", r#""old","new""#)] {
        let body = format!(r#"{{"name":"{name}","subjects":[{subjects}]}}"#);
        assert!(api(&admin, &format!("CREATE.{name}"), &body).await["error"].is_null());
    }
    admin.request("old", "".into()).await.unwrap();
    api(&admin, "UPDATE.WAS", r#"{"name":"WAS","subjects":["new"]}"#).await;
    for (name, denied) in [("OPEN", false), ("CLOSED", true), ("WAS", true)] {
        let body = r#"{"deliver_subject":"_INBOX_bob.backup"}"#;
        let answer = api(&bob, &format!("SNAPSHOT.{name}"), body).await;
        let reason = &answer["error"]["description"];
        assert_eq!(answer["error"]["err_code"] == 10064, denied, "{name}: {answer}");
        assert!(!denied || reason.as_str().unwrap().contains("permissions violation"), "{name}: {answer}");
        let answer = api(&admin, &format!("SNAPSHOT.{name}"), body).await;
        assert!(answer["error"].is_null(), "{name}: {answer}");
    }
    world.server.stop().await;
}
