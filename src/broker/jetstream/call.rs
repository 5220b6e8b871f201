//! API requests that a stream's own task answers. Responses leave once everything submitted before them is durable, so
//! nobody is told of a state that a power cut could take back.

use std::collections::BTreeMap;

use super::commit::Release;
use super::context::API_LEVEL;
use super::direct_get::Look;
use super::sourcing_consumer;
use super::stream_task::{Report, StreamTask};
use crate::api::{
    self, Action, Advisory, Cluster, ConsumerForm, ConsumerList, Endpoint, Found, Kind, MsgGet, Names, Page,
    PagedStreamInfo, StoredMsg, StreamInfo, Success,
};
use crate::broker::Inbound;
use crate::consumer::{Closing, ConsumerInfo};
use crate::stream::Filter;
use crate::types::{ApiError, Timestamp};

/// A request on its way to the stream it names.
pub(super) struct Call {
    pub(super) request: Inbound,
    /// How often it was put off because what it asks for was not durable yet.
    pub(super) tries: u8,
}

/// How often a read waits for the next commit before it gives up: the subject it asks for changes with every one.
pub(super) const TRIES_MAX: u8 = 16;

/// A response body, or why there is none.
pub(super) type Answered = Result<Vec<u8>, ApiError>;

/// The response type a request's subject asks for.
pub(super) fn kind_of(request: &Inbound) -> Kind {
    match Endpoint::parse(request.message.subject()) {
        Some(endpoint) => kind(&endpoint),
        None => Kind::AccountInfo,
    }
}

pub(super) fn kind(endpoint: &Endpoint<'_>) -> Kind {
    match endpoint {
        Endpoint::AccountInfo | Endpoint::MsgNext(..) | Endpoint::DirectGet(_) | Endpoint::DirectGetLast(..) => {
            Kind::AccountInfo
        }
        Endpoint::StreamCreate(_) => Kind::StreamCreate,
        Endpoint::StreamUpdate(_) => Kind::StreamUpdate,
        Endpoint::StreamNames => Kind::StreamNames,
        Endpoint::StreamList => Kind::StreamList,
        Endpoint::StreamInfo(_) => Kind::StreamInfo,
        Endpoint::StreamDelete(_) => Kind::StreamDelete,
        Endpoint::StreamPurge(_) => Kind::StreamPurge,
        Endpoint::StreamSnapshot(_) => Kind::StreamSnapshot,
        Endpoint::StreamRestore(_) => Kind::StreamRestore,
        Endpoint::MsgGet(_) => Kind::MsgGet,
        Endpoint::MsgDelete(_) => Kind::MsgDelete,
        Endpoint::StreamLeaderStepDown(_) => Kind::StreamLeaderStepDown,
        Endpoint::StreamPeerRemove(_) => Kind::StreamPeerRemove,
        Endpoint::StreamPeerEvacuate(_) => Kind::StreamPeerEvacuate,
        Endpoint::StreamCancelMove(_) => Kind::StreamCancelMove,
        Endpoint::ConsumerCreate { .. } => Kind::ConsumerCreate,
        Endpoint::ConsumerNames(_) => Kind::ConsumerNames,
        Endpoint::ConsumerList(_) => Kind::ConsumerList,
        Endpoint::ConsumerInfo(..) => Kind::ConsumerInfo,
        Endpoint::ConsumerDelete(..) => Kind::ConsumerDelete,
        Endpoint::ConsumerPause(..) => Kind::ConsumerPause,
        Endpoint::ConsumerUnpin(..) => Kind::ConsumerUnpin,
        Endpoint::ConsumerReset(..) => Kind::ConsumerReset,
        Endpoint::ConsumerLeaderStepDown(..) => Kind::ConsumerLeaderStepDown,
    }
}

