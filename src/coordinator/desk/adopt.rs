//! Adopted consumers: a user's own stream and consumer, whose dead messages become dead letters. Workers and publishers know
//! nothing of it.
//!
//! What a client can see is used. A stream of our own, `TASK_ADVISORIES`, keeps the broker's advisories about messages that
//! used up their deliveries or were terminated, so that none is missed while no coordinator runs; each stays there until its
//! letter is stored. In a work queue, what lies at or below the settled part of the stream died unseen, and is found by
//! looking. A letter's id comes from queue, stream and sequence, so one message gets one letter.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use super::Desk;
use super::answers::{self, ConsumerState};
use super::calls::{Answer, Call};
use super::queues::Queue;
use crate::client::StoredEntry;
use crate::coordinator::names;
use crate::coordinator::queue::{Adopt, Mode};
use crate::coordinator::record::{self, Phase};
use crate::coordinator::task::Event;
use crate::types::{ApiError, Timestamp, subject};

/// Letters on their way to the store at once.
pub(super) const BURIALS_MAX: usize = 64;
/// Messages read in a row for one look, of a stream that may hold many.
const READ_AT_ONCE: u32 = 256;
/// Copies of messages kept that the stream drops once they are terminated.
const COPIES_MAX: usize = 1000;
const COPIES_BYTES_MAX: usize = 16 << 20;
/// How long what is known of a stream holds.
const FACTS_KEPT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);
/// How often the advisories are looked at unasked.
pub(super) const RECHECK: Duration = Duration::from_secs(5);

/// How a message died, as far as anybody knows.
#[derive(Clone, Debug)]
pub(super) struct Corpse {
    pub seq: u64,
    pub error: String,
    pub deliveries: u32,
    /// Its deliveries did not end it, a worker did.
    pub terminated: bool,
    /// Sequence of the advisory that told; 0 is none.
    pub advisory: u64,
}

#[derive(Clone, Debug)]
struct Facts {
    /// Tells this stream from another of its name.
    tag: String,
    /// Settled messages leave the stream.
    removes: bool,
    /// And no other consumer has a say about them.
    work_queue: bool,
    at: Timestamp,
}

/// What is known of one adopted consumer.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub adopt: Adopt,
    facts: Option<Facts>,
    filters: Vec<String>,
    state: ConsumerState,
    fault: String,
    /// A question about it is under way.
    asked: bool,
    looked: Timestamp,
    /// Tasks by the sequence of their message.
    pub tasks: BTreeMap<u64, u32>,
    /// All at or below was settled when the consumer was asked before the last time.
    settled: u64,
    settled_last: u64,
    /// All at or below was looked for dead ones.
    scanned: u64,
    scanning: bool,
    copies: VecDeque<StoredEntry>,
    copies_bytes: usize,
    copied: u64,
    copying: bool,
    /// Reads left for this look.
    budget: u32,
    /// Tasks, with their serials, that are forgotten once it is known what kind of stream it is.
    pub undecided: Vec<(u32, u64)>,
}

/// All of them, and the reader of advisories.
#[derive(Debug, Default)]
pub(super) struct Adoptions {
    pub by_queue: BTreeMap<String, Adopted>,
    /// The stream of advisories is not as it should be.
    pub stale: bool,
    /// It is.
    kept: bool,
    /// Why there is none.
    fault: Option<String>,
    next: u64,
    reading: bool,
    wake: bool,
    again: Timestamp,
    pub burials: usize,
    /// The configuration wants something else than there is.
    pub unfulfilled: bool,
    /// When that is tried again.
    pub retry_at: Timestamp,
    /// What was in the way last, by queue, to say it once.
    pub hindrances: BTreeMap<String, String>,
}

impl Adoptions {
    /// There may be advisories.
    pub fn wake(&mut self) {
        self.wake = true;
    }

    /// Whether all advisories there were have been read, as far as there are any to read.
    pub fn are_told(&self) -> bool {
        self.fault.is_some() || (self.kept && !self.stale && !self.wake && !self.reading)
    }
}

