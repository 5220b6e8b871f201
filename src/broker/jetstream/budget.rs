//! What JetStream in all accounts may use together, and what it uses.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::context::Usage;
use crate::stream::BatchTerms;
use crate::stream::config::Storage;
use crate::types::{AssetLimits, Timestamp};

/// Atomic batches open in all streams (nats-server `streamDefaultMaxAtomicBatchInflightTotal`).
const ATOMIC_OPEN_MAX: i64 = 1000;
/// Fast-ingest batches open in all streams (nats-server `streamDefaultMaxFastBatchInflightTotal`).
const FAST_OPEN_MAX: i64 = 50_000;

/// See the module. One for all accounts of a server.
#[derive(Debug)]
pub struct Budget {
    /// What each consumer, stream and batch is held to.
    pub limits: AssetLimits,
    memory_bytes_max: u64,
    storage_bytes_max: u64,
    /// What streams hold.
    pub(super) used: Usage,
    /// What streams reserve by `max_bytes`.
    pub(super) reserved: Usage,
    atomic_batches: AtomicUsize,
    fast_batches: AtomicUsize,
    /// In open atomic batches.
    staged_bytes: AtomicUsize,
    /// The system account is told that no space is left.
    pub(super) out_of_storage: Throttle,
}

/// Something that is said again at the earliest after [`SAID_AGAIN`].
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// In nanoseconds; 0 for never.
    said: AtomicU64,
}

const SAID_AGAIN: Duration = Duration::from_secs(10);

impl Throttle {
    /// Whether it is to be said now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let said = self.said.load(Ordering::Relaxed);
        let due = said == 0 || now.since(Timestamp(said as i64)) >= SAID_AGAIN;
        // Of several who ask at the same time one says it.
        due && self.said.compare_exchange(said, now.nanos() as u64, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Batches open in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenBatches {
    pub(super) atomic: usize,
    pub(super) fast: usize,
    /// What the atomic ones hold.
    pub(super) staged_bytes: usize,
}

impl Budget {
    /// Streams in memory, and on disk, may hold, and reserve, so many bytes in all.
    pub fn new(memory_bytes_max: u64, storage_bytes_max: u64, limits: AssetLimits) -> Budget {
        Budget {
            limits,
            memory_bytes_max,
            storage_bytes_max,
            used: Usage::default(),
            reserved: Usage::default(),
            atomic_batches: AtomicUsize::new(0),
            fast_batches: AtomicUsize::new(0),
            staged_bytes: AtomicUsize::new(0),
            out_of_storage: Throttle::default(),
        }
    }

    pub fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max
    }

    pub fn storage_bytes_max(&self) -> u64 {
        self.storage_bytes_max
    }

    /// What streams of this kind may hold.
    pub(super) fn bytes_max(&self, storage: Storage) -> u64 {
        match storage {
            Storage::Memory => self.memory_bytes_max,
            Storage::File => self.storage_bytes_max,
        }
    }

    /// What a stream with these open batches is held to now, when all of them may hold `staged_bytes_max`.
    pub(super) fn batch_terms(&self, own: OpenBatches, staged_bytes_max: usize) -> BatchTerms {
        let usual = BatchTerms::default();
        let limits = &self.limits;
        let set = |limit: i64| usize::try_from(limit).ok().filter(|limit| *limit > 0);
        let room = |open: &AtomicUsize, own: usize, total: i64| {
            let elsewhere = open.load(Ordering::Relaxed).saturating_sub(own);
            set(limits.max_batch_inflight_total).unwrap_or(total as usize).saturating_sub(elsewhere)
        };
        let per_stream = set(limits.max_batch_inflight_per_stream);
        let atomic = room(&self.atomic_batches, own.atomic, ATOMIC_OPEN_MAX);
        let fast = room(&self.fast_batches, own.fast, FAST_OPEN_MAX);
        let staged_elsewhere = self.staged_bytes.load(Ordering::Relaxed).saturating_sub(own.staged_bytes);
        let timeout = u64::try_from(limits.max_batch_timeout).ok().filter(|nanos| *nanos > 0);
        BatchTerms {
            messages_max: set(limits.max_batch_size).map_or(usual.messages_max, |max| max as u64),
            atomic_open_max: per_stream.unwrap_or(usual.atomic_open_max).min(atomic),
            fast_open_max: per_stream.unwrap_or(usual.fast_open_max).min(fast),
            timeout: timeout.map_or(usual.timeout, Duration::from_nanos),
            staged_bytes_max: usual.staged_bytes_max.min(staged_bytes_max.saturating_sub(staged_elsewhere)),
        }
    }

    /// A stream has other open batches now than before.
    pub(super) fn count_batches(&self, before: OpenBatches, now: OpenBatches) {
        // Wraps around zero and back when there are fewer.
        self.atomic_batches.fetch_add(now.atomic.wrapping_sub(before.atomic), Ordering::Relaxed);
        self.staged_bytes.fetch_add(now.staged_bytes.wrapping_sub(before.staged_bytes), Ordering::Relaxed);
        self.fast_batches.fetch_add(now.fast.wrapping_sub(before.fast), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_said_again_after_a_while() {
        let throttle = Throttle::default();
        let at = |seconds: u64| Timestamp(1) + Duration::from_secs(seconds);
        let due: Vec<_> = [5, 6, 14, 15, 16, 25].into_iter().filter(|seconds| throttle.is_due(at(*seconds))).collect();
        assert_eq!(due, [5, 15, 25]);
    }

    #[test]
    fn batches_are_counted_over_all_streams() {
        let limits =
            AssetLimits { max_batch_inflight_total: 5, max_batch_inflight_per_stream: 3, ..Default::default() };
        let budget = Budget::new(0, 0, limits);
        let none = OpenBatches::default();
        let open = |atomic| OpenBatches { atomic, ..none };
        assert_eq!(budget.batch_terms(none, usize::MAX).atomic_open_max, 3);
        budget.count_batches(none, open(3));
        assert_eq!(budget.batch_terms(open(3), usize::MAX).atomic_open_max, 3);
        assert_eq!(budget.batch_terms(none, usize::MAX).atomic_open_max, 2, "what the others left");
        assert_eq!(budget.batch_terms(none, usize::MAX).fast_open_max, 3, "counted apart");
        budget.count_batches(open(3), open(1));
        assert_eq!(budget.batch_terms(none, usize::MAX).atomic_open_max, 3);
        let staged = OpenBatches { staged_bytes: 700, ..none };
        budget.count_batches(none, staged);
        assert_eq!(budget.batch_terms(none, 1000).staged_bytes_max, 300, "what the others left");
        assert_eq!(budget.batch_terms(staged, 1000).staged_bytes_max, 1000);
        assert_eq!(Budget::new(0, 0, AssetLimits::default()).batch_terms(none, usize::MAX), BatchTerms::default());
    }
}
