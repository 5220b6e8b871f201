//! The coordinator's whole state and rules without any I/O: messages and times go in, [`Output`]s come out.
//!
//! A task takes one step at a time: while the batch of one step is on its way, what else happens to the task waits in its
//! line, and other tasks go on. Memory changes and callers are answered only once the batch is acknowledged, so memory never
//! runs ahead of what a restart would find.

mod adopt;
mod agents;
mod answers;
mod assign;
mod blocked;
mod burial;
mod calls;
mod configured;
mod connections;
mod councils;
mod crons;
mod explain;
mod family;
mod history;
mod leases;
mod leaving;
mod letters;
mod page;
mod probes;
mod purge;
mod purge_marks;
mod queries;
mod questions;
mod queues;
mod requests;
mod restore;
mod seats;
mod services;
mod settle;
mod signals;
mod steps;
mod submit;
mod sweep;
mod takeover;
mod watch;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use blocked::Held;
pub use calls::Answer;
use calls::Outstanding;
pub use connections::ConnectionEvent;
use councils::Councils;
use crons::Firing;
use purge::Purge;
use queues::Queue;
pub use requests::{VERBS, VerbStats, needs_assets};
pub use restore::Row;
use signals::Early;

use super::agent::Roster;
use super::cron::Cron;
use super::figures::Figures;
use super::queue::{Adopt, Mode, QueueConfig};
use super::random::Random;
use super::record::{Phase, Record};
use super::scheduler::{Ready, Spot};
use super::task::Event;
use crate::client::{BatchEntry, Incoming};
use crate::types::Timestamp;

/// The coordinator's times and bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long an agent may be without its connection before its tasks go to others.
    pub grace: Duration,
    /// How often an agent without a connection signal beats; three missed beats end it.
    pub heartbeat: Duration,
    /// How often it is looked whether agents still subscribe to their own subjects.
    pub probe: Duration,
    /// How long an assignment may lie unfetched.
    pub accept_timeout: Duration,
    /// How long an agent that is offline stays registered.
    pub agent_kept: Duration,
    /// How often agents, deliveries and calls are looked after.
    pub sweep: Duration,
    /// How long an agent has to confirm a cancel.
    pub cancel_grace: Duration,
    /// How long JetStream has to answer.
    pub call_timeout: Duration,
    /// Payloads of waiting tasks kept in memory; beyond it they are read again when needed.
    pub payload_bytes_max: usize,
    /// The largest task body and result.
    pub body_bytes_max: usize,
    /// All questions and answers of a task together, as a delivery has them.
    pub questions_bytes_max: usize,
    /// Whether connection events are fed in.
    pub presence: bool,
    /// Copies of each stream that it makes.
    pub replicas: usize,
    /// Consumers adopted by configuration, by queue.
    pub adopt: Vec<(String, Adopt)>,
    /// Filters of the subjects that results may be sent to. A task's submitter need not have the right to publish there:
    /// the coordinator publishes with its own.
    pub result_subjects: Vec<String>,
    /// The same for councils: where offers and statuses may be sent to.
    pub council_subjects: Vec<String>,
    /// The server, as INFO names it: client ids are its own.
    pub server_id: String,
    /// Where the watch over the councils' bucket delivers.
    pub watch_subject: String,
}

impl Settings {
    /// How long after its last beat an agent is given up: three have been missed.
    fn beats_patience(&self) -> Duration {
        self.heartbeat * 3
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            grace: Duration::from_secs(5),
            heartbeat: Duration::from_secs(15),
            probe: Duration::from_secs(1),
            accept_timeout: Duration::from_secs(10),
            agent_kept: Duration::from_secs(7 * 86_400),
            sweep: Duration::from_millis(500),
            cancel_grace: Duration::from_secs(30),
            call_timeout: Duration::from_secs(5),
            payload_bytes_max: 64 << 20,
            body_bytes_max: (1 << 20) - (48 << 10),
            questions_bytes_max: 32 << 10,
            presence: false,
            replicas: 1,
            adopt: Vec::new(),
            result_subjects: ["results.>", "_INBOX.>"].map(str::to_owned).to_vec(),
            council_subjects: ["councils.>", "*.councils.>"].map(str::to_owned).to_vec(),
            server_id: String::new(),
            watch_subject: String::new(),
        }
    }
}

/// How long a desk sleeps that has nothing to do.
const IDLE_PAUSE: Duration = Duration::from_secs(3600);

/// What the desk wants sent.
#[derive(Clone, Debug)]
pub enum Output {
    /// A message; its answer, if `call` says that one is wanted, comes back through [`Desk::answer`].
    Publish { subject: Bytes, call: Option<u64>, headers: Vec<u8>, payload: Bytes },
    /// An atomic batch, always answered.
    Batch { call: u64, entries: Vec<BatchEntry> },
    /// A request whose answer comes to a subject of its own, which [`Desk::service_answer`] takes.
    Request { subject: Bytes, reply: Bytes, headers: Vec<u8>, payload: Bytes },
    /// A message to ourselves: it comes back as the answer, behind the answers to all that was sent before it.
    Echo { call: u64 },
}

