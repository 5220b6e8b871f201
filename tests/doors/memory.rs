//! The memory of the process stays within its budget whatever clients do (design table M1, M2). Figures are printed; see them
//! with `cargo test --test doors memory -- --nocapture`.

use std::io::{Read, Write};
use std::net::TcpStream as Socket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::PATIENCE;
use super::process::{MIB, Process, can_measure, lift_file_limit, number, until};

/// The default: what is to be held.
const BUDGET: u64 = 256 * MIB;
const MESSAGE_BYTES: usize = 1 << 20;
const NON_READERS: &str = "NATTERJACK_NON_READERS";

/// How many who never read: 500 and more by the variable.
fn non_readers() -> usize {
    number(NON_READERS, 24)
}

/// Subscribes and reads as fast as it can, counting messages of [`MESSAGE_BYTES`].
fn reader(process: &Process, subject: &str) -> Arc<AtomicU64> {
    let mut socket = Socket::connect(process.server.address()).expect("the server listens");
    write!(socket, "CONNECT {{\"verbose\":false}}\r\nSUB {subject} 1\r\nPING\r\n").unwrap();
    let mut seen = Vec::new();
    let mut chunk = vec![0; 256 << 10];
    while !seen.ends_with(b"PONG\r\n") {
        let read = socket.read(&mut chunk).unwrap();
        seen.extend_from_slice(&chunk[..read]);
    }
    let bytes = Arc::new(AtomicU64::new(0));
    let counter = bytes.clone();
    std::thread::spawn(move || {
        while let Ok(read @ 1..) = socket.read(&mut chunk) {
            counter.fetch_add(read as u64, Ordering::Relaxed);
        }
    });
    bytes
}

