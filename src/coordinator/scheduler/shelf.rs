//! The classes of a queue that have waiting tasks, the one that waits longest first, and an index of whom they could use.
//!
//! They stand in blocks, each with the union of the agents that may serve one of its classes. The union meets the free agents
//! exactly if one of the classes does, so the first class that can be served is found without looking at those that cannot:
//! a thousand classes cost a dozen unions and one block.

use super::agent_set::AgentSet;
use super::lane::Rank;

/// Classes in a block, about; it splits at twice as many.
const BLOCK: usize = 64;

#[derive(Debug, Default)]
struct Block {
    /// In order of their ranks.
    classes: Vec<(Rank, u32)>,
    union: AgentSet,
}

impl Block {
    fn new<'a>(classes: Vec<(Rank, u32)>, agents: impl Fn(u32) -> &'a AgentSet) -> Block {
        let mut block = Block { classes, union: AgentSet::default() };
        block.unite(agents);
        block
    }

    fn unite<'a>(&mut self, agents: impl Fn(u32) -> &'a AgentSet) {
        self.union.clear();
        for (_, class) in &self.classes {
            self.union.add_all(agents(*class));
        }
    }
}

/// A shelf. Everywhere `agents` tells which agents may serve a class.
#[derive(Debug, Default)]
pub struct Shelf {
    /// None is empty.
    blocks: Vec<Block>,
}

impl Shelf {
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The rank of the first class.
    pub fn head(&self) -> Option<Rank> {
        self.blocks.first().map(|block| block.classes[0].0)
    }

    fn block_of(&self, rank: Rank) -> usize {
        self.blocks.partition_point(|block| block.classes[0].0 <= rank).saturating_sub(1)
    }

    pub fn insert<'a>(&mut self, rank: Rank, class: u32, agents: impl Fn(u32) -> &'a AgentSet) {
        if self.blocks.is_empty() {
            return self.blocks.push(Block::new(vec![(rank, class)], agents));
        }
        let index = self.block_of(rank);
        let block = &mut self.blocks[index];
        let at = block.classes.partition_point(|(other, _)| *other < rank);
        block.classes.insert(at, (rank, class));
        block.union.add_all(agents(class));
        if block.classes.len() > 2 * BLOCK {
            let rest = block.classes.split_off(BLOCK);
            block.unite(&agents);
            self.blocks.insert(index + 1, Block::new(rest, agents));
        }
    }

    pub fn remove<'a>(&mut self, rank: Rank, agents: impl Fn(u32) -> &'a AgentSet) {
        if self.blocks.is_empty() {
            return;
        }
        let index = self.block_of(rank);
        let block = &mut self.blocks[index];
        let Ok(at) = block.classes.binary_search_by_key(&rank, |(other, _)| *other) else { return };
        block.classes.remove(at);
        if block.classes.is_empty() {
            self.blocks.remove(index);
            return;
        }
        let left = block.classes.len();
        if left < BLOCK && self.blocks.get(index + 1).is_some_and(|next| left + next.classes.len() <= BLOCK) {
            let next = self.blocks.remove(index + 1);
            self.blocks[index].classes.extend(next.classes);
        }
        self.blocks[index].unite(agents);
    }

    /// The agents of the class at `rank` have changed.
    pub fn refresh<'a>(&mut self, rank: Rank, agents: impl Fn(u32) -> &'a AgentSet) {
        if !self.blocks.is_empty() {
            let index = self.block_of(rank);
            self.blocks[index].unite(agents);
        }
    }

    /// Whether `agent` may serve them has changed for any of the classes.
    pub fn refresh_agent<'a>(&mut self, agent: u32, agents: impl Fn(u32) -> &'a AgentSet) {
        for block in &mut self.blocks {
            let any = block.classes.iter().any(|(_, class)| agents(*class).contains(agent));
            block.union.set(agent, any);
        }
    }

    /// The first class that one of the `free` agents may serve.
    pub fn first<'a>(&self, free: &AgentSet, agents: impl Fn(u32) -> &'a AgentSet) -> Option<(Rank, u32)> {
        let block = self.blocks.iter().find(|block| block.union.meets(free))?;
        let found = block.classes.iter().find(|(_, class)| agents(*class).meets(free)).copied();
        debug_assert!(found.is_some(), "a union holds its classes' agents and no others");
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::random::Random;

    /// Against a sorted list that is searched from its beginning.
    #[test]
    fn it_finds_what_a_search_finds() {
        let mut random = Random::new(11);
        let mut draw = |below: u64| (random.draw() % below) as u32;
        let mut sets: Vec<AgentSet> = Vec::new();
        for _ in 0..600 {
            let mut set = AgentSet::default();
            (0..draw(4)).for_each(|_| set.insert(draw(130)));
            sets.push(set);
        }
        let mut shelf = Shelf::default();
        let mut model: Vec<(Rank, u32)> = Vec::new();
        for step in 0..6000_u64 {
            let class = draw(600);
            let known = model.iter().position(|(_, other)| *other == class);
            match (draw(10), known) {
                (0..5, None) => {
                    let rank = Rank { level: 0, at: i64::from(draw(1000)), ticket: step };
                    shelf.insert(rank, class, |class| &sets[class as usize]);
                    model.push((rank, class));
                    model.sort();
                }
                // It empties now and then, so that blocks join and go.
                (5..7, Some(at)) | (0..5, Some(at)) if step % 2000 > 1000 => {
                    shelf.remove(model.remove(at).0, |class| &sets[class as usize]);
                }
                (7, Some(at)) => {
                    let agent = draw(130);
                    sets[class as usize].set(agent, step % 2 == 0);
                    shelf.refresh(model[at].0, |class| &sets[class as usize]);
                }
                (8, _) => {
                    let agent = draw(130);
                    sets.iter_mut().for_each(|set| set.set(agent, step % 3 == 0 && set.contains((agent + 1) % 130)));
                    shelf.refresh_agent(agent, |class| &sets[class as usize]);
                }
                _ => {}
            }
            let mut free = AgentSet::default();
            (0..draw(3)).for_each(|_| free.insert(draw(130)));
            let expected = model.iter().find(|(_, class)| sets[*class as usize].meets(&free)).copied();
            assert_eq!(shelf.first(&free, |class| &sets[class as usize]), expected, "step {step}");
            assert_eq!(shelf.is_empty(), model.is_empty());
            assert!(shelf.blocks.len() <= 1 + model.len() / (BLOCK / 2), "blocks join as they empty");
        }
    }
}
