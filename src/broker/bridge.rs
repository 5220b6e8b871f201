//! What leads from one account into another: imports of streams and services, and the way back for answers.
//!
//! ```text
//!  exporter's router ── stream import ──► importer's router
//!  importer's router ── service import ─► exporter's router, with a reply subject of the exporter's account
//!  exporter's router ── `_R_.>` ────────► importer's router, on the reply subject that was asked with
//! ```
//! Source: nats-server `processServiceImport`, `addStreamImport`. Different: a stream's import stands in the exporter's router
//! once, and not again for each subscription of the importer's.

use std::sync::{Arc, Weak};

use serde_json::{Value, json};

use super::account::Account;
use super::client_state::ClientState;
use super::courier::Parcel;
use super::latency::{Outcome, Probe, Teller};
use super::message_trace::Trace;
use crate::api::ClientInfo;
use crate::auth::{Rewrite, Route, Shared};
use crate::types::transform::Dice;
use crate::types::{Headers, Timestamp, header};

/// Under which answers come back to an account that exports services.
pub(super) const REPLY_PREFIX: &[u8] = b"_R_.";
/// Tells a service who asks (nats-server `ClientInfoHdr`).
const REQUEST_INFO: &str = "Nats-Request-Info";
/// Replies of consumers' deliveries: acks go by their subject, which must stay.
const ACK_PREFIX: &[u8] = b"$JS.ACK.";

/// See the module.
pub(super) struct Bridge {
    pub(super) key: u64,
    way: Way,
}

enum Way {
    Import {
        route: Box<Route>,
        from: Weak<Account>,
        into: Weak<Account>,
        /// Of a service that is measured.
        probe: Option<Arc<Probe>>,
    },
    /// Back to whoever asked in another account.
    Answer { at: Weak<Account> },
}

/// What a trace sees of a message beyond a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// There is no trace.
    Unasked,
    /// All of it.
    Goes,
    /// Nothing: the message goes on untraced.
    Hidden,
    /// Nothing, and the message was only to be traced. `heard`: it counts as received all the same.
    Ends { heard: bool },
}

/// A message on the other side.
pub(super) struct Crossing {
    pub(super) account: Arc<Account>,
    pub(super) subject: Vec<u8>,
    /// `None`: as it was.
    pub(super) reply: Option<Vec<u8>>,
    /// `None`: as they were.
    pub(super) headers: Option<Vec<u8>>,
}

impl Bridge {
    fn new(account: &Account, way: Way) -> Arc<Bridge> {
        Arc::new(Bridge { key: account.new_key(), way })
    }

    /// Whether a message goes on over other bridges beyond this one: of streams only direct imports count, as in nats-server.
    pub(super) fn leads_on(&self) -> bool {
        !matches!(&self.way, Way::Import { route, .. } if route.kind == Shared::Stream)
    }

    /// Where a message that has come to the bridge goes on; `None` when it ends here. `is_first`: it has come over no other.
    pub(super) fn cross(&self, parcel: &Parcel<'_>, origin: &Arc<ClientState>, is_first: bool) -> Option<Crossing> {
        match &self.way {
            Way::Answer { at } => {
                let (crossing, measure) = at.upgrade()?.answers.find(parcel.to, parcel.payload.is_empty());
                if let Some(measure) = measure {
                    measure.tell(&crossing.as_ref().map_or(Outcome::Overdue, |_| Outcome::Answered { by: origin }));
                }
                crossing
            }
            Way::Import { route, from, into, probe } => {
                if !is_open(route) {
                    return None;
                }
                let account = into.upgrade()?;
                let subject = rewritten(&route.rewrite, parcel.to)?;
                let crossing = Crossing { account, subject, reply: None, headers: None };
                if route.kind == Shared::Stream {
                    return Some(crossing);
                }
                let from = from.upgrade()?;
                let measure = probe.as_ref().and_then(|probe| probe.begin(origin, parcel.headers));
                let reply = match parcel.reply {
                    [] => {
                        if let Some(measure) = measure {
                            measure.tell(&Outcome::NoReply);
                        }
                        None
                    }
                    reply if reply.starts_with(ACK_PREFIX) => None,
                    reply => {
                        let there = &crossing.account;
                        Some(there.answers.expect(there, &from, reply, route, measure))
                    }
                };
                let asked_before = if is_first { None } else { told_info(parcel.headers) };
                let info = match asked_before {
                    Some(mut info) => {
                        info["svc"] = json!(from.name);
                        info
                    }
                    None => request_info(origin, &from, route.share),
                };
                let headers = Some(with_request_info(parcel.headers, &info));
                Some(match crossing.account.mapped(&crossing.subject) {
                    Mapped::Same => Crossing { reply, headers, ..crossing },
                    Mapped::To(subject) => Crossing { subject, reply, headers, ..crossing },
                    Mapped::Nowhere => return None,
                })
            }
        }
    }

    /// Tells a trace that the message crosses, and says how much of what follows it may see (ADR-41, `allow_trace`).
    pub(super) fn sight(&self, trace: &Trace, parcel: &Parcel<'_>, crossing: &Crossing) -> Sight {
        let (allowed, heard) = match &self.way {
            Way::Import { route, .. } if route.kind == Shared::Stream => {
                if crossing.account.hears(&crossing.subject) {
                    trace.stream_export(&crossing.account.name, &crossing.subject);
                }
                (route.allow_trace, true)
            }
            Way::Import { route, .. } => {
                trace.service(&crossing.account.name, parcel.to, &crossing.subject);
                (route.allow_trace, false)
            }
            Way::Answer { .. } => {
                trace.service(&crossing.account.name, parcel.to, &crossing.subject);
                (false, false)
            }
        };
        match (allowed, trace.only) {
            (true, _) => Sight::Goes,
            (false, false) => Sight::Hidden,
            (false, true) => Sight::Ends { heard },
        }
    }

