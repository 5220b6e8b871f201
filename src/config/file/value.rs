//! What a config file says, as a tree that knows where everything stood. Accessors turn a value into what a setting wants,
//! or say what they wanted instead.

use std::time::Duration;

use super::place::{FileError, Place};
use super::scalar;

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub at: Place,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Text(String),
    /// The number, its suffix applied (`1k` is 1000, `1KB` is 1024), and how it was written: `2m` may be a duration.
    Integer(i64, String),
    Float(f64, String),
    Bool(bool),
    /// `2026-11-21T02:02:42Z`
    Date(String),
    Array(Vec<Value>),
    Map(Map),
}

/// The pairs of a map in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<Entry>,
}

/// One key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    /// Where the key stands: errors name this.
    pub at: Place,
    pub value: Value,
    /// A variable refers to it, so that it need not be a setting.
    pub is_variable: bool,
}

impl Map {
    /// Adds a pair. A key given again replaces the earlier one, as in nats-server, and the earlier is returned.
    pub fn insert(&mut self, entry: Entry) -> Option<Entry> {
        let earlier = self.entries.iter().position(|known| known.key == entry.key);
        let earlier = earlier.map(|at| self.entries.remove(at));
        self.entries.push(entry);
        earlier
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The value of `key`, whatever its case.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().rev().find(|entry| entry.key.eq_ignore_ascii_case(key)).map(|entry| &entry.value)
    }

    /// The value of exactly this key, for a variable.
    pub(super) fn refer(&mut self, key: &str) -> Option<&Value> {
        let entry = self.entries.iter_mut().find(|entry| entry.key == key)?;
        entry.is_variable = true;
        Some(&entry.value)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The last place where `word` is a key or a text.
    pub(super) fn last_place_of(&self, word: &str) -> Option<&Place> {
        self.entries.iter().rev().find_map(|entry| {
            let in_value = entry.value.last_place_of(word);
            in_value.or_else(|| entry.key.eq_ignore_ascii_case(word).then_some(&entry.at))
        })
    }
}

impl Entry {
    /// The key as settings are looked up: nats-server does not look at its case.
    pub fn name(&self) -> String {
        self.key.to_ascii_lowercase()
    }

    /// An error at the key.
    pub fn wrong(&self, text: impl Into<String>) -> FileError {
        FileError::Value { at: self.at.clone(), text: text.into() }
    }
}

type Read<T> = Result<T, FileError>;

impl Value {
    /// An error at the value.
    pub fn wrong(&self, text: impl Into<String>) -> FileError {
        FileError::Value { at: self.at.clone(), text: text.into() }
    }

    fn last_place_of(&self, word: &str) -> Option<&Place> {
        match &self.kind {
            Kind::Map(map) => map.last_place_of(word),
            Kind::Array(values) => values.iter().rev().find_map(|value| value.last_place_of(word)),
            _ => self.text().is_ok_and(|text| text == word).then_some(&self.at),
        }
    }

    fn expected<T>(&self, what: &str) -> Read<T> {
        Err(self.wrong(format!("expected {what}, not {}", self.kind.name())))
    }

    /// Text; a number stands for how it was written, so that names and passwords may be digits.
    pub fn text(&self) -> Read<&str> {
        match &self.kind {
            Kind::Text(text) | Kind::Date(text) | Kind::Integer(_, text) | Kind::Float(_, text) => Ok(text),
            _ => self.expected("text"),
        }
    }

    pub fn bool(&self) -> Read<bool> {
        match &self.kind {
            Kind::Bool(value) => Ok(*value),
            Kind::Text(text) => match scalar::classify(text) {
                Ok(Kind::Bool(value)) => Ok(value),
                _ => self.expected("true or false"),
            },
            _ => self.expected("true or false"),
        }
    }

    /// A whole number, with or without a size's suffix; also from text, as in `"64MB"`.
    pub fn integer(&self) -> Read<i64> {
        match &self.kind {
            Kind::Integer(number, _) => Ok(*number),
            Kind::Text(text) => match scalar::classify(text) {
                Ok(Kind::Integer(number, _)) => Ok(number),
                _ => self.expected("a whole number"),
            },
            _ => self.expected("a whole number"),
        }
    }

    /// A count or a size in bytes that is not negative.
    pub fn count(&self) -> Read<u64> {
        let number = self.integer()?;
        u64::try_from(number).map_err(|_| self.wrong(format!("expected a number from 0, not {number}")))
    }

    /// A number with or without a fraction.
    pub fn float(&self) -> Read<f64> {
        match &self.kind {
            Kind::Float(number, _) => Ok(*number),
            Kind::Integer(number, _) => Ok(*number as f64),
            _ => self.expected("a number"),
        }
    }

    /// A duration like `"90s"`, `1h30m` or `250ms`; a bare number is seconds, as in nats-server.
    pub fn duration(&self) -> Read<Duration> {
        let parsed = match &self.kind {
            Kind::Text(text) => scalar::duration(text),
            Kind::Integer(number, text) => match u64::try_from(*number) {
                Ok(seconds) if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(Duration::from_secs(seconds)),
                _ => scalar::duration(text),
            },
            Kind::Float(seconds, _) => Duration::try_from_secs_f64(*seconds).ok(),
            _ => None,
        };
        match parsed {
            Some(duration) => Ok(duration),
            None => self.expected("a duration like \"2m\" or \"250ms\""),
        }
    }

    pub fn map(&self) -> Read<&Map> {
        match &self.kind {
            Kind::Map(map) => Ok(map),
            _ => self.expected("a map in braces"),
        }
    }

    pub fn array(&self) -> Read<&[Value]> {
        match &self.kind {
            Kind::Array(values) => Ok(values),
            _ => self.expected("an array in brackets"),
        }
    }

    /// One text, or an array of them.
    pub fn texts(&self) -> Read<Vec<&str>> {
        match &self.kind {
            Kind::Array(values) => values.iter().map(Value::text).collect(),
            _ => Ok(vec![self.text()?]),
        }
    }
}

impl Kind {
    /// For error texts.
    pub fn name(&self) -> String {
        match self {
            Kind::Text(text) => format!("the text {text:?}"),
            Kind::Integer(_, text) | Kind::Float(_, text) => format!("the number {text}"),
            Kind::Bool(value) => format!("{value}"),
            Kind::Date(text) => format!("the date {text}"),
            Kind::Array(_) => "an array".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }
}
