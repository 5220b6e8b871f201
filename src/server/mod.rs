//! L5: sockets. Starts a broker from a [`Config`], accepts connections, and stops it in order: no new connections,
//! drain, flush, close. Must not know what a message means.

mod accept;
mod connection;
mod coordinators;
mod declared;
mod deflate;
mod files;
mod lame_duck;
mod monitoring;
mod pipes;
mod presence;
mod reload;
mod resources;
mod shown;
mod tls;
mod websocket;
mod websocket_stream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hashbrown::HashSet;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use self::coordinators::{Board, Coordinators};
use self::monitoring::Reloads;
use self::pipes::Pipes;
use self::shown::shown;
use self::tls::{CurrentHandshake, Handshake};
use crate::auth::Book;
use crate::broker::jetstream::{self, Accounts, JetStream};
use crate::broker::{self, Account, Broker, Meter, Options, ServerKeys, TraceTerms};
use crate::client::{Client, ClientError, ConnectOptions, JetStreamError};
use crate::config::{Config, ConfigError, Hosts, Listen, Log};
use crate::monitor::{CurrentTls, Events, Identity, Monitor, Reports, System};
use crate::protocol::Info;
use crate::session::Settings;
use crate::storage::{self, OpenError, ReadError, Recovered, Store};
use crate::types::{JetStreamLimits, StreamId, Timestamp};

pub use crate::monitor::NO_CONFIG_FILE;
pub use monitoring::ReloadRequest;
pub use reload::ReloadError;

/// The nats-server release whose single-server features we serve, as INFO claims it: clients switch features on by it.
pub const NATS_VERSION: &str = "2.14.0";

/// How long a server that stops waits for its last event to be told.
const EVENTS_PATIENCE: Duration = Duration::from_secs(1);

/// Why a server did not start. The text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("Error listening on port: {address}, {source}{}", listen_hint(.source, .flag))]
    Listen { address: String, source: std::io::Error, flag: &'static str },
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("the streams in the store could not be read back: {0}")]
    Recover(#[from] ReadError),
    #[error("the server could not connect to itself: {0}")]
    Connect(#[from] ClientError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error(
        "{at}: the {what} cannot be as it is declared: {source}\n  Change it there, or the stream itself (`nats stream edit`, `nats stream rm`)."
    )]
    Declared { at: String, what: String, source: JetStreamError },
    #[error("could not write {path}: {source}")]
    File { path: String, source: std::io::Error },
}

/// What to do about it; `flag` chooses the port.
fn listen_hint(error: &std::io::Error, flag: &str) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "\n  Another program listens there. Stop it, or choose another port with {flag} ({flag} -1 takes any free one)."
        ),
        std::io::ErrorKind::PermissionDenied => {
            format!("\n  This user may not listen there. Choose a port above 1023 with {flag}.")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "\n  This machine has no such address. Choose another one with -a.".to_owned()
        }
        _ => String::new(),
    }
}

/// A running broker with its sockets. Dropping it without [`Server::stop`] ends its tasks without a drain; what was
/// acknowledged is on disk either way.
pub struct Server {
    config: Config,
    broker: Arc<Broker>,
    client_address: Option<SocketAddr>,
    monitor_address: Option<SocketAddr>,
    monitor_tls_address: Option<SocketAddr>,
    websocket_address: Option<SocketAddr>,
    /// Cancelled first: no further connections.
    stop_accepting: CancellationToken,
    /// A child of it: no further clients, but monitoring goes on.
    stop_new_clients: CancellationToken,
    /// Cancelled second: connections flush and close.
    stop_connections: CancellationToken,
    tasks: TaskTracker,
    /// Tells the system account what happens, at last that the server ends.
    events: tokio::task::JoinHandle<()>,
    files: files::RunFiles,
    jetstream: Option<Running>,
    pipes: Pipes,
    coordinators: Option<Coordinators>,
    board: Board,
    system: System,
    reloads: Reloads,
    handshake: CurrentHandshake,
    websocket_handshake: CurrentHandshake,
}

/// JetStream and what it writes to.
struct Running {
    /// In the default account.
    jetstream: Arc<JetStream>,
    /// The same, and those in other accounts that enable it.
    accounts: Accounts,
    /// Streams of accounts that do not enable it, or do not exist: a reload may change that.
    asleep: Vec<(String, StreamId)>,
    /// Accounts that are told that they have no JetStream, for as long as they have none.
    closed: HashSet<String>,
    options: jetstream::Options,
    store: Store,
}

