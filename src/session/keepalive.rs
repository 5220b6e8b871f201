//! When to ping a client, when to give up on it, and how far away it is.
//!
//! Source: nats-server `server/client.go` (`setFirstPingTimer`, `processPingTimer`). A client that published, subscribed
//! or pinged since the last look is alive and gets no ping, except one an hour to measure the round trip.

use std::time::Duration;

use crate::types::Timestamp;

/// The first ping comes this soon after CONNECT, to measure the round trip, when the interval is longer.
const FIRST_PING: Duration = Duration::from_secs(2);
const RTT_MEASURED_EVERY: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub(super) struct Keepalive {
    interval: Duration,
    max_out: u32,
    /// Pings sent and not answered.
    out: u32,
    /// Whether the client has shown life since the last look.
    heard: bool,
    next: Timestamp,
    ping_sent: Timestamp,
    rtt: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Nothing,
    Ping,
    Stale,
}

impl Keepalive {
    /// `seed` spreads the first pings of many clients over time.
    pub(super) fn new(interval: Duration, max_out: u32, seed: u64, now: Timestamp) -> Keepalive {
        let mut keepalive = Keepalive {
            interval,
            max_out,
            out: 0,
            heard: false,
            next: now,
            ping_sent: Timestamp::ZERO,
            rtt: Duration::ZERO,
        };
        keepalive.restart(seed, now);
        keepalive
    }

    /// Begins with the first ping again, as after CONNECT.
    pub(super) fn restart(&mut self, seed: u64, now: Timestamp) {
        let first = self.interval.min(FIRST_PING);
        // Up to a fifth later, by a multiplicative hash of the seed.
        let spread = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        self.next = now + first + first / 5 * spread as u32 / 0x1_0000;
    }

    /// Other rules from now on; a ping that would come too late by them comes sooner.
    pub(super) fn change(&mut self, interval: Duration, max_out: u32, now: Timestamp) {
        (self.interval, self.max_out) = (interval, max_out);
        self.next = self.next.min(now + interval);
    }

    pub(super) fn next(&self) -> Timestamp {
        self.next
    }

    pub(super) fn rtt(&self) -> Duration {
        self.rtt
    }

    pub(super) fn estimate_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt.max(Duration::from_nanos(1));
    }

    pub(super) fn hear(&mut self) {
        self.heard = true;
    }

    pub(super) fn handle_pong(&mut self, now: Timestamp) {
        if self.out > 0 {
            self.rtt = now.since(self.ping_sent).max(Duration::from_nanos(1));
        }
        self.out = 0;
    }

    pub(super) fn handle_tick(&mut self, now: Timestamp) -> Look {
        if now < self.next {
            return Look::Nothing;
        }
        self.next = now + self.interval;
        let heard = std::mem::take(&mut self.heard);
        let rtt_is_old = self.ping_sent.is_zero() || now.since(self.ping_sent) > RTT_MEASURED_EVERY;
        if heard && !rtt_is_old {
            return Look::Nothing;
        }
        if self.out >= self.max_out {
            return Look::Stale;
        }
        self.out += 1;
        self.ping_sent = now;
        Look::Ping
    }
}
