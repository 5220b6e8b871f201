//! The system account's services: reports on request, and what an operator may do to a connection (nats-server
//! `initEventTracking`). Every account is served its own figures; everything else is for the system account only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::accountz::AccountStatzOptions;
use super::connz::ConnzOptions;
use super::events::account_connections;
use super::jsz::JszOptions;
use super::query::BadQuery;
use super::reports::Reports;
use super::subsz::SubszOptions;
use super::user;
use crate::api::{Strictness, decode};
use crate::broker::{Account, Broker, Inbound, Service};
use crate::types::{Timestamp, subject};

/// Requests that wait to be answered; further ones stay unanswered.
const REQUESTS_MAX: usize = 1024;
/// nats-server's `ServerCapability` of a server with JetStream: `JetStreamEnabled`, and what only servers of a cluster
/// ask one another for, `BinaryStreamSnapshot` and `AccountNRG`. We are in no cluster; tools see the same figure.
const FLAGS_JETSTREAM: u64 = 1 | 2 | 4;

/// What `$SYS.REQ.SERVER.PING.<verb>` and `$SYS.REQ.SERVER.<id>.<verb>` answer.
const SERVER_VERBS: [&str; 15] = [
    "IDZ",
    "STATSZ",
    "VARZ",
    "SUBSZ",
    "CONNZ",
    "ROUTEZ",
    "GATEWAYZ",
    "LEAFZ",
    "ACCOUNTZ",
    "JSZ",
    "HEALTHZ",
    "PROFILEZ",
    "EXPVARZ",
    "IPQUEUESZ",
    "RAFTZ",
];
/// What only `$SYS.REQ.SERVER.<id>.<verb>` does.
const OPERATOR_VERBS: [&str; 3] = ["KICK", "LDM", "RELOAD"];
const ACCOUNT_VERBS: [&str; 7] = ["SUBSZ", "CONNZ", "LEAFZ", "JSZ", "INFO", "STATZ", "CONNS"];
/// What is asked of the system account only.
const SYSTEM_SUBJECTS: [&str; 3] = ["$SYS.REQ.>", PURGE, SUBSCRIBERS];
const PURGE: &str = "$JS.API.ACCOUNT.PURGE.*";
/// What every account may ask about itself.
const OWN_SUBJECTS: [&str; 4] =
    ["$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.PING.STATZ", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.SERVER.PING.CONNZ"];

const SUBSCRIBERS: &str = "$SYS.DEBUG.SUBSCRIBERS";

/// A request's subject, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question<'a> {
    User,
    /// How many subscriptions there are on a subject.
    Subscribers,
    Server(&'a str),
    Account(&'a str, &'a str),
    /// The figures of all accounts that are used.
    AllStatz,
    /// All streams of an account are to be deleted.
    Purge(&'a str),
}

impl<'a> Question<'a> {
    /// `None` when nobody answers there. `own` is the asker's account, unless that is the system account.
    fn parse(subject: &'a str, server_id: &str, own: Option<&'a str>) -> Option<Question<'a>> {
        if let Some(account) = subject.strip_prefix("$JS.API.ACCOUNT.PURGE.") {
            return own.is_none().then_some(Question::Purge(account));
        }
        if subject == SUBSCRIBERS && own.is_none() {
            return Some(Question::Subscribers);
        }
        let tokens: Vec<&str> = subject.strip_prefix("$SYS.REQ.")?.split('.').collect();
        match (tokens.as_slice(), own) {
            (["USER", "INFO"], _) => Some(Question::User),
            (["SERVER", "PING", "CONNZ"], Some(own)) => Some(Question::Account(own, "CONNZ")),
            (["ACCOUNT", "PING", verb @ ("STATZ" | "CONNZ")], Some(own)) => Some(Question::Account(own, verb)),
            (_, Some(_)) => None,
            (["SERVER", "PING"], None) => Some(Question::Server("STATSZ")),
            (["SERVER", "PING", verb], None) => SERVER_VERBS.contains(verb).then_some(Question::Server(verb)),
            (["SERVER", id, verb], None) if *id == server_id => {
                let known = SERVER_VERBS.contains(verb) || OPERATOR_VERBS.contains(verb);
                known.then_some(Question::Server(verb))
            }
            (["ACCOUNT", "PING", "STATZ"], None) => Some(Question::AllStatz),
            (["ACCOUNT", account, verb], None) => {
                ACCOUNT_VERBS.contains(verb).then_some(Question::Account(account, verb))
            }
            _ => None,
        }
    }
}

/// Options every request may have: which servers are meant (nats-server `EventFilterOptions`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    server_name: String,
    cluster: String,
    host: String,
    exact_match: bool,
    tags: Vec<String>,
    domain: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClientId {
    cid: u64,
}

/// What came of a request.
enum Answer {
    /// Nothing is sent.
    Silence,
    /// `data` in an envelope.
    Data(Value),
    /// An envelope without data.
    Done,
    /// Without an envelope.
    Plain(Value),
    /// Without even JSON.
    Number(usize),
    /// `error` in an envelope.
    Refused { code: u16, text: String, with_data: bool },
}

/// What the server says of itself in every message of its own (nats-server `ServerInfo`).
pub(super) struct Letterhead {
    reports: Arc<Reports>,
    sequence: AtomicU64,
}

impl Letterhead {
    fn new(reports: Arc<Reports>) -> Letterhead {
        Letterhead { reports, sequence: AtomicU64::new(0) }
    }

    pub(super) fn reports(&self) -> &Reports {
        &self.reports
    }

    pub(super) fn server(&self, now: Timestamp) -> Value {
        let identity = &self.reports.identity;
        let mut server = json!({
            "name": identity.server_name,
            "host": identity.host,
            "id": identity.server_id,
            "ver": identity.version,
            "jetstream": identity.jetstream,
            "flags": if identity.jetstream { FLAGS_JETSTREAM } else { 0 },
            "seq": self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            "time": now,
        });
        if !identity.domain.is_empty() {
            server["domain"] = json!(identity.domain);
        }
        let shown = self.reports.shown();
        if !shown.tags.is_empty() {
            server["tags"] = json!(shown.tags);
        }
        if !shown.metadata.is_empty() {
            server["metadata"] = json!(shown.metadata);
        }
        server
    }
}

/// The services of one server, for as long as it runs.
pub struct System {
    letterhead: Arc<Letterhead>,
    requests: mpsc::Sender<(Inbound, String)>,
    /// Whether there is JetStream anywhere on the server.
    has_streams: bool,
}

/// Where an account's requests come in.
struct Door {
    server_id: String,
    account: String,
    is_system: bool,
    requests: mpsc::Sender<(Inbound, String)>,
}

impl Door {
    fn own(&self) -> Option<&str> {
        (!self.is_system).then_some(&*self.account)
    }
}

impl Service for Door {
    fn takes(&self, subject: &[u8]) -> bool {
        let Ok(subject) = std::str::from_utf8(subject) else { return false };
        Question::parse(subject, &self.server_id, self.own()).is_some()
    }

    fn call(&self, request: Inbound) {
        // Above its bound a requester hears nothing.
        let _ = self.requests.try_send((request, self.account.clone()));
    }
}

impl System {
    /// Serves `broker`'s accounts until `stop` is cancelled. Needs a runtime.
    pub fn start(broker: &Arc<Broker>, reports: Arc<Reports>, stop: CancellationToken) -> System {
        let letterhead = Arc::new(Letterhead::new(reports.clone()));
        let (requests, mut asked) = mpsc::channel(REQUESTS_MAX);
        let system_account = broker.system_account().name.clone();
        let has_streams = broker.info().jetstream;
        for account in broker.accounts() {
            let is_system = account.name == system_account;
            serve_account(&account, &reports.identity.server_id, is_system, has_streams, &requests);
        }
        let desk = Desk { broker: broker.clone(), letterhead: letterhead.clone() };
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    request = asked.recv() => match request {
                        Some((request, account)) => desk.serve(&request, &account).await,
                        None => return,
                    },
                }
            }
        });
        System { letterhead, requests, has_streams }
    }

    /// Serves an account that has come into being.
    pub fn serve(&self, account: &Account) {
        let server_id = &self.letterhead.reports.identity.server_id;
        serve_account(account, server_id, account.is_system(), self.has_streams, &self.requests);
    }

    /// The reports it answers with.
    pub fn reports(&self) -> &Arc<Reports> {
        &self.letterhead.reports
    }

    pub(super) fn letterhead(&self) -> &Arc<Letterhead> {
        &self.letterhead
    }
}

