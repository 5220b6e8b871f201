//! DIRECT.GET: a stored message as a plain message with headers, no JSON around it (ADR-31).

use super::request::MsgGet;
use crate::types::go_json::{self, Reading};
use crate::types::{StoredMessage, Timestamp};

/// A direct get that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub enum DirectGet {
    /// The message with this sequence, or with `batch` set it and what follows.
    Seq(u64),
    /// The first message at or after this time.
    Time(Timestamp),
    /// The last message of a subject.
    Last(String),
    /// The next message of a filter, from a sequence.
    Next { filter: String, seq: u64 },
    /// As `Next`, from a time.
    NextFromTime { filter: String, time: Timestamp },
    /// The last message of each matching subject.
    MultiLast { filters: Vec<String>, from_seq: u64, up_to_seq: u64, up_to_time: Option<Timestamp> },
}

/// Why a direct get is refused: the status line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectGetError {
    EmptyRequest,
    MalformedRequest,
    BadRequest,
    NotFound,
    NoResults,
    TooManyResults,
    ApiLevel,
}

impl DirectGetError {
    /// The header block of the answer.
    pub fn headers(self) -> &'static [u8] {
        match self {
            DirectGetError::EmptyRequest => b"NATS/1.0 408 Empty Request\r\n\r\n",
            DirectGetError::MalformedRequest => b"NATS/1.0 408 Malformed Request\r\n\r\n",
            DirectGetError::BadRequest => b"NATS/1.0 408 Bad Request\r\n\r\n",
            DirectGetError::NotFound => b"NATS/1.0 404 Message Not Found\r\n\r\n",
            DirectGetError::NoResults => b"NATS/1.0 404 No Results\r\n\r\n",
            DirectGetError::TooManyResults => b"NATS/1.0 413 Too Many Results\r\n\r\n",
            DirectGetError::ApiLevel => b"NATS/1.0 412 Required Api Level\r\n\r\n",
        }
    }
}

impl DirectGet {
    /// Reads the body of `$JS.API.DIRECT.GET.<stream>`, and what else it asks for.
    ///
    /// # Errors
    /// Fields that contradict each other, none at all, or no JSON.
    pub fn parse(body: &[u8]) -> Result<(DirectGet, MsgGet), DirectGetError> {
        if body.is_empty() {
            return Err(DirectGetError::EmptyRequest);
        }
        let request: MsgGet = go_json::decode(body, Reading::Lenient).map_err(|_| DirectGetError::MalformedRequest)?;
        let (last, next) = (!request.last_by_subj.is_empty(), !request.next_by_subj.is_empty());
        let multi = !request.multi_last.is_empty();
        if request.seq == 0 && !last && !next && !multi && request.start_time.is_none() {
            return Err(DirectGetError::EmptyRequest);
        }
        let contradicts = (request.seq > 0 && (last || request.start_time.is_some()))
            || (request.start_time.is_some() && last)
            || (last && (next || request.batch > 0 || multi))
            || (next && multi)
            || (request.up_to_seq > 0 && request.up_to_time.is_some());
        if contradicts {
            return Err(DirectGetError::BadRequest);
        }
        let get = if multi {
            DirectGet::MultiLast {
                filters: request.multi_last.clone(),
                from_seq: request.seq,
                up_to_seq: request.up_to_seq,
                up_to_time: request.up_to_time,
            }
        } else if next {
            match request.start_time {
                Some(time) => DirectGet::NextFromTime { filter: request.next_by_subj.clone(), time },
                None => DirectGet::Next { filter: request.next_by_subj.clone(), seq: request.seq },
            }
        } else if last {
            DirectGet::Last(request.last_by_subj.clone())
        } else if let Some(time) = request.start_time {
            DirectGet::Time(time)
        } else {
            DirectGet::Seq(request.seq)
        };
        Ok((get, request))
    }

    /// Reads the body of `$JS.API.DIRECT.GET.<stream>.<subject>`, which may only say `no_hdr`.
    ///
    /// # Errors
    /// A body that names what to get a second time, or is no JSON.
    pub fn parse_last(subject: &str, body: &[u8]) -> Result<(DirectGet, MsgGet), DirectGetError> {
        let request: MsgGet = if body.is_empty() {
            MsgGet::default()
        } else {
            go_json::decode(body, Reading::Lenient).map_err(|_| DirectGetError::MalformedRequest)?
        };
        let rest = MsgGet { no_hdr: request.no_hdr, max_bytes: request.max_bytes, ..MsgGet::default() };
        if request != rest {
            return Err(DirectGetError::BadRequest);
        }
        Ok((DirectGet::Last(subject.to_owned()), request))
    }
}

/// The header block of an answer: the message's own, then where it comes from.
pub fn direct_headers(stream: &str, message: &StoredMessage) -> Vec<u8> {
    with_direct_headers(stream, message, |_| {})
}

