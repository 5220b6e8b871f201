//! kill -9 and SIGTERM while workers give up messages, with a stream that keeps what the broker tells of that: a dead letter
//! queue as the NATS documentation has it. A message whose end survives was told of by then; any other is delivered again.
//!
//! `KILL_ROUNDS` makes it longer.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::{AckKind, Context, stream};
use futures_util::{StreamExt, TryStreamExt};
use rand::RngExt;
use tokio_util::sync::CancellationToken;

use crate::kill::connect;
use crate::support::server::{Program, Server};

const MESSAGES: u64 = 100;
/// How workers of each consumer give up, and the advisory that tells of it.
const WAYS: [(&str, &str); 2] = [("terms", "MSG_TERMINATED"), ("naks", "MAX_DELIVERIES")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_end_of_a_message_survives_without_the_advisory_that_tells_of_it() {
    let rounds = std::env::var("KILL_ROUNDS").map_or(8, |text| text.parse().expect("a number"));
    let mut server = Server::start(Program::under_test()).expect("a server to kill");
    let (mut told, mut again) = (0, 0);
    for round in 0..rounds {
        let js = connect(&server).await;
        let work = create(&js).await;
        let killed = CancellationToken::new();
        let workers = WAYS.map(|(way, _)| tokio::spawn(give_up(work.clone(), way, killed.clone())));
        // The moment itself is what is random; nothing is waited for.
        let moment = Duration::from_millis(rand::rng().random_range(10..60));
        tokio::time::sleep(moment).await;
        if round % 3 == 2 {
            // In order; what workers say meanwhile may come too late.
            server.stop().expect("it stops");
        } else {
            server.kill();
        }
        killed.cancel();
        let mut confirmed = Vec::new();
        for worker in workers {
            confirmed.push(worker.await.expect("a worker"));
        }
        server.restart().expect("it starts again after a kill");
        let js = connect(&server).await;
        for ((way, kind), confirmed) in WAYS.into_iter().zip(confirmed) {
            let comes = left(&js, way).await;
            // What had all its deliveries may have been told of only now.
            let tells = letters(&js, kind).await;
            told += tells.len();
            again += comes.len();
            let lost: Vec<u64> = (1..=MESSAGES).filter(|seq| !tells.contains(seq) && !comes.contains(seq)).collect();
            assert!(lost.is_empty(), "round {round}, {way}: over, and nothing tells of {lost:?}");
            let undone: Vec<u64> = confirmed.intersection(&comes).copied().collect();
            assert!(undone.is_empty() || server.is_real(), "round {round}, {way}: confirmed and again: {undone:?}");
        }
        for name in ["WORK", "LETTERS"] {
            js.delete_stream(name).await.expect("the stream goes");
        }
    }
    println!("{told} told of, {again} delivered again");
    assert!(told > 0 && again > 0, "no kill came in the middle");
}

async fn create(js: &Context) -> stream::Stream {
    let letters: Vec<String> =
        WAYS.iter().map(|(way, kind)| format!("$JS.EVENT.ADVISORY.CONSUMER.{kind}.WORK.{way}")).collect();
    let config = stream::Config { name: "LETTERS".into(), subjects: letters, ..Default::default() };
    js.create_stream(config).await.expect("a stream of letters");
    let config = stream::Config { name: "WORK".into(), subjects: vec!["work".into()], ..Default::default() };
    let work = js.create_stream(config).await.expect("a stream of work");
    for (way, _) in WAYS {
        let config = pull::Config {
            durable_name: Some(way.into()),
            max_deliver: if way == "naks" { 1 } else { -1 },
            ack_wait: Duration::from_millis(500),
            ..Default::default()
        };
        work.create_consumer(config).await.expect("a consumer");
    }
    let acks = (0..MESSAGES).map(|number| js.publish("work", number.to_string().into()));
    for ack in futures_util::future::try_join_all(acks).await.expect("published") {
        ack.await.expect("stored");
    }
    work
}

/// Gives up one message after another until the server is killed; those of which it was told that the broker knows.
async fn give_up(work: stream::Stream, way: &'static str, killed: CancellationToken) -> BTreeSet<u64> {
    let mut confirmed = BTreeSet::new();
    let giving_up = async {
        let consumer: PullConsumer = work.get_consumer(way).await.ok()?;
        let messages = consumer.stream().max_messages_per_batch(50).messages().await.ok()?;
        let mut ends = messages
            .map(async |message| {
                let message = message.ok()?;
                let seq = message.info().expect("a delivery's reply subject").stream_sequence;
                let word = if way == "naks" { AckKind::Nak(None) } else { AckKind::Term };
                message.double_ack_with(word).await.ok().map(|()| seq)
            })
            .buffer_unordered(4);
        while let Some(Some(seq)) = ends.next().await {
            confirmed.insert(seq);
        }
        Some(())
    };
    killed.run_until_cancelled(giving_up).await;
    confirmed
}

/// The messages that advisories of a kind tell of.
async fn letters(js: &Context, kind: &str) -> BTreeSet<u64> {
    let mut stream = js.get_stream("LETTERS").await.expect("the letters are there");
    let count = stream.info().await.expect("its state").state.messages as usize;
    let reader = stream.create_consumer(pull::OrderedConfig::default()).await.expect("a reader");
    let mut messages = reader.messages().await.expect("what it reads").take(count);
    let mut told = BTreeSet::new();
    while let Some(message) = messages.try_next().await.expect("a letter") {
        if message.subject.contains(kind) {
            let body: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
            told.insert(body["stream_seq"].as_u64().expect("a sequence"));
        }
    }
    told
}

/// The messages that a consumer still has to deliver.
async fn left(js: &Context, way: &str) -> BTreeSet<u64> {
    let mut consumer: PullConsumer = js.get_consumer_from_stream(way, "WORK").await.expect("the consumer");
    let mut left = BTreeSet::new();
    loop {
        let info = consumer.info().await.expect("its state");
        if info.num_pending == 0 && info.num_ack_pending == 0 {
            return left;
        }
        let count = info.num_pending as usize + info.num_ack_pending;
        let batch = consumer.batch().max_messages(count).expires(Duration::from_secs(2)).messages();
        let mut batch = batch.await.expect("a pull");
        while let Some(message) = batch.next().await {
            let message = message.expect("a message");
            left.insert(message.info().expect("a delivery's reply subject").stream_sequence);
            message.double_ack().await.expect("a confirmed ack");
        }
    }
}
