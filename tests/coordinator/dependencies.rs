//! Task-After when what a task waited for is forgotten.

use serde_json::{Value, json};

use super::agent::{Agent, ask, call, submit, until};
use super::support::World;

#[tokio::test]
async fn a_requeued_dependent_does_not_run_because_its_failed_dependency_is_forgotten() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "queues": ["x"] })).await;
    submit(&user, &[("Task-Id", "first"), ("Task-Queue", "x"), ("Task-Max-Attempts", "1")], b"").await;
    let first = agent.pull().await;
    submit(&user, &[("Task-Id", "second"), ("Task-Queue", "y"), ("Task-After", "first")], b"").await;
    submit(&user, &[("Task-Id", "third"), ("Task-Queue", "y"), ("Task-After", "first")], b"").await;
    ask(&user, "CANCEL.third", Value::Null).await;
    agent.fail(&first, b"no").await.unwrap();
    until(&user, "second", |record| record["phase"] == "dead" && record["reason"] == "dependency").await;
    ask(&user, "DLQ.PURGE.x.first", Value::Null).await;
    while call(&user, "GET.first", &[], b"").await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for id in ["second", "third"] {
        assert_eq!(call(&user, &format!("REQUEUE.{id}"), &[], b"").await.unwrap_err().0, 30424, "{id}");
    }
    world.restart_coordinator().await;
    assert_eq!(call(&user, "DLQ.REQUEUE.y.second", &[], b"").await.unwrap_err().0, 30424);
    world.end().await;
}

#[tokio::test]
async fn a_requeued_dependent_runs_though_its_completed_dependency_is_forgotten() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.x", json!({ "retention_s": 0 })).await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "queues": ["x", "y"] })).await;
    submit(&user, &[("Task-Id", "first"), ("Task-Queue", "x")], b"").await;
    submit(
        &user,
        &[("Task-Id", "later"), ("Task-Queue", "y"), ("Task-After", "first"), ("Task-Not-Before", "1h")],
        b"",
    )
    .await;
    let lines = [("Task-Id", "second"), ("Task-Queue", "y"), ("Task-After", "first"), ("Task-Max-Attempts", "1")];
    submit(&user, &lines, b"").await;
    let first = agent.pull().await;
    agent.complete(&first, b"").await.unwrap();
    let second = agent.pull().await;
    agent.fail(&second, b"no").await.unwrap();
    until(&user, "second", |record| record["phase"] == "dead").await;
    until(&user, "later", |record| record["phase"] == "scheduled").await;
    ask(&user, "CANCEL.later", Value::Null).await;
    while call(&user, "GET.first", &[], b"").await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for id in ["second", "later"] {
        assert_eq!(ask(&user, &format!("REQUEUE.{id}"), Value::Null).await["state"], "submitted", "{id}");
    }
    world.end().await;
}
