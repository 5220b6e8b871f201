//! CR, LF, blanks, NUL and '%' in names out of JSON and config files, which end up on a wire line.

use async_nats::jetstream::context::Context;
use natterjack::config::Config;
use natterjack::config::file::read_text;

use super::super::{World, round};
use super::{ask, must};

/// What a name may hold that breaks a line, ends a token or is a format of some language.
const PIECES: [&str; 14] = [
    "\\r\\n",
    "\\n",
    "\\r",
    " ",
    "\\t",
    "\\u0000",
    "\\u000b",
    "\\u000c",
    "%s%n",
    "\\u0085",
    "\\u2028",
    "\\r\\nPUB owned 5\\r\\nowned",
    " 5\\r\\nowned",
    "\\u001b[2J",
];

/// A request, and `#` for the name in it.
const REQUESTS: &[(&str, &str)] = &[
    ("STREAM.CREATE.X", r##"{"name":"X#","subjects":["x"]}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","subjects":["x.#"]}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","subjects":["x"],"republish":{"src":"x","dest":"y#"}}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","subjects":["x"],"republish":{"src":"x#","dest":"y"}}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","subjects":["x"],"subject_transform":{"src":"x","dest":"y#"}}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","subjects":["x"],"subject_transform":{"src":"x#","dest":"y"}}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","mirror":{"name":"S#"}}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","mirror":{"name":"S","filter_subject":"s#"}}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","sources":[{"name":"S#"}]}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","sources":[{"name":"S","filter_subject":"s#"}]}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","sources":[{"name":"S","subject_transforms":[{"src":"s","dest":"t#"}]}]}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","sources":[{"name":"S","external":{"api":"a#","deliver":"d"}}]}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","sources":[{"name":"S","external":{"api":"a","deliver":"d#"}}]}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","sources":[{"name":"S","consumer":{"name":"c#","deliver_subject":"d"}}]}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","sources":[{"name":"S","consumer":{"name":"c","deliver_subject":"d#"}}]}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","subjects":["x"],"description":"d#","metadata":{"k#":"v#"}}"##),
    ("STREAM.CREATE.X", r##"{"name":"X","subjects":["x"],"placement":{"cluster":"c#","tags":["t#"]}}"##),
    (
        "CONSUMER.CREATE.S.c",
        r##"{"stream_name":"S","config":{"name":"c#","durable_name":"c#","ack_policy":"explicit"}}"##,
    ),
    ("CONSUMER.CREATE.S", r##"{"stream_name":"S","config":{"name":"c#","ack_policy":"explicit"}}"##),
    ("CONSUMER.DURABLE.CREATE.S.c", r##"{"stream_name":"S","config":{"durable_name":"c#","ack_policy":"explicit"}}"##),
    ("CONSUMER.CREATE.S.c", r##"{"stream_name":"S#","config":{"name":"c","ack_policy":"explicit"}}"##),
    (
        "CONSUMER.CREATE.S.c",
        r##"{"stream_name":"S","config":{"name":"c","deliver_subject":"out#","ack_policy":"none"}}"##,
    ),
    (
        "CONSUMER.CREATE.S.c",
        r##"{"stream_name":"S","config":{"name":"c","deliver_subject":"out","deliver_group":"g#","ack_policy":"none"}}"##,
    ),
    ("CONSUMER.CREATE.S.c", r##"{"stream_name":"S","config":{"name":"c","filter_subject":"s#","ack_policy":"none"}}"##),
    (
        "CONSUMER.CREATE.S.c",
        r##"{"stream_name":"S","config":{"name":"c","filter_subjects":["s#"],"ack_policy":"none"}}"##,
    ),
    (
        "CONSUMER.CREATE.S.c",
        r##"{"stream_name":"S","config":{"name":"c","ack_policy":"explicit","priority_policy":"overflow","priority_groups":["g#"]}}"##,
    ),
    ("CONSUMER.CREATE.S.c", r##"{"stream_name":"S","config":{"name":"c","ack_policy":"none","sample_freq":"5#"}}"##),
    ("STREAM.SNAPSHOT.S", r##"{"deliver_subject":"out#"}"##),
    ("STREAM.PURGE.S", r##"{"filter":"none#"}"##),
    ("STREAM.MSG.GET.S", r##"{"last_by_subj":"s#"}"##),
    ("DIRECT.GET.S", r##"{"last_by_subj":"s#"}"##),
    ("DIRECT.GET.S", r##"{"multi_last":["s#"]}"##),
    ("CONSUMER.MSG.NEXT.S.pull", r##"{"no_wait":true,"group":"g#","id":"i#"}"##),
    ("STREAM.NAMES", r##"{"subject":"s#"}"##),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_api_requests_break_no_line() {
    let world = World::start("jetstream: enabled").await;
    let client = async_nats::connect(world.server.client_url()).await.unwrap();
    must(&client, "STREAM.CREATE.S", r#"{"name":"S","subjects":["s"],"allow_direct":true}"#).await;
    must(&client, "CONSUMER.CREATE.S.pull", r#"{"stream_name":"S","config":{"name":"pull","ack_policy":"explicit"}}"#)
        .await;
    // A bare reader of everything: a line that is broken shows.
    let mut wire = world.wire().await;
    assert_eq!(
        wire.ask("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB owned 1\r\nSUB out 2\r\nSUB y 3").await,
        ["PONG"]
    );
    let mut owned = client.subscribe("owned").await.unwrap();
    round(&client).await;
    let mut cases = 0;
    for (subject, body) in REQUESTS {
        for piece in PIECES {
            let body = body.replace('#', piece);
            let answer = ask(&client, &format!("$JS.API.{subject}"), body.clone()).await;
            cases += 1;
            assert!(!answer.contains("timed out"), "{subject} {body}: {answer}");
            for published in ["s", "x"] {
                client.publish(published, "m".into()).await.unwrap();
            }
            for kept in ["X", "X%s%n"] {
                ask(&client, &format!("$JS.API.STREAM.DELETE.{kept}"), "").await;
            }
            for kept in ["c", "c%s%n"] {
                ask(&client, &format!("$JS.API.CONSUMER.DELETE.S.{kept}"), "").await;
            }
        }
    }
    round(&client).await;
    client.publish("owned", "end".into()).await.unwrap();
    assert_eq!(super::super::next(&mut owned).await.payload, "end");
    let lines = wire.ask("UNSUB 99").await;
    assert!(lines.iter().all(|line| !line.contains("-ERR 'Unknown")), "{lines:?}");
    must(&client, "STREAM.INFO.S", "").await;
    println!("{cases} names in requests");
    world.server.stop().await;
}

/// A name that made a stream which nobody could start took the account's whole API with it, and the next start as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_a_nul_is_refused_and_the_api_lives_on() {
    let world = World::start("jetstream: enabled").await;
    let mut wire = world.wire().await;
    let hello = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB in 1";
    assert_eq!(wire.ask(hello).await, ["PONG"]);
    let body = r#"{"name":"A\u0000B","subjects":["a"]}"#;
    wire.say(&format!("PUB $JS.API.STREAM.CREATE.A\0B in {}\r\n{body}\r\n", body.len())).await;
    assert!(wire.line().await.starts_with("MSG in 1 "));
    let answer = wire.line().await;
    assert!(answer.contains("10052"), "{answer}");
    let js: Context =
        async_nats::jetstream::new(async_nats::connect(world.server.client_url()).await.expect("the server lives"));
    js.create_stream("B").await.expect("streams are still made");
    let world = world.restart().await;
    let js = async_nats::jetstream::new(async_nats::connect(world.server.client_url()).await.unwrap());
    js.get_stream("B").await.expect("and found again");
    world.server.stop().await;
}

/// A request to the task coordinator, its headers and its body, and `#` for the name in one of them.
type TaskRequest = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const TASK_REQUESTS: &[TaskRequest] = &[
    ("SUBMIT", &[("Task-Id", "t#")], ""),
    ("SUBMIT", &[("Task-Queue", "q#")], ""),
    ("SUBMIT", &[("Task-Key", "k#")], ""),
    ("SUBMIT", &[("Task-Parent", "t#")], ""),
    ("SUBMIT", &[("Task-After", "t#")], ""),
    ("SUBMIT", &[("Task-Requires", "l#=v#")], ""),
    ("SUBMIT", &[("Task-Prefer", "agent=a#")], ""),
    ("SUBMIT", &[("Task-Result-To", "results.x#")], ""),
    ("SUBMIT", &[("X-Own#", "v#")], ""),
    ("SUBMIT", &[], "#"),
    ("LIST", &[], r##"{"queue":"q#","after":"t#"}"##),
    ("AGENT.REGISTER.a", &[], r##"{"labels":{"l#":"v#"},"queues":["q#"],"client_id":"c#"}"##),
    ("AGENT.REGISTER.a", &[], r##"{"resume":"r#"}"##),
    ("QUEUE.PUT.q", &[], r##"{"mode":"m#"}"##),
    ("QUEUE.PUT.q", &[], r##"{"mode":"adopted","adopt":{"stream":"S#","consumer":"c#"}}"##),
    ("CRON.PUT.c", &[("Task-Schedule", "@every 1h#")], "x"),
    ("CRON.PUT.c", &[("Task-Schedule", "@every 1h"), ("Task-Schedule-Time-Zone", "Europe/Bern#")], "x"),
    ("CRON.PUT.c", &[("Task-Schedule", "@every 1h"), ("Task-Queue", "q#")], "x"),
    ("COUNCIL.FORM.c", &[], r##"{"roles":{"r#":1},"offer_to":"council.x#","status_to":"council.y#"}"##),
];

/// The same pieces as a header holds them: there a line break is the next line.
const RAW_PIECES: [&str; 9] = [" ", "\t", "\0", "\u{b}", "\u{c}", "%s%n", "\u{85}", "\u{2028}", "\u{1b}[2J"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_requests_for_tasks_break_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { monitor: None, ..Config::on_free_ports(folder.path()) };
    let server = natterjack::server::Server::start(config).await.unwrap();
    let client = async_nats::connect(server.client_url()).await.unwrap();
    // A bare client, which reads everything and asks: a line that is broken shows.
    let socket = tokio::net::TcpStream::connect(server.client_address().unwrap()).await.unwrap();
    let mut wire = super::super::Wire::over(socket).await;
    let hello = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nSUB owned 1\r\nSUB in 2";
    assert_eq!(wire.ask(hello).await, ["PONG"]);
    let mut owned = client.subscribe("owned").await.unwrap();
    round(&client).await;
    let mut cases = 0;
    for (endpoint, headers, body) in TASK_REQUESTS {
        let of_body = PIECES.iter().filter(|_| body.contains('#')).map(|piece| ("", *piece));
        let of_headers = RAW_PIECES.iter().filter(|_| !headers.is_empty()).map(|piece| (*piece, ""));
        for (in_headers, in_body) in of_body.chain(of_headers) {
            let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n").replace('#', in_headers));
            let block = format!("NATS/1.0\r\n{}\r\n", lines.collect::<String>());
            let body = body.replace('#', in_body);
            let (of_block, all) = (block.len(), block.len() + body.len());
            wire.say(&format!("HPUB $TASK.API.{endpoint} in {of_block} {all}\r\n{block}{body}\r\n")).await;
            let head = wire.line().await;
            let is_answer = head.starts_with("MSG in 2 ") || head.starts_with("HMSG in 2 ");
            assert!(is_answer, "{endpoint} {block:?} {body}: {head}");
            let bytes: usize = head.rsplit(' ').next().unwrap().parse().unwrap();
            wire.skip(bytes + 2).await;
            cases += 1;
        }
        for tidied in ["AGENT.REMOVE.a", "CRON.DELETE.c", "COUNCIL.DISSOLVE.c"] {
            ask(&client, &format!("$TASK.API.{tidied}"), "").await;
        }
    }
    client.publish("owned", "end".into()).await.unwrap();
    assert_eq!(super::super::next(&mut owned).await.payload, "end", "nobody else has published there");
    let last = wire.ask("UNSUB 99").await;
    assert_eq!(last, ["MSG owned 1 3", "end", "PONG"]);
    let listed = ask(&client, "$TASK.API.LIST", "").await;
    assert!(listed.starts_with('{') && !listed.contains("\"error\""), "{listed}");
    println!("{cases} names in requests for tasks");
    server.stop().await;
}

/// What CONNECT says about a client turns up in reports, events and logs; none of them is a line of the protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_connect_break_no_line() {
    const TEXT: &str = "accounts { A { users: [ { user: a, password: p } ] }, SYS { users: [ { user: sys, password: p } ] } }\n\
                        system_account: SYS\nhttp: \"127.0.0.1:-1\"\nauthorization { timeout: 30 }";
    let world = World::start(TEXT).await;
    let system = world.user("sys", "p").await.unwrap();
    let mut owned = system.subscribe("owned").await.unwrap();
    let mut events = system.subscribe("$SYS.ACCOUNT.*.CONNECT").await.unwrap();
    round(&system).await;
    for piece in PIECES {
        for field in ["name", "lang", "version"] {
            let mut wire = world.wire().await;
            let hello = format!(r#"CONNECT {{"verbose":false,"user":"a","pass":"p","{field}":"n{piece}"}}"#);
            assert_eq!(wire.ask(&hello).await, ["PONG"], "{hello}");
            let event = super::super::next(&mut events).await;
            let event: serde_json::Value = serde_json::from_slice(&event.payload).expect("an event is JSON");
            assert!(event["client"]["acc"] == "A", "{event}");
        }
        let mut wire = world.wire().await;
        let hello = format!(r#"CONNECT {{"verbose":false,"user":"a{piece}","pass":"p"}}"#);
        assert_eq!(wire.ask(&hello).await[0], "-ERR 'Authorization Violation'", "{hello}");
    }
    system.publish("owned", "end".into()).await.unwrap();
    assert_eq!(super::super::next(&mut owned).await.payload, "end");
    world.server.stop().await;
}

/// Names that INFO and subjects are made of, in the config file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_config_files_break_no_line() {
    let folder = tempfile::tempdir().unwrap();
    for piece in ["\\r\\n", "\\n", "a b", "\\t", "a\\r\\nPUB x 0"] {
        for text in [
            format!("server_name: \"n{piece}\""),
            format!("jetstream {{ domain: \"d{piece}\" }}"),
            format!(
                "authorization {{ users: [ {{ user: u, password: p, permissions: {{ publish: \"p{piece}\" }} }} ] }}"
            ),
            format!("mappings {{ a: \"b{piece}\" }}"),
            format!("accounts {{ A {{ exports: [ {{ stream: \"s{piece}\" }} ] }} }}"),
        ] {
            match read_text(Config::on_free_ports(folder.path()), &text) {
                Err(_) => {}
                Ok(config) => assert!(natterjack::server::Server::start(config).await.is_err(), "{text}"),
            }
        }
    }
}
