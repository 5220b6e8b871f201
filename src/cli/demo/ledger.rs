//! What the agents themselves saw: who began what, and whose completion was accepted.

use std::sync::Mutex;

use hashbrown::{HashMap, HashSet};

/// Shared by the agents and the stage.
#[derive(Default)]
pub struct Ledger {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// Leases whose completion the coordinator accepted, by task.
    accepted: HashMap<String, HashSet<String>>,
    begun: HashSet<(String, String)>,
    done: HashMap<&'static str, u32>,
    in_hand: HashMap<&'static str, u32>,
    stale: u32,
}

/// The figures at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Tasks with an accepted completion.
    pub completed: u32,
    /// Attempts that an agent began.
    pub begun: u32,
    /// Completions refused because the lease had passed on.
    pub stale: u32,
}

impl Ledger {
    /// False when this very attempt was begun before: the same delivery again after a reconnect.
    pub fn begin(&self, agent: &'static str, task: &str, lease: &str) -> bool {
        let mut books = self.lock();
        let fresh = books.begun.insert((task.to_owned(), lease.to_owned()));
        if fresh {
            *books.in_hand.entry(agent).or_default() += 1;
        }
        fresh
    }

    /// The coordinator took the result.
    pub fn accept(&self, agent: &'static str, task: &str, lease: &str) {
        let mut books = self.lock();
        books.accepted.entry(task.to_owned()).or_default().insert(lease.to_owned());
        *books.done.entry(agent).or_default() += 1;
        books.release(agent);
    }

    /// The coordinator refused the result: somebody else has the task, or has done it.
    pub fn refuse(&self, agent: &'static str) {
        let mut books = self.lock();
        books.stale += 1;
        books.release(agent);
    }

    /// The agent is dead, and what it had in hand with it: so many tasks.
    pub fn bury(&self, agent: &'static str) -> u32 {
        self.lock().in_hand.remove(agent).unwrap_or_default()
    }

    pub fn figures(&self) -> Figures {
        let books = self.lock();
        Figures { completed: books.accepted.len() as u32, begun: books.begun.len() as u32, stale: books.stale }
    }

    /// Completed by `agent`, and in its hands now.
    pub fn of(&self, agent: &str) -> (u32, u32) {
        let books = self.lock();
        let count = |counts: &HashMap<&'static str, u32>| counts.get(agent).copied().unwrap_or_default();
        (count(&books.done), count(&books.in_hand))
    }

    /// The leases whose completion of `task` was accepted.
    pub fn accepted(&self, task: &str) -> Vec<String> {
        self.lock().accepted.get(task).map(|leases| leases.iter().cloned().collect()).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Books {
    fn release(&mut self, agent: &str) {
        if let Some(count) = self.in_hand.get_mut(agent) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_balance() {
        let ledger = Ledger::default();
        assert!(ledger.begin("ada", "t1", "l1"));
        assert!(!ledger.begin("ada", "t1", "l1"), "the same delivery again");
        assert!(ledger.begin("ada", "t2", "l2"));
        ledger.accept("ada", "t1", "l1");
        assert_eq!(ledger.accepted("t1"), ["l1"]);
        assert_eq!(ledger.of("ada"), (1, 1));
        assert_eq!(ledger.bury("ada"), 1, "t2 dies with her");
        assert!(ledger.begin("alan", "t2", "l3"));
        ledger.refuse("alan");
        assert_eq!(ledger.figures(), Figures { completed: 1, begun: 3, stale: 1 });
    }
}
