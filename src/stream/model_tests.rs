//! The stream against the dullest model: a list of messages and linear scans. Beside it a "disk" that only applies the
//! changes; it must always hold what the index says, and a stream rebuilt from it must be the same stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::config::{Discard, Nanos, Retention};
use super::*;
use crate::types::header::HeaderBuilder;
use crate::types::{ApiError, Message, StoredMessage, Timestamp, subject};

const SUBJECTS: [&str; 5] = ["a", "b.x", "b.y", "b.z", "c.d.e"];
const WINDOW: i64 = 500;

#[derive(Clone, Debug)]
struct Row {
    seq: u64,
    subject: &'static str,
    bytes: u64,
    time: i64,
}

/// A message to publish.
#[derive(Clone, Debug, Default)]
struct Draft {
    subject: &'static str,
    payload_len: usize,
    msg_id: Option<u8>,
    /// Expected last sequence, as an offset from the true one.
    expect_last: Option<i64>,
    /// Expected last sequence of a subject, as an offset from the true one.
    expect_subject: Option<(i64, &'static str)>,
    rollup: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Draft),
    Batch { members: Vec<Draft>, eob: bool },
    Purge { filter: Option<&'static str>, seq: u64, keep: u64 },
    Delete(u64),
    Consumed(u64),
    Wait(i64),
    Limits { max_msgs: i64, max_per: i64 },
    Restart,
}

#[derive(Clone, Debug)]
struct Model {
    config: StreamConfig,
    rows: Vec<Row>,
    last_seq: u64,
    ids: Vec<(u8, u64, i64)>,
    now: i64,
}

fn bytes_of(message: &Message) -> u64 {
    StoredMessage::accounted_bytes(message.subject().len(), message.headers().len(), message.payload().len())
}

impl Model {
    fn matching(&self, filter: &str) -> Vec<Row> {
        self.rows.iter().filter(|row| subject::matches(filter.as_bytes(), row.subject.as_bytes())).cloned().collect()
    }

    fn last_of(&self, filter: &str) -> u64 {
        self.matching(filter).last().map_or(0, |row| row.seq)
    }

    fn known_id(&self, id: u8) -> Option<u64> {
        self.ids
            .iter()
            .rev()
            .find(|entry| entry.0 == id)
            .filter(|entry| self.now - entry.2 < WINDOW)
            .map(|entry| entry.1)
    }

