//! Consumers that come, change and go (nats-server `jsConsumerCreateRequest`, `addConsumerWithAssignment`).

use std::sync::Arc;

use bytes::Bytes;

use super::call::Answered;
use super::context::{API_LEVEL, Context};
use super::shared::Home;
use super::sourcing_consumer;
use super::stream_task::StreamTask;
use crate::api::{self, Action, ConsumerForm, ConsumerReset, CreateAction, Kind, Paused, Reset, Strictness, Unpin};
use crate::broker::Inbound;
use crate::consumer::config_check::is_valid_asset_name;
use crate::consumer::{Closing, Consumer, ConsumerConfig, ConsumerInfo, Setup, StreamTerms};
use crate::storage::Op;
use crate::stream::StreamConfig;
use crate::stream::config::{Retention, Storage};
use crate::types::{ApiError, GoDuration, Timestamp, id};

/// Characters of a name that the server invents (nats-server `createConsumerName`).
const INVENTED_NAME_LEN: usize = 8;
const NAME_LEN_MAX: usize = 255;

/// What of a stream its consumers are checked against.
pub(super) fn terms<'a>(config: &'a StreamConfig, context: &Context) -> StreamTerms<'a> {
    let limits = context.options.budget.limits;
    StreamTerms {
        server_ack_pending: limits.max_ack_pending,
        server_request_batch: limits.max_request_batch,
        account_ack_pending: context.account_limits().max_ack_pending,
        subjects: &config.subjects,
        replicas: config.num_replicas,
        work_queue: config.retention == Retention::WorkQueue,
        interest: config.retention == Retention::Interest,
        max_ack_pending: config.consumer_limits.max_ack_pending,
        inactive_threshold: GoDuration(config.consumer_limits.inactive_threshold.0),
    }
}

/// What a consumer of a stream is made from.
pub(super) fn setup(
    stream: &StreamConfig,
    name: &Arc<str>,
    config: Arc<ConsumerConfig>,
    created: Timestamp,
    payload_bytes_max: usize,
) -> Setup {
    let message_bytes_max = match stream.max_msg_size {
        size if size > 0 => size as u64,
        _ => payload_bytes_max as u64,
    };
    Setup {
        stream: stream.name.as_str().into(),
        name: name.clone(),
        config,
        created,
        reports_consumed: stream.retention != Retention::Limits,
        message_bytes_max,
    }
}

impl StreamTask {
    /// Creates or changes a consumer as a request asks for.
    pub(super) fn put_consumer(
        &mut self,
        form: ConsumerForm<'_>,
        asked: &Inbound,
        now: Timestamp,
    ) -> Result<ConsumerInfo, ApiError> {
        let request = api::read::create_consumer(
            &self.shared.name,
            form,
            asked.message.payload(),
            self.context.options.strictness,
        )?;
        let mut config = request.config;
        let stream_config = self.contents.stream.config().clone();
        let terms = terms(&stream_config, &self.context);
        sourcing_consumer::settle(&mut config, stream_config.retention);
        if (config.direct || config.sourcing)
            && let Some(expected) = sourcing_consumer::expected_identity(asked).filter(|expected| !expected.is_empty())
        {
            sourcing_consumer::check_identity(expected, self.shared.created)?;
        }
        let existing = match config.wanted_name() {
            "" => None,
            name => self.consumers.find(name.as_bytes()),
        };
        if let Some(place) = existing
            && let Some(slot) = self.consumers.get(place)
        {
            // A pause is not changed by an update.
            let old = slot.consumer.config();
            config.pause_until = old.pause_until;
            if config.sourcing && config.is_durable() {
                // It goes on where it is.
                config.deliver_policy = old.deliver_policy;
                (config.opt_start_seq, config.opt_start_time) = (old.opt_start_seq, old.opt_start_time);
            }
        }
        let level = config.required_api_level();
        api::metadata::set_static(&mut config.metadata, level);
        config.set_defaults(&terms, request.pedantic)?;
        config.check(&terms)?;
        match existing {
            Some(place) if config.sourcing => {
                let info = self.update_consumer(place, config, request.action, now)?;
                self.start_over(place, 0)?;
                Ok(self.describe_consumer(&info.name, now).unwrap_or(info))
            }
            Some(place) => self.update_consumer(place, config, request.action, now),
            None if request.action == CreateAction::Update => Err(ApiError::CONSUMER_DOES_NOT_EXIST),
            None => self.new_consumer(config, &stream_config, &terms, now),
        }
    }

