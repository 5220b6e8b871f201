//! AGENT.REGISTER, INFO, LIST, DRAIN and REMOVE; agents' coming and going.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;

use super::answers::ConsumerState;
use super::calls::{Answer, Call};
use super::{Desk, Loss};
use crate::client::{BatchEntry, Incoming, decode_ack};
use crate::coordinator::agent::{Agent, Card, LeaseBy, Link, Status};
use crate::coordinator::labels::Labels;
use crate::coordinator::task::Event;
use crate::coordinator::{errors, names, record, seconds};
use crate::types::ApiError;

/// A registration under way.
#[derive(Debug)]
pub(super) struct Registration {
    card: Card,
    resume: String,
    link: Link,
    /// The same agent as before, with its leases.
    resumed: bool,
    request: Incoming,
}

/// Why an agent's consumer is asked for its state.
#[derive(Debug)]
pub(super) enum InfoPurpose {
    /// Which of its assignments were delivered, and whether it pulls.
    LookAfter,
    /// It is gone: which of these tasks, by index and lease, did it have?
    Lost(Vec<(u32, String)>),
    /// Another one wants its name: does it still pull?
    Rival(Box<Registration>),
}

/// Requests that wait for the registration of one agent.
const LINE_MAX: usize = 100;
/// Cards in one page of a list.
const LIST_MAX: usize = 10_000;
/// Bytes of what an agent says of itself beyond what the coordinator acts on.
const MORE_BYTES_MAX: usize = 16 << 10;

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Request {
    labels: Labels,
    slots: Option<u32>,
    queues: Option<Vec<String>>,
    resume: String,
    client_id: u64,
    client_name: Option<String>,
    lease_by: LeaseBy,
    /// What it completed before it was registered here.
    tasks_completed: Option<u64>,
    #[serde(flatten)]
    more: serde_json::Map<String, Value>,
}

