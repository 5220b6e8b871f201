//! What a stream takes from others, seen from the stream: its sources with how they get on, and its task's part in taking
//! their messages.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::commit::Release;
use super::stream_task::StreamTask;
use crate::api::SourceInfo;
use crate::stream::config::StreamSource;
use crate::stream::{Positions, Provenance, StreamConfig};
use crate::types::{ApiError, StoredMessage, Timestamp};

/// The key of a mirror among a stream's sources, which have their index names.
pub(super) const MIRROR: &str = "";

/// How a stream gets on with one source.
#[derive(Default)]
pub(super) struct Progress {
    /// What is still to come.
    lag: AtomicU64,
    /// When the origin was last heard of; 0 for never.
    heard: AtomicI64,
    error: Mutex<Option<ApiError>>,
    /// On which subject the consumer made for it is deleted.
    consumer: Mutex<Option<String>>,
}

impl Progress {
    /// The origin has been heard of.
    pub(super) fn hear(&self, now: Timestamp) {
        self.heard.store(now.nanos(), Ordering::Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn fail(&self, error: ApiError) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// The origin has a consumer for it now, which is deleted on this subject.
    pub(super) fn made_consumer(&self, delete_subject: String) {
        *self.consumer.lock().unwrap_or_else(PoisonError::into_inner) = Some(delete_subject);
    }

    /// Where to delete the consumer made for it, once.
    pub(super) fn take_consumer(&self) -> Option<String> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn set_lag(&self, lag: u64) {
        self.lag.store(lag, Ordering::Relaxed);
    }

    fn info(&self, source: &StreamSource, seq: u64, now: Timestamp) -> SourceInfo {
        let heard = self.heard.load(Ordering::Relaxed);
        SourceInfo {
            name: source.name.clone(),
            external: source.external.clone(),
            lag: self.lag.load(Ordering::Relaxed),
            seq,
            active: if heard == 0 { -1 } else { (now.nanos() - heard).max(1) },
            error: self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            filter_subject: source.filter_subject.clone(),
            subject_transforms: source.subject_transforms.clone(),
        }
    }
}

struct Source {
    key: Arc<str>,
    config: StreamSource,
    progress: Arc<Progress>,
    task: Option<AbortHandle>,
}

impl Source {
    /// Ends its task. Returns where to delete the consumer made for it.
    fn end(&self) -> Option<String> {
        self.task.as_ref().inspect(|task| task.abort());
        self.progress.take_consumer()
    }
}

/// The sources of one stream, or the one it mirrors, each with a task that follows it.
#[derive(Default)]
pub(super) struct Sourcing {
    sources: Mutex<Vec<Source>>,
}

impl Sourcing {
    fn lock(&self) -> MutexGuard<'_, Vec<Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up sources that `config` does not name any more, and takes up new ones, which stand still until
    /// [`Sourcing::start`]. Returns where to delete the consumers that were made for the former.
    pub(super) fn prepare(&self, config: &StreamConfig) -> Vec<String> {
        let mirror = config.mirror.iter().map(|mirror| (MIRROR.to_owned(), mirror));
        let wanted = mirror.chain(config.sources.iter().map(|source| (source.index_name(), source)));
        let mut sources = self.lock();
        let mut former = std::mem::take(&mut *sources);
        for (key, config) in wanted {
            let kept = former.iter().position(|source| *source.key == *key);
            sources.push(match kept {
                Some(at) => former.swap_remove(at),
                None => Source { key: key.into(), config: config.clone(), progress: Arc::default(), task: None },
            });
        }
        former.iter().filter_map(Source::end).collect()
    }

    /// Starts the tasks of sources that have none.
    pub(super) fn start(&self, spawn: impl Fn(Arc<str>, StreamSource, Arc<Progress>) -> AbortHandle) {
        for source in self.lock().iter_mut().filter(|source| source.task.is_none()) {
            source.task = Some(spawn(source.key.clone(), source.config.clone(), source.progress.clone()));
        }
    }

    /// Ends all tasks for good. Returns where to delete the consumers that were made for them, should they not be needed
    /// again.
    pub(super) fn stop(&self) -> Vec<String> {
        self.lock().drain(..).filter_map(|source| source.end()).collect()
    }

    /// The mirror's and the sources' state, as stream info shows it.
    pub(super) fn infos(&self, positions: &Positions, now: Timestamp) -> (Option<SourceInfo>, Vec<SourceInfo>) {
        let sources = self.lock();
        let (mirror, others): (Vec<&Source>, Vec<&Source>) = sources.iter().partition(|source| &*source.key == MIRROR);
        let seq = |key: &str| positions.get(key).map_or(0, |position| position.seq);
        let info = |source: &&Source| source.progress.info(&source.config, seq(&source.key), now);
        (mirror.first().map(info), others.iter().map(info).collect())
    }
}

/// Where a stream stands with a source, and the epoch that batches must name from now on.
pub(super) struct Standing {
    pub(super) epoch: u64,
    /// The origin's last sequence taken, 0 for none.
    pub(super) seq: u64,
    pub(super) identity: Box<str>,
    /// The origin turned out to be another stream of that name.
    pub(super) recreated: bool,
    /// A stream never written to.
    pub(super) is_fresh: bool,
    /// When messages have left the stream: the time of its last one.
    pub(super) shortened: Option<Timestamp>,
    pub(super) last_time: Timestamp,
}

/// Messages of an origin for the stream that follows it.
pub(super) struct Taken {
    pub(super) source: Arc<str>,
    pub(super) epoch: u64,
    pub(super) identity: Arc<str>,
    /// A mirror has nothing to expect up to this sequence.
    pub(super) nothing_up_to: u64,
    /// Under the origin's sequences and times, with the headers and subjects they are stored with.
    pub(super) messages: Vec<StoredMessage>,
    pub(super) done: oneshot::Sender<Result<(), Refusal>>,
}

/// Why a batch was not taken whole.
#[derive(Debug)]
pub(super) enum Refusal {
    /// One before it was not.
    Stale,
    /// This message cannot be taken now.
    Error(ApiError),
}

impl StreamTask {
    /// Says where the stream stands with a source; batches sent before do not count any more.
    pub(super) fn standing(&mut self, source: Arc<str>, reply: oneshot::Sender<Standing>) {
        let stream = &self.contents.stream;
        let is_mirror = &*source == MIRROR;
        let position = stream.positions().get(&source).cloned().unwrap_or_default();
        let state = stream.state();
        self.next_epoch += 1;
        let standing = Standing {
            epoch: self.next_epoch,
            seq: if is_mirror { state.last_seq } else { position.seq },
            identity: position.identity,
            recreated: false,
            is_fresh: state.messages == 0 && state.last_seq == 0,
            shortened: (state.first_seq > 1 && !state.last_time.is_zero()).then_some(state.last_time),
            last_time: state.last_time,
        };
        self.epochs.insert(source, standing.epoch);
        let _ = reply.send(standing);
    }

    /// Takes messages of an origin; the answer waits until they are durable.
    pub(super) fn take_from_origin(&mut self, taken: Taken, now: Timestamp) {
        let Taken { source, epoch, identity, nothing_up_to, messages, done } = taken;
        if self.epochs.get(&source) != Some(&epoch) {
            let _ = done.send(Err(Refusal::Stale));
            return;
        }
        let is_mirror = &*source == MIRROR;
        if is_mirror {
            self.change(|stream, _, changes| stream.handle_mirror_start(nothing_up_to, changes));
        }
        let mut refused = None;
        for stored in messages {
            let before = self.turn.changes.removes.len();
            let StoredMessage { seq, time, message } = &stored;
            // Whoever follows tries again: room is made by others.
            if let Err(error) = self.room_for(message) {
                self.epochs.remove(&source);
                refused = Some(error);
                break;
            }
            let result = self.change(|stream, world, changes| match is_mirror {
                true => stream.handle_mirrored(*seq, *time, message, world, now, changes),
                false => {
                    let from = Provenance { source: &source, identity: &identity, seq: *seq };
                    stream.handle_sourced(from, message, world, now, changes).map(|_| ())
                }
            });
            self.tell_removed(before);
            if let Err(error) = result {
                self.epochs.remove(&source);
                refused = Some(error);
                break;
            }
        }
        self.turn.releases.push(Release::Done(Box::new(move |result| {
            let _ = done.send(result.and(refused.map_or(Ok(()), Err)).map_err(Refusal::Error));
        })));
    }
}
