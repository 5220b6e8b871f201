//! Carries messages to whoever wants them: finds the targets, appends to their outboxes, and wakes each once per flush.
//!
//! Every link has one, and so has every task of the broker that sends messages of its own.

use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;

use super::account::Account;
use super::bridge::{Bridge, REPLY_PREFIX, Sight};
use super::client_state::ClientState;
use super::message_trace::{self, Trace};
use super::meter::{Meter, SubjectCounts};
use super::outbox::Appended;
use super::subscription::{Inbound, Receipt, StreamDoor, Target};
use super::trace;
use crate::router::{Group, Matches};
use crate::types::Message;

/// Subjects a courier remembers the targets of, and targets in all.
const CACHED_SUBJECTS_MAX: usize = 1024;
const CACHED_TARGETS_MAX: usize = 64 * 1024;
/// What the names of those subjects may hold.
const CACHED_NAMES_BYTES_MAX: usize = 128 * 1024;
/// A courier that remembers this many asks more of a new subject: that it comes twice.
const CACHED_AT_ONCE_MAX: usize = 64;
/// Subjects of which it is remembered only that they came. A power of two.
const SEEN_SUBJECTS: usize = 2048;
/// A payload of this size is kept once for all who get it; a smaller one when copies for all would take more than this many
/// bytes.
const SHARED_BYTES_MIN: usize = 64 * 1024;
const COPIES_BYTES_MAX: usize = 1024 * 1024;
/// No payload below this is shared: it would cost more than its copies.
const SHARED_ANYWAY_BYTES_MIN: usize = 8 * 1024;
/// Requests to the broker's own parts count in the memory budget from this size on.
const REQUEST_BYTES_MIN: usize = 1024;
/// A publisher pauses in the midst of its read buffer when it has made so much wait for others.
const BURST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Messages for streams and services are copied into chunks: the first of a publisher is small, each further one larger, up
/// to this size. Whoever keeps a message longer than it takes to store it must not keep the chunk for it.
pub const ARENA_CHUNK_BYTES: usize = 64 * 1024;
const ARENA_CHUNK_BYTES_MIN: usize = 1024;

/// A message on its way to client subscriptions and the broker's own parts.
#[derive(Clone, Copy)]
pub struct Parcel<'a> {
    /// The subject that decides who receives it.
    pub to: &'a [u8],
    /// The subject receivers see; differs from `to` when a consumer delivers a stored message to an inbox.
    pub shown_subject: &'a [u8],
    /// The subject it is stored under, for a message out of a stream; empty for any other. Whoever is denied that subject
    /// does not get it under another one either.
    pub stored_subject: &'a [u8],
    /// Empty for none.
    pub reply: &'a [u8],
    /// Empty for none.
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

