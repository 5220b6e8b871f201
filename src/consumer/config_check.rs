//! Defaults, checks and update rules of a consumer configuration, with nats-server's errors
//! (`setConsumerConfigDefaults`, `checkConsumerCfg`, `checkNewConsumerConfig` in its `server/consumer.go`).

use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy, PriorityPolicy};
use crate::types::GoDuration;
use crate::types::{ApiError, FilterSet, TooMany, subject};

const ACK_WAIT_DEFAULT: GoDuration = GoDuration::from_secs(30);
const INACTIVE_THRESHOLD_DEFAULT: GoDuration = GoDuration::from_secs(5);
const MAX_ACK_PENDING_DEFAULT: i64 = 1000;
const MAX_WAITING_DEFAULT: i64 = 512;
const PINNED_TTL_DEFAULT: GoDuration = GoDuration::from_secs(120);
const FLOW_CONTROL_ACK_HEARTBEAT: GoDuration = GoDuration::SECOND;
const DESCRIPTION_LEN_MAX: usize = 4 * 1024;
const METADATA_LEN_MAX: usize = 128 * 1024;
const NAME_LEN_MAX: usize = 255;

/// What of its stream a consumer's configuration is checked against.
#[derive(Clone, Debug, Default)]
pub struct StreamTerms<'a> {
    pub subjects: &'a [String],
    pub replicas: i64,
    /// Work-queue retention.
    pub work_queue: bool,
    /// Interest retention.
    pub interest: bool,
    /// The stream's `consumer_limits.max_ack_pending`.
    pub max_ack_pending: i64,
    /// The stream's `consumer_limits.inactive_threshold`.
    pub inactive_threshold: GoDuration,
    /// The most pending acks and requested messages that the server allows; 0 or less for any number.
    pub server_ack_pending: i64,
    pub server_request_batch: i64,
    /// The most pending acks that the account allows; 0 or less for any number.
    pub account_ack_pending: i64,
}

impl ConsumerConfig {
    /// Fills in defaults. With `pedantic`, a value that would silently be replaced is an error instead.
    ///
    /// # Errors
    /// Only when `pedantic`.
    pub fn set_defaults(&mut self, stream: &StreamTerms, pedantic: bool) -> Result<(), ApiError> {
        let refuse = |broken: bool, rule: &str| match pedantic && broken {
            true => Err(ApiError::PEDANTIC.with(rule)),
            false => Ok(()),
        };
        if self.max_deliver == 0 || self.max_deliver < -1 {
            refuse(self.max_deliver < -1, "max_deliver must be set to -1")?;
            self.max_deliver = -1;
        }
        for (value, floor, rule) in [
            (&mut self.max_waiting, 0, "max_waiting must not be negative"),
            (&mut self.max_ack_pending, -1, "max_ack_pending must be set to -1"),
            (&mut self.max_request_batch, 0, "max_batch must not be negative"),
            (&mut self.max_request_expires.0, 0, "max_expires must not be negative"),
            (&mut self.max_request_max_bytes, 0, "max_bytes must not be negative"),
            (&mut self.heartbeat.0, 0, "idle_heartbeat must not be negative"),
            (&mut self.inactive_threshold.0, 0, "inactive_threshold must not be negative"),
            (&mut self.pinned_ttl.0, 0, "priority_timeout must not be negative"),
        ] {
            refuse(*value < floor, rule)?;
            *value = (*value).max(floor);
        }
        if self.is_pull() && self.max_waiting == 0 {
            self.max_waiting = MAX_WAITING_DEFAULT;
        }
        if self.ack_wait.is_zero() && matches!(self.ack_policy, AckPolicy::Explicit | AckPolicy::All) {
            self.ack_wait = ACK_WAIT_DEFAULT;
        }
        if let Some(&first) = self.backoff.first() {
            refuse(self.ack_wait != first, "first backoff value has to equal batch AckWait")?;
            self.ack_wait = first;
        }
        if self.max_ack_pending == 0 {
            refuse(stream.max_ack_pending > 0, "max_ack_pending must be set if it's configured in stream limits")?;
            self.max_ack_pending = stream.max_ack_pending;
        }
        if self.inactive_threshold.is_zero() {
            let limited = stream.inactive_threshold.0 > 0;
            refuse(limited, "inactive_threshold must be set if it's configured in stream limits")?;
            self.inactive_threshold = stream.inactive_threshold;
        }
        if self.max_ack_pending == 0 && self.ack_policy != AckPolicy::None {
            let limits = [stream.server_ack_pending, stream.account_ack_pending];
            let least = limits.into_iter().filter(|limit| *limit > 0).min();
            self.max_ack_pending = MAX_ACK_PENDING_DEFAULT.min(least.unwrap_or(i64::MAX));
        }
        if self.is_pull() && self.max_request_batch == 0 && stream.server_request_batch > 0 {
            refuse(true, "max_request_batch must be set if it's JetStream limits are set")?;
            self.max_request_batch = stream.server_request_batch;
        }
        if self.priority_policy == PriorityPolicy::PinnedClient && self.pinned_ttl.is_zero() {
            self.pinned_ttl = PINNED_TTL_DEFAULT;
        }
        if self.ack_policy == AckPolicy::FlowControl && !pedantic {
            self.flow_control = true;
            self.heartbeat = FLOW_CONTROL_ACK_HEARTBEAT;
        }
        Ok(())
    }

