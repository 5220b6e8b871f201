//! What grows: a million subjects, five million messages, a thousand consumers, a hundred thousand pending acks. Each row
//! fills a fresh server and then asks it several things, one figure for each.

use crate::load::{Load, now_ns};
use crate::process::Process;
use crate::rows::{Bar, Control, Line, Outcome, Row, Scale, Unit};
use crate::support::server::{Program, Server};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const STREAM: &str = "SCALE";
const WINDOW: u64 = 1000;
/// Fills and slow answers included.
const DEADLINE: Duration = Duration::from_secs(120);

const fn line(name: &'static str, unit: Unit) -> Line {
    let bars: &[Bar] = match unit {
        Unit::PerSecond => &[Bar::AtLeast(1.0)],
        _ => &[Bar::AtMost(1.0)],
    };
    Line { name, unit, bars }
}

const fn row(
    key: &'static str,
    lines: &'static [Line],
    measure: fn(&Program, &Scale) -> Result<Outcome, String>,
) -> Row {
    Row { key, lines, also_always: false, only_ours: false, measure }
}

const KV: &[Line] = &[
    line("KV bucket: put of 1M new keys", Unit::PerSecond),
    line("KV bucket: 500k random puts over 1M keys", Unit::PerSecond),
    line("KV bucket of 1M keys: get of one, p50", Unit::Microseconds),
    line("KV bucket of 1M keys: memory a key (RSS)", Unit::Bytes),
];

const SUBJECTS: &[Line] = &[
    line("stream of 1M subjects: first messages", Unit::PerSecond),
    line("stream of 1M subjects: second messages, at random", Unit::PerSecond),
    line("stream of 1M subjects: counts of 1,000 by wildcard", Unit::Milliseconds),
    line("stream of 1M subjects: consumer of one by wildcard", Unit::Milliseconds),
    line("stream of 1M subjects: purge of one", Unit::Milliseconds),
    line("stream of 1M subjects: purge of 1,000 by wildcard", Unit::Milliseconds),
];

const LOG: &[Line] = &[
    line("5M messages: publish", Unit::PerSecond),
    line("5M messages: one in 10,000 by a consumer's filter", Unit::Milliseconds),
    line("5M messages: restart after SIGTERM", Unit::Milliseconds),
    line("5M messages: restart after kill -9 at rest", Unit::Milliseconds),
    line("5M messages: restart after kill -9 among publishes", Unit::Milliseconds),
    line("5M messages: memory (RSS)", Unit::Bytes),
];

const CONSUMERS: &[Line] = &[
    line("1,000 consumers of one stream: creation", Unit::PerSecond),
    line("1,000 consumers of one stream: publish", Unit::PerSecond),
];

const PENDING: &[Line] = &[
    line("100k pending acks: fetch", Unit::PerSecond),
    line("100k pending acks: acks, the last first", Unit::PerSecond),
];

pub const ROWS: &[Row] = &[
    row("kv", KV, kv),
    row("subjects", SUBJECTS, subjects),
    row("log", LOG, log),
    row("consumers", CONSUMERS, consumers),
    row("pending", PENDING, pending),
];

/// A server with a stream, and what talks to it.
struct Fixture {
    server: Server,
    control: Control,
}

impl Fixture {
    fn start(program: &Program, stream: &Value) -> Result<Fixture, String> {
        let server = Server::start(program.clone())?;
        let mut control = Control::connect(&server)?;
        let name = stream["name"].as_str().unwrap_or_default();
        control.call(&format!("STREAM.CREATE.{name}"), stream)?;
        Ok(Fixture { server, control })
    }

    /// Publishes `count` messages over `keys` subjects and returns how many a second.
    fn fill(&mut self, subject: &str, keys: u64, shuffled: bool, count: u64) -> Result<f64, String> {
        let (address, subject) = (self.server.address(), subject.to_owned());
        let load = Load::Spread { address, subject, keys, shuffled, count, window: WINDOW };
        let mut publisher = Process::start(load)?;
        publisher.go()?;
        let measured = publisher.finish()?;
        Ok(count as f64 * 1e9 / (measured.end_ns - measured.start_ns).max(1) as f64)
    }

    fn state(&mut self) -> Result<Value, String> {
        Ok(self.control.call(&format!("STREAM.INFO.{STREAM}"), &Value::Null)?["state"].take())
    }

    fn expect(&mut self, what: &str, wanted: u64) -> Result<(), String> {
        let state = self.state()?;
        if state[what] == wanted { Ok(()) } else { Err(format!("{wanted} {what} expected, the stream says {state}")) }
    }

