//! Queues: how their tasks reach agents, and their limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use super::names;
use super::scheduler::Order;
use super::seconds::{self, SECONDS_MAX};

/// How a queue's tasks reach whoever does the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The scheduler assigns each task to one registered agent's own consumer.
    #[default]
    Inbox,
    /// All workers pull from one shared consumer, and an ack completes the task.
    Pull,
    /// As inbox, and micro services (ADR-32) that say so are asked too: the request is the lease, the response completes.
    Service,
    /// A user's own stream and consumer; tasks are the messages that died there.
    Adopted,
}

impl Mode {
    /// Whether the scheduler gives each task to somebody.
    pub fn is_assigned(self) -> bool {
        matches!(self, Mode::Inbox | Mode::Service)
    }

    /// Whether workers help themselves from a consumer.
    pub fn is_pulled(self) -> bool {
        !self.is_assigned()
    }
}

/// A user's consumer, for a queue of mode adopted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    pub stream: String,
    pub consumer: String,
    /// The configuration names it: it is adopted for as long as that does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub configured: bool,
}

impl Adopt {
    /// Whether it is the same consumer, whoever adopted it.
    pub fn is(&self, other: &Adopt) -> bool {
        (&self.stream, &self.consumer) == (&other.stream, &other.consumer)
    }

    /// # Errors
    /// What is no name of a stream or consumer, in words.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |name: &String| {
            name.is_empty()
                || name.len() > 255
                || name.contains(|letter: char| letter.is_whitespace() || ".*>/\\".contains(letter))
        };
        let own = [names::STREAM, names::AGENTS_STREAM, names::PROGRESS_STREAM, names::ADVISORIES_STREAM];
        if own.contains(&&*self.stream) || self.stream.starts_with("KV_TASK_") {
            return Err("the coordinator's own streams cannot be adopted".to_owned());
        }
        match [&self.stream, &self.consumer].into_iter().find(|name| wrong(name)) {
            Some(name) => Err(format!("{name:?} is no name of a stream or consumer")),
            None => Ok(()),
        }
    }
}

/// A queue's settings as QUEUE.PUT takes them and `q.<queue>` keeps them. Absent fields have defaults; unknown ones are
/// refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    pub mode: Mode,
    /// Attempts before a task is dead.
    pub max_attempts: u32,
    /// Seconds before the second, third, ... attempt; the last repeats.
    pub backoff: Vec<f64>,
    /// Seconds a lease lasts without a sign of life.
    pub lease_s: f64,
    /// Tasks assigned or running at once; 0 is no limit.
    pub max_running: u32,
    /// Of these, tasks of one Task-Key; 0 is no limit.
    pub max_per_key: u32,
    /// Tasks assigned a second, with a burst of one second's worth; 0 is no limit.
    pub rate: f64,
    /// Tasks not finished at once; 0 is no limit.
    pub max_queued: u32,
    /// Seconds of waiting that a level of priority is worth; 0 is priority above all.
    pub ageing_s: f64,
    /// Seconds a finished task is kept.
    pub retention_s: f64,
    /// Whose dead messages are this queue's letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
    /// No task is handed out; QUEUE.PAUSE and RESUME set it, QUEUE.PUT leaves it.
    #[serde(skip_serializing_if = "Paused::is_no")]
    pub paused: Paused,
}

/// Whether a queue stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Paused {
    #[default]
    No,
    /// Tasks wait, new ones among them.
    Waiting,
    /// Tasks wait and new ones are refused.
    Refusing,
}

impl Paused {
    fn is_no(&self) -> bool {
        *self == Paused::No
    }
}

impl Default for QueueConfig {
    fn default() -> QueueConfig {
        QueueConfig {
            mode: Mode::Inbox,
            max_attempts: 4,
            backoff: vec![2.0, 10.0, 60.0],
            lease_s: 30.0,
            max_running: 0,
            max_per_key: 0,
            rate: 0.0,
            max_queued: 0,
            ageing_s: 60.0,
            retention_s: 7.0 * 86_400.0,
            adopt: None,
            paused: Paused::No,
        }
    }
}

