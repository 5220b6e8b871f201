//! kill -9 while streams take from others: after it, a mirror is its origin and a source has each message once, in order.
//!
//! `KILL_ROUNDS` makes it longer, `KILL_SEED` repeats the moments of a failure.

use std::time::Duration;

use async_nats::jetstream::{self, Context, stream};
use futures_util::StreamExt;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::timeout;

use crate::kill::connect;
use crate::support::server::{Program, Server};

const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes as fast as it can until the server is gone.
async fn publish(js: Context) {
    loop {
        let mut acks = Vec::new();
        for _ in 0..200 {
            match js.publish("from.here", "x".repeat(100).into()).await {
                Ok(ack) => acks.push(ack),
                Err(_) => return,
            }
        }
        for ack in acks {
            if !matches!(timeout(Duration::from_secs(2), async { ack.await }).await, Ok(Ok(_))) {
                return;
            }
        }
    }
}

async fn last_seq(js: &Context, stream: &str) -> u64 {
    js.get_stream(stream).await.expect("the stream is there").cached_info().state.last_sequence
}

/// The origin's sequences in the order in which the sourcing stream has them.
async fn sourced(js: &Context, stream: &str, count: u64) -> Vec<u64> {
    let stream = js.get_stream(stream).await.expect("the stream is there");
    let config = jetstream::consumer::pull::OrderedConfig { headers_only: true, ..Default::default() };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let messages = consumer.messages().await.expect("messages").take(count as usize);
    let seq = |message: Result<jetstream::Message, _>| {
        let message = message.expect("a message");
        let headers = message.headers.as_ref().expect("headers");
        let value = headers.get("Nats-Stream-Source").expect("where it came from").to_string();
        value.split(' ').nth(1).and_then(|seq| seq.parse::<u64>().ok()).expect("a sequence")
    };
    timeout(PATIENCE, messages.map(seq).collect()).await.expect("all messages in time")
}

/// Where each stream stands, with its sources and the consumers that others take through.
async fn standings(js: &Context) -> String {
    let mut told = String::new();
    for name in ["ORIGIN", "MIRROR", "SOURCED", "QUEUE", "WORKED"] {
        let stream = js.get_stream(name).await.expect("the stream is there");
        let info = stream.cached_info();
        told += &format!("{name}: {:?}\n  mirror {:?}\n  sources {:?}\n", info.state, info.mirror, info.sources);
        let mut consumers = stream.consumers();
        while let Some(Ok(consumer)) = consumers.next().await {
            told += &format!("  {consumer:?}\n");
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_from_others_survives_kill_nine_once_and_in_order() {
    let number = |name: &str, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"));
    let (rounds, seed) = (number("KILL_ROUNDS", 5), number("KILL_SEED", rand::random()));
    println!("KILL_SEED={seed} KILL_ROUNDS={rounds}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut server = Server::start(Program::under_test()).expect("a server to kill");
    let js = connect(&server).await;
    let from = || stream::Source { name: "ORIGIN".into(), ..Default::default() };
    let queue = || stream::Source { name: "QUEUE".into(), ..Default::default() };
    for config in [
        stream::Config { name: "ORIGIN".into(), subjects: vec!["from.>".into()], ..Default::default() },
        stream::Config { name: "MIRROR".into(), mirror: Some(from()), ..Default::default() },
        stream::Config { name: "SOURCED".into(), sources: Some(vec![from()]), ..Default::default() },
        stream::Config {
            name: "QUEUE".into(),
            mirror: Some(from()),
            retention: stream::RetentionPolicy::WorkQueue,
            ..Default::default()
        },
        stream::Config { name: "WORKED".into(), sources: Some(vec![queue()]), ..Default::default() },
    ] {
        js.create_stream(config).await.expect("a stream");
    }
    for _ in 0..rounds {
        let publisher = tokio::spawn(publish(connect(&server).await));
        // The moment itself is what is random; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
        server.kill();
        publisher.abort();
        server.restart().expect("it starts again after a kill");
    }
    let js = connect(&server).await;
    let last = last_seq(&js, "ORIGIN").await;
    println!("{last} messages");
    let caught_up = async {
        for stream in ["MIRROR", "SOURCED", "WORKED"] {
            while last_seq(&js, stream).await < last {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // What has been taken is acked, and gone.
        while js.get_stream("QUEUE").await.unwrap().cached_info().state.messages > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(PATIENCE, caught_up).await.is_err() {
        panic!("not all catch up with {last} messages:\n{}", standings(&js).await);
    }
    let mirror = js.get_stream("MIRROR").await.unwrap().cached_info().state.clone();
    let origin = js.get_stream("ORIGIN").await.unwrap().cached_info().state.clone();
    assert_eq!((mirror.messages, mirror.last_sequence, mirror.bytes), (origin.messages, last, origin.bytes));
    assert_eq!((mirror.first_timestamp, mirror.last_timestamp), (origin.first_timestamp, origin.last_timestamp));
    for stream in ["SOURCED", "WORKED"] {
        assert_eq!(last_seq(&js, stream).await, last);
        assert!(sourced(&js, stream, last).await.into_iter().eq(1..=last), "{stream}: each message once and in order");
    }
}
