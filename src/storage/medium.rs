//! Where the database's bytes lie: a file in the store folder, or what a crash harness puts in its place.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// A place that holds one database and can open it again after an I/O error.
pub trait Medium: Send + 'static {
    /// The existing database; `None` when none has been published yet.
    fn open(&mut self) -> io::Result<Option<BoxedBackend>>;

    /// An empty place for a new database that [`Medium::open`] does not see before [`Medium::publish`]. What an earlier
    /// process left of an unpublished one is gone.
    fn create(&mut self) -> io::Result<BoxedBackend>;

    /// Makes the created and closed database the existing one, atomically and durably.
    fn publish(&mut self) -> io::Result<()>;

    /// Called before the database is opened again after an I/O error: what a failed sync left in the system's page cache
    /// is marked clean there although it is not on the disk, so it must not be read back as if it were.
    fn forget_cached(&mut self) -> io::Result<()>;

    /// What errors call it.
    fn path(&self) -> PathBuf;
}

/// The file `natterjack.redb` in a store folder.
#[derive(Debug)]
pub(super) struct FileMedium {
    dir: PathBuf,
}

const FILE_NAME: &str = "natterjack.redb";
/// redb's own first creation is not atomic: a crash in it leaves a file that does not open.
const UNPUBLISHED_NAME: &str = "natterjack.redb.new";

impl FileMedium {
    pub(super) fn new(dir: &Path) -> FileMedium {
        FileMedium { dir: dir.to_owned() }
    }
}

impl Medium for FileMedium {
    fn open(&mut self) -> io::Result<Option<BoxedBackend>> {
        match File::options().read(true).write(true).open(self.path()) {
            Ok(file) => Ok(Some(file_backend(file)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&mut self) -> io::Result<BoxedBackend> {
        let path = self.dir.join(UNPUBLISHED_NAME);
        file_backend(File::options().read(true).write(true).create(true).truncate(true).open(path)?)
    }

    fn publish(&mut self) -> io::Result<()> {
        std::fs::rename(self.dir.join(UNPUBLISHED_NAME), self.path())?;
        sync_folder(&self.dir)
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        {
            let file = File::open(self.path())?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }
}

fn file_backend(file: File) -> io::Result<BoxedBackend> {
    FileBackend::new(file).map(BoxedBackend::new).map_err(io::Error::other)
}

/// Makes a name created, renamed or removed in a folder durable.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened for this, and the file system orders renames itself.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Any storage backend, as one type.
#[derive(Debug)]
pub struct BoxedBackend(Box<dyn StorageBackend>);

impl BoxedBackend {
    pub fn new(backend: impl StorageBackend) -> BoxedBackend {
        BoxedBackend(Box::new(backend))
    }
}

impl StorageBackend for BoxedBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
