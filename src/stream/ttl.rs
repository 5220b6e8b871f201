//! The `Nats-TTL` header's value (ADR-43).

use std::time::Duration;

use crate::types::GoDuration;

/// How long a message lives by its own wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Even where `max_age` would end it.
    Never,
    For(Duration),
}

/// `never`, whole seconds, or a Go duration (`1h30m`, `1.5s`) of at least a second, of which whole seconds count.
/// `None` for anything else.
pub fn parse(text: &str) -> Option<Ttl> {
    if text.eq_ignore_ascii_case("never") {
        return Some(Ttl::Never);
    }
    let seconds = match GoDuration::parse(text) {
        Some(duration) => u64::try_from(duration.0 / 1_000_000_000).ok().filter(|&seconds| seconds >= 1)?,
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
        None => return None,
    };
    Some(Ttl::For(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, expected) in [
            ("never", Some(Ttl::Never)),
            ("NEVER", Some(Ttl::Never)),
            ("5s", Some(Ttl::For(Duration::from_secs(5)))),
            ("5", Some(Ttl::For(Duration::from_secs(5)))),
            ("1h30m", Some(Ttl::For(Duration::from_secs(5400)))),
            ("1.5s", Some(Ttl::For(Duration::from_secs(1)))),
            ("1500ms", Some(Ttl::For(Duration::from_secs(1)))),
            ("0", None),
            ("0s", None),
            ("10ms", None),
            ("-5s", None),
            ("-5", None),
            ("xx", None),
            ("5 s", None),
            ("s", None),
            ("1.2.3s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
