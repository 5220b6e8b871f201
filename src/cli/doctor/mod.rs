//! `natterjack doctor`: looks at a running broker, ours or nats-server, as a plain client, and says which traps are set in it
//! and what to do. [`Snapshot`] is what was seen, [`checks`] judges it, and both say what cannot be seen.

mod checks;
mod delivery_checks;
mod finding;
mod http;
mod snapshot;
mod task_checks;
mod task_snapshot;

use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::finding::{Finding, Severity};
use self::snapshot::Snapshot;
use super::connection::{ConnectFlags, Connection};
use super::failure::Failure;
use super::output::say;
use super::table;

/// Check a running broker, natterjack or nats-server, for traps that lose, repeat or delay work.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct DoctorCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    /// The broker's monitoring, for what clients cannot see: http://127.0.0.1:8222
    #[arg(short, long, value_name = "URL")]
    monitor: Option<String>,
    /// How long to watch what goes on: advisories, and who fetches.
    #[arg(long, value_name = "DURATION", value_parser = table::duration, default_value = "2s")]
    listen: Duration,
}

const AFTER_HELP: &str = "\
It only reads, as any client may, and changes nothing.

Examples:
  natterjack doctor
  natterjack doctor -s nats://nats.example.com --monitor http://nats.example.com:8222 --listen 1m --json

Exit codes: 0 nothing to say (notes aside), 1 warnings, or something could not be examined, 2 bad usage, 5 no server there,
6 problems: work is stuck, lost or done twice now.";

/// Work is stuck, lost or done twice.
const PROBLEMS: u8 = 6;
const WARNINGS: u8 = 1;

impl DoctorCommand {
    /// # Errors
    /// No server there; the worst that was found, as an exit code without a text.
    pub async fn run(self) -> Result<(), Failure> {
        let connection = Connection::open(&self.connect).await?;
        let snapshot = Snapshot::take(&connection, self.monitor.as_deref(), self.listen).await?;
        connection.close().await;
        let mut findings = checks::all(&snapshot);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Note);
        if self.connect.json {
            let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
            let report = json!({
                "server": snapshot.server, "problems": count(Severity::Problem), "warnings": count(Severity::Warning),
                "findings": findings, "not_seen": snapshot.not_seen,
            });
            say(&serde_json::to_string_pretty(&report).expect("a report prints"));
        } else {
            print(&snapshot, &findings);
        }
        match worst {
            Severity::Problem => Err(Failure::silent(PROBLEMS)),
            Severity::Warning => Err(Failure::silent(WARNINGS)),
            Severity::Note => Ok(()),
        }
    }
}

fn print(snapshot: &Snapshot, findings: &[Finding]) {
    let (streams, consumers) = (snapshot.streams.len(), snapshot.consumers.len());
    say(&table::printable(&format!("{}: {streams} streams, {consumers} consumers", snapshot.server)));
    for finding in findings {
        say(&finding.to_string());
    }
    if findings.iter().all(|finding| finding.severity == Severity::Note) {
        say("\nNothing is wrong as far as can be seen.");
    }
    if !snapshot.not_seen.is_empty() {
        say("\nNot seen:");
        snapshot.not_seen.iter().for_each(|missing| say(&format!("  - {missing}")));
    }
}
