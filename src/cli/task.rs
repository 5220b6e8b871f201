//! `natterjack task …`: tasks by hand and by script, over any NATS URL.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::{ConnectFlags, Connection, api_error, header_block, refused};
use super::failure::{Failure, QUESTION, TIMED_OUT};
use super::output::{self, Listed, Watch, list, number, print_bytes, say, show, text, without_nulls};
use super::paging::{self, Paged};
use super::table::{self, Table};
use super::task_events::Events;
use super::task_follow::follow;
use super::task_options::{Body, TaskOptions, seconds};
use super::task_work::{self, Ask, Complete, Fail, Held};
use crate::client::Incoming;
use crate::types::Timestamp;

/// Submit tasks, follow them, and step in.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct TaskCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    #[command(subcommand)]
    action: Action,
}

const AFTER_HELP: &str = "\
Examples:
  natterjack task submit --requires lang=rust --wait 'review the parser'
  cat prompt.md | natterjack task submit --queue writing --id chapter-7
  natterjack task ls --state working --watch
  natterjack task follow chapter-7
  natterjack task await chapter-7 --question || natterjack task answer chapter-7 'the blue one'

Exit codes: 0 done, 1 refused or the task failed, 2 bad usage, 3 no such task, agent or queue, 4 not finished in time,
5 no server or no coordinator there, 7 the task asks something (await --question).";

#[derive(Debug, Subcommand)]
enum Action {
    /// Hand a task to the coordinator.
    Submit(Box<Submit>),
    /// Show one task.
    Get { id: String },
    /// List tasks, the newest first.
    #[command(visible_alias = "list")]
    Ls(List),
    /// Wait until a task is finished and print its result.
    Await {
        id: String,
        /// Return too, with exit code 7, when its agent asks something: the question is printed then.
        #[arg(long)]
        question: bool,
        /// How long to wait: 500ms, 30s, 5m, 2h.
        #[arg(long, value_name = "DURATION", value_parser = table::duration, default_value = "1h")]
        wait: Duration,
    },
    /// Print a task's progress as it comes, then its result; its changes go to standard error.
    Follow {
        id: String,
        /// How long to wait for its end: 500ms, 30s, 5m, 2h.
        #[arg(long, value_name = "DURATION", value_parser = table::duration, default_value = "24h")]
        wait: Duration,
    },
    /// Answer a task's question.
    Answer {
        id: String,
        #[command(flatten)]
        body: Body,
        /// The number of the question; the open one without it.
        #[arg(long, value_name = "N")]
        question: Option<u32>,
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
        /// Its descendants too.
        #[arg(long)]
        children: bool,
    },
    /// Give a failed or canceled task a new run.
    Requeue { id: String },
    /// Why a task is not running, agent by agent.
    Explain {
        id: String,
        /// How many agents to tell of one by one, those with the fewest obstacles first; 20 without it.
        #[arg(long, value_name = "N")]
        agents: Option<u32>,
    },
    /// What became of a task, step by step.
    History { id: String },
    /// Show what happens to tasks, agents, queues and councils, as it happens.
    Events(Events),
    /// Say that a task is done, as its agent.
    Complete(Complete),
    /// Say that a task did not work out, as its agent.
    Fail(Fail),
    /// Give a task back that is not this agent's kind of work; no attempt is counted.
    Decline(Held),
    /// Ask whoever submitted a task, as its agent.
    #[command(visible_alias = "ask")]
    Input(Ask),
}

#[derive(Debug, Args)]
struct Submit {
    #[command(flatten)]
    body: Body,
    /// Idempotency key: the same id and body again is no second task.
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    options: TaskOptions,
    /// Wait for the result and print it.
    #[arg(short, long)]
    wait: bool,
    /// Print progress as it comes, then the result.
    #[arg(long, conflicts_with = "wait")]
    follow: bool,
}

#[derive(Debug, Args)]
struct List {
    /// Only tasks of this queue.
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Only tasks in this state: submitted, working, input-required, completed, failed, canceled, rejected.
    #[arg(long)]
    state: Option<String>,
    /// Only tasks of this agent.
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Only tasks that are a part of this one.
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// At most so many.
    #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only tasks behind this one, to page on.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[command(flatten)]
    watch: Watch,
}

