//! A message arrives: the checks in nats-server's order (`server/stream.go`, `processJetStreamMsg`), then its place in
//! the log.

use std::time::Duration;

use super::batch::{Checked, Staged};
use super::config::Retention;
use super::counter;
use super::headers::{self, PublishHeaders};
use super::machine::Stream;
use super::schedules;
use super::ttl::{self, Ttl};
use super::world::World;
use super::{Changes, Published, RemovalReason, Republished};
use crate::types::{ApiError, Message, StoredMessage, Timestamp, header};

/// nats-server writes a header block's length in 16 bits; its clients expect the same bound here.
pub const HEADERS_MAX: usize = u16::MAX as usize;
/// The longest subject that a row has room for: longer than any a client sends, unless a transform made it.
const SUBJECT_MAX: usize = u16::MAX as usize;

/// What a `Nats-Rollup` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rollup {
    Subject,
    All,
}

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Client,
    /// The stream itself (a delete marker, a schedule that is due), or a stream it copies from.
    Inside,
}

/// A message as it will be stored, and what its being stored brings about.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    pub message: Message,
    pub headers: PublishHeaders<'a>,
    pub rollup: Option<Rollup>,
    pub ttl: Option<Ttl>,
    /// When it is due first, if it is a schedule.
    pub due: Option<Timestamp>,
    /// A counter's new total.
    pub counted: Option<String>,
}

impl<'a> Arrival<'a> {
    pub(super) fn new(message: Message, headers: PublishHeaders<'a>) -> Arrival<'a> {
        Arrival { message, headers, rollup: None, ttl: None, due: None, counted: None }
    }
}

/// Where a message is stored, and under which time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) time: Timestamp,
}

