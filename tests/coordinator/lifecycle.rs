//! The life of tasks: submit to result, failure, retry, dead letter, cancel, requeue.

use std::time::Duration;

use natterjack::coordinator::Settings;
use natterjack::types::Headers;
use serde_json::{Value, json};

use super::agent::{Agent, ask, await_result, call, pull, submit, until};
use super::support::World;

fn phase(record: &Value) -> &str {
    record["phase"].as_str().unwrap()
}

#[tokio::test]
async fn a_task_flows_from_submit_to_result() {
    let world = World::start().await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "labels": ["lang=rust"], "slots": 2 })).await;
    assert_eq!(agent.card["stream"], "KV_TASK");
    let mut results = user.subscribe("results.42").unwrap();
    let mut events = user.subscribe("$TASK.E.TASK.t1").unwrap();
    user.flush().await.unwrap();

    let headers = [
        ("Task-Id", "t1"),
        ("Task-Requires", "lang=rust"),
        ("Task-Result-To", "results.42"),
        ("Task-Deadline", "1h"),
        ("traceparent", "00-1-2-01"),
    ];
    submit(&user, &headers, b"hello").await;
    let task = agent.pull().await;
    let header = |name: &str| task.headers().get_str(name).unwrap_or_default().to_owned();
    assert_eq!(task.payload(), b"hello");
    assert_eq!(task.subject(), b"$KV.TASK.a.ann.t1");
    assert_eq!(
        (header("Task-Id"), header("Task-Attempt"), header("traceparent")),
        ("t1".into(), "1".into(), "00-1-2-01".into())
    );
    assert!(header("Task-Complete").starts_with("$TASK.API.COMPLETE.t1.") && !header("Task-Deadline").is_empty());

    agent.ack(&task, "+WPI");
    until(&user, "t1", |record| phase(record) == "running").await;
    agent.complete(&task, b"olleh").await.unwrap();
    agent.complete(&task, b"olleh").await.expect("the same completion again is fine");
    assert_eq!(agent.complete(&task, b"other").await, Err(30409));
    assert_eq!(agent.fail(&task, b"too late").await, Err(30409));
    assert_eq!(await_result(&user, "t1").await.unwrap(), b"olleh");
    assert_eq!(results.next().await.unwrap().payload(), b"olleh");

    let record = ask(&user, "GET.t1", Value::Null).await;
    assert_eq!((phase(&record), &record["agent"], &record["attempt"]), ("completed", &json!("ann"), &json!(1)));
    let stored = user.kv_get("TASK", "s.t1").await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored.value).unwrap()["state"], "completed");
    assert_eq!(&user.kv_get("TASK", "r.t1").await.unwrap().unwrap().value[..], b"olleh");
    let mut phases = Vec::new();
    while phases.last().is_none_or(|last| last != "completed") {
        let event: Value = serde_json::from_slice(events.next().await.unwrap().payload()).unwrap();
        phases.push(event["phase"].as_str().unwrap().to_owned());
    }
    assert_eq!(phases.first().unwrap(), "assigned");
    world.end().await;
}

