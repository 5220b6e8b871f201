//! Which segments of a stream want their summary written, so that the next start need not read their messages.
//!
//! A segment gets its first summary in the batch that stores the first message beyond it. When messages leave it, the store
//! forgets that summary; a new one is written once the stream has been quiet for a while, one segment at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::storage::{Batch, Op, SummaryRange};
use crate::stream::index::SPAN;
use crate::stream::{Changes, Removal, Stream};
use crate::types::{StreamId, Timestamp};

/// How long nothing has to change before a summary is written again.
const QUIET: Duration = Duration::from_secs(5);
/// Between two summaries that are written again.
const SPACING: Duration = Duration::from_millis(100);

/// See the module. Only streams on disk have one.
#[derive(Debug)]
pub(super) struct Summaries {
    /// Segments whose summary is missing, or was forgotten.
    wanted: BTreeSet<u64>,
    /// The segment that messages are appended to.
    open: u64,
    not_before: Timestamp,
    /// The segment of the last removal, which is often the next one's too.
    recent: u64,
}

/// The sequences of a segment.
pub(super) fn range(segment: u64) -> SummaryRange {
    SummaryRange { from: segment * SPAN, to: segment * SPAN + (SPAN - 1) }
}

impl Summaries {
    /// For a stream just read back, and the segments whose summaries were used for that.
    pub(super) fn new(stream: &Stream, used: &BTreeSet<u64>, now: Timestamp) -> Summaries {
        let open = stream.index().last_seq() / SPAN;
        let wanted = stream.index().segments().filter(|segment| *segment < open && !used.contains(segment)).collect();
        Summaries { wanted, open, not_before: now + QUIET, recent: u64::MAX }
    }

    /// Takes note of what a batch changes, and adds the summaries of segments that nothing will be stored in any more.
    /// `stream` has all of the batch's changes and no others.
    pub(super) fn follow(
        &mut self,
        id: StreamId,
        stream: &Stream,
        changes: &Changes,
        now: Timestamp,
        batch: &mut Batch,
    ) {
        if !changes.puts.is_empty() || !changes.removes.is_empty() {
            self.not_before = now + QUIET;
        }
        for removal in &changes.removes {
            match *removal {
                Removal::One { seq, .. } if seq / SPAN != self.recent => self.want(seq / SPAN),
                Removal::One { .. } => {}
                // Those in between are empty now.
                Removal::Range { from, to, .. } => {
                    self.want(from / SPAN);
                    self.want(to / SPAN);
                }
            }
        }
        let open = stream.index().last_seq() / SPAN;
        if open > self.open {
            let before = std::mem::replace(&mut self.open, open);
            // A sequence that was set far ahead leaves nothing in between.
            if stream.index().first_seq() / SPAN <= before {
                self.write(before, id, stream, now, batch);
            }
            let others = stream.index().segments().filter(|segment| (before + 1..open).contains(segment));
            self.wanted.extend(others);
        }
    }

    /// Adds a summary that has been wanted for long enough. `stream` has all changes of the batch and those before.
    pub(super) fn write_due(&mut self, id: StreamId, stream: &Stream, now: Timestamp, batch: &mut Batch) {
        if now < self.not_before {
            return;
        }
        while let Some(segment) = self.wanted.pop_first() {
            if segment < self.open && self.write(segment, id, stream, now, batch) {
                self.not_before = now + SPACING;
                return;
            }
        }
    }

    /// When [`Summaries::write_due`] wants to be called.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        (!self.wanted.is_empty()).then_some(self.not_before)
    }

    fn want(&mut self, segment: u64) {
        self.recent = segment;
        if segment < self.open {
            self.wanted.insert(segment);
        }
    }

    fn write(&mut self, segment: u64, id: StreamId, stream: &Stream, now: Timestamp, batch: &mut Batch) -> bool {
        self.wanted.remove(&segment);
        if self.recent == segment {
            self.recent = u64::MAX;
        }
        let Some(bytes) = stream.summarize(segment, now) else { return false };
        let SummaryRange { from, to } = range(segment);
        batch.push(Op::PutSummary { stream: id, from, to, bytes: Bytes::from(bytes) });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stream::{StreamConfig, World};
    use crate::types::Message;

    const ID: StreamId = StreamId(1);

    /// The segments whose summaries a batch writes.
    fn written(batch: &Batch) -> Vec<u64> {
        let segments = batch.ops().iter().map(|op| match op {
            Op::PutSummary { from, to, .. } if *to == range(from / SPAN).to => from / SPAN,
            other => panic!("{other:?}"),
        });
        segments.collect()
    }

    #[test]
    fn segments_are_written_when_they_are_full_and_again_after_a_quiet_time() {
        let config = StreamConfig { name: "S".into(), subjects: vec!["s".into()], ..StreamConfig::default() };
        let mut stream = Stream::new(ID, Arc::new(config.check_create(false).unwrap()), Timestamp(0));
        let start = Timestamp(1_000_000_000_000);
        let mut summaries = Summaries::new(&stream, &BTreeSet::new(), start);
        let turn = |stream: &mut Stream, summaries: &mut Summaries, puts: u64, delete: &[u64], now: Timestamp| {
            let (mut changes, mut batch) = (Changes::new(), Batch::new());
            for _ in 0..puts {
                stream
                    .handle_publish(&Message::new(b"s", b"", b""), &World::new(&|_| true), now, &mut changes)
                    .unwrap();
            }
            for seq in delete {
                stream.handle_delete(*seq, &mut changes).unwrap();
            }
            summaries.follow(ID, stream, &changes, now, &mut batch);
            summaries.write_due(ID, stream, now, &mut batch);
            written(&batch)
        };
        assert_eq!(turn(&mut stream, &mut summaries, SPAN - 1, &[], start), [] as [u64; 0]);
        assert_eq!(summaries.next_deadline(), None);
        assert_eq!(turn(&mut stream, &mut summaries, 1, &[], start), [0]);
        assert_eq!(turn(&mut stream, &mut summaries, SPAN, &[], start), [1]);
        assert_eq!(turn(&mut stream, &mut summaries, 0, &[5, 6, SPAN + 3], start), [] as [u64; 0]);
        let later = summaries.next_deadline().unwrap();
        assert_eq!(later, start + QUIET);
        assert_eq!(turn(&mut stream, &mut summaries, 0, &[], later), [0]);
        assert_eq!(turn(&mut stream, &mut summaries, 0, &[], later + SPACING), [1]);
        assert_eq!(summaries.next_deadline(), None);
        // One that was emptied wants none.
        let all: Vec<u64> = (SPAN..2 * SPAN).filter(|seq| *seq != SPAN + 3).collect();
        assert_eq!(turn(&mut stream, &mut summaries, 0, &all, later), [] as [u64; 0]);
        assert_eq!(turn(&mut stream, &mut summaries, 0, &[], later + QUIET), [] as [u64; 0]);

        // A store of an older version has none at all.
        let mut fresh = Summaries::new(&stream, &BTreeSet::new(), start);
        assert_eq!(turn(&mut stream, &mut fresh, 0, &[], start + QUIET), [0]);
        assert_eq!(Summaries::new(&stream, &BTreeSet::from([0]), start).next_deadline(), None);
    }
}
