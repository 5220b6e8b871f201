//! Mirrors: copies of a stream under its own sequences. What is expected is what nats-server 2.15.1 did.

use serde_json::{Value, json};

use crate::support::{Bench, soon};

fn state(info: &Value) -> [u64; 4] {
    let state = &info["state"];
    ["messages", "first_seq", "last_seq", "num_deleted"].map(|field| state[field].as_u64().unwrap_or(0))
}

async fn publish_all(bench: &Bench, subjects: &[&str]) {
    for (number, subject) in subjects.iter().enumerate() {
        bench.publish(subject, &number.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_has_its_origins_messages_and_gaps_and_keeps_what_the_origin_deletes() {
    let mut bench = Bench::start().await;
    bench.create(json!({"name": "O", "subjects": ["o.>"], "allow_direct": true})).await;
    publish_all(&bench, &["o.0", "o.1", "o.0", "o.1", "o.0"]).await;
    bench.api("STREAM.MSG.DELETE.O", json!({"seq": 3})).await;
    let created = bench.create(json!({"name": "M", "mirror": {"name": "O"}})).await;
    assert_eq!(created["mirror"], json!({"name": "O", "lag": 0, "active": -1}));
    assert_eq!((&created["config"]["mirror_direct"], &created["config"]["subjects"]), (&json!(true), &Value::Null));
    let info = bench.reached("M", 5).await;
    assert_eq!((state(&info), &info["state"]["deleted"]), ([4, 1, 5, 1], &json!([3])));
    let info = bench.info_when("M", |info| info["mirror"]["active"].as_i64() > Some(0)).await;
    assert_eq!((&info["mirror"]["lag"], &info["mirror"]["error"]), (&json!(0), &Value::Null));
    for seq in [1, 2, 4, 5] {
        assert_eq!(bench.stored("M", seq).await, bench.stored("O", seq).await);
    }
    // Who follows is counted in the account, and not listed.
    assert_eq!(bench.info("O").await["state"]["consumer_count"], 0);
    assert_eq!(bench.api("INFO", Value::Null).await["consumers"], 1);
    assert_eq!(bench.api("CONSUMER.NAMES.O", Value::Null).await["consumers"], json!([]));
    // Deletes stay where they are made, on both sides.
    bench.api("STREAM.MSG.DELETE.O", json!({"seq": 1})).await;
    bench.api("STREAM.MSG.DELETE.M", json!({"seq": 5})).await;
    bench.restart().await;
    bench.publish("o.0", "after").await;
    assert_eq!(state(&bench.reached("M", 6).await), [4, 1, 6, 2]);
    bench.api("STREAM.PURGE.M", Value::Null).await;
    assert_eq!(state(&bench.info("M").await), [0, 7, 6, 0]);
    bench.publish("o.0", "more").await;
    assert_eq!(state(&bench.reached("M", 7).await), [1, 7, 7, 0]);
    assert_eq!(state(&bench.info("O").await)[0], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_transforms_and_starting_points_choose_what_is_mirrored() {
    let bench = Bench::start().await;
    bench.create(json!({"name": "F", "subjects": ["f.*"], "first_seq": 100})).await;
    let subjects = ["f.0", "f.1", "f.2", "f.3", "f.4"];
    publish_all(&bench, &[subjects, subjects].concat()).await;
    let transforms = json!([{"src": "f.1", "dest": "g.1"}, {"src": "f.2", "dest": ""}]);
    for (name, mirror, expected) in [
        ("FILTERED", json!({"name": "F", "filter_subject": "f.3"}), [2, 103, 108, 4]),
        ("LATE", json!({"name": "F", "opt_start_seq": 105}), [5, 105, 109, 0]),
        ("NONE", json!({"name": "F", "filter_subject": "f.zz"}), [0, 100, 99, 0]),
        ("CHANGED", json!({"name": "F", "subject_transforms": transforms}), [4, 101, 107, 3]),
        ("AHEAD", json!({"name": "F", "opt_start_seq": 500}), [0, 500, 499, 0]),
    ] {
        let created = bench.create(json!({"name": name, "mirror": mirror})).await;
        assert_eq!(created["error"], Value::Null, "{name}");
        let info = bench.info_when(name, |info| state(info) == expected).await;
        assert_eq!(info["mirror"]["filter_subject"], mirror["filter_subject"]);
        assert_eq!(info["mirror"]["subject_transforms"], mirror["subject_transforms"]);
    }
    let renamed = bench.stored("CHANGED", 101).await;
    assert_eq!((renamed.subject.as_str(), renamed.headers.as_str()), ("g.1", ""));
    assert_eq!(bench.stored("CHANGED", 102).await.subject, "f.2");
    bench.publish("f.3", "new").await;
    assert_eq!(state(&bench.reached("FILTERED", 110).await), [3, 103, 110, 5]);
    bench.create(json!({"name": "E", "subjects": ["e"], "first_seq": 50})).await;
    bench.create(json!({"name": "ME", "mirror": {"name": "E"}})).await;
    assert_eq!(state(&bench.reached("ME", 49).await), [0, 50, 49, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_may_come_late_go_and_come_again() {
    let bench = Bench::start().await;
    bench.create(json!({"name": "M", "mirror": {"name": "O"}})).await;
    let info = bench.info_when("M", |info| info["mirror"]["error"]["err_code"] == 10059).await;
    assert_eq!(info["mirror"]["active"], -1);
    let origin = json!({"name": "O", "subjects": ["o"]});
    bench.create(origin.clone()).await;
    publish_all(&bench, &["o", "o", "o"]).await;
    let info = bench.reached("M", 3).await;
    assert_eq!(info["mirror"]["error"], Value::Null);
    bench.api("STREAM.DELETE.O", Value::Null).await;
    bench.info_when("M", |info| info["mirror"]["error"]["err_code"] == 10059).await;
    assert_eq!(state(&bench.info("M").await), [3, 1, 3, 0]);
    // The new one's messages count from where the mirror is.
    bench.create(origin).await;
    for payload in ["n0", "n1", "n2", "n3", "n4"] {
        bench.publish("o", payload).await;
    }
    assert_eq!(state(&bench.reached("M", 5).await), [5, 1, 5, 0]);
    let mut payloads = Vec::new();
    for seq in 1..=5 {
        payloads.push(bench.stored("M", seq).await.payload);
    }
    assert_eq!(payloads, ["0", "1", "2", "n3", "n4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_answers_direct_gets_of_an_origin_that_is_gone() {
    let bench = Bench::start().await;
    bench.create(json!({"name": "O", "subjects": ["o.*"], "allow_direct": true})).await;
    bench.create(json!({"name": "M", "mirror": {"name": "O"}})).await;
    publish_all(&bench, &["o.1", "o.2"]).await;
    bench.reached("M", 2).await;
    let ask = async || {
        let answer = soon(bench.client.request("$JS.API.DIRECT.GET.O.o.2", "".into())).await.ok()?;
        Some(answer.headers?.get("Nats-Stream")?.to_string())
    };
    assert_eq!(ask().await.as_deref(), Some("O"));
    bench.api("STREAM.DELETE.O", Value::Null).await;
    assert_eq!(ask().await.as_deref(), Some("M"));
    let origin = bench.create(json!({"name": "O", "subjects": ["o.*"], "allow_direct": true})).await;
    assert_eq!(origin["error"], Value::Null);
    bench.publish("o.2", "new").await;
    assert_eq!(ask().await.as_deref(), Some("O"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_not_changed_but_promoted() {
    let bench = Bench::start().await;
    bench.plain("O", "o").await;
    publish_all(&bench, &["o", "o"]).await;
    bench.create(json!({"name": "M", "mirror": {"name": "O"}})).await;
    bench.reached("M", 2).await;
    let own = bench.create(json!({"name": "X", "mirror": {"name": "X"}})).await;
    assert_eq!(own["error"]["description"], "detected cycle");
    let code = |answer: Value| answer["error"]["err_code"].as_u64();
    for (change, expected) in [
        (json!({"name": "M", "mirror": {"name": "O", "filter_subject": "x"}}), Some(10055)),
        (json!({"name": "M", "mirror": {"name": "O"}, "subjects": ["m"]}), Some(10034)),
        (json!({"name": "M", "mirror": {"name": "O"}, "sources": [{"name": "O"}]}), Some(10031)),
        (json!({"name": "O", "subjects": ["o"], "sources": [{"name": "M"}]}), Some(10052)),
        (json!({"name": "M", "mirror": {"name": "O"}, "max_msgs": 10}), None),
        (json!({"name": "M", "subjects": ["m"]}), None),
    ] {
        assert_eq!(code(bench.update(change.clone()).await), expected, "{change}");
    }
    bench.publish("o", "not for M").await;
    assert_eq!(bench.publish("m", "own").await, 3);
    let info = bench.info("M").await;
    assert_eq!((state(&info), &info["mirror"]), ([3, 1, 3, 0], &Value::Null));
    assert_eq!(bench.stored("M", 3).await.subject, "m");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lifetimes_and_rollups_count_where_the_mirror_allows_them() {
    let bench = Bench::start().await;
    bench.create(json!({"name": "O", "subjects": ["o.*"], "allow_msg_ttl": true, "allow_rollup_hdrs": true})).await;
    bench.create(json!({"name": "PLAIN", "mirror": {"name": "O"}})).await;
    bench
        .create(json!({"name": "FULL", "mirror": {"name": "O"}, "allow_msg_ttl": true, "allow_rollup_hdrs": true}))
        .await;
    let publish = async |name: &str, value: &str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(name, value);
        headers.insert("Nats-Expected-Stream", "O");
        soon(bench.client.request_with_headers("o.1", headers, "x".into())).await.unwrap();
    };
    publish("A", "b").await;
    publish("Nats-Rollup", "sub").await;
    bench.reached("PLAIN", 2).await;
    bench.reached("FULL", 2).await;
    assert_eq!(state(&bench.info("PLAIN").await), [2, 1, 2, 0]);
    assert_eq!(state(&bench.info("FULL").await), [1, 2, 2, 0]);
    assert_eq!(bench.stored("PLAIN", 2).await.headers, "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n");
    publish("Nats-TTL", "1s").await;
    bench.reached("PLAIN", 3).await;
    bench.info_when("FULL", |info| state(info) == [1, 2, 3, 1]).await;
    bench.info_when("O", |info| state(info)[0] == 1).await;
    assert_eq!(state(&bench.info("PLAIN").await), [3, 1, 3, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filtered_mirror_goes_on_from_its_last_sequence_when_it_is_promoted() {
    let mut bench = Bench::start().await;
    bench.plain("O", "o.*").await;
    publish_all(&bench, &["o.0", "o.1", "o.0", "o.1", "o.0"]).await;
    bench.create(json!({"name": "M", "mirror": {"name": "O", "filter_subject": "o.1"}})).await;
    assert_eq!(state(&bench.reached("M", 4).await), [2, 2, 4, 1]);
    let promoted = bench.update(json!({"name": "M", "subjects": ["m"]})).await;
    assert_eq!((&promoted["error"], &promoted["mirror"]), (&Value::Null, &Value::Null));
    assert_eq!(promoted["config"]["mirror_direct"], false);
    assert_eq!(bench.publish("m", "own").await, 5);
    bench.publish("o.1", "not taken").await;
    bench.restart().await;
    assert_eq!(bench.publish("m", "own").await, 6);
    assert_eq!(state(&bench.info("M").await), [4, 2, 6, 1]);
    let again = bench.update(json!({"name": "M", "mirror": {"name": "O", "filter_subject": "o.1"}})).await;
    assert_eq!(again["error"]["err_code"], 10055);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_and_deletes_of_an_origin_leave_gaps_and_nothing_else() {
    let bench = Bench::start().await;
    bench.plain("O", "o.*").await;
    bench.create(json!({"name": "M", "mirror": {"name": "O"}})).await;
    bench.create(json!({"name": "S", "sources": [{"name": "O"}]})).await;
    publish_all(&bench, &["o.0", "o.1", "o.0", "o.1", "o.0", "o.1"]).await;
    bench.reached("M", 6).await;
    bench.reached("S", 6).await;
    bench.api("STREAM.PURGE.O", json!({"filter": "o.0"})).await;
    bench.api("STREAM.MSG.DELETE.O", json!({"seq": 6})).await;
    bench.api("STREAM.PURGE.O", json!({"seq": 20})).await;
    assert_eq!(bench.publish("o.1", "after").await, 20);
    let info = bench.reached("M", 20).await;
    assert_eq!((state(&info), &info["state"]["deleted"][0]), ([7, 1, 20, 13], &json!(7)));
    let info = bench.reached("S", 7).await;
    assert_eq!((state(&info), &info["sources"][0]["seq"]), ([7, 1, 7, 0], &json!(20)));
    // A mirror of the mirror has what the origin has forgotten.
    bench.create(json!({"name": "MM", "mirror": {"name": "M"}})).await;
    assert_eq!(state(&bench.reached("MM", 20).await), [7, 1, 20, 13]);
    for seq in [1, 6, 20] {
        assert_eq!(bench.stored("MM", seq).await, bench.stored("M", seq).await);
    }
    assert_eq!(bench.api("STREAM.PURGE.M", Value::Null).await["purged"], 7);
    bench.publish("o.0", "more").await;
    assert_eq!(state(&bench.reached("M", 21).await), [1, 21, 21, 0]);
    assert_eq!(state(&bench.reached("MM", 21).await), [8, 1, 21, 13]);
}

/// What the origin lets go by age stays gone in no mirror that keeps it, and comes to none that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_aged_is_neither_fetched_again_nor_lost_over_a_restart() {
    let mut bench = Bench::start().await;
    let second = 1_000_000_000u64;
    bench.create(json!({"name": "O", "subjects": ["o.*"], "max_age": second, "allow_msg_ttl": true})).await;
    bench.create(json!({"name": "KEEPS", "mirror": {"name": "O"}})).await;
    bench.create(json!({"name": "AGES", "mirror": {"name": "O"}, "max_age": second})).await;
    bench.create(json!({"name": "LIVES", "mirror": {"name": "O"}, "allow_msg_ttl": true})).await;
    let publish = async |bench: &Bench, ttl: &str| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-TTL", ttl);
        soon(bench.client.request_with_headers("o.ttl", headers, "x".into())).await.unwrap();
    };
    publish(&bench, "never").await;
    publish(&bench, "1s").await;
    publish(&bench, "1h").await;
    publish_all(&bench, &["o.0", "o.1"]).await;
    for mirror in ["KEEPS", "AGES", "LIVES"] {
        bench.reached(mirror, 5).await;
    }
    bench.restart().await;
    // The hour counts for less than the origin's age; a mirror without one goes by the header alone.
    bench.info_when("O", |info| state(info) == [1, 1, 5, 4]).await;
    bench.info_when("AGES", |info| state(info)[0] == 0).await;
    bench.info_when("LIVES", |info| state(info) == [4, 1, 5, 1]).await;
    assert_eq!(state(&bench.info("KEEPS").await), [5, 1, 5, 0]);
    bench.restart().await;
    assert_eq!(bench.publish("o.0", "after").await, 6);
    for (mirror, expected) in [("KEEPS", [6, 1, 6, 0]), ("LIVES", [5, 1, 6, 1])] {
        assert_eq!(state(&bench.reached(mirror, 6).await), expected, "{mirror}");
    }
    assert_eq!(state(&bench.reached("AGES", 6).await)[2], 6);
    bench.info_when("AGES", |info| state(info) == [0, 7, 6, 0]).await;
}
