//! Fast-ingest batches (ADR-50): a stream of publishes that is acknowledged every so many messages and told how many
//! (nats-server `processJetStreamFastBatchMsg`).
//!
//! Everything about a batch's message is in its reply subject:
//! `<prefix>.<batch id>.<flow>.<gap mode>.<batch sequence>.<operation>.$FI`. Each message is stored as it comes; a batch
//! that stalls is forgotten and what was stored stays.

use std::collections::BTreeMap;

use super::Changes;
use super::batch::{API_LEVEL, Checked, ID_MAX, Staged};
use super::headers::{self, PublishHeaders};
use super::machine::Stream;
use super::publish::Arrival;
use super::world::World;
use crate::types::{ApiError, Message, Timestamp, header};

/// How the reply subject of a fast batch's message ends.
pub const SUFFIX: &[u8] = b".$FI";
/// All of a stream's batches together get an ack this often, in messages.
const FLOW_MAX: u16 = 500;
/// For a client that does not say how often it wants one.
const FLOW_DEFAULT: u16 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Start,
    Append,
    Commit,
    /// Commits what came before; the message itself is none.
    CommitEnd,
    /// Asks for the last ack again.
    Ping,
}

/// What a reply subject says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address<'a> {
    id: &'a [u8],
    /// The most messages between two acks.
    flow: u16,
    /// Whether lost messages are no reason to end the batch.
    gap_ok: bool,
    seq: u64,
    operation: Operation,
}

impl<'a> Address<'a> {
    fn parse(reply: &'a [u8]) -> Option<Address<'a>> {
        let mut tokens = reply.strip_suffix(SUFFIX)?.rsplit(|&byte| byte == b'.');
        let number = |token: &[u8]| -> Option<u64> {
            let digits = !token.is_empty() && token.iter().all(u8::is_ascii_digit);
            std::str::from_utf8(token).ok().filter(|_| digits)?.parse().ok()
        };
        let operation = match number(tokens.next()?)? {
            0 => Operation::Start,
            1 => Operation::Append,
            2 => Operation::Commit,
            3 => Operation::CommitEnd,
            4 => Operation::Ping,
            _ => return None,
        };
        let seq = number(tokens.next()?).filter(|seq| !matches!(seq, 0 | &u64::MAX))?;
        let in_order = match operation {
            Operation::Start => seq == 1,
            Operation::Append | Operation::CommitEnd => seq > 1,
            Operation::Commit | Operation::Ping => true,
        };
        let gap_ok = match tokens.next()? {
            b"ok" => true,
            b"fail" => false,
            _ => return None,
        };
        let flow = match number(tokens.next()?) {
            None | Some(0) => FLOW_DEFAULT,
            Some(flow) => u16::try_from(flow).unwrap_or(u16::MAX),
        };
        // Something must stand before the id, for the reply to reach its client.
        let id = tokens.next()?;
        (in_order && tokens.next().is_some()).then_some(Address { id, flow, gap_ok, seq, operation })
    }
}

/// What a message of a fast batch is answered, on its reply subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FastAnswer {
    /// Messages up to `seq` are stored; the next such answer comes after `messages` more.
    Flow {
        seq: u64,
        messages: u16,
    },
    /// Messages from `expected` up to `found`, which is not included, were lost.
    Gap {
        expected: u64,
        found: u64,
    },
    /// The batch's message `seq` was refused.
    Failed {
        seq: u64,
        error: ApiError,
    },
    /// The batch's end: `count` messages, the last of them stored as `seq`.
    Ack {
        batch_id: String,
        count: u64,
        seq: u64,
    },
    /// The first message of a batch was stored before, as `seq`.
    Duplicate {
        batch_id: String,
        count: u64,
        seq: u64,
    },
    Refused(ApiError),
}

/// A stream's open fast batches.
#[derive(Debug, Default)]
pub struct FastBatches {
    open: BTreeMap<Box<[u8]>, FastBatch>,
    /// No batch is forgotten before this.
    deadline_min: Option<Timestamp>,
}

