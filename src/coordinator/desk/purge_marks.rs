//! A purge of a queue outlives a crash in its middle: before its first cancel `q.<queue>.purge` says what it is about, and
//! before it is answered that is removed. A restart goes on with what it finds.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Desk;
use super::calls::{Answer, Call};
use crate::client::{BatchEntry, Incoming, decode_ack};
use crate::coordinator::task::Event;
use crate::coordinator::{errors, names};
use crate::types::Timestamp;

/// What is stored of a purge.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Mark {
    reason: String,
    /// Tasks submitted later are not meant.
    until: Timestamp,
}

/// A mark on its way.
#[derive(Debug)]
pub(super) struct Marking {
    queue: String,
    mark: Mark,
    left: VecDeque<(u32, u64)>,
    request: Incoming,
}

impl Desk {
    /// Stores what is about to be purged: `left`, tasks by index and serial.
    pub(super) fn mark_purge(&mut self, queue: &str, reason: String, left: VecDeque<(u32, u64)>, request: &Incoming) {
        let mark = Mark { reason, until: self.now };
        self.purged_until = self.purged_until.max(self.now);
        let body = serde_json::to_vec(&mark).expect("a mark is plain data");
        let entries = vec![BatchEntry::new(names::purge_key(queue), body)];
        let marking = Marking { queue: queue.to_owned(), mark, left, request: request.clone() };
        self.call_batch(Call::PurgeMarked(Box::new(marking)), entries);
    }

    pub(super) fn purge_marked(&mut self, marking: Marking, answer: &Answer) {
        let stored = match answer {
            Answer::Message(message) => decode_ack(message).map_err(|error| error.to_string()),
            _ => Err(answer.reason()),
        };
        let Marking { queue, mark, left, request } = marking;
        match stored {
            Ok(ack) => {
                let event = Event::Purge { reason: mark.reason };
                self.begin_marked((queue, ack.seq), Some(request), event, left);
            }
            Err(reason) => self.refuse(&request, errors::UNAVAILABLE.with(reason)),
        }
    }

    /// All its tasks are canceled: removes the mark, but not that of a later purge.
    pub(super) fn unmark_purge(&mut self, queue: &str, seq: u64, purged: u64, request: Option<Incoming>) {
        let body = serde_json::json!({ "filter": names::purge_key(queue), "seq": seq + 1 });
        self.call_api(Call::PurgeUnmarked { purged, request }, &format!("STREAM.PURGE.{}", names::STREAM), &body);
    }

    pub(super) fn purge_unmarked(&mut self, purged: u64, request: Option<Incoming>, answer: &Answer) {
        let Some(request) = request else { return };
        match super::answers::json(answer) {
            Ok(_) => self.respond(&request, serde_json::json!({ "purged": purged })),
            Err(reason) => {
                let reason = format!("{purged} purged, but a restart will purge once more: {reason}");
                self.refuse(&request, errors::UNAVAILABLE.with(reason));
            }
        }
    }

    /// A purge that was not finished, found by a restart.
    pub(super) fn restore_mark(&mut self, queue: &str, mark: Mark, seq: u64) {
        self.purged_until = self.purged_until.max(mark.until);
        self.marks.push((queue.to_owned(), mark, seq));
    }

    /// Goes on with the purges that a restart found: what was submitted before them and waits now.
    pub(super) fn take_up_marks(&mut self) {
        for (queue, mark, seq) in std::mem::take(&mut self.marks) {
            let waits = |index: u32| {
                let task = self.task(index)?;
                let record = &task.record;
                let meant = record.queue == queue && record.created <= mark.until;
                (meant && !record.phase.is_final() && task.holder.is_none()).then_some((index, task.serial))
            };
            let left: VecDeque<(u32, u64)> = (0..self.tasks.len() as u32).filter_map(waits).collect();
            tracing::info!(queue, tasks = left.len(), "going on with a purge that was not finished");
            self.begin_marked((queue, seq), None, Event::Purge { reason: mark.reason }, left);
        }
    }

    /// The time a task is submitted at: now, but behind every purge that does not mean it.
    pub(super) fn submitted_at(&self) -> Timestamp {
        self.now.max(self.purged_until + Duration::from_nanos(1))
    }
}
