//! A run: random batches submitted to the real store on a simulated disk, its committer driven by hand so that the
//! same seed makes the same writes.

use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use natterjack::storage::{
    AckBlock, Batch, CommitError, Committer, ConsumerStateRow, Op, Options, Recovered, Redelivery, Step, Store,
    StreamFloor,
};
use natterjack::types::{Message, StoredMessage, StreamId, Timestamp};

use crate::disk::{Disk, Event, Folder};
use crate::model::Model;
use crate::random::Random;

/// A bug built into a run, to see that the harness finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    Nothing,
    /// Completions come at once instead of after the commit.
    AckBeforeCommit,
    SyncDoesNothing,
}

/// A run, its writes, and the states it went through.
pub struct Recording {
    pub run: u64,
    pub base: Vec<u8>,
    pub log: Vec<Event>,
    /// The state after each number of batches.
    pub states: Vec<Model>,
}

pub fn options(cache_bytes: usize) -> Options {
    Options { cache_bytes, commit_ops_max: 2000, scattered_min: 2, sweep_min: 20, ..Options::default() }
}

impl Recording {
    pub fn make(run: u64, planted: Planted) -> Recording {
        let mut random = Random::new(run.wrapping_mul(0x1234_5678_9ABC_DEF1));
        let folder = Folder::default();
        let (store, _, mut committer) = Store::open_on(folder.clone(), options(1 << 20)).expect("a new store opens");
        let disk = folder.disk();
        let base = disk.start_recording(planted == Planted::SyncDoesNothing);
        let mut workload = Workload::new(&store, run);
        let rounds = 12 + random.below(20);
        for _ in 0..rounds {
            for _ in 0..1 + random.below(4) {
                let batch = workload.next_batch(&mut random);
                disk.mark(Event::Submitted);
                if planted == Planted::AckBeforeCommit {
                    disk.mark(Event::Acked);
                }
                let marker = disk.clone();
                store.submit(batch, move |result| {
                    result.expect("nothing fails in this run");
                    if planted != Planted::AckBeforeCommit {
                        marker.mark(Event::Acked);
                    }
                });
            }
            for _ in 0..1 + random.below(3) {
                committer.step();
            }
            if random.one_in(5) {
                committer.seal();
            }
        }
        while committer.step() == Step::Worked {}
        if random.one_in(2) {
            committer.close();
        }
        Recording { run, base, log: disk.take_log(), states: workload.states }
    }

    /// How many batches had been acked and submitted before the event `at`.
    pub fn window(&self, at: usize) -> (usize, usize) {
        let count = |wanted: Event| self.log[..at].iter().filter(|event| **event == wanted).count();
        (count(Event::Acked), count(Event::Submitted))
    }
}

/// Draws batches that a broker could submit, and follows them in the model.
struct Workload {
    store: Store,
    /// Long streams, so that removals take several slices.
    long: bool,
    clock: i64,
    states: Vec<Model>,
}

impl Workload {
    fn new(store: &Store, run: u64) -> Workload {
        Workload { store: store.clone(), long: run % 5 == 4, clock: 0, states: vec![Model::default()] }
    }

    fn state(&self) -> &Model {
        self.states.last().expect("there is always a first state")
    }

    fn next_batch(&mut self, random: &mut Random) -> Batch {
        let ops = self.next_ops(random);
        let next = self.state().after(&ops);
        self.states.push(next);
        ops.into_iter().collect()
    }