/// See the module.
pub struct Courier {
    account: Arc<Account>,
    /// Counts what is sent by subject.
    meter: Option<Arc<Meter>>,
    routes: RouteCache,
    /// Accounts that messages have crossed into, most have none.
    abroad: Vec<(Arc<Account>, RouteCache)>,
    bag: Bag,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivered {
    pub(super) receivers: usize,
    /// A stream took it, and tells the rest of its way.
    pub(super) stored: bool,
}

impl Delivered {
    fn add(&mut self, other: Delivered) {
        self.receivers += other.receivers;
        self.stored |= other.stored;
    }
}

/// Targets by subject, valid for one generation of the router.
#[derive(Default)]
struct RouteCache {
    generation: u64,
    last_subject: Vec<u8>,
    last: Arc<Route>,
    by_subject: HashMap<Box<[u8]>, Arc<Route>>,
    targets: usize,
    names_bytes: usize,
    /// Parts of the hashes of subjects that came once, each in its place; empty until there is a need for it.
    seen: Vec<u16>,
}

/// Where messages on a subject go, and where they are counted.
#[derive(Default)]
struct Route {
    matches: Matches<Target>,
    counts: Option<Arc<SubjectCounts>>,
}

/// What is on its way and not yet announced.
struct Bag {
    origin: Arc<ClientState>,
    /// False for a client that asked not to get its own messages back.
    echo: bool,
    /// Whether the broker's own services listen to what is sent. They do not listen to what the broker sends for others,
    /// answers and deliveries: their subjects are the clients' choice, and the broker may do everything.
    asks: bool,
    /// What is sent shows in no log.
    secret: bool,
    /// Somebody would have got the message at hand but may not have it.
    denied: bool,
    to_wake: Vec<Arc<ClientState>>,
    behind: Option<Arc<ClientState>>,
    for_streams: Vec<StreamBatch>,
    arena: BytesMut,
    /// The size of its next chunk.
    arena_bytes: usize,
    random: u64,
    exhausted: Vec<Arc<super::subscription::Subscription>>,
    /// Bridges that the message at hand has come to.
    bridges: Vec<Arc<Bridge>>,
    /// Headers and payload of the message at hand, once more.
    shared: Shared,
    /// Bytes appended to outboxes since the last flush.
    burst_bytes: usize,
    /// For each stream that stores the message at hand.
    receipt: Option<Receipt>,
}

/// What the receivers of one message share.
enum Shared {
    /// Each gets a copy.
    Nothing,
    /// The first receiver makes it.
    Wanted,
    Body(Bytes),
}

/// An account whose queue groups a message has come to, and how it is called there.
struct Side {
    account: Arc<Account>,
    subject: Vec<u8>,
    traced: bool,
}

struct StreamBatch {
    door: Arc<dyn StreamDoor>,
    messages: Vec<Inbound>,
}

impl Courier {
    /// A courier for messages that `origin` publishes.
    pub fn new(account: Arc<Account>, origin: Arc<ClientState>) -> Courier {
        let is_own = origin.id == 0;
        let seed = origin.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Courier {
            account,
            meter: None,
            routes: RouteCache::default(),
            abroad: Vec::new(),
            bag: Bag {
                origin,
                echo: true,
                asks: !is_own,
                secret: false,
                denied: false,
                to_wake: Vec::new(),
                behind: None,
                for_streams: Vec::new(),
                arena: BytesMut::new(),
                arena_bytes: ARENA_CHUNK_BYTES_MIN,
                random: seed,
                exhausted: Vec::new(),
                bridges: Vec::new(),
                shared: Shared::Nothing,
                burst_bytes: 0,
                receipt: None,
            },
        }
    }

    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The same, counting what it sends by subject where that is asked for.
    pub(super) fn metered(self, meter: Option<&Arc<Meter>>) -> Courier {
        Courier { meter: meter.cloned(), ..self }
    }

    /// Keeps what it sends out of the log.
    pub(super) fn keep_secret(&mut self) {
        self.bag.secret = true;
    }

    pub(super) fn set_echo(&mut self, echo: bool) {
        self.bag.echo = echo;
    }

    /// Hands a message to everyone who wants it and returns how many that are. Receivers learn of it at the next
    /// [`Courier::flush`].
    pub fn send(&mut self, parcel: Parcel<'_>) -> usize {
        self.bag.denied = false;
        let route = self.routes.find(&self.account, parcel.to, self.meter.as_deref());
        let counts = route.counts.clone();
        let mut receivers = self.bag.deliver(&route.matches, parcel);
        if !self.bag.bridges.is_empty() {
            let (account, groups) = (self.account.clone(), route.matches.queues.clone());
            self.bag.end_exhausted(&account);
            receivers += self.cross(&account, parcel, groups, &mut Vec::new(), None).receivers;
        }
        self.bag.end_exhausted(&self.account);
        if let Some(counts) = counts {
            counts.add(parcel.headers.len() + parcel.payload.len(), receivers);
        }
        receivers
    }

    /// Publishes a message and gives each stream that stores it a receipt, at once.
    pub(super) fn publish_with(&mut self, subject: &[u8], payload: &[u8], receipt: Receipt) {
        self.bag.receipt = Some(receipt);
        self.publish(subject, b"", b"", payload);
        self.bag.receipt = None;
    }

