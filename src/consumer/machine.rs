//! One consumer: its state, and the events that change it. What it then wants done comes out of [`Consumer::poll`], in
//! `deliver`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::ack;
use super::acked::Acked;
use super::advisory::Advisory;
use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy, ReplayPolicy};
use super::cursor::Cursor;
use super::output::{Closing, Delivery, MessageSize, Output};
use super::pending::{Entry, Pending};
use super::persist::replayed_subjects_until;
use super::push::{Push, RateLimit};
use super::waiting::{Interest, Pinning, WaitQueue, after};
use crate::stream::{Index, Removal, RemovalReason};
use crate::types::Timestamp;

const UNACKED_REMOVED: &str = "Unacknowledged message was deleted";

/// What a consumer is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    pub stream: Arc<str>,
    pub name: Arc<str>,
    /// Checked, with its defaults set.
    pub config: Arc<ConsumerConfig>,
    pub created: Timestamp,
    /// The stream's retention is interest or work queue: say [`Output::Consumed`].
    pub reports_consumed: bool,
    /// Largest message there can be, which is how far a rate limit may be exceeded at once.
    pub message_bytes_max: u64,
}

/// The world as a consumer sees it during one call.
pub struct View<'a> {
    pub index: &'a Index,
    /// Whether anyone is subscribed to a subject.
    pub interest: &'a dyn Fn(&[u8]) -> bool,
    /// Changes whenever an answer of `interest` may have; 0 for "always ask".
    pub interest_generation: u64,
    /// The lengths of a message's parts; asked only when bytes are limited.
    pub size: &'a dyn Fn(u64) -> Option<MessageSize>,
}

impl View<'_> {
    pub(super) fn interest(&self) -> Interest<'_> {
        Interest { of: self.interest, generation: self.interest_generation }
    }
}

/// A position in both sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) consumer: u64,
    pub(super) stream: u64,
}

/// Replays messages as far apart as they were stored.
#[derive(Debug)]
pub(super) struct Replay {
    /// Messages after this one go at once.
    pub(super) until: u64,
    /// The last one delivered: when it was stored and when it went out.
    pub(super) last: Option<(Timestamp, Timestamp)>,
}

/// One delivery cursor over a stream.
#[derive(Debug)]
pub struct Consumer {
    pub(super) setup: Setup,
    pub(super) ack_prefix: String,
    pub(super) cursor: Cursor,
    pub(super) delivered: Position,
    pub(super) floor: Position,
    pub(super) last_delivered: Option<Timestamp>,
    pub(super) last_acked: Option<Timestamp>,
    pub(super) pending: Pending,
    /// Messages done above the floor.
    pub(super) acked: Acked,
    /// Messages delivered `max_deliver` times and left alone, with their counts.
    pub(super) exceeded: HashMap<u64, u64>,
    /// Acks up to here are taken even where the delivery is not known: it may have been before a crash.
    pub(super) recovered_until: u64,
    pub(super) waiting: WaitQueue,
    pub(super) pinning: Pinning,
    pub(super) push: Option<Push>,
    pub(super) replay: Option<Replay>,
    /// No new message goes out before this: rate limit and replay.
    pub(super) held_until: Timestamp,
    /// Last sign of life of a pull consumer's clients.
    pub(super) active_at: Timestamp,
    /// When time was last looked at, which tells whether a pause is still ahead.
    pub(super) paused_seen: Timestamp,
    /// When the inactive threshold is looked at next.
    pub(super) inactive_check: Option<Timestamp>,
    pub(super) outbox: VecDeque<Output>,
    pub(super) expired: bool,
    pub(super) state_dirty: bool,
    /// Delivered without a need to write it down at once.
    pub(super) delivered_dirty: bool,
    /// Messages whose redelivery row may have changed.
    pub(super) touched: HashSet<u64>,
    pub(super) seed: u64,
    /// Room for the messages that expire together.
    pub(super) due: Vec<Entry>,
}

