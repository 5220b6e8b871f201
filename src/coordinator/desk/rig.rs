//! A desk with a store that takes everything, for tests of a few steps: what the desk wants sent waits until the test lets
//! it happen, so that anything may come between.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use serde_json::{Value, json};

use super::{Answer, Desk, Output, Row, Settings};
use crate::client::{BatchEntry, Incoming};
use crate::coordinator::names;
use crate::coordinator::record::Record;
use crate::types::{ApiError, Timestamp};

pub(super) struct Rig {
    pub desk: Desk,
    pub settings: Settings,
    pub now: Timestamp,
    /// Not carried out yet.
    pub outputs: Vec<Output>,
    /// Subject, header lines and payload, by sequence.
    pub stored: Vec<(u64, String, String, Bytes)>,
    seq: u64,
    /// Answers to requests, by their reply subjects.
    answers: HashMap<String, (Vec<u8>, Bytes)>,
    asked: u32,
    /// What consumers have delivered, by agent.
    pub delivered: HashMap<String, u64>,
    /// Agents that pull.
    pub pulling: HashSet<String>,
    /// Agents whose consumers exist.
    pub consumers: HashSet<String>,
    /// Who subscribes to its own subject.
    pub listening: HashSet<String>,
    /// What answers to `$SRV.INFO`.
    pub services: Vec<Value>,
    /// What else was published.
    pub published: Vec<(String, Bytes)>,
}

impl Rig {
    pub fn new(settings: Settings) -> Rig {
        let now = Timestamp(1_800_000_000_000_000_000);
        Rig {
            desk: Desk::new(settings.clone(), 7, now),
            settings,
            now,
            outputs: Vec::new(),
            stored: Vec::new(),
            seq: 0,
            answers: HashMap::new(),
            asked: 0,
            delivered: HashMap::new(),
            pulling: HashSet::new(),
            consumers: HashSet::new(),
            listening: HashSet::new(),
            services: Vec::new(),
            published: Vec::new(),
        }
    }

    /// Sends a request; its answer will be at the subject returned.
    pub fn request(&mut self, tail: &str, lines: &str, body: &str) -> String {
        self.asked += 1;
        let reply = format!("reply.{}", self.asked);
        let message = Incoming::new(
            format!("$TASK.API.{tail}").as_bytes(),
            reply.as_bytes(),
            &names::block(lines),
            body.as_bytes(),
        );
        self.desk.request(message, self.now);
        self.collect();
        reply
    }

    /// Sends a request and lets everything happen; the answer's JSON.
    pub fn ask(&mut self, tail: &str, lines: &str, body: &str) -> Value {
        let reply = self.request(tail, lines, body);
        self.run();
        self.answer(&reply)
    }

    pub fn answer(&mut self, reply: &str) -> Value {
        self.answers.remove(reply).map(|(_, body)| serde_json::from_slice(&body).unwrap()).unwrap_or_default()
    }

    /// An answer that is no JSON.
    pub fn answer_bytes(&mut self, reply: &str) -> Bytes {
        self.answers.remove(reply).map(|(_, body)| body).unwrap_or_default()
    }

    pub fn collect(&mut self) {
        self.outputs.extend(self.desk.take_outputs());
    }

    /// Everything that is to happen happens, but no time passes.
    pub fn run(&mut self) {
        self.run_but(|_| false);
    }

    /// As [`Rig::run`], but for what is `held` back.
    pub fn run_but(&mut self, held: impl Fn(&Output) -> bool) {
        self.collect();
        for _ in 0..100_000 {
            let Some(at) = self.outputs.iter().position(|output| !held(output)) else { return };
            let output = self.outputs.remove(at);
            self.carry_out(output);
            self.desk.tick(self.now);
            self.collect();
        }
        panic!("it does not come to rest");
    }

