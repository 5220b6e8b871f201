//! What a broker is told before it starts: one checked [`Config`] with our defaults, or nats-server's when the program
//! is called by that name. Owns defaults and their limits; must not know sockets or flags (`cli` turns flags into it).

mod access;
mod coordinator;
pub mod file;
mod hosts;
mod limits;
mod log;
mod metrics;
mod streams;
mod tls;
mod websocket;

use crate::auth::{Book, BookError, ConnectionType, Plan, Secret, SimpleLogin};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use access::{SingleUser, TlsFlags};
pub use coordinator::{CoordinatorOptions, TaskAccount};
pub use hosts::{Hosts, UNKNOWN_HOST};
pub use limits::{JetStreamLimits, Limits};
pub use log::{Log, LogFormat, LogLevel};
pub use metrics::Metrics;
pub use streams::{DeclaredConsumer, DeclaredStream};
pub use tls::{HandshakeFirst, Tls};
pub use websocket::WebSocket;

/// Everything a broker needs to start. `Config::default()` is what `natterjack` without flags runs with.
///
/// ```
/// use natterjack::config::{Config, Listen};
///
/// let config = Config { listen: Some(Listen::any_port()), monitor: None, ..Config::in_folder("somewhere") };
/// config.check().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect. `None`: only connections from inside the process.
    pub listen: Option<Listen>,
    /// Where the HTTP monitoring endpoints listen. `None`: nowhere.
    pub monitor: Option<Listen>,
    /// Where they listen if `monitor` was not thought of, the client port is the usual one and this address is free: a
    /// container's health check looks there.
    pub health_check: Option<Listen>,
    /// Where the same endpoints listen for TLS. `None`: nowhere.
    pub monitor_tls: Option<Listen>,
    /// The `host:port` that INFO's `connect_urls` names instead of the address listened on.
    pub client_advertise: Option<String>,
    /// Hosts beside this machine's own and `client_advertise` that requests to monitoring and pages of WebSockets may name,
    /// where those listen on loopback: a reverse proxy's.
    pub allowed_hosts: Vec<String>,
    /// Other machines may connect although nobody is asked who they are.
    pub allow_open: bool,
    /// The name in INFO and in monitoring. `None`: the server's id, as nats-server does.
    pub server_name: Option<String>,
    /// `server_tags`, in lower case.
    pub server_tags: Vec<String>,
    pub server_metadata: BTreeMap<String, String>,
    /// Streams and consumers on. Without it nothing is stored and `store_dir` is not touched.
    pub jetstream: bool,
    pub jetstream_options: JetStreamOptions,
    pub jetstream_limits: JetStreamLimits,
    /// `streams`: what is there once the server has started.
    pub streams: Vec<DeclaredStream>,
    /// The task coordinator on in `$G`. It needs `jetstream`. Other accounts ask for theirs.
    pub coordinator: bool,
    pub coordinator_options: CoordinatorOptions,
    /// The folder that holds the store file; created when missing.
    pub store_dir: PathBuf,
    /// Memory the store may use for cached pages; never more than a quarter of the memory budget.
    pub store_cache_bytes_max: usize,
    pub limits: Limits,
    /// A ports file `<program>_<pid>.ports` is written here once listening and removed on a clean exit.
    pub ports_file_dir: Option<PathBuf>,
    /// The process id is written here (digits only) and the file removed on a clean exit.
    pub pid_file: Option<PathBuf>,
    pub log: Log,
    pub metrics: Metrics,
    /// Users and accounts, as the config file has them.
    pub auth: Plan,
    /// TLS of the client port, as the config file has it.
    pub tls: Option<Tls>,
    pub websocket: Option<WebSocket>,
    pub single_user: SingleUser,
    pub tls_flags: TlsFlags,
    /// What was asked for and is not served, for the log.
    pub warnings: Vec<String>,
}

