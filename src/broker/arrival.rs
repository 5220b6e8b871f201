//! How a client came to the broker.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::account::Account;
use super::places::Place;
use crate::auth::ConnectionType;

/// See the module. Whoever accepts connections fills it in.
#[derive(Clone, Default)]
pub struct Arrival {
    /// The peer's address, or `pipe` for one inside the process.
    pub address: String,
    pub connection_type: Option<ConnectionType>,
    pub tls: TlsTerms,
    /// The port INFO names, when it is not the client port.
    pub port: Option<u16>,
    /// One of the `max_connections`, where it was taken before there is a client.
    pub(super) place: Option<Arc<Place>>,
    /// What stood in the cookies of a WebSocket's first request.
    pub cookies: Cookies,
    /// For connections of the process itself: they are in this account without being asked.
    pub(super) trusted: Option<Arc<Account>>,
}

/// What INFO says of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsTerms {
    pub required: bool,
    pub available: bool,
    /// A client certificate is asked for.
    pub verify: bool,
    /// The client's certificate says which user it is.
    pub maps_certificates: bool,
}

/// Credentials out of cookies; they count where CONNECT names none. Empty for none.
#[derive(Clone, Default)]
pub struct Cookies {
    pub user: String,
    pub pass: String,
    pub token: String,
    pub jwt: String,
}

impl Arrival {
    /// By the client port.
    pub fn standard(address: SocketAddr, tls: TlsTerms) -> Arrival {
        Arrival { address: address.to_string(), tls, ..Arrival::default() }
    }

    /// By the WebSocket port `port`.
    pub fn websocket(address: SocketAddr, tls: TlsTerms, port: u16, cookies: Cookies) -> Arrival {
        let connection_type = Some(ConnectionType::WebSocket);
        Arrival { connection_type, port: Some(port), cookies, ..Arrival::standard(address, tls) }
    }

    /// The same, with a place that [`super::Broker::take_place`] gave.
    pub fn in_place(self, place: Arc<Place>) -> Arrival {
        Arrival { place: Some(place), ..self }
    }

    /// From inside the process, in `account`.
    pub fn inside(account: Arc<Account>) -> Arrival {
        Arrival {
            address: "pipe".to_owned(),
            connection_type: Some(ConnectionType::InProcess),
            trusted: Some(account),
            ..Arrival::default()
        }
    }

    pub(super) fn way(&self) -> ConnectionType {
        self.connection_type.unwrap_or(ConnectionType::Standard)
    }

    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.address.parse::<SocketAddr>().ok().map(|address| address.ip())
    }
}

impl From<String> for Arrival {
    fn from(address: String) -> Arrival {
        Arrival { address, ..Arrival::default() }
    }
}
