//! Keys: big-endian, so that redb's byte order is the order of streams and sequences.

use redb::TableDefinition;

use crate::types::StreamId;

pub(super) type MessageKey = [u8; 12];
pub(super) type ChunkKey = [u8; 16];

pub(super) const MESSAGES: TableDefinition<'static, &[u8; 12], &[u8]> = TableDefinition::new("messages");
pub(super) const CHUNKS: TableDefinition<'static, &[u8; 16], &[u8]> = TableDefinition::new("chunks");
/// The pieces of summaries, by stream, first sequence and number.
pub(super) const SUMMARIES: TableDefinition<'static, &[u8; 16], &[u8]> = TableDefinition::new("summaries");
pub(super) const META: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("meta");

pub(super) fn message(stream: StreamId, seq: u64) -> MessageKey {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&stream.0.to_be_bytes());
    key[4..].copy_from_slice(&seq.to_be_bytes());
    key
}

pub(super) fn message_seq(key: &MessageKey) -> u64 {
    u64::from_be_bytes(key[4..].try_into().expect("a key's last eight bytes"))
}

pub(super) fn chunk(stream: StreamId, seq: u64, index: u32) -> ChunkKey {
    let mut key = [0; 16];
    key[..12].copy_from_slice(&message(stream, seq));
    key[12..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(super) fn chunk_index(key: &ChunkKey) -> u32 {
    u32::from_be_bytes(key[12..].try_into().expect("a key's last four bytes"))
}

/// A row of the meta table. A consumer's rows lie side by side, so that an ack touches one leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meta<'a> {
    Format,
    /// The lowest stream id never given out.
    NextStream,
    Stream(StreamId),
    Floor(StreamId),
    /// How far a stream has come with what it takes from others.
    Sources(StreamId),
    /// A range of messages that a summary speaks of, by its first sequence.
    Summary(StreamId, u64),
    /// A range being removed in slices, by its first sequence.
    Removal(StreamId, u64),
    /// Sequences whose rows are removed but not swept, by a number that ascends.
    Tombstones(StreamId, u64),
    Consumer(StreamId, &'a str),
    ConsumerState(StreamId, &'a str),
    AckBlock(StreamId, &'a str, u64),
    Redelivery(StreamId, &'a str, u64),
}

const FORMAT: u8 = 0x01;
const NEXT_STREAM: u8 = 0x02;
const STREAM: u8 = 0x10;
const FLOOR: u8 = 0x11;
const REMOVAL: u8 = 0x12;
const SOURCES: u8 = 0x13;
const SUMMARY: u8 = 0x14;
const TOMBSTONES: u8 = 0x15;
const CONSUMERS: u8 = 0x20;

const CONSUMER: u8 = 0x01;
const CONSUMER_STATE: u8 = 0x02;
const ACK_BLOCK: u8 = 0x03;
const REDELIVERY: u8 = 0x04;

impl Meta<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(48);
        match *self {
            Meta::Format => key.push(FORMAT),
            Meta::NextStream => key.push(NEXT_STREAM),
            Meta::Stream(stream) => push_stream(&mut key, STREAM, stream),
            Meta::Floor(stream) => push_stream(&mut key, FLOOR, stream),
            Meta::Sources(stream) => push_stream(&mut key, SOURCES, stream),
            Meta::Removal(stream, from) => {
                push_stream(&mut key, REMOVAL, stream);
                key.extend_from_slice(&from.to_be_bytes());
            }
            Meta::Summary(stream, from) => {
                push_stream(&mut key, SUMMARY, stream);
                key.extend_from_slice(&from.to_be_bytes());
            }
            Meta::Tombstones(stream, number) => {
                push_stream(&mut key, TOMBSTONES, stream);
                key.extend_from_slice(&number.to_be_bytes());
            }
            Meta::Consumer(stream, name) => push_consumer(&mut key, stream, name, CONSUMER),
            Meta::ConsumerState(stream, name) => push_consumer(&mut key, stream, name, CONSUMER_STATE),
            Meta::AckBlock(stream, name, block) => {
                push_consumer(&mut key, stream, name, ACK_BLOCK);
                key.extend_from_slice(&block.to_be_bytes());
            }
            Meta::Redelivery(stream, name, seq) => {
                push_consumer(&mut key, stream, name, REDELIVERY);
                key.extend_from_slice(&seq.to_be_bytes());
            }
        }
        key
    }

    /// `None` when the bytes are no key of this format.
    pub(super) fn decode(key: &[u8]) -> Option<Meta<'_>> {
        let (&kind, rest) = key.split_first()?;
        match kind {
            FORMAT if rest.is_empty() => return Some(Meta::Format),
            NEXT_STREAM if rest.is_empty() => return Some(Meta::NextStream),
            _ => {}
        }
        let (stream, rest) = rest.split_first_chunk::<4>()?;
        let stream = StreamId(u32::from_be_bytes(*stream));
        match kind {
            STREAM if rest.is_empty() => Some(Meta::Stream(stream)),
            FLOOR if rest.is_empty() => Some(Meta::Floor(stream)),
            SOURCES if rest.is_empty() => Some(Meta::Sources(stream)),
            REMOVAL => Some(Meta::Removal(stream, number(rest)?)),
            SUMMARY => Some(Meta::Summary(stream, number(rest)?)),
            TOMBSTONES => Some(Meta::Tombstones(stream, number(rest)?)),
            CONSUMERS => {
                let (len, rest) = rest.split_first_chunk::<4>()?;
                let (name, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
                let name = std::str::from_utf8(name).ok()?;
                let (&part, rest) = rest.split_first()?;
                match part {
                    CONSUMER if rest.is_empty() => Some(Meta::Consumer(stream, name)),
                    CONSUMER_STATE if rest.is_empty() => Some(Meta::ConsumerState(stream, name)),
                    ACK_BLOCK => Some(Meta::AckBlock(stream, name, number(rest)?)),
                    REDELIVERY => Some(Meta::Redelivery(stream, name, number(rest)?)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

fn push_stream(key: &mut Vec<u8>, kind: u8, stream: StreamId) {
    key.push(kind);
    key.extend_from_slice(&stream.0.to_be_bytes());
}

fn push_consumer(key: &mut Vec<u8>, stream: StreamId, name: &str, part: u8) {
    key.extend_from_slice(&consumer_prefix(stream, name));
    key.push(part);
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// What all rows of a consumer's begin with, and no other's.
pub(super) fn consumer_prefix(stream: StreamId, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(48);
    push_stream(&mut key, CONSUMERS, stream);
    key.extend_from_slice(&(name.len() as u32).to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// What all rows of a stream's summaries begin with.
pub(super) fn summaries_prefix(stream: StreamId) -> Vec<u8> {
    let mut key = Vec::with_capacity(13);
    push_stream(&mut key, SUMMARY, stream);
    key
}

/// What all rows of a stream's consumers begin with.
pub(super) fn consumers_prefix(stream: StreamId) -> Vec<u8> {
    let mut key = Vec::with_capacity(5);
    push_stream(&mut key, CONSUMERS, stream);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_keys_read_back_and_nothing_else_does() {
        let stream = StreamId(0x0102_0304);
        for key in [
            Meta::Format,
            Meta::NextStream,
            Meta::Stream(stream),
            Meta::Floor(stream),
            Meta::Sources(stream),
            Meta::Removal(stream, u64::MAX),
            Meta::Tombstones(stream, 3),
            Meta::Summary(stream, 65_536),
            Meta::Consumer(stream, "c"),
            Meta::ConsumerState(stream, ""),
            Meta::AckBlock(stream, "consumer", 7),
            Meta::Redelivery(stream, "consumer", 8),
        ] {
            let bytes = key.encode();
            assert_eq!(Meta::decode(&bytes), Some(key));
            assert_eq!(Meta::decode(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Meta::decode(&[&bytes[..], &[0]].concat()), None);
        }
    }

    #[test]
    fn byte_order_is_the_order_of_streams_and_sequences() {
        assert!(message(StreamId(1), u64::MAX) < message(StreamId(2), 0));
        assert!(message(StreamId(1), 255) < message(StreamId(1), 256));
        assert!(chunk(StreamId(1), 1, u32::MAX) < chunk(StreamId(1), 2, 0));
        assert_eq!(message_seq(&message(StreamId(9), 77)), 77);
        assert_eq!(chunk_index(&chunk(StreamId(9), 77, 3)), 3);
    }
}
