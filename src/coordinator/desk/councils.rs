//! COUNCIL.FORM, INFO, LIST and DISSOLVE, and a council's way from its first offer to its end. One change of a council at a
//! time is on its way; what is asked of it meanwhile waits in its line.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::{Value, json};

use super::calls::{Answer, Call};
use super::requests::clip;
use super::seats::Removal;
use super::watch::Watch;
use super::{Desk, Output};
use crate::client::{BatchEntry, ClientError, Incoming, JetStreamError, decode_ack};
use crate::coordinator::agent::{Roster, Status as AgentStatus};
use crate::coordinator::council::{Council, Record, Seat, Status, Terms};
use crate::coordinator::rate::Bucket;
use crate::coordinator::{errors, names, record};
use crate::types::{ApiError, Timestamp, subject};

/// Councils that have not ended, and councils that have and can still be looked at.
const OPEN_MAX: usize = 1000;
const ENDED_MAX: usize = 1000;
/// How long an ended council is kept.
const RETENTION: Duration = Duration::from_secs(24 * 3600);
/// An offer is published again after this, then after twice as long, up to the other.
const OFFER_FIRST: Duration = Duration::from_millis(50);
const OFFER_LAST: Duration = Duration::from_secs(5);
/// Offers of all councils a second.
const OFFERS_A_SECOND: f64 = 500.0;
/// How long a change waits that could not be stored.
const RETRY: Duration = Duration::from_secs(1);
/// Requests that may wait for a change of one council.
const LINE_MAX: usize = 100;
const LIST_MAX: usize = 1000;

/// A change on its way.
#[derive(Debug)]
struct Change {
    serial: u64,
    next: Record,
    request: Option<Incoming>,
    /// Whether it was stored is being found out.
    reloading: bool,
}

/// A council and what goes on around it.
#[derive(Debug)]
pub(super) struct Held {
    pub council: Council,
    /// The last stream sequence of its key.
    pub revision: u64,
    /// It is stored; before that nobody may know of it.
    pub exists: bool,
    busy: Option<Box<Change>>,
    line: VecDeque<Incoming>,
    retry_at: Timestamp,
    /// When it is offered next, and how long it is to the offer after that.
    offer_at: Timestamp,
    pause: Duration,
    /// The offer as it is published.
    offer: (Vec<u8>, Bytes),
    /// `status_to` was told of the record, which does not say so yet.
    told: bool,
    /// Its place among what is due.
    armed: Timestamp,
}

impl Held {
    fn new(record: Record, revision: u64, exists: bool) -> Held {
        Held {
            council: Council::new(record),
            revision,
            exists,
            busy: None,
            line: VecDeque::new(),
            retry_at: Timestamp::ZERO,
            offer_at: Timestamp::ZERO,
            pause: OFFER_FIRST,
            offer: (Vec::new(), Bytes::new()),
            told: false,
            armed: Timestamp::ZERO,
        }
    }

    pub fn status(&self) -> Status {
        self.council.record.status
    }
}

/// All councils.
#[derive(Debug, Default)]
pub(super) struct Councils {
    pub held: BTreeMap<String, Held>,
    due: BTreeSet<(Timestamp, String)>,
    next_serial: u64,
    offers: Bucket,
    /// The seats each agent sits in, by council.
    pub seats_of: HashMap<String, BTreeSet<(String, Seat)>>,
    /// Keys to be deleted from the bucket.
    pub removals: HashMap<String, Removal>,
    pub watch: Watch,
}

impl Councils {
    pub fn next_due(&self) -> Option<Timestamp> {
        let due = self.due.first().map(|(at, _)| *at);
        [due, self.watch.next_check()].into_iter().flatten().min()
    }
}

/// Whether an agent's presence is what keeps its seats.
pub(super) fn is_present(roster: &Roster, agent: &str) -> bool {
    let known = roster.find(agent).and_then(|index| roster.get(index));
    known.is_some_and(|agent| agent.card.status != AgentStatus::Offline)
}

