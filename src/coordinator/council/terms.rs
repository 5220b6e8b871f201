//! What COUNCIL.FORM asks for: roles and their seats, where the offer goes, and the offer itself.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::coordinator::record;
use crate::types::subject;

/// Seats of a council, of all roles.
pub const SEATS_MAX: u32 = 1000;
/// Bytes of an offer: its body, and its headers.
const BODY_BYTES_MAX: usize = 128 << 10;
const HEADER_BYTES_MAX: usize = 8 << 10;
/// 30 days.
const SECONDS_MAX: f64 = 30.0 * 86_400.0;

/// The body of COUNCIL.FORM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// How many seats each role has.
    pub roles: BTreeMap<String, u32>,
    /// Seats that do not count for the quorum.
    pub optional: BTreeMap<String, u32>,
    pub quorum: Quorum,
    /// Where the offer is published until the seats are filled.
    pub offer_to: String,
    /// Where it is told what becomes of the council; nowhere when empty.
    pub status_to: String,
    pub headers: HeaderList,
    pub body: Opaque,
    /// How long the quorum may take.
    pub deadline_s: f64,
    /// How long a seat holds without being written anew, if no registered agent has it; 0 is for ever.
    pub seat_ttl_s: f64,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            roles: BTreeMap::new(),
            optional: BTreeMap::new(),
            quorum: Quorum::All,
            offer_to: String::new(),
            status_to: String::new(),
            headers: HeaderList::default(),
            body: Opaque::default(),
            deadline_s: 60.0,
            seat_ttl_s: 45.0,
        }
    }
}

impl Terms {
    /// Reads a request's body.
    ///
    /// # Errors
    /// A sentence that says what cannot be.
    pub fn read(body: &[u8]) -> Result<Terms, String> {
        // An array would be read field by field, whatever they mean.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err("the body is an object with roles and offer_to".to_owned());
        }
        let terms: Terms = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        terms.check()?;
        Ok(terms)
    }

    /// # Errors
    /// As [`Terms::read`].
    pub fn check(&self) -> Result<(), String> {
        for (role, seats) in self.roles.iter().chain(&self.optional) {
            if !record::is_id(role) {
                return Err("a role is one token of A-Z a-z 0-9 _ -, up to 64".to_owned());
            }
            if !(1..=SEATS_MAX).contains(seats) {
                return Err(format!("the role {role} has 1 to {SEATS_MAX} seats"));
            }
        }
        if self.roles.is_empty() {
            return Err("roles names no role".to_owned());
        }
        if let Some(role) = self.optional.keys().find(|role| self.roles.contains_key(*role)) {
            return Err(format!("the role {role} is in roles and in optional"));
        }
        if self.roles.values().chain(self.optional.values()).fold(0, |sum: u32, seats| sum.saturating_add(*seats))
            > SEATS_MAX
        {
            return Err(format!("a council has up to {SEATS_MAX} seats"));
        }
        let required = self.required();
        if matches!(self.quorum, Quorum::Count(count) if !(1..=required).contains(&count)) {
            return Err(format!("quorum is \"all\" or 1 to {required}, the seats in roles"));
        }
        for (name, to, needed) in [("offer_to", &self.offer_to, true), ("status_to", &self.status_to, false)] {
            let fine = subject::is_valid_literal(to.as_bytes()) && !to.starts_with('$') && to.len() <= 1024;
            if !fine && (needed || !to.is_empty()) {
                return Err(format!("{name} is a subject without wildcards, not below $"));
            }
        }
        self.headers.check()?;
        if self.body.0.len() > BODY_BYTES_MAX {
            return Err(format!("the offer's body is above {BODY_BYTES_MAX} bytes"));
        }
        let within = |seconds: f64, least: f64| (least..=SECONDS_MAX).contains(&seconds);
        if !within(self.deadline_s, 0.001) {
            return Err(format!("deadline_s is above 0 and up to {SECONDS_MAX}"));
        }
        if !within(self.seat_ttl_s, 0.0) {
            return Err(format!("seat_ttl_s is 0 (for ever) to {SECONDS_MAX}"));
        }
        Ok(())
    }

    /// Seats that count for the quorum.
    pub fn required(&self) -> u32 {
        self.roles.values().fold(0, |sum: u32, seats| sum.saturating_add(*seats))
    }

    /// How many of them must be taken.
    pub fn quorum(&self) -> u32 {
        match self.quorum {
            Quorum::All => self.required(),
            Quorum::Count(count) => count,
        }
    }

    /// The seats of a role, required or not.
    pub fn seats(&self, role: &str) -> u32 {
        self.roles.get(role).or_else(|| self.optional.get(role)).copied().unwrap_or(0)
    }
}

