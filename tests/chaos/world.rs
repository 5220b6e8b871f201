//! One world: a broker process, a coordinator, agents, dispatchers, and what befalls them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use natterjack::client::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::agent::{self, Attempt, Fate, Plan, Signs, TICK};
use super::checker::{DeadLetter, Drain, Evidence, Sent};
use super::coordinator;
use super::councils;
use super::dispatcher;
use super::history::{History, read};
use super::ledger::Ledger;
use super::link::{Link, Reply, call};
use super::random::Random;
use super::relay::Relay;
use super::service;
use super::support::server::{Program, Server};
use super::table;
use super::worker;

/// How long leases last in these worlds.
pub const LEASE: Duration = Duration::from_millis(400);
/// How long a world may take to come to rest once nothing is killed any more.
const REST: Duration = Duration::from_secs(60);
const AGENTS: usize = 4;
const DISPATCHERS: usize = 3;
const WORKERS: usize = 2;
const INSTANCES: usize = 2;
const MEMBERS: usize = 2;

/// What everybody in a world shares.
pub struct Shared {
    /// The broker's.
    pub address: String,
    pub ledger: Ledger,
    /// There is a pull queue, with workers.
    pub has_workers: bool,
    /// There is a service queue, with instances of a service.
    pub has_services: bool,
    /// Councils are formed.
    pub has_councils: bool,
    calm: AtomicBool,
    ghosts: Mutex<Vec<(Instant, Attempt)>>,
    /// Tasks whose agents have asked.
    questions: Mutex<Vec<String>>,
}

impl Shared {
    /// Nothing is killed any more, and agents do all they are given.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Has somebody speak for an attempt later.
    pub fn haunt(&self, attempt: Attempt, after: Duration) {
        self.ghosts.lock().unwrap().push((Instant::now() + after, attempt));
    }

    pub fn note_question(&self, task: &str) {
        self.questions.lock().unwrap().push(task.to_owned());
    }

    pub fn next_question(&self) -> Option<String> {
        self.questions.lock().unwrap().pop()
    }

    pub fn next_ghost(&self) -> Option<Attempt> {
        let mut ghosts = self.ghosts.lock().unwrap();
        let due = ghosts.iter().position(|(due, _)| *due <= Instant::now())?;
        Some(ghosts.swap_remove(due).1)
    }
}

/// Where the coordinator runs.
enum Seat {
    /// In the broker, with the settings it has there.
    Embedded,
    /// On its own, over a connection that can be cut.
    Alone { process: Option<coordinator::Process>, relay: Relay },
}

pub struct World {
    shared: Arc<Shared>,
    broker: Server,
    seat: Seat,
    random: Random,
    fates: Vec<mpsc::Sender<Fate>>,
    killers: Vec<mpsc::Sender<()>>,
    /// Of workers.
    worker_killers: Vec<mpsc::Sender<()>>,
    /// Of a service's instances.
    instance_killers: Vec<mpsc::Sender<()>>,
    drains: Vec<Drain>,
    lives: JoinSet<()>,
    history: History,
}

/// What a world leaves behind.
pub struct Outcome {
    pub evidence: Evidence,
    /// The broker's last words.
    pub log: String,
}

/// Lets a world live through `rounds` and come to rest.
///
/// # Errors
/// It does not begin, or its broker does not answer in the end.
pub async fn run(seed: u64, rounds: usize) -> Result<Outcome, String> {
    let mut world = World::begin(seed).await?;
    for _ in 0..rounds {
        world.round().await?;
    }
    world.end().await
}

