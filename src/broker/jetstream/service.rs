//! The dispatch of `$JS.API.>`: answers at once what needs no waiting, and hands the rest to the task that can answer.
//!
//! Pulls, direct gets and acks do not come through here: streams have doors of their own for them.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::call::{self, Call};
use super::context::{Context, REQUESTS_MAX};
use super::inbox::Command;
use super::registry::{Change, Registry};
use super::snapshot;
use crate::api::{self, Endpoint, Kind, Names, Page, StreamFilter, StreamList, StreamListFilter};
use crate::broker::{Courier, Inbound, Service};
use crate::types::{ApiError, Headers};

/// What the service listens on. As on nats-server, requests that nobody knows stay unanswered.
pub(super) const FILTERS: &[&str] = &["$JS.API.>"];

/// The service as the router sees it. It only queues: whoever publishes a request may hold locks that an answer needs.
pub(super) struct ApiService {
    context: Arc<Context>,
    requests: mpsc::Sender<Asked>,
}

/// A request, and whether it is one too many.
struct Asked {
    request: Inbound,
    refused: bool,
}

impl Service for ApiService {
    /// Streams have doors of their own for pulls and direct gets; without one nobody responds.
    fn takes(&self, subject: &[u8]) -> bool {
        !subject.starts_with(b"$JS.API.CONSUMER.MSG.NEXT.") && !subject.starts_with(b"$JS.API.DIRECT.GET")
    }

    fn call(&self, request: Inbound) {
        if Endpoint::parse(request.message.subject()).is_none() {
            return;
        }
        let refused = !self.context.api.begin();
        if refused {
            self.context.api.overflow();
        }
        // Above even this bound a requester hears nothing, as with nats-server.
        if self.requests.try_send(Asked { request, refused }).is_err() && !refused {
            self.context.api.overflow();
            self.context.api.end();
        }
    }
}

/// The service, and the task that works for it; the task ends with the service.
pub(super) fn start(registry: Arc<Registry>, changes: mpsc::Sender<Change>) -> Arc<ApiService> {
    // Requests under way and those to be refused.
    let (requests, mut asked) = mpsc::channel::<Asked>(2 * REQUESTS_MAX);
    let context = registry.context.clone();
    tokio::spawn(async move {
        let mut desk = Desk { courier: registry.context.courier(), registry, changes };
        while let Some(first) = asked.recv().await {
            desk.take(first);
            while let Ok(next) = asked.try_recv() {
                desk.take(next);
            }
            desk.courier.flush();
            desk.registry.context.tell_overflow();
        }
    });
    Arc::new(ApiService { context, requests })
}

/// Answers at once what needs no waiting, and passes on the rest.
struct Desk {
    registry: Arc<Registry>,
    /// Requests that add, change or remove streams.
    changes: mpsc::Sender<Change>,
    courier: Courier,
}