    /// Gives an ephemeral consumer its inactive threshold, as nats-server does once the consumer exists.
    pub fn set_inactive_default(&mut self) {
        if !self.is_durable() {
            self.give_inactive_default();
        }
    }

    /// The same for a consumer that came into being as an ephemeral one, whatever it is called now.
    pub fn give_inactive_default(&mut self) {
        if self.inactive_threshold.0 <= 0 {
            self.inactive_threshold = INACTIVE_THRESHOLD_DEFAULT;
        }
    }

    /// Checks a configuration with its defaults set.
    ///
    /// # Errors
    /// The first rule broken, in nats-server's order.
    pub fn check(&self, stream: &StreamTerms) -> Result<(), ApiError> {
        self.check_names(stream)?;
        self.check_acks()?;
        if self.description.len() > DESCRIPTION_LEN_MAX {
            return Err(ApiError::CONSUMER_DESCRIPTION_TOO_LONG.with(DESCRIPTION_LEN_MAX));
        }
        if self.is_push() {
            self.check_push(stream)?;
        } else {
            self.check_pull(stream)?;
        }
        for limit in [stream.server_ack_pending, stream.account_ack_pending, stream.max_ack_pending] {
            if limit > 0 && self.max_ack_pending > limit {
                return Err(ApiError::CONSUMER_MAX_PENDING_ACK_EXCESS.with(limit));
            }
        }
        if stream.inactive_threshold.0 > 0 && self.inactive_threshold > stream.inactive_threshold {
            return Err(ApiError::CONSUMER_INACTIVE_THRESHOLD_EXCESS.with(stream.inactive_threshold));
        }
        if self.direct && self.is_pull() {
            return Err(ApiError::CONSUMER_DIRECT_REQUIRES_PUSH);
        }
        if self.direct && self.is_durable() {
            return Err(ApiError::CONSUMER_DIRECT_REQUIRES_EPHEMERAL);
        }
        self.check_filters()?;
        self.check_start()?;
        self.check_rest()
    }

    fn check_names(&self, stream: &StreamTerms) -> Result<(), ApiError> {
        for (name, what) in [(&self.name, "consumer name"), (&self.durable, "consumer durable name")] {
            if !name.is_empty() && !is_valid_asset_name(name) {
                let text = format!("{what} can not contain '.', '*', '>', '\\', '/'");
                return Err(ApiError::STREAM_INVALID_CONFIG_F.with(text));
            }
        }
        if self.replicas > 0 && self.replicas > stream.replicas {
            return Err(ApiError::CONSUMER_REPLICAS_EXCEEDS_STREAM);
        }
        if self.replicas < 0 {
            return Err(ApiError::REPLICAS_COUNT_CANNOT_BE_NEGATIVE);
        }
        if (stream.interest || stream.work_queue) && self.replicas != 0 && self.replicas != stream.replicas {
            return Err(ApiError::CONSUMER_REPLICAS_SHOULD_MATCH_STREAM);
        }
        Ok(())
    }

