//! The system account's services and events through the official Rust client, on a server with accounts, beside what
//! nats-server 2.15.1 answered (`nats-server-2.15.1-system.json`: one server with the accounts APP and $SYS, a domain, a
//! stream and a consumer).

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::ConnectOptions;
use futures_util::StreamExt;
use natterjack::auth::{AccountSpec, Credential, Plan, Secret, User};
use natterjack::config::{Config, JetStreamOptions, Limits};
use natterjack::server::Server;
use natterjack::types::JetStreamLimits;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::paths;

const PATIENCE: Duration = Duration::from_secs(30);

/// Keys of nats-server's answers that are deliberately absent here.
const ABSENT: &[&str] = &[
    // No feature flags, no tags.
    ".feature_flags",
    // Known once a PING has been answered.
    ".client.rtt",
    // The Go program it is, and what is not built in.
    "data.git_commit",
    "data.go",
    "data.gomaxprocs",
    "data.config_digest",
    "data.disk_io_wait_stats",
    "data.cluster",
    "data.gateway",
    "data.leaf",
    "data.mqtt",
    "statsz.gomaxprocs",
    // Every commit is synced.
    ".sync_interval",
    // Queues between parts of a Go program.
    "data.System recvQ",
    "data.http_req_stats",
];
/// Keys that are ours, or that nats-server has under circumstances the recording did not have.
const OURS: &[&str] = &[
    ".sync_always",
    "data.http_req_stats",
    // Which server it is, in the metadata of lists as well.
    ".metadata._nats.level",
    ".metadata._nats.ver",
];

struct Bench {
    server: Server,
    _folder: TempDir,
}

async fn start() -> Bench {
    start_as(|config| config).await
}

async fn start_as(change: impl FnOnce(Config) -> Config) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let user = |name: &str, account: &str| User {
        credential: Credential::Password { user: name.to_owned(), password: Secret::new("pw") },
        account: Some(account.to_owned()),
        permissions: None,
        connection_types: Vec::new(),
    };
    let account = |name: &str, jetstream| AccountSpec { name: name.to_owned(), jetstream, ..AccountSpec::default() };
    let auth = Plan {
        users: vec![user("sys", "$SYS"), user("app", "APP")],
        accounts: vec![account("$SYS", None), account("APP", Some(JetStreamLimits::default()))],
        ..Plan::default()
    };
    let jetstream_options = JetStreamOptions { domain: Some("HUB".into()), ..JetStreamOptions::default() };
    let config = Config {
        coordinator: false,
        server_name: Some("S1".into()),
        auth,
        jetstream_options,
        ..Config::on_free_ports(folder.path())
    };
    Bench { server: Server::start(change(config)).await.unwrap(), _folder: folder }
}

impl Bench {
    async fn connect(&self, user: &str) -> async_nats::Client {
        let options = ConnectOptions::with_user_and_password(user.into(), "pw".into()).name("a client");
        options.connect(self.server.client_url()).await.unwrap()
    }
}

async fn soon<T>(what: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what.into_future()).await.expect("it happens within the test's patience")
}

async fn ask(client: &async_nats::Client, subject: &str, body: &str) -> Result<Value, String> {
    let request = async_nats::Request::new().payload(body.to_owned().into()).timeout(Some(PATIENCE));
    match client.send_request(subject.to_owned(), request).await {
        Ok(message) => Ok(serde_json::from_slice(&message.payload).unwrap()),
        Err(error) => Err(error.kind().to_string()),
    }
}

/// Where fields or their kinds differ, but for what is listed as ours or theirs.
fn differences(name: &str, ours: &Value, theirs: &Value) -> Vec<String> {
    let (mut our_paths, mut their_paths) = (Vec::new(), Vec::new());
    paths("", ours, &mut our_paths);
    paths("", theirs, &mut their_paths);
    let listed = |list: &[&str], path: &str| list.iter().any(|known| path.contains(known));
    let ours_alone = our_paths.iter().filter(|path| !listed(OURS, &path.0) && !their_paths.contains(path));
    let theirs_alone = their_paths.iter().filter(|path| !listed(ABSENT, &path.0) && !our_paths.contains(path));
    ours_alone
        .map(|path| format!("{name}: {path:?} is not in nats-server's answer"))
        .chain(theirs_alone.map(|path| format!("{name}: {path:?} of nats-server's answer is missing")))
        .collect()
}

