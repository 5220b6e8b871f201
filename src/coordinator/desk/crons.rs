//! CRON.PUT, RM and LIST, and what is due. A time's task and the note that it was submitted are one batch, so no time is
//! lost and none comes twice. What is asked of a cron while a batch of it is under way waits in its line.

use std::collections::VecDeque;

use serde_json::json;

use super::calls::{Answer, Call};
use super::page::Wanted;
use super::{Desk, Parcel, Row};
use crate::client::{BatchEntry, Incoming, decode_ack};
use crate::coordinator::cron::{Cron, Times};
use crate::coordinator::{errors, names};
use crate::types::{ApiError, Headers, Timestamp};

/// How long a time waits whose task could not be submitted, as when its queue is full.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);
const CRONS_MAX: usize = 10_000;

/// A task is a cron's, which has these times once that is stored.
#[derive(Clone, Debug)]
pub(super) struct Firing {
    cron: String,
    times: Times,
}

impl Firing {
    /// What is stored along with the task.
    pub fn entry(&self) -> BatchEntry {
        times_entry(&self.cron, &self.times)
    }
}

fn times_entry(name: &str, times: &Times) -> BatchEntry {
    BatchEntry::new(names::cron_times_key(name), serde_json::to_vec(times).expect("times are plain data"))
}

impl Desk {
    pub(super) fn cron_put(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        if let Some(line) = self.cron_lines.get_mut(name) {
            line.push_back(message.clone());
            return Ok(());
        }
        let cron = Cron::read(name, message.headers(), message.payload_bytes(), self.now)?;
        // As its tasks will be read.
        self.new_record(message.headers(), message.payload(), String::new(), true)?;
        if self.crons.get(name).is_some_and(|known| known.is_same(&cron)) {
            let shown = self.show_cron(name);
            self.respond(message, shown);
            return Ok(());
        }
        if self.crons.len() >= CRONS_MAX {
            return Err(errors::TOO_LARGE.with(format!("there are {CRONS_MAX} crons")));
        }
        let mut entry = BatchEntry::new(names::cron_key(name), cron.body.clone());
        entry.header_lines.clone_from(&cron.lines);
        let entries = vec![entry, times_entry(name, &cron.times)];
        self.cron_lines.insert(name.to_owned(), VecDeque::new());
        self.call_batch(
            Call::Cron { name: name.to_owned(), cron: Some(Box::new(cron)), request: message.clone() },
            entries,
        );
        Ok(())
    }

    pub(super) fn cron_remove(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        if let Some(line) = self.cron_lines.get_mut(name) {
            line.push_back(message.clone());
            return Ok(());
        }
        if !self.crons.contains_key(name) {
            return Err(errors::CRON_NOT_FOUND);
        }
        let marker = |key: String| BatchEntry::new(key, "").header("KV-Operation", "DEL");
        let entries = vec![marker(names::cron_key(name)), marker(names::cron_times_key(name))];
        self.cron_lines.insert(name.to_owned(), VecDeque::new());
        self.call_batch(Call::Cron { name: name.to_owned(), cron: None, request: message.clone() }, entries);
        Ok(())
    }

    /// A cron is stored, or removed, or neither.
    pub(super) fn cron_answered(&mut self, name: String, cron: Option<Cron>, request: Incoming, answer: Answer) {
        let outcome = match &answer {
            Answer::Message(message) => decode_ack(message).map_err(|error| error.to_string()),
            _ => Err(answer.reason()),
        };
        match (outcome, cron) {
            (Err(reason), _) => self.refuse(&request, errors::UNAVAILABLE.with(reason)),
            (Ok(_), Some(cron)) => {
                self.crons.insert(name.clone(), cron);
                let shown = self.show_cron(&name);
                self.respond(&request, shown);
            }
            (Ok(_), None) => {
                self.crons.remove(&name);
                self.respond(&request, json!({ "cron": name, "removed": true }));
            }
        }
        self.arm_cron(&name);
        self.cron_free(&name);
    }

    pub(super) fn cron_list(&mut self, message: &Incoming) -> Result<(), ApiError> {
        let Wanted { limit, after } = Wanted::read(message)?;
        let names: Vec<&String> = self.crons.keys().filter(|name| **name > after).collect();
        let page = self.page(names.iter().map(|name| self.show_cron(name)), limit.unwrap_or(usize::MAX));
        let left = names.len() - page.len();
        let mut fields = json!({ "crons": page, "total": self.crons.len() });
        if left > 0 {
            fields["left"] = left.into();
        }
        self.respond(message, fields);
        Ok(())
    }

