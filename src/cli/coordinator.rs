//! `natterjack coordinator`: the task coordinator as a program of its own, beside any NATS server with JetStream.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::connection::ConnectFlags;
use super::failure::{Failure, REFUSED, UNREACHABLE};
use super::log;
use super::signals::{Signals, Told};
use crate::client::{Client, ClientError, JetStreamError, Status};
use crate::config::{Log, LogFormat};
use crate::coordinator::figures::Figures;
use crate::coordinator::{self, Coordinator, Health, Options, Settings, StartError, Unfit};

/// How long it waits before it tries to begin again, and how often it says that a connection is still missing.
const AGAIN: Duration = Duration::from_secs(1);
const REMIND: Duration = Duration::from_secs(10);

/// Serve tasks beside another NATS server or cluster with JetStream.
///
/// The same coordinator as in `natterjack serve`, as a client of nats-server 2.15 (2.12 at least, for atomic batches). Nothing
/// changes for agents and dispatchers. A second one on the same account stands by and takes over when the first is gone.
/// It reconnects for ever; SIGTERM or Ctrl-C ends it in order, and what runs goes on meanwhile.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct CoordinatorCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    /// How many servers of a cluster keep each stream, when the coordinator makes them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
    /// Filters of the subjects that Task-Result-To may name; results are published with this program's rights.
    #[arg(long, value_name = "FILTERS", value_delimiter = ',')]
    result_subjects: Option<Vec<String>>,
    /// Filters of the subjects that councils may be offered on and tell their status on.
    #[arg(long, value_name = "FILTERS", value_delimiter = ',')]
    council_subjects: Option<Vec<String>>,
    /// Append the log to this file instead of standard error.
    #[arg(short, long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Log debugging details.
    #[arg(short = 'D', long)]
    debug: bool,
}

const EXIT_CODES: &str = "\
Exit codes: 0 ended as told, 1 cannot work there (too old, no JetStream, not permitted) or ended by itself, 2 bad usage,
5 the server refuses the user.";

impl CoordinatorCommand {
    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// What to tell the caller.
    pub async fn run(self) -> Result<(), Failure> {
        let format = if self.connect.json { LogFormat::Json } else { LogFormat::Text };
        let settings = Log { file: self.log.clone(), debug: self.debug, format, ..Log::default() };
        let log = log::start(&settings).map_err(|error| {
            Failure::new(REFUSED, format!("Cannot write the log: {error}. Choose another with -l."))
        })?;
        let mut signals = Signals::listen();
        let ended = tokio::select! {
            ended = self.serve() => Some(ended),
            () = until_told(&mut signals, &log) => None,
        };
        match ended {
            None => Ok(()),
            Some(Ok(running)) => running.keep(&mut signals, &log).await,
            Some(Err(failure)) => Err(failure),
        }
    }

