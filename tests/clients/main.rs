//! The systems that must run on natterjack, each as a scenario with its real, unmodified client library, and the real
//! `nats` command.
//!
//! Every scenario can be checked against the real server: `NATTERJACK_TEST_SERVER=/path/to/nats-server cargo test --test
//! clients`.

#![allow(clippy::disallowed_methods, reason = "deadlines of real processes are kept by real clocks")]

mod councils;
mod examples;
mod kill;
mod kill_advisories;
mod kill_restore;
mod kill_sources;
mod languages;
mod nats_cli;
mod scenario;
mod small_agent;
#[path = "../support/mod.rs"]
mod support;
