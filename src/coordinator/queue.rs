//! Queues: how their tasks reach agents, and their limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;

/// How a queue's tasks reach whoever does the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The scheduler assigns each task to one registered agent's own consumer.
    #[default]
    Inbox,
    /// All workers pull from one shared consumer, and an ack completes the task.
    Pull,
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
    /// Tasks not finished at once; 0 is no limit.
    pub max_queued: u32,
    /// Seconds a finished task is kept.
    pub retention_s: f64,
}

impl Default for QueueConfig {
    fn default() -> QueueConfig {
        QueueConfig {
            mode: Mode::Inbox,
            max_attempts: 4,
            backoff: vec![2.0, 10.0, 60.0],
            lease_s: 30.0,
            max_running: 0,
            max_queued: 0,
            retention_s: 7.0 * 86_400.0,
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
        if !(0.0..=3650.0 * 86_400.0).contains(&self.retention_s) {
            return Err("retention_s is between 0 and ten years".to_owned());
        }
        if self.backoff.len() > 32 {
            return Err("backoff has at most 32 steps".to_owned());
        }
        Backoff::from_seconds(&self.backoff).map(drop)
    }

    pub fn lease(&self) -> Duration {
        Duration::from_secs_f64(self.lease_s)
    }

    pub fn retention(&self) -> Duration {
        Duration::from_secs_f64(self.retention_s)
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
        check(r#"{"rate":5}"#, false);
    }
}
