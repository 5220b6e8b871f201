//! What a consumer tells the world about single messages: advisories and ack metrics, in nats-server's JSON
//! (`server/jetstream_events.go`).

use serde::Serialize;

use crate::types::Timestamp;

/// Something worth telling about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advisory {
    /// Delivered `max_deliver` times without an ack, and now left alone.
    MaxDeliver { stream_seq: u64, deliveries: u64 },
    /// The client asked for it again.
    Nak { consumer_seq: u64, stream_seq: u64, deliveries: u64 },
    /// The client, or a limit of the stream, ended it.
    Terminated { consumer_seq: u64, stream_seq: u64, deliveries: u64, reason: String },
    /// A sampled ack, `ack_nanos` after its delivery.
    Acked { consumer_seq: u64, stream_seq: u64, ack_nanos: i64, deliveries: u64 },
    /// A pause began (`paused`) or came to its end.
    Pause { paused: bool, until: Timestamp },
    /// A pull request became the pinned one of its priority group.
    Pinned { group: String, pin_id: String },
    /// The pin was lost.
    Unpinned { group: String, reason: &'static str },
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    stream: &'a str,
    consumer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
}

impl Advisory {
    /// Whether it tells that a message will not be delivered again: whoever keeps these has the dead letters.
    pub fn tells_of_an_end(&self) -> bool {
        matches!(self, Advisory::MaxDeliver { .. } | Advisory::Terminated { .. })
    }

    /// The subject it is published on.
    pub fn subject(&self, stream: &str, consumer: &str) -> String {
        let kind = match self {
            Advisory::MaxDeliver { .. } => "ADVISORY.CONSUMER.MAX_DELIVERIES",
            Advisory::Nak { .. } => "ADVISORY.CONSUMER.MSG_NAKED",
            Advisory::Terminated { .. } => "ADVISORY.CONSUMER.MSG_TERMINATED",
            Advisory::Acked { .. } => "METRIC.CONSUMER.ACK",
            Advisory::Pause { .. } => "ADVISORY.CONSUMER.PAUSE",
            Advisory::Pinned { .. } => "ADVISORY.CONSUMER.PINNED",
            Advisory::Unpinned { .. } => "ADVISORY.CONSUMER.UNPINNED",
        };
        format!("$JS.EVENT.{kind}.{stream}.{consumer}")
    }

    /// The JSON body. `id` is unique to this event; `domain` is empty for none.
    pub fn body(&self, account: &str, stream: &str, consumer: &str, domain: &str, id: &str, now: Timestamp) -> Vec<u8> {
        let empty = Body {
            kind: "",
            id,
            timestamp: now,
            account: None,
            stream,
            consumer,
            consumer_seq: None,
            stream_seq: None,
            ack_time: None,
            deliveries: None,
            paused: None,
            pause_until: None,
            group: None,
            pinned_id: None,
            reason: None,
            domain,
        };
        let body = match self {
            Advisory::MaxDeliver { stream_seq, deliveries } => Body {
                kind: "io.nats.jetstream.advisory.v1.max_deliver",
                stream_seq: Some(*stream_seq),
                deliveries: Some(*deliveries),
                ..empty
            },
            Advisory::Nak { consumer_seq, stream_seq, deliveries } => Body {
                kind: "io.nats.jetstream.advisory.v1.nak",
                consumer_seq: Some(*consumer_seq),
                stream_seq: Some(*stream_seq),
                deliveries: Some(*deliveries),
                ..empty
            },
            Advisory::Terminated { consumer_seq, stream_seq, deliveries, reason } => Body {
                kind: "io.nats.jetstream.advisory.v1.terminated",
                consumer_seq: Some(*consumer_seq),
                stream_seq: Some(*stream_seq),
                deliveries: Some(*deliveries),
                reason: (!reason.is_empty()).then_some(reason),
                ..empty
            },
            Advisory::Acked { consumer_seq, stream_seq, ack_nanos, deliveries } => Body {
                kind: "io.nats.jetstream.metric.v1.consumer_ack",
                consumer_seq: Some(*consumer_seq),
                stream_seq: Some(*stream_seq),
                ack_time: Some(*ack_nanos),
                deliveries: Some(*deliveries),
                ..empty
            },
            Advisory::Pause { paused, until } => Body {
                kind: "io.nats.jetstream.advisory.v1.consumer_pause",
                paused: Some(*paused),
                pause_until: Some(*until),
                ..empty
            },
            Advisory::Pinned { group, pin_id } => Body {
                kind: "io.nats.jetstream.advisory.v1.consumer_group_pinned",
                account: Some(account),
                group: Some(group),
                pinned_id: Some(pin_id),
                ..empty
            },
            Advisory::Unpinned { group, reason } => Body {
                kind: "io.nats.jetstream.advisory.v1.consumer_group_unpinned",
                account: Some(account),
                group: Some(group),
                reason: Some(reason),
                ..empty
            },
        };
        serde_json::to_vec(&body).expect("a struct of strings and numbers is always JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_nats_servers() {
        let check = |advisory: Advisory, subject: &str, body: &str| {
            assert_eq!(advisory.subject("S", "C"), subject);
            let found = advisory.body("$G", "S", "C", "", "ID", Timestamp(1_700_000_000_000_000_000));
            assert_eq!(String::from_utf8(found).unwrap(), body);
        };
        check(
            Advisory::MaxDeliver { stream_seq: 4, deliveries: 5 },
            "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.C",
            r#"{"type":"io.nats.jetstream.advisory.v1.max_deliver","id":"ID","timestamp":"2023-11-14T22:13:20Z","stream":"S","consumer":"C","stream_seq":4,"deliveries":5}"#,
        );
        check(
            Advisory::Terminated { consumer_seq: 1, stream_seq: 4, deliveries: 5, reason: "why".into() },
            "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.C",
            r#"{"type":"io.nats.jetstream.advisory.v1.terminated","id":"ID","timestamp":"2023-11-14T22:13:20Z","stream":"S","consumer":"C","consumer_seq":1,"stream_seq":4,"deliveries":5,"reason":"why"}"#,
        );
        check(
            Advisory::Acked { consumer_seq: 1, stream_seq: 4, ack_nanos: 9, deliveries: 1 },
            "$JS.EVENT.METRIC.CONSUMER.ACK.S.C",
            r#"{"type":"io.nats.jetstream.metric.v1.consumer_ack","id":"ID","timestamp":"2023-11-14T22:13:20Z","stream":"S","consumer":"C","consumer_seq":1,"stream_seq":4,"ack_time":9,"deliveries":1}"#,
        );
        check(
            Advisory::Pause { paused: false, until: Timestamp::ZERO },
            "$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.C",
            r#"{"type":"io.nats.jetstream.advisory.v1.consumer_pause","id":"ID","timestamp":"2023-11-14T22:13:20Z","stream":"S","consumer":"C","paused":false,"pause_until":"0001-01-01T00:00:00Z"}"#,
        );
        check(
            Advisory::Unpinned { group: "g".into(), reason: "admin" },
            "$JS.EVENT.ADVISORY.CONSUMER.UNPINNED.S.C",
            r#"{"type":"io.nats.jetstream.advisory.v1.consumer_group_unpinned","id":"ID","timestamp":"2023-11-14T22:13:20Z","account":"$G","stream":"S","consumer":"C","group":"g","reason":"admin"}"#,
        );
    }
}
