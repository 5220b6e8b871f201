//! Streams: create, publish, limits, reads, and what is refused.

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, DiscardPolicy, StorageType};

use crate::support::{Bench, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_stores_what_is_published_to_its_subjects() {
    let bench = Bench::start().await;
    let mut stream = bench.plain("EVENTS", "events.>").await;
    for number in 1..=10 {
        assert_eq!(bench.publish("events.a", &format!("message {number}")).await, number);
    }
    let info = soon(stream.info()).await.unwrap();
    assert_eq!((info.state.messages, info.state.first_sequence, info.state.last_sequence), (10, 1, 10));
    let third = soon(stream.get_raw_message(3)).await.unwrap();
    assert_eq!((third.subject.as_str(), &third.payload[..]), ("events.a", &b"message 3"[..]));
    let last = soon(stream.get_last_raw_message_by_subject("events.a")).await.unwrap();
    assert_eq!(last.sequence, 10);
    assert!(soon(stream.delete_message(3)).await.unwrap());
    assert!(soon(stream.get_raw_message(3)).await.is_err());
    assert_eq!(soon(stream.purge().keep(4)).await.unwrap().purged, 5);
    assert_eq!(soon(stream.info()).await.unwrap().state.messages, 4);
    soon(bench.js.delete_stream("EVENTS")).await.unwrap();
    assert!(soon(bench.js.get_stream("EVENTS")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishes_in_flight_get_consecutive_sequences() {
    let bench = Bench::start().await;
    bench.plain("MANY", "many.*").await;
    let mut acks = Vec::new();
    for number in 0..5000 {
        acks.push(bench.js.publish(format!("many.{}", number % 7), "x".into()).await.unwrap());
    }
    for (number, ack) in acks.into_iter().enumerate() {
        assert_eq!(soon(async { ack.await }).await.unwrap().sequence, number as u64 + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_and_wrong_expectations_are_told() {
    let bench = Bench::start().await;
    bench.plain("D", "d").await;
    let publish = |message: PublishMessage| async {
        let ack = soon(bench.js.send_publish("d", message)).await.unwrap();
        soon(async { ack.await }).await
    };
    let first = publish(PublishMessage::build().payload("a".into()).message_id("one")).await.unwrap();
    let again = publish(PublishMessage::build().payload("a".into()).message_id("one")).await.unwrap();
    assert_eq!((first.sequence, first.duplicate), (1, false));
    assert_eq!((again.sequence, again.duplicate), (1, true));
    let wrong = publish(PublishMessage::build().payload("b".into()).expected_last_sequence(9)).await.unwrap_err();
    assert_eq!(wrong.kind(), PublishErrorKind::WrongLastSequence);
    let wrong = publish(PublishMessage::build().payload("b".into()).expected_last_message_id("two")).await.unwrap_err();
    assert_eq!(wrong.kind(), PublishErrorKind::WrongLastMessageId);
    assert!(publish(PublishMessage::build().payload("b".into()).expected_stream("X")).await.is_err());
    let right = PublishMessage::build().payload("b".into()).expected_last_sequence(1).expected_last_message_id("one");
    assert_eq!(publish(right).await.unwrap().sequence, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold() {
    let bench = Bench::start().await;
    for storage in [StorageType::File, StorageType::Memory] {
        let name = format!("{storage:?}");
        let mut stream = bench
            .stream(stream::Config {
                name: name.clone(),
                subjects: vec![format!("{name}.*")],
                max_messages: 5,
                max_messages_per_subject: 2,
                storage,
                ..Default::default()
            })
            .await;
        for number in 0..12 {
            bench.publish(&format!("{name}.{}", number % 4), &number.to_string()).await;
        }
        let state = soon(stream.info()).await.unwrap().state.clone();
        assert_eq!((state.messages, state.first_sequence, state.last_sequence), (5, 8, 12), "{name}");
    }
    let full = bench
        .stream(stream::Config {
            name: "FULL".into(),
            subjects: vec!["full".into()],
            max_messages: 1,
            discard: DiscardPolicy::New,
            ..Default::default()
        })
        .await;
    bench.publish("full", "fits").await;
    let ack = soon(bench.js.publish("full", "does not".into())).await.unwrap();
    assert!(soon(async { ack.await }).await.is_err());
    assert_eq!(soon(full.get_raw_message(1)).await.unwrap().payload, "fits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_gets_answer_with_headers() {
    let bench = Bench::start().await;
    let stream = bench
        .stream(stream::Config {
            name: "DIRECT".into(),
            subjects: vec!["direct.>".into()],
            allow_direct: true,
            ..Default::default()
        })
        .await;
    let mut headers = HeaderMap::new();
    headers.insert("Color", "green");
    let ack = soon(bench.js.publish_with_headers("direct.a.b", headers, "one".into())).await.unwrap();
    soon(async { ack.await }).await.unwrap();
    bench.publish("direct.c", "two").await;
    let one = soon(stream.direct_get(1)).await.unwrap();
    assert_eq!((one.subject.as_str(), &one.payload[..], one.sequence), ("direct.a.b", &b"one"[..], 1));
    assert_eq!(one.headers.get("Color").map(|value| value.as_str()), Some("green"));
    let last = soon(stream.direct_get_last_for_subject("direct.c")).await.unwrap();
    assert_eq!((last.sequence, &last.payload[..]), (2, &b"two"[..]));
    assert!(soon(stream.direct_get(3)).await.is_err());
    assert!(soon(stream.direct_get_last_for_subject("direct.z")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_listed_updated_and_kept_apart() {
    use futures_util::TryStreamExt;
    let bench = Bench::start().await;
    for number in 0..300 {
        bench.plain(&format!("S{number:03}"), &format!("s.{number}")).await;
    }
    let names: Vec<String> = soon(bench.js.stream_names().try_collect()).await.unwrap();
    assert_eq!(names.len(), 300);
    let infos: Vec<stream::Info> = soon(bench.js.streams().try_collect()).await.unwrap();
    assert_eq!(infos.len(), 300);
    let overlap = stream::Config { name: "O".into(), subjects: vec!["s.>".into()], ..Default::default() };
    assert!(soon(bench.js.create_stream(overlap)).await.is_err());
    let changed = stream::Config { name: "S000".into(), subjects: vec!["t.*".into()], ..Default::default() };
    soon(bench.js.update_stream(&changed)).await.unwrap();
    bench.publish("t.x", "new subject").await;
    let nobody = soon(bench.client.request("s.0", "".into())).await;
    assert!(nobody.is_err(), "the old subject has no stream any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_sent_to_the_api_itself_do_no_harm() {
    let bench = Bench::start().await;
    bench.plain("LOOP", "loop").await;
    let api = ["$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.LOOP", "loop"];
    for subject in api {
        for reply in api {
            bench.client.publish_with_reply(subject, reply, "".into()).await.unwrap();
        }
    }
    soon(bench.client.flush()).await.unwrap();
    soon(bench.js.get_stream("LOOP")).await.unwrap();
    bench.publish("loop", "still there").await;
}
