//! Points in time and JSON durations as NATS writes them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds since the Unix epoch. Zero means "not set" and reads as Go's zero time in JSON.
///
/// Pure modules take it as an argument; only the edges ask a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

const GO_ZERO_TIME: &str = "0001-01-01T00:00:00Z";

impl Timestamp {
    pub const ZERO: Timestamp = Timestamp(0);

    /// The system clock, for the edges of the program.
    #[allow(clippy::disallowed_methods)]
    pub fn now() -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(since_epoch.as_nanos() as i64)
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub fn nanos(self) -> i64 {
        self.0
    }

    /// Time passed from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0).max(0) as u64)
    }

    pub fn to_rfc3339(self) -> String {
        if self.is_zero() {
            return GO_ZERO_TIME.to_owned();
        }
        OffsetDateTime::from_unix_timestamp_nanos(self.0 as i128)
            .ok()
            .and_then(|at| at.format(&Rfc3339).ok())
            .unwrap_or_else(|| GO_ZERO_TIME.to_owned())
    }

    /// Parses RFC 3339 with any offset; `None` when it is not one or lies outside the years 1678 to 2262.
    pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
        if text == GO_ZERO_TIME {
            return Some(Timestamp::ZERO);
        }
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos()).ok().map(Timestamp)
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_rfc3339())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        /// Goes by this type's name, so that a decoder can tell a time from any other text.
        #[derive(Deserialize)]
        #[serde(rename = "Timestamp")]
        struct Text(String);
        let Text(text) = Text::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

/// `#[serde(with = "nanos")]`: a `Duration` as an integer of nanoseconds, as Go's `time.Duration` is in JSON.
/// Negative values are refused.
pub mod nanos {
    use super::*;

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let nanos = i64::deserialize(deserializer)?;
        u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| serde::de::Error::custom("negative duration"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trips_to_the_nanosecond() {
        let at = Timestamp(1_795_262_562_680_472_123);
        assert_eq!(Timestamp::parse_rfc3339(&at.to_rfc3339()), Some(at));
    }

    #[test]
    fn zero_is_gos_zero_time() {
        assert_eq!(serde_json::to_string(&Timestamp::ZERO).unwrap(), "\"0001-01-01T00:00:00Z\"");
        assert_eq!(Timestamp::parse_rfc3339("0001-01-01T00:00:00Z"), Some(Timestamp::ZERO));
    }
}
