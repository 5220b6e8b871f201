//! One step of a task: event in, batch out, and what follows once the batch is stored, refused or of unknown fate.

use std::collections::VecDeque;

use bytes::Bytes;

use super::calls::{Answer, Call};
use super::leases;
use super::requests::clip;
use super::submit::class_of;
use super::{Busy, Desk, Input, Loss, Parcel, Step};
use crate::client::{BatchEntry, ClientError, Incoming, JetStreamError, decode_ack};
use crate::coordinator::backoff::Backoff;
use crate::coordinator::queue::Mode;
use crate::coordinator::record::{Phase, Record};
use crate::coordinator::task::{Context, Event};
use crate::coordinator::{errors, names, question};
use crate::types::ApiError;

/// How long a step of the coordinator's own waits after a refused commit.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

impl Desk {
    /// Puts an input in the task's line and takes it if the task is free.
    pub(super) fn enqueue(&mut self, index: u32, input: Input) {
        if let Some(task) = self.task_mut(index) {
            task.line.push_back(input);
            self.drain(index);
        }
    }

    pub(super) fn enqueue_event(&mut self, index: u32, event: Event) {
        self.enqueue(index, Input { event, from: None, purge: None });
    }

    pub(super) fn drain(&mut self, index: u32) {
        while let Some(task) = self.task_mut(index)
            && task.busy.is_none()
            && let Some(input) = task.line.pop_front()
        {
            self.process(index, input);
        }
        if let Some(task) = self.task_mut(index).filter(|task| task.record.phase.is_final() && task.line.is_empty()) {
            // It is only kept from now on.
            task.line = VecDeque::new();
        }
        self.arm(index);
    }

    fn process(&mut self, index: u32, mut input: Input) {
        // The first one has been stored meanwhile, and this one changes nothing.
        if let Some(again) = input.from.as_ref().filter(|message| is_submit(message)) {
            return self.respond_state(index, again, Some(true));
        }
        if let Event::Assign { agent, .. } = &input.event
            && !self.is_there(agent, index)
        {
            return self.abandon(index, &input.event);
        }
        let Some(task) = self.task(index) else { return };
        let queue = task.record.queue.clone();
        let pauses = match task.record.backoff.as_slice() {
            [] => self.queue_config(&queue).pauses(),
            own => Backoff::from_seconds(own).unwrap_or_default(),
        };
        let Some(task) = self.task(index) else { return };
        let mut record = task.view().into_owned();
        if matches!(input.event, Event::Requeue { .. }) && record.phase.is_final() && record.origin.is_none() {
            // The next run goes the way its queue goes now.
            record.mode = self.queue_config(&queue).mode;
        }
        if let Event::Decline { others, .. } = &mut input.event {
            let mut class = class_of(&record);
            class.excluded.push(record.agent.clone());
            *others = self.roster.iter().any(|(_, agent)| class.matches(agent));
        }
        let now = self.now;
        let mut outcome = Ok(None);
        if let Event::Requeue { blocked } = &mut input.event {
            outcome = self.check_way(&record).and_then(|()| self.must_wait(&record)).map(|wait| {
                *blocked = wait;
                None
            });
        }
        if outcome.is_ok() {
            outcome = record.handle(&input.event, &mut Context { now, pauses: &pauses, random: &mut self.random });
        }
        if matches!(input.event, Event::Ask { .. } | Event::Answer { .. }) {
            outcome = outcome.and_then(|next| self.fits(next));
        }
        match outcome {
            Err(error) => {
                self.abandon(index, &input.event);
                self.concluded(input.purge, false);
                if let Some(message) = &input.from {
                    self.refuse(message, error);
                }
            }
            Ok(None) => {
                self.abandon(index, &input.event);
                self.concluded(input.purge, false);
                if let Some(message) = &input.from {
                    self.respond_state(index, message, None);
                }
            }
            Ok(Some(next)) => {
                if needs_payload(&record, &next) && self.task(index).is_some_and(|task| task.payload.is_none()) {
                    self.fetch_payload(index, input);
                } else {
                    self.commit(index, next, Some(input), false);
                }
            }
        }
    }

