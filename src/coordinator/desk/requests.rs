//! The doors of `$TASK.API.>`: which request is whose, and how it is answered.

use bytes::Bytes;
use serde_json::Value;

use super::questions::{answer_event, ask_event};
use super::{Desk, Input, Output};
use crate::client::Incoming;
use crate::coordinator::record::Descendants;
use crate::coordinator::task::Event;
use crate::coordinator::{errors, names, record, seconds};
use crate::types::header::HeaderBuilder;
use crate::types::{ApiError, Timestamp};

/// The endpoints in the order of their statistics: name, subject below `$TASK.API.`.
pub const VERBS: &[(&str, &str)] = &[
    ("SUBMIT", "SUBMIT"),
    ("GET", "GET.*"),
    ("LIST", "LIST"),
    ("AWAIT", "AWAIT.*"),
    ("COMPLETE", "COMPLETE.*.*"),
    ("FAIL", "FAIL.*.*"),
    ("DECLINE", "DECLINE.*.*"),
    ("INPUT", "INPUT.*.*"),
    ("ANSWER", "ANSWER.*"),
    ("HISTORY", "HISTORY.*"),
    ("EXPLAIN", "EXPLAIN.*"),
    ("CANCEL", "CANCEL.*"),
    ("REQUEUE", "REQUEUE.*"),
    ("AGENT-REGISTER", "AGENT.REGISTER.*"),
    ("AGENT-INFO", "AGENT.INFO.*"),
    ("AGENT-LIST", "AGENT.LIST"),
    ("AGENT-DRAIN", "AGENT.DRAIN.*"),
    ("AGENT-REMOVE", "AGENT.REMOVE.*"),
    ("QUEUE-PUT", "QUEUE.PUT.*"),
    ("QUEUE-INFO", "QUEUE.INFO.*"),
    ("QUEUE-LIST", "QUEUE.LIST"),
    ("QUEUE-PAUSE", "QUEUE.PAUSE.*"),
    ("QUEUE-RESUME", "QUEUE.RESUME.*"),
    ("QUEUE-PURGE", "QUEUE.PURGE.*"),
    ("CRON-PUT", "CRON.PUT.*"),
    ("CRON-RM", "CRON.RM.*"),
    ("CRON-LIST", "CRON.LIST"),
    ("DLQ-LIST", "DLQ.LIST"),
    ("DLQ-LIST-QUEUE", "DLQ.LIST.*"),
    ("DLQ-GET", "DLQ.GET.*.*"),
    ("DLQ-REQUEUE", "DLQ.REQUEUE.*.*"),
    ("DLQ-REQUEUE-QUEUE", "DLQ.REQUEUE.*"),
    ("DLQ-PURGE", "DLQ.PURGE.*.*"),
    ("DLQ-PURGE-QUEUE", "DLQ.PURGE.*"),
    ("COUNCIL-FORM", "COUNCIL.FORM.*"),
    ("COUNCIL-INFO", "COUNCIL.INFO.*"),
    ("COUNCIL-LIST", "COUNCIL.LIST"),
    ("COUNCIL-DISSOLVE", "COUNCIL.DISSOLVE.*"),
];

/// What `$SRV.STATS` tells of an endpoint.
#[derive(Clone, Debug, Default)]
pub struct VerbStats {
    pub requests: u64,
    pub errors: u64,
    pub last_error: String,
    pub processing_ns: u64,
}

fn verb_index(tail: &str) -> Option<usize> {
    VERBS.iter().position(|(_, subject)| crate::types::subject::matches(subject.as_bytes(), tail.as_bytes()))
}

/// Whether a request is one of those before which the buckets must exist.
pub fn needs_assets(tail: &str) -> bool {
    let prefixes = ["AGENT.REGISTER.", "QUEUE.PUT.", "CRON.PUT.", "COUNCIL.FORM."];
    tail == "SUBMIT" || prefixes.iter().any(|prefix| tail.starts_with(prefix))
}

