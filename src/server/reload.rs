//! What of a new configuration takes effect while the server runs.

use super::Server;
use crate::broker;
use crate::config::Config;

/// What became of a new configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings that hold from now on.
    pub applied: Vec<&'static str>,
    /// Settings that differ and wait for a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Server {
    /// Compares `new` with what the server runs with. The log's settings are the caller's to apply.
    ///
    /// Whoever can change something live adds it here, in place of its name in the list.
    pub fn reload(&mut self, new: &Config) -> Reloaded {
        let old = &self.config;
        let mut reloaded = Reloaded::default();
        if new.log != old.log {
            reloaded.applied.push("log");
        }
        let changes = [
            ("listen", new.listen != old.listen),
            ("http", new.monitor != old.monitor || new.monitor_tls != old.monitor_tls),
            ("client_advertise", new.client_advertise != old.client_advertise),
            ("server_name", new.server_name != old.server_name),
            ("server_tags", new.server_tags != old.server_tags || new.server_metadata != old.server_metadata),
            ("jetstream", new.jetstream != old.jetstream || new.jetstream_options != old.jetstream_options),
            ("jetstream limits", new.jetstream_limits != old.jetstream_limits),
            ("streams", new.streams != old.streams),
            ("coordinator", new.coordinator != old.coordinator),
            ("store_dir", new.store_dir != old.store_dir),
            ("ports_file_dir", new.ports_file_dir != old.ports_file_dir),
            ("pid_file", new.pid_file != old.pid_file),
            ("authorization and accounts", new.auth != old.auth || new.single_user != old.single_user),
            ("tls", new.tls != old.tls || new.tls_flags != old.tls_flags),
            ("websocket", new.websocket != old.websocket),
            ("limits", differs_but_for_lame_ducks(new, old)),
        ];
        let changed = changes.iter().filter(|(_, changed)| *changed);
        reloaded.needs_restart.extend(changed.map(|(name, _)| *name));
        // These are looked up when they are needed.
        let limits = &mut self.config.limits;
        let lame_duck = (new.limits.lame_duck_duration, new.limits.lame_duck_grace);
        if lame_duck != (limits.lame_duck_duration, limits.lame_duck_grace) {
            (limits.lame_duck_duration, limits.lame_duck_grace) = lame_duck;
            reloaded.applied.push("lame duck mode");
        }
        broker::show_traces(super::trace_terms(&new.log));
        self.config.log = new.log.clone();
        reloaded
    }
}

fn differs_but_for_lame_ducks(new: &Config, old: &Config) -> bool {
    let mut limits = new.limits.clone();
    limits.lame_duck_duration = old.limits.lame_duck_duration;
    limits.lame_duck_grace = old.limits.lame_duck_grace;
    limits != old.limits
}
