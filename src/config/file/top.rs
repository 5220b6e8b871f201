//! The keys at the top of a config file (nats-server `processConfigFileLine`).

use super::place::FileError;
use super::report::Report;
use super::value::{Entry, Kind, Map, Value};
use super::{access, coordinator, jetstream, metrics, sharing, streams, tls, websocket};
use crate::config::{Config, Listen, Tls};

/// The names at the top, without aliases: what a misspelt key may have been meant to be.
const KEYS: &[&str] = &[
    "accounts",
    "allow_non_tls",
    "allow_open",
    "allowed_hosts",
    "authorization",
    "client_advertise",
    "coordinator",
    "debug",
    "default_sentinel",
    "host",
    "http",
    "http_port",
    "https",
    "https_port",
    "include",
    "jetstream",
    "lame_duck_duration",
    "lame_duck_grace_period",
    "listen",
    "log_file",
    "log_format",
    "log_max_num",
    "log_size_limit",
    "logtime",
    "logtime_utc",
    "mappings",
    "max_closed_clients",
    "max_connections",
    "max_control_line",
    "max_payload",
    "max_pending",
    "max_subscriptions",
    "max_traced_msg_len",
    "memory_budget",
    "metrics",
    "no_auth_user",
    "operator",
    "pid_file",
    "ping_interval",
    "ping_max",
    "port",
    "ports_file_dir",
    "resolver",
    "resolver_pinned_accounts",
    "resolver_preload",
    "server_metadata",
    "server_name",
    "server_tags",
    "store_dir",
    "streams",
    "system_account",
    "tls",
    "trace",
    "trace_headers",
    "trace_verbose",
    "trusted_keys",
    "websocket",
    "write_deadline",
];

/// What 0 and -1 stand for (nats-server `DEFAULT_MAX_CLOSED_CLIENTS`).
const CLOSED_CLIENTS_DEFAULT: usize = 10_000;

/// Addresses come in parts, in any order.
#[derive(Default)]
struct Addresses {
    host: Option<String>,
    port: Option<u16>,
    monitor_host: Option<String>,
    /// `Some(None)` switches it off.
    monitor_port: Option<Option<u16>>,
    monitor_tls_port: Option<Option<u16>>,
    allow_non_tls: bool,
}

/// Turns what the file says into settings.
pub(super) fn read(map: &Map, config: &mut Config, report: &mut Report) {
    let mut addresses = Addresses::default();
    for entry in map.iter() {
        entry_of(entry, config, &mut addresses, report);
    }
    addresses.apply(config);
}