impl Desk {
    /// Takes a request below `$TASK.API.`.
    pub fn request(&mut self, message: Incoming, now: Timestamp) {
        self.now = now;
        let subject = message.subject_str().to_owned();
        // An answer is published with the coordinator's rights: it must not become a request to JetStream, a key or a task.
        if message.reply().starts_with(b"$") {
            tracing::warn!(subject, reply = %message.reply().escape_ascii(), "a request wants its answer below $: ignored");
            return;
        }
        let tail = subject.strip_prefix(names::API).unwrap_or_default();
        match verb_index(tail) {
            Some(verb) => self.verbs[verb].requests += 1,
            None => return self.refuse(&message, errors::bad_request("no such endpoint")),
        }
        let mut tokens = tail.split('.');
        let mut token = || tokens.next().unwrap_or_default();
        let outcome = match token() {
            "SUBMIT" => self.submit(&message),
            "GET" => self.get(token(), &message),
            "LIST" => self.list(&message),
            "AWAIT" => self.await_task(token(), &message),
            "COMPLETE" => {
                let (id, lease) = (token(), token().to_owned());
                self.check_result(&message)
                    .and_then(|digest| self.step_request(id, Event::Complete { lease, digest }, &message))
            }
            "FAIL" => {
                let (id, lease) = (token(), token().to_owned());
                fail_event(lease, message.payload()).and_then(|event| self.step_request(id, event, &message))
            }
            "DECLINE" => {
                let (id, lease) = (token(), token().to_owned());
                self.step_request(id, Event::Decline { lease, others: true }, &message)
            }
            "INPUT" => {
                let (id, lease) = (token(), token().to_owned());
                ask_event(lease, &message).and_then(|event| self.step_request(id, event, &message))
            }
            "ANSWER" => {
                let id = token();
                answer_event(&message).and_then(|event| self.step_request(id, event, &message))
            }
            "HISTORY" => self.history(token(), &message),
            "EXPLAIN" => self.explain(token(), &message),
            "CANCEL" => {
                let id = token();
                cancel_event(message.payload()).and_then(|event| self.step_request(id, event, &message))
            }
            "REQUEUE" => self.step_request(token(), Event::Requeue { blocked: false }, &message),
            "AGENT" => match token() {
                "REGISTER" => self.agent_register(token(), &message),
                "INFO" => self.agent_info(token(), &message),
                "LIST" => self.agent_list(&message),
                "DRAIN" => self.agent_drain(token(), &message),
                _ => self.agent_remove(token(), &message),
            },
            "COUNCIL" => match token() {
                "FORM" => self.council_form(token(), &message),
                "INFO" => self.council_info(token(), &message),
                "LIST" => self.council_list(&message),
                _ => self.council_dissolve(token(), &message),
            },
            "CRON" => match token() {
                "PUT" => self.cron_put(token(), &message),
                "RM" => self.cron_remove(token(), &message),
                _ => self.cron_list(&message),
            },
            "DLQ" => self.letters_request(tail, &message),
            _ => match token() {
                "PUT" => self.queue_put(token(), &message),
                "INFO" => self.queue_info(token(), &message),
                "PAUSE" => self.queue_pause(token(), &message),
                "RESUME" => self.queue_resume(token(), &message),
                "PURGE" => self.queue_purge(token(), &message),
                _ => self.queue_list(&message),
            },
        };
        if let Err(error) = outcome {
            self.refuse(&message, error);
        }
    }

    pub(super) fn step_request(&mut self, id: &str, event: Event, message: &Incoming) -> Result<(), ApiError> {
        let index = self.find_task(id)?;
        self.enqueue(index, Input { event, from: Some(message.clone()), purge: None });
        Ok(())
    }

    /// The digest of a result.
    ///
    /// # Errors
    /// When it is larger than what is kept, now and at every other try.
    pub(super) fn check_result(&self, message: &Incoming) -> Result<String, ApiError> {
        let limits = [
            ("result", message.payload().len(), self.settings.body_bytes_max),
            ("result's headers", message.header_block().len(), self.settings.questions_bytes_max),
        ];
        match limits.into_iter().find(|(_, bytes, limit)| bytes > limit) {
            Some((what, _, limit)) => Err(errors::TOO_LARGE.with(format!("the {what} is above {limit} bytes"))),
            None => Ok(record::digest(message.payload())),
        }
    }

    pub(super) fn find_task(&self, id: &str) -> Result<u32, ApiError> {
        self.ids.get(id).copied().ok_or(errors::TASK_NOT_FOUND)
    }

    /// Answers with an error, in headers and body.
    pub(super) fn refuse(&mut self, message: &Incoming, error: ApiError) {
        let kind = kind_of(message);
        if let Some(verb) = verb_index(message.subject_str().strip_prefix(names::API).unwrap_or_default()) {
            self.verbs[verb].errors += 1;
            self.verbs[verb].last_error = format!("{}:{}", error.code, error.description);
        }
        let body = serde_json::json!({ "type": kind, "error": error });
        self.send_reply(message.reply_bytes(), error_headers(&error), Bytes::from(body.to_string()));
    }

