//! Checks of what a stream takes from other streams, of its subject transform and of its republishing: nats-server's rules
//! in its words (`server/stream.go`, `checkStreamCfg`).
//!
//! What can be said of a configuration alone is part of its [`check`](StreamConfig::check_create);
//! [`StreamConfig::check_origins`] looks at the other streams.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::StreamConfig;
use super::config::{Republish, StreamSource, SubjectTransform};
use super::config_check::{invalid, is_valid_asset_name, refuse_if};
use crate::types::transform::TransformError;
use crate::types::{ApiError, FilterSet, TooMany, Transform, subject};

const API_PREFIX: &str = "$JS.API";

/// The errors that differ between mirrors and sources.
struct Words {
    filter: ApiError,
    destination: ApiError,
    consumer: ApiError,
}

impl StreamConfig {
    pub(super) fn check_mirror(&self) -> Result<(), ApiError> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        for (conflict, error) in [
            (self.first_seq > 0, ApiError::MIRROR_WITH_FIRST_SEQ),
            (!self.subjects.is_empty(), ApiError::MIRROR_WITH_SUBJECTS),
            (!self.sources.is_empty(), ApiError::MIRROR_WITH_SOURCES),
            (self.allow_msg_counter, ApiError::MIRROR_WITH_COUNTERS),
            (self.allow_atomic, ApiError::MIRROR_WITH_ATOMIC_PUBLISH),
            (self.allow_batched, ApiError::MIRROR_WITH_BATCH_PUBLISH),
            (self.allow_msg_schedules, ApiError::MIRROR_WITH_MSG_SCHEDULES),
        ] {
            if conflict {
                return Err(error);
            }
        }
        let words = Words {
            filter: ApiError::MIRROR_INVALID_SUBJECT_FILTER,
            destination: ApiError::MIRROR_INVALID_TRANSFORM_DESTINATION,
            consumer: ApiError::MIRROR_DURABLE_CONSUMER_CFG_INVALID,
        };
        check_consumer(mirror, &words)?;
        if !mirror.filter_subject.is_empty() && !mirror.subject_transforms.is_empty() {
            return Err(ApiError::MIRROR_MULTIPLE_FILTERS_NOT_ALLOWED);
        }
        refuse_if(self.subject_delete_marker_ttl.0 > 0, "subject delete markers forbidden on mirrors")?;
        check_transforms(&mirror.subject_transforms, &words)?;
        let mut filters = sources_of(&mirror.subject_transforms);
        if any(&mirror.subject_transforms, |transform| filters.overlapping(transform.source.as_bytes(), 2))? {
            return Err(ApiError::MIRROR_OVERLAPPING_SUBJECT_FILTERS);
        }
        if mirror.external.is_none() && !is_valid_asset_name(&mirror.name) {
            return Err(ApiError::MIRROR_INVALID_STREAM_NAME);
        }
        Ok(())
    }

    pub(super) fn check_sources(&self) -> Result<(), ApiError> {
        if !self.sources.is_empty() && self.allow_msg_schedules {
            return Err(ApiError::SOURCE_WITH_MSG_SCHEDULES);
        }
        let words = Words {
            filter: ApiError::SOURCE_INVALID_SUBJECT_FILTER,
            destination: ApiError::SOURCE_INVALID_TRANSFORM_DESTINATION,
            consumer: ApiError::SOURCE_DURABLE_CONSUMER_CFG_INVALID,
        };
        let mut names = BTreeSet::new();
        let mut consumers = BTreeSet::new();
        for source in &self.sources {
            if !is_valid_asset_name(&source.name) {
                return Err(ApiError::SOURCE_INVALID_STREAM_NAME);
            }
            if !names.insert(source.index_name()) {
                return Err(ApiError::SOURCE_DUPLICATE_DETECTED);
            }
            if !source.filter_subject.is_empty() && !source.subject_transforms.is_empty() {
                return Err(ApiError::SOURCE_MULTIPLE_FILTERS_NOT_ALLOWED);
            }
            check_transforms(&source.subject_transforms, &words)?;
            let mut filters = sources_of(&source.subject_transforms);
            if any(&source.subject_transforms, |transform| filters.covering(transform.source.as_bytes(), 2))? {
                return Err(ApiError::SOURCE_OVERLAPPING_SUBJECT_FILTERS);
            }
            check_consumer(source, &words)?;
            if let Some(consumer) = &source.consumer
                && !consumers.insert((source.origin_name(), consumer.name.clone()))
            {
                return Err(ApiError::SOURCE_DURABLE_CONSUMER_DUPLICATE_DETECTED);
            }
        }
        Ok(())
    }

    /// Looks at the filters of mirrors and sources, which nats-server does when a stream is created, not when updated.
    pub(super) fn check_filters(&self) -> Result<(), ApiError> {
        for (origin, of) in self
            .mirror
            .iter()
            .map(|mirror| (mirror, "mirror"))
            .chain(self.sources.iter().map(|source| (source, "source:")))
        {
            let filter = &origin.filter_subject;
            if !filter.is_empty() && !subject::is_valid(filter.as_bytes()) {
                return Err(ApiError::STREAM_CREATE
                    .with(format_args!("subject filter '{filter}' for the {of} {}", TransformError::BadSubject)));
            }
        }
        Ok(())
    }

    pub(super) fn check_subject_transform(&self) -> Result<(), ApiError> {
        let Some(transform) = &self.subject_transform else { return Ok(()) };
        let words = Words {
            filter: ApiError::STREAM_TRANSFORM_INVALID_SOURCE,
            destination: ApiError::STREAM_TRANSFORM_INVALID_DESTINATION,
            consumer: ApiError::BAD_REQUEST,
        };
        check_transforms(std::slice::from_ref(transform), &words)
    }

    /// A republish destination that the stream itself would store is refused.
    pub(super) fn set_republish(&mut self, pedantic: bool) -> Result<(), ApiError> {
        let Some(republish) = &mut self.republish else { return Ok(()) };
        if republish.source.is_empty() {
            if pedantic {
                return Err(ApiError::PEDANTIC.with("republish source can not be empty"));
            }
            republish.source = ">".to_owned();
        }
        // All to all means the transformed subjects, when all the stream's subjects are transformed.
        if let (">", ">", Some(transform), [only]) =
            (&*republish.destination, &*republish.source, &self.subject_transform, &self.subjects[..])
            && transform.source == *only
        {
            if pedantic {
                return Err(ApiError::PEDANTIC.with("implicit republish based on subject transform"));
            }
            republish.source.clone_from(&transform.destination);
            republish.destination.clone_from(&transform.destination);
        }
        let Republish { source, destination, .. } = republish;
        let cycle = self.subjects.iter().any(|taken| subject::overlaps(destination.as_bytes(), taken.as_bytes()));
        refuse_if(cycle, "stream configuration for republish destination forms a cycle")?;
        if Transform::new(source, destination).is_err() {
            return Err(invalid(format_args!(
                "stream configuration for republish with transform from '{source}' to '{destination}' not valid"
            )));
        }
        Ok(())
    }

    /// Looks at the streams a checked configuration takes from, as far as `find` knows them; they need not exist. A
    /// mirror's `mirror_direct` follows its origin's `allow_direct`.
    ///
    /// # Errors
    /// When the origin's messages may be too large, prefixes overlap, or streams would take from each other in a circle.
    pub fn check_origins(
        mut self,
        find: &dyn Fn(&str) -> Option<Arc<StreamConfig>>,
        pedantic: bool,
    ) -> Result<StreamConfig, ApiError> {
        let too_small = |origin: &StreamConfig| {
            self.max_msg_size > 0 && origin.max_msg_size > 0 && self.max_msg_size < origin.max_msg_size
        };
        let mut taken = Vec::new();
        let mut mirror_direct = self.mirror_direct;
        if let Some(origin) =
            self.mirror.as_ref().filter(|mirror| mirror.external.is_none()).and_then(|m| find(&m.name))
        {
            if too_small(&origin) {
                return Err(ApiError::MIRROR_MAX_MESSAGE_SIZE_TOO_BIG);
            }
            if pedantic && mirror_direct != origin.allow_direct {
                return Err(ApiError::PEDANTIC.with("origin stream has direct get set, mirror has it disabled"));
            }
            mirror_direct = origin.allow_direct;
            taken.extend(origin.subjects.iter().cloned());
        }
        for source in self.sources.iter().filter(|source| source.external.is_none()) {
            if let Some(origin) = find(&source.name) {
                if too_small(&origin) {
                    return Err(ApiError::SOURCE_MAX_MESSAGE_SIZE_TOO_BIG);
                }
                taken.extend(origin.subjects.iter().cloned());
            }
        }
        self.check_prefixes(&taken)?;
        self.check_cycles(find)?;
        self.mirror_direct = mirror_direct;
        Ok(self)
    }

    fn check_prefixes(&self, taken: &[String]) -> Result<(), ApiError> {
        let externals = || self.mirror.iter().chain(&self.sources).filter_map(|source| source.external.as_ref());
        for prefix in externals().map(|external| &external.deliver_prefix).filter(|prefix| !prefix.is_empty()) {
            if !subject::is_valid_literal(prefix.as_bytes()) {
                return Err(ApiError::STREAM_INVALID_EXTERNAL_DELIVERY_SUBJ.with(prefix));
            }
            let overlaps =
                |taken: &&String| subject::overlaps(taken.as_bytes(), format!("{prefix}.{taken}").as_bytes());
            if let Some(taken) = taken.iter().find(overlaps) {
                return Err(ApiError::STREAM_EXTERNAL_DEL_PREFIX_OVERLAPS.with(prefix).with(taken));
            }
        }
        for prefix in externals().map(|external| &external.api_prefix).filter(|prefix| !prefix.is_empty()) {
            if !subject::is_valid_literal(prefix.as_bytes()) {
                return Err(invalid(format_args!(
                    "stream external api prefix {prefix:?} must be a valid subject without wildcards"
                )));
            }
            if prefix == API_PREFIX {
                return Err(ApiError::STREAM_EXTERNAL_API_OVERLAP.with(prefix).with(API_PREFIX));
            }
        }
        Ok(())
    }

    /// A circle of sources counts when a stream in it has subjects that its source's filter takes; one through a mirror
    /// always does.
    fn check_cycles(&self, find: &dyn Fn(&str) -> Option<Arc<StreamConfig>>) -> Result<(), ApiError> {
        let mut visited = BTreeSet::new();
        let mut to_visit = VecDeque::from([Arc::new(self.clone())]);
        while let Some(config) = to_visit.pop_front() {
            if !visited.insert(config.name.clone()) {
                continue;
            }
            for source in config.sources.iter().filter(|source| source.external.is_none()) {
                if visited.contains(&source.name) {
                    let filter = source.filter_subject.as_bytes();
                    let feeds = filter.is_empty()
                        || config.subjects.iter().any(|taken| subject::overlaps(taken.as_bytes(), filter));
                    refuse_if(feeds, "detected cycle")?;
                } else {
                    to_visit.extend(find(&source.name));
                }
            }
            if let Some(mirror) = config.mirror.as_ref().filter(|mirror| mirror.external.is_none()) {
                refuse_if(visited.contains(&mirror.name), "detected cycle")?;
                to_visit.extend(find(&mirror.name));
            }
        }
        Ok(())
    }
}

