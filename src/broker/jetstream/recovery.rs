//! A stream and its consumers out of their rows, at start and after a failed commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tracing::{error, warn};

use super::consumer_calls::setup;
use super::log::Log;
use super::shared::{Home, Shared};
use super::summaries;
use crate::auth::DEFAULT_ACCOUNT;
use crate::consumer::{Consumer, ConsumerConfig, ConsumerRows};
use crate::storage::{Batch, Op, ReadError, RecoveredConsumer, RecoveredStream, Store, StreamFloor, SummaryRange};
use crate::stream::index::SPAN;
use crate::stream::{Stream, StreamConfig};
use crate::types::{StoredMessage, StreamId, Timestamp};

/// A stream as its rows describe it.
pub(super) struct Rebuilt {
    pub(super) stream: Stream,
    pub(super) consumers: Vec<Consumer>,
    pub(super) log: Log,
    /// The segments whose summaries stood for their rows.
    pub(super) summarized: BTreeSet<u64>,
}

/// The field of a stored configuration that names the stream's account, where it is not the default one.
const ACCOUNT_FIELD: &str = "$account";

/// The row of a stream's configuration. `account` is the name of the account it is in.
pub(super) fn put_stream(id: StreamId, account: &str, config: &StreamConfig, created: Timestamp) -> Op {
    let mut json = serde_json::to_value(config).expect("a configuration is always JSON");
    if account != DEFAULT_ACCOUNT {
        json[ACCOUNT_FIELD] = account.into();
    }
    let config_json = Bytes::from(json.to_string());
    Op::PutStream { stream: id, config_json, created }
}

/// Says of a stored configuration that its stream is being restored: it is no stream yet.
const RESTORING_FIELD: &str = "$restoring";

/// The row of a stream that is being restored. [`put_stream`] replaces it once all is there.
pub(super) fn put_restoring(id: StreamId, account: &str, config: &StreamConfig, created: Timestamp) -> Op {
    let mut json = serde_json::to_value(config).expect("a configuration is always JSON");
    json[ACCOUNT_FIELD] = account.into();
    json[RESTORING_FIELD] = true.into();
    Op::PutStream { stream: id, config_json: Bytes::from(json.to_string()), created }
}

/// Whether the restore of a stored stream was cut short.
pub(super) fn is_restoring(recovered: &RecoveredStream) -> bool {
    let json = serde_json::from_slice::<serde_json::Value>(&recovered.config_json);
    json.is_ok_and(|json| json[RESTORING_FIELD] == true)
}

/// The name of the account that a stored stream is in.
pub fn account_of(recovered: &RecoveredStream) -> String {
    #[derive(serde::Deserialize)]
    struct Home {
        #[serde(rename = "$account")]
        account: Option<String>,
    }
    let home = serde_json::from_slice::<Home>(&recovered.config_json).ok();
    home.and_then(|home| home.account).unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned())
}

/// The rows of a new stream.
pub(super) fn new_stream(id: StreamId, account: &str, config: &StreamConfig, created: Timestamp) -> Batch {
    let mut batch = Batch::from_iter([put_stream(id, account, config, created)]);
    if config.first_seq > 1 {
        let floor =
            StreamFloor { first_seq: config.first_seq, last_seq: config.first_seq - 1, last_time: Timestamp::ZERO };
        batch.push(Op::PutStreamFloor { stream: id, floor });
    }
    batch
}

/// Reads a stream back; `None` when it does not exist.
///
/// # Errors
/// When the store does not answer, or is damaged where it cannot be passed over.
pub(super) fn rebuild(shared: &Shared) -> Result<Option<Rebuilt>, ReadError> {
    match &shared.home {
        Home::Disk { store, id } => {
            // From here on, batches that rest on what is read now are accepted again.
            let store = store.renewed();
            let Some(recovered) = store.reload(*id)? else { return Ok(None) };
            from_rows(shared, &store, &recovered).map(Some)
        }
        Home::Memory(log) => {
            // Consumers of a memory stream live in the task alone: they end with it.
            let mut stream = Stream::new(StreamId(0), shared.config(), shared.created);
            for stored in log.lock().values() {
                restore(&mut stream, stored);
            }
            stream.settle_schedules();
            let log = Log::Memory(log.clone());
            Ok(Some(Rebuilt { stream, consumers: Vec::new(), log, summarized: BTreeSet::new() }))
        }
    }
}

