//! Advisories: what the broker tells whoever listens on `$JS.EVENT.ADVISORY.>` of the API, streams and the server.
//! Those that a consumer's own machine gives are in `consumer::Advisory`.

use serde::Serialize;

use crate::stream::StreamState;
use crate::types::Timestamp;

/// What happened to a stream or consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Create,
    Delete,
    Modify,
}

/// One advisory, as nats-server's `server/jetstream_events.go` has it. [`Advisory::subject`] says where it goes,
/// [`Advisory::encode`] what it says.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Advisory<'a> {
    Stream {
        stream: &'a str,
        action: Action,
    },
    Consumer {
        stream: &'a str,
        consumer: &'a str,
        action: Action,
    },
    BatchAbandoned {
        stream: &'a str,
        batch: &'a str,
        reason: &'a str,
    },
    SnapshotCreate {
        stream: &'a str,
        state: &'a StreamState,
        client: &'a ClientInfo,
    },
    SnapshotComplete {
        stream: &'a str,
        start: Timestamp,
        end: Timestamp,
        client: &'a ClientInfo,
        /// Empty when all went well.
        #[serde(skip_serializing_if = "str::is_empty")]
        error: &'a str,
    },
    RestoreCreate {
        stream: &'a str,
        client: &'a ClientInfo,
    },
    RestoreComplete {
        stream: &'a str,
        start: Timestamp,
        end: Timestamp,
        /// What the client sent.
        bytes: u64,
        client: &'a ClientInfo,
    },
    /// Nothing can be stored any more. Goes to the system account.
    OutOfStorage {
        server: &'a str,
        server_id: &'a str,
        /// The stream that noticed, if it was one.
        #[serde(skip_serializing_if = "str::is_empty")]
        stream: &'a str,
        /// Empty: this is no cluster.
        cluster: &'a str,
    },
    /// Requests were dropped because too many waited. Goes to the system account.
    ApiLimitReached {
        server: &'a str,
        dropped: u64,
    },
    Api(Box<Audit<'a>>),
}

/// One use of the API.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit<'a> {
    pub server: &'a str,
    pub client: ClientInfo,
    pub subject: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub request: &'a str,
    pub response: &'a str,
}

/// Who did it (nats-server `ClientInfo`); what is empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClientInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub id: u64,
    pub acc: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ver: String,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub rtt: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name_tag: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub client_type: &'static str,
}

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: String,
    timestamp: Timestamp,
    #[serde(flatten)]
    body: &'a Advisory<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
}