    fn check_acks(&self) -> Result<(), ApiError> {
        if self.backoff.iter().any(|step| step.0 < 0) {
            return Err(ApiError::CONSUMER_BACK_OFF_NEGATIVE);
        }
        if self.ack_wait.0 < 0 {
            return Err(ApiError::CONSUMER_ACK_WAIT_NEGATIVE);
        }
        if self.ack_policy == AckPolicy::FlowControl {
            if self.is_pull() {
                return Err(ApiError::CONSUMER_ACK_FC_REQUIRES_PUSH);
            }
            if !self.flow_control {
                return Err(ApiError::CONSUMER_ACK_FC_REQUIRES_FC);
            }
            if self.heartbeat != FLOW_CONTROL_ACK_HEARTBEAT {
                let text = "flow control ack policy heartbeat needs to be 1s";
                return Err(ApiError::STREAM_INVALID_CONFIG_F.with(text));
            }
            if self.max_ack_pending <= 0 {
                return Err(ApiError::CONSUMER_ACK_FC_REQUIRES_MAX_ACK_PENDING);
            }
            if !self.ack_wait.is_zero() || !self.backoff.is_empty() {
                return Err(ApiError::CONSUMER_ACK_FC_REQUIRES_NO_ACK_WAIT);
            }
            if self.max_deliver > 0 {
                return Err(ApiError::CONSUMER_ACK_FC_REQUIRES_NO_MAX_DELIVER);
            }
        }
        self.check_backoff()
    }

    fn check_backoff(&self) -> Result<(), ApiError> {
        if !self.backoff.is_empty() && self.max_deliver != -1 && self.backoff.len() as i64 > self.max_deliver {
            return Err(ApiError::CONSUMER_MAX_DELIVER_BACKOFF);
        }
        Ok(())
    }

    fn check_push(&self, stream: &StreamTerms) -> Result<(), ApiError> {
        let to = self.deliver_subject.as_bytes();
        if subject::has_wildcard(to) {
            return Err(ApiError::CONSUMER_DELIVER_TO_WILDCARDS);
        }
        if !subject::is_valid(to) {
            return Err(ApiError::CONSUMER_INVALID_DELIVER_SUBJECT);
        }
        if stream.subjects.iter().any(|filter| subject::matches(filter.as_bytes(), to)) {
            return Err(ApiError::CONSUMER_DELIVER_CYCLE);
        }
        if self.max_waiting != 0 {
            return Err(ApiError::CONSUMER_PUSH_MAX_WAITING);
        }
        if self.max_ack_pending > 0 && self.ack_policy == AckPolicy::None {
            return Err(ApiError::CONSUMER_MAX_PENDING_ACK_POLICY_REQUIRED);
        }
        if self.heartbeat.0 > 0 && self.heartbeat < GoDuration::from_millis(100) {
            return Err(ApiError::CONSUMER_SMALL_HEARTBEAT);
        }
        Ok(())
    }

    fn check_pull(&self, stream: &StreamTerms) -> Result<(), ApiError> {
        if self.ack_policy == AckPolicy::None && stream.work_queue {
            return Err(ApiError::CONSUMER_PULL_REQUIRES_ACK);
        }
        if self.rate_limit > 0 {
            return Err(ApiError::CONSUMER_PULL_WITH_RATE_LIMIT);
        }
        if self.max_waiting < 0 {
            return Err(ApiError::CONSUMER_MAX_WAITING_NEGATIVE);
        }
        if self.heartbeat.0 > 0 {
            return Err(ApiError::CONSUMER_HB_REQUIRES_PUSH);
        }
        if self.flow_control {
            return Err(ApiError::CONSUMER_FC_REQUIRES_PUSH);
        }
        if self.max_request_batch < 0 {
            return Err(ApiError::CONSUMER_MAX_REQUEST_BATCH_NEGATIVE);
        }
        if !self.max_request_expires.is_zero() && self.max_request_expires < GoDuration::MILLISECOND {
            return Err(ApiError::CONSUMER_MAX_REQUEST_EXPIRES_TOO_SMALL);
        }
        if stream.server_request_batch > 0 && self.max_request_batch > stream.server_request_batch {
            return Err(ApiError::CONSUMER_MAX_REQUEST_BATCH_EXCEEDED_F.with(stream.server_request_batch));
        }
        Ok(())
    }

