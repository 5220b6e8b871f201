//! The WebSocket listener (nats-server `WebsocketOpts`).

use std::time::Duration;

use super::{Listen, Tls};

/// Where browsers connect. Users of its own are in the [`crate::auth::Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocket {
    pub listen: Listen,
    /// `None`: in the clear, which must be said (`no_tls`).
    pub tls: Option<Tls>,
    /// Only pages from this host and port may connect: unless said otherwise, when there are no `allowed_origins`.
    pub same_origin: bool,
    /// Only pages from these may connect, `scheme://host[:port]`; empty for any, once `same_origin` is off.
    pub allowed_origins: Vec<String>,
    /// Clients that ask for it get permessage-deflate.
    pub compression: bool,
    /// How long the HTTP request, and before it the TLS handshake, may take.
    pub handshake_timeout: Duration,
    /// Names of the cookies that credentials may be in.
    pub jwt_cookie: Option<String>,
    pub user_cookie: Option<String>,
    pub pass_cookie: Option<String>,
    pub token_cookie: Option<String>,
    /// Further headers of the answer.
    pub headers: Vec<(String, String)>,
}

impl WebSocket {
    /// With nats-server's defaults, but for the origin.
    pub fn new(listen: Listen) -> WebSocket {
        WebSocket {
            listen,
            tls: None,
            same_origin: true,
            allowed_origins: Vec::new(),
            compression: false,
            handshake_timeout: Duration::from_secs(2),
            jwt_cookie: None,
            user_cookie: None,
            pass_cookie: None,
            token_cookie: None,
            headers: Vec::new(),
        }
    }
}