impl StreamTask {
    /// Answers a request that names this stream.
    pub(super) fn call(&mut self, call: Call, now: Timestamp) {
        let Call { request, tries } = call;
        let subject = request.message.subject().to_vec();
        let Some(endpoint) = Endpoint::parse(&subject) else { return };
        let body = request.message.payload_bytes();
        let mut headers = Vec::new();
        let answered = match endpoint {
            Endpoint::StreamInfo(_) => self.stream_info(&body, now),
            Endpoint::StreamPurge(_) => self.purge(&body),
            Endpoint::MsgGet(_) => match self.msg_get(&body) {
                Ok(Look::NotYet) if tries < TRIES_MAX => {
                    self.turn.releases.push(Release::Again(Call { request, tries: tries + 1 }));
                    return;
                }
                Ok(Look::Found(stored)) => {
                    let with_headers =
                        !api::decode::<MsgGet>(&body, self.context.options.strictness).is_ok_and(|get| get.no_hdr);
                    let body = api::response(Kind::MsgGet, Found { message: StoredMsg::new(&stored, with_headers) });
                    let stored_subject = stored.message.subject().to_vec();
                    self.context.api.end();
                    self.turn.releases.push(Release::Found { request, stored_subject, body });
                    return;
                }
                Ok(_) => Err(ApiError::NO_MESSAGE_FOUND),
                Err(error) => Err(error),
            },
            Endpoint::MsgDelete(_) => self.msg_delete(&body),
            Endpoint::ConsumerCreate { form, .. } => self.create_consumer(form, &request, &mut headers, now),
            Endpoint::ConsumerNames(_) => self.consumer_names(&body),
            Endpoint::ConsumerList(_) => self.consumer_list(&body, now),
            Endpoint::ConsumerInfo(_, name) => self.consumer_info(name, &body, now),
            Endpoint::ConsumerDelete(_, name) => self.delete_consumer(name, &body, now),
            Endpoint::ConsumerPause(_, name) => self.pause_consumer(name, &body, now),
            Endpoint::ConsumerUnpin(_, name) => self.unpin_consumer(name, &body),
            Endpoint::ConsumerReset(_, name) => match self.reset_consumer(name, &body, now) {
                Some(answered) => {
                    if sourcing_consumer::expected_identity(&request).is_some() {
                        headers = sourcing_consumer::identity_headers(self.shared.created);
                    }
                    answered
                }
                None => {
                    self.context.api.end();
                    return self.context.nobody_there(&mut self.courier, &request);
                }
            },
            _ => Err(ApiError::BAD_REQUEST),
        };
        self.context.api.end();
        let failed = answered.is_err();
        let body = answered.unwrap_or_else(|error| api::error_response(kind(&endpoint), &error));
        self.turn.releases.push(Release::Respond { request, headers, body, failed });
    }

    fn stream_info(&mut self, body: &[u8], now: Timestamp) -> Answered {
        let query = api::read::stream_info(body, self.context.options.strictness)?;
        let mut info = self.info(now);
        info.cluster = Some(Cluster { leader: self.context.server_name.clone() });
        let index = self.contents.stream.index();
        if query.deleted_details {
            let deleted = index.deleted();
            info.state.deleted = (!deleted.is_empty()).then_some(deleted);
        }
        let mut page = Page::default();
        if !query.subjects_filter.is_empty() {
            let filter = Filter::new([&query.subjects_filter]);
            let mut subjects: Vec<(String, u64)> = index
                .subjects(&filter)
                .map(|(subject, count)| (String::from_utf8_lossy(subject).into_owned(), count))
                .collect();
            if !subjects.is_empty() {
                subjects.sort_unstable();
                // Unlike other lists', this page may begin behind the end, and is then left out.
                let offset = usize::try_from(query.offset).unwrap_or(0);
                page = Page { total: subjects.len(), offset, limit: api::SUBJECT_DETAILS_LIMIT };
                let shown: BTreeMap<String, u64> = subjects.into_iter().skip(offset).take(page.limit).collect();
                info.state.subjects = (!shown.is_empty()).then_some(shown);
            }
        }
        Ok(api::response(Kind::StreamInfo, PagedStreamInfo { page, info }))
    }

    /// The stream as responses describe it, with what the server adds to the metadata.
    pub(super) fn info(&self, now: Timestamp) -> StreamInfo {
        let stream = &self.contents.stream;
        let mut config = (**stream.config()).clone();
        api::metadata::set_dynamic(&mut config.metadata, &self.context.server_version, API_LEVEL);
        let mut state = stream.state();
        state.consumer_count = self.consumers.public_count() as u64;
        let domain = self.context.options.domain.clone();
        let (mirror, sources) = self.shared.sourcing.infos(stream.positions(), now);
        StreamInfo {
            config,
            created: stream.created(),
            state,
            domain,
            cluster: None,
            mirror,
            sources,
            ts: now,
            did_create: false,
        }
    }

    /// For lists and monitoring.
    pub(super) fn report(&mut self, with_consumers: bool, now: Timestamp) -> Report {
        let consumers = if with_consumers { self.consumer_infos(&self.consumers.names(), now) } else { Vec::new() };
        Report { info: self.info(now), consumers }
    }

