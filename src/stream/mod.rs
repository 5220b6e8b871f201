//! L2, pure: the log's rules. Owns sequences, limits, dedup and the subject index; must not know disks, tasks or clocks.
//!
//! [`Stream`] takes events (`handle_*`, with `now` as an argument) and pushes what must be written into [`Changes`].
//! Its state runs ahead of the disk: the caller lets nobody see a sequence before the changes that carry it are
//! durable, and rebuilds the stream from its rows when they could not be written.
//!
//! Reading order: [`config`], [`state`], [`changes`], [`index`] (the log as consumers see it), [`machine`].

pub mod batch;
pub mod changes;
pub mod config;
pub mod config_check;
mod counter;
pub mod dedup;
mod delete_marker;
mod fast_batch;
pub mod filter;
pub mod headers;
pub mod index;
mod lifetimes;
mod limits;
pub mod machine;
#[cfg(test)]
mod model_tests;
mod origin_check;
mod publish;
mod purge;
mod republish;
mod republish_cycle;
mod schedules;
pub mod source_name;
pub mod sourced;
pub mod state;
pub mod ttl;
mod world;

pub use changes::{AbandonReason, AbandonedBatch, Changes, Published, Removal, RemovalReason, SubjectRef};
pub use config::StreamConfig;
pub use fast_batch::{FastAnswer, SUFFIX as FAST_BATCH_SUFFIX};
pub use filter::Filter;
pub use index::Index;
pub use machine::Stream;
pub use publish::HEADERS_MAX;
pub use republish::Republished;
pub use republish_cycle::returns as republish_returns;
pub use sourced::{Position, Positions, Provenance};
pub use state::StreamState;
pub use world::{BatchTerms, World};

pub use crate::types::{StoredMessage, StreamId};
