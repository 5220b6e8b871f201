//! The headers of a published message that mean something to a stream, read in one pass.

use crate::types::Headers;

pub const MSG_ID: &str = "Nats-Msg-Id";
pub const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
pub const EXPECTED_LAST_SEQUENCE: &str = "Nats-Expected-Last-Sequence";
pub const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
pub const EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
pub const EXPECTED_LAST_MSG_ID: &str = "Nats-Expected-Last-Msg-Id";
pub const ROLLUP: &str = "Nats-Rollup";
pub const BATCH_ID: &str = "Nats-Batch-Id";
pub const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
pub const BATCH_COMMIT: &str = "Nats-Batch-Commit";
pub const REQUIRED_API_LEVEL: &str = "Nats-Required-Api-Level";
pub const TTL: &str = "Nats-TTL";
pub const INCREMENT: &str = "Nats-Incr";
pub const COUNTER_SOURCES: &str = "Nats-Counter-Sources";
pub const MARKER_REASON: &str = "Nats-Marker-Reason";
pub const KV_OPERATION: &str = "KV-Operation";
pub const SCHEDULE: &str = "Nats-Schedule";
pub const SCHEDULE_TARGET: &str = "Nats-Schedule-Target";
pub const SCHEDULE_SOURCE: &str = "Nats-Schedule-Source";
pub const SCHEDULE_TTL: &str = "Nats-Schedule-TTL";
pub const SCHEDULE_ROLLUP: &str = "Nats-Schedule-Rollup";
pub const SCHEDULE_TIME_ZONE: &str = "Nats-Schedule-Time-Zone";
pub const SCHEDULE_NEXT: &str = "Nats-Schedule-Next";
pub const SCHEDULER: &str = "Nats-Scheduler";
pub const STREAM_SOURCE: &str = "Nats-Stream-Source";

/// The first line of each name counts; an empty value counts as absent, except the commit's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishHeaders<'a> {
    pub msg_id: Option<&'a [u8]>,
    pub expected_stream: Option<&'a [u8]>,
    pub expected_last_sequence: Option<u64>,
    pub expected_last_subject_sequence: Option<u64>,
    pub expected_last_subject_sequence_subject: Option<&'a [u8]>,
    pub expected_last_msg_id: Option<&'a [u8]>,
    pub rollup: Option<&'a [u8]>,
    pub batch_id: Option<&'a [u8]>,
    /// `None` also when it is not a number.
    pub batch_sequence: Option<u64>,
    pub batch_commit: Option<&'a [u8]>,
    pub required_api_level: Option<&'a [u8]>,
    pub ttl: Option<&'a [u8]>,
    pub increment: Option<&'a [u8]>,
    pub schedule: Option<&'a [u8]>,
    /// An empty one counts: it names no zone.
    pub schedule_time_zone: Option<&'a [u8]>,
    pub schedule_next: Option<&'a [u8]>,
    pub scheduler: Option<&'a [u8]>,
    pub stream_source: Option<&'a [u8]>,
}

impl<'a> PublishHeaders<'a> {
    /// Whether a stored message's headers mean something to the stream later on, beside its id, which summaries have, and
    /// its source, which has a row of its own. Recovery reads such messages even where a summary has all the others.
    pub fn is_notable(&self) -> bool {
        self.ttl.is_some()
    }

    pub fn parse(block: &'a [u8]) -> PublishHeaders<'a> {
        let mut found = PublishHeaders::default();
        for (name, value) in Headers::new(block).iter() {
            if !name.starts_with(b"Nats-") {
                continue;
            }
            let Ok(name) = std::str::from_utf8(name) else { continue };
            let slot = match name {
                MSG_ID => &mut found.msg_id,
                EXPECTED_STREAM => &mut found.expected_stream,
                EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT => &mut found.expected_last_subject_sequence_subject,
                EXPECTED_LAST_MSG_ID => &mut found.expected_last_msg_id,
                ROLLUP => &mut found.rollup,
                BATCH_ID => &mut found.batch_id,
                REQUIRED_API_LEVEL => &mut found.required_api_level,
                TTL => &mut found.ttl,
                INCREMENT => &mut found.increment,
                SCHEDULE => &mut found.schedule,
                SCHEDULE_NEXT => &mut found.schedule_next,
                SCHEDULER => &mut found.scheduler,
                STREAM_SOURCE => &mut found.stream_source,
                EXPECTED_LAST_SEQUENCE => {
                    found.expected_last_sequence = found.expected_last_sequence.or(expected(value));
                    continue;
                }
                EXPECTED_LAST_SUBJECT_SEQUENCE => {
                    found.expected_last_subject_sequence = found.expected_last_subject_sequence.or(expected(value));
                    continue;
                }
                BATCH_SEQUENCE => {
                    found.batch_sequence = found.batch_sequence.or(number(value));
                    continue;
                }
                SCHEDULE_TIME_ZONE => {
                    found.schedule_time_zone = found.schedule_time_zone.or(Some(value));
                    continue;
                }
                BATCH_COMMIT => {
                    found.batch_commit = found.batch_commit.or(Some(value));
                    continue;
                }
                _ => continue,
            };
            if slot.is_none() && !value.is_empty() {
                *slot = Some(value);
            }
        }
        found
    }
}

/// An expected sequence; what is not a number equals none there ever is, as in nats-server.
fn expected(value: &[u8]) -> Option<u64> {
    (!value.is_empty()).then(|| number(value).unwrap_or(u64::MAX))
}

/// Decimal digits only, no sign.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::header::HeaderBuilder;

    #[test]
    fn reads_what_it_knows_and_the_first_of_each() {
        let block = HeaderBuilder::new()
            .add("X", "y")
            .add(MSG_ID, "one")
            .add(MSG_ID, "two")
            .add(EXPECTED_LAST_SEQUENCE, "17")
            .add(EXPECTED_LAST_SUBJECT_SEQUENCE, "x")
            .add(BATCH_SEQUENCE, "+1")
            .add(BATCH_COMMIT, "")
            .add(ROLLUP, "")
            .build();
        let headers = PublishHeaders::parse(&block);
        assert_eq!(
            headers,
            PublishHeaders {
                msg_id: Some(b"one"),
                expected_last_sequence: Some(17),
                expected_last_subject_sequence: Some(u64::MAX),
                batch_commit: Some(b""),
                ..PublishHeaders::default()
            }
        );
    }
}
