//! Who is connected, what every client is held to, and what all of them did together.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashMap;

use super::account::{Account, AccountRole};
use super::arrival::Arrival;
use super::bridge;
use super::callout::ServerKeys;
use super::client_state::{ClientState, Identity};
use super::closed::{AccountTraffic, ClosedClient, ClosedClients};
use super::courier::Courier;
use super::gate::Gate;
use super::latency::Teller;
use super::memory::Memory;
use super::meter::Meter;
use super::outbox::Appended;
use super::places::{Place, Places};
use crate::auth::{Book, ConnectionType, DEFAULT_ACCOUNT, Mapping};
use crate::protocol::{Info, encode};
use crate::session::Settings;
use crate::types::Timestamp;

/// What a broker holds its clients to, beside the [`Settings`] of their sessions.
#[derive(Clone, Debug)]
pub struct Options {
    /// `auth_required` in it is of no account: the gate's book says that.
    pub session: Settings,
    /// Bytes that may wait for one client before it is cut as a slow consumer.
    pub pending_bytes_max: usize,
    /// Of one client; 0 for no limit.
    pub subscriptions_max: usize,
    pub connections_max: usize,
    /// Connections that ended which are remembered.
    pub closed_clients_max: usize,
    /// How long one write to a client may take.
    pub write_deadline: Duration,
    /// What all clients together can make the process hold: see [`Memory`].
    pub memory_bytes_max: usize,
    /// What those who answer auth callouts are told of the server.
    pub server_tags: Vec<String>,
}

/// A client that came or went, for those who track agents by their connection.
#[derive(Clone)]
pub struct Presence {
    pub client_id: u64,
    /// What CONNECT told.
    pub identity: Identity,
    pub connected: bool,
    /// The client; None of its counts change any more once it is not connected.
    pub client: Arc<ClientState>,
    /// What is remembered of one that has gone.
    pub closed: Option<Arc<ClosedClient>>,
}

/// Counters over the broker's life, closed connections included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub connections: u64,
    pub slow_consumers: u64,
    pub stale_connections: u64,
    /// How often a publisher had to wait for its receivers.
    pub stalls: u64,
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
}

/// The options, and what sessions are held to by them. A reload replaces them.
pub(super) struct Terms {
    pub(super) options: Options,
    /// Of clients that are let in without being asked.
    open: Arc<Settings>,
    /// Of clients that must say who they are.
    guarded: Arc<Settings>,
}

impl Terms {
    pub(super) fn new(options: Options) -> Terms {
        let settings = |auth_required| Arc::new(Settings { auth_required, ..options.session.clone() });
        Terms { open: settings(false), guarded: settings(true), options }
    }

    /// For clients that are `asked` who they are, or not.
    pub(super) fn settings(&self, asked: bool) -> &Arc<Settings> {
        if asked { &self.guarded } else { &self.open }
    }
}

type PresenceWatcher = Box<dyn Fn(&Presence) + Send + Sync>;

/// The heart of the process: clients, their accounts, and the limits they are held to.
pub struct Broker {
    pub(super) terms: RwLock<Arc<Terms>>,
    /// As in the terms, for those who ask for every message.
    pub(super) payload_bytes_max: AtomicUsize,
    /// The default account, `$G`.
    pub account: Arc<Account>,
    /// All accounts, by name, the default and the system account among them, and those that have been retired.
    pub(super) accounts: RwLock<HashMap<String, Arc<Account>>>,
    system_account: Arc<Account>,
    pub gate: Gate,
    pub memory: Arc<Memory>,
    pub(super) keys: ServerKeys,
    closed_clients: Mutex<ClosedClients>,
    pub started: Timestamp,
    /// What INFO says; `client_id` and `client_ip` are filled in for each client.
    info: RwLock<Info>,
    clients: Mutex<HashMap<u64, Arc<ClientState>>>,
    places: Places,
    next_client_id: AtomicU64,
    closed: Mutex<Totals>,
    presence_watchers: RwLock<Vec<PresenceWatcher>>,
    meter: OnceLock<Arc<Meter>>,
    system: Arc<ClientState>,
}

impl Broker {
    /// A broker that asks nobody who they are.
    pub fn new(info: Info, options: Options, now: Timestamp) -> Arc<Broker> {
        Broker::with_book(info, options, Book::open(), ServerKeys::default(), now)
    }

