//! Bodies of API requests.

use serde::Deserialize;

use super::json::{Strictness, decode};
use super::stream_request::StreamConfigRequest;
use crate::consumer::ConsumerConfig;
use crate::consumer::config_check::is_valid_group_name;
use crate::stream::{StreamConfig, StreamState};
use crate::types::{ApiError, Timestamp};

/// Where a paged list starts: CONSUMER.NAMES, CONSUMER.LIST.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiConsumersRequest", default)]
pub struct Offset {
    pub offset: i64,
}

/// STREAM.NAMES.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiStreamNamesRequest", default)]
pub struct StreamFilter {
    pub offset: i64,
    /// Only streams one of whose subjects overlaps it. Empty: all.
    pub subject: String,
}

/// STREAM.LIST.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiStreamListRequest", default)]
pub struct StreamListFilter {
    pub offset: i64,
    /// As of [`StreamFilter`].
    pub subject: String,
}

/// STREAM.INFO.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiStreamInfoRequest", default)]
pub struct StreamInfoQuery {
    pub offset: i64,
    pub deleted_details: bool,
    /// Adds the message count of each matching subject. Empty: none.
    pub subjects_filter: String,
}

/// STREAM.PURGE: up to but not including `seq`, or all but the last `keep`, of what `filter` matches.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiStreamPurgeRequest", default)]
pub struct Purge {
    pub seq: u64,
    pub filter: String,
    pub keep: u64,
}

impl Purge {
    /// # Errors
    /// When both `seq` and `keep` are set.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.seq > 0 && self.keep > 0 { Err(ApiError::BAD_REQUEST) } else { Ok(()) }
    }
}

/// STREAM.MSG.DELETE.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiMsgDeleteRequest", default)]
pub struct MsgDelete {
    pub seq: u64,
    /// Leaves the bytes where they are; the message is gone either way.
    pub no_erase: bool,
}

/// STREAM.MSG.GET and DIRECT.GET.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiMsgGetRequest", default)]
pub struct MsgGet {
    pub seq: u64,
    pub last_by_subj: String,
    pub next_by_subj: String,
    pub batch: i64,
    pub max_bytes: i64,
    pub start_time: Option<Timestamp>,
    pub multi_last: Vec<String>,
    pub up_to_seq: u64,
    pub up_to_time: Option<Timestamp>,
    pub no_hdr: bool,
}

impl MsgGet {
    /// Checks the combination of fields as STREAM.MSG.GET allows it.
    ///
    /// # Errors
    /// `BAD_REQUEST` when the fields contradict each other or say nothing.
    pub fn check(&self) -> Result<(), ApiError> {
        let (last, next) = (!self.last_by_subj.is_empty(), !self.next_by_subj.is_empty());
        let contradicts = self.batch > 0
            || self.max_bytes > 0
            || (self.seq > 0 && last)
            || (self.seq == 0 && !last && !next && self.start_time.is_none())
            || (self.seq > 0 && self.start_time.is_some())
            || (self.start_time.is_some() && last)
            || (last && next);
        if contradicts { Err(ApiError::BAD_REQUEST) } else { Ok(()) }
    }
}

/// STREAM.SNAPSHOT.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiStreamSnapshotRequest", default)]
pub struct Snapshot {
    /// Where the chunks go.
    pub deliver_subject: String,
    pub no_consumers: bool,
    /// Bytes of a chunk; 0 for the default.
    pub chunk_size: i64,
    /// Bytes on the way without an ack; 0 for the default.
    pub window_size: i64,
    /// Checks messages first. Every read checks what it reads, so it asks for nothing.
    pub jsck: bool,
}

impl Snapshot {
    /// Bytes of a chunk, and how many chunks may be on the way (nats-server `streamSnapshot`).
    pub fn flow(&self) -> (usize, usize) {
        let or = |wanted: i64, default: i64| if wanted == 0 { default } else { wanted };
        let chunk = or(self.chunk_size, 128 << 10).clamp(1 << 10, 1 << 20);
        let window = or(self.window_size, 8 << 20).clamp(1 << 10, 32 << 20).max(chunk);
        (chunk as usize, (window / chunk) as usize)
    }
}

/// STREAM.RESTORE.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiStreamRestoreRequest", default)]
pub struct Restore {
    pub config: StreamConfig,
    /// What the backup held; the backup itself says it again.
    pub state: StreamState,
}

/// STREAM.CREATE, STREAM.UPDATE: a configuration, and whether values that would be replaced by defaults are errors.
///
/// # Errors
/// `INVALID_JSON`.
pub fn stream_config(body: &[u8], strictness: Strictness) -> Result<(StreamConfig, bool), ApiError> {
    let request: StreamConfigRequest = decode(body, strictness)?;
    Ok((request.config, request.pedantic))
}

