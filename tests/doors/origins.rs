//! Mirrors and sources whose origin is in another account, over the API that it exports. As on nats-server 2.15.1, names
//! of consumers included.

use std::time::Duration;

use async_nats::Client;
use serde_json::{Value, json};

use super::{PATIENCE, World};

const TEXT: &str = r#"
accounts {
    A {
        jetstream: enabled
        users: [ { user: a, password: p } ]
        exports: [ { service: "$JS.API.CONSUMER.>" }, { stream: "dlv.b.>" }, { service: "$JS.FC.>" } ]
    }
    B {
        jetstream: enabled
        users: [ { user: b, password: p } ]
        imports: [
            { service: { account: A, subject: "$JS.API.CONSUMER.>" }, to: "JS.A.API.CONSUMER.>" }
            { stream: { account: A, subject: "dlv.b.>" } }
            { service: { account: A, subject: "$JS.FC.>" } }
        ]
    }
}
authorization { timeout: 30 }
"#;

async fn api(client: &Client, subject: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = client.request(format!("$JS.API.{subject}"), body.into()).await.expect("the API answers");
    serde_json::from_slice(&answer.payload).expect("the API answers with JSON")
}

async fn create(client: &Client, config: Value) {
    let subject = format!("STREAM.CREATE.{}", config["name"].as_str().expect("a name"));
    assert_eq!(api(client, &subject, config).await["error"], Value::Null);
}

async fn publish(client: &Client, subject: &str) {
    let answer = client.request(subject.to_owned(), "x".into()).await.expect("a PubAck");
    assert!(!answer.payload.windows(7).any(|word| word == b"\"error\""), "{:?}", answer.payload);
}

/// The stream's state once it is this: messages, first and last sequence.
async fn reaches(client: &Client, stream: &str, expected: [u64; 3]) -> Value {
    let mut last = Value::Null;
    let asking = async {
        loop {
            last = api(client, &format!("STREAM.INFO.{stream}"), Value::Null).await;
            let state = ["messages", "first_seq", "last_seq"].map(|field| last["state"][field].as_u64().unwrap_or(0));
            if state == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, asking).await;
    assert!(in_time.is_ok(), "{stream} did not get there: {last}");
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_another_account_are_mirrored_and_sourced_over_its_exports() {
    let world = World::start(TEXT).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    create(&a, json!({"name": "O", "subjects": ["o.*"]})).await;
    create(&a, json!({"name": "Q", "subjects": ["q.*"], "retention": "workqueue"})).await;
    let external = json!({"api": "JS.A.API", "deliver": "dlv.b"});
    let sources =
        json!([{"name": "O", "filter_subject": "o.1", "external": external}, {"name": "Q", "external": external}]);
    create(&b, json!({"name": "S", "sources": sources})).await;
    create(&b, json!({"name": "M", "mirror": {"name": "O", "external": external}})).await;
    for subject in ["o.0", "o.1", "o.0", "o.1", "q.0", "q.1", "q.2"] {
        publish(&a, subject).await;
    }
    let info = reaches(&b, "S", [5, 1, 5]).await;
    assert_eq!((&info["sources"][0]["seq"], &info["sources"][1]["seq"]), (&json!(4), &json!(3)));
    assert_eq!(info["sources"][0]["external"], external);
    let info = reaches(&b, "M", [4, 1, 4]).await;
    assert_eq!(info["mirror"]["error"], Value::Null);
    // What is durable in one account is acked in the other.
    reaches(&a, "Q", [0, 4, 3]).await;
    let consumers = api(&a, "CONSUMER.LIST.Q", Value::Null).await["consumers"].clone();
    assert_eq!((&consumers[0]["name"], consumers.as_array().unwrap().len()), (&json!("JS_SRC_OAEpJWvt"), 1));
    let config = &consumers[0]["config"];
    assert_eq!(config["metadata"]["_nats.src.acc"], "B");
    assert!(config["deliver_subject"].as_str().unwrap().starts_with("dlv.b.S."));
    assert_eq!(api(&a, "CONSUMER.LIST.O", Value::Null).await["consumers"], json!([]));
    drop((a, b));
    let world = world.restart().await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    for subject in ["o.1", "q.3"] {
        publish(&a, subject).await;
    }
    reaches(&b, "S", [7, 1, 7]).await;
    reaches(&b, "M", [5, 1, 5]).await;
    reaches(&a, "Q", [0, 5, 4]).await;
    assert_eq!(api(&b, "STREAM.DELETE.S", Value::Null).await["success"], true);
    let gone = async {
        while api(&a, "CONSUMER.NAMES.Q", Value::Null).await["total"] != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the consumer goes with the stream that made it");
    drop((a, b));
    world.server.stop().await;
}
