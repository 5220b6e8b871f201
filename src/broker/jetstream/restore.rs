//! A stream out of a backup (nats-server `processStreamRestore`, `RestoreStreamV2`): chunks come in on a subject of their
//! own, each is answered when it has been taken, and what they hold goes to the store as it comes.
//!
//! Until the last row is durable the stream is nobody's: its configuration is marked, and a marked stream that is found
//! at start goes. Then the registry takes it in, unless its name or subjects have been given to another one meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::commit;
use super::consumer_calls::{setup, terms};
use super::log::{Log, MemoryLog};
use super::recovery::{self, Rebuilt};
use super::registry::{Change, Registry};
use super::shared::{Home, Shared};
use crate::api::{self, Advisory, Kind, RestoreAccepted, StreamInfo};
use crate::backup::archive::Entry;
use crate::backup::{BackupError, BackupReader, consumer, read_state};
use crate::broker::{Courier, Inbound, Service};
use crate::consumer::config_check::is_valid_asset_name;
use crate::consumer::{Consumer, ConsumerChanges, ConsumerConfig, Progress};
use crate::storage::{Batch, Op, StreamFloor};
use crate::stream::config::Storage;
use crate::stream::{HEADERS_MAX, Stream, StreamConfig, StreamState};
use crate::types::{ApiError, StoredMessage, StreamId, Timestamp, id, subject};

/// Without a chunk for so long a restore is given up.
const STALLED: Duration = Duration::from_secs(5);
/// Chunks that wait to be taken; a client that waits for its answers has one.
const CHUNKS_MAX: usize = 64;
/// What is committed at a time.
const COMMIT_BYTES: usize = 4 << 20;
const SEQ_MAX: u64 = i64::MAX as u64;
/// A row has no room for a longer one.
const SUBJECT_BYTES_MAX: usize = u16::MAX as usize;

/// A restored stream on its way to the registry.
pub(super) struct Restored {
    pub(super) shared: Arc<Shared>,
    pub(super) rebuilt: Rebuilt,
    /// Told why it is not taken in, or what it looks like; nothing when it has ended again already.
    pub(super) done: oneshot::Sender<Result<Option<StreamInfo>, ApiError>>,
}

/// Where the chunks of one restore come in.
struct Door {
    chunks: mpsc::Sender<Inbound>,
    overrun: Arc<AtomicBool>,
}

impl Service for Door {
    fn call(&self, chunk: Inbound) {
        if self.chunks.try_send(chunk).is_err() {
            self.overrun.store(true, Ordering::Relaxed);
        }
    }
}

/// Begins a restore that has been checked; returns the response.
pub(super) fn begin(
    registry: &Arc<Registry>,
    changes: mpsc::Sender<Change>,
    request: &Inbound,
    config: StreamConfig,
    courier: &mut Courier,
) -> Vec<u8> {
    let context = &registry.context;
    let start = Timestamp::now();
    let client = context.client_info(request);
    context.advise(courier, &Advisory::RestoreCreate { stream: &config.name, client: &client }, start);
    let deliver_subject = format!("$JS.SNAPSHOT.RESTORE.{}.{}", config.name, id::unique());
    let (chunks, coming) = mpsc::channel(CHUNKS_MAX);
    let overrun = Arc::new(AtomicBool::new(false));
    let door = Arc::new(Door { chunks, overrun: overrun.clone() });
    let key = context.account.add_service(deliver_subject.as_bytes(), door);
    let body = api::response(Kind::StreamRestore, RestoreAccepted { deliver_subject: &deliver_subject });
    let registry = registry.clone();
    tokio::spawn(async move {
        let context = registry.context.clone();
        let stream = config.name.clone();
        let mut session =
            Session { courier: context.courier(), import: Import::new(registry, config), changes, overrun, bytes: 0 };
        let outcome = session.run(coming).await;
        if let Ok(key) = key {
            context.account.remove_target(deliver_subject.as_bytes(), key);
        }
        if outcome.is_err() {
            session.import.abandon();
        }
        let (answer, reply) = match outcome {
            Ok((info, reply)) => (Ok(info), reply),
            Err(Failure { error, reply }) => {
                warn!(stream, %error, "a restore failed");
                // A client that has gone silent hears nothing.
                let Some(reply) = reply else { return };
                (Err(error), reply)
            }
        };
        let end = Timestamp::now();
        let complete = Advisory::RestoreComplete { stream: &stream, start, end, bytes: session.bytes, client: &client };
        context.advise(&mut session.courier, &complete, end);
        let body = match answer {
            Ok(info) => api::response(Kind::StreamCreate, StreamInfo { domain: String::new(), ..info }),
            Err(error) => api::error_response(Kind::StreamCreate, &error),
        };
        if !reply.is_empty() {
            session.courier.publish(&reply, b"", b"", &body);
        }
        session.courier.flush();
    });
    body
}

