//! Who is known, and what CONNECT must show to be let in as whom.
//!
//! Source of the order of rules: nats-server `processClientOrLeafAuthentication`. Different here: whoever sends
//! credentials of a kind that nobody asks for gets no further than without, and an unknown user takes as long as a known.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::callout::{self, CalloutSpec};
use super::certificate::CertificateNames;
use super::connection_type::ConnectionType;
use super::mapping::{Mapping, MappingSpec};
use super::nkey::{KeyKind, PublicKey, shown_key};
use super::operator::Operators;
use super::permission::Permissions;
use super::permit::Permit;
use super::secret::Secret;
use super::sharing::{self, Export, Import, Route, SharingError};
use super::tls_facts::TlsFacts;
use super::{DEFAULT_ACCOUNT, SYSTEM_ACCOUNT};
use crate::protocol::Connect;
use crate::types::{JetStreamLimits, Timestamp};

/// What the configuration says about users and accounts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The one user or token of a server without a list of users.
    pub simple: Option<SimpleLogin>,
    pub users: Vec<User>,
    /// Who comes in as whom without credentials: a user's name or nkey.
    pub no_auth_user: Option<String>,
    /// Accounts beside `$G`.
    pub accounts: Vec<AccountSpec>,
    /// Subjects of `$G`'s clients.
    pub mappings: Vec<MappingSpec>,
    pub system_account: Option<String>,
    /// Operator JWTs: with any, users come with JWTs and by no other way.
    pub operators: Vec<String>,
    /// Account JWTs by account key (`resolver_preload`).
    pub account_jwts: Vec<(String, String)>,
    /// Operators' public keys, without JWTs of theirs.
    pub trusted_keys: Vec<String>,
    /// The JWT of clients that show none.
    pub default_sentinel: Option<String>,
    /// The only accounts whose users may come; `None` for all.
    pub pinned_accounts: Option<Vec<String>>,
    /// Who is asked about users, without operators.
    pub callout: Option<CalloutSpec>,
    /// For clients over WebSocket, when their block has users of its own.
    pub websocket_simple: Option<SimpleLogin>,
    pub websocket_no_auth_user: Option<String>,
}

/// One user for all.
#[derive(Clone, Debug, PartialEq)]
pub enum SimpleLogin {
    Password { user: String, password: Secret },
    Token(Secret),
}

/// One user of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub credential: Credential,
    /// `None`: `$G`.
    pub account: Option<String>,
    /// `None`: everything.
    pub permissions: Option<Permissions>,
    /// Empty: all.
    pub connection_types: Vec<ConnectionType>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Credential {
    Password {
        user: String,
        password: Secret,
    },
    /// A user's public key, which must sign the nonce.
    Nkey(String),
}

/// An account as it is set up at start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccountSpec {
    pub name: String,
    /// What people call it; empty for its name.
    pub name_tag: String,
    /// `None`: no JetStream there.
    pub jetstream: Option<JetStreamLimits>,
    /// `None`: no task coordinator there.
    pub coordinator: Option<CoordinatorSpec>,
    /// `None`: no limit.
    pub connections_max: Option<usize>,
    pub subscriptions_max: Option<usize>,
    pub payload_bytes_max: Option<usize>,
    pub exports: Vec<Export>,
    pub imports: Vec<Import>,
    pub mappings: Vec<MappingSpec>,
    /// Where messages with a sampled `traceparent` header have their way told (ADR-41).
    pub trace: Option<AccountTrace>,
}

/// What an account's task coordinator is held to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoordinatorSpec {
    /// Filters of the subjects that results may be sent to; `None`: as the server's settings say.
    pub result_subjects: Option<Vec<String>>,
    /// The same for offers and statuses of councils.
    pub council_subjects: Option<Vec<String>>,
    pub adopt: Vec<AdoptSpec>,
}

/// A consumer of the account's own whose dead messages its coordinator takes for dead letters of `queue`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdoptSpec {
    pub queue: String,
    pub stream: String,
    pub consumer: String,
}