    fn total_bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.bytes).sum()
    }

    fn drop_seq(&mut self, seq: u64) {
        self.rows.retain(|row| row.seq != seq);
    }

    fn enforce(&mut self) {
        let per = self.config.max_msgs_per_subject;
        for subject in SUBJECTS {
            let rows = self.matching(subject);
            if per > 0 && rows.len() as i64 > per {
                for row in &rows[..rows.len() - per as usize] {
                    self.drop_seq(row.seq);
                }
            }
        }
        while self.config.discard == Discard::Old
            && (self.config.max_msgs > 0 && self.rows.len() as i64 > self.config.max_msgs
                || self.config.max_bytes > 0 && self.total_bytes() as i64 > self.config.max_bytes)
        {
            self.rows.remove(0);
        }
    }

    fn wanted(&self, draft: &Draft) -> bool {
        self.config.retention != Retention::Interest || interest(draft.subject.as_bytes())
    }

    fn store(&mut self, draft: &Draft, bytes: u64) -> u64 {
        self.last_seq += 1;
        let seq = self.last_seq;
        if let Some(id) = draft.msg_id {
            self.ids.push((id, seq, self.now));
        }
        let wanted = self.wanted(draft);
        if wanted {
            self.rows.push(Row { seq, subject: draft.subject, bytes, time: self.now });
            self.enforce();
        }
        let keep = usize::from(wanted);
        if let Some(rollup) = draft.rollup {
            let rows = self.matching(if rollup == "sub" { draft.subject } else { ">" });
            for row in &rows[..rows.len().saturating_sub(keep)] {
                self.drop_seq(row.seq);
            }
        }
        seq
    }

    /// The error code publishing would meet, or the duplicate's sequence.
    fn judge(&self, draft: &Draft, message: &Message) -> Result<Option<u64>, u32> {
        let size = message.headers().len() + message.payload().len();
        if self.config.max_msg_size > 0 && size > self.config.max_msg_size as usize {
            return Err(10054);
        }
        if let Some((offset, of)) = draft.expect_subject
            && offset != 0
        {
            let _ = of;
            return Err(10071);
        }
        if draft.expect_last.is_some_and(|offset| offset != 0) {
            return Err(10071);
        }
        if let Some(seq) = draft.msg_id.and_then(|id| self.known_id(id)) {
            return Ok(Some(seq));
        }
        if draft.rollup.is_some() && !self.config.allow_rollup_hdrs {
            return Err(10111);
        }
        if !self.wanted(draft) {
            return Ok(None);
        }
        if self.config.discard == Discard::New {
            let same = self.matching(draft.subject);
            let full = self.config.max_msgs_per_subject > 0 && same.len() as i64 >= self.config.max_msgs_per_subject;
            if full && self.config.discard_new_per_subject && draft.rollup.is_none() {
                return Err(10077);
            }
            if self.config.max_msgs > 0 && self.rows.len() as i64 >= self.config.max_msgs && !full {
                return Err(10077);
            }
            let bytes = bytes_of(message);
            if self.config.max_bytes > 0
                && (self.total_bytes() + bytes) as i64 > self.config.max_bytes
                && !(full && same[0].bytes >= bytes)
            {
                return Err(10077);
            }
        }
        Ok(None)
    }

    /// The error code a batch's commit would meet.
    fn judge_batch(&self, drafts: &[Draft], sizes: &[u64]) -> Result<(), u32> {
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for (at, draft) in drafts.iter().enumerate() {
            let before = &drafts[..at];
            let bytes: u64 = sizes[..=at].iter().sum();
            if let Some(id) = draft.msg_id
                && (before.iter().any(|other| other.msg_id == Some(id)) || self.known_id(id).is_some())
            {
                return Err(10201);
            }
            if let Some(offset) = draft.expect_last {
                // Drafts expect the sequence before the batch.
                if (self.last_seq as i64 + offset) as u64 != self.last_seq + at as u64 {
                    return Err(10071);
                }
                if at > 0 {
                    return Err(10164);
                }
            }
            if let Some((offset, of)) = draft.expect_subject {
                if before.iter().any(|other| other.subject == of) {
                    return Err(10164);
                }
                if offset != 0 {
                    return Err(10071);
                }
                expected.insert(of, self.last_of(of));
            }
            if let Some(rollup) = draft.rollup {
                let late =
                    if rollup == "sub" { before.iter().any(|other| other.subject == draft.subject) } else { at > 0 };
                if !self.config.allow_rollup_hdrs || late {
                    return Err(10111);
                }
            }
            if self.config.discard == Discard::New {
                let of_subject = self.matching(draft.subject).len()
                    + drafts[..=at].iter().filter(|other| other.subject == draft.subject).count();
                if self.config.max_msgs > 0 && (self.rows.len() + at + 1) as i64 > self.config.max_msgs
                    || self.config.max_bytes > 0 && (self.total_bytes() + bytes) as i64 > self.config.max_bytes
                    || self.config.discard_new_per_subject
                        && draft.rollup.is_none()
                        && of_subject as i64 > self.config.max_msgs_per_subject
                {
                    return Err(10077);
                }
            }
        }
        Ok(())
    }

    fn purge(&mut self, filter: Option<&str>, seq: u64, keep: u64) -> u64 {
        if seq == 1 {
            return 0;
        }
        if filter.is_none() && seq > self.last_seq + 1 {
            self.last_seq = seq - 1;
        }
        let rows = self.matching(filter.unwrap_or(">"));
        let most = rows.len().saturating_sub(keep as usize);
        let gone: Vec<Row> = rows.into_iter().take(most).filter(|row| seq == 0 || row.seq < seq).collect();
        for row in &gone {
            self.drop_seq(row.seq);
        }
        gone.len() as u64
    }
}

fn interest(subject: &[u8]) -> bool {
    subject != b"a"
}

