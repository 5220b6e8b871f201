//! Parents: who descends from whom, and cancels of whole families.

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::agent::{Agent, ask, call, submit, until};
use super::support::World;

fn phase(record: &Value) -> &str {
    record["phase"].as_str().unwrap()
}

#[tokio::test]
async fn a_cancel_means_descendants_only_if_it_says_so() {
    let world = World::start().await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "slots": 2, "queues": ["run"] })).await;
    submit(&user, &[("Task-Id", "done"), ("Task-Queue", "run"), ("Task-Parent", "root")], b"").await;
    let done = agent.pull().await;
    agent.complete(&done, b"").await.unwrap();
    for (id, parent, queue) in [
        ("root", "", "run"),
        ("child", "root", "run"),
        ("below-done", "done", "wait"),
        ("asked", "child", "wait"),
        ("leaf", "asked", "wait"),
        ("stranger", "somebody", "wait"),
    ] {
        submit(&user, &[("Task-Id", id), ("Task-Queue", queue), ("Task-Parent", parent)], b"").await;
    }
    // These two name each other.
    submit(&user, &[("Task-Id", "a"), ("Task-Queue", "wait"), ("Task-Parent", "b")], b"").await;
    submit(&user, &[("Task-Id", "b"), ("Task-Queue", "wait"), ("Task-Parent", "a")], b"").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let task = agent.pull().await;
        agent.ack(&task, "+WPI");
        ids.push(task.headers().get_str("Task-Id").unwrap().to_owned());
        let parent = task.headers().get_str("Task-Parent").unwrap_or_default();
        assert_eq!(parent, if ids.last().unwrap() == "child" { "root" } else { "" });
    }
    for id in ["root", "child"] {
        until(&user, id, |record| phase(record) == "running").await;
    }
    let listed = ask(&user, "LIST", json!({ "parent": "root" })).await;
    assert_eq!(listed["total"], 2, "{listed}");
    assert_eq!(ask(&user, "LIST", json!({ "parent": "root", "state": "working" })).await["tasks"][0]["id"], "child");

    ask(&user, "CANCEL.child", json!({ "reason": "alone" })).await;
    until(&user, "child", |record| phase(record) == "canceled").await;
    assert_eq!(phase(&ask(&user, "GET.asked", Value::Null).await), "queued", "it did not say so");

    ask(&user, "CANCEL.root", json!({ "reason": "all", "children": true })).await;
    for id in ["root", "asked", "leaf", "below-done"] {
        let record = until(&user, id, |record| phase(record) == "canceled").await;
        let reason = if id == "root" { "all" } else { "canceled with root: all" };
        assert_eq!(record["reason"], reason, "{id}");
    }
    until(&user, "root", |record| record["descendants"] == "done").await;
    assert_eq!(phase(&ask(&user, "GET.done", Value::Null).await), "completed");
    for id in ["stranger", "a", "b"] {
        assert_eq!(phase(&ask(&user, &format!("GET.{id}"), Value::Null).await), "queued", "{id}");
    }
    // There are to be no more of them, until the ancestor runs again.
    let late = [("Task-Queue", "wait"), ("Task-Parent", "leaf")];
    assert_eq!(call(&user, "SUBMIT", &late, b"").await.unwrap_err().0, 30424);
    ask(&user, "REQUEUE.leaf", Value::Null).await;
    submit(&user, &late, b"").await;

    // Cancels of what is canceled go for what has come since.
    ask(&user, "CANCEL.root", json!({ "children": true })).await;
    until(&user, "leaf", |record| phase(record) == "canceled").await;
    ask(&user, "CANCEL.a", json!({ "children": true })).await;
    until(&user, "b", |record| phase(record) == "canceled").await;
    until(&user, "a", |record| record["descendants"] == "done").await;
    world.end().await;
}

/// More descendants than are canceled at once, and a coordinator that ends in the middle.
#[tokio::test]
async fn a_family_is_canceled_whole_though_the_coordinator_ends_meanwhile() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    const MANY: usize = 600;
    submit(&user, &[("Task-Id", "root"), ("Task-Queue", "wait")], b"").await;
    let family = (0..MANY).map(|n| {
        let user = user.clone();
        async move {
            let parent = if n < 10 { "root".to_owned() } else { format!("t{}", n / 10) };
            submit(&user, &[("Task-Id", &format!("t{n}")), ("Task-Queue", "wait"), ("Task-Parent", &parent)], b"").await
        }
    });
    // A nats-server has few atomic batches under way at once.
    futures_util::stream::iter(family).buffer_unordered(20).collect::<Vec<_>>().await;
    user.publish("$TASK.API.CANCEL.root", br#"{"children":true}"#).unwrap();
    // The first that is canceled shows that it has begun.
    until(&user, "root", |record| phase(record) == "canceled").await;
    for _ in 0..3 {
        world.restart_coordinator().await;
    }
    until(&user, "root", |record| record["descendants"] == "done").await;
    let left = ask(&user, "LIST", json!({ "state": "submitted" })).await;
    assert_eq!(left["total"], 0, "{}", left["tasks"][0]);
    assert_eq!(ask(&user, "LIST", json!({ "state": "canceled", "limit": 1 })).await["total"], MANY + 1);
    world.end().await;
}

/// While a family is canceled nothing is born into it, and what comes back is canceled as well.
#[tokio::test]
async fn what_joins_a_family_that_is_being_canceled_does_not_outlive_it() {
    let world = World::start().await;
    let user = world.client("user").await;
    const MANY: usize = 1000;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "queues": ["run"] })).await;
    submit(&user, &[("Task-Id", "root"), ("Task-Queue", "wait")], b"").await;
    submit(&user, &[("Task-Id", "done"), ("Task-Queue", "run"), ("Task-Parent", "root")], b"").await;
    let done = agent.pull().await;
    agent.complete(&done, b"").await.unwrap();
    let family = (0..MANY).map(|n| {
        let user = user.clone();
        async move {
            submit(&user, &[("Task-Id", &format!("t{n}")), ("Task-Queue", "wait"), ("Task-Parent", "root")], b"").await
        }
    });
    futures_util::stream::iter(family).buffer_unordered(20).collect::<Vec<_>>().await;
    user.publish("$TASK.API.CANCEL.root", br#"{"children":true}"#).unwrap();
    let (mut refused, mut requeued) = (0, None);
    loop {
        let below = call(&user, "SUBMIT", &[("Task-Queue", "wait"), ("Task-Parent", "done")], b"").await;
        if refused > 0 && requeued.is_none() {
            let canceled = ask(&user, "LIST", json!({ "state": "canceled", "queue": "wait", "limit": 2 })).await;
            let ids = canceled["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned());
            if let Some(id) = ids.into_iter().find(|id| id != "root")
                && call(&user, &format!("REQUEUE.{id}"), &[], b"").await.is_ok()
            {
                requeued = Some(id);
            }
        }
        let root = ask(&user, "GET.root", Value::Null).await;
        if root["descendants"] != "due" {
            if phase(&root) == "canceled" {
                break;
            }
            // It has not begun.
            continue;
        }
        match below {
            Err((code, _)) => {
                assert_eq!(code, 30424);
                refused += 1;
            }
            // It came before the cancel, which finds it.
            Ok(_) => assert_eq!(refused, 0, "accepted while its family is being canceled"),
        }
        if let Some(id) = requeued.take() {
            until(&user, &id, |record| phase(record) == "canceled").await;
        }
    }
    assert!(refused > 0, "the cancel was over too soon");
    world.end().await;
}
