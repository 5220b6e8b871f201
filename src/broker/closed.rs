//! Connections that have ended: the last of them one by one, and all of them in sums by account.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::client_state::{ClientState, Identity};
use super::outbox::Closed;
use super::subscription::Subscription;
use crate::types::Timestamp;

/// Subscriptions remembered of each, while their names are no longer than this in all: thousands of connections are.
const SUBSCRIPTIONS_MAX: usize = 32;
const NAMES_BYTES_MAX: usize = 1024;

/// A connection that has ended.
#[derive(Clone, Debug)]
pub struct ClosedClient {
    pub id: u64,
    pub address: String,
    /// `nats` or `websocket`.
    pub kind: &'static str,
    pub identity: Identity,
    pub started: Timestamp,
    pub stopped: Timestamp,
    pub last_activity: Timestamp,
    /// Why, in nats-server's words (`ClosedState.String`).
    pub reason: &'static str,
    pub round_trip: Duration,
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
    pub stalls: u64,
    pub subscription_count: usize,
    /// The first of its subscriptions.
    pub subscriptions: Vec<ClosedSubscription>,
}

/// A subscription of a connection that has ended.
#[derive(Clone, Debug)]
pub struct ClosedSubscription {
    pub sid: Box<[u8]>,
    pub subject: Box<[u8]>,
    pub queue: Option<Box<[u8]>>,
    pub delivered: u64,
    pub deliveries_max: u64,
}

/// What an account's clients did, as seen by the server: `in` is what they published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountTraffic {
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
    pub slow_consumers: u64,
}

impl AccountTraffic {
    pub(super) fn add(&mut self, client: &ClientState) {
        let (in_msgs, in_bytes) = client.counts_in();
        let (out_msgs, out_bytes) = client.outbox.counts();
        self.in_msgs += in_msgs;
        self.in_bytes += in_bytes;
        self.out_msgs += out_msgs;
        self.out_bytes += out_bytes;
    }
}

/// See the module.
pub(super) struct ClosedClients {
    last: VecDeque<Arc<ClosedClient>>,
    last_max: usize,
    by_account: HashMap<String, AccountTraffic>,
}

impl ClosedClients {
    /// Remembers up to `last_max` connections that ended.
    pub(super) fn new(last_max: usize) -> ClosedClients {
        ClosedClients { last: VecDeque::new(), last_max, by_account: HashMap::new() }
    }

    pub(super) fn remember(&mut self, client: Arc<ClosedClient>, slow: bool, state: &ClientState) {
        let traffic = self.by_account.entry(client.identity.account.clone()).or_default();
        traffic.add(state);
        traffic.slow_consumers += u64::from(slow);
        self.last.push_back(client);
        self.forget();
    }

    fn forget(&mut self) {
        while self.last.len() > self.last_max {
            self.last.pop_front();
        }
    }

    pub(super) fn set_last_max(&mut self, last_max: usize) {
        self.last_max = last_max;
        self.forget();
    }

    /// The last ones, oldest first.
    pub(super) fn list(&self) -> Vec<Arc<ClosedClient>> {
        self.last.iter().cloned().collect()
    }

    pub(super) fn traffic_by_account(&self) -> HashMap<String, AccountTraffic> {
        self.by_account.clone()
    }

    pub(super) fn traffic(&self, account: &str) -> AccountTraffic {
        self.by_account.get(account).copied().unwrap_or_default()
    }
}

impl ClosedClient {
    /// What is to be remembered of a client that goes now. Its subscriptions must still be there.
    pub(super) fn of(client: &ClientState, now: Timestamp) -> ClosedClient {
        let (in_msgs, in_bytes) = client.counts_in();
        let (out_msgs, out_bytes) = client.outbox.counts();
        let subscriptions = client.subscription_list();
        let mut names_bytes = 0;
        let is_short = |subscription: &&Arc<Subscription>| {
            names_bytes += subscription.sid.len() + subscription.subject.len();
            names_bytes += subscription.queue.as_ref().map_or(0, |queue| queue.len());
            names_bytes <= NAMES_BYTES_MAX
        };
        let reason = match client.outbox.closed() {
            Some(Closed::SlowConsumer) if client.close_reason().is_none() => "Slow Consumer (Pending Bytes)",
            _ => client.close_reason().unwrap_or("Client Closed"),
        };
        ClosedClient {
            id: client.id,
            address: client.address.clone(),
            kind: client.kind(),
            identity: client.identity(),
            started: client.started,
            stopped: now,
            last_activity: client.last_activity(),
            reason,
            round_trip: client.round_trip(),
            in_msgs,
            in_bytes,
            out_msgs,
            out_bytes,
            stalls: client.stalls(),
            subscription_count: subscriptions.len(),
            subscriptions: subscriptions
                .iter()
                .take(SUBSCRIPTIONS_MAX)
                .take_while(is_short)
                .map(|subscription| ClosedSubscription {
                    sid: subscription.sid.clone(),
                    subject: subscription.subject.clone(),
                    queue: subscription.queue.clone(),
                    delivered: subscription.delivered(),
                    deliveries_max: subscription.deliveries_max(),
                })
                .collect(),
        }
    }
}
