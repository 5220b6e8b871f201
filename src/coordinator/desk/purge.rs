//! What is done to many tasks for one request: QUEUE.PURGE cancels everything in a queue that nobody works on, DLQ.REQUEUE and
//! DLQ.PURGE are about all dead letters of a queue, and a CANCEL may mean all descendants. Each task takes its own step, stored or
//! not by itself.

use std::collections::VecDeque;

use super::requests::clip;
use super::{Desk, Input};
use crate::client::Incoming;
use crate::coordinator::errors;
use crate::coordinator::task::Event;
use crate::types::ApiError;

/// Steps under way at once, so that a purge of many leaves room for others' steps.
const AT_ONCE: usize = 256;

/// A purge under way. It is answered when all its steps are stored, or known not to be.
#[derive(Debug)]
pub(super) struct Purge {
    purpose: Purpose,
    event: Event,
    /// Tasks by index and serial.
    left: VecDeque<(u32, u64)>,
    under_way: usize,
    done: u64,
}

#[derive(Debug)]
enum Purpose {
    /// A request, and what its answer calls the number of steps.
    Answer(Incoming, &'static str),
    /// A purge that is stored, by queue and revision, and who asked for it unless it is from before a restart.
    Marked(String, u64, Option<Incoming>),
    /// The task, by index and serial, whose descendants these are.
    Family(u32, u64),
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
        self.mark_purge(name, reason, left, message);
        Ok(())
    }

    /// Has `event` happen to all of `left`, tasks by index and serial, and answers with their number.
    pub(super) fn begin_purge(
        &mut self,
        message: &Incoming,
        event: Event,
        verb: &'static str,
        left: VecDeque<(u32, u64)>,
    ) {
        self.begin_job(Purpose::Answer(message.clone(), verb), event, left);
        self.go_on_purging();
    }

    /// Carries out a purge whose mark is stored.
    pub(super) fn begin_marked(
        &mut self,
        (queue, seq): (String, u64),
        request: Option<Incoming>,
        event: Event,
        left: VecDeque<(u32, u64)>,
    ) {
        self.begin_job(Purpose::Marked(queue, seq, request), event, left);
        self.go_on_purging();
    }

    /// Has `event` happen to all of `left`, descendants of a task, whose record then says so. It begins with the next tick.
    pub(super) fn begin_family_cancel(&mut self, root: u32, serial: u64, event: Event, left: VecDeque<(u32, u64)>) {
        self.begin_job(Purpose::Family(root, serial), event, left);
    }

    fn begin_job(&mut self, purpose: Purpose, event: Event, left: VecDeque<(u32, u64)>) {
        let job = self.next_call;
        self.next_call += 1;
        self.purges.insert(job, Purge { purpose, event, left, under_way: 0, done: 0 });
    }

    /// Takes the next steps of the purges under way.
    pub(super) fn go_on_purging(&mut self) {
        if self.purges.is_empty() {
            return;
        }
        let jobs: Vec<u64> = self.purges.keys().copied().collect();
        let mut again = false;
        for job in jobs {
            while let Some(purge) = self.purges.get_mut(&job)
                && purge.under_way < AT_ONCE
                && let Some((index, serial)) = purge.left.pop_front()
            {
                let event = purge.event.clone();
                if self.same_task(index, serial).is_some() {
                    self.purges.entry(job).and_modify(|purge| purge.under_way += 1);
                    self.enqueue(index, Input { event, from: None, purge: Some(job) });
                }
            }
            let done = |purge: &Purge| purge.under_way == 0 && purge.left.is_empty();
            if self.purges.get(&job).is_some_and(done)
                && let Some(purge) = self.purges.remove(&job)
            {
                match purge.purpose {
                    Purpose::Marked(queue, seq, request) => self.unmark_purge(&queue, seq, purge.done, request),
                    Purpose::Answer(request, verb) => self.respond(&request, serde_json::json!({ verb: purge.done })),
                    Purpose::Family(root, serial) if self.same_task(root, serial).is_some() => {
                        self.descendants_canceled(root);
                        again = true;
                    }
                    Purpose::Family(..) => {}
                }
            }
        }
        if again {
            self.go_on_purging();
        }
    }

    /// An input has had its effect, or will never have one; the next tick goes on.
    pub(super) fn concluded(&mut self, purge: Option<u64>, stored: bool) {
        if let Some(purge) = purge.and_then(|job| self.purges.get_mut(&job)) {
            purge.under_way -= 1;
            purge.done += u64::from(stored);
        }
    }
}
