//! What a word without quotes stands for: a number with or without a size, a truth value, a date, or itself.

use std::time::Duration;

use super::value::Kind;

/// A number too large for what it stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfRange;

/// Reads `word` as nats-server's lexer does (`lexNumberOrDateOrStringOrIPStart`, `isBool`).
///
/// # Errors
/// When it is a whole number beyond 64 bits.
pub fn classify(word: &str) -> Result<Kind, OutOfRange> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => return Ok(Kind::Bool(true)),
        "false" | "no" | "off" => return Ok(Kind::Bool(false)),
        _ => {}
    }
    if is_date(word) {
        return Ok(Kind::Date(word.to_owned()));
    }
    let digits = word.strip_prefix('-').unwrap_or(word);
    let first_other = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, suffix) = digits.split_at(first_other);
    if digits.is_empty() {
        return Ok(Kind::Text(word.to_owned()));
    }
    if let Some(fraction) = suffix.strip_prefix('.')
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(number) = word.parse()
    {
        return Ok(Kind::Float(number, word.to_owned()));
    }
    let Some(unit) = unit(suffix) else { return Ok(Kind::Text(word.to_owned())) };
    let number = word[..word.len() - suffix.len()].parse::<i64>().map_err(|_| OutOfRange)?;
    Ok(Kind::Integer(number.checked_mul(unit).ok_or(OutOfRange)?, word.to_owned()))
}

/// What a size's suffix multiplies with: `k` is 1000, `kb`, `ki` and `kib` are 1024, and so on up to `e`.
fn unit(suffix: &str) -> Option<i64> {
    let suffix = suffix.to_ascii_lowercase();
    let mut letters = suffix.chars();
    let Some(letter) = letters.next() else { return Some(1) };
    let power = "kmgtpe".find(letter)? as u32 + 1;
    match letters.as_str() {
        "" => 1000_i64.checked_pow(power),
        "b" | "i" | "ib" => 1024_i64.checked_pow(power),
        _ => None,
    }
}

/// `2026-11-21T02:02:42Z`, the only form there is.
fn is_date(word: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00Z";
    let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
    word.len() == FORM.len() && word.as_bytes().iter().zip(FORM).all(fits)
}

/// A duration as Go writes it: numbers with units, `1h30m`, `1.5s`, `250ms`. A lone `0` needs no unit. Days are ours.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds_total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "d" => 24.0 * 3600e9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        let part = Duration::try_from_secs_f64(number * nanos / 1e9).ok()?;
        seconds_total = seconds_total.checked_add(part)?;
        rest = tail;
    }
    Some(seconds_total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_nats_server_takes_them_for() {
        let text = |word: &str| Ok(Kind::Text(word.to_owned()));
        let integer = |number, word: &str| Ok(Kind::Integer(number, word.to_owned()));
        for (word, expected) in [
            ("4222", integer(4222, "4222")),
            ("-1", integer(-1, "-1")),
            ("1k", integer(1000, "1k")),
            ("1KB", integer(1024, "1KB")),
            ("64MiB", integer(64 << 20, "64MiB")),
            ("1Gb", integer(1 << 30, "1Gb")),
            ("2g", integer(2_000_000_000, "2g")),
            ("10s", text("10s")),
            ("1.5", Ok(Kind::Float(1.5, "1.5".to_owned()))),
            ("1.5s", text("1.5s")),
            ("1.", text("1.")),
            ("127.0.0.1:4222", text("127.0.0.1:4222")),
            ("1kx", text("1kx")),
            ("-", text("-")),
            ("yes", Ok(Kind::Bool(true))),
            ("OFF", Ok(Kind::Bool(false))),
            ("2026-11-21T02:02:42Z", Ok(Kind::Date("2026-11-21T02:02:42Z".to_owned()))),
            ("2026-11-21", text("2026-11-21")),
            ("9223372036854775808", Err(OutOfRange)),
            ("16e", Err(OutOfRange)),
            ("", text("")),
        ] {
            assert_eq!(classify(word), expected, "{word}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("0", Some(Duration::ZERO)),
            ("90s", Some(Duration::from_secs(90))),
            ("1h30m", Some(Duration::from_secs(5400))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("250ms", Some(Duration::from_millis(250))),
            ("2d", Some(Duration::from_secs(2 * 86_400))),
            ("5", None),
            ("s", None),
            ("", None),
            ("1x", None),
            ("-1s", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