#[tokio::test]
async fn ids_are_idempotent_and_lists_and_services_show_what_is() {
    let world = World::start().await;
    let user = world.client("user").await;
    let body = |answer: &natterjack::client::Incoming| serde_json::from_slice::<Value>(answer.payload()).unwrap();
    let first = body(&call(&user, "SUBMIT", &[("Task-Id", "x")], b"one").await.unwrap());
    let again = body(&call(&user, "SUBMIT", &[("Task-Id", "x")], b"one").await.unwrap());
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(first["revision"], again["revision"]);
    let (code, error) = call(&user, "SUBMIT", &[("Task-Id", "x")], b"two").await.unwrap_err();
    assert_eq!((code, &error["type"]), (30411, &json!("io.natterjack.task.api.v1.submit_response")));
    assert_eq!(
        error["error"],
        json!({ "code": 409, "err_code": 30411, "description": "a task of this id has another body" })
    );
    for (headers, code) in [
        ([("Task-Id", "a.b")], 30400),
        ([("Task-Priority", "11")], 30400),
        ([("Task-Requires", "a>b")], 30400),
        ([("Task-After", "nobody")], 30424),
        ([("Task-Must-Match", "true")], 30412),
    ] {
        assert_eq!(call(&user, "SUBMIT", &headers, b"").await.unwrap_err().0, code, "{headers:?}");
    }
    for (name, code) in
        [("GET.nobody", 30404), ("AGENT.INFO.nobody", 30405), ("QUEUE.INFO.nobody", 30406), ("NO", 30400)]
    {
        let (found, error) = call(&user, name, &[], b"").await.unwrap_err();
        let kind = match name.split('.').collect::<Vec<_>>()[..] {
            [verb, "INFO", _] => format!("{verb}_INFO"),
            [verb, ..] => verb.to_owned(),
            [] => unreachable!(),
        };
        assert_eq!(error["type"], format!("io.natterjack.task.api.v1.{}_response", kind.to_lowercase()));
        assert_eq!(found, code, "{name}");
    }
    for n in 0..5 {
        submit(&user, &[("Task-Id", format!("n{n}").as_str()), ("Task-Queue", "other")], b"").await;
    }
    let page = ask(&user, "LIST", json!({ "queue": "other", "limit": 2 })).await;
    assert_eq!((&page["total"], page["tasks"].as_array().unwrap().len()), (&json!(5), 2));
    assert_eq!(page["tasks"][0]["id"], "n4");
    let next = ask(&user, "LIST", json!({ "queue": "other", "limit": 9, "after": "n3" })).await;
    assert_eq!(next["tasks"][0]["id"], "n2");
    assert_eq!(call(&user, "AWAIT.x", &[("Task-Wait", "10ms")], b"").await.unwrap_err().0, 30408);

    let info = user.request("$SRV.INFO.tasks", b"", super::agent::LONG).await.unwrap();
    let info: Value = serde_json::from_slice(info.payload()).unwrap();
    assert_eq!((&info["name"], &info["type"]), (&json!("tasks"), &json!("io.nats.micro.v1.info_response")));
    let stats = user.request("$SRV.STATS.tasks", b"", super::agent::LONG).await.unwrap();
    let stats: Value = serde_json::from_slice(stats.payload()).unwrap();
    assert!(stats["endpoints"][0]["num_requests"].as_u64().unwrap() >= 8, "{stats}");
    world.end().await;
}

#[tokio::test]
async fn the_same_submission_twice_at_once_is_one_and_changes_nothing() {
    let world = World::start().await;
    let user = world.client("user").await;
    let headers = [("Task-Id", "later"), ("Task-Not-Before", "1h")];
    let twice = || async {
        let answer = call(&user, "SUBMIT", &headers, b"body").await.unwrap();
        let answer: Value = serde_json::from_slice(answer.payload()).unwrap();
        (answer["phase"].clone(), answer["duplicate"].clone())
    };
    // The buckets are made with this one.
    call(&user, "SUBMIT", &[], b"").await.unwrap();
    let (first, second) = tokio::join!(twice(), twice());
    assert_eq!(first, (json!("scheduled"), json!(false)));
    assert_eq!(second, (json!("scheduled"), json!(true)), "it came while the first was on its way to the disk");
    world.end().await;
}

