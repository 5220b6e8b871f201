//! Streams and consumers that the config file declares.

use serde_json::Value;

/// A stream that is there once the server has started: created, or brought to this configuration. What is no longer
/// declared stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredStream {
    pub name: String,
    /// Where it is declared, for errors.
    pub at: String,
    /// nats-server's StreamConfig as its API takes it.
    pub config: Value,
    pub consumers: Vec<DeclaredConsumer>,
}

/// A durable consumer of a [`DeclaredStream`].
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredConsumer {
    pub name: String,
    pub at: String,
    /// nats-server's ConsumerConfig as its API takes it.
    pub config: Value,
}
