//! `/accountz` and `/accstatz`: the accounts.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::query::{BadQuery, Query};
use super::source::{Account, Identity, Source};
use crate::types::Timestamp;

/// What is asked of `/accountz` and `ACCOUNTZ`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AccountzOptions {
    /// The account to describe; empty to list them.
    account: String,
}

impl AccountzOptions {
    pub fn from_query(query: &Query) -> AccountzOptions {
        AccountzOptions { account: query.text("acc").to_owned() }
    }
}

/// # Errors
/// When the account is not known.
pub fn report(
    identity: &Identity,
    source: &dyn Source,
    options: &AccountzOptions,
    now: Timestamp,
) -> Result<Value, BadQuery> {
    let mut report = json!({
        "server_id": identity.server_id,
        "now": now,
        "system_account": identity.system_account,
    });
    if options.account.is_empty() {
        report["accounts"] = source.accounts().into_iter().map(|account| account.name).collect();
    } else {
        report["account_detail"] = info(identity, source, &options.account)?;
    }
    Ok(report)
}

/// One account (nats-server `AccountInfo`).
///
/// # Errors
/// When the account is not known.
pub fn info(identity: &Identity, source: &dyn Source, name: &str) -> Result<Value, BadQuery> {
    let accounts = source.accounts();
    let Some(account) = accounts.iter().find(|account| account.name == name) else {
        return Err(BadQuery(format!("Account {name} does not exist")));
    };
    let mut info = json!({
        "account_name": account.name,
        "update_time": account.updated,
        "expired": false,
        "complete": true,
        "jetstream_enabled": account.jetstream,
        "leafnode_connections": 0,
        "client_connections": account.connections,
        "subscriptions": account.subscriptions,
        "name_tag": account.name,
        "sublist_stats": account.routes,
    });
    if account.is_system {
        info["is_system"] = json!(true);
    }
    if account.jetstream && !identity.domain.is_empty() {
        info["mappings"] = domain_mappings(&identity.domain);
    }
    Ok(info)
}

/// What `$JS.<domain>.API` is mapped to.
fn domain_mappings(domain: &str) -> Value {
    let to = |subject: &str| json!([{"subject": subject, "weight": 100}]);
    let mut mappings = serde_json::Map::new();
    for group in ["STREAM.>", "CONSUMER.>", "DIRECT.>", "META.>", "SERVER.>", "ACCOUNT.>", "INFO"] {
        mappings.insert(format!("$JS.{domain}.API.{group}"), to(&format!("$JS.API.{group}")));
    }
    for group in ["$KV.>", "$OBJ.>"] {
        mappings.insert(format!("$JS.{domain}.API.{group}"), to(group));
    }
    Value::Object(mappings)
}

/// What is asked of `/accstatz` and `STATZ` (nats-server `AccountStatzOptions`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AccountStatzOptions {
    /// Empty: all.
    pub accounts: Vec<String>,
    /// Accounts without connections too.
    pub include_unused: bool,
}

impl AccountStatzOptions {
    /// # Errors
    /// When a parameter cannot be read.
    pub fn from_query(query: &Query) -> Result<AccountStatzOptions, BadQuery> {
        Ok(AccountStatzOptions { accounts: Vec::new(), include_unused: query.flag("unused")? })
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct AccountStatz {
    server_id: String,
    now: Timestamp,
    pub account_statz: Vec<AccountStat>,
}

/// An account's figures, as STATZ, CONNS and events tell them.
#[derive(Clone, Debug, Serialize)]
pub struct AccountStat {
    acc: String,
    name: String,
    conns: u64,
    leafnodes: u64,
    total_conns: u64,
    num_subscriptions: u64,
    sent: Flow,
    received: Flow,
    slow_consumers: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Flow {
    msgs: u64,
    bytes: u64,
    gateways: Count,
    routes: Count,
    leafs: Count,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Count {
    msgs: u64,
    bytes: u64,
}

impl AccountStat {
    pub fn new(account: &Account) -> AccountStat {
        let flow = |msgs, bytes| {
            let none = Count::default();
            Flow { msgs, bytes, gateways: none, routes: none, leafs: none }
        };
        AccountStat {
            acc: account.name.clone(),
            name: account.name.clone(),
            conns: account.connections,
            leafnodes: 0,
            total_conns: account.connections,
            num_subscriptions: account.subscriptions,
            sent: flow(account.out_msgs, account.out_bytes),
            received: flow(account.in_msgs, account.in_bytes),
            slow_consumers: account.slow_consumers,
        }
    }
}

pub fn statz(identity: &Identity, source: &dyn Source, options: &AccountStatzOptions, now: Timestamp) -> AccountStatz {
    let mut accounts = source.accounts();
    accounts.retain(|account| match options.accounts.as_slice() {
        [] => account.connections > 0 || options.include_unused,
        wanted => wanted.contains(&account.name) && (account.connections > 0 || options.include_unused),
    });
    AccountStatz {
        server_id: identity.server_id.clone(),
        now,
        account_statz: accounts.iter().map(AccountStat::new).collect(),
    }
}
