//! The values of a stream's and its consumers' small rows, as callers hand them in and get them back.

pub use crate::consumer::{AckBlock, Redelivery, StateRow as ConsumerStateRow};
use crate::types::Timestamp;

/// Where a stream stands when its rows alone cannot tell, because its last message has been removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamFloor {
    /// The first sequence while the stream holds no message; with messages, the first of them says.
    pub first_seq: u64,
    /// The highest sequence ever given out, unless a later row exists.
    pub last_seq: u64,
    /// When `last_seq` was stored.
    pub last_time: Timestamp,
}

/// How far a stream has come with one of its sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcePosition {
    /// What tells it from the stream's other sources.
    pub name: String,
    /// The last sequence of the origin that was taken.
    pub seq: u64,
    /// Tells the origin from a later stream of the same name.
    pub identity: String,
}

/// A range of messages that a summary speaks of, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummaryRange {
    pub from: u64,
    pub to: u64,
}
