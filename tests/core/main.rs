//! Core NATS through the official Rust client against an embedded broker.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use natterjack::config::Config;
use natterjack::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(20);

async fn start() -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config { jetstream: false, coordinator: false, ..Config::on_free_ports(folder.path()) };
    (Server::start(config).await.expect("the broker starts"), folder)
}

async fn connect(server: &Server) -> Client {
    async_nats::connect(server.client_url()).await.expect("the client connects")
}

/// Returns once the broker has done all that the client asked for so far: `flush` only empties the client's buffer.
async fn settle(client: &Client) {
    let error = client.request("nobody.home", "".into()).await.expect_err("nobody listens there");
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
}

async fn next(subscriber: &mut async_nats::Subscriber) -> async_nats::Message {
    tokio::time::timeout(PATIENCE, subscriber.next()).await.expect("a message in time").expect("an open subscription")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_reach_every_matching_subscription_in_order() {
    let (server, _folder) = start().await;
    let client = connect(&server).await;
    let mut exact = client.subscribe("agent.events.one").await.unwrap();
    let mut star = client.subscribe("agent.*.one").await.unwrap();
    let mut full = client.subscribe("agent.>").await.unwrap();
    settle(&client).await;
    let publisher = connect(&server).await;
    for number in 0..2000u32 {
        publisher.publish("agent.events.one", number.to_be_bytes().to_vec().into()).await.unwrap();
    }
    publisher.publish("agent.other", "last".into()).await.unwrap();
    for subscriber in [&mut exact, &mut star, &mut full] {
        for number in 0..2000u32 {
            assert_eq!(next(subscriber).await.payload, number.to_be_bytes().to_vec());
        }
    }
    assert_eq!(next(&mut full).await.payload, "last");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_group_shares_and_each_message_reaches_one_member() {
    let (server, _folder) = start().await;
    let mut members = Vec::new();
    for _ in 0..3 {
        let client = connect(&server).await;
        let subscriber = client.queue_subscribe("work", "workers".into()).await.unwrap();
        settle(&client).await;
        members.push((client, subscriber));
    }
    let publisher = connect(&server).await;
    for number in 0..300u32 {
        publisher.publish("work", number.to_string().into()).await.unwrap();
    }
    settle(&publisher).await;
    let mut seen = Vec::new();
    let mut shares = Vec::new();
    for (client, subscriber) in &mut members {
        // Whatever was routed to this member lies before the answer to its own flush.
        settle(client).await;
        subscriber.unsubscribe().await.unwrap();
        let mut share = 0;
        while let Some(message) = tokio::time::timeout(PATIENCE, subscriber.next()).await.expect("the end in time") {
            seen.push(std::str::from_utf8(&message.payload).unwrap().parse::<u32>().unwrap());
            share += 1;
        }
        shares.push(share);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_and_nobody_listening_is_told_at_once() {
    let (server, _folder) = start().await;
    let service = connect(&server).await;
    let mut requests = service.subscribe("plugin.health.*").await.unwrap();
    settle(&service).await;
    let answering = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            service.publish(request.reply.unwrap(), request.payload).await.unwrap();
        }
    });
    let client = connect(&server).await;
    let reply = client.request("plugin.health.a", "ping".into()).await.unwrap();
    assert_eq!(reply.payload, "ping");
    let error = client.request("nobody.home", "".into()).await.unwrap_err();
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    answering.abort();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_large_payloads_arrive_unchanged() {
    let (server, _folder) = start().await;
    let client = connect(&server).await;
    assert_eq!(client.server_info().max_payload, 8 << 20);
    let mut subscriber = client.subscribe("documents").await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("X-Request-ID", "42");
    headers.append("Tag", "a");
    headers.append("Tag", "b");
    let payload: Vec<u8> = (0..4 << 20).map(|index: u32| (index % 251) as u8).collect();
    client.publish_with_headers("documents", headers.clone(), payload.clone().into()).await.unwrap();
    let message = next(&mut subscriber).await;
    assert_eq!(message.headers.unwrap(), headers);
    assert!(message.payload == payload, "the payload arrives byte for byte");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_unsubscribe_and_no_echo() {
    let (server, _folder) = start().await;
    let served = server.broker().account.subscription_count();
    let client = ConnectOptions::new().no_echo().connect(server.client_url()).await.unwrap();
    let other = connect(&server).await;
    let mut subscriber = client.subscribe("news").await.unwrap();
    subscriber.unsubscribe_after(2).await.unwrap();
    client.publish("news", "own".into()).await.unwrap();
    settle(&client).await;
    for text in ["one", "two", "three"] {
        other.publish("news", text.into()).await.unwrap();
    }
    assert_eq!(next(&mut subscriber).await.payload, "one");
    assert_eq!(next(&mut subscriber).await.payload, "two");
    assert!(subscriber.next().await.is_none());
    // What is left is the inbox for the answers to the client's requests.
    assert_eq!(server.broker().account.subscription_count(), served + 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_inside_the_process_is_served_like_any_other() {
    let (server, _folder) = start().await;
    let mut pipe = server.connect_in_process();
    pipe.write_all(b"CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n").await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"PONG\r\n") {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, pipe.read(&mut buffer)).await.expect("an answer in time").unwrap();
        assert_ne!(read, 0, "the connection stays open");
        text.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("INFO {") && text.contains("\r\nMSG a 1 2\r\nhi\r\nPONG\r\n"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_never_reads_is_cut_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { jetstream: false, coordinator: false, ..Config::on_free_ports(folder.path()) };
    config.limits.pending_bytes_max = 8 << 20;
    let server = Server::start(config).await.unwrap();
    let mut lazy = tokio::net::TcpStream::connect(server.client_address().unwrap()).await.unwrap();
    lazy.write_all(b"CONNECT {\"verbose\":false}\r\nSUB flood 1\r\nPING\r\n").await.unwrap();
    let mut buffer = [0; 4096];
    let mut text = Vec::new();
    while !text.ends_with(b"PONG\r\n") {
        let read = lazy.read(&mut buffer).await.unwrap();
        text.extend_from_slice(&buffer[..read]);
    }
    let client = connect(&server).await;
    let mut diligent = client.subscribe("flood").await.unwrap();
    settle(&client).await;
    let publisher = connect(&server).await;
    for _ in 0..64 {
        publisher.publish("flood", vec![7; 1 << 20].into()).await.unwrap();
    }
    for _ in 0..64 {
        assert_eq!(next(&mut diligent).await.payload.len(), 1 << 20);
    }
    let cut = async {
        while server.broker().totals().slow_consumers == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cut).await.expect("the lazy subscriber is cut in time");
    assert_eq!(server.broker().totals().slow_consumers, 1);
    server.stop().await;
}

/// A part of the broker with a defect.
struct Defective;

impl natterjack::broker::Service for Defective {
    fn call(&self, _request: natterjack::broker::Inbound) {
        panic!("a defect, as this test wants it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_one_connection_and_not_the_server() {
    let (server, _folder) = start().await;
    server.broker().account.add_service(b"defect", std::sync::Arc::new(Defective)).unwrap();
    let bystander = connect(&server).await;
    let mut subscriber = bystander.subscribe("news").await.unwrap();
    settle(&bystander).await;
    let mut victim = tokio::net::TcpStream::connect(server.client_address().unwrap()).await.unwrap();
    victim.write_all(b"CONNECT {\"verbose\":false}\r\nSUB news 1\r\nPUB defect 0\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, victim.read_to_end(&mut rest)).await.expect("the connection ends").unwrap();
    // Its subscription went with it, and everyone else is served.
    bystander.publish("news", "still here".into()).await.unwrap();
    assert_eq!(next(&mut subscriber).await.payload, "still here");
    assert_eq!(server.broker().client_count(), 1);
    server.stop().await;
}