impl Adopted {
    /// The id of the letter of the message at `seq`.
    pub fn letter_id(&self, queue: &str, seq: u64) -> Option<String> {
        let name = &queue[..queue.len().min(36)];
        self.facts.as_ref().map(|facts| format!("{name}-{}-{seq}", facts.tag))
    }

    /// Its stream has not been heard of, neither what it is nor that it is not there.
    pub fn is_unknown(&self) -> bool {
        self.facts.is_none() && self.fault.is_empty()
    }

    pub fn is_work_queue(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.work_queue)
    }

    /// It does not answer: said once for each reason, and looked for again.
    fn missed(&mut self, queue: &str, reason: String) {
        if self.fault != reason {
            let Adopt { stream, consumer, .. } = &self.adopt;
            tracing::warn!(
                queue,
                stream,
                consumer,
                reason,
                "an adopted consumer is not to be found, and nothing that dies there becomes a dead letter: make it, or adopt \
                 another; it is looked for again"
            );
            self.fault = reason;
        }
    }

    fn found(&mut self, queue: &str) {
        if !std::mem::take(&mut self.fault).is_empty() {
            tracing::info!(queue, consumer = self.adopt.consumer, "an adopted consumer is there now");
        }
    }

    fn has_copy(&self, seq: u64) -> Option<StoredEntry> {
        self.copies.iter().find(|entry| entry.seq == seq).cloned()
    }

    fn keep_copy(&mut self, entry: StoredEntry) {
        self.copies_bytes += entry.payload.len() + entry.headers.len();
        self.copies.push_back(entry);
        while self.copies.len() > COPIES_MAX || self.copies_bytes > COPIES_BYTES_MAX {
            self.drop_copy();
        }
    }

    fn drop_copy(&mut self) {
        if let Some(entry) = self.copies.pop_front() {
            self.copies_bytes -= entry.payload.len() + entry.headers.len();
        }
    }

    fn is_for_it(&self, name: &str) -> bool {
        self.filters.is_empty()
            || self.filters.iter().any(|filter| subject::matches(filter.as_bytes(), name.as_bytes()))
    }
}

impl Desk {
    /// Follows a queue's consumer from now on, or no longer, as its settings say.
    pub(super) fn follow(&mut self, queue: &str, before: Mode) {
        let config = self.queue_config(queue);
        if (config.mode == Mode::Pull) != (before == Mode::Pull) {
            self.keep_advisories_anew();
        }
        let config = self.queue_config(queue);
        let wanted = config.adopt.clone().filter(|_| config.mode == Mode::Adopted);
        let known = self.adoptions.by_queue.get_mut(queue).map(|adopted| &mut adopted.adopt);
        match (known, &wanted) {
            (None, None) => return,
            (Some(known), Some(wanted)) if known.is(wanted) => return known.clone_from(wanted),
            _ => {}
        }
        match wanted {
            Some(adopt) => {
                let adopted = Adopted { adopt, ..Adopted::default() };
                self.adoptions.by_queue.insert(queue.to_owned(), adopted);
            }
            None => drop(self.adoptions.by_queue.remove(queue)),
        }
        self.keep_advisories_anew();
    }

    /// Other consumers' advisories are to be kept than before.
    fn keep_advisories_anew(&mut self) {
        self.adoptions.stale = true;
        self.adoptions.kept = false;
        self.adoptions.wake = true;
        self.next_sweep = self.next_sweep.min(self.now);
    }

    /// The consumers whose advisories are kept, by stream: those that are adopted, and those of pull queues.
    fn advised(&self) -> Vec<(String, String)> {
        let adopted = self.adoptions.by_queue.values().map(|adopted| &adopted.adopt);
        let adopted = adopted.map(|Adopt { stream, consumer, .. }| (stream.clone(), consumer.clone()));
        let pulled = self.queues.iter().filter(|(_, queue)| queue.config.mode == Mode::Pull);
        let pulled = pulled.map(|(name, _)| (names::STREAM.to_owned(), names::queue_consumer(name)));
        adopted.chain(pulled).collect()
    }

