//! What travels with a task: the submitter's headers, and the agent's progress.

use std::time::Duration;

use natterjack::client::{Client, Incoming};
use natterjack::types::header::HeaderBuilder;
use serde_json::{Value, json};

use super::agent::{Agent, LONG, ask, call, submit, until};
use super::support::World;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// Unusual ones among them: two of a name, an empty one, one with a colon.
const OWN: &[(&str, &str)] = &[
    ("traceparent", TRACE),
    ("tracestate", "a=1,b=2"),
    ("X-Request-ID", "req:7"),
    ("X-Many", "one"),
    ("X-Many", "two"),
    ("x-empty", ""),
    ("Content-Type", "text/plain"),
];

fn lines(message: &Incoming) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    message.headers().iter().map(|(name, value)| (text(name), text(value))).collect()
}

/// Whether all of `OWN` is there as it was, but for those named.
fn carries(message: &Incoming, but: &[&str]) {
    let lines = lines(message);
    for (name, value) in OWN.iter().filter(|(name, _)| !but.contains(name)) {
        let found = lines.iter().any(|line| line.0 == *name && line.1 == *value);
        assert!(found, "{name}: {value} is not in {lines:?} on {}", message.subject_str());
    }
}

async fn submit_traced(user: &Client, id: &str, result_to: &str) {
    let mut headers = vec![("Task-Id", id), ("Task-Result-To", result_to), ("Task-Max-Attempts", "1")];
    headers.extend(OWN);
    submit(user, &headers, b"body").await;
}

#[tokio::test]
async fn a_submitters_headers_are_in_all_that_is_told_of_the_task() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({})).await;
    let mut events = user.subscribe("$TASK.E.TASK.*").unwrap();
    let mut letters = user.subscribe("$TASK.E.QUEUE.default").unwrap();
    let mut results = user.subscribe("results.t").unwrap();
    let mut failures = user.subscribe("results.f").unwrap();
    user.flush().await.unwrap();

    submit_traced(&user, "t", "results.t").await;
    // Not only while the body is in memory.
    world.restart_coordinator().await;
    let task = agent.pull().await;
    carries(&task, &[]);
    let input = task.headers().get_str("Task-Input").unwrap().to_owned();
    user.request(&input, b"Well?", LONG).await.unwrap();
    let asked = user.request("$TASK.API.AWAIT.t", b"", LONG).await.unwrap();
    assert_eq!(asked.headers().get_str("Nats-Service-Error-Code"), Some("428"));
    carries(&asked, &[]);
    user.request("$TASK.API.ANSWER.t", b"Well.", LONG).await.unwrap();
    let task = agent.pull().await;
    carries(&task, &[]);
    // What the agent says itself comes before.
    let own = HeaderBuilder::new().add("content-type", "application/json").add("X-Model", "m1").build();
    let complete = task.headers().get_str("Task-Complete").unwrap();
    agent.client.request_message(complete, &own, b"{}", LONG).await.unwrap();
    let result = results.next().await.unwrap();
    let awaited = user.request("$TASK.API.AWAIT.t", b"", LONG).await.unwrap();
    world.restart_coordinator().await;
    let read = user.request("$TASK.API.AWAIT.t", b"", LONG).await.unwrap();
    for result in [&result, &awaited, &read] {
        carries(result, &["Content-Type"]);
        assert_eq!(result.headers().get_str("X-Model"), Some("m1"));
        let types: Vec<_> =
            lines(result).into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type")).collect();
        assert_eq!(types, [("content-type".to_owned(), "application/json".to_owned())]);
        assert_eq!(result.payload(), b"{}");
    }

    submit_traced(&user, "f", "results.f").await;
    let task = agent.pull().await;
    agent.fail(&task, b"boom").await.unwrap();
    carries(&failures.next().await.unwrap(), &[]);
    carries(&letters.next().await.unwrap(), &[]);
    carries(&user.request("$TASK.API.AWAIT.f", b"", LONG).await.unwrap(), &[]);
    let mut phases = Vec::new();
    while phases.last().is_none_or(|last| last != "dead") {
        let event = events.next().await.unwrap();
        carries(&event, &[]);
        let event: Value = serde_json::from_slice(event.payload()).unwrap();
        phases.push(event["phase"].as_str().unwrap().to_owned());
    }
    for phase in ["assigned", "input-required", "queued", "completed"] {
        assert!(phases.iter().any(|told| told == phase), "{phases:?}");
    }
    let record = ask(&user, "GET.f", Value::Null).await;
    assert_eq!(record["headers"][0], format!("traceparent: {TRACE}"));
    let large = "x".repeat(9000);
    assert_eq!(call(&user, "SUBMIT", &[("X-Large", &large)], b"").await.unwrap_err().0, 30413);
    world.end().await;
}