/// As [`direct_headers`], with how many are still to come and the sequence of the one before: for batches.
pub fn next_in_batch(stream: &str, message: &StoredMessage, pending: u64, last_seq: u64) -> Vec<u8> {
    with_direct_headers(stream, message, |out| {
        line(out, "Nats-Num-Pending", pending);
        line(out, "Nats-Last-Sequence", last_seq);
    })
}

/// As [`direct_headers`], with lines that `more` adds.
pub fn with_direct_headers(stream: &str, message: &StoredMessage, more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let own = message.message.headers();
    let mut out = Vec::with_capacity(own.len() + 160);
    match own.strip_suffix(b"\r\n") {
        Some(lines) => out.extend_from_slice(lines),
        None => out.extend_from_slice(b"NATS/1.0\r\n"),
    }
    line(&mut out, "Nats-Stream", stream);
    line(&mut out, "Nats-Subject", message.message.subject_text());
    line(&mut out, "Nats-Sequence", message.seq);
    line(&mut out, "Nats-Time-Stamp", message.time.to_rfc3339());
    more(&mut out);
    out.extend_from_slice(b"\r\n");
    out
}

/// The status that ends a batch.
pub fn end_of_batch(pending: u64, last_seq: u64, up_to_seq: Option<u64>) -> Vec<u8> {
    let mut out = b"NATS/1.0 204 EOB\r\n".to_vec();
    line(&mut out, "Nats-Num-Pending", pending);
    line(&mut out, "Nats-Last-Sequence", last_seq);
    if let Some(seq) = up_to_seq {
        line(&mut out, "Nats-UpTo-Sequence", seq);
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn line(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    use std::io::Write;
    write!(out, "{name}: {value}\r\n").expect("writing to a Vec cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Message;

    #[test]
    fn requests_are_read_as_nats_server_reads_them() {
        use DirectGetError::*;
        let check = |body: &str, expected: Result<DirectGet, DirectGetError>| {
            assert_eq!(DirectGet::parse(body.as_bytes()).map(|(get, _)| get), expected, "{body}");
        };
        check("", Err(EmptyRequest));
        check("{}", Err(EmptyRequest));
        check(r#"{"seqx":12}"#, Err(EmptyRequest));
        check("{", Err(MalformedRequest));
        check(r#"{"seq":1}"#, Ok(DirectGet::Seq(1)));
        check(r#"{"last_by_subj":"a"}"#, Ok(DirectGet::Last("a".into())));
        check(r#"{"next_by_subj":"a.*","seq":4}"#, Ok(DirectGet::Next { filter: "a.*".into(), seq: 4 }));
        check(r#"{"seq":1,"last_by_subj":"a"}"#, Err(BadRequest));
        check(r#"{"last_by_subj":"a","batch":2}"#, Err(BadRequest));
        check(r#"{"multi_last":["a"],"next_by_subj":"b"}"#, Err(BadRequest));
        let check_last = |body: &str, expected: Result<DirectGet, DirectGetError>| {
            assert_eq!(DirectGet::parse_last("k", body.as_bytes()).map(|(get, _)| get), expected, "{body}");
        };
        check_last("", Ok(DirectGet::Last("k".into())));
        check_last(r#"{"no_hdr":true}"#, Ok(DirectGet::Last("k".into())));
        check_last("x", Err(MalformedRequest));
        check_last(r#"{"seq":1}"#, Err(BadRequest));
    }

    #[test]
    fn answers_carry_their_origin_in_headers() {
        let stored = |headers: &[u8]| StoredMessage {
            seq: 7,
            time: Timestamp(1_795_262_609_148_988_464),
            message: Message::new(b"s.a", headers, b"x"),
        };
        let tail = "Nats-Stream: S\r\nNats-Subject: s.a\r\nNats-Sequence: 7\r\n\
                    Nats-Time-Stamp: 2026-11-21T12:03:29.148988464Z\r\n";
        let check = |got: Vec<u8>, expected: String| assert_eq!(String::from_utf8(got).unwrap(), expected);
        check(direct_headers("S", &stored(b"")), format!("NATS/1.0\r\n{tail}\r\n"));
        check(direct_headers("S", &stored(b"NATS/1.0\r\nA: b\r\n\r\n")), format!("NATS/1.0\r\nA: b\r\n{tail}\r\n"));
        check(
            next_in_batch("S", &stored(b""), 3, 2),
            format!("NATS/1.0\r\n{tail}Nats-Num-Pending: 3\r\nNats-Last-Sequence: 2\r\n\r\n"),
        );
        check(
            end_of_batch(0, 9, Some(12)),
            "NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: 9\r\nNats-UpTo-Sequence: 12\r\n\r\n".into(),
        );
    }
}