/// What the config file says in `jetstream {}` beside the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JetStreamOptions {
    /// `domain`: the API also answers on `$JS.<domain>.API.>`. `None`: no domain.
    pub domain: Option<String>,
    /// `max_memory_store`: bytes all streams in memory may reserve. `None`: three quarters of the machine's memory.
    pub memory_bytes_max: Option<u64>,
    /// `max_file_store`: bytes all streams on disk may reserve. `None`: three quarters of what is free below the folder.
    pub storage_bytes_max: Option<u64>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// An IP address or a name to resolve.
    pub host: String,
    /// 0: any free port.
    pub port: u16,
}

/// A configuration that cannot run. The text says what is wrong and what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("the task coordinator keeps its state in JetStream: switch JetStream on, or the coordinator off")]
    CoordinatorNeedsJetStream,
    #[error(
        "account {0:?} keeps no streams, and tasks are kept in streams: add `jetstream: enabled` to it, or take its `coordinator` away"
    )]
    AccountCoordinatorNeedsJetStream(String),
    #[error("account {0:?} is the server's own: tasks belong into another account, take its `coordinator` away")]
    CoordinatorInSystemAccount(String),
    #[error("stream {0:?} is declared, but JetStream is off: switch it on with `jetstream: enabled` or -js")]
    StreamsNeedJetStream(String),
    #[error("{name} must be {allowed}, not {value}")]
    OutOfRange { name: &'static str, allowed: &'static str, value: String },
    #[error("server name {0:?} must not be empty or contain spaces")]
    ServerName(String),
    #[error("invalid domain name {0:?}: may not contain ., * or >, spaces or tabs")]
    Domain(String),
    #[error("{0:?} is not an address to listen on")]
    Host(String),
    #[error(
        "{listen} can be reached from other machines, and nobody is asked who they are: anyone may read and write; ask for \
         credentials (authorization or accounts in the config file, or --user and --pass, or --auth), listen on 127.0.0.1, \
         or say that this is meant with --allow_open or allow_open: true"
    )]
    Open { listen: Listen, websocket: bool },
    #[error(transparent)]
    Auth(#[from] BookError),
    #[error("TLS needs a certificate and its key: --tlscert and --tlskey, or cert_file and key_file in tls")]
    TlsFiles,
    #[error("monitoring over TLS needs TLS: --tlscert and --tlskey, or tls in the config file")]
    MonitorTls,
}

impl ConfigError {
    /// Keys and values of a config file that it may be about, the likeliest first.
    fn words(&self) -> Vec<&str> {
        match self {
            ConfigError::CoordinatorNeedsJetStream => vec!["coordinator", "jetstream"],
            ConfigError::AccountCoordinatorNeedsJetStream(account)
            | ConfigError::CoordinatorInSystemAccount(account) => {
                vec![account]
            }
            ConfigError::StreamsNeedJetStream(name) => vec![name, "streams"],
            ConfigError::OutOfRange { name: "auth_timeout", .. } => vec!["timeout"],
            ConfigError::OutOfRange { name, .. } => vec![name],
            ConfigError::ServerName(_) => vec!["server_name"],
            ConfigError::Domain(_) => vec!["domain"],
            ConfigError::Host(_) => vec!["host", "listen", "http"],
            ConfigError::Open { websocket: true, .. } => vec!["websocket", "ws"],
            ConfigError::Open { .. } => vec!["host", "net", "addr", "listen", "port"],
            ConfigError::Auth(error) => error.words(),
            ConfigError::TlsFiles | ConfigError::MonitorTls => vec!["https_port", "https", "tls"],
        }
    }
}

