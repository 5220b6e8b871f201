//! What the task coordinator tells of its queues, agents and tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::snapshot::Snapshot;
use crate::cli::connection::Connection;
use crate::cli::output::{list, text};
use crate::cli::paging::Paged;
use crate::client::ClientError;

const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Tasks and letters beyond these are not read.
const TASKS_MAX: usize = 100_000;
/// So many queues are asked why their oldest task waits, and so many agents are told of.
const QUEUES_EXPLAINED: usize = 20;
const AGENTS_EXPLAINED: usize = 1000;

/// What the coordinator tells; what it would not tell is empty.
#[derive(Debug, Default)]
pub struct Tasks {
    pub queues: Vec<Value>,
    /// `None` when they could not be read.
    pub agents: Option<Vec<Value>>,
    /// Tasks that are submitted, the newest first.
    pub waiting: Vec<Value>,
    /// Tasks whose agents have asked something.
    pub parked: Vec<Value>,
    pub letters: Vec<Value>,
    pub letters_total: u64,
    pub crons: Vec<Value>,
    /// Agents that let an assignment lie and get nothing until they pull, with a task that waits.
    pub stalled: Vec<(String, String)>,
}

/// Asks the coordinator; `None` when there is none.
pub async fn take(connection: &Connection, snapshot: &mut Snapshot) -> Option<Tasks> {
    let client = connection.client();
    match client.request("$TASK.API.QUEUE.LIST", br#"{"limit":1}"#, ANSWER_DEADLINE).await {
        Ok(answer) if answer.is_no_responders() => return None,
        Err(ClientError::NoResponders { .. }) => return None,
        Err(error) => {
            // Whether somebody is there is not known.
            snapshot.unread("tasks", error);
            return Some(Tasks::default());
        }
        Ok(_) => {}
    }
    let mut read = async |endpoint: &str, field: &'static str, id: &'static str, filter: Value| {
        let pages = Paged { endpoint, field, id };
        match pages.read(connection, &filter, Some(TASKS_MAX)).await {
            Ok(answer) => {
                if let Some(left) = answer["left"].as_u64().filter(|left| *left > 0) {
                    snapshot.unread(&format!("{field} ({endpoint})"), format!("{left} beyond the first {TASKS_MAX}"));
                }
                Some(answer)
            }
            Err(failure) => {
                snapshot.unread(&format!("{field} ({endpoint})"), failure.text);
                None
            }
        }
    };
    let of = |answer: &Option<Value>, field: &str| answer.as_ref().map(|answer| list(answer, field).to_vec());
    let queues = read("QUEUE.LIST", "queues", "queue", json!({})).await;
    let agents = read("AGENT.LIST", "agents", "id", json!({})).await;
    let waiting = read("LIST", "tasks", "id", json!({ "state": "submitted" })).await;
    let asking = read("LIST", "tasks", "id", json!({ "state": "input-required" })).await;
    let unauthorized = read("LIST", "tasks", "id", json!({ "state": "auth-required" })).await;
    let letters = read("DLQ.LIST", "letters", "id", json!({})).await;
    let crons = read("CRON.LIST", "crons", "cron", json!({})).await;
    let mut parked = of(&asking, "tasks").unwrap_or_default();
    parked.extend(of(&unauthorized, "tasks").unwrap_or_default());
    let waiting = of(&waiting, "tasks").unwrap_or_default();
    Some(Tasks {
        queues: of(&queues, "queues").unwrap_or_default(),
        agents: of(&agents, "agents"),
        stalled: stalled(connection, &waiting).await,
        waiting,
        parked,
        letters_total: letters.as_ref().and_then(|letters| letters["total"].as_u64()).unwrap_or(0),
        letters: of(&letters, "letters").unwrap_or_default(),
        crons: of(&crons, "crons").unwrap_or_default(),
    })
}

/// Who let an assignment lie, as EXPLAIN tells of the oldest queued task of each queue.
async fn stalled(connection: &Connection, waiting: &[Value]) -> Vec<(String, String)> {
    let mut oldest: BTreeMap<&str, &str> = BTreeMap::new();
    for task in waiting.iter().filter(|task| text(task, "phase") == "queued") {
        oldest.insert(text(task, "queue"), text(task, "id"));
    }
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let request = json!({ "agents": AGENTS_EXPLAINED }).to_string();
    for id in oldest.into_values().take(QUEUES_EXPLAINED) {
        // A task that is gone or runs by now needs no explanation.
        let Ok(answer) = connection.call(&format!("EXPLAIN.{id}"), b"", request.as_bytes()).await else { continue };
        for agent in list(&answer, "agents") {
            if list(agent, "codes").iter().any(|code| code == "stalled") {
                found.entry(text(agent, "agent").to_owned()).or_insert_with(|| id.to_owned());
            }
        }
    }
    found.into_iter().collect()
}
