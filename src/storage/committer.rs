//! The one writer: everything that waits goes into one transaction, one fsync makes it durable, then the completions
//! run in order. Batching happens while the previous fsync runs; there is no timer.
//!
//! ```text
//!            batches wait                     nothing waits, 250 ms since the last seal
//!  idle ───────────────────► plain commit ───────────────────► seal (quick-repair commit) ──► idle
//!                              │ error                           │ error
//!                              ▼                                 ▼
//!                 fail all who wait, drop, open again, read back what is known ──► idle, or down and tried again
//! ```
//! A plain one-phase commit costs one fsync, but opening after a power cut then checks the whole file; after a seal it
//! does not. So a burst is plain commits, and the last of them is sealed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redb::{Database, WriteTransaction};

use super::apply::{Apply, Knowledge};
use super::error::CommitError;
use super::lock::StoreLock;
use super::medium::Medium;
use super::open;
use super::queue::{Waiting, Woken};
use super::recover;
use super::shared::{Fault, Shared, Slot, panic_text};
use super::store::Options;

/// Rows of a durable but unfinished removal that go with each transaction of other batches, and in one of their own.
const SLICE_ROWS_BUSY: usize = 512;
const SLICE_ROWS_IDLE: usize = 4096;

/// Tries to open the file again at once after an error, and the pause before each later one.
const REOPEN_TRIES: usize = 3;
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// What one step of the committer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing waited.
    Idle,
    /// A transaction ended, well or not, or batches were refused.
    Worked,
    /// The file could not be opened again; whatever waited was refused.
    Down,
}

/// The writer's side of a store. [`super::Store::open`] gives it a thread; a harness drives it by hand.
pub struct Committer {
    shared: Arc<Shared>,
    medium: Box<dyn Medium>,
    options: Options,
    knowledge: Knowledge,
    /// Whether a commit has followed the last seal.
    unsealed: bool,
    sealed_at: Option<Instant>,
    taken: Vec<Waiting>,
    _lock: Option<StoreLock>,
}

impl Committer {
    pub(super) fn new(
        shared: Arc<Shared>,
        medium: Box<dyn Medium>,
        options: Options,
        knowledge: Knowledge,
        lock: Option<StoreLock>,
    ) -> Committer {
        // Opening is a plain commit too: it says that the file is in use.
        Committer {
            shared,
            medium,
            options,
            knowledge,
            unsealed: true,
            sealed_at: None,
            taken: Vec::new(),
            _lock: lock,
        }
    }

    /// Works until the store is closed and nothing waits, then closes the file.
    pub(super) fn run(mut self) {
        loop {
            let step = self.step();
            if step == Step::Worked {
                continue;
            }
            let mut timeout = (step == Step::Down).then_some(REOPEN_PAUSE);
            if step == Step::Idle && self.unsealed {
                let due =
                    self.sealed_at.map_or(Duration::ZERO, |at| self.options.seal_interval.saturating_sub(at.elapsed()));
                if due.is_zero() {
                    self.seal();
                    continue;
                }
                timeout = Some(due);
            }
            match self.shared.queue.wait(timeout) {
                Woken::Work | Woken::Timeout => {}
                Woken::Closed => break,
            }
        }
        self.close();
    }

    /// Commits what waits, up to the limits of one transaction, and goes on with unfinished removals.
    pub fn step(&mut self) -> Step {
        let mut taken = std::mem::take(&mut self.taken);
        self.shared.queue.take(self.options.commit_ops_max, self.options.commit_bytes_max, &mut taken);
        if let Err(reason) = self.ensure_open() {
            let refused = CommitError::Unavailable { reason };
            self.complete(taken, |_| Err(refused.clone()));
            return Step::Down;
        }
        if taken.is_empty() && !self.knowledge.has_work() {
            return Step::Idle;
        }
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        match self.transact(&taken, epoch) {
            Ok(()) => {
                self.shared.set_hidden(self.knowledge.removals.clone());
                self.shared.tombstones.change(self.knowledge.changes.drain(..));
                self.complete(taken, |waiting| if waiting.epoch == epoch { Ok(()) } else { Err(CommitError::Stale) });
            }
            Err(Failure { reason, full }) => {
                tracing::error!(%reason, "a commit failed; the store is opened again");
                let reason: Arc<str> = reason.into();
                self.shared.set_failing(Some(reason.clone()));
                // Whatever waits behind the failed transaction rests on it.
                self.shared.epoch.fetch_add(1, Ordering::AcqRel);
                self.shared.queue.take(usize::MAX, usize::MAX, &mut taken);
                self.reopen();
                let failed = if full { CommitError::Full { reason } } else { CommitError::Failed { reason } };
                self.complete(taken, |_| Err(failed.clone()));
            }
        }
        Step::Worked
    }

    /// Makes the last commit one that a later opening need not check. Nothing acked depends on it.
    pub fn seal(&mut self) {
        if !self.unsealed {
            return;
        }
        let sealed = self.transaction(|txn| {
            txn.set_quick_repair(true);
            Ok(())
        });
        match sealed {
            Ok(()) => {
                self.unsealed = false;
                self.sealed_at = Some(now());
            }
            Err(Failure { reason, .. }) => {
                tracing::error!(%reason, "sealing the store failed; it is opened again");
                self.reopen();
            }
        }
    }

    /// Closes the file so that the next opening need not check it; batches submitted from now on are refused.
    pub fn close(self) {
        self.shared.queue.close();
        let slot = self.replace_slot(Slot::Closed);
        if let Slot::Open(database) = slot
            && let Err(Failure { reason, .. }) = guarded(|| database.close().map_err(Failure::of))
        {
            tracing::error!(%reason, "closing the store failed; the next start checks it");
        }
        let mut left = Vec::new();
        self.shared.queue.take(usize::MAX, usize::MAX, &mut left);
        left.into_iter().for_each(|waiting| (waiting.done)(Err(CommitError::Closed)));
    }

