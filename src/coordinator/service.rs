//! The coordinator at work: one task that owns the [`Desk`], feeds it what the broker delivers and sends what it wants sent.
//!
//! Everything arrives through one channel in the connection's order, answers to our own requests included, so the task
//! never waits for one thing while another is due.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::desk::{Answer, ConnectionEvent, Desk, Output, Settings, needs_assets};
use super::figures::Figures;
use super::lead::{self, Beacon, Claim, Heard};
use super::micro::{QUEUE_GROUP, Service};
use super::{Health, assets, names};
use crate::client::{Client, ClientError, Incoming, JetStreamError, Overflow, Status};
use crate::types::{Timestamp, id};

/// Messages that may wait for the coordinator; beyond that the connection's reader waits, and the broker feels it.
const INBOX_MESSAGES: usize = 65_536;
/// Messages handled between two looks at the clock.
const MESSAGES_AT_ONCE: usize = 512;
/// How long to wait before the state is read again.
const PAUSE: Duration = Duration::from_millis(500);
/// Where the watch over the bucket of councils delivers, below our inbox. Subscribed to by its full name: nats-server does
/// not take a wildcard for interest in a consumer's deliveries.
const WATCH: &str = "watch.councils";
/// How long what has begun may take when it ends.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often what is counted is told.
const FIGURES_EVERY: Duration = Duration::from_millis(500);

/// How a coordinator runs.
#[derive(Debug, Default)]
pub struct Options {
    pub settings: Settings,
    /// Connections' beginnings and ends, when the broker tells them. Without it, heartbeats and pulls are the signs of life.
    pub presence: Option<mpsc::Receiver<ConnectionEvent>>,
    /// Where the coordinator tells now and then what it counts; it counts on from what is there.
    pub figures: watch::Sender<Figures>,
    /// Servers of a cluster that keep each of its streams; 0 is one.
    pub replicas: usize,
    /// Where it runs, for people who look who serves.
    pub host: String,
}

/// Why a coordinator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the coordinator cannot subscribe: {0}")]
    Subscribe(#[from] ClientError),
    #[error("the coordinator cannot read its state: {0}")]
    Load(JetStreamError),
    #[error("the coordinator ended while it started: {0}")]
    Ended(String),
}

/// A running coordinator. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Coordinator {
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<String>>,
    health: watch::Receiver<Health>,
}

impl Coordinator {
    /// Starts on `client`, which it then owns in effect: it subscribes to its API and returns once it serves, or stands by
    /// because another one does (see [`Coordinator::health`]). State that the buckets hold is taken up; without buckets
    /// none are made until the first use.
    ///
    /// # Errors
    /// When the state cannot be read or the connection is closed.
    pub async fn start(client: Client, options: Options) -> Result<Coordinator, StartError> {
        let stop = CancellationToken::new();
        let (ready, started) = oneshot::channel();
        let (told, health) = watch::channel(Health::Starting);
        let runner = Runner::new(client, options, stop.clone(), told);
        let task = Some(tokio::spawn(runner.run(ready)));
        let mut coordinator = Coordinator { stop, task, health };
        match started.await {
            Ok(Ok(())) => Ok(coordinator),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Ended(coordinator.ended().await)),
        }
    }

    /// Whether it serves, from now on.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Returns why it ended by itself: a connection that is not made again, or a panic. Cancel safe.
    pub async fn ended(&mut self) -> String {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = task.await;
        self.task = None;
        match ended.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(reason) => reason,
            Err(Ok(panic)) => format!("it panicked: {}", text_of(&*panic)),
            Err(Err(_)) => "its runtime ends".to_owned(),
        }
    }

    /// Stops serving and returns when nothing of it runs any more. Steps under way are found by the next start.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

/// What a panic says.
fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

enum Ended {
    Stopped,
    ConnectionLost,
    /// Its buckets have been deleted, or JetStream is off.
    StoreGone,
    /// One that claimed before it serves.
    Yielded(Claim),
    /// Another one has served as well, and yields.
    Contested,
}

/// What it subscribes to beside its inbox and what a micro service does.
pub(super) fn subscribed() -> Vec<String> {
    let stream = names::STREAM;
    vec![
        format!("$JS.ACK.{stream}.>"),
        format!("$JS.ACK.*.*.{stream}.>"),
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.*.*".to_owned(),
        "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.*.*".to_owned(),
        format!("{}*.*", names::SERVICE_REPLY),
        "$TASK.P.*".to_owned(),
        "$TASK.HB.*".to_owned(),
    ]
}

