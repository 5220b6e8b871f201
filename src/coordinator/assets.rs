//! The buckets and streams of the coordinator: made on the first use, read whole after a restart.

use std::time::Duration;

use serde_json::json;

use super::desk::{Desk, Row};
use super::names;
use crate::client::{Client, ClientError, JetStreamError};
use crate::types::{ApiError, id};

/// Messages asked for at once while reading.
const PAGE: usize = 500;
/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the buckets are there.
///
/// # Errors
/// When JetStream does not answer.
pub async fn exist(client: &Client) -> Result<bool, JetStreamError> {
    for stream in [names::STREAM, names::AGENTS_STREAM] {
        let info: Result<serde_json::Value, _> =
            client.api(&format!("STREAM.INFO.{stream}"), &serde_json::Value::Null).await;
        match info {
            Ok(info) => takes_batches(stream, &info)?,
            Err(error) if error.is(&ApiError::STREAM_NOT_FOUND) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Whether councils have been formed here.
///
/// # Errors
/// When JetStream does not answer.
pub async fn have_councils(client: &Client) -> Result<bool, JetStreamError> {
    let api = format!("STREAM.INFO.{}", names::COUNCILS_STREAM);
    match client.api::<serde_json::Value>(&api, &serde_json::Value::Null).await {
        Ok(_) => Ok(true),
        Err(error) if error.is(&ApiError::STREAM_NOT_FOUND) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the bucket of councils. Seats may be claimed with a time to live, and whose time is over leaves a marker.
///
/// # Errors
/// The API error.
pub async fn create_councils(client: &Client, replicas: usize) -> Result<(), JetStreamError> {
    let config = json!({
        "name": names::COUNCILS_STREAM, "subjects": [format!("{}>", names::COUNCILS_PREFIX)], "retention": "limits",
        "storage": "file", "discard": "new", "max_msgs_per_subject": 1, "num_replicas": replicas, "allow_rollup_hdrs": true,
        "allow_direct": true, "deny_delete": true, "allow_atomic": true, "allow_msg_ttl": true,
        "subject_delete_marker_ttl": 3_600_000_000_000_u64,
    });
    match client.create_stream(&config).await {
        Err(error) if !error.is(&ApiError::STREAM_NAME_EXIST) => Err(error),
        _ => Ok(()),
    }
}

/// Reads councils and who sits in them into `desk`.
///
/// # Errors
/// As [`load`].
pub async fn load_councils(client: &Client, desk: &mut Desk) -> Result<(), JetStreamError> {
    for filter in ["$KV.TASK_COUNCILS.*", "$KV.TASK_COUNCILS.*.*.*"] {
        read(client, names::COUNCILS_STREAM, &[filter], false, |row| desk.restore_councils(row)).await?;
    }
    Ok(())
}

/// A server without atomic batches takes no notice of the wish for them, and a stream may have been made without.
fn takes_batches(stream: &str, info: &serde_json::Value) -> Result<(), JetStreamError> {
    if info["config"]["allow_atomic"] == true {
        return Ok(());
    }
    let text =
        format!("the stream {stream} takes no atomic batches (ADR-50); set allow_atomic, on nats-server 2.12 or newer");
    Err(JetStreamError::Decode { text })
}

/// Makes what is missing, with `replicas` of each.
///
/// # Errors
/// The API error of the stream that could not be made.
pub async fn create(client: &Client, replicas: usize) -> Result<(), JetStreamError> {
    let bucket = |name: &str, subjects: &str, history: u32| {
        json!({
            "name": name, "subjects": [subjects], "retention": "limits", "storage": "file", "discard": "new",
            "max_msgs_per_subject": history, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msg_size": -1,
            "max_consumers": -1, "num_replicas": replicas, "allow_rollup_hdrs": true, "allow_direct": true,
            // An assignment that is over is deleted, so unlike in other buckets deleting is allowed.
            "deny_delete": false, "deny_purge": false, "allow_atomic": true,
        })
    };
    let progress = json!({
        "name": names::PROGRESS_STREAM, "subjects": ["$TASK.P.*"], "retention": "limits", "storage": "file",
        "discard": "old", "max_age": 86_400_000_000_000_i64, "max_bytes": 256 << 20, "max_msgs_per_subject": 1000,
        "num_replicas": replicas,
    });
    for config in [
        bucket(names::STREAM, &format!("$KV.{}.>", names::BUCKET), 16),
        bucket(names::AGENTS_STREAM, &format!("$KV.{}.>", names::AGENTS_BUCKET), 1),
        progress,
    ] {
        match client.create_stream(&config).await {
            Ok(info) if config["allow_atomic"] == true => {
                takes_batches(config["name"].as_str().unwrap_or_default(), &info)?;
            }
            Ok(_) => {}
            // Somebody set it up in another way, on purpose.
            Err(error) if error.is(&ApiError::STREAM_NAME_EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads agents, queues, crons, tasks and assignments into `desk`.
///
/// # Errors
/// When a page does not come; the desk must then be thrown away.
pub async fn load(client: &Client, desk: &mut Desk) -> Result<(), JetStreamError> {
    read(client, names::AGENTS_STREAM, &["$KV.TASK_AGENTS.>"], false, |row| desk.restore(row)).await?;
    // Queues first: a task's times depend on them.
    read(client, names::STREAM, &["$KV.TASK.q.>"], false, |row| desk.restore(row)).await?;
    read(client, names::STREAM, &["$KV.TASK.c.>"], false, |row| desk.restore(row)).await?;
    read(client, names::STREAM, &["$KV.TASK.s.>"], false, |row| desk.restore(row)).await?;
    // Of an assignment that is over and one that followed it to the same agent both may be stored.
    let items = ["$KV.TASK.a.>", "$KV.TASK.w.>", "$KV.TASK.d.>"];
    read(client, names::STREAM, &items, true, |row| desk.restore_item(row.subject, row.seq)).await
}

/// The newest message of every subject that matches, in order; with `every_head` all of them, without their payloads.
async fn read(
    client: &Client,
    stream: &str,
    filters: &[&str],
    every_head: bool,
    mut take: impl FnMut(Row<'_>),
) -> Result<(), JetStreamError> {
    let name = format!("coordinator_{}", id::unique());
    let mut config = json!({
        "name": name, "deliver_policy": if every_head { "all" } else { "last_per_subject" }, "ack_policy": "none",
        "mem_storage": true, "inactive_threshold": 60_000_000_000_i64, "headers_only": every_head,
    });
    match filters {
        [one] => config["filter_subject"] = (*one).into(),
        many => config["filter_subjects"] = many.to_vec().into(),
    }
    let created = client.create_consumer(stream, &config).await?;
    let mut left = created["num_pending"].as_u64().unwrap_or(0);
    let inbox = client.new_inbox();
    let mut answers = client.subscribe_with(&inbox, None, PAGE * 2)?;
    while left > 0 {
        let ask = json!({ "batch": PAGE, "expires": PAGE_TIMEOUT.as_nanos() as u64 }).to_string();
        let api = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        client.publish_message(api.as_bytes(), inbox.as_bytes(), b"", ask.as_bytes())?;
        for _ in 0..PAGE.min(usize::try_from(left).unwrap_or(PAGE)) {
            let message = tokio::time::timeout(PAGE_TIMEOUT, answers.next())
                .await
                .map_err(|_| ClientError::Timeout)?
                .ok_or(ClientError::Closed)?;
            // The reply is `$JS.ACK....<stream seq>.<consumer seq>.<time>.<pending>`; a status has none.
            let reply = std::str::from_utf8(message.reply()).unwrap_or_default();
            let mut tokens = reply.rsplit('.');
            let pending = tokens.next().and_then(|token| token.parse::<u64>().ok());
            let seq = tokens.nth(2).and_then(|token| token.parse().ok());
            let (Some(pending), Some(seq)) = (pending, seq) else {
                let text = message.headers().description().unwrap_or("not a delivery").to_owned();
                return Err(JetStreamError::Decode { text });
            };
            take(Row {
                subject: message.subject_str(),
                seq,
                headers: message.header_block(),
                payload: message.payload(),
            });
            left = pending;
            if left == 0 {
                break;
            }
        }
    }
    let _: Result<serde_json::Value, _> =
        client.api(&format!("CONSUMER.DELETE.{stream}.{name}"), &serde_json::Value::Null).await;
    Ok(())
}
