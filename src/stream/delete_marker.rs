//! Subject delete markers (ADR-43): when time takes a subject's last message, a marker takes its place for a while, so
//! that those who watch the subject learn of it.

use std::time::Duration;

use super::machine::Stream;
use super::world::World;
use super::{Changes, RemovalReason, headers};
use crate::types::header::HeaderBuilder;
use crate::types::{GoDuration, Headers, Message, Timestamp};

/// Whether a header block makes its message a marker already, ours or a key-value bucket's.
fn is_marker(block: &[u8]) -> bool {
    let headers = Headers::new(block);
    headers.get(headers::MARKER_REASON).is_some_and(|reason| !reason.is_empty())
        || headers.get(headers::KV_OPERATION) == Some(b"PURGE")
}

impl Stream {
    /// A message's time is over.
    pub(super) fn expire(&mut self, seq: u64, world: &World, now: Timestamp, changes: &mut Changes) {
        let life = Duration::from_secs(self.config.subject_delete_marker_ttl.duration().as_secs());
        if !life.is_zero()
            && let Some(subject) =
                self.index.subject_of(seq).filter(|subject| self.index.count_for(subject) == 1).cloned()
            && !world.load(seq, changes).is_some_and(|stored| is_marker(stored.message.headers()))
        {
            let block = HeaderBuilder::new()
                .add(headers::MARKER_REASON, "MaxAge")
                .add(headers::TTL, GoDuration::from(life))
                .add(headers::ROLLUP, "sub")
                .build();
            // The marker's rollup removes the message. Where it is refused, the message goes without one.
            let _ = self.handle_internal(&Message::new(&subject, &block, b""), world, now, changes);
        }
        self.remove(seq, RemovalReason::Age, changes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::stream::config::Nanos;
    use crate::stream::{Published, StoredMessage, StreamConfig};
    use crate::types::StreamId;

    const SECOND: i64 = 1_000_000_000;

    /// A stream and everything it ever stored.
    struct Bench {
        stream: Stream,
        stored: Vec<StoredMessage>,
    }

    impl Bench {
        fn new(config: StreamConfig) -> Bench {
            let config = StreamConfig { name: "M".into(), subjects: vec!["m.>".into()], ..config };
            let config = Arc::new(config.check_create(false).unwrap());
            Bench { stream: Stream::new(StreamId(1), config, Timestamp(1)), stored: Vec::new() }
        }

        fn publish(&mut self, subject: &str, headers: &[(&str, &str)], now: i64) -> Published {
            let block =
                headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build();
            let message = Message::new(subject.as_bytes(), if headers.is_empty() { b"" } else { &block }, b"");
            let mut changes = Changes::new();
            let world = World::new(&|_| true);
            let published =
                self.stream.handle_publish(&message, &world, Timestamp(now * SECOND), &mut changes).unwrap();
            self.stored.append(&mut changes.puts);
            published
        }

        /// Lets time pass and shows what lives then: sequence, subject and marker reason.
        fn at(&mut self, seconds: i64) -> Vec<(u64, String, String)> {
            let until = Timestamp(seconds * SECOND);
            while let Some(deadline) = self.stream.next_deadline().filter(|deadline| *deadline <= until) {
                let mut changes = Changes::new();
                let stored = self.stored.clone();
                let read = |seq| stored.iter().find(|message| message.seq == seq).cloned();
                let world = World { read: &read, ..World::new(&|_| true) };
                self.stream.handle_expiry(deadline, &world, &mut changes);
                self.stored.append(&mut changes.puts);
            }
            let living = self.stored.iter().filter(|stored| self.stream.index().exists(stored.seq));
            living
                .map(|stored| {
                    let reason = Headers::new(stored.message.headers()).get_str(headers::MARKER_REASON);
                    (stored.seq, stored.message.subject_text().into_owned(), reason.unwrap_or_default().to_owned())
                })
                .collect()
        }
    }

    #[test]
    fn a_subjects_last_message_leaves_a_marker_which_leaves_nothing() {
        let mut bench = Bench::new(StreamConfig {
            max_age: Nanos::from_secs(10),
            duplicate_window: Nanos::from_secs(1),
            subject_delete_marker_ttl: Nanos::from_secs(60),
            ..StreamConfig::default()
        });
        bench.publish("m.a", &[], 1);
        bench.publish("m.a", &[], 1);
        bench.publish("m.kv", &[("KV-Operation", "PURGE")], 1);
        bench.publish("m.b", &[], 9);
        let marker = |seq, subject: &str| (seq, subject.to_owned(), "MaxAge".to_owned());
        assert_eq!(bench.at(12), [(4, "m.b".to_owned(), String::new()), marker(5, "m.a")]);
        assert_eq!(
            bench.stored[4].message.headers(),
            b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 1m0s\r\nNats-Rollup: sub\r\n\r\n"
        );
        assert_eq!(bench.at(20), [marker(5, "m.a"), marker(6, "m.b")]);
        // The marker is as mortal as any message: max_age comes before its own minute.
        assert_eq!(bench.at(40), []);
    }

    #[test]
    fn messages_live_at_least_as_long_as_a_marker_would() {
        let config = |max_msgs_per_subject| StreamConfig {
            subject_delete_marker_ttl: Nanos::from_secs(60),
            max_msgs_per_subject,
            ..StreamConfig::default()
        };
        let mut bench = Bench::new(config(-1));
        bench.publish("m.a", &[("Nats-TTL", "5s"), ("X", "y")], 1);
        assert_eq!(bench.stored[0].message.headers(), b"NATS/1.0\r\nX: y\r\nNats-TTL: 60\r\n\r\n");
        assert_eq!(bench.at(60).len(), 1);
        assert_eq!(bench.at(61), [(2, "m.a".to_owned(), "MaxAge".to_owned())]);
        assert_eq!(bench.at(121), []);
        let mut bench = Bench::new(config(1));
        bench.publish("m.a", &[("Nats-TTL", "5s")], 1);
        assert_eq!(bench.at(6), [(2, "m.a".to_owned(), "MaxAge".to_owned())]);
    }
}
