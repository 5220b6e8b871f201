//! Questions to JetStream that are under way, and their answers.

use bytes::Bytes;

use super::adopt::Corpse;
use super::agents::{InfoPurpose, Registration};
use super::history::Reading;
use super::purge_marks::Marking;
use super::{Desk, Output};
use crate::client::{BatchEntry, ClientError, Incoming};
use crate::coordinator::cron::{Cron, Times};
use crate::coordinator::queue::QueueConfig;
use crate::types::Timestamp;

/// What a call was for.
#[derive(Debug)]
pub(super) enum Call {
    /// A step's batch.
    Step {
        task: u32,
        serial: u64,
    },
    /// `p.<id>` for the next step.
    Payload {
        task: u32,
        serial: u64,
    },
    /// `s.<id>` after a batch of unknown fate.
    Reload {
        task: u32,
        serial: u64,
    },
    /// What is to be fetched of a task whose record another coordinator wrote.
    Item {
        task: u32,
        serial: u64,
        revision: u64,
        old_item: u64,
    },
    /// `r.<id>` for somebody who waits for it.
    Result {
        task: u32,
        serial: u64,
        reply: Bytes,
    },
    /// `r.<id>` to send it where the submitter wanted it.
    ResultToSend {
        task: u32,
        serial: u64,
        run: u32,
    },
    /// The result was sent there.
    ResultSent {
        task: u32,
        serial: u64,
        run: u32,
    },
    AgentInfo {
        agent: u32,
        instance: String,
        purpose: InfoPurpose,
    },
    AgentConsumer(Box<Registration>),
    AgentCard(Box<Registration>),
    /// A drain, or that it is taken back.
    AgentDrained {
        agent: u32,
        instance: String,
        request: Incoming,
    },
    QueueConsumer {
        queue: String,
        config: Box<QueueConfig>,
        request: Incoming,
    },
    QueueStored {
        queue: String,
        config: Box<QueueConfig>,
        request: Incoming,
    },
    QueueInfo {
        queue: String,
    },
    PurgeMarked(Box<Marking>),
    PurgeUnmarked {
        purged: u64,
        request: Option<Incoming>,
    },
    /// A cron, or its removal.
    Cron {
        name: String,
        cron: Option<Box<Cron>>,
        request: Incoming,
    },
    /// That a cron's task was submitted before.
    CronTimes {
        name: String,
        times: Times,
    },
    /// A change of a council.
    Council {
        name: String,
        serial: u64,
    },
    /// The council after a change of unknown fate.
    CouncilReload {
        name: String,
        serial: u64,
    },
    /// A key of the councils' bucket is deleted.
    CouncilKey {
        key: String,
        revision: u64,
    },
    CouncilWatch {
        consumer: String,
    },
    /// Does anybody listen to an agent's own subject?
    Probe {
        agent: u32,
        instance: String,
    },
    /// The same, because somebody wants its id.
    ProbeRival(Box<Registration>),
    /// What we have sent ourselves behind these.
    ProbesOver {
        probes: Vec<u64>,
    },
    /// `d.<queue>.<id>` for somebody who reads it.
    Letter {
        request: Incoming,
    },
    /// Which services are there; everybody answers.
    Discovery,
    /// The stream of advisories.
    Advisories {
        update: bool,
    },
    NextAdvisory,
    AdoptedStream {
        queue: String,
    },
    AdoptedConsumer {
        queue: String,
    },
    AdoptedScan {
        queue: String,
    },
    AdoptedCopy {
        queue: String,
    },
    /// A dead message, for its letter.
    Corpse {
        queue: String,
        corpse: Corpse,
    },
    /// `p.<id>` of a letter's message, to publish it again.
    RepublishBody {
        task: u32,
        serial: u64,
    },
    /// It was.
    Republished {
        task: u32,
        serial: u64,
    },
    /// The dead message of a letter that is purged left its stream.
    Dropped {
        task: u32,
        serial: u64,
    },
    /// The next change of a task, for HISTORY.
    History(Box<Reading>),
    /// Housekeeping whose failure the next sweep or restart mends.
    Unimportant,
}

#[derive(Debug)]
pub(super) struct Outstanding {
    pub call: Call,
    pub until: Timestamp,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub enum Answer {
    Message(Incoming),
    /// No answer; whether the call took effect is unknown.
    Lost(ClientError),
    /// It was never sent.
    Unsent(ClientError),
}

impl Answer {
    pub(super) fn reason(&self) -> String {
        match self {
            Answer::Message(message) => String::from_utf8_lossy(message.payload()).into_owned(),
            Answer::Lost(error) | Answer::Unsent(error) => error.to_string(),
        }
    }
}

/// How much longer than for others is waited for the answer to a step.
const STEP_PATIENCE: u32 = 6;

impl Desk {
    pub(super) fn open_call(&mut self, call: Call) -> u64 {
        let id = self.next_call;
        self.next_call += 1;
        // A nats-server takes some milliseconds for each batch, and whether a late one is stored takes asking.
        let patience = if matches!(call, Call::Step { .. }) { STEP_PATIENCE } else { 1 };
        self.calls.insert(id, Outstanding { call, until: self.now + self.settings.call_timeout * patience });
        id
    }

    pub(super) fn call_api(&mut self, call: Call, api: &str, body: &serde_json::Value) {
        let call = self.open_call(call);
        let payload = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let subject = Bytes::from(format!("$JS.API.{api}"));
        self.outputs.push(Output::Publish { subject, call: Some(call), headers: Vec::new(), payload });
    }