impl Advisory<'_> {
    /// Where the advisory is published.
    pub fn subject(&self) -> String {
        let event = |kind: &str, stream: &str| format!("$JS.EVENT.ADVISORY.{kind}.{stream}");
        let consumer_event = |kind: &str, stream: &str, consumer: &str| {
            format!("$JS.EVENT.ADVISORY.CONSUMER.{kind}.{stream}.{consumer}")
        };
        let past = |action: &Action| match action {
            Action::Create => "CREATED",
            Action::Delete => "DELETED",
            Action::Modify => "UPDATED",
        };
        match self {
            Advisory::Stream { stream, action } => event(&format!("STREAM.{}", past(action)), stream),
            Advisory::Consumer { stream, consumer, action } => consumer_event(past(action), stream, consumer),
            Advisory::BatchAbandoned { stream, .. } => event("STREAM.BATCH_ABANDONED", stream),
            Advisory::SnapshotCreate { stream, .. } => event("STREAM.SNAPSHOT_CREATE", stream),
            Advisory::SnapshotComplete { stream, .. } => event("STREAM.SNAPSHOT_COMPLETE", stream),
            Advisory::RestoreCreate { stream, .. } => event("STREAM.RESTORE_CREATE", stream),
            Advisory::RestoreComplete { stream, .. } => event("STREAM.RESTORE_COMPLETE", stream),
            Advisory::OutOfStorage { .. } => "$JS.EVENT.ADVISORY.SERVER.OUT_OF_STORAGE".to_owned(),
            Advisory::ApiLimitReached { .. } => "$JS.EVENT.ADVISORY.API.LIMIT_REACHED".to_owned(),
            Advisory::Api(_) => "$JS.EVENT.ADVISORY.API".to_owned(),
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Advisory::Stream { .. } => "io.nats.jetstream.advisory.v1.stream_action",
            Advisory::Consumer { .. } => "io.nats.jetstream.advisory.v1.consumer_action",
            Advisory::BatchAbandoned { .. } => "io.nats.jetstream.advisory.v1.stream_batch_abandoned",
            Advisory::SnapshotCreate { .. } => "io.nats.jetstream.advisory.v1.snapshot_create",
            Advisory::SnapshotComplete { .. } => "io.nats.jetstream.advisory.v1.snapshot_complete",
            Advisory::RestoreCreate { .. } => "io.nats.jetstream.advisory.v1.restore_create",
            Advisory::RestoreComplete { .. } => "io.nats.jetstream.advisory.v1.restore_complete",
            Advisory::OutOfStorage { .. } => "io.nats.jetstream.advisory.v1.server_out_of_space",
            Advisory::ApiLimitReached { .. } => "io.nats.jetstream.advisory.v1.api_limit_reached",
            Advisory::Api(_) => "io.nats.jetstream.advisory.v1.api_audit",
        }
    }

    /// The advisory's JSON, with a fresh unique `id`. `domain` is empty for none.
    pub fn encode(&self, id: String, timestamp: Timestamp, domain: &str) -> Vec<u8> {
        let event = Event { r#type: self.type_name(), id, timestamp, body: self, domain };
        serde_json::to_vec(&event).expect("advisories are always JSON")
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected texts are what nats-server 2.15.1 published.
    #[test]
    fn advisories_have_nats_servers_shape() {
        let at = Timestamp(1_795_262_609_148_988_464);
        let check = |advisory: Advisory<'_>, subject: &str, kind: &str, body: &str| {
            assert_eq!(advisory.subject(), format!("$JS.EVENT.ADVISORY.{subject}"));
            for (domain, tail) in [("", ""), ("HUB", r#","domain":"HUB""#)] {
                let expected = format!(
                    r#"{{"type":"io.nats.jetstream.advisory.v1.{kind}","id":"ID","timestamp":"2026-11-21T12:03:29.148988464Z",{body}{tail}}}"#
                );
                assert_eq!(String::from_utf8(advisory.encode("ID".into(), at, domain)).unwrap(), expected);
            }
        };
        let client = ClientInfo {
            start: Some(at),
            host: "127.0.0.1".into(),
            id: 5,
            acc: "$G".into(),
            name: "probe".into(),
            rtt: 7,
            server: "S1".into(),
            kind: "Client",
            client_type: "nats",
            ..ClientInfo::default()
        };
        let shown = r#""client":{"start":"2026-11-21T12:03:29.148988464Z","host":"127.0.0.1","id":5,"acc":"$G","name":"probe","rtt":7,"server":"S1","kind":"Client","client_type":"nats"}"#;
        check(
            Advisory::Stream { stream: "S", action: Action::Modify },
            "STREAM.UPDATED.S",
            "stream_action",
            r#""stream":"S","action":"modify""#,
        );
        check(
            Advisory::Consumer { stream: "S", consumer: "c", action: Action::Create },
            "CONSUMER.CREATED.S.c",
            "consumer_action",
            r#""stream":"S","consumer":"c","action":"create""#,
        );
        check(
            Advisory::RestoreCreate { stream: "S", client: &client },
            "STREAM.RESTORE_CREATE.S",
            "restore_create",
            &format!(r#""stream":"S",{shown}"#),
        );
        check(
            Advisory::RestoreComplete { stream: "S", start: at, end: at, bytes: 9, client: &client },
            "STREAM.RESTORE_COMPLETE.S",
            "restore_complete",
            &format!(
                r#""stream":"S","start":"2026-11-21T12:03:29.148988464Z","end":"2026-11-21T12:03:29.148988464Z","bytes":9,{shown}"#
            ),
        );
        check(
            Advisory::SnapshotComplete { stream: "S", start: at, end: at, client: &client, error: "" },
            "STREAM.SNAPSHOT_COMPLETE.S",
            "snapshot_complete",
            &format!(
                r#""stream":"S","start":"2026-11-21T12:03:29.148988464Z","end":"2026-11-21T12:03:29.148988464Z",{shown}"#
            ),
        );
        check(
            Advisory::OutOfStorage { server: "S1", server_id: "N1", stream: "S", cluster: "" },
            "SERVER.OUT_OF_STORAGE",
            "server_out_of_space",
            r#""server":"S1","server_id":"N1","stream":"S","cluster":"""#,
        );
        check(
            Advisory::OutOfStorage { server: "S1", server_id: "N1", stream: "", cluster: "" },
            "SERVER.OUT_OF_STORAGE",
            "server_out_of_space",
            r#""server":"S1","server_id":"N1","cluster":"""#,
        );
    }
}
