//! What is looked after now and then: agents' presence, deliveries not seen yet, spent assignments, late calls.

use std::time::Duration;

use super::Desk;
use super::agents::InfoPurpose;
use super::answers::ConsumerState;
use super::calls::{Answer, Call};
use crate::coordinator::agent::{Link, Status};
use crate::coordinator::names;
use crate::coordinator::queue::Mode;
use crate::coordinator::record::Phase;
use crate::coordinator::task::Event;

/// How long an agent that let an assignment lie may pull without its being noticed.
const STALLED_PAUSE: Duration = Duration::from_secs(1);

impl Desk {
    pub(super) fn sweep(&mut self) {
        self.expire_calls();
        self.probe_agents();
        self.discover_services();
        self.release_early();
        for index in self.roster.indices() {
            self.look_after(index);
        }
        self.look_after_pull_queues();
        self.look_after_adopted();
        self.retry_removals();
        // What was refused for want of something may be possible now.
        self.schedule = true;
    }

    fn look_after(&mut self, index: u32) {
        let now = self.now;
        let grace = self.settings.grace;
        let patience = self.settings.beats_patience();
        let Some(agent) = self.roster.get(index) else { return };
        let silent = now.since(agent.last_heard());
        let offline = agent.card.status == Status::Offline;
        let mute = agent.beats && now.since(agent.spoke) > patience;
        match agent.link {
            Link::Gone(since) if !offline && since + grace <= now => return self.lose(index, "its connection ended"),
            // A process that hangs keeps its connection.
            _ if mute && !offline => return self.lose(index, "three heartbeats missed"),
            // Leases speak for an agent that works; one that idles shows itself by pulling.
            Link::Unknown if !offline && silent > patience && agent.live.is_empty() => {
                self.ask_agent(index, InfoPurpose::LookAfter);
            }
            Link::Unknown if offline && silent > self.settings.heartbeat && agent.ask_at <= now => {
                // Its pulls would show that it is back. Who stays away is asked ever more seldom.
                let pause = (agent.ask_pause * 2).clamp(self.settings.sweep, self.settings.heartbeat);
                if let Some(agent) = self.roster.get_mut(index) {
                    agent.ask_pause = pause;
                    agent.ask_at = now + pause;
                }
                self.ask_agent(index, InfoPurpose::LookAfter);
            }
            _ => {}
        }
        self.look_for_pulls(index);
        if offline && self.expire_agent(index) {
            return;
        }
        let Some(agent) = self.roster.get(index) else { return };
        let dirty = agent.dirty;
        let patient = self.settings.sweep;
        let waiting: Vec<(u32, bool)> = agent
            .live
            .iter()
            .filter_map(|live| {
                let task = self.task(*live)?;
                let old = task.record.phase == Phase::Assigned
                    && task.busy.is_none()
                    && task.record.assigned + patient <= now;
                old.then_some((*live, task.seen))
            })
            .collect();
        if waiting.iter().any(|(_, seen)| !seen) {
            self.ask_agent(index, InfoPurpose::LookAfter);
        }
        for (task, _) in waiting.into_iter().filter(|(_, seen)| *seen) {
            self.enqueue_event(task, Event::Delivered);
        }
        self.flush_spent(index);
        if dirty {
            self.store_card(index);
        }
    }

    /// Whether an agent that let an assignment lie pulls by now: nobody else would tell.
    fn look_for_pulls(&mut self, index: u32) {
        let (now, sweep) = (self.now, self.settings.sweep);
        let Some(agent) = self.roster.get_mut(index) else { return };
        if !agent.stalled || agent.card.status == Status::Offline || agent.ask_at > now {
            return;
        }
        agent.ask_pause = (agent.ask_pause * 2).clamp(sweep, STALLED_PAUSE.max(sweep));
        agent.ask_at = now + agent.ask_pause;
        self.ask_agent(index, InfoPurpose::LookAfter);
    }

