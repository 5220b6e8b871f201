//! Other rules while clients are connected: every one of them is looked at again (nats-server `reloadAuthorization`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::account::{Account, AccountRole};
use super::client_state::{ClientState, Review};
use super::outbox::{Appended, Closed};
use super::registry::{self, Broker, Options, Terms};
use crate::auth::{Book, ConnectionType};
use crate::protocol::{Info, ProtocolError, encode};

impl Broker {
    /// Sets up the accounts of `book`: new ones, which are returned, other limits of known ones, what they share, and those it does not
    /// name go. To be called before [`Broker::reload`], so that an account is ready when its first client comes.
    pub fn prepare_accounts(&self, book: &Book) -> Vec<Arc<Account>> {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let always = [&self.account.name, &self.system_account().name];
        for (name, account) in accounts.iter().filter(|(name, _)| !always.contains(name)) {
            account.change_spec(book.accounts().iter().find(|spec| spec.name == *name));
        }
        let mut new = Vec::new();
        for spec in book.accounts() {
            match accounts.get(&spec.name) {
                Some(account) => account.change_spec(Some(spec)),
                None => {
                    let account = Arc::new(Account::from_spec(spec, AccountRole::Ordinary));
                    accounts.insert(spec.name.clone(), account.clone());
                    new.push(account);
                }
            }
        }
        registry::share(book, &accounts, &self.teller());
        new
    }

    /// Holds everybody to other options and another book from now on, and changes what INFO says. Clients whose
    /// credentials no longer hold are sent away, the others keep what they may still do. Where the book says the same as the
    /// one before, nobody else is asked about them anew. Returns when every client has been looked at, at the latest after
    /// `patience`.
    pub async fn reload(
        &self,
        options: Options,
        (book, is_same): (Book, bool),
        info: impl FnOnce(&mut Info),
        patience: Duration,
    ) {
        let told = |broker: &Broker| {
            let book = broker.gate.book();
            let announced = [ConnectionType::Standard, ConnectionType::WebSocket].map(|way| book.is_announced(way));
            (broker.info(), announced)
        };
        let before = told(self);
        self.closed_clients_lock().set_last_max(options.closed_clients_max);
        self.payload_bytes_max.store(options.session.max_payload, Ordering::Relaxed);
        self.memory.set_bytes_max(options.memory_bytes_max);
        let connections_max = options.connections_max;
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Terms::new(options));
        self.gate.replace(book);
        self.change_info(info);
        let news = told(self) != before;
        let reviews = TaskTracker::new();
        let clients = self.clients();
        for client in &clients {
            client.ask_for_review(Review { news, same_rules: is_same, _token: reviews.token() });
        }
        self.send_away(&clients, connections_max);
        drop(clients);
        reviews.close();
        let _ = tokio::time::timeout(patience, reviews.wait()).await;
    }

    /// Those who came last go when there are more than `max` (nats-server `maxConnOption.Apply`).
    fn send_away(&self, clients: &[Arc<ClientState>], max: usize) {
        let from_outside: Vec<_> = clients.iter().filter(|client| !client.is_in_process()).collect();
        for client in from_outside.iter().rev().take(from_outside.len().saturating_sub(max)) {
            client.set_close_reason("Maximum Connections Exceeded");
            let text = ProtocolError::MaxConnections.text();
            if client.outbox.append(|out| encode::err(out, &text)) == Appended::First {
                client.outbox.wake();
            }
            client.outbox.close(Closed::AfterFlush);
        }
    }
}
