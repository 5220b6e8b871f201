//! The reply subjects a client has received requests with, and may answer on although it may not publish there.

use hashbrown::HashMap;

use super::permission::ResponseLimits;
use crate::types::Timestamp;

/// Reply subjects remembered before the expired are looked for (nats-server `replyPermLimit`).
const PRUNE_ABOVE: usize = 4096;
/// Above this many live ones the memory of all is given up: a client that never answers must not fill memory.
const SUBJECTS_MAX: usize = 65_536;

/// See the module.
#[derive(Clone, Debug)]
pub struct Responses {
    limits: ResponseLimits,
    by_subject: HashMap<Box<[u8]>, Open>,
    prune_above: usize,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since: Timestamp,
    used: u32,
}

impl Responses {
    pub fn new(limits: ResponseLimits) -> Responses {
        Responses { limits, by_subject: HashMap::new(), prune_above: PRUNE_ABOVE }
    }

    /// A request with this reply subject has been delivered.
    pub fn note(&mut self, reply: &[u8], now: Timestamp) {
        if self.by_subject.len() >= self.prune_above {
            let limits = self.limits;
            self.by_subject.retain(|_, open| !is_over(*open, limits, now));
            if self.by_subject.len() >= SUBJECTS_MAX {
                self.by_subject.clear();
            }
            self.prune_above = (2 * self.by_subject.len()).max(PRUNE_ABOVE);
        }
        self.by_subject.insert(reply.into(), Open { since: now, used: 0 });
    }

    /// Whether an answer may be published on `subject`; counts it.
    pub fn take(&mut self, subject: &[u8], now: Timestamp) -> bool {
        let Some(open) = self.by_subject.get_mut(subject) else { return false };
        if is_over(*open, self.limits, now) {
            self.by_subject.remove(subject);
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