fn sources_of(transforms: &[SubjectTransform]) -> FilterSet<'_> {
    FilterSet::new(transforms.iter().map(|transform| &transform.source))
}

/// Whether one of them collides with more than itself.
fn any(
    transforms: &[SubjectTransform],
    mut collisions: impl FnMut(&SubjectTransform) -> Result<usize, TooMany>,
) -> Result<bool, ApiError> {
    for transform in transforms {
        if collisions(transform).map_err(invalid)? > 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check_transforms(transforms: &[SubjectTransform], words: &Words) -> Result<(), ApiError> {
    for SubjectTransform { source, destination } in transforms {
        if !source.is_empty() && !subject::is_valid(source.as_bytes()) {
            return Err(words.filter.with(format_args!("{} {source}", TransformError::BadSubject)));
        }
        Transform::checked(source, destination).map_err(|error| words.destination.with(error))?;
    }
    Ok(())
}

fn check_consumer(source: &StreamSource, words: &Words) -> Result<(), ApiError> {
    match &source.consumer {
        Some(consumer)
            if !is_valid_asset_name(&consumer.name)
                || !subject::is_valid_literal(consumer.deliver_subject.as_bytes())
                || source.opt_start_seq != 0
                || source.opt_start_time.is_some()
                || !source.filter_subject.is_empty() =>
        {
            Err(words.consumer.clone())
        }
        _ => Ok(()),
    }
}
