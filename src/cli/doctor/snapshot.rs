//! What a client, and monitoring where it is given, can see of a broker.

use std::time::Duration;

use serde_json::{Value, json};

use super::http;
use super::task_snapshot::{self, Tasks};
use crate::cli::connection::Connection;
use crate::cli::failure::Failure;
use crate::client::{Client, ClientError, JetStreamError, decode_stored};
use crate::types::Headers;

/// How long to wait for services to say what they are.
const SERVICES_WAIT: Duration = Duration::from_millis(500);
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Pages of a list beyond these are not read.
const PAGES_MAX: usize = 1000;
/// So many consumers that deliver again are looked at closely, and so many messages of each.
const CONSUMERS_SAMPLED: usize = 50;
const SAMPLES: usize = 5;
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
    /// The task coordinator, if one is there.
    pub tasks: Option<Tasks>,
    /// Consumers that deliver again what carries a `Retry-Count`: stream sequences and values.
    pub retry_counts: Vec<(Value, Vec<(u64, String)>)>,
    pub varz: Option<Value>,
    /// `subsz`'s list of subscriptions.
    pub subscriptions: Option<Vec<Value>>,
    /// `connz`'s connections that are open, with what they subscribe to, and those that were closed lately.
    pub connections: Vec<Value>,
    pub closed: Vec<Value>,
    /// What should have been looked at and could not be, and why.
    pub unread: Vec<(String, String)>,
    /// What was not looked at and why.
    pub not_seen: Vec<String>,
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
        match client.api("INFO", &Value::Null).await {
            Ok(account) => snapshot.account = account,
            Err(JetStreamError::Api(_) | JetStreamError::Client(ClientError::NoResponders { .. })) => {
                snapshot.not_seen.push("Streams and consumers: JetStream is off, or not for this user.".to_owned());
            }
            Err(error) => snapshot.unread("JetStream", error),
        }
        if snapshot.has_jetstream() {
            let (streams, fault) = pages(client, "STREAM.LIST", "streams").await;
            snapshot.streams = streams;
            fault.into_iter().for_each(|error| snapshot.unread("streams", error));
            snapshot.consumers = snapshot.all_consumers(client).await;
            snapshot.look_at_retries(client).await;
        }
        match endpoints(client).await {
            Ok(found) => snapshot.endpoints = found,
            Err(error) => snapshot.unread("micro services", error),
        }
        snapshot.tasks = task_snapshot::take(connection, &mut snapshot).await;
        snapshot.look_at_monitoring(monitor).await;
        tokio::time::sleep_until(began + listen).await;
        if snapshot.has_jetstream() {
            snapshot.consumers_later = snapshot.all_consumers(client).await;
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
            // Nobody is there: the other pages are not either.
            Err(reason) => return self.unread("monitoring", reason),
        }
        match http::get(url, "/subsz?subs=1&limit=100000").await {
            Ok(report) => {
                let list = report["subscriptions_list"].as_array().cloned().unwrap_or_default();
                if report["total"].as_u64().is_some_and(|total| total > list.len() as u64) {
                    let reason = format!("there are {}, and {} were shown", report["total"], list.len());
                    self.unread("subscriptions", reason);
                }
                self.subscriptions = Some(list);
            }
            Err(reason) => self.unread("subscriptions", reason),
        }
        for (page, place) in
            [("/connz?subs=1&limit=100000", "connections"), ("/connz?state=closed&limit=10000", "closed connections")]
        {
            match http::get(url, page).await {
                Ok(report) => {
                    let found = report["connections"].as_array().cloned().unwrap_or_default();
                    if place == "connections" { self.connections = found } else { self.closed = found }
                }
                Err(reason) => self.unread(place, reason),
            }
        }
    }

    /// Notes what could not be examined, and why.
    pub fn unread(&mut self, place: &str, reason: impl std::fmt::Display) {
        let reason = reason.to_string();
        let fault = (place.to_owned(), reason.lines().next().unwrap_or_default().trim_end_matches('.').to_owned());
        if !self.unread.contains(&fault) {
            self.unread.push(fault);
        }
    }

    async fn all_consumers(&mut self, client: &Client) -> Vec<Value> {
        let mut all = Vec::new();
        let with = |stream: &&Value| stream["state"]["consumer_count"].as_u64() != Some(0);
        let names = self.streams.iter().filter(with).filter_map(|stream| stream["config"]["name"].as_str());
        for name in names.map(str::to_owned).collect::<Vec<_>>() {
            let (found, fault) = pages(client, &format!("CONSUMER.LIST.{name}"), "consumers").await;
            all.extend(found);
            match fault {
                // Its stream is gone since it was listed.
                Some(JetStreamError::Api(error)) if error.code == 404 => {}
                Some(error) => self.unread(&format!("consumers of stream {name}"), error),
                None => {}
            }
        }
        all
    }

    /// Reads what the oldest messages say that consumers deliver again.
    async fn look_at_retries(&mut self, client: &Client) {
        let again = |consumer: &&Value| {
            let coordinators = consumer["stream_name"].as_str().is_some_and(|stream| stream.starts_with("KV_TASK"));
            !coordinators && consumer["num_redelivered"].as_u64().unwrap_or(0) > 0
        };
        for consumer in self.consumers.iter().filter(again).take(CONSUMERS_SAMPLED).cloned().collect::<Vec<_>>() {
            match retry_counts(client, &consumer).await {
                Ok(counts) if counts.is_empty() => {}
                Ok(counts) => self.retry_counts.push((consumer, counts)),
                Err(error) => {
                    let stream = consumer["stream_name"].as_str().unwrap_or_default();
                    self.unread(&format!("messages of stream {stream}"), error);
                }
            }
        }
    }
}

