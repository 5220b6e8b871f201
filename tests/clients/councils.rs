//! WHOOSH and CHORUS: councils of agents on nats.go that come late, are cut off and come back; and what the `nats` command
//! shows of them.
//!
//! The many agents take 1,000 connections, half a minute, and a machine that does nothing else: `cargo test --release --test
//! clients many_agents -- --ignored`.

use crate::scenario;
use crate::support::server::{Program, Server};
use crate::support::toolchain::{announce, go_package, or_skip};
use natterjack::client::Client;
use natterjack::coordinator::{Coordinator, Options};
use std::process::Command;

/// WHOOSH's 34 agents, of which a fifth come late and a fifth are cut off: all are found, all councils form. Statuses take
/// milliseconds; the bound is for a machine that runs other tests meanwhile.
#[test]
fn whoosh_on_nats_go_1_48() {
    whoosh("WHOOSH on nats.go 1.48", &[("AGENTS", "34"), ("COUNCILS", "6"), ("P95_MS", "1000")]);
}

#[test]
#[ignore = "1,000 connections, and a machine that does nothing else"]
fn many_agents() {
    whoosh("a thousand agents on nats.go", &[("AGENTS", "1000"), ("COUNCILS", "20"), ("P95_MS", "100")]);
}

fn whoosh(test: &str, numbers: &[(&str, &str)]) {
    let Some(program) = or_skip(test, go_package("go", "whoosh")) else { return };
    let mut command = Command::new(program);
    command.envs(numbers.iter().copied());
    let folder = tempfile::tempdir().expect("a folder for the config");
    let config = folder.path().join("server.conf");
    let mut served = Program::under_test();
    if !served.is_real() {
        std::fs::write(&config, "metrics { subjects: [\"chorus.councils.>\"] }\n").expect("a config file");
        served = served.arg("-c").arg(config.display().to_string());
        command.env("METRICS", "1");
    }
    let server = Server::start(served).expect("a server for the scenario");
    // nats-server has no coordinator of its own.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let coordinator = server.is_real().then(|| {
        runtime.block_on(async {
            let client = Client::connect(&server.url()).await.expect("a connection");
            Coordinator::start(client, Options::default()).await.expect("a coordinator")
        })
    });
    let said = scenario::run_on(server, command);
    drop(coordinator);
    // Past the capture of the harness: how fast it was is worth a look after every run.
    let figures: Vec<&str> = said.lines().filter(|line| line.contains("p50")).collect();
    assert!(!figures.is_empty(), "it tells how long things took: {said}");
    announce(&format!("{test}:\n{}", figures.join("\n")));
}
