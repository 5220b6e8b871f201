//! One connection's life: dial, handshake, read and write until it breaks, dial again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TrySendError;

use super::handle::{INBOX_SID, Inner, ServerInfo, lock};
use super::wire::{self, ServerLine};
use super::{ClientError, Incoming, Overflow, ServerUrl, Status, tls};
use crate::protocol::encode;

/// Any byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Where streams come from.
pub(super) enum Dialer {
    /// Servers, and whose turn it is.
    Tcp(Vec<ServerUrl>, usize),
    Once(Option<Box<dyn Stream>>),
}

impl Dialer {
    pub fn tcp(servers: Vec<ServerUrl>) -> Dialer {
        Dialer::Tcp(servers, 0)
    }

    pub fn once(stream: Box<dyn Stream>) -> Dialer {
        Dialer::Once(Some(stream))
    }

    /// How many servers there are to try.
    fn servers(&self) -> usize {
        match self {
            Dialer::Tcp(servers, _) => servers.len(),
            Dialer::Once(_) => 1,
        }
    }

    /// A stream, and the name to know its other end by.
    async fn dial(&mut self) -> Result<(Box<dyn Stream>, String), ClientError> {
        match self {
            Dialer::Once(stream) => Ok((stream.take().ok_or(ClientError::Closed)?, String::new())),
            Dialer::Tcp(servers, turn) => {
                let server = &servers[*turn % servers.len()];
                *turn += 1;
                let address = server.address();
                let unreachable = |error: std::io::Error| ClientError::Unreachable {
                    address: address.clone(),
                    reason: error.to_string(),
                };
                let stream = TcpStream::connect(address.as_str()).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                Ok((Box::new(stream), server.host.clone()))
            }
        }
    }
}

struct Open {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    buffer: BytesMut,
}

/// Makes the first connection and leaves a task behind that keeps it.
pub(super) async fn open(inner: Arc<Inner>, mut dialer: Dialer) -> Result<(), ClientError> {
    let mut first = connect(&inner, &mut dialer).await;
    for _ in 1..dialer.servers() {
        if first.is_err() {
            first = connect(&inner, &mut dialer).await;
        }
    }
    let first = first?;
    announce(&inner, 1);
    tokio::spawn(keep(inner, dialer, first));
    Ok(())
}

async fn connect(inner: &Inner, dialer: &mut Dialer) -> Result<Open, ClientError> {
    let attempt = async {
        let (stream, host) = dialer.dial().await?;
        handshake(inner, stream, &host).await
    };
    match tokio::time::timeout(inner.options.connect_timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::Timeout),
    }
}

async fn handshake(inner: &Inner, mut stream: Box<dyn Stream>, host: &str) -> Result<Open, ClientError> {
    let options = &inner.options;
    if options.tls.first {
        stream = tls::secure(&options.tls, host, stream).await?;
    }
    let mut buffer = BytesMut::with_capacity(32 << 10);
    match read_line(&mut stream, &mut buffer).await? {
        ServerLine::Info(body) => note_info(inner, &body),
        ServerLine::Error(text) => return Err(ClientError::Refused { text }),
        _ => return Err(ClientError::Protocol { text: "no INFO".to_owned() }),
    }
    let info = lock(&inner.info).clone();
    if !options.tls.first && (options.tls.required || info.tls_required) {
        // Whatever came behind INFO in the clear may be anybody's.
        if !buffer.is_empty() {
            return Err(ClientError::Protocol { text: "more than INFO before TLS".to_owned() });
        }
        stream = tls::secure(&options.tls, host, stream).await?;
    }
    let (reader, writer) = tokio::io::split(stream);
    let mut open = Open { reader, writer, buffer };
    let mut connect = serde_json::json!({
        "verbose": false,
        "pedantic": false,
        "echo": true,
        "headers": true,
        "no_responders": true,
        "protocol": 1,
        "lang": "rust",
        "version": env!("CARGO_PKG_VERSION"),
        "name": options.name,
    });
    for (key, value) in [("user", &options.user), ("pass", &options.pass), ("auth_token", &options.token)] {
        if let Some(value) = value {
            connect[key] = value.as_str().into();
        }
    }
    if let Some(credentials) = &options.credentials {
        credentials.present(&mut connect, &info.nonce);
    }
    open.writer.write_all(format!("CONNECT {connect}\r\nPING\r\n").as_bytes()).await.map_err(lost)?;
    open.writer.flush().await.map_err(lost)?;
    loop {
        match read_line(&mut open.reader, &mut open.buffer).await? {
            ServerLine::Pong => return Ok(open),
            ServerLine::Ping => {
                open.writer.write_all(b"PONG\r\n").await.map_err(lost)?;
                open.writer.flush().await.map_err(lost)?;
            }
            ServerLine::Error(text) => return Err(ClientError::Refused { text }),
            ServerLine::Info(body) => note_info(inner, &body),
            ServerLine::Ok | ServerLine::Message { .. } => {}
        }
    }
}

fn lost(_: std::io::Error) -> ClientError {
    ClientError::Disconnected
}

