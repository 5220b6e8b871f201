//! A stored message's bytes.
//!
//! ```text
//!  0  magic "NJ"          4  stream u32        16  time i64, ns      26  headers length u32   34  zero u16
//!  2  version             8  seq u64           24  subject length u16 30  payload length u32   36  CRC32C u32
//!  3  flags                                                           40  subject, headers, payload
//! ```
//! Numbers are little-endian. The CRC covers everything but itself. A payload that would make the row longer than
//! [`INLINE_BYTES_MAX`] lies in chunk rows instead (flag 1); redb gives a value over a page the next power of two, so
//! chunks are a little under such sizes:
//!
//! ```text
//!  0  magic "NC"   2  version   3  zero   4  stream u32   8  seq u64   16  index u32   20  length u32   24  CRC32C u32   28  bytes
//! ```

use crate::types::{Message, StoredMessage, StreamId, Timestamp};

/// Rows up to this size stay whole: above it too little of a 4 KiB page would be left for a neighbour.
pub(super) const INLINE_BYTES_MAX: usize = 3 * 1024;

const HEAD_BYTES: usize = 40;
const HEAD_CRC_AT: usize = 36;
const MAGIC: [u8; 2] = *b"NJ";
const VERSION: u8 = 1;
const FLAG_CHUNKED: u8 = 1;

const CHUNK_HEAD_BYTES: usize = 28;
const CHUNK_CRC_AT: usize = 24;
const CHUNK_MAGIC: [u8; 2] = *b"NC";
/// What redb adds to the only row of a chunk leaf: its header, the value's end and the key.
const LEAF_OVERHEAD_BYTES: usize = 4 + 4 + 16;
const CHUNK_BYTES: [usize; 3] = [chunk_bytes(16384), chunk_bytes(8192), chunk_bytes(4096)];

const fn chunk_bytes(page: usize) -> usize {
    page - LEAF_OVERHEAD_BYTES - CHUNK_HEAD_BYTES
}

/// Why bytes are not the row they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRow {
    #[error("it is cut short")]
    Short,
    #[error("it does not begin like a row")]
    Magic,
    #[error("its format {0} is not known")]
    Version(u8),
    #[error("its checksum does not match")]
    Checksum,
    #[error("its lengths do not add up")]
    Lengths,
    #[error("it belongs to another key")]
    Identity,
    #[error("part {0} of its payload is missing")]
    MissingChunk(u32),
}

/// A row's parts, borrowed from its verified bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) time: Timestamp,
    pub(super) subject: &'a [u8],
    pub(super) headers: &'a [u8],
    /// Empty when the payload lies in chunks.
    pub(super) inline_payload: &'a [u8],
    pub(super) payload_len: usize,
    pub(super) chunked: bool,
}

/// Whether a message's payload goes to chunk rows.
pub(super) fn is_chunked(message: &Message) -> bool {
    HEAD_BYTES + message.as_bytes().len() > INLINE_BYTES_MAX && !message.payload().is_empty()
}

pub(super) fn encoded_len(message: &Message) -> usize {
    let body =
        if is_chunked(message) { message.subject().len() + message.headers().len() } else { message.as_bytes().len() };
    HEAD_BYTES + body
}

