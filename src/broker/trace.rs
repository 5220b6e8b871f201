//! What clients say and hear, as trace lines in nats-server's words (`-V`): `<<- [SUB foo 1]`, `->> [MSG foo 1 5]`. Costs
//! one check of a flag when tracing is off.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tracing::{Level, enabled, trace};

use super::client_state::ClientState;
use crate::auth::{CALLOUT_SUBJECT, is_seed};
use crate::protocol::{ClientOp, quote};

/// How much of a payload is shown; 0 for all. The log is the process's, and so is this.
static PAYLOAD_BYTES_MAX: AtomicUsize = AtomicUsize::new(0);

static HEADERS_ONLY: AtomicBool = AtomicBool::new(false);
static SYSTEM: AtomicBool = AtomicBool::new(false);

/// What trace lines show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceTerms {
    /// `max_traced_msg_len`: bytes of a payload that are shown. 0: all.
    pub payload_bytes_max: usize,
    /// `trace_headers`: only headers are shown of a message.
    pub headers_only: bool,
    /// `trace_verbose`: what the server itself publishes is shown as well.
    pub system: bool,
}

/// Shows traces by these terms from now on.
pub fn show_traces(terms: TraceTerms) {
    PAYLOAD_BYTES_MAX.store(terms.payload_bytes_max, Ordering::Relaxed);
    HEADERS_ONLY.store(terms.headers_only, Ordering::Relaxed);
    SYSTEM.store(terms.system, Ordering::Relaxed);
}

#[inline]
pub(super) fn is_on() -> bool {
    enabled!(Level::TRACE)
}

/// One operation of the client, read from `bytes`.
#[cold]
pub(super) fn incoming(client: &ClientState, op: &ClientOp<'_>, bytes: &[u8]) {
    match op {
        ClientOp::Connect(json) => line(client, "<<-", &format!("CONNECT {}", without_secrets(json))),
        ClientOp::Pub { subject, headers, payload, .. } => {
            line(client, "<<-", &control_line(bytes));
            if *subject != CALLOUT_SUBJECT.as_bytes() {
                body(client, "<<-", headers, payload);
            }
        }
        _ => line(client, "<<-", &control_line(bytes)),
    }
}

/// A message that the server itself publishes.
#[cold]
pub(super) fn of_the_server(client: &ClientState, subject: &[u8], headers: &[u8], payload: &[u8]) {
    if SYSTEM.load(Ordering::Relaxed) {
        let subject = control_line(subject);
        line(client, "<<-", &format!("PUB {subject} {}", headers.len() + payload.len()));
        body(client, "<<-", headers, payload);
    }
}

/// One message to the client, its control line first in `bytes`; only that of one that is `secret`.
#[cold]
pub(super) fn outgoing(client: &ClientState, bytes: &[u8], headers: &[u8], payload: &[u8], secret: bool) {
    line(client, "->>", &control_line(bytes));
    if !secret {
        body(client, "->>", headers, payload);
    }
}

/// Protocol text to the client. INFO is not shown, as in nats-server.
#[cold]
pub(super) fn answer(client: &ClientState, bytes: &[u8]) {
    let text = control_line(bytes);
    if !text.starts_with("INFO ") {
        line(client, "->>", text.strip_prefix('+').unwrap_or(&text));
    }
}

fn line(client: &ClientState, arrow: &str, text: &str) {
    trace!("{} - cid:{} - {arrow} [{text}]", client.address, client.id);
}

fn body(client: &ClientState, arrow: &str, headers: &[u8], payload: &[u8]) {
    let bytes = match HEADERS_ONLY.load(Ordering::Relaxed) {
        true => headers.strip_suffix(b"\r\n").unwrap_or_default().to_vec(),
        false => [headers, payload].concat(),
    };
    if bytes.is_empty() {
        return;
    }
    let shown = shown(&bytes, PAYLOAD_BYTES_MAX.load(Ordering::Relaxed));
    trace!("{} - cid:{} - {arrow} MSG_PAYLOAD: [{shown}]", client.address, client.id);
}

fn shown(bytes: &[u8], max: usize) -> String {
    if max == 0 || bytes.len() <= max {
        return quote(bytes);
    }
    let quoted = quote(&bytes[..max]);
    format!("{}...\"", quoted.strip_suffix('"').unwrap_or(&quoted))
}

/// Up to the end of the line, with nothing in it that could forge another.
fn control_line(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    text.chars().map(|letter| if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter }).collect()
}

/// CONNECT's body with its secrets blackened.
fn without_secrets(json: &[u8]) -> String {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_slice(json) else {
        return "[not JSON]".to_owned();
    };
    // A bearer's JWT is all it takes; a seed may stand where its public key should.
    let is_secret = |name: &str, value: &serde_json::Value| {
        ["pass", "auth_token", "jwt", "sig"].iter().any(|known| name.eq_ignore_ascii_case(known))
            || value.as_str().is_some_and(is_seed)
    };
    for (_, value) in fields.iter_mut().filter(|(name, value)| is_secret(name, value)) {
        *value = "[REDACTED]".into();
    }
    serde_json::Value::Object(fields).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_line_breaks_stay_out_of_the_log() {
        assert_eq!(
            without_secrets(br#"{"user":"ada","Pass":"s3cret","auth_token":7,"jwt":"x"}"#),
            r#"{"Pass":"[REDACTED]","auth_token":"[REDACTED]","jwt":"[REDACTED]","user":"ada"}"#
        );
        let seed = format!("SU{}", "A".repeat(56));
        let mistaken = format!(r#"{{"nkey":"{seed}","name":"SUA"}}"#);
        assert_eq!(without_secrets(mistaken.as_bytes()), r#"{"name":"SUA","nkey":"[REDACTED]"}"#);
        assert_eq!(without_secrets(b"pass"), "[not JSON]");
        assert_eq!(control_line(b"SUB foo 1\r\nPING"), "SUB foo 1");
        assert_eq!(control_line(b"SUB a\x1b[2J 1"), "SUB a\u{fffd}[2J 1");
        assert_eq!(shown(b"hello\n", 0), r#""hello\n""#);
        assert_eq!(shown(b"hello", 5), r#""hello""#);
        assert_eq!(shown(b"hello!", 5), r#""hello...""#);
    }
}
