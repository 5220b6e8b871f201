//! What the machine has, where the configuration leaves JetStream's limits open.

use std::path::Path;
use std::sync::Arc;

use crate::broker::jetstream::{self, Budget, Strictness};
use crate::config::{self, JetStreamOptions};
use crate::types::JetStreamLimits;

/// nats-server's `JetStreamMaxMemDefault` and `JetStreamMaxStoreDefault`, for machines that do not tell.
const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
const STORAGE_BYTES_DEFAULT: u64 = 1 << 40;

/// JetStream's options, with three quarters of the machine for limits that are not set (nats-server
/// `dynJetStreamConfig`). `folder` must exist.
pub(super) fn jetstream(
    options: &JetStreamOptions,
    limits: &config::JetStreamLimits,
    folder: &Path,
) -> jetstream::Options {
    let memory = || total_memory_bytes().map_or(MEMORY_BYTES_DEFAULT, |bytes| bytes / 4 * 3);
    let storage = || free_storage_bytes(folder).map_or(STORAGE_BYTES_DEFAULT, |bytes| bytes / 4 * 3);
    let memory_bytes_max = options.memory_bytes_max.unwrap_or_else(memory);
    let storage_bytes_max = options.storage_bytes_max.unwrap_or_else(storage);
    jetstream::Options {
        domain: options.domain.clone().unwrap_or_default(),
        account_limits: JetStreamLimits::default(),
        strictness: if limits.strict { Strictness::Strict } else { Strictness::Forgiving },
        budget: Arc::new(Budget::new(memory_bytes_max, storage_bytes_max, limits.assets)),
    }
}

/// As `server`, for an account that is held to `limits`.
pub(super) fn of_account(server: &jetstream::Options, limits: &JetStreamLimits) -> jetstream::Options {
    jetstream::Options { account_limits: *limits, ..server.clone() }
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
        let limits = config::JetStreamLimits { strict: false, ..Default::default() };
        let found = jetstream(&set, &limits, folder.path());
        let budget = &found.budget;
        assert_eq!((&*found.domain, budget.memory_bytes_max(), budget.storage_bytes_max()), ("HUB", 0, 7));
        assert_eq!(found.strictness, Strictness::Forgiving);
        let found = jetstream(&JetStreamOptions::default(), &limits, folder.path());
        let budget = &found.budget;
        assert!(budget.memory_bytes_max() > 0 && budget.storage_bytes_max() > 0 && found.domain.is_empty());
    }
}
