//! The log as a file: appended to, opened again on request, put aside when it is large (nats-server `logger/log.go`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Zoned;

/// An open log file.
pub struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// 0: it may grow for ever.
    bytes_max: u64,
    /// 0: what was put aside is never removed.
    kept_max: usize,
}

impl LogFile {
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path, bytes_max: u64, kept_max: usize) -> io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile { path: path.to_owned(), file, bytes, bytes_max, kept_max })
    }

    /// Opens the same path again, for those who moved the file away. When that fails, the old file stays in use.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = LogFile::open(&self.path, self.bytes_max, self.kept_max)?;
        Ok(())
    }

    /// Puts the file aside as `<path>.<year>.<month>.<day>.<hour>.<minute>.<second>.<nanosecond>` and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let now = Zoned::now();
        let stamp = format!("{}.{:09}", now.strftime("%Y.%m.%d.%H.%M.%S"), now.subsec_nanosecond());
        let mut aside = self.path.clone().into_os_string();
        aside.push(format!(".{stamp}"));
        std::fs::rename(&self.path, &aside)?;
        self.reopen()?;
        self.purge();
        Ok(())
    }

    /// Removes the oldest files put aside beyond `kept_max`, which counts the file in use as well.
    fn purge(&self) {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name().and_then(|name| name.to_str()))
        else {
            return;
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let aside = |file: &str| file.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_stamp);
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(|file| aside(file)).collect();
        names.sort();
        let kept = match self.kept_max {
            0 => names.len(),
            kept_max => kept_max - 1,
        };
        for old in &names[..names.len().saturating_sub(kept)] {
            let _ = std::fs::remove_file(folder.join(old));
        }
    }
}

/// Whether `text` is what [`LogFile::rotate`] adds to a name.
fn is_stamp(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 7 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        if self.bytes_max != 0 && self.bytes > self.bytes_max && self.rotate().is_err() {
            // Try again when it is twice as large.
            self.bytes_max *= 2;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_are_put_aside_and_the_oldest_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        let other = folder.path().join("server.log.notes");
        std::fs::write(&other, "mine").unwrap();
        let mut log = LogFile::open(&path, 10, 3).unwrap();
        for _ in 0..5 {
            log.write_all(b"eleven byte").unwrap();
        }
        log.write_all(b"short").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "the file in use, two put aside, and what is not ours: {names:?}");
        assert!(other.exists());
    }

    #[test]
    fn a_moved_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::open(&path, 0, 0).unwrap();
        log.write_all(b"1").unwrap();
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        log.write_all(b"2").unwrap();
        log.reopen().unwrap();
        log.write_all(b"3").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"3");
        assert_eq!(std::fs::read(folder.path().join("moved")).unwrap(), b"12");
    }
}