fn message(draft: &Draft, model: &Model, batch: Option<(&str, usize, Option<&str>)>) -> Message {
    let mut headers = HeaderBuilder::new();
    let mut any = false;
    let mut add = |name: &str, value: String| {
        headers = headers.clone().add(name, value);
        any = true;
    };
    if let Some(id) = draft.msg_id {
        add(headers::MSG_ID, format!("id-{id}"));
    }
    if let Some(offset) = draft.expect_last {
        add(headers::EXPECTED_LAST_SEQUENCE, ((model.last_seq as i64 + offset).max(0) as u64).to_string());
    }
    if let Some((offset, of)) = draft.expect_subject {
        add(headers::EXPECTED_LAST_SUBJECT_SEQUENCE, (model.last_of(of) as i64 + offset).to_string());
        add(headers::EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT, of.to_owned());
    }
    if let Some(rollup) = draft.rollup {
        add(headers::ROLLUP, rollup.to_owned());
    }
    if let Some((id, sequence, commit)) = batch {
        add(headers::BATCH_ID, id.to_owned());
        add(headers::BATCH_SEQUENCE, sequence.to_string());
        if let Some(commit) = commit {
            add(headers::BATCH_COMMIT, commit.to_owned());
        }
    }
    let block = if any { headers.build() } else { Vec::new() };
    Message::new(draft.subject.as_bytes(), &block, &vec![b'x'; draft.payload_len])
}

