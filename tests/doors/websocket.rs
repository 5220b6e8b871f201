//! WebSocket: the official client, and what a bare one may not do.

use async_nats::ConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PATIENCE, World, next, settle, tls};

const END_OF_INFO: &[u8] = b"} \r\n";

fn port(world: &World) -> u16 {
    let url = world.server.websocket_url().expect("there is a WebSocket port");
    url.rsplit(':').next().unwrap().parse().unwrap()
}

/// Sends `request` and returns what comes back until `until` or the end.
async fn talk(world: &World, request: &[u8], until: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port(world))).await.unwrap();
    stream.write_all(request).await.unwrap();
    let answer = read_until(&mut stream, until).await;
    (stream, answer)
}

async fn read_until(stream: &mut TcpStream, until: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    while !answer.windows(until.len()).any(|window| window == until) {
        match tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer in time") {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    answer
}

fn request(more: &str) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: here:1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
    .into_bytes()
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [9, 8, 7, 6];
    let mut frame = vec![first, 0x80 | payload.len() as u8];
    frame.extend(mask);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_comes_in() {
    let world = World::start("websocket { port: -1, no_tls: true }").await;
    let client = async_nats::connect(format!("ws://127.0.0.1:{}", port(&world))).await.expect("it connects");
    let other = async_nats::connect(world.server.client_url()).await.unwrap();
    let mut subscription = client.subscribe("x").await.unwrap();
    settle(&client).await;
    let kinds: Vec<_> = world.server.broker().clients().iter().map(|client| client.kind()).collect();
    assert_eq!(kinds, ["websocket", "nats"]);
    // Larger than any one frame.
    let payload = bytes::Bytes::from(vec![5u8; 3 << 20]);
    for publisher in [&client, &other] {
        publisher.publish("x", payload.clone()).await.unwrap();
        assert_eq!(next(&mut subscription).await.payload, payload);
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_users_of_its_own() {
    let tls = tls::block("");
    let text = format!(
        "authorization {{ user: u, password: p, timeout: 20 }}\n\
         websocket {{ port: -1, handshake_timeout: 20, {tls} authorization {{ token: webtoken }} }}"
    );
    let world = World::start(&text).await;
    let url = format!("wss://localhost:{}", port(&world));
    let options = || ConnectOptions::new().add_root_certificates(tls::file("ca.pem"));
    options().token("webtoken".into()).connect(&url).await.expect("the token is right");
    assert!(options().user_and_password("u".into(), "p".into()).connect(&url).await.is_err());
    assert!(options().token("webtoken".into()).connect(world.server.client_url()).await.is_err());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_open_nothing() {
    let world = World::start(
        "websocket { port: -1, no_tls: true, same_origin: true, allowed_origins: [\"http://here:1\", \"https://there\"] }",
    )
    .await;
    let good = request("");
    let replaced = |from: &str, to: &str| String::from_utf8(good.clone()).unwrap().replace(from, to).into_bytes();
    for (sent, expected) in [
        (good.clone(), "HTTP/1.1 101 "),
        (request("Origin: http://here:1\r\n"), "HTTP/1.1 101 "),
        (request("Origin: http://here:2\r\n"), "HTTP/1.1 403 "),
        (request("Origin: https://there\r\n"), "HTTP/1.1 403 "),
        (request("Origin: null\r\n"), "HTTP/1.1 403 "),
        (replaced("GET", "POST"), "HTTP/1.1 405 "),
        (replaced("Upgrade: websocket\r\n", ""), "HTTP/1.1 400 "),
        (replaced("keep-alive, Upgrade", "close"), "HTTP/1.1 400 "),
        (replaced("dGhlIHNhbXBsZSBub25jZQ==", "short"), "HTTP/1.1 400 "),
        (replaced("Version: 13", "Version: 12"), "HTTP/1.1 400 "),
    ] {
        let (_, answer) = talk(&world, &sent, b"\r\n\r\n").await;
        let (sent, answer) = (String::from_utf8_lossy(&sent), String::from_utf8_lossy(&answer));
        assert!(answer.starts_with(expected), "{sent}\n{answer}");
    }
    let (_, answer) = talk(&world, &good, b"\r\n\r\n").await;
    // The example of RFC 6455.
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.contains(&"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_lowercase()), "{answer}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_from_elsewhere_are_let_in_when_it_is_said() {
    for (setting, here, there, other) in [
        ("", "101", "403", "403"),
        ("same_origin: true", "101", "403", "403"),
        ("same_origin: false", "101", "101", "101"),
        ("allowed_origins: [\"https://there\"]", "403", "101", "403"),
        ("same_origin: true, allowed_origins: [\"https://there\"]", "403", "403", "403"),
    ] {
        let world =
            World::start(&format!("allowed_hosts: here, websocket {{ port: -1, no_tls: true, {setting} }}")).await;
        let origins = [("http://here:1", here), ("https://there", there), ("https://other", other)];
        for (origin, expected) in origins {
            let (_, answer) = talk(&world, &request(&format!("Origin: {origin}\r\n")), b"\r\n\r\n").await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{setting} {origin}: {answer}");
        }
        // Who is no browser says nothing of a page.
        let (_, answer) = talk(&world, &request(""), b"\r\n\r\n").await;
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        world.server.stop().await;
    }
}

/// A page of another name that has its name resolve to 127.0.0.1 is of the same origin, as far as it says itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_others_do_not_lead_here() {
    for (setting, host, expected) in [
        ("", "evil.example:1", "HTTP/1.1 403 "),
        ("", "10.0.0.1:1", "HTTP/1.1 403 "),
        ("", "localhost:1", "HTTP/1.1 101 "),
        ("", "[::1]:1", "HTTP/1.1 101 "),
        ("allowed_hosts: [proxy.example]", "proxy.example:1", "HTTP/1.1 101 "),
        ("client_advertise: \"nats.example:4222\"", "nats.example:1", "HTTP/1.1 101 "),
    ] {
        let world = World::start(&format!("{setting}\nwebsocket {{ port: -1, no_tls: true }}")).await;
        let said = String::from_utf8(request(&format!("Origin: http://{host}\r\n"))).unwrap().replace("here:1", host);
        let (_, answer) = talk(&world, said.as_bytes(), b"\r\n\r\n").await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(expected), "{setting} {host}: {answer}");
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_byte_by_byte_pings_and_the_end() {
    let world = World::start("websocket { port: -1, no_tls: true }").await;
    let (mut stream, _) = talk(&world, &request(""), END_OF_INFO).await;
    let mut said = frame(0x02, b"CONNECT {\"verbose\":false}\r\nSUB x 1\r\nPI");
    said.extend(frame(0x89, b"are you there?"));
    said.extend(frame(0x80, b"NG\r\n"));
    for byte in said {
        stream.write_all(&[byte]).await.unwrap();
    }
    let answer = read_until(&mut stream, b"PONG\r\n").await;
    let pong = [&[0x8a, 14][..], b"are you there?"].concat();
    assert!(answer.windows(pong.len()).any(|window| window == pong), "{answer:?}");
    // The other side closes: the close comes back, then the end.
    stream.write_all(&frame(0x88, &[3, 232])).await.unwrap();
    let end = read_until(&mut stream, b"never").await;
    assert!(end.ends_with(&[0x88, 2, 3, 232]), "{end:?}");

    // A frame without a mask is the end, with the reason.
    let (mut stream, _) = talk(&world, &request(""), END_OF_INFO).await;
    stream.write_all(&[0x82, 6, b'P', b'I', b'N', b'G', b'\r', b'\n']).await.unwrap();
    let end = read_until(&mut stream, b"never").await;
    assert!(end.windows(4).any(|window| window == [0x03, 0xea, b'a', b' ']), "{end:?}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_carry_credentials() {
    let world = World::start(
        "authorization { token: t0ken, timeout: 20 }\nwebsocket { port: -1, no_tls: true, token_cookie: key }",
    )
    .await;
    for (cookie, expected) in [("a=b; key=t0ken", "PONG"), ("key=wrong", "Authorization Violation")] {
        let (mut stream, _) = talk(&world, &request(&format!("Cookie: {cookie}\r\n")), END_OF_INFO).await;
        stream.write_all(&frame(0x82, b"CONNECT {\"verbose\":false}\r\nPING\r\n")).await.unwrap();
        let answer = read_until(&mut stream, expected.as_bytes()).await;
        assert!(String::from_utf8_lossy(&answer).contains(expected), "{cookie}: {answer:?}");
    }
    world.server.stop().await;
}

/// A name and its password in cookies of their own; what CONNECT says itself goes before them. With headers of the
/// operator's choice in the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_named_in_cookies() {
    let world = World::start(
        "authorization { timeout: 20, users: [ { user: a, password: pa }, { user: b, password: pb } ] }\n\
         websocket { port: -1, no_tls: true, user_cookie: who, pass_cookie: proof, headers { X-Served-By: \"the box\" } }",
    )
    .await;
    for (cookie, says, user) in [
        ("who=a; proof=pa", "", Some("a")),
        ("proof=\"pb\"; x=y; who=\"b\"", "", Some("b")),
        ("who=a; proof=pb", "", None),
        ("who=a", "", None),
        ("x=y", "", None),
        ("who=a; proof=pa", r#","user":"b","pass":"pb""#, Some("b")),
        ("who=a; proof=pb", r#","user":"b""#, Some("b")),
    ] {
        let (mut stream, answer) = talk(&world, &request(&format!("Cookie: {cookie}\r\n")), END_OF_INFO).await;
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(answer.contains("x-served-by: the box\r\n"), "{answer}");
        let connect = format!("CONNECT {{\"verbose\":false{says}}}\r\nPING\r\n");
        stream.write_all(&frame(0x82, connect.as_bytes())).await.unwrap();
        let expected = if user.is_some() { "PONG" } else { "Authorization Violation" };
        let answer = read_until(&mut stream, expected.as_bytes()).await;
        assert!(String::from_utf8_lossy(&answer).contains(expected), "{cookie} {says}: {answer:?}");
        if let Some(user) = user {
            let clients = world.server.broker().clients();
            assert!(clients.iter().any(|client| client.identity().user == user), "{cookie} {says}");
        }
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_have_a_user_without_credentials_of_their_own() {
    let world = World::start(
        "authorization { timeout: 20, users: [ { user: a, password: pa }, \
         { user: page, password: secret, permissions: { publish: \"from.pages\" } } ] }\n\
         websocket { port: -1, no_tls: true, no_auth_user: page }",
    )
    .await;
    let page =
        async_nats::connect(format!("ws://127.0.0.1:{}", port(&world))).await.expect("no credentials are needed");
    assert_eq!(world.server.broker().clients()[0].identity().user, "page");
    let watcher = world.user("a", "pa").await.unwrap();
    let mut seen = watcher.subscribe("from.*").await.unwrap();
    settle(&watcher).await;
    page.publish("from.elsewhere", "".into()).await.unwrap();
    page.publish("from.pages", "".into()).await.unwrap();
    assert_eq!(next(&mut seen).await.subject.as_str(), "from.pages");
    // That is so for pages alone.
    assert!(async_nats::connect(world.server.client_url()).await.is_err());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_clients_are_asked_for_over_tls() {
    let options = || ConnectOptions::new().add_root_certificates(tls::file("ca.pem"));
    let certified = || options().add_client_certificate(tls::file("client.pem"), tls::file("client-key.pem"));
    let websocket = |more: &str| format!("websocket {{ port: -1, handshake_timeout: 20, {} }}", tls::block(more));
    let world = World::start(&websocket("verify: true")).await;
    let url = format!("wss://localhost:{}", port(&world));
    assert!(options().connect(&url).await.is_err(), "a certificate is asked for");
    settle(&certified().connect(&url).await.expect("the certificate is good")).await;
    world.server.stop().await;

    // The certificate says who somebody is.
    let users =
        "authorization { timeout: 20, users: [ { user: \"derek@example.com\" }, { user: a, password: pa } ] }\n";
    let world = World::start(&format!("{users}{}", websocket("verify_and_map: true"))).await;
    let url = format!("wss://localhost:{}", port(&world));
    assert!(options().user_and_password("a".into(), "pa".into()).connect(&url).await.is_err());
    let _derek = certified().connect(&url).await.expect("the certificate is derek's");
    assert_eq!(world.server.broker().clients()[0].identity().user, "derek@example.com");
    world.server.stop().await;
}

/// One message, compressed, with the tail of its last block left out.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 1000);
    let mut compress = flate2::Compress::new(flate2::Compression::default(), false);
    compress.compress_vec(payload, &mut out, flate2::FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

/// What all whole frames in `bytes` say, inflated where they are compressed, and how many of them are.
fn said(mut bytes: &[u8]) -> (Vec<u8>, usize) {
    let (mut said, mut compressed) = (Vec::new(), 0);
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 if rest.len() >= 2 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            length => (usize::from(*length), rest),
        };
        let Some((payload, after)) = rest.split_at_checked(length) else { break };
        if first & 0x40 != 0 {
            compressed += 1;
            let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
            let mut plain = Vec::with_capacity(1 << 20);
            flate2::Decompress::new(false).decompress_vec(&whole, &mut plain, flate2::FlushDecompress::Sync).unwrap();
            said.extend(plain);
        } else {
            said.extend(payload);
        }
        bytes = after;
    }
    (said, compressed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_compressed_for_who_asks() {
    const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    for (setting, offer, expected) in
        [("compression: true", OFFER, true), ("compression: true", "", false), ("", OFFER, false)]
    {
        let world = World::start(&format!("websocket {{ port: -1, no_tls: true, {setting} }}")).await;
        let (mut stream, answer) = talk(&world, &request(offer), b"\r\n\r\n").await;
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        let agreed =
            "sec-websocket-extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(answer.contains(agreed), expected, "{answer}");
        if !expected {
            // A compressed message that nobody asked about is an error.
            stream.write_all(&frame(0xc2, &deflated(b"PING\r\n"))).await.unwrap();
            let rest = read_until(&mut stream, b"reserved bits set").await;
            assert!(rest.windows(17).any(|window| window == b"reserved bits set"));
            world.server.stop().await;
            continue;
        }
        // One message in three frames, and byte by byte; the second is its continuation.
        let text =
            format!("CONNECT {{\"verbose\":false}}\r\nSUB x 1\r\nPUB x 10000\r\n{}\r\nPING\r\n", "y".repeat(10_000));
        let message = deflated(text.as_bytes());
        let (left, right) = message.split_at(message.len() / 2);
        let frames = [frame(0x42, left), frame(0x00, right), frame(0x80, b"")].concat();
        for byte in frames {
            stream.write_all(&[byte]).await.unwrap();
        }
        let mut all = Vec::new();
        let said = loop {
            let read =
                tokio::time::timeout(PATIENCE, stream.read_buf(&mut all)).await.expect("an answer in time").unwrap();
            let (said, compressed) = said(&all);
            if said.ends_with(b"PONG\r\n") {
                // A message of ten thousand equal bytes is compressed, a PONG is not.
                assert!(compressed >= 1 && all.len() < 3000, "{compressed} {}", all.len());
                break said;
            }
            assert!(read > 0, "{said:?}");
        };
        let expected = format!("MSG x 1 10000\r\n{}\r\n", "y".repeat(10_000));
        assert!(said.windows(expected.len()).any(|window| window == expected.as_bytes()));
        // What is not deflated ends the connection with its reason.
        stream.write_all(&frame(0xc2, &[7; 20])).await.unwrap();
        let rest = read_until(&mut stream, b"not deflated").await;
        assert!(rest.windows(12).any(|window| window == b"not deflated"));
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_the_certificate_for_those_to_come() {
    let own = tls::block("");
    // One that is nobody's who is called localhost.
    let other = own.replace("server.pem", "client.pem").replace("server-key.pem", "client-key.pem");
    let text = |tls: &str| format!("websocket {{ port: -1, handshake_timeout: 20, {tls} }}");
    let mut world = World::start(&text(&own)).await;
    let url = format!("wss://localhost:{}", port(&world));
    let connect = async || ConnectOptions::new().add_root_certificates(tls::file("ca.pem")).connect(&url).await;
    let before = connect().await.expect("the certificate is good");
    world.reload(&text(&other)).await.unwrap();
    assert!(connect().await.is_err());
    settle(&before).await;
    world.reload(&text(&own)).await.unwrap();
    connect().await.expect("the certificate is good again");
    // What cannot be read changes nothing.
    assert!(world.reload(&text(&own.replace("server.pem", "nothing.pem"))).await.is_err());
    connect().await.expect("the certificate is the same");
    world.server.stop().await;
}
