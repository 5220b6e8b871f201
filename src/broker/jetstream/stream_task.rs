//! The one owner of a stream and its consumers: takes its inbox, changes state, submits rows, delivers.
//!
//! A turn goes: take all commands, let them change the machines, poll consumers, submit what must become durable, wake
//! receivers. While a batch is being written, further turns prepare the next one. The state in memory runs ahead of the
//! disk by the batches in `outstanding`; consumers see messages up to `visible` only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tracing::{error, warn};

use super::commit::{self, Outstanding, Release, Turn};
use super::consumers::Consumers;
use super::contents::Contents;
use super::context::Context;
use super::followers::Followers;
use super::inbox::{self, Command};
use super::log::Log;
use super::receipts::Receipts;
use super::recovery::{self, Rebuilt};
use super::shared::{Home, Shared};
use super::summaries::Summaries;
use super::tail_cache;
use super::world::reads_itself;
use crate::api::StreamInfo;
use crate::broker::Courier;
use crate::consumer::{Closing, ConsumerInfo};
use crate::storage::{Batch, CommitError, ReadError};
use crate::stream::{Removal, Republished, StreamConfig};
use crate::types::{ApiError, Message, StoredMessage, Timestamp};

/// Acks nobody waits for are written at the latest after this; a crash before it means redeliveries, no loss.
const LAZY_WRITE: Duration = Duration::from_millis(20);
/// More unwritten removals than this do not wait.
const LAZY_REMOVALS_MAX: usize = 4096;
/// What an idle stream may keep of its last messages.
const IDLE_TAIL_BYTES: usize = 256 * 1024;
/// How long slow receivers may hold up deliveries at a time. Publishes and acks go on meanwhile.
const LAGGARD_PAUSE: Duration = Duration::from_millis(5);
/// Pause before another try to read a stream back from a store that does not answer.
const REBUILD_RETRY: Duration = Duration::from_millis(250);

/// What a stream looks like, for lists and monitoring.
pub(super) struct Report {
    pub(super) info: StreamInfo,
    pub(super) consumers: Vec<ConsumerInfo>,
}

/// Why a stream's task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The stream has been deleted.
    Deleted,
    /// The server stops.
    Stopped,
}

/// See the module.
pub(super) struct StreamTask {
    pub(super) context: Arc<Context>,
    pub(super) shared: Arc<Shared>,
    pub(super) contents: Contents,
    pub(super) consumers: Consumers,
    /// Messages up to here are durable.
    pub(super) visible: u64,
    pub(super) courier: Courier,
    pub(super) turn: Turn,
    pub(super) outstanding: VecDeque<Outstanding>,
    pub(super) ending: Option<Ending>,
    summaries: Summaries,
    next_ticket: u64,
    incarnation: u64,
    commands: Vec<Command>,
    /// A commit failed: nothing changes until the stream has been read back.
    failed: Option<CommitError>,
    stash: Vec<Command>,
    /// Nothing is submitted while some are held.
    pub(super) receipts: Receipts,
    /// The end of a message was told when streams that would have kept that may have stopped: nothing is submitted any more.
    pub(super) untold: bool,
    pub(super) followers: Followers,
    /// Which batches of a source are taken; see [`super::sourcing`].
    pub(super) epochs: HashMap<Arc<str>, u64>,
    pub(super) next_epoch: u64,
}

impl StreamTask {
    pub(super) fn new(shared: Arc<Shared>, rebuilt: Rebuilt, incarnation: u64) -> StreamTask {
        let context = shared.context.clone();
        let mut task = StreamTask {
            courier: context.courier(),
            shared,
            visible: rebuilt.stream.index().last_seq(),
            summaries: Summaries::new(&rebuilt.stream, &rebuilt.summarized, Timestamp::now()),
            contents: Contents::new(rebuilt.stream, rebuilt.log, context.account.clone(), &context.broker.memory),
            consumers: Consumers::default(),
            turn: Turn::default(),
            outstanding: VecDeque::new(),
            ending: None,
            next_ticket: 1,
            incarnation,
            commands: Vec::new(),
            failed: None,
            stash: Vec::new(),
            receipts: Receipts::default(),
            untold: false,
            followers: Followers::default(),
            epochs: HashMap::new(),
            next_epoch: incarnation << 32,
            context,
        };
        for consumer in rebuilt.consumers {
            let stored = !consumer.config().memory_storage;
            task.admit(consumer, stored);
        }
        task.update_gauges();
        task
    }

