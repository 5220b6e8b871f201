//! How long services of other accounts take, told where the export's `latency` says (nats-server `ServiceLatency`,
//! `shouldSample`, `sendTrackingLatency`). Off the way of requests to services that are not measured.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;

use super::account::Account;
use super::client_state::ClientState;
use super::courier::Courier;
use crate::api::ClientInfo;
use crate::auth::Latency;
use crate::types::{Headers, Timestamp, id};

const EVENT: &str = "io.nats.server.metric.v1.service_latency";

/// Headers by their names as Go writes them.
type HeaderMap = BTreeMap<String, Vec<String>>;

/// In whose name the server tells what it has measured.
#[derive(Clone)]
pub(super) struct Teller {
    pub(super) origin: Arc<ClientState>,
    /// The server's name.
    pub(super) server: Arc<str>,
}

/// What measures the requests of one import.
pub(super) struct Probe {
    terms: Latency,
    exporter: Weak<Account>,
    /// Who asks is told in full.
    share: bool,
    teller: Teller,
}

/// A request that is being measured.
pub(super) struct Measure {
    probe: Arc<Probe>,
    requestor: Arc<ClientState>,
    asked: Timestamp,
    /// Those that had it measured.
    headers: HeaderMap,
}

/// What became of a measured request.
pub(super) enum Outcome<'a> {
    Answered {
        by: &'a ClientState,
    },
    /// It said not where to answer.
    NoReply,
    /// Whoever asked does not listen for the answer any more.
    Lost,
    /// Nobody serves.
    NoService,
    /// No answer in time.
    Overdue,
}

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: String,
    timestamp: Timestamp,
    status: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'static str,
    requestor: ClientInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder: Option<ClientInfo>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    header: &'a HeaderMap,
    start: Timestamp,
    /// Nanoseconds, as those below.
    service: u64,
    system: u64,
    total: u64,
}

impl Probe {
    pub(super) fn new(terms: &Latency, exporter: &Arc<Account>, share: bool, teller: &Teller) -> Arc<Probe> {
        let (terms, teller) = (terms.clone(), teller.clone());
        Arc::new(Probe { terms, exporter: Arc::downgrade(exporter), share, teller })
    }

    /// Begins to measure a client's request, if it is among those that are.
    pub(super) fn begin(self: &Arc<Probe>, requestor: &Arc<ClientState>, headers: &[u8]) -> Option<Box<Measure>> {
        // What the server publishes, metrics among it, would go round in a circle.
        if requestor.id == 0 {
            return None;
        }
        let percent = self.terms.percent;
        let is_drawn = percent >= 100 || percent > 0 && rand::random_range(0..100) < percent;
        let headers = if is_drawn { HeaderMap::new() } else { sampled(headers)? };
        let (probe, requestor) = (self.clone(), requestor.clone());
        Some(Box::new(Measure { probe, requestor, asked: Timestamp::now(), headers }))
    }

    /// Who a client is; what only concerns itself where that is shared.
    fn info(&self, client: &ClientState, in_full: bool) -> ClientInfo {
        let identity = client.identity();
        let account = identity.account.clone();
        let whole = client.info(identity, &account);
        match in_full {
            true => ClientInfo { server: self.teller.server.to_string(), ..whole },
            false => ClientInfo { acc: whole.acc, rtt: whole.rtt, ..ClientInfo::default() },
        }
    }
}

