//! The laws, under random events, against a model of maps and scans that knows nothing of rings, queues and bitmaps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Times are seconds.
#[derive(Clone, Debug)]
enum Event {
    Publish(bool),
    /// Up to so many messages, one at a time.
    Take(usize),
    Ack(usize),
    /// An ack for a sequence, delivered or not.
    AckSeq(u64),
    Nak(usize, Option<i64>),
    Progress(usize),
    Term(usize),
    Delete(u64),
    Purge,
    /// Of one kind.
    PurgeKind(bool),
    Pass(i64),
    /// The limits of a new configuration.
    Limit(Limits),
    Filter(Kinds),
    /// Nothing is delivered for so many seconds; 0 goes on at once.
    Pause(i64),
    Reset(u64),
    Commit,
    Crash,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Limits {
    out: usize,
    deliveries: u64,
    wait: i64,
}

/// Which messages a filter matches.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kinds {
    Wanted,
    Other,
    Both,
}

impl Kinds {
    fn matches(self, wanted: bool) -> bool {
        match self {
            Kinds::Wanted => wanted,
            Kinds::Other => !wanted,
            Kinds::Both => true,
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (2usize..8, 2u64..5, 20i64..40).prop_map(|(out, deliveries, wait)| Limits { out, deliveries, wait })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => prop::bool::weighted(0.8).prop_map(Event::Publish),
        6 => (1usize..4).prop_map(Event::Take),
        6 => (0usize..8).prop_map(Event::Ack),
        1 => (1u64..60).prop_map(Event::AckSeq),
        2 => (0usize..8, prop::option::of(0i64..50)).prop_map(|(at, delay)| Event::Nak(at, delay)),
        1 => (0usize..8).prop_map(Event::Progress),
        1 => (0usize..8).prop_map(Event::Term),
        1 => (1u64..60).prop_map(Event::Delete),
        1 => prop::bool::weighted(0.1).prop_map(|purge| if purge { Event::Purge } else { Event::Pass(1) }),
        1 => prop::bool::weighted(0.3).prop_map(Event::PurgeKind),
        2 => (1i64..40).prop_map(Event::Pass),
        1 => limits().prop_map(Event::Limit),
        1 => prop_oneof![Just(Kinds::Wanted), Just(Kinds::Other), Just(Kinds::Both)].prop_map(Event::Filter),
        1 => (0i64..20).prop_map(Event::Pause),
        1 => prop::bool::weighted(0.5).prop_flat_map(|_| prop_oneof![Just(0), 1u64..60]).prop_map(Event::Reset),
        3 => Just(Event::Commit),
        1 => Just(Event::Crash),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Out {
    count: u64,
    /// When it was last delivered or worked on.
    sent: i64,
    /// The filter does not match it any more.
    unfiltered: bool,
    /// `None` while in line.
    deadline: Option<i64>,
    /// When the client wants it again, if it has said so.
    wanted_at: Option<i64>,
}

/// What a restart finds.
#[derive(Clone, Debug, Default)]
struct Stored {
    floor: u64,
    delivered: u64,
    done: BTreeSet<u64>,
    counts: BTreeMap<u64, u64>,
    wanted_at: BTreeMap<u64, i64>,
    unfiltered: BTreeSet<u64>,
}

#[derive(Debug)]
struct Model {
    limits: Limits,
    filter: Kinds,
    paused_until: i64,
    /// All live messages, and whether they are of the wanted kind.
    live: BTreeMap<u64, bool>,
    /// Live messages that match.
    wanted: BTreeSet<u64>,
    last_seq: u64,
    out: BTreeMap<u64, Out>,
    line: Vec<u64>,
    next: u64,
    delivered: u64,
    floor: u64,
    done: BTreeSet<u64>,
    exceeded: BTreeMap<u64, u64>,
    recovered_until: u64,
    now: i64,
}

impl Model {
    fn new(limits: Limits) -> Model {
        Model {
            limits,
            filter: Kinds::Wanted,
            paused_until: 0,
            live: BTreeMap::new(),
            wanted: BTreeSet::new(),
            last_seq: 0,
            out: BTreeMap::new(),
            line: Vec::new(),
            next: 1,
            delivered: 0,
            floor: 0,
            done: BTreeSet::new(),
            exceeded: BTreeMap::new(),
            recovered_until: 0,
            now: 1,
        }
    }

    fn config(&self) -> ConsumerConfig {
        let filter = match self.filter {
            Kinds::Wanted => "wanted",
            Kinds::Other => "other",
            Kinds::Both => ">",
        };
        ConsumerConfig {
            filter_subject: filter.into(),
            max_ack_pending: self.limits.out as i64,
            max_deliver: self.limits.deliveries as i64,
            ack_wait: GoDuration::from_secs(self.limits.wait),
            pause_until: (self.paused_until > 0).then_some(Timestamp(self.paused_until * SECOND)),
            ..explicit()
        }
    }

    fn limit(&mut self, limits: Limits) {
        if limits.wait != self.limits.wait {
            for out in self.out.values_mut().filter(|out| out.deadline.is_some() && out.wanted_at.is_none()) {
                out.deadline = Some(out.sent + limits.wait);
            }
        }
        self.limits = limits;
    }

    fn refilter(&mut self, filter: Kinds) {
        if filter == self.filter {
            return;
        }
        self.filter = filter;
        self.wanted = self.live.iter().filter(|&(_, &kind)| filter.matches(kind)).map(|(&seq, _)| seq).collect();
        for (seq, out) in &mut self.out {
            out.unfiltered = !self.wanted.contains(seq);
        }
        // What an earlier filter passed over stays passed over.
        let passed = self.next - 1;
        if passed > self.floor {
            let skipped = self.wanted.range(self.floor + 1..=passed).filter(|seq| !self.out.contains_key(seq));
            self.done.extend(skipped);
        }
    }

    fn reset(&mut self, seq: u64) {
        let seq = if seq == 0 { self.floor + 1 } else { seq };
        self.out.clear();
        self.line.clear();
        self.exceeded.clear();
        self.done.clear();
        self.recovered_until = 0;
        (self.next, self.delivered, self.floor) = (seq, seq - 1, seq - 1);
    }

    fn pending(&self) -> u64 {
        self.wanted.range(self.next..).filter(|seq| !self.done.contains(seq)).count() as u64
    }

    fn settle(&mut self) {
        let floor = self.out.keys().next().map_or(self.delivered, |first| first - 1);
        self.floor = self.floor.max(floor);
    }

    fn finish(&mut self, seq: u64) -> bool {
        let was_first = self.out.keys().next() == Some(&seq);
        let found = self.out.remove(&seq).is_some();
        self.line.retain(|other| *other != seq);
        if found {
            self.done.insert(seq);
            if was_first {
                self.settle();
            }
        }
        found
    }

    /// The wait of a message is over.
    fn due(&mut self, seq: u64) {
        let count = self.out[&seq].count;
        if count >= self.limits.deliveries {
            self.finish(seq);
            self.exceeded.insert(seq, count);
        } else if !self.line.contains(&seq) {
            self.out.get_mut(&seq).unwrap().deadline = None;
            self.line.push(seq);
        }
    }

    fn pass_time(&mut self) {
        let now = self.now;
        let due: Vec<u64> =
            self.out.iter().filter(|(_, out)| out.deadline.is_some_and(|at| at <= now)).map(|(&seq, _)| seq).collect();
        due.into_iter().for_each(|seq| self.due(seq));
    }

    /// The next delivery: sequence and count.
    fn deliver(&mut self) -> Option<(u64, u64)> {
        if self.now < self.paused_until {
            return None;
        }
        let deadline = Some(self.now + self.limits.wait);
        while !self.line.is_empty() {
            let seq = self.line.remove(0);
            if self.out[&seq].count >= self.limits.deliveries {
                self.due(seq);
                continue;
            }
            let out = self.out.get_mut(&seq).unwrap();
            out.count += 1;
            (out.sent, out.deadline, out.wanted_at) = (self.now, deadline, None);
            return Some((seq, out.count));
        }
        if self.out.len() >= self.limits.out {
            return None;
        }
        let next = self.wanted.range(self.next..).copied().find(|seq| !self.done.contains(seq));
        let Some(seq) = next else {
            self.next = self.next.max(self.last_seq + 1);
            return None;
        };
        self.next = seq + 1;
        self.delivered = seq;
        let out = Out { count: 1, sent: self.now, unfiltered: false, deadline, wanted_at: None };
        self.out.insert(seq, out);
        Some((seq, 1))
    }

    fn ack(&mut self, seq: u64) {
        if seq < self.next {
            if !self.finish(seq) {
                self.exceeded.remove(&seq);
            }
        } else if seq <= self.recovered_until && self.wanted.contains(&seq) {
            self.done.insert(seq);
        }
    }

    fn remove(&mut self, seq: u64) {
        self.live.remove(&seq);
        self.wanted.remove(&seq);
        self.finish(seq);
        self.exceeded.remove(&seq);
    }

    fn stored(&self) -> Stored {
        let mut counts = self.exceeded.clone();
        counts.extend(self.out.iter().filter(|(_, out)| out.count > 1).map(|(&seq, out)| (seq, out.count)));
        let wanted_at = self.out.iter().filter_map(|(&seq, out)| Some((seq, out.wanted_at?))).collect();
        let unfiltered = self.out.iter().filter(|(_, out)| out.unfiltered).map(|(&seq, _)| seq).collect();
        let (floor, delivered) = (self.floor, self.delivered);
        Stored { floor, delivered, done: self.done.clone(), counts, wanted_at, unfiltered }
    }

    fn restart(&mut self, stored: &Stored) {
        let now = self.now;
        self.done = stored.done.clone();
        (self.floor, self.delivered, self.next) = (stored.floor, stored.delivered, stored.delivered + 1);
        self.out.clear();
        self.line.clear();
        self.exceeded.clear();
        for &seq in self.live.keys().filter(|&&seq| seq > stored.floor && seq <= stored.delivered) {
            let was_out = self.wanted.contains(&seq)
                || stored.unfiltered.contains(&seq)
                || stored.wanted_at.contains_key(&seq)
                || stored.counts.contains_key(&seq);
            if was_out && !self.done.contains(&seq) {
                let count = stored.counts.get(&seq).copied().unwrap_or(1);
                let wanted_at = stored.wanted_at.get(&seq).copied();
                let deadline = Some(wanted_at.unwrap_or(now + self.limits.wait));
                let unfiltered = !self.wanted.contains(&seq);
                self.out.insert(seq, Out { count, sent: now, unfiltered, deadline, wanted_at });
            }
        }
        for (&seq, &count) in &stored.counts {
            if self.live.contains_key(&seq) && seq < self.next && !self.out.contains_key(&seq) {
                self.exceeded.insert(seq, count);
            }
        }
        self.recovered_until = self.last_seq;
    }
}

fn run(events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut model = Model::new(Limits { out: 6, deliveries: 3, wait: 30 });
    let mut world = World::new(model.config(), &[]);
    let mut rows = ConsumerRows::default();
    world.commit(&mut rows);
    let mut stored = model.stored();
    let mut durably_done: BTreeSet<u64> = BTreeSet::new();
    let mut last_floor = SequenceInfo::default();

    for event in events {
        let nth = |at: usize| model.out.keys().nth(at).copied();
        match event {
            Event::Publish(wanted) => {
                world.publish(if wanted { "wanted" } else { "other" });
                model.last_seq += 1;
                model.live.insert(model.last_seq, wanted);
                if model.filter.matches(wanted) {
                    model.wanted.insert(model.last_seq);
                }
            }
            Event::Take(count) => {
                world.poll();
                model.pass_time();
                for _ in 0..count {
                    // A request that does not wait: it gets a message now or goes home.
                    world.pull("r", r#"{"batch":1,"expires":1,"no_wait":true}"#);
                    let expected = model.deliver();
                    let lines = world.poll();
                    let delivery = lines.iter().find(|line| line.contains('/'));
                    let expected = expected.map(|(seq, count)| (seq.to_string(), format!("x{count}"), model.pending()));
                    let found = delivery.map(|line| {
                        let mut words = line.split([' ', '/']).skip(2);
                        let (seq, _, count, pending) = (words.next(), words.next(), words.next(), words.next());
                        let pending = pending.unwrap().trim_start_matches('+').parse::<u64>().unwrap();
                        (seq.unwrap().to_owned(), count.unwrap().to_owned(), pending)
                    });
                    prop_assert_eq!(&found, &expected);
                    if let Some((seq, count, _)) = &found {
                        let seq: u64 = seq.parse().unwrap();
                        prop_assert!(!durably_done.contains(&seq), "{} was durably acked", seq);
                        prop_assert!(count != "x1" || model.out.len() <= model.limits.out);
                    }
                    world.now.0 += 10;
                    world.poll();
                    world.now.0 -= 10;
                }
            }
            Event::Ack(at) => {
                if let Some(seq) = nth(at) {
                    world.ack((seq, 0, 1), "");
                    model.ack(seq);
                }
            }
            Event::AckSeq(seq) => {
                world.ack((seq, 0, 1), "+ACK");
                model.ack(seq);
            }
            Event::Nak(at, delay) => {
                if let Some(seq) = nth(at) {
                    let payload = delay.map_or("-NAK".to_owned(), |delay| format!("-NAK {delay}s"));
                    world.ack((seq, 0, 1), &payload);
                    match delay {
                        Some(delay) => {
                            model.line.retain(|other| *other != seq);
                            let out = model.out.get_mut(&seq).unwrap();
                            (out.deadline, out.wanted_at) = (Some(model.now + delay), Some(model.now + delay));
                        }
                        None => {
                            let now = model.now;
                            let out = model.out.get_mut(&seq).unwrap();
                            out.wanted_at = out.wanted_at.map(|_| now);
                            model.due(seq);
                        }
                    }
                }
            }
            Event::Progress(at) => {
                if let Some(seq) = nth(at) {
                    world.ack((seq, 0, 1), "+WPI");
                    model.line.retain(|other| *other != seq);
                    let out = model.out.get_mut(&seq).unwrap();
                    (out.sent, out.deadline, out.wanted_at) = (model.now, Some(model.now + model.limits.wait), None);
                }
            }
            Event::Term(at) => {
                if let Some(seq) = nth(at) {
                    world.ack((seq, 0, 1), "+TERM");
                    model.ack(seq);
                }
            }
            Event::Delete(seq) => {
                if world.stream.index().exists(seq) {
                    world.delete(seq);
                    model.remove(seq);
                }
            }
            Event::Purge => {
                let any = !world.stream.index().is_empty();
                world.purge();
                for seq in model.live.keys().copied().collect::<Vec<_>>() {
                    model.remove(seq);
                }
                if any && model.last_seq > model.floor {
                    model.next = model.last_seq + 1;
                    model.delivered = model.last_seq;
                    model.floor = model.last_seq;
                }
            }
            Event::PurgeKind(wanted) => {
                world.purge_subject(Some(if wanted { "wanted" } else { "other" }));
                let gone: Vec<u64> =
                    model.live.iter().filter(|&(_, &kind)| kind == wanted).map(|(&seq, _)| seq).collect();
                for &seq in &gone {
                    model.remove(seq);
                }
                let first = model.live.keys().next().copied().unwrap_or(model.last_seq + 1);
                // A purge moves floor and cursor past the hole it leaves at the start, and past what has been looked at
                // when nothing is out.
                let leaves_hole = !gone.is_empty() && first > model.floor + 1;
                if leaves_hole {
                    model.next = model.next.max(first);
                    model.delivered = model.delivered.max(first - 1);
                    model.floor = first - 1;
                }
                if !gone.is_empty() && model.out.is_empty() {
                    model.delivered = model.delivered.max(model.next - 1);
                }
                if leaves_hole || !gone.is_empty() && model.out.is_empty() {
                    model.settle();
                }
            }
            Event::Pass(seconds) => {
                world.pass(1_000 * seconds);
                model.now += seconds;
            }
            Event::Limit(limits) => {
                model.limit(limits);
                world.update(model.config());
            }
            Event::Filter(filter) => {
                model.refilter(filter);
                world.update(model.config());
            }
            Event::Pause(seconds) => {
                model.paused_until = if seconds == 0 { 0 } else { model.now + seconds };
                world.update(model.config());
            }
            Event::Reset(seq) => {
                let visible = world.stream.index().last_seq();
                let started = world.consumer.handle_reset(seq, world.stream.index(), visible);
                model.reset(seq);
                prop_assert_eq!(started, Ok(model.next));
                durably_done.clear();
                last_floor = SequenceInfo::default();
            }
            Event::Commit => {
                // A delivery alone does not write, so a crash forgets it.
                if let Some(changes) = world.consumer.changes() {
                    rows.apply(&changes);
                    stored = model.stored();
                    durably_done = model.done.clone();
                }
            }
            Event::Crash => {
                world.crash(&rows);
                model.restart(&stored);
                durably_done = stored.done.clone();
                last_floor = SequenceInfo::default();
            }
        }
        world.poll();
        model.pass_time();
        let recount = world.consumer.cursor.recounted(world.stream.index());
        let info = world.info();
        prop_assert_eq!(info.num_pending, recount);
        prop_assert_eq!(info.num_pending, model.pending());
        prop_assert_eq!(info.num_ack_pending, model.out.len() as u64);
        let redelivered = model.out.values().filter(|out| out.count > 1).count() + model.exceeded.len();
        prop_assert_eq!(info.num_redelivered, redelivered as u64);
        prop_assert_eq!(info.ack_floor.stream_seq, model.floor);
        prop_assert!(info.ack_floor.stream_seq >= last_floor.stream_seq, "the floor never falls");
        prop_assert!(info.ack_floor.consumer_seq >= last_floor.consumer_seq, "the floor never falls");
        prop_assert!(info.ack_floor.consumer_seq <= info.delivered.consumer_seq);
        last_floor = info.ack_floor;
        for seq in 1..=model.last_seq {
            let subject = world.stream.index().subject_of(seq).cloned();
            let wants = model.out.contains_key(&seq)
                || model.exceeded.contains_key(&seq)
                || (seq >= model.next && model.wanted.contains(&seq) && !model.done.contains(&seq));
            let matched = model.wanted.contains(&seq);
            if let Some(subject) = subject {
                prop_assert_eq!(world.consumer.still_needs(seq, &subject), wants && matched, "seq {}", seq);
            }
        }
        let next = world.consumer.next_deadline().map(|at| at.0 / SECOND);
        let pause = (model.paused_until > model.now).then_some(model.paused_until);
        prop_assert_eq!(next, model.out.values().filter_map(|out| out.deadline).chain(pause).min());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn equals_a_model_of_maps(events in prop::collection::vec(event(), 0..120)) {
        run(events)?;
    }
}

#[test]
fn a_purge_of_all_that_is_out_passes_what_has_been_looked_at() {
    use Event::{Publish, PurgeKind, Take};
    let events = [Publish(false), Publish(true), Publish(true), Publish(false), PurgeKind(false), Publish(false)];
    run(events.into_iter().chain([Take(1), Take(2), PurgeKind(true)]).collect()).unwrap();
}
