//! `authorization`, `accounts` and what stands around them (nats-server `parseAuthorization`, `parseAccounts`,
//! `parseUsers`).

use super::coordinator;
use super::permissions;
use super::place::FileError;
use super::report::Report;
use super::sharing;
use super::value::{Entry, Kind, Value};
use crate::auth::{
    self, AccountSpec, AccountTrace, CalloutSpec, ConnectionType, Credential, DEFAULT_ACCOUNT, Permissions, Secret,
    SimpleLogin, User,
};
use crate::config::Config;
use crate::types::{JetStreamLimits, subject};

const AUTHORIZATION: &[&str] =
    &["auth_callout", "default_permissions", "password", "timeout", "token", "user", "users"];
const USER: &[&str] = &["allowed_connection_types", "nkey", "password", "permissions", "user"];
const ACCOUNT: &[&str] = &[
    "coordinator",
    "default_permissions",
    "exports",
    "imports",
    "jetstream",
    "limits",
    "mappings",
    "msg_trace",
    "nkey",
    "users",
];
const ACCOUNT_JETSTREAM: &[&str] = &[
    "disk_max_stream_bytes",
    "max_ack_pending",
    "max_bytes_required",
    "max_consumers",
    "max_file",
    "max_memory",
    "max_streams",
    "mem_max_stream_bytes",
];

/// The one user or token of a block, and the users it lists.
#[derive(Default)]
pub(super) struct Logins {
    pub(super) user: String,
    pub(super) password: String,
    pub(super) token: String,
    pub(super) users: Vec<User>,
}

impl Logins {
    pub(super) fn simple(&self) -> Option<SimpleLogin> {
        match (&*self.user, &*self.token) {
            ("", "") => None,
            ("", token) => Some(SimpleLogin::Token(Secret::new(token))),
            (user, _) => Some(SimpleLogin::Password { user: user.to_owned(), password: Secret::new(&*self.password) }),
        }
    }
}

/// `authorization {}` at the top.
pub(super) fn authorization(value: &Value, config: &mut Config, report: &mut Report) {
    let Some(map) = report.ok(value.map()) else { return };
    let mut logins = Logins::default();
    let mut defaults = None;
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            "user" | "username" => report.set(&mut logins.user, text(value)),
            "pass" | "password" => report.set(&mut logins.password, text(value)),
            "token" => report.set(&mut logins.token, text(value)),
            "timeout" => report.set(&mut config.limits.auth_timeout, value.duration()),
            "users" => logins.users = users(value, None, report),
            "default_permission" | "default_permissions" | "permissions" => {
                defaults = permissions::read(value, report);
            }
            "auth_callout" => config.auth.callout = callout(value, report),
            "proxy_required" => report.error(entry.wrong(format!("{:?}: there are no proxies here", entry.key))),
            _ => report.unknown(entry, AUTHORIZATION),
        }
    }
    if !logins.user.is_empty() && !logins.token.is_empty() {
        report.error(value.wrong("Cannot have a user/pass and token"));
    }
    if !logins.users.is_empty() && (!logins.user.is_empty() || !logins.token.is_empty()) {
        report.error(value.wrong("Can not have a single user/pass or token and a users array"));
    }
    give_defaults(&mut logins.users, defaults);
    config.auth.simple = logins.simple();
    config.auth.users.extend(logins.users);
}

