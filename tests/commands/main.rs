//! The operator's commands, as the real program, against a real broker in this process.

#![allow(clippy::disallowed_methods, reason = "deadlines of real processes are kept by real clocks")]

mod doctor;
mod lists;
mod support;
mod tasks;
mod terminal;
mod verbs;

#[path = "../support/mod.rs"]
mod tools;
