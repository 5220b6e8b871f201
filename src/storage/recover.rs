//! What a store holds besides its messages, read back when it is opened and after a failed commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable};
use roaring::RoaringTreemap;

use super::error::ReadError;
use super::key::{self, MessageKey, Meta};
use super::meta_row::{
    self, AckBlockV1, ConfigV1, ConsumerStateV1, FloorV1, NextStreamV1, RedeliveryV1, RedeliveryV2, RemovalV1,
    SourcesV1, SummaryV1, TombstonesV1,
};
use super::rows::{AckBlock, ConsumerStateRow, Redelivery, SourcePosition, StreamFloor, SummaryRange};
use super::shared::{Fault, Hidden};
use crate::types::{StreamId, Timestamp};

/// Everything found at opening; the messages themselves are read by [`super::Store::scan`].
#[derive(Debug, Default)]
pub struct Recovered {
    /// Ascending by id.
    pub streams: Vec<RecoveredStream>,
    /// Whether the last run ended without closing the store and the whole file had to be checked.
    pub repaired: bool,
    /// Streams of which messages exist but no config: left alone, and a sign of damage.
    pub orphans: Vec<StreamId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredStream {
    pub id: StreamId,
    pub config_json: Bytes,
    pub created: Timestamp,
    /// Where the stream stands if its rows do not say more; see [`StreamFloor`].
    pub floor: Option<StreamFloor>,
    /// How far it has come with its sources; nothing for a stream that never took anything.
    pub sources: Vec<SourcePosition>,
    /// The ranges of messages whose summaries hold, ascending and apart; [`super::Store::summary`] reads one.
    pub summaries: Vec<SummaryRange>,
    /// Ascending by length of name, then by name.
    pub consumers: Vec<RecoveredConsumer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredConsumer {
    pub name: Arc<str>,
    pub config_json: Bytes,
    pub created: Timestamp,
    pub state: Option<ConsumerStateRow>,
    /// Ascending by block.
    pub acked: Vec<AckBlock>,
    /// Ascending by sequence.
    pub redeliveries: Vec<Redelivery>,
}

/// What only the store itself needs to know.
pub(super) struct Inner {
    pub(super) next_stream: u32,
    pub(super) hidden: Vec<Hidden>,
    pub(super) summaries: Vec<(StreamId, SummaryRange)>,
    pub(super) tombstones: BTreeMap<StreamId, RoaringTreemap>,
    /// By stream, the lowest number above those of its rows of tombstones.
    pub(super) next_tombstones: BTreeMap<StreamId, u64>,
}

pub(super) fn inner(database: &Database) -> Result<Inner, Fault> {
    let txn = database.begin_read()?;
    let meta = txn.open_table(key::META)?;
    let next_stream = match get::<NextStreamV1>(&meta, &Meta::NextStream)? {
        Some(row) => row.id,
        None => 1,
    };
    let mut hidden = Vec::new();
    let first = Meta::Removal(StreamId(0), 0).encode();
    let last = Meta::Removal(StreamId(u32::MAX), u64::MAX).encode();
    for row in meta.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
        let (key, value) = row?;
        let Some(Meta::Removal(stream, from)) = Meta::decode(key.value()) else { return Err(bad_key(key.value())) };
        let RemovalV1 { to, drop_stream } = decode(key.value(), value.value())?;
        hidden.push(Hidden { stream, from, to, drop_stream });
    }
    let last = Meta::Summary(StreamId(u32::MAX), u64::MAX).encode();
    let first = Meta::Summary(StreamId(0), 0).encode();
    let summaries = ranges(&meta, &first, &last)?;
    let mut tombstones: BTreeMap<StreamId, RoaringTreemap> = BTreeMap::new();
    let mut next_tombstones = BTreeMap::new();
    let first = Meta::Tombstones(StreamId(0), 0).encode();
    let last = Meta::Tombstones(StreamId(u32::MAX), u64::MAX).encode();
    for row in meta.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
        let (key, value) = row?;
        let Some(Meta::Tombstones(stream, number)) = Meta::decode(key.value()) else {
            return Err(bad_key(key.value()));
        };
        let TombstonesV1 { deltas } = decode(key.value(), value.value())?;
        let mut seq = 0u64;
        tombstones.entry(stream).or_default().extend(deltas.into_iter().map(|delta| {
            seq = seq.saturating_add(delta);
            seq
        }));
        next_tombstones.insert(stream, number.saturating_add(1));
    }
    Ok(Inner { next_stream, hidden, summaries, tombstones, next_tombstones })
}

