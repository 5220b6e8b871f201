//! From what a turn of the stream's task changed to rows on disk, and what has to wait for them.
//!
//! Everything that tells the outside about a change waits here until the transaction that carries the change is durable:
//! PubAcks with the batch itself, answered right on the committer's thread; the rest as [`Release`]s that the task carries
//! out when it hears of the commit.

use std::sync::Arc;

use bytes::Bytes;

use super::call::Call;
use super::consumers::Consumers;
use super::shared::Shared;
use crate::broker::{Inbound, Receipt};
use crate::consumer::{ConsumerChanges, Delivery};
use crate::storage::{Batch, CommitError, Op, SourcePosition, StreamFloor};
use crate::stream::{Changes, FastAnswer, Removal, Republished, Stream};
use crate::types::{ApiError, StoredMessage, StreamId, Timestamp};

/// Someone who published and wants to know what became of it.
pub(super) struct Waiter {
    pub(super) reply: Bytes,
    pub(super) answer: Answer,
}

/// What a publisher is told.
pub(super) enum Answer {
    Stored(u64),
    /// Stored, with the counter's new total.
    Counted(u64, Box<str>),
    Duplicate(u64),
    /// A member of an atomic batch was taken: an empty message.
    Staged,
    Batch {
        id: Box<str>,
        count: u64,
        seq: u64,
    },
    /// To a message of a fast-ingest batch.
    Fast(Box<FastAnswer>),
    Refused(Box<ApiError>),
}

/// Something to do once all that was submitted before it is durable.
pub(super) enum Release {
    /// Answer a publish that changed nothing itself.
    PubAcks(Vec<Waiter>),
    /// Answer an API request.
    Respond { request: Inbound, headers: Vec<u8>, body: Vec<u8>, failed: bool },
    /// Answer an API request with a stored message.
    Found { request: Inbound, stored_subject: Vec<u8>, body: Vec<u8> },
    /// Send an empty message: the reply to an ack.
    Empty { to: Bytes },
    /// Deliver again.
    Deliver { place: usize, serial: u64, delivery: Delivery },
    /// Try a read again.
    DirectGet { request: Inbound, tries: u8 },
    /// Try an API request again.
    Again(Call),
    /// Tell whoever waits inside the process.
    Done(Box<dyn FnOnce(Result<(), ApiError>) + Send>),
}

/// What one or several turns have changed and not submitted yet.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) changes: Changes,
    /// Configurations and the like.
    pub(super) ops: Vec<Op>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) releases: Vec<Release>,
    /// Somebody waits for rows that consumers have to write.
    pub(super) urgent: bool,
    /// Since when changes wait that nobody waits for.
    pub(super) lazy_since: Option<Timestamp>,
    /// Bytes to take off the inbox's count when this is done.
    pub(super) weight: usize,
    /// Others wait until it has been submitted.
    pub(super) receipts: Vec<Receipt>,
}

impl Turn {
    /// Whether it must be submitted now: somebody waits for it.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
            || !self.changes.puts.is_empty()
            || !self.ops.is_empty()
            || !self.waiters.is_empty()
            || !self.releases.is_empty()
            || !self.receipts.is_empty()
    }
}

/// A batch that has been submitted, and what waits for it.
pub(super) struct Outstanding {
    pub(super) ticket: u64,
    /// The stream's last sequence once the batch is durable.
    pub(super) last_seq: u64,
    /// What consumers are to be told of.
    pub(super) puts: Vec<StoredMessage>,
    /// Those of `puts` that are published again.
    pub(super) republished: Vec<Republished>,
    pub(super) releases: Vec<Release>,
    pub(super) weight: usize,
}

