//! The account: domains, limits, usage, and requests that only a cluster can serve. Expectations are nats-server 2.15.1's.

use std::time::Duration;

use futures_util::StreamExt;
use natterjack::config::{Config, JetStreamOptions};
use serde_json::{Value, json};

use crate::support::{Bench, soon};

async fn bench(options: JetStreamOptions) -> Bench {
    Bench::start_with(|config| Config { jetstream_options: options, ..config }).await
}

/// The answer to a request, or the reason there is none.
async fn ask(client: &async_nats::Client, subject: &str, body: &str) -> Result<Value, String> {
    ask_for(Duration::from_secs(20), client, subject, body).await
}

async fn ask_for(patience: Duration, client: &async_nats::Client, subject: &str, body: &str) -> Result<Value, String> {
    let request = async_nats::Request::new().payload(body.to_owned().into()).timeout(Some(patience));
    match client.send_request(subject.to_owned(), request).await {
        Ok(message) => Ok(serde_json::from_slice(&message.payload).unwrap()),
        Err(error) => Err(error.kind().to_string()),
    }
}

fn domain() -> JetStreamOptions {
    JetStreamOptions { domain: Some("HUB".into()), ..JetStreamOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_has_its_own_prefix_and_is_named_where_nats_server_names_it() {
    let bench = bench(domain()).await;
    let client = &bench.client;
    let advisories = soon(client.subscribe("$JS.EVENT.ADVISORY.>")).await.unwrap();
    soon(client.flush()).await.unwrap();
    let config = r#"{"name":"S","subjects":["s"],"allow_direct":true}"#;
    let created = ask(client, "$JS.HUB.API.STREAM.CREATE.S", config).await.unwrap();
    assert_eq!((&created["did_create"], &created["domain"]), (&json!(true), &Value::Null), "{created}");
    let info = ask(client, "$JS.HUB.API.STREAM.INFO.S", "").await.unwrap();
    assert_eq!((&info["config"]["name"], &info["domain"]), (&json!("S"), &json!("HUB")), "{info}");
    assert_eq!(ask(client, "$JS.API.STREAM.LIST", "").await.unwrap()["streams"][0]["domain"], "HUB");
    assert_eq!(ask(client, "$JS.API.INFO", "").await.unwrap()["domain"], "HUB");
    assert_eq!(ask(client, "s", "hello").await.unwrap(), json!({"stream": "S", "domain": "HUB", "seq": 1}));

    let hub = async_nats::jetstream::with_domain(client.clone(), "HUB");
    let stream = soon(hub.get_stream("S")).await.unwrap();
    assert_eq!(&soon(stream.direct_get(1)).await.unwrap().payload[..], b"hello");
    let consumer = crate::support::pull(&stream, "c").await;
    assert_eq!(crate::support::fetch(&consumer, 1, true).await, ["hello"]);

    let other = ask(client, "$JS.OTHER.API.INFO", "").await;
    assert_eq!(other.unwrap_err(), "no responders");
    let seen: Vec<Value> =
        advisories.take(2).map(|event| serde_json::from_slice(&event.payload).unwrap()).collect().await;
    for event in &seen {
        assert_eq!(event["domain"], "HUB", "{event}");
        if let Some(subject) = event["subject"].as_str() {
            assert_eq!(subject, "$JS.API.STREAM.CREATE.S", "requests are audited as they are routed");
        }
    }
    let info = client.server_info();
    assert_eq!(info.domain.as_deref(), Some("HUB"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_cannot_reserve_more_than_the_server_may_hold() {
    let limits = JetStreamOptions {
        memory_bytes_max: Some(1_000),
        storage_bytes_max: Some(1_000_000),
        ..JetStreamOptions::default()
    };
    let bench = bench(limits).await;
    let client = &bench.client;
    let code = |answer: Result<Value, String>| answer.unwrap()["error"]["err_code"].clone();
    let stream = |name: &str, storage: &str, max_bytes: i64| {
        json!({"name": name, "subjects": [name], "storage": storage, "max_bytes": max_bytes}).to_string()
    };
    assert_eq!(code(ask(client, "$JS.API.STREAM.CREATE.M", &stream("M", "memory", 1_001)).await), 10028);
    assert_eq!(code(ask(client, "$JS.API.STREAM.CREATE.F", &stream("F", "file", 1_000_001)).await), 10047);
    assert_eq!(code(ask(client, "$JS.API.STREAM.CREATE.F", &stream("F", "file", 600_000)).await), Value::Null);
    assert_eq!(code(ask(client, "$JS.API.STREAM.CREATE.G", &stream("G", "file", 600_000)).await), 10047);
    assert_eq!(code(ask(client, "$JS.API.STREAM.UPDATE.F", &stream("F", "file", 1_000_001)).await), 10047);
    assert_eq!(code(ask(client, "$JS.API.STREAM.UPDATE.F", &stream("F", "file", 1_000_000)).await), Value::Null);
    let account = ask(client, "$JS.API.INFO", "").await.unwrap();
    assert_eq!((&account["reserved_storage"], &account["streams"]), (&json!(1_000_000), &json!(1)), "{account}");
    assert_eq!((&account["api"]["total"], &account["api"]["errors"]), (&json!(6), &json!(4)), "{account}");

    // A stream without max_bytes is stopped by what the server may hold in all.
    assert_eq!(code(ask(client, "$JS.API.STREAM.CREATE.M", &stream("M", "memory", -1)).await), Value::Null);
    let mut refused = Value::Null;
    for _ in 0..20 {
        let answer = ask(client, "M", &"x".repeat(100)).await.unwrap();
        if !answer["error"].is_null() {
            refused = answer;
            break;
        }
    }
    let expected = json!({"code": 503, "err_code": 10023, "description": "insufficient resources"});
    assert_eq!(refused["error"], expected, "{refused}");
    let purged = ask(client, "$JS.API.STREAM.PURGE.M", "").await.unwrap();
    assert!(purged["purged"].as_u64().unwrap() > 0, "{purged}");
    assert_eq!(ask(client, "M", "x").await.unwrap()["error"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_nobody_knows_stay_unanswered_and_those_of_clusters_are_refused() {
    let bench = bench(JetStreamOptions::default()).await;
    let client = &bench.client;
    for subject in ["STREAM.LEADER.STEPDOWN.S", "STREAM.PEER.REMOVE.S", "CONSUMER.LEADER.STEPDOWN.S.c"] {
        let answer = ask(client, &format!("$JS.API.{subject}"), "").await.unwrap();
        assert_eq!(answer["error"]["err_code"], 10010, "{subject}: {answer}");
    }
    for subject in ["FOO", "STREAM.FOO", "STREAM.INFO.a.b", "ACCOUNT.PURGE.$G", "SERVER.REMOVE", "META.LEADER.STEPDOWN"]
    {
        let answer = ask_for(Duration::from_millis(100), client, &format!("$JS.API.{subject}"), "").await;
        assert_eq!(answer.unwrap_err(), "request timed out", "{subject}");
    }
    for subject in ["CONSUMER.MSG.NEXT.S.c", "DIRECT.GET.S", "DIRECT.GET.S.a"] {
        assert_eq!(ask(client, &format!("$JS.API.{subject}"), "").await.unwrap_err(), "no responders", "{subject}");
    }
    // What nobody knows is not counted.
    assert_eq!(ask(client, "$JS.API.INFO", "").await.unwrap()["api"]["total"], 3);
}