fn draft() -> impl Strategy<Value = Draft> {
    (
        prop::sample::select(&SUBJECTS[..]),
        0usize..60,
        prop_oneof![3 => Just(None), 1 => (0u8..6).prop_map(Some)],
        prop_oneof![8 => Just(None), 1 => (0i64..2).prop_map(Some)],
        prop_oneof![
            6 => Just(None),
            1 => (0i64..2, prop::sample::select(vec!["a", "b.x", "b.>", "none"])).prop_map(Some)
        ],
        prop_oneof![12 => Just(None), 1 => Just(Some("sub")), 1 => Just(Some("all"))],
    )
        .prop_map(|(subject, payload_len, msg_id, expect_last, expect_subject, rollup)| Draft {
            subject,
            payload_len,
            msg_id,
            expect_last,
            expect_subject,
            rollup,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => draft().prop_map(Step::Publish),
        6 => (prop::collection::vec(draft(), 1..6), any::<bool>())
            .prop_map(|(members, eob)| Step::Batch { members, eob }),
        2 => (prop::sample::select(vec![None, Some("b.*"), Some("a"), Some("c.>")]), 0u64..30, Just(0u64))
            .prop_map(|(filter, seq, keep)| Step::Purge { filter, seq, keep }),
        2 => (prop::sample::select(vec![None, Some("b.*"), Some("a")]), Just(0u64), 0u64..4)
            .prop_map(|(filter, seq, keep)| Step::Purge { filter, seq, keep }),
        3 => (0u64..40).prop_map(Step::Delete),
        3 => (0u64..40).prop_map(Step::Consumed),
        6 => (0i64..300).prop_map(Step::Wait),
        1 => (0i64..6, 0i64..3).prop_map(|(max_msgs, max_per)| Step::Limits { max_msgs, max_per }),
        2 => Just(Step::Restart),
    ]
}

fn config() -> impl Strategy<Value = StreamConfig> {
    (
        prop_oneof![Just(-1i64), 3i64..10],
        prop_oneof![Just(-1i64), 200i64..600],
        prop_oneof![Just(-1i64), 1i64..4],
        prop_oneof![Just(-1i32), Just(150i32)],
        prop_oneof![Just(0i64), Just(400i64)],
        (any::<bool>(), any::<bool>(), any::<bool>()),
        prop::sample::select(vec![Retention::Limits, Retention::Interest, Retention::WorkQueue]),
    )
        .prop_map(|(max_msgs, max_bytes, max_per, max_msg_size, max_age, (new, per, rollup), retention)| {
            StreamConfig {
                name: "S".into(),
                subjects: vec![">".into()],
                retention,
                max_msgs,
                max_bytes,
                max_msgs_per_subject: max_per,
                max_msg_size,
                max_age: Nanos(max_age),
                discard: if new { Discard::New } else { Discard::Old },
                discard_new_per_subject: new && per && max_per > 0,
                allow_rollup_hdrs: rollup,
                allow_atomic: true,
                duplicate_window: Nanos(WINDOW),
                ..StreamConfig::default()
            }
        })
}

/// What the store would hold: applies changes and nothing else.
#[derive(Default)]
struct Disk {
    rows: BTreeMap<u64, StoredMessage>,
    floor: (u64, Timestamp),
}

impl Disk {
    fn apply(&mut self, changes: &mut Changes, stream: &Stream) {
        for put in changes.puts.drain(..) {
            assert!(self.rows.insert(put.seq, put).is_none(), "a sequence is used once");
        }
        for removal in changes.removes.drain(..) {
            match removal {
                Removal::One { seq, subject, .. } => {
                    let row = self.rows.remove(&seq).expect("only what is stored is removed");
                    assert_eq!(row.message.subject(), &*subject);
                }
                Removal::Range { from, to, .. } => self.rows.retain(|seq, _| !(from..=to).contains(seq)),
            }
        }
        if changes.state_dirty {
            self.floor = (stream.index().last_seq(), stream.index().last_time());
        }
        changes.clear();
    }

    fn rebuild(&self, config: &Arc<StreamConfig>) -> Stream {
        let mut stream = Stream::new(StreamId(1), config.clone(), Timestamp(1));
        for (seq, row) in &self.rows {
            let message = &row.message;
            stream.restore(*seq, row.time, message.subject(), message.headers(), stream.accounted_bytes(message));
        }
        stream.restore_floor(self.floor.0, self.floor.1);
        stream
    }
}

fn check_same(stream: &Stream, model: &Model, disk: &Disk) {
    let index = stream.index();
    let rows: Vec<(u64, &str, u64, i64)> =
        model.rows.iter().map(|row| (row.seq, row.subject, row.bytes, row.time)).collect();
    let found: Vec<(u64, String, u64, i64)> = index
        .seqs(0)
        .map(|seq| {
            let row = index.row(seq).expect("it is listed");
            (seq, String::from_utf8_lossy(&row.subject).into_owned(), row.accounted_bytes, row.time.0)
        })
        .collect();
    assert!(rows.iter().map(|r| (r.0, r.1.to_owned(), r.2, r.3)).eq(found.iter().cloned()), "{rows:?}\n{found:?}");
    assert_eq!(index.last_seq(), model.last_seq);
    let disk_rows: Vec<(u64, i64)> = disk.rows.values().map(|row| (row.seq, row.time.0)).collect();
    assert_eq!(disk_rows, model.rows.iter().map(|row| (row.seq, row.time)).collect::<Vec<_>>());
    let state = stream.state();
    assert_eq!((state.messages, state.bytes), (rows.len() as u64, model.total_bytes()));
    assert!(state.first_seq <= state.last_seq + 1);
    assert_eq!(state.num_deleted, index.deleted().len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn equals_a_list(config in config(), steps in prop::collection::vec(step(), 1..60)) {
        let mut model =
            Model { config: config.clone(), rows: Vec::new(), last_seq: 0, ids: Vec::new(), now: 1_000_000_000_000 };
        let mut config = Arc::new(config);
        let mut stream = Stream::new(StreamId(1), config.clone(), Timestamp(model.now));
        let mut disk = Disk::default();
        let mut changes = Changes::new();
        for (number, step) in steps.into_iter().enumerate() {
            let now = Timestamp(model.now);
            match step {
                Step::Publish(draft) => {
                    let message = message(&draft, &model, None);
                    let result = stream.handle_publish(&message, &World::new(&interest), now, &mut changes);
                    match (model.judge(&draft, &message), result) {
                        (Err(code), Err(error)) => prop_assert_eq!(code, error.err_code),
                        (Ok(Some(seq)), Ok(Published::Duplicate { seq: found })) => prop_assert_eq!(seq, found),
                        (Ok(None), Ok(Published::Stored { seq } | Published::NoInterest { seq })) => {
                            prop_assert_eq!(seq, model.last_seq + 1);
                            prop_assert_eq!(model.store(&draft, bytes_of(&message)), seq);
                        }
                        (expected, found) => prop_assert!(false, "{:?} {:?}", expected, found),
                    }
                }
                Step::Batch { members, eob } => {
                    let id = format!("batch-{number}");
                    let count = members.len();
                    let messages: Vec<Message> = (1..=count)
                        .map(|at| message(&members[at - 1], &model, Some((&id, at, (at == count && !eob).then_some("1")))))
                        .collect();
                    // The marker's commit header moves to the last message.
                    let mut sizes: Vec<u64> = messages.iter().map(bytes_of).collect();
                    sizes[count - 1] += if eob { "Nats-Batch-Commit: 1\r\n".len() as u64 } else { 0 };
                    let mut results: Vec<Result<Published, ApiError>> = messages
                        .iter()
                        .map(|message| stream.handle_publish(message, &World::new(&interest), now, &mut changes))
                        .collect();
                    if eob {
                        let end = Draft { subject: "a", ..Draft::default() };
                        let end = message(&end, &model, Some((&id, count + 1, Some("eob"))));
                        results.push(stream.handle_publish(&end, &World::new(&interest), now, &mut changes));
                    }
                    let too_large = model.config.max_msg_size > 0
                        && messages.iter().any(|m| m.headers().len() + m.payload().len() > model.config.max_msg_size as usize);
                    let last = results.pop().expect("a batch has messages");
                    if too_large {
                        prop_assert!(last.is_err());
                    } else {
                        prop_assert!(results.iter().all(|result| *result == Ok(Published::Staged)));
                        match (model.judge_batch(&members, &sizes), last) {
                            (Err(code), Err(error)) => prop_assert_eq!(code, error.err_code, "{}", error),
                            (Ok(()), Ok(Published::BatchCommitted { batch_id, count: found, seq })) => {
                                prop_assert_eq!((batch_id, found), (id, count as u64));
                                prop_assert_eq!(seq, model.last_seq + count as u64);
                                for (draft, &size) in members.iter().zip(&sizes) {
                                    model.store(draft, size);
                                }
                            }
                            (expected, found) => prop_assert!(false, "{:?} {:?}", expected, found),
                        }
                    }
                    // What a failed member left open is given up in time.
                    if stream.open_batches() > 0 {
                        let mut later = Changes::new();
                        stream.batches.expire(Timestamp(i64::MAX), &mut later);
                        prop_assert_eq!(stream.open_batches(), 0);
                    }
                    changes.abandoned_batches.clear();
                }
                Step::Purge { filter, seq, keep } => {
                    let purged = stream.handle_purge(filter.map(str::as_bytes), seq, keep, &mut changes);
                    prop_assert_eq!(purged, Ok(model.purge(filter, seq, keep)));
                }
                Step::Delete(seq) => {
                    let lives = model.rows.iter().any(|row| row.seq == seq);
                    prop_assert_eq!(stream.handle_delete(seq, &mut changes).is_ok(), lives);
                    model.drop_seq(seq);
                }
                Step::Consumed(seq) => {
                    let needed = |seq: u64, _: &[u8]| seq.is_multiple_of(3);
                    let lives = model.rows.iter().any(|row| row.seq == seq);
                    let leaves = lives && model.config.retention != Retention::Limits && seq % 3 != 0;
                    prop_assert_eq!(stream.handle_consumed(seq, &needed, &mut changes), leaves);
                    if leaves {
                        model.drop_seq(seq);
                    }
                }
                Step::Wait(nanos) => {
                    model.now += nanos;
                    // Bursts are spaced in real time, which is more than this test's.
                    stream.handle_update(config.clone(), &World::new(&interest), Timestamp(model.now), &mut changes);
                    let (age, now) = (model.config.max_age.0, model.now);
                    if age > 0 {
                        model.rows.retain(|row| row.time + age > now);
                    }
                }
                Step::Limits { max_msgs, max_per } => {
                    model.config.max_msgs = max_msgs;
                    model.config.max_msgs_per_subject = max_per;
                    model.config.discard_new_per_subject &= max_per > 0;
                    config = Arc::new(model.config.clone());
                    stream.handle_update(config.clone(), &World::new(&interest), now, &mut changes);
                    model.enforce();
                    let age = model.config.max_age.0;
                    if age > 0 {
                        model.rows.retain(|row| row.time + age > now.0);
                    }
                }
                Step::Restart => {
                    stream = disk.rebuild(&config);
                    // Only what is stored tells of its id.
                    let live: Vec<u64> = model.rows.iter().map(|row| row.seq).collect();
                    model.ids.retain(|entry| live.contains(&entry.1));
                }
            }
            disk.apply(&mut changes, &stream);
            check_same(&stream, &model, &disk);
        }
    }
}
