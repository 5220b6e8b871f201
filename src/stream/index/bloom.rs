//! A small set of subject ids that may claim too much, to skip segments a filter cannot match in.

const WORDS: usize = 64;

#[derive(Clone, Debug)]
pub struct Bloom {
    words: [u64; WORDS],
}

impl Default for Bloom {
    fn default() -> Bloom {
        Bloom { words: [0; WORDS] }
    }
}

impl Bloom {
    pub fn clear(&mut self) {
        self.words = [0; WORDS];
    }

    #[inline]
    pub fn insert(&mut self, id: u32) {
        let (word, bit) = Self::place(id);
        self.words[word] |= bit;
    }

    #[inline]
    pub fn may_contain(&self, id: u32) -> bool {
        let (word, bit) = Self::place(id);
        self.words[word] & bit != 0
    }

    pub fn may_intersect(&self, other: &Bloom) -> bool {
        self.words.iter().zip(&other.words).any(|(left, right)| left & right != 0)
    }

    /// Ids are dense small numbers, so their low bits spread best.
    #[inline]
    fn place(id: u32) -> (usize, u64) {
        let at = id as usize % (WORDS * 64);
        (at / 64, 1 << (at % 64))
    }
}
