//! Length and integer overflow: every number a client or an operator may write, written in every way that overflows.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use futures_util::future::join_all;
use natterjack::config::Config;
use natterjack::config::file::read_text;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::{PATIENCE, World, round};
use super::{ask, must};

/// Whole numbers that some type has no room for, or that mean something special.
const EXTREMES: [&str; 10] = [
    "0",
    "-1",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "99999999999999999999",
];
/// What is no number to JSON, or none of Go's integers.
const NO_INTEGERS: [&str; 8] = ["+5", "0x5", "05", "1e9", "1.5", "\"5\"", "true", "[5]"];

/// Says `text` and ends the sending side; all that comes back.
async fn said_to(world: &World, text: &str) -> String {
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_on_the_wire() {
    let world = World::start("").await;
    let watcher = world.server.client_url();
    let watcher = async_nats::connect(watcher).await.unwrap();
    let mut seen = watcher.subscribe("x").await.unwrap();
    round(&watcher).await;
    let odd = ["+5", "0x5", "1e9", "", "5 5 5", "-", "5-", "٥", "00000000000000000005"];
    let mut lines = Vec::new();
    for number in EXTREMES.iter().chain(&odd).filter(|number| **number != "0") {
        for line in [
            format!("PUB x {number}\r\nhello\r\n"),
            format!("PUB x reply {number}\r\nhello\r\n"),
            format!("HPUB x {number} 17\r\nNATS/1.0\r\n\r\nhello\r\n"),
            format!("HPUB x 12 {number}\r\nNATS/1.0\r\n\r\nhello\r\n"),
            format!("HPUB x reply {number} {number}\r\nNATS/1.0\r\n\r\nhello\r\n"),
        ] {
            lines.push(line);
        }
    }
    for some in lines.chunks(32) {
        let texts: Vec<_> =
            some.iter().map(|line| format!("CONNECT {{\"verbose\":false}}\r\n{line}PING\r\n")).collect();
        for (line, answer) in some.iter().zip(join_all(texts.iter().map(|text| said_to(&world, text))).await) {
            let (_, replies) = answer.split_once("\r\n").unwrap();
            assert!(replies.starts_with("-ERR '") && !replies.contains("PONG"), "{line:?}: {replies:?}");
        }
    }
    // Of subscriptions' ends, a count that is none is no end.
    for number in EXTREMES.iter().chain(&odd).filter(|number| !number.contains(' ')) {
        let text = format!("CONNECT {{\"verbose\":false}}\r\nSUB y {number}x\r\nUNSUB {number}x {number}\r\nPING\r\n");
        let answer = said_to(&world, &text).await;
        assert!(answer.ends_with("PONG\r\n") && !answer.contains("-ERR"), "{number}: {answer}");
    }
    watcher.publish("x", "end".into()).await.unwrap();
    assert_eq!(super::super::next(&mut seen).await.payload, "end");
    println!("{} publishes with sizes that are none", lines.len());
    world.server.stop().await;
}

/// Where a request has numbers: its subject, and its body with `#` where each of them is in turn.
const REQUESTS: &[(&str, &str, &[&str])] = &[
    (
        "STREAM.CREATE.N",
        r#"{"name":"N","subjects":["n"],%}"#,
        &[
            "\"max_consumers\":#",
            "\"max_msgs\":#",
            "\"max_bytes\":#",
            "\"max_age\":#",
            "\"max_msgs_per_subject\":#",
            "\"max_msg_size\":#",
            "\"num_replicas\":#",
            "\"duplicate_window\":#",
            "\"first_seq\":#",
            "\"allow_msg_ttl\":true,\"subject_delete_marker_ttl\":#",
            "\"consumer_limits\":{\"inactive_threshold\":#}",
            "\"consumer_limits\":{\"max_ack_pending\":#}",
        ],
    ),
    ("STREAM.CREATE.O", r#"{"name":"O","sources":[{"name":"S",%}]}"#, &["\"opt_start_seq\":#"]),
    ("STREAM.CREATE.P", r#"{"name":"P","mirror":{"name":"S",%}}"#, &["\"opt_start_seq\":#"]),
    (
        "CONSUMER.CREATE.S.pull",
        r#"{"stream_name":"S","config":{"name":"pull","ack_policy":"explicit",%}}"#,
        &[
            "\"deliver_policy\":\"by_start_sequence\",\"opt_start_seq\":#",
            "\"ack_wait\":#",
            "\"max_deliver\":#",
            "\"backoff\":[#]",
            "\"rate_limit_bps\":#",
            "\"max_waiting\":#",
            "\"max_ack_pending\":#",
            "\"max_batch\":#",
            "\"max_expires\":#",
            "\"max_bytes\":#",
            "\"inactive_threshold\":#",
            "\"num_replicas\":#",
            "\"priority_policy\":\"pinned_client\",\"priority_groups\":[\"g\"],\"priority_timeout\":#",
        ],
    ),
    (
        "CONSUMER.CREATE.S.push",
        r#"{"stream_name":"S","config":{"name":"push","deliver_subject":"out","ack_policy":"explicit",%}}"#,
        &["\"rate_limit_bps\":#", "\"idle_heartbeat\":#", "\"flow_control\":true,\"idle_heartbeat\":#"],
    ),
    ("STREAM.NAMES", "{%}", &["\"offset\":#"]),
    ("STREAM.LIST", "{%}", &["\"offset\":#"]),
    ("STREAM.INFO.S", "{%}", &["\"subjects_filter\":\">\",\"offset\":#"]),
    ("CONSUMER.NAMES.S", "{%}", &["\"offset\":#"]),
    ("CONSUMER.LIST.S", "{%}", &["\"offset\":#"]),
    ("STREAM.PURGE.T", "{%}", &["\"seq\":#", "\"keep\":#", "\"filter\":\"t.x\",\"seq\":#"]),
    ("STREAM.MSG.GET.S", "{%}", &["\"seq\":#", "\"next_by_subj\":\"s.*\",\"seq\":#"]),
    ("STREAM.MSG.DELETE.T", "{%}", &["\"seq\":#"]),
    ("STREAM.SNAPSHOT.T", r#"{"deliver_subject":"snap",%}"#, &["\"chunk_size\":#", "\"window_size\":#"]),
    ("CONSUMER.RESET.S.reset", "{%}", &["\"seq\":#"]),
    (
        "DIRECT.GET.S",
        "{%}",
        &[
            "\"seq\":#",
            "\"next_by_subj\":\"s.*\",\"seq\":#",
            "\"seq\":1,\"batch\":#",
            "\"seq\":1,\"batch\":5,\"max_bytes\":#",
            "\"multi_last\":[\"s.*\"],\"up_to_seq\":#",
            "\"multi_last\":[\"s.*\"],\"batch\":#",
        ],
    ),
];

async fn jetstream_world() -> (World, async_nats::Client) {
    let world = World::start("jetstream: enabled").await;
    let options = async_nats::ConnectOptions::new().request_timeout(Some(PATIENCE));
    let client = options.connect(world.server.client_url()).await.unwrap();
    must(&client, "STREAM.CREATE.S", r#"{"name":"S","subjects":["s.*"],"allow_direct":true,"allow_msg_ttl":true}"#)
        .await;
    for number in 0..3 {
        assert!(ask(&client, &format!("s.{number}"), "").await.contains("\"seq\":"));
    }
    (world, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_in_api_requests() {
    let (world, client) = jetstream_world().await;
    must(&client, "STREAM.CREATE.T", r#"{"name":"T","subjects":["t.*"]}"#).await;
    must(
        &client,
        "CONSUMER.CREATE.S.reset",
        r#"{"stream_name":"S","config":{"durable_name":"reset","ack_policy":"explicit"}}"#,
    )
    .await;
    let mut cases = 0;
    for (subject, body, fields) in REQUESTS {
        for field in *fields {
            for number in EXTREMES.iter().chain(&NO_INTEGERS) {
                let body = body.replace('%', &field.replace('#', number));
                let answer = ask(&client, &format!("$JS.API.{subject}"), body.clone()).await;
                cases += 1;
                let json = serde_json::from_str::<serde_json::Value>(answer.split(" 4").next().unwrap_or_default());
                let refused = answer.contains("\"error\":") || answer.contains(" 4");
                assert!(
                    refused || answer.starts_with(" 204") || json.is_ok() || answer.contains("NatsSequence"),
                    "{subject} {body}: {answer}"
                );
                if NO_INTEGERS.contains(number) || ["99999999999999999999", "-9223372036854775809"].contains(number) {
                    assert!(refused, "{subject} {body}: {answer}");
                }
                match subject.split('.').collect::<Vec<_>>()[..] {
                    ["STREAM", "CREATE", name] => {
                        ask(&client, &format!("$JS.API.STREAM.DELETE.{name}"), "").await;
                    }
                    ["CONSUMER", "CREATE", _, name] => {
                        ask(&client, &format!("$JS.API.CONSUMER.DELETE.S.{name}"), "").await;
                    }
                    _ => {}
                }
            }
        }
    }
    let info = must(&client, "STREAM.INFO.S", "").await;
    assert!(info.contains(r#""messages":3"#) && info.contains(r#""last_seq":3"#), "{info}");
    println!("{cases} API requests with numbers");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_in_pulls_and_acks() {
    let (world, client) = jetstream_world().await;
    let config = r#"{"stream_name":"S","config":{"name":"c","durable_name":"c","ack_policy":"explicit","ack_wait":3600000000000}}"#;
    must(&client, "CONSUMER.CREATE.S.c", config).await;
    let next = "$JS.API.CONSUMER.MSG.NEXT.S.c";
    let mut inbox = client.subscribe("pulled").await.unwrap();
    let mut cases = 0;
    // What no pull may ask for is refused; nothing has been delivered then.
    for field in ["batch", "expires", "max_bytes", "idle_heartbeat", "min_pending", "min_ack_pending", "priority"] {
        for number in NO_INTEGERS.iter().chain(&["99999999999999999999", "9223372036854775808"]) {
            client.publish_with_reply(next, "pulled", format!("{{\"{field}\":{number}}}").into()).await.unwrap();
            let answer = super::super::next(&mut inbox).await;
            assert_eq!(answer.status.map(|status| status.as_u16()), Some(400), "{field} {number}: {answer:?}");
            cases += 1;
        }
        for number in EXTREMES {
            let body = format!("{{\"no_wait\":true,\"batch\":1,\"{field}\":{number}}}");
            client.publish_with_reply(next, "elsewhere", body.into()).await.unwrap();
            cases += 1;
        }
    }
    let info = must(&client, "CONSUMER.INFO.S.c", "").await;
    assert!(info.contains("\"delivered\""), "{info}");
    must(&client, "CONSUMER.RESET.S.c", "").await;
    client.publish_with_reply(next, "pulled", r#"{"batch":1,"no_wait":true}"#.into()).await.unwrap();
    let message = super::super::next(&mut inbox).await;
    let reply = message.reply.expect("a subject to ack on").to_string();
    let state = async || {
        let info = must(&client, "CONSUMER.INFO.S.c", "").await;
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        (info["num_ack_pending"].clone(), info["ack_floor"].clone(), info["num_redelivered"].clone())
    };
    let before = state().await;
    assert_eq!(before.0, 1);
    let tokens: Vec<&str> = reply.split('.').collect();
    for place in 4..7 {
        for number in EXTREMES.iter().chain(&["+1", "0x1", "1e0", "x", "00000000000000000000000001"]) {
            // Which delivery of it is acknowledged does not matter, as long as it is a number.
            if place != 5 && number.parse::<u64>().is_ok() {
                continue;
            }
            let mut tokens = tokens.clone();
            tokens[place] = number;
            for payload in ["+ACK", "-NAK {\"delay\":9223372036854775807}", "+TERM", "+NXT 99999999999999999999"] {
                client.publish(tokens.join("."), payload.into()).await.unwrap();
                cases += 1;
            }
        }
    }
    round(&client).await;
    assert_eq!(state().await, before, "only its own delivery is acknowledged");
    // Delays beyond all time delay, and stop nothing.
    for delay in EXTREMES.iter().chain(&NO_INTEGERS) {
        client.publish(reply.clone(), format!("-NAK {{\"delay\":{delay}}}").into()).await.unwrap();
        client.publish(reply.clone(), format!("-NAK {delay}").into()).await.unwrap();
        client.publish(reply.clone(), format!("+NXT {delay}").into()).await.unwrap();
        client.publish(reply.clone(), format!("+NXT {{\"batch\":{delay},\"no_wait\":true}}").into()).await.unwrap();
        cases += 4;
    }
    round(&client).await;
    must(&client, "CONSUMER.INFO.S.c", "").await;
    println!("{cases} pulls and acks with numbers");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_in_headers() {
    let (world, client) = jetstream_world().await;
    for (name, more) in [
        ("B", r#""allow_atomic":true,"allow_batched":true"#),
        ("C", r#""allow_msg_counter":true"#),
        ("D", r#""allow_msg_schedules":true,"allow_msg_ttl":true"#),
    ] {
        let subject = name.to_lowercase();
        let config = format!(r#"{{"name":"{name}","subjects":["{subject}.>"],{more}}}"#);
        must(&client, &format!("STREAM.CREATE.{name}"), config).await;
    }
    let mut stored = 0;
    let mut cases = 0;
    let odd = ["+5", "0x5", "1e9", "", "5s", "-5s", "9223372036854775807s", "1h99999999999999999999s", "NaN", "٥"];
    for number in EXTREMES.iter().chain(&odd) {
        for (subject, fixed, header) in [
            ("s.h", "", "Nats-TTL"),
            ("s.h", "", "Nats-Expected-Last-Sequence"),
            ("s.h", "", "Nats-Expected-Last-Subject-Sequence"),
            ("s.h", "", "Nats-Required-Api-Level"),
            ("b.h", "Nats-Batch-Id", "Nats-Batch-Sequence"),
            ("c.h", "", "Nats-Incr"),
            ("d.h", "Nats-Schedule-Target", "Nats-Schedule-TTL"),
            ("d.h", "Nats-Schedule-Target", "Nats-Schedule"),
        ] {
            let values = match header {
                "Nats-Schedule" => {
                    vec![format!("@every {number}"), format!("@at {number}"), format!("{number} * * * * *")]
                }
                _ => vec![(*number).to_owned()],
            };
            for value in values {
                let mut headers = HeaderMap::new();
                headers.insert(header, value.as_str());
                match fixed {
                    "Nats-Schedule-Target" => {
                        headers.insert(fixed, "d.target");
                        if header != "Nats-Schedule" {
                            headers.insert("Nats-Schedule", "@every 1000h");
                        }
                    }
                    "" => {}
                    _ => headers.insert(fixed, "one"),
                }
                let answer = client.request_with_headers(subject, headers, "".into()).await;
                let answer = answer.unwrap_or_else(|error| panic!("{header}: {value}: {error}"));
                let text = String::from_utf8_lossy(&answer.payload).into_owned();
                cases += 1;
                // A member of a batch that has been taken is answered with nothing.
                let staged = header == "Nats-Batch-Sequence" && text.is_empty();
                assert!(staged || text.starts_with('{'), "{header}: {value}: {text}");
                stored += u64::from(subject == "s.h" && !text.contains("\"error\""));
            }
        }
    }
    let info = must(&client, "STREAM.INFO.S", "").await;
    assert!(info.contains(&format!("\"last_seq\":{}", 3 + stored)), "{stored}: {info}");
    println!("{cases} headers with numbers");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_in_queries_of_monitoring() {
    let world = World::start("http: \"127.0.0.1:-1\"\njetstream: enabled").await;
    let address = world.server.monitor_address().expect("monitoring listens");
    let get = async |path: String| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let mut paths = Vec::new();
    for number in EXTREMES.iter().chain(&["%2B5", "0x5", "1e9", "", "x", "%00", "%ff"]) {
        for query in [
            "connz?offset=",
            "connz?limit=",
            "connz?cid=",
            "connz?subs=1&limit=",
            "connz?state=closed&offset=",
            "subsz?offset=",
            "subsz?subs=1&limit=",
            "jsz?offset=",
            "jsz?streams=1&limit=",
            "jsz?consumers=1&offset=",
            "accountz?acc=",
            "healthz?js-enabled-only=",
            "varz?",
        ] {
            paths.push(format!("/{query}{number}"));
        }
    }
    for path in &paths {
        let answer = get(path.clone()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["200", "400", "404"].contains(&status), "{path}: {answer}");
    }
    println!("{} monitoring queries with numbers", paths.len());
    world.server.stop().await;
}

#[test]
fn numbers_in_config_files() {
    const KEYS: &[&str] = &[
        "port: #",
        "http_port: #",
        "listen: \"127.0.0.1:#\"",
        "max_connections: #",
        "max_subscriptions: #",
        "max_control_line: #",
        "max_payload: #",
        "max_pending: #",
        "max_closed_clients: #",
        "max_traced_msg_len: #",
        "logfile_size_limit: #",
        "logfile_max_num: #",
        "ping_interval: #",
        "ping_max: #",
        "write_deadline: #",
        "lame_duck_duration: #",
        "lame_duck_grace_period: #",
        "authorization { timeout: #, user: u, password: p }",
        "authorization { users: [ { user: u, password: p, permissions: { allow_responses: { max: #, expires: \"1m\" } } } ] }",
        "authorization { users: [ { user: u, password: p, permissions: { allow_responses: { max: 1, expires: # } } } ] }",
        "jetstream { max_mem: # }",
        "jetstream { max_file: # }",
        "jetstream { limits { max_ack_pending: # } }",
        "accounts { A { jetstream { max_mem: #, max_file: #, max_streams: #, max_consumers: # } } }",
        "accounts { A { limits { max_connections: #, max_subscriptions: #, max_payload: # } } }",
        "accounts { A { mappings { a: [ { destination: b, weight: # } ] } } }",
        "accounts { A { exports: [ { service: \"q.*\", account_token_position: # } ] } }",
        "websocket { port: #, no_tls: true }",
        "websocket { port: -1, no_tls: true, handshake_timeout: # }",
    ];
    let suffixed = ["16e", "9223372036854775807k", "99999999999999999999KB", "1e9s", "9e99s", "-5", "0.0", "1e400"];
    let (mut read, mut refused) = (0, 0);
    let folder = tempfile::tempdir().unwrap();
    for key in KEYS {
        for number in EXTREMES.iter().chain(&NO_INTEGERS).chain(&suffixed) {
            let text = key.replace('#', number);
            match read_text(Config::on_free_ports(folder.path()), &text) {
                Ok(config) => {
                    read += 1;
                    let limits = &config.limits;
                    assert!(limits.payload_bytes_max <= i32::MAX as usize, "{text}");
                    assert!(limits.pings_out_max > 0 || *number == "0", "{text}");
                }
                Err(errors) => {
                    refused += 1;
                    assert!(!errors.to_string().is_empty(), "{text}");
                }
            }
            if ["9223372036854775808", "99999999999999999999", "16e"].contains(number) {
                assert!(read_text(Config::on_free_ports(folder.path()), &text).is_err(), "{text}");
            }
        }
    }
    println!("{read} config files with numbers read, {refused} refused");
}

/// The official client's own figures, so that what is refused above is refused for its number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_right_are_taken() {
    let (world, client) = jetstream_world().await;
    let js = jetstream::new(client);
    let stream = js.get_stream("S").await.unwrap();
    let config = jetstream::consumer::pull::Config {
        ack_wait: Duration::from_secs(3600),
        max_deliver: i64::MAX,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    assert_eq!(consumer.cached_info().config.max_deliver, i64::MAX);
    world.server.stop().await;
}
