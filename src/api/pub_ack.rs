//! The answer to a publish, written without serde: half a million a second leave a busy stream.

use crate::types::ApiError;

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
        push_decimal(out, seq);
        out.push(b'}');
    }

    /// The message was already stored as `seq`.
    pub fn duplicate(&self, out: &mut Vec<u8>, seq: u64) {
        out.extend_from_slice(&self.prefix);
        push_decimal(out, seq);
        out.extend_from_slice(b",\"duplicate\": true}");
    }

    /// A whole atomic batch was stored; `seq` is its last message's.
    pub fn batch(&self, out: &mut Vec<u8>, seq: u64, batch_id: &str, count: u64) {
        out.extend_from_slice(&self.prefix);
        push_decimal(out, seq);
        out.extend_from_slice(b",\"batch\":");
        serde_json::to_writer(&mut *out, batch_id).expect("a string is always JSON");
        out.extend_from_slice(b",\"count\":");
        push_decimal(out, count);
        out.push(b'}');
    }

    /// The message was refused.
    pub fn error(&self, out: &mut Vec<u8>, error: &ApiError) {
        out.extend_from_slice(b"{\"error\":");
        serde_json::to_writer(&mut *out, error).expect("an ApiError is always JSON");
        out.extend_from_slice(&self.error_suffix);
    }
}

fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
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
        check(&|out| acks.batch(out, 30, "id\"1", 3), r#"{"stream":"S","seq":30,"batch":"id\"1","count":3}"#);
        check(&|out| PubAckWriter::new("S", "HUB").stored(out, 1), r#"{"stream":"S","domain":"HUB","seq":1}"#);
        check(
            &|out| acks.error(out, &ApiError::STREAM_WRONG_LAST_SEQUENCE.with(2)),
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 2"},"stream":"S","seq":0}"#,
        );
    }
}
