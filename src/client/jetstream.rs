//! JetStream from the client's side: API calls, publishes with PubAcks, atomic batches (ADR-50), direct gets, key-value.

use std::future::Future;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::handle::{PendingAnswer, header_block};
use super::{Client, ClientError, Incoming, JetStreamError, wire};
use crate::protocol::encode;
use crate::types::header::VERSION_LINE;
use crate::types::{ApiError, Headers, Timestamp, id};

const API_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a publish landed. For an atomic batch `seq` is the last message's; the others precede it without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PubAck {
    pub stream: String,
    pub seq: u64,
    #[serde(default)]
    pub duplicate: bool,
    #[serde(default)]
    pub batch: Option<String>,
    #[serde(default)]
    pub count: u64,
}

/// A stored message as a get returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredEntry {
    pub seq: u64,
    pub time: Timestamp,
    pub subject: String,
    /// Raw header block, empty when there is none.
    pub headers: Bytes,
    pub payload: Bytes,
}

/// A key's present value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEntry {
    pub revision: u64,
    pub created: Timestamp,
    pub value: Bytes,
}

/// One message of an atomic batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchEntry {
    pub subject: String,
    /// Header lines, each `Name: value\r\n`, without the version line and the closing empty line.
    pub header_lines: String,
    pub payload: Bytes,
}

impl BatchEntry {
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> BatchEntry {
        BatchEntry { subject: subject.into(), header_lines: String::new(), payload: payload.into() }
    }

    /// Adds a header; the value must hold no line break.
    pub fn header(mut self, name: &str, value: impl std::fmt::Display) -> BatchEntry {
        use std::fmt::Write as _;
        write!(self.header_lines, "{name}: {value}\r\n").expect("writing to a String cannot fail");
        self
    }

    /// Stored only if the last sequence of the entry's subject is `revision` (0: the subject is new).
    pub fn expect_revision(self, revision: u64) -> BatchEntry {
        self.header("Nats-Expected-Last-Subject-Sequence", revision)
    }
}

#[derive(Deserialize)]
struct AckOrError {
    #[serde(flatten)]
    ack: Option<PubAck>,
    error: Option<ApiError>,
}

/// Reads a PubAck, or the error in its place.
///
/// # Errors
/// The API error; [`ClientError::NoResponders`] when no stream stores the subject; a body that is no PubAck.
pub fn decode_ack(answer: &Incoming) -> Result<PubAck, JetStreamError> {
    if answer.is_no_responders() {
        return Err(ClientError::NoResponders { subject: "a stream".to_owned() }.into());
    }
    // The common case is a small flat object; `flatten` costs much more.
    if let Ok(ack) = serde_json::from_slice::<PubAck>(answer.payload())
        && ack.seq > 0
    {
        return Ok(ack);
    }
    match serde_json::from_slice::<AckOrError>(answer.payload()) {
        Ok(AckOrError { error: Some(error), .. }) => Err(error.into()),
        Ok(AckOrError { ack: Some(ack), .. }) => Ok(ack),
        Ok(_) => Err(JetStreamError::Decode { text: "neither an ack nor an error".to_owned() }),
        Err(error) => Err(JetStreamError::Decode { text: error.to_string() }),
    }
}

#[derive(Deserialize)]
struct ErrorOnly {
    error: Option<ApiError>,
}

impl Client {
    /// Calls `$JS.API.<name>` and reads the answer.
    ///
    /// # Errors
    /// The numbered API error, a failed request, or an answer of another shape.
    pub async fn api<T: DeserializeOwned>(
        &self,
        name: &str,
        request: &impl serde::Serialize,
    ) -> Result<T, JetStreamError> {
        let body = serde_json::to_vec(request).map_err(decode_error)?;
        let body = if body == b"null" { Vec::new() } else { body };
        let answer = self.request(&format!("$JS.API.{name}"), &body, API_TIMEOUT).await?;
        if let Ok(ErrorOnly { error: Some(error) }) = serde_json::from_slice(answer.payload()) {
            return Err(error.into());
        }
        serde_json::from_slice(answer.payload()).map_err(decode_error)
    }