async fn read_line(reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<ServerLine, ClientError> {
    loop {
        if let Some(line) = wire::next_line(buffer)? {
            return Ok(line);
        }
        if reader.read_buf(buffer).await.map_err(lost)? == 0 {
            return Err(ClientError::Disconnected);
        }
    }
}

fn note_info(inner: &Inner, body: &[u8]) {
    if let Ok(info) = serde_json::from_slice::<ServerInfo>(body) {
        *lock(&inner.info) = Arc::new(info);
    }
}

/// Puts all subscriptions in front of what waits to be sent, and lets publishers go on.
fn announce(inner: &Inner, generation: u64) {
    let subscriptions = lock(&inner.subscriptions);
    let mut first = Vec::new();
    let mut subscribe = |subject: &str, queue: Option<&str>, sid: u64| {
        encode::sub(&mut first, subject.as_bytes(), queue.unwrap_or_default().as_bytes(), sid.to_string().as_bytes());
    };
    subscribe(&format!("{}*", inner.inbox), None, INBOX_SID);
    let mut ids: Vec<_> = subscriptions.keys().copied().collect();
    ids.sort_unstable();
    for sid in ids {
        let entry = &subscriptions[&sid];
        subscribe(&entry.subject, entry.queue.as_deref(), sid);
    }
    let mut out = lock(&inner.outgoing);
    first.append(&mut out);
    *out = first;
    drop(out);
    inner.status.send_replace(Status::Connected { generation });
    inner.wake_writer.notify_one();
}

async fn keep(inner: Arc<Inner>, mut dialer: Dialer, first: Open) {
    let mut open = first;
    let mut generation = 1;
    loop {
        let reason = serve(&inner, open).await;
        let closing = inner.closing.load(Ordering::SeqCst);
        if !closing {
            *lock(&inner.last_error) = Some(reason.to_string());
            tracing::debug!(client = inner.options.name, %reason, "connection lost");
        }
        let again = inner.options.reconnect && !closing;
        inner.status.send_replace(if again { Status::Disconnected } else { Status::Closed });
        // Whoever waits for an answer of the old connection learns that it will not come.
        lock(&inner.requests).clear();
        lock(&inner.pongs).clear();
        inner.room.notify_waiters();
        if !again {
            lock(&inner.subscriptions).clear();
            return;
        }
        let mut pause = Duration::from_millis(20);
        open = loop {
            if inner.closing.load(Ordering::SeqCst) {
                inner.status.send_replace(Status::Closed);
                lock(&inner.subscriptions).clear();
                return;
            }
            match connect(&inner, &mut dialer).await {
                Ok(open) => break open,
                Err(error) => *lock(&inner.last_error) = Some(error.to_string()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        };
        generation += 1;
        announce(&inner, generation);
    }
}

async fn serve(inner: &Inner, open: Open) -> ClientError {
    let Open { reader, writer, buffer } = open;
    tokio::select! {
        reason = read(inner, reader, buffer) => reason,
        reason = write(inner, writer) => reason,
    }
}

async fn write(inner: &Inner, mut writer: WriteHalf<Box<dyn Stream>>) -> ClientError {
    let mut taken = Vec::new();
    loop {
        let woken = inner.wake_writer.notified();
        std::mem::swap(&mut taken, &mut *lock(&inner.outgoing));
        inner.room.notify_waiters();
        if taken.is_empty() {
            if inner.closing.load(Ordering::SeqCst) {
                let _ = writer.shutdown().await;
                return ClientError::Closed;
            }
            woken.await;
            continue;
        }
        if writer.write_all(&taken).await.is_err() || writer.flush().await.is_err() {
            return ClientError::Disconnected;
        }
        taken.clear();
        taken.shrink_to(1 << 20);
    }
}

async fn read(inner: &Inner, mut reader: ReadHalf<Box<dyn Stream>>, mut buffer: BytesMut) -> ClientError {
    loop {
        loop {
            match wire::next_line(&mut buffer) {
                Ok(Some(line)) => {
                    if let Err(reason) = handle(inner, line).await {
                        return reason;
                    }
                }
                Ok(None) => break,
                Err(error) => return error,
            }
        }
        if buffer.capacity() - buffer.len() < 16 << 10 {
            buffer.reserve(64 << 10);
        }
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return ClientError::Disconnected,
            Ok(_) => {}
        }
    }
}

async fn handle(inner: &Inner, line: ServerLine) -> Result<(), ClientError> {
    match line {
        ServerLine::Message { sid: INBOX_SID, message } => answer(inner, message),
        ServerLine::Message { sid, message } => deliver(inner, sid, message).await,
        ServerLine::Ping => {
            encode::pong(&mut lock(&inner.outgoing));
            inner.wake_writer.notify_one();
        }
        ServerLine::Pong => {
            if let Some(waiter) = lock(&inner.pongs).pop_front() {
                let _ = waiter.send(());
            }
        }
        ServerLine::Info(body) => note_info(inner, &body),
        ServerLine::Ok => {}
        ServerLine::Error(text) => {
            tracing::warn!(client = inner.options.name, text, "the server reports an error");
            *lock(&inner.last_error) = Some(text);
        }
    }
    Ok(())
}

fn answer(inner: &Inner, message: Incoming) {
    let id =
        message.subject().get(inner.inbox.len()..).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    if let Some(waiter) = id.and_then(|id: u64| lock(&inner.requests).remove(&id)) {
        let _ = waiter.send(message);
    }
}

async fn deliver(inner: &Inner, sid: u64, message: Incoming) {
    let (sender, message): (tokio::sync::mpsc::Sender<Incoming>, Incoming) = {
        let mut subscriptions = lock(&inner.subscriptions);
        let Some(entry) = subscriptions.get_mut(&sid) else { return };
        match entry.sender.try_send(message) {
            Ok(()) | Err(TrySendError::Closed(_)) => return,
            Err(TrySendError::Full(message)) => match entry.overflow {
                Overflow::Drop => {
                    entry.dropped += 1;
                    return;
                }
                Overflow::Wait => (entry.sender.clone(), message),
            },
        }
    };
    let _ = sender.send(message).await;
}