impl Consumer {
    /// A new consumer. Messages of `index` up to `visible` are durable.
    pub fn new(setup: Setup, index: &Index, visible: u64, now: Timestamp) -> Consumer {
        let cursor = Cursor::start(&setup.config, index, visible);
        let start = Position { consumer: 0, stream: cursor.next_seq() - 1 };
        let mut consumer = Consumer::at(setup, cursor, start, start, index, now);
        consumer.state_dirty = true;
        if let Some(until) = consumer.setup.config.pause_until.filter(|&until| now < until) {
            consumer.outbox.push_back(Output::Advisory(Advisory::Pause { paused: true, until }));
        }
        consumer
    }

    pub(super) fn at(
        setup: Setup,
        cursor: Cursor,
        delivered: Position,
        floor: Position,
        index: &Index,
        now: Timestamp,
    ) -> Consumer {
        let config = setup.config.clone();
        let seed = setup.created.0 as u64 ^ (now.0 as u64).rotate_left(32);
        let push = config.is_push().then(|| Push::new(&config, setup.message_bytes_max, seed, now));
        let replay =
            (config.replay_policy == ReplayPolicy::Original).then(|| Replay { until: index.last_seq(), last: None });
        let mut consumer = Consumer {
            ack_prefix: ack::prefix(&setup.stream, &setup.name),
            cursor,
            delivered,
            floor,
            last_delivered: None,
            last_acked: None,
            pending: Pending::default(),
            acked: Acked::default(),
            exceeded: HashMap::new(),
            recovered_until: 0,
            waiting: WaitQueue::new(config.max_waiting),
            pinning: Pinning { current: None, ttl: config.pinned_ttl, seed: seed.rotate_left(17) },
            push,
            replay,
            held_until: Timestamp::ZERO,
            active_at: now,
            paused_seen: now,
            inactive_check: None,
            outbox: VecDeque::new(),
            expired: false,
            state_dirty: false,
            delivered_dirty: false,
            touched: HashSet::new(),
            seed,
            due: Vec::new(),
            setup,
        };
        consumer.restart_inactivity(now);
        consumer
    }

    pub fn name(&self) -> &Arc<str> {
        &self.setup.name
    }

    pub fn stream(&self) -> &Arc<str> {
        &self.setup.stream
    }

    pub fn config(&self) -> &Arc<ConsumerConfig> {
        &self.setup.config
    }

    pub fn created(&self) -> Timestamp {
        self.setup.created
    }

    /// `$JS.ACK.<stream>.<consumer>.`, for [`ack::write_subject`].
    pub fn ack_prefix(&self) -> &[u8] {
        self.ack_prefix.as_bytes()
    }

    /// Messages not delivered yet.
    pub fn num_pending(&mut self, index: &Index) -> u64 {
        self.cursor.settle(index);
        self.cursor.pending()
    }

    /// Messages out without an ack.
    pub fn num_ack_pending(&self) -> u64 {
        self.pending.len() as u64
    }

    /// Stream sequence of the ack floor: everything matching at or below is done.
    pub fn ack_floor(&self) -> u64 {
        self.floor.stream
    }

    /// Whether a message of this subject is for this consumer.
    pub fn matches(&self, subject: &[u8]) -> bool {
        self.cursor.matches(subject)
    }

    /// Whether a stream that keeps messages for its consumers must keep this one (nats-server `needAck`). A message
    /// that was delivered too often is kept.
    pub fn still_needs(&self, seq: u64, subject: &[u8]) -> bool {
        if !self.cursor.matches(subject) {
            return false;
        }
        let waits = match self.setup.config.ack_policy {
            AckPolicy::Explicit => {
                !self.cursor.is_acked_ahead(seq) && (!self.cursor.has_passed(seq) || self.pending.get(seq).is_some())
            }
            AckPolicy::None => !self.cursor.has_passed(seq),
            AckPolicy::All | AckPolicy::FlowControl => seq > self.floor.stream,
        };
        waits || self.exceeded.contains_key(&seq)
    }