    fn next_ops(&mut self, random: &mut Random) -> Vec<Op> {
        self.clock += 1;
        let ids: Vec<u32> = self.state().streams.keys().copied().collect();
        if ids.len() < 2 || (ids.len() < 4 && random.one_in(12)) {
            return vec![self.new_stream(random)];
        }
        let id = *random.pick(&ids);
        let stream = StreamId(id);
        let model = &self.state().streams[&id];
        let is_log = model.config_json.starts_with(b"log");
        let names: Vec<Arc<str>> = model.consumers.keys().map(|name| name.as_str().into()).collect();
        let last_seq = model.last_seq;
        match random.below(20) {
            0 => vec![Op::PutStream { stream, config_json: model.config_json.clone(), created: Timestamp(self.clock) }],
            1 if ids.len() > 2 && !is_log => vec![Op::DropStream { stream }],
            2 | 3 if names.len() < 3 => {
                let consumer: Arc<str> = format!("c{}", random.below(5)).into();
                let config_json = Bytes::from(format!("config {}", self.clock));
                vec![Op::PutConsumer { stream, consumer, config_json, created: Timestamp(self.clock) }]
            }
            4 if !names.is_empty() && random.one_in(3) => {
                vec![Op::DropConsumer { stream, consumer: random.pick(&names).clone() }]
            }
            4..=8 if !names.is_empty() => self.consume(stream, random.pick(&names).clone(), last_seq, random),
            9..=12 if !is_log && last_seq > 0 => self.remove(stream, random),
            13 if last_seq > 0 => vec![self.summarize(stream, random)],
            _ => self.publish(stream, last_seq, random),
        }
    }

    fn new_stream(&mut self, random: &mut Random) -> Op {
        let kind = if self.state().streams.is_empty() { "log" } else { random.pick(&["queue", "sparse"]) };
        let config_json = Bytes::from(format!("{kind} {}", self.clock));
        Op::PutStream { stream: self.store.new_stream_id(), config_json, created: Timestamp(self.clock) }
    }

    fn publish(&mut self, stream: StreamId, last_seq: u64, random: &mut Random) -> Vec<Op> {
        // As in a filtered mirror: what lies far apart in sequence lies far apart in the file.
        let is_sparse = self.state().streams[&stream.0].config_json.starts_with(b"sparse");
        let count = match random.below(10) {
            0 if self.long => 1800,
            0..=5 => 1,
            6..=8 if !is_sparse => 1 + random.below(20),
            _ => 1 + random.below(200),
        };
        let step = if is_sparse { 40 } else { 1 };
        (1..=count)
            .map(|number| {
                let seq = last_seq + number * step;
                let len = match random.below(if count > 20 { 1000 } else { 12 }) {
                    0 => 3000 + random.below(3000),
                    1 => random.below(30_000),
                    2..=5 => 128,
                    _ => random.below(300),
                };
                let fill = random.next() as u8;
                let payload: Vec<u8> = (0..len).map(|at| fill.wrapping_add(at as u8)).collect();
                let headers: &[u8] = if random.one_in(3) { b"NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n" } else { b"" };
                let message = Message::new(format!("subject.{}", random.below(50)).as_bytes(), headers, &payload);
                let message = StoredMessage { seq, time: Timestamp(self.clock * 1000 + seq as i64), message };
                Op::PutMessage { stream, message }
            })
            .collect()
    }

    fn summarize(&self, stream: StreamId, random: &mut Random) -> Op {
        let model = &self.state().streams[&stream.0];
        let span = [10, 64, 500][random.below(3) as usize];
        let from = random.below(model.last_seq + 1) / span * span;
        let to = (from + span - 1).min(model.last_seq);
        let live: Vec<u64> = model.messages.range(from..=to).map(|(seq, _)| *seq).collect();
        Op::PutSummary { stream, from, to, bytes: crate::model::summary(&live).into() }
    }

