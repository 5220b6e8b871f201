//! What a message may ask of its stream: to be counted, to end by itself, to come later, to come in batches.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{self, StorageType};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Bench, soon};

/// Publishes with "Name: value" headers; the PubAck, or what the error says.
async fn publish(bench: &Bench, subject: &str, headers: &[(&str, &str)], payload: &str) -> Value {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    let request = bench.client.request_with_headers(subject.to_owned(), map, payload.to_owned().into());
    let answer = soon(request).await.expect("the stream answers");
    serde_json::from_slice(&answer.payload).unwrap_or(Value::Null)
}

async fn create(bench: &Bench, config: Value) {
    let subject = format!("$JS.API.STREAM.CREATE.{}", config["name"].as_str().unwrap());
    let body = serde_json::to_vec(&config).unwrap();
    let answer = soon(bench.client.request(subject, body.into())).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["error"], Value::Null, "{config}");
}

/// A header of a message that came.
fn header<'a>(message: &'a async_nats::Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_count_across_a_restart() {
    let mut bench = Bench::start().await;
    for storage in ["file", "memory"] {
        let name = format!("COUNT-{storage}");
        let subjects = [format!("{name}.>")];
        create(&bench, json!({ "name": name, "subjects": subjects, "allow_msg_counter": true, "storage": storage }))
            .await;
        let subject = format!("{name}.a");
        // All in flight at once: each must see the one before, durable or not.
        let mut answers = Vec::new();
        for _ in 0..200 {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Incr", "2");
            answers.push(bench.js.publish_with_headers(subject.clone(), headers, Bytes::new()).await.unwrap());
        }
        for (number, answer) in answers.into_iter().enumerate() {
            let ack = soon(async { answer.await }).await.unwrap();
            assert_eq!(ack.value, Some((2 * (number + 1)).to_string()));
        }
        let ack = publish(&bench, &subject, &[("Nats-Incr", "-1000000000000000000000")], "").await;
        assert_eq!(ack["val"], "-999999999999999999600");
        let refused = publish(&bench, &subject, &[], "5").await;
        assert_eq!(refused["error"]["err_code"], 10169);
    }
    bench.restart().await;
    let ack = publish(&bench, "COUNT-file.a", &[("Nats-Incr", "+1")], "").await;
    assert_eq!((&ack["val"], &ack["seq"]), (&json!("-999999999999999999599"), &json!(202)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_subject_is_told_by_a_marker() {
    let bench = Bench::start().await;
    for storage in [StorageType::File, StorageType::Memory] {
        let name = format!("MARK-{storage:?}");
        let stream = bench
            .stream(stream::Config {
                name: name.clone(),
                subjects: vec![format!("{name}.>")],
                allow_message_ttl: true,
                subject_delete_marker_ttl: Some(Duration::from_secs(1)),
                storage,
                ..Default::default()
            })
            .await;
        let consumer = crate::support::pull(&stream, "watcher").await;
        publish(&bench, &format!("{name}.a"), &[("Nats-TTL", "1s")], "x").await;
        let mut messages = soon(consumer.messages()).await.unwrap();
        let first = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!((&first.payload[..], header(&first, "Nats-Marker-Reason")), (&b"x"[..], None));
        let marker = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!(header(&marker, "Nats-Marker-Reason"), Some("MaxAge"));
        assert_eq!(header(&marker, "Nats-TTL"), Some("1s"));
        assert_eq!(marker.info().unwrap().stream_sequence, 2);
        // The marker itself goes without a trace.
        let mut stream = stream;
        while soon(stream.info()).await.unwrap().state.messages > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(soon(stream.info()).await.unwrap().state.last_sequence, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_fire_and_those_missed_fire_after_a_restart() {
    let mut bench = Bench::start().await;
    let config = json!({ "name": "SCHED", "subjects": ["s.>", "t.>"], "allow_msg_schedules": true });
    create(&bench, config).await;
    let in_future = |millis: i64| {
        let at = natterjack::types::Timestamp::now() + Duration::from_millis(millis as u64);
        format!("@at {}", at.to_rfc3339())
    };
    let stream = soon(bench.js.get_stream("SCHED")).await.unwrap();
    let consumer = crate::support::pull(&stream, "targets").await;
    let soon_due = in_future(300);
    let ack = publish(&bench, "s.one", &[("Nats-Schedule", &soon_due), ("Nats-Schedule-Target", "t.one")], "1").await;
    assert_eq!(ack["seq"], 1);
    let ack =
        publish(&bench, "s.every", &[("Nats-Schedule", "@every 1s"), ("Nats-Schedule-Target", "t.every")], "2").await;
    assert_eq!(ack["seq"], 2);
    let mut messages = soon(consumer.messages()).await.unwrap();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    while seen.get("t.every").is_none_or(|count| *count < 2) {
        let message = soon(messages.next()).await.unwrap().unwrap();
        soon(message.ack()).await.unwrap();
        *seen.entry(message.subject.to_string()).or_default() += 1;
        if message.subject.as_str() == "t.one" {
            assert_eq!(header(&message, "Nats-Scheduler"), Some("s.one"));
            assert_eq!(header(&message, "Nats-Schedule-Next"), Some("purge"));
        }
    }
    assert_eq!(seen["t.one"], 1);
    // Due while nobody is there.
    let soon_due = in_future(1500);
    publish(&bench, "s.two", &[("Nats-Schedule", &soon_due), ("Nats-Schedule-Target", "t.two")], "3").await;
    drop(messages);
    bench.restart().await;
    let stream = soon(bench.js.get_stream("SCHED")).await.unwrap();
    assert!(soon(stream.get_last_raw_message_by_subject("s.one")).await.is_err(), "a schedule that fired is gone");
    loop {
        if let Ok(message) = soon(stream.get_last_raw_message_by_subject("t.two")).await {
            assert_eq!(&message.payload[..], b"3");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = publish(&bench, "s.bad", &[("Nats-Schedule", "@every 1s")], "").await;
    assert_eq!(refused["error"]["err_code"], 10190);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_batch_is_told_how_far_it_is_stored() {
    let bench = Bench::start().await;
    create(&bench, json!({ "name": "FAST", "subjects": ["fast.>"], "allow_batched": true })).await;
    let inbox = bench.client.new_inbox();
    let mut answers = bench.client.subscribe(format!("{inbox}.>")).await.unwrap();
    let send = async |seq: u64, operation: u8| {
        let reply = format!("{inbox}.batch.100.fail.{seq}.{operation}.$FI");
        bench.client.publish_with_reply("fast.a", reply, "x".into()).await.unwrap();
    };
    send(1, 0).await;
    for seq in 2..=1000 {
        send(seq, 1).await;
    }
    send(1001, 2).await;
    let mut told = Vec::new();
    let ack = loop {
        let answer = soon(answers.next()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        match answer["type"].as_str() {
            Some("ack") => told.push(answer["seq"].as_u64().unwrap()),
            _ => break answer,
        }
    };
    assert_eq!(told, (0..=10).map(|hundred| hundred * 100).collect::<Vec<u64>>());
    assert_eq!(ack, json!({ "stream": "FAST", "seq": 1001, "batch": "batch", "count": 1001 }));
    let reply = |seq: u64, operation: u8| format!("{inbox}.pings.1.fail.{seq}.{operation}.$FI");
    for seq in 1..=100 {
        let operation = u8::from(seq > 1);
        bench.client.publish_with_reply("fast.a", reply(seq, operation), "x".into()).await.unwrap();
        bench.client.publish_with_reply("fast.a", reply(seq, 4), "".into()).await.unwrap();
    }
    bench.client.publish_with_reply("fast.a", reply(100, 3), "".into()).await.unwrap();
    let mut last = 0;
    loop {
        let answer = soon(answers.next()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        let Some("ack") = answer["type"].as_str() else { break };
        let seq = answer["seq"].as_u64().unwrap();
        assert!(seq >= last, "answers come in the order of what they answer: {seq} after {last}");
        last = seq;
    }
    send(1002, 1).await;
    let refused = soon(answers.next()).await.unwrap();
    let refused: Value = serde_json::from_slice(&refused.payload).unwrap();
    assert_eq!(refused["error"]["err_code"], 10208);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traced_message_has_its_way_told() {
    let bench = Bench::start().await;
    let stream = bench.plain("TRACED", "traced.>").await;
    let mut told = bench.client.subscribe("told").await.unwrap();
    let mut plain = bench.client.subscribe("way.*").await.unwrap();
    let _queue = bench.client.queue_subscribe("way.>", "q".into()).await.unwrap();
    let mut trace = async |subject: &str, more: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in [("Nats-Trace-Dest", "told")].iter().chain(more) {
            headers.append(*name, *value);
        }
        bench.client.publish_with_headers(subject.to_owned(), headers, "hello".into()).await.unwrap();
        let answer = soon(told.next()).await.unwrap();
        serde_json::from_slice::<Value>(&answer.payload).unwrap()
    };
    let types = |trace: &Value| -> Vec<String> {
        trace["events"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect()
    };
    let way = trace("way.a", &[]).await;
    assert_eq!(types(&way), ["in", "eg", "eg"]);
    assert_eq!((&way["events"][0]["subj"], &way["events"][0]["acc"]), (&json!("way.a"), &json!("$G")));
    assert_eq!(way["events"][1]["sub"], "way.*");
    assert_eq!((&way["events"][2]["sub"], &way["events"][2]["queue"]), (&json!("way.>"), &json!("q")));
    assert_eq!(way["request"]["header"], json!({ "Nats-Trace-Dest": ["told"] }));
    assert_eq!(soon(plain.next()).await.unwrap().payload, "hello");
    let only = trace("way.b", &[("Nats-Trace-Only", "true")]).await;
    assert_eq!(types(&only), ["in", "eg", "eg"]);
    bench.client.publish("way.c", "after".into()).await.unwrap();
    assert_eq!(soon(plain.next()).await.unwrap().payload, "after", "a message that is only traced is not delivered");
    let stored = trace("traced.a", &[]).await;
    assert_eq!(types(&stored), ["in", "js"]);
    assert_eq!(
        (&stored["events"][1]["stream"], &stored["events"][1]["subject"]),
        (&json!("TRACED"), &json!("traced.a"))
    );
    let raw = soon(stream.get_raw_message(1)).await.unwrap();
    assert_eq!(raw.headers.get("Nats-Trace-Dest").unwrap().as_str(), "trace disabled");
    let wrong = [("Nats-Expected-Last-Sequence", "77")];
    for more in [&wrong[..], &[("Nats-Trace-Only", "1"), wrong[0]]] {
        let refused = trace("traced.a", more).await;
        assert_eq!(refused["events"][1]["error"], "wrong last sequence: 1 (10071)", "{more:?}");
    }
    assert_eq!(types(&trace("nobody", &[]).await), ["in"]);
    assert_eq!(bench.publish("traced.a", "next").await, 2);
}
