//! Agents that ask their people: INPUT and ANSWER.

use std::time::Duration;

use natterjack::client::{Client, Incoming};
use natterjack::types::header::HeaderBuilder;
use serde_json::{Value, json};

use super::agent::{Agent, LONG, ask, await_result, call, pull, submit, until};
use super::support::World;

/// Asks on the subject that came with the delivery.
async fn question(agent: &Agent, task: &Incoming, headers: &[(&str, &str)], body: &str) -> Result<Value, u64> {
    let subject = task.headers().get_str("Task-Input").unwrap();
    let name = subject.strip_prefix("$TASK.API.").unwrap();
    let answer = call(&agent.client, name, headers, body.as_bytes()).await;
    answer.map(|answer| serde_json::from_slice(answer.payload()).unwrap()).map_err(|(code, _)| code)
}

async fn answer(client: &Client, id: &str, headers: &[(&str, &str)], body: &str) -> Result<(), u64> {
    call(client, &format!("ANSWER.{id}"), headers, body.as_bytes()).await.map(drop).map_err(|(code, _)| code)
}

/// What a delivery says was asked and answered.
fn answers(task: &Incoming) -> Value {
    task.headers().get_str("Task-Answers").map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

fn header<'a>(task: &'a Incoming, name: &str) -> &'a str {
    task.headers().get_str(name).unwrap_or_default()
}

#[tokio::test]
async fn an_agent_asks_and_goes_on_with_the_answer() {
    let world = World::start().await;
    let user = world.client("user").await;
    let ann = Agent::register(world.client("ann").await, "ann", json!({})).await;
    let mut events = user.subscribe("$TASK.E.TASK.t").unwrap();
    submit(&user, &[("Task-Id", "t"), ("Task-Timeout", "2s"), ("Task-Max-Attempts", "1")], b"paint it").await;
    let task = ann.pull().await;
    assert_eq!(answer(&user, "t", &[], "early").await, Err(30416));
    let waiting = tokio::spawn({
        let user = user.clone();
        async move { await_result(&user, "t").await }
    });
    let asked = question(&ann, &task, &[], "Which colour?\nOr ü?").await.unwrap();
    assert_eq!((&asked["state"], &asked["phase"]), (&json!("input-required"), &json!("input-required")));

    // The dispatcher hears of it by its AWAIT, by the event and in the record.
    let (code, heard) = waiting.await.unwrap().unwrap_err();
    assert_eq!((code, &heard["state"]), (30428, &json!("input-required")));
    assert_eq!(heard["questions"][0]["question"], "Which colour?\nOr ü?");
    assert_eq!(call(&user, "AWAIT.t", &[], b"").await.unwrap_err().0, 30428);
    let past = [("Task-Wait", "10ms"), ("Task-Await", "end")];
    assert_eq!(call(&user, "AWAIT.t", &past, b"").await.unwrap_err().0, 30408);
    let event = loop {
        let event: Value = serde_json::from_slice(events.next().await.unwrap().payload()).unwrap();
        if event["phase"] == "input-required" {
            break event;
        }
    };
    assert_eq!((&event["question"], &event["number"]), (&json!("Which colour?\nOr ü?"), &json!(1)));
    assert_eq!((&event["agent"], &event["state"]), (&json!("ann"), &json!("input-required")));
    let listed = ask(&user, "LIST", json!({ "state": "input-required" })).await;
    assert_eq!((&listed["total"], &listed["tasks"][0]["id"]), (&json!(1), &json!("t")));
    assert!(listed["tasks"][0].get("lease").is_none_or(|lease| lease == ""), "{listed}");

    // The slot is free, and neither the attempt's time nor a sign of life matters meanwhile.
    submit(&user, &[("Task-Id", "between")], b"").await;
    let between = ann.pull().await;
    assert_eq!(header(&between, "Task-Id"), "between");
    ann.ack(&task, "-NAK");
    ann.ack(&task, "+TERM");
    tokio::time::sleep(Duration::from_millis(2300)).await;
    assert_eq!(ask(&user, "GET.t", Value::Null).await["phase"], "input-required");
    assert_eq!(question(&ann, &task, &[], "Which colour?\nOr ü?").await.unwrap()["phase"], "input-required");
    assert_eq!(question(&ann, &task, &[], "Another?").await, Err(30400));

    // The answer puts it before all that waits.
    submit(&user, &[("Task-Id", "older"), ("Task-Priority", "0")], b"").await;
    assert_eq!(answer(&user, "t", &[("Task-Question", "2")], "red").await, Err(30416));
    answer(&user, "t", &[("Task-Question", "1")], "red\nor ü").await.unwrap();
    answer(&user, "t", &[], "red\nor ü").await.expect("the same answer again is fine");
    assert_eq!(answer(&user, "t", &[], "blue").await, Err(30416));
    ann.complete(&between, b"").await.unwrap();
    let again = ann.pull().await;
    assert_eq!((header(&again, "Task-Id"), again.payload()), ("t", &b"paint it"[..]));
    assert_eq!(header(&again, "Task-Attempt"), "1", "a question is no attempt");
    let told = json!([
        { "number": 1, "state": "input-required", "question": "Which colour?\nOr ü?", "answer": "red\nor ü" }
    ]);
    assert_eq!(answers(&again), told);
    assert_eq!(question(&ann, &task, &[], "late").await, Err(30409));
    assert_eq!(ann.complete(&task, b"late").await, Err(30409));
    ann.complete(&again, b"red it is").await.unwrap();
    assert_eq!(await_result(&user, "t").await.unwrap(), b"red it is");
    assert_eq!(answer(&user, "t", &[("Task-Question", "1")], "blue").await, Err(30416));
    world.end().await;
}

