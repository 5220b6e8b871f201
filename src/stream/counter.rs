//! Counters (ADR-49): a message that says `Nats-Incr` is stored with its subject's new total as its payload.
//!
//! A total is an integer of any size. Beside its own increments a subject keeps the last total it got from each subject
//! of each source (`Nats-Counter-Sources`), so that a source's total counts once however often it is told.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use serde::Deserialize;

use super::headers::{self, PublishHeaders};
use super::machine::Stream;
use super::world::World;
use super::{Changes, StoredMessage};
use crate::types::{ApiError, Headers, Message, header};

/// Totals by the name of the stream they come from and their subject there.
type Sources = BTreeMap<String, BTreeMap<String, String>>;

/// What a counter's last message says.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter {
    total: BigInt,
    sources: Sources,
}

/// A counter's payload.
#[derive(Deserialize)]
struct Value {
    #[serde(default)]
    val: Option<String>,
}

fn integer(text: &[u8]) -> Option<BigInt> {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| BigInt::parse_bytes(text, 10).expect("a sign and digits are a number"))
}

fn total(payload: &[u8]) -> Result<BigInt, ApiError> {
    let value: Value = serde_json::from_slice(payload).map_err(|_| ApiError::MESSAGE_COUNTER_BROKEN)?;
    Ok(value.val.and_then(|text| integer(text.as_bytes())).unwrap_or_default())
}

/// What a message wants to add.
///
/// # Errors
/// When it is no integer.
pub(super) fn increment(headers: &PublishHeaders) -> Result<Option<BigInt>, ApiError> {
    match headers.increment {
        None => Ok(None),
        Some(text) => integer(text).map(Some).ok_or(ApiError::MESSAGE_INCR_INVALID),
    }
}

/// Whether a client may publish this as an increment.
///
/// # Errors
/// On streams that do not count, with a payload, and with headers that make no sense beside it.
pub(super) fn check_client(allowed: bool, message: &Message, headers: &PublishHeaders) -> Result<(), ApiError> {
    if !allowed {
        return Err(ApiError::MESSAGE_INCR_DISABLED);
    }
    if !message.payload().is_empty() {
        return Err(ApiError::MESSAGE_INCR_PAYLOAD);
    }
    let at_odds = headers.rollup.is_some()
        || headers.expected_stream.is_some()
        || headers.expected_last_msg_id.is_some()
        || headers.expected_last_sequence.is_some()
        || headers.expected_last_subject_sequence.is_some()
        || headers.expected_last_subject_sequence_subject.is_some();
    if at_odds { Err(ApiError::MESSAGE_INCR_INVALID) } else { Ok(()) }
}

impl Counter {
    fn read(stored: &StoredMessage) -> Result<Counter, ApiError> {
        let sources = match Headers::new(stored.message.headers()).get(headers::COUNTER_SOURCES) {
            None | Some(b"") => Sources::new(),
            Some(json) => serde_json::from_slice(json).map_err(|_| ApiError::MESSAGE_COUNTER_BROKEN)?,
        };
        Ok(Counter { total: total(stored.message.payload())?, sources })
    }

    /// Adds what `message` says, and returns the message to store instead of it. A message out of a source carries a
    /// total: what counts then is its difference to the total that source told before.
    ///
    /// # Errors
    /// When a source's payload is no total.
    pub(super) fn count(
        &mut self,
        message: &Message,
        increment: BigInt,
        headers: &PublishHeaders,
    ) -> Result<Message, ApiError> {
        let mut block = message.headers().to_vec();
        let mut increment = increment;
        if let Some(origin) = headers.stream_source {
            let origin = String::from_utf8_lossy(origin);
            let mut fields = origin.split(' ');
            let stream = fields.next().unwrap_or_default().to_owned();
            let subject = fields.nth(3).map_or_else(|| message.subject_text().into_owned(), str::to_owned);
            let told = total(message.payload())?;
            let before = self.sources.entry(stream).or_default().entry(subject).or_default();
            increment = &told - integer(before.as_bytes()).unwrap_or_default();
            *before = told.to_string();
            block = header::with_value(&block, headers::INCREMENT, &increment.to_string());
        }
        self.total += increment;
        if !self.sources.is_empty() {
            let json = serde_json::to_string(&self.sources).expect("strings are always JSON");
            block = header::with_value(&block, headers::COUNTER_SOURCES, &json);
        }
        Ok(Message::new(message.subject(), &block, format!("{{\"val\":\"{}\"}}", self.total).as_bytes()))
    }

    /// The total, in decimal.
    pub(super) fn value(&self) -> String {
        self.total.to_string()
    }
}

