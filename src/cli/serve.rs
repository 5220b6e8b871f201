//! `natterjack` and `natterjack serve`: start, say where everything is, wait to be stopped, stop in order.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use tracing::{error, info, warn};

use super::flags::ServeFlags;
use super::log::LogHandle;
use super::signals::{Signals, Told};
use super::{NATS_SERVER, log};
use crate::config::{Config, Listen};
use crate::server::{self, NO_CONFIG_FILE, ReloadRequest, Server, StartError};

/// Serves until a signal ends it; `settled` is called once it serves. The exit code is 0 after an orderly stop, 1 when it did
/// not start.
pub fn run(flags: &ServeFlags, base: Config, settled: fn()) -> ExitCode {
    if let Some(request) = &flags.signal {
        return signalled(request);
    }
    let config = match configured(flags, base.clone()) {
        Ok(config) => config,
        Err(text) => return failed(&text),
    };
    if flags.test_config {
        return tested(flags, &config);
    }
    if let Err(error) = config.check() {
        return failed(&placed(flags, &StartError::Config(error)));
    }
    let log = match log::start(&config.log) {
        Ok(log) => log,
        Err(error) => {
            let path = config.log.file.as_deref().unwrap_or("the log".as_ref()).display().to_string();
            return failed(&format!("cannot write {path}: {error}\n  Choose another file with -l."));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start threads: {error}")),
    };
    let read_again = || match &flags.config {
        None => Err(NO_CONFIG_FILE.to_owned()),
        Some(path) => {
            let config = configured(flags, base.clone())?;
            config.check().map(|()| config).map_err(|error| Config::with_place(path, &error))
        }
    };
    match runtime.block_on(serve(config, &log, &read_again, settled)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Who reads only the file learns of it as well.
            if log.is_file() {
                error!(target: log::FATAL, "{error}");
            }
            failed(&error.to_string())
        }
    }
}

/// The configuration: defaults, over them the file, over it the flags.
fn configured(flags: &ServeFlags, base: Config) -> Result<Config, String> {
    let base = match &flags.config {
        Some(path) => base.over_file(path).map_err(|errors| errors.to_string())?,
        None if flags.test_config => {
            return Err("must specify [-c, --config] option to check configuration file syntax".to_owned());
        }
        None => base,
    };
    Ok(flags.over(base))
}

/// The error with its place in the config file, where that can be told.
fn placed(flags: &ServeFlags, error: &StartError) -> String {
    match (error, &flags.config) {
        (StartError::Config(error), Some(path)) => Config::with_place(path, error),
        _ => error.to_string(),
    }
}

/// `-t`: the file is readable; would a server start with what it says?
fn tested(flags: &ServeFlags, config: &Config) -> ExitCode {
    if let Err(error) = server::check(config) {
        return failed(&placed(flags, &error));
    }
    let path = flags.config.as_deref().unwrap_or("".as_ref()).display();
    let mut stderr = std::io::stderr().lock();
    for warning in &config.warnings {
        let _ = writeln!(stderr, "{warning}");
    }
    let _ = writeln!(stderr, "{}: configuration file {path} is valid", super::program_name());
    ExitCode::SUCCESS
}

/// `--signal`: another server's process is told.
fn signalled(request: &str) -> ExitCode {
    #[cfg(unix)]
    let sent = super::send_signal::send(request, &super::program_name());
    #[cfg(not(unix))]
    let sent: Result<(), String> = Err(format!("there is no signal {request:?} on this platform"));
    match sent {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => failed(&text),
    }
}

fn failed(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{}: {text}", super::program_name());
    ExitCode::FAILURE
}