#[tokio::test]
async fn an_answer_waits_for_the_agent_that_asked_while_that_is_there() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.quick", json!({ "lease_s": 0.5 })).await;
    let queues = json!({ "queues": ["default", "quick"] });
    let ann = Agent::register(world.client("ann").await, "ann", queues.clone()).await;
    for (id, queue) in [("one", "default"), ("two", "default"), ("three", "quick")] {
        submit(&user, &[("Task-Id", id), ("Task-Queue", queue)], b"").await;
        let task = ann.pull().await;
        question(&ann, &task, &[], "Well?").await.unwrap();
    }
    let bob = Agent::register(world.client("bob").await, "bob", queues).await;

    // Ann has something else to do, Bob has not: it is hers.
    submit(&user, &[("Task-Id", "other"), ("Task-Prefer", "nothing"), ("Task-Queue", "default")], b"").await;
    let other = until(&user, "other", |record| record["agent"] != Value::Null).await;
    let (busy, free) = if other["agent"] == "ann" { (&ann, &bob) } else { (&bob, &ann) };
    let other = busy.pull().await;
    if busy.card["agent"] == "bob" {
        // It was Bob's turn: let Ann have something as well.
        submit(&user, &[("Task-Id", "hers")], b"").await;
        until(&user, "hers", |record| record["agent"] == "ann").await;
        bob.complete(&other, b"").await.unwrap();
    }
    let hers = if free.card["agent"] == "ann" { ann.pull().await } else { other };
    answer(&user, "one", &[], "Well.").await.unwrap();
    submit(&user, &[("Task-Id", "next")], b"").await;
    let next = bob.pull().await;
    assert_eq!(header(&next, "Task-Id"), "next", "others go on with others");
    bob.complete(&next, b"").await.unwrap();
    assert_eq!(ask(&user, "GET.one", Value::Null).await["phase"], "queued");

    // Longer than a lease nobody waits.
    answer(&user, "three", &[], "Well.").await.unwrap();
    let three = bob.pull().await;
    assert_eq!(header(&three, "Task-Id"), "three");
    bob.complete(&three, b"").await.unwrap();
    ann.complete(&hers, b"").await.unwrap();
    let one = ann.pull().await;
    assert_eq!((header(&one, "Task-Id"), header(&one, "Task-Attempt")), ("one", "1"));
    assert_eq!(answers(&one)[0]["answer"], "Well.");

    // She asks again, and leaves: who takes over reads what was answered before.
    question(&ann, &one, &[], "And then?").await.unwrap();
    ask(&user, "AGENT.REMOVE.ann", Value::Null).await;
    answer(&user, "one", &[("Task-Question", "2")], "Enough.").await.unwrap();
    let one = bob.pull().await;
    assert_eq!(header(&one, "Task-Id"), "one");
    assert_eq!((&answers(&one)[0]["answer"], &answers(&one)[1]["answer"]), (&json!("Well."), &json!("Enough.")));
    bob.complete(&one, b"done").await.unwrap();
    answer(&user, "two", &[], "").await.unwrap();
    let two = bob.pull().await;
    assert_eq!((header(&two, "Task-Id"), &answers(&two)[0]["answer"]), ("two", &json!("")));
    world.end().await;
}

