//! The reply subjects a client has received requests with, and may answer on although it may not publish there.

use hashbrown::HashMap;

use super::permission::ResponseLimits;
use crate::types::Timestamp;

/// Reply subjects remembered before the expired are looked for (nats-server `replyPermLimit`).
const PRUNE_ABOVE: usize = 4096;
/// Above this many live ones the memory of all is given up: a client that never answers must not fill memory.
const SUBJECTS_MAX: usize = 65_536;
/// The same for what they hold: replies may be long.
const BYTES_MAX: usize = 4 << 20;

/// See the module.
#[derive(Clone, Debug)]
pub struct Responses {
    limits: ResponseLimits,
    by_subject: HashMap<Box<[u8]>, Open>,
    /// Of the subjects.
    bytes: usize,
    prune_above: usize,
    /// Bytes at which the expired are looked for.
    prune_above_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since: Timestamp,
    used: u32,
}

impl Responses {
    pub fn new(limits: ResponseLimits) -> Responses {
        Responses {
            limits,
            by_subject: HashMap::new(),
            bytes: 0,
            prune_above: PRUNE_ABOVE,
            prune_above_bytes: BYTES_MAX / 4,
        }
    }

    /// A request with this reply subject has been delivered.
    pub fn note(&mut self, reply: &[u8], now: Timestamp) {
        if self.by_subject.len() >= self.prune_above || self.bytes >= self.prune_above_bytes {
            let limits = self.limits;
            self.by_subject.retain(|_, open| !is_over(*open, limits, now));
            self.bytes = self.by_subject.keys().map(|subject| subject.len()).sum();
            if self.by_subject.len() >= SUBJECTS_MAX || self.bytes >= BYTES_MAX {
                self.by_subject.clear();
                self.bytes = 0;
            }
            self.prune_above = (2 * self.by_subject.len()).max(PRUNE_ABOVE);
            self.prune_above_bytes = (2 * self.bytes).clamp(BYTES_MAX / 4, BYTES_MAX);
        }
        if self.by_subject.insert(reply.into(), Open { since: now, used: 0 }).is_none() {
            self.bytes += reply.len();
        }
    }

    /// Whether an answer may be published on `subject`; counts it.
    pub fn take(&mut self, subject: &[u8], now: Timestamp) -> bool {
        let Some(open) = self.by_subject.get_mut(subject) else { return false };
        if is_over(*open, self.limits, now) {
            self.by_subject.remove(subject);
            self.bytes -= subject.len();
            return false;
        }
        open.used = open.used.saturating_add(1);
        true
    }

    /// Reply subjects remembered.
    pub fn len(&self) -> usize {
        self.by_subject.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }
}

fn is_over(open: Open, limits: ResponseLimits, now: Timestamp) -> bool {
    limits.msgs_max.is_some_and(|max| open.used >= max)
        || limits.expires.is_some_and(|expires| now.since(open.since) > expires)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_that_never_answers_fills_no_memory() {
        let limits = ResponseLimits { msgs_max: Some(1), expires: Some(Duration::from_secs(60)) };
        let mut responses = Responses::new(limits);
        let reply = |number: u32| [&number.to_be_bytes()[..], &[b'r'; 4000]].concat();
        for number in 0..10_000 {
            responses.note(&reply(number), Timestamp(1));
            assert!(responses.bytes <= BYTES_MAX + 4004, "{}", responses.bytes);
            assert!(responses.take(&reply(number), Timestamp(1)) && !responses.take(&reply(number), Timestamp(1)));
            responses.note(&reply(number), Timestamp(1));
        }
        assert_eq!(responses.bytes, responses.by_subject.keys().map(|subject| subject.len()).sum::<usize>());
    }
}
