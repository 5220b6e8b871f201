//! Message schedules at work (ADR-51): which of a stream's messages are schedules, when each is due, and the messages
//! they produce.
//!
//! The log itself tells after a restart what was missed. A schedule that fires stores a message at that moment, and
//! nothing that came later is stored before it, so what was due up to the last stored message has fired, and what was
//! due after it has not.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::headers::{self, PublishHeaders};
use super::machine::Stream;
use super::publish::Arrival;
use super::world::World;
use super::{Changes, SubjectRef, ttl};
use crate::types::{ApiError, Headers, Message, Schedule, StoredMessage, Timestamp, header, subject};

/// The one thing a client may say in `Nats-Schedule-Next`: the schedule named by `Nats-Scheduler` goes.
pub(super) const NEXT_PURGE: &[u8] = b"purge";
/// Schedules that fire in one transaction at most.
const FIRE_SLICE: usize = 1024;

/// The due times of a stream's schedules. A subject has one schedule at most: its last message.
#[derive(Debug, Default)]
pub struct Schedules {
    by_subject: HashMap<SubjectRef, (u64, Timestamp)>,
    by_seq: HashMap<u64, SubjectRef>,
    due: BTreeSet<(Timestamp, u64)>,
    /// Found in the log, and not yet brought up to the log's last message.
    restored: Vec<(u64, Schedule)>,
}

impl Schedules {
    pub fn insert(&mut self, seq: u64, subject: SubjectRef, due: Timestamp) {
        self.remove_subject(&subject);
        self.by_seq.insert(seq, subject.clone());
        self.by_subject.insert(subject, (seq, due));
        self.due.insert((due, seq));
    }

    /// Moves a subject's schedule, if it has one.
    pub fn update(&mut self, subject: &[u8], due: Timestamp) {
        if let Some((seq, held)) = self.by_subject.get_mut(subject) {
            self.due.remove(&(*held, *seq));
            *held = due;
            self.due.insert((due, *seq));
        }
    }

    pub fn remove_subject(&mut self, subject: &[u8]) {
        if let Some((seq, due)) = self.by_subject.remove(subject) {
            self.by_seq.remove(&seq);
            self.due.remove(&(due, seq));
        }
    }

    pub fn remove(&mut self, seq: u64) {
        if !self.by_seq.is_empty()
            && let Some(subject) = self.by_seq.remove(&seq)
        {
            self.remove_subject(&subject);
        }
    }

    /// Forgets the schedules up to and including `seq`.
    pub fn remove_up_to(&mut self, seq: u64) {
        let gone: Vec<u64> = self.by_seq.keys().copied().filter(|held| *held <= seq).collect();
        for seq in gone {
            self.remove(seq);
        }
    }

    /// When the next schedule is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    fn due_of(&self, seq: u64) -> Option<Timestamp> {
        let (_, due) = self.by_subject.get(self.by_seq.get(&seq)?)?;
        Some(*due)
    }
}

/// A message's schedule; `None` when it has none.
fn schedule_of(headers: &PublishHeaders) -> Result<Option<Schedule>, ApiError> {
    Schedule::parse(headers.schedule, headers.schedule_time_zone)
}

/// When a message that is a schedule is due first; `None` for other messages, and for a schedule that never comes.
pub(super) fn first_due(headers: &PublishHeaders, stored: Timestamp) -> Option<Timestamp> {
    schedule_of(headers).ok()??.next(stored).filter(|due| !due.is_zero())
}

impl Stream {
    /// Whether a schedule is due: it comes before whatever else happens at `now`.
    pub fn has_due_schedule(&self, now: Timestamp) -> bool {
        self.schedules.next().is_some_and(|due| due <= now)
    }

    /// Notes what a stored message means to the schedules.
    pub(super) fn note_schedule(&mut self, seq: u64, due: Option<Timestamp>, subject: &[u8], headers: &PublishHeaders) {
        if !self.config.allow_msg_schedules {
            return;
        }
        match due {
            Some(due) => {
                if let Some(subject) = self.index.subject_of(seq) {
                    self.schedules.insert(seq, subject.clone(), due);
                }
            }
            // What a schedule produces may go to the subject of another one and does it no harm.
            None if headers.scheduler.is_none() => self.schedules.remove_subject(subject),
            None => {}
        }
        if let (Some(next), Some(scheduler)) = (headers.schedule_next, headers.scheduler)
            && let Some(next) = std::str::from_utf8(next).ok().and_then(Timestamp::parse_rfc3339)
        {
            self.schedules.update(scheduler, next);
        }
    }