#[tokio::test]
async fn parked_tasks_survive_restarts_and_can_end() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let ann = Agent::register(world.client("ann").await, "ann", json!({ "slots": 9 })).await;
    let mut control = user.subscribe("$TASK.X.ann").unwrap();
    user.flush().await.unwrap();
    let mut tasks = Vec::new();
    for (id, deadline) in [("go", "1h"), ("cancel", "1h"), ("late", "2s"), ("self", "1h"), ("failed", "1h")] {
        submit(&user, &[("Task-Id", id), ("Task-Deadline", deadline), ("Task-Backoff", "10ms")], b"body").await;
        let task = ann.pull().await;
        let auth = [("Task-State", "auth-required")];
        question(&ann, &task, if id == "go" { &auth } else { &[] }, r#"{"question":"May I?"}"#).await.unwrap();
        tasks.push(task);
    }
    world.restart_coordinator().await;
    let record = ask(&user, "GET.go", Value::Null).await;
    assert_eq!((&record["state"], &record["questions"][0]["question"]), (&json!("auth-required"), &json!("May I?")));
    assert_eq!(ask(&user, "CANCEL.cancel", json!({ "reason": "no" })).await["state"], "canceled");
    let told: Value = serde_json::from_slice(control.next().await.unwrap().payload()).unwrap();
    assert_eq!((&told["op"], &told["task"]), (&json!("cancel"), &json!("cancel")));
    assert_eq!(answer(&user, "cancel", &[], "yes").await, Err(30416));
    // The agent may find out by itself, or give up: it still has the lease.
    ann.complete(&tasks[3], b"found it").await.unwrap();
    assert_eq!(await_result(&user, "self").await.unwrap(), b"found it");
    ann.fail(&tasks[4], b"cannot wait").await.unwrap();
    let again = ann.pull().await;
    assert_eq!((header(&again, "Task-Id"), header(&again, "Task-Attempt")), ("failed", "2"));
    assert_eq!(answers(&again), Value::Null);
    let late = until(&user, "late", |record| record["state"] == "failed").await;
    assert_eq!(late["reason"], "deadline");

    answer(&user, "go", &[], "token-4711").await.unwrap();
    world.restart_coordinator().await;
    let go = ann.pull().await;
    assert_eq!((header(&go, "Task-Id"), &answers(&go)[0]["answer"]), ("go", &json!("token-4711")));
    for shown in ["GET.go", "LIST"] {
        let shown = ask(&user, shown, Value::Null).await.to_string();
        assert!(!shown.contains("token-4711"), "an authorization is the agent's: {shown}");
    }
    ann.complete(&go, b"done").await.unwrap();
    assert_eq!(await_result(&user, "go").await.unwrap(), b"done");
    world.end().await;
}

#[tokio::test]
async fn workers_of_a_pull_queue_may_ask_too() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.p", json!({ "mode": "pull", "lease_s": 5 })).await;
    submit(&user, &[("Task-Id", "t"), ("Task-Queue", "p")], b"body").await;
    let worker = world.client("worker").await;
    let task = pull(&worker, "queue_p").await;
    let subject = header(&task, "Task-Input").to_owned();
    user.request(&subject, b"How?", LONG).await.unwrap();
    worker.publish_message(task.reply(), b"", b"", b"+ACK").unwrap();
    until(&user, "t", |record| record["phase"] == "input-required").await;
    answer(&user, "t", &[], "So.").await.unwrap();
    let again = pull(&worker, "queue_p").await;
    assert_eq!((again.payload(), &answers(&again)[0]["answer"]), (&b"body"[..], &json!("So.")));
    worker.publish_message(again.reply(), b"", b"", b"+ACK").unwrap();
    await_result(&user, "t").await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn questions_and_answers_are_bounded_and_checked() {
    let world = World::start().await;
    let user = world.client("user").await;
    let ann = Agent::register(world.client("ann").await, "ann", json!({})).await;
    // The largest body there may be leaves room for the largest answers.
    let body = vec![b'x'; (1 << 20) - (48 << 10)];
    submit(&user, &[("Task-Id", "t")], &body).await;
    let task = ann.pull().await;
    assert_eq!(question(&ann, &task, &[], &"q".repeat(40_000)).await, Err(30413));
    assert_eq!(question(&ann, &task, &[], " ").await, Err(30400));
    assert_eq!(question(&ann, &task, &[("Task-State", "working")], "q").await, Err(30400));
    question(&ann, &task, &[], &"q".repeat(16_000)).await.unwrap();
    assert_eq!(answer(&user, "t", &[], &"ü".repeat(3_000)).await, Err(30413), "as large as a header has it");
    assert_eq!(answer(&user, "t", &[("Task-Question", "x")], "").await, Err(30400));
    let block = HeaderBuilder::new().build();
    let raw = user.request_message("$TASK.API.ANSWER.t", &block, b"\xff", LONG).await.unwrap();
    assert_eq!(raw.headers().get_str("Nats-Service-Error-Code"), Some("400"));
    answer(&user, "t", &[], &"a".repeat(16_000)).await.unwrap();
    let again = ann.pull().await;
    assert_eq!((answers(&again)[0]["answer"].as_str().map(str::len), again.payload()), (Some(16_000), &body[..]));
    for name in ["INPUT.nobody.x", "ANSWER.nobody"] {
        assert_eq!(call(&user, name, &[], b"text").await.unwrap_err().0, 30404, "{name}");
    }
    world.end().await;
}
