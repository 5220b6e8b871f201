//! What runs in the load processes: one load each, told by its argument. A load connects, prints `ready`, waits for `go`
//! on its standard input, works, and prints one JSON line with what it measured.

use crate::crew;
use crate::wire::{Wire, push_decimal};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// 128 B, as every figure says.
pub const PAYLOAD_BYTES: usize = 128;
const WRITE_BYTES: usize = 256 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Load {
    /// Publishes `count` messages as fast as the server takes them, then waits for a PONG.
    Publish { address: String, subject: String, count: u64 },
    /// Receives `count` messages of one subject on each of `connections` connections.
    Subscribe { address: String, subject: String, count: u64, connections: usize },
    /// Sends `count` requests, one at a time.
    Request { address: String, subject: String, count: u64 },
    /// Answers requests until it is killed.
    Respond { address: String, subject: String },
    /// Publishes `count` messages to a stream with at most `window` PubAcks outstanding.
    Persist { address: String, subject: String, count: u64, window: u64 },
    /// As `Persist`, over `keys` subjects: `{}` in the subject is a key's number, `{/}` and `{%}` are its thousands and the
    /// rest. In order, or jumping about.
    Spread { address: String, subject: String, keys: u64, shuffled: bool, count: u64, window: u64 },
    /// Pulls and acks from a durable consumer on `workers` connections, until `count` messages have come or it is killed.
    Workers { address: String, stream: String, consumer: String, batch: u64, workers: usize, count: u64 },
    /// Publishes `count` messages that say when they were sent, so many a second, and waits for no answer.
    Paced { address: String, subject: String, count: u64, per_second: f64 },
    /// Submits `count` tasks to the coordinator with at most `window` unanswered.
    Submit { address: String, count: u64, window: u64 },
    /// Registers so many agents with the coordinator, pulls and completes until `count` tasks are completed.
    Agents { address: String, agents: usize, slots: u64, count: u64 },
    /// Opens `count` connections and keeps them, idle, until its input ends.
    Idle { address: String, count: u64 },
}

/// What a load reports. Times are nanoseconds of the system clock, which all processes of one machine share.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    pub start_ns: u64,
    pub end_ns: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
}

pub fn run(load: &Load) -> io::Result<()> {
    let measured = match load {
        Load::Publish { address, subject, count } => publish(address, subject, *count),
        Load::Subscribe { address, subject, count, connections } => subscribe(address, subject, *count, *connections),
        Load::Request { address, subject, count } => request(address, subject, *count),
        Load::Respond { address, subject } => respond(address, subject),
        Load::Persist { address, subject, count, window } => {
            persist(address, |_, out| out.extend_from_slice(subject.as_bytes()), b"\"seq\"", *count, *window)
        }
        Load::Spread { address, subject, keys, shuffled, count, window } => {
            let parts = Template::new(subject);
            // An odd multiplier that shares no factor with the counts used here visits every key once a round.
            let step = if *shuffled { 2_654_435_761 } else { 1 };
            let name = |number: u64, out: &mut Vec<u8>| parts.fill(number.wrapping_mul(step) % keys, out);
            persist(address, name, b"\"seq\"", *count, *window)
        }
        Load::Submit { address, count, window } => {
            let name = |_, out: &mut Vec<u8>| out.extend_from_slice(b"$TASK.API.SUBMIT");
            persist(address, name, b"\"phase\"", *count, *window)
        }
        Load::Agents { address, agents, slots, count } => crew::agents(address, *agents, *slots, *count),
        Load::Workers { address, stream, consumer, batch, workers, count } => {
            crew::workers(address, stream, consumer, *batch, *workers, *count)
        }
        Load::Paced { address, subject, count, per_second } => paced(address, subject, *count, *per_second),
        Load::Idle { address, count } => idle(address, *count),
    }?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

pub fn ready_then_go() -> io::Result<u64> {
    println!("ready");
    io::stdout().flush()?;
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(now_ns())
}

pub fn now_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(elapsed.as_nanos()).expect("until the year 2554")
}

