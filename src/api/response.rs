//! Responses as JSON: `type` first, then an `error` or the answer's own fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::json;

use super::page::Page;
use crate::consumer::ConsumerInfo;
use crate::stream::config::{ExternalStream, SubjectTransform};
use crate::stream::{StreamConfig, StreamState};
use crate::types::{ApiError, JetStreamLimits, StoredMessage, Timestamp};

/// The response types, one for each endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    AccountInfo,
    StreamCreate,
    StreamUpdate,
    StreamNames,
    StreamList,
    StreamInfo,
    StreamDelete,
    StreamPurge,
    StreamSnapshot,
    StreamRestore,
    StreamLeaderStepDown,
    StreamPeerRemove,
    StreamPeerEvacuate,
    StreamCancelMove,
    MsgGet,
    MsgDelete,
    ConsumerCreate,
    ConsumerNames,
    ConsumerList,
    ConsumerInfo,
    ConsumerDelete,
    ConsumerPause,
    ConsumerUnpin,
    ConsumerReset,
    ConsumerLeaderStepDown,
}

impl Kind {
    /// The `type` of the response.
    pub fn type_name(self) -> &'static str {
        match self {
            Kind::AccountInfo => "io.nats.jetstream.api.v1.account_info_response",
            Kind::StreamCreate => "io.nats.jetstream.api.v1.stream_create_response",
            Kind::StreamUpdate => "io.nats.jetstream.api.v1.stream_update_response",
            Kind::StreamNames => "io.nats.jetstream.api.v1.stream_names_response",
            Kind::StreamList => "io.nats.jetstream.api.v1.stream_list_response",
            Kind::StreamInfo => "io.nats.jetstream.api.v1.stream_info_response",
            Kind::StreamDelete => "io.nats.jetstream.api.v1.stream_delete_response",
            Kind::StreamPurge => "io.nats.jetstream.api.v1.stream_purge_response",
            Kind::StreamSnapshot => "io.nats.jetstream.api.v1.stream_snapshot_response",
            Kind::StreamRestore => "io.nats.jetstream.api.v1.stream_restore_response",
            Kind::StreamLeaderStepDown => "io.nats.jetstream.api.v1.stream_leader_stepdown_response",
            Kind::StreamPeerRemove => "io.nats.jetstream.api.v1.stream_remove_peer_response",
            Kind::StreamPeerEvacuate => "io.nats.jetstream.api.v1.stream_evacuate_peer_response",
            Kind::StreamCancelMove => "io.nats.jetstream.api.v1.stream_cancel_move_response",
            Kind::MsgGet => "io.nats.jetstream.api.v1.stream_msg_get_response",
            Kind::MsgDelete => "io.nats.jetstream.api.v1.stream_msg_delete_response",
            Kind::ConsumerCreate => "io.nats.jetstream.api.v1.consumer_create_response",
            Kind::ConsumerNames => "io.nats.jetstream.api.v1.consumer_names_response",
            Kind::ConsumerList => "io.nats.jetstream.api.v1.consumer_list_response",
            Kind::ConsumerInfo => "io.nats.jetstream.api.v1.consumer_info_response",
            Kind::ConsumerDelete => "io.nats.jetstream.api.v1.consumer_delete_response",
            Kind::ConsumerPause => "io.nats.jetstream.api.v1.consumer_pause_response",
            Kind::ConsumerUnpin => "io.nats.jetstream.api.v1.consumer_unpin_response",
            Kind::ConsumerReset => "io.nats.jetstream.api.v1.consumer_reset_response",
            Kind::ConsumerLeaderStepDown => "io.nats.jetstream.api.v1.consumer_leader_stepdown_response",
        }
    }
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
    #[serde(flatten)]
    body: T,
}

