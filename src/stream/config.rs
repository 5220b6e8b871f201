//! A stream's configuration, field for field as nats-server 2.14 has it in JSON (`server/stream.go`, `StreamConfig`).
//! Whether a configuration makes sense is [`super::config_check`]'s business.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::types::{Timestamp, is_default};

/// A Go `time.Duration` in JSON: nanoseconds, possibly negative (which the checks then refuse with nats-server's words).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nanos(pub i64);

impl Nanos {
    pub const ZERO: Nanos = Nanos(0);

    pub const fn from_secs(seconds: i64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    pub const fn from_millis(milliseconds: i64) -> Nanos {
        Nanos(milliseconds * 1_000_000)
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// As a `Duration`; a negative value reads as zero.
    pub fn duration(self) -> Duration {
        Duration::from_nanos(self.0.max(0) as u64)
    }
}

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Nanos {
        Nanos(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// When messages leave a stream by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// Only when a limit is passed.
    #[default]
    Limits,
    /// Also when every consumer that wants a message has acked it.
    Interest,
    /// Also as soon as the one consumer that may see a message has acked it.
    WorkQueue,
}

/// What gives way when a limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    #[default]
    Old,
    New,
}

/// Where messages are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    #[default]
    File,
    Memory,
}

/// Accepted and reported, without effect: the store decides by itself how rows are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "StoreCompression", rename_all = "lowercase")]
pub enum Compression {
    #[default]
    None,
    S2,
}

/// ADR-56. We serve `default` only: nothing is acknowledged before it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PersistMode {
    #[default]
    #[serde(alias = "")]
    Default,
    Async,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient")]
    pub cluster: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient")]
    pub preferred: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "SubjectTransformConfig", default)]
pub struct SubjectTransform {
    #[serde(rename = "src", deserialize_with = "lenient")]
    pub source: String,
    #[serde(rename = "dest", deserialize_with = "lenient")]
    pub destination: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "RePublish", default)]
pub struct Republish {
    #[serde(rename = "src", skip_serializing_if = "String::is_empty", deserialize_with = "lenient")]
    pub source: String,
    #[serde(rename = "dest", deserialize_with = "lenient")]
    pub destination: String,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub headers_only: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExternalStream {
    #[serde(rename = "api", deserialize_with = "lenient")]
    pub api_prefix: String,
    #[serde(rename = "deliver", deserialize_with = "lenient")]
    pub deliver_prefix: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConsumerSource {
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient")]
    pub deliver_subject: String,
}

/// Another stream that a mirror or a sourcing stream copies from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSource {
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient")]
    pub subject_transforms: Vec<SubjectTransform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStream>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<StreamConsumerSource>,
}

/// Defaults and bounds for consumers of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "StreamConsumerLimits", default)]
pub struct ConsumerLimits {
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub inactive_threshold: Nanos,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub max_ack_pending: i64,
}

/// The whole configuration. Durations are nanoseconds in JSON; counts of -1 mean "no limit" once checked.
///
/// `null` reads as the field's zero value, as Go's decoder has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient")]
    pub description: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient")]
    pub subjects: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub retention: Retention,
    #[serde(deserialize_with = "lenient")]
    pub max_consumers: i64,
    #[serde(deserialize_with = "lenient")]
    pub max_msgs: i64,
    #[serde(deserialize_with = "lenient")]
    pub max_bytes: i64,
    #[serde(deserialize_with = "lenient")]
    pub max_age: Nanos,
    #[serde(deserialize_with = "lenient")]
    pub max_msgs_per_subject: i64,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub max_msg_size: i32,
    #[serde(deserialize_with = "lenient")]
    pub discard: Discard,
    #[serde(deserialize_with = "lenient")]
    pub storage: Storage,
    #[serde(deserialize_with = "lenient")]
    pub num_replicas: i64,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub no_ack: bool,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub duplicate_window: Nanos,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<StreamSource>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient")]
    pub sources: Vec<StreamSource>,
    #[serde(deserialize_with = "lenient")]
    pub compression: Compression,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub first_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<SubjectTransform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub republish: Option<Republish>,
    #[serde(deserialize_with = "lenient")]
    pub allow_direct: bool,
    #[serde(deserialize_with = "lenient")]
    pub mirror_direct: bool,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub discard_new_per_subject: bool,
    #[serde(deserialize_with = "lenient")]
    pub sealed: bool,
    #[serde(deserialize_with = "lenient")]
    pub deny_delete: bool,
    #[serde(deserialize_with = "lenient")]
    pub deny_purge: bool,
    #[serde(deserialize_with = "lenient")]
    pub allow_rollup_hdrs: bool,
    #[serde(deserialize_with = "lenient")]
    pub consumer_limits: ConsumerLimits,
    #[serde(deserialize_with = "lenient")]
    pub allow_msg_ttl: bool,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub subject_delete_marker_ttl: Nanos,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub allow_msg_counter: bool,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub allow_atomic: bool,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub allow_msg_schedules: bool,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub persist_mode: PersistMode,
    #[serde(skip_serializing_if = "is_default", deserialize_with = "lenient")]
    pub allow_batched: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "lenient")]
    pub metadata: BTreeMap<String, String>,
}

fn lenient<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_is_all_defaults_and_nulls_are_too() {
        let empty: StreamConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, StreamConfig::default());
        let nulls: StreamConfig =
            serde_json::from_str(r#"{"name":null,"subjects":null,"retention":null,"max_age":null,"metadata":null}"#)
                .unwrap();
        assert_eq!(nulls, StreamConfig::default());
    }

    #[test]
    fn json_round_trips() {
        let text = r#"{"name":"S","subjects":["a.>"],"retention":"workqueue","max_consumers":-1,"max_msgs":7,
            "max_bytes":-1,"max_age":60000000000,"max_msgs_per_subject":1,"max_msg_size":100,"discard":"new",
            "storage":"memory","num_replicas":1,"duplicate_window":1000000000,"compression":"s2","first_seq":3,
            "allow_direct":true,"mirror_direct":false,"discard_new_per_subject":true,"sealed":false,
            "deny_delete":true,"deny_purge":false,"allow_rollup_hdrs":true,
            "consumer_limits":{"inactive_threshold":5,"max_ack_pending":9},"allow_msg_ttl":false,
            "allow_atomic":true,"metadata":{"a":"b"}}"#;
        let config: StreamConfig = serde_json::from_str(text).unwrap();
        let expected: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&config).unwrap(), expected);
    }

    #[test]
    fn negative_durations_and_unknown_fields_parse_and_unknown_policies_do_not() {
        let config: StreamConfig = serde_json::from_str(r#"{"max_age":-5,"tomorrow":1}"#).unwrap();
        assert_eq!(config.max_age, Nanos(-5));
        assert!(serde_json::from_str::<StreamConfig>(r#"{"retention":"sometimes"}"#).is_err());
    }
}
