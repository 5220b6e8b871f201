//! Adopted streams and consumers: workers and publishers stay as they are, and what dies there becomes a dead letter.

use std::time::Duration;

use natterjack::client::{Client, Incoming};
use natterjack::types::header::HeaderBuilder;
use serde_json::{Value, json};

use super::agent::{ask, call, until};
use super::support::{Embedded, World};

/// VAPORA's and CodeForge's: a stream made by hand, and a durable consumer that several workers share.
async fn make(client: &Client, retention: &str, max_deliver: u32) {
    make_with(client, retention, max_deliver, Duration::from_millis(200)).await;
}

async fn make_with(client: &Client, retention: &str, max_deliver: u32, ack_wait: Duration) {
    let stream = json!({ "name": "TASKS", "subjects": ["tasks.>"], "retention": retention, "storage": "file" });
    client.create_stream(&stream).await.unwrap();
    let consumer = json!({
        "name": "workers", "durable_name": "workers", "ack_policy": "explicit", "deliver_policy": "all",
        "ack_wait": ack_wait.as_nanos() as u64, "max_deliver": max_deliver,
    });
    client.create_consumer("TASKS", &consumer).await.unwrap();
}

async fn publish(client: &Client, body: &[u8], headers: &[(&str, &str)]) -> u64 {
    let mut block = HeaderBuilder::new().add("X-Request-ID", "r-9");
    for (name, value) in headers {
        block = block.add(name, value);
    }
    let ack = client.request_message("tasks.agent.aider", &block.build(), body, Duration::from_secs(10)).await.unwrap();
    let ack: Value = serde_json::from_slice(ack.payload()).unwrap();
    ack["seq"].as_u64().unwrap()
}

async fn pull(client: &Client) -> Incoming {
    let next = async { client.puller("TASKS", "workers", 1).unwrap().next().await.unwrap() };
    tokio::time::timeout(Duration::from_secs(20), next).await.expect("a message")
}

fn say(client: &Client, message: &Incoming, word: &str) {
    client.publish_message(message.reply(), b"", b"", word.as_bytes()).unwrap();
}

