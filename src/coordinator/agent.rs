//! Agents: the card each one registers with, and the roster of what the coordinator knows of them.

use std::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::labels::Labels;
use super::scheduler::AgentSet;
use crate::types::{Timestamp, is_default};

/// Whether an agent gets work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Online,
    /// Finishes what it has and gets nothing new.
    Draining,
    #[default]
    Offline,
}

/// What extends the leases of an agent's tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseBy {
    /// Signs of work on the task itself: `+WPI`, chunks of progress.
    #[default]
    Work,
    /// That the agent is there.
    Presence,
}

/// What `TASK_AGENTS.<id>` holds and AGENT.INFO answers. Fields an agent registers beyond these are kept as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    pub id: String,
    pub status: Status,
    pub labels: Labels,
    /// The seats it has as a member of councils, `<council>.<role>.<n>`; tasks find it by them as by labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<String>,
    pub slots: u32,
    /// The queues it serves; `*` is all.
    pub queues: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub lease_by: LeaseBy,
    /// Which life of the agent this is; each REGISTER without the resume token begins another.
    pub instance: String,
    /// Its connection's client id, as INFO told it, when it said so.
    #[serde(skip_serializing_if = "is_default")]
    pub client_id: u64,
    /// The server that gave that id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_id: String,
    /// Its connection's name; the agent's id unless it said otherwise.
    pub client_name: String,
    /// Whether it has been seen to subscribe to its own subject.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub listens: bool,
    /// What it is when it is no agent that registered, but a micro service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro: Option<Micro>,
    /// Told to drain: while it is there its status says so, and when it comes back it does so still.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    pub registered: Timestamp,
    pub last_seen: Timestamp,
    pub in_flight: u32,
    /// Of its whole life, whatever the instance.
    pub completed: u64,
    /// The same, under the name that other registries give it.
    pub tasks_completed: u64,
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// The instances of a micro service behind one subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Micro {
    pub service: String,
    pub subject: String,
    pub instances: u32,
}

impl Card {
    /// Its status as long as it is there.
    pub fn status_if_there(&self) -> Status {
        if self.draining { Status::Draining } else { Status::Online }
    }
}

/// What is known of an agent's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// No connection event names it: heartbeats, pulls and acks are its signs of life.
    #[default]
    Unknown,
    Connected,
    /// Somebody subscribes to its own subject.
    Listening,
    /// Its connection ended then; the grace runs.
    Gone(Timestamp),
}

/// An agent at run time.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    pub card: Card,
    /// Shown only to the agent itself: who has it may take the leases over.
    pub resume: String,
    pub link: Link,
    /// It registered over another connection than it has now, which is known by its name only.
    pub renewed: bool,
    /// Whether it ever sent a heartbeat; then three missed ones end it, connected or not.
    pub beats: bool,
    /// When it was heard of last by what it does itself: a beat, an ack, a pull.
    pub spoke: Timestamp,
    /// It let an assignment lie; nothing new until it fetches.
    pub stalled: bool,
    /// The newest sequence that its consumer was seen to have delivered.
    pub delivered: Option<u64>,
    /// Tasks that hold one of its slots.
    pub live: Vec<u32>,
    /// Stream sequences of assignments that are over and still stored.
    pub spent: Vec<u64>,
    /// A consumer info of it is under way.
    pub asked: bool,
    /// When its consumer may be asked again, and how long the pause after that: it grows while it is offline.
    pub ask_at: Timestamp,
    pub ask_pause: Duration,
    /// Since when it is looked after; before that nobody heard it.
    pub watched: Timestamp,
    /// Counts assignments, to take turns among equals.
    pub last_turn: u64,
    /// The stored card is behind.
    pub dirty: bool,
    /// It is in the roster's list of those to look at again.
    pub touched: bool,
}

impl Agent {
    /// Since when it is silent, as far as anybody listened.
    pub fn last_heard(&self) -> Timestamp {
        self.card.last_seen.max(self.watched)
    }

    pub fn free_slots(&self) -> u32 {
        if self.card.status != Status::Online || self.stalled || matches!(self.link, Link::Gone(_)) {
            return 0;
        }
        self.card.slots.saturating_sub(self.live.len() as u32)
    }

    /// Where it takes requests, if it is a micro service.
    pub fn subject(&self) -> Option<&str> {
        self.card.micro.as_ref().map(|micro| &*micro.subject)
    }

    pub fn serves(&self, queue: &str) -> bool {
        self.card.queues.iter().any(|served| served == queue || served == "*")
    }
}

/// All agents, by a small number each.
#[derive(Debug, Default)]
pub struct Roster {
    agents: Vec<Option<Agent>>,
    by_id: HashMap<String, u32>,
    /// Agents with a free slot, but for those `touched` since.
    free: AgentSet,
    touched: Vec<u32>,
    /// Agents whose cards are new, others or gone, for the scheduler to take.
    recast: Vec<u32>,
}

impl Roster {
    /// The agents with a free slot, as of now.
    pub fn free(&mut self) -> &AgentSet {
        for index in self.touched.drain(..) {
            let agent = self.agents.get_mut(index as usize).and_then(Option::as_mut);
            let free = agent.is_some_and(|agent| {
                agent.touched = false;
                agent.free_slots() > 0
            });
            self.free.set(index, free);
        }
        &self.free
    }

    /// As [`Roster::free`] told last.
    pub fn known_free(&self) -> &AgentSet {
        &self.free
    }

    /// Notes that an agent's labels, queues or id are others than before.
    pub fn recast(&mut self, index: u32) {
        self.recast.push(index);
    }

    /// Those noted since the last call.
    pub fn take_recast(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.recast)
    }

    pub fn insert(&mut self, agent: Agent) -> u32 {
        let id = agent.card.id.clone();
        let agent = Some(Agent { touched: true, ..agent });
        let index = match self.agents.iter().position(Option::is_none) {
            Some(index) => {
                self.agents[index] = agent;
                index
            }
            None => {
                self.agents.push(agent);
                self.agents.len() - 1
            }
        } as u32;
        self.by_id.insert(id, index);
        self.touched.push(index);
        self.recast.push(index);
        index
    }

    pub fn remove(&mut self, index: u32) -> Option<Agent> {
        let agent = self.agents.get_mut(index as usize)?.take()?;
        self.by_id.remove(&agent.card.id);
        self.touched.push(index);
        self.recast.push(index);
        Some(agent)
    }

    pub fn find(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    pub fn get(&self, index: u32) -> Option<&Agent> {
        self.agents.get(index as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, index: u32) -> Option<&mut Agent> {
        let agent = self.agents.get_mut(index as usize)?.as_mut()?;
        if !std::mem::replace(&mut agent.touched, true) {
            self.touched.push(index);
        }
        Some(agent)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Agent)> {
        self.agents.iter().enumerate().filter_map(|(index, agent)| Some((index as u32, agent.as_ref()?)))
    }

    pub fn indices(&self) -> Vec<u32> {
        self.iter().map(|(index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_keep_what_they_do_not_know() {
        let text = r#"{"id":"a","labels":["gpu"],"slots":2,"model":"m1","p2p_addr":"/ip4/1"}"#;
        let card: Card = serde_json::from_str(text).unwrap();
        let written = serde_json::to_value(&card).unwrap();
        assert_eq!((&written["model"], &written["p2p_addr"]), (&"m1".into(), &"/ip4/1".into()));
        assert_eq!(serde_json::from_value::<Card>(written).unwrap(), card);
    }
}
