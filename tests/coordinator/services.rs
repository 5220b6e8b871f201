//! Micro services (ADR-32) as workers: they are found by their metadata, the request is the lease, the response completes.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use natterjack::client::{Client, ClientError, Incoming, Subscription};
use serde_json::{Value, json};

use super::agent::{LONG, ask, await_result, call, submit, until};
use super::support::World;
use super::tools::toolchain::{self, clients_dir, or_skip};

fn metadata(queue: &str, slots: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("task.queue".to_owned(), queue.to_owned()), ("task.slots".to_owned(), slots.to_owned())])
}

/// Instances of `sleep` that tell how many requests they had in hand at most.
async fn sleeper(url: &str, most: Arc<AtomicUsize>) -> async_nats::service::Service {
    use async_nats::service::ServiceExt as _;
    let client = async_nats::connect(url).await.unwrap();
    let service = client
        .service_builder()
        .metadata(metadata("nap", "2").into_iter().collect())
        .start("sleep", "1.0.0")
        .await
        .unwrap();
    let mut endpoint = service.endpoint("sleep.run").await.unwrap();
    let now = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Some(request) = endpoint.next().await {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let now = now.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let mut body = request.message.payload.to_vec();
                body.reverse();
                now.fetch_sub(1, Ordering::SeqCst);
                request.respond(Ok(body.into())).await.unwrap();
            });
        }
    });
    service
}

#[tokio::test]
async fn instances_of_async_nats_share_the_work_within_their_slots() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.nap", json!({ "mode": "service" })).await;
    // Submitted before anybody is there.
    submit(&user, &[("Task-Id", "t0"), ("Task-Queue", "nap")], b"0t").await;
    let most = Arc::new(AtomicUsize::new(0));
    let services = [sleeper(&world.url(), most.clone()).await, sleeper(&world.url(), most.clone()).await];
    assert_eq!(await_result(&user, "t0").await.unwrap(), b"t0");
    // Both are known once there are four slots.
    while ask(&user, "QUEUE.INFO.nap", Value::Null).await["services"][0]["slots"] != 4 {
        submit(&user, &[("Task-Queue", "nap")], b"x").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for n in 1..60 {
        let id = format!("t{n}");
        submit(&user, &[("Task-Id", &id), ("Task-Queue", "nap")], id.as_bytes()).await;
    }
    for n in 1..60 {
        let expected: Vec<u8> = format!("t{n}").bytes().rev().collect();
        assert_eq!(await_result(&user, &format!("t{n}")).await.unwrap(), expected);
    }
    assert!((1..=4).contains(&most.load(Ordering::SeqCst)), "slots times instances bound what is in hand");
    let listed = ask(&user, "AGENT.LIST", Value::Null).await;
    let agent = &listed["agents"][0];
    assert_eq!((&agent["micro"]["service"], &agent["micro"]["instances"]), (&json!("sleep"), &json!(2)));
    assert_eq!(
        call(&user, &format!("AGENT.REGISTER.{}", agent["id"].as_str().unwrap()), &[], b"").await.unwrap_err().0,
        30400
    );
    for service in services {
        service.stop().await.unwrap();
    }
    world.end().await;
}

/// A service made by hand, to answer when and how the test wants.
struct ByHand {
    client: Client,
    requests: Subscription,
    info: tokio::task::JoinHandle<()>,
}

impl ByHand {
    async fn start(client: Client, slots: &str) -> ByHand {
        let mut asked = client.subscribe("$SRV.INFO").unwrap();
        let requests = client.subscribe_with("hand.run", Some("q"), 64).unwrap();
        let answering = client.clone();
        let info = json!({
            "type": "io.nats.micro.v1.info_response", "name": "hand", "id": "H1", "version": "1.0.0",
            "metadata": metadata("q,brief", slots),
            "endpoints": [{ "name": "run", "subject": "hand.run", "queue_group": "q", "metadata": {} }],
        });
        client.flush().await.unwrap();
        let info = tokio::spawn(async move {
            while let Some(question) = asked.next().await {
                answering.publish_message(question.reply(), b"", b"", info.to_string().as_bytes()).unwrap();
            }
        });
        ByHand { client, requests, info }
    }

    async fn next(&mut self) -> Incoming {
        tokio::time::timeout(Duration::from_secs(20), self.requests.next()).await.expect("a request").unwrap()
    }

    async fn respond(&self, request: &Incoming, body: &[u8]) {
        self.client.publish_message(request.reply(), b"", b"", body).unwrap();
        self.client.flush().await.unwrap();
    }

    async fn refuse(&self, request: &Incoming, code: &str) {
        let headers = format!("NATS/1.0\r\nNats-Service-Error: no luck\r\nNats-Service-Error-Code: {code}\r\n\r\n");
        self.client.publish_message(request.reply(), b"", headers.as_bytes(), b"").unwrap();
        self.client.flush().await.unwrap();
    }
}

