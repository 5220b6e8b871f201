//! The command line as clap reads it, and the serving flags' way into a [`Config`].

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::agent::AgentCommand;
use super::completions::CompletionsCommand;
use super::coordinator::CoordinatorCommand;
use super::council::CouncilCommand;
use super::cron::CronCommand;
use super::demo::DemoCommand;
use super::dlq::DlqCommand;
use super::doctor::DoctorCommand;
use super::passwd::PasswdCommand;
use super::queue::QueueCommand;
use super::task::TaskCommand;
use crate::config::{Config, Listen, Log, LogFormat, LogLevel, file};

/// A NATS-compatible broker with durable streams and an embedded task coordinator, in one binary and one store file.
///
/// Without a command it serves: NATS clients connect to 127.0.0.1:4222, monitoring answers on
/// http://127.0.0.1:8222, and every acknowledged message is on disk before it is acknowledged.
#[derive(Debug, Parser)]
#[command(
    name = "natterjack",
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    max_term_width = 110,
    after_help = AFTER_HELP
)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: ServeFlags,
    /// Print the version and exit.
    #[arg(short = 'v', long, action = ArgAction::SetTrue)]
    pub version: bool,
}

const AFTER_HELP: &str = "\
Examples:
  natterjack                                 serve with the defaults
  natterjack demo                            see three agents work through a few hundred tasks
  natterjack -p 5222 -m -1 -sd ./data        another port, any monitoring port, another folder
  natterjack task submit --queue build 'cargo test'
  natterjack task ls --watch
  natterjack queue pause build

Flags are nats-server's where it has them, with one dash or two.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve clients (what happens without a command).
    Serve(Box<ServeFlags>),
    Demo(DemoCommand),
    Task(Box<TaskCommand>),
    Agent(AgentCommand),
    Queue(QueueCommand),
    Council(CouncilCommand),
    Cron(CronCommand),
    Dlq(DlqCommand),
    Coordinator(Box<CoordinatorCommand>),
    Doctor(DoctorCommand),
    Passwd(PasswdCommand),
    Completions(CompletionsCommand),
}

/// The names after which an argument list is not the serving form.
pub const SUBCOMMANDS: &[&str] = &[
    "serve",
    "demo",
    "task",
    "agent",
    "queue",
    "council",
    "cron",
    "dlq",
    "coordinator",
    "doctor",
    "passwd",
    "completions",
    "help",
];

