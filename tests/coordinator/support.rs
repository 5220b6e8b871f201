//! A broker to test against: our own program without its coordinator, the one `NATS_SERVER_BIN` names, or with
//! `NATTERJACK_EMBEDDED` our own with the coordinator that it embeds.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use natterjack::client::{Client, ConnectOptions};
use natterjack::config::Config;
use natterjack::config::file::read_text;
use natterjack::coordinator::{ConnectionEvent, Coordinator, Health, Options, Settings};
use natterjack::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// A broker with a store of its own; killed when dropped.
pub struct Broker {
    process: Option<Child>,
    port: u16,
    store: tempfile::TempDir,
    /// Of its config file.
    config: Option<String>,
    /// Whether it has JetStream.
    streams: bool,
}

impl Broker {
    /// Starts one on a free port with an empty store.
    pub fn start() -> Broker {
        Broker::start_with(None, true)
    }

    /// With the text of a config file.
    pub fn configured(config: &str) -> Broker {
        Broker::start_with(Some(config), true)
    }

    /// Core NATS only.
    pub fn without_streams() -> Broker {
        Broker::start_with(None, false)
    }

    fn start_with(config: Option<&str>, streams: bool) -> Broker {
        let store = tempfile::tempdir().unwrap();
        let mut broker = Broker { process: None, port: 0, store, config: config.map(str::to_owned), streams };
        broker.run();
        broker
    }

    /// One that does not run yet, on a port of its own.
    pub fn to_come() -> Broker {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let store = tempfile::tempdir().unwrap();
        Broker { process: None, port, store, config: None, streams: true }
    }