fn encode<T: Serialize>(kind: Kind, error: Option<&ApiError>, body: T) -> Vec<u8> {
    serde_json::to_vec(&Envelope { r#type: kind.type_name(), error, body }).expect("responses are always JSON")
}

/// A response that answers.
pub fn response<T: Serialize>(kind: Kind, body: T) -> Vec<u8> {
    encode(kind, None, body)
}

/// A response that refuses, with the empty fields nats-server leaves in it.
pub fn error_response(kind: Kind, error: &ApiError) -> Vec<u8> {
    let page = Page::default();
    match kind {
        Kind::StreamInfo => encode(kind, Some(error), page),
        Kind::StreamNames => encode(kind, Some(error), Names::streams(page, Vec::new())),
        Kind::StreamList => encode(kind, Some(error), StreamList { page, streams: Vec::new() }),
        Kind::ConsumerNames => encode(kind, Some(error), Names::consumers(page, Vec::new())),
        Kind::ConsumerList => encode(kind, Some(error), ConsumerList { page, consumers: Vec::new() }),
        Kind::StreamPurge => encode(kind, Some(error), json!({"purged": 0})),
        Kind::ConsumerPause => encode(kind, Some(error), Paused::default()),
        Kind::ConsumerReset => encode(kind, Some(error), json!({"reset_seq": 0})),
        Kind::StreamRestore => encode(kind, Some(error), json!({"deliver_subject": ""})),
        _ => encode(kind, Some(error), json!({})),
    }
}

/// `"success":true`, with the count for a purge.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Success {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    purged: Option<u64>,
}

impl Success {
    pub const DONE: Success = Success { success: true, purged: None };

    pub fn purged(count: u64) -> Success {
        Success { success: true, purged: Some(count) }
    }
}

/// A page of names. nats-server writes `null` for no streams, but `[]` for no consumers.
#[derive(Clone, Debug, Serialize)]
pub struct Names {
    #[serde(flatten)]
    pub page: Page,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<Option<Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers: Option<Vec<String>>,
}

impl Names {
    pub fn streams(page: Page, names: Vec<String>) -> Names {
        Names { page, streams: Some(if names.is_empty() { None } else { Some(names) }), consumers: None }
    }

    pub fn consumers(page: Page, names: Vec<String>) -> Names {
        Names { page, streams: None, consumers: Some(names) }
    }
}

/// A snapshot begins.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotAccepted<'a> {
    pub config: &'a StreamConfig,
    pub state: &'a StreamState,
}

/// A restore begins.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreAccepted<'a> {
    /// Where the chunks go.
    pub deliver_subject: &'a str,
}

/// `cluster` of one server alone: it leads.
#[derive(Clone, Debug, Serialize)]
pub struct Cluster {
    pub leader: String,
}

/// A stream as STREAM.CREATE, UPDATE, INFO and LIST describe it.
#[derive(Clone, Debug, Serialize)]
pub struct StreamInfo {
    pub config: StreamConfig,
    pub created: Timestamp,
    pub state: StreamState,
    /// Empty for none, and in the answer to STREAM.CREATE.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<SourceInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceInfo>,
    /// When this was true.
    pub ts: Timestamp,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub did_create: bool,
}

/// How a stream gets on with one it takes from (nats-server `StreamSourceInfo`).
#[derive(Clone, Debug, Serialize)]
pub struct SourceInfo {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStream>,
    /// Messages of the origin that are still to come.
    pub lag: u64,
    /// The last sequence taken; not told of mirrors, whose own sequences are the origin's.
    #[serde(skip_serializing_if = "is_zero")]
    pub seq: u64,
    /// Nanoseconds since the origin was heard of, -1 for never.
    pub active: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_transforms: Vec<SubjectTransform>,
}

/// A page of STREAM.INFO, whose subjects may be many.
#[derive(Clone, Debug, Serialize)]
pub struct PagedStreamInfo {
    #[serde(flatten)]
    pub page: Page,
    #[serde(flatten)]
    pub info: StreamInfo,
}

/// A page of streams.
#[derive(Clone, Debug, Serialize)]
pub struct StreamList {
    #[serde(flatten)]
    pub page: Page,
    pub streams: Vec<StreamInfo>,
}

/// A page of consumers.
#[derive(Clone, Debug, Serialize)]
pub struct ConsumerList {
    #[serde(flatten)]
    pub page: Page,
    pub consumers: Vec<ConsumerInfo>,
}

/// What a CONSUMER.PAUSE led to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Paused {
    pub paused: bool,
    pub pause_until: Timestamp,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub pause_remaining: u64,
}

/// What a CONSUMER.RESET led to.
#[derive(Clone, Debug, Serialize)]
pub struct ConsumerReset {
    #[serde(flatten)]
    pub info: ConsumerInfo,
    /// The stream sequence it goes on at.
    pub reset_seq: u64,
}

/// A stored message in a MSG.GET response.
#[derive(Clone, Debug, Serialize)]
pub struct StoredMsg {
    subject: String,
    seq: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    hdrs: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    time: Timestamp,
}

impl StoredMsg {
    pub fn new(stored: &StoredMessage, with_headers: bool) -> StoredMsg {
        let headers = if with_headers { stored.message.headers() } else { &[] };
        StoredMsg {
            subject: stored.message.subject_text().into_owned(),
            seq: stored.seq,
            hdrs: BASE64.encode(headers),
            data: BASE64.encode(stored.message.payload()),
            time: stored.time,
        }
    }
}

