//! What a client, and monitoring where it is given, can see of a broker.

use std::time::Duration;

use serde_json::{Value, json};

use super::http;
use crate::cli::connection::{Connection, api_error};
use crate::cli::failure::Failure;
use crate::client::Client;

/// How long to wait for services to say what they are.
const SERVICES_WAIT: Duration = Duration::from_millis(500);
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Pages of a list beyond these are not read.
const PAGES_MAX: usize = 1000;
/// What is heard beyond this is not kept.
const ADVISORIES_MAX: usize = 100_000;

/// All that was seen, as the JSON the server answered.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Name and version, for people.
    pub server: String,
    /// `$JS.API.INFO`; null without JetStream.
    pub account: Value,
    /// `{config,state}` of each.
    pub streams: Vec<Value>,
    /// CONSUMER.INFO of each, at first and after listening.
    pub consumers: Vec<Value>,
    pub consumers_later: Vec<Value>,
    /// Name and subject of each endpoint of a micro service.
    pub endpoints: Vec<(String, String)>,
    /// Consumer advisories heard while listening.
    pub advisories: Vec<Value>,
    /// The task coordinator, if one answers.
    pub tasks: Option<Tasks>,
    pub varz: Option<Value>,
    /// `subsz`'s list of subscriptions.
    pub subscriptions: Option<Vec<Value>>,
    /// What was not looked at and why.
    pub not_seen: Vec<String>,
}

/// What the coordinator tells.
#[derive(Debug, Default)]
pub struct Tasks {
    pub queues: Vec<Value>,
    pub agents: Vec<Value>,
    /// Tasks that are submitted, the newest first.
    pub waiting: Vec<Value>,
    pub letters: Vec<Value>,
    pub letters_total: u64,
}

impl Snapshot {
    /// Looks, listens for `listen`, and looks again.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn take(connection: &Connection, monitor: Option<&str>, listen: Duration) -> Result<Snapshot, Failure> {
        let client = connection.client();
        let info = client.info();
        let mut snapshot =
            Snapshot { server: format!("{} ({})", info.server_name, info.version), ..Snapshot::default() };
        let mut heard =
            client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.>").map_err(|error| connection.failure(&error))?;
        client.flush().await.map_err(|error| connection.failure(&error))?;
        let began = tokio::time::Instant::now();
        snapshot.account = ask(client, "$JS.API.INFO", &Value::Null).await.unwrap_or_default();
        if snapshot.has_jetstream() {
            snapshot.streams = pages(client, "STREAM.LIST", "streams").await;
            snapshot.consumers = all_consumers(client, &snapshot.streams).await;
        } else {
            snapshot.not_seen.push("Streams and consumers: JetStream is off, or not for this user.".to_owned());
        }
        snapshot.endpoints = endpoints(client).await;
        snapshot.tasks = tasks(connection).await;
        snapshot.look_at_monitoring(monitor).await;
        tokio::time::sleep_until(began + listen).await;
        if snapshot.has_jetstream() {
            snapshot.consumers_later = all_consumers(client, &snapshot.streams).await;
        }
        client.flush().await.map_err(|error| connection.failure(&error))?;
        while let Some(advisory) = heard.try_next().filter(|_| snapshot.advisories.len() < ADVISORIES_MAX) {
            snapshot.advisories.extend(serde_json::from_slice::<Value>(advisory.payload()));
        }
        snapshot.not_seen.push(format!(
            "Messages that were terminated, or used their deliveries up and were purged, before the {} s of listening: of \
             those only advisories tell, which nobody keeps unless a stream does.",
            listen.as_secs_f64()
        ));
        snapshot.not_seen.push("Whether publishers wait for their PubAck.".to_owned());
        Ok(snapshot)
    }

    pub fn has_jetstream(&self) -> bool {
        self.account.get("api").is_some()
    }

    async fn look_at_monitoring(&mut self, monitor: Option<&str>) {
        let Some(url) = monitor else {
            self.not_seen.push(
                "How writes are synced, who subscribes to what, how full the disk is: give --monitor http://host:8222."
                    .to_owned(),
            );
            return;
        };
        match http::get(url, "/varz").await {
            Ok(varz) => self.varz = Some(varz),
            Err(reason) => self.not_seen.push(format!("Monitoring: {reason}.")),
        }
        let subscriptions = http::get(url, "/subsz?subs=1&limit=100000").await;
        self.subscriptions = subscriptions.ok().and_then(|report| report["subscriptions_list"].as_array().cloned());
    }
}

