//! A set of agents by their numbers in the roster, a bit each.

/// Grows with the highest number in it.
#[derive(Clone, Debug, Default)]
pub struct AgentSet {
    words: Vec<u64>,
}

impl AgentSet {
    pub fn insert(&mut self, agent: u32) {
        let word = agent as usize / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (agent % 64);
    }

    pub fn remove(&mut self, agent: u32) {
        if let Some(word) = self.words.get_mut(agent as usize / 64) {
            *word &= !(1 << (agent % 64));
        }
    }

    /// Puts `agent` in or out.
    pub fn set(&mut self, agent: u32, member: bool) {
        if member { self.insert(agent) } else { self.remove(agent) }
    }

    pub fn contains(&self, agent: u32) -> bool {
        self.words.get(agent as usize / 64).is_some_and(|word| word & 1 << (agent % 64) != 0)
    }

    pub fn clear(&mut self) {
        self.words.clear();
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &AgentSet) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Whether the two have a member in common.
    pub fn meets(&self, other: &AgentSet) -> bool {
        self.words.iter().zip(&other.words).any(|(one, other)| one & other != 0)
    }

    /// The members that are also in `other`, in order.
    pub fn common<'a>(&'a self, other: &'a AgentSet) -> impl Iterator<Item = u32> + 'a {
        self.words.iter().zip(&other.words).enumerate().flat_map(|(at, (one, other))| {
            let mut bits = one & other;
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(agents: &[u32]) -> AgentSet {
        let mut set = AgentSet::default();
        agents.iter().for_each(|agent| set.insert(*agent));
        set
    }

    #[test]
    fn members_meet_across_words_of_any_number() {
        let mut one = set(&[0, 63, 64, 200]);
        let other = set(&[1, 63, 200]);
        assert_eq!(one.common(&other).collect::<Vec<_>>(), [63, 200]);
        assert!(one.meets(&other) && !one.meets(&set(&[1, 65, 1000])) && !one.meets(&AgentSet::default()));
        one.set(63, false);
        one.remove(5000);
        assert!(!one.contains(63) && one.contains(200) && !one.contains(9999));
        one.add_all(&set(&[9999]));
        assert!(one.contains(9999) && one.contains(0));
    }
}
