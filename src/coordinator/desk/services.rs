//! Micro services as workers: who they are is asked by `$SRV.INFO`, a request to their endpoint is the lease, and the
//! response completes the task.
//!
//! Each attempt has a reply subject of its own, which names task and lease and is the same to every coordinator: a late
//! answer of an older attempt has the wrong lease, and one that comes after a restart still finds its task.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::calls::{Answer, Call};
use super::requests::clip;
use super::{Desk, Output};
use crate::client::Incoming;
use crate::coordinator::agent::{Agent, Card, Link, Micro, Status};
use crate::coordinator::directory::{self, Directory};
use crate::coordinator::names;
use crate::coordinator::queue::Mode;
use crate::coordinator::record;
use crate::coordinator::seconds;
use crate::coordinator::task::Event;
use crate::types::Timestamp;

/// How much more seldom services are asked for when nothing is open.
const IDLE: u32 = 4;

/// A request on its way to the store, to be sent once its lease is there.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub subject: String,
    pub lines: String,
    pub body: Bytes,
}

/// Services at run time.
#[derive(Debug, Default)]
pub(super) struct Services {
    directory: Directory,
    last_round: Timestamp,
}

impl Desk {
    /// Whether any queue is for services.
    pub(super) fn has_services(&self) -> bool {
        self.queues.values().any(|queue| queue.config.mode == Mode::Service)
    }

    /// Asks who is there at the next look.
    pub(super) fn discover_soon(&mut self) {
        self.services.last_round = Timestamp::ZERO;
        self.next_sweep = self.next_sweep.min(self.now);
    }

    /// Asks who is there, if it is time: often while a task waits for somebody, else now and then.
    pub(super) fn discover_services(&mut self) {
        if !self.has_services() || self.now < self.services.last_round + self.discovery_pause() {
            return;
        }
        self.services.last_round = self.now;
        let patience = self.settings.heartbeat;
        for subject in self.services.directory.begin_round(patience, self.now) {
            self.enlist(&subject);
        }
        let call = self.open_call(Call::Discovery);
        self.outputs.push(Output::Publish {
            subject: Bytes::from_static(b"$SRV.INFO"),
            call: Some(call),
            headers: Vec::new(),
            payload: Bytes::new(),
        });
    }

    fn discovery_pause(&self) -> Duration {
        let open = self.queues.iter().filter(|(_, queue)| queue.config.mode == Mode::Service && queue.open > 0);
        let served = |name: &String| {
            let serves = |agent: &Agent| agent.card.status == Status::Online && agent.serves(name);
            self.roster.iter().any(|(_, agent)| serves(agent))
        };
        let pause = self.settings.heartbeat / 3;
        match open.map(|(name, _)| served(name)).reduce(|all, served| all && served) {
            Some(false) => self.settings.probe,
            Some(true) => pause,
            None => pause * IDLE,
        }
    }

    /// One of many answers to `$SRV.INFO`.
    pub(super) fn service_heard(&mut self, answer: &Answer) {
        let Answer::Message(message) = answer else { return };
        for mut offer in directory::offers(message.payload()) {
            let is_for_services =
                |queue: &String| self.queues.get(queue).is_some_and(|queue| queue.config.mode == Mode::Service);
            offer.queues.retain(is_for_services);
            if !offer.queues.is_empty() {
                let subject = offer.subject.clone();
                self.services.directory.hear(offer, self.now);
                self.enlist(&subject);
            }
        }
    }

    /// Makes an endpoint's agent what is known of its instances.
    fn enlist(&mut self, subject: &str) {
        let endpoint = self.services.directory.get(subject).cloned().unwrap_or_default();
        let known = self.roster.iter().find(|(_, agent)| agent.subject() == Some(subject)).map(|(index, _)| index);
        let now = self.now;
        if endpoint.instances() == 0 {
            if let Some(index) = known {
                self.lose(index, "no instance of the service answers");
            }
            return;
        }
        let micro = Micro {
            service: endpoint.service.clone(),
            subject: subject.to_owned(),
            instances: endpoint.instances() as u32,
        };
        let index = known.unwrap_or_else(|| {
            let id = agent_id(&endpoint.service, subject);
            let card = Card { id, registered: now, ..Card::default() };
            self.roster.insert(Agent { card, ..Agent::default() })
        });
        let Some(agent) = self.roster.get_mut(index) else { return };
        let before = agent.card.clone();
        agent.link = Link::Connected;
        agent.card.micro = Some(micro);
        agent.card.slots = endpoint.slots();
        agent.card.labels = endpoint.labels();
        agent.card.queues = endpoint.queues;
        agent.card.last_seen = now;
        let back = agent.card.status_if_there();
        if agent.card.status == Status::Offline {
            agent.card.status = back;
        }
        let news = Card { last_seen: before.last_seen, ..agent.card.clone() } != before;
        let (id, cameback) = (agent.card.id.clone(), before.status == Status::Offline);
        let other = before.labels != agent.card.labels || before.queues != agent.card.queues;
        agent.dirty |= news;
        if other {
            self.roster.recast(index);
        }
        if cameback {
            self.announce_agent(&id, if back == Status::Draining { "draining" } else { "online" });
        }
        if known.is_none() {
            // Before anything is given to it: a task whose agent the next coordinator does not know has lost its lease.
            self.store_card(index);
        }
        self.schedule |= news;
    }

