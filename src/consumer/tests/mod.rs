//! The machine under test, in a small world: a stream, a consumer, a clock and subscribers. What the consumer does is
//! written down as lines of text, so that tests read like transcripts.

mod laws;
mod pull;
mod push;
mod recovery;
mod start;
mod turns;

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashSet;

use super::*;
use crate::stream::{Changes, Stream, StreamConfig, StreamId};
use crate::types::{Headers, Message, Timestamp};

/// All of it, with the clock at one second.
struct World {
    stream: Stream,
    consumer: Consumer,
    now: Timestamp,
    /// Subjects nobody listens to.
    deaf: HashSet<Bytes>,
    generation: u64,
}

const SECOND: i64 = 1_000_000_000;

fn explicit() -> ConsumerConfig {
    ConsumerConfig { durable: "C".into(), ack_policy: AckPolicy::Explicit, ..ConsumerConfig::default() }
}

fn new_stream() -> Stream {
    let config = StreamConfig { name: "S".into(), subjects: vec![">".into()], ..StreamConfig::default() };
    Stream::new(StreamId(1), Arc::new(config), Timestamp(SECOND))
}

fn setup(config: ConsumerConfig) -> Setup {
    let mut config = config;
    config.set_defaults(&StreamTerms::default(), false).unwrap();
    config.set_inactive_default();
    Setup {
        stream: "S".into(),
        name: "C".into(),
        config: Arc::new(config),
        created: Timestamp(SECOND),
        reports_consumed: false,
        message_bytes_max: 1024,
    }
}

fn publish_to(stream: &mut Stream, subject: &str, payload: &str, now: Timestamp) -> (u64, Changes) {
    let mut changes = Changes::new();
    let message = Message::new(subject.as_bytes(), b"", payload.as_bytes());
    stream.handle_publish(&message, &crate::stream::World::new(&|_| true), now, &mut changes).unwrap();
    (stream.index().last_seq(), changes)
}

impl World {
    /// A consumer on a stream with messages on `subjects`.
    fn new(config: ConsumerConfig, subjects: &[&str]) -> World {
        let mut stream = new_stream();
        let now = Timestamp(SECOND);
        for subject in subjects {
            publish_to(&mut stream, subject, "payload", now);
        }
        let consumer = Consumer::new(setup(config), stream.index(), stream.index().last_seq(), now);
        World { stream, consumer, now, deaf: HashSet::new(), generation: 1 }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Consumer, &View, Timestamp) -> T) -> T {
        let (deaf, index) = (&self.deaf, self.stream.index());
        let interest = |subject: &[u8]| !deaf.contains(subject);
        let size = |seq: u64| {
            let subject = index.subject_of(seq)?.len();
            Some(MessageSize { subject, headers: 0, payload: "payload".len() })
        };
        let view = View { index, interest: &interest, interest_generation: self.generation, size: &size };
        act(&mut self.consumer, &view, self.now)
    }

    fn publish(&mut self, subject: &str) -> &mut World {
        let (seq, changes) = publish_to(&mut self.stream, subject, "payload", self.now);
        for removal in &changes.removes {
            self.consumer.handle_removed(removal, self.stream.index());
        }
        self.consumer.handle_append(seq, subject.as_bytes(), self.stream.index());
        self
    }

    fn delete(&mut self, seq: u64) -> &mut World {
        let mut changes = Changes::new();
        self.stream.handle_delete(seq, &mut changes).unwrap();
        for removal in &changes.removes {
            self.consumer.handle_removed(removal, self.stream.index());
        }
        self
    }

    fn purge(&mut self) -> &mut World {
        self.purge_subject(None)
    }

    fn purge_subject(&mut self, filter: Option<&str>) -> &mut World {
        let mut changes = Changes::new();
        self.stream.handle_purge(filter.map(str::as_bytes), 0, 0, &mut changes).unwrap();
        for removal in &changes.removes {
            self.consumer.handle_removed(removal, self.stream.index());
        }
        self
    }

    fn pull(&mut self, reply: &str, body: &str) -> &mut World {
        let reply = Bytes::from(reply.to_owned());
        self.with(|consumer, view, now| consumer.handle_next(reply, body.as_bytes(), view, now));
        self
    }

    /// An ack by token: `(stream seq, consumer seq, count)`.
    fn ack(&mut self, (stream_seq, consumer_seq, delivery_count): (u64, u64, u64), payload: &str) -> &mut World {
        self.ack_sync((stream_seq, consumer_seq, delivery_count), payload, "")
    }

    fn ack_sync(&mut self, token: (u64, u64, u64), payload: &str, reply: &str) -> &mut World {
        let ack = Ack { stream_seq: token.0, consumer_seq: token.1, delivery_count: token.2 };
        let reply = Bytes::from(reply.to_owned());
        let kind = AckKind::parse(payload.as_bytes());
        self.with(|consumer, view, now| consumer.handle_ack(ack, kind, reply, view, now));
        self
    }

    fn interest(&mut self, active: bool) -> &mut World {
        let now = self.now;
        self.consumer.handle_interest(active, now);
        self
    }

    fn leave(&mut self, subject: &str) -> &mut World {
        self.deaf.insert(Bytes::from(subject.to_owned()));
        self.generation += 1;
        self
    }

    fn pass(&mut self, millis: i64) -> &mut World {
        self.now.0 += millis * 1_000_000;
        self
    }

    fn update(&mut self, config: ConsumerConfig) -> &mut World {
        let (index, now) = (self.stream.index(), self.now);
        self.consumer.handle_update(setup(config).config, index, index.last_seq(), now);
        self
    }

    /// Everything the consumer wants done now, one line each.
    fn poll(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(output) = self.with(|consumer, view, now| consumer.poll(view, now)) {
            lines.push(line(&output));
            assert!(lines.len() < 10_000, "the poll comes to an end");
        }
        lines
    }

    #[track_caller]
    fn expect(&mut self, expected: &[&str]) -> &mut World {
        assert_eq!(self.poll(), expected);
        self
    }

    fn info(&mut self) -> ConsumerInfo {
        self.with(|consumer, view, now| consumer.info(view, now))
    }

    /// Floor and delivered as `consumer/stream`, then the counts ack pending, redelivered, pending and waiting.
    #[track_caller]
    fn expect_state(&mut self, floor: &str, delivered: &str, counts: [u64; 4]) -> &mut World {
        let info = self.info();
        let text = |position: SequenceInfo| format!("{}/{}", position.consumer_seq, position.stream_seq);
        let found = [info.num_ack_pending, info.num_redelivered, info.num_pending, info.num_waiting];
        assert_eq!((text(info.ack_floor), text(info.delivered), found), (floor.into(), delivered.into(), counts));
        self
    }
}