/// Why a restore failed, and who is told; `None` when nobody is.
struct Failure {
    error: ApiError,
    reply: Option<Bytes>,
}

fn failed(what: impl std::fmt::Display) -> ApiError {
    ApiError::STREAM_RESTORE.with(what)
}

struct Session {
    courier: Courier,
    import: Import,
    changes: mpsc::Sender<Change>,
    overrun: Arc<AtomicBool>,
    bytes: u64,
}

impl Session {
    async fn run(&mut self, mut chunks: mpsc::Receiver<Inbound>) -> Result<(StreamInfo, Bytes), Failure> {
        let what = format!("restore for stream '{} > {}'", self.courier.account().name, self.import.config.name);
        loop {
            let Ok(Some(chunk)) = tokio::time::timeout(STALLED, chunks.recv()).await else {
                return Err(Failure { error: failed(format!("{what} is stalled")), reply: None });
            };
            let reply = chunk.reply.clone();
            let told = |error| Failure { error, reply: Some(reply.clone()) };
            if self.overrun.load(Ordering::Relaxed) {
                return Err(told(failed(format!("{what} got more chunks than it could take"))));
            }
            if reply.is_empty() {
                return Err(told(failed(format!("{what} requires reply subject for each chunk"))));
            }
            let bytes = chunk.message.payload();
            if bytes.is_empty() {
                let info = self.import.finish(&self.changes).await.map_err(told)?;
                return Ok((info, reply));
            }
            self.bytes += bytes.len() as u64;
            self.import.take(bytes).await.map_err(told)?;
            self.courier.publish(&reply, b"", b"", b"");
            self.courier.flush();
        }
    }
}

/// What has come of a stream.
struct Import {
    registry: Arc<Registry>,
    config: Arc<StreamConfig>,
    shared: Arc<Shared>,
    reader: BackupReader,
    state: Option<StreamState>,
    consumers: Vec<(String, ConsumerConfig, Progress)>,
    last_seq: u64,
    /// Not committed yet.
    batch: Batch,
    /// The backup's end has come.
    complete: bool,
    /// The registry has it, or may have it: its rows are not ours any more.
    handed_over: bool,
}

impl Import {
    fn new(registry: Arc<Registry>, config: StreamConfig) -> Import {
        let context = registry.context.clone();
        let (config, created) = (Arc::new(config), Timestamp::now());
        let mut batch = Batch::new();
        let home = match config.storage {
            Storage::File => {
                let id = registry.store.new_stream_id();
                batch.push(recovery::put_restoring(id, &context.account.name, &config, created));
                Home::Disk { store: registry.store.renewed(), id }
            }
            Storage::Memory => Home::Memory(Arc::new(MemoryLog::default())),
        };
        // What came from a source, or was counted, has headers that no client sent.
        let reader = BackupReader::new(context.broker.payload_bytes_max() + HEADERS_MAX);
        let shared = Arc::new(Shared::new(context, config.clone(), created, home));
        Import {
            registry,
            config,
            shared,
            reader,
            state: None,
            consumers: Vec::new(),
            last_seq: 0,
            batch,
            complete: false,
            handed_over: false,
        }
    }

