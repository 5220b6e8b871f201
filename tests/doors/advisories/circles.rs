//! What leads back to where it came from: refused when it is set up, or at least bounded.

use std::time::Duration;

use super::super::{PATIENCE, World, next, round};
use super::{ask, must};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_feed_each_other_are_refused() {
    let world = World::start("jetstream: enabled").await;
    let client = async_nats::connect(world.server.client_url()).await.unwrap();
    let mut refused = 0;
    for circle in [
        &[r#"{"name":"A","subjects":["a"],"republish":{"src":"a","dest":"a"}}"#][..],
        &[r#"{"name":"A","subjects":["a.>"],"republish":{"src":"a.x","dest":"a.y"}}"#],
        &[
            r#"{"name":"A","subjects":["a"],"republish":{"src":"a","dest":"b"}}"#,
            r#"{"name":"B","subjects":["b"],"republish":{"src":"b","dest":"a"}}"#,
        ],
        &[
            r#"{"name":"A","subjects":["a"],"republish":{"src":"a","dest":"b"}}"#,
            r#"{"name":"B","subjects":["b"],"republish":{"src":"b","dest":"c"}}"#,
            r#"{"name":"C","subjects":["c"],"republish":{"src":"c","dest":"a"}}"#,
        ],
        &[
            r#"{"name":"A","subjects":["a"]}"#,
            r#"{"name":"B","sources":[{"name":"A"}],"republish":{"src":"a","dest":"a"}}"#,
        ],
        &[r#"{"name":"A","mirror":{"name":"A"}}"#],
        &[r#"{"name":"A","subjects":["a"],"sources":[{"name":"A"}]}"#],
        &[
            r#"{"name":"A","subjects":["a"],"sources":[{"name":"B"}]}"#,
            r#"{"name":"B","subjects":["b"],"sources":[{"name":"A"}]}"#,
        ],
        &[r#"{"name":"A","mirror":{"name":"B"}}"#, r#"{"name":"B","mirror":{"name":"A"}}"#],
        &[
            r#"{"name":"A","subjects":["a"],"sources":[{"name":"B","subject_transforms":[{"src":">","dest":"x.>"}]}]}"#,
            r#"{"name":"B","subjects":["b"],"sources":[{"name":"A","subject_transforms":[{"src":">","dest":"y.>"}]}]}"#,
        ],
    ] {
        let name = |config: &str| config[9..10].to_owned();
        let (last, others) = circle.split_last().unwrap();
        for config in others {
            must(&client, &format!("STREAM.CREATE.{}", name(config)), (*config).to_owned()).await;
        }
        let answer = ask(&client, &format!("$JS.API.STREAM.CREATE.{}", name(last)), (*last).to_owned()).await;
        assert!(answer.contains("cycle"), "{circle:?}: {answer}");
        // Not by the back door either.
        let plain = format!(r#"{{"name":"{}","subjects":["plain"]}}"#, name(last));
        must(&client, &format!("STREAM.CREATE.{}", name(last)), plain).await;
        let answer = ask(&client, &format!("$JS.API.STREAM.UPDATE.{}", name(last)), (*last).to_owned()).await;
        assert!(answer.contains("\"error\""), "{circle:?}: {answer}");
        refused += 1;
        for config in circle {
            must(&client, &format!("STREAM.DELETE.{}", name(config)), "").await;
        }
    }
    // What only looks like one is none.
    for config in [
        r#"{"name":"A","subjects":["a.*"],"republish":{"src":"a.x","dest":"b.x"}}"#,
        r#"{"name":"B","subjects":["b.*"],"republish":{"src":"b.y","dest":"a.y"}}"#,
    ] {
        must(&client, &format!("STREAM.CREATE.{}", &config[9..10]), config).await;
    }
    println!("{refused} circles of streams refused");
    world.server.stop().await;
}

/// Consumers that deliver into each other's streams go round, as on nats-server; they stand in nobody's way and end when
/// one of them does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_feed_each_other_stop_nobody() {
    let world = World::start("jetstream: enabled").await;
    let client = async_nats::connect(world.server.client_url()).await.unwrap();
    for (name, subject, to) in [("A", "a", "b"), ("B", "b", "a")] {
        let config = format!(r#"{{"name":"{name}","subjects":["{subject}"],"storage":"memory","max_msgs":100}}"#);
        must(&client, &format!("STREAM.CREATE.{name}"), config).await;
        let own = format!(
            r#"{{"stream_name":"{name}","config":{{"name":"own","deliver_subject":"{subject}","ack_policy":"none"}}}}"#
        );
        let answer = ask(&client, &format!("$JS.API.CONSUMER.CREATE.{name}.own"), own).await;
        assert!(answer.contains("cycle"), "{answer}");
        let consumer = format!(
            r#"{{"stream_name":"{name}","config":{{"name":"c","deliver_subject":"{to}","ack_policy":"none"}}}}"#
        );
        must(&client, &format!("CONSUMER.CREATE.{name}.c"), consumer).await;
    }
    let mut rounds = client.subscribe("a").await.unwrap();
    assert!(ask(&client, "a", "x").await.contains("\"seq\":1"));
    for _ in 0..20 {
        next(&mut rounds).await;
    }
    // The server serves on, and a limit holds.
    let info = must(&client, "STREAM.INFO.A", "").await;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert!(info["state"]["messages"].as_u64().unwrap() <= 100, "{info}");
    must(&client, "STREAM.DELETE.B", "").await;
    let last = || async {
        let info: serde_json::Value = serde_json::from_str(&must(&client, "STREAM.INFO.A", "").await).unwrap();
        info["state"]["last_seq"].as_u64().unwrap()
    };
    let ended = async {
        let mut before = last().await;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            match last().await {
                same if same == before => return,
                more => before = more,
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the circle ends with one of its streams");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_that_lead_back_are_refused() {
    for kind in ["stream", "service"] {
        let account = |name: &str, from: &str, user: &str| {
            format!(
                "{name} {{ users: [ {{ user: {user}, password: p }} ], exports: [ {{ {kind}: \">\" }} ], \
                 imports: [ {{ {kind}: {{ account: {from}, subject: x }} }} ] }}"
            )
        };
        let two = format!("accounts {{\n{}\n{}\n}}", account("A", "B", "a"), account("B", "A", "b"));
        let three = format!(
            "accounts {{\n{}\n{}\n{}\n}}",
            account("A", "B", "a"),
            account("B", "C", "b"),
            account("C", "A", "c")
        );
        let own = format!("accounts {{\n{}\n}}", account("A", "A", "a"));
        for text in [two, three, own] {
            let refusal = World::refusal(&text).await;
            assert!(refusal.contains("cycle"), "{text}: {refusal}");
        }
    }
}

/// A mapping is applied once: two that point at each other are no loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mappings_are_applied_once() {
    let text = r#"mappings { a: b, b: a, "c.*": "c.{{wildcard(1)}}.x", "c.*.*": "c.{{wildcard(1)}}", ">": ">" }"#;
    let world = World::start(text).await;
    let client = async_nats::connect(world.server.client_url()).await.unwrap();
    let mut all = client.subscribe(">").await.unwrap();
    round(&client).await;
    for (published, heard) in [("a", "b"), ("b", "a"), ("c.1", "c.1.x"), ("c.1.x", "c.1"), ("d", "d")] {
        client.publish(published, "".into()).await.unwrap();
        // What it makes sure with that it listens is heard as well.
        loop {
            let message = next(&mut all).await;
            if !message.subject.starts_with("_INBOX") {
                assert_eq!(message.subject.as_str(), heard, "{published}");
                break;
            }
        }
    }
    world.server.stop().await;
}
