//! `natterjack cron …`: tasks that are submitted by the clock.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::{ConnectFlags, Connection, header_block};
use super::failure::{EXIT_CODES, Failure};
use super::output::{Listed, Watch, list, number, show, text};
use super::paging::Paged;
use super::table::{self, Table};
use super::task_options::{Body, TaskOptions};
use crate::types::Timestamp;

/// Submit tasks by the clock.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct CronCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    #[command(subcommand)]
    action: Action,
}

const AFTER_HELP: &str = "\
Examples:
  natterjack cron put nightly '0 0 3 * * *' --time-zone Europe/Berlin --queue build 'cargo test'
  natterjack cron put beat '@every 5m' --file prompt.md

";

#[derive(Debug, Subcommand)]
enum Action {
    /// List crons with their next times.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        watch: Watch,
    },
    /// Submit a task at each time of a schedule.
    #[command(after_help = EXIT_CODES)]
    Put(Box<Put>),
    /// Remove a cron; the tasks it has submitted stay.
    Rm { cron: String },
}

#[derive(Debug, Args)]
struct Put {
    cron: String,
    /// `@every 5m`, `@hourly`, `@daily`, `@at 2026-12-01T03:00:00Z`, or six fields: second minute hour day month weekday.
    schedule: String,
    #[command(flatten)]
    body: Body,
    /// Time zone of the six fields, as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    #[command(flatten)]
    options: TaskOptions,
}

impl CronCommand {
    /// # Errors
    /// What to tell the caller.
    pub async fn run(self) -> Result<(), Failure> {
        let json = self.connect.json;
        let body = match &self.action {
            Action::Put(put) => put.body.read("natterjack cron put hourly @hourly 'look around'")?,
            _ => Vec::new(),
        };
        let connection = Connection::open(&self.connect).await?;
        match &self.action {
            Action::Ls { watch } => {
                let listed = Listed { field: "crons", id: "cron", restless: &[] };
                let pages = Paged { endpoint: "CRON.LIST", field: "crons", id: "cron" };
                let ask = async || pages.read(&connection, &json!({}), None).await;
                watch.show(json, &listed, ask, render_list).await?;
            }
            Action::Put(put) => {
                let mut headers = vec![("Task-Schedule".to_owned(), put.schedule.clone())];
                headers.extend(put.time_zone.clone().map(|zone| ("Task-Schedule-Time-Zone".to_owned(), zone)));
                headers.extend(put.options.headers());
                let answer = connection.call(&format!("CRON.PUT.{}", put.cron), &header_block(&headers), &body).await?;
                show(&answer, json, |answer| format!("Cron {} submits next at {}.", put.cron, text(answer, "next")));
            }
            Action::Rm { cron } => {
                let answer = connection.call(&format!("CRON.RM.{cron}"), b"", b"").await?;
                show(&answer, json, |_| format!("Cron {cron} is removed."));
            }
        }
        connection.close().await;
        Ok(())
    }
}

fn render_list(found: &Value) -> String {
    let crons = list(found, "crons");
    if crons.is_empty() {
        return "No crons. Set one up: natterjack cron put hourly @hourly 'look around'".to_owned();
    }
    let now = Timestamp::now();
    let mut table = Table::new(&["CRON", "SCHEDULE", "NEXT", "IN", "LAST", "LAST TASK", "BYTES", "HEADERS"]);
    for cron in crons {
        let next = Timestamp::parse_rfc3339(text(cron, "next"));
        table.row(vec![
            text(cron, "cron").to_owned(),
            text(cron, "schedule").to_owned(),
            text(cron, "next").to_owned(),
            next.filter(|next| *next > now).map(|next| table::age(now, next)).unwrap_or_default(),
            text(cron, "last").to_owned(),
            text(cron, "last_task").to_owned(),
            number(cron, "bytes"),
            headers(&cron["headers"]),
        ]);
    }
    table.fitted()
}

/// `Task-Queue: build, X-Id: 7`, from an object or a list of pairs.
fn headers(headers: &Value) -> String {
    let one = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match headers {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}: {}", one(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Array(lines) => lines.iter().map(one).collect::<Vec<_>>().join(", "),
        Value::String(text) => text.trim().replace("\r\n", ", "),
        _ => String::new(),
    }
}