/// What of an account's messages is traced without their asking for it by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountTrace {
    /// A literal subject.
    pub dest: String,
    /// How many of a hundred are.
    pub percent: u8,
}

/// A plan that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    #[error("Duplicate user {0:?} detected")]
    DuplicateUser(String),
    #[error("not a valid public nkey for a user: {}", shown_key(.0))]
    Nkey(String),
    #[error("no_auth_user: {0:?} not present as user or nkey in authorization block or account configuration")]
    NoAuthUser(String),
    #[error("duplicate account {0:?}")]
    DuplicateAccount(String),
    #[error("user {user:?} belongs to account {account:?}, which does not exist")]
    UserAccount { user: String, account: String },
    #[error("system_account {0:?} does not exist: define it under accounts, or preload its JWT")]
    SystemAccount(String),
    #[error("operators and users exclude each other: with an operator, users come with JWTs")]
    OperatorAndUsers,
    #[error(transparent)]
    Sharing(SharingError),
    #[error("Error adding mapping for {subject:?} : {reason}")]
    Mapping { subject: String, reason: String },
    #[error("operator JWT: {0}")]
    Operator(super::ClaimsError),
    #[error("{0}")]
    Callout(String),
    #[error("default_sentinel is no bearer token of an account known here")]
    Sentinel,
    #[error("account JWT of {account}: {reason}")]
    AccountJwt { account: String, reason: String },
}

impl BookError {
    /// Keys and values of a config file that it may be about, the likeliest first.
    pub fn words(&self) -> Vec<&str> {
        match self {
            BookError::DuplicateUser(name) | BookError::Nkey(name) | BookError::DuplicateAccount(name) => vec![name],
            BookError::NoAuthUser(_) => vec!["no_auth_user"],
            BookError::UserAccount { user, .. } => vec![user],
            BookError::SystemAccount(_) => vec!["system_account", "system"],
            BookError::OperatorAndUsers | BookError::Operator(_) => vec!["operator"],
            BookError::Callout(_) => vec!["auth_callout"],
            BookError::Sentinel => vec!["default_sentinel"],
            BookError::Sharing(error) => vec![error.word()],
            BookError::Mapping { subject, .. } => vec![subject],
            BookError::AccountJwt { account, .. } => vec![account],
        }
    }
}

/// What a client shows when it says CONNECT, and how it came.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    pub connect: &'a Connect,
    /// As it stood in INFO.
    pub nonce: &'a str,
    pub connection_type: ConnectionType,
    pub ip: Option<IpAddr>,
    /// The peer's certificate, where certificates stand for users (`verify_and_map`).
    pub certificate: Option<&'a CertificateNames>,
    /// What its TLS handshake settled, if there was one.
    pub tls: Option<&'a TlsFacts>,
    /// Whether they do at the listener it came by.
    pub maps_certificates: bool,
    pub now: Timestamp,
}

/// What is done about a CONNECT.
#[derive(Debug)]
pub enum Verdict {
    Granted(Arc<Grant>),
    Refused(Refusal),
    /// As `Granted` once the slow hash agrees.
    CheckPassword(PasswordCheck),
}

/// Why not, for the log. The client is told `Authorization Violation` whatever it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub &'static str);

/// A hash that must be checked where slow work is done ([`super::check_hash`]).
#[derive(Debug)]
pub struct PasswordCheck {
    pub hash: Secret,
    pub presented: Secret,
    /// `None` for a user that does not exist: the check takes its time and then fails all the same.
    pub grant: Option<Arc<Grant>>,
}

/// What a client that was let in is and may do.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// The account's name.
    pub account: String,
    pub login: Login,
    /// `None`: everything.
    pub permit: Option<Arc<Permit>>,
    pub limits: UserLimits,
    /// The connection ends then.
    pub expires: Option<Timestamp>,
    /// It is the account that does.
    pub expires_with_account: bool,
}