impl TaskCommand {
    /// # Errors
    /// What to tell the caller.
    pub async fn run(self) -> Result<(), Failure> {
        let json = self.connect.json;
        // Reading a body must not wait behind a connection that is not needed yet.
        let body = match &self.action {
            Action::Submit(submit) => {
                submit.body.read("natterjack task submit 'say hello'\n  cat prompt.md | natterjack task submit")?
            }
            Action::Answer { body, .. } => body.read("natterjack task answer ID 'the blue one'")?,
            Action::Complete(complete) => complete.read()?,
            Action::Input(ask) => ask.read()?,
            _ => Vec::new(),
        };
        let connection = Connection::open(&self.connect).await?;
        match &self.action {
            Action::Submit(task) => submit(&connection, task, &body, json).await?,
            Action::Get { id } => {
                show(&connection.call(&format!("GET.{id}"), b"", b"").await?, json, output::record);
            }
            Action::Ls(list) => {
                let filter = json!({
                    "queue": list.queue, "state": list.state, "agent": list.agent, "parent": list.parent,
                    "after": list.after,
                });
                let filter = without_nulls(filter);
                let listed = Listed { field: "tasks", id: "id", restless: &[] };
                let pages = Paged { endpoint: "LIST", field: "tasks", id: "id" };
                let ask = async || pages.read(&connection, &filter, Some(list.limit as usize)).await;
                list.watch.show(json, &listed, ask, render_list).await?;
            }
            Action::Await { id, question: false, wait } => await_result(&connection, id, *wait, json).await?,
            Action::Await { id, question: true, wait } => await_question(&connection, id, *wait, json).await?,
            Action::Follow { id, wait } => follow(&connection, id, *wait, json).await?,
            Action::Answer { id, question, .. } => {
                let headers: Vec<_> =
                    question.iter().map(|number| ("Task-Question".to_owned(), number.to_string())).collect();
                let answer = connection.call(&format!("ANSWER.{id}"), &header_block(&headers), &body).await?;
                show(&answer, json, |answer| format!("Answered; task {id} is {}.", state(answer)));
            }
            Action::Cancel { id, reason, force, children } => {
                let children = children.then_some(true);
                let request = without_nulls(json!({"reason": reason, "force": force, "children": children}));
                let answer = connection.call(&format!("CANCEL.{id}"), b"", request.to_string().as_bytes()).await?;
                show(&answer, json, |answer| format!("Task {id} is {}.", state(answer)));
            }
            Action::Requeue { id } => {
                let answer = connection.call(&format!("REQUEUE.{id}"), b"", b"{}").await?;
                show(&answer, json, |answer| format!("Task {id} is {} again.", state(answer)));
            }
            Action::Explain { id, agents } => {
                let request = without_nulls(json!({ "agents": agents })).to_string();
                let answer = connection.call(&format!("EXPLAIN.{id}"), b"", request.as_bytes()).await?;
                show(&answer, json, super::task_story::explanation);
            }
            Action::History { id } => {
                show(&connection.call(&format!("HISTORY.{id}"), b"", b"").await?, json, super::task_story::history);
            }
            Action::Events(events) => events.follow(&connection, json).await?,
            Action::Complete(complete) => complete.send(&connection, &body, json).await?,
            Action::Fail(fail) => fail.send(&connection, json).await?,
            Action::Decline(held) => task_work::decline(&connection, held, json).await?,
            Action::Input(ask) => ask.send(&connection, &body, json).await?,
        }
        connection.close().await;
        Ok(())
    }
}

async fn submit(connection: &Connection, task: &Submit, body: &[u8], json: bool) -> Result<(), Failure> {
    let mut headers = task.options.headers();
    headers.extend(task.id.clone().map(|id| ("Task-Id".to_owned(), id)));
    let answer = connection.call("SUBMIT", &header_block(&headers), body).await?;
    let id = text(&answer, "id");
    let long = Duration::from_secs(7 * 86_400);
    if task.wait {
        return await_result(connection, id, long, json).await;
    }
    if task.follow {
        return follow(connection, id, long, json).await;
    }
    show(&answer, json, |answer| {
        let known = if answer["duplicate"] == true { "was submitted before" } else { "submitted" };
        let hint = if std::io::stdout().is_terminal() {
            format!("\nIts result: natterjack task await {id}")
        } else {
            String::new()
        };
        format!("Task {id} {known}: {}.{hint}", state(answer))
    });
    Ok(())
}

