//! Whether a configuration makes sense, and what its unset fields become: nats-server's rules in its order and words
//! (`server/stream.go`, `checkStreamCfg` and `configUpdateCheck`), for a server that stands alone.

use super::StreamConfig;
use super::config::{Discard, Nanos, PersistMode, Placement, Retention, Storage};
use crate::types::GoDuration;
use crate::types::{ApiError, FilterSet, subject};

/// The dedup window unless the configuration says otherwise.
pub const DUPLICATE_WINDOW_DEFAULT: Nanos = Nanos::from_secs(120);
const DURATION_MIN: Nanos = Nanos::from_millis(100);
const NAME_MAX: usize = 255;
const DESCRIPTION_MAX: usize = 4 * 1024;
const METADATA_MAX: usize = 128 * 1024;
const REPLICAS_MAX: i64 = 5;

pub(super) fn invalid(why: impl std::fmt::Display) -> ApiError {
    ApiError::STREAM_INVALID_CONFIG_F.with(why)
}

pub(super) fn refuse_if(bad: bool, why: &str) -> Result<(), ApiError> {
    if bad { Err(invalid(why)) } else { Ok(()) }
}

/// Whether a stream or consumer may have this name. It becomes a token of subjects, so it holds no NUL either, which
/// nats-server learns from its file system.
pub fn is_valid_asset_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['\0', ' ', '\t', '\r', '\n', '\u{c}', '.', '*', '>', '\\', '/'])
}

impl StreamConfig {
    /// Holds the duplicate window to the server's limit (0 for none), before the configuration is checked. A stream that
    /// asks for none gets one within it.
    ///
    /// # Errors
    /// When it asks for a longer one; with `pedantic` also when the usual one would be shortened.
    pub fn limit_duplicates(&mut self, limit: Nanos, pedantic: bool) -> Result<(), ApiError> {
        if limit.0 <= 0 {
            return Ok(());
        }
        let own = self.mirror.is_none() && self.sources.is_empty();
        if self.duplicate_window.is_zero() && own && limit < DUPLICATE_WINDOW_DEFAULT {
            if pedantic {
                return Err(ApiError::PEDANTIC.with("duplicate window limits are higher than current limits"));
            }
            let shorter = !self.max_age.is_zero() && self.max_age < limit;
            self.duplicate_window = if shorter { self.max_age } else { limit };
        }
        let window = GoDuration(limit.0);
        refuse_if(
            self.duplicate_window > limit,
            &format!("duplicates window can not be larger then server limit of {window}"),
        )
    }

    /// The configuration a create request amounts to.
    ///
    /// # Errors
    /// As nats-server's; `pedantic` refuses what would otherwise be put right silently.
    pub fn check_create(&self, pedantic: bool) -> Result<StreamConfig, ApiError> {
        refuse_if(self.sealed, "stream configuration for create can not be sealed")?;
        refuse_if(self.mirror_direct && self.mirror.is_none(), "stream has no mirror but does have mirror direct")?;
        let config = self.check(pedantic)?;
        if config.num_replicas > 1 {
            return Err(ApiError::STREAM_REPLICAS_NOT_SUPPORTED);
        }
        config.check_filters()?;
        Ok(config)
    }

