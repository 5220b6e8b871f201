//! What the store holds: reading streams, and every revision of every task.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use natterjack::client::Client;
use natterjack::types::Headers;
use serde::Deserialize;
use serde_json::{Value, json};

/// A stored message.
#[derive(Clone, Debug)]
pub struct Stored {
    pub subject: String,
    pub seq: u64,
    pub headers: Vec<u8>,
    pub payload: Bytes,
}

impl Stored {
    pub fn header(&self, name: &str) -> Option<&str> {
        Headers::new(&self.headers).get_str(name)
    }
}

/// What of a record the checks look at; absent fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Record {
    pub id: String,
    pub queue: String,
    /// `pull`, or empty where an agent is chosen.
    pub mode: String,
    pub state: String,
    pub phase: String,
    pub run: u64,
    pub attempt: u64,
    pub max_attempts: u64,
    pub agent: String,
    pub lease: String,
    pub result_due: bool,
    pub reason: String,
    pub completion: Option<Completion>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Completion {
    pub lease: String,
}

/// A record as it was stored once.
#[derive(Clone, Debug)]
pub struct Revision {
    pub seq: u64,
    pub record: Record,
}

/// All revisions seen so far, by task. The bucket keeps sixteen of each, so it is read on while the world goes on.
#[derive(Debug, Default)]
pub struct History {
    pub tasks: BTreeMap<String, Vec<Revision>>,
    read_to: u64,
}

impl History {
    /// Reads what is new.
    ///
    /// # Errors
    /// The broker does not answer, or what it has is not a record; nothing is noted then.
    pub async fn read_on(&mut self, client: &Client) -> Result<(), String> {
        let rows = read(client, "KV_TASK", "$KV.TASK.s.>", self.read_to + 1).await?;
        for row in rows {
            let record: Record =
                serde_json::from_slice(&row.payload).map_err(|error| format!("{}: {error}", row.subject))?;
            self.read_to = row.seq;
            self.tasks.entry(record.id.clone()).or_default().push(Revision { seq: row.seq, record });
        }
        Ok(())
    }
}

/// All messages of a stream that match, from a sequence on; none when there is no such stream.
///
/// # Errors
/// The broker does not answer.
pub async fn read(client: &Client, stream: &str, filter: &str, from: u64) -> Result<Vec<Stored>, String> {
    let name = natterjack::types::id::unique();
    let config = json!({
        "name": name, "deliver_policy": "by_start_sequence", "opt_start_seq": from, "ack_policy": "none",
        "mem_storage": true, "inactive_threshold": 10_000_000_000_u64, "filter_subject": filter,
    });
    let created = match client.create_consumer(stream, &config).await {
        Ok(created) => created,
        Err(error) if error.is(&natterjack::types::ApiError::STREAM_NOT_FOUND) => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let mut left = created["num_pending"].as_u64().ok_or("no num_pending")?;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe_with(&inbox, None, 2048).map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    while left > 0 {
        let ask = json!({ "batch": 500, "expires": 3_000_000_000_u64 }).to_string();
        let api = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        let sent = client.publish_message(api.as_bytes(), inbox.as_bytes(), b"", ask.as_bytes());
        sent.map_err(|error| error.to_string())?;
        for _ in 0..500.min(left) {
            let message = tokio::time::timeout(Duration::from_secs(4), answers.next()).await;
            let message = message.map_err(|_| "a page does not come")?.ok_or("the connection ended")?;
            let reply = String::from_utf8_lossy(message.reply()).into_owned();
            let mut tokens = reply.rsplit('.').map(|token| token.parse::<u64>().ok());
            let (pending, seq) = (tokens.next().flatten(), tokens.nth(2).flatten());
            let (Some(pending), Some(seq)) = (pending, seq) else { return Err(format!("not a delivery: {reply}")) };
            rows.push(Stored {
                subject: message.subject_str().to_owned(),
                seq,
                headers: message.header_block().to_vec(),
                payload: message.payload_bytes(),
            });
            left = pending;
        }
    }
    let _: Result<Value, _> = client.api(&format!("CONSUMER.DELETE.{stream}.{name}"), &Value::Null).await;
    Ok(rows)
}
