//! Which task next, and to whom: labels, slots and exclusions filter; then priority, round robin over Task-Key, first in
//! first out; among agents preference, then the lowest load, then taking turns.
//!
//! Tasks that the same agents may serve form a class, so a decision looks at classes and agents, never at the backlog.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use super::agent::{Agent, Roster};
use super::labels::Requirement;

/// What decides who may serve a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClassKey {
    pub queue: String,
    pub requires: Requirement,
    pub prefer: Requirement,
    pub excluded: Vec<String>,
}

impl ClassKey {
    /// Whether `agent` may ever serve it, slots and presence aside.
    pub fn matches(&self, agent: &Agent) -> bool {
        agent.serves(&self.queue)
            && self.requires.is_met_by(&agent.card.labels)
            && !self.excluded.contains(&agent.card.id)
    }
}

/// A place in line; tells whether an entry still stands for its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub task: u32,
    pub ticket: u64,
}

#[derive(Debug, Default)]
struct Lane {
    /// Keys with waiting tasks, the next one in front.
    turns: VecDeque<String>,
    waiting: HashMap<String, VecDeque<Place>>,
}

impl Lane {
    fn push(&mut self, key: &str, place: Place) {
        match self.waiting.get_mut(key) {
            Some(line) => line.push_back(place),
            None => {
                self.waiting.insert(key.to_owned(), VecDeque::from([place]));
                self.turns.push_back(key.to_owned());
            }
        }
    }

    fn head(&self) -> Option<Place> {
        self.waiting.get(self.turns.front()?)?.front().copied()
    }

    fn pop(&mut self) -> Option<Place> {
        let key = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&key)?;
        let place = line.pop_front();
        if line.is_empty() {
            self.waiting.remove(&key);
        } else {
            self.turns.push_back(key);
        }
        place
    }
}

#[derive(Debug)]
struct Class {
    key: ClassKey,
    lanes: BTreeMap<u8, Lane>,
    eligible: Vec<u32>,
    /// The roster's generation `eligible` was made of.
    generation: u64,
    /// The pass in which nobody could take its head.
    blocked_in: u64,
}

impl Class {
    fn head(&self) -> Option<(u8, Place)> {
        let (priority, lane) = self.lanes.first_key_value()?;
        Some((*priority, lane.head()?))
    }

    fn pop(&mut self) -> Option<Place> {
        let mut entry = self.lanes.first_entry()?;
        let place = entry.get_mut().pop();
        if entry.get().turns.is_empty() {
            entry.remove();
        }
        place
    }
}

/// Classes kept although empty, so that light traffic does not build them anew for each task.
const IDLE_CLASSES_MAX: usize = 256;

/// The tasks that wait for an agent.
#[derive(Debug, Default)]
pub struct Ready {
    classes: Vec<Class>,
    by_key: HashMap<ClassKey, usize>,
    next_ticket: u64,
    pass: u64,
}

impl Ready {
    /// Puts a task in line and returns its ticket.
    pub fn push(&mut self, class: &ClassKey, priority: u8, key: &str, task: u32) -> u64 {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let index = self.class(class);
        self.classes[index].lanes.entry(priority).or_default().push(key, Place { task, ticket });
        ticket
    }

    fn class(&mut self, key: &ClassKey) -> usize {
        if let Some(index) = self.by_key.get(key) {
            return *index;
        }
        if self.classes.len() >= IDLE_CLASSES_MAX {
            self.classes.retain(|class| !class.lanes.is_empty());
            self.by_key = self.classes.iter().enumerate().map(|(index, class)| (class.key.clone(), index)).collect();
        }
        let class = Class {
            key: key.clone(),
            lanes: BTreeMap::new(),
            eligible: Vec::new(),
            generation: u64::MAX,
            blocked_in: 0,
        };
        self.classes.push(class);
        self.by_key.insert(key.clone(), self.classes.len() - 1);
        self.classes.len() - 1
    }

    /// Begins a pass of decisions: classes nobody could serve are looked at again.
    pub fn begin(&mut self) {
        self.pass += 1;
    }

    /// The next decision of this pass: the task and its agent, whose slot the caller takes. `stands` tells whether a place
    /// still stands for its task, `admits` whether a queue may run one more.
    pub fn next(
        &mut self,
        roster: &Roster,
        stands: impl Fn(Place) -> bool,
        admits: impl Fn(&str) -> bool,
    ) -> Option<(u32, u32)> {
        loop {
            let mut best: Option<(u8, u64, usize)> = None;
            for index in 0..self.classes.len() {
                let class = &mut self.classes[index];
                if class.blocked_in == self.pass {
                    continue;
                }
                while class.head().is_some_and(|(_, place)| !stands(place)) {
                    class.pop();
                }
                if let Some((priority, place)) = class.head() {
                    let rank = (priority, place.ticket, index);
                    if best.is_none_or(|best| rank < best) {
                        best = Some(rank);
                    }
                }
            }
            let (_, _, index) = best?;
            let class = &mut self.classes[index];
            let agent = if admits(&class.key.queue) { choose(class, roster) } else { None };
            let Some(agent) = agent else {
                class.blocked_in = self.pass;
                continue;
            };
            let place = class.pop().expect("the class has a head");
            return Some((place.task, agent));
        }
    }

    /// The agent for a task that need not wait: none of its class is in line and somebody is free.
    pub fn direct(&mut self, key: &ClassKey, roster: &Roster) -> Option<u32> {
        let index = self.class(key);
        let class = &mut self.classes[index];
        if class.lanes.is_empty() { choose(class, roster) } else { None }
    }
}

