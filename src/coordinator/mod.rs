//! L6: a durable task lifecycle for agents that only speak NATS. Pure machines, and a service around them that is nothing
//! but a NATS client, so it runs on any broker with JetStream. Must not know our broker or its store.

pub mod agent;
mod assets;
pub mod backoff;
mod council;
mod cron;
mod desk;
mod directory;
pub mod errors;
mod explain;
pub mod figures;
mod health;
mod history;
pub mod labels;
mod lead;
mod micro;
mod names;
mod preflight;
pub mod question;
pub mod queue;
pub mod random;
mod rare;
mod rate;
pub mod record;
pub mod scheduler;
mod seconds;
mod service;
pub mod task;

pub use desk::{ConnectionEvent, Settings};
pub use health::Health;
pub use preflight::{Unfit, check as preflight};
pub use service::{Coordinator, Options, StartError};
