//! All reports of one server, for whoever asks: over HTTP, or on `$SYS.REQ`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value, json};

use super::accountz::{self, AccountStatz, AccountStatzOptions, AccountzOptions};
use super::connz::{self, Connz, ConnzOptions};
use super::entrances::{ShownTls, ShownWebSocket};
use super::healthz::{self, Health, HealthzOptions};
use super::jsz::{self, JszOptions};
use super::query::BadQuery;
use super::source::{Identity, Source};
use super::subsz::{self, Subsz, SubszOptions};
use super::varz::{self, Varz};
use super::{metrics, process};
use crate::config::Limits;
use crate::types::Timestamp;

/// The HTTP endpoints.
pub(super) const ENDPOINTS: [&str; 15] = [
    "/",
    "/healthz",
    "/varz",
    "/connz",
    "/jsz",
    "/subsz",
    "/accountz",
    "/accstatz",
    "/metrics",
    "/routez",
    "/gatewayz",
    "/leafz",
    "/ipqueuesz",
    "/raftz",
    "/expvarz",
];

/// See the module.
pub struct Reports {
    pub(super) identity: Identity,
    pub(super) source: Arc<dyn Source>,
    settings: RwLock<Arc<Shown>>,
    requests: [AtomicU64; ENDPOINTS.len()],
}

/// The settings that monitoring tells and that may change while the server runs.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    pub limits: Limits,
    pub auth_required: bool,
    /// Host and port that clients are told.
    pub advertised: (String, u16),
    /// `None` in the clear.
    pub tls: Option<ShownTls>,
    pub websocket: ShownWebSocket,
    /// `server_tags`, in lower case.
    pub tags: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    /// When they were read; `None` for the start.
    pub loaded: Option<Timestamp>,
}

impl From<Limits> for Shown {
    fn from(limits: Limits) -> Shown {
        Shown { limits, ..Shown::default() }
    }
}

impl Reports {
    pub fn new(identity: Identity, shown: impl Into<Shown>, source: Arc<dyn Source>) -> Reports {
        Reports { identity, settings: RwLock::new(Arc::new(shown.into())), source, requests: Default::default() }
    }

    /// The settings in force.
    pub(super) fn shown(&self) -> Arc<Shown> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells of other settings from now on.
    pub fn show(&self, shown: Shown) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shown);
    }

    /// Counts a request to an HTTP endpoint.
    pub(super) fn count(&self, path: &str) {
        if let Some(endpoint) = ENDPOINTS.iter().position(|known| *known == path) {
            self.requests[endpoint].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn request_counts(&self) -> Map<String, Value> {
        let counts = ENDPOINTS.iter().zip(&self.requests);
        counts
            .map(|(path, count)| ((*path).to_owned(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .map(|(path, count)| (path, count.into()))
            .collect()
    }

    pub(super) async fn varz(&self, now: Timestamp) -> Varz {
        let jetstream = jsz::sum(&self.source.jetstream(false, false).await);
        let totals = self.source.totals();
        varz::report(&self.identity, &self.shown(), &totals, jetstream.as_ref(), self.request_counts(), now)
    }

    pub(super) async fn metrics(&self, now: Timestamp) -> String {
        metrics::report(&self.identity, self.source.as_ref(), now).await
    }

    pub(super) fn connz(&self, options: &ConnzOptions, now: Timestamp) -> Result<Connz, BadQuery> {
        connz::report(&self.identity.server_id, self.source.as_ref(), options, now)
    }

    pub(super) fn subsz(&self, options: &SubszOptions, now: Timestamp) -> Result<Subsz, BadQuery> {
        subsz::report(&self.identity.server_id, self.source.as_ref(), options, now)
    }

    pub(super) async fn jsz(&self, options: &JszOptions, now: Timestamp) -> Value {
        jsz::report(&self.identity, self.source.as_ref(), options, now).await
    }

    pub(super) async fn account_jsz(&self, options: &JszOptions) -> Result<Value, BadQuery> {
        jsz::account_report(&self.identity, self.source.as_ref(), options).await
    }

    pub(super) fn accountz(&self, options: &AccountzOptions, now: Timestamp) -> Result<Value, BadQuery> {
        accountz::report(&self.identity, self.source.as_ref(), options, now)
    }

    pub(super) fn account_info(&self, account: &str) -> Result<Value, BadQuery> {
        accountz::info(&self.identity, self.source.as_ref(), account)
    }

    pub(super) fn account_statz(&self, options: &AccountStatzOptions, now: Timestamp) -> AccountStatz {
        accountz::statz(&self.identity, self.source.as_ref(), options, now)
    }

    pub(super) async fn healthz(&self, options: &HealthzOptions) -> Health {
        healthz::report(self.source.as_ref(), options).await
    }

    /// Routes: there are none.
    pub(super) fn routez(&self, now: Timestamp) -> Value {
        json!({"server_id": self.identity.server_id, "server_name": self.identity.server_name, "now": now,
            "num_routes": 0, "routes": []})
    }

    /// Gateways: there are none.
    pub(super) fn gatewayz(&self, now: Timestamp) -> Value {
        json!({"server_id": self.identity.server_id, "now": now, "outbound_gateways": {}, "inbound_gateways": {}})
    }

    /// Leaf nodes: there are none.
    pub(super) fn leafz(&self, now: Timestamp) -> Value {
        json!({"server_id": self.identity.server_id, "now": now, "leafnodes": 0, "leafs": []})
    }

    /// What Go's expvar would tell that has a meaning here: the memory.
    pub(super) fn expvarz(&self) -> Value {
        json!({"memstats": {"Sys": process::memory_bytes()}})
    }

    /// The server's figures (nats-server `ServerStats`).
    pub(super) async fn statsz(&self, now: Timestamp) -> Value {
        let totals = self.source.totals();
        let accounts = self.source.accounts();
        let sent = json!({"msgs": totals.out_msgs, "bytes": totals.out_bytes});
        let received = json!({"msgs": totals.in_msgs, "bytes": totals.in_bytes});
        let mut stats = json!({
            "start": self.identity.start,
            "mem": process::memory_bytes(),
            "cores": process::cores(),
            "cpu": process::cpu_percent(now.since(self.identity.start)),
            "connections": totals.connections,
            "total_connections": totals.total_connections,
            "active_accounts": accounts.iter().filter(|account| account.connections > 0).count(),
            "subscriptions": totals.subscriptions,
            "sent": sent,
            "sent_to_clients": sent,
            "received": received,
            "received_from_clients": received,
            "slow_consumers": totals.slow_consumers,
            "active_servers": 1,
        });
        let clients = |count: u64| json!({"clients": count, "routes": 0, "gateways": 0, "leafs": 0});
        if totals.slow_consumers > 0 {
            stats["slow_consumer_stats"] = clients(totals.slow_consumers);
        }
        if totals.stale_connections > 0 {
            stats["stale_connections"] = json!(totals.stale_connections);
            stats["stale_connection_stats"] = clients(totals.stale_connections);
        }
        if totals.stalled_clients > 0 {
            stats["stalled_clients"] = json!(totals.stalled_clients);
        }
        if let Some(jetstream) = jsz::sum(&self.source.jetstream(false, false).await) {
            let mut shown = varz::jetstream_varz(&jetstream);
            // Where it keeps its files is for the machine's own people.
            shown["config"].as_object_mut().expect("the configuration is an object").remove("store_dir");
            stats["jetstream"] = shown;
        }
        stats
    }
}
