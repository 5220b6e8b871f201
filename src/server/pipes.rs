//! Connections from inside the process.

use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use crate::broker::{Account, Arrival, Broker};

/// Bytes that may be on their way in one direction.
const BYTES_MAX: usize = 256 * 1024;

/// Opens them, in any account.
#[derive(Clone)]
pub(super) struct Pipes {
    pub broker: Arc<Broker>,
    pub tasks: TaskTracker,
    /// Ends them all.
    pub stop: CancellationToken,
}

impl Pipes {
    /// One end of a byte stream whose other end is served like any client that has come into `account`.
    pub fn connect(&self, account: &Arc<Account>) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(BYTES_MAX);
        let arrival = Arrival::inside(account.clone());
        self.tasks.spawn(connection::serve_split(self.broker.clone(), theirs, arrival, None, self.stop.clone()));
        ours
    }
}