#[derive(Clone, Debug, Default, Args)]
#[command(args_override_self = true)]
pub struct ServeFlags {
    /// Configuration file; a flag beats what it says.
    #[arg(short = 'c', long, value_name = "FILE", help_heading = SERVING)]
    pub config: Option<PathBuf>,
    /// Check the configuration file and exit.
    #[arg(short = 't', help_heading = SERVING)]
    pub test_config: bool,
    /// Address to listen on; anything but this machine's own opens the broker to the network.
    #[arg(short = 'a', long, alias = "net", value_name = "HOST", help_heading = SERVING)]
    pub addr: Option<String>,
    /// Let other machines connect although nobody is asked who they are.
    #[arg(long = "allow_open", alias = "allow-open", help_heading = SERVING)]
    pub allow_open: bool,
    /// Port for clients; -1 takes any free one [default: 4222].
    #[arg(short, long, value_name = "PORT", allow_negative_numbers = true, value_parser = port, help_heading = SERVING)]
    pub port: Option<u16>,
    /// Port for HTTP monitoring; -1 takes any free one, 0 switches it off [default: 8222].
    #[arg(
        short = 'm',
        long = "http_port",
        value_name = "PORT",
        allow_negative_numbers = true,
        value_parser = monitor_port,
        help_heading = SERVING
    )]
    pub http_port: Option<MonitorPort>,
    /// Port for HTTPS monitoring (also -ms); needs TLS.
    #[arg(
        long = "https_port",
        value_name = "PORT",
        allow_negative_numbers = true,
        value_parser = monitor_port,
        help_heading = SERVING
    )]
    pub https_port: Option<MonitorPort>,
    /// Name of this server in INFO and monitoring.
    #[arg(short = 'n', long = "server_name", alias = "name", value_name = "NAME", help_heading = SERVING)]
    pub server_name: Option<String>,
    /// Address that clients are told to connect to, when it is another than the one listened on.
    #[arg(long = "client_advertise", value_name = "HOST:PORT", help_heading = SERVING)]
    pub client_advertise: Option<String>,
    /// Send a signal to a running server (also -sl): ldm, stop, quit, term, reopen or reload, then `=` and its process id
    /// or pid file when several run.
    #[arg(long, value_name = "SIGNAL[=PID]", help_heading = SERVING)]
    pub signal: Option<String>,
    /// Memory that all clients together can make the broker hold, such as 256MB; above it those who hold most are cut
    /// [default: 256MB].
    #[arg(long = "memory_budget", value_name = "SIZE", value_parser = size, help_heading = SERVING)]
    pub memory_budget: Option<usize>,
    /// Folder of the store file (also -sd) [default: the platform's data folder].
    #[arg(long = "store_dir", alias = "store-dir", value_name = "DIR", help_heading = STORE)]
    pub store_dir: Option<PathBuf>,
    /// Streams and consumers on (also -js); they are on unless the program is called nats-server.
    #[arg(
        long, value_name = SWITCH, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = truth, help_heading = STORE
    )]
    pub jetstream: Option<bool>,
    /// No streams, no consumers, no tasks: core NATS only, nothing on disk.
    #[arg(long, conflicts_with_all = ["jetstream", "coordinator"], help_heading = STORE)]
    pub no_jetstream: bool,
    /// The task coordinator on; it is on unless the program is called nats-server.
    #[arg(long, overrides_with = "no_coordinator", help_heading = STORE)]
    pub coordinator: bool,
    /// No task coordinator.
    #[arg(long, overrides_with = "coordinator", help_heading = STORE)]
    pub no_coordinator: bool,
    /// The user that clients must name.
    #[arg(long, value_name = "USER", help_heading = ACCESS)]
    pub user: Option<String>,
    /// The password that goes with --user. Others on this machine see what stands on a command line: better in the
    /// environment, or in the config file, which also takes its hash.
    #[arg(long, value_name = "PASSWORD", env = "NATTERJACK_PASSWORD", hide_env_values = true, help_heading = ACCESS)]
    pub pass: Option<String>,
    /// The token that clients must show; see --pass.
    #[arg(long, value_name = "TOKEN", env = "NATTERJACK_TOKEN", hide_env_values = true, help_heading = ACCESS)]
    pub auth: Option<String>,
    /// TLS on, without asking clients for certificates.
    #[arg(
        long, value_name = SWITCH, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = truth, help_heading = ACCESS
    )]
    pub tls: Option<bool>,
    /// The server's certificate.
    #[arg(long, value_name = "FILE", help_heading = ACCESS)]
    pub tlscert: Option<PathBuf>,
    /// The certificate's private key.
    #[arg(long, value_name = "FILE", help_heading = ACCESS)]
    pub tlskey: Option<PathBuf>,
    /// TLS on, and clients must show a certificate.
    #[arg(
        long, value_name = SWITCH, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = truth, help_heading = ACCESS
    )]
    pub tlsverify: Option<bool>,
    /// The authorities that clients' certificates must come from.
    #[arg(long, value_name = "FILE", help_heading = ACCESS)]
    pub tlscacert: Option<PathBuf>,
    /// Log debugging details (-DV: and every protocol operation).
    #[arg(
        short = 'D', long, value_name = SWITCH, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = truth, help_heading = LOGGING
    )]
    pub debug: Option<bool>,
    /// Log every protocol operation (-VV: those of the system account too).
    #[arg(
        short = 'V', long, value_name = SWITCH, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = truth, help_heading = LOGGING
    )]
    pub trace: Option<bool>,
    #[arg(
        long = "trace_verbose", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = truth, hide = true
    )]
    pub trace_verbose: Option<bool>,
    /// How much of a message a trace line shows, in bytes.
    #[arg(long = "max_traced_msg_len", value_name = "BYTES", help_heading = LOGGING)]
    pub max_traced_msg_len: Option<usize>,
    /// The least important lines to log: error, warn, info, debug or trace.
    #[arg(long = "log-level", value_name = "LEVEL", value_parser = log_level, help_heading = LOGGING)]
    pub log_level: Option<Verbosity>,
    /// Append the log to this file instead of standard error.
    #[arg(short = 'l', long, value_name = "FILE", help_heading = LOGGING)]
    pub log: Option<PathBuf>,
    /// How lines look: text, as nats-server's, or json.
    #[arg(long = "log_format", value_name = "FORMAT", help_heading = LOGGING)]
    pub log_format: Option<LogFormat>,
    /// Bytes at which the log file is put aside and a new one begun.
    #[arg(long = "log_size_limit", value_name = "BYTES", help_heading = LOGGING)]
    pub log_size_limit: Option<u64>,
    /// Date and time in each line; on unless --logtime=false.
    #[arg(
        short = 'T', long, value_name = SWITCH, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = truth, help_heading = LOGGING
    )]
    pub logtime: Option<bool>,
    /// Log times in UTC instead of local time.
    #[arg(
        long = "logtime_utc", value_name = SWITCH, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = truth, help_heading = LOGGING
    )]
    pub logtime_utc: Option<bool>,
    /// Write the process id to this file.
    #[arg(short = 'P', long, value_name = "FILE", help_heading = LOGGING)]
    pub pid: Option<PathBuf>,
    /// Write the addresses in use to <program>_<pid>.ports in this folder.
    #[arg(long = "ports_file_dir", value_name = "DIR", help_heading = LOGGING)]
    pub ports_file_dir: Option<PathBuf>,
    #[command(flatten)]
    pub unserved: UnservedFlags,
}

