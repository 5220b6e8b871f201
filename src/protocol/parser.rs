//! Client operations, read in place from the bytes received so far.
//!
//! Nothing is copied, allocated or remembered between calls: an operation that has not arrived whole is read again from
//! its first byte, so how the bytes were split cannot matter. What a peer can make a server hold is bounded by
//! [`Limits`]: a control line and a payload are refused as soon as their length is known to pass the limit.
//!
//! Source: nats-server `server/parser.go`. Verbs are case-insensitive; arguments are separated by spaces and tabs; a line
//! ends with LF and an optional CR. Different here, and the same however the bytes are split: spaces before the first
//! argument count towards `max_control_line`, what follows PING, PONG and +OK on their line too, and a CR inside a line
//! separates arguments, so no name ever holds one.

use memchr::memchr;

use super::digits::{parse_count, parse_size};
use super::error::ProtocolError;
use super::op::ClientOp;

/// What a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest control line in bytes, without the verb, one separator and the line end.
    pub max_control_line: usize,
    /// The largest payload in bytes, headers included.
    pub max_payload: usize,
    /// Only CONNECT is read, anything else is an authorization violation: a peer that has not said who it is cannot make
    /// the server hold a payload.
    pub connect_only: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_control_line: 4096, max_payload: 8 * 1024 * 1024, connect_only: false }
    }
}

/// Reads client operations, one per call.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    needed: usize,
}

impl Parser {
    pub fn new() -> Parser {
        Parser::default()
    }

    /// Reads the operation at the start of `input` and how many bytes it takes; `None` when it has not arrived whole.
    ///
    /// # Errors
    /// A [`ProtocolError`] that closes the connection; the input must not be parsed any further.
    #[inline]
    pub fn next<'a>(
        &mut self,
        input: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<(ClientOp<'a>, usize)>, ProtocolError> {
        self.needed = 0;
        if let Some(first) = input.first_chunk::<4>()
            && u32::from_le_bytes(*first) | 0x0020_2020 == u32::from_le_bytes(*b"pub ")
            && !limits.connect_only
        {
            return self.publish(input, limits);
        }
        self.other(input, limits)
    }

    /// How many more bytes the operation that `next` last found incomplete is known to need, so that a reader can make
    /// room for a large payload at once; zero when that is not known.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// PUB <subject> [reply] <size>
    #[inline]
    fn publish<'a>(
        &mut self,
        input: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<(ClientOp<'a>, usize)>, ProtocolError> {
        const ARGUMENTS_AT: usize = 4;
        let Some((line, body_at)) = control_line(input, ARGUMENTS_AT, limits)? else { return Ok(None) };
        let (arguments, count) = split::<3>(line);
        let (reply, size) = match count {
            2 => (&[][..], arguments[1]),
            3 => (arguments[1], arguments[2]),
            _ => return Err(ProtocolError::ArgumentCount),
        };
        let size = parse_size(size).ok_or(ProtocolError::BadSize)?;
        let Some((payload, consumed)) = self.payload(input, body_at, size, limits)? else { return Ok(None) };
        Ok(Some((ClientOp::Pub { subject: arguments[0], reply, headers: &[], payload }, consumed)))
    }

    /// HPUB <subject> [reply] <header size> <total size>
    fn publish_with_headers<'a>(
        &mut self,
        input: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<(ClientOp<'a>, usize)>, ProtocolError> {
        const ARGUMENTS_AT: usize = 5;
        let Some((line, body_at)) = control_line(input, ARGUMENTS_AT, limits)? else { return Ok(None) };
        let (arguments, count) = split::<4>(line);
        let (reply, header_size, size) = match count {
            3 => (&[][..], arguments[1], arguments[2]),
            4 => (arguments[1], arguments[2], arguments[3]),
            _ => return Err(ProtocolError::ArgumentCount),
        };
        let header_size = parse_size(header_size).ok_or(ProtocolError::BadHeaderSize)?;
        let size = parse_size(size).ok_or(ProtocolError::BadSize)?;
        if header_size > size {
            return Err(ProtocolError::HeaderSizeOverTotal);
        }
        let Some((body, consumed)) = self.payload(input, body_at, size, limits)? else { return Ok(None) };
        let (headers, payload) = body.split_at(header_size);
        Ok(Some((ClientOp::Pub { subject: arguments[0], reply, headers, payload }, consumed)))
    }

