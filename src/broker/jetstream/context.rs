//! What every part of JetStream shares: the account, the API's counters, and who delivers where.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use hashbrown::HashMap;

use super::budget::{Budget, Throttle};
use super::inbox::{Command, Inbox, InterestNews};
use crate::api::{Advisory, ApiStats, Audit, ClientInfo};
use crate::broker::{Account, Broker, Courier, Inbound};
use crate::stream::config::Storage;
use crate::types::{AssetLimits, JetStreamLimits, Timestamp, id, subject};

pub use crate::api::Strictness;
/// The JetStream API level of nats-server 2.14, whose single-server features we serve (ADR-44).
pub use crate::stream::batch::API_LEVEL;
/// Requests under way before further ones are refused (nats-server `JSDefaultRequestQueueLimit`).
pub(super) const REQUESTS_MAX: usize = 10_000;

/// See the module.
pub(super) struct Context {
    pub(super) broker: Arc<Broker>,
    pub(super) account: Arc<Account>,
    pub(super) api: ApiCounters,
    pub(super) push_subjects: PushSubjects,
    pub(super) server_name: String,
    pub(super) server_version: String,
    pub(super) options: Options,
    /// What the account may use; a reload may change it.
    account_limits: RwLock<JetStreamLimits>,
    /// What the account uses.
    pub(super) usage: Usage,
    /// The log says that a limit is reached.
    warned_full: Throttle,
    /// Streams are about to close their doors.
    stopping: AtomicBool,
}

/// Bytes in memory and on disk.
#[derive(Debug, Default)]
pub(super) struct Usage {
    memory: AtomicU64,
    storage: AtomicU64,
}

impl Usage {
    pub(super) fn of(&self, storage: Storage) -> &AtomicU64 {
        match storage {
            Storage::Memory => &self.memory,
            Storage::File => &self.storage,
        }
    }
}

/// What JetStream is held to.
#[derive(Clone, Debug)]
pub struct Options {
    /// The API also answers on `$JS.<domain>.API.>`, and names the domain in what it says. Empty for none.
    pub domain: String,
    /// What the account may use.
    pub account_limits: JetStreamLimits,
    /// How unknown fields of requests are taken.
    pub strictness: Strictness,
    /// What all accounts share.
    pub budget: Arc<Budget>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            domain: String::new(),
            account_limits: JetStreamLimits::default(),
            strictness: Strictness::Strict,
            budget: Arc::new(Budget::new(i64::MAX as u64, i64::MAX as u64, AssetLimits::default())),
        }
    }
}

/// How often the API was used.
#[derive(Default)]
pub(super) struct ApiCounters {
    total: AtomicU64,
    errors: AtomicU64,
    under_way: AtomicUsize,
    /// Requests that were refused because too many waited, and nobody has been told of.
    overflown: AtomicU64,
}

impl ApiCounters {
    pub(super) fn stats(&self) -> ApiStats {
        ApiStats {
            level: API_LEVEL,
            total: self.total.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            inflight: 0,
        }
    }

    /// Counts a request as under way until [`ApiCounters::end`]; false when there are too many.
    pub(super) fn begin(&self) -> bool {
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    pub(super) fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request is refused because too many wait.
    pub(super) fn overflow(&self) {
        self.overflown.fetch_add(1, Ordering::Relaxed);
    }
}

impl Context {
    /// JetStream in `account`.
    pub(super) fn new(broker: &Arc<Broker>, account: &Arc<Account>, options: Options) -> Context {
        let info = broker.info();
        Context {
            broker: broker.clone(),
            account: account.clone(),
            api: ApiCounters::default(),
            push_subjects: PushSubjects::default(),
            server_name: info.server_name,
            server_version: info.version,
            account_limits: RwLock::new(options.account_limits),
            options,
            usage: Usage::default(),
            stopping: AtomicBool::new(false),
            warned_full: Throttle::default(),
        }
    }

    /// From here on streams may not take what is published.
    pub(super) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether streams of this kind hold more than the server may: nothing more is stored then.
    pub(super) fn is_full(&self, storage: Storage) -> bool {
        let budget = &self.options.budget;
        budget.used.of(storage).load(Ordering::Relaxed) > budget.bytes_max(storage)
    }