    /// Whether a task that is to run again can reach anybody.
    ///
    /// # Errors
    /// When its queue only takes what is published to a stream by now, or the stream it is from is not adopted any more.
    fn check_way(&self, record: &Record) -> Result<(), ApiError> {
        match (&record.origin, &self.queue_config(&record.queue).adopt) {
            (Some(origin), adopt) if adopt.as_ref().is_none_or(|adopt| adopt.stream != origin.stream) => {
                let reason = format!(
                    "nobody would see what becomes of it: its stream, {}, is not adopted any more",
                    origin.stream
                );
                Err(errors::bad_request(reason))
            }
            (None, Some(adopt)) => {
                let reason =
                    format!("the tasks of this queue are what is published to the stream {} by now", adopt.stream);
                Err(errors::bad_request(reason))
            }
            _ => Ok(()),
        }
    }

    /// Gives back what was reserved for an event that did not happen.
    fn abandon(&mut self, index: u32, event: &Event) {
        if matches!(event, Event::Assign { .. }) {
            self.release(index);
            self.line_up(index);
        }
    }

    fn fetch_payload(&mut self, index: u32, input: Input) {
        let Some(task) = self.task_mut(index) else { return };
        task.line.push_front(input);
        task.busy = Some(Busy::Fetching);
        let (serial, key) = (task.serial, names::payload_key(&task.record.id));
        self.call_direct_get(Call::Payload { task: index, serial }, &key);
    }

    pub(super) fn payload_answered(&mut self, index: u32, serial: u64, answer: Answer) {
        let retry_at = self.now + RETRY;
        let Some(task) = self.same_task(index, serial) else { return };
        task.busy = None;
        match super::answers::stored(&answer) {
            Ok(Some(entry)) => {
                let lines = names::user_lines(crate::types::Headers::new(&entry.headers));
                let bytes = entry.payload.len();
                task.payload = Some(Box::new(Parcel { lines, body: entry.payload }));
                self.payload_bytes += bytes;
            }
            // Somebody removed it. The task cannot be done, and its dead letter says why.
            Ok(None) => {
                task.payload = Some(Box::default());
                let input = task.line.pop_front();
                task.line.push_front(Input { event: Event::PayloadLost, from: None, purge: None });
                if let Some(input) = input {
                    if matches!(input.event, Event::Assign { .. }) {
                        self.release(index);
                    }
                    self.concluded(input.purge, false);
                    if let Some(message) = input.from {
                        self.refuse(&message, errors::UNAVAILABLE.with("the task's payload is gone"));
                    }
                }
            }
            Err(reason) => {
                let input = task.line.pop_front();
                task.retry_at = retry_at;
                if let Some(input) = input {
                    self.put_off(index, input, &reason);
                }
            }
        }
        self.drain(index);
        if self.payload_bytes > self.settings.payload_bytes_max {
            self.drop_payload(index);
        }
    }

    /// A step that could not be taken now: its caller is told, the coordinator's own come again.
    fn put_off(&mut self, index: u32, input: Input, reason: &str) {
        if matches!(input.event, Event::Assign { .. }) {
            // It gets in line again when the timer says so, not at once.
            self.release(index);
        }
        let now = self.now;
        if let Some(task) = self.task_mut(index) {
            task.retry_at = now + RETRY;
        }
        match input.from {
            Some(message) => self.refuse(&message, errors::UNAVAILABLE.with(clip(reason))),
            None if matches!(input.event, Event::Assign { .. }) => {}
            None => {
                if let Some(task) = self.task_mut(index) {
                    task.line.push_back(input);
                    // The timer at `retry_at` drains the line.
                    task.busy = Some(Busy::Fetching);
                }
            }
        }
        self.arm(index);
    }

