//! Which messages above the ack floor are done, and which of that still has to be written.

use std::collections::VecDeque;

use super::rows::AckBlock;

/// Up to this many marks a block is a list; a stuck message far below sparse acks must not cost 512 bytes for each.
const LIST_MAX: usize = 128;

/// The marks, in blocks of [`AckBlock::SEQS`] sequences, ascending.
#[derive(Debug, Default)]
pub(super) struct Acked {
    blocks: VecDeque<Block>,
    /// Blocks changed since they were last written.
    touched: Vec<u64>,
    /// Written blocks that have gone since.
    gone: Vec<u64>,
}

#[derive(Debug)]
struct Block {
    number: u64,
    marks: Marks,
    touched: bool,
    written: bool,
}

#[derive(Debug)]
enum Marks {
    List(Vec<u16>),
    Bits(Box<[u8; AckBlock::BYTES]>),
}

impl Marks {
    fn contains(&self, offset: u16) -> bool {
        match self {
            Marks::List(list) => list.contains(&offset),
            Marks::Bits(bits) => bits[usize::from(offset / 8)] & (1 << (offset % 8)) != 0,
        }
    }

    fn insert(&mut self, offset: u16) {
        match self {
            Marks::List(list) if list.len() < LIST_MAX => list.push(offset),
            Marks::List(_) => {
                let mut bits = self.to_bits();
                bits[usize::from(offset / 8)] |= 1 << (offset % 8);
                *self = Marks::Bits(bits);
            }
            Marks::Bits(bits) => bits[usize::from(offset / 8)] |= 1 << (offset % 8),
        }
    }

    fn to_bits(&self) -> Box<[u8; AckBlock::BYTES]> {
        match self {
            Marks::List(list) => {
                let mut bits = Box::new([0; AckBlock::BYTES]);
                for offset in list {
                    bits[usize::from(offset / 8)] |= 1 << (offset % 8);
                }
                bits
            }
            Marks::Bits(bits) => bits.clone(),
        }
    }
}

impl Acked {
    /// Takes back what was written.
    pub(super) fn restore(rows: Vec<AckBlock>, floor: u64) -> Acked {
        let mut blocks: Vec<Block> = rows
            .into_iter()
            .map(|row| Block { number: row.block, marks: Marks::Bits(row.bits), touched: false, written: true })
            .collect();
        blocks.sort_by_key(|block| block.number);
        blocks.dedup_by_key(|block| block.number);
        let mut acked = Acked { blocks: blocks.into(), ..Acked::default() };
        acked.drop_below(floor);
        acked
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.find(seq / AckBlock::SEQS).is_ok_and(|at| self.blocks[at].marks.contains((seq % AckBlock::SEQS) as u16))
    }

    /// Marks `seq`; `false` when it was marked already.
    pub(super) fn insert(&mut self, seq: u64) -> bool {
        let (number, offset) = (seq / AckBlock::SEQS, (seq % AckBlock::SEQS) as u16);
        let at = match self.find(number) {
            Ok(at) => at,
            Err(at) => {
                let marks = Marks::List(Vec::new());
                self.blocks.insert(at, Block { number, marks, touched: false, written: false });
                at
            }
        };
        let block = &mut self.blocks[at];
        if block.marks.contains(offset) {
            return false;
        }
        block.marks.insert(offset);
        if !block.touched {
            block.touched = true;
            self.touched.push(number);
        }
        true
    }

    /// Forgets the blocks that lie wholly at or below `floor`.
    pub(super) fn drop_below(&mut self, floor: u64) {
        while let Some(block) = self.blocks.front() {
            if (block.number + 1) * AckBlock::SEQS - 1 > floor {
                break;
            }
            if block.written {
                self.gone.push(block.number);
            }
            self.blocks.pop_front();
        }
    }

    /// Forgets all marks.
    pub(super) fn clear(&mut self) {
        let written = self.blocks.drain(..).filter(|block| block.written).map(|block| block.number);
        self.gone.extend(written);
        self.touched.clear();
    }

    /// Block rows to write and to remove since the last call.
    pub(super) fn take_changes(&mut self) -> (Vec<AckBlock>, Vec<u64>) {
        let mut put = Vec::new();
        for number in std::mem::take(&mut self.touched) {
            if let Ok(at) = self.find(number) {
                let block = &mut self.blocks[at];
                if block.touched {
                    block.touched = false;
                    block.written = true;
                    put.push(AckBlock { block: number, bits: block.marks.to_bits() });
                }
            }
        }
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|number| self.find(*number).is_err());
        (put, gone)
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.touched.is_empty() || !self.gone.is_empty()
    }

    fn find(&self, number: u64) -> Result<usize, usize> {
        match self.blocks.back() {
            Some(last) if last.number == number => Ok(self.blocks.len() - 1),
            _ => self.blocks.binary_search_by_key(&number, |block| block.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::consumer::rows::{ConsumerChanges, ConsumerRows};

    proptest! {
        /// Against a plain set; the rows written always read back as the same marks above the floor.
        #[test]
        fn equals_a_set(ops in prop::collection::vec((0u64..30_000, 0u8..20), 0..600)) {
            let mut acked = Acked::default();
            let mut model = BTreeSet::new();
            let mut rows = ConsumerRows::default();
            let mut floor = 0;
            for (seq, kind) in ops {
                match kind {
                    0 => {
                        floor = floor.max(seq);
                        acked.drop_below(floor);
                        model.retain(|seq| seq / AckBlock::SEQS >= (floor + 1) / AckBlock::SEQS);
                    }
                    1 => {
                        let (put_acked, remove_acked) = acked.take_changes();
                        rows.apply(&ConsumerChanges { put_acked, remove_acked, ..ConsumerChanges::default() });
                        let restored = Acked::restore(rows.acked.clone(), floor);
                        for seq in &model {
                            prop_assert!(restored.contains(*seq));
                        }
                    }
                    _ if seq > floor => prop_assert_eq!(acked.insert(seq), model.insert(seq)),
                    _ => {}
                }
                prop_assert_eq!(acked.contains(seq), model.contains(&seq));
            }
        }
    }
}