    /// A broker that lets in whom `book` knows.
    pub fn with_book(info: Info, options: Options, book: Book, keys: ServerKeys, now: Timestamp) -> Arc<Broker> {
        let memory = Arc::new(Memory::new(options.memory_bytes_max));
        let system = ClientState::new(0, "system".to_owned(), ConnectionType::InProcess, now, usize::MAX, &memory);
        let system = Arc::new(system);
        let role = |name: &str| match name == book.system_account() {
            true => AccountRole::System,
            false => AccountRole::Ordinary,
        };
        let mut accounts: HashMap<String, Arc<Account>> = HashMap::new();
        for spec in book.accounts() {
            accounts.insert(spec.name.clone(), Arc::new(Account::from_spec(spec, role(&spec.name))));
        }
        for name in [DEFAULT_ACCOUNT, book.system_account()] {
            accounts.entry(name.to_owned()).or_insert_with(|| Arc::new(Account::new(name, role(name))));
        }
        share(&book, &accounts, &Teller { origin: system.clone(), server: info.server_name.as_str().into() });
        Arc::new(Broker {
            account: accounts[DEFAULT_ACCOUNT].clone(),
            system_account: accounts[book.system_account()].clone(),
            accounts: RwLock::new(accounts),
            gate: Gate::new(book),
            memory,
            keys,
            closed_clients: Mutex::new(ClosedClients::new(options.closed_clients_max)),
            started: now,
            info: RwLock::new(info),
            clients: Mutex::new(HashMap::new()),
            places: Places::default(),
            next_client_id: AtomicU64::new(1),
            closed: Mutex::new(Totals::default()),
            presence_watchers: RwLock::new(Vec::new()),
            meter: OnceLock::new(),
            system,
            payload_bytes_max: AtomicUsize::new(options.session.max_payload),
            terms: RwLock::new(Arc::new(Terms::new(options))),
        })
    }

    pub(super) fn teller(&self) -> Teller {
        Teller { origin: self.system.clone(), server: self.info().server_name.as_str().into() }
    }

    pub(super) fn terms(&self) -> Arc<Terms> {
        self.terms.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What clients are held to now.
    pub fn options(&self) -> Options {
        self.terms().options.clone()
    }

    /// The largest headers and payload a client may send.
    #[inline]
    pub fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max.load(Ordering::Relaxed)
    }

    fn clients_lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<ClientState>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed_lock(&self) -> MutexGuard<'_, Totals> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn closed_clients_lock(&self) -> MutexGuard<'_, ClosedClients> {
        self.closed_clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last connections that ended, oldest first.
    pub fn closed_clients(&self) -> Vec<Arc<ClosedClient>> {
        self.closed_clients_lock().list()
    }

    /// What the account's clients did, those that have gone included.
    pub fn traffic_of(&self, account: &str) -> AccountTraffic {
        let mut traffic = self.closed_clients_lock().traffic(account);
        let is_in = |client: &&Arc<ClientState>| client.is_one(|who| who.account == account);
        self.clients_lock().values().filter(is_in).for_each(|client| traffic.add(client));
        traffic
    }

    /// The same of every account whose clients did anything, in one pass over the clients.
    pub fn traffic(&self) -> HashMap<String, AccountTraffic> {
        let mut all = self.closed_clients_lock().traffic_by_account();
        for client in self.clients_lock().values() {
            client.is_one(|who| {
                all.entry_ref(&*who.account).or_default().add(client);
                true
            });
        }
        all
    }

    /// The connected client of that id.
    pub fn client(&self, id: u64) -> Option<Arc<ClientState>> {
        self.clients_lock().get(&id).cloned()
    }

    /// Tells a client to connect elsewhere, because the server is about to go.
    pub fn tell_lame_duck(&self, client: &ClientState) {
        let info = Info { lame_duck: true, ..self.info_for(client) };
        if client.outbox.append(|out| encode::info(out, &info)) == Appended::First {
            client.outbox.wake();
        }
    }

    /// Counts what clients publish by subject; of those that connect from now on. To be called once.
    pub fn count_subjects(&self, meter: Meter) {
        let _ = self.meter.set(Arc::new(meter));
    }

    /// The counts by subject, where they are asked for.
    pub fn meter(&self) -> Option<&Arc<Meter>> {
        self.meter.get()
    }

    /// Counts that a publisher had to wait for its receivers.
    pub fn count_stall(&self) {
        self.closed_lock().stalls += 1;
    }

    /// A courier for messages of the broker's own in the default account.
    pub fn courier(&self) -> Courier {
        self.courier_in(&self.account)
    }

    /// A courier for messages of the broker's own in `account`.
    pub fn courier_in(&self, account: &Arc<Account>) -> Courier {
        Courier::new(account.clone(), self.system.clone())
    }

    /// The account of the server's own services and events.
    pub fn system_account(&self) -> &Arc<Account> {
        &self.system_account
    }

    pub fn find_account(&self, name: &str) -> Option<Arc<Account>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.get(name).filter(|account| !account.is_retired()).cloned()
    }

