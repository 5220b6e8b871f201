//! `/subsz`: the subscription trie.

use serde::{Deserialize, Serialize};

use super::connz::SubDetail;
use super::query::{BadQuery, Query};
use super::source::{Source, Wanted};
use crate::types::{Timestamp, subject};

/// nats-server's `DefaultSubListSize`.
const LIMIT_DEFAULT: usize = 1024;

#[derive(Serialize)]
pub struct Subsz {
    server_id: String,
    now: Timestamp,
    num_subscriptions: u64,
    num_cache: u64,
    num_inserts: u64,
    num_removes: u64,
    num_matches: u64,
    cache_hit_rate: f64,
    max_fanout: u64,
    avg_fanout: f64,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<SubDetail>,
}

/// What is asked of `/subsz` and `SUBSZ` (nats-server `SubszOptions`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubszOptions {
    offset: i64,
    limit: i64,
    /// Lists the subscriptions.
    pub subscriptions: bool,
    pub account: String,
    /// Only subscriptions that would get a message on this subject.
    test: String,
}

impl SubszOptions {
    /// # Errors
    /// When a parameter cannot be read.
    pub fn from_query(query: &Query) -> Result<SubszOptions, BadQuery> {
        Ok(SubszOptions {
            offset: query.count("offset")? as i64,
            limit: query.count("limit")? as i64,
            subscriptions: query.flag("subs")?,
            account: query.text("acc").to_owned(),
            test: query.text("test").to_owned(),
        })
    }
}

/// # Errors
/// When `test` is no literal subject.
pub fn report(server_id: &str, source: &dyn Source, options: &SubszOptions, now: Timestamp) -> Result<Subsz, BadQuery> {
    let offset = usize::try_from(options.offset).unwrap_or(0);
    let limit = match usize::try_from(options.limit) {
        Err(_) | Ok(0) => LIMIT_DEFAULT,
        Ok(limit) => limit,
    };
    let test = options.test.as_bytes();
    if !test.is_empty() && !subject::is_valid_literal(test) {
        return Err(BadQuery("invalid test subject, must be valid publish subject".to_owned()));
    }
    let mut list = Vec::new();
    if options.subscriptions {
        let wanted = Wanted { account: &options.account, subscriptions: true, ..Wanted::default() };
        let mut connections = source.connections(&wanted);
        connections.sort_unstable_by_key(|connection| connection.id);
        for connection in connections {
            let matching = connection
                .subscriptions
                .into_iter()
                .filter(|sub| test.is_empty() || subject::matches(sub.subject.as_bytes(), test));
            list.extend(matching.map(|sub| SubDetail::new(&connection.account, connection.id, sub)));
        }
    }
    let routes = match options.account.as_str() {
        "" => source.routes(),
        wanted => source.account(wanted).map(|account| account.routes).unwrap_or_default(),
    };
    Ok(Subsz {
        server_id: server_id.to_owned(),
        now,
        num_subscriptions: routes.num_subscriptions,
        num_cache: routes.num_cache,
        num_inserts: routes.num_inserts,
        num_removes: routes.num_removes,
        num_matches: routes.num_matches,
        cache_hit_rate: routes.cache_hit_rate,
        max_fanout: routes.max_fanout,
        avg_fanout: routes.avg_fanout,
        total: list.len(),
        offset,
        limit,
        subscriptions_list: list.into_iter().skip(offset).take(limit).collect(),
    })
}
