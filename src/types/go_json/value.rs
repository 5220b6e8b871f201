//! A value that is known to be JSON, as a serde deserializer with Go's rules.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::fault::{Fault, quote};
use super::{Reading, syntax, time_text};
use crate::types::Timestamp;

/// What holds for the whole body.
pub struct Context {
    /// Go's name of the outermost struct, once it is met.
    pub root: Cell<&'static str>,
    pub reading: Reading,
}

/// Where a value is.
#[derive(Clone, Copy)]
pub enum Path<'p> {
    Root,
    /// A field by its own name and as the body writes it.
    Field(&'p Path<'p>, &'p str, &'p str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(parent, _, key) => write!(f, "{parent}.{key}"),
            Path::Item(parent, at) => write!(f, "{parent}.{at}"),
        }
    }
}

/// All that a body says about one place, in order: the last word counts, and objects are merged.
pub struct Value<'c> {
    context: &'c Context,
    path: Path<'c>,
    given: Vec<&'c [u8]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

fn kind(raw: &[u8]) -> Kind {
    match raw.first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

impl<'c> Value<'c> {
    pub fn new(context: &'c Context, path: Path<'c>, given: Vec<&'c [u8]>) -> Value<'c> {
        Value { context, path, given }
    }

    /// Whether anything but `null` is there. A `null` takes back an object or an array, and nothing else.
    pub fn is_given(&self) -> bool {
        match self.given.iter().rposition(|raw| kind(raw) != Kind::Null) {
            Some(last) => last + 1 == self.given.len() || !matches!(kind(self.given[last]), Kind::Object | Kind::Array),
            None => false,
        }
    }

    /// All but nulls.
    fn pieces(&self) -> impl Iterator<Item = &'c [u8]> + '_ {
        self.given.iter().copied().filter(|raw| kind(raw) != Kind::Null)
    }

    /// "cannot unmarshal <what> into <where> of type <type>"
    fn mismatch(&self, raw: &[u8], type_name: &str, literal: bool) -> Fault {
        let number;
        let what = match kind(raw) {
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Bool => "bool",
            Kind::Null => "null",
            Kind::Number if literal => {
                number = format!("number {}", String::from_utf8_lossy(raw));
                &number
            }
            Kind::Number => "number",
        };
        let place = match self.path {
            Path::Root => "Go value".to_owned(),
            Path::Field(..) => format!("Go struct field {}{}", self.context.root.get(), self.path),
            Path::Item(..) => format!("{}{}", self.context.root.get(), self.path),
        };
        Fault(format!("json: cannot unmarshal {what} into {place} of type {type_name}"))
    }

    /// The last piece as a number of a Go type; every piece must be one.
    fn number<N: std::str::FromStr>(&self, type_name: &str) -> Result<N, Fault> {
        let mut last = None;
        for raw in self.pieces() {
            if kind(raw) != Kind::Number {
                return Err(self.mismatch(raw, type_name, false));
            }
            let text = std::str::from_utf8(raw).unwrap_or_default();
            last = Some(text.parse().map_err(|_| self.mismatch(raw, type_name, true))?);
        }
        // Only an element of an array can be null here.
        last.map_or_else(|| "0".parse().map_err(|_| Fault("zero is no such number".to_owned())), Ok)
    }

    fn text(&self, type_name: &str) -> Result<Cow<'c, str>, Fault> {
        let mut last = Cow::Borrowed("");
        for raw in self.pieces() {
            if kind(raw) != Kind::String {
                return Err(self.mismatch(raw, type_name, false));
            }
            last = unescape(raw);
        }
        Ok(last)
    }

    /// Go's name of the integer type of this field, where it is not the width that says it.
    fn integer_type(&self) -> &'static str {
        const INTS: &[&str] = &[
            "max_consumers",
            "num_replicas",
            "max_ack_pending",
            "max_deliver",
            "max_waiting",
            "max_batch",
            "offset",
            "batch",
            "max_bytes",
            "chunk_size",
            "window_size",
            "priority",
        ];
        match self.path {
            // A stream's is an int64, a consumer's and a request's an int.
            Path::Field(Path::Root, "max_bytes", _) if self.context.root.get().starts_with("Stream") => "int64",
            Path::Field(_, name, _) if INTS.contains(&name) => "int",
            _ => "int64",
        }
    }

    /// Go's name of the slice type of this field.
    fn slice_type(&self) -> &'static str {
        match self.path {
            Path::Field(_, "sources", _) => "[]*server.StreamSource",
            Path::Field(_, "subject_transforms", _) => "[]server.SubjectTransformConfig",
            Path::Field(_, "backoff", _) => "[]time.Duration",
            _ => "[]string",
        }
    }

    /// The members of all objects, each name once with all its values; `fields` gives the names that are known.
    fn members(&self, fields: Option<&'static [&'static str]>) -> Result<Vec<Member<'c>>, Fault> {
        let mut members: Vec<Member<'c>> = Vec::new();
        let mut places: HashMap<Cow<'c, str>, usize> = HashMap::new();
        for raw in self.pieces() {
            for (key, value) in entries(raw) {
                let key = unescape(key);
                let name = match fields {
                    None => key.clone(),
                    Some(fields) => match find_field(fields, &key) {
                        Some(name) => Cow::Borrowed(name),
                        None if self.context.reading == Reading::Lenient => continue,
                        // What comes before it in the body may be wrong as well, and is then the first to be told.
                        None => {
                            members.push(Member { name: key.clone(), key, values: Vec::new(), known: false });
                            return Ok(members);
                        }
                    },
                };
                match places.entry(name.clone()) {
                    Entry::Occupied(place) => members[*place.get()].values.push(value),
                    Entry::Vacant(place) => {
                        place.insert(members.len());
                        members.push(Member { name, key, values: vec![value], known: true });
                    }
                }
            }
        }
        Ok(members)
    }
}

