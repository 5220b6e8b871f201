//! How many tasks per second go from submit to completed. Not a check but a measurement:
//! `cargo test --release --test coordinator throughput -- --ignored --nocapture`

use std::sync::Arc;

use natterjack::client::Client;
use serde_json::json;

use super::agent::{Agent, LONG, ask};
use super::support::World;

const TASKS: usize = 20_000;
/// Submits under way at once.
const WINDOW: usize = 512;
const SLOTS: u32 = 128;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    for agents in [1, 8] {
        let world = World::start().await;
        let user = world.client("user").await;
        ask(&user, "QUEUE.PUT.default", json!({})).await;
        let mut working = Vec::new();
        for n in 0..agents {
            let id = format!("w{n}");
            working.push(Agent::register(world.client(&id).await, &id, json!({ "slots": SLOTS })).await.work());
        }
        let mut done = user.subscribe_with("$TASK.E.TASK.*", None, 200_000).unwrap();
        user.flush().await.unwrap();
        let begun = tokio::time::Instant::now();
        let window = Arc::new(tokio::sync::Semaphore::new(WINDOW));
        let submitter = tokio::spawn(submit_all(world.client("submitter").await, window));
        let mut completed = 0;
        while completed < TASKS {
            let event = done.next().await.unwrap();
            if String::from_utf8_lossy(event.payload()).contains(r#""phase":"completed""#) {
                completed += 1;
            }
        }
        let passed = begun.elapsed();
        submitter.await.unwrap();
        println!("{agents} agents: {:.0} tasks/s", TASKS as f64 / passed.as_secs_f64());
        for agent in working {
            agent.abort();
        }
        world.end().await;
    }
}

async fn submit_all(client: Client, window: Arc<tokio::sync::Semaphore>) {
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..TASKS {
        let permit = window.clone().acquire_owned().await.unwrap();
        let client = client.clone();
        waiting.spawn(async move {
            let body = format!("{n:0128}");
            client.request("$TASK.API.SUBMIT", body.as_bytes(), LONG).await.unwrap();
            drop(permit);
        });
    }
    while waiting.join_next().await.is_some() {}
}
