//! Go's `time.Duration` as NATS's JSON and texts have it: a signed count of nanoseconds, written in error texts as
//! `1m30s` and read from `-NAK 1m30s`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Signed nanoseconds. Signed because a config may arrive with a negative value, which is an error or a default by
/// nats-server's rules and not a JSON error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GoDuration(pub i64);

impl GoDuration {
    pub const ZERO: GoDuration = GoDuration(0);
    pub const MILLISECOND: GoDuration = GoDuration(1_000_000);
    pub const SECOND: GoDuration = GoDuration(1_000_000_000);

    pub const fn from_secs(secs: i64) -> GoDuration {
        GoDuration(secs * 1_000_000_000)
    }

    pub const fn from_millis(millis: i64) -> GoDuration {
        GoDuration(millis * 1_000_000)
    }

    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The same span unsigned; zero when it is negative.
    pub fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0.max(0) as u64)
    }

    /// Reads Go's text form, as in `1h15m30.5s`; `None` where Go's `time.ParseDuration` fails.
    pub fn parse(text: &str) -> Option<GoDuration> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(GoDuration::ZERO);
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let whole_len = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (whole, after) = rest.split_at(whole_len);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return None;
            }
            let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_len);
            let scale: i128 = match unit {
                "ns" => 1,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return None,
            };
            if whole.len() > 19 {
                return None;
            }
            total += whole.parse::<i128>().unwrap_or(0) * scale;
            // Digits beyond a nanosecond's share do not matter.
            let fraction = &fraction[..fraction.len().min(18)];
            if !fraction.is_empty() {
                total += fraction.parse::<i128>().ok()? * scale / 10i128.pow(fraction.len() as u32);
            }
            rest = after;
        }
        i64::try_from(if negative { -total } else { total }).ok().map(GoDuration)
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> GoDuration {
        GoDuration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// As Go prints it (`time.Duration.String`).
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}\u{b5}s", Decimal { value: nanos, scale: 1_000 }),
            1_000_000..1_000_000_000 => write!(f, "{}ms", Decimal { value: nanos, scale: 1_000_000 }),
            _ => {
                let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                write!(f, "{}s", Decimal { value: nanos % 60_000_000_000, scale: 1_000_000_000 })
            }
        }
    }
}

/// `value / scale` with as many decimals as it needs.
struct Decimal {
    value: u64,
    scale: u64,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value / self.scale)?;
        let fraction = self.value % self.scale;
        if fraction > 0 {
            let digits = format!("{:0width$}", fraction, width = self.scale.ilog10() as usize);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
            (-30_000_000_000, "-30s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), text);
            assert_eq!(GoDuration::parse(text), Some(GoDuration(nanos)), "{text}");
        }
    }

    #[test]
    fn reads_other_spellings() {
        for (text, expected) in [
            ("0", Some(0)),
            ("+5s", Some(5_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("2us", Some(2_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            ("5x", None),
            (".s", None),
            ("99999999999999999999h", None),
            ("9223372036854775807h", None),
        ] {
            assert_eq!(GoDuration::parse(text), expected.map(GoDuration), "{text:?}");
        }
    }
}
