//! What the broker and its monitoring know of one connected client.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::arrival::TlsTerms;
use super::memory::Memory;
use super::outbox::{Closed, Outbox};
use super::rights::Rights;
use super::subscription::Subscription;
use crate::api::ClientInfo;
use crate::auth::{ConnectionType, Login, TlsFacts};
use crate::session::SessionTraffic;
use crate::types::Timestamp;

/// What CONNECT told about the client.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    pub name: String,
    pub lang: String,
    pub version: String,
    /// The user's name or public key; never a secret.
    pub user: String,
    /// The account's name; empty before CONNECT where credentials are asked for.
    pub account: String,
    /// More about the user, where its JWT tells it.
    pub login: Login,
}

/// One client, shared by its connection, its subscriptions and the registry.
pub struct ClientState {
    /// From 1, never reused while the process lives (nats-server's `cid`).
    pub id: u64,
    /// The peer's address, or `pipe` for one inside the process.
    pub address: String,
    pub connection_type: ConnectionType,
    pub started: Timestamp,
    pub outbox: Outbox,
    subscriptions: Mutex<HashMap<Box<[u8]>, Arc<Subscription>>>,
    /// What its subscriptions take, and what it has sent of an operation that is not whole.
    subscription_bytes: AtomicUsize,
    input_bytes: AtomicUsize,
    identity: Mutex<Identity>,
    rights: Mutex<Rights>,
    in_msgs: AtomicU64,
    in_bytes: AtomicU64,
    last_activity: AtomicU64,
    round_trip_nanos: AtomicU64,
    hears_news: AtomicBool,
    info_terms: OnceLock<InfoTerms>,
    stalls: AtomicU64,
    close_reason: OnceLock<&'static str>,
    tls: OnceLock<Arc<TlsFacts>>,
    /// Whether `review` holds something.
    to_review: AtomicBool,
    review: Mutex<Option<Review>>,
}

/// Asks a client's connection to look at it again, by rules that have changed. It is done when this is dropped.
pub(super) struct Review {
    /// INFO says something else now.
    pub(super) news: bool,
    /// Who may come in is what it was.
    pub(super) same_rules: bool,
    /// Kept until it is done.
    pub(super) _token: TaskTrackerToken,
}

/// What INFO says to one client and not to others.
#[derive(Clone, Default)]
pub(super) struct InfoTerms {
    pub(super) nonce: String,
    pub(super) tls: TlsTerms,
    /// When it is not the client port.
    pub(super) port: Option<u16>,
    /// Nobody asks it who it is.
    pub(super) trusted: bool,
}

impl ClientState {
    pub(super) fn new(
        id: u64,
        address: String,
        connection_type: ConnectionType,
        started: Timestamp,
        pending_bytes_max: usize,
        memory: &Arc<Memory>,
    ) -> ClientState {
        ClientState {
            id,
            address,
            connection_type,
            started,
            outbox: Outbox::new(pending_bytes_max, memory),
            subscriptions: Mutex::new(HashMap::new()),
            subscription_bytes: AtomicUsize::new(0),
            input_bytes: AtomicUsize::new(0),
            identity: Mutex::new(Identity::default()),
            rights: Mutex::new(Rights::default()),
            in_msgs: AtomicU64::new(0),
            in_bytes: AtomicU64::new(0),
            last_activity: AtomicU64::new(started.nanos() as u64),
            round_trip_nanos: AtomicU64::new(0),
            hears_news: AtomicBool::new(false),
            info_terms: OnceLock::new(),
            stalls: AtomicU64::new(0),
            close_reason: OnceLock::new(),
            tls: OnceLock::new(),
            to_review: AtomicBool::new(false),
            review: Mutex::new(None),
        }
    }

