//! From consumers to their clients: polls them in turn and carries out what they want.

use tracing::{error, warn};

use super::commit::Release;
use super::log::Log;
use super::stream_task::StreamTask;
use crate::broker::Parcel;
use crate::consumer::config::AckPolicy;
use crate::consumer::{self, Ack, AckKind, Closing, Delivery, Output, ack};
use crate::stream::config::Retention;
use crate::types::{StoredMessage, Timestamp, id};

/// Outputs of one consumer before the next one has its turn.
const OUTPUTS_IN_A_ROW: usize = 256;
/// Outputs of all consumers before the inbox is looked at again.
const OUTPUTS_IN_A_TURN: usize = 2048;

impl StreamTask {
    /// Answers to deliveries.
    pub(super) fn acks(&mut self, batch: Vec<crate::broker::Inbound>, now: Timestamp) {
        // Acks of one client mostly go to one consumer.
        let mut last: Option<(usize, Vec<u8>)> = None;
        for inbound in batch {
            self.turn.weight += super::inbox::weight_bytes(&inbound);
            let Some((address, parsed)) = Ack::parse(inbound.message.subject()) else { continue };
            let place = match &last {
                Some((place, name)) if name == address.consumer => *place,
                _ => {
                    let Some(place) = self.consumers.find(address.consumer) else {
                        self.context.nobody_there(&mut self.courier, &inbound);
                        continue;
                    };
                    last = Some((place, address.consumer.to_vec()));
                    self.consumers.touch(place);
                    place
                }
            };
            let kind = AckKind::parse(inbound.message.payload());
            if let Some(slot) = self.consumers.get(place) {
                let consumer = &mut slot.consumer;
                if consumer.config().ack_policy == AckPolicy::None {
                    self.context.nobody_there(&mut self.courier, &inbound);
                    continue;
                }
                self.contents.with_view(|view| consumer.handle_ack(parsed, kind, inbound.reply.clone(), view, now));
            }
        }
        self.settle_weight();
    }

    /// Pull requests.
    pub(super) fn pulls(&mut self, batch: Vec<crate::broker::Inbound>, now: Timestamp) {
        for inbound in batch {
            self.shared.inbox.release(super::inbox::weight_bytes(&inbound));
            let name = inbound.message.subject().rsplit(|byte| *byte == b'.').next().unwrap_or_default();
            let Some(place) = self.consumers.find(name) else {
                self.context.nobody_there(&mut self.courier, &inbound);
                continue;
            };
            if let Some(slot) = self.consumers.get(place) {
                let consumer = &mut slot.consumer;
                self.contents.with_view(|view| {
                    consumer.handle_next(inbound.reply.clone(), inbound.message.payload(), view, now);
                });
            }
            self.consumers.touch(place);
        }
    }

    /// Answers to flow control requests, on `$JS.FC.<stream>.<consumer>.<token>`.
    pub(super) fn flow_control(&mut self, batch: Vec<crate::broker::Inbound>, now: Timestamp) {
        for inbound in batch {
            self.shared.inbox.release(super::inbox::weight_bytes(&inbound));
            let subject = inbound.message.subject();
            let Some(name) = crate::types::subject::token(subject, 3) else { continue };
            let Some(place) = self.consumers.find(name) else { continue };
            if let Some(slot) = self.consumers.get(place) {
                let consumer = &mut slot.consumer;
                let headers = inbound.message.headers();
                self.contents.with_view(|view| consumer.handle_flow_control(subject, headers, view, now));
            }
            self.consumers.touch(place);
        }
    }

    /// Somebody may have come to a push consumer's deliver subject, or left it.
    pub(super) fn interest(&mut self, name: &str, now: Timestamp) {
        let Some(place) = self.consumers.find(name.as_bytes()) else { return };
        if let Some(slot) = self.consumers.get(place) {
            let active = self.context.account.has_interest(slot.consumer.config().deliver_subject.as_bytes());
            slot.consumer.handle_interest(active, now);
        }
        self.consumers.touch(place);
    }