/// Fills `out`, which has exactly [`encoded_len`] bytes.
///
/// # Panics
/// When a subject is longer than 64 KiB or a part longer than 4 GiB, which the protocol's limits rule out.
pub(super) fn encode_into(out: &mut [u8], stream: StreamId, stored: &StoredMessage) {
    let message = &stored.message;
    let chunked = is_chunked(message);
    let subject_len = u16::try_from(message.subject().len()).expect("a subject is limited by the control line");
    let headers_len = u32::try_from(message.headers().len()).expect("headers are limited by max_payload");
    let payload_len = u32::try_from(message.payload().len()).expect("a payload is limited by max_payload");
    let (head, body) = out.split_at_mut(HEAD_BYTES);
    body.copy_from_slice(&message.as_bytes()[..body.len()]);
    head[0..2].copy_from_slice(&MAGIC);
    head[2] = VERSION;
    head[3] = if chunked { FLAG_CHUNKED } else { 0 };
    head[4..8].copy_from_slice(&stream.0.to_le_bytes());
    head[8..16].copy_from_slice(&stored.seq.to_le_bytes());
    head[16..24].copy_from_slice(&stored.time.nanos().to_le_bytes());
    head[24..26].copy_from_slice(&subject_len.to_le_bytes());
    head[26..30].copy_from_slice(&headers_len.to_le_bytes());
    head[30..34].copy_from_slice(&payload_len.to_le_bytes());
    head[34..36].copy_from_slice(&[0; 2]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..HEAD_CRC_AT]), body);
    head[HEAD_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// Verifies the bytes found under a key and takes them apart.
pub(super) fn decode(bytes: &[u8], stream: StreamId, seq: u64) -> Result<Row<'_>, BadRow> {
    let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(BadRow::Short)?;
    if head[0..2] != MAGIC {
        return Err(BadRow::Magic);
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..HEAD_CRC_AT]), body);
    if crc.to_le_bytes() != head[HEAD_CRC_AT..] {
        return Err(BadRow::Checksum);
    }
    if head[2] != VERSION {
        return Err(BadRow::Version(head[2]));
    }
    if head[4..8] != stream.0.to_le_bytes() || head[8..16] != seq.to_le_bytes() {
        return Err(BadRow::Identity);
    }
    let time = Timestamp(i64::from_le_bytes(*head[16..].first_chunk().ok_or(BadRow::Short)?));
    let subject_len = usize::from(u16::from_le_bytes(*head[24..].first_chunk().ok_or(BadRow::Short)?));
    let headers_len = le_u32(head, 26).ok_or(BadRow::Short)? as usize;
    let payload_len = le_u32(head, 30).ok_or(BadRow::Short)? as usize;
    let chunked = head[3] & FLAG_CHUNKED != 0;
    let (subject, rest) = body.split_at_checked(subject_len).ok_or(BadRow::Lengths)?;
    let (headers, inline_payload) = rest.split_at_checked(headers_len).ok_or(BadRow::Lengths)?;
    if inline_payload.len() != if chunked { 0 } else { payload_len } {
        return Err(BadRow::Lengths);
    }
    Ok(Row { time, subject, headers, inline_payload, payload_len, chunked })
}

/// About how many chunk rows belong to a row, from its unverified bytes; zero when its payload is inline.
pub(super) fn chunks_hint(bytes: &[u8]) -> usize {
    match (bytes.get(3), le_u32(bytes, 30)) {
        (Some(flags), Some(payload_len)) if flags & FLAG_CHUNKED != 0 => 1 + payload_len as usize / CHUNK_BYTES[0],
        _ => 0,
    }
}

/// The pieces a payload is stored in, largest first: no piece wastes more of its page than its header.
pub(super) fn chunks(payload: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = payload;
    let mut index = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let len = CHUNK_BYTES.into_iter().find(|&len| len <= rest.len()).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(len);
        rest = tail;
        index += 1;
        Some((index - 1, piece))
    })
}

pub(super) fn encoded_chunk_len(piece: &[u8]) -> usize {
    CHUNK_HEAD_BYTES + piece.len()
}

