//! A subscription's receiving end.

use tokio::sync::mpsc;

use super::{Client, Incoming};

/// What happens to a message whose subscriber's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It is dropped and counted, as NATS clients do with a slow subscriber.
    Drop,
    /// The connection's reader waits, so the server feels it. Only for a subscriber that never waits for an answer on the
    /// same connection.
    Wait,
}

/// Messages of one subject, in order. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    pub(super) client: Client,
    pub(super) sid: u64,
    pub(super) receiver: mpsc::Receiver<Incoming>,
}

impl Subscription {
    /// The next message; `None` once the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.receiver.recv().await
    }

    /// The next message if one is here already.
    pub fn try_next(&mut self) -> Option<Incoming> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.unsubscribe(self.sid);
    }
}
