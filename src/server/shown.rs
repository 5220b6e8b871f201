//! What monitoring tells of the settings in force.

use std::net::SocketAddr;

use super::tls::{CurrentHandshake, Handshake};
use crate::auth::ConnectionType;
use crate::broker::Broker;
use crate::config::Config;
use crate::monitor::{Shown, ShownTls, ShownWebSocket};
use crate::types::Timestamp;

/// The client port's handshake and that of WebSockets, as they are now.
pub(super) type Handshakes<'a> = [&'a CurrentHandshake; 2];

/// `loaded`: when they were read, `None` for the start.
pub(super) fn shown(
    config: &Config,
    broker: &Broker,
    handshakes: Handshakes<'_>,
    websocket_address: Option<SocketAddr>,
    loaded: Option<Timestamp>,
) -> Shown {
    let [clients, websocket] = handshakes.map(CurrentHandshake::get);
    let no_auth_user = config.auth.websocket_no_auth_user.as_deref();
    let port = websocket_address.map_or(0, |address| address.port());
    let websocket = config.websocket.as_ref().map(|settings| {
        let not_after = websocket.and_then(|handshake| handshake.not_after());
        ShownWebSocket::new(settings, port, no_auth_user, not_after)
    });
    let info = broker.info();
    Shown {
        limits: config.limits.clone(),
        auth_required: broker.gate.book().is_required(ConnectionType::Standard),
        advertised: (info.host, info.port),
        tls: clients.map(|handshake| shown_tls(&handshake)),
        websocket: websocket.unwrap_or_default(),
        tags: config.server_tags.clone(),
        metadata: config.server_metadata.clone(),
        loaded,
    }
}

fn shown_tls(handshake: &Handshake) -> ShownTls {
    let terms = handshake.terms();
    ShownTls {
        required: terms.required,
        verify: terms.verify,
        timeout: handshake.tls.timeout,
        cert_not_after: handshake.not_after(),
    }
}