impl Desk {
    pub(super) fn council_form(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        if !record::is_id(name) {
            return Err(errors::bad_request("a council's name is one token of A-Z a-z 0-9 _ -, up to 64"));
        }
        if message.headers().get("Nats-Request-Info").is_some() {
            return Err(errors::NOT_PERMITTED.with("COUNCIL.FORM of a request from another account"));
        }
        // A record holds the terms and the members.
        let limit = self.settings.body_bytes_max / 2;
        if message.payload().len() > limit {
            return Err(errors::TOO_LARGE.with(format!("the body is above {limit} bytes")));
        }
        let terms = Terms::read(message.payload()).map_err(errors::bad_request)?;
        for (field, to) in [("offer_to", &terms.offer_to), ("status_to", &terms.status_to)] {
            if !to.is_empty() && !self.may_offer_to(to) {
                let allowed = self.settings.council_subjects.join(", ");
                let reason = format!("{field} is below {allowed} (council_subjects of the coordinator)");
                return Err(errors::NOT_PERMITTED.with(reason));
            }
        }
        let mut run = 1;
        match self.councils.held.get_mut(name) {
            Some(held) if held.busy.is_some() => return wait_in_line(held, message),
            Some(held) if held.exists && !held.status().is_final() => {
                if held.council.record.terms != terms {
                    return Err(errors::SAME_COUNCIL_OTHER_TERMS);
                }
                self.respond_council(name, message, Some(true));
                return Ok(());
            }
            Some(held) if held.exists => run = held.council.record.run.saturating_add(1),
            _ => {}
        }
        if self.councils.held.values().filter(|held| !held.status().is_final()).count() >= OPEN_MAX {
            return Err(errors::TOO_LARGE.with(format!("there are {OPEN_MAX} councils")));
        }
        let next = Record::forming(name, run, terms, self.now);
        self.councils.held.entry(name.to_owned()).or_insert_with(|| Held::new(next.clone(), 0, false));
        self.change_council(name, next, Some(message.clone()));
        Ok(())
    }

