//! Each account that asks for a coordinator has one of its own, and a reload gives and takes it.

use std::time::Duration;

use natterjack::client::{Client, ClientError};
use serde_json::{Value, json};

use super::agent::{Agent, LONG, ask, await_result, submit};
use super::support::Embedded;

fn account(name: &str, more: &str) -> String {
    let user = name.to_lowercase();
    format!("  {name} {{ {more}, users: [ {{user: {user}, password: p}} ] }}\n")
}

const TASKS: &str = "jetstream: enabled, coordinator: enabled";
const STREAMS: &str = "jetstream: enabled";

fn accounts(list: &[(&str, &str)]) -> String {
    let blocks: String = list.iter().map(|(name, more)| account(name, more)).collect();
    format!("accounts {{\n{blocks}}}\n")
}

async fn is_unserved(client: &Client) -> bool {
    let answer = client.request("$TASK.API.LIST", b"", LONG).await;
    matches!(answer, Err(ClientError::NoResponders { .. }))
}

#[tokio::test]
async fn tasks_of_the_same_name_in_two_accounts_stay_apart() {
    let world = Embedded::start(&accounts(&[("A", TASKS), ("B", TASKS), ("C", STREAMS)])).await;
    assert_eq!(world.server.task_accounts(), ["$G", "A", "B"]);
    let (a, b, c) = (world.user("a").await, world.user("b").await, world.user("c").await);
    assert!(is_unserved(&c).await, "nobody asked for a coordinator there");
    let mut elsewhere = c.subscribe("$TASK.>").unwrap();
    c.flush().await.unwrap();
    let mut events = b.subscribe("$TASK.E.>").unwrap();
    b.flush().await.unwrap();

    // The same agent, queue, id and even connection name.
    let of_a = Agent::register(world.named("a", "ann").await, "ann", json!({ "labels": ["a"] })).await;
    let of_b = Agent::register(world.named("b", "ann").await, "ann", json!({ "labels": ["b"] })).await;
    submit(&a, &[("Task-Id", "t")], b"from a").await;
    let task = of_a.pull().await;
    of_a.complete(&task, b"done in a").await.unwrap();
    assert_eq!(await_result(&a, "t").await.unwrap(), b"done in a");
    assert_eq!(ask(&b, "LIST", Value::Null).await["total"], 0, "it is not listed elsewhere");
    submit(&b, &[("Task-Id", "t")], b"from b").await;
    let other = of_b.pull().await;
    assert_eq!((task.payload(), other.payload()), (&b"from a"[..], &b"from b"[..]));
    assert_ne!(task.headers().get_str("Task-Complete"), other.headers().get_str("Task-Complete"));
    // A lease of one account is none in the other.
    let stolen = Agent { client: world.user("a").await, card: Value::Null };
    assert_eq!(stolen.complete(&other, b"stolen").await, Err(30409));
    submit(&b, &[("Task-Id", "u")], b"waits").await;
    of_b.complete(&other, b"done in b").await.unwrap();
    assert_eq!(await_result(&b, "t").await.unwrap(), b"done in b");

    for (client, total) in [(&a, 1), (&b, 2)] {
        assert_eq!(ask(client, "LIST", Value::Null).await["total"], total);
        let agents = ask(client, "AGENT.LIST", Value::Null).await;
        assert_eq!((&agents["total"], &agents["online"]), (&json!(1), &json!(1)));
        // One micro service each.
        let inbox = client.new_inbox();
        let mut services = client.subscribe(&inbox).unwrap();
        client.publish_message(b"$SRV.PING.tasks", inbox.as_bytes(), b"", b"").unwrap();
        services.next().await.unwrap();
        ask(client, "LIST", Value::Null).await;
        assert!(services.try_next().is_none());
    }
    while let Some(event) = events.try_next() {
        assert!(!String::from_utf8_lossy(event.payload()).contains("labels\":[\"a\"]"));
        assert!(
            event.subject_str().ends_with(".t")
                || event.subject_str().ends_with(".u")
                || event.subject_str().ends_with(".ann")
        );
    }
    c.flush().await.unwrap();
    assert!(elsewhere.try_next().is_none(), "nothing of it is heard elsewhere");

    // In monitoring neither, once it has been told. The account that is done last is told last.
    let completed = |page: &str, account: &str| {
        let wanted = [format!("account=\"{account}\""), "phase=\"completed\"".to_owned()];
        let mut lines = page.lines().filter(|line| line.starts_with("natterjack_tasks{"));
        let line = lines.find(|line| wanted.iter().all(|label| line.contains(label)))?;
        line.rsplit(' ').next()?.parse::<u32>().ok()
    };
    let page = loop {
        let page = world.get("/metrics").await.1;
        if completed(&page, "A") == Some(1) && completed(&page, "B") == Some(1) {
            break page;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(completed(&page, "$G"), None);
    world.server.stop().await;
}

#[tokio::test]
async fn a_reload_takes_a_coordinator_away_and_gives_it_back_with_a_task_in_flight() {
    let on = accounts(&[("A", TASKS), ("B", TASKS)]);
    let mut world = Embedded::start(&on).await;
    let (a, b) = (world.user("a").await, world.user("b").await);
    let agent = Agent::register(world.named("a", "ann").await, "ann", json!({ "slots": 4 })).await;
    for id in ["one", "two", "three"] {
        submit(&a, &[("Task-Id", id)], id.as_bytes()).await;
    }
    let (one, two) = (agent.pull().await, agent.pull().await);
    agent.complete(&one, b"1").await.unwrap();

    let lines = world.reload(&accounts(&[("A", STREAMS), ("B", TASKS)])).await;
    assert!(lines.contains(&"coordinator in account \"A\" = disabled".to_owned()), "{lines:?}");
    assert_eq!(world.server.task_accounts(), ["$G", "B"]);
    assert!(is_unserved(&a).await);
    assert_eq!(world.healthz().await.0, 200, "what is not wanted is not missed");
    ask(&b, "LIST", Value::Null).await;
    // Work goes on without it; only its end must wait.
    let three = agent.pull().await;

    let lines = world.reload(&on).await;
    assert!(lines.contains(&"coordinator in account \"A\" = enabled".to_owned()), "{lines:?}");
    agent.complete(&two, b"2").await.unwrap();
    agent.complete(&three, b"3").await.unwrap();
    agent.complete(&one, b"1").await.expect("the same completion again is fine");
    for (id, result) in [("one", b"1"), ("two", b"2"), ("three", b"3")] {
        assert_eq!(await_result(&a, id).await.unwrap(), result, "{id}");
        let record = ask(&a, &format!("GET.{id}"), Value::Null).await;
        assert_eq!((&record["attempt"], &record["run"]), (&json!(1), &json!(1)), "{id}");
    }

    // The whole account goes, and its JetStream with it, and comes back.
    submit(&a, &[("Task-Id", "four")], b"4").await;
    let four = agent.pull().await;
    world.reload(&accounts(&[("B", TASKS)])).await;
    world.reload(&on).await;
    let back = Agent { client: world.user("a").await, card: agent.card.clone() };
    back.complete(&four, b"4").await.unwrap();
    assert_eq!(await_result(&back.client, "four").await.unwrap(), b"4");
    // At the top it is about `$G`.
    world.reload(&format!("coordinator: false\n{on}")).await;
    assert_eq!(world.server.task_accounts(), ["A", "B"]);
    world.server.stop().await;
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let text = Embedded::refusal(&accounts(&[("A", "coordinator: enabled")]));
    assert!(text.contains("2:7") && text.contains("add `jetstream: enabled` beside it"), "{text}");
    let text =
        Embedded::refusal(&accounts(&[("A", "jetstream: enabled, coordinator { result_subjects: [\"$JS.>\"] }")]));
    assert!(text.contains("\"$JS.>\" is no subject for results"), "{text}");
    let text = Embedded::refusal(&accounts(&[("A", "jetstream: enabled, coordinator: maybe")]));
    assert!(text.contains("Expected 'enabled' or 'disabled'"), "{text}");
    let text = Embedded::refusal(&format!("system_account: A\n{}", accounts(&[("A", TASKS)])));
    assert!(text.contains("is the server's own"), "{text}");
    let text = Embedded::refusal(&format!("jetstream: false\n{}", accounts(&[("A", TASKS)])));
    assert!(text.contains("account \"A\" keeps no streams"), "{text}");
}

/// Memory and processor time of coordinators that nobody uses. Not a check but a measurement:
/// `cargo test --release --test coordinator idle -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn idle_coordinators_cost_little() {
    const ACCOUNTS: usize = 100;
    let names: Vec<String> = (0..ACCOUNTS).map(|n| format!("A{n}")).collect();
    let with = |more: &'static str| accounts(&names.iter().map(|name| (name.as_str(), more)).collect::<Vec<_>>());
    let mut world = Embedded::start(&with(STREAMS)).await;
    let before = resident_kib();
    let begun = tokio::time::Instant::now();
    world.reload(&with(TASKS)).await;
    let started = begun.elapsed();
    let each = (resident_kib() - before) / ACCOUNTS as i64;
    let ticks = processor_ticks();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let spent = processor_ticks() - ticks;
    println!("{ACCOUNTS} coordinators: started in {started:?}, {each} KiB each, {spent} ticks (10 ms) in 10 s");
    world.server.stop().await;
}

fn resident_kib() -> i64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn processor_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
