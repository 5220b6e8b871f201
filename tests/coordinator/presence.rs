//! Presence: by what the broker tells of connections, and on any server by who subscribes to its own subject.

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use natterjack::client::{Client, ConnectOptions, Subscription};
use natterjack::coordinator::{ConnectionEvent, Settings};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::agent::{Agent, ask, call, submit, until};
use super::support::{Embedded, World, quick};

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

/// A connection that is not made again, and its socket.
async fn over_a_socket(world: &Embedded, name: &str) -> (Client, TcpStream) {
    let url = world.server.client_url();
    let socket = TcpStream::connect(url.strip_prefix("nats://").unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(socket.try_clone().unwrap()).unwrap();
    let options = ConnectOptions { name: name.to_owned(), ..ConnectOptions::default() };
    (Client::attach(stream, options).await.unwrap(), socket)
}

/// The broker's own coordinator with the times that it has by default, and an agent that neither subscribes nor beats: nothing
/// but the end of its socket tells.
#[tokio::test]
async fn the_end_of_a_socket_frees_the_tasks_after_the_grace_and_long_before_the_lease() {
    const GRACE: Duration = Duration::from_secs(5);
    let world = Embedded::start("").await;
    let user = world.named("user", "user").await;
    let mut events = user.subscribe("$TASK.E.AGENT.eve").unwrap();
    let (client, socket) = over_a_socket(&world, "eve").await;
    let eve = Agent::register(client, "eve", json!({ "slots": 2 })).await;
    assert_eq!((&eve.card["heartbeat_needed"], &eve.card["lease_s"]), (&json!(false), &json!(30.0)));
    expect_event(&mut events, "eve", "registered").await;

    // Gone and back with its token: it still has the task when the grace would be over.
    submit(&user, &[("Task-Id", "kept")], b"").await;
    let kept = eve.pull().await;
    socket.shutdown(Shutdown::Both).unwrap();
    let (client, socket) = over_a_socket(&world, "eve").await;
    let back = Agent::register(client, "eve", json!({ "slots": 2, "resume": eve.card["resume"] })).await;
    assert_eq!(back.card["instance"], eve.card["instance"]);
    let fay = Agent::register(world.named("user", "fay").await, "fay", json!({})).await;
    tokio::time::sleep(GRACE + Duration::from_secs(2)).await;
    let record = ask(&user, "GET.kept", Value::Null).await;
    assert_eq!((&record["agent"], &record["attempt"]), (&json!("eve"), &json!(1)), "{record}");
    back.complete(&kept, b"done").await.unwrap();
    assert_eq!(next_event(&mut events).await.1, "resumed", "it was never offline");

    // Gone for good.
    ask(&user, "AGENT.DRAIN.fay", Value::Null).await;
    submit(&user, &[("Task-Id", "moved")], b"").await;
    let moved = back.pull().await;
    ask(&user, "AGENT.DRAIN.fay", json!({ "drain": false })).await;
    let begun = Instant::now();
    socket.shutdown(Shutdown::Both).unwrap();
    let again = fay.pull().await;
    let passed = begun.elapsed();
    assert!(passed >= GRACE - Duration::from_millis(100), "it may come back in that time, and it was {passed:?}");
    assert!(passed < Duration::from_secs(20), "{passed:?}: a lease would have done that");
    assert_eq!((again.payload(), again.headers().get_str("Task-Attempt")), (moved.payload(), Some("2")));
    expect_event(&mut events, "eve", "offline").await;
    let late = moved.headers().get_str("Task-Complete").unwrap().strip_prefix("$TASK.API.").unwrap();
    assert_eq!(call(&user, late, &[], b"late").await.unwrap_err().0, 30409);
    fay.complete(&again, b"done").await.unwrap();
    world.server.stop().await;
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
    let mut events = user.subscribe("$TASK.E.AGENT.eve").unwrap();
    let (eve, mut alive) = listening(&world, "eve", json!({ "slots": 2 })).await;
    assert_eq!(alive.next().await.unwrap().payload(), br#"{"op":"ping"}"#);
    assert_eq!(next_event(&mut events).await.1, "registered");
    assert_eq!(call(&user, "AGENT.REGISTER.eve", &[], b"").await.unwrap_err().0, 30414, "it is alive");
    submit(&user, &[("Task-Id", "kept")], b"").await;
    let kept = eve.pull().await;

    // Away and back within the grace, with its token: the lease holds.
    eve.client.close().await;
    let back = json!({ "slots": 2, "resume": eve.card["resume"] });
    let (back, _alive) = listening(&world, "eve", back).await;
    assert_eq!(back.card["instance"], eve.card["instance"]);
    assert_eq!(next_event(&mut events).await.1, "resumed");
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

/// The events of agents, in words.
async fn next_event(events: &mut Subscription) -> (String, String) {
    let event = events.next().await.unwrap();
    let event: Value = serde_json::from_slice(event.payload()).unwrap();
    (event["agent"].as_str().unwrap().to_owned(), event["event"].as_str().unwrap().to_owned())
}

async fn expect_event(events: &mut Subscription, agent: &str, event: &str) {
    while next_event(events).await != (agent.to_owned(), event.to_owned()) {}
}

#[tokio::test]
async fn three_missed_heartbeats_end_an_agent_that_has_sent_one() {
    let settings = Settings { heartbeat: Duration::from_millis(200), ..quick() };
    let world = World::start_with(settings).await;
    let user = world.client("user").await;
    let mut events = user.subscribe("$TASK.E.AGENT.*").unwrap();
    let eve = Agent::register(world.client("x").await, "eve", json!({})).await;
    let beat = eve.card["heartbeat"].as_str().unwrap().to_owned();
    assert_eq!(eve.card["heartbeat_s"], 0.2);
    let beating = tokio::spawn({
        let (client, beat) = (eve.client.clone(), beat.clone());
        async move {
            loop {
                client.publish(&beat, b"").unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    expect_event(&mut events, "eve", "registered").await;
    submit(&user, &[("Task-Id", "t")], b"").await;
    let held = eve.pull().await;
    // It does nothing but beat, for longer than three beats may be missed.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let seen = ask(&user, "AGENT.INFO.eve", Value::Null).await;
    assert_eq!((&seen["status"], &seen["tasks"]), (&json!("online"), &json!(["t"])));
    let fay = Agent::register(world.client("y").await, "fay", json!({})).await;
    beating.abort();
    expect_event(&mut events, "eve", "offline").await;
    let again = fay.pull().await;
    assert_eq!(again.headers().get_str("Task-Attempt"), Some("2"));
    assert_eq!(eve.complete(&held, b"").await, Err(30409));
    let info = ask(&user, "AGENT.INFO.eve", Value::Null).await;
    assert_eq!(info["status"], "offline");
    assert!(info["last_seen"].as_str() >= seen["last_seen"].as_str(), "it tells when it was seen last");
    // One beat, and it is back.
    eve.client.publish(&beat, b"").unwrap();
    expect_event(&mut events, "eve", "online").await;
    world.end().await;
}

#[tokio::test]
async fn a_draining_agent_finishes_what_it_has_and_gets_nothing_new() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let mut events = user.subscribe("$TASK.E.AGENT.*").unwrap();
    let (eve, _alive) = listening(&world, "eve", json!({ "slots": 4 })).await;
    let mut told = eve.client.subscribe("$TASK.X.eve").unwrap();
    eve.client.flush().await.unwrap();
    submit(&user, &[("Task-Id", "held")], b"").await;
    let held = eve.pull().await;
    let shown = ask(&user, "AGENT.DRAIN.eve", Value::Null).await;
    assert_eq!((&shown["status"], &shown["in_flight"]), (&json!("draining"), &json!(1)));
    assert_eq!(told.next().await.unwrap().payload(), br#"{"op":"drain"}"#);
    expect_event(&mut events, "eve", "draining").await;
    submit(&user, &[("Task-Id", "new")], b"").await;
    // Neither a coordinator that restarts nor a connection made again makes it forget.
    let card = ask(&user, "AGENT.INFO.eve", Value::Null).await;
    assert_eq!(card["draining"], true);
    let stored = user.kv_get("TASK_AGENTS", "eve").await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored.value).unwrap()["status"], "draining");
    world.restart_coordinator().await;
    let resume = json!({ "slots": 4, "resume": eve.card["resume"] });
    ask(&eve.client, "AGENT.REGISTER.eve", resume).await;
    assert_eq!(ask(&user, "AGENT.INFO.eve", Value::Null).await["status"], "draining");
    assert_eq!(ask(&user, "GET.new", Value::Null).await["phase"], "queued");
    eve.complete(&held, b"done").await.unwrap();
    expect_event(&mut events, "eve", "drained").await;
    // Then it leaves, or is told to go on.
    eve.client.close().await;
    expect_event(&mut events, "eve", "offline").await;
    assert_eq!(ask(&user, "GET.new", Value::Null).await["phase"], "queued");
    let (eve, _alive) = listening(&world, "eve", json!({})).await;
    assert_eq!(eve.pull().await.headers().get_str("Task-Id"), Some("new"), "a new life has not been told to drain");
    ask(&user, "AGENT.DRAIN.eve", Value::Null).await;
    let back = ask(&user, "AGENT.DRAIN.eve", json!({ "drain": false })).await;
    assert_eq!(back["status"], "online");
    expect_event(&mut events, "eve", "online").await;
    world.end().await;
}

#[tokio::test]
async fn a_removed_agent_leaves_nothing_behind_but_its_tasks() {
    let settings = Settings { agent_kept: Duration::from_millis(600), ..quick() };
    let world = World::start_with(settings).await;
    let user = world.client("user").await;
    let mut events = user.subscribe("$TASK.E.AGENT.*").unwrap();
    let eve = Agent::register(world.client("x").await, "eve", json!({})).await;
    submit(&user, &[("Task-Id", "t")], b"").await;
    let held = eve.pull().await;
    assert_eq!(ask(&user, "AGENT.REMOVE.eve", Value::Null).await["removed"], true);
    expect_event(&mut events, "eve", "removed").await;
    assert_eq!(call(&user, "AGENT.INFO.eve", &[], b"").await.unwrap_err().0, 30405);
    assert_eq!(call(&user, "AGENT.REMOVE.eve", &[], b"").await.unwrap_err().0, 30405);
    let (fay, alive) = listening(&world, "fay", json!({})).await;
    let again = fay.pull().await;
    assert_eq!(eve.complete(&held, b"").await, Err(30409));
    fay.complete(&again, b"done").await.unwrap();
    let gone = async |agent: &str| {
        let consumer: Result<Value, _> = user.api(&format!("CONSUMER.INFO.KV_TASK.agent_{agent}"), &Value::Null).await;
        consumer.is_err() && user.kv_get("TASK_AGENTS", agent).await.unwrap().is_none()
    };
    while !gone("eve").await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // One that stays away for longer than agents are kept goes by itself.
    drop(alive);
    fay.client.close().await;
    expect_event(&mut events, "fay", "offline").await;
    expect_event(&mut events, "fay", "removed").await;
    while !gone("fay").await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ask(&user, "AGENT.LIST", Value::Null).await["total"], 0);
    world.end().await;
}

#[tokio::test]
async fn who_stays_away_is_asked_ever_more_seldom() {
    let settings = Settings { heartbeat: Duration::from_millis(800), ..quick() };
    let world = World::start_with(settings).await;
    let user = world.client("user").await;
    let mut events = user.subscribe("$TASK.E.AGENT.*").unwrap();
    let mut asked = user.subscribe("$JS.API.CONSUMER.INFO.KV_TASK.*").unwrap();
    let eve = Agent::register(world.client("x").await, "eve", json!({})).await;
    // It never subscribes, beats or pulls.
    expect_event(&mut events, "eve", "offline").await;
    tokio::time::sleep(Duration::from_millis(1600)).await;
    while asked.try_next().is_some() {}
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut count = 0;
    while asked.try_next().is_some() {
        count += 1;
    }
    println!("an agent that is away is asked {count} times in 4 s, where a sweep is 50 ms");
    assert!((1..=10).contains(&count), "{count}");
    // It pulls again, and is found.
    let consumer = eve.card["consumer"].as_str().unwrap().to_owned();
    let pulling = tokio::spawn(async move { super::agent::pull(&eve.client, &consumer).await });
    expect_event(&mut events, "eve", "online").await;
    submit(&user, &[("Task-Id", "t")], b"").await;
    assert_eq!(pulling.await.unwrap().headers().get_str("Task-Id"), Some("t"));
    world.end().await;
}

#[tokio::test]
async fn an_agents_consumer_that_was_deleted_by_hand_is_made_again() {
    let world = World::start().await;
    let user = world.client("user").await;
    let eve = Agent::register(world.client("x").await, "eve", json!({})).await;
    let deleted: Value = user.api("CONSUMER.DELETE.KV_TASK.agent_eve", &Value::Null).await.unwrap();
    assert_eq!(deleted["success"], true);
    submit(&user, &[("Task-Id", "t"), ("Task-Max-Attempts", "1")], b"body").await;
    let restored = async || {
        let info: Result<Value, _> = user.api("CONSUMER.INFO.KV_TASK.agent_eve", &Value::Null).await;
        info.is_ok()
    };
    while !restored().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let task = eve.pull().await;
    assert_eq!((task.payload(), task.headers().get_str("Task-Attempt")), (&b"body"[..], Some("1")));
    eve.complete(&task, b"done").await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn an_agent_slow_to_its_first_fetch_gets_the_task_once_it_pulls() {
    let settings = Settings { accept_timeout: Duration::from_millis(300), ..quick() };
    let world = World::start_with(settings).await;
    let user = world.client("user").await;
    let (eve, _alive) = listening(&world, "eve", json!({})).await;
    submit(&user, &[("Task-Id", "t")], b"body").await;
    until(&user, "t", |record| record["phase"] == "queued").await;
    let why = ask(&user, "EXPLAIN.t", Value::Null).await.to_string();
    assert!(why.contains("stalled"), "{why}");
    let task = eve.pull().await;
    assert_eq!(task.headers().get_str("Task-Attempt"), Some("1"));
    eve.complete(&task, b"done").await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_lease_by_presence_needs_no_sign_of_work_until_the_agent_goes() {
    let settings = Settings { grace: Duration::from_secs(1), ..quick() };
    let world = World::start_with(settings).await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.slow", json!({ "lease_s": 0.5, "backoff": [0.01] })).await;
    let request = json!({ "queues": ["slow"], "labels": ["eve"], "lease_by": "presence" });
    let (eve, _alive) = listening(&world, "eve", request).await;
    assert_eq!((&eve.card["lease_by"], &eve.card["lease_s"]), (&json!("presence"), &json!(0.5)));
    submit(&user, &[("Task-Id", "t"), ("Task-Queue", "slow")], b"").await;
    let task = eve.pull().await;
    // Several leases go by, which another task tells that has an agent of the usual kind.
    let signs = json!({ "queues": ["slow"], "labels": ["signs"] });
    let fay = Agent::register(world.client("fay").await, "fay", signs).await;
    submit(&user, &[("Task-Id", "silent"), ("Task-Queue", "slow"), ("Task-Requires", "signs")], b"").await;
    for attempt in ["1", "2", "3"] {
        assert_eq!(fay.pull().await.headers().get_str("Task-Attempt"), Some(attempt));
    }
    eve.complete(&task, b"done").await.unwrap();
    let done = ask(&user, "GET.t", Value::Null).await;
    assert_eq!((&done["state"], &done["attempt"]), (&json!("completed"), &json!(1)));

    // Gone, it keeps nothing.
    submit(&user, &[("Task-Id", "u"), ("Task-Queue", "slow"), ("Task-Requires", "eve")], b"").await;
    let lost = eve.pull().await;
    eve.client.close().await;
    until(&user, "u", |record| record["fault"]["error"] == "agent lost").await;
    drop(lost);
    world.end().await;
}

#[tokio::test]
async fn an_agent_that_is_there_is_told_that_its_task_was_taken_from_it() {
    let world = World::start().await;
    let user = world.client("user").await;
    let (eve, _alive) = listening(&world, "eve", json!({})).await;
    let mut told = eve.client.subscribe(eve.card["control"].as_str().unwrap()).unwrap();
    eve.client.flush().await.unwrap();
    for (limit, reason) in [("Task-Timeout", "timeout"), ("Task-Deadline", "deadline")] {
        submit(&user, &[("Task-Id", reason), (limit, "2s")], b"").await;
        let task = eve.pull().await;
        let order = told.next().await.unwrap();
        let order: Value = serde_json::from_slice(order.payload()).unwrap();
        let delivery = task.headers().get_str("Task-Delivery").unwrap().parse::<u64>().unwrap();
        let expected = json!({
            "op": "cancel", "task": reason, "delivery": delivery, "reason": reason, "grace_s": 0.0,
        });
        assert_eq!(order, expected);
        assert_eq!(eve.complete(&task, b"late").await, Err(30409));
    }
    world.end().await;
}
