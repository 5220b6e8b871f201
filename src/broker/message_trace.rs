//! Message trace (ADR-41, nats-server `server/msgtrace.go`): a message with `Nats-Trace-Dest` has the way it goes told on
//! that subject, one event per step. Everything here is off the way of other messages.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use memchr::memmem::Finder;
use serde::Serialize;

use super::account::Account;
use super::client_state::ClientState;
use super::courier::Courier;
use super::subscription::Subscription;
use crate::auth::AccountTrace;
use crate::backup::s2;
use crate::protocol::Info;
use crate::types::header::HeaderBuilder;
use crate::types::{Headers, Timestamp, header, subject};

const DEST: &str = "Nats-Trace-Dest";
const ONLY: &str = "Nats-Trace-Only";
/// Of servers before 2.11: what has it is not traced.
const ORIGIN_ACCOUNT: &str = "Nats-Trace-Origin-Account";
/// W3C trace context, in any case.
const PARENT: &str = "traceparent";
/// In place of a destination in what is stored, so that a delivery is not traced again.
const DISABLED: &str = "trace disabled";
/// nats-server's number for a client among the kinds of connections.
const KIND_CLIENT: u8 = 0;
/// nats-server's `ServerCapability` of a server with JetStream, as monitoring tells it too.
const FLAGS_JETSTREAM: u8 = 1 | 2 | 4;

pub(super) const NO_ECHO: &str = "Not delivered because of no echo";
pub(super) const DENIED: &str = "Not delivered because subscription denies this subject";
pub(super) const CLOSED: &str = "Not delivered because subscription is closed";

/// Whether a header block may ask for a trace; [`Asked::parse`] knows for sure. Where an account traces nothing by itself,
/// only a destination does.
#[inline]
pub(super) fn may_be_asked(block: &[u8], account: Option<&AccountTrace>) -> bool {
    static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(DEST));
    account.is_some() || FINDER.find(block).is_some()
}

/// What a message's headers ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// Not to be traced, here or further on.
    Never,
    /// To be traced and not delivered, in a way that cannot be traced: it goes nowhere.
    Nowhere,
    Trace {
        dest: String,
        only: bool,
    },
}

impl Asked {
    /// `account` says what is traced without a destination of its own, `dice` gives 0 to 99.
    pub(super) fn parse(block: &[u8], account: Option<&AccountTrace>, dice: impl FnOnce() -> u8) -> Asked {
        let headers = Headers::new(block);
        let get = |name| headers.get_str(name).filter(|value| !value.is_empty());
        let Some(dest) = get(DEST) else {
            let Some(account) = account.filter(|_| is_sampled(headers)) else { return Asked::Nothing };
            if get(ORIGIN_ACCOUNT).is_some() || dice() >= account.percent {
                return Asked::Never;
            }
            return Asked::Trace { dest: account.dest.clone(), only: false };
        };
        if dest == DISABLED {
            return Asked::Nothing;
        }
        let only = get(ONLY).is_some_and(|value| ["1", "true", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes)));
        let is_old = get(ORIGIN_ACCOUNT).is_some();
        if is_old || !subject::is_valid_literal(dest.as_bytes()) {
            return match only {
                true => Asked::Nowhere,
                false if is_old => Asked::Never,
                false => Asked::Nothing,
            };
        }
        Asked::Trace { dest: dest.to_owned(), only }
    }
}

/// Whether a `traceparent` says that its trace is recorded. Its flags are read as nats-server does: a signed byte.
fn is_sampled(headers: Headers<'_>) -> bool {
    headers.iter().any(|(name, value)| {
        let mut fields = value.split(|&byte| byte == b'-').skip(3);
        let (Some(flags), None) = (fields.next(), fields.next()) else { return false };
        let flags = std::str::from_utf8(flags).ok().filter(|flags| flags.len() == 2);
        name.eq_ignore_ascii_case(PARENT.as_bytes())
            && flags.and_then(|flags| i8::from_str_radix(flags, 16).ok()).is_some_and(|flags| flags & 1 == 1)
    })
}

/// How a trace is sent, by what its message's `Accept-Encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    /// Nothing that is accepted is known here.
    Identity,
    Gzip,
    Snappy,
}

impl Encoding {
    fn accepted(header: Option<&Vec<String>>) -> Encoding {
        let Some(accepted) = header.and_then(|values| values.first()) else { return Encoding::Plain };
        let accepted = accepted.to_ascii_lowercase();
        if accepted.contains("snappy") || accepted.contains("s2") {
            Encoding::Snappy
        } else if accepted.contains("gzip") {
            Encoding::Gzip
        } else {
            Encoding::Identity
        }
    }

