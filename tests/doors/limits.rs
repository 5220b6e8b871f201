//! What JetStream lets an account use, and all of them together.

use async_nats::Client;
use serde_json::{Value, json};

use crate::World;

const TEXT: &str = r#"
jetstream {
  max_mem: 2000, max_file: 5000
  limits {
    max_request_batch: 5, max_ack_pending: 7, duplicate_window: 10s, max_ha_assets: 3
    batch { max_inflight_per_stream: 1, max_inflight_total: 1, max_msgs: 3, timeout: 1m }
  }
}
accounts {
  J {
    users: [{user: j, password: j}]
    jetstream {
      max_mem: 1000, max_file: 4000, max_streams: 2, max_consumers: 2, max_ack_pending: 5
      disk_max_stream_bytes: 3000, mem_max_stream_bytes: 900, max_bytes_required: true
    }
  }
  K { users: [{user: k, password: k}], jetstream: enabled }
  N { users: [{user: n, password: n}] }
}
"#;

async fn ask(client: &Client, subject: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = client.request(subject.to_owned(), body.into()).await;
    serde_json::from_slice(&answer.unwrap_or_else(|error| panic!("{subject}: {error}")).payload).unwrap()
}

/// Error code of the creation of stream `name` with `more`; null when it is there.
async fn create(client: &Client, name: &str, more: Value) -> Value {
    let mut config = json!({"name": name, "subjects": [name.to_lowercase()]});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(client, &format!("$JS.API.STREAM.CREATE.{name}"), config).await["error"]["err_code"].clone()
}