    /// What the account may use now.
    pub(super) fn account_limits(&self) -> JetStreamLimits {
        *self.account_limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_account_limits(&self, limits: JetStreamLimits) {
        *self.account_limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Bytes that the account's streams of this kind may hold; `None` for any number.
    pub(super) fn account_bytes_max(&self, storage: Storage) -> Option<u64> {
        let limits = self.account_limits();
        u64::try_from(match storage {
            Storage::Memory => limits.max_memory,
            Storage::File => limits.max_storage,
        })
        .ok()
    }

    /// Says in the log, at most every ten seconds, that nothing more is stored.
    pub(super) fn warn_full(&self, storage: Storage) {
        if self.warned_full.is_due(Timestamp::now()) {
            let kind = match storage {
                Storage::Memory => "memory",
                Storage::File => "file",
            };
            tracing::error!("JetStream {kind} resource limits exceeded for server");
        }
    }

    /// A courier for the account.
    pub(super) fn courier(&self) -> Courier {
        self.broker.courier_in(&self.account)
    }

    /// Sends the response to an API request, counts it, and tells who audits. Receivers learn of it at the courier's next
    /// flush.
    pub(super) fn respond(&self, courier: &mut Courier, request: &Inbound, body: &[u8], failed: bool) {
        self.respond_with(courier, request, b"", body, failed);
    }

    /// As [`Context::respond`], with a block of headers.
    pub(super) fn respond_with(
        &self,
        courier: &mut Courier,
        request: &Inbound,
        headers: &[u8],
        body: &[u8],
        failed: bool,
    ) {
        self.api.total.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.api.errors.fetch_add(1, Ordering::Relaxed);
        }
        if !request.reply.is_empty() {
            courier.publish(&request.reply, b"", headers, body);
        }
        if self.account.has_interest(b"$JS.EVENT.ADVISORY.API") {
            self.audit(courier, request, b"", body);
        }
    }

    /// As [`Context::respond`], with a message that is stored under `stored_subject`. False, and nothing counted or told,
    /// when nobody is there who may have it.
    pub(super) fn respond_found(
        &self,
        courier: &mut Courier,
        request: &Inbound,
        stored_subject: &[u8],
        body: &[u8],
    ) -> bool {
        if request.reply.is_empty() || courier.answer_stored(&request.reply, stored_subject, b"", body) == 0 {
            return false;
        }
        self.api.total.fetch_add(1, Ordering::Relaxed);
        if self.account.has_interest(b"$JS.EVENT.ADVISORY.API") {
            self.audit(courier, request, stored_subject, body);
        }
        true
    }

    /// Answers as if nobody were subscribed to the subject, which is how nats-server has it for what each consumer
    /// listens to itself.
    pub(super) fn nobody_there(&self, courier: &mut Courier, request: &Inbound) {
        if !request.reply.is_empty() {
            let subject = request.message.subject_text();
            let headers = format!("NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n");
            courier.publish(&request.reply, b"", headers.as_bytes(), b"");
        }
    }

    #[cold]
    fn audit(&self, courier: &mut Courier, request: &Inbound, stored_subject: &[u8], body: &[u8]) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (asked, answered) = (text(request.message.payload()), text(body));
        let subject = request.message.subject_text();
        let audit = Audit {
            server: &self.server_name,
            client: self.client_info(request),
            subject: &subject,
            request: &asked,
            response: &answered,
        };
        let advisory = Advisory::Api(Box::new(audit));
        let told = advisory.encode(id::unique(), Timestamp::now(), &self.options.domain);
        // It holds the response.
        courier.answer_stored(advisory.subject().as_bytes(), stored_subject, b"", &told);
    }

    /// Who made a request, for advisories.
    pub(super) fn client_info(&self, request: &Inbound) -> ClientInfo {
        let client = &request.client;
        ClientInfo { server: self.server_name.clone(), ..client.info(client.identity(), &self.account.name) }
    }

    /// Publishes an advisory if anyone listens.
    pub(super) fn advise(&self, courier: &mut Courier, advisory: &Advisory<'_>, now: Timestamp) {
        self.advise_in(&self.account, courier, advisory, now);
    }

    /// Tells the system account how many requests were refused because too many waited, if there were any.
    pub(super) fn tell_overflow(&self) {
        let dropped = self.api.overflown.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(account = %self.account.name, "JetStream API queue limit reached, {dropped} requests refused");
            self.advise_system(&Advisory::ApiLimitReached { server: &self.server_name, dropped });
        }
    }

    /// Tells the system account, at most every ten seconds, that a stream had no space left.
    pub(super) fn tell_out_of_storage(&self, stream: &str) {
        if !self.options.budget.out_of_storage.is_due(Timestamp::now()) {
            return;
        }
        tracing::error!("JetStream out of file resources: nothing is stored until there is space again");
        let info = self.broker.info();
        let (server, server_id) = (&self.server_name, &info.server_id);
        self.advise_system(&Advisory::OutOfStorage { server, server_id, stream, cluster: "" });
    }