    fn check_filters(&self) -> Result<(), ApiError> {
        if !self.filter_subject.is_empty() && !self.filter_subjects.is_empty() {
            return Err(ApiError::CONSUMER_DUPLICATE_FILTER_SUBJECTS);
        }
        let malformed = || ApiError::STREAM_INVALID_CONFIG_F.with("invalid subject");
        if !self.filter_subject.is_empty() && !subject::is_valid(self.filter_subject.as_bytes()) {
            return Err(malformed());
        }
        if self.filter_subjects.iter().any(String::is_empty) {
            return Err(ApiError::CONSUMER_EMPTY_FILTER);
        }
        let filters: Vec<&[u8]> = self.filters().map(str::as_bytes).collect();
        if filters.iter().any(|filter| !subject::is_valid(filter)) {
            return Err(malformed());
        }
        let mut all = FilterSet::new(self.filters());
        for filter in filters {
            if all.covering(filter, 2).map_err(too_many)? > 1 {
                return Err(ApiError::CONSUMER_OVERLAPPING_SUBJECT_FILTERS);
            }
        }
        Ok(())
    }

    fn check_start(&self) -> Result<(), ApiError> {
        let bad_start = |policy: &str, start: &str| {
            let text = format!("consumer delivery policy is deliver {policy}, but optional start {start} is also set");
            Err(ApiError::CONSUMER_INVALID_POLICY.with(text))
        };
        let not_set = |policy: &str, option: &str| {
            let text = format!("consumer delivery policy is deliver {policy}, but optional {option} is not set");
            Err(ApiError::CONSUMER_INVALID_POLICY.with(text))
        };
        let (seq, time) = (self.opt_start_seq > 0, self.opt_start_time.is_some());
        let named = match self.deliver_policy {
            DeliverPolicy::ByStartSequence => {
                if !seq {
                    return not_set("by start sequence", "start sequence");
                }
                return if time { bad_start("by start sequence", "time") } else { Ok(()) };
            }
            DeliverPolicy::ByStartTime => {
                if !time {
                    return not_set("by start time", "start time");
                }
                return if seq { bad_start("by start time", "start sequence") } else { Ok(()) };
            }
            DeliverPolicy::All => "all",
            DeliverPolicy::Last => "last",
            DeliverPolicy::New => "new",
            DeliverPolicy::LastPerSubject => "last per subject",
        };
        if seq {
            return bad_start(named, "sequence");
        }
        if time {
            return bad_start(named, "time");
        }
        if self.deliver_policy == DeliverPolicy::LastPerSubject && self.filters().next().is_none() {
            return not_set("last per subject", "filter subject");
        }
        Ok(())
    }

