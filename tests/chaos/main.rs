//! Agents, dispatchers, coordinators and the broker die at random (D6): no task is lost, stuck or completed twice, no stale
//! lease is accepted, attempts are bounded.
//!
//! A world is a broker process on a real store, agents that work, fail, fall silent, speak too late and are drained, in half of
//! the worlds workers that know nothing but a pull queue's consumer, in half of them instances of a micro service, in half
//! of them councils, and dispatchers that submit, cancel, requeue tasks and dead letters, and wait. In each round, after a
//! while of random length, somebody is killed. After its rounds a world comes to rest, and all revisions of all tasks, what
//! clients were told, results and dead letters are held against the state machine in `table.rs`, which is written from the
//! design and not from the code.
//!
//! ```text
//! cargo test --test chaos                                     300 rounds
//! NATTERJACK_CHAOS_ROUNDS=3000 cargo test --test chaos -- --nocapture
//! NATTERJACK_CHAOS_SEED=<seed> NATTERJACK_CHAOS_ROUNDS=25 ... one world again, as far as timing allows
//! NATS_SERVER_BIN=<nats-server 2.14 or newer> ...             the coordinator alone, on that broker
//! ```

#![allow(clippy::disallowed_methods, reason = "deadlines of real processes are kept by real clocks")]

mod agent;
mod checker;
mod coordinator;
mod councils;
mod dispatcher;
mod history;
mod ledger;
mod link;
#[path = "../crash/random.rs"]
mod random;
mod relay;
mod service;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod worker;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use checker::Evidence;

/// Rounds that one world lives through before it is checked.
const ROUNDS_PER_WORLD: usize = 25;
/// Worlds that live at once: they mostly wait.
const WORLDS_AT_ONCE: usize = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[derive(Default)]
struct Report {
    counts: BTreeMap<&'static str, u64>,
    endings: BTreeMap<String, u64>,
    failures: Vec<String>,
}

impl Report {
    fn add(&mut self, evidence: &Evidence) {
        for (what, count) in &evidence.books.counts {
            *self.counts.entry(what).or_default() += count;
        }
        for history in evidence.history.values() {
            *self.counts.entry("tasks").or_default() += 1;
            *self.counts.entry("revisions").or_default() += history.len() as u64;
            let assigned = history.iter().filter(|revision| revision.record.phase == "assigned").count();
            *self.counts.entry("attempts").or_default() += assigned as u64;
            if let Some(last) = history.last() {
                *self.endings.entry(format!("tasks {}", last.record.phase)).or_default() += 1;
            }
        }
    }
}

#[test]
fn no_task_is_lost_stuck_or_completed_twice_whoever_dies() {
    let rounds = number("NATTERJACK_CHAOS_ROUNDS").unwrap_or(300) as usize;
    let seed = number("NATTERJACK_CHAOS_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    let worlds = rounds.div_ceil(ROUNDS_PER_WORLD);
    let (next, done, report) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Report::default()));
    let begun = Instant::now();
    eprintln!("{rounds} rounds in {worlds} worlds from seed {seed}");
    std::thread::scope(|scope| {
        for _ in 0..WORLDS_AT_ONCE.min(worlds) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= worlds || !report.lock().unwrap().failures.is_empty() {
                        return;
                    }
                    let rounds = ROUNDS_PER_WORLD.min(rounds - at * ROUNDS_PER_WORLD);
                    live(seed + at as u64, rounds, &report);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(10) || done == worlds {
                        eprintln!("{done} of {worlds} worlds after {:.0?}", begun.elapsed());
                    }
                }
            });
        }
    });
    let report = report.into_inner().unwrap();
    for (what, count) in report.counts.iter().map(|(what, count)| (*what, count)) {
        eprintln!("{count:>9} {what}");
    }
    for (what, count) in &report.endings {
        eprintln!("{count:>9} {what}");
    }
    assert!(report.failures.is_empty(), "{}", report.failures.join("\n\n"));
    let completed = report.endings.get("tasks completed").copied().unwrap_or_default();
    assert!(completed * 4 > report.counts["tasks"], "too little comes to a good end for this to say much");
    eprintln!("all as it should be, after {:.0?}", begun.elapsed());
}

fn live(seed: u64, rounds: usize, report: &Mutex<Report>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async { tokio::spawn(world::run(seed, rounds)).await });
    runtime.shutdown_background();
    let (found, log) = match outcome {
        Ok(Ok(outcome)) => {
            let found = checker::violations(&outcome.evidence);
            report.lock().unwrap().add(&outcome.evidence);
            (found, outcome.log)
        }
        Ok(Err(error)) => (vec![error], String::new()),
        Err(panic) => (vec![format!("the test itself: {panic}")], String::new()),
    };
    if !found.is_empty() {
        let more = found.len().saturating_sub(20);
        let shown = found.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
        let failure = format!(
            "{} violations:\n  {shown}\n  and {more} more\nthe broker's log ends:\n{log}\n\
             replay: NATTERJACK_CHAOS_SEED={seed} NATTERJACK_CHAOS_ROUNDS={rounds} cargo test --test chaos",
            found.len()
        );
        report.lock().unwrap().failures.push(failure);
    }
}