    pub(super) fn look_after_adopted(&mut self) {
        if self.adoptions.unfulfilled && self.adoptions.retry_at <= self.now {
            self.adopt_as_configured();
        }
        let pulls = |queue: &Queue| queue.config.mode == Mode::Pull;
        if self.adoptions.by_queue.is_empty() && !self.queues.values().any(pulls) {
            self.adoptions.stale = false;
            return;
        }
        if self.adoptions.again <= self.now {
            self.adoptions.again = self.now + RECHECK;
            self.adoptions.wake = true;
            self.adoptions.stale |= self.adoptions.fault.is_some();
        }
        if std::mem::take(&mut self.adoptions.stale) {
            self.keep_advisories(false);
        }
        self.read_advisories();
        let now = self.now;
        let seldom = self.settings.sweep * 10;
        let mut calls = Vec::new();
        for (queue, adopted) in &mut self.adoptions.by_queue {
            let stale = adopted.facts.as_ref().is_none_or(|facts| facts.at + FACTS_KEPT <= now);
            let removes = adopted.facts.as_ref().is_some_and(|facts| facts.removes);
            // What has to be copied in time or is followed is looked at at once, the rest for the figures.
            let pause = if removes || !adopted.tasks.is_empty() { Duration::ZERO } else { seldom };
            if adopted.asked || adopted.looked + pause > now && !stale {
                continue;
            }
            adopted.asked = true;
            adopted.looked = now;
            let Adopt { stream, consumer, .. } = adopted.adopt.clone();
            let queue = queue.clone();
            calls.push(match stale {
                true => (Call::AdoptedStream { queue }, format!("STREAM.INFO.{stream}")),
                false => (Call::AdoptedConsumer { queue }, format!("CONSUMER.INFO.{stream}.{consumer}")),
            });
        }
        for (call, api) in calls {
            self.call_api(call, &api, &Value::Null);
        }
    }

    /// Makes the stream of advisories hold those of all adopted consumers.
    fn keep_advisories(&mut self, update: bool) {
        let pairs = self.advised().into_iter();
        let subjects: Vec<String> = pairs
            .flat_map(|(stream, consumer)| {
                ["MAX_DELIVERIES", "MSG_TERMINATED"]
                    .map(|kind| format!("$JS.EVENT.ADVISORY.CONSUMER.{kind}.{stream}.{consumer}"))
            })
            .collect();
        let config = json!({
            "name": names::ADVISORIES_STREAM, "subjects": subjects, "retention": "limits", "storage": "file",
            "discard": "old", "max_age": 30 * 86_400_000_000_000_i64, "max_msgs": 1_000_000, "max_bytes": 512 << 20,
            "num_replicas": self.settings.replicas, "allow_direct": true,
        });
        let verb = if update { "UPDATE" } else { "CREATE" };
        self.call_api(Call::Advisories { update }, &format!("STREAM.{verb}.{}", names::ADVISORIES_STREAM), &config);
    }

    pub(super) fn advisories_kept(&mut self, update: bool, answer: &Answer) {
        let code = match answer {
            Answer::Message(message) => {
                let body: Value = serde_json::from_slice(message.payload()).unwrap_or_default();
                body["error"]["err_code"].as_u64()
            }
            _ => None,
        };
        match answers::json(answer) {
            Ok(_) => {
                self.adoptions.fault = None;
                self.adoptions.kept = true;
                self.adoptions.wake = true;
                self.read_advisories();
            }
            Err(_) if !update && code == Some(u64::from(ApiError::STREAM_NAME_EXIST.err_code)) => {
                self.keep_advisories(true);
            }
            Err(reason) => {
                if self.adoptions.fault.as_ref() != Some(&reason) {
                    tracing::warn!(
                        reason,
                        "advisories cannot be kept: those missed while no coordinator runs are lost"
                    );
                }
                self.adoptions.fault = Some(reason);
            }
        }
    }

