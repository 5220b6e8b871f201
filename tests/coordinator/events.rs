//! What is told of queues and councils to whoever listens to their events.

use natterjack::client::Subscription;
use serde_json::{Value, json};

use super::agent::{Agent, LONG, ask, submit};
use super::support::World;

/// The next event, with its subject. Its time is looked at and taken out: it differs from run to run.
async fn next(events: &mut Subscription) -> (String, Value) {
    let event = tokio::time::timeout(LONG, events.next()).await.expect("an event").unwrap();
    let mut body: Value = serde_json::from_slice(event.payload()).unwrap();
    if let Some(time) = body.as_object_mut().unwrap().remove("time") {
        assert!(time.as_str().unwrap().starts_with("20"), "{time}");
    }
    (event.subject_str().to_owned(), body)
}

#[tokio::test]
async fn a_queues_events_tell_of_its_settings_and_its_deaths() {
    let world = World::start().await;
    let user = world.client("user").await;
    let mut events = user.subscribe("$TASK.E.QUEUE.*").unwrap();
    user.flush().await.unwrap();
    // Each change is told as its caller is answered; only the kind is another.
    for (request, body, paused) in [
        ("PUT", json!({ "max_running": 3 }), Value::Null),
        ("PAUSE", json!({}), json!("waiting")),
        ("PAUSE", json!({ "refuse": true }), json!("refusing")),
        ("RESUME", Value::Null, Value::Null),
    ] {
        let mut answer = ask(&user, &format!("QUEUE.{request}.q"), body).await;
        let (subject, mut event) = next(&mut events).await;
        assert_eq!(subject, "$TASK.E.QUEUE.q");
        assert_eq!((&event["queue"], &event["max_running"], &event["paused"]), (&json!("q"), &json!(3), &paused));
        for told in [&mut event, &mut answer] {
            told.as_object_mut().unwrap().remove("type");
        }
        assert_eq!(event, answer, "{request}");
    }

    let agent = Agent::register(world.client("ann").await, "ann", json!({ "queues": ["q", "other"] })).await;
    for (id, queue, attempts) in [("d1", "q", "1"), ("d2", "other", "9")] {
        submit(&user, &[("Task-Id", id), ("Task-Queue", queue), ("Task-Max-Attempts", attempts)], b"").await;
        let task = agent.pull().await;
        let last = attempts == "1";
        agent.fail(&task, json!({ "error": "it broke", "retry": last }).to_string().as_bytes()).await.unwrap();
        let (subject, mut event) = next(&mut events).await;
        assert_eq!(subject, format!("$TASK.E.QUEUE.{queue}"));
        let revision = event.as_object_mut().unwrap().remove("revision").unwrap();
        let stored = user.kv_get("TASK", &format!("s.{id}")).await.unwrap().unwrap();
        assert_eq!(revision, stored.revision);
        let expected = json!({
            "type": "io.natterjack.task.event.v1.task", "id": id, "queue": queue, "state": "failed", "phase": "dead",
            "run": 1, "attempt": 1, "reason": if last { "attempts used" } else { "it broke" }, "error": "it broke",
        });
        assert_eq!(event, expected);
    }
    world.end().await;
}

#[tokio::test]
async fn a_councils_events_tell_of_losses_and_of_every_end() {
    const BUCKET: &str = "TASK_COUNCILS";
    let world = World::start().await;
    let user = world.client("user").await;
    let mut events = user.subscribe("$TASK.E.COUNCIL.*").unwrap();
    let form = json!({ "roles": { "tpm": 1, "developer": 1 }, "offer_to": "councils.offers", "seat_ttl_s": 0 });
    ask(&user, "COUNCIL.FORM.c", form.clone()).await;
    for (seat, agent) in [("tpm.1", "ann"), ("developer.1", "bob")] {
        user.kv_create(BUCKET, &format!("c.{seat}"), agent.as_bytes()).await.unwrap();
    }
    let mut told = Vec::new();
    while told.last().is_none_or(|event: &Value| event["event"] != "formed") {
        let (subject, event) = next(&mut events).await;
        assert_eq!(
            (subject.as_str(), &event["type"]),
            ("$TASK.E.COUNCIL.c", &json!("io.natterjack.task.event.v1.council"))
        );
        told.push(event);
    }
    let kind = "io.natterjack.task.event.v1.council";
    let seat = |event: &str, status: &str, seat: &str, agent: &str| json!({ "type": kind, "council": "c", "event": event, "status": status, "seat": seat, "agent": agent });
    assert_eq!(told[1], seat("claimed", "forming", "tpm.1", "ann"));

    // Somebody leaves, and another takes the seat.
    user.kv_delete(BUCKET, "c.developer.1").await.unwrap();
    assert_eq!(next(&mut events).await.1, seat("left", "formed", "developer.1", "bob"));
    let expected = json!({
        "type": kind, "council": "c", "event": "degraded", "status": "degraded", "run": 1, "members": { "tpm.1": "ann" },
        "open": ["developer.1"], "missing": { "developer": 1 },
    });
    assert_eq!(next(&mut events).await.1, expected);
    user.kv_create(BUCKET, "c.developer.1", b"cid").await.unwrap();
    assert_eq!(next(&mut events).await.1, seat("claimed", "degraded", "developer.1", "cid"));
    let (_, formed) = next(&mut events).await;
    assert_eq!((&formed["event"], &formed["members"]["developer.1"]), (&json!("formed"), &json!("cid")));

    ask(&user, "COUNCIL.DISSOLVE.c", json!({ "reason": "merged" })).await;
    let expected = json!({
        "type": kind, "council": "c", "event": "dissolved", "status": "dissolved", "run": 1, "reason": "merged",
        "members": { "tpm.1": "ann", "developer.1": "cid" },
    });
    let dissolved = loop {
        let (_, event) = next(&mut events).await;
        if event["event"] == "dissolved" {
            break event;
        }
        assert_eq!(event["event"], "left", "the seats are given back");
    };
    assert_eq!(dissolved, expected);

    // One that nobody comes to.
    let mut form = form;
    form["deadline_s"] = json!(0.2);
    ask(&user, "COUNCIL.FORM.late", form).await;
    let expired = loop {
        let (subject, event) = next(&mut events).await;
        if subject == "$TASK.E.COUNCIL.late" && event["event"] != "forming" {
            break event;
        }
    };
    let expected = json!({
        "type": kind, "council": "late", "event": "expired", "status": "expired", "run": 1, "members": {},
        "missing": { "developer": 1, "tpm": 1 },
    });
    assert_eq!(expired, expected);
    world.end().await;
}