/// What is told of a user in logs and monitoring. Never a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The user's name, or its public key.
    pub user: String,
    /// The key that issued its JWT.
    pub issuer: String,
    /// The name in its JWT.
    pub name_tag: String,
    pub tags: Vec<String>,
}

/// `None`: the server's limit alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    pub subscriptions: Option<usize>,
    pub payload_bytes: Option<usize>,
}

/// See the module. Immutable: a reload writes a new one.
#[derive(Debug)]
pub struct Book {
    simple: Option<(SimpleLogin, Arc<Grant>)>,
    users: HashMap<String, Known>,
    nkeys: HashMap<String, Known>,
    no_auth_user: Option<String>,
    websocket_simple: Option<(SimpleLogin, Arc<Grant>)>,
    websocket_no_auth_user: Option<String>,
    pub(super) operators: Option<Operators>,
    pub(super) callout: Option<CalloutSpec>,
    accounts: Vec<AccountSpec>,
    routes: Vec<Route>,
    complaints: Vec<SharingError>,
    mappings: Vec<MappingSpec>,
    system_account: String,
    /// Some user's hash, checked in place of one that does not exist.
    decoy: Option<Secret>,
}

#[derive(Debug)]
struct Known {
    password: Secret,
    key: Option<PublicKey>,
    connection_types: Vec<ConnectionType>,
    grant: Arc<Grant>,
}

impl Known {
    fn may_come_by(&self, way: ConnectionType) -> bool {
        self.connection_types.is_empty() || self.connection_types.contains(&way)
    }
}

impl Book {
    /// # Errors
    /// The first contradiction in the plan.
    pub fn new(plan: &Plan) -> Result<Book, BookError> {
        let mut accounts = plan.accounts.clone();
        let operators = match plan.operators.is_empty() && plan.trusted_keys.is_empty() {
            true => None,
            false if !plan.users.is_empty() || plan.simple.is_some() => return Err(BookError::OperatorAndUsers),
            false => Some(Operators::new(plan)?),
        };
        accounts.extend(operators.iter().flat_map(Operators::accounts));
        for (at, account) in accounts.iter().enumerate() {
            if accounts[..at].iter().any(|other| other.name == account.name) {
                return Err(BookError::DuplicateAccount(account.name.clone()));
            }
        }
        let exists = |name: &str| {
            name == DEFAULT_ACCOUNT || name == SYSTEM_ACCOUNT || accounts.iter().any(|account| account.name == name)
        };
        let named = plan.system_account.clone().or_else(|| operators.as_ref().and_then(Operators::system_account));
        let system_account = named.unwrap_or_else(|| SYSTEM_ACCOUNT.to_owned());
        if !exists(&system_account) {
            return Err(BookError::SystemAccount(system_account));
        }
        let (routes, complaints) = sharing::routes(&accounts);
        // What an account's token asks for in vain is its own affair.
        if let (Some(error), None) = (complaints.first(), &operators) {
            return Err(BookError::Sharing(error.clone()));
        }
        for spec in accounts.iter().flat_map(|account| &account.mappings).chain(&plan.mappings) {
            let bad = |reason| BookError::Mapping { subject: spec.source.clone(), reason };
            Mapping::new(spec).map_err(bad)?;
        }
        let mut book = Book {
            simple: plan.simple.clone().map(with_grant),
            users: HashMap::new(),
            nkeys: HashMap::new(),
            no_auth_user: plan.no_auth_user.clone(),
            websocket_simple: plan.websocket_simple.clone().map(with_grant),
            websocket_no_auth_user: plan.websocket_no_auth_user.clone(),
            operators,
            callout: plan.callout.clone(),
            system_account,
            decoy: None,
            routes,
            complaints,
            mappings: plan.mappings.clone(),
            accounts: Vec::new(),
        };
        for user in &plan.users {
            let account = user.account.as_deref().unwrap_or(DEFAULT_ACCOUNT);
            let spec = accounts.iter().find(|spec| spec.name == account);
            if !exists(account) {
                let user = user.credential.name().to_owned();
                return Err(BookError::UserAccount { user, account: account.to_owned() });
            }
            book.add(user, account, spec)?;
        }
        let has_callout_account = plan.callout.as_ref().is_some_and(|spec| exists(&spec.account));
        book.accounts = accounts;
        if let Some(spec) = &plan.callout {
            book.check_callout(spec, has_callout_account)?;
        }
        for name in [&plan.no_auth_user, &plan.websocket_no_auth_user].into_iter().flatten() {
            if book.operators.is_some() || !book.users.contains_key(name) && !book.nkeys.contains_key(name) {
                return Err(BookError::NoAuthUser(name.clone()));
            }
        }
        Ok(book)
    }