    fn show_cron(&self, name: &str) -> serde_json::Value {
        let Some(cron) = self.crons.get(name) else { return json!({}) };
        let block = names::block(&cron.lines);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut headers: serde_json::Map<String, serde_json::Value> =
            Headers::new(&block).iter().map(|(name, value)| (text(name), text(value).into())).collect();
        let mut shown = json!({ "cron": name, "schedule": headers.remove("Task-Schedule"), "bytes": cron.body.len() });
        let Times { next, last, last_task } = &cron.times;
        if !next.is_zero() {
            shown["next"] = cron.schedule.show(*next).into();
        }
        if !last.is_zero() {
            shown["last"] = cron.schedule.show(*last).into();
            shown["last_task"] = last_task.as_str().into();
        }
        shown["headers"] = headers.into();
        shown
    }

    /// Sets when a cron is looked at next.
    fn arm_cron(&mut self, name: &str) {
        self.cron_due.retain(|(_, other)| other != name);
        if let Some(cron) = self.crons.get(name).filter(|cron| !cron.times.next.is_zero()) {
            self.cron_due.insert((cron.times.next, name.to_owned()));
        }
    }

    /// Submits what is due.
    pub(super) fn fire_crons(&mut self) {
        while let Some((at, _)) = self.cron_due.first()
            && *at <= self.now
            && let Some((_, name)) = self.cron_due.pop_first()
        {
            // Whoever has it now arms it when done.
            if !self.cron_lines.contains_key(&name) {
                self.fire_cron(name);
            }
        }
    }

    fn fire_cron(&mut self, name: String) {
        let Some(cron) = self.crons.get(&name).cloned() else { return };
        let times = cron.fired(&name, self.now);
        let id = cron.task_id(&name);
        if self.ids.contains_key(&id) {
            // Somebody submitted it already.
            self.cron_lines.insert(name.clone(), VecDeque::new());
            let entries = vec![times_entry(&name, &times)];
            return self.call_batch(Call::CronTimes { name, times }, entries);
        }
        let block = names::block(&cron.lines);
        match self.new_record(Headers::new(&block), &cron.body, id, false) {
            Ok(record) => {
                self.cron_lines.insert(name.clone(), VecDeque::new());
                let parcel = Parcel { lines: names::user_lines(Headers::new(&block)), body: cron.body };
                self.begin_task(record, parcel, None, Some(Firing { cron: name, times }));
            }
            Err(error) => {
                tracing::info!(cron = name, error = %error.description, "a cron's task is put off");
                self.cron_due.insert((self.now + RETRY, name));
            }
        }
    }

    /// A time's task is stored.
    pub(super) fn cron_fired(&mut self, firing: Firing) {
        let Firing { cron: name, times } = firing;
        if let Some(cron) = self.crons.get_mut(&name) {
            cron.times = times;
        }
        self.arm_cron(&name);
        self.cron_free(&name);
    }

    /// It is not.
    pub(super) fn cron_failed(&mut self, firing: &Firing) {
        self.cron_due.insert((self.now + RETRY, firing.cron.clone()));
        self.cron_free(&firing.cron);
    }

    pub(super) fn cron_times_answered(&mut self, name: String, times: Times, answer: &Answer) {
        let firing = Firing { cron: name, times };
        match answer {
            Answer::Message(message) if decode_ack(message).is_ok() => self.cron_fired(firing),
            _ => self.cron_failed(&firing),
        }
    }

    /// Takes up what was asked of a cron meanwhile.
    fn cron_free(&mut self, name: &str) {
        for message in self.cron_lines.remove(name).unwrap_or_default() {
            let outcome = if message.subject_str().contains(".CRON.RM.") {
                self.cron_remove(name, &message)
            } else {
                self.cron_put(name, &message)
            };
            if let Err(error) = outcome {
                self.refuse(&message, error);
            }
        }
    }

    /// Takes a cron's row of before a restart: what it is comes first, its times later.
    pub(super) fn restore_cron(&mut self, key: &str, row: Row<'_>) {
        if let Some(name) = key.strip_suffix(".next") {
            match (self.crons.get_mut(name), serde_json::from_slice(row.payload)) {
                (Some(cron), Ok(times)) => cron.times = times,
                (Some(_), Err(error)) => tracing::warn!(subject = row.subject, %error, "unreadable row"),
                (None, _) => {}
            }
            return;
        }
        match Cron::read(key, Headers::new(row.headers), bytes::Bytes::copy_from_slice(row.payload), self.now) {
            Ok(cron) => drop(self.crons.insert(key.to_owned(), cron)),
            Err(error) => tracing::warn!(subject = row.subject, error = %error.description, "unreadable row"),
        }
    }

    /// Sets the times of all; one that is missed is due at once.
    pub(super) fn arm_crons(&mut self) {
        self.cron_due = (self.crons.iter())
            .filter(|(_, cron)| !cron.times.next.is_zero())
            .map(|(name, cron)| (cron.times.next, name.clone()))
            .collect();
    }

    pub(super) fn next_cron(&self) -> Option<Timestamp> {
        self.cron_due.first().map(|(at, _)| *at)
    }
}