/// What monitoring answers, with whatever status.
async fn get(server: &Server, path: &str) -> Value {
    let address = server.monitor_address().expect("monitoring listens");
    let asked = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = soon(asked).await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// Returns when a connection has come and gone.
async fn a_client_has_left(bench: &Bench, system: &async_nats::Client) {
    let mut gone = soon(system.subscribe("$SYS.ACCOUNT.APP.DISCONNECT")).await.unwrap();
    ask(system, "$SYS.REQ.SERVER.PING.IDZ", "").await.unwrap();
    drop(bench.connect("app").await);
    soon(gone.next()).await.unwrap();
}

/// What nats-server answered and told.
fn recorded() -> Value {
    serde_json::from_str(include_str!("nats-server-2.15.1-system.json")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_have_nats_servers_fields() {
    let bench = start().await;
    let (app, system) = (bench.connect("app").await, bench.connect("sys").await);
    let config = r#"{"name":"ORDERS","subjects":["orders.>"]}"#;
    assert_eq!(ask(&app, "$JS.API.STREAM.CREATE.ORDERS", config).await.unwrap()["did_create"], true);
    let config = r#"{"stream_name":"ORDERS","config":{"durable_name":"work","name":"work","ack_policy":"explicit"}}"#;
    assert_eq!(ask(&app, "$JS.API.CONSUMER.CREATE.ORDERS.work", config).await.unwrap()["name"], "work");
    assert_eq!(ask(&app, "orders.1", "x").await.unwrap()["seq"], 1);
    let _sub = soon(app.subscribe("orders.>")).await.unwrap();
    let mut jobs = soon(app.queue_subscribe("jobs", "workers".into())).await.unwrap();
    soon(jobs.unsubscribe_after(5)).await.unwrap();
    soon(app.flush()).await.unwrap();
    let recorded = recorded();
    a_client_has_left(&bench, &system).await;
    let (mut compared, mut different) = (0, Vec::new());
    for (name, theirs) in recorded.as_object().unwrap() {
        let (client, request) = match name.split_once(' ').unwrap() {
            ("sys", request) => (&system, request),
            ("app", request) => (&app, request),
            ("http", path) => {
                // Named as in the answers that come over NATS.
                let [ours, theirs] = [get(&bench.server, path).await, theirs.clone()].map(|data| json!({"data": data}));
                different.extend(differences(name, &ours, &theirs));
                compared += 1;
                continue;
            }
            ("event", _) => continue,
            _ => panic!("{name}: recorded, and not compared"),
        };
        let (subject, body) = request.split_once(' ').unwrap_or((request, ""));
        let known = ["ACCOUNT.PING.CONNZ", "RELOAD", "VARZ {bad"];
        if known.iter().any(|skipped| request.ends_with(skipped)) {
            continue;
        }
        let id = &bench.server.broker().info().server_id;
        let ours =
            ask(client, &subject.replace("<id>", id), body).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        different.extend(differences(name, &ours, theirs));
        assert_eq!(ours["error"]["description"], theirs["error"]["description"], "{name}");
        compared += 1;
    }
    assert!(different.is_empty(), "{different:#?}");
    assert!(compared > 50, "only {compared} requests were compared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_have_nats_servers_fields() {
    let bench = start().await;
    let system = bench.connect("sys").await;
    let mut events = soon(system.subscribe("$SYS.>")).await.unwrap();
    // The answer comes after the subscription before it is there.
    ask(&system, "$SYS.REQ.SERVER.PING.IDZ", "").await.unwrap();
    let recorded = recorded();
    let id = bench.server.broker().info().server_id;
    let named = |name: &str| name.strip_prefix("event ").map(|subject| subject.replace("<id>", &id));
    let mut wanted: BTreeMap<String, &Value> = BTreeMap::new();
    for (name, event) in recorded.as_object().unwrap() {
        wanted.extend(named(name).map(|subject| (subject, event)));
    }
    assert!(wanted.len() > 8, "only {} events are recorded", wanted.len());
    let _others = (bench.connect("app").await, bench.connect("sys").await);
    let wrong = ConnectOptions::with_user_and_password("app".into(), "wrong".into()).name("a client");
    assert!(soon(wrong.connect(bench.server.client_url())).await.is_err());
    let mut different = Vec::new();
    while !wanted.is_empty() {
        let told = tokio::time::timeout(PATIENCE, events.next()).await;
        let event = told.unwrap_or_else(|_| panic!("never told: {:?}", wanted.keys())).unwrap();
        if let Some(theirs) = wanted.remove(event.subject.as_str()) {
            let ours = serde_json::from_slice(&event.payload).unwrap();
            different.extend(differences(&event.subject, &ours, theirs));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}

/// As nats-server 2.15.1: in lame duck mode and at the end the server says who it is, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_end_is_told() {
    let bench = start().await;
    let system = bench.connect("sys").await;
    let mut events = soon(system.subscribe("$SYS.SERVER.*.*")).await.unwrap();
    // The answer comes after the subscription before it is there.
    ask(&system, "$SYS.REQ.SERVER.PING.IDZ", "").await.unwrap();
    let recorded = recorded();
    let theirs = &recorded["sys $SYS.REQ.SERVER.PING.STATSZ"]["server"];
    let id = bench.server.broker().info().server_id;
    let mut ended = async |what: &str| {
        let subject = format!("$SYS.SERVER.{id}.{what}");
        let event = loop {
            let event = soon(events.next()).await.unwrap();
            if event.subject.as_str() == subject {
                break serde_json::from_slice(&event.payload).unwrap();
            }
        };
        let different = differences(what, &event, theirs);
        assert!(different.is_empty(), "{different:#?}");
        assert_eq!((&event["name"], &event["id"]), (&json!("S1"), &json!(id)));
    };
    let ending = async {
        // It waits for the grace period, and is given up there.
        tokio::select! {
            () = bench.server.lame_duck() => {}
            () = ended("LAMEDUCK") => {}
        }
    };
    soon(ending).await;
    let Bench { server, _folder } = bench;
    let stopping = tokio::spawn(server.stop());
    ended("SHUTDOWN").await;
    soon(stopping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_sees_itself_and_no_other() {
    let bench = start().await;
    let (app, system) = (bench.connect("app").await, bench.connect("sys").await);
    let user = ask(&app, "$SYS.REQ.USER.INFO", "").await.unwrap();
    assert_eq!(user["data"], json!({"user": "app", "account": "APP", "account_name": "APP"}));
    for subject in ["$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ"] {
        let seen = ask(&app, subject, r#"{"auth":true}"#).await.unwrap();
        let users: Vec<&Value> =
            seen["data"]["connections"].as_array().unwrap().iter().map(|known| &known["authorized_user"]).collect();
        assert_eq!(users, ["app"], "{subject}: {seen}");
    }
    for subject in ["SERVER.PING", "SERVER.PING.VARZ", "ACCOUNT.APP.CONNZ", "ACCOUNT.$SYS.INFO", "ACCOUNT.APP.JSZ"] {
        let answer = ask(&app, &format!("$SYS.REQ.{subject}"), "").await;
        assert_eq!(answer.unwrap_err(), "no responders", "{subject}");
    }
    let seen = ask(&system, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"auth":true,"sort":"cid"}"#).await.unwrap();
    assert_eq!(seen["data"]["num_connections"], 2, "{seen}");
    let other = ask(&system, "$SYS.REQ.SERVER.PING.VARZ", r#"{"server_name":"S1"}"#).await.unwrap();
    assert_eq!(other["data"]["server_name"], "S1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comings_goings_and_kicks_are_told() {
    let bench = start().await;
    let system = bench.connect("sys").await;
    let mut events = soon(system.subscribe("$SYS.ACCOUNT.APP.*")).await.unwrap();
    // The answer comes after the subscription before it is there.
    ask(&system, "$SYS.REQ.SERVER.PING.IDZ", "").await.unwrap();
    let recorded = recorded();
    let app = bench.connect("app").await;
    let connect: Value = serde_json::from_slice(&soon(events.next()).await.unwrap().payload).unwrap();
    let different = differences("CONNECT", &connect, &recorded["event $SYS.ACCOUNT.APP.CONNECT"]);
    assert!(different.is_empty(), "{different:#?}");
    assert_eq!((&connect["client"]["user"], &connect["client"]["name"]), (&json!("app"), &json!("a client")));

    let cid = connect["client"]["id"].as_u64().unwrap();
    let kick = format!("$SYS.REQ.SERVER.{}.KICK", bench.server.broker().info().server_id);
    let done = ask(&system, &kick, &json!({"cid": cid}).to_string()).await.unwrap();
    assert!(done["error"].is_null(), "{done}");
    let gone = soon(events.next()).await.unwrap();
    let gone_json: Value = serde_json::from_slice(&gone.payload).unwrap();
    assert_eq!(gone.subject.as_str(), "$SYS.ACCOUNT.APP.DISCONNECT");
    assert_eq!((&gone_json["reason"], &gone_json["client"]["id"]), (&json!("Kicked"), &json!(cid)));
    let closed = ask(&system, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"state":1,"auth":true}"#).await.unwrap();
    let last = &closed["data"]["connections"][0];
    assert_eq!((&last["cid"], &last["reason"], &last["account"]), (&json!(cid), &json!("Kicked"), &json!("APP")));
    drop(app);

    let mut errors = soon(system.subscribe("$SYS.SERVER.*.CLIENT.AUTH.ERR")).await.unwrap();
    let default = bench.server.connect().await.unwrap();
    let mut in_default = default.subscribe("$SYS.ACCOUNT.CLIENT.AUTH.ERR").unwrap();
    soon(default.flush()).await.unwrap();
    // The answer comes after the subscription before it is there.
    ask(&system, "$SYS.REQ.SERVER.PING.IDZ", "").await.unwrap();
    let refused =
        ConnectOptions::with_user_and_password("app".into(), "wrong".into()).connect(bench.server.client_url());
    assert!(soon(refused).await.is_err());
    let event: Value = serde_json::from_slice(&soon(errors.next()).await.unwrap().payload).unwrap();
    assert_eq!(event["reason"], "Authentication Failure", "{event}");
    let told: Value = serde_json::from_slice(soon(in_default.next()).await.unwrap().payload()).unwrap();
    let known =
        |event: &Value| (event["client"]["id"].clone(), event["client"]["user"].clone(), event["reason"].clone());
    assert_eq!(known(&told), known(&event));
    assert_eq!(told["client"]["acc"], "$G", "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_to_go_elsewhere() {
    let bench = start().await;
    let system = bench.connect("sys").await;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let options = ConnectOptions::with_user_and_password("app".into(), "pw".into()).event_callback(move |event| {
        let told = told.clone();
        async move {
            let _ = told.send(event);
        }
    });
    let app = options.connect(bench.server.client_url()).await.unwrap();
    // It has been let in and has had its first PONG.
    ask(&app, "$SYS.REQ.USER.INFO", "").await.unwrap();
    let connections = ask(&system, "$SYS.REQ.ACCOUNT.APP.CONNZ", "").await.unwrap();
    let cid = &connections["data"]["connections"][0]["cid"];
    let ldm = format!("$SYS.REQ.SERVER.{}.LDM", bench.server.broker().info().server_id);
    let done = ask(&system, &ldm, &json!({"cid": cid}).to_string()).await.unwrap();
    assert!(done["error"].is_null(), "{done}");
    while !matches!(soon(heard.recv()).await.unwrap(), async_nats::Event::LameDuckMode) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_account_has_no_streams_and_empties_others() {
    let bench = start().await;
    let (system, app) = (bench.connect("sys").await, bench.connect("app").await);
    for (subject, kind) in [
        ("INFO", "account_info_response"),
        ("STREAM.NAMES", "system_response"),
        ("CONSUMER.MSG.NEXT.S.C", "system_response"),
        ("FOO", "system_response"),
    ] {
        let answer = ask(&system, &format!("$JS.API.{subject}"), "").await.unwrap();
        assert_eq!(answer["error"]["err_code"], 10039, "{subject}: {answer}");
        assert_eq!(answer["type"], format!("io.nats.jetstream.api.v1.{kind}"), "{subject}");
    }
    for name in ["ONE", "TWO"] {
        let config = json!({"name": name, "subjects": [name]}).to_string();
        assert!(ask(&app, &format!("$JS.API.STREAM.CREATE.{name}"), &config).await.unwrap()["error"].is_null());
    }
    let purge = "$JS.API.ACCOUNT.PURGE.";
    let done = json!({"type": "io.nats.jetstream.api.v1.account_purge_response", "initiated": true});
    assert_eq!(ask(&system, &format!("{purge}NOBODY"), "").await.unwrap(), done);
    assert_eq!(ask(&app, "$JS.API.STREAM.NAMES", "").await.unwrap()["total"], 2);
    assert_eq!(ask(&system, &format!("{purge}APP"), "").await.unwrap(), done);
    assert_eq!(ask(&app, "$JS.API.STREAM.NAMES", "").await.unwrap()["total"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_are_counted_for_who_looks_for_a_fault() {
    let bench = start().await;
    let (system, app) = (bench.connect("sys").await, bench.connect("app").await);
    let _plain = soon(system.subscribe("a.b")).await.unwrap();
    let _wide = soon(system.subscribe("a.*")).await.unwrap();
    let _queued = soon(system.queue_subscribe("a.b", "q".to_owned())).await.unwrap();
    soon(system.flush()).await.unwrap();
    for (asked, expected) in [("a.b", 3), ("a.b q", 1), ("a.c", 1), ("a.>", 3), ("a.* p", 0), ("", 0)] {
        assert_eq!(ask(&system, "$SYS.DEBUG.SUBSCRIBERS", asked).await.unwrap(), json!(expected), "{asked}");
    }
    assert_eq!(ask(&app, "$SYS.DEBUG.SUBSCRIBERS", "a.b").await.unwrap_err(), "no responders");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_says_how_it_is_labelled_and_forgets_who_left_long_ago() {
    let bench = start_as(|config| Config {
        server_tags: vec!["edge".into(), "rack:7".into()],
        server_metadata: [("site".to_owned(), "Basel".to_owned())].into(),
        limits: Limits { closed_clients_max: 2, ..Limits::default() },
        ..config
    })
    .await;
    let system = bench.connect("sys").await;
    let labels = |of: &Value| (of["tags"].clone(), of["metadata"].clone());
    let expected = (json!(["edge", "rack:7"]), json!({"site": "Basel"}));
    let statsz = ask(&system, "$SYS.REQ.SERVER.PING", "").await.unwrap();
    assert_eq!(labels(&statsz["server"]), expected, "{statsz}");
    assert_eq!(statsz["server"]["flags"], 7, "as nats-server's with JetStream");
    let varz = ask(&system, "$SYS.REQ.SERVER.PING.VARZ", r#"{"tags":["EDGE"]}"#).await.unwrap();
    assert_eq!(labels(&varz["data"]), expected, "{varz}");
    let other = async_nats::Request::new().payload(r#"{"tags":["core"]}"#.into()).timeout(Some(Duration::from_secs(1)));
    assert!(system.send_request("$SYS.REQ.SERVER.PING.IDZ", other).await.is_err(), "it is not meant");

    let mut events = soon(system.subscribe("$SYS.ACCOUNT.APP.DISCONNECT")).await.unwrap();
    soon(system.flush()).await.unwrap();
    let mut gone = Vec::new();
    for _ in 0..3 {
        drop(bench.connect("app").await);
        let event: Value = serde_json::from_slice(&soon(events.next()).await.unwrap().payload).unwrap();
        gone.push(event["client"]["id"].clone());
    }
    let closed = ask(&system, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"state":1,"sort":"cid"}"#).await.unwrap();
    let remembered: Vec<_> =
        closed["data"]["connections"].as_array().unwrap().iter().map(|closed| closed["cid"].clone()).collect();
    assert_eq!(remembered, gone[1..], "the last two");
}
