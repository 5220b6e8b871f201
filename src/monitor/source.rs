//! What monitoring wants to know, as plain values.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;

use crate::types::{ApiError, AssetLimits, Timestamp};

/// A future behind a trait object.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a server without a config file is not reloaded, in nats-server's words.
pub const NO_CONFIG_FILE: &str = "can only reload config when a file is provided using -c or --config";

/// The running broker as monitoring sees it. The plain methods may hold a lock for as long as a copy takes, and must
/// not wait for anything else.
pub trait Source: Send + Sync + 'static {
    /// The server-wide counters.
    fn totals(&self) -> Totals;
    /// The open client connections that are wanted, in any order.
    fn connections(&self, wanted: &Wanted<'_>) -> Vec<Connection>;
    /// The last connections that ended, oldest first.
    fn closed_connections(&self) -> Vec<Connection>;
    /// Every account.
    fn accounts(&self) -> Vec<Account>;
    /// One of them.
    fn account(&self, name: &str) -> Option<Account> {
        self.accounts().into_iter().find(|account| account.name == name)
    }
    /// What was counted by subject, where that is asked for.
    fn subjects(&self) -> Vec<SubjectTraffic> {
        Vec::new()
    }
    /// The tasks of each account that has a coordinator.
    fn tasks(&self) -> Vec<Tasks> {
        Vec::new()
    }
    /// The subscription trie's counters.
    fn routes(&self) -> Routes;
    /// JetStream's figures, one for each account that has it; none when it is off. Streams' states may be asked of their
    /// tasks, hence a future.
    fn jetstream(&self, with_streams: bool, with_consumers: bool) -> Boxed<'_, Vec<JetStream>>;
    /// Deletes all streams of an account, if it has any.
    fn purge_account<'a>(&'a self, account: &'a str) -> Boxed<'a, Result<(), ApiError>>;
    /// `Err` says in one sentence why the broker cannot serve right now: `/healthz` answers 503 with it.
    fn health(&self) -> Result<(), String>;
    /// Ends a client's connection; false when there is no such client.
    fn kick(&self, client_id: u64) -> bool;
    /// Tells a client to connect elsewhere.
    ///
    /// # Errors
    /// When there is no such client, or it does not listen to such news.
    fn lame_duck(&self, client_id: u64) -> Result<(), &'static str>;
    /// Reads the configuration again, and returns when it holds, or why it does not.
    fn reload(&self) -> Boxed<'_, Result<(), String>> {
        Box::pin(async { Err(NO_CONFIG_FILE.to_owned()) })
    }
}

/// Which connections are asked for. What is not asked for is not made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Those in this account; empty for any.
    pub account: &'a str,
    /// Those of this user; empty for any.
    pub user: &'a str,
    /// With their subscriptions.
    pub subscriptions: bool,
}

/// One account.
#[derive(Clone, Debug, Default)]
pub struct Account {
    pub name: String,
    pub is_system: bool,
    pub jetstream: bool,
    /// Clients in it now.
    pub connections: u64,
    pub subscriptions: u64,
    pub routes: Routes,
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
    pub slow_consumers: u64,
    /// When its configuration was read.
    pub updated: Timestamp,
}

/// Messages on a subject, or on all subjects of a filter that are not counted by themselves.
#[derive(Clone, Debug, Default)]
pub struct SubjectTraffic {
    pub account: String,
    pub subject: String,
    /// Published by clients.
    pub in_msgs: u64,
    pub in_bytes: u64,
    /// Handed on to subscribers and streams.
    pub out_msgs: u64,
}

/// A figure for each of some names.
pub type ByName = Vec<(&'static str, u64)>;

/// What an account's task coordinator counts.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    pub account: String,
    /// Whether the coordinator is at work.
    pub serving: bool,
    /// Registered agents by status.
    pub agents: ByName,
    pub queues: Vec<TaskQueue>,
}

/// A queue of tasks, or all that are not counted by themselves (`*`).
#[derive(Clone, Debug, Default)]
pub struct TaskQueue {
    pub name: String,
    /// Tasks there are, by phase.
    pub tasks: ByName,
    pub submitted: u64,
    /// Tasks that ended, by phase.
    pub ended: ByName,
    /// Leases that ended without a word of the agent, by reason.
    pub leases_lost: ByName,
    /// Seconds from submission to completion: how many took at most so many, and all together.
    pub seconds: Vec<(f64, u64)>,
    pub seconds_sum: f64,
    pub seconds_count: u64,
}

