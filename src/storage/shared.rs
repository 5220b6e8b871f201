//! What the committer shares with the handles: the open database, the queue, and the ranges on their way out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::Database;

use super::error::ReadError;
use super::queue::Queue;
use super::recover;
use super::tombstones::Tombstones;
use crate::types::StreamId;

/// The database, or why there is none.
pub(super) enum Slot {
    Open(Database),
    /// Being opened again after an I/O error, or waiting for the next try.
    Down(Arc<str>),
    Closed,
}

pub(super) struct Shared {
    /// Readers hold it shared for the length of one short read; the committer takes it alone to replace the database.
    pub(super) slot: RwLock<Slot>,
    pub(super) queue: Queue,
    /// How many commits have failed. Batches made before the last failure are refused.
    pub(super) epoch: AtomicU64,
    /// A reader met an I/O error, after which redb refuses everything until it is opened again.
    pub(super) fault: AtomicBool,
    pub(super) next_stream: AtomicU32,
    /// Why the last commit failed; `None` when it did not.
    failing: RwLock<Option<Arc<str>>>,
    hidden: RwLock<Arc<Vec<Hidden>>>,
    /// Single messages that are removed while their rows still exist.
    pub(super) tombstones: Tombstones,
}

/// A range whose removal is durable while some of its rows still exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    pub(super) stream: StreamId,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) drop_stream: bool,
}

impl Shared {
    pub(super) fn new(database: Database, inner: &recover::Inner) -> Shared {
        let tombstones = Tombstones::default();
        tombstones.replace(inner.tombstones.clone());
        Shared {
            slot: RwLock::new(Slot::Open(database)),
            queue: Queue::default(),
            epoch: AtomicU64::new(0),
            fault: AtomicBool::new(false),
            next_stream: AtomicU32::new(inner.next_stream),
            failing: RwLock::new(None),
            hidden: RwLock::new(Arc::new(inner.hidden.clone())),
            tombstones,
        }
    }

    pub(super) fn set_failing(&self, reason: Option<Arc<str>>) {
        let failing = self.failing.read().unwrap_or_else(PoisonError::into_inner).clone();
        // With every commit, but hardly ever another one.
        if failing != reason {
            *self.failing.write().unwrap_or_else(PoisonError::into_inner) = reason;
        }
    }

    /// Why nothing can be stored, as far as the last try tells.
    pub(super) fn failing(&self) -> Option<Arc<str>> {
        self.failing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The stream's ranges that a read must not show. Asked before the read transaction begins: a range that is no
    /// longer here has left the committed rows as well.
    pub(super) fn hidden(&self, stream: StreamId) -> Vec<Hidden> {
        let all = self.hidden.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|hidden| hidden.stream == stream).copied().collect()
    }

    pub(super) fn set_hidden(&self, hidden: Vec<Hidden>) {
        *self.hidden.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hidden);
    }

    /// Runs one short read. A panic inside redb, which damaged pages can cause, is an error like other damage.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, ReadError> {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        let database = match &*slot {
            Slot::Open(database) => database,
            Slot::Down(reason) => return Err(ReadError::Unavailable { reason: reason.clone() }),
            Slot::Closed => return Err(ReadError::Closed),
        };
        match catch_unwind(AssertUnwindSafe(|| read(database))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Fault::Read(error))) => Err(error),
            Ok(Err(Fault::Redb(redb::Error::Corrupted(what)))) => Err(ReadError::DamagedStore { what }),
            Ok(Err(Fault::Redb(error))) => {
                self.fault.store(true, Ordering::Release);
                self.queue.nudge();
                Err(ReadError::Failed { reason: error.to_string().into() })
            }
            Err(panic) => Err(ReadError::DamagedStore { what: panic_text(&*panic) }),
        }
    }
}

/// What stops a read inside a read transaction.
pub(super) enum Fault {
    Redb(redb::Error),
    Read(ReadError),
}

macro_rules! fault_from {
    ($($error:ty),*) => { $(
        impl From<$error> for Fault {
            fn from(error: $error) -> Fault {
                Fault::Redb(error.into())
            }
        }
    )* };
}

fault_from!(redb::StorageError, redb::TableError, redb::TransactionError);

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Fault {
        Fault::Redb(error)
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Fault {
        Fault::Read(error)
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("of unknown cause"))
}