impl Config {
    /// The defaults, with the store in `folder`.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Config {
        Config {
            listen: Some(Listen::loopback(DEFAULT_PORT)),
            monitor: Some(Listen::loopback(DEFAULT_MONITOR_PORT)),
            health_check: None,
            monitor_tls: None,
            client_advertise: None,
            allowed_hosts: Vec::new(),
            allow_open: false,
            server_name: None,
            server_tags: Vec::new(),
            server_metadata: BTreeMap::new(),
            jetstream: true,
            jetstream_options: JetStreamOptions::default(),
            jetstream_limits: JetStreamLimits::default(),
            streams: Vec::new(),
            coordinator: true,
            coordinator_options: CoordinatorOptions::default(),
            store_dir: folder.into(),
            store_cache_bytes_max: 64 << 20,
            limits: Limits::default(),
            ports_file_dir: None,
            pid_file: None,
            log: Log::default(),
            metrics: Metrics::default(),
            auth: Plan::default(),
            tls: None,
            websocket: None,
            single_user: SingleUser::default(),
            tls_flags: TlsFlags::default(),
            warnings: Vec::new(),
        }
    }

    /// For tests and programs that embed a broker: free ports on loopback, the store in `folder`.
    pub fn on_free_ports(folder: impl Into<PathBuf>) -> Config {
        Config { listen: Some(Listen::any_port()), monitor: Some(Listen::any_port()), ..Config::in_folder(folder) }
    }

    /// nats-server's defaults: all interfaces, no monitoring but for this machine's health checks, payloads of at most
    /// 1 MiB, JetStream and with it the coordinator only on request, its store under the system's temporary folder.
    pub fn nats_server() -> Config {
        Config {
            listen: Some(Listen { host: "0.0.0.0".to_owned(), port: DEFAULT_PORT }),
            monitor: None,
            health_check: Some(Listen::loopback(DEFAULT_MONITOR_PORT)),
            allow_open: true,
            jetstream: false,
            coordinator: false,
            limits: Limits { payload_bytes_max: 1 << 20, ..Limits::default() },
            ..Config::in_folder(std::env::temp_dir().join("nats").join("jetstream"))
        }
    }

    /// Where monitoring listens if that is possible, without having been asked for.
    pub fn unasked_monitor(&self) -> Option<&Listen> {
        let usual = self.listen.as_ref().is_some_and(|listen| listen.port == DEFAULT_PORT);
        self.health_check.as_ref().filter(|_| usual && self.monitor.is_none())
    }

    /// Users and accounts as they are in force: what the command line says goes before the file.
    pub fn auth_plan(&self) -> Plan {
        let mut plan = self.auth.clone();
        if let Some(token) = &self.single_user.token {
            plan.simple = Some(SimpleLogin::Token(Secret::new(token)));
        } else if let Some(user) = &self.single_user.user {
            let password = Secret::new(self.single_user.password.clone().unwrap_or_default());
            plan.simple = Some(SimpleLogin::Password { user: user.clone(), password });
        }
        plan
    }

    /// TLS of the client port as it is in force: what the command line says goes before the file.
    ///
    /// # Errors
    /// When TLS is asked for and certificate or key are not.
    pub fn client_tls(&self) -> Result<Option<Tls>, ConfigError> {
        let flags = &self.tls_flags;
        if flags.on == Some(false) {
            return Ok(None);
        }
        if !flags.asked_for() {
            return Ok(self.tls.clone());
        }
        let file = self.tls.as_ref();
        let cert = flags.cert.clone().or_else(|| file.map(|tls| tls.cert.clone()));
        let key = flags.key.clone().or_else(|| file.map(|tls| tls.key.clone()));
        let (Some(cert), Some(key)) = (cert, key) else { return Err(ConfigError::TlsFiles) };
        let mut tls = Tls { cert: cert.clone(), key: key.clone(), ..file.cloned().unwrap_or(Tls::new(cert, key)) };
        tls.ca = flags.ca.clone().or(tls.ca);
        tls.verify = flags.verify.unwrap_or(tls.verify);
        Ok(Some(tls))
    }

    /// Memory the store gets for cached pages: none without JetStream.
    pub fn cache_bytes_max(&self) -> usize {
        if self.jetstream { self.store_cache_bytes_max.min(self.limits.memory_bytes_max / 4) } else { 0 }
    }

    /// What clients can make the process hold: the memory budget without the store's cache, and without an eighth for what
    /// the allocator cannot give back to the system at once (blocks of a megabyte between others that are in use).
    pub fn client_memory_bytes_max(&self) -> usize {
        self.limits.memory_bytes_max - self.limits.memory_bytes_max / 8 - self.cache_bytes_max()
    }

    /// Where other machines come in and nobody is asked who they are. A client certificate says who somebody is.
    pub fn open_to_others(&self, book: &Book) -> Option<(Listen, ConnectionType)> {
        let asks_for_certificates = |tls: Option<Tls>| tls.is_some_and(|tls| tls.verify && !tls.allow_non_tls);
        let clients = self.listen.as_ref().map(|listen| (listen, self.client_tls().ok().flatten()));
        let websocket = self.websocket.as_ref().map(|websocket| (&websocket.listen, websocket.tls.clone()));
        let ways = [(clients, ConnectionType::Standard), (websocket, ConnectionType::WebSocket)];
        ways.into_iter().find_map(|(listener, way)| {
            let (listen, tls) = listener?;
            let open = !listen.is_loopback() && !book.is_required(way) && !asks_for_certificates(tls);
            open.then(|| (listen.clone(), way))
        })
    }

    fn check_open(&self, book: &Book) -> Result<(), ConfigError> {
        match self.open_to_others(book).filter(|_| !self.allow_open) {
            Some((listen, way)) => Err(ConfigError::Open { listen, websocket: way == ConnectionType::WebSocket }),
            None => Ok(()),
        }
    }

    /// Refuses what cannot run, before anything is opened.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let book = Book::new(&self.auth_plan())?;
        self.check_coordinators(&book)?;
        if let Some(stream) = self.streams.first()
            && !self.jetstream
        {
            return Err(ConfigError::StreamsNeedJetStream(stream.name.clone()));
        }
        if let Some(name) = &self.server_name
            && (name.is_empty() || name.contains(char::is_whitespace))
        {
            return Err(ConfigError::ServerName(name.clone()));
        }
        if let Some(domain) = &self.jetstream_options.domain
            && (domain.is_empty() || domain.contains(['.', '*', '>']) || domain.contains(char::is_whitespace))
        {
            return Err(ConfigError::Domain(domain.clone()));
        }
        for listen in [&self.listen, &self.monitor].into_iter().flatten() {
            if listen.host.is_empty() || listen.host.contains(char::is_whitespace) {
                return Err(ConfigError::Host(listen.host.clone()));
            }
        }
        self.check_open(&book)?;
        if self.client_tls()?.is_none() && self.monitor_tls.is_some() {
            return Err(ConfigError::MonitorTls);
        }
        self.limits.check()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config::in_folder(platform_data_dir())
    }
}

