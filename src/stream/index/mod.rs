//! The log as consumers see it: which sequences live, of which subject, size and time. Payloads are not here.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::{Filter, SubjectRef};
use crate::types::Timestamp;

#[derive(Debug, Default)]
pub struct Index {
    rows: BTreeMap<u64, Row>,
    subjects: HashMap<SubjectRef, BTreeSet<u64>>,
    first_seq: u64,
    last_seq: u64,
    last_time: Timestamp,
    bytes: u64,
}

/// What is known of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub subject: SubjectRef,
    pub accounted_bytes: u64,
    pub time: Timestamp,
}

impl Index {
    /// The first live sequence; one past the last when nothing lives.
    pub fn first_seq(&self) -> u64 {
        self.rows.keys().next().copied().unwrap_or(self.first_seq.max(self.last_seq + 1))
    }

    /// The last sequence used, live or not; 0 in a stream never written to.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// Live messages.
    pub fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn num_subjects(&self) -> u64 {
        self.subjects.len() as u64
    }

    pub fn exists(&self, seq: u64) -> bool {
        self.rows.contains_key(&seq)
    }

    /// Subject, size and time of a live message.
    pub fn row(&self, seq: u64) -> Option<Row> {
        self.rows.get(&seq).cloned()
    }

    pub fn subject_of(&self, seq: u64) -> Option<&SubjectRef> {
        self.rows.get(&seq).map(|row| &row.subject)
    }

    pub fn time_of(&self, seq: u64) -> Option<Timestamp> {
        self.rows.get(&seq).map(|row| row.time)
    }

    /// The first live sequence from `from` on that the filter matches.
    pub fn next(&self, from: u64, filter: &mut Filter) -> Option<u64> {
        self.rows.range(from..).find(|(_, row)| filter.matches(&row.subject)).map(|(&seq, _)| seq)
    }

    /// How many live messages from `from` on the filter matches.
    pub fn count_from(&self, from: u64, filter: &mut Filter) -> u64 {
        self.rows.range(from..).filter(|(_, row)| filter.matches(&row.subject)).count() as u64
    }

    /// The last live sequence of exactly this subject.
    pub fn last_for(&self, subject: &[u8]) -> Option<u64> {
        self.subjects.get(subject).and_then(|seqs| seqs.last().copied())
    }

    /// The last live sequence up to `up_to` of every subject the filter matches, ascending.
    pub fn last_per_subject(&self, filter: &mut Filter, up_to: u64) -> Vec<u64> {
        let mut last: Vec<u64> = self
            .subjects
            .iter()
            .filter(|(subject, _)| filter.matches(subject))
            .filter_map(|(_, seqs)| seqs.range(..=up_to).next_back().copied())
            .collect();
        last.sort_unstable();
        last
    }

    /// The first live sequence stored at `time` or later; one past the last when there is none.
    pub fn seq_at_time(&self, time: Timestamp) -> u64 {
        self.rows.iter().find(|(_, row)| row.time >= time).map_or(self.last_seq + 1, |(&seq, _)| seq)
    }

    /// Every subject the filter matches, with its number of live messages; in no order.
    pub fn subjects<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = (&'a SubjectRef, u64)> {
        self.subjects
            .iter()
            .filter(|(subject, _)| filter.matches(subject))
            .map(|(subject, seqs)| (subject, seqs.len() as u64))
    }

    /// The sequences between the first and the last live one that are gone, ascending.
    pub fn deleted(&self) -> Vec<u64> {
        if self.is_empty() {
            return Vec::new();
        }
        (self.first_seq()..=self.last_seq).filter(|seq| !self.exists(*seq)).collect()
    }

    pub(super) fn append(&mut self, seq: u64, subject: &[u8], accounted_bytes: u64, time: Timestamp) {
        let subject: SubjectRef = subject.into();
        self.bytes += accounted_bytes;
        self.subjects.entry(subject.clone()).or_default().insert(seq);
        self.rows.insert(seq, Row { subject, accounted_bytes, time });
        self.last_seq = seq;
        self.last_time = time;
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Row> {
        let row = self.rows.remove(&seq)?;
        self.bytes -= row.accounted_bytes;
        if let Some(seqs) = self.subjects.get_mut(&row.subject) {
            seqs.remove(&seq);
            if seqs.is_empty() {
                self.subjects.remove(&row.subject);
            }
        }
        Some(row)
    }

    pub(super) fn set_floor(&mut self, first_seq: u64, last_seq: u64, last_time: Timestamp) {
        self.first_seq = first_seq;
        self.last_seq = self.last_seq.max(last_seq);
        self.last_time = self.last_time.max(last_time);
    }
}
