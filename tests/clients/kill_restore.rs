//! kill -9 in the middle of a restore: nothing of the stream is there after it, and it can be restored as if nothing had
//! been.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::backups::{api, begin_restore, noise, restore, send_chunks, snapshot};
use crate::support::server::{Program, Server};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_cut_by_kill_nine_leaves_nothing() {
    let mut server = Server::start(Program::under_test()).expect("a server to kill");
    if server.is_real() {
        // It keeps half of the stream.
        return;
    }
    let client = async_nats::connect(server.url()).await.expect("a connection");
    let created = api(&client, "STREAM.CREATE.S", json!({"name": "S", "subjects": ["s"]})).await;
    assert_eq!(created["error"], Value::Null);
    // More than is committed at a time, and it cannot be compressed.
    let random = noise(1_000_000);
    for _ in 0..12 {
        let ack = timeout(PATIENCE, client.request("s", random.clone().into())).await;
        ack.expect("in time").expect("a PubAck");
    }
    let taken = snapshot(&client, "S", json!({}), true).await;
    assert_eq!(taken.status, "204");
    let (config, chunks) = (&taken.answer["config"], &taken.chunks);
    assert_eq!(api(&client, "STREAM.DELETE.S", Value::Null).await["success"], true);
    let to = begin_restore(&client, config).await;
    assert_eq!(send_chunks(&client, &to, &chunks[..chunks.len() * 3 / 4]).await, None);
    server.kill();
    server.restart().expect("it starts again after a kill");
    let client = async_nats::connect(server.url()).await.expect("a connection");
    assert_eq!(api(&client, "STREAM.NAMES", Value::Null).await["total"], 0);
    assert_eq!(api(&client, "INFO", Value::Null).await["storage"], 0);
    assert_eq!(restore(&client, config, chunks).await["state"]["messages"], 12);
    server.kill();
    server.restart().expect("it starts again after a kill");
    let client = async_nats::connect(server.url()).await.expect("a connection");
    assert_eq!(api(&client, "STREAM.INFO.S", Value::Null).await["state"]["messages"], 12);
}
