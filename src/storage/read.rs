//! Reads: one short transaction each, every row verified.

use bytes::{BufMut, BytesMut};
use redb::{ReadTransaction, ReadableDatabase};

use super::error::ReadError;
use super::key::{self, ChunkKey, MessageKey, Meta};
use super::message_row::{self, BadRow, Row};
use super::meta_row::SummaryV1;
use super::recover;
use super::rows::SummaryRange;
use super::shared::{Fault, Hidden, Shared};
use crate::types::{Message, StoredMessage, StreamId, Timestamp};

/// Rows of a scan that share one read transaction; a longer one would keep redb from reusing pages.
const SCAN_ROWS: usize = 16 * 1024;

/// A stored message without its payload, as recovery sees it.
#[derive(Clone, Copy, Debug)]
pub struct RowHead<'a> {
    pub seq: u64,
    pub time: Timestamp,
    pub subject: &'a [u8],
    pub headers: &'a [u8],
    pub payload_len: usize,
}

/// A row that is there but is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRow {
    pub seq: u64,
    pub what: String,
}

/// What a scan met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Intact rows, all of them shown to the caller.
    pub rows: u64,
    /// Rows that were not shown, ascending. A read of one of them is a [`ReadError::Damaged`].
    pub damaged: Vec<DamagedRow>,
}

pub(super) fn message(shared: &Shared, stream: StreamId, seq: u64) -> Result<Option<StoredMessage>, ReadError> {
    if shared.hidden(stream).iter().any(|hidden| hides(hidden, seq)) || shared.tombstones.contains(stream, seq) {
        return Ok(None);
    }
    shared.read(|database| {
        let txn = database.begin_read()?;
        let messages = txn.open_table(key::MESSAGES)?;
        let found = messages.get(&key::message(stream, seq))?;
        found.map(|bytes| assemble(&txn, stream, seq, bytes.value())).transpose()
    })
}

pub(super) fn range(
    shared: &Shared,
    stream: StreamId,
    from_seq: u64,
    max_messages: usize,
    max_bytes: usize,
) -> Result<Vec<StoredMessage>, ReadError> {
    let hidden = shared.hidden(stream);
    shared.read(|database| {
        let tombstones = shared.tombstones.view();
        let removed = tombstones.get(&stream);
        let txn = database.begin_read()?;
        let messages = txn.open_table(key::MESSAGES)?;
        let mut found = Vec::new();
        let mut bytes = 0;
        for row in messages.range::<&MessageKey>(&key::message(stream, from_seq)..=&key::message(stream, u64::MAX))? {
            if found.len() == max_messages || bytes >= max_bytes {
                break;
            }
            let (key, value) = row?;
            let seq = key::message_seq(key.value());
            if hidden.iter().any(|hidden| hides(hidden, seq)) || removed.is_some_and(|removed| removed.contains(seq)) {
                continue;
            }
            let message = assemble(&txn, stream, seq, value.value())?;
            bytes += message.message.as_bytes().len();
            found.push(message);
        }
        Ok(found)
    })
}

/// The bytes of the summary of `range`; `None` when it is not there or not what was written.
pub(super) fn summary(shared: &Shared, stream: StreamId, range: SummaryRange) -> Result<Option<Vec<u8>>, ReadError> {
    shared.read(|database| {
        let txn = database.begin_read()?;
        let head = match recover::get::<SummaryV1>(&txn.open_table(key::META)?, &Meta::Summary(stream, range.from)) {
            Err(Fault::Read(_)) => None,
            found => found?,
        };
        let Some(head) = head.filter(|head| head.to == range.to) else { return Ok(None) };
        let mut bytes = Vec::new();
        let pieces = txn.open_table(key::SUMMARIES)?;
        let (first, last) = (key::chunk(stream, range.from, 0), key::chunk(stream, range.from, u32::MAX));
        for (index, row) in pieces.range::<&ChunkKey>(&first..=&last)?.enumerate() {
            match message_row::decode_chunk(row?.1.value(), stream, range.from, index as u32) {
                Ok(piece) => bytes.extend_from_slice(piece),
                Err(_) => return Ok(None),
            }
        }
        Ok((bytes.len() as u64 == head.bytes && crc32c::crc32c(&bytes) == head.crc).then_some(bytes))
    })
}

pub(super) fn scan(
    shared: &Shared,
    stream: StreamId,
    from_seq: u64,
    to_seq: u64,
    mut visit: impl FnMut(RowHead<'_>),
) -> Result<ScanReport, ReadError> {
    let hidden = shared.hidden(stream);
    let mut report = ScanReport::default();
    let mut next = (from_seq <= to_seq).then_some(from_seq);
    while let Some(from) = next {
        next = shared.read(|database| {
            let tombstones = shared.tombstones.view();
            let removed = tombstones.get(&stream);
            let txn = database.begin_read()?;
            let messages = txn.open_table(key::MESSAGES)?;
            let rows = messages.range::<&MessageKey>(&key::message(stream, from)..=&key::message(stream, to_seq))?;
            for (count, row) in rows.enumerate() {
                let (key, value) = row?;
                let seq = key::message_seq(key.value());
                if count == SCAN_ROWS {
                    return Ok(Some(seq));
                }
                if hidden.iter().any(|hidden| hides(hidden, seq))
                    || removed.is_some_and(|removed| removed.contains(seq))
                {
                    continue;
                }
                match message_row::decode(value.value(), stream, seq) {
                    Ok(Row { time, subject, headers, payload_len, .. }) => {
                        report.rows += 1;
                        visit(RowHead { seq, time, subject, headers, payload_len });
                    }
                    Err(bad) => report.damaged.push(DamagedRow { seq, what: bad.to_string() }),
                }
            }
            Ok(None)
        })?;
    }
    Ok(report)
}

fn hides(hidden: &Hidden, seq: u64) -> bool {
    (hidden.from..=hidden.to).contains(&seq)
}

/// Builds the message of a row, its payload from the chunk rows if it is there.
fn assemble(txn: &ReadTransaction, stream: StreamId, seq: u64, bytes: &[u8]) -> Result<StoredMessage, Fault> {
    let damaged = |bad: BadRow| ReadError::Damaged { stream, seq, what: bad.to_string() };
    let row = message_row::decode(bytes, stream, seq).map_err(damaged)?;
    let mut buffer = BytesMut::with_capacity(row.subject.len() + row.headers.len() + row.payload_len);
    buffer.put_slice(row.subject);
    buffer.put_slice(row.headers);
    buffer.put_slice(row.inline_payload);
    if row.chunked {
        let whole = buffer.len() + row.payload_len;
        let chunks = txn.open_table(key::CHUNKS)?;
        let mut expected = 0;
        for chunk in chunks.range::<&ChunkKey>(&key::chunk(stream, seq, 0)..=&key::chunk(stream, seq, u32::MAX))? {
            let (key, value) = chunk?;
            if key::chunk_index(key.value()) != expected {
                break;
            }
            buffer.put_slice(message_row::decode_chunk(value.value(), stream, seq, expected).map_err(damaged)?);
            expected += 1;
        }
        if buffer.len() < whole {
            return Err(damaged(BadRow::MissingChunk(expected)).into());
        }
        if buffer.len() > whole {
            return Err(damaged(BadRow::Lengths).into());
        }
    }
    let message = Message::from_parts(buffer.freeze(), row.subject.len(), row.headers.len());
    Ok(StoredMessage { seq, time: row.time, message })
}
