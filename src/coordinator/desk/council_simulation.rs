//! Councils without a broker: a dull model of their bucket and of agents, with lost answers, lost and refused writes, gaps in
//! the watch and restarts thrown in by seed. In the end every council is formed of who sits in its seats, and every change of
//! a council has been told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Answer, Desk, Output, Row, Settings};
use crate::client::{ClientError, Incoming};
use crate::coordinator::council::{Record, Seat, Status};
use crate::coordinator::names;
use crate::coordinator::random::Random;
use crate::types::{ApiError, Headers, Timestamp};

const COUNCILS: usize = 3;
const AGENTS: usize = 6;
const SEATS: [&str; 4] = ["a.1", "a.2", "b.1", "o.1"];

struct Stored {
    seq: u64,
    headers: Vec<u8>,
    payload: Bytes,
}

struct World {
    desk: Desk,
    random: Random,
    now: Timestamp,
    /// The bucket keeps one message of each key.
    bucket: BTreeMap<String, Stored>,
    last_seq: u64,
    /// The watch: its consumer, what it delivered last, and its consumer sequence.
    watch: (String, u64, u64),
    /// Changes of councils that are stored, and those that were told, as `<council>.<run>.<change>`.
    changed: BTreeSet<String>,
    told: BTreeSet<String>,
    offers: usize,
    answers: BTreeSet<String>,
    rough: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let now = Timestamp(1_700_000_000_000_000_000);
        World {
            desk: Desk::new(settings(), seed, now),
            random: Random::new(seed ^ 0x77),
            now,
            bucket: BTreeMap::new(),
            last_seq: 0,
            watch: (String::new(), 0, 0),
            changed: BTreeSet::new(),
            told: BTreeSet::new(),
            offers: 0,
            answers: BTreeSet::new(),
            rough: true,
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.draw() % 100 < percent
    }

    fn pick(&mut self, len: usize) -> usize {
        (self.random.draw() % len as u64) as usize
    }

    fn request(&mut self, tail: &str, body: &str) {
        let subject = format!("{}{tail}", names::API);
        self.desk.request(Incoming::new(subject.as_bytes(), b"reply", b"", body.as_bytes()), self.now);
    }

