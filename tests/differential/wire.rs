//! A small blocking NATS client that sends whatever it is told, also what no client library would, and keeps what comes
//! back by subscription. It knows nothing of JetStream.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest wait for the answer to a PING, and for whatever is certain to come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A message as it was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub subject: String,
    pub reply: String,
    /// The header block, with `NATS/1.0` and the empty line; empty without headers.
    pub headers: Vec<u8>,
    pub body: Vec<u8>,
}

pub struct Wire {
    socket: TcpStream,
    read: Vec<u8>,
    arrived: BTreeMap<u64, VecDeque<Delivered>>,
    /// `-ERR` lines that nobody has asked for yet.
    pub errors: Vec<String>,
    pongs: u64,
    last_sid: u64,
}

impl Wire {
    pub fn connect(address: &str, user: Option<(&str, &str)>) -> Result<Wire, String> {
        let socket = TcpStream::connect(address).map_err(|e| format!("{address}: {e}"))?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        let mut wire =
            Wire { socket, read: Vec::new(), arrived: BTreeMap::new(), errors: Vec::new(), pongs: 0, last_sid: 0 };
        let user = user.map(|(name, password)| format!(r#","user":"{name}","pass":"{password}""#)).unwrap_or_default();
        let options =
            r#""verbose":false,"headers":true,"no_responders":true,"name":"differential","lang":"test","version":"1""#;
        wire.send(format!("CONNECT {{{options}{user}}}\r\n").as_bytes())?;
        wire.flush()?;
        Ok(wire)
    }

    pub fn subscribe(&mut self, subject: &str, queue: &str) -> Result<u64, String> {
        self.last_sid += 1;
        let sid = self.last_sid;
        let line = match queue {
            "" => format!("SUB {subject} {sid}\r\n"),
            _ => format!("SUB {subject} {queue} {sid}\r\n"),
        };
        self.send(line.as_bytes())?;
        Ok(sid)
    }

    pub fn unsubscribe(&mut self, sid: u64) -> Result<(), String> {
        self.send(format!("UNSUB {sid}\r\n").as_bytes())?;
        self.arrived.remove(&sid);
        Ok(())
    }

    /// Publishes; `headers` is a whole block or empty.
    pub fn publish(&mut self, subject: &str, reply: &str, headers: &[u8], body: &[u8]) -> Result<(), String> {
        let space = if reply.is_empty() { "" } else { " " };
        let mut bytes = match headers {
            [] => format!("PUB {subject} {reply}{space}{}\r\n", body.len()),
            _ => {
                format!("HPUB {subject} {reply}{space}{} {}\r\n", headers.len(), headers.len() + body.len())
            }
        }
        .into_bytes();
        bytes.extend_from_slice(headers);
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\r\n");
        self.send(&bytes)
    }

    /// Returns once the server has read everything sent so far.
    pub fn flush(&mut self) -> Result<(), String> {
        self.send(b"PING\r\n")?;
        let (before, deadline) = (self.pongs, Instant::now() + PATIENCE);
        while self.pongs == before {
            if !self.pump(deadline)? {
                return Err("no PONG".to_owned());
            }
        }
        Ok(())
    }

    /// The next message of a subscription, waited for until `deadline`.
    pub fn next(&mut self, sid: u64, deadline: Instant) -> Result<Option<Delivered>, String> {
        loop {
            if let Some(message) = self.arrived.get_mut(&sid).and_then(VecDeque::pop_front) {
                return Ok(Some(message));
            }
            if !self.pump(deadline)? {
                return Ok(None);
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.socket.write_all(bytes).map_err(|e| format!("the connection broke: {e}; {:?}", self.errors))
    }

    /// Takes in one operation; false when none came in time.
    fn pump(&mut self, deadline: Instant) -> Result<bool, String> {
        loop {
            if let Some(length) = self.take_operation()? {
                self.read.drain(..length);
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
            let mut chunk = [0; 64 * 1024];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(format!("the server closed the connection; {:?}", self.errors)),
                Ok(length) => self.read.extend_from_slice(&chunk[..length]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Ok(false);
                    }
                }
                Err(e) => return Err(format!("the connection broke: {e}; {:?}", self.errors)),
            }
        }
    }

    /// Handles the operation at the front of what was read, and says how long it is; `None` when it is not whole.
    fn take_operation(&mut self) -> Result<Option<usize>, String> {
        let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
        let after = end + 2;
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("not understood: {line}"));
        match fields.as_slice() {
            ["MSG", subject, sid, rest @ .., total] => {
                let total = number(total)?;
                self.deliver(subject, sid, rest, after, 0, total)
            }
            ["HMSG", subject, sid, rest @ .., head, total] => {
                let (head, total) = (number(head)?, number(total)?);
                self.deliver(subject, sid, rest, after, head, total)
            }
            ["PONG"] => {
                self.pongs += 1;
                Ok(Some(after))
            }
            ["PING"] => {
                self.send(b"PONG\r\n")?;
                Ok(Some(after))
            }
            ["-ERR", ..] => {
                self.errors.push(line.clone());
                Ok(Some(after))
            }
            ["INFO", ..] | ["+OK"] => Ok(Some(after)),
            _ => Err(format!("not understood: {line}")),
        }
    }

    fn deliver(
        &mut self,
        subject: &str,
        sid: &str,
        reply: &[&str],
        start: usize,
        head: usize,
        total: usize,
    ) -> Result<Option<usize>, String> {
        if self.read.len() < start + total + 2 {
            return Ok(None);
        }
        let sid = sid.parse().map_err(|_| format!("a sid we never gave: {sid}"))?;
        let message = Delivered {
            subject: subject.to_owned(),
            reply: reply.first().copied().unwrap_or_default().to_owned(),
            headers: self.read[start..start + head].to_vec(),
            body: self.read[start + head..start + total].to_vec(),
        };
        self.arrived.entry(sid).or_default().push_back(message);
        Ok(Some(start + total + 2))
    }
}