/// `auth_callout` (nats-server `parseAuthCallout`).
fn callout(value: &Value, report: &mut Report) -> Option<CalloutSpec> {
    let map = report.ok(value.map())?;
    let (mut account, mut xkey, mut issuer) = ("$G".to_owned(), None, None);
    let (mut users, mut allowed_accounts) = (Vec::new(), Vec::new());
    let list = |value: &Value| value.texts().map(|texts| texts.into_iter().map(str::to_owned).collect());
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            "issuer" => {
                let key = report.ok(text(value))?;
                if !auth::is_issuer(&key) {
                    let key = auth::shown_key(&key);
                    let reason = format!("Expected callout user to be a valid public account nkey, got {key}");
                    report.error(value.wrong(reason));
                }
                issuer = Some(key);
            }
            "account" | "acc" => report.set(&mut account, text(value)),
            "auth_users" | "users" => report.set(&mut users, list(value)),
            "xkey" | "key" => {
                let key = report.ok(text(value))?;
                if !auth::is_xkey(&key) {
                    let key = auth::shown_key(&key);
                    report.error(value.wrong(format!("Expected callout xkey to be a valid public xkey, got {key}")));
                }
                xkey = Some(key);
            }
            "allowed_accounts" => report.set(&mut allowed_accounts, list(value)),
            _ => report.unknown(entry, &["account", "allowed_accounts", "auth_users", "issuer", "xkey"]),
        }
    }
    let Some(issuer) = issuer else {
        report.error(value.wrong("Authorization callouts require an issuer to be specified"));
        return None;
    };
    if users.is_empty() {
        report.error(value.wrong("Authorization callouts require authorized users to be specified"));
    }
    Some(CalloutSpec { issuer, account, users, xkey, allowed_accounts })
}

fn give_defaults(users: &mut [User], defaults: Option<Permissions>) {
    for user in users {
        if user.permissions.is_none() {
            user.permissions.clone_from(&defaults);
        }
    }
}

fn text(value: &Value) -> Result<String, FileError> {
    value.text().map(str::to_owned)
}

/// A list of users; in an account they are its own.
fn users(value: &Value, account: Option<&str>, report: &mut Report) -> Vec<User> {
    let Some(list) = report.ok(value.array()) else { return Vec::new() };
    list.iter().filter_map(|value| user(value, account, report)).collect()
}

fn user(value: &Value, account: Option<&str>, report: &mut Report) -> Option<User> {
    let map = report.ok(value.map())?;
    let (mut name, mut password, mut nkey) = (String::new(), None, String::new());
    let mut permissions = None;
    let mut connection_types = Vec::new();
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            "user" | "username" => report.set(&mut name, text(value)),
            "pass" | "password" => report.set(&mut password, text(value).map(Some)),
            "nkey" => report.set(&mut nkey, text(value)),
            "permission" | "permissions" | "authorization" => permissions = permissions::read(value, report),
            "allowed_connection_types" | "connection_types" | "clients" => {
                let names = report.ok(value.texts()).unwrap_or_default();
                for name in names {
                    connection_types.extend(report.ok(ConnectionType::parse(name).map_err(|text| value.wrong(text))));
                }
            }
            "proxy_required" => report.error(entry.wrong(format!("{:?}: there are no proxies here", entry.key))),
            _ => report.unknown(entry, USER),
        }
    }
    let credential = match (&*name, &*nkey) {
        ("", "") => {
            report.error(value.wrong("User entry requires a user"));
            return None;
        }
        (_, "") => Credential::Password { user: name, password: Secret::new(password.unwrap_or_default()) },
        ("", _) if password.is_none() => Credential::Nkey(nkey),
        _ => {
            report.error(value.wrong("User entry has both a nkey and a user or password"));
            return None;
        }
    };
    Some(User { credential, account: account.map(str::to_owned), permissions, connection_types })
}

/// `accounts {}`, or a list of names.
pub(super) fn accounts(value: &Value, config: &mut Config, report: &mut Report) {
    if let Kind::Array(names) = &value.kind {
        for value in names {
            if let Some(name) = report.ok(text(value)) {
                config.auth.accounts.push(AccountSpec { name, ..AccountSpec::default() });
            }
        }
        return;
    }
    let Some(map) = report.ok(value.map()) else { return };
    for entry in map.iter().filter(|entry| !entry.is_variable) {
        account(entry, config, report);
    }
}