    fn check_callout(&self, spec: &CalloutSpec, has_account: bool) -> Result<(), BookError> {
        let bad = |reason: String| Err(BookError::Callout(reason));
        if self.operators.is_some() {
            return bad("operators do not allow authorization callouts to be configured directly".to_owned());
        }
        if !callout::is_issuer(&spec.issuer) {
            return bad(format!(
                "expected callout user to be a valid public account nkey, got {}",
                shown_key(&spec.issuer)
            ));
        }
        if !has_account {
            return bad(format!("Authorization callout account {:?} not valid", spec.account));
        }
        // An answer of nobody is no answer: nobody could ever come in.
        match spec.users.iter().find(|name| self.find(name).is_none()) {
            Some(user) => bad(format!("Authorization callout user {user:?} not valid")),
            None => Ok(()),
        }
    }

    /// A book in which everybody is welcome.
    pub fn open() -> Book {
        Book::new(&Plan::default()).expect("an empty plan contradicts nothing")
    }

    fn add(&mut self, user: &User, account: &str, spec: Option<&AccountSpec>) -> Result<(), BookError> {
        let name = user.credential.name().to_owned();
        let (password, key) = match &user.credential {
            Credential::Password { password, .. } => (password.clone(), None),
            Credential::Nkey(key) => {
                let parsed = PublicKey::parse(key, KeyKind::User).ok_or_else(|| BookError::Nkey(key.clone()))?;
                (Secret::default(), Some(parsed))
            }
        };
        if password.is_hash() {
            self.decoy.get_or_insert_with(|| password.clone());
        }
        let grant = Grant {
            account: account.to_owned(),
            login: Login { user: name.clone(), ..Login::default() },
            permit: user.permissions.as_ref().and_then(Permit::new).map(Arc::new),
            limits: UserLimits {
                subscriptions: spec.and_then(|spec| spec.subscriptions_max),
                payload_bytes: spec.and_then(|spec| spec.payload_bytes_max),
            },
            expires: None,
            expires_with_account: false,
        };
        let table = if key.is_some() { &mut self.nkeys } else { &mut self.users };
        let known = Known { password, key, connection_types: user.connection_types.clone(), grant: Arc::new(grant) };
        match table.insert(name.clone(), known) {
            None => Ok(()),
            Some(_) => Err(BookError::DuplicateUser(name)),
        }
    }

    /// Accounts beside `$G`, and beside `$SYS` unless the plan says something about it.
    pub fn accounts(&self) -> &[AccountSpec] {
        &self.accounts
    }

    /// What leads from one account into another.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Exports and imports in accounts' tokens that do not hold.
    pub fn complaints(&self) -> &[SharingError] {
        &self.complaints
    }

    /// What an account's clients publish to that is routed as something else.
    pub fn mappings(&self, account: &str) -> &[MappingSpec] {
        match self.accounts.iter().find(|spec| spec.name == account) {
            Some(spec) => &spec.mappings,
            None if account == DEFAULT_ACCOUNT => &self.mappings,
            None => &[],
        }
    }

    pub fn system_account(&self) -> &str {
        &self.system_account
    }

