//! The client's handle: publish, request, subscribe, flush, close.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::connection::{self, Dialer};
use super::wire;
use super::{ClientError, Credentials, Incoming, Overflow, ServerUrl, Subscription, TlsOptions};
use crate::protocol::encode;
use crate::types::{id, subject};

/// How a client introduces itself and how much it buffers.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub name: String,
    pub user: Option<String>,
    pub pass: Option<String>,
    pub token: Option<String>,
    pub credentials: Option<Credentials>,
    pub tls: TlsOptions,
    /// Bounds one dial and handshake.
    pub connect_timeout: Duration,
    /// Whether a lost connection made from a URL is dialled again, for ever.
    pub reconnect: bool,
    /// Unsent bytes above which publishing fails with [`ClientError::Full`].
    pub outgoing_bytes_max: usize,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            name: "natterjack".to_owned(),
            user: None,
            pass: None,
            token: None,
            credentials: None,
            tls: TlsOptions::default(),
            connect_timeout: Duration::from_secs(5),
            reconnect: true,
            outgoing_bytes_max: 64 << 20,
        }
    }
}

/// What the server said of itself.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    pub server_id: String,
    pub server_name: String,
    pub version: String,
    pub max_payload: usize,
    pub client_id: u64,
    pub headers: bool,
    pub jetstream: bool,
    pub tls_required: bool,
    /// What a key signs.
    pub nonce: String,
}

/// Where the connection is in its life. `generation` counts the connections made so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Connected { generation: u64 },
    Disconnected,
    Closed,
}

/// A handle on one NATS connection; clones share it. The connection lives until [`Client::close`] or until it breaks and is
/// not to be made again.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub options: ConnectOptions,
    pub outgoing: Mutex<Vec<u8>>,
    pub wake_writer: Notify,
    /// Told each time the writer has taken the buffer.
    pub room: Notify,
    pub subscriptions: Mutex<HashMap<u64, Entry>>,
    pub requests: Mutex<HashMap<u64, oneshot::Sender<Incoming>>>,
    pub pongs: Mutex<std::collections::VecDeque<oneshot::Sender<()>>>,
    pub next_id: AtomicU64,
    pub inbox: String,
    pub info: Mutex<Arc<ServerInfo>>,
    pub status: watch::Sender<Status>,
    pub closing: AtomicBool,
    pub last_error: Mutex<Option<String>>,
}

/// The subscription id of the shared inbox for answers.
pub(super) const INBOX_SID: u64 = 1;

pub(super) struct Entry {
    pub subject: String,
    pub queue: Option<String>,
    pub sender: mpsc::Sender<Incoming>,
    pub overflow: Overflow,
    pub dropped: u64,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("name", &self.inner.options.name).field("status", &self.status()).finish()
    }
}

impl Client {
    /// Dials `url` and returns once the server has accepted the connection; later breaks are mended in the background, with
    /// all subscriptions made again.
    ///
    /// # Errors
    /// A bad URL, an unreachable server or one that refuses the identity.
    pub async fn connect(url: &str) -> Result<Client, ClientError> {
        Client::connect_with(url, ConnectOptions::default()).await
    }

    /// As [`Client::connect`]; an identity in the URL goes before the one in `options`. Several URLs, with commas between
    /// them, are servers of one cluster: whichever answers will do.
    pub async fn connect_with(urls: &str, mut options: ConnectOptions) -> Result<Client, ClientError> {
        let urls = ServerUrl::parse_list(urls)?;
        let named = |part: fn(&ServerUrl) -> &Option<String>| urls.iter().find_map(|url| part(url).clone());
        options.user = named(|url| &url.user).or(options.user);
        options.pass = named(|url| &url.pass).or(options.pass);
        options.token = named(|url| &url.token).or(options.token);
        options.tls.required |= urls.iter().any(|url| url.tls);
        Client::start(Dialer::tcp(urls), options).await
    }

