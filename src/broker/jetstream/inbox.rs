//! A stream's inbox: commands from links, from the API and from the committer, taken by the stream's task all at once.
//!
//! It is bounded by those who fill it: a link stops reading its client while the inbox [is behind](Inbox::is_behind), the
//! API refuses requests above its own limit, every commit the task submits comes back exactly once, and of news that a
//! consumer's receivers have changed one waits at most.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::call::Call;
use super::followers::Follow;
use super::snapshot::Backup;
use super::sourcing::{Standing, Taken};
use super::stream_task::Report;
use crate::broker::{Inbound, Memory, Receipt};
use crate::storage::CommitError;
use crate::stream::StreamConfig;
use crate::types::ApiError;

/// Publishers pause while more than this waits to be stored or is being stored: a few transactions' worth.
const HIGH_WATER_BYTES: usize = 16 * 1024 * 1024;
/// The same while much waits in all streams together.
const LOW_WATER_BYTES: usize = 256 * 1024;
/// What a message counts for beside its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 96;

/// Something for the stream's task to do.
pub(super) enum Command {
    /// Messages on the stream's subjects.
    Publish(Vec<Inbound>),
    /// The same, of somebody who waits until it has been submitted to the store.
    PublishWith { batch: Vec<Inbound>, receipt: Receipt },
    /// Answers on `$JS.ACK.<stream>.>`.
    Acks(Vec<Inbound>),
    /// Requests on `$JS.API.CONSUMER.MSG.NEXT.<stream>.*`.
    Pulls(Vec<Inbound>),
    /// Requests on `$JS.API.DIRECT.GET.<stream>` and below.
    DirectGets(Vec<Inbound>),
    /// Answers on `$JS.FC.<stream>.>`.
    FlowControl(Vec<Inbound>),
    /// An API request that only this stream can answer.
    Call(Box<Call>),
    /// Somebody came to or left the deliver subject of a push consumer.
    Interest(InterestNews),
    /// A batch is on disk, or will never be.
    Committed { incarnation: u64, ticket: u64, result: Result<(), CommitError> },
    /// The registry has accepted a new configuration.
    Update { config: Arc<StreamConfig>, done: oneshot::Sender<Result<(), ApiError>> },
    /// Says what the stream looks like now.
    Report { consumers: bool, done: oneshot::Sender<Report> },
    /// A mirror or a sourcing stream asks for what there is to take.
    Follow(Box<Follow>),
    /// It asks no more.
    Unfollow { id: u64 },
    /// Says where this stream stands with one it takes from.
    Standing { source: Arc<str>, reply: oneshot::Sender<Standing> },
    /// Messages of a stream this one takes from.
    Taken(Box<Taken>),
    /// Says what a backup begins with, once that is durable. `denied`: subjects whose messages may not be in it.
    Backup { consumers: bool, denied: Vec<String>, done: oneshot::Sender<Result<Box<Backup>, ApiError>> },
    /// The stream ends and its rows go.
    Delete { done: oneshot::Sender<Result<(), ApiError>> },
    /// The server stops: finish what is under way.
    Stop,
}

/// That a push consumer is to look for its receivers again. While one waits no other is needed.
pub(super) struct InterestNews {
    consumer: Arc<str>,
    waits: Arc<AtomicBool>,
}

impl InterestNews {
    /// `None` while the last one for the same `waits` is still there.
    pub(super) fn new(consumer: &Arc<str>, waits: &Arc<AtomicBool>) -> Option<InterestNews> {
        (!waits.swap(true, Ordering::AcqRel)).then(|| InterestNews { consumer: consumer.clone(), waits: waits.clone() })
    }

    /// The consumer. What changes from now on is news again, so it looks afterwards.
    pub(super) fn taken(self) -> Arc<str> {
        self.consumer.clone()
    }
}

impl Drop for InterestNews {
    fn drop(&mut self) {
        // Acquires what whoever found it waiting has changed before.
        self.waits.swap(false, Ordering::AcqRel);
    }
}

/// See the module.
pub(super) struct Inbox {
    memory: Arc<Memory>,
    commands: Mutex<Vec<Command>>,
    ready: Notify,
    /// Bytes of publishes waiting here and in uncommitted batches.
    waiting_bytes: AtomicUsize,
    drained: Notify,
}

impl Inbox {
    pub(super) fn new(memory: Arc<Memory>) -> Inbox {
        Inbox {
            memory,
            commands: Mutex::new(Vec::new()),
            ready: Notify::new(),
            waiting_bytes: AtomicUsize::new(0),
            drained: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Command>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a command. Wakes the task only when nothing else has done so since it last looked.
    pub(super) fn push(&self, command: Command) {
        let mut commands = self.lock();
        let was_empty = commands.is_empty();
        commands.push(command);
        drop(commands);
        if was_empty {
            self.ready.notify_one();
        }
    }

    /// Queues messages and counts them until [`Inbox::release`] takes them off.
    pub(super) fn push_messages(&self, messages: Vec<Inbound>, wrap: impl FnOnce(Vec<Inbound>) -> Command) {
        let weight: usize = messages.iter().map(weight_bytes).sum();
        self.waiting_bytes.fetch_add(weight, Ordering::Relaxed);
        self.memory.is_writing(weight);
        self.push(wrap(messages));
    }

    /// The commands that wait, in order, into an empty `into`.
    pub(super) fn take(&self, into: &mut Vec<Command>) {
        std::mem::swap(&mut *self.lock(), into);
    }

    /// Takes off the count what is done with.
    pub(super) fn release(&self, weight: usize) {
        let less = |waiting: usize| Some(waiting.saturating_sub(weight));
        let before = self.waiting_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or(0);
        self.memory.has_written(before.min(weight));
        // Which mark counts changes with what other streams do, so whoever waits looks again each time.
        if before > LOW_WATER_BYTES {
            self.drained.notify_waiters();
        }
    }

    /// Starts counting anew, when a task that would have taken its share off has failed.
    pub(super) fn forget_weights(&self) {
        self.memory.has_written(self.waiting_bytes.swap(0, Ordering::Relaxed));
        self.drained.notify_waiters();
    }

    /// Waits for a command. Cancel safe.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Whether those who publish should pause.
    pub(super) fn is_behind(&self) -> bool {
        let waiting = self.waiting_bytes.load(Ordering::Relaxed);
        waiting > HIGH_WATER_BYTES || waiting > LOW_WATER_BYTES && self.memory.is_writing_much()
    }

    /// Returns once it is not behind. Cancel safe.
    pub(super) async fn caught_up(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if !self.is_behind() {
                return;
            }
            drained.await;
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.forget_weights();
    }
}

/// What a message counts for in an inbox.
pub(super) fn weight_bytes(inbound: &Inbound) -> usize {
    inbound.message.as_bytes().len() + inbound.reply.len() + MESSAGE_OVERHEAD_BYTES
}
