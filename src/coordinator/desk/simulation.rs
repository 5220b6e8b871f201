//! The whole coordinator without a broker: a dull model of the stream and of agents, with lost answers, refused batches and
//! restarts thrown in by seed. Whatever happens, no task is lost, stuck or completed twice, and no stale lease is accepted.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use serde_json::{Value, json};

use super::{Answer, Desk, Output, Row, Settings};
use crate::client::{BatchEntry, ClientError, Incoming};
use crate::coordinator::random::Random;
use crate::coordinator::record::{Phase, Record};
use crate::types::{ApiError, Headers, Timestamp, subject};

const AGENTS: usize = 3;
/// What every task of the cron `tick` holds.
const TICK: &[u8] = b"tick";
const ANSWER: &str = "So.";
const MAX_RUNNING: usize = 3;
const NO_RESPONDERS: &[u8] = b"NATS/1.0 503\r\n\r\n";

/// A stored message of the model.
struct Stored {
    subject: String,
    headers: Vec<u8>,
    payload: Bytes,
}

/// An attempt in an agent's hands.
#[derive(Clone)]
struct Held {
    agent: usize,
    seq: u64,
    complete: String,
    fail: String,
    input: String,
    delivery: String,
    task: String,
}

struct World {
    desk: Desk,
    settings: Settings,
    random: Random,
    now: Timestamp,
    stream: BTreeMap<u64, Stored>,
    last_seq: u64,
    /// The newest sequence each agent's consumer delivered.
    delivered: [u64; AGENTS],
    /// What the desk wants sent and is not sent yet.
    outgoing: Vec<Output>,
    /// Answers on their way to the desk.
    incoming: Vec<(u64, Answer)>,
    held: Vec<Held>,
    /// Requests in the hands of a service: where the answer goes, and what was asked.
    asked: Vec<(String, Bytes)>,
    /// Leases whose completion was answered without an error, by task.
    accepted: HashMap<String, HashSet<String>>,
    submitted: HashMap<String, Bytes>,
    acknowledged: HashSet<String>,
    /// The Task-After of those that have one.
    after: HashMap<String, String>,
    /// The Task-Parent of those that have one.
    parents: HashMap<String, String>,
    /// Those that somebody wanted canceled, with all their descendants.
    unwanted: HashSet<String>,
    purged: bool,
    /// Faults happen.
    rough: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let settings = Settings {
            grace: Duration::from_secs(1),
            heartbeat: Duration::from_secs(2),
            accept_timeout: Duration::from_secs(2),
            payload_bytes_max: if seed.is_multiple_of(2) { 1 << 20 } else { 20 },
            ..Settings::default()
        };
        let now = Timestamp(1_700_000_000_000_000_000);
        let mut world = World {
            desk: Desk::new(settings.clone(), seed, now),
            settings,
            random: Random::new(seed ^ 0xabcd),
            now,
            stream: BTreeMap::new(),
            last_seq: 0,
            delivered: [0; AGENTS],
            outgoing: Vec::new(),
            incoming: Vec::new(),
            held: Vec::new(),
            asked: Vec::new(),
            accepted: HashMap::new(),
            submitted: HashMap::new(),
            acknowledged: HashSet::new(),
            after: HashMap::new(),
            parents: HashMap::new(),
            unwanted: HashSet::new(),
            purged: false,
            rough: false,
        };
        for agent in 0..AGENTS {
            world.register(agent);
        }
        let limits = json!({ "max_running": MAX_RUNNING, "max_per_key": 1, "rate": 20, "ageing_s": 1 });
        world.request("QUEUE.PUT.limited", "reply.put", "", limits.to_string().as_bytes());
        world.request("QUEUE.PUT.served", "reply.put", "", br#"{"mode":"service","lease_s":5}"#);
        let lines = "Task-Schedule: @every 2s\r\nTask-Max-Attempts: 1000\r\nTask-Backoff: 100ms\r\n";
        world.request("CRON.PUT.tick", "reply.put", lines, TICK);
        world.settle();
        world.rough = true;
        world
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.draw() % 100 < percent
    }

    fn pick(&mut self, len: usize) -> usize {
        (self.random.draw() % len.max(1) as u64) as usize
    }

