//! Message trace (ADR-41, nats-server `server/msgtrace.go`): a message with `Nats-Trace-Dest` has the way it goes told on
//! that subject, one event per step. Everything here is off the way of other messages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::client_state::ClientState;
use super::courier::Courier;
use super::subscription::Subscription;
use crate::protocol::Info;
use crate::types::{Headers, Timestamp, header, subject};

const DEST: &str = "Nats-Trace-Dest";
const ONLY: &str = "Nats-Trace-Only";
/// In place of a destination in what is stored, so that a delivery is not traced again.
const DISABLED: &str = "trace disabled";
/// nats-server's number for a client among the kinds of connections.
const KIND_CLIENT: u8 = 0;
/// nats-server's flag for a server with JetStream.
const FLAG_JETSTREAM: u8 = 1;

pub(super) const NO_ECHO: &str = "Not delivered because of no echo";
pub(super) const DENIED: &str = "Not delivered because subscription denies this subject";
pub(super) const CLOSED: &str = "Not delivered because subscription is closed";

/// Whether a header block may ask for a trace; [`Asked::parse`] knows for sure.
#[inline]
pub(super) fn may_be_asked(block: &[u8]) -> bool {
    memchr::memmem::find(block, DEST.as_bytes()).is_some()
}

/// What a message's headers ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// To be traced and not delivered, in a way that cannot be traced: it goes nowhere.
    Nowhere,
    Trace {
        dest: String,
        only: bool,
    },
}

impl Asked {
    pub(super) fn parse(block: &[u8]) -> Asked {
        let headers = Headers::new(block);
        let get = |name| headers.get_str(name).filter(|value| !value.is_empty());
        let only = get(ONLY).is_some_and(|value| ["1", "true", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes)));
        match get(DEST) {
            None | Some(DISABLED) => Asked::Nothing,
            Some(dest) if subject::is_valid_literal(dest.as_bytes()) => Asked::Trace { dest: dest.to_owned(), only },
            Some(_) if only => Asked::Nowhere,
            Some(_) => Asked::Nothing,
        }
    }
}

/// A traced message's headers as a stream stores them.
pub(super) fn disabled(block: &[u8]) -> Vec<u8> {
    header::with_value(block, DEST, DISABLED)
}

/// One message's trace, filled in on its way.
pub struct Trace {
    dest: String,
    /// The message is not delivered.
    pub only: bool,
    told_encoding: bool,
    server: Server,
    request: Request,
    steps: Mutex<Vec<Step>>,
}

#[derive(Clone, Serialize)]
struct Server {
    name: String,
    host: String,
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    domain: String,
    ver: String,
    jetstream: bool,
    flags: u8,
    seq: u64,
    time: Timestamp,
}

#[derive(Clone, Serialize)]
struct Request {
    header: BTreeMap<String, Vec<String>>,
    msgsize: usize,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Step {
    #[serde(rename = "in")]
    Ingress {
        ts: Timestamp,
        kind: u8,
        cid: u64,
        #[serde(skip_serializing_if = "String::is_empty")]
        name: String,
        acc: String,
        subj: String,
    },
    #[serde(rename = "sm")]
    Mapping { ts: Timestamp, to: String },
    #[serde(rename = "js")]
    JetStream {
        ts: Timestamp,
        stream: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        subject: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        nointerest: bool,
        #[serde(skip_serializing_if = "String::is_empty")]
        error: String,
    },
    #[serde(rename = "eg")]
    Egress {
        ts: Timestamp,
        kind: u8,
        cid: u64,
        #[serde(skip_serializing_if = "String::is_empty")]
        name: String,
        sub: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        queue: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        error: &'static str,
    },
}

#[derive(Serialize)]
struct Told<'a> {
    server: Server,
    request: &'a Request,
    events: &'a [Step],
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Trace {
    /// The trace of a message that `client` publishes.
    pub(super) fn new(
        (dest, only): (String, bool),
        info: Info,
        client: &ClientState,
        account: &str,
        subject: &[u8],
        block: &[u8],
        payload_bytes: usize,
    ) -> Trace {
        let mut header = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in Headers::new(block).iter().filter(|(name, value)| !name.is_empty() && !value.is_empty()) {
            header.entry(text(name)).or_default().push(text(value));
        }
        let ingress = Step::Ingress {
            ts: Timestamp::now(),
            kind: KIND_CLIENT,
            cid: client.id,
            name: client.identity().name,
            acc: account.to_owned(),
            subj: text(subject),
        };
        Trace {
            dest,
            only,
            told_encoding: header.contains_key("Accept-Encoding"),
            server: Server {
                name: info.server_name,
                host: info.host,
                id: info.server_id,
                domain: info.domain,
                ver: info.version,
                jetstream: info.jetstream,
                flags: if info.jetstream { FLAG_JETSTREAM } else { 0 },
                seq: 0,
                time: Timestamp::ZERO,
            },
            request: Request { header, msgsize: block.len() + payload_bytes },
            steps: Mutex::new(vec![ingress]),
        }
    }

    fn note(&self, step: Step) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }

    /// The account maps the subject to another one.
    pub(super) fn mapped(&self, to: &[u8]) {
        self.note(Step::Mapping { ts: Timestamp::now(), to: text(to) });
    }

    /// The message goes to a subscription, or for a reason does not.
    pub(super) fn egress(&self, subscription: &Subscription, error: &'static str) {
        self.note(Step::Egress {
            ts: Timestamp::now(),
            kind: KIND_CLIENT,
            cid: subscription.client.id,
            name: subscription.client.identity().name,
            sub: text(&subscription.subject),
            queue: subscription.queue.as_deref().map(text).unwrap_or_default(),
            error,
        });
    }

    /// A stream has stored the message on `subject`, needs it not, or has refused it.
    pub(super) fn jetstream(&self, stream: &str, subject: &[u8], nointerest: bool, error: String) {
        let subject = if error.is_empty() { text(subject) } else { String::new() };
        self.note(Step::JetStream { ts: Timestamp::now(), stream: stream.to_owned(), subject, nointerest, error });
    }

    /// Tells what has been noted. Receivers learn of it at the courier's next flush.
    pub(super) fn tell(&self, courier: &mut Courier) {
        static TOLD: AtomicU64 = AtomicU64::new(0);
        let seq = TOLD.fetch_add(1, Ordering::Relaxed) + 1;
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let server = Server { seq, time: Timestamp::now(), ..self.server.clone() };
        let told = Told { server, request: &self.request, events: &steps };
        let body = serde_json::to_vec(&told).expect("a trace is always JSON");
        // Asked for a compressed answer, we give a plain one and say so.
        let block: &[u8] = if self.told_encoding { b"NATS/1.0\r\nContent-Encoding: identity\r\n\r\n" } else { b"" };
        courier.publish(self.dest.as_bytes(), b"", block, &body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::header::HeaderBuilder;

    #[test]
    fn what_is_asked() {
        let trace = |dest: &str, only| Asked::Trace { dest: dest.into(), only };
        for (headers, expected) in [
            (&[("X", "y")][..], Asked::Nothing),
            (&[("Nats-Trace-Dest", "t.d")], trace("t.d", false)),
            (&[("Nats-Trace-Dest", "t.d"), ("Nats-Trace-Only", "True")], trace("t.d", true)),
            (&[("Nats-Trace-Dest", "t.d"), ("Nats-Trace-Only", "no")], trace("t.d", false)),
            (&[("Nats-Trace-Dest", "trace disabled"), ("Nats-Trace-Only", "1")], Asked::Nothing),
            (&[("Nats-Trace-Dest", "t.*"), ("Nats-Trace-Only", "1")], Asked::Nowhere),
            (&[("Nats-Trace-Dest", "t.*")], Asked::Nothing),
            (&[("Nats-Trace-Only", "1")], Asked::Nothing),
        ] {
            let block =
                headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build();
            assert_eq!(Asked::parse(&block), expected, "{headers:?}");
        }
    }
}