/// nats-server's flags for what we do not have: accepted, so that its command lines work, and answered with a warning.
#[derive(Clone, Debug, Default, Args)]
pub struct UnservedFlags {
    #[arg(long, hide = true)]
    routes: Option<String>,
    #[arg(long, alias = "cluster_listen", hide = true)]
    cluster: Option<String>,
    #[arg(long = "cluster_name", hide = true)]
    cluster_name: Option<String>,
    #[arg(long = "cluster_advertise", hide = true)]
    cluster_advertise: Option<String>,
    #[arg(
        long = "no_advertise", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true
    )]
    no_advertise: Option<String>,
    #[arg(long = "connect_retries", allow_negative_numbers = true, hide = true)]
    connect_retries: Option<String>,
    #[arg(long, allow_negative_numbers = true, hide = true)]
    profile: Option<String>,
    #[arg(short = 's', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    syslog: Option<String>,
    #[arg(short = 'r', long = "remote_syslog", hide = true)]
    remote_syslog: Option<String>,
}

impl UnservedFlags {
    /// A warning for each that is given.
    fn warnings(&self) -> Vec<String> {
        const ALONE: &str = "natterjack is one server without a cluster";
        const NO_SYSLOG: &str = "natterjack logs to standard error or to the file of --log";
        let given: [(&str, &Option<String>, &str); 9] = [
            ("routes", &self.routes, ALONE),
            ("cluster", &self.cluster, ALONE),
            ("cluster_name", &self.cluster_name, ALONE),
            ("cluster_advertise", &self.cluster_advertise, ALONE),
            ("no_advertise", &self.no_advertise, ALONE),
            ("connect_retries", &self.connect_retries, ALONE),
            ("profile", &self.profile, "natterjack has no profiling port"),
            ("syslog", &self.syslog, NO_SYSLOG),
            ("remote_syslog", &self.remote_syslog, NO_SYSLOG),
        ];
        let given = given.iter().filter(|(_, value, _)| value.as_deref().is_some_and(|value| value != "false"));
        given.map(|(name, _, reason)| format!("--{name} is ignored: {reason}")).collect()
    }
}

const SERVING: &str = "Serving";
const STORE: &str = "Streams and tasks";
const ACCESS: &str = "Access";
const LOGGING: &str = "Logging and files";
/// How help shows what a switch may be given.
const SWITCH: &str = "true|false";

/// `-m 0` is a choice of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorPort {
    Off,
    Port(u16),
}

/// `--log-level` in the log's own terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity {
    level: LogLevel,
    debug: bool,
    trace: bool,
}

