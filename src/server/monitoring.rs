//! The broker as monitoring sees it.

use std::sync::{Arc, OnceLock, PoisonError};

use hashbrown::HashSet;
use tokio::sync::{mpsc, oneshot};

use super::coordinators::Board;
use crate::auth::{CertificateFacts, TlsFacts};
use crate::broker::jetstream::{self, Accounts, StreamReport, Strictness};
use crate::broker::{AccountTraffic, Broker, ClientState, ClosedClient, SubjectCounts};
use crate::config::Config;
use crate::monitor::{
    Account, Boxed, Connection, JetStream, NO_CONFIG_FILE, PeerCertificate, Routes, Source, Stream, SubjectTraffic,
    Subscription, Tasks, Tls, Totals, Wanted,
};
use crate::types::ApiError;

/// Reads counters and lists off a running broker.
pub struct BrokerSource {
    broker: Arc<Broker>,
    jetstream: Accounts,
    coordinators: Board,
    store_dir: String,
    reloads: Reloads,
}

/// Where requests to read the configuration again go; empty when nobody takes them.
pub type Reloads = Arc<OnceLock<mpsc::Sender<ReloadRequest>>>;

/// Somebody asks for the configuration to be read again, and wants to know what came of it.
pub struct ReloadRequest(pub oneshot::Sender<Result<(), String>>);

impl BrokerSource {
    pub fn new(
        broker: Arc<Broker>,
        jetstream: Accounts,
        coordinators: Board,
        config: &Config,
        reloads: Reloads,
    ) -> BrokerSource {
        BrokerSource { broker, jetstream, coordinators, store_dir: config.store_dir.display().to_string(), reloads }
    }

    /// Accounts' JetStreams. Where other accounts have one, the default account's is told of only when it is used.
    fn shown(&self) -> Vec<Arc<jetstream::JetStream>> {
        let mut shown = self.all();
        shown.retain(|jetstream| self.broker.find_account(&jetstream.account().name).is_some());
        if shown.len() > 1 && shown[0].account_info().tier.streams == 0 {
            shown.remove(0);
        }
        shown
    }

    fn all(&self) -> Vec<Arc<jetstream::JetStream>> {
        self.jetstream.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn jetstream_figures(&self, with_streams: bool, with_consumers: bool) -> Vec<JetStream> {
        let Some(server) = self.all().into_iter().next() else { return Vec::new() };
        let mut figures = Vec::new();
        for jetstream in self.shown() {
            let account = jetstream.account_info();
            let (messages, bytes) = jetstream.totals();
            let mut streams = Vec::new();
            if with_streams || with_consumers {
                streams.extend(jetstream.reports(with_consumers).await.iter().map(stream));
            }
            figures.push(JetStream {
                account: jetstream.account().name.clone(),
                memory_bytes: account.tier.memory,
                storage_bytes: account.tier.storage,
                reserved_memory_bytes: account.tier.reserved_memory,
                reserved_storage_bytes: account.tier.reserved_storage,
                api_level: account.api.level,
                api_total: account.api.total,
                api_errors: account.api.errors,
                max_memory_bytes: server.options().budget.memory_bytes_max(),
                max_storage_bytes: server.options().budget.storage_bytes_max(),
                strict: server.options().strictness == Strictness::Strict,
                limits: server.options().budget.limits,
                domain: server.options().domain.clone(),
                store_dir: self.store_dir.clone(),
                num_streams: account.tier.streams as u64,
                num_consumers: account.tier.consumers as u64,
                messages,
                bytes,
                streams,
            });
        }
        figures
    }
}

fn json<T: serde::Serialize>(value: &T) -> serde_json::Value {
    serde_json::to_value(value).expect("what the API answers with is JSON")
}

fn stream(report: &StreamReport) -> Stream {
    Stream {
        name: report.info.config.name.clone(),
        created: report.info.created,
        config: json(&report.info.config),
        state: json(&report.info.state),
        consumers: report.consumers.iter().map(json).collect(),
    }
}

impl BrokerSource {
    fn account_of(&self, account: &crate::broker::Account, traffic: AccountTraffic, jetstream: bool) -> Account {
        Account {
            is_system: account.is_system(),
            jetstream,
            connections: account.connection_count() as u64,
            subscriptions: account.subscription_count() as u64,
            routes: routes(account),
            in_msgs: traffic.in_msgs,
            in_bytes: traffic.in_bytes,
            out_msgs: traffic.out_msgs,
            out_bytes: traffic.out_bytes,
            slow_consumers: traffic.slow_consumers,
            updated: self.broker.started,
            name: account.name.clone(),
        }
    }
}

impl Source for BrokerSource {
    fn totals(&self) -> Totals {
        let totals = self.broker.totals();
        Totals {
            connections: self.broker.client_count() as u64,
            total_connections: totals.connections,
            in_msgs: totals.in_msgs,
            in_bytes: totals.in_bytes,
            out_msgs: totals.out_msgs,
            out_bytes: totals.out_bytes,
            slow_consumers: totals.slow_consumers,
            stale_connections: totals.stale_connections,
            stalled_clients: totals.stalls,
            subscriptions: self.routes().num_subscriptions,
            memory_held_bytes: self.broker.memory.held_bytes() as u64,
            memory_budget_bytes: self.broker.memory.bytes_max() as u64,
        }
    }

