//! Advisories: what the broker tells whoever listens on `$JS.EVENT.ADVISORY.>`.

use serde::Serialize;

use crate::types::Timestamp;

/// What happened to a stream or consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Create,
    Delete,
    Modify,
}

/// One advisory. [`Advisory::subject`] says where it goes, [`Advisory::encode`] what it says.
#[derive(Clone, Debug, PartialEq)]
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
    MaxDeliveries {
        stream: &'a str,
        consumer: &'a str,
        stream_seq: u64,
        deliveries: u64,
    },
    Terminated {
        stream: &'a str,
        consumer: &'a str,
        consumer_seq: u64,
        stream_seq: u64,
        deliveries: u64,
        /// What the client gave behind `+TERM`; empty for nothing.
        reason: &'a str,
    },
    Nak {
        stream: &'a str,
        consumer: &'a str,
        consumer_seq: u64,
        stream_seq: u64,
        deliveries: u64,
    },
    Pause {
        stream: &'a str,
        consumer: &'a str,
        paused: bool,
        pause_until: Timestamp,
    },
    BatchAbandoned {
        account: &'a str,
        stream: &'a str,
        batch: &'a str,
        reason: &'a str,
    },
    Api(Box<Audit<'a>>),
}

/// One use of the API.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit<'a> {
    pub server: &'a str,
    pub client: AuditClient,
    pub subject: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub request: &'a str,
    pub response: &'a str,
}

/// Who used the API.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AuditClient {
    pub start: Timestamp,
    pub host: String,
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
    pub server: String,
    pub kind: &'static str,
    pub client_type: &'static str,
}

#[derive(Serialize)]
struct Event<T> {
    r#type: &'static str,
    id: String,
    timestamp: Timestamp,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
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
            Advisory::MaxDeliveries { stream, consumer, .. } => consumer_event("MAX_DELIVERIES", stream, consumer),
            Advisory::Terminated { stream, consumer, .. } => consumer_event("MSG_TERMINATED", stream, consumer),
            Advisory::Nak { stream, consumer, .. } => consumer_event("MSG_NAKED", stream, consumer),
            Advisory::Pause { stream, consumer, .. } => consumer_event("PAUSE", stream, consumer),
            Advisory::BatchAbandoned { stream, .. } => event("STREAM.BATCH_ABANDONED", stream),
            Advisory::Api(_) => "$JS.EVENT.ADVISORY.API".to_owned(),
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Advisory::Stream { .. } => "io.nats.jetstream.advisory.v1.stream_action",
            Advisory::Consumer { .. } => "io.nats.jetstream.advisory.v1.consumer_action",
            Advisory::MaxDeliveries { .. } => "io.nats.jetstream.advisory.v1.max_deliver",
            Advisory::Terminated { .. } => "io.nats.jetstream.advisory.v1.terminated",
            Advisory::Nak { .. } => "io.nats.jetstream.advisory.v1.nak",
            Advisory::Pause { .. } => "io.nats.jetstream.advisory.v1.consumer_pause",
            Advisory::BatchAbandoned { .. } => "io.nats.jetstream.advisory.v1.stream_batch_abandoned",
            Advisory::Api(_) => "io.nats.jetstream.advisory.v1.api_audit",
        }
    }

    /// The advisory's JSON, with a fresh unique `id`.
    pub fn encode(&self, id: String, timestamp: Timestamp) -> Vec<u8> {
        let r#type = self.type_name();
        let none = Body {
            account: None,
            stream: "",
            consumer: None,
            action: None,
            consumer_seq: None,
            stream_seq: None,
            deliveries: None,
            paused: None,
            pause_until: None,
            batch: None,
            reason: None,
        };
        let body = match *self {
            Advisory::Api(ref audit) => {
                let event = Event { r#type, id, timestamp, body: audit };
                return serde_json::to_vec(&event).expect("advisories are always JSON");
            }
            Advisory::Stream { stream, action } => Body { stream, action: Some(action), ..none },
            Advisory::Consumer { stream, consumer, action } => {
                Body { stream, consumer: Some(consumer), action: Some(action), ..none }
            }
            Advisory::MaxDeliveries { stream, consumer, stream_seq, deliveries } => Body {
                stream,
                consumer: Some(consumer),
                stream_seq: Some(stream_seq),
                deliveries: Some(deliveries),
                ..none
            },
            Advisory::Terminated { stream, consumer, consumer_seq, stream_seq, deliveries, reason } => Body {
                stream,
                consumer: Some(consumer),
                consumer_seq: Some(consumer_seq),
                stream_seq: Some(stream_seq),
                deliveries: Some(deliveries),
                reason: (!reason.is_empty()).then_some(reason),
                ..none
            },
            Advisory::Nak { stream, consumer, consumer_seq, stream_seq, deliveries } => Body {
                stream,
                consumer: Some(consumer),
                consumer_seq: Some(consumer_seq),
                stream_seq: Some(stream_seq),
                deliveries: Some(deliveries),
                ..none
            },
            Advisory::Pause { stream, consumer, paused, pause_until } => {
                Body { stream, consumer: Some(consumer), paused: Some(paused), pause_until: Some(pause_until), ..none }
            }
            Advisory::BatchAbandoned { account, stream, batch, reason } => {
                Body { account: Some(account), stream, batch: Some(batch), reason: Some(reason), ..none }
            }
        };
        serde_json::to_vec(&Event { r#type, id, timestamp, body }).expect("advisories are always JSON")
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advisories_have_nats_servers_shape() {
        let check = |advisory: Advisory<'_>, subject: &str, body: &str| {
            assert_eq!(advisory.subject(), format!("$JS.EVENT.ADVISORY.{subject}"));
            let got = String::from_utf8(advisory.encode("ID".into(), Timestamp(1_795_262_609_148_988_464))).unwrap();
            let head = r#""id":"ID","timestamp":"2026-11-21T12:03:29.148988464Z""#;
            assert_eq!(got, body.replace("HEAD", head));
        };
        check(
            Advisory::Stream { stream: "S", action: Action::Modify },
            "STREAM.UPDATED.S",
            r#"{"type":"io.nats.jetstream.advisory.v1.stream_action",HEAD,"stream":"S","action":"modify"}"#,
        );
        check(
            Advisory::Consumer { stream: "S", consumer: "c", action: Action::Create },
            "CONSUMER.CREATED.S.c",
            r#"{"type":"io.nats.jetstream.advisory.v1.consumer_action",HEAD,"stream":"S","consumer":"c","action":"create"}"#,
        );
        check(
            Advisory::MaxDeliveries { stream: "S", consumer: "c", stream_seq: 4, deliveries: 3 },
            "CONSUMER.MAX_DELIVERIES.S.c",
            r#"{"type":"io.nats.jetstream.advisory.v1.max_deliver",HEAD,"stream":"S","consumer":"c","stream_seq":4,"deliveries":3}"#,
        );
        check(
            Advisory::Terminated {
                stream: "S",
                consumer: "c",
                consumer_seq: 9,
                stream_seq: 4,
                deliveries: 3,
                reason: "no",
            },
            "CONSUMER.MSG_TERMINATED.S.c",
            r#"{"type":"io.nats.jetstream.advisory.v1.terminated",HEAD,"stream":"S","consumer":"c","consumer_seq":9,"stream_seq":4,"deliveries":3,"reason":"no"}"#,
        );
    }
}
