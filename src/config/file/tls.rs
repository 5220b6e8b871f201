//! `tls {}` of a listener (nats-server `parseTLS`).

use std::path::PathBuf;

use super::place::FileError;
use super::report::Report;
use super::value::{Kind, Value};
use crate::config::{HandshakeFirst, Tls};

const KEYS: &[&str] =
    &["ca_file", "cert_file", "handshake_first", "key_file", "min_version", "timeout", "verify", "verify_and_map"];

/// `None` when it is wrong, with the error reported.
pub(super) fn read(value: &Value, report: &mut Report) -> Option<Tls> {
    let map = report.ok(value.map())?;
    let mut tls = Tls { at: value.at.to_string(), ..Tls::new(PathBuf::new(), PathBuf::new()) };
    for entry in map.iter() {
        let value = &entry.value;
        match entry.name().as_str() {
            "cert_file" => report.set(&mut tls.cert, value.text().map(Into::into)),
            "key_file" => report.set(&mut tls.key, value.text().map(Into::into)),
            "ca_file" => report.set(&mut tls.ca, value.text().map(|path| Some(path.into()))),
            "verify" => report.set(&mut tls.verify, value.bool()),
            "verify_and_map" => report.set(&mut tls.map, value.bool()),
            "timeout" => report.set(&mut tls.timeout, value.duration()),
            "handshake_first" | "first" | "immediate" => report.set(&mut tls.handshake_first, handshake_first(value)),
            "min_version" => report.set(&mut tls.only_tls13, min_version(value)),
            "cipher_suites" | "curve_preferences" => {
                report.unserved(entry, "rustls offers only suites and curves that are safe");
            }
            "connection_rate_limit" => report.unserved(entry, "handshakes are bounded by their timeout"),
            "insecure" | "prefer_server_cipher_suites" | "allow_insecure_cipher_suites" => {
                report.unserved(entry, "it is about outgoing connections, or no longer safe");
            }
            // Ignoring these would open what was meant to be shut.
            "pinned_certs"
            | "verify_cert_and_check_known_urls"
            | "ocsp_peer"
            | "certs"
            | "certificates"
            | "cert_store"
            | "cert_match"
            | "cert_match_by" => {
                report.error(entry.wrong(format!("{:?} is not served", entry.key)));
            }
            _ => report.unknown(entry, KEYS),
        }
    }
    for (path, key) in [(&tls.cert, "cert_file"), (&tls.key, "key_file")] {
        if path.as_os_str().is_empty() {
            report.error(value.wrong(format!("missing {key:?} in TLS configuration")));
            return None;
        }
    }
    Some(tls)
}

fn handshake_first(value: &Value) -> Result<HandshakeFirst, FileError> {
    if let Kind::Text(text) = &value.kind
        && text.eq_ignore_ascii_case("auto")
    {
        return Ok(HandshakeFirst::AUTO);
    }
    if let Ok(on) = value.bool() {
        return Ok(if on { HandshakeFirst::Yes } else { HandshakeFirst::No });
    }
    let delay = value.duration().map_err(|_| value.wrong("expected true, false, \"auto\" or a duration"))?;
    Ok(HandshakeFirst::Within(delay))
}

fn min_version(value: &Value) -> Result<bool, FileError> {
    match value.text()? {
        "1.2" => Ok(false),
        "1.3" => Ok(true),
        _ => Err(value.wrong("unsupported TLS version: \"1.2\" or \"1.3\"")),
    }
}
