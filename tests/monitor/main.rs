//! The monitoring endpoints over real sockets, on a broker that is a table of values, beside what nats-server 2.15.1
//! answered (`nats-server-2.15.1.json`, recorded with one client, one stream and one consumer).

mod metrics;
mod system;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use natterjack::config::{Config, Hosts, Limits};
use natterjack::monitor::{
    Account, Boxed, Connection, Identity, JetStream, Monitor, Reports, Routes, Source, Stream, Subscription, Totals,
    Wanted,
};
use natterjack::types::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Keys of nats-server's answers that are deliberately absent here, with the parts of a server they speak about.
const ABSENT: &[&str] = &[
    // The Go program it is.
    "varz.git_commit",
    "varz.go",
    "varz.gomaxprocs",
    "varz.config_digest",
    "varz.feature_flags",
    "varz.disk_io_wait_stats",
    // Listeners that do not exist here.
    "varz.cluster",
    "varz.gateway",
    "varz.leaf",
    "varz.mqtt",
    // Every commit is synced: there is no interval.
    "varz.jetstream.config.sync_interval",
    "jsz.config.sync_interval",
];
/// Keys that nats-server has under circumstances the recording did not have.
const CONDITIONAL: &[&str] = &[
    "varz.jetstream.config.sync_always",
    "varz.jetstream.config.compress_ok",
    "jsz.config.compress_ok",
    "jsz.config.sync_always",
    "connz.connections.account",
    "connz.connections.authorized_user",
];

struct Table {
    connections: Vec<Connection>,
    /// How many accounts there are, and how many streams, each with a consumer.
    many: usize,
    jetstream: bool,
    health: Result<(), String>,
}

impl Source for Table {
    fn totals(&self) -> Totals {
        Totals {
            connections: self.connections.len() as u64,
            in_msgs: 7,
            memory_held_bytes: 5,
            memory_budget_bytes: 9,
            ..Totals::default()
        }
    }

    fn connections(&self, wanted: &Wanted<'_>) -> Vec<Connection> {
        let mut connections = self.connections.clone();
        connections.retain(|connection| {
            (wanted.account.is_empty() || connection.account == wanted.account)
                && (wanted.user.is_empty() || connection.user == wanted.user)
        });
        if !wanted.subscriptions {
            connections.iter_mut().for_each(|connection| connection.subscriptions.clear());
        }
        connections
    }

    fn closed_connections(&self) -> Vec<Connection> {
        vec![Connection { ended: Some((Timestamp(9), "Client Closed")), ..connection(7, 0) }]
    }

    fn accounts(&self) -> Vec<Account> {
        let name = |at: usize| if at == 0 { "$G".to_owned() } else { format!("A{at}") };
        let account = |at| Account {
            name: name(at),
            connections: 1,
            subscriptions: 2,
            in_msgs: 3,
            in_bytes: 4,
            out_msgs: 5,
            out_bytes: 6,
            slow_consumers: 7,
            ..Account::default()
        };
        (0..self.many).map(account).collect()
    }

    fn kick(&self, _: u64) -> bool {
        false
    }

    fn lame_duck(&self, _: u64) -> Result<(), &'static str> {
        Err("no such client id")
    }

    fn routes(&self) -> Routes {
        Routes { num_subscriptions: 3, ..Routes::default() }
    }

    fn jetstream(&self, with_streams: bool, with_consumers: bool) -> Boxed<'_, Vec<JetStream>> {
        let recorded = recorded("jsz");
        let detail = &recorded["account_details"][0]["stream_detail"][0];
        let stream = |at: usize| Stream {
            name: if at == 0 { "TASKS".to_owned() } else { format!("S{at}") },
            created: Timestamp(1),
            config: detail["config"].clone(),
            state: detail["state"].clone(),
            consumers: if with_consumers { vec![detail["consumer_detail"][0].clone()] } else { Vec::new() },
        };
        let streams = if with_streams { (0..self.many).map(stream).collect() } else { Vec::new() };
        let figures = JetStream {
            account: "$G".into(),
            num_streams: 1,
            store_dir: "/data/jetstream".into(),
            streams,
            ..JetStream::default()
        };
        Box::pin(std::future::ready(if self.jetstream { vec![figures] } else { Vec::new() }))
    }

    fn purge_account<'a>(&'a self, _account: &'a str) -> Boxed<'a, Result<(), natterjack::types::ApiError>> {
        Box::pin(async { Ok(()) })
    }

    fn health(&self) -> Result<(), String> {
        self.health.clone()
    }
}

fn connection(id: u64, out_bytes: u64) -> Connection {
    Connection {
        id,
        kind: "nats",
        remote: Some("127.0.0.1:5000".parse().unwrap()),
        start: Timestamp(id as i64),
        last_activity: Timestamp(100 - id as i64),
        round_trip: Some(Duration::from_micros(1500)),
        pending_bytes: 0,
        in_msgs: id,
        out_msgs: 0,
        in_bytes: 0,
        out_bytes,
        stalls: 0,
        num_subscriptions: 1,
        name: format!("client {id}"),
        lang: "rust".into(),
        version: "1".into(),
        user: String::new(),
        account: "$G".into(),
        tls: None,
        ended: None,
        subscriptions: vec![Subscription {
            subject: format!("foo.{id}"),
            queue: "workers".into(),
            sid: "1".into(),
            msgs: 0,
            max: 0,
        }],
    }
}