    /// Whether somebody waits for messages, so that a new one is worth a poll.
    pub fn is_awaited(&self) -> bool {
        match &self.push {
            Some(push) => push.active,
            None => !self.waiting.is_empty(),
        }
    }

    /// Whether there is something to be polled or to be written.
    pub fn has_news(&self) -> bool {
        !self.outbox.is_empty() || self.has_changes()
    }

    /// The message `seq` has become durable. Told in order; messages that do not match may be left out.
    pub fn handle_append(&mut self, seq: u64, subject: &[u8], index: &Index) {
        self.cursor.append(seq, subject, index);
    }

    /// Messages have just left the stream's index.
    pub fn handle_removed(&mut self, removal: &Removal, index: &Index) {
        self.cursor.remove(removal);
        let (from, to, reason) = match removal {
            Removal::One { seq, reason, .. } => (*seq, *seq, *reason),
            Removal::Range { from, to, reason } => (*from, *to, *reason),
        };
        if from == to {
            self.forget_removed(from, reason);
            if let Removal::One { subject, .. } = removal {
                self.mark_superseded(from, subject, index);
            }
        } else {
            let mut gone: Vec<u64> = self.pending.iter().map(|entry| entry.stream_seq).collect();
            gone.extend(self.exceeded.keys());
            gone.retain(|seq| (from..=to).contains(seq));
            gone.sort_unstable();
            gone.into_iter().for_each(|seq| self.forget_removed(seq, reason));
        }
        // A purge moves both cursors past the hole it leaves, and past all that has been looked at when nothing is out
        // (nats-server `purge`).
        if reason == RemovalReason::Purge {
            let first = index.first_seq();
            let leaves_hole = first > self.floor.stream + 1;
            if leaves_hole {
                self.cursor.jump(first);
                self.delivered.stream = self.delivered.stream.max(first - 1);
                self.raise_floor(Position { consumer: self.floor.consumer, stream: first - 1 });
            }
            if self.pending.is_empty() {
                self.delivered.stream = self.delivered.stream.max(self.cursor.next_seq() - 1);
            }
            if leaves_hole || self.pending.is_empty() {
                self.settle_floor();
            }
        }
    }

    fn forget_removed(&mut self, seq: u64, reason: RemovalReason) {
        if let Some(entry) = self.finish(seq) {
            if !matches!(reason, RemovalReason::Purge | RemovalReason::Consumed) {
                self.outbox.push_back(Output::Advisory(Advisory::Terminated {
                    consumer_seq: entry.consumer_seq,
                    stream_seq: seq,
                    deliveries: entry.count,
                    reason: UNACKED_REMOVED.to_owned(),
                }));
            }
        } else if self.exceeded.remove(&seq).is_some() {
            self.touched.insert(seq);
        }
    }

    /// What was the last of its subject when the consumer was created has gone. A restart must not take the one before it,
    /// which was never to be delivered, for the last.
    fn mark_superseded(&mut self, gone: u64, subject: &[u8], index: &Index) {
        let config = &self.setup.config;
        if config.deliver_policy != DeliverPolicy::LastPerSubject || config.ack_policy == AckPolicy::None {
            return;
        }
        let until = replayed_subjects_until(&self.setup, index);
        if gone > until {
            return;
        }
        let before = index.last_up_to(subject, until);
        if let Some(seq) =
            before.filter(|&seq| seq < gone && seq > self.floor.stream && self.pending.get(seq).is_none())
        {
            self.acked.insert(seq);
            self.cursor.pass_over(seq);
        }
    }

    /// Whether a delivery that waited for its commit is still to go out: an ack, or the message's removal, may have come
    /// first.
    pub fn still_wants(&self, delivery: &Delivery) -> bool {
        let out = self.pending.get(delivery.ack.stream_seq);
        out.is_some_and(|entry| entry.count == delivery.ack.delivery_count)
    }

