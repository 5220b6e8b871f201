//! Server operations, read in place: the client's side of the protocol.
//!
//! Works as [`super::parser`] does. A client trusts its server as far as lengths go that it can hold.

use memchr::memchr;

use super::digits::parse_size;
use super::op::ServerOp;
use super::parser::split;

/// The longest line a server may send; INFO lists every URL of a cluster.
const LINE_MAX: usize = 1024 * 1024;

/// What a server said makes no sense; the connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerParseError {
    #[error("the server sent an unknown operation")]
    UnknownOperation,
    #[error("the server sent a line longer than {LINE_MAX} bytes")]
    LineTooLong,
    #[error("the server sent a message line with wrong arguments")]
    BadArguments,
}

/// Reads server operations, one per call.
#[derive(Clone, Debug, Default)]
pub struct ServerParser {
    needed: usize,
}

impl ServerParser {
    pub fn new() -> ServerParser {
        ServerParser::default()
    }

    /// How many more bytes the operation that `next` last found incomplete is known to need; zero when not known.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// Reads the operation at the start of `input` and how many bytes it takes; `None` when it has not arrived whole.
    ///
    /// # Errors
    /// When the bytes are no server operation; the input must not be parsed any further.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(ServerOp<'a>, usize)>, ServerParseError> {
        self.needed = 0;
        let Some(line_end) = memchr(b'\n', input) else {
            return if input.len() > LINE_MAX { Err(ServerParseError::LineTooLong) } else { Ok(None) };
        };
        let line = &input[..line_end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let body_at = line_end + 1;
        if let Some(arguments) = after_verb(line, b"MSG") {
            let (arguments, count) = split::<4>(arguments);
            let (reply, size) = match count {
                3 => (&[][..], arguments[2]),
                4 => (arguments[2], arguments[3]),
                _ => return Err(ServerParseError::BadArguments),
            };
            let size = parse_size(size).ok_or(ServerParseError::BadArguments)?;
            let Some((payload, consumed)) = self.payload(input, body_at, size)? else { return Ok(None) };
            let op = ServerOp::Msg { subject: arguments[0], sid: arguments[1], reply, headers: &[], payload };
            return Ok(Some((op, consumed)));
        }
        if let Some(arguments) = after_verb(line, b"HMSG") {
            let (arguments, count) = split::<5>(arguments);
            let (reply, header_size, size) = match count {
                4 => (&[][..], arguments[2], arguments[3]),
                5 => (arguments[2], arguments[3], arguments[4]),
                _ => return Err(ServerParseError::BadArguments),
            };
            let header_size = parse_size(header_size).ok_or(ServerParseError::BadArguments)?;
            let size = parse_size(size).filter(|&size| size >= header_size).ok_or(ServerParseError::BadArguments)?;
            let Some((body, consumed)) = self.payload(input, body_at, size)? else { return Ok(None) };
            let (headers, payload) = body.split_at(header_size);
            let op = ServerOp::Msg { subject: arguments[0], sid: arguments[1], reply, headers, payload };
            return Ok(Some((op, consumed)));
        }
        let op = if line.eq_ignore_ascii_case(b"+OK") {
            ServerOp::Ok
        } else if line.eq_ignore_ascii_case(b"PING") {
            ServerOp::Ping
        } else if line.eq_ignore_ascii_case(b"PONG") {
            ServerOp::Pong
        } else if let Some(body) = after_verb(line, b"INFO") {
            ServerOp::Info(body.trim_ascii())
        } else if let Some(text) = after_verb(line, b"-ERR") {
            let text = text.trim_ascii();
            let unquoted = text.strip_prefix(b"'").and_then(|text| text.strip_suffix(b"'"));
            ServerOp::Err(unquoted.unwrap_or(text))
        } else {
            return Err(ServerParseError::UnknownOperation);
        };
        Ok(Some((op, body_at)))
    }

    fn payload<'a>(
        &mut self,
        input: &'a [u8],
        body_at: usize,
        size: usize,
    ) -> Result<Option<(&'a [u8], usize)>, ServerParseError> {
        let end = body_at + size;
        match input.get(end..end + 2) {
            Some(b"\r\n") => Ok(Some((&input[body_at..end], end + 2))),
            Some(_) => Err(ServerParseError::BadArguments),
            None => {
                self.needed = end + 2 - input.len();
                Ok(None)
            }
        }
    }
}

/// What follows `verb` and a separator, when the line begins so.
fn after_verb<'a>(line: &'a [u8], verb: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(verb.len())?;
    (start.eq_ignore_ascii_case(verb) && matches!(rest.first(), Some(b' ' | b'\t'))).then(|| &rest[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expected: Result<Option<ServerOp<'_>>, ServerParseError>) {
        let result = ServerParser::new().next(input);
        if let Ok(Some((_, consumed))) = result {
            assert_eq!(consumed, input.len());
        }
        assert_eq!(result.map(|found| found.map(|(op, _)| op)), expected, "{}", String::from_utf8_lossy(input));
    }

    #[test]
    fn reads_every_operation() {
        check(b"+OK\r\n", Ok(Some(ServerOp::Ok)));
        check(b"PING\r\n", Ok(Some(ServerOp::Ping)));
        check(b"PONG\r\n", Ok(Some(ServerOp::Pong)));
        check(b"INFO {\"a\":1} \r\n", Ok(Some(ServerOp::Info(b"{\"a\":1}"))));
        check(b"-ERR 'Invalid Subject'\r\n", Ok(Some(ServerOp::Err(b"Invalid Subject"))));
        let msg = |reply, headers, payload| ServerOp::Msg { subject: b"foo", sid: b"1", reply, headers, payload };
        check(b"MSG foo 1 5\r\nhello\r\n", Ok(Some(msg(b"", b"", b"hello"))));
        check(b"MSG foo 1 bar 0\r\n\r\n", Ok(Some(msg(b"bar", b"", b""))));
        check(b"HMSG foo 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", Ok(Some(msg(b"", b"NATS/1.0\r\n\r\n", b"hi"))));
        check(b"HMSG foo 1 bar 12 12\r\nNATS/1.0\r\n\r\n\r\n", Ok(Some(msg(b"bar", b"NATS/1.0\r\n\r\n", b""))));
        check(b"MSG foo 1 5\r\nhel", Ok(None));
        check(b"MSG fo", Ok(None));
        check(b"MSG foo 1 -5\r\n", Err(ServerParseError::BadArguments));
        check(b"MSG foo 5\r\n", Err(ServerParseError::BadArguments));
        check(b"HMSG foo 1 13 12\r\n", Err(ServerParseError::BadArguments));
        check(b"MSG foo 1 5\r\nhelloxx", Err(ServerParseError::BadArguments));
        check(b"HELLO\r\n", Err(ServerParseError::UnknownOperation));
    }

    #[test]
    fn says_how_much_is_missing() {
        let mut parser = ServerParser::new();
        assert_eq!(parser.next(b"MSG foo 1 1000\r\nhel"), Ok(None));
        assert_eq!(parser.needed(), 999);
    }
}
