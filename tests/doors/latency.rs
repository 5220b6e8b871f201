//! How long services take that other accounts ask: who is measured, and what is told of it. As nats-server 2.15.1 does.

use async_nats::{Client, HeaderMap, Subscriber};
use futures_util::StreamExt;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::jwt::{operator_mode, user};
use super::{PATIENCE, World, next, settle};

/// Account A with its services, and B that asks them.
fn text(exports: &str) -> String {
    format!(
        r#"
accounts {{
    A {{ users: [ {{ user: a, password: p }} ], exports: [ {exports} ] }}
    B {{
        users: [ {{ user: b, password: p }} ]
        imports: [
            {{ service {{ account: A, subject: "all.*" }}, to: "ask.*" }}
            {{ service {{ account: A, subject: "told" }}, share: true }}
        ]
    }}
}}
authorization {{ timeout: 30 }}
"#
    )
}

const BOTH: &str = r#"
    { service: "all.*", latency: { sampling: "100%", subject: "m.all" } }
    { service: "told", latency: { sampling: headers, subject: "m.told" } }
"#;

/// The service's client, who hears the metrics, and the client that asks.
async fn both(world: &World) -> (Client, Subscriber, Client) {
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let metrics = a.subscribe("m.>").await.unwrap();
    settle(&a).await;
    (a, metrics, b)
}

/// Answers all requests on a subject that do not say `silence`.
async fn serve(a: &Client, subject: &'static str) {
    let mut requests = a.subscribe(subject).await.unwrap();
    settle(a).await;
    let a = a.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply.filter(|_| request.payload != "silence") {
                let _ = a.publish(reply, "yes".into()).await;
            }
        }
    });
}