    fn register(&mut self, agent: usize) {
        let body =
            json!({ "slots": 1 + agent, "queues": ["*"], "labels": if agent == 0 { vec!["gpu"] } else { vec![] } });
        self.request(&format!("AGENT.REGISTER.a{agent}"), "reply.register", "", body.to_string().as_bytes());
    }

    fn request(&mut self, tail: &str, reply: &str, lines: &str, body: &[u8]) {
        let headers = crate::coordinator::names::block(lines);
        let message = Incoming::new(format!("$TASK.API.{tail}").as_bytes(), reply.as_bytes(), &headers, body);
        self.desk.request(message, self.now);
        self.collect();
    }

    fn collect(&mut self) {
        let outputs = self.desk.take_outputs();
        self.outgoing.extend(outputs);
    }

    /// Carries out the desk's next output, as the broker would, or loses it.
    fn carry_out(&mut self) {
        if self.outgoing.is_empty() {
            return;
        }
        match self.outgoing.remove(0) {
            Output::Batch { call, entries } => {
                let fate = if self.rough { self.random.draw() % 20 } else { 19 };
                match fate {
                    0 => self.incoming.push((call, Answer::Lost(ClientError::Timeout))),
                    1 => {
                        self.store(&entries);
                        self.incoming.push((call, Answer::Lost(ClientError::Disconnected)));
                    }
                    2 => self.answer(call, json!({ "error": ApiError::INSUFFICIENT_RESOURCES })),
                    _ => {
                        let answer = self.store(&entries);
                        self.answer(call, answer);
                    }
                }
            }
            Output::Echo { call } => self.answer(call, json!({})),
            Output::Request { subject, reply, payload, .. } => {
                assert_eq!(subject, "served.run");
                let reply = String::from_utf8(reply.to_vec()).unwrap();
                match self.random.draw() % 10 {
                    0 if self.rough => {}
                    1 if self.rough => self.respond(&reply, NO_RESPONDERS, b""),
                    _ => self.asked.push((reply, payload)),
                }
            }
            Output::Publish { subject, call, headers, payload } => {
                let subject = String::from_utf8(subject.to_vec()).unwrap();
                if let Some(task) = subject.strip_prefix("reply.") {
                    self.answered(task.to_owned(), &headers, &payload);
                } else if let Some(api) = subject.strip_prefix("$JS.API.") {
                    let answer = self.api(api, &payload);
                    if let Some(call) = call {
                        if self.rough && self.chance(5) {
                            self.incoming.push((call, Answer::Lost(ClientError::Timeout)));
                        } else {
                            self.answer(call, answer);
                        }
                    }
                } else if let (Some(call), true) = (call, subject.starts_with("$TASK.X.")) {
                    // Nobody listens.
                    self.incoming.push((call, Answer::Message(Incoming::new(b"i", b"", NO_RESPONDERS, b""))));
                } else if let (Some(call), "$SRV.INFO") = (call, subject.as_str()) {
                    let metadata = json!({ "task.queue": "served", "task.slots": "2" });
                    let endpoint = json!({ "name": "run", "subject": "served.run" });
                    let info = json!({ "name": "served", "id": "S", "metadata": metadata, "endpoints": [endpoint] });
                    if !self.rough || self.chance(80) {
                        self.answer(call, info);
                    }
                } else if let Some(call) = call {
                    let entry = BatchEntry::new(subject, payload);
                    let answer = self.store(&[entry]);
                    self.answer(call, answer);
                }
            }
        }
    }

    fn answer(&mut self, call: u64, body: Value) {
        self.incoming.push((call, Answer::Message(Incoming::new(b"i", b"", b"", body.to_string().as_bytes()))));
    }

    fn store(&mut self, entries: &[BatchEntry]) -> Value {
        for entry in entries {
            let block = crate::coordinator::names::block(&entry.header_lines);
            if let Some(expected) = Headers::new(&block).get_str("Nats-Expected-Last-Subject-Sequence") {
                let last = self.last_of(&entry.subject).map_or(0, |(seq, _)| seq);
                if expected.parse() != Ok(last) {
                    return json!({ "error": ApiError::STREAM_WRONG_LAST_SEQUENCE.with(last) });
                }
            }
        }
        for entry in entries {
            self.last_seq += 1;
            let headers = crate::coordinator::names::block(&entry.header_lines);
            let stored = Stored { subject: entry.subject.clone(), headers, payload: entry.payload.clone() };
            self.stream.insert(self.last_seq, stored);
        }
        json!({ "stream": "KV_TASK", "seq": self.last_seq, "count": entries.len() })
    }

