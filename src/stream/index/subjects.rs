//! The subjects with live messages, each known by a small number.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::SubjectRef;

/// In place of an id: no subject.
pub const NO_SUBJECT: u32 = u32::MAX;

/// One subject with at least one live message; its messages form a doubly linked chain through the segments.
#[derive(Debug)]
pub struct Subject {
    pub text: SubjectRef,
    /// Live messages; 0 marks an id that is free.
    pub count: u64,
    pub first: u64,
    pub last: u64,
}

/// Interns subjects. An id is given out again after its subject's last message left, which counts as a birth; readers
/// that remember ids look at the births since.
#[derive(Debug, Default)]
pub struct Subjects {
    hasher: DefaultHashBuilder,
    ids: HashTable<u32>,
    records: Vec<Subject>,
    free: Vec<u32>,
    births: u64,
    /// The ids of the last births, newest at the back.
    newborn: VecDeque<u32>,
    /// The subject interned last, which is often the next one too.
    recent: u32,
}

impl Subjects {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn get(&self, id: u32) -> &Subject {
        &self.records[id as usize]
    }

    pub fn get_mut(&mut self, id: u32) -> &mut Subject {
        &mut self.records[id as usize]
    }

    pub fn is_live(&self, id: u32) -> bool {
        self.records.get(id as usize).is_some_and(|subject| subject.count > 0)
    }

    pub fn find(&self, text: &[u8]) -> Option<u32> {
        self.ids.find(self.hasher.hash_one(text), |&id| *self.records[id as usize].text == *text).copied()
    }

    /// The subject's id, new when needed. The caller then counts its message.
    pub fn intern(&mut self, text: &[u8]) -> u32 {
        if self.records.get(self.recent as usize).is_some_and(|subject| subject.count > 0 && *subject.text == *text) {
            return self.recent;
        }
        let hash = self.hasher.hash_one(text);
        let id = match self.ids.find(hash, |&id| *self.records[id as usize].text == *text) {
            Some(&id) => id,
            None => self.bear(hash, text),
        };
        self.recent = id;
        id
    }

    #[cold]
    fn bear(&mut self, hash: u64, text: &[u8]) -> u32 {
        let subject = Subject { text: text.into(), count: 0, first: 0, last: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.records[id as usize] = subject;
                id
            }
            None => {
                self.records.push(subject);
                u32::try_from(self.records.len() - 1).expect("memory ends long before four billion subjects")
            }
        };
        self.ids.insert_unique(hash, id, |&id| self.hasher.hash_one(&*self.records[id as usize].text));
        self.births += 1;
        self.newborn.push_back(id);
        if self.newborn.len() > 1024.max(self.ids.len() / 4) {
            self.newborn.pop_front();
        }
        id
    }

    /// Frees an id whose last message left, and returns the subject's text.
    pub fn release(&mut self, id: u32) -> SubjectRef {
        let text = std::mem::take(&mut self.records[id as usize].text);
        if let Ok(entry) = self.ids.find_entry(self.hasher.hash_one(&*text), |&other| other == id) {
            entry.remove();
        }
        self.free.push(id);
        text
    }

    /// Forgets everything; ids start over, which counts as a birth that nobody remembers.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.records.clear();
        self.free.clear();
        self.newborn.clear();
        self.births += 1;
    }

    /// Counts every id given out.
    pub fn births(&self) -> u64 {
        self.births
    }

    /// The ids given out since `births` stood at `since`; `None` when that is too long ago to tell.
    pub fn born_since(&self, since: u64) -> Option<impl Iterator<Item = u32> + '_> {
        let missed = usize::try_from(self.births - since).ok()?;
        let known = self.newborn.len().checked_sub(missed)?;
        Some(self.newborn.range(known..).copied())
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Subject)> {
        self.records
            .iter()
            .enumerate()
            .filter(|(_, subject)| subject.count > 0)
            .map(|(id, subject)| (id as u32, subject))
    }
}
