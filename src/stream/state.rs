//! What a stream holds, as `STREAM.INFO` reports it (nats-server `server/store.go`, `StreamState`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::Timestamp;

/// The `state` object of a stream's info. `subjects`, `deleted` and `consumer_count` are filled in by whoever was asked
/// for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamState {
    pub messages: u64,
    /// By nats-server's accounting, see [`StoredMessage::accounted_bytes`](crate::types::StoredMessage::accounted_bytes).
    pub bytes: u64,
    /// The first message's sequence, or one past `last_seq` when the stream is empty; 0 in a stream never written to.
    pub first_seq: u64,
    #[serde(rename = "first_ts")]
    pub first_time: Timestamp,
    pub last_seq: u64,
    #[serde(rename = "last_ts")]
    pub last_time: Timestamp,
    #[serde(skip_serializing_if = "is_zero")]
    pub num_subjects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subjects: Option<BTreeMap<String, u64>>,
    /// Sequences between the first and the last that are gone.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_deleted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Vec<u64>>,
    pub consumer_count: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
