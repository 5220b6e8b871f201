//! The command line: flags in, log lines, tables and exit codes out. Owns what a person sees; must not know how the
//! broker works inside.

pub mod argv;
pub mod flags;
pub mod log;