impl Measure {
    /// Publishes what became of the request, in the exporter's account. Answers of the server itself are not told of.
    pub(super) fn tell(&self, outcome: &Outcome<'_>) {
        let probe = &self.probe;
        let Some(account) = probe.exporter.upgrade() else { return };
        let now = Timestamp::now();
        let (status, description, responder) = match outcome {
            Outcome::Answered { by } if by.id == 0 => return,
            Outcome::Answered { by } => (200, "", Some(probe.info(by, true))),
            Outcome::NoReply => (400, "Bad Request", None),
            Outcome::Lost => (408, "Request Timeout", None),
            Outcome::NoService => (503, "Service Unavailable", None),
            Outcome::Overdue => (504, "Service Timeout", None),
        };
        let requestor = probe.info(&self.requestor, probe.share);
        let (mut service, mut system, mut total) = (0, 0, 0);
        if let Some(responder) = &responder {
            let took = now.since(self.asked).as_nanos() as u64;
            service = took.saturating_sub(responder.rtt);
            total = requestor.rtt.saturating_add(took);
            if responder.rtt > 0 {
                system = Timestamp::now().since(now).as_nanos() as u64;
                total = total.saturating_add(system);
            }
        }
        let start = self.asked - Duration::from_nanos(requestor.rtt);
        let (r#type, id, timestamp, header) = (EVENT, id::unique(), Timestamp::now(), &self.headers);
        let event = Event {
            r#type,
            id,
            timestamp,
            status,
            description,
            requestor,
            responder,
            header,
            start,
            service,
            system,
            total,
        };
        let body = serde_json::to_vec(&event).expect("a metric is plain data");
        let mut courier = Courier::new(account, probe.teller.origin.clone());
        courier.publish(probe.terms.subject.as_bytes(), b"", b"", &body);
        courier.flush();
    }
}

/// The headers by which a tracing system has a request sampled; `None` when none does.
fn sampled(block: &[u8]) -> Option<HeaderMap> {
    let mut all = HeaderMap::new();
    for (name, value) in Headers::new(block).iter() {
        all.entry(canonical(name)).or_default().push(String::from_utf8_lossy(value).into_owned());
    }
    let first = |name: &str| all.get(name).and_then(|values| values.first()).map(String::as_str);
    let picked = |is_wanted: &dyn Fn(&str) -> bool| {
        Some(
            all.iter()
                .filter(|(name, _)| is_wanted(name))
                .map(|(name, values)| (name.clone(), values.clone()))
                .collect(),
        )
    };
    if let Some(trace) = first("Uber-Trace-Id") {
        let fields: Vec<&str> = trace.split(':').collect();
        let [_, _, _, flags] = fields[..] else { return None };
        let is_sampled = (1..=2).contains(&flags.len()) && hex(flags)? & 1 == 1;
        return is_sampled.then(|| picked(&|name| name == "Uber-Trace-Id" || name.starts_with("Uberctx-")))?;
    }
    let b3 = ["X-B3-Sampled", "X-B3-Traceid", "X-B3-Parentspanid", "X-B3-Spanid"];
    match first("X-B3-Sampled") {
        Some("1") => return picked(&|name| b3.contains(&name)),
        Some("0") => return None,
        _ if all.contains_key("X-B3-Traceid") => return picked(&|name| b3.contains(&name)),
        _ => {}
    }
    if let Some(trace) = first("B3") {
        let fields: Vec<&str> = trace.split('-').collect();
        let is_denied = trace == "0" || fields.get(2) == Some(&"0");
        return if is_denied { None } else { picked(&|name| name == "B3") };
    }
    let fields: Vec<&str> = first("Traceparent")?.split('-').collect();
    let [_, _, _, flags] = fields[..] else { return None };
    // Read as nats-server does: a signed byte.
    let is_sampled = flags.len() == 2 && i8::from_str_radix(flags, 16).ok()? & 1 == 1;
    if is_sampled { picked(&|name| name == "Traceparent" || name == "Tracestate") } else { None }
}

/// One or two hexadecimal digits.
fn hex(digits: &str) -> Option<u8> {
    if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// `x-b3-traceid` as `X-B3-Traceid` (Go's `CanonicalMIMEHeaderKey`).
fn canonical(name: &[u8]) -> String {
    let mut is_start = true;
    let letters = name.iter().map(|&byte| {
        let letter = if is_start { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
        is_start = byte == b'-';
        letter
    });
    String::from_utf8_lossy(&letters.collect::<Vec<u8>>()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As nats-server 2.15.1 has it.
    #[test]
    fn headers_of_tracing_systems_have_requests_sampled() {
        let check = |lines: &[&str], expected: Option<&[&str]>| {
            let block = format!("NATS/1.0\r\n{}\r\n\r\n", lines.join("\r\n"));
            let found = sampled(block.as_bytes());
            let found = found.map(|all| {
                all.iter().map(|(name, values)| format!("{name}: {}", values.join(","))).collect::<Vec<_>>()
            });
            assert_eq!(
                found.as_deref(),
                expected.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).as_deref(),
                "{lines:?}"
            );
        };
        check(&["other: 1"], None);
        check(&["X-B3-Sampled: 1", "X-B3-TraceId: aa", "x: y"], Some(&["X-B3-Sampled: 1", "X-B3-Traceid: aa"]));
        check(&["X-B3-Sampled: 0", "X-B3-TraceId: aa"], None);
        check(
            &["x-b3-traceid: aa", "X-B3-SpanId: b", "X-B3-ParentSpanId: c"],
            Some(&["X-B3-Parentspanid: c", "X-B3-Spanid: b", "X-B3-Traceid: aa"]),
        );
        check(&["b3: 0"], None);
        check(&["b3: a-b-0"], None);
        check(&["b3: a-b-1"], Some(&["B3: a-b-1"]));
        check(&["traceparent: 00-a-b-01", "tracestate: x=y"], Some(&["Traceparent: 00-a-b-01", "Tracestate: x=y"]));
        check(&["traceparent: 00-a-b-00"], None);
        check(&["traceparent: 00-a-b-ff"], None);
        check(&["traceparent: 00-a-01"], None);
        check(
            &["uber-trace-id: a:b:c:1", "uberctx-k: v", "X-B3-Sampled: 0"],
            Some(&["Uber-Trace-Id: a:b:c:1", "Uberctx-K: v"]),
        );
        check(&["uber-trace-id: a:b:c:0", "X-B3-Sampled: 1"], None);
        check(&["uber-trace-id: a:b:c:1f"], Some(&["Uber-Trace-Id: a:b:c:1f"]));
        check(&["uber-trace-id: a:b:c:+1"], None);
        check(&["uber-trace-id: a:b:c:111"], None);
    }
}