    /// Speaks over a stream that is open already; when it ends, the client is closed.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn attach<S>(stream: S, mut options: ConnectOptions) -> Result<Client, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        options.reconnect = false;
        Client::start(Dialer::once(Box::new(stream)), options).await
    }

    async fn start(dialer: Dialer, options: ConnectOptions) -> Result<Client, ClientError> {
        let (status, _) = watch::channel(Status::Disconnected);
        let inner = Arc::new(Inner {
            options,
            outgoing: Mutex::new(Vec::new()),
            wake_writer: Notify::new(),
            room: Notify::new(),
            subscriptions: Mutex::new(HashMap::new()),
            requests: Mutex::new(HashMap::new()),
            pongs: Mutex::new(Default::default()),
            next_id: AtomicU64::new(INBOX_SID + 1),
            inbox: format!("_INBOX.{}.", id::unique()),
            info: Mutex::new(Arc::default()),
            status,
            closing: AtomicBool::new(false),
            last_error: Mutex::new(None),
        });
        connection::open(inner.clone(), dialer).await?;
        Ok(Client { inner })
    }

    /// What the server said of itself when the present connection began.
    pub fn info(&self) -> Arc<ServerInfo> {
        lock(&self.inner.info).clone()
    }

    pub fn status(&self) -> Status {
        *self.inner.status.borrow()
    }

    /// Takes the last `-ERR` text or reason of a break, so that a later one can be told from it.
    pub fn take_error(&self) -> Option<String> {
        lock(&self.inner.last_error).take()
    }

    /// Follows the connection's life.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.status.subscribe()
    }

    /// The last `-ERR` text or reason of a break.
    pub fn last_error(&self) -> Option<String> {
        lock(&self.inner.last_error).clone()
    }

    /// A subject nobody else uses.
    pub fn new_inbox(&self) -> String {
        format!("_INBOX.{}", id::unique())
    }

    /// Queues a message; it leaves with everything else that is queued at that moment.
    ///
    /// # Errors
    /// [`ClientError::Full`] above the bound of unsent bytes, [`ClientError::TooLarge`], [`ClientError::BadSubject`],
    /// [`ClientError::Closed`]. While the connection is down messages wait within the bound.
    pub fn publish(&self, subject: &str, payload: &[u8]) -> Result<(), ClientError> {
        self.publish_message(subject.as_bytes(), b"", b"", payload)
    }

    /// As [`Client::publish`], with a whole header block (see [`crate::types::header::HeaderBuilder`]) and a reply subject,
    /// either empty when there is none.
    pub fn publish_message(
        &self,
        subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), ClientError> {
        if !subject::is_valid_literal(subject) {
            return Err(ClientError::BadSubject { subject: String::from_utf8_lossy(subject).into_owned() });
        }
        let limit = lock(&self.inner.info).max_payload;
        let bytes = headers.len() + payload.len();
        if limit > 0 && bytes > limit {
            return Err(ClientError::TooLarge { bytes, limit });
        }
        self.write(|out| encode::publish(out, subject, reply, headers, payload))
    }

    /// Appends to the outgoing buffer, atomically, and wakes the writer.
    pub(super) fn write(&self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), ClientError> {
        if self.status() == Status::Closed {
            return Err(ClientError::Closed);
        }
        let was_empty = {
            let mut out = lock(&self.inner.outgoing);
            if out.len() > self.inner.options.outgoing_bytes_max {
                return Err(ClientError::Full { bytes: out.len() });
            }
            let was_empty = out.is_empty();
            fill(&mut out);
            was_empty
        };
        if was_empty {
            self.inner.wake_writer.notify_one();
        }
        Ok(())
    }

    /// Waits until less than a quarter of the bound of unsent bytes is used. Cancel safe.
    pub async fn ready(&self) {
        loop {
            let room = self.inner.room.notified();
            if lock(&self.inner.outgoing).len() <= self.inner.options.outgoing_bytes_max / 4
                || self.status() == Status::Closed
            {
                return;
            }
            room.await;
        }
    }

    /// Asks and waits for one answer. Any number of requests may be under way at once.
    ///
    /// # Errors
    /// [`ClientError::NoResponders`], [`ClientError::Timeout`], [`ClientError::Disconnected`], or as for publishing.
    pub async fn request(&self, subject: &str, payload: &[u8], timeout: Duration) -> Result<Incoming, ClientError> {
        self.request_message(subject, b"", payload, timeout).await
    }

    /// As [`Client::request`] with a header block.
    pub async fn request_message(
        &self,
        subject: &str,
        headers: &[u8],
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Incoming, ClientError> {
        let pending = self.start_request(|reply| self.publish_message(subject.as_bytes(), reply, headers, payload))?;
        let answer = pending.wait(timeout).await?;
        if answer.is_no_responders() {
            return Err(ClientError::NoResponders { subject: subject.to_owned() });
        }
        Ok(answer)
    }

    /// Registers a reply subject and hands it to `send`, which publishes with it.
    pub(super) fn start_request(
        &self,
        send: impl FnOnce(&[u8]) -> Result<(), ClientError>,
    ) -> Result<PendingAnswer, ClientError> {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.inner.requests).insert(id, sender);
        let mut reply = Vec::with_capacity(self.inner.inbox.len() + 12);
        reply.extend_from_slice(self.inner.inbox.as_bytes());
        wire::write_number(&mut reply, id);
        let pending = PendingAnswer { inner: self.inner.clone(), id, receiver };
        send(&reply)?;
        Ok(pending)
    }

    /// Subscribes with room for 1,024 waiting messages, dropping beyond that.
    ///
    /// # Errors
    /// [`ClientError::BadSubject`], [`ClientError::Closed`], [`ClientError::Full`].
    pub fn subscribe(&self, subject: &str) -> Result<Subscription, ClientError> {
        self.subscribe_with(subject, None, 1024)
    }

    /// Subscribes as one of a queue group, of which one member gets each message.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub fn queue_subscribe(&self, subject: &str, queue: &str) -> Result<Subscription, ClientError> {
        self.subscribe_with(subject, Some(queue), 1024)
    }

    /// Subscribes with room for `capacity` waiting messages.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub fn subscribe_with(
        &self,
        subject: &str,
        queue: Option<&str>,
        capacity: usize,
    ) -> Result<Subscription, ClientError> {
        let (sender, receiver) = mpsc::channel(capacity);
        let sid = self.subscribe_into(subject, queue, sender, Overflow::Drop)?;
        Ok(Subscription { client: self.clone(), sid, receiver })
    }

    /// Subscribes into a channel of the caller's, which several subscriptions may share; messages keep the connection's order
    /// across them. Returns the id for [`Client::unsubscribe`].
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub fn subscribe_into(
        &self,
        subject: &str,
        queue: Option<&str>,
        sender: mpsc::Sender<Incoming>,
        overflow: Overflow,
    ) -> Result<u64, ClientError> {
        if !subject::is_valid(subject.as_bytes()) {
            return Err(ClientError::BadSubject { subject: subject.to_owned() });
        }
        let sid = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let entry =
            Entry { subject: subject.to_owned(), queue: queue.map(str::to_owned), sender, overflow, dropped: 0 };
        // Under the lock, so that a reconnect between the two steps neither misses nor doubles it.
        let mut subscriptions = lock(&self.inner.subscriptions);
        subscriptions.insert(sid, entry);
        let connected = matches!(self.status(), Status::Connected { .. });
        let written = if connected {
            self.write(|out| {
                encode::sub(out, subject.as_bytes(), queue.unwrap_or_default().as_bytes(), sid.to_string().as_bytes())
            })
        } else if self.status() == Status::Closed {
            Err(ClientError::Closed)
        } else {
            Ok(())
        };
        if written.is_err() {
            subscriptions.remove(&sid);
        }
        written.map(|()| sid)
    }

    /// Ends a subscription; unknown ids are ignored.
    pub fn unsubscribe(&self, sid: u64) {
        let mut subscriptions = lock(&self.inner.subscriptions);
        if subscriptions.remove(&sid).is_some() && matches!(self.status(), Status::Connected { .. }) {
            let _ = self.write(|out| encode::unsub(out, sid.to_string().as_bytes(), None));
        }
    }

    /// Ends subscriptions without losing what is on its way: returns once all their messages have been handed over.
    ///
    /// # Errors
    /// As [`Client::flush`]; they are ended all the same.
    pub async fn drain(&self, sids: &[u64]) -> Result<(), ClientError> {
        if matches!(self.status(), Status::Connected { .. }) {
            for sid in sids {
                let _ = self.write(|out| encode::unsub(out, sid.to_string().as_bytes(), None));
            }
        }
        let flushed = self.flush().await;
        let mut subscriptions = lock(&self.inner.subscriptions);
        sids.iter().for_each(|sid| drop(subscriptions.remove(sid)));
        flushed
    }

    /// Messages dropped because a subscription's queue was full.
    pub fn dropped(&self) -> u64 {
        lock(&self.inner.subscriptions).values().map(|entry| entry.dropped).sum()
    }

    /// Returns once the server has processed everything sent before (PING, PONG).
    ///
    /// # Errors
    /// [`ClientError::Disconnected`], [`ClientError::Timeout`], [`ClientError::Closed`].
    pub async fn flush(&self) -> Result<(), ClientError> {
        let (sender, receiver) = oneshot::channel();
        {
            // Both under one lock, so that the order of waiters is the order of PINGs on the wire.
            let mut pongs = lock(&self.inner.pongs);
            self.write(encode::ping)?;
            pongs.push_back(sender);
        }
        match tokio::time::timeout(Duration::from_secs(10), receiver).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ClientError::Disconnected),
            Err(_) => Err(ClientError::Timeout),
        }
    }

    /// Flushes what is queued, then ends the connection and all subscriptions.
    pub async fn close(&self) {
        if matches!(self.status(), Status::Connected { .. }) {
            let _ = self.flush().await;
        }
        self.inner.closing.store(true, Ordering::SeqCst);
        self.inner.wake_writer.notify_one();
        let mut status = self.watch_status();
        let _ = status.wait_for(|status| *status == Status::Closed).await;
    }
}

/// An answer on its way. Dropping it gives it up.
pub(super) struct PendingAnswer {
    inner: Arc<Inner>,
    id: u64,
    receiver: oneshot::Receiver<Incoming>,
}

impl PendingAnswer {
    pub async fn wait(mut self, timeout: Duration) -> Result<Incoming, ClientError> {
        match tokio::time::timeout(timeout, &mut self.receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(ClientError::Disconnected),
            Err(_) => Err(ClientError::Timeout),
        }
    }
}

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        lock(&self.inner.requests).remove(&self.id);
    }
}

/// A lock nobody panics under; a poisoned one is still sound because every section leaves whole values.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A header block from `Name: value` pairs.
pub(super) fn header_block(pairs: &[(&str, &str)]) -> Bytes {
    if pairs.is_empty() {
        return Bytes::new();
    }
    let mut builder = crate::types::header::HeaderBuilder::new();
    for (name, value) in pairs {
        builder = builder.add(name, value);
    }
    Bytes::from(builder.build())
}
