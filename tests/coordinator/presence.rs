//! Presence: by what the broker tells of connections, and on any server by who subscribes to its own subject.

use std::time::Duration;

use natterjack::client::Subscription;
use natterjack::coordinator::{ConnectionEvent, Settings};
use serde_json::{Value, json};

use super::agent::{Agent, ask, call, submit, until};
use super::support::{World, quick};

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

#[tokio::test]
async fn a_new_process_takes_its_predecessors_place_though_its_connection_has_the_same_name() {
    let (world, connections) = World::start_with_presence().await;
    let user = world.client("user").await;
    let connected = |client_id| ConnectionEvent::Connected { client_id, name: "eve".to_owned() };
    let disconnected = |client_id| ConnectionEvent::Disconnected { client_id };
    let register = async |client_id: u64| {
        let request = json!({ "client_id": client_id }).to_string();
        call(&user, "AGENT.REGISTER.eve", &[], request.as_bytes()).await.map(drop).map_err(|(code, _)| code)
    };
    connections.send(connected(1)).await.unwrap();
    assert_eq!(register(1).await, Ok(()));
    assert_eq!(register(0).await, Err(30414), "somebody else");
    connections.send(connected(2)).await.unwrap();
    assert_eq!(register(2).await, Err(30414), "somebody else with the same name");
    connections.send(disconnected(2)).await.unwrap();
    // It ends, and others of its name come: each counts as the agent come back until it asks to be a new one.
    connections.send(disconnected(1)).await.unwrap();
    connections.send(connected(3)).await.unwrap();
    assert_eq!(register(7).await, Err(30414), "not the connection that counts as its own");
    assert_eq!(register(3).await, Ok(()), "it says who it is");
    connections.send(disconnected(3)).await.unwrap();
    connections.send(connected(4)).await.unwrap();
    assert_eq!(register(0).await, Ok(()), "it does not say");
    assert_eq!(register(0).await, Err(30414), "there is one again");
    world.end().await;
}

/// An agent that subscribes to its own subject, known to do so.
async fn listening(world: &World, id: &str, request: Value) -> (Agent, Subscription) {
    let agent = Agent::register(world.client("any name").await, id, request).await;
    let subject = agent.card["presence"].as_str().unwrap().to_owned();
    let subscription = agent.client.subscribe(&subject).unwrap();
    agent.client.flush().await.unwrap();
    while ask(&agent.client, &format!("AGENT.INFO.{id}"), Value::Null).await.get("listens").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (agent, subscription)
}

#[tokio::test]
async fn an_agent_that_subscribes_to_its_subject_is_there_as_long_as_it_does() {
    // Heartbeats and leases would take far longer.
    let settings = Settings { grace: Duration::from_secs(1), ..quick() };
    let world = World::start_with(settings).await;
    let user = world.client("user").await;
    let (eve, _alive) = listening(&world, "eve", json!({ "slots": 2 })).await;
    assert_eq!(call(&user, "AGENT.REGISTER.eve", &[], b"").await.unwrap_err().0, 30414, "it is alive");
    submit(&user, &[("Task-Id", "kept")], b"").await;
    let kept = eve.pull().await;

    // Away and back within the grace, with its token: the lease holds.
    eve.client.close().await;
    let back = json!({ "slots": 2, "resume": eve.card["resume"] });
    let (back, _alive) = listening(&world, "eve", back).await;
    assert_eq!(back.card["instance"], eve.card["instance"]);
    back.complete(&kept, b"done").await.unwrap();

    // Gone for good: its task goes to another at once.
    submit(&user, &[("Task-Id", "moved")], b"").await;
    let moved = back.pull().await;
    let fay = Agent::register(world.client("fay").await, "fay", json!({})).await;
    let begun = tokio::time::Instant::now();
    back.client.close().await;
    let again = fay.pull().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(again.payload(), moved.payload());
    assert_eq!(again.headers().get_str("Task-Attempt"), Some("2"));
    fay.complete(&again, b"done").await.unwrap();
    let info = ask(&user, "AGENT.INFO.eve", Value::Null).await;
    assert_eq!(info["status"], "offline");
    let agents = ask(&user, "AGENT.LIST", Value::Null).await;
    assert_eq!((&agents["online"], &agents["available"]), (&json!(1), &json!(1)));
    world.end().await;
}

#[tokio::test]
async fn a_restarted_process_need_not_wait_for_the_grace_of_its_predecessor() {
    let settings = Settings { grace: Duration::from_secs(600), probe: Duration::from_millis(50), ..quick() };
    let mut world = World::start_with(settings).await;
    let user = world.client("user").await;
    let (eve, _alive) = listening(&world, "eve", json!({})).await;
    submit(&user, &[("Task-Id", "t")], b"").await;
    eve.pull().await;
    eve.client.close().await;
    // Without a token, and listening to what it is told already.
    let process = world.client("eve").await;
    let _early = process.subscribe("$TASK.X.eve").unwrap();
    process.flush().await.unwrap();
    let next = Agent::register(process, "eve", json!({})).await;
    assert_ne!(next.card["instance"], eve.card["instance"]);
    let task = next.pull().await;
    let _alive = next.client.subscribe(next.card["presence"].as_str().unwrap()).unwrap();
    // Who is there is known to the next coordinator as well.
    while ask(&user, "AGENT.INFO.eve", Value::Null).await.get("listens").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.restart_coordinator().await;
    assert_eq!(call(&user, "AGENT.REGISTER.eve", &[], b"").await.unwrap_err().0, 30414);
    next.complete(&task, b"done").await.unwrap();
    until(&user, "t", |record| record["state"] == "completed").await;
    world.end().await;
}
