//! What a coordinator counts, for monitoring: plain values that it hands out now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use super::agent::Status;
use super::record::{Phase, Record};
use super::task::Event;

/// Queues counted by themselves; further ones are counted together, as `*`, which is no queue's name.
const QUEUES_MAX: usize = 100;
/// The upper bounds of a histogram's buckets in seconds; there is one more for what took longer.
pub const SECONDS: [f64; 11] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0];

/// Where a task can be. An agent may have shown that it has a task before that is stored: both are leased.
pub const PHASES: [&str; 12] = [
    "queued",
    "scheduled",
    "blocked",
    "backing-off",
    "leased",
    "input-required",
    "auth-required",
    "cancelling",
    "completed",
    "dead",
    "canceled",
    "rejected",
];
/// Where the final phases begin in [`PHASES`].
const FINAL: usize = 8;
/// How a lease can be lost.
pub const LOSSES: [&str; 4] = ["expired", "agent-lost", "timeout", "not-accepted"];
pub const STATUSES: [&str; 3] = ["online", "draining", "offline"];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub queues: BTreeMap<String, QueueFigures>,
    /// Registered agents, as in [`STATUSES`].
    pub agents: [u64; STATUSES.len()],
}

/// A queue's tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueFigures {
    /// Tasks there are, as in [`PHASES`].
    pub tasks: [u64; PHASES.len()],
    pub submitted: u64,
    /// As in [`LOSSES`].
    pub leases_lost: [u64; LOSSES.len()],
    /// How often tasks came to be where they are, as in [`PHASES`].
    entered: [u64; PHASES.len()],
    /// From submission to completion.
    pub durations: Histogram,
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// By the least bound in [`SECONDS`] that holds; the last for those beyond all of them.
    counts: [u64; SECONDS.len() + 1],
    pub sum: Duration,
}

impl Histogram {
    fn note(&mut self, took: Duration) {
        let at = SECONDS.partition_point(|bound| *bound < took.as_secs_f64());
        self.counts[at] += 1;
        self.sum += took;
    }

    /// How many took at most so many seconds.
    pub fn cumulative(&self) -> Vec<(f64, u64)> {
        let mut sum = 0;
        let bounds = SECONDS.iter().zip(self.counts);
        bounds
            .map(|(bound, count)| {
                (*bound, {
                    sum += count;
                    sum
                })
            })
            .collect()
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl QueueFigures {
    /// Tasks that came to an end, by phase.
    pub fn ended(&self) -> impl Iterator<Item = (&'static str, u64)> {
        PHASES.into_iter().zip(self.entered).skip(FINAL)
    }
}

fn place(phase: Phase) -> usize {
    match phase {
        Phase::Queued => 0,
        Phase::Scheduled => 1,
        Phase::Blocked => 2,
        Phase::BackingOff => 3,
        Phase::Assigned | Phase::Running => 4,
        Phase::InputRequired => 5,
        Phase::AuthRequired => 6,
        Phase::Cancelling => 7,
        Phase::Completed => 8,
        Phase::Dead => 9,
        Phase::Canceled => 10,
        Phase::Rejected => 11,
    }
}

impl Figures {
    /// The counters of one life go on in the next; what there is now is counted anew.
    pub(super) fn begin_anew(&self) -> Figures {
        let mut figures = Figures { agents: Default::default(), ..self.clone() };
        figures.queues.values_mut().for_each(|queue| queue.tasks = Default::default());
        figures
    }

    fn queue(&mut self, name: &str) -> &mut QueueFigures {
        let known = self.queues.contains_key(name) || self.queues.len() < QUEUES_MAX;
        self.queues.entry(if known { name } else { "*" }.to_owned()).or_default()
    }

    /// A task that was there when the coordinator began.
    pub(super) fn found(&mut self, record: &Record) {
        self.queue(&record.queue).tasks[place(record.phase)] += 1;
    }

    /// A task's record is now `record`, and was `before`.
    pub(super) fn moved(&mut self, before: Option<Phase>, record: &Record) {
        let queue = self.queue(&record.queue);
        let now = place(record.phase);
        queue.tasks[now] += 1;
        match before.map(place) {
            None => queue.submitted += 1,
            Some(was) => queue.tasks[was] = queue.tasks[was].saturating_sub(1),
        }
        if before != Some(record.phase) {
            queue.entered[now] += 1;
            if record.phase == Phase::Completed {
                queue.durations.note(record.updated.since(record.created));
            }
        }
    }

    /// A finished task is forgotten.
    pub(super) fn gone(&mut self, record: &Record) {
        let count = &mut self.queue(&record.queue).tasks[place(record.phase)];
        *count = count.saturating_sub(1);
    }

    /// An event has taken place for a task that was leased.
    pub(super) fn lost(&mut self, queue: &str, event: &Event) {
        let loss = match event {
            Event::LeaseExpired => 0,
            Event::AgentLost => 1,
            Event::TimedOut => 2,
            Event::AcceptTimeout => 3,
            _ => return,
        };
        self.queue(queue).leases_lost[loss] += 1;
    }

    pub(super) fn count_agents(&mut self, statuses: impl Iterator<Item = Status>) {
        statuses.for_each(|status| self.agents[status as usize] += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn record(queue: &str, phase: Phase, seconds: i64) -> Record {
        let mut record = Record { queue: queue.to_owned(), ..Record::default() };
        record.set_phase(phase);
        record.updated = Timestamp(seconds * 1_000_000_000);
        record
    }

    #[test]
    fn a_life_is_counted() {
        let mut figures = Figures::default();
        figures.moved(None, &record("q", Phase::Queued, 0));
        figures.moved(Some(Phase::Queued), &record("q", Phase::Assigned, 0));
        figures.lost("q", &Event::LeaseExpired);
        figures.moved(Some(Phase::Assigned), &record("q", Phase::Dead, 3));
        figures.moved(Some(Phase::Dead), &record("q", Phase::Queued, 4));
        figures.moved(Some(Phase::Queued), &record("q", Phase::Running, 4));
        figures.moved(Some(Phase::Running), &record("q", Phase::Completed, 7));
        let queue = &figures.queues["q"];
        assert_eq!((queue.submitted, queue.tasks), (1, [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]));
        assert_eq!(queue.leases_lost, [1, 0, 0, 0]);
        let ended: Vec<_> = queue.ended().collect();
        assert_eq!(ended, [("completed", 1), ("dead", 1), ("canceled", 0), ("rejected", 0)]);
        assert_eq!((queue.durations.count(), queue.durations.sum), (1, Duration::from_secs(7)));
        let at_most: Vec<u64> = queue.durations.cumulative().into_iter().map(|(_, count)| count).collect();
        assert_eq!(at_most, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
        let next = figures.begin_anew();
        assert_eq!((next.queues["q"].submitted, next.queues["q"].tasks), (1, [0; 12]));
        figures.gone(&record("q", Phase::Completed, 7));
        assert_eq!(figures.queues["q"].tasks, [0; 12]);
    }

    #[test]
    fn queues_beyond_the_bound_are_one() {
        let mut figures = Figures::default();
        for at in 0..10_000 {
            figures.moved(None, &record(&format!("q{at}"), Phase::Queued, 0));
        }
        assert_eq!(figures.queues.len(), QUEUES_MAX + 1);
        assert_eq!(figures.queues["*"].submitted, 9_900);
    }
}
