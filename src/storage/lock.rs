//! One process for each store: an exclusive lock on a file that holds the owner's pid.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

const FILE_NAME: &str = "natterjack.lock";

/// Held for as long as the store is open; the system releases it however the process ends.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

pub(super) enum LockError {
    /// Held by another process, or by another store of this one; the pid when it could be read.
    Held(Option<u32>),
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> LockError {
        LockError::Io(error)
    }
}

/// Takes the lock of the store in `dir` without waiting. The file itself stays: removing it would let two processes
/// lock two files of one name.
pub(super) fn acquire(dir: &Path) -> Result<StoreLock, LockError> {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(dir.join(FILE_NAME))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Where the lock is mandatory (Windows) the pid cannot be read, and that is no error of its own.
            let read = file.read_to_string(&mut text);
            return Err(LockError::Held(read.ok().and_then(|_| text.trim().parse().ok())));
        }
        Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
    }
    file.set_len(0)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    Ok(StoreLock { _file: file })
}
