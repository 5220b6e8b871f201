//! Seats of councils as the bucket tells of them: claims, losses, and keys that must go. Who sits is what is stored, nothing
//! else: an agent that is lost leaves its seat by the deletion of its key.

use bytes::Bytes;

use super::calls::{Answer, Call};
use super::{Desk, Output};
use crate::client::{JetStreamError, decode_ack};
use crate::coordinator::council::{Claim, Seat, Status, sitter_of};
use crate::coordinator::names;
use crate::types::{ApiError, Timestamp};

/// Deletions that may wait for their answers; what is beyond that is found by the next start.
const REMOVALS_MAX: usize = 10_000;
/// How long one waits that failed.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// A key that is to be deleted as long as it is at this revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removal {
    revision: u64,
    /// When it is tried again, if no answer is under way.
    retry_at: Timestamp,
    /// The marker does not go by itself: the bucket knows no times to live.
    lasting: bool,
}

impl Desk {
    /// A key of the bucket below its prefix, as it was written or deleted.
    pub(super) fn council_row_seen(&mut self, key: &str, revision: u64, headers: &[u8], payload: &[u8]) {
        if self.councils.removals.get(key).is_some_and(|removal| removal.revision < revision) {
            self.councils.removals.remove(key);
        }
        let is_marker = names::is_marker(headers);
        match key.split_once('.') {
            None => self.council_record_seen(key, revision, (!is_marker).then_some(payload)),
            Some((council, seat)) => match (seat.parse::<Seat>(), is_marker) {
                (Ok(seat), true) => self.seat_left(council, &seat, revision),
                (Ok(seat), false) => self.seat_claimed(council, seat, revision, payload),
                // Keys of another shape are somebody's own.
                (Err(reason), false) if seat.split('.').count() == 2 => {
                    self.remove_key(key.to_owned(), revision, reason);
                }
                (Err(_), _) => {}
            },
        }
    }

    fn seat_claimed(&mut self, name: &str, seat: Seat, revision: u64, payload: &[u8]) {
        let now = self.now;
        let key = format!("{name}.{seat}");
        let Some(held) = self.councils.held.get_mut(name).filter(|held| held.exists) else {
            return self.remove_key(key, revision, "there is no such council");
        };
        let before = held.council.sitting().get(&seat).cloned();
        if before.as_ref().is_some_and(|sitter| sitter.revision >= revision) {
            return;
        }
        let agent = sitter_of(payload);
        let claim = match &agent {
            Some(agent) => held.council.claim(seat.clone(), agent, revision, now),
            None => {
                held.council.leave(&seat);
                Claim::Unwanted("it names no agent")
            }
        };
        if let Some(before) = before.filter(|_| claim != Claim::Renewed) {
            self.unseat(name, &seat, &before.agent);
            self.announce_council(name, "left", Some((&seat, &before.agent)));
        }
        match (claim, agent) {
            (Claim::Unwanted(reason), _) => self.remove_key(key, revision, reason),
            (Claim::Taken, Some(agent)) => {
                self.councils.seats_of.entry(agent.clone()).or_default().insert((name.to_owned(), seat.clone()));
                self.announce_council(name, "claimed", Some((&seat, &agent)));
                self.reseat(&agent);
            }
            _ => {}
        }
        self.touch_council(name);
    }

    fn seat_left(&mut self, name: &str, seat: &Seat, revision: u64) {
        let Some(held) = self.councils.held.get_mut(name) else { return };
        if held.council.sitting().get(seat).is_none_or(|sitter| sitter.revision >= revision) {
            return;
        }
        self.leave_seat(name, seat);
        self.touch_council(name);
    }

    fn leave_seat(&mut self, name: &str, seat: &Seat) {
        let sitter = self.councils.held.get_mut(name).and_then(|held| held.council.leave(seat));
        if let Some(sitter) = sitter {
            self.unseat(name, seat, &sitter.agent);
            self.announce_council(name, "left", Some((seat, &sitter.agent)));
        }
    }

    /// Those whose claims came too late to be members.
    pub(super) fn turn_strangers_away(&mut self, name: &str) {
        let strangers = self.councils.held.get(name).map(|held| held.council.strangers()).unwrap_or_default();
        for (seat, revision) in strangers {
            self.leave_seat(name, &seat);
            self.remove_key(format!("{name}.{seat}"), revision, "the council is formed");
        }
    }

    /// Takes a seat's row of before a restart, after all councils.
    pub(super) fn restore_seat(&mut self, key: &str, revision: u64, payload: &[u8]) {
        let Some((name, seat)) = key.split_once('.') else { return };
        let Ok(seat) = seat.parse::<Seat>() else { return };
        let now = self.now;
        let claim = match (self.councils.held.get_mut(name), sitter_of(payload)) {
            (Some(held), Some(agent)) => match held.council.claim(seat.clone(), &agent, revision, now) {
                Claim::Unwanted(reason) => Err(reason),
                _ => Ok(agent),
            },
            (None, _) => Err("there is no such council"),
            (_, None) => Err("it names no agent"),
        };
        match claim {
            Ok(agent) => {
                self.councils.seats_of.entry(agent).or_default().insert((name.to_owned(), seat));
            }
            Err(reason) => self.remove_key(key.to_owned(), revision, reason),
        }
    }

