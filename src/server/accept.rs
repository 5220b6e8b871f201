//! Takes new connections and gives each its tasks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connection;
use super::tls::CurrentHandshake;
use crate::broker::Broker;
use crate::config::Listen;

/// Connections the kernel may hold for us while the accept loop is busy: a thousand agents may come back at once.
const BACKLOG: u32 = 4096;
/// The first pause after the process ran out of file handles; doubles up to a second, as nats-server does.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The log says so once, and again after this long.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// What an accept loop does when it cannot accept: it waits, longer each time in a row.
pub struct Backoff {
    pause: Duration,
    said: Option<Instant>,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff { pause: PAUSE_MIN, said: None }
    }

    /// A connection was accepted.
    pub fn succeed(&mut self) {
        self.pause = PAUSE_MIN;
    }

    /// None was, because of `error`: waits.
    pub async fn fail(&mut self, error: &std::io::Error) {
        if self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            self.said = Some(Instant::now());
            warn!("Accept error: {error}; new clients wait");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// Listens on the first address that `listen` resolves to. 0.0.0.0 is every address of the machine, those of IPv6 too, as
/// for nats-server.
pub async fn bind(listen: &Listen) -> std::io::Result<TcpListener> {
    let mut last_error = std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in tokio::net::lookup_host((listen.bare_host(), listen.port)).await? {
        if address.ip() == Ipv4Addr::UNSPECIFIED {
            match bind_both(address.port()) {
                Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {} // A machine without IPv6.
                bound => return bound,
            }
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted broker gets its port back while old connections linger.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// One socket for IPv4 and IPv6.
fn bind_both(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG as i32)?;
    TcpListener::from_std(socket.into())
}

/// Where `listener`, bound as `listen`, really is: with its port, and with the host that was asked for.
pub fn bound_address(listen: &Listen, listener: &TcpListener) -> Option<SocketAddr> {
    let address = listener.local_addr().ok()?;
    let asked = listen.bare_host().parse::<IpAddr>().ok().filter(IpAddr::is_unspecified);
    Some(SocketAddr::new(asked.unwrap_or(address.ip()), address.port()))
}

/// A peer's address; one of IPv4 as such, though it came to a socket for both.
pub fn peer_address(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Accepts for ever. Drop the future to stop.
pub async fn accept(
    listener: TcpListener,
    broker: Arc<Broker>,
    handshake: CurrentHandshake,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new();
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                backoff.succeed();
                tasks.spawn(connection::serve_tcp(broker.clone(), socket, handshake.get(), stop.clone()));
            }
            Err(error) => backoff.fail(&error).await,
        }
    }
}
