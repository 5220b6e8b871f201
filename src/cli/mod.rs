//! The command line: flags in, log lines, tables and exit codes out. Owns what a person sees; must not know how the
//! broker works inside.

pub mod agent;
pub mod argv;
pub mod connection;
pub mod demo;
pub mod failure;
pub mod flags;
pub mod log;
pub mod table;
pub mod task;