    fn update_consumer(
        &mut self,
        place: usize,
        mut config: ConsumerConfig,
        action: CreateAction,
        now: Timestamp,
    ) -> Result<ConsumerInfo, ApiError> {
        let work_queue = self.contents.stream.config().retention == Retention::WorkQueue;
        let slot = self.consumers.get(place).expect("the consumer was just found");
        let old = slot.consumer.config().clone();
        let name = slot.consumer.name().clone();
        if config.name.is_empty() && !old.name.is_empty() {
            config.name = old.name.clone();
        }
        // Compared as the client sent it: an ephemeral consumer without a threshold is not the same as one with the default.
        if action == CreateAction::Create && config != *old {
            return Err(ApiError::CONSUMER_ALREADY_EXISTS);
        }
        if !old.is_durable() {
            config.give_inactive_default();
        }
        if config != *old {
            if work_queue && !config.sourcing {
                let others = self.filters_of_others(Some(&name));
                let others: Vec<Vec<&str>> = others.iter().map(|list| list.iter().map(|s| &**s).collect()).collect();
                config.check_work_queue_share(&others)?;
            }
            // A source's consumer is that of one stream, which has lost it when it asks again.
            let bound =
                old.is_push() && !config.sourcing && self.context.account.has_interest(old.deliver_subject.as_bytes());
            old.check_update(&config, bound)?;
            let config = Arc::new(config);
            let index = self.contents.stream.index();
            let slot = self.consumers.get(place).expect("the consumer was just found");
            slot.consumer.handle_update(config.clone(), index, self.visible, now);
            let (stored, created) = (slot.stored, slot.consumer.created());
            if old.deliver_subject != config.deliver_subject {
                self.context.push_subjects.remove(&old.deliver_subject, &self.shared.inbox, &name);
                self.context.push_subjects.add(&config.deliver_subject, &self.shared.inbox, &name);
                self.interest(&name, now);
            }
            if stored {
                self.store_config(&name, &config, created);
            }
            if !old.filters().eq(config.filters()) {
                self.consumers.refilter(place);
            }
            self.consumers.touch(place);
            self.interest_lost();
        }
        Ok(self.describe_consumer(&name, now).expect("the consumer was just found"))
    }

    fn new_consumer(
        &mut self,
        mut config: ConsumerConfig,
        stream: &StreamConfig,
        terms: &StreamTerms<'_>,
        now: Timestamp,
    ) -> Result<ConsumerInfo, ApiError> {
        // The account's limit is each stream's (nats-server `addConsumerWithAssignment`).
        let limits = [stream.max_consumers, self.context.account_limits().max_consumers];
        let max = limits.into_iter().filter(|max| *max > 0).min().filter(|_| !config.direct && !config.sourcing);
        if max.is_some_and(|max| self.consumers.limited_count() as i64 >= max) {
            return Err(ApiError::MAXIMUM_CONSUMERS_LIMIT);
        }
        if terms.work_queue {
            let others = self.filters_of_others(None);
            let others: Vec<Vec<&str>> = others.iter().map(|list| list.iter().map(|s| &**s).collect()).collect();
            config.check_work_queue(&others)?;
        }
        let name: Arc<str> =
            if config.wanted_name().is_empty() { self.invent_name() } else { config.wanted_name().into() };
        if name.len() > NAME_LEN_MAX {
            return Err(ApiError::CONSUMER_NAME_TOO_LONG.with(NAME_LEN_MAX));
        }
        if !is_valid_asset_name(&name) {
            return Err(ApiError::CONSUMER_BAD_DURABLE_NAME);
        }
        config.set_inactive_default();
        let config = Arc::new(config);
        let payload_bytes_max = self.context.broker.payload_bytes_max();
        let setup = setup(stream, &name, config.clone(), now, payload_bytes_max);
        let consumer = Consumer::new(setup, self.contents.stream.index(), self.visible, now);
        // Consumers that live in memory, and all of a stream that does, are gone after a restart.
        let stored = stream.storage == Storage::File && !config.memory_storage && !config.direct;
        self.admit(consumer, stored);
        if stored {
            self.store_config(&name, &config, now);
        }
        self.consumer_action(&name, Action::Create, now);
        Ok(self.describe_consumer(&name, now).expect("the consumer was just added"))
    }

