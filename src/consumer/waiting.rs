//! Pull requests in waiting, served in turn: each takes one message and goes to the back of the queue.

use std::collections::VecDeque;

use bytes::Bytes;

use super::config::PriorityPolicy;
use super::output::Output;
use super::pull::{Priority, PullRequest};
use crate::types::GoDuration;
use crate::types::Timestamp;

/// A request in waiting.
#[derive(Debug)]
struct Waiting {
    reply: Bytes,
    /// Messages still wanted; as the client sent it, so it can be negative.
    wanted: i64,
    delivered: u64,
    /// Bytes still wanted, 0 for any number.
    bytes: i64,
    expires: Option<Timestamp>,
    heartbeat: Option<Heartbeat>,
    no_wait: bool,
    priority: Option<Box<Priority>>,
    /// The state of interest it was last seen in.
    interest_generation: u64,
    /// What it holds.
    weight: usize,
}

/// What those in waiting may hold: far more than the usual `max_waiting` of the longest replies. nats-server has no such bound.
const WEIGHT_MAX: usize = 4 << 20;

#[derive(Debug)]
struct Heartbeat {
    every: GoDuration,
    due: Timestamp,
}

/// Who is subscribed, and a number that changes when that may have changed.
pub(super) struct Interest<'a> {
    pub(super) of: &'a dyn Fn(&[u8]) -> bool,
    pub(super) generation: u64,
}

/// What decides which request gets a message.
pub(super) struct Terms {
    pub(super) policy: PriorityPolicy,
    /// Messages not delivered yet, the one at hand included.
    pub(super) pending: u64,
    pub(super) ack_pending: u64,
}

/// The request that gets a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) to: Bytes,
    /// Set when the request is through although bytes were left: messages and bytes it still wanted.
    pub(super) unused: Option<(i64, i64)>,
    pub(super) pin_id: Option<Bytes>,
}

/// The pinned request of the priority group, while there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) id: String,
    pub(super) group: String,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

/// The queue was full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The requests, next one first.
#[derive(Debug)]
pub(super) struct WaitQueue {
    queue: VecDeque<Waiting>,
    max: usize,
    no_wait: usize,
    with_bytes: usize,
    /// What all of them hold.
    weight: usize,
    /// Nothing expires and no heartbeat is due before this.
    due: Timestamp,
    swept_generation: u64,
}

