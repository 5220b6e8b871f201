//! The load generator's own NATS connection: blocking, big buffers, nothing parsed that is not needed. It shares no code
//! with the broker, so a mistake in ours cannot hide in both.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

const READ_BUFFER_BYTES: usize = 1 << 18;
/// With less room than this behind what is buffered, the rest moves to the front before the next read.
const READ_ROOM_BYTES: usize = 1 << 16;
/// Far above what any server here takes to answer; a hang is an error, not a figure.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

pub struct Wire {
    socket: TcpStream,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    /// What `flush` writes.
    pub out: Vec<u8>,
}

/// One MSG or HMSG, borrowed from the read buffer.
pub struct Message<'a> {
    pub subject: &'a [u8],
    pub reply: &'a [u8],
    /// The header block, empty for MSG.
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// A status without payload (`NATS/1.0 408 ...`): the server speaking about a pull.
    pub fn is_status(&self) -> bool {
        self.headers.len() > 12 && self.headers[9].is_ascii_digit()
    }
}

enum Op {
    Message { subject: (usize, usize), reply: (usize, usize), headers: (usize, usize), payload: (usize, usize) },
    Ping,
    Pong,
    Ignored,
}

fn bad(text: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text.into())
}

impl Wire {
    /// Connects, shakes hands and waits for the first PONG.
    pub fn connect(address: &str, name: &str) -> io::Result<Wire> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        let input = vec![0; READ_BUFFER_BYTES].into_boxed_slice();
        let mut wire = Wire { socket, input, start: 0, end: 0, out: Vec::with_capacity(1 << 16) };
        write!(
            wire.out,
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1,\
             \"lang\":\"compare\",\"version\":\"1\",\"name\":\"{name}\"}}\r\n"
        )?;
        wire.round_trip()?;
        Ok(wire)
    }

    /// The bare connection, when nothing more is to be read.
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// PING and wait for its PONG: everything sent before was processed.
    pub fn round_trip(&mut self) -> io::Result<()> {
        self.out.extend_from_slice(b"PING\r\n");
        self.flush()?;
        loop {
            match self.next_op()? {
                Some(Op::Pong) => return Ok(()),
                Some(_) => {}
                None => self.fill()?,
            }
        }
    }

    pub fn subscribe(&mut self, subject: &str, sid: u32) {
        write!(self.out, "SUB {subject} {sid}\r\n").expect("a Vec takes all");
    }

    pub fn publish(&mut self, subject: &[u8], reply: &[u8], payload: &[u8]) {
        self.out.extend_from_slice(b"PUB ");
        self.out.extend_from_slice(subject);
        self.out.push(b' ');
        if !reply.is_empty() {
            self.out.extend_from_slice(reply);
            self.out.push(b' ');
        }
        push_decimal(&mut self.out, payload.len() as u64);
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(payload);
        self.out.extend_from_slice(b"\r\n");
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Writes `bytes` as they are, past `out`.
    pub fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Reads once; blocks until something comes.
    pub fn fill(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.input.len() - self.end < READ_ROOM_BYTES {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        match self.socket.read(&mut self.input[self.end..]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.end += count;
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The next message if one is whole in the buffer. Answers PINGs on the way; an `-ERR` is an error.
    pub fn next_buffered(&mut self) -> io::Result<Option<Message<'_>>> {
        loop {
            match self.next_op()? {
                Some(Op::Message { subject, reply, headers, payload }) => {
                    let part = |(from, to): (usize, usize)| &self.input[from..to];
                    return Ok(Some(Message {
                        subject: part(subject),
                        reply: part(reply),
                        headers: part(headers),
                        payload: part(payload),
                    }));
                }
                Some(Op::Ping) => self.socket.write_all(b"PONG\r\n")?,
                Some(Op::Pong | Op::Ignored) => {}
                None => return Ok(None),
            }
        }
    }

    /// Waits for the next message and hands it to `read`.
    pub fn next<T>(&mut self, read: impl FnOnce(Message<'_>) -> T) -> io::Result<T> {
        // Two steps, because a borrow returned from inside the loop would outlive `fill`.
        while !self.has_message()? {
            self.fill()?;
        }
        Ok(read(self.next_buffered()?.expect("just looked")))
    }

    /// Skips frames equal in their first line and length to `frame` (subject and size never change while a subscription
    /// is measured); returns how many it skipped. Stops at the first byte that is not one.
    pub fn skip_frames(&mut self, first_line: &[u8], frame_len: usize) -> u64 {
        let input = &self.input[..self.end];
        let mut at = self.start;
        let mut count = 0;
        while input.len() - at >= frame_len && &input[at..at + first_line.len()] == first_line {
            assert_eq!(&input[at + frame_len - 2..at + frame_len], b"\r\n", "a message ends where its length says");
            at += frame_len;
            count += 1;
        }
        self.start = at;
        count
    }

    /// A request on a private inbox; returns the reply's payload.
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> io::Result<Vec<u8>> {
        const INBOX: &str = "_INBOX.compare.call";
        const SID: u32 = 9999;
        let inbox = format!("{INBOX}.{}", std::process::id());
        self.subscribe(&inbox, SID);
        self.publish(subject.as_bytes(), inbox.as_bytes(), payload);
        self.flush()?;
        let reply = loop {
            let reply = self.next(|m| {
                (m.subject == inbox.as_bytes()).then(|| if m.is_status() { Err(()) } else { Ok(m.payload.to_vec()) })
            })?;
            match reply {
                Some(Ok(payload)) => break payload,
                Some(Err(())) => return Err(bad(format!("{subject}: nobody answers"))),
                None => {}
            }
        };
        write!(self.out, "UNSUB {SID}\r\n")?;
        Ok(reply)
    }

    /// A JSON request to the JetStream API.
    pub fn api(&mut self, subject: &str, body: &serde_json::Value) -> io::Result<serde_json::Value> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let reply: serde_json::Value = serde_json::from_slice(&self.request(subject, &body)?)?;
        if reply["error"].is_object() {
            return Err(bad(format!("{subject}: {}", reply["error"])));
        }
        Ok(reply)
    }

    fn has_message(&mut self) -> io::Result<bool> {
        loop {
            let at = self.start;
            match self.next_op()? {
                Some(Op::Message { .. }) => {
                    self.start = at;
                    return Ok(true);
                }
                Some(Op::Ping) => self.socket.write_all(b"PONG\r\n")?,
                Some(Op::Pong | Op::Ignored) => {}
                None => return Ok(false),
            }
        }
    }

    fn next_op(&mut self) -> io::Result<Option<Op>> {
        let input = &self.input[self.start..self.end];
        let Some(line_len) = memchr::memchr(b'\n', input) else { return Ok(None) };
        let line = input[..line_len].strip_suffix(b"\r").ok_or_else(|| bad("a line without CR"))?;
        let after_line = self.start + line_len + 1;
        let has_headers = line.starts_with(b"HMSG ");
        if !has_headers && !line.starts_with(b"MSG ") {
            let op = match line {
                b"PING" => Op::Ping,
                b"PONG" => Op::Pong,
                _ if line.starts_with(b"INFO ") || line == b"+OK" => Op::Ignored,
                _ => return Err(bad(String::from_utf8_lossy(line))),
            };
            self.start = after_line;
            return Ok(Some(op));
        }
        // [H]MSG subject sid [reply] [header bytes] bytes
        let mut fields = [(0, 0); 6];
        let mut count = 0;
        let mut from = self.start;
        for space in memchr::memchr_iter(b' ', line).map(|at| at + self.start).chain([self.start + line.len()]) {
            *fields.get_mut(count).ok_or_else(|| bad(String::from_utf8_lossy(line)))? = (from, space);
            count += 1;
            from = space + 1;
        }
        let number = |(from, to): (usize, usize)| -> usize {
            self.input[from..to].iter().fold(0, |value, digit| value * 10 + usize::from(digit.wrapping_sub(b'0')))
        };
        let sizes = if has_headers { 2 } else { 1 };
        if !(3 + sizes..=4 + sizes).contains(&count) {
            return Err(bad(String::from_utf8_lossy(line)));
        }
        let total = number(fields[count - 1]);
        let header_len = if has_headers { number(fields[count - 2]) } else { 0 };
        if after_line + total + 2 > self.end {
            return Ok(None);
        }
        let reply = if count == 4 + sizes { fields[3] } else { (0, 0) };
        let headers = (after_line, after_line + header_len);
        let payload = (headers.1, after_line + total);
        self.start = payload.1 + 2;
        Ok(Some(Op::Message { subject: fields[1], reply, headers, payload }))
    }
}

pub fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