fn serve_account(
    account: &Account,
    server_id: &str,
    is_system: bool,
    has_streams: bool,
    requests: &mpsc::Sender<(Inbound, String)>,
) {
    let filters: &[&str] = if is_system { &SYSTEM_SUBJECTS } else { &OWN_SUBJECTS };
    let door = Arc::new(Door {
        server_id: server_id.to_owned(),
        account: account.name.clone(),
        is_system,
        requests: requests.clone(),
    });
    for filter in filters.iter().filter(|filter| has_streams || **filter != PURGE) {
        account.add_service(filter.as_bytes(), door.clone()).expect("the system's own subjects are valid");
    }
}

/// Answers requests, one after the other.
struct Desk {
    broker: Arc<Broker>,
    letterhead: Arc<Letterhead>,
}

impl Desk {
    async fn serve(&self, request: &Inbound, account: &str) {
        let now = Timestamp::now();
        let answer = self.answer(request, account, now).await.unwrap_or_else(|answer| answer);
        let Some(account) = self.broker.find_account(account) else { return };
        if request.reply.is_empty() {
            return;
        }
        let body = match answer {
            Answer::Silence => return,
            Answer::Plain(body) => body,
            Answer::Number(number) => number.into(),
            Answer::Done => json!({"server": self.letterhead.server(now)}),
            Answer::Data(data) => json!({"server": self.letterhead.server(now), "data": data}),
            Answer::Refused { code, text, with_data } => {
                let error = json!({"code": code, "description": text});
                let mut body = json!({"server": self.letterhead.server(now), "error": error});
                if with_data {
                    body["data"] = Value::Null;
                }
                body
            }
        };
        let mut courier = self.broker.courier_in(&account);
        courier.publish(&request.reply, b"", b"", body.to_string().as_bytes());
        courier.flush();
    }

