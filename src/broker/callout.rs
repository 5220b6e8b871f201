//! Asks those who answer auth callouts (ADR-26): a signed, where wanted encrypted, request in their account, and one answer.
//! What they answer is judged by the book; whoever gets none in time is not let in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::{KeyPair, XKey};
use tokio::sync::oneshot;
use tracing::warn;

use super::account::Account;
use super::client_state::ClientState;
use super::courier::Parcel;
use super::gate::Admission;
use super::registry::Broker;
use super::subscription::{Inbound, Service};
use crate::auth::{self, Asker, Callout, Grant, Permit, Presented, Refusal, Secret};
use crate::protocol::ProtocolError;
use crate::types::header::HeaderBuilder;
use crate::types::id;

/// Tells who answers which key the server has.
const XKEY_HEADER: &str = "Nats-Server-Xkey";
/// What a JWT begins with; other answers are encrypted.
const JWT_PREFIX: &[u8] = b"eyJ";
/// How long the answer about a client that is in already may take at least.
const REVIEW_PATIENCE: Duration = Duration::from_secs(10);

/// Why somebody else let nobody in.
enum Failure {
    /// There was no answer.
    Unanswered(String),
    Refused(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Failure {
        Failure::Refused(reason)
    }
}

/// What a server signs and opens messages with. Made anew with each start; its name is the server's id.
pub struct ServerKeys {
    signing: KeyPair,
    sealing: XKey,
}

impl Default for ServerKeys {
    fn default() -> ServerKeys {
        ServerKeys { signing: KeyPair::new_server(), sealing: XKey::new() }
    }
}

impl ServerKeys {
    /// The server's public key.
    pub fn id(&self) -> String {
        self.signing.public_key()
    }
}

/// Takes the one answer.
struct Waiting {
    answer: Mutex<Option<oneshot::Sender<Inbound>>>,
}

impl Service for Waiting {
    fn call(&self, request: Inbound) {
        let waiting = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            let _ = waiting.send(request);
        }
    }
}

/// Listens for the answer until it is dropped.
struct Inbox {
    account: Arc<Account>,
    subject: String,
    key: u64,
}

impl Inbox {
    fn open(account: &Arc<Account>, answer: oneshot::Sender<Inbound>) -> Inbox {
        let subject = format!("_INBOX.{}", id::unique());
        let service = Arc::new(Waiting { answer: Mutex::new(Some(answer)) });
        let key = account.add_service(subject.as_bytes(), service).expect("an inbox is a valid subject");
        Inbox { account: account.clone(), subject, key }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.account.remove_target(self.subject.as_bytes(), self.key);
    }
}

impl Broker {
    /// Lets a client in or not: by the book, and where that delegates it by whom it delegates it to. Where no answer comes
    /// from those, it is `known`, what they said of it before.
    pub(super) async fn judge(
        &self,
        client: &ClientState,
        presented: &Presented<'_>,
        patience: Duration,
        vouched: Option<&Secret>,
        known: Option<&Arc<Grant>>,
    ) -> Result<Admission, (ProtocolError, Refusal)> {
        let judged = self.gate.judge(presented, patience, vouched).await;
        let book = self.gate.book();
        let mut admission = match book.callout(presented, judged.as_ref().ok().map(|admission| &*admission.grant)) {
            None => judged?,
            Some(callout) => {
                let timeout = self.terms().options.session.connect_timeout;
                // A reload asks about everybody at once.
                let patience = if known.is_some() { timeout.max(REVIEW_PATIENCE) } else { patience.min(timeout) };
                let grant = match (self.call_out(client, &callout, presented, patience).await, known) {
                    (Ok(grant), _) => Arc::new(grant),
                    (Err(Failure::Unanswered(reason)), Some(known)) => {
                        let until = known.expires.map_or("for good", |_| "until its JWT expires");
                        warn!("{} - cid:{} - {reason}: the client stays {until}", client.address, client.id);
                        known.clone()
                    }
                    (Err(Failure::Unanswered(reason) | Failure::Refused(reason)), _) => {
                        warn!("{} - cid:{} - {reason}", client.address, client.id);
                        return Err((ProtocolError::AuthorizationViolation, Refusal("auth callout")));
                    }
                };
                Admission { grant, hash: None, called_out: true }
            }
        };
        // Nobody asks itself.
        if book.answers_callouts(&admission.grant.account) {
            let permit = Permit::denying_publish(admission.grant.permit.as_deref(), auth::CALLOUT_SUBJECT);
            let grant = Grant { permit: Some(Arc::new(permit)), ..(*admission.grant).clone() };
            admission.grant = Arc::new(grant);
        }
        Ok(admission)
    }

