//! Operator mode: users come with a JWT of an account that an operator has signed.
//!
//! Source: nats-server `processClientOrLeafAuthentication` (from `juc`), `server/accounts.go`. Account JWTs are those of
//! `resolver_preload`. A user whose JWT asks for a proxy is refused: there are none.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use super::book::{
    AccountSpec, AccountTrace, BookError, CoordinatorSpec, Grant, Login, Plan, Presented, Refusal, UserLimits, Verdict,
};
use super::callout::{Callout, ResponseClaims};
use super::claims::{
    AccountClaims, ActivationClaims, Claims, JwtDestination, JwtExport, JwtImport, JwtPermissions, JwtSampling,
    JwtSubjects, OperatorClaims, SigningKey, UserClaims,
};
use super::connection_type::ConnectionType;
use super::daytime;
use super::mapping::MappingSpec;
use super::nkey::{KeyKind, PublicKey};
use super::permission::{Permissions, ResponseLimits, SubjectRule, SubjectRules};
use super::permit::Permit;
use super::sharing::{Export, Import, Latency, Responses as ServiceResponses, Shared, Span, covers};
use super::template::{self, Person};
use crate::types::{JetStreamLimits, Timestamp, subject};

/// The operators that are trusted and the accounts they have signed.
#[derive(Debug)]
pub struct Operators {
    accounts: HashMap<String, Claims<AccountClaims>>,
    /// Operators' keys whose accounts do not sign with their own keys.
    strict: HashSet<String>,
    system_account: Option<String>,
    /// The JWT of clients that show none.
    sentinel: Option<String>,
    /// The only accounts whose users may come.
    pinned: Option<Vec<String>>,
}

impl Operators {
    /// # Errors
    /// When a token is no good, or an account is not one of these operators'.
    pub fn new(plan: &Plan) -> Result<Operators, BookError> {
        let mut trusted: HashSet<String> = plan.trusted_keys.iter().cloned().collect();
        let mut strict = HashSet::new();
        let mut system_account = None;
        for token in &plan.operators {
            let operator = Claims::<OperatorClaims>::decode(token).map_err(BookError::Operator)?;
            match operator.body.strict_signing_key_usage {
                true => strict.extend(operator.body.signing_keys.iter().cloned()),
                false => drop(trusted.insert(operator.subject)),
            }
            trusted.extend(operator.body.signing_keys);
            if !operator.body.system_account.is_empty() {
                system_account = Some(operator.body.system_account);
            }
        }
        let mut accounts = HashMap::new();
        for (key, token) in &plan.account_jwts {
            let refuse = |reason: String| Err(BookError::AccountJwt { account: key.clone(), reason });
            let account = match Claims::<AccountClaims>::decode(token) {
                Ok(account) => account,
                Err(error) => return refuse(error.to_string()),
            };
            if account.subject != *key {
                return refuse(format!("it is about {}", account.subject));
            }
            if !trusted.contains(&account.issuer) {
                return refuse("no trusted operator has signed it".to_owned());
            }
            accounts.insert(key.clone(), account);
        }
        // A system account without its JWT is one that nobody can log in to.
        let system_account = system_account.filter(|name| accounts.contains_key(name));
        if plan.default_sentinel.as_ref().is_some_and(|token| !is_bearer(token, &accounts, &strict)) {
            return Err(BookError::Sentinel);
        }
        let (sentinel, pinned) = (plan.default_sentinel.clone(), plan.pinned_accounts.clone());
        Ok(Operators { accounts, strict, system_account, sentinel, pinned })
    }

    pub fn system_account(&self) -> Option<String> {
        self.system_account.clone()
    }

