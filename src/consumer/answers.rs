//! What clients answer to deliveries, and where that leaves the messages and the ack floor.

use bytes::Bytes;

use super::ack::{Ack, AckKind};
use super::advisory::Advisory;
use super::config::AckPolicy;
use super::machine::{Consumer, Position, View};
use super::output::Output;
use super::pending::Entry;
use super::waiting::{after, next_random};
use crate::types::Timestamp;

impl Consumer {
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
                    if entry.delayed {
                        self.touched.insert(seq);
                    }
                    let deadline = self.deadline(entry.count, now);
                    self.pending.progress(seq, now, deadline);
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
        let ended = match self.setup.config.ack_policy {
            AckPolicy::None => return Err(NotDelivered),
            AckPolicy::Explicit => self.acknowledge_one(ack, sample, view, now)?,
            AckPolicy::All | AckPolicy::FlowControl => self.acknowledge_up_to(ack, view)?,
        };
        if ended {
            self.last_acked = Some(now);
        }
        Ok(ended)
    }

    fn acknowledge_one(&mut self, ack: &Ack, sample: bool, view: &View, now: Timestamp) -> Result<bool, NotDelivered> {
        let seq = ack.stream_seq;
        if !self.cursor.has_passed(seq) {
            // After a crash that is a delivery from before it, which is not known any more.
            if seq > self.recovered_until || !view.index.exists(seq) {
                return Err(NotDelivered);
            }
            if !self.cursor.ack_ahead(seq, view.index) {
                return Ok(false);
            }
            self.acked.insert(seq);
        } else if let Some(entry) = self.finish(seq) {
            if sample {
                self.sample(ack, entry.sent, now);
            }
        } else if self.exceeded.remove(&seq).is_some() {
            self.touched.insert(seq);
        } else {
            return Ok(false);
        }
        self.report_consumed(seq);
        Ok(true)
    }

    fn acknowledge_up_to(&mut self, ack: &Ack, view: &View) -> Result<bool, NotDelivered> {
        let seq = ack.stream_seq;
        if seq <= self.floor.stream {
            return Ok(false);
        }
        if seq <= self.delivered.stream {
            self.finish_up_to(seq, ack.consumer_seq);
        } else {
            // What answers flow control knows by itself how far it is, however often the consumer has started over;
            // nats-server believes it, too. Otherwise it is a delivery from before a crash.
            let most = match self.setup.config.ack_policy {
                AckPolicy::FlowControl => view.index.last_seq(),
                _ => self.recovered_until,
            };
            if seq > most {
                return Err(NotDelivered);
            }
            // What was not written down was delivered for the first time, so no message counts twice.
            let forgotten = seq - self.delivered.stream;
            let most = self.delivered.consumer.saturating_add(forgotten);
            let consumer = ack.consumer_seq.clamp(self.delivered.consumer, most);
            self.delivered = Position { consumer, stream: seq };
            self.finish_up_to(seq, consumer);
            while let Some(passed) = self.cursor.peek(view.index).filter(|&next| next <= seq) {
                self.cursor.advance(passed);
                self.report_consumed(passed);
            }
            self.cursor.jump(seq + 1);
        }
        Ok(true)
    }

    /// Acks everything up to a message.
    fn finish_up_to(&mut self, seq: u64, consumer_seq: u64) {
        while let Some(entry) = self.pending.front().filter(|entry| entry.stream_seq <= seq).copied() {
            self.pending.remove(entry.stream_seq);
            if entry.has_row() {
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

    /// A `-NAK` for a message that is out.
    fn refuse(&mut self, ack: &Ack, delay_nanos: Option<i64>, now: Timestamp) {
        let seq = ack.stream_seq;
        self.outbox.push_back(Output::Advisory(Advisory::Nak {
            consumer_seq: ack.consumer_seq,
            stream_seq: seq,
            deliveries: ack.delivery_count,
        }));
        match delay_nanos {
            Some(delay) => {
                self.pending.delay(seq, Timestamp(now.0.saturating_add(delay)));
                self.touched.insert(seq);
            }
            None => {
                if self.pending.get(seq).is_some_and(|entry| entry.delayed) {
                    self.touched.insert(seq);
                }
                self.queue_or_exceed(seq);
            }
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
        if entry.has_row() {
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
    pub(super) fn settle_floor(&mut self) {
        let floor = match self.pending.front() {
            Some(front) => Position { consumer: front.consumer_seq - 1, stream: front.stream_seq - 1 },
            None => self.delivered,
        };
        self.raise_floor(floor);
    }

    pub(super) fn raise_floor(&mut self, floor: Position) {
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

    /// Takes what has to be carried out before [`changes`](Consumer::changes) are written, ahead of all else.
    pub fn take_ends(&mut self) -> Vec<Output> {
        if !self.outbox.iter().any(Output::tells_of_an_end) {
            return Vec::new();
        }
        let (ends, rest): (Vec<Output>, _) =
            std::mem::take(&mut self.outbox).into_iter().partition(Output::tells_of_an_end);
        self.outbox = rest.into();
        ends
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
}

/// The ack was for a message that has not been delivered.
struct NotDelivered;