    /// As [`Stream::note_schedule`], for a message found in the log.
    pub(super) fn restore_schedule(&mut self, seq: u64, stored: Timestamp, subject: &[u8], headers: &PublishHeaders) {
        if !self.config.allow_msg_schedules {
            return;
        }
        let due = first_due(headers, stored);
        self.note_schedule(seq, due, subject, headers);
        if due.is_some()
            && let Ok(Some(schedule)) = schedule_of(headers)
        {
            self.schedules.restored.push((seq, schedule));
        }
    }

    /// Recovery, after all messages: schedules that repeat go on from the log's last message.
    pub fn settle_schedules(&mut self) {
        let last_time = self.index.last_time();
        for (seq, schedule) in std::mem::take(&mut self.schedules.restored) {
            let Some(due) = self.schedules.due_of(seq).filter(|due| schedule.repeats() && *due <= last_time) else {
                continue;
            };
            let next = match &schedule {
                Schedule::Every(every) => {
                    let missed = last_time.0.saturating_sub(due.0) / every.0 + 1;
                    Some(Timestamp(due.0.saturating_add(every.0.saturating_mul(missed))))
                }
                other => other.next(last_time),
            };
            match (next, self.index.subject_of(seq).cloned()) {
                (Some(next), Some(subject)) => self.schedules.update(&subject, next),
                _ => self.schedules.remove(seq),
            }
        }
    }

    /// Whether a client's message is a schedule.
    ///
    /// # Errors
    /// As nats-server's, in its order: the feature, the pattern, then the other `Nats-Schedule-*` headers.
    pub(super) fn check_schedule(&self, message: &Message, headers: &PublishHeaders) -> Result<bool, ApiError> {
        let allowed = self.config.allow_msg_schedules;
        match schedule_of(headers) {
            Ok(None) => return Ok(false),
            _ if !allowed => return Err(ApiError::MESSAGE_SCHEDULES_DISABLED),
            Err(error) => return Err(error),
            Ok(Some(Schedule::At(time))) if time.is_zero() => return Ok(false),
            Ok(Some(schedule)) => {
                schedule.next(Timestamp(0)).ok_or(ApiError::MESSAGE_SCHEDULES_PATTERN_INVALID)?;
            }
        }
        let block = Headers::new(message.headers());
        let get = |name| block.get(name).filter(|value| !value.is_empty());
        let ttl = get(headers::SCHEDULE_TTL);
        if ttl.is_some_and(|ttl| std::str::from_utf8(ttl).ok().and_then(ttl::parse).is_none()) {
            return Err(ApiError::MESSAGE_SCHEDULES_TTL_INVALID);
        }
        if get(headers::SCHEDULE_ROLLUP).is_some_and(|rollup| rollup != b"sub") {
            return Err(ApiError::MESSAGE_SCHEDULES_ROLLUP_INVALID);
        }
        if ttl.is_some() && !self.config.allow_msg_ttl {
            return Err(ApiError::MESSAGE_TTL_DISABLED);
        }
        let of_stream = |wanted: &[u8]| {
            subject::is_valid_literal(wanted)
                && wanted != message.subject()
                && self.config.subjects.iter().any(|filter| subject::matches(filter.as_bytes(), wanted))
        };
        let target = get(headers::SCHEDULE_TARGET).filter(|target| of_stream(target));
        let target = target.ok_or(ApiError::MESSAGE_SCHEDULES_TARGET_INVALID)?;
        if get(headers::SCHEDULE_SOURCE).is_some_and(|source| source == target || !of_stream(source)) {
            return Err(ApiError::MESSAGE_SCHEDULES_SOURCE_INVALID);
        }
        match headers.rollup {
            Some(rollup) if !rollup.eq_ignore_ascii_case(b"sub") => Err(ApiError::MESSAGE_SCHEDULES_ROLLUP_INVALID),
            _ => Ok(true),
        }
    }