impl Running {
    fn all(&self) -> Vec<Arc<JetStream>> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has an account without it told so.
    fn close(&mut self, broker: &Arc<Broker>, account: &Arc<Account>) {
        if self.closed.insert(account.name.clone()) {
            jetstream::serve_closed(broker, account, &self.accounts);
        }
    }

    /// Ends it in an account. What its streams have on disk stays, and is there again when it is started again.
    async fn stop_in(&mut self, broker: &Arc<Broker>, jetstream: &Arc<JetStream>) {
        let account = jetstream.account();
        self.close(broker, account);
        self.asleep.extend(jetstream.streams_on_disk().into_iter().map(|id| (account.name.clone(), id)));
        jetstream.stop().await;
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|known| !Arc::ptr_eq(known, jetstream));
    }

    /// Starts it in an account that did not have it.
    fn start_in(
        &mut self,
        broker: &Arc<Broker>,
        account: &Arc<Account>,
        limits: &JetStreamLimits,
    ) -> Result<(), ReadError> {
        let mut streams = Vec::new();
        for (_, id) in self.asleep.iter().filter(|(name, _)| *name == account.name) {
            streams.extend(self.store.reload(*id)?);
        }
        let recovered = Recovered { streams, repaired: false, orphans: Vec::new() };
        let options = resources::of_account(&self.options, limits);
        let started = JetStream::start(broker, account, options, self.store.clone(), &recovered)?;
        self.asleep.retain(|(name, _)| *name != account.name);
        self.accounts.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(started));
        Ok(())
    }
}

/// Looks at everything that a start would need, without changing anything: certificates, users, folders.
///
/// # Errors
/// [`StartError`], as of [`Server::start`].
pub fn check(config: &Config) -> Result<(), StartError> {
    config.check()?;
    let of_websocket = config.websocket.as_ref().and_then(|websocket| websocket.tls.clone());
    for tls in config.client_tls()?.into_iter().chain(of_websocket) {
        Handshake::new(&tls)?;
    }
    if config.jetstream && config.store_dir.exists() && !config.store_dir.is_dir() {
        return Err(OpenError::NotADirectory { path: config.store_dir.clone() }.into());
    }
    let folder_of = |file: &Option<PathBuf>| {
        let folder = file.as_ref().and_then(|file| file.parent()).map(Path::to_owned);
        folder.filter(|folder| !folder.as_os_str().is_empty())
    };
    let folders = [config.ports_file_dir.clone(), folder_of(&config.pid_file), folder_of(&config.log.file)];
    if let Some(folder) = folders.into_iter().flatten().find(|folder| !folder.is_dir()) {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(StartError::File { path: folder.display().to_string(), source });
    }
    Ok(())
}

impl Server {
    /// Starts a broker: opens the store, recovers its streams, then listens.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        config.check()?;
        let handshake = config.client_tls()?.map(|tls| Handshake::new(&tls)).transpose()?;
        let websocket_tls = config.websocket.as_ref().and_then(|websocket| websocket.tls.as_ref());
        let websocket_handshake = websocket_tls.map(Handshake::new).transpose()?;
        broker::show_traces(trace_terms(&config.log));
        let bound_at = |listen: Option<&Listen>, listener: &Option<TcpListener>| {
            listen.zip(listener.as_ref()).and_then(|(listen, listener)| accept::bound_address(listen, listener))
        };
        let listener = listen(config.listen.as_ref(), "-p").await?;
        let websocket = config.websocket.as_ref().map(|websocket| &websocket.listen);
        let websocket_listener = listen(websocket, "websocket.port").await?;
        let websocket_address = bound_at(websocket, &websocket_listener);
        let monitor_listener = match config.unasked_monitor() {
            // Somebody else's monitoring may be there.
            Some(address) => accept::bind(address).await.ok(),
            None => listen(config.monitor.as_ref(), "-m").await?,
        };
        let monitor_tls_listener = listen(config.monitor_tls.as_ref(), "-ms").await?;
        let monitor_tls_address = bound_at(config.monitor_tls.as_ref(), &monitor_tls_listener);
        let client_address = bound_at(config.listen.as_ref(), &listener);
        let monitor_address = bound_at(config.unasked_monitor().or(config.monitor.as_ref()), &monitor_listener);
        let book = Book::new(&config.auth_plan()).map_err(ConfigError::from)?;
        let keys = ServerKeys::default();
        let info = first_info(&config, keys.id(), client_address);
        let broker = Broker::with_book(info, options(&config), book, keys, Timestamp::now());
        if !config.metrics.subjects.is_empty() {
            broker.count_subjects(Meter::new(config.metrics.subjects.clone(), config.metrics.subjects_max));
        }

