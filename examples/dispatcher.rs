//! A dispatcher: submits a task, follows it and prints its result. Any NATS client will do; this is async-nats.
//!
//! `cargo run --example dispatcher -- job-7 'say hello' lang=rust`

use std::error::Error;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Request};
use futures_util::StreamExt;
use serde_json::Value;

/// Asks until there is an answer: the broker may be away for a while, and asking again does no harm.
async fn call(nats: &Client, subject: &str, body: &str, headers: &[(&str, &str)]) -> (Message, Option<String>) {
    let mut map = HeaderMap::new();
    headers.iter().for_each(|(name, value)| map.insert(*name, *value));
    let request = || Request::new().payload(body.to_owned().into()).headers(map.clone());
    loop {
        match nats.send_request(subject.to_owned(), request().timeout(Some(Duration::from_secs(10)))).await {
            Ok(answer) => {
                let headers = answer.headers.as_ref();
                let code =
                    headers.and_then(|headers| headers.get("Nats-Service-Error-Code")).map(|code| code.to_string());
                return (answer, code);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [id, text, requires @ ..] = arguments.as_slice() else { return Err("give an id and a text".into()) };
    let nats = async_nats::connect(std::env::var("NATS_URL").unwrap_or("nats://127.0.0.1:4222".to_owned())).await?;
    let mut progress = nats.subscribe(format!("$TASK.P.{id}")).await?;
    let mut events = nats.subscribe(format!("$TASK.E.TASK.{id}")).await?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(chunk) = progress.next() => println!("... {}", String::from_utf8_lossy(&chunk.payload)),
                Some(event) = events.next() => {
                    let now: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
                    println!("- {} {}", now["phase"].as_str().unwrap_or(""), now["agent"].as_str().unwrap_or(""));
                }
                else => return,
            }
        }
    });
    // The id makes it one task, however often it is submitted.
    let mut headers = vec![("Task-Id", id.as_str())];
    headers.extend(requires.first().map(|labels| ("Task-Requires", labels.as_str())));
    let mut ended = call(&nats, "$TASK.API.SUBMIT", text, &headers).await;
    if ended.1.is_none() {
        ended = loop {
            let ended = call(&nats, &format!("$TASK.API.AWAIT.{id}"), "", &[("Task-Wait", "5s")]).await;
            // Not finished yet; not available now.
            if !matches!(ended.1.as_deref(), Some("408" | "503")) {
                break ended;
            }
        };
    }
    let (answer, code) = ended;
    if code.is_some() {
        // Refused, or ended without a result: then this is its record.
        let record: Value = serde_json::from_slice(&answer.payload)?;
        let reason = record["reason"].as_str().or(record["error"]["description"].as_str()).unwrap_or_default();
        eprintln!("{}: {reason}", record["state"].as_str().unwrap_or("refused"));
        std::process::exit(1);
    }
    println!("{}", String::from_utf8_lossy(&answer.payload));
    Ok(())
}
