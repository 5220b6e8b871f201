//! `/connz`: who is connected.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::query::{BadQuery, Query};
use super::source::{Connection, PeerCertificate, Source, Subscription, Wanted};
use super::text;
use crate::types::{Timestamp, subject};

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
    stop: Option<Timestamp>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
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
    #[serde(skip_serializing_if = "str::is_empty")]
    tls_version: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    tls_cipher_suite: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_peer_certs: Vec<PeerCertificate>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_first: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    authorized_user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
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
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account_tag: String,
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
    /// `account` is empty where it goes without saying.
    pub fn new(account: &str, cid: u64, from: Subscription) -> SubDetail {
        SubDetail {
            account: account.to_owned(),
            account_tag: account.to_owned(),
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

/// What is asked of `/connz` and `CONNZ` (nats-server `ConnzOptions`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConnzOptions {
    sort: String,
    auth: bool,
    subscriptions: bool,
    subscriptions_detail: bool,
    offset: i64,
    limit: i64,
    cid: u64,
    mqtt_client: String,
    state: State,
    user: String,
    pub acc: String,
    filter_subject: String,
}

/// Which connections are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
enum State {
    #[default]
    Open,
    Closed,
    All,
}

impl TryFrom<u8> for State {
    type Error = String;

    fn try_from(number: u8) -> Result<State, String> {
        match number {
            0 => Ok(State::Open),
            1 => Ok(State::Closed),
            2 => Ok(State::All),
            other => Err(format!("unknown connection state {other}")),
        }
    }
}

impl ConnzOptions {
    /// # Errors
    /// When a parameter cannot be read.
    pub fn from_query(query: &Query) -> Result<ConnzOptions, BadQuery> {
        let detail = query.text("subs").eq_ignore_ascii_case("detail");
        let state = match query.text("state").to_ascii_lowercase().as_str() {
            "" | "open" => State::Open,
            "closed" => State::Closed,
            "any" | "all" => State::All,
            other => return Err(BadQuery(format!("Error decoding state for {other}"))),
        };
        Ok(ConnzOptions {
            sort: query.text("sort").to_owned(),
            auth: query.flag("auth")?,
            subscriptions: !detail && query.flag("subs")?,
            subscriptions_detail: detail,
            offset: query.count("offset")? as i64,
            limit: query.count("limit")? as i64,
            cid: query.id("cid")?,
            mqtt_client: query.text("mqtt_client").to_owned(),
            state,
            user: query.text("user").to_owned(),
            acc: query.text("acc").to_owned(),
            filter_subject: query.text("filter_subject").to_owned(),
        })
    }
}

/// # Errors
/// When the options contradict each other.
pub fn report(server_id: &str, source: &dyn Source, options: &ConnzOptions, now: Timestamp) -> Result<Connz, BadQuery> {
    let sort = Sort::parse(&options.sort)?;
    let subs = match (options.subscriptions_detail, options.subscriptions) {
        (true, _) => SubsWanted::Detail,
        (false, true) => SubsWanted::Subjects,
        (false, false) => SubsWanted::No,
    };
    if matches!(sort, Sort::Stop | Sort::Reason) && options.state != State::Closed {
        return Err(BadQuery(format!("sort by {} only valid on closed connections", options.sort)));
    }
    if !options.filter_subject.is_empty() && options.acc.is_empty() {
        return Err(BadQuery("filter by subject only valid with account filtering".to_owned()));
    }
    if !options.user.is_empty() && !options.auth {
        return Err(BadQuery("filter by user only valid with auth option".to_owned()));
    }
    let offset = usize::try_from(options.offset).unwrap_or(0);
    let limit = match usize::try_from(options.limit) {
        _ if options.cid > 0 => 1,
        Err(_) | Ok(0) => LIMIT_DEFAULT,
        Ok(limit) => limit,
    };
    let wants_subs = subs != SubsWanted::No || !options.filter_subject.is_empty();
    let mut connections = Vec::new();
    if options.state != State::Closed {
        let wanted = Wanted { account: &options.acc, user: &options.user, subscriptions: wants_subs };
        connections.append(&mut source.connections(&wanted));
    }
    if options.state != State::Open {
        connections.append(&mut source.closed_connections());
    }
    let filter = options.filter_subject.as_bytes();
    connections.retain(|connection| {
        (options.acc.is_empty() || connection.account == options.acc)
            && (options.user.is_empty() || connection.user == options.user)
            && options.mqtt_client.is_empty()
            && (filter.is_empty()
                || connection.subscriptions.iter().any(|sub| subject::overlaps(filter, sub.subject.as_bytes())))
    });
    let total = connections.len();
    if options.cid > 0 {
        connections.retain(|connection| connection.id == options.cid);
    }
    sort.apply(&mut connections);
    let connections: Vec<ConnInfo> = connections
        .into_iter()
        .skip(offset)
        .take(limit)
        .map(|connection| conn_info(connection, subs, options.auth, now))
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
    let at = connection.ended.map_or(now, |(stopped, _)| stopped);
    let tls = connection.tls;
    let (account, user) = if auth { (connection.account, connection.user) } else { Default::default() };
    ConnInfo {
        cid: connection.id,
        kind: "Client",
        r#type: connection.kind,
        ip: connection.remote.map_or_else(String::new, |remote| remote.ip().to_string()),
        port: connection.remote.map_or(0, |remote| remote.port()),
        start: connection.start,
        last_activity: connection.last_activity,
        stop: connection.ended.map(|(stopped, _)| stopped),
        reason: connection.ended.map_or("", |(_, reason)| reason),
        rtt: connection.round_trip.map(text::go_duration),
        uptime: text::uptime(at.since(connection.start)),
        idle: text::uptime(at.since(connection.last_activity)),
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
        tls_version: tls.as_ref().map_or("", |tls| tls.version),
        tls_first: tls.as_ref().is_some_and(|tls| tls.first),
        tls_cipher_suite: tls.as_ref().map_or_else(String::new, |tls| tls.cipher.clone()),
        tls_peer_certs: tls.filter(|_| auth).map_or_else(Vec::new, |tls| tls.certificates),
        name_tag: account.clone(),
        authorized_user: user,
        account,
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
            Sort::Cid => {}
            Sort::Stop => connections.sort_by_key(|connection| connection.ended.map(|(stopped, _)| stopped)),
            Sort::Reason => connections.sort_by_key(|connection| connection.ended.map(|(_, reason)| reason)),
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
