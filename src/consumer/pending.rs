//! Messages that are out without an ack: a queue in stream order, the times their waits end, and the line of those due
//! for redelivery.
//!
//! First deliveries come in stream order, so the queue is a ring that grows at the back; an acked entry in the middle
//! stays as a dead one until the front reaches it or the dead outnumber the living. Deadlines of first deliveries come in
//! time order, because they share one wait, so they are a plain queue too, checked against the entry when they come up;
//! the others (`+WPI`, a `-NAK` delay, later backoff steps) go to a heap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::types::Timestamp;

/// A message that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stream_seq: u64,
    /// The consumer sequence of its first delivery, which the floor goes by; 0 for a dead entry.
    pub(super) consumer_seq: u64,
    /// Deliveries so far.
    pub(super) count: u64,
    /// When it was last delivered, or worked on.
    pub(super) sent: Timestamp,
    /// When its wait ends; `NEVER` while it is in line for redelivery or without a limit.
    deadline: Timestamp,
    /// Its place in the redelivery line, 0 when it is not in it.
    ticket: u32,
    /// The client said when it wants it again, which a restart must not forget.
    pub(super) delayed: bool,
    /// The filter does not match it any more, so that a restart hears of it from its row only.
    pub(super) unfiltered: bool,
}

const NEVER: Timestamp = Timestamp(i64::MAX);

impl Entry {
    fn is_live(&self) -> bool {
        self.consumer_seq > 0
    }

    pub(super) fn is_in_line(&self) -> bool {
        self.ticket != 0
    }

    /// Whether more is known of it than that it is out.
    pub(super) fn has_row(&self) -> bool {
        self.count > 1 || self.delayed || self.unfiltered
    }

    /// When its wait ends, while it is waiting.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        (self.deadline != NEVER).then_some(self.deadline)
    }
}