    /// Every account, by name.
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let mut accounts: Vec<_> = accounts.values().filter(|account| !account.is_retired()).cloned().collect();
        accounts.sort_by(|left, right| left.name.cmp(&right.name));
        accounts
    }

    pub fn info(&self) -> Info {
        self.info.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What INFO says to this client.
    pub(super) fn info_for(&self, client: &ClientState) -> Info {
        let mut info = self.info();
        let terms = client.info_terms();
        info.client_id = client.id;
        info.auth_required = !terms.trusted && self.gate.book().is_announced(client.way());
        info.nonce.clone_from(&terms.nonce);
        info.tls_required = terms.tls.required;
        info.tls_available = terms.tls.available;
        info.tls_verify = terms.tls.verify;
        info.port = terms.port.unwrap_or(info.port);
        info.client_ip = client.ip().to_owned();
        info
    }

    /// Changes what INFO says to clients from now on.
    pub fn change_info(&self, change: impl FnOnce(&mut Info)) {
        change(&mut self.info.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Changes what INFO says and tells those clients that take news of it (CONNECT's `protocol` 1).
    pub fn announce(&self, change: impl FnOnce(&mut Info)) {
        self.change_info(change);
        for client in self.clients().iter().filter(|client| client.hears_news()) {
            let info = self.info_for(client);
            if client.outbox.append(|out| encode::info(out, &info)) == Appended::First {
                client.outbox.wake();
            }
        }
    }

    /// Calls `watcher` when a client has said CONNECT and when it has gone. The watcher must not block.
    pub fn watch_presence(&self, watcher: impl Fn(&Presence) + Send + Sync + 'static) {
        self.presence_watchers.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(watcher));
    }

    pub(super) fn tell_presence(&self, client: &Arc<ClientState>, closed: Option<Arc<ClosedClient>>) {
        let presence = Presence {
            client_id: client.id,
            identity: client.identity(),
            connected: closed.is_none(),
            client: client.clone(),
            closed,
        };
        for watcher in self.presence_watchers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            watcher(&presence);
        }
    }

    /// A place for a client that is about to come; `None` when `connections_max` are taken.
    pub fn take_place(&self) -> Option<Arc<Place>> {
        self.places.take(self.terms().options.connections_max)
    }

    /// Registers a client; `None` when there is no place for it.
    pub(super) fn admit(&self, arrival: &mut Arrival, now: Timestamp) -> Option<Arc<ClientState>> {
        let terms = self.terms();
        // Where clients have filled the house, the server's own parts still come in.
        if arrival.place.is_none() && arrival.trusted.is_none() {
            arrival.place = Some(self.take_place()?);
        }
        let mut clients = self.clients_lock();
        let id = self.next_client_id.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(ClientState::new(
            id,
            arrival.address.clone(),
            arrival.way(),
            now,
            terms.options.pending_bytes_max,
            &self.memory,
        ));
        clients.insert(id, client.clone());
        self.closed_lock().connections += 1;
        Some(client)
    }

    /// Takes the client off the list, as `last` describes it.
    pub(super) fn dismiss(&self, client: &ClientState, last: Arc<ClosedClient>) {
        self.clients_lock().remove(&client.id);
        let slow = last.reason.starts_with("Slow Consumer");
        self.closed_clients_lock().remember(last, slow, client);
        let (in_msgs, in_bytes) = client.counts_in();
        let (out_msgs, out_bytes) = client.outbox.counts();
        let mut closed = self.closed_lock();
        closed.in_msgs += in_msgs;
        closed.in_bytes += in_bytes;
        closed.out_msgs += out_msgs;
        closed.out_bytes += out_bytes;
    }

    /// Counts a client cut because it read too slowly.
    pub fn count_slow_consumer(&self) {
        self.closed_lock().slow_consumers += 1;
    }

    /// Counts a client cut because it answered no PING.
    pub fn count_stale_connection(&self) {
        self.closed_lock().stale_connections += 1;
    }

    /// Everyone connected now, in order of their ids.
    pub fn clients(&self) -> Vec<Arc<ClientState>> {
        let mut clients: Vec<_> = self.clients_lock().values().cloned().collect();
        clients.sort_by_key(|client| client.id);
        clients
    }

    pub fn client_count(&self) -> usize {
        self.clients_lock().len()
    }

    pub fn totals(&self) -> Totals {
        let clients = self.clients();
        let mut totals = *self.closed_lock();
        for client in clients {
            let (in_msgs, in_bytes) = client.counts_in();
            let (out_msgs, out_bytes) = client.outbox.counts();
            totals.in_msgs += in_msgs;
            totals.in_bytes += in_bytes;
            totals.out_msgs += out_msgs;
            totals.out_bytes += out_bytes;
        }
        totals
    }
}

/// Lets accounts map subjects and see of each other what the book says, in place of what was said before.
pub(super) fn share(book: &Book, accounts: &HashMap<String, Arc<Account>>, teller: &Teller) {
    for complaint in book.complaints() {
        tracing::warn!("{complaint}");
    }
    let all: Vec<_> = accounts.values().cloned().collect();
    for account in &all {
        let mappings = book.mappings(&account.name).iter();
        account.set_mappings(mappings.filter_map(|spec| Mapping::new(spec).ok()).collect());
    }
    bridge::install(book.routes(), |name| accounts.get(name).cloned(), &all, teller);
}
