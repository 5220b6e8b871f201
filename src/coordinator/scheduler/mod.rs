//! Which task next, and to whom. Labels, slots, exclusions and limits filter; then the longest waiting comes first, where each
//! level of priority is worth a time of waiting; tasks of equal priority and class take turns by Task-Key. Among agents the
//! task's home goes first, then preference, then the lowest load, then taking turns.
//!
//! Tasks that the same agents may serve form a class. A decision looks at unions of classes and at the agents of one class,
//! never at the backlog: its cost does not depend on waiting tasks or keys, and hardly on classes.

mod agent_set;
mod homes;
mod lane;
mod shelf;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

pub use agent_set::AgentSet;
use homes::Homes;
use lane::{Lane, Rank};
use shelf::Shelf;

use super::agent::{Agent, Roster, Status};
use super::labels::Requirement;
use crate::types::Timestamp;

/// What decides who may serve a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClassKey {
    pub queue: String,
    pub requires: Requirement,
    pub prefer: Requirement,
    pub excluded: Vec<String>,
    /// Its Task-Sticky token; empty is none.
    pub sticky: String,
    /// The token's home has to serve it, as long as that is registered and matches.
    pub hard: bool,
    /// The agent that asked and has its answer now; empty is none. It has to serve it, as long as it is online.
    pub asker: String,
}

impl ClassKey {
    /// Whether `agent` may ever serve it, slots, presence and home aside.
    pub fn matches(&self, agent: &Agent) -> bool {
        agent.serves(&self.queue)
            && self.requires.is_met_by(&agent.card.labels)
            && !self.excluded.contains(&agent.card.id)
    }
}

/// Where a task waits; whoever put it in line keeps it to take the task out again.
#[derive(Clone, Debug)]
pub struct Spot {
    class: u32,
    priority: u8,
    key: Arc<str>,
    rank: Rank,
}

/// How a queue orders and limits its waiting tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What a level of priority is worth; zero is priority above all.
    pub ageing: Duration,
    /// Tasks of one key that may hold slots at once; 0 is no limit.
    pub max_per_key: u32,
}

#[derive(Debug)]
struct Class {
    key: ClassKey,
    queue: u32,
    /// By priority; none is empty.
    lanes: BTreeMap<u8, Lane>,
    /// Who may serve it.
    agents: AgentSet,
    /// The agent that had the last task with its token.
    home: Option<u32>,
    /// Only its home may serve it now.
    pinned: bool,
    /// Where it stands in its queue's shelf.
    shelved: Option<Rank>,
    /// It is in the list of those that may be forgotten.
    idle: bool,
}

/// What is known of a key in a queue.
#[derive(Debug, Default)]
struct KeyState {
    /// Its tasks that hold slots.
    running: u32,
    /// Where its tasks wait: class and priority.
    lanes: BTreeSet<(u32, u8)>,
    parked: bool,
}

#[derive(Debug)]
struct Queue {
    name: String,
    order: Order,
    shelf: Shelf,
    keys: HashMap<Arc<str>, KeyState>,
}

/// What a queue has to offer, so that queues compare: since when its task waits, with what its priority is worth.
type Offer = (i64, u64, u32);

impl Rank {
    fn offer(self, queue: u32) -> Offer {
        (self.at.saturating_add(LEVEL * i64::from(self.level)), self.ticket, queue)
    }
}

/// Classes kept although empty, so that light traffic does not build them anew for each task.
const IDLE_CLASSES_MAX: usize = 256;
/// What a level of priority is worth between queues when one of them lets nothing age.
const LEVEL: i64 = 60_000_000_000;

/// The tasks that wait for an agent.
#[derive(Debug, Default)]
pub struct Ready {
    classes: Vec<Option<Class>>,
    vacant: Vec<u32>,
    by_key: HashMap<ClassKey, u32>,
    by_token: HashMap<String, Vec<u32>>,
    idle: VecDeque<u32>,
    queues: Vec<Queue>,
    by_name: HashMap<String, u32>,
    /// Queues in whose lines somebody waits who is not parked.
    stocked: BTreeSet<u32>,
    homes: Homes,
    /// Classes with an asker.
    askers: usize,
    last_ticket: u64,
    /// The queues that this pass may still serve, none with a better offer than stands here.
    candidates: BinaryHeap<Reverse<Offer>>,
}

impl Ready {
    /// Takes notice of agents that came, went or changed.
    pub fn sync(&mut self, roster: &mut Roster) {
        for agent in roster.take_recast() {
            for index in 0..self.classes.len() as u32 {
                self.recast(index, agent, roster);
            }
            for queue in &self.stocked {
                self.queues[*queue as usize].shelf.refresh_agent(agent, agents_of(&self.classes));
            }
        }
    }

