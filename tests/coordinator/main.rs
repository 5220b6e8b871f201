//! The client and the coordinator as a system: a real broker, real connections.
//!
//! They run against our own program, or, with `NATS_SERVER_BIN=<path of nats-server 2.14 or newer>`, against that; those
//! about the coordinators that a broker embeds run with that broker alone.

mod accounts;
mod agent;
mod client;
mod cron;
mod lifecycle;
mod permissions;
mod presence;
mod restarts;
mod scheduling;
mod supervision;
mod support;
mod throughput;