fn entry_of(entry: &Entry, config: &mut Config, addresses: &mut Addresses, report: &mut Report) {
    let value = &entry.value;
    match entry.name().as_str() {
        // Where to listen.
        "listen" => {
            if let Some((host, port)) = report.ok(listen(value)) {
                addresses.host = host.or(addresses.host.take());
                addresses.port = Some(port);
            }
        }
        "port" => report.set(&mut addresses.port, port(value).map(Some)),
        "host" | "net" | "addr" => report.set(&mut addresses.host, owned(value)),
        "allow_open" => report.set(&mut config.allow_open, value.bool()),
        "allowed_hosts" => {
            let hosts = value.texts().map(|hosts| hosts.into_iter().map(str::to_owned).collect());
            report.set(&mut config.allowed_hosts, hosts);
        }
        "client_advertise" => report.set(&mut config.client_advertise, owned(value)),
        "http" | "https" => {
            if let Some((host, port)) = report.ok(listen(value)) {
                addresses.monitor_host = host.or(addresses.monitor_host.take());
                let tls = entry.name() == "https";
                *if tls { &mut addresses.monitor_tls_port } else { &mut addresses.monitor_port } = Some(Some(port));
            }
        }
        "http_port" | "monitor_port" => report.set(&mut addresses.monitor_port, monitor_port(value).map(Some)),
        "https_port" => report.set(&mut addresses.monitor_tls_port, monitor_port(value).map(Some)),
        // Who we are.
        "server_name" => report.set(&mut config.server_name, server_name(value).map(Some)),
        "server_tags" => report
            .set(&mut config.server_tags, value.texts().map(|tags| tags.into_iter().map(str::to_lowercase).collect())),
        "server_metadata" => {
            let Some(map) = report.ok(value.map()) else { return };
            for entry in map.iter() {
                if let Some(text) = report.ok(entry.value.text()) {
                    config.server_metadata.insert(entry.key.clone(), text.to_owned());
                }
            }
        }
        // Bounds.
        "max_connections" | "max_conn" => report.set(&mut config.limits.connections_max, unbounded(value, usize::MAX)),
        "max_subscriptions" | "max_subs" => report.set(&mut config.limits.subscriptions_max, unbounded(value, 0)),
        "max_control_line" => report.set(&mut config.limits.control_line_bytes_max, size(entry)),
        "max_payload" => report.set(&mut config.limits.payload_bytes_max, size(entry)),
        "max_pending" => report.set(&mut config.limits.pending_bytes_max, bytes(value)),
        "memory_budget" => report.set(&mut config.limits.memory_bytes_max, unbounded(value, usize::MAX)),
        "max_closed_clients" => {
            report.set(&mut config.limits.closed_clients_max, unbounded(value, CLOSED_CLIENTS_DEFAULT))
        }
        "ping_interval" => report.set(&mut config.limits.ping_interval, value.duration()),
        "ping_max" => {
            let count = value.count().map(|count| u32::try_from(count).unwrap_or(u32::MAX));
            report.set(&mut config.limits.pings_out_max, count);
        }
        "write_deadline" => report.set(&mut config.limits.write_deadline, value.duration()),
        "lame_duck_duration" => report.set(&mut config.limits.lame_duck_duration, lame_duck_duration(value)),
        "lame_duck_grace_period" => report.set(&mut config.limits.lame_duck_grace, value.duration()),
        // The log, and files of the run.
        "debug" => report.set(&mut config.log.debug, value.bool()),
        "trace" => report.set(&mut config.log.trace, value.bool()),
        "trace_verbose" | "trace_headers" => {
            if let Some(on) = report.ok(value.bool()) {
                config.log.trace = on;
                let verbose = entry.name() == "trace_verbose";
                *if verbose { &mut config.log.trace_verbose } else { &mut config.log.trace_headers } = on;
            }
        }
        "max_traced_msg_len" => report.set(&mut config.log.traced_bytes_max, unbounded(value, 0)),
        "logtime" => report.set(&mut config.log.time, value.bool()),
        "log_format" => {
            let format = value.text().and_then(|text| text.parse().map_err(|error: String| value.wrong(error)));
            report.set(&mut config.log.format, format);
        }
        "logtime_utc" => report.set(&mut config.log.utc, value.bool()),
        "logfile" | "log_file" => report.set(&mut config.log.file, owned(value).map(|path| path.map(Into::into))),
        "logfile_size_limit" | "log_size_limit" => report.set(&mut config.log.file_bytes_max, value.count()),
        "logfile_max_num" | "log_max_num" => {
            report.set(&mut config.log.files_kept_max, value.count().map(|count| count as usize));
        }
        "pidfile" | "pid_file" => report.set(&mut config.pid_file, owned(value).map(|path| path.map(Into::into))),
        "ports_file_dir" => report.set(&mut config.ports_file_dir, owned(value).map(|path| path.map(Into::into))),
        "metrics" => metrics::read(value, config, report),
        // Streams and tasks.
        "jetstream" => jetstream::read(value, config, report),
        "store_dir" | "storedir" => report.set(&mut config.store_dir, value.text().map(Into::into)),
        "streams" => streams::read(value, config, report),
        "coordinator" => coordinator::read(value, config, report),
        // Who may connect, and how the wire is protected: ignoring what is not served would open what was meant to be shut.
        "authorization" => access::authorization(value, config, report),
        "accounts" => access::accounts(value, config, report),
        "mappings" | "maps" => config.auth.mappings = sharing::mappings(value, report),
        "no_auth_user" => access::name(value, &mut config.auth.no_auth_user, report),
        "system_account" | "system" => access::name(value, &mut config.auth.system_account, report),
        "operator" | "operators" | "roots" | "root" | "root_operators" | "root_operator" => {
            access::operators(value, config, report);
        }
        "resolver" | "account_resolver" | "accounts_resolver" => access::resolver(entry, report),
        "resolver_preload" => access::preload(value, config, report),
        "tls" => config.tls = tls::read(value, report).map(|tls| Tls { allow_non_tls: addresses.allow_non_tls, ..tls }),
        "allow_non_tls" => {
            report.set(&mut addresses.allow_non_tls, value.bool());
            if let Some(tls) = &mut config.tls {
                tls.allow_non_tls = addresses.allow_non_tls;
            }
        }
        "websocket" | "ws" => websocket::read(value, config, report),
        "default_sentinel" => access::name(value, &mut config.auth.default_sentinel, report),
        "trusted" | "trusted_keys" => {
            let keys = value.texts().map(|keys| keys.into_iter().map(str::to_owned).collect());
            report.set(&mut config.auth.trusted_keys, keys);
        }
        "resolver_pinned_accounts" => {
            let keys = value.texts().map(|keys| Some(keys.into_iter().map(str::to_owned).collect()));
            report.set(&mut config.auth.pinned_accounts, keys);
        }
        "resolver_tls" | "proxies" => {
            report.error(entry.wrong(format!("{:?} is not served", entry.key)));
        }
        "no_system_account" | "no_system" | "no_sys_acc" => {
            report.unserved(entry, "there always is a system account, and nobody is in it who is not put there");
        }
        name => match unserved(name) {
            Some(why) => report.unserved(entry, why),
            None => report.unknown(entry, KEYS),
        },
    }
}