    /// Whether a client's message may end the schedule it names. `is_schedule` tells it of a subject's last message;
    /// `None` when there is none.
    ///
    /// # Errors
    /// When it names none that could be one.
    pub(super) fn check_schedule_end(
        &self,
        subject: &[u8],
        headers: &PublishHeaders,
        is_schedule: impl FnOnce(&[u8]) -> Option<bool>,
    ) -> Result<(), ApiError> {
        let (next, scheduler) = match (headers.schedule_next, headers.scheduler) {
            (None, None) => return Ok(()),
            (Some(next), Some(scheduler)) => (next, scheduler),
            _ => return Err(ApiError::MESSAGE_SCHEDULES_SCHEDULER_INVALID),
        };
        if next != NEXT_PURGE || scheduler == subject || !subject::is_valid_literal(scheduler) {
            return Err(ApiError::MESSAGE_SCHEDULES_SCHEDULER_INVALID);
        }
        if !self.config.allow_msg_schedules {
            return Err(ApiError::MESSAGE_SCHEDULES_DISABLED);
        }
        match is_schedule(scheduler) {
            Some(false) => Err(ApiError::MESSAGE_SCHEDULES_SCHEDULER_INVALID),
            _ => Ok(()),
        }
    }

    /// Whether a subject's last message is a schedule; `None` without messages.
    pub(super) fn last_is_schedule(&self, subject: &[u8], world: &World, changes: &Changes) -> Option<bool> {
        let stored = world.load(self.index.last_for(subject)?, changes)?;
        Some(Headers::new(stored.message.headers()).get(headers::SCHEDULE).is_some_and(|value| !value.is_empty()))
    }

    /// A schedule replaces what was on its subject before.
    pub(super) fn make_schedule(arrival: &mut Arrival) {
        if arrival.headers.rollup.is_none() {
            let message = &arrival.message;
            let block = header::with_line(message.headers(), headers::ROLLUP, "sub");
            arrival.message = Message::new(message.subject(), &block, message.payload());
            arrival.headers.rollup = Some(b"sub");
        }
    }

    /// Lets the schedules that are due fire.
    pub(super) fn fire_schedules(&mut self, world: &World, now: Timestamp, changes: &mut Changes) {
        for _ in 0..FIRE_SLICE {
            let Some(&(due, seq)) = self.schedules.due.first().filter(|(due, _)| *due <= now) else { return };
            let stored = world.load(seq, changes);
            match stored.and_then(|stored| self.produce(&stored, due, world, now, changes)) {
                Some((message, next)) => {
                    match next {
                        Some((subject, next)) => self.schedules.update(&subject, next),
                        None => self.schedules.remove(seq),
                    }
                    // Refused by the stream's limits: there is nobody to tell.
                    let _ = self.handle_internal(&message, world, now, changes);
                }
                None => self.schedules.remove(seq),
            }
        }
    }

    /// The message a schedule produces when it fires, and when it fires again.
    fn produce(
        &self,
        stored: &StoredMessage,
        due: Timestamp,
        world: &World,
        now: Timestamp,
        changes: &Changes,
    ) -> Option<(Message, Option<(SubjectRef, Timestamp)>)> {
        let block = stored.message.headers();
        let schedule = schedule_of(&PublishHeaders::parse(block)).ok()??;
        let own = Headers::new(block);
        let get = |name| own.get_str(name).filter(|value| !value.is_empty());
        let target = get(headers::SCHEDULE_TARGET)?;
        let source = get(headers::SCHEDULE_SOURCE)
            .and_then(|source| self.index.last_for(source.as_bytes()))
            .and_then(|seq| world.load(seq, changes));
        let content = source.as_ref().unwrap_or(stored);
        let block = content.message.headers();
        let bare = header::without(block, |name| {
            name.starts_with(b"Nats-Schedule")
                || name.starts_with(b"Nats-Expected-")
                || [headers::MSG_ID, headers::TTL, headers::ROLLUP].iter().any(|own| own.as_bytes() == name)
        });
        let mut out = bare.unwrap_or_else(|| block.to_vec());
        let mut add = |name, value: &str| out = header::with_line(&out, name, value);
        add(headers::SCHEDULER, &stored.message.subject_text());
        let next = match schedule.repeats() {
            true => {
                let next = schedule.next_from(due, now)?;
                add(headers::SCHEDULE_NEXT, &schedule.show(next));
                Some((self.index.subject_of(stored.seq)?.clone(), next))
            }
            false => {
                add(headers::SCHEDULE_NEXT, "purge");
                None
            }
        };
        if let Some(ttl) = get(headers::SCHEDULE_TTL) {
            add(headers::TTL, ttl);
        }
        if let Some(rollup) = get(headers::SCHEDULE_ROLLUP) {
            add(headers::ROLLUP, rollup);
        }
        Some((Message::new(target.as_bytes(), &out, content.message.payload()), next))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stream::{Published, StreamConfig, StreamId};
    use crate::types::header::HeaderBuilder;

    const SECOND: i64 = 1_000_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp((1_000_000 + seconds) * SECOND)
    }

