//! The WebSocket listener: the HTTP request that opens a connection, and who may make it.
//!
//! Source: nats-server `server/websocket.go` (`wsUpgrade`, `checkOrigin`).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::accept::{Backoff, peer_address};
use super::tls::{self, CurrentHandshake};
use super::websocket_stream::WebSocketStream;
use super::{connection, deflate};
use crate::auth::TlsFacts;
use crate::broker::{Arrival, Broker, Cookies, Place, TlsTerms};
use crate::config::{Hosts, UNKNOWN_HOST, WebSocket};

/// Bounds the request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 28\r\n\r\n\
    maximum connections exceeded";
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The listener's rules, shared by its connections.
pub struct Entrance {
    pub broker: Arc<Broker>,
    pub settings: WebSocket,
    pub handshake: CurrentHandshake,
    pub port: u16,
    pub hosts: Hosts,
    pub stop: CancellationToken,
}

/// Accepts for ever. Drop the future to stop.
pub async fn accept(listener: TcpListener, entrance: Arc<Entrance>, tasks: TaskTracker) {
    let mut backoff = Backoff::new();
    loop {
        let entrance = entrance.clone();
        match listener.accept().await {
            Ok((socket, peer)) => {
                backoff.succeed();
                let peer = peer_address(peer);
                // Handshakes count as connections: nobody may have more of them under way.
                match entrance.broker.take_place() {
                    Some(place) => {
                        tasks.spawn(async move { entrance.receive(socket, peer, place).await });
                    }
                    None => entrance.turn_away(&socket, peer),
                }
            }
            Err(error) => backoff.fail(&error).await,
        }
    }
}

/// What a request that was granted tells.
struct Opened {
    upgrade: OnUpgrade,
    cookies: Cookies,
    deflate: bool,
}

impl Entrance {
    /// No place is free. Nobody is waited for.
    fn turn_away(&self, socket: &TcpStream, peer: SocketAddr) {
        debug!("{peer} - maximum connections exceeded");
        if self.handshake.get().is_none() {
            let _ = socket.try_write(FULL);
        }
    }

    async fn receive(&self, socket: TcpStream, peer: SocketAddr, place: Arc<Place>) {
        let _ = socket.set_nodelay(true);
        let patience = self.settings.handshake_timeout;
        let Some(handshake) = self.handshake.get() else {
            return self.serve(socket, peer, place, TlsTerms::default(), None).await;
        };
        match tokio::time::timeout(patience, handshake.acceptor.accept(socket)).await {
            Ok(Ok(stream)) => {
                let facts = tls::facts(stream.get_ref().1, &handshake, false);
                self.serve(stream, peer, place, handshake.terms_after(), Some(facts)).await;
            }
            Ok(Err(error)) => debug!("{peer} - TLS handshake error: {error}"),
            Err(_) => debug!("{peer} - TLS handshake timeout"),
        }
    }

    async fn serve<S>(&self, stream: S, peer: SocketAddr, place: Arc<Place>, tls: TlsTerms, facts: Option<TlsFacts>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, mut opened) = mpsc::channel::<Opened>(1);
        let service = service_fn(|request| {
            let answered = self.answer(request, tls.required, &sender);
            async move { Ok::<_, Infallible>(answered) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if !matches!(tokio::time::timeout(self.settings.handshake_timeout, connection).await, Ok(Ok(()))) {
            return;
        }
        let Ok(Opened { upgrade, cookies, deflate }) = opened.try_recv() else { return };
        let Ok(stream) = upgrade.await else { return };
        let arrival = Arrival::websocket(peer, tls, self.port, cookies).in_place(place);
        let stream = WebSocketStream::new(TokioIo::new(stream), deflate);
        connection::serve_split(self.broker.clone(), stream, arrival, facts, self.stop.clone()).await;
    }

    fn answer(
        &self,
        mut request: Request<Incoming>,
        secure: bool,
        opened: &mpsc::Sender<Opened>,
    ) -> Response<Full<Bytes>> {
        match self.check(&request, secure) {
            Ok(accept) => {
                let cookies = self.cookies(request.headers());
                let mut extensions = request.headers().get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter();
                let is_offered = |value: &HeaderValue| value.to_str().is_ok_and(deflate::is_offered);
                let deflate = self.settings.compression && extensions.any(is_offered);
                let upgrade = hyper::upgrade::on(&mut request);
                if opened.try_send(Opened { upgrade, cookies, deflate }).is_err() {
                    return refusal(StatusCode::BAD_REQUEST, "one request opens one connection");
                }
                let mut response = Response::new(Full::new(Bytes::new()));
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                if deflate {
                    headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(deflate::ANSWER));
                }
                for (name, value) in &self.settings.headers {
                    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                        headers.append(name, value);
                    }
                }
                response
            }
            Err((status, reason)) => refusal(status, reason),
        }
    }

