//! The ways into a stream: one door per kind of input, all leading to its inbox. The router does the dispatch, so a whole
//! read buffer of acks or pulls arrives as one command.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::{HashMap, HashSet};
use tracing::error;

use super::inbox::{Command, Inbox};
use crate::broker::{Account, Inbound, Receipt, StreamDoor};
use crate::stream::StreamConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Publish,
    Ack,
    Pull,
    DirectGet,
    FlowControl,
}

struct Door {
    inbox: Arc<Inbox>,
    kind: Kind,
}

impl StreamDoor for Door {
    fn publish(&self, batch: Vec<Inbound>) {
        let wrap = match self.kind {
            Kind::Publish => Command::Publish,
            Kind::Ack => Command::Acks,
            Kind::Pull => Command::Pulls,
            Kind::DirectGet => Command::DirectGets,
            Kind::FlowControl => Command::FlowControl,
        };
        self.inbox.push_messages(batch, wrap);
    }

    fn stores(&self) -> bool {
        self.kind == Kind::Publish
    }

    fn publish_with(&self, message: Inbound, receipt: Receipt) {
        match self.kind {
            Kind::Publish => {
                self.inbox.push_messages(vec![message], |batch| Command::PublishWith { batch, receipt });
            }
            _ => self.publish(vec![message]),
        }
    }

    fn is_behind(&self) -> bool {
        self.inbox.is_behind()
    }

    fn caught_up(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.inbox.caught_up())
    }
}

/// The doors a stream has open, by filter. Dropping it closes them.
pub(super) struct Doors {
    account: Arc<Account>,
    inbox: Arc<Inbox>,
    /// The router's key of each.
    open: Mutex<HashMap<(Kind, String), u64>>,
}

impl Doors {
    /// No door is open yet.
    pub(super) fn new(account: Arc<Account>, inbox: Arc<Inbox>) -> Doors {
        Doors { account, inbox, open: Mutex::new(HashMap::new()) }
    }

    /// Opens and closes doors until they are those that `config` asks for, and those for direct gets of the stream that
    /// this one `stands_in` for.
    pub(super) fn follow(&self, config: &StreamConfig, stands_in: Option<&str>) {
        let name = &config.name;
        let mut wanted: HashSet<(Kind, String)> =
            config.subjects.iter().map(|subject| (Kind::Publish, subject.clone())).collect();
        wanted.insert((Kind::Ack, format!("$JS.ACK.{name}.>")));
        wanted.insert((Kind::Pull, format!("$JS.API.CONSUMER.MSG.NEXT.{name}.*")));
        wanted.insert((Kind::FlowControl, format!("$JS.FC.{name}.>")));
        let own = config.allow_direct.then_some(&**name);
        for name in own.into_iter().chain(stands_in) {
            wanted.insert((Kind::DirectGet, format!("$JS.API.DIRECT.GET.{name}")));
            wanted.insert((Kind::DirectGet, format!("$JS.API.DIRECT.GET.{name}.>")));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|door, key| {
            // What is open already is wanted no more.
            let keep = wanted.remove(door);
            if !keep {
                self.account.remove_target(door.1.as_bytes(), *key);
            }
            keep
        });
        for (kind, filter) in wanted {
            let door = Arc::new(Door { inbox: self.inbox.clone(), kind });
            match self.account.add_stream(filter.as_bytes(), door) {
                Ok(key) => drop(open.insert((kind, filter), key)),
                Err(error) => error!(stream = %name, %filter, %error, "a stream cannot be reached on a subject"),
            }
        }
    }

    /// Closes them all: what is published from now on finds no stream.
    pub(super) fn close(&self) {
        self.close_some(|_| true);
    }

    /// The same at the server's end, but for answers to deliveries, which nobody hears any more: clients take any word that
    /// comes back for one, even that there is nobody, for its confirmation (async-nats' `double_ack`).
    pub(super) fn close_at_the_end(&self) {
        self.close_some(|kind| kind != Kind::Ack);
    }

    fn close_some(&self, wanted: impl Fn(Kind) -> bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for ((_, filter), key) in open.extract_if(|(kind, _), _| wanted(*kind)) {
            self.account.remove_target(filter.as_bytes(), key);
        }
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.close();
    }
}