    /// Takes in a consumer, new or read back.
    pub(super) fn admit(&mut self, consumer: Consumer, stored: bool) {
        let config = consumer.config().clone();
        let name = consumer.name().clone();
        self.consumers.insert(consumer, stored);
        if config.is_push() {
            self.context.push_subjects.add(&config.deliver_subject, &self.shared.inbox, &name);
            self.interest(&name, Timestamp::now());
        }
    }

    /// Removes a consumer with its rows; false when there is none of this name.
    pub(super) fn end_consumer(&mut self, name: &[u8], closing: Closing, now: Timestamp) -> bool {
        let Some(place) = self.consumers.find(name) else { return false };
        let Some(mut slot) = self.consumers.remove(place) else { return false };
        let last_words = slot.consumer.close(closing);
        self.last_words(last_words);
        let config = slot.consumer.config();
        let name = slot.consumer.name();
        if config.is_push() {
            self.context.push_subjects.remove(&config.deliver_subject, &self.shared.inbox, name);
        }
        if slot.stored
            && let Home::Disk { id, .. } = self.shared.home
        {
            self.turn.ops.push(Op::DropConsumer { stream: id, consumer: name.clone() });
        }
        self.interest_lost();
        self.consumer_action(name, Action::Delete, now);
        true
    }

    /// Whether all consumers keep the limits that a new configuration sets them (nats-server `updateWithAdvisory`).
    ///
    /// # Errors
    /// With the names of those that do not.
    pub(super) fn check_consumers_within(&self, new: &StreamConfig) -> Result<(), ApiError> {
        let (old, new) = (self.contents.stream.config().consumer_limits.clone(), &new.consumer_limits);
        let threshold = new.inactive_threshold.0;
        let (old_pending, pending) = (old.max_ack_pending, new.max_ack_pending);
        let changed =
            (threshold > 0 && threshold != old.inactive_threshold.0) || (pending > 0 && pending != old_pending);
        let exceeds = |config: &ConsumerConfig| {
            (threshold > 0 && config.inactive_threshold.0 > threshold)
                || (pending > 0 && config.max_ack_pending > pending)
        };
        if !changed {
            return Ok(());
        }
        let slots = self.consumers.iter().filter(|slot| exceeds(slot.consumer.config()));
        let names: Vec<&str> = slots.map(|slot| &**slot.consumer.name()).collect();
        match names.is_empty() {
            true => Ok(()),
            false => {
                let text = format!("change to limits violates consumers: {}", names.join(", "));
                Err(ApiError::STREAM_UPDATE.with(text))
            }
        }
    }

    /// Lets go of messages that nobody needs any more, after consumers became fewer or choosier.
    pub(super) fn interest_lost(&mut self) {
        if self.contents.stream.config().retention != Retention::Interest {
            return;
        }
        let before = self.turn.changes.removes.len();
        let (consumers, followers) = (&self.consumers, &self.followers);
        self.contents.stream.handle_interest_lost(
            &|seq, subject| consumers.any_needs(seq, subject) || followers.any_matches(subject),
            &mut self.turn.changes,
        );
        self.tell_removed(before);
    }

    /// Filters of the consumers that a work queue's messages are shared between.
    fn filters_of_others(&self, but: Option<&str>) -> Vec<Vec<String>> {
        self.consumers
            .iter()
            .filter(|slot| but != Some(&**slot.consumer.name()))
            .filter(|slot| !slot.consumer.config().direct && !slot.consumer.config().sourcing)
            .map(|slot| slot.consumer.config().filters().map(str::to_owned).collect())
            .collect()
    }

    fn invent_name(&self) -> Arc<str> {
        loop {
            let name = id::unique();
            let name = &name[name.len() - INVENTED_NAME_LEN..];
            if self.consumers.find(name.as_bytes()).is_none() {
                return name.into();
            }
        }
    }

    fn store_config(&mut self, name: &Arc<str>, config: &ConsumerConfig, created: Timestamp) {
        if let Home::Disk { id, .. } = self.shared.home {
            let config_json = Bytes::from(serde_json::to_vec(config).expect("a configuration is always JSON"));
            self.turn.ops.push(Op::PutConsumer { stream: id, consumer: name.clone(), config_json, created });
        }
    }

