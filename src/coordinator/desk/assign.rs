//! Tasks in line, and slots: what the scheduler is told, and what follows from its decisions.

use std::cell::Cell;

use super::Desk;
use super::submit::class_of;
use crate::coordinator::record::Phase;
use crate::coordinator::task::Event;
use crate::types::Timestamp;

impl Desk {
    /// Puts a queued task in line for an agent.
    pub(super) fn line_up(&mut self, index: u32) {
        let Some(task) = self.tasks.get_mut(index as usize).and_then(Option::as_mut) else { return };
        task.asker_until = Timestamp::ZERO;
        let record = &task.record;
        if record.phase != Phase::Queued || !record.mode.is_assigned() {
            return;
        }
        if let Some(spot) = task.spot.take() {
            self.ready.remove(&spot);
        }
        let mut class = class_of(record);
        let mut lane = (record.priority, record.key.as_str());
        let mut since = record.waiting_since();
        let mut asker_until = Timestamp::ZERO;
        if let Some(question) = record.resumes() {
            // Before all that waits, and for a while only to the agent that asked.
            (lane.0, since) = (0, Timestamp::ZERO);
            let lease = self.queues.get(&record.queue).map_or(&self.default_queue, |queue| &queue.config).lease();
            asker_until = question.answered + lease;
            if asker_until > self.now {
                class.asker.clone_from(&question.agent);
            }
        }
        let spot = self.ready.push(&class, &self.roster, lane, since, index);
        task.spot = Some(Box::new(spot));
        if !class.asker.is_empty() {
            task.asker_until = asker_until;
        }
        self.schedule = true;
    }

    /// Puts all that wait in a queue in line anew, because its order has changed.
    pub(super) fn line_up_all(&mut self, queue: &str) {
        for index in 0..self.tasks.len() as u32 {
            if self.task(index).is_some_and(|task| task.spot.is_some() && task.record.queue == queue) {
                self.line_up(index);
            }
        }
    }

    /// Gives waiting tasks to free agents for as long as both are there.
    pub(super) fn assign_ready(&mut self) {
        if !std::mem::take(&mut self.schedule) {
            return;
        }
        self.next_token = None;
        self.ready.begin(&mut self.roster);
        loop {
            let Desk { ready, roster, queues, now, .. } = self;
            let late = Cell::new(None);
            let admits = |queue: &str| {
                let Some(queue) = queues.get(queue) else { return true };
                if let Some(token) = queue.next_token(*now) {
                    late.set(Some(late.get().map_or(token, |other: Timestamp| other.min(token))));
                }
                queue.admits(*now)
            };
            let decision = ready.next(roster, admits);
            if let Some(late) = late.get() {
                self.next_token = Some(self.next_token.map_or(late, |other| other.min(late)));
            }
            let Some((index, agent)) = decision else { return };
            let lease = self.random.token(12);
            if let Some(task) = self.task_mut(index) {
                task.spot = None;
            }
            let agent = self.reserve(agent, index);
            self.spend_token(index);
            self.enqueue_event(index, Event::Assign { agent, lease });
        }
    }

    /// Counts a new assignment against its queue's rate.
    pub(super) fn spend_token(&mut self, index: u32) {
        let now = self.now;
        let Some(queue) = self.task(index).map(|task| task.record.queue.clone()) else { return };
        let queue = self.queue_mut(&queue);
        queue.bucket.take(queue.config.rate, now);
    }

    /// Takes a slot of an agent for a task; returns the agent's id.
    pub(super) fn reserve(&mut self, agent: u32, index: u32) -> String {
        self.turn += 1;
        let (turn, now) = (self.turn, self.now);
        let holder = self.roster.get_mut(agent).expect("the scheduler chooses agents of the roster");
        holder.live.push(index);
        holder.last_turn = turn;
        holder.dirty = true;
        let id = holder.card.id.clone();
        let Some(task) = self.task_mut(index) else { return id };
        task.holder = Some(agent);
        let (queue, key) = (task.record.queue.clone(), task.record.key.clone());
        let sticky = task.record.sticky.clone();
        // After a restart it is an assignment of before.
        let since = task.record.had.as_ref().filter(|_| task.record.phase.is_leased()).map_or(now, |had| had.at);
        self.queue_mut(&queue).running += 1;
        self.ready.started(&queue, &key);
        self.ready.settle_home(&sticky, &id, since, &self.roster);
        id
    }

    /// Gives a task's slot back.
    pub(super) fn release(&mut self, index: u32) {
        let Some(task) = self.task_mut(index) else { return };
        let Some(holder) = task.holder.take() else { return };
        let (queue, key) = (task.record.queue.clone(), task.record.key.clone());
        let running = &mut self.queue_mut(&queue).running;
        *running = running.saturating_sub(1);
        self.ready.ended(&queue, &key);
        if let Some(agent) = self.roster.get_mut(holder) {
            agent.live.retain(|live| *live != index);
            agent.dirty = true;
            let draining = agent.card.draining;
            if draining {
                self.tell_if_drained(holder);
            }
        }
        self.schedule = true;
    }
}
