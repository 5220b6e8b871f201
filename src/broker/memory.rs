//! The memory budget: what clients can make the process hold, all of them together, and who is cut when that is too much.
//!
//! It counts what waits to be written to clients (payloads they share once), operations that have come in part,
//! subscriptions, requests to the API, messages on their way to the store, those of open atomic batches, and those that streams
//! keep for consumers that are close behind. The store's cache is taken off before
//! ([`crate::config::Config::client_memory_bytes_max`]); what streams in memory hold has a limit of its own
//! (`max_memory_store`), and the state of streams and consumers those of their account.
//!
//! Holders count in coarse steps through their [`Share`], so that a message costs no atomic operation. Above the budget
//! publishers pause and [`Broker::guard_memory`] cuts those who hold most; above a quarter of it publishers to streams pause
//! sooner.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::client_state::ClientState;
use super::outbox::Closed;
use super::registry::Broker;

/// Shares are counted in whole steps: what a connection holds below this costs nothing to count.
const STEP_BYTES: usize = 16 * 1024;
/// How long those who were cut may take to let go before others are looked at.
const LET_GO: Duration = Duration::from_millis(20);

/// See the module.
pub struct Memory {
    bytes_max: AtomicUsize,
    held_bytes: AtomicUsize,
    /// Of those held, what is on its way to the store.
    writing_bytes: AtomicUsize,
    /// Of those held, what streams keep at hand.
    cached_bytes: AtomicUsize,
    /// Told when there is too much.
    pressed: Notify,
    /// Told when there is no longer.
    eased: Notify,
}

impl Memory {
    /// Clients may make the process hold so many bytes.
    pub fn new(bytes_max: usize) -> Memory {
        Memory {
            bytes_max: AtomicUsize::new(bytes_max),
            held_bytes: AtomicUsize::new(0),
            writing_bytes: AtomicUsize::new(0),
            cached_bytes: AtomicUsize::new(0),
            pressed: Notify::new(),
            eased: Notify::new(),
        }
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    pub(super) fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.pressed.notify_one();
        self.eased.notify_waiters();
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Whether publishers are to pause.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.held_bytes() > self.bytes_max()
    }

    /// Whether so much is on its way to the store that no stream may have much of it.
    pub(super) fn is_writing_much(&self) -> bool {
        self.writing_bytes.load(Ordering::Relaxed) > self.bytes_max() / 4
    }

    fn hold(&self, bytes: usize) {
        if self.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes_max() {
            self.pressed.notify_one();
        }
    }

    fn release(&self, bytes: usize) {
        let before = self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let max = self.bytes_max();
        if before > max && before - bytes <= max {
            self.eased.notify_waiters();
        }
    }

    /// Messages are on their way to the store until [`Memory::has_written`].
    pub(super) fn is_writing(&self, bytes: usize) {
        self.writing_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.hold(bytes);
    }

    pub(super) fn has_written(&self, bytes: usize) {
        self.writing_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.release(bytes);
    }

    /// A batch's messages are kept until it is committed: now so many bytes, before so many.
    pub(super) fn stage(&self, before: usize, now: usize) {
        match now.checked_sub(before) {
            Some(0) => {}
            Some(more) => self.hold(more),
            None => self.release(before - now),
        }
    }

    /// What may be staged in all streams.
    pub(super) fn staged_bytes_max(&self) -> usize {
        self.bytes_max() / 4
    }

    /// How much a stream that would keep `wanted` bytes at hand may: less when others have much, and nothing when they have
    /// a quarter of the budget.
    pub(super) fn cached_bytes_max(&self, wanted: usize) -> usize {
        let (cached, max) = (self.cached_bytes.load(Ordering::Relaxed), self.bytes_max() / 4);
        match cached {
            _ if cached < max / 2 => wanted,
            _ if cached < max => wanted / 16,
            _ => 0,
        }
    }

    /// Returns once it is not over the budget. Cancel safe.
    pub async fn until_eased(&self) {
        loop {
            let eased = self.eased.notified();
            tokio::pin!(eased);
            eased.as_mut().enable();
            if !self.is_over() {
                return;
            }
            eased.await;
        }
    }

    /// A copy of these bytes that many outboxes may hold, counted once.
    pub(super) fn share_bytes(self: &Arc<Memory>, parts: &[&[u8]]) -> Bytes {
        let bytes = parts.concat();
        self.hold(bytes.len());
        Bytes::from_owner(SharedBytes { memory: self.clone(), bytes })
    }
}

struct SharedBytes {
    memory: Arc<Memory>,
    bytes: Vec<u8>,
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        self.memory.release(self.bytes.len());
    }
}

/// What one holder counts for, in whole steps. Given back on drop.
pub struct Share {
    memory: Arc<Memory>,
    bytes: usize,
    /// It counts among what streams keep at hand.
    is_cache: bool,
}

impl Share {
    pub fn new(memory: &Arc<Memory>) -> Share {
        Share { memory: memory.clone(), bytes: 0, is_cache: false }
    }