/// Publishes `count` messages to `subjects` in turn and to `fast` each time, and returns how many per second the reader of
/// `fast` got.
fn rate(process: &Process, fast: &str, subjects: &[String], count: usize, read: &AtomicU64) -> f64 {
    let mut socket = Socket::connect(process.server.address()).expect("the server listens");
    let payload = vec![b'x'; MESSAGE_BYTES];
    socket.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
    let before = read.load(Ordering::Relaxed);
    let began = Instant::now();
    for at in 0..count {
        for subject in [fast].into_iter().chain(subjects.get(at % subjects.len().max(1)).map(String::as_str)) {
            write!(socket, "PUB {subject} {MESSAGE_BYTES}\r\n").unwrap();
            socket.write_all(&payload).and_then(|()| socket.write_all(b"\r\n")).unwrap();
        }
    }
    while read.load(Ordering::Relaxed) - before < (count * MESSAGE_BYTES) as u64 {
        assert!(began.elapsed() < 3 * PATIENCE, "the fast reader is cut or starved\n{}", process.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    count as f64 / began.elapsed().as_secs_f64()
}

fn say(what: &str, process: &Process, baseline: u64, quiet: f64, flooded: f64) {
    let grown = process.resident_peak().saturating_sub(baseline);
    println!(
        "{what}: {:.1} MiB at the peak over {:.1} MiB before; the fast reader got {quiet:.0} and then {flooded:.0} messages of \
         1 MB a second ({:.2}x)",
        grown as f64 / MIB as f64,
        baseline as f64 / MIB as f64,
        flooded / quiet,
    );
    assert!(grown <= BUDGET, "{what}: {grown} bytes over the baseline");
    // Half of it, measured alone; in an ordinary run other tests take their part meanwhile.
    let least = if std::env::var_os(NON_READERS).is_some() { quiet / 2.0 } else { quiet / 5.0 };
    assert!(flooded >= least, "{what}: the fast reader got {quiet} and then {flooded} a second");
}

/// M1: all of them want the same, which they share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_within_budget_with_non_readers_of_one_subject() {
    if !can_measure() {
        return;
    }
    lift_file_limit();
    let process = Process::start("");
    let read = reader(&process, "flood");
    let quiet = rate(&process, "flood", &[], 150, &read);
    let baseline = process.resident();
    let mut slow = Vec::new();
    for _ in 0..non_readers() {
        slow.push(process.non_reader("SUB flood 1\r\n").await);
    }
    // Those who never read are at their `max_pending` after 64 of them, and what the kernel takes: up to 4 MB for each.
    let rounds = 600.max(8 * slow.len());
    let flooded = tokio::task::block_in_place(|| rate(&process, "flood", &[], rounds, &read));
    let quiet = quiet.min(rate(&process, "flood", &[], 150, &read));
    let cut = process.until("/varz", "slow_consumers", |cut| cut == slow.len() as u64).await;
    process.until("/connz", "num_connections", |left| left == 1).await;
    let reasons = process.reasons().await;
    assert_eq!(reasons.iter().filter(|reason| reason.starts_with("Slow Consumer")).count() as u64, cut, "{reasons:?}");
    assert!(process.log().contains("Slow Consumer Detected"));
    say(&format!("{cut} non-readers of one subject"), &process, baseline, quiet, flooded);
}

/// M1: each holds what nobody else does, 1.5 GiB of it before each is at its `max_pending`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_within_budget_with_non_readers_of_their_own_subjects() {
    if !can_measure() {
        return;
    }
    lift_file_limit();
    let process = Process::start("");
    let read = reader(&process, "fast");
    let idle: Vec<String> = vec!["nobody".into()];
    let quiet = rate(&process, "fast", &idle, 150, &read);
    let baseline = process.resident();
    let (mut slow, mut subjects) = (Vec::new(), Vec::new());
    for number in 0..non_readers() {
        subjects.push(format!("slow.{number}"));
        slow.push(process.non_reader(&format!("SUB slow.{number} 1\r\n")).await);
    }
    let rounds = (24 * 24).max(8 * slow.len());
    let flooded = tokio::task::block_in_place(|| rate(&process, "fast", &subjects, rounds, &read));
    let quiet = quiet.min(rate(&process, "fast", &idle, 150, &read));
    let cut = process.until("/varz", "slow_consumers", |cut| cut > 0).await;
    let reasons = process.reasons().await;
    let over = reasons.iter().filter(|reason| *reason == "Slow Consumer (Memory Budget)").count();
    assert!(over > 0, "{reasons:?}");
    assert_eq!(process.get("/connz?subs=1").await["connections"][0]["subscriptions_list"][0], "fast");
    say(&format!("{cut} of {} non-readers of subjects of their own", slow.len()), &process, baseline, quiet, flooded);
}

/// Operations that never end: each claims the largest payload and sends almost all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_within_budget_with_payloads_that_never_end() {
    if !can_measure() {
        return;
    }
    let process = Process::start("memory_budget: 64MB");
    let baseline = process.resident();
    let part = vec![b'x'; (8 << 20) - 1];
    let mut sockets = Vec::new();
    for _ in 0..32 {
        let mut socket = process.client("").await;
        socket.write_all(b"PUB x 8388608\r\n").await.unwrap();
        let _ = tokio::time::timeout(Duration::from_secs(5), socket.write_all(&part)).await;
        sockets.push(socket);
    }
    let left = process.until("/connz", "num_connections", |left| left <= 8).await;
    let reasons = process.reasons().await;
    assert!(reasons.iter().all(|reason| reason == "Memory Budget Exceeded"), "{reasons:?}");
    let peak = process.resident_peak() - baseline;
    println!("32 payloads of 8 MiB that never end, budget 64 MiB: {left} left, {:.1} MiB at the peak", mib(peak));
    assert!(peak <= 64 * MIB, "{peak}");
    // There is room for others.
    let mut client = process.client("SUB y 1\r\nPUB y 2\r\nhi\r\n").await;
    client.write_all(b"PING\r\n").await.unwrap();
    until(&mut client, b"PONG\r\n").await;
}