#[tokio::test]
async fn failures_retry_and_end_as_a_dead_letter_that_can_be_requeued() {
    let world = World::start().await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("bob").await, "bob", json!({})).await;
    let headers = [("Task-Id", "f"), ("Task-Max-Attempts", "3"), ("Task-Backoff", "10ms,20ms"), ("X-Request-ID", "7")];
    submit(&user, &headers, b"body").await;

    let first = agent.pull().await;
    agent.fail(&first, br#"{"error":"one","delay_ms":1}"#).await.unwrap();
    let second = agent.pull().await;
    assert_eq!(second.headers().get_str("Task-Attempt"), Some("2"));
    assert_eq!(agent.complete(&first, b"stale").await, Err(30409));
    agent.ack(&second, "-NAK {\"delay\": 1000000}");
    let third = agent.pull().await;
    assert_eq!(third.headers().get_str("Task-Attempt"), Some("3"));
    agent.fail(&third, b"three").await.unwrap();

    let (code, body) = await_result(&user, "f").await.unwrap_err();
    assert_eq!((code, &body["state"], &body["reason"]), (30425, &json!("failed"), &json!("attempts used")));
    let dead = user.last_message("KV_TASK", "$KV.TASK.d.default.f").await.unwrap().unwrap();
    let lines = Headers::new(&dead.headers);
    assert_eq!(&dead.payload[..], b"body");
    assert_eq!((lines.get_str("Task-Error"), lines.get_str("X-Request-ID")), (Some("three"), Some("7")));

    let again = ask(&user, "REQUEUE.f", json!({})).await;
    assert_eq!(again["state"], "submitted");
    let task = agent.pull().await;
    assert_eq!((task.headers().get_str("Task-Run"), task.headers().get_str("Task-Attempt")), (Some("2"), Some("1")));
    agent.ack(&task, "+TERM no use");
    let record = until(&user, "f", |record| phase(record) == "dead").await;
    assert_eq!((&record["reason"], &record["attempt"]), (&json!("no use"), &json!(1)));
    assert_eq!(call(&user, "REQUEUE.f", &[], b"").await.map(drop).map_err(|error| error.0), Ok(()));
    let task = agent.pull().await;
    agent.complete(&task, b"done").await.unwrap();
    assert_eq!(call(&user, "REQUEUE.f", &[], b"").await.unwrap_err().0, 30410);
    world.end().await;
}

#[tokio::test]
async fn cancel_reaches_queued_and_running_tasks() {
    let world = World::start().await;
    let user = world.client("user").await;
    submit(&user, &[("Task-Id", "q")], b"").await;
    assert_eq!(ask(&user, "CANCEL.q", json!({ "reason": "no more" })).await["state"], "canceled");
    assert_eq!(ask(&user, "CANCEL.q", json!({})).await["state"], "canceled");

    let agent = Agent::register(world.client("cyd").await, "cyd", json!({ "slots": 2 })).await;
    let mut control = agent.client.subscribe("$TASK.X.cyd").unwrap();
    agent.client.flush().await.unwrap();
    submit(&user, &[("Task-Id", "r")], b"").await;
    let task = agent.pull().await;
    agent.ack(&task, "+WPI");
    until(&user, "r", |record| phase(record) == "running").await;
    assert_eq!(ask(&user, "CANCEL.r", json!({ "reason": "stop" })).await["phase"], "cancelling");
    let order: Value = serde_json::from_slice(control.next().await.unwrap().payload()).unwrap();
    assert_eq!((&order["op"], &order["task"]), (&json!("cancel"), &json!("r")));
    assert_eq!(order["grace_s"], 0.3, "for so long it may still speak");
    agent.fail(&task, b"stopped").await.unwrap();
    let record = until(&user, "r", |record| phase(record) == "canceled").await;
    assert_eq!(record["reason"], "stop");

    // It may have been done before it heard of it.
    submit(&user, &[("Task-Id", "done")], b"").await;
    let task = agent.pull().await;
    agent.ack(&task, "+WPI");
    until(&user, "done", |record| phase(record) == "running").await;
    assert_eq!(ask(&user, "CANCEL.done", json!({})).await["phase"], "cancelling");
    agent.complete(&task, b"all the same").await.unwrap();
    assert_eq!(await_result(&user, "done").await.unwrap(), b"all the same");
    assert_eq!(call(&user, "CANCEL.done", &[], b"").await.unwrap_err().0, 30410);

    // The grace ends without a word from the agent, and the lease is revoked.
    submit(&user, &[("Task-Id", "s")], b"").await;
    let task = agent.pull().await;
    agent.ack(&task, "+WPI");
    until(&user, "s", |record| phase(record) == "running").await;
    ask(&user, "CANCEL.s", json!({})).await;
    until(&user, "s", |record| phase(record) == "canceled").await;
    assert_eq!(agent.complete(&task, b"").await, Err(30409));
    world.end().await;
}

