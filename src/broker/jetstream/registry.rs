//! Which streams there are. One task creates, changes and removes them, one after the other, so that names and subjects
//! cannot collide; each answer leaves when the stream's row is durable.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;

use hashbrown::HashMap;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use super::call;
use super::context::Context;
use super::follower::Follower;
use super::inbox::Command;
use super::log::{Log, MemoryLog};
use super::recovery::{self, Rebuilt};
use super::restore::{self, Restored};
use super::shared::{Home, Shared};
use super::stream_task::{Ending, Report, StreamTask};
use crate::api::{self, Action, Advisory, Endpoint, Kind, StreamInfo, Success};
use crate::broker::{Courier, Inbound};
use crate::storage::{Batch, CommitError, Op, ReadError, RecoveredStream, Store};
use crate::stream::config::{Nanos, PersistMode, Storage};
use crate::stream::{self, Stream, StreamConfig};
use crate::types::{ApiError, FilterSet, StreamId, Timestamp, subject};

/// Pause before another try to read a stream back after its task panicked.
const REBUILD_RETRY: std::time::Duration = std::time::Duration::from_millis(250);

/// Something that adds, changes or removes streams.
pub(super) enum Change {
    Request(Inbound),
    /// A STREAM.RESTORE, and where what it leads to is sent.
    Restore(Inbound, mpsc::Sender<Change>),
    /// A restored stream, complete but for its name.
    Adopt(Box<Restored>),
    /// Every stream goes.
    Purge(oneshot::Sender<Result<(), ApiError>>),
}

/// All streams of the account.
pub(super) struct Registry {
    pub(super) context: Arc<Context>,
    pub(super) store: Store,
    streams: RwLock<HashMap<String, Arc<Shared>>>,
    pub(super) tasks: TaskTracker,
    /// Streams have come into being: those who take from others look again.
    pub(super) appeared: Notify,
}

