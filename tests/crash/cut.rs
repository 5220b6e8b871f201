//! One power cut of a recorded run, and what must be found afterwards.

use natterjack::storage::{Batch, Op, Step};
use natterjack::types::{Message, StoredMessage, StreamId, Timestamp};

use crate::disk::{Disk, LUCKS, Luck, Replay};
use crate::model::Model;
use crate::random::Random;
use crate::run::{self, Recording};

#[derive(Clone, Debug)]
pub struct Cut {
    pub index: u64,
    /// How many events of the run happened before the power went.
    pub at: usize,
    luck: Luck,
    /// Cut again while the store recovers.
    again: bool,
    /// Go on working after the recovery.
    serve_on: bool,
    random: Random,
}

impl Cut {
    pub fn choose(recording: &Recording, index: u64) -> Cut {
        let mut random = Random::new(recording.run << 20 | index);
        random.next();
        Cut {
            index,
            at: random.below(recording.log.len() as u64 + 1) as usize,
            luck: *random.pick(&LUCKS),
            again: random.one_in(3),
            serve_on: random.one_in(4),
            random,
        }
    }

    pub fn check(&self, recording: &Recording, replay: &mut Replay<'_>) -> Result<(), String> {
        let mut random = self.random.clone();
        let mut image = replay.cut(self.at, &mut random, self.luck);
        let (acked, submitted) = recording.window(self.at);
        let allowed = &recording.states[acked..=submitted];
        if self.again {
            image = cut_recovery(image, &mut random)?;
        }
        let state = check_image(image.clone(), allowed)
            .map_err(|failure| format!("{failure} ({acked} acked, {submitted} submitted, {self:?})"))?;
        if self.serve_on {
            serve_on(image, state).map_err(|failure| format!("going on after the cut: {failure} ({self:?})"))?;
        }
        Ok(())
    }
}

/// Opens the store on the disk and cuts the power again before it is done.
fn cut_recovery(image: Vec<u8>, random: &mut Random) -> Result<Vec<u8>, String> {
    let disk = Disk::with_image(image);
    let base = disk.start_recording(false);
    let (store, _, mut committer) = run::open(disk.clone()).map_err(|error| format!("opening: {error}"))?;
    committer.step();
    if random.one_in(2) {
        committer.seal();
    }
    let log = disk.take_log();
    drop((store, committer));
    let at = random.below(log.len() as u64 + 1) as usize;
    let luck = *random.pick(&LUCKS);
    Ok(Replay::new(&base, &log).cut(at, random, luck))
}

/// Opens the store on the disk and finds one of the allowed states.
fn check_image(image: Vec<u8>, allowed: &[Model]) -> Result<Model, String> {
    let (store, recovered, _committer) =
        run::open(Disk::with_image(image)).map_err(|error| format!("opening: {error}"))?;
    let seen = Model::observe(&store, &recovered)?;
    seen.check_sound()?;
    if allowed.contains(&seen) {
        return Ok(seen);
    }
    Err(format!(
        "found\n  {}\nbut the least allowed is\n  {}\nand the most\n  {}",
        seen.summary(),
        allowed.first().map(Model::summary).unwrap_or_default(),
        allowed.last().map(Model::summary).unwrap_or_default(),
    ))
}

/// Publishes to every stream, finishes what removals are under way, closes, and finds exactly that.
fn serve_on(image: Vec<u8>, state: Model) -> Result<(), String> {
    let disk = Disk::with_image(image);
    let (store, _, mut committer) = run::open(disk.clone()).map_err(|error| format!("opening: {error}"))?;
    let ops: Vec<Op> = state
        .streams
        .iter()
        .map(|(&id, stream)| {
            let (seq, time) = (stream.last_seq + 1, Timestamp(i64::MAX));
            let message = Message::new(b"after", b"", b"the cut");
            Op::PutMessage { stream: StreamId(id), message: StoredMessage { seq, time, message } }
        })
        .collect();
    let expected = state.after(&ops);
    let batch: Batch = ops.into_iter().collect();
    run::commit(&store, &mut committer, batch).map_err(|error| error.to_string())?;
    while committer.step() == Step::Worked {}
    committer.close();
    check_image_of(disk, &expected)
}

fn check_image_of(disk: Disk, expected: &Model) -> Result<(), String> {
    let (store, recovered, _committer) = run::open(disk).map_err(|error| format!("opening again: {error}"))?;
    if recovered.repaired {
        return Err("a closed store was checked as if it had not been closed".to_owned());
    }
    let seen = Model::observe(&store, &recovered)?;
    if seen == *expected {
        return Ok(());
    }
    Err(format!("found\n  {}\nbut expected\n  {}", seen.summary(), expected.summary()))
}