    pub(super) fn adopted_stream_answered(&mut self, queue: &str, answer: &Answer) {
        let now = self.now;
        let info = answers::json(answer);
        let Some(adopted) = self.adoptions.by_queue.get_mut(queue) else { return };
        match info {
            Ok(info) => {
                let created = info["created"].as_str().unwrap_or_default();
                let whole = format!("{} {created}", adopted.adopt.stream);
                let retention = info["config"]["retention"].as_str().unwrap_or_default();
                adopted.facts = Some(Facts {
                    tag: record::digest(whole.as_bytes())[..6].to_owned(),
                    removes: retention != "limits",
                    work_queue: retention == "workqueue",
                    at: now,
                });
                let Adopt { stream, consumer, .. } = adopted.adopt.clone();
                let api = format!("CONSUMER.INFO.{stream}.{consumer}");
                self.call_api(Call::AdoptedConsumer { queue: queue.to_owned() }, &api, &Value::Null);
                self.adoptions.wake = true;
                self.read_advisories();
            }
            Err(reason) => {
                adopted.asked = false;
                adopted.facts = None;
                adopted.missed(queue, reason);
            }
        }
        let undecided = self.adoptions.by_queue.get_mut(queue).map(|adopted| std::mem::take(&mut adopted.undecided));
        for (index, serial) in undecided.unwrap_or_default() {
            if let Some(task) = self.same_task(index, serial) {
                task.busy = None;
                self.drain(index);
            }
        }
    }

