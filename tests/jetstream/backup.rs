//! STREAM.SNAPSHOT and STREAM.RESTORE: what goes out comes back in, and nothing else does.

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Bench, fetch, pull, soon};

impl Bench {
    /// The chunks of a stream's backup, each acknowledged, and the answer to the request.
    async fn snapshot(&self, stream: &str, options: Value) -> (Value, Vec<Bytes>, String) {
        let inbox = self.client.new_inbox();
        let mut incoming = soon(self.client.subscribe(inbox.clone())).await.unwrap();
        let mut body = options;
        body["deliver_subject"] = inbox.into();
        let answer = self.api(&format!("STREAM.SNAPSHOT.{stream}"), body).await;
        let mut chunks = Vec::new();
        loop {
            let message = soon(incoming.next()).await.unwrap();
            if message.payload.is_empty() {
                let status = message.status.map(|status| status.to_string()).unwrap_or_default();
                return (answer, chunks, status);
            }
            chunks.push(message.payload);
            if let Some(reply) = message.reply {
                self.client.publish(reply, Bytes::new()).await.unwrap();
            }
        }
    }

    async fn begin_restore(&self, config: &Value) -> String {
        let name = config["name"].as_str().unwrap();
        let answer = self.api(&format!("STREAM.RESTORE.{name}"), json!({ "config": config, "state": {} })).await;
        answer["deliver_subject"].as_str().filter(|subject| !subject.is_empty()).expect("somewhere to send to").into()
    }

    /// Sends a backup; the first answer that says something.
    async fn restore(&self, config: &Value, chunks: &[Bytes]) -> Value {
        let to = self.begin_restore(config).await;
        for chunk in chunks {
            let answer = soon(self.client.request(to.clone(), chunk.clone())).await.unwrap();
            if !answer.payload.is_empty() {
                return serde_json::from_slice(&answer.payload).unwrap();
            }
        }
        let answer = soon(self.client.request(to, Bytes::new())).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    }

    async fn consumer_state(&self) -> Value {
        let info = self.api("CONSUMER.INFO.S.c", Value::Null).await;
        json!([
            info["delivered"]["consumer_seq"],
            info["delivered"]["stream_seq"],
            info["ack_floor"]["consumer_seq"],
            info["ack_floor"]["stream_seq"],
            info["num_ack_pending"],
            info["num_redelivered"],
            info["num_pending"],
        ])
    }
}