    /// Whether the last message sent was kept from somebody who is denied its subject.
    pub fn was_denied(&self) -> bool {
        self.bag.denied
    }

    /// Takes a message that is in `account` over the bridges it has come to, and hands it to one member of each of the
    /// queue groups there: those who import the stream are in the same groups. `crossed` are bridges it has come over
    /// already: none is taken twice. Its way is told to `trace`, as far as those who share it allow.
    #[cold]
    fn cross(
        &mut self,
        account: &Arc<Account>,
        parcel: Parcel<'_>,
        groups: Vec<Group<Target>>,
        crossed: &mut Vec<Arc<Bridge>>,
        trace: Option<&Arc<Trace>>,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        let mut sides = vec![Side { account: account.clone(), subject: parcel.to.to_vec(), traced: true }];
        let joint = |group: Group<Target>, side: usize| {
            let members = group.members.into_iter().map(|member| (member, side)).collect::<Vec<_>>();
            (group.name, members)
        };
        let mut groups: Vec<_> = groups.into_iter().map(|group| joint(group, 0)).collect();
        for bridge in std::mem::take(&mut self.bag.bridges) {
            if crossed.iter().any(|other| Arc::ptr_eq(other, &bridge)) {
                continue;
            }
            let Some(crossing) = bridge.cross(&parcel, &self.bag.origin, crossed.is_empty()) else { continue };
            let sight = trace.map_or(Sight::Unasked, |trace| bridge.sight(trace, &parcel, &crossing));
            if let Sight::Ends { heard } = sight {
                bridge.withdraw(&crossing, false);
                delivered.receivers += usize::from(heard);
                continue;
            }
            let onwards = trace.filter(|_| sight == Sight::Goes);
            let given = crossing.headers.as_deref().unwrap_or(parcel.headers);
            let hidden = (sight != Sight::Unasked && bridge.leads_on()).then(|| message_trace::disabled(given));
            let is_abroad = |known: &(Arc<Account>, RouteCache)| Arc::ptr_eq(&known.0, &crossing.account);
            let at = self.abroad.iter().position(is_abroad).unwrap_or_else(|| {
                self.abroad.push((crossing.account.clone(), RouteCache::default()));
                self.abroad.len() - 1
            });
            let beyond = Parcel {
                to: &crossing.subject,
                // A consumer's delivery keeps the subject that is shown.
                shown_subject: if parcel.shown_subject == parcel.to { &crossing.subject } else { parcel.shown_subject },
                // The name it has there says nothing here.
                stored_subject: b"",
                reply: crossing.reply.as_deref().unwrap_or(parcel.reply),
                headers: hidden.as_deref().unwrap_or(given),
                payload: parcel.payload,
            };
            let (account, routes) = &mut self.abroad[at];
            let matches = &routes.find(account, beyond.to, None).matches;
            if !bridge.leads_on() {
                delivered.add(self.bag.deliver_plain(matches, beyond, onwards));
                self.bag.end_exhausted(&crossing.account);
                self.bag.bridges.clear();
                for (name, members) in matches.queues.iter().map(|group| joint(group.clone(), sides.len())) {
                    match groups.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => known.extend(members),
                        None => groups.push((name, members)),
                    }
                }
                let traced = onwards.is_some();
                sides.push(Side { account: crossing.account, subject: crossing.subject, traced });
                continue;
            }
            let mut found = self.bag.deliver_to_all(matches, beyond, onwards);
            let groups = if self.bag.bridges.is_empty() { Vec::new() } else { matches.queues.clone() };
            self.bag.end_exhausted(&crossing.account);
            if !self.bag.bridges.is_empty() {
                crossed.push(bridge.clone());
                found.add(self.cross(&crossing.account, beyond, groups, crossed, onwards));
                crossed.pop();
            }
            // No answer comes to a message that is only traced.
            let only_traced = onwards.is_some_and(|trace| trace.only);
            if found.receivers == 0 || only_traced {
                bridge.withdraw(&crossing, !only_traced);
            }
            delivered.add(found);
        }
        for (_, members) in &groups {
            let start = self.bag.next_random() as usize % members.len().max(1);
            let (before, after) = members.split_at(start);
            let taken = after.iter().chain(before).any(|(target, side)| {
                let Side { account, subject, traced } = &sides[*side];
                let shown_subject = if parcel.shown_subject == parcel.to { subject } else { parcel.shown_subject };
                let stored_subject = if *side == 0 { parcel.stored_subject } else { b"" };
                let there = Parcel { to: subject, shown_subject, stored_subject, ..parcel };
                let taken = match trace.filter(|_| *traced) {
                    Some(trace) => self.bag.hand_over_traced(target, there, trace),
                    None => self.bag.hand_over(target, there),
                };
                self.bag.end_exhausted(account);
                taken
            });
            delivered.receivers += usize::from(taken);
        }
        delivered
    }