        let mut jetstream = if config.jetstream { Some(start_jetstream(&config, &broker).await?) } else { None };

        if let Some(running) = &mut jetstream {
            let with_it = running.all();
            let has_it = |account: &Arc<Account>| with_it.iter().any(|known| Arc::ptr_eq(known.account(), account));
            for account in broker.accounts().iter().filter(|account| !has_it(account)) {
                running.close(&broker, account);
            }
        }
        let tasks = TaskTracker::new();
        let stop_accepting = CancellationToken::new();
        let stop_connections = CancellationToken::new();
        let files = files::RunFiles::write(&config, client_address, monitor_address, websocket_address)?;
        let streams = jetstream.as_ref().map(|running| running.accounts.clone()).unwrap_or_default();
        let reloads = Reloads::default();
        let board = Board::default();
        let source = monitoring::BrokerSource::new(broker.clone(), streams, board.clone(), &config, reloads.clone());
        let source = Arc::new(source);
        let identity = identity(&broker, client_address, [monitor_address, monitor_tls_address]);
        let handshake = CurrentHandshake::new(handshake);
        let websocket_handshake = CurrentHandshake::new(websocket_handshake);
        let settings = shown(&config, &broker, [&handshake, &websocket_handshake], websocket_address, None);
        let reports = Arc::new(Reports::new(identity, settings, source));
        let in_the_clear = monitor_listener.map(|listener| (listener, None));
        let over_tls = monitor_tls_listener.map(|listener| {
            let handshake = handshake.clone();
            let current = move || handshake.get().map(|handshake| handshake.acceptor.clone());
            (listener, Some(Arc::new(current) as CurrentTls))
        });
        for (listener, tls) in in_the_clear.into_iter().chain(over_tls) {
            let hosts = listener.local_addr().map(|address| Hosts::of(&config, address)).unwrap_or_default();
            tasks.spawn(Monitor::new(reports.clone(), hosts).serve(listener, tls, stop_accepting.clone()));
        }
        let system = System::start(&broker, reports, stop_connections.clone());
        let events = tasks.spawn(Events::start(&broker, &system, stop_accepting.clone()));
        let pipes = Pipes { broker: broker.clone(), tasks: tasks.clone(), stop: stop_connections.clone() };
        let mut server = Server {
            config,
            coordinators: Some(Coordinators::new(pipes.clone(), board.clone())),
            pipes,
            board,
            broker,
            client_address,
            monitor_address,
            monitor_tls_address,
            websocket_address,
            stop_new_clients: stop_accepting.child_token(),
            stop_accepting,
            stop_connections,
            tasks,
            events,
            files,
            jetstream,
            system,
            reloads,
            handshake: handshake.clone(),
            websocket_handshake: websocket_handshake.clone(),
        };
        server.keep_coordinators().await;
        server.declare().await?;
        let guarded = server.broker.clone();
        let stop = server.stop_connections.clone();
        server.tasks.spawn(async move {
            tokio::select! {
                () = guarded.guard_memory() => {}
                () = stop.cancelled() => {}
            }
        });
        if let (Some(listener), Some(address)) = (websocket_listener, websocket_address) {
            server.accept_websocket(listener, address.port(), websocket_handshake);
        }
        if let Some(listener) = listener {
            server.accept(listener, handshake);
        }
        Ok(server)
    }

    /// Has coordinators where the configuration wants them; what has changed comes back as log lines.
    async fn keep_coordinators(&mut self) -> Vec<String> {
        let book = self.broker.gate.book();
        let wanted = self.config.task_accounts(&book);
        let told_not_to = !self.config.coordinator_options.in_accounts;
        let served = |name: &str| told_not_to || wanted.iter().any(|account| account.name == name);
        for spec in book.accounts().iter().filter(|spec| spec.coordinator.is_some() && !served(&spec.name)) {
            warn!(
                "Account {:?} asks for a task coordinator and gets none: it has no JetStream to keep tasks in",
                spec.name
            );
        }
        match &mut self.coordinators {
            Some(coordinators) => coordinators.apply(wanted).await,
            None => Vec::new(),
        }
    }

    /// The accounts that a task coordinator serves, as people call them.
    pub fn task_accounts(&self) -> Vec<String> {
        self.board.labels()
    }

    fn accept(&self, listener: TcpListener, handshake: CurrentHandshake) {
        let (broker, stop) = (self.broker.clone(), self.stop_connections.clone());
        self.until_stop(accept::accept(listener, broker, handshake, self.tasks.clone(), stop));
    }

    fn accept_websocket(&self, listener: TcpListener, port: u16, handshake: CurrentHandshake) {
        let Some(settings) = self.config.websocket.clone() else { return };
        let (broker, stop) = (self.broker.clone(), self.stop_connections.clone());
        let hosts = listener.local_addr().map(|address| Hosts::of(&self.config, address)).unwrap_or_default();
        let entrance = Arc::new(websocket::Entrance { broker, settings, handshake, port, hosts, stop });
        self.until_stop(websocket::accept(listener, entrance, self.tasks.clone()));
    }

    /// Runs `accepting` until no further connections are wanted.
    fn until_stop(&self, accepting: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop_new_clients.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = accepting => {}
                () = stop.cancelled() => {}
            }
        });
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The streams; `None` when JetStream is off.
    pub fn jetstream(&self) -> Option<&Arc<JetStream>> {
        self.jetstream.as_ref().map(|running| &running.jetstream)
    }

    /// Where clients connect; `None` when the broker serves only its own process.
    pub fn client_address(&self) -> Option<SocketAddr> {
        self.client_address
    }

    /// Where the monitoring endpoints answer; `None` when they are off.
    pub fn monitor_address(&self) -> Option<SocketAddr> {
        self.monitor_address
    }

    /// Where the monitoring endpoints answer over TLS; `None` when they do not.
    pub fn monitor_tls_address(&self) -> Option<SocketAddr> {
        self.monitor_tls_address
    }

    /// Where WebSocket clients connect, `ws://host:port` or `wss://`; `None` when they cannot.
    pub fn websocket_url(&self) -> Option<String> {
        let secure = self.config.websocket.as_ref().is_some_and(|websocket| websocket.tls.is_some());
        let scheme = if secure { "wss" } else { "ws" };
        self.websocket_address.map(|address| format!("{scheme}://{address}"))
    }

    /// `nats://host:port` for clients on this machine; empty when nothing listens.
    pub fn client_url(&self) -> String {
        self.client_address.map(|address| format!("nats://{}", reachable(address))).unwrap_or_default()
    }

    /// A client inside the process. It lives as long as the server.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        Client::attach(self.connect_in_process(), ConnectOptions::default()).await
    }

    /// A connection from inside the process: one end of a byte stream whose other end is served like any client.
    pub fn connect_in_process(&self) -> tokio::io::DuplexStream {
        self.pipes.connect(&self.broker.account)
    }

    /// Stops in order: no new connections, coordinator and streams finish what has begun, what clients are owed is
    /// flushed, the store is closed. Takes at most a few seconds however slow the clients are.
    pub async fn stop(mut self) {
        self.stop_accepting.cancel();
        if let Some(coordinators) = self.coordinators.take() {
            coordinators.stop().await;
        }
        if let Some(running) = &self.jetstream {
            for jetstream in running.all() {
                jetstream.stop().await;
            }
        }
        // Before those are gone who listen.
        let _ = tokio::time::timeout(EVENTS_PATIENCE, &mut self.events).await;
        self.stop_connections.cancel();
        self.tasks.close();
        let _ =
            tokio::time::timeout(self.config.limits.drain_deadline + Duration::from_secs(1), self.tasks.wait()).await;
        if let Some(running) = self.jetstream.take() {
            // Waits for the last commits, and may take as long as the disk does.
            let _ = tokio::task::spawn_blocking(move || running.store.close()).await;
        }
        self.files.remove();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_accepting.cancel();
        self.stop_connections.cancel();
    }
}