    /// Whether somebody beyond the bridge would receive a message on `subject`. Of services only the importer's side counts:
    /// requests are answered with 503 when nobody serves.
    pub(super) fn has_interest(&self, subject: &[u8]) -> bool {
        match &self.way {
            Way::Import { route, into, .. } if route.kind == Shared::Stream => {
                let beyond = into.upgrade().filter(|_| is_open(route)).zip(rewritten(&route.rewrite, subject));
                beyond.is_some_and(|(into, to)| into.hears(&to))
            }
            Way::Import { route, .. } => is_open(route),
            Way::Answer { .. } => true,
        }
    }

    /// Nobody took what had crossed, because nobody is there (`unserved`) or it was only traced: no answer will come.
    pub(super) fn withdraw(&self, crossing: &Crossing, unserved: bool) {
        if let (Way::Import { .. }, Some(reply)) = (&self.way, &crossing.reply)
            && let Some(measure) = crossing.account.answers.forget(reply).filter(|_| unserved)
        {
            measure.tell(&Outcome::NoService);
        }
    }
}

/// Whether the import holds now: what allows it may have expired.
fn is_open(route: &Route) -> bool {
    !route.open.is_bounded() || route.open.contains(Timestamp::now())
}

fn rewritten(rewrite: &Rewrite, subject: &[u8]) -> Option<Vec<u8>> {
    match rewrite {
        Rewrite::Same => Some(subject.to_vec()),
        Rewrite::Literal(text) => Some(text.as_bytes().to_vec()),
        Rewrite::Transform(transform, _) => transform.apply(subject, &mut Dice::new(0)),
    }
}

/// What an account's mappings make of a subject.
pub(super) enum Mapped {
    Same,
    To(Vec<u8>),
    Nowhere,
}

impl Mapped {
    /// What `subject` has become; empty for nothing.
    #[inline]
    pub(super) fn of<'a>(&'a self, subject: &'a [u8]) -> &'a [u8] {
        match self {
            Mapped::Same => subject,
            Mapped::To(to) => to,
            Mapped::Nowhere => b"",
        }
    }
}

/// Puts the routes into the accounts' routers, in place of those put there before.
pub(super) fn install(
    routes: &[Route],
    find: impl Fn(&str) -> Option<Arc<Account>>,
    accounts: &[Arc<Account>],
    teller: &Teller,
) {
    for account in accounts {
        account.remove_bridges();
    }
    for route in routes {
        let (Some(from), Some(into)) = (find(&route.from), find(&route.into)) else { continue };
        let probe = route.latency.as_ref().map(|latency| Probe::new(latency, &into, route.share, teller));
        if probe.is_some() {
            from.asks(&into);
        }
        let way = Way::Import {
            route: Box::new(route.clone()),
            from: Arc::downgrade(&from),
            into: Arc::downgrade(&into),
            probe,
        };
        from.add_bridge(route.filter.as_bytes(), Bridge::new(&from, way));
        if route.kind == Shared::Stream {
            into.receives_from(&from);
        }
        let answers_filter = [REPLY_PREFIX, b">"].concat();
        if route.kind == Shared::Service && !into.has_bridge(&answers_filter) {
            into.add_bridge(&answers_filter, Bridge::new(&into, Way::Answer { at: Arc::downgrade(&into) }));
        }
    }
}

/// Who asked at the first of several accounts.
fn told_info(headers: &[u8]) -> Option<Value> {
    let info: Value = serde_json::from_slice(Headers::new(headers).get(REQUEST_INFO)?).ok()?;
    info.is_object().then_some(info)
}

/// The headers, with who asks in place of what a client may have put there. Whoever reads them may take a lone CR or LF
/// for a line's end, skip blanks and not tell upper from lower case, so what is not the server's word goes in every form.
fn with_request_info(headers: &[u8], info: &Value) -> Vec<u8> {
    let lines = headers.split(|byte| matches!(byte, b'\r' | b'\n')).filter(|line| !line.is_empty());
    let is_kept = |line: &&[u8]| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        !name.trim_ascii().eq_ignore_ascii_case(REQUEST_INFO.as_bytes())
    };
    let mut block = Vec::with_capacity(headers.len() + 200);
    let mut lines = lines.filter(is_kept).peekable();
    let version = lines.next_if(|line| line.starts_with(header::VERSION_LINE)).unwrap_or(header::VERSION_LINE);
    for line in std::iter::once(version).chain(lines) {
        block.extend_from_slice(line);
        block.extend_from_slice(b"\r\n");
    }
    block.extend_from_slice(b"\r\n");
    header::with_line(&block, REQUEST_INFO, &info.to_string())
}

/// Who asks (nats-server `getClientInfo`): the account, and more where the import shares it.
fn request_info(client: &ClientState, account: &Account, share: bool) -> Value {
    let whole = client.info(client.identity(), &account.name);
    let info = if share { whole } else { ClientInfo { acc: whole.acc, rtt: whole.rtt, ..ClientInfo::default() } };
    serde_json::to_value(info).expect("who asks is plain data")
}
