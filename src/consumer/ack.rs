//! Acks: the token a delivery carries as its reply subject, and what a client may answer on it.

use crate::types::{GoDuration, Timestamp, digits};

/// What an ack subject says, in stream and consumer sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub stream_seq: u64,
    pub consumer_seq: u64,
    /// How often the message had been delivered, this delivery included.
    pub delivery_count: u64,
}

/// Whose delivery an ack subject answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckAddress<'a> {
    pub stream: &'a [u8],
    pub consumer: &'a [u8],
}

/// What the client says about the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AckKind<'a> {
    /// `+ACK`, `+OK` or nothing at all.
    Ack,
    /// `-NAK`: deliver it again, at once or after `delay`.
    Nak { delay: Option<GoDuration> },
    /// `+WPI`: still working, the wait starts anew.
    Progress,
    /// `+NXT`: an ack, and a pull request in one.
    Next { pull: &'a [u8] },
    /// `+TERM`: never deliver it again.
    Term { reason: &'a str },
    /// None of these; nats-server ignores it but answers.
    Unknown,
}

impl<'a> AckKind<'a> {
    /// Reads the payload of an ack, without its headers.
    pub fn parse(payload: &'a [u8]) -> AckKind<'a> {
        match payload {
            b"" | b"+ACK" | b"+OK" => AckKind::Ack,
            b"+WPI" => AckKind::Progress,
            _ => {
                if let Some(pull) = payload.strip_prefix(b"+NXT") {
                    AckKind::Next { pull }
                } else if let Some(options) = payload.strip_prefix(b"-NAK") {
                    AckKind::Nak { delay: nak_delay(options.trim_ascii()) }
                } else if let Some(reason) = payload.strip_prefix(b"+TERM") {
                    AckKind::Term { reason: std::str::from_utf8(reason.trim_ascii()).unwrap_or("") }
                } else {
                    AckKind::Unknown
                }
            }
        }
    }
}

/// `{"delay": ns}` or Go's text form; anything else counts as no delay, as in nats-server.
fn nak_delay(options: &[u8]) -> Option<GoDuration> {
    #[derive(serde::Deserialize)]
    struct NakOptions {
        #[serde(default, deserialize_with = "super::config::lenient")]
        delay: GoDuration,
    }
    match options.first()? {
        b'{' => serde_json::from_slice::<NakOptions>(options).ok().map(|options| options.delay),
        _ => std::str::from_utf8(options).ok().and_then(GoDuration::parse),
    }
}

impl Ack {
    /// Reads `$JS.ACK.<stream>.<consumer>.<count>.<stream seq>.<consumer seq>.<time>.<pending>`, or the form with
    /// `<domain>.<account hash>` before the stream and any tokens at the end. `None` for any other subject.
    pub fn parse(subject: &[u8]) -> Option<(AckAddress<'_>, Ack)> {
        let rest = subject.strip_prefix(b"$JS.ACK.")?;
        let token_count = 3 + memchr::memchr_iter(b'.', rest).count();
        let mut tokens = rest.split(|&byte| byte == b'.');
        match token_count {
            9 => {}
            11.. => {
                tokens.next();
                tokens.next();
            }
            _ => return None,
        }
        let address = AckAddress { stream: tokens.next()?, consumer: tokens.next()? };
        let delivery_count = number(tokens.next()?)?;
        let stream_seq = number(tokens.next()?)?;
        let consumer_seq = number(tokens.next()?)?;
        Some((address, Ack { stream_seq, consumer_seq, delivery_count }))
    }
}

/// What the reply subject of a delivery tells its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryInfo<'a> {
    pub consumer: &'a [u8],
    pub ack: Ack,
    /// When the message was stored.
    pub time: Timestamp,
    /// Messages that are still to come.
    pub pending: u64,
}

impl<'a> DeliveryInfo<'a> {
    /// Reads a delivery's reply subject, in either of the forms of [`Ack::parse`].
    pub fn parse(reply: &'a [u8]) -> Option<DeliveryInfo<'a>> {
        let (address, ack) = Ack::parse(reply)?;
        let count = 1 + memchr::memchr_iter(b'.', reply).count();
        let mut rest = reply.split(|&byte| byte == b'.').skip(if count == 9 { 7 } else { 9 });
        let time = i64::try_from(number(rest.next()?)?).ok()?;
        Some(DeliveryInfo { consumer: address.consumer, ack, time: Timestamp(time), pending: number(rest.next()?)? })
    }
}

/// Digits only; an overflow is no number.
fn number(token: &[u8]) -> Option<u64> {
    if token.is_empty() || token.len() > 20 {
        return None;
    }
    token.iter().try_fold(0u64, |value, &byte| {
        byte.is_ascii_digit().then(|| value.checked_mul(10)?.checked_add(u64::from(byte - b'0')))?
    })
}

/// Appends the ack subject of one delivery. `prefix` is [`prefix`]'s result.
pub fn write_subject(out: &mut Vec<u8>, prefix: &[u8], ack: &Ack, time: Timestamp, pending: u64) {
    out.extend_from_slice(prefix);
    for (index, value) in
        [ack.delivery_count, ack.stream_seq, ack.consumer_seq, time.0.max(0) as u64, pending].into_iter().enumerate()
    {
        if index > 0 {
            out.push(b'.');
        }
        digits::push(out, value);
    }
}

/// The length of what [`write_subject`] appends.
pub fn subject_len(prefix: &[u8], ack: &Ack, time: Timestamp, pending: u64) -> usize {
    let values = [ack.delivery_count, ack.stream_seq, ack.consumer_seq, time.0.max(0) as u64, pending];
    prefix.len() + 4 + values.iter().map(|&value| value.checked_ilog10().unwrap_or(0) as usize + 1).sum::<usize>()
}

/// `$JS.ACK.<stream>.<consumer>.`, which all deliveries of a consumer share.
pub fn prefix(stream: &str, consumer: &str) -> String {
    format!("$JS.ACK.{stream}.{consumer}.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn subjects() {
        let check = |subject: &str, expected: Option<(&str, &str, [u64; 3])>| {
            let found = Ack::parse(subject.as_bytes());
            let expected = expected.map(|(stream, consumer, [delivery_count, stream_seq, consumer_seq])| {
                let address = AckAddress { stream: stream.as_bytes(), consumer: consumer.as_bytes() };
                (address, Ack { stream_seq, consumer_seq, delivery_count })
            });
            assert_eq!(found, expected, "{subject}");
        };
        check("$JS.ACK.S.C.1.22.3.1700000000000000000.5", Some(("S", "C", [1, 22, 3])));
        check("$JS.ACK._.hash.S.C.1.22.3.1700000000000000000.5", Some(("S", "C", [1, 22, 3])));
        check("$JS.ACK._.hash.S.C.1.22.3.1700000000000000000.5.extra", Some(("S", "C", [1, 22, 3])));
        check("$JS.ACK.S.C.1.2.3.4", None);
        check("$JS.ACK.x.S.C.1.2.3.4.5", None);
        check("$JS.ACK.S.C.-1.2.3.4.5", None);
        check("$JS.ACK.S.C.1.99999999999999999999999.3.4.5", None);
        check("$JS.ACK.S.C.1.18446744073709551616.3.4.5", None);
        check("$JS.ACK.S.C..2.3.4.5", None);
        check("$JS.FC.S.C.1.2.3.4.5", None);
    }

    #[test]
    fn deliveries_tell_time_and_what_is_to_come() {
        let info = |reply: &str| {
            let info = DeliveryInfo::parse(reply.as_bytes())?;
            Some((String::from_utf8_lossy(info.consumer).into_owned(), info.ack.stream_seq, info.time.0, info.pending))
        };
        assert_eq!(info("$JS.ACK.S.C.1.7.3.12345.9"), Some(("C".to_owned(), 7, 12345, 9)));
        assert_eq!(info("$JS.ACK.HUB.hash.S.C.1.7.3.12345.9"), Some(("C".to_owned(), 7, 12345, 9)));
        assert_eq!(info("$JS.ACK.HUB.hash.S.C.1.7.3.12345.9.extra"), Some(("C".to_owned(), 7, 12345, 9)));
        assert_eq!(info("$JS.ACK.S.C.1.7.3.x.9"), None);
        assert_eq!(info("_INBOX.x"), None);
    }

    #[test]
    fn payloads() {
        let check =
            |payload: &str, expected: AckKind| assert_eq!(AckKind::parse(payload.as_bytes()), expected, "{payload}");
        check("", AckKind::Ack);
        check("+ACK", AckKind::Ack);
        check("+OK", AckKind::Ack);
        check("-NAK", AckKind::Nak { delay: None });
        check("-NAK {\"delay\": 5000}", AckKind::Nak { delay: Some(GoDuration(5000)) });
        check("-NAK 2s", AckKind::Nak { delay: Some(GoDuration::from_secs(2)) });
        check("-NAK {}", AckKind::Nak { delay: Some(GoDuration::ZERO) });
        check("-NAK {broken", AckKind::Nak { delay: None });
        check("+WPI", AckKind::Progress);
        check("+NXT", AckKind::Next { pull: b"" });
        check("+NXT 5", AckKind::Next { pull: b" 5" });
        check("+NXT {\"batch\":2}", AckKind::Next { pull: b" {\"batch\":2}" });
        check("+TERM", AckKind::Term { reason: "" });
        check("+TERM bad input ", AckKind::Term { reason: "bad input" });
        check("+ACK ", AckKind::Unknown);
        check("what", AckKind::Unknown);
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(count: u64, stream_seq: u64, consumer_seq: u64, time in 0i64.., pending: u64) {
            let ack = Ack { stream_seq, consumer_seq, delivery_count: count };
            let prefix = prefix("S", "C");
            let mut out = Vec::new();
            write_subject(&mut out, prefix.as_bytes(), &ack, Timestamp(time), pending);
            prop_assert_eq!(out.len(), subject_len(prefix.as_bytes(), &ack, Timestamp(time), pending));
            let (address, parsed) = Ack::parse(&out).unwrap();
            prop_assert_eq!(parsed, ack);
            prop_assert_eq!(address, AckAddress { stream: b"S", consumer: b"C" });
        }

        #[test]
        fn never_panics(subject: Vec<u8>, payload: Vec<u8>) {
            let _ = Ack::parse(&subject);
            let _ = AckKind::parse(&payload);
        }
    }
}
