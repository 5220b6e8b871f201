//! What the broker answers to a peer that broke the rules: the `-ERR` texts, and whether the connection ends.
//!
//! The texts are nats-server's, letter for letter (`server/parser.go`, `server/client.go`, `server/errors.go`): clients
//! tell errors apart by them. nats-server closes without a word on a control line it cannot parse; here every close has
//! a reason, and those begin with `Parser Error`, the name its protocol documentation gives to this case.

use std::borrow::Cow;

use super::quote::quote;

/// A breach of the protocol by a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The bytes are no known operation, or a payload does not end where it was said to.
    UnknownOperation,
    /// A control line longer than `max_control_line`.
    MaxControlLine,
    /// A payload announced as larger than `max_payload`.
    MaxPayload,
    /// Too few or too many arguments.
    ArgumentCount,
    /// A payload size that is not one to nine digits.
    BadSize,
    /// A header size that is not one to nine digits.
    BadHeaderSize,
    /// A header size larger than the total size.
    HeaderSizeOverTotal,
    /// HPUB from a client that did not announce header support.
    HeadersNotSupported,
    /// A CONNECT or INFO body that is not the JSON it should be.
    BadJson,
    /// The client sent `-ERR`.
    ClientError,
    /// CONNECT asks for a protocol version that does not exist.
    BadClientProtocol,
    /// `no_responders` without `headers` in CONNECT.
    NoRespondersRequiresHeaders,
    /// Wrong or missing credentials, or anything but CONNECT before them.
    AuthorizationViolation,
    /// The credentials hold no longer.
    AuthenticationExpired,
    /// The account's own token holds no longer.
    AccountExpired,
    /// The account has as many connections as it may.
    MaxAccountConnections,
    /// No CONNECT in time.
    AuthenticationTimeout,
    /// Pings went unanswered.
    StaleConnection,
    /// The server has as many connections as it may.
    MaxConnections,
    /// The server is going away.
    ServerShutdown,
    /// SUB with a filter that is not one. The connection stays.
    InvalidSubject,
    /// A pedantic client published to what is not a literal subject. The message is routed all the same, as
    /// nats-server does.
    InvalidPublishSubject,
    /// One subscription more than the connection may have. The connection stays.
    MaxSubscriptions,
    /// A publish to a subject that is not the client's to use. Dropped; the connection stays.
    PublishDenied(Box<[u8]>),
    /// A publish with a reply subject that is not the client's to use. Dropped; the connection stays.
    ReplyDenied(Box<[u8]>),
    /// A subscription that is not the client's to make. The connection stays.
    SubscribeDenied(Box<[u8]>),
    /// A queue subscription that is not the client's to make: filter, queue group. The connection stays.
    QueueSubscribeDenied(Box<[u8]>, Box<[u8]>),
}

impl ProtocolError {
    /// What stands between the quotes of `-ERR '...'`.
    pub fn text(&self) -> Cow<'static, str> {
        let text = match self {
            ProtocolError::UnknownOperation => "Unknown Protocol Operation",
            ProtocolError::MaxControlLine => "maximum control line exceeded",
            ProtocolError::MaxPayload => "Maximum Payload Violation",
            ProtocolError::ArgumentCount => "Parser Error: Wrong Number of Arguments",
            ProtocolError::BadSize => "Parser Error: Bad or Missing Size",
            ProtocolError::BadHeaderSize => "Parser Error: Bad or Missing Header Size",
            ProtocolError::HeaderSizeOverTotal => "Parser Error: Header Size Larger Than Total Size",
            ProtocolError::HeadersNotSupported => "message headers not supported",
            ProtocolError::BadJson => "Parser Error: Invalid JSON",
            ProtocolError::ClientError => "Parser Error: Client Sent an Error",
            ProtocolError::BadClientProtocol => "invalid client protocol",
            ProtocolError::NoRespondersRequiresHeaders => "no responders requires headers support",
            ProtocolError::AuthorizationViolation => "Authorization Violation",
            ProtocolError::AuthenticationExpired => "User Authentication Expired",
            ProtocolError::AccountExpired => "Account Authentication Expired",
            ProtocolError::MaxAccountConnections => "maximum account active connections exceeded",
            ProtocolError::AuthenticationTimeout => "Authentication Timeout",
            ProtocolError::StaleConnection => "Stale Connection",
            ProtocolError::MaxConnections => "maximum connections exceeded",
            ProtocolError::ServerShutdown => "Server Shutdown",
            ProtocolError::InvalidSubject => "Invalid Subject",
            ProtocolError::InvalidPublishSubject => "Invalid Publish Subject",
            ProtocolError::MaxSubscriptions => "maximum subscriptions exceeded",
            ProtocolError::PublishDenied(subject) => {
                return format!("Permissions Violation for Publish to {}", quote(subject)).into();
            }
            ProtocolError::ReplyDenied(reply) => {
                return format!("Permissions Violation for Publish with Reply of {}", quote(reply)).into();
            }
            ProtocolError::SubscribeDenied(filter) => {
                return format!("Permissions Violation for Subscription to {}", quote(filter)).into();
            }
            ProtocolError::QueueSubscribeDenied(filter, queue) => {
                let (filter, queue) = (quote(filter), quote(queue));
                return format!("Permissions Violation for Subscription to {filter} using queue {queue}").into();
            }
        };
        Cow::Borrowed(text)
    }

    /// Whether the connection ends after the `-ERR`.
    pub fn closes(&self) -> bool {
        !matches!(
            self,
            ProtocolError::InvalidSubject
                | ProtocolError::InvalidPublishSubject
                | ProtocolError::MaxSubscriptions
                | ProtocolError::PublishDenied(_)
                | ProtocolError::ReplyDenied(_)
                | ProtocolError::SubscribeDenied(_)
                | ProtocolError::QueueSubscribeDenied(..)
        )
    }
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_clients_cannot_forge_a_line() {
        let error = ProtocolError::QueueSubscribeDenied(b"a\r\nb".as_slice().into(), b"q\"".as_slice().into());
        assert_eq!(error.text(), r#"Permissions Violation for Subscription to "a\r\nb" using queue "q\"""#);
    }

    #[test]
    fn only_refusals_of_one_operation_leave_the_connection_open() {
        assert!(ProtocolError::UnknownOperation.closes());
        assert!(ProtocolError::StaleConnection.closes());
        assert!(!ProtocolError::InvalidSubject.closes());
        assert!(!ProtocolError::PublishDenied(b"x".as_slice().into()).closes());
    }
}
