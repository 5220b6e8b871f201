//! Councils: offers, claims by plain keys, quorum, deadline, lost members, restarts, and who may have what published.

use std::collections::BTreeMap;
use std::time::Duration;

use natterjack::client::{Client, Incoming, Subscription};
use natterjack::coordinator::Settings;
use natterjack::types::header::HeaderBuilder;
use serde_json::{Value, json};

use super::agent::{Agent, LONG, ask, await_result, call, submit};
use super::support::{Embedded, World, quick};

const BUCKET: &str = "TASK_COUNCILS";

fn terms() -> Value {
    json!({
        "roles": { "tpm": 1, "developer": 2 }, "offer_to": "chorus.councils.forming",
        "status_to": "chorus.councils.c1.status", "body": { "issue": 7 }, "seat_ttl_s": 0,
        "headers": { "Council-ID": "c1", "Project": "pond", "Status": "forming" },
    })
}

fn with(mut terms: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        terms[name] = value.clone();
    }
    terms
}

async fn listen(client: &Client, subject: &str) -> Subscription {
    let subscription = client.subscribe(subject).unwrap();
    client.flush().await.unwrap();
    subscription
}

async fn next(subscription: &mut Subscription) -> Incoming {
    tokio::time::timeout(LONG, subscription.next()).await.expect("a message comes").unwrap()
}

/// The next status, with its body.
async fn status(subscription: &mut Subscription) -> (String, Value) {
    let message = next(subscription).await;
    let body: Value = serde_json::from_slice(message.payload()).unwrap();
    let status = message.headers().get_str("Status").unwrap().to_owned();
    assert_eq!(body["status"], status.as_str());
    (status, body)
}

/// Claims a seat as agents do; whether it was free.
async fn claim(client: &Client, key: &str, agent: &str) -> bool {
    client.kv_create(BUCKET, key, json!({ "agent": agent }).to_string().as_bytes()).await.is_ok()
}

