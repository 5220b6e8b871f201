//! Floods of connections, and peers that never finish or never read: they are cut with a reason while others are served
//! (design table N1, N3). Figures are printed; see them with `cargo test --test doors floods -- --nocapture`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::{MIB, Process, can_measure, http_get, lift_file_limit, trickle, until};
use super::{PATIENCE, World, tls};

/// Between two bytes of a peer that never finishes.
const PAUSE: Duration = Duration::from_millis(50);

/// Round trips while `flood` lasts: how many, and the longest.
async fn served_during<T>(client: &mut TcpStream, flood: impl Future<Output = T>) -> (T, u32, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    tokio::pin!(flood);
    loop {
        let began = Instant::now();
        let trip = async {
            client.write_all(b"PUB me 2\r\nhi\r\nPING\r\n").await.expect("the client is served");
            let answer = until(client, b"PONG\r\n").await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains("MSG me 1 2\r\nhi\r\n"), "{answer}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        tokio::select! {
            biased;
            () = trip => {
                count += 1;
                longest = longest.max(began.elapsed());
            }
            done = &mut flood => return (done, count, longest),
        }
    }
}

/// A client that is served while others misbehave.
async fn client(address: std::net::SocketAddr, credentials: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("the server listens");
    let hello = format!("CONNECT {{\"verbose\":false{credentials}}}\r\nSUB me 1\r\nPING\r\n");
    socket.write_all(hello.as_bytes()).await.unwrap();
    until(&mut socket, b"PONG\r\n").await;
    socket
}

/// N1, with credentials asked for and without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_peers_that_never_finish_connect_are_cut() {
    for (auth, credentials) in [("token: t, ", r#","auth_token":"t""#), ("", "")] {
        let world = World::start(&format!("authorization {{ {auth} timeout: 0.6 }}")).await;
        let mut good = client(world.address(), credentials).await;
        let began = Instant::now();
        let hello = format!("CONNECT {{\"lang\":\"{}", "x".repeat(4000));
        let peers = (0..200)
            .map(async |_| trickle(TcpStream::connect(world.address()).await.unwrap(), hello.as_bytes(), PAUSE).await);
        let (answers, trips, longest) = served_during(&mut good, join_all(peers)).await;
        let took = began.elapsed();
        for answer in answers {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.contains("-ERR 'Authentication Timeout'"), "{answer}");
        }
        assert!(took >= Duration::from_millis(600) && trips > 10, "{took:?} {trips}");
        println!(
            "auth {auth:?}: 200 peers cut within {took:.1?} of 0.6 s; {trips} round trips meanwhile, the longest {longest:.1?}"
        );
        world.server.stop().await;
    }
}

/// N1 below CONNECT: TLS handshakes after and before INFO, WebSocket requests, and both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_finish_are_cut() {
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 400]].concat();
    let request = format!("GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nX: {}", "x".repeat(4000));
    let tls = tls::block("").replace("timeout: 20", "timeout: 0.6");
    let socket = "websocket { port: -1, handshake_timeout: \"600ms\"";
    for (what, text, websocket, bytes) in [
        ("TLS after INFO", tls.clone(), false, &hello[..]),
        ("TLS before INFO", tls.replace("timeout: 0.6", "timeout: 0.6, handshake_first: true"), false, &hello),
        ("WebSocket requests", format!("{socket}, no_tls: true }}"), true, request.as_bytes()),
        ("WebSocket TLS", format!("{socket}, {tls} }}"), true, &hello),
        ("silence", tls.clone(), false, &[]),
    ] {
        let world = World::start(&text).await;
        let address = match websocket {
            true => world.server.websocket_url().unwrap().rsplit_once('/').unwrap().1.parse().unwrap(),
            false => world.address(),
        };
        let began = Instant::now();
        let peers = (0..100).map(async |_| {
            let mut socket = TcpStream::connect(address).await.expect("it listens");
            match bytes {
                [] => until(&mut socket, b"never").await,
                _ => trickle(socket, bytes, PAUSE).await,
            }
        });
        join_all(peers).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(500), "{what}: {took:?}");
        println!("{what}: 100 peers cut within {took:.1?} of 0.6 s");
        while world.server.broker().client_count() > 0 {
            assert!(began.elapsed() < PATIENCE, "{what}");
            tokio::task::yield_now().await;
        }
        world.server.stop().await;
    }
}

