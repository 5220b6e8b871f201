//! A consumer in a backup (nats-server `SnapshotConsumerState`): its configuration, and how far it has come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::BackupError;
use super::archive::Entry;
use crate::consumer::{ConsumerConfig, Out, Progress, StateRow};
use crate::types::Timestamp;

/// Before a consumer's name in that of its entry.
pub const CONSUMER_ENTRY: &str = "consumers/";

#[derive(Serialize, Deserialize)]
struct Stored {
    config: ConsumerConfig,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    delivered: Pair,
    ack_floor: Pair,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<BTreeMap<u64, Pending>>,
    /// Deliveries beyond the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redelivered: Option<BTreeMap<u64, u64>>,
}

#[derive(Default, Serialize, Deserialize)]
struct Pair {
    consumer_seq: u64,
    stream_seq: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pending {
    sequence: u64,
    /// Nanoseconds.
    timestamp: i64,
}

/// A consumer's entry, without the name.
pub fn encode(config: &ConsumerConfig, progress: &Progress) -> Vec<u8> {
    let pending: BTreeMap<u64, Pending> = progress
        .out
        .iter()
        .map(|out| (out.stream_seq, Pending { sequence: out.consumer_seq, timestamp: out.sent.nanos() }))
        .collect();
    let redelivered: BTreeMap<u64, u64> =
        progress.counts.iter().map(|&(seq, count)| (seq, count.saturating_sub(1))).collect();
    let row = &progress.state;
    let state = State {
        delivered: Pair { consumer_seq: row.delivered_consumer_seq, stream_seq: row.delivered_stream_seq },
        ack_floor: Pair { consumer_seq: row.ack_floor_consumer_seq, stream_seq: row.ack_floor_stream_seq },
        pending: (!pending.is_empty()).then_some(pending),
        redelivered: (!redelivered.is_empty()).then_some(redelivered),
    };
    serde_json::to_vec(&Stored { config: config.clone(), state }).expect("a consumer is always JSON")
}

/// Reads a consumer's entry: its name, configuration and progress.
///
/// # Errors
/// When it is not a consumer's, or says what cannot be of a stream whose last sequence is `last_seq`.
pub fn decode(entry: &Entry, last_seq: u64) -> Result<(String, ConsumerConfig, Progress), BackupError> {
    let name = String::from_utf8_lossy(&entry.name).into_owned();
    let Some(name) = name.strip_prefix(CONSUMER_ENTRY).filter(|name| !name.is_empty()) else {
        return Err(BackupError::NoConsumer(name));
    };
    let bad = |what: String| BackupError::BadConsumer(name.to_owned(), what);
    let Stored { config, state } = serde_json::from_slice(entry.body()).map_err(|error| bad(error.to_string()))?;
    let row = StateRow {
        ack_floor_consumer_seq: state.ack_floor.consumer_seq,
        ack_floor_stream_seq: state.ack_floor.stream_seq,
        delivered_consumer_seq: state.delivered.consumer_seq,
        delivered_stream_seq: state.delivered.stream_seq,
    };
    let possible = row.ack_floor_stream_seq <= last_seq
        && row.ack_floor_consumer_seq <= i64::MAX as u64
        && row.delivered_consumer_seq <= i64::MAX as u64;
    if !possible {
        return Err(bad("sequences that cannot be".to_owned()));
    }
    // A consumer told to start later stands behind what there is.
    let out = state.pending.unwrap_or_default().into_iter().map(|(stream_seq, pending)| Out {
        stream_seq,
        consumer_seq: pending.sequence,
        sent: Timestamp(pending.timestamp),
    });
    let counts = state.redelivered.unwrap_or_default().into_iter();
    let progress = Progress {
        state: StateRow { delivered_stream_seq: row.delivered_stream_seq.min(last_seq), ..row },
        out: out.filter(|out| out.stream_seq <= last_seq).collect(),
        counts: counts.filter(|&(seq, _)| seq <= last_seq).map(|(seq, count)| (seq, count.saturating_add(1))).collect(),
    };
    Ok((name.to_owned(), config, progress))
}