impl QueueConfig {
    /// # Errors
    /// A sentence naming the field out of range.
    pub fn check(&self) -> Result<(), String> {
        if self.max_attempts == 0 || self.max_attempts > 1000 {
            return Err("max_attempts is between 1 and 1000".to_owned());
        }
        if !(0.05..=86_400.0).contains(&self.lease_s) {
            return Err("lease_s is between 0.05 and 86400".to_owned());
        }
        if !(0.0..=SECONDS_MAX).contains(&self.retention_s) {
            return Err("retention_s is between 0 and ten years".to_owned());
        }
        if !(0.0..=86_400.0).contains(&self.ageing_s) {
            return Err("ageing_s is between 0 and 86400".to_owned());
        }
        if self.rate != 0.0 && !(1e-4..=1e6).contains(&self.rate) {
            return Err("rate is 0 or between 0.0001 and a million tasks a second".to_owned());
        }
        if self.mode.is_pulled() && (self.rate > 0.0 || self.max_per_key > 0) {
            return Err(
                "rate and max_per_key are for queues of mode inbox and service; workers of a pull queue help themselves".to_owned()
            );
        }
        if (self.mode == Mode::Adopted) != self.adopt.is_some() {
            return Err("adopt is for queues of mode adopted, and they need it".to_owned());
        }
        self.adopt.as_ref().map_or(Ok(()), Adopt::check)?;
        if self.backoff.len() > 32 {
            return Err("backoff has at most 32 steps".to_owned());
        }
        Backoff::from_seconds(&self.backoff).map(drop)
    }

    pub fn lease(&self) -> Duration {
        seconds::duration(self.lease_s)
    }

    pub fn retention(&self) -> Duration {
        seconds::duration(self.retention_s)
    }

    /// How its waiting tasks are ordered and limited.
    pub fn order(&self) -> Order {
        Order { ageing: seconds::duration(self.ageing_s), max_per_key: self.max_per_key }
    }

    /// The pauses between attempts.
    pub fn pauses(&self) -> Backoff {
        Backoff::from_seconds(&self.backoff).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let check = |text: &str, fine: bool| {
            let outcome = serde_json::from_str::<QueueConfig>(text).map_err(|error| error.to_string());
            assert_eq!(outcome.and_then(|config| config.check()).is_ok(), fine, "{text}");
        };
        check("{}", true);
        check(r#"{"mode":"pull","max_attempts":3,"backoff":[1,2.5],"lease_s":0.5}"#, true);
        check(r#"{"mode":"push"}"#, false);
        check(r#"{"max_attempts":0}"#, false);
        check(r#"{"lease_s":-1}"#, false);
        check(r#"{"backoff":[-1]}"#, false);
        check(r#"{"rate":0.5,"max_per_key":1,"ageing_s":0}"#, true);
        check(r#"{"rate":-1}"#, false);
        check(r#"{"ageing_s":-1}"#, false);
        check(r#"{"mode":"pull","rate":5}"#, false);
        check(r#"{"mode":"pull","max_per_key":1}"#, false);
        check(r#"{"mode":"adopted","adopt":{"stream":"TASKS","consumer":"agent-consumer"}}"#, true);
        check(r#"{"mode":"adopted","adopt":{"stream":"KV_TASK","consumer":"agent_ann"}}"#, false);
        check(r#"{"mode":"adopted"}"#, false);
        check(r#"{"mode":"pull","adopt":{"stream":"TASKS","consumer":"c"}}"#, false);
        check(r#"{"mode":"adopted","adopt":{"stream":"TASKS.>","consumer":"c"}}"#, false);
        check(r#"{"mode":"adopted","adopt":{"stream":"TASKS"}}"#, false);
        check(r#"{"speed":5}"#, false);
    }
}
