//! The consumers of one stream: by name for acks and pulls, by position for the rest, and which of them want attention.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::read_ahead::ReadAhead;
use crate::consumer::Consumer;
use crate::stream::{Index, Removal};
use crate::types::Timestamp;

/// One consumer and what its stream's task keeps for it.
pub(super) struct Slot {
    pub(super) consumer: Consumer,
    pub(super) ahead: ReadAhead,
    /// Tells it from a consumer that had the same place before.
    pub(super) serial: u64,
    /// Its rows are in the store.
    pub(super) stored: bool,
    deadline: Option<Timestamp>,
    ready: bool,
    dirty: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Consumers {
    slots: Vec<Option<Box<Slot>>>,
    by_name: HashMap<Box<[u8]>, usize>,
    ready: VecDeque<usize>,
    dirty: Vec<usize>,
    next_serial: u64,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Adds a consumer whose name is free; it is polled at the next opportunity.
    pub(super) fn insert(&mut self, consumer: Consumer, stored: bool) -> usize {
        let name: Box<[u8]> = consumer.name().as_bytes().into();
        self.next_serial += 1;
        let slot = Slot {
            consumer,
            ahead: ReadAhead::default(),
            serial: self.next_serial,
            stored,
            deadline: None,
            ready: false,
            dirty: false,
        };
        let place = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if place == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[place] = Some(Box::new(slot));
        let before = self.by_name.insert(name, place);
        assert!(before.is_none(), "consumer names are unique within a stream");
        self.touch(place);
        place
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Box<Slot>> {
        let slot = self.slots.get_mut(place)?.take()?;
        self.by_name.remove(slot.consumer.name().as_bytes());
        self.ready.retain(|other| *other != place);
        self.dirty.retain(|other| *other != place);
        Some(slot)
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(super) fn get(&mut self, place: usize) -> Option<&mut Slot> {
        self.slots.get_mut(place)?.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten().map(|slot| &**slot)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().flatten().map(|slot| &mut **slot)
    }

    /// Names in alphabetical order.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self.iter().map(|slot| slot.consumer.name().clone()).collect();
        names.sort_unstable();
        names
    }

    /// Whether any consumer wants messages of this subject.
    pub(super) fn any_matches(&self, subject: &[u8]) -> bool {
        self.iter().any(|slot| slot.consumer.matches(subject))
    }

    /// Whether any consumer still has to see or ack this message.
    pub(super) fn any_needs(&self, seq: u64, subject: &[u8]) -> bool {
        self.iter().any(|slot| slot.consumer.still_needs(seq, subject))
    }

    /// Tells everyone that messages have left the index.
    pub(super) fn removed(&mut self, removals: &[Removal], index: &Index) {
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots[place].as_deref_mut() else { continue };
            for removal in removals {
                slot.consumer.handle_removed(removal, index);
            }
            self.touch(place);
        }
    }

    /// Wants the consumer polled, and its rows written with the next batch.
    pub(super) fn touch(&mut self, place: usize) {
        if let Some(slot) = self.slots.get_mut(place).and_then(|slot| slot.as_deref_mut()) {
            if !slot.ready {
                slot.ready = true;
                self.ready.push_back(place);
            }
            if !slot.dirty {
                slot.dirty = true;
                self.dirty.push(place);
            }
        }
    }

    pub(super) fn touch_all(&mut self) {
        (0..self.slots.len()).for_each(|place| self.touch(place));
    }

    /// The next consumer to poll.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        let place = self.ready.pop_front()?;
        if let Some(slot) = self.get(place) {
            slot.ready = false;
        }
        Some(place)
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the list of consumers that may have rows to write.
    pub(super) fn take_dirty(&mut self) -> Vec<usize> {
        let dirty = std::mem::take(&mut self.dirty);
        for place in &dirty {
            if let Some(slot) = self.get(*place) {
                slot.dirty = false;
            }
        }
        dirty
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Notes when a consumer that was just polled wants to be polled again.
    pub(super) fn settle(&mut self, place: usize) {
        if let Some(slot) = self.get(place) {
            slot.deadline = slot.consumer.next_deadline();
        }
    }

    /// The earliest deadline of all.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.iter().filter_map(|slot| slot.deadline).min()
    }

    /// Wants everyone polled whose deadline has come.
    pub(super) fn touch_due(&mut self, now: Timestamp) {
        for place in 0..self.slots.len() {
            let due =
                self.slots[place].as_deref().and_then(|slot| slot.deadline).is_some_and(|deadline| deadline <= now);
            if due {
                self.touch(place);
            }
        }
    }
}