    /// A stream and everything it ever stored.
    struct Bench {
        config: Arc<StreamConfig>,
        stream: Stream,
        stored: Vec<StoredMessage>,
    }

    impl Bench {
        fn new(config: StreamConfig) -> Bench {
            let config = StreamConfig {
                name: "S".into(),
                subjects: vec!["s.>".into(), "t.>".into()],
                allow_msg_schedules: true,
                ..config
            };
            let config = Arc::new(config.check_create(false).unwrap());
            Bench { stream: Stream::new(StreamId(1), config.clone(), at(0)), config, stored: Vec::new() }
        }

        fn publish(&mut self, subject: &str, headers: &[(&str, &str)], now: Timestamp) -> Result<Published, ApiError> {
            let block =
                headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build();
            let block: &[u8] = if headers.is_empty() { b"" } else { &block };
            let message = Message::new(subject.as_bytes(), block, subject.as_bytes());
            let mut changes = Changes::new();
            let stored = self.stored.clone();
            let read = |seq| stored.iter().find(|message| message.seq == seq).cloned();
            let world = World { read: &read, ..World::new(&|_| true) };
            let published = self.stream.handle_publish(&message, &world, now, &mut changes);
            self.stored.append(&mut changes.puts);
            published
        }

        /// Lets time pass as the stream asks for it; the subjects and times of what lives then.
        fn until(&mut self, seconds: i64) -> Vec<(String, i64)> {
            while let Some(deadline) = self.stream.next_deadline().filter(|deadline| *deadline <= at(seconds)) {
                self.tick(deadline);
            }
            self.living()
        }

        fn tick(&mut self, now: Timestamp) {
            let mut changes = Changes::new();
            let stored = self.stored.clone();
            let read = |seq| stored.iter().find(|message| message.seq == seq).cloned();
            self.stream.handle_expiry(now, &World { read: &read, ..World::new(&|_| true) }, &mut changes);
            self.stored.append(&mut changes.puts);
        }

        fn living(&self) -> Vec<(String, i64)> {
            let living = self.stored.iter().filter(|stored| self.stream.index().exists(stored.seq));
            living
                .map(|stored| (stored.message.subject_text().into_owned(), stored.time.0 / SECOND - 1_000_000))
                .collect()
        }

        fn restart(&mut self) {
            let mut stream = Stream::new(StreamId(1), self.config.clone(), at(0));
            for stored in self.stored.iter().filter(|stored| self.stream.index().exists(stored.seq)) {
                let message = &stored.message;
                stream.restore(stored.seq, stored.time, message.subject(), message.headers(), 50);
            }
            stream.restore_floor(self.stream.index().last_seq(), self.stream.index().last_time());
            stream.settle_schedules();
            self.stream = stream;
        }

        fn headers(&self) -> String {
            String::from_utf8(self.stored.last().unwrap().message.headers().to_vec()).unwrap()
        }
    }

    fn rows(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
        expected.iter().map(|(subject, time)| (subject.to_string(), *time)).collect()
    }

    #[test]
    fn a_message_sent_later_replaces_its_schedule() {
        let mut bench = Bench::new(StreamConfig { allow_msg_ttl: true, ..StreamConfig::default() });
        let when = at(30).to_rfc3339();
        let when = format!("@at {when}");
        let schedule = [
            ("Nats-Schedule", when.as_str()),
            ("Nats-Schedule-Target", "t.a"),
            ("Nats-Schedule-TTL", "5m"),
            ("Nats-Msg-Id", "one"),
            ("X", "y"),
        ];
        bench.publish("s.a", &schedule, at(0)).unwrap();
        assert!(bench.headers().ends_with("X: y\r\nNats-Rollup: sub\r\n\r\n"), "{}", bench.headers());
        assert_eq!(bench.until(29), rows(&[("s.a", 0)]));
        assert_eq!(bench.until(31), rows(&[("t.a", 30)]));
        assert_eq!(
            bench.headers(),
            "NATS/1.0\r\nX: y\r\nNats-Scheduler: s.a\r\nNats-Schedule-Next: purge\r\nNats-TTL: 5m\r\n\r\n"
        );
        assert_eq!(bench.stored[1].message.payload(), b"s.a");
    }

