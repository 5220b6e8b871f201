//! The client's side of the protocol: a read buffer's lines as owned values.

use bytes::{Buf, BytesMut};

use super::{ClientError, Incoming};
use crate::protocol::op::ServerOp;
use crate::protocol::server_parser::ServerParser;

/// One thing the server said.
pub enum ServerLine {
    Message { sid: u64, message: Incoming },
    Info(Vec<u8>),
    Ping,
    Pong,
    Ok,
    Error(String),
}

/// Takes the next complete operation off the front of `buffer`; `None` when more bytes are needed, for which there is room
/// then.
///
/// # Errors
/// [`ClientError::Protocol`] when the bytes are not a NATS server's.
pub fn next_line(buffer: &mut BytesMut) -> Result<Option<ServerLine>, ClientError> {
    let mut parser = ServerParser::new();
    let refuse = |text: String| ClientError::Protocol { text };
    let (line, consumed) = match parser.next(buffer).map_err(|error| refuse(error.to_string()))? {
        Some((op, consumed)) => {
            let line = match op {
                ServerOp::Msg { subject, sid, reply, headers, payload } => {
                    let sid = std::str::from_utf8(sid).ok().and_then(|sid| sid.parse().ok());
                    let sid = sid.ok_or_else(|| refuse("a subscription id that is none of ours".to_owned()))?;
                    ServerLine::Message { sid, message: Incoming::new(subject, reply, headers, payload) }
                }
                ServerOp::Info(body) => ServerLine::Info(body.to_vec()),
                ServerOp::Err(text) => ServerLine::Error(String::from_utf8_lossy(text).into_owned()),
                ServerOp::Ping => ServerLine::Ping,
                ServerOp::Pong => ServerLine::Pong,
                ServerOp::Ok => ServerLine::Ok,
            };
            (line, consumed)
        }
        None => {
            buffer.reserve(parser.needed());
            return Ok(None);
        }
    };
    buffer.advance(consumed);
    Ok(Some(line))
}

/// Appends the decimal digits of `number`.
pub fn write_number(out: &mut Vec<u8>, number: u64) {
    use std::io::Write as _;
    write!(out, "{number}").expect("writing to a Vec cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8], piece: usize) -> Vec<String> {
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for chunk in bytes.chunks(piece) {
            buffer.extend_from_slice(chunk);
            while let Some(line) = next_line(&mut buffer).unwrap() {
                seen.push(match line {
                    ServerLine::Message { sid, message } => format!(
                        "{sid} {} {} {:?} {}",
                        message.subject_str(),
                        String::from_utf8_lossy(message.reply()),
                        message.headers().get_str("A"),
                        String::from_utf8_lossy(message.payload())
                    ),
                    ServerLine::Info(body) => format!("info {}", body.len()),
                    ServerLine::Ping => "ping".into(),
                    ServerLine::Pong => "pong".into(),
                    ServerLine::Ok => "ok".into(),
                    ServerLine::Error(text) => format!("err {text}"),
                });
            }
        }
        assert!(buffer.is_empty());
        seen
    }

    #[test]
    fn reads_what_servers_send_however_it_is_split() {
        let bytes = b"INFO {}\r\nPING\r\n+OK\r\nMSG a.b 7 5\r\nhello\r\nMSG a 8 in.box 0\r\n\r\n\
            HMSG c 9 re 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\n-ERR 'Authorization Violation'\r\nPONG\r\n";
        let expected = [
            "info 2",
            "ping",
            "ok",
            "7 a.b  None hello",
            "8 a in.box None ",
            "9 c re Some(\"b\") hi",
            "err Authorization Violation",
            "pong",
        ];
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(read_all(bytes, piece), expected);
        }
    }

    #[test]
    fn refuses_what_is_not_nats() {
        for bad in ["HTTP/1.1 400\r\n", "MSG a\r\n", "MSG a x 3\r\nabc\r\n", "HMSG a 1 9 3\r\n", "MSG a 1 2 3 4 5\r\n"]
        {
            assert!(next_line(&mut BytesMut::from(bad.as_bytes())).is_err(), "{bad}");
        }
    }
}
