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
