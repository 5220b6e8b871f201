//! Dead letters: listed, read with payload and error, requeued and purged one by one or by queue.

use serde_json::{Value, json};

use super::agent::{Agent, ask, await_result, call, pull, submit, until};
use super::support::World;

/// Submits a task that nobody gets right and returns once it is dead.
async fn dies(agent: &Agent, id: &str, queue: &str, error: &str) {
    let lines = [("Task-Id", id), ("Task-Queue", queue), ("Task-Max-Attempts", "1"), ("X-Request-ID", "r-7")];
    submit(&agent.client, &lines, id.as_bytes()).await;
    let task = agent.pull().await;
    agent.fail(&task, error.as_bytes()).await.unwrap();
    until(&agent.client, id, |record| record["phase"] == "dead").await;
}

#[tokio::test]
async fn three_failed_attempts_end_in_a_dead_letter() {
    // The plugin bus: a message for a channel that stays away.
    let world = World::start().await;
    let user = world.client("plugin-bus").await;
    let agent = Agent::register(world.client("telegram").await, "telegram", json!({ "queues": ["outbound"] })).await;
    let lines = [
        ("Task-Id", "m1"),
        ("Task-Queue", "outbound"),
        ("Task-Max-Attempts", "3"),
        ("Task-Backoff", "10ms"),
        ("X-Request-ID", "r-7"),
    ];
    submit(&user, &lines, b"hello \xff channel").await;
    for attempt in ["1", "2", "3"] {
        let task = agent.pull().await;
        assert_eq!(task.headers().get_str("Task-Attempt"), Some(attempt));
        agent.fail(&task, format!("no channel, {attempt}").as_bytes()).await.unwrap();
    }
    until(&user, "m1", |record| record["phase"] == "dead").await;
    for name in ["DLQ.LIST", "DLQ.LIST.outbound"] {
        let listed = ask(&user, name, Value::Null).await;
        assert_eq!((&listed["total"], &listed["left"]), (&json!(1), &json!(0)));
        let letter = &listed["letters"][0];
        assert_eq!(letter["error"], "no channel, 3");
        assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("attempts used"), &json!(3)));
        assert_eq!(
            (&letter["id"], &letter["queue"], &letter["agent"]),
            (&json!("m1"), &json!("outbound"), &json!("telegram"))
        );
        assert!(letter["failed"].as_str().unwrap() > letter["created"].as_str().unwrap());
    }
    assert_eq!(ask(&user, "DLQ.LIST.other", Value::Null).await["total"], 0);
    let letter = call(&user, "DLQ.GET.outbound.m1", &[], b"").await.unwrap();
    assert_eq!(letter.payload(), b"hello \xff channel");
    for (name, value) in [
        ("Task-Id", "m1"),
        ("Task-Attempts", "3"),
        ("Task-Error", "no channel, 3"),
        ("Task-Reason", "attempts used"),
        ("Task-Agent", "telegram"),
        ("X-Request-ID", "r-7"),
    ] {
        assert_eq!(letter.headers().get_str(name), Some(value));
    }
    for wrong in ["DLQ.GET.other.m1", "DLQ.REQUEUE.other.m1", "DLQ.PURGE.other.m1"] {
        assert_eq!(call(&user, wrong, &[], b"").await.unwrap_err().0, 30415, "{wrong}");
    }
    // The channel is back.
    assert_eq!(ask(&user, "DLQ.REQUEUE.outbound.m1", Value::Null).await["state"], "submitted");
    let task = agent.pull().await;
    assert_eq!((task.headers().get_str("Task-Run"), task.headers().get_str("Task-Attempt")), (Some("2"), Some("1")));
    // Whoever lost the answer asks again, and nothing more happens.
    assert_eq!(ask(&user, "DLQ.REQUEUE.outbound.m1", Value::Null).await["id"], "m1");
    assert_eq!(call(&user, "DLQ.GET.outbound.m1", &[], b"").await.unwrap_err().0, 30415);
    agent.complete(&task, b"sent").await.unwrap();
    assert_eq!(await_result(&user, "m1").await.unwrap(), b"sent");
    assert_eq!(ask(&user, "DLQ.LIST", Value::Null).await["total"], 0);
    world.end().await;
}