struct Member<'c> {
    name: Cow<'c, str>,
    /// The name as the body has it, which is how errors have it too.
    key: Cow<'c, str>,
    values: Vec<&'c [u8]>,
    known: bool,
}

/// Go prefers the exact name, and takes the first that is the same in another case.
fn find_field(fields: &'static [&'static str], key: &str) -> Option<&'static str> {
    let exact = fields.iter().find(|field| **field == key);
    exact.or_else(|| fields.iter().find(|field| same_in_another_case(field, key))).copied()
}

fn same_in_another_case(field: &str, key: &str) -> bool {
    // Two letters outside ASCII fold to letters within: the long s and the sign for kelvin.
    let fold = |char: char| match char {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    field.chars().map(fold).eq(key.chars().map(fold))
}

/// Keys and values of an object, both raw.
fn entries(object: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = &object[1..];
    std::iter::from_fn(move || {
        rest = skip(rest, b",");
        if rest.first() != Some(&b'"') {
            return None;
        }
        let (key, after) = rest.split_at(syntax::length(rest));
        let after = skip(after, b":");
        let (value, after) = after.split_at(syntax::length(after));
        rest = after;
        Some((key, value))
    })
}

/// Elements of an array, raw.
fn elements(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = &array[1..];
    std::iter::from_fn(move || {
        rest = skip(rest, b",");
        if matches!(rest.first(), Some(b']') | None) {
            return None;
        }
        let (value, after) = rest.split_at(syntax::length(rest));
        rest = after;
        Some(value)
    })
}

fn skip<'a>(bytes: &'a [u8], separator: &[u8]) -> &'a [u8] {
    let bytes = &bytes[syntax::blanks(bytes)..];
    let bytes = bytes.strip_prefix(separator).unwrap_or(bytes);
    &bytes[syntax::blanks(bytes)..]
}

/// The text of a raw string; what is no UTF-8 becomes U+FFFD, and so does half a surrogate pair.
fn unescape(raw: &[u8]) -> Cow<'_, str> {
    let inner = &raw[1..raw.len() - 1];
    if !inner.contains(&b'\\') {
        return String::from_utf8_lossy(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.push_str(&String::from_utf8_lossy(&rest[..at]));
        let escaped = rest[at + 1];
        rest = &rest[at + 2..];
        match escaped {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let mut code = hex(rest);
                rest = &rest[4..];
                if (0xd800..0xdc00).contains(&code)
                    && let Some(low) = rest.strip_prefix(b"\\u").map(hex).filter(|low| (0xdc00..0xe000).contains(low))
                {
                    code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    rest = &rest[6..];
                }
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => out.push(char::from(other)),
        }
    }
    out.push_str(&String::from_utf8_lossy(rest));
    Cow::Owned(out)
}

fn hex(digits: &[u8]) -> u32 {
    digits.iter().take(4).fold(0, |code, digit| code * 16 + char::from(*digit).to_digit(16).unwrap_or(0))
}

