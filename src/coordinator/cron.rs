//! Crons: tasks that are submitted again and again, in ADR-51's words for when.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{errors, names, record};
use crate::types::{ApiError, Headers, Schedule, Timestamp};

/// Room for a dash and the time in a task's id of 64.
const NAME_MAX: usize = 64 - 17;

/// When a cron is due and was: what `c.<name>.next` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// Zero when it never is again.
    pub next: Timestamp,
    pub last: Timestamp,
    /// The task of the last time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_task: String,
}

/// A cron.
#[derive(Clone, Debug)]
pub struct Cron {
    pub schedule: Schedule,
    /// The headers it was put with, as lines.
    pub lines: String,
    pub body: Bytes,
    pub times: Times,
}

impl Cron {
    /// From the headers and body of CRON.PUT, or of `c.<name>`.
    ///
    /// # Errors
    /// What is wrong with the name or the headers that make it a cron; those of its tasks are not looked at.
    pub fn read(name: &str, headers: Headers<'_>, body: Bytes, now: Timestamp) -> Result<Cron, ApiError> {
        if !record::is_id(name) || name.len() > NAME_MAX {
            let text = format!("a cron's name is one token of A-Z a-z 0-9 _ -, up to {NAME_MAX}");
            return Err(errors::bad_request(text));
        }
        for name in ["Task-Id", "Task-After"] {
            if headers.get(name).is_some() {
                return Err(errors::bad_request(format!("a cron has no {name}")));
            }
        }
        let zone = headers.get("Task-Schedule-Time-Zone");
        let schedule = Schedule::parse(headers.get("Task-Schedule"), zone)
            .map_err(|error| errors::bad_request(error.description))?
            .ok_or_else(|| {
                errors::bad_request("Task-Schedule is @at <time>, @every <duration>, @daily or six cron fields")
            })?;
        let next = schedule.next(now).unwrap_or(Timestamp::ZERO);
        let times = Times { next, ..Times::default() };
        Ok(Cron { schedule, lines: names::lines_without_jetstreams(headers), body, times })
    }

    /// Whether both submit the same at the same times.
    pub fn is_same(&self, other: &Cron) -> bool {
        self.lines == other.lines && self.body == other.body
    }

    /// The id of the task that is due next: the same whoever submits it, and however often.
    pub fn task_id(&self, name: &str) -> String {
        let time = self.times.next.to_rfc3339();
        let seconds = time.split(['.', 'Z']).next().unwrap_or_default();
        format!("{name}-{}Z", seconds.replace(['-', ':'], ""))
    }

    /// Its times once the task that is due is submitted. Times missed meanwhile are not made up for.
    pub fn fired(&self, name: &str, now: Timestamp) -> Times {
        let at = self.times.next;
        let next = if self.schedule.repeats() { self.schedule.next_from(at, now) } else { None };
        Times { next: next.unwrap_or(Timestamp::ZERO), last: at, last_task: self.task_id(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn read(name: &str, lines: &str) -> Result<Cron, ApiError> {
        let block = names::block(lines);
        Cron::read(name, Headers::new(&block), Bytes::new(), at("2026-11-21T12:00:00.7Z"))
    }

    #[test]
    fn one_time_after_another() {
        let mut cron = read("nightly", "Task-Schedule: @daily\r\nTask-Queue: q\r\n").unwrap();
        assert_eq!(cron.times.next, at("2026-11-22T00:00:00Z"));
        assert_eq!(cron.task_id("nightly"), "nightly-20261122T000000Z");
        cron.times = cron.fired("nightly", at("2026-11-22T00:00:00.01Z"));
        assert_eq!((cron.times.next, cron.times.last), (at("2026-11-23T00:00:00Z"), at("2026-11-22T00:00:00Z")));
        // Three are missed; the next is in the future.
        cron.times = cron.fired("nightly", at("2026-11-26T12:00:00Z"));
        assert_eq!((cron.times.next, cron.times.last), (at("2026-11-27T00:00:00Z"), at("2026-11-23T00:00:00Z")));
        assert_eq!(cron.times.last_task, "nightly-20261123T000000Z");
        let once = read("once", "Task-Schedule: @at 2026-11-21T12:00:05.5Z\r\n").unwrap();
        assert_eq!(once.task_id("once"), "once-20261121T120005Z");
        assert_eq!(once.fired("once", at("2026-11-21T12:00:06Z")).next, Timestamp::ZERO);
    }

    #[test]
    fn refusals() {
        for (name, lines) in [
            ("a.b", "Task-Schedule: @daily\r\n"),
            (&"x".repeat(48), "Task-Schedule: @daily\r\n"),
            ("c", ""),
            ("c", "Task-Schedule: sometimes\r\n"),
            ("c", "Task-Schedule: @every 10ms\r\n"),
            ("c", "Task-Schedule: @daily\r\nTask-Schedule-Time-Zone: Mars\r\n"),
            ("c", "Task-Schedule: @daily\r\nTask-Id: x\r\n"),
        ] {
            assert_eq!(read(name, lines).map(drop).map_err(|error| error.err_code), Err(30400), "{name} {lines}");
        }
    }
}
