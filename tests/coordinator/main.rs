//! The client and the coordinator as a system: a real broker, real connections.
//!
//! They run against our own program with a coordinator of their own, and all of them once more against the real nats-server
//! (`on_nats_server.rs`), but for those about the coordinators that our broker embeds; some of them also against one of those
//! (`on_embedded.rs`). One alone, there: `NATS_SERVER_BIN=<path> cargo test --test coordinator <name>`, or with
//! `NATTERJACK_EMBEDDED=1`.

mod accounts;
mod adopt;
mod again;
mod agent;
mod assets;
mod client;
mod cluster;
mod councils;
mod cron;
mod dead_letters;
mod dependencies;
mod events;
mod family;
mod fencing;
mod lifecycle;
mod on_embedded;
mod on_nats_server;
mod pages;
mod people;
mod permissions;
mod presence;
mod restarts;
mod scheduling;
mod services;
mod standalone;
mod supervision;
mod support;
mod throughput;
mod tracing;
mod why;

#[path = "../support/mod.rs"]
#[allow(clippy::disallowed_methods, reason = "deadlines of real processes are kept by real clocks")]
mod tools;
