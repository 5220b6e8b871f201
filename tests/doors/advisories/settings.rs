//! TLS settings that differ between flags and file: either way of saying them has the same effect.

use async_nats::ConnectOptions;
use natterjack::config::file::read_text;
use natterjack::config::{Config, TlsFlags};
use natterjack::server::Server;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use super::super::tls::{block, file};

/// What a client sees of a server: INFO's words about TLS, and who gets in.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    required: bool,
    available: bool,
    verify: bool,
    plain: bool,
    without_certificate: bool,
    with_certificate: bool,
}

async fn look_at(server: &Server) -> Seen {
    let address = server.client_address().unwrap();
    let mut info = String::new();
    BufReader::new(TcpStream::connect(address).await.unwrap()).read_line(&mut info).await.unwrap();
    let says = |what: &str| info.contains(&format!("\"{what}\":true"));
    let options = || ConnectOptions::new().add_root_certificates(file("ca.pem"));
    let url = format!("tls://localhost:{}", address.port());
    let mut plain = super::super::Wire::over(TcpStream::connect(address).await.unwrap()).await;
    let plain = plain.ask("CONNECT {\"verbose\":false}").await == ["PONG"];
    let with = options().add_client_certificate(file("client.pem"), file("client-key.pem")).require_tls(true);
    Seen {
        required: says("tls_required"),
        available: says("tls_available"),
        verify: says("tls_verify"),
        plain,
        without_certificate: options().require_tls(true).connect(&url).await.is_ok(),
        with_certificate: with.connect(&url).await.is_ok(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_by_flags_is_tls_by_file() {
    let flags = |verify| TlsFlags {
        on: Some(true),
        verify,
        cert: Some(file("server.pem")),
        key: Some(file("server-key.pem")),
        ca: Some(file("ca.pem")),
    };
    let none = TlsFlags::default;
    let verify_alone = TlsFlags { verify: Some(true), ..none() };
    for (name, by_flags, by_file) in [
        ("on", (flags(None), String::new()), (none(), block(""))),
        ("verify", (flags(Some(true)), String::new()), (none(), block("verify: true"))),
        ("verify off", (flags(Some(false)), String::new()), (none(), block("verify: false"))),
        ("off", (none(), String::new()), (none(), String::new())),
        ("a flag on top of a file", (verify_alone, block("")), (none(), block("verify: true"))),
        ("a flag against a file", (flags(Some(false)), block("verify: true")), (none(), block("verify: false"))),
    ] {
        let mut seen = Vec::new();
        for (tls_flags, text) in [by_flags, by_file] {
            let folder = tempfile::tempdir().unwrap();
            let base = Config { coordinator: false, monitor: None, ..Config::on_free_ports(folder.path()) };
            let config = Config { tls_flags, ..read_text(base, &text).unwrap() };
            let server = Server::start(config).await.unwrap();
            seen.push(look_at(&server).await);
            server.stop().await;
        }
        assert_eq!(seen[0], seen[1], "{name}");
        let verifies = name == "verify" || name == "a flag on top of a file";
        assert_eq!((seen[0].verify, seen[0].without_certificate), (verifies, !verifies && name != "off"), "{name}");
        assert_eq!(seen[0].plain, name == "off", "{name}");
    }
    // Half a setting is none: it does not start without TLS.
    for half in [
        TlsFlags { on: Some(true), ..none() },
        TlsFlags { cert: Some(file("server.pem")), on: Some(true), ..none() },
        TlsFlags { ca: None, ..flags(Some(true)) },
        TlsFlags { key: Some(file("client-key.pem")), ..flags(None) },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { tls_flags: half.clone(), ..Config::on_free_ports(folder.path()) };
        assert!(Server::start(config).await.is_err(), "{half:?}");
    }
}