/// Asks until the council is as `wanted`.
async fn info(client: &Client, council: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..1000 {
        last = ask(client, &format!("COUNCIL.INFO.{council}"), Value::Null).await;
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to be: {last}");
}

async fn until_gone(client: &Client, key: &str) {
    for _ in 0..1000 {
        if client.kv_get(BUCKET, key).await.unwrap().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{key} is still there");
}

#[tokio::test]
async fn a_council_is_offered_claimed_formed_and_dissolved() {
    let world = World::start().await;
    let user = world.client("user").await;
    let mut offers = listen(&user, "chorus.councils.forming").await;
    let mut statuses = listen(&user, "chorus.councils.*.status").await;
    let mut events = listen(&user, "$TASK.E.COUNCIL.c1").await;
    // Kept byte for byte, odd spacing and all.
    let body = r#"{"roles":{"tpm":1,"developer":2},"offer_to":"chorus.councils.forming",
        "status_to":"chorus.councils.c1.status","headers":{"UCXL-Address":"ucxl://a:b@c","Council-ID":"c1","Status":"forming",
        "Published-At":"yesterday","Repository":"r"},"body":{ "b" : 1.50,  "a":"\u00e9" }}"#;
    let answer = call(&user, "COUNCIL.FORM.c1", &[], body.as_bytes()).await.unwrap();
    let answer: Value = serde_json::from_slice(answer.payload()).unwrap();
    assert_eq!((&answer["status"], &answer["duplicate"]), (&json!("forming"), &json!(false)));
    assert_eq!(answer["missing"], json!({ "tpm": 1, "developer": 2 }));
    for _ in 0..3 {
        let offer = next(&mut offers).await;
        assert_eq!(offer.payload(), br#"{ "b" : 1.50,  "a":"\u00e9" }"#);
        let headers = "NATS/1.0\r\nUCXL-Address: ucxl://a:b@c\r\nCouncil-ID: c1\r\nStatus: forming\r\n\
                       Published-At: yesterday\r\nRepository: r\r\n\r\n";
        assert_eq!(std::str::from_utf8(offer.header_block()).unwrap(), headers);
    }

    // One who comes late hears it as well.
    let late = world.client("late").await;
    next(&mut listen(&late, "chorus.councils.forming").await).await;

    assert!(claim(&user, "c1.tpm.1", "ann").await);
    let lost = user.kv_create(BUCKET, "c1.tpm.1", b"bob").await.unwrap_err();
    assert!(lost.to_string().contains("wrong last sequence"), "{lost}");
    assert!(claim(&user, "c1.developer.1", "bob").await);
    let seen = info(&user, "c1", |info| info["seated"].as_object().unwrap().len() == 2).await;
    assert_eq!((&seen["status"], &seen["missing"]), (&json!("forming"), &json!({ "developer": 1 })));
    assert!(user.kv_create(BUCKET, "c1.developer.2", b"cid").await.is_ok(), "a name alone is fine as well");
    let formed = next(&mut statuses).await;
    let header = |name: &str| formed.headers().get_str(name).unwrap_or_default().to_owned();
    assert_eq!(
        (header("Council-ID"), header("Status"), header("Repository")),
        ("c1".into(), "formed".into(), "r".into())
    );
    assert_eq!(header("UCXL-Address"), "ucxl://a:b@c");
    assert_ne!(header("Published-At"), "yesterday");
    let told: Value = serde_json::from_slice(formed.payload()).unwrap();
    let members = json!({ "developer.1": "bob", "developer.2": "cid", "tpm.1": "ann" });
    assert_eq!(told["members"], members);
    let mut seen = Vec::new();
    while seen.last() != Some(&"formed".to_owned()) {
        let event: Value = serde_json::from_slice(next(&mut events).await.payload()).unwrap();
        seen.push(event["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, ["forming", "claimed", "claimed", "claimed", "formed"]);

    // The bucket says the same to whoever reads it, and nobody else is let in.
    let stored = user.kv_get(BUCKET, "c1").await.unwrap().unwrap();
    let stored: Value = serde_json::from_slice(&stored.value).unwrap();
    assert_eq!((&stored["status"], &stored["members"]), (&json!("formed"), &members));
    assert!(claim(&user, "c1.developer.3", "dan").await, "a key is a key");
    until_gone(&user, "c1.developer.3").await;

    // The same again is no second council, another one is refused while it is there.
    let again = call(&user, "COUNCIL.FORM.c1", &[], body.as_bytes()).await.unwrap();
    let again: Value = serde_json::from_slice(again.payload()).unwrap();
    assert_eq!((&again["status"], &again["duplicate"]), (&json!("formed"), &json!(true)));
    let other = call(&user, "COUNCIL.FORM.c1", &[], terms().to_string().as_bytes()).await.unwrap_err();
    assert_eq!(other.0, 30441);
    let list = ask(&user, "COUNCIL.LIST", Value::Null).await;
    assert_eq!((&list["total"], &list["councils"][0]["council"]), (&json!(1), &json!("c1")));
    while offers.try_next().is_some() {}

    let done = ask(&user, "COUNCIL.DISSOLVE.c1", json!({ "reason": "merged" })).await;
    assert_eq!((&done["status"], &done["reason"]), (&json!("dissolved"), &json!("merged")));
    let (told, body) = status(&mut statuses).await;
    assert_eq!((told.as_str(), &body["reason"]), ("dissolved", &json!("merged")));
    assert_eq!(ask(&user, "COUNCIL.DISSOLVE.c1", Value::Null).await["reason"], "merged", "once is enough");
    for seat in ["tpm.1", "developer.1", "developer.2"] {
        until_gone(&user, &format!("c1.{seat}")).await;
    }
    assert!(offers.try_next().is_none(), "nothing is offered any more");
    assert_eq!(call(&user, "COUNCIL.INFO.nobody", &[], b"").await.unwrap_err().0, 30440);

    // After its end the name is free.
    let next_run = ask(&user, "COUNCIL.FORM.c1", terms()).await;
    assert_eq!((&next_run["run"], &next_run["status"]), (&json!(2), &json!("forming")));
    assert_eq!(next_run["seated"], json!({}));
    world.end().await;
}

#[tokio::test]
async fn a_quorum_may_be_less_and_a_deadline_names_who_is_missing() {
    let world = World::start().await;
    let user = world.client("user").await;
    let mut statuses = listen(&user, "chorus.councils.c1.status").await;
    ask(&user, "COUNCIL.FORM.c1", with(terms(), json!({ "quorum": 2, "optional": { "scribe": 1 } }))).await;
    for (seat, agent) in [("scribe.1", "sue"), ("tpm.1", "ann"), ("developer.2", "bob")] {
        assert!(claim(&user, &format!("c1.{seat}"), agent).await);
    }
    let (told, body) = status(&mut statuses).await;
    let members = json!({ "developer.2": "bob", "scribe.1": "sue", "tpm.1": "ann" });
    assert_eq!((told.as_str(), &body["members"]), ("formed", &members));
    // Frozen: the seat that was left has no taker any more.
    assert!(claim(&user, "c1.developer.1", "cid").await);
    until_gone(&user, "c1.developer.1").await;
    assert_eq!(ask(&user, "COUNCIL.INFO.c1", Value::Null).await["members"], members);

    let short = with(terms(), json!({ "status_to": "chorus.councils.c2.status", "deadline_s": 1 }));
    let mut statuses = listen(&user, "chorus.councils.c2.status").await;
    ask(&user, "COUNCIL.FORM.c2", short.clone()).await;
    assert!(claim(&user, "c2.developer.2", "ann").await, "an agent may sit in several councils");
    assert!(claim(&user, "c2.developer.1", "ann").await);
    until_gone(&user, "c2.developer.1").await;
    let (told, body) = status(&mut statuses).await;
    assert_eq!((told.as_str(), &body["missing"]), ("expired", &json!({ "developer": 1, "tpm": 1 })));
    until_gone(&user, "c2.developer.2").await;
    assert_eq!(ask(&user, "COUNCIL.FORM.c2", short).await["run"], 2, "it may be tried again");
    world.end().await;
}

#[tokio::test]
async fn claims_that_cannot_be_are_removed() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "COUNCIL.FORM.c1", terms()).await;
    for key in ["nobody.tpm.1", "c1.designer.1", "c1.tpm.2", "c1.tpm.0", "c1.tpm.x", "c1.tpm.01"] {
        assert!(claim(&user, key, "ann").await, "{key}");
        until_gone(&user, key).await;
    }
    for value in ["", "two words", r#"{"name":"ann"}"#] {
        user.kv_put(BUCKET, "c1.tpm.1", value.as_bytes()).await.unwrap();
        until_gone(&user, "c1.tpm.1").await;
    }
    // Somebody's own keys are nobody's business.
    user.kv_put(BUCKET, "c1.notes.of.ann", b"x").await.unwrap();
    assert!(claim(&user, "c1.tpm.1", "ann").await);
    info(&user, "c1", |info| info["seated"] == json!({ "tpm.1": "ann" })).await;
    assert!(user.kv_get(BUCKET, "c1.notes.of.ann").await.unwrap().is_some());
    // Given up by hand: free again.
    user.kv_delete(BUCKET, "c1.tpm.1").await.unwrap();
    info(&user, "c1", |info| info["seated"] == json!({})).await;
    assert!(claim(&user, "c1.tpm.1", "bob").await);
    info(&user, "c1", |info| info["seated"] == json!({ "tpm.1": "bob" })).await;
    world.end().await;
}

#[tokio::test]
async fn a_lost_member_degrades_the_council_until_another_takes_its_seat() {
    let world = World::start().await;
    let user = world.client("user").await;
    let mut statuses = listen(&user, "chorus.councils.c1.status").await;
    let ann = Agent::register(world.client("ann").await, "ann", json!({})).await;
    let presence = ann.client.subscribe(ann.card["presence"].as_str().unwrap()).unwrap();
    ann.client.flush().await.unwrap();
    while ask(&user, "AGENT.INFO.ann", Value::Null).await.get("listens").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ask(&user, "COUNCIL.FORM.c1", with(terms(), json!({ "seat_ttl_s": 3 }))).await;
    assert!(claim(&user, "c1.tpm.1", "ann").await);
    assert!(claim(&user, "c1.developer.1", "bob").await);
    let created = tokio::time::Instant::now();
    assert!(claim(&user, "c1.developer.2", "cid").await);
    assert_eq!(status(&mut statuses).await.0, "formed");

    // Cid renews its seat, Bob does not; Ann is there by its connection.
    let renewing = tokio::spawn({
        let user = user.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                if user.kv_put(BUCKET, "c1.developer.2", b"cid").await.is_err() {
                    return;
                }
            }
        }
    });
    let mut offers = listen(&user, "chorus.councils.forming").await;
    let (told, body) = status(&mut statuses).await;
    assert!(created.elapsed() > Duration::from_secs(2), "{:?}", created.elapsed());
    assert_eq!((told.as_str(), &body["open"]), ("degraded", &json!(["developer.1"])));
    assert_eq!((&body["missing"], body["members"].as_object().unwrap().len()), (&json!({ "developer": 1 }), 2));
    assert_eq!(next(&mut offers).await.payload(), br#"{"issue":7}"#, "the seat is offered again");
    assert!(!claim(&user, "c1.tpm.1", "dan").await);
    assert!(user.kv_create(BUCKET, "c1.developer.1", b"dan").await.is_ok());
    let (told, body) = status(&mut statuses).await;
    assert_eq!((told.as_str(), &body["members"]["developer.1"]), ("formed", &json!("dan")));

    // The agent goes, and its seat with it.
    renewing.abort();
    drop(presence);
    ann.client.close().await;
    let degraded = loop {
        let (_, body) = status(&mut statuses).await;
        if body["open"].as_array().is_some_and(|open| open.contains(&json!("tpm.1"))) {
            break body;
        }
    };
    assert_eq!(degraded["status"], "degraded");
    assert!(user.kv_get(BUCKET, "c1.tpm.1").await.unwrap().is_none());
    world.end().await;
}

#[tokio::test]
async fn a_seat_with_a_time_to_live_of_its_own_is_lost_when_that_is_over() {
    let world = World::start().await;
    let user = world.client("user").await;
    let mut statuses = listen(&user, "chorus.councils.c1.status").await;
    ask(&user, "COUNCIL.FORM.c1", with(terms(), json!({ "roles": { "tpm": 1 } }))).await;
    let block = HeaderBuilder::new().add("Nats-TTL", "1s").add("Nats-Expected-Last-Subject-Sequence", 0).build();
    user.request_message("$KV.TASK_COUNCILS.c1.tpm.1", &block, b"ann", LONG).await.unwrap();
    assert_eq!(status(&mut statuses).await.0, "formed");
    let (told, body) = status(&mut statuses).await;
    assert_eq!((told.as_str(), &body["open"]), ("degraded", &json!(["tpm.1"])));
    world.end().await;
}

#[tokio::test]
async fn work_for_a_council_goes_to_its_members() {
    let world = World::start().await;
    let user = world.client("user").await;
    let mut statuses = listen(&user, "chorus.councils.*.status").await;
    let ann = Agent::register(world.client("ann").await, "ann", json!({ "slots": 9 })).await;
    let bob = Agent::register(world.client("bob").await, "bob", json!({ "slots": 9 })).await;
    let pair = |name: &str| {
        with(
            terms(),
            json!({ "roles": { "tpm": 1, "developer": 1 }, "status_to": format!("chorus.councils.{name}.status") }),
        )
    };
    for (name, tpm, developer) in [("c1", "ann", "bob"), ("c2", "bob", "ann")] {
        ask(&user, &format!("COUNCIL.FORM.{name}"), pair(name)).await;
        submit(
            &user,
            &[("Task-Id", &format!("{name}-dev")), ("Task-Requires", &format!("council={name},role=developer"))],
            b"",
        )
        .await;
        submit(
            &user,
            &[("Task-Id", &format!("{name}-tpm")), ("Task-Requires", &format!("council={name},role=tpm"))],
            b"",
        )
        .await;
        let waiting = ask(&user, &format!("GET.{name}-dev"), Value::Null).await;
        assert_eq!(waiting["phase"], "queued", "there are no members yet");
        assert!(claim(&user, &format!("{name}.tpm.1"), tpm).await);
        assert!(claim(&user, &format!("{name}.developer.1"), developer).await);
        assert_eq!(status(&mut statuses).await.0, "formed");
    }
    let mut got = BTreeMap::new();
    for (agent, name) in [(&ann, "ann"), (&bob, "bob")] {
        for _ in 0..2 {
            let task = agent.pull().await;
            got.insert(task.headers().get_str("Task-Id").unwrap().to_owned(), name);
            agent.complete(&task, b"").await.unwrap();
        }
    }
    let expected = [("c1-dev", "bob"), ("c1-tpm", "ann"), ("c2-dev", "ann"), ("c2-tpm", "bob")];
    assert_eq!(got, expected.map(|(id, agent)| (id.to_owned(), agent)).into());
    let card = ask(&user, "AGENT.INFO.ann", Value::Null).await;
    assert_eq!(card["seats"], json!(["c1.tpm.1", "c2.developer.1"]));

    // Registering anew keeps the seats; the end of the council takes them.
    ask(&user, "AGENT.REGISTER.ann", json!({ "slots": 9, "resume": ann.card["resume"], "seats": ["c9.tpm.1"] })).await;
    assert_eq!(ask(&user, "AGENT.INFO.ann", Value::Null).await["seats"], card["seats"]);
    ask(&user, "COUNCIL.DISSOLVE.c1", Value::Null).await;
    assert_eq!(ask(&user, "AGENT.INFO.ann", Value::Null).await["seats"], json!(["c2.developer.1"]));
    let must = [("Task-Requires", "council=c1"), ("Task-Must-Match", "true")];
    assert_eq!(call(&user, "SUBMIT", &must, b"").await.unwrap_err().0, 30412);
    world.end().await;
}

#[tokio::test]
async fn a_restart_finds_councils_in_every_phase() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    let ann = Agent::register(world.client("ann").await, "ann", json!({})).await;
    let of = |name: &str, more: Value| {
        with(with(terms(), json!({ "status_to": format!("chorus.councils.{name}.status") })), more)
    };
    let mut statuses = listen(&user, "chorus.councils.*.status").await;
    ask(&user, "COUNCIL.FORM.forming", of("forming", json!({}))).await;
    for name in ["formed", "degraded", "dissolved", "robbed"] {
        ask(&user, &format!("COUNCIL.FORM.{name}"), of(name, json!({ "roles": { "tpm": 1, "developer": 1 } }))).await;
        assert!(claim(&user, &format!("{name}.tpm.1"), "ann").await);
        assert!(claim(&user, &format!("{name}.developer.1"), "bob").await);
        info(&user, name, |info| info["status"] == "formed").await;
    }
    user.kv_delete(BUCKET, "degraded.developer.1").await.unwrap();
    info(&user, "degraded", |info| info["status"] == "degraded").await;
    ask(&user, "COUNCIL.DISSOLVE.dissolved", Value::Null).await;
    assert!(claim(&user, "forming.tpm.1", "ann").await);
    info(&user, "forming", |info| info["seated"] == json!({ "tpm.1": "ann" })).await;

    // While nobody looks: a claim, claims that cannot be, a loss, a deadline.
    ask(&user, "COUNCIL.FORM.late", of("late", json!({ "deadline_s": 2 }))).await;
    world.stop_coordinator();
    assert!(claim(&user, "forming.developer.1", "bob").await);
    assert!(claim(&user, "dissolved.developer.1", "dan").await);
    assert!(claim(&user, "unknown.developer.1", "dan").await);
    user.kv_delete(BUCKET, "robbed.developer.1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    while statuses.try_next().is_some() {}
    let mut offers = listen(&user, "chorus.councils.forming").await;
    world.restart_coordinator().await;

    let told = BTreeMap::from([status_of(&mut statuses).await, status_of(&mut statuses).await]);
    assert_eq!(told, BTreeMap::from([("late".into(), "expired".into()), ("robbed".into(), "degraded".into())]));
    until_gone(&user, "dissolved.developer.1").await;
    until_gone(&user, "unknown.developer.1").await;
    next(&mut offers).await;
    info(&user, "formed", |info| info["status"] == "formed").await;
    assert_eq!(ask(&user, "COUNCIL.INFO.dissolved", Value::Null).await["status"], "dissolved");
    // The labels are there again, and the seat that is left can be taken.
    submit(&user, &[("Task-Id", "t"), ("Task-Requires", "council=formed,role=tpm")], b"work").await;
    let task = ann.pull().await;
    ann.complete(&task, b"done").await.unwrap();
    assert_eq!(await_result(&user, "t").await.unwrap(), b"done");
    assert!(claim(&user, "forming.developer.2", "cid").await);
    assert_eq!(status_of(&mut statuses).await, ("forming".into(), "formed".into()));
    assert!(claim(&user, "degraded.developer.1", "cid").await);
    assert_eq!(status_of(&mut statuses).await, ("degraded".into(), "formed".into()));

    // And through the end of the broker.
    world.restart_broker().await;
    tokio::time::timeout(LONG, async {
        // The coordinator is back once it answers.
        while user.request("$TASK.API.COUNCIL.LIST", b"", LONG / 20).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(ask(&user, "COUNCIL.INFO.forming", Value::Null).await["status"], "formed");
    user.kv_delete(BUCKET, "forming.developer.2").await.unwrap();
    info(&user, "forming", |info| info["status"] == "degraded").await;
    world.end().await;
}

async fn status_of(statuses: &mut Subscription) -> (String, String) {
    let (status, body) = status(statuses).await;
    (body["council"].as_str().unwrap().to_owned(), status)
}

#[tokio::test]
async fn what_cannot_be_formed_is_refused_with_its_reason() {
    let world = World::start().await;
    let user = world.client("user").await;
    for (body, code, reason) in [
        ("".to_owned(), 30400, "the body is an object"),
        ("{".to_owned(), 30400, "EOF"),
        ("[]".to_owned(), 30400, "the body is an object"),
        (with(terms(), json!({ "roles": {} })).to_string(), 30400, "no role"),
        (with(terms(), json!({ "quorum": 9 })).to_string(), 30400, "1 to 3"),
        (with(terms(), json!({ "rolls": 1 })).to_string(), 30400, "unknown field"),
        (with(terms(), json!({ "headers": { "Nats-Rollup": "all" } })).to_string(), 30400, "JetStream's own"),
        (with(terms(), json!({ "offer_to": "$JS.API.STREAM.DELETE.X" })).to_string(), 30400, "not below $"),
        (with(terms(), json!({ "offer_to": "alarms.fire" })).to_string(), 30403, "council_subjects"),
        (with(terms(), json!({ "status_to": "results.x" })).to_string(), 30403, "status_to"),
        (with(terms(), json!({ "body": "x".repeat(200_000) })).to_string(), 30400, "131072"),
    ] {
        let (found, answer) = call(&user, "COUNCIL.FORM.c1", &[], body.as_bytes()).await.unwrap_err();
        let description = answer["error"]["description"].as_str().unwrap();
        assert!(found == code && description.contains(reason), "{body:.200}: {answer}");
    }
    assert_eq!(call(&user, "COUNCIL.FORM.c*1", &[], b"{}").await.unwrap_err().0, 30400);
    assert_eq!(call(&user, "COUNCIL.DISSOLVE.c1", &[], b"").await.unwrap_err().0, 30440);
    assert_eq!(call(&user, "COUNCIL.LIST", &[], br#"{"status":"odd"}"#).await.unwrap_err().0, 30400);
    assert_eq!(ask(&user, "COUNCIL.LIST", Value::Null).await["total"], 0);
    // A council that somebody writes by hand is offered within the same bounds.
    ask(&user, "COUNCIL.FORM.c1", terms()).await;
    let mut alarms = listen(&user, "alarms.>").await;
    let stored = user.kv_get(BUCKET, "c1").await.unwrap().unwrap();
    let mut record: Value = serde_json::from_slice(&stored.value).unwrap();
    record["terms"]["offer_to"] = "alarms.fire".into();
    record["change"] = 7.into();
    user.kv_put(BUCKET, "c1", record.to_string().as_bytes()).await.unwrap();
    info(&user, "c1", |info| info["offer_to"] == "alarms.fire").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(alarms.try_next().is_none(), "an offer was sent where none may go");
    world.end().await;
}

#[tokio::test]
async fn agents_are_kept_as_they_describe_themselves() {
    let mut world = World::start_with(Settings { grace: Duration::from_millis(100), ..quick() }).await;
    let user = world.client("user").await;
    let card = json!({
        "name": "WHOOSH 1", "endpoint": "http://w1:8080", "status": "available", "capabilities": ["go", "review"],
        "model": "m1", "tasks_completed": 41, "p2p_addr": "/ip4/10.0.0.1/tcp/9000", "cluster_id": "pond",
        "last_seen": "1999-01-01T00:00:00Z", "zone": { "rack": 4 }, "id": "somebody else",
    });
    let one = Agent::register(world.client("w1").await, "w1", card.clone()).await;
    submit(&user, &[("Task-Id", "t")], b"").await;
    let task = one.pull().await;
    one.complete(&task, b"").await.unwrap();
    await_result(&user, "t").await.unwrap();
    let check = |shown: &Value| {
        for field in ["name", "endpoint", "capabilities", "model", "p2p_addr", "cluster_id", "zone"] {
            assert_eq!(shown[field], card[field], "{field}");
        }
        assert_eq!((&shown["id"], &shown["status"]), (&json!("w1"), &json!("online")));
        assert_eq!((&shown["tasks_completed"], &shown["completed"]), (&json!(42), &json!(42)));
        assert!(shown["last_seen"].as_str().unwrap() > "2026");
    };
    check(&ask(&user, "AGENT.INFO.w1", Value::Null).await);
    let _two = Agent::register(world.client("w2").await, "w2", json!({})).await;
    let _three = Agent::register(world.client("w3").await, "w3", json!({})).await;
    submit(&user, &[("Task-Id", "u")], b"").await;
    ask(&user, "AGENT.DRAIN.w3", Value::Null).await;
    let list = ask(&user, "AGENT.LIST", Value::Null).await;
    check(&list["agents"][0]);
    let counts = ["total", "available", "online", "draining", "offline"].map(|name| list[name].as_u64().unwrap());
    assert_eq!(counts, [3, 1, 2, 1, 0], "one of the three is at work, one drains");
    let page = ask(&user, "AGENT.LIST", json!({ "limit": 1, "after": "w1", "status": "online" })).await;
    assert_eq!((&page["agents"][0]["id"], &page["left"], &page["total"]), (&json!("w2"), &json!(0), &json!(3)));

    // The card in the bucket says the same before long, and so does the next coordinator.
    loop {
        let stored = user.kv_get("TASK_AGENTS", "w1").await.unwrap().unwrap();
        let stored: Value = serde_json::from_slice(&stored.value).unwrap();
        if stored["completed"] == 42 {
            check(&stored);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.restart_coordinator().await;
    check(&ask(&user, "AGENT.INFO.w1", Value::Null).await);
    let large = json!({ "notes": "x".repeat(20_000) });
    let refused = call(&user, "AGENT.REGISTER.w4", &[], large.to_string().as_bytes()).await.unwrap_err();
    assert_eq!(refused.0, 30413);
    world.end().await;
}

const ACCOUNTS: &str = r#"
accounts {
  A {
    jetstream: enabled
    coordinator { council_subjects: ["pond.>"] }
    exports: [ { service: "$TASK.API.COUNCIL.>" } ]
    users: [
      { user: all, password: p }
      { user: few, password: p, permissions: {
        publish: ["$TASK.API.COUNCIL.>", "pond.few.>"]
        subscribe: ["_INBOX.>", "pond.>"]
      } }
    ]
  }
  B {
    imports: [ { service: { account: A, subject: "$TASK.API.COUNCIL.>" } } ]
    users: [ { user: b, password: p } ]
  }
}
"#;

/// With our broker, which knows what the asker may do.
#[tokio::test]
async fn who_may_form_lends_no_rights_of_the_coordinator() {
    let world = Embedded::start(ACCOUNTS).await;
    let (all, few, b) = (world.user("all").await, world.user("few").await, world.user("b").await);
    let form = |offer_to: &str, status_to: &str| {
        json!({ "roles": { "a": 1 }, "offer_to": offer_to, "status_to": status_to }).to_string()
    };
    let denied = async |body: &str| {
        few.publish("$TASK.API.COUNCIL.FORM.x", body.as_bytes()).unwrap();
        few.flush().await.unwrap();
        few.last_error().unwrap_or_default()
    };
    for (body, subject) in [
        (form("pond.others", ""), "pond.others"),
        (form("pond.few.x", "pond.others2"), "pond.others2"),
        (r#"{"roles":{"a":1},"offer\u005fto":"pond.others3"}"#.to_owned(), "pond.others3"),
        (r#"["pond.others4"]"#.to_owned(), "$TASK.API.COUNCIL.FORM.x"),
        (r#"{"roles":{"a":1},"offer_to":"pond.few.x","offer_to":"pond.o"}"#.to_owned(), "$TASK.API.COUNCIL.FORM.x"),
    ] {
        let told = denied(&body).await;
        assert_eq!(told, format!("Permissions Violation for Publish to \"{subject}\""), "{body}");
    }
    assert_eq!(ask(&all, "COUNCIL.LIST", Value::Null).await["total"], 0, "nothing of it was formed");
    let mut offers = listen(&few, "pond.>").await;
    call(&few, "COUNCIL.FORM.mine", &[], form("pond.few.offer", "pond.few.status").as_bytes()).await.unwrap();
    assert_eq!(next(&mut offers).await.subject_str(), "pond.few.offer");
    call(&all, "COUNCIL.FORM.other", &[], form("pond.others", "").as_bytes()).await.unwrap();
    let outside = call(&all, "COUNCIL.FORM.wide", &[], form("chorus.councils.forming", "").as_bytes()).await;
    assert_eq!(outside.unwrap_err().0, 30403, "the account's administrator says where");

    // From another account one can look, and not have anything published.
    let refused = call(&b, "COUNCIL.FORM.far", &[], form("pond.far", "").as_bytes()).await.unwrap_err();
    assert_eq!(refused.0, 30403, "{}", refused.1);
    assert_eq!(ask(&b, "COUNCIL.INFO.mine", Value::Null).await["council"], "mine");
    world.server.stop().await;
}
