//! No space left on the disk, and too many requests: refused, and told to the system account and to monitoring.

use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::process::Process;
use super::{PATIENCE, World, next, settle};
use crate::support::server::Program;

const ACCOUNTS: &str = "accounts {
  $SYS { users: [ {user: sys, password: pw} ] }
  APP { jetstream: enabled, users: [ {user: app, password: pw} ] }
}";

async fn ask(client: &Client, subject: &str, payload: impl Into<bytes::Bytes>) -> Value {
    let request = async_nats::Request::new().payload(payload.into()).timeout(Some(PATIENCE));
    let answer = client.send_request(subject.to_owned(), request).await.expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_until_something_is_stored_again() {
    let program = Program::natterjack().file_bytes_max(32 << 20);
    let process = Process::start_program(program, &format!("server_name: pond\n{ACCOUNTS}"));
    let connect = async |user: &str| {
        let options = ConnectOptions::with_user_and_password(user.into(), "pw".into());
        options.connect(process.server.url()).await.expect("it connects")
    };
    let (app, system) = (connect("app").await, connect("sys").await);
    let mut told = system.subscribe("$JS.EVENT.ADVISORY.SERVER.OUT_OF_STORAGE").await.unwrap();
    settle(&system).await;
    let config = json!({"name": "FULL", "subjects": ["full"]}).to_string();
    assert_eq!(ask(&app, "$JS.API.STREAM.CREATE.FULL", config).await["did_create"], true);

    let mut stored = 0;
    let refusal = loop {
        let answer = ask(&app, "full", vec![7; 1 << 20]).await;
        if !answer["error"].is_null() {
            break answer;
        }
        stored += 1;
        assert!(stored < 32, "more than the limit is stored");
    };
    assert_eq!(refusal["error"]["err_code"], 10077, "{refusal}");
    let reason = refusal["error"]["description"].as_str().unwrap();
    assert!(reason.contains("no space is left"), "{reason}");
    let event: Value = serde_json::from_slice(&next(&mut told).await.payload).unwrap();
    assert_eq!(event["type"], "io.nats.jetstream.advisory.v1.server_out_of_space");
    assert_eq!((&event["server"], &event["stream"], &event["cluster"]), (&json!("pond"), &json!("FULL"), &json!("")));
    assert!(event["server_id"].as_str().is_some_and(|id| id.starts_with('N')), "{event}");
    let health = process.get("/healthz").await;
    assert_eq!(health["status"], "unavailable", "{health}");
    assert!(health["error"].as_str().is_some_and(|error| error.starts_with("JetStream cannot store: ")), "{health}");

    // What was acknowledged is there, and what frees space is not refused.
    let info = ask(&app, "$JS.API.STREAM.INFO.FULL", "").await;
    assert_eq!(info["state"]["messages"], stored, "{info}");
    assert_eq!(ask(&app, "$JS.API.STREAM.PURGE.FULL", "").await["purged"], stored);
    let began = Instant::now();
    while !ask(&app, "full", vec![7; 1 << 20]).await["error"].is_null() {
        assert!(began.elapsed() < PATIENCE, "nothing is stored again\n{}", process.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(process.get("/healthz").await, json!({"status": "ok"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_find_too_many_before_them_are_told() {
    let world = World::start(&format!("server_name: pond\njetstream {{ domain: HUB }}\n{ACCOUNTS}")).await;
    let (app, system) = (world.user("app", "pw").await.unwrap(), world.user("sys", "pw").await.unwrap());
    let mut told = system.subscribe("$JS.EVENT.ADVISORY.API.LIMIT_REACHED").await.unwrap();
    settle(&system).await;
    let inbox = app.new_inbox();
    let mut answers = app.subscribe(inbox.clone()).await.unwrap();
    // Each waits for the disk, and no more than a thousand may wait.
    for number in 0..4000 {
        let config = json!({"name": format!("S{number}"), "subjects": [format!("s.{number}")]}).to_string();
        let subject = format!("$JS.API.STREAM.CREATE.S{number}");
        app.publish_with_reply(subject, inbox.clone(), config.into()).await.unwrap();
    }
    let refused = async {
        loop {
            let answer: Value = serde_json::from_slice(&answers.next().await.unwrap().payload).unwrap();
            if !answer["error"].is_null() {
                return answer;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("some are refused");
    assert_eq!(refused["error"]["err_code"], 10023, "{refused}");
    let event: Value = serde_json::from_slice(&next(&mut told).await.payload).unwrap();
    assert_eq!(event["type"], "io.nats.jetstream.advisory.v1.api_limit_reached");
    assert_eq!((&event["server"], &event["domain"]), (&json!("pond"), &json!("HUB")));
    assert!(event["dropped"].as_u64().is_some_and(|dropped| dropped > 0), "{event}");
}