impl WaitQueue {
    pub(super) fn new(max: i64) -> WaitQueue {
        WaitQueue {
            queue: VecDeque::new(),
            max: usize::try_from(max).unwrap_or(0),
            no_wait: 0,
            with_bytes: 0,
            weight: 0,
            due: Timestamp(i64::MAX),
            swept_generation: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= self.max || self.weight >= WEIGHT_MAX
    }

    /// Whether choosing a request needs the message's size.
    pub(super) fn needs_size(&self) -> bool {
        self.with_bytes > 0
    }

    /// When a request expires or wants a heartbeat, at the earliest.
    pub(super) fn due(&self) -> Option<Timestamp> {
        (self.due.0 != i64::MAX && !self.queue.is_empty()).then_some(self.due)
    }

    /// Whether a sweep could send someone home.
    pub(super) fn wants_sweep(&self, end_of_stream: bool, generation: u64, now: Timestamp) -> bool {
        !self.queue.is_empty()
            && ((end_of_stream && self.no_wait > 0) || generation != self.swept_generation || self.due < now)
    }

    pub(super) fn push(&mut self, pull: PullRequest, policy: PriorityPolicy, now: Timestamp) -> Result<(), Full> {
        if self.is_full() {
            return Err(Full);
        }
        let expires = (!pull.expires.is_zero()).then(|| after(now, pull.expires));
        let heartbeat = (pull.idle_heartbeat.0 > 0)
            .then(|| Heartbeat { every: pull.idle_heartbeat, due: after(now, pull.idle_heartbeat) });
        for due in [expires, heartbeat.as_ref().map(|heartbeat| heartbeat.due)].into_iter().flatten() {
            self.due = self.due.min(due);
        }
        self.no_wait += usize::from(pull.no_wait);
        self.with_bytes += usize::from(pull.max_bytes > 0);
        // Without a policy nobody looks at it, and it may be as large as a message.
        let priority = pull.priority.filter(|_| !policy.is_none()).map(Box::new);
        let names = priority.as_ref().map_or(0, |priority| priority.group.len() + priority.pin_id.len());
        let weight = size_of::<Waiting>() + pull.reply.len() + names;
        self.weight += weight;
        let waiting = Waiting {
            // A copy of its own: the original may lie in a large buffer, and may wait for days.
            reply: Bytes::copy_from_slice(&pull.reply),
            wanted: pull.batch,
            delivered: 0,
            // As nats-server has it, less than nothing is no limit.
            bytes: pull.max_bytes.max(0),
            expires,
            heartbeat,
            no_wait: pull.no_wait,
            priority,
            weight,
            // Interest in a reply can arrive on another connection than its request, so the first look is a real one.
            interest_generation: 0,
        };
        self.insert(waiting, policy);
        Ok(())
    }

    fn insert(&mut self, waiting: Waiting, policy: PriorityPolicy) {
        if policy != PriorityPolicy::Prioritized {
            self.queue.push_back(waiting);
            return;
        }
        let rank = |waiting: &Waiting| waiting.priority.as_ref().map_or(i64::MAX, |priority| priority.priority);
        let at = self.queue.partition_point(|other| rank(other) <= rank(&waiting));
        self.queue.insert(at, waiting);
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.forget(&waiting);
        Some(waiting)
    }

    fn forget(&mut self, waiting: &Waiting) {
        self.weight -= waiting.weight;
        self.no_wait -= usize::from(waiting.no_wait);
        self.with_bytes -= usize::from(waiting.bytes_limited());
    }

    /// Gives one message of `size` bytes to the request whose turn it is. Requests found expired, deserted or too small
    /// are sent home on the way. `None` when nobody wants the message now.
    pub(super) fn next(
        &mut self,
        size: i64,
        terms: &Terms,
        pin: &mut Pinning,
        interest: &Interest,
        now: Timestamp,
        out: &mut VecDeque<Output>,
    ) -> Option<Turn> {
        let mut passed_over = 0;
        let needs_pin = terms.policy == PriorityPolicy::PinnedClient && pin.current.is_none();
        while let Some(waiting) = self.queue.front_mut() {
            if waiting.expires.is_some_and(|expires| expires <= now) {
                self.send_home(408, "Request Timeout", out);
                continue;
            }
            let mut pinned_here = false;
            if terms.policy == PriorityPolicy::PinnedClient {
                let id = waiting.priority.as_ref().map_or("", |priority| priority.pin_id.as_str());
                let held = pin.current.as_ref().map_or("", |pin| pin.id.as_str());
                if needs_pin && pin.current.is_none() && id.is_empty() {
                    pinned_here = pin.assign(waiting.priority.as_deref_mut(), now, out);
                } else if !id.is_empty() && id != held {
                    self.send_home(423, "Nats-Wrong-Pin-Id", out);
                    continue;
                } else if id.is_empty() {
                    if self.pass_over(&mut passed_over) {
                        return None;
                    }
                    continue;
                }
            }
            let overflow = terms.policy == PriorityPolicy::Overflow;
            if overflow && waiting.priority.as_deref().is_some_and(|priority| !overflows(priority, terms)) {
                if self.pass_over(&mut passed_over) {
                    return None;
                }
                continue;
            }
            if waiting.bytes > 0 && size > waiting.bytes {
                self.send_home(409, "Message Size Exceeds MaxBytes", out);
                if pinned_here {
                    pin.current = None;
                }
                continue;
            }
            if interest.generation == 0 || waiting.interest_generation != interest.generation {
                if !(interest.of)(&waiting.reply) {
                    self.pop();
                    if pinned_here {
                        pin.current = None;
                    }
                    continue;
                }
                waiting.interest_generation = interest.generation;
            }
            return Some(self.serve(size, terms.policy, pin, now));
        }
        None
    }

    /// The front request takes its message and goes to the back, or leaves when it has enough.
    fn serve(&mut self, size: i64, policy: PriorityPolicy, pin: &Pinning, now: Timestamp) -> Turn {
        let waiting = self.queue.front_mut().expect("the caller has looked at it");
        if waiting.bytes > 0 {
            waiting.bytes -= size;
            if waiting.bytes == 0 {
                // Exactly full: this message is the last, and the request still counts as one limited in bytes.
                waiting.wanted = 1;
                waiting.bytes = Waiting::NO_BYTES_LEFT;
            }
        }
        waiting.wanted -= 1;
        waiting.delivered += 1;
        let pin_id = match policy {
            // Without a pin the header is there too, and empty.
            PriorityPolicy::PinnedClient => {
                Some(pin.current.as_ref().map_or(Bytes::new(), |pin| Bytes::from(pin.id.clone())))
            }
            _ => None,
        };
        if waiting.wanted <= 0 {
            let waiting = self.pop().expect("the caller has looked at it");
            let unused = (waiting.bytes > 0).then_some((waiting.wanted, waiting.bytes));
            return Turn { to: waiting.reply, unused, pin_id };
        }
        if let Some(heartbeat) = &mut waiting.heartbeat {
            heartbeat.due = after(now, heartbeat.every);
        }
        let to = waiting.reply.clone();
        if self.queue.len() > 1 {
            let waiting = self.queue.pop_front().expect("there is more than one");
            self.insert(waiting, policy);
        }
        Turn { to, unused: None, pin_id }
    }

    /// Moves the front request to the back; `true` once all have been passed over.
    fn pass_over(&mut self, count: &mut usize) -> bool {
        self.queue.rotate_left(1);
        *count += 1;
        *count >= self.queue.len()
    }

    fn send_home(&mut self, code: u16, text: &str, out: &mut VecDeque<Output>) {
        if let Some(waiting) = self.pop() {
            out.push_back(Output::status_with_rest(
                waiting.reply.clone(),
                code,
                text,
                waiting.wanted,
                waiting.bytes_left(),
            ));
        }
    }

    /// Sends home who has expired, who did not want to wait (when `end_of_stream`) and who is not there any more; sends
    /// heartbeats. Returns how many messages those in waiting want.
    pub(super) fn sweep(
        &mut self,
        end_of_stream: bool,
        interest: &Interest,
        delivered: (u64, u64),
        now: Timestamp,
        out: &mut VecDeque<Output>,
    ) -> i64 {
        let mut wanted = 0i64;
        self.due = Timestamp(i64::MAX);
        self.swept_generation = interest.generation;
        for mut waiting in std::mem::take(&mut self.queue) {
            let expired = waiting.expires.is_some_and(|expires| expires < now);
            if expired {
                self.forget(&waiting);
                let (messages, bytes) = (waiting.wanted, waiting.bytes_left());
                out.push_back(Output::status_with_rest(waiting.reply, 408, "Request Timeout", messages, bytes));
                continue;
            }
            if end_of_stream && waiting.no_wait && (waiting.expires.is_none() || waiting.delivered > 0) {
                self.forget(&waiting);
                out.push_back(Output::status(waiting.reply, 404, "No Messages"));
                continue;
            }
            if interest.generation == 0 || waiting.interest_generation != interest.generation {
                if !(interest.of)(&waiting.reply) {
                    self.forget(&waiting);
                    continue;
                }
                waiting.interest_generation = interest.generation;
            }
            wanted = wanted.saturating_add(waiting.wanted);
            if let Some(heartbeat) = &mut waiting.heartbeat {
                if heartbeat.due < now {
                    out.push_back(Output::heartbeat(waiting.reply.clone(), delivered.0, delivered.1, None));
                    heartbeat.due = after(now, heartbeat.every);
                }
                self.due = self.due.min(heartbeat.due);
            }
            if let Some(expires) = waiting.expires {
                self.due = self.due.min(expires);
            }
            self.queue.push_back(waiting);
        }
        wanted
    }

    /// Takes one message back from the request it went to, which did not get it; `false` when the request is through.
    pub(super) fn credit(&mut self, reply: &[u8]) -> bool {
        let Some(waiting) = self.queue.iter_mut().find(|waiting| waiting.reply == reply) else { return false };
        waiting.wanted += 1;
        waiting.delivered = waiting.delivered.saturating_sub(1);
        true
    }

    /// Empties the queue: the replies, with messages and bytes still wanted.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Bytes, i64, i64)> + '_ {
        (self.no_wait, self.with_bytes, self.weight) = (0, 0, 0);
        self.queue.drain(..).map(|waiting| {
            let bytes = waiting.bytes_left();
            (waiting.reply, waiting.wanted, bytes)
        })
    }
}