/// The letters of `queue`, once there are so many.
async fn letters(client: &Client, queue: &str, count: usize) -> Vec<Value> {
    for _ in 0..1000 {
        let listed = ask(client, &format!("DLQ.LIST.{queue}"), Value::Null).await;
        if listed["total"] == count {
            return listed["letters"].as_array().unwrap().clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let info = ask(client, &format!("QUEUE.INFO.{queue}"), Value::Null).await;
    panic!("no {count} letters: {} of {info}", ask(client, "DLQ.LIST", Value::Null).await);
}

async fn adopt(client: &Client) {
    let adopt = json!({ "adopt": { "stream": "TASKS", "consumer": "workers" } });
    let queue = ask(client, "QUEUE.PUT.x", adopt).await;
    assert_eq!((&queue["mode"], &queue["adopt"]["stream"]), (&json!("adopted"), &json!("TASKS")));
    // Its advisories are kept from now on.
    while client.api::<Value>("STREAM.INFO.TASK_ADVISORIES", &Value::Null).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_used_up_its_deliveries_is_listed_read_and_published_again() {
    for retention in ["limits", "workqueue"] {
        let world = World::start().await;
        let user = world.client("user").await;
        make(&user, retention, 2).await;
        adopt(&user).await;
        let worker = world.client("worker").await;
        let seq = publish(&user, b"poison \xff", &[("Retry-Count", "4")]).await;
        for _ in 0..2 {
            let message = pull(&worker).await;
            // Answered once it is known, so that the next pull comes behind it: some broker notices at the next pull only.
            let reply = std::str::from_utf8(message.reply()).unwrap();
            worker.request(reply, b"-NAK", Duration::from_secs(10)).await.unwrap();
        }
        let other = publish(&user, b"fine", &[]).await;
        let message = pull(&worker).await;
        assert_eq!(message.payload(), b"fine", "{retention}: the dead one is stuck");
        say(&worker, &message, "+ACK");
        let letter = letters(&user, "x", 1).await.remove(0);
        let id = letter["id"].as_str().unwrap().to_owned();
        assert!(id.starts_with("x-") && id.ends_with(&format!("-{seq}")), "{id}");
        assert_eq!((&letter["error"], &letter["attempts"]), (&json!("deliveries used"), &json!(2)));
        let read = call(&user, &format!("DLQ.GET.x.{id}"), &[], b"").await.unwrap();
        assert_eq!(read.payload(), b"poison \xff");
        for (name, value) in [("X-Request-ID", "r-9"), ("Task-Stream", "TASKS"), ("Task-Subject", "tasks.agent.aider")]
        {
            assert_eq!(read.headers().get_str(name), Some(value));
        }
        // Published again, it is worked on as any other, and followed to its end.
        assert_eq!(ask(&user, &format!("DLQ.REQUEUE.x.{id}"), Value::Null).await["state"], "submitted");
        let again = pull(&worker).await;
        assert_eq!((again.payload(), again.subject_str()), (&b"poison \xff"[..], "tasks.agent.aider"));
        assert_eq!(
            (again.headers().get_str("Retry-Count"), again.headers().get_str("X-Request-ID")),
            (Some("5"), Some("r-9"))
        );
        until(&user, &id, |record| record["state"] == "working").await;
        say(&worker, &again, "+ACK");
        let record = until(&user, &id, |record| record["state"] == "completed").await;
        assert!(record["origin"]["seq"].as_u64().unwrap() > other);
        assert_eq!(ask(&user, "DLQ.LIST", Value::Null).await["total"], 0);
        let left: Value = user.api("STREAM.INFO.TASKS", &Value::Null).await.unwrap();
        let expected = if retention == "workqueue" { 0 } else { 3 };
        assert_eq!(left["state"]["messages"], expected, "{retention}: a work queue is rid of the stuck one");
        assert_eq!(call(&user, "SUBMIT", &[("Task-Queue", "x")], b"").await.unwrap_err().0, 30400);
        world.end().await;
    }
}

#[tokio::test]
async fn terminated_messages_are_copied_with_their_payload() {
    for retention in ["limits", "workqueue"] {
        let world = World::start().await;
        let user = world.client("user").await;
        make(&user, retention, 5).await;
        adopt(&user).await;
        let worker = world.client("worker").await;
        publish(&user, b"no use", &[]).await;
        let message = pull(&worker).await;
        // In a work queue the message is gone with the term: it is copied while it is worked on.
        while ask(&user, "QUEUE.INFO.x", Value::Null).await["adopted"]["copies"] == 0 && retention == "workqueue" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        say(&worker, &message, "+TERM not mine");
        let letter = letters(&user, "x", 1).await.remove(0);
        assert_eq!((&letter["error"], &letter["attempts"]), (&json!("terminated: not mine"), &json!(1)));
        let id = letter["id"].as_str().unwrap();
        assert_eq!(call(&user, &format!("DLQ.GET.x.{id}"), &[], b"").await.unwrap().payload(), b"no use");
        assert_eq!(ask(&user, &format!("DLQ.PURGE.x.{id}"), Value::Null).await["state"], "canceled");
        letters(&user, "x", 0).await;
        world.end().await;
    }
}

#[tokio::test]
async fn nothing_is_missed_while_no_coordinator_runs() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    make(&user, "limits", 1).await;
    adopt(&user).await;
    let worker = world.client("worker").await;
    world.stop_coordinator();
    for n in 0..20 {
        publish(&user, format!("m{n}").as_bytes(), &[]).await;
        let message = pull(&worker).await;
        say(&worker, &message, if n % 2 == 0 { "+TERM" } else { "-NAK" });
    }
    publish(&user, b"fine", &[]).await;
    say(&worker, &pull(&worker).await, "+ACK");
    world.restart_coordinator().await;
    let first = letters(&user, "x", 20).await;
    // Each has one letter, however often its death is told.
    world.restart_coordinator().await;
    let second = letters(&user, "x", 20).await;
    let ids = |letters: &[Value]| {
        letters
            .iter()
            .map(|letter| letter["id"].as_str().unwrap().to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(&first), ids(&second));
    let info: Value = user.api("STREAM.INFO.TASK_ADVISORIES", &Value::Null).await.unwrap();
    assert_eq!(info["state"]["messages"], 0, "what is dealt with is forgotten");
    assert_eq!(ask(&user, "DLQ.REQUEUE.x", Value::Null).await["requeued"], 20);
    for _ in 0..20 {
        say(&worker, &pull(&worker).await, "+ACK");
    }
    world.end().await;
}

#[tokio::test]
async fn a_work_queue_that_is_adopted_late_shows_what_is_stuck_in_it() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    make(&user, "workqueue", 1).await;
    let worker = world.client("worker").await;
    for body in [&b"stuck"[..], b"fine"] {
        publish(&user, body, &[]).await;
        let message = pull(&worker).await;
        say(&worker, &message, if body == b"fine" { "+ACK" } else { "-NAK" });
    }
    // A pull makes the broker notice that it may not deliver it again.
    let again = client_pulls_nothing(&worker).await;
    assert!(again, "nothing is left to do");
    adopt(&user).await;
    let letter = letters(&user, "x", 1).await.remove(0);
    let id = letter["id"].as_str().unwrap();
    assert_eq!(call(&user, &format!("DLQ.GET.x.{id}"), &[], b"").await.unwrap().payload(), b"stuck");
    ask(&user, &format!("DLQ.PURGE.x.{id}"), Value::Null).await;
    letters(&user, "x", 0).await;
    world.restart_coordinator().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    letters(&user, "x", 0).await;
    let info: Value = user.api("STREAM.INFO.TASKS", &Value::Null).await.unwrap();
    assert_eq!(info["state"]["messages"], 0);
    world.end().await;
}

/// A coordinator that died when it had stored that a letter is purged and not done yet what follows.
#[tokio::test]
async fn a_purged_letters_message_is_taken_out_by_the_next_coordinator_and_is_no_letter_again() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    make(&user, "workqueue", 1).await;
    adopt(&user).await;
    let worker = world.client("worker").await;
    for body in [&b"stuck"[..], b"fine"] {
        publish(&user, body, &[]).await;
        let message = pull(&worker).await;
        say(&worker, &message, if body == b"fine" { "+ACK" } else { "-NAK" });
    }
    assert!(client_pulls_nothing(&worker).await);
    let letter = letters(&user, "x", 1).await.remove(0);
    let key = format!("s.{}", letter["id"].as_str().unwrap());
    world.stop_coordinator();
    let stored = user.kv_get("TASK", &key).await.unwrap().unwrap();
    let mut record: Value = serde_json::from_slice(&stored.value).unwrap();
    (record["state"], record["phase"], record["forget"]) = ("canceled".into(), "canceled".into(), true.into());
    user.kv_put("TASK", &key, record.to_string().as_bytes()).await.unwrap();
    world.restart_coordinator().await;
    while user.kv_get("TASK", &key).await.unwrap().is_some() {
        assert_eq!(ask(&user, "DLQ.LIST.x", Value::Null).await["total"], 0);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left: Value = user.api("STREAM.INFO.TASKS", &Value::Null).await.unwrap();
    assert_eq!(left["state"]["messages"], 0, "the message goes before what is known of it");
    // Another look at the stream finds nothing dead in it.
    publish(&user, b"later", &[]).await;
    say(&worker, &pull(&worker).await, "+ACK");
    while ask(&user, "QUEUE.INFO.x", Value::Null).await["adopted"]["ack_floor_seq"] != 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    letters(&user, "x", 0).await;
    world.end().await;
}

async fn client_pulls_nothing(client: &Client) -> bool {
    let ask = json!({ "batch": 1, "expires": 500_000_000 }).to_string();
    let answer =
        client.request("$JS.API.CONSUMER.MSG.NEXT.TASKS.workers", ask.as_bytes(), Duration::from_secs(5)).await;
    answer.unwrap().headers().status() == Some(408)
}

/// The configurations of the user's stream and consumer.
async fn configurations(client: &Client) -> [Value; 2] {
    let mut found = [Value::Null, Value::Null];
    for (at, api) in ["STREAM.INFO.TASKS", "CONSUMER.INFO.TASKS.workers"].into_iter().enumerate() {
        let info: Value = client.api(api, &Value::Null).await.unwrap();
        found[at] = info["config"].clone();
        assert!(found[at].is_object(), "{info}");
    }
    found
}

#[tokio::test]
async fn the_living_are_counted_and_the_users_configurations_stay() {
    for retention in ["limits", "workqueue"] {
        let world = World::start().await;
        let user = world.client("user").await;
        make_with(&user, retention, 5, Duration::from_secs(600)).await;
        let before = configurations(&user).await;
        for n in 0..4 {
            publish(&user, format!("m{n}").as_bytes(), &[]).await;
        }
        adopt(&user).await;
        let counts = async |pending: u64, working: u64, redelivered: u64| {
            let wanted = json!([pending, working, redelivered]);
            let mut seen = Value::Null;
            for _ in 0..1000 {
                let info = ask(&user, "QUEUE.INFO.x", Value::Null).await;
                let adopted = &info["adopted"];
                seen = json!([adopted["pending"], adopted["working"], adopted["redelivered"]]);
                if seen == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("{retention}: {seen} is not {wanted}");
        };
        let worker = world.client("worker").await;
        counts(4, 0, 0).await;
        let (first, second) = (pull(&worker).await, pull(&worker).await);
        counts(2, 2, 0).await;
        // Answered once it is known, so that the next pull comes behind it.
        let reply = std::str::from_utf8(first.reply()).unwrap();
        worker.request(reply, b"-NAK", Duration::from_secs(10)).await.unwrap();
        let again = pull(&worker).await;
        assert_eq!(again.payload(), first.payload());
        counts(2, 2, 1).await;
        say(&worker, &again, "+ACK");
        say(&worker, &second, "+ACK");
        counts(2, 0, 0).await;
        // One dies, comes again and ends well.
        let third = pull(&worker).await;
        while retention == "workqueue" && ask(&user, "QUEUE.INFO.x", Value::Null).await["adopted"]["copies"] == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        say(&worker, &third, "+TERM");
        let letter = letters(&user, "x", 1).await.remove(0);
        let id = letter["id"].as_str().unwrap();
        ask(&user, &format!("DLQ.REQUEUE.x.{id}"), Value::Null).await;
        for _ in 0..2 {
            say(&worker, &pull(&worker).await, "+ACK");
        }
        until(&user, id, |record| record["state"] == "completed").await;
        counts(0, 0, 0).await;
        assert_eq!(configurations(&user).await, before, "{retention}");
        world.end().await;
    }
}

#[tokio::test]
async fn the_config_file_adopts() {
    let adopt = "coordinator { adopt [ { stream: TASKS, consumer: workers, queue: agents } ] }";
    let account = format!(
        "accounts {{
            A {{ jetstream: enabled, {adopt}, users: [ {{ user: user, password: p }} ] }}
            B {{ jetstream: enabled, coordinator: enabled, users: [ {{ user: other, password: p }} ] }}
        }}"
    );
    for (place, text) in [("at the top", adopt), ("in an account", &account)] {
        let world = Embedded::start(text).await;
        let user = world.user("user").await;
        make(&user, "limits", 1).await;
        publish(&user, b"once", &[]).await;
        say(&user, &pull(&user).await, "-NAK");
        publish(&user, b"fine", &[]).await;
        say(&user, &pull(&user).await, "+ACK");
        let letter = letters(&user, "agents", 1).await.remove(0);
        assert_eq!(letter["error"], "deliveries used", "{place}");
        if place == "in an account" {
            let other = world.user("other").await;
            assert_eq!(call(&other, "QUEUE.INFO.agents", &[], b"").await.unwrap_err().0, 30406, "it is A's alone");
        }
        world.server.stop().await;
    }
    for (text, said) in [
        (r#"coordinator { adopt [ { stream: TASKS, queue: agents } ] }"#, "adopt takes a stream"),
        (r#"coordinator { adopt [ { stream: "T.>", consumer: w, queue: agents } ] }"#, "adopt takes a stream"),
        (
            r#"coordinator { adopt [ { stream: T, consumer: w, queue: a }, { stream: T, consumer: w, queue: b } ] }"#,
            "adopted twice",
        ),
    ] {
        let refusal = Embedded::refusal(text);
        assert!(refusal.contains(said), "{refusal}");
    }
}

#[tokio::test]
async fn the_config_file_may_name_what_is_still_to_come() {
    let text = r#"coordinator { adopt [ { stream: TASKS, consumer: workers, queue: agents } ] }"#;
    let world = Embedded::start(text).await;
    let user = world.named("user", "user").await;
    let fault = async || ask(&user, "QUEUE.INFO.agents", Value::Null).await["adopted"]["fault"].clone();
    while fault().await != "stream not found" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    make(&user, "limits", 1).await;
    while !fault().await.is_null() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    publish(&user, b"once", &[]).await;
    say(&user, &pull(&user).await, "-NAK");
    publish(&user, b"fine", &[]).await;
    say(&user, &pull(&user).await, "+ACK");
    letters(&user, "agents", 1).await;
    world.server.stop().await;
}

#[tokio::test]
async fn the_config_file_lets_go_what_it_names_no_more() {
    let text = r#"coordinator { adopt [ { stream: TASKS, consumer: workers, queue: agents } ] }"#;
    let mut world = Embedded::start(text).await;
    let user = world.named("user", "user").await;
    make(&user, "limits", 1).await;
    let own = json!({ "adopt": { "stream": "TASKS", "consumer": "others" } });
    ask(&user, "QUEUE.PUT.own", own).await;
    publish(&user, b"once", &[]).await;
    say(&user, &pull(&user).await, "-NAK");
    publish(&user, b"fine", &[]).await;
    say(&user, &pull(&user).await, "+ACK");
    let id = letters(&user, "agents", 1).await[0]["id"].as_str().unwrap().to_owned();
    let before: Value = user.api("CONSUMER.INFO.TASKS.workers", &Value::Null).await.unwrap();
    world.reload("coordinator: true").await;
    let mut queue = ask(&user, "QUEUE.INFO.agents", Value::Null).await;
    while queue["mode"] != "inbox" {
        tokio::time::sleep(Duration::from_millis(20)).await;
        queue = ask(&user, "QUEUE.INFO.agents", Value::Null).await;
    }
    assert!(queue["adopt"].is_null(), "{queue}");
    assert_eq!(ask(&user, "QUEUE.INFO.own", Value::Null).await["adopt"]["consumer"], "others");
    // Its letters stay, and where nobody would follow it none is published again.
    letters(&user, "agents", 1).await;
    let refused = call(&user, &format!("DLQ.REQUEUE.agents.{id}"), &[], b"").await.unwrap_err();
    assert_eq!(refused.0, 30400);
    let after: Value = user.api("CONSUMER.INFO.TASKS.workers", &Value::Null).await.unwrap();
    assert_eq!(after["config"], before["config"], "the consumer is as it was");
    world.reload(text).await;
    while ask(&user, "QUEUE.INFO.agents", Value::Null).await["adopt"].is_null() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ask(&user, &format!("DLQ.REQUEUE.agents.{id}"), Value::Null).await;
    assert_eq!(pull(&user).await.payload(), b"once");
    until(&user, &id, |record| record["run"] == 2).await;
    world.server.stop().await;
}