impl Desk {
    pub(super) fn agent_register(&mut self, id: &str, message: &Incoming) -> Result<(), ApiError> {
        if !record::is_id(id) {
            return Err(errors::bad_request("an agent's id is one token of A-Z a-z 0-9 _ -, up to 64"));
        }
        if let Some(line) = self.registering.get_mut(id) {
            if line.len() >= LINE_MAX {
                return Err(errors::AGENT_IN_USE);
            }
            line.push_back(message.clone());
            return Ok(());
        }
        let mut request: Request = match message.payload().trim_ascii() {
            [] => Request::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        let slots = request.slots.unwrap_or(1);
        if !(1..=100_000).contains(&slots) {
            return Err(errors::bad_request("slots is 1 to 100000"));
        }
        let queues = request.queues.unwrap_or_else(|| vec![names::DEFAULT_QUEUE.to_owned()]);
        if queues.is_empty() || queues.iter().any(|queue| queue != "*" && !record::is_id(queue)) {
            return Err(errors::bad_request("queues are names of queues, or *"));
        }
        // What the card says by itself is not the agent's to say.
        for own in [
            "server_id",
            "listens",
            "micro",
            "id",
            "status",
            "seats",
            "draining",
            "instance",
            "registered",
            "last_seen",
            "in_flight",
            "completed",
            "resume",
        ] {
            request.more.remove(own);
        }
        let said = serde_json::to_vec(&request.more).map_or(0, |said| said.len());
        let labels = serde_json::to_vec(&request.labels).map_or(0, |labels| labels.len());
        if said + labels > MORE_BYTES_MAX {
            let reason = format!("what the agent says of itself is above {MORE_BYTES_MAX} bytes");
            return Err(errors::TOO_LARGE.with(reason));
        }
        let client_name = request.client_name.unwrap_or_else(|| id.to_owned());
        let (link, client_id) = self.link_of(request.client_id, &client_name);
        let known = self.roster.find(id).and_then(|index| self.roster.get(index).map(|agent| (index, agent)));
        let resumed = known.is_some_and(|(_, agent)| !request.resume.is_empty() && agent.resume == request.resume);
        let instance = match known {
            Some((_, agent)) if resumed => agent.card.instance.clone(),
            _ => self.random.token(12),
        };
        let completed = known.map_or(request.tasks_completed.unwrap_or(0), |(_, agent)| agent.card.completed);
        let card = Card {
            id: id.to_owned(),
            status: Status::Online,
            draining: false,
            labels: request.labels,
            seats: Vec::new(),
            slots,
            queues,
            lease_by: request.lease_by,
            instance,
            client_id,
            server_id: if client_id > 0 { self.settings.server_id.clone() } else { String::new() },
            client_name,
            listens: false,
            micro: None,
            registered: self.now,
            last_seen: self.now,
            in_flight: 0,
            completed,
            tasks_completed: completed,
            more: request.more,
        };
        let resume = if resumed { request.resume } else { self.random.token(22) };
        let registration = Registration { card, resume, link, resumed, request: message.clone() };
        if known.is_some_and(|(_, agent)| agent.subject().is_some()) {
            return Err(errors::bad_request("this id is a micro service's"));
        }
        let rival = known.filter(|(_, agent)| !resumed && agent.card.status != Status::Offline);
        // What counts as its connection may be the asker's: that of a process that took its predecessor's place.
        let its = |agent: &Agent| match request.client_id {
            0 => agent.renewed,
            id => agent.card.client_id == id,
        };
        if rival.is_some_and(|(_, agent)| agent.link == Link::Connected && !its(agent)) {
            return Err(errors::AGENT_IN_USE);
        }
        let rival = rival.map(|(index, agent)| (index, agent.link));
        self.registering.insert(id.to_owned(), VecDeque::new());
        match rival {
            None | Some((_, Link::Gone(_) | Link::Connected)) => self.create_agent_consumer(registration),
            Some((index, Link::Listening)) => {
                let card = self.roster.get(index).map(|agent| agent.card.clone()).unwrap_or_default();
                self.probe_rival(&card, registration);
            }
            Some((index, Link::Unknown)) => self.ask_agent(index, InfoPurpose::Rival(Box::new(registration))),
        }
        Ok(())
    }

    pub(super) fn registration_refused(&mut self, registration: &Registration, error: ApiError) {
        self.refuse(&registration.request, error);
        self.registration_over(&registration.card.id, false);
    }

    /// Takes up the requests that came while an agent registered. When it has, it is alive to all others, and none of them can
    /// have seen it pull or subscribe.
    fn registration_over(&mut self, id: &str, registered: bool) {
        for message in self.registering.remove(id).unwrap_or_default() {
            let others = registered && !self.is_its(id, &message);
            let outcome = if others { Err(errors::AGENT_IN_USE) } else { self.agent_register(id, &message) };
            if let Err(error) = outcome {
                self.refuse(&message, error);
            }
        }
    }

    /// Whether a REGISTER shows that it comes from the agent that has the id.
    fn is_its(&self, id: &str, message: &Incoming) -> bool {
        let request: Request = serde_json::from_slice(message.payload()).unwrap_or_default();
        let agent = self.roster.find(id).and_then(|index| self.roster.get(index));
        agent.is_some_and(|agent| {
            !request.resume.is_empty() && request.resume == agent.resume
                || request.client_id > 0 && request.client_id == agent.card.client_id
        })
    }

    /// Seconds of the leases an agent gets, shortest and longest: those of the queues it serves. One that was never set up, and
    /// those that are to come where it serves all, have the default.
    fn agent_leases(&self, card: &Card) -> (f64, f64) {
        let every = card.queues.iter().any(|queue| queue == "*");
        let given = self.queues.values().map(|queue| &queue.config).filter(|_| every);
        let given = given.filter(|config| config.mode.is_assigned());
        let named = card.queues.iter().map(|queue| self.queue_config(queue));
        let leases = given.chain(named).map(|config| config.lease_s);
        leases.fold((f64::INFINITY, 0.0), |(least, most), lease| (lease.min(least), lease.max(most)))
    }

    pub(super) fn create_agent_consumer(&mut self, registration: Registration) {
        let card = registration.card.clone();
        self.call_create_consumer(Call::AgentConsumer(Box::new(registration)), &card);
    }

    /// Somebody deleted an agent's consumer. The new one delivers again what is not done.
    fn restore_agent_consumer(&mut self, index: u32) {
        self.flush_spent(index);
        let Some(agent) = self.roster.get_mut(index) else { return };
        agent.delivered = None;
        let card = agent.card.clone();
        tracing::warn!(agent = card.id, "an agent's consumer was deleted, and is made again");
        self.call_create_consumer(Call::Unimportant, &card);
    }

    fn call_create_consumer(&mut self, call: Call, card: &Card) {
        let id = &card.id;
        let name = names::agent_consumer(id);
        let (_, longest) = self.agent_leases(card);
        // One delivery per assignment: a new attempt is a new message. The lease is counted by the coordinator, which sees
        // the acks; ack_wait only tells the consumer when to forget a message.
        let body = serde_json::json!({
            "stream_name": names::STREAM,
            "config": {
                "durable_name": name,
                "name": name,
                "filter_subject": format!("$KV.TASK.a.{id}.>"),
                "ack_policy": "explicit",
                "deliver_policy": "all",
                "ack_wait": seconds::duration(longest).as_nanos() as u64,
                "max_deliver": 1,
                "max_ack_pending": -1,
            },
        });
        let api = format!("CONSUMER.CREATE.{}.{name}", names::STREAM);
        self.call_api(call, &api, &body);
    }

    pub(super) fn agent_consumer_answered(&mut self, mut registration: Registration, answer: Answer) {
        if let Err(reason) = super::answers::json(&answer) {
            return self.registration_refused(&registration, errors::UNAVAILABLE.with(reason));
        }
        // A drain, also one that has come meanwhile, is stored before this and must not be written over.
        let known = self.roster.find(&registration.card.id).and_then(|index| self.roster.get(index));
        registration.card.draining = registration.resumed && known.is_some_and(|agent| agent.card.draining);
        registration.card.status = registration.card.status_if_there();
        let entry = card_entry(&registration.card, &registration.resume);
        self.call_batch(Call::AgentCard(Box::new(registration)), vec![entry]);
    }

    pub(super) fn agent_card_answered(&mut self, registration: Registration, answer: Answer) {
        let outcome = match &answer {
            Answer::Message(message) => decode_ack(message).map(drop).map_err(|error| error.to_string()),
            _ => Err(answer.reason()),
        };
        if let Err(reason) = outcome {
            return self.registration_refused(&registration, errors::UNAVAILABLE.with(reason));
        }
        let Registration { mut card, resume, link, resumed, request } = registration;
        let id = card.id.clone();
        let (lease_s, _) = self.agent_leases(&card);
        let (instance, lease_by) = (card.instance.clone(), card.lease_by);
        match self.roster.find(&id) {
            Some(index) => {
                if !resumed {
                    self.lose_tasks(index);
                }
                if let Some(agent) = self.roster.get_mut(index) {
                    // Who comes back with its token goes on with what it was told, if only just now; a new life has not been
                    // told anything.
                    card.draining = resumed && agent.card.draining;
                    card.status = card.status_if_there();
                    card.completed = card.completed.max(agent.card.completed);
                    card.tasks_completed = card.completed;
                    agent.card = card;
                    agent.resume = resume.clone();
                    agent.link = link;
                    agent.renewed = false;
                    agent.beats = false;
                    agent.spoke = self.now;
                    agent.stalled = false;
                    agent.delivered = None;
                    agent.dirty = true;
                }
                self.roster.recast(index);
            }
            None => {
                let agent = Agent { card, resume: resume.clone(), link, ..Agent::default() };
                self.roster.insert(agent);
            }
        }
        self.schedule = true;
        self.reseat(&id);
        self.announce_agent(&id, if resumed { "resumed" } else { "registered" });
        let fields = serde_json::json!({
            "agent": id,
            "stream": names::STREAM,
            "consumer": names::agent_consumer(&id),
            "heartbeat": format!("$TASK.HB.{id}"),
            "heartbeat_s": self.settings.heartbeat.as_secs_f64(),
            "heartbeat_needed": link != Link::Connected,
            "control": format!("$TASK.X.{id}"),
            "presence": names::presence_subject(&id, &instance),
            "lease_s": lease_s,
            "lease_by": lease_by,
            "instance": instance,
            "resume": resume,
        });
        self.respond(&request, fields);
        self.registration_over(&id, true);
    }

    pub(super) fn find_agent(&self, id: &str) -> Result<u32, ApiError> {
        self.roster.find(id).ok_or(errors::AGENT_NOT_FOUND)
    }

    pub(super) fn show_agent(&self, agent: &Agent) -> Value {
        let mut card = agent.card.clone();
        card.in_flight = agent.live.len() as u32;
        serde_json::to_value(card).expect("a card is plain data")
    }

    pub(super) fn agent_info(&mut self, id: &str, message: &Incoming) -> Result<(), ApiError> {
        let index = self.find_agent(id)?;
        let agent = self.roster.get(index).ok_or(errors::AGENT_NOT_FOUND)?;
        let mut shown = self.show_agent(agent);
        let tasks: Vec<&str> =
            agent.live.iter().filter_map(|index| Some(self.task(*index)?.record.id.as_str())).collect();
        shown["tasks"] = tasks.into();
        self.respond(message, shown);
        Ok(())
    }

    /// In the order of their ids, with how many there are of each status.
    pub(super) fn agent_list(&mut self, message: &Incoming) -> Result<(), ApiError> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Filter {
            status: Option<Status>,
            limit: Option<usize>,
            /// The id after which the page begins.
            after: String,
        }
        let filter: Filter = match message.payload().trim_ascii() {
            [] => Filter::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        let agents = || self.roster.iter().map(|(_, agent)| agent);
        let count = |status| agents().filter(|agent| agent.card.status == status).count();
        let counts = [Status::Online, Status::Draining, Status::Offline].map(count);
        let available = agents().filter(|agent| agent.free_slots() > 0).count();
        let mut wanted: Vec<&Agent> =
            agents().filter(|agent| filter.status.is_none_or(|status| status == agent.card.status)).collect();
        wanted.sort_by(|a, b| a.card.id.cmp(&b.card.id));
        let start = wanted.partition_point(|agent| agent.card.id <= filter.after);
        let limit = filter.limit.unwrap_or(LIST_MAX).min(LIST_MAX);
        // Cards can be long: a page ends before the answer is too long.
        let (mut page, mut bytes) = (Vec::new(), 0);
        for agent in wanted[start..].iter().take(limit) {
            let shown = self.show_agent(agent);
            bytes += shown.to_string().len() + 1;
            if bytes > self.settings.body_bytes_max - 1024 && !page.is_empty() {
                break;
            }
            page.push(shown);
        }
        let left = wanted.len() - start - page.len();
        let fields = serde_json::json!({
            "agents": page, "left": left, "total": counts.iter().sum::<usize>(), "available": available,
            "online": counts[0], "draining": counts[1], "offline": counts[2],
        });
        self.respond(message, fields);
        Ok(())
    }

    /// A sign of life of the agent's own, and not only of its connection.
    pub(super) fn speaks(&mut self, index: u32, returning: bool) {
        if let Some(agent) = self.roster.get_mut(index) {
            agent.spoke = self.now;
        }
        self.alive(index, returning);
    }

    /// A sign of life. `returning` brings an agent back that was given up.
    pub(super) fn alive(&mut self, index: u32, returning: bool) {
        let now = self.now;
        let Some(agent) = self.roster.get_mut(index) else { return };
        agent.card.last_seen = now;
        agent.ask_pause = std::time::Duration::ZERO;
        if returning && matches!(agent.link, Link::Gone(_)) {
            agent.link = Link::Unknown;
            self.schedule = true;
        }
        if returning && agent.card.status == Status::Offline {
            // It may have lost its way to send beats, and not its life.
            agent.beats = false;
            if agent.link == Link::Unknown && self.connections.contains_key(&agent.card.client_id) {
                agent.link = Link::Connected;
            }
            let draining = agent.card.draining;
            agent.card.status = agent.card.status_if_there();
            agent.dirty = true;
            let id = agent.card.id.clone();
            self.schedule = true;
            self.ready.look_at_asker(index, &self.roster);
            self.announce_agent(&id, if draining { "draining" } else { "online" });
        }
    }

    /// It pulls, acks or has been delivered something: what it is given now will not lie. That it is there says no such thing.
    pub(super) fn fetches(&mut self, index: u32) {
        if let Some(agent) = self.roster.get_mut(index) {
            self.schedule |= std::mem::take(&mut agent.stalled);
        }
    }

    /// Gives an agent up: no new work, and what it had goes to others.
    pub(super) fn lose(&mut self, index: u32, reason: &str) {
        let Some(agent) = self.roster.get_mut(index) else { return };
        agent.card.status = Status::Offline;
        agent.link = Link::Unknown;
        agent.dirty = true;
        let id = agent.card.id.clone();
        tracing::info!(agent = id, reason, "agent lost");
        self.lose_tasks(index);
        self.ready.look_at_asker(index, &self.roster);
        self.schedule = true;
        self.vacate(&id);
        self.announce_agent(&id, "offline");
    }

    /// Takes all tasks from an agent. Which of them it had is asked first: those count as attempts.
    pub(super) fn lose_tasks(&mut self, index: u32) {
        let Some(agent) = self.roster.get(index) else { return };
        // A task that is to be given to it and is not on its way to the store stays where it is: see `Desk::is_there`.
        let held: Vec<(u32, String)> = agent
            .live
            .iter()
            .filter_map(|task| Some((*task, self.task(*task)?.coming_lease().to_owned())))
            .filter(|(_, lease)| !lease.is_empty())
            .collect();
        if !held.is_empty() {
            self.ask_agent(index, InfoPurpose::Lost(held));
        }
    }

    pub(super) fn ask_agent(&mut self, index: u32, purpose: InfoPurpose) {
        let Some(agent) = self.roster.get_mut(index) else { return };
        if agent.subject().is_some() {
            // It has no consumer that could tell.
            if let InfoPurpose::Lost(held) = purpose {
                self.service_lost(held);
            }
            return;
        }
        if matches!(purpose, InfoPurpose::LookAfter) {
            if agent.asked {
                return;
            }
            agent.asked = true;
        }
        let (id, instance) = (agent.card.id.clone(), agent.card.instance.clone());
        let api = format!("CONSUMER.INFO.{}.{}", names::STREAM, names::agent_consumer(&id));
        self.call_api(Call::AgentInfo { agent: index, instance, purpose }, &api, &Value::Null);
    }

    pub(super) fn agent_info_answered(&mut self, index: u32, instance: String, purpose: InfoPurpose, answer: Answer) {
        let state = super::answers::json(&answer).map(|info| ConsumerState::read(&info));
        let same = self.roster.get(index).is_some_and(|agent| agent.card.instance == instance);
        match purpose {
            InfoPurpose::LookAfter => {
                if let Some(agent) = self.roster.get_mut(index).filter(|_| same) {
                    agent.asked = false;
                    match state {
                        Ok(state) => self.looked_after(index, state),
                        Err(_) if super::answers::is_without_consumer(&answer) => self.restore_agent_consumer(index),
                        Err(reason) => tracing::debug!(reason, "an agent's consumer does not answer"),
                    }
                }
            }
            InfoPurpose::Lost(held) => {
                // Without an answer it counts as delivered: an attempt too many counted is better than a task that
                // kills agents for ever.
                let delivered = state.map_or(u64::MAX, |state| state.delivered_seq);
                for (task, lease) in held {
                    self.lose_task(task, lease, delivered);
                }
            }
            InfoPurpose::Rival(registration) => {
                if same && state.is_ok_and(|state| state.waiting > 0) {
                    self.registration_refused(&registration, errors::AGENT_IN_USE);
                } else {
                    self.create_agent_consumer(*registration);
                }
            }
        }
    }

    /// Takes a task from an agent that is gone, whose consumer had delivered up to a sequence.
    pub(super) fn lose_task(&mut self, index: u32, lease: String, delivered: u64) {
        let Some(task) = self.task_mut(index).filter(|task| task.coming_lease() == lease) else { return };
        if task.record.lease != lease {
            // Where the assignment is stored, and whether it was delivered, is known when it is.
            task.loss = Some(Box::new(Loss { lease, delivered }));
        } else if task.record.phase.is_leased() {
            task.seen |= task.item > 0 && task.item <= delivered;
            self.enqueue_event(index, Event::AgentLost);
        }
    }

    /// Whether an assignment's agent can still be given it.
    pub(super) fn is_there(&self, agent: &str, index: u32) -> bool {
        let Some(found) = self.roster.find(agent) else { return false };
        self.task(index).is_some_and(|task| task.holder == Some(found))
            && self.roster.get(found).is_some_and(|agent| agent.card.status == Status::Online)
    }

    /// Removes what is stored of assignments that are over: in one purge below the oldest live one, else one by one.
    pub(super) fn flush_spent(&mut self, index: u32) {
        let Some(agent) = self.roster.get_mut(index) else { return };
        if agent.spent.is_empty() {
            return;
        }
        let spent = std::mem::take(&mut agent.spent);
        let (id, live) = (agent.card.id.clone(), agent.live.clone());
        // A slot whose assignment is not stored yet will get a higher sequence than all of these.
        let oldest =
            live.iter().filter_map(|task| self.task(*task)).map(|task| task.item).filter(|item| *item > 0).min();
        let oldest = oldest.unwrap_or(u64::MAX);
        let (below, above): (Vec<u64>, Vec<u64>) = spent.into_iter().partition(|seq| *seq < oldest);
        match below.as_slice() {
            [] => {}
            [one] => self.delete_message(*one),
            many => {
                let upto = many.iter().max().expect("it is not empty") + 1;
                let body = serde_json::json!({ "filter": format!("$KV.TASK.a.{id}.>"), "seq": upto });
                self.call_api(Call::Unimportant, &format!("STREAM.PURGE.{}", names::STREAM), &body);
            }
        }
        for seq in above {
            self.delete_message(seq);
        }
    }

    pub(super) fn announce_agent(&mut self, id: &str, what: &str) {
        let body = serde_json::json!({
            "type": "io.natterjack.task.event.v1.agent", "agent": id, "event": what, "time": self.now,
        });
        self.publish(format!("$TASK.E.AGENT.{id}"), "", Bytes::from(body.to_string()));
    }

    pub(super) fn store_card(&mut self, index: u32) {
        self.call_store_card(index, Call::Unimportant);
    }

    pub(super) fn call_store_card(&mut self, index: u32, call: Call) {
        let Some(agent) = self.roster.get_mut(index) else { return };
        agent.dirty = false;
        agent.card.in_flight = agent.live.len() as u32;
        let entry = card_entry(&agent.card, &agent.resume);
        self.call_batch(call, vec![entry]);
    }
}

/// The stored card; the resume token goes along as a header, out of the sight of those who only read values.
fn card_entry(card: &Card, resume: &str) -> BatchEntry {
    let body = serde_json::to_vec(card).expect("a card is plain data");
    BatchEntry::new(names::agent_key(&card.id), body).header("Task-Resume", resume)
}
