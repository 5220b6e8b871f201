//! Atomic batch publish (ADR-50): messages wait here until their commit, which stores all of them or none
//! (nats-server `processJetStreamAtomicBatchMsg`).
//!
//! Where we differ: nats-server stages in a store of its own, we in memory, so the bytes waiting per stream have a
//! bound. A restart gives up open batches in both.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::config::Discard;
use super::counter::{self, Counter};
use super::headers::{self, PublishHeaders};
use super::limits::limit;
use super::machine::Stream;
use super::publish::{Arrival, Origin, Rollup, check_lengths, check_payload_max, parse_ttl};
use super::world::World;
use super::{AbandonReason, AbandonedBatch, Changes, Published};
use crate::types::{ApiError, Message, Timestamp, header};

pub(super) const ID_MAX: usize = 64;
/// A staged message from this size on may stay in the buffer it came in, which is no more than four times as large.
const OWN_BYTES_MIN: usize = 16 * 1024;
/// The level of the JetStream API served (ADR-44).
pub const API_LEVEL: u32 = 4;

/// A stream's open batches.
#[derive(Debug, Default)]
pub struct Batches {
    open: BTreeMap<Box<[u8]>, Batch>,
    staged_bytes: usize,
}

#[derive(Debug)]
struct Batch {
    messages: Vec<Message>,
    deadline: Timestamp,
}

impl Batches {
    /// Batches waiting for their commit.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Gives up what is past its deadline.
    pub fn expire(&mut self, now: Timestamp, changes: &mut Changes) {
        while let Some(id) = self.open.iter().find(|(_, batch)| batch.deadline <= now).map(|(id, _)| id.clone()) {
            self.abandon(&id, AbandonReason::Timeout, changes);
        }
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.open.values().map(|batch| batch.deadline).min()
    }

    /// Drops all of them without a word.
    pub fn clear(&mut self) {
        *self = Batches::default();
    }

    fn take(&mut self, id: &[u8]) -> Vec<Message> {
        let messages = self.open.remove(id).map(|batch| batch.messages).unwrap_or_default();
        self.staged_bytes -= messages.iter().map(|message| message.as_bytes().len()).sum::<usize>();
        messages
    }

    fn abandon(&mut self, id: &[u8], reason: AbandonReason, changes: &mut Changes) {
        self.take(id);
        let batch_id = String::from_utf8_lossy(id).into_owned();
        changes.abandoned_batches.push(AbandonedBatch { batch_id, reason });
    }
}

/// What a batch's messages up to now would do, while the rest is checked.
#[derive(Default)]
pub(super) struct Staged<'a> {
    written: HashMap<&'a [u8], Written>,
    messages: u64,
    bytes: u64,
    msg_ids: HashSet<&'a [u8]>,
    /// The last sequences already expected, by subject.
    expected: HashMap<&'a [u8], u64>,
    counters: HashMap<&'a [u8], Counter>,
}

/// What is staged for one subject.
#[derive(Default)]
struct Written {
    messages: u64,
    /// Whether the last of them is a schedule.
    is_schedule: bool,
}

impl Stream {
    /// Open atomic batches.
    pub fn open_batches(&self) -> usize {
        self.batches.open()
    }

    /// What they hold.
    pub fn staged_bytes(&self) -> usize {
        self.batches.staged_bytes
    }

