//! natterjack: a NATS-compatible broker with durable streams and an embedded task coordinator, in one process and one
//! store file. Pure rules in the middle, I/O at the edges. What is spoken on the wire is in `protocol.md`.
//!
//! # The way of a message (one direction, no way back up)
//!
//! ```text
//! socket bytes -> protocol::Parser -> ClientOp -> broker::Link (its Session: identity, limits)
//!   -> router (Sublist) -> core subscribers
//!                       -> stream task -> stream::Stream::handle_publish -> Changes
//!   -> storage::Store (one writer thread, one redb transaction for all that is waiting, one fsync)
//!   -> durable watermark -> PubAck to the publisher + consumer::Consumer::handle_append -> delivery
//!   -> Outbox -> protocol::encode -> socket
//! ```
//!
//! What comes back up is values: a watermark, effects. No lower module names a higher one.
//!
//! # Code map, in reading order
//!
//! | module | layer | what it is |
//! |---|---|---|
//! | [`types`] | pure | subject, header, message, time, the API error table: plain values |
//! | [`protocol`] | pure | bytes to operations and back, the `-ERR` texts |
//! | [`session`] | pure | one client's life: CONNECT, what may be done when, keepalive |
//! | [`router`] | pure | who wants this subject: a trie of filters |
//! | [`auth`] | pure | who may come in, into which account, what they may do there, and what accounts show each other |
//! | [`stream`] | pure | a log's rules: sequences, limits, dedup, expectations, batches, the subject index |
//! | [`consumer`] | pure | a delivery cursor's rules: pulls, pushes, acks, redelivery |
//! | [`api`] | pure | `$JS.API` requests and responses as values |
//! | [`backup`] | pure | the format of stream backups: bytes in, entries out, and back |
//! | [`storage`] | | the redb file: rows, the committer, recovery |
//! | [`broker`] | | composition: links, outboxes, couriers, bridges between accounts, one task per stream |
//! | [`client`] | | a small NATS client over any byte stream |
//! | [`coordinator`] | | tasks, leases, agents: pure rules around a NATS client |
//! | [`monitor`] | | HTTP: `/healthz /varz /connz /subsz /jsz` |
//! | [`config`], [`server`], [`cli`] | | defaults, sockets, the program |
//!
//! A pure machine has no socket, file, clock, randomness, task or lock: `handle_x` takes an event and `now`, `poll`
//! yields what to do. That buys fuzzing at memory speed, replay from a seed, and tests without a runtime.
//!
//! # Invariants
//!
//! 1. Only its own task changes a stream and its consumers.
//! 2. One thread begins store transactions. Everything that waits when it starts goes into one (group commit), without a
//!    timer: batching happens while the previous fsync runs.
//! 3. No PubAck, no reply to an awaited ack, no task reply and no delivery of a stream's message before its transaction is
//!    durable. No end of a message before the advisory of it that a stream keeps.
//! 4. Every queue has a bound and a named answer when it is full.
//! 5. Bytes from the network never panic the process. A panic in one task ends that connection or stream, not the server.
//! 6. A failed commit fails its waiters with an error; the same fsync is never retried as if it had worked.
//! 7. Rows carry a format version and a checksum; in-memory types are not the stored types.
//! 8. The coordinator has no door but the client API.
//! 9. Core publish/subscribe never touches the store.
//!
//! Deliberately absent: clusters, a second store file, a lock held across an await, a channel operation or allocation per
//! delivered core message. `tests/tidy.rs` checks who uses whom and that pure modules stay pure.
//!
//! # Embedding
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! use natterjack::{config::Config, server::Server};
//!
//! let server = Server::start(Config::on_free_ports(folder.path())).await?;
//! let client = server.connect().await?; // in process; others connect to server.client_url()
//! client.publish("greet.world", b"hello")?;
//! server.stop().await;
//! # Ok(())
//! # }
//! ```

pub mod api;
pub mod auth;
pub mod backup;
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