/// N1 at the monitoring port: those who never finish hold up others for a while, not for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitoring_requests_that_never_finish_are_cut() {
    let process = Process::start("jetstream: disabled");
    let url = process.server.monitoring_url();
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let began = Instant::now();
    let peers = (0..100).map(async |_| {
        let socket = TcpStream::connect(&address).await.expect("it listens");
        trickle(
            socket,
            b"GET /healthz HTTP/1.1\r\nHost: here\r\nX-More: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            PAUSE * 4,
        )
        .await
    });
    let (_, health) = tokio::join!(join_all(peers), async {
        let health = http_get(&url, "/healthz").await;
        (health, began.elapsed())
    });
    println!(
        "100 monitoring requests that never end: cut within {:.1?}, another answered after {:.1?}",
        began.elapsed(),
        health.1
    );
    assert!(health.0.contains("ok"));
}

/// N3: a publisher's connection is reset anywhere; what was acknowledged is there, and nothing half.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_in_the_midst_of_a_publish_lose_nothing_acknowledged() {
    let world = World::start("jetstream: enabled").await;
    let watcher = async_nats::connect(world.server.client_url()).await.unwrap();
    let create = br#"{"name":"S","subjects":["s.>"]}"#;
    let created = watcher.request("$JS.API.STREAM.CREATE.S", bytes::Bytes::from_static(create)).await.unwrap();
    assert!(String::from_utf8_lossy(&created.payload).contains("did_create"));
    let payload = "0123456789".repeat(30);
    let message = format!("PUB s.x ack {}\r\n{payload}\r\n", payload.len());
    let hello = "CONNECT {\"verbose\":false}\r\nSUB ack 1\r\n";
    let all = format!("{hello}{}", message.repeat(3));
    let mut acked = std::collections::BTreeSet::new();
    let mut whole = 0;
    // Every place in the last message and some before, each by a connection of its own.
    for cut in (0..all.len()).filter(|cut| cut % 37 == 0 || all.len() - cut < message.len() + 3) {
        let mut socket = TcpStream::connect(world.address()).await.unwrap();
        until(&mut socket, b"\r\n").await;
        // In two parts, so that what comes first is read by itself.
        let (first, second) = all.as_bytes()[..cut].split_at(cut / 2);
        socket.write_all(first).await.unwrap();
        socket.write_all(second).await.unwrap();
        let complete = cut.saturating_sub(hello.len()) / message.len();
        whole += complete;
        // Answers come for whole messages alone; the last is not waited for.
        let mut answers = Vec::new();
        while answers.windows(6).filter(|word| *word == b"\"seq\":").count() < complete.saturating_sub(1) {
            assert_ne!(socket.read_buf(&mut answers).await.unwrap(), 0);
        }
        let text = String::from_utf8_lossy(&answers).into_owned();
        for seq in text.split("\"seq\":").skip(1).filter_map(|rest| rest.split(['}', ',']).next()) {
            assert!(acked.insert(seq.parse::<u64>().unwrap()), "{seq} is acknowledged once");
        }
        socket.set_zero_linger().unwrap();
        drop(socket);
    }
    // What was on its way is read or not; what is read is stored whole.
    let info = async || -> serde_json::Value {
        let answer = watcher.request("$JS.API.STREAM.INFO.S", "".into()).await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&answer.payload).unwrap()["state"].clone()
    };
    while world.server.broker().client_count() > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let state = info().await;
    let (messages, last) = (state["messages"].as_u64().unwrap(), state["last_seq"].as_u64().unwrap());
    assert_eq!(messages, last, "sequences have no gaps");
    assert!(messages <= whole as u64 && acked.last().is_some_and(|seq| *seq <= last), "{state} {whole}");
    for seq in 1..=last {
        let asked = format!("{{\"seq\":{seq}}}");
        let found = watcher.request("$JS.API.STREAM.MSG.GET.S", asked.into()).await.unwrap();
        let found: serde_json::Value = serde_json::from_slice(&found.payload).unwrap();
        let data =
            base64::engine::general_purpose::STANDARD.decode(found["message"]["data"].as_str().unwrap()).unwrap();
        assert_eq!(data, payload.as_bytes(), "{seq}");
    }
    println!(
        "{} acknowledged of {whole} whole messages sent, {messages} stored, over resets at every byte",
        acked.len()
    );
    world.server.stop().await;
}

