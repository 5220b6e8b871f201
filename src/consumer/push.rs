//! What only push consumers have: whether anyone listens, idle heartbeats, flow control and the rate limit.

use bytes::Bytes;

use super::config::ConsumerConfig;
use super::waiting::{after, next_random};
use crate::types::GoDuration;
use crate::types::Timestamp;

/// Most bytes out without an answer to flow control.
const FLOW_WINDOW_MAX: i64 = 32 * 1024 * 1024;
const FLOW_WINDOW_START: i64 = FLOW_WINDOW_MAX / 16;

/// The state of a push consumer's delivery subject.
#[derive(Debug)]
pub(super) struct Push {
    /// Someone is subscribed to the deliver subject.
    pub(super) active: bool,
    /// Since when nobody is.
    pub(super) inactive_since: Timestamp,
    pub(super) to: Bytes,
    pub(super) heartbeat: Option<IdleHeartbeat>,
    pub(super) flow: Option<FlowControl>,
    pub(super) rate: Option<RateLimit>,
}

/// Sent when nothing was for one interval.
#[derive(Debug)]
pub(super) struct IdleHeartbeat {
    every: GoDuration,
    pub(super) due: Timestamp,
}

impl IdleHeartbeat {
    pub(super) fn restart(&mut self, now: Timestamp) {
        self.due = after(now, self.every);
    }
}

impl Push {
    pub(super) fn new(config: &ConsumerConfig, burst_bytes: u64, seed: u64, now: Timestamp) -> Push {
        let heartbeat = (config.heartbeat.0 > 0)
            .then(|| IdleHeartbeat { every: config.heartbeat, due: after(now, config.heartbeat) });
        Push {
            active: false,
            inactive_since: now,
            to: Bytes::from(config.deliver_subject.clone()),
            heartbeat,
            flow: config.flow_control.then(|| FlowControl::new(seed)),
            rate: RateLimit::new(config.rate_limit, burst_bytes, now),
        }
    }

    /// Whether flow control holds deliveries back.
    pub(super) fn is_stalled(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.outstanding > flow.window)
    }

    /// The subject on which an answer to flow control is awaited.
    pub(super) fn stalled_on(&self) -> Option<&[u8]> {
        self.flow.as_ref().and_then(|flow| flow.asked.as_ref()).map(|asked| asked.subject.as_ref())
    }
}

/// A window of bytes that grows with each answer (nats-server `needFlowControl`, `processFlowControl`).
#[derive(Debug)]
pub(super) struct FlowControl {
    window: i64,
    outstanding: i64,
    asked: Option<Asked>,
    seed: u64,
}

#[derive(Debug)]
struct Asked {
    subject: Bytes,
    /// What the answer takes off `outstanding`.
    covers: i64,
}

impl FlowControl {
    fn new(seed: u64) -> FlowControl {
        FlowControl { window: FLOW_WINDOW_START, outstanding: 0, asked: None, seed }
    }

    /// Counts a delivery of `size` bytes; `true` when the client is to be asked now.
    pub(super) fn sent(&mut self, size: i64, acks_full: bool) -> bool {
        self.outstanding += size;
        match &mut self.asked {
            None => self.outstanding > self.window / 2 || acks_full,
            Some(asked) => {
                if self.outstanding - asked.covers >= self.window {
                    asked.covers += size;
                }
                false
            }
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// The reply subject of a new request; `prefix` is `$JS.FC.<stream>.<consumer>.`.
    pub(super) fn ask(&mut self, prefix: &str) -> Bytes {
        let token = crate::types::id::token(4, || next_random(&mut self.seed));
        let subject = Bytes::from(format!("{prefix}{token}"));
        self.asked = Some(Asked { subject: subject.clone(), covers: self.outstanding });
        subject
    }

    /// Takes an answer; `false` when it is not to the latest request.
    pub(super) fn answered(&mut self, subject: &[u8]) -> bool {
        match self.asked.take_if(|asked| asked.subject == subject) {
            None => false,
            Some(asked) => {
                self.window = (self.window * 2).min(FLOW_WINDOW_MAX);
                self.outstanding = (self.outstanding - asked.covers).max(0);
                true
            }
        }
    }
}

/// A bucket of bytes that refills steadily.
#[derive(Debug)]
pub(super) struct RateLimit {
    bytes_per_second: f64,
    burst: f64,
    tokens: f64,
    filled: Timestamp,
}

impl RateLimit {
    /// `None` without a limit.
    pub(super) fn new(bits_per_second: u64, burst_bytes: u64, now: Timestamp) -> Option<RateLimit> {
        let burst = burst_bytes.max(1) as f64;
        (bits_per_second > 0).then(|| RateLimit {
            bytes_per_second: (bits_per_second as f64 / 8.0).max(1.0),
            burst,
            tokens: burst,
            filled: now,
        })
    }

    /// Takes `size` bytes out of the bucket, or says from when on there are enough.
    pub(super) fn take(&mut self, size: i64, now: Timestamp) -> Result<(), Timestamp> {
        let passed = now.since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + passed * self.bytes_per_second).min(self.burst);
        // A message larger than the bucket goes when the bucket is full.
        let size = (size as f64).min(self.burst);
        if self.tokens >= size {
            self.tokens -= size;
            return Ok(());
        }
        let wait_nanos = (size - self.tokens) / self.bytes_per_second * 1e9;
        Err(Timestamp(now.0.saturating_add(wait_nanos.ceil() as i64).saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_control_asks_at_half_the_window_and_doubles_it() {
        let mut flow = FlowControl::new(1);
        assert!(!flow.sent(FLOW_WINDOW_START / 2, false));
        assert!(flow.sent(1, false));
        let subject = flow.ask("$JS.FC.S.C.");
        assert!(subject.starts_with(b"$JS.FC.S.C.") && subject.len() == 15);
        assert!(!flow.sent(10, false), "one request at a time");
        assert!(!flow.answered(b"$JS.FC.S.C.other"));
        assert!(flow.answered(&subject));
        assert!(!flow.answered(&subject));
        assert_eq!((flow.window, flow.outstanding), (2 * FLOW_WINDOW_START, 10));
    }

    #[test]
    fn rate_limit_lets_a_burst_through_and_then_the_rate() {
        let start = Timestamp(1_000_000_000);
        let mut limit = RateLimit::new(8_000, 500, start).unwrap();
        assert_eq!(limit.take(500, start), Ok(()));
        let ready = limit.take(100, start).unwrap_err();
        assert!((ready.0 - start.0 - 100_000_000).abs() < 10, "100 bytes at 1000 bytes a second");
        assert_eq!(limit.take(100, ready), Ok(()));
        let late = Timestamp(ready.0 + 10_000_000_000);
        assert_eq!(limit.take(5_000, late), Ok(()), "larger than the bucket, but the bucket is full");
        assert!(RateLimit::new(0, 1, start).is_none());
    }
}
