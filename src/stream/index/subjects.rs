//! The subjects with live messages, each known by a small number.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::SubjectRef;
use super::tokens::{self, Place, Tokens, spread};

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
    place: Place,
}

/// Interns subjects. An id is given out again after its subject's last message left, which counts as a birth; readers
/// that remember ids look at the births since.
#[derive(Debug, Default)]
pub struct Subjects {
    records: Records,
    tokens: Tokens,
    free: Vec<u32>,
    births: u64,
    /// The ids of the last births, newest at the back.
    newborn: VecDeque<u32>,
    /// The subject interned last, which is often the next one too.
    recent: u32,
    /// The subject born last, whose neighbour the next one often is.
    youngest: u32,
}

/// The subjects by id and by text.
#[derive(Debug, Default)]
struct Records {
    hasher: DefaultHashBuilder,
    /// Hashes and ids.
    ids: HashTable<(u32, u32)>,
    list: Vec<Subject>,
}

impl Records {
    fn hash(&self, text: &[u8]) -> u32 {
        self.hasher.hash_one(text) as u32
    }

    fn find_hashed(&self, hash: u32, text: &[u8]) -> Option<u32> {
        let same = |&(other, id): &(u32, u32)| other == hash && *self.list[id as usize].text == *text;
        self.ids.find(spread(hash), same).map(|&(_, id)| id)
    }
}

impl tokens::Subjects for Records {
    fn place(&self, id: u32) -> Place {
        self.list[id as usize].place
    }

    fn place_mut(&mut self, id: u32) -> &mut Place {
        &mut self.list[id as usize].place
    }

    fn find(&self, text: &[u8]) -> Option<u32> {
        self.find_hashed(self.hash(text), text)
    }
}

impl Subjects {
    pub fn len(&self) -> usize {
        self.records.ids.len()
    }

    pub fn get(&self, id: u32) -> &Subject {
        &self.records.list[id as usize]
    }

    pub fn get_mut(&mut self, id: u32) -> &mut Subject {
        &mut self.records.list[id as usize]
    }

    pub fn is_live(&self, id: u32) -> bool {
        self.records.list.get(id as usize).is_some_and(|subject| subject.count > 0)
    }

    pub fn find(&self, text: &[u8]) -> Option<u32> {
        tokens::Subjects::find(&self.records, text)
    }

    /// Shows the ids of all subjects that a filter with wildcards matches, in no order.
    pub fn matching(&self, pattern: &[u8], found: impl FnMut(u32)) {
        self.tokens.walk(pattern, &self.records, found);
    }

    /// The subject's id, new when needed. The caller then counts its message.
    pub fn intern(&mut self, text: &[u8]) -> u32 {
        let recent = self.records.list.get(self.recent as usize);
        if recent.is_some_and(|subject| subject.count > 0 && *subject.text == *text) {
            return self.recent;
        }
        let hash = self.records.hash(text);
        let id = match self.records.find_hashed(hash, text) {
            Some(id) => id,
            None => self.bear(hash, text),
        };
        self.recent = id;
        id
    }

    #[cold]
    fn bear(&mut self, hash: u32, text: &[u8]) -> u32 {
        let stem = tokens::stem(text);
        let neighbour = self.records.list.get(self.youngest as usize).filter(|subject| subject.count > 0);
        let node = match neighbour.filter(|subject| tokens::stem(&subject.text) == stem) {
            Some(neighbour) => neighbour.place.node(),
            None => self.tokens.enter(stem),
        };
        let subject = Subject { text: text.into(), count: 0, first: 0, last: 0, place: Place::NOWHERE };
        let id = match self.free.pop() {
            Some(id) => {
                self.records.list[id as usize] = subject;
                id
            }
            None => {
                self.records.list.push(subject);
                u32::try_from(self.records.list.len() - 1).expect("memory ends long before four billion subjects")
            }
        };
        self.records.ids.insert_unique(spread(hash), (hash, id), |&(hash, _)| spread(hash));
        self.tokens.hang(id, node, &mut self.records);
        self.youngest = id;
        self.births += 1;
        self.newborn.push_back(id);
        if self.newborn.len() > 1024.max(self.len() / 4) {
            self.newborn.pop_front();
        }
        id
    }

    /// Frees an id whose last message left, and returns the subject's text.
    pub fn release(&mut self, id: u32) -> SubjectRef {
        self.tokens.unhang(id, &mut self.records);
        let text = std::mem::take(&mut self.records.list[id as usize].text);
        let hash = spread(self.records.hash(&text));
        if let Ok(entry) = self.records.ids.find_entry(hash, |&(_, other)| other == id) {
            entry.remove();
        }
        self.free.push(id);
        text
    }

    /// Forgets everything; ids start over, which counts as a birth that nobody remembers.
    pub fn clear(&mut self) {
        self.records.ids.clear();
        self.records.list.clear();
        self.tokens.clear();
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
        let records = self.records.list.iter().enumerate();
        records.filter(|(_, subject)| subject.count > 0).map(|(id, subject)| (id as u32, subject))
    }
}
