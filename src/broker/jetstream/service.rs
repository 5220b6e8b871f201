//! The dispatch of `$JS.API.>`: answers at once what needs no waiting, and hands the rest to the task that can answer.
//!
//! Pulls, direct gets and acks do not come through here: streams have doors of their own for them.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::call::{self, Call};
use super::inbox::Command;
use super::registry::Registry;
use crate::api::{self, Endpoint, Kind, Names, Page, StreamFilter, StreamList, Strictness};
use crate::broker::{Inbound, Service};
use crate::types::{ApiError, Headers};

/// What the service listens on.
pub(super) const FILTERS: &[&str] = &[
    "$JS.API.INFO",
    "$JS.API.STREAM.>",
    "$JS.API.CONSUMER.CREATE.>",
    "$JS.API.CONSUMER.DURABLE.>",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.INFO.>",
    "$JS.API.CONSUMER.DELETE.>",
    "$JS.API.CONSUMER.PAUSE.>",
    "$JS.API.CONSUMER.UNPIN.>",
    "$JS.API.CONSUMER.RESET.>",
    "$JS.API.CONSUMER.LEADER.>",
];

/// See the module.
pub(super) struct ApiService {
    pub(super) registry: Arc<Registry>,
    /// Requests that add, change or remove streams.
    pub(super) changes: mpsc::Sender<Inbound>,
}

impl Service for ApiService {
    fn call(&self, request: Inbound) {
        let subject = request.message.subject().to_vec();
        let Some(endpoint) = Endpoint::parse(&subject) else {
            return self.refuse(&request, Kind::AccountInfo, &ApiError::BAD_REQUEST);
        };
        let kind = call::kind(&endpoint);
        if required_level_missing(&request) {
            return self.refuse(&request, kind, &ApiError::REQUIRED_API_LEVEL);
        }
        if !self.registry.context.api.begin() {
            return self.refuse(&request, kind, &ApiError::INSUFFICIENT_RESOURCES);
        }
        match endpoint {
            Endpoint::AccountInfo => {
                let body = api::response(kind, self.registry.account_info());
                self.answer(&request, &body, false);
            }
            Endpoint::StreamNames => {
                let answered = stream_names(&self.registry, &request);
                self.finish(&request, kind, answered);
            }
            Endpoint::StreamList => {
                let registry = self.registry.clone();
                self.registry.tasks.spawn(async move {
                    let answered = stream_list(&registry, &request).await;
                    finish(&registry, &request, kind, answered);
                });
            }
            Endpoint::StreamCreate(_) | Endpoint::StreamUpdate(_) | Endpoint::StreamDelete(_) => {
                if let Err(refused) = self.changes.try_send(request) {
                    let request = refused.into_inner();
                    self.finish(&request, kind, Err(ApiError::INSUFFICIENT_RESOURCES));
                }
            }
            Endpoint::StreamInfo(name)
            | Endpoint::StreamPurge(name)
            | Endpoint::MsgGet(name)
            | Endpoint::MsgDelete(name)
            | Endpoint::ConsumerNames(name)
            | Endpoint::ConsumerList(name)
            | Endpoint::ConsumerInfo(name, _)
            | Endpoint::ConsumerDelete(name, _)
            | Endpoint::ConsumerPause(name, _)
            | Endpoint::ConsumerCreate { stream: name, .. } => match self.registry.find(name) {
                Some(shared) => shared.inbox.push(Command::Call(Box::new(Call { request, tries: 0 }))),
                None => {
                    let error = missing_stream(&endpoint, &request);
                    self.finish(&request, kind, Err(error));
                }
            },
            Endpoint::StreamLeaderStepDown(_)
            | Endpoint::ConsumerLeaderStepDown(..)
            | Endpoint::StreamPeerRemove(_) => {
                self.finish(&request, kind, Err(cluster_required()));
            }
            Endpoint::StreamSnapshot(_)
            | Endpoint::StreamRestore(_)
            | Endpoint::ConsumerUnpin(..)
            | Endpoint::ConsumerReset(..)
            | Endpoint::MsgNext(..)
            | Endpoint::DirectGet(_)
            | Endpoint::DirectGetLast(..) => self.finish(&request, kind, Err(ApiError::BAD_REQUEST)),
        }
    }
}

impl ApiService {
    fn refuse(&self, request: &Inbound, kind: Kind, error: &ApiError) {
        let body = api::error_response(kind, error);
        self.registry.courier.with(|courier| self.registry.context.respond(courier, request, &body, true));
    }

    fn answer(&self, request: &Inbound, body: &[u8], failed: bool) {
        self.registry.context.api.end();
        self.registry.courier.with(|courier| self.registry.context.respond(courier, request, body, failed));
    }

    fn finish(&self, request: &Inbound, kind: Kind, answered: Result<Vec<u8>, ApiError>) {
        finish(&self.registry, request, kind, answered);
    }
}

fn finish(registry: &Registry, request: &Inbound, kind: Kind, answered: Result<Vec<u8>, ApiError>) {
    registry.context.api.end();
    let failed = answered.is_err();
    let body = answered.unwrap_or_else(|error| api::error_response(kind, &error));
    registry.courier.with(|courier| registry.context.respond(courier, request, &body, failed));
}

/// What nats-server finds first to complain about when the stream does not exist.
fn missing_stream(endpoint: &Endpoint<'_>, request: &Inbound) -> ApiError {
    if let Endpoint::ConsumerCreate { stream, .. } = endpoint {
        match api::decode::<api::CreateConsumer>(request.message.payload(), Strictness::Strict) {
            Err(error) => return error,
            Ok(create) if create.stream_name != *stream => return ApiError::STREAM_MISMATCH,
            Ok(_) => {}
        }
    }
    ApiError::STREAM_NOT_FOUND
}

fn cluster_required() -> ApiError {
    ApiError { code: 503, err_code: 10010, description: "JetStream clustering support required".into() }
}

/// Whether the client asks for a newer server (ADR-44).
fn required_level_missing(request: &Inbound) -> bool {
    match Headers::new(request.message.headers()).get_str("Nats-Required-Api-Level") {
        Some(level) => level.parse::<u32>().map_or(true, |level| level > super::context::API_LEVEL),
        None => false,
    }
}

fn stream_filter(request: &Inbound) -> Result<StreamFilter, ApiError> {
    let body = request.message.payload();
    match api::is_object_or_array(body) {
        true => api::decode(body, Strictness::Strict),
        false => Ok(StreamFilter::default()),
    }
}

fn stream_names(registry: &Registry, request: &Inbound) -> Result<Vec<u8>, ApiError> {
    let filter = stream_filter(request)?;
    let streams = registry.list(&filter.subject);
    let page = Page::new(streams.len(), filter.offset, api::NAMES_LIMIT);
    let names = streams[page.range()].iter().map(|shared| shared.name.to_string()).collect();
    Ok(api::response(Kind::StreamNames, Names::streams(page, names)))
}

async fn stream_list(registry: &Registry, request: &Inbound) -> Result<Vec<u8>, ApiError> {
    let filter = stream_filter(request)?;
    let streams = registry.list(&filter.subject);
    let page = Page::new(streams.len(), filter.offset, api::LIST_LIMIT);
    let reports = registry.reports(&streams[page.range()], false).await;
    let streams = reports.into_iter().map(|report| report.info).collect();
    Ok(api::response(Kind::StreamList, StreamList { page, streams }))
}
