//! L2, pure: the format of stream backups, as nats-server 2.15 writes and reads them. Must not know disks, tasks or clocks.
//!
//! A backup is an [`archive`] in [`s2`] frames: `state.json` with the stream's state, one `consumers/<name>` for each
//! consumer with its configuration and [`Progress`](crate::consumer::Progress) ([`consumer`]), every message, and an empty
//! entry that says that nothing is missing. Bytes that come in are believed nothing: everything they announce has a limit.

pub mod archive;
pub mod consumer;
pub mod s2;

use thiserror::Error;

use crate::stream::StreamState;

/// Why a backup cannot be read. Texts are shown to whoever restores.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BackupError {
    #[error("s2: corrupt input")]
    BadFrame,
    #[error("s2: unsupported chunk type {0}")]
    UnknownFrame(u8),
    #[error("s2: invalid checksum")]
    Checksum,
    #[error("the backup is in a format of an older server or none at all")]
    UnknownFormat,
    #[error("archive: invalid archive stream")]
    BadEntry,
    #[error("message sequence {0} exceeds maximum payload size")]
    MessageTooLarge(u64),
    #[error("expected state.json first")]
    NoState,
    #[error("error in state.json: {0}")]
    BadState(String),
    #[error("expected consumer, found {0:?}")]
    NoConsumer(String),
    #[error("failed to decode consumer {0:?} state: {1}")]
    BadConsumer(String, String),
    #[error("unexpected EOF")]
    Truncated,
}

/// The name of a backup's first entry.
pub const STATE_ENTRY: &str = "state.json";

/// Reads the first entry.
///
/// # Errors
/// When it is not the stream's state.
pub fn read_state(entry: &archive::Entry) -> Result<StreamState, BackupError> {
    if entry.name != STATE_ENTRY.as_bytes() {
        return Err(BackupError::NoState);
    }
    serde_json::from_slice(entry.body()).map_err(|error| BackupError::BadState(error.to_string()))
}

/// From chunks of a backup to its entries.
#[derive(Debug)]
pub struct BackupReader {
    frames: s2::Decoder,
    entries: archive::Reader,
}

impl BackupReader {
    /// Messages may not be longer than `message_bytes_max`.
    pub fn new(message_bytes_max: usize) -> BackupReader {
        BackupReader { frames: s2::Decoder::default(), entries: archive::Reader::new(message_bytes_max) }
    }

    /// Takes the backup's next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// The next entry; `None` when more bytes are needed for it.
    ///
    /// # Errors
    /// When this is no backup, or a damaged one.
    pub fn next_entry(&mut self) -> Result<Option<archive::Entry>, BackupError> {
        loop {
            if let Some(entry) = self.entries.next_entry()? {
                return Ok(Some(entry));
            }
            let Some(block) = self.frames.next_frame()? else { return Ok(None) };
            self.entries.push(&block);
        }
    }

    /// Whether nothing has come in at all.
    pub fn is_untouched(&self) -> bool {
        self.frames.is_untouched()
    }
}

#[cfg(test)]
mod tests;