/// The body of a MSG.GET response.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    pub message: StoredMsg,
}

/// `$JS.API.INFO`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AccountInfo {
    #[serde(flatten)]
    pub tier: Tier,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    pub api: ApiStats,
}

/// What an account uses. Sizes in bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tier {
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub streams: usize,
    pub consumers: usize,
    pub limits: JetStreamLimits,
}

/// How often the API was used since the start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ApiStats {
    /// The JetStream API level we implement.
    pub level: u32,
    pub total: u64,
    pub errors: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub inflight: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Message;

    fn check(got: Vec<u8>, expected: &str) {
        assert_eq!(String::from_utf8(got).unwrap(), expected);
    }

    /// The expected texts are what nats-server 2.15.1 answered.
    #[test]
    fn errors_have_nats_servers_shape() {
        let not_found = &ApiError::STREAM_NOT_FOUND;
        let error = r#""error":{"code":404,"err_code":10059,"description":"stream not found"}"#;
        let table = [
            (Kind::StreamInfo, "stream_info_response", r#","total":0,"offset":0,"limit":0"#),
            (Kind::StreamDelete, "stream_delete_response", ""),
            (Kind::StreamPurge, "stream_purge_response", r#","purged":0"#),
            (Kind::ConsumerNames, "consumer_names_response", r#","consumers":[],"limit":0,"offset":0,"total":0"#),
            (Kind::ConsumerInfo, "consumer_info_response", ""),
            (Kind::ConsumerPause, "consumer_pause_response", r#","pause_until":"0001-01-01T00:00:00Z","paused":false"#),
        ];
        for (kind, name, rest) in table {
            let expected: serde_json::Value =
                serde_json::from_str(&format!(r#"{{"type":"io.nats.jetstream.api.v1.{name}",{error}{rest}}}"#))
                    .unwrap();
            let got: serde_json::Value = serde_json::from_slice(&error_response(kind, not_found)).unwrap();
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn answers_have_nats_servers_shape() {
        check(
            response(Kind::StreamDelete, Success::DONE),
            r#"{"type":"io.nats.jetstream.api.v1.stream_delete_response","success":true}"#,
        );
        check(
            response(Kind::StreamPurge, Success::purged(1)),
            r#"{"type":"io.nats.jetstream.api.v1.stream_purge_response","success":true,"purged":1}"#,
        );
        check(
            response(Kind::StreamNames, Names::streams(Page::new(1, 0, 1024), vec!["S".into()])),
            r#"{"type":"io.nats.jetstream.api.v1.stream_names_response","total":1,"offset":0,"limit":1024,"streams":["S"]}"#,
        );
        check(
            response(Kind::StreamNames, Names::streams(Page::new(1, 5, 1024), vec![])),
            r#"{"type":"io.nats.jetstream.api.v1.stream_names_response","total":1,"offset":1,"limit":1024,"streams":null}"#,
        );
        check(
            response(Kind::ConsumerNames, Names::consumers(Page::new(5, 200, 1024), vec![])),
            r#"{"type":"io.nats.jetstream.api.v1.consumer_names_response","total":5,"offset":5,"limit":1024,"consumers":[]}"#,
        );
        check(
            response(
                Kind::AccountInfo,
                AccountInfo { api: ApiStats { level: 5, ..ApiStats::default() }, ..AccountInfo::default() },
            ),
            r#"{"type":"io.nats.jetstream.api.v1.account_info_response","memory":0,"storage":0,"reserved_memory":0,"reserved_storage":0,"streams":0,"consumers":0,"limits":{"max_memory":-1,"max_storage":-1,"max_streams":-1,"max_consumers":-1,"max_ack_pending":-1,"memory_max_stream_bytes":-1,"storage_max_stream_bytes":-1,"max_bytes_required":false},"api":{"level":5,"total":0,"errors":0}}"#,
        );
    }

    #[test]
    fn stored_messages_travel_in_base64() {
        let stored = StoredMessage {
            seq: 2,
            time: Timestamp(1_795_262_609_148_988_464),
            message: Message::new(b"s.b", b"NATS/1.0\r\nA: b\r\n\r\n", b"hello"),
        };
        check(
            response(Kind::MsgGet, Found { message: StoredMsg::new(&stored, true) }),
            r#"{"type":"io.nats.jetstream.api.v1.stream_msg_get_response","message":{"subject":"s.b","seq":2,"hdrs":"TkFUUy8xLjANCkE6IGINCg0K","data":"aGVsbG8=","time":"2026-11-21T12:03:29.148988464Z"}}"#,
        );
    }
}