    /// Sends a message to be stored and returns its PubAck as a future; the message is queued before this returns.
    ///
    /// # Errors
    /// As for publishing, at once; the future fails with the API error, a lost connection or after 10 s.
    pub fn publish_stored(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Result<impl Future<Output = Result<PubAck, JetStreamError>> + Send + use<>, ClientError> {
        let headers = header_block(headers);
        let pending = self.start_request(|reply| self.publish_message(subject.as_bytes(), reply, &headers, payload))?;
        Ok(await_ack(pending))
    }

    /// Sends `entries` as one atomic batch of one stream, back to back, and returns the PubAck of the whole as a future.
    ///
    /// # Errors
    /// As [`Client::publish_stored`]. After [`ClientError::Disconnected`] or a timeout it is unknown whether the batch was
    /// stored, but it was stored whole or not at all.
    pub fn publish_batch(
        &self,
        entries: &[BatchEntry],
    ) -> Result<impl Future<Output = Result<PubAck, JetStreamError>> + Send + use<>, ClientError> {
        let batch_id = id::unique();
        let pending = self.start_request(|reply| self.send_batch(&batch_id, entries, reply))?;
        Ok(await_ack(pending))
    }

    /// Queues `entries` as one atomic batch whose PubAck goes to `reply`. A single entry is a plain publish.
    ///
    /// # Errors
    /// As for publishing.
    ///
    /// # Panics
    /// On an empty batch.
    pub fn send_batch(&self, batch_id: &str, entries: &[BatchEntry], reply: &[u8]) -> Result<(), ClientError> {
        assert!(!entries.is_empty(), "an atomic batch has at least one message");
        let limit = self.info().max_payload;
        for entry in entries {
            let bytes = entry.payload.len() + entry.header_lines.len() + 128;
            if limit > 0 && bytes > limit {
                return Err(ClientError::TooLarge { bytes, limit });
            }
            if !crate::types::subject::is_valid_literal(entry.subject.as_bytes()) {
                return Err(ClientError::BadSubject { subject: entry.subject.clone() });
            }
        }
        let last = entries.len() - 1;
        let mut block = Vec::with_capacity(256);
        self.write(|out| {
            for (index, entry) in entries.iter().enumerate() {
                block.clear();
                if last > 0 || !entry.header_lines.is_empty() {
                    block.extend_from_slice(VERSION_LINE);
                    block.extend_from_slice(b"\r\n");
                    if last > 0 {
                        block.extend_from_slice(b"Nats-Batch-Id: ");
                        block.extend_from_slice(batch_id.as_bytes());
                        block.extend_from_slice(b"\r\nNats-Batch-Sequence: ");
                        wire::write_number(&mut block, index as u64 + 1);
                        block.extend_from_slice(b"\r\n");
                        if index == last {
                            block.extend_from_slice(b"Nats-Batch-Commit: 1\r\n");
                        }
                    }
                    block.extend_from_slice(entry.header_lines.as_bytes());
                    block.extend_from_slice(b"\r\n");
                }
                let reply = if index == last { reply } else { b"" };
                encode::publish(out, entry.subject.as_bytes(), reply, &block, &entry.payload);
            }
        })
    }

    /// Creates a stream, or finds it there with the same configuration. `config` is the JSON of nats-server's StreamConfig.
    ///
    /// # Errors
    /// The API error.
    pub async fn create_stream(&self, config: &serde_json::Value) -> Result<serde_json::Value, JetStreamError> {
        let name = config["name"].as_str().unwrap_or_default();
        self.api(&format!("STREAM.CREATE.{name}"), config).await
    }

    /// Creates or updates a consumer. `config` is the JSON of nats-server's ConsumerConfig, with a `name` or `durable_name`.
    ///
    /// # Errors
    /// The API error.
    pub async fn create_consumer(
        &self,
        stream: &str,
        config: &serde_json::Value,
    ) -> Result<serde_json::Value, JetStreamError> {
        let name = config["durable_name"].as_str().or(config["name"].as_str()).unwrap_or_default();
        let request = serde_json::json!({ "stream_name": stream, "config": config });
        self.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &request).await
    }

