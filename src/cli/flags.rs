//! The command line as clap reads it, and the serving flags' way into a [`Config`].

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::agent::AgentCommand;
use super::demo::DemoCommand;
use super::task::TaskCommand;
use crate::config::{Config, Listen, LogLevel};

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
  natterjack task ls

Flags are nats-server's where it has them, with one dash or two.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve clients (what happens without a command).
    Serve(ServeFlags),
    Demo(DemoCommand),
    Task(TaskCommand),
    Agent(AgentCommand),
}

/// The names after which an argument list is not the serving form.
pub const SUBCOMMANDS: &[&str] = &["serve", "demo", "task", "agent", "help"];

#[derive(Clone, Debug, Default, Args)]
pub struct ServeFlags {
    /// Address to listen on; anything but this machine's own opens the broker to the network.
    #[arg(short = 'a', long, value_name = "HOST", help_heading = SERVING)]
    pub addr: Option<String>,
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
    /// Name of this server in INFO and monitoring.
    #[arg(short = 'n', long = "server_name", alias = "name", value_name = "NAME", help_heading = SERVING)]
    pub server_name: Option<String>,
    /// Folder of the store file (also -sd) [default: the platform's data folder].
    #[arg(long = "store_dir", alias = "store-dir", value_name = "DIR", help_heading = STORE)]
    pub store_dir: Option<PathBuf>,
    /// Streams and consumers on (also -js); they are on unless the program is called nats-server.
    #[arg(long, help_heading = STORE)]
    pub jetstream: bool,
    /// No streams, no consumers, no tasks: core NATS only, nothing on disk.
    #[arg(long, conflicts_with_all = ["jetstream", "coordinator"], help_heading = STORE)]
    pub no_jetstream: bool,
    /// The task coordinator on; it is on unless the program is called nats-server.
    #[arg(long, overrides_with = "no_coordinator", help_heading = STORE)]
    pub coordinator: bool,
    /// No task coordinator.
    #[arg(long, overrides_with = "coordinator", help_heading = STORE)]
    pub no_coordinator: bool,
    /// Log debugging details.
    #[arg(short = 'D', long, help_heading = LOGGING)]
    pub debug: bool,
    /// Log every protocol operation.
    #[arg(short = 'V', long, help_heading = LOGGING)]
    pub trace: bool,
    /// How much to log.
    #[arg(long = "log-level", value_name = "LEVEL", value_parser = log_level, help_heading = LOGGING)]
    pub log_level: Option<LogLevel>,
    /// Append the log to this file instead of standard error.
    #[arg(short = 'l', long, value_name = "FILE", help_heading = LOGGING)]
    pub log: Option<PathBuf>,
    /// Write the process id to this file.
    #[arg(short = 'P', long, value_name = "FILE", help_heading = LOGGING)]
    pub pid: Option<PathBuf>,
    /// Write the addresses in use to <program>_<pid>.ports in this folder.
    #[arg(long = "ports_file_dir", value_name = "DIR", help_heading = LOGGING)]
    pub ports_file_dir: Option<PathBuf>,
}

const SERVING: &str = "Serving";
const STORE: &str = "Streams and tasks";
const LOGGING: &str = "Logging and files";

/// `-m 0` is a choice of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorPort {
    Off,
    Port(u16),
}

impl ServeFlags {
    /// What the flags say, over `base`.
    pub fn config(&self, base: Config) -> Config {
        let mut config = base;
        let listen_now = config.listen.take().unwrap_or_else(Listen::any_port);
        let host = self.addr.clone().unwrap_or(listen_now.host);
        config.monitor = match self.http_port {
            Some(MonitorPort::Off) => None,
            Some(MonitorPort::Port(port)) => {
                let host = config.monitor.map_or_else(|| host.clone(), |monitor| monitor.host);
                Some(Listen { host: self.addr.clone().unwrap_or(host), port })
            }
            // Opening the broker to the network does not open monitoring, unless its port is asked for as well.
            None => config.monitor,
        };
        config.listen = Some(Listen { host, port: self.port.unwrap_or(listen_now.port) });
        if self.server_name.is_some() {
            config.server_name.clone_from(&self.server_name);
        }
        if let Some(store_dir) = &self.store_dir {
            config.store_dir.clone_from(store_dir);
        }
        config.jetstream = (config.jetstream || self.jetstream || self.coordinator) && !self.no_jetstream;
        config.coordinator = (config.coordinator || self.coordinator) && !self.no_coordinator && config.jetstream;
        config.log_level = match self.log_level {
            Some(level) => level,
            None if self.trace => LogLevel::Trace,
            None if self.debug => LogLevel::Debug,
            None => config.log_level,
        };
        config.pid_file.clone_from(&self.pid);
        config.ports_file_dir.clone_from(&self.ports_file_dir);
        config
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

fn log_level(text: &str) -> Result<LogLevel, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "error" | "err" => LogLevel::Error,
        "warn" | "warning" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => return Err("one of error, warn, info, debug, trace".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_of(line: &str) -> Result<Config, String> {
        let words = std::iter::once("natterjack").chain(line.split_whitespace()).map(Into::into);
        let normal = super::super::argv::normalise(words, SUBCOMMANDS);
        let parsed = CommandLine::try_parse_from(normal).map_err(|error| error.to_string())?;
        let flags = match parsed.command {
            Some(Command::Serve(flags)) => flags,
            None => parsed.serve,
            Some(_) => unreachable!("only serving lines are checked"),
        };
        Ok(flags.config(Config::in_folder("base")))
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
        check("-sd /data -DV", Config { store_dir: "/data".into(), log_level: LogLevel::Trace, ..base() });
        check("-D --log-level warn", Config { log_level: LogLevel::Warn, ..base() });
        check("--no-jetstream", Config { jetstream: false, coordinator: false, ..base() });
        check("--no-coordinator -n box", Config { coordinator: false, server_name: Some("box".into()), ..base() });
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
            ("--log-level loud", "one of error, warn, info, debug, trace"),
        ] {
            let error = config_of(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