struct Runner {
    client: Client,
    settings: Settings,
    presence: Option<mpsc::Receiver<ConnectionEvent>>,
    figures: watch::Sender<Figures>,
    figures_due: Timestamp,
    stop: CancellationToken,
    health: watch::Sender<Health>,
    service: Service,
    /// Our reply subjects: this and the number of the call.
    inbox: String,
    batch_prefix: String,
    sender: mpsc::Sender<Incoming>,
    receiver: mpsc::Receiver<Incoming>,
    subscriptions: Vec<u64>,
    assets: bool,
    /// The bucket of councils is there.
    councils: bool,
    replicas: usize,
    claim: Claim,
    beacon: Option<Beacon>,
    /// Connections told of while it stood by.
    connected: BTreeMap<u64, String>,
    /// What was wrong last, to say it once.
    fault: String,
}

impl Runner {
    fn new(client: Client, mut options: Options, stop: CancellationToken, health: watch::Sender<Health>) -> Runner {
        let (sender, receiver) = mpsc::channel(INBOX_MESSAGES);
        options.settings.presence = options.presence.is_some();
        Runner {
            client,
            settings: options.settings,
            presence: options.presence,
            figures: options.figures,
            figures_due: Timestamp::ZERO,
            stop,
            health,
            claim: Claim { id: id::unique(), host: options.host, ..Claim::default() },
            service: Service { id: id::unique(), started: Timestamp::now() },
            inbox: String::new(),
            batch_prefix: String::new(),
            sender,
            receiver,
            subscriptions: Vec::new(),
            assets: false,
            councils: false,
            replicas: options.replicas.max(1),
            beacon: None,
            connected: BTreeMap::new(),
            fault: String::new(),
        }
    }

    /// Serves until told to stop or until the connection is closed for good; returns why it ended.
    async fn run(mut self, ready: oneshot::Sender<Result<(), StartError>>) -> String {
        let mut ready = Some(ready);
        let stop = self.stop.clone();
        let reason = loop {
            let mut status = self.client.watch_status();
            let connected = async { status.wait_for(|status| *status != Status::Disconnected).await.map(|s| *s) };
            let generation = tokio::select! {
                _ = stop.cancelled() => break "stopped".to_owned(),
                status = connected => match status {
                    Ok(Status::Connected { generation }) => generation,
                    _ => break self.client.last_error().unwrap_or_else(|| "its connection was closed".to_owned()),
                },
            };
            if self.beacon.is_none() {
                match self.wait_for_turn(&mut ready).await {
                    Some(true) => {}
                    Some(false) => continue,
                    None => break "stopped".to_owned(),
                }
            }
            let opened = tokio::select! {
                _ = stop.cancelled() => break "stopped".to_owned(),
                opened = self.open() => opened,
            };
            let fault = match (opened, ready.take()) {
                (Err(error), Some(ready)) => {
                    let reason = error.to_string();
                    let _ = ready.send(Err(error));
                    break reason;
                }
                (Err(error), None) => error.to_string(),
                (Ok(mut desk), ready) => {
                    self.figures.send_replace(desk.figures());
                    let before = self.health.send_replace(Health::Serving);
                    if matches!(before, Health::Standby(_)) {
                        tracing::info!("the coordinator that served here is gone: this one serves now");
                    }
                    self.fault.clear();
                    if let Some(beacon) = &self.beacon {
                        beacon.serves();
                    }
                    if let Some(ready) = ready {
                        let _ = ready.send(Ok(()));
                    }
                    let ended = self.serve(&mut desk, generation).await;
                    if !matches!(ended, Ended::ConnectionLost) {
                        self.turn_away(&mut desk).await;
                    }
                    match ended {
                        Ended::Stopped => break "stopped".to_owned(),
                        Ended::ConnectionLost => {
                            self.beacon = None;
                            self.unsubscribe();
                            self.tell_down("its connection was lost");
                            continue;
                        }
                        Ended::Yielded(to) => {
                            self.beacon = None;
                            format!("another one serves here and has claimed that before ({})", to.host)
                        }
                        Ended::Contested if self.presence.is_none() => {
                            self.tell_down("another one has served here at the same time, and yields");
                            continue;
                        }
                        Ended::Contested => "another one has served here at the same time, and yields".to_owned(),
                        Ended::StoreGone => "JetStream does not keep its buckets any more".to_owned(),
                    }
                }
            };
            if self.presence.is_some() {
                // Who is connected is told once, to whoever starts.
                break fault;
            }
            self.unsubscribe();
            self.tell_down(&fault);
            tokio::select! {
                _ = stop.cancelled() => break "stopped".to_owned(),
                () = tokio::time::sleep(PAUSE) => {}
            }
        };
        self.unsubscribe();
        self.beacon = None;
        if matches!(self.client.status(), Status::Connected { .. }) {
            let _ = self.client.flush().await;
        }
        reason
    }