    fn advise_system(&self, advisory: &Advisory<'_>) {
        let system = self.broker.system_account();
        let mut courier = self.broker.courier_in(system);
        self.advise_in(system, &mut courier, advisory, Timestamp::now());
        courier.flush();
    }

    fn advise_in(&self, account: &Account, courier: &mut Courier, advisory: &Advisory<'_>, now: Timestamp) {
        let subject = advisory.subject();
        if account.has_interest(subject.as_bytes()) {
            let body = advisory.encode(id::unique(), now, &self.options.domain);
            courier.publish(subject.as_bytes(), b"", b"", &body);
        }
    }
}

/// Which push consumers deliver to which subject, so that their streams hear of clients that come and go.
#[derive(Default)]
pub(super) struct PushSubjects {
    by_subject: RwLock<HashMap<Box<[u8]>, Vec<Receiver>>>,
}

struct Receiver {
    inbox: Weak<Inbox>,
    consumer: Arc<str>,
    /// It has news that it has not looked at.
    waits: Arc<AtomicBool>,
}

impl PushSubjects {
    pub(super) fn add(&self, subject: &str, inbox: &Arc<Inbox>, consumer: &Arc<str>) {
        let receiver = Receiver { inbox: Arc::downgrade(inbox), consumer: consumer.clone(), waits: Arc::default() };
        let mut by_subject = self.by_subject.write().unwrap_or_else(PoisonError::into_inner);
        by_subject.entry(subject.as_bytes().into()).or_default().push(receiver);
    }

    pub(super) fn remove(&self, subject: &str, inbox: &Arc<Inbox>, consumer: &str) {
        let mut by_subject = self.by_subject.write().unwrap_or_else(PoisonError::into_inner);
        let Some(receivers) = by_subject.get_mut(subject.as_bytes()) else { return };
        receivers.retain(|receiver| {
            *receiver.consumer != *consumer || !std::ptr::eq(receiver.inbox.as_ptr(), Arc::as_ptr(inbox))
        });
        if receivers.is_empty() {
            by_subject.remove(subject.as_bytes());
        }
    }

    /// A client subscription on `filter` has come or gone.
    pub(super) fn interest_changed(&self, filter: &[u8]) {
        let by_subject = self.by_subject.read().unwrap_or_else(PoisonError::into_inner);
        if by_subject.is_empty() {
            return;
        }
        let tell = |receivers: &[Receiver]| {
            for receiver in receivers {
                if let Some(news) = InterestNews::new(&receiver.consumer, &receiver.waits)
                    && let Some(inbox) = receiver.inbox.upgrade()
                {
                    inbox.push(Command::Interest(news));
                }
            }
        };
        if subject::has_wildcard(filter) {
            for (_, receivers) in by_subject.iter().filter(|(to, _)| subject::matches(filter, to)) {
                tell(receivers);
            }
        } else if let Some(receivers) = by_subject.get(filter) {
            tell(receivers);
        }
    }
}

/// A courier for code that runs on whatever thread calls it.
pub(super) struct SharedCourier {
    courier: Mutex<Courier>,
}

impl SharedCourier {
    pub(super) fn new(courier: Courier) -> SharedCourier {
        SharedCourier { courier: Mutex::new(courier) }
    }

    /// Lends the courier for a moment, and flushes it afterwards.
    pub(super) fn with<R>(&self, send: impl FnOnce(&mut Courier) -> R) -> R {
        let mut courier = self.courier.lock().unwrap_or_else(PoisonError::into_inner);
        let result = send(&mut courier);
        courier.flush();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Memory;

    #[test]
    fn news_of_interest_waits_once_for_each_consumer() {
        let inbox = Arc::new(Inbox::new(Arc::new(Memory::new(usize::MAX))));
        let subjects = PushSubjects::default();
        for consumer in ["one", "two"] {
            subjects.add(&format!("to.{consumer}"), &inbox, &consumer.into());
        }
        let mut taken = Vec::new();
        for _ in 0..3 {
            for _ in 0..1000 {
                subjects.interest_changed(b">");
                subjects.interest_changed(b"to.one");
            }
            inbox.take(&mut taken);
            let mut told: Vec<_> = std::mem::take(&mut taken)
                .into_iter()
                .map(|command| match command {
                    Command::Interest(news) => news.taken(),
                    _ => unreachable!("nobody else writes"),
                })
                .collect();
            told.sort();
            assert_eq!(told.iter().map(|name| &**name).collect::<Vec<_>>(), ["one", "two"]);
        }
    }
}
