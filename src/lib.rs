//! natterjack: a NATS-compatible broker with durable streams and an embedded task coordinator, in one process and one
//! store file.
//!
//! # The way of a message (one direction, no way back up)
//!
//! ```text
//! socket bytes -> protocol::parser -> ClientOp -> broker::link (its Session: identity, limits)
//!   -> router (sublist) -> core subscribers
//!                       -> stream task -> stream::Stream::handle_publish -> Changes
//!   -> storage::Store (one writer thread, one redb transaction for all that is waiting, one fsync)
//!   -> durable watermark -> PubAck to the publisher + consumer::Consumer::handle_append -> delivery
//!   -> outbox -> protocol::encode -> socket
//! ```
//!
//! What comes back up is values: a watermark, effects. No lower module names a higher one (`tests/tidy.rs` checks it).
//!
//! # Code map, in reading order

pub mod api;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod consumer;
pub mod coordinator;
pub mod monitor;
pub mod protocol;
pub mod router;
pub mod server;
pub mod session;
pub mod storage;
pub mod stream;
pub mod types;