impl Waiting {
    const NO_BYTES_LEFT: i64 = -1;

    fn bytes_limited(&self) -> bool {
        self.bytes > 0 || self.bytes == Waiting::NO_BYTES_LEFT
    }

    fn bytes_left(&self) -> i64 {
        self.bytes.max(0)
    }
}

/// The pin of a consumer's priority group, and where new pins come from.
#[derive(Debug)]
pub(super) struct Pinning {
    pub(super) current: Option<Pin>,
    pub(super) ttl: GoDuration,
    /// State of the generator of pin ids; they need only differ from each other.
    pub(super) seed: u64,
}

impl Pinning {
    /// Pins a request, if it names its group.
    fn assign(&mut self, priority: Option<&mut Priority>, now: Timestamp, out: &mut VecDeque<Output>) -> bool {
        let Some(priority) = priority.filter(|priority| !priority.group.is_empty()) else { return false };
        let id = crate::types::id::token(22, || next_random(&mut self.seed));
        priority.pin_id = id.clone();
        let group = priority.group.clone();
        out.push_back(Output::Advisory(super::advisory::Advisory::Pinned { group: group.clone(), pin_id: id.clone() }));
        self.current = Some(Pin { id, group, since: now, until: after(now, self.ttl) });
        true
    }
}

/// One step of splitmix64: for sampling and for ids that must differ but need not be secret.
pub(super) fn next_random(state: &mut u64) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 32) as u32
}

/// Whether there is enough to do for a request that only helps out.
fn overflows(priority: &Priority, terms: &Terms) -> bool {
    let reached = |limit: i64, value: u64| limit > 0 && limit as u64 <= value;
    (priority.min_pending <= 0 && priority.min_ack_pending <= 0)
        || reached(priority.min_pending, terms.pending)
        || reached(priority.min_ack_pending, terms.ack_pending)
}

/// `now` plus a span that may be negative.
pub(super) fn after(now: Timestamp, span: GoDuration) -> Timestamp {
    Timestamp(now.0.saturating_add(span.0))
}
