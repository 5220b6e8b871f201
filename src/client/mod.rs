//! L5: a small NATS client over any byte stream, for the coordinator and the command line.
//!
//! [`Client::connect`] dials a URL and reconnects by itself; [`Client::attach`] takes a stream that is already open, such as
//! one end of a duplex pipe into an embedded broker. Publishing appends to one buffer that a writer task sends whole, so
//! many publishes cost one write. Knows the wire and JetStream's public API; must not know the broker or the store.

mod connection;
mod credentials;
mod error;
mod handle;
mod incoming;
mod jetstream;
mod pull;
mod subscription;
mod tls;
mod url;
mod wire;

pub use credentials::Credentials;
pub use error::{ClientError, JetStreamError};
pub use handle::{Client, ConnectOptions, Status};
pub use incoming::Incoming;
pub use jetstream::{BatchEntry, KvEntry, PubAck, StoredEntry, decode_ack, decode_stored};
pub use pull::Puller;
pub use subscription::{Overflow, Subscription};
pub use tls::TlsOptions;
pub use url::ServerUrl;
