//! The task's state machine: an event on a record gives the next record, nothing, or a refusal.
//!
//! ```text
//!            SUBMIT                    due
//!   (nothing) ----> scheduled -----------------> queued <------------------------------+
//!      |  \-----------------------------------------^ |                                 |
//!      +--> blocked --- all completed ---------------^ |  (one failed: dead)             |
//!                                                    | assign          decline,        | due
//!                 delivered                          v                 accept timeout, |
//!   running <-------------------------------- assigned ---------------> queued         |
//!     |  \  fail, nak, lease expired      +--------+                                   |
//!     |   +----------------------------> backing-off ----------------------------------+
//!     |   |  agent lost                  queued
//!     |   +--- attempts used, no retry, timeout, deadline ---> dead ----+
//!     +------- complete -------------------------------------> completed| requeue
//!     +<------ ask ------> input-required, auth-required --- answer ---> queued
//!     +------- cancel ---> cancelling --- confirmed, grace --> canceled-+--> queued, run + 1
//! ```
//!
//! Fencing: each attempt has a lease of its own; whoever speaks for an attempt must name the lease that is current.

use std::time::Duration;

use super::backoff::Backoff;
use super::errors;
use super::random::Random;
use super::rare::Rare;
use super::record::{Completion, Descendants, Fault, Had, Phase, Record};
use crate::types::{ApiError, Timestamp};

/// What can happen to a task.
#[derive(Clone, Debug)]
pub enum Event {
    /// The time in `wake` has come.
    Due,
    /// All tasks of its Task-After are completed.
    Unblocked,
    /// One of them never will be; what became of it, in words.
    DependencyFailed {
        fate: String,
    },
    /// The scheduler chose an agent.
    Assign {
        agent: String,
        lease: String,
    },
    /// The agent has the task.
    Delivered,
    /// A pull queue's item was delivered, so often by now; `refused` tells that this delivery ended with a nak.
    PullDelivered {
        delivery: u32,
        refused: bool,
    },
    /// The agent did not fetch it in time.
    AcceptTimeout,
    /// Nobody listened where a service was asked.
    Unserved {
        lease: String,
    },
    Complete {
        lease: String,
        digest: String,
    },
    /// A worker of a pull queue acknowledged its message, when it was delivered for the so-manieth time; 0 is not known.
    PullAcked {
        delivery: u32,
    },
    /// It will not have the message again, whoever asks.
    PullTerminated {
        delivery: u32,
        error: String,
    },
    Fail {
        lease: String,
        error: String,
        retry: bool,
        delay: Option<Duration>,
    },
    /// The agent gave the message back, which means nothing once it has asked.
    Nak {
        lease: String,
        error: String,
        retry: bool,
        delay: Option<Duration>,
    },
    /// The agent asks its dispatcher; `auth` for an authorization.
    Ask {
        lease: String,
        auth: bool,
        question: String,
    },
    /// The dispatcher's answer, to the question of that number or the one that is open.
    Answer {
        number: Option<u32>,
        answer: String,
    },
    /// Not this agent's kind of work. `others` tells whether any other agent could take it.
    Decline {
        lease: String,
        others: bool,
    },
    /// No sign of life for the length of the lease.
    LeaseExpired,
    /// The agent that holds it is gone.
    AgentLost,
    /// The attempt took longer than Task-Timeout.
    TimedOut,
    /// Task-Deadline has passed.
    DeadlinePassed,
    /// Its payload is not in the store any more.
    PayloadLost,
    /// A pull queue's broker gave up delivering it after so many times.
    DeliveriesUsed {
        deliveries: u32,
    },
    Cancel {
        reason: String,
        force: bool,
        descendants: Descendants,
    },
    /// All descendants that were to be canceled are.
    DescendantsCanceled,
    /// The grace after a cancel is over.
    CancelOver,
    /// Its queue is emptied of what waits.
    Purge {
        reason: String,
    },
    /// Its dead letter is purged, and with it all that is kept of the task.
    Forget,
    /// `blocked` tells whether tasks of its Task-After are not completed.
    Requeue {
        blocked: bool,
    },
}

/// What the machine needs from outside a record.
pub struct Context<'a> {
    pub now: Timestamp,
    pub pauses: &'a Backoff,
    pub random: &'a mut Random,
}

/// The machine's answer: the next record, or `None` when the event changes nothing and is answered as if it had.
pub type Outcome = Result<Option<Record>, ApiError>;

