//! A consumer under any sequence of messages, requests, acks, settings and restarts, against a book of plain facts: what
//! is out and how often, what is done, and how far the deliveries came.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use natterjack::consumer::{
    Ack, AckKind, AckPolicy, Advisory, Closing, Consumer, ConsumerConfig, ConsumerInfo, ConsumerRows, DeliverPolicy,
    Delivery, GoDuration, MessageSize, Output, PriorityPolicy, Setup, StreamTerms, View,
};
use natterjack::stream::{Changes, Filter, Stream, StreamConfig, StreamId, World};
use natterjack::types::{Message, Timestamp};

const SECOND: i64 = 1_000_000_000;
const SUBJECTS: [&str; 4] = ["a", "b", "k.a", "k.b"];
const FILTERS: [&str; 4] = ["", "a", "k.*", "k.b"];

#[derive(Arbitrary, Debug)]
struct Life<'a> {
    acks: u8,
    start: u8,
    priority: u8,
    push: bool,
    max_waiting: u8,
    limits: Limits,
    before: Vec<u8>,
    steps: Vec<Step<'a>>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Limits {
    out: u8,
    deliveries: u8,
    wait: u8,
    backoff: bool,
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Publish(u8),
    Delete(u8),
    Purge { keep: u8, subject: bool },
    Pull { batch: u8, seconds: u8, no_wait: bool, heartbeat: bool, bytes: u8, priority: u8, pinned: bool },
    /// Any body.
    Request(&'a [u8]),
    /// Says `kind` to one of all deliveries ever made.
    Ack { which: u8, kind: u8, delay: u8, sync: bool },
    /// Any subject and payload.
    AckBytes(&'a [u8], &'a [u8]),
    AckSeq(u8),
    Pass(u16),
    Leave(u8),
    Interest(bool),
    /// The next delivery finds nobody.
    Lose,
    Limit(Limits),
    Filter(u8),
    Pause(u8),
    Reset(u8),
    Unpin,
    Commit,
    Stop,
    Crash,
}

#[derive(Clone, Debug)]
struct Out {
    count: u64,
    not_before: i64,
    /// Its first delivery found nobody, and a crash may have made that forgotten.
    lost: bool,
}

/// What is known without looking into the consumer.
#[derive(Clone, Debug, Default)]
struct Facts {
    out: BTreeMap<u64, Out>,
    done: BTreeSet<u64>,
    /// Of the first deliveries, the last one's stream sequence.
    passed: u64,
    consumer_seq: u64,
    floor: (u64, u64),
    /// Whether `passed` tells which messages are still to come.
    exact: bool,
}

struct Bench {
    stream: Stream,
    consumer: Consumer,
    setup: Setup,
    now: Timestamp,
    facts: Facts,
    rows: ConsumerRows,
    stored: Facts,
    recovered_until: u64,
    history: Vec<Ack>,
    /// Waiting for their commit.
    late: Vec<Delivery>,
    /// What each request may still get.
    wanted: BTreeMap<Bytes, i64>,
    requests: u64,
    deaf: BTreeSet<Bytes>,
    generation: u64,
    lose: bool,
    pin: Bytes,
}

fn config(life: &Life) -> ConsumerConfig {
    let explicit = [AckPolicy::Explicit, AckPolicy::Explicit, AckPolicy::All, AckPolicy::None];
    let mut config = ConsumerConfig {
        durable: "C".into(),
        ack_policy: explicit[usize::from(life.acks) % 4],
        deliver_subject: if life.push { "to".into() } else { String::new() },
        ..ConsumerConfig::default()
    };
    let policies = [DeliverPolicy::All, DeliverPolicy::Last, DeliverPolicy::New, DeliverPolicy::LastPerSubject];
    match life.start % 8 {
        start @ 4..=7 => {
            config.deliver_policy = DeliverPolicy::ByStartSequence;
            config.opt_start_seq = u64::from(start);
        }
        start => config.deliver_policy = policies[usize::from(start)],
    }
    if !life.push {
        config.max_waiting = i64::from(life.max_waiting % 8);
        let policies =
            [PriorityPolicy::None, PriorityPolicy::Overflow, PriorityPolicy::PinnedClient, PriorityPolicy::Prioritized];
        config.priority_policy = policies[usize::from(life.priority) % 4];
        if config.priority_policy != PriorityPolicy::None {
            config.priority_groups = vec!["g".into()];
        }
    }
    limit(&mut config, life.limits);
    config.set_defaults(&StreamTerms::default(), false).expect("only pedantic defaults fail");
    config
}

