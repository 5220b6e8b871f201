//! The entries of a backup (nats-server `server/archive/archive.go`): a magic word, then for each entry its head in
//! variable-length numbers, its name and its body.

use bytes::{Buf, Bytes, BytesMut};

use super::BackupError;
use crate::types::{Message, Timestamp};

const MAGIC: &[u8] = b"NATSARC1";
/// Of a subject, or a name.
const NAME_BYTES_MAX: u64 = 1 << 20;
/// Of an entry that is not a message: a state with all that a consumer has pending.
const STATE_BYTES_MAX: u64 = 64 << 20;
/// Five numbers of up to ten bytes.
const HEAD_BYTES_MAX: usize = 50;

/// One entry: of a message when it has a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub time: Timestamp,
    /// 0 for none.
    pub seq: u64,
    headers_len: usize,
    /// The name once more, the headers and the payload: how a [`Message`] has them.
    whole: Bytes,
}

impl Entry {
    /// What follows the name.
    pub fn body(&self) -> &[u8] {
        &self.whole[self.name.len()..]
    }

    /// Whether this is the mark that ends a backup.
    pub fn is_end(&self) -> bool {
        self.seq == 0 && self.time.is_zero() && self.body().is_empty()
    }

    /// The message of an entry with a sequence.
    pub fn into_message(self) -> Message {
        Message::from_parts(self.whole, self.name.len(), self.headers_len)
    }
}

/// Writes the magic word.
pub fn write_magic(out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
}

/// Writes an entry.
pub fn write_entry(name: &[u8], time: Timestamp, seq: u64, headers: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    put_uvarint(name.len() as u64, out);
    put_uvarint(((time.0 << 1) ^ (time.0 >> 63)) as u64, out);
    put_uvarint(seq, out);
    put_uvarint(headers.len() as u64, out);
    put_uvarint(payload.len() as u64, out);
    out.extend_from_slice(name);
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
}

/// Writes the entry that ends a backup.
pub fn write_end(out: &mut Vec<u8>) {
    write_entry(b"", Timestamp::ZERO, 0, b"", b"", out);
}

fn put_uvarint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a variable-length number (Go `binary.Uvarint`); `None` when there is none or it is too large.
pub(super) fn take_uvarint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        if shift == 63 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// From an archive's bytes to its entries.
#[derive(Debug)]
pub struct Reader {
    buffer: BytesMut,
    begun: bool,
    message_bytes_max: u64,
}

impl Reader {
    pub fn new(message_bytes_max: usize) -> Reader {
        Reader { buffer: BytesMut::new(), begun: false, message_bytes_max: message_bytes_max as u64 }
    }

    /// Takes the archive's next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next entry; `None` when more bytes are needed for it.
    ///
    /// # Errors
    /// When this is no archive, or a damaged one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, BackupError> {
        if !self.begun {
            if self.buffer.len() < MAGIC.len() {
                return Ok(None);
            }
            if !self.buffer.starts_with(MAGIC) {
                return Err(BackupError::UnknownFormat);
            }
            self.buffer.advance(MAGIC.len());
            self.begun = true;
        }
        let mut rest = &self.buffer[..];
        let mut take = || take_uvarint(&mut rest);
        let (Some(name), Some(time), Some(seq), Some(headers), Some(payload)) =
            (take(), take(), take(), take(), take())
        else {
            return if self.buffer.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(BackupError::BadEntry) };
        };
        let body = headers.checked_add(payload).ok_or(BackupError::BadEntry)?;
        if name > NAME_BYTES_MAX || (seq == 0 && body > STATE_BYTES_MAX) {
            return Err(BackupError::BadEntry);
        }
        if seq > 0 && body > self.message_bytes_max {
            return Err(BackupError::MessageTooLarge(seq));
        }
        let head = self.buffer.len() - rest.len();
        let whole = (name + body) as usize;
        if rest.len() < whole {
            return Ok(None);
        }
        self.buffer.advance(head);
        let whole = Bytes::copy_from_slice(&self.buffer.split_to(whole));
        Ok(Some(Entry {
            name: whole[..name as usize].to_vec(),
            time: Timestamp((time >> 1) as i64 ^ -((time & 1) as i64)),
            seq,
            headers_len: headers as usize,
            whole,
        }))
    }
}
