//! The log as consumers see it: which sequences live, of which subject, size and time. Payloads are not here.
//!
//! Rows lie in [`segment`]s of 65,536 sequences; every subject is a small number ([`subjects`]) and its messages form a
//! doubly linked chain ([`links`]), so that appending and removing are constant and the neighbours of a message of a
//! subject are one step away. Filters scan the segments' arrays of subject numbers and skip the segments whose
//! [`bloom`] holds none of theirs. Filters with wildcards find their subjects in a tree of [`tokens`]. About 20 bytes per
//! message and 110 per subject.

mod bloom;
mod links;
mod segment;
mod subjects;
mod summary;
#[cfg(test)]
mod tests;
mod times;
mod tokens;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use bloom::Bloom;
use links::Far;
use segment::{Segment, Slot};
use subjects::NO_SUBJECT;
pub(super) use subjects::Subjects;
use summary::{Entry, Summary};

pub use segment::SPAN;
pub use summary::BadSummary;
pub(super) use summary::{put, take};

use super::filter::Resolved;
use super::{Filter, SubjectRef};
use crate::types::Timestamp;

/// Tells filters which index they have resolved; nothing else depends on it.
static IDENTITIES: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub struct Index {
    identity: u64,
    /// Ascending by number; none is without live rows, except perhaps the last, which appends go to.
    segments: VecDeque<Segment>,
    subjects: Subjects,
    far: Far,
    first_seq: u64,
    last_seq: u64,
    last_time: Timestamp,
    messages: u64,
    bytes: u64,
}

/// What is known of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub subject: SubjectRef,
    pub accounted_bytes: u64,
    pub time: Timestamp,
}

/// The subject of a message just appended: how many of its messages live, and the first of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub count: u64,
    pub first: u64,
}

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

/// Where a live message's row is.
#[derive(Clone, Copy)]
struct Place {
    segment: usize,
    slot: usize,
}

impl Index {
    pub fn new() -> Index {
        Index {
            identity: IDENTITIES.fetch_add(1, Ordering::Relaxed),
            segments: VecDeque::new(),
            subjects: Subjects::default(),
            far: Far::default(),
            first_seq: 1,
            last_seq: 0,
            last_time: Timestamp::ZERO,
            messages: 0,
            bytes: 0,
        }
    }

    /// The first live sequence; one past the last when nothing lives.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// The last sequence used, live or not; 0 in a stream never written to.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// When the last message was stored, live or not.
    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// Live messages.
    pub fn len(&self) -> u64 {
        self.messages
    }

    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The live messages' accounted sizes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Subjects with live messages.
    pub fn num_subjects(&self) -> u64 {
        self.subjects.len() as u64
    }

    pub fn exists(&self, seq: u64) -> bool {
        self.place(seq).is_some()
    }

    /// Subject, size and time of a live message.
    pub fn row(&self, seq: u64) -> Option<Row> {
        let place = self.place(seq)?;
        let segment = &self.segments[place.segment];
        Some(Row {
            subject: self.subjects.get(segment.subject(place.slot)).text.clone(),
            accounted_bytes: u64::from(segment.at(place.slot).accounted_bytes()),
            time: segment.time(place.slot),
        })
    }

    pub fn subject_of(&self, seq: u64) -> Option<&SubjectRef> {
        let place = self.place(seq)?;
        Some(&self.subjects.get(self.segments[place.segment].subject(place.slot)).text)
    }

    pub fn time_of(&self, seq: u64) -> Option<Timestamp> {
        let place = self.place(seq)?;
        Some(self.segments[place.segment].time(place.slot))
    }

    pub fn accounted_bytes_of(&self, seq: u64) -> Option<u64> {
        Some(u64::from(self.slot(seq)?.accounted_bytes()))
    }

    /// The first live sequence from `from` on that the filter matches.
    pub fn next(&self, from: u64, filter: &mut Filter) -> Option<u64> {
        let from = from.max(self.first_seq);
        if from > self.last_seq {
            return None;
        }
        match filter.resolve(self.identity, &self.subjects) {
            Resolved::All => self.scan(from, |_| true, |id| id != NO_SUBJECT),
            Resolved::One(None) => None,
            Resolved::One(Some(id)) => self.next_of(from, *id),
            Resolved::Many(set) => {
                self.scan(from, |segment| segment.bloom().may_intersect(set.bloom()), |id| set.contains(id))
            }
        }
    }