    fn remove(&mut self, stream: StreamId, random: &mut Random) -> Vec<Op> {
        let model = &self.state().streams[&stream.0];
        let seqs: Vec<u64> = model.messages.keys().copied().collect();
        let (last_seq, left) = (model.last_seq, seqs.len() as u64);
        match random.below(11) {
            0 => vec![Op::RemoveMessages { stream, from: 0, to: u64::MAX }],
            1 => {
                let from = random.below(last_seq + 1);
                vec![Op::RemoveMessages { stream, from, to: from + random.below(last_seq + 1) }]
            }
            2 => {
                let first_seq = last_seq + 1 + random.below(5);
                let floor = StreamFloor { first_seq, last_seq: first_seq - 1, last_time: Timestamp(self.clock) };
                let purge = Op::RemoveMessages { stream, from: 0, to: u64::MAX };
                vec![purge, Op::PutStreamFloor { stream, floor }]
            }
            3 => seqs.last().map(|&seq| Op::RemoveMessage { stream, seq, left }).into_iter().collect(),
            // Far apart, as when keys are overwritten at random.
            4..=8 => {
                let step = 1 + random.below(seqs.len() as u64 / 16 + 1) as usize;
                let some = seqs.into_iter().skip(random.below(50) as usize).step_by(step);
                some.map(|seq| Op::RemoveMessage { stream, seq, left }).collect()
            }
            _ => {
                let count = 1 + random.below(10) as usize;
                seqs.into_iter().take(count).map(|seq| Op::RemoveMessage { stream, seq, left }).collect()
            }
        }
    }

    fn consume(&mut self, stream: StreamId, consumer: Arc<str>, last_seq: u64, random: &mut Random) -> Vec<Op> {
        let seq = 1 + random.below(last_seq.max(1));
        let mut ops = Vec::new();
        let known = &self.state().streams[&stream.0].consumers[&*consumer];
        let floor = known.state.unwrap_or_default().ack_floor_stream_seq;
        if last_seq > 0 && random.one_in(2) {
            // An ack floor only ever rises, and never above what the stream holds.
            let floor = floor + random.below(last_seq.saturating_sub(floor) + 1);
            let state = ConsumerStateRow {
                ack_floor_consumer_seq: floor,
                ack_floor_stream_seq: floor,
                delivered_consumer_seq: last_seq,
                delivered_stream_seq: last_seq,
            };
            ops.push(Op::PutConsumerState { stream, consumer: consumer.clone(), state });
        }
        if random.one_in(2) {
            let mut block = AckBlock::empty(seq / AckBlock::SEQS);
            (0..20).for_each(|_| block.set(block.block * AckBlock::SEQS + random.below(AckBlock::SEQS)));
            ops.push(Op::PutAckBlock { stream, consumer: consumer.clone(), block });
        }
        if random.one_in(6) {
            ops.push(Op::RemoveAckBlock { stream, consumer: consumer.clone(), block: 0 });
        }
        if random.one_in(2) {
            let due = (random.below(2) == 0).then_some(Timestamp(1 + random.below(1_000_000) as i64));
            let redelivery = Redelivery { seq, count: 2 + random.below(5), due };
            ops.push(Op::PutRedelivery { stream, consumer: consumer.clone(), redelivery });
        }
        if random.one_in(3) {
            ops.push(Op::RemoveRedelivery { stream, consumer, seq: 1 + random.below(last_seq.max(1)) });
        }
        ops
    }
}

/// Submits one batch and drives the committer until it is done.
pub fn commit(store: &Store, committer: &mut Committer, batch: Batch) -> Result<(), CommitError> {
    let (sender, receiver) = mpsc::channel();
    store.submit(batch, move |result| sender.send(result).expect("the receiver waits"));
    loop {
        committer.step();
        if let Ok(result) = receiver.try_recv() {
            return result;
        }
    }
}

/// How many calls of the disk a short run makes.
pub fn calls_of(run: u64) -> u64 {
    let failing = FailingRun::start(run);
    let disk = failing.folder.disk();
    disk.fail_nth(u64::MAX / 2, 0);
    let before = disk.calls();
    failing.finish().expect("nothing fails in this run");
    disk.calls() - before
}

/// The same run with one failing call: everyone who waits hears of it, the store serves on, and a power cut at the end
/// finds all that was acked.
pub fn fail_nth(run: u64, nth: u64) -> Result<(), String> {
    let failing = FailingRun::start(run);
    failing.folder.disk().fail_nth(nth, run ^ nth);
    failing.finish()
}

struct FailingRun {
    folder: Folder,
    store: Store,
    committer: Committer,
    workload: Workload,
    random: Random,
    /// States in `workload` up to this one are known to be on the disk.
    acked: usize,
}