    /// The `size` bytes at `body_at` when they and their CRLF are there, and where the next operation begins.
    #[inline]
    fn payload<'a>(
        &mut self,
        input: &'a [u8],
        body_at: usize,
        size: usize,
        limits: &Limits,
    ) -> Result<Option<(&'a [u8], usize)>, ProtocolError> {
        if size > limits.max_payload {
            return Err(ProtocolError::MaxPayload);
        }
        let end = body_at + size;
        match input.get(end..end + 2) {
            Some(b"\r\n") => Ok(Some((&input[body_at..end], end + 2))),
            Some(_) => Err(ProtocolError::UnknownOperation),
            None if input.get(end).is_some_and(|&byte| byte != b'\r') => Err(ProtocolError::UnknownOperation),
            None => {
                self.needed = end + 2 - input.len();
                Ok(None)
            }
        }
    }

    #[inline(never)]
    fn other<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Option<(ClientOp<'a>, usize)>, ProtocolError> {
        let Some(&first) = input.first() else { return Ok(None) };
        if limits.connect_only && !first.eq_ignore_ascii_case(&b'C') {
            return Err(ProtocolError::AuthorizationViolation);
        }
        let Some(verb) = Verb::read(input)? else { return Ok(None) };
        let text = verb.text();
        let mut arguments_at = text.len();
        match input.get(arguments_at) {
            Some(b' ' | b'\t') => arguments_at += 1,
            None if verb.needs_arguments() => return Ok(None),
            Some(_) if verb.needs_arguments() => return Err(ProtocolError::UnknownOperation),
            _ => {}
        }
        match verb {
            Verb::Pub => return self.publish(input, limits),
            Verb::Hpub => return self.publish_with_headers(input, limits),
            _ => {}
        }
        let Some((line, consumed)) = control_line(input, arguments_at, limits)? else { return Ok(None) };
        let op = match verb {
            Verb::Sub => {
                let (arguments, count) = split::<3>(line);
                match count {
                    2 => ClientOp::Sub { subject: arguments[0], queue: &[], sid: arguments[1] },
                    3 => ClientOp::Sub { subject: arguments[0], queue: arguments[1], sid: arguments[2] },
                    _ => return Err(ProtocolError::ArgumentCount),
                }
            }
            Verb::Unsub => {
                let (arguments, count) = split::<2>(line);
                match count {
                    1 => ClientOp::Unsub { sid: arguments[0], max: None },
                    2 => ClientOp::Unsub { sid: arguments[0], max: parse_count(arguments[1]).filter(|&max| max > 0) },
                    _ => return Err(ProtocolError::ArgumentCount),
                }
            }
            Verb::Ping => ClientOp::Ping,
            Verb::Pong => ClientOp::Pong,
            Verb::Connect => ClientOp::Connect(line.trim_ascii()),
            Verb::Info => ClientOp::Info(line.trim_ascii()),
            Verb::Ok => ClientOp::Ok,
            Verb::Err => ClientOp::Err(line.trim_ascii()),
            Verb::Pub | Verb::Hpub => unreachable!("publishes have returned above"),
        };
        Ok(Some((op, consumed)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Pub,
    Hpub,
    Sub,
    Unsub,
    Ping,
    Pong,
    Connect,
    Info,
    Ok,
    Err,
}

impl Verb {
    const ALL: [Verb; 10] = [
        Verb::Pub,
        Verb::Hpub,
        Verb::Sub,
        Verb::Unsub,
        Verb::Ping,
        Verb::Pong,
        Verb::Connect,
        Verb::Info,
        Verb::Ok,
        Verb::Err,
    ];

    fn text(self) -> &'static [u8] {
        match self {
            Verb::Pub => b"PUB",
            Verb::Hpub => b"HPUB",
            Verb::Sub => b"SUB",
            Verb::Unsub => b"UNSUB",
            Verb::Ping => b"PING",
            Verb::Pong => b"PONG",
            Verb::Connect => b"CONNECT",
            Verb::Info => b"INFO",
            Verb::Ok => b"+OK",
            Verb::Err => b"-ERR",
        }
    }

    /// Whether a separator must follow. CONNECT, INFO and the verbs without arguments take any byte.
    fn needs_arguments(self) -> bool {
        matches!(self, Verb::Pub | Verb::Hpub | Verb::Sub | Verb::Unsub | Verb::Err)
    }

    /// The verb `input` begins with; `None` while it may still become one. No verb is the beginning of another.
    fn read(input: &[u8]) -> Result<Option<Verb>, ProtocolError> {
        let mut unfinished = false;
        for verb in Verb::ALL {
            let text = verb.text();
            let seen = text.len().min(input.len());
            if input[..seen].eq_ignore_ascii_case(&text[..seen]) {
                if seen == text.len() {
                    return Ok(Some(verb));
                }
                unfinished = true;
            }
        }
        if unfinished { Ok(None) } else { Err(ProtocolError::UnknownOperation) }
    }
}

/// The line from `start` to the next LF, without CR and LF, and where the next line begins.
#[inline]
fn control_line<'a>(
    input: &'a [u8],
    start: usize,
    limits: &Limits,
) -> Result<Option<(&'a [u8], usize)>, ProtocolError> {
    let rest = &input[start..];
    let found = memchr(b'\n', rest);
    let line = &rest[..found.unwrap_or(rest.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > limits.max_control_line {
        return Err(ProtocolError::MaxControlLine);
    }
    Ok(found.map(|end| (line, start + end + 1)))
}

/// Up to `N` arguments of a control line, and how many there are (`N + 1` stands for any more).
#[inline]
pub(super) fn split<const N: usize>(line: &[u8]) -> ([&[u8]; N], usize) {
    let mut arguments = [&[][..]; N];
    let mut count = 0;
    let mut at = 0;
    loop {
        while at < line.len() && is_separator(line[at]) {
            at += 1;
        }
        if at == line.len() {
            return (arguments, count);
        }
        if count == N {
            return (arguments, N + 1);
        }
        let start = at;
        while at < line.len() && !is_separator(line[at]) {
            at += 1;
        }
        arguments[count] = &line[start..at];
        count += 1;
    }
}

#[inline(always)]
fn is_separator(byte: u8) -> bool {
    byte <= b' ' && matches!(byte, b' ' | b'\t' | b'\r')
}

#[cfg(test)]
mod tests;
