//! What waits to be written to one client: a contiguous buffer under a short lock, but for large payloads, which the
//! clients that get them share.
//!
//! Publishers append; the connection's writer swaps the buffer out and writes it whole. Whoever makes an empty outbox
//! non-empty owes it one [`Outbox::wake`], at the end of its own read buffer, so that a burst costs one wake and not one
//! per message. No channel operation, allocation or `Arc` clone happens per message of the usual size.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::courier::Parcel;
use super::memory::{Memory, Share};
use super::subscription::Subscription;
use super::trace;
use crate::auth::CALLOUT_SUBJECT;
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
    /// The process holds too much, and most of it for this client. What is queued is dropped.
    OverBudget,
    /// The connection is gone.
    Gone,
}

/// Bytes to be written in order.
#[derive(Default)]
pub struct Queued {
    bytes: Vec<u8>,
    /// Payloads that stand apart, each with the place in `bytes` it comes before.
    apart: Vec<(usize, Bytes)>,
    apart_bytes: usize,
}

impl Queued {
    pub fn len(&self) -> usize {
        self.bytes.len() + self.apart_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.apart.is_empty()
    }

    /// Forgets all of it and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.apart.clear();
        self.apart_bytes = 0;
    }

    fn push_apart(&mut self, payload: Bytes) {
        self.apart_bytes += payload.len();
        self.apart.push((self.bytes.len(), payload));
    }

    /// The pieces in the order they are to be written; none is empty.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        // Small, because each connection's writer keeps it: even pieces are of `bytes`, odd ones stand apart.
        let mut number = 0_usize;
        std::iter::from_fn(move || {
            loop {
                let at = number / 2;
                let piece = match number % 2 {
                    0 => {
                        let from = at.checked_sub(1).map_or(0, |before| self.apart[before].0);
                        let to = self.apart.get(at).map_or(self.bytes.len(), |(to, _)| *to);
                        &self.bytes[from..to]
                    }
                    _ => &self.apart.get(at)?.1[..],
                };
                number += 1;
                if !piece.is_empty() {
                    return Some(piece);
                }
            }
        })
    }
}

struct Pending {
    queued: Queued,
    /// The room of `queued` when it was last counted.
    room: usize,
    /// The room of the buffer that the writer has.
    writer_room: usize,
    /// Of both.
    share: Share,
    closed: Option<Closed>,
    /// Taken by the writer and not yet written.
    in_flight_bytes: usize,
    out_msgs: u64,
    out_bytes: u64,
}

impl Pending {
    #[cold]
    fn count_room(&mut self) {
        self.room = self.queued.bytes.capacity();
        self.share.set(self.room + self.writer_room);
    }

    /// Nobody will write it.
    fn drop_queued(&mut self) {
        self.queued = Queued::default();
        if self.closed == Some(Closed::Gone) {
            self.writer_room = 0;
        }
        self.count_room();
    }
}

