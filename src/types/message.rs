//! A message's subject, header block and payload in one allocation.

use bytes::{Bytes, BytesMut};

use super::Timestamp;

/// Subject, raw header block (with its `NATS/1.0` line, empty when there is none) and payload, contiguous in one
/// reference-counted buffer, so that a message costs one clone wherever it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
    subject_len: u32,
    headers_len: u32,
}

impl Message {
    /// Copies the three parts into a new allocation.
    pub fn new(subject: &[u8], headers: &[u8], payload: &[u8]) -> Message {
        let mut buffer = BytesMut::with_capacity(subject.len() + headers.len() + payload.len());
        buffer.extend_from_slice(subject);
        buffer.extend_from_slice(headers);
        buffer.extend_from_slice(payload);
        Message::from_parts(buffer.freeze(), subject.len(), headers.len())
    }

    /// Wraps `subject ++ headers ++ payload` without copying.
    ///
    /// # Panics
    /// When the two lengths exceed the buffer.
    pub fn from_parts(bytes: Bytes, subject_len: usize, headers_len: usize) -> Message {
        assert!(subject_len + headers_len <= bytes.len(), "a message's parts lie within its buffer");
        Message { bytes, subject_len: subject_len as u32, headers_len: headers_len as u32 }
    }

    pub fn subject(&self) -> &[u8] {
        &self.bytes[..self.subject_len as usize]
    }

    /// The subject as text; subjects that are not UTF-8 show replacement characters.
    pub fn subject_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.subject())
    }

    /// The raw header block, empty when the message has none.
    pub fn headers(&self) -> &[u8] {
        &self.bytes[self.subject_len as usize..(self.subject_len + self.headers_len) as usize]
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[(self.subject_len + self.headers_len) as usize..]
    }

    /// The payload, sharing the message's allocation.
    pub fn payload_bytes(&self) -> Bytes {
        self.bytes.slice((self.subject_len + self.headers_len) as usize..)
    }

    /// Subject, headers and payload, back to back.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("subject", &self.subject_text())
            .field("headers", &String::from_utf8_lossy(self.headers()))
            .field("payload_bytes", &self.payload().len())
            .finish()
    }
}

/// A message as a stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Stream sequence, from 1.
    pub seq: u64,
    /// When the stream accepted it.
    pub time: Timestamp,
    pub message: Message,
}

impl StoredMessage {
    /// The size nats-server's file store accounts for a message (`fileStoreMsgSize`), so that `max_bytes` and
    /// `state.bytes` mean the same here: 22 bytes of record header, 8 of checksum, 4 more when there are headers.
    pub fn accounted_bytes(subject_len: usize, headers_len: usize, payload_len: usize) -> u64 {
        let parts = (subject_len + headers_len + payload_len) as u64;
        if headers_len == 0 { 22 + parts + 8 } else { 22 + parts + 4 + 8 }
    }
}