/// All messages out without an ack.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Ascending by stream sequence; the front, if any, is alive.
    ring: VecDeque<Entry>,
    live: usize,
    /// Live entries delivered more than once.
    redelivered: usize,
    /// Deadlines of first deliveries, ascending; may be stale.
    regular: VecDeque<(Timestamp, u64)>,
    irregular: BinaryHeap<Reverse<(Timestamp, u64)>>,
    /// Stream sequence and ticket, first to go first; stale when the entry does not hold the ticket.
    line: VecDeque<(u64, u32)>,
    in_line: usize,
    last_ticket: u32,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub(super) fn redelivered(&self) -> usize {
        self.redelivered
    }

    /// How many wait in line for redelivery.
    pub(super) fn in_line(&self) -> usize {
        self.in_line
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.ring.front()
    }

    pub(super) fn get(&self, stream_seq: u64) -> Option<&Entry> {
        self.position(stream_seq).map(|at| &self.ring[at])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.ring.iter().filter(|entry| entry.is_live())
    }

    /// Adds a message above all others.
    ///
    /// # Panics
    /// When it is not above all others.
    pub(super) fn push(
        &mut self,
        stream_seq: u64,
        consumer_seq: u64,
        count: u64,
        now: Timestamp,
        deadline: Option<Timestamp>,
    ) {
        assert!(
            self.ring.back().is_none_or(|last| last.stream_seq < stream_seq),
            "first deliveries come in stream order"
        );
        assert!(consumer_seq > 0, "consumer sequences start at 1");
        let deadline = deadline.unwrap_or(NEVER);
        self.ring.push_back(Entry {
            stream_seq,
            consumer_seq,
            count,
            sent: now,
            deadline,
            ticket: 0,
            delayed: false,
            unfiltered: false,
        });
        self.live += 1;
        self.redelivered += usize::from(count > 1);
        if deadline == NEVER {
            return;
        }
        // The clock may have been set back, or the wait shortened.
        if self.regular.back().is_none_or(|&(last, _)| last <= deadline) {
            self.regular.push_back((deadline, stream_seq));
        } else {
            self.irregular.push(Reverse((deadline, stream_seq)));
        }
        self.sweep_deadlines();
    }

    /// Takes out a message; `None` when it is not there.
    pub(super) fn remove(&mut self, stream_seq: u64) -> Option<Entry> {
        let at = self.position(stream_seq)?;
        let entry = self.ring[at];
        self.live -= 1;
        self.redelivered -= usize::from(entry.count > 1);
        self.in_line -= usize::from(entry.is_in_line());
        if self.live == 0 {
            self.ring.clear();
            self.regular.clear();
            self.irregular.clear();
            self.line.clear();
        } else if at == 0 {
            self.ring.pop_front();
            while self.ring.front().is_some_and(|entry| !entry.is_live()) {
                self.ring.pop_front();
            }
        } else {
            let dead = &mut self.ring[at];
            (dead.consumer_seq, dead.ticket, dead.deadline) = (0, 0, NEVER);
            if self.ring.len() > 2 * self.live + 64 {
                self.ring.retain(Entry::is_live);
            }
        }
        Some(entry)
    }

    /// Sets anew when a message's wait ends, and takes it out of line.
    pub(super) fn set_deadline(&mut self, stream_seq: u64, deadline: Option<Timestamp>) {
        if let Some(at) = self.position(stream_seq) {
            let deadline = deadline.unwrap_or(NEVER);
            let entry = &mut self.ring[at];
            self.in_line -= usize::from(entry.is_in_line());
            (entry.deadline, entry.ticket, entry.delayed) = (deadline, 0, false);
            if deadline != NEVER {
                self.irregular.push(Reverse((deadline, stream_seq)));
                self.sweep_deadlines();
            }
        }
    }

    /// The client is at work on a message: its wait begins anew.
    pub(super) fn progress(&mut self, stream_seq: u64, now: Timestamp, deadline: Option<Timestamp>) {
        self.set_deadline(stream_seq, deadline);
        if let Some(at) = self.position(stream_seq) {
            self.ring[at].sent = now;
        }
    }

    /// Says whether the filter has stopped matching a message.
    pub(super) fn set_unfiltered(&mut self, stream_seq: u64, unfiltered: bool) {
        if let Some(at) = self.position(stream_seq) {
            self.ring[at].unfiltered = unfiltered;
        }
    }

    /// Lets a message wait until the client wants it again.
    pub(super) fn delay(&mut self, stream_seq: u64, until: Timestamp) {
        self.set_deadline(stream_seq, Some(until));
        if let Some(at) = self.position(stream_seq) {
            self.ring[at].delayed = true;
        }
    }

    /// Counts a redelivery of a message in line, which leaves the line.
    pub(super) fn redeliver(
        &mut self,
        stream_seq: u64,
        now: Timestamp,
        deadline: impl FnOnce(u64) -> Option<Timestamp>,
    ) {
        if let Some(at) = self.position(stream_seq) {
            let entry = &mut self.ring[at];
            entry.count += 1;
            entry.sent = now;
            self.redelivered += usize::from(entry.count == 2);
            let deadline = deadline(entry.count);
            self.set_deadline(stream_seq, deadline);
        }
    }

    /// Takes back the count of a delivery that did not arrive.
    pub(super) fn undo_delivery(&mut self, stream_seq: u64) {
        if let Some(at) = self.position(stream_seq) {
            let entry = &mut self.ring[at];
            entry.count = entry.count.saturating_sub(1);
            self.redelivered -= usize::from(entry.count == 1);
        }
    }

    /// Puts a message at the end of the line for redelivery, unless it is in it.
    pub(super) fn queue(&mut self, stream_seq: u64) {
        let Some(at) = self.position(stream_seq) else { return };
        let entry = &mut self.ring[at];
        if entry.is_in_line() {
            return;
        }
        self.last_ticket = self.last_ticket.wrapping_add(1).max(1);
        entry.ticket = self.last_ticket;
        entry.deadline = NEVER;
        self.in_line += 1;
        self.line.push_back((stream_seq, self.last_ticket));
        if self.line.len() > 2 * self.in_line + 64 {
            let line = std::mem::take(&mut self.line);
            self.line = line.into_iter().filter(|&(seq, ticket)| self.holds(seq, ticket)).collect();
        }
    }

    /// The next message in line, which stays in it.
    pub(super) fn next_in_line(&mut self) -> Option<Entry> {
        if self.in_line == 0 {
            self.line.clear();
            return None;
        }
        while let Some(&(stream_seq, ticket)) = self.line.front() {
            match self.get(stream_seq) {
                Some(entry) if entry.ticket == ticket => return Some(*entry),
                _ => self.line.pop_front(),
            };
        }
        None
    }

    /// Takes the messages whose wait has ended out of waiting, in stream order.
    pub(super) fn take_expired(&mut self, now: Timestamp, expired: &mut Vec<Entry>) {
        while let Some(&(deadline, stream_seq)) = self.regular.front() {
            if deadline > now {
                break;
            }
            self.regular.pop_front();
            self.expire(stream_seq, deadline, expired);
        }
        while let Some(&Reverse((deadline, stream_seq))) = self.irregular.peek() {
            if deadline > now {
                break;
            }
            self.irregular.pop();
            self.expire(stream_seq, deadline, expired);
        }
        expired.sort_unstable_by_key(|entry| entry.stream_seq);
    }

    fn expire(&mut self, stream_seq: u64, deadline: Timestamp, expired: &mut Vec<Entry>) {
        if let Some(at) = self.position(stream_seq) {
            let entry = &mut self.ring[at];
            if entry.deadline == deadline {
                entry.deadline = NEVER;
                expired.push(*entry);
            }
        }
    }

    /// When the next wait ends. Forgets stale deadlines on the way.
    pub(super) fn next_deadline(&mut self) -> Option<Timestamp> {
        while let Some(&(deadline, stream_seq)) = self.regular.front() {
            if self.get(stream_seq).is_some_and(|entry| entry.deadline == deadline) {
                break;
            }
            self.regular.pop_front();
        }
        while let Some(&Reverse((deadline, stream_seq))) = self.irregular.peek() {
            if self.get(stream_seq).is_some_and(|entry| entry.deadline == deadline) {
                break;
            }
            self.irregular.pop();
        }
        let regular = self.regular.front().map(|&(deadline, _)| deadline);
        let irregular = self.irregular.peek().map(|&Reverse((deadline, _))| deadline);
        match (regular, irregular) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Replaces all deadlines that are set, as after a change of the ack wait, but not those the clients have set.
    pub(super) fn replace_deadlines(&mut self, deadline: impl Fn(&Entry) -> Option<Timestamp>) {
        self.regular.clear();
        self.irregular.clear();
        let waiting: Vec<Entry> = self.iter().filter(|entry| entry.deadline != NEVER).copied().collect();
        for entry in waiting {
            match entry.delayed {
                true => self.delay(entry.stream_seq, entry.deadline),
                false => self.set_deadline(entry.stream_seq, deadline(&entry)),
            }
        }
    }

    fn holds(&self, stream_seq: u64, ticket: u32) -> bool {
        self.get(stream_seq).is_some_and(|entry| entry.ticket == ticket)
    }

    fn sweep_deadlines(&mut self) {
        // Most deadlines never come up, because the ack comes first: sweep when the stale ones are the majority.
        if self.regular.len() > 2 * self.live + 1024 {
            let regular = std::mem::take(&mut self.regular);
            self.regular = regular.into_iter().filter(|&(deadline, seq)| self.waits_for(seq, deadline)).collect();
        }
        if self.irregular.len() > 2 * self.live + 1024 {
            let irregular = std::mem::take(&mut self.irregular);
            self.irregular =
                irregular.into_iter().filter(|&Reverse((deadline, seq))| self.waits_for(seq, deadline)).collect();
        }
    }

    fn waits_for(&self, stream_seq: u64, deadline: Timestamp) -> bool {
        self.get(stream_seq).is_some_and(|entry| entry.deadline == deadline)
    }

    /// Where a live message is. Without gaps that is its distance from the front; with gaps it can only be nearer.
    fn position(&self, stream_seq: u64) -> Option<usize> {
        let first = self.ring.front()?.stream_seq;
        let guess = usize::try_from(stream_seq.checked_sub(first)?).unwrap_or(usize::MAX);
        let at = match self.ring.get(guess) {
            Some(entry) if entry.stream_seq == stream_seq => guess,
            _ => self.ring.binary_search_by_key(&stream_seq, |entry| entry.stream_seq).ok()?,
        };
        self.ring[at].is_live().then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Push { gap: u64, wait: Option<u64> },
        Remove(u64),
        SetDeadline(u64, Option<u64>),
        Queue(u64),
        Redeliver,
        Pass(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (1u64..5, prop::option::of(10u64..12)).prop_map(|(gap, wait)| Op::Push { gap, wait }),
            3 => (0u64..400).prop_map(Op::Remove),
            2 => (0u64..400, prop::option::of(0u64..30)).prop_map(|(seq, wait)| Op::SetDeadline(seq, wait)),
            2 => (0u64..400).prop_map(Op::Queue),
            2 => Just(Op::Redeliver),
            2 => (0u64..15).prop_map(Op::Pass),
        ]
    }

    #[derive(Debug, Default)]
    struct Model {
        entries: BTreeMap<u64, (u64, Option<i64>)>,
        line: Vec<u64>,
    }

    proptest! {
        /// Against a map, a list and a scan.
        #[test]
        fn equals_a_map_and_a_list(ops in prop::collection::vec(op(), 0..400)) {
            let mut pending = Pending::default();
            let mut model = Model::default();
            let (mut now, mut last) = (Timestamp(1), 0);
            let at = |now: Timestamp, wait: Option<u64>| wait.map(|wait| Timestamp(now.0 + wait as i64));
            for op in ops {
                match op {
                    Op::Push { gap, wait } => {
                        last += gap;
                        pending.push(last, last, 1, now, at(now, wait));
                        model.entries.insert(last, (1, at(now, wait).map(|at| at.0)));
                    }
                    Op::Remove(seq) => {
                        let found = pending.remove(seq).map(|entry| entry.count);
                        prop_assert_eq!(found, model.entries.remove(&seq).map(|(count, _)| count));
                        model.line.retain(|other| *other != seq);
                    }
                    Op::SetDeadline(seq, wait) => {
                        pending.set_deadline(seq, at(now, wait));
                        if let Some(entry) = model.entries.get_mut(&seq) {
                            entry.1 = at(now, wait).map(|at| at.0);
                            model.line.retain(|other| *other != seq);
                        }
                    }
                    Op::Queue(seq) => {
                        pending.queue(seq);
                        if let Some(entry) = model.entries.get_mut(&seq) && !model.line.contains(&seq) {
                            entry.1 = None;
                            model.line.push(seq);
                        }
                    }
                    Op::Redeliver => {
                        let next = pending.next_in_line().map(|entry| entry.stream_seq);
                        prop_assert_eq!(next, model.line.first().copied());
                        if let Some(seq) = next {
                            pending.redeliver(seq, now, |_| at(now, Some(10)));
                            model.line.remove(0);
                            let entry = model.entries.get_mut(&seq).unwrap();
                            *entry = (entry.0 + 1, Some(now.0 + 10));
                        }
                    }
                    Op::Pass(by) => {
                        now.0 += by as i64;
                        let mut expired = Vec::new();
                        pending.take_expired(now, &mut expired);
                        let expired: Vec<u64> = expired.iter().map(|entry| entry.stream_seq).collect();
                        let mut expected = Vec::new();
                        for (seq, entry) in &mut model.entries {
                            if entry.1.is_some_and(|deadline| deadline <= now.0) {
                                entry.1 = None;
                                expected.push(*seq);
                            }
                        }
                        prop_assert_eq!(&expired, &expected);
                        for seq in expired {
                            pending.queue(seq);
                            model.line.push(seq);
                        }
                    }
                }
                prop_assert_eq!(pending.len(), model.entries.len());
                prop_assert_eq!(pending.in_line(), model.line.len());
                prop_assert_eq!(pending.redelivered(), model.entries.values().filter(|entry| entry.0 > 1).count());
                prop_assert_eq!(pending.front().map(|entry| entry.stream_seq), model.entries.keys().next().copied());
                prop_assert_eq!(
                    pending.next_deadline().map(|at| at.0),
                    model.entries.values().filter_map(|entry| entry.1).min()
                );
                prop_assert_eq!(pending.iter().map(|entry| entry.stream_seq).collect::<Vec<_>>(),
                    model.entries.keys().copied().collect::<Vec<_>>());
            }
        }
    }
}
