//! The play from start to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::DemoCommand;
use super::agent::{Agent, Role, TROUPE, VICTIM};
use super::broker::{Broker, Folder};
use super::ledger::Ledger;
use super::stage::{Actor, Scene, Stage};
use super::verdict::{self, Verdict};
use crate::cli::connection::{api_error, refused};
use crate::cli::failure::{Failure, REFUSED, TIMED_OUT};
use crate::client::{Client, ConnectOptions, ServerUrl};
use crate::types::header::HeaderBuilder;
use crate::types::id;

/// The block is drawn this often.
const FRAME: Duration = Duration::from_millis(50);
/// Tasks handed over at once.
const SUBMITTED_AT_ONCE: usize = 64;
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

pub async fn play(demo: &DemoCommand) -> Result<(), Failure> {
    let started = Instant::now();
    let mut stage = Stage::new();
    let mut folder = None;
    let mut broker = None;
    let url = match &demo.server {
        Some(url) => url.clone(),
        None => {
            let own = folder.insert(Folder::create(demo.keep)?);
            broker.insert(Broker::start(own.path()).await?).url()
        }
    };
    let shown_url =
        ServerUrl::parse(&url).map_or_else(|_| url.clone(), |parsed| format!("nats://{}", parsed.address()));
    match &broker {
        Some(broker) => stage.tell(&format!("Broker on {shown_url}, pid {}, with an empty store.", broker.pid())),
        None => stage.tell(&format!("Broker on {shown_url}, not ours: it will not be killed.")),
    }
    let outcome = perform(demo, started, &mut stage, &url, &shown_url, &mut broker).await;
    if outcome.is_err()
        && let Some(broker) = &broker
    {
        stage.tell(&format!("The broker's log ends:\n{}", broker.log_end()));
    }
    if let Some(folder) = &mut folder
        && (demo.keep || outcome.is_err())
    {
        folder.keep();
        stage.tell(&format!("The broker's folder is kept: {}", folder.path().display()));
    }
    outcome
}

async fn perform(
    demo: &DemoCommand,
    started: Instant,
    stage: &mut Stage,
    url: &str,
    shown_url: &str,
    broker: &mut Option<Broker>,
) -> Result<(), Failure> {
    let deadline = started + demo.deadline;
    let run = id::unique()[..6].to_owned();
    let queue = format!("demo-{run}");
    let options = ConnectOptions { name: "natterjack demo".to_owned(), ..ConnectOptions::default() };
    let client = Client::connect_with(url, options).await.map_err(|error| Failure::client(shown_url, &error))?;
    // A short lease and short pauses: accidents are noticed in seconds.
    let settings = json!({"max_attempts": 10, "backoff": [0.2, 0.5, 1.0], "lease_s": 10, "retention_s": 3600});
    put_queue(&client, &queue, &settings.to_string(), shown_url).await?;

    let ledger = Arc::new(Ledger::default());
    let mut agents = Vec::new();
    for role in TROUPE {
        agents.push(Agent::start(role, agent_id(role, &run), url, &queue, ledger.clone()).await?);
        stage.tell(&format!("Agent {} is here: {}, {} slots.", role.name, role.labels.join(" "), role.slots));
    }
    let tasks: Vec<(String, u64)> = (1..=u64::from(demo.tasks)).map(|n| (format!("demo-{run}-{n}"), n)).collect();
    let submitted = Arc::new(AtomicU32::new(0));
    let submitting = tokio::spawn(submit_all(client.clone(), queue.clone(), tasks.clone(), submitted.clone()));
    stage.tell(&format!("Submitting {} tasks: a third needs lang=rust, a third lang=python.", demo.tasks));

    let mut show = Show { stage, started, tasks: demo.tasks, broker_line: String::new(), victim_dead: false };
    let mut restarted = broker.is_none();
    let mut buried = 0;
    let mut completed_at = (0, Instant::now());
    loop {
        show.broker_line = match broker {
            Some(broker) if restarted => format!("{shown_url}  pid {}  killed once, restarted once", broker.pid()),
            Some(broker) => format!("{shown_url}  pid {}", broker.pid()),
            None => shown_url.to_owned(),
        };
        let completed = show.frame(&ledger, submitted.load(Ordering::Relaxed));
        if completed != completed_at.0 {
            completed_at = (completed, Instant::now());
        }
        if completed >= demo.tasks {
            break;
        }
        // A completion may have been accepted from an agent that died before it heard so: the records will tell.
        if completed + buried >= demo.tasks && completed_at.1.elapsed() > Duration::from_secs(8) {
            break;
        }
        if Instant::now() > deadline {
            break;
        }
        // It should die with something in its hands; near the end it must not wait for that any longer.
        let in_hand = ledger.of(VICTIM).1;
        if !show.victim_dead
            && completed >= demo.tasks / 2
            && (in_hand > 1 || completed >= demo.tasks * 6 / 10)
            && let Some(at) = agents.iter().position(|agent| agent.role.name == VICTIM)
        {
            agents.remove(at).die().await;
            buried = ledger.bury(VICTIM);
            show.victim_dead = true;
            show.stage.tell(&format!("Half way. Agent {VICTIM} dies with {buried} tasks in hand."));
        }
        if !restarted
            && completed >= demo.tasks * 7 / 10
            && let Some(broker) = broker
        {
            let pid = broker.pid();
            let killed_at = Instant::now();
            broker.kill_and_restart().await?;
            restarted = true;
            show.stage.tell(&format!(
                "SIGKILL to the broker (pid {pid}). Back on the same port and store after {} ms, pid {}.",
                killed_at.elapsed().as_millis(),
                broker.pid()
            ));
        }
        tokio::time::sleep(FRAME).await;
    }
    show.frame(&ledger, submitted.load(Ordering::Relaxed));
    show.stage.finish();
    let out_of_time = Instant::now() > deadline;
    submitting.abort();

    let patience = if out_of_time { Duration::from_millis(100) } else { Duration::from_secs(5) };
    let evidence = verdict::gather(&client, tasks, &ledger, patience).await;
    let verdict = Verdict::judge(&evidence);
    for agent in agents {
        let subject = format!("$TASK.API.AGENT.REMOVE.{}", agent_id(agent.role, &run));
        let _ = client.request(&subject, b"", ANSWER_DEADLINE).await;
        agent.die().await;
    }
    client.close().await;
    show.stage.tell(&summary(&verdict, &ledger, started.elapsed()));
    match (verdict.proved(), out_of_time) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::new(TIMED_OUT, format!("Not done after {:?}.", demo.deadline))),
        (false, false) => Err(Failure::new(REFUSED, "The proof failed.")),
    }
}