    fn purge(&mut self, body: &[u8]) -> Answered {
        let purge = api::read::purge(body, self.context.options.strictness)?;
        let filter = (!purge.filter.is_empty()).then_some(purge.filter.as_bytes());
        let before = self.turn.changes.removes.len();
        let purged = self.contents.stream.handle_purge(filter, purge.seq, purge.keep, &mut self.turn.changes)?;
        self.tell_removed(before);
        Ok(api::response(Kind::StreamPurge, Success::purged(purged)))
    }

    fn msg_delete(&mut self, body: &[u8]) -> Answered {
        let request = api::read::msg_delete(body, self.context.options.strictness)?;
        let before = self.turn.changes.removes.len();
        self.contents.stream.handle_delete(request.seq, &mut self.turn.changes)?;
        self.tell_removed(before);
        Ok(api::response(Kind::MsgDelete, Success::DONE))
    }

    fn msg_get(&mut self, body: &[u8]) -> Result<Look, ApiError> {
        let request = api::read::msg_get(body, self.context.options.strictness)?;
        let index = self.contents.stream.index();
        let from = request.start_time.map_or(request.seq, |time| index.seq_at_time(time));
        let seq = if !request.next_by_subj.is_empty() {
            index.next(from.max(1), &mut Filter::new([&request.next_by_subj]))
        } else if from > 0 {
            index.exists(from).then_some(from)
        } else {
            self.last_of(&request.last_by_subj)
        };
        Ok(match self.look(seq) {
            Look::Found(found) => Look::Found(found),
            Look::NotYet => Look::NotYet,
            Look::Missing => return Err(ApiError::NO_MESSAGE_FOUND),
        })
    }

    fn consumer_names(&mut self, body: &[u8]) -> Answered {
        let names = self.consumers.public_names();
        let page = Page::new(names.len(), api::read::offset(body, self.context.options.strictness)?, api::NAMES_LIMIT);
        let names = names[page.range()].iter().map(|name| name.to_string()).collect();
        Ok(api::response(Kind::ConsumerNames, Names::consumers(page, names)))
    }

    fn consumer_list(&mut self, body: &[u8], now: Timestamp) -> Answered {
        let names = self.consumers.public_names();
        let page = Page::new(names.len(), api::read::offset(body, self.context.options.strictness)?, api::LIST_LIMIT);
        let mut consumers = self.consumer_infos(&names[page.range()], now);
        for info in &mut consumers {
            api::metadata::remove_dynamic(&mut std::sync::Arc::make_mut(&mut info.config).metadata);
        }
        Ok(api::response(Kind::ConsumerList, ConsumerList { page, consumers }))
    }

    fn consumer_infos(&mut self, names: &[std::sync::Arc<str>], now: Timestamp) -> Vec<ConsumerInfo> {
        names.iter().filter_map(|name| self.describe_consumer(name, now)).collect()
    }

    fn consumer_info(&mut self, name: &str, body: &[u8], now: Timestamp) -> Answered {
        api::read::no_body(body)?;
        let info = self.describe_consumer(name, now).ok_or(ApiError::CONSUMER_NOT_FOUND)?;
        Ok(api::response(Kind::ConsumerInfo, info))
    }

    fn delete_consumer(&mut self, name: &str, body: &[u8], now: Timestamp) -> Answered {
        api::read::no_body(body)?;
        if !self.end_consumer(name.as_bytes(), Closing::Deleted, now) {
            return Err(ApiError::CONSUMER_NOT_FOUND);
        }
        Ok(api::response(Kind::ConsumerDelete, Success::DONE))
    }

    /// Tells that a consumer came, changed or went.
    pub(super) fn consumer_action(&mut self, consumer: &str, action: Action, now: Timestamp) {
        let advisory = Advisory::Consumer { stream: &self.shared.name, consumer, action };
        self.context.advise(&mut self.courier, &advisory, now);
    }

    fn create_consumer(
        &mut self,
        form: ConsumerForm<'_>,
        request: &Inbound,
        headers: &mut Vec<u8>,
        now: Timestamp,
    ) -> Answered {
        let info = self.put_consumer(form, request, now)?;
        if info.config.direct || info.config.sourcing {
            *headers = sourcing_consumer::identity_headers(self.shared.created);
        }
        Ok(api::response(Kind::ConsumerCreate, info))
    }
}