impl<'de> de::Deserializer<'de> for Value<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(raw) = self.pieces().last() else { return visitor.visit_unit() };
        match kind(raw) {
            Kind::Object => self.deserialize_map(visitor),
            Kind::Array => self.deserialize_seq(visitor),
            Kind::String => self.deserialize_string(visitor),
            Kind::Bool => self.deserialize_bool(visitor),
            Kind::Null => visitor.visit_unit(),
            Kind::Number => visitor.visit_f64(self.number("float64")?),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut last = false;
        for raw in self.pieces() {
            if kind(raw) != Kind::Bool {
                return Err(self.mismatch(raw, "bool", false));
            }
            last = raw == b"true";
        }
        visitor.visit_bool(last)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_i64(self.number(self.integer_type())?)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_i32(self.number("int32")?)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u8(self.number("uint8")?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u64(self.number("uint64")?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(self.number("float64")?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text("string")? {
            Cow::Borrowed(text) => visitor.visit_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_given() { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        match name {
            "Nanos" | "GoDuration" => {
                let nanos: i64 = self.number("time.Duration")?;
                visitor.visit_newtype_struct(nanos.into_deserializer())
            }
            "Timestamp" => {
                let text = self.text("time.Time")?;
                if Timestamp::parse_rfc3339(&text).is_none() {
                    return Err(Fault(time_text::fault(&text)));
                }
                visitor.visit_newtype_struct(StringDeserializer::<Fault>::new(text.into_owned()))
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Some(raw) = self.pieces().find(|raw| kind(raw) != Kind::Array) {
            return Err(self.mismatch(raw, self.slice_type(), false));
        }
        let elements: Vec<&[u8]> = self.pieces().last().map(|raw| elements(raw).collect()).unwrap_or_default();
        visitor.visit_seq(Items { context: self.context, path: &self.path, elements: elements.into_iter().enumerate() })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Some(raw) = self.pieces().find(|raw| kind(raw) != Kind::Object) {
            return Err(self.mismatch(raw, "map[string]string", false));
        }
        let members = self.members(None)?.into_iter();
        visitor.visit_map(Members { context: self.context, path: &self.path, members, current: None, is_struct: false })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if let Path::Root = self.path {
            self.context.root.set(name);
        }
        if let Some(raw) = self.pieces().find(|raw| kind(raw) != Kind::Object) {
            return Err(self.mismatch(raw, &format!("server.{name}"), false));
        }
        let members = self.members(Some(fields))?.into_iter();
        visitor.visit_map(Members { context: self.context, path: &self.path, members, current: None, is_struct: true })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let raw = *self.given.last().unwrap_or(&&b"null"[..]);
        let refused = || {
            Fault(match name {
                "StoreCompression" if kind(raw) == Kind::String => "unknown compression algorithm".to_owned(),
                "StoreCompression" => Value::new(self.context, Path::Root, Vec::new()).mismatch(raw, "string", false).0,
                "PriorityPolicy" => format!("unknown priority policy: {}", String::from_utf8_lossy(raw)),
                "ConsumerAction" => format!("unknown consumer action: {}", String::from_utf8_lossy(raw)),
                _ => format!("can not unmarshal {}", quote(raw)),
            })
        };
        if kind(raw) != Kind::String {
            return Err(refused());
        }
        let text = unescape(raw).into_owned();
        visitor.visit_enum(StringDeserializer::<Fault>::new(text)).map_err(|_| refused())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u16 u32 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'v> {
    context: &'v Context,
    path: &'v Path<'v>,
    elements: std::iter::Enumerate<std::vec::IntoIter<&'v [u8]>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((at, raw)) = self.elements.next() else { return Ok(None) };
        seed.deserialize(Value::new(self.context, Path::Item(self.path, at), vec![raw])).map(Some)
    }
}

struct Members<'v> {
    context: &'v Context,
    path: &'v Path<'v>,
    members: std::vec::IntoIter<Member<'v>>,
    current: Option<Member<'v>>,
    is_struct: bool,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        for member in self.members.by_ref() {
            if !member.known {
                return Err(Fault(format!("json: unknown field {}", quote(member.name.as_bytes()))));
            }
            if self.is_struct && !Value::new(self.context, Path::Root, member.values.clone()).is_given() {
                match null_fault(&member.name) {
                    Some(text) => return Err(Fault(text)),
                    None => continue,
                }
            }
            let key = seed.deserialize(StrDeserializer::<Fault>::new(&member.name))?;
            self.current = Some(member);
            return Ok(Some(key));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let member = self.current.take().expect("serde asks for a value after its key");
        let path = Path::Field(self.path, &member.name, &member.key);
        seed.deserialize(Value::new(self.context, path, member.values))
    }
}

/// What fields that read their JSON themselves say to a `null`, which leaves others alone.
fn null_fault(field: &str) -> Option<String> {
    match field {
        "retention" | "discard" | "storage" | "persist_mode" | "deliver_policy" | "ack_policy" | "replay_policy" => {
            Some("can not unmarshal \"null\"".to_owned())
        }
        "compression" => Some("unknown compression algorithm".to_owned()),
        "priority_policy" => Some("unknown priority policy: null".to_owned()),
        "action" => Some("unknown consumer action: null".to_owned()),
        _ => None,
    }
}

/// Reads nothing: it tells which fields a struct has.
pub struct FieldsOf<'f>(pub &'f Cell<&'static [&'static str]>);

impl<'de> de::Deserializer<'de> for FieldsOf<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(Fault(String::new()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        self.0.set(fields);
        Err(Fault(String::new()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