    pub fn accounts(&self) -> impl Iterator<Item = AccountSpec> + '_ {
        self.accounts.values().map(|account| {
            let limits = &account.body.limits;
            AccountSpec {
                name: account.subject.clone(),
                name_tag: account.name.clone(),
                jetstream: jetstream(&account.body),
                coordinator: has_coordinator(&account.body).then(CoordinatorSpec::default),
                connections_max: bound(limits.conn),
                subscriptions_max: bound(limits.subs),
                payload_bytes_max: bound(limits.payload),
                exports: account.body.exports.iter().map(export).collect(),
                imports: account.body.imports.iter().map(|claim| self.import(account, claim)).collect(),
                mappings: account.body.mappings.iter().map(mapping).collect(),
                trace: trace(&account.body),
            }
        })
    }

    /// An import, with a look at its activation token.
    fn import(&self, account: &Claims<AccountClaims>, claim: &JwtImport) -> Import {
        let import = import(claim);
        let token = Claims::<ActivationClaims>::decode(&claim.token).ok();
        let activates = |exporter: &Claims<AccountClaims>, export: &JwtExport| {
            let token = token.as_ref()?;
            let by_key = token.body.issuer_account == exporter.subject
                && exporter.body.signing_keys.iter().any(|key| key.key() == token.issuer);
            let revoked = |key: &str| export.revocations.get(key).is_some_and(|&until| token.issued_at <= until);
            let holds = (token.issuer == exporter.subject || by_key)
                && token.subject == account.subject
                && kind(&token.body.kind) == import.kind
                && covers(&token.body.subject, &import.subject)
                && !revoked(&token.subject)
                && !revoked("*");
            holds.then(|| Span::of_seconds(token.not_before, token.expires))
        };
        let activated = self.accounts.get(&claim.account).and_then(|exporter| {
            let exports = exporter.body.exports.iter();
            let mut exports = exports.filter(|export| kind(&export.r#type) == import.kind);
            exports.find_map(|export| {
                covers(&export.subject, &import.subject).then(|| activates(exporter, export)).flatten()
            })
        });
        Import { activated, ..import }
    }

    /// Decides over a CONNECT.
    pub fn judge(&self, presented: &Presented<'_>) -> Verdict {
        match self.grant(presented) {
            Ok(grant) => Verdict::Granted(Arc::new(grant)),
            Err(reason) => Verdict::Refused(Refusal(reason)),
        }
    }

    fn grant(&self, presented: &Presented<'_>) -> Result<Grant, &'static str> {
        let connect = presented.connect;
        let now = presented.now.nanos() / 1_000_000_000;
        let token = if connect.jwt.is_empty() { self.sentinel.as_ref().unwrap_or(&connect.jwt) } else { &connect.jwt };
        let user = Claims::<UserClaims>::decode(token).map_err(|_| "user JWT missing or not valid")?;
        if !user.is_current(now) {
            return Err("user JWT expired or not valid yet");
        }
        let direct = user.body.issuer_account.is_empty();
        let account = self.accounts.get(if direct { &user.issuer } else { &user.body.issuer_account });
        let account = account.ok_or("account not known")?;
        if self.pinned.as_ref().is_some_and(|pinned| !pinned.contains(&account.subject)) {
            return Err("account not listed as operator pinned account");
        }
        let scope = scope(account, &user, &self.strict)?;
        if !account.is_current(now) {
            return Err("account JWT expired");
        }
        // A scoped key says what its users may do; what they are is theirs.
        let terms = scope.unwrap_or(&user.body);
        if terms.bearer_token && account.body.limits.disallow_bearer {
            return Err("account does not allow bearer tokens");
        }
        let held = Terms::of(terms, presented)?;
        if !terms.bearer_token {
            let key = PublicKey::parse(&user.subject, KeyKind::User).ok_or("user nkey not valid")?;
            if presented.nonce.is_empty() || !key.verifies_text(presented.nonce.as_bytes(), &connect.sig) {
                return Err("signature not verified");
            }
        }
        let revoked = |key: &str| account.body.revocations.get(key).is_some_and(|&until| user.issued_at <= until);
        if revoked(&user.subject) || revoked("*") {
            return Err("user revoked");
        }
        grant(account, &user, scope, held)
    }

    /// What is asked about a client that has come with a JWT.
    pub(super) fn callout(&self, granted: &Grant) -> Option<Callout> {
        let account = self.accounts.get(&granted.account)?;
        let authorization = &account.body.authorization;
        let asks = !authorization.auth_users.is_empty() && !authorization.auth_users.contains(&granted.login.user);
        asks.then(|| Callout {
            account: account.subject.clone(),
            subject: account.subject.clone(),
            xkey: (!authorization.xkey.is_empty()).then(|| authorization.xkey.clone()),
        })
    }

    pub(super) fn answers_callouts(&self, account: &str) -> bool {
        self.accounts.get(account).is_some_and(|account| !account.body.authorization.auth_users.is_empty())
    }

    /// What an answer grants: it may put a client into another account that the account of the callout allows.
    pub(super) fn judge_answer(
        &self,
        callout: &Callout,
        answer: &Claims<ResponseClaims>,
        sealed: bool,
        user: &Claims<UserClaims>,
        presented: &Presented<'_>,
    ) -> Result<Grant, String> {
        let own = self.accounts.get(&callout.account).ok_or("account not known")?;
        let by = |issuer: &str| issuer == own.subject || own.body.signing_keys.iter().any(|key| key.key() == issuer);
        let stated = &answer.body.issuer_account;
        // Where an account is named, its key has to be one of that account's too.
        if !sealed && !(by(&answer.issuer) && (stated.is_empty() || *stated == own.subject)) {
            return Err("auth callout signing key is unknown".to_owned());
        }
        let direct = user.body.issuer_account.is_empty();
        let issuer = if direct { &user.issuer } else { &user.body.issuer_account };
        let allowed = &own.body.authorization.allowed_accounts;
        if *issuer != own.subject && !allowed.contains(issuer) && *allowed != ["*"] {
            return Err(format!("account {issuer:?} not permitted for auth callout of account {:?}", own.subject));
        }
        let account = self.accounts.get(issuer).ok_or("account not known")?;
        if !account.is_current(presented.now.nanos() / 1_000_000_000) {
            return Err("account JWT expired".to_owned());
        }
        let scope = scope(account, user, &self.strict)?;
        let held = Terms::of(scope.unwrap_or(&user.body), presented)?;
        Ok(grant(account, user, scope, held)?)
    }
}

/// What a user's token or its key's scope asks of the connection.
pub(super) struct Terms {
    pub(super) limits: UserLimits,
    /// The hour it has to go, today.
    pub(super) until: Option<Timestamp>,
}

impl Terms {
    /// # Errors
    /// When the client may not come this way, from there, or now.
    pub(super) fn of(claims: &UserClaims, presented: &Presented<'_>) -> Result<Terms, &'static str> {
        if !may_come_by(&claims.allowed_connection_types, presented.connection_type) {
            return Err("connection type not allowed");
        }
        if !claims.src.is_empty() && !claims.src.iter().any(|network| contains(network, presented.ip)) {
            return Err("source address not allowed");
        }
        if claims.proxy_required {
            return Err("proxies are not served");
        }
        let until = match claims.times.is_empty() {
            true => None,
            false => {
                let until = daytime::until(&claims.times, &claims.location, presented.now);
                Some(until.ok_or("outside connect times")?)
            }
        };
        let limits = UserLimits { subscriptions: bound(claims.subs), payload_bytes: bound(claims.payload) };
        Ok(Terms { limits, until })
    }
}

/// What a user gets whose token has been found to hold.
fn grant(
    account: &Claims<AccountClaims>,
    user: &Claims<UserClaims>,
    scope: Option<&UserClaims>,
    held: Terms,
) -> Result<Grant, &'static str> {
    let filled = scope.map(|scope| template::filled(&scope.permissions, &person(user, account))).transpose()?;
    let own = filled.as_ref().unwrap_or(&user.body.permissions);
    let stated = if *own == JwtPermissions::default() { &account.body.default_permissions } else { own };
    let permissions = permissions(stated).map_err(|_| "permissions not valid")?;
    let end = |seconds: i64| (seconds > 0).then(|| Timestamp(seconds.saturating_mul(1_000_000_000)));
    let of_user = end(user.expires).into_iter().chain(held.until).min();
    let of_account = end(account.expires);
    let expires = of_user.into_iter().chain(of_account).min();
    Ok(Grant {
        account: account.subject.clone(),
        login: Login {
            user: user.subject.clone(),
            issuer: user.issuer.clone(),
            name_tag: user.name.clone(),
            tags: user.body.tags.clone(),
        },
        permit: Permit::new(&permissions).map(Arc::new),
        limits: UserLimits {
            subscriptions: least(held.limits.subscriptions, bound(account.body.limits.subs)),
            payload_bytes: least(held.limits.payload_bytes, bound(account.body.limits.payload)),
        },
        expires,
        expires_with_account: expires.is_some() && expires != of_user,
    })
}

/// Whether the token of a sentinel can be used by whoever has it: it is good for nothing else.
fn is_bearer(token: &str, accounts: &HashMap<String, Claims<AccountClaims>>, strict: &HashSet<String>) -> bool {
    let Ok(user) = Claims::<UserClaims>::decode(token) else { return false };
    let direct = user.body.issuer_account.is_empty();
    let account = accounts.get(if direct { &user.issuer } else { &user.body.issuer_account });
    account
        .and_then(|account| Some(scope(account, &user, strict).ok()?.unwrap_or(&user.body).bearer_token))
        .unwrap_or(false)
}

/// Accounts ask for the task coordinator by a tag: their JWTs have no field for it, and only the operator signs them.
const COORDINATOR_TAG: &str = "natterjack:coordinator";

fn has_coordinator(account: &AccountClaims) -> bool {
    account.tags.iter().any(|tag| tag.eq_ignore_ascii_case(COORDINATOR_TAG))
}

/// What templates in the permissions of a scoped key stand for.
fn person<'a>(user: &'a Claims<UserClaims>, account: &'a Claims<AccountClaims>) -> Person<'a> {
    Person {
        name: &user.name,
        subject: &user.subject,
        tags: &user.body.tags,
        account_name: &account.name,
        account_subject: &account.subject,
        account_tags: &account.body.tags,
    }
}

fn kind(text: &str) -> Shared {
    if text.eq_ignore_ascii_case("service") { Shared::Service } else { Shared::Stream }
}

fn export(claim: &JwtExport) -> Export {
    Export {
        kind: kind(&claim.r#type),
        subject: claim.subject.clone(),
        accounts: Vec::new(),
        needs_activation: claim.token_req,
        account_token: claim.account_token_position,
        allow_trace: claim.allow_trace,
        responses: match &*claim.response_type {
            "Stream" | "Chunked" => ServiceResponses::Many,
            _ => ServiceResponses::One,
        },
        latency: claim.service_latency.as_ref().map(|latency| Latency {
            percent: match &latency.sampling {
                JwtSampling::Percent(percent) => u8::try_from(*percent).unwrap_or(u8::MAX),
                JwtSampling::Text(text) if text.eq_ignore_ascii_case("headers") => 0,
                JwtSampling::Text(_) => u8::MAX,
            },
            subject: latency.results.clone(),
        }),
        response_wait: u64::try_from(claim.response_threshold).ok().filter(|&ns| ns > 0).map(Duration::from_nanos),
    }
}

fn import(claim: &JwtImport) -> Import {
    let kind = kind(&claim.r#type);
    let import = Import {
        kind,
        account: claim.account.clone(),
        share: claim.share,
        allow_trace: claim.allow_trace,
        ..Import::default()
    };
    let (subject, to) = (claim.subject.clone(), claim.to.clone());
    match (kind, &*claim.local_subject) {
        (Shared::Stream, "") => Import { subject, prefix: to, ..import },
        (Shared::Service, "") if !to.is_empty() => Import { subject: to, to: subject, ..import },
        (_, local) => Import { subject, to: local.to_owned(), ..import },
    }
}

fn mapping((source, destinations): (&String, &Vec<JwtDestination>)) -> MappingSpec {
    let here = destinations.iter().filter(|destination| destination.cluster.is_empty());
    let percent = |weight: u8| if weight == 0 { 100 } else { weight };
    let destinations = here.map(|destination| (destination.subject.clone(), percent(destination.weight))).collect();
    MappingSpec { source: source.clone(), destinations }
}

/// What the key that signed the user's token lays down; `None` where the token speaks for itself.
fn scope<'a>(
    account: &'a Claims<AccountClaims>,
    user: &Claims<UserClaims>,
    strict: &HashSet<String>,
) -> Result<Option<&'a UserClaims>, &'static str> {
    if user.issuer == account.subject && !strict.contains(&account.issuer) {
        return Ok(None);
    }
    let key = account.body.signing_keys.iter().find(|key| key.key() == user.issuer);
    match key.ok_or("user JWT issuer is not known")? {
        SigningKey::Plain(_) => Ok(None),
        SigningKey::Scoped { kind, template, .. } => {
            if kind != "user_scope" {
                return Err("scope of the signing key not known");
            }
            let body = &user.body;
            if body.permissions != JwtPermissions::default() || body.bearer_token || !body.src.is_empty() {
                return Err("users of a scoped key have no permissions of their own");
            }
            Ok(Some(template.as_ref()))
        }
    }
}

fn trace(account: &AccountClaims) -> Option<AccountTrace> {
    let trace = account.trace.as_ref().filter(|trace| subject::is_valid_literal(trace.dest.as_bytes()))?;
    let percent = u8::try_from(trace.sampling).ok().filter(|percent| (1..=100).contains(percent)).unwrap_or(100);
    Some(AccountTrace { dest: trace.dest.clone(), percent })
}

fn jetstream(account: &AccountClaims) -> Option<JetStreamLimits> {
    let limits = &account.limits;
    let of_tier =
        |tier: &serde_json::Value, name: &str| tier.get(name).and_then(serde_json::Value::as_i64).unwrap_or(0);
    if let Some(tier) = limits.tiered_limits.get("R1") {
        return Some(JetStreamLimits {
            max_memory: of_tier(tier, "mem_storage"),
            max_storage: of_tier(tier, "disk_storage"),
            max_streams: unlimited_if_zero(of_tier(tier, "streams")),
            max_consumers: unlimited_if_zero(of_tier(tier, "consumer")),
            max_ack_pending: unlimited_if_zero(of_tier(tier, "max_ack_pending")),
            memory_max_stream_bytes: unlimited_if_zero(of_tier(tier, "mem_max_stream_bytes")),
            storage_max_stream_bytes: unlimited_if_zero(of_tier(tier, "disk_max_stream_bytes")),
            max_bytes_required: tier.get("max_bytes_required").and_then(serde_json::Value::as_bool).unwrap_or(false),
        });
    }
    (limits.mem_storage != 0 || limits.disk_storage != 0).then(|| JetStreamLimits {
        max_memory: limits.mem_storage,
        max_storage: limits.disk_storage,
        max_streams: unlimited_if_zero(limits.streams),
        max_consumers: unlimited_if_zero(limits.consumer),
        max_ack_pending: unlimited_if_zero(limits.max_ack_pending),
        memory_max_stream_bytes: unlimited_if_zero(limits.mem_max_stream_bytes),
        storage_max_stream_bytes: unlimited_if_zero(limits.disk_max_stream_bytes),
        max_bytes_required: limits.max_bytes_required,
    })
}

fn unlimited_if_zero(limit: i64) -> i64 {
    if limit == 0 { -1 } else { limit }
}

/// A JWT's limit; negative means none.
fn bound(limit: i64) -> Option<usize> {
    usize::try_from(limit).ok()
}

pub(super) fn least(left: Option<usize>, right: Option<usize>) -> Option<usize> {
    left.into_iter().chain(right).min()
}

fn may_come_by(types: &[String], way: ConnectionType) -> bool {
    // Types nobody knows count as listed: a list of them alone lets nobody in.
    types.is_empty() || types.iter().any(|name| ConnectionType::parse(name) == Ok(way))
}

pub(super) fn permissions(stated: &JwtPermissions) -> Result<Permissions, String> {
    let rules = |subjects: &JwtSubjects, parse: fn(&str) -> Result<SubjectRule, String>| {
        let list = |texts: &[String]| texts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>();
        let allow = list(&subjects.allow)?;
        Ok::<_, String>(SubjectRules { allow: (!allow.is_empty()).then_some(allow), deny: list(&subjects.deny)? })
    };
    let responses = stated.resp.as_ref().map(|resp| {
        let default = ResponseLimits::default();
        ResponseLimits {
            msgs_max: if resp.max == 0 { default.msgs_max } else { u32::try_from(resp.max).ok() },
            expires: match u64::try_from(resp.ttl) {
                Ok(0) => default.expires,
                Ok(nanos) => Some(Duration::from_nanos(nanos)),
                Err(_) => None,
            },
        }
    });
    Ok(Permissions {
        publish: rules(&stated.publish, SubjectRule::parse_publish)?,
        subscribe: rules(&stated.subscribe, SubjectRule::parse)?,
        responses,
    })
}

/// Whether `network` (CIDR) holds the address.
fn contains(network: &str, ip: Option<IpAddr>) -> bool {
    let parts = network.split_once('/');
    let Some((base, length)) = parts.and_then(|(base, length)| Some((base.parse().ok()?, length.parse().ok()?))) else {
        return false;
    };
    let same = |base: u128, ip: u128, bits: u32, length: u32| {
        length <= bits && (length == 0 || (base ^ ip) >> (bits - length) == 0)
    };
    match (base, ip.map(|ip| ip.to_canonical())) {
        (IpAddr::V4(base), Some(IpAddr::V4(ip))) => same(base.to_bits().into(), ip.to_bits().into(), 32, length),
        (IpAddr::V6(base), Some(IpAddr::V6(ip))) => same(base.to_bits(), ip.to_bits(), 128, length),
        _ => false,
    }
}
