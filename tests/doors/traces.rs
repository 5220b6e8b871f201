//! Message traces (ADR-41) as accounts, permissions and encodings shape them. Each expectation is what nats-server 2.15.1
//! told.

use std::io::Read as _;

use async_nats::{Client, HeaderMap};
use serde_json::{Value, json};

use super::{World, next, settle};

const TEXT: &str = r#"
max_payload: 100000
accounts {
    A {
        jetstream: enabled
        msg_trace { dest: acc.trace, sampling: 100% }
        users: [
            { user: a, password: p }
            { user: r, password: p, permissions { publish { deny: ["no.>", "td"] }, subscribe { deny: secret } } }
        ]
    }
    B { users: [ { user: b, password: p } ], trace_dest: b.trace }
    C { users: [ { user: c, password: p } ] }
}
authorization { timeout: 30 }
"#;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    lines.iter().for_each(|(name, value)| headers.append(*name, *value));
    headers
}

/// The steps without what differs from run to run.
pub fn steps(trace: &[u8]) -> Value {
    let trace: Value = serde_json::from_slice(trace).expect("a trace is JSON");
    let mut steps = trace["events"].clone();
    for step in steps.as_array_mut().expect("a list") {
        for field in ["ts", "cid", "kind", "name"] {
            step.as_object_mut().expect("an object").remove(field);
        }
    }
    steps
}

