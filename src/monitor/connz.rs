//! `/connz`: who is connected.

use std::cmp::Reverse;

use serde::Serialize;

use super::query::{BadQuery, Query};
use super::source::{Connection, Source, Subscription};
use super::text;
use crate::types::Timestamp;

/// nats-server's `DefaultConnListSize`.
const LIMIT_DEFAULT: usize = 1024;

#[derive(Serialize)]
pub struct Connz {
    server_id: String,
    now: Timestamp,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    connections: Vec<ConnInfo>,
}

#[derive(Serialize)]
struct ConnInfo {
    cid: u64,
    kind: &'static str,
    r#type: &'static str,
    ip: String,
    port: u16,
    start: Timestamp,
    last_activity: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<String>,
    uptime: String,
    idle: String,
    pending_bytes: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    stalls: u64,
    subscriptions: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name_tag: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list_detail: Vec<SubDetail>,
}

/// One subscription, as `/connz?subs=detail` and `/subsz?subs=1` show it.
#[derive(Serialize)]
pub struct SubDetail {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub account: &'static str,
    pub subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub qgroup: String,
    pub sid: String,
    pub msgs: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub cid: u64,
}

impl SubDetail {
    pub fn new(account: &'static str, cid: u64, from: Subscription) -> SubDetail {
        SubDetail {
            account,
            subject: from.subject,
            qgroup: from.queue,
            sid: from.sid,
            msgs: from.msgs,
            max: from.max,
            cid,
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Clone, Copy, PartialEq)]
enum SubsWanted {
    No,
    Subjects,
    Detail,
}

pub fn report(server_id: &str, source: &dyn Source, query: &Query, now: Timestamp) -> Result<Connz, BadQuery> {
    let sort = Sort::parse(query.text("sort"))?;
    let auth = query.flag("auth")?;
    let subs = if query.text("subs").eq_ignore_ascii_case("detail") {
        SubsWanted::Detail
    } else if query.flag("subs")? {
        SubsWanted::Subjects
    } else {
        SubsWanted::No
    };
    let offset = query.count("offset")?;
    let cid = query.id("cid")?;
    let limit = match query.count("limit")? {
        _ if cid > 0 => 1,
        0 => LIMIT_DEFAULT,
        limit => limit,
    };
    let state = query.text("state").to_ascii_lowercase();
    let open_wanted = match state.as_str() {
        "" | "open" | "any" | "all" => true,
        // Closed connections are not kept.
        "closed" => false,
        other => return Err(BadQuery(format!("Error decoding state for {other}"))),
    };
    if matches!(sort, Sort::Stop | Sort::Reason) && state != "closed" {
        let word = query.text("sort");
        return Err(BadQuery(format!("sort by {word} only valid on closed connections")));
    }
    // There is one account, and nobody has a user name.
    let (account, user) = (query.text("acc"), query.text("user"));
    let known = (account.is_empty() || account == super::jsz::ACCOUNT) && user.is_empty();

    let mut connections = if open_wanted && known { source.connections(subs != SubsWanted::No) } else { Vec::new() };
    let total = connections.len();
    if cid > 0 {
        connections.retain(|connection| connection.id == cid);
    }
    sort.apply(&mut connections);
    let connections: Vec<ConnInfo> = connections
        .into_iter()
        .skip(offset)
        .take(limit)
        .map(|connection| conn_info(connection, subs, auth, now))
        .collect();
    Ok(Connz {
        server_id: server_id.to_owned(),
        now,
        num_connections: connections.len(),
        total,
        offset,
        limit,
        connections,
    })
}

fn conn_info(connection: Connection, subs: SubsWanted, auth: bool, now: Timestamp) -> ConnInfo {
    let (mut subjects, mut details) = (Vec::new(), Vec::new());
    match subs {
        SubsWanted::No => {}
        SubsWanted::Subjects => subjects = connection.subscriptions.into_iter().map(|sub| sub.subject).collect(),
        SubsWanted::Detail => {
            let cid = connection.id;
            details = connection.subscriptions.into_iter().map(|sub| SubDetail::new("", cid, sub)).collect();
        }
    }
    ConnInfo {
        cid: connection.id,
        kind: "Client",
        r#type: "nats",
        ip: connection.remote.map_or_else(String::new, |remote| remote.ip().to_string()),
        port: connection.remote.map_or(0, |remote| remote.port()),
        start: connection.start,
        last_activity: connection.last_activity,
        rtt: connection.round_trip.map(text::go_duration),
        uptime: text::uptime(now.since(connection.start)),
        idle: text::uptime(now.since(connection.last_activity)),
        pending_bytes: connection.pending_bytes,
        in_msgs: connection.in_msgs,
        out_msgs: connection.out_msgs,
        in_bytes: connection.in_bytes,
        out_bytes: connection.out_bytes,
        stalls: connection.stalls,
        subscriptions: connection.num_subscriptions,
        name: connection.name,
        lang: connection.lang,
        version: connection.version,
        name_tag: if auth { super::jsz::ACCOUNT.to_owned() } else { String::new() },
        subscriptions_list: subjects,
        subscriptions_list_detail: details,
    }
}

/// nats-server's `SortOpt`: by id and start ascending, by everything else the largest first.
#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Cid,
    Subs,
    Pending,
    MsgsTo,
    MsgsFrom,
    BytesTo,
    BytesFrom,
    Last,
    Idle,
    Uptime,
    Rtt,
    Stop,
    Reason,
}

impl Sort {
    fn parse(word: &str) -> Result<Sort, BadQuery> {
        Ok(match word {
            "" | "cid" | "start" => Sort::Cid,
            "subs" => Sort::Subs,
            "pending" => Sort::Pending,
            "msgs_to" => Sort::MsgsTo,
            "msgs_from" => Sort::MsgsFrom,
            "bytes_to" => Sort::BytesTo,
            "bytes_from" => Sort::BytesFrom,
            "last" => Sort::Last,
            "idle" => Sort::Idle,
            "uptime" => Sort::Uptime,
            "rtt" => Sort::Rtt,
            "stop" => Sort::Stop,
            "reason" => Sort::Reason,
            other => return Err(BadQuery(format!("invalid sorting option: {other}"))),
        })
    }

    fn apply(self, connections: &mut [Connection]) {
        // Ids break ties, so that pages do not overlap.
        connections.sort_unstable_by_key(|connection| connection.id);
        match self {
            Sort::Cid | Sort::Stop | Sort::Reason => {}
            Sort::Subs => connections.sort_by_key(|connection| Reverse(connection.num_subscriptions)),
            Sort::Pending => connections.sort_by_key(|connection| Reverse(connection.pending_bytes)),
            Sort::MsgsTo => connections.sort_by_key(|connection| Reverse(connection.out_msgs)),
            Sort::MsgsFrom => connections.sort_by_key(|connection| Reverse(connection.in_msgs)),
            Sort::BytesTo => connections.sort_by_key(|connection| Reverse(connection.out_bytes)),
            Sort::BytesFrom => connections.sort_by_key(|connection| Reverse(connection.in_bytes)),
            Sort::Last => connections.sort_by_key(|connection| Reverse(connection.last_activity)),
            Sort::Idle => connections.sort_by_key(|connection| connection.last_activity),
            Sort::Uptime => connections.sort_by_key(|connection| Reverse(connection.start)),
            Sort::Rtt => connections.sort_by_key(|connection| Reverse(connection.round_trip)),
        }
    }
}
