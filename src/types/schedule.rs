//! What a `Nats-Schedule` header says: when a message is due, once or again and again (ADR-51; nats-server
//! `parseMsgSchedule`).

use jiff::tz::TimeZone;

use super::cron::Cron;
use super::{ApiError, GoDuration, Timestamp};

const SECOND: i64 = 1_000_000_000;

/// A schedule's rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// `@at 2026-11-21T12:00:00Z`: once.
    At(Timestamp),
    /// `@every 5m`: whole seconds apart.
    Every(GoDuration),
    /// Six fields, or a name for them as `@daily`.
    Cron(Cron, TimeZone),
}

/// A time on full seconds, the half ones rounded up, as Go's `Round`.
fn round(time: Timestamp) -> Timestamp {
    Timestamp(time.0.saturating_add(SECOND / 2).div_euclid(SECOND).saturating_mul(SECOND))
}

impl Schedule {
    /// Reads what the two headers of a message say; `None` when it has no schedule.
    ///
    /// # Errors
    /// A pattern or a time zone that nobody knows, and a time zone on anything but a cron pattern.
    pub fn parse(pattern: Option<&[u8]>, time_zone: Option<&[u8]>) -> Result<Option<Schedule>, ApiError> {
        let zone = match time_zone {
            None => None,
            Some(name) => Some(zone(name).ok_or(ApiError::MESSAGE_SCHEDULES_TIME_ZONE_INVALID)?),
        };
        let Some(pattern) = pattern else { return Ok(None) };
        let schedule = std::str::from_utf8(pattern).ok().and_then(|pattern| Schedule::from_pattern(pattern, zone));
        schedule.map(Some).ok_or(ApiError::MESSAGE_SCHEDULES_PATTERN_INVALID)
    }

    fn from_pattern(pattern: &str, zone: Option<TimeZone>) -> Option<Schedule> {
        if let Some(time) = pattern.strip_prefix("@at ") {
            return Timestamp::parse_rfc3339(time).filter(|_| zone.is_none()).map(Schedule::At);
        }
        if let Some(every) = pattern.strip_prefix("@every ") {
            let every = GoDuration::parse(every).filter(|every| zone.is_none() && *every >= GoDuration::SECOND);
            return every.map(Schedule::Every);
        }
        let pattern = match pattern {
            "@yearly" | "@annually" => "0 0 0 1 1 *",
            "@monthly" => "0 0 0 1 * *",
            "@weekly" => "0 0 0 * * 0",
            "@daily" | "@midnight" => "0 0 0 * * *",
            "@hourly" => "0 0 * * * *",
            pattern => pattern,
        };
        Some(Schedule::Cron(Cron::parse(pattern)?, zone.unwrap_or(TimeZone::UTC)))
    }

    pub fn repeats(&self) -> bool {
        !matches!(self, Schedule::At(_))
    }

    /// The first time it is due after `after`, and for `@at` always the same. `None` for a pattern that never comes.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::At(time) => Some(*time),
            Schedule::Every(every) => Some(Timestamp(round(after).0.saturating_add(every.0))),
            Schedule::Cron(cron, zone) => cron.next(after, zone),
        }
    }

    /// As [`Schedule::next`], but not before `now`: what was missed meanwhile is due once only.
    pub fn next_from(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        match self.next(after) {
            Some(next) if self.repeats() && next < now => self.next(round(now)),
            next => next,
        }
    }

    /// A due time as `Nats-Schedule-Next` shows it, in the schedule's own time zone.
    pub fn show(&self, time: Timestamp) -> String {
        if let Schedule::Cron(_, zone) = self
            && *zone != TimeZone::UTC
            && let Ok(at) = jiff::Timestamp::from_nanosecond(time.0.into())
        {
            return at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        }
        time.to_rfc3339()
    }
}

/// A zone of the built-in database, or `Local`; fixed offsets are none.
fn zone(name: &[u8]) -> Option<TimeZone> {
    match std::str::from_utf8(name).ok()? {
        "" => None,
        "UTC" => Some(TimeZone::UTC),
        "Local" => Some(TimeZone::system()),
        name => TimeZone::get(name).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pattern: &str, zone: Option<&str>) -> Result<Option<Schedule>, ApiError> {
        let pattern = Some(pattern.as_bytes()).filter(|pattern| !pattern.is_empty());
        Schedule::parse(pattern, zone.map(str::as_bytes))
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn due_times() {
        let now = at("2026-11-21T12:00:00.7Z");
        for (pattern, expected) in [
            ("@at 2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
            ("@at 2030-01-01T01:00:00+01:00", "2030-01-01T00:00:00Z"),
            ("@every 90s", "2026-11-21T12:01:31Z"),
            ("@hourly", "2026-11-21T13:00:00Z"),
            ("@daily", "2026-11-22T00:00:00Z"),
            ("0 */5 * * * *", "2026-11-21T12:05:00Z"),
        ] {
            let schedule = parse(pattern, None).unwrap().unwrap();
            assert_eq!(schedule.next_from(now, now), Some(at(expected)), "{pattern}");
        }
        let every = parse("@every 10s", None).unwrap().unwrap();
        let (due, late) = (at("2026-11-21T12:00:00Z"), at("2026-11-21T12:07:03Z"));
        assert_eq!(every.next_from(due, at("2026-11-21T12:00:01Z")), Some(at("2026-11-21T12:00:10Z")));
        assert_eq!(every.next_from(due, late), Some(at("2026-11-21T12:07:13Z")));
    }

    #[test]
    fn zones_show_in_the_next_time() {
        let daily = parse("0 0 5 * * *", Some("America/New_York")).unwrap().unwrap();
        let next = daily.next(at("2026-11-21T12:00:00Z")).unwrap();
        assert_eq!(daily.show(next), "2026-11-22T05:00:00-05:00");
        let utc = parse("0 0 5 * * *", Some("UTC")).unwrap().unwrap();
        assert_eq!(utc.show(next), "2026-11-22T10:00:00Z");
    }

    #[test]
    fn refusals() {
        let pattern = ApiError::MESSAGE_SCHEDULES_PATTERN_INVALID;
        let zone = ApiError::MESSAGE_SCHEDULES_TIME_ZONE_INVALID;
        for (text, name, expected) in [
            ("@at tomorrow", None, &pattern),
            ("@at 2030-01-01T00:00:00Z", Some("UTC"), &pattern),
            ("@every 999ms", None, &pattern),
            ("@every 1m", Some("UTC"), &pattern),
            ("@every minute", None, &pattern),
            ("@sometimes", None, &pattern),
            ("@daily", Some(""), &zone),
            ("@daily", Some("+02:00"), &zone),
            ("", Some("Mars/Olympus"), &zone),
        ] {
            assert_eq!(parse(text, name).as_ref(), Err(expected), "{text} {name:?}");
        }
        assert_eq!(parse("", None), Ok(None));
        assert_eq!(parse("", Some("UTC")), Ok(None));
    }
}
