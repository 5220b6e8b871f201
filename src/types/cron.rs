//! Cron patterns of six fields, from seconds to the day of the week (ADR-51; nats-server `server/cron.go`).

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan, Zoned};

use crate::types::Timestamp;

/// No pattern is worth waiting for longer.
const YEARS_MAX: i16 = 5;
/// Set in a field that was written with a star.
const STAR: u64 = 1 << 63;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// One bit for each value that a field allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    second: u64,
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

impl Cron {
    /// Reads six fields; `None` when a field is missing, too large or allows nothing.
    pub fn parse(text: &str) -> Option<Cron> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[second, minute, hour, day, month, weekday] = fields.as_slice() else { return None };
        Some(Cron {
            second: field(second, 0, 59, &[])?,
            minute: field(minute, 0, 59, &[])?,
            hour: field(hour, 0, 23, &[])?,
            day: field(day, 1, 31, &[])?,
            month: field(month, 1, 12, &MONTHS)?,
            weekday: field(weekday, 0, 6, &DAYS)?,
        })
    }

    /// The first full second after `after` that matches in `zone`; `None` when none does for years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = jiff::Timestamp::from_second(after.0.div_euclid(1_000_000_000) + 1).ok()?;
        let mut at = start.to_zoned(zone.clone());
        let year_max = at.year() + YEARS_MAX;
        // The largest part that does not match moves on, and the smaller ones start anew.
        loop {
            if at.year() > year_max {
                return None;
            }
            if self.month & 1 << at.month() == 0 {
                at = midnight(at.date().first_of_month().checked_add(1.month()).ok()?, zone)?;
            } else if !self.is_day(&at) {
                at = midnight(at.date().tomorrow().ok()?, zone)?;
            } else if self.hour & 1 << at.hour() == 0 {
                at = skip(&at, 3600 - i64::from(at.minute()) * 60 - i64::from(at.second()))?;
            } else if self.minute & 1 << at.minute() == 0 {
                at = skip(&at, 60 - i64::from(at.second()))?;
            } else if self.second & 1 << at.second() == 0 {
                at = skip(&at, 1)?;
            } else {
                return i64::try_from(at.timestamp().as_nanosecond()).ok().map(Timestamp);
            }
        }
    }

    /// Either day field will do when neither is a star.
    fn is_day(&self, at: &Zoned) -> bool {
        let day = self.day & 1 << at.day() != 0;
        let weekday = self.weekday & 1 << at.weekday().to_sunday_zero_offset() != 0;
        if (self.day | self.weekday) & STAR != 0 { day && weekday } else { day || weekday }
    }
}

fn midnight(date: Date, zone: &TimeZone) -> Option<Zoned> {
    DateTime::from(date).to_zoned(zone.clone()).ok()
}

fn skip(at: &Zoned, seconds: i64) -> Option<Zoned> {
    at.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// A list of ranges, with at least one value.
fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Option<u64> {
    let ranges = text.split(',').filter(|range| !range.is_empty());
    let bits = ranges.map(|text| range(text, min, max, names)).try_fold(0, |bits, range| Some(bits | range?))?;
    (bits & !STAR != 0).then_some(bits)
}

/// `*`, `7`, `mon-fri`, each perhaps with a step: `*/2`, `5/10` (from 5 on), `1-20/3`.
fn range(text: &str, min: u32, max: u32, names: &[&str]) -> Option<u64> {
    let (bounds, step) = match text.split_once('/') {
        Some((bounds, step)) => (bounds, Some(step.parse::<u32>().ok().filter(|&step| step > 0)?)),
        None => (text, None),
    };
    let (start, end, star) = match bounds.split_once('-') {
        None if matches!(bounds, "*" | "?") => (min, max, STAR),
        None => {
            let start = value(bounds, min, names)?;
            (start, if step.is_some() { max } else { start }, 0)
        }
        Some(("*" | "?", _)) => (min, max, STAR),
        Some((start, end)) => (value(start, min, names)?, value(end, min, names)?, 0),
    };
    if start < min || end > max || start > end {
        return None;
    }
    let step = step.unwrap_or(1);
    let star = if step > 1 { 0 } else { star };
    Some((start..=end).step_by(step as usize).fold(star, |bits, value| bits | 1 << value))
}

fn value(text: &str, min: u32, names: &[&str]) -> Option<u32> {
    match names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(at) => Some(at as u32 + min),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn check(pattern: &str, zone: &str, after: &str, expected: &str) {
        let zone = TimeZone::get(zone).unwrap();
        let next = Cron::parse(pattern).expect(pattern).next(at(after), &zone);
        assert_eq!(next, Some(at(expected)), "{pattern} after {after}");
    }

    #[test]
    fn the_next_time() {
        for (pattern, after, expected) in [
            ("* * * * * *", "2026-11-21T12:00:00.5Z", "2026-11-21T12:00:01Z"),
            ("0 * * * * *", "2026-11-21T12:00:00Z", "2026-11-21T12:01:00Z"),
            ("*/15 * * * * *", "2026-11-21T12:00:46Z", "2026-11-21T12:01:00Z"),
            ("5/20 * * * * *", "2026-11-21T12:00:46Z", "2026-11-21T12:01:05Z"),
            ("0 0 * * * *", "2026-11-21T12:59:59Z", "2026-11-21T13:00:00Z"),
            ("0 30 8-11 * * *", "2026-11-21T12:00:00Z", "2026-11-22T08:30:00Z"),
            ("0 0 0 1 1 *", "2026-11-21T12:00:00Z", "2027-01-01T00:00:00Z"),
            ("0 0 0 * * 0", "2026-11-21T12:00:00Z", "2026-11-22T00:00:00Z"),
            ("0 0 0 29 feb *", "2026-11-21T12:00:00Z", "2028-02-29T00:00:00Z"),
            // Both days are named: either will do.
            ("0 30 4 1,15 * fri", "2026-11-21T12:00:00Z", "2026-11-27T04:30:00Z"),
            ("0 30 4 15 * *", "2026-11-21T12:00:00Z", "2026-12-15T04:30:00Z"),
            ("0 0 0 * jan-mar MON", "2026-11-21T12:00:00Z", "2027-01-04T00:00:00Z"),
        ] {
            check(pattern, "UTC", after, expected);
        }
    }

    #[test]
    fn zones_and_their_summer_time() {
        check("0 0 5 * * *", "America/New_York", "2026-11-21T12:00:00Z", "2026-11-22T10:00:00Z");
        check("0 0 5 * * *", "America/New_York", "2026-07-21T12:00:00Z", "2026-07-22T09:00:00Z");
        // There is no half past two on the night the clocks go forward.
        check("0 30 2 * * *", "Europe/Amsterdam", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z");
    }

    #[test]
    fn what_is_no_pattern() {
        for text in [
            "",
            "* * * * *",
            "* * * * * * *",
            "60 * * * * *",
            "* * 24 * * *",
            "* * * 0 * *",
            "* * * * 13 *",
            "* * * * * 7",
            "5-1 * * * * *",
            "*/0 * * * * *",
            "1-2-3 * * * * *",
            "1/2/3 * * * * *",
            "-1 * * * * *",
            "x * * * * *",
            ", * * * * *",
        ] {
            assert_eq!(Cron::parse(text), None, "{text:?}");
        }
        let never = Cron::parse("0 0 0 30 feb *").unwrap();
        assert_eq!(never.next(Timestamp(0), &TimeZone::UTC), None);
    }
}
