//! `/healthz`: whether the broker serves.

use serde::{Deserialize, Serialize};

use super::query::{BadQuery, Query};
use super::source::Source;

/// What is asked of `/healthz` and `HEALTHZ` (nats-server `HealthzOptions`): the account, stream and consumer narrow the
/// question to one asset.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct HealthzOptions {
    js_enabled: bool,
    js_enabled_only: bool,
    account: String,
    stream: String,
    consumer: String,
    /// Errors one by one.
    details: bool,
}

impl HealthzOptions {
    /// # Errors
    /// When a parameter cannot be read.
    pub fn from_query(query: &Query) -> Result<HealthzOptions, BadQuery> {
        // On one server "meta only" and "this server only" ask for the same checks.
        for name in ["js-server-only", "js-meta-only"] {
            query.flag(name)?;
        }
        Ok(HealthzOptions {
            js_enabled: query.flag("js-enabled")?,
            js_enabled_only: query.flag("js-enabled-only")?,
            account: query.text("account").to_owned(),
            stream: query.text("stream").to_owned(),
            consumer: query.text("consumer").to_owned(),
            details: query.flag("details")?,
        })
    }
}

/// The answer (nats-server `HealthStatus`). Over HTTP the code is the response's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Fault {
    r#type: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    error: String,
}

impl Health {
    fn ok() -> Health {
        Health { status: "ok", status_code: Some(200), error: String::new(), errors: Vec::new() }
    }

    /// Takes out the HTTP status code.
    pub fn take_code(&mut self) -> u16 {
        self.status_code.take().unwrap_or(200)
    }
}

pub async fn report(source: &dyn Source, options: &HealthzOptions) -> Health {
    let fail = |code: u16, kind: &'static str, status: &'static str, error: String| {
        let fault = Fault {
            r#type: kind,
            account: options.account.clone(),
            stream: options.stream.clone(),
            consumer: options.consumer.clone(),
            error: error.clone(),
        };
        match options.details {
            true => Health { status: "error", status_code: Some(code), error: String::new(), errors: vec![fault] },
            false => Health { status, status_code: Some(code), error, errors: Vec::new() },
        }
    };
    let HealthzOptions { account, stream, consumer, .. } = options;
    if account.is_empty() && !stream.is_empty() {
        let text = "\"account\" must not be empty when checking stream health";
        return fail(400, "BAD_REQUEST", "error", text.to_owned());
    }
    if stream.is_empty() && !consumer.is_empty() {
        let text = "\"stream\" must not be empty when checking consumer health";
        return fail(400, "BAD_REQUEST", "error", text.to_owned());
    }
    if let Err(reason) = source.health() {
        return fail(503, "CONNECTION", "unavailable", reason);
    }
    let enabled_only = options.js_enabled || options.js_enabled_only;
    if !enabled_only && account.is_empty() {
        return Health::ok();
    }
    let accounts = source.jetstream(!stream.is_empty(), !consumer.is_empty()).await;
    if accounts.is_empty() {
        return fail(503, "JETSTREAM", "unavailable", "JetStream not enabled".to_owned());
    }
    if enabled_only {
        return Health::ok();
    }
    let Some(jetstream) = accounts.iter().find(|jetstream| jetstream.account == *account) else {
        return fail(404, "ACCOUNT", "unavailable", format!("JetStream account {account:?} not found"));
    };
    if stream.is_empty() {
        return Health::ok();
    }
    let Some(found) = jetstream.streams.iter().find(|known| known.name == *stream) else {
        let text = format!("JetStream stream {stream:?} not found on account {account:?}");
        return fail(404, "STREAM", "unavailable", text);
    };
    if !consumer.is_empty() && !found.consumers.iter().any(|known| known["name"] == **consumer) {
        let text = format!("JetStream consumer {consumer:?} not found for stream {stream:?} on account {account:?}");
        return fail(404, "CONSUMER", "unavailable", text);
    }
    Health::ok()
}