#[tokio::test]
async fn a_forced_cancel_of_a_running_task_waits_for_nobody() {
    // The agent would have longer than this test.
    let settings = Settings { cancel_grace: Duration::from_secs(3600), ..super::support::quick() };
    let world = World::start_with(settings).await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("cyd").await, "cyd", json!({})).await;
    let mut control = agent.client.subscribe("$TASK.X.cyd").unwrap();
    agent.client.flush().await.unwrap();
    for (id, waits) in [("at-once", false), ("after-all", true)] {
        submit(&user, &[("Task-Id", id)], b"").await;
        let task = agent.pull().await;
        agent.ack(&task, "+WPI");
        until(&user, id, |record| phase(record) == "running").await;
        if waits {
            assert_eq!(ask(&user, &format!("CANCEL.{id}"), json!({})).await["phase"], "cancelling");
            control.next().await.unwrap();
        }
        let forced = json!({ "reason": "now", "force": true });
        assert_eq!(ask(&user, &format!("CANCEL.{id}"), forced).await["phase"], "canceled");
        assert_eq!(ask(&user, &format!("GET.{id}"), Value::Null).await["reason"], "now");
        assert_eq!(agent.complete(&task, b"").await, Err(30409), "its lease is worth nothing");
        if !waits {
            let order: Value = serde_json::from_slice(control.next().await.unwrap().payload()).unwrap();
            assert_eq!((&order["op"], &order["task"]), (&json!("cancel"), &json!(id)), "it is told to stop");
        }
        assert_eq!(ask(&user, "AGENT.INFO.cyd", Value::Null).await["tasks"], json!([]), "its slot is free");
    }
    world.end().await;
}

#[tokio::test]
async fn a_pull_queue_needs_nothing_but_pull_and_ack() {
    let world = World::start().await;
    let user = world.client("user").await;
    let worker = world.client("worker").await;
    let queue = json!({ "mode": "pull", "max_attempts": 2, "lease_s": 0.3 });
    let queue = ask(&user, "QUEUE.PUT.p", queue).await;
    assert_eq!(queue["consumer"], "queue_p");
    for id in ["ok", "term", "crash", "result"] {
        submit(&user, &[("Task-Id", id), ("Task-Queue", "p")], id.as_bytes()).await;
    }
    // One worker that does as each body says, until all are finished.
    let worker = tokio::spawn(async move {
        let mut naked = false;
        loop {
            let task = pull(&worker, "queue_p").await;
            let word: &[u8] = match task.payload() {
                b"ok" if !naked => {
                    naked = true;
                    b"-NAK"
                }
                b"term" => b"+TERM",
                b"crash" => continue,
                b"result" => {
                    let subject = task.headers().get_str("Task-Complete").unwrap();
                    worker.publish(subject, b"42").unwrap();
                    b"+ACK"
                }
                _ => b"+ACK",
            };
            worker.publish_message(task.reply(), b"", b"", word).unwrap();
        }
    });
    assert_eq!(await_result(&user, "ok").await.unwrap(), b"");
    assert_eq!(await_result(&user, "result").await.unwrap(), b"42");
    assert_eq!(await_result(&user, "term").await.unwrap_err().1["reason"], "terminated");
    assert_eq!(await_result(&user, "crash").await.unwrap_err().1["reason"], "deliveries used");
    let dead = user.last_message("KV_TASK", "$KV.TASK.d.p.crash").await.unwrap().unwrap();
    assert_eq!(&dead.payload[..], b"crash");
    worker.abort();
    world.end().await;
}

#[tokio::test]
async fn declining_excludes_and_the_last_decline_rejects() {
    let world = World::start().await;
    let user = world.client("user").await;
    let one = Agent::register(world.client("one").await, "one", json!({})).await;
    submit(&user, &[("Task-Id", "d")], b"").await;
    let task = one.pull().await;
    let two = Agent::register(world.client("two").await, "two", json!({})).await;
    one.decline(&task).await.unwrap();
    let task = two.pull().await;
    assert_eq!(task.headers().get_str("Task-Attempt"), Some("1"), "a decline is no attempt");
    two.decline(&task).await.unwrap();
    until(&user, "d", |record| phase(record) == "rejected").await;
    let listed = ask(&user, "AGENT.LIST", Value::Null).await;
    assert_eq!((&listed["total"], &listed["available"]), (&json!(2), &json!(2)));
    ask(&user, "AGENT.DRAIN.one", Value::Null).await;
    assert_eq!(ask(&user, "AGENT.INFO.one", Value::Null).await["status"], "draining");
    ask(&user, "AGENT.REMOVE.one", Value::Null).await;
    assert_eq!(call(&user, "AGENT.INFO.one", &[], b"").await.unwrap_err().0, 30405);
    world.end().await;
}

