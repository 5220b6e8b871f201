//! One client's interest in a subject, and the other targets a published message can have.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::bridge::Bridge;
use super::client_state::ClientState;
use super::courier::Parcel;
use super::guard::Guard;
use super::message_trace::Trace;
use crate::router::Keyed;
use crate::types::Message;

/// What a subscription takes beside its names: itself and its entry in the client's list; and for each token in the router.
const SUBSCRIPTION_BYTES: usize = 448;
const TOKEN_BYTES: usize = 224;

/// A SUB that a client made.
pub struct Subscription {
    /// Unique in the process: the router's key.
    pub key: u64,
    pub sid: Box<[u8]>,
    pub subject: Box<[u8]>,
    pub queue: Option<Box<[u8]>>,
    pub client: Arc<ClientState>,
    pub(super) headers_wanted: bool,
    /// Whether there is a guard, so that unrestricted clients pay one load.
    guarded: AtomicBool,
    /// For a client whose deliveries must be looked at. A reload may change it.
    guard: RwLock<Option<Arc<Guard>>>,
    delivered: AtomicU64,
    /// Auto-unsubscribe after this many deliveries; 0 for never.
    deliveries_max: AtomicU64,
    closed: AtomicBool,
}

impl Subscription {
    pub(super) fn new(
        key: u64,
        sid: &[u8],
        subject: &[u8],
        queue: Option<&[u8]>,
        client: Arc<ClientState>,
        headers_wanted: bool,
        guard: Option<Arc<Guard>>,
    ) -> Subscription {
        let subscription = Subscription {
            key,
            sid: sid.into(),
            subject: subject.into(),
            queue: queue.map(Into::into),
            client,
            headers_wanted,
            guarded: AtomicBool::new(guard.is_some()),
            guard: RwLock::new(guard),
            delivered: AtomicU64::new(0),
            deliveries_max: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        };
        subscription.client.add_subscription_bytes(subscription.held_bytes());
        subscription
    }

    /// Names are kept here, and by the client's list or the router.
    fn held_bytes(&self) -> usize {
        let names = self.sid.len() + self.subject.len() + self.queue.as_ref().map_or(0, |queue| queue.len());
        let tokens = 1 + memchr::memchr_iter(b'.', &self.subject).count();
        SUBSCRIPTION_BYTES + tokens * TOKEN_BYTES + 2 * names
    }

    /// Counts one delivery; true when the subscription has had all it asked for. Only called under the outbox's lock,
    /// so plain loads and stores suffice.
    pub(super) fn count_delivery(&self) -> bool {
        if self.closed.load(Ordering::Relaxed) {
            return true;
        }
        let delivered = self.delivered.load(Ordering::Relaxed);
        let max = self.deliveries_max.load(Ordering::Relaxed);
        if max != 0 && delivered >= max {
            return true;
        }
        self.delivered.store(delivered + 1, Ordering::Relaxed);
        false
    }

    pub(super) fn set_max(&self, max: u64) {
        self.deliveries_max.store(max, Ordering::Relaxed);
    }

    /// Whether an auto-unsubscribe limit is set and reached.
    pub(super) fn is_exhausted(&self) -> bool {
        let max = self.deliveries_max.load(Ordering::Relaxed);
        max != 0 && self.delivered.load(Ordering::Relaxed) >= max
    }

    /// Other permissions hold for what is delivered from now on.
    pub(super) fn set_guard(&self, guard: Option<Arc<Guard>>) {
        let mut current = self.guard.write().unwrap_or_else(PoisonError::into_inner);
        self.guarded.store(guard.is_some(), Ordering::Relaxed);
        *current = guard;
    }

    /// Whether the client may have the message.
    pub(super) fn may_receive(&self, parcel: &Parcel<'_>) -> bool {
        if !self.guarded.load(Ordering::Relaxed) {
            return true;
        }
        let guard = self.guard.read().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().is_none_or(|guard| guard.may_receive(parcel, self.queue.as_deref()))
    }

    /// The client is about to receive a message with this reply subject.
    pub(super) fn note_reply(&self, reply: &[u8]) {
        if self.guarded.load(Ordering::Relaxed)
            && let Some(guard) = &*self.guard.read().unwrap_or_else(PoisonError::into_inner)
        {
            guard.note_reply(reply);
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub fn deliveries_max(&self) -> u64 {
        self.deliveries_max.load(Ordering::Relaxed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.remove_subscription_bytes(self.held_bytes());
    }
}

/// A message on its way into the broker's own parts.
#[derive(Clone)]
pub struct Inbound {
    pub message: Message,
    /// Empty when the publisher wants no answer.
    pub reply: Bytes,
    pub client: Arc<ClientState>,
    /// For a message whose way is told: whoever takes it tells the rest.
    pub(super) trace: Option<Arc<Trace>>,
}

/// Goes along with a message and is dropped when the stream that stores it has submitted it to the store: whatever is
/// submitted from then on is durable no sooner. Nothing is ever sent.
pub type Receipt = tokio::sync::mpsc::Sender<std::convert::Infallible>;

/// Where a stream takes what is meant for it: all that one read buffer held for it, in order, at once.
///
/// A stream has one door per kind of input, each added to the account with its own filters ([`super::Account::add_stream`]):
/// its subjects; `$JS.ACK.<stream>.>`; `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>` for each pull consumer. So acks and
/// pulls come in batches too, the router does the dispatch, and a pull on a deleted consumer finds no responders, as on
/// nats-server.
pub trait StreamDoor: Send + Sync {
    /// Whether it takes messages to store them, and tells what becomes of traced ones.
    fn stores(&self) -> bool {
        false
    }

    /// Queues the batch. Never blocks and never drops.
    fn publish(&self, batch: Vec<Inbound>);

    /// Queues a message, and keeps its receipt if this door [stores](StreamDoor::stores).
    fn publish_with(&self, message: Inbound, receipt: Receipt);

    /// Whether the stream's inbox is above its bound, so that the publisher must pause.
    fn is_behind(&self) -> bool;

    /// Returns when the inbox is below its bound again.
    fn caught_up(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// A part of the broker that answers requests, as `$JS.API.>` does.
pub trait Service: Send + Sync {
    /// Whether the service takes requests on `subject` at all: else they count as heard by nobody.
    fn takes(&self, subject: &[u8]) -> bool {
        let _ = subject;
        true
    }

    /// Whether it takes what the broker sends for others: answers, and what consumers deliver, under the stored subject as
    /// clients see it. Others are asked by clients alone.
    fn takes_answers(&self) -> bool {
        false
    }

    /// Takes the request. Must neither block nor wait.
    fn call(&self, request: Inbound);
}

/// Who gets a message.
#[derive(Clone)]
pub(super) enum Target {
    Client(Arc<Subscription>),
    Stream { key: u64, door: Arc<dyn StreamDoor> },
    Service { key: u64, service: Arc<dyn Service> },
    Bridge(Arc<Bridge>),
}

impl Keyed for Target {
    fn key(&self) -> u64 {
        match self {
            Target::Client(subscription) => subscription.key,
            Target::Stream { key, .. } | Target::Service { key, .. } => *key,
            Target::Bridge(bridge) => bridge.key,
        }
    }
}