/// `read_again` makes the configuration anew, for a reload.
async fn serve(
    config: Config,
    log: &LogHandle,
    read_again: &dyn Fn() -> Result<Config, String>,
    settled: fn(),
) -> Result<(), StartError> {
    // From here on a signal is an orderly stop, even while the store is being opened.
    let mut signals = Signals::listen();
    let starting = Server::start(config);
    tokio::pin!(starting);
    let mut server = loop {
        tokio::select! {
            started = &mut starting => break started?,
            told = signals.next() => {
                info!("Trapped \"{}\" signal while starting", told.name());
                match told {
                    Told::Reopen => reopen(log),
                    Told::Reload => {}
                    Told::Interrupt | Told::Terminate | Told::LameDuck => return Ok(()),
                }
            }
        }
    };
    announce(&server);
    settled();
    if let Next::LameDuck = until_stopped(&mut server, &mut signals, log, read_again).await {
        lame_duck(&server, &mut signals, log).await;
    }
    info!("Initiating Shutdown...");
    let mut stopping = std::pin::pin!(server.stop());
    loop {
        tokio::select! {
            () = &mut stopping => {
                info!("Server Exiting..");
                return Ok(());
            }
            told = signals.next() => if matches!(told, Told::Interrupt | Told::Terminate) {
                // Who asks twice is in a hurry; what was acknowledged is on disk.
                warn!("Trapped a second \"{}\" signal, exiting at once", told.name());
                return Ok(());
            }
        }
    }
}

enum Next {
    Stop,
    LameDuck,
}

async fn until_stopped(
    server: &mut Server,
    signals: &mut Signals,
    log: &LogHandle,
    read_again: &dyn Fn() -> Result<Config, String>,
) -> Next {
    let mut requests = server.reload_requests();
    loop {
        let told = tokio::select! {
            told = signals.next() => told,
            Some(ReloadRequest(done)) = requests.recv() => {
                let _ = done.send(reload(server, log, read_again).await);
                continue;
            }
        };
        info!("Trapped \"{}\" signal", told.name());
        match told {
            Told::Interrupt | Told::Terminate => return Next::Stop,
            Told::LameDuck => return Next::LameDuck,
            Told::Reopen => reopen(log),
            Told::Reload => drop(reload(server, log, read_again).await),
        }
    }
}

/// Sends the clients away. SIGTERM changes nothing of that, SIGINT ends it at once.
async fn lame_duck(server: &Server, signals: &mut Signals, log: &LogHandle) {
    let mut leaving = std::pin::pin!(server.lame_duck());
    loop {
        tokio::select! {
            () = &mut leaving => return,
            told = signals.next() => {
                info!("Trapped \"{}\" signal", told.name());
                match told {
                    Told::Interrupt => return,
                    Told::Reopen => reopen(log),
                    Told::Terminate | Told::LameDuck | Told::Reload => {}
                }
            }
        }
    }
}

fn reopen(log: &LogHandle) {
    match log.reopen() {
        Ok(true) => info!("File log re-opened"),
        Ok(false) => info!("File log re-open ignored, not a file logger"),
        Err(error) => error!("Unable to re-open the log file: {error}; the old one stays in use"),
    }
}

/// What cannot be read or applied leaves everything as it is.
async fn reload(
    server: &mut Server,
    log: &LogHandle,
    read_again: &dyn Fn() -> Result<Config, String>,
) -> Result<(), String> {
    match try_reload(server, log, read_again).await {
        Ok(changes) => {
            for change in changes {
                info!("Reloaded: {change}");
            }
            info!("Reloaded server configuration");
            Ok(())
        }
        Err(error) => {
            error!("Failed to reload server configuration: {error}");
            Err(error)
        }
    }
}

async fn try_reload(
    server: &mut Server,
    log: &LogHandle,
    read_again: &dyn Fn() -> Result<Config, String>,
) -> Result<Vec<String>, String> {
    let config = read_again()?;
    let log_before = server.config().log.clone();
    log.change(&config.log).map_err(|error| format!("cannot write the log file: {error}"))?;
    match server.reload(&config).await {
        Ok(changes) => {
            for warning in &config.warnings {
                warn!("{warning}");
            }
            Ok(changes)
        }
        Err(error) => {
            let _ = log.change(&log_before);
            Err(error.to_string())
        }
    }
}

