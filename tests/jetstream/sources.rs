//! Streams that source from others. What is expected is what nats-server 2.15.1 did.

use serde_json::{Value, json};

use crate::support::{Bench, soon};

fn state(info: &Value) -> [u64; 3] {
    ["messages", "first_seq", "last_seq"].map(|field| info["state"][field].as_u64().unwrap_or(0))
}

/// Every message of a stream: subject and payload.
async fn contents(bench: &Bench, stream: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let [_, first, last] = state(&bench.info(stream).await);
    for seq in first.max(1)..=last {
        let stored = bench.stored(stream, seq).await;
        found.push((stored.subject, stored.payload));
    }
    found
}

async fn publish_with(bench: &Bench, subject: &str, name: &str, value: &str) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(name, value);
    soon(bench.client.request_with_headers(subject.to_owned(), headers, "x".into())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_sources_of_one_stream_keep_apart_and_tell_where_messages_came_from() {
    let mut bench = Bench::start().await;
    let config = json!({"name": "S", "sources": [
        {"name": "O", "filter_subject": "l.a"},
        {"name": "O", "subject_transforms": [{"src": "l.b", "dest": "z.b"}]},
    ]});
    let created = bench.create(config.clone()).await;
    assert_eq!(
        created["sources"],
        json!([
            {"name": "O", "lag": 0, "active": -1, "filter_subject": "l.a"},
            {"name": "O", "lag": 0, "active": -1, "subject_transforms": [{"src": "l.b", "dest": "z.b"}]},
        ])
    );
    bench.info_when("S", |info| info["sources"][1]["error"]["err_code"] == 10059).await;
    bench.plain("O", "l.*").await;
    for subject in ["l.a", "l.b", "l.c"].repeat(2) {
        bench.publish(subject, subject).await;
    }
    let info = bench.reached("S", 4).await;
    let seqs = [&info["sources"][0]["seq"], &info["sources"][1]["seq"]];
    assert_eq!((state(&info), seqs), ([4, 1, 4], [&json!(4), &json!(5)]));
    let mut origins = Vec::new();
    for seq in 1..=4 {
        let stored = bench.stored("S", seq).await;
        let value = stored.headers.strip_prefix("NATS/1.0\r\nNats-Stream-Source: ").expect("its only header");
        let (value, identity) = value.strip_suffix("\r\n\r\n").unwrap().rsplit_once(' ').unwrap();
        assert_eq!(identity.len(), 8);
        origins.push(format!("{} < {value}", stored.subject));
    }
    origins.sort();
    assert_eq!(
        origins,
        ["l.a < O 1 l.a > l.a", "l.a < O 4 l.a > l.a", "z.b < O 2 l.b z.b l.b", "z.b < O 5 l.b z.b l.b"]
    );
    // Nothing twice, nothing passed over: after a restart, a purge, and both.
    bench.restart().await;
    bench.publish("l.b", "again").await;
    bench.reached("S", 5).await;
    bench.api("STREAM.PURGE.S", Value::Null).await;
    bench.restart().await;
    bench.publish("l.a", "last").await;
    assert_eq!(state(&bench.reached("S", 6).await), [1, 6, 6]);
    assert_eq!(contents(&bench, "S").await, [("l.a".to_owned(), "last".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_come_and_go_with_updates() {
    let bench = Bench::start().await;
    bench.plain("O", "o.*").await;
    for number in 0..6 {
        bench.publish(&format!("o.{}", number % 2), &number.to_string()).await;
    }
    let odd = json!({"name": "O", "opt_start_seq": 4, "filter_subject": "o.1"});
    let even = json!({"name": "O", "filter_subject": "o.0"});
    bench.create(json!({"name": "S", "sources": [odd]})).await;
    bench.reached("S", 2).await;
    assert_eq!(bench.update(json!({"name": "S", "sources": [odd, even]})).await["error"], Value::Null);
    bench.reached("S", 5).await;
    let payloads: Vec<String> = contents(&bench, "S").await.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, ["3", "5", "0", "2", "4"]);
    // What comes back goes on where it was, unless a purge has cleared the slate.
    bench.update(json!({"name": "S", "sources": [even]})).await;
    bench.publish("o.1", "7").await;
    bench.publish("o.0", "8").await;
    bench.reached("S", 6).await;
    bench.update(json!({"name": "S", "sources": [even, odd]})).await;
    bench.reached("S", 7).await;
    bench.update(json!({"name": "S", "sources": [even]})).await;
    bench.api("STREAM.PURGE.S", Value::Null).await;
    bench.update(json!({"name": "S", "sources": [even, odd]})).await;
    assert_eq!(state(&bench.reached("S", 10).await), [3, 8, 10]);
    let duplicate = bench.update(json!({"name": "S", "sources": [even, even]})).await;
    assert_eq!(duplicate["error"]["err_code"], 10140);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_are_stored_once_and_a_full_stream_goes_on_when_it_can() {
    let bench = Bench::start().await;
    bench.plain("A", "a").await;
    bench.plain("B", "b").await;
    let sources = json!([{"name": "A"}, {"name": "B"}]);
    bench.create(json!({"name": "ONCE", "sources": sources, "duplicate_window": 60_000_000_000u64})).await;
    bench.create(json!({"name": "ALL", "sources": sources})).await;
    let full = json!({"name": "FULL", "sources": [{"name": "B"}], "max_msgs": 1, "discard": "new"});
    bench.create(full).await;
    publish_with(&bench, "a", "Nats-Msg-Id", "1").await;
    publish_with(&bench, "b", "Nats-Msg-Id", "1").await;
    publish_with(&bench, "b", "Nats-Msg-Id", "2").await;
    bench.reached("ALL", 3).await;
    assert_eq!(state(&bench.reached("ONCE", 2).await), [2, 1, 2]);
    bench.reached("FULL", 1).await;
    bench.api("STREAM.PURGE.FULL", Value::Null).await;
    assert_eq!(state(&bench.reached("FULL", 2).await), [1, 2, 2]);
    assert!(bench.stored("FULL", 2).await.headers.contains("Nats-Msg-Id: 2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_of_streams_carry_messages_on_and_circles_are_refused() {
    let bench = Bench::start().await;
    bench.plain("C1", "c1").await;
    bench.create(json!({"name": "C2", "mirror": {"name": "C1"}})).await;
    bench.create(json!({"name": "C3", "sources": [{"name": "C2"}]})).await;
    let last = json!({"name": "C4", "subjects": ["c4"], "sources": [{"name": "C3"}],
        "subject_transform": {"src": "c1", "dest": "in.c1"}});
    bench.create(last).await;
    bench.publish("c1", "far").await;
    bench.reached("C4", 1).await;
    let stored = bench.stored("C4", 1).await;
    assert_eq!((stored.subject.as_str(), stored.payload.as_str()), ("in.c1", "far"));
    assert!(stored.headers.starts_with("NATS/1.0\r\nNats-Stream-Source: C3 1 > > c1 "), "{}", stored.headers);
    assert_eq!(stored.headers.matches("Nats-Stream-Source").count(), 1);
    assert_eq!(bench.publish("c4", "own").await, 2);
    let circle = bench.update(json!({"name": "C1", "subjects": ["c1"], "sources": [{"name": "C4"}]})).await;
    assert_eq!(circle["error"]["description"], "detected cycle");
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Stream-Source", "C3 1 > > c1");
    let answer = soon(bench.client.request_with_headers("c4", headers, "x".into())).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["error"]["err_code"], 10227);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_made_anew_is_sourced_from_its_beginning() {
    let bench = Bench::start().await;
    bench.plain("O", "o").await;
    bench.create(json!({"name": "S", "sources": [{"name": "O"}]})).await;
    for payload in ["0", "1", "2"] {
        bench.publish("o", payload).await;
    }
    bench.reached("S", 3).await;
    bench.api("STREAM.DELETE.O", Value::Null).await;
    bench.plain("O", "o").await;
    bench.publish("o", "new").await;
    bench.reached("S", 4).await;
    assert_eq!(contents(&bench, "S").await.pop().unwrap().1, "new");
}
