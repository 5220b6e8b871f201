//! Councils: seats that agents claim, and when a council is formed, degraded or expired. Pure rules: claims, losses and times
//! go in, the record that should be stored next comes out.
//!
//! ```text
//!             quorum                 a member lost
//! forming ------------> formed <-----------------------> degraded
//!    |  deadline                    all seats taken again
//!    +------------> expired          any of them --DISSOLVE--> dissolved
//! ```
//!
//! The seats are keys of their own, written by the agents; the record holds what was decided. Its members are frozen by the
//! commit that says `formed`: later claims are for seats of lost members only.

mod terms;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use terms::Terms;

use crate::coordinator::record::is_id;
use crate::coordinator::seconds;
use crate::types::Timestamp;

/// Where a council is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Seats are offered.
    #[default]
    Forming,
    /// The quorum was there; the members are frozen.
    Formed,
    /// A member is lost, and its seat is offered again.
    Degraded,
    /// The deadline came before the quorum.
    Expired,
    Dissolved,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Forming => "forming",
            Status::Formed => "formed",
            Status::Degraded => "degraded",
            Status::Expired => "expired",
            Status::Dissolved => "dissolved",
        }
    }

    pub fn is_final(self) -> bool {
        matches!(self, Status::Expired | Status::Dissolved)
    }

    /// Whether there are seats to take.
    pub fn is_offering(self) -> bool {
        matches!(self, Status::Forming | Status::Degraded)
    }
}

/// A seat of a council: `<role>.<n>`, n from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Seat {
    pub role: String,
    pub number: u32,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.role, self.number)
    }
}

impl FromStr for Seat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Seat, &'static str> {
        let (role, number) = text.split_once('.').ok_or("a seat is <role>.<n>")?;
        let plain = !number.starts_with(['0', '+']);
        match number.parse() {
            Ok(number) if plain && is_id(role) => Ok(Seat { role: role.to_owned(), number }),
            _ => Err("a seat is <role>.<n>, n from 1"),
        }
    }
}

impl From<Seat> for String {
    fn from(seat: Seat) -> String {
        seat.to_string()
    }
}

impl TryFrom<String> for Seat {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Seat, &'static str> {
        text.parse()
    }
}

/// A council as it is stored in `<council>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub council: String,
    pub status: Status,
    /// Which forming of this name it is.
    pub run: u32,
    /// Counts what was told of it.
    pub change: u64,
    /// Who sits where, since it was formed.
    pub members: BTreeMap<Seat, String>,
    /// Seats of lost members.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Seat>,
    /// How many seats each role lacks, of an expired or degraded one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, u32>,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub deadline: Timestamp,
    /// When it was formed first.
    #[serde(skip_serializing_if = "is_never")]
    pub formed: Timestamp,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether `status_to` still has to be told.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub due: bool,
    pub terms: Terms,
}

fn is_never(time: &Timestamp) -> bool {
    time.is_zero()
}

impl Record {
    /// A council that begins to form.
    pub fn forming(council: &str, run: u32, terms: Terms, now: Timestamp) -> Record {
        let deadline = now + seconds::duration(terms.deadline_s);
        let council = council.to_owned();
        Record { council, run, terms, created: now, updated: now, deadline, ..Record::default() }
    }

    /// The same as `status`, to be told.
    fn with(&self, status: Status, now: Timestamp) -> Record {
        let due = !self.terms.status_to.is_empty();
        Record { status, updated: now, change: self.change.saturating_add(1), due, ..self.clone() }
    }

    /// The end by DISSOLVE.
    pub fn dissolved(&self, reason: &str, now: Timestamp) -> Record {
        Record { reason: reason.to_owned(), ..self.with(Status::Dissolved, now) }
    }

    /// The same, told.
    pub fn told(&self) -> Record {
        Record { due: false, ..self.clone() }
    }
}

/// Who has claimed a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sitter {
    pub agent: String,
    /// The claim's stream sequence.
    pub revision: u64,
    /// When it was written last, as far as we saw.
    pub renewed: Timestamp,
}

/// What becomes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Taken,
    /// It had the seat before.
    Renewed,
    /// Why the seat is not its.
    Unwanted(&'static str),
}

