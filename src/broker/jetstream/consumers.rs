//! The consumers of one stream: by name for acks and pulls, by filter for messages, by time, and which of them want
//! attention. What happens to a message is told only to the consumers whose filters match it.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;

use super::read_ahead::ReadAhead;
use crate::consumer::Consumer;
use crate::router::{Matches, Sublist};
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
    /// Under which filters `Consumers::filters` has it.
    filters: Vec<Box<[u8]>>,
    /// It may have messages out that its filters do not match any more.
    refiltered: bool,
    deadline: Option<Timestamp>,
    ready: bool,
    dirty: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Consumers {
    slots: Vec<Option<Box<Slot>>>,
    by_name: HashMap<Box<[u8]>, usize>,
    /// Places by filter. Filters of one consumer do not overlap, so a message finds each consumer once.
    filters: Sublist<u64>,
    /// Consumers that hear of every removal.
    refiltered: usize,
    /// What the slots hold as their deadlines.
    deadlines: BTreeSet<(Timestamp, usize)>,
    /// Room for matches.
    matches: RefCell<Matches<u64>>,
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
            filters: Vec::new(),
            refiltered: false,
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
        self.take_filters(place);
        self.touch(place);
        place
    }

    /// Goes by a consumer's filters as its configuration now has them.
    pub(super) fn refilter(&mut self, place: usize) {
        self.drop_filters(place);
        self.take_filters(place);
        if let Some(slot) = self.get(place)
            && !std::mem::replace(&mut slot.refiltered, true)
        {
            self.refiltered += 1;
        }
    }

    fn take_filters(&mut self, place: usize) {
        let Some(slot) = self.slots[place].as_deref_mut() else { return };
        slot.filters = slot.consumer.config().filters().map(|filter| filter.as_bytes().into()).collect();
        if slot.filters.is_empty() {
            slot.filters.push(b">"[..].into());
        }
        for filter in &slot.filters {
            let inserted = self.filters.insert(filter, None, place as u64);
            assert!(inserted.is_ok(), "the filters of a consumer have been checked");
        }
    }

    fn drop_filters(&mut self, place: usize) {
        let Some(slot) = self.slots[place].as_deref_mut() else { return };
        for filter in slot.filters.drain(..) {
            self.filters.remove(&filter, None, place as u64);
        }
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Box<Slot>> {
        self.slots.get(place)?.as_ref()?;
        self.drop_filters(place);
        let slot = self.slots[place].take()?;
        self.refiltered -= usize::from(slot.refiltered);
        if let Some(deadline) = slot.deadline {
            self.deadlines.remove(&(deadline, place));
        }
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

    /// Those that are listed: all but the ones that mirrors and sources make for a while.
    pub(super) fn public_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = self.public().map(|slot| slot.consumer.name().clone()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn public_count(&self) -> usize {
        self.public().count()
    }

    fn public(&self) -> impl Iterator<Item = &Slot> {
        self.iter().filter(|slot| !slot.consumer.config().direct)
    }

    /// How many count against the stream's `max_consumers`: all but those of mirrors and sources.
    pub(super) fn limited_count(&self) -> usize {
        let own = |slot: &&Slot| !slot.consumer.config().direct && !slot.consumer.config().sourcing;
        self.iter().filter(own).count()
    }

    /// Whether any consumer wants messages of this subject.
    pub(super) fn any_matches(&self, subject: &[u8]) -> bool {
        self.filters.has_interest(subject)
    }

    /// Whether any consumer still has to see or ack this message.
    pub(super) fn any_needs(&self, seq: u64, subject: &[u8]) -> bool {
        let mut matches = self.matches.borrow_mut();
        self.filters.match_into(subject, &mut matches);
        let slot = |place: &u64| self.slots[*place as usize].as_deref();
        matches.plain.iter().filter_map(slot).any(|slot| slot.consumer.still_needs(seq, subject))
    }

    /// Tells of messages that have become durable, in order.
    pub(super) fn appended<'a>(&mut self, messages: impl Iterator<Item = (u64, &'a [u8])>, index: &Index) {
        let mut matches = std::mem::take(self.matches.get_mut());
        for (seq, subject) in messages {
            self.filters.match_into(subject, &mut matches);
            for &place in &matches.plain {
                let Some(slot) = self.slots[place as usize].as_deref_mut() else { continue };
                slot.consumer.handle_append(seq, subject, index);
                if slot.consumer.is_awaited() {
                    self.touch(place as usize);
                }
            }
        }
        *self.matches.get_mut() = matches;
    }

    /// Tells that messages have left the index.
    pub(super) fn removed(&mut self, removals: &[Removal], index: &Index) {
        let mut matches = std::mem::take(self.matches.get_mut());
        for removal in removals {
            match removal {
                Removal::One { subject, .. } if self.refiltered == 0 => {
                    self.filters.match_into(subject, &mut matches);
                    for &place in &matches.plain {
                        self.tell_removal(place as usize, removal, index);
                    }
                }
                _ => (0..self.slots.len()).for_each(|place| self.tell_removal(place, removal, index)),
            }
        }
        *self.matches.get_mut() = matches;
    }

    fn tell_removal(&mut self, place: usize, removal: &Removal, index: &Index) {
        let Some(slot) = self.slots[place].as_deref_mut() else { return };
        slot.consumer.handle_removed(removal, index);
        if slot.consumer.has_news() || slot.consumer.is_awaited() {
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

    /// One of the consumers that may have rows to write.
    pub(super) fn dirty_at(&self, at: usize) -> Option<usize> {
        self.dirty.get(at).copied()
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Notes when a consumer that was just polled wants to be polled again.
    pub(super) fn settle(&mut self, place: usize) {
        let Some(slot) = self.slots.get_mut(place).and_then(Option::as_deref_mut) else { return };
        let next = slot.consumer.next_deadline();
        let before = std::mem::replace(&mut slot.deadline, next);
        if before != next {
            if let Some(before) = before {
                self.deadlines.remove(&(before, place));
            }
            self.deadlines.extend(next.map(|next| (next, place)));
        }
    }

    /// The earliest deadline of all.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Wants everyone polled whose deadline has come.
    pub(super) fn touch_due(&mut self, now: Timestamp) {
        while let Some(&(deadline, place)) = self.deadlines.first() {
            if deadline > now {
                return;
            }
            self.deadlines.pop_first();
            if let Some(slot) = self.get(place) {
                slot.deadline = None;
            }
            self.touch(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::{ConsumerConfig, Setup};
    use crate::stream::{Stream, StreamConfig};
    use crate::types::{Message, StreamId};

    fn consumer(name: &str, filters: &[&str], index: &Index) -> Consumer {
        let config = ConsumerConfig {
            filter_subjects: filters.iter().map(|&filter| filter.to_owned()).collect(),
            inactive_threshold: crate::consumer::GoDuration::from_secs(5),
            ..ConsumerConfig::default()
        };
        let setup = Setup {
            stream: "S".into(),
            name: name.into(),
            config: Arc::new(config),
            created: Timestamp(1),
            reports_consumed: false,
            message_bytes_max: 1024,
        };
        Consumer::new(setup, index, index.last_seq(), Timestamp(1))
    }

    /// The pending messages of each consumer, by name.
    fn pending(consumers: &mut Consumers, index: &Index) -> Vec<(String, u64)> {
        let count = |slot: &mut Slot| (slot.consumer.name().to_string(), slot.consumer.num_pending(index));
        let mut all: Vec<_> = consumers.iter_mut().map(count).collect();
        all.sort();
        all
    }

    #[test]
    fn messages_are_told_to_whom_they_match() {
        let config = StreamConfig { name: "S".into(), subjects: vec![">".into()], ..StreamConfig::default() };
        let mut stream = Stream::new(StreamId(1), Arc::new(config), Timestamp(1));
        let mut consumers = Consumers::default();
        for (name, filters) in [("all", &[][..]), ("a", &["a.*"]), ("ab", &["a.x", "b"]), ("c", &["c"])] {
            consumers.insert(consumer(name, filters, stream.index()), false);
        }
        while consumers.next_ready().is_some() {}
        consumers.take_dirty();
        let publish = |stream: &mut Stream, consumers: &mut Consumers, subject: &str| {
            let mut changes = crate::stream::Changes::new();
            let message = Message::new(subject.as_bytes(), b"", b"");
            stream.handle_publish(&message, &crate::stream::World::new(&|_| true), Timestamp(2), &mut changes).unwrap();
            consumers.appended(changes.puts.iter().map(|put| (put.seq, put.message.subject())), stream.index());
        };
        for subject in ["a.x", "a.y", "b", "d"] {
            publish(&mut stream, &mut consumers, subject);
        }
        let expect = |consumers: &mut Consumers, index: &Index, expected: [u64; 4]| {
            let names = ["a", "ab", "all", "c"].map(str::to_owned);
            assert_eq!(pending(consumers, index), names.into_iter().zip(expected).collect::<Vec<_>>());
        };
        expect(&mut consumers, stream.index(), [2, 2, 4, 0]);
        assert!(!consumers.has_ready(), "nobody waits for them");
        assert!(consumers.any_matches(b"c") && consumers.any_needs(1, b"a.x"));

        let mut changes = crate::stream::Changes::new();
        stream.handle_delete(2, &mut changes).unwrap();
        assert!(matches!(changes.removes[..], [Removal::One { seq: 2, .. }]));
        consumers.removed(&changes.removes, stream.index());
        expect(&mut consumers, stream.index(), [1, 2, 3, 0]);

        let place = consumers.find(b"all").unwrap();
        consumers.remove(place);
        assert!(!consumers.any_matches(b"d"));
        let place = consumers.find(b"c").unwrap();
        let slot = consumers.get(place).unwrap();
        let mut wider = (**slot.consumer.config()).clone();
        wider.filter_subjects = vec!["d".into()];
        slot.consumer.handle_update(Arc::new(wider), stream.index(), 4, Timestamp(3));
        consumers.refilter(place);
        publish(&mut stream, &mut consumers, "d");
        publish(&mut stream, &mut consumers, "c");
        assert_eq!(pending(&mut consumers, stream.index()).pop(), Some(("c".into(), 2)));
        assert!(!consumers.any_matches(b"c"));
    }

    #[test]
    fn the_earliest_deadline_comes_first() {
        let stream = Stream::new(StreamId(1), Arc::new(StreamConfig::default()), Timestamp(1));
        let mut consumers = Consumers::default();
        let places: Vec<usize> =
            ["a", "b"].iter().map(|name| consumers.insert(consumer(name, &[], stream.index()), false)).collect();
        while let Some(place) = consumers.next_ready() {
            consumers.settle(place);
        }
        let due = consumers.next_deadline().expect("both end when nobody uses them");
        consumers.touch_due(Timestamp(due.0 - 1));
        assert!(!consumers.has_ready());
        consumers.remove(places[0]);
        consumers.touch_due(due);
        assert_eq!((consumers.next_ready(), consumers.next_ready()), (Some(places[1]), None));
        assert_eq!(consumers.next_deadline(), None);
    }
}
