//! STREAM.SNAPSHOT and STREAM.RESTORE: what goes out comes back in, and nothing else does.

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::backups;
use crate::support::{Bench, fetch, pull, soon};

impl Bench {
    /// The chunks of a stream's backup, each acknowledged, and the answer to the request.
    async fn snapshot(&self, stream: &str, options: Value) -> (Value, Vec<Bytes>, String) {
        let taken = backups::snapshot(&self.client, stream, options, true).await;
        (taken.answer, taken.chunks, taken.status)
    }

    async fn begin_restore(&self, config: &Value) -> String {
        backups::begin_restore(&self.client, config).await
    }

    /// Sends a backup; the first answer that says something.
    async fn restore(&self, config: &Value, chunks: &[Bytes]) -> Value {
        backups::restore(&self.client, config, chunks).await
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_told_at_both_ends() {
    let bench = Bench::start().await;
    bench.plain("S", "s").await;
    bench.publish("s", "x").await;
    let (answer, chunks, _) = bench.snapshot("S", json!({})).await;
    soon(bench.js.delete_stream("S")).await.unwrap();
    let mut advisories = soon(bench.client.subscribe("$JS.EVENT.ADVISORY.STREAM.*.S")).await.unwrap();
    bench.client.flush().await.unwrap();
    assert_eq!(bench.restore(&answer["config"], &chunks).await["state"]["messages"], 1);
    let sent: usize = chunks.iter().map(Bytes::len).sum();
    for (event, kind, bytes) in [
        ("RESTORE_CREATE", "restore_create", Value::Null),
        ("CREATED", "stream_action", Value::Null),
        ("RESTORE_COMPLETE", "restore_complete", json!(sent)),
    ] {
        let advisory = soon(advisories.next()).await.unwrap();
        assert_eq!(advisory.subject.as_str(), format!("$JS.EVENT.ADVISORY.STREAM.{event}.S"));
        let told: Value = serde_json::from_slice(&advisory.payload).unwrap();
        assert_eq!(told["type"], format!("io.nats.jetstream.advisory.v1.{kind}"));
        assert_eq!((&told["stream"], &told["bytes"]), (&json!("S"), &bytes), "{told}");
        if kind.starts_with("restore") {
            assert_eq!((&told["client"]["acc"], &told["client"]["kind"]), (&json!("$G"), &json!("Client")), "{told}");
        }
    }
}

/// More than a segment of the index, more than a commit of the restore, and the largest message there can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_with_the_largest_messages_comes_back() {
    const COUNT: u64 = 66_000;
    let mut bench = Bench::start().await;
    bench.create(json!({"name": "S", "subjects": ["s.*"], "max_msgs_per_subject": 1_000_000})).await;
    for number in 1..=COUNT {
        bench.client.publish(format!("s.{}", number % 7), number.to_string().into()).await.unwrap();
    }
    soon(bench.client.flush()).await.unwrap();
    bench.reached("S", COUNT).await;
    let largest = bench.client.server_info().max_payload;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("A", "b");
    let header_bytes = "NATS/1.0\r\nA: b\r\n\r\n".len();
    for payload in ["y".repeat(largest), "z".repeat(70_000)] {
        bench.publish("s.big", &payload).await;
    }
    let whole = Bytes::from(vec![7; largest - header_bytes]);
    soon(bench.client.request_with_headers("s.whole", headers, whole)).await.unwrap();
    for seq in [1, 2, 300, 65_534, 65_535, 65_536, 65_537, COUNT] {
        bench.api("STREAM.MSG.DELETE.S", json!({ "seq": seq })).await;
    }
    // What comes from a source is longer than anything a client may send.
    bench.create(json!({"name": "FROM", "sources": [{"name": "S", "filter_subject": "s.whole"}]})).await;
    bench.reached("FROM", 1).await;
    let before = bench.info("S").await;
    let (answer, chunks, status) = bench.snapshot("S", json!({})).await;
    assert_eq!(status, "204");
    let (from, from_chunks, status) = bench.snapshot("FROM", json!({})).await;
    assert_eq!(status, "204");
    for stream in ["FROM", "S"] {
        soon(bench.js.delete_stream(stream)).await.unwrap();
    }
    let restored = bench.restore(&answer["config"], &chunks).await;
    assert_eq!(restored["error"], Value::Null);
    assert_eq!(bench.restore(&from["config"], &from_chunks).await["error"], Value::Null);
    for round in ["restored", "restarted"] {
        let after = bench.info("S").await;
        assert_eq!(after["state"], before["state"], "{round}");
        for seq in [3, 65_533, 65_538, COUNT - 1] {
            assert_eq!(bench.stored("S", seq).await.payload, seq.to_string(), "{round}");
        }
        assert_eq!(bench.stored("S", COUNT + 1).await.payload.len(), largest, "{round}");
        assert_eq!(bench.stored("S", COUNT + 3).await.payload.len(), largest - header_bytes, "{round}");
        assert_eq!(bench.stored("FROM", 1).await.payload.len(), largest - header_bytes, "{round}");
        assert_eq!(bench.stored("S", 65_536).await.subject, "", "{round}");
        bench.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_acknowledges_nothing_is_given_up() {
    let bench = Bench::start().await;
    bench.plain("S", "s").await;
    let noise = backups::noise(600_000);
    soon(bench.client.request("s", noise.into())).await.unwrap();
    let options = json!({"chunk_size": 1024, "window_size": 4096});
    let given_up = backups::snapshot(&bench.client, "S", options.clone(), false).await;
    assert_eq!((given_up.chunks.len(), given_up.status.as_str()), (4, "408 No Flow Response"));
    // The next one is not held up by it.
    let taken = backups::snapshot(&bench.client, "S", options, true).await;
    assert_eq!(taken.status, "204");
    assert!(taken.chunks.len() > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_falls_silent_leaves_nothing() {
    let mut bench = Bench::start().await;
    bench.plain("S", "s").await;
    for number in 0..200 {
        bench.publish("s", &format!("{number} {}", "x".repeat(400))).await;
    }
    let (answer, chunks, _) = bench.snapshot("S", json!({"chunk_size": 1024})).await;
    soon(bench.js.delete_stream("S")).await.unwrap();
    let to = bench.begin_restore(&answer["config"]).await;
    assert_eq!(backups::send_chunks(&bench.client, &to, &chunks[..chunks.len() / 2]).await, None);
    let account = bench.server.as_ref().unwrap().jetstream().unwrap().account().clone();
    assert!(account.has_filter(to.as_bytes()));
    let gone = async {
        while account.has_filter(to.as_bytes()) {
            assert_eq!(bench.api("STREAM.NAMES", Value::Null).await["total"], 0, "half a stream is no stream");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    soon(gone).await;
    assert_eq!(bench.restore(&answer["config"], &chunks).await["state"]["messages"], 200);
    bench.restart().await;
    assert_eq!(bench.info("S").await["state"]["messages"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sourced_interest_stream_keeps_what_was_not_taken_yet() {
    let bench = Bench::start().await;
    bench.create(json!({"name": "O", "subjects": ["o"], "retention": "interest"})).await;
    bench.create(json!({"name": "S", "sources": [{"name": "O"}], "max_msgs": 2, "discard": "new"})).await;
    bench.info_when("O", |info| info["state"]["consumer_count"] == 1).await;
    for payload in ["0", "1", "2", "3"] {
        bench.publish("o", payload).await;
    }
    bench.reached("S", 2).await;
    bench.info_when("O", |info| info["state"]["messages"].as_u64() >= Some(2)).await;
    let (answer, chunks, _) = bench.snapshot("O", json!({})).await;
    assert_eq!(answer["state"]["consumer_count"], 1);
    soon(bench.js.delete_stream("O")).await.unwrap();
    let restored = bench.restore(&answer["config"], &chunks).await;
    assert!(restored["state"]["messages"].as_u64() >= Some(2), "{restored}");
    assert_eq!(bench.api("CONSUMER.NAMES.O", Value::Null).await["total"], 1);
}