impl Record {
    /// Takes one step. Pure: the same record, event and context give the same outcome.
    ///
    /// # Errors
    /// The refusal the API answers with; for events of the coordinator's own, that the event no longer applies.
    pub fn handle(&self, event: &Event, context: &mut Context<'_>) -> Outcome {
        match event {
            Event::Due => match self.phase {
                Phase::Scheduled | Phase::BackingOff => Ok(Some(self.queued(context.now))),
                _ => Ok(None),
            },
            Event::Unblocked => match self.phase {
                Phase::Blocked => {
                    let later = self.wake > context.now;
                    let next = if later { self.next(Phase::Scheduled, context.now) } else { self.queued(context.now) };
                    Ok(Some(Record { met: true, ..next }))
                }
                _ => Ok(None),
            },
            Event::DependencyFailed { fate } => match self.phase {
                Phase::Blocked => {
                    let mut next = self.failed(fate, false, None, context);
                    next.reason = "dependency".into();
                    Ok(Some(next))
                }
                _ => Ok(None),
            },
            Event::Assign { agent, lease } => match self.phase {
                Phase::Queued if self.mode.is_assigned() => {
                    let mut next = self.next(Phase::Assigned, context.now);
                    next.attempt = next.attempt.saturating_add(1);
                    next.deliveries = next.deliveries.saturating_add(1);
                    next.agent = agent.clone();
                    next.lease = lease.as_str().into();
                    next.assigned = context.now;
                    if !self.sticky.is_empty() {
                        next.had = Some(Box::new(Had { agent: agent.clone(), at: context.now }));
                    }
                    Ok(Some(next))
                }
                _ => Ok(None),
            },
            Event::Delivered => match self.phase {
                Phase::Assigned => Ok(Some(self.next(Phase::Running, context.now))),
                _ => Ok(None),
            },
            Event::PullDelivered { delivery, refused } => match self.phase {
                Phase::Queued | Phase::Running if self.mode.is_pulled() => {
                    let mut next = self.counted(*delivery).next(Phase::Running, context.now);
                    if *refused {
                        let error = "not acknowledged (nak)".to_owned();
                        next.fault =
                            Some(Box::new(Fault { error, attempt: next.attempt, at: context.now, ..Fault::default() }));
                    }
                    let news = *refused || self.phase != next.phase || self.attempt != next.attempt;
                    Ok(news.then_some(next))
                }
                _ => Ok(None),
            },
            Event::AcceptTimeout => match self.phase {
                Phase::Assigned => Ok(Some(self.returned(context.now))),
                _ => Ok(None),
            },
            Event::Unserved { lease } => match self.phase {
                Phase::Assigned | Phase::Running if self.mode.is_assigned() && self.lease == *lease => {
                    Ok(Some(self.returned(context.now)))
                }
                Phase::Cancelling if self.lease == *lease => Ok(Some(self.canceled(&self.reason, context.now))),
                _ => Ok(None),
            },
            Event::Complete { lease, digest } => self.complete(lease, digest, context.now),
            Event::PullAcked { delivery } => match self.mode {
                mode if mode.is_pulled() && !self.phase.is_final() && !self.phase.is_parked() => {
                    self.counted((*delivery).max(1)).complete(&self.lease, "", context.now)
                }
                _ => Ok(None),
            },
            Event::PullTerminated { delivery, error } => match self.mode {
                mode if mode.is_pulled() && !self.phase.is_final() && !self.phase.is_parked() => {
                    Ok(Some(self.counted(*delivery).failed(error, false, None, context)))
                }
                _ => Ok(None),
            },
            Event::Fail { lease, error, retry, delay } => self.fail(lease, error, *retry, *delay, context),
            Event::Nak { .. } if self.phase.is_parked() => Ok(None),
            Event::Nak { lease, error, retry, delay } => self.fail(lease, error, *retry, *delay, context),
            Event::Ask { lease, auth, question } => self.ask(lease, *auth, question, context.now),
            Event::Answer { number, answer } => self.answer(*number, answer, context.now),
            Event::Decline { lease, others } => self.decline(lease, *others, context.now),
            Event::LeaseExpired => match self.phase {
                Phase::Assigned | Phase::Running if self.mode.is_assigned() => {
                    Ok(Some(self.failed("lease expired", true, None, context)))
                }
                _ => Ok(None),
            },
            Event::AgentLost => match self.phase {
                // It never had the task, as far as anybody knows.
                Phase::Assigned => Ok(Some(self.returned(context.now))),
                Phase::Running => Ok(Some(self.failed("agent lost", true, Some(Duration::ZERO), context))),
                Phase::Cancelling => Ok(Some(self.canceled(&self.reason, context.now))),
                _ => Ok(None),
            },
            Event::TimedOut => match self.phase {
                Phase::Assigned | Phase::Running => Ok(Some(self.failed("timeout", false, None, context))),
                _ => Ok(None),
            },
            Event::DeadlinePassed if self.phase.is_final() => Ok(None),
            Event::DeadlinePassed => Ok(Some(self.failed("deadline", false, None, context))),
            Event::PayloadLost if self.phase.is_final() => Ok(None),
            Event::PayloadLost => Ok(Some(self.failed("payload lost", false, None, context))),
            Event::DeliveriesUsed { deliveries } => match self.phase {
                Phase::Queued | Phase::Running if self.mode.is_pulled() => {
                    Ok(Some(self.counted(*deliveries).failed("deliveries used", false, None, context)))
                }
                _ => Ok(None),
            },
            Event::Cancel { reason, force, descendants } => self.cancel(reason, *force, *descendants, context.now),
            Event::DescendantsCanceled if self.descendants.are_due() => {
                Ok(Some(Record { descendants: Descendants::Done, ..self.clone() }))
            }
            Event::DescendantsCanceled => Ok(None),
            Event::CancelOver => match self.phase {
                Phase::Cancelling => Ok(Some(self.canceled(&self.reason, context.now))),
                _ => Ok(None),
            },
            Event::Purge { reason } => match self.phase {
                Phase::Queued | Phase::Scheduled | Phase::Blocked | Phase::BackingOff => {
                    Ok(Some(self.canceled(reason, context.now)))
                }
                _ => Ok(None),
            },
            Event::Forget => match self.phase {
                Phase::Dead => {
                    let mut next = self.canceled("dead letter purged", context.now);
                    // Its end was told, or is being told.
                    next.result_due = self.result_due;
                    next.forget = true;
                    Ok(Some(next))
                }
                _ => Ok(None),
            },
            Event::Requeue { .. } if self.origin.as_ref().is_some_and(|origin| origin.lost) => {
                Err(errors::bad_request("its message left the stream before it was copied"))
            }
            Event::Requeue { blocked } => match self.phase {
                Phase::Dead | Phase::Canceled | Phase::Rejected => {
                    let mut next = self.queued(context.now);
                    if *blocked {
                        next.set_phase(Phase::Blocked);
                        next.queued = Timestamp::ZERO;
                    }
                    next.met = !*blocked && !next.after.is_empty();
                    next.run = next.run.saturating_add(1);
                    next.attempt = 0;
                    next.attempts_before = 0;
                    if let Some(origin) = next.origin.as_mut().filter(|origin| origin.seq > 0) {
                        origin.was = std::mem::take(&mut origin.seq);
                    }
                    next.forget = false;
                    next.excluded.clear();
                    next.questions.clear();
                    next.descendants = Descendants::Apart;
                    next.reason.clear();
                    // Whoever waits for its result waits for this run's.
                    next.result_due = false;
                    // A deadline that has passed already would kill the new run at once.
                    if next.deadline <= context.now {
                        next.deadline = Timestamp::ZERO;
                    }
                    if self.mode.is_pulled() {
                        next.lease = context.random.token(12).into();
                    }
                    Ok(Some(next))
                }
                Phase::Completed => Err(errors::ALREADY_FINISHED.with(self.state.as_str())),
                phase if phase.state().is_final() => Err(errors::ALREADY_FINISHED.with(self.state.as_str())),
                Phase::Queued => Ok(None),
                _ => Err(errors::bad_request("only a failed, canceled or rejected task can be requeued")),
            },
        }
    }

