//! INPUT and ANSWER: an agent asks its dispatcher, who hears of it by AWAIT or the task's events.

use bytes::Bytes;

use super::Desk;
use super::requests::error_headers_of;
use crate::client::Incoming;
use crate::coordinator::record::Record;
use crate::coordinator::task::Event;
use crate::coordinator::{errors, question};
use crate::types::ApiError;

impl Desk {
    /// Whether all questions and answers of a task fit in the headers of its delivery.
    ///
    /// # Errors
    /// [`errors::TOO_LARGE`].
    pub(super) fn fits(&self, next: Option<Record>) -> Result<Option<Record>, ApiError> {
        let limit = self.settings.questions_bytes_max;
        match &next {
            Some(record) if question::told(record.questions.iter()).len() > limit => {
                Err(errors::TOO_LARGE.with(format!("questions and answers of a task are at most {limit} bytes in all")))
            }
            _ => Ok(next),
        }
    }

    /// Answers those who wait for more than the end.
    pub(super) fn tell_waiters_of_question(&mut self, index: u32) {
        let Some(task) = self.task_mut(index) else { return };
        let told: Vec<Bytes> =
            task.waiters.extract_if(.., |waiter| !waiter.past_questions).map(|waiter| waiter.reply).collect();
        told.into_iter().for_each(|reply| self.answer_question(index, reply));
    }

    /// Answers an AWAIT of a task whose agent has asked: the record, with an error that says so.
    pub(super) fn answer_question(&mut self, index: u32, reply: Bytes) {
        let Some(task) = self.task(index) else { return };
        let error = errors::QUESTION.with(task.record.state.as_str());
        let headers = error_headers_of(&error, &task.record.header_lines());
        let mut shown = task.shown();
        shown["type"] = "io.natterjack.task.api.v1.await_response".into();
        shown["error"] = serde_json::to_value(&error).expect("an error is plain data");
        self.send_reply(reply, headers, Bytes::from(shown.to_string()));
    }
}

/// Reads `{question,state}`, or takes the whole body as the question; the header `Task-State` says what it asks for, too.
pub(super) fn ask_event(lease: String, message: &Incoming) -> Result<Event, ApiError> {
    #[derive(serde::Deserialize)]
    struct Body {
        question: String,
        #[serde(default)]
        state: Option<String>,
    }
    let body = message.payload();
    let (question, state) = match serde_json::from_slice::<Body>(body) {
        Ok(body) => (body.question, body.state),
        Err(_) => (text(body, "a question")?.to_owned(), None),
    };
    let auth = match message.headers().get_str("Task-State").or(state.as_deref()) {
        None | Some("input-required") => false,
        Some("auth-required") => true,
        Some(_) => return Err(errors::bad_request("a question's state is input-required or auth-required")),
    };
    if question.trim().is_empty() {
        return Err(errors::bad_request("INPUT without a question"));
    }
    Ok(Event::Ask { lease, auth, question })
}

/// The whole body is the answer; the header `Task-Question` may say to which question.
pub(super) fn answer_event(message: &Incoming) -> Result<Event, ApiError> {
    let number = match message.headers().get_str("Task-Question") {
        Some(number) => {
            Some(number.parse().map_err(|_| errors::bad_request("Task-Question is the number of a question"))?)
        }
        None => None,
    };
    Ok(Event::Answer { number, answer: text(message.payload(), "an answer")?.to_owned() })
}

fn text<'a>(body: &'a [u8], what: &str) -> Result<&'a str, ApiError> {
    std::str::from_utf8(body).map_err(|_| errors::bad_request(format!("{what} is text")))
}
