//! `natterjack task …`: tasks by hand and by script, over any NATS URL.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::{ConnectFlags, Connection, api_error, refused};
use super::failure::{EXIT_CODES, Failure, REFUSED, TIMED_OUT};
use super::table::{self, Table};
use crate::types::Timestamp;
use crate::types::header::HeaderBuilder;

/// Submit tasks, follow them, and step in.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct TaskCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Hand a task to the coordinator.
    Submit(Submit),
    /// Show one task.
    Get { id: String },
    /// List tasks, the newest first.
    #[command(visible_alias = "list")]
    Ls(List),
    /// Wait until a task is finished and print its result.
    Await {
        id: String,
        /// How long to wait: 500ms, 30s, 5m, 2h.
        #[arg(long, value_name = "DURATION", value_parser = table::duration, default_value = "1h")]
        wait: Duration,
    },
    /// Cancel a task that is not finished.
    Cancel {
        id: String,
        /// Why, for whoever looks at it later.
        #[arg(long)]
        reason: Option<String>,
        /// Take it from its agent at once instead of asking the agent to stop.
        #[arg(long)]
        force: bool,
    },
    /// Give a failed or canceled task a new run.
    Requeue { id: String },
}

#[derive(Debug, Args)]
struct Submit {
    /// The task itself, opaque to the broker. `-`, or nothing with input from a pipe: read it from standard input.
    body: Option<String>,
    /// Queue to put it in.
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Idempotency key: the same id and body again is no second task.
    #[arg(long)]
    id: Option<String>,
    /// Labels an agent must have: lang=rust,gpu,mem>=16.
    #[arg(short, long, value_name = "LABELS")]
    requires: Option<String>,
    /// Labels an agent had better have.
    #[arg(long, value_name = "LABELS")]
    prefer: Option<String>,
    /// 0 (first) to 9.
    #[arg(short, long, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Tasks of one key take turns with those of other keys.
    #[arg(long)]
    key: Option<String>,
    /// When it may begin: an RFC 3339 time, or a duration from now.
    #[arg(long, value_name = "WHEN")]
    not_before: Option<String>,
    /// When it is given up: an RFC 3339 time, or a duration from now.
    #[arg(long, value_name = "WHEN")]
    deadline: Option<String>,
    /// Longest time one attempt may take.
    #[arg(long, value_name = "DURATION", value_parser = table::duration)]
    timeout: Option<Duration>,
    /// Attempts before the task counts as dead.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// Subject to publish the result on as well.
    #[arg(long, value_name = "SUBJECT")]
    result_to: Option<String>,
    /// Further headers that travel with the task.
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Wait for the result and print it.
    #[arg(short, long)]
    wait: bool,
}

#[derive(Debug, Args)]
struct List {
    /// Only tasks of this queue.
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Only tasks in this state: submitted, working, completed, failed, canceled, rejected.
    #[arg(long)]
    state: Option<String>,
    /// Only tasks of this agent.
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// At most so many.
    #[arg(short, long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// Only tasks behind this one, to page on.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

impl TaskCommand {
    /// # Errors
    /// What to tell the caller.
    pub async fn run(self) -> Result<(), Failure> {
        let json = self.connect.json;
        // Reading a body must not wait behind a connection that is not needed yet.
        let body = match &self.action {
            Action::Submit(submit) => submit.read_body()?,
            _ => Vec::new(),
        };
        let connection = Connection::open(&self.connect).await?;
        match &self.action {
            Action::Submit(task) => submit(&connection, task, &body, json).await?,
            Action::Get { id } => show(&connection.call(&format!("GET.{id}"), b"", b"").await?, json, print_record),
            Action::Ls(list) => {
                let filter = json!({
                    "queue": list.queue, "state": list.state, "agent": list.agent,
                    "limit": list.limit, "after": list.after,
                });
                let found = connection.call("LIST", b"", without_nulls(filter).to_string().as_bytes()).await?;
                show(&found, json, print_list);
            }
            Action::Await { id, wait } => await_result(&connection, id, *wait, json).await?,
            Action::Cancel { id, reason, force } => {
                let request = without_nulls(json!({"reason": reason, "force": force}));
                let answer = connection.call(&format!("CANCEL.{id}"), b"", request.to_string().as_bytes()).await?;
                show(&answer, json, |answer| say(&format!("Task {id} is {}.", state(answer))));
            }
            Action::Requeue { id } => {
                let answer = connection.call(&format!("REQUEUE.{id}"), b"", b"{}").await?;
                show(&answer, json, |answer| say(&format!("Task {id} is {} again.", state(answer))));
            }
        }
        connection.close().await;
        Ok(())
    }
}

impl Submit {
    fn read_body(&self) -> Result<Vec<u8>, Failure> {
        match self.body.as_deref() {
            Some("-") => {}
            Some(body) => return Ok(body.as_bytes().to_vec()),
            None if std::io::stdin().is_terminal() => {
                return Err(Failure::new(
                    2,
                    "What is the task? Give its body as an argument, or pipe it in:\n  \
                     natterjack task submit 'say hello'\n  cat prompt.md | natterjack task submit --queue writing",
                ));
            }
            None => {}
        }
        let mut body = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut body);
        read.map_err(|error| Failure::new(REFUSED, format!("Cannot read the task from standard input: {error}.")))?;
        Ok(body)
    }