    pub(super) fn next(&self, phase: Phase, now: Timestamp) -> Record {
        let mut next = self.clone();
        next.set_phase(phase);
        next.updated = now;
        next
    }

    /// Without an agent, ready for one.
    pub(super) fn queued(&self, now: Timestamp) -> Record {
        let mut next = self.unleased(Phase::Queued, now);
        next.wake = Timestamp::ZERO;
        next.queued = now;
        if self.mode.is_pulled() {
            next.attempts_before = next.attempt;
        }
        next
    }

    /// A pull task whose present item is known to have been delivered so often.
    fn counted(&self, delivery: u32) -> Record {
        let attempt = self.attempt.max(self.attempts_before.saturating_add(delivery));
        Record { attempt, ..self.clone() }
    }

    /// The attempt that speaks up. An assignment counted its own when it was made; a pull queue's worker begins without our
    /// knowing, and is a new one when the last that is known has ended.
    pub(super) fn speaking(&self) -> u32 {
        let over = self.fault.as_ref().is_some_and(|fault| fault.attempt == self.attempt);
        let new = self.mode.is_pulled() && (self.attempt == self.attempts_before || over);
        self.attempt.saturating_add(u32::from(new))
    }

    /// The next record without agent and lease; a pull task keeps its lease, which belongs to the run.
    fn unleased(&self, phase: Phase, now: Timestamp) -> Record {
        let mut next = self.next(phase, now);
        next.agent = String::new();
        next.assigned = Timestamp::ZERO;
        if self.mode.is_assigned() {
            next.lease = Rare::default();
        }
        next
    }