/// An answer in JSON, without an error in it.
async fn ask(client: &Client, subject: &str, body: &Value) -> Option<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = client.request(subject, body.as_bytes(), ANSWER_DEADLINE).await.ok()?;
    let answer: Value = serde_json::from_slice(answer.payload()).ok()?;
    answer.get("error").is_none().then_some(answer)
}

/// All pages of a list of JetStream's.
async fn pages(client: &Client, api: &str, field: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for _ in 0..PAGES_MAX {
        let Some(page) = ask(client, &format!("$JS.API.{api}"), &json!({ "offset": all.len() })).await else { break };
        let found = page[field].as_array().cloned().unwrap_or_default();
        let end = found.is_empty();
        all.extend(found);
        if end || all.len() as u64 >= page["total"].as_u64().unwrap_or(0) {
            break;
        }
    }
    all
}

async fn all_consumers(client: &Client, streams: &[Value]) -> Vec<Value> {
    let mut all = Vec::new();
    for stream in streams.iter().filter(|stream| stream["state"]["consumer_count"].as_u64() != Some(0)) {
        let name = stream["config"]["name"].as_str().unwrap_or_default();
        all.extend(pages(client, &format!("CONSUMER.LIST.{name}"), "consumers").await);
    }
    all
}

/// Every endpoint of every micro service that answers (ADR-32).
async fn endpoints(client: &Client) -> Vec<(String, String)> {
    let inbox = client.new_inbox();
    let Ok(mut answers) = client.subscribe(&inbox) else { return Vec::new() };
    if client.publish_message(b"$SRV.INFO", inbox.as_bytes(), b"", b"").is_err() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let until = tokio::time::Instant::now() + SERVICES_WAIT;
    while let Ok(Some(answer)) = tokio::time::timeout_at(until, answers.next()).await {
        let service: Value = serde_json::from_slice(answer.payload()).unwrap_or_default();
        for endpoint in service["endpoints"].as_array().into_iter().flatten() {
            let name = service["name"].as_str().unwrap_or_default().to_owned();
            found.push((name, endpoint["subject"].as_str().unwrap_or_default().to_owned()));
        }
    }
    found.sort();
    found.dedup();
    found
}

async fn tasks(connection: &Connection) -> Option<Tasks> {
    let call = async |endpoint: &str, body: Value| -> Option<Value> {
        let subject = format!("$TASK.API.{endpoint}");
        let answer = connection.client().request(&subject, body.to_string().as_bytes(), ANSWER_DEADLINE).await.ok()?;
        if answer.is_no_responders() || api_error(&answer).is_some() {
            return None;
        }
        serde_json::from_slice(answer.payload()).ok()
    };
    let list = |answer: &Value, field: &str| answer[field].as_array().cloned().unwrap_or_default();
    let queues = call("QUEUE.LIST", json!({})).await?;
    let agents = call("AGENT.LIST", json!({ "limit": 1000 })).await.unwrap_or_default();
    let waiting = call("LIST", json!({ "state": "submitted", "limit": 1000 })).await.unwrap_or_default();
    let letters = call("DLQ.LIST", json!({ "limit": 1000 })).await.unwrap_or_default();
    Some(Tasks {
        queues: list(&queues, "queues"),
        agents: list(&agents, "agents"),
        waiting: list(&waiting, "tasks"),
        letters_total: letters["total"].as_u64().unwrap_or(0),
        letters: list(&letters, "letters"),
    })
}
