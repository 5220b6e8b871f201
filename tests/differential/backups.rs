//! Backups of either server restore on the other: both then tell the same of the stream, its messages and its consumers.

use std::collections::BTreeMap;

use async_nats::Client;
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::servers::{Ours, Theirs};
use crate::support::backups::{api, noise, restore, snapshot};
use crate::support::nats_server;
use crate::support::toolchain::or_skip;

/// Deletes in the middle and at the end, limits, lifetimes, metadata, long messages, consumers at work.
async fn fill(client: &Client) {
    let config = json!({"name": "S", "subjects": ["s.>"], "max_msgs_per_subject": 3, "allow_msg_ttl": true,
        "allow_direct": true, "metadata": {"team": "toads"}, "description": "all of it", "max_age": 3_600_000_000_000u64,
        "subject_delete_marker_ttl": 60_000_000_000u64, "allow_rollup_hdrs": true,
        "republish": {"src": "s.>", "dest": "again.>"}, "duplicate_window": 60_000_000_000u64});
    assert_eq!(api(client, "STREAM.CREATE.S", config).await["error"], Value::Null);
    let publish = async |subject: &str, header: (&str, &str), payload: Vec<u8>| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(header.0, header.1);
        client.request_with_headers(subject.to_owned(), headers, payload.into()).await.expect("a PubAck");
    };
    for number in 0..40 {
        let id = number.to_string();
        publish(&format!("s.{}", number % 9), ("Nats-Msg-Id", &id), vec![b'x'; number * 7]).await;
    }
    let random = noise(700_000);
    publish("s.noise", ("A", "b"), random).await;
    client.request("s.largest", vec![b'y'; 1 << 20].into()).await.expect("a PubAck");
    for ttl in ["1h", "never", "1m"] {
        publish(&format!("s.ttl.{ttl}"), ("Nats-TTL", ttl), b"lives".to_vec()).await;
    }
    for consumer in [
        json!({"durable_name": "c", "ack_policy": "explicit", "ack_wait": 60_000_000_000u64, "max_deliver": 5,
            "metadata": {"k": "v"}}),
        json!({"durable_name": "a", "ack_policy": "all", "filter_subjects": ["s.1", "s.2"]}),
        json!({"name": "n", "ack_policy": "none", "inactive_threshold": 3_600_000_000_000u64}),
    ] {
        let name = consumer["durable_name"].as_str().or(consumer["name"].as_str()).expect("a name").to_owned();
        let subject = format!("CONSUMER.CREATE.S.{name}");
        let made = api(client, &subject, json!({"stream_name": "S", "config": consumer})).await;
        assert_eq!(made["error"], Value::Null);
    }
    let stream = jetstream::new(client.clone()).get_stream("S").await.expect("the stream");
    let take = async |name: &str, count: usize| {
        let consumer: PullConsumer = stream.get_consumer(name).await.expect("the consumer");
        let messages = consumer.fetch().max_messages(count).messages().await.expect("a fetch");
        messages.map(|message| message.expect("a message")).collect::<Vec<_>>().await
    };
    let taken = take("c", 6).await;
    for at in [1, 3] {
        taken[at].double_ack().await.expect("an ack");
    }
    taken[0].ack_with(jetstream::AckKind::Nak(None)).await.expect("a nak");
    client.flush().await.expect("a flush");
    assert_eq!(take("c", 1).await[0].info().expect("its info").delivered, 2);
    take("a", 3).await[1].double_ack().await.expect("an ack");
    take("n", 4).await;
    for seq in [20, 30, 31, 45] {
        api(client, "STREAM.MSG.DELETE.S", json!({ "seq": seq })).await;
    }
}

/// All that a stream tells of itself, without what a restore changes.
async fn told(client: &Client) -> BTreeMap<String, Value> {
    let mut told = BTreeMap::new();
    let mut info = api(client, "STREAM.INFO.S", json!({"deleted_details": true, "subjects_filter": ">"})).await;
    for field in ["ts", "created", "cluster"] {
        info.as_object_mut().expect("an object").remove(field);
    }
    // nats-server does not keep the time of a last message that has been deleted.
    info["state"].as_object_mut().expect("an object").remove("last_ts");
    for field in ["_nats.ver", "_nats.level"] {
        info["config"]["metadata"].as_object_mut().expect("an object").remove(field);
    }
    let last = info["state"]["last_seq"].as_u64().expect("a sequence");
    told.insert("info".into(), info);
    for seq in 1..=last {
        let message = api(client, "STREAM.MSG.GET.S", json!({ "seq": seq })).await;
        told.insert(format!("message {seq}"), message);
    }
    let list = api(client, "CONSUMER.LIST.S", Value::Null).await;
    for consumer in list["consumers"].as_array().expect("a list") {
        let mut consumer = consumer.clone();
        for field in ["ts", "created"] {
            consumer.as_object_mut().expect("an object").remove(field);
        }
        for position in ["delivered", "ack_floor"] {
            consumer[position].as_object_mut().expect("an object").remove("last_active");
        }
        told.insert(format!("consumer {}", consumer["name"]), consumer);
    }
    told
}

#[test]
fn backups_of_either_server_restore_on_both() {
    let Some(_) = or_skip("differential: backups", nats_server::find()) else { return };
    let (theirs, ours) = (Theirs::start().expect("a nats-server"), Ours::start().expect("a natterjack"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let theirs = async_nats::connect(theirs.address()).await.expect("a connection");
        let ours = async_nats::connect(ours.address()).await.expect("a connection");
        for (from, source) in [("nats-server", &theirs), ("natterjack", &ours)] {
            fill(source).await;
            let before = told(source).await;
            let taken = snapshot(source, "S", json!({"chunk_size": 65_536}), true).await;
            assert_eq!(taken.status, "204", "{from}");
            for (to, target) in [("nats-server", &theirs), ("natterjack", &ours)] {
                api(target, "STREAM.DELETE.S", Value::Null).await;
                let restored = restore(target, &taken.answer["config"], &taken.chunks).await;
                assert_eq!(restored["error"], Value::Null, "{from} -> {to}");
                let after = told(target).await;
                for (what, before) in &before {
                    assert_eq!(after.get(what), Some(before), "{from} -> {to}: {what}");
                }
                assert_eq!(after.len(), before.len(), "{from} -> {to}");
                let publish = async |subject: &str, id: &str| -> Value {
                    let mut headers = async_nats::HeaderMap::new();
                    headers.insert("Nats-Msg-Id", id);
                    let answer = target.request_with_headers(subject.to_owned(), headers, "x".into()).await;
                    serde_json::from_slice(&answer.expect("a PubAck").payload).expect("JSON")
                };
                assert_eq!(publish("s.new", "new").await["seq"], 46, "{from} -> {to}: no sequence is used twice");
                // nats-server forgets them with a restore.
                let again = publish("s.3", "39").await;
                if to == "natterjack" {
                    assert_eq!(again, json!({"stream": "S", "seq": 40, "duplicate": true}), "{from}: nor a message id");
                }
            }
            for client in [&theirs, &ours] {
                api(client, "STREAM.DELETE.S", Value::Null).await;
            }
        }
    });
}
