//! `natterjack demo`: a broker of its own, three agents, a few hundred tasks, two accidents, and the proof that every task
//! was completed exactly once.
//!
//! The broker is a child process, so that killing it is what a power cut is to a program. The agents are plain NATS
//! clients: what they do, fifteen lines of any NATS library do as well.

mod agent;
mod broker;
mod ledger;
mod script;
mod stage;
mod verdict;

use std::time::Duration;

use clap::Args;

use super::failure::Failure;

/// Watch agents share tasks while one of them dies and the broker is killed.
///
/// Starts a broker on a temporary folder and free ports, three agents with labels, and submits a few hundred tasks. Half
/// way one agent dies with tasks in its hands, later the broker is killed with SIGKILL and started again. At the end the
/// records, the results and the agents' own ledger are compared: exit code 0 only if every task was completed exactly
/// once.
#[derive(Debug, Args)]
pub struct DemoCommand {
    /// Use the coordinator of a running server instead of a broker of its own; the server is not killed then.
    #[arg(short, long, value_name = "URL")]
    server: Option<String>,
    /// How many tasks to submit.
    #[arg(short, long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    tasks: u32,
    /// Give up when it takes longer.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = super::table::duration)]
    deadline: Duration,
    /// Keep the broker's folder (store and log) and say where it is.
    #[arg(long)]
    keep: bool,
}

impl DemoCommand {
    /// # Errors
    /// What went wrong, or what was not proved.
    pub async fn run(self) -> Result<(), Failure> {
        tokio::select! {
            outcome = script::play(&self) => outcome,
            // The broker is killed with this process's future, the folder removed with it.
            _ = tokio::signal::ctrl_c() => Err(Failure::new(130, "Stopped.")),
        }
    }
}
