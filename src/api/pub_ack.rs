//! The answer to a publish, written without serde: half a million a second leave a busy stream.

use crate::stream::FastAnswer;
use crate::types::{ApiError, digits};

/// Writes PubAcks of one stream. The bytes are nats-server's, its odd space in `"duplicate": true` included.
#[derive(Clone, Debug)]
pub struct PubAckWriter {
    /// `{"stream":"S","seq":`
    prefix: Vec<u8>,
    /// `,"stream":"S","seq":0}`
    error_suffix: Vec<u8>,
}

impl PubAckWriter {
    /// `domain` is empty for none; refusals do not name it.
    pub fn new(stream: &str, domain: &str) -> PubAckWriter {
        let text = |value: &str| serde_json::to_string(value).expect("a string is always JSON");
        let name = text(stream);
        let domain = if domain.is_empty() { String::new() } else { format!(",\"domain\":{}", text(domain)) };
        PubAckWriter {
            prefix: format!("{{\"stream\":{name}{domain},\"seq\":").into_bytes(),
            error_suffix: format!(",\"stream\":{name},\"seq\":0}}").into_bytes(),
        }
    }

    /// The message was stored as `seq`.
    pub fn stored(&self, out: &mut Vec<u8>, seq: u64) {
        out.extend_from_slice(&self.prefix);
        digits::push(out, seq);
        out.push(b'}');
    }

    /// The message was stored as `seq`, and its subject's counter now stands at `value`, a decimal number.
    pub fn counted(&self, out: &mut Vec<u8>, seq: u64, value: &str) {
        out.extend_from_slice(&self.prefix);
        digits::push(out, seq);
        out.extend_from_slice(b",\"val\":\"");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\"}");
    }

    /// The message was already stored as `seq`.
    pub fn duplicate(&self, out: &mut Vec<u8>, seq: u64) {
        out.extend_from_slice(&self.prefix);
        digits::push(out, seq);
        out.extend_from_slice(b",\"duplicate\": true}");
    }

    /// A whole atomic batch was stored; `seq` is its last message's.
    pub fn batch(&self, out: &mut Vec<u8>, seq: u64, batch_id: &str, count: u64) {
        out.extend_from_slice(&self.prefix);
        digits::push(out, seq);
        out.extend_from_slice(b",\"batch\":");
        serde_json::to_writer(&mut *out, batch_id).expect("a string is always JSON");
        out.extend_from_slice(b",\"count\":");
        digits::push(out, count);
        out.push(b'}');
    }

    /// What a message of a fast-ingest batch is told (ADR-50).
    pub fn fast(&self, out: &mut Vec<u8>, answer: &FastAnswer) {
        match answer {
            FastAnswer::Flow { seq, messages } => {
                out.extend_from_slice(b"{\"type\":\"ack\",\"seq\":");
                digits::push(out, *seq);
                out.extend_from_slice(b",\"msgs\":");
                digits::push(out, (*messages).into());
                out.push(b'}');
            }
            FastAnswer::Gap { expected, found } => {
                out.extend_from_slice(b"{\"type\":\"gap\",\"last_seq\":");
                digits::push(out, *expected);
                out.extend_from_slice(b",\"seq\":");
                digits::push(out, *found);
                out.push(b'}');
            }
            FastAnswer::Failed { seq, error } => {
                out.extend_from_slice(b"{\"type\":\"err\",\"seq\":");
                digits::push(out, *seq);
                out.extend_from_slice(b",\"error\":");
                serde_json::to_writer(&mut *out, error).expect("an ApiError is always JSON");
                out.push(b'}');
            }
            FastAnswer::Ack { batch_id, count, seq } => self.batch(out, *seq, batch_id, *count),
            FastAnswer::Duplicate { batch_id, count, seq } => {
                self.batch(out, *seq, batch_id, *count);
                let at = self.prefix.len() + out[self.prefix.len()..].iter().take_while(|b| b.is_ascii_digit()).count();
                out.splice(at..at, *b",\"duplicate\": true");
            }
            FastAnswer::Refused(error) => self.error(out, error),
        }
    }

    /// The message was refused.
    pub fn error(&self, out: &mut Vec<u8>, error: &ApiError) {
        out.extend_from_slice(b"{\"error\":");
        serde_json::to_writer(&mut *out, error).expect("an ApiError is always JSON");
        out.extend_from_slice(&self.error_suffix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected texts are what nats-server 2.15.1 answered.
    #[test]
    fn acks_are_written_as_nats_server_writes_them() {
        let acks = PubAckWriter::new("S", "");
        let check = |write: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut out = Vec::new();
            write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(&|out| acks.stored(out, 1), r#"{"stream":"S","seq":1}"#);
        check(&|out| acks.stored(out, u64::MAX), r#"{"stream":"S","seq":18446744073709551615}"#);
        check(&|out| acks.duplicate(out, 2), r#"{"stream":"S","seq":2,"duplicate": true}"#);
        check(&|out| acks.counted(out, 3, "-6"), r#"{"stream":"S","seq":3,"val":"-6"}"#);
        check(&|out| acks.batch(out, 30, "id\"1", 3), r#"{"stream":"S","seq":30,"batch":"id\"1","count":3}"#);
        check(&|out| PubAckWriter::new("S", "HUB").stored(out, 1), r#"{"stream":"S","domain":"HUB","seq":1}"#);
        check(&|out| acks.fast(out, &FastAnswer::Flow { seq: 4, messages: 2 }), r#"{"type":"ack","seq":4,"msgs":2}"#);
        let gap = FastAnswer::Gap { expected: 2, found: 4 };
        check(&|out| acks.fast(out, &gap), r#"{"type":"gap","last_seq":2,"seq":4}"#);
        let failed = FastAnswer::Failed { seq: 2, error: ApiError::MESSAGE_TTL_DISABLED };
        check(
            &|out| acks.fast(out, &failed),
            r#"{"type":"err","seq":2,"error":{"code":400,"err_code":10166,"description":"per-message TTL is disabled"}}"#,
        );
        let duplicate = FastAnswer::Duplicate { batch_id: "b".into(), count: 1, seq: 12 };
        check(&|out| acks.fast(out, &duplicate), r#"{"stream":"S","seq":12,"duplicate": true,"batch":"b","count":1}"#);
        check(
            &|out| acks.error(out, &ApiError::STREAM_WRONG_LAST_SEQUENCE.with(2)),
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 2"},"stream":"S","seq":0}"#,
        );
    }
}