    /// Sends the batch that makes `next` the task's record.
    pub(super) fn commit(&mut self, index: u32, next: Record, input: Option<Input>, submitted: bool) {
        let endpoint = if next.phase == Phase::Assigned { self.endpoint_of(&next.agent) } else { None };
        let lease_s = self.queue_config(&next.queue).lease_s;
        let Some(task) = self.task_mut(index) else { return };
        task.request = None;
        let mut next = next;
        next.change = task.record.change.saturating_add(1);
        let from = input.as_ref().and_then(|input| input.from.as_ref());
        let before = (!submitted).then_some(&task.record);
        let record = serde_json::to_vec(&next).expect("a record is plain data");
        let mut entries = vec![BatchEntry::new(names::state_key(&next.id), record).expect_revision(task.revision)];
        let parcel = task.payload.as_deref().cloned().unwrap_or_default();
        if submitted {
            let mut entry = BatchEntry::new(names::payload_key(&next.id), parcel.body.clone());
            entry.header_lines = parcel.lines.clone();
            entries.push(entry);
        }
        let mut item_at = None;
        let changed = before.is_none_or(|before| before.phase != next.phase);
        let key = match (next.phase, next.mode) {
            (Phase::Assigned, Mode::Inbox | Mode::Service) if changed && endpoint.is_none() => {
                Some(names::assignment_key(&next.agent, &next.id))
            }
            (Phase::Queued, Mode::Pull) if changed => Some(names::pull_key(&next.queue, &next.id)),
            _ => None,
        };
        if let Some(key) = key {
            item_at = Some(entries.len() as u64);
            let mut entry = BatchEntry::new(key, parcel.body.clone());
            entry.header_lines = delivery_lines(&next, lease_s, &parcel.lines);
            entries.push(entry);
        }
        if next.mode == Mode::Adopted && next.phase == Phase::Queued && changed {
            task.request = super::burial::republication(&next, &parcel).map(Box::new);
        }
        if let Some(subject) = endpoint.filter(|_| changed) {
            let lines = delivery_lines(&next, lease_s, &parcel.lines);
            task.request = Some(Box::new(super::services::Request { subject, lines, body: parcel.body.clone() }));
        }
        if next.phase == Phase::Completed && changed {
            let result = match from {
                Some(message) => Parcel { lines: names::user_lines(message.headers()), body: message.payload_bytes() },
                None => Parcel::default(),
            };
            let mut entry = BatchEntry::new(names::result_key(&next.id), result.body.clone());
            let lines = names::lines_over(&next.header_lines(), &result.lines);
            entry.header_lines = result_lines(&next, &lines);
            task.result = Some(Box::new(Parcel { lines: entry.header_lines.clone(), body: result.body }));
            entries.push(entry);
        }
        if next.phase == Phase::Dead && changed {
            let mut entry = BatchEntry::new(names::dead_letter_key(&next.queue, &next.id), parcel.body.clone());
            entry.header_lines = dead_letter_lines(&next, &parcel.lines);
            entries.push(entry);
        }
        if let Some(firing) = task.firing.as_ref().filter(|_| submitted) {
            entries.push(firing.entry());
        }
        let count = entries.len() as u64;
        let serial = task.serial;
        let step = Step { next, input, entries: count, item_at, submitted };
        task.busy = Some(Busy::Committing(Box::new(step)));
        self.call_batch(Call::Step { task: index, serial }, entries);
    }

    pub(super) fn step_answered(&mut self, index: u32, serial: u64, answer: Answer) {
        let Some(task) = self.same_task(index, serial) else { return };
        let Some(Busy::Committing(step)) = task.busy.take() else { return };
        let outcome = match &answer {
            Answer::Message(message) => decode_ack(message).map_err(Some),
            Answer::Unsent(_) => Err(None),
            Answer::Lost(error) => Err(Some(JetStreamError::Client(error.clone()))),
        };
        match outcome {
            Ok(ack) => {
                let first = ack.seq + 1 - step.entries;
                self.seen_seq = self.seen_seq.max(ack.seq);
                self.committed(index, *step, first);
            }
            // The store's word that nothing was stored.
            Err(Some(JetStreamError::Api(error))) if !error_is_race(&error) => {
                self.not_stored(index, step.input, step.submitted, &error.description);
            }
            Err(Some(JetStreamError::Client(ClientError::NoResponders { .. }))) => {
                self.store_gone = true;
                self.not_stored(index, step.input, step.submitted, "nobody keeps the buckets");
            }
            Err(None) => self.not_stored(index, step.input, step.submitted, &answer.reason()),
            // A lost race, a lost answer: the stream knows.
            Err(Some(_)) => {
                task.busy = Some(Busy::Reloading(step));
                let key = names::state_key(&task.record.id);
                self.call_direct_get(Call::Reload { task: index, serial }, &key);
            }
        }
    }

    fn not_stored(&mut self, index: u32, input: Option<Input>, submitted: bool, reason: &str) {
        tracing::warn!(reason, "a task's step could not be stored");
        if let Some(task) = self.task_mut(index) {
            task.result = None;
        }
        if submitted {
            return self.forget_submission(index, input, reason);
        }
        if let Some(input) = input {
            self.put_off(index, input, reason);
        }
        self.drain(index);
    }

