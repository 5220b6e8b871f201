//! Pages of lists: an answer holds what one message may, and what is left is asked for with `after`.

use serde_json::Value;

use super::Desk;
use crate::client::Incoming;
use crate::coordinator::errors;
use crate::types::ApiError;

/// What an answer says beside its entries.
const FRAME_BYTES: usize = 1024;

/// Which page of a list by name is wanted.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    pub limit: Option<usize>,
    /// The name after which the page begins.
    pub after: String,
}

impl Wanted {
    /// # Errors
    /// When the body is something else.
    pub fn read(message: &Incoming) -> Result<Wanted, ApiError> {
        match message.payload().trim_ascii() {
            [] => Ok(Wanted::default()),
            text => serde_json::from_slice(text).map_err(errors::bad_request),
        }
    }
}

impl Desk {
    /// The first of `entries`, up to `limit` and to what fits into one message. One is always there, so that lists go on.
    pub(super) fn page(&self, entries: impl Iterator<Item = Value>, limit: usize) -> Vec<Value> {
        let mut room = self.settings.body_bytes_max.saturating_sub(FRAME_BYTES);
        let mut page = Vec::new();
        for entry in entries.take(limit) {
            let bytes = entry.to_string().len() + 1;
            if bytes > room && !page.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            page.push(entry);
        }
        page
    }
}