    fn transact(&mut self, taken: &[Waiting], epoch: u64) -> Result<(), Failure> {
        let mut current = taken.iter().filter(|waiting| waiting.epoch == epoch).flat_map(|waiting| waiting.batch.ops());
        let Some(first) = current.next() else {
            return match self.knowledge.has_work() {
                true => self.apply(std::iter::empty(), SLICE_ROWS_IDLE),
                false => Ok(()),
            };
        };
        self.apply(std::iter::once(first).chain(current), SLICE_ROWS_BUSY)
    }

    fn apply<'a>(&mut self, ops: impl Iterator<Item = &'a super::Op>, slice_rows_max: usize) -> Result<(), Failure> {
        // Taken out for the time of the borrow; a failed commit reads it back from the file.
        let mut knowledge = std::mem::take(&mut self.knowledge);
        let result = self.transaction(|txn| {
            let mut apply = Apply::new(txn, &mut knowledge, &self.shared.tombstones, self.options);
            apply.slice(slice_rows_max)?;
            apply.ops(ops)
        });
        self.knowledge = knowledge;
        self.unsealed = true;
        if result.is_ok() {
            self.shared.set_failing(None);
        }
        result
    }

    fn transaction(&self, write: impl FnOnce(&mut WriteTransaction) -> Result<(), Fault>) -> Result<(), Failure> {
        let slot = self.shared.slot.read().unwrap_or_else(PoisonError::into_inner);
        let Slot::Open(database) = &*slot else { return Err(Failure::because("it is not open")) };
        guarded(|| {
            let mut txn = database.begin_write().map_err(Failure::of)?;
            write(&mut txn).map_err(|fault| match fault {
                Fault::Redb(error) => Failure::of(error),
                Fault::Read(error) => Failure::because(error.to_string()),
            })?;
            txn.commit().map_err(Failure::of)
        })
    }

    fn complete(&mut self, mut taken: Vec<Waiting>, result: impl Fn(&Waiting) -> Result<(), CommitError>) {
        // Before the first completion, so that a producer it wakes sees the space.
        taken.iter().for_each(|waiting| self.shared.queue.release(&waiting.batch));
        for waiting in taken.drain(..) {
            let result = result(&waiting);
            let done = waiting.done;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| done(result))) {
                tracing::error!(what = panic_text(&*panic), "a commit's completion failed");
            }
        }
        self.taken = taken;
    }

    fn ensure_open(&mut self) -> Result<(), Arc<str>> {
        let down = matches!(&*self.shared.slot.read().unwrap_or_else(PoisonError::into_inner), Slot::Down(_));
        if down || self.shared.fault.load(Ordering::Acquire) {
            self.reopen();
        }
        match &*self.shared.slot.read().unwrap_or_else(PoisonError::into_inner) {
            Slot::Open(_) => Ok(()),
            Slot::Down(reason) => Err(reason.clone()),
            Slot::Closed => Err("it is closed".into()),
        }
    }

    /// Drops the database, which refuses everything after its first I/O error, and opens it from what is on the disk.
    /// The failed sync is not tried again: what it covered is either found to be there or gone.
    fn reopen(&mut self) {
        let old = self.replace_slot(Slot::Down("it is being opened again after an I/O error".into()));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(old)));
        self.shared.fault.store(false, Ordering::Release);
        let mut reason = String::new();
        for _ in 0..REOPEN_TRIES {
            match self.try_open() {
                Ok(database) => {
                    self.unsealed = true;
                    self.replace_slot(Slot::Open(database));
                    tracing::info!("the store is open again");
                    return;
                }
                Err(error) => reason = error,
            }
        }
        tracing::error!(%reason, "the store could not be opened again");
        let reason: Arc<str> = reason.into();
        self.shared.set_failing(Some(reason.clone()));
        self.replace_slot(Slot::Down(reason));
    }

    fn try_open(&mut self) -> Result<Database, String> {
        self.medium.forget_cached().map_err(|error| error.to_string())?;
        // A file that has gone must not be replaced by a new one while streams live on in memory.
        let opened =
            open::open_existing(&mut *self.medium, self.options.cache_bytes).map_err(|error| error.to_string())?;
        let path = self.medium.path();
        let inner = open::guard_reads(&path, || recover::inner(&opened.database)).map_err(|error| error.to_string())?;
        self.shared.tombstones.replace(inner.tombstones.clone());
        self.knowledge = Knowledge::new(inner);
        self.shared.set_hidden(self.knowledge.removals.clone());
        Ok(opened.database)
    }

    fn replace_slot(&self, slot: Slot) -> Slot {
        std::mem::replace(&mut *self.shared.slot.write().unwrap_or_else(PoisonError::into_inner), slot)
    }
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").field("unsealed", &self.unsealed).finish_non_exhaustive()
    }
}

/// Why a transaction did not happen, and whether that is for want of space.
struct Failure {
    reason: String,
    full: bool,
}

impl Failure {
    fn because(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), full: false }
    }

    fn of(error: impl Into<redb::Error>) -> Failure {
        let error = error.into();
        let full = matches!(&error, redb::Error::Io(error) if is_for_want_of_space(error));
        Failure { reason: error.to_string(), full }
    }
}

/// The disk, a quota or the process's own limit on files is reached.
fn is_for_want_of_space(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Damaged pages can make redb panic; the committer outlives that.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::because(panic_text(&*panic))))
}

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