    /// Polls consumers that want attention, each for a while; true when some still do.
    pub(super) fn deliver(&mut self, now: Timestamp) -> bool {
        let mut left = OUTPUTS_IN_A_TURN;
        let mut consumed = Vec::new();
        let mut ack_subject = Vec::with_capacity(128);
        while left > 0 && !self.courier.has_laggards() {
            let Some(place) = self.consumers.next_ready() else { break };
            let mut row = OUTPUTS_IN_A_ROW.min(left);
            let mut expired = false;
            while row > 0 {
                let Some(slot) = self.consumers.get(place) else { break };
                let consumer = &mut slot.consumer;
                let Some(output) = self.contents.with_view(|view| consumer.poll(view, now)) else { break };
                row -= 1;
                left -= 1;
                match output {
                    Output::Deliver(delivery) if delivery.after_commit => {
                        let serial = slot.serial;
                        self.turn.releases.push(Release::Deliver { place, serial, delivery });
                        self.consumers.touch(place);
                    }
                    Output::Deliver(delivery) => self.send(place, &delivery, &mut ack_subject, now),
                    Output::Status(status) => {
                        self.courier.publish(&status.to, &status.reply, &status.headers, b"");
                    }
                    Output::Consumed { seq } => consumed.push(seq),
                    Output::AckReply { to } => {
                        self.turn.releases.push(Release::Empty { to });
                        self.consumers.touch(place);
                    }
                    Output::Advisory(advisory) => self.consumer_advisory(place, &advisory, now),
                    Output::Expired => {
                        expired = true;
                        break;
                    }
                }
            }
            consumed.drain(..).for_each(|seq| self.consume(seq));
            self.consumers.settle(place);
            if expired {
                if let Some(name) = self.consumers.get(place).map(|slot| slot.consumer.name().clone()) {
                    self.end_consumer(name.as_bytes(), Closing::Deleted, now);
                }
            } else if row == 0 {
                self.consumers.touch(place);
            }
        }
        self.consumers.has_ready()
    }

    /// Carries out what becomes of messages that consumers are done with and have not been polled for. It belongs into the
    /// batch that has their ack floors, or before: after a stop or a crash nobody would say it again.
    pub(super) fn end_unpolled(&mut self, now: Timestamp) {
        let mut at = 0;
        while let Some(place) = self.consumers.dirty_at(at) {
            at += 1;
            let ends = self.consumers.get(place).map(|slot| slot.consumer.take_ends());
            for end in ends.into_iter().flatten() {
                match end {
                    Output::Consumed { seq } => self.consume(seq),
                    Output::Advisory(advisory) => self.consumer_advisory(place, &advisory, now),
                    other => unreachable!("{other:?} ends nothing"),
                }
            }
        }
    }

    fn consume(&mut self, seq: u64) {
        let before = self.turn.changes.removes.len();
        let (consumers, followers) = (&self.consumers, &self.followers);
        let keeps = self.contents.stream.config().retention == Retention::Interest;
        self.contents.stream.handle_consumed(
            seq,
            &|seq, subject| consumers.any_needs(seq, subject) || (keeps && followers.any_matches(subject)),
            &mut self.turn.changes,
        );
        self.tell_removed(before);
    }

    /// Sends one message to its consumer's client.
    fn send(&mut self, place: usize, delivery: &Delivery, ack_subject: &mut Vec<u8>, now: Timestamp) {
        let Some(slot) = self.consumers.get(place) else { return };
        let stored = match self.contents.fetch(&mut slot.ahead, delivery.ack.stream_seq) {
            Ok(Some(stored)) => stored,
            // It has left the log since it was chosen.
            Ok(None) => return,
            Err(error) => {
                error!(stream = %self.shared.name, seq = delivery.ack.stream_seq, %error, "a message cannot be delivered");
                return;
            }
        };
        ack_subject.clear();
        ack::write_subject(ack_subject, slot.consumer.ack_prefix(), &delivery.ack, stored.time, delivery.pending);
        let message = &stored.message;
        let rewritten = rewritten_headers(&stored, delivery);
        let receivers = self.courier.send(Parcel {
            to: &delivery.to,
            shown_subject: message.subject(),
            stored_subject: message.subject(),
            reply: ack_subject,
            headers: rewritten.as_deref().unwrap_or(message.headers()),
            payload: if delivery.headers_only { b"" } else { message.payload() },
        });
        if receivers == 0 {
            match self.courier.was_denied() {
                // Somebody is there, and will not get it however often it is sent.
                true => slot.consumer.handle_denied(delivery),
                false => slot.consumer.handle_not_delivered(delivery, now),
            }
            self.consumers.touch(place);
        }
    }