/// All pages of a list of JetStream's, as far as they can be read; and why not all.
async fn pages(client: &Client, api: &str, field: &str) -> (Vec<Value>, Option<JetStreamError>) {
    let mut all: Vec<Value> = Vec::new();
    for _ in 0..PAGES_MAX {
        let page: Value = match client.api(api, &json!({ "offset": all.len() })).await {
            Ok(page) => page,
            Err(error) => return (all, Some(error)),
        };
        let found = page[field].as_array().cloned().unwrap_or_default();
        let end = found.is_empty();
        all.extend(found);
        if end || all.len() as u64 >= page["total"].as_u64().unwrap_or(0) {
            break;
        }
    }
    (all, None)
}

/// Every endpoint of every micro service that answers (ADR-32).
async fn endpoints(client: &Client) -> Result<Vec<(String, String)>, ClientError> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(&inbox)?;
    client.publish_message(b"$SRV.INFO", inbox.as_bytes(), b"", b"")?;
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
    Ok(found)
}

/// The `Retry-Count` of the oldest messages that a consumer has out, with their stream sequences.
async fn retry_counts(client: &Client, consumer: &Value) -> Result<Vec<(u64, String)>, JetStreamError> {
    let stream = consumer["stream_name"].as_str().unwrap_or_default();
    let filter = consumer["config"]["filter_subject"].as_str().filter(|filter| !filter.is_empty()).unwrap_or(">");
    let last = consumer["delivered"]["stream_seq"].as_u64().unwrap_or(0);
    let mut seq = consumer["ack_floor"]["stream_seq"].as_u64().unwrap_or(0) + 1;
    let mut found = Vec::new();
    for _ in 0..SAMPLES {
        if seq > last {
            break;
        }
        let request = json!({ "next_by_subj": filter, "seq": seq }).to_string();
        let api = format!("$JS.API.STREAM.MSG.GET.{stream}");
        let answer = client.request(&api, request.as_bytes(), ANSWER_DEADLINE).await?;
        let entry = match decode_stored(answer.payload()) {
            Ok(entry) => entry,
            // There is none behind it.
            Err(JetStreamError::Api(error)) if error.code == 404 => break,
            Err(error) => return Err(error),
        };
        if let Some(value) = Headers::new(&entry.headers).get_str("Retry-Count").filter(|_| entry.seq <= last) {
            found.push((entry.seq, value.to_owned()));
        }
        seq = entry.seq + 1;
    }
    Ok(found)
}