    /// How many live messages from `from` on the filter matches.
    pub fn count_from(&self, from: u64, filter: &mut Filter) -> u64 {
        let from = from.max(self.first_seq);
        if from > self.last_seq {
            return 0;
        }
        match filter.resolve(self.identity, &self.subjects) {
            Resolved::All => self.count(from, |_| true, |id| id != NO_SUBJECT, Segment::live),
            Resolved::One(None) => 0,
            Resolved::One(Some(id)) => {
                let (id, subject) = (*id, self.subjects.get(*id));
                if from <= subject.first {
                    subject.count
                } else if from > subject.last {
                    0
                } else {
                    self.count(
                        from,
                        |segment| segment.bloom().may_contain(id),
                        |other| other == id,
                        |segment| segment.subjects_from(0).iter().filter(|&&other| other == id).count() as u64,
                    )
                }
            }
            Resolved::Many(set) if from == self.first_seq => {
                set.iter().filter(|&id| self.subjects.is_live(id)).map(|id| self.subjects.get(id).count).sum()
            }
            Resolved::Many(set) => self.count(
                from,
                |segment| segment.bloom().may_intersect(set.bloom()),
                |id| set.contains(id),
                |segment| segment.subjects_from(0).iter().filter(|&&id| set.contains(id)).count() as u64,
            ),
        }
    }

    /// The last live sequence of exactly this subject.
    pub fn last_for(&self, subject: &[u8]) -> Option<u64> {
        self.subjects.find(subject).map(|id| self.subjects.get(id).last)
    }

    /// The last live sequence up to `up_to` of exactly this subject.
    pub fn last_up_to(&self, subject: &[u8], up_to: u64) -> Option<u64> {
        self.subjects.find(subject).and_then(|id| self.last_of(id, up_to))
    }

    /// The first live sequence of exactly this subject.
    pub fn first_for(&self, subject: &[u8]) -> Option<u64> {
        self.subjects.find(subject).map(|id| self.subjects.get(id).first)
    }

    /// How many live messages have exactly this subject.
    pub fn count_for(&self, subject: &[u8]) -> u64 {
        self.subjects.find(subject).map_or(0, |id| self.subjects.get(id).count)
    }

    /// The last live sequence up to `up_to` of every subject the filter matches, ascending.
    pub fn last_per_subject(&self, filter: &mut Filter, up_to: u64) -> Vec<u64> {
        let mut last: Vec<u64> = match filter.resolve(self.identity, &self.subjects) {
            Resolved::All => self.subjects.iter().filter_map(|(id, _)| self.last_of(id, up_to)).collect(),
            Resolved::One(id) => id.iter().filter_map(|&id| self.last_of(id, up_to)).collect(),
            Resolved::Many(set) => {
                set.iter().filter(|&id| self.subjects.is_live(id)).filter_map(|id| self.last_of(id, up_to)).collect()
            }
        };
        last.sort_unstable();
        last
    }

    /// The first live sequence stored at `time` or later; one past the last when there is none.
    pub fn seq_at_time(&self, time: Timestamp) -> u64 {
        let from = self.segments.partition_point(|segment| segment.slots() > 0 && segment.last_time() < time);
        self.segments
            .range(from..)
            .find_map(|segment| segment.live_at_time(time).map(|slot| segment.seq(slot)))
            .unwrap_or(self.last_seq + 1)
    }