#[tokio::test]
async fn errors_tell_whether_to_try_again() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.q", json!({ "mode": "service", "backoff": [0.01] })).await;
    let mut service = ByHand::start(world.client("hand").await, "1").await;
    let lines = [("Task-Id", "t"), ("Task-Queue", "q"), ("X-Request-ID", "r-1")];
    submit(&user, &lines, b"work").await;
    for (attempt, code) in ["500", "429", "none of yours"].iter().enumerate() {
        let request = service.next().await;
        let headers = request.headers();
        assert_eq!(headers.get_str("Task-Attempt"), Some(&*(attempt + 1).to_string()));
        assert_eq!((headers.get_str("X-Request-ID"), request.payload()), (Some("r-1"), &b"work"[..]));
        service.refuse(&request, code).await;
    }
    let request = service.next().await;
    until(&user, "t", |record| record["state"] == "working").await;
    let headers = b"NATS/1.0\r\nX-Took: 3\r\n\r\n";
    service.client.publish_message(request.reply(), b"", headers, b"done").unwrap();
    let result = call(&user, "AWAIT.t", &[], b"").await.unwrap();
    assert_eq!((result.payload(), result.headers().get_str("X-Took")), (&b"done"[..], Some("3")));
    submit(&user, &[("Task-Id", "bad"), ("Task-Queue", "q")], b"bad").await;
    let request = service.next().await;
    service.refuse(&request, "422").await;
    let (_, record) = await_result(&user, "bad").await.unwrap_err();
    assert_eq!((&record["phase"], &record["attempt"]), (&json!("dead"), &json!(1)));
    assert_eq!(record["fault"]["error"], "422 no luck");
    let letter = call(&user, "DLQ.GET.q.bad", &[], b"").await.unwrap();
    assert_eq!(letter.payload(), b"bad");
    world.end().await;
}

