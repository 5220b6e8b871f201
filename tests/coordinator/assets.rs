//! The coordinator's streams and consumers are what protocol.md 5.12 says, for whoever looks with plain tools.

use natterjack::client::Client;
use serde_json::{Value, json};

use super::agent::{Agent, ask, submit};
use super::support::World;

const SECOND: u64 = 1_000_000_000;

/// Asks for a stream or consumer and holds the fields of its configuration that are `expected` against it.
async fn check(client: &Client, api: &str, expected: Value) {
    let info: Value = client.api(api, &Value::Null).await.unwrap_or_else(|error| panic!("{api}: {error}"));
    for (field, value) in expected.as_object().unwrap() {
        // What is false or 0 may be left out.
        let found = info["config"].get(field).cloned().unwrap_or_else(|| match value {
            Value::Bool(_) => json!(false),
            _ => json!(0),
        });
        assert_eq!(&found, value, "{field} of {api}: {info}");
    }
}

#[tokio::test]
async fn streams_are_configured_as_the_protocol_says() {
    let world = World::start().await;
    let user = world.client("user").await;
    submit(&user, &[("Task-Id", "t")], b"body").await;
    let form = json!({ "roles": { "tpm": 1 }, "offer_to": "councils.offers" });
    ask(&user, "COUNCIL.FORM.c", form).await;
    let bucket = |name: &str, history: u32| {
        json!({
            "name": format!("KV_{name}"), "subjects": [format!("$KV.{name}.>")], "retention": "limits", "storage": "file",
            "discard": "new", "max_msgs_per_subject": history, "max_age": 0, "max_msgs": -1, "max_bytes": -1,
            "num_replicas": 1, "allow_rollup_hdrs": true, "allow_direct": true, "allow_atomic": true,
        })
    };
    check(&user, "STREAM.INFO.KV_TASK", bucket("TASK", 16)).await;
    check(&user, "STREAM.INFO.KV_TASK_AGENTS", bucket("TASK_AGENTS", 1)).await;
    // What is over is deleted.
    check(&user, "STREAM.INFO.KV_TASK", json!({ "deny_delete": false, "deny_purge": false })).await;
    let mut councils = bucket("TASK_COUNCILS", 1);
    councils["allow_msg_ttl"] = true.into();
    councils["subject_delete_marker_ttl"] = (3600 * SECOND).into();
    councils["deny_delete"] = true.into();
    check(&user, "STREAM.INFO.KV_TASK_COUNCILS", councils).await;
    let progress = json!({
        "subjects": ["$TASK.P.*"], "retention": "limits", "storage": "file", "discard": "old",
        "max_age": 24 * 3600 * SECOND, "max_bytes": 256 << 20, "max_msgs_per_subject": 1000,
    });
    check(&user, "STREAM.INFO.TASK_PROGRESS", progress).await;

    // A key of a task by its name, while it is there.
    let kept = user.kv_get("TASK", "p.t").await.unwrap().unwrap();
    assert_eq!(&kept.value[..], b"body");
    world.end().await;
}

#[tokio::test]
async fn consumers_are_configured_as_the_protocol_says() {
    let world = World::start().await;
    let user = world.client("user").await;
    for (queue, settings) in [
        ("brief", json!({ "lease_s": 5 })),
        ("long", json!({ "lease_s": 90 })),
        ("pulled", json!({ "mode": "pull", "lease_s": 12, "max_attempts": 3, "max_running": 7 })),
        ("plain", json!({ "mode": "pull" })),
    ] {
        ask(&user, &format!("QUEUE.PUT.{queue}"), settings).await;
    }
    let agent =
        Agent::register(world.client("ann").await, "ann", json!({ "queues": ["brief", "long"], "slots": 3 })).await;
    assert_eq!(agent.card["consumer"], "agent_ann");
    // One delivery for each assignment, as many as there are; how long a lease lasts is the coordinator's to count, so the
    // broker forgets a delivery only after the longest.
    let expected = json!({
        "durable_name": "agent_ann", "filter_subject": "$KV.TASK.a.ann.>", "ack_policy": "explicit",
        "deliver_policy": "all", "ack_wait": 90 * SECOND, "max_deliver": 1, "max_ack_pending": -1,
    });
    check(&user, "CONSUMER.INFO.KV_TASK.agent_ann", expected).await;
    // Here the broker's own counting is the queue's.
    let expected = |queue: &str, ack_wait_s: u64, max_deliver: u64, max_ack_pending: u64| {
        json!({
            "durable_name": format!("queue_{queue}"), "filter_subject": format!("$KV.TASK.w.{queue}.>"),
            "ack_policy": "explicit", "deliver_policy": "all", "ack_wait": ack_wait_s * SECOND,
            "max_deliver": max_deliver, "max_ack_pending": max_ack_pending,
        })
    };
    check(&user, "CONSUMER.INFO.KV_TASK.queue_pulled", expected("pulled", 12, 3, 7)).await;
    check(&user, "CONSUMER.INFO.KV_TASK.queue_plain", expected("plain", 30, 4, 10_000)).await;
    ask(&user, "QUEUE.PUT.pulled", json!({ "mode": "pull", "lease_s": 6 })).await;
    check(&user, "CONSUMER.INFO.KV_TASK.queue_pulled", expected("pulled", 6, 4, 10_000)).await;
    world.end().await;
}

#[tokio::test]
async fn a_queue_that_was_never_set_up_has_the_defaults_of_the_protocol() {
    let world = World::start().await;
    let user = world.client("user").await;
    submit(&user, &[("Task-Queue", "new")], b"").await;
    let never = ask(&user, "QUEUE.INFO.new", Value::Null).await;
    let put = ask(&user, "QUEUE.PUT.empty", json!({})).await;
    for queue in [never, put] {
        for (field, value) in [
            ("mode", json!("inbox")),
            ("max_attempts", json!(4)),
            ("backoff", json!([2.0, 10.0, 60.0])),
            ("lease_s", json!(30.0)),
            ("ageing_s", json!(60.0)),
            ("retention_s", json!(7.0 * 86_400.0)),
            ("max_running", json!(0)),
            ("max_per_key", json!(0)),
            ("max_queued", json!(0)),
            ("rate", json!(0.0)),
        ] {
            assert_eq!(queue[field], value, "{field} of {queue}");
        }
    }
    world.end().await;
}