impl ServeFlags {
    /// What the flags say, over `base`.
    pub fn over(&self, base: Config) -> Config {
        let mut config = base;
        self.addresses(&mut config);
        set(&mut config.server_name, &self.server_name);
        set(&mut config.client_advertise, &self.client_advertise);
        config.allow_open |= self.allow_open;
        config.limits.memory_bytes_max = self.memory_budget.unwrap_or(config.limits.memory_bytes_max);
        if let Some(store_dir) = &self.store_dir {
            config.store_dir.clone_from(store_dir);
        }
        let jetstream = self.jetstream.unwrap_or(config.jetstream || self.coordinator);
        config.jetstream = jetstream && !self.no_jetstream;
        config.coordinator = (config.coordinator || self.coordinator) && !self.no_coordinator && config.jetstream;
        if self.no_coordinator || self.no_jetstream || self.jetstream == Some(false) {
            config.coordinator_options.in_accounts = false;
        }
        // What is empty asks for nothing, as an environment variable that a script leaves empty does.
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        set(&mut config.single_user.user, &said(&self.user));
        set(&mut config.single_user.password, &said(&self.pass));
        set(&mut config.single_user.token, &said(&self.auth));
        set(&mut config.tls_flags.on, &self.tls);
        set(&mut config.tls_flags.verify, &self.tlsverify);
        set(&mut config.tls_flags.cert, &self.tlscert);
        set(&mut config.tls_flags.key, &self.tlskey);
        set(&mut config.tls_flags.ca, &self.tlscacert);
        self.logging(&mut config.log);
        set(&mut config.pid_file, &self.pid);
        set(&mut config.ports_file_dir, &self.ports_file_dir);
        config.warnings.extend(self.unserved.warnings());
        config
    }

    fn addresses(&self, config: &mut Config) {
        let listen_now = config.listen.take().unwrap_or_else(Listen::any_port);
        let host = self.addr.clone().unwrap_or(listen_now.host);
        let monitoring = |now: Option<Listen>, asked: Option<MonitorPort>| match asked {
            Some(MonitorPort::Off) => None,
            Some(MonitorPort::Port(port)) => {
                let host = now.map_or_else(|| host.clone(), |monitor| monitor.host);
                Some(Listen { host: self.addr.clone().unwrap_or(host), port })
            }
            // Opening the broker to the network does not open monitoring, unless its port is asked for as well.
            None => now,
        };
        config.monitor = monitoring(config.monitor.take(), self.http_port);
        config.health_check = config.health_check.take().filter(|_| self.http_port.is_none());
        config.monitor_tls = monitoring(config.monitor_tls.take(), self.https_port);
        config.listen = Some(Listen { host, port: self.port.unwrap_or(listen_now.port) });
    }

    fn logging(&self, log: &mut Log) {
        if let Some(Verbosity { level, debug, trace }) = self.log_level {
            *log = Log { level, debug, trace, ..log.clone() };
        }
        log.debug = self.debug.unwrap_or(log.debug);
        log.trace = self.trace.unwrap_or(log.trace);
        log.trace_verbose = self.trace_verbose.unwrap_or(log.trace_verbose);
        log.time = self.logtime.unwrap_or(log.time);
        log.format = self.log_format.unwrap_or(log.format);
        log.utc = self.logtime_utc.unwrap_or(log.utc);
        set(&mut log.file, &self.log);
        log.file_bytes_max = self.log_size_limit.unwrap_or(log.file_bytes_max);
        log.traced_bytes_max = self.max_traced_msg_len.unwrap_or(log.traced_bytes_max);
    }
}

fn set<T: Clone>(value: &mut Option<T>, flag: &Option<T>) {
    if flag.is_some() {
        value.clone_from(flag);
    }
}

/// A size as the config file has it: `1000`, `64MB`.
fn size(text: &str) -> Result<usize, String> {
    let size = file::size(text).and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| "a size is a number, such as 268435456, 256MB or 1GB".to_owned())
}

/// A truth value as Go's flag package reads it.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// -1 and 0 are "any free port", which sockets call 0.
fn port(text: &str) -> Result<u16, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(0),
        Ok(port) => u16::try_from(port).map_err(|_| "a port is at most 65535, or -1 for any free one".to_owned()),
        Err(_) => Err("a port is a number, or -1 for any free one".to_owned()),
    }
}

fn monitor_port(text: &str) -> Result<MonitorPort, String> {
    if text == "0" { Ok(MonitorPort::Off) } else { port(text).map(MonitorPort::Port) }
}

