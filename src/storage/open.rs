//! Opening a medium's database: created atomically when there is none, refused when it is not what it should be.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Builder, Database, DatabaseError, StorageBackend, StorageError};

use super::error::{OpenError, ReadError};
use super::key::{self, Meta};
use super::medium::{BoxedBackend, Medium};
use super::meta_row::{self, FormatV1};
use super::recover;
use super::shared::{Fault, panic_text};

/// The format this version writes, and the highest it reads. 2 added summaries: a version that does not know them would
/// remove messages without them. 3 added tombstones: a version that does not know them would show removed messages.
const FORMAT: u32 = 3;

/// Cached pages while redb checks the whole file: each is needed once or twice in a row, and so few stay in the processor's
/// cache. With the cache of ordinary work the check takes twice as long.
const REPAIR_CACHE_BYTES: usize = 2 << 20;

pub(super) struct Opened {
    pub(super) database: Database,
    /// Whether redb had to check the whole file because it was not closed, nor sealed, before.
    pub(super) repaired: bool,
}

/// Opens the database, created before if there is none.
pub(super) fn open(medium: &mut dyn Medium, cache_bytes: usize) -> Result<Opened, OpenError> {
    match medium.open() {
        Ok(Some(backend)) => open_backend(medium, backend, cache_bytes),
        Ok(None) => {
            create(medium, cache_bytes)?;
            open_existing(medium, cache_bytes)
        }
        Err(error) => Err(from_io(&medium.path(), error)),
    }
}

/// Opens the database, which is there.
pub(super) fn open_existing(medium: &mut dyn Medium, cache_bytes: usize) -> Result<Opened, OpenError> {
    let backend = existing(medium)?;
    open_backend(medium, backend, cache_bytes)
}

fn existing(medium: &mut dyn Medium) -> Result<BoxedBackend, OpenError> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the store file has gone");
    medium.open().and_then(|found| found.ok_or_else(gone)).map_err(|error| from_io(&medium.path(), error))
}

fn open_backend(medium: &mut dyn Medium, backend: BoxedBackend, cache_bytes: usize) -> Result<Opened, OpenError> {
    let path = medium.path();
    // redb would turn an empty file into a new database.
    if backend.len().map_err(|error| from_io(&path, error))? == 0 {
        return Err(OpenError::Damaged { path, what: "it is empty".to_owned() });
    }
    let (database, repaired) = match build(backend, cache_bytes, Unclosed::Leave) {
        Err(BuildError::Redb(DatabaseError::RepairAborted)) => {
            let whole =
                build(existing(medium)?, REPAIR_CACHE_BYTES, Unclosed::Check).map_err(|error| error.at(&path))?;
            whole.close().map_err(|error| from_redb(&path, error.into()))?;
            (build(existing(medium)?, cache_bytes, Unclosed::Check), true)
        }
        opened => (opened, false),
    };
    let database = database.map_err(|error| error.at(&path))?;
    check_format(&database, &path)?;
    guard_reads(&path, || migrate(&database))?;
    Ok(Opened { database, repaired })
}

fn create(medium: &mut dyn Medium, cache_bytes: usize) -> Result<(), OpenError> {
    let path = medium.path();
    let backend = medium.create().map_err(|error| from_io(&path, error))?;
    let database = build(backend, cache_bytes, Unclosed::Check).map_err(|error| error.at(&path))?;
    initialize(database).map_err(|error| from_redb(&path, error))?;
    medium.publish().map_err(|error| from_io(&path, error))
}

fn initialize(database: Database) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    {
        txn.open_table(key::MESSAGES)?;
        txn.open_table(key::CHUNKS)?;
        txn.open_table(key::SUMMARIES)?;
        let mut meta = txn.open_table(key::META)?;
        let key = Meta::Format.encode();
        meta.insert(key.as_slice(), meta_row::encode(&key, &FormatV1 { format: FORMAT }).as_slice())?;
    }
    txn.commit()?;
    database.close()?;
    Ok(())
}