    /// As [`Courier::send`], for a message whose way is told to `trace`.
    #[cold]
    pub(super) fn send_traced(&mut self, parcel: Parcel<'_>, trace: &Arc<Trace>) -> Delivered {
        let route = self.routes.find(&self.account, parcel.to, self.meter.as_deref());
        let counts = route.counts.clone().filter(|_| !trace.only);
        let mut delivered = self.bag.deliver_traced(&route.matches, parcel, trace);
        if !self.bag.bridges.is_empty() {
            let (account, groups) = (self.account.clone(), route.matches.queues.clone());
            self.bag.end_exhausted(&account);
            delivered.add(self.cross(&account, parcel, groups, &mut Vec::new(), Some(trace)));
        }
        self.bag.end_exhausted(&self.account);
        if let Some(counts) = counts {
            counts.add(parcel.headers.len() + parcel.payload.len(), delivered.receivers);
        }
        delivered
    }

    /// The usual case of [`Courier::send`]: receivers see the subject it is sent to.
    pub fn publish(&mut self, subject: &[u8], reply: &[u8], headers: &[u8], payload: &[u8]) -> usize {
        if self.bag.origin.id == 0 && trace::is_on() {
            trace::of_the_server(&self.bag.origin, subject, headers, payload);
        }
        self.send(Parcel { to: subject, shown_subject: subject, stored_subject: b"", reply, headers, payload })
    }

    /// As [`Courier::publish`], for a request of the broker's own, which its services and streams listen to.
    pub fn ask(&mut self, subject: &[u8], reply: &[u8], headers: &[u8], payload: &[u8]) -> usize {
        let asked_before = std::mem::replace(&mut self.bag.asks, true);
        let receivers = self.publish(subject, reply, headers, payload);
        self.bag.asks = asked_before;
        receivers
    }

    /// Answers a request with a message that is stored under `stored_subject`.
    pub fn answer_stored(&mut self, reply: &[u8], stored_subject: &[u8], headers: &[u8], payload: &[u8]) -> usize {
        self.send(Parcel { to: reply, shown_subject: reply, stored_subject, reply: b"", headers, payload })
    }

    /// Hands streams their batches and wakes every client that got something.
    pub fn flush(&mut self) {
        self.bag.flush_streams();
        self.bag.burst_bytes = 0;
        for client in self.bag.to_wake.drain(..) {
            client.outbox.wake();
        }
    }

    /// Whether so much waits for the next [`Courier::flush`] that it is due.
    #[inline]
    pub(super) fn is_bursting(&self) -> bool {
        self.bag.burst_bytes > BURST_BYTES_MAX
    }

    /// Waits for one receiver or stream that has fallen behind. Call after [`Courier::flush`]; returns at once when
    /// there is none. Cancel safe.
    pub async fn wait_for_laggards(&mut self) {
        if let Some(client) = self.bag.behind.take() {
            client.outbox.caught_up().await;
        }
        for batch in &self.bag.for_streams {
            if batch.door.is_behind() {
                batch.door.caught_up().await;
            }
        }
        self.bag.for_streams.clear();
    }

    /// Whether [`Courier::wait_for_laggards`] would wait.
    pub fn has_laggards(&self) -> bool {
        self.bag.behind.is_some() || self.bag.for_streams.iter().any(|batch| batch.door.is_behind())
    }

