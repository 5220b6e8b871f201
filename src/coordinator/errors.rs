//! The one table of task API errors, as JetStream's: a class, a stable number, a description.

use std::borrow::Cow;

use crate::types::ApiError;

const fn entry(code: u16, err_code: u32, description: &'static str) -> ApiError {
    ApiError { code, err_code, description: Cow::Borrowed(description) }
}

pub const BAD_REQUEST: ApiError = entry(400, 30400, "bad request: {reason}");
pub const NOT_PERMITTED: ApiError = entry(403, 30403, "not permitted: {reason}");
pub const TASK_NOT_FOUND: ApiError = entry(404, 30404, "task not found");
pub const AGENT_NOT_FOUND: ApiError = entry(404, 30405, "agent not found");
pub const QUEUE_NOT_FOUND: ApiError = entry(404, 30406, "queue not found");
pub const CRON_NOT_FOUND: ApiError = entry(404, 30407, "cron not found");
pub const AWAIT_TIMEOUT: ApiError = entry(408, 30408, "the task did not finish in time");
pub const LEASE_LOST: ApiError = entry(409, 30409, "lease lost");
pub const ALREADY_FINISHED: ApiError = entry(409, 30410, "task already finished: {state}");
pub const SAME_ID_OTHER_BODY: ApiError = entry(409, 30411, "a task of this id has another body");
pub const NO_MATCHING_AGENT: ApiError = entry(412, 30412, "no registered agent can match");
pub const TOO_LARGE: ApiError = entry(413, 30413, "too large: {reason}");
pub const LETTER_NOT_FOUND: ApiError = entry(404, 30415, "dead letter not found");
pub const AGENT_IN_USE: ApiError = entry(409, 30414, "an agent of this id is alive");
/// Nobody has asked, or not this.
pub const NOT_ASKED: ApiError = entry(409, 30416, "no such question is open: {state}");
pub const PAUSED: ApiError = entry(423, 30423, "paused or draining");
pub const DEPENDENCY: ApiError = entry(424, 30424, "dependency: {reason}");
/// What AWAIT answers when an agent has asked.
pub const QUESTION: ApiError = entry(428, 30428, "the task waits for an answer: {state}");
pub const QUEUE_FULL: ApiError = entry(429, 30429, "queue is full");
pub const COUNCIL_NOT_FOUND: ApiError = entry(404, 30440, "council not found");
pub const SAME_COUNCIL_OTHER_TERMS: ApiError = entry(409, 30441, "a council of this name is there with another body");
/// The state could not be stored; nothing changed, or what changed is found by asking again.
pub const UNAVAILABLE: ApiError = entry(503, 30503, "cannot store: {reason}");
/// What AWAIT answers for a task that ended without a result.
pub const NOT_COMPLETED: ApiError = entry(424, 30425, "task {state}");

/// [`BAD_REQUEST`] with its reason.
pub fn bad_request(reason: impl std::fmt::Display) -> ApiError {
    BAD_REQUEST.with(reason)
}
