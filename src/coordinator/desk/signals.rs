//! What agents and workers say without asking the API: acks, progress, heartbeats, and the broker's advisories.
//!
//! Acks travel on `$JS.ACK.<stream>.<consumer>...`, where any client may listen; they carry the stream sequence of the
//! message they are about. That is how a coordinator that is only a client sees `+WPI`, `-NAK` and `+TERM`.

use std::time::Duration;

use super::Desk;
use super::requests::clip;
use crate::client::{Incoming, StoredEntry};
use crate::coordinator::queue::Mode;
use crate::coordinator::record::{Phase, Record};
use crate::coordinator::task::Event;
use crate::coordinator::{names, seconds};
use crate::types::Timestamp;

/// What an ack says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Signal {
    Ack { delivery: u32 },
    Progress { delivery: u32 },
    Nak { delay: Option<Duration>, delivery: u32 },
    Term { reason: String, delivery: u32 },
    DeliveriesUsed { deliveries: u32 },
}

/// A signal about a message whose own PubAck is still on its way to us.
#[derive(Debug)]
pub(super) struct Early {
    at: Timestamp,
    seq: u64,
    consumer: String,
    signal: Signal,
}

const EARLY_MAX: usize = 100_000;
const EARLY_KEPT: Duration = Duration::from_secs(5);

impl Desk {
    /// Takes an ack of an agent's or worker's; others are ignored.
    pub fn ack(&mut self, message: &Incoming, now: Timestamp) {
        self.now = now;
        if let Some((seq, consumer, signal)) = read_ack(message.subject_str(), message.payload()) {
            self.signal(seq, consumer, signal);
        }
    }

    /// Takes a consumer advisory: deliveries used up on a pull queue, and what is told of adopted consumers.
    pub fn advisory(&mut self, message: &Incoming, now: Timestamp) {
        self.now = now;
        let name = message.subject_str().to_owned();
        if !name.contains(&format!(".{}.", names::STREAM)) {
            return self.adopted_advisory(&name, message.payload());
        }
        if let Some((seq, consumer, signal)) = read_advisory(&name, message.payload()) {
            self.signal(seq, consumer, signal);
            // It is kept as well.
            self.adoptions.wake();
            self.read_advisories();
        }
    }

    /// A kept advisory about a pull queue's consumer: nobody may have listened when it was sent. False when it is about none.
    pub(super) fn kept_advisory(&mut self, entry: &StoredEntry) -> bool {
        let Some((seq, consumer, signal)) = read_advisory(&entry.subject, &entry.payload) else { return false };
        let known = self.items.get(&seq).copied();
        let known = known.filter(|index| self.task(*index).is_some_and(|task| is_of(consumer, &task.record)));
        match known.and_then(|index| self.task_mut(index)) {
            // It stays until what it tells is stored.
            Some(task) => {
                let before = std::mem::replace(&mut task.advisory, entry.seq);
                self.forget_advisory(before);
            }
            None => self.forget_advisory(entry.seq),
        }
        self.signal(seq, consumer, signal);
        true
    }

    /// Only the consumer that a message is for has a say about it: whoever may ack for one agent must not for another, and
    /// somebody who merely reads along in the bucket does not do the work.
    fn signal(&mut self, seq: u64, consumer: &str, signal: Signal) {
        match self.items.get(&seq).copied() {
            Some(index) if self.task(index).is_some_and(|task| is_of(consumer, &task.record)) => {
                self.apply(index, signal);
            }
            None if seq > self.seen_seq && self.early.len() < EARLY_MAX => {
                self.early.push(Early { at: self.now, seq, consumer: consumer.to_owned(), signal });
            }
            _ => {}
        }
    }

    /// Takes signals whose message is known by now; old ones belong to messages that are not ours.
    pub(super) fn release_early(&mut self) {
        if self.early.is_empty() {
            return;
        }
        let oldest = self.now - EARLY_KEPT;
        self.early.retain(|early| early.at > oldest);
        let known: Vec<Early> = self.early.extract_if(.., |early| self.items.contains_key(&early.seq)).collect();
        for early in known {
            self.signal(early.seq, &early.consumer, early.signal);
        }
    }

