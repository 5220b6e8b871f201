//! The poll: what has come due, then statuses and answers, then redeliveries, then new messages.

use super::ack::{self, Ack};
use super::advisory::Advisory;
use super::config::AckPolicy;
use super::machine::{Consumer, Position, View};
use super::output::{Delivery, MessageSize, Output, Status};
use super::pending::Entry;
use super::waiting::{Terms, after};
use crate::types::Timestamp;

/// A message chosen to be delivered, not counted yet.
struct Candidate {
    seq: u64,
    /// Its number of deliveries with this one.
    count: u64,
    /// It has been out before.
    again: Option<Entry>,
}

/// Why there is no candidate.
enum Nothing {
    /// Everything visible has been delivered, or nobody can be delivered to.
    EndOfStream,
    /// As many are out as may be.
    TooManyOut,
    /// The rate limit or the replay holds the next message back.
    Held,
}

impl Consumer {
    /// The next thing to do; `None` when there is nothing before the next event or [`Consumer::next_deadline`].
    pub fn poll(&mut self, view: &View, now: Timestamp) -> Option<Output> {
        if self.expired {
            return self.outbox.pop_front();
        }
        if self.outbox.is_empty() {
            self.pass_time(view, now);
        }
        if self.outbox.is_empty() && !self.expired {
            self.cursor.settle(view.index);
            self.deliver_next(view, now);
        }
        self.outbox.pop_front()
    }

