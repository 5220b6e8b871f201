//! What is asked of the committer: operations, grouped so that they become durable together or not at all.

use std::sync::Arc;

use bytes::Bytes;

use super::rows::{AckBlock, ConsumerStateRow, Redelivery, SourcePosition, StreamFloor};
use crate::types::{StoredMessage, StreamId, Timestamp};

/// One change of the store.
#[derive(Clone, Debug)]
pub enum Op {
    /// Adds a message; cheapest when a stream's sequences ascend.
    PutMessage {
        stream: StreamId,
        message: StoredMessage,
    },
    /// Removes one message. Removing the stream's last one also writes its floor, so that no sequence is used twice. Durable
    /// with its batch, while the rows of messages far apart are swept later, unseen by reads.
    RemoveMessage {
        stream: StreamId,
        seq: u64,
        /// How many messages the stream then has, roughly: it tells when sweeping pays.
        left: u64,
    },
    /// Removes `from..=to`. Durable with its batch however long the range is: the rows of a long one go in slices
    /// afterwards, unseen by reads and finished after a restart.
    RemoveMessages {
        stream: StreamId,
        from: u64,
        to: u64,
    },
    /// Says all that the caller needs at its next start about the messages `from..=to`, as they are after the operations
    /// before this one; replaces the summary that begins there. It holds until one of them is added or removed.
    PutSummary {
        stream: StreamId,
        from: u64,
        to: u64,
        bytes: Bytes,
    },
    /// Creates a stream or replaces its config. New ids come from [`super::Store::new_stream_id`].
    PutStream {
        stream: StreamId,
        config_json: Bytes,
        created: Timestamp,
    },
    /// States where an empty stream stands, for streams that do not start at 1 or are purged beyond their end; a
    /// `last_seq` never goes back.
    PutStreamFloor {
        stream: StreamId,
        floor: StreamFloor,
    },
    /// States how far a stream has come with each of its sources.
    PutSources {
        stream: StreamId,
        positions: Vec<SourcePosition>,
    },
    /// Removes a stream with its messages and consumers; durable with its batch, the rows go in slices afterwards.
    DropStream {
        stream: StreamId,
    },
    PutConsumer {
        stream: StreamId,
        consumer: Arc<str>,
        config_json: Bytes,
        created: Timestamp,
    },
    PutConsumerState {
        stream: StreamId,
        consumer: Arc<str>,
        state: ConsumerStateRow,
    },
    PutAckBlock {
        stream: StreamId,
        consumer: Arc<str>,
        block: AckBlock,
    },
    RemoveAckBlock {
        stream: StreamId,
        consumer: Arc<str>,
        block: u64,
    },
    PutRedelivery {
        stream: StreamId,
        consumer: Arc<str>,
        redelivery: Redelivery,
    },
    RemoveRedelivery {
        stream: StreamId,
        consumer: Arc<str>,
        seq: u64,
    },
    /// Removes a consumer with all its rows.
    DropConsumer {
        stream: StreamId,
        consumer: Arc<str>,
    },
}

impl Op {
    /// What the operation is reckoned as in the queue and in a transaction.
    fn weight_bytes(&self) -> usize {
        const FIXED: usize = 96;
        FIXED
            + match self {
                Op::PutMessage { message, .. } => message.message.as_bytes().len(),
                Op::PutStream { config_json, .. } | Op::PutConsumer { config_json, .. } => config_json.len(),
                Op::PutSummary { bytes, .. } => bytes.len(),
                Op::PutAckBlock { .. } => AckBlock::BYTES,
                _ => 0,
            }
    }
}

/// Operations that become durable together, in order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    ops: Vec<Op>,
    weight_bytes: usize,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn with_capacity(ops: usize) -> Batch {
        Batch { ops: Vec::with_capacity(ops), weight_bytes: 0 }
    }

    pub fn push(&mut self, op: Op) {
        self.weight_bytes += op.weight_bytes();
        self.ops.push(op);
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ops.len()
    }

    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// What the batch counts for in [`super::Store::queued_bytes`]: its payloads and a fixed amount for each operation.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }
}

impl FromIterator<Op> for Batch {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Batch {
        let mut batch = Batch::new();
        ops.into_iter().for_each(|op| batch.push(op));
        batch
    }
}