    fn recast(&mut self, index: u32, agent: u32, roster: &Roster) {
        let Some(class) = self.classes[index as usize].as_mut() else { return };
        let known = roster.get(agent);
        let is_asker = || known.is_some_and(|known| known.card.id == class.key.asker);
        let is_home = class.home == Some(agent)
            || is_asker()
            || (!class.key.sticky.is_empty()
                && self
                    .homes
                    .agent(&class.key.sticky)
                    .is_some_and(|id| known.is_some_and(|known| known.card.id == id)));
        if is_home {
            self.cast(index, roster);
        } else if !class.pinned {
            class.agents.set(agent, known.is_some_and(|known| class.key.matches(known)));
        }
    }

    /// Finds out anew who may serve a class.
    fn cast(&mut self, index: u32, roster: &Roster) {
        let class = self.classes[index as usize].as_mut().expect("only classes that are there are cast");
        let key = &class.key;
        let matching = |index: &u32| roster.get(*index).is_some_and(|agent| key.matches(agent));
        let online = |index: &u32| roster.get(*index).is_some_and(|agent| agent.card.status == Status::Online);
        class.home = self.homes.agent(&key.sticky).and_then(|id| roster.find(id));
        let pin = match class.home.filter(matching).filter(|_| key.hard) {
            None => roster.find(&key.asker).filter(matching).filter(online),
            home => home,
        };
        class.home = pin.or(class.home);
        class.pinned = pin.is_some();
        class.agents.clear();
        match pin {
            Some(pin) => class.agents.insert(pin),
            None => {
                roster.iter().filter(|(_, agent)| key.matches(agent)).for_each(|(agent, _)| class.agents.insert(agent))
            }
        }
        if let Some(rank) = class.shelved {
            let queue = class.queue as usize;
            self.queues[queue].shelf.refresh(rank, agents_of(&self.classes));
        }
    }

    /// An agent is online now, or is not any more: tasks whose question it asked wait for it, or for others.
    pub fn look_at_asker(&mut self, agent: u32, roster: &Roster) {
        let Some(id) = roster.get(agent).map(|agent| agent.card.id.as_str()).filter(|_| self.askers > 0) else {
            return;
        };
        for index in 0..self.classes.len() as u32 {
            if self.classes[index as usize].as_ref().is_some_and(|class| class.key.asker == id) {
                self.cast(index, roster);
            }
        }
    }

    /// Sets how a queue orders its tasks; that of tasks already in line stays until they are put in line again.
    pub fn arrange(&mut self, queue: &str, order: Order) {
        let queue = self.queue(queue);
        self.queues[queue as usize].order = order;
        let keys: Vec<Arc<str>> = self.queues[queue as usize].keys.keys().cloned().collect();
        for key in keys {
            self.weigh(queue, &key);
        }
    }

    fn queue(&mut self, name: &str) -> u32 {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let order = Order { ageing: Duration::from_nanos(LEVEL as u64), max_per_key: 0 };
        let queue = Queue { name: name.to_owned(), order, shelf: Shelf::default(), keys: HashMap::new() };
        self.queues.push(queue);
        self.by_name.insert(name.to_owned(), self.queues.len() as u32 - 1);
        self.queues.len() as u32 - 1
    }