    fn headers(&self) -> Vec<u8> {
        let text = |value: &Option<String>| value.clone();
        let ours = [
            ("Task-Id", text(&self.id)),
            ("Task-Queue", text(&self.queue)),
            ("Task-Requires", text(&self.requires)),
            ("Task-Prefer", text(&self.prefer)),
            ("Task-Priority", self.priority.map(|priority| priority.to_string())),
            ("Task-Key", text(&self.key)),
            ("Task-Not-Before", text(&self.not_before)),
            ("Task-Deadline", text(&self.deadline)),
            ("Task-Timeout", self.timeout.map(seconds)),
            ("Task-Max-Attempts", self.max_attempts.map(|attempts| attempts.to_string())),
            ("Task-Result-To", text(&self.result_to)),
        ];
        let mut builder = HeaderBuilder::new();
        let mut any = false;
        let present = ours.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        for (name, value) in present.chain(self.headers.iter().cloned()) {
            builder = builder.add(&name, value);
            any = true;
        }
        if any { builder.build() } else { Vec::new() }
    }
}

/// A duration as `Task-*` headers have it: `1.5s`.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// `NAME:VALUE` without anything that would end a header line.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME:VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || name.contains(char::is_whitespace) || text.contains(char::is_control) {
        return Err("a header is NAME:VALUE, on one line".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

async fn submit(connection: &Connection, task: &Submit, body: &[u8], json: bool) -> Result<(), Failure> {
    let answer = connection.call("SUBMIT", &task.headers(), body).await?;
    let id = text(&answer, "id");
    if task.wait {
        return await_result(connection, id, Duration::from_secs(7 * 86_400), json).await;
    }
    show(&answer, json, |answer| {
        let known = if answer["duplicate"] == true { "was submitted before" } else { "submitted" };
        say(&format!("Task {id} {known}: {}.", state(answer)));
        if std::io::stdout().is_terminal() {
            say(&format!("Its result: natterjack task await {id}"));
        }
    });
    Ok(())
}

/// One long poll of the coordinator lasts at most this long; a longer wait is several.
const POLL: Duration = Duration::from_secs(30);
/// What an answer may take beyond its poll.
const POLL_SLACK: Duration = Duration::from_secs(10);

/// Prints the result's bytes as they are.
async fn await_result(connection: &Connection, id: &str, wait: Duration, json: bool) -> Result<(), Failure> {
    let started = Timestamp::now();
    loop {
        let left = wait.saturating_sub(Timestamp::now().since(started));
        let poll = left.min(POLL);
        let headers = HeaderBuilder::new().add("Task-Wait", seconds(poll)).build();
        let answer = connection.ask(&format!("AWAIT.{id}"), &headers, b"", poll + POLL_SLACK).await?;
        let Some(error) = api_error(&answer) else {
            if json {
                let result = String::from_utf8_lossy(answer.payload());
                say(&json!({"id": id, "state": "completed", "result": result}).to_string());
            } else {
                print_result(answer.payload());
            }
            return Ok(());
        };
        let failure = refused(&error);
        if failure.code != TIMED_OUT || left <= poll {
            if json {
                say(String::from_utf8_lossy(answer.payload()).trim_end());
            }
            return Err(failure);
        }
    }
}

fn print_result(result: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(result);
    if stdout.is_terminal() && !result.ends_with(b"\n") {
        let _ = stdout.write_all(b"\n");
    }
    let _ = stdout.flush();
}

/// A line on standard output; a reader that has hung up is no error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// JSON for scripts, or `print` for people.
pub fn show(answer: &Value, json: bool, print: impl FnOnce(&Value)) {
    if json {
        say(&serde_json::to_string_pretty(answer).expect("a JSON value prints"));
    } else {
        print(answer);
    }
}

fn without_nulls(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

/// A field as text: strings bare, everything else as JSON, absent ones empty.
pub fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn state(record: &Value) -> String {
    match (text(record, "state"), text(record, "phase")) {
        (state, "") => state.to_owned(),
        (state, phase) if state == phase => state.to_owned(),
        (state, phase) => format!("{state} ({phase})"),
    }
}

/// What people look for first; the rest follows by name.
const FIRST_FIELDS: [&str; 11] =
    ["id", "state", "phase", "reason", "fault", "queue", "agent", "attempt", "max_attempts", "created", "updated"];

/// Field by field, without what is empty.
fn print_record(record: &Value) {
    let mut fields: Vec<(&String, String)> = record
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| *name != "type" && !is_empty(value))
        .map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    fields.sort_by_key(|(name, _)| FIRST_FIELDS.iter().position(|first| first == name).unwrap_or(FIRST_FIELDS.len()));
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in fields {
        say(&format!("{name:>width$}  {}", table::printable(&value)));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn print_list(found: &Value) {
    let now = Timestamp::now();
    let tasks = found["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
    if tasks.is_empty() {
        say("No tasks. Submit one: natterjack task submit 'say hello'");
        return;
    }
    let mut table = Table::new(&["ID", "STATE", "QUEUE", "ATTEMPT", "AGENT", "AGE"]);
    for task in tasks {
        let created = Timestamp::parse_rfc3339(text(task, "created"));
        table.row(vec![
            text(task, "id").to_owned(),
            state(task),
            text(task, "queue").to_owned(),
            task["attempt"].as_u64().map(|attempt| attempt.to_string()).unwrap_or_default(),
            text(task, "agent").to_owned(),
            created.map(|created| table::age(created, now)).unwrap_or_default(),
        ]);
    }
    say(table.to_string().trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_one_line_each() {
        assert_eq!(header("X-Id: 7"), Ok(("X-Id".into(), "7".into())));
        assert_eq!(header("X:"), Ok(("X".into(), String::new())));
        for bad in ["x", ": y", "a b: c", "X: a\r\nTask-Id: b"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn states_read_well() {
        assert_eq!(state(&json!({"state": "working", "phase": "running"})), "working (running)");
        assert_eq!(state(&json!({"state": "completed", "phase": "completed"})), "completed");
        assert_eq!(state(&json!({"state": "canceled"})), "canceled");
    }
}