    /// The client's subscriptions by sid. Never held while the router is locked.
    pub(super) fn subscriptions(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Arc<Subscription>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the client's subscriptions, for monitoring.
    pub fn subscription_list(&self) -> Vec<Arc<Subscription>> {
        self.subscriptions().values().cloned().collect()
    }

    pub fn subscription_count(&self) -> usize {
        self.subscriptions().len()
    }

    /// What the process holds for this client.
    pub fn held_bytes(&self) -> usize {
        self.outbox.waiting_bytes() + self.subscription_bytes() + self.input_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn subscription_bytes(&self) -> usize {
        self.subscription_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_subscription_bytes(&self, bytes: usize) {
        self.subscription_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove_subscription_bytes(&self, bytes: usize) {
        self.subscription_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Tells how much has come of an operation that is not whole yet.
    pub fn set_input_bytes(&self, bytes: usize) {
        self.input_bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn identity(&self) -> Identity {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is one of those whom `wanted` picks.
    pub fn is_one(&self, wanted: impl FnOnce(&Identity) -> bool) -> bool {
        wanted(&self.identity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_identity(&self, identity: Identity) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    pub fn rights(&self) -> Rights {
        self.rights.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_rights(&self, rights: Rights) {
        *self.rights.lock().unwrap_or_else(PoisonError::into_inner) = rights;
    }

    /// What the client must not be given, in its own account: what is denied whatever the queue group.
    pub fn denied_filters(&self) -> Vec<String> {
        self.rights().permit.map_or_else(Vec::new, |permit| permit.denied_filters().map(str::to_owned).collect())
    }

    pub(super) fn set_traffic(&self, traffic: SessionTraffic, now: Timestamp) {
        self.in_msgs.store(traffic.in_msgs, Ordering::Relaxed);
        self.in_bytes.store(traffic.in_bytes, Ordering::Relaxed);
        self.last_activity.store(now.nanos() as u64, Ordering::Relaxed);
    }

    /// Messages and bytes published by the client.
    pub fn counts_in(&self) -> (u64, u64) {
        (self.in_msgs.load(Ordering::Relaxed), self.in_bytes.load(Ordering::Relaxed))
    }

    pub fn last_activity(&self) -> Timestamp {
        Timestamp(self.last_activity.load(Ordering::Relaxed) as i64)
    }

    pub(super) fn way(&self) -> ConnectionType {
        self.connection_type
    }

    /// Says what its INFOs say. To be called once, before the first.
    pub(super) fn set_info_terms(&self, terms: InfoTerms) {
        let _ = self.info_terms.set(terms);
    }

    pub(super) fn info_terms(&self) -> InfoTerms {
        self.info_terms.get().cloned().unwrap_or_default()
    }

    pub fn is_in_process(&self) -> bool {
        self.connection_type == ConnectionType::InProcess
    }

    /// The peer's address without its port.
    pub fn ip(&self) -> &str {
        self.address.rsplit_once(':').map_or("", |(ip, _)| ip).trim_matches(['[', ']'])
    }

    /// How it speaks, as nats-server names it.
    pub fn kind(&self) -> &'static str {
        match self.connection_type {
            ConnectionType::WebSocket => "websocket",
            _ => "nats",
        }
    }

    /// Who it is, in `account` and by what it told of itself.
    pub fn info(&self, identity: Identity, account: &str) -> ClientInfo {
        ClientInfo {
            start: Some(self.started),
            host: self.ip().to_owned(),
            id: self.id,
            acc: account.to_owned(),
            user: identity.user,
            name: identity.name,
            lang: identity.lang,
            ver: identity.version,
            rtt: self.round_trip().as_nanos() as u64,
            kind: "Client",
            client_type: self.kind(),
            ..ClientInfo::default()
        }
    }

    /// The client has had the INFO that follows its first PING.
    pub(super) fn set_hears_news(&self) {
        self.hears_news.store(true, Ordering::Relaxed);
    }

    /// Whether the client takes further INFOs, and is ready for them.
    pub fn hears_news(&self) -> bool {
        self.hears_news.load(Ordering::Relaxed)
    }

    pub(super) fn set_round_trip(&self, round_trip: Duration) {
        self.round_trip_nanos.store(round_trip.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The last PING's round trip, zero before the first.
    pub fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.round_trip_nanos.load(Ordering::Relaxed))
    }

    /// Counts that it had to wait because a receiver of its messages was behind.
    pub fn count_stall(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Has the connection look at its client again.
    pub(super) fn ask_for_review(&self, review: Review) {
        let mut waiting = self.review.lock().unwrap_or_else(PoisonError::into_inner);
        // What an earlier one would have told counts as well.
        let news = review.news || waiting.as_ref().is_some_and(|earlier| earlier.news);
        let same_rules = review.same_rules && waiting.as_ref().is_none_or(|earlier| earlier.same_rules);
        *waiting = Some(Review { news, same_rules, ..review });
        drop(waiting);
        self.to_review.store(true, Ordering::Release);
        self.outbox.nudge();
    }

    /// Whether [`super::Link::review`] is due.
    pub fn is_to_be_reviewed(&self) -> bool {
        self.to_review.load(Ordering::Acquire)
    }

    pub(super) fn take_review(&self) -> Option<Review> {
        self.to_review.store(false, Ordering::Release);
        self.review.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns once the connection is to end, or the client to be looked at again. Cancel safe.
    pub async fn until_told(&self) {
        self.outbox.until_closed_or(|| self.is_to_be_reviewed()).await;
    }

    /// Notes why the connection ends, in nats-server's words (`ClosedState.String`). The first reason stays.
    pub fn set_close_reason(&self, reason: &'static str) {
        let _ = self.close_reason.set(reason);
    }

    pub fn close_reason(&self) -> Option<&'static str> {
        self.close_reason.get().copied()
    }

    pub(super) fn set_tls(&self, facts: TlsFacts) {
        let _ = self.tls.set(Arc::new(facts));
    }

    /// What its TLS handshake settled; `None` in the clear.
    pub fn tls(&self) -> Option<&Arc<TlsFacts>> {
        self.tls.get()
    }

    /// Ends the connection once what waits for it is written.
    pub fn close(&self, reason: &'static str) {
        self.set_close_reason(reason);
        self.outbox.close(Closed::AfterFlush);
    }
}