/// Subscriptions are held for clients too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_within_budget_with_a_million_subscriptions() {
    if !can_measure() {
        return;
    }
    let process = Process::start("memory_budget: 48MB\njetstream: disabled");
    let baseline = process.resident();
    let mut other = process.client("SUB other 1\r\n").await;
    let mut flood = process.client("").await;
    let mut sent = 0;
    while sent < 1_000_000 {
        let lines: String = (sent..sent + 1000).map(|at| format!("SUB a.{at}.{} {at}\r\n", at * 7919)).collect();
        sent += 1000;
        if flood.write_all(lines.as_bytes()).await.is_err() {
            break;
        }
    }
    process.until("/connz", "num_connections", |left| left == 1).await;
    assert_eq!(process.reasons().await, ["Memory Budget Exceeded"]);
    process.until("/subsz", "num_subscriptions", |left| left < 100).await;
    let peak = process.resident_peak() - baseline;
    println!("cut after at most {sent} subscriptions, budget 48 MiB: {:.1} MiB at the peak", mib(peak));
    assert!(sent < 1_000_000 && peak <= 48 * MIB, "{peak}");
    other.write_all(b"PING\r\n").await.unwrap();
    assert!(until(&mut other, b"PONG\r\n").await.ends_with(b"PONG\r\n"));
}

/// What a client is answered and never reads: its own messages, acknowledgements and errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_never_read_are_bounded() {
    if !can_measure() {
        return;
    }
    let process = Process::start(
        "max_pending: 4MB, max_payload: 1MB\n\
         authorization { users: [ {user: a, password: p, permissions: {publish: {deny: [nope]}}} ] }",
    );
    let connect = "CONNECT {\"verbose\":VERBOSE,\"user\":\"a\",\"pass\":\"p\"}\r\n";
    let stream = r#"{"name":"S","subjects":["s"],"max_msgs":9}"#;
    let stream = format!("PUB $JS.API.STREAM.CREATE.S {}\r\n{stream}\r\n", stream.len());
    for (what, verbose, once, again) in [
        ("errors", "false", "", "PUB nope 0\r\n\r\n".to_owned()),
        ("+OK", "true", "", "UNSUB 9\r\n".to_owned()),
        ("PONG", "false", "", "PING\r\n".to_owned()),
        ("own messages", "false", "SUB me 1\r\n", format!("PUB me 1000\r\n{}\r\n", "x".repeat(1000))),
        ("API answers", "false", "SUB me 1\r\n", "PUB $JS.API.INFO me 0\r\n\r\n".to_owned()),
        ("acknowledgements", "false", &format!("SUB me 1\r\n{stream}"), "PUB s me 0\r\n\r\n".to_owned()),
    ] {
        let before = process.count("/varz", "slow_consumers").await;
        let mut socket = process.socket().await;
        let hello = format!("{}{once}", connect.replace("VERBOSE", verbose));
        socket.write_all(hello.as_bytes()).await.unwrap();
        let lines = again.repeat(2000);
        let mut rest = lines.as_bytes();
        let began = Instant::now();
        let cut = loop {
            // A server that no longer reads is about to cut it.
            match tokio::time::timeout(Duration::from_millis(500), socket.write(rest)).await {
                Ok(Ok(written)) if written < rest.len() => rest = &rest[written..],
                Ok(Ok(_)) => rest = lines.as_bytes(),
                Ok(Err(_)) => break process.count("/varz", "slow_consumers").await - before,
                Err(_) => {}
            }
            assert!(began.elapsed() < 2 * PATIENCE, "{what}: never cut\n{}", process.log());
        };
        println!(
            "{what} that are never read: cut after {:.1?}, peak {:.1} MiB",
            began.elapsed(),
            mib(process.resident_peak())
        );
        assert_eq!(cut, 1, "{what}: {:?}", process.reasons().await);
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

/// M2: ten thousand idle connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_small() {
    if !can_measure() {
        return;
    }
    let wanted = number("NATTERJACK_IDLE_CONNECTIONS", 10_000);
    let count = wanted.min(lift_file_limit().saturating_sub(2000) as usize);
    if count < wanted {
        println!("{count} connections instead of {wanted}: the limit on open files is lower");
    }
    let process = Process::start("");
    let open = async |count: usize| {
        let mut sockets: Vec<TcpStream> = Vec::new();
        while sockets.len() < count {
            let some = (count - sockets.len()).min(100);
            sockets.extend(futures_util::future::join_all((0..some).map(|_| process.client("SUB idle 1\r\n"))).await);
        }
        sockets
    };
    let first = open(100.min(count)).await;
    let before = process.resident();
    let sockets = open(count).await;
    let each = process.resident().saturating_sub(before) / sockets.len() as u64;
    println!("{count} idle connections with a subscription: {:.1} KiB each", each as f64 / 1024.0);
    assert!(each <= 16 << 10, "{each} bytes");
    assert_eq!(process.count("/varz", "connections").await as usize, first.len() + sockets.len());
}