impl World {
    async fn begin(seed: u64) -> Result<World, String> {
        let mut random = Random::new(seed);
        let real = std::env::var_os("NATS_SERVER_BIN");
        let embedded = real.is_none() && random.one_in(3);
        let program = match real {
            Some(path) => Program::nats_server(path.into()).sync_always(),
            None if embedded => Program::natterjack(),
            None => Program::natterjack().arg("--no-coordinator"),
        };
        let broker = tokio::task::block_in_place(|| Server::start(program))?;
        let address = broker.address();
        let seat = if embedded {
            Seat::Embedded
        } else {
            let relay = Relay::start(address.clone()).await;
            let process = Some(coordinator::Process::start(relay.url()));
            Seat::Alone { process, relay }
        };
        let (calm, ghosts) = (AtomicBool::new(false), Mutex::default());
        let questions = Mutex::default();
        let ledger = Ledger::default();
        let (has_workers, has_services, has_councils) = (random.one_in(2), random.one_in(2), random.one_in(2));
        let shared = Shared { address, ledger, has_workers, has_services, has_councils, calm, ghosts, questions };
        let shared = Arc::new(shared);
        if has_councils {
            shared.ledger.count("worlds with councils");
        }
        if has_services {
            shared.ledger.count("worlds with a service");
        }
        if has_workers {
            shared.ledger.count("worlds with a pull queue");
        }
        shared.ledger.count(if embedded { "worlds (embedded coordinator)" } else { "worlds (coordinator alone)" });
        let mut world = World {
            shared,
            broker,
            seat,
            random,
            fates: Vec::new(),
            killers: Vec::new(),
            worker_killers: Vec::new(),
            instance_killers: Vec::new(),
            drains: Vec::new(),
            lives: JoinSet::new(),
            history: History::default(),
        };
        world.prepare().await?;
        world.populate();
        Ok(world)
    }

    async fn prepare(&mut self) -> Result<(), String> {
        let link = self.link().await;
        // Results go to a stream: a plain subscriber would miss those of the time when the broker was down.
        let results = json!({ "name": "RESULTS", "subjects": ["results.>"], "storage": "file" });
        link.client.create_stream(&results).await.map_err(|error| error.to_string())?;
        if self.shared.has_councils {
            let told = json!({ "name": councils::STREAM, "subjects": ["councils.told.>"], "storage": "file" });
            link.client.create_stream(&told).await.map_err(|error| error.to_string())?;
        }
        let queue = json!({ "lease_s": LEASE.as_secs_f64(), "backoff": [0.03], "max_attempts": 20, "ageing_s": 1 });
        let mut limited = queue.clone();
        for (name, value) in [("max_running", 4), ("max_per_key", 2), ("rate", 200)] {
            limited[name] = value.into();
        }
        surely(&link.client, "QUEUE.PUT.default", &[], queue.to_string().as_bytes()).await;
        surely(&link.client, "QUEUE.PUT.limited", &[], limited.to_string().as_bytes()).await;
        if self.shared.has_workers {
            let pulled = json!({ "mode": "pull", "lease_s": LEASE.as_secs_f64(), "max_attempts": worker::DELIVERIES });
            surely(&link.client, &format!("QUEUE.PUT.{}", worker::QUEUE), &[], pulled.to_string().as_bytes()).await;
        }
        if self.shared.has_services {
            let mut served = queue.clone();
            served["mode"] = "service".into();
            surely(&link.client, &format!("QUEUE.PUT.{}", service::QUEUE), &[], served.to_string().as_bytes()).await;
        }
        let cron = [("Task-Schedule", "@every 1s".to_owned()), ("Task-Max-Attempts", "50".to_owned())];
        surely(&link.client, "CRON.PUT.tick", &cron, TICK).await;
        Ok(())
    }

