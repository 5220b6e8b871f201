//! Limits, labels and streams that a reload brings: what they do to those who are connected and to those who come.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::{PATIENCE, Wire, World, next};

/// Two users of an account and one who may look at everything.
fn text(of_account: &str, more: &str) -> String {
    format!(
        "accounts {{ A {{ jetstream: enabled, users: [ {{ user: a, password: p }} ], {of_account} }}, \
         \"$SYS\" {{ users: [ {{ user: sys, password: p }} ] }} }}\n{more}\n"
    )
}

const HELLO: &str = r#"CONNECT {"verbose":false,"user":"a","pass":"p"}"#;

async fn connected(world: &World) -> Wire {
    let mut wire = world.wire().await;
    assert_eq!(wire.ask(HELLO).await, ["PONG"]);
    wire
}

async fn report(world: &World, report: &str, body: Value) -> Value {
    let system = world.user("sys", "p").await.unwrap();
    let subject = format!("$SYS.REQ.SERVER.PING.{report}");
    let answer = system.request(subject, body.to_string().into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Returns once a connection of the account has ended for this reason.
async fn until_ended(world: &World, reason: &str) {
    let began = Instant::now();
    loop {
        let closed = report(world, "CONNZ", json!({ "state": 1, "acc": "A", "auth": true })).await;
        let connections = closed["data"]["connections"].as_array().unwrap().clone();
        if connections.iter().any(|closed| closed["reason"] == reason) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "nobody is cut: {closed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const MIB: usize = 1 << 20;

/// More than the kernel takes for one who reads nothing.
async fn flood(world: &World) {
    let mut publisher = TcpStream::connect(world.address()).await.unwrap();
    publisher.write_all(format!("{HELLO}\r\n").as_bytes()).await.unwrap();
    let message = [format!("PUB flood {MIB}\r\n").as_bytes(), &vec![b'x'; MIB], b"\r\n"].concat();
    for _ in 0..24 {
        publisher.write_all(&message).await.unwrap();
    }
    let mut wire = Wire::over(publisher).await;
    assert_eq!(wire.ask("UNSUB 9").await.last().unwrap(), "PONG");
}

/// One that listens and will not read.
async fn listener(world: &World) -> Wire {
    let mut wire = world.wire().await;
    assert_eq!(wire.ask(&format!("{HELLO}\r\nSUB flood 1")).await, ["PONG"]);
    wire
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn less_may_wait_for_who_does_not_read() {
    let patient = text("", "max_payload: 1MB, write_deadline: 1h");
    let mut world = World::start(&patient).await;
    let _slow = listener(&world).await;
    flood(&world).await;
    let began = Instant::now();
    while world.server.broker().client_count() != 1 {
        assert!(began.elapsed() < PATIENCE, "the publisher goes, the other is waited for");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let changed = world.reload(&(patient + "max_pending: 2MB\n")).await.unwrap();
    assert_eq!(changed, ["max_pending = 2097152"]);
    // With the next message.
    flood(&world).await;
    until_ended(&world, "Slow Consumer (Pending Bytes)").await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_may_take_less_long() {
    let patient = text("", "max_payload: 1MB, write_deadline: 1h");
    let mut world = World::start(&patient).await;
    world.reload(&patient.replace("write_deadline: 1h", "write_deadline: 300ms")).await.unwrap();
    let _slow = listener(&world).await;
    flood(&world).await;
    until_ended(&world, "Slow Consumer (Write Deadline)").await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_cut_sooner() {
    let mut world = World::start(&text("", "authorization { timeout: 3600 }")).await;
    world.reload(&text("", "authorization { timeout: 0.2 }")).await.unwrap();
    assert_eq!(world.wire().await.until_pong().await, ["-ERR 'Authentication Timeout'", ""]);
    world.reload(&text("", "authorization { timeout: 3600 }")).await.unwrap();
    assert_eq!(world.wire().await.ask(HELLO).await, ["PONG"]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_lines_may_be_less_long() {
    let mut world = World::start(&text("", "")).await;
    let mut early = connected(&world).await;
    let long = format!("SUB {} 1", "x".repeat(1000));
    assert_eq!(early.ask(&long).await, ["PONG"]);
    world.reload(&text("", "max_control_line: 512")).await.unwrap();
    let mut late = connected(&world).await;
    for wire in [&mut early, &mut late] {
        assert_eq!(wire.ask(&long).await, ["-ERR 'maximum control line exceeded'", ""]);
    }
    world.reload(&text("", "max_control_line: 4096")).await.unwrap();
    assert_eq!(connected(&world).await.ask(&long).await, ["PONG"]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_may_have_fewer_connections_and_subscriptions() {
    let mut world = World::start(&text("", "")).await;
    let mut first = connected(&world).await;
    let mut second = connected(&world).await;
    assert_eq!(first.ask("SUB a 1\r\nSUB b 2").await, ["PONG"]);
    world.reload(&text("limits { max_subscriptions: 2, max_connections: 2 }", "")).await.unwrap();
    assert_eq!(first.ask("SUB c 3").await, ["-ERR 'maximum subscriptions exceeded'", "PONG"]);
    assert_eq!(second.ask("SUB a 1\r\nSUB b 2").await, ["PONG"]);
    assert_eq!(second.ask("SUB c 3").await, ["-ERR 'maximum subscriptions exceeded'", "PONG"]);
    let refused = world.wire().await.ask(HELLO).await;
    assert_eq!(refused, ["-ERR 'maximum account active connections exceeded'", ""]);
    world.reload(&text("limits { max_connections: 3 }", "")).await.unwrap();
    assert_eq!(first.ask("SUB c 3").await, ["PONG"]);
    connected(&world).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_budget_is_another() {
    let budget = async |world: &World| {
        let address = world.server.monitor_address().unwrap();
        let page = crate::process::http_get(&format!("http://{address}"), "/metrics").await;
        let line = page.lines().find(|line| line.starts_with("natterjack_memory_budget_bytes{")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let of = |megabytes: usize| text("", &format!("http: \"127.0.0.1:-1\", memory_budget: {megabytes}MB"));
    let mut world = World::start(&of(256)).await;
    assert_eq!(budget(&world).await, 160 * MIB, "without the store's cache and an eighth");
    assert_eq!(world.reload(&of(64)).await.unwrap(), [format!("memory_budget = {}", 64 * MIB)]);
    assert_eq!(budget(&world).await, 40 * MIB);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_labelled_anew() {
    let mut world = World::start(&text("", "server_tags: [ old ], server_metadata { site: Basel }")).await;
    let labels = async |world: &World| {
        let (statsz, varz) = (report(world, "STATSZ", json!({})).await, report(world, "VARZ", json!({})).await);
        assert_eq!(statsz["server"]["tags"], varz["data"]["tags"], "{statsz}");
        (varz["data"]["tags"].clone(), varz["data"]["metadata"].clone())
    };
    assert_eq!(labels(&world).await, (json!(["old"]), json!({ "site": "Basel" })));
    let changed = world.reload(&text("", "server_tags: [ new, NEWER ], server_metadata { site: Bern }")).await.unwrap();
    assert_eq!(changed, ["tags", "metadata"]);
    assert_eq!(labels(&world).await, (json!(["new", "newer"]), json!({ "site": "Bern" })));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pid_and_ports_are_written_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir_all(&place).unwrap();
        place
    };
    let of = |place: &std::path::Path| {
        let pid = place.join("pid");
        text("", &format!("pid_file: {:?}, ports_file_dir: {:?}", pid.display(), place.display()))
    };
    let files = |place: &std::path::Path| {
        let names = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    };
    let (one, two) = (place("one"), place("two"));
    let mut world = World::start(&of(&one)).await;
    let before = files(&one);
    assert!(before.len() == 2 && before.contains(&"pid".to_owned()), "{before:?}");
    assert_eq!(world.reload(&of(&two)).await.unwrap(), ["pid_file", "ports_file_dir"]);
    assert_eq!((files(&one), files(&two)), (vec![], before));
    let ports = std::fs::read_dir(&two).unwrap().map(|entry| entry.unwrap().path());
    let ports = ports.filter(|path| path.extension().is_some_and(|end| end == "ports")).last().unwrap();
    assert!(std::fs::read_to_string(ports).unwrap().contains(&world.address().port().to_string()));
    world.server.stop().await;
    assert_eq!(files(&two), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declared_streams_are_made_and_changed() {
    let declared = |subjects: &str| {
        format!("streams {{ S {{ subjects: [ {subjects} ], consumers {{ work {{ ack_policy: explicit }} }} }} }}")
    };
    let mut world = World::start("").await;
    let client = async_nats::connect(world.server.client_url()).await.unwrap();
    let context = jetstream::new(client.clone());
    assert!(context.get_stream("S").await.is_err());
    assert_eq!(world.reload(&declared("one")).await.unwrap(), ["streams"]);
    context.publish("one", "1".into()).await.unwrap().await.unwrap();
    assert_eq!(world.reload(&declared("one, two")).await.unwrap(), ["streams"]);
    context.publish("two", "2".into()).await.unwrap().await.unwrap();
    let stream = context.get_stream("S").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2);
    let mut work = stream.get_consumer::<jetstream::consumer::pull::Config>("work").await.unwrap();
    assert_eq!(work.info().await.unwrap().num_pending, 2);
    // What is no longer declared is still there.
    world.reload("").await.unwrap();
    let mut heard = client.subscribe("two").await.unwrap();
    context.publish("two", "3".into()).await.unwrap().await.unwrap();
    assert_eq!(next(&mut heard).await.payload, "3");
    world.server.stop().await;
}