    fn check_rest(&self) -> Result<(), ApiError> {
        if !self.sample_frequency.is_empty() {
            let digits = self.sample_frequency.strip_suffix('%').unwrap_or(&self.sample_frequency);
            match digits.parse::<i64>() {
                Ok(percent) if percent >= 0 => {}
                Ok(_) => return Err(ApiError::CONSUMER_INVALID_SAMPLING.with("<nil>")),
                Err(error) => {
                    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
                    let fault = match error.kind() {
                        PosOverflow | NegOverflow => "value out of range",
                        _ => "invalid syntax",
                    };
                    let text = format!("strconv.Atoi: parsing {digits:?}: {fault}");
                    return Err(ApiError::CONSUMER_INVALID_SAMPLING.with(text));
                }
            }
        }
        if self.flow_control && self.heartbeat.is_zero() {
            return Err(ApiError::CONSUMER_WITH_FLOW_CONTROL_NEEDS_HEARTBEATS);
        }
        if self.is_durable() && !self.name.is_empty() && self.name != self.durable {
            return Err(ApiError::CONSUMER_CREATE_DURABLE_AND_NAME_MISMATCH);
        }
        let metadata_len: usize = self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if metadata_len > METADATA_LEN_MAX {
            return Err(ApiError::CONSUMER_METADATA_LENGTH.with(format!("{}KB", METADATA_LEN_MAX / 1024)));
        }
        if self.priority_policy.is_none() {
            if !self.priority_groups.is_empty() {
                return Err(ApiError::CONSUMER_PRIORITY_GROUP_WITH_POLICY_NONE);
            }
            if self.pinned_ttl.0 > 0 {
                return Err(ApiError::CONSUMER_PINNED_TTL_WITHOUT_PRIORITY_POLICY_NONE);
            }
        } else {
            if self.is_push() {
                return Err(ApiError::CONSUMER_PUSH_WITH_PRIORITY_GROUP);
            }
            if self.priority_groups.is_empty() {
                return Err(ApiError::CONSUMER_PRIORITY_POLICY_WITHOUT_GROUP);
            }
            for group in &self.priority_groups {
                if group.is_empty() {
                    return Err(ApiError::CONSUMER_EMPTY_GROUP_NAME);
                }
                if !is_valid_group_name(group) {
                    return Err(ApiError::CONSUMER_INVALID_GROUP_NAME);
                }
            }
        }
        if self.wanted_name().len() > NAME_LEN_MAX {
            return Err(ApiError::CONSUMER_NAME_TOO_LONG.with(NAME_LEN_MAX));
        }
        Ok(())
    }

    /// The rules of a work-queue stream for a new consumer, where `others` are the filters of the stream's other
    /// consumers, one list each.
    ///
    /// # Errors
    /// When it could take messages from another consumer, or leave them without an ack.
    pub fn check_work_queue(&self, others: &[Vec<&str>]) -> Result<(), ApiError> {
        if self.direct || self.sourcing {
            return Ok(());
        }
        if !matches!(self.ack_policy, AckPolicy::Explicit | AckPolicy::FlowControl) {
            return Err(ApiError::CONSUMER_WQ_REQUIRES_EXPLICIT_ACK);
        }
        if self.deliver_policy != DeliverPolicy::All {
            return Err(ApiError::CONSUMER_WQ_CONSUMER_NOT_DELIVER_ALL);
        }
        if !others.is_empty() && self.filters().next().is_none() {
            return Err(ApiError::CONSUMER_WQ_MULTIPLE_UNFILTERED);
        }
        self.check_work_queue_share(others)
    }

    /// Whether its filters are disjoint from those of the `others`; also the rule for an update.
    ///
    /// # Errors
    /// When they overlap.
    pub fn check_work_queue_share(&self, others: &[Vec<&str>]) -> Result<(), ApiError> {
        let mut own = FilterSet::new(self.filters());
        for other in others {
            let mut collides = other.is_empty() || self.filters().next().is_none();
            for theirs in other {
                collides = collides || own.overlapping(theirs.as_bytes(), 1).map_err(too_many)? > 0;
            }
            if collides {
                return Err(ApiError::CONSUMER_WQ_CONSUMER_NOT_UNIQUE);
            }
        }
        Ok(())
    }

