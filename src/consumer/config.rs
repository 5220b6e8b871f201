//! The configuration of a consumer, field for field as nats-server's `ConsumerConfig` (2.14) has it in JSON.
//! Checking and defaults are in [`config_check`](super::config_check).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::types::{GoDuration, Timestamp, is_default};

/// What a consumer delivers, how, and when it gives up. JSON durations are integers of nanoseconds.
///
/// Missing and `null` fields read as zero values, as in Go, so `ack_policy` defaults to `none` on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerConfig {
    #[serde(rename = "durable_name", deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub durable: String,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(deserialize_with = "lenient")]
    pub deliver_policy: DeliverPolicy,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opt_start_time: Option<Timestamp>,
    #[serde(deserialize_with = "lenient")]
    pub ack_policy: AckPolicy,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "GoDuration::is_zero")]
    pub ack_wait: GoDuration,
    /// Most deliveries of one message; -1 for no limit.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub max_deliver: i64,
    /// Waits before the redeliveries, by delivery count; the last one repeats. Overrides `ack_wait`.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub backoff: Vec<GoDuration>,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub filter_subjects: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub replay_policy: ReplayPolicy,
    /// Bits per second.
    #[serde(rename = "rate_limit_bps", deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub rate_limit: u64,
    /// Percentage of acks to report as metrics, with or without a `%`.
    #[serde(rename = "sample_freq", deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub sample_frequency: String,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub max_waiting: i64,
    /// Most messages out without an ack; -1 for no limit.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub max_ack_pending: i64,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub flow_control: bool,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub headers_only: bool,

    #[serde(rename = "max_batch", deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub max_request_batch: i64,
    #[serde(rename = "max_expires", deserialize_with = "lenient", skip_serializing_if = "GoDuration::is_zero")]
    pub max_request_expires: GoDuration,
    #[serde(rename = "max_bytes", deserialize_with = "lenient", skip_serializing_if = "is_default")]
    pub max_request_max_bytes: i64,

    /// Where a push consumer delivers; empty for a pull consumer.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub deliver_subject: String,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "String::is_empty")]
    pub deliver_group: String,
    #[serde(rename = "idle_heartbeat", deserialize_with = "lenient", skip_serializing_if = "GoDuration::is_zero")]
    pub heartbeat: GoDuration,

    #[serde(deserialize_with = "lenient", skip_serializing_if = "GoDuration::is_zero")]
    pub inactive_threshold: GoDuration,

    #[serde(rename = "num_replicas", deserialize_with = "lenient")]
    pub replicas: i64,
    #[serde(rename = "mem_storage", deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub memory_storage: bool,

    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub direct: bool,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "is_false")]
    pub sourcing: bool,

    #[serde(deserialize_with = "lenient", skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,

    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_until: Option<Timestamp>,

    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub priority_groups: Vec<String>,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "PriorityPolicy::is_none")]
    pub priority_policy: PriorityPolicy,
    #[serde(rename = "priority_timeout", deserialize_with = "lenient", skip_serializing_if = "GoDuration::is_zero")]
    pub pinned_ttl: GoDuration,
}

impl ConsumerConfig {
    pub fn is_durable(&self) -> bool {
        !self.durable.is_empty()
    }

    pub fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    pub fn is_pull(&self) -> bool {
        self.deliver_subject.is_empty()
    }

    /// The name it asks for: `durable_name` before `name`; empty when the server is to invent one.
    pub fn wanted_name(&self) -> &str {
        if self.durable.is_empty() { &self.name } else { &self.durable }
    }

