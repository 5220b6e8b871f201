//! The desk's memory after a restart: everything from what the stream holds.

use super::Desk;
use super::agents::InfoPurpose;
use crate::coordinator::agent::{Agent, Card, Link, Status};
use crate::coordinator::queue::{Mode, QueueConfig};
use crate::coordinator::record::{Phase, Record};
use crate::coordinator::{names, seconds};
use crate::types::{Headers, Timestamp};

/// A message of the buckets as a restart reads it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub subject: &'a str,
    pub seq: u64,
    /// The raw header block.
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

impl Desk {
    /// Takes a state, queue or agent; rows that cannot be read are reported and left alone.
    pub fn restore(&mut self, row: Row<'_>) {
        self.seen_seq = self.seen_seq.max(row.seq);
        if names::is_marker(row.headers) {
            return;
        }
        let unreadable = |error: serde_json::Error| tracing::warn!(subject = row.subject, %error, "unreadable row");
        if let Some(key) = row.subject.strip_prefix("$KV.TASK_AGENTS.") {
            match serde_json::from_slice::<Card>(row.payload) {
                Ok(card) if card.id == key && self.roster.find(key).is_none() => {
                    let resume = Headers::new(row.headers).get_str("Task-Resume").unwrap_or_default().to_owned();
                    // Where it sits is for the councils to say.
                    let dirty = !card.seats.is_empty();
                    let card = Card { in_flight: 0, seats: Vec::new(), tasks_completed: card.completed, ..card };
                    let agent = Agent { card, resume, dirty, ..Agent::default() };
                    self.roster.insert(agent);
                }
                Ok(_) => {}
                Err(error) => unreadable(error),
            }
        } else if let Some(queue) = row.subject.strip_prefix("$KV.TASK.q.").and_then(|key| key.strip_suffix(".purge")) {
            match serde_json::from_slice(row.payload) {
                Ok(mark) => self.restore_mark(queue, mark, row.seq),
                Err(error) => unreadable(error),
            }
        } else if let Some(queue) = row.subject.strip_prefix("$KV.TASK.q.") {
            match serde_json::from_slice::<QueueConfig>(row.payload) {
                Ok(config) => self.take_config(queue, config),
                Err(error) => unreadable(error),
            }
        } else if let Some(key) = row.subject.strip_prefix("$KV.TASK.c.") {
            self.restore_cron(key, row);
        } else if row.subject.starts_with("$KV.TASK.s.") {
            match serde_json::from_slice::<Record>(row.payload) {
                Ok(record) if !self.ids.contains_key(&record.id) => {
                    self.insert_task(record, row.seq);
                }
                Ok(_) => {}
                Err(error) => unreadable(error),
            }
        }
    }

    /// Takes a row of the councils' bucket: first all councils, then the seats.
    pub fn restore_councils(&mut self, row: Row<'_>) {
        let Some(key) = row.subject.strip_prefix(names::COUNCILS_PREFIX) else { return };
        if key.contains('.') {
            if !names::is_marker(row.headers) {
                self.restore_seat(key, row.seq, row.payload);
            }
            return;
        }
        // The watch begins after the councils; seats may be told twice.
        self.councils.watch.seq = self.councils.watch.seq.max(row.seq);
        if !names::is_marker(row.headers) {
            self.restore_council(key, row.seq, row.payload);
        }
    }

    /// Takes an assignment, pull item or dead letter, after all states. One that no task stands behind is removed: whoever
    /// was to do that when the task went on has not lived to.
    pub fn restore_item(&mut self, subject: &str, seq: u64) {
        self.seen_seq = self.seen_seq.max(seq);
        let mut tokens = subject.strip_prefix("$KV.TASK.").unwrap_or_default().split('.');
        let (kind, owner, id) = (tokens.next(), tokens.next(), tokens.next());
        let (Some(kind), Some(owner), Some(id)) = (kind, owner, id) else { return };
        let index = self.ids.get(id).copied();
        let live = index.and_then(|index| self.task(index)).is_some_and(|task| {
            let record = &task.record;
            match kind {
                "a" => record.mode.is_assigned() && record.phase.is_leased() && record.agent == owner,
                "w" => {
                    record.mode == Mode::Pull
                        && record.queue == owner
                        && matches!(record.phase, Phase::Queued | Phase::Running)
                }
                "d" => record.phase == Phase::Dead && record.queue == owner,
                _ => false,
            }
        });
        if kind == "d" {
            if !live {
                self.purge(subject);
            }
            return;
        }
        match index.filter(|_| live) {
            Some(index) => {
                let older = self.task_mut(index).map_or(0, |task| std::mem::replace(&mut task.item, seq));
                self.items.remove(&older);
                self.items.insert(seq, index);
                if older > 0 {
                    self.delete_message(older);
                }
            }
            None => self.delete_message(seq),
        }
    }