fn table() -> Table {
    Table {
        connections: vec![connection(3, 10), connection(1, 30), connection(2, 20)],
        many: 1,
        jetstream: true,
        health: Ok(()),
    }
}

fn recorded(endpoint: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("nats-server-2.15.1.json")).unwrap();
    all[endpoint].clone()
}

struct Endpoints {
    address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

async fn serve(table: Table) -> Endpoints {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let identity = Identity {
        server_id: "NSERVER".into(),
        server_name: "box".into(),
        version: "2.14.0".into(),
        listen: Some("127.0.0.1:4222".parse().unwrap()),
        host: "127.0.0.1".into(),
        monitor: Some(address),
        monitor_tls: None,
        system_account: "$SYS".into(),
        domain: String::new(),
        jetstream: true,
        start: Timestamp(1),
    };
    let stop = CancellationToken::new();
    let hosts = Hosts::of(&Config::default(), address);
    let monitor = Monitor::new(Arc::new(Reports::new(identity, Limits::default(), Arc::new(table))), hosts);
    Endpoints { address, stop: stop.clone(), serving: tokio::spawn(monitor.serve(listener, None, stop)) }
}

impl Endpoints {
    async fn ask(&self, method: &str, target: &str) -> (u16, String, String) {
        self.talk(&format!("{method} {target} HTTP/1.1\r\nHost: localhost:8222\r\nConnection: close\r\n\r\n")).await
    }

