//! What can go wrong on a client's side of a connection.

use crate::types::ApiError;

/// Why a call on a [`super::Client`] failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error("the connection is closed")]
    Closed,
    /// The connection broke while the answer was outstanding; whether the server acted is unknown.
    #[error("the connection was lost")]
    Disconnected,
    #[error("no answer in time")]
    Timeout,
    #[error("nobody listens on {subject}")]
    NoResponders { subject: String },
    /// The bound of unsent bytes is reached: the server is away or does not read.
    #[error("{bytes} bytes wait to be sent already")]
    Full { bytes: usize },
    #[error("a payload of {bytes} bytes exceeds the server's limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("not a valid subject: {subject}")]
    BadSubject { subject: String },
    #[error("not a NATS URL: {url}")]
    BadUrl { url: String },
    /// The server's `-ERR` text.
    #[error("the server refused: {text}")]
    Refused { text: String },
    #[error("the server sent something that is not NATS: {text}")]
    Protocol { text: String },
    #[error("cannot use these credentials: {reason}")]
    BadCredentials { reason: String },
    #[error("no TLS: {reason}")]
    Tls { reason: String },
    #[error("{address}: {reason}")]
    Unreachable { address: String, reason: String },
}

/// Why a JetStream call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JetStreamError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("cannot read the server's answer: {text}")]
    Decode { text: String },
}

impl JetStreamError {
    /// The numbered error, when the server gave one.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            JetStreamError::Api(error) => Some(error),
            _ => None,
        }
    }

    /// Whether it is the API error `wanted`, whatever its filled-in text.
    pub fn is(&self, wanted: &ApiError) -> bool {
        self.api().is_some_and(|error| error.err_code == wanted.err_code)
    }
}
