//! What survives: power cuts at any point of a run of the real store, with any part of the unsynced writes on the disk
//! and sectors torn, again inside the recovery; and any single I/O error.
//!
//! A run is recorded once on a simulated disk, together with what was submitted and what was acked. Every cut then
//! builds a disk that could have been left behind, opens the store on it and compares all it holds with a plain model.
//! The rule: it equals the model after some number of whole batches, at least all that were acked (D1: messages, their
//! sequences gapless; D2: consumers' state) and at most all that were submitted.
//!
//! ```text
//! cargo test --test crash                                    5,000 cuts
//! NATTERJACK_CRASH_POINTS=50000 cargo test --test crash      more
//! NATTERJACK_CRASH_REPLAY=<run>:<cut> cargo test --test crash replay -- --nocapture
//! ```

mod cut;
mod disk;
mod model;
mod random;
mod run;

use std::sync::atomic::{AtomicUsize, Ordering};

use cut::Cut;
use run::{Planted, Recording};

const CUTS_PER_RUN: usize = 100;

fn points() -> usize {
    std::env::var("NATTERJACK_CRASH_POINTS").ok().and_then(|points| points.parse().ok()).unwrap_or(5_000)
}

/// Checks `runs` recorded runs on all processors and returns the failures, stopping soon after the first.
fn check_runs(runs: usize, planted: Planted) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = std::sync::Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get()).min(8);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs || !failures.lock().unwrap().is_empty() {
                        break;
                    }
                    let found = check_run(run as u64, CUTS_PER_RUN, planted);
                    failures.lock().unwrap().extend(found);
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

fn check_run(run: u64, cuts: usize, planted: Planted) -> Option<String> {
    let recording = Recording::make(run, planted);
    let mut cuts: Vec<Cut> = (0..cuts as u64).map(|index| Cut::choose(&recording, index)).collect();
    cuts.sort_by_key(|cut| cut.at);
    let mut disk = disk::Replay::new(&recording.base, &recording.log);
    cuts.iter().find_map(|cut| cut.check(&recording, &mut disk).err().map(|failure| describe(run, cut, &failure)))
}

fn describe(run: u64, cut: &Cut, failure: &str) -> String {
    format!(
        "{failure}\nreplay: NATTERJACK_CRASH_REPLAY={run}:{} cargo test --test crash replay -- --nocapture",
        cut.index
    )
}

#[test]
fn nothing_acked_is_lost_in_a_power_cut() {
    let runs = points().div_ceil(CUTS_PER_RUN);
    let failures = check_runs(runs, Planted::Nothing);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    eprintln!("{} power cuts survived", runs * CUTS_PER_RUN);
}

#[test]
fn replay() {
    let Ok(which) = std::env::var("NATTERJACK_CRASH_REPLAY") else { return };
    let (run, index) = which.split_once(':').expect("NATTERJACK_CRASH_REPLAY is <run>:<cut>");
    let recording = Recording::make(run.parse().unwrap(), Planted::Nothing);
    let cut = Cut::choose(&recording, index.parse().unwrap());
    println!("{cut:?}");
    let mut disk = disk::Replay::new(&recording.base, &recording.log);
    if let Err(failure) = cut.check(&recording, &mut disk) {
        panic!("{}", describe(recording.run, &cut, &failure));
    }
}

#[test]
fn an_ack_before_its_commit_is_caught() {
    assert!(!check_runs(1000 / CUTS_PER_RUN, Planted::AckBeforeCommit).is_empty());
}

#[test]
fn a_sync_that_does_nothing_is_caught() {
    assert!(!check_runs(1000 / CUTS_PER_RUN, Planted::SyncDoesNothing).is_empty());
}

#[test]
fn the_same_seed_makes_the_same_run() {
    let (first, second) = (Recording::make(3, Planted::Nothing), Recording::make(3, Planted::Nothing));
    assert!(first.base == second.base && first.log == second.log, "a replay needs runs that repeat exactly");
}

#[test]
fn any_single_io_error_is_survived() {
    let runs = points().div_ceil(5_000) as u64;
    for run in 0..runs {
        let calls = run::calls_of(run);
        for nth in 1..=calls {
            if let Err(failure) = run::fail_nth(run, nth) {
                panic!("with call {nth} of {calls} of run {run} failing: {failure}");
            }
        }
        eprintln!("run {run}: survived the failure of each of {calls} calls");
    }
}