async fn consumer(client: &Client, stream: &str, name: &str, more: Value) -> Value {
    let mut config = json!({"name": name, "durable_name": name, "ack_policy": "explicit"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"stream_name": stream, "config": config});
    ask(client, &format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"), body).await
}

#[tokio::test]
async fn streams_and_consumers_are_held_to_the_limits_of_account_and_server() {
    let world = World::start(TEXT).await;
    let (j, k) = (world.user("j", "j").await.unwrap(), world.user("k", "k").await.unwrap());
    assert_eq!(create(&j, "A", json!({})).await, 10113, "max_bytes is required");
    assert_eq!(create(&j, "A", json!({"max_bytes": 3500})).await, 10122, "more than a stream may have");
    assert_eq!(create(&j, "A", json!({"max_bytes": 3000})).await, Value::Null);
    assert_eq!(create(&j, "B", json!({"max_bytes": 2000})).await, 10047, "more than the account has left");
    assert_eq!(create(&j, "B", json!({"max_bytes": 1000, "max_consumers": 5})).await, 10026);
    assert_eq!(create(&j, "B", json!({"max_bytes": 1000, "duplicate_window": 20_000_000_000u64})).await, 10052);
    assert_eq!(create(&j, "B", json!({"max_bytes": 1000, "max_consumers": 1})).await, Value::Null);
    assert_eq!(create(&j, "C", json!({"max_bytes": 1})).await, 10027, "as many streams as there may be");
    let info = ask(&j, "$JS.API.STREAM.INFO.A", Value::Null).await;
    assert_eq!(info["config"]["duplicate_window"], 10_000_000_000u64, "the usual window, shortened");
    // 4000 of the server's 5000 are another account's.
    assert_eq!(create(&k, "K1", json!({"max_bytes": 3000})).await, 10047);
    assert_eq!(create(&k, "K1", json!({"max_bytes": 900})).await, Value::Null);
    assert_eq!(create(&k, "K2", json!({"storage": "memory", "max_bytes": 2001})).await, 10028);
    assert_eq!(create(&k, "K2", json!({"storage": "memory"})).await, Value::Null);

    let code = |answer: &Value| (answer["error"]["err_code"].clone(), answer["error"]["description"].clone());
    let excess =
        |limit: u64| (json!(10121), json!(format!("consumer max ack pending exceeds system limit of {limit}")));
    assert_eq!(code(&consumer(&j, "A", "c1", json!({"max_ack_pending": 6})).await), excess(5));
    assert_eq!(code(&consumer(&j, "A", "c1", json!({"max_ack_pending": 8})).await), excess(7));
    assert_eq!(code(&consumer(&k, "K1", "c1", json!({"max_ack_pending": 8})).await), excess(7));
    let batch = (json!(10125), json!("consumer max request batch exceeds server limit of 5"));
    assert_eq!(code(&consumer(&k, "K1", "c1", json!({"max_batch": 6})).await), batch);
    for (client, stream, ack_pending) in [(&k, "K1", 7), (&j, "A", 5)] {
        let config = &consumer(client, stream, "c2", json!({})).await["config"];
        assert_eq!((&config["max_ack_pending"], &config["max_batch"]), (&json!(ack_pending), &json!(5)), "{config}");
    }
    assert!(consumer(&j, "A", "c3", json!({})).await["error"].is_null());
    assert_eq!(consumer(&j, "A", "c4", json!({})).await["error"]["err_code"], 10026);
    assert!(consumer(&j, "B", "d1", json!({})).await["error"].is_null(), "the limit is each stream's");
    assert_eq!(consumer(&j, "B", "d2", json!({})).await["error"]["err_code"], 10026);

    let update = |name: &str, bytes: u64| json!({"name": name, "subjects": [name.to_lowercase()], "max_bytes": bytes});
    let updated = ask(&j, "$JS.API.STREAM.UPDATE.B", update("B", 1500)).await;
    assert_eq!(updated["error"]["err_code"], 10047, "{updated}");
    let updated = ask(&j, "$JS.API.STREAM.UPDATE.A", update("A", 3900)).await;
    assert_eq!(updated["error"]["err_code"], 10122, "{updated}");
    // What is deleted is free for others.
    ask(&j, "$JS.API.STREAM.DELETE.A", Value::Null).await;
    assert_eq!(create(&k, "K3", json!({"max_bytes": 3000})).await, Value::Null);
}

#[tokio::test]
async fn what_accounts_hold_counts_together() {
    let world = World::start(TEXT).await;
    let (j, k) = (world.user("j", "j").await.unwrap(), world.user("k", "k").await.unwrap());
    for client in [&j, &k] {
        let limits = json!({"storage": "memory", "max_bytes": 900, "subjects": ["m.*"]});
        assert_eq!(create(client, "M", limits).await, Value::Null);
    }
    // Streams without max_bytes are stopped by what the account, and the server, may hold.
    assert_eq!(create(&k, "F", json!({"storage": "memory"})).await, Value::Null);
    let mut refused = Value::Null;
    for _ in 0..5 {
        let answer = k.request("f", "x".repeat(600).into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        if !answer["error"].is_null() {
            refused = answer["error"]["err_code"].clone();
            break;
        }
    }
    assert_eq!(refused, 10023, "insufficient resources");
    // The other account's streams are told the same: they are the server's.
    let answer = j.request("m.1", "x".into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["error"]["err_code"], 10023, "{answer}");
}

#[tokio::test]
async fn an_account_holds_no_more_than_it_may() {
    let text = "accounts { L { users: [{user: l, password: l}], jetstream { max_file: 2000 } } }";
    let mut world = World::start(text).await;
    let client = world.user("l", "l").await.unwrap();
    assert_eq!(create(&client, "S", json!({})).await, Value::Null);
    let put = async || -> Value {
        serde_json::from_slice(&client.request("s", "x".repeat(900).into()).await.unwrap().payload).unwrap()
    };
    for _ in 0..2 {
        assert_eq!(put().await["error"], Value::Null);
    }
    let refused = json!({"code": 400, "err_code": 10002, "description": "resource limits exceeded for account"});
    assert_eq!(put().await["error"], refused);
    // More is given while it runs.
    world.reload(&text.replace("2000", "3000")).await.unwrap();
    assert_eq!(put().await["error"], Value::Null);
    assert_eq!(put().await["error"], refused);
}

#[tokio::test]
async fn batches_are_held_to_the_servers_limits() {
    let world = World::start(TEXT).await;
    let (j, k) = (world.user("j", "j").await.unwrap(), world.user("k", "k").await.unwrap());
    for client in [&j, &k] {
        assert_eq!(create(client, "T", json!({"max_bytes": 900, "allow_atomic": true})).await, Value::Null);
    }
    let put = async |client: &Client, id: &str, sequence: u64| -> Value {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", id);
        headers.insert("Nats-Batch-Sequence", sequence.to_string());
        let answer = client.request_with_headers("t", headers, "x".into()).await.unwrap();
        serde_json::from_slice::<Value>(&answer.payload).map_or(Value::Null, |answer| answer["error"].clone())
    };
    assert_eq!(put(&j, "a", 1).await, Value::Null);
    assert_eq!(put(&j, "b", 1).await["err_code"], 10210, "one open batch a stream");
    assert_eq!(put(&k, "c", 1).await["err_code"], 10210, "and one in all");
    assert_eq!(put(&j, "a", 2).await, Value::Null);
    assert_eq!(put(&j, "a", 3).await, Value::Null);
    let refused = json!({"code": 400, "err_code": 10199, "description": "atomic publish batch is too large: 3"});
    assert_eq!(put(&j, "a", 4).await, refused);
    assert_eq!(put(&k, "c", 1).await, Value::Null, "there is room again");
}

#[tokio::test]
async fn an_account_without_jetstream_is_told_so() {
    let world = World::start(TEXT).await;
    let client = world.user("n", "n").await.unwrap();
    for subject in ["INFO", "STREAM.NAMES", "CONSUMER.INFO.S.C"] {
        let answer = ask(&client, &format!("$JS.API.{subject}"), Value::Null).await;
        assert_eq!(answer["error"]["err_code"], 10039, "{subject}: {answer}");
    }
    assert!(client.request("$JS.API.DIRECT.GET.S", "".into()).await.is_err());
}
