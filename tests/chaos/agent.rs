//! Agents: they work, fail, fall silent, speak too late, and are killed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use natterjack::client::{Client, Incoming, Subscription};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::ledger::Verb;
use super::link::{Link, Reply, call};
use super::random::Random;
use super::world::{LEASE, Shared};

/// What every task of the world's cron holds.
pub const TICK: &[u8] = b"tick";

/// How an agent shows that it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// It subscribes to its own subject.
    Presence,
    Heartbeats,
    /// Nothing but its work and its connection.
    None,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub id: String,
    pub labels: Vec<&'static str>,
    pub slots: u64,
    pub signs: Signs,
    /// Whose tasks it takes.
    pub queues: Vec<&'static str>,
}

/// What happens to an agent.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Its process ends without a word; another takes its place and knows nothing.
    Killed,
    /// Its connection ends; it goes on working and comes back with its resume token.
    Cut,
}

/// An attempt in somebody's hands.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub task: String,
    pub lease: String,
}

impl Attempt {
    /// The one that a delivery is about. `end` is where its end is told, whose last token is the lease.
    pub fn of(delivery: &Incoming, end: &str) -> Attempt {
        let task = delivery.headers().get_str("Task-Id").unwrap_or_default().to_owned();
        Attempt { task, lease: end.rsplit('.').next().unwrap_or_default().to_owned() }
    }

    pub fn result(&self) -> Bytes {
        Bytes::from(format!("result of {} by {}", self.task, self.lease))
    }

    /// Completes it, and returns whether that was accepted; `None` when nobody says so.
    pub async fn complete(&self, client: &Client, world: &Shared, body: &Bytes) -> Option<bool> {
        world.ledger.sending(&self.task, &self.lease, body);
        self.say(Verb::Complete, client, world, body).await
    }

    pub async fn say(&self, verb: Verb, client: &Client, world: &Shared, body: &Bytes) -> Option<bool> {
        let name = match verb {
            Verb::Complete => "COMPLETE",
            Verb::Fail => "FAIL",
            Verb::Input => "INPUT",
            _ => "DECLINE",
        };
        let reply = call(client, &format!("{name}.{}.{}", self.task, self.lease), &[], body).await;
        match &reply {
            Reply::Fine(_) => {
                world.ledger.answered(verb, &self.task, &self.lease, body, &reply.json());
                if verb == Verb::Input {
                    world.note_question(&self.task);
                }
                Some(true)
            }
            Reply::Refused(code) => {
                world.ledger.refused(verb, &self.task, &self.lease, body, *code);
                // Two questions at once are one too many.
                if *code != 30409 && (verb != Verb::Input || *code != 30400) {
                    world.ledger.wrong(format!("{}: {verb:?} was refused with {code}", self.task));
                }
                Some(false)
            }
            Reply::Unknown => None,
        }
    }
}

/// What outlives an agent's connection, but not its process.
struct Process {
    hands: JoinSet<()>,
    resume: String,
    /// The present connection, for those that work.
    client: watch::Sender<Option<Client>>,
    held: Arc<Mutex<HashMap<String, Attempt>>>,
}

impl Process {
    fn new() -> Process {
        let (client, _) = watch::channel(None);
        Process { hands: JoinSet::new(), resume: String::new(), client, held: Arc::default() }
    }
}

/// Lives until the world ends.
pub async fn live(world: Arc<Shared>, plan: Plan, seed: u64, mut fates: mpsc::Receiver<Fate>) {
    let mut random = Random::new(seed);
    let mut process = Process::new();
    loop {
        let fate = tokio::select! {
            () = connected(&world, &plan, &mut random, &mut process) => continue,
            fate = fates.recv() => fate,
        };
        match fate {
            None => return,
            Some(Fate::Cut) => {}
            Some(Fate::Killed) => {
                // Somebody may have kept what it had in its hands, and speak up later.
                let held: Vec<Attempt> = process.held.lock().unwrap().drain().map(|(_, attempt)| attempt).collect();
                for attempt in held {
                    world.haunt(attempt, Duration::from_millis(random.below(1500)));
                }
                process = Process::new();
            }
        }
    }
}