/// A server, an account and a user have as many connections, and a client as many subscriptions, as they may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_and_subscriptions_are_limited() {
    let world = World::start(
        "max_connections: 6, max_subscriptions: 5
        accounts {
            A { users: [{user: a, password: p}], limits { max_connections: 2, max_subscriptions: 3 } }
            B { users: [{user: b, password: p}] }
        }",
    )
    .await;
    let hello = |user: &str| format!(r#"CONNECT {{"verbose":false,"user":"{user}","pass":"p"}}"#);
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut wire = world.wire().await;
        assert_eq!(wire.ask(&hello("a")).await, ["PONG"]);
        kept.push(wire);
    }
    let refused = ["-ERR 'maximum account active connections exceeded'", ""];
    assert_eq!(world.wire().await.ask(&hello("a")).await, refused);
    for (wire, max) in [(0, 3), (2, 5)] {
        if wire == 2 {
            let mut wire = world.wire().await;
            assert_eq!(wire.ask(&hello("b")).await, ["PONG"]);
            kept.push(wire);
        }
        let subs: Vec<String> = (0..max + 1).map(|sid| format!("SUB x.{sid} {sid}")).collect();
        let answer = kept[wire].ask(&subs.join("\r\n")).await;
        assert_eq!(answer, ["-ERR 'maximum subscriptions exceeded'", "PONG"], "{max}");
        // One that ends makes room for another.
        assert_eq!(kept[wire].ask("UNSUB 0\r\nSUB y 9").await, ["PONG"]);
    }
    while kept.len() < 6 {
        let mut wire = world.wire().await;
        assert_eq!(wire.ask(&hello("b")).await, ["PONG"]);
        kept.push(wire);
    }
    assert_eq!(world.wire().await.until_pong().await, ["-ERR 'maximum connections exceeded'", ""]);
    drop(kept.pop());
    while world.server.broker().client_count() > 5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.wire().await.ask(&hello("b")).await, ["PONG"]);
    world.server.stop().await;
}

/// The same by JWT.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_in_jwts_hold() {
    use nkeys::KeyPair;
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let token = |issuer: &KeyPair, subject: &KeyPair, kind: &str, more: serde_json::Value| {
        let mut nats = serde_json::json!({ "type": kind, "version": 2 });
        nats.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let claims = serde_json::json!({
            "iss": issuer.public_key(), "sub": subject.public_key(), "name": kind, "iat": 1, "nats": nats
        });
        let head = URL.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
        let signed = format!("{head}.{}", URL.encode(claims.to_string()));
        format!("{signed}.{}", URL.encode(issuer.sign(signed.as_bytes()).unwrap()))
    };
    let limits = serde_json::json!({"limits": {"conn": 2, "subs": 4, "payload": -1, "imports": -1, "exports": -1}});
    let world = World::start(&format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}",
        token(&operator, &operator, "operator", serde_json::json!({})),
        account.public_key(),
        token(&operator, &account, "account", limits),
    ))
    .await;
    let jwt = token(&account, &user, "user", serde_json::json!({"subs": 2, "payload": -1, "data": -1}));
    let connect = async || {
        let wire = world.wire().await;
        let info: serde_json::Value = serde_json::from_str(wire.info.strip_prefix("INFO ").unwrap()).unwrap();
        let sig = URL.encode(user.sign(info["nonce"].as_str().unwrap().as_bytes()).unwrap());
        (wire, format!(r#"CONNECT {{"verbose":false,"jwt":"{jwt}","sig":"{sig}"}}"#))
    };
    let mut kept = Vec::new();
    for _ in 0..2 {
        let (mut wire, hello) = connect().await;
        assert_eq!(wire.ask(&hello).await, ["PONG"]);
        assert_eq!(wire.ask("SUB a 1\r\nSUB b 2\r\nSUB c 3").await, ["-ERR 'maximum subscriptions exceeded'", "PONG"]);
        kept.push(wire);
    }
    let (mut wire, hello) = connect().await;
    assert_eq!(wire.ask(&hello).await, ["-ERR 'maximum account active connections exceeded'", ""]);
    world.server.stop().await;
}

/// Connections that come and go at speed leave nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_come_and_go_leave_nothing() {
    if !can_measure() {
        return;
    }
    // What is remembered of closed connections is counted apart.
    let process = Process::start("jetstream: disabled, max_closed_clients: 100");
    let round = async |count: usize| {
        for _ in 0..count / 50 {
            join_all((0..50).map(async |at| {
                let mut socket = process.client("SUB a.*.b 1\r\nSUB c.> 2\r\nPUB a.1.b 5\r\nhello\r\n").await;
                match at % 3 {
                    0 => socket.set_zero_linger().unwrap(),
                    1 => socket.write_all(b"PUB a.2.b 100000\r\nbegun").await.unwrap(),
                    _ => {}
                }
            }))
            .await;
        }
        process.until("/connz", "num_connections", |left| left == 0).await;
    };
    round(500).await;
    let (handles, memory) = (process.handles(), process.resident());
    let began = Instant::now();
    round(5000).await;
    let took = began.elapsed();
    process.until("/subsz", "num_subscriptions", |left| left < 50).await;
    let grown = process.resident().saturating_sub(memory);
    let left = process.handles();
    println!(
        "5000 connections came and went in {took:.1?}: {handles} and then {left} file handles, memory {:+.1} MiB",
        grown as f64 / MIB as f64
    );
    assert!(left <= handles + 5, "{handles} {left}");
    assert!(grown < 8 * MIB, "{grown}");
    assert_eq!(process.count("/varz", "total_connections").await, 5500);
}