fn limit(config: &mut ConsumerConfig, limits: Limits) {
    config.max_ack_pending = if config.ack_policy == AckPolicy::None { 0 } else { i64::from(limits.out % 6) + 1 };
    config.max_deliver = [-1, 1, 2, 4][usize::from(limits.deliveries) % 4];
    config.ack_wait = GoDuration::from_secs(i64::from(limits.wait % 30) + 1);
    config.backoff.clear();
    if limits.backoff && config.ack_policy == AckPolicy::Explicit && config.max_deliver != 1 {
        config.backoff = vec![config.ack_wait, GoDuration::from_secs(40)];
    }
}

impl Bench {
    fn new(life: &Life) -> Bench {
        let settings = StreamConfig { name: "S".into(), subjects: vec![">".into()], ..StreamConfig::default() };
        let mut stream = Stream::new(StreamId(1), Arc::new(settings), Timestamp(SECOND));
        for &subject in life.before.iter().take(8) {
            publish(&mut stream, subject, Timestamp(SECOND));
        }
        let now = Timestamp(2 * SECOND);
        let config = Arc::new(config(life));
        let setup = Setup {
            stream: "S".into(),
            name: "C".into(),
            config,
            created: now,
            reports_consumed: life.start >= 128,
            message_bytes_max: 1024,
        };
        let consumer = Consumer::new(setup.clone(), stream.index(), stream.index().last_seq(), now);
        let mut bench = Bench {
            stream,
            consumer,
            setup,
            now,
            facts: Facts::default(),
            rows: ConsumerRows::default(),
            stored: Facts::default(),
            recovered_until: 0,
            history: Vec::new(),
            late: Vec::new(),
            wanted: BTreeMap::new(),
            requests: 0,
            deaf: BTreeSet::new(),
            generation: 1,
            lose: false,
            pin: Bytes::new(),
        };
        let start = bench.info().delivered.stream_seq;
        bench.start_over(start);
        bench.commit(false);
        bench
    }