    fn tasks(&self) -> Vec<Tasks> {
        self.coordinators.tasks()
    }

    fn subjects(&self) -> Vec<SubjectTraffic> {
        let counted = self.broker.meter().map(|meter| meter.list()).unwrap_or_default();
        let traffic = |(account, subject, counts): (String, String, Arc<SubjectCounts>)| {
            let [in_msgs, in_bytes, out_msgs] = counts.get();
            SubjectTraffic { account, subject, in_msgs, in_bytes, out_msgs }
        };
        counted.into_iter().map(traffic).collect()
    }

    fn connections(&self, wanted: &Wanted<'_>) -> Vec<Connection> {
        let is = |wanted: &str, name: &str| wanted.is_empty() || wanted == name;
        let is_wanted =
            |client: &ClientState| client.is_one(|who| is(wanted.account, &who.account) && is(wanted.user, &who.user));
        let clients = self.broker.clients();
        let clients = clients.iter().filter(|client| is_wanted(client));
        clients.map(|client| connection(client, wanted.subscriptions)).collect()
    }

    fn closed_connections(&self) -> Vec<Connection> {
        self.broker.closed_clients().iter().map(|client| closed_connection(client)).collect()
    }

    fn accounts(&self) -> Vec<Account> {
        let traffic = self.broker.traffic();
        let shown = self.shown();
        let with_jetstream: HashSet<&str> = shown.iter().map(|jetstream| &*jetstream.account().name).collect();
        let describe = |account: &Arc<crate::broker::Account>| {
            let traffic = traffic.get(&account.name).copied().unwrap_or_default();
            self.account_of(account, traffic, with_jetstream.contains(&*account.name))
        };
        self.broker.accounts().iter().map(describe).collect()
    }

    fn account(&self, name: &str) -> Option<Account> {
        let account = self.broker.find_account(name)?;
        let has_jetstream = self.shown().iter().any(|jetstream| jetstream.account().name == name);
        Some(self.account_of(&account, self.broker.traffic_of(name), has_jetstream))
    }

    fn routes(&self) -> Routes {
        let mut sum = Routes::default();
        for account in self.broker.accounts() {
            let routes = routes(&account);
            sum.num_subscriptions += routes.num_subscriptions;
            sum.num_inserts += routes.num_inserts;
            sum.num_removes += routes.num_removes;
        }
        sum
    }

    fn jetstream(&self, with_streams: bool, with_consumers: bool) -> Boxed<'_, Vec<JetStream>> {
        Box::pin(self.jetstream_figures(with_streams, with_consumers))
    }

    fn purge_account<'a>(&'a self, account: &'a str) -> Boxed<'a, Result<(), ApiError>> {
        let named = self.all().into_iter().find(|jetstream| jetstream.account().name == account);
        Box::pin(async move {
            match named {
                Some(jetstream) => jetstream.purge().await,
                None => Ok(()),
            }
        })
    }

    fn health(&self) -> Result<(), String> {
        // One store for all of them. It is what a coordinator that is down for its sake is down for.
        if let Some(fault) = self.all().first().and_then(|jetstream| jetstream.store_fault()) {
            return Err(format!("JetStream cannot store: {fault}"));
        }
        self.coordinators.health()
    }

