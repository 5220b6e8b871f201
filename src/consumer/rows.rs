//! The stored form of a consumer's progress: what [`changes`](super::Consumer::changes) hands out to be written and
//! [`restore`](super::Consumer::restore) takes back.
//!
//! A first delivery needs no row. An ack in order moves the floor in the one state row; an ack above a gap is a bit in a
//! block row, which goes once the floor has passed it. A redelivery writes its count before it is sent; a `-NAK` with a
//! delay writes when the message is due; a new filter writes what is out and does not match it. What matches, lies above
//! the floor and is not marked is delivered again after a restart, and so is what has a row there.

use crate::types::Timestamp;

/// Both cursors of a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateRow {
    pub ack_floor_consumer_seq: u64,
    pub ack_floor_stream_seq: u64,
    pub delivered_consumer_seq: u64,
    pub delivered_stream_seq: u64,
}

/// Which of 4096 consecutive messages are done: bit `seq % 4096` of block `seq / 4096`, lowest bit of a byte first.
#[derive(Clone, PartialEq, Eq)]
pub struct AckBlock {
    pub block: u64,
    pub bits: Box<[u8; AckBlock::BYTES]>,
}

impl AckBlock {
    pub const BYTES: usize = 512;
    pub const SEQS: u64 = 8 * AckBlock::BYTES as u64;

    pub fn empty(block: u64) -> AckBlock {
        AckBlock { block, bits: Box::new([0; AckBlock::BYTES]) }
    }

    /// Marks the message `seq`.
    ///
    /// # Panics
    /// When `seq` is not one of this block's.
    pub fn set(&mut self, seq: u64) {
        assert_eq!(seq / AckBlock::SEQS, self.block, "a sequence lies in the block it is acked in");
        let bit = (seq % AckBlock::SEQS) as usize;
        self.bits[bit / 8] |= 1 << (bit % 8);
    }

    /// The marked sequences, ascending.
    pub fn seqs(&self) -> impl Iterator<Item = u64> + '_ {
        self.bits.iter().enumerate().flat_map(move |(index, &byte)| {
            let first = self.block * AckBlock::SEQS + 8 * index as u64;
            (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| first + bit)
        })
    }
}

impl std::fmt::Debug for AckBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AckBlock").field("block", &self.block).field("acked", &self.seqs().count()).finish()
    }
}

/// How often a message has been delivered, when more than once, and when it is wanted again, when a client has said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redelivery {
    pub seq: u64,
    pub count: u64,
    /// Set by a `-NAK` with a delay.
    pub due: Option<Timestamp>,
}

/// All rows of one consumer, as found at recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerRows {
    /// `None` when nothing has been written since its creation.
    pub state: Option<StateRow>,
    pub acked: Vec<AckBlock>,
    pub redeliveries: Vec<Redelivery>,
}

/// Rows to write together, in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerChanges {
    pub state: Option<StateRow>,
    pub put_acked: Vec<AckBlock>,
    pub remove_acked: Vec<u64>,
    pub put_redeliveries: Vec<Redelivery>,
    /// Stream sequences.
    pub remove_redeliveries: Vec<u64>,
}

impl ConsumerChanges {
    pub fn is_empty(&self) -> bool {
        self.state.is_none()
            && self.put_acked.is_empty()
            && self.remove_acked.is_empty()
            && self.put_redeliveries.is_empty()
            && self.remove_redeliveries.is_empty()
    }
}

impl ConsumerRows {
    /// What the rows are after `changes`, in no particular order; for tests and for consumers kept in memory.
    pub fn apply(&mut self, changes: &ConsumerChanges) {
        if changes.state.is_some() {
            self.state = changes.state;
        }
        let replaced = |block: u64| changes.put_acked.iter().any(|put| put.block == block);
        self.acked.retain(|row| !replaced(row.block) && !changes.remove_acked.contains(&row.block));
        self.acked.extend(changes.put_acked.iter().cloned());
        let replaced = |seq: u64| changes.put_redeliveries.iter().any(|put| put.seq == seq);
        self.redeliveries.retain(|row| !replaced(row.seq) && !changes.remove_redeliveries.contains(&row.seq));
        self.redeliveries.extend(changes.put_redeliveries.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_the_sequences_marked_in_it() {
        let mut block = AckBlock::empty(2);
        for seq in [8192, 8193, 12287] {
            block.set(seq);
        }
        assert_eq!(block.seqs().collect::<Vec<_>>(), [8192, 8193, 12287]);
    }
}