#[derive(Debug)]
struct FastBatch {
    /// The last sequence seen, of the batch and of the stream.
    last: u64,
    stream_seq: u64,
    /// The batch sequence of the last flow answer.
    told: u64,
    flow: u16,
    flow_max: u16,
    gap_ok: bool,
    deadline: Timestamp,
}

impl FastBatches {
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Forgets what is past its deadline.
    pub fn expire(&mut self, now: Timestamp) {
        if self.deadline_min.is_some_and(|deadline| deadline <= now) {
            self.open.retain(|_, batch| batch.deadline > now);
            self.deadline_min = self.open.values().map(|batch| batch.deadline).min();
        }
    }

    /// When there may be something to forget.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadline_min
    }

    fn start(&mut self, address: &Address<'_>, deadline: Timestamp) {
        let flow = if self.open.is_empty() { address.flow.min(FLOW_MAX) } else { 1 };
        let batch = FastBatch {
            last: 0,
            stream_seq: 0,
            told: 0,
            flow,
            flow_max: address.flow,
            gap_ok: address.gap_ok,
            deadline,
        };
        self.deadline_min.get_or_insert(batch.deadline);
        self.open.insert(address.id.into(), batch);
    }

    /// Ends a batch: what it stored stands.
    fn commit(&mut self, id: &[u8]) -> Option<FastAnswer> {
        let batch = self.open.remove(id)?;
        Some(FastAnswer::Ack { batch_id: text(id), count: batch.last, seq: batch.stream_seq })
    }

    /// Tells the publisher how far it has come, if enough has come since it was told last. The fewer batches there
    /// are, the less often.
    fn tell(&mut self, id: &[u8]) -> Option<FastAnswer> {
        let share = (FLOW_MAX / u16::try_from(self.open.len()).unwrap_or(u16::MAX)).max(1);
        let batch = self.open.get_mut(id)?;
        let every = u64::from(batch.flow);
        if batch.last < batch.told + every {
            return None;
        }
        batch.told += (batch.last - batch.told) / every * every;
        let most = share.min(batch.flow_max);
        batch.flow = match batch.flow {
            flow if flow < most => flow.saturating_mul(2).min(most),
            flow => (flow / 2).max(most),
        };
        Some(FastAnswer::Flow { seq: batch.told, messages: batch.flow })
    }
}

fn text(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}

impl Stream {
    /// Open fast-ingest batches.
    pub fn open_fast_batches(&self) -> usize {
        self.fast.open()
    }