impl FailingRun {
    /// The small cache makes reads reach the disk.
    const CACHE_BYTES: usize = 16 << 10;

    fn start(run: u64) -> FailingRun {
        let folder = Folder::default();
        // Small transactions, so that batches wait behind the one that fails.
        let options = Options { commit_ops_max: 4, ..options(FailingRun::CACHE_BYTES) };
        let (store, _, committer) = Store::open_on(folder.clone(), options).expect("a new store opens");
        let mut workload = Workload::new(&store, run);
        workload.long = false;
        FailingRun { folder, store, committer, workload, random: Random::new(run), acked: 0 }
    }

    fn finish(mut self) -> Result<(), String> {
        for round in 0..10 {
            let (sender, receiver) = mpsc::channel();
            let count = 1 + self.random.below(3) as usize;
            for _ in 0..count {
                let batch = self.workload.next_batch(&mut self.random);
                let sender = sender.clone();
                self.store.submit(batch, move |result| sender.send(result).expect("the receiver waits"));
            }
            while self.committer.step() == Step::Worked {}
            if round % 4 == 3 {
                self.committer.seal();
            }
            let results: Vec<Result<(), CommitError>> = receiver.try_iter().collect();
            if results.len() != count {
                return Err(format!("{} of {count} batches were answered", results.len()));
            }
            let good = results.iter().take_while(|result| result.is_ok()).count();
            if results[good..].iter().any(Result::is_ok) {
                return Err(format!("a batch was acked behind a failed one: {results:?}"));
            }
            self.acked += good;
            if good < count {
                self.rebuild()?;
            }
            self.read_back()?;
        }
        // The end: all that is not synced is lost.
        let disk = Disk::with_image(self.folder.disk().durable());
        let (store, recovered, _committer) = open(disk).map_err(|error| format!("after the power cut: {error}"))?;
        let seen = Model::observe(&store, &recovered)?;
        seen.check_sound()?;
        let allowed = &self.workload.states[self.acked..];
        if allowed.contains(&seen) {
            return Ok(());
        }
        Err(format!("after the power cut: {}; expected {}", seen.summary(), allowed[0].summary()))
    }

    /// What a broker does after a failed commit: read everything again and go on from there.
    fn rebuild(&mut self) -> Result<(), String> {
        self.store = self.store.renewed();
        self.workload.store = self.store.clone();
        let mut recovered = Recovered::default();
        for id in 1..100 {
            let id = StreamId(id);
            let mut stream = self.store.reload(id);
            if stream.is_err() {
                // The failing call hit this read instead.
                self.committer.step();
                stream = self.store.reload(id);
            }
            recovered.streams.extend(stream.map_err(|error| format!("reload: {error}"))?);
        }
        let seen = Model::observe(&self.store, &recovered)?;
        seen.check_sound()?;
        let found = (self.acked..self.workload.states.len()).find(|&index| self.workload.states[index] == seen);
        let Some(found) = found else {
            return Err(format!(
                "after the error the store holds {}; acked was {}",
                seen.summary(),
                self.workload.states[self.acked].summary()
            ));
        };
        self.workload.states.truncate(found + 1);
        self.acked = found;
        Ok(())
    }

    /// Reads may fail once, and never lie.
    fn read_back(&mut self) -> Result<(), String> {
        let model = self.workload.state().clone();
        for (&id, stream) in &model.streams {
            for (&seq, expected) in stream.messages.iter().take(3) {
                let mut read = self.store.read(StreamId(id), seq);
                if read.is_err() {
                    self.committer.step();
                    read = self.store.read(StreamId(id), seq);
                }
                match read {
                    Ok(Some(message)) if message == *expected => {}
                    other => return Err(format!("message {seq} of stream {id} reads as {other:?}")),
                }
            }
        }
        Ok(())
    }
}

pub fn open(disk: Disk) -> Result<(Store, Recovered, Committer), natterjack::storage::OpenError> {
    Store::open_on(Folder::with(disk), options(1 << 20))
}