/// Without file handles the server waits, says so once, and goes on when there are some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_survives_running_out_of_file_handles() {
    if !cfg!(unix) {
        return println!("skipped: there is no limit to set");
    }
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let port = crate::support::server::free_port();
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_natterjack")])
        .args(["--no-jetstream", "-m", "0", "-p", &port.to_string(), "-l", &log.display().to_string()])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let mut first = loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(socket) => break socket,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    first.write_all(b"CONNECT {\"verbose\":false}\r\nSUB me 1\r\nPING\r\n").await.unwrap();
    until(&mut first, b"PONG\r\n").await;
    // Those beyond the limit wait in the backlog.
    let crowd = join_all((0..100).map(async |_| TcpStream::connect(("127.0.0.1", port)).await.unwrap())).await;
    let said = async |text: &str| std::fs::read_to_string(&log).unwrap_or_default().matches(text).count();
    while said("Accept error").await == 0 {
        assert!(began.elapsed() < PATIENCE, "nothing is said");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (_, trips, longest) = served_during(&mut first, tokio::time::sleep(Duration::from_millis(1500))).await;
    assert!(trips > 10);
    assert_eq!(said("Accept error").await, 1);
    drop(crowd);
    let began = Instant::now();
    let mut late = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    late.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await.unwrap();
    until(&mut late, b"PONG\r\n").await;
    println!(
        "40 file handles, 100 peers: {trips} round trips of one inside, the longest {longest:.1?}; served {:.1?} after they left",
        began.elapsed()
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

/// TLS handshakes that are begun and left: small, bounded in time, and others get in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_tls_is_bounded() {
    if !can_measure() {
        return;
    }
    lift_file_limit();
    let process =
        Process::start(&format!("jetstream: disabled\n{}", tls::block("").replace("timeout: 20", "timeout: 4")));
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 400]].concat();
    let begin = async |count: usize| {
        join_all((0..count).map(async |_| {
            let mut socket = process.socket().await;
            until(&mut socket, b"\r\n").await;
            socket.write_all(&hello).await.unwrap();
            socket
        }))
        .await
    };
    let first = begin(20).await;
    let before = process.resident();
    let began = Instant::now();
    let half = begin(1000).await;
    let options = async_nats::ConnectOptions::new().add_root_certificates(tls::file("ca.pem")).require_tls(true);
    let address = process.server.address().replace("127.0.0.1", "localhost");
    let client = options.connect(format!("tls://{address}")).await.expect("others get in");
    let (entered, each) = (began.elapsed(), process.resident().saturating_sub(before) / 1000);
    for mut socket in first.into_iter().chain(half) {
        until(&mut socket, b"never").await;
    }
    println!(
        "1000 half-open TLS handshakes: {:.1} KiB each, another client in after {entered:.1?}, all cut after {:.1?} of 4 s",
        each as f64 / 1024.0,
        began.elapsed()
    );
    // Half of it is rustls' own buffer.
    assert!(each <= 24 << 10, "{each}");
    process.until("/connz", "num_connections", |left| left == 1).await;
    drop(client);
}

