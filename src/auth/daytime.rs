//! Times of day at which a user may be connected (nats-server `validateTimesAt`).

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

use super::claims::TimeRange;
use crate::types::Timestamp;

/// Until when a user may be connected that has come at `now`; `None` when it may not. `location` names a time zone; empty
/// for the server's.
pub(super) fn until(ranges: &[TimeRange], location: &str, now: Timestamp) -> Option<Timestamp> {
    let zone = match location {
        "" => TimeZone::system(),
        // As in Go, which has no file of that name.
        "UTC" => TimeZone::UTC,
        name => TimeZone::get(name).ok()?,
    };
    let now = jiff::Timestamp::from_nanosecond(now.0.into()).ok()?.to_zoned(zone);
    let mut last: Option<Zoned> = None;
    for range in ranges {
        let (start, end) = (time(&range.start)?, time(&range.end)?);
        let at = |date: Date, time: Time| date.to_datetime(time).to_zoned(now.time_zone().clone()).ok();
        let today = now.date();
        let (start_today, end_today) = (at(today, start)?, at(today, end)?);
        let until = if start_today < now && end_today > now {
            Some(end_today)
        } else if start_today <= end_today {
            None
        } else if end_today > now {
            // After midnight, before the end.
            Some(end_today)
        } else {
            let end_tomorrow = at(today.checked_add(1.day()).ok()?, end)?;
            (start_today < now).then_some(end_tomorrow)
        };
        last = last.max(until);
    }
    last.and_then(|at| i64::try_from(at.timestamp().as_nanosecond()).ok()).map(Timestamp)
}

/// `15:04:05`.
fn time(text: &str) -> Option<Time> {
    let mut parts = text.split(':').map(|part| match part.len() {
        1 | 2 if part.bytes().all(|byte| byte.is_ascii_digit()) => part.parse::<i8>().ok(),
        _ => None,
    });
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    Time::new(hour, minute, second, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_hours() {
        let at = |text: &str| -> Timestamp {
            let at: jiff::Timestamp = text.parse().unwrap();
            Timestamp(at.as_nanosecond() as i64)
        };
        let check = |ranges: &[(&str, &str)], location: &str, now: &str, expected: Option<&str>| {
            let ranges: Vec<_> =
                ranges.iter().map(|&(start, end)| TimeRange { start: start.into(), end: end.into() }).collect();
            assert_eq!(until(&ranges, location, at(now)), expected.map(at), "{ranges:?} {location} {now}");
        };
        let day = [("11:00:00", "22:00:00")];
        check(&day, "UTC", "2026-03-01T13:00:00Z", Some("2026-03-01T22:00:00Z"));
        check(&day, "UTC", "2026-03-01T10:59:59Z", None);
        check(&day, "UTC", "2026-03-01T11:00:00Z", None);
        check(&day, "UTC", "2026-03-01T22:00:00Z", None);
        // Across midnight.
        let night = [("22:00:00", "06:00:00")];
        check(&night, "UTC", "2026-03-01T05:00:00Z", Some("2026-03-01T06:00:00Z"));
        check(&night, "UTC", "2026-03-01T23:30:00Z", Some("2026-03-02T06:00:00Z"));
        check(&night, "UTC", "2026-03-01T12:00:00Z", None);
        // The longest counts.
        let two = [("08:00:00", "12:00:00"), ("09:00:00", "17:30:00"), ("18:00:00", "19:00:00")];
        check(&two, "UTC", "2026-03-01T10:00:00Z", Some("2026-03-01T17:30:00Z"));
        // Elsewhere it is later.
        check(&day, "Europe/Berlin", "2026-03-01T10:30:00Z", Some("2026-03-01T21:00:00Z"));
        check(&day, "Europe/Berlin", "2026-07-01T09:30:00Z", Some("2026-07-01T20:00:00Z"));
        check(&day, "Nowhere/Else", "2026-03-01T13:00:00Z", None);
        for bad in ["", "11", "11:00", "24:00:00", "11:00:00:00", "+1:00:00", "011:00:00"] {
            check(&[(bad, "22:00:00")], "UTC", "2026-03-01T13:00:00Z", None);
        }
        check(&[], "UTC", "2026-03-01T13:00:00Z", None);
    }
}
