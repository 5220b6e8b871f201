//! L3: durable rows in one redb file. Owns the file, its lock, the one writer thread and the rows' byte layouts; must
//! not know what a stream or a consumer does with them, the wire, or tasks.
//!
//! The way in is [`Store::submit`]: a [`Batch`] of [`Op`]s and a completion. The committer puts every batch that
//! waits into one transaction, commits it with one fsync, then runs the completions in order. Deliberately absent: a
//! timer before a commit, savepoints, long-lived read transactions, and a second writer.
//!
//! | rows | key | value |
//! |---|---|---|
//! | messages | stream, seq | `message_row`: everything but a large payload |
//! | chunks | stream, seq, index | `message_row`: a large payload's pieces |
//! | summaries | stream, first seq, index | pieces of what a caller wants to know of a range of messages at its start |
//! | meta | kind, stream, consumer, number | `meta_row`: configs, floors, consumers' state, ranges removed or summarized, single messages removed but not swept |
//!
//! Every value carries a format version and a CRC32C that is verified on every read; redb's own reads verify nothing.

mod apply;
mod batch;
mod committer;
mod error;
mod key;
mod lock;
mod medium;
mod message_row;
mod meta_row;
mod open;
mod queue;
mod read;
mod recover;
mod rows;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod tombstones;

pub use batch::{Batch, Op};
pub use committer::{Committer, Step};
pub use error::{CommitError, OpenError, ReadError};
pub use medium::{BoxedBackend, Medium};
pub use read::{DamagedRow, RowHead, ScanReport};
pub use recover::{Recovered, RecoveredConsumer, RecoveredStream};
pub use rows::{AckBlock, ConsumerStateRow, Redelivery, SourcePosition, StreamFloor, SummaryRange};
pub use store::{Options, Store};