    async fn answer(&self, request: &Inbound, account: &str, now: Timestamp) -> Result<Answer, Answer> {
        let reports = self.letterhead.reports();
        let subject = request.message.subject_text().into_owned();
        let is_system = account == self.broker.system_account().name;
        let own = (!is_system).then_some(account);
        let question = Question::parse(&subject, &reports.identity.server_id, own).ok_or(Answer::Silence)?;
        if let Question::Purge(account) = question {
            return Ok(Answer::Plain(self.purge(account).await));
        }
        let body = request.message.payload();
        if question == Question::Subscribers {
            return Ok(Answer::Number(self.subscribers(account, &String::from_utf8_lossy(body))));
        }
        let filter: Filter = options(body)?;
        if !self.is_meant(&filter) {
            return Err(Answer::Silence);
        }
        Ok(match question {
            Question::User => Answer::Data(user::report(&request.client, account, now)),
            Question::Subscribers => Answer::Silence,
            Question::Server(verb) => self.server_report(verb, body, now).await?,
            Question::Account(named, verb) => self.account_report(named, verb, body, now).await?,
            Question::AllStatz => Answer::Data(value(reports.account_statz(&options(body)?, now))),
            Question::Purge(_) => Answer::Silence,
        })
    }

    /// `ACCOUNT.PURGE`, with the API's kind of answer (nats-server `jsLeaderAccountPurgeRequest`).
    async fn purge(&self, account: &str) -> Value {
        let mut answer = json!({"type": "io.nats.jetstream.api.v1.account_purge_response"});
        match self.letterhead.reports().source.purge_account(account).await {
            Ok(()) => answer["initiated"] = true.into(),
            Err(error) => answer["error"] = value(error),
        }
        answer
    }

