//! `natterjack task follow`: what an agent says while it works, in order and from the beginning, until the task ends.
//!
//! Chunks come from the stream that keeps them; what is published live only says that there is a new one. So none is
//! missed and none is shown twice, whenever one begins to follow.

use std::time::Duration;

use serde_json::{Value, json};

use super::connection::{Connection, api_error, refused};
use super::failure::{Failure, TIMED_OUT};
use super::output::{print_bytes, remark, say, text};
use super::table;
use super::task::{await_result, state};
use crate::client::{Client, decode_stored};
use crate::types::Timestamp;

const STREAM: &str = "TASK_PROGRESS";
/// How long to be patient with a silent task before its record is looked at.
const LOOK: Duration = Duration::from_secs(5);
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Prints progress, then the result; changes of state go to standard error. With `json` everything is a line of JSON.
///
/// # Errors
/// No such task; it did not end in time, or ended without a result.
pub async fn follow(connection: &Connection, id: &str, wait: Duration, json: bool) -> Result<(), Failure> {
    let started = Timestamp::now();
    let client = connection.client();
    let subject = format!("$TASK.P.{id}");
    let bad = |error| connection.failure(&error);
    let mut chunks = client.subscribe(&subject).map_err(bad)?;
    let mut events = client.subscribe(&format!("$TASK.E.TASK.{id}")).map_err(bad)?;
    client.flush().await.map_err(bad)?;
    let mut shown = String::new();
    let mut seq = 0;
    loop {
        let record = connection.ask_usual(&format!("GET.{id}")).await?;
        if let Some(error) = api_error(&record) {
            return Err(refused(&error));
        }
        let record: Value = serde_json::from_slice(record.payload()).unwrap_or_default();
        show_state(&record, &mut shown, json);
        while let Some(chunk) = next_chunk(client, &subject, seq + 1).await {
            seq = chunk.0;
            show_chunk(&chunk.1, json);
        }
        if ["completed", "failed", "canceled", "rejected"].contains(&text(&record, "state")) {
            return await_result(connection, id, Duration::ZERO, json).await;
        }
        let left = wait.saturating_sub(Timestamp::now().since(started));
        if left.is_zero() {
            return Err(Failure::new(TIMED_OUT, format!("Task {id} goes on: it is {}.", state(&record))));
        }
        // Whatever happens next; what is in the record and the stream is looked at above.
        loop {
            tokio::select! {
                _ = chunks.next() => {
                    while let Some(chunk) = next_chunk(client, &subject, seq + 1).await {
                        seq = chunk.0;
                        show_chunk(&chunk.1, json);
                    }
                    while chunks.try_next().is_some() {}
                }
                event = events.next() => {
                    let event: Value = event.and_then(|event| serde_json::from_slice(event.payload()).ok()).unwrap_or_default();
                    show_state(&event, &mut shown, json);
                    break;
                }
                () = tokio::time::sleep(LOOK.min(left)) => break,
            }
        }
    }
}

/// The first chunk kept at or behind `seq`, with its sequence.
async fn next_chunk(client: &Client, subject: &str, seq: u64) -> Option<(u64, Vec<u8>)> {
    let request = json!({ "next_by_subj": subject, "seq": seq }).to_string();
    let api = format!("$JS.API.STREAM.MSG.GET.{STREAM}");
    let answer = client.request(&api, request.as_bytes(), ANSWER_DEADLINE).await.ok()?;
    decode_stored(answer.payload()).ok().map(|entry| (entry.seq, entry.payload.to_vec()))
}

fn show_chunk(chunk: &[u8], json: bool) {
    if json {
        say(&json!({ "progress": String::from_utf8_lossy(chunk) }).to_string());
    } else {
        print_bytes(chunk);
        if !chunk.ends_with(b"\n") && !std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            say("");
        }
    }
}

/// Tells of a change of state once.
fn show_state(now: &Value, shown: &mut String, json: bool) {
    let mut line = state(now);
    for (field, before) in [("agent", " by "), ("question", ": "), ("error", ": "), ("reason", ": ")] {
        match text(now, field) {
            "" => {}
            value => line = format!("{line}{before}{value}"),
        }
    }
    if line.is_empty() || *shown == line {
        return;
    }
    if json {
        let fields = ["id", "state", "phase", "agent", "attempt", "reason", "question", "error"];
        let told: serde_json::Map<String, Value> =
            fields.iter().filter_map(|field| Some(((*field).to_owned(), now.get(*field)?.clone()))).collect();
        say(&Value::Object(told).to_string());
    } else {
        remark(&format!("- {}", table::printable(&line)));
    }
    *shown = line;
}
