//! The batches that wait for the committer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::batch::Batch;
use super::error::CommitError;

pub(super) type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// A submitted batch.
pub(super) struct Waiting {
    /// How many commits had failed when the state it rests on was read.
    pub(super) epoch: u64,
    pub(super) batch: Batch,
    pub(super) done: Done,
}

/// Unbounded by itself: `submit` never blocks. Producers bound it by [`Queue::bytes`], which counts batches until their
/// transaction has ended.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closing: bool,
    /// Set by a reader that met an I/O error.
    nudged: bool,
    asleep: bool,
}

/// Why [`Queue::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    Work,
    Timeout,
    /// Closing, and nothing waits any more.
    Closed,
}

impl Queue {
    /// Appends; gives the batch back when the store is closing.
    pub(super) fn push(&self, waiting: Waiting) -> Result<(), Waiting> {
        let mut state = self.lock();
        if state.closing {
            return Err(waiting);
        }
        self.bytes.fetch_add(waiting.batch.weight_bytes(), Ordering::Relaxed);
        state.waiting.push_back(waiting);
        self.wake(state);
        Ok(())
    }

    /// Takes the oldest batches up to the limits, and at least one if any waits.
    pub(super) fn take(&self, ops_max: usize, bytes_max: usize, into: &mut Vec<Waiting>) {
        let mut state = self.lock();
        state.nudged = false;
        let (mut ops, mut bytes) = (0, 0);
        while let Some(next) = state.waiting.front() {
            ops += next.batch.len();
            bytes += next.batch.weight_bytes();
            if !into.is_empty() && (ops > ops_max || bytes > bytes_max) {
                break;
            }
            into.extend(state.waiting.pop_front());
        }
    }

    /// Says that the transaction of a taken batch has ended.
    pub(super) fn release(&self, batch: &Batch) {
        self.bytes.fetch_sub(batch.weight_bytes(), Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Sleeps until something waits, a reader calls, the store closes, or the time has passed.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Woken {
        let mut state = self.lock();
        loop {
            if !state.waiting.is_empty() || state.nudged {
                return Woken::Work;
            }
            if state.closing {
                return Woken::Closed;
            }
            state.asleep = true;
            match timeout {
                None => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    let (guard, result) =
                        self.wake.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner);
                    state = guard;
                    if result.timed_out() && state.waiting.is_empty() {
                        state.asleep = false;
                        return if state.closing { Woken::Closed } else { Woken::Timeout };
                    }
                }
            }
            state.asleep = false;
        }
    }

    /// Wakes the committer though nothing waits.
    pub(super) fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        self.wake(state);
    }

    /// Refuses further batches and lets the committer finish.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        self.wake(state);
    }

    /// Wakes the committer once: those who push before it has got up need not call again.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Op;
    use crate::types::StreamId;

    fn waiting(ops: usize) -> Waiting {
        let batch = (0..ops).map(|seq| Op::RemoveMessage { stream: StreamId(1), seq: seq as u64, left: 0 }).collect();
        Waiting { epoch: 0, batch, done: Box::new(|_| {}) }
    }

    #[test]
    fn a_take_keeps_to_its_limits_but_never_starves() {
        let check = |queued: &[usize], ops_max: usize, expected: &[usize]| {
            let queue = Queue::default();
            for &ops in queued {
                assert!(queue.push(waiting(ops)).is_ok());
            }
            let mut taken = Vec::new();
            queue.take(ops_max, usize::MAX, &mut taken);
            assert_eq!(taken.iter().map(|waiting| waiting.batch.len()).collect::<Vec<_>>(), expected);
        };
        check(&[], 10, &[]);
        check(&[4, 4, 4], 10, &[4, 4]);
        check(&[40, 1], 10, &[40]);
        check(&[1, 40], 10, &[1]);
    }

    #[test]
    fn closing_hands_out_what_waits_and_refuses_more() {
        let queue = Queue::default();
        assert!(queue.push(waiting(1)).is_ok());
        queue.close();
        assert!(queue.push(waiting(1)).is_err());
        assert_eq!(queue.wait(None), Woken::Work);
        let mut taken = Vec::new();
        queue.take(10, 10_000, &mut taken);
        assert_eq!(queue.bytes(), taken[0].batch.weight_bytes());
        queue.release(&taken[0].batch);
        assert_eq!(queue.bytes(), 0);
        assert_eq!(queue.wait(None), Woken::Closed);
    }
}