fn choose(class: &mut Class, roster: &Roster) -> Option<u32> {
    if class.generation != roster.generation() {
        class.generation = roster.generation();
        class.eligible = roster.iter().filter(|(_, agent)| class.key.matches(agent)).map(|(index, _)| index).collect();
    }
    let mut best: Option<(std::cmp::Reverse<usize>, u64, u64, u32)> = None;
    for &index in &class.eligible {
        let Some(agent) = roster.get(index).filter(|agent| agent.free_slots() > 0) else { continue };
        // Load in parts of a million, so that it compares as an integer.
        let load = agent.live.len() as u64 * 1_000_000 / u64::from(agent.card.slots.max(1));
        let rank = (std::cmp::Reverse(class.key.prefer.score(&agent.card.labels)), load, agent.last_turn, index);
        if best.is_none_or(|best| rank < best) {
            best = Some(rank);
        }
    }
    best.map(|(_, _, _, index)| index)
}

#[cfg(test)]
mod tests {
    use super::super::agent::{Card, Status};
    use super::*;

    fn agent(id: &str, labels: &str, slots: u32) -> Agent {
        let card = Card {
            id: id.into(),
            status: Status::Online,
            labels: serde_json::from_str(labels).unwrap(),
            slots,
            queues: vec!["q".into()],
            ..Card::default()
        };
        Agent { card, ..Agent::default() }
    }

    fn class(requires: &str, prefer: &str, excluded: &[&str]) -> ClassKey {
        ClassKey {
            queue: "q".into(),
            requires: Requirement::parse(requires).unwrap(),
            prefer: Requirement::parse(prefer).unwrap(),
            excluded: excluded.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    /// Runs a pass to its end; each decision as `task>agent`.
    fn run(ready: &mut Ready, roster: &mut Roster) -> String {
        let mut decisions = Vec::new();
        ready.begin();
        let mut turn = 0;
        while let Some((task, index)) = ready.next(roster, |_| true, |_| true) {
            turn += 1;
            let agent = roster.get_mut(index).unwrap();
            agent.live.push(task);
            agent.last_turn = turn;
            decisions.push(format!("{task}>{}", agent.card.id));
        }
        decisions.join(" ")
    }

    #[test]
    fn picks_by_priority_then_key_then_age() {
        let mut roster = Roster::default();
        roster.insert(agent("a", "{}", 100));
        let mut ready = Ready::default();
        let any = class("", "", &[]);
        for (task, priority, key) in [(1, 5, "x"), (2, 5, "x"), (3, 5, "y"), (4, 0, "x"), (5, 5, "x"), (6, 9, "z")] {
            ready.push(&any, priority, key, task);
        }
        assert_eq!(run(&mut ready, &mut roster), "4>a 1>a 3>a 2>a 5>a 6>a");
    }

    #[test]
    fn filters_by_labels_exclusion_and_slots_and_levels_the_load() {
        let mut roster = Roster::default();
        roster.insert(agent("a", r#"["gpu"]"#, 1));
        roster.insert(agent("b", "{}", 2));
        roster.insert(agent("c", "{}", 4));
        let mut ready = Ready::default();
        ready.push(&class("gpu", "", &[]), 5, "", 1);
        ready.push(&class("gpu", "", &[]), 5, "", 2);
        for task in 3..9 {
            ready.push(&class("", "", &["a"]), 5, "", task);
        }
        ready.push(&class("", "", &[]), 0, "", 9);
        // The oldest of highest priority takes the first of equals; the second GPU task finds the slot taken.
        assert_eq!(run(&mut ready, &mut roster), "9>a 3>b 4>c 5>c 6>b 7>c 8>c");
        roster.get_mut(0).unwrap().live.clear();
        assert_eq!(run(&mut ready, &mut roster), "1>a");
    }

    #[test]
    fn preference_ranks_but_does_not_filter() {
        let mut roster = Roster::default();
        roster.insert(agent("a", "{}", 2));
        roster.insert(agent("b", r#"["near"]"#, 1));
        let mut ready = Ready::default();
        ready.push(&class("", "near", &[]), 5, "", 1);
        ready.push(&class("", "near", &[]), 5, "", 2);
        assert_eq!(run(&mut ready, &mut roster), "1>b 2>a");
    }

    #[test]
    fn left_places_and_full_queues_are_passed_over() {
        let mut roster = Roster::default();
        roster.insert(agent("a", "{}", 10));
        let mut ready = Ready::default();
        let gone = ready.push(&class("", "", &[]), 5, "", 1);
        ready.push(&class("", "", &[]), 5, "", 2);
        ready.begin();
        assert_eq!(ready.next(&roster, |place| place.ticket != gone, |_| false), None);
        ready.begin();
        assert_eq!(ready.next(&roster, |place| place.ticket != gone, |_| true), Some((2, 0)));
        assert_eq!(ready.direct(&class("", "", &[]), &roster), Some(0));
    }

    #[test]
    fn a_decision_does_not_depend_on_the_backlog() {
        let mut roster = Roster::default();
        for n in 0..1000 {
            roster.insert(agent(&format!("a{n}"), r#"["x"]"#, 1));
        }
        let mut ready = Ready::default();
        for task in 0..10_000 {
            ready.push(&class("x", "", &[]), 5, &format!("k{}", task % 10), task);
        }
        assert_eq!(run(&mut ready, &mut roster).split(' ').count(), 1000);
    }
}
