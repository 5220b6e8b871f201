//! The handle: submit, read, recover.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::apply::Knowledge;
use super::batch::Batch;
use super::committer::Committer;
use super::error::{CommitError, OpenError, ReadError};
use super::lock::{self, LockError, StoreLock};
use super::medium::{FileMedium, Medium, sync_folder};
use super::open;
use super::queue::Waiting;
use super::read::{self, RowHead, ScanReport};
use super::recover::{self, Recovered, RecoveredStream};
use super::rows::SummaryRange;
use super::shared::Shared;
use crate::types::{StoredMessage, StreamId};

/// How a store is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What redb may keep of the file in memory, for reading and writing together.
    pub cache_bytes: usize,
    /// One transaction takes no more operations than this, unless a single batch has more.
    pub commit_ops_max: usize,
    /// Nor more bytes, by [`Batch::weight_bytes`].
    pub commit_bytes_max: usize,
    /// A quiet store is sealed at most this often.
    pub seal_interval: Duration,
    /// Messages of a stream that one transaction removes in fewer places of the file than this go with their rows.
    pub scattered_min: usize,
    /// Other removed messages keep their rows until a stream has so many of them, and half as many as live.
    pub sweep_min: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 32 << 20,
            commit_ops_max: 4096,
            commit_bytes_max: 4 << 20,
            seal_interval: Duration::from_millis(250),
            scattered_min: 16,
            sweep_min: 8192,
        }
    }
}

/// A handle to the open store. Clones share it; when the last one goes, what waits is committed and the file closed.
///
/// A handle remembers how many commits had failed when it was made. After a failure its batches are refused as
/// [`CommitError::Stale`] until [`Store::renewed`] is called: they may rest on what the failed commit lost.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
    epoch: u64,
}