/// A body with the user's header lines.
#[derive(Clone, Debug, Default)]
struct Parcel {
    lines: String,
    body: Bytes,
}

/// Something that waits to happen to a task.
#[derive(Clone, Debug)]
struct Input {
    event: Event,
    /// The request that asks for it, if one does.
    from: Option<Incoming>,
    /// The purge that does.
    purge: Option<u64>,
}

/// A step whose batch is on its way.
#[derive(Debug)]
struct Step {
    next: Record,
    input: Option<Input>,
    entries: u64,
    /// The place of the assignment in the batch.
    item_at: Option<u64>,
    submitted: bool,
}

/// Why a task takes no further step now.
#[derive(Debug)]
enum Busy {
    Committing(Box<Step>),
    /// Its payload is being read, for the first input in line.
    Fetching,
    /// It is about to be forgotten; the dead message that it is about leaves its stream first.
    Dropping,
    /// Whether the last batch was stored is being found out.
    Reloading(Box<Step>),
}

/// What is known of an agent that was lost before its assignment was stored.
#[derive(Debug)]
struct Loss {
    lease: String,
    /// What its consumer had delivered by then.
    delivered: u64,
}

#[derive(Debug)]
struct Waiter {
    reply: Bytes,
    until: Timestamp,
    /// It waits for the end, whatever is asked.
    past_questions: bool,
}

/// Most are finished and only kept: what those lack takes little room.
#[derive(Debug)]
struct Task {
    record: Record,
    /// Tells this task from another that had its slot.
    serial: u64,
    /// Stream sequence of `s.<id>`; 0 before the first commit.
    revision: u64,
    busy: Option<Busy>,
    line: VecDeque<Input>,
    /// Stream sequence of the live assignment or pull item; 0 when there is none.
    item: u64,
    /// The agent whose slot it holds.
    holder: Option<u32>,
    /// The holder has shown that it has the task.
    seen: bool,
    /// Its agent was lost while the assignment was being stored.
    loss: Option<Box<Loss>>,
    lease_until: Timestamp,
    cancel_until: Timestamp,
    /// Until then it waits for the agent that asked alone, when queued.
    asker_until: Timestamp,
    /// Its place in line, when queued.
    spot: Option<Box<Spot>>,
    /// The earliest timer set for it.
    timer: Timestamp,
    payload: Option<Box<Parcel>>,
    /// The request to a service that its stored lease will allow.
    request: Option<Box<services::Request>>,
    /// The advisory that told of its death, until that is stored.
    advisory: u64,
    /// The cron's time it was submitted for, until that is stored.
    firing: Option<Box<Firing>>,
    /// The accepted result, until its commit is answered and it is sent on.
    result: Option<Box<Parcel>>,
    waiters: Vec<Waiter>,
    /// A step of the coordinator's own failed; try again then.
    retry_at: Timestamp,
}

/// The machine.
pub struct Desk {
    settings: Settings,
    /// The time of the event being handled.
    now: Timestamp,
    random: Random,
    tasks: Vec<Option<Task>>,
    vacant: Vec<u32>,
    ids: HashMap<String, u32>,
    next_serial: u64,
    queues: HashMap<String, Queue>,
    /// What holds for a queue nobody configured.
    default_queue: QueueConfig,
    roster: Roster,
    /// Requests that wait for a registration of their agent; there is a line for each that is under way.
    registering: HashMap<String, VecDeque<Incoming>>,
    ready: Ready,
    /// Blocked tasks by the ids of those they wait for.
    dependents: HashMap<String, BTreeSet<u32>>,
    /// Tasks by the id of their parent.
    children: HashMap<String, BTreeSet<u32>>,
    /// Tasks whose descendants are being canceled.
    families: HashSet<u32>,
    held: Held,
    /// Purges under way.
    purges: HashMap<u64, Purge>,
    /// Purges found by a restart, by queue and revision, until all tasks are known.
    marks: Vec<(String, purge_marks::Mark, u64)>,
    /// What is submitted is later than this.
    purged_until: Timestamp,
    crons: BTreeMap<String, Cron>,
    cron_due: BTreeSet<(Timestamp, String)>,
    /// Requests that wait for a batch of their cron; there is a line for each that has one.
    cron_lines: HashMap<String, VecDeque<Incoming>>,
    councils: Councils,
    timers: BinaryHeap<Reverse<(Timestamp, u32)>>,
    calls: HashMap<u64, Outstanding>,
    next_call: u64,
    /// Live assignments and pull items by stream sequence.
    items: HashMap<u64, u32>,
    early: Vec<Early>,
    /// The highest stream sequence known to be assigned.
    seen_seq: u64,
    connections: HashMap<u64, String>,
    outputs: Vec<Output>,
    verbs: [VerbStats; VERBS.len()],
    next_sweep: Timestamp,
    next_probe: Timestamp,
    probe_round: u32,
    /// A round of probes is under way.
    probing: bool,
    payload_bytes: usize,
    turn: u64,
    figures: Figures,
    services: services::Services,
    adoptions: adopt::Adoptions,
    /// Something may have become assignable.
    schedule: bool,
    /// Nobody takes what is stored.
    store_gone: bool,
    /// When a queue that its rate held back may go on.
    next_token: Option<Timestamp>,
}

