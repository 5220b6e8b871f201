//! The task record: what `s.<id>` holds and GET answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::question::Question;
use super::queue::Mode;
use super::rare::Rare;
use super::seconds;
use crate::types::{Timestamp, is_default};

/// A2A's names for where a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    #[default]
    Submitted,
    Working,
    /// An agent has asked its dispatcher something.
    InputRequired,
    /// An agent has asked for an authorization.
    AuthRequired,
    Completed,
    Failed,
    Canceled,
    Rejected,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Submitted => "submitted",
            State::Working => "working",
            State::InputRequired => "input-required",
            State::AuthRequired => "auth-required",
            State::Completed => "completed",
            State::Failed => "failed",
            State::Canceled => "canceled",
            State::Rejected => "rejected",
        }
    }

    pub fn parse(text: &str) -> Option<State> {
        let known = [
            State::Submitted,
            State::Working,
            State::InputRequired,
            State::AuthRequired,
            State::Completed,
            State::Failed,
            State::Canceled,
            State::Rejected,
        ];
        known.into_iter().find(|state| state.as_str() == text)
    }

    pub fn is_final(self) -> bool {
        matches!(self, State::Completed | State::Failed | State::Canceled | State::Rejected)
    }
}

/// Our detail of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Waits for an agent, or in a pull queue for a worker.
    #[default]
    Queued,
    /// Waits for its Task-Not-Before.
    Scheduled,
    /// Waits for the tasks of its Task-After.
    Blocked,
    /// Failed and waits for the next attempt.
    BackingOff,
    /// Given to an agent that has not been seen to have it.
    Assigned,
    /// An agent works on it.
    Running,
    /// Waits for the answer to an agent's question.
    InputRequired,
    /// Waits for an authorization that an agent asked for.
    AuthRequired,
    /// An agent was told to stop.
    Cancelling,
    Completed,
    /// Given up; a dead letter holds the payload and the error.
    Dead,
    Canceled,
    /// Every agent that matched declined.
    Rejected,
}

impl Phase {
    pub fn state(self) -> State {
        match self {
            Phase::Queued | Phase::Scheduled | Phase::Blocked | Phase::BackingOff | Phase::Assigned => State::Submitted,
            Phase::Running | Phase::Cancelling => State::Working,
            Phase::InputRequired => State::InputRequired,
            Phase::AuthRequired => State::AuthRequired,
            Phase::Completed => State::Completed,
            Phase::Dead => State::Failed,
            Phase::Canceled => State::Canceled,
            Phase::Rejected => State::Rejected,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Scheduled => "scheduled",
            Phase::Blocked => "blocked",
            Phase::BackingOff => "backing-off",
            Phase::Assigned => "assigned",
            Phase::Running => "running",
            Phase::InputRequired => "input-required",
            Phase::AuthRequired => "auth-required",
            Phase::Cancelling => "cancelling",
            Phase::Completed => "completed",
            Phase::Dead => "dead",
            Phase::Canceled => "canceled",
            Phase::Rejected => "rejected",
        }
    }

    /// Whether an agent holds a lease on the task, and with it a slot.
    pub fn is_leased(self) -> bool {
        matches!(self, Phase::Assigned | Phase::Running | Phase::Cancelling)
    }

    /// Whether a question is open: the lease is still its agent's, but takes no slot and does not run out.
    pub fn is_parked(self) -> bool {
        matches!(self, Phase::InputRequired | Phase::AuthRequired)
    }

    pub fn is_final(self) -> bool {
        self.state().is_final()
    }
}

/// How the last attempt that did not complete ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fault {
    pub error: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent: String,
    pub attempt: u32,
    pub at: Timestamp,
}

/// The accepted completion, so that the same one again is recognized.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    pub lease: String,
    /// Digest of the result's body.
    pub digest: String,
}

/// Whether a cancel of the task is one of its descendants too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Descendants {
    /// They go on.
    #[default]
    Apart,
    /// They are being canceled.
    Due,
    /// The same, without asking their agents.
    Forced,
    /// They are canceled, and there are to be no more.
    Done,
}

/// The message of an adopted stream that a task stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    pub stream: String,
    pub subject: String,
    /// Its sequence; 0 while it is still to be published again.
    pub seq: u64,
    /// The sequence it had before it was requeued.
    #[serde(skip_serializing_if = "is_default")]
    pub was: u64,
    /// Its payload was gone before it could be copied.
    #[serde(skip_serializing_if = "is_default")]
    pub lost: bool,
}

impl Descendants {
    pub fn are_due(self) -> bool {
        matches!(self, Descendants::Due | Descendants::Forced)
    }
}

/// Which agent got a task, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Had {
    pub agent: String,
    pub at: Timestamp,
}

