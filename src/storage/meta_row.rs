//! The small rows' bytes: format version, bincode body, CRC32C over key, version and body, so that a row found under
//! another key is as wrong as one with a flipped bit.

use bincode::{Decode, Encode};

use super::message_row::BadRow;

const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;
/// A length in a row that claims more than this is refused before anything is allocated for it.
const BODY_BYTES_MAX: usize = 64 << 20;

/// The format of the whole store, in its one row; rows carry their own versions besides.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct FormatV1 {
    pub(super) format: u32,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct NextStreamV1 {
    pub(super) id: u32,
}

/// A stream's or a consumer's config.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct ConfigV1 {
    pub(super) config_json: Vec<u8>,
    pub(super) created_ns: i64,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct FloorV1 {
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) last_time_ns: i64,
}

/// Name, sequence and identity of each source.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct SourcesV1 {
    pub(super) positions: Vec<(String, u64, String)>,
}

/// Where the summary of the messages from the key's sequence on ends, and its bytes in [`super::key::SUMMARIES`].
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct SummaryV1 {
    pub(super) to: u64,
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct RemovalV1 {
    pub(super) to: u64,
    /// Whether the whole stream goes, its consumers' rows too.
    pub(super) drop_stream: bool,
}

/// Sequences in ascending order: the first as it is, each other less the one before.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct TombstonesV1 {
    pub(super) deltas: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct ConsumerStateV1 {
    pub(super) ack_floor_consumer_seq: u64,
    pub(super) ack_floor_stream_seq: u64,
    pub(super) delivered_consumer_seq: u64,
    pub(super) delivered_stream_seq: u64,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct AckBlockV1 {
    pub(super) bits: [u8; super::AckBlock::BYTES],
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct RedeliveryV1 {
    pub(super) count: u64,
}

/// With the time a client wants the message again.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct RedeliveryV2 {
    pub(super) count: u64,
    pub(super) due_ns: i64,
}

pub(super) fn encode(key: &[u8], row: &impl Encode) -> Vec<u8> {
    let mut out = vec![VERSION];
    bincode::encode_into_std_write(row, &mut out, bincode::config::standard())
        .expect("plain values always encode into a Vec");
    let crc = crc(key, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode<T: Decode<()>>(key: &[u8], bytes: &[u8]) -> Result<T, BadRow> {
    let (body, stored_crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(BadRow::Short)?;
    if crc(key, body).to_le_bytes() != *stored_crc {
        return Err(BadRow::Checksum);
    }
    let (&version, body) = body.split_first().ok_or(BadRow::Short)?;
    if version != VERSION {
        return Err(BadRow::Version(version));
    }
    let config = bincode::config::standard().with_limit::<BODY_BYTES_MAX>();
    match bincode::decode_from_slice(body, config) {
        Ok((row, used)) if used == body.len() => Ok(row),
        _ => Err(BadRow::Lengths),
    }
}

fn crc(key: &[u8], versioned_body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), versioned_body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_row_reads_back_only_whole_and_under_its_key(
            config_json in proptest::collection::vec(any::<u8>(), 0..300),
            created_ns in any::<i64>(),
            flip in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let row = ConfigV1 { config_json, created_ns };
            let mut bytes = encode(b"key", &row);
            prop_assert_eq!(decode::<ConfigV1>(b"key", &bytes), Ok(row));
            prop_assert_eq!(decode::<ConfigV1>(b"kez", &bytes), Err(BadRow::Checksum));
            let at = flip.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert_eq!(decode::<ConfigV1>(b"key", &bytes), Err(BadRow::Checksum));
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut sealed = vec![VERSION];
            sealed.extend_from_slice(&bytes);
            let crc = crc(b"", &sealed);
            sealed.extend_from_slice(&crc.to_le_bytes());
            prop_assert!(decode::<ConfigV1>(b"", &bytes).is_err());
            if let Ok(row) = decode::<ConfigV1>(b"", &sealed) {
                prop_assert!(row.config_json.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn every_kind_reads_back() {
        fn check<T: Encode + Decode<()> + PartialEq + std::fmt::Debug>(row: T) {
            assert_eq!(decode::<T>(b"k", &encode(b"k", &row)), Ok(row));
        }
        check(FormatV1 { format: 1 });
        check(NextStreamV1 { id: u32::MAX });
        check(FloorV1 { first_seq: 1, last_seq: u64::MAX, last_time_ns: i64::MIN });
        check(SourcesV1 { positions: vec![("O > >".into(), 7, "qoaoBChk".into())] });
        check(RemovalV1 { to: 9, drop_stream: true });
        check(TombstonesV1 { deltas: vec![7, 1, u64::MAX - 8] });
        check(ConsumerStateV1 {
            ack_floor_consumer_seq: 1,
            ack_floor_stream_seq: 2,
            delivered_consumer_seq: 3,
            delivered_stream_seq: 4,
        });
        check(AckBlockV1 { bits: [0xA5; super::super::AckBlock::BYTES] });
        check(RedeliveryV1 { count: 5 });
    }
}
