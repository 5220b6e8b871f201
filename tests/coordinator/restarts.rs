//! Nothing is lost, stuck or completed twice when the coordinator or the broker ends at any moment.

use std::collections::BTreeMap;
use std::time::Duration;

use natterjack::client::Client;
use serde_json::{Value, json};

use super::agent::{Agent, LONG, ask, await_result, call, submit, until};
use super::support::World;

#[tokio::test]
async fn an_unused_coordinator_leaves_nothing_behind() {
    let world = World::start().await;
    let user = world.client("user").await;
    assert_eq!(ask(&user, "LIST", Value::Null).await["total"], 0);
    let names: Value = user.api("STREAM.NAMES", &Value::Null).await.unwrap();
    assert_eq!(names["total"], 0, "{names}");
    world.end().await;
}

#[tokio::test]
async fn a_new_coordinator_takes_up_every_state() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "slots": 4, "model": "m1" })).await;
    submit(&user, &[("Task-Id", "running")], b"1").await;
    let running = agent.pull().await;
    agent.ack(&running, "+WPI");
    until(&user, "running", |record| record["phase"] == "running").await;
    submit(&user, &[("Task-Id", "assigned")], b"2").await;
    submit(&user, &[("Task-Id", "queued"), ("Task-Requires", "gpu")], b"3").await;
    submit(&user, &[("Task-Id", "later"), ("Task-Not-Before", "300ms")], b"4").await;
    submit(&user, &[("Task-Id", "done")], b"5").await;
    let first = agent.pull().await;
    let second = agent.pull().await;
    let (assigned, done) = if first.payload() == b"2" { (first, second) } else { (second, first) };
    agent.complete(&done, b"result").await.unwrap();
    // What another coordinator did not live to remove: one assignment behind the other.
    for _ in 0..2 {
        user.kv_put("TASK", "a.gone.done", b"").await.unwrap();
    }

    world.restart_coordinator().await;
    let filter = json!({ "subjects_filter": "$KV.TASK.a.gone.*" });
    let stored = async || user.api::<Value>("STREAM.INFO.KV_TASK", &filter).await.unwrap()["state"]["subjects"].clone();
    let removed = async {
        while stored().await.as_object().is_some_and(|subjects| !subjects.is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, removed).await.expect("neither of them stays");
    agent.complete(&running, b"r1").await.unwrap();
    agent.complete(&assigned, b"r2").await.unwrap();
    agent.complete(&done, b"result").await.expect("the same completion again is fine after a restart too");
    assert_eq!(await_result(&user, "done").await.unwrap(), b"result");
    let later = agent.pull().await;
    assert_eq!(later.payload(), b"4");
    agent.complete(&later, b"r4").await.unwrap();
    assert_eq!(ask(&user, "AGENT.INFO.ann", Value::Null).await["model"], "m1");
    let gpu = Agent::register(world.client("gpu").await, "gpu", json!({ "labels": ["gpu"] })).await;
    let queued = gpu.pull().await;
    assert_eq!(queued.payload(), b"3");
    gpu.complete(&queued, b"r3").await.unwrap();
    assert_eq!(call(&user, "SUBMIT", &[("Task-Id", "queued")], b"other").await.unwrap_err().0, 30411);
    world.end().await;
}

/// Submits until it is known to be accepted; the same id and body make that safe.
async fn submit_surely(client: &Client, id: &str, body: &[u8]) {
    let headers = natterjack::types::header::HeaderBuilder::new().add("Task-Id", id).build();
    loop {
        let answer = client.request_message("$TASK.API.SUBMIT", &headers, body, LONG / 10).await;
        if answer.is_ok_and(|answer| answer.headers().get("Nats-Service-Error").is_none()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_completes_once_through_restarts_of_both() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.default", json!({ "lease_s": 1.0, "backoff": [0.05], "max_attempts": 50 })).await;
    let mut agents = Vec::new();
    for n in 0..3 {
        let id = format!("w{n}");
        agents.push(Agent::register(world.client(&id).await, &id, json!({ "slots": 8 })).await.work());
    }
    const TASKS: usize = 300;
    let submitting = tokio::spawn({
        let user = user.clone();
        async move {
            for n in 0..TASKS {
                submit_surely(&user, &format!("t{n}"), format!("body-{n}").as_bytes()).await;
            }
        }
    });
    for round in 0..4 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        match round {
            0 | 2 => world.restart_coordinator().await,
            1 => {
                agents.remove(0).abort();
            }
            _ => world.restart_broker().await,
        }
    }
    submitting.await.unwrap();
    for n in 0..TASKS {
        let mut expected = format!("body-{n}").into_bytes();
        expected.reverse();
        let id = format!("t{n}");
        let result = loop {
            let headers = natterjack::types::header::HeaderBuilder::new().add("Task-Wait", "2s").build();
            let answer = user.request_message(&format!("$TASK.API.AWAIT.{id}"), &headers, b"", LONG / 4).await;
            if let Ok(answer) = answer
                && answer.headers().get("Nats-Service-Error").is_none()
            {
                break answer.payload().to_vec();
            }
        };
        assert_eq!(result, expected, "{id}");
    }
    // The stream has exactly one result each, and no assignment is left once all are swept.
    let info: Value = user.api("STREAM.INFO.KV_TASK", &json!({ "subjects_filter": "$KV.TASK.r.>" })).await.unwrap();
    let results: BTreeMap<String, u64> = serde_json::from_value(info["state"]["subjects"].clone()).unwrap();
    assert_eq!(results.len(), TASKS);
    assert!(results.values().all(|count| *count == 1), "a task was completed twice");
    for agent in agents {
        agent.abort();
    }
    world.end().await;
}