#[tokio::test]
async fn leases_expire_and_signs_of_life_extend_them() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.quick", json!({ "lease_s": 1.5, "backoff": [0.01] })).await;
    let agent = Agent::register(world.client("dee").await, "dee", json!({ "queues": ["quick"] })).await;
    submit(&user, &[("Task-Id", "l"), ("Task-Queue", "quick")], b"").await;
    let task = agent.pull().await;
    // Alive by two kinds of signs for more than twice the lease, then silent.
    for n in 0..12 {
        match n % 2 {
            0 => agent.ack(&task, "+WPI"),
            _ => agent.client.publish("$TASK.P.l", b"chunk").unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let record = ask(&user, "GET.l", Value::Null).await;
    assert_eq!((phase(&record), &record["attempt"]), ("running", &json!(1)));
    let again = agent.pull().await;
    assert_eq!(again.headers().get_str("Task-Attempt"), Some("2"));
    assert_eq!(ask(&user, "GET.l", Value::Null).await["fault"]["error"], "lease expired");
    assert_eq!(agent.complete(&task, b"stale").await, Err(30409));
    agent.complete(&again, b"ok").await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn agents_are_told_how_long_their_leases_last() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.slow", json!({ "lease_s": 90 })).await;
    ask(&user, "QUEUE.PUT.quick", json!({ "lease_s": 5 })).await;
    ask(&user, "QUEUE.PUT.helpless", json!({ "mode": "pull", "lease_s": 0.5 })).await;
    let told = async |agent: &str, queues: Value| {
        ask(&user, &format!("AGENT.REGISTER.{agent}"), json!({ "queues": queues })).await["lease_s"].clone()
    };
    assert_eq!(told("one", json!(["slow"])).await, json!(90.0));
    assert_eq!(told("both", json!(["slow", "quick"])).await, json!(5.0), "the shortest, wherever it stands");
    assert_eq!(told("new", json!(["slow", "new"])).await, json!(30.0), "the default of a queue never set up");
    assert_eq!(told("all", json!(["*"])).await, json!(5.0), "what workers pull themselves is no agent's");
    for agent in ["one", "both", "new", "all"] {
        ask(&user, &format!("AGENT.REMOVE.{agent}"), Value::Null).await;
    }

    // Each delivery says it for its queue.
    let agent = Agent::register(world.client("dee").await, "dee", json!({ "queues": ["*"], "slots": 9 })).await;
    for (queue, lease) in [("slow", "90"), ("quick", "5"), ("new", "30")] {
        submit(&user, &[("Task-Queue", queue)], b"").await;
        let task = agent.pull().await;
        assert_eq!(task.headers().get_str("Task-Lease"), Some(lease), "{queue}");
        agent.complete(&task, b"").await.unwrap();
    }
    ask(&user, "QUEUE.PUT.quick", json!({ "lease_s": 0.5 })).await;
    submit(&user, &[("Task-Queue", "quick"), ("Task-Lease", "7")], b"").await;
    assert_eq!(agent.pull().await.headers().get_str("Task-Lease"), Some("0.5"), "as the queue is now");
    world.end().await;
}

#[tokio::test]
async fn agents_that_do_not_fetch_or_vanish_lose_their_tasks() {
    let settings = Settings {
        accept_timeout: Duration::from_millis(300),
        heartbeat: Duration::from_millis(200),
        ..super::support::quick()
    };
    let world = World::start_with(settings).await;
    let user = world.client("user").await;
    let lazy = Agent::register(world.client("lazy").await, "lazy", json!({})).await;
    submit(&user, &[("Task-Id", "v")], b"").await;
    until(&user, "v", |record| record["agent"] == "lazy").await;
    // It never fetches: after the accept timeout the task is free for the one who does.
    let good = Agent::register(world.client("good").await, "good", json!({})).await;
    let task = good.pull().await;
    assert_eq!(task.headers().get_str("Task-Attempt"), Some("1"), "an assignment that lay is no attempt");
    // It beats, then stops: three missed heartbeats end it, with its tasks.
    good.client.publish("$TASK.HB.good", b"").unwrap();
    let third = Agent::register(world.client("third").await, "third", json!({})).await;
    let task = third.pull().await;
    assert_eq!(task.headers().get_str("Task-Attempt"), Some("2"));
    assert_eq!(ask(&user, "AGENT.INFO.good", Value::Null).await["status"], "offline");
    third.complete(&task, b"done").await.unwrap();
    drop(lazy);
    world.end().await;
}

#[tokio::test]
async fn whoever_waits_for_a_result_hears_of_a_cancel_and_a_rejection() {
    let world = World::start().await;
    let user = world.client("user").await;
    let mut results = user.subscribe("results.>").unwrap();
    user.flush().await.unwrap();
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "queues": ["run"] })).await;
    submit(&user, &[("Task-Id", "declined"), ("Task-Queue", "run"), ("Task-Result-To", "results.d")], b"").await;
    let task = agent.pull().await;
    agent.decline(&task).await.unwrap();
    submit(&user, &[("Task-Id", "unwanted"), ("Task-Queue", "wait"), ("Task-Result-To", "results.u")], b"").await;
    ask(&user, "CANCEL.unwanted", json!({ "reason": "enough" })).await;
    for (subject, state) in [("results.d", "rejected"), ("results.u", "canceled")] {
        let result = tokio::time::timeout(super::agent::LONG, results.next()).await.expect("a result").unwrap();
        assert_eq!((result.subject_str(), result.headers().get_str("Task-State")), (subject, Some(state)));
        let record: Value = serde_json::from_slice(result.payload()).unwrap();
        assert_eq!(record["state"], state);
    }
    until(&user, "unwanted", |record| record["result_due"].is_null()).await;
    world.end().await;
}

