//! Who gets which task when: order, limits, homes, dependencies, and queues that stand still.

use std::time::Duration;

use natterjack::client::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::agent::{Agent, ask, await_result, call, submit, until};
use super::support::World;

/// Submits with an id and the same body.
async fn put(client: &Client, id: &str, headers: &[(&str, &str)]) {
    let mut all = vec![("Task-Id", id)];
    all.extend_from_slice(headers);
    assert_eq!(submit(client, &all, id.as_bytes()).await, id);
}

async fn refused(client: &Client, name: &str, headers: &[(&str, &str)]) -> (u64, String) {
    let (code, body) = call(client, name, headers, b"").await.unwrap_err();
    (code, body["error"]["description"].as_str().unwrap().to_owned())
}

/// The ids of the next `count` tasks of an agent with one slot, each completed before the next.
async fn order_of(agent: &Agent, count: usize) -> String {
    let mut ids = Vec::new();
    for _ in 0..count {
        let task = agent.pull().await;
        ids.push(task.headers().get_str("Task-Id").unwrap().to_owned());
        agent.complete(&task, b"").await.unwrap();
    }
    ids.join(" ")
}

async fn in_phase(client: &Client, id: &str, phase: &str) {
    until(client, id, |record| record["phase"] == phase).await;
}

/// Through a restart of the coordinator as well as without one.
#[tokio::test]
async fn priority_keys_and_age_decide_the_order() {
    for restart in [false, true] {
        let mut world = World::start().await;
        let user = world.client("user").await;
        ask(&user, "QUEUE.PUT.default", json!({ "ageing_s": 1.0 })).await;
        put(&user, "old", &[("Task-Priority", "9")]).await;
        put(&user, "x1", &[("Task-Key", "x")]).await;
        put(&user, "x2", &[("Task-Key", "x")]).await;
        put(&user, "y1", &[("Task-Key", "y")]).await;
        put(&user, "urgent", &[("Task-Priority", "0")]).await;
        if restart {
            world.restart_coordinator().await;
        }
        // Nine seconds would make up for nine levels; strict, nothing does.
        ask(&user, "QUEUE.PUT.default", json!({ "ageing_s": 0 })).await;
        let agent = Agent::register(world.client("one").await, "one", json!({})).await;
        assert_eq!(order_of(&agent, 5).await, "urgent x1 y1 x2 old", "restart: {restart}");
        world.end().await;
    }
}

#[tokio::test]
async fn waiting_makes_up_for_priority() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.default", json!({ "ageing_s": 0.1 })).await;
    put(&user, "old", &[("Task-Priority", "3")]).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    put(&user, "new", &[("Task-Priority", "0")]).await;
    // How long it waits is in the record, not in the coordinator.
    world.restart_coordinator().await;
    let agent = Agent::register(world.client("one").await, "one", json!({})).await;
    assert_eq!(order_of(&agent, 2).await, "old new");
    world.end().await;
}

#[tokio::test]
async fn limits_hold_per_queue_and_key_and_through_a_restart() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.default", json!({ "max_per_key": 1, "max_running": 2, "max_queued": 5 })).await;
    let agent = Agent::register(world.client("big").await, "big", json!({ "slots": 10 })).await;
    for (id, key) in [("g1", "greedy"), ("g2", "greedy"), ("g3", "greedy"), ("m1", "modest"), ("n1", "")] {
        let key = [("Task-Key", key)];
        put(&user, id, if key[0].1.is_empty() { &[] } else { &key }).await;
    }
    assert_eq!(refused(&user, "SUBMIT", &[("Task-Id", "sixth")]).await, (30429, "queue is full".to_owned()));
    let g1 = agent.pull().await;
    let m1 = agent.pull().await;
    assert_eq!((g1.payload(), m1.payload()), (&b"g1"[..], &b"m1"[..]), "one of each key, and two in all");
    world.restart_coordinator().await;
    let queue = ask(&user, "QUEUE.INFO.default", Value::Null).await;
    assert_eq!((&queue["running"], &queue["open"], &queue["max_per_key"]), (&json!(2), &json!(5), &json!(1)));
    agent.complete(&m1, b"").await.unwrap();
    let n1 = agent.pull().await;
    assert_eq!(n1.payload(), b"n1", "the greedy key is at its limit, after a restart too");
    agent.complete(&g1, b"").await.unwrap();
    let g2 = agent.pull().await;
    assert_eq!(g2.payload(), b"g2");
    ask(&user, "QUEUE.PUT.default", json!({ "max_running": 3 })).await;
    assert_eq!(agent.pull().await.payload(), b"g3", "and without a limit both of a key run");
    world.end().await;
}