/// A council at run time.
#[derive(Clone, Debug)]
pub struct Council {
    pub record: Record,
    sitting: BTreeMap<Seat, Sitter>,
}

impl Council {
    pub fn new(record: Record) -> Council {
        Council { record, sitting: BTreeMap::new() }
    }

    pub fn sitting(&self) -> &BTreeMap<Seat, Sitter> {
        &self.sitting
    }

    /// `agent` has written to `seat`, over whoever had it.
    pub fn claim(&mut self, seat: Seat, agent: &str, revision: u64, now: Timestamp) -> Claim {
        let sitter = Sitter { agent: agent.to_owned(), revision, renewed: now };
        if let Some(known) = self.sitting.get_mut(&seat) {
            if known.agent == agent {
                *known = sitter;
                return Claim::Renewed;
            }
            self.sitting.remove(&seat);
        }
        if let Some(reason) = self.unwanted(&seat, agent) {
            return Claim::Unwanted(reason);
        }
        self.sitting.insert(seat, sitter);
        Claim::Taken
    }

    fn unwanted(&self, seat: &Seat, agent: &str) -> Option<&'static str> {
        let record = &self.record;
        if record.status.is_final() {
            return Some("the council has ended");
        }
        if !(1..=record.terms.seats(&seat.role)).contains(&seat.number) {
            return Some("the council has no such seat");
        }
        if record.status != Status::Forming && !record.members.contains_key(seat) && !record.open.contains(seat) {
            return Some("the council is formed");
        }
        // Whoever hears an offer twice must not fill two seats.
        let has_another = self.sitting.values().any(|sitter| sitter.agent == agent);
        has_another.then_some("the agent has another seat")
    }

    /// Claims that came too late: while it was being stored that the council is formed, without them.
    pub fn strangers(&self) -> Vec<(Seat, u64)> {
        let Record { status, members, open, .. } = &self.record;
        let is_grouped = matches!(status, Status::Formed | Status::Degraded);
        let strange = |(seat, _): &(&Seat, _)| is_grouped && !members.contains_key(*seat) && !open.contains(*seat);
        self.sitting.iter().filter(strange).map(|(seat, sitter)| (seat.clone(), sitter.revision)).collect()
    }

    /// The seat was given up, ran out or was taken away; tells who had it.
    pub fn leave(&mut self, seat: &Seat) -> Option<Sitter> {
        self.sitting.remove(seat)
    }

    /// The record to be stored next, if anything has to change.
    pub fn next(&self, now: Timestamp) -> Option<Record> {
        match self.record.status {
            Status::Forming => self.formed(now).or_else(|| self.expired(now)),
            Status::Formed | Status::Degraded => self.regrouped(now),
            Status::Expired | Status::Dissolved => None,
        }
    }

    fn formed(&self, now: Timestamp) -> Option<Record> {
        let terms = &self.record.terms;
        let taken = self.sitting.keys().filter(|seat| terms.roles.contains_key(&seat.role)).count();
        (taken >= terms.quorum() as usize).then(|| Record {
            members: self.seated(),
            formed: now,
            ..self.record.with(Status::Formed, now)
        })
    }

    fn expired(&self, now: Timestamp) -> Option<Record> {
        (now >= self.record.deadline)
            .then(|| Record { missing: self.missing(), ..self.record.with(Status::Expired, now) })
    }

    /// A formed council whose members are not who they were. A seat that has changed hands is open first, and taken by the
    /// record after that.
    fn regrouped(&self, now: Timestamp) -> Option<Record> {
        let record = &self.record;
        let sits = |seat: &Seat| self.sitting.get(seat).map(|sitter| &sitter.agent);
        let (mut members, lost): (BTreeMap<Seat, String>, BTreeMap<_, _>) =
            record.members.clone().into_iter().partition(|(seat, agent)| sits(seat) == Some(agent));
        let claimed = record.open.iter().filter_map(|seat| Some((seat.clone(), sits(seat)?.clone())));
        members.extend(claimed);
        if members == record.members {
            return None;
        }
        let left = record.open.iter().filter(|seat| !members.contains_key(*seat));
        let open: Vec<Seat> = lost.keys().chain(left).cloned().collect();
        let mut missing = BTreeMap::new();
        open.iter().for_each(|seat| *missing.entry(seat.role.clone()).or_default() += 1);
        let status = if open.is_empty() { Status::Formed } else { Status::Degraded };
        Some(Record { members, open, missing, ..record.with(status, now) })
    }

    fn seated(&self) -> BTreeMap<Seat, String> {
        self.sitting.iter().map(|(seat, sitter)| (seat.clone(), sitter.agent.clone())).collect()
    }

    /// How many required seats each role lacks now.
    pub fn missing(&self) -> BTreeMap<String, u32> {
        if self.record.status != Status::Forming {
            return self.record.missing.clone();
        }
        let taken = |role: &str| self.sitting.keys().filter(|seat| seat.role == role).count() as u32;
        let lacks = |(role, seats): (&String, &u32)| {
            let lacking = seats.saturating_sub(taken(role));
            (lacking > 0).then(|| (role.clone(), lacking))
        };
        self.record.terms.roles.iter().filter_map(lacks).collect()
    }

    /// When a seat runs out that was not written anew and whose agent is not otherwise known to be there.
    pub fn next_lapse(&self, present: impl Fn(&str) -> bool) -> Option<Timestamp> {
        self.lapses(present).map(|(_, _, at)| at).min()
    }

    /// The seats that have run out.
    pub fn lapsed(&self, now: Timestamp, present: impl Fn(&str) -> bool) -> Vec<(Seat, u64)> {
        let over = self.lapses(present).filter(|(.., at)| *at <= now);
        over.map(|(seat, sitter, _)| (seat.clone(), sitter.revision)).collect()
    }

    fn lapses(&self, present: impl Fn(&str) -> bool) -> impl Iterator<Item = (&Seat, &Sitter, Timestamp)> {
        let ttl = seconds::duration(self.record.terms.seat_ttl_s);
        let mortal = self.sitting.iter().filter(move |(_, sitter)| !ttl.is_zero() && !present(&sitter.agent));
        mortal.map(move |(seat, sitter)| (seat, sitter, sitter.renewed + ttl))
    }
}

