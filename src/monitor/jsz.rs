//! `/jsz`: streams and consumers.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::query::{BadQuery, Query};
use super::source::{Identity, JetStream, Source};
use crate::types::Timestamp;

/// Pending acks of a consumer that asks for no limit; nats-server 2.15.1 reports them under an odd name.
const DEFAULT_MAX_CONSUMERS: u64 = 1000;

/// What is asked of `/jsz` and `JSZ` (nats-server `JSzOptions`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JszOptions {
    pub account: String,
    accounts: bool,
    streams: bool,
    consumer: bool,
    config: bool,
    offset: i64,
    limit: i64,
}

impl JszOptions {
    /// # Errors
    /// When a parameter cannot be read.
    pub fn from_query(query: &Query) -> Result<JszOptions, BadQuery> {
        // On one server everything leads, and there are no Raft groups.
        for name in ["leader-only", "raft", "stream-leader-only", "direct-consumers"] {
            query.flag(name)?;
        }
        Ok(JszOptions {
            account: query.text("acc").to_owned(),
            accounts: query.flag("accounts")?,
            streams: query.flag("streams")?,
            consumer: query.flag("consumers")?,
            config: query.flag("config")?,
            offset: query.count("offset")? as i64,
            limit: query.count("limit")? as i64,
        })
    }
}

pub async fn report(identity: &Identity, source: &dyn Source, options: &JszOptions, now: Timestamp) -> Value {
    let streams = options.streams || options.consumer;
    let mut accounts = source.jetstream(streams, options.consumer).await;
    let Some(server) = sum(&accounts) else {
        return json!({"server_id": identity.server_id, "now": now, "disabled": true, "config": {"max_memory": 0, "max_storage": 0},
            "memory": 0, "storage": 0, "reserved_memory": 0, "reserved_storage": 0, "accounts": 0, "ha_assets": 0,
            "api": {"level": 0, "total": 0, "errors": 0}, "streams": 0, "consumers": 0, "messages": 0, "bytes": 0, "total": 0});
    };
    let mut report = stats(&server);
    report["accounts"] = json!(accounts.len());
    report["server_id"] = json!(identity.server_id);
    report["now"] = json!(now);
    report["config"] = config(&server);
    report["limits"] = limits(&server);
    report["streams"] = json!(server.num_streams);
    report["consumers"] = json!(server.num_consumers);
    report["messages"] = json!(server.messages);
    report["bytes"] = json!(server.bytes);
    report["total"] = json!(accounts.len());
    accounts.retain(|jetstream| match options.account.as_str() {
        "" => options.accounts || streams,
        account => jetstream.account == account,
    });
    let offset = usize::try_from(options.offset).unwrap_or(0);
    let limit = usize::try_from(options.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let page = accounts.into_iter().skip(offset).take(limit);
    let details: Vec<Value> = page.map(|jetstream| account_detail(identity, jetstream, options)).collect();
    if !details.is_empty() {
        report["account_details"] = json!(details);
    }
    report
}

/// What `$SYS.REQ.ACCOUNT.<account>.JSZ` says.
///
/// # Errors
/// When the account is not known, or has no JetStream.
pub async fn account_report(identity: &Identity, source: &dyn Source, options: &JszOptions) -> Result<Value, BadQuery> {
    let wanted = &options.account;
    if !source.accounts().iter().any(|account| account.name == *wanted) {
        return Err(BadQuery(format!("account {wanted:?} not found")));
    }
    let accounts = source.jetstream(options.streams || options.consumer, options.consumer).await;
    match accounts.into_iter().find(|jetstream| jetstream.account == *wanted) {
        Some(jetstream) => Ok(account_detail(identity, jetstream, options)),
        None => Err(BadQuery(format!("account {wanted:?} not jetstream enabled"))),
    }
}

/// The figures of the whole server.
pub fn sum(accounts: &[JetStream]) -> Option<JetStream> {
    let first = accounts.first()?;
    let mut sum = JetStream { streams: Vec::new(), ..first.clone() };
    for jetstream in &accounts[1..] {
        sum.memory_bytes += jetstream.memory_bytes;
        sum.storage_bytes += jetstream.storage_bytes;
        sum.reserved_memory_bytes += jetstream.reserved_memory_bytes;
        sum.reserved_storage_bytes += jetstream.reserved_storage_bytes;
        sum.api_total += jetstream.api_total;
        sum.api_errors += jetstream.api_errors;
        sum.num_streams += jetstream.num_streams;
        sum.num_consumers += jetstream.num_consumers;
        sum.messages += jetstream.messages;
        sum.bytes += jetstream.bytes;
    }
    Some(sum)
}

fn account_detail(identity: &Identity, jetstream: JetStream, options: &JszOptions) -> Value {
    let mut detail = stats(&jetstream);
    detail["name"] = json!(jetstream.account);
    detail["id"] = json!(jetstream.account);
    if !options.streams && !options.consumer {
        return detail;
    }
    detail["stream_detail"] = jetstream
        .streams
        .into_iter()
        .map(|stream| {
            let mut shown = Map::new();
            shown.insert("name".into(), json!(stream.name));
            shown.insert("created".into(), json!(stream.created));
            shown.insert("cluster".into(), json!({"leader": identity.server_name}));
            if options.config {
                shown.insert("config".into(), stream.config);
            }
            shown.insert("state".into(), stream.state);
            if options.consumer {
                let details = stream.consumers.into_iter().map(|mut consumer| {
                    if let (false, Some(consumer)) = (options.config, consumer.as_object_mut()) {
                        consumer.remove("config");
                    }
                    consumer
                });
                shown.insert("consumer_detail".into(), details.collect());
            }
            Value::Object(shown)
        })
        .collect();
    detail
}

/// nats-server's `JSLimitOpts`, with what it tells of consumers since 2.15.1.
pub fn limits(jetstream: &JetStream) -> Value {
    let mut limits = json!(jetstream.limits);
    limits["default_max_consumers"] = json!(DEFAULT_MAX_CONSUMERS);
    limits
}

/// nats-server's `JetStreamConfig`. `sync_always`: every PubAck follows an fsync here.
pub fn config(jetstream: &JetStream) -> Value {
    let mut config = json!({
        "max_memory": jetstream.max_memory_bytes,
        "max_storage": jetstream.max_storage_bytes,
        "store_dir": jetstream.store_dir,
        "sync_always": true,
        "compress_ok": true,
        "strict": jetstream.strict,
    });
    if !jetstream.domain.is_empty() {
        config["domain"] = json!(jetstream.domain);
    }
    config
}

/// nats-server's `JetStreamStats`.
pub fn stats(jetstream: &JetStream) -> Value {
    json!({
        "memory": jetstream.memory_bytes,
        "storage": jetstream.storage_bytes,
        "reserved_memory": jetstream.reserved_memory_bytes,
        "reserved_storage": jetstream.reserved_storage_bytes,
        "accounts": 1,
        "ha_assets": 0,
        "api": {"level": jetstream.api_level, "total": jetstream.api_total, "errors": jetstream.api_errors},
    })
}
