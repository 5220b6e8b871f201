//! Streams that let go of what has been worked on.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::{self, RetentionPolicy, StorageType};
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Bench, fetch, pull, soon};

async fn queue(bench: &Bench, storage: StorageType, retention: RetentionPolicy) -> stream::Stream {
    bench
        .stream(stream::Config {
            name: "JOBS".into(),
            subjects: vec!["jobs.*".into()],
            storage,
            retention,
            ..Default::default()
        })
        .await
}

async fn four_workers_share_the_work(storage: StorageType) {
    const JOBS: usize = 2000;
    let bench = Bench::start().await;
    let mut stream = queue(&bench, storage, RetentionPolicy::WorkQueue).await;
    pull(&stream, "workers").await;
    let (done, mut results) = mpsc::channel(JOBS);
    for worker in 0..4 {
        let (client, done) = (bench.connect().await, done.clone());
        tokio::spawn(async move {
            let js = async_nats::jetstream::new(client);
            let consumer: PullConsumer = js.get_consumer_from_stream("workers", "JOBS").await.unwrap();
            let mut messages = consumer.messages().await.unwrap();
            while let Some(Ok(message)) = messages.next().await {
                let job: usize = String::from_utf8_lossy(&message.payload).parse().unwrap();
                message.double_ack().await.unwrap();
                if done.send((worker, job)).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut acks = Vec::new();
    for job in 0..JOBS {
        acks.push(bench.js.publish(format!("jobs.{}", job % 5), job.to_string().into()).await.unwrap());
    }
    let mut seen = BTreeMap::new();
    while seen.len() < JOBS {
        let (worker, job) = soon(results.recv()).await.unwrap();
        assert_eq!(seen.insert(job, worker), None, "job {job} was done twice");
    }
    for ack in acks {
        soon(async { ack.await }).await.unwrap();
    }
    assert_eq!(soon(stream.info()).await.unwrap().state.messages, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_job_is_done_once_on_disk() {
    four_workers_share_the_work(StorageType::File).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_job_is_done_once_in_memory() {
    four_workers_share_the_work(StorageType::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acked_work_does_not_come_back_after_a_restart() {
    let mut bench = Bench::start().await;
    let stream = queue(&bench, StorageType::File, RetentionPolicy::WorkQueue).await;
    let consumer = pull(&stream, "w").await;
    for job in 0..50 {
        bench.publish("jobs.x", &job.to_string()).await;
    }
    assert_eq!(fetch(&consumer, 30, true).await.len(), 30);
    bench.restart().await;
    let mut stream = soon(bench.js.get_stream("JOBS")).await.unwrap();
    assert_eq!(soon(stream.info()).await.unwrap().state.messages, 20);
    let consumer: PullConsumer = soon(stream.get_consumer("w")).await.unwrap();
    let rest: Vec<String> = (30..50).map(|job| job.to_string()).collect();
    assert_eq!(fetch(&consumer, 20, true).await, rest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interest_keeps_a_message_until_the_last_consumer_has_acked() {
    let bench = Bench::start().await;
    let mut stream = queue(&bench, StorageType::File, RetentionPolicy::Interest).await;
    assert_eq!(bench.publish("jobs.x", "nobody wants it").await, 1);
    assert_eq!(soon(stream.info()).await.unwrap().state.messages, 0);
    let (one, two) = (pull(&stream, "one").await, pull(&stream, "two").await);
    bench.publish("jobs.x", "wanted").await;
    assert_eq!(fetch(&one, 1, true).await, ["wanted"]);
    assert_eq!(soon(stream.info()).await.unwrap().state.messages, 1);
    assert_eq!(fetch(&two, 1, true).await, ["wanted"]);
    assert_eq!(soon(stream.info()).await.unwrap().state.messages, 0);
    bench.publish("jobs.x", "for one only").await;
    assert_eq!(fetch(&one, 1, true).await, ["for one only"]);
    soon(stream.delete_consumer("two")).await.unwrap();
    assert_eq!(soon(stream.info()).await.unwrap().state.messages, 0);
}

/// The ack and the server's end come to the stream together: the floor that is stored must not say more than what is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_right_before_the_end_takes_its_messages_with_it() {
    const COUNT: u64 = 2500;
    let mut bench = Bench::start().await;
    for round in 0..4 {
        let (queue, subject) = (format!("Q{round}"), format!("q{round}"));
        bench.create(json!({"name": queue, "subjects": [subject], "retention": "interest"})).await;
        let config = json!({"durable_name": "c", "ack_policy": "all", "max_ack_pending": -1});
        let body = json!({"stream_name": queue, "config": config});
        bench.api(&format!("CONSUMER.DURABLE.CREATE.{queue}.c"), body).await;
        for _ in 0..COUNT {
            bench.client.publish(subject.clone(), "work".into()).await.unwrap();
        }
        bench.info_when(&queue, |info| info["state"]["messages"] == COUNT).await;
        let mut inbox = bench.client.subscribe("inbox").await.unwrap();
        let body = json!({"batch": COUNT, "no_wait": true}).to_string();
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{queue}.c");
        bench.client.publish_with_reply(next, "inbox", body.into()).await.unwrap();
        let mut last = None;
        for _ in 0..COUNT {
            last = soon(inbox.next()).await;
        }
        bench.client.publish(last.unwrap().reply.unwrap(), "+ACK".into()).await.unwrap();
        bench.client.flush().await.unwrap();
        bench.restart().await;
        let info = bench.api(&format!("CONSUMER.INFO.{queue}.c"), json!(null)).await;
        let floor = info["ack_floor"]["stream_seq"].as_u64().unwrap();
        let state = &bench.info(&queue).await["state"];
        assert_eq!(state["messages"], COUNT - floor, "{floor}: {state}");
    }
}
