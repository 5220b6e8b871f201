//! What waits to be written to one client: a contiguous buffer under a short lock.
//!
//! Publishers append; the connection's writer swaps the buffer out and writes it whole. Whoever makes an empty outbox
//! non-empty owes it one [`Outbox::wake`], at the end of its own read buffer, so that a burst costs one wake and not one
//! per message. No channel operation, allocation or `Arc` clone happens per message.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::subscription::Subscription;
use super::trace;
use crate::protocol::encode;

/// Buffers larger than this are given back to the allocator once the outbox runs empty.
const KEEP_CAPACITY_BYTES: usize = 64 * 1024;

/// Why a client's outbox accepts nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// What is queued is still written, then the connection closes.
    AfterFlush,
    /// The client reads too slowly: more than `max_pending` bytes waited. What is queued is dropped.
    SlowConsumer,
    /// The connection is gone.
    Gone,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    closed: Option<Closed>,
    /// Taken by the writer and not yet written.
    in_flight_bytes: usize,
    out_msgs: u64,
    out_bytes: u64,
}

/// One client's outgoing bytes. Shared by its writer and by everyone who delivers to it.
pub struct Outbox {
    pending: Mutex<Pending>,
    /// Bytes queued or being written; read without the lock to find publishers that must wait.
    waiting_bytes: AtomicUsize,
    /// The last write has not finished for a while: waiting for this client would only slow everyone else down.
    stuck: AtomicBool,
    bytes_max: AtomicUsize,
    ready: Notify,
    /// Told whenever waiting for the client may be over: it caught up, is stuck, or is closing.
    drained: Notify,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The outbox was empty before: the caller owes it a wake.
    First,
    /// Someone else already owes the wake.
    More,
    /// As `More`, and so much waits that the publisher should pause.
    Behind,
    /// Nothing was appended; the client is closing.
    Refused,
}

impl Outbox {
    /// Above this many waiting bytes a publisher pauses until the client has caught up.
    pub const HIGH_WATER_BYTES: usize = 1024 * 1024;

