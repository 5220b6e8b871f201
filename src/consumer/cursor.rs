//! Where a consumer stands in the stream: the next message to deliver for the first time, and how many there are.
//!
//! The count is kept by being told of every message that becomes visible and every one that leaves, and always equals a
//! recount. It goes by the index as it is now: a removal has to be told at once, before anything else is asked. Of several
//! messages that leave together all are gone before the first is told, so what cannot be counted down one by one is
//! counted anew only once all have been told, by [`Cursor::settle`].

use std::collections::{BTreeSet, VecDeque};

use super::config::{ConsumerConfig, DeliverPolicy};
use crate::stream::{Filter, Index, Removal};

/// The cursor.
#[derive(Debug)]
pub(super) struct Cursor {
    filter: Filter,
    /// Everything below has been delivered or does not match.
    next: u64,
    /// The last message known to be visible; those above do not match.
    visible: u64,
    /// Visible, matching, not delivered, not acked ahead.
    pending: u64,
    /// `pending` is to be counted anew.
    stale: bool,
    /// What `last_per_subject` still has to deliver before going on in order.
    skip: Option<SkipList>,
    /// Acked before they were delivered: their delivery was forgotten in a crash, their ack was not. The filter may
    /// have stopped matching some.
    ahead: BTreeSet<u64>,
}

#[derive(Debug)]
struct SkipList {
    seqs: VecDeque<u64>,
    /// Ordinary delivery goes on after this.
    until: u64,
}

impl Cursor {
    /// Stands where the deliver policy says (nats-server `selectStartingSeqNo`). Messages up to `visible` are durable.
    pub(super) fn start(config: &ConsumerConfig, index: &Index, visible: u64) -> Cursor {
        let mut filter = Filter::new(config.filters());
        let (first, last) = (index.first_seq(), index.last_seq());
        let mut skip = None;
        let next = match config.deliver_policy {
            DeliverPolicy::All => first,
            DeliverPolicy::Last if filter.is_all() => last,
            DeliverPolicy::Last => index.last_per_subject(&mut filter, last).last().copied().unwrap_or(0),
            DeliverPolicy::New => last + 1,
            DeliverPolicy::ByStartSequence => config.opt_start_seq,
            DeliverPolicy::ByStartTime => {
                let start = config.opt_start_time.map_or(first, |time| index.seq_at_time(time));
                index.next(start, &mut filter).filter(|&seq| seq < last).unwrap_or(start)
            }
            DeliverPolicy::LastPerSubject => {
                let seqs: VecDeque<u64> = index.last_per_subject(&mut filter, visible).into();
                let next = seqs.front().copied().unwrap_or(visible);
                skip = (!seqs.is_empty()).then_some(SkipList { seqs, until: visible });
                next
            }
        };
        let next = if config.deliver_policy == DeliverPolicy::ByStartSequence { next } else { next.min(last + 1) };
        let next = next.max(first).max(1);
        let mut cursor = Cursor { filter, next, visible, pending: 0, stale: true, skip, ahead: BTreeSet::new() };
        cursor.recount(index);
        cursor
    }

    /// Stands behind `delivered`, as found at recovery. `ahead` is what was acked above it.
    pub(super) fn resume(
        config: &ConsumerConfig,
        index: &Index,
        visible: u64,
        delivered: u64,
        ahead: impl Iterator<Item = u64>,
        skip_until: u64,
    ) -> Cursor {
        let mut filter = Filter::new(config.filters());
        let mut skip = None;
        if delivered < skip_until {
            let mut seqs: VecDeque<u64> = index.last_per_subject(&mut filter, skip_until.min(visible)).into();
            seqs.retain(|&seq| seq > delivered);
            skip = (!seqs.is_empty()).then_some(SkipList { seqs, until: skip_until });
        }
        let next = if skip.is_none() { (delivered + 1).max(skip_until + 1) } else { delivered + 1 };
        let ahead = ahead.filter(|&seq| seq >= next && index.exists(seq)).collect();
        let mut cursor = Cursor { filter, next, visible, pending: 0, stale: true, skip, ahead };
        cursor.recount(index);
        cursor
    }

    pub(super) fn filter_mut(&mut self) -> &mut Filter {
        &mut self.filter
    }

    pub(super) fn matches(&self, subject: &[u8]) -> bool {
        self.filter.matches(subject)
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.next
    }

    /// Messages not delivered yet, once [settled](Cursor::settle).
    pub(super) fn pending(&self) -> u64 {
        debug_assert!(!self.stale, "the count is settled before it is asked for");
        self.pending
    }

    /// Counts anew what a removal has left uncounted. Every removal has been told.
    pub(super) fn settle(&mut self, index: &Index) {
        if self.stale {
            self.recount(index);
        }
    }

    pub(super) fn has_passed(&self, seq: u64) -> bool {
        self.next > seq
    }

    /// A message has become visible.
    pub(super) fn append(&mut self, seq: u64, subject: &[u8], index: &Index) {
        if seq <= self.visible {
            return;
        }
        self.visible = seq;
        if self.filter.is_all() || self.filter.matches(subject) {
            self.pending += u64::from(!self.stale && seq >= self.next && index.exists(seq));
        }
    }