#[tokio::test]
async fn a_queue_of_letters_is_paged_requeued_and_purged_through_a_crash() {
    const LETTERS: usize = 400;
    let mut world = World::start().await;
    let user = world.client("user").await;
    let agent =
        Agent::register(world.client("ann").await, "ann", json!({ "queues": ["q", "kept"], "slots": 1000 })).await;
    dies(&agent, "kept-1", "kept", "boom").await;
    ask(&user, "QUEUE.PUT.q", json!({ "max_attempts": 1 })).await;
    use futures_util::StreamExt as _;
    let submitting = (0..LETTERS).map(|n| {
        let (user, id) = (user.clone(), format!("t{n}"));
        async move {
            // A deadline that has passed kills without an agent.
            let lines = [("Task-Id", &*id), ("Task-Queue", "q"), ("Task-Requires", "nobody"), ("Task-Deadline", "1ms")];
            submit(&user, &lines, b"x").await;
        }
    });
    futures_util::stream::iter(submitting).for_each_concurrent(20, |submitting| submitting).await;
    while ask(&user, "DLQ.LIST.q", Value::Null).await["total"] != LETTERS {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut after = Value::Null;
    loop {
        let page = ask(&user, "DLQ.LIST.q", json!({ "limit": 250, "after": after })).await;
        for letter in page["letters"].as_array().unwrap() {
            assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("deadline"), &json!(0)));
            assert!(seen.insert(letter["id"].as_str().unwrap().to_owned()), "listed twice");
            after = letter["id"].clone();
        }
        if page["left"] == 0 {
            break;
        }
    }
    assert_eq!(seen.len(), LETTERS);
    // The coordinator dies somewhere within; the same request again does what is left.
    user.publish_message(b"$TASK.API.DLQ.REQUEUE.q", b"", b"", b"").unwrap();
    user.flush().await.unwrap();
    world.restart_coordinator().await;
    let again = ask(&user, "DLQ.REQUEUE.q", Value::Null).await;
    let total = ask(&user, "LIST", json!({ "queue": "q", "state": "submitted", "limit": 1000 })).await;
    assert_eq!(total["total"], LETTERS, "requeued {again} after the crash");
    let runs: Vec<_> = total["tasks"].as_array().unwrap().iter().map(|task| task["run"].as_u64().unwrap()).collect();
    assert!(runs.iter().all(|run| *run == 2), "each is requeued once");
    assert_eq!(ask(&user, "DLQ.LIST", Value::Null).await["total"], 1, "other queues keep theirs");

    assert_eq!(ask(&user, "DLQ.PURGE.kept.kept-1", Value::Null).await["state"], "canceled");
    assert_eq!(call(&user, "DLQ.PURGE.nowhere", &[], b"").await.unwrap_err().0, 30406);
    dies(&agent, "kept-2", "kept", "boom").await;
    dies(&agent, "kept-3", "kept", "boom").await;
    assert_eq!(ask(&user, "DLQ.PURGE.kept", Value::Null).await["purged"], 2);
    // Nothing of them is kept, not even after a restart.
    world.restart_coordinator().await;
    while user.last_message("KV_TASK", "$KV.TASK.s.kept-3").await.unwrap().is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for key in ["s.kept-1", "p.kept-1", "d.kept.kept-1", "p.kept-3", "d.kept.kept-3"] {
        assert!(user.last_message("KV_TASK", &format!("$KV.TASK.{key}")).await.unwrap().is_none(), "{key}");
    }
    assert_eq!(call(&user, "GET.kept-1", &[], b"").await.unwrap_err().0, 30404);
    world.end().await;
}

#[tokio::test]
async fn a_pull_queue_tells_what_it_can_of_workers_that_know_nothing() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.p", json!({ "mode": "pull", "max_attempts": 3, "lease_s": 0.5 })).await;
    let worker = world.client("worker").await;
    submit(&user, &[("Task-Id", "slow"), ("Task-Queue", "p")], b"slow").await;
    let first = pull(&worker, "queue_p").await;
    // A delivery is seen without a word from the worker.
    until(&user, "slow", |record| record["state"] == "working" && record["attempt"] == 1).await;
    worker.publish_message(first.reply(), b"", b"", b"-NAK {\"delay\":100000000}").unwrap();
    let record = until(&user, "slow", |record| !record["fault"].is_null()).await;
    assert_eq!((&record["fault"]["attempt"], &record["attempt"]), (&json!(1), &json!(1)));
    // The worker's process ends: the broker waits for the lease and gives the message to the next.
    let second = pull(&worker, "queue_p").await;
    assert_eq!(second.payload(), b"slow");
    drop(worker);
    let worker = world.client("another").await;
    let third = pull(&worker, "queue_p").await;
    worker.publish_message(third.reply(), b"", b"", b"+ACK").unwrap();
    let record = until(&user, "slow", |record| record["state"] == "completed").await;
    assert_eq!(record["attempt"], 3);

    // One that nobody pulls dies by its deadline without an attempt, and its letter says so.
    let deadline = [("Task-Id", "late"), ("Task-Queue", "p"), ("Task-Deadline", "100ms")];
    submit(&user, &deadline, b"late").await;
    until(&user, "late", |record| record["phase"] == "dead").await;
    let letter = call(&user, "DLQ.GET.p.late", &[], b"").await.unwrap();
    assert_eq!((letter.payload(), letter.headers().get_str("Task-Attempts")), (&b"late"[..], Some("0")));
    world.end().await;
}

