//! Messages that come from other streams: into a mirror under their own sequences, into a sourcing stream as new ones
//! (nats-server `processInboundMirrorMsg`, `processInboundSourceMsg`).
//!
//! The origin has checked them, so a publisher's expectations count no more; limits of this stream do. How far it has come
//! with each source is written with the messages themselves, so that nothing is taken twice or passed over.

use std::collections::BTreeMap;

use super::headers::PublishHeaders;
use super::machine::Stream;
use super::publish::{Arrival, Origin, Place, check_lengths};
use super::source_name::{self, SourcedFrom};
use super::world::World;
use super::{Changes, Published, StreamConfig};
use crate::types::{ApiError, Message, Timestamp};

/// How far a stream has come with its sources, by their index names. Those no longer configured are remembered until a
/// purge, in case they come back.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    by_name: BTreeMap<Box<str>, Position>,
}

/// How far it has come with one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last sequence of the origin that was taken.
    pub seq: u64,
    /// Tells the origin from a later stream of the same name; empty when unknown.
    pub identity: Box<str>,
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    /// The source's index name.
    pub source: &'a str,
    pub identity: &'a str,
    pub seq: u64,
}

/// Names remembered beyond those configured.
const FORMER_MAX: usize = 64;

impl Positions {
    pub fn get(&self, name: &str) -> Option<&Position> {
        self.by_name.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Position)> {
        self.by_name.iter().map(|(name, position)| (&**name, position))
    }

    /// Notes that a source has come to `seq`.
    pub fn set(&mut self, name: &str, seq: u64, identity: &str) {
        match self.by_name.get_mut(name) {
            Some(position) => {
                position.seq = seq;
                if *position.identity != *identity {
                    position.identity = identity.into();
                }
            }
            None => {
                self.by_name.insert(name.into(), Position { seq, identity: identity.into() });
            }
        }
    }

    /// Forgets sources that are not configured: all of them, or those above a bound.
    fn forget_former(&mut self, config: &StreamConfig, most: usize) {
        let names: Vec<String> = config.sources.iter().map(|source| source.index_name()).collect();
        let mut kept = 0;
        self.by_name.retain(|name, _| {
            names.iter().any(|configured| **configured == **name) || {
                kept += 1;
                kept <= most
            }
        });
    }
}