    /// The configuration an update of `old` amounts to.
    ///
    /// # Errors
    /// As for a create, and for changes a stream cannot undergo.
    pub fn check_update(&self, old: &StreamConfig, pedantic: bool) -> Result<StreamConfig, ApiError> {
        let mut config = self.check(pedantic)?;
        refuse_if(config.name != old.name, "stream configuration name must match original")?;
        if config.num_replicas > 1 {
            return Err(ApiError::STREAM_REPLICAS_NOT_SUPPORTED);
        }
        refuse_if(config.storage != old.storage, "stream configuration update can not change storage type")?;
        refuse_if(
            config.retention != old.retention
                && (config.retention == Retention::WorkQueue || old.retention == Retention::WorkQueue),
            "stream configuration update can not change retention policy to/from workqueue",
        )?;
        refuse_if(old.sealed && !config.sealed, "stream configuration update can not unseal a sealed stream")?;
        refuse_if(
            old.deny_delete && !config.deny_delete,
            "stream configuration update can not cancel deny message deletes",
        )?;
        refuse_if(old.deny_purge && !config.deny_purge, "stream configuration update can not cancel deny purge")?;
        if config.mirror.is_some() && config.mirror != old.mirror {
            return Err(ApiError::STREAM_MIRROR_NOT_UPDATABLE);
        }
        refuse_if(old.allow_msg_ttl && !config.allow_msg_ttl, "message TTL status can not be disabled")?;
        refuse_if(
            old.allow_msg_counter != config.allow_msg_counter,
            "stream configuration update can not change message counter setting",
        )?;
        refuse_if(old.allow_msg_schedules && !config.allow_msg_schedules, "message schedules can not be disabled")?;
        refuse_if(old.persist_mode != config.persist_mode, "stream configuration update can not change persist mode")?;
        if config.sealed {
            config.max_age = Nanos::ZERO;
            config.discard = Discard::New;
            config.deny_delete = true;
            config.deny_purge = true;
            config.allow_rollup_hdrs = false;
        }
        Ok(config)
    }

    /// The configuration with defaults set, whether it is for a new stream or an old one (nats-server
    /// `checkStreamCfg`).
    ///
    /// # Errors
    /// As nats-server's.
    pub fn check(&self, pedantic: bool) -> Result<StreamConfig, ApiError> {
        self.check_name_and_texts()?;
        let mut config = self.clone();
        config.set_counts(pedantic)?;
        config.set_durations(pedantic)?;
        refuse_if(config.deny_purge && config.allow_rollup_hdrs, "roll-ups require the purge permission")?;
        config.check_counter()?;
        if config.discard_new_per_subject {
            refuse_if(config.discard != Discard::New, "discard new per subject requires discard new policy to be set")?;
            refuse_if(config.max_msgs_per_subject <= 0, "discard new per subject requires max msgs per subject > 0")?;
        }
        config.set_delete_markers(pedantic)?;
        config.set_schedules(pedantic)?;
        if config.persist_mode == PersistMode::Async {
            refuse_if(config.storage != Storage::File, "async persist mode is only supported on file storage")?;
            refuse_if(config.num_replicas > 1, "async persist mode is not supported on replicated streams")?;
            refuse_if(config.allow_atomic, "async persist mode is not supported with atomic batch publish")?;
        }
        config.check_mirror()?;
        config.check_sources()?;
        config.set_subjects()?;
        config.check_subject_transform()?;
        config.set_republish(pedantic)?;
        config.placement = config.placement.take().filter(|placement| *placement != Placement::default());
        if config.placement.as_ref().is_some_and(|placement| !placement.preferred.is_empty()) {
            return Err(invalid("preferred server not permitted in placement"));
        }
        Ok(config)
    }

    fn check_name_and_texts(&self) -> Result<(), ApiError> {
        if !is_valid_asset_name(&self.name) {
            return Err(invalid(r"stream name is required and can not contain '.', '*', '>', '\', '/'"));
        }
        if self.name.len() > NAME_MAX {
            return Err(invalid(format_args!("stream name is too long, maximum allowed is {NAME_MAX}")));
        }
        if self.description.len() > DESCRIPTION_MAX {
            return Err(invalid(format_args!("stream description is too long, maximum allowed is {DESCRIPTION_MAX}")));
        }
        if self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > METADATA_MAX {
            return Err(invalid(format_args!("stream metadata exceeds maximum size of {METADATA_MAX} bytes")));
        }
        Ok(())
    }