    pub(super) fn council_dissolve(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Body {
            reason: String,
        }
        let body: Body = match message.payload().trim_ascii() {
            [] => Body::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        let now = self.now;
        let held = self.councils.held.get_mut(name).ok_or(errors::COUNCIL_NOT_FOUND)?;
        if held.busy.is_some() {
            return wait_in_line(held, message);
        }
        if held.status().is_final() {
            self.respond_council(name, message, None);
            return Ok(());
        }
        let next = held.council.record.dissolved(&clip(&body.reason), now);
        self.change_council(name, next, Some(message.clone()));
        Ok(())
    }

    pub(super) fn council_info(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        let held = self.councils.held.get(name).filter(|held| held.exists).ok_or(errors::COUNCIL_NOT_FOUND)?;
        let mut shown = show(held);
        if let (Value::Object(shown), Ok(Value::Object(terms))) =
            (&mut shown, serde_json::to_value(&held.council.record.terms))
        {
            shown.extend(terms);
        }
        self.respond(message, shown);
        Ok(())
    }

    pub(super) fn council_list(&mut self, message: &Incoming) -> Result<(), ApiError> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Filter {
            status: Option<Status>,
            limit: Option<usize>,
            after: String,
        }
        let filter: Filter = match message.payload().trim_ascii() {
            [] => Filter::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        let limit = filter.limit.unwrap_or(100).min(LIST_MAX);
        // Members of large councils are many: a page ends before the answer is too long.
        let mut bytes_left = self.settings.body_bytes_max / 2;
        let (mut total, mut left, mut page) = (0, 0, Vec::new());
        for (name, held) in self.councils.held.iter().filter(|(_, held)| held.exists) {
            if filter.status.is_some_and(|status| status != held.status()) {
                continue;
            }
            total += 1;
            if *name <= filter.after {
                continue;
            }
            let room = held.council.sitting().len() * 200 + 1000;
            if left > 0 || page.len() >= limit || room > bytes_left && !page.is_empty() {
                left += 1;
            } else {
                bytes_left = bytes_left.saturating_sub(room);
                page.push(show(held));
            }
        }
        self.respond(message, json!({ "councils": page, "total": total, "left": left }));
        Ok(())
    }

    fn respond_council(&mut self, name: &str, message: &Incoming, duplicate: Option<bool>) {
        let Some(held) = self.councils.held.get(name) else { return };
        let mut shown = show(held);
        if let Some(duplicate) = duplicate {
            shown["duplicate"] = duplicate.into();
        }
        shown["bucket"] = names::COUNCILS_BUCKET.into();
        self.respond(message, shown);
    }

    /// Whether offers and statuses may go to `subject`. As with results: whoever may form has the coordinator publish there.
    fn may_offer_to(&self, subject: &str) -> bool {
        let mut filters = self.settings.council_subjects.iter();
        !subject.starts_with('$') && filters.any(|filter| subject::matches(filter.as_bytes(), subject.as_bytes()))
    }

    fn change_council(&mut self, name: &str, next: Record, request: Option<Incoming>) {
        self.councils.next_serial += 1;
        let serial = self.councils.next_serial;
        let Some(held) = self.councils.held.get_mut(name) else { return };
        let body = serde_json::to_vec(&next).expect("a council is plain data");
        let entry = BatchEntry::new(council_key(name), body).expect_revision(held.revision);
        held.busy = Some(Box::new(Change { serial, next, request, reloading: false }));
        self.call_batch(Call::Council { name: name.to_owned(), serial }, vec![entry]);
    }

    pub(super) fn council_answered(&mut self, name: &str, serial: u64, answer: Answer) {
        let Some(change) = self.take_change(name, serial) else { return };
        let outcome = match &answer {
            Answer::Message(message) => decode_ack(message).map_err(Some),
            Answer::Unsent(_) => Err(None),
            Answer::Lost(error) => Err(Some(JetStreamError::Client(error.clone()))),
        };
        let is_race = |error: &ApiError| error.err_code == ApiError::STREAM_WRONG_LAST_SEQUENCE.err_code;
        match outcome {
            Ok(ack) => self.council_stored(name, *change, ack.seq),
            Err(Some(JetStreamError::Api(error))) if !is_race(&error) => {
                self.council_not_stored(name, *change, &error.description);
            }
            Err(Some(JetStreamError::Client(ClientError::NoResponders { .. }))) => {
                self.store_gone = true;
                self.council_not_stored(name, *change, "nobody keeps the bucket");
            }
            Err(None) => self.council_not_stored(name, *change, &answer.reason()),
            // A lost race, a lost answer: the bucket knows.
            Err(Some(_)) => {
                if let Some(held) = self.councils.held.get_mut(name) {
                    held.busy = Some(Box::new(Change { reloading: true, ..*change }));
                }
                self.reload_council(name, serial);
            }
        }
    }

    fn take_change(&mut self, name: &str, serial: u64) -> Option<Box<Change>> {
        let held = self.councils.held.get_mut(name)?;
        held.busy.take_if(|change| change.serial == serial)
    }

    fn reload_council(&mut self, name: &str, serial: u64) {
        let api = format!("STREAM.MSG.GET.{}", names::COUNCILS_STREAM);
        let body = json!({ "last_by_subj": council_key(name) });
        self.call_api(Call::CouncilReload { name: name.to_owned(), serial }, &api, &body);
    }

    pub(super) fn council_reloaded(&mut self, name: &str, serial: u64, answer: Answer) {
        let Some(mut change) = self.take_change(name, serial) else { return };
        let retry_at = self.now + RETRY;
        let Ok(found) = super::answers::stored(&answer) else {
            // Not even that could be asked: keep asking.
            if let Some(held) = self.councils.held.get_mut(name) {
                held.busy = Some(change);
                held.retry_at = retry_at;
            }
            return self.arm_council(name);
        };
        let revision = found.as_ref().map_or(0, |entry| entry.seq);
        let record =
            found.filter(|entry| !names::is_marker(&entry.headers)).and_then(|entry| read_record(&entry.payload));
        if record.as_ref() == Some(&change.next) {
            return self.council_stored(name, *change, revision);
        }
        // Taken once more, on what there is.
        let request = change.request.take();
        let Some(held) = self.councils.held.get_mut(name) else { return };
        request.into_iter().for_each(|request| held.line.push_front(request));
        match record {
            Some(record) if revision != held.revision => self.take_over(name, record, revision),
            _ => held.revision = revision,
        }
        self.free_council(name);
    }

    fn council_not_stored(&mut self, name: &str, change: Change, reason: &str) {
        tracing::warn!(council = name, reason, "a council's change could not be stored");
        let now = self.now;
        let Some(held) = self.councils.held.get_mut(name) else { return };
        held.retry_at = now + RETRY;
        let mut refused: Vec<Incoming> = change.request.into_iter().collect();
        if !held.exists {
            refused.extend(held.line.drain(..));
            self.drop_council(name);
        }
        for request in refused {
            self.refuse(&request, errors::UNAVAILABLE.with(clip(reason)));
        }
        self.free_council(name);
    }

    fn council_stored(&mut self, name: &str, change: Change, revision: u64) {
        let Some(held) = self.councils.held.get_mut(name) else { return };
        let began = change.next.status == Status::Forming;
        let before = held.exists.then(|| held.council.record.clone());
        held.revision = revision;
        held.exists = true;
        held.retry_at = Timestamp::ZERO;
        held.told &= change.next.due;
        let mut old = BTreeMap::new();
        if began {
            // Whoever sat in it before has been told that it ended.
            old = std::mem::replace(&mut held.council, Council::new(change.next.clone())).sitting().clone();
        } else {
            held.council.record = change.next;
        }
        for (seat, sitter) in old {
            self.unseat(name, &seat, &sitter.agent);
        }
        if let Some(request) = change.request {
            let duplicate = began.then_some(false);
            self.respond_council(name, &request, duplicate);
        }
        self.settle_council(name, before.as_ref());
        self.free_council(name);
    }

    /// Somebody else wrote the record: theirs is the truth.
    fn take_over(&mut self, name: &str, record: Record, revision: u64) {
        tracing::warn!(council = name, status = record.status.as_str(), "took over a council");
        let Some(held) = self.councils.held.get_mut(name) else { return };
        let before = held.exists.then(|| held.council.record.clone());
        held.council.record = record;
        held.revision = revision;
        held.exists = true;
        self.settle_council(name, before.as_ref());
    }

    /// What follows from a record that is stored and was `before`.
    fn settle_council(&mut self, name: &str, before: Option<&Record>) {
        let now = self.now;
        let Some(held) = self.councils.held.get_mut(name) else { return };
        let record = held.council.record.clone();
        let is_other = before.is_none_or(|before| (before.run, before.change) != (record.run, record.change));
        if is_other && record.status.is_offering() {
            held.offer = (names::block(&record.terms.headers.lines()), record.terms.body.bytes());
            (held.offer_at, held.pause) = (now, OFFER_FIRST);
        }
        if is_other {
            self.announce_council(name, record.status.as_str(), None);
        }
        if record.due && is_other {
            self.tell_status(&record);
            if let Some(held) = self.councils.held.get_mut(name) {
                held.told = true;
            }
        }
        let members = before.into_iter().chain([&record]).flat_map(|record| record.members.values());
        let members: BTreeSet<&String> = members.collect();
        for agent in members {
            self.reseat(agent);
        }
        self.turn_strangers_away(name);
        if record.status.is_final() {
            self.clear_seats(name);
            self.forget_oldest();
        }
    }

    /// Takes up what was asked meanwhile, and what is due.
    fn free_council(&mut self, name: &str) {
        while let Some(held) = self.councils.held.get_mut(name)
            && held.busy.is_none()
            && let Some(request) = held.line.pop_front()
        {
            let outcome = if request.subject_str().contains(".COUNCIL.FORM.") {
                self.council_form(name, &request)
            } else {
                self.council_dissolve(name, &request)
            };
            if let Err(error) = outcome {
                self.refuse(&request, error);
            }
        }
        // What nobody could form is not there.
        if self.councils.held.get(name).is_some_and(|held| !held.exists && held.busy.is_none()) {
            self.drop_council(name);
        }
        self.touch_council(name);
    }

    /// Does what is due for a council now.
    pub(super) fn touch_council(&mut self, name: &str) {
        let now = self.now;
        let Some(held) = self.councils.held.get_mut(name).filter(|held| held.exists) else { return };
        if let Some(change) = &held.busy {
            let serial = change.serial;
            if change.reloading && !held.retry_at.is_zero() && held.retry_at <= now {
                held.retry_at = Timestamp::ZERO;
                self.reload_council(name, serial);
            }
        } else if held.retry_at <= now {
            let record = &held.council.record;
            let told = (record.due && held.told).then(|| record.told());
            let roster = &self.roster;
            let lapsed = held.council.lapsed(now, |agent| is_present(roster, agent));
            let over = record.status.is_final() && record.updated + RETENTION <= now;
            if let Some(next) = held.council.next(now).or(told) {
                self.change_council(name, next, None);
            } else if over {
                return self.forget_council(name);
            }
            for (seat, revision) in lapsed {
                self.remove_key(format!("{name}.{seat}"), revision, "it was not renewed");
            }
        }
        self.offer_seats(name);
        self.arm_council(name);
    }

    fn offer_seats(&mut self, name: &str) {
        let now = self.now;
        let Councils { held, offers, .. } = &mut self.councils;
        let Some(held) = held.get_mut(name).filter(|held| held.status().is_offering() && held.offer_at <= now) else {
            return;
        };
        // The quorum is there, and its commit on its way.
        if held.busy.as_ref().is_some_and(|change| !change.next.status.is_offering()) {
            return;
        }
        if !offers.admits(OFFERS_A_SECOND, now) {
            held.offer_at = offers.next(OFFERS_A_SECOND, now);
            return;
        }
        offers.take(OFFERS_A_SECOND, now);
        held.offer_at = now + held.pause;
        held.pause = (held.pause * 2).min(OFFER_LAST);
        let to = held.council.record.terms.offer_to.clone();
        let (headers, payload) = held.offer.clone();
        // Also for a record that somebody else wrote, or that is from a time with other settings.
        if self.may_offer_to(&to) {
            self.outputs.push(Output::Publish { subject: Bytes::from(to), call: None, headers, payload });
        }
    }

    fn tell_status(&mut self, record: &Record) {
        let to = &record.terms.status_to;
        if to.is_empty() || !self.may_offer_to(to) {
            return;
        }
        let Record { council, status, run, change, .. } = record;
        let mut lines = record.terms.headers.lines_without(&["Status", "Published-At"]);
        if !record.terms.headers.has("Council-ID") {
            lines.push_str(&format!("Council-ID: {council}\r\n"));
        }
        // A stream behind the subject stores it once, however often it is sent.
        lines.push_str(&format!(
            "Status: {}\r\nPublished-At: {}\r\nNats-Msg-Id: council.{council}.{run}.{change}\r\n",
            status.as_str(),
            self.now.to_rfc3339()
        ));
        let body = describe(record).to_string();
        self.publish(to.clone(), &lines, Bytes::from(body));
    }

    /// `sat` is the seat and agent that an event of a seat is about.
    pub(super) fn announce_council(&mut self, name: &str, event: &str, sat: Option<(&Seat, &str)>) {
        let Some(held) = self.councils.held.get(name).filter(|held| held.exists) else { return };
        let mut body = match sat {
            None => describe(&held.council.record),
            Some((seat, agent)) => {
                json!({ "council": name, "status": held.status(), "seat": seat, "agent": agent })
            }
        };
        body["type"] = "io.natterjack.task.event.v1.council".into();
        body["event"] = event.into();
        body["time"] = serde_json::to_value(self.now).expect("a time is plain data");
        self.publish(format!("$TASK.E.COUNCIL.{name}"), "", Bytes::from(body.to_string()));
    }

    /// Ended councils beyond the bound.
    fn forget_oldest(&mut self) {
        let ended = self.councils.held.iter().filter(|(_, held)| held.status().is_final() && held.busy.is_none());
        let mut ended: Vec<(Timestamp, String)> =
            ended.map(|(name, held)| (held.council.record.updated, name.clone())).collect();
        if ended.len() > ENDED_MAX {
            ended.sort();
            self.forget_council(&ended[0].1.clone());
        }
    }

    fn forget_council(&mut self, name: &str) {
        let Some(held) = self.councils.held.get(name) else { return };
        let revision = held.revision;
        self.clear_seats(name);
        self.drop_council(name);
        self.remove_key(name.to_owned(), revision, "it ended long ago");
    }

    fn drop_council(&mut self, name: &str) {
        let Some(held) = self.councils.held.remove(name) else { return };
        self.councils.due.remove(&(held.armed, name.to_owned()));
        for (seat, sitter) in held.council.sitting() {
            self.unseat(name, seat, &sitter.agent);
        }
    }

    /// Sets when a council is looked at next.
    fn arm_council(&mut self, name: &str) {
        let now = self.now;
        let Councils { held, due, .. } = &mut self.councils;
        let Some(held) = held.get_mut(name).filter(|held| held.exists) else { return };
        let record = &held.council.record;
        let mut next = None;
        let mut note = |at: Timestamp| next = Some(next.map_or(at, |other: Timestamp| other.min(at)));
        let offered = held.busy.as_ref().is_none_or(|change| change.next.status.is_offering());
        if record.status.is_offering() && offered {
            note(held.offer_at);
        }
        if !held.retry_at.is_zero() && held.retry_at > now {
            note(held.retry_at);
        } else if held.busy.is_none() {
            if record.status == Status::Forming {
                note(record.deadline);
            }
            if record.status.is_final() {
                note(record.updated + RETENTION);
            }
            let roster = &self.roster;
            let lapse = held.council.next_lapse(|agent| is_present(roster, agent));
            // What has run out is being removed.
            lapse.into_iter().for_each(|at| note(if at > now { at } else { now + RETRY }));
        }
        if !held.armed.is_zero() {
            due.remove(&(held.armed, name.to_owned()));
        }
        held.armed = next.map_or(Timestamp::ZERO, |at| at.max(now + Duration::from_millis(1)));
        if !held.armed.is_zero() {
            due.insert((held.armed, name.to_owned()));
        }
    }

    /// Lets time pass for councils.
    pub(super) fn tick_councils(&mut self) {
        while let Some((at, _)) = self.councils.due.first()
            && *at <= self.now
            && let Some((_, name)) = self.councils.due.pop_first()
        {
            if let Some(held) = self.councils.held.get_mut(&name) {
                held.armed = Timestamp::ZERO;
            }
            self.touch_council(&name);
        }
        self.check_watch();
    }

    /// A record as the bucket has it: `None` when it was deleted.
    pub(super) fn council_record_seen(&mut self, name: &str, revision: u64, payload: Option<&[u8]>) {
        let record = payload.map(read_record);
        if let Some(None) = record {
            return tracing::warn!(council = name, "unreadable council");
        }
        let record = record.flatten();
        match self.councils.held.get_mut(name) {
            Some(held) if revision <= held.revision => {}
            Some(held) if held.busy.is_some() => {
                // The bucket may tell of a change before its answer does.
                if held.busy.as_ref().map(|change| &change.next) == record.as_ref()
                    && let Some(change) = held.busy.take()
                {
                    self.council_stored(name, *change, revision);
                }
            }
            Some(held) => match record {
                Some(record) => {
                    self.take_over(name, record, revision);
                    self.free_council(name);
                }
                None => {
                    held.exists = false;
                    tracing::info!(council = name, "a council was deleted");
                    self.clear_seats(name);
                    self.drop_council(name);
                }
            },
            None => {
                if let Some(record) = record.filter(|record| record.council == name) {
                    self.councils.held.insert(name.to_owned(), Held::new(record.clone(), 0, false));
                    self.take_over(name, record, revision);
                    self.free_council(name);
                }
            }
        }
    }

    /// Takes a council's row of before a restart.
    pub(super) fn restore_council(&mut self, name: &str, revision: u64, payload: &[u8]) {
        match read_record(payload) {
            Some(record) if record.council == name => {
                self.councils.held.insert(name.to_owned(), Held::new(record, revision, true));
            }
            _ => tracing::warn!(council = name, "unreadable council"),
        }
    }

    /// Takes councils up where they were.
    pub(super) fn councils_restored(&mut self) {
        let now = self.now;
        for name in self.councils.held.keys().cloned().collect::<Vec<_>>() {
            let Some(held) = self.councils.held.get_mut(&name) else { continue };
            let record = held.council.record.clone();
            held.offer = (names::block(&record.terms.headers.lines()), record.terms.body.bytes());
            held.offer_at = now;
            held.told = record.due;
            if record.due {
                self.tell_status(&record);
            }
            for agent in record.members.values() {
                self.reseat(agent);
            }
            if record.status.is_final() {
                self.clear_seats(&name);
            }
            self.touch_council(&name);
        }
    }
}

pub(super) fn council_key(name: &str) -> String {
    format!("{}{name}", names::COUNCILS_PREFIX)
}

fn wait_in_line(held: &mut Held, message: &Incoming) -> Result<(), ApiError> {
    if held.line.len() >= LINE_MAX {
        return Err(errors::UNAVAILABLE.with("too much is asked of this council at once"));
    }
    held.line.push_back(message.clone());
    Ok(())
}

/// A stored council that may be believed.
fn read_record(payload: &[u8]) -> Option<Record> {
    serde_json::from_slice::<Record>(payload).ok().filter(|record| record.terms.check().is_ok())
}

/// What statuses and events say.
fn describe(record: &Record) -> Value {
    let Record { council, status, run, members, open, missing, reason, .. } = record;
    let mut shown = json!({ "council": council, "status": status, "run": run, "members": members });
    if !open.is_empty() {
        shown["open"] = json!(open);
    }
    if !missing.is_empty() {
        shown["missing"] = json!(missing);
    }
    if !reason.is_empty() {
        shown["reason"] = reason.as_str().into();
    }
    shown
}

/// What INFO and LIST say.
fn show(held: &Held) -> Value {
    let record = &held.council.record;
    let mut shown = describe(record);
    let seated: BTreeMap<&Seat, &String> =
        held.council.sitting().iter().map(|(seat, sitter)| (seat, &sitter.agent)).collect();
    shown["seated"] = json!(seated);
    shown["missing"] = json!(held.council.missing());
    shown["created"] = json!(record.created);
    shown["deadline"] = json!(record.deadline);
    shown["updated"] = json!(record.updated);
    if !record.formed.is_zero() {
        shown["formed"] = json!(record.formed);
    }
    shown["revision"] = held.revision.into();
    shown
}