    /// Every subject the filter matches, with its number of live messages; in no order. Costs as much as there are.
    pub fn subjects<'a>(&'a self, filter: &Filter) -> impl Iterator<Item = (&'a SubjectRef, u64)> + use<'a> {
        let all = filter.is_all().then(|| self.subjects.iter().map(|(_, subject)| subject));
        let some = if filter.is_all() { Vec::new() } else { filter.matching(&self.subjects) };
        let some = some.into_iter().map(|id| self.subjects.get(id));
        all.into_iter().flatten().chain(some).map(|subject| (&subject.text, subject.count))
    }

    /// The live sequences that the filter matches, ascending. Costs as much as there are, or as a scan when they
    /// are many.
    pub(super) fn matching(&self, filter: &mut Filter) -> Vec<u64> {
        let many = self.messages / 16;
        let mut seqs = Vec::new();
        if let Resolved::One(_) | Resolved::Many(_) = filter.resolve(self.identity, &self.subjects) {
            let ids = filter.matching(&self.subjects);
            if ids.iter().map(|&id| self.subjects.get(id).count).sum::<u64>() < many {
                for id in ids {
                    let mut next = Some(self.subjects.get(id).first);
                    while let Some(seq) = next {
                        seqs.push(seq);
                        next = self.slot(seq).and_then(|slot| self.far.next(seq, slot.next));
                    }
                }
                seqs.sort_unstable();
                return seqs;
            }
        }
        let mut from = 0;
        while let Some(seq) = self.next(from, filter) {
            seqs.push(seq);
            from = seq + 1;
        }
        seqs
    }

    /// The live sequences from `from` on, ascending.
    pub fn seqs(&self, from: u64) -> impl Iterator<Item = u64> + '_ {
        let from = from.max(self.first_seq);
        self.segments.range(self.segment_from(from)..).flat_map(move |segment| {
            let start = segment.slot_from(from);
            let live = segment.subjects_from(start).iter().enumerate().filter(|(_, id)| **id != NO_SUBJECT);
            live.map(move |(at, _)| segment.seq(start + at))
        })
    }

    /// How many sequences between the first and the last are gone.
    pub fn num_deleted(&self) -> u64 {
        self.last_seq + 1 - self.first_seq - self.messages
    }

    /// The sequences between the first live one and the last that are gone, ascending, as pairs of first and last.
    pub fn deleted_ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut expected = self.first_seq;
        self.seqs(0).chain(std::iter::once(self.last_seq + 1)).filter_map(move |seq| {
            let gap = (seq > expected).then(|| (expected, seq - 1));
            expected = seq + 1;
            gap
        })
    }

    /// The sequences between the first live one and the last that are gone, ascending.
    pub fn deleted(&self) -> Vec<u64> {
        self.deleted_ranges().flat_map(|(from, to)| from..=to).collect()
    }

    /// Appends a message; `seq` is above the last one. A time before the last one's counts as the last one's.
    pub(super) fn append(&mut self, seq: u64, subject: &[u8], accounted_bytes: u64, time: Timestamp) -> Appended {
        let accounted_bytes = u32::try_from(accounted_bytes).expect("a message is smaller than two gigabytes");
        let id = self.subjects.intern(subject);
        self.append_of(seq, id, accounted_bytes, time)
    }

    /// As [`Index::append`], of a subject that has an id.
    fn append_of(&mut self, seq: u64, id: u32, accounted_bytes: u32, time: Timestamp) -> Appended {
        assert!(seq > self.last_seq, "sequences ascend");
        let time = time.max(self.last_time);
        let record = self.subjects.get_mut(id);
        let before = (record.count > 0).then_some(record.last);
        if before.is_none() {
            record.first = seq;
        }
        record.last = seq;
        record.count += 1;
        let appended = Appended { count: record.count, first: record.first };
        let mut row = Slot::new(accounted_bytes);
        if let Some(before) = before {
            self.set_next(before, Some(seq));
            row.prev = self.far.link_prev(seq, links::NONE, Some(before));
        }
        match self.segments.back_mut() {
            Some(segment) if segment.number() == seq / SPAN => {}
            Some(segment) if segment.live() == 0 => segment.reset(seq),
            last => {
                if let Some(segment) = last {
                    segment.seal();
                }
                self.segments.push_back(Segment::new(seq));
            }
        }
        self.segments.back_mut().expect("there is one now").push(seq, id, row, time);
        if self.messages == 0 {
            self.first_seq = seq;
        }
        self.messages += 1;
        self.bytes += u64::from(accounted_bytes);
        self.last_seq = seq;
        self.last_time = time;
        appended
    }

    /// Removes a message; `None` when there is none.
    pub(super) fn remove(&mut self, seq: u64) -> Option<Row> {
        let place = self.place(seq)?;
        let segment = &mut self.segments[place.segment];
        let (id, row, time) = (segment.subject(place.slot), *segment.at(place.slot), segment.time(place.slot));
        segment.kill(place.slot);
        let (next, prev) = (self.far.next(seq, row.next), self.far.prev(seq, row.prev));
        self.far.link_next(seq, row.next, None);
        self.far.link_prev(seq, row.prev, None);
        if let Some(prev) = prev {
            self.set_next(prev, next);
        }
        if let Some(next) = next {
            self.set_prev(next, prev);
        }
        let record = self.subjects.get_mut(id);
        record.count -= 1;
        let subject = if record.count == 0 {
            self.subjects.release(id)
        } else {
            if prev.is_none() {
                record.first = next.expect("a subject with messages has a first one");
            }
            if next.is_none() {
                record.last = prev.expect("a subject with messages has a last one");
            }
            record.text.clone()
        };
        self.messages -= 1;
        self.bytes -= u64::from(row.accounted_bytes());
        if seq == self.first_seq {
            self.first_seq = self.segments[place.segment]
                .live_from(place.slot + 1)
                .map(|slot| self.segments[place.segment].seq(slot))
                .or_else(|| self.scan_segments(place.segment + 1))
                .unwrap_or(self.last_seq + 1);
        }
        self.tidy(place.segment);
        Some(Row { subject, accounted_bytes: u64::from(row.accounted_bytes()), time })
    }

    /// Forgets every message; the sequences stay used.
    pub(super) fn clear(&mut self) {
        self.segments.clear();
        self.subjects.clear();
        self.far.clear();
        self.messages = 0;
        self.bytes = 0;
        self.first_seq = self.last_seq + 1;
    }

    /// Uses up the sequences up to `last_seq` without a message.
    pub(super) fn skip_to(&mut self, last_seq: u64, last_time: Timestamp) {
        self.last_seq = self.last_seq.max(last_seq);
        self.last_time = self.last_time.max(last_time);
        if self.messages == 0 {
            self.first_seq = self.last_seq + 1;
        }
    }

    /// Says that the headers of a live message matter after it is stored, so that recovery has to read its row.
    pub(super) fn note(&mut self, seq: u64) {
        if let Some(Place { segment, slot }) = self.place(seq) {
            self.segments[segment].at_mut(slot).note();
        }
    }

    /// The numbers of the segments that hold live messages, ascending. Those but the one of the last sequence are done:
    /// messages only leave them.
    pub fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.iter().filter(|segment| segment.live() > 0).map(Segment::number)
    }

    /// All that [`Index::restore_segment`] needs to know of a segment; `None` when nothing lives in it, or when so many of
    /// its rows would have to be read all the same that it does not pay.
    pub(super) fn summarize(&self, number: u64) -> Option<Vec<u8>> {
        let at = self.segments.binary_search_by_key(&number, Segment::number).ok()?;
        let segment = &self.segments[at];
        let notable = segment.live_slots().filter(|&slot| segment.at(slot).is_notable()).count() as u64;
        if segment.live() == 0 || notable * 16 > segment.live() {
            return None;
        }
        let mut writer = summary::Writer::new(segment.live());
        let mut known: hashbrown::HashMap<u32, u32> = hashbrown::HashMap::new();
        for (slot, time) in segment.live_times() {
            let (id, row) = (segment.subject(slot), segment.at(slot));
            let next = known.len() as u32 + 1;
            let mut subject = 0;
            known.entry(id).and_modify(|number| subject = *number).or_insert(next);
            let entry = Entry {
                offset: (segment.seq(slot) % SPAN) as u16,
                subject,
                accounted_bytes: row.accounted_bytes(),
                notable: row.is_notable(),
                time_ns: time.0,
            };
            writer.push(&entry, subject, &self.subjects.get(id).text);
        }
        Some(writer.finish())
    }

    /// Appends the messages of a segment from its summary, and returns those whose rows have to be read.
    ///
    /// # Errors
    /// When the bytes are not a summary, or of messages that are not beyond all others; then nothing has changed.
    pub(super) fn restore_segment(&mut self, number: u64, bytes: &[u8]) -> Result<Vec<u64>, BadSummary> {
        let summary = Summary::parse(bytes)?;
        let seq_of = |entry: &Entry| number.checked_mul(SPAN)?.checked_add(u64::from(entry.offset));
        let first = summary.entries.first().and_then(seq_of).ok_or(BadSummary)?;
        summary.entries.last().and_then(seq_of).ok_or(BadSummary)?;
        if first <= self.last_seq || summary.entries.iter().any(|entry| entry.accounted_bytes > Slot::BYTES_MAX) {
            return Err(BadSummary);
        }
        let mut notable = Vec::new();
        let mut ids = Vec::with_capacity(summary.subjects.len());
        for entry in &summary.entries {
            // Each is interned right before its first message: an id without messages would be taken for a free one.
            if entry.subject as usize == ids.len() {
                ids.push(self.subjects.intern(summary.subjects[ids.len()]));
            }
            let seq = number * SPAN + u64::from(entry.offset);
            self.append_of(seq, ids[entry.subject as usize], entry.accounted_bytes, Timestamp(entry.time_ns));
            if entry.notable {
                notable.push(seq);
            }
        }
        Ok(notable)
    }

    /// The subjects with more than `most` messages, and their first one's sequence.
    pub(super) fn subjects_above(&self, most: u64) -> Vec<SubjectRef> {
        self.subjects.iter().filter(|(_, subject)| subject.count > most).map(|(_, s)| s.text.clone()).collect()
    }

    /// Gives a segment back whose rows are all dead, or packs it.
    fn tidy(&mut self, at: usize) {
        if self.segments[at].live() > 0 {
            self.segments[at].pack_if_worth();
        } else if at + 1 < self.segments.len() {
            self.segments.remove(at);
        } else {
            self.segments[at].reset(self.last_seq + 1);
        }
    }

    fn set_next(&mut self, seq: u64, to: Option<u64>) {
        let place = self.place(seq).expect("chains hold live messages only");
        let row = self.segments[place.segment].at_mut(place.slot);
        row.next = self.far.link_next(seq, row.next, to);
    }

    fn set_prev(&mut self, seq: u64, to: Option<u64>) {
        let place = self.place(seq).expect("chains hold live messages only");
        let row = self.segments[place.segment].at_mut(place.slot);
        row.prev = self.far.link_prev(seq, row.prev, to);
    }

    /// The first segment that may hold `from` or later sequences.
    fn segment_from(&self, from: u64) -> usize {
        let number = from / SPAN;
        let Some(first) = self.segments.front().map(Segment::number) else { return 0 };
        if number <= first {
            return 0;
        }
        // Without missing segments the distance in numbers is the distance in places.
        let guess = usize::try_from(number - first).unwrap_or(usize::MAX);
        match self.segments.get(guess) {
            Some(segment) if segment.number() == number => guess,
            _ => self.segments.partition_point(|segment| segment.number() < number),
        }
    }

    #[inline]
    fn place(&self, seq: u64) -> Option<Place> {
        let segment = self.segment_from(seq);
        let found = self.segments.get(segment).filter(|found| found.number() == seq / SPAN)?;
        Some(Place { segment, slot: found.slot(seq)? })
    }

    fn slot(&self, seq: u64) -> Option<&Slot> {
        let place = self.place(seq)?;
        Some(self.segments[place.segment].at(place.slot))
    }

    /// The first live sequence in the segments from `at` on.
    fn scan_segments(&self, at: usize) -> Option<u64> {
        self.segments.range(at..).find_map(|segment| segment.live_from(0).map(|slot| segment.seq(slot)))
    }

    fn scan(&self, from: u64, may: impl Fn(&Segment) -> bool, wanted: impl Fn(u32) -> bool) -> Option<u64> {
        self.segments.range(self.segment_from(from)..).filter(|segment| may(segment)).find_map(|segment| {
            let start = segment.slot_from(from);
            let at = segment.subjects_from(start).iter().position(|&id| wanted(id))?;
            Some(segment.seq(start + at))
        })
    }

    fn count(
        &self,
        from: u64,
        may: impl Fn(&Segment) -> bool,
        wanted: impl Fn(u32) -> bool,
        whole: impl Fn(&Segment) -> u64,
    ) -> u64 {
        let counts =
            self.segments.range(self.segment_from(from)..).filter(|segment| may(segment)).map(|segment| match segment
                .slot_from(from)
            {
                0 => whole(segment),
                start => segment.subjects_from(start).iter().filter(|&&id| wanted(id)).count() as u64,
            });
        counts.sum()
    }

    /// The first live sequence of a subject from `from` on.
    fn next_of(&self, from: u64, id: u32) -> Option<u64> {
        if !self.subjects.is_live(id) {
            return None;
        }
        let subject = self.subjects.get(id);
        if from <= subject.first {
            return Some(subject.first);
        }
        if from >= subject.last {
            return (from == subject.last).then_some(from);
        }
        // A reader usually comes from the subject's message before: its chain knows.
        if let Some(place) = self.place(from - 1)
            && self.segments[place.segment].subject(place.slot) == id
        {
            return self.far.next(from - 1, self.segments[place.segment].at(place.slot).next);
        }
        self.scan(from, |segment| segment.bloom().may_contain(id), |other| other == id)
    }

    /// The last live sequence of a subject up to `up_to`.
    fn last_of(&self, id: u32, up_to: u64) -> Option<u64> {
        if !self.subjects.is_live(id) {
            return None;
        }
        let mut seq = self.subjects.get(id).last;
        while seq > up_to {
            seq = self.far.prev(seq, self.slot(seq)?.prev)?;
        }
        Some(seq)
    }
}
