//! A value that is nearly always empty, in the room of a pointer: there are very many records, and most say little.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What has an empty value that takes no room of its own.
pub trait Void: Default + PartialEq + 'static {
    const VOID: &'static Self;
}

impl Void for String {
    const VOID: &'static String = &String::new();
}

impl<T: PartialEq + 'static> Void for Vec<T> {
    const VOID: &'static Vec<T> = &Vec::new();
}

/// A `T` behind a pointer, unless it is empty. Reads and is written as a `T`.
pub struct Rare<T>(Option<Box<T>>);

impl<T: Void> From<T> for Rare<T> {
    fn from(value: T) -> Rare<T> {
        Rare((value != *T::VOID).then(|| Box::new(value)))
    }
}

impl From<&str> for Rare<String> {
    fn from(text: &str) -> Rare<String> {
        Rare::from(text.to_owned())
    }
}

impl<T: Void> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::VOID)
    }
}

impl<T: Void> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Rare<T> {
        Rare(None)
    }
}

impl<T: Void + Clone> Clone for Rare<T> {
    fn clone(&self) -> Rare<T> {
        Rare::from(T::clone(self))
    }
}

impl From<Rare<String>> for String {
    fn from(text: Rare<String>) -> String {
        text.0.map(|text| *text).unwrap_or_default()
    }
}

impl<T: PartialEq + 'static> FromIterator<T> for Rare<Vec<T>> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Rare<Vec<T>> {
        Rare::from(values.into_iter().collect::<Vec<T>>())
    }
}

impl<T: PartialEq + 'static> IntoIterator for Rare<Vec<T>> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> std::vec::IntoIter<T> {
        self.0.map(|values| *values).unwrap_or_default().into_iter()
    }
}

impl PartialEq<String> for Rare<String> {
    fn eq(&self, other: &String) -> bool {
        **self == *other
    }
}

impl PartialEq<str> for Rare<String> {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Rare<String> {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl<T: Void> PartialEq for Rare<T> {
    fn eq(&self, other: &Rare<T>) -> bool {
        **self == **other
    }
}

impl<T: Void + Eq> Eq for Rare<T> {}

impl<T: Void + fmt::Debug> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Void + fmt::Display> fmt::Display for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Void + Serialize> Serialize for Rare<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Void + Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rare<T>, D::Error> {
        T::deserialize(deserializer).map(Rare::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_pointer_and_reads_as_what_it_holds() {
        assert_eq!(size_of::<Rare<String>>(), size_of::<usize>());
        let mut name = Rare::from("");
        assert!(name.0.is_none() && name.is_empty());
        name.push('a');
        assert_eq!((name.as_str(), serde_json::to_string(&name).unwrap().as_str()), ("a", r#""a""#));
        name.clear();
        assert!(name == Rare::default() && name.clone().0.is_none(), "what became empty is dropped with the next copy");
        let list: Rare<Vec<u8>> = serde_json::from_str("[1,2]").unwrap();
        assert_eq!(*list, [1, 2]);
        assert!(serde_json::from_str::<Rare<Vec<u8>>>("[]").unwrap().0.is_none());
    }
}