    /// Back to the queue as if it had not been assigned: the attempt does not count, and it waits since when it did.
    fn returned(&self, now: Timestamp) -> Record {
        let mut next = self.queued(now);
        next.queued = self.queued;
        next.attempt = next.attempt.saturating_sub(1);
        next
    }

    fn cancel(&self, reason: &str, force: bool, descendants: Descendants, now: Timestamp) -> Outcome {
        let mut next = match self.phase {
            Phase::Canceled => None,
            phase if phase.is_final() => return Err(errors::ALREADY_FINISHED.with(self.state.as_str())),
            Phase::Running if !force && self.mode.is_assigned() => {
                let mut next = self.next(Phase::Cancelling, now);
                next.reason = reason.into();
                Some(next)
            }
            Phase::Cancelling if !force => None,
            _ => Some(self.canceled(reason, now)),
        };
        // A canceled descendant's own are canceled by whoever canceled it.
        let news = match descendants {
            Descendants::Apart => false,
            Descendants::Due => !self.descendants.are_due(),
            Descendants::Forced => self.descendants != Descendants::Forced,
            Descendants::Done => self.descendants == Descendants::Apart,
        };
        if news {
            next.get_or_insert_with(|| self.next(self.phase, now)).descendants = descendants;
        }
        Ok(next)
    }

    pub(super) fn canceled(&self, reason: &str, now: Timestamp) -> Record {
        let mut next = self.unleased(Phase::Canceled, now);
        next.reason = reason.into();
        next.result_due = !self.result_to.is_empty();
        next
    }

    pub(super) fn holds(&self, lease: &str) -> bool {
        !lease.is_empty()
            && self.lease == lease
            && (self.phase.is_leased() || self.phase.is_parked() || (self.mode.is_pulled() && !self.phase.is_final()))
    }

    fn complete(&self, lease: &str, digest: &str, now: Timestamp) -> Outcome {
        if self.holds(lease) {
            let mut next = self.unleased(Phase::Completed, now);
            next.agent = self.agent.clone();
            next.assigned = self.assigned;
            next.completion = Some(Box::new(Completion { lease: lease.to_owned(), digest: digest.to_owned() }));
            next.result_due = !self.result_to.is_empty();
            return Ok(Some(next));
        }
        match &self.completion {
            Some(known) if self.phase == Phase::Completed && known.lease == lease && known.digest == digest => Ok(None),
            _ => Err(errors::LEASE_LOST),
        }
    }

    fn fail(
        &self,
        lease: &str,
        error: &str,
        retry: bool,
        delay: Option<Duration>,
        context: &mut Context<'_>,
    ) -> Outcome {
        if !self.holds(lease) {
            return Err(errors::LEASE_LOST);
        }
        if self.phase == Phase::Cancelling {
            return Ok(Some(self.canceled(&self.reason, context.now)));
        }
        let attempt = self.speaking();
        Ok(Some(Record { attempt, ..self.clone() }.failed(error, retry, delay, context)))
    }

    /// The attempt ended without a result: another one after a pause, or dead.
    fn failed(&self, error: &str, retry: bool, delay: Option<Duration>, context: &mut Context<'_>) -> Record {
        let fault =
            Fault { error: error.to_owned(), agent: self.agent.clone(), attempt: self.attempt, at: context.now };
        let now = context.now;
        let attempt = self.attempt;
        let mut next = if !retry || attempt >= self.max_attempts {
            let mut next = self.unleased(Phase::Dead, now);
            next.reason = if retry { "attempts used" } else { error }.into();
            next.result_due = !self.result_to.is_empty();
            next
        } else {
            let pause = delay.unwrap_or_else(|| context.pauses.delay(attempt, context.random));
            if pause.is_zero() {
                self.queued(now)
            } else {
                let mut next = self.unleased(Phase::BackingOff, now);
                next.wake = now + pause;
                next
            }
        };
        next.fault = Some(Box::new(fault));
        next
    }

    fn decline(&self, lease: &str, others: bool, now: Timestamp) -> Outcome {
        if !self.holds(lease) || self.mode.is_pulled() {
            return Err(errors::LEASE_LOST);
        }
        if self.phase == Phase::Cancelling {
            return Ok(Some(self.canceled(&self.reason, now)));
        }
        let mut next = self.returned(now);
        next.excluded.push(self.agent.clone());
        if !others {
            next.set_phase(Phase::Rejected);
            next.reason = "every matching agent declined".into();
            next.result_due = !self.result_to.is_empty();
        }
        Ok(Some(next))
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
