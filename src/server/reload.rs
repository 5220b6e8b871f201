//! What of a new configuration takes effect while the server runs (nats-server `reload.go`): all of it, or nothing.

use std::fmt::Display;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::error;

use super::tls::{Handshake, TlsError};
use super::{ReloadRequest, Server, StartError, advertised, files, options, shown, trace_terms};
use crate::auth::{Book, Plan};
use crate::broker;
use crate::config::{Config, ConfigError, Limits, Listen};
use crate::storage::ReadError;
use crate::types::Timestamp;

/// How long a reload waits for connections to follow. What is busy follows as soon as it can.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a new configuration does not hold: the old one stays in force, whole.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("config reload not supported for {setting}{change}")]
    NotSupported { setting: String, change: String },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    File(#[from] StartError),
}

impl Server {
    /// Where requests of the system account to read the configuration again come in. To be taken once, by whoever can.
    pub fn reload_requests(&self) -> mpsc::Receiver<ReloadRequest> {
        let (sender, receiver) = mpsc::channel(1);
        let _ = self.reloads.set(sender);
        receiver
    }

    /// Runs by `new` from now on. Returns what has changed, as log lines, once clients have been looked at again. The
    /// log's settings are the caller's to apply.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing has changed then.
    pub async fn reload(&mut self, new: &Config) -> Result<Vec<String>, ReloadError> {
        new.check()?;
        self.check_change(new)?;
        let handshake = new.client_tls()?.map(|tls| Handshake::new(&tls)).transpose()?;
        let websocket_tls = new.websocket.as_ref().and_then(|websocket| websocket.tls.as_ref());
        let websocket_handshake = websocket_tls.map(Handshake::new).transpose()?;
        let book = Book::new(&new.auth_plan()).map_err(ConfigError::from)?;
        let old = std::mem::replace(&mut self.config, new.clone());
        if let Err(error) = self.rewrite_files(&old) {
            self.config = old;
            return Err(error.into());
        }

        let mut lines = changed_limits(&old.limits, &new.limits);
        let mut note = |changed: bool, what: &str| lines.extend(changed.then(|| what.to_owned()));
        note(new.log != old.log, "log");
        let users =
            |config: &Config| Plan { accounts: vec![], account_jwts: vec![], mappings: vec![], ..config.auth_plan() };
        note(users(&old) != users(new), "authorization users");
        note(old.auth.mappings != new.auth.mappings, "mappings");
        note(old.auth.accounts != new.auth.accounts || old.auth.account_jwts != new.auth.account_jwts, "accounts");
        let tls = |on: bool| if on { "tls = enabled" } else { "tls = disabled" };
        note(handshake.is_some() || self.handshake.get().is_some(), tls(handshake.is_some()));
        note(websocket_handshake.is_some(), "websocket tls = enabled");
        note(new.server_tags != old.server_tags, "tags");
        note(new.server_metadata != old.server_metadata, "metadata");
        note(new.client_advertise != old.client_advertise, "client_advertise");
        note(new.pid_file != old.pid_file, "pid_file");
        note(new.ports_file_dir != old.ports_file_dir, "ports_file_dir");

        broker::show_traces(trace_terms(&new.log));
        self.handshake.replace(handshake);
        self.websocket_handshake.replace(websocket_handshake);
        let broker = self.broker.clone();
        for account in broker.prepare_accounts(&book) {
            self.system.serve(&account);
            if let Some(running) = &mut self.jetstream {
                running.close(&broker, &account);
            }
        }
        // Before the streams they work on.
        let wanted = self.config.task_accounts(&book);
        if let Some(coordinators) = &mut self.coordinators {
            lines.extend(coordinators.retain(&wanted).await);
        }
        if let Err(error) = self.switch_jetstream_in_accounts(&book).await {
            error!("Reload: the streams in the store could not be read back: {error}");
        }
        let listened = new.listen.as_ref().map(|listen| listen.host.clone()).unwrap_or_default();
        let port = self.client_address.map(|address| address.port()).unwrap_or_default();
        let (host, port) = advertised(new, listened, port);
        let payload_bytes_max = new.limits.payload_bytes_max as i64;
        let info = |info: &mut crate::protocol::Info| {
            (info.host, info.port, info.max_payload) = (host, port, payload_bytes_max);
        };
        let same_rules = old.auth_plan() == new.auth_plan();
        broker.reload(options(new), (book, same_rules), info, PATIENCE).await;
        lines.extend(self.keep_coordinators().await);
        let handshakes = [&self.handshake, &self.websocket_handshake];
        let settings = shown(new, &broker, handshakes, self.websocket_address, Some(Timestamp::now()));
        self.system.reports().show(settings);
        if new.streams != old.streams {
            match self.declare().await {
                Ok(()) => lines.push("streams".to_owned()),
                Err(error) => error!("Reload: {error}"),
            }
        }
        Ok(lines)
    }

