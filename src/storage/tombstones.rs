//! Messages that are removed while their rows still lie in the file.
//!
//! Removing rows that lie far apart rewrites a leaf for each of them: a bucket whose keys are overwritten at random would
//! write 4 KiB for every key. So a transaction that removes such messages notes their sequences side by side in a row
//! of their own, which is durable with it; reads do not show them, and once they are many the rows are swept in order, several
//! of a leaf at a time.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use roaring::RoaringTreemap;

use crate::types::StreamId;

/// Sequences this close lie in one leaf or in neighbours.
const PLACE_BITS: u32 = 5;
/// What one row notes: with deltas of up to three bytes it stays below a page.
pub(super) const ROW_SEQS: usize = 1000;

/// Whether removing `seqs`, which it sorts, at once would touch at least `places_min` places.
pub(super) fn are_scattered(seqs: &mut [u64], places_min: usize) -> bool {
    if seqs.len() < places_min {
        return false;
    }
    seqs.sort_unstable();
    let place = |seq: u64| seq >> PLACE_BITS;
    let others = seqs.windows(2).filter(|pair| place(pair[0]) != place(pair[1])).count();
    others + 1 >= places_min
}

/// A change of what is noted, made by a transaction and true once that is durable.
#[derive(Debug)]
pub(super) enum Change {
    Noted(StreamId, RoaringTreemap),
    /// The rows from the one sequence to the other are gone, or on their way out otherwise.
    Gone(StreamId, u64, u64),
}

/// The sequences noted, by stream. Only the committer changes them, after its transaction; so they are never ahead of what is
/// durable, and a read that asks before its own transaction begins never shows a removed message.
#[derive(Debug, Default)]
pub(super) struct Tombstones(RwLock<BTreeMap<StreamId, RoaringTreemap>>);

/// What a read, or the committer's transaction, knows of them.
pub(super) type View<'a> = RwLockReadGuard<'a, BTreeMap<StreamId, RoaringTreemap>>;

impl Tombstones {
    pub(super) fn view(&self) -> View<'_> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the message is removed.
    pub(super) fn contains(&self, stream: StreamId, seq: u64) -> bool {
        self.view().get(&stream).is_some_and(|seqs| seqs.contains(seq))
    }

    pub(super) fn replace(&self, noted: BTreeMap<StreamId, RoaringTreemap>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = noted;
    }

    pub(super) fn change(&self, changes: impl Iterator<Item = Change>) {
        let mut changes = changes.peekable();
        if changes.peek().is_none() {
            return;
        }
        let mut noted = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Noted(stream, seqs) => *noted.entry(stream).or_default() |= seqs,
                Change::Gone(stream, from, to) => {
                    if let Some(seqs) = noted.get_mut(&stream) {
                        seqs.remove_range(from..=to);
                        if seqs.is_empty() {
                            noted.remove(&stream);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_removals_in_many_places_are_scattered() {
        let check = |mut seqs: Vec<u64>, expected| assert_eq!(are_scattered(&mut seqs, 16), expected, "{seqs:?}");
        check(vec![], false);
        check((1..=511).rev().collect(), true);
        check((32..=479).collect(), false);
        check((0..15).map(|n| n * 1000).collect(), false);
        check((0..16).map(|n| n * 1000).collect(), true);
    }

    #[test]
    fn changes_are_made_in_order() {
        let tombstones = Tombstones::default();
        let stream = StreamId(1);
        let changes = [
            Change::Noted(stream, [1, 5, 9].into_iter().collect()),
            Change::Gone(stream, 2, 9),
            Change::Noted(stream, [7].into_iter().collect()),
            Change::Gone(StreamId(2), 0, u64::MAX),
        ];
        tombstones.change(changes.into_iter());
        assert_eq!((1..10).filter(|&seq| tombstones.contains(stream, seq)).collect::<Vec<_>>(), [1, 7]);
        tombstones.change([Change::Gone(stream, 0, u64::MAX)].into_iter());
        assert!(tombstones.view().is_empty());
    }
}
