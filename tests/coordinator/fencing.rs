//! What comes too late hits nothing: acks of an agent's own older attempt.

use std::time::Duration;

use serde_json::{Value, json};

use super::agent::{Agent, LONG, ask, await_result, submit, until};
use super::support::World;

#[tokio::test]
async fn acks_of_the_same_agents_older_attempt_hit_nothing() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.quick", json!({ "lease_s": 4, "backoff": [0.01] })).await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "queues": ["quick"] })).await;
    submit(&user, &[("Task-Id", "t"), ("Task-Queue", "quick")], b"work").await;
    let first = agent.pull().await;
    let second = agent.pull().await;
    assert_eq!(second.headers().get_str("Task-Attempt"), Some("2"), "the first one's lease is over");
    agent.ack(&second, "+WPI");
    until(&user, "t", |record| record["phase"] == "running").await;
    let stored = async || {
        let stored = user.kv_get("TASK", "s.t").await.unwrap().unwrap();
        (stored.revision, serde_json::from_slice::<Value>(&stored.value).unwrap())
    };
    let before = stored().await;
    assert_eq!(before.1["attempt"], 2);
    for word in ["-NAK", "-NAK {\"delay\":1}", "+TERM not any more", "+WPI", "+ACK", "", "+NXT"] {
        agent.ack(&first, word);
        // Behind it, a sign of life of the attempt that counts.
        agent.ack(&second, "+WPI");
        agent.client.flush().await.unwrap();
        assert_eq!(ask(&agent.client, "GET.t", Value::Null).await["phase"], "running", "after {word:?}");
        assert_eq!(stored().await, before, "after {word:?}");
    }

    // Nor do they make the present lease last.
    let stale = tokio::spawn({
        let (client, reply) = (agent.client.clone(), first.reply().to_vec());
        async move {
            while client.publish_message(&reply, b"", b"", b"+WPI").is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let third = tokio::time::timeout(LONG, agent.pull()).await.expect("the second one's lease ends");
    stale.abort();
    assert_eq!(third.headers().get_str("Task-Attempt"), Some("3"));
    for late in [&first, &second] {
        assert_eq!(agent.complete(late, b"late").await, Err(30409));
    }
    agent.complete(&third, b"done").await.unwrap();
    assert_eq!(await_result(&user, "t").await.unwrap(), b"done");
    world.end().await;
}