    /// An agent sits somewhere no more.
    pub(super) fn unseat(&mut self, name: &str, seat: &Seat, agent: &str) {
        if let Some(seats) = self.councils.seats_of.get_mut(agent) {
            seats.remove(&(name.to_owned(), seat.clone()));
            if seats.is_empty() {
                self.councils.seats_of.remove(agent);
            }
        }
        self.reseat(agent);
    }

    /// Gives an agent the labels of the councils it is a member of, if it is registered.
    pub(super) fn reseat(&mut self, id: &str) {
        let Some(index) = self.roster.find(id) else { return };
        let held = &self.councils.held;
        let is_member = |(council, seat): &&(String, Seat)| {
            held.get(council).is_some_and(|held| {
                let record = &held.council.record;
                matches!(record.status, Status::Formed | Status::Degraded)
                    && record.members.get(seat).is_some_and(|agent| agent == id)
            })
        };
        let seats: Vec<(String, Seat)> =
            self.councils.seats_of.get(id).into_iter().flatten().filter(is_member).cloned().collect();
        let shown: Vec<String> = seats.iter().map(|(council, seat)| format!("{council}.{seat}")).collect();
        let Some(agent) = self.roster.get_mut(index) else { return };
        if agent.card.seats == shown {
            return;
        }
        agent.card.seats = shown;
        agent.card.labels.sit(seats.into_iter().map(|(council, seat)| (council, seat.role)).collect());
        agent.dirty = true;
        self.roster.recast(index);
        self.schedule = true;
    }

    /// An agent is lost: its seats are free for others.
    pub(super) fn vacate(&mut self, agent: &str) {
        let Some(seats) = self.councils.seats_of.get(agent).cloned() else { return };
        for (name, seat) in seats {
            let sitter = self.councils.held.get(&name).and_then(|held| held.council.sitting().get(&seat));
            if let Some(revision) = sitter.map(|sitter| sitter.revision) {
                self.remove_key(format!("{name}.{seat}"), revision, "its agent is gone");
            }
        }
    }

    /// Removes the seats of a council that has ended.
    pub(super) fn clear_seats(&mut self, name: &str) {
        let Some(held) = self.councils.held.get(name) else { return };
        let seats: Vec<(Seat, u64)> =
            held.council.sitting().iter().map(|(seat, sitter)| (seat.clone(), sitter.revision)).collect();
        for (seat, revision) in seats {
            self.remove_key(format!("{name}.{seat}"), revision, "the council has ended");
        }
    }

    /// Deletes a key of the bucket unless it is written anew.
    pub(super) fn remove_key(&mut self, key: String, revision: u64, reason: &str) {
        let known = self.councils.removals.get(&key);
        if known.is_some_and(|removal| removal.revision == revision) {
            return;
        }
        if known.is_none() && self.councils.removals.len() >= REMOVALS_MAX {
            return tracing::warn!(key, "too many keys of councils to delete at once");
        }
        tracing::debug!(key, reason, "a key of a council is removed");
        let removal = Removal { revision, retry_at: Timestamp::ZERO, lasting: false };
        self.councils.removals.insert(key.clone(), removal);
        self.send_removal(key, removal);
    }

    fn send_removal(&mut self, key: String, removal: Removal) {
        let Removal { revision, lasting, .. } = removal;
        let mut lines = format!("KV-Operation: DEL\r\nNats-Expected-Last-Subject-Sequence: {revision}\r\n");
        if !lasting {
            lines.push_str("Nats-TTL: 1h\r\n");
        }
        let subject = Bytes::from(format!("{}{key}", names::COUNCILS_PREFIX));
        let call = Some(self.open_call(Call::CouncilKey { key, revision }));
        self.outputs.push(Output::Publish { subject, call, headers: names::block(&lines), payload: Bytes::new() });
    }

    pub(super) fn removal_answered(&mut self, key: &str, revision: u64, answer: &Answer) {
        let outcome = match answer {
            Answer::Message(message) => decode_ack(message).map(drop),
            Answer::Lost(error) | Answer::Unsent(error) => Err(JetStreamError::Client(error.clone())),
        };
        let retry_at = self.now + RETRY;
        let Some(removal) = self.councils.removals.get_mut(key).filter(|removal| removal.revision == revision) else {
            return;
        };
        let is_race = |error: &ApiError| error.err_code == ApiError::STREAM_WRONG_LAST_SEQUENCE.err_code;
        match outcome {
            Err(JetStreamError::Api(error)) if !is_race(&error) => {
                removal.lasting = true;
                removal.retry_at = retry_at;
            }
            // Gone, or something else by now.
            Ok(()) | Err(JetStreamError::Api(_)) => drop(self.councils.removals.remove(key)),
            Err(_) => removal.retry_at = retry_at,
        }
    }

    /// Tries deletions again that failed.
    pub(super) fn retry_removals(&mut self) {
        let now = self.now;
        let is_due = |removal: &Removal| !removal.retry_at.is_zero() && removal.retry_at <= now;
        let due: Vec<(String, Removal)> = (self.councils.removals.iter_mut())
            .filter(|(_, removal)| is_due(removal))
            .map(|(key, removal)| {
                removal.retry_at = Timestamp::ZERO;
                (key.clone(), *removal)
            })
            .collect();
        for (key, removal) in due {
            self.send_removal(key, removal);
        }
    }
}
