//! The bounds a broker holds its clients to.

use std::time::Duration;

use super::ConfigError;
use crate::types::AssetLimits;

/// Less leaves nothing to work with.
const MEMORY_BYTES_MIN: usize = 32 << 20;

/// Bounds per connection and per server. Defaults are nats-server's (`server/const.go`), but for `payload_bytes_max`:
/// 8 MiB here, the largest nats-server itself advises, because agents send whole documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `max_connections`: further ones are answered with an error and closed.
    pub connections_max: usize,
    /// `max_subscriptions` of one connection. 0: no limit.
    pub subscriptions_max: usize,
    /// `max_control_line`: the longest protocol line before its payload.
    pub control_line_bytes_max: usize,
    /// `max_payload`: headers and payload of one message.
    pub payload_bytes_max: usize,
    /// `max_pending`: what may wait to be written to one client before it counts as a slow consumer.
    pub pending_bytes_max: usize,
    /// `memory_budget`: what all clients together can make the process hold, the store's cache included.
    pub memory_bytes_max: usize,
    /// How long a connection may be silent before it is asked for a PONG.
    pub ping_interval: Duration,
    /// `ping_max`: PINGs that may stay unanswered before the connection counts as stale.
    pub pings_out_max: u32,
    /// How long a connection may take to send CONNECT, also when no credentials are asked for.
    pub auth_timeout: Duration,
    /// How long one write to a client may take before it counts as a slow consumer.
    pub write_deadline: Duration,
    /// How long a stopping server waits for its clients to take what is already theirs.
    pub drain_deadline: Duration,
    /// `lame_duck_duration`: how long a server in lame duck mode takes to send its clients away.
    pub lame_duck_duration: Duration,
    /// `lame_duck_grace_period`: how long it waits before it begins.
    pub lame_duck_grace: Duration,
    /// `max_closed_clients`: connections that ended which monitoring remembers.
    pub closed_clients_max: usize,
}

/// What any stream, consumer or request may ask for: `limits` and `strict` of the `jetstream` block.
#[derive(Clone, Debug, PartialEq)]
pub struct JetStreamLimits {
    /// `strict`: unknown fields in API requests are refused.
    pub strict: bool,
    pub assets: AssetLimits,
}

impl Default for JetStreamLimits {
    fn default() -> JetStreamLimits {
        JetStreamLimits { strict: true, assets: AssetLimits::default() }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 64 << 10,
            subscriptions_max: 0,
            control_line_bytes_max: 4 << 10,
            payload_bytes_max: 8 << 20,
            pending_bytes_max: 64 << 20,
            memory_bytes_max: 256 << 20,
            ping_interval: Duration::from_secs(2 * 60),
            pings_out_max: 2,
            auth_timeout: Duration::from_secs(2),
            write_deadline: Duration::from_secs(10),
            drain_deadline: Duration::from_secs(2),
            lame_duck_duration: Duration::from_secs(2 * 60),
            lame_duck_grace: Duration::from_secs(10),
            closed_clients_max: 10_000,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |name, allowed, value: String| Err(ConfigError::OutOfRange { name, allowed, value });
        // nats-server refuses a larger payload only above max_pending; the wire's i32 is the outer bound.
        if self.payload_bytes_max > 64 << 20 {
            return refuse("max_payload", "at most 64 MiB", self.payload_bytes_max.to_string());
        }
        if self.payload_bytes_max > self.pending_bytes_max {
            return refuse("max_payload", "at most max_pending", self.payload_bytes_max.to_string());
        }
        if self.memory_bytes_max < MEMORY_BYTES_MIN {
            return refuse("memory_budget", "at least 32 MiB", self.memory_bytes_max.to_string());
        }
        if self.payload_bytes_max > self.memory_bytes_max / 4 {
            return refuse("max_payload", "at most a quarter of memory_budget", self.payload_bytes_max.to_string());
        }
        if !(128..=1 << 20).contains(&self.control_line_bytes_max) {
            return refuse("max_control_line", "between 128 bytes and 1 MiB", self.control_line_bytes_max.to_string());
        }
        for (name, duration) in [
            ("ping_interval", self.ping_interval),
            ("auth_timeout", self.auth_timeout),
            ("write_deadline", self.write_deadline),
        ] {
            if duration.is_zero() {
                return refuse(name, "longer than 0", format!("{duration:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        let check = |change: fn(&mut Limits), expected: &str| {
            let mut limits = Limits::default();
            change(&mut limits);
            assert_eq!(limits.check().unwrap_err().to_string(), expected);
        };
        check(|limits| limits.payload_bytes_max = 65 << 20, "max_payload must be at most 64 MiB, not 68157440");
        check(|limits| limits.pending_bytes_max = 1 << 20, "max_payload must be at most max_pending, not 8388608");
        check(|limits| limits.memory_bytes_max = 1, "memory_budget must be at least 32 MiB, not 1");
        check(
            |limits| (limits.payload_bytes_max, limits.memory_bytes_max) = (17 << 20, 64 << 20),
            "max_payload must be at most a quarter of memory_budget, not 17825792",
        );
        check(
            |limits| limits.control_line_bytes_max = 1,
            "max_control_line must be between 128 bytes and 1 MiB, not 1",
        );
        check(|limits| limits.auth_timeout = Duration::ZERO, "auth_timeout must be longer than 0, not 0ns");
        Limits::default().check().unwrap();
    }
}
