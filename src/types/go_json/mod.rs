//! Reads JSON the way nats-server's Go decoder does, and refuses it in the same words.
//!
//! What differs from `serde_json`: names of fields match in any case, a field given twice is no error, `null` leaves a
//! field alone, and several documents in one body fall upon the same value. Clients show the texts of the errors to
//! people, and some look at them.
//!
//! A whole body is checked for its syntax before anything of it is decoded, so a deep document costs no stack.

mod fault;
mod syntax;
mod time_text;
mod value;

use std::cell::Cell;

use serde::de::DeserializeOwned;

use fault::Fault;
use value::{Context, Path, Value};

/// How a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As a stream of documents, with offsets in errors of syntax; fields nobody knows are refused
    /// (nats-server `unmarshalRequest`).
    Strict,
    /// As one document; fields nobody knows are skipped (Go `json.Unmarshal`).
    Lenient,
}

/// Reads `body` into a `T`. Errors name structs as Go does: by the container's `#[serde(rename)]` where it differs.
///
/// # Errors
/// Go's text for what is wrong first.
pub fn decode<T: DeserializeOwned>(body: &[u8], reading: Reading) -> Result<T, String> {
    let (documents, broken) = match reading {
        Reading::Strict => syntax::documents(body),
        Reading::Lenient => (vec![syntax::single(body)?], None),
    };
    let context = Context { root: Cell::new(""), reading };
    // What is wrong with a good document is found before what is no document behind it.
    match (T::deserialize(Value::new(&context, Path::Root, documents)), broken) {
        (Err(Fault(text)), _) | (Ok(_), Some(text)) => Err(text),
        (Ok(decoded), None) => Ok(decoded),
    }
}

/// Names of the fields that a struct is read from.
pub fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let found = Cell::new(&[][..]);
    // The answer is in the question; reading itself always fails.
    let _ = T::deserialize(value::FieldsOf(&found));
    found.get()
}

#[cfg(test)]
mod tests;