    fn class(&mut self, key: &ClassKey, roster: &Roster) -> u32 {
        if let Some(index) = self.by_key.get(key) {
            return *index;
        }
        while self.idle.len() >= IDLE_CLASSES_MAX {
            self.forget_idle();
        }
        let class = Class {
            key: key.clone(),
            queue: self.queue(&key.queue),
            lanes: BTreeMap::new(),
            agents: AgentSet::default(),
            home: None,
            pinned: false,
            shelved: None,
            idle: true,
        };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.classes[index as usize] = Some(class);
                index
            }
            None => {
                self.classes.push(Some(class));
                self.classes.len() as u32 - 1
            }
        };
        self.idle.push_back(index);
        self.askers += usize::from(!key.asker.is_empty());
        self.by_key.insert(key.clone(), index);
        if !key.sticky.is_empty() {
            self.by_token.entry_ref(key.sticky.as_str()).or_default().push(index);
        }
        self.cast(index, roster);
        index
    }

    /// Forgets the class that was empty first, unless it is in use again.
    fn forget_idle(&mut self) {
        let Some(index) = self.idle.pop_front() else { return };
        let Some(class) = self.classes[index as usize].as_mut() else { return };
        class.idle = false;
        if !class.lanes.is_empty() {
            return;
        }
        let key = &class.key;
        self.askers -= usize::from(!key.asker.is_empty());
        self.by_key.remove(key);
        if let Some(classes) = self.by_token.get_mut(&key.sticky) {
            classes.retain(|other| *other != index);
            if classes.is_empty() {
                self.by_token.remove(&key.sticky);
            }
        }
        self.classes[index as usize] = None;
        self.vacant.push(index);
    }

    /// Puts a task in line, that waits since `since`.
    pub fn push(
        &mut self,
        class: &ClassKey,
        roster: &Roster,
        (priority, key): (u8, &str),
        since: Timestamp,
        task: u32,
    ) -> Spot {
        let index = self.class(class, roster);
        let class = self.classes[index as usize].as_mut().expect("it was just found");
        let queue = &mut self.queues[class.queue as usize];
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let rank = match i64::try_from(queue.order.ageing.as_nanos()).unwrap_or(i64::MAX) {
            0 => Rank { level: priority, at: since.0, ticket },
            ageing => Rank { level: 0, at: since.0.saturating_add(ageing.saturating_mul(priority.into())), ticket },
        };
        let (key, parked) = match queue.keys.get_key_value(key) {
            Some((key, state)) => (key.clone(), state.parked),
            None => (Arc::from(key), false),
        };
        let begun = class.lanes.entry(priority).or_default().push(&key, rank, task, parked);
        if begun && !key.is_empty() {
            queue.keys.entry(key.clone()).or_default().lanes.insert((index, priority));
        }
        self.reshelve(index);
        Spot { class: index, priority, key, rank }
    }

    /// Takes a task out of line.
    pub fn remove(&mut self, spot: &Spot) {
        let class = self.classes[spot.class as usize].as_mut().expect("a class with waiting tasks stays");
        let Some(lane) = class.lanes.get_mut(&spot.priority) else { return };
        if lane.remove(&spot.key, spot.rank) {
            if lane.is_empty() {
                class.lanes.remove(&spot.priority);
            }
            let keys = &mut self.queues[class.queue as usize].keys;
            if let Some(state) = keys.get_mut(&spot.key) {
                state.lanes.remove(&(spot.class, spot.priority));
                if state.lanes.is_empty() && state.running == 0 {
                    keys.remove(&spot.key);
                }
            }
            if class.lanes.is_empty() && !std::mem::replace(&mut class.idle, true) {
                self.idle.push_back(spot.class);
            }
        }
        self.reshelve(spot.class);
    }

    /// Moves a class to where its longest waiting task belongs.
    fn reshelve(&mut self, index: u32) {
        let class = self.classes[index as usize].as_mut().expect("only classes that are there change");
        let rank = class.lanes.values().filter_map(Lane::oldest).min();
        let (before, queue) = (std::mem::replace(&mut class.shelved, rank), class.queue);
        if before == rank {
            return;
        }
        let shelf = &mut self.queues[queue as usize].shelf;
        if let Some(before) = before {
            shelf.remove(before, agents_of(&self.classes));
        }
        if let Some(rank) = rank {
            shelf.insert(rank, index, agents_of(&self.classes));
        }
        if shelf.is_empty() {
            self.stocked.remove(&queue)
        } else {
            self.stocked.insert(queue)
        };
    }

    /// A task of this key got a slot.
    pub fn started(&mut self, queue: &str, key: &str) {
        if !key.is_empty() {
            let queue = self.queue(queue);
            let keys = &mut self.queues[queue as usize].keys;
            let key: Arc<str> = keys.get_key_value(key).map_or_else(|| Arc::from(key), |(key, _)| key.clone());
            keys.entry(key.clone()).or_default().running += 1;
            self.weigh(queue, &key);
        }
    }

    /// A task of this key gave its slot back.
    pub fn ended(&mut self, queue: &str, key: &str) {
        let queue = self.queue(queue);
        let keys = &mut self.queues[queue as usize].keys;
        let Some(key) = keys.get_key_value(key).map(|(key, _)| key.clone()) else { return };
        let state = keys.get_mut(&key).expect("it was just found");
        state.running = state.running.saturating_sub(1);
        if state.running == 0 && state.lanes.is_empty() {
            keys.remove(&key);
        } else {
            self.weigh(queue, &key);
        }
    }

    /// Parks a key that is at its limit, and brings one back that is not.
    fn weigh(&mut self, queue: u32, key: &Arc<str>) {
        let entry = &mut self.queues[queue as usize];
        let limit = entry.order.max_per_key;
        let Some(state) = entry.keys.get_mut(key) else { return };
        let park = limit > 0 && state.running >= limit;
        if std::mem::replace(&mut state.parked, park) == park {
            return;
        }
        let lanes: Vec<(u32, u8)> = state.lanes.iter().copied().collect();
        for (index, priority) in lanes {
            let class = self.classes[index as usize].as_mut().expect("a class with waiting tasks stays");
            let lane = class.lanes.get_mut(&priority).expect("a lane with waiting tasks stays");
            if park {
                lane.park(key)
            } else {
                lane.unpark(key)
            }
            self.reshelve(index);
        }
    }

    /// There is one more task with a token, which may be empty.
    pub fn join(&mut self, token: &str) {
        if !token.is_empty() {
            self.homes.join(token);
        }
    }

    /// One less.
    pub fn leave(&mut self, token: &str) {
        if !token.is_empty() {
            self.homes.leave(token);
        }
    }

    /// An agent got a task with a token then, which may be empty.
    pub fn settle_home(&mut self, token: &str, agent: &str, since: Timestamp, roster: &Roster) {
        if !token.is_empty() && self.homes.settle(token, agent, since) {
            for index in self.by_token.get(token).cloned().unwrap_or_default() {
                self.cast(index, roster);
            }
        }
    }

    /// The id of the agent that had the last task with `token`.
    pub fn home(&self, token: &str) -> Option<&str> {
        self.homes.agent(token)
    }

    /// How many tasks of a key hold slots.
    pub fn running_of(&self, queue: &str, key: &str) -> u32 {
        let queue = self.by_name.get(queue).map(|number| &self.queues[*number as usize]);
        queue.and_then(|queue| queue.keys.get(key)).map_or(0, |state| state.running)
    }

    /// Begins a pass of decisions.
    pub fn begin(&mut self, roster: &mut Roster) {
        self.sync(roster);
        self.candidates.clear();
        let offers = self.stocked.iter().filter_map(|number| {
            let rank = self.queues[*number as usize].shelf.head()?;
            Some(Reverse(rank.offer(*number)))
        });
        self.candidates.extend(offers);
    }

    /// The next decision of this pass: the task and its agent, whose slot the caller takes. `admits` tells whether a queue may
    /// run one more; one that may not is not asked again in this pass.
    pub fn next(&mut self, roster: &mut Roster, admits: impl Fn(&str) -> bool) -> Option<(u32, u32)> {
        loop {
            let Reverse((_, _, number)) = self.candidates.pop()?;
            let queue = &self.queues[number as usize];
            if !admits(&queue.name) {
                continue;
            }
            let Some((rank, index)) = queue.shelf.first(roster.free(), agents_of(&self.classes)) else { continue };
            let offer = rank.offer(number);
            if self.candidates.peek().is_some_and(|Reverse(other)| *other < offer) {
                self.candidates.push(Reverse(offer));
                continue;
            }
            let class = self.classes[index as usize].as_mut().expect("a shelf holds classes that are there");
            let Some(agent) = choose(class, roster) else { continue };
            let longest = class.lanes.iter_mut().filter(|(_, lane)| lane.oldest().is_some());
            let (priority, lane) =
                longest.min_by_key(|(_, lane)| lane.oldest()).expect("a class on a shelf has a task");
            let (key, rank, task) = lane.turn().expect("a lane with an oldest task has a turn");
            let spot = Spot { class: index, priority: *priority, key, rank };
            self.remove(&spot);
            // What it offers next is no better.
            self.candidates.push(Reverse(offer));
            return Some((task, agent));
        }
    }

    /// The agent for a task that need not wait: none of its class is in line, its key may run one more and somebody is free.
    pub fn direct(&mut self, class: &ClassKey, key: &str, roster: &mut Roster) -> Option<u32> {
        self.sync(roster);
        let index = self.class(class, roster);
        let class = self.classes[index as usize].as_mut().expect("it was just found");
        let parked = self.queues[class.queue as usize].keys.get(key).is_some_and(|state| state.parked);
        if class.lanes.is_empty() && !parked { choose(class, roster) } else { None }
    }
}

fn agents_of<'a>(classes: &'a [Option<Class>]) -> impl Fn(u32) -> &'a AgentSet {
    |class| &classes[class as usize].as_ref().expect("a shelf holds classes that are there").agents
}

fn choose(class: &Class, roster: &mut Roster) -> Option<u32> {
    roster.free();
    let roster = &*roster;
    let rank = |index: u32| {
        let agent = roster.get(index).filter(|agent| agent.free_slots() > 0)?;
        // Load in parts of a million, so that it compares as an integer.
        let load = agent.live.len() as u64 * 1_000_000 / u64::from(agent.card.slots.max(1));
        let score = class.key.prefer.score(&agent.card.labels);
        Some((class.home != Some(index), Reverse(score), load, agent.last_turn, index))
    };
    class.agents.common(roster.known_free()).filter_map(rank).min().map(|(_, _, _, _, index)| index)
}

#[cfg(test)]
mod tests;
