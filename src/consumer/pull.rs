//! Pull requests as they arrive on `$JS.API.CONSUMER.MSG.NEXT`, or behind `+NXT`.

use bytes::Bytes;
use serde::Deserialize;

use super::config::lenient;
use crate::types::GoDuration;
use crate::types::go_json::{self, Reading};

/// One request for messages. Fields are as the client sent them; limits are applied by the consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Where messages and statuses go.
    pub reply: Bytes,
    /// Messages wanted. Zero and below count as one, but show in the statuses as they are.
    pub batch: i64,
    /// Lifetime from its arrival; zero means until filled.
    pub expires: GoDuration,
    /// Take what is there, do not wait for more.
    pub no_wait: bool,
    /// Bytes wanted at most, zero for any number.
    pub max_bytes: i64,
    pub idle_heartbeat: GoDuration,
    /// Priority group options; `None` unless the request was JSON.
    pub priority: Option<Priority>,
}

/// The priority group part of a request (ADR-42).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    pub group: String,
    pub min_pending: i64,
    pub min_ack_pending: i64,
    /// The pin a pinned client holds.
    pub pin_id: String,
    /// 0 is served first, 9 last.
    pub priority: i64,
}

/// A struct without a name in Go, and so in its errors.
#[derive(Default, Deserialize)]
#[serde(rename = "", default)]
struct Body {
    #[serde(deserialize_with = "lenient")]
    expires: GoDuration,
    #[serde(deserialize_with = "lenient")]
    batch: i64,
    #[serde(deserialize_with = "lenient")]
    max_bytes: i64,
    #[serde(deserialize_with = "lenient")]
    no_wait: bool,
    #[serde(deserialize_with = "lenient")]
    idle_heartbeat: GoDuration,
    #[serde(deserialize_with = "lenient")]
    group: String,
    #[serde(deserialize_with = "lenient")]
    min_pending: i64,
    #[serde(deserialize_with = "lenient")]
    min_ack_pending: i64,
    #[serde(deserialize_with = "lenient")]
    id: String,
    #[serde(deserialize_with = "lenient")]
    priority: i64,
}

impl PullRequest {
    /// A request for one message that waits for ever, which is what an empty body means.
    pub fn single(reply: Bytes) -> PullRequest {
        PullRequest {
            reply,
            batch: 1,
            expires: GoDuration::ZERO,
            no_wait: false,
            max_bytes: 0,
            idle_heartbeat: GoDuration::ZERO,
            priority: None,
        }
    }

    /// Reads a body: empty, a bare number of messages, or JSON. What is none of these counts as empty.
    ///
    /// # Errors
    /// JSON that does not parse, or a heartbeat that does not fit twice into the lifetime: the text after
    /// `400 Bad Request - `.
    pub fn parse(reply: Bytes, body: &[u8]) -> Result<PullRequest, String> {
        let body = body.trim_ascii();
        if body.first() != Some(&b'{') {
            let batch = std::str::from_utf8(body).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
            return Ok(PullRequest { batch, ..PullRequest::single(reply) });
        }
        let body: Body = go_json::decode(body, Reading::Lenient)?;
        if body.idle_heartbeat.0 > 0 && body.idle_heartbeat.0.saturating_mul(2) > body.expires.0 {
            return Err("heartbeat value too large".to_owned());
        }
        Ok(PullRequest {
            reply,
            batch: body.batch,
            expires: body.expires,
            no_wait: body.no_wait,
            max_bytes: body.max_bytes,
            idle_heartbeat: body.idle_heartbeat,
            priority: Some(Priority {
                group: body.group,
                min_pending: body.min_pending,
                min_ack_pending: body.min_ack_pending,
                pin_id: body.id,
                priority: body.priority,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bodies() {
        let check = |body: &str, expected: Result<(i64, i64, bool, i64, i64), &str>| {
            let found = PullRequest::parse(Bytes::from_static(b"r"), body.as_bytes())
                .map(|pull| (pull.batch, pull.expires.0, pull.no_wait, pull.max_bytes, pull.idle_heartbeat.0));
            assert_eq!(found, expected.map_err(str::to_owned), "{body}");
        };
        check("", Ok((1, 0, false, 0, 0)));
        check(" 5 ", Ok((5, 0, false, 0, 0)));
        check("-3", Ok((-3, 0, false, 0, 0)));
        check("nonsense", Ok((1, 0, false, 0, 0)));
        check("{}", Ok((0, 0, false, 0, 0)));
        check(r#"{"batch":10,"expires":9,"no_wait":true,"max_bytes":7,"other":1}"#, Ok((10, 9, true, 7, 0)));
        check(r#"{"batch":1,"expires":10,"idle_heartbeat":5}"#, Ok((1, 10, false, 0, 5)));
        check(r#"{"batch":1,"expires":10,"idle_heartbeat":6}"#, Err("heartbeat value too large"));
        check(r#"{"batch":"x"}"#, Err("json: cannot unmarshal string into Go struct field .batch of type int"));
        check("{", Err("unexpected end of JSON input"));
    }

    #[test]
    fn priority_options() {
        let body = br#"{"batch":1,"group":"g","min_pending":5,"min_ack_pending":6,"id":"pin","priority":2}"#;
        let priority = PullRequest::parse(Bytes::new(), body).unwrap().priority.unwrap();
        assert_eq!(
            priority,
            Priority { group: "g".into(), min_pending: 5, min_ack_pending: 6, pin_id: "pin".into(), priority: 2 }
        );
    }

    proptest! {
        #[test]
        fn never_panics(body: Vec<u8>) {
            let _ = PullRequest::parse(Bytes::new(), &body);
        }
    }
}