/// One client's outgoing bytes. Shared by its writer and by everyone who delivers to it.
pub struct Outbox {
    memory: Arc<Memory>,
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
    pub fn new(bytes_max: usize, memory: &Arc<Memory>) -> Outbox {
        Outbox {
            memory: memory.clone(),
            pending: Mutex::new(Pending {
                queued: Queued::default(),
                room: 0,
                writer_room: 0,
                share: Share::new(memory),
                closed: None,
                in_flight_bytes: 0,
                out_msgs: 0,
                out_bytes: 0,
            }),
            waiting_bytes: AtomicUsize::new(0),
            stuck: AtomicBool::new(false),
            bytes_max: AtomicUsize::new(bytes_max),
            ready: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// What the outbox counts in.
    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one message for `subscription`, counting it. `shared` are headers and payload once more, to be kept instead of
    /// copied. What is `secret` shows in no log.
    pub(super) fn append_message(
        &self,
        subscription: &Subscription,
        parcel: &Parcel<'_>,
        shared: Option<&Bytes>,
        secret: bool,
    ) -> Appended {
        let &Parcel { shown_subject, reply, headers, payload, .. } = parcel;
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
        let before = pending.queued.bytes.len();
        match shared {
            None => encode::msg(&mut pending.queued.bytes, shown_subject, &subscription.sid, reply, headers, payload),
            Some(shared) => {
                let bytes = &mut pending.queued.bytes;
                encode::msg_line(bytes, shown_subject, &subscription.sid, reply, headers.len(), body_bytes);
                pending.queued.push_apart(shared.slice(shared.len() - body_bytes..));
                pending.queued.bytes.extend_from_slice(b"\r\n");
            }
        }
        if trace::is_on() {
            // Also when it comes out of a stream.
            let secret = secret || shown_subject == CALLOUT_SUBJECT.as_bytes();
            trace::outgoing(&subscription.client, &pending.queued.bytes[before..], headers, payload, secret);
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
        let before = pending.queued.bytes.len();
        write(&mut pending.queued.bytes);
        self.after_append(pending, before)
    }

    fn after_append(&self, mut pending: MutexGuard<'_, Pending>, before: usize) -> Appended {
        let waiting = pending.queued.len() + pending.in_flight_bytes;
        self.waiting_bytes.store(waiting, Ordering::Relaxed);
        if waiting > self.bytes_max.load(Ordering::Relaxed) {
            pending.closed = Some(Closed::SlowConsumer);
            pending.drop_queued();
            drop(pending);
            self.wake();
            self.drained.notify_waiters();
            return Appended::Refused;
        }
        if pending.queued.bytes.capacity() != pending.room {
            pending.count_room();
        }
        if before == 0 {
            Appended::First
        } else if waiting > Self::HIGH_WATER_BYTES && !self.is_stuck() {
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

    /// Refuses further appends. The first reason stays, except that `OverBudget` wins over it, and `Gone` over all.
    pub fn close(&self, reason: Closed) {
        let mut pending = self.lock();
        let drops = matches!(reason, Closed::OverBudget | Closed::Gone);
        if drops || pending.closed.is_none() {
            pending.closed = Some(reason);
        }
        if drops {
            pending.drop_queued();
        }
        if reason == Closed::Gone {
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
    pub async fn take(&self, buffer: &mut Queued) -> Result<(), Closed> {
        debug_assert!(buffer.is_empty(), "the writer hands in an empty buffer");
        loop {
            {
                let mut pending = self.lock();
                if let Some(reason @ (Closed::SlowConsumer | Closed::OverBudget)) = pending.closed {
                    return Err(reason);
                }
                if !pending.queued.is_empty() {
                    let keeps = buffer.bytes.capacity();
                    if keeps > KEEP_CAPACITY_BYTES && pending.queued.bytes.len() < KEEP_CAPACITY_BYTES / 4 {
                        *buffer = Queued::default();
                    }
                    std::mem::swap(&mut pending.queued, buffer);
                    pending.in_flight_bytes = buffer.len();
                    pending.writer_room = buffer.bytes.capacity();
                    pending.count_room();
                    return Ok(());
                }
                if let Some(reason) = pending.closed {
                    return Err(reason);
                }
                // An idle client keeps no buffers: ten thousand of them must stay small.
                pending.queued = Queued::default();
                pending.writer_room = 0;
                pending.count_room();
                *buffer = Queued::default();
            }
            self.ready.notified().await;
        }
    }

    /// Tells that `written` more bytes of the taken buffer went out.
    pub fn wrote(&self, written: usize) {
        let mut pending = self.lock();
        pending.in_flight_bytes = pending.in_flight_bytes.saturating_sub(written);
        let waiting = pending.queued.len() + pending.in_flight_bytes;
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

    /// Whether the client has not taken a byte for a while.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Whether a publisher should pause for this client.
    pub fn is_behind(&self) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) > Self::HIGH_WATER_BYTES && !self.is_stuck()
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
        self.until(|closed| matches!(closed, Some(Closed::SlowConsumer | Closed::OverBudget | Closed::Gone))).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order() {
        let check = |write: fn(&mut Queued), expected: &[&str]| {
            let mut queued = Queued::default();
            write(&mut queued);
            let pieces: Vec<_> = queued.pieces().map(String::from_utf8_lossy).collect();
            assert_eq!(pieces, expected);
            assert_eq!(queued.len(), expected.concat().len());
            queued.clear();
            assert!(queued.is_empty() && queued.pieces().next().is_none());
        };
        check(|_| {}, &[]);
        check(|queued| queued.bytes.extend_from_slice(b"ab"), &["ab"]);
        check(|queued| queued.push_apart(Bytes::from_static(b"x")), &["x"]);
        check(
            |queued| {
                queued.bytes.extend_from_slice(b"ab");
                queued.push_apart(Bytes::from_static(b"x"));
                queued.push_apart(Bytes::from_static(b"y"));
                queued.bytes.extend_from_slice(b"cd");
                queued.push_apart(Bytes::from_static(b"z"));
                queued.bytes.extend_from_slice(b"e");
            },
            &["ab", "x", "y", "cd", "z", "e"],
        );
    }

    #[tokio::test]
    async fn what_waits_counts_until_it_is_written_or_dropped() {
        let memory = Arc::new(Memory::new(usize::MAX));
        let outbox = Outbox::new(1 << 20, &memory);
        let fill = |bytes: usize| outbox.append(|out| out.resize(out.len() + bytes, 0));
        fill(100 << 10);
        let held = memory.held_bytes();
        assert!(held >= 96 << 10, "{held}");
        let mut buffer = Queued::default();
        outbox.take(&mut buffer).await.unwrap();
        assert_eq!(memory.held_bytes(), held, "the writer has it");
        fill(100 << 10);
        assert!(memory.held_bytes() >= 2 * held - (32 << 10));
        outbox.close(Closed::OverBudget);
        assert!(memory.held_bytes() <= held && outbox.take(&mut Queued::default()).await == Err(Closed::OverBudget));
        outbox.close(Closed::Gone);
        assert_eq!(memory.held_bytes(), 0);
        let idle = Outbox::new(1 << 20, &memory);
        idle.append(|out| out.resize(100 << 10, 0));
        let mut buffer = Queued::default();
        idle.take(&mut buffer).await.unwrap();
        buffer.clear();
        let more = std::pin::pin!(idle.take(&mut buffer));
        assert!(futures_util::poll!(more).is_pending());
        assert_eq!(memory.held_bytes(), 0, "an idle client holds nothing");
    }
}