#[tokio::test]
async fn a_rate_spreads_tasks_over_time() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.default", json!({ "rate": 5 })).await;
    let agent = Agent::register(world.client("big").await, "big", json!({ "slots": 50 })).await;
    let begun = Instant::now();
    for n in 0..12 {
        put(&user, &format!("t{n}"), &[]).await;
    }
    for n in 0..12 {
        let task = agent.pull().await;
        assert_eq!(task.payload(), format!("t{n}").as_bytes(), "first in, first out");
        if n == 6 {
            world.restart_coordinator().await;
        }
    }
    // Five at once, then seven at five a second.
    let passed = begun.elapsed();
    assert!(passed >= Duration::from_millis(1390), "twelve tasks after {passed:?}");
    let pull = json!({ "mode": "pull", "rate": 5 }).to_string();
    assert_eq!(call(&user, "QUEUE.PUT.p", &[], pull.as_bytes()).await.unwrap_err().0, 30400);
    world.end().await;
}

#[tokio::test]
async fn a_preferred_agent_gets_the_task_and_any_other_if_it_is_busy() {
    let world = World::start().await;
    let user = world.client("user").await;
    let plain = Agent::register(world.client("plain").await, "plain", json!({ "slots": 9 })).await;
    let fast =
        Agent::register(world.client("fast").await, "fast", json!({ "labels": ["fast", "gpu"], "slots": 2 })).await;
    // Whatever the load: the other one has nothing to do.
    for id in ["first", "second"] {
        put(&user, id, &[("Task-Prefer", "fast")]).await;
        assert_eq!(fast.pull().await.payload(), id.as_bytes());
    }
    put(&user, "third", &[("Task-Prefer", "fast")]).await;
    assert_eq!(plain.pull().await.payload(), b"third", "a wish is no demand");
    // A demand is, and said to be possible or not when it is submitted.
    put(&user, "must", &[("Task-Requires", "gpu"), ("Task-Must-Match", "true")]).await;
    in_phase(&user, "must", "queued").await;
    let nobody = [("Task-Requires", "tpu"), ("Task-Must-Match", "true")];
    assert_eq!(refused(&user, "SUBMIT", &nobody).await, (30412, "no registered agent can match".to_owned()));
    world.end().await;
}

