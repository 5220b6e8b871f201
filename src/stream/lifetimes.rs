//! Messages that said themselves how long they live (`Nats-TTL`, ADR-43): when each is due, and which are exempt from
//! `max_age`.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::ttl::Ttl;
use crate::types::Timestamp;

/// The lifetimes of a stream's messages, by sequence.
#[derive(Debug, Default)]
pub struct Lifetimes {
    /// `None` lives for ever.
    by_seq: HashMap<u64, Option<Timestamp>>,
    due: BTreeSet<(Timestamp, u64)>,
}

impl Lifetimes {
    pub fn insert(&mut self, seq: u64, stored: Timestamp, ttl: Ttl) {
        let end = match ttl {
            Ttl::Never => None,
            Ttl::For(life) => Some(stored + life),
        };
        self.by_seq.insert(seq, end);
        if let Some(end) = end {
            self.due.insert((end, seq));
        }
    }

    /// Whether the message outlives `max_age`. One that named a time does not: the shorter of the two counts.
    pub fn is_exempt(&self, seq: u64) -> bool {
        !self.by_seq.is_empty() && self.by_seq.get(&seq) == Some(&None)
    }

    /// When the next message is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(end, _)| *end)
    }

    /// Takes the next message that is due at `now`.
    pub fn take_due(&mut self, now: Timestamp) -> Option<u64> {
        let (end, seq) = *self.due.first()?;
        if end > now {
            return None;
        }
        self.due.pop_first();
        self.by_seq.remove(&seq);
        Some(seq)
    }

    pub fn forget(&mut self, seq: u64) {
        if self.by_seq.is_empty() {
            return;
        }
        if let Some(Some(end)) = self.by_seq.remove(&seq) {
            self.due.remove(&(end, seq));
        }
    }

    /// Forgets messages up to and including `seq`, after they left all at once.
    pub fn forget_up_to(&mut self, seq: u64) {
        if self.by_seq.is_empty() {
            return;
        }
        self.by_seq.retain(|held, _| *held > seq);
        self.due.retain(|(_, held)| *held > seq);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::stream::{Changes, Published, Stream, StreamConfig, World};
    use crate::types::header::HeaderBuilder;
    use crate::types::{ApiError, Message, StreamId};

    const SECOND: i64 = 1_000_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(1_000_000 * SECOND + seconds * SECOND)
    }

    fn stream(config: serde_json::Value) -> Stream {
        let config: StreamConfig = serde_json::from_value(config).unwrap();
        Stream::new(StreamId(1), Arc::new(config), at(0))
    }

    fn publish(stream: &mut Stream, ttl: &str, now: Timestamp) -> Result<Published, ApiError> {
        let headers = if ttl.is_empty() { Vec::new() } else { HeaderBuilder::new().add("Nats-TTL", ttl).build() };
        stream.handle_publish(&Message::new(b"t", &headers, b""), &World::new(&|_| true), now, &mut Changes::new())
    }

    /// Lets time pass in steps, as the stream asks for it, and returns what is left.
    fn left(stream: &mut Stream, until: Timestamp) -> Vec<u64> {
        while let Some(deadline) = stream.next_deadline().filter(|deadline| *deadline <= until) {
            stream.handle_expiry(deadline, &World::new(&|_| true), &mut Changes::new());
        }
        stream.index().seqs(0).collect()
    }

    #[test]
    fn each_message_lives_as_long_as_it_said() {
        let mut stream = stream(serde_json::json!({ "name": "T", "subjects": ["t"], "allow_msg_ttl": true }));
        for ttl in ["5s", "2", "", "never", "00"] {
            publish(&mut stream, ttl, at(0)).unwrap();
        }
        assert_eq!(left(&mut stream, at(1)), [1, 2, 3, 4, 5]);
        assert_eq!(left(&mut stream, at(2)), [1, 3, 4, 5]);
        assert_eq!(left(&mut stream, at(1000)), [3, 4, 5]);
    }

    #[test]
    fn the_shorter_of_its_own_wish_and_max_age_counts_unless_it_is_never() {
        let config =
            serde_json::json!({ "name": "T", "subjects": ["t"], "allow_msg_ttl": true, "max_age": 10 * SECOND });
        let mut stream = stream(config);
        for ttl in ["never", "20s", "", "5s", ""] {
            publish(&mut stream, ttl, at(0)).unwrap();
        }
        assert_eq!(left(&mut stream, at(6)), [1, 2, 3, 5]);
        assert_eq!(left(&mut stream, at(11)), [1]);
        assert_eq!(left(&mut stream, at(1000)), [1]);
    }

    #[test]
    fn a_restored_message_keeps_its_lifetime() {
        let mut stream = stream(serde_json::json!({ "name": "T", "subjects": ["t"], "allow_msg_ttl": true }));
        let headers = HeaderBuilder::new().add("Nats-TTL", "30s").build();
        stream.restore(7, at(0), b"t", &headers, 50);
        assert_eq!(left(&mut stream, at(29)), [7]);
        assert!(left(&mut stream, at(30)).is_empty());
    }

    #[test]
    fn refusals() {
        let mut off = stream(serde_json::json!({ "name": "T", "subjects": ["t"] }));
        assert_eq!(publish(&mut off, "5s", at(0)).unwrap_err(), ApiError::MESSAGE_TTL_DISABLED);
        let mut on = stream(serde_json::json!({ "name": "T", "subjects": ["t"], "allow_msg_ttl": true }));
        for ttl in ["500ms", "-1", "0", "soon"] {
            assert_eq!(publish(&mut on, ttl, at(0)).unwrap_err(), ApiError::MESSAGE_TTL_INVALID, "{ttl}");
        }
    }

    #[test]
    fn what_left_some_other_way_is_forgotten() {
        let mut lifetimes = Lifetimes::default();
        lifetimes.insert(1, at(0), Ttl::For(Duration::from_secs(5)));
        lifetimes.insert(2, at(0), Ttl::Never);
        lifetimes.forget(1);
        assert_eq!((lifetimes.next(), lifetimes.is_exempt(1), lifetimes.is_exempt(2)), (None, false, true));
        lifetimes.forget_up_to(2);
        assert!(!lifetimes.is_exempt(2));
    }
}