    /// Waits until no other coordinator serves the account; false when the connection is lost meanwhile, `None` when told
    /// to stop.
    async fn wait_for_turn(&mut self, ready: &mut Option<oneshot::Sender<Result<(), StartError>>>) -> Option<bool> {
        let (stop, health) = (self.stop.clone(), self.health.clone());
        let (client, claim) = (self.client.clone(), self.claim.clone());
        let stands_by = |other: &Claim| {
            tracing::info!("another coordinator serves here ({}): this one stands by", other.host);
            health.send_replace(Health::Standby(other.host.clone()));
            if let Some(ready) = ready.take() {
                let _ = ready.send(Ok(()));
            }
        };
        let mut turn = std::pin::pin!(lead::wait_for_turn(&client, &claim, stands_by));
        let outcome = loop {
            tokio::select! {
                _ = stop.cancelled() => return None,
                event = next_connection(&mut self.presence) => match event {
                    Some(ConnectionEvent::Connected { client_id, name }) => {
                        self.connected.insert(client_id, name);
                    }
                    Some(ConnectionEvent::Disconnected { client_id }) => {
                        self.connected.remove(&client_id);
                    }
                    None => self.presence = None,
                },
                outcome = &mut turn => break outcome,
            }
        };
        let lit = outcome.and_then(|()| {
            self.claim = Claim { since: Timestamp::now(), serves: false, ..claim.clone() };
            // A server that embeds its coordinator is not cut in two.
            Beacon::light(&client, self.claim.clone(), !self.settings.presence)
        });
        self.beacon = lit.ok();
        Some(self.beacon.is_some())
    }

    fn tell_down(&mut self, reason: &str) {
        if self.fault != reason {
            self.fault = reason.to_owned();
            tracing::warn!("the coordinator does not serve, and reads its state again: {reason}");
        }
        self.health.send_replace(Health::Down(reason.to_owned()));
    }

    fn unsubscribe(&mut self) {
        for sid in self.subscriptions.drain(..) {
            self.client.unsubscribe(sid);
        }
        while self.receiver.try_recv().is_ok() {}
    }

    /// Leaves in order: what has begun is stored and answered, and those who have asked meanwhile learn that they may ask
    /// again.
    async fn turn_away(&mut self, desk: &mut Desk) {
        // All but the inbox.
        let ending = self.subscriptions.split_off(self.subscriptions.len().min(1));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let flushed = tokio::time::timeout(PATIENCE, self.client.drain(&ending)).await;
        self.subscriptions.extend(ending);
        while let Ok(Ok(())) = flushed {
            while let Ok(message) = self.receiver.try_recv() {
                if !message.subject_str().starts_with(names::API) {
                    self.take(desk, message, Timestamp::now()).await;
                } else if !message.reply().starts_with(b"$") {
                    desk.refuse_unstored(&message, "this coordinator makes room for another or reads its state again");
                }
            }
            self.send(desk);
            if !desk.is_storing() {
                return;
            }
            let next = tokio::time::timeout_at(deadline, self.receiver.recv());
            match next.await {
                Ok(Some(message)) => self.take(desk, message, Timestamp::now()).await,
                _ => return,
            }
        }
    }