/// What trace lines show.
fn trace_terms(log: &Log) -> TraceTerms {
    TraceTerms { payload_bytes_max: log.traced_bytes_max, headers_only: log.trace_headers, system: log.trace_verbose }
}

/// Opens the store and brings its streams back, off the runtime's workers: both may read a lot.
async fn start_jetstream(config: &Config, broker: &Arc<Broker>) -> Result<Running, StartError> {
    let (folder, broker) = (config.store_dir.clone(), broker.clone());
    let (settings, limits) = (config.jetstream_options.clone(), config.jetstream_limits.clone());
    let options = storage::Options { cache_bytes: config.cache_bytes_max(), ..storage::Options::default() };
    let started = tokio::task::spawn_blocking(move || -> Result<Running, StartError> {
        let (store, recovered) = Store::open(&folder, options)?;
        let options = resources::jetstream(&settings, &limits, &folder);
        let start = |account: &Arc<Account>, options| {
            JetStream::start(&broker, account, options, store.clone(), &recovered).map(Arc::new)
        };
        let jetstream = start(&broker.account, options.clone())?;
        let book = broker.gate.book();
        let mut accounts = vec![jetstream.clone()];
        for spec in book.accounts().iter().filter(|spec| spec.name != broker.account.name) {
            if let (Some(limits), Some(account)) = (&spec.jetstream, broker.find_account(&spec.name)) {
                accounts.push(start(&account, resources::of_account(&options, limits))?);
            }
        }
        let served = accounts.clone();
        let is_served = |name: &String| served.iter().any(|jetstream| jetstream.account().name == *name);
        let accounts = Arc::new(RwLock::new(accounts));
        let homes = recovered.streams.iter().map(|stream| (jetstream::account_of(stream), stream.id));
        let asleep = homes.filter(|(name, _)| !is_served(name)).collect();
        Ok(Running { jetstream, accounts, asleep, closed: HashSet::new(), options, store })
    });
    started.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// An address clients on this machine can connect to, also when all interfaces are listened on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

async fn listen(on: Option<&Listen>, flag: &'static str) -> Result<Option<TcpListener>, StartError> {
    let Some(on) = on else { return Ok(None) };
    let bound = accept::bind(on).await;
    bound.map(Some).map_err(|source| StartError::Listen { address: on.to_string(), source, flag })
}

fn identity(broker: &Broker, listen: Option<SocketAddr>, monitors: [Option<SocketAddr>; 2]) -> Identity {
    let [monitor, monitor_tls] = monitors;
    let info = broker.info();
    Identity {
        host: info.host,
        system_account: broker.system_account().name.clone(),
        domain: info.domain,
        jetstream: info.jetstream,
        server_id: info.server_id,
        server_name: info.server_name,
        version: info.version,
        listen,
        monitor,
        monitor_tls,
        start: broker.started,
    }
}

fn first_info(config: &Config, server_id: String, address: Option<SocketAddr>) -> Info {
    let listened = config.listen.as_ref().map(|listen| listen.host.clone()).unwrap_or_default();
    let (host, port) = advertised(config, listened, address.map(|address| address.port()).unwrap_or_default());
    Info {
        server_name: config.server_name.clone().unwrap_or_else(|| server_id.clone()),
        server_id,
        version: NATS_VERSION.to_owned(),
        proto: 1,
        host,
        port,
        headers: true,
        max_payload: config.limits.payload_bytes_max as i64,
        jetstream: config.jetstream,
        ..Info::default()
    }
}

/// What clients are told to connect to: `client_advertise`, a host with or without a port, or where we listen.
fn advertised(config: &Config, host: String, port: u16) -> (String, u16) {
    let Some(advertise) = &config.client_advertise else { return (host, port) };
    match advertise.rsplit_once(':') {
        Some((host, number)) if !host.contains(':') || host.ends_with(']') => {
            let host = host.trim_matches(['[', ']']).to_owned();
            (host, number.parse().unwrap_or(port))
        }
        _ => (advertise.clone(), port),
    }
}

fn options(config: &Config) -> Options {
    let limits = &config.limits;
    Options {
        session: Settings {
            max_control_line: limits.control_line_bytes_max,
            max_payload: limits.payload_bytes_max,
            auth_required: false,
            connect_timeout: limits.auth_timeout,
            ping_interval: limits.ping_interval,
            max_pings_out: limits.pings_out_max,
        },
        pending_bytes_max: limits.pending_bytes_max,
        subscriptions_max: limits.subscriptions_max,
        connections_max: limits.connections_max,
        closed_clients_max: limits.closed_clients_max,
        write_deadline: limits.write_deadline,
        memory_bytes_max: config.client_memory_bytes_max(),
        server_tags: config.server_tags.clone(),
    }
}
