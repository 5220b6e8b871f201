//! Who is let in, into which account, and what they may do there: against an embedded broker set up by a config file's
//! text, with the official client and with bare sockets.

#![allow(clippy::disallowed_methods, reason = "deadlines of real processes are kept by real clocks")]

mod accounts;
mod advisories;
mod browser;
mod callout;
mod floods;
mod gate;
mod jetstream;
mod jwt;
mod latency;
mod limits;
mod memory;
mod operator;
mod origins;
mod permission_model;
mod permissions;
mod places;
mod process;
mod reload;
mod reload_effects;
mod sharing;
mod shortage;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod traces;
mod traces_abroad;
mod websocket;

use std::net::SocketAddr;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use futures_util::StreamExt;
use natterjack::config::Config;
use natterjack::config::file::read_text;
use natterjack::server::{Server, StartError};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A broker with the settings of a config file.
pub struct World {
    pub server: Server,
    folder: tempfile::TempDir,
    text: String,
}

impl World {
    pub async fn start(text: &str) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = World::serve(&folder, text).await.unwrap_or_else(|error| panic!("{error}\n{text}"));
        World { server, folder, text: text.to_owned() }
    }

    async fn serve(folder: &tempfile::TempDir, text: &str) -> Result<Server, StartError> {
        let base = Config { coordinator: false, monitor: None, ..Config::on_free_ports(folder.path()) };
        let config = read_text(base, text).unwrap_or_else(|errors| panic!("{errors}"));
        Server::start(config).await
    }

    /// Why a broker with these settings does not start.
    pub async fn refusal(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder");
        World::serve(&folder, text).await.err().expect("the broker refuses to start").to_string()
    }

    /// Reloads the broker with other settings.
    pub async fn reload(&mut self, text: &str) -> Result<Vec<String>, String> {
        let base = Config { coordinator: false, monitor: None, ..Config::on_free_ports(self.folder.path()) };
        let config = read_text(base, text).map_err(|errors| errors.to_string())?;
        self.server.reload(&config).await.map_err(|error| error.to_string())
    }

    /// Stops the broker and starts another one over the same store.
    pub async fn restart(self) -> World {
        self.server.stop().await;
        let server = World::serve(&self.folder, &self.text).await.expect("the broker starts again");
        World { server, ..self }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.client_address().expect("the broker listens")
    }

    pub async fn user(&self, user: &str, password: &str) -> Result<Client, async_nats::ConnectError> {
        let options = ConnectOptions::with_user_and_password(user.into(), password.into()).max_reconnects(1);
        options.custom_inbox_prefix(format!("_INBOX_{user}")).connect(self.server.client_url()).await
    }

    pub async fn wire(&self) -> Wire {
        Wire::over(TcpStream::connect(self.address()).await.expect("the broker listens")).await
    }
}

/// A bare connection, line by line.
pub struct Wire {
    stream: BufReader<TcpStream>,
    pub info: String,
}

impl Wire {
    pub async fn over(stream: TcpStream) -> Wire {
        let mut wire = Wire { stream: BufReader::new(stream), info: String::new() };
        wire.info = wire.line().await;
        assert!(wire.info.starts_with("INFO {"), "{}", wire.info);
        wire
    }

    pub async fn say(&mut self, text: &str) {
        // The other end may have closed already; the test then reads why.
        let _ = self.stream.get_mut().write_all(text.as_bytes()).await;
    }

    /// The next line, empty at the end.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        let reading = self.stream.read_line(&mut line);
        let _ = tokio::time::timeout(PATIENCE, reading).await.expect("a line in time");
        line.trim_end().to_owned()
    }

    /// Reads so many bytes and looks at none of them.
    pub async fn skip(&mut self, bytes: usize) {
        let mut skipped = vec![0; bytes];
        let reading = self.stream.read_exact(&mut skipped);
        let _ = tokio::time::timeout(PATIENCE, reading).await.expect("an answer in time");
    }

    /// Says CONNECT and more, and returns the lines that come until PONG or the end.
    pub async fn ask(&mut self, text: &str) -> Vec<String> {
        self.say(&format!("{text}\r\nPING\r\n")).await;
        self.until_pong().await
    }

    pub async fn until_pong(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            match &*line {
                "PONG" | "" => {
                    lines.push(line);
                    return lines;
                }
                _ if line.starts_with("INFO") => {}
                _ => lines.push(line),
            }
        }
    }
}

/// Returns once the broker has done all that the client asked for so far.
pub async fn settle(client: &Client) {
    client.flush().await.expect("the connection lives");
    let info = client.request("nobody.home", "".into()).await;
    assert!(info.is_err());
}

/// As [`settle`], for a client that may do everything, also where somebody listens to all there is.
pub async fn round(client: &Client) {
    let inbox = client.new_inbox();
    let mut own = client.subscribe(inbox.clone()).await.expect("the connection lives");
    client.publish(inbox, "".into()).await.expect("the connection lives");
    next(&mut own).await;
}

pub async fn next(subscriber: &mut async_nats::Subscriber) -> async_nats::Message {
    tokio::time::timeout(PATIENCE, subscriber.next()).await.expect("a message in time").expect("an open subscription")
}

/// A JWT of `issuer` about `subject`, with what makes it an operator's, an account's or a user's; `expires` in seconds
/// since 1970, 0 for never.
pub fn token(issuer: &KeyPair, subject: &KeyPair, mut nats: Value, expires: u64) -> String {
    nats["version"] = 2.into();
    let claims = json!({
        "iss": issuer.public_key(), "sub": subject.public_key(), "name": nats["type"], "iat": 1, "exp": expires,
        "nats": nats
    });
    let head = URL.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", URL.encode(claims.to_string()));
    format!("{signed}.{}", URL.encode(issuer.sign(signed.as_bytes()).expect("a key pair signs")))
}
