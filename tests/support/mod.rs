//! What the tests with real processes and the comparison command share: starting and killing servers, and getting the
//! tools they need. It knows how servers are started, never what is asked of them.

// Each test binary and the comparison command uses its own part of this folder.
#![allow(dead_code)]

pub mod backups;
pub mod lock;
pub mod nats_server;
pub mod server;
pub mod toolchain;

use std::path::PathBuf;

/// Cargo's target folder: everything that is downloaded, built or stored for tests goes below it.
pub fn target_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's tmp folder lies in the target folder").into()
}
