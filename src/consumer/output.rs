//! What a consumer wants done: values the caller carries out, in order.

use bytes::Bytes;

use super::ack::Ack;
use super::advisory::Advisory;
use crate::types::header::HeaderBuilder;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message of the stream.
    Deliver(Delivery),
    /// Send a message that is only headers: a status, heartbeat or flow control request.
    Status(Status),
    /// This consumer is done with a message; said only when the stream's retention asks for it.
    Consumed { seq: u64 },
    /// Answer an ack, with an empty message, once everything [`changes`](super::Consumer::changes) handed out up to
    /// and including the next call is durable.
    AckReply { to: Bytes },
    /// Publish an event.
    Advisory(Advisory),
    /// Unused for longer than its inactive threshold: delete it. Nothing follows.
    Expired,
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The subject it is routed to; the stream's subject is the one shown.
    pub to: Bytes,
    /// What its ack subject says, with [`ack::write_subject`](super::ack::write_subject).
    pub ack: Ack,
    /// Messages left for this consumer after this one, the last token of its ack subject.
    pub pending: u64,
    /// Send [`headers_only`] in place of headers and payload.
    pub headers_only: bool,
    /// It is a redelivery, whose count must be durable first: wait for what the next
    /// [`changes`](super::Consumer::changes) hands out.
    pub after_commit: bool,
    /// The `Nats-Pin-Id` header to add.
    pub pin_id: Option<Bytes>,
}

/// A message of headers only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub to: Bytes,
    /// The reply subject, empty for none.
    pub reply: Bytes,
    pub headers: Vec<u8>,
}

/// The lengths of a stored message's parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageSize {
    pub subject: usize,
    pub headers: usize,
    pub payload: usize,
}

/// Why requests in waiting are sent home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    Deleted,
    Shutdown,
}

impl Output {
    /// Whether it says what becomes of a message that is over.
    pub(super) fn tells_of_an_end(&self) -> bool {
        match self {
            Output::Consumed { .. } => true,
            Output::Advisory(advisory) => advisory.tells_of_an_end(),
            _ => false,
        }
    }

    pub(super) fn status(to: Bytes, code: u16, text: &str) -> Output {
        let headers = HeaderBuilder::status(code, text).build();
        Output::Status(Status { to, reply: Bytes::new(), headers })
    }

    /// A status that says what was left of a pull request.
    pub(super) fn status_with_rest(to: Bytes, code: u16, text: &str, messages: i64, bytes: i64) -> Output {
        let headers = HeaderBuilder::status(code, text)
            .add("Nats-Pending-Messages", messages)
            .add("Nats-Pending-Bytes", bytes)
            .build();
        Output::Status(Status { to, reply: Bytes::new(), headers })
    }

    /// An idle heartbeat, which tells where the consumer is.
    pub(super) fn heartbeat(to: Bytes, consumer_seq: u64, stream_seq: u64, stalled: Option<&[u8]>) -> Output {
        let mut headers = HeaderBuilder::status(100, "Idle Heartbeat")
            .add("Nats-Last-Consumer", consumer_seq)
            .add("Nats-Last-Stream", stream_seq);
        if let Some(flow_reply) = stalled {
            headers = headers.add("Nats-Consumer-Stalled", String::from_utf8_lossy(flow_reply));
        }
        Output::Status(Status { to, reply: Bytes::new(), headers: headers.build() })
    }
}

/// A message's headers with `Nats-Msg-Size` added, sent without its payload by a headers-only consumer.
pub fn headers_only(headers: &[u8], payload_len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(headers.len() + 32);
    match headers.strip_suffix(b"\r\n") {
        Some(open) => out.extend_from_slice(open),
        None => out.extend_from_slice(b"NATS/1.0\r\n"),
    }
    out.extend_from_slice(format!("Nats-Msg-Size: {payload_len}\r\n\r\n").as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_only_keeps_headers_and_says_the_size() {
        assert_eq!(headers_only(b"", 5), b"NATS/1.0\r\nNats-Msg-Size: 5\r\n\r\n");
        assert_eq!(headers_only(b"NATS/1.0\r\nA: b\r\n\r\n", 0), b"NATS/1.0\r\nA: b\r\nNats-Msg-Size: 0\r\n\r\n");
    }
}