    fn apply(&mut self, index: u32, signal: Signal) {
        let now = self.now;
        let Some(task) = self.task(index) else { return };
        let (mode, lease) = (task.record.mode, String::from(task.record.lease.clone()));
        // Deliveries of this item that its attempts allow.
        let left = task.record.max_attempts.saturating_sub(task.record.attempts_before);
        let holder = task.holder;
        // A sign of work on a delivery that is known says nothing of the next one.
        let fetches = !task.seen || !matches!(signal, Signal::Progress { .. });
        let lease_time = self.queue_config(&task.record.queue).lease();
        if let Some(holder) = holder {
            self.speaks(holder, false);
            if fetches {
                self.fetches(holder);
            }
        }
        if let Some(task) = self.task_mut(index).filter(|_| mode.is_assigned()) {
            task.seen = true;
            if matches!(signal, Signal::Progress { .. }) {
                task.lease_until = now + lease_time;
            }
        }
        let event = match (mode.is_pulled(), signal) {
            (false, Signal::Term { reason, .. }) => {
                Event::Nak { lease, error: terminated(reason), retry: false, delay: None }
            }
            (false, Signal::Nak { delay, .. }) => {
                Event::Nak { lease, error: "not acknowledged (nak)".to_owned(), retry: true, delay }
            }
            (false, Signal::Ack { .. } | Signal::Progress { .. } | Signal::DeliveriesUsed { .. }) => return,
            (true, Signal::Term { reason, delivery }) => Event::PullTerminated { delivery, error: terminated(reason) },
            (true, Signal::Ack { delivery }) => Event::PullAcked { delivery },
            (true, Signal::DeliveriesUsed { deliveries }) => Event::DeliveriesUsed { deliveries },
            (true, Signal::Nak { delivery, .. }) if delivery >= left => Event::DeliveriesUsed { deliveries: delivery },
            // The broker delivers it again by itself.
            (true, Signal::Nak { delivery, .. }) => Event::PullDelivered { delivery, refused: true },
            (true, Signal::Progress { delivery }) => Event::PullDelivered { delivery, refused: false },
        };
        self.enqueue_event(index, event);
    }

    /// A progress chunk extends the lease of the delivery that it says it belongs to; without a word it counts only while there
    /// has been but one, because it may come from an agent that lost its lease.
    pub fn progress(&mut self, id: &str, message: &Incoming, now: Timestamp) {
        self.now = now;
        let Some(index) = self.ids.get(id).copied() else { return };
        let Some(task) = self.task(index) else { return };
        if task.record.mode.is_pulled() || !matches!(task.record.phase, Phase::Assigned | Phase::Running) {
            return;
        }
        let current = match message.headers().get_str("Task-Delivery") {
            Some(delivery) => delivery.parse() == Ok(task.record.deliveries),
            None => task.record.deliveries <= 1,
        };
        if !current {
            return;
        }
        self.apply(index, Signal::Progress { delivery: 1 });
    }

    /// A heartbeat of an agent.
    pub fn heartbeat(&mut self, agent: &str, now: Timestamp) {
        self.now = now;
        let Some(index) = self.roster.find(agent) else { return };
        if self.roster.get(index).is_some_and(|agent| agent.subject().is_some()) {
            return;
        }
        self.speaks(index, true);
        if let Some(agent) = self.roster.get_mut(index) {
            agent.beats = true;
        }
    }
}

fn terminated(reason: String) -> String {
    if reason.is_empty() { "terminated".to_owned() } else { reason }
}

/// Whether a consumer is the one that delivers the task.
fn is_of(consumer: &str, record: &Record) -> bool {
    match record.mode {
        Mode::Inbox | Mode::Service => consumer.strip_prefix("agent_") == Some(&record.agent),
        Mode::Adopted => false,
        Mode::Pull => consumer.strip_prefix("queue_") == Some(&record.queue),
    }
}

