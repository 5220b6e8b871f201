//! The plugin and agent bus on async-nats 0.35: core subjects, request and reply, 4 MB payloads, the client's own disk
//! queue draining in a burst after the server was away, a dead letter after three attempts, no state unless asked for.
//! See scenario.rs for `@stop` and `@start`.

use async_nats::connection::State;
use async_nats::jetstream::{self, AckKind, consumer::pull, stream};
use async_nats::{Client, ConnectOptions, HeaderMap};
use futures_util::StreamExt;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Stdin, stdin};
use tokio::time::timeout;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const PATIENCE: Duration = Duration::from_secs(20);

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

/// Returns when the server has done all that the client asked for so far: `flush` only empties the client's buffer.
async fn settle(client: &Client) -> Result<()> {
    match client.request("nobody.listens.here".to_string(), "".into()).await {
        Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => Ok(()),
        other => Err(format!("a request nobody answers: {other:?}").into()),
    }
}

async fn connected(client: &Client) {
    timeout(PATIENCE, async {
        while client.connection_state() != State::Connected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the client reconnects");
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut harness = BufReader::new(stdin()).lines();
    let hub = connect("hub").await?;
    let plugin = connect("plugin").await?;
    health().await?;
    subjects(&hub, &plugin).await?;
    requests(&hub, &plugin).await?;
    large_payloads(&hub, &plugin).await?;
    no_state(&hub).await?;
    disk_queue(&hub, &plugin, &mut harness).await?;
    dead_letter(&hub).await?;
    step("all as it should be");
    Ok(())
}

async fn health() -> Result<()> {
    step("healthz by GET and by HEAD");
    let url = std::env::var("MONITORING_URL")?;
    let host = url.strip_prefix("http://").ok_or("an http URL")?;
    for method in ["GET", "HEAD"] {
        let mut socket = tokio::net::TcpStream::connect(host).await?;
        let request = format!("{method} /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        socket.read_to_string(&mut response).await?;
        assert!(response.starts_with("HTTP/1.1 200"), "{method}: {response}");
    }
    Ok(())
}

async fn subjects(hub: &Client, plugin: &Client) -> Result<()> {
    step("each subject of the bus reaches who listens, in order, with its headers");
    for (filter, subject) in [
        ("plugin.inbound.*", "plugin.inbound.telegram"),
        ("plugin.outbound.*.*", "plugin.outbound.telegram.bot1"),
        ("plugin.health.*", "plugin.health.bot1"),
        ("agent.events.*", "agent.events.started"),
        ("agent.>", "agent.route.7"),
    ] {
        let mut subscriber = hub.subscribe(filter.to_string()).await?;
        settle(hub).await?;
        for number in 0..100 {
            let mut headers = HeaderMap::new();
            headers.insert("Attempt", number.to_string().as_str());
            plugin.publish_with_headers(subject.to_string(), headers, format!("{number}").into()).await?;
        }
        settle(plugin).await?;
        for number in 0..100 {
            let message = timeout(PATIENCE, subscriber.next()).await?.ok_or("the subscription ended")?;
            assert_eq!((message.subject.as_str(), &message.payload[..]), (subject, number.to_string().as_bytes()));
            let headers = message.headers.ok_or("no headers")?;
            assert_eq!(headers.get("Attempt").map(|v| v.as_str()), Some(number.to_string().as_str()));
        }
        subscriber.unsubscribe().await?;
    }
    Ok(())
}

async fn requests(hub: &Client, plugin: &Client) -> Result<()> {
    step("agent.route.<id> is answered; nobody there is an error at once");
    let mut routes = plugin.subscribe("agent.route.*").await?;
    settle(plugin).await?;
    let answering = plugin.clone();
    let answers = tokio::spawn(async move {
        while let Some(request) = routes.next().await {
            let reply = request.reply.expect("a request has a reply subject");
            answering.publish(reply, request.payload).await.expect("a connected client publishes");
        }
    });
    let mut nanos = Vec::new();
    for number in 0..300 {
        let began = Instant::now();
        let reply = hub.request(format!("agent.route.{number}"), format!("{number}").into()).await?;
        nanos.push(began.elapsed());
        assert_eq!(&reply.payload[..], number.to_string().as_bytes());
    }
    nanos.sort_unstable();
    step(&format!("round trip: median {:?}", nanos[nanos.len() / 2]));
    answers.abort();
    let began = Instant::now();
    let error = hub.request("agent.nobody", "".into()).await.expect_err("a reply from nobody");
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    assert!(began.elapsed() < Duration::from_secs(5));
    Ok(())
}

async fn large_payloads(hub: &Client, plugin: &Client) -> Result<()> {
    step("4 MB arrive whole");
    let mut subscriber = plugin.subscribe("plugin.inbound.files").await?;
    settle(plugin).await?;
    assert!(hub.server_info().max_payload >= 4 << 20, "max_payload {}", hub.server_info().max_payload);
    let body: Vec<u8> = (0..4 << 20).map(|at: u32| (at % 251) as u8).collect();
    for _ in 0..3 {
        hub.publish("plugin.inbound.files", body.clone().into()).await?;
    }
    settle(hub).await?;
    for _ in 0..3 {
        let message = timeout(PATIENCE, subscriber.next()).await?.ok_or("the subscription ended")?;
        assert!(message.payload == body, "other bytes");
    }
    Ok(())
}

async fn no_state(hub: &Client) -> Result<()> {
    step("the broker keeps nothing that nobody asked it to keep");
    let account = jetstream::new(hub.clone()).query_account().await?;
    assert_eq!((account.streams, account.consumers, account.storage), (0, 0, 0));
    Ok(())
}

async fn disk_queue(hub: &Client, plugin: &Client, harness: &mut Lines<BufReader<Stdin>>) -> Result<()> {
    step("what queued on the client's disk while the server was away drains in order");
    let mut subscriber = plugin.subscribe("plugin.outbound.telegram.*").await?;
    settle(plugin).await?;
    server("stop", harness).await?;
    let queue: Vec<String> = (0..2000).map(|number| format!("queued {number}")).collect();
    server("start", harness).await?;
    connected(hub).await;
    connected(plugin).await;
    // The plugin's subscription is back when its PONG is.
    settle(plugin).await?;
    for entry in &queue {
        hub.publish("plugin.outbound.telegram.bot1", entry.clone().into()).await?;
    }
    settle(hub).await?;
    for entry in &queue {
        let message = timeout(PATIENCE, subscriber.next()).await?.ok_or("the subscription ended")?;
        assert_eq!(&message.payload[..], entry.as_bytes());
    }
    Ok(())
}

async fn dead_letter(hub: &Client) -> Result<()> {
    step("three failed attempts end in an advisory, from which the plugin makes a dead letter");
    let js = jetstream::new(hub.clone());
    let config = stream::Config {
        name: "JOBS".into(),
        subjects: vec!["plugin.jobs".into()],
        allow_direct: true,
        ..Default::default()
    };
    let jobs = js.create_stream(config).await?;
    let config = pull::Config {
        durable_name: Some("plugin".into()),
        max_deliver: 3,
        ack_wait: Duration::from_secs(30),
        ..Default::default()
    };
    let consumer = jobs.create_consumer(config).await?;
    let mut advisories = hub.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.JOBS.plugin").await?;
    let mut letters = hub.subscribe("plugin.dead.*").await?;
    settle(hub).await?;
    let sequence = js.publish("plugin.jobs", "poison".into()).await?.await?.sequence;
    let mut messages = consumer.messages().await?;
    for attempt in 1..=3 {
        let message = timeout(PATIENCE, messages.next()).await?.ok_or("the pull ended")??;
        assert_eq!(message.info()?.delivered, attempt);
        message.ack_with(AckKind::Nak(None)).await?;
    }
    let advisory = timeout(PATIENCE, advisories.next()).await?.ok_or("no advisory")?;
    let text = String::from_utf8(advisory.payload.to_vec())?;
    assert!(text.contains(&format!("\"stream_seq\":{sequence}")) && text.contains("\"deliveries\":3"), "{text}");
    let message = jobs.direct_get(sequence).await?;
    hub.publish("plugin.dead.jobs", message.payload.clone()).await?;
    let letter = timeout(PATIENCE, letters.next()).await?.ok_or("no dead letter")?;
    assert_eq!(&letter.payload[..], b"poison");
    Ok(())
}
