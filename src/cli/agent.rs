//! `natterjack agent …`: who does the work.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::connection::{ConnectFlags, Connection};
use super::failure::{EXIT_CODES, Failure};
use super::table::{self, Table};
use super::task::{say, show, text};
use crate::types::Timestamp;

/// See the agents that are registered.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct AgentCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List agents with their labels and load.
    #[command(visible_alias = "list")]
    Ls,
}

impl AgentCommand {
    /// # Errors
    /// What to tell the caller.
    pub async fn run(self) -> Result<(), Failure> {
        let connection = Connection::open(&self.connect).await?;
        match self.action {
            Action::Ls => {
                let found = connection.call("AGENT.LIST", b"", b"").await?;
                show(&found, self.connect.json, print_agents);
            }
        }
        connection.close().await;
        Ok(())
    }
}

fn print_agents(found: &Value) {
    let agents = found["agents"].as_array().map(Vec::as_slice).unwrap_or_default();
    if agents.is_empty() {
        say("No agents. An agent registers with a request to $TASK.API.AGENT.REGISTER (see protocol.md).");
        return;
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["AGENT", "STATE", "LOAD", "DONE", "SEEN", "LABELS"]);
    for agent in agents {
        let seen = Timestamp::parse_rfc3339(text(agent, "last_seen"));
        let load = format!("{}/{}", agent["in_flight"].as_u64().unwrap_or(0), agent["slots"].as_u64().unwrap_or(1));
        table.row(vec![
            text(agent, "id").to_owned(),
            text(agent, "status").to_owned(),
            load,
            agent["completed"].as_u64().unwrap_or(0).to_string(),
            seen.map(|seen| format!("{} ago", table::age(seen, now))).unwrap_or_default(),
            labels(&agent["labels"]),
        ]);
    }
    say(table.to_string().trim_end());
}

/// `lang=rust,go gpu mem=32`, from an object or a list.
fn labels(labels: &Value) -> String {
    let one = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match labels {
        Value::Array(list) => list.iter().map(one).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => {
            let shown = fields.iter().map(|(name, value)| match value {
                Value::Bool(true) => name.clone(),
                Value::Array(values) => format!("{name}={}", values.iter().map(one).collect::<Vec<_>>().join(",")),
                value => format!("{name}={}", one(value)),
            });
            shown.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_read_as_they_are_asked_for() {
        assert_eq!(labels(&json!({"gpu": true, "lang": ["rust", "go"], "mem": 32})), "gpu lang=rust,go mem=32");
        assert_eq!(labels(&json!(["gpu", "lang=rust"])), "gpu lang=rust");
        assert_eq!(labels(&Value::Null), "");
    }
}