pub(super) fn restore(stream: &mut Stream, stored: &StoredMessage) {
    let message = &stored.message;
    let accounted = stream.accounted_bytes(message);
    stream.restore(stored.seq, stored.time, message.subject(), message.headers(), accounted);
}

/// A stream and its consumers from `recovered` and the message rows.
///
/// # Errors
/// As for [`rebuild`].
pub(super) fn from_rows(shared: &Shared, store: &Store, recovered: &RecoveredStream) -> Result<Rebuilt, ReadError> {
    let config = shared.config();
    let mut stream = Stream::new(recovered.id, config.clone(), recovered.created);
    let mut summarized = BTreeSet::new();
    let mut next = 0;
    for &range in &recovered.summaries {
        scan(shared, store, &mut stream, next, range.from.saturating_sub(1))?;
        if restore_summary(store, &mut stream, range)? {
            summarized.insert(range.from / SPAN);
        } else {
            warn!(stream = %shared.name, from = range.from, to = range.to, "a summary cannot be used; its messages are read");
            scan(shared, store, &mut stream, range.from, range.to)?;
        }
        next = range.to.saturating_add(1);
    }
    scan(shared, store, &mut stream, next, u64::MAX)?;
    if let Some(floor) = recovered.floor {
        stream.restore_floor(floor.last_seq, floor.last_time);
    }
    stream.settle_schedules();
    stream.restore_positions(recovered.sources.iter().map(|row| (&*row.name, row.seq, &*row.identity)));
    let now = Timestamp::now();
    let payload_bytes_max = shared.context.broker.payload_bytes_max();
    let mut consumers = Vec::with_capacity(recovered.consumers.len());
    for row in &recovered.consumers {
        match parse_consumer(row) {
            Some(consumer_config) => {
                let setup = setup(&config, &row.name, consumer_config, row.created, payload_bytes_max);
                consumers.push(Consumer::restore(setup, consumer_rows(row), stream.index(), now));
            }
            None => warn!(stream = %shared.name, consumer = %row.name, "a consumer's configuration cannot be read"),
        }
    }
    Ok(Rebuilt { stream, consumers, log: Log::Disk { store: store.clone(), id: recovered.id }, summarized })
}

/// Restores messages from their rows.
fn scan(shared: &Shared, store: &Store, stream: &mut Stream, from: u64, to: u64) -> Result<(), ReadError> {
    let id = stream.id();
    let report = store.scan_range(id, from, to, |row| {
        let accounted = StoredMessage::accounted_bytes(row.subject.len(), row.headers.len(), row.payload_len);
        stream.restore(row.seq, row.time, row.subject, row.headers, accounted);
    })?;
    for damaged in &report.damaged {
        error!(stream = %shared.name, seq = damaged.seq, what = %damaged.what, "a stored message is damaged and passed over");
    }
    Ok(())
}

/// Restores messages from their summary; false, and nothing done, when it cannot be used.
fn restore_summary(store: &Store, stream: &mut Stream, range: SummaryRange) -> Result<bool, ReadError> {
    let segment = range.from / SPAN;
    let Some(bytes) = store.summary(stream.id(), range)?.filter(|_| range == summaries::range(segment)) else {
        return Ok(false);
    };
    let Ok(notable) = stream.restore_summary(segment, &bytes) else { return Ok(false) };
    for seq in notable {
        match store.read(stream.id(), seq) {
            Ok(Some(stored)) => stream.restore_headers(seq, stored.time, stored.message.headers()),
            // Reading it will say so again; until then it is a message like others.
            Ok(None) | Err(ReadError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn parse_consumer(row: &RecoveredConsumer) -> Option<Arc<ConsumerConfig>> {
    serde_json::from_slice(&row.config_json).ok().map(Arc::new)
}

fn consumer_rows(row: &RecoveredConsumer) -> ConsumerRows {
    ConsumerRows { state: row.state, acked: row.acked.clone(), redeliveries: row.redeliveries.clone() }
}