    fn populate(&mut self) {
        let signs = [Signs::Presence, Signs::Presence, Signs::Heartbeats, Signs::None];
        let labels: [_; AGENTS] = [vec!["gpu"], vec!["fast"], vec!["gpu", "fast"], vec![]];
        for (number, labels) in labels.into_iter().enumerate() {
            let (id, slots) = (format!("a{number}"), 2 + self.random.below(4));
            // Most leave a service's tasks to the service.
            let takes_all = number == 0 && self.random.one_in(3);
            let queues = if takes_all { vec!["*"] } else { vec!["default", "limited"] };
            let plan = Plan { id, labels, slots, signs: *self.random.pick(&signs), queues };
            let (fate, fates) = mpsc::channel(4);
            self.fates.push(fate);
            self.lives.spawn(agent::live(self.shared.clone(), plan, self.random.next(), fates));
        }
        for number in 0..DISPATCHERS {
            let (killer, killed) = mpsc::channel(4);
            self.killers.push(killer);
            let seed = self.random.next();
            self.lives.spawn(dispatcher::live(self.shared.clone(), format!("d{number}"), seed, killed));
        }
        for number in 0..if self.shared.has_workers { WORKERS } else { 0 } {
            let (killer, killed) = mpsc::channel(4);
            self.worker_killers.push(killer);
            let seed = self.random.next();
            self.lives.spawn(worker::live(self.shared.clone(), format!("w{number}"), seed, killed));
        }
        for number in 0..if self.shared.has_services { INSTANCES } else { 0 } {
            let (killer, killed) = mpsc::channel(4);
            self.instance_killers.push(killer);
            let seed = self.random.next();
            self.lives.spawn(service::live(self.shared.clone(), format!("s{number}"), seed, killed));
        }
        if self.shared.has_councils {
            self.lives.spawn(councils::chair(self.shared.clone(), self.random.next()));
            for _ in 0..MEMBERS {
                self.lives.spawn(councils::member(self.shared.clone(), self.random.next()));
            }
        }
        self.lives.spawn(agent::ghosts(self.shared.clone(), self.random.next()));
    }

    async fn link(&self) -> Link {
        Link::surely(&self.shared.address, "world").await
    }

    /// A while, and then something ends.
    async fn round(&mut self) -> Result<(), String> {
        tokio::time::sleep(Duration::from_millis(20 + self.random.below(300))).await;
        let faults = if self.random.one_in(4) { 2 } else { 1 };
        for _ in 0..faults {
            self.fault().await?;
        }
        let link = self.link().await;
        // What is missed now is read the next time.
        let _ = self.history.read_on(&link.client).await;
        self.shared.ledger.count("rounds");
        Ok(())
    }

    async fn fault(&mut self) -> Result<(), String> {
        let pause = Duration::from_millis(self.random.below(60));
        let choice = self.random.below(100);
        let what = match (choice, &mut self.seat) {
            (0..22, _) => {
                tokio::task::block_in_place(|| self.broker.kill());
                tokio::time::sleep(pause).await;
                tokio::task::block_in_place(|| self.broker.restart())?;
                "brokers killed"
            }
            (22..27, _) => {
                self.signal(rustix::process::Signal::STOP);
                tokio::time::sleep(pause * 12).await;
                self.signal(rustix::process::Signal::CONT);
                "brokers stalled"
            }
            (27..42, Seat::Alone { process, relay }) => {
                drop(process.take());
                tokio::time::sleep(pause).await;
                *process = Some(coordinator::Process::start(relay.url()));
                "coordinators killed"
            }
            (42..47, Seat::Alone { process, relay }) => {
                if let Some(process) = process.take() {
                    process.stop().await;
                }
                *process = Some(coordinator::Process::start(relay.url()));
                "coordinators stopped"
            }
            (47..55, Seat::Alone { relay, .. }) => {
                relay.cut();
                "coordinators cut"
            }
            (..75, _) => {
                let fate = self.random.pick(&self.fates).clone();
                let _ = fate.send(Fate::Killed).await;
                "agents killed"
            }
            (75..85, _) => {
                let fate = self.random.pick(&self.fates).clone();
                let _ = fate.send(Fate::Cut).await;
                "agents cut"
            }
            (85..90, _) => {
                self.drain(pause * 3).await;
                "agents drained"
            }
            (90..93, _) if !self.worker_killers.is_empty() => {
                let killer = self.random.pick(&self.worker_killers).clone();
                let _ = killer.send(()).await;
                "workers killed"
            }
            (93..98, _) if !self.instance_killers.is_empty() => {
                let killer = self.random.pick(&self.instance_killers).clone();
                let _ = killer.send(()).await;
                "instances of the service killed"
            }
            _ => {
                let killer = self.random.pick(&self.killers).clone();
                let _ = killer.send(()).await;
                "dispatchers killed"
            }
        };
        self.shared.ledger.count(what);
        if let Seat::Alone { process: Some(process), .. } = &mut self.seat
            && let Some(reason) = process.fault()
        {
            self.shared.ledger.wrong(format!("the coordinator ended: {reason}"));
        }
        Ok(())
    }

