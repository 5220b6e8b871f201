//! Presence by connection: what the broker tells of connections decides who is there.

use natterjack::coordinator::ConnectionEvent;
use serde_json::{Value, json};

use super::agent::{Agent, ask, call, submit, until};
use super::support::World;

#[tokio::test]
async fn a_lost_connection_frees_the_tasks_after_its_grace_and_a_return_keeps_them() {
    let (world, connections) = World::start_with_presence().await;
    let user = world.client("user").await;
    let connected = |client_id, name: &str| ConnectionEvent::Connected { client_id, name: name.to_owned() };
    connections.send(connected(7, "eve")).await.unwrap();
    let eve = Agent::register(world.client("eve").await, "eve", json!({})).await;
    assert_eq!(eve.card["heartbeat_needed"], false);
    assert_eq!(call(&user, "AGENT.REGISTER.eve", &[], b"").await.unwrap_err().0, 30414, "a second live one is refused");

    // Gone and back within the grace: the lease holds.
    submit(&user, &[("Task-Id", "kept")], b"").await;
    let kept = eve.pull().await;
    eve.ack(&kept, "+WPI");
    connections.send(ConnectionEvent::Disconnected { client_id: 7 }).await.unwrap();
    connections.send(connected(8, "eve")).await.unwrap();
    let resume = json!({ "resume": eve.card["resume"] });
    let resumed = ask(&user, "AGENT.REGISTER.eve", resume).await;
    assert_eq!((&resumed["instance"], &resumed["resume"]), (&eve.card["instance"], &eve.card["resume"]));
    eve.complete(&kept, b"done").await.unwrap();

    // Gone for good: the task goes to another, and the old lease is worth nothing.
    submit(&user, &[("Task-Id", "moved")], b"").await;
    let moved = eve.pull().await;
    connections.send(connected(9, "fay")).await.unwrap();
    let fay = Agent::register(world.client("fay").await, "fay", json!({})).await;
    connections.send(ConnectionEvent::Disconnected { client_id: 8 }).await.unwrap();
    let again = fay.pull().await;
    assert_eq!(again.headers().get_str("Task-Attempt"), Some("2"), "it had been delivered, so it counts");
    assert_eq!(eve.complete(&moved, b"late").await, Err(30409));
    fay.complete(&again, b"done").await.unwrap();
    assert_eq!(ask(&user, "AGENT.INFO.eve", Value::Null).await["status"], "offline");
    until(&user, "moved", |record| record["state"] == "completed").await;
    world.end().await;
}
