//! What can go wrong with a store, one type for each thing a caller does with it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::types::StreamId;

/// Why a store could not be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "storage directory is not a directory: {path}; move that file away or choose another folder with --store-dir"
    )]
    NotADirectory { path: PathBuf },
    #[error(
        "no permission for the store at {path} ({source}); run as the user who owns it, change its owner, or choose another folder with --store-dir"
    )]
    Permission { path: PathBuf, source: std::io::Error },
    #[error(
        "the store in {path} is in use by {}; stop it or choose another folder with --store-dir",
        pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error(
        "the store file {path} is damaged ({what}); nothing was changed. Copy it to a safe place before anything else; to start empty, move it away"
    )]
    Damaged { path: PathBuf, what: String },
    #[error("the store file {path} has format {found}, this version reads up to {supported}; use a newer natterjack")]
    Newer { path: PathBuf, found: u32, supported: u32 },
    #[error("cannot open the store at {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

/// Why a batch was not committed. Shared by all who waited for the same transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The transaction failed. Whether it reached the disk is not known until the store is read again, so everyone who
    /// waits gets this and rebuilds its streams from the store ([`super::Store::renewed`]).
    #[error("the store could not commit: {reason}")]
    Failed { reason: Arc<str> },
    /// As `Failed`, because the disk, or what this process may use of it, is full.
    #[error("the store could not commit, no space is left for it: {reason}")]
    Full { reason: Arc<str> },
    /// The batch comes from before the last failed commit and may rest on what that commit lost; nothing was written.
    #[error("the batch was prepared before a failed commit")]
    Stale,
    /// The file could not be opened again after an I/O error; nothing was written. The store goes on trying.
    #[error("the store is not available: {reason}")]
    Unavailable { reason: Arc<str> },
    #[error("the store is closed")]
    Closed,
}

/// Why a read gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The row is there, but is not what was written.
    #[error("message {seq} of stream {stream} is damaged in the store: {what}")]
    Damaged { stream: StreamId, seq: u64, what: String },
    /// A row other than a message, or the tree that leads to it, is not what was written.
    #[error("the store is damaged: {what}")]
    DamagedStore { what: String },
    #[error("the store could not be read: {reason}")]
    Failed { reason: Arc<str> },
    #[error("the store is not available: {reason}")]
    Unavailable { reason: Arc<str> },
    #[error("the store is closed")]
    Closed,
}