    /// Time passes in steps of a sweep.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = (self.now + self.settings.sweep).min(until);
            self.desk.tick(self.now);
            self.run();
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Batch { call, entries } => {
                let answer = self.store(&entries);
                self.respond(call, &answer);
            }
            Output::Echo { call } => self.respond(call, &json!({})),
            Output::Request { subject, payload, .. } => {
                self.published.push((String::from_utf8(subject.to_vec()).unwrap(), payload));
            }
            Output::Publish { subject, call, headers, payload } => {
                let subject = String::from_utf8(subject.to_vec()).unwrap();
                if subject.starts_with("reply.") {
                    self.answers.insert(subject, (headers, payload));
                } else if let (Some(call), Some(api)) = (call, subject.strip_prefix("$JS.API.")) {
                    let answer = self.api(api, &payload);
                    self.respond(call, &answer);
                } else if let (Some(call), Some(agent)) = (call, subject.strip_prefix("$TASK.X.")) {
                    if !self.listening.contains(agent.split('.').next().unwrap()) {
                        let nobody = Incoming::new(b"i", b"", b"NATS/1.0 503\r\n\r\n", b"");
                        self.desk.answer(call, Answer::Message(nobody), self.now);
                    }
                } else if let (Some(call), "$SRV.INFO") = (call, subject.as_str()) {
                    for info in self.services.clone() {
                        self.respond(call, &info);
                    }
                } else if let Some(call) = call {
                    let answer = self.store(&[BatchEntry::new(subject, payload)]);
                    self.respond(call, &answer);
                } else {
                    self.published.push((subject, payload));
                }
            }
        }
    }

    fn respond(&mut self, call: u64, body: &Value) {
        let message = Incoming::new(b"i", b"", b"", body.to_string().as_bytes());
        self.desk.answer(call, Answer::Message(message), self.now);
    }

    /// Stores a batch as the stream does, or somebody else's.
    pub fn store(&mut self, entries: &[BatchEntry]) -> Value {
        for entry in entries {
            let block = names::block(&entry.header_lines);
            if let Some(expected) = crate::types::Headers::new(&block).get_str("Nats-Expected-Last-Subject-Sequence")
                && expected.parse() != Ok(self.last(&entry.subject).map_or(0, |last| last.0))
            {
                return json!({ "error": ApiError::STREAM_WRONG_LAST_SEQUENCE });
            }
        }
        for entry in entries {
            self.seq += 1;
            self.stored.push((self.seq, entry.subject.clone(), entry.header_lines.clone(), entry.payload.clone()));
        }
        json!({ "stream": "KV_TASK", "seq": self.seq, "count": entries.len() })
    }

    pub fn last(&self, subject: &str) -> Option<&(u64, String, String, Bytes)> {
        self.stored.iter().rev().find(|row| row.1 == subject)
    }

    fn api(&mut self, api: &str, body: &[u8]) -> Value {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if api.starts_with("STREAM.MSG.GET.") {
            let base64 = base64::engine::general_purpose::STANDARD;
            return match body["last_by_subj"].as_str().and_then(|subject| self.last(subject)) {
                Some((seq, subject, lines, payload)) => json!({ "message": {
                    "subject": subject, "seq": seq, "time": "2026-01-01T00:00:00Z",
                    "hdrs": base64.encode(names::block(lines)), "data": base64.encode(payload),
                } }),
                None => json!({ "error": ApiError::NO_MESSAGE_FOUND }),
            };
        }
        if api.starts_with("STREAM.MSG.DELETE.") {
            self.stored.retain(|row| row.0 != body["seq"].as_u64().unwrap());
        } else if let Some(agent) = api.strip_prefix("CONSUMER.CREATE.KV_TASK.agent_") {
            self.consumers.insert(agent.to_owned());
        } else if let Some(agent) = api.strip_prefix("CONSUMER.DELETE.KV_TASK.agent_") {
            self.consumers.remove(agent);
        } else if let Some(agent) = api.strip_prefix("CONSUMER.INFO.KV_TASK.agent_") {
            if !self.consumers.contains(agent) {
                return json!({ "error": ApiError::CONSUMER_NOT_FOUND });
            }
            let delivered = self.delivered.get(agent).copied().unwrap_or(0);
            let waiting = u32::from(self.pulling.contains(agent));
            return json!({ "delivered": { "stream_seq": delivered }, "num_waiting": waiting });
        }
        json!({})
    }

    /// The agent's consumer delivers what there is for it.
    pub fn deliver(&mut self, agent: &str) {
        let prefix = format!("$KV.TASK.a.{agent}.");
        if let Some(row) = self.stored.iter().rev().find(|row| row.1.starts_with(&prefix)) {
            self.delivered.insert(agent.to_owned(), row.0);
        }
    }

    /// A task's record as it is in effect.
    pub fn record(&self, id: &str) -> Record {
        let index = self.desk.ids[id];
        self.desk.task(index).unwrap().view().into_owned()
    }

    /// Another coordinator reads what is stored.
    pub fn restart(&mut self) {
        self.outputs.clear();
        self.desk = Desk::new(self.settings.clone(), 8, self.now);
        let mut newest: HashMap<String, u64> = HashMap::new();
        for (seq, subject, ..) in &self.stored {
            newest.insert(subject.clone(), *seq);
        }
        let is_item =
            |subject: &str| ["$KV.TASK.a.", "$KV.TASK.w.", "$KV.TASK.d."].iter().any(|p| subject.starts_with(p));
        for (seq, subject, lines, payload) in self.stored.iter().filter(|row| newest[&*row.1] == row.0) {
            if !is_item(subject) {
                self.desk.restore(Row { subject, seq: *seq, headers: &names::block(lines), payload });
            }
        }
        for (seq, subject, ..) in &self.stored {
            if is_item(subject) {
                self.desk.restore_item(subject, *seq);
            }
        }
        self.desk.restored(self.now);
        self.collect();
    }
}
