//! This very program's tests once more, on another broker.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::process::{Command, Output, Stdio};

/// A machine that is busy with the first run would only make both slower with more.
const THREADS: &str = "--test-threads=2";

/// The tests of this program by their full names.
pub fn names() -> Vec<String> {
    let listed = run_this(&["--list", "--format", "terse"], None);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names: Vec<String> = listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    assert!(!names.is_empty(), "no tests: {listed}");
    names
}

/// What came of it.
pub struct Again {
    passed: usize,
    ignored: usize,
}

impl Again {
    /// Whether this is such a run.
    pub fn is() -> bool {
        ["NATS_SERVER_BIN", "NATTERJACK_EMBEDDED"].iter().any(|name| std::env::var_os(name).is_some())
    }

    /// Runs `tests` with an environment variable set that chooses the broker.
    ///
    /// # Panics
    /// When one of them fails, or did not run at all.
    pub fn run(variable: &str, value: &OsStr, tests: &[String]) -> Again {
        let arguments = [THREADS, "--exact"].into_iter().chain(tests.iter().map(String::as_str));
        let output = run_this(&arguments.collect::<Vec<_>>(), Some((variable, value)));
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "with {variable}:\n{said}\n{errors}");
        let ended = |how: &str| -> BTreeSet<&str> {
            let ended = |line: &'_ str| line.split_once(" ... ").is_some_and(|(_, outcome)| outcome.starts_with(how));
            said.lines().filter(|line| ended(line)).filter_map(|line| line.split(' ').nth(1)).collect()
        };
        let (passed, ignored) = (ended("ok"), ended("ignored"));
        let missing: Vec<&String> =
            tests.iter().filter(|name| !passed.contains(&***name) && !ignored.contains(&***name)).collect();
        assert!(missing.is_empty(), "with {variable} these did not run: {missing:?}\n{said}");
        Again { passed: passed.len(), ignored: ignored.len() }
    }
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed", self.passed)?;
        if self.ignored > 0 { write!(f, ", {} not asked for", self.ignored) } else { Ok(()) }
    }
}

fn run_this(arguments: &[&str], variable: Option<(&str, &OsStr)>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).stdin(Stdio::null()).envs(variable);
    command.output().unwrap()
}
