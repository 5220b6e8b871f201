//! Loads of many connections that share one amount of work: agents of the coordinator, workers of a plain work queue. They
//! note how long each stamped message was on its way to them.

use crate::load::{Measured, PAYLOAD_BYTES, now_ns, ready_then_go, with_percentiles};
use crate::wire::Wire;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Digits of a stamp: nanoseconds of the system clock.
const STAMP_DIGITS: usize = 20;

/// A payload that says when it was sent.
pub fn stamp() -> [u8; PAYLOAD_BYTES] {
    let mut payload = [b'x'; PAYLOAD_BYTES];
    payload[..STAMP_DIGITS].copy_from_slice(format!("{:020}", now_ns()).as_bytes());
    payload
}

/// How long a stamped payload was on its way.
fn age_ns(payload: &[u8]) -> Option<u64> {
    let digits = payload.get(..STAMP_DIGITS).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let sent: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(now_ns().saturating_sub(sent))
}

/// What is left to do, and the ages of what has come.
struct Tally {
    left: Mutex<u64>,
    done: Condvar,
    ages: Mutex<Vec<u64>>,
}

impl Tally {
    fn note(&self, done: u64, ages: &mut Vec<u64>) {
        self.ages.lock().unwrap_or_else(PoisonError::into_inner).append(ages);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(done);
        if *left == 0 {
            self.done.notify_all();
        }
    }
}

/// Sets each member to work and waits until `count` pieces are done.
fn all<M: Send + 'static>(members: Vec<M>, count: u64, work: fn(M, &Tally) -> io::Result<()>) -> io::Result<Measured> {
    let start_ns = ready_then_go()?;
    let tally = Arc::new(Tally { left: Mutex::new(count), done: Condvar::new(), ages: Mutex::new(Vec::new()) });
    for member in members {
        let tally = tally.clone();
        std::thread::spawn(move || {
            if let Err(error) = work(member, &tally) {
                eprintln!("one of many: {error}");
                std::process::exit(1);
            }
        });
    }
    let left = tally.left.lock().unwrap_or_else(PoisonError::into_inner);
    drop(tally.done.wait_while(left, |left| *left > 0).unwrap_or_else(PoisonError::into_inner));
    let end_ns = now_ns();
    let ages = std::mem::take(&mut *tally.ages.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Measured { end_ns, ..with_percentiles(start_ns, ages) })
}

struct Agent {
    wire: Wire,
    inbox: String,
    answers: String,
    next: String,
    slots: u64,
}

pub fn agents(address: &str, agents: usize, slots: u64, count: u64) -> io::Result<Measured> {
    let hire = |number| {
        let name = format!("agent-{number}");
        let mut wire = Wire::connect(address, &name)?;
        let card = serde_json::json!({ "labels": [], "slots": slots });
        let post = wire.api(&format!("$TASK.API.AGENT.REGISTER.{name}"), &card)?;
        let text = |field: &str| post[field].as_str().unwrap_or_default().to_owned();
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", text("stream"), text("consumer"));
        let (inbox, answers) = (format!("_INBOX.agent.{name}"), format!("_INBOX.answers.{name}"));
        wire.subscribe(&inbox, 1);
        wire.subscribe(&answers, 2);
        wire.round_trip()?;
        Ok(Agent { wire, inbox, answers, next, slots })
    };
    all((0..agents).map(hire).collect::<io::Result<_>>()?, count, serve)
}

fn serve(mut agent: Agent, tally: &Tally) -> io::Result<()> {
    const COMPLETE: &[u8] = b"\r\nTask-Complete:";
    let ask = format!("{{\"batch\":{},\"expires\":5000000000}}", agent.slots);
    let result = [b'x'; PAYLOAD_BYTES];
    let (mut outstanding, mut completes, mut ages) = (0, Vec::<Vec<u8>>::new(), Vec::new());
    let wire = &mut agent.wire;
    loop {
        if outstanding == 0 {
            wire.publish(agent.next.as_bytes(), agent.inbox.as_bytes(), ask.as_bytes());
            outstanding = agent.slots;
        }
        wire.flush()?;
        wire.fill()?;
        let mut done = 0;
        while let Some(message) = wire.next_buffered()? {
            if message.subject == agent.answers.as_bytes() {
                if memchr::memmem::find(message.payload, b"\"error\"").is_some() {
                    return Err(io::Error::other(String::from_utf8_lossy(message.payload).into_owned()));
                }
                done += 1;
            } else if message.is_status() {
                outstanding = 0;
            } else {
                outstanding = outstanding.saturating_sub(1);
                ages.extend(age_ns(message.payload));
                let at = memchr::memmem::find(message.headers, COMPLETE).ok_or_else(|| io::Error::other("no task"))?;
                let rest = &message.headers[at + COMPLETE.len()..];
                let end = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
                completes.push(rest[..end].trim_ascii().to_vec());
            }
        }
        for complete in completes.drain(..) {
            wire.publish(&complete, agent.answers.as_bytes(), &result);
        }
        tally.note(done, &mut ages);
    }
}

struct Worker {
    wire: Wire,
    inbox: String,
    next: String,
    batch: u64,
}

/// Pulls and acks until `count` messages have come; for ever with `u64::MAX`.
pub fn workers(
    address: &str,
    stream: &str,
    consumer: &str,
    batch: u64,
    workers: usize,
    count: u64,
) -> io::Result<Measured> {
    let hire = |number| {
        let mut wire = Wire::connect(address, &format!("worker-{number}"))?;
        let inbox = format!("_INBOX.worker.{}.{number}", std::process::id());
        wire.subscribe(&inbox, 1);
        wire.round_trip()?;
        Ok(Worker { wire, inbox, next: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"), batch })
    };
    all((0..workers).map(hire).collect::<io::Result<_>>()?, count, |mut worker, tally| {
        let ask = format!("{{\"batch\":{},\"expires\":5000000000}}", worker.batch);
        let (mut outstanding, mut done, mut ages) = (0, 0, Vec::new());
        let mut acks = Vec::new();
        let wire = &mut worker.wire;
        loop {
            if outstanding == 0 {
                wire.publish(worker.next.as_bytes(), worker.inbox.as_bytes(), ask.as_bytes());
                outstanding = worker.batch;
            }
            // The acks of all that one read brought and the next pull go out in one write.
            wire.flush()?;
            tally.note(std::mem::take(&mut done), &mut ages);
            wire.fill()?;
            acks.clear();
            while let Some(message) = wire.next_buffered()? {
                if message.is_status() {
                    outstanding = 0;
                    continue;
                }
                outstanding = outstanding.saturating_sub(1);
                ages.extend(age_ns(message.payload));
                acks.extend_from_slice(b"PUB ");
                acks.extend_from_slice(message.reply);
                acks.extend_from_slice(b" 4\r\n+ACK\r\n");
                done += 1;
            }
            wire.out.extend_from_slice(&acks);
        }
    })
}