    /// A message whose reply subject ends in [`SUFFIX`]. The answers go to that subject, in this order.
    pub fn handle_fast(
        &mut self,
        message: &Message,
        reply: &[u8],
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Vec<FastAnswer> {
        let renamed = self.subjects.take(message);
        let message = renamed.as_ref().unwrap_or(message);
        let mut answers = Vec::new();
        if let Err(error) = self.take_fast(message, reply, world, now, changes, &mut answers) {
            answers.push(FastAnswer::Refused(error));
        }
        answers
    }

    fn take_fast(
        &mut self,
        message: &Message,
        reply: &[u8],
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
        answers: &mut Vec<FastAnswer>,
    ) -> Result<(), ApiError> {
        if self.config.sealed {
            return Err(ApiError::STREAM_SEALED);
        }
        self.check_size(message)?;
        if !self.config.allow_batched {
            return Err(ApiError::BATCH_PUBLISH_DISABLED);
        }
        let address = Address::parse(reply).ok_or(ApiError::BATCH_PUBLISH_INVALID_PATTERN)?;
        let Address { id, seq, operation, .. } = address;
        if id.len() > ID_MAX {
            return Err(ApiError::BATCH_PUBLISH_INVALID_BATCH_ID);
        }
        self.fast.expire(now);
        if !self.fast.open.contains_key(id) {
            if seq != 1 {
                return Err(ApiError::BATCH_PUBLISH_UNKNOWN_BATCH_ID);
            }
            if self.fast.open() >= world.batches.fast_open_max {
                return Err(ApiError::BATCH_PUBLISH_TOO_MANY_INFLIGHT);
            }
            self.fast.start(&address, now + world.batches.timeout);
        }
        let parsed = PublishHeaders::parse(message.headers());
        let stripped;
        let (message, parsed) = match parsed.required_api_level {
            None => (message, parsed),
            Some(level) => {
                let level = std::str::from_utf8(level).ok().and_then(|level| level.parse::<u32>().ok());
                if level.is_none_or(|level| level > API_LEVEL) {
                    self.fast.open.remove(id);
                    return Err(ApiError::REQUIRED_API_LEVEL);
                }
                let name = headers::REQUIRED_API_LEVEL.as_bytes();
                let block = header::without(message.headers(), |line| line == name).unwrap_or_default();
                stripped = Message::new(message.subject(), &block, message.payload());
                (&stripped, PublishHeaders::parse(stripped.headers()))
            }
        };
        let batch = self.fast.open.get_mut(id).expect("it is open or was opened above");
        batch.deadline = now + world.batches.timeout;
        if operation == Operation::Ping {
            self.ping(id, seq, answers);
            return Ok(());
        }
        let expected = batch.last + 1;
        if seq > expected {
            answers.push(FastAnswer::Gap { expected, found: seq });
        }
        if seq != expected && (seq < expected || !batch.gap_ok) {
            answers.extend(self.fast.commit(id));
            return Ok(());
        }
        if operation == Operation::CommitEnd {
            batch.last = seq - 1;
            answers.extend(self.fast.commit(id));
            return Ok(());
        }
        batch.last = seq;
        let commits = operation == Operation::Commit;
        if seq == 1 && !commits && !self.config.no_ack {
            answers.push(FastAnswer::Flow { seq: 0, messages: batch.flow });
        }
        let (last, gap_ok) = (batch.last, batch.gap_ok);
        match self.check_fast(message, parsed, world, now, changes) {
            Ok(Checked::Passed(arrival)) => {
                let stream_seq = self.store_checked(arrival, world, now, changes)?;
                if let Some(batch) = self.fast.open.get_mut(id) {
                    batch.stream_seq = stream_seq;
                }
                answers.extend(if commits { self.fast.commit(id) } else { self.fast.tell(id) });
            }
            Ok(Checked::Duplicate { seq: stored }) => {
                answers.extend(self.fast.tell(id));
                if commits && !gap_ok && last == 1 {
                    self.fast.open.remove(id);
                    answers.push(FastAnswer::Duplicate { batch_id: text(id), count: seq, seq: stored });
                } else if commits {
                    answers.extend(self.fast.commit(id));
                }
            }
            // A batch that fails at once is answered as any publish.
            Err(error) if !gap_ok && last == 1 => {
                self.fast.open.remove(id);
                return Err(error);
            }
            Err(error) => {
                answers.push(FastAnswer::Failed { seq, error });
                if !gap_ok || commits {
                    if let Some(batch) = self.fast.open.get_mut(id) {
                        batch.last -= 1;
                    }
                    answers.extend(self.fast.commit(id));
                }
            }
        }
        Ok(())
    }

    fn ping(&mut self, id: &[u8], seq: u64, answers: &mut Vec<FastAnswer>) {
        let Some(batch) = self.fast.open.get_mut(id) else { return };
        if seq > batch.last {
            answers.push(FastAnswer::Gap { expected: batch.last + 1, found: seq + 1 });
            if !batch.gap_ok {
                answers.extend(self.fast.commit(id));
                return;
            }
            batch.last = seq;
            if let Some(answer) = self.fast.tell(id) {
                answers.push(answer);
                return;
            }
        }
        if let Some(batch) = self.fast.open.get(id) {
            answers.push(FastAnswer::Flow { seq: batch.told, messages: batch.flow });
        }
    }

    /// As [`Stream::check_staged`] with nothing staged, and short for messages without headers.
    fn check_fast<'a>(
        &self,
        message: &'a Message,
        headers: PublishHeaders<'a>,
        world: &World,
        now: Timestamp,
        changes: &Changes,
    ) -> Result<Checked<'a>, ApiError> {
        if !message.headers().is_empty() || self.config.allow_msg_counter {
            return self.check_staged(message, headers, &mut Staged::default(), world, now, changes);
        }
        self.refuse_one(message)?;
        Ok(Checked::Passed(Arrival::new(message.clone(), headers)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stream::config::Discard;
    use crate::stream::{StreamConfig, StreamId};
    use crate::types::header::HeaderBuilder;

    fn stream(config: StreamConfig) -> Stream {
        let config = StreamConfig { name: "F".into(), subjects: vec!["f.>".into()], allow_batched: true, ..config };
        Stream::new(StreamId(1), Arc::new(config.check_create(false).unwrap()), Timestamp(1))
    }

    fn send(stream: &mut Stream, reply: &str, headers: &[(&str, &str)]) -> String {
        send_at(stream, reply, headers, 1)
    }

    /// Publishes with a reply subject and shows the answers.
    fn send_at(stream: &mut Stream, reply: &str, headers: &[(&str, &str)], now: i64) -> String {
        let block = headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build();
        let message = Message::new(b"f.a", if headers.is_empty() { b"" } else { &block }, b"x");
        let reply = format!("_INBOX.{reply}.$FI");
        let world = World::new(&|_| true);
        let answers = stream.handle_fast(&message, reply.as_bytes(), &world, Timestamp(now), &mut Changes::new());
        let shown: Vec<String> = answers
            .into_iter()
            .map(|answer| match answer {
                FastAnswer::Flow { seq, messages } => format!("flow {seq} every {messages}"),
                FastAnswer::Gap { expected, found } => format!("gap {expected}..{found}"),
                FastAnswer::Failed { seq, error } => format!("failed {seq}: {}", error.err_code),
                FastAnswer::Ack { batch_id, count, seq } => format!("ack {batch_id}: {count} to {seq}"),
                FastAnswer::Duplicate { batch_id, count, seq } => format!("duplicate {batch_id}: {count} is {seq}"),
                FastAnswer::Refused(error) => format!("refused {}", error.err_code),
            })
            .collect();
        shown.join(", ")
    }

    #[test]
    fn acks_come_at_intervals_and_at_the_end() {
        let mut stream = stream(StreamConfig::default());
        assert_eq!(send(&mut stream, "x.2.fail.1.0", &[]), "flow 0 every 2");
        assert_eq!(send(&mut stream, "x.2.fail.2.1", &[]), "flow 2 every 2");
        assert_eq!(send(&mut stream, "x.2.fail.3.1", &[]), "");
        assert_eq!(send(&mut stream, "x.2.fail.3.4", &[]), "flow 2 every 2");
        assert_eq!(send(&mut stream, "x.2.fail.4.1", &[]), "flow 4 every 2");
        assert_eq!(send(&mut stream, "x.2.fail.5.2", &[]), "ack x: 5 to 5");
        assert_eq!(send(&mut stream, "x.2.fail.6.1", &[]), "refused 10208");
        assert_eq!(send(&mut stream, "y.2.fail.1.2", &[]), "ack y: 1 to 6");
        assert_eq!(send(&mut stream, "z.0.fail.1.0", &[]), "flow 0 every 10");
        assert_eq!(send(&mut stream, "z.0.fail.2.3", &[]), "ack z: 1 to 7");
        assert_eq!((stream.index().len(), stream.fast.open()), (7, 0));
    }

    #[test]
    fn gaps_end_a_batch_or_are_told() {
        let mut stream = stream(StreamConfig::default());
        send(&mut stream, "x.9.fail.1.0", &[]);
        assert_eq!(send(&mut stream, "x.9.fail.3.1", &[]), "gap 2..3, ack x: 1 to 1");
        send(&mut stream, "y.9.ok.1.0", &[]);
        assert_eq!(send(&mut stream, "y.9.ok.4.1", &[]), "gap 2..4");
        assert_eq!(send(&mut stream, "y.9.ok.6.4", &[]), "gap 5..7, flow 0 every 9");
        assert_eq!(send(&mut stream, "y.9.ok.7.2", &[]), "ack y: 7 to 4");
        send(&mut stream, "z.9.ok.1.0", &[]);
        send(&mut stream, "z.9.ok.2.1", &[]);
        assert_eq!(send(&mut stream, "z.9.ok.2.1", &[]), "ack z: 2 to 6");
        send(&mut stream, "p.9.fail.1.0", &[]);
        assert_eq!(send(&mut stream, "p.9.fail.3.4", &[]), "gap 2..4, ack p: 1 to 7");
    }

    #[test]
    fn refusals_end_a_batch_unless_gaps_are_fine() {
        let config = StreamConfig { max_msgs: 3, discard: Discard::New, ..StreamConfig::default() };
        let mut stream = stream(config);
        let wrong = [("Nats-Expected-Last-Sequence", "9")];
        assert_eq!(send(&mut stream, "a.9.fail.1.0", &wrong), "flow 0 every 9, refused 10071");
        assert_eq!(send(&mut stream, "b.9.fail.1.0", &[("Nats-Msg-Id", "q")]), "flow 0 every 9");
        assert_eq!(send(&mut stream, "b.9.fail.2.1", &wrong), "failed 2: 10071, ack b: 1 to 1");
        assert_eq!(send(&mut stream, "c.9.fail.1.2", &[("Nats-Msg-Id", "q")]), "duplicate c: 1 is 1");
        send(&mut stream, "d.1.ok.1.0", &[]);
        assert_eq!(send(&mut stream, "d.1.ok.2.1", &[("Nats-Msg-Id", "q")]), "flow 2 every 1");
        assert_eq!(send(&mut stream, "d.1.ok.3.1", &wrong), "failed 3: 10071");
        assert_eq!(send(&mut stream, "d.1.ok.4.1", &[]), "flow 4 every 1");
        assert_eq!(send(&mut stream, "d.1.ok.5.1", &[]), "failed 5: 10077");
        assert_eq!(send(&mut stream, "d.1.ok.6.2", &[]), "failed 6: 10077, ack d: 5 to 3");
        let level = [("Nats-Required-Api-Level", "99")];
        assert_eq!(send(&mut stream, "e.9.fail.1.0", &level), "refused 10185");
        assert_eq!(stream.fast.open(), 0);
    }

    #[test]
    fn what_is_no_fast_batch() {
        let mut stream = stream(StreamConfig::default());
        for reply in
            ["x.9.fail.1.5", "x.9.fail.0.0", "x.9.fail.2.0", "x.9.fail.1.1", "x.9.fail.1.3", "x.9.some.1.0", "9.ok.1.0"]
        {
            assert_eq!(send(&mut stream, reply, &[]), "refused 10206", "{reply}");
        }
        assert_eq!(send(&mut stream, &format!("{}.9.ok.1.0", "i".repeat(65)), &[]), "refused 10207");
        let config = StreamConfig { allow_batched: false, ..(**stream.config()).clone() };
        let mut stream = Stream::new(StreamId(2), Arc::new(config), Timestamp(1));
        assert_eq!(send(&mut stream, "x.9.fail.1.0", &[]), "refused 10205");
    }

    #[test]
    fn many_share_the_flow_and_the_silent_are_forgotten() {
        let mut stream = stream(StreamConfig::default());
        assert_eq!(send(&mut stream, "a.1000.fail.1.0", &[]), "flow 0 every 500");
        assert_eq!(send(&mut stream, "b.1000.fail.1.0", &[]), "flow 0 every 1, flow 1 every 2");
        assert_eq!(send(&mut stream, "b.1000.fail.2.1", &[]), "");
        assert_eq!(send(&mut stream, "b.1000.fail.3.1", &[]), "flow 3 every 4");
        let late = 10_000_000_001;
        assert_eq!(stream.next_deadline(), Some(Timestamp(late)));
        assert_eq!(send_at(&mut stream, "b.1000.fail.4.1", &[], 9_000_000_000), "");
        stream.handle_expiry(Timestamp(late), &World::new(&|_| true), &mut Changes::new());
        assert_eq!(stream.fast.open(), 1);
        assert_eq!(stream.next_deadline(), Some(Timestamp(19_000_000_000)));
    }
}