    /// A delivery is not [wanted](Consumer::still_wants) any more and was not sent: the pull request it was for gets
    /// another message, or hears that it gets none.
    pub fn handle_withheld(&mut self, delivery: &Delivery) {
        if self.push.is_none() && !self.waiting.credit(&delivery.to) {
            self.outbox.push_back(Output::status_with_rest(delivery.to.clone(), 408, "Request Timeout", 1, 0));
        }
    }

    /// A delivery found nobody at its subject: it does not count, and goes out again.
    pub fn handle_not_delivered(&mut self, delivery: &Delivery, now: Timestamp) {
        let seq = delivery.ack.stream_seq;
        self.waiting.credit(&delivery.to);
        self.pending.undo_delivery(seq);
        if self.pending.get(seq).is_some() {
            self.touched.insert(seq);
            self.pending.queue(seq);
        }
        self.handle_interest(false, now);
    }

    /// Whoever is at a delivery's subject may not have the message: it counts as delivered and not acknowledged. A pull
    /// request goes on to the next one.
    pub fn handle_denied(&mut self, delivery: &Delivery) {
        self.waiting.credit(&delivery.to);
    }

    /// Someone subscribed to the deliver subject of a push consumer, or nobody is any more.
    pub fn handle_interest(&mut self, active: bool, now: Timestamp) {
        let Some(push) = &mut self.push else { return };
        if push.active && !active {
            push.inactive_since = now;
        }
        let changed = push.active != active;
        push.active = active;
        if changed {
            self.restart_inactivity(now);
        }
    }

    /// Takes a new configuration that has passed [`ConsumerConfig::check_update`]. Messages of the index up to `visible`
    /// are durable. In an interest stream the caller then lets go of messages that no filter matches any more.
    pub fn handle_update(&mut self, config: Arc<ConsumerConfig>, index: &Index, visible: u64, now: Timestamp) {
        let old = std::mem::replace(&mut self.setup.config, config.clone());
        if let Some(push) = &mut self.push
            && old.deliver_subject != config.deliver_subject
        {
            push.to = Bytes::from(config.deliver_subject.clone());
            let out: Vec<u64> = self.pending.iter().map(|entry| entry.stream_seq).collect();
            out.into_iter().for_each(|seq| self.queue_or_exceed(seq));
        }
        if let Some(push) = &mut self.push
            && old.rate_limit != config.rate_limit
        {
            push.rate = RateLimit::new(config.rate_limit, self.setup.message_bytes_max, now);
            self.held_until = Timestamp::ZERO;
        }
        if old.ack_wait != config.ack_wait || old.backoff != config.backoff {
            self.pending.replace_deadlines(|entry| config.wait_after(entry.count).map(|wait| after(entry.sent, wait)));
        }
        if old.inactive_threshold != config.inactive_threshold {
            self.active_at = now;
            self.restart_inactivity(now);
        }
        if old.pause_until != config.pause_until {
            let until = config.pause_until.unwrap_or_default();
            self.paused_seen = now;
            self.outbox.push_back(Output::Advisory(Advisory::Pause { paused: now < until, until }));
        }
        self.pinning.ttl = config.pinned_ttl;
        if !old.filters().eq(config.filters()) {
            self.cursor.set_filter(&config, index, visible);
            self.mark_passed(index);
            self.mark_unfiltered(index);
        }
    }

