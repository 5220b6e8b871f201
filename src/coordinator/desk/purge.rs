//! QUEUE.PURGE: cancels everything in a queue that nobody works on.

use std::collections::VecDeque;

use super::requests::clip;
use super::{Desk, Input};
use crate::client::Incoming;
use crate::coordinator::errors;
use crate::coordinator::task::Event;
use crate::types::ApiError;

/// Cancels under way at once, so that a purge of many leaves room for others' steps.
const AT_ONCE: usize = 256;

/// A purge under way. It is answered when all its cancels are stored.
#[derive(Debug)]
pub(super) struct Purge {
    request: Incoming,
    reason: String,
    /// Tasks by index and serial.
    left: VecDeque<(u32, u64)>,
    under_way: usize,
    canceled: u64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    reason: String,
}

impl Desk {
    pub(super) fn queue_purge(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        if !self.queues.contains_key(name) {
            return Err(errors::QUEUE_NOT_FOUND);
        }
        let body: Body = match message.payload().trim_ascii() {
            [] => Body::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        let reason = if body.reason.is_empty() { "queue purged".to_owned() } else { clip(&body.reason) };
        let waits = |index: &u32| {
            let task = self.task(*index)?;
            let waiting = task.record.queue == name && !task.record.phase.is_final() && task.holder.is_none();
            waiting.then_some((*index, task.serial))
        };
        let left = (0..self.tasks.len() as u32).filter_map(|index| waits(&index)).collect();
        let job = self.next_call;
        self.next_call += 1;
        self.purges.insert(job, Purge { request: message.clone(), reason, left, under_way: 0, canceled: 0 });
        self.go_on_purging();
        Ok(())
    }

    /// Takes the next steps of the purges under way.
    pub(super) fn go_on_purging(&mut self) {
        if self.purges.is_empty() {
            return;
        }
        let jobs: Vec<u64> = self.purges.keys().copied().collect();
        for job in jobs {
            while let Some(purge) = self.purges.get_mut(&job)
                && purge.under_way < AT_ONCE
                && let Some((index, serial)) = purge.left.pop_front()
            {
                let event = Event::Purge { reason: purge.reason.clone() };
                if self.same_task(index, serial).is_some() {
                    self.purges.entry(job).and_modify(|purge| purge.under_way += 1);
                    self.enqueue(index, Input { event, from: None, purge: Some(job) });
                }
            }
            let done = |purge: &Purge| purge.under_way == 0 && purge.left.is_empty();
            if self.purges.get(&job).is_some_and(done)
                && let Some(purge) = self.purges.remove(&job)
            {
                self.respond(&purge.request, serde_json::json!({ "purged": purge.canceled }));
            }
        }
    }

    /// An input has had its effect, or will never have one; the next tick goes on.
    pub(super) fn concluded(&mut self, purge: Option<u64>, stored: bool) {
        if let Some(purge) = purge.and_then(|job| self.purges.get_mut(&job)) {
            purge.under_way -= 1;
            purge.canceled += u64::from(stored);
        }
    }
}
