//! The task coordinators: one for each account that has one, apart from the others. Whatever ends one that should run
//! is told in the log and in `/healthz`, and it is started again: all it must know is in its account's streams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::pipes::Pipes;
use super::presence::Watch;
use crate::broker::Account;
use crate::client::{Client, ConnectOptions};
use crate::config::TaskAccount;
use crate::coordinator::figures::{Figures, LOSSES, PHASES, QueueFigures, STATUSES};
use crate::coordinator::queue::Adopt;
use crate::coordinator::{self, Coordinator, Health, Settings};
use crate::monitor::{TaskQueue, Tasks};

/// Pauses between starts, doubling from the first to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Who has served that long begins with the first pause again.
const PROVEN: Duration = Duration::from_secs(10);
/// How long a coordinator may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// How the coordinators of a server are, for monitoring.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<BTreeMap<String, Entry>>>);

struct Entry {
    /// What people call the account.
    label: String,
    health: watch::Receiver<Health>,
    figures: watch::Receiver<Figures>,
}

impl Board {
    /// What each of them counts.
    pub fn tasks(&self) -> Vec<Tasks> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |entry: &Entry| {
            let serving = *entry.health.borrow() == Health::Serving;
            tasks(&entry.label, serving, &entry.figures.borrow())
        };
        entries.values().map(of).collect()
    }

    /// The accounts with a coordinator, as people call them.
    pub fn labels(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|entry| entry.label.clone()).collect()
    }

    /// # Errors
    /// Which of them do not serve, and why.
    pub fn health(&self) -> Result<(), String> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = |entry: &Entry| {
            let health = entry.health.borrow();
            health.fault().map(|fault| format!("the task coordinator in account {} is down: {fault}", entry.label))
        };
        let faults: Vec<String> = entries.values().filter_map(fault).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}