    /// Sends a redelivery whose count is durable now, unless its ack has arrived meanwhile.
    pub(super) fn deliver_late(&mut self, place: usize, serial: u64, delivery: &Delivery, now: Timestamp) {
        let Some(slot) = self.consumers.get(place).filter(|slot| slot.serial == serial) else { return };
        if slot.consumer.still_wants(delivery) {
            let mut ack_subject = Vec::with_capacity(128);
            self.send(place, delivery, &mut ack_subject, now);
        } else {
            slot.consumer.handle_withheld(delivery);
            self.consumers.touch(place);
        }
    }

    fn consumer_advisory(&mut self, place: usize, advisory: &consumer::Advisory, now: Timestamp) {
        let Some(slot) = self.consumers.get(place) else { return };
        let name = slot.consumer.name();
        let subject = advisory.subject(&self.shared.name, name);
        let is_end = advisory.tells_of_an_end() && matches!(self.contents.log, Log::Disk { .. });
        if self.context.account.has_interest(subject.as_bytes()) {
            let (account, domain) = (&self.context.account.name, &self.context.options.domain);
            let body = advisory.body(account, &self.shared.name, name, domain, &id::unique(), now);
            if is_end {
                self.courier.publish_with(subject.as_bytes(), &body, self.receipts.issue(now));
            } else {
                self.courier.publish(subject.as_bytes(), b"", b"", &body);
            }
        }
        self.untold |= is_end && self.context.is_stopping();
    }

    /// Carries out what a consumer said when it closed.
    pub(super) fn last_words(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Status(status) => {
                    self.courier.publish(&status.to, &status.reply, &status.headers, b"");
                }
                Output::AckReply { to } => self.turn.releases.push(Release::Empty { to }),
                other => {
                    warn!(stream = %self.shared.name, ?other, "a closing consumer wanted more than to say goodbye")
                }
            }
        }
    }

    /// Sends all waiting requests home.
    pub(super) fn send_home(&mut self, closing: Closing) {
        let outputs: Vec<Output> = self.consumers.iter_mut().flat_map(|slot| slot.consumer.close(closing)).collect();
        self.last_words(outputs);
    }

    /// Takes off the inbox's count what acks added to a turn that may be written much later.
    fn settle_weight(&mut self) {
        if !self.turn.is_urgent() {
            self.shared.inbox.release(std::mem::take(&mut self.turn.weight));
        }
    }
}

/// The headers of a delivery that differ from the stored ones; `None` when they do not.
fn rewritten_headers(stored: &StoredMessage, delivery: &Delivery) -> Option<Vec<u8>> {
    let message = &stored.message;
    let mut headers = None;
    if delivery.headers_only {
        headers = Some(consumer::headers_only(message.headers(), message.payload().len()));
    }
    if let Some(pin_id) = &delivery.pin_id {
        let base = headers.as_deref().unwrap_or(message.headers());
        let mut with_pin = base.strip_suffix(b"\r\n").unwrap_or(b"NATS/1.0\r\n").to_vec();
        with_pin.extend_from_slice(b"Nats-Pin-Id: ");
        with_pin.extend_from_slice(pin_id);
        with_pin.extend_from_slice(b"\r\n\r\n");
        headers = Some(with_pin);
    }
    headers
}
