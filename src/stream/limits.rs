//! `max_msgs`, `max_bytes`, `max_msgs_per_subject`, and what each discard policy makes of them.

use super::config::Discard;
use super::machine::Stream;
use super::{Changes, RemovalReason, SubjectRef};
use crate::types::ApiError;

/// A limit as a number that is never reached when there is none (-1, 0).
pub(super) fn limit(configured: i64) -> u64 {
    if configured > 0 { configured as u64 } else { u64::MAX }
}

impl Stream {
    /// Whether discard-new refuses a message of this subject and size, in nats-server's words (`filestore.go`,
    /// `storeRawMsg`). A message that will replace its subject's oldest passes where that makes the room. A rollup passes
    /// the limit per subject, because it restores it.
    pub(super) fn refuse_new(&self, subject: &[u8], accounted_bytes: u64, is_rollup: bool) -> Result<(), ApiError> {
        let config = &*self.config;
        if config.discard != Discard::New {
            return Ok(());
        }
        let refused = |why: &str| Err(ApiError::STREAM_STORE_FAILED_F.with(why));
        let replaces = self.index.count_for(subject) >= limit(config.max_msgs_per_subject);
        if replaces && config.discard_new_per_subject && !is_rollup {
            return refused("maximum messages per subject exceeded");
        }
        if self.index.len() >= limit(config.max_msgs) && !replaces {
            return refused("maximum messages exceeded");
        }
        if self.index.bytes() + accounted_bytes > limit(config.max_bytes) {
            let first = self.index.first_for(subject).filter(|_| replaces);
            let freed = first.and_then(|seq| self.index.accounted_bytes_of(seq)).unwrap_or(0);
            if freed < accounted_bytes {
                return refused("maximum bytes exceeded");
            }
        }
        Ok(())
    }

    /// Brings a subject that now has `count` messages, the oldest of them at `first`, back under its limit.
    pub(super) fn enforce_subject_limit(&mut self, subject: &[u8], count: u64, first: u64, changes: &mut Changes) {
        let excess = count.saturating_sub(limit(self.config.max_msgs_per_subject));
        if excess == 0 {
            return;
        }
        self.remove(first, RemovalReason::Limit, changes);
        for _ in 1..excess {
            let first = self.index.first_for(subject).expect("more messages than the limit are left");
            self.remove(first, RemovalReason::Limit, changes);
        }
    }

    /// Lets the oldest go until the stream is within its size, when its policy is to discard old ones.
    pub(super) fn enforce_size(&mut self, changes: &mut Changes) {
        if self.config.discard != Discard::Old {
            return;
        }
        let (max_msgs, max_bytes) = (limit(self.config.max_msgs), limit(self.config.max_bytes));
        while self.index.len() > max_msgs || self.index.bytes() > max_bytes {
            if !self.remove(self.index.first_seq(), RemovalReason::Limit, changes) {
                break;
            }
        }
    }

    /// After the limits themselves changed.
    pub(super) fn enforce_all_limits(&mut self, changes: &mut Changes) {
        if self.config.max_msgs_per_subject > 0 {
            let above: Vec<SubjectRef> = self.index.subjects_above(limit(self.config.max_msgs_per_subject));
            for subject in above {
                let first = self.index.first_for(&subject).expect("a subject above its limit has messages");
                self.enforce_subject_limit(&subject, self.index.count_for(&subject), first, changes);
            }
        }
        self.enforce_size(changes);
    }
}