    #[test]
    fn a_schedule_repeats_until_its_subject_gets_another_message() {
        let mut bench = Bench::new(StreamConfig::default());
        let every = |rule| [("Nats-Schedule", rule), ("Nats-Schedule-Target", "t.a"), ("Nats-Schedule-Rollup", "sub")];
        bench.publish("s.a", &every("@every 10s"), at(0)).unwrap();
        assert_eq!(bench.until(25), rows(&[("s.a", 0), ("t.a", 20)]));
        assert!(bench.headers().contains(&format!("Nats-Schedule-Next: {}\r\n", at(30).to_rfc3339())));
        bench.publish("s.a", &every("@every 1m"), at(25)).unwrap();
        assert_eq!(bench.until(84), rows(&[("t.a", 20), ("s.a", 25)]));
        assert_eq!(bench.until(85), rows(&[("s.a", 25), ("t.a", 85)]));
        bench.publish("s.a", &[], at(90)).unwrap();
        assert_eq!(bench.until(1000).len(), 3);
    }

    #[test]
    fn a_source_lends_its_last_message() {
        let mut bench = Bench::new(StreamConfig::default());
        let headers =
            [("Nats-Schedule", "@every 10s"), ("Nats-Schedule-Target", "t.a"), ("Nats-Schedule-Source", "t.source")];
        bench.publish("s.a", &headers, at(0)).unwrap();
        bench.until(10);
        assert_eq!(bench.stored.last().unwrap().message.payload(), b"s.a");
        bench.publish("t.source", &[("Y", "z")], at(11)).unwrap();
        bench.until(20);
        assert_eq!(bench.stored.last().unwrap().message.payload(), b"t.source");
        assert!(bench.headers().starts_with("NATS/1.0\r\nY: z\r\nNats-Scheduler: s.a\r\n"));
    }

