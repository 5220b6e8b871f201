//! What is measured: one function per row, each on a fresh server, and the bars that the figures are held to.

use crate::load::{Load, now_ns};
use crate::process::Process;
use crate::support::server::{Program, Server, free_port};
use crate::tasks;
use crate::wire::Wire;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const STREAM: &str = "BENCH";
pub const CONSUMER: &str = "worker";
pub const SUBJECT: &str = "bench.work";
pub const WINDOW: u64 = 1000;
const IDLE_CONNECTIONS: u64 = 10_000;
/// No row takes longer than this unless something hangs.
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);

/// One row of measurements; it gives one figure per line.
pub struct Row {
    pub key: &'static str,
    pub lines: &'static [Line],
    /// Measured with nats-server's `sync_interval: always` too.
    pub also_always: bool,
    /// What only we have is not asked of the other.
    pub only_ours: bool,
    pub measure: fn(&Program, &Scale) -> Result<Outcome, String>,
}

pub struct Line {
    pub name: &'static str,
    pub unit: Unit,
    pub bars: &'static [Bar],
}

#[derive(Clone, Copy)]
pub enum Unit {
    PerSecond,
    Microseconds,
    Milliseconds,
    Bytes,
}

/// A ratio is ours divided by theirs.
pub enum Bar {
    AtLeast(f64),
    AtMost(f64),
    AtLeastAlways(f64),
    AtMostAlways(f64),
    /// Of our own figure, whatever theirs is.
    OwnAtMost(f64),
    OwnAtLeast(f64),
}

/// What one measurement gave.
pub struct Outcome {
    /// One figure per line of the row.
    pub values: Vec<f64>,
    /// Microseconds of processor time per message: the server's, and all load processes' together. Unlike a rate it does
    /// not depend on what else the machine does; and a load that needs more than the server bounds the figure.
    pub cpu_us: Option<(f64, f64)>,
}

impl From<f64> for Outcome {
    fn from(value: f64) -> Outcome {
        Outcome { values: vec![value], cpu_us: None }
    }
}

/// The server's processor time from here on.
pub struct Meter {
    before: Duration,
}

impl Meter {
    pub fn start(server: &Server) -> Meter {
        Meter { before: server.cpu() }
    }

    pub fn stop(self, server: &Server, loads: &[&Process], count: u64, values: Vec<f64>) -> Outcome {
        let per_message = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        let server_us = per_message(server.cpu().saturating_sub(self.before));
        let load_us = per_message(loads.iter().map(|load| load.cpu()).sum());
        Outcome { values, cpu_us: Some((server_us, load_us)) }
    }
}

/// How many messages a measurement uses.
pub struct Scale {
    pub quick: bool,
}

impl Scale {
    pub fn count(&self, full: u64) -> u64 {
        if self.quick { full / 10 } else { full }
    }

    /// As `count`, ten times fewer for a server that syncs after every message.
    pub fn durable_count(&self, program: &Program, full: u64) -> u64 {
        self.count(if program.is_sync_always() { full / 10 } else { full })
    }
}

