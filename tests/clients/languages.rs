//! One test per system and client library; what each does is told in the client's own language, beside this file.

use crate::scenario;
use crate::support::toolchain::{self, clients_dir, or_skip};
use std::process::Command;

/// Plugin and agent bus: core subjects, large payloads, a disk queue that drains in a burst, a dead letter.
#[test]
fn plugin_bus_on_async_nats_0_35() {
    if let Some(program) = or_skip("plugin bus on async-nats 0.35", toolchain::cargo("rust-0.35")) {
        scenario::run(Command::new(program));
    }
}

/// VAPORA: tasks to a pool of agents through one durable pull consumer.
#[test]
fn vapora_on_async_nats_0_45() {
    if let Some(program) = or_skip("VAPORA on async-nats 0.45", toolchain::cargo("rust-0.45")) {
        scenario::run(Command::new(program));
    }
}

/// CodeForge: dispatch to backends, results, retries by the client, sessions in KV.
#[test]
fn codeforge_on_nats_go_1_48() {
    if let Some(program) = or_skip("CodeForge on nats.go 1.48", toolchain::go("go")) {
        scenario::run(Command::new(program));
    }
}

#[test]
fn codeforge_on_nats_py_2_9() {
    python("2.9.0");
}

#[test]
fn codeforge_on_the_newest_nats_py() {
    python("latest");
}

fn python(version: &str) {
    if let Some(python) = or_skip(&format!("CodeForge on nats-py {version}"), toolchain::python(version)) {
        let mut command = Command::new(python);
        command.arg("-u").arg(clients_dir().join("python").join("codeforge.py"));
        scenario::run(command);
    }
}

#[test]
fn codeforge_on_nats_js_2() {
    node("nats-2");
}

#[test]
fn codeforge_on_nats_js_3() {
    node("nats-3");
}

fn node(project: &str) {
    if let Some(folder) = or_skip(&format!("CodeForge on nats.js, {project}"), toolchain::node(project)) {
        let mut command = Command::new("node");
        command.arg("codeforge.mjs").current_dir(folder);
        scenario::run(command);
    }
}