/// How many of the required seats must be taken: `"all"` or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quorum {
    #[default]
    All,
    Count(u32),
}

impl Serialize for Quorum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Quorum::All => serializer.serialize_str("all"),
            Quorum::Count(count) => serializer.serialize_u32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for Quorum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quorum, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let number = match &value {
            serde_json::Value::String(text) if text == "all" => return Ok(Quorum::All),
            serde_json::Value::String(text) => text.parse().ok(),
            other => other.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        number.map(Quorum::Count).ok_or_else(|| serde::de::Error::custom("quorum is \"all\" or a number of seats"))
    }
}

/// Headers in the order and the letters they were given in: an object of texts, or of lists of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<(String, Vec<String>)>);

impl HeaderList {
    /// The header lines, without the version line and the closing empty line.
    pub fn lines(&self) -> String {
        self.lines_without(&[])
    }

    /// As [`HeaderList::lines`], but for those of these names.
    pub fn lines_without(&self, names: &[&str]) -> String {
        let mut lines = String::new();
        for (name, values) in
            self.0.iter().filter(|(name, _)| !names.iter().any(|other| name.eq_ignore_ascii_case(other)))
        {
            for value in values {
                lines.extend([name, ": ", value, "\r\n"]);
            }
        }
        lines
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    fn check(&self) -> Result<(), String> {
        let mut bytes = 0;
        for (name, values) in &self.0 {
            let fine = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
            if !fine {
                return Err(format!("{name:?} is no name of a header"));
            }
            // They would have a stream behind `offer_to` do things.
            let starts =
                |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
            if starts("Nats-") || starts("KV-") {
                return Err(format!("the header {name} is JetStream's own"));
            }
            for value in values {
                if value.contains(['\r', '\n', '\0']) {
                    return Err(format!("the header {name} has a line break"));
                }
                bytes += name.len() + value.len() + 4;
            }
        }
        if bytes > HEADER_BYTES_MAX {
            return Err(format!("the offer's headers are above {HEADER_BYTES_MAX} bytes"));
        }
        Ok(())
    }
}

impl Serialize for HeaderList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, values)| {
            let value = match values.as_slice() {
                [one] => serde_json::Value::from(one.as_str()),
                many => many.to_vec().into(),
            };
            (name, value)
        }))
    }
}