#[tokio::test]
async fn a_body_or_result_above_the_limit_is_too_large_at_every_try() {
    let world = World::configured("max_payload: 65536\n").await;
    let user = world.client("user").await;
    let large = vec![b'x'; (32 << 10) + 1];
    assert_eq!(call(&user, "SUBMIT", &[("Task-Id", "t")], &large).await.unwrap_err().0, 30413);
    let agent = Agent::register(world.client("ann").await, "ann", json!({})).await;
    submit(&user, &[("Task-Id", "t")], &large[1..]).await;
    let task = agent.pull().await;
    assert_eq!(agent.complete(&task, &large).await.unwrap_err(), 30413);
    agent.complete(&task, &large[1..]).await.unwrap();
    assert_eq!(await_result(&user, "t").await.unwrap(), &large[1..]);
    world.end().await;
}

#[tokio::test]
async fn finished_tasks_are_purged_after_the_retention_their_queue_has_by_then() {
    let world = World::start().await;
    let user = world.client("user").await;
    let agent = Agent::register(world.client("ann").await, "ann", json!({ "queues": ["week", "short"] })).await;
    ask(&user, "QUEUE.PUT.short", json!({ "retention_s": 0.2 })).await;
    for queue in ["week", "short"] {
        submit(&user, &[("Task-Id", queue), ("Task-Queue", queue)], b"").await;
        let task = agent.pull().await;
        agent.complete(&task, b"done").await.unwrap();
    }
    let gone = async |id: &str| {
        for key in ["s", "p", "r"] {
            while user.last_message("KV_TASK", &format!("$KV.TASK.{key}.{id}")).await.unwrap().is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        assert_eq!(call(&user, &format!("GET.{id}"), &[], b"").await.unwrap_err().0, 30404);
    };
    tokio::time::timeout(super::agent::LONG, gone("short")).await.expect("its time is over");
    assert_eq!(ask(&user, "GET.week", Value::Null).await["state"], "completed");
    // What has finished already goes by the new setting.
    ask(&user, "QUEUE.PUT.week", json!({ "retention_s": 0.1 })).await;
    tokio::time::timeout(super::agent::LONG, gone("week")).await.expect("its time is over, too");
    world.end().await;
}
