//! A stream's backup on its way out (nats-server `jsStreamSnapshotRequest`, `streamSnapshot`): what the stream and its
//! consumers are like comes from the stream's task, the messages from the log, and chunks go out as fast as their receiver
//! acknowledges them.
//!
//! Messages that leave the stream meanwhile are missing in the backup, those that come are not in it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::commit::Release;
use super::inbox::Command;
use super::log::Log;
use super::registry::Registry;
use super::shared::Shared;
use super::stream_task::StreamTask;
use crate::api::{self, Advisory, Kind, Snapshot, SnapshotAccepted, Strictness};
use crate::backup::consumer::CONSUMER_ENTRY;
use crate::backup::{STATE_ENTRY, archive, consumer, s2};
use crate::broker::{Courier, Inbound, Service};
use crate::consumer::{ConsumerConfig, Progress};
use crate::stream::{Filter, StreamConfig, StreamState};
use crate::types::{ApiError, Timestamp, id, subject};

/// How long the receiver may take to subscribe, and to acknowledge anything.
const INTEREST_WAIT: Duration = Duration::from_secs(2);
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked whether anybody still listens.
const INTEREST_CHECK: Duration = Duration::from_millis(100);
const FIRST_INTEREST_CHECK: Duration = Duration::from_millis(5);
/// What is read of the log at a time.
const SLICE_MESSAGES: usize = 512;
const SLICE_BYTES: usize = 1 << 20;

/// What a backup begins with.
pub(super) struct Backup {
    config: Arc<StreamConfig>,
    state: StreamState,
    consumers: Vec<(Arc<str>, Arc<ConsumerConfig>, Progress)>,
    log: Log,
}

impl StreamTask {
    /// Tells what a backup begins with, as soon as all of it is durable; refuses where what is `denied` could be in it.
    pub(super) fn begin_backup(
        &mut self,
        consumers: bool,
        denied: &[String],
        done: oneshot::Sender<Result<Box<Backup>, ApiError>>,
    ) {
        let stream = &self.contents.stream;
        let takes = |filter: &String| {
            let subjects = &mut stream.config().subjects.iter();
            subjects.any(|subject| subject::overlaps(subject.as_bytes(), filter.as_bytes()))
        };
        // Also what it took under another configuration, or from elsewhere.
        if denied.iter().any(takes)
            || !denied.is_empty() && stream.index().subjects(&Filter::new(denied)).next().is_some()
        {
            let _ = done
                .send(Err(ApiError::STREAM_SNAPSHOT.with("permissions violation: subjects of the stream are denied")));
            return;
        }
        let mut backup = Backup {
            config: stream.config().clone(),
            state: stream.state(),
            consumers: Vec::new(),
            log: self.contents.log.clone(),
        };
        if consumers {
            // Those that mirrors and sources make for a while are none of the stream's.
            let told = self.consumers.iter().map(|slot| &slot.consumer).filter(|consumer| !consumer.config().direct);
            let told = told.map(|consumer| (consumer.name().clone(), consumer.config().clone(), consumer.progress()));
            backup.consumers = told.collect();
        }
        backup.state.consumer_count = backup.consumers.len() as u64;
        self.turn.releases.push(Release::Done(Box::new(move |result| {
            let _ = done.send(result.map(|()| Box::new(backup)));
        })));
    }
}

/// Takes acks of chunks.
struct Acks(Arc<Semaphore>);

impl Service for Acks {
    fn call(&self, _: Inbound) {
        if self.0.available_permits() < Semaphore::MAX_PERMITS / 2 {
            self.0.add_permits(1);
        }
    }
}

/// Reads and checks a request; `exists` says whether there is such a stream.
///
/// # Errors
/// As nats-server has them.
pub(super) fn read_request(body: &[u8], exists: bool, strictness: Strictness) -> Result<Snapshot, ApiError> {
    if api::is_empty(body) {
        return Err(ApiError::BAD_REQUEST);
    }
    if !exists {
        return Err(ApiError::STREAM_NOT_FOUND);
    }
    let request: Snapshot = api::decode(body, strictness)?;
    if !subject::is_valid_literal(request.deliver_subject.as_bytes()) {
        return Err(ApiError::SNAPSHOT_DELIVER_SUBJECT_INVALID);
    }
    Ok(request)
}