    /// Reads the state and subscribes.
    async fn open(&mut self) -> Result<Desk, StartError> {
        self.unsubscribe();
        let unique = id::unique();
        self.inbox = format!("_INBOX.{unique}.");
        self.batch_prefix = unique[..12].to_owned();
        let mut settings = self.settings.clone();
        settings.server_id.clone_from(&self.client.info().server_id);
        settings.replicas = self.replicas;
        settings.watch_subject = format!("{}{WATCH}", self.inbox);
        let max_payload = self.client.info().max_payload;
        if max_payload > 0 {
            // Room for the headers that go along with a body, the answers to an agent's questions among them.
            let room = (48 << 10).min(max_payload / 2);
            settings.body_bytes_max = (max_payload - room).max(1024);
            settings.questions_bytes_max = room / 3 * 2;
        }
        let seed = rand::random::<u64>();
        let mut desk = Desk::new(settings, seed, Timestamp::now());
        desk.count_on(&self.figures.borrow());
        // Without an answer there may be tasks that nobody would take up.
        self.assets = assets::exist(&self.client).await.map_err(StartError::Load)?;
        if !self.assets && !self.settings.adopt.is_empty() {
            assets::create(&self.client, self.replicas).await.map_err(StartError::Load)?;
            self.assets = true;
        }
        if self.assets {
            assets::load(&self.client, &mut desk).await.map_err(StartError::Load)?;
        }
        self.councils = self.assets && assets::have_councils(&self.client).await.map_err(StartError::Load)?;
        if self.councils {
            assets::load_councils(&self.client, &mut desk).await.map_err(StartError::Load)?;
        }
        self.subscribe(&format!("{}*", self.inbox), None)?;
        self.subscribe(&format!("{}{WATCH}", self.inbox), None)?;
        for subject in subscribed().into_iter().chain(self.service.subjects()) {
            self.subscribe(&subject, None)?;
        }
        self.subscribe(&format!("{}>", names::API), Some(QUEUE_GROUP))?;
        self.client.flush().await?;
        desk.restored(Timestamp::now());
        if self.councils {
            desk.watch_councils(Timestamp::now());
        }
        for (client_id, name) in std::mem::take(&mut self.connected) {
            desk.connection(ConnectionEvent::Connected { client_id, name }, Timestamp::now());
        }
        Ok(desk)
    }

    fn subscribe(&mut self, subject: &str, queue: Option<&str>) -> Result<(), ClientError> {
        let sid = self.client.subscribe_into(subject, queue, self.sender.clone(), Overflow::Wait)?;
        self.subscriptions.push(sid);
        Ok(())
    }

