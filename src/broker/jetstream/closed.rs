//! The JetStream API in accounts that do not have it: it says so.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use serde_json::json;
use tokio::sync::mpsc;

use super::{JetStream, call};
use crate::api::{self, Endpoint, Kind};
use crate::broker::{Account, Broker, Inbound, Service};
use crate::types::ApiError;

/// JetStream in each account that has it, the default account's first; a reload may add some.
pub type Accounts = Arc<RwLock<Vec<Arc<JetStream>>>>;

/// Requests that wait for their answer; further ones stay unanswered.
const REQUESTS_MAX: usize = 1024;
const PURGE: &[u8] = b"$JS.API.ACCOUNT.PURGE.";
const INFO: &[u8] = b"$JS.API.INFO";

/// See the module.
struct ClosedApi {
    /// Whose service it is, and so not its owner.
    account: Weak<Account>,
    accounts: Accounts,
    requests: mpsc::Sender<Inbound>,
}

/// Answers requests in `account` for as long as it has no JetStream. Needs a runtime.
pub fn serve_closed(broker: &Arc<Broker>, account: &Arc<Account>, accounts: &Accounts) {
    let (requests, mut asked) = mpsc::channel::<Inbound>(REQUESTS_MAX);
    let service = ClosedApi { account: Arc::downgrade(account), accounts: accounts.clone(), requests };
    account.add_service(b"$JS.API.>", Arc::new(service)).expect("the API's own subjects are valid");
    let (mut courier, is_system) = (broker.courier_in(account), account.is_system());
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            let subject = request.message.subject();
            if let Some(body) = refusal(subject, is_system)
                && !request.reply.is_empty()
            {
                courier.publish(&request.reply, b"", b"", &body);
                courier.flush();
            }
        }
    });
}

impl Service for ClosedApi {
    /// What streams and consumers listen to themselves has no responders where there are none. An account that imports
    /// another one's API asks there.
    fn takes(&self, subject: &[u8]) -> bool {
        let of_streams =
            subject.starts_with(b"$JS.API.CONSUMER.MSG.NEXT.") || subject.starts_with(b"$JS.API.DIRECT.GET.");
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let Some(account) = self.account.upgrade() else { return false };
        let is_system = account.is_system();
        // The monitoring's services empty accounts.
        let is_taken = is_system && subject.strip_prefix(PURGE).is_some_and(|account| !account.contains(&b'.'));
        (is_system || !of_streams)
            && !is_taken
            && !account.is_bridged(subject)
            && !accounts.iter().any(|jetstream| Arc::ptr_eq(jetstream.account(), &account))
    }

    fn call(&self, request: Inbound) {
        // Above its bound a requester hears nothing.
        let _ = self.requests.try_send(request);
    }
}

/// What the system account may ask of a cluster: a single server stays silent (nats-server `apiDispatch`).
fn is_about_clusters(subject: &[u8]) -> bool {
    const KNOWN: [&[u8]; 4] =
        [b"$JS.API.META.LEADER.STEPDOWN", b"$JS.API.META.RESCUE", b"$JS.API.SERVER.REMOVE", b"$JS.API.SERVER.EVACUATE"];
    KNOWN.contains(&subject) || subject.starts_with(b"$JS.API.ACCOUNT.")
}

/// Nothing for what nobody knows, but in the system account.
fn refusal(subject: &[u8], is_system: bool) -> Option<Vec<u8>> {
    let error = ApiError::NOT_ENABLED_FOR_ACCOUNT;
    if is_system && is_about_clusters(subject) {
        return None;
    }
    if is_system && subject != INFO {
        let body = json!({"type": "io.nats.jetstream.api.v1.system_response", "error": error});
        return Some(body.to_string().into_bytes());
    }
    let kind = Endpoint::parse(subject).map(|endpoint| call::kind(&endpoint))?;
    debug_assert!(subject != INFO || kind == Kind::AccountInfo, "INFO is about the account");
    Some(api::error_response(kind, &error))
}
