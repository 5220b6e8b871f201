//! The `Nats-TTL` header's value (ADR-43).

use std::time::Duration;

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
    let seconds = match go_duration_nanos(text) {
        Some(nanos) => u64::try_from(nanos / 1_000_000_000).ok().filter(|&seconds| seconds >= 1)?,
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
        None => return None,
    };
    Some(Ttl::For(Duration::from_secs(seconds)))
}

/// Go's `time.ParseDuration`: an optional sign, then numbers with a unit each; `0` needs none.
fn go_duration_nanos(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_nanos: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
        total += whole * unit_nanos;
        // Digits beyond a nanosecond's share do not matter.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            total += fraction.parse::<i128>().ok()? * unit_nanos / 10i128.pow(fraction.len() as u32);
        }
        if total > i64::MAX.into() {
            return None;
        }
        rest = tail;
    }
    Some(if negative { -total } else { total })
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
