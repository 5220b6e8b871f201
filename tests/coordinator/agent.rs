//! An agent and a dispatcher as users would write them: plain NATS, no code of ours beyond the client.

use std::time::Duration;

use natterjack::client::{Client, Incoming};
use natterjack::types::header::HeaderBuilder;
use serde_json::Value;

pub const LONG: Duration = Duration::from_secs(20);

/// Calls `$TASK.API.<name>`; the body, and whether it is an error.
pub async fn call(
    client: &Client,
    name: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Incoming, (u64, Value)> {
    let mut builder = HeaderBuilder::new();
    for (name, value) in headers {
        builder = builder.add(name, value);
    }
    let block = if headers.is_empty() { Vec::new() } else { builder.build() };
    let answer = client.request_message(&format!("$TASK.API.{name}"), &block, body, LONG).await.unwrap();
    if answer.headers().get("Nats-Service-Error").is_none() {
        return Ok(answer);
    }
    let body: Value = serde_json::from_slice(answer.payload()).unwrap();
    Err((body["error"]["err_code"].as_u64().unwrap(), body))
}

/// As [`call`], for answers in JSON that must be fine.
pub async fn ask(client: &Client, name: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = call(client, name, &[], body.as_bytes()).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    serde_json::from_slice(answer.payload()).unwrap()
}

/// Submits a task and returns its id.
pub async fn submit(client: &Client, headers: &[(&str, &str)], body: &[u8]) -> String {
    let answer = call(client, "SUBMIT", headers, body).await.unwrap();
    let answer: Value = serde_json::from_slice(answer.payload()).unwrap();
    answer["id"].as_str().unwrap().to_owned()
}

/// Waits for a task's end; its result.
pub async fn await_result(client: &Client, id: &str) -> Result<Vec<u8>, (u64, Value)> {
    call(client, &format!("AWAIT.{id}"), &[("Task-Wait", "15s")], b"").await.map(|answer| answer.payload().to_vec())
}

/// Waits until a task's record satisfies `wanted`, which events and not time bring about.
pub async fn until(client: &Client, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut events = client.subscribe(&format!("$TASK.E.TASK.{id}")).unwrap();
    client.flush().await.unwrap();
    loop {
        let record = ask(client, &format!("GET.{id}"), Value::Null).await;
        if wanted(&record) {
            return record;
        }
        // Not every change is an event: an assignment counts as running once it is seen to be delivered.
        let _ = tokio::time::timeout(Duration::from_millis(100), events.next()).await;
    }
}

/// A registered agent.
pub struct Agent {
    pub client: Client,
    pub card: Value,
}

impl Agent {
    pub async fn register(client: Client, id: &str, request: Value) -> Agent {
        let card = ask(&client, &format!("AGENT.REGISTER.{id}"), request).await;
        Agent { client, card }
    }

    /// The next assignment.
    pub async fn pull(&self) -> Incoming {
        pull(&self.client, self.card["consumer"].as_str().unwrap()).await
    }

    /// Completes a task as its delivery says.
    pub async fn complete(&self, task: &Incoming, result: &[u8]) -> Result<(), u64> {
        answer(&self.client, task, "Task-Complete", result).await
    }

    /// As [`Agent::complete`] while the broker or the coordinator may be away.
    pub async fn complete_or_lost(&self, task: &Incoming, result: &[u8]) -> Result<(), String> {
        let subject = task.headers().get_str("Task-Complete").unwrap();
        let answer = self.client.request(subject, result, LONG / 10).await.map_err(|error| error.to_string())?;
        answer.headers().get_str("Nats-Service-Error").map_or(Ok(()), |error| Err(error.to_owned()))
    }

    pub async fn fail(&self, task: &Incoming, error: &[u8]) -> Result<(), u64> {
        answer(&self.client, task, "Task-Fail", error).await
    }

    pub async fn decline(&self, task: &Incoming) -> Result<(), u64> {
        answer(&self.client, task, "Task-Decline", b"").await
    }

    /// Acks, naks, terms or extends, as JetStream clients do.
    pub fn ack(&self, task: &Incoming, word: &str) {
        self.client.publish_message(task.reply(), b"", b"", word.as_bytes()).unwrap();
    }

    /// Works for ever: completes each task with its body, reversed. Ends with its connection.
    pub fn work(self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let consumer = self.card["consumer"].as_str().unwrap();
            let mut puller = self.client.puller("KV_TASK", consumer, 8).unwrap();
            while let Ok(task) = puller.next().await {
                let mut result = task.payload().to_vec();
                result.reverse();
                let subject = task.headers().get_str("Task-Complete").unwrap_or_default();
                if self.client.publish_message(subject.as_bytes(), b"", b"", &result).is_err() {
                    return;
                }
                self.ack(&task, "+ACK");
            }
        })
    }
}

async fn answer(client: &Client, task: &Incoming, header: &str, body: &[u8]) -> Result<(), u64> {
    let subject = task.headers().get_str(header).unwrap();
    let name = subject.strip_prefix("$TASK.API.").unwrap();
    call(client, name, &[], body).await.map(drop).map_err(|(code, _)| code)
}

/// One message of a consumer, however long it takes.
pub async fn pull(client: &Client, consumer: &str) -> Incoming {
    client.puller("KV_TASK", consumer, 1).unwrap().next().await.unwrap()
}
