//! `jetstream`: on, off, or a block of settings (nats-server `parseJetStream`).

use super::place::FileError;
use super::report::Report;
use super::value::{Entry, Kind, Value};
use crate::config::Config;
use crate::types::AssetLimits;

const KEYS: &[&str] =
    &["domain", "enabled", "limits", "max_file_store", "max_memory_store", "store_dir", "sync_interval"];
const LIMITS: &[&str] = &["batch", "duplicate_window", "max_ack_pending", "max_ha_assets", "max_request_batch"];
const BATCH_LIMITS: &[&str] = &["max_inflight_per_stream", "max_inflight_total", "max_msgs", "timeout"];

pub(super) fn read(value: &Value, config: &mut Config, report: &mut Report) {
    match &value.kind {
        Kind::Bool(on) => config.jetstream = *on,
        Kind::Text(word) => match word.to_ascii_lowercase().as_str() {
            "enabled" | "enable" => config.jetstream = true,
            "disabled" | "disable" => config.jetstream = false,
            _ => report.error(value.wrong(format!("Expected 'enabled' or 'disabled' for string value, got '{word}'"))),
        },
        Kind::Map(map) => {
            config.jetstream = true;
            for entry in map.iter() {
                setting(entry, config, report);
            }
        }
        _ => report.error(value.wrong("Expected map, bool or string to define JetStream")),
    }
    if !config.jetstream {
        config.coordinator = false;
    }
}

fn setting(entry: &Entry, config: &mut Config, report: &mut Report) {
    let value = &entry.value;
    match entry.name().as_str() {
        "store" | "store_dir" | "storedir" => report.set(&mut config.store_dir, value.text().map(Into::into)),
        "max_memory_store" | "max_mem_store" | "max_mem" => {
            report.set(&mut config.jetstream_options.memory_bytes_max, storage(value));
        }
        "max_file_store" | "max_file" => report.set(&mut config.jetstream_options.storage_bytes_max, storage(value)),
        "domain" => {
            report.set(&mut config.jetstream_options.domain, value.text().map(|domain| Some(domain.to_owned())))
        }
        "enable" | "enabled" => report.set(&mut config.jetstream, value.bool()),
        "strict" => report.set(&mut config.jetstream_limits.strict, value.bool()),
        "limits" => limits(value, config, report),
        "sync" | "sync_interval" => {
            let always = value.text().is_ok_and(|text| text.eq_ignore_ascii_case("always"));
            if !always && report.ok(value.duration()).is_some() {
                report.unserved(entry, "everything is on disk before it is acknowledged");
            }
        }
        "unique_tag" | "max_outstanding_catchup" | "meta_compact" | "meta_compact_size" | "meta_compact_sync" => {
            report.unserved(entry, "natterjack is one server without a cluster");
        }
        "max_buffered_size"
        | "max_buffered_msgs"
        | "request_queue_limit"
        | "info_queue_limit"
        | "max_concurrent_io"
        | "extension_hint" => report.unserved(entry, "natterjack has bounds of its own"),
        // Ignoring these would leave readable what was meant to be unreadable.
        "key" | "ek" | "encryption_key" | "prev_key" | "prev_ek" | "prev_encryption_key" | "cipher" | "tpm" => {
            report.error(entry.wrong(format!(
                "{:?}: natterjack does not encrypt its store; use an encrypted disk, and leave this out",
                entry.key
            )));
        }
        _ => report.unknown(entry, KEYS),
    }
}

fn limits(value: &Value, config: &mut Config, report: &mut Report) {
    let Some(map) = report.ok(value.map()) else { return };
    for entry in map.iter() {
        let limits = &mut config.jetstream_limits.assets;
        match entry.name().as_str() {
            "max_ack_pending" => report.set(&mut limits.max_ack_pending, entry.value.integer()),
            "max_request_batch" => report.set(&mut limits.max_request_batch, entry.value.integer()),
            "duplicate_window" => report.set(&mut limits.max_duplicate_window, nanos(&entry.value)),
            "max_ha_assets" => report.set(&mut limits.max_ha_assets, entry.value.integer()),
            "batch" => batch_limits(&entry.value, limits, report),
            _ => report.unknown(entry, LIMITS),
        }
    }
}

fn batch_limits(value: &Value, limits: &mut AssetLimits, report: &mut Report) {
    let Some(map) = report.ok(value.map()) else { return };
    for entry in map.iter() {
        match entry.name().as_str() {
            "max_inflight_per_stream" => {
                report.set(&mut limits.max_batch_inflight_per_stream, entry.value.integer());
            }
            "max_inflight_total" => report.set(&mut limits.max_batch_inflight_total, entry.value.integer()),
            "max_msgs" => report.set(&mut limits.max_batch_size, entry.value.integer()),
            "timeout" => report.set(&mut limits.max_batch_timeout, nanos(&entry.value)),
            _ => report.unknown(entry, BATCH_LIMITS),
        }
    }
}

fn nanos(value: &Value) -> Result<i64, FileError> {
    value.duration().map(|duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// A size of storage: in quotes its letter counts by 1024 (`"1G"`), as in nats-server `getStorageSize`. `None` for -1 and
/// for nothing, which stand for whatever there is.
fn storage(value: &Value) -> Result<Option<u64>, FileError> {
    let Kind::Text(text) = &value.kind else { return value.integer().map(|bytes| u64::try_from(bytes).ok()) };
    if text.is_empty() {
        return Ok(None);
    }
    let shift = match text.chars().last() {
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => return value.integer().map(|bytes| u64::try_from(bytes).ok()),
    };
    let number = text[..text.len() - 1].parse::<u64>().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.map(Some).ok_or_else(|| value.wrong(format!("{text:?} is not a size like 10G")))
}