#[tokio::test]
async fn tokens_bring_tasks_back_to_their_agent() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let ann = Agent::register(world.client("ann").await, "ann", json!({})).await;
    put(&user, "s1", &[("Task-Sticky", "talk")]).await;
    put(&user, "o1", &[]).await;
    let s1 = ann.pull().await;
    let bob = Agent::register(world.client("bob").await, "bob", json!({ "slots": 3 })).await;
    let o1 = bob.pull().await;
    ann.complete(&s1, b"").await.unwrap();
    // Bob has the lower load for a while yet, but ann is home; also for a coordinator that was not there.
    world.restart_coordinator().await;
    put(&user, "s2", &[("Task-Sticky", "talk")]).await;
    let s2 = ann.pull().await;
    assert_eq!(s2.payload(), b"s2");
    // She is busy: a soft token takes the next best, and a hard one waits for its home, which bob is now.
    put(&user, "s3", &[("Task-Sticky", "talk")]).await;
    assert_eq!(bob.pull().await.payload(), b"s3");
    bob.complete(&o1, b"").await.unwrap();
    ann.complete(&s2, b"").await.unwrap();
    put(&user, "other", &[("Task-Sticky", "other"), ("Task-Sticky-Mode", "hard")]).await;
    let other = ann.pull().await;
    assert_eq!(other.payload(), b"other");
    put(&user, "h", &[("Task-Sticky", "other"), ("Task-Sticky-Mode", "hard")]).await;
    let record = ask(&user, "GET.h", Value::Null).await;
    assert_eq!((&record["phase"], &record["hard"]), (&json!("queued"), &json!(true)), "bob is free, but not its home");
    ann.complete(&other, b"").await.unwrap();
    assert_eq!(ann.pull().await.payload(), b"h");
    // As long as it is registered.
    put(&user, "h2", &[("Task-Sticky", "other"), ("Task-Sticky-Mode", "hard")]).await;
    ask(&user, "AGENT.REMOVE.ann", Value::Null).await;
    assert_eq!(bob.pull().await.payload(), b"h2");
    for headers in
        [[("Task-Sticky", "a"), ("Task-Sticky-Mode", "firm")], [("Task-Key", "a"), ("Task-Sticky-Mode", "hard")]]
    {
        assert_eq!(refused(&user, "SUBMIT", &headers).await.0, 30400);
    }
    world.end().await;
}

#[tokio::test]
async fn tasks_wait_for_those_they_come_after() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    put(&user, "a", &[]).await;
    put(&user, "b", &[]).await;
    put(&user, "c", &[("Task-After", "a, b"), ("Task-Key", "last")]).await;
    put(&user, "d", &[("Task-After", "c"), ("Task-Not-Before", "300ms")]).await;
    in_phase(&user, "c", "blocked").await;
    let (code, text) = refused(&user, "SUBMIT", &[("Task-After", "a,nobody,none")]).await;
    assert_eq!((code, text.as_str()), (30424, "dependency: no task nobody, none"));
    let agent = Agent::register(world.client("one").await, "one", json!({})).await;
    let a = agent.pull().await;
    agent.complete(&a, b"").await.unwrap();
    world.restart_coordinator().await;
    in_phase(&user, "c", "blocked").await;
    assert_eq!(order_of(&agent, 3).await, "b c d");
    // What is over already holds up nobody.
    put(&user, "e", &[("Task-After", "a,b,c,d")]).await;
    assert_eq!(order_of(&agent, 1).await, "e");
    world.end().await;
}

#[tokio::test]
async fn a_failed_dependency_fails_what_comes_after() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    put(&user, "gone", &[]).await;
    put(&user, "next", &[("Task-After", "gone")]).await;
    put(&user, "last", &[("Task-After", "next"), ("Task-Result-To", "results.last")]).await;
    ask(&user, "CANCEL.gone", json!({ "reason": "no more" })).await;
    let (code, record) = await_result(&user, "last").await.unwrap_err();
    assert_eq!((code, &record["state"], &record["reason"]), (30425, &json!("failed"), &json!("dependency")));
    assert_eq!(record["fault"]["error"], "next failed");
    assert_eq!(ask(&user, "GET.next", Value::Null).await["fault"]["error"], "gone canceled");
    let dead = user.last_message("KV_TASK", "$KV.TASK.d.default.next").await.unwrap().unwrap();
    assert_eq!(&dead.payload[..], b"next", "its payload is kept as any dead letter's");
    world.restart_coordinator().await;
    assert_eq!(refused(&user, "SUBMIT", &[("Task-After", "gone")]).await, (30424, "dependency: gone canceled".into()));
    assert_eq!(refused(&user, "REQUEUE.next", &[]).await.0, 30424);
    ask(&user, "REQUEUE.gone", Value::Null).await;
    assert_eq!(ask(&user, "REQUEUE.next", Value::Null).await["phase"], "blocked");
    let agent = Agent::register(world.client("one").await, "one", json!({})).await;
    assert_eq!(order_of(&agent, 2).await, "gone next");
    world.end().await;
}