    async fn serve(&mut self, desk: &mut Desk, generation: u64) -> Ended {
        let mut status = self.client.watch_status();
        let stop = self.stop.clone();
        let mut messages = Vec::with_capacity(MESSAGES_AT_ONCE);
        let mut figures_behind = true;
        loop {
            let now = Timestamp::now();
            desk.tick(now);
            if figures_behind && now >= self.figures_due {
                self.figures_due = now + FIGURES_EVERY;
                self.figures.send_replace(desk.figures());
                figures_behind = false;
            }
            self.send(desk);
            if desk.store_is_gone() {
                return Ended::StoreGone;
            }
            self.client.ready().await;
            // A desk that has nothing to do sleeps, but not before its last figures are told.
            let due = desk.next_deadline();
            let pause = if figures_behind { due.min(self.figures_due) } else { due }.since(now);
            tokio::select! {
                biased;
                _ = stop.cancelled() => return Ended::Stopped,
                () = left(&mut status, generation) => return Ended::ConnectionLost,
                heard = heard(&mut self.beacon) => match heard {
                    Heard::Older(claim) => return Ended::Yielded(claim),
                    Heard::Served => return Ended::Contested,
                    Heard::Nothing => {}
                },
                event = next_connection(&mut self.presence) => match event {
                    Some(event) => desk.connection(event, Timestamp::now()),
                    None => self.presence = None,
                },
                count = self.receiver.recv_many(&mut messages, MESSAGES_AT_ONCE) => {
                    debug_assert!(count > 0, "the runner keeps a sender");
                    figures_behind = true;
                    let now = Timestamp::now();
                    for message in messages.drain(..) {
                        self.take(desk, message, now).await;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn take(&mut self, desk: &mut Desk, message: Incoming, now: Timestamp) {
        let subject = message.subject_str();
        if let Some(call) = subject.strip_prefix(&self.inbox) {
            if let Ok(call) = call.parse() {
                desk.answer(call, Answer::Message(message), now);
            } else if call == WATCH {
                desk.watch_heartbeat(&message, now);
            }
        } else if subject.starts_with(names::COUNCILS_PREFIX) {
            desk.council_row(&message, now);
        } else if let Some(tail) = subject.strip_prefix(names::API) {
            let tail = tail.to_owned();
            if !self.assets && needs_assets(&tail) {
                if let Err(error) = assets::create(&self.client, self.replicas).await {
                    tracing::warn!(%error, "the coordinator's buckets cannot be made");
                    return desk.refuse_unstored(&message, &error.to_string());
                }
                self.assets = true;
            }
            if !self.councils && tail.starts_with("COUNCIL.FORM.") {
                if let Err(error) = assets::create_councils(&self.client, self.replicas).await {
                    tracing::warn!(%error, "the bucket of councils cannot be made");
                    return desk.refuse_unstored(&message, &error.to_string());
                }
                self.councils = true;
                desk.watch_councils(now);
            }
            let begun = Timestamp::now();
            desk.request(message, now);
            desk.note_processing(&tail, Timestamp::now().since(begun).as_nanos() as u64);
        } else if let Some(tail) = subject.strip_prefix(names::SERVICE_REPLY) {
            let tail = tail.to_owned();
            desk.service_answer(&tail, message, now);
        } else if subject.starts_with("$JS.ACK.") {
            desk.ack(&message, now);
        } else if subject.starts_with("$JS.EVENT.") {
            desk.advisory(&message, now);
        } else if let Some(id) = subject.strip_prefix("$TASK.P.") {
            desk.progress(id, &message, now);
        } else if let Some(agent) = subject.strip_prefix("$TASK.HB.") {
            desk.heartbeat(agent, now);
        } else if subject.starts_with("$SRV.")
            && !message.reply().is_empty()
            && !message.reply().starts_with(b"$")
            && let Some(body) = self.service.answer(subject, desk.verb_stats())
        {
            let _ = self.client.publish_message(message.reply(), b"", b"", body.to_string().as_bytes());
        }
    }

    fn send(&self, desk: &mut Desk) {
        // Something that could not be sent may lead to more to send; each round answers at least one call.
        loop {
            let outputs = desk.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                let (call, sent) = match output {
                    Output::Publish { subject, call, headers, payload } => {
                        let reply = call.map(|call| format!("{}{call}", self.inbox)).unwrap_or_default();
                        (call, self.client.publish_message(&subject, reply.as_bytes(), &headers, &payload))
                    }
                    Output::Request { subject, reply, headers, payload } => {
                        (None, self.client.publish_message(&subject, &reply, &headers, &payload))
                    }
                    Output::Echo { call } => {
                        let subject = format!("{}{call}", self.inbox);
                        (Some(call), self.client.publish_message(subject.as_bytes(), b"", b"", b""))
                    }
                    Output::Batch { call, entries } => {
                        let batch = format!("{}{call}", self.batch_prefix);
                        let reply = format!("{}{call}", self.inbox);
                        (Some(call), self.client.send_batch(&batch, &entries, reply.as_bytes()))
                    }
                };
                if let (Some(call), Err(error)) = (call, sent) {
                    desk.answer(call, Answer::Unsent(error), desk.now());
                }
            }
        }
    }
}

/// Returns once the connection is not the `generation`th any more.
async fn left(status: &mut watch::Receiver<Status>, generation: u64) {
    let _ = status.wait_for(|status| *status != Status::Connected { generation }).await;
}

async fn heard(beacon: &mut Option<Beacon>) -> Heard {
    match beacon {
        Some(beacon) => beacon.heard().await,
        None => std::future::pending().await,
    }
}

async fn next_connection(presence: &mut Option<mpsc::Receiver<ConnectionEvent>>) -> Option<ConnectionEvent> {
    match presence {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_as_an_end() {
        let ended = |task| async {
            let (_, health) = watch::channel(Health::Serving);
            let stop = CancellationToken::new();
            let mut coordinator = Coordinator { stop, task: Some(task), health };
            coordinator.ended().await
        };
        let bad = "a hole in the desk";
        assert_eq!(ended(tokio::spawn(async move { panic!("{bad}") })).await, "it panicked: a hole in the desk");
        assert_eq!(ended(tokio::spawn(async { panic!("flat") })).await, "it panicked: flat");
        assert_eq!(ended(tokio::spawn(async { "closed".to_owned() })).await, "closed");
    }
}
