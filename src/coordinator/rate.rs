//! A token bucket: so many a second, with a burst of one second's worth.

use super::seconds;
use crate::types::Timestamp;

/// A bucket; time is passed in and need not be even.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// The most a bucket holds: a second's worth, at least one.
fn burst(rate: f64) -> f64 {
    rate.max(1.0)
}

impl Bucket {
    fn tokens(&self, rate: f64, now: Timestamp) -> f64 {
        if self.at.is_zero() {
            return burst(rate);
        }
        (self.tokens + now.since(self.at).as_secs_f64() * rate).min(burst(rate))
    }

    /// Whether there is a token; `rate` is tokens a second, and 0 is no limit.
    pub fn admits(&self, rate: f64, now: Timestamp) -> bool {
        // A timer set for a token must find it, whatever the rounding.
        rate == 0.0 || self.tokens(rate, now) >= 1.0 - 1e-6
    }

    /// Takes a token; what was taken already although there was none is owed.
    pub fn take(&mut self, rate: f64, now: Timestamp) {
        if rate > 0.0 {
            self.tokens = self.tokens(rate, now) - 1.0;
            self.at = self.at.max(now);
        }
    }

    /// When there is a token again.
    pub fn next(&self, rate: f64, now: Timestamp) -> Timestamp {
        let missing = (1.0 - self.tokens(rate, now)).max(0.0);
        now + seconds::duration(missing / rate)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Timestamp = Timestamp(1_700_000_000_000_000_000);

    /// How many a bucket gives out in ten seconds, asked every `step`.
    fn given(rate: f64, step: Duration) -> u32 {
        let (mut bucket, mut now, mut given) = (Bucket::default(), START, 0);
        while now < START + Duration::from_secs(10) {
            while bucket.admits(rate, now) {
                bucket.take(rate, now);
                given += 1;
            }
            now = now + step;
        }
        given
    }

    #[test]
    fn it_gives_a_burst_and_then_the_rate() {
        for step in [7, 100, 333].map(Duration::from_millis) {
            assert!((109..=110).contains(&given(10.0, step)), "{}", given(10.0, step));
        }
        assert_eq!(given(0.5, Duration::from_millis(10)), 1 + 4);
    }

    #[test]
    fn the_next_token_is_there_when_it_was_promised() {
        let mut bucket = Bucket::default();
        let mut now = START;
        for n in 0..100 {
            assert!(bucket.admits(0.7, now), "{n}");
            bucket.take(0.7, now);
            assert!(!bucket.admits(0.7, now));
            now = bucket.next(0.7, now);
        }
        assert!(now.since(START) > Duration::from_secs(141));
        assert!(bucket.admits(0.0, now), "no rate is no limit");
    }
}