    /// Gives back memory that only a busy courier needs.
    pub fn rest(&mut self) {
        self.routes = RouteCache::default();
        self.abroad = Vec::new();
        self.bag.arena = BytesMut::new();
        self.bag.arena_bytes = ARENA_CHUNK_BYTES_MIN;
        self.bag.for_streams = Vec::new();
        self.bag.to_wake = Vec::new();
    }
}

/// Reply inboxes and acks name a new subject each time. Nobody counts them by subject.
fn is_nameless(subject: &[u8]) -> bool {
    subject.starts_with(b"_INBOX.") || subject.starts_with(b"$JS.ACK.") || subject.starts_with(REPLY_PREFIX)
}

impl RouteCache {
    fn find(&mut self, account: &Account, subject: &[u8], meter: Option<&Meter>) -> &Route {
        let generation = account.generation();
        if self.generation != generation {
            self.forget();
            self.last_subject.clear();
            self.generation = generation;
        } else if self.last_subject == subject {
            return &self.last;
        }
        let nameless = is_nameless(subject);
        if !nameless && let Some(route) = self.by_subject.get(subject) {
            self.last = route.clone();
        } else {
            if Arc::get_mut(&mut self.last).is_none() {
                self.last = Arc::new(Route::default());
            }
            let route = Arc::get_mut(&mut self.last).expect("just made unique");
            account.match_into(subject, &mut route.matches);
            route.counts = meter.filter(|_| !nameless).and_then(|meter| meter.counts_of(&account.label, subject));
            if !nameless && self.comes_again(subject) {
                self.remember(subject);
            }
        }
        self.last_subject.clear();
        self.last_subject.extend_from_slice(subject);
        &self.last
    }

    /// Whether a subject is likely to come again: a subject made for one message would only push out the others.
    fn comes_again(&mut self, subject: &[u8]) -> bool {
        if self.by_subject.len() < CACHED_AT_ONCE_MAX {
            return true;
        }
        if self.seen.is_empty() {
            self.seen = vec![0; SEEN_SUBJECTS];
        }
        let hash = self.by_subject.hasher().hash_one(subject);
        let (place, part) = (hash as usize % SEEN_SUBJECTS, (hash >> 48) as u16 | 1);
        std::mem::replace(&mut self.seen[place], part) == part
    }

    fn remember(&mut self, subject: &[u8]) {
        let names_bytes = self.names_bytes + subject.len();
        if self.by_subject.len() >= CACHED_SUBJECTS_MAX
            || self.targets >= CACHED_TARGETS_MAX
            || names_bytes > CACHED_NAMES_BYTES_MAX
        {
            self.forget();
        }
        let matches = &self.last.matches;
        self.targets += matches.plain.len();
        self.targets += matches.queues.iter().map(|group| group.members.len()).sum::<usize>();
        self.names_bytes += subject.len();
        self.by_subject.insert(subject.into(), self.last.clone());
    }

    fn forget(&mut self) {
        self.by_subject.clear();
        (self.targets, self.names_bytes) = (0, 0);
    }
}

impl Bag {
    fn deliver(&mut self, matches: &Matches<Target>, parcel: Parcel<'_>) -> usize {
        let mut receivers = 0;
        let body_bytes = parcel.headers.len() + parcel.payload.len();
        if body_bytes >= SHARED_ANYWAY_BYTES_MIN
            && (body_bytes >= SHARED_BYTES_MIN || body_bytes * matches.plain.len() > COPIES_BYTES_MAX)
        {
            self.shared = Shared::Wanted;
        }
        for target in &matches.plain {
            receivers += usize::from(self.hand_over(target, parcel));
        }
        // Where there are bridges, the groups have members beyond them: `Courier::cross` sees to them.
        let groups = if self.bridges.is_empty() { &matches.queues[..] } else { &[] };
        for group in groups {
            // A random first member, then the next ones should it be gone.
            let members = &group.members;
            let start = self.next_random() as usize % members.len().max(1);
            for step in 0..members.len() {
                if self.hand_over(&members[(start + step) % members.len()], parcel) {
                    receivers += 1;
                    break;
                }
            }
        }
        self.shared = Shared::Nothing;
        receivers
    }

