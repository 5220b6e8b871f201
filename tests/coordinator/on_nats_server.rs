//! The same suite against the real nats-server: this very program again, told by `NATS_SERVER_BIN`. Whatever test is added
//! here runs there as well.

use std::process::{Command, Stdio};

use tokio::time::Instant;

use super::tools::{nats_server, toolchain};

/// Tests that say nothing about nats-server, by the beginning of their names, and why.
const OURS_ALONE: &[(&str, &str)] = &[
    ("accounts::", "coordinators that our broker embeds, one for each account that asks"),
    ("permissions::", "what our broker lets users name in requests to its own coordinators"),
    ("supervision::a_cut", "how our broker starts its own coordinator again"),
    ("supervision::a_task_in_flight", "the same, and our /healthz"),
    ("adopt::the_config_file", "the config file of our broker"),
    ("cluster::", "it has nats-servers of its own"),
    ("on_nats_server::", "this"),
];
/// A machine that is busy with the first run would only make both slower with more.
const THREADS: &str = "--test-threads=2";

#[test]
fn the_suite_holds_on_nats_server() {
    const TEST: &str = "the coordinator's suite on nats-server";
    if std::env::var_os("NATS_SERVER_BIN").is_some() {
        return;
    }
    let Some(server) = toolchain::or_skip(TEST, nats_server::find()) else { return };
    let begun = Instant::now();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("NATS_SERVER_BIN", server).arg(THREADS).stdin(Stdio::null());
    for (name, _) in OURS_ALONE {
        command.args(["--skip", name]);
    }
    let output = command.output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{TEST}:\n{said}\n{errors}");
    let outcome = said.lines().find(|line| line.starts_with("test result: ok.")).unwrap_or_default();
    let passed = outcome.split_whitespace().nth(3).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
    assert!(passed >= 30, "hardly anything ran: {said}");
    toolchain::announce(&format!("{TEST}: {passed} passed in {:.0?}", begun.elapsed()));
}
