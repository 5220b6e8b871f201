//! What the machine has, where the configuration leaves JetStream's limits open.

use std::path::Path;

use crate::broker::jetstream;
use crate::config::JetStreamOptions;
use crate::types::JetStreamLimits;

/// nats-server's `JetStreamMaxMemDefault` and `JetStreamMaxStoreDefault`, for machines that do not tell.
const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
const STORAGE_BYTES_DEFAULT: u64 = 1 << 40;

/// JetStream's options, with three quarters of the machine for limits that are not set (nats-server
/// `dynJetStreamConfig`). `folder` must exist.
pub(super) fn jetstream(options: &JetStreamOptions, folder: &Path) -> jetstream::Options {
    jetstream::Options {
        domain: options.domain.clone().unwrap_or_default(),
        memory_bytes_max: options
            .memory_bytes_max
            .unwrap_or_else(|| total_memory_bytes().map_or(MEMORY_BYTES_DEFAULT, |bytes| bytes / 4 * 3)),
        storage_bytes_max: options
            .storage_bytes_max
            .unwrap_or_else(|| free_storage_bytes(folder).map_or(STORAGE_BYTES_DEFAULT, |bytes| bytes / 4 * 3)),
        account_limits: JetStreamLimits::default(),
    }
}

/// As `server`, for an account that is held to `limits`.
pub(super) fn of_account(server: &jetstream::Options, limits: &JetStreamLimits) -> jetstream::Options {
    let least = |server: u64, account: i64| u64::try_from(account).map_or(server, |account| account.min(server));
    jetstream::Options {
        domain: server.domain.clone(),
        memory_bytes_max: least(server.memory_bytes_max, limits.max_memory),
        storage_bytes_max: least(server.storage_bytes_max, limits.max_storage),
        account_limits: *limits,
    }
}

fn total_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(unix)]
fn free_storage_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
fn free_storage_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_counts_and_the_rest_is_taken_from_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let set =
            JetStreamOptions { domain: Some("HUB".into()), memory_bytes_max: Some(0), storage_bytes_max: Some(7) };
        let found = jetstream(&set, folder.path());
        assert_eq!((&*found.domain, found.memory_bytes_max, found.storage_bytes_max), ("HUB", 0, 7));
        let found = jetstream(&JetStreamOptions::default(), folder.path());
        assert!(found.memory_bytes_max > 0 && found.storage_bytes_max > 0 && found.domain.is_empty());
    }
}
