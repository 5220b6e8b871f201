//! What one consumer is going to deliver next, read from the log in stretches.

use std::collections::VecDeque;

use super::log::Log;
use crate::storage::ReadError;
use crate::types::StoredMessage;

const MESSAGES_MAX: usize = 512;
const BYTES_MAX: usize = 512 * 1024;
/// A wanted sequence this close behind the last one counts as going on.
const STRIDE_MAX: u64 = 64;

/// See the module. Reads one message at a time until the consumer is seen to go through the log in order.
#[derive(Default)]
pub(super) struct ReadAhead {
    messages: VecDeque<StoredMessage>,
    /// The last sequence asked for.
    last: u64,
    /// How many to read at once.
    stretch: usize,
}

impl ReadAhead {
    /// The message `seq`; `None` when it is no longer there.
    pub(super) fn get(&mut self, log: &Log, seq: u64) -> Result<Option<StoredMessage>, ReadError> {
        let in_order = seq > self.last && seq - self.last <= STRIDE_MAX;
        self.last = seq;
        while self.messages.front().is_some_and(|front| front.seq < seq) {
            self.messages.pop_front();
        }
        if let Some(front) = self.messages.front()
            && in_order
        {
            if front.seq == seq {
                return Ok(self.messages.pop_front());
            }
            return log.read(seq);
        }
        self.messages.clear();
        if !in_order {
            self.stretch = 1;
            return log.read(seq);
        }
        self.stretch = (self.stretch * 4).clamp(8, MESSAGES_MAX);
        self.messages.extend(log.read_range(seq, self.stretch, BYTES_MAX)?);
        match self.messages.front() {
            Some(front) if front.seq == seq => Ok(self.messages.pop_front()),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::log::MemoryLog;
    use super::*;
    use crate::types::{Message, Timestamp};

    #[test]
    fn every_way_through_the_log_finds_its_messages() {
        let memory = MemoryLog::default();
        for seq in (1..=2000).filter(|seq: &u64| !seq.is_multiple_of(7)) {
            let message = Message::new(b"a", b"", seq.to_string().as_bytes());
            memory.lock().insert(seq, StoredMessage { seq, time: Timestamp(1), message });
        }
        let log = Log::Memory(Arc::new(memory));
        let mut ahead = ReadAhead::default();
        let mut check = |seq: u64| {
            let found = ahead.get(&log, seq).unwrap().map(|message| message.seq);
            assert_eq!(found, (!seq.is_multiple_of(7) && seq <= 2000).then_some(seq), "{seq}");
        };
        (1..=2001).for_each(&mut check);
        (1..=2001).step_by(5).for_each(&mut check);
        (1..=2001).rev().for_each(&mut check);
        [1, 1, 2, 2, 3, 1500, 1501, 1502, 4, 5, 6, 7, 8].into_iter().for_each(&mut check);
    }
}