/// The agent that a seat's value names: `{"agent":"ann",…}`, `"ann"` or `ann`.
pub fn sitter_of(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let name = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(fields)) => fields.get("agent")?.as_str()?.to_owned(),
        Ok(serde_json::Value::String(name)) => name,
        _ => text.to_owned(),
    };
    is_id(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

    fn at(seconds: f64) -> Timestamp {
        START + Duration::from_secs_f64(seconds)
    }

    fn council(terms: &str) -> Council {
        let terms = Terms::read(terms.as_bytes()).unwrap();
        Council::new(Record::forming("c", 1, terms, START))
    }

    fn seat(text: &str) -> Seat {
        text.parse().unwrap()
    }

    /// Takes what is due, as after its commit.
    fn step(council: &mut Council, now: Timestamp) -> Option<Status> {
        council.record = council.next(now)?;
        Some(council.record.status)
    }

    #[test]
    fn seats_are_a_role_and_a_number() {
        for (text, fine) in [
            ("tpm.1", true),
            ("a.10", true),
            ("a.0", false),
            ("a.01", false),
            ("a", false),
            ("a.b", false),
            ("a.-1", false),
        ] {
            assert_eq!(text.parse::<Seat>().is_ok(), fine, "{text}");
        }
        assert!(seat("a.2") < seat("a.10"));
    }

    #[test]
    fn who_a_value_names() {
        for (value, expected) in [
            (r#"{"agent":"ann","at":1}"#, Some("ann")),
            (r#""ann""#, Some("ann")),
            (" ann\n", Some("ann")),
            ("17", Some("17")),
            (r#"{"name":"ann"}"#, None),
            ("ann bob", None),
            ("", None),
        ] {
            assert_eq!(sitter_of(value.as_bytes()).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_council_forms_loses_a_member_and_is_whole_again() {
        let mut council =
            council(r#"{"roles":{"tpm":1,"dev":2},"optional":{"scribe":1},"offer_to":"o","status_to":"s"}"#);
        assert_eq!(council.claim(seat("tpm.1"), "ann", 1, at(1.0)), Claim::Taken);
        assert_eq!(council.claim(seat("scribe.1"), "sue", 2, at(1.0)), Claim::Taken);
        assert_eq!(council.claim(seat("dev.3"), "bob", 3, at(1.0)), Claim::Unwanted("the council has no such seat"));
        assert_eq!(council.claim(seat("dev.1"), "ann", 4, at(1.0)), Claim::Unwanted("the agent has another seat"));
        assert_eq!(council.claim(seat("dev.1"), "bob", 5, at(1.0)), Claim::Taken);
        assert_eq!(council.next(at(1.0)), None);
        assert_eq!(council.missing(), BTreeMap::from([("dev".to_owned(), 1)]));
        assert_eq!(council.claim(seat("dev.2"), "cid", 6, at(2.0)), Claim::Taken);
        assert_eq!(step(&mut council, at(2.0)), Some(Status::Formed));
        assert_eq!((council.record.members.len(), council.record.due), (4, true));
        assert_eq!(council.next(at(100.0)), None, "the deadline is past, and it is formed");
        assert_eq!(council.claim(seat("scribe.2"), "dan", 7, at(3.0)), Claim::Unwanted("the council has no such seat"));

        council.leave(&seat("dev.1"));
        assert_eq!(step(&mut council, at(4.0)), Some(Status::Degraded));
        assert_eq!((&council.record.open, council.missing()["dev"]), (&vec![seat("dev.1")], 1));
        assert_eq!(council.next(at(4.0)), None);
        assert_eq!(council.claim(seat("dev.1"), "cid", 8, at(5.0)), Claim::Unwanted("the agent has another seat"));
        assert_eq!(council.claim(seat("dev.1"), "dan", 9, at(5.0)), Claim::Taken);
        assert_eq!(step(&mut council, at(5.0)), Some(Status::Formed));
        assert_eq!(council.record.members[&seat("dev.1")], "dan");
        assert!(council.record.open.is_empty() && council.record.missing.is_empty());
        assert_eq!(council.record.formed, at(2.0));
        let text = serde_json::to_string(&council.record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), council.record);
    }

    #[test]
    fn who_comes_while_it_is_stored_that_a_council_is_formed_is_too_late() {
        let mut council = council(r#"{"roles":{"tpm":1},"optional":{"scribe":1},"offer_to":"o"}"#);
        council.claim(seat("tpm.1"), "ann", 1, START);
        let formed = council.next(START).unwrap();
        assert_eq!(council.claim(seat("scribe.1"), "sue", 2, START), Claim::Taken);
        assert_eq!(council.strangers(), []);
        council.record = formed;
        assert_eq!(council.strangers(), [(seat("scribe.1"), 2)]);
        assert_eq!(council.next(START), None, "the members are frozen");
    }

    #[test]
    fn a_seat_that_changes_hands_is_lost_first() {
        let mut council = council(r#"{"roles":{"dev":2},"offer_to":"o"}"#);
        council.claim(seat("dev.1"), "ann", 1, START);
        council.claim(seat("dev.2"), "bob", 2, START);
        assert_eq!(step(&mut council, START), Some(Status::Formed));
        council.claim(seat("dev.1"), "cid", 3, START);
        assert_eq!(step(&mut council, START), Some(Status::Degraded));
        assert_eq!((council.record.members.len(), &council.record.open), (1, &vec![seat("dev.1")]));
        // The other one, too, meanwhile.
        council.claim(seat("dev.2"), "dan", 4, START);
        assert_eq!(step(&mut council, START), Some(Status::Degraded));
        assert_eq!(council.record.members, BTreeMap::from([(seat("dev.1"), "cid".to_owned())]));
        assert_eq!(step(&mut council, START), Some(Status::Formed));
        assert_eq!(council.record.members[&seat("dev.2")], "dan");
        assert_eq!(council.next(START), None);
    }

    #[test]
    fn a_quorum_closes_the_seats_that_are_left() {
        let mut council = council(r#"{"roles":{"dev":4},"quorum":2,"offer_to":"o"}"#);
        council.claim(seat("dev.1"), "ann", 1, START);
        council.claim(seat("dev.4"), "bob", 2, START);
        assert_eq!(step(&mut council, START), Some(Status::Formed));
        assert_eq!(council.claim(seat("dev.2"), "cid", 3, START), Claim::Unwanted("the council is formed"));
    }

    #[test]
    fn the_deadline_names_what_is_missing() {
        let mut council = council(r#"{"roles":{"tpm":1,"dev":2},"offer_to":"o","deadline_s":10}"#);
        council.claim(seat("dev.2"), "ann", 1, START);
        assert_eq!(council.next(at(9.9)), None);
        assert_eq!(step(&mut council, at(10.0)), Some(Status::Expired));
        let missing = [("dev".to_owned(), 1), ("tpm".to_owned(), 1)];
        assert_eq!(council.record.missing, BTreeMap::from(missing));
        assert_eq!(council.claim(seat("tpm.1"), "bob", 2, at(11.0)), Claim::Unwanted("the council has ended"));
        assert_eq!(council.next(at(12.0)), None);
    }

    #[test]
    fn seats_run_out_unless_renewed_or_their_agent_is_there() {
        let mut council = council(r#"{"roles":{"dev":3},"offer_to":"o","seat_ttl_s":5}"#);
        for (number, agent) in [(1, "ann"), (2, "bob"), (3, "cid")] {
            council.claim(Seat { role: "dev".to_owned(), number }, agent, number.into(), START);
        }
        let present = |agent: &str| agent == "cid";
        assert_eq!(council.claim(seat("dev.2"), "bob", 4, at(3.0)), Claim::Renewed);
        assert_eq!(council.next_lapse(present), Some(at(5.0)));
        assert_eq!(council.lapsed(at(4.9), present), []);
        assert_eq!(council.lapsed(at(5.0), present), [(seat("dev.1"), 1)]);
        assert_eq!(council.lapsed(at(8.0), present).len(), 2);
        council.record.terms.seat_ttl_s = 0.0;
        assert_eq!(council.next_lapse(present), None);
    }

    proptest! {
        /// Whatever comes in which order: nobody sits twice, members are who sits, and nothing changes for nothing.
        #[test]
        fn members_are_those_who_sit(
            events in proptest::collection::vec((0u8..4, 0u32..5, 0u8..4, 0u8..6), 1..60),
            quorum in 1u32..4,
        ) {
            let mut council = council(&format!(
                r#"{{"roles":{{"a":2,"b":1}},"optional":{{"o":1}},"quorum":{quorum},"offer_to":"o","deadline_s":40}}"#
            ));
            for (revision, (role, number, kind, agent)) in events.into_iter().enumerate() {
                let now = at(revision as f64);
                let target = Seat { role: ["a", "b", "o", "x"][usize::from(role)].to_owned(), number };
                if kind == 0 {
                    council.leave(&target);
                } else {
                    council.claim(target, &format!("agent{agent}"), revision as u64, now);
                }
                let mut before = council.record.clone();
                let mut steps = 0;
                while let Some(status) = step(&mut council, now) {
                    steps += 1;
                    prop_assert_eq!(council.record.change, before.change + 1);
                    prop_assert!(!before.status.is_final());
                    if matches!(status, Status::Formed | Status::Degraded) {
                        let frozen = |record: &Record| record.members.len() + record.open.len();
                        prop_assert!(before.status == Status::Forming || frozen(&before) == frozen(&council.record));
                        prop_assert_eq!(status == Status::Formed, council.record.open.is_empty());
                        prop_assert!(status == Status::Degraded || before.status != Status::Formed);
                    }
                    before = council.record.clone();
                }
                prop_assert!(steps <= 2, "a seat is lost, and taken");
                if matches!(before.status, Status::Formed | Status::Degraded) {
                    prop_assert_eq!(&before.members, &council.seated());
                }
                let mut agents: Vec<_> = council.sitting.values().map(|sitter| &sitter.agent).collect();
                agents.sort();
                agents.dedup();
                prop_assert_eq!(agents.len(), council.sitting.len());
            }
        }
    }
}