/// Publishes and returns the trace that comes to `at`.
pub async fn traced(by: &Client, at: &mut async_nats::Subscriber, subject: &str, lines: &[(&str, &str)]) -> Value {
    by.publish_with_headers(subject.to_owned(), headers(lines), "hello".into()).await.unwrap();
    steps(&next(at).await.payload)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_traces_what_is_sampled_elsewhere() {
    let mut world = World::start(TEXT).await;
    let (a, b, c) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await, world.user("c", "p").await);
    let mut told = a.subscribe("acc.trace").await.unwrap();
    let _stream = a.request("$JS.API.STREAM.CREATE.S", r#"{"name":"S","subjects":["s"]}"#.into()).await.unwrap();
    // Not sampled, or not understood: the next trace is the next one's.
    for flags in ["00", "0", "81", "zz"] {
        let parent = format!("{}{flags}", &PARENT[..PARENT.len() - 2]);
        a.publish_with_headers("unsampled", headers(&[("traceparent", &parent)]), "".into()).await.unwrap();
    }
    let input = |subject: &str| json!({"type": "in", "acc": "A", "subj": subject});
    let way = traced(&a, &mut told, "s", &[("TraceParent", PARENT), ("Nats-Trace-Only", "1")]).await;
    assert_eq!(way, json!([input("s"), {"type": "js", "stream": "S", "subject": "s"}]));
    // What is stored is not traced again, and a sampled message is delivered whatever it says.
    let stored = a.request("$JS.API.STREAM.MSG.GET.S", r#"{"seq":1}"#.into()).await.unwrap();
    let stored: Value = serde_json::from_slice(&stored.payload).unwrap();
    let hdrs = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        stored["message"]["hdrs"].as_str().expect("headers"),
    );
    assert!(String::from_utf8(hdrs.unwrap()).unwrap().contains("Nats-Trace-Dest: trace disabled"));
    // A destination of its own comes first.
    let mut own = a.subscribe("own").await.unwrap();
    assert_eq!(
        traced(&a, &mut own, "x", &[("traceparent", PARENT), ("Nats-Trace-Dest", "own")]).await,
        json!([input("x")])
    );
    let b = b.unwrap();
    let mut told_b = b.subscribe("b.trace").await.unwrap();
    let way = traced(&b, &mut told_b, "x", &[("traceparent", PARENT)]).await;
    assert_eq!(way, json!([{"type": "in", "acc": "B", "subj": "x"}]));
    world.reload(&TEXT.replace(", trace_dest: b.trace", "")).await.unwrap();
    b.publish_with_headers("x", headers(&[("traceparent", PARENT)]), "".into()).await.unwrap();
    b.publish("b.trace", "nothing before".into()).await.unwrap();
    assert_eq!(next(&mut told_b).await.payload, "nothing before");
    // Where the account asks for none there is none.
    let c = c.unwrap();
    let mut all = c.subscribe(">").await.unwrap();
    c.publish_with_headers("x", headers(&[("traceparent", PARENT)]), "first".into()).await.unwrap();
    c.publish("y", "second".into()).await.unwrap();
    let first = next(&mut all).await;
    assert_eq!((&first.payload[..], first.headers.unwrap().len()), (&b"first"[..], 1));
    assert_eq!(next(&mut all).await.payload, "second");
    drop((a, b, c));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_messages_are_told_to_those_who_may_know() {
    let world = World::start(TEXT).await;
    let (a, r) = (world.user("a", "p").await.unwrap(), world.user("r", "p").await.unwrap());
    let mut td = a.subscribe("td").await.unwrap();
    let mut other = a.subscribe("other").await.unwrap();
    settle(&a).await;
    // There before anything that it publishes.
    let _secret = r.subscribe(">").await.unwrap();
    let denied = json!([{"type": "in", "acc": "A", "subj": "no.way",
        "error": "Permissions Violation for Publish to \"no.way\""}]);
    for only in ["0", "1"] {
        let lines = [("Nats-Trace-Dest", "other"), ("Nats-Trace-Only", only)];
        assert_eq!(traced(&r, &mut other, "no.way", &lines).await, denied);
    }
    // It may not publish to the destination, so that nothing is told and nothing is delivered.
    r.publish_with_headers("other", headers(&[("Nats-Trace-Dest", "td")]), "lost".into()).await.unwrap();
    r.publish("other", "not traced".into()).await.unwrap();
    assert_eq!(next(&mut other).await.payload, "not traced");
    let way = traced(&a, &mut td, "secret", &[("Nats-Trace-Dest", "td")]).await;
    let error = "Not delivered because subscription denies this subject";
    let input = |subject: &str| json!({"type": "in", "acc": "A", "subj": subject});
    assert_eq!(way, json!([input("secret"), {"type": "eg", "sub": ">", "error": error}]));
    // Servers before 2.11 traced in another way: what carries their mark is not traced.
    let old = [("Nats-Trace-Dest", "td"), ("Nats-Trace-Origin-Account", "A")];
    a.publish_with_headers("other", headers(&old), "old".into()).await.unwrap();
    let message = next(&mut other).await;
    assert_eq!(message.headers.unwrap().get("Nats-Trace-Dest").unwrap().as_str(), "trace disabled");
    // Requests to the API go to the system account.
    let way = traced(&a, &mut td, "$JS.API.INFO", &[("Nats-Trace-Dest", "td"), ("Nats-Trace-Only", "1")]).await;
    let import = json!({"type": "si", "acc": "$SYS", "from": "$JS.API.INFO", "to": "$JS.API.INFO"});
    assert_eq!(way, json!([input("$JS.API.INFO"), {"type": "eg", "sub": ">"}, import]));
    // What is too large ends the connection, and is told.
    let mut wire = world.wire().await;
    let connect = r#"CONNECT {"verbose":false,"headers":true,"user":"a","pass":"p"}"#;
    assert_eq!(wire.ask(connect).await, ["PONG"]);
    wire.say("HPUB big 35 200000\r\nNATS/1.0\r\nNats-Trace-Dest: td\r\n\r\n").await;
    assert_eq!(wire.line().await, "-ERR 'Maximum Payload Violation'");
    let way = steps(&next(&mut td).await.payload);
    assert_eq!(way, json!([{"type": "in", "acc": "A", "subj": "big", "error": "maximum payload exceeded"}]));
    drop((a, r));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_are_compressed_for_those_who_accept_it() {
    let world = World::start(TEXT).await;
    let c = world.user("c", "p").await.unwrap();
    let mut told = c.subscribe("td").await.unwrap();
    let expected = json!([{"type": "in", "acc": "C", "subj": "x"}]);
    for (accepted, encoding) in [("gzip, deflate", "gzip"), ("s2", "snappy"), ("SNAPPY", "snappy"), ("br", "identity")]
    {
        let lines = [("Nats-Trace-Dest", "td"), ("Accept-Encoding", accepted)];
        c.publish_with_headers("x", headers(&lines), "hello".into()).await.unwrap();
        let trace = next(&mut told).await;
        assert_eq!(trace.headers.unwrap().get("Content-Encoding").unwrap().as_str(), encoding);
        let mut plain = Vec::new();
        match encoding {
            "gzip" => drop(flate2::read::GzDecoder::new(&trace.payload[..]).read_to_end(&mut plain).unwrap()),
            "snappy" => drop(snap::read::FrameDecoder::new(&trace.payload[..]).read_to_end(&mut plain).unwrap()),
            _ => plain.extend_from_slice(&trace.payload),
        }
        assert_eq!(steps(&plain), expected, "{accepted}");
    }
    drop(c);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_in_the_config_is_told() {
    let read = |value: &str| {
        let text = format!("accounts {{ A {{ msg_trace: {value} }} }}");
        let base = natterjack::config::Config::default();
        natterjack::config::file::read_text(base, &text).err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    assert_eq!(read("a.b"), "");
    assert_eq!(read("{dest: a.b, sampling: 20}"), "");
    assert!(read("a.*").contains(r#"Trace destination "a.*" is not valid"#), "{}", read("a.*"));
    for sampling in ["0", "101", "many", "-5%"] {
        let errors = read(&format!("{{dest: a, sampling: {sampling}}}"));
        assert!(errors.contains("needs to be [1..100]"), "{sampling}: {errors}");
    }
    assert!(read("{destination: a}").contains("unknown field"));
}

#[tokio::test]
async fn a_message_that_is_not_to_be_traced_is_acknowledged_once() {
    let world = World::start(TEXT).await;
    let mut wire = world.wire().await;
    let hello = r#"CONNECT {"verbose":true,"user":"c","pass":"p","headers":true}"#;
    assert_eq!(wire.ask(&format!("{hello}\r\nSUB x 1")).await, ["+OK", "+OK", "PONG"]);
    let block = "NATS/1.0\r\nNats-Trace-Dest: t.d\r\nNats-Trace-Origin-Account: A\r\n\r\n";
    let said = wire.ask(&format!("HPUB x {} {}\r\n{block}hello", block.len(), block.len() + 5)).await;
    assert_eq!(said.iter().filter(|line| *line == "+OK").count(), 1, "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("MSG x 1 ") || line.starts_with("HMSG x 1 ")), "{said:?}");
    world.server.stop().await;
}
