//! What follows from a record that is now the task's: slots, lines, leases, waiters, events, results.

use bytes::Bytes;

use super::calls::{Answer, Call};
use super::{Busy, Desk, Output};
use crate::client::decode_ack;
use crate::coordinator::names;
use crate::coordinator::queue::Mode;
use crate::coordinator::record::{Phase, Record, State};
use crate::coordinator::task::Event;
use crate::types::{Headers, Timestamp};

/// What `$TASK.E.TASK.<id>` tells.
#[derive(serde::Serialize)]
struct TaskEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    queue: &'a str,
    state: State,
    phase: Phase,
    run: u32,
    attempt: u32,
    time: Timestamp,
    revision: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    agent: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// An open question and its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    /// The number of the question whose answer brought the task here.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<u32>,
}

impl Desk {
    /// Brings everything around a task in line with its record. `before` is the record it had, `None` for a new task.
    pub(super) fn settle(&mut self, index: u32, before: Option<&Record>) {
        let now = self.now;
        let Some(record) = self.task(index).map(|task| task.record.clone()) else { return };
        let lease = self.queue_config(&record.queue).lease();
        let was = before.map(|before| before.phase);
        self.figures.moved(was, &record);
        let Some(task) = self.task_mut(index) else { return };
        let was_leased = was.is_some_and(Phase::is_leased);
        let entered = was != Some(record.phase);

        if record.phase != Phase::Queued
            && let Some(spot) = task.spot.take()
        {
            self.ready.remove(&spot);
        }
        let Some(task) = self.task_mut(index) else { return };
        if record.phase.is_leased() {
            if entered && record.phase == Phase::Assigned {
                task.seen = false;
                task.lease_until = now + lease;
            }
        } else {
            let held = task.holder.is_some();
            let keeps_item = record.mode == Mode::Pull && matches!(record.phase, Phase::Queued | Phase::Running);
            let dead_item = if keeps_item { 0 } else { std::mem::take(&mut task.item) };
            let seen = std::mem::take(&mut task.seen);
            task.lease_until = Timestamp::ZERO;
            if dead_item > 0 {
                self.items.remove(&dead_item);
                self.discard_item(index, dead_item, seen || record.phase == Phase::Completed);
            }
            if held {
                self.release(index);
            }
        }
        if record.phase == Phase::Running
            && record.mode.is_assigned()
            && let Some(task) = self.task_mut(index)
        {
            task.seen = true;
        }
        if before.is_none() {
            if let Some(firing) = self.task_mut(index).and_then(|task| task.firing.take()) {
                self.cron_fired(*firing);
            }
            self.take_held(&record.id);
        }
        if entered {
            if was == Some(Phase::Blocked) {
                self.unblock(index, &record.after);
            }
            if was.is_some_and(Phase::is_final) && !record.phase.is_final() {
                self.queue_mut(&record.queue).open += 1;
                if was == Some(Phase::Dead) {
                    // Not that of the next death, should it come first.
                    let revision = self.task(index).map_or(0, |task| task.revision);
                    self.purge_below(&names::dead_letter_key(&record.queue, &record.id), revision);
                }
            }
            match record.phase {
                Phase::Queued => self.line_up(index),
                Phase::Assigned => self.send_request(index),
                Phase::Blocked => self.block(index),
                Phase::Cancelling => {
                    let grace = self.settings.cancel_grace;
                    if let Some(task) = self.task_mut(index) {
                        task.cancel_until = now + grace;
                    }
                    self.ask_to_stop(&record);
                }
                Phase::Canceled
                    if (was_leased && was != Some(Phase::Cancelling)) || was.is_some_and(Phase::is_parked) =>
                {
                    if let Some(before) = before {
                        self.tell_of_loss(before, &record.reason);
                    }
                }
                phase if phase.is_parked() => self.tell_waiters_of_question(index),
                _ => {}
            }
            if record.phase.is_final() {
                if was.is_none_or(|was| !was.is_final()) {
                    let queue = self.queue_mut(&record.queue);
                    queue.open = queue.open.saturating_sub(1);
                }
                self.finished(index, &record);
                self.release_dependents(&record.id);
            }
            self.announce(index, &record);
        }
        self.look_at_descendants(index, before.map(|before| before.descendants));
        if let Some(task) = self.task_mut(index) {
            task.retry_at = Timestamp::ZERO;
        }
        if record.mode == Mode::Pull
            && record.phase.is_final()
            && let Some(task) = self.task_mut(index)
        {
            let advisory = std::mem::take(&mut task.advisory);
            self.forget_advisory(advisory);
        }
        if record.mode == Mode::Adopted {
            self.know_origin(index);
            if entered {
                self.settle_adopted(index, before.is_none());
            }
        }
        self.arm(index);
    }