fn account(entry: &Entry, config: &mut Config, report: &mut Report) {
    let Some(map) = report.ok(entry.value.map()) else { return };
    let mut spec = AccountSpec { name: entry.key.clone(), ..AccountSpec::default() };
    let mut members = Vec::new();
    let mut defaults = None;
    let mut asked_for_tasks = None;
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            "users" => members = users(value, Some(&spec.name), report),
            "jetstream" => spec.jetstream = jetstream(value, report),
            "coordinator" => {
                spec.coordinator = coordinator::of_account(value, report);
                asked_for_tasks = Some(entry);
            }
            "default_permission" | "default_permissions" | "permissions" => {
                defaults = permissions::read(value, report);
            }
            "limits" => limits(value, &mut spec, report),
            // The account's own key: who could sign with it could not do so here.
            "nkey" => drop(report.ok(value.text())),
            "exports" => spec.exports = sharing::exports(value, report),
            "imports" => spec.imports = sharing::imports(value, report),
            "mappings" | "maps" => spec.mappings = sharing::mappings(value, report),
            "msg_trace" | "trace_dest" => spec.trace = trace(entry, report),
            "cluster_traffic" => report.unserved(entry, "natterjack is one server"),
            _ => report.unknown(entry, ACCOUNT),
        }
    }
    if let Some(entry) = asked_for_tasks
        && spec.coordinator.is_some()
        && spec.jetstream.is_none()
        && spec.name != DEFAULT_ACCOUNT
    {
        let name = &spec.name;
        report.error(entry.wrong(format!(
            "the coordinator keeps tasks in streams, which account {name:?} has none of: add `jetstream: enabled` beside it"
        )));
    }
    give_defaults(&mut members, defaults);
    config.auth.users.extend(members);
    config.auth.accounts.push(spec);
}

/// A destination, or `dest` and `sampling` (nats-server `parseAccountMsgTrace`).
fn trace(entry: &Entry, report: &mut Report) -> Option<AccountTrace> {
    let mut dest = None;
    let mut percent = None;
    let read_dest = |value: &Value, report: &mut Report| {
        let text = report.ok(text(value))?;
        match subject::is_valid_literal(text.as_bytes()) {
            true => Some(text),
            false => {
                report.error(value.wrong(format!("Trace destination {text:?} is not valid")));
                None
            }
        }
    };
    match &entry.value.kind {
        Kind::Map(map) => {
            for entry in map.iter() {
                let value = &entry.value;
                match entry.name().as_str() {
                    "dest" => dest = read_dest(value, report),
                    "sampling" => {
                        let number = match &value.kind {
                            Kind::Text(text) => text.strip_suffix('%').unwrap_or(text).parse().ok(),
                            _ => value.integer().ok(),
                        };
                        percent = number.and_then(|number: i64| u8::try_from(number).ok());
                        if !percent.is_some_and(|percent| (1..=100).contains(&percent)) {
                            report.error(value.wrong("Trace destination sampling is invalid, needs to be [1..100]"));
                        }
                    }
                    _ => report.unknown(entry, &["dest", "sampling"]),
                }
            }
        }
        _ => dest = read_dest(&entry.value, report),
    }
    if dest.is_none() && percent.is_some() {
        report.warnings.push(format!("{}: sampling is ignored since no trace destination was set", entry.at));
    }
    dest.map(|dest| AccountTrace { dest, percent: percent.unwrap_or(100) })
}

fn limits(value: &Value, spec: &mut AccountSpec, report: &mut Report) {
    let Some(map) = report.ok(value.map()) else { return };
    for entry in map.iter() {
        let bound = || entry.value.integer().map(|number| usize::try_from(number).ok());
        match entry.name().as_str() {
            "max_connections" | "max_conn" => report.set(&mut spec.connections_max, bound()),
            "max_subscriptions" | "max_subs" => report.set(&mut spec.subscriptions_max, bound()),
            "max_payload" | "max_pay" => report.set(&mut spec.payload_bytes_max, bound()),
            "max_leafnodes" | "max_leafs" => report.unserved(entry, "natterjack has no leaf nodes"),
            _ => report.unknown(entry, &["max_connections", "max_payload", "max_subscriptions"]),
        }
    }
}