    /// Whether a client that comes this way must say who it is.
    pub fn is_required(&self, way: ConnectionType) -> bool {
        self.operators.is_some()
            || !self.users.is_empty()
            || !self.nkeys.is_empty()
            || self.simple.is_some()
            || way == ConnectionType::WebSocket && self.websocket_simple.is_some()
    }

    /// Whether INFO tells a client that it needs credentials: not where some user needs none.
    pub fn is_announced(&self, way: ConnectionType) -> bool {
        self.is_required(way) && self.no_auth_user(way).is_none()
    }

    /// Whether clients are given something to sign.
    pub fn needs_nonce(&self) -> bool {
        self.operators.is_some() || !self.nkeys.is_empty()
    }

    /// Whether it counts JWTs only.
    pub fn is_operator_mode(&self) -> bool {
        self.operators.is_some()
    }

    /// What a client without need of credentials is.
    pub fn guest() -> Arc<Grant> {
        Arc::new(Grant { account: DEFAULT_ACCOUNT.to_owned(), ..Grant::default() })
    }

    fn no_auth_user(&self, way: ConnectionType) -> Option<&str> {
        let own = self.websocket_no_auth_user.as_deref().filter(|_| way == ConnectionType::WebSocket);
        own.or(self.no_auth_user.as_deref().filter(|_| !(self.overrides(way))))
    }

    /// Whether clients over WebSocket have credentials of their own.
    fn overrides(&self, way: ConnectionType) -> bool {
        way == ConnectionType::WebSocket && (self.websocket_simple.is_some() || self.websocket_no_auth_user.is_some())
    }

    /// Whether the user that a client says it is is known no more: not which password it has. Nothing is said of JWTs,
    /// tokens and certificates (nats-server `clientHasMovedToDifferentAccount`).
    pub fn has_no_more(&self, connect: &Connect, way: ConnectionType) -> bool {
        // With callouts users come from elsewhere.
        if !self.is_required(way) || self.operators.is_some() || self.callout.is_some() {
            return false;
        }
        if !connect.nkey.is_empty() {
            return !self.nkeys.contains_key(&*connect.nkey);
        }
        let is_simple = |own: &Option<(SimpleLogin, Arc<Grant>)>| {
            own.as_ref()
                .is_some_and(|(login, _)| matches!(login, SimpleLogin::Password { user, .. } if *user == connect.user))
        };
        !connect.user.is_empty()
            && !self.users.contains_key(&*connect.user)
            && !is_simple(&self.simple)
            && !is_simple(&self.websocket_simple)
    }

    /// Decides over a CONNECT.
    pub fn judge(&self, presented: &Presented<'_>) -> Verdict {
        let way = presented.connection_type;
        if !self.is_required(way) {
            return Verdict::Granted(Book::guest());
        }
        if let Some(operators) = &self.operators {
            return operators.judge(presented);
        }
        let connect = presented.connect;
        let bare = connect.user.is_empty()
            && connect.pass.is_empty()
            && connect.auth_token.is_empty()
            && connect.nkey.is_empty();
        if presented.maps_certificates && connect.nkey.is_empty() && !self.users.is_empty() {
            return self.judge_certificate(presented);
        }
        if bare && let Some(known) = self.no_auth_user(way).and_then(|name| self.find(name)) {
            return match known.may_come_by(way) {
                true => Verdict::Granted(known.grant.clone()),
                false => Verdict::Refused(Refusal("no_auth_user may not come this way")),
            };
        }
        if !connect.nkey.is_empty() && !self.nkeys.is_empty() {
            return self.judge_nkey(presented);
        }
        if !connect.user.is_empty() && !self.users.is_empty() {
            let known = self.users.get(&*connect.user).filter(|known| known.may_come_by(way));
            let Some(known) = known else {
                return self.refuse(Refusal("unknown user"), &connect.pass);
            };
            // An empty password is no password, but for whom needs none anyway.
            if known.password.is_empty() && self.no_auth_user(way) != Some(&connect.user) {
                return self.refuse(Refusal("the user has no password"), &connect.pass);
            }
            return match check(&known.password, &connect.pass, &known.grant) {
                Verdict::Refused(refusal) => self.refuse(refusal, &connect.pass),
                verdict => verdict,
            };
        }
        let own = if self.overrides(way) { &self.websocket_simple } else { &self.simple };
        match own {
            Some((SimpleLogin::Token(token), grant)) => check(token, &connect.auth_token, grant),
            Some((SimpleLogin::Password { user, password }, grant)) => match *user == connect.user {
                true => check(password, &connect.pass, grant),
                false if password.is_hash() => decoy(password, &connect.pass),
                false => Verdict::Refused(Refusal("unknown user")),
            },
            None => Verdict::Refused(Refusal("no credentials")),
        }
    }

