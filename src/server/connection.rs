//! One connection: bytes from the peer into its link, bytes from its outbox to the peer.
//!
//! Two tasks share it. The reader owns the [`Link`] and dropping it ends the client's subscriptions; the writer owns the
//! other half of the socket and ends when the outbox closes. Whichever ends first ends the other.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::accept::peer_address;
use super::tls::{self, Handshake};
use crate::auth::TlsFacts;
use crate::broker::{Arrival, Broker, ClientState, Closed, Link, Outbox, Queued, Share, TlsTerms};
use crate::config::HandshakeFirst;
use crate::types::Timestamp;

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// A large payload comes in parts, between which the memory budget is looked at.
const AT_ONCE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Read buffers worked through before other tasks get their turn.
const READS_PER_TURN: u32 = 4;
/// A write that takes longer marks the client as stuck, so that publishers no longer wait for it.
const STUCK_AFTER: Duration = Duration::from_millis(100);
/// A closing connection gets this long to take its last bytes.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// The reading half of a connection.
enum Reader {
    Tcp(OwnedReadHalf),
    Other(Box<dyn AsyncRead + Send + Unpin>),
}

impl Reader {
    /// Reads into `buffer`'s spare room; 0 at the end of the stream. While it waits for a silent peer the room is given
    /// back, so that idle connections stay small. Cancel safe.
    async fn fill(&mut self, buffer: &mut BytesMut, room: usize) -> std::io::Result<usize> {
        match self {
            Reader::Tcp(socket) => loop {
                buffer.reserve(room);
                match socket.try_read_buf(&mut (&mut *buffer).limit(AT_ONCE_BYTES_MAX)) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    done => return done,
                }
                give_back(buffer);
                socket.readable().await?;
            },
            Reader::Other(stream) => {
                let read = |context: &mut Context<'_>| {
                    buffer.reserve(room);
                    let mut part = (&mut *buffer).limit(AT_ONCE_BYTES_MAX);
                    let polled = pin!(stream.read_buf(&mut part)).poll(context);
                    if polled.is_pending() {
                        give_back(buffer);
                    }
                    polled
                };
                poll_fn(read).await
            }
        }
    }
}

impl Reader {
    /// Closing will not leave the kernel with what the peer does not take.
    fn forget_unsent(&self) {
        if let Reader::Tcp(socket) = self {
            let _ = socket.as_ref().set_zero_linger();
        }
    }
}

/// Keeps what has been read, and no room for more when that is little.
fn give_back(buffer: &mut BytesMut) {
    if buffer.is_empty() || buffer.len() < READ_BYTES_MIN && buffer.capacity() > 2 * READ_BYTES_MIN {
        *buffer = BytesMut::from(&buffer[..]);
    }
}

/// Serves a TCP connection until either side ends it or `stop` is cancelled. With a `handshake` it speaks TLS, which the
/// client begins after INFO or before it (nats-server `createClientEx`).
pub async fn serve_tcp(
    broker: Arc<Broker>,
    socket: TcpStream,
    handshake: Option<Arc<Handshake>>,
    stop: CancellationToken,
) {
    let Ok(peer) = socket.peer_addr().map(peer_address) else { return };
    // Small messages must not wait for one another; the outbox already joins what can be joined.
    let _ = socket.set_nodelay(true);
    match handshake {
        None => {
            let arrival = Arrival::standard(peer, TlsTerms::default());
            let (reader, writer) = socket.into_split();
            let Some((link, writer)) = admit(&broker, arrival, writer).await else { return };
            serve(broker, link, Reader::Tcp(reader), writer, stop).await;
        }
        Some(handshake) => tokio::select! {
            () = Box::pin(serve_tls(broker, socket, peer, handshake, stop.clone())) => {}
            // A client that never shakes hands does not hold up the end.
            () = async { stop.cancelled().await; tokio::time::sleep(FLUSH_DEADLINE).await } => {}
        },
    }
}

