//! Seconds as people write them, as durations: whatever number it is, nothing overflows.

use std::time::Duration;

/// Ten years: the longest time that anything about a task may last.
pub const SECONDS_MAX: f64 = 3650.0 * 86_400.0;
/// The longest pause between attempts: 30 days.
pub const PAUSE_MAX: Duration = Duration::from_secs(30 * 86_400);

/// `seconds` from 0 to [`SECONDS_MAX`]; what lies outside counts as the nearer end, and what is no number as 0. Requests are
/// refused instead; this is for what is stored already, which others may have written.
pub fn duration(seconds: f64) -> Duration {
    let known = if seconds.is_nan() { 0.0 } else { seconds };
    Duration::from_secs_f64(known.clamp(0.0, SECONDS_MAX))
}

/// A pause that an agent asks for, within [`PAUSE_MAX`].
pub fn pause(seconds: f64) -> Duration {
    duration(seconds).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_duration() {
        for (seconds, expected) in [
            (1.5, Duration::from_millis(1500)),
            (-1.0, Duration::ZERO),
            (-0.0, Duration::ZERO),
            (f64::NAN, Duration::ZERO),
            (f64::NEG_INFINITY, Duration::ZERO),
            (f64::INFINITY, Duration::from_secs(3650 * 86_400)),
            (1e300, Duration::from_secs(3650 * 86_400)),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
        assert_eq!(pause(1e20), PAUSE_MAX);
    }
}