    /// Replicas, and the counts of which 0 and everything below -1 mean "no limit", written -1.
    fn set_counts(&mut self, pedantic: bool) -> Result<(), ApiError> {
        if self.num_replicas == 0 {
            self.num_replicas = 1;
        }
        if self.num_replicas > REPLICAS_MAX {
            return Err(invalid(format_args!("maximum replicas is {REPLICAS_MAX}")));
        }
        if self.num_replicas < 0 {
            return Err(ApiError::REPLICAS_COUNT_CANNOT_BE_NEGATIVE);
        }
        let mut max_msg_size = i64::from(self.max_msg_size);
        for (name, count) in [
            ("max_msgs", &mut self.max_msgs),
            ("max_msgs_per_subject", &mut self.max_msgs_per_subject),
            ("max_bytes", &mut self.max_bytes),
            ("max_msg_size", &mut max_msg_size),
            ("max_consumers", &mut self.max_consumers),
        ] {
            if pedantic && *count < -1 {
                return Err(ApiError::PEDANTIC.with(format_args!("{name} must be set to -1")));
            }
            if *count <= 0 {
                *count = -1;
            }
        }
        if max_msg_size < 0 {
            self.max_msg_size = -1;
        }
        Ok(())
    }

    fn set_durations(&mut self, pedantic: bool) -> Result<(), ApiError> {
        let age = self.max_age;
        refuse_if(age.0 < 0, "max age can not be negative")?;
        refuse_if(!age.is_zero() && age < DURATION_MIN, "max age needs to be >= 100ms")?;
        if self.duplicate_window.is_zero() && self.mirror.is_none() && self.sources.is_empty() {
            let bounded = !age.is_zero() && age < DUPLICATE_WINDOW_DEFAULT;
            if bounded && pedantic {
                return Err(ApiError::PEDANTIC.with("duplicate window cannot be bigger than max age"));
            }
            self.duplicate_window = if bounded { age } else { DUPLICATE_WINDOW_DEFAULT };
        }
        let window = self.duplicate_window;
        refuse_if(window.0 < 0, "duplicates window can not be negative")?;
        refuse_if(!age.is_zero() && window > age, "duplicates window can not be larger then max age")?;
        refuse_if(!window.is_zero() && window < DURATION_MIN, "duplicates window needs to be >= 100ms")
    }

    fn check_counter(&self) -> Result<(), ApiError> {
        if !self.allow_msg_counter {
            return Ok(());
        }
        refuse_if(self.discard == Discard::New, "counter stream cannot use discard new")?;
        refuse_if(self.allow_msg_ttl, "counter stream cannot use message TTLs")?;
        refuse_if(self.allow_msg_schedules, "counter stream cannot use message schedules")?;
        refuse_if(self.retention != Retention::Limits, "counter stream can only use limits retention")
    }

    fn set_delete_markers(&mut self, pedantic: bool) -> Result<(), ApiError> {
        let ttl = self.subject_delete_marker_ttl;
        refuse_if(ttl.0 < 0, "subject delete marker TTL must not be negative")?;
        if ttl.is_zero() {
            return Ok(());
        }
        refuse_if(ttl < Nanos::from_secs(1), "subject delete marker TTL must be at least 1 second")?;
        if !self.allow_msg_ttl {
            refuse_if(pedantic, "subject delete marker cannot be set if message TTLs are disabled")?;
            self.allow_msg_ttl = true;
        }
        if !self.allow_rollup_hdrs {
            refuse_if(pedantic, "subject delete marker cannot be set if roll-ups are disabled")?;
            (self.allow_rollup_hdrs, self.deny_purge) = (true, false);
        }
        Ok(())
    }

    fn set_schedules(&mut self, pedantic: bool) -> Result<(), ApiError> {
        if !self.allow_msg_schedules {
            return Ok(());
        }
        refuse_if(self.discard == Discard::New, "message scheduling cannot use discard new")?;
        if !self.allow_rollup_hdrs {
            refuse_if(pedantic, "message scheduling cannot be set if roll-ups are disabled")?;
            (self.allow_rollup_hdrs, self.deny_purge) = (true, false);
        }
        Ok(())
    }