    async fn talk(&self, request: &str) -> (u16, String, String) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    async fn json(&self, target: &str) -> Value {
        let (status, head, body) = self.ask("GET", target).await;
        assert_eq!(status, 200, "{target}: {body}");
        assert!(head.contains("content-type: application/json"), "{head}");
        serde_json::from_str(&body).unwrap()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Every `path: kind` of a JSON value; the elements of an array share one path.
fn paths(at: &str, value: &Value, found: &mut Vec<(String, &'static str)>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = format!("{at}.{name}");
                found.push((path.clone(), kind(field)));
                // Endpoint names in the request statistics are data.
                if name != "http_req_stats" {
                    paths(&path, field, found);
                }
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| paths(at, element, found)),
        _ => {}
    }
    found.sort();
    found.dedup();
}

/// A page elsewhere that has its name resolve to 127.0.0.1 reads nothing.
#[tokio::test]
async fn names_of_others_do_not_lead_here() {
    let endpoints = serve(table()).await;
    let address = endpoints.address;
    for (host, expected) in [
        ("HTTP/1.1\r\nHost: evil.example:8222\r\nConnection: close".to_owned(), 403),
        ("HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\nConnection: close".to_owned(), 403),
        (format!("HTTP/1.1\r\nHost: {address}\r\nConnection: close"), 200),
        ("HTTP/1.1\r\nHost: localhost:8222\r\nConnection: close".to_owned(), 200),
        ("HTTP/1.0\r\nHost: [::1]".to_owned(), 200),
        ("HTTP/1.0".to_owned(), 200),
    ] {
        let (status, _, body) = endpoints.talk(&format!("GET /healthz {host}\r\n\r\n")).await;
        assert_eq!(status, expected, "{host}: {body}");
        assert_eq!(status == 403, body.contains("allowed_hosts"), "{host}: {body}");
    }
}

#[tokio::test]
async fn field_names_and_kinds_are_nats_servers() {
    let endpoints = serve(table()).await;
    let mut connz = endpoints.json("/connz?subs=detail&auth=1").await;
    connz["connections"][0]["subscriptions_list"] =
        endpoints.json("/connz?subs=1").await["connections"][0]["subscriptions_list"].clone();
    for (endpoint, ours) in [
        ("varz", endpoints.json("/varz").await),
        ("connz", connz),
        ("jsz", endpoints.json("/jsz?accounts=true&streams=true&consumers=true&config=true").await),
        ("subsz", endpoints.json("/subsz?subs=1").await),
    ] {
        let (mut our_paths, mut their_paths) = (Vec::new(), Vec::new());
        paths(endpoint, &ours, &mut our_paths);
        paths(endpoint, &recorded(endpoint), &mut their_paths);
        for path in our_paths.iter().filter(|(path, _)| !CONDITIONAL.contains(&path.as_str())) {
            assert!(their_paths.contains(path), "{path:?} is not in nats-server's answer");
        }
        let skipped = |path: &str| {
            ABSENT
                .iter()
                .any(|absent| path.strip_prefix(absent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        };
        for path in their_paths.iter().filter(|(path, _)| !skipped(path)) {
            assert!(our_paths.contains(path), "{path:?} of nats-server's answer is missing");
        }
    }
}

#[tokio::test]
async fn connections_are_sorted_paged_and_picked() {
    let endpoints = serve(table()).await;
    for (query, expected) in [
        ("", json!([1, 2, 3])),
        ("?sort=bytes_to", json!([1, 2, 3])),
        ("?sort=msgs_from", json!([3, 2, 1])),
        ("?sort=idle", json!([3, 2, 1])),
        ("?sort=last", json!([1, 2, 3])),
        ("?sort=uptime", json!([3, 2, 1])),
        ("?limit=1", json!([1])),
        ("?offset=1&limit=1", json!([2])),
        ("?offset=9", json!([])),
        ("?cid=2", json!([2])),
        ("?cid=9", json!([])),
        ("?state=closed", json!([7])),
        ("?state=any", json!([1, 2, 3, 7])),
        ("?state=closed&sort=stop", json!([7])),
        ("?acc=%24G&filter_subject=foo.2", json!([2])),
        ("?acc=nope", json!([])),
        ("?acc=%24G", json!([1, 2, 3])),
    ] {
        let answer = endpoints.json(&format!("/connz{query}")).await;
        let ids: Value = answer["connections"].as_array().unwrap().iter().map(|known| known["cid"].clone()).collect();
        assert_eq!(ids, expected, "{query}");
        assert_eq!(answer["num_connections"], expected.as_array().unwrap().len(), "{query}");
    }
    assert_eq!(endpoints.json("/connz?limit=1").await["total"], 3);
    assert_eq!(endpoints.json("/subsz?subs=1&test=foo.2").await["subscriptions_list"][0]["cid"], 2);
}

#[tokio::test]
async fn bad_questions_are_refused_in_nats_servers_words() {
    let endpoints = serve(table()).await;
    for (target, status, text) in [
        ("/connz?sort=nope", 400, "invalid sorting option: nope"),
        ("/connz?sort=stop", 400, "sort by stop only valid on closed connections"),
        ("/connz?limit=x", 400, "Error decoding int for 'limit': strconv.Atoi: parsing \"x\": invalid syntax"),
        ("/connz?state=x", 400, "Error decoding state for x"),
        ("/subsz?test=a.*", 400, "invalid test subject, must be valid publish subject"),
        ("/nothing", 404, "404 page not found\n"),
        ("/varz/x", 404, "404 page not found\n"),
    ] {
        let (got_status, _, body) = endpoints.ask("GET", target).await;
        assert_eq!((got_status, body.as_str()), (status, text), "{target}");
    }
    let (status, head, _) = endpoints.ask("POST", "/varz").await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: get, head"), "{head}");
}

#[tokio::test]
async fn health_says_why_not() {
    let check = async |table: Table, target: &str, expected_status: u16, expected: Value| {
        let endpoints = serve(table).await;
        let (status, _, body) = endpoints.ask("GET", target).await;
        assert_eq!((status, serde_json::from_str(&body).unwrap()), (expected_status, expected), "{target}");
    };
    let ok = json!({"status": "ok"});
    check(table(), "/healthz", 200, ok.clone()).await;
    check(table(), "/healthz?js-enabled-only=true", 200, ok.clone()).await;
    check(table(), "/healthz?account=%24G&stream=TASKS&consumer=agent", 200, ok.clone()).await;
    check(Table { jetstream: false, ..table() }, "/healthz", 200, ok).await;
    let unavailable = |error: &str| json!({"status": "unavailable", "error": error});
    let no_jetstream = || Table { jetstream: false, ..table() };
    check(no_jetstream(), "/healthz?js-enabled-only=1", 503, unavailable("JetStream not enabled")).await;
    check(table(), "/healthz?account=X", 404, unavailable("JetStream account \"X\" not found")).await;
    let full = Table { health: Err("the disk is full".into()), ..table() };
    check(full, "/healthz", 503, unavailable("the disk is full")).await;
    let no_account = json!({"status": "error", "error": "\"account\" must not be empty when checking stream health"});
    check(table(), "/healthz?stream=X", 400, no_account).await;
}

#[tokio::test]
async fn head_has_no_body_and_the_index_links() {
    let endpoints = serve(table()).await;
    let (status, head, body) = endpoints.ask("HEAD", "/healthz").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-length: 15"), "{head}");
    let (status, _, page) = endpoints.ask("GET", "/").await;
    assert_eq!(status, 200);
    assert!(page.contains("href=\"./varz\""), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_finishes_its_request_is_cut() {
    let endpoints = serve(table()).await;
    let mut socket = TcpStream::connect(endpoints.address).await.unwrap();
    socket.write_all(b"GET /varz HTTP/1.1\r\nHost").await.unwrap();
    let mut answer = Vec::new();
    // Paused time runs on by itself once everything waits: this returns when the server hangs up.
    let _ = socket.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
}

#[tokio::test]
async fn stopping_closes_idle_connections() {
    let endpoints = serve(table()).await;
    let mut idle = TcpStream::connect(endpoints.address).await.unwrap();
    // One answered request, so that the connection is known to be served, then kept alive.
    idle.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0u8; 1];
    idle.read_exact(&mut first).await.unwrap();
    endpoints.stop.cancel();
    endpoints.serving.await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
}
