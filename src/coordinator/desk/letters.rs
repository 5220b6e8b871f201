//! DLQ.LIST, GET, REQUEUE and PURGE: the tasks that were given up. A dead letter is its task's last state, with the payload
//! beside it under `d.<queue>.<id>`. The queue is part of each subject, so that permissions can be given by queue.

use std::collections::VecDeque;

use serde_json::Value;

use super::calls::{Answer, Call};
use super::requests::clip;
use super::{Desk, Task};
use crate::client::Incoming;
use crate::coordinator::record::{Phase, Record};
use crate::coordinator::task::Event;
use crate::coordinator::{errors, names};
use crate::types::{ApiError, Headers};

const LIST_MAX: usize = 1000;

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    queue: Option<String>,
    limit: Option<usize>,
    /// The id after which the page begins.
    after: Option<String>,
}

/// What LIST tells of a dead letter.
fn shown(record: &Record) -> Value {
    let fault = record.fault.clone().unwrap_or_default();
    let mut shown = serde_json::json!({
        "id": record.id, "queue": record.queue, "reason": record.reason, "error": fault.error,
        "attempts": record.attempt, "run": record.run, "created": record.created, "failed": record.updated,
        "bytes": record.bytes,
    });
    if !fault.agent.is_empty() {
        shown["agent"] = fault.agent.into();
    }
    shown
}

impl Desk {
    /// Takes a request below `DLQ.`.
    pub(super) fn letters_request(&mut self, tail: &str, message: &Incoming) -> Result<(), ApiError> {
        let mut tokens = tail.split('.').skip(1);
        match (tokens.next().unwrap_or_default(), tokens.next(), tokens.next()) {
            ("LIST", queue, _) => self.list_letters(queue, message),
            ("GET", Some(queue), Some(id)) => self.get_letter(queue, id, message),
            ("REQUEUE", Some(queue), Some(id)) => self.requeue_letter(queue, id, message),
            ("REQUEUE", Some(queue), None) => {
                self.all_letters(queue, Event::Requeue { blocked: false }, "requeued", message)
            }
            ("PURGE", Some(queue), Some(id)) => {
                self.find_letter(queue, id)?;
                self.step_request(id, Event::Forget, message)
            }
            ("PURGE", Some(queue), None) => self.all_letters(queue, Event::Forget, "purged", message),
            _ => Err(errors::bad_request("no such endpoint")),
        }
    }

    /// The last that died first.
    fn list_letters(&mut self, queue: Option<&str>, message: &Incoming) -> Result<(), ApiError> {
        let filter: Filter = match message.payload().trim_ascii() {
            [] => Filter::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        if queue.is_some() && filter.queue.as_deref().is_some_and(|named| queue != Some(named)) {
            return Err(errors::bad_request("the subject and the body name two queues"));
        }
        let queue = queue.or(filter.queue.as_deref());
        let is_one = |task: &&Task| {
            let record = &task.record;
            record.phase == Phase::Dead && task.revision > 0 && queue.is_none_or(|queue| record.queue == queue)
        };
        let mut found: Vec<&Record> = self.tasks.iter().flatten().filter(is_one).map(|task| &task.record).collect();
        found.sort_by(|a, b| (b.updated, &b.id).cmp(&(a.updated, &a.id)));
        let start = match filter.after.as_deref() {
            Some(after) => match found.iter().position(|record| record.id == after) {
                Some(at) => at + 1,
                None => return Err(errors::bad_request("`after` names no dead letter")),
            },
            None => 0,
        };
        let total = found.len();
        let limit = filter.limit.unwrap_or(100).min(LIST_MAX);
        let page = self.page(found[start..].iter().map(|record| shown(record)), limit);
        let left = total - start - page.len();
        self.respond(message, serde_json::json!({ "letters": page, "total": total, "left": left }));
        Ok(())
    }

    /// The task of that id in that queue, if it is dead.
    fn find_letter(&self, queue: &str, id: &str) -> Result<u32, ApiError> {
        let index = self.find_task(id)?;
        let is_one = |task: &Task| task.record.queue == queue && task.record.phase == Phase::Dead && task.revision > 0;
        self.task(index).filter(|task| is_one(task)).map(|_| index).ok_or(errors::LETTER_NOT_FOUND)
    }

    fn get_letter(&mut self, queue: &str, id: &str, message: &Incoming) -> Result<(), ApiError> {
        self.find_letter(queue, id)?;
        self.call_direct_get(Call::Letter { request: message.clone() }, &names::dead_letter_key(queue, id));
        Ok(())
    }

    pub(super) fn letter_answered(&mut self, request: &Incoming, answer: Answer) {
        match super::answers::stored(&answer) {
            Ok(Some(entry)) => {
                let lines = names::lines_without_jetstreams(Headers::new(&entry.headers));
                self.send_reply(request.reply_bytes(), names::block(&lines), entry.payload);
            }
            Ok(None) => self.refuse(request, errors::LETTER_NOT_FOUND),
            Err(reason) => self.refuse(request, errors::UNAVAILABLE.with(clip(&reason))),
        }
    }

    /// One that has been requeued already is answered as if it were now: whoever lost an answer may ask again.
    fn requeue_letter(&mut self, queue: &str, id: &str, message: &Incoming) -> Result<(), ApiError> {
        let index = self.find_task(id)?;
        let requeued = |task: &&Task| task.record.queue == queue && task.record.run > 1 && !task.record.forget;
        if self.task(index).filter(requeued).is_some_and(|task| task.record.phase != Phase::Dead) {
            self.respond_state(index, message, None);
            return Ok(());
        }
        self.find_letter(queue, id)?;
        self.step_request(id, Event::Requeue { blocked: false }, message)
    }

    fn all_letters(
        &mut self,
        queue: &str,
        event: Event,
        verb: &'static str,
        message: &Incoming,
    ) -> Result<(), ApiError> {
        if !self.queues.contains_key(queue) {
            return Err(errors::QUEUE_NOT_FOUND);
        }
        let is_one = |index: &u32| {
            let task = self.task(*index)?;
            (task.record.queue == queue && task.record.phase == Phase::Dead).then_some((*index, task.serial))
        };
        let left: VecDeque<_> = (0..self.tasks.len() as u32).filter_map(|index| is_one(&index)).collect();
        self.begin_purge(message, event, verb, left);
        Ok(())
    }
}
