//! The metadata nats-server keeps in every configuration: which API level it needs, and, only in answers, what serves it
//! (ADR-44, nats-server `jetstream_versioning.go`).

use std::collections::BTreeMap;

type Metadata = BTreeMap<String, String>;

const REQUIRED_LEVEL: &str = "_nats.req.level";
const SERVER_VERSION: &str = "_nats.ver";
const SERVER_LEVEL: &str = "_nats.level";

/// What is stored: the level the configuration needs, and nothing a client sent back from an answer.
pub fn set_static(metadata: &mut Metadata, required_level: u32) {
    remove_dynamic(metadata);
    metadata.insert(REQUIRED_LEVEL.to_owned(), required_level.to_string());
}

/// What an answer adds.
pub fn set_dynamic(metadata: &mut Metadata, version: &str, level: u32) {
    metadata.insert(SERVER_VERSION.to_owned(), version.to_owned());
    metadata.insert(SERVER_LEVEL.to_owned(), level.to_string());
}

/// Lists leave out what an answer adds.
pub fn remove_dynamic(metadata: &mut Metadata) {
    metadata.remove(SERVER_VERSION);
    metadata.remove(SERVER_LEVEL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_more_than_what_is_stored() {
        let mut metadata = Metadata::from([("a".into(), "b".into()), (SERVER_VERSION.into(), "9".into())]);
        set_static(&mut metadata, 1);
        assert_eq!(metadata, Metadata::from([("_nats.req.level".into(), "1".into()), ("a".into(), "b".into())]));
        set_dynamic(&mut metadata, "2.12.0", 2);
        assert_eq!(metadata.len(), 4);
        set_static(&mut metadata, 1);
        assert_eq!(metadata.len(), 2);
    }
}