impl Stream {
    /// How far it has come with its sources.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Recovery: what the store knows of the sources, after all messages.
    pub fn restore_positions<'a>(&mut self, positions: impl IntoIterator<Item = (&'a str, u64, &'a str)>) {
        for (name, seq, identity) in positions {
            self.positions.set(name, seq, identity);
        }
    }

    /// Recovery: a message says where it came from.
    pub(super) fn restore_source(&mut self, headers: &PublishHeaders<'_>) {
        if self.config.sources.is_empty() {
            return;
        }
        if let Some(SourcedFrom { index_name, seq, identity }) =
            headers.stream_source.and_then(source_name::parse_header)
        {
            self.positions.set(&index_name, seq, &identity);
        }
    }

    pub(super) fn forget_former_sources(&mut self, all: bool) {
        let most = if all { 0 } else { FORMER_MAX };
        self.positions.forget_former(&self.config, most);
    }

    /// The message `seq` of the origin of this mirror, stored there at `time`. Sequences between the last one and it
    /// stay unused; one that is not above the last is passed over.
    ///
    /// # Errors
    /// When the mirror cannot take it now.
    pub fn handle_mirrored(
        &mut self,
        seq: u64,
        time: Timestamp,
        message: &Message,
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<(), ApiError> {
        if seq <= self.index.last_seq() {
            return Ok(());
        }
        if self.config.sealed {
            return Err(ApiError::STREAM_SEALED);
        }
        let renamed = self.subjects.take(message);
        let message = renamed.as_ref().unwrap_or(message);
        let headers = PublishHeaders::parse(message.headers());
        let mut arrival = Arrival::new(message.clone(), headers);
        arrival.rollup = self.check_rollup(&headers, Origin::Inside)?;
        self.check_size(message)?;
        check_lengths(message)?;
        if !self.is_wanted(message.subject(), world) {
            // It uses up its own sequence.
            self.index.skip_to(seq - 1, Timestamp::ZERO);
            self.skip(&arrival, now, changes);
            return Ok(());
        }
        self.settle(&mut arrival, time)?;
        let accounted_bytes = self.accounted_bytes(&arrival.message);
        self.refuse_new(arrival.message.subject(), accounted_bytes, headers.rollup.is_some())?;
        self.store_at(Place { seq, time }, arrival, accounted_bytes, now, changes);
        Ok(())
    }

    /// The origin of this mirror has nothing to give up to `last_seq`.
    pub fn handle_mirror_start(&mut self, last_seq: u64, changes: &mut Changes) {
        if last_seq > self.index.last_seq() {
            self.index.skip_to(last_seq, Timestamp::ZERO);
            changes.state_dirty = true;
        }
    }

    /// A message of a source's origin, with its `Nats-Stream-Source` header.
    ///
    /// # Errors
    /// When the stream cannot take it now.
    pub fn handle_sourced(
        &mut self,
        from: Provenance<'_>,
        message: &Message,
        world: &World,
        now: Timestamp,
        changes: &mut Changes,
    ) -> Result<Published, ApiError> {
        let renamed = self.subjects.take(message);
        let message = renamed.as_ref().unwrap_or(message);
        let published = self.handle_internal(message, world, now, changes)?;
        self.positions.set(from.source, from.seq, from.identity);
        changes.sources_dirty = true;
        Ok(published)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::{StreamId, header};

    fn stream(json: &str) -> Stream {
        let config: StreamConfig = serde_json::from_str(json).unwrap();
        Stream::new(StreamId(1), Arc::new(config.check_create(false).unwrap()), Timestamp(1))
    }

    fn message(subject: &str, lines: &[(&str, &str)]) -> Message {
        let headers = match lines {
            [] => Vec::new(),
            lines => header::extended(b"", |out| lines.iter().for_each(|(n, v)| header::push_line(out, n, v))),
        };
        Message::new(subject.as_bytes(), &headers, b"x")
    }

    #[test]
    fn a_mirror_keeps_sequences_times_and_gaps() {
        let mut mirror = stream(r#"{"name":"M","mirror":{"name":"O"}}"#);
        let mut changes = Changes::new();
        mirror.handle_mirror_start(99, &mut changes);
        assert_eq!((mirror.index().first_seq(), mirror.index().last_seq(), changes.state_dirty), (100, 99, true));
        for (seq, time) in [(100, 5), (103, 6), (103, 7), (102, 7), (110, 9)] {
            let now = Timestamp(1_000);
            mirror
                .handle_mirrored(seq, Timestamp(time), &message("a", &[]), &World::new(&|_| true), now, &mut changes)
                .unwrap();
        }
        let stored: Vec<(u64, i64)> = changes.puts.iter().map(|put| (put.seq, put.time.0)).collect();
        assert_eq!(stored, [(100, 5), (103, 6), (110, 9)]);
        assert_eq!(mirror.state().num_deleted, 8);
    }

    #[test]
    fn a_mirror_does_not_ask_twice_what_its_origin_has_checked() {
        let mut mirror = stream(r#"{"name":"M","mirror":{"name":"O"},"duplicate_window":1000000000}"#);
        let mut changes = Changes::new();
        let lines = [("Nats-Msg-Id", "1"), ("Nats-TTL", "1s"), ("Nats-Rollup", "all"), ("Nats-Expected-Stream", "O")];
        for seq in [1, 2] {
            mirror
                .handle_mirrored(
                    seq,
                    Timestamp(5),
                    &message("a", &lines),
                    &World::new(&|_| true),
                    Timestamp(6),
                    &mut changes,
                )
                .unwrap();
        }
        assert_eq!((changes.puts.len(), mirror.index().len()), (2, 2));
        assert_eq!(mirror.next_deadline().map(|at| at.0 > 900_000_000), Some(true), "nothing expires but message ids");
    }

    #[test]
    fn sources_are_deduplicated_counted_and_stopped_by_limits() {
        let json = r#"{"name":"S","sources":[{"name":"A"},{"name":"B"}],"duplicate_window":1000000000,
            "discard":"new","max_msgs":2}"#;
        let mut sourcing = stream(json);
        let mut changes = Changes::new();
        let mut take = |source: &str, seq: u64, id: &str| {
            let message = message("a", &[("Nats-Msg-Id", id)]);
            let from = Provenance { source, identity: "ident", seq };
            let taken = sourcing.handle_sourced(from, &message, &World::new(&|_| true), Timestamp(9), &mut changes);
            (taken, sourcing.positions().get(source).map(|position| position.seq))
        };
        assert_eq!(take("A > >", 7, "1"), (Ok(Published::Stored { seq: 1 }), Some(7)));
        assert_eq!(take("B > >", 3, "1"), (Ok(Published::Duplicate { seq: 1 }), Some(3)));
        assert_eq!(take("B > >", 4, "2"), (Ok(Published::Stored { seq: 2 }), Some(4)));
        let (refused, position) = take("B > >", 5, "3");
        assert_eq!((refused.unwrap_err().err_code, position), (10077, Some(4)));
        assert!(changes.sources_dirty);
    }

    #[test]
    fn stored_headers_tell_how_far_it_came() {
        let mut sourcing = stream(r#"{"name":"S","sources":[{"name":"A"}]}"#);
        for (seq, value) in [(1, "A 5 > > a ident"), (2, "B 9 > > a"), (3, "A 6 > > a ident")] {
            let message = message("a", &[("Nats-Stream-Source", value)]);
            sourcing.restore(seq, Timestamp(1), message.subject(), message.headers(), 50);
        }
        let at = |stream: &Stream, name: &str| stream.positions().get(name).map(|position| position.seq);
        assert_eq!((at(&sourcing, "A > >"), at(&sourcing, "B > >")), (Some(6), Some(9)));
        sourcing.restore_positions([("A > >", 8, "ident")]);
        assert_eq!(at(&sourcing, "A > >"), Some(8));
        sourcing.handle_purge(None, 0, 0, &mut Changes::new()).unwrap();
        assert_eq!((at(&sourcing, "A > >"), at(&sourcing, "B > >")), (Some(8), None), "a purge forgets former sources");
    }
}