    /// Refuses a request because there is nothing to store it in.
    pub fn refuse_unstored(&mut self, message: &Incoming, reason: &str) {
        self.refuse(message, errors::UNAVAILABLE.with(clip(reason)));
    }

    /// Answers with `fields`, to which the response's type is added.
    pub(super) fn respond(&mut self, message: &Incoming, mut fields: Value) {
        if message.reply().is_empty() {
            return;
        }
        fields["type"] = kind_of(message).into();
        self.send_reply(message.reply_bytes(), Vec::new(), Bytes::from(fields.to_string()));
    }

    pub(super) fn send_reply(&mut self, reply: Bytes, headers: Vec<u8>, payload: Bytes) {
        if !reply.is_empty() {
            self.outputs.push(Output::Publish { subject: reply, call: None, headers, payload });
        }
    }

    /// Answers a step with where the task is now.
    pub(super) fn respond_state(&mut self, index: u32, message: &Incoming, duplicate: Option<bool>) {
        if message.reply().is_empty() {
            return;
        }
        let Some(task) = self.task(index) else { return };
        let record = task.view();
        let duplicate = duplicate.map(|duplicate| format!(r#","duplicate":{duplicate}"#)).unwrap_or_default();
        // Written by hand because it is the answer of every step; ids hold nothing that needs escaping.
        let body = format!(
            r#"{{"type":"{}","id":"{}","state":"{}","phase":"{}"{duplicate},"revision":{}}}"#,
            kind_of(message),
            record.id,
            record.state.as_str(),
            record.phase.as_str(),
            task.revision
        );
        self.send_reply(message.reply_bytes(), Vec::new(), Bytes::from(body));
    }

    /// The endpoints' counters, in the order of [`VERBS`].
    pub fn verb_stats(&self) -> &[VerbStats] {
        &self.verbs
    }

    /// Adds time spent on requests of a subject below `$TASK.API.`.
    pub fn note_processing(&mut self, tail: &str, nanos: u64) {
        if let Some(verb) = verb_index(tail) {
            self.verbs[verb].processing_ns += nanos;
        }
    }
}

pub(super) fn error_headers(error: &ApiError) -> Vec<u8> {
    HeaderBuilder::new()
        .add("Nats-Service-Error", &error.description)
        .add("Nats-Service-Error-Code", error.code)
        .build()
}

/// [`error_headers`] with a task's own header lines.
pub(super) fn error_headers_of(error: &ApiError, lines: &str) -> Vec<u8> {
    let ApiError { code, description, .. } = error;
    names::block(&format!("Nats-Service-Error: {description}\r\nNats-Service-Error-Code: {code}\r\n{lines}"))
}

fn kind_of(message: &Incoming) -> String {
    let tail = message.subject_str().strip_prefix(names::API).unwrap_or_default();
    let mut tokens = tail.split('.');
    let mut verb = tokens.next().unwrap_or_default().to_ascii_lowercase();
    if matches!(verb.as_str(), "agent" | "queue" | "cron" | "dlq" | "council") {
        verb = format!("{verb}_{}", tokens.next().unwrap_or_default().to_ascii_lowercase());
    }
    format!("io.natterjack.task.api.v1.{verb}_response")
}

/// Reads `{error,retry,delay_ms}`, or takes the whole body as the error's text.
fn fail_event(lease: String, body: &[u8]) -> Result<Event, ApiError> {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        error: String,
        retry: Option<bool>,
        delay_ms: Option<f64>,
    }
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(body) = serde_json::from_slice::<Body>(body)
    {
        let delay = body.delay_ms.map(|delay| seconds::pause(delay / 1e3));
        return Ok(Event::Fail { lease, error: clip(&body.error), retry: body.retry.unwrap_or(true), delay });
    }
    Ok(Event::Fail { lease, error: clip(&String::from_utf8_lossy(body)), retry: true, delay: None })
}

fn cancel_event(body: &[u8]) -> Result<Event, ApiError> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Body {
        reason: String,
        force: bool,
        children: bool,
    }
    let body = match body.trim_ascii() {
        [] => Body::default(),
        text => serde_json::from_slice(text).map_err(errors::bad_request)?,
    };
    let descendants = match (body.children, body.force) {
        (false, _) => Descendants::Apart,
        (true, false) => Descendants::Due,
        (true, true) => Descendants::Forced,
    };
    Ok(Event::Cancel { reason: clip(&body.reason), force: body.force, descendants })
}

/// Errors and reasons are kept in records, so they are bounded.
pub(super) fn clip(text: &str) -> String {
    let mut end = text.len().min(2048);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
