//! Lists end where one message does, and go on.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::agent::{Agent, ask, submit, until};
use super::support::World;

/// Everything that a list has, page by page, and the number of pages.
async fn pages(user: &natterjack::client::Client, name: &str, field: &str, key: &str) -> (BTreeSet<String>, usize) {
    let (mut seen, mut pages, mut body) = (BTreeSet::new(), 0, json!({}));
    if name == "LIST" || name == "DLQ.LIST" {
        body["limit"] = 1000.into();
    }
    loop {
        let page = ask(user, name, body.clone()).await;
        pages += 1;
        for entry in page[field].as_array().unwrap() {
            assert!(seen.insert(entry[key].as_str().unwrap().to_owned()), "{name}: listed twice: {entry}");
            body["after"] = entry[key].clone();
        }
        if page["left"].as_u64().unwrap_or(0) == 0 {
            return (seen, pages);
        }
    }
}

#[tokio::test]
async fn a_list_that_is_longer_than_a_message_is_answered_in_pages() {
    const MANY: usize = 60;
    let world = World::configured("max_payload: 16384\n").await;
    let user = world.client("user").await;
    let pad = "x".repeat(200);
    for n in 0..MANY {
        let (id, queue) = (format!("t{n}"), format!("q{n}"));
        let lines = [
            ("Task-Id", &*id),
            ("Task-Queue", &queue),
            ("Task-Requires", "nobody"),
            ("Task-Deadline", "1ms"),
            ("X-Pad", &pad),
        ];
        submit(&user, &lines, b"x").await;
        let lines = [("Task-Schedule", "@hourly"), ("X-Pad", &*pad)];
        super::agent::call(&user, &format!("CRON.PUT.c{n}"), &lines, b"x").await.unwrap();
    }
    while ask(&user, "DLQ.LIST", json!({ "limit": 1 })).await["total"] != MANY {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for (name, field, key) in [
        ("LIST", "tasks", "id"),
        ("DLQ.LIST", "letters", "id"),
        ("QUEUE.LIST", "queues", "queue"),
        ("CRON.LIST", "crons", "cron"),
    ] {
        let (seen, pages) = pages(&user, name, field, key).await;
        assert_eq!(seen.len(), MANY, "{name}");
        assert!(pages > 1, "{name} fits into one message");
    }
    let two = ask(&user, "QUEUE.LIST", json!({ "limit": 2, "after": "q0" })).await;
    assert_eq!((&two["queues"][0]["queue"], &two["left"]), (&json!("q1"), &json!(MANY - 3)));
    world.end().await;
}

#[tokio::test]
async fn a_list_is_of_one_agents_tasks_if_asked_so() {
    let world = World::start().await;
    let user = world.client("user").await;
    let ann = Agent::register(world.client("ann").await, "ann", json!({})).await;
    for id in ["held", "waiting"] {
        submit(&user, &[("Task-Id", id)], b"").await;
    }
    ann.pull().await;
    until(&user, "held", |record| record["agent"] == "ann").await;
    let listed = ask(&user, "LIST", json!({ "agent": "ann" })).await;
    assert_eq!((&listed["total"], &listed["tasks"][0]["id"]), (&json!(1), &json!("held")));
    assert_eq!(ask(&user, "LIST", json!({ "agent": "bob" })).await["total"], 0);
    assert_eq!(ask(&user, "LIST", Value::Null).await["left"], 0);
    world.end().await;
}
