//! A message as the server delivered it.

use bytes::Bytes;

use crate::types::Headers;

/// Subject, reply, header block and payload in one allocation.
#[derive(Clone)]
pub struct Incoming {
    bytes: Bytes,
    subject_len: u32,
    reply_len: u32,
    headers_len: u32,
}

impl Incoming {
    pub fn new(subject: &[u8], reply: &[u8], headers: &[u8], payload: &[u8]) -> Incoming {
        let mut buffer = Vec::with_capacity(subject.len() + reply.len() + headers.len() + payload.len());
        buffer.extend_from_slice(subject);
        buffer.extend_from_slice(reply);
        buffer.extend_from_slice(headers);
        buffer.extend_from_slice(payload);
        Incoming {
            bytes: Bytes::from(buffer),
            subject_len: subject.len() as u32,
            reply_len: reply.len() as u32,
            headers_len: headers.len() as u32,
        }
    }

    fn payload_start(&self) -> usize {
        (self.subject_len + self.reply_len + self.headers_len) as usize
    }

    pub fn subject(&self) -> &[u8] {
        &self.bytes[..self.subject_len as usize]
    }

    /// The subject as text; empty when it is not UTF-8.
    pub fn subject_str(&self) -> &str {
        std::str::from_utf8(self.subject()).unwrap_or("")
    }

    /// Where an answer is wanted; empty when nowhere.
    pub fn reply(&self) -> &[u8] {
        &self.bytes[self.subject_len as usize..(self.subject_len + self.reply_len) as usize]
    }

    /// The reply subject, sharing the message's allocation.
    pub fn reply_bytes(&self) -> Bytes {
        self.bytes.slice(self.subject_len as usize..(self.subject_len + self.reply_len) as usize)
    }

    pub fn has_headers(&self) -> bool {
        self.headers_len > 0
    }

    pub fn headers(&self) -> Headers<'_> {
        Headers::new(self.header_block())
    }

    /// The raw header block, empty when there is none.
    pub fn header_block(&self) -> &[u8] {
        &self.bytes[(self.subject_len + self.reply_len) as usize..self.payload_start()]
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_start()..]
    }

    /// The payload, sharing the message's allocation.
    pub fn payload_bytes(&self) -> Bytes {
        self.bytes.slice(self.payload_start()..)
    }

    /// Whether it is the server's word that nobody listens (503 without a payload).
    pub fn is_no_responders(&self) -> bool {
        self.has_headers() && self.payload().is_empty() && self.headers().status() == Some(503)
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("subject", &self.subject_str())
            .field("payload_bytes", &self.payload().len())
            .finish()
    }
}