/// `to <- seq/consumer seq x count +pending` for a delivery, `to <- code text [fields]` for a status.
fn line(output: &Output) -> String {
    match output {
        Output::Deliver(delivery) => {
            let Ack { stream_seq, consumer_seq, delivery_count } = delivery.ack;
            let to = String::from_utf8_lossy(&delivery.to);
            let mut text = format!("{to} <- {stream_seq}/{consumer_seq} x{delivery_count} +{}", delivery.pending);
            if delivery.after_commit {
                text.push_str(" after commit");
            }
            if delivery.headers_only {
                text.push_str(" headers only");
            }
            if delivery.pin_id.is_some() {
                text.push_str(" pinned");
            }
            text
        }
        Output::Status(status) => {
            let headers = Headers::new(&status.headers);
            let mut text = format!(
                "{} <- {} {}",
                String::from_utf8_lossy(&status.to),
                headers.status().unwrap_or(0),
                headers.description().unwrap_or("")
            );
            for (name, value) in headers.iter() {
                text.push_str(&format!(" {}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
            }
            if !status.reply.is_empty() {
                text.push_str(" asks for an answer");
            }
            text
        }
        Output::Consumed { seq } => format!("consumed {seq}"),
        Output::AckReply { to } => format!("{} <- taken", String::from_utf8_lossy(to)),
        Output::Advisory(Advisory::MaxDeliver { stream_seq, deliveries }) => {
            format!("advisory max_deliver {stream_seq} x{deliveries}")
        }
        Output::Advisory(Advisory::Nak { stream_seq, deliveries, .. }) => {
            format!("advisory nak {stream_seq} x{deliveries}")
        }
        Output::Advisory(Advisory::Terminated { stream_seq, reason, .. }) => {
            format!("advisory terminated {stream_seq} {reason:?}")
        }
        Output::Advisory(Advisory::Acked { stream_seq, ack_nanos, .. }) => {
            format!("metric acked {stream_seq} {ack_nanos}")
        }
        Output::Advisory(Advisory::Pause { paused, .. }) => format!("advisory paused {paused}"),
        Output::Advisory(Advisory::Pinned { group, .. }) => format!("advisory pinned {group}"),
        Output::Advisory(Advisory::Unpinned { group, reason }) => format!("advisory unpinned {group} {reason}"),
        Output::Expired => "expired".to_owned(),
    }
}
