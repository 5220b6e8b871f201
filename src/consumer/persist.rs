//! A consumer to its rows and back: everything above the floor that is not marked as done is delivered again.

use hashbrown::HashMap;

use super::acked::Acked;
use super::config::{AckPolicy, DeliverPolicy};
use super::cursor::Cursor;
use super::machine::{Consumer, Position, Setup};
use super::rows::{AckBlock, ConsumerChanges, ConsumerRows, Redelivery, StateRow};
use crate::stream::{Filter, Index};
use crate::types::Timestamp;

impl Consumer {
    /// The consumer as its rows describe it. All of `index` is durable.
    ///
    /// Messages it is known to have delivered wait for their acks again, from now on. Deliveries that were not written
    /// down are forgotten and made again, but acks for them are taken.
    pub fn restore(setup: Setup, rows: ConsumerRows, index: &Index, now: Timestamp) -> Consumer {
        let Some(state) = rows.state else {
            // Created and never heard of again.
            return Consumer::new(setup, index, index.last_seq(), now);
        };
        let delivered = Position {
            consumer: state.delivered_consumer_seq.max(state.ack_floor_consumer_seq),
            stream: state.delivered_stream_seq.max(state.ack_floor_stream_seq),
        };
        let floor = Position { consumer: state.ack_floor_consumer_seq, stream: state.ack_floor_stream_seq };
        let visible = index.last_seq();
        let skip_until = replayed_subjects_until(&setup, index);
        let ahead = rows.acked.iter().flat_map(AckBlock::seqs).filter(|&seq| seq > delivered.stream);
        let mut cursor = Cursor::resume(&setup.config, index, visible, delivered.stream, ahead, skip_until);

        let acked = Acked::restore(rows.acked, floor.stream);
        let mut out = Vec::new();
        if setup.config.ack_policy != AckPolicy::None {
            out = delivered_since(floor.stream, delivered.stream, skip_until, cursor.filter_mut(), index);
            // A filter that has been changed may not match all that is out; of that the rows tell.
            let unfiltered = rows.redeliveries.iter().map(|row| row.seq).filter(|&seq| {
                let matched = index.subject_of(seq).is_none_or(|subject| cursor.matches(subject));
                !matched && (floor.stream + 1..=delivered.stream).contains(&seq) && !acked.contains(seq)
            });
            out.extend(unfiltered);
            out.sort_unstable();
        }
        let mut consumer = Consumer::at(setup, cursor, delivered, floor, index, now);
        consumer.recovered_until = visible;
        consumer.acked = acked;
        consumer.restore_pending(out, rows.redeliveries.iter().map(|row| (row.seq, *row)).collect(), index, now);
        consumer
    }

    /// Rows to write since the last call; `None` when nothing needs to be. What was only delivered does not.
    pub fn changes(&mut self) -> Option<ConsumerChanges> {
        self.has_changes().then(|| self.all_changes())
    }

    pub(super) fn has_changes(&self) -> bool {
        self.state_dirty || !self.touched.is_empty() || self.acked.has_changes()
    }

    /// Like [`Consumer::changes`], with what could wait until now: call it when the server stops.
    pub fn final_changes(&mut self) -> Option<ConsumerChanges> {
        self.state_dirty |= self.delivered_dirty;
        self.changes()
    }

    fn all_changes(&mut self) -> ConsumerChanges {
        let (put_acked, remove_acked) = self.acked.take_changes();
        let mut changes = ConsumerChanges { put_acked, remove_acked, ..ConsumerChanges::default() };
        let mut touched: Vec<u64> = self.touched.drain().collect();
        touched.sort_unstable();
        for seq in touched {
            let out = self.pending.get(seq).filter(|entry| entry.has_row()).map(|entry| Redelivery {
                seq,
                count: entry.count,
                // In line again: at once, for which any time that has passed will do.
                due: entry.delayed.then(|| entry.deadline().unwrap_or(entry.sent)),
            });
            let given_up = || self.exceeded.get(&seq).map(|&count| Redelivery { seq, count, due: None });
            match out.or_else(given_up) {
                Some(row) => changes.put_redeliveries.push(row),
                None => changes.remove_redeliveries.push(seq),
            }
        }
        // The state goes along with anything else, since the delivered cursor bounds what the other rows mean.
        changes.state = Some(self.state_row());
        self.state_dirty = false;
        self.delivered_dirty = false;
        changes
    }

    pub(super) fn state_row(&self) -> StateRow {
        StateRow {
            ack_floor_consumer_seq: self.floor.consumer,
            ack_floor_stream_seq: self.floor.stream,
            delivered_consumer_seq: self.delivered.consumer,
            delivered_stream_seq: self.delivered.stream,
        }
    }

    /// Puts the delivered messages above the floor that are not done back among those that are out.
    fn restore_pending(&mut self, out: Vec<u64>, mut rows: HashMap<u64, Redelivery>, index: &Index, now: Timestamp) {
        let mut consumer_seq = self.floor.consumer;
        for seq in out {
            // The original sequences are not stored; any ascending ones between floor and delivered serve.
            consumer_seq = (consumer_seq + 1).min(self.delivered.consumer.max(1));
            if self.acked.contains(seq) {
                continue;
            }
            let row = rows.remove(&seq);
            let Redelivery { count, due, .. } = row.unwrap_or(Redelivery { seq, count: 1, due: None });
            let deadline = self.deadline(count, now);
            self.pending.push(seq, consumer_seq, count, now, deadline);
            if let Some(due) = due {
                self.pending.delay(seq, due);
            }
            let matched = index.subject_of(seq).is_some_and(|subject| self.cursor.matches(subject));
            self.pending.set_unfiltered(seq, !matched);
            if row.is_some() && self.pending.get(seq).is_some_and(|entry| !entry.has_row()) {
                // Of an earlier filter.
                self.touched.insert(seq);
            }
        }
        for (seq, Redelivery { count, .. }) in rows {
            // A count without a wait is left of a message delivered too often; of one that is gone, nothing is.
            if index.exists(seq) && self.cursor.has_passed(seq) {
                self.exceeded.insert(seq, count);
            } else {
                self.touched.insert(seq);
            }
        }
    }
}

/// What the filter matches in `floor + 1 ..= delivered`, as far as it can have been delivered.
pub(super) fn delivered_since(
    floor: u64,
    delivered: u64,
    skip_until: u64,
    filter: &mut Filter,
    index: &Index,
) -> Vec<u64> {
    let mut seqs = Vec::new();
    let mut from = floor + 1;
    if from <= skip_until {
        seqs = index.last_per_subject(filter, skip_until);
        seqs.retain(|&seq| seq >= from && seq <= delivered);
        from = skip_until + 1;
    }
    while let Some(seq) = index.next(from, filter).filter(|&seq| seq <= delivered) {
        seqs.push(seq);
        from = seq + 1;
    }
    seqs
}

/// Up to where a `last_per_subject` consumer delivers only the last message of each subject: the end of the stream when
/// it was created, which the messages' times tell.
pub(super) fn replayed_subjects_until(setup: &Setup, index: &Index) -> u64 {
    match setup.config.deliver_policy {
        DeliverPolicy::LastPerSubject => index.seq_at_time(setup.created).saturating_sub(1),
        _ => 0,
    }
}