#[tokio::test]
async fn many_submits_in_a_row_may_name_one_another() {
    let world = World::start().await;
    let user = world.client("user").await;
    // Without waiting for an answer: the first is not stored yet when the second names it.
    for n in 0..50 {
        let id = format!("t{n}");
        let after = format!("t{}", (n - 1).max(0));
        let headers = natterjack::types::header::HeaderBuilder::new().add("Task-Id", &id);
        let headers = if n > 0 { headers.add("Task-After", &after) } else { headers };
        user.publish_message(b"$TASK.API.SUBMIT", b"", &headers.build(), b"").unwrap();
    }
    let agent = Agent::register(world.client("one").await, "one", json!({ "slots": 8 })).await;
    let expected: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    assert_eq!(order_of(&agent, 50).await, expected.join(" "));
    world.end().await;
}

#[tokio::test]
async fn paused_queues_keep_what_they_have() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("any").await, "any", json!({ "queues": ["*"] })).await;
    assert_eq!(refused(&user, "QUEUE.PAUSE.q", &[]).await.0, 30406);
    ask(&user, "QUEUE.PUT.q", json!({ "max_running": 5 })).await;
    assert_eq!(ask(&user, "QUEUE.PAUSE.q", json!({})).await["paused"], "waiting");
    put(&user, "held", &[("Task-Queue", "q")]).await;
    world.restart_coordinator().await;
    // Settings change without ending the pause, and other queues go on.
    assert_eq!(ask(&user, "QUEUE.PUT.q", json!({ "max_running": 7 })).await["paused"], "waiting");
    put(&user, "free", &[]).await;
    assert_eq!(order_of(&agent, 1).await, "free");
    in_phase(&user, "held", "queued").await;
    ask(&user, "QUEUE.PAUSE.q", json!({ "refuse": true })).await;
    assert_eq!(refused(&user, "SUBMIT", &[("Task-Queue", "q")]).await, (30423, "paused or draining".to_owned()));
    assert_eq!(ask(&user, "QUEUE.RESUME.q", Value::Null).await["paused"], Value::Null);
    assert_eq!(order_of(&agent, 1).await, "held");
    world.end().await;
}

#[tokio::test]
async fn a_paused_pull_queue_delivers_nothing() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.p", json!({ "mode": "pull" })).await;
    ask(&user, "QUEUE.PAUSE.p", Value::Null).await;
    put(&user, "t", &[("Task-Queue", "p")]).await;
    world.restart_coordinator().await;
    let info: Value = user.api("CONSUMER.INFO.KV_TASK.queue_p", &Value::Null).await.unwrap();
    assert_eq!((&info["paused"], &info["num_pending"]), (&json!(true), &json!(1)), "{info}");
    ask(&user, "QUEUE.RESUME.p", Value::Null).await;
    let task = super::agent::pull(&user, "queue_p").await;
    user.publish_message(task.reply(), b"", b"", b"+ACK").unwrap();
    await_result(&user, "t").await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_purge_cancels_what_nobody_works_on() {
    let world = World::start().await;
    let user = world.client("user").await;
    assert_eq!(refused(&user, "QUEUE.PURGE.default", &[]).await.0, 30406);
    // What runs must keep its lease on a machine that is slow to submit all the rest.
    ask(&user, "QUEUE.PUT.default", json!({ "lease_s": 3600 })).await;
    let agent = Agent::register(world.client("one").await, "one", json!({})).await;
    put(&user, "running", &[]).await;
    let running = agent.pull().await;
    for n in 0..600 {
        put(&user, &format!("t{n}"), &[]).await;
    }
    put(&user, "later", &[("Task-Not-Before", "1h")]).await;
    put(&user, "blocked", &[("Task-After", "later")]).await;
    put(&user, "elsewhere", &[("Task-Queue", "other")]).await;
    let purged = ask(&user, "QUEUE.PURGE.default", json!({ "reason": "spring" })).await;
    // All are stored as canceled when it is answered; what came after them may have failed of that just before.
    let count = purged["purged"].as_u64().unwrap();
    assert!((601..=602).contains(&count), "{count}");
    for id in ["t0", "t599", "later"] {
        let record = ask(&user, &format!("GET.{id}"), Value::Null).await;
        assert_eq!((&record["state"], &record["reason"]), (&json!("canceled"), &json!("spring")), "{id}");
    }
    until(&user, "blocked", |record| record["state"] == "canceled" || record["state"] == "failed").await;
    agent.complete(&running, b"fine").await.unwrap();
    assert_eq!(await_result(&user, "running").await.unwrap(), b"fine");
    assert_eq!(ask(&user, "GET.elsewhere", Value::Null).await["phase"], "queued");
    assert_eq!(ask(&user, "QUEUE.PURGE.default", Value::Null).await["purged"], 0);
    world.end().await;
}

