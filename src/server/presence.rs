//! Tells coordinators whose connection begins and ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tokio::sync::mpsc;
use tracing::warn;

use crate::broker::{Broker, Presence};
use crate::coordinator::ConnectionEvent;

/// Events a coordinator may be behind by. Further ones are dropped with a warning: heartbeats and leases find the same
/// agents, only later.
const EVENTS_MAX: usize = 131_072;

/// By account: the same name in another account is somebody else.
type Listeners = Mutex<HashMap<String, mpsc::Sender<ConnectionEvent>>>;

/// Watches a broker's connections for all coordinators in it.
pub(super) struct Watch {
    broker: Arc<Broker>,
    listeners: Arc<Listeners>,
}

impl Watch {
    pub fn new(broker: &Arc<Broker>) -> Watch {
        let listeners = Arc::new(Listeners::default());
        let told = listeners.clone();
        broker.watch_presence(move |presence| tell(&told, presence));
        Watch { broker: broker.clone(), listeners }
    }

    /// The connections of `account`: those that are there, then what changes. Whoever listened before hears no more.
    pub fn listen(&self, account: &str) -> mpsc::Receiver<ConnectionEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        // Under the lock, so that nobody's end is told before its beginning.
        let mut listeners = lock(&self.listeners);
        for client in self.broker.clients() {
            let identity = client.identity();
            if identity.account == account {
                let _ = sender.try_send(ConnectionEvent::Connected { client_id: client.id, name: identity.name });
            }
        }
        listeners.insert(account.to_owned(), sender);
        receiver
    }

    /// Nobody listens for `account` any more.
    pub fn forget(&self, account: &str) {
        lock(&self.listeners).remove(account);
    }
}

fn lock(listeners: &Listeners) -> MutexGuard<'_, HashMap<String, mpsc::Sender<ConnectionEvent>>> {
    listeners.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(listeners: &Listeners, presence: &Presence) {
    let listeners = lock(listeners);
    let Some(sender) = listeners.get(&presence.identity.account) else { return };
    let client_id = presence.client_id;
    let event = if presence.connected {
        ConnectionEvent::Connected { client_id, name: presence.identity.name.clone() }
    } else {
        ConnectionEvent::Disconnected { client_id }
    };
    if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(event) {
        warn!(cid = client_id, "the coordinator is too far behind to hear of this connection");
    }
}
