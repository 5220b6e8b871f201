//! `natterjack agent …`: who does the work.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::connection::{ConnectFlags, Connection};
use super::failure::{EXIT_CODES, Failure};
use super::output::{self, Listed, Watch, list, number, show, text, without_nulls};
use super::paging::{self, Paged};
use super::table::{self, Table};
use crate::types::Timestamp;

/// See the agents that are registered, register one, send them home.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), arg_required_else_help = true)]
pub struct AgentCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
Examples, the first three of an agent that is a shell script:
  natterjack agent register ada --labels lang=rust --slots 2
  nats consumer next KV_TASK agent_ada
  natterjack task complete review-7 --lease LEASE 'looks good'
  natterjack agent ls --status online --watch";

#[derive(Debug, Subcommand)]
enum Action {
    /// List agents with their labels and load, by name.
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that are online, draining or offline.
        #[arg(long)]
        status: Option<String>,
        /// At most so many; all without it.
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// Only those behind this one, to page on.
        #[arg(long, value_name = "AGENT")]
        after: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one agent and the tasks it has.
    Info { agent: String },
    /// Register an agent, or register it anew with its resume token; prints where its tasks come and go.
    Register(Box<Register>),
    /// Give an agent nothing new; it ends what it has.
    Drain {
        agent: String,
        /// Take that back: it gets tasks again.
        #[arg(long)]
        undo: bool,
    },
    /// Forget an agent; what it has goes to others.
    Rm { agent: String },
}

/// What extends the leases of an agent's tasks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LeaseBy {
    /// Signs of work on each task.
    Work,
    /// That the agent is there.
    Presence,
}

#[derive(Debug, Args)]
struct Register {
    agent: String,
    /// What it can do: lang=rust,gpu,mem=32.
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    labels: Vec<String>,
    /// Tasks that it works on at once.
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Queues that it serves, or * for all; the one called default without it.
    #[arg(short, long, value_name = "QUEUES", value_delimiter = ',')]
    queues: Vec<String>,
    /// What extends its leases: signs of work on each task, or its being there.
    #[arg(long, value_name = "WHAT")]
    lease_by: Option<LeaseBy>,
    /// The name of its connection, if it is not the agent's id.
    #[arg(long, value_name = "NAME")]
    client_name: Option<String>,
    /// The token of an earlier registration: it is the same agent still, and keeps what it has.
    #[arg(long, value_name = "TOKEN")]
    resume: Option<String>,
    /// Anything else that it says of itself: --set model=small.
    #[arg(long = "set", value_name = "NAME=JSON", value_parser = output::setting)]
    more: Vec<(String, Value)>,
}

impl Register {
    fn request(&self) -> Value {
        let given = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        let lease_by = self.lease_by.and_then(|by| Some(by.to_possible_value()?.get_name().to_owned()));
        let mut request = without_nulls(json!({
            "labels": given(&self.labels),
            "slots": self.slots,
            "queues": given(&self.queues),
            "lease_by": lease_by,
            "client_name": self.client_name,
            "resume": self.resume,
        }));
        for (name, value) in &self.more {
            request[name] = value.clone();
        }
        request
    }
}

impl AgentCommand {
    /// # Errors
    /// What to tell the caller.
    pub async fn run(self) -> Result<(), Failure> {
        let json = self.connect.json;
        let connection = Connection::open(&self.connect).await?;
        match self.action {
            Action::Ls { status, limit, after, watch } => {
                let filter = without_nulls(json!({ "status": status, "after": after }));
                let listed = Listed { field: "agents", id: "id", restless: &["last_seen"] };
                let pages = Paged { endpoint: "AGENT.LIST", field: "agents", id: "id" };
                let ask = async || pages.read(&connection, &filter, limit.map(|limit| limit as usize)).await;
                watch.show(json, &listed, ask, render_list).await?;
            }
            Action::Info { agent } => {
                show(&connection.call(&format!("AGENT.INFO.{agent}"), b"", b"").await?, json, output::record);
            }
            Action::Register(register) => {
                let endpoint = format!("AGENT.REGISTER.{}", register.agent);
                let answer = connection.call(&endpoint, b"", register.request().to_string().as_bytes()).await?;
                show(&answer, json, output::record);
            }
            Action::Drain { agent, undo } => {
                let body = json!({ "drain": !undo }).to_string();
                let answer = connection.call(&format!("AGENT.DRAIN.{agent}"), b"", body.as_bytes()).await?;
                show(&answer, json, |answer| {
                    if undo {
                        return format!("Agent {agent} is {} and gets tasks as before.", text(answer, "status"));
                    }
                    let has = answer["in_flight"].as_u64().unwrap_or(0);
                    format!("Agent {agent} is {} and has {has} tasks left.", text(answer, "status"))
                });
            }
            Action::Rm { agent } => {
                let answer = connection.call(&format!("AGENT.REMOVE.{agent}"), b"", b"").await?;
                show(&answer, json, |_| format!("Agent {agent} is forgotten; what it had goes to others."));
            }
        }
        connection.close().await;
        Ok(())
    }
}

fn render_list(found: &Value) -> String {
    let agents = list(found, "agents");
    if agents.is_empty() && found["total"].as_u64().is_some_and(|total| total > 0) {
        return format!("No agents are listed. {}", counts(found));
    }
    if agents.is_empty() {
        return "No agents. An agent registers with a request to $TASK.API.AGENT.REGISTER; examples/ has one in your \
                language, and `natterjack agent register` does it by hand."
            .to_owned();
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["AGENT", "STATE", "LOAD", "DONE", "SEEN", "QUEUES", "LABELS"]);
    for agent in agents {
        let seen = Timestamp::parse_rfc3339(text(agent, "last_seen"));
        let load = format!("{}/{}", agent["in_flight"].as_u64().unwrap_or(0), agent["slots"].as_u64().unwrap_or(1));
        table.row(vec![
            text(agent, "id").to_owned(),
            text(agent, "status").to_owned(),
            load,
            number(agent, "completed"),
            seen.map(|seen| format!("{} ago", table::age(seen, now))).unwrap_or_default(),
            list(agent, "queues").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            labels(&agent["labels"]),
        ]);
    }
    table.fitted() + &paging::more(found) + &counts(found)
}

/// How many there are in all; nothing where the answer does not say.
fn counts(found: &Value) -> String {
    let Some(total) = found["total"].as_u64() else { return String::new() };
    let of = |status: &str| found[status].as_u64().unwrap_or(0);
    let (online, draining, offline) = (of("online"), of("draining"), of("offline"));
    let available = of("available");
    let agents = if total == 1 { "agent" } else { "agents" };
    format!(
        "{total} {agents}: {online} online, {draining} draining, {offline} offline; {available} with a free slot.\n"
    )
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
