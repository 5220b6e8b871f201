//! `/subsz`: the subscription trie.

use serde::Serialize;

use super::connz::SubDetail;
use super::jsz::ACCOUNT;
use super::query::{BadQuery, Query};
use super::source::Source;
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

/// `subs=1` lists the subscriptions, `test=<subject>` only those that would get a message on it.
pub fn report(server_id: &str, source: &dyn Source, query: &Query, now: Timestamp) -> Result<Subsz, BadQuery> {
    let subs_wanted = query.flag("subs")?;
    let offset = query.count("offset")?;
    let limit = match query.count("limit")? {
        0 => LIMIT_DEFAULT,
        limit => limit,
    };
    let test = query.text("test");
    if !test.is_empty() && !subject::is_valid_literal(test.as_bytes()) {
        return Err(BadQuery("invalid test subject, must be valid publish subject".to_owned()));
    }
    let account = query.text("acc");
    let mut list = Vec::new();
    if subs_wanted && (account.is_empty() || account == ACCOUNT) {
        let mut connections = source.connections(true);
        connections.sort_unstable_by_key(|connection| connection.id);
        for connection in connections {
            let matching = connection
                .subscriptions
                .into_iter()
                .filter(|sub| test.is_empty() || subject::matches(sub.subject.as_bytes(), test.as_bytes()));
            list.extend(matching.map(|sub| SubDetail::new(ACCOUNT, connection.id, sub)));
        }
    }
    let routes = source.routes();
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
