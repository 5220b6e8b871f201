//! HISTORY: a task's stored changes, read back from the bucket one after the other.

use serde_json::{Value, json};

use super::Desk;
use super::calls::{Answer, Call};
use crate::client::Incoming;
use crate::coordinator::record::Record;
use crate::coordinator::{errors, history, names};
use crate::types::ApiError;

/// Changes told at most; the bucket keeps 16 unless somebody set it up otherwise.
const CHANGES_MAX: usize = 64;

/// A history that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    request: Incoming,
    id: String,
    /// The newest revision when it began.
    until: u64,
    last: Option<Record>,
    told: Vec<Value>,
}

impl Desk {
    pub(super) fn history(&mut self, id: &str, message: &Incoming) -> Result<(), ApiError> {
        let index = self.find_task(id)?;
        let task = self.task(index).filter(|task| task.revision > 0).ok_or(errors::TASK_NOT_FOUND)?;
        let (id, until) = (id.to_owned(), task.revision);
        let reading = Reading { request: message.clone(), id, until, last: None, told: Vec::new() };
        self.read_change(reading, 1);
        Ok(())
    }

    fn read_change(&mut self, reading: Reading, from: u64) {
        let body = json!({ "seq": from, "next_by_subj": names::state_key(&reading.id) });
        self.call_api(Call::History(Box::new(reading)), &format!("STREAM.MSG.GET.{}", names::STREAM), &body);
    }

    pub(super) fn history_answered(&mut self, mut reading: Reading, answer: &Answer) {
        let entry = match super::answers::stored(answer) {
            Ok(Some(entry)) if entry.seq <= reading.until && reading.told.len() < CHANGES_MAX => entry,
            Ok(_) => return self.tell_history(reading),
            Err(reason) => return self.refuse(&reading.request, errors::UNAVAILABLE.with(reason)),
        };
        if let Ok(record) = serde_json::from_slice::<Record>(&entry.payload) {
            reading.told.push(history::change(reading.last.as_ref(), &record, entry.seq));
            reading.last = Some(record);
        }
        if entry.seq == reading.until { self.tell_history(reading) } else { self.read_change(reading, entry.seq + 1) }
    }

    fn tell_history(&mut self, reading: Reading) {
        // A change without a number was stored by a program that did not count them.
        let first = reading.told.first().and_then(|told| told["change"].as_u64()).filter(|change| *change > 0);
        let fields = json!({
            "id": reading.id, "history": reading.told, "trimmed": first.map(|change| change - 1),
        });
        self.respond(&reading.request, fields);
    }
}