    /// A task whose first batch was not stored does not exist.
    fn forget_submission(&mut self, index: u32, input: Option<Input>, reason: &str) {
        self.release(index);
        let Some(task) = self.task_mut(index) else { return };
        let queue = task.record.queue.clone();
        let waiting: Vec<Input> = input.into_iter().chain(task.line.drain(..)).collect();
        let (firing, id) = (task.firing.take(), task.record.id.clone());
        let waiters = std::mem::take(&mut task.waiters);
        let unburied = (task.record.mode == Mode::Adopted).then(|| (task.record.clone(), task.advisory));
        self.remove_task(index);
        if let Some((record, advisory)) = unburied {
            self.not_buried(&record, advisory);
        }
        let queue = self.queue_mut(&queue);
        queue.open = queue.open.saturating_sub(1);
        for waiter in waiters {
            self.answer_error(waiter.reply, &errors::UNAVAILABLE.with(clip(reason)));
        }
        for input in waiting {
            self.concluded(input.purge, false);
            if let Some(message) = input.from {
                self.refuse(&message, errors::UNAVAILABLE.with(clip(reason)));
            }
        }
        if let Some(firing) = firing {
            self.cron_failed(&firing);
        }
        self.take_held(&id);
    }

    pub(super) fn reload_answered(&mut self, index: u32, serial: u64, answer: Answer) {
        let retry_at = self.now + RETRY;
        let Some(task) = self.same_task(index, serial) else { return };
        let Some(Busy::Reloading(step)) = task.busy.take() else { return };
        match super::answers::stored(&answer) {
            Ok(Some(entry)) => {
                let found: Option<Record> = serde_json::from_slice(&entry.payload).ok();
                let ours = found.as_ref() == Some(&step.next);
                if ours {
                    self.seen_seq = self.seen_seq.max(entry.seq + step.entries - 1);
                    return self.committed(index, *step, entry.seq);
                }
                let Step { input, submitted, .. } = *step;
                match found.filter(|_| entry.seq != task.revision) {
                    // Somebody else wrote it: theirs is the truth, and the event meets that.
                    Some(found) => self.take_record_over(index, found, entry.seq, input, submitted),
                    // Unchanged: our batch was not stored.
                    None => self.again(index, input, submitted),
                }
            }
            Ok(None) => self.again(index, step.input, step.submitted),
            // Not even that could be asked: keep asking.
            Err(_) => {
                task.busy = Some(Busy::Reloading(step));
                task.retry_at = retry_at;
                self.arm(index);
            }
        }
    }

    /// The batch of a step is known not to be stored; the event is taken again.
    fn again(&mut self, index: u32, input: Option<Input>, submitted: bool) {
        if submitted {
            return self.forget_submission(index, input, "the connection was lost");
        }
        if let (Some(task), Some(input)) = (self.task_mut(index), input) {
            task.result = None;
            task.line.push_front(input);
        }
        self.drain(index);
    }

    /// Asks again for the fate of a batch.
    pub(super) fn reload_again(&mut self, index: u32) {
        let Some(task) = self.task(index) else { return };
        let (serial, key) = (task.serial, names::state_key(&task.record.id));
        self.call_direct_get(Call::Reload { task: index, serial }, &key);
    }

    /// The batch of a step is stored, its record as `revision`.
    fn committed(&mut self, index: u32, step: Step, revision: u64) {
        let Step { next, input, item_at, submitted, .. } = step;
        let item = item_at.map_or(0, |at| revision + at);
        let Some(task) = self.task_mut(index) else { return };
        let before = std::mem::replace(&mut task.record, next);
        task.revision = revision;
        let loss = task.loss.take().filter(|loss| task.record.lease == loss.lease);
        if loss.is_some() {
            // Nobody is to be asked any more.
            task.request = None;
        }
        let old_item = task.item;
        if item > 0 {
            task.item = item;
            self.items.insert(item, index);
        }
        if let Some(input) = input.as_ref().filter(|_| before.phase.is_leased()) {
            self.figures.lost(&before.queue, &input.event);
        }
        if let Some(reason) = input.as_ref().and_then(|input| leases::taken_for(&input.event)) {
            self.tell_of_loss(&before, reason);
        }
        self.concluded(input.as_ref().and_then(|input| input.purge), true);
        if let Some(message) = input.and_then(|input| input.from) {
            let duplicate = is_submit(&message).then_some(false);
            self.respond_state(index, &message, duplicate);
        }
        debug_assert!(item == 0 || old_item == 0, "one live assignment per task");
        self.settle(index, (!submitted).then_some(&before));
        self.release_early();
        if let Some(loss) = loss {
            let Loss { lease, delivered } = *loss;
            self.lose_task(index, lease, delivered);
        }
        self.drain(index);
    }
}

