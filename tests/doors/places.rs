//! Who counts as one of the connections that a server may have, and what those are told who must go.

use natterjack::config::Config;
use natterjack::config::file::read_text;
use natterjack::server::Server;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{Wire, World};

const HELLO: &str = r#"CONNECT {"verbose":false,"protocol":1}"#;

/// How the server receives the next client.
async fn next_client(address: std::net::SocketAddr) -> (Wire, String) {
    let mut wire = Wire::over(TcpStream::connect(address).await.unwrap()).await;
    let answer = wire.ask(HELLO).await.remove(0);
    (wire, answer)
}

#[tokio::test]
async fn the_coordinator_takes_no_place_of_a_client() {
    let folder = tempfile::tempdir().unwrap();
    let config = |max: u32| {
        let base = Config { coordinator: true, monitor: None, ..Config::on_free_ports(folder.path()) };
        read_text(base, &format!("max_connections: {max}")).unwrap()
    };
    let mut server = Server::start(config(1)).await.unwrap();
    let inside = server.connect().await.unwrap();
    assert!(!server.task_accounts().is_empty() && server.broker().client_count() > 1);
    let address = server.client_address().unwrap();
    let (mut first, answer) = next_client(address).await;
    assert_eq!(answer, "PONG");
    assert_eq!(next_client(address).await.1, "-ERR 'maximum connections exceeded'");
    server.reload(&config(2)).await.unwrap();
    let (mut second, answer) = next_client(address).await;
    assert_eq!(answer, "PONG");
    server.reload(&config(1)).await.unwrap();
    assert_eq!(second.until_pong().await, ["-ERR 'maximum connections exceeded'", ""]);
    assert_eq!(first.ask("PUB x 0\r\n").await, ["PONG"]);
    drop(inside);
    server.stop().await;
}

#[tokio::test]
async fn handshakes_of_websockets_are_connections() {
    let text = "max_connections: 3, websocket { port: -1, no_tls: true, handshake_timeout: 60s }";
    let world = World::start(text).await;
    let door = world.server.websocket_url().unwrap().rsplit_once('/').unwrap().1.to_owned();
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(&door).await.unwrap());
    }
    // They are accepted in order, so the answer to the fourth comes after all three.
    let mut answer = String::new();
    TcpStream::connect(&door).await.unwrap().read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nmaximum connections exceeded"),
        "{answer}"
    );
    assert_eq!(next_client(world.address()).await.1, "-ERR 'maximum connections exceeded'");
    silent.pop();
    while next_client(world.address()).await.1 != "PONG" {
        tokio::task::yield_now().await;
    }
    world.server.stop().await;
}

#[tokio::test]
async fn who_must_go_is_told_all_that_was_told_at_first() {
    let key = nkeys::KeyPair::new_user().public_key();
    let text = format!(
        "client_advertise: \"box:7\", authorization {{ users: [{{ user: u, password: p }}, {{ nkey: {key} }}] }}"
    );
    let world = World::start(&text).await;
    let mut wire = world.wire().await;
    let told = |line: &str| serde_json::from_str::<Value>(line.strip_prefix("INFO ").unwrap()).unwrap();
    let mut first = told(&wire.info);
    assert!(first["nonce"].is_string() && first["auth_required"] == true, "{first}");
    assert_eq!(wire.ask(r#"CONNECT {"verbose":false,"protocol":1,"user":"u","pass":"p"}"#).await, ["PONG"]);
    let after_ping = wire.line().await;
    assert!(after_ping.contains(r#""connect_info":true"#), "{after_ping}");
    let broker = world.server.broker();
    broker.tell_lame_duck(&broker.clients()[0]);
    first["ldm"] = true.into();
    let line = wire.line().await;
    assert_eq!(told(&line), first);
    broker.announce(|info| info.lame_duck = true);
    let line = wire.line().await;
    assert_eq!(told(&line), first);
    world.server.stop().await;
}
