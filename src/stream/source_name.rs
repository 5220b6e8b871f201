//! How a source is known: its index name, and the `Nats-Stream-Source` header of each message that came from it
//! (nats-server `composeIName`, `genSourceHeader`, `streamAndSeq`).

use sha2::{Digest, Sha256};

use super::config::{StreamConfig, StreamSource};
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

/// The name of the consumer through which a stream of `account` takes from its mirror's origin, or from `source`
/// (nats-server `createStableConsumerHash`, `createSourcingConsumerHash`). `domain` is empty for none.
pub fn consumer_name(config: &StreamConfig, source: &StreamSource, account: &str, domain: &str) -> String {
    let mut id = format!("{} {account}", config.name);
    if !domain.is_empty() {
        id = format!("{id} {domain}");
    }
    let id = hash(&id);
    if config.mirror.is_some() {
        return format!("JS_MIRROR_{id}");
    }
    // Several sources of one stream must not share a consumer.
    let id = match config.sources.iter().filter(|other| other.name == source.name).count() {
        0 | 1 => id,
        _ => format!("{id} {}", source.index_name()),
    };
    format!("JS_SRC_{}", hash(&id))
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

    /// As nats-server 2.15.1 named them.
    #[test]
    fn consumers_are_named_after_the_stream_that_takes() {
        let name = |json: &str| {
            let config: StreamConfig = serde_json::from_str(json).unwrap();
            let source = config.mirror.as_ref().unwrap_or_else(|| &config.sources[0]);
            consumer_name(&config, source, "$G", "")
        };
        assert_eq!(name(r#"{"name":"SQ","sources":[{"name":"Q"}]}"#), "JS_SRC_U3bSS1wB");
        assert_eq!(name(r#"{"name":"SI","sources":[{"name":"I","filter_subject":"i.1"}]}"#), "JS_SRC_hG02xVUU");
        assert_eq!(name(r#"{"name":"MI","mirror":{"name":"I"}}"#), "JS_MIRROR_ChU0hG3N");
        let twice =
            name(r#"{"name":"SQ","sources":[{"name":"Q","filter_subject":"a"},{"name":"Q","filter_subject":"b"}]}"#);
        assert_ne!(twice, "JS_SRC_U3bSS1wB");
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
