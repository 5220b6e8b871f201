//! How a source is known: its index name, and the `Nats-Stream-Source` header of each message that came from it
//! (nats-server `composeIName`, `genSourceHeader`, `streamAndSeq`).

use sha2::{Digest, Sha256};

use super::config::StreamSource;
use crate::types::Timestamp;

impl StreamSource {
    /// The origin's name; for an external one with a hash of its API's prefix, for one read through a consumer with a hash
    /// of the consumer's name.
    pub fn origin_name(&self) -> String {
        let mut name = self.name.clone();
        if let Some(external) = &self.external {
            name = format!("{name}:{}", hash(&external.api_prefix));
        }
        name
    }

    /// What tells two sources of a stream apart: origin, filters and transforms, separated by blanks.
    pub fn index_name(&self) -> String {
        let mut name = self.origin_name();
        if let Some(consumer) = &self.consumer {
            name = format!("{name}:C={}", hash(&consumer.name));
        }
        let or_all = |text: &str| if text.is_empty() { ">".to_owned() } else { text.to_owned() };
        if self.subject_transforms.is_empty() {
            return format!("{name} {} >", or_all(&self.filter_subject));
        }
        let join = |side: fn(&super::config::SubjectTransform) -> &str| {
            let texts: Vec<String> = self.subject_transforms.iter().map(|transform| or_all(side(transform))).collect();
            texts.join("\u{c}")
        };
        format!("{name} {} {}", join(|transform| &transform.source), join(|transform| &transform.destination))
    }

    /// The subjects it takes; none for all.
    pub fn filters(&self) -> Vec<&str> {
        match self.subject_transforms.is_empty() {
            true => [&*self.filter_subject].into_iter().filter(|filter| !filter.is_empty()).collect(),
            false => {
                let sources = self.subject_transforms.iter().map(|transform| &*transform.source);
                sources.map(|source| if source.is_empty() { ">" } else { source }).collect()
            }
        }
    }
}

/// Eight characters that stand for a name.
fn hash(name: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let digest = Sha256::digest(name.as_bytes());
    digest.iter().take(8).map(|byte| DIGITS[usize::from(byte % 62)] as char).collect()
}

/// What tells a stream from a later one of the same name.
pub fn identity(created: Timestamp) -> String {
    hash(&created.to_rfc3339())
}

/// The header's value for a message of `subject` at `seq` in the origin, which has this `identity`.
pub fn header_value(index_name: &str, seq: u64, subject: &str, identity: &str) -> String {
    let (origin, rest) = index_name.split_once(' ').unwrap_or((index_name, "> >"));
    format!("{origin} {seq} {rest} {subject} {identity}")
}

/// Where a stored message came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcedFrom {
    pub index_name: String,
    pub seq: u64,
    /// Empty when the header does not tell.
    pub identity: String,
}

/// Reads a header's value; `None` for one that names no filter and no transform, as servers before 2.10 wrote it.
pub fn parse_header(value: &[u8]) -> Option<SourcedFrom> {
    let fields: Vec<&str> = std::str::from_utf8(value).ok()?.split(' ').collect();
    let [origin, seq, filter, destination, ..] = fields[..] else { return None };
    Some(SourcedFrom {
        index_name: format!("{origin} {filter} {destination}"),
        seq: seq.parse().ok()?,
        identity: fields.get(5).copied().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(json: &str) -> String {
        serde_json::from_str::<StreamSource>(json).unwrap().index_name()
    }

    #[test]
    fn names_are_nats_servers() {
        for (json, expected) in [
            (r#"{"name":"O"}"#, "O > >"),
            (r#"{"name":"O","filter_subject":"l.a"}"#, "O l.a >"),
            (r#"{"name":"O","subject_transforms":[{"src":"l.b","dest":"z.b"}]}"#, "O l.b z.b"),
            (
                r#"{"name":"O","subject_transforms":[{"src":"a","dest":""},{"src":"","dest":"b.>"}]}"#,
                "O a\u{c}> >\u{c}b.>",
            ),
        ] {
            assert_eq!(name(json), expected);
        }
        let external = name(r#"{"name":"O","external":{"api":"$JS.HUB.API","deliver":""}}"#);
        assert_eq!(external.len(), "O:12345678 > >".len());
        assert!(external.starts_with("O:") && external.ends_with(" > >"));
    }

    #[test]
    fn headers_read_back() {
        let value = header_value("LATE l.b z.b", 2, "l.b", "qoaoBChk");
        assert_eq!(value, "LATE 2 l.b z.b l.b qoaoBChk");
        let from = parse_header(value.as_bytes()).unwrap();
        assert_eq!(from, SourcedFrom { index_name: "LATE l.b z.b".into(), seq: 2, identity: "qoaoBChk".into() });
        assert_eq!(parse_header(b"LATE 2 l.b z.b l.b").unwrap().identity, "");
        for bad in ["", "LATE 2", "LATE x > > s", "LATE"] {
            assert_eq!(parse_header(bad.as_bytes()), None, "{bad}");
        }
    }
}
