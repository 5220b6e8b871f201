//! The client and the coordinator as a system: a real broker, real connections.
//!
//! They run against our own program, or, with `NATS_SERVER_BIN=<path of nats-server 2.14 or newer>`, against that.

mod agent;
mod client;
mod lifecycle;
mod presence;
mod restarts;
mod support;
mod throughput;
