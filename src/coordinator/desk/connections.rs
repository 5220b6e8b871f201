//! Presence by connection: the broker tells whose connection began and ended.

use super::Desk;
use crate::coordinator::agent::{Card, Link, Status};
use crate::types::Timestamp;

/// A client connection began or ended, as the server that embeds the coordinator tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    Connected { client_id: u64, name: String },
    Disconnected { client_id: u64 },
}

impl Desk {
    /// Takes a connection event. An agent is known by the client id it registered with, else by its connection's name.
    pub fn connection(&mut self, event: ConnectionEvent, now: Timestamp) {
        self.now = now;
        match event {
            ConnectionEvent::Connected { client_id, name } => {
                // Many connections have no name, and a service is known by its answers alone.
                let is_its = |card: &Card| {
                    let named = !name.is_empty() && card.client_name == name;
                    card.micro.is_none() && (card.client_id == client_id || named)
                };
                let matching: Vec<u32> =
                    self.roster.iter().filter(|(_, agent)| is_its(&agent.card)).map(|(index, _)| index).collect();
                self.connections.insert(client_id, name);
                for index in matching {
                    let Some(agent) = self.roster.get_mut(index) else { continue };
                    if agent.link != Link::Connected {
                        agent.link = Link::Connected;
                        agent.renewed |= agent.card.client_id != client_id;
                        agent.card.client_id = client_id;
                        agent.card.server_id.clone_from(&self.settings.server_id);
                        self.alive(index, true);
                    }
                }
            }
            ConnectionEvent::Disconnected { client_id } => {
                self.connections.remove(&client_id);
                for index in self.roster.indices() {
                    let Some(agent) = self.roster.get_mut(index) else { continue };
                    if agent.card.client_id == client_id && agent.link == Link::Connected {
                        agent.link = Link::Gone(now);
                        if agent.card.status == Status::Offline {
                            agent.link = Link::Unknown;
                        }
                        // The sweep that ends the grace should not be late by its own period.
                        self.next_sweep = self.next_sweep.min(now + self.settings.grace);
                    }
                }
            }
        }
    }

    /// The connection an agent registers over, if it is known.
    pub(super) fn link_of(&self, client_id: u64, client_name: &str) -> (Link, u64) {
        if !self.settings.presence {
            return (Link::Unknown, client_id);
        }
        if client_id > 0 && self.connections.contains_key(&client_id) {
            return (Link::Connected, client_id);
        }
        let mut named = self.connections.iter().filter(|(_, name)| !name.is_empty() && *name == client_name);
        match (named.next(), named.next()) {
            (Some((id, _)), None) => (Link::Connected, *id),
            _ => (Link::Unknown, client_id),
        }
    }
}
