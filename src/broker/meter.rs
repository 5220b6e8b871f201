//! Counts messages by subject, for the subjects that an operator wants to watch. Off unless asked for.
//!
//! A route cache asks once per subject it has not seen; a message then costs a few relaxed additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

use crate::types::subject;

/// What clients published on a subject, and what became of it at once: subscribers and streams count as receivers.
#[derive(Debug, Default)]
pub struct SubjectCounts {
    in_msgs: AtomicU64,
    in_bytes: AtomicU64,
    out_msgs: AtomicU64,
}

impl SubjectCounts {
    pub(super) fn add(&self, bytes: usize, receivers: usize) {
        self.in_msgs.fetch_add(1, Ordering::Relaxed);
        self.in_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.out_msgs.fetch_add(receivers as u64, Ordering::Relaxed);
    }

    /// Messages and bytes that came, and messages that were handed on.
    pub fn get(&self) -> [u64; 3] {
        [&self.in_msgs, &self.in_bytes, &self.out_msgs].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Counts by account and subject.
type Counted = HashMap<(String, String), Arc<SubjectCounts>>;

/// See the module.
#[derive(Debug, Default)]
pub struct Meter {
    /// The first that matches decides.
    filters: Vec<String>,
    /// Subjects counted by themselves; further ones are counted together, under the filter they match.
    subjects_max: usize,
    counted: Mutex<Counted>,
}

impl Meter {
    /// Counts what matches one of `filters`, which are valid.
    pub fn new(filters: Vec<String>, subjects_max: usize) -> Meter {
        Meter { filters, subjects_max, counted: Mutex::default() }
    }

    /// Where messages on `name` are counted, if they are. Holds a lock, so couriers remember the answer for subjects that
    /// come again.
    pub(super) fn counts_of(&self, account: &str, name: &[u8]) -> Option<Arc<SubjectCounts>> {
        let filter = self.filters.iter().find(|filter| subject::matches(filter.as_bytes(), name))?;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (account.to_owned(), String::from_utf8_lossy(name).into_owned());
        if counted.len() >= self.subjects_max && !counted.contains_key(&key) {
            key.1.clone_from(filter);
        }
        Some(counted.entry(key).or_default().clone())
    }

    /// All that is counted, by account and subject.
    pub fn list(&self) -> Vec<(String, String, Arc<SubjectCounts>)> {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> =
            counted.iter().map(|((account, name), counts)| (account.clone(), name.clone(), counts.clone())).collect();
        list.sort_by(|left, right| (&left.0, &left.1).cmp(&(&right.0, &right.1)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_together() {
        let meter = Meter::new(vec!["a.*.x".to_owned(), "b.>".to_owned()], 3);
        for at in 0..1000 {
            for name in [format!("a.{at}.x"), format!("b.{at}"), format!("c.{at}")] {
                if let Some(counts) = meter.counts_of("A", name.as_bytes()) {
                    counts.add(2, 1);
                }
            }
        }
        meter.counts_of("A", b"a.0.x").expect("it matches").add(2, 0);
        let list: Vec<_> = meter.list().into_iter().map(|(_, name, counts)| (name, counts.get())).collect();
        let expected = [
            ("a.*.x", [998, 1996, 998]),
            ("a.0.x", [2, 4, 1]),
            ("a.1.x", [1, 2, 1]),
            ("b.0", [1, 2, 1]),
            ("b.>", [999, 1998, 999]),
        ];
        assert_eq!(list, expected.map(|(name, counts)| (name.to_owned(), counts)));
    }
}
