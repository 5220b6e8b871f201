//! HISTORY and EXPLAIN: what happened to a task, and why it is where it is.

use std::time::Instant;

use natterjack::client::Client;
use serde_json::{Value, json};

use super::agent::{Agent, ask, call, submit, until};
use super::support::World;

async fn explain(user: &Client, id: &str) -> Value {
    ask(user, &format!("EXPLAIN.{id}"), Value::Null).await
}

fn codes(explained: &Value) -> Vec<&str> {
    explained["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect()
}

fn reason<'a>(explained: &'a Value, code: &str) -> &'a Value {
    let found = explained["reasons"].as_array().unwrap().iter().find(|reason| reason["code"] == code);
    found.unwrap_or_else(|| panic!("{code} is not in {explained}"))
}

#[tokio::test]
async fn a_history_tells_every_change_and_what_is_gone() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({})).await;
    let headers = [("Task-Id", "t"), ("Task-Max-Attempts", "2"), ("Task-Backoff", "10ms")];
    submit(&user, &headers, b"").await;
    let first = agent.pull().await;
    agent.ack(&first, "+WPI");
    until(&user, "t", |record| record["phase"] == "running").await;
    agent.fail(&first, b"boom").await.unwrap();
    let second = agent.pull().await;
    let input = second.headers().get_str("Task-Input").unwrap().strip_prefix("$TASK.API.").unwrap().to_owned();
    call(&agent.client, &input, &[("Task-State", "auth-required")], b"May I?").await.unwrap();
    ask(&user, "ANSWER.t", json!("secret")).await;
    let third = agent.pull().await;
    agent.fail(&third, br#"{"error":"no","retry":false}"#).await.unwrap();
    world.restart_coordinator().await;
    let history = ask(&user, "HISTORY.t", Value::Null).await;
    assert_eq!((&history["id"], &history["trimmed"]), (&json!("t"), &json!(0)));
    let changes = history["history"].as_array().unwrap();
    let what: Vec<&str> = changes.iter().map(|change| change["what"].as_str().unwrap()).collect();
    let expected = [
        "submitted, and assigned to ann",
        "the attempt failed, another is to come",
        "due for another attempt",
        "assigned to ann",
        "an authorization was asked for by ann",
        "answered",
        "assigned to ann",
        "given up: no",
    ];
    // Whether a delivery is stored before the agent answers is a matter of time.
    let told: Vec<&str> = what.into_iter().filter(|what| !what.starts_with("delivered")).collect();
    assert_eq!(told, expected);
    let failed = changes.iter().find(|change| change["phase"] == "backing-off").unwrap();
    assert_eq!((&failed["error"], &failed["agent"], &failed["attempt"]), (&json!("boom"), &json!("ann"), &json!(1)));
    for pair in changes.windows(2) {
        assert!(pair[0]["revision"].as_u64() < pair[1]["revision"].as_u64());
        assert!(pair[0]["time"].as_str() <= pair[1]["time"].as_str());
        assert_eq!(pair[0]["change"].as_u64().unwrap() + 1, pair[1]["change"].as_u64().unwrap());
    }
    let lease = input.rsplit('.').next().unwrap();
    let text = history.to_string();
    assert!(!text.contains(lease) && !text.contains("secret"), "{text}");

    // The bucket keeps 16 changes of a key: what is gone is told.
    for _ in 0..10 {
        ask(&user, "REQUEUE.t", Value::Null).await;
        until(&user, "t", |record| record["phase"] == "assigned" || record["phase"] == "running").await;
        ask(&user, "CANCEL.t", json!({ "force": true })).await;
    }
    let history = ask(&user, "HISTORY.t", Value::Null).await;
    let changes = history["history"].as_array().unwrap();
    assert_eq!(changes.len(), 16, "{history}");
    assert!(history["trimmed"].as_u64().unwrap() >= 13, "{history}");
    assert_eq!(history["trimmed"].as_u64().unwrap() + 1, changes[0]["change"].as_u64().unwrap());
    assert_eq!(changes[15]["what"], "canceled");
    assert_eq!(call(&user, "HISTORY.nobody", &[], b"").await.unwrap_err().0, 30404);
    world.end().await;
}

