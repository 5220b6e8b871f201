//! The messages a stream stored last, kept in memory because its consumers are about to deliver them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::{Memory, Share};
use crate::types::StoredMessage;

/// What a message counts for beside its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// Ascending messages, the oldest leaving when there are too many bytes.
pub(super) struct TailCache {
    messages: VecDeque<StoredMessage>,
    bytes: usize,
    /// While memory is not short.
    bytes_max: usize,
    share: Share,
}

impl TailCache {
    pub(super) fn new(bytes_max: usize, memory: &Arc<Memory>) -> TailCache {
        TailCache { messages: VecDeque::new(), bytes: 0, bytes_max, share: Share::of_cache(memory) }
    }

    /// Adds a message with a higher sequence than all before.
    pub(super) fn push(&mut self, message: StoredMessage) {
        debug_assert!(self.messages.back().is_none_or(|last| last.seq < message.seq), "sequences ascend");
        self.bytes += weight(&message);
        self.messages.push_back(message);
        self.drop_oldest(self.share.memory().cached_bytes_max(self.bytes_max));
        self.share.set(self.bytes);
    }

    /// Gives back memory until no more than `bytes` are kept.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = self.share.memory().cached_bytes_max(bytes);
        if self.bytes > bytes {
            self.drop_oldest(bytes);
            self.messages.shrink_to_fit();
            self.share.set(self.bytes);
        }
    }

    fn drop_oldest(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= weight(&oldest);
        }
    }

    pub(super) fn get(&self, seq: u64) -> Option<&StoredMessage> {
        let first = self.messages.front()?.seq;
        // Sequences have no gaps unless the stream skipped some, so the guess is nearly always right.
        let guess = usize::try_from(seq.checked_sub(first)?).ok()?;
        match self.messages.get(guess) {
            Some(message) if message.seq == seq => Some(message),
            _ => {
                let found = self.messages.binary_search_by_key(&seq, |message| message.seq).ok()?;
                self.messages.get(found)
            }
        }
    }
}

fn weight(message: &StoredMessage) -> usize {
    message.message.as_bytes().len() + MESSAGE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Message, Timestamp};

    fn message(seq: u64, payload_len: usize) -> StoredMessage {
        StoredMessage { seq, time: Timestamp(1), message: Message::new(b"a", b"", &vec![0; payload_len]) }
    }

    #[test]
    fn the_newest_stay_within_the_bound() {
        let mut cache = TailCache::new(1000, &Arc::new(Memory::new(usize::MAX)));
        for seq in [5, 6, 7, 9, 10] {
            cache.push(message(seq, 135));
        }
        let held: Vec<u64> = (1..=12).filter(|seq| cache.get(*seq).is_some_and(|found| found.seq == *seq)).collect();
        assert_eq!(held, [5, 6, 7, 9, 10]);
        cache.push(message(11, 535));
        assert_eq!(cache.get(5), None);
        assert_eq!(cache.get(8), None);
        assert_eq!(cache.get(11).map(|found| found.seq), Some(11));
        cache.push(message(12, 5000));
        assert_eq!((1..=12).filter(|seq| cache.get(*seq).is_some()).count(), 0);
    }
}
