//! A stream's configuration as STREAM.CREATE and STREAM.UPDATE carry it: with one field more, among the others.

use std::fmt;
use std::sync::OnceLock;

use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::stream::StreamConfig;
use crate::types::go_json::fields_of;

const PEDANTIC: &str = "pedantic";

/// nats-server's `StreamConfigRequest`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StreamConfigRequest {
    pub(super) config: StreamConfig,
    pub(super) pedantic: bool,
}

impl<'de> Deserialize<'de> for StreamConfigRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StreamConfigRequest, D::Error> {
        static FIELDS: OnceLock<Vec<&'static str>> = OnceLock::new();
        let fields = FIELDS.get_or_init(|| {
            let mut fields = fields_of::<StreamConfig>().to_vec();
            fields.push(PEDANTIC);
            fields
        });
        deserializer.deserialize_struct("StreamConfigRequest", fields, RequestVisitor)
    }
}

struct RequestVisitor;

impl<'de> Visitor<'de> for RequestVisitor {
    type Value = StreamConfigRequest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream's configuration")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StreamConfigRequest, A::Error> {
        let mut pedantic = false;
        let config = StreamConfig::deserialize(MapAccessDeserializer::new(But { map, pedantic: &mut pedantic }))?;
        Ok(StreamConfigRequest { config, pedantic })
    }
}

/// All fields but the one that is no part of the configuration.
struct But<'p, A> {
    map: A,
    pedantic: &'p mut bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for But<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if key == PEDANTIC {
                *self.pedantic = self.map.next_value()?;
                continue;
            }
            return seed.deserialize(StringDeserializer::new(key)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
