//! What may be wrong with tasks, their agents and their coordinator.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::finding::{Finding, Severity};
use super::snapshot::Snapshot;
use super::task_snapshot::Tasks;
use crate::cli::output::text;
use crate::cli::table::age;
use crate::coordinator::labels::{Labels, Requirement};
use crate::types::Timestamp;

use Severity::{Problem, Warning};

/// A cron's task is submitted within a second of its time, a question is answered within minutes, or something is wrong.
const LATE: Duration = Duration::from_secs(5);
const UNANSWERED: Duration = Duration::from_secs(60);

pub fn all(seen: &Snapshot, found: &mut Vec<Finding>) {
    match &seen.tasks {
        Some(tasks) => {
            if let Some(agents) = &tasks.agents {
                unservable(tasks, agents, found);
                offline(agents, found);
            }
            stalled(tasks, found);
            paused(tasks, found);
            full(tasks, found);
            letters(tasks, found);
            let now = Timestamp::now();
            crons(tasks, now, found);
            questions(tasks, now, found);
        }
        None => coordinator(seen, found),
    }
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or(0)
}

/// Tasks are stored and nobody hands them out.
fn coordinator(seen: &Snapshot, found: &mut Vec<Finding>) {
    let stored = seen.streams.iter().find(|stream| text(&stream["config"], "name") == "KV_TASK");
    if stored.is_some() {
        let text = "the bucket TASK holds tasks, but no coordinator answers on $TASK.API: nothing is handed out, retried or expired.";
        let advice = "Start it: natterjack without --no-coordinator, or natterjack coordinator --server URL beside a nats-server. Its \
                      log, or /healthz, says why it is down.";
        found.push(Finding::new(Problem, "no-coordinator", "tasks", text, advice));
    }
}

fn serves(agent: &Value, queue: &str) -> bool {
    let queues = agent["queues"].as_array().into_iter().flatten().filter_map(Value::as_str);
    queues.into_iter().any(|served| served == queue || served == "*")
}

fn is_online(agent: &&Value) -> bool {
    text(agent, "status") == "online"
}

/// Queued tasks that no agent which is there may have, by queue and what they require.
fn unservable(tasks: &Tasks, agents: &[Value], found: &mut Vec<Finding>) {
    let mut waiting: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for task in tasks.waiting.iter().filter(|task| text(task, "phase") == "queued" && text(task, "mode") != "pull") {
        if text(task, "mode") != "service" {
            waiting.entry((text(task, "queue"), text(task, "requires"))).or_default().push(text(task, "id"));
        }
    }
    for ((queue, requires), ids) in waiting {
        let Ok(requirement) = Requirement::parse(requires) else { continue };
        // Seats in councils are not on the cards.
        if requires.contains("council") {
            continue;
        }
        let serving: Vec<&Value> = agents.iter().filter(|agent| serves(agent, queue)).collect();
        let able = |agent: &&&Value| {
            let labels: Labels = serde_json::from_value(agent["labels"].clone()).unwrap_or_default();
            requirement.is_met_by(&labels)
        };
        let able: Vec<&&Value> = serving.iter().filter(able).collect();
        if able.iter().any(|agent| is_online(agent)) {
            continue;
        }
        let why = match (serving.len(), able.len()) {
            (0, _) => format!("no agent serves queue {queue}"),
            (served, 0) => format!("none of the {served} agents of queue {queue} has the labels {requires}"),
            (_, able) => format!("all {able} agents that may are offline or draining"),
        };
        let (count, last) = (ids.len(), ids.first().copied().unwrap_or_default());
        let text = format!("{count} tasks wait and nobody can run them: {why}.");
        let advice = format!("Start an agent for them; natterjack task explain {last} says it agent by agent.");
        found.push(Finding::new(Problem, "nobody-can-run", format!("queue {queue}"), text, advice));
    }
}

/// Agents that are gone and still have tasks.
fn offline(agents: &[Value], found: &mut Vec<Finding>) {
    let holds = |agent: &&Value| text(agent, "status") == "offline" && number(agent, "in_flight") > 0;
    for agent in agents.iter().filter(holds) {
        let id = text(agent, "id");
        let text = format!(
            "it is offline and has {} tasks: they wait for the end of their leases.",
            number(agent, "in_flight")
        );
        let advice = format!("If it does not come back: natterjack agent rm {id} gives them to others at once.");
        found.push(Finding::new(Warning, "agent-offline", format!("agent {id}"), text, advice));
    }
}

fn paused(tasks: &Tasks, found: &mut Vec<Finding>) {
    for queue in tasks.queues.iter().filter(|queue| queue.get("paused").is_some_and(|paused| paused != "no")) {
        let (name, open) = (text(queue, "queue"), number(queue, "open"));
        if open > number(queue, "running") {
            let text = format!("it is paused, and {} tasks wait in it.", open - number(queue, "running"));
            let advice = format!("natterjack queue resume {name}, when what it was paused for is over.");
            found.push(Finding::new(Warning, "paused", format!("queue {name}"), text, advice));
        }
    }
}

/// Agents that are there and do not fetch what they get.
fn stalled(tasks: &Tasks, found: &mut Vec<Finding>) {
    for (agent, task) in &tasks.stalled {
        let text =
            format!("it did not fetch a task it was given, and gets nothing until it pulls; {task} waits meanwhile.");
        let advice = format!(
            "See whether it hangs, and what it pulls from: natterjack agent info {agent} and natterjack task explain {task}."
        );
        found.push(Finding::new(Warning, "agent-stalled", format!("agent {agent}"), text, advice));
    }
}