impl Stream {
    /// A client's message arrived on one of the stream's subjects.
    ///
    /// # Errors
    /// As nats-server's PubAck error. Nothing is stored then; of an atomic batch the message belonged to, nothing ever
    /// will be.
    pub fn handle_publish(
        &mut self,
        message: &Message,
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<Published, ApiError> {
        let renamed = self.subjects.take(message);
        let message = renamed.as_ref().unwrap_or(message);
        if message.headers().is_empty() {
            if self.config.sealed {
                return Err(ApiError::STREAM_SEALED);
            }
            if self.config.allow_msg_counter {
                return Err(ApiError::MESSAGE_INCR_MISSING);
            }
            let arrival = Arrival::new(message.clone(), PublishHeaders::default());
            return self.accept(arrival, world, now, changes);
        }
        let headers = PublishHeaders::parse(message.headers());
        if let Some(batch_id) = headers.batch_id {
            return self.handle_batch_message(batch_id, message, &headers, world, now, changes);
        }
        self.process(message, headers, Origin::Client, world, now, changes)
    }

    /// A message from the stream itself or from a stream it copies from: features the stream does not offer to clients
    /// are no reason to refuse it. Its subject is taken as it is, past the stream's subject transform.
    ///
    /// # Errors
    /// As for [`Stream::handle_publish`].
    pub fn handle_internal(
        &mut self,
        message: &Message,
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<Published, ApiError> {
        let headers = PublishHeaders::parse(message.headers());
        self.process(message, headers, Origin::Inside, world, now, changes)
    }

    /// What would become of a client's message that came now; nothing changes.
    ///
    /// # Errors
    /// As for [`Stream::handle_publish`].
    pub fn would_publish(
        &mut self,
        message: &Message,
        world: &World,
        now: Timestamp,
        changes: &Changes,
    ) -> Result<Published, ApiError> {
        let renamed = self.subjects.take(message);
        let message = renamed.as_ref().unwrap_or(message);
        if self.config.sealed {
            return Err(ApiError::STREAM_SEALED);
        }
        self.check_size(message)?;
        let headers = PublishHeaders::parse(message.headers());
        let seq = self.index.last_seq() + 1;
        Ok(match self.check_staged(message, headers, &mut Staged::default(), world, now, changes)? {
            Checked::Duplicate { seq } => Published::Duplicate { seq },
            Checked::Passed(_) if !self.is_wanted(message.subject(), world) => Published::NoInterest { seq },
            Checked::Passed(_) => Published::Stored { seq },
        })
    }

    /// The subject under which a message would be stored.
    pub fn subject_as_stored(&mut self, message: &Message) -> Vec<u8> {
        self.subjects.take(message).as_ref().unwrap_or(message).subject().to_vec()
    }

    fn process(
        &mut self,
        message: &Message,
        headers: PublishHeaders,
        origin: Origin,
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<Published, ApiError> {
        if self.config.sealed {
            return Err(ApiError::STREAM_SEALED);
        }
        self.check_size(message)?;
        let increment = counter::increment(&headers)?;
        if increment.is_some() && origin == Origin::Client {
            counter::check_client(self.config.allow_msg_counter, message, &headers)?;
        }
        self.check_expected_stream(&headers)?;
        if origin == Origin::Client && !self.config.allow_msg_ttl && parse_ttl(&headers).is_ok_and(|ttl| ttl.is_some())
        {
            return Err(ApiError::MESSAGE_TTL_DISABLED);
        }
        self.check_expected_sequences(message.subject(), &headers)?;
        let mut arrival = Arrival::new(message.clone(), headers);
        if origin == Origin::Client {
            if self.check_schedule(message, &headers)? {
                Stream::make_schedule(&mut arrival);
            }
            let last = |subject: &[u8]| self.last_is_schedule(subject, world, changes);
            self.check_schedule_end(message.subject(), &headers, last)?;
            if headers.stream_source.is_some() {
                return Err(ApiError::MESSAGE_SOURCE_HDR_NOT_ALLOWED);
            }
        }
        if let Some(seq) = headers.msg_id.and_then(|id| self.dedup.find(id, now)) {
            return Ok(Published::Duplicate { seq });
        }
        if let Some(expected) = headers.expected_last_msg_id
            && expected != self.last_msg_id
        {
            return Err(ApiError::STREAM_WRONG_LAST_MSG_ID.with(String::from_utf8_lossy(&self.last_msg_id)));
        }
        arrival.rollup = self.check_rollup(&arrival.headers, origin)?;
        if self.config.allow_msg_counter {
            let increment = increment.ok_or(ApiError::MESSAGE_INCR_MISSING)?;
            let mut counter = self.counter(message.subject(), world, changes)?;
            arrival.message = counter.count(message, increment, &headers)?;
            arrival.counted = Some(counter.value());
            check_payload_max(&arrival.message, world)?;
        }
        self.accept(arrival, world, now, changes)
    }

    /// The checks that need no header, then the log.
    fn accept(
        &mut self,
        mut arrival: Arrival,
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<Published, ApiError> {
        self.check_size(&arrival.message)?;
        check_lengths(&arrival.message)?;
        if !self.is_wanted(arrival.message.subject(), world) {
            return Ok(Published::NoInterest { seq: self.skip(&arrival, now, changes) });
        }
        self.settle(&mut arrival, now)?;
        let accounted_bytes = self.accounted_bytes(&arrival.message);
        self.refuse_new(arrival.message.subject(), accounted_bytes, arrival.headers.rollup.is_some())?;
        let counted = arrival.counted.take();
        let seq = self.store(arrival, accounted_bytes, now, changes);
        Ok(match counted {
            None => Published::Stored { seq },
            Some(value) => Published::Counted { seq, value },
        })
    }

    /// How long the message lives, and when it is due if it is a schedule. Where subjects leave delete markers, a message must not go before a marker of its
    /// subject would, or nobody would be told of its end.
    ///
    /// # Errors
    /// When it says so in no way we know.
    pub(super) fn settle(&self, arrival: &mut Arrival, now: Timestamp) -> Result<(), ApiError> {
        // What comes from another stream may wish for what this one does not offer.
        arrival.ttl = parse_ttl(&arrival.headers)?.filter(|_| self.config.allow_msg_ttl);
        if self.config.allow_msg_schedules {
            arrival.due = schedules::first_due(&arrival.headers, now);
        }
        let least = Duration::from_secs(self.config.subject_delete_marker_ttl.duration().as_secs());
        if let Some(Ttl::For(life)) = arrival.ttl
            && life < least
            && self.config.max_msgs_per_subject != 1
        {
            arrival.ttl = Some(Ttl::For(least));
            let message = &arrival.message;
            let block = header::without(message.headers(), |name| name == headers::TTL.as_bytes()).unwrap_or_default();
            let block = header::with_line(&block, headers::TTL, &least.as_secs().to_string());
            arrival.message = Message::new(message.subject(), &block, message.payload());
        }
        Ok(())
    }

    pub(super) fn is_wanted(&self, subject: &[u8], world: &World) -> bool {
        self.config.retention != Retention::Interest || (world.interest)(subject)
    }

    /// `max_msg_size` bounds headers and payload together.
    pub(super) fn check_size(&self, message: &Message) -> Result<(), ApiError> {
        let size = message.headers().len() + message.payload().len();
        match usize::try_from(self.config.max_msg_size) {
            Ok(most) if most > 0 && size > most => Err(ApiError::STREAM_MESSAGE_EXCEEDS_MAXIMUM),
            _ => Ok(()),
        }
    }

    pub(super) fn check_expected_stream(&self, headers: &PublishHeaders) -> Result<(), ApiError> {
        match headers.expected_stream {
            Some(expected) if expected != self.config.name.as_bytes() => Err(ApiError::STREAM_NOT_MATCH),
            _ => Ok(()),
        }
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

    pub(super) fn check_rollup(&self, headers: &PublishHeaders, origin: Origin) -> Result<Option<Rollup>, ApiError> {
        let Some(rollup) = headers.rollup else { return Ok(None) };
        if origin == Origin::Client && !self.may_roll_up() {
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

    pub(super) fn may_roll_up(&self) -> bool {
        self.config.allow_rollup_hdrs && !self.config.deny_purge
    }

    /// Puts a message that passed all checks into the log, and lets go what it displaces.
    pub(super) fn store(
        &mut self,
        arrival: Arrival,
        accounted_bytes: u64,
        now: Timestamp,
        changes: &mut Changes,
    ) -> u64 {
        let place = Place { seq: self.index.last_seq() + 1, time: now };
        self.store_at(place, arrival, accounted_bytes, now, changes)
    }

    /// As [`Stream::store`], for a message that has its sequence, above the last one, and its time.
    pub(super) fn store_at(
        &mut self,
        place: Place,
        arrival: Arrival,
        accounted_bytes: u64,
        now: Timestamp,
        changes: &mut Changes,
    ) -> u64 {
        let seq = place.seq;
        let subject = arrival.message.subject();
        if let Some(to) = self.subjects.republish(subject) {
            let last_seq = self.index.last_for(subject).unwrap_or(0);
            changes.republished.push(Republished { seq, to, last_seq });
        }
        // The log's times never run backwards, even if the clock does.
        let time = place.time.max(self.index.last_time());
        let appended = self.index.append(seq, subject, accounted_bytes, time);
        self.remember(&arrival.headers, seq, now);
        if arrival.headers.is_notable() {
            self.index.note(seq);
        }
        if let Some(ttl) = arrival.ttl {
            self.index.note(seq);
            self.lifetimes.insert(seq, time, ttl);
        }
        self.note_schedule(seq, arrival.due, subject, &arrival.headers);
        self.enforce_subject_limit(subject, appended.count, appended.first, changes);
        self.enforce_size(changes);
        self.roll_up(&arrival, 1, changes);
        changes.puts.push(StoredMessage { seq, time, message: arrival.message });
        seq
    }

    /// Uses up a sequence for a message nobody wants; it counts for dedup and rolls up all the same.
    pub(super) fn skip(&mut self, arrival: &Arrival, now: Timestamp, changes: &mut Changes) -> u64 {
        let seq = self.index.last_seq() + 1;
        self.index.skip_to(seq, now);
        changes.state_dirty = true;
        self.remember(&arrival.headers, seq, now);
        self.roll_up(arrival, 0, changes);
        seq
    }

    /// Purges what a message replaces, up to the last `keep`, and the schedule it ends.
    fn roll_up(&mut self, arrival: &Arrival, keep: u64, changes: &mut Changes) {
        if arrival.rollup.is_none() && arrival.headers.schedule_next.is_none() || !self.may_roll_up() {
            return;
        }
        match arrival.rollup {
            None => {}
            Some(Rollup::Subject) => {
                self.purge(arrival.message.subject(), 0, keep, RemovalReason::Rollup, changes);
            }
            Some(Rollup::All) => {
                self.purge(b"", 0, keep, RemovalReason::Rollup, changes);
            }
        }
        if arrival.headers.schedule_next == Some(schedules::NEXT_PURGE)
            && let Some(scheduler) = arrival.headers.scheduler
        {
            self.purge(scheduler, 0, 0, RemovalReason::Rollup, changes);
        }
    }

    fn remember(&mut self, headers: &PublishHeaders, seq: u64, now: Timestamp) {
        self.last_msg_id.clear();
        if let Some(id) = headers.msg_id {
            self.last_msg_id.extend_from_slice(id);
            self.dedup.insert(id, seq, now);
        }
    }
}

/// The message's own wish, if it has one.
pub(super) fn parse_ttl(headers: &PublishHeaders) -> Result<Option<Ttl>, ApiError> {
    let Some(value) = headers.ttl else { return Ok(None) };
    match std::str::from_utf8(value).ok().and_then(ttl::parse) {
        // As in nats-server, zero is no wish at all.
        Some(Ttl::For(Duration::ZERO)) => Ok(None),
        Some(ttl) => Ok(Some(ttl)),
        None => Err(ApiError::MESSAGE_TTL_INVALID),
    }
}

/// Whether a message's subject and headers have room in a row.
pub(super) fn check_lengths(message: &Message) -> Result<(), ApiError> {
    if message.headers().len() > HEADERS_MAX {
        return Err(ApiError::STREAM_HEADER_EXCEEDS_MAXIMUM);
    }
    if message.subject().len() > SUBJECT_MAX {
        return Err(ApiError::STREAM_STORE_FAILED_F.with("subject too long"));
    }
    Ok(())
}

/// A message that the stream has rewritten must still fit into what a client may send.
pub(super) fn check_payload_max(message: &Message, world: &World) -> Result<(), ApiError> {
    match message.headers().len() + message.payload().len() > world.payload_bytes_max {
        true => Err(ApiError::STREAM_MESSAGE_EXCEEDS_MAXIMUM),
        false => Ok(()),
    }
}