    /// The account's subscriptions that get what is published on the subject asked for, or that lie within a wildcard;
    /// with a queue group behind it only those in the group (nats-server `debugSubscribers`).
    fn subscribers(&self, account: &str, asked: &str) -> usize {
        let mut words = asked.trim().split(' ');
        let (subject, queue) = (words.next().unwrap_or_default(), words.next());
        let clients = self.broker.clients().into_iter().filter(|client| client.identity().account == account);
        let subscriptions = clients.flat_map(|client| client.subscription_list());
        let wanted = subscriptions.filter(|subscription| {
            let within = match subject::has_wildcard(subject.as_bytes()) {
                true => subject::matches(subject.as_bytes(), &subscription.subject),
                false => subject::matches(&subscription.subject, subject.as_bytes()),
            };
            within && queue.is_none_or(|queue| subscription.queue.as_deref() == Some(queue.as_bytes()))
        });
        wanted.count()
    }

    async fn server_report(&self, verb: &str, body: &[u8], now: Timestamp) -> Result<Answer, Answer> {
        let reports = self.letterhead.reports();
        let identity = &reports.identity;
        Ok(Answer::Data(match verb {
            "IDZ" => {
                let id = json!({"name": identity.server_name, "host": identity.host, "id": identity.server_id});
                return Ok(Answer::Plain(id));
            }
            "STATSZ" => {
                let stats = reports.statsz(now).await;
                return Ok(Answer::Plain(json!({"server": self.letterhead.server(now), "statsz": stats})));
            }
            "VARZ" => value(reports.varz(now).await),
            "SUBSZ" => value(reports.subsz(&options(body)?, now)?),
            "CONNZ" => value(reports.connz(&options(body)?, now)?),
            "ROUTEZ" => reports.routez(now),
            "GATEWAYZ" => reports.gatewayz(now),
            "LEAFZ" => reports.leafz(now),
            "ACCOUNTZ" => reports.accountz(&options(body)?, now)?,
            "JSZ" => reports.jsz(&options(body)?, now).await,
            "HEALTHZ" => value(reports.healthz(&options(body)?).await),
            "PROFILEZ" => json!({"profile": null, "error": "this server keeps no Go profiles"}),
            "EXPVARZ" => reports.expvarz(),
            "IPQUEUESZ" | "RAFTZ" => json!({}),
            "KICK" | "LDM" if body.is_empty() => return Ok(Answer::Silence),
            "KICK" => {
                let kicked = reports.source.kick(cid(body)?);
                return client_action(kicked.then_some(()).ok_or("no such client or leafnode id"));
            }
            "LDM" => return client_action(reports.source.lame_duck(cid(body)?)),
            "RELOAD" => {
                return match reports.source.reload().await {
                    Ok(()) => Ok(Answer::Done),
                    Err(text) => Err(Answer::Refused { code: 500, text, with_data: false }),
                };
            }
            _ => return Ok(Answer::Silence),
        }))
    }

    async fn account_report(&self, account: &str, verb: &str, body: &[u8], now: Timestamp) -> Result<Answer, Answer> {
        let reports = self.letterhead.reports();
        let known = self.broker.find_account(account).is_some();
        Ok(Answer::Data(match verb {
            "SUBSZ" => {
                let mut asked: SubszOptions = options(body)?;
                asked.account = account.to_owned();
                asked.subscriptions = true;
                value(reports.subsz(&asked, now)?)
            }
            "CONNZ" if !known => {
                json!({"server_id": "", "now": now, "num_connections": 0, "total": 0, "offset": 0, "limit": 1024,
                    "connections": null})
            }
            "CONNZ" => {
                let mut asked: ConnzOptions = options(body)?;
                asked.acc = account.to_owned();
                value(reports.connz(&asked, now)?)
            }
            "LEAFZ" => reports.leafz(now),
            "JSZ" => {
                let mut asked: JszOptions = options(body)?;
                asked.account = account.to_owned();
                reports.account_jsz(&asked).await?
            }
            "INFO" => reports.account_info(account)?,
            "STATZ" => {
                let mut asked: AccountStatzOptions = options(body)?;
                asked.accounts = vec![account.to_owned()];
                let statz = reports.account_statz(&asked, now);
                if statz.account_statz.is_empty() && !asked.include_unused {
                    return Ok(Answer::Silence);
                }
                value(statz)
            }
            "CONNS" => {
                let account = reports.source.account(account);
                return Ok(match account.filter(|account| account.connections > 0) {
                    Some(account) => Answer::Plain(account_connections(&self.letterhead, &account, now)),
                    None => Answer::Silence,
                });
            }
            _ => return Ok(Answer::Silence),
        }))
    }