    fn last_of(&self, subject: &str) -> Option<(u64, &Stored)> {
        self.stream.iter().rev().find(|(_, stored)| stored.subject == subject).map(|(seq, stored)| (*seq, stored))
    }

    fn api(&mut self, api: &str, body: &[u8]) -> Value {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if api.starts_with("STREAM.MSG.GET.") {
            use base64::Engine as _;
            let base64 = base64::engine::general_purpose::STANDARD;
            return match self.last_of(body["last_by_subj"].as_str().unwrap()) {
                Some((seq, stored)) => json!({ "message": {
                    "subject": stored.subject, "seq": seq, "time": "2026-01-01T00:00:00Z",
                    "hdrs": base64.encode(&stored.headers), "data": base64.encode(&stored.payload),
                } }),
                None => json!({ "error": ApiError::NO_MESSAGE_FOUND }),
            };
        }
        if api.starts_with("STREAM.MSG.DELETE.") {
            self.stream.remove(&body["seq"].as_u64().unwrap());
        } else if api.starts_with("STREAM.PURGE.") {
            let filter = body["filter"].as_str().unwrap();
            let below = body["seq"].as_u64().unwrap_or(u64::MAX);
            self.stream
                .retain(|seq, stored| *seq >= below || !subject::matches(filter.as_bytes(), stored.subject.as_bytes()));
        } else if let Some(agent) = api.strip_prefix("CONSUMER.INFO.KV_TASK.agent_a") {
            let agent: usize = agent.parse().unwrap();
            return json!({ "delivered": { "stream_seq": self.delivered[agent] }, "num_waiting": 1 });
        }
        json!({})
    }

    /// Somebody's request was answered.
    fn answered(&mut self, what: String, headers: &[u8], body: &[u8]) {
        let fine = Headers::new(headers).get("Nats-Service-Error").is_none();
        if let Some(id) = what.strip_prefix("submit.").filter(|_| fine) {
            self.acknowledged.insert(id.to_owned());
        } else if let Some(rest) = what.strip_prefix("complete.").filter(|_| fine) {
            let (task, lease) = rest.split_once('.').unwrap();
            let leases = self.accepted.entry(task.to_owned()).or_default();
            leases.insert(lease.to_owned());
            assert!(leases.len() <= 1, "two completions of {task} were accepted: {}", String::from_utf8_lossy(body));
        }
    }

    /// An agent fetches its next assignment.
    fn fetch(&mut self, agent: usize) {
        let prefix = format!("$KV.TASK.a.a{agent}.");
        let from = self.delivered[agent] + 1;
        let found = self.stream.range(from..).find(|(_, stored)| stored.subject.starts_with(&prefix));
        let Some((seq, stored)) = found else { return };
        let headers = Headers::new(&stored.headers);
        let held = Held {
            agent,
            seq: *seq,
            complete: headers.get_str("Task-Complete").unwrap().to_owned(),
            fail: headers.get_str("Task-Fail").unwrap().to_owned(),
            input: headers.get_str("Task-Input").unwrap().to_owned(),
            delivery: headers.get_str("Task-Delivery").unwrap().to_owned(),
            task: headers.get_str("Task-Id").unwrap().to_owned(),
        };
        if let Some(answers) = headers.get_str("Task-Answers") {
            let answers: Vec<Value> = serde_json::from_str(answers).unwrap();
            assert!(!answers.is_empty() && answers.iter().all(|told| told["answer"] == ANSWER), "{answers:?}");
        }
        let expected = if held.task.starts_with("tick-") { TICK } else { &self.submitted[&held.task] };
        assert_eq!(stored.payload, expected, "the payload travels with the assignment");
        self.delivered[agent] = held.seq;
        self.held.push(held);
    }