    /// An agent is to take nothing more, and after a while to go on. A coordinator that dies meanwhile changes nothing.
    async fn drain(&mut self, pause: Duration) {
        let agent = format!("a{}", self.random.below(AGENTS as u64));
        let link = self.link().await;
        let drain = format!("AGENT.DRAIN.{agent}");
        let told = call(&link.client, &drain, &[], b"").await.json();
        let Some(instance) = told["instance"].as_str() else { return };
        let from = mark(&link.client).await;
        if self.random.one_in(2)
            && let Seat::Alone { process, relay } = &mut self.seat
        {
            drop(process.take());
            *process = Some(coordinator::Process::start(relay.url()));
        }
        tokio::time::sleep(pause).await;
        let to = mark(&link.client).await;
        // Asked until somebody serves again.
        let mut now = Value::Null;
        while now.is_null() && link.client.status() != natterjack::client::Status::Closed {
            now = call(&link.client, &format!("AGENT.INFO.{agent}"), &[], b"").await.json();
        }
        // A new life is not draining.
        if now["instance"] == instance {
            match (from, to) {
                (Some(from), Some(to)) if now["draining"] == true => {
                    self.drains.push(Drain { agent, from, to });
                    self.shared.ledger.count("drains that held");
                }
                _ if now["draining"] == true => {}
                _ => self.shared.ledger.wrong(format!("{agent} was told to drain, and does not any more: {now}")),
            }
        }
        surely(&link.client, &drain, &[], br#"{"drain":false}"#).await;
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.broker.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Nothing is killed any more: everything comes to rest, and the evidence is taken.
    async fn end(mut self) -> Result<Outcome, String> {
        self.shared.calm.store(true, Ordering::Relaxed);
        let mut link = self.link().await;
        surely(&link.client, "QUEUE.RESUME.limited", &[], b"").await;
        surely(&link.client, "CRON.RM.tick", &[], b"").await;
        // Half of those that nobody knows of are asked about, the others may be there or not.
        let unknown: Vec<String> = {
            let books = self.shared.ledger.books();
            let unknown = books.submissions.iter().filter(|(_, known)| !known.acknowledged && !known.refused);
            unknown.map(|(task, _)| task.clone()).collect()
        };
        for task in unknown.iter().step_by(2) {
            dispatcher::submit(&self.shared, &link.client, task).await;
        }
        let deadline = Instant::now() + REST;
        while Instant::now() < deadline {
            if link.client.status() == natterjack::client::Status::Closed {
                link = self.link().await;
            }
            self.history.read_on(&link.client).await?;
            if self.is_at_rest(&link.client).await? {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let evidence = self.gather(&link.client).await?;
        // A message a client was about to send would find nobody.
        self.lives.shutdown().await;
        Ok(Outcome { evidence, log: self.broker.log_tail() })
    }

    async fn is_at_rest(&self, client: &Client) -> Result<bool, String> {
        let mut resting = true;
        for (task, history) in &self.history.tasks {
            let Some(record) = history.last().map(|last| &last.record) else { continue };
            resting &= table::is_final(&record.phase) && !record.result_due;
            if table::is_parked(&record.phase) {
                dispatcher::answer(&self.shared, client, task).await;
            } else if record.phase == "cancelling" {
                // Its agent may be gone for longer than anybody wants to wait.
                call(client, &format!("CANCEL.{task}"), &[], br#"{"force":true}"#).await;
            }
        }
        resting &= !self.shared.has_councils || {
            let minutes = councils::minutes(&self.shared, client).await?;
            councils::are_at_rest(&minutes)
        };
        Ok(resting && leftovers(client).await?.is_empty() && taken(client).await.iter().all(|(_, taken)| *taken == 0))
    }

    async fn gather(&mut self, client: &Client) -> Result<Evidence, String> {
        let mut evidence = Evidence { leftovers: leftovers(client).await?, ..Evidence::default() };
        self.history.read_on(client).await?;
        evidence.history = std::mem::take(&mut self.history.tasks);
        let completed: Vec<&String> =
            evidence.history.iter().filter(|(_, steps)| is_completed(steps)).map(|(task, _)| task).collect();
        for some in completed.chunks(32) {
            let asked = some
                .iter()
                .map(|task| async move { (task.to_string(), call(client, &format!("AWAIT.{task}"), &[], b"").await) });
            for (task, reply) in join_all(asked).await {
                if let Reply::Fine(result) = reply {
                    evidence.results.insert(task, result);
                }
            }
        }
        for row in read(client, "KV_TASK", "$KV.TASK.r.>", 1).await? {
            let task = row.subject.rsplit('.').next().unwrap_or_default().to_owned();
            *evidence.results_stored.entry(task).or_default() += 1;
        }
        let mut letters = BTreeMap::new();
        for row in read(client, "KV_TASK", "$KV.TASK.d.>", 1).await? {
            let task = row.subject.rsplit('.').next().unwrap_or_default().to_owned();
            let error = row.header("Task-Error").unwrap_or_default().to_owned();
            letters.remove(&task);
            if row.header("KV-Operation").is_none() {
                letters.insert(task, DeadLetter { body: row.payload, error });
            }
        }
        evidence.dead_letters = letters;
        for row in read(client, "RESULTS", "results.>", 1).await? {
            let id = row.header("Nats-Msg-Id").unwrap_or_default().to_owned();
            evidence.sent.push(Sent { subject: row.subject, id, body: row.payload });
        }
        evidence.taken = taken(client).await;
        if self.shared.has_councils {
            evidence.councils = councils::minutes(&self.shared, client).await?;
        }
        evidence.drains = std::mem::take(&mut self.drains);
        let queues = call(client, "QUEUE.LIST", &[], b"").await.json();
        for queue in queues["queues"].as_array().into_iter().flatten() {
            let number = |name: &str| queue[name].as_u64().unwrap_or(u64::MAX);
            evidence.open.push((queue["queue"].to_string(), number("open"), number("running")));
        }
        evidence.books = self.shared.ledger.books().clone();
        Ok(evidence)
    }
}

/// The stream's sequence by now: behind all that the broker was given before.
async fn mark(client: &Client) -> Option<u64> {
    client.kv_put("TASK", "x.mark", b"").await.ok()
}

fn is_completed(history: &[super::history::Revision]) -> bool {
    history.last().is_some_and(|last| last.record.phase == "completed")
}

/// Subjects of assignments and pull items that are stored.
async fn leftovers(client: &Client) -> Result<Vec<String>, String> {
    let mut left = Vec::new();
    for filter in ["$KV.TASK.a.>", "$KV.TASK.w.>"] {
        let filter = json!({ "subjects_filter": filter });
        let info: Value = client.api("STREAM.INFO.KV_TASK", &filter).await.map_err(|error| error.to_string())?;
        left.extend(info["state"]["subjects"].as_object().into_iter().flatten().map(|(subject, _)| subject.clone()));
    }
    Ok(left)
}

/// Slots that are taken, by agent.
async fn taken(client: &Client) -> Vec<(String, u64)> {
    let agents = call(client, "AGENT.LIST", &[], b"").await.json();
    let agents = agents["agents"].as_array().cloned().unwrap_or_default();
    let taken = |agent: &Value| (agent["id"].to_string(), agent["in_flight"].as_u64().unwrap_or(u64::MAX));
    agents.iter().map(taken).collect()
}

/// Calls until it is fine.
async fn surely(client: &Client, name: &str, headers: &[(&str, String)], body: &[u8]) {
    while !matches!(call(client, name, headers, body).await, Reply::Fine(_)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