/// Turns changes into the rows of a stream, puts before removals.
pub(super) fn stream_ops(id: StreamId, stream: &Stream, changes: &Changes, batch: &mut Batch) {
    for message in &changes.puts {
        batch.push(Op::PutMessage { stream: id, message: message.clone() });
    }
    let left = stream.index().len();
    for removal in &changes.removes {
        batch.push(match *removal {
            Removal::One { seq, .. } => Op::RemoveMessage { stream: id, seq, left },
            Removal::Range { from, to, .. } => Op::RemoveMessages { stream: id, from, to },
        });
    }
    if changes.state_dirty {
        let index = stream.index();
        let floor =
            StreamFloor { first_seq: index.first_seq(), last_seq: index.last_seq(), last_time: index.last_time() };
        batch.push(Op::PutStreamFloor { stream: id, floor });
    }
    if changes.sources_dirty {
        let row = |(name, position): (&str, &crate::stream::Position)| SourcePosition {
            name: name.to_owned(),
            seq: position.seq,
            identity: position.identity.to_string(),
        };
        batch.push(Op::PutSources { stream: id, positions: stream.positions().iter().map(row).collect() });
    }
}

/// The rows that the stream's touched consumers want written.
pub(super) fn consumer_ops(id: StreamId, consumers: &mut Consumers, stopping: bool, batch: &mut Batch) {
    for place in consumers.take_dirty() {
        let Some(slot) = consumers.get(place) else { continue };
        let changes = if stopping { slot.consumer.final_changes() } else { slot.consumer.changes() };
        if let Some(changes) = changes
            && slot.stored
        {
            rows(id, slot.consumer.name(), changes, batch);
        }
    }
}

/// The rows that a consumer wants written.
pub(super) fn rows(stream: StreamId, name: &Arc<str>, changes: ConsumerChanges, batch: &mut Batch) {
    let consumer = || name.clone();
    if let Some(state) = changes.state {
        batch.push(Op::PutConsumerState { stream, consumer: consumer(), state });
    }
    for block in changes.put_acked {
        batch.push(Op::PutAckBlock { stream, consumer: consumer(), block });
    }
    for block in changes.remove_acked {
        batch.push(Op::RemoveAckBlock { stream, consumer: consumer(), block });
    }
    for redelivery in changes.put_redeliveries {
        batch.push(Op::PutRedelivery { stream, consumer: consumer(), redelivery });
    }
    for seq in changes.remove_redeliveries {
        batch.push(Op::RemoveRedelivery { stream, consumer: consumer(), seq });
    }
}

/// The error that stands for a commit that did not happen.
pub(super) fn api_error(error: &CommitError) -> ApiError {
    ApiError::STREAM_STORE_FAILED_F.with(error)
}

impl Shared {
    /// Answers publishers, each woken once. Called on the committer's thread, or by the task for streams in memory.
    pub(super) fn acknowledge(&self, waiters: &[Waiter], result: &Result<(), CommitError>) {
        self.acknowledge_after(|| {}, waiters, result);
    }

    /// As [`Shared::acknowledge`], calling `tell` first. Whoever acknowledges because it has been told comes second.
    pub(super) fn acknowledge_after(&self, tell: impl FnOnce(), waiters: &[Waiter], result: &Result<(), CommitError>) {
        if waiters.is_empty() {
            return tell();
        }
        let failure = result.as_ref().err().map(api_error);
        self.acker.with(|courier| {
            tell();
            let mut body = Vec::with_capacity(64);
            for waiter in waiters {
                body.clear();
                match (&waiter.answer, &failure) {
                    (Answer::Refused(error), _) => self.pub_acks.error(&mut body, error),
                    (_, Some(error)) => self.pub_acks.error(&mut body, error),
                    (Answer::Stored(seq), None) => self.pub_acks.stored(&mut body, *seq),
                    (Answer::Counted(seq, value), None) => self.pub_acks.counted(&mut body, *seq, value),
                    (Answer::Duplicate(seq), None) => self.pub_acks.duplicate(&mut body, *seq),
                    (Answer::Fast(answer), None) => self.pub_acks.fast(&mut body, answer),
                    (Answer::Staged, None) => {}
                    (Answer::Batch { id, count, seq }, None) => self.pub_acks.batch(&mut body, *seq, id, *count),
                }
                courier.publish(&waiter.reply, b"", b"", &body);
            }
        });
    }
}
