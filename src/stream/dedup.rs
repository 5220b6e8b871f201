//! The message ids of the dedup window (`Nats-Msg-Id`).

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::index::{BadSummary, put, take};
use crate::types::Timestamp;

/// An id, the sequence that got it and when.
type Held<'a> = (&'a [u8], u64, Timestamp);

/// Expired ids are forgotten this much later than they stop to count, so that a timer need not run for each of them.
const FORGET_AFTER: Duration = Duration::from_secs(1);

/// Ids in order of arrival, found by hash. Each id is held once.
#[derive(Debug, Default)]
pub struct Dedup {
    window: Duration,
    entries: VecDeque<Entry>,
    /// How many entries have left the front: an entry's number is this plus its place.
    gone: u64,
    hasher: DefaultHashBuilder,
    /// Numbers of the newest entry of each id.
    numbers: HashTable<u64>,
}

#[derive(Debug)]
struct Entry {
    id: Box<[u8]>,
    seq: u64,
    time: Timestamp,
}

impl Dedup {
    /// A zero window remembers nothing.
    pub fn new(window: Duration) -> Dedup {
        Dedup { window, ..Dedup::default() }
    }

    pub fn set_window(&mut self, window: Duration, now: Timestamp) {
        self.window = window;
        self.expire(now);
    }

    /// Ids held, expired ones included until they are forgotten.
    pub fn held(&self) -> usize {
        self.entries.len()
    }

    /// The sequence that `id` got within the window before `now`.
    pub fn find(&self, id: &[u8], now: Timestamp) -> Option<u64> {
        let number = *self.numbers.find(self.hasher.hash_one(id), |&number| *self.entry(number).id == *id)?;
        let entry = self.entry(number);
        (now.since(entry.time) < self.window).then_some(entry.seq)
    }

    /// Remembers an id; what it stood for before is forgotten.
    pub fn insert(&mut self, id: &[u8], seq: u64, now: Timestamp) {
        if self.window.is_zero() {
            return;
        }
        // Two out for one in: the expired never pile up, however rarely the timer runs.
        for _ in 0..2 {
            if self.entries.front().is_none_or(|entry| now.since(entry.time) < self.window) {
                break;
            }
            self.forget_front();
        }
        let number = self.gone + self.entries.len() as u64;
        self.entries.push_back(Entry { id: id.into(), seq, time: now });
        let hash = self.hasher.hash_one(id);
        let (entries, gone, hasher) = (&self.entries, self.gone, &self.hasher);
        let id_of = |number: u64| &*entries[(number - gone) as usize].id;
        match self.numbers.find_mut(hash, |&other| *id_of(other) == *id) {
            Some(slot) => *slot = number,
            None => {
                self.numbers.insert_unique(hash, number, |&other| hasher.hash_one(id_of(other)));
            }
        }
    }

    /// Writes the ids that sequences from `from` to below `end` got within the window before `now`.
    pub fn write(&self, from: u64, end: u64, now: Timestamp, out: &mut Vec<u8>) {
        let (first, last) = (self.place(from), self.place(end));
        let held = self.entries.range(first..last.max(first)).filter(|entry| now.since(entry.time) < self.window);
        for entry in held {
            put(out, entry.seq);
            put(out, entry.time.0 as u64);
            put(out, entry.id.len() as u64);
            out.extend_from_slice(&entry.id);
        }
    }

    /// Reads what [`Dedup::write`] wrote: ids with their sequences and times.
    pub fn read(mut bytes: &[u8]) -> Result<Vec<Held<'_>>, BadSummary> {
        let mut ids = Vec::new();
        while !bytes.is_empty() {
            let (seq, time) = (take(&mut bytes)?, Timestamp(take(&mut bytes)? as i64));
            let len = usize::try_from(take(&mut bytes)?).map_err(|_| BadSummary)?;
            let (id, rest) = bytes.split_at_checked(len).ok_or(BadSummary)?;
            ids.push((id, seq, time));
            bytes = rest;
        }
        Ok(ids)
    }

    /// The first entry of `seq` or a later one; they arrive in order of sequence.
    fn place(&self, seq: u64) -> usize {
        self.entries.partition_point(|entry| entry.seq < seq)
    }

    /// Forgets what is out of the window.
    pub fn expire(&mut self, now: Timestamp) {
        while self.entries.front().is_some_and(|entry| now.since(entry.time) >= self.window) {
            self.forget_front();
        }
        if self.entries.is_empty() {
            self.entries.shrink_to_fit();
            self.numbers.shrink_to_fit(|_| unreachable!("it is empty"));
        }
    }

    /// When there will be something to forget.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.entries.front().map(|entry| entry.time + self.window + FORGET_AFTER)
    }

    fn entry(&self, number: u64) -> &Entry {
        &self.entries[(number - self.gone) as usize]
    }

    fn forget_front(&mut self) {
        let number = self.gone;
        if let Some(front) = self.entries.front()
            && let Ok(slot) = self.numbers.find_entry(self.hasher.hash_one(&*front.id), |&other| other == number)
        {
            slot.remove();
        }
        self.entries.pop_front();
        self.gone += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_a_list(steps in prop::collection::vec((0u8..6, 0i64..40, any::<bool>(), any::<bool>()), 1..200)) {
            let window = Duration::from_nanos(100);
            let mut dedup = Dedup::new(window);
            let mut model: Vec<(u8, u64, i64)> = Vec::new();
            let mut now = 1_000;
            for (seq, (id, step, insert, expire)) in steps.into_iter().enumerate() {
                now += step;
                let expected =
                    model.iter().rev().find(|entry| entry.0 == id).filter(|entry| now - entry.2 < 100).map(|entry| entry.1);
                prop_assert_eq!(dedup.find(&[id], Timestamp(now)), expected);
                if insert {
                    dedup.insert(&[id], seq as u64, Timestamp(now));
                    model.push((id, seq as u64, now));
                }
                if expire {
                    dedup.expire(Timestamp(now));
                    prop_assert_eq!(dedup.held(), model.iter().filter(|entry| now - entry.2 < 100).count());
                }
            }
        }
    }

    #[test]
    fn a_zero_window_remembers_nothing() {
        let mut dedup = Dedup::new(Duration::ZERO);
        dedup.insert(b"a", 1, Timestamp(1));
        assert_eq!(dedup.find(b"a", Timestamp(1)), None);
        assert_eq!(dedup.next_deadline(), None);
    }
}