/// Unique per run, so that demos may share a broker.
fn agent_id(role: Role, run: &str) -> String {
    format!("{}-{run}", role.name)
}

struct Show<'a> {
    stage: &'a mut Stage,
    started: Instant,
    tasks: u32,
    broker_line: String,
    victim_dead: bool,
}

impl Show<'_> {
    /// Draws, and tells how many tasks the agents have completed.
    fn frame(&mut self, ledger: &Ledger, submitted: u32) -> u32 {
        let completed = ledger.figures().completed;
        let actors = TROUPE.iter().map(|role| {
            let (done, in_hand) = ledger.of(role.name);
            let alive = !(self.victim_dead && role.name == VICTIM);
            Actor { name: role.name, labels: role.labels.join(" "), done, in_hand, alive }
        });
        self.stage.show(&Scene {
            broker: self.broker_line.clone(),
            actors: actors.collect(),
            submitted,
            completed,
            tasks: self.tasks,
            elapsed: self.started.elapsed(),
        });
        completed
    }
}

/// Also waits for the coordinator to be up, which may be a moment after the port is.
async fn put_queue(client: &Client, queue: &str, settings: &str, shown_url: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let asked = client.request(&format!("$TASK.API.QUEUE.PUT.{queue}"), settings.as_bytes(), ANSWER_DEADLINE).await;
        match asked {
            Ok(answer) => match api_error(&answer) {
                None => return Ok(()),
                Some(error) => return Err(refused(&error)),
            },
            Err(error) if begun.elapsed() > ANSWER_DEADLINE => return Err(Failure::client(shown_url, &error)),
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

/// Every task has its own id, so handing one over again after a lost answer is harmless.
async fn submit_all(client: Client, queue: String, tasks: Vec<(String, u64)>, submitted: Arc<AtomicU32>) {
    let places = Arc::new(Semaphore::new(SUBMITTED_AT_ONCE));
    let mut submitting = JoinSet::new();
    for (task, n) in tasks {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (client, queue, submitted) = (client.clone(), queue.clone(), submitted.clone());
        submitting.spawn(async move {
            let _place = place;
            let mut headers = HeaderBuilder::new().add("Task-Id", &task).add("Task-Queue", &queue);
            match n % 3 {
                0 => headers = headers.add("Task-Requires", "lang=rust"),
                1 => headers = headers.add("Task-Requires", "lang=python"),
                _ => {}
            }
            let (headers, body) = (headers.build(), json!({"n": n}).to_string());
            loop {
                let asked =
                    client.request_message("$TASK.API.SUBMIT", &headers, body.as_bytes(), ANSWER_DEADLINE).await;
                if asked.is_ok_and(|answer| api_error(&answer).is_none()) {
                    submitted.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        });
        while submitting.try_join_next().is_some() {}
    }
    submitting.join_all().await;
}

fn summary(verdict: &Verdict, ledger: &Ledger, elapsed: Duration) -> String {
    use std::fmt::Write as _;
    let figures = ledger.figures();
    let mut text = String::from("\n");
    let mut line = |name: &str, count: u64, note: &str| {
        let _ = writeln!(text, "{}", format!("  {name:<28}{count:>6}  {note}").trim_end());
    };
    line("tasks submitted", verdict.tasks as u64, "");
    line("tasks completed", verdict.completed as u64, "by their records");
    line("right results", verdict.right as u64, "read back with AWAIT");
    line("results stored once", verdict.stored_once as u64, "messages per result key in the TASK bucket");
    line("completions accepted once", verdict.accepted_once as u64, "one lease each, by record and agents' ledger");
    let again = u64::from(figures.begun).saturating_sub(verdict.tasks as u64);
    line("attempts begun", u64::from(figures.begun), &format!("{again} of them again, after an accident"));
    line("late completions refused", u64::from(figures.stale), "their lease had passed on");
    for wrong in verdict.wrong.iter().take(10) {
        let _ = writeln!(text, "  ! {wrong}");
    }
    if verdict.wrong.len() > 10 {
        let _ = writeln!(text, "  ! and {} more", verdict.wrong.len() - 10);
    }
    let seconds = elapsed.as_secs_f32();
    if verdict.proved() {
        let _ = write!(text, "\nEvery one of {} tasks was completed exactly once. ({seconds:.1} s)", verdict.tasks);
    } else {
        let _ = write!(
            text,
            "\n{} of {} tasks are not as they should be. ({seconds:.1} s)",
            verdict.wrong.len(),
            verdict.tasks
        );
    }
    text
}
