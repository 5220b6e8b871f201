//! The values of a stream's and its consumers' small rows, as callers hand them in and get them back.

use crate::types::Timestamp;

/// Where a stream stands when its rows alone cannot tell, because its last message has been removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamFloor {
    /// The first sequence while the stream holds no message; with messages, the first of them says.
    pub first_seq: u64,
    /// The highest sequence ever given out, unless a later row exists.
    pub last_seq: u64,
    /// When `last_seq` was stored.
    pub last_time: Timestamp,
}

/// How far a stream has come with one of its sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcePosition {
    /// What tells it from the stream's other sources.
    pub name: String,
    /// The last sequence of the origin that was taken.
    pub seq: u64,
    /// Tells the origin from a later stream of the same name.
    pub identity: String,
}

/// A consumer's two cursors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerStateRow {
    pub ack_floor_consumer_seq: u64,
    pub ack_floor_stream_seq: u64,
    pub delivered_consumer_seq: u64,
    pub delivered_stream_seq: u64,
}

/// Which of 4096 consecutive messages are acked: bit `seq % 4096` of block `seq / 4096`, lowest bit first.
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
        (0..AckBlock::SEQS)
            .filter(|bit| self.bits[(bit / 8) as usize] & (1 << (bit % 8)) != 0)
            .map(|bit| self.block * AckBlock::SEQS + bit)
    }
}

impl std::fmt::Debug for AckBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AckBlock").field("block", &self.block).field("acked", &self.seqs().count()).finish()
    }
}

/// How often a message has been delivered to a consumer; written before every delivery but the first, and when a client
/// says when it wants the message again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redelivery {
    pub seq: u64,
    pub count: u64,
    pub due: Option<Timestamp>,
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
