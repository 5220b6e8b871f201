//! What the store costs: `cargo bench --bench store [-- FILTER]`, each figure in a second or two, on the disk that holds
//! the system's temporary folder (or `TMPDIR`).

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use natterjack::storage::{Batch, ConsumerStateRow, Op, Options, Store};
use natterjack::types::{Message, StoredMessage, StreamId, Timestamp};
use tempfile::TempDir;

const STREAM: StreamId = StreamId(1);

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).unwrap_or_default();
    let run = |name: &str, bench: &dyn Fn()| {
        if name.contains(&filter) {
            println!("\n{name}");
            bench();
        }
    };
    run("append", &append);
    run("consume", &consume);
    run("read", &read);
    run("space", &space);
    run("reopen", &reopen);
    run("idle", &idle);
}

struct Fixture {
    dir: TempDir,
    store: Store,
    done: Receiver<()>,
    sender: SyncSender<()>,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = TempDir::new().unwrap();
        let (store, _) = Store::open(dir.path(), Options::default()).unwrap();
        let (sender, done) = mpsc::sync_channel(1 << 16);
        let fixture = Fixture { dir, store, done, sender };
        fixture.submit([Op::PutStream {
            stream: STREAM,
            config_json: Bytes::from_static(b"{}"),
            created: Timestamp(1),
        }]);
        fixture.wait(1);
        fixture
    }

    fn submit(&self, ops: impl IntoIterator<Item = Op>) {
        let sender = self.sender.clone();
        self.store.submit(ops.into_iter().collect::<Batch>(), move |result| {
            result.unwrap();
            sender.send(()).unwrap();
        });
    }

    fn wait(&self, commits: usize) {
        for _ in 0..commits {
            self.done.recv().unwrap();
        }
    }

    fn file_bytes(&self) -> u64 {
        std::fs::metadata(self.dir.path().join("natterjack.redb")).unwrap().len()
    }
}

fn put(seq: u64, payload: &Bytes) -> Op {
    Op::PutMessage { stream: STREAM, message: stored(seq, payload) }
}

fn stored(seq: u64, payload: &[u8]) -> StoredMessage {
    StoredMessage { seq, time: Timestamp(seq as i64), message: Message::new(b"orders.created.eu", b"", payload) }
}

/// Appends of 128 B messages, `batch` in each batch, `window` batches in flight.
fn append() {
    println!(
        "{:>7} {:>7} {:>12} {:>10} {:>10} {:>11} {:>10}",
        "batch", "window", "msg/s", "p50 us", "cpu us/msg", "disk B/msg", "file B/msg"
    );
    for (batch, window, total) in [
        (1, 1, 5_000),
        (1, 1000, 200_000),
        (10, 1, 40_000),
        (100, 1, 200_000),
        (500, 1, 500_000),
        (500, 2, 500_000),
        (500, 8, 500_000),
    ] {
        let fixture = Fixture::new();
        let payload = Bytes::from(vec![7; 128]);
        let mut messages = (1..=total as u64).map(|seq| put(seq, &payload));
        let mut batches: Vec<Vec<Op>> = Vec::new();
        loop {
            let ops: Vec<Op> = messages.by_ref().take(batch).collect();
            if ops.is_empty() {
                break;
            }
            batches.push(ops);
        }
        let count = batches.len();
        let (cpu, written, start) = (cpu_time(), written_bytes(), Instant::now());
        let mut latencies = Vec::with_capacity(count);
        let mut flying = std::collections::VecDeque::new();
        for ops in batches {
            if flying.len() == window {
                fixture.wait(1);
                latencies.extend(flying.pop_front().map(|at: Instant| at.elapsed()));
            }
            flying.push_back(Instant::now());
            fixture.submit(ops);
        }
        fixture.wait(flying.len());
        let elapsed = start.elapsed();
        let cpu = cpu_time() - cpu;
        let written = written_bytes() - written;
        println!(
            "{batch:>7} {window:>7} {:>12.0} {:>10.0} {:>10.2} {:>11.0} {:>10.0}",
            total as f64 / elapsed.as_secs_f64(),
            median(&mut latencies).as_secs_f64() * 1e6,
            cpu.as_secs_f64() * 1e6 / total as f64,
            written as f64 / total as f64,
            fixture.file_bytes() as f64 / total as f64,
        );
    }
}

/// What a work queue adds: a consumer's state row for each commit, and the removal of what was acked.
fn consume() {
    let state = ConsumerStateRow::default();
    let put_state = || Op::PutConsumerState { stream: STREAM, consumer: "worker".into(), state };
    let payload = Bytes::from(vec![7; 128]);
    let total = 200_000u64;
    for per_commit in [1u64, 10, 500] {
        let fixture = Fixture::new();
        for first in (1..=total).step_by(1000) {
            fixture.submit((first..first + 1000).map(|seq| put(seq, &payload)));
        }
        fixture.wait(total.div_ceil(1000) as usize);
        let count = if per_commit == 1 { 3000 } else { total };
        let start = Instant::now();
        for first in (1..=count).step_by(per_commit as usize) {
            let removes = (first..first + per_commit).map(|seq| Op::RemoveMessage { stream: STREAM, seq, left: 0 });
            fixture.submit([put_state()].into_iter().chain(removes));
            fixture.wait(1);
        }
        println!(
            "ack and remove, {per_commit:>3} per commit: {:>9.0} msg/s",
            count as f64 / start.elapsed().as_secs_f64()
        );
    }
    let fixture = Fixture::new();
    let mut latencies = Vec::new();
    for _ in 0..3000 {
        let start = Instant::now();
        fixture.submit([put_state()]);
        fixture.wait(1);
        latencies.push(start.elapsed());
    }
    println!("a consumer's state row alone: p50 {:.0} us", median(&mut latencies).as_secs_f64() * 1e6);
}

