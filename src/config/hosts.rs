//! Which hosts a request to an HTTP listener may name, so that no page of another name reaches a listener of this machine by
//! having its name resolve to 127.0.0.1 (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use super::Config;

/// The hosts that requests to one listener may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// `None` for any: the listener is there for other machines, which call it what they like.
    known: Option<Vec<String>>,
}

/// What is said to a request that names another.
pub const UNKNOWN_HOST: &str =
    "host not known to this listener, which serves this machine: ask for localhost or add the host to allowed_hosts";

impl Hosts {
    /// Of the listener at `address`: on loopback those of this machine and those that `config` names.
    pub fn of(config: &Config, address: SocketAddr) -> Hosts {
        if !address.ip().to_canonical().is_loopback() {
            return Hosts::default();
        }
        let listened = [&config.listen, &config.monitor, &config.monitor_tls].into_iter().flatten();
        let listened = listened.chain(config.websocket.as_ref().map(|websocket| &websocket.listen));
        let mut known: Vec<String> = listened.map(|listen| listen.host.clone()).collect();
        known.extend(config.client_advertise.clone());
        known.extend(config.allowed_hosts.iter().cloned());
        Hosts { known: Some(known.iter().map(|host| bare(host)).collect()) }
    }

    /// Whether a request may name `host`, the header `Host` as it came; `None` for a request that names none.
    pub fn admit(&self, host: Option<&[u8]>) -> bool {
        let (Some(known), Some(host)) = (&self.known, host) else { return true };
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let host = bare(host);
        host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            || known.contains(&host)
    }
}

/// The host of `host`, `host:port` or `[host]:port`, in lower case.
fn bare(host: &str) -> String {
    let host = match host.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') || host.ends_with(']') => host,
        _ => host,
    };
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;

    #[test]
    fn a_listener_on_loopback_knows_this_machine_and_what_it_is_told() {
        let mut config = Config::in_folder("x");
        config.client_advertise = Some("Broker.example:4222".to_owned());
        config.allowed_hosts = vec!["nats.lan".to_owned()];
        config.monitor = Some(Listen { host: "box".to_owned(), port: 1 });
        let here = Hosts::of(&config, "127.0.0.1:8222".parse().unwrap());
        for host in [
            "localhost",
            "LOCALHOST:8222",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8222",
            "127.1.2.3:1",
            "[::1]:8222",
            "[::1]",
            "::1",
            "broker.example",
            "broker.example:99",
            "nats.lan:8222",
            "box:8222",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(here.admit(Some(host.as_bytes())), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8222",
            "localhost.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "\u{fc}:1",
            "127.0.0.1.nip.io",
        ] {
            assert!(!here.admit(Some(host.as_bytes())), "{host}");
        }
        assert!(here.admit(None), "HTTP/1.0");
        assert!(!here.admit(Some(b"\xff")));
        for address in ["0.0.0.0:8222", "[::]:8222", "10.0.0.1:8222"] {
            assert!(Hosts::of(&config, address.parse().unwrap()).admit(Some(b"evil.example")), "{address}");
        }
    }
}
