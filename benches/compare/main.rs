//! natterjack beside nats-server: the same load on both from separate processes, alternating over several rounds, one
//! table of both and their ratio.
//!
//! ```text
//! cargo bench --bench compare                                  every row, five rounds
//! cargo bench --bench compare -- --only fanout,request --rounds 3 --quick
//! cargo bench --bench compare -- --servers default,always      nats-server alone
//! cargo bench --bench compare -- --scale --rounds 1            what grows: about four minutes a round
//! ```
//!
//! natterjack runs with its defaults, so it syncs to disk before every PubAck. nats-server runs with its own defaults,
//! which sync every two minutes, and in the JetStream publish rows also with `sync_interval: always`.

#![allow(clippy::disallowed_methods, reason = "measuring is what clocks are for")]

mod crew;
mod load;
mod process;
mod report;
mod rows;
mod scale;
#[path = "../../tests/support/mod.rs"]
mod support;
mod tasks;
mod wire;

use clap::{Parser, ValueEnum};
use report::{Figures, Side};
use rows::{Outcome, ROWS, Row, Scale};
use std::process::ExitCode;
use support::server::{Program, is_memory_backed};

#[derive(Parser)]
#[command(about = "Measures natterjack beside nats-server")]
struct Args {
    /// Rows to run (default: all), by their keys.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The rows about what grows (a million subjects, five million messages) instead of the others.
    #[arg(long)]
    scale: bool,
    /// Measurements of every row on every server; the table shows medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A tenth of the messages: for a look, not for quoting.
    #[arg(long)]
    quick: bool,
    /// Servers to measure (default: all).
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Side>,
    /// Lists the rows' keys.
    #[arg(long)]
    list: bool,
    /// What `cargo bench` always passes.
    #[arg(long, hide = true)]
    bench: bool,
    /// A load process: what it is to do.
    #[arg(long, hide = true)]
    load: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(load) = &args.load {
        return run_load(load);
    }
    if !args.bench {
        println!("compare: nothing to test here; `cargo bench --bench compare` measures");
        return ExitCode::SUCCESS;
    }
    match compare(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("compare: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run_load(load: &str) -> ExitCode {
    let load = serde_json::from_str(load).expect("the measuring process passes a load");
    match load::run(&load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{load:?}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; `false` when a measurement failed.
fn compare(args: &Args) -> Result<bool, String> {
    if args.list {
        ROWS.iter().chain(scale::ROWS).for_each(|row| println!("{}", row.key));
        return Ok(true);
    }
    let known = ROWS.iter().chain(scale::ROWS).map(|row| row.key);
    if let Some(unknown) = args.only.iter().find(|key| !known.clone().any(|known| known == key.as_str())) {
        return Err(format!("no row {unknown:?}; `-- --list` lists them"));
    }
    let sides: Vec<Side> = if args.servers.is_empty() { Side::value_variants().to_vec() } else { args.servers.clone() };
    let nats_server = if sides == [Side::Ours] { None } else { Some(support::nats_server::find()?) };
    if is_memory_backed(env!("CARGO_TARGET_TMPDIR").as_ref()) {
        eprintln!("note: the stores lie on a file system in memory; figures of durable rows mean little");
    }
    let program = |side: Side| match (side, &nats_server) {
        (Side::Ours, _) => Program::natterjack(),
        (Side::Default, Some(path)) => Program::nats_server(path.clone()),
        (Side::Always, Some(path)) => Program::nats_server(path.clone()).sync_always(),
        (_, None) => unreachable!("found above when it is among the sides"),
    };
    let applies = |row: &Row, side: Side| match side {
        Side::Ours => true,
        Side::Default => !row.only_ours,
        Side::Always => row.also_always,
    };
    let scale = Scale { quick: args.quick };
    let rows: Vec<&Row> = match (&*args.only, args.scale) {
        ([], false) => ROWS.iter().collect(),
        ([], true) => scale::ROWS.iter().collect(),
        (only, _) => ROWS.iter().chain(scale::ROWS).filter(|row| only.iter().any(|key| key == row.key)).collect(),
    };
    let mut figures = Figures::default();
    let mut whole = true;
    for row in &rows {
        for round in 1..=args.rounds {
            for &side in sides.iter().filter(|&&side| applies(row, side)) {
                match (row.measure)(&program(side), &scale) {
                    Ok(Outcome { values, cpu_us }) => {
                        let figures_of = row.lines.iter().zip(&values);
                        let shown: Vec<String> =
                            figures_of.map(|(line, &value)| report::figure(line.unit, value)).collect();
                        let cpu = cpu_us.map_or(String::new(), |(server, load)| {
                            format!("   (CPU per message: server {server:.2} us, load {load:.2} us)")
                        });
                        let shown = shown.join("  ");
                        eprintln!("{:<12} {round}/{} {:<20} {shown}{cpu}", row.key, args.rounds, side.name());
                        figures.add(row.key, side, round, values);
                    }
                    Err(text) => {
                        eprintln!("{:<12} {round}/{} {:<20} FAILED: {text}", row.key, args.rounds, side.name());
                        whole = false;
                    }
                }
            }
        }
    }
    print!("{}", report::table(&rows, &figures));
    Ok(whole)
}