/// Brings a store of an older format up to date, in one transaction.
fn migrate(database: &Database) -> Result<(), Fault> {
    let txn = redb::ReadableDatabase::begin_read(database)?;
    let current = recover::get(&txn.open_table(key::META)?, &Meta::Format)? == Some(FormatV1 { format: FORMAT });
    drop(txn);
    if current {
        return Ok(());
    }
    let txn = database.begin_write()?;
    {
        txn.open_table(key::SUMMARIES)?;
        let mut meta = txn.open_table(key::META)?;
        let key = Meta::Format.encode();
        meta.insert(key.as_slice(), meta_row::encode(&key, &FormatV1 { format: FORMAT }).as_slice())?;
    }
    txn.commit().map_err(redb::Error::from)?;
    tracing::info!(format = FORMAT, "the store file has been brought up to date");
    Ok(())
}

enum BuildError {
    Redb(DatabaseError),
    Panic(String),
}

impl BuildError {
    fn at(self, path: &Path) -> OpenError {
        match self {
            BuildError::Redb(error) => from_redb(path, error.into()),
            BuildError::Panic(what) => OpenError::Damaged { path: path.to_owned(), what },
        }
    }
}

/// What to do about a database that was neither closed nor sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unclosed {
    /// `DatabaseError::RepairAborted`, before anything is read or written.
    Leave,
    Check,
}

/// A plain open of a file that was altered behind redb's back may panic; that is damage like any other.
fn build(backend: BoxedBackend, cache_bytes: usize, unclosed: Unclosed) -> Result<Database, BuildError> {
    let open = || {
        Builder::new()
            .set_cache_size(cache_bytes)
            .set_repair_callback(move |session| {
                if unclosed == Unclosed::Leave {
                    return session.abort();
                }
                let percent = (session.progress() * 100.0) as u32;
                tracing::info!(percent, "the store was not closed before; checking all of it");
            })
            .create_with_backend(backend)
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(BuildError::Redb),
        Err(panic) => Err(BuildError::Panic(panic_text(&*panic))),
    }
}

fn check_format(database: &Database, path: &Path) -> Result<(), OpenError> {
    let format = || -> Result<Option<FormatV1>, Fault> {
        let txn = redb::ReadableDatabase::begin_read(database)?;
        txn.open_table(key::MESSAGES)?;
        txn.open_table(key::CHUNKS)?;
        recover::get(&txn.open_table(key::META)?, &Meta::Format)
    };
    match guard_reads(path, format)? {
        Some(FormatV1 { format }) if format <= FORMAT => Ok(()),
        Some(FormatV1 { format }) => Err(OpenError::Newer { path: path.to_owned(), found: format, supported: FORMAT }),
        None => Err(OpenError::Damaged { path: path.to_owned(), what: "its format row is missing".to_owned() }),
    }
}

/// Runs the reads of an opening; a panic in them is damage.
pub(super) fn guard_reads<T>(path: &Path, read: impl FnOnce() -> Result<T, Fault>) -> Result<T, OpenError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|fault| from_fault(path, fault)),
        Err(panic) => Err(OpenError::Damaged { path: path.to_owned(), what: panic_text(&*panic) }),
    }
}

fn from_fault(path: &Path, fault: Fault) -> OpenError {
    match fault {
        Fault::Redb(error) => from_redb(path, error),
        Fault::Read(ReadError::DamagedStore { what }) => OpenError::Damaged { path: path.to_owned(), what },
        Fault::Read(error) => OpenError::Damaged { path: path.to_owned(), what: error.to_string() },
    }
}

fn from_redb(path: &Path, error: redb::Error) -> OpenError {
    match error {
        redb::Error::Io(error) => from_io(path, error),
        redb::Error::PreviousIo => from_io(path, io::Error::other(StorageError::PreviousIo.to_string())),
        redb::Error::DatabaseAlreadyOpen => OpenError::Locked { path: path.to_owned(), pid: None },
        other => OpenError::Damaged { path: path.to_owned(), what: other.to_string() },
    }
}

pub(super) fn from_io(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenError::Permission { path, source },
        io::ErrorKind::NotADirectory => OpenError::NotADirectory { path },
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            OpenError::Damaged { path, what: source.to_string() }
        }
        _ => OpenError::Io { path, source },
    }
}