    /// Whether a request with these options is for this server (nats-server `filterRequest`).
    fn is_meant(&self, filter: &Filter) -> bool {
        let identity = &self.letterhead.reports().identity;
        let tags = &self.letterhead.reports().shown().tags;
        let fits = |wanted: &str, ours: &str| match filter.exact_match {
            true => wanted.is_empty() || wanted == ours,
            false => ours.contains(wanted),
        };
        fits(&filter.server_name, &identity.server_name)
            && fits(&filter.host, &identity.host)
            && fits(&filter.cluster, "")
            && filter.tags.iter().all(|tag| tags.contains(&tag.trim().to_lowercase()))
            && (filter.domain.is_empty() || filter.domain == identity.domain)
    }
}

impl From<BadQuery> for Answer {
    fn from(BadQuery(text): BadQuery) -> Answer {
        Answer::Refused { code: 500, text, with_data: true }
    }
}

fn client_action(done: Result<(), &'static str>) -> Result<Answer, Answer> {
    match done {
        Ok(()) => Ok(Answer::Done),
        Err(refusal) => Err(Answer::Refused { code: 500, text: refusal.to_owned(), with_data: false }),
    }
}

fn cid(body: &[u8]) -> Result<u64, Answer> {
    Ok(options::<ClientId>(body)?.cid)
}

fn options<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Answer> {
    if body.is_empty() {
        return Ok(T::default());
    }
    decode(body, Strictness::Lenient).map_err(|error| {
        let text = error.description.strip_prefix("invalid JSON: ").unwrap_or(&error.description).to_owned();
        Answer::Refused { code: 400, text, with_data: false }
    })
}

fn value(report: impl serde::Serialize) -> Value {
    serde_json::to_value(report).expect("reports have string keys and finite numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_name_their_question() {
        let check = |subject: &str, own: Option<&'static str>, expected: Option<Question<'_>>| {
            assert_eq!(Question::parse(&format!("$SYS.REQ.{subject}"), "NID", own), expected, "{subject}");
        };
        check("USER.INFO", Some("A"), Some(Question::User));
        check("SERVER.PING.CONNZ", Some("A"), Some(Question::Account("A", "CONNZ")));
        check("ACCOUNT.PING.STATZ", Some("A"), Some(Question::Account("A", "STATZ")));
        check("SERVER.PING.VARZ", Some("A"), None);
        check("ACCOUNT.B.CONNZ", Some("A"), None);
        check("SERVER.PING", None, Some(Question::Server("STATSZ")));
        check("SERVER.PING.VARZ", None, Some(Question::Server("VARZ")));
        check("SERVER.NID.VARZ", None, Some(Question::Server("VARZ")));
        check("SERVER.NID.KICK", None, Some(Question::Server("KICK")));
        check("SERVER.PING.KICK", None, None);
        check("SERVER.OTHER.VARZ", None, None);
        check("SERVER.PING.FOO", None, None);
        check("ACCOUNT.B.CONNZ", None, Some(Question::Account("B", "CONNZ")));
        check("ACCOUNT.PING.STATZ", None, Some(Question::AllStatz));
        check("ACCOUNT.B.FOO", None, None);
        check("CLAIMS.LIST", None, None);
        assert_eq!(Question::parse("$JS.API.ACCOUNT.PURGE.B", "NID", None), Some(Question::Purge("B")));
        assert_eq!(Question::parse("$JS.API.ACCOUNT.PURGE.B", "NID", Some("A")), None);
    }
}