impl Desk {
    /// An empty one. `seed` feeds ids, lease tokens and jitter.
    pub fn new(settings: Settings, seed: u64, now: Timestamp) -> Desk {
        let next_sweep = now + settings.sweep;
        Desk {
            settings,
            now,
            random: Random::new(seed),
            tasks: Vec::new(),
            vacant: Vec::new(),
            ids: HashMap::new(),
            next_serial: 1,
            queues: HashMap::new(),
            default_queue: QueueConfig::default(),
            roster: Roster::default(),
            registering: HashMap::new(),
            ready: Ready::default(),
            dependents: HashMap::new(),
            children: HashMap::new(),
            families: HashSet::new(),
            held: Held::default(),
            purges: HashMap::new(),
            marks: Vec::new(),
            purged_until: Timestamp::ZERO,
            crons: BTreeMap::new(),
            cron_due: BTreeSet::new(),
            cron_lines: HashMap::new(),
            councils: Councils::default(),
            timers: BinaryHeap::new(),
            calls: HashMap::new(),
            next_call: 1,
            items: HashMap::new(),
            early: Vec::new(),
            seen_seq: 0,
            connections: HashMap::new(),
            outputs: Vec::new(),
            verbs: std::array::from_fn(|_| VerbStats::default()),
            next_sweep,
            next_probe: Timestamp::ZERO,
            probe_round: 0,
            probing: false,
            payload_bytes: 0,
            turn: 0,
            figures: Figures::default(),
            services: services::Services::default(),
            adoptions: adopt::Adoptions::default(),
            schedule: false,
            store_gone: false,
            next_token: None,
        }
    }

    /// Whether a step found nobody who keeps the buckets. What is in memory is then worth nothing.
    pub fn store_is_gone(&self) -> bool {
        self.store_gone
    }

    /// What has been counted so far. Costs a look at every agent.
    pub fn figures(&self) -> Figures {
        let mut figures = self.figures.clone();
        figures.count_agents(self.roster.iter().map(|(_, agent)| agent.card.status));
        figures
    }

    /// Goes on counting from an earlier life's `figures`. To be called before anything is restored.
    pub fn count_on(&mut self, figures: &Figures) {
        self.figures = figures.begin_anew();
    }

    /// What is to be sent, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`Desk::tick`] is due next.
    pub fn next_deadline(&self) -> Timestamp {
        let sweep = if self.has_to_sweep() { self.next_sweep } else { self.now + IDLE_PAUSE };
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        [timer, self.next_token, self.next_cron(), self.councils.next_due()]
            .into_iter()
            .flatten()
            .fold(sweep, Timestamp::min)
    }

    /// Whether there is anything to look after now and then.
    fn has_to_sweep(&self) -> bool {
        let is_pulled = |queue: &Queue| queue.config.mode == Mode::Pull && queue.open > 0;
        !self.calls.is_empty()
            || !self.early.is_empty()
            || !self.councils.removals.is_empty()
            || self.roster.iter().next().is_some()
            || self.queues.values().any(is_pulled)
            || self.has_services()
            || !self.adoptions.by_queue.is_empty()
            || self.adoptions.stale
            || self.adoptions.unfulfilled
    }