impl<'de> Deserialize<'de> for HeaderList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HeaderList, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a header is a text or a list of texts")]
        enum Values {
            One(String),
            Many(Vec<String>),
        }
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = HeaderList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("headers as an object of texts or lists of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderList, A::Error> {
                let mut list = Vec::new();
                while let Some((name, values)) = map.next_entry::<String, Values>()? {
                    list.push((
                        name,
                        match values {
                            Values::One(value) => vec![value],
                            Values::Many(values) => values,
                        },
                    ));
                }
                Ok(HeaderList(list))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// JSON kept as it was written; empty when there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opaque(String);

impl Opaque {
    /// What is published: a text as the text it is, anything else as the JSON that was given, byte for byte.
    pub fn bytes(&self) -> Bytes {
        match serde_json::from_str::<String>(&self.0) {
            Ok(text) => Bytes::from(text),
            Err(_) => Bytes::from(self.0.clone()),
        }
    }
}

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            return serializer.serialize_none();
        }
        RawValue::from_string(self.0.clone()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Opaque, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Opaque(if raw.get() == "null" { String::new() } else { raw.get().to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<(u32, u32), &str>) {
        let found = Terms::read(body.as_bytes()).map(|terms| (terms.required(), terms.quorum()));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{body}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{body}: {found}"),
            (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn terms_are_read_or_refused_with_a_reason() {
        check(r#"{"roles":{"tpm":1,"developer":4},"offer_to":"o"}"#, Ok((5, 5)));
        check(r#"{"roles":{"a":2},"optional":{"b":3},"quorum":1,"offer_to":"o"}"#, Ok((2, 1)));
        check(r#"{"roles":{"a":2},"quorum":"2","offer_to":"o"}"#, Ok((2, 2)));
        check("", Err("the body is an object"));
        check(r#"[{"a":1},{},"all","x"]"#, Err("the body is an object"));
        check(r#"{"offer_to":"o"}"#, Err("no role"));
        check(r#"{"roles":{"a":0},"offer_to":"o"}"#, Err("1 to 1000 seats"));
        check(r#"{"roles":{"a":-1},"offer_to":"o"}"#, Err("invalid value"));
        check(r#"{"roles":{"a.b":1},"offer_to":"o"}"#, Err("one token"));
        check(r#"{"roles":{"a":600},"optional":{"b":600},"offer_to":"o"}"#, Err("up to 1000 seats"));
        check(r#"{"roles":{"a":1},"optional":{"a":1},"offer_to":"o"}"#, Err("in roles and in optional"));
        check(r#"{"roles":{"a":1},"quorum":2,"offer_to":"o"}"#, Err("1 to 1, the seats"));
        check(r#"{"roles":{"a":1},"quorum":"most","offer_to":"o"}"#, Err("number of seats"));
        check(r#"{"roles":{"a":1}}"#, Err("offer_to is a subject"));
        check(r#"{"roles":{"a":1},"offer_to":"o.*"}"#, Err("offer_to is a subject"));
        check(r#"{"roles":{"a":1},"offer_to":"$JS.API.INFO"}"#, Err("offer_to is a subject"));
        check(r#"{"roles":{"a":1},"offer_to":"o","status_to":"a b"}"#, Err("status_to is a subject"));
        check(r#"{"roles":{"a":1},"offer_to":"o","offer_to":"p"}"#, Err("duplicate field"));
        check(r#"{"roles":{"a":1},"offer_to":"o","rolls":{}}"#, Err("unknown field `rolls`"));
        check(r#"{"roles":{"a":1},"offer_to":"o","headers":{"A B":"c"}}"#, Err("no name of a header"));
        check(r#"{"roles":{"a":1},"offer_to":"o","headers":{"A":"c\r\nNats-Rollup: all"}}"#, Err("line break"));
        check(r#"{"roles":{"a":1},"offer_to":"o","headers":{"nats-rollup":"all"}}"#, Err("JetStream's own"));
        check(r#"{"roles":{"a":1},"offer_to":"o","headers":{"A":1}}"#, Err("text or a list"));
        check(r#"{"roles":{"a":1},"offer_to":"o","deadline_s":0}"#, Err("deadline_s"));
        check(r#"{"roles":{"a":1},"offer_to":"o","seat_ttl_s":-1}"#, Err("seat_ttl_s"));
        let large = format!(r#"{{"roles":{{"a":1}},"offer_to":"o","body":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
        check(&large, Err("above 131072 bytes"));
    }

    #[test]
    fn the_offer_is_kept_byte_for_byte() {
        let body = r#"{"roles":{"a":1},"offer_to":"o","headers":{"Z-Last":"1","Council-ID":["x","y"],"ucxl":"a: b"},
            "body":{ "b" : 1.50, "a":"\u00e9" }}"#;
        let terms = Terms::read(body.as_bytes()).unwrap();
        assert_eq!(&terms.body.bytes()[..], br#"{ "b" : 1.50, "a":"\u00e9" }"#);
        assert_eq!(terms.headers.lines(), "Z-Last: 1\r\nCouncil-ID: x\r\nCouncil-ID: y\r\nucxl: a: b\r\n");
        assert_eq!(terms.headers.lines_without(&["council-id", "UCXL"]), "Z-Last: 1\r\n");
        let stored = serde_json::to_vec(&terms).unwrap();
        let again: Terms = serde_json::from_slice(&stored).unwrap();
        assert_eq!((&again, again.body.bytes()), (&terms, terms.body.bytes()));
        for (json, published) in
            [(r#""plain text""#, "plain text"), ("null", ""), ("17", "17"), (r#"["a"]"#, r#"["a"]"#)]
        {
            let body = format!(r#"{{"roles":{{"a":1}},"offer_to":"o","body":{json}}}"#);
            assert_eq!(Terms::read(body.as_bytes()).unwrap().body.bytes(), published);
        }
    }
}
