//! L2, pure: who wants this subject.
//!
//! Owns the [`sublist::Sublist`], a trie of subscription filters with their queue groups. Must not know who subscribes:
//! a subscription is any cloneable value with a key.

pub mod sublist;

pub use sublist::{Group, InvalidFilter, Keyed, Matches, Sublist};
