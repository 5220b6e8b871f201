//! The HTTP side: accept, bounds, and which path is answered by what.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accountz::{AccountStatzOptions, AccountzOptions};
use super::connz::ConnzOptions;
use super::healthz::HealthzOptions;
use super::index;
use super::jsz::JszOptions;
use super::metrics;
use super::query::{BadQuery, Query};
use super::reports::Reports;
use super::subsz::SubszOptions;
use crate::config::{Hosts, UNKNOWN_HOST};
use crate::types::Timestamp;

/// Further connections wait in the listener's backlog: probes and dashboards need a handful.
const CONNECTIONS_MAX: usize = 64;
/// A peer that does not finish its request's head is closed after this.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// A connection ends after this, however its peer reads.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);
/// What a peer has left to read its answer once the server stops.
const STOP_DEADLINE: Duration = Duration::from_secs(1);
/// Bounds the head of a request.
const BUFFER_BYTES_MAX: usize = 16 << 10;
/// The pause after `accept` failed for want of descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The TLS of the next connection: certificates may change.
pub type CurrentTls = Arc<dyn Fn() -> Option<TlsAcceptor> + Send + Sync>;

/// The monitoring endpoints of one server.
pub struct Monitor {
    reports: Arc<Reports>,
    hosts: Hosts,
}

impl Monitor {
    pub fn new(reports: Arc<Reports>, hosts: Hosts) -> Monitor {
        Monitor { reports, hosts }
    }

    /// Answers on `listener`, over TLS when there is a `tls`, until `stop` is cancelled; connections are then closed after
    /// the answer they are at.
    pub async fn serve(self, listener: TcpListener, tls: Option<CurrentTls>, stop: CancellationToken) {
        let monitor = Arc::new(self);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        loop {
            let accepted = async {
                let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                _ = stop.cancelled() => break,
                accepted = accepted => accepted,
            };
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!("Monitoring could not accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (monitor, tls, stop) = (monitor.clone(), tls.as_ref().and_then(|current| current()), stop.clone());
            connections.spawn(async move {
                let _place = place;
                let Some(stream) = shake_hands(tls, socket).await else { return };
                let service = service_fn(move |request| {
                    let monitor = monitor.clone();
                    async move { Ok::<_, Infallible>(monitor.respond(request).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_DEADLINE)
                    .max_buf_size(BUFFER_BYTES_MAX)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                // Peers that hang up or time out are their own affair: nothing to log.
                let _ = tokio::time::timeout(CONNECTION_DEADLINE, async {
                    tokio::select! {
                        ended = connection.as_mut() => ended,
                        _ = stop.cancelled() => {
                            connection.as_mut().graceful_shutdown();
                            tokio::time::timeout(STOP_DEADLINE, connection).await.unwrap_or(Ok(()))
                        }
                    }
                })
                .await;
            });
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    async fn respond<B>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n".to_owned());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        if !self.hosts.admit(request.headers().get(HOST).map(HeaderValue::as_bytes)) {
            return text(StatusCode::FORBIDDEN, format!("{UNKNOWN_HOST}\n"));
        }
        let path = request.uri().path();
        self.reports.count(path);
        let query = Query::parse(request.uri().query());
        let now = Timestamp::now();
        match self.answer(path, &query, now).await {
            Ok(response) => response,
            Err(BadQuery(reason)) => text(StatusCode::BAD_REQUEST, reason),
        }
    }

    async fn answer(&self, path: &str, query: &Query, now: Timestamp) -> Result<Response<Full<Bytes>>, BadQuery> {
        let reports = &self.reports;
        Ok(match path {
            "/" => body(StatusCode::OK, "text/html; charset=utf-8", index::page(&reports.identity).into_bytes()),
            "/healthz" => {
                let mut health = reports.healthz(&HealthzOptions::from_query(query)?).await;
                let status = StatusCode::from_u16(health.take_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                body(status, "application/json", serde_json::to_vec(&health).expect("reports are JSON"))
            }
            "/metrics" => body(StatusCode::OK, metrics::CONTENT_TYPE, reports.metrics(now).await.into_bytes()),
            "/varz" => json(&reports.varz(now).await),
            "/connz" => json(&reports.connz(&ConnzOptions::from_query(query)?, now)?),
            "/jsz" => json(&reports.jsz(&JszOptions::from_query(query)?, now).await),
            "/subsz" | "/subscriptionsz" => json(&reports.subsz(&SubszOptions::from_query(query)?, now)?),
            "/accountz" => json(&reports.accountz(&AccountzOptions::from_query(query), now)?),
            "/accstatz" => json(&reports.account_statz(&AccountStatzOptions::from_query(query)?, now)),
            "/routez" => json(&reports.routez(now)),
            "/gatewayz" => json(&reports.gatewayz(now)),
            "/leafz" => json(&reports.leafz(now)),
            "/ipqueuesz" => json(&serde_json::json!({})),
            "/expvarz" => json(&reports.expvarz()),
            "/raftz" => text(StatusCode::NOT_FOUND, "No Raft nodes registered".to_owned()),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        })
    }
}

/// Bytes, in the clear or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// `None` when the peer does not finish its TLS handshake.
async fn shake_hands(tls: Option<TlsAcceptor>, socket: TcpStream) -> Option<Box<dyn Stream>> {
    let Some(tls) = tls else { return Some(Box::new(socket)) };
    let stream = tokio::time::timeout(HEAD_DEADLINE, tls.accept(socket)).await.ok()?.ok()?;
    Some(Box::new(stream))
}

fn json(report: &impl Serialize) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec_pretty(report).expect("reports have string keys and finite numbers");
    body(StatusCode::OK, "application/json", bytes)
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    body(status, "text/plain; charset=utf-8", text.into_bytes())
}

fn body(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
