//! An isolated subject space: its router, and who may be asked about interest in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::subscription::{Service, StreamDoor, Subscription, Target};
use crate::router::{InvalidFilter, Matches, Sublist};

type InterestWatcher = Box<dyn Fn(&[u8]) + Send + Sync>;

/// One account. Today there is one, `$G`, as in a nats-server without accounts.
pub struct Account {
    pub name: String,
    router: RwLock<Sublist<Target>>,
    /// Changes with every subscription, so that route caches know when they are stale.
    generation: AtomicU64,
    next_key: AtomicU64,
    watchers: RwLock<Vec<InterestWatcher>>,
    /// `$JS.<domain>.API.`, under which clients reach `$JS.API.` as well.
    domain_prefix: OnceLock<Box<[u8]>>,
}

impl Account {
    pub fn new(name: &str) -> Account {
        Account {
            name: name.to_owned(),
            router: RwLock::new(Sublist::new()),
            generation: AtomicU64::new(1),
            next_key: AtomicU64::new(1),
            watchers: RwLock::new(Vec::new()),
            domain_prefix: OnceLock::new(),
        }
    }

    /// Lets clients reach the JetStream API under `$JS.<domain>.API.` too. Once.
    pub(super) fn set_domain(&self, domain: &str) {
        let set = self.domain_prefix.set(format!("$JS.{domain}.API.").into_bytes().into());
        assert!(set.is_ok(), "a domain is set once, when JetStream starts");
    }

    /// What a client's publish on `subject` is routed as, when that differs (nats-server `generateJSMappingTable`).
    #[inline]
    pub(super) fn mapped(&self, subject: &[u8]) -> Option<Vec<u8>> {
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

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn match_into(&self, subject: &[u8], matches: &mut Matches<Target>) {
        self.router.read().unwrap_or_else(PoisonError::into_inner).match_into(subject, matches);
    }

    /// Whether anybody, a stream included, would receive a message on `subject`.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        self.router.read().unwrap_or_else(PoisonError::into_inner).has_interest(subject)
    }

    /// Subscriptions and targets in the router.
    pub fn subscription_count(&self) -> usize {
        self.router.read().unwrap_or_else(PoisonError::into_inner).count()
    }

    /// A key no other target of this account has.
    pub(super) fn new_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    /// Calls `watcher` with the filter of every client subscription that comes or goes, so that push consumers notice
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
        Ok(key)
    }

    /// Sends what is published on `filter` to a service of the broker.
    ///
    /// # Errors
    /// When `filter` is not valid.
    pub fn add_service(&self, filter: &[u8], service: Arc<dyn Service>) -> Result<u64, InvalidFilter> {
        let key = self.new_key();
        self.change(|router| router.insert(filter, None, Target::Service { key, service }))?;
        Ok(key)
    }

    pub fn remove_target(&self, filter: &[u8], key: u64) {
        self.change(|router| router.remove(filter, None, key));
    }
}
