//! Streams that source from others. What is expected is what nats-server 2.15.1 did.

use serde_json::{Value, json};

use crate::support::{Bench, soon};

fn state(info: &Value) -> [u64; 3] {
    ["messages", "first_seq", "last_seq"].map(|field| info["state"][field].as_u64().unwrap_or(0))
}

/// Every message of a stream: subject and payload.
async fn contents(bench: &Bench, stream: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let [_, first, last] = state(&bench.info(stream).await);
    for seq in first.max(1)..=last {
        let stored = bench.stored(stream, seq).await;
        found.push((stored.subject, stored.payload));
    }
    found
}

async fn publish_with(bench: &Bench, subject: &str, name: &str, value: &str) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(name, value);
    soon(bench.client.request_with_headers(subject.to_owned(), headers, "x".into())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_sources_of_one_stream_keep_apart_and_tell_where_messages_came_from() {
    let mut bench = Bench::start().await;
    let config = json!({"name": "S", "sources": [
        {"name": "O", "filter_subject": "l.a"},
        {"name": "O", "subject_transforms": [{"src": "l.b", "dest": "z.b"}]},
    ]});
    let created = bench.create(config.clone()).await;
    assert_eq!(
        created["sources"],
        json!([
            {"name": "O", "lag": 0, "active": -1, "filter_subject": "l.a"},
            {"name": "O", "lag": 0, "active": -1, "subject_transforms": [{"src": "l.b", "dest": "z.b"}]},
        ])
    );
    bench.info_when("S", |info| info["sources"][1]["error"]["err_code"] == 10059).await;
    bench.plain("O", "l.*").await;
    for subject in ["l.a", "l.b", "l.c"].repeat(2) {
        bench.publish(subject, subject).await;
    }
    let info = bench.reached("S", 4).await;
    let seqs = [&info["sources"][0]["seq"], &info["sources"][1]["seq"]];
    assert_eq!((state(&info), seqs), ([4, 1, 4], [&json!(4), &json!(5)]));
    let mut origins = Vec::new();
    for seq in 1..=4 {
        let stored = bench.stored("S", seq).await;
        let value = stored.headers.strip_prefix("NATS/1.0\r\nNats-Stream-Source: ").expect("its only header");
        let (value, identity) = value.strip_suffix("\r\n\r\n").unwrap().rsplit_once(' ').unwrap();
        assert_eq!(identity.len(), 8);
        origins.push(format!("{} < {value}", stored.subject));
    }
    origins.sort();
    assert_eq!(
        origins,
        ["l.a < O 1 l.a > l.a", "l.a < O 4 l.a > l.a", "z.b < O 2 l.b z.b l.b", "z.b < O 5 l.b z.b l.b"]
    );
    // Nothing twice, nothing passed over: after a restart, a purge, and both.
    bench.restart().await;
    bench.publish("l.b", "again").await;
    bench.reached("S", 5).await;
    bench.api("STREAM.PURGE.S", Value::Null).await;
    bench.restart().await;
    bench.publish("l.a", "last").await;
    assert_eq!(state(&bench.reached("S", 6).await), [1, 6, 6]);
    assert_eq!(contents(&bench, "S").await, [("l.a".to_owned(), "last".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_come_and_go_with_updates() {
    let bench = Bench::start().await;
    bench.plain("O", "o.*").await;
    for number in 0..6 {
        bench.publish(&format!("o.{}", number % 2), &number.to_string()).await;
    }
    let odd = json!({"name": "O", "opt_start_seq": 4, "filter_subject": "o.1"});
    let even = json!({"name": "O", "filter_subject": "o.0"});
    bench.create(json!({"name": "S", "sources": [odd]})).await;
    bench.reached("S", 2).await;
    assert_eq!(bench.update(json!({"name": "S", "sources": [odd, even]})).await["error"], Value::Null);
    bench.reached("S", 5).await;
    let payloads: Vec<String> = contents(&bench, "S").await.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, ["3", "5", "0", "2", "4"]);
    // What comes back goes on where it was, unless a purge has cleared the slate.
    bench.update(json!({"name": "S", "sources": [even]})).await;
    bench.publish("o.1", "7").await;
    bench.publish("o.0", "8").await;
    bench.reached("S", 6).await;
    bench.update(json!({"name": "S", "sources": [even, odd]})).await;
    bench.reached("S", 7).await;
    bench.update(json!({"name": "S", "sources": [even]})).await;
    bench.api("STREAM.PURGE.S", Value::Null).await;
    bench.update(json!({"name": "S", "sources": [even, odd]})).await;
    assert_eq!(state(&bench.reached("S", 10).await), [3, 8, 10]);
    let duplicate = bench.update(json!({"name": "S", "sources": [even, even]})).await;
    assert_eq!(duplicate["error"]["err_code"], 10140);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_are_stored_once_and_a_full_stream_goes_on_when_it_can() {
    let bench = Bench::start().await;
    bench.plain("A", "a").await;
    bench.plain("B", "b").await;
    let sources = json!([{"name": "A"}, {"name": "B"}]);
    bench.create(json!({"name": "ONCE", "sources": sources, "duplicate_window": 60_000_000_000u64})).await;
    bench.create(json!({"name": "ALL", "sources": sources})).await;
    let full = json!({"name": "FULL", "sources": [{"name": "B"}], "max_msgs": 1, "discard": "new"});
    bench.create(full).await;
    publish_with(&bench, "a", "Nats-Msg-Id", "1").await;
    publish_with(&bench, "b", "Nats-Msg-Id", "1").await;
    publish_with(&bench, "b", "Nats-Msg-Id", "2").await;
    bench.reached("ALL", 3).await;
    assert_eq!(state(&bench.reached("ONCE", 2).await), [2, 1, 2]);
    bench.reached("FULL", 1).await;
    bench.api("STREAM.PURGE.FULL", Value::Null).await;
    assert_eq!(state(&bench.reached("FULL", 2).await), [1, 2, 2]);
    assert!(bench.stored("FULL", 2).await.headers.contains("Nats-Msg-Id: 2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_of_streams_carry_messages_on_and_circles_are_refused() {
    let bench = Bench::start().await;
    bench.plain("C1", "c1").await;
    bench.create(json!({"name": "C2", "mirror": {"name": "C1"}})).await;
    bench.create(json!({"name": "C3", "sources": [{"name": "C2"}]})).await;
    let last = json!({"name": "C4", "subjects": ["c4"], "sources": [{"name": "C3"}],
        "subject_transform": {"src": "c1", "dest": "in.c1"}});
    bench.create(last).await;
    bench.publish("c1", "far").await;
    bench.reached("C4", 1).await;
    let stored = bench.stored("C4", 1).await;
    assert_eq!((stored.subject.as_str(), stored.payload.as_str()), ("in.c1", "far"));
    assert!(stored.headers.starts_with("NATS/1.0\r\nNats-Stream-Source: C3 1 > > c1 "), "{}", stored.headers);
    assert_eq!(stored.headers.matches("Nats-Stream-Source").count(), 1);
    assert_eq!(bench.publish("c4", "own").await, 2);
    let circle = bench.update(json!({"name": "C1", "subjects": ["c1"], "sources": [{"name": "C4"}]})).await;
    assert_eq!(circle["error"]["description"], "detected cycle");
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Stream-Source", "C3 1 > > c1");
    let answer = soon(bench.client.request_with_headers("c4", headers, "x".into())).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["error"]["err_code"], 10227);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_made_anew_is_sourced_from_its_beginning() {
    let bench = Bench::start().await;
    bench.plain("O", "o").await;
    bench.create(json!({"name": "S", "sources": [{"name": "O"}]})).await;
    for payload in ["0", "1", "2"] {
        bench.publish("o", payload).await;
    }
    bench.reached("S", 3).await;
    bench.api("STREAM.DELETE.O", Value::Null).await;
    bench.plain("O", "o").await;
    bench.publish("o", "new").await;
    bench.reached("S", 4).await;
    assert_eq!(contents(&bench, "S").await.pop().unwrap().1, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_starts_where_it_is_told_and_nothing_comes_twice() {
    let mut bench = Bench::start().await;
    bench.plain("O", "o.*").await;
    for number in 0..8 {
        bench.publish(&format!("o.{}", number % 2), &number.to_string()).await;
        // Two messages must not have the same time.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let fifth = bench.stored("O", 5).await.time;
    let starts = [
        ("SEQ", json!({"opt_start_seq": 3}), 6, "2"),
        ("TIME", json!({"opt_start_time": fifth}), 4, "4"),
        ("BOTH", json!({"opt_start_seq": 3, "opt_start_time": fifth}), 6, "2"),
        ("ODD", json!({"opt_start_seq": 3, "filter_subject": "o.1"}), 3, "3"),
        ("AHEAD", json!({"opt_start_seq": 10}), 0, "9"),
        // It begins with what is new.
        ("FUTURE", json!({"opt_start_time": "2090-01-01T00:00:00Z"}), 0, "8"),
    ];
    for (name, start, count, first) in &starts {
        let mut source = json!({"name": "O"});
        source.as_object_mut().unwrap().extend(start.as_object().unwrap().clone());
        bench.create(json!({"name": name, "sources": [source]})).await;
        bench.reached(name, *count).await;
        if *count > 0 {
            assert_eq!(bench.stored(name, 1).await.payload, *first, "{name}");
        }
    }
    bench.restart().await;
    bench.publish("o.0", "8").await;
    bench.publish("o.1", "9").await;
    for (name, _, count, first) in &starts {
        let more = match *name {
            "AHEAD" | "ODD" => 1,
            _ => 2,
        };
        let info = bench.reached(name, count + more).await;
        assert_eq!(state(&info)[0], count + more, "{name}");
        assert_eq!(bench.stored(name, 1).await.payload, *first, "{name}");
    }
}

async fn count(bench: &Bench, subject: &str, by: &str) -> String {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Incr", by);
    let answer = soon(bench.client.request_with_headers(subject.to_owned(), headers, "".into())).await.unwrap();
    serde_json::from_slice::<Value>(&answer.payload).unwrap()["val"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_add_up_over_sources_and_chains() {
    let mut bench = Bench::start().await;
    let counter = |name: &str, more: Value| {
        let mut config = json!({"name": name, "allow_msg_counter": true});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let taken = |name: &str, from: &str| json!({"name": name, "subject_transforms": [{"src": from, "dest": "sum.$1"}]});
    bench.create(counter("A", json!({"subjects": ["a.*"]}))).await;
    bench.create(counter("B", json!({"subjects": ["b.*"]}))).await;
    let sources = json!([taken("A", "a.*"), taken("B", "b.*")]);
    bench.create(counter("SUM", json!({"subjects": ["sum.*"], "sources": sources}))).await;
    bench.create(counter("CHAIN", json!({"sources": [{"name": "SUM"}]}))).await;
    for (seq, (subject, by, total)) in (1..).zip([
        ("a.x", "5", "5"),
        ("a.x", "2", "7"),
        ("b.x", "10", "10"),
        ("sum.x", "100", "117"),
        ("b.x", "-4", "6"),
        ("b.y", "1", "1"),
    ]) {
        assert_eq!(count(&bench, subject, by).await, total);
        bench.reached("SUM", seq).await;
    }
    let stored = async |bench: &Bench, stream: &str, seq: u64| {
        let stored = bench.stored(stream, seq).await;
        let lines: Vec<String> =
            stored.headers.lines().filter(|line| !line.contains("-Source:")).map(Into::into).collect();
        format!("{} {} {}", stored.subject, stored.payload, lines[1..].join(" ").trim())
    };
    let fifth = r#"sum.x {"val":"113"} Nats-Incr: -4 Nats-Counter-Sources: {"A":{"a.x":"7"},"B":{"b.x":"6"}}"#;
    assert_eq!(stored(&bench, "SUM", 5).await, fifth);
    let sixth = r#"sum.y {"val":"1"} Nats-Incr: 1 Nats-Counter-Sources: {"B":{"b.y":"1"}}"#;
    assert_eq!(stored(&bench, "SUM", 6).await, sixth);
    bench.reached("CHAIN", 6).await;
    let chained = r#"sum.x {"val":"113"} Nats-Incr: -4 Nats-Counter-Sources: {"SUM":{"sum.x":"113"}}"#;
    assert_eq!(stored(&bench, "CHAIN", 5).await, chained);
    // A counter that begins anew counts by the difference, after a restart too.
    bench.restart().await;
    bench.api("STREAM.PURGE.A", Value::Null).await;
    assert_eq!(count(&bench, "a.x", "1").await, "1");
    bench.reached("CHAIN", 7).await;
    let anew = r#"sum.x {"val":"107"} Nats-Incr: -6 Nats-Counter-Sources: {"A":{"a.x":"1"},"B":{"b.x":"6"}}"#;
    assert_eq!(stored(&bench, "SUM", 7).await, anew);
    // Of a counter that keeps only its last total, the total counts.
    bench.create(counter("LAST", json!({"subjects": ["last"], "max_msgs_per_subject": 1}))).await;
    for _ in 0..5 {
        count(&bench, "last", "3").await;
    }
    bench.create(counter("FROM_LAST", json!({"sources": [{"name": "LAST"}]}))).await;
    bench.reached("FROM_LAST", 1).await;
    let caught_up = r#"last {"val":"15"} Nats-Incr: 15 Nats-Counter-Sources: {"LAST":{"last":"15"}}"#;
    assert_eq!(stored(&bench, "FROM_LAST", 1).await, caught_up);
    // What is no counter's is not taken, and the source does not pass over it.
    bench.plain("TEXT", "text").await;
    bench.publish("text", "hello").await;
    bench.create(counter("WRONG", json!({"sources": [{"name": "TEXT"}]}))).await;
    let info = bench.info_when("WRONG", |info| info["sources"][0]["active"] != -1).await;
    assert_eq!((state(&info), &info["sources"][0]["seq"]), ([0, 0, 0], &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn circles_are_refused_where_messages_could_run_in_them() {
    let bench = Bench::start().await;
    let cycle = "detected cycle";
    let transformed =
        |name: &str, from: &str| json!({"name": name, "subject_transforms": [{"src": from, "dest": "z"}]});
    for (streams, expected) in [
        (vec![json!({"name": "X", "subjects": ["x"], "sources": [{"name": "X"}]})], vec![cycle]),
        (vec![json!({"name": "X", "mirror": {"name": "X"}})], vec![cycle]),
        (
            vec![json!({"name": "X", "sources": [{"name": "Y"}]}), json!({"name": "Y", "sources": [{"name": "X"}]})],
            vec!["", cycle],
        ),
        (
            vec![
                json!({"name": "X", "subjects": ["x"], "sources": [{"name": "Y", "filter_subject": "y"}]}),
                json!({"name": "Y", "subjects": ["y"], "sources": [{"name": "X", "filter_subject": "x"}]}),
            ],
            vec!["", ""],
        ),
        (
            vec![
                json!({"name": "X", "subjects": ["x"], "sources": [transformed("Y", "y")]}),
                json!({"name": "Y", "subjects": ["y"], "sources": [transformed("X", "x")]}),
            ],
            vec!["", cycle],
        ),
        (
            vec![json!({"name": "X", "mirror": {"name": "Y"}}), json!({"name": "Y", "mirror": {"name": "X"}})],
            vec!["", cycle],
        ),
        (
            vec![
                json!({"name": "X", "sources": [{"name": "Y"}]}),
                json!({"name": "Y", "sources": [{"name": "Z"}]}),
                json!({"name": "Z", "sources": [{"name": "X"}]}),
            ],
            vec!["", "", cycle],
        ),
    ] {
        let mut told = Vec::new();
        for config in &streams {
            let created = bench.create(config.clone()).await;
            told.push(created["error"]["description"].as_str().unwrap_or_default().to_owned());
        }
        assert_eq!(told, expected, "{streams:?}");
        for config in &streams {
            bench.api(&format!("STREAM.DELETE.{}", config["name"].as_str().unwrap()), Value::Null).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transforms_that_overlap_are_refused_where_their_order_would_count() {
    let bench = Bench::start().await;
    bench.plain("O", "o.*").await;
    bench.publish("o.0", "0").await;
    bench.publish("o.1", "1").await;
    let pair = |from: &str, to: &str| json!({"src": from, "dest": to});
    for (transforms, of_source, of_mirror) in [
        (json!([pair("o.*", "t.$1"), pair("o.1", "u.1")]), 10147, 10152),
        (json!([pair("o.1", "u.1"), pair("o.*", "t.$1")]), 10147, 10152),
        (json!([pair("o.1", "a"), pair("o.1", "b")]), 10147, 10152),
        (json!([pair("*.1", "a.$1"), pair("o.*", "b.$1")]), 0, 10152),
        (json!([pair("o.0", "u.1"), pair("o.1", "t.1")]), 0, 0),
    ] {
        for (field, expected) in [("sources", of_source), ("mirror", of_mirror)] {
            let from = json!({"name": "O", "subject_transforms": transforms});
            let from = if field == "sources" { json!([from]) } else { from };
            let created = bench.create(json!({"name": "T", field: from})).await;
            assert_eq!(created["error"]["err_code"].as_u64().unwrap_or(0), expected, "{field} {transforms}");
            if expected == 0 {
                bench.reached("T", 2).await;
                let subjects: Vec<String> =
                    contents(&bench, "T").await.into_iter().map(|(subject, _)| subject).collect();
                let wanted = if transforms[0]["src"] == "*.1" { ["b.0", "a.o"] } else { ["u.1", "t.1"] };
                assert_eq!(subjects, wanted, "{field}");
                bench.api("STREAM.DELETE.T", Value::Null).await;
            }
        }
    }
}
