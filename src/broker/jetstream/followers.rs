//! Who follows a stream inside the process: mirrors and streams that source from it. The stream's task tells each what
//! there is to take, as sequences that are durable; the follower reads the messages itself.
//!
//! To consumers' eyes a follower is an interested party that never acks, as nats-server's internal consumers are: it keeps
//! messages in an interest stream, is counted, and is not listed.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::inbox::Command;
use super::log::Log;
use super::shared::Shared;
use super::stream_task::StreamTask;
use crate::stream::{Filter, Index, source_name};
use crate::types::Timestamp;

/// Sequences told at once.
const SEQS_MAX: usize = 4096;
/// What is still to come is counted anew after this many answers, and estimated between.
const ANSWERS_PER_COUNT: u32 = 64;

/// Where a follower begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    First,
    Seq(u64),
    Time(Timestamp),
}

/// Asks for what there is from `from` on, and waits while there is nothing.
pub(super) struct Follow {
    pub(super) id: u64,
    /// None for all.
    pub(super) filters: Arc<[String]>,
    pub(super) from: Begin,
    pub(super) reply: oneshot::Sender<Stretch>,
}

/// Messages that a follower can take.
pub(super) struct Stretch {
    /// Ascending and durable; empty only in the first answer.
    pub(super) seqs: Vec<u64>,
    /// Nothing before this is told of any more.
    pub(super) from: u64,
    /// How many more there are behind.
    pub(super) pending: u64,
    /// Tells the stream from a later one of its name.
    pub(super) identity: Arc<str>,
    pub(super) log: Log,
}

struct Slot {
    id: u64,
    filter: Filter,
    next: u64,
    pending: u64,
    answers: u32,
    waiting: Option<oneshot::Sender<Stretch>>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Followers {
    slots: Vec<Slot>,
}

impl Followers {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether any wants messages of this subject.
    pub(super) fn any_matches(&self, subject: &[u8]) -> bool {
        self.slots.iter().any(|slot| slot.filter.matches(subject))
    }
}

impl Slot {
    /// The next sequences up to `visible`, when there are any or the follower wants to know where it stands.
    fn answer(&mut self, index: &Index, visible: u64, at_once: bool, shared: &Shared, log: &Log) {
        let from = self.next;
        let mut seqs = Vec::new();
        while seqs.len() < SEQS_MAX {
            match index.next(self.next, &mut self.filter) {
                Some(seq) if seq <= visible => {
                    seqs.push(seq);
                    self.next = seq + 1;
                }
                _ => {
                    self.next = self.next.max(visible + 1);
                    break;
                }
            }
        }
        if seqs.is_empty() && !at_once {
            return;
        }
        self.pending = match self.answers.is_multiple_of(ANSWERS_PER_COUNT) || self.next > visible {
            true => index.count_from(self.next, &mut self.filter),
            false => self.pending.saturating_sub(seqs.len() as u64),
        };
        self.answers += 1;
        let Some(waiting) = self.waiting.take() else { return };
        let identity = source_name::identity(shared.created).into();
        let _ = waiting.send(Stretch { seqs, from, pending: self.pending, identity, log: log.clone() });
    }
}

impl StreamTask {
    /// A follower asks for more.
    pub(super) fn follow(&mut self, follow: Follow) {
        let index = self.contents.stream.index();
        let slots = &mut self.followers.slots;
        let known = slots.iter().position(|slot| slot.id == follow.id);
        let at = known.unwrap_or_else(|| {
            let filter = if follow.filters.is_empty() { Filter::all() } else { Filter::new(&*follow.filters) };
            slots.push(Slot { id: follow.id, filter, next: 0, pending: 0, answers: 0, waiting: None });
            slots.len() - 1
        });
        let slot = &mut slots[at];
        let wanted = match follow.from {
            Begin::First => 1,
            Begin::Seq(seq) => seq.max(1),
            Begin::Time(time) => index.seq_at_time(time),
        };
        slot.next = wanted.max(index.first_seq());
        slot.waiting = Some(follow.reply);
        slot.answer(index, self.visible, known.is_none(), &self.shared, &self.contents.log);
    }

    /// A follower has gone; what only it kept in an interest stream goes too.
    pub(super) fn unfollow(&mut self, id: u64) {
        self.followers.slots.retain(|slot| slot.id != id);
        self.interest_lost();
    }

    /// More is durable.
    pub(super) fn feed_followers(&mut self) {
        for slot in self.followers.slots.iter_mut().filter(|slot| slot.waiting.is_some()) {
            slot.answer(self.contents.stream.index(), self.visible, false, &self.shared, &self.contents.log);
        }
    }
}

/// A follower's place in the stream it follows; dropping it gives the place up.
pub(super) struct Attachment {
    pub(super) origin: Arc<Shared>,
    pub(super) id: u64,
    pub(super) filters: Arc<[String]>,
}

impl Attachment {
    /// Asks for what there is from `from` on. The answer fails when the origin's task ends.
    pub(super) fn ask(&self, from: Begin) -> oneshot::Receiver<Stretch> {
        let (reply, stretch) = oneshot::channel();
        let follow = Follow { id: self.id, filters: self.filters.clone(), from, reply };
        self.origin.inbox.push(Command::Follow(Box::new(follow)));
        stretch
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.origin.inbox.push(Command::Unfollow { id: self.id });
    }
}