    /// Removes an assignment that is over from the stream: at once if it may still be fetched, else with others.
    fn discard_item(&mut self, index: u32, item: u64, fetched: bool) {
        let holder = self.task(index).and_then(|task| task.holder);
        match holder.and_then(|holder| self.roster.get_mut(holder)) {
            Some(agent) if fetched => agent.spent.push(item),
            _ => self.delete_message(item),
        }
    }

    pub(super) fn delete_message(&mut self, seq: u64) {
        let body = serde_json::json!({ "seq": seq, "no_erase": true });
        self.call_api(Call::Unimportant, &format!("STREAM.MSG.DELETE.{}", names::STREAM), &body);
    }

    pub(super) fn purge(&mut self, filter: &str) {
        let body = serde_json::json!({ "filter": filter });
        self.call_api(Call::Unimportant, &format!("STREAM.PURGE.{}", names::STREAM), &body);
    }

    /// As [`Desk::purge`], of what is stored below a sequence.
    fn purge_below(&mut self, filter: &str, seq: u64) {
        let body = serde_json::json!({ "filter": filter, "seq": seq });
        self.call_api(Call::Unimportant, &format!("STREAM.PURGE.{}", names::STREAM), &body);
    }

    fn finished(&mut self, index: u32, record: &Record) {
        self.drop_payload(index);
        if record.phase == Phase::Completed
            && let Some(holder) = self.roster.find(&record.agent)
            && let Some(agent) = self.roster.get_mut(holder)
        {
            agent.card.completed = agent.card.completed.saturating_add(1);
            agent.card.tasks_completed = agent.card.completed;
            agent.dirty = true;
        }
        let waiters = self.task_mut(index).map(|task| std::mem::take(&mut task.waiters)).unwrap_or_default();
        for waiter in waiters {
            self.answer_finished(index, waiter.reply);
        }
        if record.result_due {
            self.send_result(index);
        } else if let Some(task) = self.task_mut(index) {
            task.result = None;
        }
    }

    /// Sends the result where the submitter wanted it.
    pub(super) fn send_result(&mut self, index: u32) {
        let Some(task) = self.task(index) else { return };
        let (serial, record) = (task.serial, &task.record);
        let run = record.run;
        // Also for a record that somebody else wrote, or that is from a time with other settings.
        if !self.may_send_to(&record.result_to) {
            tracing::warn!(
                task = record.id,
                to = record.result_to.as_str(),
                "a result may not be sent there, and is not"
            );
            return self.result_done(index);
        }
        let (lines, body) = match (record.phase, &task.result) {
            (Phase::Completed, Some(result)) => (result.lines.clone(), result.body.clone()),
            (Phase::Completed, None) => {
                let key = names::result_key(&record.id);
                return self.call_direct_get(Call::ResultToSend { task: index, serial, run }, &key);
            }
            _ => {
                let own = record.header_lines();
                let lines = format!("Task-Id: {}\r\nTask-State: {}\r\n{own}", record.id, record.state.as_str());
                (lines, Bytes::from(task.shown().to_string()))
            }
        };
        // A stream behind the subject stores it once, however often it is sent.
        let lines = format!("Nats-Msg-Id: task.{}.{}\r\n{lines}", record.id, record.run);
        let subject = Bytes::from(String::from(record.result_to.clone()));
        let call = self.open_call(Call::ResultSent { task: index, serial, run });
        self.outputs.push(Output::Publish { subject, call: Some(call), headers: names::block(&lines), payload: body });
    }

