//! What an event changed: the rows to write and erase, in one value that is applied atomically.

use std::sync::Arc;

use super::republish::Republished;
use crate::types::StoredMessage;

/// A subject as the index holds it, shared.
pub type SubjectRef = Arc<[u8]>;

/// Collects the consequences of one or many `handle_*` calls. The whole of it goes to the store in one transaction and
/// to the consumers after that. Puts come before removes: a message may be put and removed by the same changes, and a
/// sequence is never used again after its removal.
#[derive(Debug, Default)]
pub struct Changes {
    /// Messages to store, ascending.
    pub puts: Vec<StoredMessage>,
    /// Messages to erase, in the order in which that was decided.
    pub removes: Vec<Removal>,
    /// The sequences moved in a way the rows cannot tell (all rows gone, a sequence skipped): write the floor row.
    pub state_dirty: bool,
    /// Atomic batches that were given up, for the advisory.
    pub abandoned_batches: Vec<AbandonedBatch>,
    /// The stream has come further with a source: write how far.
    pub sources_dirty: bool,
    /// Which of `puts` are to be published again once they are durable, ascending.
    pub republished: Vec<Republished>,
}

impl Changes {
    pub fn new() -> Changes {
        Changes::default()
    }

    pub fn is_empty(&self) -> bool {
        self.puts.is_empty()
            && self.removes.is_empty()
            && !self.state_dirty
            && !self.sources_dirty
            && self.abandoned_batches.is_empty()
    }

    pub fn clear(&mut self) {
        self.puts.clear();
        self.removes.clear();
        self.state_dirty = false;
        self.sources_dirty = false;
        self.abandoned_batches.clear();
        self.republished.clear();
    }
}

/// Messages leaving the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    One {
        seq: u64,
        subject: SubjectRef,
        reason: RemovalReason,
    },
    /// Every message from `from` to `to`, both included. A consumer counts again what is pending for it.
    Range {
        from: u64,
        to: u64,
        reason: RemovalReason,
    },
}

/// Why a message left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// `max_msgs`, `max_bytes` or `max_msgs_per_subject`.
    Limit,
    /// `max_age`.
    Age,
    /// A purge request.
    Purge,
    /// A `Nats-Rollup` header.
    Rollup,
    /// A delete request.
    Delete,
    /// Acked by all that wanted it, in an interest or work-queue stream.
    Consumed,
}

/// What became of a published message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// Stored at this sequence: PubAck once durable.
    Stored { seq: u64 },
    /// As `Stored`; its subject's counter now stands at `value`.
    Counted { seq: u64, value: String },
    /// Its `Nats-Msg-Id` was seen within the window; `seq` is the first one's.
    Duplicate { seq: u64 },
    /// Interest retention and nobody interested: a sequence is used up, nothing is stored.
    NoInterest { seq: u64 },
    /// A member of an atomic batch, kept until its commit: the reply is an empty message.
    Staged,
    /// A batch was stored whole; `seq` is its last message's, `count` its number of messages.
    BatchCommitted { batch_id: String, count: u64, seq: u64 },
}

/// An atomic batch that will never commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbandonedBatch {
    pub batch_id: String,
    pub reason: AbandonReason,
}

/// The advisory's `reason`, in nats-server's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbandonReason {
    Timeout,
    Large,
    Incomplete,
    RequirementsNotMet,
}