    /// Whether `self` may become `new`. `bound` says that someone is subscribed to the present deliver subject.
    ///
    /// # Errors
    /// The first field that must not change.
    pub fn check_update(&self, new: &ConsumerConfig, bound: bool) -> Result<(), ApiError> {
        if self == new {
            return Ok(());
        }
        let refuse = |text: &str| Err(ApiError::CONSUMER_CREATE.with(text));
        for (changed, text) in [
            (self.deliver_policy != new.deliver_policy, "deliver policy can not be updated"),
            (self.memory_storage != new.memory_storage, "storage type can not be updated"),
            (self.direct != new.direct, "direct can not be updated"),
            (self.sourcing != new.sourcing, "sourcing can not be updated"),
            (self.opt_start_seq != new.opt_start_seq, "start sequence can not be updated"),
            (self.opt_start_time != new.opt_start_time, "start time can not be updated"),
            (self.ack_policy != new.ack_policy, "ack policy can not be updated"),
            (self.replay_policy != new.replay_policy, "replay policy can not be updated"),
            (self.heartbeat != new.heartbeat, "heart beats can not be updated"),
            (self.flow_control != new.flow_control, "flow control can not be updated"),
        ] {
            if changed {
                return refuse(text);
            }
        }
        if self.deliver_subject != new.deliver_subject {
            if self.is_pull() {
                return refuse("can not update pull consumer to push based");
            }
            if new.is_pull() {
                return refuse("can not update push consumer to pull based");
            }
            if bound {
                return Err(ApiError::CONSUMER_NAME_EXIST);
            }
        }
        if self.max_waiting != new.max_waiting {
            return refuse("max waiting can not be updated");
        }
        new.check_backoff()
    }
}

fn too_many(error: TooMany) -> ApiError {
    ApiError::STREAM_INVALID_CONFIG_F.with(error)
}

/// Whether `name` may name a stream or consumer (nats-server `isValidAssetName`).
pub fn is_valid_asset_name(name: &str) -> bool {
    crate::stream::config_check::is_valid_asset_name(name)
}