/// Queues that take no more tasks.
fn full(tasks: &Tasks, found: &mut Vec<Finding>) {
    for queue in &tasks.queues {
        let (name, open, most) = (text(queue, "queue"), number(queue, "open"), number(queue, "max_queued"));
        if most > 0 && open >= most {
            let text =
                format!("it is full: {open} tasks are open of {most} that it takes, and new ones are refused (30429).");
            let advice = format!(
                "Start more agents for it, or let it take more: natterjack queue put {name} --keep --max-queued N."
            );
            found.push(Finding::new(Warning, "queue-full", format!("queue {name}"), text, advice));
        }
    }
}

/// Crons whose time has come and whose task is not submitted.
fn crons(tasks: &Tasks, now: Timestamp, found: &mut Vec<Finding>) {
    for cron in &tasks.crons {
        let Some(next) = Timestamp::parse_rfc3339(text(cron, "next")) else { continue };
        if next >= now || now.since(next) < LATE {
            continue;
        }
        let name = text(cron, "cron");
        let queue = cron["headers"]["Task-Queue"].as_str().unwrap_or("default");
        let text = format!("its task was due {} ago and is not submitted; it is tried every second.", age(next, now));
        let advice = format!(
            "Its queue takes no tasks: natterjack queue info {queue} shows whether it is full or paused with --refuse."
        );
        found.push(Finding::new(Warning, "cron-late", format!("cron {name}"), text, advice));
    }
}

/// Agents' questions that nobody answers.
fn questions(tasks: &Tasks, now: Timestamp, found: &mut Vec<Finding>) {
    let asked = |task: &Value| Timestamp::parse_rfc3339(text(task, "updated")).unwrap_or(now);
    let mut waiting: Vec<&Value> = tasks.parked.iter().filter(|task| now.since(asked(task)) >= UNANSWERED).collect();
    waiting.sort_by_key(|task| asked(task));
    let Some(oldest) = waiting.first() else { return };
    let (id, since, count) = (text(oldest, "id"), age(asked(oldest), now), waiting.len());
    let text = format!("{count} tasks wait for answers that nobody gives; {id} has been waiting for {since}.");
    let advice = format!(
        "natterjack task get {id} shows its question, natterjack task answer {id} answers it, natterjack task ls --state input-required \
         (or auth-required) lists them."
    );
    found.push(Finding::new(Warning, "question-waits", "tasks", text, advice));
}

fn letters(tasks: &Tasks, found: &mut Vec<Finding>) {
    let mut by_queue: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for letter in &tasks.letters {
        by_queue.entry(text(letter, "queue")).or_insert((0, text(letter, "reason"))).0 += 1;
    }
    let listed = tasks.letters.len() as u64;
    for (queue, (count, reason)) in by_queue {
        let more = if tasks.letters_total > listed { " or more" } else { "" };
        let text = format!("{count}{more} tasks were given up; the last: {reason}.");
        let advice =
            format!("natterjack dlq ls {queue} shows them, natterjack dlq requeue {queue} gives them another run.");
        found.push(Finding::new(Warning, "dead-letters", format!("queue {queue}"), text, advice));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(tasks: Tasks, expected: &[(&str, &str)]) {
        let mut found = Vec::new();
        all(&Snapshot { tasks: Some(tasks), ..Snapshot::default() }, &mut found);
        let found: Vec<(&str, &str)> = found.iter().map(|finding| (finding.check, finding.text.as_str())).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((check, text), (expected, part)) in found.iter().zip(expected) {
            assert!(check == expected && text.contains(part), "{found:?}");
        }
    }

    #[test]
    fn what_stands_still_is_seen() {
        let ago = |seconds| (Timestamp::now() - Duration::from_secs(seconds)).to_rfc3339();
        let queue = |open: u64| json!({"queue": "q", "open": open, "max_queued": 3});
        check(Tasks { queues: vec![queue(2)], ..Tasks::default() }, &[]);
        check(Tasks { queues: vec![queue(3)], ..Tasks::default() }, &[("queue-full", "3 tasks are open of 3")]);
        let cron = |seconds| json!({"cron": "c", "next": ago(seconds), "headers": {"Task-Queue": "q"}});
        check(Tasks { crons: vec![cron(1), json!({"cron": "once"})], ..Tasks::default() }, &[]);
        check(Tasks { crons: vec![cron(90)], ..Tasks::default() }, &[("cron-late", "due 1m ago")]);
        let asking = |seconds| json!({"id": "t", "updated": ago(seconds)});
        check(Tasks { parked: vec![asking(5)], ..Tasks::default() }, &[]);
        let parked = vec![asking(70), asking(7_300)];
        check(
            Tasks { parked, ..Tasks::default() },
            &[("question-waits", "2 tasks wait for answers that nobody gives; t has been waiting for 2h")],
        );
        let stalled = vec![("ada".to_owned(), "t".to_owned())];
        check(Tasks { stalled, ..Tasks::default() }, &[("agent-stalled", "t waits meanwhile")]);
        let agent =
            |status: &str, in_flight: u64| Some(vec![json!({"id": "ada", "status": status, "in_flight": in_flight})]);
        check(Tasks { agents: agent("offline", 0), ..Tasks::default() }, &[]);
        check(Tasks { agents: agent("online", 2), ..Tasks::default() }, &[]);
        check(
            Tasks { agents: agent("offline", 2), ..Tasks::default() },
            &[("agent-offline", "it is offline and has 2 tasks")],
        );
    }

    #[test]
    fn agents_that_could_not_be_read_are_not_missing() {
        let waiting = vec![json!({"id": "t", "queue": "q", "phase": "queued"})];
        check(Tasks { waiting: waiting.clone(), ..Tasks::default() }, &[]);
        check(
            Tasks { waiting, agents: Some(vec![]), ..Tasks::default() },
            &[("nobody-can-run", "no agent serves queue q")],
        );
    }
}
