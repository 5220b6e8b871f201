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

impl Bench {
    /// The answer to an API request.
    pub async fn api(&self, subject: &str, body: serde_json::Value) -> serde_json::Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer =
            soon(self.client.request(format!("$JS.API.{subject}"), body.into())).await.expect("the API answers");
        serde_json::from_slice(&answer.payload).expect("the API answers with JSON")
    }

    /// Creates a stream from JSON, with its name in it.
    pub async fn create(&self, config: serde_json::Value) -> serde_json::Value {
        let name = config["name"].as_str().expect("a name").to_owned();
        self.api(&format!("STREAM.CREATE.{name}"), config).await
    }

    pub async fn update(&self, config: serde_json::Value) -> serde_json::Value {
        let name = config["name"].as_str().expect("a name").to_owned();
        self.api(&format!("STREAM.UPDATE.{name}"), config).await
    }

    pub async fn info(&self, stream: &str) -> serde_json::Value {
        self.api(&format!("STREAM.INFO.{stream}"), serde_json::json!({"deleted_details": true})).await
    }

    /// The stream's info once `reached` says so of it.
    pub async fn info_when(&self, stream: &str, reached: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let mut last = serde_json::Value::Null;
        let asking = async {
            loop {
                last = self.info(stream).await;
                if reached(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, asking).await;
        assert!(in_time.is_ok(), "{stream} did not get there: {last}");
        last
    }

    /// Waits until the stream's last sequence is `seq`.
    pub async fn reached(&self, stream: &str, seq: u64) -> serde_json::Value {
        self.info_when(stream, |info| info["state"]["last_seq"] == seq).await
    }

    /// Subject, headers and payload of a stored message.
    pub async fn stored(&self, stream: &str, seq: u64) -> Stored {
        use base64::Engine as _;
        let answer = self.api(&format!("STREAM.MSG.GET.{stream}"), serde_json::json!({"seq": seq})).await;
        let text = |field: &str| {
            let bytes = answer["message"][field].as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).expect("base64");
            String::from_utf8(bytes).expect("text")
        };
        Stored {
            subject: answer["message"]["subject"].as_str().unwrap_or_default().to_owned(),
            time: answer["message"]["time"].as_str().unwrap_or_default().to_owned(),
            headers: text("hdrs"),
            payload: text("data"),
        }
    }
}

/// A stored message; all empty when there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub subject: String,
    pub time: String,
    pub headers: String,
    pub payload: String,
}
