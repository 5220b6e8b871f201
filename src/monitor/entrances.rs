//! How the ways in are protected, as `/varz` tells it.

use std::time::Duration;

use serde::Serialize;

use crate::config::{Listen, WebSocket};
use crate::types::time::nanos;
use crate::types::{Timestamp, is_default};

/// TLS of the client port.
#[derive(Clone, Debug)]
pub struct ShownTls {
    pub required: bool,
    /// Clients are asked for certificates.
    pub verify: bool,
    pub timeout: Duration,
    /// When our own certificate ends.
    pub cert_not_after: Option<Timestamp>,
}

/// The WebSocket listener (nats-server `WebsocketOptsVarz`); all empty where there is none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShownWebSocket {
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(skip_serializing_if = "is_default")]
    port: u16,
    #[serde(skip_serializing_if = "is_default")]
    no_auth_user: String,
    #[serde(skip_serializing_if = "is_default")]
    jwt_cookie: String,
    #[serde(with = "nanos", skip_serializing_if = "is_default")]
    handshake_timeout: Duration,
    #[serde(skip_serializing_if = "is_default")]
    no_tls: bool,
    #[serde(skip_serializing_if = "is_default")]
    tls_map: bool,
    #[serde(skip_serializing_if = "is_default")]
    same_origin: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_origins: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    compression: bool,
    #[serde(skip_serializing_if = "is_default")]
    tls_cert_not_after: Option<Timestamp>,
}

impl ShownWebSocket {
    /// As it is set up, listening on `port`.
    pub fn new(
        settings: &WebSocket,
        port: u16,
        no_auth_user: Option<&str>,
        cert_not_after: Option<Timestamp>,
    ) -> ShownWebSocket {
        // nats-server leaves out a time that nobody has set.
        let usual = WebSocket::new(Listen::any_port()).handshake_timeout;
        ShownWebSocket {
            host: settings.listen.host.clone(),
            port,
            no_auth_user: no_auth_user.unwrap_or_default().to_owned(),
            jwt_cookie: settings.jwt_cookie.clone().unwrap_or_default(),
            handshake_timeout: Some(settings.handshake_timeout).filter(|time| *time != usual).unwrap_or_default(),
            no_tls: settings.tls.is_none(),
            tls_map: settings.tls.as_ref().is_some_and(|tls| tls.map),
            same_origin: settings.same_origin,
            allowed_origins: settings.allowed_origins.clone(),
            compression: settings.compression,
            tls_cert_not_after: cert_not_after,
        }
    }
}