/// The summaries with keys from `first` to `last`. A row that is damaged is none; its messages are read instead.
fn ranges(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
    first: &[u8],
    last: &[u8],
) -> Result<Vec<(StreamId, SummaryRange)>, Fault> {
    let mut found: Vec<(StreamId, SummaryRange)> = Vec::new();
    for row in meta.range::<&[u8]>(first..=last)? {
        let (key, value) = row?;
        let Some(Meta::Summary(stream, from)) = Meta::decode(key.value()) else { return Err(bad_key(key.value())) };
        match meta_row::decode::<SummaryV1>(key.value(), value.value()) {
            Ok(SummaryV1 { to, .. }) if from <= to => found.push((stream, SummaryRange { from, to })),
            Ok(_) => tracing::error!(stream = stream.0, from, "a summary ends before it begins; it is not used"),
            Err(bad) => tracing::error!(stream = stream.0, from, %bad, "a summary is damaged; it is not used"),
        }
    }
    Ok(found)
}

pub(super) fn streams(database: &Database, hidden: &[Hidden]) -> Result<Recovered, Fault> {
    let txn = database.begin_read()?;
    let meta = txn.open_table(key::META)?;
    let mut recovered = Recovered::default();
    let first = Meta::Stream(StreamId(0)).encode();
    let last = Meta::Stream(StreamId(u32::MAX)).encode();
    for row in meta.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
        let (key, value) = row?;
        let Some(Meta::Stream(id)) = Meta::decode(key.value()) else { return Err(bad_key(key.value())) };
        recovered.streams.push(stream_of(&meta, id, decode(key.value(), value.value())?)?);
    }
    let messages = txn.open_table(key::MESSAGES)?;
    let mut next = Some(0);
    while let Some(from) = next {
        let Some(row) = messages.range::<&MessageKey>(&key::message(StreamId(from), 0)..)?.next().transpose()? else {
            break;
        };
        let [a, b, c, d, ..] = *row.0.value();
        let id = StreamId(u32::from_be_bytes([a, b, c, d]));
        let known = recovered.streams.binary_search_by_key(&id, |stream| stream.id).is_ok();
        if !known && !hidden.iter().any(|hidden| hidden.stream == id && hidden.drop_stream) {
            recovered.orphans.push(id);
        }
        next = id.0.checked_add(1);
    }
    Ok(recovered)
}

pub(super) fn stream(database: &Database, id: StreamId) -> Result<Option<RecoveredStream>, Fault> {
    let txn = database.begin_read()?;
    let meta = txn.open_table(key::META)?;
    match get::<ConfigV1>(&meta, &Meta::Stream(id))? {
        Some(config) => stream_of(&meta, id, config).map(Some),
        None => Ok(None),
    }
}