    pub(super) fn handle_batch_message(
        &mut self,
        id: &[u8],
        message: &Message,
        headers: &PublishHeaders,
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<Published, ApiError> {
        if self.config.sealed {
            return Err(ApiError::STREAM_SEALED);
        }
        self.check_size(message)?;
        if !self.config.allow_atomic {
            return Err(ApiError::ATOMIC_PUBLISH_DISABLED);
        }
        if id.len() > ID_MAX {
            return Err(ApiError::ATOMIC_PUBLISH_INVALID_BATCH_ID);
        }
        let sequence = headers.batch_sequence.ok_or(ApiError::ATOMIC_PUBLISH_MISSING_SEQ)?;
        let at_end = headers.batch_commit == Some(b"eob");
        // The end-of-batch marker is no message of the batch.
        let size = sequence.saturating_sub(u64::from(at_end));
        self.batches.expire(now, changes);
        let terms = world.batches;
        if !self.batches.open.contains_key(id) {
            if sequence != 1 {
                return Err(if size > terms.messages_max {
                    ApiError::ATOMIC_PUBLISH_TOO_LARGE_BATCH.with(terms.messages_max)
                } else {
                    ApiError::ATOMIC_PUBLISH_INCOMPLETE_BATCH
                });
            }
            if self.batches.open() >= terms.atomic_open_max {
                return Err(ApiError::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT);
            }
            self.batches.open.insert(id.into(), Batch { messages: Vec::new(), deadline: now + terms.timeout });
        }
        if headers.batch_commit.is_some_and(|commit| commit != b"1" && commit != b"eob") {
            self.batches.take(id);
            return Err(ApiError::ATOMIC_PUBLISH_INVALID_BATCH_COMMIT);
        }
        if let Some(level) = headers.required_api_level
            && std::str::from_utf8(level).ok().and_then(|l| l.parse().ok()).is_none_or(|level: u32| level > API_LEVEL)
        {
            self.batches.abandon(id, AbandonReason::RequirementsNotMet, changes);
            return Err(ApiError::REQUIRED_API_LEVEL);
        }
        let batch = self.batches.open.get_mut(id).expect("it was opened above");
        if batch.messages.len() as u64 + 1 != sequence || size == 0 {
            self.batches.abandon(id, AbandonReason::Incomplete, changes);
            return Err(ApiError::ATOMIC_PUBLISH_INCOMPLETE_BATCH);
        }
        if size > terms.messages_max {
            self.batches.abandon(id, AbandonReason::Large, changes);
            return Err(ApiError::ATOMIC_PUBLISH_TOO_LARGE_BATCH.with(terms.messages_max));
        }
        batch.deadline = now + terms.timeout;
        if !at_end {
            let staged_bytes = self.batches.staged_bytes + message.as_bytes().len();
            if staged_bytes > terms.staged_bytes_max {
                self.batches.abandon(id, AbandonReason::Incomplete, changes);
                return Err(ApiError::INSUFFICIENT_RESOURCES);
            }
            // It was for the broker; nobody reads it again.
            let level = headers::REQUIRED_API_LEVEL.as_bytes();
            let bare =
                headers.required_api_level.and_then(|_| header::without(message.headers(), |name| name == level));
            batch.messages.push(match bare {
                Some(bare) => Message::new(message.subject(), &bare, message.payload()),
                // A copy of its own: the original may share a large buffer with messages that are gone.
                None if message.as_bytes().len() < OWN_BYTES_MIN => {
                    Message::new(message.subject(), message.headers(), message.payload())
                }
                None => message.clone(),
            });
            self.batches.staged_bytes = staged_bytes;
        }
        if headers.batch_commit.is_none() {
            return Ok(Published::Staged);
        }
        let mut messages = self.batches.take(id);
        if at_end && let Some(last) = messages.last_mut() {
            *last = with_commit_header(last);
        }
        let seq = self.commit_batch(&messages, world, now, changes)?;
        Ok(Published::BatchCommitted { batch_id: String::from_utf8_lossy(id).into_owned(), count: size, seq })
    }

    /// Checks every message against the log as it will be when its turn comes, then stores them all.
    fn commit_batch(
        &mut self,
        messages: &[Message],
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<u64, ApiError> {
        let mut staged = Staged::default();
        let mut arrivals = Vec::with_capacity(messages.len());
        for message in messages {
            let headers = PublishHeaders::parse(message.headers());
            if headers.expected_last_msg_id.is_some() {
                return Err(ApiError::ATOMIC_PUBLISH_UNSUPPORTED_HEADER_BATCH.with(headers::EXPECTED_LAST_MSG_ID));
            }
            match self.check_staged(message, headers, &mut staged, world, now, changes)? {
                Checked::Passed(arrival) => arrivals.push(arrival),
                Checked::Duplicate { .. } => return Err(ApiError::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE),
            }
        }
        let mut seq = self.index.last_seq();
        for arrival in arrivals {
            seq = self.store_checked(arrival, world, now, changes)?;
        }
        Ok(seq)
    }

    /// Stores a message that [`Stream::check_staged`] let pass.
    ///
    /// # Errors
    /// When its time to live is none, which that has seen already.
    pub(super) fn store_checked(
        &mut self,
        mut arrival: Arrival,
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<u64, ApiError> {
        if !self.is_wanted(arrival.message.subject(), world) {
            return Ok(self.skip(&arrival, now, changes));
        }
        self.settle(&mut arrival, now)?;
        let accounted_bytes = self.accounted_bytes(&arrival.message);
        Ok(self.store(arrival, accounted_bytes, now, changes))
    }

    /// One message of a batch, against the log as it will be when all that is `staged` is stored (nats-server
    /// `checkMsgHeadersPreClusteredProposal`).
    pub(super) fn check_staged<'a>(
        &self,
        message: &'a Message,
        headers: PublishHeaders<'a>,
        staged: &mut Staged<'a>,
        world: &World,
        now: Timestamp,
        changes: &Changes,
    ) -> Result<Checked<'a>, ApiError> {
        let subject = message.subject();
        check_lengths(message)?;
        let increment = counter::increment(&headers)?;
        if increment.is_some() {
            counter::check_client(self.config.allow_msg_counter, message, &headers)?;
        }
        self.check_expected_stream(&headers)?;
        // nats-server does not look whether a time to live it will not serve is valid here.
        match parse_ttl(&headers) {
            Ok(None) => {}
            _ if !self.config.allow_msg_ttl => return Err(ApiError::MESSAGE_TTL_DISABLED),
            Ok(Some(_)) => {}
            Err(error) => return Err(error),
        }
        if let Some(id) = headers.msg_id {
            if let Some(seq) = self.dedup.find(id, now) {
                return Ok(Checked::Duplicate { seq });
            }
            if !staged.msg_ids.insert(id) {
                return Err(ApiError::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE);
            }
        }
        if headers.stream_source.is_some() {
            return Err(ApiError::MESSAGE_SOURCE_HDR_NOT_ALLOWED);
        }
        let mut arrival = Arrival::new(message.clone(), headers);
        if self.config.allow_msg_counter {
            let increment = increment.ok_or(ApiError::MESSAGE_INCR_MISSING)?;
            let mut counter = match staged.counters.remove(subject) {
                Some(counter) => counter,
                None => self.counter(subject, world, changes)?,
            };
            arrival.message = counter.count(message, increment, &headers)?;
            arrival.counted = Some(counter.value());
            check_payload_max(&arrival.message, world)?;
            self.check_size(&arrival.message)?;
            staged.counters.insert(subject, counter);
        }
        if let Some(expected) = headers.expected_last_sequence {
            let last = self.index.last_seq() + staged.messages;
            if expected != last {
                return Err(ApiError::STREAM_WRONG_LAST_SEQUENCE.with(last));
            }
            // Only a batch's first message may expect one.
            if staged.messages > 0 {
                return Err(ApiError::STREAM_WRONG_LAST_SEQUENCE_CONSTANT);
            }
        }
        if let Some(expected) = headers.expected_last_subject_sequence {
            let asked = headers.expected_last_subject_sequence_subject.unwrap_or(subject);
            if staged.written.contains_key(asked) {
                return Err(ApiError::STREAM_WRONG_LAST_SEQUENCE_CONSTANT);
            }
            let last = *staged.expected.entry(asked).or_insert_with(|| self.last_for_expected(asked));
            if last != expected {
                return Err(ApiError::STREAM_WRONG_LAST_SEQUENCE.with(last));
            }
        } else if headers.expected_last_subject_sequence_subject.is_some() {
            return Err(ApiError::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID);
        }
        let is_schedule = self.check_schedule(message, &headers)?;
        if is_schedule {
            Stream::make_schedule(&mut arrival);
        }
        self.check_schedule_end(subject, &headers, |wanted| match staged.written.get(wanted) {
            Some(written) => Some(written.is_schedule),
            None => self.last_is_schedule(wanted, world, changes),
        })?;
        arrival.rollup = self.check_rollup(&arrival.headers, Origin::Client)?;
        let invalid = match arrival.rollup {
            Some(Rollup::Subject) if staged.written.contains_key(subject) => Some("batch rollup sub invalid"),
            Some(Rollup::All) if staged.messages > 0 => Some("batch rollup all invalid"),
            _ => None,
        };
        if let Some(why) = invalid {
            return Err(ApiError::STREAM_ROLLUP_FAILED_F.with(why));
        }
        let written = staged.written.entry(subject).or_default();
        written.messages += 1;
        written.is_schedule = is_schedule;
        let of_subject = written.messages;
        staged.messages += 1;
        staged.bytes += self.accounted_bytes(&arrival.message);
        self.refuse_staged(subject, of_subject, arrival.rollup.is_some(), staged)?;
        Ok(Checked::Passed(arrival))
    }

    /// Discard-new, for a message that nothing is staged with.
    pub(super) fn refuse_one(&self, message: &Message) -> Result<(), ApiError> {
        let staged = Staged { messages: 1, bytes: self.accounted_bytes(message), ..Staged::default() };
        self.refuse_staged(message.subject(), 1, false, &staged)
    }

    /// Discard-new, with what is staged counted in.
    fn refuse_staged(
        &self,
        subject: &[u8],
        of_subject: u64,
        is_rollup: bool,
        staged: &Staged<'_>,
    ) -> Result<(), ApiError> {
        if self.config.discard != Discard::New {
            return Ok(());
        }
        let refused = |why: &str| Err(ApiError::STREAM_STORE_FAILED_F.with(why));
        if self.index.len() + staged.messages > limit(self.config.max_msgs) {
            return refused("maximum messages exceeded");
        }
        if self.index.bytes() + staged.bytes > limit(self.config.max_bytes) {
            return refused("maximum bytes exceeded");
        }
        let of_subject = self.index.count_for(subject) + of_subject;
        let most = limit(self.config.max_msgs_per_subject);
        if self.config.discard_new_per_subject && !is_rollup && of_subject > most {
            return refused("maximum messages per subject exceeded");
        }
        Ok(())
    }
}

/// What became of a message's checks.
#[allow(clippy::large_enum_variant)] // passed on at once, never kept
pub(super) enum Checked<'a> {
    Passed(Arrival<'a>),
    /// Its `Nats-Msg-Id` was stored within the window.
    Duplicate {
        seq: u64,
    },
}

/// A batch that an end-of-batch marker committed shows the commit on its last message.
fn with_commit_header(message: &Message) -> Message {
    let block = header::with_line(message.headers(), headers::BATCH_COMMIT, "1");
    Message::new(message.subject(), &block, message.payload())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stream::{StreamConfig, StreamId};
    use crate::types::header::HeaderBuilder;

    fn stream() -> Stream {
        let config = StreamConfig {
            name: "B".into(),
            subjects: vec!["b.>".into()],
            allow_atomic: true,
            allow_rollup_hdrs: true,
            max_msgs_per_subject: 2,
            max_msgs: 6,
            discard: Discard::New,
            ..StreamConfig::default()
        };
        Stream::new(StreamId(1), Arc::new(config.check_create(false).unwrap()), Timestamp(1))
    }

    /// Publishes `subject` with "Name: value" headers, and shows the answer in a word.
    fn publish(
        stream: &mut Stream,
        now: i64,
        subject: &str,
        headers: &[(&str, &str)],
        changes: &mut Changes,
    ) -> String {
        let block = headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build();
        let message = Message::new(subject.as_bytes(), &block, b"");
        match stream.handle_publish(&message, &World::new(&|_| true), Timestamp(now), changes) {
            Ok(Published::Staged) => "staged".into(),
            Ok(Published::BatchCommitted { count, seq, .. }) => format!("committed {count} to {seq}"),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// Each answer as nats-server 2.15 gave it to the same messages.
    #[test]
    fn answers() {
        const ID: &str = headers::BATCH_ID;
        const SEQ: &str = headers::BATCH_SEQUENCE;
        const COMMIT: &str = headers::BATCH_COMMIT;
        let mut stream = stream();
        let mut changes = Changes::new();
        let incomplete = "atomic publish batch is incomplete (10176)";
        let long = "q".repeat(65);
        /// Subject, headers, answer.
        type Step<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let steps: &[Step<'_>] = &[
            ("b.a", &[(ID, "x"), (SEQ, "1")], "staged"),
            ("b.b", &[(ID, "x"), (SEQ, "2"), (COMMIT, "1")], "committed 2 to 2"),
            ("b.a", &[(ID, "x"), (SEQ, "2")], incomplete),
            ("b.a", &[(ID, "y"), (SEQ, "1")], "staged"),
            ("b.a", &[(ID, "y"), (SEQ, "3")], incomplete),
            ("b.a", &[(ID, "y"), (SEQ, "1")], "staged"),
            ("b.a", &[(ID, "y"), (SEQ, "2"), (COMMIT, "z")], "atomic publish batch commit is invalid (10200)"),
            ("b.a", &[(ID, "y"), (SEQ, "2")], incomplete),
            ("b.c", &[(ID, "z"), (SEQ, "1"), (COMMIT, "eob")], incomplete),
            ("b.c", &[(ID, "z"), (SEQ, "1")], "staged"),
            ("b.c", &[(ID, "z"), (SEQ, "2"), (COMMIT, "eob")], "committed 1 to 3"),
            ("b.c", &[(ID, &long), (SEQ, "1")], "atomic publish batch ID is invalid (10179)"),
            ("b.c", &[(ID, "q")], "atomic publish sequence is missing (10175)"),
            ("b.c", &[(ID, "q"), (SEQ, "x")], "atomic publish sequence is missing (10175)"),
            ("b.c", &[(ID, "q"), (SEQ, "1002")], "atomic publish batch is too large: 1000 (10199)"),
            ("b.c", &[(ID, "q"), (SEQ, "1002"), (COMMIT, "eob")], "atomic publish batch is too large: 1000 (10199)"),
            ("b.c", &[(ID, "q"), (SEQ, "1001"), (COMMIT, "eob")], incomplete),
            (
                "b.c",
                &[(ID, "q"), (SEQ, "1"), (headers::REQUIRED_API_LEVEL, "99")],
                "JetStream minimum api level required (10185)",
            ),
            ("b.d", &[(ID, "r"), (SEQ, "1"), (headers::EXPECTED_LAST_SEQUENCE, "3")], "staged"),
            (
                "b.e",
                &[(ID, "r"), (SEQ, "2"), (COMMIT, "1"), (headers::EXPECTED_LAST_SEQUENCE, "4")],
                "wrong last sequence (10164)",
            ),
            ("b.d", &[(ID, "r"), (SEQ, "1"), (headers::EXPECTED_LAST_MSG_ID, "q")], "staged"),
            (
                "b.e",
                &[(ID, "r"), (SEQ, "2"), (COMMIT, "1")],
                "atomic publish unsupported header used: Nats-Expected-Last-Msg-Id (10177)",
            ),
            ("b.d", &[(ID, "r"), (SEQ, "1"), (headers::MSG_ID, "q")], "staged"),
            (
                "b.e",
                &[(ID, "r"), (SEQ, "2"), (COMMIT, "1"), (headers::MSG_ID, "q")],
                "atomic publish batch contains duplicate message id (10201)",
            ),
            ("b.f", &[(ID, "r"), (SEQ, "1"), (headers::TTL, "xx")], "staged"),
            ("b.g", &[(ID, "r"), (SEQ, "2"), (COMMIT, "1")], "per-message TTL is disabled (10166)"),
            ("b.a", &[(ID, "r"), (SEQ, "1")], "staged"),
            ("b.a", &[(ID, "r"), (SEQ, "2")], "staged"),
            ("b.a", &[(ID, "r"), (SEQ, "3"), (COMMIT, "1")], "committed 3 to 6"),
        ];
        for (subject, headers, expected) in steps {
            assert_eq!(publish(&mut stream, 1, subject, headers, &mut changes), *expected, "{headers:?}");
        }
        assert_eq!((stream.index().first_seq(), stream.index().len()), (2, 4));
        assert_eq!(stream.open_batches(), 0);
    }

    #[test]
    fn a_batch_is_given_up_when_it_stalls_and_not_before() {
        let mut stream = stream();
        let mut changes = Changes::new();
        let second = 1_000_000_000;
        for (seq, at) in [("1", 0), ("2", 9 * second)] {
            let headers = [(headers::BATCH_ID, "x"), (headers::BATCH_SEQUENCE, seq)];
            assert_eq!(publish(&mut stream, at, "b.a", &headers, &mut changes), "staged");
        }
        assert_eq!(stream.next_deadline(), Some(Timestamp(19 * second)));
        stream.handle_expiry(Timestamp(19 * second - 1), &World::new(&|_| true), &mut changes);
        assert_eq!((stream.open_batches(), changes.is_empty()), (1, true));
        stream.handle_expiry(Timestamp(19 * second), &World::new(&|_| true), &mut changes);
        assert_eq!(stream.open_batches(), 0);
        let reason = AbandonReason::Timeout;
        assert_eq!(changes.abandoned_batches, [AbandonedBatch { batch_id: "x".into(), reason }]);
        assert!(changes.puts.is_empty());
    }

    #[test]
    fn no_more_batches_than_the_limit_are_open() {
        let mut stream = stream();
        let mut changes = Changes::new();
        let open_max = super::super::BatchTerms::default().atomic_open_max;
        for number in 0..=open_max {
            let id = number.to_string();
            let headers = [(headers::BATCH_ID, id.as_str()), (headers::BATCH_SEQUENCE, "1")];
            let expected = if number < open_max { "staged" } else { "atomic publish too many inflight (10210)" };
            assert_eq!(publish(&mut stream, 1, "b.a", &headers, &mut changes), expected);
        }
    }
}
