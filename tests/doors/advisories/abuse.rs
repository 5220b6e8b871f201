//! JetStream's API and backups, as whoever wants the server to work for ever, fall over or write where it should not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use super::super::process::number;
use super::super::{PATIENCE, World};
use super::{ask, must};

/// How long one request may keep the server, on a busy machine without optimization. `NATTERJACK_MANY_FILTERS=1000000` and
/// `NATTERJACK_MANY_CONSUMERS=100000` try what advisories speak of, which takes a while.
const AT_MOST: Duration = Duration::from_secs(20);

async fn enter(text: &str) -> (World, async_nats::Client) {
    enter_for(text, PATIENCE).await
}

/// With patience for requests that take longer.
async fn enter_for(text: &str, patience: Duration) -> (World, async_nats::Client) {
    let world = World::start(text).await;
    let options = async_nats::ConnectOptions::new().request_timeout(Some(patience));
    let client = options.connect(world.server.client_url()).await.unwrap();
    (world, client)
}

/// Bodies as long as a request may be, of what a look at each pair would take hours for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_without_end_keep_nobody_waiting() {
    let many = number("NATTERJACK_MANY_FILTERS", 5_000);
    // A million filters are a body beyond the usual limit.
    let text = match many > 100_000 {
        true => "max_payload: 64MB, memory_budget: 1GB, jetstream: enabled",
        false => "jetstream: enabled",
    };
    // It is the others who must not wait: what is asked for may take its time.
    let at_most = AT_MOST * (many / 5_000).max(1) as u32;
    let (world, client) = enter_for(text, at_most).await;
    let other = async_nats::connect(world.server.client_url()).await.unwrap();
    let list = |prefix: &str| (0..many).map(|number| format!("{prefix}.{number}")).collect::<Vec<_>>();
    let map = || (0..many).map(|number| (format!("k{number}"), json!(""))).collect::<serde_json::Map<_, _>>();
    let wild = || {
        (0..many)
            .map(|number| match number % 2 {
                0 => format!("w.*.*.*.a{number}"),
                _ => format!("w.x{number}.y.z.b{number}"),
            })
            .collect::<Vec<_>>()
    };
    let transforms = || {
        (0..many).map(|number| json!({"src": format!("a.{number}"), "dest": format!("b.{number}")})).collect::<Vec<_>>()
    };
    let groups = || (0..many).map(|number| format!("g{number}")).collect::<Vec<_>>();
    let mut slowest = Duration::ZERO;
    for (subject, body) in [
        ("STREAM.CREATE.S", json!({"name": "S", "subjects": list("s"), "allow_direct": true})),
        ("STREAM.CREATE.T", json!({"name": "T", "subjects": list("t")})),
        ("STREAM.CREATE.U", json!({"name": "U", "subjects": list("s")})),
        ("STREAM.UPDATE.S", json!({"name": "S", "subjects": list("s2"), "allow_direct": true})),
        ("STREAM.CREATE.W", json!({"name": "W", "subjects": wild()})),
        ("STREAM.CREATE.M", json!({"name": "M", "subjects": ["m"], "metadata": map()})),
        ("STREAM.CREATE.X", json!(map())),
        ("STREAM.CREATE.A", json!({"name": "A", "mirror": {"name": "B", "subject_transforms": transforms()}})),
        ("STREAM.CREATE.B", json!({"name": "B", "sources": [{"name": "Z", "subject_transforms": transforms()}]})),
        (
            "CONSUMER.CREATE.S.c",
            json!({"stream_name": "S", "config": {"name": "c", "ack_policy": "explicit", "filter_subjects": list("s2")}}),
        ),
        (
            "CONSUMER.CREATE.S.p",
            json!({"stream_name": "S", "config": {
                "name": "p", "ack_policy": "explicit", "priority_policy": "overflow", "priority_groups": groups()
            }}),
        ),
        (
            "CONSUMER.CREATE.S.b",
            json!({"stream_name": "S", "config": {"name": "b", "ack_policy": "explicit", "backoff": vec![1_000_000_000; many]}}),
        ),
        ("DIRECT.GET.S", json!({"multi_last": list("s2")})),
        ("STREAM.INFO.S", json!({"subjects_filter": list("a").join(".")})),
        ("STREAM.PURGE.S", json!({"filter": list("a").join(".")})),
        ("STREAM.CREATE.D", json!({"name": "D", "subjects": [vec!["a"; many].join(".")]})),
        ("STREAM.LIST", json!({"subject": vec!["*"; many].join(".")})),
    ] {
        let started = Instant::now();
        let full = format!("$JS.API.{subject}");
        let asked = ask(&client, &full, body.to_string());
        // Others are served meanwhile.
        let (answer, meanwhile) = tokio::join!(asked, async {
            other.flush().await.unwrap();
            started.elapsed()
        });
        let taken = started.elapsed();
        if many > 5_000 {
            println!(
                "{subject} with {many}: {taken:?}, others waited {meanwhile:?}: {}",
                &answer[..answer.len().min(150)]
            );
        }
        slowest = slowest.max(taken);
        assert!(
            answer.starts_with('{') || answer.contains("NATS") || answer.contains(" 4") || answer.contains(" 2"),
            "{subject}: {}",
            &answer[..answer.len().min(300)]
        );
        assert!(taken < at_most && meanwhile < AT_MOST, "{subject}: {taken:?}, others {meanwhile:?}");
    }
    let answer = ask(&client, "s2.5", "x").await;
    assert!(answer.contains("\"seq\":1"), "{answer}");
    println!("17 requests with lists of {many}: the slowest took {slowest:?}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nesting_without_end_is_refused() {
    let (world, client) = enter("jetstream: enabled").await;
    must(&client, "STREAM.CREATE.S", r#"{"name":"S","subjects":["s"],"allow_direct":true}"#).await;
    let mut cases = 0;
    for depth in [100, 10_000, 100_000] {
        for (open, close) in [
            ("[", "]"),
            ("{\"a\":", "}"),
            ("{\"config\":", "}"),
            ("{\"metadata\":{\"a\":", "}}"),
            ("[{\"sources\":", "}]"),
        ] {
            for whole in [true, false] {
                let close = if whole { close.repeat(depth) } else { String::new() };
                let body = format!("{}1{close}", open.repeat(depth));
                for subject in [
                    "STREAM.CREATE.N",
                    "STREAM.UPDATE.S",
                    "STREAM.DELETE.N",
                    "STREAM.INFO.S",
                    "STREAM.PURGE.N",
                    "STREAM.RESTORE.N",
                    "STREAM.MSG.GET.S",
                    "CONSUMER.CREATE.S.c",
                    "CONSUMER.LIST.S",
                    "DIRECT.GET.S",
                    "STREAM.NAMES",
                ] {
                    let answer = ask(&client, &format!("$JS.API.{subject}"), body.clone()).await;
                    assert!(
                        answer.contains("\"error\"") || answer.contains(" 4") || subject.contains("NAMES"),
                        "{subject} {open} {depth}: {answer}"
                    );
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} nested requests");
    world.server.stop().await;
}

/// A transform may make a subject that no client could send, and that no row has room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_too_long_to_be_stored_stop_nothing() {
    let (world, client) = enter("jetstream: enabled").await;
    let long = "x".repeat(70_000);
    let transform = json!({"src": "t.>", "dest": format!("{long}.>")});
    must(
        &client,
        "STREAM.CREATE.T",
        json!({"name": "T", "subjects": ["t.>"], "subject_transform": transform, "allow_atomic": true}).to_string(),
    )
    .await;
    let republish = json!({"src": "r.>", "dest": format!("{long}.>")});
    must(&client, "STREAM.CREATE.R", json!({"name": "R", "subjects": ["r.>"], "republish": republish}).to_string())
        .await;
    must(
        &client,
        "STREAM.CREATE.K",
        json!({"name": "K", "subjects": [format!("{long}.>")], "storage": "memory"}).to_string(),
    )
    .await;
    let source = json!({"name": "R", "subject_transforms": [{"src": "r.>", "dest": format!("{long}{long}.>")}]});
    must(&client, "STREAM.CREATE.Q", json!({"name": "Q", "sources": [source]}).to_string()).await;
    assert!(ask(&client, "t.a", "").await.contains("10077"));
    let mut headers = async_nats::HeaderMap::new();
    for (name, value) in [("Nats-Batch-Id", "one"), ("Nats-Batch-Sequence", "1"), ("Nats-Batch-Commit", "1")] {
        headers.insert(name, value);
    }
    let answer = client.request_with_headers("t.b", headers, "".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&answer.payload).contains("\"error\""), "{answer:?}");
    assert!(ask(&client, "r.a", "").await.contains("\"seq\":1"));
    for stream in ["T", "R", "K", "Q"] {
        must(&client, &format!("STREAM.INFO.{stream}"), "").await;
    }
    must(&client, "STREAM.CREATE.S", r#"{"name":"S","subjects":["s"]}"#).await;
    assert!(ask(&client, "s", "").await.contains("\"seq\":1"), "the store lives on");
    let world = world.restart().await;
    let client = async_nats::connect(world.server.client_url()).await.unwrap();
    assert!(ask(&client, "s", "").await.contains("\"seq\":2"));
    world.server.stop().await;
}

/// Consumers and streams by the thousand: made, counted, and in nobody's way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_by_the_thousand_are_in_nobodys_way() {
    let many = number("NATTERJACK_MANY_CONSUMERS", 1000);
    let (world, client) = enter("jetstream: enabled").await;
    must(&client, "STREAM.CREATE.S", r#"{"name":"S","subjects":["s"],"storage":"memory"}"#).await;
    must(&client, "STREAM.CREATE.L", r#"{"name":"L","subjects":["l"],"max_consumers":10}"#).await;
    let create = |stream: &'static str, number: usize| {
        let client = client.clone();
        async move {
            let body = format!(
                r#"{{"stream_name":"{stream}","config":{{"name":"c{number}","ack_policy":"explicit","mem_storage":true}}}}"#
            );
            ask(&client, &format!("$JS.API.CONSUMER.CREATE.{stream}.c{number}"), body).await
        }
    };
    let started = Instant::now();
    for some in (0..many).collect::<Vec<_>>().chunks(100) {
        for answer in futures_util::future::join_all(some.iter().map(|number| create("S", *number))).await {
            assert!(answer.contains("\"created\""), "{answer}");
        }
    }
    let made = started.elapsed();
    let limited = futures_util::future::join_all((0..20).map(|number| create("L", number))).await;
    assert_eq!(limited.iter().filter(|answer| answer.contains("\"created\"")).count(), 10);
    let started = Instant::now();
    assert!(ask(&client, "s", "x").await.contains("\"seq\":1"));
    let published = started.elapsed();
    assert!(published < AT_MOST, "{published:?}");
    let names = must(&client, "CONSUMER.NAMES.S", r#"{"offset":500}"#).await;
    assert!(names.contains(&format!("\"total\":{many}")), "{names}");
    println!("{many} consumers in {made:?}, a publish beside them {published:?}");
    world.server.stop().await;
}

/// An account's limits bound what its users make.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_bound_what_an_account_makes() {
    let text = "accounts { A { jetstream { max_mem: 1MB, max_file: 1MB, max_streams: 3, max_consumers: 2 }, users: [ { user: a, password: p } ] } }\n\
                authorization { timeout: 30 }";
    let world = World::start(text).await;
    let client = world.user("a", "p").await.unwrap();
    let mut made = 0;
    for number in 0..10 {
        let body = format!(r#"{{"name":"S{number}","subjects":["s{number}"]}}"#);
        let answer = ask(&client, &format!("$JS.API.STREAM.CREATE.S{number}"), body).await;
        made += usize::from(answer.contains("did_create"));
    }
    assert_eq!(made, 3);
    for (limit, expected) in
        [("\"max_bytes\":9223372036854775807", "100"), ("\"storage\":\"memory\",\"max_bytes\":1048577", "100")]
    {
        must(&client, "STREAM.DELETE.S2", "").await;
        let answer =
            ask(&client, "$JS.API.STREAM.CREATE.S2", format!(r#"{{"name":"S2","subjects":["s2"],{limit}}}"#)).await;
        assert!(answer.contains("\"error\"") && answer.contains(expected), "{limit}: {answer}");
        must(&client, "STREAM.CREATE.S2", r#"{"name":"S2","subjects":["s2"]}"#).await;
    }
    let block = Bytes::from(vec![7u8; 100_000]);
    let mut stored = 0;
    for _ in 0..20 {
        stored += usize::from(ask(&client, "s0", block.clone()).await.contains("\"seq\""));
    }
    assert!(
        (5..20).contains(&stored) || stored == 20 && ask(&client, "s0", block).await.contains("\"error\""),
        "{stored}"
    );
    world.server.stop().await;
}

/// Backups made up by an attacker: nothing but a whole and valid one makes a stream, and no name in one becomes a path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_backups_make_no_stream_and_no_file() {
    use natterjack::backup::{archive, s2};
    use natterjack::types::Timestamp;

    let (world, client) = enter("jetstream: enabled").await;
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("owned");
    let packed = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut plain = Vec::new();
        archive::write_magic(&mut plain);
        write(&mut plain);
        let (mut encoder, mut out) = (s2::Encoder::default(), Vec::new());
        encoder.push(&plain, &mut out);
        encoder.flush(&mut out);
        out
    };
    let state = |consumers: u64, last: u64| {
        json!({"messages": last, "bytes": 0, "first_seq": 1, "first_ts": "2026-01-01T00:00:00Z", "last_seq": last,
               "last_ts": "2026-01-01T00:00:00Z", "consumer_count": consumers})
        .to_string()
    };
    let time = Timestamp(1_700_000_000_000_000_000);
    let entry = |name: &str, seq: u64, body: &[u8]| {
        let (name, body) = (name.as_bytes().to_vec(), body.to_vec());
        move |out: &mut Vec<u8>| archive::write_entry(&name, time, seq, b"", &body, out)
    };
    let mut hostile: Vec<(String, Vec<u8>)> = Vec::new();
    let absolute = target.display().to_string();
    for name in [
        "../../owned",
        &absolute,
        "..",
        "consumers/../../owned",
        "consumers/",
        "consumers/..",
        "a/b",
        "meta.inf",
        "\0",
        "msgs/1.blk",
    ] {
        let (named, first) = (entry(name, 0, b"{}"), entry("state.json", 0, state(1, 1).as_bytes()));
        hostile.push((
            format!("an entry {name:?}"),
            packed(&|out| {
                first(out);
                named(out);
                archive::write_end(out);
            }),
        ));
        let named = entry(name, 0, state(0, 0).as_bytes());
        hostile.push((
            format!("a first entry {name:?}"),
            packed(&|out| {
                named(out);
            }),
        ));
    }
    for name in ["a b", "a\r\nPUB x 0", "a..b", "a.>", "*", "", "a\0"] {
        let (first, message) = (entry("state.json", 0, state(0, 1).as_bytes()), entry(name, 1, b"x"));
        hostile.push((
            format!("a message on {name:?}"),
            packed(&|out| {
                first(out);
                message(out);
                archive::write_end(out);
            }),
        ));
    }
    // Sizes that are not there, or beyond everything.
    for numbers in [
        [u64::MAX, 0, 0, 0, 0],
        [5, 0, 0, u64::MAX, u64::MAX],
        [5, 0, 1, 1 << 40, 5],
        [1 << 21, 0, 0, 0, 0],
        [5, u64::MAX, u64::MAX, 0, 0],
    ] {
        let first = entry("state.json", 0, state(0, 1).as_bytes());
        hostile.push((
            format!("sizes {numbers:?}"),
            packed(&|out| {
                first(out);
                for mut number in numbers {
                    while number >= 0x80 {
                        out.push(number as u8 | 0x80);
                        number >>= 7;
                    }
                    out.push(number as u8);
                }
                out.extend_from_slice(b"hello");
            }),
        ));
    }
    for state in [
        state(0, u64::MAX),
        state(u64::MAX, 1),
        r#"{"first_seq":18446744073709551615,"last_seq":1}"#.to_owned(),
        "[".repeat(10_000),
        "{".to_owned(),
    ] {
        let first = entry("state.json", 0, state.as_bytes());
        hostile.push((
            format!("a state {}", &state[..state.len().min(60)]),
            packed(&|out| {
                first(out);
                archive::write_end(out);
            }),
        ));
    }
    let good = packed(&|out| {
        entry("state.json", 0, state(0, 1).as_bytes())(out);
        entry("s", 1, b"x")(out);
        archive::write_end(out);
    });
    for cut in (0..good.len()).step_by(3) {
        hostile.push((format!("cut at {cut}"), good[..cut].to_vec()));
    }
    for at in (0..good.len()).step_by(5) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x55;
        hostile.push((format!("flipped at {at}"), flipped));
    }
    hostile.push(("a tar with a link".to_owned(), {
        let mut tar = vec![0u8; 1024];
        tar[..11].copy_from_slice(b"../../owned");
        tar[156] = b'2';
        tar[157..157 + absolute.len().min(90)].copy_from_slice(&absolute.as_bytes()[..absolute.len().min(90)]);
        tar
    }));
    // A bomb: very little that inflates to very much.
    let zeros = vec![0u8; 8 << 20];
    let (mut encoder, mut bomb) = (s2::Encoder::default(), Vec::new());
    encoder.push(&zeros, &mut bomb);
    encoder.flush(&mut bomb);
    hostile.push(("zeros".to_owned(), bomb));
    let count = hostile.len();
    let mut survivors = 0;
    for (what, bytes) in hostile {
        let config = json!({"config": {"name": "R", "subjects": ["s"]}, "state": {}});
        let begun = must(&client, "STREAM.RESTORE.R", config.to_string()).await;
        let begun: serde_json::Value = serde_json::from_str(&begun).unwrap();
        let to = begun["deliver_subject"].as_str().unwrap().to_owned();
        let mut told = String::new();
        for chunk in bytes.chunks(1 << 20).filter(|chunk| !chunk.is_empty()).chain([&b""[..]]) {
            told = ask(&client, &to, chunk.to_vec()).await;
            if told.contains("\"error\"") {
                break;
            }
        }
        if !told.contains("\"error\"") {
            // A flip that changes a payload alone is a backup like any other.
            assert!(what.starts_with("flipped") && told.contains("\"config\""), "{what}: {told}");
            survivors += 1;
            must(&client, "STREAM.DELETE.R", "").await;
        }
    }
    for name in ["..", "../../owned", &absolute, "a/b", "R\\\\x"] {
        let config = json!({"config": {"name": name, "subjects": ["s"]}, "state": {}}).to_string();
        let answer = ask(&client, "$JS.API.STREAM.RESTORE.R", config).await;
        assert!(answer.contains("\"error\""), "{name}: {answer}");
    }
    assert!(!target.exists());
    let names = must(&client, "STREAM.NAMES", "").await;
    assert!(names.contains("\"total\":0"), "{names}");
    println!("{count} hostile backups, {survivors} of them harmless");
    world.server.stop().await;
}
