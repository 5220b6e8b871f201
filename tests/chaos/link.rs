//! Connections that end as those of killed processes do.

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use natterjack::client::{Client, ClientError, ConnectOptions};
use natterjack::types::header::HeaderBuilder;
use serde_json::Value;

/// How long a request may take before its outcome counts as unknown.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A client on one connection, which is not made again. Dropping it cuts it, without goodbye.
pub struct Link {
    pub client: Client,
    socket: TcpStream,
}

impl Link {
    /// # Errors
    /// Nobody listens, or the handshake does not come to its end.
    pub async fn open(address: &str, name: &str) -> Result<Link, ClientError> {
        let unreachable =
            |error: std::io::Error| ClientError::Unreachable { address: address.to_owned(), reason: error.to_string() };
        let socket = TcpStream::connect(address).map_err(unreachable)?;
        socket.set_nodelay(true).and_then(|()| socket.set_nonblocking(true)).map_err(unreachable)?;
        let stream = socket.try_clone().and_then(tokio::net::TcpStream::from_std).map_err(unreachable)?;
        let connect_timeout = Duration::from_secs(2);
        let options = ConnectOptions { name: name.to_owned(), connect_timeout, ..ConnectOptions::default() };
        Ok(Link { client: Client::attach(stream, options).await?, socket })
    }

    /// As [`Link::open`], until it works.
    pub async fn surely(address: &str, name: &str) -> Link {
        loop {
            match Link::open(address, name).await {
                Ok(link) => return link,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    pub fn cut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Fine(Bytes),
    /// The API's `err_code`.
    Refused(u64),
    /// No answer, or one that says that it could not be stored.
    Unknown,
}

impl Reply {
    /// The answer's JSON; null when there is none.
    pub fn json(&self) -> Value {
        match self {
            Reply::Fine(body) => serde_json::from_slice(body).unwrap_or_default(),
            _ => Value::Null,
        }
    }
}

/// Calls `$TASK.API.<name>`.
pub async fn call(client: &Client, name: &str, headers: &[(&str, String)], body: &[u8]) -> Reply {
    let block = match headers {
        [] => Vec::new(),
        some => some.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build(),
    };
    let Ok(answer) = client.request_message(&format!("$TASK.API.{name}"), &block, body, PATIENCE).await else {
        return Reply::Unknown;
    };
    if answer.headers().get("Nats-Service-Error").is_none() {
        return Reply::Fine(answer.payload_bytes());
    }
    let error: Value = serde_json::from_slice(answer.payload()).unwrap_or_default();
    match error["error"]["err_code"].as_u64() {
        None | Some(30503) => Reply::Unknown,
        Some(code) => Reply::Refused(code),
    }
}
