//! Consumers: pull and push, acks, redelivery, limits.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer};
use futures_util::{StreamExt, TryStreamExt};

use crate::support::{Bench, fetch, pull, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_consumer_delivers_in_order_and_once() {
    let bench = Bench::start().await;
    let stream = bench.plain("P", "p.>").await;
    for number in 0..500 {
        bench.publish("p.x", &number.to_string()).await;
    }
    let mut consumer = pull(&stream, "c").await;
    let expected: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(fetch(&consumer, 300, true).await, expected[..300]);
    assert_eq!(fetch(&consumer, 300, true).await, expected[300..]);
    let info = soon(consumer.info()).await.unwrap();
    assert_eq!((info.num_pending, info.num_ack_pending, info.ack_floor.stream_sequence), (0, 0, 500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_pulls_get_what_arrives_later() {
    let bench = Bench::start().await;
    let stream = bench.plain("W", "w").await;
    let consumer = pull(&stream, "c").await;
    let mut messages = soon(consumer.messages()).await.unwrap();
    for number in 0..50 {
        bench.publish("w", &number.to_string()).await;
        let message = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, number.to_string());
        soon(message.ack()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_created_while_messages_are_being_written_gets_them_all() {
    const MESSAGES: usize = 2_000;
    let bench = Bench::start().await;
    for round in 0..10 {
        let subject = format!("wave.{round}");
        let stream = bench.plain(&format!("WAVE{round}"), &subject).await;
        for number in 0..MESSAGES {
            soon(bench.client.publish(subject.clone(), number.to_string().into())).await.unwrap();
        }
        let config = consumer::pull::Config { ack_policy: AckPolicy::None, ..Default::default() };
        let consumer: PullConsumer = soon(stream.create_consumer(config)).await.unwrap();
        assert_eq!(fetch(&consumer, MESSAGES, false).await.len(), MESSAGES, "in round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_acked_comes_again() {
    let bench = Bench::start().await;
    let stream = bench.plain("R", "r").await;
    let config = consumer::pull::Config {
        durable_name: Some("c".into()),
        ack_wait: Duration::from_millis(300),
        max_deliver: 3,
        ..Default::default()
    };
    let consumer: PullConsumer = soon(stream.create_consumer(config)).await.unwrap();
    let mut advisories = soon(bench.client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.R.c")).await.unwrap();
    soon(bench.client.flush()).await.unwrap();
    bench.publish("r", "stubborn").await;
    let mut messages = soon(consumer.messages()).await.unwrap();
    for delivery in 1..=3 {
        let message = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!(message.info().unwrap().delivered, delivery);
    }
    let advisory = soon(advisories.next()).await.unwrap();
    let advisory: serde_json::Value = serde_json::from_slice(&advisory.payload).unwrap();
    assert_eq!((advisory["stream_seq"].as_u64(), advisory["deliveries"].as_u64()), (Some(1), Some(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn naks_terms_and_progress_mean_what_they_say() {
    let bench = Bench::start().await;
    let stream = bench.plain("N", "n").await;
    let consumer = pull(&stream, "c").await;
    let mut messages = soon(consumer.messages()).await.unwrap();
    for payload in ["nak", "term", "ack"] {
        bench.publish("n", payload).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let message = soon(messages.next()).await.unwrap().unwrap();
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        let again = message.info().unwrap().delivered > 1;
        soon(message.ack_with(AckKind::Progress)).await.unwrap();
        match (&*payload, again) {
            ("nak", false) => soon(message.ack_with(AckKind::Nak(None))).await.unwrap(),
            ("term", false) => soon(message.ack_with(AckKind::Term)).await.unwrap(),
            _ => soon(message.double_ack()).await.unwrap(),
        }
        seen.push((payload, again));
    }
    seen.sort();
    let expected = [("ack", false), ("nak", false), ("nak", true), ("term", false)];
    assert_eq!(seen, expected.map(|(payload, again)| (payload.to_owned(), again)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_consumer_delivers_to_its_subject() {
    let bench = Bench::start().await;
    let stream = bench.plain("U", "u.*").await;
    for number in 0..100 {
        bench.publish(&format!("u.{}", number % 2), &number.to_string()).await;
    }
    let config = consumer::push::Config {
        deliver_subject: bench.client.new_inbox(),
        filter_subject: "u.1".into(),
        ack_policy: AckPolicy::Explicit,
        ..Default::default()
    };
    let push: consumer::PushConsumer = soon(stream.create_consumer(config)).await.unwrap();
    let mut messages = soon(push.messages()).await.unwrap();
    for number in (1..100).step_by(2) {
        let message = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!((message.subject.as_str(), &message.payload[..]), ("u.1", number.to_string().as_bytes()));
        soon(message.ack()).await.unwrap();
    }
    bench.publish("u.1", "later").await;
    assert_eq!(soon(messages.next()).await.unwrap().unwrap().payload, "later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_consumer_reads_everything() {
    let bench = Bench::start().await;
    let stream = bench.plain("ORD", "ord").await;
    let mut acks = Vec::new();
    for number in 0..3000 {
        acks.push(bench.js.publish("ord", number.to_string().into()).await.unwrap());
    }
    for ack in acks {
        soon(async { ack.await }).await.unwrap();
    }
    let config = consumer::push::OrderedConfig { deliver_subject: bench.client.new_inbox(), ..Default::default() };
    let ordered = soon(stream.create_consumer(config)).await.unwrap();
    let mut messages = soon(ordered.messages()).await.unwrap();
    for number in 0..3000 {
        let message = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, number.to_string());
    }
    let config = consumer::pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..Default::default() };
    let ordered = soon(stream.create_consumer(config)).await.unwrap();
    let mut messages = soon(ordered.messages()).await.unwrap();
    for number in 0..3000 {
        let message = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_are_listed_and_deleted() {
    let bench = Bench::start().await;
    let stream = bench.plain("L", "l").await;
    for name in ["b", "a", "c"] {
        pull(&stream, name).await;
    }
    let mut names: Vec<String> = soon(stream.consumer_names().try_collect()).await.unwrap();
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
    let waiting: PullConsumer = soon(stream.get_consumer("b")).await.unwrap();
    let mut messages = soon(waiting.messages()).await.unwrap();
    let end = tokio::spawn(async move { messages.next().await });
    soon(stream.delete_consumer("b")).await.unwrap();
    let end = soon(end).await.unwrap();
    assert!(!matches!(end, Some(Ok(_))), "a waiting pull learns that its consumer is gone");
    let infos: Vec<consumer::Info> = soon(stream.consumers().try_collect()).await.unwrap();
    let mut names: Vec<&str> = infos.iter().map(|info| info.name.as_str()).collect();
    names.sort();
    assert_eq!(names, ["a", "c"]);
    assert!(soon(stream.delete_consumer("b")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_ephemeral_goes_away() {
    let bench = Bench::start().await;
    let stream = bench.plain("E", "e").await;
    let mut deleted = soon(bench.client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.DELETED.E.*")).await.unwrap();
    soon(bench.client.flush()).await.unwrap();
    let config = consumer::pull::Config { inactive_threshold: Duration::from_millis(200), ..Default::default() };
    let _: PullConsumer = soon(stream.create_consumer(config)).await.unwrap();
    soon(deleted.next()).await.unwrap();
    let names: Vec<String> = soon(stream.consumer_names().try_collect()).await.unwrap();
    assert!(names.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_ack_pending_holds_deliveries_back() {
    let bench = Bench::start().await;
    let stream = bench.plain("A", "a").await;
    for number in 0..20 {
        bench.publish("a", &number.to_string()).await;
    }
    let config = consumer::pull::Config { durable_name: Some("c".into()), max_ack_pending: 5, ..Default::default() };
    let consumer: PullConsumer = soon(stream.create_consumer(config)).await.unwrap();
    let expiring = consumer.batch().max_messages(10).expires(Duration::from_millis(300));
    let mut batch = soon(expiring.messages()).await.unwrap();
    let mut held = Vec::new();
    while let Some(Ok(message)) = soon(batch.next()).await {
        held.push(message);
    }
    assert_eq!(held.len(), 5);
    soon(held[0].double_ack()).await.unwrap();
    assert_eq!(fetch(&consumer, 1, false).await, ["5"]);
    let mut consumer = consumer;
    assert_eq!(soon(consumer.info()).await.unwrap().num_ack_pending, 5);
}