    /// All subject filters; none means every message.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        let single = (!self.filter_subject.is_empty()).then_some(self.filter_subject.as_str());
        self.filter_subjects.iter().map(String::as_str).chain(single)
    }

    /// Whether deliveries wait for an ack at all.
    pub fn wants_acks(&self) -> bool {
        self.ack_policy != AckPolicy::None
    }

    /// Percentage of acks sampled, 0 when sampling is off.
    pub fn sample_percent(&self) -> u32 {
        self.sample_frequency.strip_suffix('%').unwrap_or(&self.sample_frequency).parse().unwrap_or(0)
    }

    /// How long to wait for the ack of a message that has been delivered `count` times; `None` without a limit.
    pub fn wait_after(&self, count: u64) -> Option<GoDuration> {
        if !self.backoff.is_empty() {
            let index = (count.saturating_sub(1) as usize).min(self.backoff.len() - 1);
            return Some(self.backoff[index]);
        }
        (self.ack_wait.0 > 0).then_some(self.ack_wait)
    }

    /// The JetStream API level a server needs to serve it (nats-server `setStaticConsumerMetadata`, ADR-44).
    pub fn required_api_level(&self) -> u32 {
        if self.ack_policy == AckPolicy::FlowControl {
            4
        } else if self.pause_until.is_some_and(|until| !until.is_zero())
            || !self.priority_policy.is_none()
            || !self.pinned_ttl.is_zero()
            || !self.priority_groups.is_empty()
        {
            1
        } else {
            0
        }
    }
}

/// Where in the stream delivery starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliverPolicy {
    #[default]
    #[serde(alias = "undefined")]
    All,
    Last,
    New,
    ByStartSequence,
    ByStartTime,
    LastPerSubject,
}

/// What an ack stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckPolicy {
    /// Delivered is done.
    #[default]
    None,
    /// An ack covers all messages before it.
    All,
    /// Each message for itself.
    Explicit,
    /// Like `All`, by answers to flow control.
    FlowControl,
}

/// The pace of messages that were there before the consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayPolicy {
    #[default]
    Instant,
    /// As far apart as they were stored.
    Original,
}

/// How pull requests of a priority group compete (ADR-42).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorityPolicy {
    #[default]
    None,
    Overflow,
    PinnedClient,
    Prioritized,
}

impl PriorityPolicy {
    pub fn is_none(&self) -> bool {
        *self == PriorityPolicy::None
    }
}

/// `null` reads as the zero value, as in Go.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_nats_servers() {
        let text = r#"{"durable_name":"d","name":"d","deliver_policy":"last_per_subject","ack_policy":"explicit","ack_wait":30000000000,"max_deliver":-1,"backoff":[1,2],"filter_subjects":["a","b.>"],"replay_policy":"original","rate_limit_bps":8,"sample_freq":"50%","max_waiting":512,"max_ack_pending":1000,"headers_only":true,"max_batch":5,"max_expires":6,"max_bytes":7,"inactive_threshold":8,"num_replicas":0,"metadata":{"k":"v"},"priority_groups":["g"],"priority_policy":"overflow"}"#;
        let config: ConsumerConfig = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
        assert_eq!(config.sample_percent(), 50);
        assert_eq!(config.filters().collect::<Vec<_>>(), ["a", "b.>"]);
    }

    #[test]
    fn null_unknown_and_missing_fields_are_zero_values() {
        let config: ConsumerConfig = serde_json::from_str(
            r#"{"durable_name":null,"backoff":null,"max_deliver":null,"later":1,"opt_start_time":null}"#,
        )
        .unwrap();
        assert_eq!(config, ConsumerConfig::default());
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            r#"{"deliver_policy":"all","ack_policy":"none","replay_policy":"instant","num_replicas":0}"#
        );
    }

    #[test]
    fn backoff_repeats_its_last_step() {
        let config = ConsumerConfig {
            ack_wait: GoDuration(9),
            backoff: vec![GoDuration(1), GoDuration(2)],
            ..ConsumerConfig::default()
        };
        let waits: Vec<i64> = (1..=4).map(|count| config.wait_after(count).unwrap().0).collect();
        assert_eq!(waits, [1, 2, 2, 2]);
        assert_eq!(ConsumerConfig::default().wait_after(1), None);
    }
}
