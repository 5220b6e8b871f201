//! VAPORA (ADR-005) on async-nats 0.45: tasks on one file stream, several agents on one durable pull consumer, explicit
//! acks after the work, redelivery of what was not acked, retention, and restarts that lose nothing.
//! See scenario.rs for `@kill` and `@start`.

use async_nats::jetstream::consumer::{self, AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Context, stream};
use async_nats::{Client, ConnectOptions};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin};
use tokio::time::timeout;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const PATIENCE: Duration = Duration::from_secs(20);
const TASKS: u64 = 400;
const AGENTS: usize = 4;

fn step(text: &str) {
    println!("- {text}");
}

/// Asks the harness to kill, stop or start the server.
async fn server(wish: &str, harness: &mut Lines<BufReader<Stdin>>) -> Result<()> {
    println!("@{wish}");
    assert_eq!(harness.next_line().await?.as_deref(), Some("done"));
    Ok(())
}

async fn connect(name: &str) -> Result<Client> {
    let options = ConnectOptions::new().name(name).reconnect_delay_callback(|_| Duration::from_millis(50));
    Ok(options.connect(std::env::var("NATS_URL")?).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut harness = BufReader::new(stdin()).lines();
    let client = connect("vapora").await?;
    let js = jetstream::new(client.clone());
    prepare(&js).await?;
    shared_by_agents(&js).await?;
    redelivery(&js).await?;
    retention(&js).await?;
    work_queue(&js).await?;
    restart(&js, &mut harness).await?;
    step("all as it should be");
    Ok(())
}

async fn prepare(js: &Context) -> Result<()> {
    step("the stream TASKS and its durable pull consumer");
    let config = stream::Config {
        name: "TASKS".into(),
        subjects: vec!["tasks.assigned".into()],
        storage: stream::StorageType::File,
        max_age: Duration::from_secs(7 * 24 * 3600),
        max_bytes: 1 << 30,
        ..Default::default()
    };
    let tasks = js.create_stream(config).await?;
    assert_eq!(tasks.cached_info().config.subjects, ["tasks.assigned"]);
    let config = pull::Config {
        durable_name: Some("agent-consumer".into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(30),
        ..Default::default()
    };
    tasks.get_or_create_consumer("agent-consumer", config).await?;
    Ok(())
}

async fn agent_consumer(js: &Context) -> Result<PullConsumer> {
    Ok(js.get_stream("TASKS").await?.get_consumer("agent-consumer").await?)
}

async fn shared_by_agents(js: &Context) -> Result<()> {
    step("every task to exactly one agent, in order, acked after the work");
    for number in 1..=TASKS {
        let ack = js.publish("tasks.assigned", task(number).into()).await?.await?;
        assert_eq!((ack.stream.as_str(), ack.sequence), ("TASKS", number));
    }
    let depth = agent_consumer(js).await?.info().await?.num_pending;
    assert_eq!(depth, TASKS, "queue depth");
    let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let mut agents = Vec::new();
    for agent in 0..AGENTS {
        let done = done.clone();
        agents.push(tokio::spawn(async move {
            let js = jetstream::new(connect(&format!("agent-{agent}")).await?);
            let consumer = agent_consumer(&js).await?;
            let mut messages = consumer.stream().max_messages_per_batch(10).messages().await?;
            while let Some(message) = messages.try_next().await? {
                let info = message.info()?;
                assert_eq!(&message.payload[..], task(info.stream_sequence).as_bytes());
                tokio::task::yield_now().await;
                message.double_ack().await?;
                if done.send((agent, message.info()?.stream_sequence)).is_err() {
                    break;
                }
            }
            Ok::<(), Error>(())
        }));
    }
    drop(done);
    let mut by_agent: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for _ in 0..TASKS {
        let (agent, sequence) = timeout(PATIENCE, finished.recv()).await?.ok_or("the agents ended")?;
        by_agent.entry(agent).or_default().push(sequence);
    }
    assert!(by_agent.values().all(|sequences| sequences.is_sorted()), "out of order: {by_agent:?}");
    let mut all: Vec<u64> = by_agent.into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (1..=TASKS).collect::<Vec<_>>(), "each once");
    agents.iter().for_each(|agent| agent.abort());
    let info = agent_consumer(js).await?.info().await?.clone();
    assert_eq!((info.num_pending, info.num_ack_pending, info.ack_floor.stream_sequence), (0, 0, TASKS));
    Ok(())
}

fn task(number: u64) -> String {
    format!("{{\"task_id\":\"t-{number}\",\"agent_role\":\"developer\"}}")
}

async fn redelivery(js: &Context) -> Result<()> {
    step("a task whose agent vanished comes back, once its ack wait is over");
    let tasks = js.get_stream("TASKS").await?;
    let config = pull::Config {
        durable_name: Some("impatient".into()),
        ack_wait: Duration::from_millis(400),
        deliver_policy: consumer::DeliverPolicy::LastPerSubject,
        filter_subject: "tasks.assigned".into(),
        ..Default::default()
    };
    let consumer = tasks.create_consumer(config).await?;
    {
        let vanishing = jetstream::new(connect("vanishing").await?);
        let consumer: PullConsumer = vanishing.get_stream("TASKS").await?.get_consumer("impatient").await?;
        let mut batch = consumer.fetch().max_messages(1).messages().await?;
        assert_eq!(timeout(PATIENCE, batch.next()).await?.ok_or("nothing")??.info()?.delivered, 1);
    }
    let mut batch = consumer.batch().max_messages(1).expires(PATIENCE).messages().await?;
    let again = timeout(PATIENCE, batch.next()).await?.ok_or("nothing")??;
    assert_eq!((again.info()?.delivered, again.info()?.stream_sequence), (2, TASKS));
    again.ack().await?;
    tasks.delete_consumer("impatient").await?;
    Ok(())
}

async fn retention(js: &Context) -> Result<()> {
    step("retention by count, size and age");
    for (name, limit) in [
        ("COUNT", stream::Config { max_messages: 10, ..Default::default() }),
        ("SIZE", stream::Config { max_bytes: 5_000, ..Default::default() }),
        ("AGE", stream::Config { max_age: Duration::from_millis(500), ..Default::default() }),
    ] {
        let subject = format!("retained.{name}");
        let config = stream::Config { name: name.into(), subjects: vec![subject.clone()], ..limit };
        let mut stream = js.create_stream(config).await?;
        for _ in 0..50 {
            js.publish(subject.clone(), vec![b'x'; 200].into()).await?.await?;
        }
        let state = timeout(PATIENCE, async {
            loop {
                let state = stream.info().await?.state.clone();
                match name {
                    "AGE" if state.messages > 0 => tokio::time::sleep(Duration::from_millis(20)).await,
                    _ => return Ok::<_, Error>(state),
                }
            }
        })
        .await??;
        assert_eq!(state.last_sequence, 50, "{name}");
        match name {
            "COUNT" => assert_eq!((state.messages, state.first_sequence), (10, 41)),
            "SIZE" => assert!(state.bytes <= 5_000 && state.messages > 10, "{state:?}"),
            _ => assert_eq!((state.messages, state.first_sequence), (0, 51)),
        }
        js.delete_stream(name).await?;
    }
    Ok(())
}

async fn work_queue(js: &Context) -> Result<()> {
    step("a work queue forgets what is acked and refuses when full");
    let config = stream::Config {
        name: "QUEUE".into(),
        subjects: vec!["queue.>".into()],
        retention: stream::RetentionPolicy::WorkQueue,
        discard: stream::DiscardPolicy::New,
        max_messages: 20,
        ..Default::default()
    };
    let mut queue = js.create_stream(config).await?;
    for number in 0..20 {
        js.publish(format!("queue.{number}"), "x".into()).await?.await?;
    }
    let refused = js.publish("queue.more", "x".into()).await?.await;
    assert!(refused.is_err_and(|e| e.to_string().contains("maximum messages exceeded")));
    let config = pull::Config { durable_name: Some("workers".into()), ..Default::default() };
    let consumer = queue.create_consumer(config).await?;
    let mut batch = consumer.fetch().max_messages(20).messages().await?;
    let mut taken = 0;
    while let Some(message) = timeout(PATIENCE, batch.next()).await? {
        message?.double_ack().await?;
        taken += 1;
    }
    assert_eq!(taken, 20);
    let state = queue.info().await?.state.clone();
    assert_eq!((state.messages, state.last_sequence), (0, 20));
    Ok(())
}

async fn restart(js: &Context, harness: &mut Lines<BufReader<Stdin>>) -> Result<()> {
    step("kill -9 between ack and work: everything is there, nothing acked comes back");
    for round in 0..2 {
        let mut last = 0;
        for number in 0..50 {
            let body = format!("round {round} task {number}");
            last = js.publish("tasks.assigned", body.into()).await?.await?.sequence;
        }
        let consumer = agent_consumer(js).await?;
        let mut batch = consumer.fetch().max_messages(20).messages().await?;
        while let Some(message) = timeout(PATIENCE, batch.next()).await? {
            message?.double_ack().await?;
        }
        server("kill", harness).await?;
        server("start", harness).await?;
        let info = timeout(PATIENCE, async {
            loop {
                // Requests fail until the client has reconnected.
                if let Ok(mut stream) = js.get_stream("TASKS").await {
                    if let Ok(info) = stream.info().await {
                        return info.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await?;
        assert_eq!(info.state.last_sequence, last);
        let consumer = agent_consumer(js).await?;
        let mut batch = consumer.batch().max_messages(30).expires(PATIENCE).messages().await?;
        for number in 20..50 {
            let message = timeout(PATIENCE, batch.next()).await?.ok_or("the batch ended")??;
            assert_eq!(String::from_utf8_lossy(&message.payload), format!("round {round} task {number}"));
            message.double_ack().await?;
        }
    }
    Ok(())
}
