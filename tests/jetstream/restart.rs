//! What is acknowledged is there after the broker stopped and started again.

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream;
use futures_util::StreamExt;

use crate::support::{Bench, fetch, pull, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_consumers_and_acks_survive() {
    let mut bench = Bench::start().await;
    let stream = bench.plain("KEEP", "keep.*").await;
    for number in 0..100 {
        bench.publish(&format!("keep.{}", number % 3), &number.to_string()).await;
    }
    let consumer = pull(&stream, "c").await;
    assert_eq!(fetch(&consumer, 40, true).await.len(), 40);
    // Out of order: every other one of the next ten.
    let mut batch = soon(consumer.fetch().max_messages(10).messages()).await.unwrap();
    let mut left = Vec::new();
    while let Some(message) = soon(batch.next()).await {
        let message = message.unwrap();
        let seq = message.info().unwrap().stream_sequence;
        match seq % 2 {
            0 => soon(message.double_ack()).await.unwrap(),
            _ => left.push((seq - 1).to_string()),
        }
    }
    bench.restart().await;
    let mut stream = soon(bench.js.get_stream("KEEP")).await.unwrap();
    let state = soon(stream.info()).await.unwrap().state.clone();
    assert_eq!((state.messages, state.last_sequence, state.subjects_count), (100, 100, 3));
    let mut consumer: PullConsumer = soon(stream.get_consumer("c")).await.unwrap();
    let info = soon(consumer.info()).await.unwrap().clone();
    assert_eq!(info.ack_floor.stream_sequence, 40);
    assert_eq!(info.num_ack_pending + info.num_pending as usize, 55);
    // What was never delivered comes at once; what was and is not acked, after its ack wait.
    let rest: Vec<String> = (50..100).map(|number| number.to_string()).collect();
    assert_eq!(fetch(&consumer, 50, true).await, rest);
    assert_eq!(soon(consumer.info()).await.unwrap().num_ack_pending, left.len());
    assert_eq!(bench.publish("keep.0", "more").await, 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_and_duplicates_are_remembered() {
    use async_nats::jetstream::message::PublishMessage;
    let mut bench = Bench::start().await;
    let stream = bench.plain("SEQ", "seq").await;
    let publish = |bench: &Bench, id: &str| {
        let (js, message) = (bench.js.clone(), PublishMessage::build().payload("x".into()).message_id(id));
        async move {
            let ack = soon(js.send_publish("seq", message)).await.unwrap();
            soon(async { ack.await }).await.unwrap()
        }
    };
    assert_eq!(publish(&bench, "a").await.sequence, 1);
    assert_eq!(publish(&bench, "b").await.sequence, 2);
    bench.restart().await;
    let again = publish(&bench, "b").await;
    assert_eq!((again.sequence, again.duplicate), (2, true));
    soon(bench.js.get_stream("SEQ")).await.unwrap().purge().await.unwrap();
    drop(stream);
    bench.restart().await;
    let next = publish(&bench, "c").await;
    assert_eq!((next.sequence, next.duplicate), (3, false), "a purge gives no sequence back");
}

/// More messages than one segment of the index holds, so that most come back from its summary and not from their rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_comes_back_from_its_summary() {
    use async_nats::jetstream::message::PublishMessage;
    const MESSAGES: u64 = 66_000;
    let mut bench = Bench::start().await;
    let config = |name: &str| stream::Config { name: name.into(), allow_message_ttl: true, ..Default::default() };
    let mut stream = bench.stream(stream::Config { subjects: vec!["full.*".into()], ..config("FULL") }).await;
    let origin = stream::Source { name: "FULL".into(), ..Default::default() };
    let mut copy = bench.stream(stream::Config { sources: Some(vec![origin]), ..config("COPY") }).await;
    let send = |bench: &Bench, message: PublishMessage| {
        let js = bench.js.clone();
        async move {
            let ack = soon(js.send_publish("full.odd", message)).await.unwrap();
            soon(async { ack.await }).await.unwrap()
        }
    };
    let identified = || PublishMessage::build().payload("x".into()).message_id("known");
    for seq in 1..MESSAGES {
        match seq {
            500 => assert_eq!(send(&bench, identified()).await.sequence, seq),
            1_000 => assert!(soon(stream.delete_message(600)).await.unwrap()),
            _ => {}
        }
        match seq {
            500 => {}
            // Late in the segment and once the copy is near, so that it outlives the stop.
            65_000 => {
                while soon(copy.info()).await.unwrap().state.messages < 64_000 {
                    tokio::task::yield_now().await;
                }
                let brief = PublishMessage::build().payload("brief".into()).header("Nats-TTL", "12s");
                assert_eq!(send(&bench, brief).await.sequence, seq);
            }
            _ => soon(bench.client.publish(format!("full.{}", seq % 100), "x".into())).await.unwrap(),
        }
    }
    assert_eq!(bench.publish("full.0", "last").await, MESSAGES);
    // What was removed again may have been taken before or not at all, so the copy's own last sequence is what counts.
    while soon(copy.get_last_raw_message_by_subject("full.0")).await.unwrap().payload != "last" {}
    let taken = soon(copy.info()).await.unwrap().state.last_sequence;
    assert!((MESSAGES - 1..=MESSAGES).contains(&taken), "nothing is taken twice: {taken}");
    let before = soon(stream.info()).await.unwrap().state.clone();
    bench.restart().await;
    let mut stream = soon(bench.js.get_stream("FULL")).await.unwrap();
    let after = soon(stream.info()).await.unwrap().state.clone();
    assert_eq!((after.first_sequence, after.last_sequence), (1, MESSAGES));
    assert_eq!((after.messages, after.bytes, after.subjects_count), (before.messages, before.bytes, 101));
    assert_eq!((after.first_timestamp, after.last_timestamp), (before.first_timestamp, before.last_timestamp));
    assert!(soon(stream.get_raw_message(600)).await.is_err());
    assert_eq!(soon(stream.get_last_raw_message_by_subject("full.99")).await.unwrap().sequence, 65_999);
    let again = send(&bench, identified()).await;
    assert_eq!((again.sequence, again.duplicate), (500, true));
    soon(async { while stream.get_raw_message(65_000).await.is_ok() {} }).await;
    // What is taken from other streams goes on where it was.
    bench.publish("full.0", "more").await;
    let mut copy = soon(bench.js.get_stream("COPY")).await.unwrap();
    soon(async {
        loop {
            let last = copy.get_last_raw_message_by_subject("full.0").await.unwrap();
            if last.payload == "more" {
                break;
            }
        }
    })
    .await;
    assert_eq!(soon(copy.info()).await.unwrap().state.last_sequence, taken + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_streams_stay_deleted_and_memory_is_forgotten() {
    let mut bench = Bench::start().await;
    bench.plain("GONE", "gone").await;
    bench.publish("gone", "x").await;
    soon(bench.js.delete_stream("GONE")).await.unwrap();
    bench
        .stream(stream::Config {
            name: "MEM".into(),
            subjects: vec!["mem".into()],
            storage: stream::StorageType::Memory,
            ..Default::default()
        })
        .await;
    bench.publish("mem", "x").await;
    bench.restart().await;
    assert!(soon(bench.js.get_stream("GONE")).await.is_err());
    assert!(soon(bench.js.get_stream("MEM")).await.is_err());
    bench.plain("GONE", "gone").await;
    assert_eq!(bench.publish("gone", "fresh").await, 1);
}