    /// The newest message of `subject`; `None` when there is none. Asks directly (ADR-31), so the stream must allow it.
    ///
    /// # Errors
    /// A failed request.
    pub async fn direct_last(&self, stream: &str, subject: &str) -> Result<Option<StoredEntry>, JetStreamError> {
        let api = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
        let answer = self.request(&api, b"", API_TIMEOUT).await?;
        decode_direct(&answer)
    }

    /// The newest message of `subject` through MSG.GET, which sees everything acknowledged before; `None` when there is none.
    ///
    /// # Errors
    /// The API error.
    pub async fn last_message(&self, stream: &str, subject: &str) -> Result<Option<StoredEntry>, JetStreamError> {
        let request = serde_json::json!({ "last_by_subj": subject });
        let got: Result<GetResponse, _> = self.api(&format!("STREAM.MSG.GET.{stream}"), &request).await;
        match got {
            Ok(response) => response.message.decode().map(Some),
            Err(error) if error.is(&ApiError::NO_MESSAGE_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets a key whatever its value; returns the revision.
    ///
    /// # Errors
    /// The API error.
    pub async fn kv_put(&self, bucket: &str, key: &str, value: &[u8]) -> Result<u64, JetStreamError> {
        Ok(self.publish_stored(&format!("$KV.{bucket}.{key}"), &[], value)?.await?.seq)
    }

    /// Sets a key only if its revision is `revision`; 0 stands for a key that does not exist.
    ///
    /// # Errors
    /// [`ApiError::STREAM_WRONG_LAST_SEQUENCE`] when another revision is there.
    pub async fn kv_update(&self, bucket: &str, key: &str, value: &[u8], revision: u64) -> Result<u64, JetStreamError> {
        let expected = revision.to_string();
        let headers = [("Nats-Expected-Last-Subject-Sequence", expected.as_str())];
        Ok(self.publish_stored(&format!("$KV.{bucket}.{key}"), &headers, value)?.await?.seq)
    }

    /// Sets a key that must not exist, or be deleted.
    ///
    /// # Errors
    /// [`ApiError::STREAM_WRONG_LAST_SEQUENCE`] when it exists.
    pub async fn kv_create(&self, bucket: &str, key: &str, value: &[u8]) -> Result<u64, JetStreamError> {
        match self.kv_update(bucket, key, value, 0).await {
            Err(error) if error.is(&ApiError::STREAM_WRONG_LAST_SEQUENCE) => {
                let last = self.last_message(&format!("KV_{bucket}"), &format!("$KV.{bucket}.{key}")).await?;
                match last {
                    Some(entry) if is_marker(&entry) => self.kv_update(bucket, key, value, entry.seq).await,
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    /// A key's value; `None` when it does not exist or is deleted.
    ///
    /// # Errors
    /// The API error.
    pub async fn kv_get(&self, bucket: &str, key: &str) -> Result<Option<KvEntry>, JetStreamError> {
        let last = self.last_message(&format!("KV_{bucket}"), &format!("$KV.{bucket}.{key}")).await?;
        Ok(last.filter(|entry| !is_marker(entry)).map(|entry| KvEntry {
            revision: entry.seq,
            created: entry.time,
            value: entry.payload,
        }))
    }

    /// Puts a delete marker on a key.
    ///
    /// # Errors
    /// The API error.
    pub async fn kv_delete(&self, bucket: &str, key: &str) -> Result<u64, JetStreamError> {
        Ok(self.publish_stored(&format!("$KV.{bucket}.{key}"), &[("KV-Operation", "DEL")], b"")?.await?.seq)
    }
}

fn is_marker(entry: &StoredEntry) -> bool {
    Headers::new(&entry.headers).get("KV-Operation").is_some()
}

async fn await_ack(pending: PendingAnswer) -> Result<PubAck, JetStreamError> {
    decode_ack(&pending.wait(API_TIMEOUT).await?)
}

fn decode_error(error: serde_json::Error) -> JetStreamError {
    JetStreamError::Decode { text: error.to_string() }
}

/// Reads the answer of a direct get; `None` for its 404.
pub(crate) fn decode_direct(answer: &Incoming) -> Result<Option<StoredEntry>, JetStreamError> {
    let headers = answer.headers();
    if let Some(code) = headers.status() {
        if code == 404 {
            return Ok(None);
        }
        let text = headers.description().unwrap_or_default().to_owned();
        return Err(JetStreamError::Decode { text: format!("{code} {text}") });
    }
    let field = |name: &str| headers.get_str(name);
    let (Some(seq), Some(subject)) = (field("Nats-Sequence").and_then(|seq| seq.parse().ok()), field("Nats-Subject"))
    else {
        return Err(JetStreamError::Decode { text: "a direct get without Nats-Sequence".to_owned() });
    };
    Ok(Some(StoredEntry {
        seq,
        time: field("Nats-Time-Stamp").and_then(Timestamp::parse_rfc3339).unwrap_or_default(),
        subject: subject.to_owned(),
        headers: strip_direct_headers(headers),
        payload: answer.payload_bytes(),
    }))
}

/// The message's own headers, without those the direct get added.
fn strip_direct_headers(headers: Headers<'_>) -> Bytes {
    const ADDED: [&[u8]; 4] = [b"Nats-Stream", b"Nats-Subject", b"Nats-Sequence", b"Nats-Time-Stamp"];
    let mut block = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| !ADDED.contains(name)) {
        if block.is_empty() {
            block.extend_from_slice(b"NATS/1.0\r\n");
        }
        block.extend_from_slice(name);
        block.extend_from_slice(b": ");
        block.extend_from_slice(value);
        block.extend_from_slice(b"\r\n");
    }
    if !block.is_empty() {
        block.extend_from_slice(b"\r\n");
    }
    Bytes::from(block)
}

/// Reads the answer of STREAM.MSG.GET.
///
/// # Errors
/// The API error in it ([`ApiError::NO_MESSAGE_FOUND`] when there is no such message), or an answer of another shape.
pub fn decode_stored(body: &[u8]) -> Result<StoredEntry, JetStreamError> {
    if let Ok(ErrorOnly { error: Some(error) }) = serde_json::from_slice(body) {
        return Err(error.into());
    }
    serde_json::from_slice::<GetResponse>(body).map_err(decode_error)?.message.decode()
}

#[derive(Deserialize)]
struct GetResponse {
    message: GotMessage,
}

#[derive(Deserialize)]
struct GotMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    time: Timestamp,
}

impl GotMessage {
    fn decode(self) -> Result<StoredEntry, JetStreamError> {
        let base64 = base64::engine::general_purpose::STANDARD;
        let bytes = |text: &str| {
            base64.decode(text).map(Bytes::from).map_err(|error| JetStreamError::Decode { text: error.to_string() })
        };
        Ok(StoredEntry {
            seq: self.seq,
            time: self.time,
            headers: bytes(&self.hdrs)?,
            payload: bytes(&self.data)?,
            subject: self.subject,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_read() {
        let check = |body: &str, expected: Result<u64, u32>| {
            let answer = Incoming::new(b"x", b"", b"", body.as_bytes());
            let got = decode_ack(&answer).map(|ack| ack.seq).map_err(|error| error.api().unwrap().err_code);
            assert_eq!(got, expected, "{body}");
        };
        check(r#"{"stream":"S","seq":7,"batch":"b","count":3}"#, Ok(7));
        check(r#"{"stream":"S", "domain":"hub", "seq":8}"#, Ok(8));
        let error =
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"S","seq":0}"#;
        check(error, Err(10071));
    }
}