    /// Takes up work after all rows: leases begin anew, since signs of life may have been missed; agents have the usual time
    /// to show themselves. One that was known by its connection lost that with the broker: until it is back it gets nothing
    /// new, and the grace decides what becomes of what it has.
    pub fn restored(&mut self, now: Timestamp) {
        self.now = now;
        let presence = self.settings.presence;
        for index in self.roster.indices() {
            let server_id = self.settings.server_id.clone();
            let Some(agent) = self.roster.get_mut(index) else { continue };
            let client_id = agent.card.client_id;
            // Client ids begin anew with each broker.
            if agent.card.server_id != server_id {
                agent.card.client_id = 0;
                agent.card.server_id.clear();
            }
            if agent.subject().is_some() {
                // Whether it is there still, it has to say; what it has, it may answer.
                agent.card.status = Status::Offline;
            } else if agent.card.status != Status::Offline {
                // It is not seen yet, but its silence counts from here.
                agent.watched = now;
                if presence && client_id > 0 {
                    agent.link = Link::Gone(now);
                } else if agent.card.listens {
                    // The first probe tells whether it still does.
                    agent.link = Link::Listening;
                }
            }
        }
        self.councils_restored();
        for index in 0..self.tasks.len() as u32 {
            self.remember(index);
            self.take_up(index);
        }
        let pulled: Vec<String> = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.stored && queue.config.mode == Mode::Pull)
            .map(|(name, _)| name.clone())
            .collect();
        for queue in pulled {
            self.ensure_queue_consumer(&queue);
        }
        for index in self.roster.indices() {
            if self.roster.get(index).is_some_and(|agent| !agent.live.is_empty()) {
                self.ask_agent(index, InfoPurpose::LookAfter);
            }
        }
        self.adopt_as_configured();
        self.take_up_marks();
        self.arm_crons();
        self.schedule = true;
    }

    /// What a task says of others: its token's home, and what it took of its queue's rate.
    fn remember(&mut self, index: u32) {
        let Some(record) = self.task(index).map(|task| task.record.clone()) else { return };
        if let Some(had) = &record.had {
            self.ready.settle_home(&record.sticky, &had.agent, had.at, &self.roster);
        }
        let rate = self.queue_config(&record.queue).rate;
        let recent = seconds::duration(if rate > 0.0 { 1.0 / rate.min(1.0) } else { 0.0 });
        if rate > 0.0 && self.now.since(record.assigned) < recent {
            self.queue_mut(&record.queue).bucket.take(rate, record.assigned);
        }
    }

    fn take_up(&mut self, index: u32) {
        let now = self.now;
        let Some(task) = self.task(index) else { return };
        let record = task.record.clone();
        self.figures.found(&record);
        self.know_origin(index);
        // A queue that nobody put is known as long as anything of it is there, finished or not.
        self.queue_mut(&record.queue).open += u32::from(!record.phase.is_final());
        let lease = self.queue_config(&record.queue).lease();
        let cancel_grace = self.settings.cancel_grace;
        if record.phase.is_leased() && record.mode.is_assigned() {
            let holder = self.roster.find(&record.agent);
            if let Some(holder) = holder {
                self.reserve(holder, index);
            }
            if let Some(task) = self.task_mut(index) {
                // An agent nobody knows has lost the task already.
                task.lease_until = if holder.is_some() { now + lease } else { now };
                task.cancel_until = now + cancel_grace;
                task.seen = record.phase == Phase::Running;
            }
            let asked =
                holder.and_then(|holder| self.roster.get(holder)).is_some_and(|agent| agent.subject().is_some());
            if let Some(task) = self.task_mut(index).filter(|_| asked) {
                // Its request may have been sent or not: the lease tells.
                task.seen = true;
                return self.arm(index);
            }
            if record.phase == Phase::Cancelling {
                self.ask_to_stop(&record);
            }
            let offline = holder
                .and_then(|holder| self.roster.get(holder))
                .is_none_or(|agent| agent.card.status == Status::Offline);
            if let Some(holder) = holder.filter(|_| offline) {
                self.ask_agent(holder, InfoPurpose::Lost(vec![(index, record.lease.clone().into())]));
            }
        } else if record.phase == Phase::Queued {
            self.republish(index);
            self.line_up(index);
        } else if record.phase == Phase::Blocked {
            self.block(index);
        }
        if record.result_due {
            self.send_result(index);
        }
        self.look_at_descendants(index, None);
        self.arm(index);
    }
}
