//! A record that another coordinator wrote: what memory has of the task is made what the stream says, as a restart would.

use super::calls::{Answer, Call};
use super::{Desk, Input};
use crate::client::Incoming;
use crate::coordinator::queue::Mode;
use crate::coordinator::record::{Phase, Record, digest};
use crate::coordinator::task::Event;
use crate::coordinator::{errors, names};

impl Desk {
    /// Makes `found` the task's record. The step that met it is taken again, unless it was the task's first one.
    pub(super) fn take_record_over(
        &mut self,
        index: u32,
        found: Record,
        revision: u64,
        input: Option<Input>,
        submitted: bool,
    ) {
        // With the queue and key that it was reserved with.
        self.release(index);
        self.drop_payload(index);
        let Some(task) = self.task_mut(index) else { return };
        let before = std::mem::replace(&mut task.record, found.clone());
        task.revision = revision;
        task.request = None;
        task.result = None;
        task.loss = None;
        let old_item = std::mem::take(&mut task.item);
        if old_item > 0 {
            self.items.remove(&old_item);
        }
        tracing::warn!(task = before.id, phase = found.phase.as_str(), "took over a record");
        self.relate(index, &before, &found);
        self.settle(index, (!submitted).then_some(&before));
        self.take_up_lease(index);
        if let Some(key) = item_key(&found) {
            let serial = self.task(index).map_or(0, |task| task.serial);
            self.call_direct_get(Call::Item { task: index, serial, revision, old_item }, &key);
        } else if old_item > 0 {
            self.delete_message(old_item);
        }
        match input {
            Some(input) if submitted => {
                if let Some(message) = &input.from {
                    self.answer_other_submission(index, message);
                }
            }
            // Its slot was given back.
            Some(Input { event: Event::Assign { .. }, .. }) => self.line_up(index),
            Some(input) => {
                if let Some(task) = self.task_mut(index) {
                    task.line.push_front(input);
                }
            }
            None => {}
        }
        self.drain(index);
    }

    /// Somebody else submitted the id first.
    fn answer_other_submission(&mut self, index: u32, message: &Incoming) {
        if self.task(index).is_some_and(|task| task.record.digest == digest(message.payload())) {
            self.respond_state(index, message, Some(true));
        } else {
            self.refuse(message, errors::SAME_ID_OTHER_BODY);
        }
    }

    /// Two that submit one id need not mean the same queue, parent or token.
    fn relate(&mut self, index: u32, before: &Record, found: &Record) {
        if before.queue != found.queue && !before.phase.is_final() {
            let left = self.queue_mut(&before.queue);
            left.open = left.open.saturating_sub(1);
            self.queue_mut(&found.queue).open += 1;
        }
        if before.parent != found.parent {
            self.note_child(&before.parent, index, false);
            self.note_child(&found.parent, index, true);
        }
        if before.sticky != found.sticky {
            self.ready.leave(&before.sticky);
            self.ready.join(&found.sticky);
        }
    }

    /// Gives a leased task the slot and the time that its agent has.
    fn take_up_lease(&mut self, index: u32) {
        let Some(record) = self.task(index).map(|task| task.record.clone()) else { return };
        if !record.phase.is_leased() || !record.mode.is_assigned() {
            return;
        }
        let holder = self.roster.find(&record.agent);
        if let Some(holder) = holder {
            self.reserve(holder, index);
        }
        let asked = self.endpoint_of(&record.agent).is_some();
        let (now, lease) = (self.now, self.queue_config(&record.queue).lease());
        let cancel_grace = self.settings.cancel_grace;
        if let Some(task) = self.task_mut(index) {
            task.lease_until = if holder.is_some() { now + lease } else { now };
            task.cancel_until = now + cancel_grace;
            // A service's request may have been sent or not: the lease tells.
            task.seen = asked || record.phase == Phase::Running;
        }
    }

    /// The assignment or pull item of a record that was taken over; what was taken for it before is over.
    pub(super) fn item_answered(&mut self, index: u32, serial: u64, revision: u64, old_item: u64, answer: &Answer) {
        let Some(task) = self.same_task(index, serial) else { return };
        // A later step has said where it is.
        let known = task.revision != revision && task.item > 0;
        let seq = match super::answers::stored(answer) {
            Ok(Some(entry)) if !known && item_key(&task.record).is_some() => entry.seq,
            _ => 0,
        };
        if seq > 0 {
            task.item = seq;
            self.items.insert(seq, index);
            self.seen_seq = self.seen_seq.max(seq);
        }
        if old_item > 0 && old_item != seq {
            self.delete_message(old_item);
        }
        self.release_early();
    }
}

/// Where the stream has what its worker fetches.
fn item_key(record: &Record) -> Option<String> {
    match record.mode {
        Mode::Inbox | Mode::Service if record.phase.is_leased() => {
            Some(names::assignment_key(&record.agent, &record.id))
        }
        Mode::Pull if matches!(record.phase, Phase::Queued | Phase::Running) => {
            Some(names::pull_key(&record.queue, &record.id))
        }
        _ => None,
    }
}
