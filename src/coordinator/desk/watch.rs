//! The watch over the councils' bucket: a consumer that delivers every change in order to a subject of the coordinator's.
//! One that leaves a message out, or falls silent, is replaced by another that begins after the last message seen.

use std::time::Duration;

use serde_json::json;

use super::Desk;
use super::calls::{Answer, Call};
use crate::client::Incoming;
use crate::coordinator::names;
use crate::types::{ApiError, Timestamp};

/// The server says that it is there as often as this when there is nothing to deliver.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Silence after which it is not believed to be there.
const SILENCE: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The consumer's name; empty when there is none.
    consumer: String,
    /// Its creation is not answered.
    creating: bool,
    /// It is known to be there; before that a heartbeat is another's.
    live: bool,
    /// The last consumer sequence seen, and the last stream sequence.
    delivered: u64,
    pub seq: u64,
    /// When it is looked whether it is there.
    check_at: Timestamp,
}

impl Watch {
    pub fn next_check(&self) -> Option<Timestamp> {
        (!self.consumer.is_empty() && !self.creating).then_some(self.check_at)
    }
}

impl Desk {
    /// Begins to watch the bucket, which is there; what was read of it already is not told again.
    pub fn watch_councils(&mut self, now: Timestamp) {
        self.now = now;
        let old = std::mem::take(&mut self.councils.watch.consumer);
        if !old.is_empty() {
            self.end_watch(&old);
        }
        let consumer = format!("coordinator_{}", self.random.token(12));
        let body = json!({
            "stream_name": names::COUNCILS_STREAM,
            "config": {
                "name": consumer, "deliver_subject": self.settings.watch_subject,
                "deliver_policy": "by_start_sequence", "opt_start_seq": self.councils.watch.seq + 1,
                "ack_policy": "none", "max_deliver": 1, "mem_storage": true, "num_replicas": 1,
                "idle_heartbeat": HEARTBEAT.as_nanos() as u64, "inactive_threshold": 60_000_000_000_u64,
            },
        });
        let watch = &mut self.councils.watch;
        *watch = Watch { consumer: consumer.clone(), creating: true, seq: watch.seq, ..Watch::default() };
        let api = format!("CONSUMER.CREATE.{}.{consumer}", names::COUNCILS_STREAM);
        self.call_api(Call::CouncilWatch { consumer }, &api, &body);
    }

    fn end_watch(&mut self, consumer: &str) {
        let api = format!("CONSUMER.DELETE.{}.{consumer}", names::COUNCILS_STREAM);
        self.call_api(Call::Unimportant, &api, &serde_json::Value::Null);
    }

    pub(super) fn watch_answered(&mut self, consumer: &str, answer: &Answer) {
        let now = self.now;
        let watch = &mut self.councils.watch;
        if watch.consumer != consumer {
            return;
        }
        watch.creating = false;
        watch.live = true;
        watch.check_at = now + SILENCE;
        if let Err(reason) = super::answers::json(answer) {
            tracing::warn!(reason, "the councils cannot be watched");
            watch.live = false;
            watch.check_at = now + RETRY;
            if let Answer::Message(message) = answer {
                let body: serde_json::Value = serde_json::from_slice(message.payload()).unwrap_or_default();
                let gone = body["error"]["err_code"] == ApiError::STREAM_NOT_FOUND.err_code;
                self.store_gone |= gone || message.is_no_responders();
            }
        }
    }

    /// Whether it is still there, if it is time to look.
    pub(super) fn check_watch(&mut self) {
        if self.councils.watch.next_check().is_some_and(|at| at <= self.now) {
            self.watch_councils(self.now);
        }
    }

    /// The word of a consumer that has nothing to deliver.
    pub fn watch_heartbeat(&mut self, message: &Incoming, now: Timestamp) {
        self.now = now;
        let watch = &mut self.councils.watch;
        if !watch.live {
            return;
        }
        watch.check_at = now + SILENCE;
        let last = message.headers().get_str("Nats-Last-Consumer").and_then(|last| last.parse::<u64>().ok());
        if last.is_some_and(|last| last > watch.delivered) {
            self.watch_councils(now);
        }
    }

    /// A change of the bucket.
    pub fn council_row(&mut self, message: &Incoming, now: Timestamp) {
        self.now = now;
        let Some(delivery) = std::str::from_utf8(message.reply()).ok().and_then(Delivery::read) else { return };
        let watch = &mut self.councils.watch;
        if delivery.consumer != watch.consumer {
            // An older one, whose end was lost.
            return self.end_watch(delivery.consumer);
        }
        if delivery.consumer_seq != watch.delivered + 1 {
            return self.watch_councils(now);
        }
        watch.delivered = delivery.consumer_seq;
        watch.seq = delivery.stream_seq;
        watch.check_at = now + SILENCE;
        if let Some(key) = message.subject_str().strip_prefix(names::COUNCILS_PREFIX) {
            self.council_row_seen(key, delivery.stream_seq, message.header_block(), message.payload());
        }
    }
}

/// What the reply subject of a delivery tells.
struct Delivery<'a> {
    consumer: &'a str,
    stream_seq: u64,
    consumer_seq: u64,
}

impl Delivery<'_> {
    /// `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>`, or with domain and account
    /// before the stream.
    fn read(reply: &str) -> Option<Delivery<'_>> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let at = match tokens.len() {
            7 => 0,
            9.. => 2,
            _ => return None,
        };
        let (stream_seq, consumer_seq) = (tokens[at + 3].parse().ok()?, tokens[at + 4].parse().ok()?);
        Some(Delivery { consumer: tokens[at + 1], stream_seq, consumer_seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_tell_where_they_are() {
        for (reply, expected) in [
            ("$JS.ACK.S.con.1.17.3.1700.0", Some(("con", 17, 3))),
            ("$JS.ACK.hub.hash.S.con.1.17.3.1700.0.rnd", Some(("con", 17, 3))),
            ("$JS.ACK.S.con.1.x.3.1700.0", None),
            ("_INBOX.1", None),
        ] {
            let found = Delivery::read(reply).map(|d| (d.consumer.to_owned(), d.stream_seq, d.consumer_seq));
            assert_eq!(found, expected.map(|(consumer, a, b)| (consumer.to_owned(), a, b)), "{reply}");
        }
    }
}