    #[test]
    fn what_was_missed_fires_once_after_a_restart() {
        let mut bench = Bench::new(StreamConfig::default());
        let at_40 = format!("@at {}", at(40).to_rfc3339());
        let to = |rule| [("Nats-Schedule", rule), ("Nats-Schedule-Target", "t.a")];
        bench.publish("s.every", &to("@every 10s"), at(0)).unwrap();
        bench.publish("s.cron", &to("0 * * * * *"), at(0)).unwrap();
        bench.publish("s.at", &to(&at_40), at(0)).unwrap();
        bench.until(15);
        let before = bench.stored.len();
        bench.restart();
        // The next minute begins at 20 here, so cron and @every are due then.
        bench.tick(at(19));
        assert_eq!(bench.stored.len(), before, "nothing is due before its time");
        bench.tick(at(300));
        let produced = |bench: &Bench| -> Vec<String> {
            let new = bench.stored[before..].iter();
            let mut names: Vec<String> = new
                .map(|stored| Headers::new(stored.message.headers()).get_str(headers::SCHEDULER).unwrap().to_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(produced(&bench), ["s.at", "s.cron", "s.every"]);
        bench.restart();
        bench.tick(at(301));
        assert_eq!(produced(&bench).len(), 3, "what has fired does not fire again");
        bench.tick(at(311));
        assert_eq!(produced(&bench), ["s.at", "s.cron", "s.every", "s.every"]);
    }

    #[test]
    fn a_consumed_message_is_not_produced_again_after_a_restart() {
        let mut bench = Bench::new(StreamConfig::default());
        let headers = [("Nats-Schedule", "@every 10s"), ("Nats-Schedule-Target", "t.a")];
        bench.publish("s.a", &headers, at(0)).unwrap();
        bench.until(30);
        bench.stream.handle_purge(Some(b"t.a"), 0, 0, &mut Changes::new()).unwrap();
        bench.restart();
        let before = bench.stored.len();
        bench.tick(at(39));
        assert_eq!(bench.stored.len(), before);
        bench.tick(at(40));
        assert_eq!(bench.stored.len(), before + 1);
    }

    #[test]
    fn ends_early() {
        let mut bench = Bench::new(StreamConfig::default());
        let headers = [("Nats-Schedule", "@every 10s"), ("Nats-Schedule-Target", "t.a")];
        bench.publish("s.a", &headers, at(0)).unwrap();
        bench.publish("t.plain", &[], at(0)).unwrap();
        let end = |scheduler| [("Nats-Schedule-Next", "purge"), ("Nats-Scheduler", scheduler)];
        let refused = ApiError::MESSAGE_SCHEDULES_SCHEDULER_INVALID;
        for (subject, headers) in [
            ("t.a", &end("t.plain")[..]),
            ("s.a", &end("s.a")),
            ("t.a", &end("s.*")),
            ("t.a", &end("s.a")[..1]),
            ("t.a", &end("s.a")[1..]),
            ("t.a", &[("Nats-Schedule-Next", "2030-01-01T00:00:00Z"), ("Nats-Scheduler", "s.a")]),
        ] {
            assert_eq!(bench.publish(subject, headers, at(1)), Err(refused.clone()), "{headers:?}");
        }
        bench.publish("t.gone", &end("s.a"), at(2)).unwrap();
        assert_eq!(bench.until(100), rows(&[("t.plain", 0), ("t.gone", 2)]));
        bench.publish("t.gone", &end("s.nobody"), at(101)).unwrap();
    }

    /// Each answer as nats-server 2.15 gave it.
    #[test]
    fn refusals() {
        let mut bench = Bench::new(StreamConfig::default());
        let ok = [("Nats-Schedule", "@every 10s"), ("Nats-Schedule-Target", "t.a")];
        let cases: &[(&[(&str, &str)], ApiError)] = &[
            (&[("Nats-Schedule", "bogus")], ApiError::MESSAGE_SCHEDULES_PATTERN_INVALID),
            (
                &[("Nats-Schedule", "@daily"), ("Nats-Schedule-Time-Zone", "Nowhere")],
                ApiError::MESSAGE_SCHEDULES_TIME_ZONE_INVALID,
            ),
            (&[ok[0], ("Nats-Schedule-TTL", "x")], ApiError::MESSAGE_SCHEDULES_TTL_INVALID),
            (&[ok[0], ("Nats-Schedule-Rollup", "all")], ApiError::MESSAGE_SCHEDULES_ROLLUP_INVALID),
            (&[ok[0], ok[1], ("Nats-Schedule-TTL", "5s")], ApiError::MESSAGE_TTL_DISABLED),
            (&[ok[0]], ApiError::MESSAGE_SCHEDULES_TARGET_INVALID),
            (&[ok[0], ("Nats-Schedule-Target", "s.a")], ApiError::MESSAGE_SCHEDULES_TARGET_INVALID),
            (&[ok[0], ("Nats-Schedule-Target", "t.*")], ApiError::MESSAGE_SCHEDULES_TARGET_INVALID),
            (&[ok[0], ("Nats-Schedule-Target", "elsewhere")], ApiError::MESSAGE_SCHEDULES_TARGET_INVALID),
            (&[ok[0], ok[1], ("Nats-Schedule-Source", "t.a")], ApiError::MESSAGE_SCHEDULES_SOURCE_INVALID),
            (&[ok[0], ok[1], ("Nats-Schedule-Source", "elsewhere")], ApiError::MESSAGE_SCHEDULES_SOURCE_INVALID),
            (&[ok[0], ok[1], ("Nats-Rollup", "all")], ApiError::MESSAGE_SCHEDULES_ROLLUP_INVALID),
        ];
        for (headers, expected) in cases {
            assert_eq!(bench.publish("s.a", headers, at(0)).as_ref(), Err(expected), "{headers:?}");
        }
        let config = Arc::new(StreamConfig { allow_msg_schedules: false, ..(*bench.config).clone() });
        bench.stream = Stream::new(StreamId(2), config, at(0));
        for headers in [&ok[..], &[("Nats-Schedule", "bogus")]] {
            assert_eq!(bench.publish("s.a", headers, at(0)), Err(ApiError::MESSAGE_SCHEDULES_DISABLED));
        }
    }
}
