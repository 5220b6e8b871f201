//! What accounts show each other: streams and services, exported and imported, and subjects that are mapped.

use async_nats::jetstream;
use futures_util::StreamExt;

use super::{PATIENCE, World, next, settle};

const TEXT: &str = r#"
accounts {
    A {
        jetstream: enabled
        users: [ { user: a, password: p } ]
        exports: [
            { stream: "events.>" }
            { stream: "private.>", accounts: [ C ] }
            { service: "ask.*.*" }
            { service: "many", response_type: stream }
            { service: "$JS.API.>" }
            { service: "in.>" }
            { stream: "out.>" }
        ]
    }
    B {
        users: [
            { user: b, password: p }
            { user: narrow, password: p, permissions { publish: [ "please.x.>", "$JS.API.>" ], subscribe: [ "_INBOX_narrow.>", "a.events.1" ] } }
        ]
        imports: [
            { stream { account: A, subject: "events.>" }, prefix: a }
            { stream { account: A, subject: "out.*.*" }, to: "seen.$2.$1" }
            { service { account: A, subject: "ask.*.*" }, to: "please.$2.$1" }
            { service { account: A, subject: "many" }, share: true }
            { service { account: A, subject: "$JS.API.>" }, to: "A.API.>" }
            { service { account: A, subject: "in.>" } }
        ]
        exports: [ { stream: "a.events.>" }, { service: "please.>" } ]
    }
    C {
        users: [ { user: c, password: p } ]
        imports: [
            { stream { account: A, subject: "private.x" } }
            { stream { account: B, subject: "a.events.>" }, to: "far.>" }
            { service { account: B, subject: "please.>" }, to: "far.>" }
        ]
        mappings {
            "old.*": "new.$1"
            "split.*": [ { destination: "left.$1", weight: 50% }, { destination: "right.$1", weight: 50% } ]
            "lossy": { destination: "lossy", weight: 0 }
        }
    }
}
authorization { timeout: 30 }
"#;

/// Whoever asked has been told of nobody, or has given up: an answer that comes behind the threshold leads nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_overdue_is_kept_back() {
    let world = World::start(
        r#"accounts {
            A { users: [ { user: a, password: p } ], exports: [
                { service: "soon", response_threshold: "300ms" }, { service: "late", response_threshold: "1h" }
            ] }
            B { users: [ { user: b, password: p } ], imports: [
                { service { account: A, subject: "soon" } }, { service { account: A, subject: "late" } }
            ] }
        }
        authorization { timeout: 30 }"#,
    )
    .await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let (mut soon, mut late) = (a.subscribe("soon").await.unwrap(), a.subscribe("late").await.unwrap());
    let mut answers = b.subscribe("answers.*").await.unwrap();
    settle(&a).await;
    settle(&b).await;
    b.publish_with_reply("soon", "answers.soon", "?".into()).await.unwrap();
    b.publish_with_reply("late", "answers.late", "?".into()).await.unwrap();
    let (of_soon, of_late) = (next(&mut soon).await.reply.unwrap(), next(&mut late).await.reply.unwrap());
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    a.publish(of_soon, "too late".into()).await.unwrap();
    a.publish(of_late, "in time".into()).await.unwrap();
    let answer = next(&mut answers).await;
    assert_eq!((answer.subject.as_str(), &*answer.payload), ("answers.late", &b"in time"[..]));
    world.server.stop().await;
}

