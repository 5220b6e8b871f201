//! `natterjack queue …`: the lines that tasks wait in.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::confirm::Confirm;
use super::connection::{ConnectFlags, Connection};
use super::failure::{EXIT_CODES, Failure};
use super::output::{self, Listed, Watch, list, number, show, text};
use super::paging::Paged;
use super::table::{self, Table};

/// Set up queues, see what waits in them, stop and empty them.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct QueueCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List queues with what is open and running in them.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        watch: Watch,
    },
    /// Show a queue's settings.
    Info { queue: String },
    /// Set a queue up; what is not named gets its default, or stays with --keep.
    Put(Box<Put>),
    /// Hand out nothing of a queue; what runs goes on.
    Pause {
        queue: String,
        /// Refuse new tasks as well.
        #[arg(long)]
        refuse: bool,
    },
    /// Hand tasks out again.
    Resume { queue: String },
    /// Cancel all tasks of a queue that nobody works on.
    Purge {
        queue: String,
        /// Why, for whoever looks at them later.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        confirm: Confirm,
    },
}

/// How tasks reach who does the work.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Each is assigned to a registered agent.
    Inbox,
    /// Workers that know nothing of tasks pull from one consumer, and an ack completes.
    Pull,
    /// Requests to a micro service.
    Service,
    /// A consumer of your own, named with --adopt: tasks are the messages that died there.
    Adopted,
}

#[derive(Debug, Args)]
struct Put {
    queue: String,
    /// Leave the settings that are not named as they are.
    #[arg(long)]
    keep: bool,
    /// How tasks reach who does the work.
    #[arg(long)]
    mode: Option<Mode>,
    /// The consumer whose dead messages become this queue's dead letters; it makes the mode adopted.
    #[arg(long, value_name = "STREAM/CONSUMER", value_parser = adopt)]
    adopt: Option<Value>,
    /// Attempts before a task is dead.
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// Pauses before the second attempt, the third and so on; the last repeats.
    #[arg(long, value_name = "DURATIONS", value_delimiter = ',', value_parser = table::duration)]
    backoff: Vec<Duration>,
    /// How long a lease lasts without a sign of life.
    #[arg(long, value_name = "DURATION", value_parser = table::duration)]
    lease: Option<Duration>,
    /// Tasks assigned or running at once; 0 is no limit.
    #[arg(long, value_name = "N")]
    max_running: Option<u32>,
    /// Of these, tasks of one key; 0 is no limit.
    #[arg(long, value_name = "N")]
    max_per_key: Option<u32>,
    /// Tasks handed out a second; 0 is no limit.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Tasks not finished at once; 0 is no limit.
    #[arg(long, value_name = "N")]
    max_queued: Option<u32>,
    /// The time of waiting that a level of priority is worth; 0 is priority above all.
    #[arg(long, value_name = "DURATION", value_parser = table::duration)]
    ageing: Option<Duration>,
    /// How long a finished task is kept.
    #[arg(long, value_name = "DURATION", value_parser = table::duration)]
    retention: Option<Duration>,
    /// Any setting by its name in the API: --set max_running=3.
    #[arg(long = "set", value_name = "NAME=JSON", value_parser = output::setting)]
    more: Vec<(String, Value)>,
}

/// What a queue tells of itself that is none of its settings.
const NOT_SETTINGS: [&str; 9] =
    ["type", "queue", "open", "running", "paused", "stream", "consumer", "services", "adopted"];