const DEFAULT_PORT: u16 = 4222;
const DEFAULT_MONITOR_PORT: u16 = 8222;

/// The platform's folder for an application's data (`~/.local/share/natterjack`, `~/Library/Application Support/natterjack`,
/// `%APPDATA%\natterjack\data`), or `./natterjack-data` for a user without a home.
pub fn platform_data_dir() -> PathBuf {
    directories::ProjectDirs::from("", "", "natterjack")
        .map_or_else(|| Path::new("natterjack-data").to_owned(), |dirs| dirs.data_dir().to_owned())
}

impl Listen {
    pub fn loopback(port: u16) -> Listen {
        Listen { host: "127.0.0.1".to_owned(), port }
    }

    /// Any free port on loopback.
    pub fn any_port() -> Listen {
        Listen::loopback(0)
    }

    /// Whether only this machine can reach it. A name other than `localhost` counts as reachable.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.bare_host().parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// What to hand to a resolver: `[::1]` without its brackets.
    pub fn bare_host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&self.host)
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Listen {
        Listen { host: address.ip().to_string(), port: address.port() }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.bare_host();
        if host.contains(':') { write!(f, "[{host}]:{}", self.port) } else { write!(f, "{host}:{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_others_reach_asks_who_they_are_or_is_told_not_to() {
        let everywhere = || Listen { host: "0.0.0.0".to_owned(), port: 0 };
        let open = Config { listen: Some(everywhere()), ..Config::default() };
        let error = open.check().unwrap_err();
        assert_eq!(error, ConfigError::Open { listen: everywhere(), websocket: false });
        assert!(error.to_string().contains("--allow_open"), "{error}");
        Config { allow_open: true, ..open.clone() }.check().unwrap();
        let token = SingleUser { token: Some("t".to_owned()), ..SingleUser::default() };
        let asking = Config { single_user: token, ..open.clone() };
        asking.check().unwrap();
        assert!(Config { listen: Some(everywhere()), ..Config::nats_server() }.check().is_ok());
        // A client certificate says who somebody is, unless clients may come without TLS.
        let tls = Tls { verify: true, ..Tls::new("c", "k") };
        Config { tls: Some(tls.clone()), ..open.clone() }.check().unwrap();
        let either = Config { tls: Some(Tls { allow_non_tls: true, ..tls }), ..open };
        assert_eq!(either.check().unwrap_err(), ConfigError::Open { listen: everywhere(), websocket: false });
        let pages = |listen| Config { websocket: Some(WebSocket::new(listen)), ..Config::default() };
        let error = pages(everywhere()).check().unwrap_err();
        assert_eq!(error, ConfigError::Open { listen: everywhere(), websocket: true });
        pages(Listen::any_port()).check().unwrap();
    }

    #[test]
    fn clients_have_the_memory_budget_without_the_cache_and_what_the_allocator_keeps() {
        let limits = Limits { memory_bytes_max: 256 << 20, ..Limits::default() };
        let config = Config { limits, ..Config::default() };
        assert_eq!(config.client_memory_bytes_max(), (256 - 64 - 32) << 20);
        let config = Config { jetstream: false, ..config };
        assert_eq!(config.client_memory_bytes_max(), (256 - 32) << 20);
        let limits = Limits { memory_bytes_max: 64 << 20, ..Limits::default() };
        assert_eq!(Config { limits, ..Config::default() }.client_memory_bytes_max(), (64 - 16 - 8) << 20);
    }

    #[test]
    fn the_defaults_are_safe_and_run() {
        let config = Config::default();
        config.check().unwrap();
        assert_eq!(config.listen.as_ref().unwrap().to_string(), "127.0.0.1:4222");
        assert_eq!(config.monitor.as_ref().unwrap().to_string(), "127.0.0.1:8222");
        assert!(config.listen.unwrap().is_loopback());
        assert!(config.jetstream && config.coordinator);
        assert_eq!(config.limits.payload_bytes_max, 8 << 20);
        Config::nats_server().check().unwrap();
        assert!(!Config::nats_server().listen.unwrap().is_loopback());
        assert_eq!(Config::nats_server().limits.payload_bytes_max, 1 << 20);
        assert_eq!(Config::nats_server().unasked_monitor(), Some(&Listen::loopback(8222)));
        let elsewhere = Config { listen: Some(Listen::any_port()), ..Config::nats_server() };
        let asked_for = Config { monitor: Some(Listen::any_port()), ..Config::nats_server() };
        assert!([elsewhere, asked_for, Config::default()].iter().all(|config| config.unasked_monitor().is_none()));
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let base = || Config::in_folder("x");
        let check = |config: Config, expected: &str| assert_eq!(config.check().unwrap_err().to_string(), expected);
        check(
            Config { jetstream: false, ..base() },
            "the task coordinator keeps its state in JetStream: switch JetStream on, or the coordinator off",
        );
        check(
            Config { server_name: Some("a b".into()), ..base() },
            "server name \"a b\" must not be empty or contain spaces",
        );
        let domain = Some("a.b".to_owned());
        check(
            Config { jetstream_options: JetStreamOptions { domain, ..Default::default() }, ..base() },
            "invalid domain name \"a.b\": may not contain ., * or >, spaces or tabs",
        );
        check(
            Config { listen: Some(Listen { host: String::new(), port: 1 }), ..base() },
            "\"\" is not an address to listen on",
        );
    }

    #[test]
    fn addresses_print_as_urls_need_them() {
        for (host, shown, loopback) in [
            ("127.0.0.1", "127.0.0.1:1", true),
            ("127.9.9.9", "127.9.9.9:1", true),
            ("localhost", "localhost:1", true),
            ("::1", "[::1]:1", true),
            ("[::1]", "[::1]:1", true),
            ("0.0.0.0", "0.0.0.0:1", false),
            ("::", "[::]:1", false),
            ("box.example", "box.example:1", false),
        ] {
            let listen = Listen { host: host.into(), port: 1 };
            assert_eq!((listen.to_string().as_str(), listen.is_loopback()), (shown, loopback), "{host}");
        }
    }
}
