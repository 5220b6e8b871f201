//! `/jsz`: streams and consumers.

use serde_json::{Map, Value, json};

use super::query::{BadQuery, Query};
use super::source::{JetStream, Source};
use crate::types::Timestamp;

/// The one account there is, by nats-server's name for it.
pub const ACCOUNT: &str = "$G";

pub async fn report(
    server_id: &str,
    server_name: &str,
    source: &dyn Source,
    query: &Query,
    now: Timestamp,
) -> Result<Value, BadQuery> {
    let consumers = query.flag("consumers")?;
    let streams = query.flag("streams")? || consumers;
    let config_wanted = query.flag("config")?;
    let account = query.text("acc");
    let accounts = query.flag("accounts")? || (streams && account.is_empty()) || account == ACCOUNT;
    let (offset, limit) = (query.count("offset")?, query.count("limit")?);
    for name in ["leader-only", "raft", "stream-leader-only"] {
        query.flag(name)?;
    }
    let Some(jetstream) = source.jetstream(streams, consumers).await else {
        return Ok(json!({"server_id": server_id, "now": now, "disabled": true}));
    };
    let mut report = stats(&jetstream);
    report["server_id"] = json!(server_id);
    report["now"] = json!(now);
    report["config"] = config(&jetstream);
    report["streams"] = json!(jetstream.num_streams);
    report["consumers"] = json!(jetstream.num_consumers);
    report["messages"] = json!(jetstream.messages);
    report["bytes"] = json!(jetstream.bytes);
    report["total"] = json!(1);
    // Paging is by account, and there is one.
    if accounts && (offset == 0 || account == ACCOUNT || limit == 0) {
        let mut detail = stats(&jetstream);
        detail["name"] = json!(ACCOUNT);
        detail["id"] = json!(ACCOUNT);
        if streams {
            detail["stream_detail"] = jetstream
                .streams
                .into_iter()
                .map(|stream| {
                    let mut shown = Map::new();
                    shown.insert("name".into(), json!(stream.name));
                    shown.insert("created".into(), json!(stream.created));
                    shown.insert("cluster".into(), json!({"leader": server_name}));
                    if config_wanted {
                        shown.insert("config".into(), stream.config);
                    }
                    shown.insert("state".into(), stream.state);
                    if consumers {
                        let details = stream.consumers.into_iter().map(|mut consumer| {
                            if let (false, Some(consumer)) = (config_wanted, consumer.as_object_mut()) {
                                consumer.remove("config");
                            }
                            consumer
                        });
                        shown.insert("consumer_detail".into(), details.collect());
                    }
                    Value::Object(shown)
                })
                .collect();
        }
        report["account_details"] = json!([detail]);
    }
    Ok(report)
}

/// nats-server's `JetStreamConfig`. `sync_always`: every PubAck follows an fsync here.
pub fn config(jetstream: &JetStream) -> Value {
    json!({
        "max_memory": jetstream.max_memory_bytes,
        "max_storage": jetstream.max_storage_bytes,
        "store_dir": jetstream.store_dir,
        "sync_always": true,
        "strict": true,
    })
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