async fn serve_tls(
    broker: Arc<Broker>,
    socket: TcpStream,
    peer: SocketAddr,
    handshake: Arc<Handshake>,
    stop: CancellationToken,
) {
    let patience = handshake.tls.timeout;
    let first = match handshake.tls.handshake_first {
        HandshakeFirst::No => false,
        HandshakeFirst::Yes => true,
        HandshakeFirst::Within(delay) => first_byte(&socket, delay).await.is_some(),
    };
    let terms = if first { handshake.terms_after() } else { handshake.terms() };
    let arrival = Arrival::standard(peer, terms);
    let Some((mut link, mut socket)) = admit(&broker, arrival, socket).await else { return };
    if !first {
        let mut info = Queued::default();
        if link.client().outbox.take(&mut info).await.is_err() {
            return;
        }
        link.client().outbox.wrote(info.len());
        for piece in info.pieces() {
            if !matches!(tokio::time::timeout(patience, socket.write_all(piece)).await, Ok(Ok(()))) {
                return;
            }
        }
        if handshake.tls.allow_non_tls && first_byte(&socket, patience).await != Some(TLS_HANDSHAKE) {
            let (reader, writer) = socket.into_split();
            return serve(broker, link, Reader::Tcp(reader), writer, stop).await;
        }
    }
    let cid = link.client().id;
    match tokio::time::timeout(patience, handshake.acceptor.accept(socket)).await {
        Ok(Ok(stream)) => {
            link.set_tls(tls::facts(stream.get_ref().1, &handshake, first));
            // The time for CONNECT begins now.
            link.restart(Timestamp::now());
            let (reader, writer) = tokio::io::split(stream);
            serve(broker, link, Reader::Other(Box::new(reader)), writer, stop).await;
        }
        Ok(Err(error)) => debug!("{peer} - cid:{cid} - TLS handshake error: {error}"),
        Err(_) => debug!("{peer} - cid:{cid} - TLS handshake timeout"),
    }
}

/// The first byte the peer sends, left where it is; `None` when none comes within `patience`.
async fn first_byte(socket: &TcpStream, patience: Duration) -> Option<u8> {
    let mut byte = [0];
    match tokio::time::timeout(patience, socket.peek(&mut byte)).await {
        Ok(Ok(1)) => Some(byte[0]),
        _ => None,
    }
}

/// Serves a client over any byte stream.
pub async fn serve_split<S>(
    broker: Arc<Broker>,
    stream: S,
    arrival: Arrival,
    facts: Option<TlsFacts>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let Some((mut link, writer)) = admit(&broker, arrival, writer).await else { return };
    if let Some(facts) = facts {
        link.set_tls(facts);
    }
    serve(broker, link, Reader::Other(Box::new(reader)), writer, stop).await;
}

/// The client's link, or a refusal when there are as many clients as there may be.
async fn admit<W: AsyncWrite + Unpin>(broker: &Arc<Broker>, arrival: Arrival, mut writer: W) -> Option<(Box<Link>, W)> {
    if let Some(link) = Link::open(broker, arrival, Timestamp::now()) {
        // Boxed, because each future that it is moved through keeps room for it.
        return Some((Box::new(link), writer));
    }
    let mut refusal = Vec::new();
    Link::refuse_connection(broker, &mut refusal);
    let _ = tokio::time::timeout(FLUSH_DEADLINE, async {
        writer.write_all(&refusal).await?;
        writer.shutdown().await
    })
    .await;
    None
}

async fn serve<W>(broker: Arc<Broker>, link: Box<Link>, reader: Reader, writer: W, stop: CancellationToken)
where
    W: AsyncWrite + Send + Unpin + 'static,
{
    let client = link.client().clone();
    let writing = tokio::spawn(write_out(broker.clone(), client.clone(), writer));
    read_in(reader, link, stop).await;
    // The link is gone and has closed the outbox; what it still holds is flushed before the socket closes.
    let _ = tokio::time::timeout(FLUSH_DEADLINE, writing).await;
    client.outbox.close(Closed::Gone);
}