    /// An outbox that closes as a slow consumer above `bytes_max` waiting bytes (nats-server's `max_pending`).
    pub fn new(bytes_max: usize) -> Outbox {
        Outbox {
            pending: Mutex::new(Pending::default()),
            waiting_bytes: AtomicUsize::new(0),
            stuck: AtomicBool::new(false),
            bytes_max: AtomicUsize::new(bytes_max),
            ready: Notify::new(),
            drained: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one message for `subscription`, counting it. `shown_subject` is what the client sees.
    pub fn append_message(
        &self,
        subscription: &Subscription,
        shown_subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> Appended {
        let mut pending = self.lock();
        if pending.closed.is_some() {
            return Appended::Refused;
        }
        if subscription.count_delivery() {
            return Appended::Refused;
        }
        let (headers, body_bytes) = if subscription.headers_wanted {
            (headers, headers.len() + payload.len())
        } else {
            (&[][..], payload.len())
        };
        let before = pending.bytes.len();
        encode::msg(&mut pending.bytes, shown_subject, &subscription.sid, reply, headers, payload);
        if trace::is_on() {
            trace::outgoing(&subscription.client, &pending.bytes[before..], headers, payload);
        }
        pending.out_msgs += 1;
        pending.out_bytes += body_bytes as u64;
        self.after_append(pending, before)
    }

    /// Appends protocol text that is no message: INFO, PING, PONG, +OK, -ERR.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Appended {
        let mut pending = self.lock();
        if pending.closed.is_some() {
            return Appended::Refused;
        }
        let before = pending.bytes.len();
        write(&mut pending.bytes);
        self.after_append(pending, before)
    }

    fn after_append(&self, mut pending: MutexGuard<'_, Pending>, before: usize) -> Appended {
        let waiting = pending.bytes.len() + pending.in_flight_bytes;
        self.waiting_bytes.store(waiting, Ordering::Relaxed);
        if waiting > self.bytes_max.load(Ordering::Relaxed) {
            pending.closed = Some(Closed::SlowConsumer);
            pending.bytes = Vec::new();
            drop(pending);
            self.wake();
            self.drained.notify_waiters();
            return Appended::Refused;
        }
        if before == 0 {
            Appended::First
        } else if waiting > Self::HIGH_WATER_BYTES && !self.stuck.load(Ordering::Relaxed) {
            Appended::Behind
        } else {
            Appended::More
        }
    }

    /// Closes as a slow consumer above this many waiting bytes from now on.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Wakes the writer.
    pub fn wake(&self) {
        self.ready.notify_one();
    }

    /// Refuses further appends. The first reason stays, except that `Gone` always wins.
    pub fn close(&self, reason: Closed) {
        let mut pending = self.lock();
        if pending.closed.is_none() || reason == Closed::Gone {
            pending.closed = Some(reason);
        }
        if reason == Closed::Gone {
            pending.bytes = Vec::new();
            self.waiting_bytes.store(0, Ordering::Relaxed);
        }
        drop(pending);
        self.wake();
        self.drained.notify_waiters();
    }

    pub fn closed(&self) -> Option<Closed> {
        self.lock().closed
    }

    /// Swaps everything queued into `buffer` (which must be empty) or, when nothing is, waits for it.
    /// Returns the close reason once nothing is left to write. Cancel safe.
    pub async fn take(&self, buffer: &mut Vec<u8>) -> Result<(), Closed> {
        debug_assert!(buffer.is_empty(), "the writer hands in an empty buffer");
        loop {
            {
                let mut pending = self.lock();
                if pending.closed == Some(Closed::SlowConsumer) {
                    return Err(Closed::SlowConsumer);
                }
                if !pending.bytes.is_empty() {
                    if buffer.capacity() > KEEP_CAPACITY_BYTES && pending.bytes.len() < KEEP_CAPACITY_BYTES / 4 {
                        *buffer = Vec::new();
                    }
                    std::mem::swap(&mut pending.bytes, buffer);
                    pending.in_flight_bytes = buffer.len();
                    return Ok(());
                }
                if let Some(reason) = pending.closed {
                    return Err(reason);
                }
                // An idle client keeps no buffers: ten thousand of them must stay small.
                pending.bytes = Vec::new();
                *buffer = Vec::new();
            }
            self.ready.notified().await;
        }
    }

    /// Tells that `written` more bytes of the taken buffer went out.
    pub fn wrote(&self, written: usize) {
        let mut pending = self.lock();
        pending.in_flight_bytes = pending.in_flight_bytes.saturating_sub(written);
        let waiting = pending.bytes.len() + pending.in_flight_bytes;
        drop(pending);
        self.stuck.store(false, Ordering::Relaxed);
        let before = self.waiting_bytes.swap(waiting, Ordering::Relaxed);
        if before > Self::HIGH_WATER_BYTES / 2 && waiting <= Self::HIGH_WATER_BYTES / 2 {
            self.drained.notify_waiters();
        }
    }

    /// Tells that the client has not taken a byte for a while.
    pub fn set_stuck(&self) {
        self.stuck.store(true, Ordering::Relaxed);
        self.drained.notify_waiters();
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Whether a publisher should pause for this client.
    pub fn is_behind(&self) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) > Self::HIGH_WATER_BYTES && !self.stuck.load(Ordering::Relaxed)
    }

    /// Returns when the client has caught up, is stuck, or has gone.
    pub async fn caught_up(&self) {
        self.until(|closed| !self.is_behind() || closed.is_some()).await;
    }

    /// Returns once the outbox accepts nothing more, for whatever reason, or `other` holds, which is looked at again with
    /// every [`Outbox::nudge`]. Cancel safe.
    pub async fn until_closed_or(&self, other: impl Fn() -> bool) {
        self.until(|closed| closed.is_some() || other()).await;
    }

    /// Makes those look again who wait in [`Outbox::until_closed_or`].
    pub fn nudge(&self) {
        self.drained.notify_waiters();
    }

    /// Returns once what was queued is given up: the client was too slow or has gone. Cancel safe.
    pub async fn until_dropped(&self) {
        self.until(|closed| matches!(closed, Some(Closed::SlowConsumer | Closed::Gone))).await;
    }

    async fn until(&self, done: impl Fn(Option<Closed>) -> bool) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if done(self.closed()) {
                return;
            }
            drained.await;
        }
    }

    /// Messages and their bytes appended so far.
    pub fn counts(&self) -> (u64, u64) {
        let pending = self.lock();
        (pending.out_msgs, pending.out_bytes)
    }
}
