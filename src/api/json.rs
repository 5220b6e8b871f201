//! Reading request bodies the way nats-server's Go decoder does: an empty body is the empty object, `null` means the
//! field's default, and a field nobody knows is refused when strict (nats-server's default).

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::types::ApiError;

/// What to do about unknown fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Refuse the request, naming the first one.
    Strict,
    /// Read the rest.
    Lenient,
}

/// Reads a request body.
///
/// # Errors
/// `INVALID_JSON` with nats-server's text where Go and serde see the same fault, else with serde's.
pub fn decode<T: DeserializeOwned>(body: &[u8], strictness: Strictness) -> Result<T, ApiError> {
    let body = body.trim_ascii();
    let mut value = if body.is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        serde_json::from_slice(body).map_err(|error| match strictness {
            // Go's decoder and its Unmarshal differ here; nats-server reads leniently with the latter.
            Strictness::Lenient if error.is_eof() => ApiError::INVALID_JSON.with("unexpected end of JSON input"),
            _ => ApiError::INVALID_JSON.with(go_text(&error)),
        })?
    };
    drop_nulls(&mut value);
    let mut unknown = None;
    let decoded = serde_ignored::deserialize(value, |path| {
        unknown.get_or_insert_with(|| path.to_string());
    })
    .map_err(|error| ApiError::INVALID_JSON.with(go_text(&error)))?;
    match unknown {
        Some(path) if strictness == Strictness::Strict => {
            let field = path.rsplit('.').next().unwrap_or_default();
            Err(ApiError::INVALID_JSON.with(format!("json: unknown field {field:?}")))
        }
        _ => Ok(decoded),
    }
}

/// Go leaves a field alone when its value is null.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn go_text(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Whether the body is nothing or an empty object, for requests that take no arguments.
pub fn is_empty(body: &[u8]) -> bool {
    body.is_empty()
        || body == b"{}"
        || serde_json::from_slice::<serde_json::Map<String, Value>>(body).is_ok_and(|fields| fields.is_empty())
}

/// Whether the body looks like JSON; nats-server ignores any other body of requests with optional arguments.
pub fn is_object_or_array(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Probe {
        name: String,
        seq: u64,
        inner: Inner,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        flag: bool,
    }

    #[test]
    fn bodies_read_as_nats_server_reads_them() {
        let check = |body: &str, expected: Result<(&str, u64), &str>| {
            let got = decode::<Probe>(body.as_bytes(), Strictness::Strict);
            let got = got.map(|probe| (probe.name, probe.seq)).map_err(|error| error.description.into_owned());
            let expected = expected.map(|(name, seq)| (name.to_owned(), seq)).map_err(str::to_owned);
            assert_eq!(got, expected, "{body}");
        };
        check("", Ok(("", 0)));
        check("  ", Ok(("", 0)));
        check("{}", Ok(("", 0)));
        check(r#"{"name":"S","seq":3}"#, Ok(("S", 3)));
        check(r#"{"name":null,"seq":3}"#, Ok(("", 3)));
        check("{", Err("invalid JSON: unexpected EOF"));
        check(r#"{"bogus":1}"#, Err(r#"invalid JSON: json: unknown field "bogus""#));
        check(r#"{"inner":{"bogus":1}}"#, Err(r#"invalid JSON: json: unknown field "bogus""#));
        check("[1]", Err("invalid JSON: invalid type: integer `1`, expected a string"));
        check(r#"{"seq":-1}"#, Err("invalid JSON: invalid value: integer `-1`, expected u64"));
        check(r#"{"name":5}"#, Err("invalid JSON: invalid type: integer `5`, expected a string"));
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        check(&deep, Err("invalid JSON: recursion limit exceeded"));
    }

    #[test]
    fn lenient_reading_skips_what_it_does_not_know() {
        let probe = decode::<Probe>(br#"{"bogus":1,"seq":2}"#, Strictness::Lenient).unwrap();
        assert_eq!(probe.seq, 2);
    }

    #[test]
    fn emptiness() {
        for (body, empty, object) in [
            ("", true, false),
            ("{}", true, true),
            (" { } ", true, true),
            ("x", false, false),
            ("{\"a\":1}", false, true),
            ("[]", false, true),
            ("\n[", false, true),
        ] {
            assert_eq!(is_empty(body.as_bytes()), empty, "{body:?}");
            assert_eq!(is_object_or_array(body.as_bytes()), object, "{body:?}");
        }
    }
}