    pub(super) fn adopted_consumer_answered(&mut self, queue: &str, answer: &Answer) {
        let info = answers::json(answer);
        let Some(adopted) = self.adoptions.by_queue.get_mut(queue) else { return };
        adopted.asked = false;
        let info = match info {
            Ok(info) => info,
            Err(reason) => return adopted.missed(queue, reason),
        };
        adopted.found(queue);
        let config = &info["config"];
        adopted.filters = match (config["filter_subject"].as_str(), config["filter_subjects"].as_array()) {
            (Some(filter), _) if !filter.is_empty() => vec![filter.to_owned()],
            (_, Some(filters)) => filters.iter().filter_map(|filter| filter.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        let state = ConsumerState::read(&info);
        adopted.state = state;
        let settled = if state.ack_pending == 0 { state.delivered_seq } else { state.ack_floor_seq };
        // What was settled a look ago has left the stream by now if it ever does, and its advisory has come.
        adopted.settled = adopted.settled_last.min(settled);
        adopted.settled_last = settled;
        adopted.budget = READ_AT_ONCE;
        while adopted.copies.front().is_some_and(|entry| entry.seq <= adopted.settled) {
            adopted.drop_copy();
        }
        self.follow_tasks(queue);
        self.scan_on(queue);
        self.copy_on(queue);
    }

    /// Requeued letters: their messages are delivered and acknowledged as all others.
    fn follow_tasks(&mut self, queue: &str) {
        let Some(adopted) = self.adoptions.by_queue.get(queue) else { return };
        let quiet = !self.adoptions.wake && !self.adoptions.reading;
        let (settled, delivered) = (adopted.settled, adopted.state.delivered_seq);
        let patient = self.settings.sweep * 2;
        let mut events = Vec::new();
        for (seq, index) in &adopted.tasks {
            let Some(task) = self.task(*index) else { continue };
            let record = &task.record;
            let live = matches!(record.phase, Phase::Queued | Phase::Running) && task.busy.is_none();
            if !live || record.origin.as_ref().is_none_or(|origin| origin.seq != *seq) || *seq > delivered {
                continue;
            }
            if *seq <= settled && quiet && record.updated + patient <= self.now {
                events.push((*index, Event::PullAcked { delivery: 0 }));
            } else if record.phase == Phase::Queued {
                events.push((*index, Event::PullDelivered { delivery: 1, refused: false }));
            }
        }
        for (index, event) in events {
            self.enqueue_event(index, event);
        }
    }

    /// Looks through the settled part of a work queue: what is still there is dead.
    fn scan_on(&mut self, queue: &str) {
        let burials = self.adoptions.burials;
        let Some(adopted) = self.adoptions.by_queue.get_mut(queue) else { return };
        let able = adopted.is_work_queue() && !adopted.scanning && burials < BURIALS_MAX;
        if !able || adopted.scanned >= adopted.settled || adopted.budget == 0 {
            return;
        }
        adopted.budget -= 1;
        adopted.scanning = true;
        let (stream, from) = (adopted.adopt.stream.clone(), adopted.scanned + 1);
        self.call_next_message(Call::AdoptedScan { queue: queue.to_owned() }, &stream, from);
    }

    pub(super) fn scan_answered(&mut self, queue: &str, answer: &Answer) {
        let Some(adopted) = self.adoptions.by_queue.get_mut(queue) else { return };
        adopted.scanning = false;
        match answers::stored(answer) {
            Ok(Some(entry)) if entry.seq <= adopted.settled => {
                adopted.scanned = entry.seq;
                if adopted.is_for_it(&entry.subject) {
                    let error = "its deliveries were used up, which nobody saw".to_owned();
                    let corpse = Corpse { seq: entry.seq, error, deliveries: 0, terminated: false, advisory: 0 };
                    self.bury(queue, corpse);
                }
                self.scan_on(queue);
            }
            Ok(_) => adopted.scanned = adopted.settled,
            Err(reason) => adopted.fault = reason,
        }
    }

    /// Copies what waits or is worked on in a stream that drops what is terminated.
    fn copy_on(&mut self, queue: &str) {
        let Some(adopted) = self.adoptions.by_queue.get_mut(queue) else { return };
        let removes = adopted.facts.as_ref().is_some_and(|facts| facts.removes);
        let full = adopted.copies.len() >= COPIES_MAX || adopted.copies_bytes >= COPIES_BYTES_MAX;
        if !removes || adopted.copying || full || adopted.budget == 0 {
            return;
        }
        adopted.budget -= 1;
        adopted.copying = true;
        let from = adopted.copied.max(adopted.settled) + 1;
        let stream = adopted.adopt.stream.clone();
        self.call_next_message(Call::AdoptedCopy { queue: queue.to_owned() }, &stream, from);
    }

    pub(super) fn copy_answered(&mut self, queue: &str, answer: &Answer) {
        let Some(adopted) = self.adoptions.by_queue.get_mut(queue) else { return };
        adopted.copying = false;
        if let Ok(Some(entry)) = answers::stored(answer) {
            adopted.copied = entry.seq;
            if adopted.is_for_it(&entry.subject) {
                adopted.keep_copy(entry);
            }
            self.copy_on(queue);
        }
    }

    fn call_next_message(&mut self, call: Call, stream: &str, from: u64) {
        let body = json!({ "seq": from, "next_by_subj": ">" });
        self.call_api(call, &format!("STREAM.MSG.GET.{stream}"), &body);
    }

    /// A live advisory. It lies in the stream too; without that, it is all there is.
    pub(super) fn adopted_advisory(&mut self, name: &str, body: &[u8]) {
        if self.adoptions.by_queue.is_empty() {
            return;
        }
        if self.adoptions.fault.is_none() {
            self.adoptions.wake = true;
            return self.read_advisories();
        }
        if let Some((queue, corpse)) = self.read_corpse(name, body, 0) {
            self.bury(&queue, corpse);
        }
    }

    fn read_corpse(&self, name: &str, body: &[u8], advisory: u64) -> Option<(String, Corpse)> {
        let mut tokens = name.strip_prefix("$JS.EVENT.ADVISORY.CONSUMER.")?.split('.');
        let (kind, stream, consumer) = (tokens.next()?, tokens.next()?, tokens.next()?);
        let adopts = |adopted: &Adopted| adopted.adopt.stream == stream && adopted.adopt.consumer == consumer;
        let (queue, _) = self.adoptions.by_queue.iter().find(|(_, adopted)| adopts(adopted))?;
        let body: Value = serde_json::from_slice(body).ok()?;
        let terminated = kind == "MSG_TERMINATED";
        let error = match (terminated, body["reason"].as_str().unwrap_or_default()) {
            (true, "") => "terminated".to_owned(),
            (true, reason) => super::requests::clip(&format!("terminated: {reason}")),
            (false, _) => "deliveries used".to_owned(),
        };
        let deliveries = body["deliveries"].as_u64().unwrap_or(0).min(1_000_000) as u32;
        Some((queue.clone(), Corpse { seq: body["stream_seq"].as_u64()?, error, deliveries, terminated, advisory }))
    }

    pub(super) fn read_advisories(&mut self) {
        let adoptions = &mut self.adoptions;
        if adoptions.reading || !adoptions.wake || adoptions.fault.is_some() || adoptions.burials >= BURIALS_MAX {
            return;
        }
        adoptions.reading = true;
        let from = adoptions.next.max(1);
        self.call_next_message(Call::NextAdvisory, names::ADVISORIES_STREAM, from);
    }

    pub(super) fn advisory_answered(&mut self, answer: &Answer) {
        self.adoptions.reading = false;
        match answers::stored(answer) {
            Ok(Some(entry)) => {
                self.adoptions.next = entry.seq + 1;
                if self.kept_advisory(&entry) {
                    return self.read_advisories();
                }
                match self.read_corpse(&entry.subject, &entry.payload, entry.seq) {
                    Some((queue, corpse)) => self.bury(&queue, corpse),
                    // Of a consumer that nobody adopts any more.
                    None => self.forget_advisory(entry.seq),
                }
                self.read_advisories();
            }
            Ok(None) => self.adoptions.wake = false,
            Err(reason) => {
                tracing::debug!(reason, "advisories cannot be read");
                self.adoptions.wake = false;
                self.adoptions.stale = true;
            }
        }
    }

    pub(super) fn forget_advisory(&mut self, seq: u64) {
        if seq > 0 {
            let body = json!({ "seq": seq, "no_erase": true });
            self.call_api(Call::Unimportant, &format!("STREAM.MSG.DELETE.{}", names::ADVISORIES_STREAM), &body);
        }
    }

    /// A message is dead: its letter is made, unless there is one.
    pub(super) fn bury(&mut self, queue: &str, corpse: Corpse) {
        let Some(adopted) = self.adoptions.by_queue.get(queue) else { return };
        if let Some(index) = adopted.tasks.get(&corpse.seq).copied() {
            return self.dies_again(index, corpse);
        }
        if adopted.facts.is_none() {
            return self.bury_later(queue, &corpse);
        }
        let stream = adopted.adopt.stream.clone();
        let copy = adopted.has_copy(corpse.seq);
        self.adoptions.burials += 1;
        match copy {
            Some(entry) => self.bury_with(queue, corpse, Some(entry)),
            None => {
                let body = json!({ "seq": corpse.seq });
                let call = Call::Corpse { queue: queue.to_owned(), corpse };
                self.call_api(call, &format!("STREAM.MSG.GET.{stream}"), &body);
            }
        }
    }

    pub(super) fn corpse_answered(&mut self, queue: &str, corpse: Corpse, answer: &Answer) {
        match answers::stored(answer) {
            Ok(entry) => self.bury_with(queue, corpse, entry),
            Err(_) => {
                self.adoptions.burials -= 1;
                self.bury_later(queue, &corpse);
            }
        }
    }

    /// What told of it tells again.
    pub(super) fn bury_later(&mut self, queue: &str, corpse: &Corpse) {
        if corpse.advisory > 0 {
            self.adoptions.next = self.adoptions.next.min(corpse.advisory);
            self.adoptions.wake = false;
            self.adoptions.again = self.now + PAUSE;
        } else if let Some(adopted) = self.adoptions.by_queue.get_mut(queue) {
            adopted.scanned = adopted.scanned.min(corpse.seq.saturating_sub(1));
        }
    }

    pub(super) fn show_adopted(&self, queue: &str) -> Value {
        let Some(adopted) = self.adoptions.by_queue.get(queue) else { return Value::Null };
        let state = adopted.state;
        let mut shown = json!({
            "pending": state.pending, "working": state.ack_pending, "redelivered": state.redelivered,
            "delivered_seq": state.delivered_seq, "ack_floor_seq": state.ack_floor_seq,
            "copies": adopted.copies.len(),
        });
        if !adopted.fault.is_empty() {
            shown["fault"] = adopted.fault.as_str().into();
        }
        if let Some(fault) = &self.adoptions.fault {
            shown["advisories_fault"] = fault.as_str().into();
        }
        shown
    }
}
