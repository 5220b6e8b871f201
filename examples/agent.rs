//! An agent: registers, works on what it is given and says how it went. Any NATS client will do; this is async-nats.
//!
//! `cargo run --example agent -- rob`

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, AckKind, Message, consumer::PullConsumer};
use async_nats::{Client, ConnectOptions, Event};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

const SLOTS: usize = 4;

/// Asks until there is an answer: the broker may be away for a while, and asking again does no harm.
async fn call(nats: &Client, subject: String, body: Bytes) -> Result<Bytes, String> {
    loop {
        match nats.request(subject.clone(), body.clone()).await {
            Ok(answer) => {
                let refused = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error"));
                return refused.map_or(Ok(answer.payload), |reason| Err(reason.to_string()));
            }
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}

async fn register(nats: &Client, name: &str, before: &Value) -> Result<Value, Box<dyn Error>> {
    let request = json!({"labels": ["lang=rust"], "slots": SLOTS, "resume": before["resume"].as_str().unwrap_or("")});
    let answer = call(nats, format!("$TASK.API.AGENT.REGISTER.{name}"), request.to_string().into()).await?;
    let card: Value = serde_json::from_slice(&answer)?;
    if card["presence"] != before["presence"] {
        // To listen there is to be there: when it ends, our tasks go to others.
        let mut pings = nats.subscribe(field(&card, "presence")).await?;
        tokio::spawn(async move { while pings.next().await.is_some() {} });
    }
    Ok(card)
}

/// The work itself.
async fn shout(nats: &Client, text: &str, progress: &str) -> Result<String, String> {
    for word in text.split_whitespace() {
        if word == "impossible" {
            return Err("that is impossible".to_owned());
        }
        nats.publish(progress.to_owned(), word.to_uppercase().into()).await.map_err(|error| error.to_string())?;
        sleep(Duration::from_millis(100)).await;
    }
    Ok(text.to_uppercase())
}

async fn work(nats: Client, task: Message, lease: Duration, stop: oneshot::Receiver<()>) {
    let header = |name: &str| task.headers.as_ref().and_then(|all| all.get(name)).map(|value| value.to_string());
    let (text, progress) = (String::from_utf8_lossy(&task.payload), header("Task-Progress").unwrap_or_default());
    let lease = header("Task-Lease").and_then(|told| told.parse().ok()).map_or(lease, Duration::from_secs_f64);
    let keep_lease = async {
        loop {
            sleep(lease / 3).await; // silent work would lose its lease
            let _ = task.ack_with(AckKind::Progress).await;
        }
    };
    let outcome = tokio::select! {
        outcome = shout(&nats, &text, &progress) => outcome,
        _ = stop => Err("stopped as told".to_owned()),
        () = keep_lease => unreachable!("a lease is kept for ever"),
    };
    let (verdict, body) = match outcome {
        Ok(result) => ("Task-Complete", result),
        Err(error) => ("Task-Fail", json!({"error": error, "retry": false}).to_string()),
    };
    let answer = call(&nats, header(verdict).unwrap_or_default(), body.into()).await;
    let _ = task.ack().await;
    println!("{} {}", header("Task-Id").unwrap_or_default(), answer.err().unwrap_or(verdict.to_owned()));
}

fn field(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or("rob".to_owned());
    let url = std::env::var("NATS_URL").unwrap_or("nats://127.0.0.1:4222".to_owned());
    let (connected, mut connections) = mpsc::unbounded_channel();
    let watch = move |event| {
        if event == Event::Connected {
            let _ = connected.send(());
        }
        async {}
    };
    let nats = ConnectOptions::new().name(&name).event_callback(watch).connect(url).await?;
    let card = register(&nats, &name, &Value::Null).await?;

    let running = Arc::new(Mutex::new(BTreeMap::<String, Option<oneshot::Sender<()>>>::new()));
    let draining = Arc::new(AtomicBool::new(false));
    let mut told = nats.subscribe(field(&card, "control")).await?;
    let (client, mut latest, tasks, drain, agent) =
        (nats.clone(), card.clone(), running.clone(), draining.clone(), name.clone());
    tokio::spawn(async move {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        loop {
            tokio::select! {
                // The token keeps our leases when we come back.
                Some(()) = connections.recv() => latest = register(&client, &agent, &latest).await.expect("our id is ours"),
                _ = term.recv() => drop(call(&client, format!("$TASK.API.AGENT.DRAIN.{agent}"), Bytes::new()).await),
                Some(message) = told.next() => {
                    let told: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
                    match (told["op"].as_str(), told["task"].as_str()) {
                        (Some("drain"), _) => drain.store(true, Ordering::Relaxed),
                        (Some("cancel"), Some(task)) => drop(tasks.lock().unwrap().get_mut(task).map(Option::take)),
                        _ => {}
                    }
                }
                else => return std::io::Result::Ok(()),
            }
        }
    });

    let lease = Duration::from_secs_f64(card["lease_s"].as_f64().unwrap_or(30.0));
    let stream = field(&card, "stream");
    let consumer: PullConsumer =
        jetstream::new(nats.clone()).get_consumer_from_stream(field(&card, "consumer"), stream).await?;
    while !draining.load(Ordering::Relaxed) || !running.lock().unwrap().is_empty() {
        let fetched = consumer.batch().max_messages(SLOTS).expires(Duration::from_secs(1)).messages().await;
        let Ok(mut fetched) = fetched else {
            sleep(Duration::from_millis(500)).await; // the broker is away
            continue;
        };
        while let Some(Ok(task)) = fetched.next().await {
            let id =
                task.headers.as_ref().and_then(|all| all.get("Task-Id")).map(|id| id.to_string()).unwrap_or_default();
            let (stop, stopped) = oneshot::channel();
            running.lock().unwrap().insert(id.clone(), Some(stop));
            let (work, running) = (work(nats.clone(), task, lease, stopped), running.clone());
            tokio::spawn(async move {
                work.await;
                running.lock().unwrap().remove(&id);
            });
        }
    }
    nats.drain().await?;
    Ok(())
}
