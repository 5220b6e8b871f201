//! Messages published to a stream, from the inbox to a turn's changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::commit::{Answer, Release, Waiter};
use super::inbox;
use super::stream_task::StreamTask;
use crate::broker::Inbound;
use crate::stream::{FAST_BATCH_SUFFIX, FastAnswer, Published};
use crate::types::{ApiError, Message, StoredMessage, Timestamp, header};

impl StreamTask {
    /// The server's limit is reached: every message is refused.
    #[cold]
    fn refuse_for_space(&mut self, batch: Vec<Inbound>) {
        let storage = self.shared.storage();
        self.context.warn_full(storage);
        for inbound in batch {
            self.turn.weight += inbox::weight_bytes(&inbound);
            if !self.contents.stream.config().no_ack && !inbound.reply.is_empty() {
                let answer = Answer::Refused(Box::new(ApiError::INSUFFICIENT_RESOURCES));
                self.turn.waiters.push(Waiter { reply: inbound.reply, answer });
            }
        }
    }

    /// Stores a batch of messages; answers wait for the commit.
    pub(super) fn publish(&mut self, batch: Vec<Inbound>, now: Timestamp) {
        let acks = !self.contents.stream.config().no_ack;
        self.turn.changes.puts.reserve(batch.len());
        if acks {
            self.turn.waiters.reserve(batch.len());
        }
        if self.context.is_full(self.shared.storage()) {
            return self.refuse_for_space(batch);
        }
        let account_bytes_max = self.context.account_bytes_max(self.shared.storage());
        for mut inbound in batch {
            self.turn.weight += inbox::weight_bytes(&inbound);
            // Whoever gets the message would take it for the server's word (nats-server `removeHeaderStatusIfPresent`).
            if let Some(block) = header::without_status(inbound.message.headers()) {
                inbound.message = Message::new(inbound.message.subject(), &block, inbound.message.payload());
            }
            if account_bytes_max.is_some_and(|max| !self.account_has_room(&inbound.message, max)) {
                if acks && !inbound.reply.is_empty() {
                    let answer = Answer::Refused(Box::new(ApiError::ACCOUNT_RESOURCES_EXCEEDED));
                    self.turn.waiters.push(Waiter { reply: inbound.reply, answer });
                }
                continue;
            }
            if inbound.trace.as_ref().is_some_and(|trace| trace.only) {
                let would =
                    self.change(|stream, world, changes| stream.would_publish(&inbound.message, world, now, changes));
                self.tell_trace(&inbound, &would);
                continue;
            }
            if inbound.reply.ends_with(FAST_BATCH_SUFFIX) {
                self.publish_fast(inbound, now);
                continue;
            }
            let before = self.turn.changes.removes.len();
            let published =
                self.change(|stream, world, changes| stream.handle_publish(&inbound.message, world, now, changes));
            self.tell_removed(before);
            self.tell_trace(&inbound, &published);
            if !acks || inbound.reply.is_empty() {
                continue;
            }
            let answer = match published {
                Ok(Published::Stored { seq } | Published::NoInterest { seq }) => Answer::Stored(seq),
                Ok(Published::Counted { seq, value }) => Answer::Counted(seq, value.into()),
                Ok(Published::Duplicate { seq }) => Answer::Duplicate(seq),
                Ok(Published::Staged) => Answer::Staged,
                Ok(Published::BatchCommitted { batch_id, count, seq }) => {
                    Answer::Batch { id: batch_id.into(), count, seq }
                }
                Err(error) => Answer::Refused(Box::new(error)),
            };
            self.turn.waiters.push(Waiter { reply: inbound.reply, answer });
        }
    }

    /// Whether the account's streams stay within `max` bytes with this message (nats-server `wouldExceedLimits`).
    fn account_has_room(&self, message: &Message, max: u64) -> bool {
        let bytes =
            StoredMessage::accounted_bytes(message.subject().len(), message.headers().len(), message.payload().len());
        let told = self.shared.gauges.bytes.load(Ordering::Relaxed);
        let usage = self.context.usage.of(self.shared.storage()).load(Ordering::Relaxed);
        let others = usage.saturating_sub(told);
        others + self.contents.stream.index().bytes() + bytes <= max
    }

    /// Whether server and account have room for a message that an origin sends.
    ///
    /// # Errors
    /// As a publisher would be told.
    pub(super) fn room_for(&self, message: &Message) -> Result<(), ApiError> {
        let storage = self.shared.storage();
        if self.context.is_full(storage) {
            self.context.warn_full(storage);
            return Err(ApiError::INSUFFICIENT_RESOURCES);
        }
        match self.context.account_bytes_max(storage).is_none_or(|max| self.account_has_room(message, max)) {
            true => Ok(()),
            false => Err(ApiError::ACCOUNT_RESOURCES_EXCEEDED),
        }
    }

    /// A message of a fast-ingest batch; it may have several answers or none.
    fn publish_fast(&mut self, inbound: Inbound, now: Timestamp) {
        let before = self.turn.changes.removes.len();
        let answers = self
            .change(|stream, world, changes| stream.handle_fast(&inbound.message, &inbound.reply, world, now, changes));
        self.tell_removed(before);
        self.tell_trace(&inbound, &Ok(Published::Staged));
        let no_ack = self.contents.stream.config().no_ack;
        for answer in answers {
            if no_ack && matches!(answer, FastAnswer::Refused(_)) {
                continue;
            }
            let answer = Answer::Fast(Box::new(answer));
            self.turn.waiters.push(Waiter { reply: inbound.reply.clone(), answer });
        }
    }

    /// Tells what became of a traced message, once that is durable.
    fn tell_trace(&mut self, inbound: &Inbound, published: &Result<Published, ApiError>) {
        let Some(trace) = inbound.trace.clone() else { return };
        let (no_interest, error) = match published {
            Ok(Published::NoInterest { .. }) => (true, String::new()),
            Ok(Published::Duplicate { .. }) => (false, "msgid is duplicate".to_owned()),
            Ok(_) => (false, String::new()),
            Err(error) => (false, error.to_string()),
        };
        let shared = self.shared.clone();
        let subject = match published {
            Ok(Published::Stored { seq } | Published::Counted { seq, .. }) if !trace.only => {
                self.contents.stream.index().subject_of(*seq).map(|subject| subject.to_vec())
            }
            _ => None,
        };
        let subject = subject.unwrap_or_else(|| self.contents.stream.subject_as_stored(&inbound.message));
        self.turn.releases.push(Release::Done(Box::new(move |result| {
            let error = result.err().map_or(error, |failed| failed.to_string());
            trace.jetstream(&shared.name, &subject, no_interest, error);
            if Arc::ptr_eq(trace.account(), &shared.context.account) {
                shared.acker.with(|courier| trace.tell(courier));
            } else {
                // It came from another account.
                let mut courier = shared.context.broker.courier_in(trace.account());
                trace.tell(&mut courier);
                courier.flush();
            }
        })));
    }
}
