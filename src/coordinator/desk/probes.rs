//! Presence by interest: whether anybody still subscribes to an agent's own subject.
//!
//! A request that nobody listens to is answered with 503 at once, on every NATS server and to every client. So the
//! coordinator asks, and what it sends to itself after that tells when all the 503s there are have come. Agents need not
//! answer. One whose presence is known by its connection is not asked.

use std::time::Duration;

use bytes::Bytes;

use super::agents::Registration;
use super::calls::{Answer, Call};
use super::{Desk, Output};
use crate::coordinator::agent::{Card, Link, Status};
use crate::coordinator::{errors, names};

/// Agents that are not known to listen, or offline, are asked only in one round of so many.
const SELDOM: u32 = 10;
/// How long a new agent has to subscribe before that.
const FRESH: Duration = Duration::from_secs(10);

impl Desk {
    /// Asks for all agents, if it is time.
    pub(super) fn probe_agents(&mut self) {
        if self.now < self.next_probe || self.probing {
            return;
        }
        self.next_probe = self.now + self.settings.probe;
        self.probe_round = self.probe_round.wrapping_add(1);
        let all = self.probe_round.is_multiple_of(SELDOM);
        let mut probes = Vec::new();
        for index in self.roster.indices() {
            let Some(agent) = self.roster.get(index).filter(|agent| agent.link != Link::Connected) else { continue };
            let card = &agent.card;
            let fresh = self.now.since(card.registered) < FRESH;
            let offline = card.status == Status::Offline;
            if all || fresh || card.listens && !offline {
                let (subject, instance) = (presence_of(card), card.instance.clone());
                probes.push(self.probe(subject, Call::Probe { agent: index, instance }));
            }
        }
        if !probes.is_empty() {
            self.probing = true;
            self.echo(probes);
        }
    }

    /// Somebody wants the id of an agent that listens: does it still?
    pub(super) fn probe_rival(&mut self, card: &Card, registration: Registration) {
        let probe = self.probe(presence_of(card), Call::ProbeRival(Box::new(registration)));
        self.echo(vec![probe]);
    }

    fn probe(&mut self, subject: String, call: Call) -> u64 {
        let call = self.open_call(call);
        let payload = Bytes::from_static(br#"{"op":"ping"}"#);
        self.outputs.push(Output::Publish {
            subject: Bytes::from(subject),
            call: Some(call),
            headers: Vec::new(),
            payload,
        });
        call
    }

    fn echo(&mut self, probes: Vec<u64>) {
        let call = self.open_call(Call::ProbesOver { probes });
        self.outputs.push(Output::Echo { call });
    }

    pub(super) fn probe_answered(&mut self, index: u32, instance: &str, answer: &Answer) {
        match answer {
            Answer::Message(message) if message.is_no_responders() => self.absent(index, instance),
            Answer::Message(_) => self.present(index, instance),
            _ => {}
        }
    }

    pub(super) fn rival_probed(&mut self, registration: Registration, answer: &Answer) {
        match answer {
            Answer::Message(message) if message.is_no_responders() => self.create_agent_consumer(registration),
            _ => self.registration_refused(&registration, errors::AGENT_IN_USE),
        }
    }

    /// Every 503 of `probes` has come: where there was none, somebody listens.
    pub(super) fn probes_over(&mut self, probes: Vec<u64>, answer: &Answer) {
        self.probing = false;
        let told = matches!(answer, Answer::Message(_));
        for probe in probes {
            match self.calls.remove(&probe).map(|outstanding| outstanding.call) {
                Some(Call::Probe { agent, instance }) if told => self.present(agent, &instance),
                Some(Call::ProbeRival(registration)) => self.registration_refused(&registration, errors::AGENT_IN_USE),
                _ => {}
            }
        }
    }

    fn present(&mut self, index: u32, instance: &str) {
        let Some(agent) = self.roster.get_mut(index) else { return };
        if agent.card.instance != instance || agent.link == Link::Connected {
            return;
        }
        if !agent.card.listens {
            agent.card.listens = true;
            agent.dirty = true;
        }
        if agent.beats && agent.card.status == Status::Offline {
            // Its subscription was there all the time.
            return;
        }
        self.alive(index, true);
        if let Some(agent) = self.roster.get_mut(index) {
            agent.link = Link::Listening;
        }
    }

    fn absent(&mut self, index: u32, instance: &str) {
        let now = self.now;
        let Some(agent) = self.roster.get_mut(index) else { return };
        if agent.card.instance == instance && agent.link == Link::Listening && agent.card.status != Status::Offline {
            agent.link = Link::Gone(now);
            self.next_sweep = self.next_sweep.min(now + self.settings.grace);
        }
    }
}

/// What an agent subscribes to for as long as it is there. Of its present life only: another of the same id that listens
/// already must not be taken for it.
pub(super) fn presence_of(card: &Card) -> String {
    names::presence_subject(&card.id, &card.instance)
}
