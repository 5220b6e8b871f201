//! Distances between neighbours in a subject's chain, in four bytes each.

use hashbrown::HashMap;

/// No neighbour.
pub const NONE: u32 = 0;
/// The distance does not fit; the sequence is kept in [`Far`].
const FAR: u32 = u32::MAX;

/// The few links that span more than four billion sequences, by the sequence they start from.
#[derive(Debug, Default)]
pub struct Far {
    next: HashMap<u64, u64>,
    prev: HashMap<u64, u64>,
}

impl Far {
    pub fn clear(&mut self) {
        self.next.clear();
        self.prev.clear();
    }

    pub fn next(&self, seq: u64, link: u32) -> Option<u64> {
        match link {
            NONE => None,
            FAR => self.next.get(&seq).copied(),
            distance => Some(seq + u64::from(distance)),
        }
    }

    pub fn prev(&self, seq: u64, link: u32) -> Option<u64> {
        match link {
            NONE => None,
            FAR => self.prev.get(&seq).copied(),
            distance => Some(seq - u64::from(distance)),
        }
    }

    /// The link from `seq` forward to `to`, replacing `old`.
    pub fn link_next(&mut self, seq: u64, old: u32, to: Option<u64>) -> u32 {
        if old == FAR {
            self.next.remove(&seq);
        }
        let Some(to) = to else { return NONE };
        match u32::try_from(to - seq) {
            Ok(distance) if distance != FAR => distance,
            _ => {
                self.next.insert(seq, to);
                FAR
            }
        }
    }

    /// The link from `seq` back to `to`, replacing `old`.
    pub fn link_prev(&mut self, seq: u64, old: u32, to: Option<u64>) -> u32 {
        if old == FAR {
            self.prev.remove(&seq);
        }
        let Some(to) = to else { return NONE };
        match u32::try_from(seq - to) {
            Ok(distance) if distance != FAR => distance,
            _ => {
                self.prev.insert(seq, to);
                FAR
            }
        }
    }
}