    fn find(&self, name: &str) -> Option<&Known> {
        self.users.get(name).or_else(|| self.nkeys.get(name))
    }

    fn judge_nkey(&self, presented: &Presented<'_>) -> Verdict {
        let connect = presented.connect;
        let known = self.nkeys.get(&*connect.nkey).filter(|known| known.may_come_by(presented.connection_type));
        let Some(known) = known else { return Verdict::Refused(Refusal("unknown nkey")) };
        let signed = !presented.nonce.is_empty()
            && known.key.as_ref().is_some_and(|key| key.verifies_text(presented.nonce.as_bytes(), &connect.sig));
        match signed {
            true => Verdict::Granted(known.grant.clone()),
            false => Verdict::Refused(Refusal("signature not verified")),
        }
    }

    fn judge_certificate(&self, presented: &Presented<'_>) -> Verdict {
        let Some(names) = presented.certificate else {
            return Verdict::Refused(Refusal("no client certificate"));
        };
        let way = presented.connection_type;
        let users = self.users.iter().filter(|(_, known)| known.may_come_by(way));
        let found = names.find_user(
            |name| self.users.get(name).filter(|known| known.may_come_by(way)),
            users.map(|(name, known)| (name.as_str(), known)),
        );
        match found {
            None => Verdict::Refused(Refusal("no user for the client certificate")),
            // The certificate is the credential; a password beside it must still be right.
            Some(known) if known.password.is_empty() => Verdict::Granted(known.grant.clone()),
            Some(known) => check(&known.password, &presented.connect.pass, &known.grant),
        }
    }

    /// Where one user's password is a hash every refusal takes as long, so that the time does not tell who is known.
    fn refuse(&self, refusal: Refusal, password: &str) -> Verdict {
        match &self.decoy {
            Some(hash) => decoy(hash, password),
            None => Verdict::Refused(refusal),
        }
    }
}

impl Credential {
    fn name(&self) -> &str {
        match self {
            Credential::Password { user, .. } => user,
            Credential::Nkey(key) => key,
        }
    }
}

fn with_grant(simple: SimpleLogin) -> (SimpleLogin, Arc<Grant>) {
    let user = match &simple {
        SimpleLogin::Password { user, .. } => user.clone(),
        SimpleLogin::Token(_) => String::new(),
    };
    let login = Login { user, ..Login::default() };
    (simple, Arc::new(Grant { account: DEFAULT_ACCOUNT.to_owned(), login, ..Grant::default() }))
}

fn check(secret: &Secret, presented: &str, grant: &Arc<Grant>) -> Verdict {
    if secret.is_hash() {
        return Verdict::CheckPassword(PasswordCheck {
            hash: secret.clone(),
            presented: Secret::new(presented),
            grant: Some(grant.clone()),
        });
    }
    match secret.is(presented) {
        true => Verdict::Granted(grant.clone()),
        false => Verdict::Refused(Refusal("wrong password or token")),
    }
}

fn decoy(hash: &Secret, presented: &str) -> Verdict {
    Verdict::CheckPassword(PasswordCheck { hash: hash.clone(), presented: Secret::new(presented), grant: None })
}
