//! Takes new connections and gives each its tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
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

/// Listens on the first address that `listen` resolves to.
pub async fn bind(listen: &Listen) -> std::io::Result<TcpListener> {
    let mut last_error = std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in tokio::net::lookup_host((listen.bare_host(), listen.port)).await? {
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

/// Accepts for ever. Drop the future to stop.
pub async fn accept(
    listener: TcpListener,
    broker: Arc<Broker>,
    handshake: CurrentHandshake,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut pause = PAUSE_MIN;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                pause = PAUSE_MIN;
                tasks.spawn(connection::serve_tcp(broker.clone(), socket, handshake.get(), stop.clone()));
            }
            Err(error) => {
                warn!("Accept error: {error}; sleeping {pause:?}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}
