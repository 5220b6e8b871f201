//! The messages a stream stored last, kept in memory because its consumers are about to deliver them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;

use crate::broker::{ARENA_CHUNK_BYTES, Memory, Share};
use crate::types::{Message, StoredMessage};

/// What a message counts for beside its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64;
/// Messages close together in memory that are fewer bytes than this get copies: they may be all that keeps a
/// [chunk](ARENA_CHUNK_BYTES) alive.
const SPARSE_BYTES: usize = ARENA_CHUNK_BYTES / 4;

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

/// Gives those of `messages` that do not fill the chunks they lie in one buffer together. The chunks of a busy publisher are
/// well filled, and stay.
pub(super) fn pack(messages: &mut [StoredMessage]) {
    let bytes_of = |message: &StoredMessage| message.message.as_bytes().as_ptr_range();
    let mut sparse = Vec::new();
    let mut sparse_bytes = 0;
    let mut at = 0;
    while at < messages.len() {
        let first = bytes_of(&messages[at]).start as usize;
        let mut end = at;
        let mut bytes = 0;
        // Those of one chunk, as far as that can be seen: each behind the one before it.
        let mut behind = first;
        while let Some(next) = messages.get(end) {
            let range = bytes_of(next);
            let (start, stop) = (range.start as usize, range.end as usize);
            if start < behind || end > at && stop > first + ARENA_CHUNK_BYTES {
                break;
            }
            bytes += stop - start;
            behind = stop;
            end += 1;
        }
        if bytes < SPARSE_BYTES {
            sparse.push(at..end);
            sparse_bytes += bytes;
        }
        at = end;
    }
    let mut packed = BytesMut::with_capacity(sparse_bytes);
    for at in sparse.into_iter().flatten() {
        let message = &mut messages[at].message;
        packed.extend_from_slice(message.as_bytes());
        *message = Message::from_parts(packed.split().freeze(), message.subject().len(), message.headers().len());
    }
}

fn weight(message: &StoredMessage) -> usize {
    message.message.as_bytes().len() + MESSAGE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::Timestamp;

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

    #[test]
    fn messages_that_fill_their_chunk_stay_and_others_are_packed() {
        let chunk = Bytes::from(vec![b'a'; ARENA_CHUNK_BYTES]);
        let other = Bytes::from(vec![b'b'; ARENA_CHUNK_BYTES]);
        let slice = |of: &Bytes, at: usize, length: usize| StoredMessage {
            seq: at as u64,
            time: Timestamp(1),
            message: Message::from_parts(of.slice(at..at + length), 1, 2),
        };
        let is_in =
            |of: &Bytes, message: &StoredMessage| of.as_ptr_range().contains(&message.message.as_bytes().as_ptr());
        let mut messages: Vec<_> = (0..200).map(|n| slice(&chunk, n * 150, 140)).collect();
        messages.extend((0..10).map(|n| slice(&other, n * 6000, 100)));
        messages.push(slice(&chunk, 50_000, 100));
        let before = messages.clone();
        pack(&mut messages);
        assert!(messages.iter().zip(&before).all(|(now, then)| now.message == then.message && now.seq == then.seq));
        assert!(messages[..200].iter().all(|message| is_in(&chunk, message)));
        assert!(!messages[200..].iter().any(|message| is_in(&chunk, message) || is_in(&other, message)));
        drop(before);
        // One buffer for all that were copied.
        let starts: Vec<_> =
            messages[200..].iter().map(|message| message.message.as_bytes().as_ptr() as usize).collect();
        assert!(starts.windows(2).all(|pair| pair[1] == pair[0] + 100), "{starts:?}");
    }
}