    pub(super) fn call_direct_get(&mut self, call: Call, key: &str) {
        self.call_api(
            call,
            &format!("STREAM.MSG.GET.{}", crate::coordinator::names::STREAM),
            &serde_json::json!({ "last_by_subj": key }),
        );
    }

    pub(super) fn call_batch(&mut self, call: Call, entries: Vec<BatchEntry>) {
        let call = self.open_call(call);
        self.outputs.push(Output::Batch { call, entries });
    }

    /// Whether somebody waits for something to be stored.
    pub fn is_storing(&self) -> bool {
        let stores = |call: &Call| {
            matches!(
                call,
                Call::Step { .. }
                    | Call::Payload { .. }
                    | Call::Reload { .. }
                    | Call::AgentConsumer(_)
                    | Call::AgentCard(_)
                    | Call::AgentDrained { .. }
                    | Call::QueueConsumer { .. }
                    | Call::QueueStored { .. }
                    | Call::Cron { .. }
                    | Call::PurgeMarked(_)
            )
        };
        self.calls.values().any(|outstanding| stores(&outstanding.call))
    }

    /// Takes the answer of a call; answers nobody waits for any more are ignored.
    pub fn answer(&mut self, call: u64, answer: Answer, now: Timestamp) {
        self.now = now;
        if self.calls.get(&call).is_some_and(|outstanding| matches!(outstanding.call, Call::Discovery)) {
            self.service_heard(&answer);
            if matches!(answer, Answer::Message(_)) {
                return;
            }
        }
        if let Some(outstanding) = self.calls.remove(&call) {
            self.dispatch_answer(outstanding.call, answer);
        }
    }

    /// Ends calls whose time is over.
    pub(super) fn expire_calls(&mut self) {
        let now = self.now;
        let mut late: Vec<u64> =
            self.calls.iter().filter(|(_, outstanding)| outstanding.until <= now).map(|(id, _)| *id).collect();
        late.sort_unstable();
        for id in late {
            self.answer(id, Answer::Lost(ClientError::Timeout), now);
        }
    }

    fn dispatch_answer(&mut self, call: Call, answer: Answer) {
        match call {
            Call::Step { task, serial } => self.step_answered(task, serial, answer),
            Call::Payload { task, serial } => self.payload_answered(task, serial, answer),
            Call::Reload { task, serial } => self.reload_answered(task, serial, answer),
            Call::Item { task, serial, revision, old_item } => {
                self.item_answered(task, serial, revision, old_item, &answer)
            }
            Call::Result { task, serial, reply } => self.result_answered(task, serial, reply, answer),
            Call::ResultToSend { task, serial, run } => self.result_to_send_answered(task, serial, run, answer),
            Call::ResultSent { task, serial, run } => self.result_sent(task, serial, run, answer),
            Call::AgentInfo { agent, instance, purpose } => self.agent_info_answered(agent, instance, purpose, answer),
            Call::AgentConsumer(registration) => self.agent_consumer_answered(*registration, answer),
            Call::AgentCard(registration) => self.agent_card_answered(*registration, answer),
            Call::AgentDrained { agent, instance, request } => self.drain_answered(agent, &instance, &request, &answer),
            Call::QueueConsumer { queue, config, request } => {
                self.queue_consumer_answered(queue, *config, request, answer)
            }
            Call::QueueStored { queue, config, request } => self.queue_stored(queue, *config, request, answer),
            Call::PurgeMarked(marking) => self.purge_marked(*marking, &answer),
            Call::PurgeUnmarked { purged, request } => self.purge_unmarked(purged, request, &answer),
            Call::QueueInfo { queue } => self.queue_info_answered(&queue, answer),
            Call::Cron { name, cron, request } => self.cron_answered(name, cron.map(|cron| *cron), request, answer),
            Call::CronTimes { name, times } => self.cron_times_answered(name, times, &answer),
            Call::Council { name, serial } => self.council_answered(&name, serial, answer),
            Call::CouncilReload { name, serial } => self.council_reloaded(&name, serial, answer),
            Call::CouncilKey { key, revision } => self.removal_answered(&key, revision, &answer),
            Call::CouncilWatch { consumer } => self.watch_answered(&consumer, &answer),
            Call::Probe { agent, instance } => self.probe_answered(agent, &instance, &answer),
            Call::ProbeRival(registration) => self.rival_probed(*registration, &answer),
            Call::ProbesOver { probes } => self.probes_over(probes, &answer),
            Call::Letter { request } => self.letter_answered(&request, answer),
            Call::Advisories { update } => self.advisories_kept(update, &answer),
            Call::NextAdvisory => self.advisory_answered(&answer),
            Call::AdoptedStream { queue } => self.adopted_stream_answered(&queue, &answer),
            Call::AdoptedConsumer { queue } => self.adopted_consumer_answered(&queue, &answer),
            Call::AdoptedScan { queue } => self.scan_answered(&queue, &answer),
            Call::AdoptedCopy { queue } => self.copy_answered(&queue, &answer),
            Call::Corpse { queue, corpse } => self.corpse_answered(&queue, corpse, &answer),
            Call::RepublishBody { task, serial } => self.republish_body_answered(task, serial, &answer),
            Call::Republished { task, serial } => self.republished(task, serial, &answer),
            Call::Dropped { task, serial } => self.dropped(task, serial, &answer),
            Call::History(reading) => self.history_answered(*reading, &answer),
            Call::Discovery | Call::Unimportant => {}
        }
    }
}