    /// Refuses what takes another start.
    fn check_change(&self, new: &Config) -> Result<(), ReloadError> {
        let old = &self.config;
        let host = |listen: &Option<Listen>| listen.as_ref().map(|listen| listen.host.clone()).unwrap_or_default();
        let port = |listen: &Option<Listen>| listen.as_ref().map_or(0, |listen| listen.port);
        // Any free port will do: the one in use does.
        let new_port = Some(port(&new.listen)).filter(|port| *port != 0).unwrap_or(port(&old.listen));
        let domain = |config: &Config| config.jetstream_options.domain.clone().unwrap_or_default();
        let name = |config: &Config| config.server_name.clone().unwrap_or_default();
        let system = |config: &Config| config.auth.system_account.clone().unwrap_or_default();
        differs("host", &host(&old.listen), &host(&new.listen))?;
        differs("port", &port(&old.listen), &new_port)?;
        differs("http host", &host(&old.monitor), &host(&new.monitor))?;
        differs("http port", &port(&old.monitor), &port(&new.monitor))?;
        differs("https host", &host(&old.monitor_tls), &host(&new.monitor_tls))?;
        differs("https port", &port(&old.monitor_tls), &port(&new.monitor_tls))?;
        differs("server_name", &name(old), &name(new))?;
        differs("system_account", &system(old), &system(new))?;
        differs("jetstream", &old.jetstream, &new.jetstream)?;
        let folder = |config: &Config| config.store_dir.display().to_string();
        differs("store_dir", &folder(old), &folder(new))?;
        differs("jetstream domain", &domain(old), &domain(new))?;
        let same_limits = old.jetstream_options == new.jetstream_options;
        refuse_if(!same_limits, "jetstream max memory and max store")?;
        refuse_if(old.jetstream_limits != new.jetstream_limits, "jetstream limits")?;
        refuse_if(old.metrics != new.metrics, "metrics")?;
        refuse_if(old.allowed_hosts != new.allowed_hosts, "allowed_hosts")?;
        refuse_if(old.auth.operators != new.auth.operators, "operator")?;
        refuse_if(old.auth.trusted_keys != new.auth.trusted_keys, "trusted_keys")?;
        refuse_if(old.websocket.is_some() != new.websocket.is_some(), "websocket")?;
        if let (Some(old), Some(new)) = (&old.websocket, &new.websocket) {
            refuse_if(old.tls.is_some() != new.tls.is_some(), "websocket tls")?;
            let mut same = new.clone();
            same.tls.clone_from(&old.tls);
            refuse_if(same != *old, "websocket")?;
        }
        Ok(())
    }

    /// Starts JetStream in accounts that have it now and did not, ends it where it is the other way round, and holds the
    /// others to their limits.
    async fn switch_jetstream_in_accounts(&mut self, book: &Book) -> Result<(), ReadError> {
        let Some(running) = &mut self.jetstream else { return Ok(()) };
        for spec in book.accounts() {
            let known = running.all().into_iter().find(|jetstream| jetstream.account().name == spec.name);
            match (&spec.jetstream, known) {
                (Some(limits), Some(known)) => known.set_account_limits(*limits),
                (None, Some(known)) if known.account().name != self.broker.account.name => {
                    running.stop_in(&self.broker, &known).await;
                }
                (Some(limits), None) => {
                    if let Some(account) = self.broker.find_account(&spec.name) {
                        running.start_in(&self.broker, &account, limits)?;
                    }
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// The pid file and the ports file, where they are to be now.
    fn rewrite_files(&mut self, old: &Config) -> Result<(), StartError> {
        if (&old.pid_file, &old.ports_file_dir) == (&self.config.pid_file, &self.config.ports_file_dir) {
            return Ok(());
        }
        let (clients, monitor, websocket) = (self.client_address, self.monitor_address, self.websocket_address);
        let files = files::RunFiles::write(&self.config, clients, monitor, websocket)?;
        self.files.replace(files);
        Ok(())
    }
}

fn differs<T: PartialEq + Display>(setting: &str, old: &T, new: &T) -> Result<(), ReloadError> {
    if old == new {
        return Ok(());
    }
    let change = format!(": old={old}, new={new}");
    Err(ReloadError::NotSupported { setting: setting.to_owned(), change })
}

fn refuse_if(changed: bool, setting: &str) -> Result<(), ReloadError> {
    if !changed {
        return Ok(());
    }
    Err(ReloadError::NotSupported { setting: setting.to_owned(), change: String::new() })
}

/// The limits that are different, as nats-server names them.
fn changed_limits(old: &Limits, new: &Limits) -> Vec<String> {
    let mut lines = Vec::new();
    let mut count = |name: &str, old: usize, new: usize| {
        if old != new {
            lines.push(format!("{name} = {new}"));
        }
    };
    count("max_connections", old.connections_max, new.connections_max);
    count("max_subscriptions", old.subscriptions_max, new.subscriptions_max);
    count("max_control_line", old.control_line_bytes_max, new.control_line_bytes_max);
    count("max_payload", old.payload_bytes_max, new.payload_bytes_max);
    count("max_pending", old.pending_bytes_max, new.pending_bytes_max);
    count("memory_budget", old.memory_bytes_max, new.memory_bytes_max);
    count("max_closed_clients", old.closed_clients_max, new.closed_clients_max);
    count("ping_max", old.pings_out_max as usize, new.pings_out_max as usize);
    let mut time = |name: &str, old: Duration, new: Duration| {
        if old != new {
            lines.push(format!("{name} = {new:?}"));
        }
    };
    time("ping_interval", old.ping_interval, new.ping_interval);
    time("write_deadline", old.write_deadline, new.write_deadline);
    time("authorization timeout", old.auth_timeout, new.auth_timeout);
    time("lame_duck_duration", old.lame_duck_duration, new.lame_duck_duration);
    time("lame_duck_grace_period", old.lame_duck_grace, new.lame_duck_grace);
    lines
}