    /// From the start of the process to the first answer about the stream, which then holds at least `messages`.
    fn restart(&mut self, messages: u64) -> Result<f64, String> {
        let began = Instant::now();
        self.server.restart()?;
        loop {
            if let Ok(control) = Control::connect(&self.server) {
                self.control = control;
                if self.state().is_ok_and(|state| state["messages"].as_u64() >= Some(messages)) {
                    return Ok(millis(began));
                }
            }
            if began.elapsed() > DEADLINE {
                return Err(format!("the stream is not back\n{}", self.server.log_tail()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The milliseconds from creating a consumer to its last message.
    fn consume(&mut self, filter: &str, wanted: u64) -> Result<f64, String> {
        let began = Instant::now();
        let config = json!({ "durable_name": "filtered", "ack_policy": "none", "filter_subject": filter });
        let body = json!({ "stream_name": STREAM, "config": config });
        self.control.call(&format!("CONSUMER.CREATE.{STREAM}.filtered.{filter}"), &body)?;
        let body = json!({ "batch": wanted, "no_wait": true });
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.filtered");
        let wire = &mut self.control.wire;
        wire.subscribe("_INBOX.filtered", 77);
        wire.publish(next.as_bytes(), b"_INBOX.filtered", body.to_string().as_bytes());
        wire.flush().map_err(|e| e.to_string())?;
        for number in 0..wanted {
            let is_status = wire.next(|message| message.is_status()).map_err(|e| e.to_string())?;
            if is_status {
                return Err(format!("{number} of {wanted} messages for {filter}"));
            }
        }
        let took = millis(began);
        wire.out.extend_from_slice(b"UNSUB 77\r\n");
        self.control.call(&format!("CONSUMER.DELETE.{STREAM}.filtered"), &Value::Null)?;
        Ok(took)
    }

    fn purge(&mut self, filter: &str, wanted: u64) -> Result<f64, String> {
        let began = Instant::now();
        let purged = self.control.call(&format!("STREAM.PURGE.{STREAM}"), &json!({ "filter": filter }))?;
        let took = millis(began);
        if purged["purged"] == wanted { Ok(took) } else { Err(format!("{wanted} to purge of {filter}: {purged}")) }
    }
}

fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn kv(program: &Program, scale: &Scale) -> Result<Outcome, String> {
    let config = json!({
        "name": "KV_SCALE", "subjects": ["$KV.SCALE.>"], "max_msgs_per_subject": 1, "discard": "new",
        "allow_rollup_hdrs": true, "deny_delete": true, "allow_direct": true, "storage": "file", "num_replicas": 1,
    });
    let mut fixture = Fixture::start(program, &config)?;
    let keys = scale.count(1_000_000);
    let before = fixture.server.resident_bytes()?;
    let first = fixture.fill("$KV.SCALE.key.{}", keys, false, keys)?;
    let resident = fixture.server.resident_bytes()?.saturating_sub(before) as f64 / keys as f64;
    let again = fixture.fill("$KV.SCALE.key.{}", keys, true, keys / 2)?;
    let mut nanos = Vec::new();
    for number in 0..2_000 {
        let key = number * 7_919 % keys;
        let began = Instant::now();
        let subject = format!("$JS.API.DIRECT.GET.KV_SCALE.$KV.SCALE.key.{key}");
        let payload = fixture.control.wire.request(&subject, b"").map_err(|e| e.to_string())?;
        if payload.len() != crate::load::PAYLOAD_BYTES {
            return Err(format!("key {key} has {} bytes", payload.len()));
        }
        nanos.push(began.elapsed().as_nanos() as f64);
    }
    nanos.sort_unstable_by(f64::total_cmp);
    Ok(Outcome { values: vec![first, again, nanos[nanos.len() / 2] / 1e3, resident], cpu_us: None })
}

fn subjects(program: &Program, scale: &Scale) -> Result<Outcome, String> {
    let config = json!({ "name": STREAM, "subjects": ["s.>"], "storage": "file", "num_replicas": 1 });
    let mut fixture = Fixture::start(program, &config)?;
    let keys = scale.count(1_000_000);
    // Tokens of a thousand each: s.<number / 1000>.<number % 1000>.
    let first = fixture.fill("s.{/}.{%}", keys, false, keys)?;
    let second = fixture.fill("s.{/}.{%}", keys, true, keys)?;
    fixture.expect("num_subjects", keys)?;
    let began = Instant::now();
    let body = json!({ "subjects_filter": "s.77.*" });
    let info = fixture.control.call(&format!("STREAM.INFO.{STREAM}"), &body)?;
    let counts = millis(began);
    let told = info["state"]["subjects"].as_object().map_or(0, serde_json::Map::len);
    if told != 1_000 {
        return Err(format!("1000 subjects to tell, told {told}"));
    }
    let consume = fixture.consume("s.42.*", 2_000)?;
    let one = fixture.purge("s.55.55", 2)?;
    let many = fixture.purge("s.78.*", 2_000)?;
    Ok(Outcome { values: vec![first, second, counts, consume, one, many], cpu_us: None })
}

fn log(program: &Program, scale: &Scale) -> Result<Outcome, String> {
    let config = json!({ "name": STREAM, "subjects": ["s.>"], "storage": "file", "num_replicas": 1 });
    let mut fixture = Fixture::start(program, &config)?;
    let count = scale.count(5_000_000);
    let rate = fixture.fill("s.{}.x", 10_000, false, count)?;
    fixture.expect("messages", count)?;
    let filtered = fixture.consume("s.77.*", count / 10_000)?;
    fixture.server.stop()?;
    let clean = fixture.restart(count)?;
    let _ = fixture.fill("s.{}.x", 10_000, false, 1_000)?;
    // A server that was quiet for a second when it was killed.
    std::thread::sleep(Duration::from_secs(1));
    fixture.server.kill();
    let killed = fixture.restart(count + 1_000)?;
    let resident = fixture.server.resident_bytes()? as f64;
    // One that is killed while it writes.
    let wire = &mut fixture.control.wire;
    for number in 0..scale.count(100_000) {
        wire.publish(format!("s.{}.x", number % 10_000).as_bytes(), b"", &[b'x'; crate::load::PAYLOAD_BYTES]);
        if wire.out.len() > 64 * 1024 {
            wire.flush().map_err(|e| e.to_string())?;
        }
    }
    fixture.server.kill();
    let torn = fixture.restart(count + 1_000)?;
    Ok(Outcome { values: vec![rate, filtered, clean, killed, torn, resident], cpu_us: None })
}

fn consumers(program: &Program, scale: &Scale) -> Result<Outcome, String> {
    let config = json!({ "name": STREAM, "subjects": ["s.>"], "storage": "file", "num_replicas": 1 });
    let mut fixture = Fixture::start(program, &config)?;
    let consumers = scale.count(1_000);
    let began = Instant::now();
    for number in 0..consumers {
        let filter = format!("s.{number}.>");
        let config =
            json!({ "durable_name": format!("c{number}"), "ack_policy": "explicit", "filter_subject": filter });
        let body = json!({ "stream_name": STREAM, "config": config });
        fixture.control.call(&format!("CONSUMER.CREATE.{STREAM}.c{number}.{filter}"), &body)?;
    }
    let created = consumers as f64 / began.elapsed().as_secs_f64();
    let published = fixture.fill("s.{}.x", consumers, true, scale.count(200_000))?;
    Ok(Outcome { values: vec![created, published], cpu_us: None })
}

fn pending(program: &Program, scale: &Scale) -> Result<Outcome, String> {
    let config = json!({ "name": STREAM, "subjects": ["s.>"], "storage": "file", "num_replicas": 1 });
    let mut fixture = Fixture::start(program, &config)?;
    let count = scale.count(100_000);
    fixture.fill("s.{}", 100, false, count)?;
    let config = json!({
        "durable_name": "c", "ack_policy": "explicit", "max_ack_pending": count, "ack_wait": 600_000_000_000_u64,
    });
    let body = json!({ "stream_name": STREAM, "config": config });
    fixture.control.call(&format!("CONSUMER.DURABLE.CREATE.{STREAM}.c"), &body)?;
    let wire = &mut fixture.control.wire;
    wire.subscribe("_INBOX.pending", 78);
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.c");
    let mut replies = Vec::with_capacity(count as usize);
    let started = now_ns();
    while (replies.len() as u64) < count {
        wire.publish(next.as_bytes(), b"_INBOX.pending", br#"{"batch":1000,"expires":5000000000}"#);
        wire.flush().map_err(|e| e.to_string())?;
        for _ in 0..1000 {
            let reply = wire.next(|m| (!m.is_status()).then(|| m.reply.to_vec())).map_err(|e| e.to_string())?;
            replies.push(reply.ok_or("a pull ended early")?);
        }
    }
    let fetched = count as f64 * 1e9 / (now_ns() - started) as f64;
    let started = Instant::now();
    for reply in replies.iter().rev() {
        wire.publish(reply, b"", b"+ACK");
        if wire.out.len() > 64 * 1024 {
            wire.flush().map_err(|e| e.to_string())?;
        }
    }
    wire.round_trip().map_err(|e| e.to_string())?;
    fixture.control.wait(|control| {
        Ok(control.call(&format!("CONSUMER.INFO.{STREAM}.c"), &Value::Null)?["num_ack_pending"] == 0)
    })?;
    let acked = count as f64 / started.elapsed().as_secs_f64();
    Ok(Outcome { values: vec![fetched, acked], cpu_us: None })
}
