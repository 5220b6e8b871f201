//! The task that follows one origin for one stream: asks where its stream stands, asks the origin what there is, reads it,
//! makes it ready and hands it over, in bounded batches of which two are under way. It holds no state that counts: after
//! any failure it asks again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::warn;

use super::followers::{Attachment, Begin, Stretch};
use super::inbox::Command;
use super::registry::Registry;
use super::shared::Shared;
use super::sourcing::{MIRROR, Progress, Refusal, Standing, Taken};
use crate::storage::ReadError;
use crate::stream::config::{Retention, StreamSource, SubjectTransform};
use crate::stream::{headers, source_name};
use crate::types::transform::{self, Dice};
use crate::types::{ApiError, Message, StoredMessage, Timestamp, Transform, header};

/// Messages and bytes handed over at once.
const BATCH_MESSAGES_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Batches handed over and not durable yet.
const UNDER_WAY_MAX: usize = 2;
/// Pauses before another try: the first one and the longest.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often an origin that has nothing new counts as heard of.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// An origin that does not answer for so long has ended.
const ANSWER_MAX: Duration = Duration::from_secs(5);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// See the module.
pub(super) struct Follower {
    pub(super) registry: Arc<Registry>,
    pub(super) shared: Arc<Shared>,
    key: Arc<str>,
    pub(super) source: StreamSource,
    pub(super) progress: Arc<Progress>,
    transforms: Vec<Transform>,
    dice: Dice,
}

/// Why following an origin ended.
pub(super) enum End {
    /// The origin or the stream itself has to be asked again.
    Lost,
    /// The consumer to follow through cannot be had now.
    Absent,
    /// The stream cannot take more now, or the origin cannot be read.
    Full(ApiError),
}

pub(super) type UnderWay = VecDeque<oneshot::Receiver<Result<(), Refusal>>>;

impl Follower {
    /// Starts to follow `source` for the stream `shared`, until aborted.
    pub(super) fn spawn(
        registry: &Arc<Registry>,
        shared: &Arc<Shared>,
        key: Arc<str>,
        source: StreamSource,
        progress: Arc<Progress>,
    ) -> AbortHandle {
        let transform = |pair: &SubjectTransform| Transform::new(&pair.source, &pair.destination).ok().flatten();
        let follower = Follower {
            transforms: source.subject_transforms.iter().filter_map(transform).collect(),
            registry: registry.clone(),
            shared: shared.clone(),
            key,
            source,
            progress,
            dice: Dice::new(Timestamp::now().nanos() as u64),
        };
        registry.tasks.spawn(follower.run()).abort_handle()
    }