    fn name(self) -> &'static str {
        match self {
            Encoding::Plain => "",
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Snappy => "snappy",
        }
    }

    fn encode(self, body: Vec<u8>) -> Vec<u8> {
        match self {
            Encoding::Plain | Encoding::Identity => body,
            Encoding::Gzip => {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
                gzip.write_all(&body).expect("a vector takes all");
                gzip.finish().expect("a vector takes all")
            }
            Encoding::Snappy => {
                let (mut frames, mut out) = (s2::Encoder::default(), Vec::new());
                frames.push(&body, &mut out);
                frames.flush(&mut out);
                out
            }
        }
    }
}

/// The subject, the header block as far as it is there and the size in bytes of a publish whose payload is too large, out
/// of the bytes that begin with its control line.
pub(super) fn too_large(input: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let end = memchr::memmem::find(input, b"\r\n")?;
    let mut words = input[..end].split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let verb = words.next()?;
    let words: Vec<&[u8]> = words.collect();
    let [subject, .., header_bytes, bytes] = words[..] else { return None };
    let number = |word| std::str::from_utf8(word).ok()?.parse::<usize>().ok();
    let rest = &input[end + 2..];
    let block = &rest[..rest.len().min(number(header_bytes)?)];
    verb.eq_ignore_ascii_case(b"HPUB").then_some((subject, block, number(bytes)?))
}

/// A traced message's headers as a stream stores them.
pub(super) fn disabled(block: &[u8]) -> Vec<u8> {
    header::with_value(block, DEST, DISABLED)
}

/// A message as it comes in.
pub(super) struct Published<'a> {
    pub(super) subject: &'a [u8],
    /// Of its headers, all or what has come of them.
    pub(super) block: &'a [u8],
    /// Headers and payload.
    pub(super) bytes: usize,
    /// Why it is not let in; empty when it is.
    pub(super) error: String,
}