    /// When to poll again if nothing happens before.
    pub fn next_deadline(&mut self) -> Option<Timestamp> {
        if self.expired {
            return None;
        }
        let config = &self.setup.config;
        let heartbeat = self.push.as_ref().filter(|push| push.active).and_then(|push| push.heartbeat.as_ref());
        let pin = self.pinning.current.as_ref().map(|pin| pin.until);
        // A hold that has passed needs no alarm, and neither does a pause.
        let held = (!self.held_until.is_zero()).then_some(self.held_until);
        [
            self.pending.next_deadline(),
            // Requests expire strictly after their time.
            self.waiting.due().map(|due| Timestamp(due.0.saturating_add(1))),
            heartbeat.map(|heartbeat| heartbeat.due),
            self.inactive_check,
            pin,
            held,
            config.pause_until.filter(|&until| until > self.paused_seen),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn pass_time(&mut self, view: &View, now: Timestamp) {
        if let Some(until) = self.setup.config.pause_until.filter(|&until| self.paused_seen < until && until <= now) {
            self.outbox.push_back(Output::Advisory(Advisory::Pause { paused: false, until }));
        }
        self.paused_seen = now;
        if self.held_until <= now {
            self.held_until = Timestamp::ZERO;
        }
        let mut due = std::mem::take(&mut self.due);
        self.pending.take_expired(now, &mut due);
        for entry in due.drain(..) {
            self.queue_or_exceed(entry.stream_seq);
        }
        self.due = due;
        if self.waiting.due().is_some_and(|due| due < now) {
            // When no more may be out, who does not want to wait goes home at the first alarm of anyone in waiting
            // (nats-server `loopAndGatherMsgs`).
            self.sweep(self.pending.in_line() == 0 && self.is_at_ack_limit(), view, now);
        }
        if self.pinning.current.as_ref().is_some_and(|pin| pin.until <= now)
            && let Some(pin) = self.pinning.current.take()
        {
            self.outbox.push_back(Output::Advisory(Advisory::Unpinned { group: pin.group, reason: "timeout" }));
        }
        self.beat(now);
        if self.inactive_check.is_some_and(|check| check <= now) {
            self.check_inactivity(view, now);
        }
    }

    /// A push consumer's idle heartbeat.
    fn beat(&mut self, now: Timestamp) {
        let position = (self.delivered.consumer, self.cursor.next_seq() - 1);
        let acks_by_flow = self.setup.config.ack_policy == AckPolicy::FlowControl && !self.pending.is_empty();
        let Some(push) = &mut self.push else { return };
        let Some(heartbeat) = push.heartbeat.as_mut().filter(|heartbeat| heartbeat.due <= now) else { return };
        heartbeat.restart(now);
        if push.active {
            self.outbox.push_back(Output::heartbeat(push.to.clone(), position.0, position.1, push.stalled_on()));
            if acks_by_flow && push.flow.as_ref().is_some_and(|flow| !flow.is_asked()) {
                self.ask_flow_control();
            }
        }
    }

    /// Whether the consumer has been left alone for long enough (nats-server `deleteNotActive`).
    fn check_inactivity(&mut self, view: &View, now: Timestamp) {
        let threshold = self.setup.config.inactive_threshold;
        self.inactive_check = None;
        if self.push.is_none() {
            let quiet_until = after(self.active_at, threshold);
            if quiet_until > now {
                self.inactive_check = Some(quiet_until);
                return;
            }
            self.sweep(true, view, now);
            if !self.waiting.is_empty() {
                self.inactive_check = Some(after(now, threshold));
                return;
            }
            // Whoever got a message may be at work until its wait ends, and be heard of only then.
            let wait_end = |entry: &Entry| entry.deadline().max(self.deadline(entry.count, entry.sent));
            let last = self.pending.iter().filter_map(wait_end).max().map(|last| after(last, threshold));
            if let Some(last) = last.filter(|&last| last > now) {
                self.inactive_check = Some(last);
                return;
            }
        }
        self.expired = true;
        self.outbox.push_back(Output::Expired);
    }

    fn deliver_next(&mut self, view: &View, now: Timestamp) {
        let end_of_stream = match self.try_deliver(view, now) {
            None | Some(Nothing::Held) => return,
            Some(Nothing::EndOfStream) => true,
            Some(Nothing::TooManyOut) => false,
        };
        if self.replay.as_ref().is_some_and(|replay| self.cursor.has_passed(replay.until)) {
            self.replay = None;
        }
        if self.waiting.wants_sweep(end_of_stream, view.interest_generation, now) {
            self.sweep(end_of_stream, view, now);
        }
    }

    /// Delivers one message; otherwise says why not.
    fn try_deliver(&mut self, view: &View, now: Timestamp) -> Option<Nothing> {
        if self.setup.config.pause_until.is_some_and(|until| now < until) {
            return Some(Nothing::EndOfStream);
        }
        let nobody = match &self.push {
            Some(push) => !push.active || push.is_stalled(),
            None => self.waiting.is_empty(),
        };
        if nobody {
            return Some(Nothing::EndOfStream);
        }
        let candidate = match self.choose(view, now) {
            Ok(candidate) => candidate,
            Err(nothing) => return Some(nothing),
        };
        let pending = self.cursor.pending() - u64::from(candidate.again.is_none() && self.cursor.pending() > 0);
        let ack = Ack {
            stream_seq: candidate.seq,
            consumer_seq: self.delivered.consumer + 1,
            delivery_count: candidate.count,
        };
        if self.push.is_some() {
            self.push_out(candidate, ack, pending, view, now)
        } else {
            self.hand_out(candidate, ack, pending, view, now)
        }
    }

    /// Whether as many messages are out as may be.
    fn is_at_ack_limit(&self) -> bool {
        let max_out = self.setup.config.max_ack_pending;
        max_out > 0 && self.pending.len() as u64 >= max_out as u64
    }

    fn choose(&mut self, view: &View, now: Timestamp) -> Result<Candidate, Nothing> {
        while let Some(entry) = self.pending.next_in_line() {
            let seq = entry.stream_seq;
            let max = self.setup.config.max_deliver;
            if max > 0 && entry.count >= max as u64 {
                // The limit was lowered while it was in line.
                self.queue_or_exceed(seq);
                continue;
            }
            return Ok(Candidate { seq, count: entry.count + 1, again: Some(entry) });
        }
        if self.is_at_ack_limit() {
            return Err(Nothing::TooManyOut);
        }
        if self.held_until > now {
            return Err(Nothing::Held);
        }
        let seq = self.cursor.peek(view.index).ok_or(Nothing::EndOfStream)?;
        if let Some(replay) = &mut self.replay
            && let Some((stored, sent)) = replay.last
        {
            let gap = view.index.time_of(seq).unwrap_or(stored).0.saturating_sub(stored.0);
            let due = Timestamp(sent.0.saturating_add(gap));
            if gap > 1_000_000 && due > now {
                self.held_until = due;
                return Err(Nothing::Held);
            }
        }
        Ok(Candidate { seq, count: 1, again: None })
    }

    fn push_out(
        &mut self,
        candidate: Candidate,
        ack: Ack,
        pending: u64,
        view: &View,
        now: Timestamp,
    ) -> Option<Nothing> {
        let push = self.push.as_mut().expect("the caller has looked");
        let mut flow_bytes = 0;
        if push.rate.is_some() || push.flow.is_some() {
            let (size, time) =
                (size_of(candidate.seq, self.setup.config.headers_only, view), time_of(candidate.seq, view));
            let token = ack::subject_len(self.ack_prefix.as_bytes(), &ack, time, pending);
            let body = size.headers + size.payload + token;
            if let Some(rate) = &mut push.rate
                && let Err(ready) = rate.take((body + size.subject) as i64, now)
            {
                self.held_until = ready;
                return Some(Nothing::Held);
            }
            flow_bytes = (body + push.to.len()) as i64;
        }
        let to = push.to.clone();
        if let Some(heartbeat) = &mut push.heartbeat {
            heartbeat.restart(now);
        }
        let delivery = Delivery {
            to,
            ack,
            pending,
            headers_only: self.setup.config.headers_only,
            after_commit: candidate.count > 1,
            pin_id: None,
        };
        self.outbox.push_back(Output::Deliver(delivery));
        self.count_delivery(&candidate, view, now);
        let config = &self.setup.config;
        let acks_full = config.ack_policy == AckPolicy::FlowControl
            && config.max_ack_pending > 0
            && self.pending.len() as i64 >= config.max_ack_pending;
        let flow = self.push.as_mut().and_then(|push| push.flow.as_mut());
        if flow.is_some_and(|flow| flow.sent(flow_bytes, acks_full)) {
            self.ask_flow_control();
        }
        None
    }

    fn hand_out(
        &mut self,
        candidate: Candidate,
        ack: Ack,
        pending: u64,
        view: &View,
        now: Timestamp,
    ) -> Option<Nothing> {
        let mut size = 0;
        if self.waiting.needs_size() {
            let parts = size_of(candidate.seq, self.setup.config.headers_only, view);
            let token = ack::subject_len(self.ack_prefix.as_bytes(), &ack, time_of(candidate.seq, view), pending);
            size = (parts.subject + parts.headers + parts.payload + token) as i64;
        }
        let terms = Terms {
            policy: self.setup.config.priority_policy,
            pending: self.cursor.pending(),
            ack_pending: self.pending.len() as u64,
        };
        let turn = self.waiting.next(size, &terms, &mut self.pinning, &view.interest(), now, &mut self.outbox);
        let Some(turn) = turn else { return Some(Nothing::EndOfStream) };
        self.outbox.push_back(Output::Deliver(Delivery {
            to: turn.to.clone(),
            ack,
            pending,
            headers_only: self.setup.config.headers_only,
            after_commit: candidate.count > 1,
            pin_id: turn.pin_id,
        }));
        self.active_at = now;
        self.count_delivery(&candidate, view, now);
        if let Some((messages, bytes)) = turn.unused {
            self.outbox.push_back(Output::status_with_rest(turn.to, 409, "Batch Completed", messages, bytes));
        }
        None
    }

    fn count_delivery(&mut self, candidate: &Candidate, view: &View, now: Timestamp) {
        let seq = candidate.seq;
        self.delivered.consumer += 1;
        self.last_delivered = Some(now);
        self.delivered_dirty = true;
        if let Some(replay) = &mut self.replay {
            replay.last = Some((time_of(seq, view), now));
        }
        if candidate.again.is_some() {
            let config = self.setup.config.clone();
            self.pending.redeliver(seq, now, |count| config.wait_after(count).map(|wait| after(now, wait)));
            self.touched.insert(seq);
            return;
        }
        self.cursor.advance(seq);
        self.delivered.stream = self.delivered.stream.max(seq);
        if self.setup.config.ack_policy == AckPolicy::None {
            self.floor = Position { consumer: self.delivered.consumer, stream: self.delivered.stream };
            self.state_dirty = true;
            self.report_consumed(seq);
        } else {
            let deadline = self.deadline(1, now);
            self.pending.push(seq, self.delivered.consumer, 1, now, deadline);
        }
    }

    fn ask_flow_control(&mut self) {
        let prefix = format!("$JS.FC.{}.{}.", self.setup.stream, self.setup.name);
        let Some(push) = &mut self.push else { return };
        let Some(flow) = &mut push.flow else { return };
        let headers = crate::types::header::HeaderBuilder::status(100, "FlowControl Request").build();
        let reply = flow.ask(&prefix);
        self.outbox.push_back(Output::Status(Status { to: push.to.clone(), reply, headers }));
    }
}

/// The lengths of what will be sent. Falls back on what the index knows, which does not tell the parts apart.
fn size_of(seq: u64, headers_only: bool, view: &View) -> MessageSize {
    let mut size = (view.size)(seq).unwrap_or_else(|| {
        let row = view.index.row(seq);
        let bytes = row.map_or(0, |row| row.accounted_bytes.saturating_sub(30) as usize);
        MessageSize { subject: 0, headers: 0, payload: bytes }
    });
    if headers_only {
        let line = "Nats-Msg-Size: \r\n".len() + size.payload.checked_ilog10().unwrap_or(0) as usize + 1;
        size.headers = size.headers.max("NATS/1.0\r\n\r\n".len()) + line;
        size.payload = 0;
    }
    size
}

fn time_of(seq: u64, view: &View) -> Timestamp {
    view.index.time_of(seq).unwrap_or_default()
}