    fn deliver_to_all(
        &mut self,
        matches: &Matches<Target>,
        parcel: Parcel<'_>,
        trace: Option<&Arc<Trace>>,
    ) -> Delivered {
        match trace {
            None => Delivered { receivers: self.deliver(matches, parcel), stored: false },
            Some(trace) => self.deliver_traced(matches, parcel, trace),
        }
    }

    /// Queue groups apart.
    #[cold]
    fn deliver_plain(
        &mut self,
        matches: &Matches<Target>,
        parcel: Parcel<'_>,
        trace: Option<&Arc<Trace>>,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        for target in &matches.plain {
            let taken = match trace {
                Some(trace) => self.hand_over_traced(target, parcel, trace),
                None => self.hand_over(target, parcel),
            };
            delivered.receivers += usize::from(taken);
            delivered.stored |= trace.is_some() && matches!(target, Target::Stream { door, .. } if door.stores());
        }
        delivered
    }

    #[cold]
    fn deliver_traced(&mut self, matches: &Matches<Target>, parcel: Parcel<'_>, trace: &Arc<Trace>) -> Delivered {
        let mut delivered = self.deliver_plain(matches, parcel, Some(trace));
        let groups = if self.bridges.is_empty() { &matches.queues[..] } else { &[] };
        for group in groups {
            let start = self.next_random() as usize % group.members.len().max(1);
            let (before, after) = group.members.split_at(start);
            let taken = after.iter().chain(before).any(|target| self.hand_over_traced(target, parcel, trace));
            delivered.receivers += usize::from(taken);
        }
        delivered
    }

    fn hand_over(&mut self, target: &Target, parcel: Parcel<'_>) -> bool {
        match target {
            Target::Client(subscription) => {
                let client = &subscription.client;
                if !self.echo && client.id == self.origin.id {
                    return false;
                }
                if !subscription.may_receive(&parcel) {
                    self.denied = true;
                    return false;
                }
                subscription.note_reply(parcel.reply);
                if matches!(self.shared, Shared::Wanted) {
                    self.shared = Shared::Body(client.outbox.memory().share_bytes(&[parcel.headers, parcel.payload]));
                }
                let shared = match &self.shared {
                    Shared::Body(body) => Some(body),
                    _ => None,
                };
                self.burst_bytes += if shared.is_some() { parcel.shown_subject.len() } else { parcel.payload.len() };
                match client.outbox.append_message(subscription, &parcel, shared, self.secret) {
                    Appended::First => self.to_wake.push(client.clone()),
                    Appended::More => {}
                    Appended::Behind => {
                        if self.behind.is_none() && client.id != self.origin.id {
                            self.behind = Some(client.clone());
                        }
                    }
                    Appended::Refused => return false,
                }
                if subscription.is_exhausted() {
                    self.exhausted.push(subscription.clone());
                }
                true
            }
            Target::Bridge(bridge) => {
                self.bridges.push(bridge.clone());
                false
            }
            Target::Stream { door, .. } => {
                if !self.asks && !door.stores() {
                    return false;
                }
                let inbound = self.inbound(parcel);
                if let Some(receipt) = self.receipt.clone() {
                    self.flush_streams();
                    door.publish_with(inbound, receipt);
                    return true;
                }
                let is_same = |batch: &&mut StreamBatch| std::ptr::addr_eq(Arc::as_ptr(&batch.door), Arc::as_ptr(door));
                match self.for_streams.iter_mut().find(is_same) {
                    Some(batch) => batch.messages.push(inbound),
                    None => {
                        self.for_streams.push(StreamBatch { door: door.clone(), messages: vec![inbound] });
                    }
                }
                true
            }
            Target::Service { service, .. } => {
                if !service.takes(parcel.to) || !self.asks && !service.takes_answers() {
                    return false;
                }
                let to = if service.takes_answers() { parcel.shown_subject } else { parcel.to };
                let mut inbound = self.inbound(Parcel { to, ..parcel });
                if parcel.headers.len() + parcel.payload.len() >= REQUEST_BYTES_MIN {
                    let body = self.origin.outbox.memory().share_bytes(&[to, parcel.headers, parcel.payload]);
                    inbound.message = Message::from_parts(body, to.len(), parcel.headers.len());
                }
                // A request must see what the same client published before it.
                self.flush_streams();
                service.call(inbound);
                true
            }
        }
    }