pub const ROWS: &[Row] = &[
    Row {
        key: "publish",
        lines: &[Line { name: "core publish", unit: Unit::PerSecond, bars: &[Bar::AtLeast(1.8)] }],
        also_always: false,
        only_ours: false,
        measure: core_publish,
    },
    Row {
        key: "pair",
        lines: &[Line { name: "1:1", unit: Unit::PerSecond, bars: &[Bar::AtLeast(2.0)] }],
        also_always: false,
        only_ours: false,
        measure: |program, scale| fan_out(program, scale.count(5_000_000), 1),
    },
    Row {
        key: "fanout",
        lines: &[Line { name: "1:10 fan-out, delivered", unit: Unit::PerSecond, bars: &[Bar::AtLeast(3.0)] }],
        also_always: false,
        only_ours: false,
        measure: |program, scale| fan_out(program, scale.count(600_000), 10),
    },
    Row {
        key: "request",
        lines: &[
            Line { name: "request/reply p50", unit: Unit::Microseconds, bars: &[Bar::AtMost(0.85)] },
            Line { name: "request/reply p99", unit: Unit::Microseconds, bars: &[] },
        ],
        also_always: false,
        only_ours: false,
        measure: request_reply,
    },
    Row {
        key: "js-sync",
        lines: &[Line {
            name: "JetStream publish, sync p50",
            unit: Unit::Microseconds,
            bars: &[Bar::AtMostAlways(3.0)],
        }],
        also_always: true,
        only_ours: false,
        measure: persist_sync,
    },
    Row {
        key: "js-async",
        lines: &[Line {
            name: "JetStream publish, async window 1000",
            unit: Unit::PerSecond,
            bars: &[Bar::AtLeast(1.2), Bar::AtLeastAlways(20.0)],
        }],
        also_always: true,
        only_ours: false,
        measure: persist_async,
    },
    Row {
        key: "fetch1",
        lines: &[Line { name: "pull fetch + ack, 1 worker", unit: Unit::PerSecond, bars: &[Bar::AtLeast(1.2)] }],
        also_always: false,
        only_ours: false,
        measure: |program, scale| fetch_and_ack(program, scale.count(300_000), 1),
    },
    Row {
        key: "fetch4",
        lines: &[Line { name: "pull fetch + ack, 4 workers", unit: Unit::PerSecond, bars: &[Bar::AtLeast(1.2)] }],
        also_always: false,
        only_ours: false,
        measure: |program, scale| fetch_and_ack(program, scale.count(300_000), 4),
    },
    Row {
        key: "workqueue",
        lines: &[Line { name: "work queue end to end, 4 workers", unit: Unit::PerSecond, bars: &[Bar::AtLeast(2.0)] }],
        also_always: false,
        only_ours: false,
        measure: |program, scale| work_queue(program, scale.count(150_000), 4),
    },
    Row {
        key: "tasks1",
        lines: &tasks::lines!("1 agent"),
        also_always: true,
        only_ours: false,
        measure: |program, scale| tasks::tasks(program, scale, 1),
    },
    Row {
        key: "tasks8",
        lines: &tasks::lines!("8 agents"),
        also_always: true,
        only_ours: false,
        measure: |program, scale| tasks::tasks(program, scale, 8),
    },
    Row {
        key: "tasks64",
        lines: &tasks::lines!("64 agents"),
        also_always: true,
        only_ours: false,
        measure: |program, scale| tasks::tasks(program, scale, 64),
    },
    Row {
        key: "rss",
        lines: &[Line {
            name: "idle memory (RSS)",
            unit: Unit::Bytes,
            bars: &[Bar::OwnAtMost(12.0 * 1024.0 * 1024.0)],
        }],
        also_always: false,
        only_ours: false,
        measure: idle_memory,
    },
    Row {
        key: "connections",
        lines: &[Line {
            name: "each of 10,000 idle connections",
            unit: Unit::Bytes,
            bars: &[Bar::OwnAtMost(16.0 * 1024.0)],
        }],
        also_always: false,
        only_ours: false,
        measure: idle_connections,
    },
    Row {
        key: "startup",
        lines: &[Line { name: "start-up to the first INFO, empty store", unit: Unit::Milliseconds, bars: &[] }],
        also_always: false,
        only_ours: false,
        measure: start_up,
    },
];

fn core_publish(program: &Program, scale: &Scale) -> Result<Outcome, String> {
    let server = Server::start(program.clone())?;
    let count = scale.count(10_000_000);
    let mut publisher = Process::start(Load::Publish { address: server.address(), subject: SUBJECT.into(), count })?;
    let meter = Meter::start(&server);
    publisher.go()?;
    let measured = publisher.finish()?;
    let rate = per_second(count, measured.start_ns, measured.end_ns);
    Ok(meter.stop(&server, &[&publisher], count, vec![rate]))
}

fn fan_out(program: &Program, count: u64, connections: usize) -> Result<Outcome, String> {
    let server = Server::start(program.clone())?;
    let (address, subject) = (server.address(), SUBJECT.to_string());
    let mut subscriber =
        Process::start(Load::Subscribe { address: address.clone(), subject: subject.clone(), count, connections })?;
    let mut publisher = Process::start(Load::Publish { address, subject, count })?;
    let meter = Meter::start(&server);
    subscriber.go()?;
    publisher.go()?;
    let start_ns = publisher.finish()?.start_ns;
    let end_ns = subscriber.finish()?.end_ns;
    let delivered = count * connections as u64;
    let rate = per_second(delivered, start_ns, end_ns);
    Ok(meter.stop(&server, &[&publisher, &subscriber], delivered, vec![rate]))
}