impl Desk {
    fn take(&mut self, asked: Asked) {
        let Asked { request, refused } = asked;
        let subject = request.message.subject().to_vec();
        let endpoint = Endpoint::parse(&subject);
        let kind = endpoint.as_ref().map_or(Kind::AccountInfo, call::kind);
        if refused {
            let body = api::error_response(kind, &ApiError::INSUFFICIENT_RESOURCES);
            return self.registry.context.respond(&mut self.courier, &request, &body, true);
        }
        let Some(endpoint) = endpoint else { return self.finish(&request, kind, Err(ApiError::BAD_REQUEST)) };
        if required_level_missing(&request) {
            return self.finish(&request, kind, Err(ApiError::REQUIRED_API_LEVEL));
        }
        match endpoint {
            Endpoint::AccountInfo => {
                let body = api::response(kind, self.registry.account_info());
                self.finish(&request, kind, Ok(body));
            }
            Endpoint::StreamNames => {
                let answered = stream_names(&self.registry, &request);
                self.finish(&request, kind, answered);
            }
            Endpoint::StreamList => {
                let registry = self.registry.clone();
                self.registry.tasks.spawn(async move {
                    let mut courier = registry.context.courier();
                    let answered = stream_list(&registry, &request).await;
                    finish(&registry, &mut courier, &request, kind, answered);
                    courier.flush();
                });
            }
            Endpoint::StreamCreate(_)
            | Endpoint::StreamUpdate(_)
            | Endpoint::StreamDelete(_)
            | Endpoint::StreamRestore(_) => {
                let change = match endpoint {
                    Endpoint::StreamRestore(_) => Change::Restore(request, self.changes.clone()),
                    _ => Change::Request(request),
                };
                if let Err(refused) = self.changes.try_send(change)
                    && let Change::Request(request) | Change::Restore(request, _) = refused.into_inner()
                {
                    self.registry.context.api.overflow();
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
            | Endpoint::ConsumerUnpin(name, _)
            | Endpoint::ConsumerReset(name, _)
            | Endpoint::ConsumerCreate { stream: name, .. } => match self.registry.find(name) {
                Some(shared) => shared.inbox.push(Command::Call(Box::new(Call { request, tries: 0 }))),
                None if matches!(endpoint, Endpoint::ConsumerReset(..)) => {
                    self.registry.context.api.end();
                    self.registry.context.nobody_there(&mut self.courier, &request);
                }
                None => {
                    let checked = api::read::check_body(
                        &endpoint,
                        request.message.payload(),
                        self.registry.context.options.strictness,
                    );
                    self.finish(&request, kind, checked.and(Err(ApiError::STREAM_NOT_FOUND)));
                }
            },
            Endpoint::StreamLeaderStepDown(_)
            | Endpoint::ConsumerLeaderStepDown(..)
            | Endpoint::StreamPeerRemove(_)
            | Endpoint::StreamPeerEvacuate(_)
            | Endpoint::StreamCancelMove(_) => self.finish(&request, kind, Err(cluster_required())),
            Endpoint::StreamSnapshot(name) => {
                let found = self.registry.find(name);
                let strictness = self.registry.context.options.strictness;
                match (snapshot::read_request(request.message.payload(), found.is_some(), strictness), found) {
                    (Ok(wanted), Some(shared)) => {
                        tokio::spawn(snapshot::serve(self.registry.clone(), shared, request, wanted));
                    }
                    (Err(error), _) => self.finish(&request, kind, Err(error)),
                    (Ok(_), None) => self.finish(&request, kind, Err(ApiError::STREAM_NOT_FOUND)),
                }
            }
            Endpoint::MsgNext(..) | Endpoint::DirectGet(_) | Endpoint::DirectGetLast(..) => {
                self.finish(&request, kind, Err(ApiError::BAD_REQUEST))
            }
        }
    }

    fn finish(&mut self, request: &Inbound, kind: Kind, answered: Result<Vec<u8>, ApiError>) {
        finish(&self.registry, &mut self.courier, request, kind, answered);
    }
}

fn finish(
    registry: &Registry,
    courier: &mut Courier,
    request: &Inbound,
    kind: Kind,
    answered: Result<Vec<u8>, ApiError>,
) {
    registry.context.api.end();
    let failed = answered.is_err();
    let body = answered.unwrap_or_else(|error| api::error_response(kind, &error));
    registry.context.respond(courier, request, &body, failed);
}

fn cluster_required() -> ApiError {
    ApiError { code: 503, err_code: 10010, description: "JetStream clustering support required".into() }
}

/// Whether the client asks for a newer server (ADR-44).
pub(super) fn required_level_missing(request: &Inbound) -> bool {
    match Headers::new(request.message.headers()).get_str("Nats-Required-Api-Level") {
        Some(level) => level.parse::<i64>().map_or(true, |level| level > i64::from(super::context::API_LEVEL)),
        None => false,
    }
}

fn stream_filter(registry: &Registry, request: &Inbound) -> Result<StreamFilter, ApiError> {
    let body = request.message.payload();
    match api::is_object_or_array(body) {
        true => api::decode(body, registry.context.options.strictness),
        false => Ok(StreamFilter::default()),
    }
}

fn stream_names(registry: &Registry, request: &Inbound) -> Result<Vec<u8>, ApiError> {
    let filter = stream_filter(registry, request)?;
    let streams = registry.list(&filter.subject);
    let page = Page::new(streams.len(), filter.offset, api::NAMES_LIMIT);
    let names = streams[page.range()].iter().map(|shared| shared.name.to_string()).collect();
    Ok(api::response(Kind::StreamNames, Names::streams(page, names)))
}

async fn stream_list(registry: &Registry, request: &Inbound) -> Result<Vec<u8>, ApiError> {
    let body = request.message.payload();
    let filter = match api::is_object_or_array(body) {
        true => api::decode(body, registry.context.options.strictness)?,
        false => StreamListFilter::default(),
    };
    let streams = registry.list(&filter.subject);
    let page = Page::new(streams.len(), filter.offset, api::LIST_LIMIT);
    let reports = registry.reports(&streams[page.range()], false).await;
    let mut streams: Vec<_> = reports.into_iter().map(|report| report.info).collect();
    streams.iter_mut().for_each(|info| api::metadata::remove_dynamic(&mut info.config.metadata));
    Ok(api::response(Kind::StreamList, StreamList { page, streams }))
}
