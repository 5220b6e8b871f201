//! Acks and redeliveries as seen on one connection, where the order of arrival is the order of sending.

use std::time::Duration;

use async_nats::jetstream::consumer;
use futures_util::{FutureExt, StreamExt};

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