    /// Connects and starts, however long it takes until there is a server.
    async fn serve(&self) -> Result<Running, Failure> {
        let server = self.connect.address();
        info!("Starting natterjack {} as a task coordinator for {server}", env!("CARGO_PKG_VERSION"));
        let client = self.connected(&server).await?;
        let mut said = String::new();
        loop {
            let reason = match coordinator::preflight(&client).await {
                Ok(warning) => match self.start(&client).await {
                    Ok((coordinator, figures)) => {
                        if let Some(warning) = warning {
                            warn!("{warning}");
                        }
                        return Ok(Running { client, coordinator, figures, server });
                    }
                    Err(StartError::Load(error @ JetStreamError::Decode { .. })) => {
                        return Err(Failure::new(REFUSED, format!("{server}: {error}.")));
                    }
                    Err(error) => error.to_string(),
                },
                Err(Unfit::Passing(error)) => error.to_string(),
                Err(unfit) => return Err(Failure::new(REFUSED, format!("{server}: {unfit}."))),
            };
            if client.status() == Status::Closed {
                return Err(Failure::new(UNREACHABLE, format!("{server}: {reason}.")));
            }
            if said != reason {
                warn!("{server}: {reason}; trying again until it works");
                said = reason;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// A service starts when it does, not when its server has.
    async fn connected(&self, server: &str) -> Result<Client, Failure> {
        let mut options = self.connect.options("natterjack-coordinator")?;
        options.reconnect = true;
        let mut said: Option<tokio::time::Instant> = None;
        loop {
            let error = match Client::connect_with(&self.connect.server, options.clone()).await {
                Ok(client) => return Ok(client),
                Err(error @ (ClientError::Unreachable { .. } | ClientError::Timeout | ClientError::Disconnected)) => {
                    error
                }
                Err(error) => return Err(Failure::client(server, &error)),
            };
            if said.is_none_or(|said| said.elapsed() >= REMIND) {
                warn!("No server yet at {server}: {error}; trying again until there is one");
                said = Some(tokio::time::Instant::now());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn start(&self, client: &Client) -> Result<(Coordinator, watch::Receiver<Figures>), StartError> {
        let mut settings = Settings::default();
        if let Some(filters) = &self.result_subjects {
            settings.result_subjects.clone_from(filters);
        }
        if let Some(filters) = &self.council_subjects {
            settings.council_subjects.clone_from(filters);
        }
        let figures = watch::Sender::<Figures>::default();
        let told = figures.subscribe();
        let host = format!("{}, process {}", host_name(), std::process::id());
        let options = Options { settings, presence: None, figures, replicas: self.replicas.into(), host };
        Ok((Coordinator::start(client.clone(), options).await?, told))
    }
}

/// One that has started.
struct Running {
    client: Client,
    coordinator: Coordinator,
    figures: watch::Receiver<Figures>,
    server: String,
}

impl Running {
    async fn keep(mut self, signals: &mut Signals, log: &log::LogHandle) -> Result<(), Failure> {
        self.announce().await;
        let ended = self.follow(signals, log).await;
        if ended.is_none() {
            info!("Stopping in order");
            let stopping = async {
                self.coordinator.stop().await;
                self.client.close().await;
            };
            tokio::select! {
                () = stopping => {}
                () = until_told(signals, log) => warn!("Told again, exiting at once"),
            }
            info!("Task coordinator exiting");
        }
        match ended {
            None => Ok(()),
            Some(reason) => {
                error!("The task coordinator ended by itself: {reason}");
                Err(Failure::new(REFUSED, format!("the task coordinator ended by itself: {reason}.")))
            }
        }
    }

    /// Why it ended by itself, or `None` when it was told to.
    async fn follow(&mut self, signals: &mut Signals, log: &log::LogHandle) -> Option<String> {
        let mut health = self.coordinator.health();
        let mut status = self.client.watch_status();
        let mut last = health.borrow_and_update().clone();
        let mut lost: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                () = until_told(signals, log) => return None,
                reason = self.coordinator.ended() => return Some(reason),
                Ok(()) = health.changed() => {
                    let now = health.borrow_and_update().clone();
                    if now == Health::Serving && now != last {
                        self.announce().await;
                    }
                    last = now;
                }
                Ok(()) = status.changed() => {
                    let connected = *status.borrow_and_update() != Status::Disconnected;
                    match (connected, lost) {
                        (true, Some(since)) => {
                            info!("Connected again, after {:.1?}", since.elapsed());
                            lost = None;
                        }
                        (false, None) => {
                            warn!("The connection to {} is lost; trying again until it is back", self.server);
                            lost = Some(tokio::time::Instant::now());
                        }
                        _ => {}
                    }
                }
                () = tokio::time::sleep(REMIND), if lost.is_some() => {
                    let reason = self.client.last_error().unwrap_or_default();
                    warn!("Still no connection to {}: {reason}", self.server);
                }
            }
        }
    }

    /// What it serves and where.
    async fn announce(&self) {
        let info = self.client.info();
        let asked = self.client.request("$SYS.REQ.USER.INFO", b"", AGAIN).await;
        let asked: serde_json::Value =
            asked.ok().and_then(|answer| serde_json::from_slice(answer.payload()).ok()).unwrap_or_default();
        let account = asked["data"]["account"].as_str().map(|name| format!(", account {name}")).unwrap_or_default();
        let place = format!("{} (nats-server {}, {}{account})", self.server, info.version, info.server_name);
        match &*self.coordinator.health().borrow() {
            Health::Standby(other) => {
                info!("Standing by on {place}: tasks are served by another coordinator ({other})")
            }
            _ => {
                let figures = self.figures.borrow();
                let agents: u64 = figures.agents.iter().sum();
                let tasks: u64 = figures.queues.values().flat_map(|queue| queue.tasks).sum();
                info!("Serving tasks on {place}: $TASK.API.>, buckets TASK and TASK_AGENTS");
                info!("Task coordinator is ready, with {tasks} tasks and {agents} agents");
            }
        }
    }
}

/// Returns when it is to end.
async fn until_told(signals: &mut Signals, log: &log::LogHandle) {
    loop {
        let told = signals.next().await;
        match told {
            Told::Reopen => {
                if let Err(error) = log.reopen() {
                    error!("Unable to re-open the log file: {error}; the old one stays in use");
                }
            }
            Told::Reload => info!("Trapped \"{}\" signal: there is nothing to read again", told.name()),
            Told::Interrupt | Told::Terminate | Told::LameDuck => {
                return info!("Trapped \"{}\" signal", told.name());
            }
        }
    }
}

/// This machine's name, as far as the environment tells.
fn host_name() -> String {
    let told = std::fs::read_to_string("/etc/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    told.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "a machine".to_owned())
}