fn publish(address: &str, subject: &str, count: u64) -> io::Result<Measured> {
    let mut wire = Wire::connect(address, "publisher")?;
    let frame = format!("PUB {subject} {PAYLOAD_BYTES}\r\n{}\r\n", "x".repeat(PAYLOAD_BYTES)).into_bytes();
    let per_write = (WRITE_BYTES / frame.len()) as u64;
    let burst = frame.repeat(per_write as usize);
    let start_ns = ready_then_go()?;
    for _ in 0..count / per_write {
        wire.write_raw(&burst)?;
    }
    wire.write_raw(&burst[..frame.len() * (count % per_write) as usize])?;
    wire.round_trip()?;
    Ok(Measured { start_ns, end_ns: now_ns(), ..Measured::default() })
}

fn subscribe(address: &str, subject: &str, count: u64, connections: usize) -> io::Result<Measured> {
    let mut wires = Vec::new();
    for _ in 0..connections {
        let mut wire = Wire::connect(address, "subscriber")?;
        wire.subscribe(subject, 1);
        wire.round_trip()?;
        wires.push(wire);
    }
    let start_ns = ready_then_go()?;
    let first_line = format!("MSG {subject} 1 {PAYLOAD_BYTES}\r\n").into_bytes();
    let frame_len = first_line.len() + PAYLOAD_BYTES + 2;
    let receive = |mut wire: Wire| -> io::Result<()> {
        let mut received = 0;
        while received < count {
            received += wire.skip_frames(&first_line, frame_len);
            if let Some(message) = wire.next_buffered()? {
                assert_eq!((message.subject, message.payload.len()), (subject.as_bytes(), PAYLOAD_BYTES));
                received += 1;
            } else if received < count {
                wire.fill().map_err(|e| io::Error::new(e.kind(), format!("after {received} of {count}: {e}")))?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = wires.into_iter().map(|wire| scope.spawn(|| receive(wire))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic while receiving"))
    })?;
    Ok(Measured { start_ns, end_ns: now_ns(), ..Measured::default() })
}

fn request(address: &str, subject: &str, count: u64) -> io::Result<Measured> {
    let mut wire = Wire::connect(address, "requester")?;
    wire.subscribe("_INBOX.compare.*", 1);
    wire.round_trip()?;
    let payload = [b'x'; PAYLOAD_BYTES];
    let start_ns = ready_then_go()?;
    let mut nanos = Vec::with_capacity(count as usize);
    let mut inbox = Vec::new();
    for number in 0..count {
        inbox.clear();
        inbox.extend_from_slice(b"_INBOX.compare.");
        push_decimal(&mut inbox, number);
        let sent = Instant::now();
        wire.publish(subject.as_bytes(), &inbox, &payload);
        wire.flush()?;
        let answered = wire.next(|m| m.subject == inbox && m.payload.len() == PAYLOAD_BYTES)?;
        nanos.push(sent.elapsed().as_nanos() as u64);
        if !answered {
            return Err(io::Error::other("a reply that is not the awaited one"));
        }
    }
    Ok(with_percentiles(start_ns, nanos))
}

fn respond(address: &str, subject: &str) -> io::Result<Measured> {
    let mut wire = Wire::connect(address, "responder")?;
    wire.subscribe(subject, 1);
    wire.round_trip()?;
    ready_then_go()?;
    let mut reply = Vec::new();
    loop {
        let payload = wire.next(|m| {
            reply.clear();
            reply.extend_from_slice(m.reply);
            m.payload.to_vec()
        })?;
        wire.publish(&reply, b"", &payload);
        wire.flush()?;
    }
}

/// A subject with places for a number.
struct Template(Vec<Part>);

enum Part {
    Text(String),
    Number,
    Thousands,
    Rest,
}

impl Template {
    fn new(text: &str) -> Template {
        let mut parts = Vec::new();
        for piece in text.split_inclusive('}') {
            let (before, part) = match piece.split_once('{') {
                Some((before, "}")) => (before, Some(Part::Number)),
                Some((before, "/}")) => (before, Some(Part::Thousands)),
                Some((before, "%}")) => (before, Some(Part::Rest)),
                _ => (piece, None),
            };
            parts.push(Part::Text(before.to_owned()));
            parts.extend(part);
        }
        Template(parts)
    }

    fn fill(&self, number: u64, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Number => push_decimal(out, number),
                Part::Thousands => push_decimal(out, number / 1000),
                Part::Rest => push_decimal(out, number % 1000),
            }
        }
    }
}