    /// A consumer as responses describe it.
    pub(super) fn describe_consumer(&mut self, name: &str, now: Timestamp) -> Option<ConsumerInfo> {
        let place = self.consumers.find(name.as_bytes())?;
        let slot = self.consumers.get(place)?;
        let consumer = &mut slot.consumer;
        let mut info = self.contents.with_view(|view| consumer.info(view, now));
        let mut config = (*info.config).clone();
        api::metadata::set_dynamic(&mut config.metadata, &self.context.server_version, API_LEVEL);
        info.config = Arc::new(config);
        // Letting go of stale requests may have left something to say.
        self.consumers.touch(place);
        Some(info)
    }

    /// Holds a consumer's deliveries until a time, or lets them go on.
    pub(super) fn pause_consumer(&mut self, name: &str, body: &[u8], now: Timestamp) -> Answered {
        let request = api::read::pause(body, self.context.options.strictness)?;
        let place = self.consumers.find(name.as_bytes()).ok_or(ApiError::CONSUMER_NOT_FOUND)?;
        let slot = self.consumers.get(place).ok_or(ApiError::CONSUMER_NOT_FOUND)?;
        let until = request.pause_until;
        let mut config = (**slot.consumer.config()).clone();
        config.pause_until = (!until.is_zero()).then_some(until);
        let level = config.required_api_level();
        api::metadata::set_static(&mut config.metadata, level);
        let config = Arc::new(config);
        slot.consumer.handle_update(config.clone(), self.contents.stream.index(), self.visible, now);
        let (stored, created) = (slot.stored, slot.consumer.created());
        let name = slot.consumer.name().clone();
        if stored {
            self.store_config(&name, &config, created);
        }
        self.consumers.touch(place);
        let remaining = until.since(now);
        let paused =
            Paused { paused: !remaining.is_zero(), pause_until: until, pause_remaining: remaining.as_nanos() as u64 };
        Ok(api::response(Kind::ConsumerPause, paused))
    }
}

impl StreamTask {
    /// Starts a consumer over; `None` when there is none of this name.
    pub(super) fn reset_consumer(&mut self, name: &str, body: &[u8], now: Timestamp) -> Option<Answered> {
        let place = self.consumers.find(name.as_bytes())?;
        Some(self.reset_at(place, name, body, now))
    }

    fn reset_at(&mut self, place: usize, name: &str, body: &[u8], now: Timestamp) -> Answered {
        let request: Reset = match body.is_empty() {
            true => Reset::default(),
            false => api::decode(body, Strictness::Lenient)?,
        };
        let reset_seq = self.start_over(place, request.seq)?;
        self.interest(name, now);
        let info = self.describe_consumer(name, now).ok_or(ApiError::CONSUMER_NOT_FOUND)?;
        self.turn.urgent = true;
        Ok(api::response(Kind::ConsumerReset, ConsumerReset { info, reset_seq }))
    }

    /// Starts a consumer over at a sequence, or at its ack floor for 0; says where that is.
    fn start_over(&mut self, place: usize, seq: u64) -> Result<u64, ApiError> {
        let slot = self.consumers.get(place).ok_or(ApiError::CONSUMER_NOT_FOUND)?;
        let reset_seq = slot
            .consumer
            .handle_reset(seq, self.contents.stream.index(), self.visible)
            .map_err(|reason| ApiError::CONSUMER_INVALID_RESET.with(reason))?;
        self.consumers.touch(place);
        self.interest_lost();
        Ok(reset_seq)
    }

    /// Lets another request of a priority group be pinned.
    pub(super) fn unpin_consumer(&mut self, name: &str, body: &[u8]) -> Answered {
        let request = Unpin::read(body)?;
        let place = self.consumers.find(name.as_bytes()).ok_or(ApiError::CONSUMER_NOT_FOUND)?;
        let slot = self.consumers.get(place).ok_or(ApiError::CONSUMER_NOT_FOUND)?;
        if !slot.consumer.config().priority_groups.contains(&request.group) {
            return Err(ApiError::CONSUMER_INVALID_PRIORITY_GROUP);
        }
        slot.consumer.handle_unpin(&request.group);
        self.consumers.touch(place);
        Ok(api::response(Kind::ConsumerUnpin, Nothing {}))
    }
}

/// An answer that only says it was done.
#[derive(serde::Serialize)]
struct Nothing {}