fn request_reply(program: &Program, scale: &Scale) -> Result<Outcome, String> {
    let server = Server::start(program.clone())?;
    let (address, subject) = (server.address(), SUBJECT.to_string());
    let mut responder = Process::start(Load::Respond { address: address.clone(), subject: subject.clone() })?;
    let count = scale.count(30_000);
    let mut requester = Process::start(Load::Request { address, subject, count })?;
    let meter = Meter::start(&server);
    responder.go()?;
    requester.go()?;
    let measured = requester.finish()?;
    let micros = vec![measured.p50_ns as f64 / 1e3, measured.p99_ns as f64 / 1e3];
    Ok(meter.stop(&server, &[&responder, &requester], count, micros))
}

fn persist_sync(program: &Program, scale: &Scale) -> Result<Outcome, String> {
    let server = Server::start(program.clone())?;
    let mut control = Control::connect(&server)?;
    control.create_stream("limits")?;
    let count = scale.count(5_000);
    let load = Load::Persist { address: server.address(), subject: SUBJECT.into(), count, window: 1 };
    let mut publisher = Process::start(load)?;
    let meter = Meter::start(&server);
    publisher.go()?;
    let micros = publisher.finish()?.p50_ns as f64 / 1e3;
    Ok(meter.stop(&server, &[&publisher], count, vec![micros]))
}

fn persist_async(program: &Program, scale: &Scale) -> Result<Outcome, String> {
    let server = Server::start(program.clone())?;
    let count = scale.durable_count(program, 500_000);
    let mut control = Control::connect(&server)?;
    control.create_stream("limits")?;
    let mut publisher = start_persist(&server, count)?;
    let meter = Meter::start(&server);
    publisher.go()?;
    let measured = publisher.finish()?;
    let rate = per_second(count, measured.start_ns, measured.end_ns);
    let outcome = meter.stop(&server, &[&publisher], count, vec![rate]);
    let state = control.stream_state()?;
    if state["messages"] != count {
        return Err(format!("{count} messages acked, the stream says {state}"));
    }
    Ok(outcome)
}

fn fetch_and_ack(program: &Program, count: u64, workers: usize) -> Result<Outcome, String> {
    let server = Server::start(program.clone())?;
    let mut control = Control::connect(&server)?;
    control.create_stream("limits")?;
    let mut publisher = start_persist(&server, count)?;
    publisher.go()?;
    publisher.finish()?;
    control.create_consumer()?;
    let mut workers = start_workers(&server, workers)?;
    let meter = Meter::start(&server);
    let start_ns = now_ns();
    workers.iter_mut().try_for_each(Process::go)?;
    control.wait(|control| {
        let info = control.call(&format!("CONSUMER.INFO.{STREAM}.{CONSUMER}"), &Value::Null)?;
        Ok(info["num_pending"] == 0 && info["num_ack_pending"] == 0)
    })?;
    let rate = per_second(count, start_ns, now_ns());
    Ok(meter.stop(&server, &workers.iter().collect::<Vec<_>>(), count, vec![rate]))
}

fn work_queue(program: &Program, count: u64, workers: usize) -> Result<Outcome, String> {
    let server = Server::start(program.clone())?;
    let mut control = Control::connect(&server)?;
    control.create_stream("workqueue")?;
    control.create_consumer()?;
    let mut workers = start_workers(&server, workers)?;
    let mut publisher = start_persist(&server, count)?;
    let meter = Meter::start(&server);
    workers.iter_mut().try_for_each(Process::go)?;
    publisher.go()?;
    let start_ns = publisher.finish()?.start_ns;
    control.wait(|control| {
        let state = control.stream_state()?;
        Ok(state["messages"] == 0 && state["last_seq"] == count)
    })?;
    let rate = per_second(count, start_ns, now_ns());
    let loads: Vec<&Process> = workers.iter().chain([&publisher]).collect();
    Ok(meter.stop(&server, &loads, count, vec![rate]))
}

fn idle_memory(program: &Program, _scale: &Scale) -> Result<Outcome, String> {
    let server = Server::start(program.clone())?;
    let mut control = Control::connect(&server)?;
    control.wire.round_trip().map_err(|e| e.to_string())?;
    // What start-up leaves behind settles within this.
    std::thread::sleep(Duration::from_millis(500));
    Ok((server.resident_bytes()? as f64).into())
}

