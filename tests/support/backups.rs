//! Backups as a client takes and brings them: STREAM.SNAPSHOT and STREAM.RESTORE, with their flow.

use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what.into_future()).await.expect("it happens within the test's patience")
}

/// The answer to an API request.
pub async fn api(client: &Client, subject: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = soon(client.request(format!("$JS.API.{subject}"), body.into())).await.expect("the API answers");
    serde_json::from_slice(&answer.payload).expect("the API answers with JSON")
}

/// What a snapshot brought.
pub struct Snapshot {
    pub answer: Value,
    pub chunks: Vec<Bytes>,
    /// How it ended: the status and its description.
    pub status: String,
}

/// Takes a stream's backup; chunks are acknowledged when `acks` says so.
pub async fn snapshot(client: &Client, stream: &str, options: Value, acks: bool) -> Snapshot {
    let inbox = client.new_inbox();
    let mut incoming = soon(client.subscribe(inbox.clone())).await.unwrap();
    let mut body = options;
    body["deliver_subject"] = inbox.into();
    let answer = api(client, &format!("STREAM.SNAPSHOT.{stream}"), body).await;
    let mut chunks = Vec::new();
    loop {
        let message = soon(incoming.next()).await.unwrap();
        if message.payload.is_empty() {
            let status = message.status.map(|status| status.to_string()).unwrap_or_default();
            let status = format!("{status} {}", message.description.unwrap_or_default());
            return Snapshot { answer, chunks, status: status.trim().to_owned() };
        }
        chunks.push(message.payload);
        if let Some(reply) = message.reply.filter(|_| acks) {
            client.publish(reply, Bytes::new()).await.unwrap();
        }
    }
}

/// Asks for a restore; where its chunks go.
pub async fn begin_restore(client: &Client, config: &Value) -> String {
    let name = config["name"].as_str().unwrap();
    let answer = api(client, &format!("STREAM.RESTORE.{name}"), json!({ "config": config, "state": {} })).await;
    answer["deliver_subject"].as_str().filter(|subject| !subject.is_empty()).expect("somewhere to send to").into()
}

/// Sends chunks; the first answer that says something.
pub async fn send_chunks(client: &Client, to: &str, chunks: &[Bytes]) -> Option<Value> {
    for chunk in chunks {
        let answer = soon(client.request(to.to_owned(), chunk.clone())).await.unwrap();
        if !answer.payload.is_empty() {
            return Some(serde_json::from_slice(&answer.payload).unwrap());
        }
    }
    None
}

/// Brings a whole backup; the first answer that says something.
pub async fn restore(client: &Client, config: &Value, chunks: &[Bytes]) -> Value {
    let to = begin_restore(client, config).await;
    if let Some(answer) = send_chunks(client, &to, chunks).await {
        return answer;
    }
    let answer = soon(client.request(to, Bytes::new())).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Bytes that cannot be compressed, the same each time.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}