#[tokio::test]
async fn why_a_task_does_not_run_is_told_agent_by_agent() {
    let world = World::start().await;
    let user = world.client("user").await;
    submit(&user, &[("Task-Id", "lonely")], b"").await;
    let told = explain(&user, "lonely").await;
    assert_eq!(codes(&told), ["queued", "no-agents"]);
    assert!(told["explanation"].as_str().unwrap().ends_with("; no agent is registered."), "{told}");
    ask(&user, "CANCEL.lonely", Value::Null).await;
    let told = explain(&user, "lonely").await;
    assert_eq!(codes(&told), ["canceled"]);

    let ann = Agent::register(world.client("ann").await, "ann", json!({ "labels": ["lang=rust", "gpu"] })).await;
    Agent::register(world.client("bob").await, "bob", json!({ "labels": ["lang=go"] })).await;
    Agent::register(world.client("cat").await, "cat", json!({ "queues": ["other"], "labels": ["lang=rust"] })).await;
    Agent::register(world.client("dan").await, "dan", json!({ "labels": ["lang=rust"] })).await;
    ask(&user, "AGENT.DRAIN.dan", Value::Null).await;
    submit(&user, &[("Task-Id", "busy"), ("Task-Requires", "gpu"), ("Task-Timeout", "1h")], b"").await;
    let busy = ann.pull().await;
    ann.ack(&busy, "+WPI");
    until(&user, "busy", |record| record["phase"] == "running").await;
    let told = explain(&user, "busy").await;
    assert_eq!((reason(&told, "running")["agent"].as_str(), told["attempt"].as_u64()), (Some("ann"), Some(1)));
    assert!(reason(&told, "running")["timeout_at"].is_string(), "{told}");

    submit(&user, &[("Task-Id", "t"), ("Task-Requires", "lang=rust,gpu"), ("Task-Deadline", "1h")], b"").await;
    let told = explain(&user, "t").await;
    assert_eq!(codes(&told), ["queued", "no-agent-free", "deadline"]);
    let (among, agents) = (&told["among"], &told["agents"]);
    assert_eq!((&among["total"], &among["able"], &among["left"]), (&json!(4), &json!(0), &json!(0)));
    let text = |id: &str| {
        let list = agents.as_array().unwrap();
        list.iter().find(|told| told["agent"] == id).unwrap()["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(text("ann"), "ann has no free slot, 1 of 1 taken");
    assert_eq!(text("bob"), "bob has not the labels gpu, lang=rust");
    assert_eq!(text("cat"), "cat serves other, not default; has not the labels gpu");
    assert_eq!(text("dan"), "dan is draining and gets nothing new; has not the labels gpu");
    assert_eq!(among["obstacles"], json!({ "draining": 1, "labels": 3, "queue": 1, "slots": 1 }));

    submit(&user, &[("Task-Id", "after"), ("Task-After", "busy,t")], b"").await;
    let told = explain(&user, "after").await;
    assert_eq!(reason(&told, "blocked")["text"], "it comes after busy (running), t (queued)");
    submit(&user, &[("Task-Id", "later"), ("Task-Not-Before", "1h")], b"").await;
    assert_eq!(codes(&explain(&user, "later").await), ["not-before"]);
    ann.fail(&busy, br#"{"error":"boom","delay_ms":60000}"#).await.unwrap();
    let told = explain(&user, "busy").await;
    assert!(reason(&told, "backing-off")["text"].as_str().unwrap().contains("attempt 1 of 4 failed (boom)"), "{told}");
    let t = ann.pull().await;
    ann.decline(&t).await.unwrap();
    let told = explain(&user, "t").await;
    assert!(reason(&told, "rejected")["text"].as_str().unwrap().ends_with("declined by ann, and no other matches"));
    assert_eq!(call(&user, "EXPLAIN.nobody", &[], b"").await.unwrap_err().0, 30404);
    assert_eq!(call(&user, "EXPLAIN.t", &[], b"{\"x\":1}").await.unwrap_err().0, 30400);
    world.end().await;
}

#[tokio::test]
async fn what_holds_up_a_queue_is_told() {
    let world = World::start().await;
    let user = world.client("user").await;
    let limits = json!({ "max_running": 1, "max_per_key": 1, "rate": 0.001 });
    ask(&user, "QUEUE.PUT.q", limits).await;
    let card = json!({ "queues": ["q", "home"], "slots": 9 });
    let ann = Agent::register(world.client("ann").await, "ann", card.clone()).await;
    let mine = [("Task-Queue", "q"), ("Task-Key", "k")];
    submit(&user, &[&[("Task-Id", "one")], &mine[..]].concat(), b"").await;
    let one = ann.pull().await;
    submit(&user, &[&[("Task-Id", "two")], &mine[..]].concat(), b"").await;
    ask(&user, "QUEUE.PAUSE.q", Value::Null).await;
    let told = explain(&user, "two").await;
    assert_eq!(codes(&told), ["queued", "paused", "max_running", "max_per_key", "rate", "turn"]);
    assert_eq!(reason(&told, "max_running")["text"], "the queue q runs 1 of 1 (max_running)");
    assert_eq!((&told["among"]["able"], &told["agents"][0]["text"]), (&json!(1), &json!("ann can take it")));

    // Who asked, and who is home.
    let bob = Agent::register(world.client("bob").await, "bob", card).await;
    let input = one.headers().get_str("Task-Input").unwrap().strip_prefix("$TASK.API.").unwrap().to_owned();
    call(&ann.client, &input, &[], b"Which?").await.unwrap();
    let told = explain(&user, "one").await;
    assert_eq!(reason(&told, "input-required")["question"], "Which?");
    assert!(told["explanation"].as_str().unwrap().contains("ANSWER.one lets it go on"), "{told}");
    call(&user, "ANSWER.one", &[], b"This.").await.unwrap();
    let told = explain(&user, "one").await;
    assert_eq!(reason(&told, "turn")["waits_for"], "ann");
    assert_eq!(told["agents"][1]["text"], "bob is not ann, who asked");
    let sticky = [("Task-Queue", "home"), ("Task-Sticky", "s"), ("Task-Sticky-Mode", "hard")];
    submit(&user, &[&[("Task-Id", "first")], &sticky[..]].concat(), b"").await;
    let first = until(&user, "first", |record| record["agent"] != Value::Null).await;
    let (home, other) = if first["agent"] == "ann" { ("ann", "bob") } else { ("bob", "ann") };
    ask(&user, &format!("AGENT.DRAIN.{home}"), Value::Null).await;
    submit(&user, &[&[("Task-Id", "second")], &sticky[..]].concat(), b"").await;
    let told = explain(&user, "second").await;
    assert_eq!(reason(&told, "no-agent-free")["waits_for"], home);
    let texts = told["agents"].to_string();
    assert!(texts.contains(&format!("{other} is not {home}, where s has its home")), "{texts}");

    ask(&user, "QUEUE.PUT.p", json!({ "mode": "pull" })).await;
    submit(&user, &[("Task-Id", "pulled"), ("Task-Queue", "p")], b"").await;
    assert_eq!(codes(&explain(&user, "pulled").await), ["queued", "pull"]);
    drop((ann, bob));
    world.end().await;
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a measurement")]
async fn an_explanation_stays_short_among_many_agents() {
    let world = World::start().await;
    let user = world.client("user").await;
    const AGENTS: usize = 300;
    let registering = (0..AGENTS).map(|n| {
        let user = user.clone();
        async move {
            let labels = json!({ "labels": { "n": n, "odd": n % 2 } });
            ask(&user, &format!("AGENT.REGISTER.a{n}"), labels).await
        }
    });
    futures_util::future::join_all(registering).await;
    submit(&user, &[("Task-Id", "t"), ("Task-Requires", "odd=2,n>=100")], b"").await;
    let begun = Instant::now();
    let told = explain(&user, "t").await;
    println!("EXPLAIN among {AGENTS} agents: {:?}, {} bytes", begun.elapsed(), told.to_string().len());
    assert_eq!(codes(&told), ["queued", "no-match"]);
    let among = &told["among"];
    assert_eq!((told["agents"].as_array().unwrap().len(), &among["left"]), (20, &json!(AGENTS - 20)));
    assert_eq!(among["obstacles"]["labels"], AGENTS);
    assert!(told.to_string().len() < 8192);
    let all = ask(&user, "EXPLAIN.t", json!({ "agents": 1000 })).await;
    assert_eq!((all["agents"].as_array().unwrap().len(), &all["among"]["left"]), (AGENTS, &json!(0)));
    world.end().await;
}
