//! `natterjack dlq …`: dead letters, the tasks that were given up.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::confirm::Confirm;
use super::connection::{ConnectFlags, Connection, api_error, refused, with_progress};
use super::failure::{EXIT_CODES, Failure};
use super::output::{Listed, Watch, list, number, print_bytes, remark, say, show, text, without_nulls};
use super::paging::{self, Paged};
use super::table::{self, Table};
use crate::types::Timestamp;

/// See the tasks that were given up, and give them another run.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct DlqCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead letters, the last that died first.
    #[command(visible_alias = "list")]
    Ls {
        /// Only those of this queue.
        queue: Option<String>,
        /// At most so many.
        #[arg(short, long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Only those behind this one, to page on.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Print a dead letter's body, and on standard error why it died.
    Get { queue: String, id: String },
    /// Give one dead letter, or all of a queue, a new run.
    Requeue(One),
    /// Forget one dead letter, or all of a queue, with everything that is stored of the tasks.
    Purge(One),
}

#[derive(Debug, Args)]
struct One {
    queue: String,
    /// The task; all of the queue without it.
    id: Option<String>,
    #[command(flatten)]
    confirm: Confirm,
}

impl DlqCommand {
    /// # Errors
    /// What to tell the caller.
    pub async fn run(self) -> Result<(), Failure> {
        let json = self.connect.json;
        let connection = Connection::open(&self.connect).await?;
        match self.action {
            Action::Ls { queue, limit, after, watch } => {
                let endpoint = queue.map_or("DLQ.LIST".to_owned(), |queue| format!("DLQ.LIST.{queue}"));
                let filter = without_nulls(json!({ "after": after }));
                let listed = Listed { field: "letters", id: "id", restless: &[] };
                let pages = Paged { endpoint: &endpoint, field: "letters", id: "id" };
                let ask = async || pages.read(&connection, &filter, Some(limit as usize)).await;
                watch.show(json, &listed, ask, render_list).await?;
            }
            Action::Get { queue, id } => get(&connection, &queue, &id, json).await?,
            Action::Requeue(one) => {
                let verb =
                    Verb { endpoint: "REQUEUE", count: "requeued", one: "is queued again", all: "get a new run" };
                settle(&connection, &one, &verb, json).await?;
            }
            Action::Purge(one) => {
                let verb =
                    Verb { endpoint: "PURGE", count: "purged", one: "is forgotten", all: "be forgotten for good" };
                settle(&connection, &one, &verb, json).await?;
            }
        }
        connection.close().await;
        Ok(())
    }
}

struct Verb {
    endpoint: &'static str,
    /// The field of the answer that counts, and the word for it.
    count: &'static str,
    one: &'static str,
    all: &'static str,
}

async fn settle(connection: &Connection, one: &One, verb: &Verb, json: bool) -> Result<(), Failure> {
    let queue = &one.queue;
    if let Some(id) = &one.id {
        let answer = connection.call(&format!("DLQ.{}.{queue}.{id}", verb.endpoint), b"", b"").await?;
        show(&answer, json, |_| format!("Task {id} {}.", verb.one));
        return Ok(());
    }
    let left = async || {
        let found = connection.call(&format!("DLQ.LIST.{queue}"), b"", br#"{"limit":1}"#).await?;
        Ok(found["total"].as_u64().unwrap_or(0))
    };
    let total = left().await?;
    one.confirm.ask(&format!("Shall the {total} dead letters of queue {queue} {}?", verb.all))?;
    let endpoint = format!("DLQ.{}.{queue}", verb.endpoint);
    let call = connection.call_long(&endpoint, b"");
    let answer = with_progress(verb.count, total, left, call).await?;
    show(&answer, json, |answer| {
        format!("{} dead letters of queue {queue} are {}.", number(answer, verb.count), verb.count)
    });
    Ok(())
}

async fn get(connection: &Connection, queue: &str, id: &str, json: bool) -> Result<(), Failure> {
    let answer = connection.ask_usual(&format!("DLQ.GET.{queue}.{id}")).await?;
    if let Some(error) = api_error(&answer) {
        return Err(refused(&error));
    }
    let headers: serde_json::Map<String, Value> = answer
        .headers()
        .iter()
        .map(|(name, value)| {
            (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned().into())
        })
        .collect();
    if json {
        let body = String::from_utf8_lossy(answer.payload());
        say(&json!({ "id": id, "queue": queue, "headers": headers, "body": body }).to_string());
        return Ok(());
    }
    for (name, value) in &headers {
        remark(&table::printable(&format!("{name}: {}", value.as_str().unwrap_or_default())));
    }
    print_bytes(answer.payload());
    Ok(())
}

fn render_list(found: &Value) -> String {
    let letters = list(found, "letters");
    if letters.is_empty() {
        return "No dead letters.".to_owned();
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["ID", "QUEUE", "ATTEMPTS", "AGENT", "DIED", "WHY"]);
    for letter in letters {
        let failed = Timestamp::parse_rfc3339(text(letter, "failed"));
        let (reason, error) = (text(letter, "reason"), text(letter, "error"));
        table.row(vec![
            text(letter, "id").to_owned(),
            text(letter, "queue").to_owned(),
            number(letter, "attempts"),
            text(letter, "agent").to_owned(),
            failed.map(|failed| format!("{} ago", table::age(failed, now))).unwrap_or_default(),
            if reason == error || error.is_empty() { reason.to_owned() } else { format!("{reason}: {error}") },
        ]);
    }
    table.fitted() + &paging::more(found)
}