impl QueueCommand {
    /// # Errors
    /// What to tell the caller.
    pub async fn run(self) -> Result<(), Failure> {
        let json = self.connect.json;
        let connection = Connection::open(&self.connect).await?;
        match self.action {
            Action::Ls { watch } => {
                let listed = Listed { field: "queues", id: "queue", restless: &[] };
                let pages = Paged { endpoint: "QUEUE.LIST", field: "queues", id: "queue" };
                let ask = async || pages.read(&connection, &json!({}), None).await;
                watch.show(json, &listed, ask, render_list).await?;
            }
            Action::Info { queue } => {
                show(&connection.call(&format!("QUEUE.INFO.{queue}"), b"", b"").await?, json, output::record);
            }
            Action::Put(put) => {
                let mut settings = put.settings();
                if put.keep {
                    let now = connection.call(&format!("QUEUE.INFO.{}", put.queue), b"", b"").await?;
                    settings = merged(now, settings);
                }
                let body = settings.to_string();
                let answer = connection.call(&format!("QUEUE.PUT.{}", put.queue), b"", body.as_bytes()).await?;
                show(&answer, json, output::record);
            }
            Action::Pause { queue, refuse } => {
                let body = if refuse { r#"{"refuse":true}"# } else { "{}" };
                let answer = connection.call(&format!("QUEUE.PAUSE.{queue}"), b"", body.as_bytes()).await?;
                let new = if refuse { "new tasks are refused" } else { "new tasks wait" };
                show(&answer, json, |answer| {
                    let running = answer["running"].as_u64().unwrap_or(0);
                    format!("Queue {queue} is paused: {new}, {running} running go on.")
                });
            }
            Action::Resume { queue } => {
                let answer = connection.call(&format!("QUEUE.RESUME.{queue}"), b"", b"").await?;
                show(&answer, json, |_| format!("Queue {queue} hands out tasks again."));
            }
            Action::Purge { queue, reason, confirm } => {
                let info = connection.call(&format!("QUEUE.INFO.{queue}"), b"", b"").await?;
                let waiting = waiting(&info);
                confirm.ask(&format!("Cancel the {waiting} tasks that wait in queue {queue}?"))?;
                let body = output::without_nulls(json!({ "reason": reason })).to_string();
                let endpoint = format!("QUEUE.PURGE.{queue}");
                let purge = connection.call_long(&endpoint, body.as_bytes());
                let left = async || {
                    let info = connection.call(&format!("QUEUE.INFO.{queue}"), b"", b"").await?;
                    Ok(self::waiting(&info))
                };
                let answer = super::connection::with_progress("canceled", waiting, left, purge).await?;
                show(&answer, json, |answer| {
                    format!("{} tasks of queue {queue} are canceled.", number(answer, "purged"))
                });
            }
        }
        connection.close().await;
        Ok(())
    }
}

/// Tasks of a queue that nobody works on.
fn waiting(info: &Value) -> u64 {
    let number = |field: &str| info[field].as_u64().unwrap_or(0);
    number("open").saturating_sub(number("running"))
}

impl Put {
    /// What was named.
    fn settings(&self) -> Value {
        let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
        let pauses: Vec<f64> = self.backoff.iter().map(Duration::as_secs_f64).collect();
        let mode = self.mode.and_then(|mode| Some(mode.to_possible_value()?.get_name().to_owned()));
        let mut settings = output::without_nulls(json!({
            "mode": mode.or_else(|| self.adopt.as_ref().map(|_| "adopted".to_owned())),
            "adopt": self.adopt,
            "max_attempts": self.max_attempts,
            "backoff": (!pauses.is_empty()).then_some(pauses),
            "lease_s": seconds(self.lease),
            "max_running": self.max_running,
            "max_per_key": self.max_per_key,
            "rate": self.rate,
            "max_queued": self.max_queued,
            "ageing_s": seconds(self.ageing),
            "retention_s": seconds(self.retention),
        }));
        for (name, value) in &self.more {
            settings[name] = value.clone();
        }
        settings
    }
}

/// The settings a queue has, but for those that are named.
fn merged(mut now: Value, named: Value) -> Value {
    if let (Some(now), Value::Object(named)) = (now.as_object_mut(), named) {
        now.retain(|name, _| !NOT_SETTINGS.contains(&name.as_str()));
        now.extend(named);
    }
    now
}

/// `STREAM/CONSUMER`, as the API has it.
fn adopt(text: &str) -> Result<Value, String> {
    match text.split_once('/') {
        Some((stream, consumer)) if !stream.is_empty() && !consumer.is_empty() => {
            Ok(json!({ "stream": stream, "consumer": consumer }))
        }
        _ => Err("a consumer to adopt is STREAM/CONSUMER".to_owned()),
    }
}

fn render_list(found: &Value) -> String {
    let queues = list(found, "queues");
    if queues.is_empty() {
        return "No queues. The first task makes its own; `natterjack queue put NAME` sets one up.".to_owned();
    }
    let mut table = Table::new(&["QUEUE", "MODE", "OPEN", "RUNNING", "PAUSED", "ATTEMPTS", "LEASE", "LIMITS"]);
    for queue in queues {
        table.row(vec![
            text(queue, "queue").to_owned(),
            text(queue, "mode").to_owned(),
            number(queue, "open"),
            number(queue, "running"),
            text(queue, "paused").to_owned(),
            number(queue, "max_attempts"),
            format!("{}s", queue["lease_s"].as_f64().unwrap_or(0.0)),
            limits(queue),
        ]);
    }
    table.fitted()
}

/// `running 3, rate 2.5`: the limits that are set.
fn limits(queue: &Value) -> String {
    let limits = [("max_running", "running"), ("max_per_key", "per key"), ("rate", "rate"), ("max_queued", "open")];
    let set = limits.iter().filter(|(field, _)| queue[*field].as_f64().is_some_and(|limit| limit > 0.0));
    set.map(|(field, name)| format!("{name} {}", number(queue, field))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_not_named() {
        let now =
            json!({"type": "t", "queue": "q", "open": 3, "rate": 2.0, "mode": "inbox", "services": [], "adopted": {}});
        assert_eq!(merged(now, json!({"rate": 5.0})), json!({"rate": 5.0, "mode": "inbox"}));
    }

    #[test]
    fn consumers_to_adopt_are_two_names() {
        assert_eq!(adopt("TASKS/workers"), Ok(json!({"stream": "TASKS", "consumer": "workers"})));
        assert!(adopt("TASKS").is_err() && adopt("/workers").is_err() && adopt("TASKS/").is_err());
    }
}