/// CONSUMER.CREATE in all its forms.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "CreateConsumerRequest", default)]
pub struct CreateConsumer {
    pub stream_name: String,
    pub config: ConsumerConfig,
    pub action: CreateAction,
    /// Values that would be replaced by defaults are errors.
    pub pedantic: bool,
}

/// What a CONSUMER.CREATE may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename = "ConsumerAction")]
pub enum CreateAction {
    #[default]
    #[serde(rename = "")]
    CreateOrUpdate,
    /// Fails when the consumer exists with another configuration.
    #[serde(rename = "create")]
    Create,
    /// Fails when the consumer does not exist.
    #[serde(rename = "update")]
    Update,
}

/// CONSUMER.PAUSE.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiConsumerPauseRequest", default)]
pub struct Pause {
    /// In the past, or absent: go on.
    pub pause_until: Timestamp,
}

/// CONSUMER.RESET.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiConsumerResetRequest", default)]
pub struct Reset {
    /// The stream sequence to go on at; 0 for the ack floor.
    pub seq: u64,
}

/// CONSUMER.UNPIN.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "JSApiConsumerUnpinRequest", default)]
pub struct Unpin {
    pub group: String,
}

impl Unpin {
    /// Reads and checks a body, which nats-server does before it looks for the stream.
    ///
    /// # Errors
    /// No JSON, or no valid group.
    pub fn read(body: &[u8]) -> Result<Unpin, ApiError> {
        let request: Unpin = decode(body, Strictness::Lenient)?;
        if request.group.is_empty() {
            return Err(ApiError::INVALID_JSON.with("consumer group not specified"));
        }
        if !is_valid_group_name(&request.group) {
            return Err(ApiError::CONSUMER_INVALID_GROUP_NAME);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_configs_may_be_pedantic() {
        let check = |body: &str, expected: Result<(&str, bool), &str>| {
            let got = stream_config(body.as_bytes(), Strictness::Strict);
            let got = got.map(|(config, pedantic)| (config.name, pedantic));
            let got = got.map_err(|error| error.description.into_owned());
            assert_eq!(got, expected.map(|(name, pedantic)| (name.to_owned(), pedantic)).map_err(str::to_owned));
        };
        check("", Ok(("", false)));
        check(r#"{"name":"S"}"#, Ok(("S", false)));
        check(r#"{"name":"S","pedantic":true}"#, Ok(("S", true)));
        check(r#"{"name":"S","bogus":true}"#, Err(r#"invalid JSON: json: unknown field "bogus""#));
        check("{", Err("invalid JSON: unexpected EOF"));
    }

    #[test]
    fn consumers_are_created_in_three_ways() {
        let check = |body: &str, expected: Result<CreateAction, &str>| {
            let got = decode::<CreateConsumer>(body.as_bytes(), Strictness::Strict);
            let got = got.map(|request| request.action).map_err(|error| error.description.into_owned());
            assert_eq!(got, expected.map_err(str::to_owned), "{body}");
        };
        check(r#"{"stream_name":"S","config":{"ack_policy":"explicit"}}"#, Ok(CreateAction::CreateOrUpdate));
        check(r#"{"action":""}"#, Ok(CreateAction::CreateOrUpdate));
        check(r#"{"action":"create"}"#, Ok(CreateAction::Create));
        check(r#"{"action":"update"}"#, Ok(CreateAction::Update));
        check(r#"{"action":"zork"}"#, Err(r#"invalid JSON: unknown consumer action: "zork""#));
        check(r#"{"config":{"bogus":1}}"#, Err(r#"invalid JSON: json: unknown field "bogus""#));
    }

    #[test]
    fn snapshots_flow_within_bounds() {
        let check = |chunk_size, window_size, expected| {
            assert_eq!(Snapshot { chunk_size, window_size, ..Snapshot::default() }.flow(), expected);
        };
        check(0, 0, (128 << 10, 64));
        check(1, 1, (1 << 10, 1));
        check(-5, i64::MAX, (1 << 10, 32 << 10));
        check(i64::MAX, 1, (1 << 20, 1));
    }

    #[test]
    fn msg_get_says_exactly_one_thing() {
        let check = |body: &str, expected: bool| {
            let request: MsgGet = serde_json::from_str(body).unwrap();
            assert_eq!(request.check().is_ok(), expected, "{body}");
        };
        check(r#"{"seq":1}"#, true);
        check(r#"{"last_by_subj":"a"}"#, true);
        check(r#"{"next_by_subj":"a"}"#, true);
        check(r#"{"next_by_subj":"a","seq":3}"#, true);
        check(r#"{"start_time":"2026-11-21T12:23:29.148988464Z"}"#, true);
        check("{}", false);
        check(r#"{"seq":1,"last_by_subj":"a"}"#, false);
        check(r#"{"seq":1,"batch":2}"#, false);
        check(r#"{"last_by_subj":"a","next_by_subj":"a"}"#, false);
        check(r#"{"seq":1,"start_time":"2026-11-21T12:23:29.148988464Z"}"#, false);
    }
}
