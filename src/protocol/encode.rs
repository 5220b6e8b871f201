//! Operations as bytes, appended to a buffer that its owner reuses.
//!
//! The writers trust their arguments: names come from the parser or from checked subjects and hold no separator.

use serde::Serialize;

use crate::types::digits;

/// MSG, or HMSG when there are headers: one message to one subscription. The hottest function of the broker.
#[inline]
pub fn msg(out: &mut Vec<u8>, subject: &[u8], sid: &[u8], reply: &[u8], headers: &[u8], payload: &[u8]) {
    // Verb, separators, two numbers of at most 20 digits and two line ends fit in 64 bytes.
    out.reserve(64 + subject.len() + sid.len() + reply.len() + headers.len() + payload.len());
    msg_line(out, subject, sid, reply, headers.len(), headers.len() + payload.len());
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// The first line of [`msg`], for a body of `body_bytes`, headers included, that is written by somebody else.
#[inline]
pub fn msg_line(out: &mut Vec<u8>, subject: &[u8], sid: &[u8], reply: &[u8], headers_bytes: usize, body_bytes: usize) {
    out.extend_from_slice(if headers_bytes == 0 { b"MSG " } else { b"HMSG " });
    out.extend_from_slice(subject);
    out.push(b' ');
    out.extend_from_slice(sid);
    if !reply.is_empty() {
        out.push(b' ');
        out.extend_from_slice(reply);
    }
    sizes(out, headers_bytes, body_bytes);
}

/// PUB, or HPUB when there are headers.
pub fn publish(out: &mut Vec<u8>, subject: &[u8], reply: &[u8], headers: &[u8], payload: &[u8]) {
    out.reserve(64 + subject.len() + reply.len() + headers.len() + payload.len());
    out.extend_from_slice(if headers.is_empty() { b"PUB " } else { b"HPUB " });
    out.extend_from_slice(subject);
    if !reply.is_empty() {
        out.push(b' ');
        out.extend_from_slice(reply);
    }
    sizes(out, headers.len(), headers.len() + payload.len());
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn sizes(out: &mut Vec<u8>, headers_bytes: usize, body_bytes: usize) {
    out.push(b' ');
    if headers_bytes > 0 {
        digits::push(out, headers_bytes as u64);
        out.push(b' ');
    }
    digits::push(out, body_bytes as u64);
    out.extend_from_slice(b"\r\n");
}

/// SUB; an empty `queue` is a plain subscription.
pub fn sub(out: &mut Vec<u8>, filter: &[u8], queue: &[u8], sid: &[u8]) {
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(filter);
    out.push(b' ');
    if !queue.is_empty() {
        out.extend_from_slice(queue);
        out.push(b' ');
    }
    out.extend_from_slice(sid);
    out.extend_from_slice(b"\r\n");
}

/// UNSUB, now or after `max` messages in total.
pub fn unsub(out: &mut Vec<u8>, sid: &[u8], max: Option<u64>) {
    out.extend_from_slice(b"UNSUB ");
    out.extend_from_slice(sid);
    if let Some(max) = max {
        out.push(b' ');
        digits::push(out, max);
    }
    out.extend_from_slice(b"\r\n");
}

/// CONNECT with its options as JSON.
pub fn connect(out: &mut Vec<u8>, options: &impl Serialize) {
    out.extend_from_slice(b"CONNECT ");
    json(out, options);
    out.extend_from_slice(b"\r\n");
}

/// INFO with its body as JSON. nats-server puts a space before the line end, and so does this.
pub fn info(out: &mut Vec<u8>, info: &impl Serialize) {
    out.extend_from_slice(b"INFO ");
    json(out, info);
    out.extend_from_slice(b" \r\n");
}

fn json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a plain struct of strings and numbers is always JSON");
}

/// -ERR with `text` between single quotes.
pub fn err(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"'\r\n");
}

pub fn ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
}

pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PING\r\n");
}

pub fn pong(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PONG\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let mut out = b"before".to_vec();
        write(&mut out);
        assert_eq!(out.strip_prefix(b"before"), Some(expected), "{}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn every_operation() {
        check(b"MSG foo 1 5\r\nhello\r\n", |out| msg(out, b"foo", b"1", b"", b"", b"hello"));
        check(b"MSG foo 1 bar 0\r\n\r\n", |out| msg(out, b"foo", b"1", b"bar", b"", b""));
        check(b"HMSG foo 1 bar 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", |out| {
            msg(out, b"foo", b"1", b"bar", b"NATS/1.0\r\n\r\n", b"hi");
        });
        check(b"PUB foo bar 2\r\nhi\r\n", |out| publish(out, b"foo", b"bar", b"", b"hi"));
        check(b"HPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", |out| {
            publish(out, b"foo", b"", b"NATS/1.0\r\n\r\n", b"hi");
        });
        check(b"SUB foo 1\r\n", |out| sub(out, b"foo", b"", b"1"));
        check(b"SUB foo q 1\r\n", |out| sub(out, b"foo", b"q", b"1"));
        check(b"UNSUB 1\r\n", |out| unsub(out, b"1", None));
        check(b"UNSUB 1 10\r\n", |out| unsub(out, b"1", Some(10)));
        check(b"CONNECT {\"a\":1}\r\n", |out| connect(out, &serde_json::json!({"a": 1})));
        check(b"INFO {} \r\n", |out| info(out, &serde_json::json!({})));
        check(b"-ERR 'Invalid Subject'\r\n", |out| err(out, "Invalid Subject"));
        check(b"+OK\r\n", ok);
        check(b"PING\r\n", ping);
        check(b"PONG\r\n", pong);
    }
}