    /// # Errors
    /// Why the client is not let in, for the log: never a secret of its.
    async fn call_out(
        &self,
        client: &ClientState,
        callout: &Callout,
        presented: &Presented<'_>,
        patience: Duration,
    ) -> Result<Grant, Failure> {
        let Some(account) = self.find_account(&callout.account) else {
            return Err(format!("No valid account {:?} for auth callout request", callout.account).into());
        };
        let keys = &self.keys;
        let service = match &callout.xkey {
            None => None,
            Some(key) => Some(XKey::from_public_key(key).map_err(|_| "the callout's xkey cannot be read".to_owned())?),
        };
        let terms = self.terms();
        let info = self.info();
        let asker = Asker {
            server_name: info.server_name,
            host: info.host,
            server_id: keys.id(),
            version: info.version,
            tags: terms.options.server_tags.clone(),
            xkey: if service.is_some() { keys.sealing.public_key() } else { String::new() },
            user: KeyPair::new_user().public_key(),
            client_id: client.id,
            expires: (presented.now + patience).nanos() / 1_000_000_000,
            id: id::unique(),
        };
        let claims = auth::callout_request(callout, &asker, presented);
        let mut request = sign(&keys.signing, &claims.to_string())?.into_bytes();
        let mut headers = Vec::new();
        if let Some(service) = &service {
            let sealed = keys.sealing.seal(&request, service);
            request = sealed.map_err(|_| "the request cannot be encrypted".to_owned())?;
            headers = HeaderBuilder::new().add(XKEY_HEADER, &asker.xkey).build();
        }
        let (answer, answered) = oneshot::channel();
        let inbox = Inbox::open(&account, answer);
        let mut courier = self.courier_in(&account);
        // It holds the client's password.
        courier.keep_secret();
        let to = auth::CALLOUT_SUBJECT.as_bytes();
        let (reply, headers) = (inbox.subject.as_bytes(), &headers[..]);
        let heard =
            courier.send(Parcel { to, shown_subject: to, stored_subject: b"", reply, headers, payload: &request });
        courier.flush();
        drop(courier);
        if heard == 0 {
            let reason = format!("Nobody answers auth callouts on account {:?}", callout.account);
            return Err(Failure::Unanswered(reason));
        }
        let Ok(Ok(answer)) = tokio::time::timeout(patience, answered).await else {
            let account = &callout.account;
            let reason = format!("Authorization callout response not received in time on account {account:?}");
            return Err(Failure::Unanswered(reason));
        };
        let payload = answer.message.payload();
        let (token, sealed) = match &service {
            Some(service) if !payload.is_empty() && !payload.starts_with(JWT_PREFIX) => {
                let opened = keys.sealing.open(payload, service);
                let failed = || format!("error decrypting auth callout response on account {:?}", callout.account);
                (opened.map_err(|_| failed())?, true)
            }
            _ => (payload.to_vec(), false),
        };
        let token = std::str::from_utf8(&token).map_err(|_| "auth callout response is no JWT".to_owned())?;
        Ok(self.gate.book().judge_answer(callout, &asker, token, sealed, presented)?)
    }
}

/// A token of these claims.
fn sign(key: &KeyPair, claims: &str) -> Result<String, String> {
    let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = key.sign(signed.as_bytes()).map_err(|_| "the request cannot be signed".to_owned())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