    fn form(&mut self, council: usize) {
        let body = format!(
            r#"{{"roles":{{"a":2,"b":1}},"optional":{{"o":1}},"offer_to":"councils.offer","status_to":"councils.c{council}",
               "deadline_s":20,"seat_ttl_s":0}}"#
        );
        self.request(&format!("COUNCIL.FORM.c{council}"), &body);
    }

    fn last_of(&self, key: &str) -> u64 {
        self.bucket.get(key).map_or(0, |stored| stored.seq)
    }

    /// Stores unless the expectation says no.
    fn store(&mut self, subject: &str, headers: &[u8], payload: Bytes) -> Value {
        let key = subject.strip_prefix(names::COUNCILS_PREFIX).unwrap().to_owned();
        let expected = Headers::new(headers).get_str("Nats-Expected-Last-Subject-Sequence");
        if expected.is_some_and(|expected| expected.parse() != Ok(self.last_of(&key))) {
            return json!({ "error": ApiError::STREAM_WRONG_LAST_SEQUENCE.with(self.last_of(&key)) });
        }
        self.last_seq += 1;
        if let Ok(record) = serde_json::from_slice::<Record>(&payload)
            && record.change > 0
            && !key.contains('.')
        {
            self.changed.insert(format!("{key}.{}.{}", record.run, record.change));
        }
        self.bucket.insert(key, Stored { seq: self.last_seq, headers: headers.to_vec(), payload });
        json!({ "stream": names::COUNCILS_STREAM, "seq": self.last_seq })
    }

    fn api(&mut self, api: &str, body: &[u8]) -> Value {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if api.starts_with("CONSUMER.CREATE.") {
            let start = body["config"]["opt_start_seq"].as_u64().unwrap();
            self.watch = (body["config"]["name"].as_str().unwrap().to_owned(), start - 1, 0);
        } else if api.starts_with("STREAM.MSG.GET.") {
            let subject = body["last_by_subj"].as_str().unwrap();
            return match self.bucket.get(subject.strip_prefix(names::COUNCILS_PREFIX).unwrap()) {
                Some(stored) => json!({ "message": {
                    "subject": subject, "seq": stored.seq, "time": "2026-01-01T00:00:00Z",
                    "hdrs": base64.encode(&stored.headers), "data": base64.encode(&stored.payload),
                } }),
                None => json!({ "error": ApiError::NO_MESSAGE_FOUND }),
            };
        }
        json!({})
    }

    fn answer(&mut self, call: u64, body: &Value) {
        if self.rough && self.chance(15) {
            return; // Lost on its way.
        }
        let answer = Answer::Message(Incoming::new(b"inbox", b"", b"", body.to_string().as_bytes()));
        self.desk.answer(call, answer, self.now);
    }

    /// Carries out what the desk wants sent.
    fn send(&mut self) {
        loop {
            let outputs = self.desk.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                let lost = self.rough && self.chance(10);
                let refused = self.rough && self.chance(10);
                match output {
                    Output::Batch { call, .. } if lost => self.unsent(call),
                    Output::Publish { call: Some(call), .. } if lost => self.unsent(call),
                    Output::Batch { call, .. } if refused => {
                        self.answer(call, &json!({ "error": ApiError::CLUSTER_NOT_AVAIL }));
                    }
                    Output::Batch { call, entries } => {
                        let [entry] = entries.as_slice() else { panic!("a change is one key") };
                        let body =
                            self.store(&entry.subject, &names::block(&entry.header_lines), entry.payload.clone());
                        self.answer(call, &body);
                    }
                    Output::Publish { subject, call, headers, payload } => {
                        self.published(std::str::from_utf8(&subject).unwrap(), call, &headers, payload);
                    }
                    Output::Echo { .. } | Output::Request { .. } => {}
                }
            }
        }
    }

    fn unsent(&mut self, call: u64) {
        if self.chance(50) {
            self.desk.answer(call, Answer::Unsent(ClientError::Closed), self.now);
        }
    }

    fn published(&mut self, subject: &str, call: Option<u64>, headers: &[u8], payload: Bytes) {
        if subject.starts_with(names::COUNCILS_PREFIX) {
            let body = self.store(subject, headers, payload);
            call.into_iter().for_each(|call| self.answer(call, &body));
        } else if let Some(api) = subject.strip_prefix("$JS.API.") {
            let body = self.api(api, &payload);
            call.into_iter().for_each(|call| self.answer(call, &body));
        } else if subject == "councils.offer" {
            self.offers += 1;
        } else if subject.starts_with("councils.c") {
            let id = Headers::new(headers).get_str("Nats-Msg-Id").unwrap();
            self.told.insert(id.strip_prefix("council.").unwrap().to_owned());
        } else if subject == "reply" {
            let body: Value = serde_json::from_slice(&payload).unwrap();
            self.answers.insert(body["error"]["err_code"].to_string());
        }
    }

    /// The watch delivers what is new, now and then with a gap.
    fn deliver(&mut self) {
        loop {
            let (consumer, seen, _) = &self.watch;
            let consumer = consumer.clone();
            let next = self.bucket.iter().filter(|(_, stored)| stored.seq > *seen).min_by_key(|(_, stored)| stored.seq);
            let Some((key, stored)) = next.filter(|_| !consumer.is_empty()) else { return };
            let subject = format!("{}{key}", names::COUNCILS_PREFIX);
            let (seq, headers, payload) = (stored.seq, stored.headers.clone(), stored.payload.clone());
            self.watch.1 = seq;
            self.watch.2 += 1;
            let lost = self.rough && self.chance(3);
            if !lost {
                let reply = format!("$JS.ACK.{}.{consumer}.1.{seq}.{}.0.0", names::COUNCILS_STREAM, self.watch.2);
                let row = Incoming::new(subject.as_bytes(), reply.as_bytes(), &headers, &payload);
                self.desk.council_row(&row, self.now);
            }
            self.send();
        }
    }

    fn heartbeat(&mut self) {
        if self.watch.0.is_empty() {
            return;
        }
        let block = format!("NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: {}\r\n\r\n", self.watch.2);
        self.desk.watch_heartbeat(&Incoming::new(b"watch", b"", block.as_bytes(), b""), self.now);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(50);
            self.desk.tick(self.now);
            self.send();
            self.deliver();
            if self.now.nanos() % 1_000_000_000 == 0 {
                self.heartbeat();
                self.send();
            }
        }
    }

    /// An agent takes or gives up a seat, by the rules of key-value buckets.
    fn agent_acts(&mut self) {
        let council = self.pick(COUNCILS);
        let key = format!("c{council}.{}", SEATS[self.pick(SEATS.len())]);
        let agent = format!("agent{}", self.pick(AGENTS));
        let free = self.bucket.get(&key).is_none_or(|stored| names::is_marker(&stored.headers));
        let subject = format!("{}{key}", names::COUNCILS_PREFIX);
        if free {
            self.store(&subject, b"", Bytes::from(agent));
        } else if self.chance(10) {
            self.store(&subject, b"NATS/1.0\r\nKV-Operation: DEL\r\n\r\n", Bytes::new());
        }
    }

    fn restart(&mut self) {
        self.desk = Desk::new(settings(), self.random.draw(), self.now);
        self.watch = (String::new(), 0, 0);
        let rows: Vec<(String, &Stored)> =
            self.bucket.iter().map(|(key, stored)| (format!("{}{key}", names::COUNCILS_PREFIX), stored)).collect();
        for seats in [false, true] {
            for (subject, Stored { seq, headers, payload }) in &rows {
                let key = subject.strip_prefix(names::COUNCILS_PREFIX).unwrap();
                if key.contains('.') == seats {
                    self.desk.restore_councils(Row { subject, seq: *seq, headers, payload });
                }
            }
        }
        self.desk.restored(self.now);
        self.desk.watch_councils(self.now);
        self.send();
    }

    fn record(&self, council: usize) -> Option<Record> {
        let stored = self.bucket.get(&format!("c{council}"))?;
        serde_json::from_slice(&stored.payload).ok()
    }

    fn check(&self) {
        let mut agents: BTreeMap<(usize, String), usize> = BTreeMap::new();
        for council in 0..COUNCILS {
            let record = self.record(council).expect("it is there");
            let prefix = format!("c{council}.");
            let seats: BTreeMap<Seat, String> = self
                .bucket
                .iter()
                .filter(|(_, stored)| !names::is_marker(&stored.headers))
                .filter_map(|(key, stored)| {
                    let seat = key.strip_prefix(&prefix)?.parse().ok()?;
                    Some((seat, String::from_utf8(stored.payload.to_vec()).unwrap()))
                })
                .collect();
            assert_eq!(record.status, Status::Formed, "{record:?}");
            assert_eq!(record.members, seats);
            assert!(!record.due && record.open.is_empty());
            for agent in seats.into_values() {
                let seats = agents.entry((council, agent)).or_default();
                *seats += 1;
                assert_eq!(*seats, 1, "an agent sits twice in one council");
            }
        }
        assert!(self.changed.is_subset(&self.told), "{:?}", self.changed.difference(&self.told));
        assert!(self.desk.councils.removals.is_empty());
    }
}

