//! What lives as long as a stream does, whatever happens to its task: the inbox, the doors, the counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::budget::OpenBatches;
use super::context::{Context, SharedCourier};
use super::doors::Doors;
use super::inbox::Inbox;
use super::log::MemoryLog;
use super::sourcing::Sourcing;
use crate::api::PubAckWriter;
use crate::storage::Store;
use crate::stream::StreamConfig;
use crate::stream::config::Storage;
use crate::types::{StreamId, Timestamp};

/// Where a stream keeps what it has.
pub(super) enum Home {
    Disk { store: Store, id: StreamId },
    Memory(Arc<MemoryLog>),
}

/// A stream as everyone but its task knows it.
pub(super) struct Shared {
    pub(super) context: Arc<Context>,
    pub(super) name: Arc<str>,
    pub(super) created: Timestamp,
    pub(super) home: Home,
    pub(super) inbox: Arc<Inbox>,
    pub(super) doors: Doors,
    pub(super) acker: SharedCourier,
    pub(super) pub_acks: PubAckWriter,
    pub(super) gauges: Gauges,
    pub(super) sourcing: Sourcing,
    config: RwLock<Arc<StreamConfig>>,
}

/// Numbers that monitoring and account info read without asking the task.
#[derive(Default)]
pub(super) struct Gauges {
    pub(super) messages: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) consumers: AtomicU64,
    /// What counts as reserved for the stream.
    reserved: AtomicU64,
    batches: Mutex<OpenBatches>,
}

impl Shared {
    pub(super) fn new(context: Arc<Context>, config: Arc<StreamConfig>, created: Timestamp, home: Home) -> Shared {
        let inbox = Arc::new(Inbox::new(context.broker.memory.clone()));
        Shared {
            name: config.name.as_str().into(),
            created,
            home,
            doors: Doors::new(context.account.clone(), inbox.clone()),
            inbox,
            acker: SharedCourier::new(context.courier()),
            pub_acks: PubAckWriter::new(&config.name, &context.options.domain),
            gauges: Gauges::default(),
            sourcing: Sourcing::default(),
            config: RwLock::new(config),
            context,
        }
    }

    /// The configuration that is in force.
    pub(super) fn config(&self) -> Arc<StreamConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_config(&self, config: Arc<StreamConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    pub(super) fn storage(&self) -> Storage {
        match self.home {
            Home::Memory(_) => Storage::Memory,
            Home::Disk { .. } => Storage::File,
        }
    }

    /// Tells what the stream holds now.
    pub(super) fn gauge(&self, messages: u64, bytes: u64, consumers: usize) {
        let gauges = &self.gauges;
        gauges.messages.store(messages, Ordering::Relaxed);
        gauges.consumers.store(consumers as u64, Ordering::Relaxed);
        let before = gauges.bytes.swap(bytes, Ordering::Relaxed);
        // Wraps around zero and back when the stream has shrunk.
        for usage in [&self.context.usage, &self.context.options.budget.used] {
            usage.of(self.storage()).fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Counts as much as reserved for the stream as its `max_bytes` says, or nothing.
    pub(super) fn reserve(&self, max_bytes: Option<i64>) {
        let bytes = max_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        let before = self.gauges.reserved.swap(bytes, Ordering::Relaxed);
        let reserved = self.context.options.budget.reserved.of(self.storage());
        reserved.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Tells how many batches are open in the stream.
    pub(super) fn gauge_batches(&self, open: OpenBatches) {
        let mut batches = self.gauges.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *batches, open);
        self.context.broker.memory.stage(before.staged_bytes, open.staged_bytes);
        self.context.options.budget.count_batches(before, open);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.gauge(0, 0, 0);
        self.reserve(None);
        self.gauge_batches(OpenBatches::default());
    }
}