    pub(super) fn result_to_send_answered(&mut self, index: u32, serial: u64, run: u32, answer: Answer) {
        let retry_at = self.now + self.settings.call_timeout;
        let Some(task) = self.same_run(index, serial, run) else { return };
        match super::answers::stored(&answer) {
            Ok(entry) => {
                let entry = entry.unwrap_or_default();
                let lines = names::lines_without_jetstreams(Headers::new(&entry.headers));
                task.result = Some(Box::new(super::Parcel { lines, body: entry.payload }));
                self.send_result(index);
            }
            Err(_) => {
                task.retry_at = retry_at;
                self.arm(index);
            }
        }
    }

    /// The result is out, or has to be sent again: a stream refused it or the connection broke. A plain subscriber does not
    /// answer, so silence on a live connection is as good as an answer.
    pub(super) fn result_sent(&mut self, index: u32, serial: u64, run: u32, answer: Answer) {
        let pause = self.settings.call_timeout;
        let retry_at = self.now + pause;
        let Some(task) = self.same_run(index, serial, run) else { return };
        let out = match &answer {
            Answer::Message(message) if message.is_no_responders() => true,
            Answer::Message(message) => !matches!(decode_ack(message), Err(crate::client::JetStreamError::Api(_))),
            Answer::Lost(error) => *error == crate::client::ClientError::Timeout,
            Answer::Unsent(error) => !matches!(error, crate::client::ClientError::Full { .. }),
        };
        if !out {
            task.retry_at = retry_at;
            return self.arm(index);
        }
        self.result_done(index);
    }

    /// The task, if it has not been requeued since: what is known of an earlier run's result says nothing of this one's.
    fn same_run(&mut self, index: u32, serial: u64, run: u32) -> Option<&mut super::Task> {
        self.same_task(index, serial).filter(|task| task.record.run == run)
    }

    /// Nothing is to be sent any more.
    fn result_done(&mut self, index: u32) {
        let Some(task) = self.task_mut(index) else { return };
        task.result = None;
        if task.record.result_due && task.busy.is_none() {
            let mut next = task.record.clone();
            next.result_due = false;
            self.commit(index, next, None, false);
        }
    }

    /// Tells whoever listens where the task is now.
    fn announce(&mut self, index: u32, record: &Record) {
        let revision = self.task(index).map_or(0, |task| task.revision);
        let open = record.questions.last().filter(|_| record.phase.is_parked());
        let event = TaskEvent {
            kind: "io.natterjack.task.event.v1.task",
            id: &record.id,
            queue: &record.queue,
            state: record.state,
            phase: record.phase,
            run: record.run,
            attempt: record.attempt,
            time: record.updated,
            revision,
            agent: &record.agent,
            reason: &record.reason,
            error: record.fault.as_ref().filter(|_| record.phase != Phase::Completed).map(|fault| fault.error.as_str()),
            question: open.map(|open| open.question.as_str()),
            number: open.map(|open| open.number),
            answered: record.resumes().map(|question| question.number),
        };
        let body = Bytes::from(serde_json::to_vec(&event).expect("an event is plain data"));
        let lines = record.header_lines();
        if record.phase == Phase::Dead {
            self.publish(format!("$TASK.E.QUEUE.{}", record.queue), &lines, body.clone());
        }
        self.publish(format!("$TASK.E.TASK.{}", record.id), &lines, body);
    }

