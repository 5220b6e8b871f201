//! Tells the coordinator whose connection begins and ends.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::warn;

use crate::broker::Broker;
use crate::coordinator::ConnectionEvent;

/// Events the coordinator may be behind by. Further ones are dropped with a warning: heartbeats and leases find the same
/// agents, only later.
const EVENTS_MAX: usize = 131_072;

/// The connection events of `broker` from now on.
pub fn watch(broker: &Arc<Broker>) -> mpsc::Receiver<ConnectionEvent> {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let account = broker.account.name.clone();
    broker.watch_presence(move |presence| {
        // Agents live in the account the coordinator serves; the same name elsewhere is somebody else.
        if presence.identity.account != account {
            return;
        }
        let client_id = presence.client_id;
        let event = if presence.connected {
            ConnectionEvent::Connected { client_id, name: presence.identity.name.clone() }
        } else {
            ConnectionEvent::Disconnected { client_id }
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(event) {
            warn!(cid = client_id, "the coordinator is too far behind to hear of this connection");
        }
    });
    receiver
}
