//! What `CONSUMER.INFO` tells about a consumer, in nats-server's JSON.

use std::sync::Arc;

use serde::Serialize;

use super::config::ConsumerConfig;
use super::machine::{Consumer, Position, View};
use crate::types::GoDuration;
use crate::types::Timestamp;

/// A snapshot of a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsumerInfo {
    pub stream_name: String,
    pub name: String,
    pub created: Timestamp,
    pub config: Arc<ConsumerConfig>,
    pub delivered: SequenceInfo,
    pub ack_floor: SequenceInfo,
    pub num_ack_pending: u64,
    pub num_redelivered: u64,
    pub num_waiting: u64,
    pub num_pending: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub push_bound: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    #[serde(skip_serializing_if = "GoDuration::is_zero")]
    pub pause_remaining: GoDuration,
    /// When the snapshot was taken.
    pub ts: Timestamp,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<PriorityGroupInfo>,
}

/// A position in both sequences, and when it last moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SequenceInfo {
    pub consumer_seq: u64,
    pub stream_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_active: Option<Timestamp>,
}

/// A priority group and who is pinned to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PriorityGroupInfo {
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pinned_client_id: String,
    pub pinned_ts: Timestamp,
}

impl Consumer {
    /// A snapshot, after letting go of requests nobody waits for any more.
    pub fn info(&mut self, view: &View, now: Timestamp) -> ConsumerInfo {
        self.sweep(false, view, now);
        self.cursor.settle(view.index);
        let config = self.setup.config.clone();
        let pause_left = config.pause_until.map_or(0, |until| until.0.saturating_sub(now.0)).max(0);
        let position = |position: Position, last_active| SequenceInfo {
            consumer_seq: position.consumer,
            stream_seq: position.stream,
            last_active,
        };
        let pin = self.pinning.current.as_ref();
        let priority_groups = config.priority_groups.first().map(|group| PriorityGroupInfo {
            group: group.clone(),
            pinned_client_id: pin.map(|pin| pin.id.clone()).unwrap_or_default(),
            pinned_ts: pin.map(|pin| pin.since).unwrap_or_default(),
        });
        ConsumerInfo {
            stream_name: self.setup.stream.to_string(),
            name: self.setup.name.to_string(),
            created: self.setup.created,
            delivered: position(self.delivered, self.last_delivered),
            ack_floor: position(self.floor, self.last_acked),
            num_ack_pending: self.pending.len() as u64,
            num_redelivered: match config.max_deliver {
                1 => 0,
                _ => (self.pending.redelivered() + self.exceeded.len()) as u64,
            },
            num_waiting: self.waiting.len() as u64,
            num_pending: self.cursor.pending(),
            push_bound: self.push.as_ref().is_some_and(|push| push.active),
            paused: pause_left > 0,
            pause_remaining: GoDuration(pause_left),
            ts: now,
            priority_groups: priority_groups.into_iter().collect(),
            config,
        }
    }
}