/// Publishers to many streams at once, none of which waits for an answer: they are slowed down, not cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_within_budget_with_writes_to_many_streams() {
    if !can_measure() {
        return;
    }
    const STREAMS: usize = 16;
    const MESSAGES: usize = 10;
    let process = Process::start("memory_budget: 96MB");
    let client = async_nats::connect(process.server.url()).await.unwrap();
    for stream in 0..STREAMS {
        let config = format!(r#"{{"name":"S{stream}","subjects":["s.{stream}"],"max_msgs":{MESSAGES}}}"#);
        let created = client.request(format!("$JS.API.STREAM.CREATE.S{stream}"), config.into()).await.unwrap();
        assert!(String::from_utf8_lossy(&created.payload).contains("did_create"));
    }
    let baseline = process.resident();
    let payload = vec![b'x'; MESSAGE_BYTES];
    let began = Instant::now();
    let publishers = (0..STREAMS).map(async |stream| {
        let mut socket = process.client("SUB ack 1\r\n").await;
        let line = format!("PUB s.{stream} ack {MESSAGE_BYTES}\r\n");
        for _ in 0..MESSAGES {
            socket.write_all(line.as_bytes()).await.expect("the publisher stays");
            socket.write_all(&payload).await.expect("the publisher stays");
            socket.write_all(b"\r\n").await.expect("the publisher stays");
        }
        let last = format!("\"seq\":{MESSAGES}");
        let answers = until(&mut socket, last.as_bytes()).await;
        assert!(answers.ends_with(last.as_bytes()) || String::from_utf8_lossy(&answers).contains(&last));
    });
    futures_util::future::join_all(publishers).await;
    let peak = process.resident_peak() - baseline;
    println!(
        "{STREAMS} publishers of {MESSAGES} messages of 1 MB to a stream each, budget 96 MiB: {:.1} MiB at the peak, {:.1?}",
        mib(peak),
        began.elapsed()
    );
    assert!(peak <= 96 * MIB, "{peak}");
}

/// Batches that are never committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_within_budget_with_batches_that_never_end() {
    if !can_measure() {
        return;
    }
    let process = Process::start("memory_budget: 96MB");
    let client = async_nats::connect(process.server.url()).await.unwrap();
    let config = r#"{"name":"S","subjects":["s"],"allow_atomic":true}"#;
    let created = client.request("$JS.API.STREAM.CREATE.S", config.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&created.payload).contains("did_create"));
    let baseline = process.resident();
    let payload = bytes::Bytes::from(vec![b'x'; MESSAGE_BYTES]);
    let mut refused = 0;
    for number in 0..100 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", format!("batch-{}", number % 4));
        headers.insert("Nats-Batch-Sequence", (number / 4 + 1).to_string());
        let answer = client.request_with_headers("s", headers, payload.clone()).await.unwrap();
        refused += usize::from(String::from_utf8_lossy(&answer.payload).contains("10023"));
    }
    let peak = process.resident_peak() - baseline;
    println!("100 MB for batches that never end, budget 96 MiB: {refused} refused, {:.1} MiB at the peak", mib(peak));
    assert!(refused > 0 && peak <= 96 * MIB, "{refused} {peak}");
}
