//! EXPLAIN: where a task is and why it is not running, in words for people and fields for machines.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Desk;
use super::submit::class_of;
use crate::client::Incoming;
use crate::coordinator::explain::{self, Obstacle};
use crate::coordinator::names;
use crate::coordinator::queue::{Mode, Paused};
use crate::coordinator::record::{Phase, Record};
use crate::coordinator::{errors, record::Descendants};
use crate::types::ApiError;

/// Agents told of one by one unless the request says otherwise; the rest is counted.
const AGENTS: usize = 20;
const AGENTS_MAX: usize = 1000;
/// Tasks told of that a blocked one waits for.
const BLOCKERS: usize = 20;

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    /// How many agents to tell of one by one.
    agents: Option<usize>,
}

/// What is told, as it grows.
#[derive(Default)]
struct Told {
    reasons: Vec<Value>,
    texts: Vec<String>,
}

impl Told {
    fn add(&mut self, code: &str, text: String, mut fields: Value) {
        fields["code"] = code.into();
        fields["text"] = text.as_str().into();
        self.reasons.push(fields);
        self.texts.push(text);
    }
}

impl Desk {
    pub(super) fn explain(&mut self, id: &str, message: &Incoming) -> Result<(), ApiError> {
        let body: Body = match message.payload().trim_ascii() {
            [] => Body::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        let index = self.find_task(id)?;
        let task = self.task(index).filter(|task| task.revision > 0).ok_or(errors::TASK_NOT_FOUND)?;
        let record = task.view().into_owned();
        let mut told = Told::default();
        let mut fields = json!({
            "id": record.id, "queue": record.queue, "state": record.state, "phase": record.phase,
            "run": record.run, "attempt": record.attempt, "max_attempts": record.max_attempts,
        });
        self.explain_phase(index, &record, &mut told);
        if record.phase == Phase::Queued {
            self.explain_queue(&record, &mut told);
            if record.mode.is_assigned() {
                let (among, agents) = self.explain_agents(index, &record, body.agents.unwrap_or(AGENTS), &mut told);
                fields["among"] = among;
                fields["agents"] = agents.into();
            }
        }
        if !record.phase.is_final() && !record.deadline.is_zero() {
            let at = record.deadline.to_rfc3339();
            told.add("deadline", format!("it is given up at {at}"), json!({ "until": at }));
        }
        if record.descendants == Descendants::Due || record.descendants == Descendants::Forced {
            told.add("descendants", "its descendants are being canceled".to_owned(), json!({}));
        }
        fields["reasons"] = told.reasons.into();
        fields["explanation"] = format!("{id}: {}.", told.texts.join("; ")).into();
        self.respond(message, fields);
        Ok(())
    }

    fn explain_phase(&self, index: u32, record: &Record, told: &mut Told) {
        let Some(task) = self.task(index) else { return };
        let Record { agent, attempt, max_attempts, .. } = record;
        let since = record.updated.to_rfc3339();
        let because = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let error = record.fault.as_ref().map_or("", |fault| fault.error.as_str());
        match record.phase {
            Phase::Queued => {
                let since = record.waiting_since().to_rfc3339();
                told.add("queued", format!("queued since {since}"), json!({ "since": since }));
                if let Some(question) = record.resumes() {
                    let text = format!("question {} is answered, so it goes first", question.number);
                    told.add("answered", text, json!({ "number": question.number }));
                }
                if !task.retry_at.is_zero() {
                    let at = task.retry_at.to_rfc3339();
                    let text = format!("a step of it could not be stored and is tried again at {at}");
                    told.add("not-stored", text, json!({ "until": at }));
                }
            }
            Phase::Scheduled => {
                let at = record.wake.to_rfc3339();
                told.add("not-before", format!("it waits for its Task-Not-Before, {at}"), json!({ "until": at }));
            }
            Phase::BackingOff => {
                let at = record.wake.to_rfc3339();
                let text = format!("attempt {attempt} of {max_attempts} failed ({error}), the next begins at {at}");
                told.add("backing-off", text, json!({ "until": at, "error": error }));
            }
            Phase::Blocked => self.explain_blocked(record, told),
            Phase::Assigned => {
                let at = (record.assigned + self.settings.accept_timeout).to_rfc3339();
                let text = format!(
                    "assigned to {agent} at {}, which has not been seen to fetch it; at {at} it goes to others",
                    record.assigned.to_rfc3339()
                );
                told.add("assigned", text, json!({ "agent": agent, "since": record.assigned, "until": at }));
            }
            Phase::Running if record.mode == Mode::Pull => {
                let text =
                    format!("a worker of the queue has had it since {since}, attempt {attempt} of {max_attempts}");
                told.add("running", text, json!({ "since": since }));
            }
            Phase::Running => {
                let (since, lease) = (record.assigned.to_rfc3339(), task.lease_until.to_rfc3339());
                let mut text = format!("{agent} has it since {since}, attempt {attempt} of {max_attempts}; ");
                if self.presence_holds(task) {
                    text.push_str("the lease goes on as long as its agent is there");
                } else {
                    text.push_str(&format!("without a sign of life the lease ends at {lease}"));
                }
                let mut fields = json!({ "agent": agent, "since": since, "lease_until": lease });
                if let Some(timeout) = record.timeout() {
                    let at = (record.assigned + timeout).to_rfc3339();
                    text.push_str(&format!(", and the attempt at {at} in any case"));
                    fields["timeout_at"] = at.into();
                }
                told.add("running", text, fields);
            }
            Phase::InputRequired | Phase::AuthRequired => {
                let Some(question) = record.questions.last() else { return };
                let (number, asked) = (question.number, question.asked.to_rfc3339());
                let text = format!(
                    "{agent} asked question {number} at {asked}: {:?}; ANSWER.{} lets it go on",
                    question.question, record.id
                );
                let fields = json!({ "agent": agent, "since": asked, "number": number, "question": question.question });
                told.add(record.state.as_str(), text, fields);
            }
            Phase::Cancelling => {
                let at = task.cancel_until.to_rfc3339();
                let text =
                    format!("{agent} was told at {since} to stop{}, and loses it at {at}", because(&record.reason));
                told.add("cancelling", text, json!({ "agent": agent, "since": since, "until": at }));
            }
            Phase::Completed => {
                let by = if agent.is_empty() { String::new() } else { format!(" by {agent}") };
                let text = format!("completed{by} at {since}, in attempt {attempt}");
                told.add("completed", text, json!({ "agent": agent, "at": since }));
            }
            Phase::Dead => {
                let error = if record.reason == error { String::new() } else { because(error) };
                let text = format!("given up at {since} after {attempt} attempts, {}{error}", record.reason);
                told.add("dead", text, json!({ "at": since, "reason": record.reason, "error": error }));
            }
            Phase::Canceled => {
                let text = format!("canceled at {since}{}", because(&record.reason));
                told.add("canceled", text, json!({ "at": since, "reason": record.reason }));
            }
            Phase::Rejected => {
                let text =
                    format!("rejected at {since}: declined by {}, and no other matches", record.excluded.join(", "));
                told.add("rejected", text, json!({ "at": since, "declined": record.excluded }));
            }
        }
    }

    fn explain_blocked(&self, record: &Record, told: &mut Told) {
        let phase = |id: &String| Some((id.clone(), self.task(self.find_task(id).ok()?)?.view().phase));
        let open: Vec<(String, Phase)> =
            record.after.iter().filter_map(phase).filter(|(_, phase)| !phase.is_final()).collect();
        let named: Vec<String> =
            open.iter().take(BLOCKERS).map(|(id, phase)| format!("{id} ({})", phase.as_str())).collect();
        let more = open.len() - named.len();
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let tasks: Vec<Value> =
            open.iter().take(BLOCKERS).map(|(id, phase)| json!({ "id": id, "phase": phase })).collect();
        let text = format!("it comes after {}{rest}", named.join(", "));
        told.add("blocked", text, json!({ "tasks": tasks, "left": more }));
    }

    /// What holds up all of a queue, or all tasks of a key.
    fn explain_queue(&self, record: &Record, told: &mut Told) {
        let name = &record.queue;
        if record.mode == Mode::Pull {
            let consumer = names::queue_consumer(name);
            let text = format!("a worker has to pull it from the consumer {consumer} of the stream {}", names::STREAM);
            told.add("pull", text, json!({ "stream": names::STREAM, "consumer": consumer }));
        }
        let Some(queue) = self.queues.get(name) else { return };
        let config = &queue.config;
        if config.paused != Paused::No {
            told.add("paused", format!("the queue {name} is paused"), json!({}));
        }
        if config.max_running > 0 && queue.running >= config.max_running {
            let text = format!("the queue {name} runs {} of {} (max_running)", queue.running, config.max_running);
            told.add("max_running", text, json!({ "running": queue.running, "limit": config.max_running }));
        }
        let of_key = self.ready.running_of(name, &record.key);
        if !record.key.is_empty() && config.max_per_key > 0 && of_key >= config.max_per_key {
            let text = format!("{of_key} of {} with the key {} run (max_per_key)", config.max_per_key, record.key);
            told.add("max_per_key", text, json!({ "running": of_key, "limit": config.max_per_key }));
        }
        if !queue.bucket.admits(config.rate, self.now) {
            let at = queue.bucket.next(config.rate, self.now).to_rfc3339();
            let text = format!("the queue {name} starts {} a second, the next at {at} (rate)", config.rate);
            told.add("rate", text, json!({ "rate": config.rate, "until": at }));
        }
    }

    /// What stands between the task and all agents, counted; then those with the fewest obstacles one by one.
    fn explain_agents(&self, index: u32, record: &Record, limit: usize, told: &mut Told) -> (Value, Vec<Value>) {
        let class = class_of(record);
        let asker = self.task(index).filter(|task| !task.asker_until.is_zero() && task.asker_until > self.now);
        let asker = asker.and(record.resumes()).map(|question| question.agent.as_str());
        let is_home = |id: &&str| {
            self.roster.find(id).and_then(|at| self.roster.get(at)).is_some_and(|agent| class.matches(agent))
        };
        let is_there = |id: &&str| {
            let agent = self.roster.find(id).and_then(|at| self.roster.get(at));
            agent.is_some_and(|agent| agent.card.status == crate::coordinator::agent::Status::Online)
        };
        let home = self.ready.home(&record.sticky).filter(|_| record.hard).filter(is_home);
        let only = match (home, asker.filter(is_home).filter(is_there)) {
            (Some(home), _) => Some((home, false)),
            (None, Some(asker)) => Some((asker, true)),
            (None, None) => None,
        };
        let mut agents: Vec<_> = self
            .roster
            .iter()
            .map(|(_, agent)| (explain::obstacles(record, &class.requires, agent, only), agent))
            .collect();
        agents.sort_by(|(one, a), (other, b)| (one.len(), &a.card.id).cmp(&(other.len(), &b.card.id)));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for obstacle in agents.iter().flat_map(|(obstacles, _)| obstacles) {
            *counts.entry(obstacle.code()).or_default() += 1;
        }
        let total = agents.len();
        let able = agents.iter().filter(|(obstacles, _)| obstacles.is_empty()).count();
        let ever = |(obstacles, _): &&(Vec<Obstacle>, _)| {
            !obstacles.iter().any(|one| matches!(one.code(), "queue" | "labels" | "declined"))
        };
        let matching = agents.iter().filter(ever).count();
        let counted: Vec<String> =
            counts.iter().map(|(code, count)| format!("{count} {}", Obstacle::text_of_many(code))).collect();
        let text = match (total, able) {
            (0, _) => "no agent is registered".to_owned(),
            (_, 0) if matching == 0 => format!("none of {total} agents is for it: {}", counted.join(", ")),
            (_, 0) => format!("none of {total} agents can take it now: {}", counted.join(", ")),
            _ => format!("{able} of {total} agents can take it when its turn comes"),
        };
        let code = match (total, able, matching) {
            (0, ..) => "no-agents",
            (_, 0, 0) => "no-match",
            (_, 0, _) => "no-agent-free",
            _ => "turn",
        };
        told.add(code, text, json!({ "waits_for": only.map(|(id, _)| id) }));
        let shown: Vec<Value> = agents
            .iter()
            .take(limit.min(AGENTS_MAX))
            .map(|(obstacles, agent)| explain::told(record, agent, obstacles))
            .collect();
        let left = total - shown.len();
        let among = json!({ "total": total, "able": able, "matching": matching, "obstacles": counts, "left": left });
        (among, shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::agent::{Agent, Card, Status};
    use crate::coordinator::desk::{Output, Settings};
    use crate::types::Timestamp;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    fn a_thousand_agents_are_explained_at_once_and_in_few_words() {
        let now = Timestamp(1_700_000_000_000_000_000);
        let mut desk = Desk::new(Settings::default(), 1, now);
        for n in 0..1000 {
            let labels = serde_json::from_value(json!({ "n": n, "odd": n % 2 })).unwrap();
            let (id, queues) = (format!("a{n}"), vec!["q".to_owned()]);
            let card = Card { id, status: Status::Online, slots: 1, labels, queues, ..Card::default() };
            desk.roster.insert(Agent { card, ..Agent::default() });
        }
        let (id, queue, requires) = ("t".to_owned(), "q".to_owned(), "odd=2,n>=100".to_owned());
        let record = Record { id, queue, requires: requires.into(), queued: now, ..Record::default() };
        let index = desk.insert_task(record, 1);
        desk.line_up(index);
        let begun = std::time::Instant::now();
        desk.request(Incoming::new(b"$TASK.API.EXPLAIN.t", b"reply", b"", b""), now);
        let took = begun.elapsed();
        let outputs = desk.take_outputs();
        let [Output::Publish { payload, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
        println!("EXPLAIN among 1,000 agents: {took:?}, {} bytes", payload.len());
        let told: Value = serde_json::from_slice(payload).unwrap();
        assert_eq!((&told["among"]["total"], &told["among"]["left"]), (&json!(1000), &json!(980)));
        assert_eq!(told["among"]["obstacles"], json!({ "labels": 1000 }));
        assert!(payload.len() < 8192 && took < std::time::Duration::from_millis(500), "{took:?}");
    }
}