fn read() {
    let fixture = Fixture::new();
    let payload = Bytes::from(vec![7; 128]);
    let total = 1_000_000u64;
    for first in (1..=total).step_by(1000) {
        fixture.submit((first..first + 1000).map(|seq| put(seq, &payload)));
    }
    fixture.wait(total as usize / 1000);
    let per = |start: Instant, count: u64| start.elapsed().as_secs_f64() * 1e6 / count as f64;

    let start = Instant::now();
    let mut bytes = 0;
    let report = fixture.store.scan(STREAM, |head| bytes += head.subject.len() + head.payload_len).unwrap();
    assert_eq!(report.rows, total);
    println!("scan of {total} heads: {:.2} us/row", per(start, total));

    let start = Instant::now();
    let mut next = 1;
    while next <= total {
        next += fixture.store.read_range(STREAM, next, 256, 1 << 20).unwrap().len() as u64;
    }
    println!("read_range of 256:  {:.2} us/row", per(start, total));

    let start = Instant::now();
    for step in 0..100_000u64 {
        let seq = 1 + (step * 7_919) % total;
        fixture.store.read(STREAM, seq).unwrap().unwrap();
    }
    println!("read of one, random over {total}: {:.2} us", per(start, 100_000));
    let start = Instant::now();
    for _ in 0..100_000u64 {
        fixture.store.read(STREAM, total).unwrap().unwrap();
    }
    println!("read of one, the last: {:.2} us", per(start, 100_000));
    println!("resident: {:.1} MB", resident_bytes() as f64 / 1e6);
}

/// How much of the file payloads of one size take, one commit for each 100.
fn space() {
    println!("{:>9} {:>12} {:>8} {:>10}", "payload", "file B/msg", "ratio", "MB/s");
    for size in [128usize, 1000, 2000, 2500, 3000, 4000, 5000, 9000, 17_000, 40_000, 70_000, 1 << 20] {
        let fixture = Fixture::new();
        let payload = Bytes::from(vec![7; size]);
        let total = ((128 << 20) / size as u64).min(100_000) / 100 * 100;
        let start = Instant::now();
        for first in (1..=total).step_by(100) {
            fixture.submit((first..first + 100).map(|seq| put(seq, &payload)));
            fixture.wait(1);
        }
        let elapsed = start.elapsed();
        fixture.store.close();
        let file = fixture.file_bytes() as f64 / total as f64;
        let rate = (size as u64 * total) as f64 / 1e6 / elapsed.as_secs_f64();
        println!("{size:>9} {file:>12.0} {:>8.2} {rate:>10.0}", file / size as f64);
    }
}

/// Opening after a power cut: the file is copied while the store is open, in a burst and after the seal.
fn reopen() {
    let fixture = Fixture::new();
    let payload = Bytes::from(vec![7; 128]);
    let total = 5_000_000u64;
    let (start, cpu) = (Instant::now(), cpu_time());
    for first in (1..=total).step_by(1000) {
        fixture.submit((first..first + 1000).map(|seq| put(seq, &payload)));
        while fixture.store.queued_bytes() > 8 << 20 {
            fixture.wait(1);
        }
    }
    println!(
        "filled in {:.1} s, {:.2} us CPU a message",
        start.elapsed().as_secs_f64(),
        (cpu_time() - cpu).as_secs_f64() * 1e6 / total as f64
    );
    for (state, pause) in [("mid-burst", Duration::ZERO), ("sealed", Duration::from_millis(600))] {
        if pause.is_zero() {
            fixture.submit([put(total + 1, &payload)]);
        }
        while fixture.store.queued_bytes() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(pause);
        let copy = TempDir::new().unwrap();
        std::fs::copy(fixture.dir.path().join("natterjack.redb"), copy.path().join("natterjack.redb")).unwrap();
        let (start, cpu) = (Instant::now(), cpu_time());
        let (store, recovered) = Store::open(copy.path(), Options::default()).unwrap();
        println!(
            "{state:>10}: {:.1} ms ({:.0} ms CPU) for {:.0} MB (checked: {})",
            start.elapsed().as_secs_f64() * 1e3,
            (cpu_time() - cpu).as_secs_f64() * 1e3,
            fixture.file_bytes() as f64 / 1e6,
            recovered.repaired
        );
        let start = Instant::now();
        let report = store.scan(STREAM, |_| {}).unwrap();
        println!("            scan of {} rows {:.0} ms", report.rows, start.elapsed().as_secs_f64() * 1e3);
    }
}

fn idle() {
    let before = resident_bytes();
    let fixture = Fixture::new();
    std::thread::sleep(Duration::from_millis(600));
    println!(
        "an empty store adds {:.1} MB to {:.1} MB resident",
        (resident_bytes() - before) as f64 / 1e6,
        before as f64 / 1e6
    );
    println!("its file has {:.2} MB", fixture.file_bytes() as f64 / 1e6);
}

fn median(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies.get(latencies.len() / 2).copied().unwrap_or_default()
}

/// The process's processor time; zero where the system does not tell in this way.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
