//! Acks and redeliveries as seen on one connection, where the order of arrival is the order of sending.

use std::time::Duration;

use async_nats::jetstream::{AckKind, consumer};
use futures_util::{FutureExt, StreamExt};
use serde_json::json;

use crate::support::{Bench, soon};

/// An ack shows in its metric, which is sent at once; a redelivery waits for its commit before it is sent. Both come over
/// one connection, so a redelivery that arrives after the metric was sent after the ack had been taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_delivered_again_once_its_ack_has_been_taken() {
    let bench = Bench::start().await;
    let stream = bench.plain("L", "l").await;
    let config = consumer::pull::Config { durable_name: Some("c".into()), sample_frequency: 100, ..Default::default() };
    let _: consumer::PullConsumer = soon(stream.create_consumer(config)).await.unwrap();
    let client = &bench.client;
    let mut everything = soon(client.subscribe("late.>")).await.unwrap();
    let mut metrics = soon(client.subscribe("$JS.EVENT.METRIC.CONSUMER.ACK.L.c")).await.unwrap();
    let next = "$JS.API.CONSUMER.MSG.NEXT.L.c";
    let wait = r#"{"batch":1,"expires":100000000}"#;
    for round in 0..150u64 {
        bench.publish("l", "x").await;
        soon(client.publish_with_reply(next, format!("late.a.{round}"), "".into())).await.unwrap();
        let first = soon(everything.next()).await.unwrap();
        let ack = first.reply.expect("a delivery has an ack subject");
        soon(client.publish_with_reply(next, format!("late.b.{round}"), wait.into())).await.unwrap();
        soon(client.publish(ack.clone(), "-NAK".into())).await.unwrap();
        soon(client.flush()).await.unwrap();
        // From before the redelivery is written down to after it: some rounds hit its commit.
        tokio::time::sleep(Duration::from_micros(round * 20 % 700)).await;
        soon(client.publish(ack, "+ACK".into())).await.unwrap();
        soon(metrics.next()).await.unwrap();
        if everything.next().now_or_never().is_none() {
            let late = soon(everything.next()).await.unwrap();
            assert!(late.status.is_some(), "round {round}: delivered again after its ack: {late:?}");
        }
    }
}

/// Two streams that keep the advisories of each other's consumers, and one that keeps its own consumer's: each waits for
/// letters to be submitted before it goes on, and none for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_keep_each_others_dead_letters_hold_nobody_up() {
    const COUNT: usize = 60;
    let bench = Bench::start().await;
    let mut ends = Vec::new();
    for (name, other) in [("A", "B"), ("B", "A"), ("C", "C")] {
        let letters = format!("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.{other}.*");
        bench.create(json!({"name": name, "subjects": [name, letters]})).await;
        let stream = soon(bench.js.get_stream(name)).await.unwrap();
        let config = consumer::pull::Config {
            durable_name: Some("c".into()),
            filter_subject: name.into(),
            ..Default::default()
        };
        let consumer: consumer::PullConsumer = soon(stream.create_consumer(config)).await.unwrap();
        for _ in 0..COUNT {
            bench.publish(name, "x").await;
        }
        ends.push(async move {
            let mut batch = soon(consumer.fetch().max_messages(COUNT).messages()).await.unwrap();
            while let Some(message) = soon(batch.next()).await {
                soon(message.unwrap().double_ack_with(AckKind::Term)).await.unwrap();
            }
        });
    }
    // Who waited in vain would do so for a second each time.
    let all = tokio::time::timeout(Duration::from_secs(COUNT as u64 / 2), futures_util::future::join_all(ends));
    all.await.expect("nobody is held up");
    for name in ["A", "B", "C"] {
        bench.reached(name, 2 * COUNT as u64).await;
    }
}