fn tasks(account: &str, serving: bool, figures: &Figures) -> Tasks {
    let named = |names: &[&'static str], counts: &[u64]| names.iter().copied().zip(counts.iter().copied()).collect();
    let queue = |(name, queue): (&String, &QueueFigures)| TaskQueue {
        name: name.clone(),
        tasks: named(&PHASES, &queue.tasks),
        submitted: queue.submitted,
        ended: queue.ended().collect(),
        leases_lost: named(&LOSSES, &queue.leases_lost),
        seconds: queue.durations.cumulative(),
        seconds_sum: queue.durations.sum.as_secs_f64(),
        seconds_count: queue.durations.count(),
    };
    let agents = named(&STATUSES, &figures.agents);
    Tasks { account: account.to_owned(), serving, agents, queues: figures.queues.iter().map(queue).collect() }
}

/// See the module.
pub(super) struct Coordinators {
    pipes: Pipes,
    presence: Arc<Watch>,
    running: BTreeMap<String, Kept>,
    board: Board,
}

/// A coordinator that is kept running.
struct Kept {
    terms: TaskAccount,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Kept {
    /// Waits for the end of one that was told to stop.
    async fn end(self) {
        let mut task = self.task;
        if tokio::time::timeout(STOP_PATIENCE, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Drop for Coordinators {
    fn drop(&mut self) {
        self.running.values().for_each(|kept| kept.stop.cancel());
    }
}

impl Coordinators {
    pub fn new(pipes: Pipes, board: Board) -> Coordinators {
        let presence = Arc::new(Watch::new(&pipes.broker));
        Coordinators { pipes, presence, running: BTreeMap::new(), board }
    }

    /// Ends those that are not `wanted`, or not as they are.
    pub async fn retain(&mut self, wanted: &[TaskAccount]) -> Vec<String> {
        let ending = self.running.iter().filter(|(_, kept)| !wanted.contains(&kept.terms));
        let ending: Vec<String> = ending.map(|(name, _)| name.clone()).collect();
        let lines = ending.iter().map(|name| format!("coordinator in account {name:?} = disabled")).collect();
        self.end(ending).await;
        lines
    }

    /// Has coordinators in `wanted` and nowhere else from now on. Returns once each of them serves, or could not be
    /// started for the first time; what has changed comes back as log lines.
    pub async fn apply(&mut self, wanted: Vec<TaskAccount>) -> Vec<String> {
        let mut lines = self.retain(&wanted).await;
        let mut starting = Vec::new();
        // They start side by side.
        for terms in wanted {
            if self.running.contains_key(&terms.name) {
                continue;
            }
            let Some(account) = self.pipes.broker.find_account(&terms.name) else { continue };
            lines.push(format!("coordinator in account {:?} = enabled", terms.name));
            starting.push(self.start(account, terms));
        }
        for mut health in starting {
            let _ = health.wait_for(|health| *health != Health::Starting).await;
        }
        lines
    }

    fn start(&mut self, account: Arc<Account>, terms: TaskAccount) -> watch::Receiver<Health> {
        let (told, health) = watch::channel(Health::Starting);
        let figures = watch::Sender::<Figures>::default();
        let stop = CancellationToken::new();
        let entry = Entry { label: account.label.clone(), health: health.clone(), figures: figures.subscribe() };
        self.board.0.lock().unwrap_or_else(PoisonError::into_inner).insert(account.name.clone(), entry);
        let life = Life {
            pipes: self.pipes.clone(),
            presence: self.presence.clone(),
            account,
            terms: terms.clone(),
            told: told.clone(),
            figures,
            stop: stop.clone(),
        };
        let label = life.account.label.clone();
        let ending = stop.clone();
        let task = tokio::spawn(async move { keep_up(&label, &told, &ending, || life.live()).await });
        self.running.insert(terms.name.clone(), Kept { terms, stop, task });
        health
    }

    async fn end(&mut self, names: Vec<String>) {
        let ending: Vec<Kept> = names.iter().filter_map(|name| self.running.remove(name)).collect();
        ending.iter().for_each(|kept| kept.stop.cancel());
        for kept in ending {
            kept.end().await;
        }
        let mut board = self.board.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            self.presence.forget(&name);
            board.remove(&name);
        }
    }

    /// Stops them all: steps that have begun are finished, or found by the next start.
    pub async fn stop(mut self) {
        let all = self.running.keys().cloned().collect();
        self.end(all).await;
    }
}

/// Lives one life after the other, with a pause between them, until `stop`. A life returns why it ended, or `None` when
/// it was told to.
async fn keep_up<F: Future<Output = Option<String>>>(
    label: &str,
    told: &watch::Sender<Health>,
    stop: &CancellationToken,
    live: impl Fn() -> F,
) {
    let mut pause = PAUSE_FIRST;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let Some(reason) = live().await else { return };
        if begun.elapsed() >= PROVEN {
            pause = PAUSE_FIRST;
        }
        warn!("The task coordinator in account {label} ended: {reason}; it starts again in {pause:?}");
        told.send_replace(Health::Down(reason));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What a coordinator lives on.
struct Life {
    pipes: Pipes,
    presence: Arc<Watch>,
    account: Arc<Account>,
    terms: TaskAccount,
    told: watch::Sender<Health>,
    /// Goes from one life to the next.
    figures: watch::Sender<Figures>,
    stop: CancellationToken,
}

impl Life {
    /// One coordinator from its connection to its end. It is a client like any other, over a connection inside the
    /// process.
    async fn live(&self) -> Option<String> {
        let options = ConnectOptions { name: "natterjack-coordinator".to_owned(), ..ConnectOptions::default() };
        let client = match Client::attach(self.pipes.connect(&self.account), options).await {
            Ok(client) => client,
            Err(error) => return Some(error.to_string()),
        };
        let reason = self.serve(&client).await;
        // Also when it ended in error: a connection that nobody reads from would still be sent requests.
        client.close().await;
        reason
    }

    async fn serve(&self, client: &Client) -> Option<String> {
        let TaskAccount { result_subjects, council_subjects, adopt, .. } = self.terms.clone();
        let adopt = adopt.into_iter().map(|spec| {
            let consumer = Adopt { stream: spec.stream, consumer: spec.consumer, configured: true };
            (spec.queue, consumer)
        });
        let settings = Settings { result_subjects, council_subjects, adopt: adopt.collect(), ..Settings::default() };
        let presence = Some(self.presence.listen(&self.account.name));
        let host = format!("natterjack's own, process {}", std::process::id());
        let options = coordinator::Options { settings, presence, figures: self.figures.clone(), replicas: 1, host };
        let starting = Coordinator::start(client.clone(), options);
        let mut coordinator = tokio::select! {
            () = self.stop.cancelled() => return None,
            started = starting => match started {
                Ok(coordinator) => coordinator,
                Err(error) => return Some(error.to_string()),
            },
        };
        let again = matches!(*self.told.borrow(), Health::Down(_));
        if again {
            info!("The task coordinator in account {} serves again", self.account.label);
        }
        let mut health = coordinator.health();
        loop {
            self.told.send_replace(health.borrow_and_update().clone());
            tokio::select! {
                () = self.stop.cancelled() => {
                    coordinator.stop().await;
                    return None;
                }
                reason = coordinator.ended() => return Some(reason),
                Ok(()) = health.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn what_ends_is_started_again_after_growing_pauses_until_told_to_stop() {
        let (told, health) = watch::channel(Health::Starting);
        let stop = CancellationToken::new();
        let lives = Arc::new(AtomicU32::new(0));
        let begun = Instant::now();
        let (count, serving, ending) = (lives.clone(), told.clone(), stop.clone());
        let kept = tokio::spawn(async move {
            keep_up("A", &told, &stop, || async {
                match count.fetch_add(1, Ordering::Relaxed) {
                    // Three that end at once, one that serves long enough, and one that stays.
                    0..3 => {}
                    3 => {
                        serving.send_replace(Health::Serving);
                        tokio::time::sleep(PROVEN).await;
                    }
                    _ => {
                        serving.send_replace(Health::Serving);
                        stop.cancelled().await;
                        return None;
                    }
                }
                Some("it broke".to_owned())
            })
            .await;
        });
        let mut first = health.clone();
        first.wait_for(|health| *health == Health::Down("it broke".to_owned())).await.unwrap();
        first.wait_for(|health| *health == Health::Serving).await.unwrap();
        assert_eq!(begun.elapsed(), PAUSE_FIRST * 7);
        first.wait_for(|health| *health != Health::Serving).await.unwrap();
        first.wait_for(|health| *health == Health::Serving).await.unwrap();
        assert_eq!(begun.elapsed(), PAUSE_FIRST * 8 + PROVEN, "the pause began anew");
        ending.cancel();
        kept.await.unwrap();
        assert_eq!(lives.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn the_board_names_who_is_down() {
        let board = Board::default();
        assert_eq!(board.health(), Ok(()));
        let mut senders = Vec::new();
        for (name, health) in [("A", Health::Serving), ("B", Health::Down("no disk".into()))] {
            let (told, health) = watch::channel(health);
            senders.push(told);
            board.0.lock().unwrap().insert(
                name.into(),
                Entry { label: name.into(), health, figures: watch::Sender::default().subscribe() },
            );
        }
        assert_eq!(board.health().unwrap_err(), "the task coordinator in account B is down: no disk");
        senders[1].send_replace(Health::Serving);
        assert_eq!(board.health(), Ok(()));
        assert_eq!(board.labels(), ["A", "B"]);
    }
}
