//! A broker inside a Rust program: start it, talk to it without a socket, keep a message, stop it.
//!
//! `cargo run --example embed`

use std::error::Error;
use std::path::Path;

use natterjack::config::Config;
use natterjack::server::Server;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("natterjack-embed-{}", std::process::id()));
    let outcome = run(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    outcome
}

/// Also run by `tests/embed.rs`.
pub async fn run(folder: &Path) -> Result<(), Box<dyn Error>> {
    // Any free port, so that other programs can connect too; `listen: None` keeps the broker to this process.
    let server = Server::start(Config::on_free_ports(folder)).await?;
    println!("other programs reach it at {}", server.client_url());

    // A client in the same process is a client like any other, over a pipe instead of a socket.
    let client = server.connect().await?;
    let mut greetings = client.subscribe("greet.*")?;
    client.publish("greet.world", b"hello")?;
    let greeting = greetings.next().await.ok_or("the client was closed")?;
    println!("heard {:?} on {}", String::from_utf8_lossy(greeting.payload()), greeting.subject_str());

    // A stream keeps what is published on its subjects. The PubAck comes when the message is on disk.
    client.create_stream(&json!({"name": "EVENTS", "subjects": ["events.>"]})).await?;
    let ack = client.publish_stored("events.started", &[("Nats-Msg-Id", "start-1")], b"up and running")?.await?;
    println!("stored as number {} of {}", ack.seq, ack.stream);
    let last = client.last_message("EVENTS", "events.started").await?.ok_or("it was just stored")?;
    assert_eq!(last.payload.as_ref(), b"up and running");

    client.close().await;
    server.stop().await;
    Ok(())
}
