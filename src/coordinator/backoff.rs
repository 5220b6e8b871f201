//! How long a failed task waits before its next attempt.

use std::time::Duration;

use super::random::Random;

/// The pauses before the second, third, ... attempt; the last one repeats.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    steps: Vec<Duration>,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { steps: [2, 10, 60].map(Duration::from_secs).to_vec() }
    }
}

impl Backoff {
    /// From seconds; fractions are allowed.
    ///
    /// # Errors
    /// A sentence when a step is negative, not a number or above 30 days.
    pub fn from_seconds(steps: &[f64]) -> Result<Backoff, String> {
        let mut durations = Vec::with_capacity(steps.len());
        for step in steps {
            if !(0.0..=30.0 * 86_400.0).contains(step) {
                return Err(format!("a backoff step of {step} s is not between 0 and 30 days"));
            }
            durations.push(Duration::from_secs_f64(*step));
        }
        Ok(Backoff { steps: durations })
    }

    /// The pause after the `attempt`th attempt (from 1) failed: its step plus up to a fifth, so that tasks that failed
    /// together do not come back together.
    pub fn delay(&self, attempt: u32, random: &mut Random) -> Duration {
        let index = (attempt.max(1) as usize - 1).min(self.steps.len().saturating_sub(1));
        let step = self.steps.get(index).copied().unwrap_or(Duration::ZERO);
        step + step.mul_f64(0.2 * random.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_repeat_the_last_and_jitter_stays_within_a_fifth() {
        let mut random = Random::new(7);
        let backoff = Backoff::default();
        for (attempt, seconds) in [(1, 2.0), (2, 10.0), (3, 60.0), (4, 60.0), (400, 60.0)] {
            for _ in 0..100 {
                let delay = backoff.delay(attempt, &mut random).as_secs_f64();
                assert!((seconds..=seconds * 1.2).contains(&delay), "attempt {attempt}: {delay}");
            }
        }
        assert_eq!(Backoff::from_seconds(&[]).unwrap().delay(1, &mut random), Duration::ZERO);
        assert!(Backoff::from_seconds(&[-1.0]).is_err());
        assert!(Backoff::from_seconds(&[f64::NAN]).is_err());
    }
}