impl Registry {
    pub(super) fn new(context: Arc<Context>, store: Store) -> Registry {
        Registry {
            store,
            streams: RwLock::new(HashMap::new()),
            tasks: TaskTracker::new(),
            appeared: Notify::new(),
            context,
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Shared>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn config_of(&self, name: &str) -> Option<Arc<StreamConfig>> {
        self.find(name).map(|shared| shared.config())
    }

    /// Streams one of whose subjects overlaps `filter` (all for an empty one), by name.
    pub(super) fn list(&self, filter: &str) -> Vec<Arc<Shared>> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<Arc<Shared>> = streams.values().cloned().collect();
        drop(streams);
        if !filter.is_empty() {
            list.retain(|shared| overlaps(&shared.config(), filter));
        }
        list.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        list
    }

    /// Asks streams what they look like, all at the same time. Streams that end meanwhile are left out.
    pub(super) async fn reports(&self, streams: &[Arc<Shared>], consumers: bool) -> Vec<Report> {
        let mut waiting = Vec::with_capacity(streams.len());
        for shared in streams {
            let (done, report) = oneshot::channel();
            shared.inbox.push(Command::Report { consumers, done });
            waiting.push(report);
        }
        let mut reports = Vec::with_capacity(waiting.len());
        for report in waiting {
            reports.extend(report.await);
        }
        reports
    }

    /// Brings a stream found in the store back to life.
    ///
    /// # Errors
    /// When its messages cannot be read.
    pub(super) fn recover(self: &Arc<Self>, recovered: &RecoveredStream) -> Result<(), ReadError> {
        if recovery::account_of(recovered) != self.context.account.name {
            return Ok(());
        }
        if recovery::is_restoring(recovered) {
            warn!(stream = %recovered.id, "the restore of a stream was cut short; what there is of it goes");
            self.store.submit(Batch::from_iter([Op::DropStream { stream: recovered.id }]), |_| {});
            return Ok(());
        }
        let config: StreamConfig = match serde_json::from_slice(&recovered.config_json) {
            Ok(config) => config,
            Err(error) => {
                error!(stream = %recovered.id, %error, "a stream's configuration cannot be read; it is left alone");
                return Ok(());
            }
        };
        let home = Home::Disk { store: self.store.clone(), id: recovered.id };
        let shared = Arc::new(Shared::new(self.context.clone(), Arc::new(config), recovered.created, home));
        let rebuilt = recovery::from_rows(&shared, &self.store, recovered)?;
        self.launch(shared.clone(), rebuilt);
        self.start_followers(&shared);
        Ok(())
    }

    /// Opens a stream to the world and starts its task.
    fn launch(self: &Arc<Self>, shared: Arc<Shared>, rebuilt: Rebuilt) {
        let task = StreamTask::new(shared.clone(), rebuilt, 1);
        self.streams.write().unwrap_or_else(PoisonError::into_inner).insert(shared.name.to_string(), shared.clone());
        shared.reserve(Some(shared.config().max_bytes));
        shared.sourcing.prepare(&shared.config());
        self.open_doors(&shared);
        self.appeared.notify_waiters();
        self.tasks.spawn(self.clone().keep_alive(shared, task));
    }

    /// Starts to follow the streams that one takes from.
    fn start_followers(self: &Arc<Self>, shared: &Arc<Shared>) {
        shared.sourcing.start(|key, source, progress| Follower::spawn(self, shared, key, source, progress));
    }

    /// Opens a stream's doors, and sees to it that a mirror answers direct gets of an origin that does not itself. Unlike
    /// nats-server, which lets both answer, so that a read may be older than an acknowledged write.
    fn open_doors(&self, changed: &Shared) {
        self.open_mirrors_doors(&changed.name);
        changed.doors.follow(&changed.config(), self.stands_in(&changed.config()).as_deref());
    }

    fn open_mirrors_doors(&self, origin: &str) {
        for shared in self.list("") {
            let config = shared.config();
            if config.mirror.as_ref().is_some_and(|mirror| mirror.name == origin) {
                shared.doors.follow(&config, self.stands_in(&config).as_deref());
            }
        }
    }

    /// The stream for which this mirror answers direct gets.
    fn stands_in(&self, config: &StreamConfig) -> Option<String> {
        let mirror = config.mirror.as_ref().filter(|mirror| config.mirror_direct && mirror.external.is_none())?;
        let answers = self.config_of(&mirror.name).is_some_and(|origin| origin.allow_direct);
        (!answers).then(|| mirror.name.clone())
    }

    /// Runs a stream's task; when it panics, reads the stream back and runs it again.
    async fn keep_alive(self: Arc<Self>, shared: Arc<Shared>, task: StreamTask) {
        let mut task = task;
        for incarnation in 2.. {
            match tokio::spawn(task.run()).await {
                Ok(Ending::Stopped) => return,
                Ok(Ending::Deleted) => {
                    self.forget(&shared);
                    return;
                }
                Err(panic) => error!(stream = %shared.name, %panic, "a stream's task failed; reading the stream back"),
            }
            let rebuilt = loop {
                self.wait_for_commits().await;
                shared.inbox.forget_weights();
                match recovery::rebuild(&shared) {
                    Ok(Some(rebuilt)) => break rebuilt,
                    Ok(None) => {
                        self.forget(&shared);
                        return;
                    }
                    Err(ReadError::Closed) => return,
                    Err(error) => {
                        warn!(stream = %shared.name, %error, "cannot read the stream back yet");
                        tokio::time::sleep(REBUILD_RETRY).await;
                    }
                }
            };
            task = StreamTask::new(shared.clone(), rebuilt, incarnation);
        }
    }

    /// Returns when everything submitted before has been committed, or has failed.
    async fn wait_for_commits(&self) {
        let _ = self.commit(Batch::new()).await;
    }

    pub(super) fn store_fault(&self) -> Option<Arc<str>> {
        self.store.failing()
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let (done, committed) = oneshot::channel();
        self.store.renewed().submit(batch, move |result| {
            let _ = done.send(result);
        });
        let result = committed.await.unwrap_or(Err(CommitError::Closed));
        if let Err(CommitError::Full { .. }) = result {
            self.context.tell_out_of_storage("");
        }
        result
    }

    fn forget(&self, shared: &Arc<Shared>) {
        shared.sourcing.stop();
        shared.doors.close();
        shared.reserve(None);
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if streams.get(&*shared.name).is_some_and(|current| Arc::ptr_eq(current, shared)) {
            streams.remove(&*shared.name);
        }
        drop(streams);
        self.open_mirrors_doors(&shared.name);
    }

    /// Works through requests that add, change or remove streams, until all senders are gone.
    pub(super) async fn serve(self: Arc<Self>, mut changes: mpsc::Receiver<Change>) {
        let mut courier = self.context.courier();
        while let Some(change) = changes.recv().await {
            let (request, changes) = match change {
                Change::Request(request) => (request, None),
                Change::Restore(request, changes) => (request, Some(changes)),
                Change::Purge(done) => {
                    let _ = done.send(self.purge(&mut courier).await);
                    courier.flush();
                    continue;
                }
                Change::Adopt(restored) => {
                    self.adopt(*restored, &mut courier).await;
                    courier.flush();
                    continue;
                }
            };
            let subject = request.message.subject().to_vec();
            let Some(endpoint) = Endpoint::parse(&subject) else { continue };
            let body = request.message.payload_bytes();
            let answering = async {
                match endpoint {
                    Endpoint::StreamCreate(name) => self.create(name, &body, &mut courier).await,
                    Endpoint::StreamUpdate(name) => self.update(name, &body, &mut courier).await,
                    Endpoint::StreamDelete(name) => self.delete(name, &body, &mut courier).await,
                    Endpoint::StreamRestore(name) => match (self.check_restore(name, &body), changes) {
                        (Ok(config), Some(changes)) => {
                            Ok(restore::begin(&self, changes, &request, config, &mut courier))
                        }
                        (Err(error), _) => Err(error),
                        (Ok(_), None) => Err(ApiError::BAD_REQUEST),
                    },
                    _ => Err(ApiError::BAD_REQUEST),
                }
            };
            let mut answering = Box::pin(answering);
            // A request that panics must not be the last one that is answered.
            let answered = poll_fn(move |context| {
                let polled = catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context)));
                polled.unwrap_or_else(|_| Poll::Ready(Err(ApiError::STREAM_GENERAL_ERROR_F.with("internal error"))))
            });
            let answered = answered.await;
            self.context.api.end();
            let failed = answered.is_err();
            let body = answered.unwrap_or_else(|error| api::error_response(call::kind(&endpoint), &error));
            self.context.respond(&mut courier, &request, &body, failed);
            courier.flush();
        }
    }

    /// The configuration of a stream to be made under `name`, checked and completed. Room for it is a question of its own.
    fn check_new(&self, name: &str, mut config: StreamConfig, pedantic: bool) -> Result<StreamConfig, ApiError> {
        if config.name != name {
            return Err(ApiError::STREAM_MISMATCH);
        }
        if name.contains(['\\', '/']) {
            return Err(ApiError::STREAM_NAME_CONTAINS_PATH_SEPARATORS);
        }
        let level = required_level(&config);
        api::metadata::set_static(&mut config.metadata, level);
        config.limit_duplicates(self.duplicates_max(), pedantic)?;
        config.check_create(pedantic)?.check_origins(&|name| self.config_of(name), pedantic)
    }

    /// The longest duplicate window that the server allows; 0 for any.
    fn duplicates_max(&self) -> Nanos {
        Nanos(self.context.options.budget.limits.max_duplicate_window)
    }

    async fn create(self: &Arc<Self>, name: &str, body: &[u8], courier: &mut Courier) -> Result<Vec<u8>, ApiError> {
        let (config, pedantic) = api::stream_config(body, self.context.options.strictness)?;
        let config = self.check_new(name, config, pedantic)?;
        if let Some(existing) = self.find(name) {
            if *existing.config() != config {
                return Err(ApiError::STREAM_NAME_EXIST);
            }
            let info = self.describe(&existing).await?;
            return Ok(api::response(
                Kind::StreamCreate,
                StreamInfo { did_create: true, domain: String::new(), ..info },
            ));
        }
        self.check_account_limits(&config)?;
        self.check_reservation(&config, config.max_bytes)?;
        self.check_overlap(&config)?;
        let created = Timestamp::now();
        let config = Arc::new(config);
        self.check_republish(&config)?;
        let (home, id) = match config.storage {
            Storage::File => {
                let id = self.store.new_stream_id();
                (Home::Disk { store: self.store.renewed(), id }, id)
            }
            Storage::Memory => (Home::Memory(Arc::new(MemoryLog::default())), StreamId(0)),
        };
        let log = match &home {
            Home::Disk { store, id } => {
                let batch = recovery::new_stream(*id, &self.context.account.name, &config, created);
                self.commit(batch).await.map_err(|error| ApiError::STREAM_CREATE.with(error))?;
                Log::Disk { store: store.clone(), id: *id }
            }
            Home::Memory(log) => Log::Memory(log.clone()),
        };
        let stream = Stream::new(id, config.clone(), created);
        let shared = Arc::new(Shared::new(self.context.clone(), config, created, home));
        self.launch(shared.clone(), Rebuilt { stream, consumers: Vec::new(), log, summarized: Default::default() });
        self.advise(courier, name, Action::Create);
        let info = self.describe(&shared).await?;
        self.start_followers(&shared);
        Ok(api::response(Kind::StreamCreate, StreamInfo { did_create: true, domain: String::new(), ..info }))
    }

    async fn update(self: &Arc<Self>, name: &str, body: &[u8], courier: &mut Courier) -> Result<Vec<u8>, ApiError> {
        let (config, pedantic) = api::stream_config(body, self.context.options.strictness)?;
        let mut config = config;
        config.limit_duplicates(self.duplicates_max(), pedantic)?;
        let mut config = config.check(pedantic)?;
        if config.name != name {
            return Err(ApiError::STREAM_MISMATCH);
        }
        let level = required_level(&config);
        api::metadata::set_static(&mut config.metadata, level);
        let shared = self.find(name).ok_or(ApiError::STREAM_NOT_FOUND)?;
        let old = shared.config();
        let config = config.check_update(&old, pedantic)?;
        let config = config.check_origins(&|name| self.config_of(name), pedantic)?;
        self.check_stream_limits(&config)?;
        // A stream that asks for no more than it has asks for nothing.
        self.check_reservation(&config, (config.max_bytes.max(0) - old.max_bytes.max(0)).max(0))?;
        self.check_overlap(&config)?;
        let config = Arc::new(config);
        self.check_republish(&config)?;
        if *config != *shared.config() {
            let (done, updated) = oneshot::channel();
            shared.inbox.push(Command::Update { config: config.clone(), done });
            updated.await.unwrap_or(Err(ApiError::STREAM_NOT_FOUND))?;
            shared.reserve(Some(config.max_bytes));
            for subject in shared.sourcing.prepare(&config) {
                courier.ask(subject.as_bytes(), b"", b"", b"");
            }
            self.start_followers(&shared);
            self.open_doors(&shared);
        }
        self.advise(courier, name, Action::Modify);
        Ok(api::response(Kind::StreamUpdate, self.describe(&shared).await?))
    }

    async fn delete(&self, name: &str, body: &[u8], courier: &mut Courier) -> Result<Vec<u8>, ApiError> {
        if !api::is_empty(body) {
            return Err(ApiError::NOT_EMPTY_REQUEST);
        }
        self.remove(name, courier).await?;
        Ok(api::response(Kind::StreamDelete, Success::DONE))
    }

    /// Deletes every stream, as nats-server's `jsLeaderAccountPurgeRequest` does.
    async fn purge(&self, courier: &mut Courier) -> Result<(), ApiError> {
        for shared in self.list("") {
            self.remove(&shared.name, courier).await?;
        }
        Ok(())
    }

    async fn remove(&self, name: &str, courier: &mut Courier) -> Result<(), ApiError> {
        let shared = self.find(name).ok_or(ApiError::STREAM_NOT_FOUND)?;
        // From here on nobody reaches it; what is in its inbox is still done.
        for subject in shared.sourcing.stop() {
            courier.ask(subject.as_bytes(), b"", b"", b"");
        }
        self.forget(&shared);
        let (done, deleted) = oneshot::channel();
        shared.inbox.push(Command::Delete { done });
        deleted.await.unwrap_or(Err(ApiError::STREAM_NOT_FOUND))?;
        self.advise(courier, name, Action::Delete);
        Ok(())
    }

    /// What a restore is to make, checked as nats-server's `jsStreamRestoreRequest` does.
    fn check_restore(&self, name: &str, body: &[u8]) -> Result<StreamConfig, ApiError> {
        if api::is_empty(body) {
            return Err(ApiError::BAD_REQUEST);
        }
        let mut config = api::decode::<api::Restore>(body, self.context.options.strictness)?.config;
        if config.name.is_empty() {
            name.clone_into(&mut config.name);
        }
        let config = self.check_new(name, config, false)?;
        self.check_room(&config)?;
        Ok(config)
    }

    /// Whether a restored stream may come into being.
    fn check_room(&self, config: &StreamConfig) -> Result<(), ApiError> {
        self.check_account_limits(config)?;
        self.check_reservation(config, config.max_bytes)?;
        if self.find(&config.name).is_some() {
            return Err(ApiError::STREAM_NAME_EXIST_RESTORE_FAILED);
        }
        self.check_overlap(config)?;
        self.check_republish(&Arc::new(config.clone()))
    }

    /// Takes in a restored stream: it is seen from here on.
    async fn adopt(self: &Arc<Self>, restored: Restored, courier: &mut Courier) {
        let Restored { shared, rebuilt, done } = restored;
        let config = shared.config();
        let adopted = async {
            self.check_room(&config)?;
            if let Home::Disk { id, .. } = &shared.home {
                let row = recovery::put_stream(*id, &self.context.account.name, &config, shared.created);
                let committed = self.commit(Batch::from_iter([row])).await;
                committed.map_err(|error| ApiError::STREAM_RESTORE.with(error))?;
            }
            self.launch(shared.clone(), rebuilt);
            self.advise(courier, &config.name, Action::Create);
            let info = self.describe(&shared).await.ok();
            self.start_followers(&shared);
            Ok(info)
        };
        let adopted = adopted.await;
        let _ = done.send(adopted);
    }

    fn advise(&self, courier: &mut Courier, stream: &str, action: Action) {
        self.context.advise(courier, &Advisory::Stream { stream, action }, Timestamp::now());
    }

    async fn describe(&self, shared: &Arc<Shared>) -> Result<StreamInfo, ApiError> {
        let report = self.reports(std::slice::from_ref(shared), false).await.pop();
        report.map(|report| report.info).ok_or(ApiError::STREAM_NOT_FOUND)
    }

    /// Whether account and server can hold `wanted` bytes more than streams have reserved; -1 asks for any room at all
    /// (nats-server `checkBytesLimits`).
    fn check_reservation(&self, config: &StreamConfig, wanted: i64) -> Result<(), ApiError> {
        let wanted = u64::try_from(wanted).unwrap_or(1);
        let budget = &self.context.options.budget;
        let by_all = budget.reserved.of(config.storage).load(std::sync::atomic::Ordering::Relaxed);
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        let reserved: u64 = streams
            .values()
            .filter(|shared| shared.storage() == config.storage)
            .map(|shared| u64::try_from(shared.config().max_bytes).unwrap_or(0))
            .fold(0, u64::saturating_add);
        let account_max = self.context.account_bytes_max(config.storage).unwrap_or(u64::MAX);
        let within = |reserved: u64, max: u64| reserved.saturating_add(wanted) <= max;
        if within(reserved, account_max) && within(by_all, budget.bytes_max(config.storage)) {
            return Ok(());
        }
        Err(match config.storage {
            Storage::Memory => ApiError::MEMORY_RESOURCES_EXCEEDED,
            Storage::File => ApiError::STORAGE_RESOURCES_EXCEEDED,
        })
    }

    /// What the account's limits say to one more stream (nats-server `checkAllLimits`).
    fn check_account_limits(&self, config: &StreamConfig) -> Result<(), ApiError> {
        let limits = self.context.account_limits();
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner).len();
        if usize::try_from(limits.max_streams).is_ok_and(|max| max > 0 && streams >= max) {
            return Err(ApiError::MAXIMUM_STREAMS_LIMIT);
        }
        self.check_stream_limits(config)
    }

    /// What the account's limits say to a stream, new or changed.
    fn check_stream_limits(&self, config: &StreamConfig) -> Result<(), ApiError> {
        let limits = self.context.account_limits();
        if limits.max_bytes_required && config.max_bytes <= 0 {
            return Err(ApiError::STREAM_MAX_BYTES_REQUIRED);
        }
        let most = match config.storage {
            Storage::Memory => limits.memory_max_stream_bytes,
            Storage::File => limits.storage_max_stream_bytes,
        };
        if most > 0 && config.max_bytes > most {
            return Err(ApiError::STREAM_MAX_STREAM_BYTES_EXCEEDED);
        }
        if limits.max_consumers > 0 && config.max_consumers > limits.max_consumers {
            return Err(ApiError::MAXIMUM_CONSUMERS_LIMIT);
        }
        Ok(())
    }

    fn check_overlap(&self, config: &StreamConfig) -> Result<(), ApiError> {
        let mut subjects = FilterSet::new(&config.subjects);
        for other in self.list("").iter().filter(|shared| *shared.name != *config.name) {
            for subject in &other.config().subjects {
                let overlapping = subjects.overlapping(subject.as_bytes(), 1);
                if overlapping.map_err(|error| ApiError::STREAM_INVALID_CONFIG_F.with(error))? > 0 {
                    return Err(ApiError::STREAM_SUBJECT_OVERLAP);
                }
            }
        }
        Ok(())
    }

    /// Whether what the stream stores would come back to it.
    fn check_republish(&self, config: &Arc<StreamConfig>) -> Result<(), ApiError> {
        let all: Vec<_> = self.list("").iter().map(|shared| shared.config()).collect();
        match stream::republish_returns(config, &all) {
            true => {
                Err(ApiError::STREAM_INVALID_CONFIG_F
                    .with("stream configuration for republish destination forms a cycle"))
            }
            false => Ok(()),
        }
    }

    /// Tells all tasks to end: nothing new comes in, what has begun is finished.
    pub(super) fn begin_stop(&self) {
        self.context.begin_stop();
        for shared in self.list("") {
            shared.sourcing.stop();
            shared.doors.close_at_the_end();
            shared.inbox.push(Command::Stop);
        }
        self.tasks.close();
    }

    /// Returns when all tasks have ended.
    pub(super) async fn stopped(&self) {
        self.tasks.wait().await;
    }

    /// What the account uses.
    pub(super) fn account_info(&self) -> api::AccountInfo {
        use std::sync::atomic::Ordering::Relaxed;
        let streams = self.list("");
        let limits = self.context.account_limits();
        let mut tier = api::Tier { streams: streams.len(), limits, ..api::Tier::default() };
        for shared in &streams {
            let bytes = shared.gauges.bytes.load(Relaxed);
            let reserved = u64::try_from(shared.config().max_bytes).unwrap_or(0);
            match shared.storage() {
                Storage::Memory => {
                    tier.memory += bytes;
                    tier.reserved_memory += reserved;
                }
                Storage::File => {
                    tier.storage += bytes;
                    tier.reserved_storage += reserved;
                }
            }
            tier.consumers += shared.gauges.consumers.load(Relaxed) as usize;
        }
        api::AccountInfo { tier, domain: self.context.options.domain.clone(), api: self.context.api.stats() }
    }
}

/// Whether any subject of the stream overlaps `filter`.
fn overlaps(config: &StreamConfig, filter: &str) -> bool {
    config.subjects.iter().any(|subject| subject::overlaps(subject.as_bytes(), filter.as_bytes()))
}

/// The JetStream API level a stream needs (nats-server `setStaticStreamMetadata`, ADR-44).
fn required_level(config: &StreamConfig) -> u32 {
    if config.allow_batched {
        4
    } else if config.allow_msg_counter
        || config.allow_atomic
        || config.allow_msg_schedules
        || config.persist_mode == PersistMode::Async
    {
        2
    } else if config.allow_msg_ttl || !config.subject_delete_marker_ttl.is_zero() {
        1
    } else {
        0
    }
}