    fn set_subjects(&mut self) -> Result<(), ApiError> {
        if self.subjects.is_empty() && self.mirror.is_none() && self.sources.is_empty() {
            self.subjects.push(self.name.clone());
        }
        let mut all = FilterSet::new(&self.subjects);
        for (at, filter) in self.subjects.iter().enumerate() {
            let bytes = filter.as_bytes();
            refuse_if(!subject::is_valid(bytes), "invalid subject")?;
            if filter == ">" {
                refuse_if(!self.no_ack, "capturing all subjects requires no-ack to be true")?;
                refuse_if(self.num_replicas != 1, "capturing all subjects requires replicas of 1")?;
            }
            if !self.no_ack {
                let api = [&b"$JS.>"[..], b"$JSC.>", b"$NRG.>"];
                refuse_if(
                    api.iter().any(|reserved| subject::overlaps(bytes, reserved))
                        && !subject::matches(b"$JS.EVENT.>", bytes),
                    "subjects that overlap with jetstream api require no-ack to be true",
                )?;
                refuse_if(
                    subject::overlaps(bytes, b"$SYS.>") && !subject::matches(b"$SYS.ACCOUNT.>", bytes),
                    "subjects that overlap with system api require no-ack to be true",
                )?;
                // Ours: whoever submits a task would get the PubAck for the answer.
                refuse_if(
                    subject::overlaps(bytes, b"$TASK.API.>"),
                    "subjects that overlap with the task api require no-ack to be true",
                )?;
            }
            // Itself, and those behind it: what comes before overlaps with none.
            if all.overlapping(bytes, 2).map_err(invalid)? > 1 {
                let mut others = self.subjects[at + 1..].iter();
                let other = others.find(|other| subject::overlaps(other.as_bytes(), bytes)).unwrap_or(filter);
                return Err(invalid(format_args!("subject {filter:?} overlaps with {other:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> StreamConfig {
        serde_json::from_str(json).unwrap()
    }

    fn check(json: &str, expected: &str) {
        let error = parse(json).check_create(false).expect_err(json);
        assert_eq!(error.description, expected, "{json}");
    }

    #[test]
    fn defaults() {
        let config = parse(r#"{"name":"S"}"#).check_create(true).unwrap();
        let expected = parse(
            r#"{"name":"S","subjects":["S"],"max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_msgs_per_subject":-1,
            "max_msg_size":-1,"num_replicas":1,"duplicate_window":120000000000}"#,
        );
        assert_eq!(config, expected);
        let aged = parse(r#"{"name":"S","max_age":1000000000,"max_msgs":-7}"#).check_create(false).unwrap();
        assert_eq!((aged.duplicate_window, aged.max_msgs), (Nanos::from_secs(1), -1));
    }

    #[test]
    fn refusals() {
        for (json, expected) in [
            (r#"{}"#, r"stream name is required and can not contain '.', '*', '>', '\', '/'"),
            (r#"{"name":"a.b"}"#, r"stream name is required and can not contain '.', '*', '>', '\', '/'"),
            (r#"{"name":"S","sealed":true}"#, "stream configuration for create can not be sealed"),
            (r#"{"name":"S","mirror_direct":true}"#, "stream has no mirror but does have mirror direct"),
            (r#"{"name":"S","num_replicas":7}"#, "maximum replicas is 5"),
            (r#"{"name":"S","num_replicas":-1}"#, "replicas count cannot be negative"),
            (r#"{"name":"S","num_replicas":3}"#, "replicas > 1 not supported in non-clustered mode"),
            (r#"{"name":"S","max_age":-1}"#, "max age can not be negative"),
            (r#"{"name":"S","max_age":1000}"#, "max age needs to be >= 100ms"),
            (r#"{"name":"S","duplicate_window":-1}"#, "duplicates window can not be negative"),
            (r#"{"name":"S","duplicate_window":1000}"#, "duplicates window needs to be >= 100ms"),
            (
                r#"{"name":"S","max_age":1000000000,"duplicate_window":2000000000}"#,
                "duplicates window can not be larger then max age",
            ),
            (r#"{"name":"S","deny_purge":true,"allow_rollup_hdrs":true}"#, "roll-ups require the purge permission"),
            (
                r#"{"name":"S","discard_new_per_subject":true}"#,
                "discard new per subject requires discard new policy to be set",
            ),
            (
                r#"{"name":"S","discard":"new","discard_new_per_subject":true}"#,
                "discard new per subject requires max msgs per subject > 0",
            ),
            (r#"{"name":"S","subjects":["a..b"]}"#, "invalid subject"),
            (r#"{"name":"S","subjects":["a","a"]}"#, r#"subject "a" overlaps with "a""#),
            (r#"{"name":"S","subjects":["a.*","a.b"]}"#, r#"subject "a.*" overlaps with "a.b""#),
            (r#"{"name":"S","subjects":[">"]}"#, "capturing all subjects requires no-ack to be true"),
            (
                r#"{"name":"S","subjects":["$JS.API.X"]}"#,
                "subjects that overlap with jetstream api require no-ack to be true",
            ),
            (
                r#"{"name":"S","subjects":["$SYS.>"]}"#,
                "subjects that overlap with system api require no-ack to be true",
            ),
            (
                r#"{"name":"S","subjects":["$TASK.*.SUBMIT"]}"#,
                "subjects that overlap with the task api require no-ack to be true",
            ),
            (r#"{"name":"S","sources":[{"name":"O"},{"name":"O"}]}"#, "duplicate source configuration detected"),
            (r#"{"name":"S","sources":[{"name":"O.x"}]}"#, "sourced stream name is invalid"),
            (
                r#"{"name":"S","mirror":{"name":"O","subject_transforms":[{"src":"a","dest":"b"},{"src":"*","dest":"c.$1"}]}}"#,
                "mirror subject filters can not overlap",
            ),
            (
                r#"{"name":"S","mirror":{"name":"O"},"subject_delete_marker_ttl":1000000000}"#,
                "subject delete markers forbidden on mirrors",
            ),
            (r#"{"name":"S","mirror":{"name":"O"},"subjects":["a"]}"#, "stream mirrors can not contain subjects"),
        ] {
            check(json, expected);
        }
        assert!(parse(r#"{"name":"S","subjects":["$JS.EVENT.>","a"]}"#).check_create(true).is_ok());
        assert!(parse(r#"{"name":"S","subjects":["$TASK.P.*","$TASK.E.>"]}"#).check_create(true).is_ok());
        assert!(parse(r#"{"name":"S","subjects":["$TASK.API.>"],"no_ack":true}"#).check_create(true).is_ok());
        assert!(parse(r#"{"name":"S","subjects":[">"],"no_ack":true}"#).check_create(true).is_ok());
    }

    #[test]
    fn pedantic_refuses_what_is_otherwise_put_right() {
        for (json, expected) in [
            (r#"{"name":"S","max_msgs":-2}"#, "pedantic mode: max_msgs must be set to -1"),
            (r#"{"name":"S","max_age":1000000000}"#, "pedantic mode: duplicate window cannot be bigger than max age"),
        ] {
            assert_eq!(parse(json).check_create(true).unwrap_err().description, expected, "{json}");
            assert!(parse(json).check_create(false).is_ok(), "{json}");
        }
    }

    #[test]
    fn updates() {
        let old = parse(r#"{"name":"S","subjects":["a"],"deny_delete":true}"#).check_create(true).unwrap();
        for (json, expected) in [
            (r#"{"name":"T","deny_delete":true}"#, "stream configuration name must match original"),
            (r#"{"name":"S","deny_delete":false}"#, "stream configuration update can not cancel deny message deletes"),
            (
                r#"{"name":"S","deny_delete":true,"storage":"memory"}"#,
                "stream configuration update can not change storage type",
            ),
            (
                r#"{"name":"S","deny_delete":true,"retention":"workqueue"}"#,
                "stream configuration update can not change retention policy to/from workqueue",
            ),
        ] {
            assert_eq!(parse(json).check_update(&old, false).unwrap_err().description, expected, "{json}");
        }
        let sealed = parse(r#"{"name":"S","deny_delete":true,"sealed":true,"max_age":1000000000}"#);
        let sealed = sealed.check_update(&old, false).unwrap();
        assert!(sealed.max_age.is_zero() && sealed.discard == Discard::New && sealed.deny_purge);
        let unsealed = parse(r#"{"name":"S","deny_delete":true,"deny_purge":true}"#);
        assert_eq!(
            unsealed.check_update(&sealed, false).unwrap_err().description,
            "stream configuration update can not unseal a sealed stream"
        );
    }
}