    fn complete(&mut self, at: usize) {
        let held = self.held[at].clone();
        let tail = held.complete.strip_prefix("$TASK.API.").unwrap().to_owned();
        let lease = tail.rsplit('.').next().unwrap().to_owned();
        let body = format!("{}-{lease}", held.task);
        self.request(&tail, &format!("reply.complete.{}.{lease}", held.task), "", body.as_bytes());
    }

    fn submit(&mut self, id: &str) {
        let body = Bytes::from(format!("body of {id}"));
        self.submitted.entry(id.to_owned()).or_insert_with(|| body.clone());
        let number: u64 = id[1..].parse().unwrap();
        let mut lines = format!("Task-Id: {id}\r\nTask-Max-Attempts: 1000\r\nTask-Backoff: 100ms\r\n");
        if number.is_multiple_of(10) {
            lines.push_str("Task-Requires: gpu\r\n");
        } else if number % 7 == 3 {
            lines.push_str(&format!("Task-Sticky: s{}\r\nTask-Sticky-Mode: hard\r\n", number % 2));
        }
        // A hard token has its home among the agents that serve every queue.
        if number % 6 == 2 && number % 7 != 3 {
            lines.push_str("Task-Queue: served\r\n");
        } else if number % 4 == 1 {
            let priority = number % 3;
            lines.push_str(&format!("Task-Queue: limited\r\nTask-Key: k{priority}\r\nTask-Priority: {priority}\r\n"));
        }
        if number % 5 == 2 && !self.after.contains_key(id) {
            let mut others: Vec<String> = self.submitted.keys().filter(|other| *other != id).cloned().collect();
            others.sort();
            let (one, other) = (self.pick(others.len()), self.pick(others.len()));
            if !others.is_empty() {
                self.after.insert(id.to_owned(), format!("{},{}", others[one], others[other]));
            }
        }
        if number % 6 == 4 && !self.parents.contains_key(id) {
            let mut others: Vec<String> = self.submitted.keys().filter(|other| *other != id).cloned().collect();
            others.sort();
            let at = self.pick(others.len());
            others.get(at).map(|other| self.parents.insert(id.to_owned(), other.clone()));
        }
        if let Some(parent) = self.parents.get(id) {
            lines.push_str(&format!("Task-Parent: {parent}\r\n"));
        }
        if let Some(after) = self.after.get(id) {
            lines.push_str(&format!("Task-After: {after}\r\n"));
        }
        self.request("SUBMIT", &format!("reply.submit.{id}"), &lines, &body);
    }

    /// A service's answer, or nobody's, comes back.
    fn respond(&mut self, reply: &str, headers: &[u8], body: &[u8]) {
        let tail = reply.strip_prefix(crate::coordinator::names::SERVICE_REPLY).unwrap().to_owned();
        let message = Incoming::new(reply.as_bytes(), b"", headers, body);
        self.desk.service_answer(&tail, message, self.now);
        self.collect();
    }

    fn ack(&mut self, at: usize, word: &str) {
        let held = &self.held[at];
        let subject = format!("$JS.ACK.KV_TASK.agent_a{}.1.{}.1.1.0", held.agent, held.seq);
        let of_task = |desk: &Desk| {
            let task = desk.task(*desk.ids.get(&held.task)?)?;
            Some((task.item, task.view().into_owned(), task.lease_until, task.busy.is_some(), task.line.len()))
        };
        let before = of_task(&self.desk);
        self.desk.ack(&Incoming::new(subject.as_bytes(), b"", b"", word.as_bytes()), self.now);
        let stale = before.as_ref().is_some_and(|before| before.0 != held.seq);
        assert!(!stale || of_task(&self.desk) == before, "{word} of an older attempt of {} counted", held.task);
        self.collect();
    }

    /// Answers somebody's question.
    fn answer_one(&mut self) {
        let parked = |record: &Record| record.phase.is_parked().then(|| record.id.clone());
        let mut asked: Vec<String> = self.desk.tasks.iter().flatten().filter_map(|task| parked(&task.record)).collect();
        asked.sort();
        if !asked.is_empty() {
            let at = self.pick(asked.len());
            self.request(&format!("ANSWER.{}", asked[at]), "reply.answer", "", ANSWER.as_bytes());
        }
    }