fn idle_connections(program: &Program, _scale: &Scale) -> Result<Outcome, String> {
    let server = Server::start(program.clone())?;
    Control::connect(&server)?;
    std::thread::sleep(Duration::from_millis(500));
    let before = server.resident_bytes()?;
    let _connections = Process::start(Load::Idle { address: server.address(), count: IDLE_CONNECTIONS })?;
    std::thread::sleep(Duration::from_millis(500));
    let more = server.resident_bytes()?.saturating_sub(before);
    Ok((more as f64 / IDLE_CONNECTIONS as f64).into())
}

fn start_up(program: &Program, _scale: &Scale) -> Result<Outcome, String> {
    let mut millis = Vec::new();
    for _ in 0..5 {
        let port = free_port();
        let began = Instant::now();
        let server = Server::spawn_on(program.clone(), port)?;
        loop {
            use std::io::Read;
            let greeted = std::net::TcpStream::connect(server.address()).and_then(|mut socket| {
                let mut greeting = [0; 5];
                socket.read_exact(&mut greeting)?;
                Ok(&greeting == b"INFO ")
            });
            match greeted {
                Ok(true) => break,
                Ok(false) => return Err("a greeting that is not INFO".into()),
                Err(_) if began.elapsed() > DRAIN_DEADLINE => return Err(format!("no start\n{}", server.log_tail())),
                Err(_) => std::thread::sleep(Duration::from_micros(100)),
            }
        }
        millis.push(began.elapsed().as_secs_f64() * 1e3);
    }
    millis.sort_unstable_by(f64::total_cmp);
    Ok(millis[millis.len() / 2].into())
}

pub fn start_persist(server: &Server, count: u64) -> Result<Process, String> {
    Process::start(Load::Persist { address: server.address(), subject: SUBJECT.into(), count, window: WINDOW })
}

fn start_workers(server: &Server, workers: usize) -> Result<Vec<Process>, String> {
    let load = |_| {
        let (address, stream, consumer) = (server.address(), STREAM.into(), CONSUMER.into());
        Load::Workers { address, stream, consumer, batch: 500, workers: 1, count: u64::MAX }
    };
    (0..workers).map(load).map(Process::start).collect()
}

pub fn per_second(count: u64, start_ns: u64, end_ns: u64) -> f64 {
    count as f64 * 1e9 / end_ns.saturating_sub(start_ns).max(1) as f64
}

/// The measuring process's own connection: it sets streams up and asks how far they are.
pub struct Control {
    pub wire: Wire,
}

impl Control {
    pub fn connect(server: &Server) -> Result<Control, String> {
        let wire = Wire::connect(&server.address(), "control").map_err(|e| format!("{e}\n{}", server.log_tail()))?;
        Ok(Control { wire })
    }

    pub fn call(&mut self, verb: &str, body: &Value) -> Result<Value, String> {
        self.wire.api(&format!("$JS.API.{verb}"), body).map_err(|e| format!("{verb}: {e}"))
    }

    pub fn task_call(&mut self, verb: &str, body: &Value) -> Result<Value, String> {
        self.wire.api(&format!("$TASK.API.{verb}"), body).map_err(|e| format!("{verb}: {e}"))
    }

    pub fn create_stream(&mut self, retention: &str) -> Result<(), String> {
        let config = json!({
            "name": STREAM, "subjects": [SUBJECT], "retention": retention, "storage": "file", "num_replicas": 1,
            "max_msgs": -1, "max_bytes": -1, "max_age": 0, "discard": "old",
        });
        self.call(&format!("STREAM.CREATE.{STREAM}"), &config).map(drop)
    }

    pub fn create_consumer(&mut self) -> Result<(), String> {
        let config = json!({
            "durable_name": CONSUMER, "ack_policy": "explicit", "deliver_policy": "all", "replay_policy": "instant",
            "ack_wait": 30_000_000_000_u64, "max_ack_pending": 10_000,
        });
        let body = json!({ "stream_name": STREAM, "config": config });
        self.call(&format!("CONSUMER.DURABLE.CREATE.{STREAM}.{CONSUMER}"), &body).map(drop)
    }

    pub fn stream_state(&mut self) -> Result<Value, String> {
        Ok(self.call(&format!("STREAM.INFO.{STREAM}"), &Value::Null)?["state"].take())
    }

    /// Asks every two milliseconds: rarely enough to cost the server nothing, often enough for a run of a second.
    pub fn wait(&mut self, mut done: impl FnMut(&mut Control) -> Result<bool, String>) -> Result<(), String> {
        let began = Instant::now();
        while !done(self)? {
            if began.elapsed() > DRAIN_DEADLINE {
                return Err(format!("not done within {DRAIN_DEADLINE:?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}
