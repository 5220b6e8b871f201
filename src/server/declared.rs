//! Creates the streams and consumers that the configuration declares, as a client of the broker like any other.

use serde_json::{Value, json};
use tracing::info;

use super::{Server, StartError};
use crate::client::{Client, ConnectOptions, JetStreamError};
use crate::config::DeclaredStream;

/// `stream name already in use with a different configuration`.
const NAME_IN_USE: u32 = 10058;

impl Server {
    /// Brings every declared stream and consumer to its configuration. Nothing is deleted.
    ///
    /// # Errors
    /// The first that JetStream refuses, with its place in the config file.
    pub(super) async fn declare(&self) -> Result<(), StartError> {
        let streams = &self.config.streams;
        if streams.is_empty() {
            return Ok(());
        }
        let options = ConnectOptions { name: "natterjack-config".to_owned(), ..ConnectOptions::default() };
        let client = Client::attach(self.connect_in_process(), options).await?;
        for stream in streams {
            self.declare_stream(&client, stream).await?;
        }
        client.close().await;
        Ok(())
    }

    async fn declare_stream(&self, client: &Client, stream: &DeclaredStream) -> Result<(), StartError> {
        let refused = |at: &str, what: String| {
            let at = at.to_owned();
            move |source| StartError::Declared { at, what, source }
        };
        let name = &stream.name;
        let created = client.api::<Value>(&format!("STREAM.CREATE.{name}"), &stream.config).await;
        let outcome = match created {
            Err(JetStreamError::Api(error)) if error.err_code == NAME_IN_USE => {
                client.api::<Value>(&format!("STREAM.UPDATE.{name}"), &stream.config).await
            }
            created => created,
        };
        outcome.map_err(refused(&stream.at, format!("stream {name:?}")))?;
        for consumer in &stream.consumers {
            let request = json!({ "stream_name": name, "config": consumer.config });
            let subject = format!("CONSUMER.CREATE.{name}.{}", consumer.name);
            let what = format!("consumer {:?} of stream {name:?}", consumer.name);
            client.api::<Value>(&subject, &request).await.map_err(refused(&consumer.at, what))?;
        }
        info!("Stream {name:?} is there as declared, with {} consumers", stream.consumers.len());
        Ok(())
    }
}