/// Serves a request that has been checked, from the answer to the last chunk.
pub(super) async fn serve(registry: Arc<Registry>, shared: Arc<Shared>, request: Inbound, wanted: Snapshot) {
    let context = registry.context.clone();
    let mut courier = context.courier();
    let start = Timestamp::now();
    let (done, begun) = oneshot::channel();
    // Its own names say nothing of another account's subjects.
    let is_own = request.client.identity().account == context.account.name;
    let denied = if is_own { request.client.denied_filters() } else { Vec::new() };
    shared.inbox.push(Command::Backup { consumers: !wanted.no_consumers, denied, done });
    let begun = begun.await.unwrap_or(Err(ApiError::STREAM_NOT_FOUND));
    context.api.end();
    let backup = match begun {
        Ok(backup) => backup,
        Err(error) => {
            context.respond(&mut courier, &request, &api::error_response(Kind::StreamSnapshot, &error), true);
            return courier.flush();
        }
    };
    let accepted = SnapshotAccepted { config: &backup.config, state: &backup.state };
    context.respond(&mut courier, &request, &api::response(Kind::StreamSnapshot, accepted), false);
    let client = context.client_info(&request);
    let stream = &*shared.name;
    let created = Advisory::SnapshotCreate { stream, state: &backup.state, client: &client };
    context.advise(&mut courier, &created, Timestamp::now());
    courier.flush();

    let ack_subject = format!("$JS.SNAPSHOT.ACK.{stream}.{}", id::unique());
    let ack_filter = format!("{ack_subject}.>");
    let (chunk_bytes, window) = wanted.flow();
    let slots = Arc::new(Semaphore::new(window));
    let key = context.account.add_service(ack_filter.as_bytes(), Arc::new(Acks(slots.clone())));
    let deliver = wanted.deliver_subject.into_bytes();
    let mut chunks =
        Chunks { courier, slots, deliver, ack_subject, chunk_bytes, heard: false, waiting: Vec::new(), sent: 0 };
    let outcome = send(&registry, &shared, &backup, &mut chunks).await;
    if let Ok(key) = key {
        context.account.remove_target(ack_filter.as_bytes(), key);
    }
    let (status, error) = match &outcome {
        Ok(()) => ("204".to_owned(), ""),
        Err(Ended::NoInterest) => ("408 No Interest".to_owned(), "no interest"),
        Err(Ended::NoAcks) => ("408 No Flow Response".to_owned(), "no flow response"),
        Err(Ended::Unreadable(error)) => (format!("500 {error}"), &**error),
    };
    if !error.is_empty() {
        tracing::warn!(stream, error, "a snapshot failed");
    }
    let Chunks { mut courier, deliver, .. } = chunks;
    courier.publish(&deliver, b"", format!("NATS/1.0 {status}\r\n\r\n").as_bytes(), b"");
    let complete = Advisory::SnapshotComplete { stream, start, end: Timestamp::now(), client: &client, error };
    context.advise(&mut courier, &complete, Timestamp::now());
    courier.flush();
}

/// Why a snapshot ended early.
enum Ended {
    NoInterest,
    NoAcks,
    Unreadable(String),
}