/// The same of an advisory about a pull queue's consumer.
fn read_advisory<'a>(name: &'a str, body: &[u8]) -> Option<(u64, &'a str, Signal)> {
    let mut tokens = name.strip_prefix("$JS.EVENT.ADVISORY.CONSUMER.")?.split('.');
    let (kind, stream, consumer) = (tokens.next()?, tokens.next()?, tokens.next()?);
    if stream != names::STREAM || !consumer.starts_with("queue_") {
        return None;
    }
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let deliveries = body["deliveries"].as_u64().unwrap_or(0).min(u64::from(u32::MAX)) as u32;
    let signal = match kind {
        "MSG_TERMINATED" => {
            Signal::Term { reason: clip(body["reason"].as_str().unwrap_or_default()), delivery: deliveries }
        }
        _ => Signal::DeliveriesUsed { deliveries },
    };
    Some((body["stream_seq"].as_u64()?, consumer, signal))
}

/// The stream sequence, consumer and meaning of an ack, from its subject (with or without domain and account) and body.
fn read_ack<'a>(subject: &'a str, body: &[u8]) -> Option<(u64, &'a str, Signal)> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let at = match tokens.len() {
        9 => 2,
        11.. => 4,
        _ => return None,
    };
    if tokens[0] != "$JS" || tokens[1] != "ACK" || tokens[at] != names::STREAM {
        return None;
    }
    let delivery = tokens[at + 2].parse().ok()?;
    let seq = tokens[at + 3].parse().ok()?;
    let word = |word: &[u8]| body.starts_with(word);
    let signal = if body.is_empty() || word(b"+ACK") || word(b"+NXT") {
        Signal::Ack { delivery }
    } else if word(b"+WPI") {
        Signal::Progress { delivery }
    } else if word(b"-NAK") {
        Signal::Nak { delay: nak_delay(body[4..].trim_ascii()), delivery }
    } else if word(b"+TERM") {
        Signal::Term { reason: clip(String::from_utf8_lossy(&body[5..]).trim()), delivery }
    } else {
        Signal::Ack { delivery }
    };
    Some((seq, tokens[at + 1], signal))
}

/// `{"delay": nanoseconds}` or a Go duration is what clients send; we know the former and whole units of the latter.
fn nak_delay(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?;
    if text.starts_with('{') {
        let body: serde_json::Value = serde_json::from_str(text).ok()?;
        return body["delay"].as_f64().filter(|nanos| *nanos >= 0.0).map(|nanos| seconds::pause(nanos / 1e9));
    }
    names::seconds(text).filter(|_| !text.is_empty()).map(seconds::pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_read() {
        let check = |subject: &str, body: &str, expected: Option<(u64, Signal)>| {
            let expected = expected.map(|(seq, signal)| (seq, "agent_a", signal));
            assert_eq!(read_ack(subject, body.as_bytes()), expected, "{subject} {body}");
        };
        let plain = "$JS.ACK.KV_TASK.agent_a.2.7.3.1795263733519796665.5";
        let long = "$JS.ACK.hub.ACC.KV_TASK.agent_a.2.7.3.1795263733519796665.5.x";
        check(plain, "", Some((7, Signal::Ack { delivery: 2 })));
        check(long, "+ACK", Some((7, Signal::Ack { delivery: 2 })));
        check(plain, "+WPI", Some((7, Signal::Progress { delivery: 2 })));
        let delay = Some(Duration::from_millis(100));
        check(plain, "-NAK {\"delay\":100000000}", Some((7, Signal::Nak { delay, delivery: 2 })));
        check(plain, "-NAK", Some((7, Signal::Nak { delay: None, delivery: 2 })));
        check(plain, "+TERM no use", Some((7, Signal::Term { reason: "no use".into(), delivery: 2 })));
        check("$JS.ACK.OTHER.agent_a.2.7.3.1.5", "", None);
        check("$JS.ACK.KV_TASK", "", None);
    }
}
