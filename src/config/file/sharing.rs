//! `exports`, `imports` and `mappings` of accounts (nats-server `parseExportStreamOrService`,
//! `parseImportStreamOrService`, `parseAccountMappings`).

use super::place::FileError;
use super::report::Report;
use super::value::{Entry, Kind, Value};
use crate::auth::{Export, Import, Latency, MappingSpec, ServiceResponses, Shared};

const EXPORT: &[&str] = &[
    "account_token_position",
    "accounts",
    "allow_trace",
    "latency",
    "response",
    "response_threshold",
    "response_type",
    "service",
    "stream",
];
const IMPORT: &[&str] = &["allow_trace", "prefix", "service", "share", "stream", "to"];

pub(super) fn exports(value: &Value, report: &mut Report) -> Vec<Export> {
    let list = report.ok(value.array()).unwrap_or_default();
    list.iter().filter_map(|value| export(value, report)).collect()
}

fn export(value: &Value, report: &mut Report) -> Option<Export> {
    let map = report.ok(value.map())?;
    let mut export = Export::default();
    let mut kinds = 0;
    let (mut of_services, mut traced, mut measured) = (None, None, None);
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            name @ ("stream" | "service") => {
                kinds += 1;
                export.kind = if name == "stream" { Shared::Stream } else { Shared::Service };
                report.set(&mut export.subject, value.text().map(str::to_owned));
            }
            "response" | "response_type" => {
                of_services = Some(entry);
                match report.ok(value.text()).map(str::to_ascii_lowercase).as_deref() {
                    Some("single" | "singleton") | None => {}
                    Some("stream" | "chunk" | "chunked") => export.responses = ServiceResponses::Many,
                    Some(other) => report.error(value.wrong(format!("Unknown response type: {other:?}"))),
                }
            }
            "threshold" | "response_threshold" | "response_max_time" | "response_time" => {
                of_services = Some(entry);
                report.set(&mut export.response_wait, value.duration().map(Some));
            }
            "accounts" => {
                let names = report.ok(value.texts()).unwrap_or_default();
                export.accounts = names.into_iter().map(str::to_owned).collect();
            }
            "account_token_position" => {
                let position = value.integer().and_then(|number| {
                    usize::try_from(number).map_err(|_| value.wrong("the position of a token is 1 or more"))
                });
                report.set(&mut export.account_token, position);
            }
            "latency" => {
                measured = Some(entry);
                export.latency = latency(value, report);
            }
            "allow_trace" => {
                traced = Some(entry);
                report.set(&mut export.allow_trace, value.bool());
            }
            _ => report.unknown(entry, EXPORT),
        }
    }
    if let (Some(entry), Shared::Stream) = (traced, export.kind) {
        report.error(entry.wrong("Detected allow_trace directive on non-service"));
    }
    if let (Some(entry), Shared::Stream) = (measured, export.kind) {
        report.error(entry.wrong("Detected latency directive on non-service"));
    }
    if let (Some(entry), Shared::Stream) = (of_services, export.kind) {
        report.error(entry.wrong("Detected response directive on non-service"));
    }
    match kinds {
        1 => Some(export),
        0 => {
            report.error(value.wrong("an export names a stream or a service"));
            None
        }
        _ => {
            report.error(value.wrong(format!("Detected {:?} as both a stream and a service", export.subject)));
            None
        }
    }
}

/// A subject, or a map (nats-server `parseServiceLatency`).
fn latency(value: &Value, report: &mut Report) -> Option<Latency> {
    if let Kind::Text(subject) = &value.kind {
        return Some(Latency { percent: 100, subject: subject.clone() });
    }
    let map = report.ok(value.map())?;
    let mut latency = Latency { percent: 100, subject: String::new() };
    for entry in map.iter() {
        match entry.name().as_str() {
            "sampling" => report.set(&mut latency.percent, sampling(&entry.value)),
            "subject" => report.set(&mut latency.subject, entry.value.text().map(str::to_owned)),
            _ => report.unknown(entry, &["sampling", "subject"]),
        }
    }
    if map.get("subject").is_none() {
        report.error(value.wrong("Latency subject required, but missing"));
        return None;
    }
    Some(latency)
}