    /// The answer to the request's key, or why there is none (nats-server `wsUpgrade`).
    fn check(&self, request: &Request<Incoming>, secure: bool) -> Result<HeaderValue, (StatusCode, &'static str)> {
        let bad = |reason| Err((StatusCode::BAD_REQUEST, reason));
        let headers = request.headers();
        if request.method() != Method::GET {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "request method must be GET"));
        }
        if !headers.contains_key(header::HOST) {
            return bad("'Host' missing in request");
        }
        if !has_word(headers, header::UPGRADE, "websocket") {
            return bad("invalid value for header 'Upgrade'");
        }
        if !has_word(headers, header::CONNECTION, "Upgrade") {
            return bad("invalid value for header 'Connection'");
        }
        let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else { return bad("key missing") };
        if STANDARD.decode(key).map(|bytes| bytes.len()) != Ok(16) {
            return bad("invalid websocket key");
        }
        if !has_word(headers, header::SEC_WEBSOCKET_VERSION, "13") {
            return bad("invalid version");
        }
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if headers.contains_key(header::ORIGIN) {
            let origin = text(header::ORIGIN).unwrap_or_default();
            let host = text(header::HOST).unwrap_or_default();
            let by_host_alone = self.settings.same_origin && self.settings.allowed_origins.is_empty();
            if by_host_alone && !self.hosts.admit(Some(host.as_bytes())) {
                // Whoever chooses the host chooses which origin is the same.
                return Err((StatusCode::FORBIDDEN, UNKNOWN_HOST));
            }
            if !self.may_come_from(origin, host, secure) {
                return Err((StatusCode::FORBIDDEN, "origin not allowed"));
            }
        }
        let mut hash = sha1_smol::Sha1::from(key.as_bytes());
        hash.update(KEY_SUFFIX);
        let accept = STANDARD.encode(hash.digest().bytes());
        Ok(HeaderValue::from_str(&accept).expect("base64 is visible ASCII"))
    }

    fn may_come_from(&self, origin: &str, host: &str, secure: bool) -> bool {
        let settings = &self.settings;
        if settings.same_origin {
            let here = Origin::parse(&format!("{}://{host}", if secure { "https" } else { "http" }));
            let there = Origin::parse(origin);
            let same = |here: &Origin, there: &Origin| here.host == there.host && here.port == there.port;
            if !matches!((&here, &there), (Some(here), Some(there)) if same(here, there)) {
                return false;
            }
        }
        let origin = Origin::parse(origin);
        settings.allowed_origins.is_empty()
            || origin.is_some() && settings.allowed_origins.iter().any(|allowed| Origin::parse(allowed) == origin)
    }

    fn cookies(&self, headers: &HeaderMap) -> Cookies {
        let mut cookies = Cookies::default();
        let settings = &self.settings;
        for line in headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok()) {
            for (name, value) in line.split(';').filter_map(|pair| pair.trim().split_once('=')) {
                for (wanted, field) in [
                    (&settings.jwt_cookie, &mut cookies.jwt),
                    (&settings.user_cookie, &mut cookies.user),
                    (&settings.pass_cookie, &mut cookies.pass),
                    (&settings.token_cookie, &mut cookies.token),
                ] {
                    if wanted.as_deref() == Some(name) {
                        *field = value.trim_matches('"').to_owned();
                    }
                }
            }
        }
        cookies
    }
}

/// Where a page comes from.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Origin> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let authority = rest.split('/').next()?;
        let usual = match &*scheme {
            "http" | "ws" => 80,
            "https" | "wss" => 443,
            _ => return None,
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, usual),
        };
        (!host.is_empty()).then(|| Origin { scheme, host: host.to_ascii_lowercase(), port })
    }
}

/// Whether one of a header's comma-separated words is `word`, whatever its case.
fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
}

fn refusal(status: StatusCode, reason: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(reason.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_by_their_parts() {
        let parse = |text| Origin::parse(text);
        assert_eq!(parse("http://Host"), parse("http://host:80/path"));
        assert_eq!(parse("https://host"), parse("https://host:443"));
        assert_ne!(parse("http://host"), parse("https://host"));
        assert_ne!(parse("http://host:1"), parse("http://host:2"));
        for bad in ["", "null", "host", "ftp://host", "http://", "http://host:x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
