//! The consumers that streams make on each other to take from them, as their origin sees them (nats-server
//! `jsConsumerCreateRequest`, ADR-60).

use crate::broker::Inbound;
use crate::consumer::{AckPolicy, ConsumerConfig, GoDuration};
use crate::stream::config::Retention;
use crate::stream::source_name;
use crate::types::header::HeaderBuilder;
use crate::types::{ApiError, Headers, Timestamp, id};

/// Names the stream, so that one made anew under the same name is not taken for it.
pub(super) const IDENTITY: &str = "Nats-Stream-Identity";

/// What becomes of a consumer that a stream wants to take messages through. Where acks decide what the origin keeps it
/// is made durable, and its answers to flow control are its acks; elsewhere it lives as long as it is used, under a name
/// of its own.
pub(super) fn settle(config: &mut ConsumerConfig, retention: Retention) {
    if !config.direct || !config.sourcing || config.name.is_empty() {
        return;
    }
    if retention == Retention::Limits {
        let unique = id::unique();
        config.name = format!("{}-{}", config.name, &unique[unique.len() - 8..]);
        return;
    }
    config.direct = false;
    config.durable = config.name.clone();
    config.ack_policy = AckPolicy::FlowControl;
    config.ack_wait = GoDuration::ZERO;
    config.max_deliver = 0;
    config.inactive_threshold = GoDuration::ZERO;
}

/// The stream a request means, when it says so; empty when it only asks which one it is.
pub(super) fn expected_identity(request: &Inbound) -> Option<&str> {
    Headers::new(request.message.headers()).get_str(IDENTITY)
}

/// # Errors
/// When the stream created at this time is not the one that is expected.
pub(super) fn check_identity(expected: &str, created: Timestamp) -> Result<(), ApiError> {
    let identity = source_name::identity(created);
    match expected == identity {
        true => Ok(()),
        false => Err(ApiError::CONSUMER_STREAM_IDENTITY_MISMATCH_F.with(identity)),
    }
}

/// The headers of an answer that says which stream it is.
pub(super) fn identity_headers(created: Timestamp) -> Vec<u8> {
    HeaderBuilder::new().add(IDENTITY, source_name::identity(created)).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_that_must_not_lose_anything_is_made_durable() {
        let asked = || ConsumerConfig {
            name: "JS_SRC_x".into(),
            direct: true,
            sourcing: true,
            max_deliver: 1,
            ack_wait: GoDuration::from_secs(79_200),
            ..ConsumerConfig::default()
        };
        let mut limits = asked();
        settle(&mut limits, Retention::Limits);
        assert!(limits.name.starts_with("JS_SRC_x-") && limits.name.len() == "JS_SRC_x-12345678".len());
        assert!(limits.direct && !limits.is_durable());
        for retention in [Retention::Interest, Retention::WorkQueue] {
            let mut durable = asked();
            settle(&mut durable, retention);
            assert_eq!((&*durable.durable, durable.direct, durable.sourcing), ("JS_SRC_x", false, true));
            assert_eq!((durable.ack_policy, durable.max_deliver), (AckPolicy::FlowControl, 0));
            assert!(durable.ack_wait.is_zero());
        }
        let mut ordinary = ConsumerConfig { name: "c".into(), ..ConsumerConfig::default() };
        settle(&mut ordinary, Retention::Interest);
        assert_eq!(ordinary, ConsumerConfig { name: "c".into(), ..ConsumerConfig::default() });
    }
}
