//! Messages published to a stream, from the inbox to a turn's changes.

use super::commit::{Answer, Waiter};
use super::inbox;
use super::stream_task::StreamTask;
use crate::broker::Inbound;
use crate::stream::Published;
use crate::types::{ApiError, Timestamp};

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
        for inbound in batch {
            self.turn.weight += inbox::weight_bytes(&inbound);
            let before = self.turn.changes.removes.len();
            let consumers = &self.consumers;
            let published = self.contents.stream.handle_publish(
                &inbound.message,
                &|subject| consumers.any_matches(subject),
                now,
                &mut self.turn.changes,
            );
            self.tell_removed(before);
            if !acks || inbound.reply.is_empty() {
                continue;
            }
            let answer = match published {
                Ok(Published::Stored { seq } | Published::NoInterest { seq }) => Answer::Stored(seq),
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
}