/// What nats-server knows and we do without, and what holds instead.
fn unserved(name: &str) -> Option<&'static str> {
    Some(match name {
        "cluster" | "gateway" | "leaf" | "leafnodes" => "natterjack is one server, without clusters and leaf nodes",
        "mqtt" => "natterjack does not speak MQTT",
        "syslog" | "remote_syslog" => "natterjack logs to standard error or to log_file",
        "prof_port" | "prof_block_rate" => "natterjack has no profiling port",
        "http_base_path" => "monitoring answers at /",
        "ocsp" | "ocsp_cache" => "natterjack does not staple OCSP answers",
        "max_sub_tokens" | "max_subscription_tokens" => "subscriptions may have any number of tokens",
        "connect_error_reports" | "reconnect_error_reports" => "it is about routes",
        "default_js_domain" => "there is one domain",
        "disable_sublist_cache" | "no_sublist_cache" => "the cache costs nothing when it is not used",
        "no_fast_producer_stall" => "a fast producer always waits for its slowest reader, within bounds",
        "no_header_support" => "headers are always on",
        "proxy_protocol" => "connections are taken as they come",
        "write_timeout" => "a slow consumer is always cut",
        "feature_flags" => "they are nats-server's own",
        _ => return None,
    })
}

impl Addresses {
    fn apply(self, config: &mut Config) {
        let listen_now = config.listen.take().unwrap_or_else(Listen::any_port);
        let host = self.host.clone().unwrap_or(listen_now.host);
        let monitoring = |now: Option<Listen>, port: Option<Option<u16>>| match port {
            None => now,
            Some(port) => port.map(|port| {
                let host_now = now.map(|now| now.host);
                let host = self.monitor_host.clone().or(self.host.clone()).or(host_now).unwrap_or(host.clone());
                Listen { host, port }
            }),
        };
        config.monitor = monitoring(config.monitor.take(), self.monitor_port);
        config.health_check = config.health_check.take().filter(|_| self.monitor_port.is_none());
        config.monitor_tls = monitoring(config.monitor_tls.take(), self.monitor_tls_port);
        config.listen = Some(Listen { host, port: self.port.unwrap_or(listen_now.port) });
    }
}

fn owned(value: &Value) -> Result<Option<String>, FileError> {
    value.text().map(|text| Some(text.to_owned()))
}

/// -1 and 0 are any free port.
pub(super) fn port(value: &Value) -> Result<u16, FileError> {
    let number = value.integer()?;
    let port = if number == -1 { Some(0) } else { u16::try_from(number).ok() };
    port.ok_or_else(|| value.wrong(format!("a port is at most 65535, or -1 for any free one, not {number}")))
}

/// 0 switches monitoring off.
fn monitor_port(value: &Value) -> Result<Option<u16>, FileError> {
    if value.integer()? == 0 { Ok(None) } else { port(value).map(Some) }
}

/// A port, or `host:port`; no host stands for the one that holds otherwise.
pub(super) fn listen(value: &Value) -> Result<(Option<String>, u16), FileError> {
    let Kind::Text(text) = &value.kind else { return Ok((None, port(value)?)) };
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(value.wrong(format!("could not parse address string {text:?}: it is like 127.0.0.1:4222")));
    };
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let number = match port {
        "-1" => Some(0),
        _ => port.parse().ok(),
    };
    let number = number.ok_or_else(|| value.wrong(format!("could not parse port {port:?}")))?;
    Ok(((!host.is_empty()).then(|| host.to_owned()), number))
}

fn server_name(value: &Value) -> Result<String, FileError> {
    let name = value.text()?;
    // It ends up in events' subjects and in logs.
    if name.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        Err(value.wrong("server name cannot contain spaces"))
    } else {
        Ok(name.to_owned())
    }
}

/// A bound where -1 (or less) stands for none, which we write as `none`; so does 0.
fn unbounded(value: &Value, none: usize) -> Result<usize, FileError> {
    let number = value.integer()?;
    Ok(usize::try_from(number).ok().filter(|number| *number > 0).unwrap_or(none))
}

fn bytes(value: &Value) -> Result<usize, FileError> {
    value.count().map(|count| count as usize)
}

/// A size that the wire holds in 31 bits.
fn size(entry: &Entry) -> Result<usize, FileError> {
    let size = bytes(&entry.value)?;
    if size > i32::MAX as usize { Err(entry.wrong(format!("{} value is too big", entry.key))) } else { Ok(size) }
}

fn lame_duck_duration(value: &Value) -> Result<std::time::Duration, FileError> {
    let duration = value.duration()?;
    if duration.as_secs() < 30 {
        return Err(value.wrong(format!("invalid lame_duck_duration of {duration:?}, minimum is 30 seconds")));
    }
    Ok(duration)
}