    /// Ends subscriptions that have had all they asked for.
    fn end_exhausted(&mut self, account: &Account) {
        for subscription in self.exhausted.drain(..) {
            account.unsubscribe(&subscription);
        }
    }

    fn flush_streams(&mut self) {
        for batch in self.for_streams.iter_mut() {
            if !batch.messages.is_empty() {
                batch.door.publish(std::mem::take(&mut batch.messages));
            }
        }
    }

    /// Copies a parcel for the broker's own parts, many to one allocation.
    fn inbound(&mut self, parcel: Parcel<'_>) -> Inbound {
        let body_bytes = parcel.to.len() + parcel.headers.len() + parcel.payload.len();
        let needed = body_bytes + parcel.reply.len();
        if self.arena.capacity() < needed {
            self.arena = BytesMut::with_capacity(needed.max(self.arena_bytes));
            self.arena_bytes = (self.arena_bytes * 4).min(ARENA_CHUNK_BYTES);
        }
        self.arena.extend_from_slice(parcel.to);
        self.arena.extend_from_slice(parcel.headers);
        self.arena.extend_from_slice(parcel.payload);
        let body = self.arena.split().freeze();
        let reply = if parcel.reply.is_empty() {
            Bytes::new()
        } else {
            self.arena.extend_from_slice(parcel.reply);
            self.arena.split().freeze()
        };
        Inbound {
            message: Message::from_parts(body, parcel.to.len(), parcel.headers.len()),
            reply,
            client: self.origin.clone(),
            trace: None,
        }
    }

    /// As [`Bag::hand_over`], telling `trace` of it. Parts of the broker get nothing that is only to be traced, but for
    /// streams, which say what they would do.
    fn hand_over_traced(&mut self, target: &Target, parcel: Parcel<'_>, trace: &Arc<Trace>) -> bool {
        match target {
            Target::Client(subscription) => {
                let error = if !self.echo && subscription.client.id == self.origin.id {
                    message_trace::NO_ECHO
                } else if !subscription.may_receive(&parcel) {
                    message_trace::DENIED
                } else if trace.only || self.hand_over(target, parcel) {
                    ""
                } else {
                    message_trace::CLOSED
                };
                trace.egress(subscription, error);
                error.is_empty()
            }
            Target::Stream { door, .. } if door.stores() => {
                let block = message_trace::disabled(parcel.headers);
                let inbound = self.inbound(Parcel { headers: &block, ..parcel });
                self.flush_streams();
                door.publish(vec![Inbound { trace: Some(trace.clone()), ..inbound }]);
                true
            }
            // What other accounts share is looked at there.
            Target::Bridge(_) => self.hand_over(target, parcel),
            _ => !trace.only && self.hand_over(target, parcel),
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::AccountRole;
    use super::*;

    #[test]
    fn long_subjects_fill_no_cache() {
        let account = Account::new("A", AccountRole::Ordinary);
        let mut cache = RouteCache::default();
        for round in 0..3 {
            for number in 0..CACHED_SUBJECTS_MAX {
                let subject = format!("{number}.{}", "s".repeat(4000));
                for _ in 0..2 {
                    cache.last_subject.clear();
                    cache.find(&account, subject.as_bytes(), None);
                }
                let held: usize = cache.by_subject.keys().map(|subject| subject.len()).sum();
                assert_eq!(held, cache.names_bytes, "{round}");
                assert!(held <= CACHED_NAMES_BYTES_MAX, "{held}");
            }
        }
        assert!(!cache.by_subject.is_empty());
    }
}
