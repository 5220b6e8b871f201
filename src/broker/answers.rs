//! Answers that an account's services owe to other accounts, and the watch over those that are measured: whether they come
//! in time, and whether somebody still waits for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::Notify;

use super::account::Account;
use super::bridge::{Crossing, REPLY_PREFIX};
use super::latency::{Measure, Outcome};
use crate::auth::{Route, ServiceResponses};
use crate::types::{Timestamp, id, subject};

/// Outstanding answers of one account. The oldest are forgotten for more.
const ANSWERS_MAX: usize = 64 * 1024;
/// How much later than due an overdue answer may be told of, so that many are looked for at once.
const OVERDUE_SLACK: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Default)]
pub(super) struct Answers {
    owed: Mutex<Owed>,
    /// Wakes whoever watches over measured ones.
    watcher: Arc<Notify>,
}

/// A subject.
type Name = Box<[u8]>;

#[derive(Default)]
struct Owed {
    by_subject: HashMap<Name, Answer>,
    /// Where measured ones go, and the subjects they are to come on.
    measured: BTreeSet<(Name, Name)>,
    /// Measured ones that perhaps nobody waits for any more.
    doubted: Vec<Name>,
    /// When the first measured one may be overdue.
    due: Option<Timestamp>,
    watched: bool,
}

struct Answer {
    to: Weak<Account>,
    reply: Name,
    responses: ServiceResponses,
    wait: Duration,
    until: Timestamp,
    measure: Option<Box<Measure>>,
    doubted: bool,
}

impl Owed {
    fn remove(&mut self, subject: &[u8]) -> Option<Answer> {
        let (subject, answer) = self.by_subject.remove_entry(subject)?;
        if answer.measure.is_some() {
            self.measured.remove(&(answer.reply.clone(), subject));
        }
        Some(answer)
    }
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reply subject of `at`, whose answers these are, for a request from another account.
    pub(super) fn expect(
        &self,
        at: &Arc<Account>,
        from: &Arc<Account>,
        reply: &[u8],
        route: &Route,
        measure: Option<Box<Measure>>,
    ) -> Vec<u8> {
        let now = Timestamp::now();
        let subject = [REPLY_PREFIX, id::unique().as_bytes()].concat();
        let until = now + route.response_wait;
        let is_measured = measure.is_some();
        let answer = Answer {
            to: Arc::downgrade(from),
            reply: reply.into(),
            responses: route.responses,
            wait: route.response_wait,
            until,
            measure,
            doubted: false,
        };
        let mut owed = self.lock();
        let all = &mut owed.by_subject;
        // Growing is when to look for those that nobody waits for any more. Measured ones are told of first.
        if all.len() == all.capacity() || all.len() >= ANSWERS_MAX {
            all.retain(|_, answer| answer.until > now || answer.measure.is_some());
        }
        if all.len() >= ANSWERS_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, answer)| answer.until).map(|(subject, _)| subject.clone())
        {
            owed.remove(&oldest);
        }
        if is_measured {
            owed.measured.insert((reply.into(), subject.as_slice().into()));
            let is_sooner = owed.due.is_none_or(|due| until < due);
            if is_sooner {
                owed.due = Some(until);
            }
            if !owed.watched {
                owed.watched = true;
                tokio::spawn(watch(Arc::downgrade(at), self.watcher.clone()));
            } else if is_sooner {
                self.watcher.notify_one();
            }
        }
        owed.by_subject.insert(subject.as_slice().into(), answer);
        subject
    }

    /// Where an answer goes on, and what is measured with it: without the one it is overdue.
    pub(super) fn find(&self, subject: &[u8], is_end: bool) -> (Option<Crossing>, Option<Box<Measure>>) {
        let now = Timestamp::now();
        let mut owed = self.lock();
        let Some(answer) = owed.by_subject.get_mut(subject) else { return (None, None) };
        let account = answer.to.upgrade().filter(|_| answer.until > now);
        let crossing =
            account.map(|account| Crossing { account, subject: answer.reply.to_vec(), reply: None, headers: None });
        if crossing.is_none() || answer.responses == ServiceResponses::One || is_end {
            return (crossing, owed.remove(subject).and_then(|answer| answer.measure));
        }
        answer.until = now + answer.wait;
        (crossing, None)
    }

    pub(super) fn forget(&self, subject: &[u8]) -> Option<Box<Measure>> {
        self.lock().remove(subject)?.measure
    }

    /// Subscriptions on `filter` have come or gone in an account that asks here.
    pub(super) fn doubt(&self, filter: &[u8]) {
        let mut owed = self.lock();
        let Owed { by_subject, measured, doubted, .. } = &mut *owed;
        if measured.is_empty() {
            return;
        }
        let before = doubted.len();
        let mut add = |subject: &[u8]| {
            if let Some(answer) = by_subject.get_mut(subject).filter(|answer| !answer.doubted) {
                answer.doubted = true;
                doubted.push(subject.into());
            }
        };
        if subject::has_wildcard(filter) {
            let matching = measured.iter().filter(|(reply, _)| subject::matches(filter, reply));
            matching.for_each(|(_, subject)| add(subject));
        } else {
            let first: (Name, Name) = (filter.into(), Box::default());
            let matching = measured.range(first..).take_while(|(reply, _)| **reply == *filter);
            matching.for_each(|(_, subject)| add(subject));
        }
        if doubted.len() > before {
            self.watcher.notify_one();
        }
    }

    /// Tells of measured answers that nobody waits for any more or that are overdue. Returns when to look again; `None`
    /// when nothing is measured, and the watch is over.
    fn review(&self) -> Option<Timestamp> {
        let doubted = {
            let mut owed = self.lock();
            let Owed { by_subject, doubted, .. } = &mut *owed;
            let look = |subject: Name| {
                let answer = by_subject.get_mut(&subject)?;
                answer.doubted = false;
                Some((subject, answer.to.clone(), answer.reply.clone()))
            };
            std::mem::take(doubted).into_iter().filter_map(look).collect::<Vec<_>>()
        };
        for (subject, to, reply) in doubted {
            if !to.upgrade().is_some_and(|account| account.has_interest(&reply))
                && let Some(measure) = self.forget(&subject)
            {
                measure.tell(&Outcome::Lost);
            }
        }
        let (overdue, next) = {
            let mut owed = self.lock();
            let now = Timestamp::now();
            let mut overdue = Vec::new();
            if owed.due.is_some_and(|due| due <= now) {
                let is_late = |answer: &Answer| answer.measure.is_some() && answer.until <= now;
                let late = owed.by_subject.iter().filter(|(_, answer)| is_late(answer));
                let late: Vec<Name> = late.map(|(subject, _)| subject.clone()).collect();
                overdue = late.iter().filter_map(|subject| owed.remove(subject)?.measure).collect();
                let rest = owed.by_subject.values().filter(|answer| answer.measure.is_some());
                owed.due = rest.map(|answer| answer.until).min();
            }
            if owed.measured.is_empty() {
                (owed.watched, owed.due) = (false, None);
            }
            (overdue, owed.due)
        };
        overdue.iter().for_each(|measure| measure.tell(&Outcome::Overdue));
        next
    }
}

/// Watches over the measured answers of an account while there are any.
async fn watch(account: Weak<Account>, watcher: Arc<Notify>) {
    loop {
        let next = account.upgrade().and_then(|account| account.answers.review());
        let Some(next) = next else { return };
        let pause = next.since(Timestamp::now()) + OVERDUE_SLACK;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = watcher.notified() => {}
        }
    }
}
