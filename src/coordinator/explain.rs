//! Why an agent does not get a task: everything that stands between the two, in words and as codes.

use serde_json::{Value, json};

use super::agent::{Agent, Link, Status};
use super::labels::Requirement;
use super::record::Record;

/// What keeps a task from an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    Offline,
    Draining,
    /// Its connection ended, and the grace is not over.
    Gone,
    /// It let an assignment lie.
    Stalled,
    NotServing,
    /// The terms of Task-Requires that it does not meet.
    Labels(Vec<String>),
    Declined,
    Full {
        taken: usize,
        slots: u32,
    },
    /// The task waits for this one, the home of its token.
    Sticky(String),
    /// The task waits for this one, which asked and has its answer.
    Asked(String),
}

impl Obstacle {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Obstacle::Offline => "offline",
            Obstacle::Draining => "draining",
            Obstacle::Gone => "disconnected",
            Obstacle::Stalled => "stalled",
            Obstacle::NotServing => "queue",
            Obstacle::Labels(_) => "labels",
            Obstacle::Declined => "declined",
            Obstacle::Full { .. } => "slots",
            Obstacle::Sticky(_) => "sticky",
            Obstacle::Asked(_) => "asked",
        }
    }

    /// For people: of one agent.
    fn text(&self, record: &Record, agent: &Agent) -> String {
        match self {
            Obstacle::Offline => format!("is offline, last seen {}", agent.card.last_seen.to_rfc3339()),
            Obstacle::Draining => "is draining and gets nothing new".to_owned(),
            Obstacle::Gone => "has lost its connection".to_owned(),
            Obstacle::Stalled => "let an assignment lie, and gets nothing until it pulls".to_owned(),
            Obstacle::NotServing => {
                format!("serves {}, not {}", agent.card.queues.join(", "), record.queue)
            }
            Obstacle::Labels(terms) => format!("has not the labels {}", terms.join(", ")),
            Obstacle::Declined => "declined it".to_owned(),
            Obstacle::Full { taken, slots } => format!("has no free slot, {taken} of {slots} taken"),
            Obstacle::Sticky(home) => format!("is not {home}, where {} has its home", record.sticky),
            Obstacle::Asked(asker) => format!("is not {asker}, who asked"),
        }
    }

    /// For people: of so many agents.
    pub fn text_of_many(code: &str) -> &'static str {
        match code {
            "offline" => "offline",
            "draining" => "draining",
            "disconnected" => "without a connection",
            "stalled" => "did not fetch what they got",
            "queue" => "do not serve the queue",
            "labels" => "do not have the labels",
            "declined" => "declined",
            "slots" => "without a free slot",
            "sticky" => "not its home",
            _ => "not the one that asked",
        }
    }
}

/// All that keeps `record` from `agent`; nothing if it can have it now. `only` is the one agent that the task waits for, and
/// whether because that asked.
pub fn obstacles(record: &Record, requires: &Requirement, agent: &Agent, only: Option<(&str, bool)>) -> Vec<Obstacle> {
    let mut found = Vec::new();
    match agent.card.status {
        Status::Offline => found.push(Obstacle::Offline),
        Status::Draining => found.push(Obstacle::Draining),
        Status::Online if matches!(agent.link, Link::Gone(_)) => found.push(Obstacle::Gone),
        Status::Online if agent.stalled => found.push(Obstacle::Stalled),
        Status::Online => {}
    }
    if !agent.serves(&record.queue) {
        found.push(Obstacle::NotServing);
    }
    if !requires.is_met_by(&agent.card.labels) {
        found.push(Obstacle::Labels(requires.unmet(&agent.card.labels)));
    }
    if record.excluded.contains(&agent.card.id) {
        found.push(Obstacle::Declined);
    }
    if agent.live.len() >= agent.card.slots as usize {
        found.push(Obstacle::Full { taken: agent.live.len(), slots: agent.card.slots });
    }
    match only {
        Some((id, true)) if id != agent.card.id => found.push(Obstacle::Asked(id.to_owned())),
        Some((id, false)) if id != agent.card.id => found.push(Obstacle::Sticky(id.to_owned())),
        _ => {}
    }
    found
}

/// An agent and what keeps the task from it, as EXPLAIN answers.
pub fn told(record: &Record, agent: &Agent, obstacles: &[Obstacle]) -> Value {
    let texts: Vec<String> = obstacles.iter().map(|obstacle| obstacle.text(record, agent)).collect();
    let text = if texts.is_empty() { "can take it".to_owned() } else { texts.join("; ") };
    let mut told = json!({
        "agent": agent.card.id, "text": format!("{} {text}", agent.card.id),
        "codes": obstacles.iter().map(Obstacle::code).collect::<Vec<_>>(),
    });
    for obstacle in obstacles {
        match obstacle {
            Obstacle::Labels(terms) => told["labels"] = terms.clone().into(),
            Obstacle::Full { taken, slots } => (told["taken"], told["slots"]) = ((*taken).into(), (*slots).into()),
            Obstacle::Sticky(id) | Obstacle::Asked(id) => told["waits_for"] = id.as_str().into(),
            _ => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::agent::Card;
    use crate::types::Timestamp;

    #[test]
    fn every_obstacle_is_named() {
        let record =
            Record { queue: "q".into(), excluded: vec!["x".into()].into(), sticky: "s".into(), ..Record::default() };
        let requires = Requirement::parse("gpu,mem>=16").unwrap();
        let labels = serde_json::from_str(r#"["gpu","mem=32"]"#).unwrap();
        let card = Card { status: Status::Online, slots: 1, labels, queues: vec!["q".into()], ..Card::default() };
        let fine = Agent { card: Card { id: "a".into(), ..card }, ..Agent::default() };
        let check = |agent: &Agent, only: Option<(&str, bool)>, codes: &[&str], text: &str| {
            let found = obstacles(&record, &requires, agent, only);
            let told = told(&record, agent, &found);
            assert_eq!((&told["codes"], told["text"].as_str().unwrap()), (&json!(codes), text));
        };
        check(&fine, None, &[], "a can take it");
        check(&fine, Some(("a", true)), &[], "a can take it");
        check(&fine, Some(("b", true)), &["asked"], "a is not b, who asked");
        check(&fine, Some(("b", false)), &["sticky"], "a is not b, where s has its home");
        let full = Agent { live: vec![7], ..fine.clone() };
        check(&full, None, &["slots"], "a has no free slot, 1 of 1 taken");
        let gone = Agent { link: Link::Gone(Timestamp(1)), ..fine.clone() };
        check(&gone, None, &["disconnected"], "a has lost its connection");
        let stalled = Agent { stalled: true, ..fine.clone() };
        check(&stalled, None, &["stalled"], "a let an assignment lie, and gets nothing until it pulls");
        let mut other = fine.clone();
        other.card = Card { id: "x".into(), queues: vec!["r".into()], status: Status::Draining, ..other.card };
        other.card.labels = serde_json::from_str(r#"["gpu","mem=8"]"#).unwrap();
        let text = "x is draining and gets nothing new; serves r, not q; has not the labels mem>=16; declined it";
        check(&other, None, &["draining", "queue", "labels", "declined"], text);
        other.card.status = Status::Offline;
        assert_eq!(obstacles(&record, &requires, &other, None)[0], Obstacle::Offline);
    }
}
