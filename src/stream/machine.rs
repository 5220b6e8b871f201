//! One stream: its configuration, its index, and the events that change them.
//!
//! The events themselves are told in [`publish`](super::publish), [`batch`](super::batch), [`purge`](super::purge) and
//! [`limits`](super::limits).

use std::sync::Arc;
use std::time::Duration;

use super::batch::Batches;
use super::config::{Retention, Storage};
use super::dedup::Dedup;
use super::fast_batch::FastBatches;
use super::headers::PublishHeaders;
use super::index::{BadSummary, SPAN, put, take};
use super::lifetimes::Lifetimes;
use super::publish::parse_ttl;
use super::republish::SubjectChanges;
use super::schedules::Schedules;
use super::sourced::Positions;
use super::world::World;
use super::{Changes, Index, Removal, RemovalReason, StreamConfig, StreamState};
use crate::types::{Message, StoredMessage, StreamId, Timestamp};

/// Messages expire in bursts at least this far apart, so that each burst is one transaction.
const EXPIRY_SPACING: Duration = Duration::from_millis(50);
/// Messages expired per call: bounds one transaction.
const EXPIRY_SLICE: usize = 16 * 1024;

/// The pure log machine. Every `handle_*` pushes what must be written into `changes`.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    pub(super) config: Arc<StreamConfig>,
    created: Timestamp,
    pub(super) index: Index,
    pub(super) dedup: Dedup,
    /// The last stored message's `Nats-Msg-Id`, empty when it had none.
    pub(super) last_msg_id: Vec<u8>,
    pub(super) batches: Batches,
    pub(super) fast: FastBatches,
    /// Messages that said how long they live.
    pub(super) lifetimes: Lifetimes,
    pub(super) subjects: SubjectChanges,
    pub(super) schedules: Schedules,
    pub(super) positions: Positions,
    /// Every living message below this lives for ever, so `max_age` looks from here on.
    ageing_from: u64,
    /// No message expires before this.
    expiry_not_before: Timestamp,
    /// A purge tells where an empty log would begin, as on nats-server.
    pub(super) has_been_purged: bool,
}

impl Stream {
    /// An empty stream; `config` has passed its check.
    pub fn new(id: StreamId, config: Arc<StreamConfig>, created: Timestamp) -> Stream {
        let mut index = Index::new();
        if config.first_seq > 1 {
            index.skip_to(config.first_seq - 1, Timestamp::ZERO);
        }
        Stream {
            id,
            created,
            index,
            dedup: Dedup::new(config.duplicate_window.duration()),
            last_msg_id: Vec::new(),
            batches: Batches::default(),
            fast: FastBatches::default(),
            lifetimes: Lifetimes::default(),
            subjects: SubjectChanges::new(&config, created),
            schedules: Schedules::default(),
            positions: Positions::default(),
            ageing_from: 0,
            expiry_not_before: Timestamp::ZERO,
            has_been_purged: false,
            config,
        }
    }