/// The lines that people and test harnesses look for, then what to try next.
fn announce(server: &Server) {
    let config = server.config();
    let like_nats_server = super::program_name() == NATS_SERVER;
    if like_nats_server {
        info!("Starting nats-server");
        info!("  Version:  {}", crate::server::NATS_VERSION);
    } else {
        info!("Starting natterjack {}", env!("CARGO_PKG_VERSION"));
    }
    for warning in &config.warnings {
        warn!("{warning}");
    }
    if let Some((listen, _)) = config.open_to_others(&server.broker().gate.book()) {
        warn!(
            "{listen} can be reached from other machines, and nobody is asked who they are: anyone may read and write"
        );
    }
    if let Some(address) = server.monitor_address() {
        info!("Starting http monitor on {address}");
    }
    if let Some(address) = server.monitor_tls_address() {
        info!("Starting https monitor on {address}");
    }
    if let Some(url) = server.websocket_url() {
        info!("Listening for websocket clients on {url}");
        if url.starts_with("ws:") {
            warn!("Websocket not configured with TLS. DO NOT USE IN PRODUCTION!");
        }
    }
    if let Some(address) = server.client_address() {
        info!("Listening for client connections on {address}");
    }
    if config.jetstream {
        info!("Store Directory: \"{}\"", config.store_dir.display());
    }
    let served = server.task_accounts();
    if !served.is_empty() {
        let accounts = if served.len() == 1 { "account" } else { "accounts" };
        info!("Task coordinator in {accounts} {}", served.join(", "));
    }
    info!("Server is ready");
    if like_nats_server {
        return;
    }
    let lines = welcome(config, &server.client_url(), server.monitor_address().map(|address| address.to_string()));
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr().lock(), "\n{}\n", lines.join("\n"));
    } else {
        for line in lines.iter().filter(|line| !line.is_empty()) {
            info!("{line}");
        }
    }
}

fn welcome(config: &Config, url: &str, monitor: Option<String>) -> Vec<String> {
    let mut lines = vec![format!(
        "  natterjack {}: a NATS broker with durable streams and a task coordinator",
        env!("CARGO_PKG_VERSION")
    )];
    let mut fact = |name: &str, value: &str| lines.push(format!("  {name:<12}{value}"));
    fact("clients", url);
    if let Some(monitor) = &monitor {
        fact("monitoring", &format!("http://{monitor}"));
    }
    if config.jetstream {
        fact("data", &format!("{} (on disk before it is acknowledged)", config.store_dir.display()));
    } else {
        fact("data", "nothing is kept: JetStream is off");
    }
    // Commands find the default address by themselves.
    let default = Listen::loopback(4222).to_string();
    let server = if url == format!("nats://{default}") { String::new() } else { format!(" -s {url}") };
    lines.push(String::new());
    lines.push("  Try next, in another terminal:".to_owned());
    if config.coordinator {
        lines.push(format!("    natterjack demo{server}"));
        lines.push(format!("    natterjack task submit{server} 'say hello'"));
    }
    lines.push(format!("    nats{server} sub '>'"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_welcome_names_another_port_only_when_it_must() {
        let config = Config::in_folder("/data");
        let lines = welcome(&config, "nats://127.0.0.1:4222", Some("127.0.0.1:8222".into())).join("\n");
        assert!(lines.contains("monitoring  http://127.0.0.1:8222"), "{lines}");
        assert!(lines.contains("data        /data (on disk"), "{lines}");
        assert!(lines.contains("    natterjack demo\n"), "{lines}");
        let lines = welcome(&config, "nats://127.0.0.1:5000", None).join("\n");
        assert!(lines.contains("    nats -s nats://127.0.0.1:5000 sub '>'"), "{lines}");
        assert!(!lines.contains("monitoring"), "{lines}");
    }
}