/// One long poll of the coordinator lasts at most this long; a longer wait is several.
const POLL: Duration = Duration::from_secs(30);
/// What an answer may take beyond its poll.
const POLL_SLACK: Duration = Duration::from_secs(10);

/// Prints the result's bytes as they are.
///
/// # Errors
/// It did not end in time, or ended without a result.
pub async fn await_result(connection: &Connection, id: &str, wait: Duration, json: bool) -> Result<(), Failure> {
    await_until(connection, id, wait, json, "end").await
}

/// As [`await_result`], or until its agent asks something.
async fn await_question(connection: &Connection, id: &str, wait: Duration, json: bool) -> Result<(), Failure> {
    await_until(connection, id, wait, json, "question").await
}

async fn await_until(
    connection: &Connection,
    id: &str,
    wait: Duration,
    json: bool,
    until: &str,
) -> Result<(), Failure> {
    let started = Timestamp::now();
    loop {
        let left = wait.saturating_sub(Timestamp::now().since(started));
        let poll = left.min(POLL);
        let headers =
            header_block(&[("Task-Wait".to_owned(), seconds(poll)), ("Task-Await".to_owned(), until.to_owned())]);
        let answer = connection.ask(&format!("AWAIT.{id}"), &headers, b"", poll + POLL_SLACK).await?;
        let Some(error) = api_error(&answer) else {
            if json {
                let result = String::from_utf8_lossy(answer.payload());
                say(&json!({"id": id, "state": "completed", "result": result}).to_string());
            } else {
                print_bytes(answer.payload());
            }
            return Ok(());
        };
        if error.err_code == ASKS {
            return Err(asked(id, &answer, json));
        }
        let failure = refused(&error);
        if failure.code != TIMED_OUT || left <= poll {
            if json {
                say(String::from_utf8_lossy(answer.payload()).trim_end());
            }
            return Err(failure);
        }
    }
}

/// AWAIT's answer when the task's agent waits for one.
const ASKS: u32 = 30428;

/// Prints a task's open question; what to say about it.
fn asked(id: &str, answer: &Incoming, json: bool) -> Failure {
    if json {
        say(String::from_utf8_lossy(answer.payload()).trim_end());
        return Failure::silent(QUESTION);
    }
    let record: Value = serde_json::from_slice(answer.payload()).unwrap_or_default();
    let open = list(&record, "questions").iter().rfind(|question| question.get("answer").is_none_or(Value::is_null));
    say(open.map(|open| text(open, "question")).unwrap_or_default());
    Failure::new(QUESTION, format!("Task {id} asks this and waits.\n`natterjack task answer {id} TEXT` answers it."))
}

pub fn state(record: &Value) -> String {
    match (text(record, "state"), text(record, "phase")) {
        (state, "") => state.to_owned(),
        (state, phase) if state == phase => state.to_owned(),
        (state, phase) => format!("{state} ({phase})"),
    }
}

fn render_list(found: &Value) -> String {
    let now = Timestamp::now();
    let tasks = list(found, "tasks");
    if tasks.is_empty() {
        return "No tasks. Submit one: natterjack task submit 'say hello'".to_owned();
    }
    let mut table = Table::new(&["ID", "STATE", "QUEUE", "ATTEMPT", "AGENT", "AGE"]);
    for task in tasks {
        let created = Timestamp::parse_rfc3339(text(task, "created"));
        table.row(vec![
            text(task, "id").to_owned(),
            state(task),
            text(task, "queue").to_owned(),
            number(task, "attempt"),
            text(task, "agent").to_owned(),
            created.map(|created| table::age(created, now)).unwrap_or_default(),
        ]);
    }
    table.fitted() + &paging::more(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_well() {
        assert_eq!(state(&json!({"state": "working", "phase": "running"})), "working (running)");
        assert_eq!(state(&json!({"state": "completed", "phase": "completed"})), "completed");
        assert_eq!(state(&json!({"state": "canceled"})), "canceled");
    }
}