    /// Where a service takes its requests, if `agent` is one.
    pub(super) fn endpoint_of(&self, agent: &str) -> Option<String> {
        let agent = self.roster.get(self.roster.find(agent)?)?;
        agent.subject().map(str::to_owned)
    }

    /// Sends the request whose lease is stored now.
    pub(super) fn send_request(&mut self, index: u32) {
        let Some(task) = self.task_mut(index) else { return };
        let Some(request) = task.request.take() else { return };
        let Request { subject, lines, body } = *request;
        task.seen = true;
        let reply = names::service_reply(&task.record.id, &task.record.lease);
        self.outputs.push(Output::Request {
            subject: Bytes::from(subject),
            reply: Bytes::from(reply),
            headers: names::block(&lines),
            payload: body,
        });
    }

    /// What came back on a request's reply subject; `tail` is `<task>.<lease>`.
    pub fn service_answer(&mut self, tail: &str, message: Incoming, now: Timestamp) {
        self.now = now;
        let Some((id, lease)) = tail.split_once('.') else { return };
        let Some(index) = self.ids.get(id).copied() else { return };
        let lease = lease.to_owned();
        if message.is_no_responders() {
            let Some(task) = self.task(index).filter(|task| task.record.lease == lease) else { return };
            let agent = task.record.agent.clone();
            self.desert(&agent);
            return self.enqueue_event(index, Event::Unserved { lease });
        }
        let headers = message.headers();
        let code = headers.get_str("Nats-Service-Error-Code");
        let event = match (code, headers.get_str("Nats-Service-Error")) {
            (None, None) => match self.check_result(&message) {
                Ok(digest) => Event::Complete { lease, digest },
                Err(error) => {
                    let error = format!("{} {}", error.code, error.description);
                    return self.enqueue_event(index, Event::Fail { lease, error, retry: false, delay: None });
                }
            },
            (code, text) => {
                let (code, text) = (code.unwrap_or_default().trim(), text.unwrap_or_default());
                let number = code.parse().unwrap_or(500);
                let retry = !(400..500).contains(&number) || number == 429;
                let delay = headers.get_str("Retry-After").and_then(names::seconds);
                let delay = delay.map(seconds::pause);
                let error = clip(format!("{code} {text}").trim());
                return self.enqueue_event(index, Event::Fail { lease, error, retry, delay });
            }
        };
        // Whoever answers gets no answer.
        let from = Incoming::new(message.subject(), b"", message.header_block(), message.payload());
        self.enqueue(index, super::Input { event, from: Some(from), purge: None });
    }

    /// Nobody listens to a service's subject now: nothing more for it until somebody is found there. What it has, it may
    /// still answer.
    fn desert(&mut self, agent: &str) {
        let Some(index) = self.roster.find(agent) else { return };
        let Some(agent) = self.roster.get_mut(index) else { return };
        let (Some(subject), id) = (agent.subject().map(str::to_owned), agent.card.id.clone()) else { return };
        if agent.card.status == Status::Offline {
            return;
        }
        agent.card.status = Status::Offline;
        agent.dirty = true;
        self.services.directory.deserted(&subject);
        self.announce_agent(&id, "offline");
    }

    /// What becomes of a service's tasks when it is gone: there is nobody to ask, and all were sent.
    pub(super) fn service_lost(&mut self, held: Vec<(u32, String)>) {
        for (index, lease) in held {
            self.lose_task(index, lease, 0);
        }
    }

    /// What EXPLAIN and QUEUE.INFO tell of the services of a queue.
    pub(super) fn show_services(&self, queue: &str) -> Value {
        let all = self.roster.iter().filter(|(_, agent)| agent.subject().is_some() && agent.serves(queue));
        let shown = all.map(|(_, agent)| {
            let micro = agent.card.micro.clone().unwrap_or_default();
            serde_json::json!({
                "agent": agent.card.id, "service": micro.service, "subject": micro.subject,
                "instances": micro.instances, "status": agent.card.status, "slots": agent.card.slots,
                "in_flight": agent.live.len(),
            })
        });
        shown.collect()
    }
}

/// The id of an endpoint's agent: the same at every start, one token whatever the service is called.
fn agent_id(service: &str, subject: &str) -> String {
    let name: String = service.chars().filter(|letter| record::is_id(&letter.to_string())).take(40).collect();
    format!("srv_{name}_{}", &record::digest(subject.as_bytes())[..8])
}
