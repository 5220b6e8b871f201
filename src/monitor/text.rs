//! Durations as Go prints them, for the fields that are text.

use std::time::Duration;

/// nats-server's `myUptime`: whole seconds up to years, `1d2h3m4s`.
pub fn uptime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let years = days / 365;
    let mut text = String::new();
    for (present, value, unit) in [
        (years > 0, years, "y"),
        (days > 0, days % 365, "d"),
        (hours > 0, hours % 24, "h"),
        (minutes > 0, minutes % 60, "m"),
        (true, seconds % 60, "s"),
    ] {
        if present {
            text.push_str(&format!("{value}{unit}"));
        }
    }
    text
}

/// Go's `time.Duration.String` below a minute, where round trips lie: `1.309591ms`, `42µs`, `1.5s`.
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos() as u64;
    let (unit_nanos, unit) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let fraction = format!("{:09}", (nanos % unit_nanos) * (1_000_000_000 / unit_nanos));
    match fraction.trim_end_matches('0') {
        "" => format!("{}{unit}", nanos / unit_nanos),
        digits => format!("{}.{digits}{unit}", nanos / unit_nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (3_661, "1h1m1s"),
            (86_400, "1d0h0m0s"),
            (366 * 86_400 + 5, "1y1d0h0m5s"),
        ] {
            assert_eq!(uptime(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn durations() {
        for (nanos, expected) in [
            (0, "0s"),
            (7, "7ns"),
            (42_000, "42µs"),
            (1_309_591, "1.309591ms"),
            (1_500_000_000, "1.5s"),
            (1_000_000_001, "1.000000001s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), expected);
        }
    }
}