    /// Messages have left the index.
    pub(super) fn remove(&mut self, removal: &Removal) {
        match removal {
            Removal::One { seq, subject, .. } => {
                if !self.ahead.remove(seq) && !self.stale && self.is_ahead(*seq) && self.filter.matches(subject) {
                    self.pending = self.pending.saturating_sub(1);
                }
                if let Some(skip) = &mut self.skip
                    && let Ok(at) = skip.seqs.binary_search(seq)
                {
                    skip.seqs.remove(at);
                }
            }
            Removal::Range { from, to, .. } => {
                self.ahead.retain(|seq| seq < from || seq > to);
                if let Some(skip) = &mut self.skip {
                    skip.seqs.retain(|seq| seq < from || seq > to);
                }
                self.stale |= *to >= self.next;
            }
        }
    }

    /// Whether `seq`, if it matches, is counted as not delivered yet.
    fn is_ahead(&self, seq: u64) -> bool {
        match &self.skip {
            Some(skip) if seq <= skip.until => skip.seqs.binary_search(&seq).is_ok(),
            _ => seq >= self.next && seq <= self.visible,
        }
    }

    /// Goes on to `seq`, if that is further: nothing below exists any more, or it is done.
    pub(super) fn jump(&mut self, seq: u64) {
        if self.next < seq {
            self.next = seq;
            if let Some(skip) = &mut self.skip {
                skip.seqs.retain(|&left| left >= seq);
                if skip.seqs.is_empty() {
                    self.next = seq.max(skip.until + 1);
                    self.skip = None;
                }
            }
            self.stale = true;
        }
    }

    /// The next message to deliver, if one is visible. It stays the next until [`Cursor::advance`].
    pub(super) fn peek(&mut self, index: &Index) -> Option<u64> {
        if let Some(skip) = &mut self.skip {
            while let Some(&seq) = skip.seqs.front() {
                if index.exists(seq) && !self.ahead.contains(&seq) {
                    return Some(seq);
                }
                skip.seqs.pop_front();
            }
            self.next = self.next.max(skip.until + 1);
            self.skip = None;
        }
        while self.next <= self.visible {
            match index.next(self.next, &mut self.filter).filter(|&seq| seq <= self.visible) {
                None => self.next = self.visible + 1,
                Some(seq) => {
                    self.next = seq;
                    if self.ahead.is_empty() || !self.ahead.remove(&seq) {
                        return Some(seq);
                    }
                    self.next = seq + 1;
                }
            }
        }
        None
    }

    /// `seq`, just peeked, is delivered.
    pub(super) fn advance(&mut self, seq: u64) {
        self.pending = self.pending.saturating_sub(1);
        self.next = seq + 1;
        if let Some(skip) = &mut self.skip {
            skip.seqs.pop_front();
            if skip.seqs.is_empty() {
                self.next = skip.until + 1;
                self.skip = None;
            }
        }
    }

    /// A message is acked that has not been delivered since the restart; `false` when there is nothing to ack.
    pub(super) fn ack_ahead(&mut self, seq: u64, index: &Index) -> bool {
        self.settle(index);
        let wanted = index.subject_of(seq).is_some_and(|subject| self.filter.matches(subject));
        if !wanted || !self.is_ahead(seq) || !self.ahead.insert(seq) {
            return false;
        }
        self.pending = self.pending.saturating_sub(1);
        true
    }

    /// Whether `seq` was acked ahead of its delivery.
    pub(super) fn is_acked_ahead(&self, seq: u64) -> bool {
        self.ahead.contains(&seq)
    }

    /// Takes other filters, from here on. Messages up to `visible` are durable.
    pub(super) fn set_filter(&mut self, config: &ConsumerConfig, index: &Index, visible: u64) {
        self.filter = Filter::new(config.filters());
        self.visible = self.visible.max(visible);
        if let Some(skip) = &mut self.skip {
            // As a restart finds them.
            skip.seqs = index.last_per_subject(&mut self.filter, skip.until.min(self.visible)).into();
            skip.seqs.retain(|&seq| seq >= self.next);
        }
        self.recount(index);
    }

    /// `seq` is not to be delivered, should it still be ahead.
    pub(super) fn pass_over(&mut self, seq: u64) {
        if seq >= self.next {
            self.ahead.insert(seq);
        }
    }

    fn recount(&mut self, index: &Index) {
        self.pending = self.recounted(index);
        self.stale = false;
    }

    /// The count, anew.
    pub(super) fn recounted(&mut self, index: &Index) -> u64 {
        let mut from = self.next;
        let mut count = 0;
        if let Some(skip) = &self.skip {
            count += skip.seqs.iter().filter(|&&seq| index.exists(seq)).count() as u64;
            from = from.max(skip.until + 1);
        }
        if from <= self.visible {
            count += index.count_from(from, &mut self.filter) - index.count_from(self.visible + 1, &mut self.filter);
        }
        // What an earlier filter matched may be among them.
        let matched = |seq| index.subject_of(seq).is_some_and(|subject| self.filter.matches(subject));
        let done = self.ahead.range(self.next..).filter(|&&seq| self.is_ahead(seq) && matched(seq)).count();
        count.saturating_sub(done as u64)
    }
}