    fn kick(&self, client_id: u64) -> bool {
        let client = self.broker.client(client_id);
        client.as_ref().inspect(|client| client.close("Kicked")).is_some()
    }

    fn lame_duck(&self, client_id: u64) -> Result<(), &'static str> {
        let client = self.broker.client(client_id).ok_or("no such client id")?;
        if !client.hears_news() {
            return Err("client does not support Lame Duck Mode or is not ready to receive the notification");
        }
        self.broker.tell_lame_duck(&client);
        Ok(())
    }

    fn reload(&self) -> Boxed<'_, Result<(), String>> {
        Box::pin(async {
            let Some(reloads) = self.reloads.get() else { return Err(NO_CONFIG_FILE.to_owned()) };
            let (done, outcome) = oneshot::channel();
            let stopping = || Err("the server is stopping".to_owned());
            if reloads.send(ReloadRequest(done)).await.is_err() {
                return stopping();
            }
            outcome.await.unwrap_or_else(|_| stopping())
        })
    }
}

fn routes(account: &crate::broker::Account) -> Routes {
    let (num_inserts, num_removes) = account.change_counts();
    let num_subscriptions = account.subscription_count() as u64;
    Routes { num_subscriptions, num_inserts, num_removes, ..Routes::default() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn connection(client: &ClientState, with_subscriptions: bool) -> Connection {
    let identity = client.identity();
    let (in_msgs, in_bytes) = client.counts_in();
    let (out_msgs, out_bytes) = client.outbox.counts();
    let round_trip = client.round_trip();
    let mut subscriptions = Vec::new();
    if with_subscriptions {
        subscriptions.extend(client.subscription_list().iter().map(|subscription| Subscription {
            subject: text(&subscription.subject),
            queue: subscription.queue.as_deref().map(text).unwrap_or_default(),
            sid: text(&subscription.sid),
            msgs: subscription.delivered(),
            max: subscription.deliveries_max(),
        }));
        subscriptions.sort_by(|a, b| (a.sid.len(), &a.sid).cmp(&(b.sid.len(), &b.sid)));
    }
    Connection {
        id: client.id,
        kind: client.kind(),
        remote: client.address.parse().ok(),
        start: client.started,
        last_activity: client.last_activity(),
        round_trip: (!round_trip.is_zero()).then_some(round_trip),
        pending_bytes: client.outbox.waiting_bytes() as u64,
        in_msgs,
        out_msgs,
        in_bytes,
        out_bytes,
        stalls: client.stalls(),
        num_subscriptions: client.subscription_count() as u32,
        name: identity.name,
        lang: identity.lang,
        version: identity.version,
        user: identity.user,
        account: identity.account,
        ended: None,
        tls: client.tls().map(|facts| tls(facts)),
        subscriptions,
    }
}

fn tls(facts: &TlsFacts) -> Tls {
    let certificate = |facts: CertificateFacts| PeerCertificate {
        subject: facts.subject,
        spki_sha256: facts.key_hash,
        cert_sha256: facts.hash,
    };
    Tls {
        version: facts.version,
        cipher: facts.cipher.clone(),
        first: facts.first,
        certificates: facts.certificate_facts().into_iter().map(certificate).collect(),
    }
}

fn closed_connection(client: &ClosedClient) -> Connection {
    let identity = client.identity.clone();
    Connection {
        id: client.id,
        kind: client.kind,
        remote: client.address.parse().ok(),
        start: client.started,
        last_activity: client.last_activity,
        round_trip: (!client.round_trip.is_zero()).then_some(client.round_trip),
        pending_bytes: 0,
        in_msgs: client.in_msgs,
        out_msgs: client.out_msgs,
        in_bytes: client.in_bytes,
        out_bytes: client.out_bytes,
        stalls: client.stalls,
        num_subscriptions: client.subscription_count as u32,
        name: identity.name,
        lang: identity.lang,
        version: identity.version,
        user: identity.user,
        account: identity.account,
        ended: Some((client.stopped, client.reason)),
        tls: None,
        subscriptions: client
            .subscriptions
            .iter()
            .map(|subscription| Subscription {
                subject: text(&subscription.subject),
                queue: subscription.queue.as_deref().map(text).unwrap_or_default(),
                sid: text(&subscription.sid),
                msgs: subscription.delivered,
                max: subscription.deliveries_max,
            })
            .collect(),
    }
}