/// One message's trace, filled in on its way.
pub struct Trace {
    account: Arc<Account>,
    dest: String,
    /// The message is not delivered.
    pub only: bool,
    encoding: Encoding,
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
        #[serde(skip_serializing_if = "String::is_empty")]
        error: String,
    },
    #[serde(rename = "sm")]
    Mapping { ts: Timestamp, to: String },
    #[serde(rename = "si")]
    ServiceImport { ts: Timestamp, acc: String, from: String, to: String },
    #[serde(rename = "se")]
    StreamExport { ts: Timestamp, acc: String, to: String },
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
        /// Where it is another one than the publisher's.
        #[serde(skip_serializing_if = "String::is_empty")]
        acc: String,
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
        account: &Arc<Account>,
        published: Published<'_>,
    ) -> Trace {
        let Published { subject, block, bytes: msgsize, error } = published;
        let mut header = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in Headers::new(block).iter().filter(|(name, value)| !name.is_empty() && !value.is_empty()) {
            header.entry(text(name)).or_default().push(text(value));
        }
        let ingress = Step::Ingress {
            ts: Timestamp::now(),
            kind: KIND_CLIENT,
            cid: client.id,
            name: client.identity().name,
            acc: account.name.clone(),
            subj: text(subject),
            error,
        };
        Trace {
            account: account.clone(),
            dest,
            only,
            encoding: Encoding::accepted(header.get("Accept-Encoding")),
            server: Server {
                name: info.server_name,
                host: info.host,
                id: info.server_id,
                domain: info.domain,
                ver: info.version,
                jetstream: info.jetstream,
                flags: if info.jetstream { FLAGS_JETSTREAM } else { 0 },
                seq: 0,
                time: Timestamp::ZERO,
            },
            request: Request { header, msgsize },
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

    /// The message is a request to a service of another account.
    pub(super) fn service(&self, account: &str, from: &[u8], to: &[u8]) {
        let (from, to) = (text(from), text(to));
        self.note(Step::ServiceImport { ts: Timestamp::now(), acc: account.to_owned(), from, to });
    }

    /// The message is of a stream that another account imports, and somebody there hears it.
    pub(super) fn stream_export(&self, account: &str, to: &[u8]) {
        self.note(Step::StreamExport { ts: Timestamp::now(), acc: account.to_owned(), to: text(to) });
    }

    /// The account of whoever published the message: what is noted is told there.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The message goes to a subscription, or for a reason does not.
    pub(super) fn egress(&self, subscription: &Subscription, error: &'static str) {
        let identity = subscription.client.identity();
        let is_abroad = identity.account != self.account.name;
        self.note(Step::Egress {
            ts: Timestamp::now(),
            kind: KIND_CLIENT,
            cid: subscription.client.id,
            name: identity.name,
            acc: if is_abroad { identity.account } else { String::new() },
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
        let block = match self.encoding.name() {
            "" => Vec::new(),
            name => HeaderBuilder::new().add("Content-Encoding", name).build(),
        };
        courier.publish(self.dest.as_bytes(), b"", &block, &self.encoding.encode(body));
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
            (&[("Nats-Trace-Dest", "t.d"), ("Nats-Trace-Origin-Account", "A")], Asked::Never),
            (
                &[("Nats-Trace-Dest", "t.d"), ("Nats-Trace-Origin-Account", "A"), ("Nats-Trace-Only", "1")],
                Asked::Nowhere,
            ),
            (&[("traceparent", "0-1-2-01")], Asked::Nothing),
        ] {
            let block =
                headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build();
            assert_eq!(Asked::parse(&block, None, || 0), expected, "{headers:?}");
        }
    }

    /// As nats-server 2.15.1 judged them.
    #[test]
    fn what_an_account_samples() {
        let account = AccountTrace { dest: "acc.trace".into(), percent: 30 };
        let asked = |lines: &[(&str, &str)], dice: u8| {
            let block = lines.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build();
            Asked::parse(&block, Some(&account), || dice)
        };
        let traced = Asked::Trace { dest: "acc.trace".into(), only: false };
        let id = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (flags, sampled) in [
            ("01", true),
            ("03", true),
            ("+1", true),
            ("7f", true),
            ("00", false),
            ("0", false),
            ("81", false),
            ("zz", false),
            ("-1", false),
        ] {
            let expected = if sampled { &traced } else { &Asked::Nothing };
            assert_eq!(asked(&[("traceparent", &format!("{id}-{flags}"))], 0), *expected, "{flags}");
        }
        assert_eq!(asked(&[("TraceParent", "x-y-z-01")], 29), traced);
        assert_eq!(asked(&[("traceparent", "x-y-z-01")], 30), Asked::Never);
        assert_eq!(asked(&[("traceparent", "x-01")], 0), Asked::Nothing);
        assert_eq!(asked(&[("traceparent", "x-y-z-01"), ("Nats-Trace-Only", "1")], 0), traced);
        let own = asked(&[("traceparent", "x-y-z-01"), ("Nats-Trace-Dest", "t.d")], 99);
        assert_eq!(own, Asked::Trace { dest: "t.d".into(), only: false });
        assert_eq!(asked(&[("traceparent", "x-y-z-01"), ("Nats-Trace-Dest", DISABLED)], 0), Asked::Nothing);
    }

    #[test]
    fn encodings() {
        for (accepted, expected) in [
            ("gzip", Encoding::Gzip),
            ("Snappy", Encoding::Snappy),
            ("S2", Encoding::Snappy),
            ("gzip, deflate, br", Encoding::Gzip),
            ("deflate, snappy;q=0.5", Encoding::Snappy),
            ("br", Encoding::Identity),
            ("identity", Encoding::Identity),
        ] {
            assert_eq!(Encoding::accepted(Some(&vec![accepted.to_owned()])), expected, "{accepted}");
        }
        assert_eq!(Encoding::accepted(None), Encoding::Plain);
        let gzip = Encoding::Gzip.encode(b"hello".to_vec());
        let mut plain = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(&gzip[..]), &mut plain).unwrap();
        assert_eq!(plain, b"hello");
        assert!(Encoding::Snappy.encode(b"hello".to_vec()).starts_with(b"\xff\x06\x00\x00sNaPpY"));
    }

    #[test]
    fn what_is_too_large_is_told_by_its_control_line() {
        let input = b"HPUB a.b reply 18 99999999\r\nNATS/1.0\r\nA: b\r\n\r\nxx";
        assert_eq!(too_large(input), Some((&b"a.b"[..], &b"NATS/1.0\r\nA: b\r\n\r\n"[..], 99_999_999)));
        assert_eq!(too_large(b"hpub a 20 99\r\nNATS"), Some((&b"a"[..], &b"NATS"[..], 99)));
        for other in [&b"PUB a.b 99999999\r\n"[..], b"HPUB a 1\r\n", b"HPUB a.b 20 99", b"HPUB a 1 x\r\n", b""] {
            assert_eq!(too_large(other), None);
        }
    }
}
