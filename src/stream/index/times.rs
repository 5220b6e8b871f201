//! Non-decreasing times in about four bytes each, exact to the nanosecond.

use crate::types::Timestamp;

/// Entries between two absolute times.
const BLOCK: usize = 64;
/// In `deltas`: the step did not fit, the absolute time is in `gaps`.
const GAP: u32 = u32::MAX;

/// An absolute time every [`BLOCK`] entries, and in between the nanoseconds since the entry before. Steps of four
/// seconds and more are kept on the side: a stream in which they are frequent is not one with many messages.
#[derive(Debug, Default)]
pub struct Times {
    blocks: Vec<i64>,
    deltas: Vec<u32>,
    /// Entry and absolute time, ascending.
    gaps: Vec<(u32, i64)>,
    last: i64,
}

impl Times {
    pub fn len(&self) -> usize {
        self.deltas.len()
    }

    pub fn clear(&mut self) {
        self.blocks.clear();
        self.deltas.clear();
        self.gaps.clear();
        self.last = 0;
    }

    /// The newest entry's time.
    pub fn last(&self) -> Timestamp {
        Timestamp(self.last)
    }

    /// Appends an entry; a time before the last entry's counts as the last entry's.
    pub fn push(&mut self, time: Timestamp) {
        let entry = self.deltas.len();
        let time = if entry == 0 { time.0 } else { time.0.max(self.last) };
        let delta = if entry.is_multiple_of(BLOCK) {
            self.blocks.push(time);
            0
        } else {
            match u32::try_from(time.abs_diff(self.last)) {
                Ok(delta) if delta != GAP => delta,
                _ => {
                    self.gaps.push((entry as u32, time));
                    GAP
                }
            }
        };
        self.deltas.push(delta);
        self.last = time;
    }

    /// # Panics
    /// When there is no such entry.
    pub fn get(&self, entry: usize) -> Timestamp {
        let mut start = entry - entry % BLOCK;
        let mut time = self.blocks[start / BLOCK];
        if !self.gaps.is_empty() {
            let after = self.gaps.partition_point(|(at, _)| *at as usize <= entry);
            if let Some(&(at, absolute)) =
                after.checked_sub(1).map(|at| &self.gaps[at]).filter(|gap| gap.0 as usize > start)
            {
                (start, time) = (at as usize, absolute);
            }
        }
        Timestamp(time + self.deltas[start..=entry].iter().skip(1).map(|&delta| i64::from(delta)).sum::<i64>())
    }

    /// All entries in order, each at a constant cost.
    pub fn iter(&self) -> impl Iterator<Item = Timestamp> + '_ {
        let mut gaps = self.gaps.iter();
        let mut time = 0;
        self.deltas.iter().enumerate().map(move |(entry, &delta)| {
            time = match delta {
                _ if entry.is_multiple_of(BLOCK) => self.blocks[entry / BLOCK],
                GAP => gaps.next().expect("each marked gap has its time").1,
                delta => time + i64::from(delta),
            };
            Timestamp(time)
        })
    }

    /// The first entry at `time` or later; `len` when all are earlier.
    pub fn at_or_after(&self, time: Timestamp) -> usize {
        let block = self.blocks.partition_point(|&start| start < time.0);
        let (mut low, mut high) = (block.saturating_sub(1) * BLOCK, (block * BLOCK).min(self.len()));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle) < time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_a_list_of_times(steps in prop::collection::vec(prop_oneof![
            3 => 0i64..1000,
            1 => Just(i64::from(u32::MAX)),
            1 => Just(i64::from(u32::MAX) - 1),
            1 => 0i64..100_000_000_000,
        ], 1..400)) {
            let mut times = Times::default();
            let mut model = Vec::new();
            let mut now = 1_795_000_000_000_000_000;
            for step in steps {
                now += step;
                times.push(Timestamp(now));
                model.push(now);
            }
            for (entry, &time) in model.iter().enumerate() {
                prop_assert_eq!(times.get(entry), Timestamp(time));
                for probe in [time - 1, time, time + 1] {
                    prop_assert_eq!(times.at_or_after(Timestamp(probe)), model.partition_point(|&t| t < probe));
                }
            }
            prop_assert_eq!(times.last(), Timestamp(now));
            prop_assert!(times.iter().map(|time| time.0).eq(model));
        }
    }

    #[test]
    fn time_never_runs_backwards() {
        let mut times = Times::default();
        for time in [10, 5, 20] {
            times.push(Timestamp(time));
        }
        assert_eq!([0, 1, 2].map(|entry| times.get(entry).0), [10, 10, 20]);
    }
}