fn log_level(text: &str) -> Result<Verbosity, String> {
    let (level, debug, trace) = match text.to_ascii_lowercase().as_str() {
        "error" | "err" => (LogLevel::Error, false, false),
        "warn" | "warning" => (LogLevel::Warn, false, false),
        "info" => (LogLevel::Info, false, false),
        "debug" => (LogLevel::Info, true, false),
        "trace" => (LogLevel::Info, true, true),
        _ => return Err("one of error, warn, info, debug, trace".to_owned()),
    };
    Ok(Verbosity { level, debug, trace })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CoordinatorOptions, Limits, SingleUser, TlsFlags};

    fn config_of(line: &str) -> Result<Config, String> {
        let words = std::iter::once("natterjack").chain(line.split_whitespace()).map(Into::into);
        let normal = super::super::argv::normalise(words, SUBCOMMANDS);
        let parsed = CommandLine::try_parse_from(normal).map_err(|error| error.to_string())?;
        let flags = match parsed.command {
            Some(Command::Serve(flags)) => *flags,
            None => parsed.serve,
            Some(_) => unreachable!("only serving lines are checked"),
        };
        Ok(flags.over(Config::in_folder("base")))
    }

    #[test]
    fn the_definition_holds_together() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn flags_lead_to_a_config() {
        let base = || Config::in_folder("base");
        let at = |host: &str, port| Some(Listen { host: host.into(), port });
        let check = |line: &str, expected: Config| assert_eq!(config_of(line).unwrap(), expected, "{line}");
        check("", base());
        check("-p 5222", Config { listen: at("127.0.0.1", 5222), ..base() });
        check("-p -1 -m -1 -a 127.0.0.2", Config { listen: at("127.0.0.2", 0), monitor: at("127.0.0.2", 0), ..base() });
        check("serve --port=0 -m 0", Config { listen: at("127.0.0.1", 0), monitor: None, ..base() });
        check("-a 0.0.0.0", Config { listen: at("0.0.0.0", 4222), ..base() });
        check("--jetstream --store_dir /data", Config { store_dir: "/data".into(), ..base() });
        let log = |level, debug, trace| Log { level, debug, trace, ..Log::default() };
        let info = LogLevel::Info;
        check("-sd /data -DV", Config { store_dir: "/data".into(), log: log(info, true, true), ..base() });
        check("-V", Config { log: log(info, false, true), ..base() });
        check("-DVV -D=false", Config { log: Log { trace_verbose: true, ..log(info, false, true) }, ..base() });
        check("--log-level warn", Config { log: log(LogLevel::Warn, false, false), ..base() });
        check("--log-level trace", Config { log: log(info, true, true), ..base() });
        check("-l f -T=false", Config { log: Log { file: Some("f".into()), time: false, ..Log::default() }, ..base() });
        let nowhere = || CoordinatorOptions { in_accounts: false, ..CoordinatorOptions::default() };
        let off = || Config { jetstream: false, coordinator: false, coordinator_options: nowhere(), ..base() };
        check("-js=false", off());
        let token = SingleUser { token: Some("-t".into()), ..SingleUser::default() };
        check("--auth -t", Config { single_user: token, ..base() });
        let tls = TlsFlags { verify: Some(true), cert: Some("c".into()), ..TlsFlags::default() };
        check("--tlsverify --tlscert c", Config { tls_flags: tls, ..base() });
        let files = |on| TlsFlags {
            on: Some(on),
            cert: Some("c".into()),
            key: Some("k".into()),
            ca: Some("a".into()),
            verify: None,
        };
        check("--tls --tlscert c --tlskey k --tlscacert a", Config { tls_flags: files(true), ..base() });
        check("-tls=false -tlscert=c -tlskey=k -tlscacert=a", Config { tls_flags: files(false), ..base() });
        check("--user= --auth=", base());
        let single = SingleUser { user: Some("u".into()), password: Some("p".into()), token: None };
        check("--user u --pass p", Config { single_user: single, ..base() });
        let ignored = "--cluster_name is ignored: natterjack is one server without a cluster".to_owned();
        check("--cluster_name C --no_advertise=false", Config { warnings: vec![ignored], ..base() });
        let limits = Limits { memory_bytes_max: 64 << 20, ..Limits::default() };
        check("--memory_budget 64MB", Config { limits, ..base() });
        check("-p 1 -p 2", Config { listen: at("127.0.0.1", 2), ..base() });
        check("--no-jetstream", off());
        check("--no-coordinator -n box", Config { jetstream: true, server_name: Some("box".into()), ..off() });
        check(
            "-P p --ports_file_dir d",
            Config { pid_file: Some("p".into()), ports_file_dir: Some("d".into()), ..base() },
        );
    }

    #[test]
    fn bad_values_say_what_is_allowed() {
        for (line, expected) in [
            ("-p 70000", "a port is at most 65535, or -1 for any free one"),
            ("-p x", "a port is a number, or -1 for any free one"),
            ("--memory_budget much", "a size is a number"),
            ("--log-level loud", "one of error, warn, info, debug, trace"),
        ] {
            let error = config_of(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