    pub fn id(&self) -> StreamId {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub fn config(&self) -> &Arc<StreamConfig> {
        &self.config
    }

    pub fn created(&self) -> Timestamp {
        self.created
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What the stream's `state.bytes` and `max_bytes` count for a message: nats-server's sizes, which differ between its
    /// file and memory stores.
    pub fn accounted_bytes(&self, message: &Message) -> u64 {
        let (subject, headers, payload) = (message.subject().len(), message.headers().len(), message.payload().len());
        match self.config.storage {
            Storage::File => StoredMessage::accounted_bytes(subject, headers, payload),
            Storage::Memory => (subject + headers + payload) as u64 + 16,
        }
    }

    /// Recovery: one stored row, in ascending order of sequence.
    pub fn restore(&mut self, seq: u64, time: Timestamp, subject: &[u8], headers: &[u8], accounted_bytes: u64) {
        self.index.append(seq, subject, accounted_bytes, time);
        self.last_msg_id.clear();
        if headers.is_empty() {
            self.restore_schedule(seq, time, subject, &PublishHeaders::default());
            return;
        }
        let headers = PublishHeaders::parse(headers);
        if let Some(id) = headers.msg_id {
            self.last_msg_id.extend_from_slice(id);
            self.dedup.insert(id, seq, time);
        }
        self.restore_source(&headers);
        self.recall(seq, time, &headers);
        self.restore_schedule(seq, time, subject, &headers);
    }

    /// Recovery: what a message's headers mean beyond its place in the log, its id and its source, which has a row of its
    /// own. Whatever is added here belongs into
    /// [`PublishHeaders::is_notable`] too, so that it is recalled when the message itself comes from a summary.
    fn recall(&mut self, seq: u64, time: Timestamp, headers: &PublishHeaders<'_>) {
        if headers.is_notable() {
            self.index.note(seq);
        }
        self.limit_life(seq, time, headers);
    }

    /// What [`Stream::restore_summary`] needs to know of a segment of sequences, [`SPAN`](super::index::SPAN) from
    /// `segment` times that on, in which no message will be stored any more. `None` when it does not pay, or nothing lives
    /// there.
    pub fn summarize(&self, segment: u64, now: Timestamp) -> Option<Vec<u8>> {
        // Any later message may end a schedule, so all of them have to be seen.
        if self.config.allow_msg_schedules {
            return None;
        }
        let messages = self.index.summarize(segment)?;
        let mut bytes = Vec::with_capacity(messages.len() + 16);
        put(&mut bytes, messages.len() as u64);
        bytes.extend_from_slice(&messages);
        let from = segment.saturating_mul(SPAN);
        self.dedup.write(from, from.saturating_add(SPAN), now, &mut bytes);
        Some(bytes)
    }

    /// Recovery: all messages of a segment at once, in ascending order of segments and rows. Returns those whose headers
    /// must be read from their rows and given to [`Stream::restore_headers`].
    ///
    /// # Errors
    /// When the bytes are not such a summary, or the stream needs more than one says; then nothing has changed.
    pub fn restore_summary(&mut self, segment: u64, mut bytes: &[u8]) -> Result<Vec<u64>, BadSummary> {
        if self.config.allow_msg_schedules {
            return Err(BadSummary);
        }
        let len = usize::try_from(take(&mut bytes)?).map_err(|_| BadSummary)?;
        let (messages, ids) = bytes.split_at_checked(len).ok_or(BadSummary)?;
        let ids = Dedup::read(ids)?;
        let notable = self.index.restore_segment(segment, messages)?;
        self.last_msg_id.clear();
        for (id, seq, time) in ids {
            self.dedup.insert(id, seq, time);
        }
        Ok(notable)
    }

    /// Recovery: the headers of a message that a summary has restored.
    pub fn restore_headers(&mut self, seq: u64, time: Timestamp, headers: &[u8]) {
        self.recall(seq, time, &PublishHeaders::parse(headers));
    }

    /// Notes how long a stored message wants to live. Whether clients may say so was checked when it came.
    fn limit_life(&mut self, seq: u64, stored: Timestamp, headers: &PublishHeaders<'_>) {
        if self.config.allow_msg_ttl
            && let Ok(Some(ttl)) = parse_ttl(headers)
        {
            self.lifetimes.insert(seq, stored, ttl);
        }
    }

    /// Recovery: what the rows alone cannot tell, after all of them. The first sequence follows from the two others
    /// unless a message lives.
    pub fn restore_floor(&mut self, last_seq: u64, last_time: Timestamp) {
        if last_seq > self.index.last_seq() {
            self.last_msg_id.clear();
        }
        self.index.skip_to(last_seq, last_time);
    }

    /// A new configuration that has passed its update check; stricter limits apply at once.
    pub fn handle_update(&mut self, config: Arc<StreamConfig>, world: &World, now: Timestamp, changes: &mut Changes) {
        self.subjects = SubjectChanges::new(&config, now);
        self.config = config;
        self.forget_former_sources(false);
        self.dedup.set_window(self.config.duplicate_window.duration(), now);
        if !self.config.allow_atomic {
            self.batches.clear();
        }
        if !self.config.allow_batched {
            self.fast = FastBatches::default();
        }
        self.enforce_all_limits(changes);
        self.expiry_not_before = Timestamp::ZERO;
        self.handle_expiry(now, world, changes);
    }

    /// A consumer is done with a message. In interest and work-queue streams the message leaves unless `still_needed`
    /// says that another consumer has not acked it yet. Returns whether it left.
    pub fn handle_consumed(
        &mut self,
        seq: u64,
        still_needed: &dyn Fn(u64, &[u8]) -> bool,
        changes: &mut Changes,
    ) -> bool {
        if self.config.retention == Retention::Limits {
            return false;
        }
        match self.index.subject_of(seq) {
            Some(subject) if !still_needed(seq, subject) => self.remove(seq, RemovalReason::Consumed, changes),
            _ => false,
        }
    }

    /// The consumers became fewer or want less. In interest streams every message that nobody needs any more leaves.
    pub fn handle_interest_lost(&mut self, still_needed: &dyn Fn(u64, &[u8]) -> bool, changes: &mut Changes) {
        if self.config.retention != Retention::Interest {
            return;
        }
        let needless: Vec<u64> = self
            .index
            .seqs(0)
            .filter(|&seq| self.index.subject_of(seq).is_some_and(|subject| !still_needed(seq, subject)))
            .collect();
        for seq in needless {
            self.remove(seq, RemovalReason::Consumed, changes);
        }
    }

    /// Time passed: whatever is due at `now` happens, messages in bounded slices. Ask [`Stream::next_deadline`] again
    /// after it.
    pub fn handle_expiry(&mut self, now: Timestamp, world: &World, changes: &mut Changes) {
        self.fire_schedules(world, now, changes);
        self.dedup.expire(now);
        self.batches.expire(now, changes);
        self.fast.expire(now);
        if now < self.expiry_not_before {
            return;
        }
        for _ in 0..EXPIRY_SLICE {
            let due = match self.lifetimes.take_due(now) {
                Some(seq) => seq,
                None => match self.first_ageing() {
                    Some((seq, at)) if at <= now => seq,
                    ageing => {
                        self.ageing_from = ageing.map_or(self.ageing_from, |(seq, _)| seq);
                        self.expiry_not_before = now + EXPIRY_SPACING;
                        return;
                    }
                },
            };
            self.expire(due, world, now, changes);
        }
    }

    /// When [`Stream::handle_expiry`] wants to be called next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let age = self.first_ageing().map(|(_, at)| at);
        let age = [age, self.lifetimes.next()].into_iter().flatten().min().map(|at| at.max(self.expiry_not_before));
        [
            age,
            self.schedules.next(),
            self.dedup.next_deadline(),
            self.batches.next_deadline(),
            self.fast.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Without `subjects`, `deleted` and the consumers, which only those who asked for them pay for.
    pub fn state(&self) -> StreamState {
        let index = &self.index;
        StreamState {
            messages: index.len(),
            bytes: index.bytes(),
            first_seq: if index.last_seq() == 0 && self.config.first_seq == 0 && !self.has_been_purged {
                0
            } else {
                index.first_seq()
            },
            first_time: index.time_of(index.first_seq()).unwrap_or_default(),
            last_seq: index.last_seq(),
            last_time: index.last_time(),
            num_subjects: index.num_subjects(),
            num_deleted: index.num_deleted(),
            ..StreamState::default()
        }
    }

    /// The first message that `max_age` will end, and when.
    fn first_ageing(&self) -> Option<(u64, Timestamp)> {
        if self.config.max_age.is_zero() {
            return None;
        }
        let seq = self.index.seqs(self.ageing_from).find(|seq| !self.lifetimes.is_exempt(*seq))?;
        Some((seq, self.index.time_of(seq)? + self.config.max_age.duration()))
    }

    /// Removes a message if it lives, and says whether it did.
    pub(super) fn remove(&mut self, seq: u64, reason: RemovalReason, changes: &mut Changes) -> bool {
        let Some(row) = self.index.remove(seq) else { return false };
        self.lifetimes.forget(seq);
        self.schedules.remove(seq);
        changes.removes.push(Removal::One { seq, subject: row.subject, reason });
        // Without its last row a stream's rows no longer tell the last sequence.
        changes.state_dirty |= seq == self.index.last_seq();
        true
    }
}
