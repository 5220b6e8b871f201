//! `/healthz`: whether the broker serves.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::query::{BadQuery, Query};
use super::source::Source;

/// Status and body. `account`, `stream` and `consumer` narrow the question to one asset, as on nats-server.
pub async fn answer(source: &dyn Source, query: &Query) -> Result<(StatusCode, Value), BadQuery> {
    // On one server "JetStream only", "meta only" and "this server only" ask for the same checks.
    for name in ["js-enabled", "js-server-only", "js-meta-only", "details"] {
        query.flag(name)?;
    }
    let js_wanted = query.flag("js-enabled-only")? || query.flag("js-enabled")?;
    let (account, stream, consumer) = (query.text("account"), query.text("stream"), query.text("consumer"));
    let bad = |text: String| Ok((StatusCode::BAD_REQUEST, json!({"status": "error", "error": text})));
    if account.is_empty() && !stream.is_empty() {
        return bad("\"account\" must not be empty when checking stream health".to_owned());
    }
    if stream.is_empty() && !consumer.is_empty() {
        return bad("\"stream\" must not be empty when checking consumer health".to_owned());
    }
    let unavailable = |status, text: String| Ok((status, json!({"status": "unavailable", "error": text})));
    if let Err(reason) = source.health() {
        return unavailable(StatusCode::SERVICE_UNAVAILABLE, reason);
    }
    if js_wanted || !account.is_empty() {
        let Some(jetstream) = source.jetstream(!stream.is_empty(), !consumer.is_empty()).await else {
            return unavailable(StatusCode::SERVICE_UNAVAILABLE, "JetStream not enabled".to_owned());
        };
        if !account.is_empty() && account != super::jsz::ACCOUNT {
            return unavailable(StatusCode::NOT_FOUND, format!("JetStream account {account:?} not found"));
        }
        if !stream.is_empty() {
            let Some(found) = jetstream.streams.iter().find(|known| known.name == stream) else {
                return unavailable(
                    StatusCode::NOT_FOUND,
                    format!("JetStream stream \"{account} > {stream}\" not found"),
                );
            };
            if !consumer.is_empty() && !found.consumers.iter().any(|known| known["name"] == consumer) {
                let text = format!("JetStream consumer \"{account} > {stream} > {consumer}\" not found");
                return unavailable(StatusCode::NOT_FOUND, text);
            }
        }
    }
    Ok((StatusCode::OK, json!({"status": "ok"})))
}
