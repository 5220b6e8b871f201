//! The client's side of the protocol: what it writes, and one reader for what a server sends.

use bytes::{Buf, BytesMut};

use super::{ClientError, Incoming};

/// One thing the server said.
pub enum ServerLine {
    Message { sid: u64, message: Incoming },
    Info(Vec<u8>),
    Ping,
    Pong,
    Ok,
    Error(String),
}

/// The longest control line accepted: INFO of a large cluster stays far below.
const LINE_BYTES_MAX: usize = 1 << 20;
/// The largest message accepted from a server.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// Takes the next complete line (with its message) off the front of `buffer`; `None` when more bytes are needed.
///
/// # Errors
/// [`ClientError::Protocol`] when the bytes are not a NATS server's.
pub fn next_line(buffer: &mut BytesMut) -> Result<Option<ServerLine>, ClientError> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        if buffer.len() > LINE_BYTES_MAX {
            return Err(protocol("a control line without an end"));
        }
        return Ok(None);
    };
    let line_end = if end > 0 && buffer[end - 1] == b'\r' { end - 1 } else { end };
    let line = &buffer[..line_end];
    let after = end + 1;
    match line.first().copied().unwrap_or(b' ') {
        b'M' | b'm' if starts(line, b"MSG ") => message(buffer, 4, line_end, after, false),
        b'H' | b'h' if starts(line, b"HMSG ") => message(buffer, 5, line_end, after, true),
        b'P' | b'p' if starts(line, b"PING") => Ok(take(buffer, after, ServerLine::Ping)),
        b'P' | b'p' if starts(line, b"PONG") => Ok(take(buffer, after, ServerLine::Pong)),
        b'I' | b'i' if starts(line, b"INFO ") => {
            let body = line[5..].to_vec();
            Ok(take(buffer, after, ServerLine::Info(body)))
        }
        b'+' => Ok(take(buffer, after, ServerLine::Ok)),
        b'-' if starts(line, b"-ERR") => {
            let text = String::from_utf8_lossy(&line[4..]).trim().trim_matches('\'').to_owned();
            Ok(take(buffer, after, ServerLine::Error(text)))
        }
        _ => Err(protocol(&String::from_utf8_lossy(&line[..line.len().min(64)]))),
    }
}

fn message(
    buffer: &mut BytesMut,
    start: usize,
    line_end: usize,
    after: usize,
    with_headers: bool,
) -> Result<Option<ServerLine>, ClientError> {
    let line = &buffer[start..line_end];
    let mut fields: [&[u8]; 5] = [b""; 5];
    let mut count = 0;
    for field in line.split(|byte| *byte == b' ' || *byte == b'\t').filter(|field| !field.is_empty()) {
        if count == fields.len() {
            return Err(protocol("too many fields in a message line"));
        }
        fields[count] = field;
        count += 1;
    }
    let sizes = if with_headers { 2 } else { 1 };
    let reply: &[u8] = match count.checked_sub(2 + sizes) {
        Some(0) => b"",
        Some(1) => fields[2],
        _ => return Err(protocol("wrong number of fields in a message line")),
    };
    let number = |field: &[u8]| {
        std::str::from_utf8(field).ok().and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| protocol("bad number"))
    };
    let sid = number(fields[1])?;
    let total = number(fields[count - 1])? as usize;
    let headers_len = if with_headers { number(fields[count - 2])? as usize } else { 0 };
    if headers_len > total || total > MESSAGE_BYTES_MAX {
        return Err(protocol("impossible message sizes"));
    }
    let whole = after + total + 2;
    if buffer.len() < whole {
        let missing = whole - buffer.len();
        buffer.reserve(missing);
        return Ok(None);
    }
    let body = &buffer[after..after + total];
    let message = Incoming::new(fields[0], reply, &body[..headers_len], &body[headers_len..]);
    Ok(take(buffer, whole, ServerLine::Message { sid, message }))
}

fn starts(line: &[u8], word: &[u8]) -> bool {
    line.len() >= word.len() && line[..word.len()].eq_ignore_ascii_case(word)
}

fn take(buffer: &mut BytesMut, bytes: usize, line: ServerLine) -> Option<ServerLine> {
    buffer.advance(bytes);
    Some(line)
}

fn protocol(text: &str) -> ClientError {
    ClientError::Protocol { text: text.to_owned() }
}

/// Appends PUB, or HPUB when `headers` (a whole block) is not empty.
pub fn write_publish(out: &mut Vec<u8>, subject: &[u8], reply: &[u8], headers: &[u8], payload: &[u8]) {
    out.extend_from_slice(if headers.is_empty() { b"PUB " } else { b"HPUB " });
    out.extend_from_slice(subject);
    out.push(b' ');
    if !reply.is_empty() {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    if !headers.is_empty() {
        write_number(out, headers.len() as u64);
        out.push(b' ');
    }
    write_number(out, (headers.len() + payload.len()) as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Appends SUB.
pub fn write_subscribe(out: &mut Vec<u8>, subject: &str, queue: Option<&str>, sid: u64) {
    let queue = queue.map(|queue| format!("{queue} ")).unwrap_or_default();
    out.extend_from_slice(format!("SUB {subject} {queue}{sid}\r\n").as_bytes());
}

/// Appends UNSUB.
pub fn write_unsubscribe(out: &mut Vec<u8>, sid: u64) {
    out.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
}

/// Appends the decimal digits of `number`.
pub fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
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

    #[test]
    fn publishes_are_written() {
        let mut out = Vec::new();
        write_publish(&mut out, b"a", b"", b"", b"xy");
        write_publish(&mut out, b"a", b"r", b"NATS/1.0\r\n\r\n", b"");
        assert_eq!(out, b"PUB a 2\r\nxy\r\nHPUB a r 12 12\r\nNATS/1.0\r\n\r\n\r\n");
    }
}