fn jetstream(value: &Value, report: &mut Report) -> Option<JetStreamLimits> {
    let map = match &value.kind {
        Kind::Bool(on) => return on.then(JetStreamLimits::default),
        Kind::Text(word) => match &*word.to_ascii_lowercase() {
            "enabled" | "enable" => return Some(JetStreamLimits::default()),
            "disabled" | "disable" => return None,
            _ => {
                report.error(value.wrong("Expected 'enabled' or 'disabled' for string value"));
                return None;
            }
        },
        Kind::Map(map) => map,
        _ => {
            report.error(value.wrong("Expected map, bool or string to define JetStream"));
            return None;
        }
    };
    let mut limits = JetStreamLimits::default();
    for entry in map.iter() {
        let (value, limits) = (&entry.value, &mut limits);
        match entry.name().as_str() {
            "max_memory" | "max_mem" | "mem" | "memory" => report.set(&mut limits.max_memory, value.integer()),
            "max_store" | "max_file" | "max_disk" | "store" | "disk" => {
                report.set(&mut limits.max_storage, value.integer());
            }
            "max_streams" | "streams" => report.set(&mut limits.max_streams, value.integer()),
            "max_consumers" | "consumers" => report.set(&mut limits.max_consumers, value.integer()),
            "max_bytes_required" | "max_stream_bytes" | "max_bytes" => {
                report.set(&mut limits.max_bytes_required, value.bool());
            }
            "mem_max_stream_bytes" | "memory_max_stream_bytes" => {
                report.set(&mut limits.memory_max_stream_bytes, value.integer());
            }
            "disk_max_stream_bytes" | "store_max_stream_bytes" => {
                report.set(&mut limits.storage_max_stream_bytes, value.integer());
            }
            "max_ack_pending" => report.set(&mut limits.max_ack_pending, value.integer()),
            "cluster_traffic" => report.unserved(entry, "natterjack is one server"),
            _ => report.unknown(entry, ACCOUNT_JETSTREAM),
        }
    }
    Some(limits)
}

/// `operator`: JWTs, or files that hold one.
pub(super) fn operators(value: &Value, config: &mut Config, report: &mut Report) {
    for text in report.ok(value.texts()).unwrap_or_default() {
        if text.starts_with("eyJ") {
            config.auth.operators.push(text.to_owned());
            continue;
        }
        let found = std::fs::read_to_string(text).map_err(|error| value.wrong(format!("{text}: {error}")));
        let Some(content) = report.ok(found) else { continue };
        match content.lines().map(str::trim).find(|line| line.starts_with("eyJ")) {
            Some(token) => config.auth.operators.push(token.to_owned()),
            None => report.error(value.wrong(format!("{text}: no JWT in it"))),
        }
    }
}

/// `resolver`: where account JWTs come from.
pub(super) fn resolver(entry: &Entry, report: &mut Report) {
    let memory = entry.value.text().is_ok_and(|text| matches!(&*text.to_ascii_uppercase(), "MEM" | "MEMORY"));
    if !memory {
        report.error(entry.wrong("account JWTs come from resolver_preload: only the MEMORY resolver is served"));
    }
}

/// `resolver_preload`: account JWTs by account key.
pub(super) fn preload(value: &Value, config: &mut Config, report: &mut Report) {
    let Some(map) = report.ok(value.map()) else { return };
    for entry in map.iter().filter(|entry| !entry.is_variable) {
        if let Some(token) = report.ok(text(&entry.value)) {
            config.auth.account_jwts.push((entry.key.clone(), token));
        }
    }
}

/// A name that may also be said not to be there.
pub(super) fn name(value: &Value, setting: &mut Option<String>, report: &mut Report) {
    report.set(setting, text(value).map(Some));
}