/// What does not change while a server runs.
#[derive(Clone, Debug)]
pub struct Identity {
    pub server_id: String,
    pub server_name: String,
    /// The nats-server version whose behaviour is claimed, as in INFO.
    pub version: String,
    /// The addresses in use, with their real ports; `None` without a listener.
    pub listen: Option<SocketAddr>,
    /// As configured, for those who ask what is listened on.
    pub host: String,
    pub monitor: Option<SocketAddr>,
    pub monitor_tls: Option<SocketAddr>,
    pub system_account: String,
    /// Empty for none.
    pub domain: String,
    pub jetstream: bool,
    pub start: Timestamp,
}

/// Server-wide counters since the start.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Connections open now.
    pub connections: u64,
    /// Connections ever accepted.
    pub total_connections: u64,
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
    /// Clients cut off because they read too slowly.
    pub slow_consumers: u64,
    /// Clients cut off because they left PINGs unanswered.
    pub stale_connections: u64,
    /// How often a publisher had to wait for its subscribers.
    pub stalled_clients: u64,
    pub subscriptions: u64,
    /// What clients make the process hold, and how much that may be.
    pub memory_held_bytes: u64,
    pub memory_budget_bytes: u64,
}

/// One client connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub id: u64,
    /// `nats` or `websocket`.
    pub kind: &'static str,
    pub remote: Option<SocketAddr>,
    pub start: Timestamp,
    pub last_activity: Timestamp,
    /// The last measured round trip, from PING to PONG.
    pub round_trip: Option<Duration>,
    /// Bytes waiting to be written to the client.
    pub pending_bytes: u64,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    pub stalls: u64,
    pub num_subscriptions: u32,
    pub name: String,
    pub lang: String,
    pub version: String,
    pub user: String,
    pub account: String,
    /// `None` in the clear.
    pub tls: Option<Tls>,
    /// When and why it ended.
    pub ended: Option<(Timestamp, &'static str)>,
    /// Filled only when asked for.
    pub subscriptions: Vec<Subscription>,
}

/// What a connection's TLS handshake has settled.
#[derive(Clone, Debug)]
pub struct Tls {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    pub cipher: String,
    /// Whether it came before INFO.
    pub first: bool,
    pub certificates: Vec<PeerCertificate>,
}

/// nats-server's `TLSPeerCert`; the hashes in hex.
#[derive(Clone, Debug, Serialize)]
pub struct PeerCertificate {
    pub subject: String,
    pub spki_sha256: String,
    pub cert_sha256: String,
}

#[derive(Clone, Debug)]
pub struct Subscription {
    pub subject: String,
    pub queue: String,
    pub sid: String,
    /// Delivered so far.
    pub msgs: u64,
    /// The auto-unsubscribe limit, 0 for none.
    pub max: u64,
}

/// The subscription trie's counters, as nats-server's `SublistStats`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Routes {
    pub num_subscriptions: u64,
    pub num_cache: u64,
    pub num_inserts: u64,
    pub num_removes: u64,
    pub num_matches: u64,
    pub cache_hit_rate: f64,
    pub max_fanout: u64,
    pub avg_fanout: f64,
}

/// JetStream's figures.
#[derive(Clone, Debug, Default)]
pub struct JetStream {
    /// Bytes in memory streams and in file streams.
    pub memory_bytes: u64,
    pub storage_bytes: u64,
    /// Bytes that `max_bytes` of streams reserve.
    pub reserved_memory_bytes: u64,
    pub reserved_storage_bytes: u64,
    /// Highest JetStream API level served.
    pub api_level: u32,
    pub api_total: u64,
    pub api_errors: u64,
    pub max_memory_bytes: u64,
    pub max_storage_bytes: u64,
    /// Whether unknown fields in API requests are refused.
    pub strict: bool,
    /// What each asset is held to.
    pub limits: AssetLimits,
    /// Empty for none.
    pub domain: String,
    /// Whose streams they are.
    pub account: String,
    pub store_dir: String,
    pub num_streams: u64,
    pub num_consumers: u64,
    pub messages: u64,
    pub bytes: u64,
    /// Filled only when asked for, sorted by name.
    pub streams: Vec<Stream>,
}

/// One stream: the parts are the JSON that `$JS.API.STREAM.INFO` and `$JS.API.CONSUMER.INFO` answer with.
#[derive(Clone, Debug)]
pub struct Stream {
    pub name: String,
    pub created: Timestamp,
    pub config: serde_json::Value,
    pub state: serde_json::Value,
    /// Whole consumer infos, filled only when asked for.
    pub consumers: Vec<serde_json::Value>,
}
