//! The places that clients from outside the process have: `max_connections` of them. The process's own parts need none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Arc<AtomicUsize>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<AtomicUsize>,
}

impl Places {
    /// `None` while `max` are taken.
    pub(super) fn take(&self, max: usize) -> Option<Arc<Place>> {
        let within = |taken: usize| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
        Some(Arc::new(Place { taken: self.taken.clone() }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_are_said_now() {
        let places = Places::default();
        let first = places.take(2);
        let second = places.take(2);
        assert!(first.is_some() && second.is_some());
        assert!(places.take(2).is_none());
        assert!(places.take(3).is_some());
        drop(first);
        assert!(places.take(1).is_none() && places.take(2).is_some());
    }
}