async fn send(registry: &Registry, shared: &Arc<Shared>, backup: &Backup, chunks: &mut Chunks) -> Result<(), Ended> {
    let patient_until = Instant::now() + INTEREST_WAIT;
    while !chunks.is_heard() && Instant::now() < patient_until {
        tokio::time::sleep(FIRST_INTEREST_CHECK).await;
    }
    chunks.heard = chunks.is_heard();
    let (mut plain, mut frames) = (Vec::new(), s2::Encoder::default());
    let now = Timestamp::now();
    archive::write_magic(&mut plain);
    let state = serde_json::to_vec(&backup.state).expect("a state is always JSON");
    archive::write_entry(STATE_ENTRY.as_bytes(), now, 0, b"", &state, &mut plain);
    for (name, config, progress) in &backup.consumers {
        let name = format!("{CONSUMER_ENTRY}{name}");
        archive::write_entry(name.as_bytes(), now, 0, b"", &consumer::encode(config, progress), &mut plain);
        frames.push(&plain, &mut chunks.waiting);
        plain.clear();
        chunks.send_whole().await?;
    }
    let last_seq = backup.state.last_seq;
    let mut from = backup.state.first_seq;
    while from <= last_seq {
        let slice = backup.log.read_range(from, SLICE_MESSAGES, SLICE_BYTES);
        let slice = slice.map_err(|error| Ended::Unreadable(error.to_string()))?;
        let Some(last) = slice.last() else { break };
        from = last.seq + 1;
        for stored in slice.iter().take_while(|stored| stored.seq <= last_seq) {
            let message = &stored.message;
            let (subject, headers, payload) = (message.subject(), message.headers(), message.payload());
            archive::write_entry(subject, stored.time, stored.seq, headers, payload, &mut plain);
            frames.push(&plain, &mut chunks.waiting);
            plain.clear();
        }
        chunks.send_whole().await?;
    }
    // A stream that has been deleted meanwhile had fewer messages to read than it should.
    if !registry.find(&shared.name).is_some_and(|current| Arc::ptr_eq(&current, shared)) {
        return Err(Ended::Unreadable("stream closed".to_owned()));
    }
    archive::write_end(&mut plain);
    frames.push(&plain, &mut chunks.waiting);
    frames.flush(&mut chunks.waiting);
    chunks.send_whole().await?;
    chunks.send_rest();
    Ok(())
}

/// What is compressed, going out in pieces.
struct Chunks {
    courier: Courier,
    /// One for each chunk that may be on the way.
    slots: Arc<Semaphore>,
    deliver: Vec<u8>,
    ack_subject: String,
    chunk_bytes: usize,
    /// Somebody has subscribed; when nobody is any more, that is the end.
    heard: bool,
    waiting: Vec<u8>,
    sent: u64,
}

impl Chunks {
    /// Whether somebody has subscribed to exactly the subject. Clients do so after their request, on a subject that a
    /// wildcard subscription of theirs matches, which hears chunks that come too early and drops them.
    fn is_heard(&self) -> bool {
        self.courier.account().has_filter(&self.deliver)
    }

    /// Sends all whole chunks, each when there is room for it.
    async fn send_whole(&mut self) -> Result<(), Ended> {
        let mut done = 0;
        while self.waiting.len() - done >= self.chunk_bytes {
            self.slot().await?;
            self.sent += 1;
            let reply = format!("{}.{}.{}", self.ack_subject, self.chunk_bytes, self.sent);
            let chunk = &self.waiting[done..done + self.chunk_bytes];
            self.courier.publish(&self.deliver, reply.as_bytes(), b"", chunk);
            self.courier.flush();
            self.courier.wait_for_laggards().await;
            done += self.chunk_bytes;
        }
        self.waiting.drain(..done);
        Ok(())
    }

    /// Sends what is less than a chunk. Nobody acknowledges it.
    fn send_rest(&mut self) {
        if !self.waiting.is_empty() {
            self.courier.publish(&self.deliver, b"", b"", &self.waiting);
            self.waiting.clear();
        }
    }

    async fn slot(&mut self) -> Result<(), Ended> {
        let until = Instant::now() + ACK_WAIT;
        loop {
            if self.heard && !self.is_heard() {
                return Err(Ended::NoInterest);
            }
            if let Ok(Ok(slot)) = tokio::time::timeout(INTEREST_CHECK, self.slots.acquire()).await {
                slot.forget();
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Ended::NoAcks);
            }
        }
    }
}