/// Fills `out`, which has exactly [`encoded_chunk_len`] bytes.
pub(super) fn encode_chunk_into(out: &mut [u8], stream: StreamId, seq: u64, index: u32, piece: &[u8]) {
    let (head, body) = out.split_at_mut(CHUNK_HEAD_BYTES);
    body.copy_from_slice(piece);
    head[0..2].copy_from_slice(&CHUNK_MAGIC);
    head[2] = VERSION;
    head[3] = 0;
    head[4..8].copy_from_slice(&stream.0.to_le_bytes());
    head[8..16].copy_from_slice(&seq.to_le_bytes());
    head[16..20].copy_from_slice(&index.to_le_bytes());
    head[20..24].copy_from_slice(&(piece.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..CHUNK_CRC_AT]), body);
    head[CHUNK_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// Verifies a chunk row and gives its piece of the payload.
pub(super) fn decode_chunk(bytes: &[u8], stream: StreamId, seq: u64, index: u32) -> Result<&[u8], BadRow> {
    let (head, piece) = bytes.split_first_chunk::<CHUNK_HEAD_BYTES>().ok_or(BadRow::Short)?;
    if head[0..2] != CHUNK_MAGIC {
        return Err(BadRow::Magic);
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..CHUNK_CRC_AT]), piece);
    if crc.to_le_bytes() != head[CHUNK_CRC_AT..] {
        return Err(BadRow::Checksum);
    }
    if head[2] != VERSION {
        return Err(BadRow::Version(head[2]));
    }
    let identity = [&stream.0.to_le_bytes()[..], &seq.to_le_bytes(), &index.to_le_bytes()].concat();
    if head[4..20] != identity[..] {
        return Err(BadRow::Identity);
    }
    if le_u32(head, 20) != Some(piece.len() as u32) {
        return Err(BadRow::Lengths);
    }
    Ok(piece)
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(stream: StreamId, stored: &StoredMessage) -> Vec<u8> {
        let mut out = vec![0xEE; encoded_len(&stored.message)];
        encode_into(&mut out, stream, stored);
        out
    }

    fn stored() -> impl Strategy<Value = (StreamId, StoredMessage)> {
        let bytes = |max: usize| proptest::collection::vec(any::<u8>(), 0..max);
        (any::<u32>(), any::<u64>(), any::<i64>(), bytes(60), bytes(200), prop_oneof![bytes(300), bytes(9000)])
            .prop_map(|(stream, seq, time, subject, headers, payload)| {
                let message = Message::new(&subject, &headers, &payload);
                (StreamId(stream), StoredMessage { seq, time: Timestamp(time), message })
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_row_reads_back_as_written((stream, stored) in stored()) {
            let bytes = encode(stream, &stored);
            let row = decode(&bytes, stream, stored.seq).unwrap();
            prop_assert_eq!(row.time, stored.time);
            prop_assert_eq!(row.subject, stored.message.subject());
            prop_assert_eq!(row.headers, stored.message.headers());
            prop_assert_eq!(row.payload_len, stored.message.payload().len());
            let mut payload = row.inline_payload.to_vec();
            if row.chunked {
                for (index, piece) in chunks(stored.message.payload()) {
                    let mut out = vec![0; encoded_chunk_len(piece)];
                    encode_chunk_into(&mut out, stream, stored.seq, index, piece);
                    payload.extend_from_slice(decode_chunk(&out, stream, stored.seq, index).unwrap());
                }
            }
            prop_assert_eq!(payload, stored.message.payload());
        }

        #[test]
        fn a_flipped_bit_is_an_error((stream, stored) in stored(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = encode(stream, &stored);
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(decode(&bytes, stream, stored.seq).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes, StreamId(1), 1).is_err());
            prop_assert!(decode_chunk(&bytes, StreamId(1), 1, 0).is_err());
        }

        #[test]
        fn lengths_that_lie_are_refused(lengths in any::<[u8; 10]>(), flags in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = encode(StreamId(1), &StoredMessage { seq: 1, time: Timestamp(1), message: Message::new(b"", b"", &body) });
            bytes[3] = flags;
            bytes[24..34].copy_from_slice(&lengths);
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..HEAD_CRC_AT]), &bytes[HEAD_BYTES..]);
            bytes[HEAD_CRC_AT..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
            if let Ok(row) = decode(&bytes, StreamId(1), 1) {
                prop_assert_eq!(row.subject.len() + row.headers.len() + row.inline_payload.len(), body.len());
            }
        }
    }

    #[test]
    fn a_row_under_another_key_is_refused() {
        let message = StoredMessage { seq: 7, time: Timestamp(1), message: Message::new(b"a", b"", b"b") };
        let bytes = encode(StreamId(3), &message);
        assert_eq!(decode(&bytes, StreamId(3), 8).unwrap_err(), BadRow::Identity);
        assert_eq!(decode(&bytes, StreamId(4), 7).unwrap_err(), BadRow::Identity);
    }

    #[test]
    fn pieces_fill_pages() {
        let check = |payload: usize, expected: &[usize]| {
            let payload = vec![0; payload];
            assert_eq!(chunks(&payload).map(|(_, piece)| piece.len()).collect::<Vec<_>>(), expected);
        };
        check(3000, &[3000]);
        check(5000, &[4044, 956]);
        check(9000, &[8140, 860]);
        check(17000, &[16332, 668]);
        check(40000, &[16332, 16332, 4044, 3292]);
    }
}
