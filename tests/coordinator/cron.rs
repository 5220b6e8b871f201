//! Tasks that are submitted again and again.

use serde_json::{Value, json};

use super::agent::{Agent, ask, call};
use super::support::World;

#[tokio::test]
async fn a_cron_submits_at_its_times_and_survives_restarts() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let headers = [
        ("Task-Schedule", "@every 1s"),
        ("Task-Priority", "2"),
        ("traceparent", "00-1-2-01"),
        ("Task-Queue", "nightly"),
    ];
    let made = call(&user, "CRON.PUT.tick", &headers, b"work").await.unwrap();
    let made: Value = serde_json::from_slice(made.payload()).unwrap();
    assert_eq!((&made["cron"], &made["schedule"], &made["bytes"]), (&json!("tick"), &json!("@every 1s"), &json!(4)));
    let again = call(&user, "CRON.PUT.tick", &headers, b"work").await.unwrap();
    let again: Value = serde_json::from_slice(again.payload()).unwrap();
    assert_eq!(made["next"], again["next"], "the same again changes nothing");

    let agent = Agent::register(world.client("one").await, "one", json!({ "queues": ["*"] })).await;
    let mut ids: Vec<String> = Vec::new();
    for round in 0..4 {
        let task = agent.pull().await;
        let header = |name| task.headers().get_str(name).unwrap_or_default().to_owned();
        assert_eq!((task.payload(), header("traceparent")), (&b"work"[..], "00-1-2-01".to_owned()));
        assert_eq!(header("Task-Queue"), "nightly");
        ids.push(header("Task-Id"));
        agent.complete(&task, b"").await.unwrap();
        if round % 2 == 0 {
            world.restart_coordinator().await;
        }
    }
    assert!(ids.is_sorted() && ids.iter().all(|id| id.starts_with("tick-2") && id.ends_with('Z')), "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 4, "no time comes twice");
    let listed = ask(&user, "CRON.LIST", Value::Null).await;
    let shown = &listed["crons"][0];
    assert!(shown["last_task"].as_str().unwrap() >= ids[3].as_str(), "{shown}");
    assert_eq!((&shown["headers"]["Task-Priority"], &listed["total"]), (&json!("2"), &json!(1)));

    ask(&user, "CRON.RM.tick", Value::Null).await;
    assert_eq!(call(&user, "CRON.RM.tick", &[], b"").await.unwrap_err().0, 30407);
    world.restart_coordinator().await;
    assert_eq!(ask(&user, "CRON.LIST", Value::Null).await["total"], 0);
    world.end().await;
}

#[tokio::test]
async fn missed_times_are_made_up_for_once() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    call(&user, "CRON.PUT.every", &[("Task-Schedule", "@every 1s")], b"").await.unwrap();
    call(&user, "CRON.PUT.once", &[("Task-Schedule", "@at 2020-01-01T00:00:00Z")], b"").await.unwrap();
    call(&user, "CRON.PUT.rare", &[("Task-Schedule", "@yearly"), ("Task-Schedule-Time-Zone", "Europe/Berlin")], b"")
        .await
        .unwrap();
    world.stop_coordinator();
    tokio::time::sleep(std::time::Duration::from_millis(4200)).await;
    world.restart_coordinator().await;
    let ids = loop {
        let tasks = ask(&user, "LIST", Value::Null).await;
        let ids = tasks["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned());
        let ids: Vec<String> = ids.collect();
        if ids.iter().any(|id| id.starts_with("every-")) && ids.iter().any(|id| id.starts_with("once-")) {
            break ids;
        }
    };
    let every = ids.iter().filter(|id| id.starts_with("every-")).count();
    assert!((1..=3).contains(&every), "one of before, one missed, perhaps one since: {ids:?}");
    assert!(ids.contains(&"once-20200101T000000Z".to_owned()) && ids.len() == every + 1, "{ids:?}");
    let listed = ask(&user, "CRON.LIST", Value::Null).await;
    assert_eq!((&listed["crons"][1]["cron"], &listed["crons"][1]["next"]), (&json!("once"), &Value::Null));
    assert!(listed["crons"][2]["next"].as_str().unwrap().ends_with("-01-01T00:00:00+01:00"), "{listed}");
    world.end().await;
}

#[tokio::test]
async fn what_cannot_be_a_cron_is_refused_and_a_full_queue_puts_it_off() {
    let world = World::start().await;
    let user = world.client("user").await;
    for headers in [
        [("Task-Schedule", "at noon"), ("Task-Key", "k")],
        [("Task-Schedule", "@every 1s"), ("Task-Id", "x")],
        [("Task-Schedule", "@every 1s"), ("Task-After", "x")],
        [("Task-Schedule", "@every 1s"), ("Task-Priority", "99")],
        [("Task-Schedule", "@every 1s"), ("Task-Schedule-Time-Zone", "UTC")],
        [("Task-Queue", "q"), ("Task-Key", "no schedule")],
    ] {
        assert_eq!(call(&user, "CRON.PUT.c", &headers, b"").await.unwrap_err().0, 30400, "{headers:?}");
    }
    ask(&user, "QUEUE.PUT.small", json!({ "max_queued": 1 })).await;
    call(&user, "CRON.PUT.c", &[("Task-Schedule", "@every 1s"), ("Task-Queue", "small")], b"").await.unwrap();
    let agent = Agent::register(world.client("one").await, "one", json!({ "queues": ["small"] })).await;
    let first = agent.pull().await;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(ask(&user, "LIST", Value::Null).await["total"], 1, "there is room for one");
    agent.complete(&first, b"").await.unwrap();
    let second = agent.pull().await;
    assert_ne!(first.headers().get_str("Task-Id"), second.headers().get_str("Task-Id"));
    world.end().await;
}