#[tokio::test]
async fn a_late_response_of_an_older_attempt_completes_nothing() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.q", json!({ "mode": "service", "lease_s": 0.3, "backoff": [0.01] })).await;
    let mut service = ByHand::start(world.client("hand").await, "1").await;
    submit(&user, &[("Task-Id", "t"), ("Task-Queue", "q")], b"work").await;
    let first = service.next().await;
    let second = service.next().await;
    assert_ne!(first.reply(), second.reply());
    assert_eq!(ask(&user, "GET.t", Value::Null).await["fault"]["error"], "lease expired");
    service.respond(&first, b"late").await;
    service.refuse(&first, "400").await;
    service.respond(&second, b"in time").await;
    service.respond(&second, b"twice").await;
    assert_eq!(await_result(&user, "t").await.unwrap(), b"in time");
    let record = ask(&user, "GET.t", Value::Null).await;
    assert_eq!((&record["attempt"], &record["state"]), (&json!(2), &json!("completed")));
    world.end().await;
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_no_attempt() {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.q", json!({ "mode": "service", "max_attempts": 1 })).await;
    let service = ByHand::start(world.client("hand").await, "1").await;
    let known = |info: &Value| info["services"][0]["status"] == "online";
    while !known(&ask(&user, "QUEUE.INFO.q", Value::Null).await) {
        // A task makes it look at once.
        submit(&user, &[("Task-Id", "t"), ("Task-Queue", "q"), ("Task-Requires", "nobody")], b"").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // It still says that it is there, but nobody listens at its endpoint.
    let ByHand { client, requests, info } = service;
    drop(requests);
    client.flush().await.unwrap();
    let mut events = user.subscribe("$TASK.E.TASK.u").unwrap();
    submit(&user, &[("Task-Id", "u"), ("Task-Queue", "q")], b"back").await;
    let mut assigned = 0;
    while assigned < 2 {
        let event: Value = serde_json::from_slice(events.next().await.unwrap().payload()).unwrap();
        assigned += usize::from(event["phase"] == "assigned");
        assert!(["queued", "assigned"].contains(&event["phase"].as_str().unwrap()), "{event}");
    }
    let mut requests = client.subscribe_with("hand.run", Some("q"), 8).unwrap();
    let request = requests.next().await.unwrap();
    assert_eq!(request.headers().get_str("Task-Attempt"), Some("1"));
    client.publish_message(request.reply(), b"", b"", b"here").unwrap();
    assert_eq!(await_result(&user, "u").await.unwrap(), b"here");
    info.abort();
    world.end().await;
}

#[tokio::test]
async fn answers_find_their_tasks_through_a_restart_of_the_coordinator() {
    let mut world = World::start().await;
    let user = world.client("user").await;
    // One has all the time that a restart on a busy machine takes, the other's is over soon.
    for (queue, lease_s) in [("q", 120.0), ("brief", 5.0)] {
        let settings = json!({ "mode": "service", "lease_s": lease_s, "backoff": [0.01] });
        ask(&user, &format!("QUEUE.PUT.{queue}"), settings).await;
    }
    let mut service = ByHand::start(world.client("hand").await, "2").await;
    submit(&user, &[("Task-Id", "kept"), ("Task-Queue", "q")], b"kept").await;
    submit(&user, &[("Task-Id", "lost"), ("Task-Queue", "brief")], b"lost").await;
    let (one, other) = (service.next().await, service.next().await);
    let (kept, lost) = if one.payload() == b"kept" { (one, other) } else { (other, one) };
    world.stop_coordinator();
    while !matches!(user.request("$TASK.API.QUEUE.LIST", b"", LONG).await, Err(ClientError::NoResponders { .. })) {}
    // An answer while nobody hears it is lost, and the lease ends.
    service.respond(&lost, b"unheard").await;
    world.restart_coordinator().await;
    service.respond(&kept, b"heard").await;
    assert_eq!(await_result(&user, "kept").await.unwrap(), b"heard");
    let again = service.next().await;
    assert_eq!((again.payload(), again.headers().get_str("Task-Attempt")), (&b"lost"[..], Some("2")));
    service.respond(&lost, b"too late").await;
    service.respond(&again, b"again").await;
    assert_eq!(await_result(&user, "lost").await.unwrap(), b"again");
    let results: Value = user.api("STREAM.INFO.KV_TASK", &json!({ "subjects_filter": "$KV.TASK.r.>" })).await.unwrap();
    assert_eq!(results["state"]["subjects"], json!({ "$KV.TASK.r.kept": 1, "$KV.TASK.r.lost": 1 }));
    world.end().await;
}

/// A service in a language of its own; killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn in_its_own_language(mut command: Command, lang: &str) {
    let world = World::start().await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.words", json!({ "mode": "service" })).await;
    let program = Program(command.env("NATS_URL", world.url()).stdin(Stdio::piped()).spawn().unwrap());
    let requires = format!("lang={lang}");
    for n in 0..20 {
        let id = format!("w{n}");
        submit(&user, &[("Task-Id", &id), ("Task-Queue", "words"), ("Task-Requires", &requires)], id.as_bytes()).await;
    }
    submit(&user, &[("Task-Id", "bad"), ("Task-Queue", "words")], b"bad").await;
    for n in 0..20 {
        let result = call(&user, &format!("AWAIT.w{n}"), &[], b"").await.unwrap();
        assert_eq!(result.payload(), format!("W{n}").as_bytes());
        assert_eq!(result.headers().get_str("X-By"), Some(&*format!("w{n}")));
    }
    let (_, record) = await_result(&user, "bad").await.unwrap_err();
    assert_eq!((&record["fault"]["error"], &record["attempt"]), (&json!("422 no word"), &json!(1)));
    drop(program);
    world.end().await;
}

#[tokio::test]
async fn a_service_of_nats_py_is_a_worker() {
    if let Some(python) = or_skip("services of nats-py", toolchain::python("latest")) {
        let mut command = Command::new(python);
        command.arg("-u").arg(clients_dir().join("python").join("service.py"));
        in_its_own_language(command, "python").await;
    }
}

#[tokio::test]
async fn a_service_of_nats_go_is_a_worker() {
    if let Some(program) = or_skip("services of nats.go", toolchain::go("go-service")) {
        in_its_own_language(Command::new(program), "go").await;
    }
}

#[tokio::test]
async fn a_services_answer_above_the_limit_fails_its_task_for_good() {
    use async_nats::service::ServiceExt as _;
    let world = World::configured("max_payload: 65536\n").await;
    let user = world.client("user").await;
    ask(&user, "QUEUE.PUT.big", json!({ "mode": "service" })).await;
    let client = async_nats::connect(world.url()).await.unwrap();
    let builder = client.service_builder().metadata(metadata("big", "1").into_iter().collect());
    let service = builder.start("big", "1.0.0").await.unwrap();
    let mut endpoint = service.endpoint("big.run").await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = endpoint.next().await {
            request.respond(Ok(vec![b'x'; (32 << 10) + 1].into())).await.unwrap();
        }
    });
    submit(&user, &[("Task-Id", "t"), ("Task-Queue", "big")], b"").await;
    let record = until(&user, "t", |record| record["phase"] == "dead").await;
    assert_eq!(
        (&record["attempt"], record["fault"]["error"].as_str().unwrap().starts_with("413 too large")),
        (&json!(1), true)
    );
    world.end().await;
}
