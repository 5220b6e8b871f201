//! What a stream may ask of its surroundings while it handles an event.

use std::time::Duration;

use super::Changes;
use crate::types::StoredMessage;

/// Lent to every event that may need it.
pub struct World<'a> {
    /// Whether any consumer wants a subject. Asked in interest streams only.
    pub interest: &'a dyn Fn(&[u8]) -> bool,
    /// Reads a stored message, durable or not. Messages of the changes at hand are not asked for.
    pub read: &'a dyn Fn(u64) -> Option<StoredMessage>,
    /// The largest headers and payload a client may send.
    pub payload_bytes_max: usize,
    pub batches: BatchTerms,
}

/// What batches are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchTerms {
    /// Messages in one atomic batch.
    pub messages_max: u64,
    /// Atomic batches that may be open in the stream now.
    pub atomic_open_max: usize,
    /// The same of fast-ingest batches.
    pub fast_open_max: usize,
    /// A batch without a new message for this long is given up.
    pub timeout: Duration,
    /// Bytes waiting in all of the stream's open atomic batches.
    pub staged_bytes_max: usize,
}

impl Default for BatchTerms {
    /// nats-server's (`streamDefaultMaxAtomicBatchSize` and those beside it).
    fn default() -> BatchTerms {
        BatchTerms {
            messages_max: 1000,
            atomic_open_max: 50,
            fast_open_max: 1000,
            timeout: Duration::from_secs(10),
            staged_bytes_max: 256 << 20,
        }
    }
}

impl<'a> World<'a> {
    /// A world in which nothing is stored yet but what the changes at hand hold.
    pub fn new(interest: &'a dyn Fn(&[u8]) -> bool) -> World<'a> {
        World { interest, read: &|_| None, payload_bytes_max: usize::MAX, batches: BatchTerms::default() }
    }

    /// A message, whether it is in `changes` still or stored before.
    pub(super) fn load(&self, seq: u64, changes: &Changes) -> Option<StoredMessage> {
        match changes.puts.binary_search_by_key(&seq, |put| put.seq) {
            Ok(at) => Some(changes.puts[at].clone()),
            Err(_) => (self.read)(seq),
        }
    }
}