    /// Takes a chunk. What follows the backup's end is not looked at.
    async fn take(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        if self.complete {
            return Ok(());
        }
        self.reader.push(bytes);
        while !self.complete
            && let Some(entry) = self.reader.next_entry().map_err(failed)?
        {
            self.take_entry(entry)?;
            if self.batch.weight_bytes() >= COMMIT_BYTES {
                self.commit().await?;
            }
        }
        Ok(())
    }

    fn take_entry(&mut self, entry: Entry) -> Result<(), ApiError> {
        let Some(state) = &self.state else {
            let state = read_state(&entry).map_err(failed)?;
            if state.last_seq > SEQ_MAX || state.first_seq > state.last_seq + 1 {
                return Err(failed(BackupError::BadState("sequences that cannot be".to_owned())));
            }
            self.last_seq = state.first_seq.saturating_sub(1);
            self.state = Some(state);
            return Ok(());
        };
        if (self.consumers.len() as u64) < state.consumer_count {
            let consumer = consumer::decode(&entry, state.last_seq).map_err(failed)?;
            if self.consumers.iter().any(|(name, ..)| *name == consumer.0) {
                return Err(failed(format!("consumer {:?} is there twice", consumer.0)));
            }
            self.consumers.push(consumer);
            return Ok(());
        }
        let seq = entry.seq;
        if seq == 0 {
            self.complete = entry.is_end();
            return if self.complete { Ok(()) } else { Err(failed("expected message sequence")) };
        }
        if seq <= self.last_seq || seq > SEQ_MAX {
            return Err(failed(format!("message sequence {seq} out of order")));
        }
        let time = entry.time;
        let message = entry.into_message();
        let size = message.headers().len() + message.payload().len();
        if usize::try_from(self.config.max_msg_size).is_ok_and(|max| size > max) {
            return Err(failed(format!("message sequence {seq} exceeds maximum message size")));
        }
        if !subject::is_valid_literal(message.subject()) || message.subject().len() > SUBJECT_BYTES_MAX {
            return Err(failed(format!("message sequence {seq} has no valid subject")));
        }
        if self.registry.context.is_full(self.config.storage) {
            return Err(match self.config.storage {
                Storage::Memory => ApiError::MEMORY_RESOURCES_EXCEEDED,
                Storage::File => ApiError::STORAGE_RESOURCES_EXCEEDED,
            });
        }
        self.last_seq = seq;
        let message = StoredMessage { seq, time, message };
        match &self.shared.home {
            Home::Disk { id, .. } => self.batch.push(Op::PutMessage { stream: *id, message }),
            Home::Memory(log) => {
                log.lock().insert(seq, message);
            }
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), ApiError> {
        let batch = std::mem::take(&mut self.batch);
        match self.shared.home {
            Home::Disk { .. } => self.registry.commit(batch).await.map_err(failed),
            Home::Memory(_) => Ok(()),
        }
    }

    /// Makes a stream of it all and has it taken in.
    async fn finish(&mut self, changes: &mpsc::Sender<Change>) -> Result<StreamInfo, ApiError> {
        let Some(state) = self.state.take().filter(|_| self.complete) else {
            let what = if self.reader.is_untouched() { "EOF".to_owned() } else { BackupError::Truncated.to_string() };
            return Err(failed(what));
        };
        let last_seq = self.last_seq.max(state.last_seq).max(self.config.first_seq.saturating_sub(1));
        if let Home::Disk { id, .. } = self.shared.home {
            let floor = StreamFloor { first_seq: last_seq + 1, last_seq, last_time: state.last_time };
            self.batch.push(Op::PutStreamFloor { stream: id, floor });
        }
        self.commit().await?;
        let mut rebuilt = self.rebuild(last_seq, state.last_time).await?;
        self.restore_consumers(&mut rebuilt)?;
        self.commit().await?;
        let (done, adopted) = oneshot::channel();
        let restored = Restored { shared: self.shared.clone(), rebuilt, done };
        self.handed_over = changes.send(Change::Adopt(Box::new(restored))).await.is_ok();
        match adopted.await {
            Ok(Ok(Some(info))) => Ok(info),
            Ok(Ok(None)) => Err(ApiError::STREAM_NOT_FOUND),
            Ok(Err(refused)) => {
                self.handed_over = false;
                Err(refused)
            }
            Err(_) => Err(failed("the server stops")),
        }
    }

    /// The stream out of its messages.
    async fn rebuild(&self, last_seq: u64, last_time: Timestamp) -> Result<Rebuilt, ApiError> {
        match &self.shared.home {
            Home::Disk { id, .. } => {
                let (shared, id, store) = (self.shared.clone(), *id, self.registry.store.renewed());
                let read = move || {
                    let recovered = store.reload(id)?;
                    recovered.map(|recovered| recovery::from_rows(&shared, &store, &recovered)).transpose()
                };
                let rebuilt = tokio::task::spawn_blocking(read).await.map_err(failed)?.map_err(failed)?;
                rebuilt.ok_or_else(|| failed("what was stored is gone"))
            }
            Home::Memory(log) => {
                let mut stream = Stream::new(StreamId(0), self.config.clone(), self.shared.created);
                for stored in log.lock().values() {
                    recovery::restore(&mut stream, stored);
                }
                stream.restore_floor(last_seq, last_time);
                stream.settle_schedules();
                Ok(Rebuilt {
                    stream,
                    consumers: Vec::new(),
                    log: Log::Memory(log.clone()),
                    summarized: Default::default(),
                })
            }
        }
    }

    /// Adds the consumers, and their rows to the batch.
    fn restore_consumers(&mut self, rebuilt: &mut Rebuilt) -> Result<(), ApiError> {
        let (terms, now) = (terms(&self.config, &self.registry.context), Timestamp::now());
        let payload_bytes_max = self.registry.context.broker.payload_bytes_max();
        for (name, mut config, progress) in std::mem::take(&mut self.consumers) {
            // Those that mirrors and sources made for a while stay behind.
            if config.direct {
                continue;
            }
            let bad = |error: ApiError| failed(format!("failed to add consumer {name:?}: {}", error.description));
            if !is_valid_asset_name(&name) || (!config.wanted_name().is_empty() && config.wanted_name() != name) {
                return Err(bad(ApiError::CONSUMER_BAD_DURABLE_NAME));
            }
            if config.wanted_name().is_empty() {
                config.name.clone_from(&name);
            }
            let level = config.required_api_level();
            api::metadata::set_static(&mut config.metadata, level);
            config.set_defaults(&terms, false).map_err(bad)?;
            config.check(&terms).map_err(bad)?;
            config.set_inactive_default();
            let (name, config): (Arc<str>, _) = (name.into(), Arc::new(config));
            let setup = setup(&self.config, &name, config.clone(), now, payload_bytes_max);
            let rows = progress.into_rows(&setup, rebuilt.stream.index());
            if let Home::Disk { id, .. } = self.shared.home
                && !config.memory_storage
            {
                let config_json = Bytes::from(serde_json::to_vec(&*config).expect("a configuration is always JSON"));
                let put = Op::PutConsumer { stream: id, consumer: name.clone(), config_json, created: now };
                self.batch.push(put);
                let changes = ConsumerChanges {
                    state: rows.state,
                    put_acked: rows.acked.clone(),
                    put_redeliveries: rows.redeliveries.clone(),
                    ..ConsumerChanges::default()
                };
                commit::rows(id, &name, changes, &mut self.batch);
            }
            rebuilt.consumers.push(Consumer::restore(setup, rows, rebuilt.stream.index(), now));
        }
        Ok(())
    }

    /// Removes what has been stored of a stream that comes to nothing.
    fn abandon(&mut self) {
        if !self.handed_over
            && let Home::Disk { id, .. } = self.shared.home
        {
            self.registry.store.renewed().submit(Batch::from_iter([Op::DropStream { stream: id }]), |_| {});
        }
    }
}
