//! The command line: flags in, log lines, tables and exit codes out. Owns what a person sees; must not know how the
//! broker works inside.

mod agent;
mod argv;
mod completions;
mod confirm;
mod connection;
mod coordinator;
mod council;
mod cron;
mod demo;
mod dlq;
mod doctor;
mod failure;
mod flags;
mod log;
mod log_file;
mod output;
mod paging;
mod passwd;
mod queue;
#[cfg(unix)]
mod send_signal;
mod serve;
mod signals;
mod table;
mod task;
mod task_events;
mod task_follow;
mod task_options;
mod task_story;
mod task_work;

use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use self::failure::Failure;
use self::flags::{Command, CommandLine, SUBCOMMANDS};
use crate::config::Config;

/// Called by this name, the program has nats-server's defaults.
const NATS_SERVER: &str = "nats-server";

/// The whole program: arguments in, exit code out. `settled` is called when a server has started.
pub fn main(arguments: impl IntoIterator<Item = OsString>, settled: fn()) -> ExitCode {
    let line = CommandLine::parse_from(argv::normalise(arguments, SUBCOMMANDS));
    let like_nats_server = program_name() == NATS_SERVER;
    if line.version {
        let version = if like_nats_server {
            format!("nats-server: v{}", crate::server::NATS_VERSION)
        } else {
            format!("natterjack {}", env!("CARGO_PKG_VERSION"))
        };
        output::say(&version);
        return ExitCode::SUCCESS;
    }
    let base = if like_nats_server { Config::nats_server() } else { Config::default() };
    match line.command {
        None => serve::run(&line.serve, base, settled),
        Some(Command::Serve(flags)) => serve::run(&flags, base, settled),
        Some(Command::Demo(demo)) => outcome(demo.run()),
        Some(Command::Task(task)) => outcome(task.run()),
        Some(Command::Agent(agent)) => outcome(agent.run()),
        Some(Command::Queue(queue)) => outcome(queue.run()),
        Some(Command::Council(council)) => outcome(council.run()),
        Some(Command::Cron(cron)) => outcome(cron.run()),
        Some(Command::Dlq(dlq)) => outcome(dlq.run()),
        Some(Command::Doctor(doctor)) => outcome(doctor.run()),
        Some(Command::Passwd(passwd)) => outcome(passwd.run()),
        Some(Command::Completions(completions)) => {
            completions.print();
            ExitCode::SUCCESS
        }
        Some(Command::Coordinator(coordinator)) => outcome(coordinator.run()),
    }
}

/// Runs a command that is a client; two threads are plenty for it.
fn outcome(command: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let finished = match built {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(Failure::new(failure::REFUSED, format!("cannot start threads: {error}"))),
    };
    match finished {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.text.is_empty() => ExitCode::from(failure.code),
        Err(failure) => {
            let _ = writeln!(std::io::stderr().lock(), "{}: {}", program_name(), failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// What the program was called by, without folder and extension.
fn program_name() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    Path::new(&called).file_stem().map_or_else(|| "natterjack".to_owned(), |name| name.to_string_lossy().into_owned())
}