fn stream_of(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
    id: StreamId,
    config: ConfigV1,
) -> Result<RecoveredStream, Fault> {
    let floor = get::<FloorV1>(meta, &Meta::Floor(id))?.map(StreamFloor::from);
    let sources = get::<SourcesV1>(meta, &Meta::Sources(id))?.map_or_else(Vec::new, |row| row.positions);
    let sources = sources.into_iter().map(|(name, seq, identity)| SourcePosition { name, seq, identity }).collect();
    let (first, last) = (Meta::Summary(id, 0).encode(), Meta::Summary(id, u64::MAX).encode());
    let summaries = ranges(meta, &first, &last)?.into_iter().map(|(_, range)| range).collect();
    let mut consumers: Vec<RecoveredConsumer> = Vec::new();
    let prefix = key::consumers_prefix(id);
    for row in meta.range::<&[u8]>(prefix.as_slice()..)? {
        let (key, value) = row?;
        let (key, value) = (key.value(), value.value());
        if !key.starts_with(&prefix) {
            break;
        }
        let decoded = Meta::decode(key).ok_or_else(|| bad_key(key))?;
        if let Meta::Consumer(_, name) = decoded {
            let ConfigV1 { config_json, created_ns } = decode(key, value)?;
            consumers.push(RecoveredConsumer {
                name: name.into(),
                config_json: config_json.into(),
                created: Timestamp(created_ns),
                state: None,
                acked: Vec::new(),
                redeliveries: Vec::new(),
            });
            continue;
        }
        // A consumer's own row comes first, so rows without one before them have lost it.
        let (Meta::ConsumerState(_, name) | Meta::AckBlock(_, name, _) | Meta::Redelivery(_, name, _)) = decoded else {
            return Err(bad_key(key));
        };
        let Some(consumer) = consumers.last_mut().filter(|consumer| *consumer.name == *name) else {
            tracing::warn!(stream = id.0, consumer = name, "the store holds a row of a consumer it does not know");
            continue;
        };
        match decoded {
            Meta::ConsumerState(..) => consumer.state = Some(decode::<ConsumerStateV1>(key, value)?.into()),
            Meta::AckBlock(_, _, block) => {
                let AckBlockV1 { bits } = decode(key, value)?;
                consumer.acked.push(AckBlock { block, bits: Box::new(bits) });
            }
            Meta::Redelivery(_, _, seq) => {
                // The two forms differ in length.
                let (count, due) = match decode(key, value) {
                    Ok(RedeliveryV2 { count, due_ns }) => (count, Some(Timestamp(due_ns))),
                    Err(_) => (decode::<RedeliveryV1>(key, value)?.count, None),
                };
                consumer.redeliveries.push(Redelivery { seq, count, due });
            }
            _ => {}
        }
    }
    let ConfigV1 { config_json, created_ns } = config;
    Ok(RecoveredStream {
        id,
        config_json: config_json.into(),
        created: Timestamp(created_ns),
        floor,
        sources,
        summaries,
        consumers,
    })
}

pub(super) fn get<T: bincode::Decode<()>>(
    meta: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &Meta<'_>,
) -> Result<Option<T>, Fault> {
    let key = key.encode();
    let found = meta.get(key.as_slice())?;
    found.map(|value| decode(&key, value.value())).transpose()
}

fn decode<T: bincode::Decode<()>>(key: &[u8], value: &[u8]) -> Result<T, Fault> {
    meta_row::decode(key, value).map_err(|bad| {
        let what = match Meta::decode(key) {
            Some(name) => format!("the row {name:?}: {bad}"),
            None => format!("a row with key {key:x?}: {bad}"),
        };
        ReadError::DamagedStore { what }.into()
    })
}

fn bad_key(key: &[u8]) -> Fault {
    ReadError::DamagedStore { what: format!("a row with the unknown key {key:x?}") }.into()
}

impl From<FloorV1> for StreamFloor {
    fn from(row: FloorV1) -> StreamFloor {
        StreamFloor { first_seq: row.first_seq, last_seq: row.last_seq, last_time: Timestamp(row.last_time_ns) }
    }
}

impl From<ConsumerStateV1> for ConsumerStateRow {
    fn from(row: ConsumerStateV1) -> ConsumerStateRow {
        ConsumerStateRow {
            ack_floor_consumer_seq: row.ack_floor_consumer_seq,
            ack_floor_stream_seq: row.ack_floor_stream_seq,
            delivered_consumer_seq: row.delivered_consumer_seq,
            delivered_stream_seq: row.delivered_stream_seq,
        }
    }
}