#[tokio::test]
async fn letters_of_a_queue_that_nobody_put_are_found_after_a_restart() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    for (id, queue) in [("a", "again"), ("g", "gone")] {
        let lines = [("Task-Id", id), ("Task-Queue", queue), ("Task-Requires", "nobody"), ("Task-Deadline", "1ms")];
        submit(&user, &lines, b"x").await;
        until(&user, id, |record| record["phase"] == "dead").await;
    }
    world.restart_coordinator().await;
    assert_eq!(ask(&user, "DLQ.REQUEUE.again", Value::Null).await["requeued"], 1);
    assert_eq!(ask(&user, "DLQ.PURGE.gone", Value::Null).await["purged"], 1);
    world.end().await;
}

/// A worker of a pull queue goes on while no coordinator runs; the next one learns how each message ended.
#[tokio::test]
async fn what_dies_in_a_pull_queue_while_no_coordinator_runs_is_a_dead_letter() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.p", json!({ "mode": "pull", "max_attempts": 2, "lease_s": 0.3 })).await;
    while user.api::<Value>("STREAM.INFO.TASK_ADVISORIES", &Value::Null).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for id in ["acked", "terminated", "used"] {
        submit(&user, &[("Task-Id", id), ("Task-Queue", "p")], id.as_bytes()).await;
    }
    world.stop_coordinator();
    while user.request("$TASK.API.LIST", b"", super::agent::LONG / 10).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let worker = world.client("worker").await;
    for _ in 0..4 {
        let message = pull(&worker, "queue_p").await;
        let word: &[u8] = match message.payload() {
            b"acked" => b"+ACK",
            b"terminated" => b"+TERM no use",
            _ => b"-NAK",
        };
        let reply = std::str::from_utf8(message.reply()).unwrap();
        worker.request(reply, word, super::agent::LONG).await.unwrap();
    }
    // Some broker notices at the next pull only that deliveries are used up.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), pull(&worker, "queue_p")).await;
    world.restart_coordinator().await;
    until(&user, "acked", |record| record["phase"] == "completed").await;
    for (id, error, attempts) in [("terminated", "no use", 1), ("used", "deliveries used", 2)] {
        let record = until(&user, id, |record| record["phase"] == "dead" || record["phase"] == "completed").await;
        assert_eq!((&record["phase"], &record["fault"]["error"]), (&json!("dead"), &json!(error)), "{id}");
        assert_eq!(record["attempt"], attempts, "{id}");
        assert_eq!(call(&user, &format!("DLQ.GET.p.{id}"), &[], b"").await.unwrap().payload(), id.as_bytes());
    }
    // What was told is not kept.
    loop {
        let info: Value = user.api("STREAM.INFO.TASK_ADVISORIES", &Value::Null).await.unwrap();
        if info["state"]["messages"] == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_requeued_task_goes_the_way_its_queue_goes_now() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.m", json!({ "mode": "pull" })).await;
    submit(&user, &[("Task-Id", "t"), ("Task-Queue", "m"), ("Task-Deadline", "1ms")], b"x").await;
    until(&user, "t", |record| record["phase"] == "dead").await;
    ask(&user, "QUEUE.PUT.m", json!({ "mode": "inbox" })).await;
    ask(&user, "REQUEUE.t", Value::Null).await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "queues": ["m"] })).await;
    let task = agent.pull().await;
    assert_eq!(task.payload(), b"x");
    agent.ack(&task, "+TERM");
    until(&user, "t", |record| record["phase"] == "dead").await;
    ask(&user, "QUEUE.PUT.m", json!({ "mode": "pull" })).await;
    ask(&user, "REQUEUE.t", Value::Null).await;
    let worker = world.client("worker").await;
    let message = pull(&worker, "queue_m").await;
    assert_eq!(message.payload(), b"x");
    worker.publish_message(message.reply(), b"", b"", b"+ACK").unwrap();
    until(&user, "t", |record| record["phase"] == "completed").await;
    world.end().await;
}
