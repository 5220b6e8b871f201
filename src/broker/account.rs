//! An isolated subject space: its router, and who may be asked about interest in it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};

use super::answers::Answers;
use super::bridge::{Bridge, Mapped};
use super::subscription::{Service, StreamDoor, Subscription, Target};
use crate::auth::{AccountSpec, AccountTrace, Mapping};
use crate::router::{InvalidFilter, Matches, Sublist};
use crate::types::transform::Dice;

type InterestWatcher = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What an account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountRole {
    Ordinary,
    /// Of the server's own services and events: the system account. There is one.
    System,
}

/// One account: nobody in it sees what another one's clients publish.
pub struct Account {
    /// In operator mode its public key.
    pub name: String,
    /// What people call it; its name where it has no other.
    pub label: String,
    pub role: AccountRole,
    /// Clients that are in it now.
    connections: AtomicUsize,
    connections_max: AtomicUsize,
    /// Its configuration has gone: nobody finds it any more.
    retired: AtomicBool,
    router: RwLock<Sublist<Target>>,
    /// Changes with every subscription, so that route caches know when they are stale.
    generation: AtomicU64,
    next_key: AtomicU64,
    watchers: RwLock<Vec<InterestWatcher>>,
    /// Where messages with a sampled `traceparent` have their way told, and whether that is anywhere.
    trace: RwLock<Option<Arc<AccountTrace>>>,
    traces: AtomicBool,
    /// `$JS.<domain>.API.`, under which clients reach `$JS.API.` as well.
    domain_prefix: OnceLock<Box<[u8]>>,
    /// The first that matches decides.
    mappings: RwLock<Vec<Mapping>>,
    has_mappings: AtomicBool,
    /// What leads from here into other accounts, by the filters they stand under.
    bridges: Mutex<Vec<(Box<[u8]>, u64)>>,
    /// Accounts whose streams are imported here.
    exporters: RwLock<Vec<Weak<Account>>>,
    /// Accounts with services that are asked from here and measured.
    asked: RwLock<Vec<Weak<Account>>>,
    /// What services here owe to other accounts.
    pub(super) answers: Answers,
}

impl Account {
    pub(super) fn new(name: &str, role: AccountRole) -> Account {
        Account {
            name: name.to_owned(),
            label: name.to_owned(),
            role,
            connections: AtomicUsize::new(0),
            connections_max: AtomicUsize::new(usize::MAX),
            retired: AtomicBool::new(false),
            router: RwLock::new(Sublist::new()),
            generation: AtomicU64::new(1),
            next_key: AtomicU64::new(1),
            watchers: RwLock::new(Vec::new()),
            trace: RwLock::new(None),
            traces: AtomicBool::new(false),
            domain_prefix: OnceLock::new(),
            mappings: RwLock::new(Vec::new()),
            has_mappings: AtomicBool::new(false),
            bridges: Mutex::new(Vec::new()),
            exporters: RwLock::new(Vec::new()),
            asked: RwLock::new(Vec::new()),
            answers: Answers::default(),
        }
    }

    /// Lets clients reach the JetStream API under `$JS.<domain>.API.` too, also when JetStream has been off for a while.
    pub(super) fn set_domain(&self, domain: &str) {
        let prefix = self.domain_prefix.get_or_init(|| format!("$JS.{domain}.API.").into_bytes().into());
        assert_eq!(**prefix, *format!("$JS.{domain}.API.").as_bytes(), "a server has one domain");
    }

    /// What is routed as what from now on.
    pub(super) fn set_mappings(&self, mappings: Vec<Mapping>) {
        self.has_mappings.store(!mappings.is_empty(), Ordering::Release);
        *self.mappings.write().unwrap_or_else(PoisonError::into_inner) = mappings;
    }

    /// What a client's publish on `subject` is routed as.
    #[inline]
    pub(super) fn mapped(&self, subject: &[u8]) -> Mapped {
        if self.has_mappings.load(Ordering::Acquire)
            && let Some(mapped) = self.mapped_by_rule(subject)
        {
            return mapped;
        }
        self.in_domain(subject).map_or(Mapped::Same, Mapped::To)
    }

    #[cold]
    fn mapped_by_rule(&self, subject: &[u8]) -> Option<Mapped> {
        // What is no subject stays what it is: nobody hears it.
        if !crate::types::subject::is_valid_literal(subject) {
            return None;
        }
        let mappings = self.mappings.read().unwrap_or_else(PoisonError::into_inner);
        let mapping = mappings.iter().find(|mapping| mapping.matches(subject))?;
        let to = mapping.apply(subject, rand::random_range(0..100), &mut Dice::new(rand::random()));
        Some(to.map_or(Mapped::Nowhere, Mapped::To))
    }

