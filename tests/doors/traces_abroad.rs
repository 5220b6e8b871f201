//! Traces of messages that leave their account (ADR-41): as far as `allow_trace` lets them. Each expectation is what
//! nats-server 2.15.1 told, but that it names subscriptions to an imported stream by the exporter's subject.

use async_nats::Client;
use serde_json::{Value, json};

use super::traces::{headers, steps};
use super::{World, next, settle};

const TEXT: &str = r#"
accounts {
    A {
        jetstream: enabled
        users: [ { user: a, password: p } ]
        exports: [
            { service: q.ok, allow_trace: true }
            { service: q.no }
            { service: js, allow_trace: true }
            { stream: "s.>" }
        ]
    }
    B {
        users: [ { user: b, password: p } ]
        imports: [
            { service { account: A, subject: q.ok }, to: ok }
            { service { account: A, subject: q.no }, to: nope }
            { service { account: A, subject: js } }
            { stream { account: A, subject: s.ok }, to: t.ok, allow_trace: true }
            { stream { account: A, subject: s.nope }, to: t.nope }
        ]
        exports: [ { service: ok, allow_trace: true } ]
    }
    C { users: [ { user: c, password: p } ], imports: [ { service { account: B, subject: ok }, to: far } ] }
}
authorization { timeout: 30 }
"#;

/// The steps that are told of a message, and the answer or status that comes to it.
async fn way(client: &Client, subject: &str, only: bool) -> (Value, Option<String>) {
    let mut told = client.subscribe("told").await.unwrap();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    let mut lines = vec![("Nats-Trace-Dest", "told")];
    lines.extend(only.then_some(("Nats-Trace-Only", "true")));
    client
        .publish_with_reply_and_headers(subject.to_owned(), inbox.clone(), headers(&lines), "x".into())
        .await
        .unwrap();
    let steps = steps(&next(&mut told).await.payload);
    if only && subject != "nope" {
        return (steps, None);
    }
    let answer = next(&mut answers).await;
    let text =
        answer.status.map_or_else(|| String::from_utf8(answer.payload.to_vec()).unwrap(), |status| status.to_string());
    (steps, Some(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_show_where_requests_go_if_they_like() {
    let world = World::start(TEXT).await;
    let (a, b, c) =
        (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap(), world.user("c", "p").await.unwrap());
    a.request("$JS.API.STREAM.CREATE.J", r#"{"name":"J","subjects":["js"]}"#.into()).await.unwrap();
    let mut requests = a.subscribe("q.*").await.unwrap();
    settle(&a).await;
    let (seen, of_services) = tokio::sync::mpsc::unbounded_channel();
    let service = tokio::spawn({
        let a = a.clone();
        async move {
            loop {
                let request = next(&mut requests).await;
                let dest = request.headers.and_then(|headers| headers.get("Nats-Trace-Dest").map(ToString::to_string));
                seen.send((request.subject.to_string(), dest)).unwrap();
                a.publish(request.reply.unwrap(), "r".into()).await.unwrap();
            }
        }
    });
    let input = |account: &str, subject: &str| json!({"type": "in", "acc": account, "subj": subject});
    let import = |account: &str, from: &str, to: &str| json!({"type": "si", "acc": account, "from": from, "to": to});
    // The subscription is one with a wildcard.
    let output = json!({"type": "eg", "acc": "A", "sub": "q.*"});
    for (client, subject, expected) in [
        (&b, "ok", json!([input("B", "ok"), import("A", "ok", "q.ok"), output])),
        (&b, "nope", json!([input("B", "nope"), import("A", "nope", "q.no")])),
        (&c, "far", json!([input("C", "far"), import("B", "far", "ok"), import("A", "ok", "q.ok"), output])),
    ] {
        let (steps, answer) = way(client, subject, false).await;
        assert_eq!((steps, answer.as_deref()), (expected.clone(), Some("r")), "{subject}");
        let (steps, answer) = way(client, subject, true).await;
        let status = (subject == "nope").then_some("503");
        assert_eq!(steps, expected, "{subject}");
        assert!(answer.as_deref().unwrap_or_default().starts_with(status.unwrap_or_default()), "{subject} {answer:?}");
    }
    let expected = json!([input("B", "js"), import("A", "js", "js"), {"type": "js", "stream": "J", "subject": "js"}]);
    let (steps, answer) = way(&b, "js", false).await;
    assert_eq!((steps, answer.as_deref()), (expected.clone(), Some(r#"{"stream":"J","seq":1}"#)));
    assert_eq!(way(&b, "js", true).await.0, expected);
    // What the services got is not to be traced again, and what was only to be traced has not come to them.
    service.abort();
    let mut of_services = of_services;
    let mut seen = Vec::new();
    while let Ok((subject, dest)) = of_services.try_recv() {
        assert_eq!(dest.as_deref(), Some("trace disabled"));
        seen.push(subject);
    }
    assert_eq!(seen, ["q.ok", "q.no", "q.ok"]);
    drop((a, b, c));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn importers_of_streams_show_where_they_go_if_they_like() {
    let world = World::start(TEXT).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let mut told = a.subscribe("told").await.unwrap();
    let (mut ok, mut nope) = (b.subscribe("t.ok").await.unwrap(), b.subscribe("t.nope").await.unwrap());
    settle(&a).await;
    settle(&b).await;
    for (only, payload) in [(true, "told"), (false, "sent")] {
        let mut lines = vec![("Nats-Trace-Dest", "told")];
        lines.extend(only.then_some(("Nats-Trace-Only", "true")));
        for (subject, to, shown) in [("s.ok", "t.ok", true), ("s.nope", "t.nope", false)] {
            a.publish_with_headers(subject, headers(&lines), payload.into()).await.unwrap();
            let mut expected =
                vec![json!({"type": "in", "acc": "A", "subj": subject}), json!({"type": "se", "acc": "B", "to": to})];
            expected.extend(shown.then(|| json!({"type": "eg", "acc": "B", "sub": to})));
            assert_eq!(steps(&next(&mut told).await.payload), Value::from(expected), "{subject} {only}");
        }
    }
    assert_eq!(next(&mut ok).await.payload, "sent");
    assert_eq!(next(&mut nope).await.payload, "sent");
    // Where nobody hears it, it does not go.
    a.publish_with_headers("s.other", headers(&[("Nats-Trace-Dest", "told")]), "".into()).await.unwrap();
    assert_eq!(steps(&next(&mut told).await.payload), json!([{"type": "in", "acc": "A", "subj": "s.other"}]));
    drop((a, b));
    world.server.stop().await;
}
