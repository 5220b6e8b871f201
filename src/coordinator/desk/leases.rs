//! What keeps a lease when the task itself gives no sign, and who is told when one is taken away.

use bytes::Bytes;

use super::{Desk, Task};
use crate::coordinator::agent::{Agent, LeaseBy, Link, Status};
use crate::coordinator::record::Record;
use crate::coordinator::task::Event;

impl Desk {
    /// Whether a lease that is over goes on because its agent asked for that and is there; then it begins anew.
    pub(super) fn presence_extends(&mut self, index: u32) -> bool {
        let Some(task) = self.task(index).filter(|task| self.presence_holds(task)) else { return false };
        let until = self.now + self.queue_config(&task.record.queue).lease();
        if let Some(task) = self.task_mut(index) {
            task.lease_until = until;
        }
        true
    }

    /// Whether the agent that has a task keeps its leases by being there, and is.
    pub(super) fn presence_holds(&self, task: &Task) -> bool {
        let holder = task.holder.and_then(|holder| self.roster.get(holder));
        holder.is_some_and(|agent| agent.card.lease_by == LeaseBy::Presence && self.is_present(agent))
    }

    /// Whether an agent is there by what is known of it: its connection, its subscription, its beats. Within the grace it may
    /// come back, so it counts as there.
    fn is_present(&self, agent: &Agent) -> bool {
        agent.card.status != Status::Offline
            && match agent.link {
                Link::Connected | Link::Listening => true,
                Link::Gone(since) => self.now < since + self.settings.grace,
                Link::Unknown => agent.beats && self.now.since(agent.spoke) <= self.settings.beats_patience(),
            }
    }

    /// Asks an agent to stop what it does, and to say that it has.
    pub(super) fn ask_to_stop(&mut self, record: &Record) {
        let grace_s = self.settings.cancel_grace.as_secs_f64();
        self.tell_to_stop(record, &record.reason, grace_s);
    }

    /// Tells an agent that it does not have a task any more. `had` is the record of when it had it.
    pub(super) fn tell_of_loss(&mut self, had: &Record, reason: &str) {
        if had.mode.is_assigned() && (had.phase.is_leased() || had.phase.is_parked()) {
            self.tell_to_stop(had, reason, 0.0);
        }
    }

    fn tell_to_stop(&mut self, record: &Record, reason: &str, grace_s: f64) {
        let body = serde_json::json!({
            "op": "cancel", "task": record.id, "delivery": record.deliveries, "reason": reason, "grace_s": grace_s,
        });
        self.publish(format!("$TASK.X.{}", record.agent), "", Bytes::from(body.to_string()));
    }
}

/// Why an event takes a task from an agent that has not said anything.
pub(super) fn taken_for(event: &Event) -> Option<&'static str> {
    match event {
        Event::LeaseExpired => Some("lease expired"),
        Event::TimedOut => Some("timeout"),
        Event::DeadlinePassed => Some("deadline"),
        _ => None,
    }
}