    /// What a request under the own domain's prefix is, whoever asks (nats-server `generateJSMappingTable`).
    #[inline]
    fn in_domain(&self, subject: &[u8]) -> Option<Vec<u8>> {
        let prefix = self.domain_prefix.get()?;
        let rest = subject.strip_prefix(&**prefix)?;
        let (group, _) = rest.split_at(rest.iter().position(|byte| *byte == b'.').unwrap_or(rest.len()));
        match group {
            b"INFO" if rest == group => {}
            b"STREAM" | b"CONSUMER" | b"DIRECT" | b"META" | b"SERVER" | b"ACCOUNT" => {}
            b"$KV" | b"$OBJ" => return Some(rest.to_vec()),
            _ => return None,
        }
        Some([b"$JS.API.", rest].concat())
    }

    pub(super) fn from_spec(spec: &AccountSpec, role: AccountRole) -> Account {
        let label = if spec.name_tag.is_empty() { &spec.name } else { &spec.name_tag };
        let account = Account { label: label.clone(), ..Account::new(&spec.name, role) };
        account.change_spec(Some(spec));
        account
    }

    /// Holds it to what its configuration says now; `None` when there is none any more.
    pub(super) fn change_spec(&self, spec: Option<&AccountSpec>) {
        self.retired.store(spec.is_none(), Ordering::Relaxed);
        if let Some(spec) = spec {
            self.connections_max.store(spec.connections_max.unwrap_or(usize::MAX), Ordering::Relaxed);
            let mut trace = self.trace.write().unwrap_or_else(PoisonError::into_inner);
            *trace = spec.trace.clone().map(Arc::new);
            self.traces.store(trace.is_some(), Ordering::Relaxed);
        }
    }

    /// Where messages that are sampled elsewhere have their way told; mostly nowhere.
    #[inline]
    pub(super) fn trace(&self) -> Option<Arc<AccountTrace>> {
        match self.traces.load(Ordering::Relaxed) {
            false => None,
            true => self.trace.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    pub fn is_system(&self) -> bool {
        self.role == AccountRole::System
    }

    /// Clients that are in it now.
    pub fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a client in; false when there are as many as there may be.
    pub(super) fn enter(&self) -> bool {
        let max = self.connections_max.load(Ordering::Relaxed);
        let within = |count: usize| (count < max).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    pub(super) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn match_into(&self, subject: &[u8], matches: &mut Matches<Target>) {
        self.router.read().unwrap_or_else(PoisonError::into_inner).match_into(subject, matches);
    }

    /// Whether anybody, a stream included, would receive a message on `subject`; in other accounts too, where a stream is
    /// imported.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        if self.bridges_lock().is_empty() {
            return router.has_interest(subject);
        }
        let mut matches = Matches::default();
        router.match_into(subject, &mut matches);
        drop(router);
        !matches.queues.is_empty()
            || matches.plain.iter().any(|target| match target {
                Target::Bridge(bridge) => bridge.has_interest(subject),
                _ => true,
            })
    }

    /// Whether anybody here, other accounts aside, would receive a message on `subject`.
    pub(super) fn hears(&self, subject: &[u8]) -> bool {
        let mut matches = Matches::default();
        self.match_into(subject, &mut matches);
        !matches.queues.is_empty() || matches.plain.iter().any(|target| !matches!(target, Target::Bridge(_)))
    }

    /// From now on tells `exporter` of interest that changes here: what is published there may be received here.
    pub(super) fn receives_from(&self, exporter: &Arc<Account>) {
        let mut exporters = self.exporters.write().unwrap_or_else(PoisonError::into_inner);
        if !exporters.iter().any(|known| known.as_ptr() == Arc::as_ptr(exporter)) {
            exporters.push(Arc::downgrade(exporter));
        }
    }

    /// From now on tells `exporter` of interest that changes here: answers that are measured there may find nobody.
    pub(super) fn asks(&self, exporter: &Arc<Account>) {
        let mut asked = self.asked.write().unwrap_or_else(PoisonError::into_inner);
        if !asked.iter().any(|known| known.as_ptr() == Arc::as_ptr(exporter)) {
            asked.push(Arc::downgrade(exporter));
        }
    }

    /// Whether there is a subscription on exactly this subject.
    pub fn has_filter(&self, subject: &[u8]) -> bool {
        self.router.read().unwrap_or_else(PoisonError::into_inner).has_filter(subject)
    }

    /// Subscriptions and targets in the router.
    pub fn subscription_count(&self) -> usize {
        self.router.read().unwrap_or_else(PoisonError::into_inner).count()
    }

    /// How often targets were added and removed.
    pub fn change_counts(&self) -> (u64, u64) {
        let count = self.subscription_count() as u64;
        let changes = (self.generation() - 1).max(count);
        let removes = (changes - count) / 2;
        (removes + count, removes)
    }

    /// A key no other target of this account has.
    pub(super) fn new_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    /// Calls `watcher` with the filter of every subscription or target that comes or goes, so that push consumers notice
    /// their interest. The watcher must neither block nor subscribe.
    pub fn watch_interest(&self, watcher: impl Fn(&[u8]) + Send + Sync + 'static) {
        self.watchers.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(watcher));
    }

