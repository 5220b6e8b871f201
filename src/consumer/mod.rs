//! L2, pure: one delivery cursor over a stream. Must not know disks, tasks or clocks.
//!
//! [`Consumer`] is told what happens (`handle_*`) and asked what to do ([`Consumer::poll`], until it says nothing), with
//! `now` as an argument. It sees the stream through [`Index`](crate::stream::Index) and never a payload.
//!
//! What the caller owes it:
//! - every removal at once, before anything else is asked ([`Consumer::handle_removed`]), and every message that has
//!   become durable, in order ([`Consumer::handle_append`]);
//! - a poll after every event and at [`Consumer::next_deadline`];
//! - [`Consumer::changes`] after the polls, written in one transaction; answers to acks, and deliveries marked
//!   `after_commit`, go out once that is durable.
//!
//! Laws, held by the tests: the ack floor never falls; first deliveries never exceed `max_ack_pending`; what is not acked
//! is delivered again; what is durably acked never is, restarts included; the count of pending messages equals a recount.
//!
//! Reading order: [`config`], [`config_check`], [`ack`], [`pull`], [`output`], [`rows`], [`machine`] (the state and
//! the events), `requests`, `answers`, `deliver` (the poll), `persist`, and what they are made of: `cursor`, `pending`,
//! `acked`, `waiting`, `push`.

pub mod ack;
mod acked;
pub mod advisory;
mod answers;
pub mod config;
pub mod config_check;
mod cursor;
mod deliver;
pub mod info;
pub mod machine;
pub mod output;
mod pending;
mod persist;
pub mod progress;
pub mod pull;
mod push;
mod requests;
pub mod rows;
mod waiting;

#[cfg(test)]
mod tests;

pub use crate::types::GoDuration;
pub use ack::{Ack, AckAddress, AckKind, DeliveryInfo};
pub use advisory::Advisory;
pub use config::{AckPolicy, ConsumerConfig, DeliverPolicy, PriorityPolicy, ReplayPolicy};
pub use config_check::StreamTerms;
pub use info::{ConsumerInfo, PriorityGroupInfo, SequenceInfo};
pub use machine::{Consumer, Setup, View};
pub use output::{Closing, Delivery, MessageSize, Output, Status, headers_only};
pub use progress::{Out, Progress};
pub use pull::{Priority, PullRequest};
pub use rows::{AckBlock, ConsumerChanges, ConsumerRows, Redelivery, StateRow};
