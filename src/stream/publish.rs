//! A message arrives: the checks in nats-server's order (`server/stream.go`, `processJetStreamMsg`), then its place in
//! the log.

use super::config::Retention;
use super::headers::PublishHeaders;
use super::machine::Stream;
use super::{Changes, Published, RemovalReason, Republished, ttl};
use crate::types::{ApiError, Message, StoredMessage, Timestamp};

/// nats-server writes a header block's length in 16 bits; its clients expect the same bound here.
pub(super) const HEADERS_MAX: usize = u16::MAX as usize;

/// What a `Nats-Rollup` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rollup {
    Subject,
    All,
}

impl Stream {
    /// A message arrived on one of the stream's subjects. `interest` tells whether any consumer wants a subject; it is
    /// asked in interest streams only.
    ///
    /// # Errors
    /// As nats-server's PubAck error. Nothing is stored then; of an atomic batch the message belonged to, nothing ever
    /// will be.
    pub fn handle_publish(
        &mut self,
        message: &Message,
        interest: &dyn Fn(&[u8]) -> bool,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<Published, ApiError> {
        let renamed = self.subjects.take(message);
        let message = renamed.as_ref().unwrap_or(message);
        if message.headers().is_empty() {
            if self.config.sealed {
                return Err(ApiError::STREAM_SEALED);
            }
            return self.accept(message, &PublishHeaders::default(), None, interest, now, changes);
        }
        let headers = PublishHeaders::parse(message.headers());
        if let Some(batch_id) = headers.batch_id {
            return self.handle_batch_message(batch_id, message, &headers, interest, now, changes);
        }
        if self.config.sealed {
            return Err(ApiError::STREAM_SEALED);
        }
        self.check_foreign_stream(&headers)?;
        self.check_expected_sequences(message.subject(), &headers)?;
        check_unserved(&headers)?;
        if let Some(seq) = headers.msg_id.and_then(|id| self.dedup.find(id, now)) {
            return Ok(Published::Duplicate { seq });
        }
        if let Some(expected) = headers.expected_last_msg_id
            && expected != self.last_msg_id
        {
            return Err(ApiError::STREAM_WRONG_LAST_MSG_ID.with(String::from_utf8_lossy(&self.last_msg_id)));
        }
        let rollup = self.check_rollup(&headers)?;
        self.accept(message, &headers, rollup, interest, now, changes)
    }

    /// The checks that need no header, then the log.
    fn accept(
        &mut self,
        message: &Message,
        headers: &PublishHeaders,
        rollup: Option<Rollup>,
        interest: &dyn Fn(&[u8]) -> bool,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<Published, ApiError> {
        self.check_size(message)?;
        if message.headers().len() > HEADERS_MAX {
            return Err(ApiError::STREAM_HEADER_EXCEEDS_MAXIMUM);
        }
        if !self.is_wanted(message.subject(), interest) {
            return Ok(Published::NoInterest { seq: self.skip(headers, rollup, message.subject(), now, changes) });
        }
        let accounted_bytes = self.accounted_bytes(message);
        self.refuse_new(message.subject(), accounted_bytes, headers.rollup.is_some())?;
        let seq = self.store(message.clone(), accounted_bytes, headers, rollup, now, changes);
        Ok(Published::Stored { seq })
    }

    pub(super) fn is_wanted(&self, subject: &[u8], interest: &dyn Fn(&[u8]) -> bool) -> bool {
        self.config.retention != Retention::Interest || interest(subject)
    }

    /// `max_msg_size` bounds headers and payload together.
    pub(super) fn check_size(&self, message: &Message) -> Result<(), ApiError> {
        let size = message.headers().len() + message.payload().len();
        match usize::try_from(self.config.max_msg_size) {
            Ok(most) if most > 0 && size > most => Err(ApiError::STREAM_MESSAGE_EXCEEDS_MAXIMUM),
            _ => Ok(()),
        }
    }

    /// Headers meant for another stream, or for a feature this stream does not have.
    pub(super) fn check_foreign_stream(&self, headers: &PublishHeaders) -> Result<(), ApiError> {
        if let Some(increment) = headers.increment {
            let digits = increment.strip_prefix(b"-").or(increment.strip_prefix(b"+")).unwrap_or(increment);
            let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            return Err(if valid { ApiError::MESSAGE_INCR_DISABLED } else { ApiError::MESSAGE_INCR_INVALID });
        }
        if headers.expected_stream.is_some_and(|expected| expected != self.config.name.as_bytes()) {
            return Err(ApiError::STREAM_NOT_MATCH);
        }
        if let Some(value) = headers.ttl {
            if std::str::from_utf8(value).ok().and_then(ttl::parse).is_none() {
                return Err(ApiError::MESSAGE_TTL_INVALID);
            }
            if !self.config.allow_msg_ttl {
                return Err(ApiError::MESSAGE_TTL_DISABLED);
            }
        }
        Ok(())
    }

    fn check_expected_sequences(&self, subject: &[u8], headers: &PublishHeaders) -> Result<(), ApiError> {
        if let Some(expected) = headers.expected_last_subject_sequence {
            let last = self.last_for_expected(headers.expected_last_subject_sequence_subject.unwrap_or(subject));
            if last != expected {
                return Err(ApiError::STREAM_WRONG_LAST_SEQUENCE.with(last));
            }
        } else if headers.expected_last_subject_sequence_subject.is_some() {
            return Err(ApiError::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID);
        }
        match headers.expected_last_sequence {
            Some(expected) if expected != self.index.last_seq() => {
                Err(ApiError::STREAM_WRONG_LAST_SEQUENCE.with(self.index.last_seq()))
            }
            _ => Ok(()),
        }
    }

    /// The last sequence of a subject, which may be a filter; 0 without one.
    pub(super) fn last_for_expected(&self, subject: &[u8]) -> u64 {
        if !crate::types::subject::has_wildcard(subject) {
            return self.index.last_for(subject).unwrap_or(0);
        }
        self.index.last_per_subject(&mut super::Filter::new([subject]), u64::MAX).last().copied().unwrap_or(0)
    }

    pub(super) fn check_rollup(&self, headers: &PublishHeaders) -> Result<Option<Rollup>, ApiError> {
        let Some(rollup) = headers.rollup else { return Ok(None) };
        if !self.config.allow_rollup_hdrs || self.config.deny_purge {
            return Err(ApiError::STREAM_ROLLUP_FAILED_F.with("rollup not permitted"));
        }
        match rollup.to_ascii_lowercase().as_slice() {
            b"sub" => Ok(Some(Rollup::Subject)),
            b"all" => Ok(Some(Rollup::All)),
            other => {
                let shown = String::from_utf8_lossy(other);
                Err(ApiError::STREAM_ROLLUP_FAILED_F.with(format_args!("rollup value invalid: {shown:?}")))
            }
        }
    }

    /// Puts a message that passed all checks into the log, and lets go what it displaces.
    pub(super) fn store(
        &mut self,
        message: Message,
        accounted_bytes: u64,
        headers: &PublishHeaders,
        rollup: Option<Rollup>,
        now: Timestamp,
        changes: &mut Changes,
    ) -> u64 {
        let seq = self.index.last_seq() + 1;
        if let Some(to) = self.subjects.republish(message.subject()) {
            let last_seq = self.index.last_for(message.subject()).unwrap_or(0);
            changes.republished.push(Republished { seq, to, last_seq });
        }
        // The log's times never run backwards, even if the clock does.
        let time = now.max(self.index.last_time());
        let appended = self.index.append(seq, message.subject(), accounted_bytes, time);
        self.remember(headers, seq, now);
        self.limit_life(seq, time, headers);
        self.enforce_subject_limit(message.subject(), appended.count, appended.first, changes);
        self.enforce_size(changes);
        match rollup {
            None => {}
            Some(Rollup::Subject) => {
                self.purge(message.subject(), 0, 1, RemovalReason::Rollup, changes);
            }
            Some(Rollup::All) => {
                self.purge(b"", 0, 1, RemovalReason::Rollup, changes);
            }
        }
        changes.puts.push(StoredMessage { seq, time, message });
        seq
    }

    /// Uses up a sequence for a message nobody wants; it counts for dedup and rolls up all the same.
    pub(super) fn skip(
        &mut self,
        headers: &PublishHeaders,
        rollup: Option<Rollup>,
        subject: &[u8],
        now: Timestamp,
        changes: &mut Changes,
    ) -> u64 {
        let seq = self.index.last_seq() + 1;
        self.index.skip_to(seq, now);
        changes.state_dirty = true;
        self.remember(headers, seq, now);
        match rollup {
            None => {}
            Some(Rollup::Subject) => {
                self.purge(subject, 0, 0, RemovalReason::Rollup, changes);
            }
            Some(Rollup::All) => {
                self.purge(b"", 0, 0, RemovalReason::Rollup, changes);
            }
        }
        seq
    }

    fn remember(&mut self, headers: &PublishHeaders, seq: u64, now: Timestamp) {
        self.last_msg_id.clear();
        if let Some(id) = headers.msg_id {
            self.last_msg_id.extend_from_slice(id);
            self.dedup.insert(id, seq, now);
        }
    }
}

/// Headers of features no stream here has.
pub(super) fn check_unserved(headers: &PublishHeaders) -> Result<(), ApiError> {
    if headers.schedule.is_some() {
        return Err(ApiError::MESSAGE_SCHEDULES_DISABLED);
    }
    match (headers.schedule_next, headers.scheduler) {
        (Some(b"purge"), Some(_)) => return Err(ApiError::MESSAGE_SCHEDULES_DISABLED),
        (Some(_), _) | (None, Some(_)) => return Err(ApiError::MESSAGE_SCHEDULES_SCHEDULER_INVALID),
        (None, None) => {}
    }
    if headers.stream_source.is_some() {
        return Err(ApiError::MESSAGE_SOURCE_HDR_NOT_ALLOWED);
    }
    Ok(())
}
