//! The rows of up to [`SPAN`] consecutive sequences.

use super::bloom::Bloom;
use super::subjects::NO_SUBJECT;
use super::times::Times;
use crate::types::Timestamp;

/// Sequences per segment; a segment's number is its sequences' upper bits. Tests use small ones, to see many.
pub const SPAN: u64 = if cfg!(test) { 1 << 8 } else { 1 << 16 };
/// Below this many slots nothing is gained by packing.
const PACK_MIN: usize = if cfg!(test) { 16 } else { 1024 };

/// The neighbours in the subject's chain as distances (see [`super::links`]), and the size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub next: u32,
    pub prev: u32,
    /// The accounted bytes, and in the highest bit whether the message's headers matter after it is stored.
    size: u32,
}

impl Slot {
    pub const BYTES_MAX: u32 = u32::MAX >> 1;

    pub fn new(accounted_bytes: u32) -> Slot {
        assert!(accounted_bytes <= Slot::BYTES_MAX, "a message is smaller than two gigabytes");
        Slot { next: 0, prev: 0, size: accounted_bytes }
    }

    pub fn accounted_bytes(&self) -> u32 {
        self.size & Slot::BYTES_MAX
    }

    pub fn note(&mut self) {
        self.size |= !Slot::BYTES_MAX;
    }

    pub fn is_notable(&self) -> bool {
        self.size > Slot::BYTES_MAX
    }
}

/// Slots in order of sequence. *Dense*: every sequence from `start` on has a slot, so a slot is found by subtraction;
/// dead ones stay. *Packed*: the slots' offsets are listed, and most dead slots are gone. About 20 bytes a slot.
#[derive(Debug)]
pub struct Segment {
    number: u64,
    /// Dense: offset of slot 0.
    start: u32,
    /// Packed: each slot's offset.
    offsets: Option<Vec<u16>>,
    /// Each slot's subject, [`NO_SUBJECT`] in a dead one. Alone in its array because filters scan it.
    subjects: Vec<u32>,
    rows: Vec<Slot>,
    times: Times,
    live: u32,
    bloom: Bloom,
}

impl Segment {
    /// An empty segment for `seq` and those after it.
    pub fn new(seq: u64) -> Segment {
        Segment {
            number: seq / SPAN,
            start: (seq % SPAN) as u32,
            offsets: None,
            subjects: Vec::new(),
            rows: Vec::new(),
            times: Times::default(),
            live: 0,
            bloom: Bloom::default(),
        }
    }

    /// Empties it for `seq` and those after it, keeping its memory.
    pub fn reset(&mut self, seq: u64) {
        self.number = seq / SPAN;
        self.start = (seq % SPAN) as u32;
        self.offsets = None;
        self.subjects.clear();
        self.rows.clear();
        self.times.clear();
        self.live = 0;
        self.bloom.clear();
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn live(&self) -> u64 {
        u64::from(self.live)
    }

    pub fn slots(&self) -> usize {
        self.subjects.len()
    }

    pub fn bloom(&self) -> &Bloom {
        &self.bloom
    }

    pub fn last_time(&self) -> Timestamp {
        self.times.last()
    }

    /// The sequence of a slot.
    pub fn seq(&self, slot: usize) -> u64 {
        let offset = match &self.offsets {
            None => u64::from(self.start) + slot as u64,
            Some(offsets) => u64::from(offsets[slot]),
        };
        self.number * SPAN + offset
    }

    /// The slot of a live sequence.
    #[inline]
    pub fn slot(&self, seq: u64) -> Option<usize> {
        let slot = self.slot_from(seq);
        (slot < self.slots() && self.subjects[slot] != NO_SUBJECT && self.seq(slot) == seq).then_some(slot)
    }

    /// The first slot at `seq` or after it; `slots` when there is none. `seq` may lie before the segment.
    pub fn slot_from(&self, seq: u64) -> usize {
        let base = self.number * SPAN;
        let offset = seq.saturating_sub(base);
        match &self.offsets {
            None => (offset.saturating_sub(u64::from(self.start)) as usize).min(self.slots()),
            Some(offsets) => offsets.partition_point(|&at| u64::from(at) < offset),
        }
    }

    #[inline]
    pub fn subject(&self, slot: usize) -> u32 {
        self.subjects[slot]
    }

    pub fn at(&self, slot: usize) -> &Slot {
        &self.rows[slot]
    }

    pub fn at_mut(&mut self, slot: usize) -> &mut Slot {
        &mut self.rows[slot]
    }

    pub fn time(&self, slot: usize) -> Timestamp {
        self.times.get(slot)
    }

    /// The subjects from a slot on, dead ones included: what filters scan.
    pub fn subjects_from(&self, slot: usize) -> &[u32] {
        &self.subjects[slot..]
    }

    /// The first live slot from `slot` on.
    pub fn live_from(&self, slot: usize) -> Option<usize> {
        self.subjects[slot..].iter().position(|&id| id != NO_SUBJECT).map(|at| slot + at)
    }

    pub fn live_slots(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.slots()).filter(|&slot| self.subjects[slot] != NO_SUBJECT)
    }

    /// The live slots with their times.
    pub fn live_times(&self) -> impl Iterator<Item = (usize, Timestamp)> + '_ {
        self.times.iter().enumerate().filter(|(slot, _)| self.subjects[*slot] != NO_SUBJECT)
    }

    /// The first live slot stored at `time` or later.
    pub fn live_at_time(&self, time: Timestamp) -> Option<usize> {
        self.live_from(self.times.at_or_after(time))
    }

    /// Appends a row; `seq` is above all there are.
    pub fn push(&mut self, seq: u64, subject: u32, row: Slot, time: Timestamp) {
        let offset = (seq % SPAN) as u32;
        match &mut self.offsets {
            Some(offsets) => offsets.push(offset as u16),
            None => {
                // Sequences that were skipped get dead slots.
                while self.start + (self.subjects.len() as u32) < offset {
                    self.subjects.push(NO_SUBJECT);
                    self.rows.push(Slot::default());
                    self.times.push(time);
                }
            }
        }
        self.subjects.push(subject);
        self.rows.push(row);
        self.times.push(time);
        self.bloom.insert(subject);
        self.live += 1;
    }

    /// Marks a slot dead.
    pub fn kill(&mut self, slot: usize) {
        debug_assert!(self.subjects[slot] != NO_SUBJECT, "a message dies once");
        self.subjects[slot] = NO_SUBJECT;
        self.live -= 1;
    }

    /// Drops dead slots once they are three in four, which costs each of them a constant.
    pub fn pack_if_worth(&mut self) {
        if self.slots() < PACK_MIN || self.live as usize * 4 > self.slots() {
            return;
        }
        let alive: Vec<usize> = (0..self.slots()).filter(|&slot| self.subjects[slot] != NO_SUBJECT).collect();
        let mut times = Times::default();
        let mut bloom = Bloom::default();
        for &slot in &alive {
            times.push(self.times.get(slot));
            bloom.insert(self.subjects[slot]);
        }
        self.offsets = Some(alive.iter().map(|&slot| (self.seq(slot) % SPAN) as u16).collect());
        self.rows = alive.iter().map(|&slot| self.rows[slot]).collect();
        self.subjects = alive.iter().map(|&slot| self.subjects[slot]).collect();
        self.times = times;
        self.bloom = bloom;
    }

    /// No more rows will come: gives unused memory back.
    pub fn seal(&mut self) {
        self.pack_if_worth();
        self.subjects.shrink_to_fit();
        self.rows.shrink_to_fit();
    }
}