async fn read_in(mut reader: Reader, mut link: Box<Link>, stop: CancellationToken) {
    let client = link.client().clone();
    // Counted until it is freed: what is declared first is dropped last.
    let mut share = Share::new(&link.broker().memory);
    let mut buffer = BytesMut::new();
    let mut room = READ_BYTES_MIN;
    let mut reads_in_turn = 0;
    let mut busy = false;
    let stopped = stop.cancelled();
    tokio::pin!(stopped);
    let timer = tokio::time::sleep(until(link.next_deadline()));
    tokio::pin!(timer);
    loop {
        if client.is_to_be_reviewed() {
            let stays = tokio::select! {
                stays = Box::pin(link.review(Timestamp::now())) => stays,
                () = &mut stopped => return,
            };
            if !stays {
                return;
            }
            timer.as_mut().reset(tokio::time::Instant::now() + until(link.next_deadline()));
        }
        tokio::select! {
            biased;
            read = reader.fill(&mut buffer, room) => match read {
                Ok(0) => {
                    debug!("{} - cid:{} - Client connection closed: Client Closed", client.address, client.id);
                    return;
                }
                Ok(bytes) => (room, busy) = (next_room(bytes, room), true),
                Err(error) => {
                    client.set_close_reason("Read Error");
                    debug!("{} - cid:{} - Client connection closed: Read Error: {error}", client.address, client.id);
                    return;
                }
            },
            () = &mut timer => {
                if !link.tick(Timestamp::now()) {
                    return;
                }
                if !std::mem::replace(&mut busy, false) {
                    link.rest();
                }
                timer.as_mut().reset(tokio::time::Instant::now() + until(link.next_deadline()));
                continue;
            }
            () = client.until_told() => match client.outbox.closed() {
                Some(closed) => {
                    let cut = matches!(closed, Closed::SlowConsumer | Closed::OverBudget);
                    if cut || client.close_reason().is_some_and(|reason| reason.starts_with("Slow Consumer")) {
                        reader.forget_unsent();
                    }
                    return;
                }
                None => continue,
            },
            () = &mut stopped => {
                client.set_close_reason("Server Shutdown");
                return;
            }
        }
        let fed = loop {
            let fed = link.feed(&buffer, Timestamp::now());
            if fed.consumed == buffer.len() {
                buffer.clear();
            } else {
                bytes::Buf::advance(&mut buffer, fed.consumed);
            }
            if fed.close {
                return;
            }
            if fed.paused {
                if !pause(&mut link, &client, &stop).await {
                    return;
                }
                tokio::task::yield_now().await;
                continue;
            }
            if !fed.authenticate {
                break fed;
            }
            let admitted = tokio::select! {
                // Rare and large: an idle connection has no room for it.
                admitted = Box::pin(link.authenticate(Timestamp::now())) => admitted,
                () = &mut stopped => return,
            };
            if !admitted {
                return;
            }
            // The deadline is another one now, and what came with CONNECT is worked through before more is read.
            timer.as_mut().reset(tokio::time::Instant::now() + until(link.next_deadline()));
        };
        if fed.needed > 0 {
            // A large payload has its room already: more would copy what has come of it.
            room = if buffer.len() > READ_BYTES_MAX { fed.needed } else { room.max(fed.needed) };
        }
        if share.set(buffer.len()) {
            client.set_input_bytes(share.bytes());
        }
        if !pause(&mut link, &client, &stop).await {
            return;
        }
        reads_in_turn += 1;
        if reads_in_turn >= READS_PER_TURN {
            reads_in_turn = 0;
            // A client that never stops sending is cut all the same.
            if client.outbox.closed().is_some() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Lets a publisher that is far ahead of its readers wait for them; it is still cut off meanwhile, or stopped: then false.
async fn pause(link: &mut Link, client: &ClientState, stop: &CancellationToken) -> bool {
    if !link.has_laggards() {
        return true;
    }
    client.count_stall();
    link.broker().count_stall();
    Box::pin(async {
        tokio::select! {
            () = link.wait_for_laggards() => true,
            () = client.until_told() => true,
            () = stop.cancelled() => false,
        }
    })
    .await
}

fn next_room(read: usize, room: usize) -> usize {
    let next = if read >= room {
        room * 2
    } else if read < room / 4 {
        room / 2
    } else {
        room
    };
    next.clamp(READ_BYTES_MIN, READ_BYTES_MAX)
}

fn until(deadline: Timestamp) -> Duration {
    deadline.since(Timestamp::now()).max(Duration::from_millis(1))
}

async fn write_out<W: AsyncWrite + Unpin>(broker: Arc<Broker>, client: Arc<ClientState>, mut writer: W) {
    let mut queued = Queued::default();
    loop {
        queued.clear();
        let taken = client.outbox.take(&mut queued).await;
        let written = match taken {
            Ok(()) => write_whole(&mut writer, &queued, &client.outbox, || broker.options().write_deadline).await,
            Err(_) => false,
        };
        if written {
            continue;
        }
        match client.outbox.closed() {
            Some(Closed::SlowConsumer) => {
                client.set_close_reason("Slow Consumer (Pending Bytes)");
                let max = broker.options().pending_bytes_max;
                cut_slow_consumer(&broker, &client, &format!("MaxPending of {max} Exceeded"));
            }
            None => {
                client.set_close_reason("Slow Consumer (Write Deadline)");
                let deadline = broker.options().write_deadline;
                cut_slow_consumer(&broker, &client, &format!("WriteDeadline of {deadline:?} exceeded"));
            }
            // Whoever closed it has said why.
            Some(Closed::AfterFlush | Closed::OverBudget | Closed::Gone) => {}
        }
        if taken.is_ok() {
            client.set_close_reason("Write Error");
        } else {
            let _ = Box::pin(tokio::time::timeout(FLUSH_DEADLINE, writer.shutdown())).await;
        }
        client.outbox.close(Closed::Gone);
        return;
    }
}

/// Writes all that is queued. False when the peer has gone or took nothing within the deadline.
async fn write_whole<W: AsyncWrite + Unpin>(
    writer: &mut W,
    queued: &Queued,
    outbox: &Outbox,
    deadline: impl Fn() -> Duration,
) -> bool {
    let mut left = queued.len();
    let mut pieces = queued.pieces();
    let mut rest = pieces.next().unwrap_or_default();
    while left > 0 {
        // TLS and WebSocket keep what they have until they are flushed; for a plain socket that does nothing.
        let write = async {
            let written = writer.write(rest).await?;
            if written == left {
                writer.flush().await?;
            }
            Ok::<_, std::io::Error>(written)
        };
        tokio::pin!(write);
        let done = match tokio::time::timeout(STUCK_AFTER, &mut write).await {
            Ok(done) => done,
            Err(_) => {
                outbox.set_stuck();
                tokio::select! {
                    done = &mut write => done,
                    () = tokio::time::sleep(deadline().saturating_sub(STUCK_AFTER)) => return false,
                    () = outbox.until_dropped() => return false,
                }
            }
        };
        match done {
            Ok(0) => return false,
            Ok(written) => {
                outbox.wrote(written);
                left -= written;
                rest = match &rest[written..] {
                    [] => pieces.next().unwrap_or_default(),
                    rest => rest,
                };
            }
            Err(_) => {
                outbox.close(Closed::Gone);
                return false;
            }
        }
    }
    true
}

/// Counts and logs it in nats-server's words, which people grep for.
fn cut_slow_consumer(broker: &Broker, client: &ClientState, reason: &str) {
    broker.count_slow_consumer();
    info!("{} - cid:{} - Slow Consumer Detected: {reason}", client.address, client.id);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the future that such a function returns.
    fn bytes_of<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let (reading, writing) = (bytes_of(serve_tcp), bytes_of(|a, b, c, ()| write_out::<TcpStream>(a, b, c)));
        assert!(reading <= 2200 && writing <= 800, "{reading} {writing}");
    }
}