    fn change<R>(&self, change: impl FnOnce(&mut Sublist<Target>) -> R) -> R {
        let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut router);
        self.generation.fetch_add(1, Ordering::Release);
        result
    }

    fn tell_watchers(&self, filter: &[u8]) {
        for watcher in self.watchers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            watcher(filter);
        }
        for exporter in self.asked.read().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            exporter.answers.doubt(filter);
        }
        for exporter in self.exporters.read().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            // Under whatever name it has there.
            exporter.generation.fetch_add(1, Ordering::Release);
            for watcher in exporter.watchers.read().unwrap_or_else(PoisonError::into_inner).iter() {
                watcher(b">");
            }
        }
    }

    /// # Errors
    /// When the subscription's subject is not a valid filter.
    pub(super) fn subscribe(&self, subscription: &Arc<Subscription>) -> Result<(), InvalidFilter> {
        self.change(|router| {
            router.insert(&subscription.subject, subscription.queue.as_deref(), Target::Client(subscription.clone()))
        })?;
        self.tell_watchers(&subscription.subject);
        Ok(())
    }

    /// Takes the subscription out of the router and of its client. Safe to call more than once.
    pub(super) fn unsubscribe(&self, subscription: &Subscription) {
        subscription.close();
        self.change(|router| router.remove(&subscription.subject, subscription.queue.as_deref(), subscription.key));
        let mut subscriptions = subscription.client.subscriptions();
        if subscriptions.get(&subscription.sid).is_some_and(|current| current.key == subscription.key) {
            subscriptions.remove(&subscription.sid);
        }
        drop(subscriptions);
        self.tell_watchers(&subscription.subject);
    }

    /// Sends what is published on `filter` to a stream. The key takes it back with [`Account::remove_target`].
    ///
    /// # Errors
    /// When `filter` is not valid.
    pub fn add_stream(&self, filter: &[u8], door: Arc<dyn StreamDoor>) -> Result<u64, InvalidFilter> {
        let key = self.new_key();
        self.change(|router| router.insert(filter, None, Target::Stream { key, door }))?;
        self.tell_watchers(filter);
        Ok(key)
    }

    /// Sends what is published on `filter` to a service of the broker.
    ///
    /// # Errors
    /// When `filter` is not valid.
    pub fn add_service(&self, filter: &[u8], service: Arc<dyn Service>) -> Result<u64, InvalidFilter> {
        let key = self.new_key();
        self.change(|router| router.insert(filter, None, Target::Service { key, service }))?;
        self.tell_watchers(filter);
        Ok(key)
    }

    /// Sends what comes on `filter`, which is valid, into another account.
    pub(super) fn add_bridge(&self, filter: &[u8], bridge: Arc<Bridge>) {
        let key = bridge.key;
        if self.change(|router| router.insert(filter, None, Target::Bridge(bridge))).is_ok() {
            self.bridges_lock().push((filter.into(), key));
            self.tell_watchers(filter);
        }
    }

    pub(super) fn has_bridge(&self, filter: &[u8]) -> bool {
        self.bridges_lock().iter().any(|(known, _)| **known == *filter)
    }

    /// Whether another account has a say about `subject`.
    pub(super) fn is_bridged(&self, subject: &[u8]) -> bool {
        self.bridges_lock().iter().any(|(filter, _)| crate::types::subject::matches(filter, subject))
    }

    pub(super) fn remove_bridges(&self) {
        self.exporters.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.asked.write().unwrap_or_else(PoisonError::into_inner).clear();
        let bridges = std::mem::take(&mut *self.bridges_lock());
        for (filter, key) in bridges {
            self.remove_target(&filter, key);
        }
    }

    fn bridges_lock(&self) -> MutexGuard<'_, Vec<(Box<[u8]>, u64)>> {
        self.bridges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn remove_target(&self, filter: &[u8], key: u64) {
        self.change(|router| router.remove(filter, None, key));
        self.tell_watchers(filter);
    }
}