fn chunk(client: &Client, task: &Incoming, marked: bool, body: &str) {
    let subject = task.headers().get_str("Task-Progress").unwrap();
    let delivery = task.headers().get_str("Task-Delivery").unwrap();
    let headers = if marked { HeaderBuilder::new().add("Task-Delivery", delivery).build() } else { Vec::new() };
    client.publish_message(subject.as_bytes(), b"", &headers, body.as_bytes()).unwrap();
}

#[tokio::test]
async fn progress_is_read_live_and_later_and_tells_deliveries_apart() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.quick", json!({ "lease_s": 0.6, "backoff": [0.01] })).await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "queues": ["quick"], "slots": 2 })).await;
    let mut live = user.subscribe("$TASK.P.t").unwrap();
    submit(&user, &[("Task-Id", "t"), ("Task-Queue", "quick")], b"").await;
    let first = agent.pull().await;
    let awaited = tokio::spawn({
        let user = user.clone();
        async move { super::agent::await_result(&user, "t").await }
    });
    // Alive by chunks alone for longer than the lease; while there was but one delivery they need not say which.
    for n in 0..10 {
        chunk(&agent.client, &first, n % 2 == 0, &format!("one {n}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ask(&user, "GET.t", Value::Null).await["attempt"], 1);
    agent.fail(&first, b"again").await.unwrap();
    let second = agent.pull().await;
    until(&user, "t", |record| record["deliveries"] == 2).await;
    chunk(&agent.client, &second, true, "two 0");
    // The first delivery's chunks do not keep the second alive, marked or not.
    let lost = tokio::spawn({
        let (client, first) = (agent.client.clone(), first.clone());
        async move {
            for n in 10..200 {
                chunk(&client, &first, n % 2 == 0, &format!("one {n}"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let third = agent.pull().await;
    lost.abort();
    assert_eq!(ask(&user, "GET.t", Value::Null).await["fault"]["error"], "lease expired");
    assert_eq!(third.headers().get_str("Task-Delivery"), Some("3"));
    chunk(&agent.client, &third, true, "three 0");
    agent.complete(&third, b"done").await.unwrap();
    assert_eq!(awaited.await.unwrap().unwrap(), b"done", "AWAIT waits for the end");

    // Later as live, in order; the header says whose it was.
    let stored = user.last_message("TASK_PROGRESS", "$TASK.P.t").await.unwrap().unwrap();
    assert_eq!(&stored.payload[..], b"three 0");
    let config = json!({
        "name": "later", "deliver_policy": "all", "ack_policy": "none", "filter_subject": "$TASK.P.t",
        "inactive_threshold": 60_000_000_000_i64,
    });
    user.create_consumer("TASK_PROGRESS", &config).await.unwrap();
    let mut later = user.puller("TASK_PROGRESS", "later", 50).unwrap();
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "three 0") {
        let (now, then) = (live.next().await.unwrap(), later.next().await.unwrap());
        let body = String::from_utf8(then.payload().to_vec()).unwrap();
        assert_eq!(now.payload(), body.as_bytes());
        if let Some(delivery) = then.headers().get_str("Task-Delivery") {
            let expected = ["one", "two", "three"][delivery.parse::<usize>().unwrap() - 1];
            assert!(body.starts_with(expected), "{delivery}: {body}");
        }
        told.push(body);
    }
    let ones: Vec<&String> = told.iter().filter(|body| body.starts_with("one")).collect();
    assert_eq!(ones[..10], (0..10).map(|n| format!("one {n}")).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    world.end().await;
}