async fn round_trip(storage: &str) {
    let mut bench = Bench::start().await;
    let config = json!({"name": "S", "subjects": ["s.>"], "storage": storage});
    bench.create(config.clone()).await;
    for number in 1..=40 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Number", number.to_string());
        let payload = format!("{number} {}", "x".repeat(if number == 9 { 300_000 } else { number }));
        let ack = soon(bench.js.publish_with_headers(format!("s.{number}"), headers, payload.into())).await.unwrap();
        soon(async { ack.await }).await.unwrap();
    }
    let stream = soon(bench.js.get_stream("S")).await.unwrap();
    for seq in [1, 20, 40] {
        soon(stream.delete_message(seq)).await.unwrap();
    }
    let consumer = pull(&stream, "c").await;
    let mut batch = soon(consumer.fetch().max_messages(6).messages()).await.unwrap();
    while let Some(message) = soon(batch.next()).await {
        let message = message.unwrap();
        match message.info().unwrap().stream_sequence {
            2 | 3 | 5 => soon(message.double_ack()).await.unwrap(),
            6 => soon(message.ack_with(async_nats::jetstream::AckKind::Nak(None))).await.unwrap(),
            _ => {}
        }
    }
    let again = soon(consumer.fetch().max_messages(1).messages().await.unwrap().next()).await.unwrap().unwrap();
    assert_eq!(again.info().unwrap().delivered, 2);

    let before = bench.api("STREAM.INFO.S", Value::Null).await;
    let progress = bench.consumer_state().await;
    assert_eq!(progress, json!([7, 7, 2, 3, 3, 1, 31]));
    let mut messages = Vec::new();
    for seq in 1..=40 {
        messages.push(bench.api("STREAM.MSG.GET.S", json!({ "seq": seq })).await);
    }
    let (answer, chunks, status) = bench.snapshot("S", json!({"chunk_size": 1024, "window_size": 2048})).await;
    assert_eq!((answer["state"]["messages"].as_u64(), status.as_str()), (Some(37), "204"), "{answer}");
    assert_eq!(answer["state"]["consumer_count"], 1);
    assert!(chunks.len() > 3 && chunks[..chunks.len() - 1].iter().all(|chunk| chunk.len() == 1024));
    soon(bench.js.delete_stream("S")).await.unwrap();

    let restored = bench.restore(&answer["config"], &chunks).await;
    assert_eq!(restored["type"], "io.nats.jetstream.api.v1.stream_create_response", "{restored}");
    for round in ["restored", "restarted"] {
        let after = bench.api("STREAM.INFO.S", Value::Null).await;
        assert_eq!((&after["state"], &after["config"]), (&before["state"], &before["config"]), "{round}");
        for (seq, message) in (1..).zip(&messages) {
            assert_eq!(bench.api("STREAM.MSG.GET.S", json!({ "seq": seq })).await, *message, "{round} {seq}");
        }
        assert_eq!(bench.consumer_state().await, progress, "{round}");
        if storage == "memory" {
            break;
        }
        bench.restart().await;
    }
    assert_eq!(bench.publish("s.new", "x").await, 41, "a deleted last message's sequence is not given out again");
    // What was done is done, what was not comes, and the rest after it.
    let stream = soon(bench.js.get_stream("S")).await.unwrap();
    let consumer = soon(stream.get_consumer::<async_nats::jetstream::consumer::pull::Config>("c")).await.unwrap();
    let payloads = fetch(&consumer, 32, true).await;
    assert_eq!((payloads.len(), &*payloads[0], &*payloads[31]), (32, &*format!("8 {}", "x".repeat(8)), "x"));

    let (answer, chunks, _) = bench.snapshot("S", json!({"no_consumers": true})).await;
    assert_eq!(answer["state"]["consumer_count"], 0);
    soon(bench.js.delete_stream("S")).await.unwrap();
    let restored = bench.restore(&answer["config"], &chunks).await;
    assert_eq!(restored["state"]["messages"], 38, "{restored}");
    assert_eq!(bench.api("CONSUMER.NAMES.S", Value::Null).await["total"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_comes_back_with_all_it_had() {
    round_trip("file").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_one_in_memory() {
    round_trip("memory").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_fails_leaves_nothing() {
    let mut bench = Bench::start().await;
    bench.plain("S", "s").await;
    for number in 0..2000 {
        bench.js.publish("s", format!("{number} {}", "y".repeat(50)).into()).await.unwrap();
    }
    bench.publish("s", "last").await;
    let (answer, chunks, _) = bench.snapshot("S", json!({"chunk_size": 4096})).await;
    let config = &answer["config"];
    let taken = bench.api("STREAM.RESTORE.S", json!({ "config": config, "state": {} })).await;
    assert_eq!(taken["error"]["err_code"], 10130);
    soon(bench.js.delete_stream("S")).await.unwrap();

    let error = |answer: Value| answer["error"]["description"].as_str().unwrap_or_default().to_owned();
    assert_eq!(error(bench.restore(config, &[]).await), "restore failed: EOF");
    let cut = bench.restore(config, &chunks[..chunks.len() - 1]).await;
    assert_eq!(error(cut), "restore failed: unexpected EOF");
    let mut damaged = chunks.clone();
    damaged[1] = damaged[1].iter().map(|byte| byte ^ 1).collect();
    assert!(error(bench.restore(config, &damaged).await).starts_with("restore failed: s2: "));
    assert_eq!(error(bench.restore(config, &["a file".into()]).await), "restore failed: s2: corrupt input");
    assert_eq!(bench.api("STREAM.INFO.S", Value::Null).await["error"]["err_code"], 10059);

    // Somebody else takes the subject while a restore is under way.
    let to = bench.begin_restore(config).await;
    bench.plain("T", "s").await;
    for chunk in &chunks {
        assert_eq!(soon(bench.client.request(to.clone(), chunk.clone())).await.unwrap().payload.len(), 0);
    }
    let answer = soon(bench.client.request(to, Bytes::new())).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&answer.payload).unwrap()["error"]["err_code"], 10065);
    soon(bench.js.delete_stream("T")).await.unwrap();

    // The server stops in the middle of one.
    let to = bench.begin_restore(config).await;
    soon(bench.client.request(to, chunks[0].clone())).await.unwrap();
    bench.restart().await;
    assert_eq!(bench.api("STREAM.NAMES", Value::Null).await["total"], 0);
    assert_eq!(bench.restore(config, &chunks).await["state"]["messages"], 2001);
    bench.restart().await;
    assert_eq!(bench.api("STREAM.INFO.S", Value::Null).await["state"]["messages"], 2001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_ends_when_its_receiver_goes() {
    let bench = Bench::start().await;
    bench.plain("S", "s").await;
    let noise: String =
        (0..60_000u32).map(|n| char::from(b' ' + (n.wrapping_mul(2_654_435_761) >> 20) as u8 % 90)).collect();
    bench.publish("s", &noise).await;
    let mut advisories = soon(bench.client.subscribe("$JS.EVENT.ADVISORY.STREAM.*.S")).await.unwrap();
    let client = bench.connect().await;
    // A wildcard that matches is no receiver: chunks wait for one that asks for them by name.
    let _wide = soon(bench.client.subscribe("to.*")).await.unwrap();
    bench.client.flush().await.unwrap();
    let options = json!({"deliver_subject": "to.me", "chunk_size": 1024, "window_size": 1024});
    bench.api("STREAM.SNAPSHOT.S", options).await;
    let mut incoming = soon(client.subscribe("to.me")).await.unwrap();
    let chunk = soon(incoming.next()).await.unwrap();
    assert_eq!((chunk.payload.len(), &chunk.payload[4..10]), (1024, &b"sNaPpY"[..]));
    assert!(chunk.reply.unwrap().starts_with("$JS.SNAPSHOT.ACK.S."));
    client.flush().await.unwrap();
    soon(incoming.unsubscribe()).await.unwrap();
    for expected in [("snapshot_create", Value::Null), ("snapshot_complete", json!("no interest"))] {
        let advisory = soon(advisories.next()).await.unwrap();
        let advisory: Value = serde_json::from_slice(&advisory.payload).unwrap();
        assert!(advisory["type"].as_str().unwrap().ends_with(expected.0), "{advisory}");
        assert_eq!(advisory["error"], expected.1);
    }
}
