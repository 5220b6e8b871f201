//! One consumer: its state, and the events that change it. What it then wants done comes out of [`Consumer::poll`], in
//! `deliver`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::ack::{self, Ack, AckKind};
use super::acked::Acked;
use super::advisory::Advisory;
use super::config::{AckPolicy, ConsumerConfig, PriorityPolicy, ReplayPolicy};
use super::cursor::Cursor;
use super::info::{ConsumerInfo, PriorityGroupInfo, SequenceInfo};
use super::output::{Closing, Delivery, MessageSize, Output};
use super::pending::{Entry, Pending};
use super::pull::PullRequest;
use super::push::{Push, RateLimit};
use super::rows::{ConsumerChanges, Redelivery, StateRow};
use super::waiting::{Interest, Pinning, WaitQueue, after, next_random};
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
    pub fn num_pending(&self) -> u64 {
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

    /// The message `seq` has become durable. Told in order; messages that do not match may be left out.
    pub fn handle_append(&mut self, seq: u64, subject: &[u8], index: &Index) {
        self.cursor.append(seq, subject, index);
    }

    /// Messages have just left the stream's index.
    pub fn handle_removed(&mut self, removal: &Removal, index: &Index) {
        self.cursor.remove(removal, index);
        let (from, to, reason) = match removal {
            Removal::One { seq, reason, .. } => (*seq, *seq, *reason),
            Removal::Range { from, to, reason } => (*from, *to, *reason),
        };
        if from == to {
            self.forget_removed(from, reason);
        } else {
            let mut gone: Vec<u64> = self.pending.iter().map(|entry| entry.stream_seq).collect();
            gone.extend(self.exceeded.keys());
            gone.retain(|seq| (from..=to).contains(seq));
            gone.sort_unstable();
            gone.into_iter().for_each(|seq| self.forget_removed(seq, reason));
        }
        // A purge moves both cursors past the hole it leaves (nats-server `purge`).
        if reason == RemovalReason::Purge && index.first_seq() > self.floor.stream + 1 {
            let first = index.first_seq();
            self.cursor.jump(first, index);
            let passed = if self.pending.is_empty() { self.cursor.next_seq() - 1 } else { first - 1 };
            self.delivered.stream = self.delivered.stream.max(passed);
            self.raise_floor(Position { consumer: self.floor.consumer, stream: first - 1 });
            self.settle_floor();
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

    /// A pull request arrived, on its own or behind a `+NXT`.
    pub fn handle_next(&mut self, reply: Bytes, body: &[u8], view: &View, now: Timestamp) {
        if reply.is_empty() {
            return;
        }
        match PullRequest::parse(reply.clone(), body) {
            Ok(pull) => self.handle_pull(pull, view, now),
            Err(text) => self.outbox.push_back(Output::status(reply, 400, &format!("Bad Request - {text}"))),
        }
    }

    /// A pull request, parsed.
    pub fn handle_pull(&mut self, pull: PullRequest, view: &View, now: Timestamp) {
        let reply = pull.reply.clone();
        if let Err((code, text)) = self.admit_pull(pull, view, now) {
            self.outbox.push_back(Output::status(reply, code, &text));
        }
    }

    fn admit_pull(&mut self, pull: PullRequest, view: &View, now: Timestamp) -> Result<(), (u16, String)> {
        let config = self.setup.config.clone();
        if config.is_push() {
            return Err((409, "Consumer is push based".to_owned()));
        }
        if config.max_request_batch > 0 && pull.batch > config.max_request_batch {
            return Err((409, format!("Exceeded MaxRequestBatch of {}", config.max_request_batch)));
        }
        if config.max_request_expires.0 > 0 && pull.expires > config.max_request_expires {
            return Err((409, format!("Exceeded MaxRequestExpires of {}", config.max_request_expires)));
        }
        if config.max_request_max_bytes > 0 && pull.max_bytes > config.max_request_max_bytes {
            return Err((409, format!("Exceeded MaxRequestMaxBytes of {}", config.max_request_max_bytes)));
        }
        self.admit_priority(&pull, &config, now)?;
        self.active_at = now;
        if self.waiting.is_full() {
            self.sweep(false, view, now);
        }
        if pull.no_wait {
            let available = self.cursor.pending() + self.pending.in_line() as u64;
            if available == 0 && pull.expires.is_zero() {
                return Err((404, "No Messages".to_owned()));
            }
            if available > 0 {
                let wanted = self.sweep(false, view, now);
                if (available as i64) < wanted {
                    return Err((408, "Requests Pending".to_owned()));
                }
            }
        }
        let heartbeat = pull.idle_heartbeat;
        // A client that expects heartbeats notices their absence; an error would only make it ask again at once.
        match self.waiting.push(pull, config.priority_policy, now) {
            Err(_) if heartbeat.is_zero() => Err((409, "Exceeded MaxWaiting".to_owned())),
            _ => Ok(()),
        }
    }

    fn admit_priority(
        &mut self,
        pull: &PullRequest,
        config: &ConsumerConfig,
        now: Timestamp,
    ) -> Result<(), (u16, String)> {
        let Some(priority) = &pull.priority else { return Ok(()) };
        let refuse = |text: &str| Err((400, format!("Bad Request - {text}")));
        let policy = config.priority_policy;
        if (priority.min_pending != 0 || priority.min_ack_pending != 0) && policy != PriorityPolicy::Overflow {
            return refuse("Not a Overflow Priority consumer");
        }
        if !priority.pin_id.is_empty() && policy != PriorityPolicy::PinnedClient {
            return refuse("Not a Pinned Client Priority consumer");
        }
        if !(0..=9).contains(&priority.priority) {
            return refuse("Priority must be between 0 and 9");
        }
        if policy.is_none() {
            return Ok(());
        }
        if priority.group.is_empty() {
            return refuse("Priority Group missing");
        }
        if !config.priority_groups.contains(&priority.group) {
            return refuse("Invalid Priority Group");
        }
        if let Some(pin) = &mut self.pinning.current {
            if pin.id == priority.pin_id {
                pin.until = after(now, self.pinning.ttl);
            } else if !priority.pin_id.is_empty() {
                return Err((423, "Nats-Pin-Id mismatch".to_owned()));
            }
        }
        Ok(())
    }

    /// An answer to a delivery. `reply` is where the client wants to hear that it was taken, empty if it does not.
    pub fn handle_ack(&mut self, ack: Ack, kind: AckKind, reply: Bytes, view: &View, now: Timestamp) {
        if self.setup.config.inactive_threshold.0 > 0 {
            self.active_at = now;
            if let Some(push) = &mut self.push
                && !push.active
            {
                push.inactive_since = now;
                self.restart_inactivity(now);
            }
        }
        let seq = ack.stream_seq;
        match kind {
            AckKind::Ack => {
                if self.acknowledge(&ack, true, view, now).is_err() {
                    return;
                }
            }
            AckKind::Next { pull } => {
                let _ = self.acknowledge(&ack, true, view, now);
                self.handle_next(reply, pull, view, now);
                return;
            }
            AckKind::Nak { delay } => {
                if self.pending.get(seq).is_some() {
                    self.refuse(&ack, delay.map(|delay| delay.0.max(0)), now);
                }
            }
            AckKind::Progress => {
                if let Some(entry) = self.pending.get(seq) {
                    let deadline = self.deadline(entry.count, now);
                    self.pending.set_deadline(seq, deadline);
                }
            }
            AckKind::Term { reason } => match self.acknowledge(&ack, false, view, now) {
                Err(_) => return,
                Ok(false) => {}
                Ok(true) => self.outbox.push_back(Output::Advisory(Advisory::Terminated {
                    consumer_seq: ack.consumer_seq,
                    stream_seq: seq,
                    deliveries: ack.delivery_count,
                    reason: reason.to_owned(),
                })),
            },
            AckKind::Unknown => {}
        }
        if !reply.is_empty() && seq > 0 {
            self.outbox.push_back(Output::AckReply { to: reply });
        }
    }

    /// Takes an ack; `Ok` says whether it ended anything. `Err` when it is for a message never delivered, which is not
    /// answered.
    fn acknowledge(&mut self, ack: &Ack, sample: bool, view: &View, now: Timestamp) -> Result<bool, NotDelivered> {
        let seq = ack.stream_seq;
        if !self.cursor.has_passed(seq) {
            return self.acknowledge_ahead(ack, view, now);
        }
        match self.setup.config.ack_policy {
            AckPolicy::None => Err(NotDelivered),
            AckPolicy::Explicit => {
                if let Some(entry) = self.finish(seq) {
                    if sample {
                        self.sample(ack, entry.sent, now);
                    }
                } else if self.exceeded.remove(&seq).is_some() {
                    self.touched.insert(seq);
                } else {
                    return Ok(false);
                }
                self.last_acked = Some(now);
                self.report_consumed(seq);
                Ok(true)
            }
            AckPolicy::All | AckPolicy::FlowControl => {
                if seq <= self.floor.stream {
                    return Ok(false);
                }
                self.finish_up_to(seq, ack.consumer_seq);
                self.last_acked = Some(now);
                Ok(true)
            }
        }
    }

    /// Acks everything up to a message.
    fn finish_up_to(&mut self, seq: u64, consumer_seq: u64) {
        while let Some(entry) = self.pending.front().filter(|entry| entry.stream_seq <= seq).copied() {
            self.pending.remove(entry.stream_seq);
            if entry.count > 1 {
                self.touched.insert(entry.stream_seq);
            }
            self.report_consumed(entry.stream_seq);
        }
        let exceeded: Vec<u64> = self.exceeded.keys().copied().filter(|&exceeded| exceeded <= seq).collect();
        for seq in exceeded {
            self.exceeded.remove(&seq);
            self.touched.insert(seq);
            self.report_consumed(seq);
        }
        let before_next = self.pending.front().map_or(u64::MAX, |entry| entry.consumer_seq - 1);
        let consumer = consumer_seq.min(self.delivered.consumer).min(before_next);
        self.raise_floor(Position { consumer, stream: seq });
    }

    /// An ack whose delivery is not known. After a crash that is a delivery from before it.
    fn acknowledge_ahead(&mut self, ack: &Ack, view: &View, now: Timestamp) -> Result<bool, NotDelivered> {
        let seq = ack.stream_seq;
        if seq > self.recovered_until || !view.index.exists(seq) {
            return Err(NotDelivered);
        }
        match self.setup.config.ack_policy {
            AckPolicy::None => return Err(NotDelivered),
            AckPolicy::Explicit => {
                if !self.cursor.ack_ahead(seq, view.index) {
                    return Ok(false);
                }
                self.acked.insert(seq);
                self.report_consumed(seq);
            }
            AckPolicy::All | AckPolicy::FlowControl => {
                let consumer = ack.consumer_seq.max(self.delivered.consumer);
                self.delivered = Position { consumer, stream: self.delivered.stream.max(seq) };
                self.cursor.jump(seq + 1, view.index);
                self.finish_up_to(seq, consumer);
                self.report_consumed(seq);
            }
        }
        self.last_acked = Some(now);
        Ok(true)
    }

    /// A `-NAK` for a message that is out.
    fn refuse(&mut self, ack: &Ack, delay_nanos: Option<i64>, now: Timestamp) {
        let seq = ack.stream_seq;
        self.outbox.push_back(Output::Advisory(Advisory::Nak {
            consumer_seq: ack.consumer_seq,
            stream_seq: seq,
            deliveries: ack.delivery_count,
        }));
        match delay_nanos {
            Some(delay) => self.pending.set_deadline(seq, Some(Timestamp(now.0.saturating_add(delay)))),
            None => self.queue_or_exceed(seq),
        }
    }

    /// The wait of a message has ended: deliver it again, or leave it alone when it had its deliveries.
    ///
    /// nats-server mostly finds that out at the next request; telling at once lets a dead letter be noticed without one.
    pub(super) fn queue_or_exceed(&mut self, seq: u64) {
        let Some(entry) = self.pending.get(seq).copied() else { return };
        let max = self.setup.config.max_deliver;
        if max > 0 && entry.count >= max as u64 {
            self.exceeded.insert(seq, entry.count);
            self.touched.insert(seq);
            self.finish(seq);
            let advisory = Advisory::MaxDeliver { stream_seq: seq, deliveries: entry.count };
            self.outbox.push_back(Output::Advisory(advisory));
        } else {
            self.pending.queue(seq);
        }
    }

    /// Takes a message off the pending ones, and the floor along.
    pub(super) fn finish(&mut self, seq: u64) -> Option<Entry> {
        let was_front = self.pending.front().is_some_and(|front| front.stream_seq == seq);
        let entry = self.pending.remove(seq)?;
        if entry.count > 1 {
            self.touched.insert(seq);
        }
        if was_front {
            self.settle_floor();
        }
        if seq > self.floor.stream {
            self.acked.insert(seq);
        }
        Some(entry)
    }

    /// Moves the floor up to just below the first message that is out.
    fn settle_floor(&mut self) {
        let floor = match self.pending.front() {
            Some(front) => Position { consumer: front.consumer_seq - 1, stream: front.stream_seq - 1 },
            None => self.delivered,
        };
        self.raise_floor(floor);
    }

    fn raise_floor(&mut self, floor: Position) {
        if floor.stream > self.floor.stream || floor.consumer > self.floor.consumer {
            self.floor.stream = self.floor.stream.max(floor.stream);
            self.floor.consumer = self.floor.consumer.max(floor.consumer);
            self.acked.drop_below(self.floor.stream);
            self.state_dirty = true;
        }
    }

    pub(super) fn report_consumed(&mut self, seq: u64) {
        if self.setup.reports_consumed {
            self.outbox.push_back(Output::Consumed { seq });
        }
    }

    fn sample(&mut self, ack: &Ack, sent: Timestamp, now: Timestamp) {
        let percent = self.setup.config.sample_percent();
        if percent > 0 && (percent >= 100 || next_random(&mut self.seed) % 100 <= percent) {
            self.outbox.push_back(Output::Advisory(Advisory::Acked {
                consumer_seq: ack.consumer_seq,
                stream_seq: ack.stream_seq,
                ack_nanos: now.0 - sent.0,
                deliveries: ack.delivery_count,
            }));
        }
    }

    /// When the wait of a message delivered now, for the `count`th time, ends.
    pub(super) fn deadline(&self, count: u64, now: Timestamp) -> Option<Timestamp> {
        self.setup.config.wait_after(count).map(|wait| after(now, wait))
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

    /// An answer on a flow control subject, with its headers.
    pub fn handle_flow_control(&mut self, subject: &[u8], headers: &[u8], view: &View, now: Timestamp) {
        let flow = self.push.as_mut().and_then(|push| push.flow.as_mut());
        if !flow.is_some_and(|flow| flow.answered(subject)) || self.setup.config.ack_policy != AckPolicy::FlowControl {
            return;
        }
        let headers = crate::types::Headers::new(headers);
        let number = |name| headers.get_str(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let stream_seq = number("Nats-Last-Stream");
        if stream_seq > 0 {
            let ack = Ack { stream_seq, consumer_seq: number("Nats-Last-Consumer"), delivery_count: 1 };
            let _ = self.acknowledge(&ack, false, view, now);
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
        self.pinning.ttl = config.pinned_ttl;
        if !old.filters().eq(config.filters()) {
            self.cursor.set_filter(&config, index, visible);
            self.mark_passed(index);
        }
    }

    /// Marks as done what the filter matches between floor and cursor and is not out: an earlier filter did not deliver
    /// it, and a restart must not take it for a message without an ack.
    fn mark_passed(&mut self, index: &Index) {
        let mut from = self.floor.stream + 1;
        let end = self.delivered.stream.min(self.cursor.next_seq().saturating_sub(1));
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

    /// A snapshot, after letting go of requests nobody waits for any more.
    pub fn info(&mut self, view: &View, now: Timestamp) -> ConsumerInfo {
        self.sweep(false, view, now);
        let config = self.setup.config.clone();
        let pause_left = config.pause_until.map_or(0, |until| until.0.saturating_sub(now.0)).max(0);
        let position = |position: Position, last_active| SequenceInfo {
            consumer_seq: position.consumer,
            stream_seq: position.stream,
            last_active,
        };
        let pin = self.pinning.current.as_ref();
        let priority_groups = config.priority_groups.first().map(|group| PriorityGroupInfo {
            group: group.clone(),
            pinned_client_id: pin.map(|pin| pin.id.clone()).unwrap_or_default(),
            pinned_ts: pin.map(|pin| pin.since).unwrap_or_default(),
        });
        ConsumerInfo {
            stream_name: self.setup.stream.to_string(),
            name: self.setup.name.to_string(),
            created: self.setup.created,
            delivered: position(self.delivered, self.last_delivered),
            ack_floor: position(self.floor, self.last_acked),
            num_ack_pending: self.pending.len() as u64,
            num_redelivered: match config.max_deliver {
                1 => 0,
                _ => (self.pending.redelivered() + self.exceeded.len()) as u64,
            },
            num_waiting: self.waiting.len() as u64,
            num_pending: self.cursor.pending(),
            push_bound: self.push.as_ref().is_some_and(|push| push.active),
            paused: pause_left > 0,
            pause_remaining: super::GoDuration(pause_left),
            ts: now,
            priority_groups: priority_groups.into_iter().collect(),
            config,
        }
    }

    /// Rows to write since the last call; `None` when nothing needs to be. What was only delivered does not.
    pub fn changes(&mut self) -> Option<ConsumerChanges> {
        if !self.state_dirty && self.touched.is_empty() && !self.acked.has_changes() {
            return None;
        }
        Some(self.all_changes())
    }

    /// Like [`Consumer::changes`], with what could wait until now: call it when the server stops.
    pub fn final_changes(&mut self) -> Option<ConsumerChanges> {
        self.state_dirty |= self.delivered_dirty;
        self.changes()
    }

    fn all_changes(&mut self) -> ConsumerChanges {
        let (put_acked, remove_acked) = self.acked.take_changes();
        let mut changes = ConsumerChanges { put_acked, remove_acked, ..ConsumerChanges::default() };
        let mut touched: Vec<u64> = self.touched.drain().collect();
        touched.sort_unstable();
        for seq in touched {
            let out = self.pending.get(seq).map(|entry| entry.count).filter(|&count| count > 1);
            match out.or_else(|| self.exceeded.get(&seq).copied()) {
                Some(count) => changes.put_redeliveries.push(Redelivery { seq, count }),
                None => changes.remove_redeliveries.push(seq),
            }
        }
        // The state goes along with anything else, since the delivered cursor bounds what the other rows mean.
        changes.state = Some(self.state_row());
        self.state_dirty = false;
        self.delivered_dirty = false;
        changes
    }

    pub(super) fn state_row(&self) -> StateRow {
        StateRow {
            ack_floor_consumer_seq: self.floor.consumer,
            ack_floor_stream_seq: self.floor.stream,
            delivered_consumer_seq: self.delivered.consumer,
            delivered_stream_seq: self.delivered.stream,
        }
    }
}

/// The ack was for a message that has not been delivered.
struct NotDelivered;