/// The next metric, which is told on `subject` with this status.
async fn metric(metrics: &mut Subscriber, subject: &str, status: u16) -> Value {
    let message = next(metrics).await;
    let metric: Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!((message.subject.as_str(), &metric["status"]), (subject, &json!(status)), "{metric}");
    assert_eq!(metric["type"], "io.nats.server.metric.v1.service_latency");
    assert_eq!(metric["id"].as_str().unwrap().len(), 22);
    assert!(metric["start"].as_str().unwrap() < metric["timestamp"].as_str().unwrap(), "{metric}");
    let description = match status {
        400 => json!("Bad Request"),
        408 => json!("Request Timeout"),
        503 => json!("Service Unavailable"),
        504 => json!("Service Timeout"),
        _ => Value::Null,
    };
    assert_eq!(metric["description"], description);
    if status != 200 {
        assert_eq!((&metric["service"], &metric["system"], &metric["total"]), (&json!(0), &json!(0), &json!(0)));
        assert_eq!(metric["responder"], Value::Null);
    }
    metric
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

const IN_FULL: [&str; 11] =
    ["acc", "client_type", "host", "id", "kind", "lang", "rtt", "server", "start", "user", "ver"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_measured_and_who_asks_stays_unknown() {
    let world = World::start(&text(BOTH)).await;
    let (a, mut metrics, b) = both(&world).await;
    assert!(b.request("ask.1", "".into()).await.is_err());
    let unserved = metric(&mut metrics, "m.all", 503).await;
    assert_eq!(keys(&unserved["requestor"]), ["acc", "rtt"]);
    assert_eq!(unserved["requestor"]["acc"], "B");
    serve(&a, "all.*").await;
    assert_eq!(b.request("ask.1", "".into()).await.unwrap().payload, "yes");
    let answered = metric(&mut metrics, "m.all", 200).await;
    assert_eq!(keys(&answered["requestor"]), ["acc", "rtt"]);
    assert_eq!(keys(&answered["responder"]), IN_FULL);
    assert_eq!((&answered["responder"]["acc"], &answered["responder"]["user"]), (&json!("A"), &json!("a")));
    assert_eq!(answered["responder"]["server"], world.server.broker().info().server_name);
    assert_eq!(answered["header"], Value::Null);
    let number = |name: &str| answered[name].as_u64().unwrap();
    assert!(number("total") > answered["requestor"]["rtt"].as_u64().unwrap(), "{answered}");
    assert!(number("total") >= number("service") + number("system"), "{answered}");
    // Nowhere to answer, whoever serves.
    b.publish("ask.1", "".into()).await.unwrap();
    assert_eq!(keys(&metric(&mut metrics, "m.all", 400).await["requestor"]), ["acc", "rtt"]);
    // What is asked in the own account is not measured.
    assert_eq!(a.request("all.1", "".into()).await.unwrap().payload, "yes");
    assert_eq!(b.request("ask.2", "".into()).await.unwrap().payload, "yes");
    metric(&mut metrics, "m.all", 200).await;
    settle(&a).await;
    assert!(futures_util::FutureExt::now_or_never(metrics.next()).is_none());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sampled_headers_have_a_request_measured_and_are_told() {
    let world = World::start(&text(BOTH)).await;
    let (a, mut metrics, b) = both(&world).await;
    serve(&a, "told").await;
    let ask = async |lines: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        lines.iter().for_each(|(name, value)| headers.insert(*name, *value));
        assert_eq!(b.request_with_headers("told", headers, "".into()).await.unwrap().payload, "yes");
    };
    assert_eq!(b.request("told", "".into()).await.unwrap().payload, "yes");
    ask(&[("X-B3-Sampled", "0"), ("X-B3-TraceId", "aa")]).await;
    ask(&[("traceparent", "00-a-b-00")]).await;
    // Metrics come in order: those above have none.
    ask(&[("traceparent", "00-a-b-01"), ("tracestate", "x=y"), ("other", "z")]).await;
    let told = metric(&mut metrics, "m.told", 200).await;
    assert_eq!(told["header"], json!({ "Traceparent": ["00-a-b-01"], "Tracestate": ["x=y"] }));
    assert_eq!(keys(&told["requestor"]), IN_FULL);
    assert_eq!((&told["requestor"]["acc"], &told["requestor"]["user"]), (&json!("B"), &json!("b")));
    ask(&[("uber-trace-id", "a:b:c:1"), ("uberctx-k", "v")]).await;
    let told = metric(&mut metrics, "m.told", 200).await;
    assert_eq!(told["header"], json!({ "Uber-Trace-Id": ["a:b:c:1"], "Uberctx-K": ["v"] }));
    // Without a reply, too.
    let mut headers = HeaderMap::new();
    headers.insert("X-B3-TraceId", "aa");
    b.publish_with_headers("told", headers, "".into()).await.unwrap();
    assert_eq!(metric(&mut metrics, "m.told", 400).await["header"], json!({ "X-B3-Traceid": ["aa"] }));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_do_not_come_or_find_nobody_are_told() {
    let exports = r#"
        { service: "all.*", latency: "m.all" }
        { service: "told", response_threshold: "300ms", latency: { sampling: 100, subject: "m.told" } }
    "#;
    let world = World::start(&text(exports)).await;
    let (a, mut metrics, b) = both(&world).await;
    serve(&a, "told").await;
    serve(&a, "all.*").await;
    b.publish_with_reply("told", "nowhere", "silence".into()).await.unwrap();
    let overdue = metric(&mut metrics, "m.told", 504).await;
    assert_eq!(keys(&overdue["requestor"]), IN_FULL);
    // Who asks no longer listens, or has gone.
    let lost = b.subscribe("back").await.unwrap();
    b.publish_with_reply("ask.1", "back", "silence".into()).await.unwrap();
    settle(&b).await;
    drop(lost);
    metric(&mut metrics, "m.all", 408).await;
    let gone = world.user("b", "p").await.unwrap();
    let _all = gone.subscribe("back.*").await.unwrap();
    settle(&gone).await;
    let mut wire = world.wire().await;
    let hello = r#"CONNECT {"verbose":false,"user":"b","pass":"p"}"#;
    assert_eq!(wire.ask(&format!("{hello}\r\nSUB back.1 1\r\nPUB ask.1 back.1 7\r\nsilence")).await, ["PONG"]);
    drop(wire);
    // Somebody still listens.
    b.publish_with_reply("told", "back.1", "silence".into()).await.unwrap();
    metric(&mut metrics, "m.told", 504).await;
    gone.drain().await.unwrap();
    metric(&mut metrics, "m.all", 408).await;
    // An answer that came is not lost afterwards.
    let mut back = b.subscribe("back").await.unwrap();
    b.publish_with_reply("ask.1", "back", "".into()).await.unwrap();
    assert_eq!(next(&mut back).await.payload, "yes");
    metric(&mut metrics, "m.all", 200).await;
    drop(back);
    settle(&b).await;
    b.publish("ask.1", "".into()).await.unwrap();
    metric(&mut metrics, "m.all", 400).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_what_is_measured() {
    let plain = r#"{ service: "all.*" }, { service: "told" }"#;
    let mut world = World::start(&text(plain)).await;
    let (a, mut metrics, b) = both(&world).await;
    serve(&a, "all.*").await;
    let ask = async || assert_eq!(b.request("ask.1", "".into()).await.unwrap().payload, "yes");
    ask().await;
    world.reload(&text(BOTH)).await.unwrap();
    ask().await;
    metric(&mut metrics, "m.all", 200).await;
    world.reload(&text(&BOTH.replace("m.all", "m.other"))).await.unwrap();
    ask().await;
    metric(&mut metrics, "m.other", 200).await;
    world.reload(&text(plain)).await.unwrap();
    ask().await;
    world.reload(&text(BOTH)).await.unwrap();
    b.publish("ask.1", "".into()).await.unwrap();
    metric(&mut metrics, "m.all", 400).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_of_the_requests_are_drawn() {
    let exports = r#"{ service: "all.*", latency: { sampling: 50%, subject: "m.all" } }, { service: "told" }"#;
    let world = World::start(&text(exports)).await;
    let (_a, mut metrics, b) = both(&world).await;
    for _ in 0..1000 {
        b.publish("ask.1", "".into()).await.unwrap();
    }
    // One that is drawn by chance tells no header.
    let mut headers = HeaderMap::new();
    headers.insert("b3", "last");
    for _ in 0..40 {
        b.publish_with_headers("ask.1", headers.clone(), "".into()).await.unwrap();
    }
    let mut seen = 0;
    while metric(&mut metrics, "m.all", 400).await["header"] == Value::Null {
        seen += 1;
    }
    assert!((400..650).contains(&seen), "{seen} of 1000");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_jwt_says_what_is_measured() {
    let (a, b) = (KeyPair::new_account(), KeyPair::new_account());
    let export = |subject: &str, sampling: Value| {
        let latency = json!({ "sampling": sampling, "results": format!("m.{subject}") });
        json!({ "subject": subject, "type": "service", "service_latency": latency })
    };
    let import = |subject: &str| json!({ "account": a.public_key(), "subject": subject, "type": "service" });
    let exports = [export("all", json!(100)), export("told", json!("headers")), export("wrong", json!(101))];
    let world = World::start(&operator_mode(&[
        (&a, json!({ "exports": exports })),
        (&b, json!({ "imports": [import("all"), import("told"), import("wrong")] })),
    ]))
    .await;
    let of_a = user(&world, &a, json!({}), json!({})).await.unwrap();
    let of_b = user(&world, &b, json!({}), json!({})).await.unwrap();
    let mut metrics = of_a.subscribe("m.*").await.unwrap();
    settle(&of_a).await;
    for subject in ["wrong", "told", "all"] {
        assert!(of_b.request(subject, "".into()).await.is_err());
    }
    let told = metric(&mut metrics, "m.all", 503).await;
    assert_eq!(told["requestor"]["acc"], b.public_key());
    world.server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused() {
    let refusal = async |export: &str| {
        let text = text(&format!("{export}, {{ service: \"told\" }}"));
        let read = natterjack::config::file::read_text(natterjack::config::Config::default(), &text);
        match read {
            Err(errors) => errors.to_string(),
            Ok(_) => World::refusal(&text).await,
        }
    };
    let service = r#"service: "all.*""#;
    for (export, reason) in [
        (format!("{{ {service}, latency: {{ sampling: 10 }} }}"), "Latency subject required, but missing"),
        (format!("{{ {service}, latency: {{ sampling: 0, subject: m }} }}"), "bad sampling percentage"),
        (format!("{{ {service}, latency: {{ sampling: 101%, subject: m }} }}"), "bad sampling percentage"),
        (format!("{{ {service}, latency: {{ sampling: some, subject: m }} }}"), "Failed to parse latency sample"),
        (format!("{{ {service}, latency: \"m.*\" }}"), "on subject \"m.*\": invalid publish subject"),
        (format!("{{ {service}, latency: \"all.m\" }}"), "on subject \"all.m\": invalid publish subject"),
        (format!("{{ {service}, response: stream, latency: m }}"), "bad service response type"),
        ("{ stream: s, latency: m }".to_owned(), "Detected latency directive on non-service"),
    ] {
        let told = tokio::time::timeout(PATIENCE, refusal(&export)).await.unwrap();
        assert!(told.contains(reason), "{export}: {told}");
    }
}
