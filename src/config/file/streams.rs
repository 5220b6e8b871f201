//! `streams`: streams and consumers that are there once the server has started. The keys are those of the API's JSON;
//! durations and sizes are written for people.

use serde_json::{Map as JsonMap, Value as Json};

use super::place::FileError;
use super::report::Report;
use super::value::{Entry, Kind, Map, Value};
use crate::config::{Config, DeclaredConsumer, DeclaredStream};

const STREAM_KEYS: &[&str] = &[
    "allow_atomic",
    "allow_batched",
    "allow_direct",
    "allow_msg_counter",
    "allow_msg_schedules",
    "allow_msg_ttl",
    "allow_rollup_hdrs",
    "compression",
    "consumer_limits",
    "consumers",
    "deny_delete",
    "deny_purge",
    "description",
    "discard",
    "discard_new_per_subject",
    "duplicate_window",
    "first_seq",
    "max_age",
    "max_bytes",
    "max_consumers",
    "max_msg_size",
    "max_msgs",
    "max_msgs_per_subject",
    "metadata",
    "mirror",
    "mirror_direct",
    "no_ack",
    "num_replicas",
    "persist_mode",
    "placement",
    "republish",
    "retention",
    "sealed",
    "sources",
    "storage",
    "subject_delete_marker_ttl",
    "subject_transform",
    "subjects",
];
const CONSUMER_KEYS: &[&str] = &[
    "ack_policy",
    "ack_wait",
    "backoff",
    "deliver_group",
    "deliver_policy",
    "deliver_subject",
    "description",
    "filter_subject",
    "filter_subjects",
    "flow_control",
    "headers_only",
    "idle_heartbeat",
    "inactive_threshold",
    "max_ack_pending",
    "max_batch",
    "max_bytes",
    "max_deliver",
    "max_expires",
    "max_waiting",
    "mem_storage",
    "metadata",
    "num_replicas",
    "opt_start_seq",
    "opt_start_time",
    "pause_until",
    "priority_groups",
    "priority_policy",
    "priority_timeout",
    "rate_limit_bps",
    "replay_policy",
    "sample_freq",
];
/// Nanoseconds on the wire, durations for people.
const DURATIONS: &[&str] = &[
    "ack_wait",
    "backoff",
    "duplicate_window",
    "idle_heartbeat",
    "inactive_threshold",
    "max_age",
    "max_expires",
    "priority_timeout",
    "subject_delete_marker_ttl",
];

/// Arrays on the wire; one member may stand without brackets.
const LISTS: &[&str] = &["backoff", "filter_subjects", "priority_groups", "sources", "subjects"];

pub(super) fn read(value: &Value, config: &mut Config, report: &mut Report) {
    let Some(map) = report.ok(value.map()) else { return };
    for entry in map.iter() {
        if let Some(stream) = stream(entry, report) {
            config.streams.push(stream);
        }
    }
}

fn stream(entry: &Entry, report: &mut Report) -> Option<DeclaredStream> {
    let map = report.ok(entry.value.map())?;
    let mut config = settings(map, STREAM_KEYS, report);
    config.insert("name".to_owned(), entry.key.clone().into());
    let mut consumers = Vec::new();
    if let Some(declared) = map.get("consumers") {
        for entry in report.ok(declared.map())?.iter() {
            let Some(map) = report.ok(entry.value.map()) else { continue };
            let mut config = settings(map, CONSUMER_KEYS, report);
            config.insert("name".to_owned(), entry.key.clone().into());
            config.insert("durable_name".to_owned(), entry.key.clone().into());
            consumers.push(DeclaredConsumer {
                name: entry.key.clone(),
                at: entry.at.to_string(),
                config: Json::Object(config),
            });
        }
    }
    Some(DeclaredStream { name: entry.key.clone(), at: entry.at.to_string(), config: Json::Object(config), consumers })
}

fn settings(map: &Map, known: &[&str], report: &mut Report) -> JsonMap<String, Json> {
    let mut settings = JsonMap::new();
    for entry in map.iter() {
        let name = entry.name();
        if !known.contains(&name.as_str()) {
            report.unknown(entry, known);
        } else if name != "consumers" {
            let converted = if DURATIONS.contains(&name.as_str()) { nanos(&entry.value) } else { json(&entry.value) };
            if let Some(value) = report.ok(converted) {
                let alone = LISTS.contains(&name.as_str()) && !value.is_array();
                settings.insert(name, if alone { Json::Array(vec![value]) } else { value });
            }
        }
    }
    settings
}

/// A duration, or an array of them, in nanoseconds.
fn nanos(value: &Value) -> Result<Json, FileError> {
    match &value.kind {
        Kind::Array(values) => values.iter().map(nanos).collect(),
        _ => {
            let nanos = i64::try_from(value.duration()?.as_nanos());
            nanos.map(Json::from).map_err(|_| value.wrong("this is longer than 292 years"))
        }
    }
}

fn json(value: &Value) -> Result<Json, FileError> {
    Ok(match &value.kind {
        Kind::Text(text) | Kind::Date(text) => text.clone().into(),
        Kind::Integer(number, _) => (*number).into(),
        Kind::Float(number, _) => (*number).into(),
        Kind::Bool(value) => (*value).into(),
        Kind::Array(values) => values.iter().map(json).collect::<Result<_, _>>()?,
        Kind::Map(map) => {
            let pairs = map.iter().map(|entry| {
                let duration = DURATIONS.contains(&entry.key.as_str());
                Ok((entry.key.clone(), if duration { nanos(&entry.value) } else { json(&entry.value) }?))
            });
            Json::Object(pairs.collect::<Result<_, FileError>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::{Config, file::read_text};

    #[test]
    fn streams_are_written_for_people_and_sent_as_the_api_wants() {
        let text = "streams {
            TASKS {
                subjects: [tasks.>], retention: workqueue, max_age: 24h, max_bytes: 1GB, duplicate_window: '2m'
                consumer_limits { inactive_threshold: 1h }
                consumers { workers { ack_wait: 30s, backoff: [1s, 5s], filter_subjects: tasks.now } }
            }
        }";
        let streams = read_text(Config::in_folder("x"), text).unwrap().streams;
        let stream = &streams[0];
        assert_eq!((stream.name.as_str(), stream.at.as_str()), ("TASKS", "test.conf:2:13"));
        assert_eq!(
            stream.config,
            json!({
                "name": "TASKS", "subjects": ["tasks.>"], "retention": "workqueue", "max_age": 86_400_000_000_000_i64,
                "max_bytes": 1 << 30, "duplicate_window": 120_000_000_000_i64,
                "consumer_limits": { "inactive_threshold": 3_600_000_000_000_i64 },
            })
        );
        assert_eq!(
            stream.consumers[0].config,
            json!({
                "name": "workers", "durable_name": "workers", "ack_wait": 30_000_000_000_i64,
                "backoff": [1_000_000_000, 5_000_000_000_i64], "filter_subjects": ["tasks.now"],
            })
        );
        let check = |text: &str, expected: &str| {
            assert_eq!(read_text(Config::in_folder("x"), text).unwrap_err().to_string(), expected, "{text}");
        };
        check("streams { A { subject: x } }", "test.conf:1:15: unknown field \"subject\"; did you mean \"subjects\"?");
        check("streams { A: 1 }", "test.conf:1:14: expected a map in braces, not the number 1");
        check(
            "streams { A { max_age: soon } }",
            "test.conf:1:24: expected a duration like \"2m\" or \"250ms\", not the text \"soon\"",
        );
    }
}