/// Wrong passwords cost a slow hash each; the others do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_passwords_holds_nobody_up() {
    let hash = bcrypt::hash("right", 4).unwrap().replacen("$04$", "$10$", 1);
    let world = World::start(&format!(
        "authorization {{ timeout: 60, users: [ {{user: slow, password: '{hash}'}}, {{user: fast, password: p}} ] }}"
    ))
    .await;
    let mut good = client(world.address(), r#","user":"fast","pass":"p""#).await;
    let (enough, stopped) = tokio::sync::watch::channel(0);
    let storm = join_all((0..60).map(|at| {
        let (enough, world) = (enough.clone(), &world);
        async move {
            let user = if at % 2 == 0 { "slow" } else { "unknown" };
            let mut wire = world.wire().await;
            let answer = wire.ask(&format!(r#"CONNECT {{"user":"{user}","pass":"wrong{at}"}}"#)).await;
            assert_eq!(answer, ["-ERR 'Authorization Violation'", ""]);
            enough.send_modify(|count| *count += 1);
        }
    }));
    let mut stopped = stopped;
    // A few of them are enough to see how the others fare.
    let flood = async {
        tokio::select! {
            _ = storm => {}
            seen = stopped.wait_for(|count| *count >= 6) => { seen.unwrap(); }
        }
    };
    let entering = async {
        let began = Instant::now();
        drop(client(world.address(), r#","user":"fast","pass":"p""#).await);
        began.elapsed()
    };
    let both = async { tokio::join!(flood, entering) };
    let ((_, entered), trips, longest) = served_during(&mut good, both).await;
    println!(
        "60 wrong passwords at once: {trips} round trips meanwhile, the longest {longest:.1?}; another user in after {entered:.1?}"
    );
    assert!(trips > 10 && longest < PATIENCE / 4 && entered < PATIENCE / 4);
}

/// Pulls that wait on one consumer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_that_wait_are_bounded() {
    let world = World::start("jetstream: enabled").await;
    let mut wire = world.wire().await;
    let stream = r#"{"name":"S","subjects":["s"]}"#;
    let consumer = r#"{"stream_name":"S","config":{"durable_name":"c","ack_policy":"explicit"}}"#;
    let next = r#"{"batch":1,"expires":60000000000}"#;
    let put = |subject: &str, reply: &str, body: &str| format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len());
    let hello = "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB out 1\r\nSUB no 2\r\n";
    wire.say(&format!("{hello}{}", put("$JS.API.STREAM.CREATE.S", "no", stream))).await;
    while !wire.line().await.contains("stream_create_response") {}
    wire.say(&put("$JS.API.CONSUMER.DURABLE.CREATE.S.c", "no", consumer)).await;
    while !wire.line().await.contains("consumer_create_response") {}
    wire.say(&put("$JS.API.CONSUMER.MSG.NEXT.S.c", "out", next).repeat(10_000)).await;
    let mut refused = 0;
    while refused < 10_000 - 512 {
        refused += usize::from(wire.line().await.contains("409 Exceeded MaxWaiting"));
    }
    wire.say(&put("$JS.API.CONSUMER.INFO.S.c", "no", "")).await;
    let info = loop {
        let line = wire.line().await;
        if line.contains("consumer_info_response") {
            break line;
        }
        assert!(!line.contains("409"), "{line}");
    };
    println!("10000 pulls on one consumer: {refused} refused");
    assert!(info.contains("\"num_waiting\":512"), "{info}");
    world.server.stop().await;
}

/// Who takes nothing for longer than `write_deadline` is cut, however little waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_is_cut_in_time() {
    let process = Process::start("write_deadline: \"700ms\"\njetstream: disabled");
    let slow = process.client("SUB flood 1\r\n").await;
    let mut publisher = process.client("").await;
    let began = Instant::now();
    let payload = vec![b'x'; 1 << 20];
    // More than the kernel takes for it, less than `max_pending`.
    for _ in 0..24 {
        publisher.write_all(b"PUB flood 1048576\r\n").await.unwrap();
        publisher.write_all(&payload).await.unwrap();
        publisher.write_all(b"\r\n").await.unwrap();
    }
    process.until("/varz", "slow_consumers", |cut| cut == 1).await;
    println!("a peer that takes nothing: cut after {:.1?} of 0.7 s", began.elapsed());
    process.until("/connz", "num_connections", |left| left == 1).await;
    assert_eq!(process.reasons().await, ["Slow Consumer (Write Deadline)"]);
    assert!(process.log().contains("WriteDeadline of 700ms exceeded"), "{}", process.log());
    assert!(began.elapsed() >= Duration::from_millis(700));
    let metrics = http_get(&process.server.monitoring_url(), "/metrics").await;
    assert!(metrics.lines().any(|line| line.starts_with("gnatsd_varz_slow_consumers{") && line.ends_with("} 1")));
    drop(slow);
}

/// Returns once the server at `address` has read all that the kernel has for it.
async fn until_read(address: &str) {
    let port = address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let local = format!(":{port:04X}");
    let began = Instant::now();
    let unread = || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("sockets of this machine");
        let mut lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // Local address, state ESTABLISHED, and what waits to be read.
        lines.any(|words| words[1].ends_with(&local) && words[3] == "01" && !words[4].ends_with(":00000000"))
    };
    while unread() {
        assert!(began.elapsed() < PATIENCE, "the server does not read");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Memory before authentication: each sends as much as it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_is_held_before_connect() {
    if !can_measure() {
        return;
    }
    lift_file_limit();
    let request = format!("GET / HTTP/1.1\r\nHost: here\r\nX: {}", "x".repeat(64 << 10));
    let open = "GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let connect = format!("CONNECT {{\"lang\":\"{}", "x".repeat(4070));
    // The first frame of a compressed message without an end.
    let mut deflated = Vec::with_capacity(200);
    let mut compressor = flate2::Compress::new(flate2::Compression::fast(), false);
    compressor.compress_vec(connect.as_bytes(), &mut deflated, flate2::FlushCompress::Sync).unwrap();
    let bomb = [&[0x02 | 0x40, 0x80 | deflated.len() as u8, 0, 0, 0, 0], &deflated[..]].concat();
    assert!(deflated.len() < 126);
    let websocket = "websocket { port: -1, no_tls: true, compression: true, handshake_timeout: 30 }";
    // The head of a request is held twice while it grows, and an inflater has a window of 32 KiB.
    for (what, web, first, then, kibibytes_max) in [
        ("CONNECT", false, "", connect.as_bytes(), 16),
        ("a WebSocket's request", true, "", &request.as_bytes()[..16000], 48),
        ("a compressed CONNECT", true, open, &bomb[..], 72),
    ] {
        let text = format!("jetstream: disabled, authorization {{ token: t, timeout: 30 }}\n{websocket}");
        let process = Process::start(&text);
        let address = if web { process.websocket() } else { process.server.address() };
        let send = async |count: usize| {
            let mut sockets = Vec::new();
            for _ in 0..count / 100 {
                sockets.extend(
                    join_all((0..100).map(async |_| {
                        let mut socket = TcpStream::connect(&address).await.unwrap();
                        if !first.is_empty() {
                            socket.write_all(first.as_bytes()).await.unwrap();
                            until(&mut socket, b"\r\n\r\n").await;
                        }
                        let _ = socket.write_all(then).await;
                        socket
                    }))
                    .await,
                );
            }
            sockets
        };
        let warm = send(100).await;
        // What the program needs once (its code's pages too) is there when all of the first have been read.
        until_read(&address).await;
        let before = process.resident();
        let sockets = send(1000).await;
        until_read(&address).await;
        let each = process.resident().saturating_sub(before) / sockets.len() as u64;
        println!("{what}, as long as it may be and not finished: {:.1} KiB each", each as f64 / 1024.0);
        assert!(each <= kibibytes_max << 10, "{what}: {each} bytes");
        drop(warm);
    }
}