    /// Whether somebody wanted it or an ancestor of it canceled.
    fn is_unwanted(&self, id: &str) -> bool {
        let family = std::iter::successors(Some(id), |id| self.parents.get(*id).map(String::as_str));
        family.take(self.submitted.len() + 1).any(|id| self.unwanted.contains(id))
    }

    /// The coordinator ends without warning; another reads what is stored.
    fn restart(&mut self) {
        self.outgoing.clear();
        self.incoming.clear();
        let seed = self.random.draw();
        self.desk = Desk::new(self.settings.clone(), seed, self.now);
        let mut newest: BTreeMap<&str, (u64, &Stored)> = BTreeMap::new();
        for (seq, stored) in &self.stream {
            newest.insert(&stored.subject, (*seq, stored));
        }
        let mut rows: Vec<(u64, &Stored)> = newest.into_values().collect();
        rows.sort_by_key(|(seq, _)| *seq);
        let is_item =
            |stored: &Stored| ["$KV.TASK.a.", "$KV.TASK.d."].iter().any(|prefix| stored.subject.starts_with(prefix));
        for (seq, stored) in rows.iter().filter(|(_, stored)| !is_item(stored)) {
            let row = Row { subject: &stored.subject, seq: *seq, headers: &stored.headers, payload: &stored.payload };
            self.desk.restore(row);
        }
        for (seq, stored) in self.stream.iter().filter(|(_, stored)| is_item(stored)) {
            self.desk.restore_item(&stored.subject, *seq);
        }
        self.desk.restored(self.now);
        self.collect();
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.desk.tick(self.now);
        self.collect();
    }

    fn deliver_answer(&mut self) {
        if !self.incoming.is_empty() {
            let (call, answer) = self.incoming.remove(0);
            self.desk.answer(call, answer, self.now);
            self.desk.tick(self.now);
            self.collect();
        }
    }

