//! The client against a real broker.

use std::time::Duration;

use natterjack::client::{BatchEntry, ClientError, Status};
use natterjack::types::ApiError;
use natterjack::types::header::HeaderBuilder;

use super::support::Broker;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn publishes_requests_and_no_responders() {
    let broker = Broker::start();
    let client = broker.client("one").await;
    let mut service = client.subscribe("echo.*").unwrap();
    let answering = client.clone();
    tokio::spawn(async move {
        while let Some(message) = service.next().await {
            answering.publish_message(message.reply(), b"", b"", message.payload()).unwrap();
        }
    });
    let requests = (0..500).map(|n: u32| {
        let client = client.clone();
        async move { client.request("echo.x", &n.to_be_bytes(), 5 * SECOND).await.unwrap().payload() == n.to_be_bytes() }
    });
    assert!(futures_util::future::join_all(requests).await.into_iter().all(|same| same));

    let nobody = client.request("nobody.here", b"", 5 * SECOND).await.unwrap_err();
    assert_eq!(nobody, ClientError::NoResponders { subject: "nobody.here".into() });
    assert!(matches!(client.publish("a b", b""), Err(ClientError::BadSubject { .. })));

    let mut inbox = client.subscribe("h").unwrap();
    let headers = HeaderBuilder::new().add("A", "b").build();
    client.publish_message(b"h", b"r", &headers, b"p").unwrap();
    let message = inbox.next().await.unwrap();
    assert_eq!((message.headers().get_str("A"), message.reply(), message.payload()), (Some("b"), &b"r"[..], &b"p"[..]));
    client.close().await;
    assert_eq!(client.status(), Status::Closed);
    assert_eq!(client.publish("a", b""), Err(ClientError::Closed));
}

#[tokio::test]
async fn batches_are_atomic_and_keys_compare_and_set() {
    let broker = Broker::start();
    let client = broker.client("kv").await;
    client
        .create_stream(&serde_json::json!({
            "name": "KV_B", "subjects": ["$KV.B.>"], "max_msgs_per_subject": 4, "allow_rollup_hdrs": true,
            "deny_delete": false, "allow_direct": true, "allow_atomic": true, "discard": "new",
        }))
        .await
        .unwrap();
    assert_eq!(client.kv_get("B", "x").await.unwrap(), None);
    let revision = client.kv_create("B", "x", b"1").await.unwrap();
    assert!(client.kv_create("B", "x", b"2").await.unwrap_err().is(&ApiError::STREAM_WRONG_LAST_SEQUENCE));
    let entries = [
        BatchEntry::new("$KV.B.x", "2").expect_revision(revision),
        BatchEntry::new("$KV.B.y", "3"),
        BatchEntry::new("$KV.B.z", "4"),
    ];
    let ack = client.publish_batch(&entries).unwrap().await.unwrap();
    assert_eq!((ack.seq, ack.count), (revision + 3, 3));
    let lost = client.publish_batch(&entries).unwrap().await.unwrap_err();
    assert!(lost.is(&ApiError::STREAM_WRONG_LAST_SEQUENCE), "{lost}");
    assert_eq!(client.kv_get("B", "z").await.unwrap().unwrap().revision, revision + 3);
    assert_eq!(&client.direct_last("KV_B", "$KV.B.y").await.unwrap().unwrap().payload[..], b"3");
    client.kv_delete("B", "y").await.unwrap();
    assert_eq!(client.kv_get("B", "y").await.unwrap(), None);
    client.kv_create("B", "y", b"again").await.unwrap();

    // Many batches at once, all in order and whole.
    // nats-server takes some milliseconds for each.
    let acks = (0..100).map(|n| {
        let entries = [
            BatchEntry::new(format!("$KV.B.s.{n}"), "s").expect_revision(0),
            BatchEntry::new(format!("$KV.B.p.{n}"), "p"),
        ];
        client.publish_batch(&entries).unwrap()
    });
    for ack in futures_util::future::join_all(acks).await {
        assert_eq!(ack.unwrap().count, 2);
    }
}

#[tokio::test]
async fn reconnects_with_its_subscriptions() {
    let mut broker = Broker::start();
    let client = broker.client("again").await;
    let mut subscription = client.subscribe("news").unwrap();
    client.flush().await.unwrap();
    let mut status = client.watch_status();
    broker.kill();
    status.wait_for(|status| *status == Status::Disconnected).await.unwrap();
    broker.restart();
    status.wait_for(|status| *status == Status::Connected { generation: 2 }).await.unwrap();
    client.publish("news", b"back").unwrap();
    assert_eq!(subscription.next().await.unwrap().payload(), b"back");
}
