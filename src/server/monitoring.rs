//! The broker as monitoring sees it.

use std::sync::Arc;

use crate::broker::jetstream::{self, StreamReport};
use crate::broker::{Broker, ClientState};
use crate::config::Config;
use crate::monitor::{Boxed, Connection, JetStream, Routes, Source, Stream, Subscription, Totals};

/// Reads counters and lists off a running broker.
pub struct BrokerSource {
    broker: Arc<Broker>,
    jetstream: Option<Arc<jetstream::JetStream>>,
    store_dir: String,
}

impl BrokerSource {
    pub fn new(broker: Arc<Broker>, jetstream: Option<Arc<jetstream::JetStream>>, config: &Config) -> BrokerSource {
        BrokerSource { broker, jetstream, store_dir: config.store_dir.display().to_string() }
    }

    async fn jetstream_figures(&self, with_streams: bool, with_consumers: bool) -> Option<JetStream> {
        let jetstream = self.jetstream.as_ref()?;
        let account = jetstream.account_info();
        let (messages, bytes) = jetstream.totals();
        let mut streams = Vec::new();
        if with_streams || with_consumers {
            streams.extend(jetstream.reports(with_consumers).await.iter().map(stream));
        }
        Some(JetStream {
            memory_bytes: account.tier.memory,
            storage_bytes: account.tier.storage,
            reserved_memory_bytes: account.tier.reserved_memory,
            reserved_storage_bytes: account.tier.reserved_storage,
            api_level: account.api.level,
            api_total: account.api.total,
            api_errors: account.api.errors,
            max_memory_bytes: account.tier.limits.max_memory,
            max_storage_bytes: account.tier.limits.max_storage,
            store_dir: self.store_dir.clone(),
            num_streams: account.tier.streams as u64,
            num_consumers: account.tier.consumers as u64,
            messages,
            bytes,
            streams,
        })
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
            stalled_clients: 0,
            subscriptions: self.broker.account.subscription_count() as u64,
        }
    }

    fn connections(&self, with_subscriptions: bool) -> Vec<Connection> {
        self.broker.clients().iter().map(|client| connection(client, with_subscriptions)).collect()
    }

    fn routes(&self) -> Routes {
        Routes { num_subscriptions: self.broker.account.subscription_count() as u64, ..Routes::default() }
    }

    fn jetstream(&self, with_streams: bool, with_consumers: bool) -> Boxed<'_, Option<JetStream>> {
        Box::pin(self.jetstream_figures(with_streams, with_consumers))
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }
}

fn connection(client: &ClientState, with_subscriptions: bool) -> Connection {
    let identity = client.identity();
    let (in_msgs, in_bytes) = client.counts_in();
    let (out_msgs, out_bytes) = client.outbox.counts();
    let round_trip = client.round_trip();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
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
        remote: client.address.parse().ok(),
        start: client.started,
        last_activity: client.last_activity(),
        round_trip: (!round_trip.is_zero()).then_some(round_trip),
        pending_bytes: client.outbox.waiting_bytes() as u64,
        in_msgs,
        out_msgs,
        in_bytes,
        out_bytes,
        stalls: 0,
        num_subscriptions: client.subscription_count() as u32,
        name: identity.name,
        lang: identity.lang,
        version: identity.version,
        subscriptions,
    }
}