fn error_is_race(error: &ApiError) -> bool {
    error.err_code == ApiError::STREAM_WRONG_LAST_SEQUENCE.err_code
}

fn is_submit(message: &Incoming) -> bool {
    message.subject().ends_with(b".API.SUBMIT")
}

fn needs_payload(before: &Record, next: &Record) -> bool {
    before.phase != next.phase
        && (matches!(next.phase, Phase::Assigned | Phase::Dead)
            || (next.mode.is_pulled() && next.phase == Phase::Queued))
}

/// What an agent gets with a task: full subjects, so that it builds nothing.
fn delivery_lines(record: &Record, lease_s: f64, user: &str) -> String {
    let Record { id, queue, attempt, run, deliveries, lease, .. } = record;
    let attempt = if record.mode == Mode::Pull { record.attempts_before.saturating_add(1) } else { (*attempt).max(1) };
    let mut lines = format!(
        "Task-Id: {id}\r\nTask-Queue: {queue}\r\nTask-Attempt: {attempt}\r\nTask-Run: {run}\r\n\
         Task-Delivery: {deliveries}\r\nTask-Lease: {lease_s}\r\n\
         Task-Complete: $TASK.API.COMPLETE.{id}.{lease}\r\nTask-Fail: $TASK.API.FAIL.{id}.{lease}\r\n\
         Task-Progress: $TASK.P.{id}\r\nTask-Input: $TASK.API.INPUT.{id}.{lease}\r\n"
    );
    if record.mode.is_assigned() {
        lines.push_str(&format!("Task-Decline: $TASK.API.DECLINE.{id}.{lease}\r\n"));
    }
    if !record.deadline.is_zero() {
        lines.push_str(&format!("Task-Deadline: {}\r\n", record.deadline.to_rfc3339()));
    }
    if !record.parent.is_empty() {
        lines.push_str(&format!("Task-Parent: {}\r\n", record.parent));
    }
    if record.questions.iter().any(|question| question.answer.is_some()) {
        let answered = record.questions.iter().filter(|question| question.answer.is_some());
        lines.push_str(&format!("Task-Answers: {}\r\n", question::told(answered)));
    }
    lines.push_str(user);
    lines
}

fn result_lines(record: &Record, user: &str) -> String {
    let Record { id, queue, agent, .. } = record;
    let mut lines = format!("Task-Id: {id}\r\nTask-Queue: {queue}\r\nTask-State: completed\r\n");
    if !agent.is_empty() {
        lines.push_str(&format!("Task-Agent: {agent}\r\n"));
    }
    lines.push_str(user);
    lines
}

fn dead_letter_lines(record: &Record, user: &str) -> String {
    let error = record.fault.as_ref().map_or("", |fault| &fault.error).replace(['\r', '\n'], " ");
    let Record { id, queue, attempt, run, .. } = record;
    let reason = record.reason.replace(['\r', '\n'], " ");
    let origin = super::burial::origin_lines(record);
    let at = record.updated.to_rfc3339();
    let agent = record.fault.as_ref().map_or("", |fault| &fault.agent);
    let agent = if agent.is_empty() { String::new() } else { format!("Task-Agent: {agent}\r\n") };
    format!(
        "Task-Id: {id}\r\nTask-Queue: {queue}\r\nTask-State: failed\r\nTask-Attempts: {attempt}\r\nTask-Run: {run}\r\n\
         Task-Reason: {reason}\r\nTask-Error: {error}\r\nTask-Failed-At: {at}\r\n{agent}{origin}{user}"
    )
}

impl Desk {
    /// Publishes without wanting an answer.
    pub(super) fn publish(&mut self, subject: String, lines: &str, payload: Bytes) {
        let headers = names::block(lines);
        self.outputs.push(super::Output::Publish { subject: Bytes::from(subject), call: None, headers, payload });
    }
}
