//! `/varz`: the server's configuration and counters.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::entrances::ShownWebSocket;
use super::jsz;
use super::reports::Shown;
use super::source::{Identity, JetStream, Totals};
use super::{process, text};
use crate::types::Timestamp;

#[derive(Serialize)]
pub struct Varz {
    server_id: String,
    server_name: String,
    version: String,
    proto: u8,
    host: String,
    port: u16,
    max_connections: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auth_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_verify: bool,
    #[serde(skip_serializing_if = "is_zero")]
    max_subscriptions: usize,
    ping_interval: u64,
    ping_max: u32,
    http_host: String,
    http_port: u16,
    http_base_path: &'static str,
    https_port: u16,
    auth_timeout: f64,
    max_control_line: usize,
    max_payload: usize,
    max_pending: usize,
    websocket: ShownWebSocket,
    #[serde(skip_serializing_if = "Option::is_none")]
    jetstream: Option<Value>,
    tls_timeout: f64,
    write_deadline: u64,
    start: Timestamp,
    now: Timestamp,
    uptime: String,
    mem: u64,
    cores: usize,
    cpu: f64,
    connections: u64,
    total_connections: u64,
    routes: u64,
    remotes: u64,
    leafnodes: u64,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
    subscriptions: u64,
    http_req_stats: serde_json::Map<String, Value>,
    config_load_time: Timestamp,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    system_account: String,
    slow_consumer_stats: Value,
    stale_connection_stats: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert_not_after: Option<Timestamp>,
}

/// What nats-server tells of handshakes where there are none.
const TLS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

fn is_zero(number: &usize) -> bool {
    *number == 0
}

pub fn report(
    identity: &Identity,
    shown: &Shown,
    totals: &Totals,
    jetstream: Option<&JetStream>,
    http_req_stats: serde_json::Map<String, Value>,
    now: Timestamp,
) -> Varz {
    let limits = &shown.limits;
    let uptime = now.since(identity.start);
    let tls = shown.tls.as_ref();
    let (host, port) = shown.advertised.clone();
    let monitor = identity.monitor.or(identity.monitor_tls);
    Varz {
        server_id: identity.server_id.clone(),
        server_name: identity.server_name.clone(),
        version: identity.version.clone(),
        proto: 1,
        host,
        port,
        auth_required: shown.auth_required,
        tls_required: tls.is_some_and(|tls| tls.required),
        tls_verify: tls.is_some_and(|tls| tls.verify),
        max_connections: limits.connections_max,
        max_subscriptions: limits.subscriptions_max,
        ping_interval: limits.ping_interval.as_nanos() as u64,
        ping_max: limits.pings_out_max,
        http_host: monitor.map_or_else(String::new, |monitor| monitor.ip().to_string()),
        http_port: identity.monitor.map_or(0, |monitor| monitor.port()),
        http_base_path: "",
        https_port: identity.monitor_tls.map_or(0, |monitor| monitor.port()),
        auth_timeout: limits.auth_timeout.as_secs_f64(),
        max_control_line: limits.control_line_bytes_max,
        max_payload: limits.payload_bytes_max,
        max_pending: limits.pending_bytes_max,
        websocket: shown.websocket.clone(),
        jetstream: jetstream.map(jetstream_varz),
        tls_timeout: tls.map_or(TLS_TIMEOUT_DEFAULT, |tls| tls.timeout).as_secs_f64(),
        write_deadline: limits.write_deadline.as_nanos() as u64,
        start: identity.start,
        now,
        uptime: text::uptime(uptime),
        mem: process::memory_bytes(),
        cores: process::cores(),
        cpu: process::cpu_percent(uptime),
        connections: totals.connections,
        total_connections: totals.total_connections,
        routes: 0,
        remotes: 0,
        leafnodes: 0,
        in_msgs: totals.in_msgs,
        in_bytes: totals.in_bytes,
        in_client_msgs: totals.in_msgs,
        in_client_bytes: totals.in_bytes,
        out_msgs: totals.out_msgs,
        out_bytes: totals.out_bytes,
        out_client_msgs: totals.out_msgs,
        out_client_bytes: totals.out_bytes,
        slow_consumers: totals.slow_consumers,
        stale_connections: totals.stale_connections,
        stalled_clients: totals.stalled_clients,
        subscriptions: totals.subscriptions,
        http_req_stats,
        config_load_time: shown.loaded.unwrap_or(identity.start),
        tags: shown.tags.clone(),
        metadata: shown.metadata.clone(),
        system_account: identity.system_account.clone(),
        slow_consumer_stats: json!({"clients": totals.slow_consumers, "routes": 0, "gateways": 0, "leafs": 0}),
        stale_connection_stats: json!({"clients": totals.stale_connections, "routes": 0, "gateways": 0, "leafs": 0}),
        tls_cert_not_after: tls.and_then(|tls| tls.cert_not_after),
    }
}

/// nats-server's `JetStreamVarz`.
pub fn jetstream_varz(jetstream: &JetStream) -> Value {
    json!({"config": jsz::config(jetstream), "stats": jsz::stats(jetstream), "limits": jsz::limits(jetstream)})
}