    /// Nothing is out, and what comes next is behind `passed`.
    fn start_over(&mut self, passed: u64) {
        // The last of each subject are not simply all that follow.
        let exact = self.setup.config.deliver_policy != DeliverPolicy::LastPerSubject;
        self.facts = Facts { passed, floor: (0, passed), exact, ..Facts::default() };
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Consumer, &View, Timestamp) -> T) -> T {
        let (deaf, index) = (&self.deaf, self.stream.index());
        let interest = |subject: &[u8]| !deaf.contains(subject);
        let size = |seq: u64| {
            let subject = index.subject_of(seq)?.len();
            Some(MessageSize { subject, headers: 0, payload: 7 })
        };
        let view = View { index, interest: &interest, interest_generation: self.generation, size: &size };
        act(&mut self.consumer, &view, self.now)
    }

    fn info(&mut self) -> ConsumerInfo {
        self.with(|consumer, view, now| consumer.info(view, now))
    }

    fn explicit(&self) -> bool {
        self.setup.config.ack_policy == AckPolicy::Explicit
    }

    /// What the filter matches behind the last first delivery, counted one by one.
    fn counted(&self) -> u64 {
        let filter = Filter::new(self.setup.config.filters());
        let index = self.stream.index();
        let wanted = |seq: &u64| index.subject_of(*seq).is_some_and(|subject| filter.matches(subject));
        index.seqs(self.facts.passed + 1).filter(|seq| wanted(seq) && !self.facts.done.contains(seq)).count() as u64
    }

    fn matches(&self, seq: u64) -> bool {
        let filter = Filter::new(self.setup.config.filters());
        self.stream.index().subject_of(seq).is_some_and(|subject| filter.matches(subject))
    }

    fn removed(&mut self, changes: &Changes) {
        for removal in &changes.removes {
            self.consumer.handle_removed(removal, self.stream.index());
        }
        let index = self.stream.index();
        self.facts.out.retain(|&seq, _| index.exists(seq));
        self.facts.done.retain(|&seq| index.exists(seq));
    }

    fn update(&mut self, change: impl FnOnce(&mut ConsumerConfig)) {
        let mut config = (*self.setup.config).clone();
        change(&mut config);
        self.setup.config = Arc::new(config);
        let index = self.stream.index();
        self.consumer.handle_update(self.setup.config.clone(), index, index.last_seq(), self.now);
        self.facts.out.values_mut().for_each(|out| out.not_before = 0);
        // Written together with the configuration.
        self.commit(false);
    }

    fn commit(&mut self, all: bool) {
        let changes = if all { self.consumer.final_changes() } else { self.consumer.changes() };
        if let Some(changes) = changes {
            self.rows.apply(&changes);
            self.stored = self.facts.clone();
        }
        assert!(self.consumer.changes().is_none(), "what was handed out is not handed out again");
        for delivery in std::mem::take(&mut self.late) {
            let (seq, count) = (delivery.ack.stream_seq, delivery.ack.delivery_count);
            let wanted = self.facts.out.get(&seq).is_some_and(|out| out.count == count);
            assert_eq!(self.consumer.still_wants(&delivery), wanted);
            if wanted {
                let written = self.rows.redeliveries.iter().find(|row| row.seq == seq).map(|row| row.count);
                assert_eq!(written, Some(count), "a redelivery's count is durable before it is sent");
            } else {
                self.consumer.handle_withheld(&delivery);
                self.wanted.entry(delivery.to).and_modify(|left| *left += 1);
            }
        }
    }

    fn restart(&mut self) {
        self.late.clear();
        self.wanted.clear();
        self.pin = Bytes::new();
        self.recovered_until = self.stream.index().last_seq();
        self.consumer = Consumer::restore(self.setup.clone(), self.rows.clone(), self.stream.index(), self.now);
        self.facts = self.stored.clone();
        let index = self.stream.index();
        self.facts.out.retain(|&seq, _| index.exists(seq));
        for out in self.facts.out.values_mut() {
            *out = Out { count: out.count.max(1), not_before: 0, lost: out.lost || out.count == 0 };
        }
        // A message that was removed after the last commit may have been the floor.
        self.facts.floor = (0, 0);
    }

    fn said(&mut self, ack: Ack, kind: AckKind, reply: Bytes) {
        let (seq, now) = (ack.stream_seq, self.now);
        let config = self.setup.config.clone();
        match &kind {
            AckKind::Ack | AckKind::Next { .. } | AckKind::Term { .. } if self.explicit() => {
                let ahead = seq > self.facts.passed && seq <= self.recovered_until && self.matches(seq);
                if self.facts.out.remove(&seq).is_some() || ahead {
                    self.facts.done.insert(seq);
                }
            }
            AckKind::Ack | AckKind::Next { .. } | AckKind::Term { .. } if config.ack_policy == AckPolicy::All => {
                if seq <= self.facts.passed.max(self.recovered_until) {
                    self.facts.out = self.facts.out.split_off(&seq.saturating_add(1));
                    self.facts.exact &= seq <= self.facts.passed;
                }
            }
            AckKind::Nak { delay } => {
                let delay = delay.map_or(0, |delay| delay.0.max(0));
                self.facts.out.entry(seq).and_modify(|out| out.not_before = now.0.saturating_add(delay));
            }
            AckKind::Progress => {
                let wait = |count| config.wait_after(count).map_or(0, |wait| now.0.saturating_add(wait.0));
                self.facts.out.entry(seq).and_modify(|out| out.not_before = wait(out.count));
            }
            _ => {}
        }
        if let AckKind::Next { pull } = &kind {
            self.expect_for(&reply, pull);
        }
        self.with(|consumer, view, now| consumer.handle_ack(ack, kind, reply, view, now));
        if config.ack_policy == AckPolicy::All && seq > self.facts.passed {
            // It may tell of deliveries that a crash has made forgotten.
            let delivered = self.info().delivered;
            assert!(delivered.consumer_seq >= self.facts.consumer_seq && delivered.consumer_seq <= u64::from(u32::MAX));
            self.facts.consumer_seq = delivered.consumer_seq;
        }
    }

    fn expect_for(&mut self, reply: &Bytes, body: &[u8]) {
        if let Ok(pull) = natterjack::consumer::PullRequest::parse(reply.clone(), body) {
            *self.wanted.entry(reply.clone()).or_default() += pull.batch.clamp(1, 1 << 40);
        }
    }

    fn pull(&mut self, body: &[u8]) {
        self.requests += 1;
        let reply = Bytes::from(format!("r{}", self.requests));
        self.expect_for(&reply, body);
        self.with(|consumer, view, now| consumer.handle_next(reply, body, view, now));
    }

    fn poll(&mut self) {
        for turn in 0.. {
            assert!(turn < 5_000, "the poll comes to an end");
            let Some(output) = self.with(|consumer, view, now| consumer.poll(view, now)) else { break };
            match output {
                Output::Deliver(delivery) => self.delivered(delivery),
                Output::Advisory(Advisory::MaxDeliver { stream_seq, deliveries }) => {
                    let out = self.facts.out.remove(&stream_seq).expect("what is given up was out");
                    assert_eq!(out.count, deliveries);
                    assert!(deliveries >= self.setup.config.max_deliver as u64);
                    self.facts.done.insert(stream_seq);
                }
                Output::Advisory(Advisory::Pinned { pin_id, .. }) => self.pin = Bytes::from(pin_id),
                Output::Expired => panic!("there is no inactive threshold"),
                _ => {}
            }
        }
        let deadline = self.consumer.next_deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "nothing due is left after a poll: {deadline:?}");
    }

    fn delivered(&mut self, delivery: Delivery) {
        let Ack { stream_seq: seq, consumer_seq, delivery_count: count } = delivery.ack;
        let config = self.setup.config.clone();
        let now = self.now;
        assert!(config.pause_until.is_none_or(|until| until <= now), "nothing is delivered during a pause");
        assert!(self.stream.index().exists(seq));
        assert_eq!(consumer_seq, self.facts.consumer_seq + 1);
        self.facts.consumer_seq = consumer_seq;
        assert!(!self.facts.done.contains(&seq), "{seq} is done");
        assert!(seq > self.facts.floor.1, "{seq} is below the floor");
        assert!(config.max_deliver < 0 || count <= config.max_deliver as u64);
        assert_eq!(delivery.after_commit, count > 1);
        let before = self.facts.out.get(&seq).cloned();
        match &before {
            Some(out) => {
                assert!(count == out.count + 1 || out.lost && count == 1, "{count} after {}", out.count);
                assert!(now.0 >= out.not_before, "{seq} comes before its wait has ended");
            }
            None => {
                assert_eq!(count, 1);
                assert!(seq > self.facts.passed && self.matches(seq));
                self.facts.passed = seq;
            }
        }
        if config.ack_policy != AckPolicy::None {
            let wait = config.wait_after(count).map_or(0, |wait| now.0.saturating_add(wait.0));
            self.facts.out.insert(seq, Out { count, not_before: wait, lost: false });
            let most = config.max_ack_pending as usize;
            assert!(before.is_some() || self.facts.out.len() <= most, "more than {most} are out");
        }
        if self.facts.exact {
            assert_eq!(delivery.pending, self.counted());
        }
        self.history.push(delivery.ack);
        if self.setup.config.is_pull() {
            assert!(!self.deaf.contains(&delivery.to), "nobody listens there");
            let left = self.wanted.get_mut(&delivery.to).expect("somebody has asked");
            *left -= 1;
            assert!(*left >= 0, "more than was asked for");
        }
        if let Some(pin) = &delivery.pin_id {
            assert!(config.priority_policy == PriorityPolicy::PinnedClient && (pin.is_empty() || *pin == self.pin));
        }
        if count > 1 {
            self.late.push(delivery);
        } else if std::mem::take(&mut self.lose) && config.ack_policy != AckPolicy::None {
            self.consumer.handle_not_delivered(&delivery, now);
            self.facts.out.insert(seq, Out { count: 0, not_before: 0, lost: false });
            self.wanted.entry(delivery.to).and_modify(|left| *left += 1);
        }
    }

    fn check(&mut self) {
        let info = self.info();
        let floor = (info.ack_floor.consumer_seq, info.ack_floor.stream_seq);
        assert!(floor.0 >= self.facts.floor.0 && floor.1 >= self.facts.floor.1, "the floor never falls");
        assert!(floor.0 <= info.delivered.consumer_seq && floor.1 <= info.delivered.stream_seq);
        self.facts.floor = floor;
        assert_eq!(info.num_ack_pending, self.facts.out.len() as u64);
        assert!(self.facts.out.keys().next().is_none_or(|&first| floor.1 < first), "the floor is below what is out");
        assert!(self.setup.config.is_push() || info.num_waiting <= self.setup.config.max_waiting as u64);
        if self.facts.exact {
            assert_eq!(info.num_pending, self.counted());
        }
    }
}

