//! A coordinator that ends is started again, and no task is lost or completed twice by that.

use std::time::Duration;

use natterjack::client::Client;
use natterjack::types::header::HeaderBuilder;
use serde_json::{Value, json};

use super::agent::{Agent, LONG, ask, await_result, call, submit};
use super::support::{Embedded, World};

const ACCOUNTS: &str = "accounts {
  A { jetstream: enabled, coordinator: enabled, users: [ {user: a, password: p} ] }
  SYS { users: [ {user: sys, password: p} ] }
}
system_account: SYS
coordinator: false
";

/// Cuts the coordinator's connection, as an administrator or a slow consumer's end would; false when it has none now.
async fn kick(world: &Embedded, system: &Client) -> bool {
    let clients = world.server.broker().clients();
    let Some(cut) = clients.iter().find(|client| client.identity().name == "natterjack-coordinator") else {
        return false;
    };
    let server_id = world.server.broker().info().server_id;
    let body = json!({ "cid": cut.id }).to_string();
    system.request(&format!("$SYS.REQ.SERVER.{server_id}.KICK"), body.as_bytes(), LONG).await.unwrap();
    true
}

/// Asks until there is an answer.
async fn surely(client: &Client, name: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let block = headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build();
    let subject = format!("$TASK.API.{name}");
    loop {
        if let Ok(answer) = client.request_message(&subject, &block, body, Duration::from_secs(3)).await
            && answer.headers().get("Nats-Service-Error").is_none()
        {
            return answer.payload().to_vec();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_coordinator_comes_back_and_every_task_completes_once() {
    let world = Embedded::start(ACCOUNTS).await;
    let (user, system) = (world.user("a").await, world.user("sys").await);
    let agent = Agent::register(world.named("a", "ann").await, "ann", json!({ "slots": 8 })).await;
    submit(&user, &[("Task-Id", "held")], b"held").await;
    let held = agent.pull().await;
    let busy = Agent::register(world.named("a", "bob").await, "bob", json!({ "slots": 8 })).await;
    ask(&user, "QUEUE.PUT.default", json!({ "lease_s": 2.0, "backoff": [0.05], "max_attempts": 50 })).await;
    let working = busy.work();
    const TASKS: usize = 60;
    let cutting = async {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            while !kick(&world, &system).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let submitting = async {
        for n in 0..TASKS {
            let id = format!("t{n}");
            surely(&user, "SUBMIT", &[("Task-Id", &id), ("Task-Requires", "")], id.as_bytes()).await;
        }
    };
    tokio::join!(cutting, submitting);
    for n in 0..TASKS {
        let id = format!("t{n}");
        let expected: Vec<u8> = id.bytes().rev().collect();
        assert_eq!(surely(&user, &format!("AWAIT.{id}"), &[("Task-Wait", "2s")], b"").await, expected);
    }
    let info: Value = user.api("STREAM.INFO.KV_TASK", &json!({ "subjects_filter": "$KV.TASK.r.>" })).await.unwrap();
    let results = info["state"]["subjects"].as_object().unwrap();
    assert!(results.values().all(|count| *count == 1), "a task was completed twice: {results:?}");
    // Who was connected all the time is known to be, and keeps what it had.
    assert_eq!(call(&user, "AGENT.REGISTER.ann", &[], b"").await.unwrap_err().0, 30414);
    drop(held);
    working.abort();
    world.server.stop().await;
}

#[tokio::test]
async fn a_task_in_flight_survives_and_healthz_tells() {
    let world = Embedded::start(ACCOUNTS).await;
    let (user, system) = (world.user("a").await, world.user("sys").await);
    assert_eq!(world.healthz().await.0, 200);
    let agent = Agent::register(world.named("a", "ann").await, "ann", json!({})).await;
    submit(&user, &[("Task-Id", "held")], b"held").await;
    let held = agent.pull().await;
    // Each pause is longer than the one before, so sooner or later one is seen.
    let told = loop {
        kick(&world, &system).await;
        let (status, body) = world.healthz().await;
        if status != 200 {
            assert_eq!(status, 503);
            break body;
        }
    };
    assert!(told.contains("the task coordinator in account A is down"), "{told}");
    while world.healthz().await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.complete(&held, b"done").await.unwrap();
    assert_eq!(await_result(&user, "held").await.unwrap(), b"done");
    assert_eq!(ask(&user, "GET.held", Value::Null).await["attempt"], 1);
    world.server.stop().await;
}

#[tokio::test]
async fn buckets_that_somebody_deleted_are_made_again() {
    let world = World::start().await;
    let user = world.client("user").await;
    submit(&user, &[("Task-Id", "before")], b"").await;
    let _: Value = user.api("STREAM.DELETE.KV_TASK", &Value::Null).await.unwrap();
    // The first to come learns that it cannot be stored; then there is a new beginning.
    assert_eq!(call(&user, "SUBMIT", &[("Task-Id", "after")], b"").await.unwrap_err().0, 30503);
    surely(&user, "SUBMIT", &[("Task-Id", "after")], b"").await;
    assert_eq!(ask(&user, "LIST", Value::Null).await["total"], 1);
    world.end().await;
}
