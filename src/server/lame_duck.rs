//! Lame duck mode: a server that is about to stop sends its clients away one by one, so that they find another server
//! before it is gone, and not all at once (nats-server `lameDuckMode`).

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::Server;
use crate::broker::{ClientState, Closed};
use crate::monitor::tell_lame_duck;

/// Between two clients: no longer than this, however few there are.
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Server {
    /// Takes no new clients, tells those who are here, and after the grace period closes them one after the other. Returns
    /// when all have been told to go; [`Server::stop`] is then due. Streams keep serving until then, so that acks of what
    /// clients still hold arrive (nats-server shuts its JetStream down first). Dropping the future leaves the server as
    /// far as it got.
    pub async fn lame_duck(&self) {
        info!("Entering lame duck mode, stop accepting new clients");
        tell_lame_duck(&self.broker, &self.system);
        self.stop_new_clients.cancel();
        self.broker.announce(|info| {
            info.lame_duck = true;
            info.connect_urls.clear();
        });
        let limits = &self.config.limits;
        let clients = self.ducks();
        if clients.is_empty() {
            return;
        }
        tokio::time::sleep(limits.lame_duck_grace).await;
        info!("Closing existing clients");
        let pause = pause_between(limits.lame_duck_duration.saturating_sub(limits.lame_duck_grace), clients.len());
        for (at, client) in clients.iter().enumerate() {
            if at > 0 {
                tokio::time::sleep(pause).await;
            }
            client.outbox.close(Closed::AfterFlush);
        }
    }

    /// The clients from outside the process.
    fn ducks(&self) -> Vec<Arc<ClientState>> {
        let mut clients = self.broker.clients();
        clients.retain(|client| !client.is_in_process());
        clients
    }
}

fn pause_between(duration: Duration, clients: usize) -> Duration {
    let duration = if duration.is_zero() { PAUSE_MAX } else { duration };
    (duration / u32::try_from(clients).unwrap_or(u32::MAX).max(1)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_evenly_over_the_time_given() {
        for (seconds, clients, expected_ms) in [(120, 1, 1000), (120, 240, 500), (0, 10, 100), (30, 30_000, 1)] {
            let pause = pause_between(Duration::from_secs(seconds), clients);
            assert_eq!(pause, Duration::from_millis(expected_ms), "{clients} in {seconds} s");
        }
    }
}
