//! What a stream holds, and how to read it: the machine with its index, the log, and what is cached of it.

use std::sync::Arc;

use super::log::Log;
use super::read_ahead::ReadAhead;
use super::tail_cache::TailCache;
use crate::broker::{Account, Memory};
use crate::consumer::{MessageSize, View};
use crate::storage::ReadError;
use crate::stream::Stream;
use crate::types::StoredMessage;

/// Recently stored messages kept for consumers that are close behind.
const TAIL_CACHE_BYTES: usize = 8 * 1024 * 1024;

/// See the module.
pub(super) struct Contents {
    pub(super) stream: Stream,
    pub(super) log: Log,
    pub(super) tail: TailCache,
    account: Arc<Account>,
}

impl Contents {
    pub(super) fn new(stream: Stream, log: Log, account: Arc<Account>, memory: &Arc<Memory>) -> Contents {
        Contents { stream, log, tail: TailCache::new(TAIL_CACHE_BYTES, memory), account }
    }

    /// Lends the world as a consumer sees it.
    pub(super) fn with_view<R>(&self, look: impl FnOnce(&View<'_>) -> R) -> R {
        look(&View {
            index: self.stream.index(),
            interest: &|subject| self.account.has_interest(subject),
            interest_generation: self.account.generation(),
            size: &|seq| self.message_size(seq),
        })
    }

    /// The lengths of a message's parts, for pull requests that limit bytes.
    fn message_size(&self, seq: u64) -> Option<MessageSize> {
        let measure = |stored: &StoredMessage| MessageSize {
            subject: stored.message.subject().len(),
            headers: stored.message.headers().len(),
            payload: stored.message.payload().len(),
        };
        match self.tail.get(seq) {
            Some(stored) => Some(measure(stored)),
            None => self.log.read(seq).ok().flatten().as_ref().map(measure),
        }
    }

    /// A message for a consumer that goes through the log with `ahead`.
    pub(super) fn fetch(&self, ahead: &mut ReadAhead, seq: u64) -> Result<Option<StoredMessage>, ReadError> {
        match self.tail.get(seq) {
            Some(stored) => Ok(Some(stored.clone())),
            None => ahead.get(&self.log, seq),
        }
    }

    /// One message, wherever it is.
    pub(super) fn read(&self, seq: u64) -> Result<Option<StoredMessage>, ReadError> {
        match self.tail.get(seq) {
            Some(stored) => Ok(Some(stored.clone())),
            None => self.log.read(seq),
        }
    }
}
