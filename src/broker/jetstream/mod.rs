//! JetStream: streams and consumers at work. Owns one task per stream, the registry of streams, the dispatch of the API,
//! and the order of things: nothing is acknowledged, answered or delivered before what it rests on is durable.
//!
//! Reading order: [`stream_task`] (a stream's turn), `inbox` and `doors` (the way in), `publish`, `commit` (the way to the
//! disk and what waits for it), `delivery` (the way out), `call` and `consumer_calls` (the API on a stream), `direct_get`;
//! `followers`, `follower`, `consumer_follower` and `sourcing` (mirrors and sources), `sourcing_consumer`, `mailbox`; `snapshot` and `restore` (backups);
//! then `registry` and `service` (the API on the account) and `recovery`.

mod budget;
mod call;
mod closed;
mod commit;
mod consumer_calls;
mod consumer_follower;
mod consumers;
mod contents;
mod context;
mod delivery;
mod direct_get;
mod doors;
mod follower;
mod followers;
mod inbox;
mod log;
mod mailbox;
mod publish;
mod read_ahead;
mod receipts;
mod recovery;
mod registry;
mod restore;
mod service;
mod shared;
mod snapshot;
mod sourcing;
mod sourcing_consumer;
mod stream_task;
mod summaries;
mod tail_cache;
mod world;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

pub use self::budget::Budget;
pub use self::closed::{Accounts, serve_closed};
use self::context::Context;
pub use self::context::{API_LEVEL, Options, Strictness};
pub use self::recovery::account_of;
use self::registry::{Change, Registry};
use self::service::FILTERS;
use super::{Account, Broker};
use crate::api::{AccountInfo, StreamInfo};
use crate::consumer::ConsumerInfo;
use crate::storage::{ReadError, Recovered, Store};
use crate::types::{ApiError, JetStreamLimits, StreamId};

/// Requests that add, change or remove streams and have not been looked at yet; further ones are refused.
const CHANGES_MAX: usize = 1024;

/// A running JetStream.
pub struct JetStream {
    registry: Arc<Registry>,
    /// To the registry, for as long as the service is there.
    changes: mpsc::WeakSender<Change>,
    /// The service's place in the router, by filter.
    service: Mutex<Vec<(&'static str, u64)>>,
}

/// A stream with its consumers, for monitoring.
#[derive(Clone, Debug)]
pub struct StreamReport {
    pub info: StreamInfo,
    pub consumers: Vec<ConsumerInfo>,
}

impl JetStream {
    /// Brings the account's streams found in the store back to life and begins to serve the API there. Needs a runtime.
    ///
    /// # Errors
    /// When a stream's messages cannot be read.
    pub fn start(
        broker: &Arc<Broker>,
        account: &Arc<Account>,
        options: Options,
        store: Store,
        recovered: &Recovered,
    ) -> Result<JetStream, ReadError> {
        broker.change_info(|info| {
            info.domain = options.domain.clone();
            info.api_lvl = u64::from(API_LEVEL);
        });
        if !options.domain.is_empty() {
            account.set_domain(&options.domain);
        }
        let context = Arc::new(Context::new(broker, account, options));
        let watching = Arc::downgrade(&context);
        account.watch_interest(move |filter| {
            if let Some(context) = watching.upgrade() {
                context.push_subjects.interest_changed(filter);
            }
        });
        let registry = Arc::new(Registry::new(context, store));
        for stream in &recovered.streams {
            registry.recover(stream)?;
        }
        let (changes, requests) = mpsc::channel(CHANGES_MAX);
        tokio::spawn(registry.clone().serve(requests));
        let to_registry = changes.downgrade();
        let service = service::start(registry.clone(), changes);
        let service = FILTERS
            .iter()
            .map(|filter| {
                let key = account.add_service(filter.as_bytes(), service.clone());
                (*filter, key.expect("the API's own subjects are valid"))
            })
            .collect();
        Ok(JetStream { registry, changes: to_registry, service: Mutex::new(service) })
    }

    /// Finishes what has begun: waiting pulls are sent home, rows written, tasks ended. The store stays open.
    pub async fn stop(&self) {
        self.begin_stop();
        self.registry.stopped().await;
    }

    fn begin_stop(&self) {
        let service = std::mem::take(&mut *self.service.lock().unwrap_or_else(PoisonError::into_inner));
        for (filter, key) in service {
            self.registry.context.account.remove_target(filter.as_bytes(), key);
        }
        self.registry.begin_stop();
    }

    /// The streams that are there again after another start.
    pub fn streams_on_disk(&self) -> Vec<StreamId> {
        let streams = self.registry.list("");
        let on_disk = streams.iter().filter_map(|shared| match &shared.home {
            shared::Home::Disk { id, .. } => Some(*id),
            shared::Home::Memory(_) => None,
        });
        on_disk.collect()
    }

    /// Whose streams they are.
    pub fn account(&self) -> &Arc<Account> {
        &self.registry.context.account
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.registry.context.options
    }

    /// Holds the account to other limits from now on.
    pub fn set_account_limits(&self, limits: JetStreamLimits) {
        self.registry.context.set_account_limits(limits);
    }

    /// What `$JS.API.INFO` says.
    pub fn account_info(&self) -> AccountInfo {
        self.registry.account_info()
    }

    /// Why nothing can be stored now, in any account; `None` when all is well.
    pub fn store_fault(&self) -> Option<Arc<str>> {
        self.registry.store_fault()
    }

    /// Deletes every stream of the account.
    ///
    /// # Errors
    /// When a stream cannot be deleted; it and those after it are still there.
    pub async fn purge(&self) -> Result<(), ApiError> {
        let (done, purged) = oneshot::channel();
        if let Some(changes) = self.changes.upgrade() {
            let _ = changes.send(Change::Purge(done)).await;
        }
        purged.await.unwrap_or(Err(ApiError::NOT_ENABLED))
    }

    /// Messages and bytes in all streams.
    pub fn totals(&self) -> (u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        let streams = self.registry.list("");
        let sum = |count: fn(&shared::Gauges) -> u64| streams.iter().map(|shared| count(&shared.gauges)).sum();
        (sum(|gauges| gauges.messages.load(Relaxed)), sum(|gauges| gauges.bytes.load(Relaxed)))
    }

    /// Every stream, by name, with its consumers when wanted.
    pub async fn reports(&self, consumers: bool) -> Vec<StreamReport> {
        let streams = self.registry.list("");
        let reports = self.registry.reports(&streams, consumers).await;
        reports.into_iter().map(|report| StreamReport { info: report.info, consumers: report.consumers }).collect()
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.begin_stop();
    }
}
