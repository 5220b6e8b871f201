//! One stream: its configuration, its index, and the events that change them.

use std::sync::Arc;

use super::{Changes, Filter, Index, Published, Removal, RemovalReason, StreamConfig, StreamState};
use crate::types::{ApiError, Message, StoredMessage, Timestamp};

/// Storage's number of a stream, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// The pure log machine. Every `handle_*` pushes what must be written into `changes`.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    config: Arc<StreamConfig>,
    created: Timestamp,
    index: Index,
}

impl Stream {
    /// An empty stream; `config` has passed its check.
    pub fn new(id: StreamId, config: Arc<StreamConfig>, created: Timestamp) -> Stream {
        Stream { id, config, created, index: Index::default() }
    }

    pub fn id(&self) -> StreamId {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub fn config(&self) -> &Arc<StreamConfig> {
        &self.config
    }

    pub fn created(&self) -> Timestamp {
        self.created
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Recovery: one stored row, in ascending order of sequence.
    pub fn restore(&mut self, seq: u64, time: Timestamp, subject: &[u8], _headers: &[u8], accounted_bytes: u64) {
        self.index.append(seq, subject, accounted_bytes, time);
    }

    /// Recovery: what the rows alone cannot tell, after all of them.
    pub fn restore_floor(&mut self, last_seq: u64, last_time: Timestamp, first_seq: u64) {
        self.index.set_floor(first_seq, last_seq, last_time);
    }

    /// A message arrived on one of the stream's subjects. `interest` tells whether any consumer wants a subject; it is
    /// asked in interest streams only.
    ///
    /// # Errors
    /// As nats-server's PubAck error; nothing changed.
    pub fn handle_publish(
        &mut self,
        message: &Message,
        interest: &dyn Fn(&[u8]) -> bool,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<Published, ApiError> {
        let seq = self.index.last_seq() + 1;
        if self.config.retention == super::config::Retention::Interest && !interest(message.subject()) {
            self.index.set_floor(seq + 1, seq, now);
            changes.state_dirty = true;
            return Ok(Published::NoInterest { seq });
        }
        let accounted =
            StoredMessage::accounted_bytes(message.subject().len(), message.headers().len(), message.payload().len());
        self.index.append(seq, message.subject(), accounted, now);
        changes.puts.push(StoredMessage { seq, time: now, message: message.clone() });
        Ok(Published::Stored { seq })
    }

    /// A new configuration that has passed its update check; stricter limits apply at once.
    pub fn handle_update(&mut self, config: Arc<StreamConfig>, _now: Timestamp, _changes: &mut Changes) {
        self.config = config;
    }

    /// Removes what `filter` matches (everything without one), up to but not including `seq` when it is not 0, keeping
    /// the last `keep`. Returns how many were removed.
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
        let mut filter = filter.map_or(Filter::all(), |filter| Filter::new([filter]));
        let end = if seq == 0 { u64::MAX } else { seq };
        let count = self.index.count_from(0, &mut filter).saturating_sub(keep);
        let mut purged = 0;
        let mut from = 0;
        while let Some(next) = self.index.next(from, &mut filter).filter(|next| *next < end && purged < count) {
            self.remove(next, RemovalReason::Purge, changes);
            purged += 1;
            from = next + 1;
        }
        Ok(purged)
    }

    /// Deletes one message.
    ///
    /// # Errors
    /// When there is none, and on a sealed stream or one that denies deletes.
    pub fn handle_delete(&mut self, seq: u64, changes: &mut Changes) -> Result<(), ApiError> {
        if self.remove(seq, RemovalReason::Delete, changes) {
            Ok(())
        } else {
            Err(ApiError::SEQUENCE_NOT_FOUND.with(seq))
        }
    }

    /// A consumer is done with a message. In interest and work-queue streams the message leaves unless `still_needed`
    /// says that another consumer has not acked it yet. Returns whether it left.
    pub fn handle_consumed(
        &mut self,
        seq: u64,
        still_needed: &dyn Fn(u64, &[u8]) -> bool,
        changes: &mut Changes,
    ) -> bool {
        if self.config.retention == super::config::Retention::Limits {
            return false;
        }
        match self.index.subject_of(seq) {
            Some(subject) if !still_needed(seq, subject) => self.remove(seq, RemovalReason::Consumed, changes),
            _ => false,
        }
    }

    /// The set of consumers shrank. In interest streams every message that nobody needs any more leaves.
    pub fn handle_interest_lost(&mut self, still_needed: &dyn Fn(u64, &[u8]) -> bool, changes: &mut Changes) {
        let mut from = 0;
        while let Some(seq) = self.index.next(from, &mut Filter::all()) {
            self.handle_consumed(seq, still_needed, changes);
            from = seq + 1;
        }
    }

    /// Time passed: whatever is due at `now` happens, in bounded slices; ask [`Stream::next_deadline`] again after it.
    pub fn handle_expiry(&mut self, now: Timestamp, changes: &mut Changes) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.remove(self.index.first_seq(), RemovalReason::Age, changes);
        }
    }

    /// When [`Stream::handle_expiry`] wants to be called next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.config.max_age.is_zero() {
            return None;
        }
        self.index.time_of(self.index.first_seq()).map(|time| time + self.config.max_age.duration())
    }

    /// Without `subjects`, `deleted` and the consumers, which only those who asked for them pay for.
    pub fn state(&self) -> StreamState {
        let empty = self.index.is_empty();
        StreamState {
            messages: self.index.len(),
            bytes: self.index.bytes(),
            first_seq: if self.index.last_seq() == 0 { 0 } else { self.index.first_seq() },
            first_time: self.index.time_of(self.index.first_seq()).unwrap_or_default(),
            last_seq: self.index.last_seq(),
            last_time: self.index.last_time(),
            num_subjects: self.index.num_subjects(),
            num_deleted: if empty { 0 } else { self.index.last_seq() + 1 - self.index.first_seq() - self.index.len() },
            ..StreamState::default()
        }
    }

    fn remove(&mut self, seq: u64, reason: RemovalReason, changes: &mut Changes) -> bool {
        let Some(row) = self.index.remove(seq) else { return false };
        changes.removes.push(Removal::One { seq, subject: row.subject, reason });
        changes.state_dirty |= self.index.is_empty() || seq == self.index.last_seq();
        true
    }
}
