//! Task-After: tasks that wait for others to be completed.

use hashbrown::HashMap;

use super::Desk;
use crate::client::Incoming;
use crate::coordinator::errors;
use crate::coordinator::record::{Phase, Record};
use crate::coordinator::task::Event;
use crate::types::{ApiError, Timestamp};

/// Requests held at once.
const HELD_MAX: usize = 10_000;

/// SUBMITs of tasks that come after one that is not stored yet, as when nobody waited for its answer.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By the id of the task that is not stored.
    requests: HashMap<String, Vec<Incoming>>,
    /// Their own ids, which others may name.
    ids: HashMap<String, u32>,
    count: usize,
}

/// Where a task's dependencies are, all in all.
enum Outlook {
    /// All are completed.
    Met,
    Open,
    /// One will not be completed; what became of it.
    Hopeless(String),
}

impl Desk {
    /// What a task that is not known any more was, `forgotten` tells: completed or not.
    fn outlook(&self, after: &[String], forgotten: Phase) -> Outlook {
        let mut open = false;
        for id in after {
            let Some(phase) = self.find_task(id).ok().and_then(|index| Some(self.task(index)?.record.phase)) else {
                if forgotten != Phase::Completed {
                    return Outlook::Hopeless(format!("{id} is not known any more, nor that it was completed"));
                }
                continue;
            };
            if phase.is_final() && phase != Phase::Completed {
                return Outlook::Hopeless(format!("{id} {}", phase.state().as_str()));
            }
            open |= !phase.is_final();
        }
        if open { Outlook::Open } else { Outlook::Met }
    }

    /// Whether a task that is to run now must wait for its dependencies.
    ///
    /// # Errors
    /// When one of them will not be completed, or is forgotten and not known to have been.
    pub(super) fn must_wait(&self, record: &Record) -> Result<bool, ApiError> {
        // A record from before this was kept has been queued if they were.
        let met = record.met || !record.queued.is_zero();
        match self.outlook(&record.after, if met { Phase::Completed } else { Phase::Dead }) {
            Outlook::Met => Ok(false),
            Outlook::Open => Ok(true),
            Outlook::Hopeless(fate) => Err(errors::DEPENDENCY.with(fate)),
        }
    }

    /// Blocks a new task if it has to wait. Returns false when one of its dependencies is itself not stored yet: the request
    /// is looked at again once that is known.
    ///
    /// # Errors
    /// When one is unknown or will not be completed.
    pub(super) fn check_after(&mut self, record: &mut Record, message: &Incoming) -> Result<bool, ApiError> {
        if record.after.is_empty() {
            return Ok(true);
        }
        let unknown = |id: &&String| !self.ids.contains_key(*id) && !self.held.ids.contains_key(*id);
        let unknown: Vec<&str> = record.after.iter().filter(unknown).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(errors::DEPENDENCY.with(format!("no task {}", unknown.join(", "))));
        }
        let stored = |id: &String| {
            self.find_task(id).ok().and_then(|index| self.task(index)).is_some_and(|task| task.revision > 0)
        };
        if let Some(id) = record.after.iter().find(|id| !stored(id)) {
            if self.held.count >= HELD_MAX {
                return Err(errors::UNAVAILABLE.with("too many tasks wait for others to be stored"));
            }
            self.held.count += 1;
            self.held.requests.entry(id.clone()).or_default().push(message.clone());
            if let Some(own) = message.headers().get_str("Task-Id") {
                *self.held.ids.entry_ref(own).or_default() += 1;
            }
            return Ok(false);
        }
        if self.must_wait(record)? {
            record.set_phase(Phase::Blocked);
            record.queued = Timestamp::ZERO;
        } else {
            record.met = true;
        }
        Ok(true)
    }

    /// Takes up requests that waited for a task to be stored, or not to be.
    pub(super) fn take_held(&mut self, id: &str) {
        if self.held.count == 0 {
            return;
        }
        let mut settled = vec![id.to_owned()];
        while let Some(id) = settled.pop() {
            for message in self.held.requests.remove(&id).unwrap_or_default() {
                self.held.count -= 1;
                let own = message.headers().get_str("Task-Id");
                if let Some(own) = own
                    && let Some(count) = self.held.ids.get_mut(own)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.held.ids.remove(own);
                    }
                }
                if let Err(error) = self.submit(&message) {
                    self.refuse(&message, error);
                    // Those who wait for it wait in vain, unless another one of its id is there.
                    settled.extend(own.filter(|own| !self.held.ids.contains_key(*own)).map(str::to_owned));
                }
            }
        }
    }

    /// Has a blocked task wait for its dependencies, as far as they are open.
    pub(super) fn block(&mut self, index: u32) {
        let Some(after) = self.task(index).map(|task| task.record.after.clone()) else { return };
        // Had one that is forgotten failed, so would have this task.
        match self.outlook(&after, Phase::Completed) {
            Outlook::Met => self.enqueue_event(index, Event::Unblocked),
            Outlook::Hopeless(fate) => self.enqueue_event(index, Event::DependencyFailed { fate }),
            Outlook::Open => {
                for id in after {
                    let open = |index| self.task(index).is_some_and(|task| !task.record.phase.is_final());
                    if self.find_task(&id).is_ok_and(open) {
                        self.dependents.entry(id).or_default().insert(index);
                    }
                }
            }
        }
    }

    /// A blocked task is blocked no more, or gone.
    pub(super) fn unblock(&mut self, index: u32, after: &[String]) {
        for id in after {
            if let Some(dependents) = self.dependents.get_mut(id) {
                dependents.remove(&index);
                if dependents.is_empty() {
                    self.dependents.remove(id);
                }
            }
        }
    }

    /// A task is finished: looks after those that wait for it.
    pub(super) fn release_dependents(&mut self, id: &str) {
        for index in self.dependents.remove(id).unwrap_or_default() {
            self.block(index);
        }
    }
}
