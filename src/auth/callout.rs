//! Auth callout (ADR-26): somebody else says who a client is. The server asks with a signed request; the answer is a user's
//! JWT, for a key that was made for this one request, so that no answer fits another.
//!
//! Source: nats-server `server/auth_callout.go`. Different: in operator mode only a client whose own JWT holds is asked
//! about, and what an answer says of networks, connection types and limits holds too.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::book::{Book, Grant, Login, Presented, UserLimits};
use super::claims::{Body, Claims, UserClaims};
use super::nkey::{KeyKind, PublicKey};
use super::operator::{self, Terms};
use super::permit::Permit;
use super::{ConnectionType, DEFAULT_ACCOUNT};
use crate::types::Timestamp;

/// Where callouts are answered.
pub const SUBJECT: &str = "$SYS.REQ.USER.AUTH";
/// The audience of a request.
const AUDIENCE: &str = "nats-authorization-request";

/// `auth_callout` of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalloutSpec {
    /// Who signs the answers: an account's public key.
    pub issuer: String,
    /// Where those listen who answer.
    pub account: String,
    /// Users that are not asked about: those who answer.
    pub users: Vec<String>,
    /// Requests are encrypted for this key.
    pub xkey: Option<String>,
    /// Accounts whose users are asked about; empty for all. Users nobody knows are asked about always.
    pub allowed_accounts: Vec<String>,
}

/// A question that is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callout {
    pub account: String,
    /// Whom the request is about, which is the key that its answer is signed with, or that of its account.
    pub subject: String,
    pub xkey: Option<String>,
}

/// Who asks, for whom.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    pub server_name: String,
    pub host: String,
    /// A server's public key.
    pub server_id: String,
    pub version: String,
    pub tags: Vec<String>,
    /// Empty when nothing is encrypted.
    pub xkey: String,
    /// The public key made for this request.
    pub user: String,
    pub client_id: u64,
    /// Seconds since 1970.
    pub expires: i64,
    /// Names the request.
    pub id: String,
}

/// The claims of a request. They hold the client's credentials: nothing else may show them.
pub fn request(callout: &Callout, asker: &Asker, presented: &Presented<'_>) -> Value {
    let connect = presented.connect;
    let mut client = json!({
        "host": presented.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        "id": asker.client_id,
        "user": said_user(presented),
        "name": connect.name,
        "kind": "Client",
        "type": if presented.connection_type == ConnectionType::WebSocket { "websocket" } else { "nats" },
    });
    if !connect.sig.is_empty() {
        client["nonce"] = presented.nonce.into();
    }
    let options = json!({
        "jwt": connect.jwt, "nkey": connect.nkey, "sig": connect.sig, "auth_token": connect.auth_token,
        "user": connect.user, "pass": connect.pass, "name": connect.name, "lang": connect.lang,
        "version": connect.version, "protocol": connect.protocol,
    });
    let server = json!({
        "name": asker.server_name, "host": asker.host, "id": asker.server_id, "version": asker.version,
        "tags": asker.tags, "xkey": asker.xkey,
    });
    let mut claims = json!({
        "aud": AUDIENCE,
        "exp": asker.expires,
        "jti": asker.id,
        "iat": presented.now.nanos() / 1_000_000_000,
        "iss": asker.server_id,
        "sub": callout.subject,
        "nats": {
            "server_id": without_empty(server),
            "user_nkey": asker.user,
            "client_info": without_empty(client),
            "connect_opts": without_empty(options),
            "type": "authorization_request",
            "version": 2,
        },
    });
    if let Some(tls) = presented.tls {
        claims["nats"]["client_tls"] = tls.told();
    }
    claims
}

fn without_empty(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| value != "" && *value != json!([]));
    }
    value
}

/// Who a client says it is (nats-server `getRawAuthUser`). Never a secret.
fn said_user(presented: &Presented<'_>) -> String {
    let connect = presented.connect;
    match (&*connect.nkey, &*connect.user) {
        ("", "") => String::new(),
        ("", user) => user.to_owned(),
        (nkey, _) => nkey.to_owned(),
    }
}

/// An answer: a user's JWT, or why there is none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResponseClaims {
    pub jwt: String,
    pub error: String,
    pub issuer_account: String,
}

impl Body for ResponseClaims {
    const KIND: &'static str = "authorization_response";
    const SUBJECT: KeyKind = KeyKind::User;
    const ISSUERS: &'static [KeyKind] = &[KeyKind::Account];
}

/// Whether it is the public key of somebody who can be sent what others cannot read.
pub fn is_xkey(key: &str) -> bool {
    nkeys::XKey::from_public_key(key).is_ok()
}

/// Whether it is an account's public key.
pub fn is_issuer(key: &str) -> bool {
    PublicKey::parse(key, KeyKind::Account).is_some()
}