/// Whether `name` may name a priority group (nats-server `validGroupName`).
pub fn is_valid_group_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"/_=-".contains(&byte);
    (1..=16).contains(&name.len()) && name.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn check(change: impl FnOnce(&mut ConsumerConfig, &mut StreamTerms), expected: Result<(), (u32, &str)>) {
        let subjects = ["events.>".to_owned()];
        let mut stream = StreamTerms { subjects: &subjects, replicas: 1, ..StreamTerms::default() };
        let mut config = ConsumerConfig { ack_policy: AckPolicy::Explicit, ..ConsumerConfig::default() };
        change(&mut config, &mut stream);
        config.set_defaults(&stream, false).expect("defaults fail only in pedantic mode");
        let found = config.check(&stream);
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err((code, text))) => {
                assert_eq!((error.err_code, error.description.as_ref()), (code, text));
            }
            (found, expected) => panic!("{found:?} instead of {expected:?} for {config:?}"),
        }
    }

    #[test]
    fn defaults() {
        let mut config = ConsumerConfig { ack_policy: AckPolicy::Explicit, ..ConsumerConfig::default() };
        config.set_defaults(&StreamTerms::default(), false).unwrap();
        config.set_inactive_default();
        assert_eq!(config.max_deliver, -1);
        assert_eq!(config.ack_wait, GoDuration::from_secs(30));
        assert_eq!(config.max_ack_pending, 1000);
        assert_eq!(config.max_waiting, 512);
        assert_eq!(config.inactive_threshold, GoDuration::from_secs(5));

        let mut push = ConsumerConfig { deliver_subject: "x".into(), ..ConsumerConfig::default() };
        push.set_defaults(&StreamTerms::default(), false).unwrap();
        assert_eq!((push.max_waiting, push.max_ack_pending, push.ack_wait), (0, 0, GoDuration::ZERO));

        let mut backoff = ConsumerConfig {
            ack_policy: AckPolicy::Explicit,
            backoff: vec![GoDuration::from_secs(1), GoDuration::from_secs(5)],
            ..ConsumerConfig::default()
        };
        backoff.set_defaults(&StreamTerms::default(), false).unwrap();
        assert_eq!(backoff.ack_wait, GoDuration::from_secs(1));

        let mut pedantic = ConsumerConfig { max_waiting: -5, ..ConsumerConfig::default() };
        let error = pedantic.set_defaults(&StreamTerms::default(), true).unwrap_err();
        assert_eq!(error.description, "pedantic mode: max_waiting must not be negative");
    }

    #[test]
    fn refusals() {
        check(|_, _| {}, Ok(()));
        check(
            |c, _| c.durable = "a.b".into(),
            Err((10052, "consumer durable name can not contain '.', '*', '>', '\\', '/'")),
        );
        check(|c, _| c.name = "a b".into(), Err((10052, "consumer name can not contain '.', '*', '>', '\\', '/'")));
        check(|c, _| c.replicas = 3, Err((10126, "consumer config replica count exceeds parent stream")));
        check(|c, _| c.replicas = -1, Err((10133, "replicas count cannot be negative")));
        check(|c, _| c.ack_wait = GoDuration(-1), Err((10183, "consumer ack wait needs to be positive")));
        check(|c, _| c.backoff = vec![GoDuration(-1)], Err((10184, "consumer backoff needs to be positive")));
        check(
            |c, _| (c.backoff, c.max_deliver) = (vec![GoDuration(1), GoDuration(2)], 1),
            Err((10116, "max deliver is required to be > length of backoff values")),
        );
        check(
            |c, _| c.description = "x".repeat(5000),
            Err((10107, "consumer description is too long, maximum allowed is 4096")),
        );
        check(|c, _| c.deliver_subject = "a.*".into(), Err((10079, "consumer deliver subject has wildcards")));
        check(|c, _| c.deliver_subject = "a..b".into(), Err((10112, "invalid push consumer deliver subject")));
        check(|c, _| c.deliver_subject = "events.x".into(), Err((10081, "consumer deliver subject forms a cycle")));
        check(
            |c, _| (c.deliver_subject, c.max_waiting) = ("x".into(), 5),
            Err((10080, "consumer in push mode can not set max waiting")),
        );
        check(
            |c, _| (c.deliver_subject, c.heartbeat) = ("x".into(), GoDuration(1)),
            Err((10083, "consumer idle heartbeat needs to be >= 100ms")),
        );
        check(
            |c, _| c.heartbeat = GoDuration::SECOND,
            Err((10088, "consumer idle heartbeat requires a push based consumer")),
        );
        check(|c, _| c.flow_control = true, Err((10089, "consumer flow control requires a push based consumer")));
        check(|c, _| c.rate_limit = 1, Err((10086, "consumer in pull mode can not have rate limit set")));
        check(
            |c, _| c.max_request_expires = GoDuration(1),
            Err((10115, "consumer max request expires needs to be >= 1ms")),
        );
        check(
            |c, s| (c.ack_policy, s.work_queue) = (AckPolicy::None, true),
            Err((10084, "consumer in pull mode requires explicit ack policy on workqueue stream")),
        );
        check(
            |c, s| (c.max_ack_pending, s.max_ack_pending) = (11, 10),
            Err((10121, "consumer max ack pending exceeds system limit of 10")),
        );
        check(
            |c, s| {
                (c.inactive_threshold, s.inactive_threshold) = (GoDuration::from_secs(120), GoDuration::from_secs(90))
            },
            Err((10153, "consumer inactive threshold exceeds system limit of 1m30s")),
        );
        check(|c, _| c.direct = true, Err((10090, "consumer direct requires a push based consumer")));
        check(
            |c, _| (c.filter_subject, c.filter_subjects) = ("a".into(), vec!["b".into()]),
            Err((10136, "consumer cannot have both FilterSubject and FilterSubjects specified")),
        );
        check(|c, _| c.filter_subject = "a..b".into(), Err((10052, "invalid subject")));
        check(
            |c, _| c.filter_subjects = vec!["".into()],
            Err((10139, "consumer filter in FilterSubjects cannot be empty")),
        );
        check(
            |c, _| c.filter_subjects = vec!["a.>".into(), "a.b".into()],
            Err((10138, "consumer subject filters cannot overlap")),
        );
        check(
            |c, _| c.opt_start_seq = 5,
            Err((10094, "consumer delivery policy is deliver all, but optional start sequence is also set")),
        );
        check(
            |c, _| (c.deliver_policy, c.opt_start_time) = (DeliverPolicy::New, Some(Timestamp(1))),
            Err((10094, "consumer delivery policy is deliver new, but optional start time is also set")),
        );
        check(
            |c, _| c.deliver_policy = DeliverPolicy::ByStartSequence,
            Err((
                10094,
                "consumer delivery policy is deliver by start sequence, but optional start sequence is not set",
            )),
        );
        check(
            |c, _| c.deliver_policy = DeliverPolicy::ByStartTime,
            Err((10094, "consumer delivery policy is deliver by start time, but optional start time is not set")),
        );
        check(
            |c, _| c.deliver_policy = DeliverPolicy::LastPerSubject,
            Err((
                10094,
                "consumer delivery policy is deliver last per subject, but optional filter subject is not set",
            )),
        );
        check(
            |c, _| c.sample_frequency = "x".into(),
            Err((
                10095,
                "failed to parse consumer sampling configuration: strconv.Atoi: parsing \"x\": invalid syntax",
            )),
        );
        check(
            |c, _| (c.deliver_subject, c.flow_control) = ("x".into(), true),
            Err((10108, "consumer with flow control also needs heartbeats")),
        );
        check(
            |c, _| (c.durable, c.name) = ("a".into(), "b".into()),
            Err((10132, "Consumer Durable and Name have to be equal if both are provided")),
        );
        check(
            |c, _| c.metadata = [("k".to_owned(), "v".repeat(200_000))].into(),
            Err((10135, "consumer metadata exceeds maximum size of 128KB")),
        );
        check(
            |c, _| c.priority_policy = PriorityPolicy::Overflow,
            Err((10159, "Setting PriorityPolicy requires at least one PriorityGroup to be set")),
        );
        check(
            |c, _| c.priority_groups = vec!["g".into()],
            Err((10196, "consumer can not have priority groups when policy is none")),
        );
        check(|c, _| c.durable = "x".repeat(256), Err((10102, "consumer name is too long, maximum allowed is 255")));
    }

    #[test]
    fn updates() {
        let base = ConsumerConfig { durable: "d".into(), ack_policy: AckPolicy::Explicit, ..ConsumerConfig::default() };
        let check = |change: fn(&mut ConsumerConfig), expected: Option<&str>| {
            let mut new = base.clone();
            change(&mut new);
            let found = base.check_update(&new, false).err().map(|error| error.description.into_owned());
            assert_eq!(found.as_deref(), expected);
        };
        check(|_| {}, None);
        check(|c| c.description = "x".into(), None);
        check(|c| c.filter_subject = "x".into(), None);
        check(|c| c.max_ack_pending = 5, None);
        check(|c| c.ack_policy = AckPolicy::All, Some("ack policy can not be updated"));
        check(|c| c.deliver_policy = DeliverPolicy::New, Some("deliver policy can not be updated"));
        check(|c| c.deliver_subject = "x".into(), Some("can not update pull consumer to push based"));
        check(|c| c.max_waiting = 9, Some("max waiting can not be updated"));
    }

    #[test]
    fn work_queue_consumers_share_nothing() {
        let config = |filter: &str| ConsumerConfig {
            ack_policy: AckPolicy::Explicit,
            filter_subject: filter.into(),
            ..ConsumerConfig::default()
        };
        assert_eq!(config("a.*").check_work_queue(&[vec!["b"]]), Ok(()));
        assert_eq!(config("a.*").check_work_queue(&[vec!["*.b"]]), Err(ApiError::CONSUMER_WQ_CONSUMER_NOT_UNIQUE));
        assert_eq!(config("").check_work_queue(&[vec!["b"]]), Err(ApiError::CONSUMER_WQ_MULTIPLE_UNFILTERED));
        assert_eq!(config("").check_work_queue(&[]), Ok(()));
        assert_eq!(config("a").check_work_queue(&[vec![]]), Err(ApiError::CONSUMER_WQ_CONSUMER_NOT_UNIQUE));
        let none = ConsumerConfig::default();
        assert_eq!(none.check_work_queue(&[]), Err(ApiError::CONSUMER_WQ_REQUIRES_EXPLICIT_ACK));
    }
}
