//! Streams whose subjects change: on the way in, and on the way out again.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{self, Republish, StorageType, SubjectTransform};
use futures_util::StreamExt;

use crate::support::{Bench, soon};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).fold(
        HeaderMap::new(),
        |mut map, (n, v)| {
            map.insert(n.as_str(), v.as_str());
            map
        },
    )
}

/// The PubAck's sequence, or the error's code.
async fn publish_with(bench: &Bench, subject: &str, pairs: &[(&str, &str)]) -> Result<(u64, bool), u64> {
    let request = bench.client.request_with_headers(subject.to_owned(), headers(pairs), "x".into());
    let answer = soon(request).await.expect("the stream answers");
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    match answer["error"]["err_code"].as_u64() {
        Some(code) => Err(code),
        None => Ok((answer["seq"].as_u64().unwrap(), answer["duplicate"].as_bool().unwrap_or(false))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_stores_under_the_subject_its_transform_gives() {
    let bench = Bench::start().await;
    let stream = bench
        .stream(stream::Config {
            name: "T".into(),
            subjects: vec!["orders.*.>".into()],
            subject_transform: Some(SubjectTransform {
                source: "orders.*.>".into(),
                destination: "stored.{{partition(3,1)}}.$1.>".into(),
            }),
            allow_direct: true,
            ..Default::default()
        })
        .await;
    assert_eq!(stream.cached_info().config.subject_transform.as_ref().unwrap().source, "orders.*.>");
    assert_eq!(publish_with(&bench, "orders.ann.new.x", &[("Nats-Msg-Id", "1")]).await, Ok((1, false)));
    let stored = soon(stream.direct_get(1)).await.unwrap();
    let shown = stored.subject.to_string();
    assert!(shown.starts_with("stored.") && shown.ends_with(".ann.new.x"), "{shown}");
    assert_eq!(soon(stream.direct_get_last_for_subject(shown.clone())).await.unwrap().sequence, 1);
    assert!(soon(stream.direct_get_last_for_subject("orders.ann.new.x")).await.is_err());
    // What a publisher expects of its subject is asked of the one that is stored.
    let expect = |seq| [("Nats-Expected-Last-Subject-Sequence", seq)];
    assert_eq!(publish_with(&bench, "orders.ann.new.x", &expect("0")).await, Err(10071));
    assert_eq!(publish_with(&bench, "orders.ann.new.x", &expect("1")).await, Ok((2, false)));
    let named =
        [("Nats-Expected-Last-Subject-Sequence", "2"), ("Nats-Expected-Last-Subject-Sequence-Subject", shown.as_str())];
    assert_eq!(publish_with(&bench, "orders.ann.new.x", &named).await, Ok((3, false)));
    assert_eq!(publish_with(&bench, "orders.ann.other", &[("Nats-Msg-Id", "1")]).await, Ok((1, true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_messages_are_published_again_with_where_they_are() {
    let mut bench = Bench::start().await;
    let republish = |headers_only| {
        Some(Republish { source: "in.*".into(), destination: "out.{{wildcard(1)}}".into(), headers_only })
    };
    let config = stream::Config {
        name: "R".into(),
        subjects: vec!["in.>".into()],
        republish: republish(false),
        ..Default::default()
    };
    bench.stream(config.clone()).await;
    let mut again = bench.client.subscribe("out.>").await.unwrap();
    bench.client.flush().await.unwrap();
    assert_eq!(publish_with(&bench, "in.a", &[("X", "y")]).await, Ok((1, false)));
    assert_eq!(publish_with(&bench, "in.a", &[]).await, Ok((2, false)));
    assert_eq!(publish_with(&bench, "in.too.deep", &[]).await, Ok((3, false)));
    assert_eq!(publish_with(&bench, "in.b", &[]).await, Ok((4, false)));
    for (subject, shown, seq, last, x) in
        [("out.a", "in.a", "1", "0", Some("y")), ("out.a", "in.a", "2", "1", None), ("out.b", "in.b", "4", "0", None)]
    {
        let message = soon(again.next()).await.unwrap();
        let lines = message.headers.unwrap();
        let line = |name: &str| lines.get(name).map(|value| value.to_string());
        assert_eq!((message.subject.as_str(), &message.payload[..]), (subject, &b"x"[..]));
        assert_eq!(line("Nats-Stream").as_deref(), Some("R"));
        assert_eq!(line("Nats-Subject").as_deref(), Some(shown));
        assert_eq!(line("Nats-Sequence").as_deref(), Some(seq));
        assert_eq!(line("Nats-Last-Sequence").as_deref(), Some(last));
        assert_eq!(line("X").as_deref(), x);
        assert!(line("Nats-Time-Stamp").unwrap().ends_with('Z') && line("Nats-Msg-Size").is_none());
    }
    soon(bench.js.update_stream(stream::Config { republish: republish(true), ..config })).await.unwrap();
    bench.restart().await;
    let mut again = bench.client.subscribe("out.>").await.unwrap();
    bench.client.flush().await.unwrap();
    assert_eq!(publish_with(&bench, "in.a", &[]).await, Ok((5, false)));
    let message = soon(again.next()).await.unwrap();
    assert!(message.payload.is_empty());
    assert_eq!(message.headers.unwrap().get("Nats-Msg-Size").unwrap().as_str(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_again_into_a_stream_is_there_when_the_publisher_hears_of_its_own() {
    let bench = Bench::start().await;
    for (storage, name) in [(StorageType::File, "F"), (StorageType::Memory, "M")] {
        let to = format!("{name}.out.>");
        let republish =
            Some(Republish { source: format!("{name}.in.>"), destination: to.clone(), headers_only: false });
        let subjects = vec![format!("{name}.in.>")];
        let of = stream::Config { name: name.into(), subjects, storage, republish, ..Default::default() };
        bench.stream(of).await;
        let into = format!("{name}_OUT");
        bench.stream(stream::Config { name: into.clone(), subjects: vec![to], ..Default::default() }).await;
        for n in 0..200 {
            assert!(publish_with(&bench, &format!("{name}.in.{n}"), &[]).await.is_ok());
            let get = serde_json::json!({ "last_by_subj": format!("{name}.out.{n}") }).to_string();
            let found = bench.client.request(format!("$JS.API.STREAM.MSG.GET.{into}"), get.into());
            let answer: serde_json::Value = serde_json::from_slice(&soon(found).await.unwrap().payload).unwrap();
            assert_eq!(answer["message"]["seq"], n + 1, "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn republish_and_transforms_that_make_no_sense_are_refused() {
    let bench = Bench::start().await;
    let ask = async |body: serde_json::Value| {
        let answer = soon(bench.client.request("$JS.API.STREAM.CREATE.S", body.to_string().into())).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        (answer["error"]["err_code"].as_u64(), answer["error"]["description"].as_str().map(str::to_owned))
    };
    for (extra, code, description) in [
        (
            serde_json::json!({"republish": {"src": "a.>", "dest": "a.b"}}),
            10052,
            "stream configuration for republish destination forms a cycle",
        ),
        (
            serde_json::json!({"republish": {"src": "a.>", "dest": "r"}}),
            10052,
            "stream configuration for republish with transform from 'a.>' to 'r' not valid",
        ),
        (
            serde_json::json!({"subject_transform": {"src": "a..b", "dest": "x"}}),
            10155,
            "stream transform source: invalid subject a..b",
        ),
        (
            serde_json::json!({"subject_transform": {"src": "a.*", "dest": "x.{{foo(1)}}"}}),
            10156,
            "stream transform: invalid mapping destination: unknown function in {{foo(1)}}",
        ),
    ] {
        let mut body = serde_json::json!({"name": "S", "subjects": ["a.>"]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        assert_eq!(ask(body).await, (Some(code), Some(description.to_owned())));
    }
    // All to all is the stream's own transform.
    let body = serde_json::json!({"name": "S", "subjects": ["a.>"], "republish": {"src": ">", "dest": ">"},
        "subject_transform": {"src": "a.>", "dest": "b.>"}});
    assert_eq!(ask(body).await, (None, None));
    let info = soon(soon(bench.js.get_stream("S")).await.unwrap().info()).await.unwrap().config.clone();
    assert_eq!(info.republish.map(|pair| (pair.source, pair.destination)), Some(("b.>".into(), "b.>".into())));
}