    /// An agent's consumer tells what was delivered and whether somebody pulls.
    pub(super) fn looked_after(&mut self, index: u32, state: ConsumerState) {
        let now = self.now;
        let patience = self.settings.beats_patience();
        if state.waiting > 0 {
            self.speaks(index, true);
        }
        let Some(agent) = self.roster.get_mut(index) else { return };
        let before = agent.delivered.replace(state.delivered_seq);
        if state.waiting > 0 || before.is_some_and(|before| before < state.delivered_seq) {
            self.fetches(index);
        }
        let Some(agent) = self.roster.get(index) else { return };
        let gone = agent.card.status != Status::Offline
            && agent.link == Link::Unknown
            && agent.live.is_empty()
            && now.since(agent.last_heard()) > patience;
        if gone {
            return self.lose(index, "it neither pulls nor beats");
        }
        let mut lying = false;
        for live in agent.live.clone() {
            let accept_timeout = self.settings.accept_timeout;
            let Some(task) = self.task_mut(live) else { continue };
            if task.record.phase != Phase::Assigned || task.busy.is_some() || task.item == 0 {
                continue;
            }
            if task.item <= state.delivered_seq {
                task.seen = true;
                self.enqueue_event(live, Event::Delivered);
            } else if task.record.assigned + accept_timeout <= now {
                lying = true;
                self.enqueue_event(live, Event::AcceptTimeout);
            }
        }
        if let Some(agent) = self.roster.get_mut(index).filter(|_| lying) {
            agent.stalled = true;
        }
    }

    /// An ack that was lost with a connection or a restart leaves its mark in the consumer: everything at or below the ack
    /// floor is done. What was delivered, is not pending and lies above the floor was delivered too often.
    /// What is delivered and not done is worked on.
    fn look_after_pull_queues(&mut self) {
        let pulled: Vec<String> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.config.mode == Mode::Pull && queue.open > 0 && !queue.asked)
            .map(|(name, _)| name.clone())
            .collect();
        for queue in pulled {
            self.queue_mut(&queue).asked = true;
            let api = format!("CONSUMER.INFO.{}.{}", names::STREAM, names::queue_consumer(&queue));
            self.call_api(Call::QueueInfo { queue }, &api, &serde_json::Value::Null);
        }
    }

    pub(super) fn queue_info_answered(&mut self, queue: &str, answer: Answer) {
        self.queue_mut(queue).asked = false;
        let Ok(info) = super::answers::json(&answer) else { return };
        let state = ConsumerState::read(&info);
        let floor = state.ack_floor_seq;
        let given_up = if state.ack_pending == 0 && state.pending == 0 { state.delivered_seq } else { 0 };
        let patient = self.settings.sweep * 2;
        let now = self.now;
        let mut done = Vec::new();
        let mut delivered = Vec::new();
        for (seq, index) in &self.items {
            let Some(task) = self.task(*index).filter(|_| *seq <= state.delivered_seq) else { continue };
            let record = &task.record;
            let known = record.queue == queue && record.mode == Mode::Pull && task.item == *seq && task.busy.is_none();
            // A live ack is on its way; give it the time to arrive.
            if !known || record.updated + patient > now {
                continue;
            }
            if *seq <= floor.max(given_up) {
                done.push(*index);
            } else if record.phase == Phase::Queued {
                delivered.push(*index);
            }
        }
        let deliveries = self.queue_config(queue).max_attempts;
        // How they ended may be told by advisories that nobody has read yet.
        let told = self.adoptions.are_told();
        for index in done.into_iter().filter(|_| told) {
            let Some(task) = self.task_mut(index) else { continue };
            if std::mem::replace(&mut task.seen, true) {
                let acked = task.item <= floor;
                let gone = Event::DeliveriesUsed { deliveries };
                self.enqueue_event(index, if acked { Event::PullAcked { delivery: 0 } } else { gone });
            }
        }
        for index in delivered {
            self.enqueue_event(index, Event::PullDelivered { delivery: 1, refused: false });
        }
    }
}
