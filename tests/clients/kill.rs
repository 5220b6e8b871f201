//! kill -9 at random moments under load from a real client: what was acknowledged to a publisher is there, once and in
//! order, and an ack that was confirmed to a worker is never forgotten.
//!
//! `KILL_ROUNDS` makes it longer, `KILL_SEED` repeats the moments of a failure.

use crate::support::server::{Program, Server};
use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::{self, Context, message::PublishMessage, stream};
use futures_util::{StreamExt, TryStreamExt};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const STREAM: &str = "KILLED";
const CONSUMER: &str = "worker";
const PUBLISHERS: usize = 4;
const WORKERS: usize = 2;
/// PubAcks that a publisher leaves outstanding, so that a kill leaves some in doubt.
const WINDOW: usize = 32;
const PATIENCE: Duration = Duration::from_secs(30);

/// What one publisher knows. It publishes its numbers in order and repeats, with the same message id, what it is in doubt
/// about.
#[derive(Default)]
struct Publisher {
    /// Numbers below this are acknowledged.
    next: u64,
    /// Number by the stream sequence that its PubAck named.
    acked: BTreeMap<u64, u64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_kill_nine_once_and_in_order() {
    let number = |name: &str, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"));
    let (rounds, seed) = (number("KILL_ROUNDS", 6), number("KILL_SEED", rand::random()));
    println!("KILL_SEED={seed} KILL_ROUNDS={rounds}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut server = Server::start(Program::under_test()).expect("a server to kill");
    create(&connect(&server).await).await;
    let mut publishers: Vec<Publisher> = (0..PUBLISHERS).map(|_| Publisher::default()).collect();
    let mut confirmed: BTreeSet<u64> = BTreeSet::new();
    let mut tried: BTreeSet<u64> = BTreeSet::new();
    for round in 0..rounds {
        let killed = CancellationToken::new();
        let mut tasks = Vec::new();
        for (name, publisher) in publishers.drain(..).enumerate() {
            tasks.push(tokio::spawn(publish(connect(&server).await, name, publisher, killed.clone())));
        }
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            // The real server confirms acks before it has them on disk, and forgets them.
            let never_again = if server.is_real() { BTreeSet::new() } else { confirmed.clone() };
            workers.push(tokio::spawn(work(connect(&server).await, never_again, killed.clone())));
        }
        // The moment itself is what is random; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(random.random_range(20..250))).await;
        server.kill();
        killed.cancel();
        for task in tasks {
            publishers.push(task.await.expect("a publisher"));
        }
        for worker in workers {
            let acks = worker.await.expect("a worker");
            confirmed.extend(acks.confirmed);
            tried.extend(acks.tried);
        }
        server.restart().expect("it starts again after a kill");
        let acked: usize = publishers.iter().map(|publisher| publisher.acked.len()).sum();
        println!("round {round}: {acked} publishes acked, {} acks confirmed", confirmed.len());
        check_stream(&connect(&server).await, &publishers).await;
    }
    let all = check_stream(&connect(&server).await, &publishers).await;
    if !server.is_real() {
        check_consumer(&connect(&server).await, confirmed, tried, all).await;
    }
}

pub async fn connect(server: &Server) -> Context {
    jetstream::new(async_nats::connect(server.url()).await.expect("a connection"))
}

async fn create(js: &Context) {
    let config = stream::Config { name: STREAM.into(), subjects: vec!["killed.*".into()], ..Default::default() };
    let stream = js.create_stream(config).await.expect("a stream");
    let config = pull::Config {
        durable_name: Some(CONSUMER.into()),
        ack_wait: Duration::from_secs(2),
        max_ack_pending: 500,
        ..Default::default()
    };
    stream.create_consumer(config).await.expect("a consumer");
}

/// Publishes until the server is killed.
async fn publish(js: Context, name: usize, mut publisher: Publisher, killed: CancellationToken) -> Publisher {
    let mut outstanding = VecDeque::new();
    let mut sent = publisher.next;
    loop {
        while outstanding.len() < WINDOW {
            let message = PublishMessage::build().payload(sent.to_string().into()).message_id(format!("{name}-{sent}"));
            match js.send_publish(format!("killed.{name}"), message).await {
                Ok(ack) => outstanding.push_back(ack),
                Err(_) => return publisher,
            }
            sent += 1;
        }
        let oldest = outstanding.pop_front().expect("the window was just filled");
        tokio::select! {
            ack = oldest => match ack {
                Ok(ack) => {
                    publisher.acked.insert(ack.sequence, publisher.next);
                    publisher.next += 1;
                }
                Err(e) => {
                    assert!(killed.is_cancelled(), "a publish failed on a living server: {e}");
                    return publisher;
                }
            },
            () = killed.cancelled() => return publisher,
        }
    }
}

/// What a worker did, by stream sequence.
#[derive(Default)]
struct Acks {
    confirmed: BTreeSet<u64>,
    /// Whose ack was sent; without a confirmation it may or may not be kept.
    tried: BTreeSet<u64>,
}

/// Takes and acks with confirmation until the server is killed.
async fn work(js: Context, confirmed: BTreeSet<u64>, killed: CancellationToken) -> Acks {
    let mut mine = BTreeSet::new();
    let tried = Mutex::new(BTreeSet::new());
    let working = async {
        let consumer: PullConsumer = js.get_consumer_from_stream(CONSUMER, STREAM).await.ok()?;
        let messages = consumer.stream().max_messages_per_batch(50).messages().await.ok()?;
        let mut acks = messages
            .map(async |message| {
                let message = message.ok()?;
                let sequence = message.info().expect("a delivery's reply subject").stream_sequence;
                assert!(!confirmed.contains(&sequence), "{sequence} came again after its ack was confirmed");
                tried.lock().expect("no panic under it").insert(sequence);
                message.double_ack().await.ok().map(|()| sequence)
            })
            .buffer_unordered(16);
        while let Some(Some(sequence)) = acks.next().await {
            mine.insert(sequence);
        }
        Some(())
    };
    killed.run_until_cancelled(working).await;
    Acks { confirmed: mine, tried: tried.into_inner().expect("no panic under it") }
}

/// Reads the whole stream and holds it against what the publishers know; returns its last sequence.
async fn check_stream(js: &Context, publishers: &[Publisher]) -> u64 {
    let mut stream = js.get_stream(STREAM).await.expect("the stream is there");
    let state = stream.info().await.expect("its state").state.clone();
    assert_eq!((state.first_sequence, state.messages), (1, state.last_sequence), "no gap: {state:?}");
    let reader = stream.create_consumer(pull::OrderedConfig::default()).await.expect("a reader");
    let mut stored: Vec<BTreeMap<u64, u64>> = vec![BTreeMap::new(); publishers.len()];
    let mut messages = reader.messages().await.expect("what it reads").take(state.messages as usize);
    while let Some(message) = timeout(PATIENCE, messages.try_next()).await.expect("in time").expect("a message") {
        let sequence = message.info().expect("a delivery's reply subject").stream_sequence;
        let name: usize = message.subject["killed.".len()..].parse().expect("a publisher's name");
        let number: u64 = String::from_utf8_lossy(&message.payload).parse().expect("a number");
        // In order, without a hole and without a repetition: the next number or nothing.
        assert_eq!(number, stored[name].len() as u64, "publisher {name} at sequence {sequence}");
        stored[name].insert(sequence, number);
    }
    for (name, (publisher, stored)) in publishers.iter().zip(&stored).enumerate() {
        for (sequence, number) in &publisher.acked {
            assert_eq!(stored.get(sequence), Some(number), "publisher {name}: acked as sequence {sequence}");
        }
    }
    state.last_sequence
}

/// Works off the rest: nothing that was confirmed, and all for which no ack was sent.
async fn check_consumer(js: &Context, mut confirmed: BTreeSet<u64>, tried: BTreeSet<u64>, last_sequence: u64) {
    let mut consumer: PullConsumer = js.get_consumer_from_stream(CONSUMER, STREAM).await.expect("the consumer");
    loop {
        let info = consumer.info().await.expect("its state");
        if info.num_pending == 0 && info.num_ack_pending == 0 {
            break;
        }
        let mut batch =
            consumer.batch().max_messages(200).expires(Duration::from_secs(3)).messages().await.expect("a pull");
        while let Some(message) = timeout(PATIENCE, batch.next()).await.expect("in time") {
            let message = message.expect("a message");
            let sequence = message.info().expect("a delivery's reply subject").stream_sequence;
            assert!(!confirmed.contains(&sequence), "{sequence} came again after its ack was confirmed");
            message.double_ack().await.expect("a confirmed ack");
            confirmed.insert(sequence);
        }
    }
    let lost: Vec<u64> = (1..=last_sequence).filter(|seq| !confirmed.contains(seq) && !tried.contains(seq)).collect();
    assert!(lost.is_empty(), "never worked off, though no ack was sent: {lost:?}");
}
