//! Answers that an account's services owe to other accounts, and the watch over those that are measured: whether they come
//! in time, and whether somebody still waits for them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::Notify;

use super::account::Account;
use super::bridge::{Crossing, REPLY_PREFIX};
use super::latency::{Measure, Outcome};
use crate::auth::{Route, ServiceResponses};
use crate::types::{Timestamp, id, subject};

/// Outstanding answers to one account that asks, and what they may hold. The oldest are forgotten for more, and only that
/// account's: it takes nothing from others.
const ANSWERS_MAX: usize = 64 * 1024;
const ANSWERS_BYTES_MAX: usize = 16 << 20;
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
    /// By where the account that asks is in memory: it stays there as long as there are answers to it.
    askers: HashMap<usize, Asker>,
    /// Where measured ones go, and the subjects they are to come on.
    measured: BTreeSet<(Name, Name)>,
    /// Measured ones that perhaps nobody waits for any more.
    doubted: Vec<Name>,
    /// When the first measured one may be overdue.
    due: Option<Timestamp>,
    watched: bool,
}

/// What is owed to one account.
#[derive(Default)]
struct Asker {
    count: usize,
    bytes: usize,
    /// The subjects of its answers, the oldest first, with some that have gone.
    in_order: VecDeque<Name>,
}

struct Answer {
    to: Weak<Account>,
    reply: Name,
    responses: ServiceResponses,
    wait: Duration,
    until: Timestamp,
    measure: Option<Box<Measure>>,
    doubted: bool,
    /// One of several has come since it was the oldest.
    goes_on: bool,
}

impl Answer {
    fn asker(&self) -> usize {
        self.to.as_ptr() as usize
    }

    fn weight_bytes(&self, subject: &[u8]) -> usize {
        2 * subject.len() + self.reply.len() + size_of::<(Name, Name, Answer)>()
    }
}

impl Owed {
    fn remove(&mut self, subject: &[u8]) -> Option<Answer> {
        let (subject, answer) = self.by_subject.remove_entry(subject)?;
        self.count_off(&subject, &answer);
        if answer.measure.is_some() {
            self.measured.remove(&(answer.reply.clone(), subject));
        }
        Some(answer)
    }

    fn insert(&mut self, subject: &[u8], answer: Answer) {
        let asker = self.askers.entry(answer.asker()).or_default();
        asker.count += 1;
        asker.bytes += answer.weight_bytes(subject);
        // Those that have gone are no more than those that are there.
        if asker.in_order.len() > 2 * asker.count + 64 {
            asker.in_order.retain(|subject| self.by_subject.contains_key(subject));
        }
        asker.in_order.push_back(subject.into());
        self.by_subject.insert(subject.into(), answer);
    }

    fn count_off(&mut self, subject: &[u8], answer: &Answer) {
        let at = answer.asker();
        let Some(asker) = self.askers.get_mut(&at) else { return };
        asker.count -= 1;
        asker.bytes -= answer.weight_bytes(subject);
        if asker.count == 0 {
            self.askers.remove(&at);
        }
    }

    /// Forgets the oldest answers to the account at `asker` until there is room for another one of `bytes`.
    fn make_room(&mut self, asker: usize, bytes: usize) {
        while let Some(known) = self.askers.get_mut(&asker)
            && (known.count >= ANSWERS_MAX || known.bytes + bytes > ANSWERS_BYTES_MAX)
            && let Some(oldest) = known.in_order.pop_front()
        {
            match self.by_subject.get_mut(&oldest) {
                Some(answer) if answer.goes_on => {
                    answer.goes_on = false;
                    known.in_order.push_back(oldest);
                }
                Some(_) => drop(self.remove(&oldest)),
                None => {}
            }
        }
    }

    /// Forgets answers that are late, but for measured ones, which are told of first.
    fn forget_late(&mut self, now: Timestamp) {
        let is_late = |answer: &Answer| answer.until <= now && answer.measure.is_none();
        let Owed { by_subject, askers, .. } = self;
        by_subject.retain(|subject, answer| {
            if !is_late(answer) {
                return true;
            }
            if let Some(asker) = askers.get_mut(&answer.asker()) {
                asker.count -= 1;
                asker.bytes -= answer.weight_bytes(subject);
            }
            false
        });
        askers.retain(|_, asker| asker.count > 0);
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
            goes_on: false,
        };
        let mut owed = self.lock();
        // Growing is when to look for those that nobody waits for any more.
        if owed.by_subject.len() == owed.by_subject.capacity() {
            owed.forget_late(now);
        }
        owed.make_room(answer.asker(), answer.weight_bytes(&subject));
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
        owed.insert(&subject, answer);
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
        answer.goes_on = true;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::AccountRole;

    fn answer(to: &Arc<Account>, reply_bytes: usize) -> Answer {
        Answer {
            to: Arc::downgrade(to),
            reply: vec![b'r'; reply_bytes].into(),
            responses: ServiceResponses::One,
            wait: Duration::from_secs(60),
            until: Timestamp::now() + Duration::from_secs(60),
            measure: None,
            doubted: false,
            goes_on: false,
        }
    }

    fn add(owed: &mut Owed, subject: &str, answer: Answer) {
        owed.make_room(answer.asker(), answer.weight_bytes(subject.as_bytes()));
        owed.insert(subject.as_bytes(), answer);
    }

    #[test]
    fn whoever_asks_much_pushes_out_its_own_oldest_answers_only() {
        let account = |name: &str| Arc::new(Account::new(name, AccountRole::Ordinary));
        let (loud, quiet) = (account("loud"), account("quiet"));
        let mut owed = Owed::default();
        add(&mut owed, "quiet", answer(&quiet, 10));
        add(&mut owed, "going", Answer { goes_on: true, ..answer(&loud, 10) });
        for number in 0..20_000 {
            add(&mut owed, &format!("loud.{number}"), answer(&loud, 4000));
        }
        let bytes =
            |owed: &Owed, of: &Arc<Account>| owed.askers.get(&(Arc::as_ptr(of) as usize)).map(|asker| asker.bytes);
        assert!(bytes(&owed, &loud).unwrap() <= ANSWERS_BYTES_MAX);
        assert!(owed.by_subject.len() > 3000 && owed.by_subject.len() < 5000, "{}", owed.by_subject.len());
        let has = |owed: &Owed, subject: &str| owed.by_subject.contains_key(subject.as_bytes());
        assert!(has(&owed, "quiet") && has(&owed, "loud.19999") && !has(&owed, "loud.0"));
        // What goes must not leave its order behind.
        for number in 20_000..200_000 {
            let subject = format!("loud.{number}");
            add(&mut owed, &subject, answer(&loud, 10));
            assert!(owed.remove(subject.as_bytes()).is_some());
        }
        assert!(owed.askers[&(Arc::as_ptr(&loud) as usize)].in_order.len() < 20_000);
        let subjects: Vec<Name> = owed.by_subject.keys().cloned().collect();
        subjects.iter().for_each(|subject| drop(owed.remove(subject)));
        assert!(owed.askers.is_empty());
    }
}
