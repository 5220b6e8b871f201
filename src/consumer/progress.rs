//! How far a consumer has come, as a backup carries it from server to server (nats-server `ConsumerState`): unlike the
//! rows, it names what is out, not what is done.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use super::config::AckPolicy;
use super::machine::{Consumer, Setup};
use super::persist::{delivered_since, replayed_subjects_until};
use super::rows::{AckBlock, ConsumerRows, Redelivery, StateRow};
use crate::stream::{Filter, Index};
use crate::types::Timestamp;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub state: StateRow,
    /// Messages out without an ack, ascending.
    pub out: Vec<Out>,
    /// Deliveries of messages delivered more than once, ascending by stream sequence.
    pub counts: Vec<(u64, u64)>,
}

/// A message that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    pub stream_seq: u64,
    /// Of its first delivery.
    pub consumer_seq: u64,
    /// When it was last delivered.
    pub sent: Timestamp,
}

impl Consumer {
    /// How far it has come.
    pub fn progress(&self) -> Progress {
        let out = |entry: &super::pending::Entry| Out {
            stream_seq: entry.stream_seq,
            consumer_seq: entry.consumer_seq,
            sent: entry.sent,
        };
        let again = self.pending.iter().filter(|entry| entry.count > 1).map(|entry| (entry.stream_seq, entry.count));
        let given_up = self.exceeded.iter().map(|(&seq, &count)| (seq, count)).filter(|&(_, count)| count > 1);
        let mut counts: Vec<(u64, u64)> = again.chain(given_up).collect();
        counts.sort_unstable();
        Progress { state: self.state_row(), out: self.pending.iter().map(out).collect(), counts }
    }
}

impl Progress {
    /// The rows of a consumer that has come this far: what was delivered above the floor and is not out is done. A
    /// message's wait begins anew.
    pub fn into_rows(self, setup: &Setup, index: &Index) -> ConsumerRows {
        let mut acked: Vec<AckBlock> = Vec::new();
        let mut filter = Filter::new(setup.config.filters());
        let out: HashSet<u64> = self.out.iter().map(|out| out.stream_seq).collect();
        if matches!(setup.config.ack_policy, AckPolicy::Explicit) {
            let (floor, delivered) = (self.state.ack_floor_stream_seq, self.state.delivered_stream_seq);
            let until = replayed_subjects_until(setup, index);
            for seq in delivered_since(floor, delivered, until, &mut filter, index) {
                if out.contains(&seq) {
                    continue;
                }
                let block = seq / AckBlock::SEQS;
                if acked.last().is_none_or(|last| last.block != block) {
                    acked.push(AckBlock::empty(block));
                }
                acked.last_mut().expect("just pushed").set(seq);
            }
        }
        let mut counts: BTreeMap<u64, u64> = self.counts.into_iter().filter(|&(_, count)| count > 1).collect();
        // Of messages that the filter does not match, those that are out are told by rows, and no others.
        let unmatched = |seq| !index.subject_of(seq).is_some_and(|subject| filter.matches(subject));
        counts.retain(|seq, _| index.exists(*seq) && (out.contains(seq) || !unmatched(*seq)));
        for &seq in out.iter().filter(|&&seq| index.exists(seq) && unmatched(seq)) {
            counts.entry(seq).or_insert(1);
        }
        let redeliveries = counts.into_iter().map(|(seq, count)| Redelivery { seq, count, due: None }).collect();
        ConsumerRows { state: Some(self.state), acked, redeliveries }
    }
}