    /// Works until the stream or the server ends.
    pub(super) async fn run(mut self) -> Ending {
        loop {
            let now = Timestamp::now();
            let busy = self.take_turn(now);
            if let Some(ending) = self.ending
                && self.outstanding.is_empty()
                && !self.receipts.are_awaited(now)
            {
                self.turn_away();
                return ending;
            }
            if self.failed.is_some() && self.outstanding.is_empty() {
                self.rebuild().await;
                continue;
            }
            if self.courier.has_laggards() {
                // Receivers are behind. What arrives is still taken, so that only deliveries wait.
                let shared = self.shared.clone();
                tokio::select! {
                    () = self.courier.wait_for_laggards() => {}
                    () = tokio::time::sleep(LAGGARD_PAUSE) => {}
                    () = shared.inbox.ready() => {}
                }
                continue;
            }
            if busy {
                tokio::task::yield_now().await;
                continue;
            }
            if self.outstanding.is_empty() {
                self.contents.tail.shrink(IDLE_TAIL_BYTES);
            }
            let deadline = self.next_deadline();
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep(deadline.since(Timestamp::now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.inbox.ready() => {}
                () = self.receipts.back() => {}
                () = due => {}
            }
        }
    }

    /// One turn; true when there is more to do at once.
    fn take_turn(&mut self, now: Timestamp) -> bool {
        let mut commands = std::mem::take(&mut self.commands);
        if self.failed.is_none() && !self.stash.is_empty() {
            commands.append(&mut self.stash);
        }
        let mut fresh = Vec::new();
        self.shared.inbox.take(&mut fresh);
        commands.append(&mut fresh);
        // What is due comes before what arrives: after a restart the log's last time tells what has fired.
        if self.failed.is_none() && self.contents.stream.has_due_schedule(now) {
            self.pass_time(now);
        }
        for command in commands.drain(..) {
            self.handle(command, now);
        }
        self.commands = commands;
        if self.failed.is_some() {
            self.courier.flush();
            return false;
        }
        self.pass_time(now);
        let busy = if self.ending.is_none() { self.deliver(now) } else { false };
        self.submit(now);
        self.courier.flush();
        self.update_gauges();
        // An answer that had waited for a commit may have come after what this turn sent off.
        busy || self.consumers.has_ready() || self.turn.is_urgent() && !self.receipts.are_awaited(now)
    }

    fn handle(&mut self, command: Command, now: Timestamp) {
        if let Command::Committed { incarnation, ticket, result } = command {
            if incarnation == self.incarnation {
                self.committed(ticket, result, now);
            }
            return;
        }
        if self.failed.is_some() {
            self.stash.push(match command {
                // There is no telling when it will be submitted.
                Command::PublishWith { batch, .. } => Command::Publish(batch),
                command => command,
            });
            return;
        }
        match command {
            Command::Publish(batch) => self.publish(batch, now),
            Command::PublishWith { batch, receipt } => {
                self.publish(batch, now);
                // Two that wait for each other would do so for ever.
                if !self.receipts.are_awaited(now) {
                    self.turn.receipts.push(receipt);
                }
            }
            Command::Acks(batch) => self.acks(batch, now),
            Command::Pulls(batch) => self.pulls(batch, now),
            Command::FlowControl(batch) => self.flow_control(batch, now),
            Command::DirectGets(batch) => {
                for request in batch {
                    self.shared.inbox.release(inbox::weight_bytes(&request));
                    self.direct_get(request, 0);
                }
            }
            Command::Call(call) => self.call(*call, now),
            Command::Interest(news) => self.interest(&news.taken(), now),
            Command::Update { config, done } => {
                if let Err(error) = self.check_consumers_within(&config) {
                    let _ = done.send(Err(error));
                    return;
                }
                self.update(config, now);
                self.turn.releases.push(Release::Done(Box::new(move |result| {
                    let _ = done.send(result);
                })));
            }
            Command::Report { consumers, done } => {
                let _ = done.send(self.report(consumers, now));
            }
            Command::Follow(follow) => self.follow(*follow),
            Command::Unfollow { id } => self.unfollow(id),
            Command::Standing { source, reply } => self.standing(source, reply),
            Command::Taken(taken) => self.take_from_origin(*taken, now),
            Command::Backup { consumers, denied, done } => self.begin_backup(consumers, &denied, done),
            Command::Delete { done } => self.delete(done),
            Command::Stop => self.stop(),
            Command::Committed { .. } => unreachable!("handled above"),
        }
    }

    /// What time alone brings about.
    fn pass_time(&mut self, now: Timestamp) {
        if self.contents.stream.next_deadline().is_some_and(|deadline| deadline <= now) {
            let before = self.turn.changes.removes.len();
            self.change(|stream, world, changes| stream.handle_expiry(now, world, changes));
            self.tell_removed(before);
        }
        self.consumers.touch_due(now);
    }

    /// Tells consumers of the removals that `changes` got since it had `before` of them.
    pub(super) fn tell_removed(&mut self, before: usize) {
        let removals = &self.turn.changes.removes[before..];
        if !removals.is_empty() {
            self.consumers.removed(removals, self.contents.stream.index());
        }
    }

    fn next_deadline(&mut self) -> Option<Timestamp> {
        let lazy = self.receipts.deadline().or(self.turn.lazy_since.map(|since| since + LAZY_WRITE));
        // Summaries wait for everything else.
        let quiet = self.outstanding.is_empty() && lazy.is_none() && matches!(self.contents.log, Log::Disk { .. });
        let summary = self.summaries.next_deadline().filter(|_| quiet);
        [self.contents.stream.next_deadline(), self.consumers.next_deadline(), lazy, summary]
            .into_iter()
            .flatten()
            .min()
    }

    /// Submits what somebody waits for, or what has waited long enough.
    fn submit(&mut self, now: Timestamp) {
        self.announce_abandoned(now);
        if !self.turn.is_urgent() {
            let pending = !self.turn.changes.is_empty() || self.consumers.has_dirty();
            if !pending {
                return self.summarize(now);
            }
            let since = *self.turn.lazy_since.get_or_insert(now);
            if now.since(since) < LAZY_WRITE
                && self.turn.changes.removes.len() < LAZY_REMOVALS_MAX
                && self.ending.is_none()
            {
                return;
            }
        }
        self.end_unpolled(now);
        if self.untold {
            // As if the server had ended a moment ago.
            self.receipts = Receipts::default();
            self.consumers.take_dirty();
            return self.fail_turn(&CommitError::Closed);
        }
        if self.receipts.are_awaited(now) {
            return;
        }
        let mut turn = std::mem::take(&mut self.turn);
        match self.contents.log.clone() {
            Log::Disk { store, id } => {
                let mut batch = Batch::with_capacity(turn.changes.puts.len() + turn.ops.len() + 4);
                commit::stream_ops(id, &self.contents.stream, &turn.changes, &mut batch);
                self.summaries.follow(id, &self.contents.stream, &turn.changes, now, &mut batch);
                for op in turn.ops.drain(..) {
                    batch.push(op);
                }
                if self.ending != Some(Ending::Deleted) {
                    commit::consumer_ops(id, &mut self.consumers, self.ending.is_some(), &mut batch);
                }
                if batch.is_empty() {
                    return self.attach(turn, now);
                }
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                let republished = std::mem::take(&mut turn.changes.republished);
                let unwanted =
                    self.consumers.is_empty() && republished.is_empty() && !reads_itself(self.contents.stream.config());
                let puts = if unwanted { Vec::new() } else { std::mem::take(&mut turn.changes.puts) };
                let (mut waiters, mut releases) = (turn.waiters, turn.releases);
                if !republished.is_empty() {
                    // What is published again comes before the PubAck.
                    releases.insert(0, Release::PubAcks(std::mem::take(&mut waiters)));
                }
                self.outstanding.push_back(Outstanding {
                    ticket,
                    last_seq: self.contents.stream.index().last_seq(),
                    puts,
                    republished,
                    releases,
                    weight: turn.weight,
                });
                let (shared, incarnation) = (self.shared.clone(), self.incarnation);
                store.submit(batch, move |result| {
                    // First the task: what a publisher asks for after its PubAck must find its message.
                    let committed = Command::Committed { incarnation, ticket, result: result.clone() };
                    shared.acknowledge_after(|| shared.inbox.push(committed), &waiters, &result);
                });
            }
            Log::Memory(log) => {
                let mut messages = log.lock();
                for put in &mut turn.changes.puts {
                    // A copy of its own: the original shares a large buffer with messages that may be gone soon.
                    let own = Message::new(put.message.subject(), put.message.headers(), put.message.payload());
                    put.message = own;
                    messages.insert(put.seq, put.clone());
                }
                for removal in &turn.changes.removes {
                    match *removal {
                        Removal::One { seq, .. } => {
                            messages.remove(&seq);
                        }
                        Removal::Range { from, to, .. } => {
                            let mut rest = messages.split_off(&from);
                            if let Some(after) = to.checked_add(1) {
                                messages.append(&mut rest.split_off(&after));
                            }
                        }
                    }
                }
                drop(messages);
                // Rows of consumers exist in memory only.
                for place in self.consumers.take_dirty() {
                    if let Some(slot) = self.consumers.get(place) {
                        let _ = slot.consumer.changes();
                    }
                }
                self.republish(&turn.changes.puts, &turn.changes.republished);
                self.shared.acknowledge(&turn.waiters, &Ok(()));
                self.shared.inbox.release(turn.weight);
                self.make_visible(self.contents.stream.index().last_seq(), turn.changes.puts, now);
                self.release(turn.releases, Ok(()), now);
            }
        }
    }

    /// Writes a summary that is due, while nothing else changes.
    fn summarize(&mut self, now: Timestamp) {
        let Log::Disk { store, id } = &self.contents.log else { return };
        if self.ending.is_some() || !self.outstanding.is_empty() {
            return;
        }
        let mut batch = Batch::new();
        self.summaries.write_due(*id, &self.contents.stream, now, &mut batch);
        if batch.is_empty() {
            return;
        }
        let (shared, incarnation, ticket) = (self.shared.clone(), self.incarnation, self.next_ticket);
        self.next_ticket += 1;
        self.outstanding.push_back(Outstanding {
            ticket,
            last_seq: self.contents.stream.index().last_seq(),
            puts: Vec::new(),
            republished: Vec::new(),
            releases: Vec::new(),
            weight: 0,
        });
        store.submit(batch, move |result| shared.inbox.push(Command::Committed { incarnation, ticket, result }));
    }

    /// Lets answers without rows of their own wait for the last batch under way, or sends them.
    fn attach(&mut self, turn: Turn, now: Timestamp) {
        let releases = std::iter::once(Release::PubAcks(turn.waiters)).chain(turn.releases);
        match self.outstanding.back_mut() {
            Some(last) => {
                last.releases.extend(releases);
                last.weight += turn.weight;
            }
            None => {
                self.shared.inbox.release(turn.weight);
                let releases = releases.collect();
                self.release(releases, Ok(()), now);
            }
        }
    }

    fn committed(&mut self, ticket: u64, result: Result<(), CommitError>, now: Timestamp) {
        let batch = self.outstanding.pop_front().expect("every submitted batch is outstanding until it is committed");
        assert_eq!(batch.ticket, ticket, "batches are committed in the order of their submission");
        self.shared.inbox.release(batch.weight);
        match result {
            Ok(()) => {
                if self.failed.is_none() {
                    self.republish(&batch.puts, &batch.republished);
                    self.make_visible(batch.last_seq, batch.puts, now);
                }
                self.release(batch.releases, Ok(()), now);
            }
            Err(error) => {
                if let CommitError::Full { .. } = error {
                    self.context.tell_out_of_storage(&self.shared.name);
                }
                if self.failed.is_none() {
                    error!(stream = %self.shared.name, %error, "a commit failed; reading the stream back from the store");
                    self.fail_turn(&error);
                    self.failed = Some(error.clone());
                }
                self.release(batch.releases, Err(commit::api_error(&error)), now);
            }
        }
    }

    /// What was not submitted yet rests on what was lost.
    fn fail_turn(&mut self, error: &CommitError) {
        let turn = std::mem::take(&mut self.turn);
        self.shared.acknowledge(&turn.waiters, &Err(error.clone()));
        self.shared.inbox.release(turn.weight);
        self.release(turn.releases, Err(commit::api_error(error)), Timestamp::now());
    }

    /// Publishes stored messages again, now that they are durable and before anybody hears so: who asks another stream for
    /// them after a PubAck finds them there.
    fn republish(&mut self, puts: &[StoredMessage], republished: &[Republished]) {
        if republished.is_empty() {
            return;
        }
        let config = self.contents.stream.config();
        let headers_only = config.republish.as_ref().is_some_and(|republish| republish.headers_only);
        let mut puts = puts.iter();
        for again in republished {
            let stored = puts.find(|put| put.seq == again.seq).expect("what is published again has been stored");
            let headers = again.headers(&self.shared.name, stored, headers_only);
            let payload = if headers_only { &[] } else { stored.message.payload() };
            self.courier.publish(&again.to, b"", &headers, payload);
        }
        self.courier.flush();
    }

    fn make_visible(&mut self, last_seq: u64, mut puts: Vec<StoredMessage>, _now: Timestamp) {
        let before = self.visible;
        self.visible = before.max(last_seq);
        self.feed_followers();
        if self.consumers.is_empty() {
            return;
        }
        let index = self.contents.stream.index();
        if puts.is_empty() && before < self.visible {
            // Submitted when there was no consumer. Those that have come since stand at `before`.
            let seqs = index.seqs(before + 1).take_while(|&seq| seq <= last_seq);
            let messages = seqs.filter_map(|seq| Some((seq, &**index.subject_of(seq)?)));
            self.consumers.appended(messages, index);
        } else {
            self.consumers.appended(puts.iter().map(|put| (put.seq, put.message.subject())), index);
        }
        tail_cache::pack(&mut puts);
        for put in puts {
            self.contents.tail.push(put);
        }
    }

    /// Carries out what has waited for a commit.
    pub(super) fn release(&mut self, releases: Vec<Release>, result: Result<(), ApiError>, now: Timestamp) {
        for release in releases {
            match release {
                Release::PubAcks(waiters) => {
                    let result = if result.is_ok() { Ok(()) } else { Err(CommitError::Stale) };
                    self.shared.acknowledge(&waiters, &result);
                }
                Release::Respond { request, headers, body, failed } => match &result {
                    Ok(()) => self.context.respond_with(&mut self.courier, &request, &headers, &body, failed),
                    Err(error) => {
                        let kind = super::call::kind_of(&request);
                        let body = crate::api::error_response(kind, error);
                        self.context.respond(&mut self.courier, &request, &body, true);
                    }
                },
                Release::Found { request, stored_subject, body } => {
                    let error = match &result {
                        Ok(()) => match self.context.respond_found(&mut self.courier, &request, &stored_subject, &body)
                        {
                            true => continue,
                            // Who may not have it is told what it would be told if there were none.
                            false => &ApiError::NO_MESSAGE_FOUND,
                        },
                        Err(error) => error,
                    };
                    let body = crate::api::error_response(super::call::kind_of(&request), error);
                    self.context.respond(&mut self.courier, &request, &body, true);
                }
                Release::Empty { to } => {
                    if result.is_ok() {
                        self.courier.publish(&to, b"", b"", b"");
                    }
                }
                Release::Deliver { place, serial, delivery } => {
                    if result.is_ok() {
                        self.deliver_late(place, serial, &delivery, now);
                    }
                }
                Release::DirectGet { request, tries } => self.direct_get(request, tries),
                Release::Again(call) => self.call(call, now),
                Release::Done(done) => done(result.clone()),
            }
        }
    }

    /// Reads everything back after a failed commit, for as long as it takes.
    async fn rebuild(&mut self) {
        loop {
            match recovery::rebuild(&self.shared) {
                Ok(Some(rebuilt)) => {
                    self.contents = Contents::new(
                        rebuilt.stream,
                        rebuilt.log,
                        self.context.account.clone(),
                        &self.context.broker.memory,
                    );
                    self.visible = self.contents.stream.index().last_seq();
                    self.summaries = Summaries::new(&self.contents.stream, &rebuilt.summarized, Timestamp::now());
                    self.send_home(Closing::Shutdown);
                    self.consumers = Consumers::default();
                    for consumer in rebuilt.consumers {
                        self.admit(consumer, true);
                    }
                    self.epochs.clear();
                    self.failed = None;
                    warn!(stream = %self.shared.name, "the stream serves again");
                    return;
                }
                Ok(None) => {
                    // The commit that failed was the stream's own creation, or its deletion went through after all.
                    self.failed = None;
                    self.ending = Some(Ending::Deleted);
                    return;
                }
                Err(ReadError::Closed) => {
                    self.failed = None;
                    self.ending = Some(Ending::Stopped);
                    return;
                }
                Err(error) => {
                    warn!(stream = %self.shared.name, %error, "cannot read the stream back yet");
                    self.refuse_stash();
                    tokio::time::sleep(REBUILD_RETRY).await;
                    let mut fresh = Vec::new();
                    self.shared.inbox.take(&mut fresh);
                    self.stash.append(&mut fresh);
                }
            }
        }
    }

    /// Publishers get their answer even while the store does not.
    fn refuse_stash(&mut self) {
        let error = self.failed.clone().unwrap_or(CommitError::Stale);
        let mut kept = Vec::new();
        for command in std::mem::take(&mut self.stash) {
            let Command::Publish(batch) = command else {
                kept.push(command);
                continue;
            };
            let waiters: Vec<_> = batch
                .iter()
                .filter(|inbound| !inbound.reply.is_empty())
                .map(|inbound| commit::Waiter { reply: inbound.reply.clone(), answer: commit::Answer::Stored(0) })
                .collect();
            self.shared.acknowledge(&waiters, &Err(error.clone()));
            self.shared.inbox.release(batch.iter().map(inbox::weight_bytes).sum());
        }
        self.stash = kept;
    }

    fn stop(&mut self) {
        self.ending = Some(Ending::Stopped);
        self.send_home(Closing::Shutdown);
        self.consumers.touch_all();
    }

    /// Tells those who came too late that there is no stream any more.
    fn turn_away(&mut self) {
        let mut commands = std::mem::take(&mut self.stash);
        self.shared.inbox.take(&mut self.commands);
        commands.append(&mut self.commands);
        for command in commands {
            if let Command::Call(call) = command {
                self.context.api.end();
                let body = crate::api::error_response(super::call::kind_of(&call.request), &ApiError::STREAM_NOT_FOUND);
                self.context.respond(&mut self.courier, &call.request, &body, true);
            }
        }
        self.courier.flush();
    }

    fn delete(&mut self, done: tokio::sync::oneshot::Sender<Result<(), ApiError>>) {
        let now = Timestamp::now();
        for name in self.consumers.names() {
            self.end_consumer(name.as_bytes(), Closing::Deleted, now);
        }
        // Nothing of the stream needs to be written any more but its end.
        self.turn.changes.clear();
        self.turn.ops.clear();
        if let Home::Disk { id, .. } = self.shared.home {
            self.turn.ops.push(crate::storage::Op::DropStream { stream: id });
        }
        self.turn.releases.push(Release::Done(Box::new(move |result| {
            let _ = done.send(result);
        })));
        self.ending = Some(Ending::Deleted);
    }

    fn update(&mut self, config: Arc<StreamConfig>, now: Timestamp) {
        let before = self.turn.changes.removes.len();
        self.change(|stream, world, changes| stream.handle_update(config.clone(), world, now, changes));
        self.epochs.clear();
        self.tell_removed(before);
        if self.shared.config().retention != config.retention {
            // How to follow depends on it: followers hear of their end and come again.
            self.followers = Followers::default();
        }
        self.interest_lost();
        if let Home::Disk { id, .. } = self.shared.home {
            self.turn.ops.push(recovery::put_stream(id, &self.context.account.name, &config, self.shared.created));
        }
        self.shared.set_config(config);
    }

    fn announce_abandoned(&mut self, now: Timestamp) {
        for batch in std::mem::take(&mut self.turn.changes.abandoned_batches) {
            let reason = match batch.reason {
                crate::stream::AbandonReason::Timeout => "timeout",
                crate::stream::AbandonReason::Large => "large",
                crate::stream::AbandonReason::Incomplete => "incomplete",
                crate::stream::AbandonReason::RequirementsNotMet => "unsupported",
            };
            let advisory =
                crate::api::Advisory::BatchAbandoned { stream: &self.shared.name, batch: &batch.batch_id, reason };
            self.context.advise(&mut self.courier, &advisory, now);
        }
    }

    fn update_gauges(&self) {
        let index = self.contents.stream.index();
        self.shared.gauge(index.len(), index.bytes(), self.consumers.len() + self.followers.len());
    }
}
