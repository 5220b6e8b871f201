//! TLS: after INFO, before it, with and without client certificates.

use std::path::PathBuf;
use std::sync::Arc;

use async_nats::ConnectOptions;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::http_get;
use super::{PATIENCE, World};

pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/doors/certs").join(name)
}

/// A `tls` block with the server's certificate and `more`.
pub fn block(more: &str) -> String {
    let path = |name| file(name).display().to_string();
    format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, timeout: 20, {more} }}\n",
        path("server.pem"),
        path("server-key.pem"),
        path("ca.pem")
    )
}

fn options() -> ConnectOptions {
    ConnectOptions::new().add_root_certificates(file("ca.pem")).require_tls(true)
}

fn with_certificate(options: ConnectOptions) -> ConnectOptions {
    options.add_client_certificate(file("client.pem"), file("client-key.pem"))
}

fn url(world: &World) -> String {
    format!("tls://localhost:{}", world.address().port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handshake_comes_after_info() {
    let world = World::start(&block("")).await;
    let mut wire = world.wire().await;
    assert!(wire.info.contains(r#""tls_required":true"#) && !wire.info.contains("tls_verify"), "{}", wire.info);
    // Whoever goes on in the clear is not understood.
    assert_eq!(wire.ask("CONNECT {}").await.last().map(String::as_str), Some(""));
    let client = options().connect(url(&world)).await.expect("TLS works");
    client.publish("x", vec![7u8; 1 << 20].into()).await.unwrap();
    client.flush().await.unwrap();
    // Nobody is taken for localhost who shows no certificate of ours.
    assert!(ConnectOptions::new().require_tls(true).connect(url(&world)).await.is_err());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_asked_for() {
    let world = World::start(&block("verify: true")).await;
    assert!(world.wire().await.info.contains(r#""tls_verify":true"#));
    assert!(options().connect(url(&world)).await.is_err());
    with_certificate(options()).connect(url(&world)).await.expect("the certificate is good");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_says_who_the_client_is() {
    for (name, known) in [
        ("derek@example.com", true),
        ("CN=derek,O=natterjack tests", true),
        ("O=natterjack tests, CN=derek", true),
        ("someone@example.com", false),
    ] {
        let users = format!("authorization {{ timeout: 20, users: [ {{ user: {name:?} }} ] }}");
        let world = World::start(&format!("{}{users}", block("verify_and_map: true"))).await;
        let connected = with_certificate(options()).connect(url(&world)).await;
        assert_eq!(connected.is_ok(), known, "{name}");
        if known {
            let clients = world.server.broker().clients();
            assert_eq!(clients[0].identity().user, name);
        }
        world.server.stop().await;
    }
}

/// By each kind of name in turn; with a password beside it, that has to be right as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_names_hosts_and_uris_and_a_password_counts_beside_it() {
    let named = || options().add_client_certificate(file("named.pem"), file("named-key.pem"));
    let tls = block("verify_and_map: true").replace("/ca.pem", "/named-ca.pem");
    for (user, password, known) in [
        ("user: \"box.example.com\"", None, Some("box.example.com")),
        ("user: \"spiffe://example.com/box\"", None, Some("spiffe://example.com/box")),
        ("user: \"CN=box,O=natterjack tests\"", None, Some("CN=box,O=natterjack tests")),
        ("user: \"example.com\"", None, None),
        ("user: \"*.example.com\"", None, None),
        ("user: \"spiffe://example.com/\"", None, None),
        ("user: \"box.example.com\"}, {user: \"spiffe://example.com/box\"", None, Some("box.example.com")),
        ("user: \"box.example.com\", password: pw", Some("pw"), Some("box.example.com")),
        ("user: \"box.example.com\", password: pw", Some("no"), None),
        ("user: \"box.example.com\", password: pw", None, None),
    ] {
        let world = World::start(&format!("{tls}authorization {{ timeout: 20, users: [ {{ {user} }} ] }}")).await;
        let options = match password {
            None => named(),
            Some(password) => named().user_and_password("anybody".into(), password.into()),
        };
        let connected = options.connect(url(&world)).await;
        assert_eq!(connected.is_ok(), known.is_some(), "{user} {password:?}");
        if let Some(name) = known {
            assert_eq!(world.server.broker().clients()[0].identity().user, name);
        }
        // An authority that is not asked for certifies nobody.
        assert!(with_certificate(self::options()).connect(url(&world)).await.is_err());
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_early_handshakes_are_asked_for_by_reload() {
    let mut world = World::start(&block("")).await;
    let before = options().connect(url(&world)).await.expect("no certificate is asked for");
    assert_eq!(world.reload(&block("verify: true")).await.unwrap(), ["tls = enabled"]);
    assert!(world.wire().await.info.contains(r#""tls_verify":true"#));
    assert!(options().connect(url(&world)).await.is_err(), "a certificate is asked for");
    with_certificate(options()).connect(url(&world)).await.expect("the certificate is good");
    super::settle(&before).await;

    world.reload(&block("handshake_first: true")).await.unwrap();
    assert!(first_words(&world).await.starts_with("INFO {"));
    // Who waits for INFO waits in vain.
    let mut silent = TcpStream::connect(world.address()).await.unwrap();
    let mut bytes = [0; 1];
    let heard = tokio::time::timeout(std::time::Duration::from_millis(300), silent.read(&mut bytes)).await;
    assert!(heard.is_err(), "{heard:?}");
    world.reload(&block("")).await.unwrap();
    assert!(world.wire().await.info.contains(r#""tls_required":true"#));
    super::settle(&before).await;
    world.server.stop().await;
}

/// A connection that begins with a handshake.
async fn handshake(port: u16) -> tokio_rustls::client::TlsStream<TcpStream> {
    try_handshake(port).await.unwrap()
}

async fn try_handshake(port: u16) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    handshake_of(port, rustls::DEFAULT_VERSIONS).await
}

async fn handshake_of(
    port: u16,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), socket).await
}

/// What a client that shakes hands first reads first.
async fn first_words(world: &World) -> String {
    let mut stream = handshake(world.address().port()).await;
    stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await.unwrap();
    let mut words = Vec::new();
    while !words.ends_with(b"PONG\r\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut words)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&words));
    }
    String::from_utf8(words).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handshake_may_come_first() {
    let world = World::start(&block("handshake_first: true")).await;
    let words = first_words(&world).await;
    assert!(words.starts_with("INFO {") && words.contains(r#""tls_required":true"#), "{words}");
    options().tls_first().connect(url(&world)).await.expect("TLS first works");
    world.server.stop().await;

    // With a delay both kinds of client come in.
    let world = World::start(&block("handshake_first: 500ms")).await;
    assert!(first_words(&world).await.starts_with("INFO {"));
    options().connect(url(&world)).await.expect("INFO first works");
    world.server.stop().await;

    // With `auto` that is a short one: a slow machine may need to try again.
    let world = World::start(&block("handshake_first: auto")).await;
    options().connect(url(&world)).await.expect("INFO first works");
    let began = std::time::Instant::now();
    while try_handshake(world.address().port()).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "a handshake that comes first is served");
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_clients_are_served_where_they_may_be() {
    let world = World::start(&format!("allow_non_tls: true\n{}", block(""))).await;
    let mut wire = world.wire().await;
    assert!(wire.info.contains(r#""tls_available":true"#) && !wire.info.contains("tls_required"), "{}", wire.info);
    assert_eq!(wire.ask(r#"CONNECT {"verbose":false}"#).await, ["PONG"]);
    options().connect(url(&world)).await.expect("TLS works");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_shakes_hands_is_cut() {
    let text = block("").replace("timeout: 20", "timeout: 0.2");
    let world = World::start(&text).await;
    let mut wire = world.wire().await;
    assert_eq!(wire.line().await, "");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_tls_13_where_it_is_asked_for() {
    let world = World::start(&block("min_version: \"1.3\"")).await;
    options().connect(url(&world)).await.expect("TLS 1.3 works");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitoring_answers_over_tls() {
    let world = World::start(&format!("https_port: -1\n{}", block(""))).await;
    let port = world.server.monitor_tls_address().expect("it listens").port();
    let mut stream = handshake(port).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    world.server.stop().await;
}

/// The names and values of nats-server 2.15.1, which leaves out what is not so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitoring_tells_how_clients_and_websockets_come_in() {
    const TOLD: [&str; 8] =
        ["host", "port", "https_port", "tls_required", "tls_verify", "tls_timeout", "tls_cert_not_after", "websocket"];
    const NOT_AFTER: &str = "2126-10-28T16:38:37Z";
    let told = async |world: &World| {
        let url = format!("http://{}", world.server.monitor_address().expect("monitoring listens"));
        let mut varz: Map<String, Value> = serde_json::from_str(&http_get(&url, "/varz").await).expect("JSON");
        varz.retain(|name, _| TOLD.contains(&&**name));
        Value::Object(varz)
    };
    let websocket = |more: &str, tls: &str| format!("websocket {{ listen: \"127.0.0.1:-1\", {more}\n{tls} }}\n");
    let http = "http: \"127.0.0.1:-1\"\n";

    let secured = websocket(
        "compression: true, allowed_origins: [\"http://a.example\"], handshake_timeout: \"3s\"",
        &block("verify_and_map: true"),
    );
    let users = "authorization { timeout: 20, users: [ { user: derek } ] }\n";
    let text = format!("{http}https_port: -1\nclient_advertise: \"nats.example:4222\"\n{secured}{users}");
    let mut world = World::start(&format!("{text}{}", block("verify: true"))).await;
    let port = |url: &str| url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let websocket_port = port(&world.server.websocket_url().expect("it listens"));
    let https_port = world.server.monitor_tls_address().expect("it listens").port();
    let mut expected = json!({
        "host": "nats.example", "port": 4222, "https_port": https_port,
        "tls_required": true, "tls_verify": true, "tls_timeout": 20.0, "tls_cert_not_after": NOT_AFTER,
        "websocket": {
            "host": "127.0.0.1", "port": websocket_port, "handshake_timeout": 3_000_000_000_u64, "tls_map": true,
            "allowed_origins": ["http://a.example"], "compression": true, "tls_cert_not_after": NOT_AFTER
        }
    });
    assert_eq!(told(&world).await, expected);
    world.reload(&format!("{text}allow_non_tls: true\n{}", block(""))).await.unwrap();
    for gone in ["tls_required", "tls_verify"] {
        expected.as_object_mut().unwrap().remove(gone);
    }
    assert_eq!(told(&world).await, expected, "after a reload");
    world.server.stop().await;

    let open = websocket("no_tls: true, same_origin: true, no_auth_user: bob", "");
    let users = "accounts { A { users: [ { user: bob, password: b } ] } }";
    let world = World::start(&format!("{http}{open}{users}")).await;
    let websocket_port = port(&world.server.websocket_url().expect("it listens"));
    let expected = json!({
        "host": "127.0.0.1", "port": world.address().port(), "https_port": 0, "tls_timeout": 2.0,
        "websocket": {
            "host": "127.0.0.1", "port": websocket_port, "no_auth_user": "bob", "no_tls": true, "same_origin": true
        }
    });
    assert_eq!(told(&world).await, expected);
    world.server.stop().await;
}

#[tokio::test]
async fn certificates_are_read_again_and_tls_switched_off_and_on() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let put = |name: &str| {
        std::fs::copy(file(&format!("{name}.pem")), &cert).unwrap();
        std::fs::copy(file(&format!("{name}-key.pem")), &key).unwrap();
    };
    put("server");
    let text = format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, timeout: 20, handshake_first: true }}");
    let mut world = World::start(&text).await;
    let port = world.address().port();
    let mut live = handshake(port).await;
    // Another certificate at the same place: one that is not this host's.
    put("client");
    assert_eq!(world.reload(&text).await.unwrap(), ["tls = enabled"]);
    assert!(try_handshake(port).await.is_err(), "the new certificate is shown");
    std::fs::write(&cert, "no certificate").unwrap();
    assert!(world.reload(&text).await.unwrap_err().contains("error parsing X509 certificate/key pair"));
    put("server");
    world.reload(&text).await.unwrap();
    handshake(port).await;
    assert_eq!(world.reload("").await.unwrap(), ["tls = disabled"]);
    assert_eq!(world.wire().await.ask("CONNECT {\"verbose\":false}").await, ["PONG"], "in the clear");
    // Who came over TLS before is served all the while.
    live.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await.unwrap();
    let mut heard = String::new();
    while !heard.contains("PONG") {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, live.read(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "{heard}");
        heard.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_2_is_served_unless_it_is_too_old() {
    let old = [&rustls::version::TLS12];
    for (more, served) in [("", true), ("min_version: \"1.2\"", true), ("min_version: \"1.3\"", false)] {
        let world = World::start(&block(&format!("handshake_first: true, {more}"))).await;
        let port = world.address().port();
        let shaken = handshake_of(port, &old).await;
        assert_eq!(shaken.as_ref().err().map(ToString::to_string).is_none(), served, "{more}");
        if let Ok(stream) = &shaken {
            assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
        }
        let newest = handshake(port).await;
        assert_eq!(newest.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        world.server.stop().await;
    }
}
