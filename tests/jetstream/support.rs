//! A broker of one's own, and patience.

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, PullConsumer};
use async_nats::jetstream::{self, stream};
use natterjack::config::Config;
use natterjack::server::Server;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A broker with its store, and a client.
pub struct Bench {
    pub server: Option<Server>,
    pub client: async_nats::Client,
    pub js: jetstream::Context,
    folder: TempDir,
}

/// Waits for what must come, but not for ever.
pub async fn soon<T>(what: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what.into_future()).await.expect("it happens within the test's patience")
}

fn config(folder: &Path) -> Config {
    Config { coordinator: false, monitor: None, ..Config::on_free_ports(folder) }
}

async fn serve(config: Config) -> (Server, async_nats::Client) {
    let server = Server::start(config).await.expect("the broker starts");
    let client = async_nats::connect(server.client_url()).await.expect("the client connects");
    (server, client)
}

impl Bench {
    pub async fn start() -> Bench {
        Bench::start_with(|config| config).await
    }

    pub async fn start_with(change: impl FnOnce(Config) -> Config) -> Bench {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (server, client) = serve(change(config(folder.path()))).await;
        let js = jetstream::new(client.clone());
        Bench { server: Some(server), client, js, folder }
    }

    /// Stops the broker in order and starts another one on the same store, with a fresh client.
    pub async fn restart(&mut self) {
        let server = self.server.take().expect("a running broker");
        soon(server.stop()).await;
        let (server, client) = serve(config(self.folder.path())).await;
        self.js = jetstream::new(client.clone());
        self.client = client;
        self.server = Some(server);
    }

    /// Another connection.
    pub async fn connect(&self) -> async_nats::Client {
        let url = self.server.as_ref().expect("a running broker").client_url();
        async_nats::connect(url).await.expect("the client connects")
    }

    pub async fn stream(&self, config: stream::Config) -> stream::Stream {
        soon(self.js.create_stream(config)).await.expect("the stream is created")
    }

    /// A plain stream over one subject space.
    pub async fn plain(&self, name: &str, subject: &str) -> stream::Stream {
        self.stream(stream::Config { name: name.into(), subjects: vec![subject.into()], ..Default::default() }).await
    }

    /// Publishes and waits for the PubAck; returns the sequence.
    pub async fn publish(&self, subject: &str, payload: &str) -> u64 {
        let ack =
            soon(self.js.publish(subject.to_owned(), payload.to_owned().into())).await.expect("the publish is sent");
        soon(async { ack.await }).await.expect("the publish is acknowledged").sequence
    }
}

/// A durable pull consumer with explicit acks.
pub async fn pull(stream: &stream::Stream, name: &str) -> PullConsumer {
    let config = consumer::pull::Config { durable_name: Some(name.into()), ..Default::default() };
    soon(stream.create_consumer(config)).await.expect("the consumer is created")
}

/// The payloads of the next `count` messages, acked when `ack` says so.
pub async fn fetch(consumer: &PullConsumer, count: usize, ack: bool) -> Vec<String> {
    use futures_util::StreamExt;
    let mut payloads = Vec::new();
    let mut batch = consumer.fetch().max_messages(count).messages().await.expect("the fetch begins");
    while let Some(message) = soon(batch.next()).await {
        let message = message.expect("a message, no error");
        payloads.push(String::from_utf8_lossy(&message.payload).into_owned());
        if ack {
            soon(message.double_ack()).await.expect("the ack is confirmed");
        }
    }
    payloads
}
