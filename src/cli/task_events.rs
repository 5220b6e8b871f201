//! `natterjack task events`: what happens to tasks, agents, queues and councils, as it happens.

use clap::Args;
use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::{Failure, UNREACHABLE};
use super::output::{remark, say, text};
use super::table::printable;
use super::task::state;
use crate::client::ClientError;

/// Which events are shown.
#[derive(Debug, Args)]
pub struct Events {
    /// Only those of this queue and its tasks.
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Only those of this task.
    #[arg(long, value_name = "ID", conflicts_with_all = ["queue", "agent"])]
    task: Option<String>,
    /// Only those of this agent.
    #[arg(long, value_name = "ID", conflicts_with = "queue")]
    agent: Option<String>,
    /// End after so many.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Events {
    /// Prints a line for each event until it is stopped. Nobody keeps events: those of before are not told.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn follow(&self, connection: &Connection, json: bool) -> Result<(), Failure> {
        let subject = match (&self.task, &self.agent) {
            (Some(task), _) => format!("$TASK.E.TASK.{task}"),
            (None, Some(agent)) => format!("$TASK.E.AGENT.{agent}"),
            (None, None) => "$TASK.E.>".to_owned(),
        };
        let bad = |error: ClientError| match error {
            ClientError::BadSubject { .. } => {
                Failure::new(2, "An id is one word of letters, digits, - and _, at most 64 of them.")
            }
            error => connection.failure(&error),
        };
        let mut events = connection.client().subscribe(&subject).map_err(bad)?;
        connection.client().flush().await.map_err(bad)?;
        if !json {
            remark("Events are shown as they come; Ctrl-C ends it.");
        }
        let mut shown = 0;
        while let Some(message) = events.next().await {
            let event: Value = serde_json::from_slice(message.payload()).unwrap_or_default();
            if !self.wants(message.subject_str(), &event) {
                continue;
            }
            if json {
                say(&json!({ "subject": message.subject_str(), "event": event }).to_string());
            } else {
                say(&printable(&line(message.subject_str(), &event)));
            }
            shown += 1;
            if self.count.is_some_and(|count| shown >= count) {
                return Ok(());
            }
        }
        Err(Failure::new(UNREACHABLE, "The connection to the server ended, so there is nothing more to tell."))
    }

    fn wants(&self, subject: &str, event: &Value) -> bool {
        let Some(queue) = &self.queue else { return true };
        text(event, "queue") == queue || subject.strip_prefix("$TASK.E.QUEUE.") == Some(queue)
    }
}

/// `12:03:04.250Z task hello-1: submitted (queued), queue default`
fn line(subject: &str, event: &Value) -> String {
    let mut tokens = subject.trim_start_matches("$TASK.E.").splitn(2, '.');
    let (kind, id) = (tokens.next().unwrap_or_default().to_ascii_lowercase(), tokens.next().unwrap_or_default());
    let time = text(event, "time");
    let mut what = state(event);
    for field in ["event", "status"] {
        if what.is_empty() {
            text(event, field).clone_into(&mut what);
        }
    }
    if kind == "queue" && text(event, "id").is_empty() {
        "settings changed".clone_into(&mut what);
    }
    for (field, before) in
        [("id", "task "), ("queue", "queue "), ("agent", "agent "), ("question", ""), ("error", ""), ("reason", "")]
    {
        let value = text(event, field);
        if !value.is_empty() && value != id {
            what.push_str(&format!(", {before}{value}"));
        }
    }
    format!("{time} {kind} {id}: {what}").trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = json!({
            "id": "t", "queue": "q", "state": "failed", "phase": "dead", "agent": "ada", "error": "it broke", "time": "now",
        });
        assert_eq!(line("$TASK.E.TASK.t", &event), "now task t: failed (dead), queue q, agent ada, it broke");
        assert_eq!(line("$TASK.E.QUEUE.q", &event), "now queue q: failed (dead), task t, agent ada, it broke");
        let event = json!({ "agent": "ada", "event": "registered", "time": "now" });
        assert_eq!(line("$TASK.E.AGENT.ada", &event), "now agent ada: registered");
        assert_eq!(line("$TASK.E.QUEUE.q", &json!({ "queue": "q" })), "queue q: settings changed");
    }
}