    /// Starts over at `seq`, or where the ack floor is when that is 0 (nats-server `resetStartingSeqLocked`). What was out
    /// is forgotten: acks for it are not taken any more. Messages of the index up to `visible` are durable. Returns where
    /// it starts; in an interest stream the caller then lets go of messages that nobody needs.
    ///
    /// # Errors
    /// Why the deliver policy does not allow it.
    pub fn handle_reset(&mut self, seq: u64, index: &Index, visible: u64) -> Result<u64, &'static str> {
        let config = self.setup.config.clone();
        let lowest = match config.deliver_policy {
            _ if seq == 0 => 0,
            DeliverPolicy::All => 0,
            DeliverPolicy::ByStartSequence if seq < config.opt_start_seq => return Err("below start seq"),
            DeliverPolicy::ByStartSequence => config.opt_start_seq,
            DeliverPolicy::ByStartTime => {
                let start = config.opt_start_time.map_or(0, |time| index.seq_at_time(time));
                if seq < start {
                    return Err("below start time");
                }
                start
            }
            DeliverPolicy::Last | DeliverPolicy::New | DeliverPolicy::LastPerSubject => return Err("not allowed"),
        };
        let seq = if seq == 0 { self.floor.stream + 1 } else { seq.max(lowest).max(1) };
        let out = self.pending.iter().filter(|entry| entry.has_row()).map(|entry| entry.stream_seq);
        self.touched.extend(out.chain(self.exceeded.keys().copied()));
        self.pending = Pending::default();
        self.exceeded.clear();
        self.acked.clear();
        self.recovered_until = 0;
        let skip_until = replayed_subjects_until(&self.setup, index);
        self.cursor = Cursor::resume(&config, index, visible, seq - 1, std::iter::empty(), skip_until);
        self.delivered = Position { consumer: 0, stream: seq - 1 };
        self.floor = self.delivered;
        (self.last_delivered, self.last_acked) = (None, None);
        if let Some(replay) = &mut self.replay {
            replay.last = None;
        }
        self.held_until = Timestamp::ZERO;
        self.state_dirty = true;
        Ok(seq)
    }

    /// Takes the pin from whoever has it (CONSUMER.UNPIN). Told of even when nobody has it, as by nats-server.
    pub fn handle_unpin(&mut self, group: &str) {
        self.pinning.current = None;
        self.outbox.push_back(Output::Advisory(Advisory::Unpinned { group: group.to_owned(), reason: "admin" }));
    }

    /// Has what is out stay out over a restart whose filter does not match it.
    fn mark_unfiltered(&mut self, index: &Index) {
        let matched = |seq| index.subject_of(seq).is_some_and(|subject| self.cursor.matches(subject));
        let changed = self.pending.iter().filter(|entry| entry.unfiltered == matched(entry.stream_seq));
        for (seq, unfiltered) in changed.map(|entry| (entry.stream_seq, !entry.unfiltered)).collect::<Vec<_>>() {
            self.pending.set_unfiltered(seq, unfiltered);
            self.touched.insert(seq);
        }
    }

    /// Marks as done what the filter matches between floor and cursor and is not out: an earlier filter did not deliver
    /// it, and a restart must neither take it for a message without an ack nor deliver it.
    fn mark_passed(&mut self, index: &Index) {
        let mut from = self.floor.stream + 1;
        let end = self.cursor.next_seq() - 1;
        while let Some(seq) = index.next(from, self.cursor.filter_mut()).filter(|&seq| seq <= end) {
            if self.pending.get(seq).is_none() {
                self.acked.insert(seq);
            }
            from = seq + 1;
        }
    }

    pub(super) fn sweep(&mut self, end_of_stream: bool, view: &View, now: Timestamp) -> i64 {
        let position = (self.delivered.consumer, self.cursor.next_seq() - 1);
        self.waiting.sweep(end_of_stream, &view.interest(), position, now, &mut self.outbox)
    }

    pub(super) fn restart_inactivity(&mut self, now: Timestamp) {
        let threshold = self.setup.config.inactive_threshold;
        self.inactive_check = match &self.push {
            _ if threshold.0 <= 0 => None,
            Some(push) if push.active => None,
            Some(push) => Some(after(push.inactive_since, threshold)),
            None => Some(after(now, threshold)),
        };
    }

    /// Sends home everyone in waiting. The consumer is not to be used after it.
    pub fn close(&mut self, closing: Closing) -> Vec<Output> {
        self.expired = true;
        let gone = self.waiting.drain();
        gone.map(|(reply, messages, bytes)| match closing {
            Closing::Deleted => Output::status(reply, 409, "Consumer Deleted"),
            Closing::Shutdown => Output::status_with_rest(reply, 409, "Server Shutdown", messages, bytes),
        })
        .collect()
    }
}