/// Publishes with a window of answers, each of which has `wanted` in it; `name` writes the subject of each message.
fn persist(
    address: &str,
    name: impl Fn(u64, &mut Vec<u8>),
    wanted: &[u8],
    count: u64,
    window: u64,
) -> io::Result<Measured> {
    let mut subject = Vec::new();
    let mut wire = Wire::connect(address, "stream publisher")?;
    wire.subscribe("_INBOX.puback.*", 1);
    wire.round_trip()?;
    let payload = [b'x'; PAYLOAD_BYTES];
    let mut inbox = Vec::new();
    let mut nanos = Vec::new();
    let start_ns = ready_then_go()?;
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        let began = Instant::now();
        while sent < count && sent - acked < window {
            inbox.clear();
            inbox.extend_from_slice(b"_INBOX.puback.");
            push_decimal(&mut inbox, sent);
            subject.clear();
            name(sent, &mut subject);
            wire.publish(&subject, &inbox, &payload);
            sent += 1;
        }
        wire.flush()?;
        wire.fill()?;
        while let Some(ack) = wire.next_buffered()? {
            if ack.is_status() || memchr::memmem::find(ack.payload, wanted).is_none() {
                let text = String::from_utf8_lossy(ack.payload).into_owned();
                return Err(io::Error::other(format!("not the answer awaited: {text}")));
            }
            acked += 1;
        }
        if window == 1 {
            nanos.push(began.elapsed().as_nanos() as u64);
        }
    }
    Ok(with_percentiles(start_ns, nanos))
}

fn paced(address: &str, subject: &str, count: u64, per_second: f64) -> io::Result<Measured> {
    let mut wire = Wire::connect(address, "paced publisher")?;
    wire.round_trip()?;
    let start_ns = ready_then_go()?;
    let begun = Instant::now();
    let mut sent = 0;
    while sent < count {
        let due = ((begun.elapsed().as_secs_f64() * per_second) as u64 + 1).min(count);
        for _ in sent..due {
            wire.publish(subject.as_bytes(), b"", &crew::stamp());
        }
        sent = sent.max(due);
        wire.flush()?;
        std::thread::sleep(Duration::from_micros(200));
    }
    wire.round_trip()?;
    Ok(Measured { start_ns, end_ns: now_ns(), ..Measured::default() })
}

fn idle(address: &str, count: u64) -> io::Result<Measured> {
    let mut sockets = Vec::new();
    for number in 0..count {
        sockets.push(Wire::connect(address, &format!("idle-{number}"))?.into_socket());
    }
    ready_then_go()?;
    Ok(Measured::default())
}

pub fn with_percentiles(start_ns: u64, mut nanos: Vec<u64>) -> Measured {
    nanos.sort_unstable();
    let at = |hundredth: usize| nanos.get((nanos.len() * hundredth / 100).min(nanos.len().saturating_sub(1))).copied();
    let (p50_ns, p99_ns) = (at(50).unwrap_or(0), at(99).unwrap_or(0));
    Measured { start_ns, end_ns: now_ns(), p50_ns, p99_ns }
}