    /// Lets time pass: timers, the sweep, and decisions of the scheduler that earlier events made possible.
    pub fn tick(&mut self, now: Timestamp) {
        self.now = now;
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            self.fire(index, at);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + self.settings.sweep;
            self.sweep();
        }
        self.fire_crons();
        self.tick_councils();
        self.go_on_purging();
        if self.next_token.is_some_and(|at| at <= now) {
            self.schedule = true;
        }
        self.assign_ready();
    }

    fn task(&self, index: u32) -> Option<&Task> {
        self.tasks.get(index as usize)?.as_ref()
    }

    fn task_mut(&mut self, index: u32) -> Option<&mut Task> {
        self.tasks.get_mut(index as usize)?.as_mut()
    }

    /// The task `index` if it is still the one with `serial`.
    fn same_task(&mut self, index: u32, serial: u64) -> Option<&mut Task> {
        self.task_mut(index).filter(|task| task.serial == serial)
    }

    fn insert_task(&mut self, record: Record, revision: u64) -> u32 {
        let serial = self.next_serial;
        self.next_serial += 1;
        let (id, parent) = (record.id.clone(), record.parent.clone());
        self.ready.join(&record.sticky);
        let task = Task {
            record,
            serial,
            revision,
            busy: None,
            line: VecDeque::new(),
            item: 0,
            holder: None,
            seen: false,
            loss: None,
            lease_until: Timestamp::ZERO,
            cancel_until: Timestamp::ZERO,
            asker_until: Timestamp::ZERO,
            spot: None,
            timer: Timestamp::ZERO,
            payload: None,
            request: None,
            advisory: 0,
            firing: None,
            result: None,
            waiters: Vec::new(),
            retry_at: Timestamp::ZERO,
        };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.tasks[index as usize] = Some(task);
                index
            }
            None => {
                self.tasks.push(Some(task));
                (self.tasks.len() - 1) as u32
            }
        };
        self.ids.insert(id, index);
        self.note_child(&parent, index, true);
        index
    }

    fn remove_task(&mut self, index: u32) {
        if let Some(task) = self.tasks.get_mut(index as usize).and_then(Option::take) {
            self.ids.remove(&task.record.id);
            self.ready.leave(&task.record.sticky);
            self.note_child(&task.record.parent, index, false);
            if let Some(spot) = &task.spot {
                self.ready.remove(spot);
            }
            if task.record.phase == Phase::Blocked {
                self.unblock(index, &task.record.after);
            }
            self.items.remove(&task.item);
            self.families.remove(&index);
            self.forget_origin(&task.record, index);
            self.payload_bytes -= task.payload.map_or(0, |parcel| parcel.body.len());
            self.vacant.push(index);
        }
    }

    fn drop_payload(&mut self, index: u32) {
        if let Some(parcel) = self.task_mut(index).and_then(|task| task.payload.take()) {
            self.payload_bytes -= parcel.body.len();
        }
    }

    /// Sets the timer a task needs next.
    fn arm(&mut self, index: u32) {
        let Some(task) = self.tasks.get(index as usize).and_then(Option::as_ref) else { return };
        let retention = self.queue_config(&task.record.queue).retention();
        let Some(due) = task.next_deadline(retention) else { return };
        // Never at once: what is overdue while a step is under way comes up again when that is done.
        let due = due.max(self.now + Duration::from_millis(if task.busy.is_some() { 20 } else { 1 }));
        if task.timer.is_zero() || due < task.timer {
            self.timers.push(Reverse((due, index)));
            if let Some(task) = self.task_mut(index) {
                task.timer = due;
            }
        }
    }
}

impl Task {
    /// The record as it is in effect: an assignment its agent has shown to have is running, stored so or not.
    fn view(&self) -> std::borrow::Cow<'_, Record> {
        if self.seen && self.record.phase == Phase::Assigned {
            let mut record = self.record.clone();
            record.set_phase(Phase::Running);
            std::borrow::Cow::Owned(record)
        } else {
            std::borrow::Cow::Borrowed(&self.record)
        }
    }

    /// The lease it has, or will have once the step under way is stored.
    fn coming_lease(&self) -> &str {
        match &self.busy {
            Some(Busy::Committing(step) | Busy::Reloading(step)) if self.record.lease.is_empty() => &step.next.lease,
            _ => &self.record.lease,
        }
    }

    fn next_deadline(&self, retention: Duration) -> Option<Timestamp> {
        let mut due: Option<Timestamp> = None;
        let mut note = |at: Timestamp| {
            if !at.is_zero() {
                due = Some(due.map_or(at, |due| due.min(at)));
            }
        };
        let record = &self.record;
        match record.phase {
            Phase::Scheduled | Phase::BackingOff => note(record.wake),
            Phase::Assigned | Phase::Running => {
                note(self.lease_until);
                if let Some(timeout) = record.timeout().filter(|_| !record.assigned.is_zero()) {
                    note(record.assigned + timeout);
                }
            }
            Phase::Cancelling => note(self.cancel_until),
            Phase::Queued => note(self.asker_until),
            _ => {}
        }
        if record.phase.is_final() && !record.result_due {
            note(record.kept_until(retention));
        } else if !record.phase.is_final() {
            note(record.deadline);
        }
        note(self.retry_at);
        for waiter in &self.waiters {
            note(waiter.until);
        }
        due
    }
}

#[cfg(test)]
mod agents_tests;
#[cfg(test)]
mod council_simulation;
#[cfg(test)]
mod fencing_tests;
#[cfg(test)]
mod keeping_tests;
#[cfg(test)]
mod leases_tests;
#[cfg(test)]
mod numbers_tests;
#[cfg(test)]
mod offers_tests;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod times_tests;
