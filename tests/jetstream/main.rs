//! JetStream through the official Rust client, against an embedded broker on a real store.

mod account;
mod backup;
#[path = "../support/backups.rs"]
mod backups;
mod consumer_acks;
mod consumer_calls;
mod consumers;
mod key_value;
mod mirrors;
mod published;
mod restart;
mod sources;
mod sourcing_consumers;
mod streams;
mod subjects;
mod support;
mod work_queue;