fn publish(stream: &mut Stream, subject: u8, now: Timestamp) -> Changes {
    let mut changes = Changes::new();
    let message = Message::new(SUBJECTS[usize::from(subject) % 4].as_bytes(), b"", b"payload");
    stream.handle_publish(&message, &World::new(&|_| true), now, &mut changes).expect("nothing is limited");
    changes
}

fn run(life: Life) {
    let mut bench = Bench::new(&life);
    for step in life.steps {
        match step {
            Step::Publish(subject) => {
                let changes = publish(&mut bench.stream, subject, bench.now);
                bench.removed(&changes);
                let index = bench.stream.index();
                bench.consumer.handle_append(index.last_seq(), SUBJECTS[usize::from(subject) % 4].as_bytes(), index);
            }
            Step::Delete(seq) => {
                let mut changes = Changes::new();
                let _ = bench.stream.handle_delete(u64::from(seq), &mut changes);
                bench.removed(&changes);
                // Written together with the removal.
                bench.commit(false);
            }
            Step::Purge { keep, subject } => {
                let mut changes = Changes::new();
                let _ = bench.stream.handle_purge(subject.then_some(&b"k.*"[..]), 0, u64::from(keep % 4), &mut changes);
                bench.removed(&changes);
                let info = bench.info();
                bench.facts.passed = bench.facts.passed.max(info.ack_floor.stream_seq);
            }
            Step::Pull { batch, seconds, no_wait, heartbeat, bytes, priority, pinned } => {
                let (group, pin) = match bench.setup.config.priority_policy {
                    PriorityPolicy::None => ("", String::new()),
                    PriorityPolicy::PinnedClient if pinned => {
                        ("g", format!(r#","id":"{}""#, String::from_utf8_lossy(&bench.pin)))
                    }
                    PriorityPolicy::Overflow => ("g", format!(r#","min_pending":{}"#, priority % 4)),
                    PriorityPolicy::PinnedClient => ("g", String::new()),
                    PriorityPolicy::Prioritized => ("g", format!(r#","priority":{}"#, priority % 10)),
                };
                let (batch, max_bytes) = (batch % 5, u32::from(bytes % 4) * 60);
                let expires = i64::from(seconds) * SECOND;
                let beat = if heartbeat { expires / 3 } else { 0 };
                let body = format!(
                    r#"{{"batch":{batch},"expires":{expires},"no_wait":{no_wait},"idle_heartbeat":{beat},"max_bytes":{max_bytes},"group":"{group}"{pin}}}"#
                );
                bench.pull(body.as_bytes());
            }
            Step::Request(body) => bench.pull(body),
            Step::Ack { which, kind, delay, sync } => {
                let Some(&ack) = bench.history.get(usize::from(which) % bench.history.len().max(1)) else { continue };
                let reply = if sync { Bytes::from_static(b"sync") } else { Bytes::new() };
                let delay = format!("-NAK {{\"delay\":{}}}", i64::from(delay) * SECOND / 4);
                let payloads: [&[u8]; 8] =
                    [b"", b"+ACK", b"-NAK", delay.as_bytes(), b"+WPI", b"+TERM", b"+NXT", b"+NXT {\"batch\":3}"];
                bench.said(ack, AckKind::parse(payloads[usize::from(kind) % 8]), reply);
            }
            Step::AckBytes(subject, payload) => {
                if let Some((_, ack)) = Ack::parse(subject) {
                    bench.said(ack, AckKind::parse(payload), Bytes::from_static(b"sync"));
                }
            }
            Step::AckSeq(seq) => {
                let ack = Ack { stream_seq: u64::from(seq), consumer_seq: u64::from(seq), delivery_count: 1 };
                bench.said(ack, AckKind::Ack, Bytes::new());
            }
            Step::Pass(millis) => bench.now.0 += i64::from(millis) * 1_000_000,
            Step::Leave(back) => {
                let number = bench.requests.saturating_sub(u64::from(back % 8));
                bench.deaf.insert(Bytes::from(format!("r{number}")));
                bench.generation += 1;
            }
            Step::Interest(active) => bench.consumer.handle_interest(active, bench.now),
            Step::Lose => bench.lose = true,
            Step::Limit(limits) => bench.update(|config| limit(config, limits)),
            Step::Filter(filter) => {
                bench.facts.exact = false;
                bench.update(|config| config.filter_subject = FILTERS[usize::from(filter) % 4].into());
            }
            Step::Pause(seconds) => {
                let until = Timestamp(bench.now.0 + i64::from(seconds) * SECOND);
                bench.update(|config| config.pause_until = (seconds > 0).then_some(until));
            }
            Step::Reset(seq) => {
                let (floor, index) = (bench.facts.floor.1, bench.stream.index());
                if let Ok(start) = bench.consumer.handle_reset(u64::from(seq), index, index.last_seq()) {
                    assert_eq!(start, if seq == 0 { floor + 1 } else { u64::from(seq) });
                    bench.start_over(start - 1);
                    bench.recovered_until = 0;
                }
            }
            Step::Unpin => bench.consumer.handle_unpin("g"),
            Step::Commit => bench.commit(false),
            Step::Stop => {
                bench.commit(true);
                let before = bench.info();
                let exact = bench.facts.exact;
                bench.restart();
                let after = bench.info();
                for (before, after) in [(before.ack_floor, after.ack_floor), (before.delivered, after.delivered)] {
                    assert_eq!((before.stream_seq, before.consumer_seq), (after.stream_seq, after.consumer_seq));
                }
                assert_eq!(before.num_ack_pending, after.num_ack_pending);
                assert_eq!(before.num_redelivered, after.num_redelivered);
                assert!(!exact || before.num_pending == after.num_pending);
            }
            Step::Crash => bench.restart(),
        }
        bench.poll();
        bench.check();
    }
    bench.consumer.close(Closing::Deleted);
}

fuzz_target!(|life: Life<'_>| run(life));
