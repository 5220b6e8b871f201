//! A simulated disk: records every call, can lie about syncs, can fail one call, and can be cut off.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use natterjack::storage::{BoxedBackend, Medium};
use redb::StorageBackend;

use crate::random::Random;

pub const SECTOR: usize = 512;

/// What happened, in order; marks are the oracle's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
    Sync,
    Submitted,
    Acked,
}

#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What reads see: the system's page cache over the disk.
    visible: Vec<u8>,
    /// What would be there after a power cut that loses everything unsynced; kept only with `track_durable`.
    durable: Vec<u8>,
    pending: Vec<Event>,
    track_durable: bool,
    log: Vec<Event>,
    record: bool,
    sync_does_nothing: bool,
    calls: u64,
    fail_at: Option<u64>,
    fail_seed: u64,
}

impl Disk {
    pub fn with_image(image: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(State { durable: image.clone(), visible: image, ..State::default() })))
    }

    /// Begins to keep a log; returns the image it starts from.
    pub fn start_recording(&self, sync_does_nothing: bool) -> Vec<u8> {
        let mut state = self.lock();
        state.record = true;
        state.sync_does_nothing = sync_does_nothing;
        state.log.clear();
        state.visible.clone()
    }

    pub fn mark(&self, event: Event) {
        let mut state = self.lock();
        if state.record {
            state.log.push(event);
        }
    }

    pub fn take_log(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().log)
    }

    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Fails the `nth` call from now on, once.
    pub fn fail_nth(&self, nth: u64, seed: u64) {
        let mut state = self.lock();
        state.track_durable = true;
        state.durable = state.visible.clone();
        state.pending.clear();
        state.fail_at = Some(state.calls + nth);
        state.fail_seed = seed;
    }

    /// What a power cut leaves that loses everything unsynced.
    pub fn durable(&self) -> Vec<u8> {
        self.lock().durable.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Counts a call; true when it is the one to fail.
    fn fails(&mut self) -> bool {
        self.calls += 1;
        self.fail_at == Some(self.calls)
    }

    fn happened(&mut self, event: Event) {
        if self.track_durable {
            match &event {
                Event::Sync => {
                    for event in std::mem::take(&mut self.pending) {
                        apply(&mut self.durable, &event);
                    }
                }
                _ => self.pending.push(event.clone()),
            }
        }
        if self.record {
            self.log.push(event);
        }
    }
}

fn failure() -> io::Error {
    io::Error::other("injected failure")
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.lock();
        if state.fails() { Err(failure()) } else { Ok(state.visible.len() as u64) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.lock();
        if state.fails() {
            return Err(failure());
        }
        let found = state.visible.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        if state.fails() {
            return Err(failure());
        }
        let event = Event::SetLen(len as usize);
        apply(&mut state.visible, &event);
        state.happened(event);
        Ok(())
    }

    /// A failed sync leaves what it covered visible and forgotten: some of it is on the disk, and no later sync brings the
    /// rest there.
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.fails() {
            let mut random = Random::new(state.fail_seed);
            for event in std::mem::take(&mut state.pending) {
                if let Some(part) = torn(&event, &mut random, Luck::Half) {
                    part.iter().for_each(|event| apply(&mut state.durable, event));
                }
            }
            return Err(failure());
        }
        if !state.sync_does_nothing {
            state.happened(Event::Sync);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let event = Event::Write { offset: offset as usize, data: data.to_vec() };
        if state.fails() {
            let mut random = Random::new(state.fail_seed);
            for part in torn(&event, &mut random, Luck::Half).unwrap_or_default() {
                apply(&mut state.visible, &part);
                state.happened(part);
            }
            return Err(failure());
        }
        apply(&mut state.visible, &event);
        state.happened(event);
        Ok(())
    }
}

/// Applies an event to an image; what lies beyond its end is lost.
fn apply(image: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write { offset, data } => {
            let end = image.len().min(offset + data.len());
            if *offset < end {
                image[*offset..end].copy_from_slice(&data[..end - offset]);
            }
        }
        Event::SetLen(len) => image.resize(*len, 0),
        Event::Sync | Event::Submitted | Event::Acked => {}
    }
}

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub enum Luck {
    All,
    Nothing,
    Few,
    Half,
    Most,
    /// All but one event.
    ButOne,
    /// A prefix, as if the disk wrote in order.
    Prefix,
}