/// One connection: register, pull, work. Returns when it has ended.
async fn connected(world: &Arc<Shared>, plan: &Plan, random: &mut Random, process: &mut Process) {
    let link = Link::surely(&world.address, &plan.id).await;
    let client = link.client.clone();
    let Some(card) = register(world, &client, plan, &process.resume).await else { return };
    let text = |name: &str| card[name].as_str().unwrap_or_default().to_owned();
    process.resume = text("resume");
    let Ok(mut control) = client.subscribe(&text("control")) else { return };
    let _presence: Option<Subscription> = match plan.signs {
        Signs::Presence => client.subscribe(&text("presence")).ok(),
        _ => None,
    };
    let Ok(mut puller) = client.puller("KV_TASK", &text("consumer"), 4) else { return };
    process.client.send_replace(Some(client.clone()));
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            message = puller.next() => {
                let Ok(message) = message else { return };
                let worker = Worker {
                    world: world.clone(),
                    client: process.client.subscribe(),
                    held: process.held.clone(),
                    random: Random::new(random.next()),
                };
                process.hands.spawn(worker.work(message));
                while process.hands.try_join_next().is_some() {}
            }
            message = control.next() => {
                let Some(message) = message else { return };
                let order: Value = serde_json::from_slice(message.payload()).unwrap_or_default();
                let task = order["task"].as_str().unwrap_or_default();
                let held = process.held.lock().unwrap().get(task).cloned();
                if let Some(attempt) = held.filter(|_| order["op"] == "cancel" && !random.one_in(4)) {
                    let (world, client) = (world.clone(), client.clone());
                    process.hands.spawn(async move {
                        let confirmed = attempt.say(Verb::Fail, &client, &world, &Bytes::from_static(b"canceled")).await;
                        if confirmed == Some(true) {
                            world.ledger.count("cancels confirmed");
                        }
                    });
                }
            }
            _ = beat.tick(), if plan.signs == Signs::Heartbeats => {
                if client.publish(&text("heartbeat"), b"").is_err() {
                    return;
                }
            }
        }
    }
}

