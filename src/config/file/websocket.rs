//! `websocket {}` (nats-server `parseWebsocket`).

use super::access::Logins;
use super::report::Report;
use super::value::Value;
use super::{tls, top};
use crate::config::{Config, Listen, WebSocket};

const KEYS: &[&str] = &[
    "allowed_origins",
    "authorization",
    "compression",
    "handshake_timeout",
    "headers",
    "host",
    "jwt_cookie",
    "listen",
    "no_auth_user",
    "no_tls",
    "pass_cookie",
    "port",
    "same_origin",
    "tls",
    "token_cookie",
    "user_cookie",
];

pub(super) fn read(value: &Value, config: &mut Config, report: &mut Report) {
    let Some(map) = report.ok(value.map()) else { return };
    let host = config.listen.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |listen| listen.host.clone());
    let mut websocket = WebSocket::new(Listen { host, port: 0 });
    let (mut port, mut no_tls, mut same_origin) = (None, false, None);
    for entry in map.iter() {
        let value = &entry.value;
        let owned = || value.text().map(str::to_owned);
        match entry.name().as_str() {
            "listen" => {
                if let Some((host, number)) = report.ok(top::listen(value)) {
                    websocket.listen.host = host.unwrap_or(websocket.listen.host);
                    port = Some(number);
                }
            }
            "port" => report.set(&mut port, top::port(value).map(Some)),
            "host" | "net" => report.set(&mut websocket.listen.host, owned()),
            "no_tls" => report.set(&mut no_tls, value.bool()),
            "tls" => websocket.tls = tls::read(value, report),
            "same_origin" => report.set(&mut same_origin, value.bool().map(Some)),
            "allowed_origins" | "allowed_origin" | "allow_origins" | "allow_origin" | "origins" | "origin" => {
                let texts = value.texts().map(|texts| texts.into_iter().map(str::to_owned).collect());
                report.set(&mut websocket.allowed_origins, texts);
            }
            "handshake_timeout" => report.set(&mut websocket.handshake_timeout, value.duration()),
            "compression" | "compress" => report.set(&mut websocket.compression, value.bool()),
            "jwt_cookie" => report.set(&mut websocket.jwt_cookie, owned().map(Some)),
            "user_cookie" => report.set(&mut websocket.user_cookie, owned().map(Some)),
            "pass_cookie" => report.set(&mut websocket.pass_cookie, owned().map(Some)),
            "token_cookie" => report.set(&mut websocket.token_cookie, owned().map(Some)),
            "no_auth_user" => report.set(&mut config.auth.websocket_no_auth_user, owned().map(Some)),
            "authorization" | "authentication" => authorization(value, config, report),
            "headers" => {
                let Some(map) = report.ok(value.map()) else { continue };
                for entry in map.iter() {
                    if let Some(text) = report.ok(entry.value.text()) {
                        websocket.headers.push((entry.key.clone(), text.to_owned()));
                    }
                }
            }
            "advertise" => report.unserved(entry, "there is no cluster to tell it to"),
            "ping_interval" => report.unserved(entry, "ping_interval of the server holds"),
            _ => report.unknown(entry, KEYS),
        }
    }
    let Some(port) = port else { return report.error(value.wrong("websocket needs a port; -1 takes any free one")) };
    websocket.listen.port = port;
    // A page from anywhere may not reach a broker on its reader's machine, unless somebody says so.
    websocket.same_origin = same_origin.unwrap_or(websocket.allowed_origins.is_empty());
    if websocket.tls.is_none() && !no_tls {
        report.error(value.wrong("websocket requires TLS configuration: add tls {}, or no_tls: true"));
    }
    if no_tls {
        websocket.tls = None;
    }
    config.websocket = Some(websocket);
}

fn authorization(value: &Value, config: &mut Config, report: &mut Report) {
    let Some(map) = report.ok(value.map()) else { return };
    let mut logins = Logins::default();
    for entry in map.iter() {
        let owned = || entry.value.text().map(str::to_owned);
        match entry.name().as_str() {
            "user" | "username" => report.set(&mut logins.user, owned()),
            "pass" | "password" => report.set(&mut logins.password, owned()),
            "token" => report.set(&mut logins.token, owned()),
            "timeout" => report.unserved(entry, "authorization.timeout holds"),
            _ => report.unknown(entry, &["password", "token", "user"]),
        }
    }
    config.auth.websocket_simple = logins.simple();
}