    /// Everything under way arrives.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.outgoing.is_empty() && self.incoming.is_empty() {
                return;
            }
            self.carry_out();
            self.deliver_answer();
        }
        panic!("it does not come to rest");
    }

    fn step(&mut self, step: usize) {
        match self.random.draw() % 110 {
            0..10 => self.submit(&format!("t{step}")),
            10..13 if !self.submitted.is_empty() => {
                let mut ids: Vec<String> = self.submitted.keys().cloned().collect();
                ids.sort();
                let at = self.pick(ids.len());
                self.submit(&ids[at].clone());
            }
            13..30 => {
                let agent = self.pick(AGENTS);
                self.fetch(agent);
            }
            30..45 if !self.held.is_empty() => {
                let at = self.pick(self.held.len());
                self.complete(at);
                if self.chance(50) {
                    self.held.swap_remove(at);
                }
            }
            45..48 if !self.held.is_empty() => {
                let at = self.pick(self.held.len());
                let tail = self.held[at].fail.strip_prefix("$TASK.API.").unwrap().to_owned();
                self.request(&tail, "reply.fail", "", b"boom");
            }
            48..51 if !self.held.is_empty() => {
                let at = self.pick(self.held.len());
                let words = ["+WPI", "-NAK", "+ACK", ""];
                let word = words[self.pick(words.len())];
                self.ack(at, word);
            }
            51..52 if !self.held.is_empty() => {
                let at = self.pick(self.held.len());
                self.held.swap_remove(at);
            }
            52..53 => self.restart(),
            53..54 => {
                let agent = self.pick(AGENTS);
                self.register(agent);
            }
            54..60 => {
                let millis = [1, 50, 600, 3000][self.pick(4)];
                self.pass(Duration::from_millis(millis));
            }
            60..62 => {
                let verb = ["PAUSE", "RESUME", "RESUME"][self.pick(3)];
                self.request(&format!("QUEUE.{verb}.limited"), "reply.pause", "", b"");
            }
            62 if self.chance(20) => {
                self.purged = true;
                self.request("QUEUE.PURGE.limited", "reply.purge", "", b"");
            }
            63..68 if !self.asked.is_empty() => {
                let at = self.pick(self.asked.len());
                let (reply, body) = self.asked[at].clone();
                let task = reply.split('.').nth(2).unwrap();
                assert_eq!(body, self.submitted[task], "the payload travels with the request");
                match self.random.draw() % 8 {
                    0 => self.respond(&reply, b"NATS/1.0\r\nNats-Service-Error-Code: 500\r\n\r\n", b""),
                    _ => self.respond(&reply, b"", reply.as_bytes()),
                }
                // Now and then it answers twice, or long after its lease.
                if self.chance(70) {
                    self.asked.swap_remove(at);
                }
            }
            63..80 => self.carry_out(),
            100..103 if !self.held.is_empty() => {
                let at = self.pick(self.held.len());
                let tail = self.held[at].input.strip_prefix("$TASK.API.").unwrap().to_owned();
                let lines = ["", "Task-State: auth-required\r\n"][self.pick(2)];
                self.request(&tail, "reply.input", lines, b"How?");
                if self.chance(50) {
                    self.held.swap_remove(at);
                }
            }
            103..106 => self.answer_one(),
            106 if !self.submitted.is_empty() && self.chance(40) => {
                let mut ids: Vec<String> = self.submitted.keys().cloned().collect();
                ids.sort();
                let id = ids.swap_remove(self.pick(ids.len()));
                let body = [r#"{"children":true}"#, r#"{"children":true,"force":true}"#][self.pick(2)];
                self.request(&format!("CANCEL.{id}"), "reply.cancel", "", body.as_bytes());
                self.unwanted.insert(id);
            }
            109 if !self.submitted.is_empty() => {
                let mut ids: Vec<String> = self.submitted.keys().cloned().collect();
                ids.sort();
                let at = self.pick(ids.len());
                self.request(&format!("EXPLAIN.{}", ids[at]), "reply.explain", "", b"");
            }
            107..109 if !self.held.is_empty() => {
                let at = self.pick(self.held.len());
                let (task, delivery) = (self.held[at].task.clone(), self.held[at].delivery.clone());
                let before = self.desk.ids.get(&task).map(|index| self.desk.task(*index).unwrap().lease_until);
                let headers = crate::coordinator::names::block(&format!("Task-Delivery: {delivery}\r\n"));
                let chunk = Incoming::new(format!("$TASK.P.{task}").as_bytes(), b"", &headers, b"chunk");
                self.desk.progress(&task, &chunk, self.now);
                self.collect();
                if let Some(task) = self.desk.ids.get(&task).and_then(|index| self.desk.task(*index)) {
                    let extended = before != Some(task.lease_until);
                    assert!(!extended || task.record.deliveries.to_string() == delivery, "a stale chunk counted");
                }
            }
            _ => self.deliver_answer(),
        }
        self.check();
    }

    /// What holds at every moment: leases, slots, limits, homes, dependencies, and that who waits is in line.
    fn check(&self) {
        let mut running: HashMap<&str, usize> = HashMap::new();
        let mut homes: HashMap<&str, &str> = HashMap::new();
        for task in self.desk.tasks.iter().flatten() {
            let record = &task.record;
            assert!(record.attempt <= record.max_attempts);
            assert_eq!(record.phase.is_leased() || record.phase.is_parked(), !record.lease.is_empty());
            assert!(
                !record.phase.is_parked() || (task.holder.is_none() && task.item == 0),
                "{} is not parked",
                record.id
            );
            let waits = record.phase == Phase::Queued && task.revision > 0 && task.busy.is_none();
            assert!(!waits || task.spot.is_some() || !task.retry_at.is_zero(), "{} is not in line", record.id);
            assert!(task.spot.is_none() || record.phase == Phase::Queued, "{} is in line for nothing", record.id);
            if task.holder.is_some() && record.queue == "limited" {
                *running.entry(&record.key).or_default() += 1;
            }
            if let Some(had) = &record.had {
                assert_eq!(*homes.entry(&record.sticky).or_insert(&had.agent), had.agent, "a hard token has one home");
            }
            for id in record.after.iter().filter(|_| record.phase.is_leased()) {
                let before = &self.desk.task(self.desk.ids[id]).unwrap().record;
                assert_eq!(before.phase, Phase::Completed, "{} runs before {id}", record.id);
            }
        }
        assert!(running.values().all(|count| *count <= 1), "{running:?} of one key");
        assert!(running.values().sum::<usize>() <= MAX_RUNNING, "{running:?}");
        // A time of the cron and its task are stored together.
        let stored = self.last_of("$KV.TASK.c.tick.next").filter(|(_, stored)| !stored.payload.is_empty());
        let noted: Value =
            stored.map(|(_, stored)| serde_json::from_slice(&stored.payload).unwrap()).unwrap_or_default();
        let newest = self.stream.values().filter_map(|stored| stored.subject.strip_prefix("$KV.TASK.s.tick-")).max();
        if !noted.is_null() {
            let noted = noted["last_task"].as_str().map(|id| id.strip_prefix("tick-").unwrap());
            assert_eq!(noted, newest, "a time was lost or comes again");
        }
        for (_, agent) in self.desk.roster.iter() {
            assert!(agent.live.len() <= agent.card.slots as usize + AGENTS, "slots are kept");
        }
    }

    /// Faults end; good agents finish the rest.
    fn finish(&mut self) {
        self.rough = false;
        self.held.clear();
        self.asked.clear();
        self.settle();
        self.request("QUEUE.RESUME.limited", "reply.resume", "", b"");
        self.request("CRON.RM.tick", "reply.rm", "", b"");
        for round in 0..400 {
            self.settle();
            for agent in 0..AGENTS {
                self.desk.heartbeat(&format!("a{agent}"), self.now);
                self.collect();
                self.fetch(agent);
            }
            while let Some((reply, _)) = self.asked.pop() {
                self.respond(&reply, b"", b"served");
                self.settle();
            }
            while !self.held.is_empty() {
                self.complete(0);
                self.held.remove(0);
                self.settle();
            }
            for _ in 0..self.desk.tasks.len() {
                self.answer_one();
            }
            self.pass(Duration::from_millis(500));
            let open = self.desk.tasks.iter().flatten().any(|task| !task.record.phase.is_final());
            if !open && round > 20 {
                break;
            }
        }
        self.settle();
        let ticks = self.desk.ids.keys().filter(|id| id.starts_with("tick-"));
        let known: HashSet<String> = ticks.chain(&self.acknowledged).cloned().collect();
        for id in &known {
            let index = self.desk.ids.get(id).unwrap_or_else(|| panic!("{id} is lost"));
            let task = self.desk.task(*index).unwrap();
            let hopeless =
                |after: &String| self.desk.task(self.desk.ids[after]).unwrap().record.phase != Phase::Completed;
            match task.record.phase {
                Phase::Canceled => {
                    assert!(self.is_unwanted(id) || (self.purged && task.record.queue == "limited"), "{task:?}");
                }
                Phase::Dead => assert!(task.record.after.iter().any(hopeless), "{task:?}"),
                phase => assert_eq!(phase, Phase::Completed, "{id} is stuck: {task:?}"),
            }
            if task.record.phase != Phase::Completed {
                continue;
            }
            let results = self.stream.values().filter(|stored| stored.subject == format!("$KV.TASK.r.{id}")).count();
            assert_eq!(results, 1, "{id} has {results} results");
            let (_, stored) = self.last_of(&format!("$KV.TASK.s.{id}")).unwrap();
            let record: Record = serde_json::from_slice(&stored.payload).unwrap();
            assert_eq!(record, task.record, "memory and stream agree");
            if let Some(leases) = self.accepted.get(id) {
                let known = record.completion.unwrap().lease;
                assert!(leases.iter().all(|lease| *lease == known), "{id}: a stale lease was told it completed");
            }
        }
        let mut left = self.stream.values().filter(|stored| stored.subject.starts_with("$KV.TASK.a."));
        assert!(left.next().is_none(), "assignments are cleaned up");
        let due = |task: &&super::Task| task.record.descendants.are_due();
        assert!(!self.desk.tasks.iter().flatten().any(|task| due(&task)), "a family is not canceled");
        assert!(self.desk.dependents.is_empty() && self.desk.purges.is_empty() && self.desk.cron_lines.is_empty());
    }
}

#[test]
fn whatever_happens_every_accepted_task_completes_once() {
    let seeds = std::env::var("NATTERJACK_SIMULATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for step in 0..400 {
                world.step(step);
            }
            world.finish();
        });
        if let Err(panic) = result {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}