    /// A task's timer: everything whose time has come.
    pub(super) fn fire(&mut self, index: u32, at: Timestamp) {
        let now = self.now;
        let Some(task) = self.task_mut(index) else { return };
        if task.timer == at {
            task.timer = Timestamp::ZERO;
        }
        let late: Vec<Bytes> =
            task.waiters.extract_if(.., |waiter| waiter.until <= now).map(|waiter| waiter.reply).collect();
        for reply in late {
            self.answer_too_late(reply);
        }
        let retention = self.task(index).map(|task| self.queue_config(&task.record.queue).retention());
        let (Some(task), Some(retention)) = (self.task_mut(index), retention) else { return };
        if !task.retry_at.is_zero() && task.retry_at <= now {
            task.retry_at = Timestamp::ZERO;
            let result_due = task.record.result_due;
            let adopted = task.record.mode == Mode::Adopted;
            match task.busy {
                Some(Busy::Reloading(_)) => self.reload_again(index),
                Some(Busy::Fetching) => {
                    if !self.calls_for(index) {
                        if let Some(task) = self.task_mut(index) {
                            task.busy = None;
                        }
                        self.drain(index);
                    }
                }
                Some(Busy::Committing(_)) => {}
                Some(Busy::Dropping) => task.busy = None,
                None if result_due => self.send_result(index),
                None if adopted => self.republish(index),
                None => self.line_up_again(index),
            }
        }
        let Some(task) = self.task(index) else { return };
        if task.busy.is_none() {
            let record = &task.record;
            let due = |at: Timestamp| !at.is_zero() && at <= now;
            let timed_out =
                record.timeout().is_some_and(|timeout| !record.assigned.is_zero() && due(record.assigned + timeout));
            let event = match record.phase {
                phase if phase.is_final() => {
                    if record.kept_until(retention) <= now && !record.result_due {
                        self.expire(index);
                    }
                    None
                }
                _ if due(record.deadline) => Some(Event::DeadlinePassed),
                Phase::Scheduled | Phase::BackingOff if due(record.wake) => Some(Event::Due),
                Phase::Assigned | Phase::Running if timed_out => Some(Event::TimedOut),
                Phase::Assigned | Phase::Running if due(task.lease_until) => {
                    (!self.presence_extends(index)).then_some(Event::LeaseExpired)
                }
                Phase::Queued if due(task.asker_until) => {
                    self.line_up(index);
                    None
                }
                Phase::Cancelling if due(task.cancel_until) => Some(Event::CancelOver),
                _ => None,
            };
            if let Some(event) = event {
                self.enqueue_event(index, event);
            }
        }
        self.arm(index);
    }

    fn calls_for(&self, index: u32) -> bool {
        self.calls.values().any(|outstanding| matches!(outstanding.call, Call::Payload { task, .. } if task == index))
    }

    /// A queued task that fell out of line because its assignment could not be stored.
    fn line_up_again(&mut self, index: u32) {
        if self.task(index).is_some_and(|task| task.record.phase == Phase::Queued && task.spot.is_none()) {
            self.line_up(index);
        }
    }

    /// Forgets a finished task, when nothing else has to happen first.
    fn expire(&mut self, index: u32) {
        if !self.drops_first(index) {
            self.forget_task(index);
        }
    }

    /// Forgets a finished task and all its keys.
    pub(super) fn forget_task(&mut self, index: u32) {
        let Some(task) = self.task(index) else { return };
        let record = task.record.clone();
        self.figures.gone(&record);
        self.remove_task(index);
        // Also one that a crash left behind when the task was requeued.
        if record.phase == Phase::Dead || record.forget || record.run > 1 {
            self.purge(&names::dead_letter_key(&record.queue, &record.id));
        }
        // The state goes last: as long as it is there, a restart takes this up again.
        for key in [names::payload_key(&record.id), names::result_key(&record.id), names::state_key(&record.id)] {
            self.purge(&key);
        }
    }
}
