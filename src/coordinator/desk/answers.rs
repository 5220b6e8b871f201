//! Reading what JetStream answered.

use serde_json::Value;

use super::calls::Answer;
use crate::client::StoredEntry;
use crate::types::ApiError;

/// A message as STREAM.MSG.GET returns it; `None` when there is none.
///
/// # Errors
/// Why it is not known.
pub(super) fn stored(answer: &Answer) -> Result<Option<StoredEntry>, String> {
    let Answer::Message(message) = answer else { return Err(answer.reason()) };
    if message.is_no_responders() {
        return Err("no JetStream".to_owned());
    }
    match crate::client::decode_stored(message.payload()) {
        Ok(entry) => Ok(Some(entry)),
        Err(error) if error.is(&ApiError::NO_MESSAGE_FOUND) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The JSON of a successful API answer.
///
/// # Errors
/// The error in it, or why there is no answer.
pub(super) fn json(answer: &Answer) -> Result<Value, String> {
    let Answer::Message(message) = answer else { return Err(answer.reason()) };
    if message.is_no_responders() {
        return Err("no JetStream".to_owned());
    }
    let value: Value = serde_json::from_slice(message.payload()).map_err(|error| error.to_string())?;
    match value["error"]["description"].as_str() {
        Some(description) => Err(description.to_owned()),
        None => Ok(value),
    }
}

/// Whether JetStream says that there is no such consumer.
pub(super) fn is_without_consumer(answer: &Answer) -> bool {
    let Answer::Message(message) = answer else { return false };
    let value: Value = serde_json::from_slice(message.payload()).unwrap_or_default();
    value["error"]["err_code"].as_u64() == Some(ApiError::CONSUMER_NOT_FOUND.err_code.into())
}

/// How far a consumer is, from its INFO.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConsumerState {
    pub delivered_seq: u64,
    pub ack_floor_seq: u64,
    pub ack_pending: u64,
    pub waiting: u64,
    pub pending: u64,
    pub redelivered: u64,
}

impl ConsumerState {
    pub fn read(info: &Value) -> ConsumerState {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        ConsumerState {
            delivered_seq: number(&info["delivered"]["stream_seq"]),
            ack_floor_seq: number(&info["ack_floor"]["stream_seq"]),
            ack_pending: number(&info["num_ack_pending"]),
            waiting: number(&info["num_waiting"]),
            pending: number(&info["num_pending"]),
            redelivered: number(&info["num_redelivered"]),
        }
    }
}