/// A task as it is stored. Everything the coordinator must know after a restart is here, of all that are finished and kept, too:
/// so what few of them have takes little room where it is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub id: String,
    pub queue: String,
    pub state: State,
    pub phase: Phase,
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Which run of the task; each REQUEUE begins another.
    pub run: u32,
    /// Attempts begun in this run.
    pub attempt: u32,
    pub max_attempts: u32,
    pub priority: u8,
    #[serde(skip_serializing_if = "is_default")]
    pub key: Rare<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub requires: Rare<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub prefer: Rare<String>,
    /// Its Task-Sticky token.
    #[serde(skip_serializing_if = "is_default")]
    pub sticky: Rare<String>,
    /// Only the token's home may have it.
    #[serde(skip_serializing_if = "is_default")]
    pub hard: bool,
    /// The last assignment of a task with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub had: Option<Box<Had>>,
    /// The tasks that must be completed before it may run.
    #[serde(skip_serializing_if = "is_default")]
    pub after: Rare<Vec<String>>,
    /// They were all completed when last looked at, which holds when they are forgotten.
    #[serde(skip_serializing_if = "is_default")]
    pub met: bool,
    /// Seconds between attempts, when the task brings its own.
    #[serde(skip_serializing_if = "is_default")]
    pub backoff: Rare<Vec<f64>>,
    pub created: Timestamp,
    pub updated: Timestamp,
    /// Since when a queued task waits; an assignment that came to nothing does not change it.
    #[serde(skip_serializing_if = "is_default")]
    pub queued: Timestamp,
    /// Until when a scheduled or backing-off task waits.
    #[serde(skip_serializing_if = "is_default")]
    pub wake: Timestamp,
    /// When the task is given up, whatever it does.
    #[serde(skip_serializing_if = "is_default")]
    pub deadline: Timestamp,
    /// Seconds one attempt may take; 0 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_s: f64,
    /// When the present attempt was assigned.
    #[serde(skip_serializing_if = "is_default")]
    pub assigned: Timestamp,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent: String,
    #[serde(skip_serializing_if = "is_default")]
    pub lease: Rare<String>,
    /// What agents asked in this run.
    #[serde(skip_serializing_if = "is_default")]
    pub questions: Rare<Vec<Question>>,
    /// Agents that declined in this run.
    #[serde(skip_serializing_if = "is_default")]
    pub excluded: Rare<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub result_to: Rare<String>,
    /// Whether the result still has to be sent to `result_to`.
    #[serde(skip_serializing_if = "is_default")]
    pub result_due: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub parent: Rare<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub descendants: Descendants,
    /// The submitter's own headers, `Name: value` each.
    #[serde(skip_serializing_if = "is_default")]
    pub headers: Rare<Vec<String>>,
    /// How often the task was given to an agent, in all runs.
    #[serde(skip_serializing_if = "is_default")]
    pub deliveries: u32,
    /// The number of this change of the record; the first is 1.
    #[serde(skip_serializing_if = "is_default")]
    pub change: u64,
    /// Digest of the submitted body.
    pub digest: String,
    pub bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Box<Fault>>,
    #[serde(skip_serializing_if = "is_default")]
    pub reason: Rare<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion: Option<Box<Completion>>,
    /// Its dead letter was purged: nothing of it is kept any longer.
    #[serde(skip_serializing_if = "is_default")]
    pub forget: bool,
    /// Attempts that ended before the present item of a pull queue was put there: the item counts its own deliveries.
    #[serde(skip_serializing_if = "is_default")]
    pub attempts_before: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
}

impl Record {
    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
        self.state = phase.state();
    }

    /// Since when it waits for an agent, if it does.
    pub fn waiting_since(&self) -> Timestamp {
        if self.queued.is_zero() { self.updated } else { self.queued }
    }

    /// When a finished task may go, in a queue that keeps them for `retention`.
    pub fn kept_until(&self, retention: Duration) -> Timestamp {
        self.updated + if self.forget { Duration::ZERO } else { retention }
    }

    /// The submitter's own headers as lines of a block.
    pub fn header_lines(&self) -> String {
        self.headers.iter().fold(String::new(), |lines, line| lines + line + "\r\n")
    }

    pub fn timeout(&self) -> Option<Duration> {
        (self.timeout_s > 0.0).then(|| seconds::duration(self.timeout_s))
    }
}

/// A digest that tells bodies apart by accident, not against malice: FNV-1a of 64 bits, and the length.
pub fn digest(body: &[u8]) -> String {
    let hash = body
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}-{:x}", body.len())
}

/// Whether `text` may name a task, agent or queue: one token of `[A-Za-z0-9_-]`, 1 to 64 long.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_stay_small() {
        let mut record = Record { id: "t1".into(), queue: "q".into(), run: 1, ..Record::default() };
        record.set_phase(Phase::Running);
        record.deadline = Timestamp(1_795_262_562_000_000_000);
        record.excluded = vec!["a".into()].into();
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert!(text.contains(r#""state":"working","phase":"running""#), "{text}");
        assert!(!text.contains("parent"), "{text}");
    }

    #[test]
    fn ids() {
        let long = "x".repeat(64);
        let too_long = "x".repeat(65);
        for (text, fine) in
            [("a-B_9", true), (&long, true), (&too_long, false), ("", false), ("a.b", false), ("é", false)]
        {
            assert_eq!(is_id(text), fine, "{text}");
        }
    }
}