#[tokio::test]
async fn a_purge_outlives_a_crash_in_its_middle() {
    const TASKS: usize = 600;
    let mut world = World::start().await;
    let user = world.client("user").await;
    for n in 0..TASKS {
        put(&user, &format!("t{n}"), &[("Task-Requires", "nobody")]).await;
    }
    let mut canceled = user.subscribe_with("$TASK.E.TASK.*", None, 4096).unwrap();
    user.publish("$TASK.API.QUEUE.PURGE.default", br#"{"reason":"spring"}"#).unwrap();
    put(&user, "after", &[("Task-Requires", "nobody")]).await;
    while !canceled.next().await.unwrap().subject_str().ends_with(".t0") {}
    world.restart_coordinator().await;
    for n in 0..TASKS {
        let record = until(&user, &format!("t{n}"), |record| record["state"] == "canceled").await;
        assert_eq!(record["reason"], "spring");
    }
    // What came behind the purge is not meant by it, nor is what is done about its tasks later.
    assert_eq!(ask(&user, "GET.after", Value::Null).await["phase"], "queued");
    while user.last_message("KV_TASK", "$KV.TASK.q.default.purge").await.unwrap().is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    ask(&user, "REQUEUE.t1", Value::Null).await;
    world.restart_coordinator().await;
    assert_eq!(ask(&user, "GET.t1", Value::Null).await["phase"], "queued");
    assert_eq!(ask(&user, "QUEUE.LIST", Value::Null).await["queues"].as_array().unwrap().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn times_bound_a_task() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    put(&user, "late", &[("Task-Deadline", "400ms")]).await;
    put(&user, "after-late", &[("Task-After", "late"), ("Task-Deadline", "1h")]).await;
    put(&user, "overdue", &[("Task-Deadline", "2020-01-01T00:00:00Z")]).await;
    world.restart_coordinator().await;
    let (_, record) = await_result(&user, "late").await.unwrap_err();
    assert_eq!((&record["phase"], &record["reason"]), (&json!("dead"), &json!("deadline")));
    assert_eq!(await_result(&user, "overdue").await.unwrap_err().1["reason"], "deadline");
    assert_eq!(await_result(&user, "after-late").await.unwrap_err().1["reason"], "dependency");
    // An attempt that takes too long, though its agent gives signs of life, and was found so after a restart.
    let agent = Agent::register(world.client("slow").await, "slow", json!({})).await;
    put(&user, "slow", &[("Task-Timeout", "600ms")]).await;
    let task = agent.pull().await;
    agent.ack(&task, "+WPI");
    in_phase(&user, "slow", "running").await;
    world.restart_coordinator().await;
    let (_, record) = await_result(&user, "slow").await.unwrap_err();
    assert_eq!((&record["phase"], &record["reason"]), (&json!("dead"), &json!("timeout")));
    assert_eq!(agent.complete(&task, b"").await, Err(30409));
    for (name, value) in [("Task-Not-Before", "soon"), ("Task-Deadline", "never"), ("Task-Timeout", "-1s")] {
        assert_eq!(refused(&user, "SUBMIT", &[(name, value)]).await.0, 30400, "{name}");
    }
    world.end().await;
}
