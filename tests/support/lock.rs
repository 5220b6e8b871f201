//! One set-up at a time: test binaries and threads that need the same tool wait for whoever prepares it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// An exclusive lock on `<dir>/.lock`, across threads and processes, given back on drop or when the holder dies.
pub struct DirLock(#[allow(dead_code, reason = "holding the file holds the lock")] File);

impl DirLock {
    /// Waits until nobody else holds the lock of `dir`, which is created if missing.
    pub fn take(dir: &Path) -> io::Result<DirLock> {
        fs::create_dir_all(dir)?;
        let file = File::create(dir.join(".lock"))?;
        file.lock()?;
        Ok(DirLock(file))
    }
}

/// Does `work` once for `dir`, whatever the number of callers: a stamp file holding `version` says it is done. Work of
/// another version is thrown away first, and so is half-done work.
pub fn once(dir: &Path, version: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let describe = |e: io::Error| format!("{}: {e}", dir.display());
    let lock_dir = dir.with_extension("lock");
    let _lock = DirLock::take(&lock_dir).map_err(describe)?;
    let stamp = dir.join(".ready");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == version) {
        return Ok(());
    }
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(describe)?;
    }
    fs::create_dir_all(dir).map_err(describe)?;
    work()?;
    fs::write(&stamp, version).map_err(describe)
}
