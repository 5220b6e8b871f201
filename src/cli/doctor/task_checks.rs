//! What may be wrong with tasks, their agents and their coordinator.

use std::collections::BTreeMap;

use serde_json::Value;

use super::finding::{Finding, Severity};
use super::snapshot::{Snapshot, Tasks};
use crate::cli::output::text;
use crate::coordinator::labels::{Labels, Requirement};

use Severity::{Problem, Warning};

pub fn all(seen: &Snapshot, found: &mut Vec<Finding>) {
    match &seen.tasks {
        Some(tasks) => {
            unservable(tasks, found);
            agents(tasks, found);
            paused(tasks, found);
            letters(tasks, found);
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
fn unservable(tasks: &Tasks, found: &mut Vec<Finding>) {
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
        let serving: Vec<&Value> = tasks.agents.iter().filter(|agent| serves(agent, queue)).collect();
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
fn agents(tasks: &Tasks, found: &mut Vec<Finding>) {
    for agent in
        tasks.agents.iter().filter(|agent| text(agent, "status") == "offline" && number(agent, "in_flight") > 0)
    {
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
