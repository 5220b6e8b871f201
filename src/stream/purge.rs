//! Purges, rollups and deletes.

use super::config::Storage;
use super::machine::Stream;
use super::{Changes, Filter, Removal, RemovalReason};
use crate::types::ApiError;

impl Stream {
    /// Removes what `filter` matches (everything without one): only sequences below `seq` when that is not 0, and not the
    /// last `keep`. Without a filter, a `seq` above the last sequence also moves the last sequence up to it. Returns how
    /// many were removed.
    ///
    /// # Errors
    /// On a sealed stream, or one that denies purges.
    pub fn handle_purge(
        &mut self,
        filter: Option<&[u8]>,
        seq: u64,
        keep: u64,
        changes: &mut Changes,
    ) -> Result<u64, ApiError> {
        if self.config.sealed {
            return Err(ApiError::STREAM_SEALED);
        }
        if self.config.deny_purge {
            return Err(ApiError::STREAM_PURGE_FAILED_F.with("stream purge not permitted"));
        }
        if filter.is_none() && seq == 0 && keep == 0 && !self.config.sources.is_empty() {
            self.forget_former_sources(true);
            changes.sources_dirty = true;
        }
        Ok(self.purge(filter.unwrap_or_default(), seq, keep, RemovalReason::Purge, changes))
    }

    /// Deletes one message.
    ///
    /// # Errors
    /// When there is none, and on a sealed stream or one that denies deletes.
    pub fn handle_delete(&mut self, seq: u64, changes: &mut Changes) -> Result<(), ApiError> {
        if self.config.sealed {
            return Err(ApiError::STREAM_SEALED);
        }
        if self.config.deny_delete {
            return Err(ApiError::STREAM_MSG_DELETE_FAILED_F.with("message delete not permitted"));
        }
        if self.remove(seq, RemovalReason::Delete, changes) {
            return Ok(());
        }
        Err(if self.config.storage == Storage::Memory {
            ApiError::SEQUENCE_NOT_FOUND.with(seq)
        } else if seq > self.index.last_seq() {
            ApiError::STREAM_MSG_DELETE_FAILED_F.with("stream store EOF")
        } else if seq < self.index.first_seq() {
            ApiError::STREAM_MSG_DELETE_FAILED_F.with("no message found")
        } else {
            ApiError::SEQUENCE_NOT_FOUND.with(seq)
        })
    }

    pub(super) fn purge(
        &mut self,
        filter: &[u8],
        seq: u64,
        keep: u64,
        reason: RemovalReason,
        changes: &mut Changes,
    ) -> u64 {
        let mut filter = Filter::new([filter]);
        if filter.is_all() && keep == 0 {
            return match seq {
                0 => self.purge_all(reason, changes),
                1 => 0,
                seq => self.purge_below(seq, reason, changes),
            };
        }
        let end = if seq == 0 { u64::MAX } else { seq };
        let seqs = self.index.matching(&mut filter);
        let most = seqs.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
        let mut purged = 0;
        for &seq in seqs[..most].iter().take_while(|&&seq| seq < end) {
            self.remove(seq, reason, changes);
            purged += 1;
        }
        purged
    }

    fn purge_all(&mut self, reason: RemovalReason, changes: &mut Changes) -> u64 {
        let purged = self.index.len();
        if purged > 0 {
            changes.removes.push(Removal::Range { from: self.index.first_seq(), to: self.index.last_seq(), reason });
            self.lifetimes.forget_up_to(self.index.last_seq());
            self.schedules.remove_up_to(self.index.last_seq());
            self.index.clear();
            changes.state_dirty = true;
        }
        self.has_been_purged = true;
        purged
    }

    fn purge_below(&mut self, seq: u64, reason: RemovalReason, changes: &mut Changes) -> u64 {
        if seq > self.index.last_seq() {
            let purged = self.purge_all(reason, changes);
            if seq - 1 > self.index.last_seq() {
                changes.removes.push(Removal::Range { from: self.index.last_seq() + 1, to: seq - 1, reason });
                self.index.skip_to(seq - 1, self.index.last_time());
                changes.state_dirty = true;
            }
            return purged;
        }
        let (first, before) = (self.index.first_seq(), self.index.len());
        while self.index.first_seq() < seq {
            self.index.remove(self.index.first_seq());
        }
        let purged = before - self.index.len();
        if purged > 0 {
            changes.removes.push(Removal::Range { from: first, to: seq - 1, reason });
            self.lifetimes.forget_up_to(seq - 1);
            self.schedules.remove_up_to(seq - 1);
        }
        purged
    }
}
