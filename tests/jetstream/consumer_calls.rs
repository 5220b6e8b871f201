//! Pausing, resetting and unpinning consumers, and priority groups, as clients ask for them.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{self, PullConsumer};
use futures_util::StreamExt;
use natterjack::types::Timestamp;
use serde_json::{Value, json};

use crate::support::{Bench, fetch, pull, soon};

/// Asks `$JS.API.<subject>`.
async fn ask(bench: &Bench, subject: &str, body: Value) -> Value {
    let reply = soon(bench.client.request(format!("$JS.API.{subject}"), body.to_string().into())).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_told_outlives_a_restart_and_ends() {
    let mut bench = Bench::start().await;
    let stream = bench.plain("P", "p").await;
    pull(&stream, "c").await;
    bench.publish("p", "one").await;
    let mut told = soon(bench.client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.P.c")).await.unwrap();
    let far = "2126-01-01T00:00:00Z";
    let paused = ask(&bench, "CONSUMER.PAUSE.P.c", json!({"pause_until": far})).await;
    assert_eq!((&paused["paused"], &paused["pause_until"]), (&json!(true), &json!(far)), "{paused}");
    let advisory: Value = serde_json::from_slice(&soon(told.next()).await.unwrap().payload).unwrap();
    assert_eq!((&advisory["paused"], &advisory["pause_until"]), (&json!(true), &json!(far)), "{advisory}");

    bench.restart().await;
    let info = ask(&bench, "CONSUMER.INFO.P.c", json!({})).await;
    assert_eq!((&info["paused"], &info["config"]["pause_until"]), (&json!(true), &json!(far)), "{info}");
    let consumer: PullConsumer = soon(bench.js.get_consumer_from_stream("c", "P")).await.unwrap();
    assert_eq!(fetch(&consumer, 1, true).await, Vec::<String>::new());

    let mut told = soon(bench.client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.P.c")).await.unwrap();
    let mut messages = soon(consumer.messages()).await.unwrap();
    let near = Timestamp::now() + Duration::from_millis(700);
    ask(&bench, "CONSUMER.PAUSE.P.c", json!({"pause_until": near.to_rfc3339()})).await;
    assert_eq!(soon(messages.next()).await.unwrap().unwrap().payload, "one");
    assert!(Timestamp::now() >= near, "not before the pause ended");
    for expected in [true, false] {
        let advisory: Value = serde_json::from_slice(&soon(told.next()).await.unwrap().payload).unwrap();
        assert_eq!(advisory["paused"], json!(expected));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_consumer_starts_over_also_after_a_restart() {
    let mut bench = Bench::start().await;
    let stream = bench.plain("R", "r").await;
    for payload in ["1", "2", "3", "4"] {
        bench.publish("r", payload).await;
    }
    let consumer = pull(&stream, "c").await;
    assert_eq!(fetch(&consumer, 3, true).await, ["1", "2", "3"]);
    let reset = ask(&bench, "CONSUMER.RESET.R.c", json!({"seq": 2})).await;
    assert_eq!(reset["type"], "io.nats.jetstream.api.v1.consumer_reset_response");
    assert_eq!((&reset["reset_seq"], &reset["num_pending"]), (&json!(2), &json!(3)), "{reset}");
    bench.restart().await;
    let consumer: PullConsumer = soon(bench.js.get_consumer_from_stream("c", "R")).await.unwrap();
    assert_eq!(fetch(&consumer, 3, true).await, ["2", "3", "4"]);
    let nobody = soon(bench.client.request("$JS.API.CONSUMER.RESET.R.other", "".into())).await;
    assert!(nobody.is_err_and(|error| error.kind() == async_nats::client::RequestErrorKind::NoResponders));
    let missing = ask(&bench, "CONSUMER.RESET.R.c", json!("x")).await;
    assert_eq!(missing["error"]["err_code"], 10025, "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_is_pinned_until_the_pin_is_taken_away() {
    let bench = Bench::start().await;
    let stream = bench.plain("U", "u").await;
    let config = consumer::pull::Config {
        durable_name: Some("c".into()),
        priority_policy: consumer::PriorityPolicy::PinnedClient,
        priority_groups: vec!["g".into()],
        ..Default::default()
    };
    let _: PullConsumer = soon(stream.create_consumer(config)).await.unwrap();
    let client = &bench.client;
    let mut told = soon(client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.*.U.c")).await.unwrap();
    let mut one = soon(client.subscribe("one")).await.unwrap();
    let mut two = soon(client.subscribe("two")).await.unwrap();
    let next = "$JS.API.CONSUMER.MSG.NEXT.U.c";
    let wait = r#"{"batch":10,"group":"g","expires":20000000000}"#;
    soon(client.publish_with_reply(next, "one", wait.into())).await.unwrap();
    bench.publish("u", "a").await;
    let first = soon(one.next()).await.unwrap();
    let pin = |headers: &Option<HeaderMap>| headers.as_ref().unwrap().get("Nats-Pin-Id").unwrap().to_string();
    let pinned = pin(&first.headers);
    soon(client.publish_with_reply(next, "two", wait.into())).await.unwrap();
    bench.publish("u", "b").await;
    assert_eq!(soon(one.next()).await.unwrap().payload, "b", "the pinned one gets all");

    for (body, err_code) in
        [(json!({}), 10025), (json!({"group": "bad group"}), 10162), (json!({"group": "other"}), 10160)]
    {
        assert_eq!(ask(&bench, "CONSUMER.UNPIN.U.c", body).await["error"]["err_code"], err_code);
    }
    let unpinned = ask(&bench, "CONSUMER.UNPIN.U.c", json!({"group": "g"})).await;
    assert_eq!(unpinned, json!({"type": "io.nats.jetstream.api.v1.consumer_unpin_response"}));
    bench.publish("u", "c").await;
    let third = soon(two.next()).await.unwrap();
    assert_eq!(third.payload, "c");
    assert_ne!(pin(&third.headers), pinned);
    bench.publish("u", "d").await;
    assert_eq!(soon(two.next()).await.unwrap().payload, "d");
    assert_eq!(soon(one.next()).await.unwrap().status, Some(async_nats::StatusCode::from_u16(423).unwrap()));
    let mut events = Vec::new();
    for _ in 0..3 {
        let advisory: Value = serde_json::from_slice(&soon(told.next()).await.unwrap().payload).unwrap();
        events.push((
            advisory["type"].as_str().unwrap().rsplit('_').next().unwrap().to_owned(),
            advisory["reason"].clone(),
        ));
    }
    assert_eq!(
        events,
        [("pinned".into(), Value::Null), ("unpinned".into(), json!("admin")), ("pinned".into(), Value::Null),]
    );
}

/// What is told of dead letters can be kept in a stream, as with nats-server: on a restart it says what became of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_what_is_told_of_terminated_messages() {
    let mut bench = Bench::start().await;
    let told = ["$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"];
    let told = told.map(str::to_owned).to_vec();
    bench
        .stream(async_nats::jetstream::stream::Config { name: "TOLD".into(), subjects: told, ..Default::default() })
        .await;
    let stream = bench.plain("T", "t").await;
    let consumer = pull(&stream, "c").await;
    bench.publish("t", "bad").await;
    let mut messages = soon(consumer.messages()).await.unwrap();
    let message = soon(messages.next()).await.unwrap().unwrap();
    soon(message.double_ack_with(async_nats::jetstream::AckKind::Term)).await.unwrap();
    bench.restart().await;
    let kept = soon(bench.js.get_stream("TOLD")).await.unwrap();
    let first = soon(kept.get_raw_message(1)).await.unwrap();
    assert_eq!(first.subject.as_str(), "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.T.c");
    let advisory: Value = serde_json::from_slice(&first.payload).unwrap();
    assert_eq!((&advisory["stream_seq"], &advisory["deliveries"]), (&json!(1), &json!(1)), "{advisory}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_delay_of_a_nak_outlives_a_restart() {
    let mut bench = Bench::start().await;
    let stream = bench.plain("D", "d").await;
    let config = consumer::pull::Config {
        durable_name: Some("c".into()),
        ack_wait: Duration::from_secs(3600),
        ..Default::default()
    };
    let consumer: PullConsumer = soon(stream.create_consumer(config)).await.unwrap();
    bench.publish("d", "later").await;
    let mut messages = soon(consumer.messages()).await.unwrap();
    let message = soon(messages.next()).await.unwrap().unwrap();
    let asked = Timestamp::now();
    let delay = Duration::from_secs(2);
    soon(message.double_ack_with(async_nats::jetstream::AckKind::Nak(Some(delay)))).await.unwrap();
    drop(messages);
    bench.restart().await;
    let consumer: PullConsumer = soon(bench.js.get_consumer_from_stream("c", "D")).await.unwrap();
    let mut messages = soon(consumer.messages()).await.unwrap();
    let again = soon(messages.next()).await.unwrap().unwrap();
    assert_eq!((again.info().unwrap().delivered, &*again.payload), (2, &b"later"[..]));
    assert!(Timestamp::now() >= asked + delay, "not sooner than it was asked for");
}