    fn run(&mut self) {
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let mut command = match std::env::var_os("NATS_SERVER_BIN") {
            Some(nats_server) => Command::new(nats_server),
            None => {
                let mut natterjack = Command::new(env!("CARGO_BIN_EXE_natterjack"));
                natterjack.args(["-m", "0"]);
                if !embedded() {
                    natterjack.arg("--no-coordinator");
                }
                if !self.streams {
                    natterjack.arg("--no-jetstream");
                }
                natterjack
            }
        };
        if self.streams {
            command.arg("-js");
        }
        if let Some(config) = &self.config {
            let path = self.store.path().join("server.conf");
            std::fs::write(&path, config).unwrap();
            command.arg("-c").arg(path);
        }
        let mut process = command
            .args(["-a", "127.0.0.1", "-p", &port, "-sd"])
            .arg(self.store.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("Listening for client connections on ") {
                self.port = address.rsplit_once(':').unwrap().1.trim().parse().unwrap();
            }
            if line.contains("Server is ready") {
                break;
            }
        }
        assert_ne!(self.port, 0, "the server did not come up");
        // The pipe must be read to its end, or the server blocks on its log.
        std::thread::spawn(move || lines.for_each(drop));
        self.process = Some(process);
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again on the same port and store.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub async fn client(&self, name: &str) -> Client {
        let options = ConnectOptions { name: name.to_owned(), ..ConnectOptions::default() };
        Client::connect_with(&self.url(), options).await.unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the broker's own coordinator is to be tested, with the settings it has there.
fn embedded() -> bool {
    std::env::var_os("NATTERJACK_EMBEDDED").is_some()
}

/// Times short enough for tests.
pub fn quick() -> Settings {
    Settings {
        grace: Duration::from_millis(200),
        sweep: Duration::from_millis(50),
        probe: Duration::from_millis(50),
        cancel_grace: Duration::from_millis(300),
        ..Settings::default()
    }
}

/// A broker and a coordinator on it.
pub struct World {
    broker: Broker,
    coordinator: Option<Coordinator>,
    settings: Settings,
}

impl World {
    pub async fn start() -> World {
        World::start_as(quick()).await
    }

    pub async fn start_with(settings: Settings) -> World {
        assert!(!embedded(), "the embedded coordinator has its own settings");
        World::start_as(settings).await
    }

    async fn start_as(settings: Settings) -> World {
        let mut world = World { broker: Broker::start(), coordinator: None, settings };
        world.start_coordinator().await;
        world
    }

    /// With the text of the broker's config file.
    pub async fn configured(config: &str) -> World {
        let mut world = World { broker: Broker::configured(config), coordinator: None, settings: quick() };
        world.start_coordinator().await;
        world
    }

    /// With a channel for what a broker would tell of connections.
    pub async fn start_with_presence() -> (World, mpsc::Sender<ConnectionEvent>) {
        let mut world = World { broker: Broker::start(), coordinator: None, settings: quick() };
        let (sender, receiver) = mpsc::channel(64);
        world.start_coordinator_with(Some(receiver)).await;
        (world, sender)
    }

    async fn start_coordinator(&mut self) {
        self.start_coordinator_with(None).await;
    }

    async fn start_coordinator_with(&mut self, presence: Option<mpsc::Receiver<ConnectionEvent>>) {
        let client = self.broker.client("coordinator").await;
        if embedded() {
            assert!(presence.is_none(), "the broker tells its own coordinator of connections");
            while client.request("$TASK.API.LIST", b"", Duration::from_secs(20)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            return;
        }
        let options = Options { settings: self.settings.clone(), presence, ..Options::default() };
        let coordinator = Coordinator::start(client, options).await.unwrap();
        // The one before may still be there for an instant.
        coordinator.health().wait_for(|health| *health == Health::Serving).await.unwrap();
        self.coordinator = Some(coordinator);
    }

    /// Ends the coordinator as a crash would, and starts another.
    pub async fn restart_coordinator(&mut self) {
        assert!(!embedded(), "it lives as long as its broker");
        drop(self.coordinator.take());
        self.start_coordinator().await;
    }

    /// Ends the coordinator as a crash would.
    pub fn stop_coordinator(&mut self) {
        assert!(!embedded(), "it lives as long as its broker");
        drop(self.coordinator.take());
    }

    /// Kills the broker and starts it on the same store; the coordinator finds its way back by itself.
    pub async fn restart_broker(&mut self) {
        self.broker.restart();
    }

    pub async fn client(&self, name: &str) -> Client {
        self.broker.client(name).await
    }

    pub fn url(&self) -> String {
        self.broker.url()
    }

    pub async fn end(mut self) {
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.stop().await;
        }
    }
}

/// A broker with its own coordinators, set up by a config file's text.
pub struct Embedded {
    pub server: Server,
    folder: tempfile::TempDir,
}

impl Embedded {
    pub async fn start(text: &str) -> Embedded {
        let folder = tempfile::tempdir().unwrap();
        let config = Embedded::config(&folder, text).unwrap_or_else(|errors| panic!("{errors}"));
        Embedded { server: Server::start(config).await.unwrap(), folder }
    }

    fn config(folder: &tempfile::TempDir, text: &str) -> Result<Config, String> {
        let real = std::env::var_os("NATS_SERVER_BIN").is_some();
        assert!(!real, "this says nothing about nats-server: see OURS_ALONE in on_nats_server.rs");
        read_text(Config::on_free_ports(folder.path()), text).map_err(|errors| errors.to_string())
    }

    /// Why these settings are refused.
    pub fn refusal(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        match Embedded::config(&folder, text) {
            Err(text) => text,
            Ok(config) => config.check().unwrap_err().to_string(),
        }
    }

    /// What a reload says that it changed.
    pub async fn reload(&mut self, text: &str) -> Vec<String> {
        let config = Embedded::config(&self.folder, text).unwrap();
        self.server.reload(&config).await.unwrap()
    }

    /// A connection of a user whose password is `p`.
    pub async fn user(&self, user: &str) -> Client {
        self.named(user, user).await
    }

    /// As [`Embedded::user`], with a name of the connection's own.
    pub async fn named(&self, user: &str, name: &str) -> Client {
        let (user, pass) = (Some(user.to_owned()), Some("p".to_owned()));
        let options = ConnectOptions { name: name.to_owned(), user, pass, ..ConnectOptions::default() };
        Client::connect_with(&self.server.client_url(), options).await.unwrap()
    }

    /// `/healthz`: status and body.
    pub async fn healthz(&self) -> (u16, String) {
        self.get("/healthz").await
    }

    /// Status and body of a page of monitoring.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let address = self.server.monitor_address().unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}