    /// Of something that could be read again.
    pub(super) fn of_cache(memory: &Arc<Memory>) -> Share {
        Share { memory: memory.clone(), bytes: 0, is_cache: true }
    }

    /// The holder has so many bytes now; true when that is another step.
    #[inline]
    pub fn set(&mut self, bytes: usize) -> bool {
        let bytes = bytes / STEP_BYTES * STEP_BYTES;
        if bytes == self.bytes {
            return false;
        }
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.memory.hold(more),
            None => self.memory.release(self.bytes - bytes),
        }
        if self.is_cache {
            // Wraps around zero and back when there is less.
            self.memory.cached_bytes.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }

    /// What it counts for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Broker {
    /// Cuts those who hold most, whenever clients make the process hold more than it may. Runs for ever.
    pub async fn guard_memory(&self) {
        loop {
            self.memory.pressed.notified().await;
            while self.memory.is_over() {
                self.cut_biggest_holders();
                tokio::select! {
                    () = self.memory.until_eased() => {}
                    () = tokio::time::sleep(LET_GO) => {}
                }
            }
        }
    }

    /// Cuts until an eighth of the budget will be free: first those who take nothing, then the others, the biggest holders
    /// first. Connections inside the process stay.
    fn cut_biggest_holders(&self) {
        let excess = self.memory.held_bytes().saturating_sub(self.memory.bytes_max() / 8 * 7);
        let mut going = 0;
        let mut holders = Vec::new();
        for client in self.clients().into_iter().filter(|client| !client.is_in_process()) {
            let bytes = client.held_bytes();
            match client.outbox.closed() {
                Some(Closed::SlowConsumer | Closed::OverBudget | Closed::Gone) => going += bytes,
                _ if bytes >= STEP_BYTES => holders.push((bytes, client)),
                _ => {}
            }
        }
        holders.sort_unstable_by_key(|(bytes, client)| Reverse((client.outbox.is_stuck(), *bytes)));
        for (bytes, client) in holders {
            if going >= excess {
                return;
            }
            going += bytes;
            self.cut_over_budget(&client, bytes);
        }
    }

    fn cut_over_budget(&self, client: &ClientState, bytes: usize) {
        let slow = client.outbox.waiting_bytes() >= bytes / 2;
        client.set_close_reason(if slow { "Slow Consumer (Memory Budget)" } else { "Memory Budget Exceeded" });
        let (address, id, max) = (&client.address, client.id, self.memory.bytes_max());
        if slow {
            self.count_slow_consumer();
            tracing::info!(
                "{address} - cid:{id} - Slow Consumer Detected: {bytes} bytes held, memory budget of {max} exceeded"
            );
        } else {
            tracing::info!("{address} - cid:{id} - Closed: {bytes} bytes held, memory budget of {max} exceeded");
        }
        client.outbox.close(Closed::OverBudget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_count_in_steps_and_give_back() {
        let memory = Arc::new(Memory::new(10 * STEP_BYTES));
        let mut share = Share::new(&memory);
        assert!(!share.set(STEP_BYTES - 1), "too little to count");
        assert!(share.set(3 * STEP_BYTES + 5) && !share.set(3 * STEP_BYTES));
        assert_eq!(memory.held_bytes(), 3 * STEP_BYTES);
        let shared = memory.share_bytes(&[b"head", b"body"]);
        let other = shared.slice(4..);
        drop(shared);
        assert_eq!((&*other, memory.held_bytes()), (&b"body"[..], 3 * STEP_BYTES + 8), "the last one gives back");
        drop(other);
        memory.is_writing(8 * STEP_BYTES);
        assert!(memory.is_over() && memory.is_writing_much());
        drop(share);
        assert!(!memory.is_over());
        memory.has_written(8 * STEP_BYTES);
        assert_eq!((memory.held_bytes(), memory.is_writing_much()), (0, false));
    }

    #[test]
    fn caches_get_less_the_more_there_are() {
        let memory = Arc::new(Memory::new(64 * STEP_BYTES));
        let mut shares: Vec<_> = (0..3).map(|_| Share::of_cache(&memory)).collect();
        for (cached, expected) in [(0, 1600), (8, 100), (16, 0), (3, 1600)] {
            shares[0].set(cached * STEP_BYTES);
            assert_eq!(
                (memory.cached_bytes_max(1600), memory.held_bytes()),
                (expected, cached * STEP_BYTES),
                "{cached}"
            );
        }
        drop(shares);
        assert_eq!(memory.held_bytes(), 0);
        memory.stage(0, 5);
        memory.stage(5, 2);
        assert_eq!(memory.held_bytes(), 2);
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_it_is_eased() {
        let memory = Arc::new(Memory::new(STEP_BYTES));
        memory.until_eased().await;
        let mut share = Share::new(&memory);
        share.set(2 * STEP_BYTES);
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.until_eased().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        share.set(0);
        waiting.await.unwrap();
    }
}
