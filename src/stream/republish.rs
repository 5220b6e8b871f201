//! Subjects that change: a stream's transform of what it takes, and the subject under which it publishes again what it
//! stored.

use super::StreamConfig;
use crate::types::transform::Dice;
use crate::types::{Message, StoredMessage, Timestamp, Transform, header, subject};

/// What a stream does to subjects. Streams without transforms pay nothing for it.
#[derive(Debug)]
pub(super) struct SubjectChanges {
    taken: Option<Transform>,
    republished: Option<Transform>,
    dice: Dice,
}

/// A stored message that is to be published again once it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Republished {
    pub seq: u64,
    /// The subject it is published under.
    pub to: Vec<u8>,
    /// The subject's last sequence before this one, 0 for none, so that a receiver sees what it missed.
    pub last_seq: u64,
}

impl SubjectChanges {
    /// `config` has passed its check, so that its transforms exist.
    pub(super) fn new(config: &StreamConfig, seed: Timestamp) -> SubjectChanges {
        let taken = config.subject_transform.as_ref();
        let republished = config.republish.as_ref();
        SubjectChanges {
            taken: taken.and_then(|pair| Transform::new(&pair.source, &pair.destination).ok().flatten()),
            republished: republished.and_then(|pair| Transform::new(&pair.source, &pair.destination).ok().flatten()),
            dice: Dice::new(seed.nanos() as u64),
        }
    }

    /// The message under the subject it is stored by; `None` when that is the one it came with.
    pub(super) fn take(&mut self, message: &Message) -> Option<Message> {
        let subject = self.taken.as_ref()?.apply(message.subject(), &mut self.dice)?;
        Some(Message::new(&subject, message.headers(), message.payload()))
    }

    /// Where a message of this subject is published again; nowhere when that would be no subject.
    pub(super) fn republish(&mut self, subject: &[u8]) -> Option<Vec<u8>> {
        let to = self.republished.as_ref()?.apply(subject, &mut self.dice)?;
        subject::is_valid_literal(&to).then_some(to)
    }
}

impl Republished {
    /// The header block a receiver gets: the message's own lines, then where it is stored.
    pub fn headers(&self, stream: &str, stored: &StoredMessage, headers_only: bool) -> Vec<u8> {
        header::extended(stored.message.headers(), |out| {
            header::push_line(out, "Nats-Stream", stream);
            header::push_line(out, "Nats-Subject", stored.message.subject_text());
            header::push_line(out, "Nats-Sequence", self.seq);
            header::push_line(out, "Nats-Time-Stamp", stored.time.to_rfc3339());
            header::push_line(out, "Nats-Last-Sequence", self.last_seq);
            if headers_only {
                header::push_line(out, "Nats-Msg-Size", stored.message.payload().len());
            }
        })
    }
}
