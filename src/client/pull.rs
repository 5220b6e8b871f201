//! Pulling from a durable consumer.

use std::time::Duration;

use super::{Client, ClientError, Incoming, Status, Subscription};

/// How long the server keeps a pull request.
const EXPIRES: Duration = Duration::from_secs(30);

/// Fetches a consumer's messages, asking again whenever the server has none left to send for the last request.
///
/// A pulled message keeps its stored subject, so each puller has an inbox of its own.
#[derive(Debug)]
pub struct Puller {
    client: Client,
    subscription: Subscription,
    inbox: String,
    api: String,
    batch: usize,
    /// Messages of the last request still to come.
    left: usize,
    generation: u64,
}

impl Client {
    /// A puller of the consumer `stream`/`consumer` that asks for `batch` messages at a time.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    pub fn puller(&self, stream: &str, consumer: &str, batch: usize) -> Result<Puller, ClientError> {
        let inbox = self.new_inbox();
        let subscription = self.subscribe_with(&inbox, None, batch * 2 + 16)?;
        let api = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        Ok(Puller { client: self.clone(), subscription, inbox, api, batch: batch.max(1), left: 0, generation: 0 })
    }
}

impl Puller {
    /// The next message, however long it takes; survives reconnects. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the client is closed.
    pub async fn next(&mut self) -> Result<Incoming, ClientError> {
        let mut status = self.client.watch_status();
        loop {
            let generation = match *status.borrow_and_update() {
                Status::Connected { generation } => generation,
                Status::Disconnected => 0,
                Status::Closed => return Err(ClientError::Closed),
            };
            if generation > 0 && (self.left == 0 || self.generation != generation) {
                let ask = format!(r#"{{"batch":{},"expires":{}}}"#, self.batch, EXPIRES.as_nanos());
                self.client.publish_message(self.api.as_bytes(), self.inbox.as_bytes(), b"", ask.as_bytes())?;
                self.left = self.batch;
                self.generation = generation;
            }
            tokio::select! {
                message = self.subscription.next() => {
                    let message = message.ok_or(ClientError::Closed)?;
                    match message.headers().status() {
                        None => {
                            self.left = self.left.saturating_sub(1);
                            return Ok(message);
                        }
                        Some(100) => {}
                        Some(status) => {
                            self.left = 0;
                            // Nobody answers, or the consumer is gone: both may change, but not at once.
                            if status != 408 {
                                tokio::time::sleep(Duration::from_millis(50)).await;
                            }
                        }
                    }
                }
                changed = status.changed() => {
                    if changed.is_err() {
                        return Err(ClientError::Closed);
                    }
                }
                // The server's word that the request is over may be lost.
                () = tokio::time::sleep(EXPIRES + Duration::from_secs(1)) => self.left = 0,
            }
        }
    }
}
