//! Request bodies, read as nats-server's Go decoder reads them ([`go_json`](crate::types::go_json)).

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::types::ApiError;
use crate::types::go_json::{self, Reading};

/// What to do about unknown fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Refuse the request, naming the first one: what most requests do (nats-server `unmarshalRequest`).
    Strict,
    /// As `Strict`, and as `Lenient` what is refused so (`strict: false`).
    Forgiving,
    /// Read the rest (Go `json.Unmarshal`).
    Lenient,
}

/// Reads a request body.
///
/// # Errors
/// `INVALID_JSON` with nats-server's text.
pub fn decode<T: DeserializeOwned>(body: &[u8], strictness: Strictness) -> Result<T, ApiError> {
    let decoded = match strictness {
        Strictness::Strict => go_json::decode(body, Reading::Strict),
        Strictness::Forgiving => {
            go_json::decode(body, Reading::Strict).or_else(|_| go_json::decode(body, Reading::Lenient))
        }
        Strictness::Lenient => go_json::decode(body, Reading::Lenient),
    };
    decoded.map_err(|text| ApiError::INVALID_JSON.with(text))
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
    use super::*;

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
