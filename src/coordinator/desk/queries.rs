//! GET, LIST and AWAIT.

use bytes::Bytes;
use serde_json::Value;

use super::calls::{Answer, Call};
use super::requests::{error_headers, error_headers_of};
use super::{Desk, Task, Waiter};
use crate::client::Incoming;
use crate::coordinator::question::Question;
use crate::coordinator::rare::Rare;
use crate::coordinator::record::{Phase, Record, State};
use crate::coordinator::{errors, names};
use crate::types::{ApiError, Headers, Timestamp};

const AWAIT_DEFAULT_S: f64 = 30.0;
const AWAIT_MAX_S: f64 = 3600.0;
const LIST_MAX: usize = 1000;

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Filter {
    queue: Option<String>,
    state: Option<String>,
    agent: Option<String>,
    parent: Option<String>,
    limit: Option<usize>,
    /// The id after which the page begins.
    after: Option<String>,
}

impl Task {
    /// The record without its lease: that is its agent's, and who has it may speak for the agent.
    pub(super) fn shown(&self) -> Value {
        let mut record = Record { lease: Rare::default(), ..self.view().into_owned() };
        record.completion.iter_mut().for_each(|done| done.lease.clear());
        record.questions = record.questions.iter().map(Question::shown).collect();
        let mut shown = serde_json::to_value(record).expect("a record is plain data");
        shown["revision"] = self.revision.into();
        shown
    }
}

impl Desk {
    pub(super) fn get(&mut self, id: &str, message: &Incoming) -> Result<(), ApiError> {
        let index = self.find_task(id)?;
        let task = self.task(index).filter(|task| task.revision > 0).ok_or(errors::TASK_NOT_FOUND)?;
        let shown = task.shown();
        self.respond(message, shown);
        Ok(())
    }

    /// Newest first.
    pub(super) fn list(&mut self, message: &Incoming) -> Result<(), ApiError> {
        let filter: Filter = match message.payload().trim_ascii() {
            [] => Filter::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        let state = match filter.state.as_deref() {
            Some(text) => Some(State::parse(text).ok_or_else(|| errors::bad_request("no such state"))?),
            None => None,
        };
        let matches = |record: &Record| {
            filter.queue.as_ref().is_none_or(|queue| record.queue == *queue)
                && filter.agent.as_ref().is_none_or(|agent| record.agent == *agent)
                && filter.parent.as_ref().is_none_or(|parent| record.parent == *parent)
                && state.is_none_or(|state| record.state == state)
        };
        let mut found: Vec<&Task> =
            self.tasks.iter().flatten().filter(|task| task.revision > 0 && matches(&task.view())).collect();
        found.sort_by(|a, b| (b.record.created, &b.record.id).cmp(&(a.record.created, &a.record.id)));
        let total = found.len();
        let start = match filter.after.as_deref() {
            Some(after) => match self.ids.get(after).and_then(|index| self.task(*index)) {
                Some(last) => {
                    let last = (last.record.created, &last.record.id);
                    found.partition_point(|task| (task.record.created, &task.record.id) >= last)
                }
                None => return Err(errors::bad_request("`after` names no task")),
            },
            None => 0,
        };
        let limit = filter.limit.unwrap_or(100).min(LIST_MAX);
        let page = self.page(found[start..].iter().map(|task| task.shown()), limit);
        let left = total - start - page.len();
        self.respond(message, serde_json::json!({ "tasks": page, "total": total, "left": left }));
        Ok(())
    }

    pub(super) fn await_task(&mut self, id: &str, message: &Incoming) -> Result<(), ApiError> {
        let index = self.find_task(id)?;
        if message.reply().is_empty() {
            return Err(errors::bad_request("AWAIT without a reply subject"));
        }
        let wait = match message.headers().get_str("Task-Wait") {
            Some(text) => names::seconds(text).ok_or_else(|| errors::bad_request("Task-Wait is a duration"))?,
            None => AWAIT_DEFAULT_S,
        };
        let until = self.now + crate::coordinator::seconds::duration(wait.min(AWAIT_MAX_S));
        let past_questions = match message.headers().get_str("Task-Await") {
            None | Some("question") => false,
            Some("end") => true,
            Some(_) => return Err(errors::bad_request("Task-Await is question or end")),
        };
        if self.task(index).is_some_and(|task| task.record.phase.is_final() && task.revision > 0) {
            self.answer_finished(index, message.reply_bytes());
        } else if !past_questions && self.task(index).is_some_and(|task| task.record.phase.is_parked()) {
            self.answer_question(index, message.reply_bytes());
        } else if let Some(task) = self.task_mut(index) {
            task.waiters.push(Waiter { reply: message.reply_bytes(), until, past_questions });
            self.arm(index);
        }
        Ok(())
    }

    /// Answers an AWAIT of a finished task: the result, or the record with an error.
    pub(super) fn answer_finished(&mut self, index: u32, reply: Bytes) {
        let Some(task) = self.task(index) else { return };
        if task.record.phase == Phase::Completed {
            match &task.result {
                Some(result) => {
                    let (headers, body) = (names::block(&result.lines), result.body.clone());
                    self.send_reply(reply, headers, body);
                }
                None => {
                    let (serial, key) = (task.serial, names::result_key(&task.record.id));
                    self.call_direct_get(Call::Result { task: index, serial, reply }, &key);
                }
            }
            return;
        }
        let error = errors::NOT_COMPLETED.with(task.record.state.as_str());
        let headers = error_headers_of(&error, &task.record.header_lines());
        let mut shown = task.shown();
        shown["type"] = "io.natterjack.task.api.v1.await_response".into();
        shown["error"] = serde_json::to_value(&error).expect("an error is plain data");
        self.send_reply(reply, headers, Bytes::from(shown.to_string()));
    }

    pub(super) fn result_answered(&mut self, index: u32, serial: u64, reply: Bytes, answer: Answer) {
        if self.same_task(index, serial).is_none() {
            return self.answer_error(reply, &errors::TASK_NOT_FOUND);
        }
        match super::answers::stored(&answer) {
            // The same headers as from memory: what JetStream put there for itself stays with it.
            Ok(Some(entry)) => {
                let lines = names::lines_without_jetstreams(Headers::new(&entry.headers));
                self.send_reply(reply, names::block(&lines), entry.payload);
            }
            Ok(None) => self.send_reply(reply, Vec::new(), Bytes::new()),
            Err(reason) => self.answer_error(reply, &errors::UNAVAILABLE.with(reason)),
        }
    }

    pub(super) fn answer_too_late(&mut self, reply: Bytes) {
        self.answer_error(reply, &errors::AWAIT_TIMEOUT);
    }

    pub(super) fn answer_error(&mut self, reply: Bytes, error: &ApiError) {
        let body = serde_json::json!({ "type": "io.natterjack.task.api.v1.await_response", "error": error });
        self.send_reply(reply, error_headers(error), Bytes::from(body.to_string()));
    }

    /// When the desk last heard anything; the service keeps its clock by it.
    pub fn now(&self) -> Timestamp {
        self.now
    }
}
