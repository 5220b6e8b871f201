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
/// What all that are remembered may hold: names are the clients' choice, and may be as long as CONNECT.
const BYTES_MAX: usize = 8 << 20;

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
    /// What those hold.
    bytes: usize,
    last_max: usize,
    by_account: HashMap<String, AccountTraffic>,
}

impl ClosedClients {
    /// Remembers up to `last_max` connections that ended.
    pub(super) fn new(last_max: usize) -> ClosedClients {
        ClosedClients { last: VecDeque::new(), bytes: 0, last_max, by_account: HashMap::new() }
    }

    pub(super) fn remember(&mut self, client: Arc<ClosedClient>, slow: bool, state: &ClientState) {
        let traffic = self.by_account.entry(client.identity.account.clone()).or_default();
        traffic.add(state);
        traffic.slow_consumers += u64::from(slow);
        self.bytes += client.weight_bytes();
        self.last.push_back(client);
        self.forget();
    }

    fn forget(&mut self) {
        while self.last.len() > self.last_max || self.bytes > BYTES_MAX {
            let Some(oldest) = self.last.pop_front() else { break };
            self.bytes -= oldest.weight_bytes();
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
    fn weight_bytes(&self) -> usize {
        let Identity { account, user, name, lang, version, .. } = &self.identity;
        let names: usize = [account, user, name, lang, version, &self.address].map(|text| text.len()).iter().sum();
        let of = |subscription: &ClosedSubscription| {
            let queue = subscription.queue.as_ref().map_or(0, |queue| queue.len());
            size_of::<ClosedSubscription>() + subscription.sid.len() + subscription.subject.len() + queue
        };
        size_of::<ClosedClient>() + names + self.subscriptions.iter().map(of).sum::<usize>()
    }

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

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::*;
    use crate::auth::ConnectionType;

    #[test]
    fn long_names_of_many_who_have_gone_fill_no_memory() {
        let memory = Arc::new(Memory::new(usize::MAX));
        let state = ClientState::new(1, "a".to_owned(), ConnectionType::Standard, Timestamp(1), 1, &memory);
        let mut closed = ClosedClients::new(10_000);
        let mut remember = |name_bytes: usize| {
            state.set_identity(Identity { name: "n".repeat(name_bytes), ..Identity::default() });
            closed.remember(Arc::new(ClosedClient::of(&state, Timestamp(2))), false, &state);
            closed.list().len()
        };
        let kept = (0..5000).map(|_| remember(4000)).last().unwrap();
        assert!((1000..=BYTES_MAX / 4000).contains(&kept), "{kept}");
        // They make room for those after them.
        let kept = (0..10_000).map(|_| remember(10)).last().unwrap();
        assert_eq!(kept, 10_000);
        assert_eq!(closed.bytes, closed.last.iter().map(|client| client.weight_bytes()).sum::<usize>());
    }
}
