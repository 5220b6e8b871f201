//! Pull requests at the door: limits, priority groups, and whether there is anything for those who do not wait.

use bytes::Bytes;

use super::config::{ConsumerConfig, PriorityPolicy};
use super::machine::{Consumer, View};
use super::output::Output;
use super::pull::PullRequest;
use super::waiting::after;
use crate::types::Timestamp;

/// Longer than any pin ever given out.
const PIN_ID_LEN_MAX: usize = 64;

impl Consumer {
    /// A pull request arrived, on its own or behind a `+NXT`.
    pub fn handle_next(&mut self, reply: Bytes, body: &[u8], view: &View, now: Timestamp) {
        if reply.is_empty() {
            return;
        }
        match PullRequest::parse(reply.clone(), body) {
            Ok(pull) => self.handle_pull(pull, view, now),
            Err(text) => self.outbox.push_back(Output::status(reply, 400, &format!("Bad Request - {text}"))),
        }
    }

    /// A pull request, parsed.
    pub fn handle_pull(&mut self, pull: PullRequest, view: &View, now: Timestamp) {
        let reply = pull.reply.clone();
        if let Err((code, text)) = self.admit_pull(pull, view, now) {
            self.outbox.push_back(Output::status(reply, code, &text));
        }
    }

    fn admit_pull(&mut self, pull: PullRequest, view: &View, now: Timestamp) -> Result<(), (u16, String)> {
        let config = self.setup.config.clone();
        if config.is_push() {
            return Err((409, "Consumer is push based".to_owned()));
        }
        if config.max_request_batch > 0 && pull.batch > config.max_request_batch {
            return Err((409, format!("Exceeded MaxRequestBatch of {}", config.max_request_batch)));
        }
        if config.max_request_expires.0 > 0 && pull.expires > config.max_request_expires {
            return Err((409, format!("Exceeded MaxRequestExpires of {}", config.max_request_expires)));
        }
        if config.max_request_max_bytes > 0 && pull.max_bytes > config.max_request_max_bytes {
            return Err((409, format!("Exceeded MaxRequestMaxBytes of {}", config.max_request_max_bytes)));
        }
        self.admit_priority(&pull, &config, now)?;
        self.active_at = now;
        if self.waiting.is_full() {
            self.sweep(false, view, now);
        }
        if pull.no_wait {
            let available = self.num_pending(view.index) + self.pending.in_line() as u64;
            if available == 0 && pull.expires.is_zero() {
                return Err((404, "No Messages".to_owned()));
            }
            if available > 0 {
                let wanted = self.sweep(false, view, now);
                if (available as i64) < wanted {
                    return Err((408, "Requests Pending".to_owned()));
                }
            }
        }
        let heartbeat = pull.idle_heartbeat;
        // A client that expects heartbeats notices their absence; an error would only make it ask again at once.
        match self.waiting.push(pull, config.priority_policy, now) {
            Err(_) if heartbeat.is_zero() => Err((409, "Exceeded MaxWaiting".to_owned())),
            _ => Ok(()),
        }
    }

    fn admit_priority(
        &mut self,
        pull: &PullRequest,
        config: &ConsumerConfig,
        now: Timestamp,
    ) -> Result<(), (u16, String)> {
        let Some(priority) = &pull.priority else { return Ok(()) };
        let refuse = |text: &str| Err((400, format!("Bad Request - {text}")));
        let policy = config.priority_policy;
        if (priority.min_pending != 0 || priority.min_ack_pending != 0) && policy != PriorityPolicy::Overflow {
            return refuse("Not a Overflow Priority consumer");
        }
        if !priority.pin_id.is_empty() && policy != PriorityPolicy::PinnedClient {
            return refuse("Not a Pinned Client Priority consumer");
        }
        if !(0..=9).contains(&priority.priority) {
            return refuse("Priority must be between 0 and 9");
        }
        if policy.is_none() {
            return Ok(());
        }
        if priority.group.is_empty() {
            return refuse("Priority Group missing");
        }
        if !config.priority_groups.contains(&priority.group) {
            return refuse("Invalid Priority Group");
        }
        let mismatch = || Err((423, "Nats-Pin-Id mismatch".to_owned()));
        match &mut self.pinning.current {
            Some(pin) if pin.id == priority.pin_id => pin.until = after(now, self.pinning.ttl),
            Some(_) if !priority.pin_id.is_empty() => return mismatch(),
            // An old pin is told apart when its turn comes; what cannot be one is not kept until then.
            _ if priority.pin_id.len() > PIN_ID_LEN_MAX => return mismatch(),
            _ => {}
        }
        Ok(())
    }
}