/// Returns once a client hears itself.
async fn heard(client: &async_nats::Client, subscriber: &mut async_nats::Subscriber) {
    client.publish("heard", "".into()).await.unwrap();
    assert_eq!(next(subscriber).await.subject.as_str(), "heard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_seen_where_it_is_imported_and_nowhere_else() {
    let world = World::start(TEXT).await;
    let (a, b, c) =
        (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap(), world.user("c", "p").await.unwrap());
    let (mut of_b, mut of_c) = (b.subscribe(">").await.unwrap(), c.subscribe(">").await.unwrap());
    let mut queued = [
        b.queue_subscribe("a.events.*", "q".into()).await.unwrap(),
        b.queue_subscribe("a.events.1", "q".into()).await.unwrap(),
    ];
    heard(&b, &mut of_b).await;
    heard(&c, &mut of_c).await;
    // What comes after the last of them shows that nothing else came before.
    for subject in ["events.1", "private.y", "out.left.right", "other", "private.x", "events.end"] {
        a.publish(subject, subject.into()).await.unwrap();
    }
    settle(&a).await;
    let seen = async |subscriber: &mut async_nats::Subscriber, last: &str| {
        let mut seen = Vec::new();
        loop {
            let message = next(subscriber).await;
            seen.push(format!("{} {}", message.subject, std::str::from_utf8(&message.payload).unwrap()));
            if message.payload == last {
                return seen;
            }
        }
    };
    let of_b = seen(&mut of_b, "events.end").await;
    assert_eq!(of_b, ["a.events.1 events.1", "seen.right.left out.left.right", "a.events.end events.end"]);
    // What B has of A is not B's to give away.
    let of_c = seen(&mut of_c, "private.x").await;
    assert_eq!(of_c, ["private.x private.x"]);
    let (first, second) = queued.split_at_mut(1);
    let one = tokio::select! {
        message = first[0].next() => message,
        message = second[0].next() => message,
    };
    assert_eq!(one.unwrap().subject.as_str(), "a.events.1");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_asked_where_it_is_imported_and_its_answers_find_back() {
    let world = World::start(TEXT).await;
    let (a, b, c) =
        (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap(), world.user("c", "p").await.unwrap());
    // Nobody serves yet.
    let error = b.request("please.1.2", "".into()).await.unwrap_err();
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    let mut service = a.subscribe("ask.>").await.unwrap();
    let mut many = a.subscribe("many").await.unwrap();
    settle(&a).await;
    let answering = tokio::spawn({
        let a = a.clone();
        async move {
            for _ in 0..3 {
                let request = next(&mut service).await;
                let reply = request.reply.clone().unwrap();
                assert!(reply.starts_with("_R_."), "{reply}");
                let info = request.headers.unwrap();
                let info: serde_json::Value =
                    serde_json::from_str(info.get("Nats-Request-Info").unwrap().as_str()).unwrap();
                let by = info["svc"].as_str().unwrap_or_default();
                let body = format!("{} {}{by}", request.subject, info["acc"].as_str().unwrap());
                a.publish(reply.clone(), body.into()).await.unwrap();
                // One request, one answer.
                a.publish(reply, "again".into()).await.unwrap();
            }
            let request = next(&mut many).await;
            let info = request.headers.unwrap();
            let info: serde_json::Value =
                serde_json::from_str(info.get("Nats-Request-Info").unwrap().as_str()).unwrap();
            assert_eq!((&info["user"], &info["acc"], &info["kind"]), (&"b".into(), &"B".into(), &"Client".into()));
            for body in ["1", "2", "", "late"] {
                a.publish(request.reply.clone().unwrap(), body.into()).await.unwrap();
            }
            settle(&a).await;
        }
    });
    // A client's own word about who it is does not pass.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("nats-request-info", r#"{"acc":"SYS"}"#);
    let answer = b.request_with_headers("please.1.2", headers, "".into()).await.unwrap();
    assert_eq!(answer.payload, "ask.2.1 B");
    let narrow = world.user("narrow", "p").await.unwrap();
    assert_eq!(narrow.request("please.x.2", "".into()).await.unwrap().payload, "ask.2.x B");
    // Over two accounts.
    assert_eq!(c.request("far.8.9", "".into()).await.unwrap().payload, "ask.9.8 CB");
    let inbox = b.new_inbox();
    let mut answers = b.subscribe(inbox.clone()).await.unwrap();
    b.publish_with_reply("many", inbox, "".into()).await.unwrap();
    for expected in ["1", "2", ""] {
        assert_eq!(next(&mut answers).await.payload, expected);
    }
    answering.await.unwrap();
    settle(&b).await;
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), answers.next()).await.is_err());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_another_account_is_managed_and_filled_over_its_exported_api() {
    let world = World::start(TEXT).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let own = jetstream::new(a);
    let config = jetstream::stream::Config { name: "S".into(), subjects: vec!["in.>".into()], ..Default::default() };
    own.create_stream(config).await.unwrap();
    let foreign = jetstream::with_prefix(b, "A.API");
    let mut stream = foreign.get_stream("S").await.unwrap();
    for number in 1..=3 {
        let ack = foreign.publish("in.x", format!("{number}").into()).await.unwrap().await.unwrap();
        assert_eq!(ack.sequence, number);
    }
    assert_eq!(stream.info().await.unwrap().state.messages, 3);
    let config = jetstream::consumer::pull::Config { durable_name: Some("C".into()), ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.fetch().max_messages(3).messages().await.unwrap();
    let first = tokio::time::timeout(PATIENCE, messages.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((&*first.payload, first.subject.as_str()), (&b"1"[..], "in.x"));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mapped_subjects_go_where_they_are_mapped() {
    let world = World::start(TEXT).await;
    let c = world.user("c", "p").await.unwrap();
    let mut all = c.subscribe(">").await.unwrap();
    heard(&c, &mut all).await;
    for number in 0..200 {
        c.publish(format!("split.{number}"), "".into()).await.unwrap();
    }
    c.publish("old.x", "".into()).await.unwrap();
    c.publish("lossy", "".into()).await.unwrap();
    c.publish("end", "".into()).await.unwrap();
    let (mut left, mut right, mut rest) = (0, 0, Vec::new());
    loop {
        let subject = next(&mut all).await.subject.to_string();
        match subject.split('.').next().unwrap() {
            "left" => left += 1,
            "right" => right += 1,
            "end" => break,
            _ => rest.push(subject),
        }
    }
    // The odds that 200 throws leave one side below 40 are less than one in 10^17.
    assert!(left + right == 200 && left >= 40 && right >= 40, "{left} {right}");
    assert_eq!(rest, ["new.x"]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_together_stops_the_start() {
    let with = |imports: &str, exports: &str| {
        format!("accounts {{ A {{ exports: [ {exports} ] }}, B {{ imports: [ {imports} ] }} }}")
    };
    let check = async |imports: &str, exports: &str, expected: &str| {
        let refusal = World::refusal(&with(imports, exports)).await;
        assert!(refusal.contains(expected), "{refusal}");
    };
    let x = "{ stream { account: A, subject: x } }";
    check(x, "{ stream: y }", "stream import not authorized").await;
    check(x, "{ stream: x, accounts: [ A ] }", "stream import not authorized").await;
    check("{ service { account: A, subject: x } }", "{ stream: x }", "service import not authorized").await;
    check("{ stream { account: Z, subject: x } }", "{ stream: x }", "\"Z\" account not defined for stream import")
        .await;
    check("", "{ stream: \"a..b\" }", "invalid subject").await;
    let circle = "accounts { A { exports: [ { stream: x } ], imports: [ { stream { account: B, subject: x } } ] }
        B { exports: [ { stream: x } ], imports: [ { stream { account: A, subject: x } } ] } }";
    assert!(World::refusal(circle).await.contains("import forms a cycle"));
    let mapping = r#"mappings { "a": [ { destination: b, weight: 60% }, { destination: c, weight: 60% } ] }"#;
    assert!(World::refusal(mapping).await.contains("total weight needs to be <= 100"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shared_changes_with_a_reload() {
    let text = |exports: &str, imports: &str, mappings: &str| {
        format!(
            "accounts {{
                A {{ users: [ {{ user: a, password: p }} ], exports: [ {exports} ] }}
                B {{ users: [ {{ user: b, password: p }} ], imports: [ {imports} ], mappings {{ {mappings} }} }}
            }}
            authorization {{ timeout: 30 }}"
        )
    };
    let exports = "{ stream: s }, { stream: t }";
    let mut world = World::start(&text(exports, "{ stream { account: A, subject: s } }", "")).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let mut all = b.subscribe(">").await.unwrap();
    heard(&b, &mut all).await;
    a.publish("s", "".into()).await.unwrap();
    assert_eq!(next(&mut all).await.subject.as_str(), "s");
    let imports = "{ stream { account: A, subject: t }, to: u }";
    assert_eq!(world.reload(&text(exports, imports, "m: n")).await.unwrap(), ["accounts"]);
    for subject in ["s", "t"] {
        a.publish(subject, "".into()).await.unwrap();
    }
    assert_eq!(next(&mut all).await.subject.as_str(), "u");
    b.publish("m", "".into()).await.unwrap();
    assert_eq!(next(&mut all).await.subject.as_str(), "n");
    // What does not fit leaves all as it is.
    assert!(world.reload(&text("{ stream: s }", imports, "")).await.is_err());
    a.publish("t", "".into()).await.unwrap();
    assert_eq!(next(&mut all).await.subject.as_str(), "u");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_consumer_delivers_to_whom_imports_its_subject_and_waits_for_them() {
    let world = World::start(TEXT).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let own = jetstream::new(a);
    let config = jetstream::stream::Config { name: "S".into(), subjects: vec!["in.>".into()], ..Default::default() };
    let stream = own.create_stream(config).await.unwrap();
    own.publish("in.1", "1".into()).await.unwrap().await.unwrap();
    let config = jetstream::consumer::push::Config {
        durable_name: Some("P".into()),
        deliver_subject: "events.pushed".into(),
        ..Default::default()
    };
    let mut consumer = stream.create_consumer(config).await.unwrap();
    // Nobody listens beyond the bridge: nothing is delivered.
    let info = consumer.info().await.unwrap();
    assert!(!info.push_bound && info.delivered.consumer_sequence == 0, "{info:?}");
    let mut pushed = b.subscribe("a.events.pushed").await.unwrap();
    let message = next(&mut pushed).await;
    assert_eq!((&*message.payload, message.subject.as_str()), (&b"1"[..], "in.1"));
    assert!(consumer.info().await.unwrap().push_bound);
    world.server.stop().await;
}

/// A queue group is one, also where some of its members import the stream, as on nats-server 2.15.1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_queue_group_in_other_accounts_take_turns_with_those_at_home() {
    let world = World::start(TEXT).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let mut members = [
        a.queue_subscribe("events.x", "q".into()).await.unwrap(),
        b.queue_subscribe("a.events.x", "q".into()).await.unwrap(),
        b.queue_subscribe("a.events.*", "q".into()).await.unwrap(),
    ];
    let mut others = b.queue_subscribe("a.events.>", "other".into()).await.unwrap();
    let mut end = [a.subscribe("events.end").await.unwrap(), b.subscribe("a.events.end").await.unwrap()];
    settle(&a).await;
    settle(&b).await;
    const COUNT: usize = 300;
    for _ in 0..COUNT {
        a.publish("events.x", "".into()).await.unwrap();
    }
    a.publish("events.end", "".into()).await.unwrap();
    for end in &mut end {
        next(end).await;
    }
    let mut counts = [0; 3];
    for (member, count) in members.iter_mut().zip(&mut counts) {
        while let Ok(Some(message)) = tokio::time::timeout(std::time::Duration::from_millis(100), member.next()).await {
            *count += usize::from(!message.subject.ends_with("end"));
        }
    }
    assert_eq!(counts.iter().sum::<usize>(), COUNT, "each message went to one of them: {counts:?}");
    assert!(counts.iter().all(|&count| count > COUNT / 10), "and to each of them some: {counts:?}");
    for _ in 0..COUNT {
        assert_eq!(next(&mut others).await.subject.as_str(), "a.events.x");
    }
    drop((a, b));
    world.server.stop().await;
}