struct Handle {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in `dir`, creating both as needed, and starts its committer thread.
    ///
    /// # Errors
    /// When another process holds it, it may not be written, or it is not intact. A damaged file is never replaced.
    pub fn open(dir: &Path, options: Options) -> Result<(Store, Recovered), OpenError> {
        create_folder(dir).map_err(|error| open::from_io(dir, error))?;
        let lock = lock::acquire(dir).map_err(|error| match error {
            LockError::Held(pid) => OpenError::Locked { path: dir.to_owned(), pid },
            LockError::Io(error) => open::from_io(dir, error),
        })?;
        let (store, recovered, committer) = open_store(Box::new(FileMedium::new(dir)), options, Some(lock))?;
        let thread = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| open::from_io(dir, error))?;
        *store.handle.committer.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok((store, recovered))
    }

    /// Opens a store on any medium, without a thread: the caller drives the committer.
    pub fn open_on(medium: impl Medium, options: Options) -> Result<(Store, Recovered, Committer), OpenError> {
        open_store(Box::new(medium), options, None)
    }

    /// Asks for `batch` to be made durable. Never blocks; batches are committed in the order of submission.
    ///
    /// `done` is called exactly once: on the committer thread right after the transaction, or on this one when the store
    /// is already closed. It must be short, and it may submit.
    pub fn submit(&self, batch: Batch, done: impl FnOnce(Result<(), CommitError>) + Send + 'static) {
        let waiting = Waiting { epoch: self.epoch, batch, done: Box::new(done) };
        if let Err(refused) = self.handle.shared.queue.push(waiting) {
            (refused.done)(Err(CommitError::Closed));
        }
    }

    /// The weight of all batches submitted and not yet done. Producers keep it bounded by waiting for their completions.
    pub fn queued_bytes(&self) -> usize {
        self.handle.shared.queue.bytes()
    }

    /// Why the last commit failed; `None` when it did not. What was acknowledged before is not concerned.
    pub fn failing(&self) -> Option<Arc<str>> {
        self.handle.shared.failing()
    }

    /// A handle for state that is read from the store after this call, and so knows of every failed commit.
    #[must_use]
    pub fn renewed(&self) -> Store {
        let epoch = self.handle.shared.epoch.load(Ordering::Acquire);
        Store { handle: self.handle.clone(), epoch }
    }

    /// A stream id that no stream has or ever had.
    pub fn new_stream_id(&self) -> StreamId {
        StreamId(self.handle.shared.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// Reads one message; `None` when it is not there.
    pub fn read(&self, stream: StreamId, seq: u64) -> Result<Option<StoredMessage>, ReadError> {
        read::message(&self.handle.shared, stream, seq)
    }

    /// Reads up to `max_messages` messages from `from_seq` on, ascending, and ends after the one that reaches `max_bytes`.
    pub fn read_range(
        &self,
        stream: StreamId,
        from_seq: u64,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        read::range(&self.handle.shared, stream, from_seq, max_messages, max_bytes)
    }

    /// Shows the head of every row of a stream, ascending; payloads that lie in the row are verified with it. Damaged rows
    /// are reported and passed over.
    pub fn scan(&self, stream: StreamId, visit: impl FnMut(RowHead<'_>)) -> Result<ScanReport, ReadError> {
        self.scan_range(stream, 0, u64::MAX, visit)
    }

    /// As [`Store::scan`], from `from` to `to`, both included.
    pub fn scan_range(
        &self,
        stream: StreamId,
        from: u64,
        to: u64,
        visit: impl FnMut(RowHead<'_>),
    ) -> Result<ScanReport, ReadError> {
        read::scan(&self.handle.shared, stream, from, to, visit)
    }

    /// What [`super::Op::PutSummary`] stored for a range that recovery named; `None` when it does not hold any more or is
    /// damaged, so that the range has to be scanned.
    pub fn summary(&self, stream: StreamId, range: SummaryRange) -> Result<Option<Vec<u8>>, ReadError> {
        read::summary(&self.handle.shared, stream, range)
    }

    /// Reads a stream's config, floor and consumers again, as after a failed commit; `None` when it does not exist.
    pub fn reload(&self, stream: StreamId) -> Result<Option<RecoveredStream>, ReadError> {
        self.handle.shared.read(|database| recover::stream(database, stream))
    }

    /// Commits what waits, closes the file and waits for that. Batches submitted later are refused.
    pub fn close(&self) {
        self.handle.close();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("epoch", &self.epoch).field("queued_bytes", &self.queued_bytes()).finish()
    }
}

impl Handle {
    fn close(&self) {
        self.shared.queue.close();
        let thread = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may go with a completion, on the committer's own thread; it then ends by itself.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the committer ended with a panic");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn open_store(
    mut medium: Box<dyn Medium>,
    options: Options,
    lock: Option<StoreLock>,
) -> Result<(Store, Recovered, Committer), OpenError> {
    let opened = open::open(&mut *medium, options.cache_bytes)?;
    let path = medium.path();
    let read = || {
        let inner = recover::inner(&opened.database)?;
        let recovered = recover::streams(&opened.database, &inner.hidden)?;
        Ok((inner, recovered))
    };
    let (inner, mut recovered) = open::guard_reads(&path, read)?;
    recovered.repaired = opened.repaired;
    for orphan in &recovered.orphans {
        tracing::error!(
            stream = orphan.0,
            "the store holds messages of a stream it does not know; they are left alone"
        );
    }
    let shared = Arc::new(Shared::new(opened.database, &inner));
    let committer = Committer::new(shared.clone(), medium, options, Knowledge::new(inner), lock);
    let store = Store { handle: Arc::new(Handle { shared, committer: Mutex::new(None) }), epoch: 0 };
    Ok((store, recovered, committer))
}

/// Creates the folder and makes its own name durable.
fn create_folder(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if dir.exists() {
        return Err(std::io::ErrorKind::NotADirectory.into());
    }
    std::fs::create_dir_all(dir)?;
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_folder(Path::new(".")),
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}
