//! The waiting tasks of one class and priority: keys take turns, and within a key the oldest is first.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

/// Where a task stands among others of its queue: the lower the sooner. It never changes while the task waits, so ageing
/// costs nothing: a level of priority is worth a fixed time of waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The priority where nothing ages; else 0.
    pub level: u8,
    /// Since when the task waits, in nanoseconds, and what its priority is worth.
    pub at: i64,
    /// Tells tasks of the same moment apart.
    pub ticket: u64,
}

#[derive(Debug)]
struct Line {
    /// Its place in the turns; 0 when it is parked.
    turn: u64,
    tasks: BTreeMap<Rank, u32>,
}

/// A lane.
#[derive(Debug, Default)]
pub struct Lane {
    lines: HashMap<Arc<str>, Line>,
    turns: BTreeMap<u64, Arc<str>>,
    last_turn: u64,
    /// The first task of each line that has a turn.
    firsts: BTreeMap<Rank, Arc<str>>,
}

impl Lane {
    /// Whether nobody waits, parked lines included.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The longest waiting task that is not parked.
    pub fn oldest(&self) -> Option<Rank> {
        self.firsts.first_key_value().map(|(rank, _)| *rank)
    }

    /// Puts a task in its key's line; `parked` counts only if that begins with it. Returns whether it does.
    pub fn push(&mut self, key: &Arc<str>, rank: Rank, task: u32, parked: bool) -> bool {
        if let Some(line) = self.lines.get_mut(key) {
            let first = line.tasks.first_key_value().map(|(first, _)| *first);
            line.tasks.insert(rank, task);
            if let Some(first) = first.filter(|first| line.turn > 0 && rank < *first) {
                self.firsts.remove(&first);
                self.firsts.insert(rank, key.clone());
            }
            return false;
        }
        self.lines.insert(key.clone(), Line { turn: 0, tasks: BTreeMap::from([(rank, task)]) });
        if !parked {
            self.unpark(key);
        }
        true
    }

    /// Takes a task out, wherever it stands. Returns whether its key's line ended with it.
    pub fn remove(&mut self, key: &Arc<str>, rank: Rank) -> bool {
        let Some(line) = self.lines.get_mut(key) else { return false };
        line.tasks.remove(&rank);
        let next = line.tasks.first_key_value().map(|(next, _)| *next);
        if self.firsts.remove(&rank).is_some()
            && let Some(next) = next
        {
            self.firsts.insert(next, key.clone());
        }
        if next.is_none() {
            self.turns.remove(&line.turn);
            self.lines.remove(key);
        }
        next.is_none()
    }

    /// Whose turn it is: the first task of that key. The key goes behind the others.
    pub fn turn(&mut self) -> Option<(Arc<str>, Rank, u32)> {
        let (_, key) = self.turns.pop_first()?;
        let line = self.lines.get_mut(&key).expect("every turn is a line's");
        self.last_turn += 1;
        line.turn = self.last_turn;
        self.turns.insert(line.turn, key.clone());
        let (rank, task) = line.tasks.first_key_value().expect("a line has tasks");
        Some((key, *rank, *task))
    }

    /// Takes a key out of the turns until [`Lane::unpark`].
    pub fn park(&mut self, key: &Arc<str>) {
        let Some(line) = self.lines.get_mut(key) else { return };
        self.turns.remove(&std::mem::take(&mut line.turn));
        if let Some((first, _)) = line.tasks.first_key_value() {
            self.firsts.remove(first);
        }
    }

    /// Gives a key a turn, behind the others.
    pub fn unpark(&mut self, key: &Arc<str>) {
        let Some(line) = self.lines.get_mut(key).filter(|line| line.turn == 0) else { return };
        self.last_turn += 1;
        line.turn = self.last_turn;
        self.turns.insert(line.turn, key.clone());
        let (first, _) = line.tasks.first_key_value().expect("a line has tasks");
        self.firsts.insert(*first, key.clone());
    }
}