async fn register(world: &Shared, client: &Client, plan: &Plan, resume: &str) -> Option<Value> {
    let request = json!({
        "labels": plan.labels, "slots": plan.slots, "queues": plan.queues, "resume": resume,
        "client_id": client.info().client_id,
    });
    loop {
        match call(client, &format!("AGENT.REGISTER.{}", plan.id), &[], request.to_string().as_bytes()).await {
            reply @ Reply::Fine(_) => return Some(reply.json()),
            // Its predecessor still counts as there, or nobody serves just now.
            reply if matches!(client.status(), natterjack::client::Status::Connected { .. }) => {
                if matches!(reply, Reply::Refused(_)) {
                    world.ledger.count("registrations refused");
                }
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            _ => return None,
        }
    }
}

/// One attempt's work.
struct Worker {
    world: Arc<Shared>,
    client: watch::Receiver<Option<Client>>,
    held: Arc<Mutex<HashMap<String, Attempt>>>,
    random: Random,
}

impl Worker {
    async fn work(mut self, message: Incoming) {
        let world = self.world.clone();
        let attempt = Attempt::of(&message, message.headers().get_str("Task-Complete").unwrap_or_default());
        world.ledger.count("deliveries");
        let expected = world.ledger.body_of(&attempt.task);
        if expected.as_deref().unwrap_or(TICK) != message.payload() {
            world.ledger.wrong(format!("{}: it was delivered with another body", attempt.task));
        }
        self.held.lock().unwrap().insert(attempt.task.clone(), attempt.clone());
        self.act(&attempt, &message).await;
        let mut held = self.held.lock().unwrap();
        if held.get(&attempt.task).is_some_and(|other| other.lease == attempt.lease) {
            held.remove(&attempt.task);
        }
    }

    async fn act(&mut self, attempt: &Attempt, message: &Incoming) {
        let world = self.world.clone();
        let result = attempt.result();
        if world.is_calm() {
            return self.complete(attempt, &result).await;
        }
        tokio::time::sleep(Duration::from_millis(self.random.below(8))).await;
        match self.random.below(100) {
            0..50 => self.complete(attempt, &result).await,
            50..56 => {
                // It needs longer than a lease lasts, and says so.
                for _ in 0..self.random.below(8) {
                    if self.random.one_in(2) {
                        self.ack(message, "+WPI");
                    } else if let Some(client) = self.client.borrow().clone() {
                        let _ = client.publish(&format!("$TASK.P.{}", attempt.task), b"a chunk");
                    }
                    tokio::time::sleep(LEASE / 4).await;
                }
                self.complete(attempt, &result).await;
            }
            56..63 => {
                let delay = self.random.below(2) * 30;
                let body = json!({ "error": "it went wrong", "delay_ms": delay }).to_string();
                self.insist(Verb::Fail, attempt, &Bytes::from(body)).await;
            }
            63..65 => {
                let body = json!({ "error": "it cannot be done", "retry": false }).to_string();
                self.insist(Verb::Fail, attempt, &Bytes::from(body)).await;
            }
            65..69 => {
                world.ledger.count("naks");
                let word = *self.random.pick(&["-NAK", "-NAK {\"delay\": 20000000}"]);
                self.ack(message, word);
            }
            69..71 => {
                world.ledger.count("terms");
                self.ack(message, "+TERM no use");
            }
            71..74 => self.insist(Verb::Decline, attempt, &Bytes::new()).await,
            74..78 => {
                // It gives its slot back and hears no more of this attempt; some finish it all the same.
                self.insist(Verb::Input, attempt, &Bytes::from_static(b"which of them?")).await;
                if self.random.one_in(4) {
                    world.haunt(attempt.clone(), Duration::from_millis(self.random.below(300)));
                }
            }
            78..82 => {
                world.ledger.count("silences");
                world.haunt(attempt.clone(), Duration::from_millis(self.random.below(1500)));
            }
            82..87 => {
                // About as long as the lease: either may come first.
                tokio::time::sleep(LEASE.mul_f64(0.6 + self.random.below(60) as f64 / 100.0)).await;
                self.complete(attempt, &result).await;
            }
            87..91 => {
                self.complete(attempt, &result).await;
                self.complete(attempt, &result).await;
            }
            91..93 => {
                self.complete(attempt, &result).await;
                self.complete(attempt, &Bytes::from(format!("other {}", attempt.lease))).await;
            }
            93..96 => {
                // Both at once: one of them is too late.
                let Some(client) = self.client().await else { return };
                let body = Bytes::from_static(b"or not");
                tokio::join!(
                    attempt.complete(&client, &world, &result),
                    attempt.say(Verb::Fail, &client, &world, &body)
                );
            }
            _ => {
                // Without waiting for an answer.
                let Some(client) = self.client().await else { return };
                world.ledger.sending(&attempt.task, &attempt.lease, &result);
                let subject = message.headers().get_str("Task-Complete").unwrap_or_default();
                let _ = client.publish(subject, &result);
                self.ack(message, "+ACK");
            }
        }
    }

    /// The connection, once there is one.
    async fn client(&mut self) -> Option<Client> {
        self.client.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn ack(&self, message: &Incoming, word: &str) {
        if let Some(client) = self.client.borrow().clone() {
            let _ = client.publish_message(message.reply(), b"", b"", word.as_bytes());
        }
    }

    async fn complete(&mut self, attempt: &Attempt, body: &Bytes) {
        self.world.ledger.sending(&attempt.task, &attempt.lease, body);
        self.insist(Verb::Complete, attempt, body).await;
    }

    /// Says it until it is answered.
    async fn insist(&mut self, verb: Verb, attempt: &Attempt, body: &Bytes) {
        for _ in 0..200 {
            let Some(client) = self.client().await else { return };
            match attempt.say(verb, &client, &self.world, body).await {
                Some(accepted) => {
                    self.world.ledger.count(match (verb, accepted) {
                        (Verb::Complete, true) => "completions accepted",
                        (Verb::Complete, false) => "completions refused",
                        (Verb::Fail, true) => "failures accepted",
                        (Verb::Decline, true) => "declines accepted",
                        (Verb::Input, true) => "questions accepted",
                        _ => "failures and declines refused",
                    });
                    return;
                }
                None => {
                    self.world.ledger.count("answers lost");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// Speaks for those who are dead or fell silent, when their leases have long passed on, mostly.
pub async fn ghosts(world: Arc<Shared>, seed: u64) {
    let mut random = Random::new(seed);
    let mut link: Option<Link> = None;
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let Some(attempt) = world.next_ghost() else { continue };
        let open = match link.take() {
            Some(link) => link,
            None => Link::surely(&world.address, "ghost").await,
        };
        let fails = random.one_in(5);
        let outcome = if fails {
            attempt.say(Verb::Fail, &open.client, &world, &Bytes::from_static(b"too late")).await
        } else {
            attempt.complete(&open.client, &world, &attempt.result()).await
        };
        world.ledger.count(match outcome {
            Some(true) => "late words accepted",
            Some(false) => "stale words refused",
            None => "answers lost",
        });
        if outcome.is_some() {
            link = Some(open);
        }
    }
}