fn settings() -> Settings {
    Settings {
        call_timeout: Duration::from_millis(300),
        sweep: Duration::from_millis(100),
        watch_subject: "watch".to_owned(),
        ..Settings::default()
    }
}

#[test]
fn councils_form_whatever_is_lost() {
    for seed in 0..30 {
        let mut world = World::new(seed);
        world.desk.watch_councils(world.now);
        world.send();
        for _ in 0..200 {
            match world.pick(20) {
                0 => {
                    let council = world.pick(COUNCILS);
                    world.form(council);
                }
                1 if world.chance(40) => {
                    let council = world.pick(COUNCILS);
                    world.request(&format!("COUNCIL.DISSOLVE.c{council}"), "");
                }
                2 if world.chance(50) => world.restart(),
                _ => world.agent_acts(),
            }
            world.send();
            let pause = Duration::from_millis(50 * (1 + world.pick(8)) as u64);
            world.run_for(pause);
        }
        // From here on all goes well.
        world.rough = false;
        world.run_for(Duration::from_secs(3));
        for _ in 0..2000 {
            for council in 0..COUNCILS {
                if world.record(council).is_none_or(|record| record.status.is_final()) {
                    world.form(council);
                    world.send();
                }
            }
            if (0..COUNCILS).all(|council| world.record(council).is_some_and(|record| record.status == Status::Formed))
            {
                break;
            }
            world.agent_acts();
            world.run_for(Duration::from_millis(100));
        }
        world.run_for(Duration::from_secs(5));
        world.check();
        assert!(world.offers > 0 && world.answers.contains("null"), "seed {seed}: {:?}", world.answers);
    }
}