impl Stream {
    /// A subject's counter as its last message left it.
    ///
    /// # Errors
    /// When that message is no counter's.
    pub(super) fn counter(&self, subject: &[u8], world: &World, changes: &Changes) -> Result<Counter, ApiError> {
        match self.index.last_for(subject).and_then(|seq| world.load(seq, changes)) {
            Some(stored) => Counter::read(&stored),
            None => Ok(Counter::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stream::{Published, StreamConfig};
    use crate::types::header::HeaderBuilder;
    use crate::types::{StreamId, Timestamp};

    fn stream() -> Stream {
        let config = StreamConfig {
            name: "C".into(),
            subjects: vec!["c.>".into()],
            allow_msg_counter: true,
            ..StreamConfig::default()
        };
        Stream::new(StreamId(1), Arc::new(config.check_create(false).unwrap()), Timestamp(1))
    }

    fn message(headers: &[(&str, &str)], payload: &str) -> Message {
        let block = headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build();
        Message::new(b"c.a", if headers.is_empty() { b"" } else { &block }, payload.as_bytes())
    }

    fn show(published: Result<Published, ApiError>) -> String {
        match published {
            Ok(Published::Counted { seq, value }) => format!("{seq}: {value}"),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// Each answer as nats-server 2.15 gave it.
    #[test]
    fn answers() {
        let mut stream = stream();
        let mut changes = Changes::new();
        let world = World::new(&|_| true);
        type Step<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
        let steps: &[Step] = &[
            (&[], "", "message counter increment is missing (10169)"),
            (&[("Nats-Incr", "1")], "", "1: 1"),
            (&[("Nats-Incr", "1")], "x", "message counter has payload (10170)"),
            (&[("Nats-Incr", "+5")], "", "2: 6"),
            (&[("Nats-Incr", "-99999999999999999999999999")], "", "3: -99999999999999999999999993"),
            (&[("Nats-Incr", "x")], "", "message counter increment is invalid (10171)"),
            (&[("Nats-Incr", "")], "", "message counter increment is missing (10169)"),
            (&[("Nats-Incr", "1_0")], "", "message counter increment is invalid (10171)"),
            (&[("Nats-Incr", "1"), ("Nats-Rollup", "sub")], "", "message counter increment is invalid (10171)"),
            (
                &[("Nats-Incr", "1"), ("Nats-Expected-Last-Sequence", "0")],
                "",
                "message counter increment is invalid (10171)",
            ),
        ];
        for (headers, payload, expected) in steps {
            let published = stream.handle_publish(&message(headers, payload), &world, Timestamp(2), &mut changes);
            assert_eq!(show(published), *expected, "{headers:?}");
        }
        let last = &changes.puts[2].message;
        assert_eq!(last.payload(), br#"{"val":"-99999999999999999999999993"}"#);
        assert_eq!(last.headers(), b"NATS/1.0\r\nNats-Incr: -99999999999999999999999999\r\n\r\n");
    }

    #[test]
    fn the_total_is_read_back_from_where_it_is_stored() {
        let mut stream = stream();
        let stored = StoredMessage { seq: 7, time: Timestamp(5), message: message(&[], r#"{"val":"40"}"#) };
        stream.restore(7, stored.time, b"c.a", b"", 60);
        let read = |seq| (seq == 7).then(|| stored.clone());
        let world = World { read: &read, ..World::new(&|_| true) };
        let mut changes = Changes::new();
        let one = message(&[("Nats-Incr", "2")], "");
        assert_eq!(show(stream.handle_publish(&one, &world, Timestamp(9), &mut changes)), "8: 42");
        assert_eq!(show(stream.handle_publish(&one, &world, Timestamp(9), &mut changes)), "9: 44");
        let broken = |_| Some(StoredMessage { message: message(&[], "gone"), ..stored.clone() });
        let world = World { read: &broken, ..World::new(&|_| true) };
        let answer = stream.handle_publish(&one, &world, Timestamp(9), &mut Changes::new());
        assert_eq!(show(answer), "message counter is broken (10172)");
    }

    #[test]
    fn a_source_tells_totals_and_counts_by_their_differences() {
        let mut stream = stream();
        let mut changes = Changes::new();
        let world = World::new(&|_| true);
        let mut tell = |origin: &str, total: &str| {
            let headers = [("Nats-Incr", "1"), ("Nats-Stream-Source", origin)];
            let message = message(&headers, &format!("{{\"val\":\"{total}\"}}"));
            show(stream.handle_internal(&message, &world, Timestamp(2), &mut changes))
        };
        assert_eq!(tell("A 1 > > c.a", "5"), "1: 5");
        assert_eq!(tell("A 2 > > c.a", "7"), "2: 7");
        assert_eq!(tell("B 1 > > other", "10"), "3: 17");
        assert_eq!(tell("A 9 > > c.a", "6"), "4: 16");
        let last = Headers::new(changes.puts[3].message.headers());
        assert_eq!(last.get("Nats-Incr"), Some(&b"-1"[..]));
        assert_eq!(last.get("Nats-Counter-Sources"), Some(&br#"{"A":{"c.a":"6"},"B":{"other":"10"}}"#[..]));
        let one = message(&[("Nats-Incr", "1")], "");
        assert_eq!(show(stream.handle_publish(&one, &world, Timestamp(9), &mut changes)), "5: 17");
    }
}