    async fn run(mut self) {
        let mut pause = RETRY_MIN;
        loop {
            let origin = self.origin().await;
            let before = Timestamp::now();
            let end = match origin {
                Some(origin) => self.follow(origin).await,
                None => self.follow_through_consumer().await,
            };
            match end {
                End::Lost => {}
                End::Absent => pause = (pause * 2).min(RETRY_MAX),
                End::Full(error) => {
                    // A stream that discards new messages is full again and again: nothing to report.
                    if pause == RETRY_MIN && error.err_code != ApiError::STREAM_STORE_FAILED_F.err_code {
                        warn!(stream = %self.shared.name, origin = %self.source.name, %error, "cannot take a message");
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
            // What went well for a while begins anew with short pauses.
            if Timestamp::now().since(before) > 2 * RETRY_MAX {
                pause = RETRY_MIN;
            }
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) fn is_mirror(&self) -> bool {
        &*self.key == MIRROR
    }

    /// The prefix of an API that is not this account's own.
    pub(super) fn foreign_prefix(&self) -> Option<&str> {
        let own = format!("$JS.{}.API", self.registry.context.options.domain);
        let external = self.source.external.as_ref()?;
        Some(&*external.api_prefix).filter(|prefix| !prefix.is_empty() && *prefix != own)
    }

    /// Waits until the origin exists; `None` for one to be followed through a consumer.
    async fn origin(&self) -> Option<Arc<Shared>> {
        if self.source.consumer.is_some() || self.foreign_prefix().is_some() {
            return None;
        }
        loop {
            let appeared = self.registry.appeared.notified();
            tokio::pin!(appeared);
            appeared.as_mut().enable();
            if let Some(origin) = self.registry.find(&self.source.name) {
                // Where acks decide what is kept, only a consumer can tell what has been taken.
                return (origin.config().retention == Retention::Limits).then_some(origin);
            }
            self.progress.fail(ApiError::STREAM_NOT_FOUND);
            appeared.await;
        }
    }

    /// Where the stream stands with the origin; `None` when it has ended.
    pub(super) async fn standing(&self) -> Option<Standing> {
        let (reply, standing) = oneshot::channel();
        self.shared.inbox.push(Command::Standing { source: self.key.clone(), reply });
        standing.await.ok()
    }

    async fn follow(&mut self, origin: Arc<Shared>) -> End {
        let Some(standing) = self.standing().await else { return End::Lost };
        let filters: Arc<[String]> = self.source.filters().into_iter().map(str::to_owned).collect();
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let identity = source_name::identity(origin.created);
        let from = self.start(&standing, Some(&identity));
        let attachment = Attachment { origin, id, filters };
        let Ok(Ok(first)) = tokio::time::timeout(ANSWER_MAX, attachment.ask(from)).await else { return End::Lost };
        self.progress.set_lag(first.pending + first.seqs.len() as u64);
        let mut under_way = UnderWay::new();
        if self.is_mirror() && first.from > standing.seq + 1 {
            self.hand_over(&standing, &first.identity, first.from - 1, Vec::new(), &mut under_way);
        }
        let mut stretch = first;
        loop {
            self.progress.hear(Timestamp::now());
            let next = stretch.seqs.last().map_or(stretch.from, |last| last + 1);
            let mut rest = &stretch.seqs[..];
            while !rest.is_empty() {
                if self.has_enough_under_way(&under_way)
                    && let Some(end) = settled(&mut under_way).await
                {
                    return end;
                }
                let messages = match self.read(&stretch, &mut rest) {
                    Ok(messages) => messages,
                    Err(error) => return End::Full(ApiError::STREAM_GENERAL_ERROR_F.with(error)),
                };
                self.progress.set_lag(stretch.pending + rest.len() as u64);
                if !messages.is_empty() {
                    self.hand_over(&standing, &stretch.identity, 0, messages, &mut under_way);
                }
            }
            let mut more = attachment.ask(Begin::Seq(next));
            stretch = loop {
                tokio::select! {
                    end = settled(&mut under_way), if !under_way.is_empty() => if let Some(end) = end { return end },
                    more = &mut more => match more {
                        Ok(stretch) => break stretch,
                        Err(_) => return End::Lost,
                    },
                    () = tokio::time::sleep(HEARTBEAT) => {
                        // An origin that ended between two questions answers none.
                        let current = self.registry.find(&self.source.name);
                        if !current.is_some_and(|current| Arc::ptr_eq(&current, &attachment.origin)) {
                            return End::Lost;
                        }
                        self.progress.hear(Timestamp::now());
                    }
                }
            };
        }
    }

    /// Where to begin in an origin of this identity, `None` for one made anew, as nats-server's `setupMirrorConsumer` and
    /// `trySetupSourceConsumer` do.
    pub(super) fn start(&self, standing: &Standing, identity: Option<&str>) -> Begin {
        let configured = match (self.source.opt_start_seq, self.source.opt_start_time) {
            (0, None) => None,
            (0, Some(time)) => Some(Begin::Time(time)),
            (seq, _) => Some(Begin::Seq(seq)),
        };
        if self.is_mirror() {
            return match standing.is_fresh {
                true => configured.unwrap_or(Begin::First),
                false => Begin::Seq(standing.seq + 1),
            };
        }
        let recreated = !standing.identity.is_empty() && identity != Some(&*standing.identity);
        if standing.seq > 0 && !recreated {
            return Begin::Seq(standing.seq + 1);
        }
        match configured {
            Some(Begin::Time(time)) => Begin::Time(time.max(standing.last_time)),
            Some(start) => start,
            // A stream that has let messages go does not fetch them again.
            None if !recreated => standing.shortened.map_or(Begin::First, Begin::Time),
            None => Begin::First,
        }
    }

    /// Reads the next batch of a stretch and makes it ready. Messages that have gone meanwhile are left out.
    fn read(&mut self, stretch: &Stretch, rest: &mut &[u64]) -> Result<Vec<StoredMessage>, ReadError> {
        let (first, most) = (rest[0], rest.len().min(BATCH_MESSAGES_MAX));
        let last = rest[most - 1];
        // Rows side by side are read in one go, others one by one.
        let dense = last - first < 4 * most as u64;
        let mut bytes = 0;
        let mut messages = Vec::with_capacity(most);
        if dense {
            let span = (last - first + 1) as usize;
            let rows = stretch.log.read_range(first, span, BATCH_BYTES_MAX)?;
            let end = match rows.last() {
                Some(row) if rows.len() < span && bytes_of(&rows) >= BATCH_BYTES_MAX => row.seq,
                _ => last,
            };
            let mut rows = rows.into_iter().peekable();
            while let Some(&seq) = rest.first().filter(|seq| **seq <= end && messages.len() < most) {
                *rest = &rest[1..];
                while rows.next_if(|row| row.seq < seq).is_some() {}
                messages.extend(rows.next_if(|row| row.seq == seq));
            }
        } else {
            while let Some(&seq) = rest.first().filter(|_| messages.len() < most && bytes < BATCH_BYTES_MAX) {
                *rest = &rest[1..];
                if let Some(stored) = stretch.log.read(seq)? {
                    bytes += stored.message.as_bytes().len();
                    messages.push(stored);
                }
            }
        }
        Ok(messages.into_iter().map(|stored| self.made_ready(stored, &stretch.identity)).collect())
    }

    /// An origin's message with the headers and the subject it is stored with here.
    pub(super) fn made_ready(&mut self, stored: StoredMessage, identity: &str) -> StoredMessage {
        match self.ready(&stored, identity) {
            Some(message) => StoredMessage { message, ..stored },
            None => stored,
        }
    }

    pub(super) fn has_enough_under_way(&self, under_way: &UnderWay) -> bool {
        under_way.len() >= UNDER_WAY_MAX
    }

    /// The message as it is stored here; `None` when that is as it is.
    fn ready(&mut self, stored: &StoredMessage, identity: &str) -> Option<Message> {
        let message = &stored.message;
        let is_mirror = self.is_mirror();
        let subject = transform::apply_first(&self.transforms, message.subject(), &mut self.dice);
        let unwanted = |name: &[u8]| {
            name.starts_with(b"Nats-Expected-")
                || name.starts_with(b"Nats-Batch-")
                || (!is_mirror && name == headers::STREAM_SOURCE.as_bytes())
        };
        let mut block = header::without(message.headers(), unwanted);
        if !is_mirror {
            let from = source_name::header_value(&self.key, stored.seq, &message.subject_text(), identity);
            let own = block.as_deref().unwrap_or(message.headers());
            block = Some(header::extended(own, |out| header::push_line(out, headers::STREAM_SOURCE, &from)));
        }
        if subject.is_none() && block.is_none() {
            return None;
        }
        let subject = subject.as_deref().unwrap_or(message.subject());
        Some(Message::new(subject, block.as_deref().unwrap_or(message.headers()), message.payload()))
    }

    /// Gives the stream messages of the origin, or tells a mirror that it has nothing to expect up to a sequence.
    pub(super) fn hand_over(
        &self,
        standing: &Standing,
        identity: &Arc<str>,
        nothing_up_to: u64,
        messages: Vec<StoredMessage>,
        under_way: &mut UnderWay,
    ) {
        let (done, result) = oneshot::channel();
        let taken = Taken {
            source: self.key.clone(),
            epoch: standing.epoch,
            identity: identity.clone(),
            nothing_up_to,
            messages,
            done,
        };
        self.shared.inbox.push(Command::Taken(Box::new(taken)));
        under_way.push_back(result);
    }
}

fn bytes_of(rows: &[StoredMessage]) -> usize {
    rows.iter().map(|row| row.message.as_bytes().len()).sum()
}

/// Waits for the oldest batch under way to be durable; says why to stop when it is not. Cancel safe.
pub(super) async fn settled(under_way: &mut UnderWay) -> Option<End> {
    let oldest = under_way.front_mut()?;
    let result = oldest.await;
    under_way.pop_front();
    match result {
        Ok(Ok(())) => None,
        Ok(Err(Refusal::Error(error))) => Some(End::Full(error)),
        Ok(Err(Refusal::Stale)) | Err(_) => Some(End::Lost),
    }
}