impl Book {
    /// What is to be asked about a client that the book alone would grant this, or refuse; `None` when the book has the
    /// last word.
    pub fn callout(&self, presented: &Presented<'_>, granted: Option<&Grant>) -> Option<Callout> {
        if let Some(operators) = &self.operators {
            return operators.callout(granted?);
        }
        let spec = self.callout.as_ref().filter(|_| self.is_required(presented.connection_type))?;
        let account = granted.map_or(DEFAULT_ACCOUNT, |grant| &grant.account);
        let delegated = spec.allowed_accounts.is_empty() || spec.allowed_accounts.iter().any(|name| name == account);
        if account != DEFAULT_ACCOUNT && !delegated {
            return None;
        }
        // Whoever was let in is who it turned out to be, whatever it says: its certificate may have said so, or another of
        // the names it gave.
        let user = granted.map_or_else(|| said_user(presented), |grant| grant.login.user.clone());
        if spec.users.contains(&user) {
            return None;
        }
        Some(Callout { account: spec.account.clone(), subject: spec.issuer.clone(), xkey: spec.xkey.clone() })
    }

    /// Whether clients of the account could answer callouts, and so must not ask them.
    pub fn answers_callouts(&self, account: &str) -> bool {
        match &self.operators {
            Some(operators) => operators.answers_callouts(account),
            None => self.callout.as_ref().is_some_and(|spec| spec.account == account),
        }
    }

    /// What an answer grants. `sealed`: it was encrypted for this server alone.
    ///
    /// # Errors
    /// Why it grants nothing, for the log.
    pub fn judge_answer(
        &self,
        callout: &Callout,
        asker: &Asker,
        token: &str,
        sealed: bool,
        presented: &Presented<'_>,
    ) -> Result<Grant, String> {
        let now = presented.now.nanos() / 1_000_000_000;
        if token.is_empty() {
            return Err(format!("auth callout violation: no reason supplied on account {:?}", callout.account));
        }
        let answer =
            Claims::<ResponseClaims>::decode(token).map_err(|error| format!("auth callout response: {error}"))?;
        if !answer.is_current(now) {
            return Err("authorization response expired or not valid yet".to_owned());
        }
        if answer.subject != asker.user {
            return Err("auth callout violation: auth callout response is not for expected user".to_owned());
        }
        if answer.audience != asker.server_id {
            return Err("auth callout violation: auth callout response is not for server".to_owned());
        }
        if !answer.body.error.is_empty() {
            return Err(format!("auth callout service returned an error: {}", answer.body.error));
        }
        let user = Claims::<UserClaims>::decode(&answer.body.jwt).map_err(|error| format!("user JWT: {error}"))?;
        if !user.is_current(now) {
            return Err("user JWT expired or not valid yet".to_owned());
        }
        if user.subject != asker.user {
            return Err("the user JWT is not for the expected user".to_owned());
        }
        let mut grant = match &self.operators {
            Some(operators) => operators.judge_answer(callout, &answer, sealed, &user, presented)?,
            None if answer.issuer != callout.subject => return Err("auth callout signing key is unknown".to_owned()),
            None => self.judge_configured(callout, &user, presented)?,
        };
        // What it is called is the service's to say.
        grant.login.user = if user.name.is_empty() { said_user(presented) } else { user.name.clone() };
        Ok(grant)
    }

    fn judge_configured(
        &self,
        callout: &Callout,
        user: &Claims<UserClaims>,
        presented: &Presented<'_>,
    ) -> Result<Grant, String> {
        if !user.body.issuer_account.is_empty() {
            return Err("error non operator mode: attempted to use issuer_account".to_owned());
        }
        if user.issuer != callout.subject {
            return Err(format!("wrong issuer for auth callout response on account {:?}", callout.account));
        }
        let account = &user.audience;
        let spec = self.accounts().iter().find(|spec| spec.name == *account);
        if spec.is_none() && account != DEFAULT_ACCOUNT && account != self.system_account() {
            return Err(format!("no valid account {account:?} for auth callout response"));
        }
        let terms = Terms::of(&user.body, presented)?;
        let limits = UserLimits {
            subscriptions: operator::least(terms.limits.subscriptions, spec.and_then(|spec| spec.subscriptions_max)),
            payload_bytes: operator::least(terms.limits.payload_bytes, spec.and_then(|spec| spec.payload_bytes_max)),
        };
        let permissions = operator::permissions(&user.body.permissions)?;
        let expires = (user.expires > 0).then(|| Timestamp(user.expires.saturating_mul(1_000_000_000)));
        Ok(Grant {
            account: account.clone(),
            login: Login { issuer: user.issuer.clone(), tags: user.body.tags.clone(), ..Login::default() },
            permit: Permit::new(&permissions).map(Arc::new),
            limits,
            expires: expires.into_iter().chain(terms.until).min(),
            expires_with_account: false,
        })
    }
}
