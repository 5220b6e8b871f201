//! AGENT.DRAIN and REMOVE, and agents that stay away for good.

use bytes::Bytes;
use serde_json::Value;

use super::calls::{Answer, Call};
use super::{Desk, Output};
use crate::client::{Incoming, decode_ack};
use crate::coordinator::agent::Status;
use crate::coordinator::{errors, names};
use crate::types::ApiError;

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Drain {
    /// False takes an earlier drain back.
    drain: bool,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain { drain: true }
    }
}

impl Desk {
    /// No new tasks from now on; what it has goes on. Holds until the agent begins a new life or it is taken back.
    pub(super) fn agent_drain(&mut self, id: &str, message: &Incoming) -> Result<(), ApiError> {
        let index = self.find_agent(id)?;
        let body: Drain = match message.payload().trim_ascii() {
            [] => Drain::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        if let Some(agent) = self.roster.get_mut(index)
            && agent.card.draining != body.drain
        {
            agent.card.draining = body.drain;
            let there = agent.card.status != Status::Offline;
            if there {
                agent.card.status = agent.card.status_if_there();
            }
            self.schedule = true;
            self.ready.look_at_asker(index, &self.roster);
            if body.drain {
                let told = Bytes::from_static(br#"{"op":"drain"}"#);
                self.publish(format!("$TASK.X.{id}"), "", told);
                self.announce_agent(id, "draining");
                self.tell_if_drained(index);
            } else if there {
                self.announce_agent(id, "online");
            }
        }
        // It outlives this coordinator once it is answered, so it is stored first.
        let instance = self.roster.get(index).map(|agent| agent.card.instance.clone()).unwrap_or_default();
        self.call_store_card(index, Call::AgentDrained { agent: index, instance, request: message.clone() });
        Ok(())
    }

    pub(super) fn drain_answered(&mut self, index: u32, instance: &str, request: &Incoming, answer: &Answer) {
        let outcome = match answer {
            Answer::Message(message) => decode_ack(message).map(drop).map_err(|error| error.to_string()),
            _ => Err(answer.reason()),
        };
        let Some(agent) = self.roster.get_mut(index).filter(|agent| agent.card.instance == instance) else {
            return self.refuse(request, errors::AGENT_NOT_FOUND);
        };
        if let Err(reason) = outcome {
            agent.dirty = true;
            return self.refuse(request, errors::UNAVAILABLE.with(reason));
        }
        let shown = self.roster.get(index).map(|agent| self.show_agent(agent)).unwrap_or_default();
        self.respond(request, shown);
    }

    /// Says so when a draining agent has nothing left to do.
    pub(super) fn tell_if_drained(&mut self, index: u32) {
        let drained = self.roster.get(index).filter(|agent| agent.card.draining && agent.live.is_empty());
        if let Some(id) = drained.map(|agent| agent.card.id.clone()) {
            self.announce_agent(&id, "drained");
        }
    }

    pub(super) fn agent_remove(&mut self, id: &str, message: &Incoming) -> Result<(), ApiError> {
        let index = self.find_agent(id)?;
        self.forget_agent(index, id);
        self.respond(message, serde_json::json!({ "agent": id, "removed": true }));
        Ok(())
    }

    /// Takes an agent and all that is kept for it away. What it had goes to others.
    fn forget_agent(&mut self, index: u32, id: &str) {
        self.lose_tasks(index);
        self.flush_spent(index);
        self.vacate(id);
        // Its number will be another's.
        for task in self.roster.get(index).map(|agent| agent.live.clone()).unwrap_or_default() {
            self.release(task);
        }
        self.roster.remove(index);
        let api = format!("CONSUMER.DELETE.{}.{}", names::STREAM, names::agent_consumer(id));
        self.call_api(Call::Unimportant, &api, &Value::Null);
        let call = self.open_call(Call::Unimportant);
        self.outputs.push(Output::Publish {
            subject: Bytes::from(names::agent_key(id)),
            call: Some(call),
            headers: names::block("KV-Operation: DEL\r\n"),
            payload: Bytes::new(),
        });
        self.announce_agent(id, "removed");
    }

    /// Whether an agent has been away for so long that it is taken for gone; then it is removed.
    pub(super) fn expire_agent(&mut self, index: u32) -> bool {
        let Some(agent) = self.roster.get(index) else { return false };
        let gone = agent.card.status == Status::Offline
            && agent.live.is_empty()
            && agent.subject().is_none()
            && agent.last_heard() + self.settings.agent_kept <= self.now;
        if gone {
            let id = agent.card.id.clone();
            tracing::info!(agent = id, "an agent that has been away for long is removed");
            self.forget_agent(index, &id);
        }
        gone
    }
}