/// `headers`, which is 0, or a number of percent.
fn sampling(value: &Value) -> Result<u8, FileError> {
    let text = value.text()?;
    if text.trim().eq_ignore_ascii_case("headers") {
        return Ok(0);
    }
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent = number.parse::<i64>();
    let percent = percent.map_err(|error| value.wrong(format!("Failed to parse latency sample: {error}")))?;
    match u8::try_from(percent) {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err(value.wrong("bad sampling percentage, should be 1-100")),
    }
}

pub(super) fn imports(value: &Value, report: &mut Report) -> Vec<Import> {
    let list = report.ok(value.array()).unwrap_or_default();
    list.iter().filter_map(|value| import(value, report)).collect()
}

fn import(value: &Value, report: &mut Report) -> Option<Import> {
    let map = report.ok(value.map())?;
    let mut import = Import::default();
    let mut kinds = 0;
    let mut traced = None;
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            name @ ("stream" | "service") => {
                kinds += 1;
                import.kind = if name == "stream" { Shared::Stream } else { Shared::Service };
                (import.account, import.subject) = origin(value, report)?;
            }
            "prefix" => report.set(&mut import.prefix, value.text().map(str::to_owned)),
            "to" => report.set(&mut import.to, value.text().map(str::to_owned)),
            "share" => report.set(&mut import.share, value.bool()),
            "allow_trace" => {
                traced = Some(entry);
                report.set(&mut import.allow_trace, value.bool());
            }
            _ => report.unknown(entry, IMPORT),
        }
    }
    if let (Some(entry), Shared::Service) = (traced, import.kind) {
        report.error(entry.wrong("Detected allow_trace directive on a non-stream"));
    }
    if !import.prefix.is_empty() && !import.to.is_empty() {
        report.error(value.wrong("Stream import can not have a 'prefix' and a 'to' property"));
    }
    match kinds {
        1 => Some(import),
        0 => {
            report.error(value.wrong("an import names a stream or a service"));
            None
        }
        _ => {
            report.error(value.wrong("Detected stream but already saw a service"));
            None
        }
    }
}

/// Account and subject.
fn origin(value: &Value, report: &mut Report) -> Option<(String, String)> {
    let map = report.ok(value.map())?;
    let (mut account, mut subject) = (String::new(), String::new());
    for entry in map.iter() {
        match entry.name().as_str() {
            "account" => report.set(&mut account, entry.value.text().map(str::to_owned)),
            "subject" => report.set(&mut subject, entry.value.text().map(str::to_owned)),
            _ => report.unknown(entry, &["account", "subject"]),
        }
    }
    if account.is_empty() || subject.is_empty() {
        report.error(value.wrong("Expect an account name and a subject"));
        return None;
    }
    Some((account, subject))
}

pub(super) fn mappings(value: &Value, report: &mut Report) -> Vec<MappingSpec> {
    let Some(map) = report.ok(value.map()) else { return Vec::new() };
    let entries = map.iter().filter(|entry| !entry.is_variable);
    entries.map(|entry| MappingSpec { source: entry.key.clone(), destinations: destinations(entry, report) }).collect()
}

fn destinations(entry: &Entry, report: &mut Report) -> Vec<(String, u8)> {
    let value = &entry.value;
    match &value.kind {
        Kind::Text(subject) => vec![(subject.clone(), 100)],
        Kind::Array(list) => list.iter().filter_map(|value| destination(value, report)).collect(),
        _ => destination(value, report).into_iter().collect(),
    }
}

fn destination(value: &Value, report: &mut Report) -> Option<(String, u8)> {
    let map = report.ok(value.map())?;
    let (mut subject, mut percent) = (String::new(), None);
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            "dest" | "destination" => report.set(&mut subject, value.text().map(str::to_owned)),
            "weight" => {
                let text = report.ok(value.text()).unwrap_or_default();
                let number = text.strip_suffix('%').unwrap_or(text);
                let parsed = number.parse::<u8>().ok().filter(|&percent| percent <= 100);
                let wrong = || value.wrong(format!("Invalid weight {number:?} for mapping destination"));
                percent = report.ok(parsed.ok_or_else(wrong).map(Some))?;
            }
            // Of another cluster than this one server.
            "cluster" => return None,
            _ => report.error(entry.wrong(format!("Unknown field {:?} for mapping destination", entry.key))),
        }
    }
    match percent {
        Some(percent) => Some((subject, percent)),
        None => {
            report.error(value.wrong(format!("Missing weight for mapping destination {subject:?}")));
            None
        }
    }
}