pub const LUCKS: [Luck; 7] = [Luck::All, Luck::Nothing, Luck::Few, Luck::Half, Luck::Most, Luck::ButOne, Luck::Prefix];

/// The parts of one unsynced event that reach the disk: none, all, or some sectors of it.
fn torn(event: &Event, random: &mut Random, luck: Luck) -> Option<Vec<Event>> {
    let keep = |random: &mut Random| match luck {
        Luck::Few => random.one_in(8),
        Luck::Half => random.one_in(2),
        Luck::Most => !random.one_in(8),
        _ => true,
    };
    let Event::Write { offset, data } = event else {
        return keep(random).then(|| vec![event.clone()]);
    };
    if !random.one_in(4) {
        return keep(random).then(|| vec![event.clone()]);
    }
    let mut parts = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let end = data.len().min(at + SECTOR - (offset + at) % SECTOR);
        if keep(random) {
            parts.push(Event::Write { offset: offset + at, data: data[at..end].to_vec() });
        }
        at = end;
    }
    Some(parts)
}

/// Walks a log forward and builds the disks that cuts leave behind.
pub struct Replay<'a> {
    log: &'a [Event],
    /// Everything up to the last sync before `at`.
    durable: Vec<u8>,
    synced: usize,
    at: usize,
}

impl<'a> Replay<'a> {
    pub fn new(base: &[u8], log: &'a [Event]) -> Replay<'a> {
        Replay { log, durable: base.to_vec(), synced: 0, at: 0 }
    }

    /// The disk after a cut behind the first `at` events; cuts must not go backwards.
    pub fn cut(&mut self, at: usize, random: &mut Random, luck: Luck) -> Vec<u8> {
        assert!(at >= self.at, "cuts are taken in order");
        self.at = at;
        if let Some(sync) = self.log[self.synced..at].iter().rposition(|event| *event == Event::Sync) {
            let upto = self.synced + sync + 1;
            for event in &self.log[self.synced..upto] {
                apply(&mut self.durable, event);
            }
            self.synced = upto;
        }
        let mut image = self.durable.clone();
        let unsynced = &self.log[self.synced..at];
        let odd = random.below(unsynced.len() as u64 + 1) as usize;
        for (index, event) in unsynced.iter().enumerate() {
            match luck {
                Luck::Nothing => {}
                Luck::All => apply(&mut image, event),
                Luck::ButOne if index == odd => {}
                Luck::ButOne => apply(&mut image, event),
                Luck::Prefix if index > odd => {}
                Luck::Prefix if index == odd => {
                    torn(event, random, Luck::Half).unwrap_or_default().iter().for_each(|part| apply(&mut image, part))
                }
                Luck::Prefix => apply(&mut image, event),
                Luck::Few | Luck::Half | Luck::Most => {
                    torn(event, random, luck).unwrap_or_default().iter().for_each(|part| apply(&mut image, part))
                }
            }
        }
        image
    }
}

/// A folder on simulated disks: at most one published file and one in the making.
#[derive(Clone, Debug, Default)]
pub struct Folder(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    published: Option<Disk>,
    unpublished: Option<Disk>,
}

impl Folder {
    pub fn with(disk: Disk) -> Folder {
        Folder(Arc::new(Mutex::new(Files { published: Some(disk), unpublished: None })))
    }

    pub fn disk(&self) -> Disk {
        self.0.lock().unwrap().published.clone().expect("the store has been created")
    }
}

impl Medium for Folder {
    fn open(&mut self) -> io::Result<Option<BoxedBackend>> {
        Ok(self.0.lock().unwrap().published.clone().map(BoxedBackend::new))
    }

    fn create(&mut self) -> io::Result<BoxedBackend> {
        let disk = Disk::default();
        disk.start_recording(false);
        self.0.lock().unwrap().unpublished = Some(disk.clone());
        Ok(BoxedBackend::new(disk))
    }

    fn publish(&mut self) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let disk = files.unpublished.take().ok_or(io::ErrorKind::NotFound)?;
        let log = disk.take_log();
        assert!(matches!(log.last(), Some(Event::Sync)), "a file is published only when all of it is on the disk");
        files.published = Some(disk);
        Ok(())
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        if let Some(disk) = &self.0.lock().unwrap().published {
            let mut state = disk.lock();
            if state.track_durable {
                let mut seen = state.durable.clone();
                state.pending.iter().for_each(|event| apply(&mut seen, event));
                state.visible = seen;
            }
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("simulated.redb")
    }
}
