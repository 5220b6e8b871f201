//! `natterjack doctor`: each trap, planted, is seen, and what to do about it is said; a broker without any is clean. It looks at
//! the real nats-server, too.

use std::time::Duration;

use natterjack::client::Client;
use serde_json::{Value, json};

use super::support::{Ended, World};
use super::tools::server::{Program, Server};
use super::tools::{nats_server, toolchain};

/// What is to be done about each, in a few of the doctor's words.
const ADVICE: &[(&str, &str)] = &[
    ("ack-before-sync", "sync_interval: always"),
    ("agent-offline", "natterjack agent rm srv_"),
    ("backoff", "NakWithDelay"),
    ("dead-letters", "natterjack dlq requeue build"),
    ("dead-worker-waits", "Set ack_wait to a few seconds"),
    ("deliveries-used", "nats stream get"),
    ("given-up", "nats stream get"),
    ("long-ack-wait", "Set ack_wait to some seconds"),
    ("memory-durable", "--storage file"),
    ("missed-while-away", "with a durable consumer"),
    ("no-coordinator", "natterjack coordinator --server URL"),
    ("no-dead-letters", "MAX_DELIVERIES.> in a stream"),
    ("nobody-can-run", "natterjack task explain"),
    ("nobody-pulls", "Start its workers"),
    ("not-stored", "store the subject in a stream"),
    ("paused", "natterjack queue resume build"),
    ("puback-for-service", "set no_ack on the stream"),
    ("push-copies", "Make one durable pull consumer"),
    ("push-ephemeral", "Make one durable pull consumer"),
    ("redelivered", "send +WPI (in_progress)"),
    ("retry-count", "set max_deliver"),
    ("stale-ack", "Make the work safe to do twice"),
    ("terminated", "nats stream get"),
    ("unbounded", "max_age, max_bytes or max_msgs"),
    ("workqueue-without-consumer", "nats consumer add --pull"),
];

#[derive(Debug)]
struct Finding {
    check: String,
    severity: String,
    text: String,
    advice: String,
}

/// What the doctor found.
struct Report {
    code: Option<i32>,
    findings: Vec<Finding>,
}

impl Report {
    fn of(ended: Ended) -> Report {
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
        let findings = report["findings"].as_array().unwrap().iter();
        let read = |one: &Value| {
            let [check, severity, text, advice] = ["check", "severity", "text", "advice"].map(|field| text(one, field));
            Finding { check, severity, text, advice }
        };
        Report { code: ended.code, findings: findings.map(read).collect() }
    }

    /// What is said of it, with what to do about it; the exit code is that of the worst there is.
    #[track_caller]
    fn has(&self, check: &str, severity: &str) -> &str {
        let found = self.findings.iter().find(|finding| finding.check == check);
        let found = found.unwrap_or_else(|| panic!("no {check} in {:?}", self.findings));
        assert_eq!(found.severity, severity, "{check}");
        let (_, advice) = ADVICE.iter().find(|(known, _)| *known == check).expect("what to do is in the table");
        assert!(found.advice.contains(advice), "{found:?}");
        let any = |severity: &str| self.findings.iter().any(|finding| finding.severity == severity);
        assert_eq!(self.code, Some(if any("problem") { 6 } else { i32::from(any("warning")) }));
        &found.text
    }

    #[track_caller]
    fn lacks(&self, check: &str) {
        assert!(self.findings.iter().all(|finding| finding.check != check), "{:?}", self.findings);
    }
}

async fn examine(world: &World) -> Report {
    let monitor = format!("http://{}", world.server.monitor_address().unwrap());
    Report::of(world.run(&["doctor", "--json", "--listen", "300ms", "--monitor", &monitor]).await)
}

async fn stream(client: &Client, config: Value) {
    client.create_stream(&config).await.unwrap();
}

async fn consumer(client: &Client, stream: &str, config: Value) {
    let mut config = config;
    if config["ack_policy"].is_null() {
        config["ack_policy"] = "explicit".into();
    }
    let name = config["name"].as_str().unwrap().to_owned();
    let body = json!({ "stream_name": stream, "config": config });
    let _: Value = client.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &body).await.unwrap();
}

async fn store(client: &Client, subject: &str, times: usize) {
    for _ in 0..times {
        client.publish_stored(subject, &[], b"x").unwrap().await.unwrap();
    }
}

/// Fetches one message of a consumer and answers it with an ack's word.
async fn fetch(client: &Client, stream: &str, consumer: &str, word: &[u8]) {
    let task = client.puller(stream, consumer, 1).unwrap().next().await.unwrap();
    client.publish_message(task.reply(), b"", b"", word).unwrap();
    client.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_traps_is_clean() {
    let world = World::start().await;
    let client = world.client("user").await;
    stream(&client, json!({"name": "TASKS", "subjects": ["tasks.>"], "retention": "workqueue"})).await;
    consumer(&client, "TASKS", json!({"name": "workers", "durable_name": "workers"})).await;
    store(&client, "tasks.a", 3).await;
    let _worker = client.puller("TASKS", "workers", 1).unwrap();
    fetch(&client, "TASKS", "workers", b"+ACK").await;
    let _: Value = serde_json::from_slice(
        client.request("$TASK.API.AGENT.REGISTER.ada", b"{}", Duration::from_secs(10)).await.unwrap().payload(),
    )
    .unwrap();
    world.run(&["task", "submit", "x"]).await.fine();
    let mut working = client.puller("TASKS", "workers", 1).unwrap();
    let _held = working.next().await.unwrap();
    let report = examine(&world).await;
    // Work is out with the usual ack_wait, which is worth a note.
    let text = report.has("dead-worker-waits", "note");
    assert!(text.starts_with("1 messages are out.") && text.contains("they wait 30s"), "{text}");
    assert_eq!((report.code, report.findings.len()), (Some(0), 1), "{:?}", report.findings);
    let told = world.run(&["doctor", "--listen", "100ms"]).await.fine();
    assert!(told.contains("Nothing is wrong as far as can be seen."), "{told}");
    assert!(told.contains("Not seen:") && told.contains("--monitor http://host:8222"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_of_consumers_are_seen() {
    let world = World::start().await;
    let client = world.client("user").await;
    stream(&client, json!({"name": "S", "subjects": ["s.>"]})).await;
    store(&client, "s.a", 2).await;

    let push = |name: &str| json!({"name": name, "deliver_subject": format!("to.{name}"), "filter_subject": "s.a"});
    let _one = client.subscribe("to.one").unwrap();
    consumer(&client, "S", push("one")).await;
    examine(&world).await.has("push-ephemeral", "warning");
    let _two = client.subscribe("to.two").unwrap();
    consumer(&client, "S", push("two")).await;
    let report = examine(&world).await;
    assert!(report.has("push-copies", "problem").contains("2 times"));
    for name in ["one", "two"] {
        let _: Value = client.api(&format!("CONSUMER.DELETE.S.{name}"), &Value::Null).await.unwrap();
    }

    // Nobody fetches.
    consumer(&client, "S", json!({"name": "idle", "durable_name": "idle"})).await;
    assert_eq!(examine(&world).await.has("nobody-pulls", "warning"), "2 messages wait and nobody fetches.");
    let _: Value = client.api("CONSUMER.DELETE.S.idle", &Value::Null).await.unwrap();

    // Deliveries, before and after they are used up.
    consumer(&client, "S", json!({"name": "few", "durable_name": "few", "max_deliver": 2})).await;
    examine(&world).await.has("no-dead-letters", "warning");
    for _ in 0..2 {
        fetch(&client, "S", "few", b"-NAK").await;
    }
    // The next message is there only once the first was given up.
    fetch(&client, "S", "few", b"+ACK").await;
    let report = examine(&world).await;
    assert!(report.has("deliveries-used", "problem").starts_with("1 messages were delivered 2 times"));
    let _: Value = client.api("CONSUMER.DELETE.S.few", &Value::Null).await.unwrap();

    // Pauses.
    let minute = 60_000_000_000_u64;
    consumer(
        &client,
        "S",
        json!({"name": "off", "durable_name": "off", "max_deliver": 3, "backoff": [minute, 2 * minute]}),
    )
    .await;
    consumer(&client, "S", json!({"name": "long", "durable_name": "long", "ack_wait": 10 * minute})).await;
    let report = examine(&world).await;
    assert!(report.has("backoff", "warning").contains("longer than 60s"), "{:?}", report.findings);
    assert!(report.has("long-ack-wait", "warning").contains("600s"));
    for name in ["off", "long"] {
        let _: Value = client.api(&format!("CONSUMER.DELETE.S.{name}"), &Value::Null).await.unwrap();
    }

    // Delivered again and again.
    store(&client, "s.b", 10).await;
    consumer(
        &client,
        "S",
        json!({"name": "slow", "durable_name": "slow", "filter_subject": "s.b", "ack_wait": minute}),
    )
    .await;
    let mut puller = client.puller("S", "slow", 20).unwrap();
    for _ in 0..10 {
        let task = puller.next().await.unwrap();
        client.publish_message(task.reply(), b"", b"", b"-NAK").unwrap();
    }
    for _ in 0..10 {
        puller.next().await.unwrap();
    }
    examine(&world).await.has("redelivered", "warning");

    // A header that publishers write and no nak changes.
    consumer(&client, "S", json!({"name": "counts", "durable_name": "counts", "filter_subject": "s.c"})).await;
    client.publish_stored("s.c", &[("Retry-Count", "0")], b"x").unwrap().await.unwrap();
    let mut puller = client.puller("S", "counts", 1).unwrap();
    let task = puller.next().await.unwrap();
    examine(&world).await.lacks("retry-count");
    client.publish_message(task.reply(), b"", b"", b"-NAK").unwrap();
    puller.next().await.unwrap();
    let report = examine(&world).await;
    assert!(report.has("retry-count", "warning").contains(": 0)"), "{:?}", report.findings);
    assert!(report.has("stale-ack", "note").contains("late ack counts"));
    let _: Value = client.api("CONSUMER.DELETE.S.counts", &Value::Null).await.unwrap();

    // Terminated and given up while the doctor listens.
    consumer(&client, "S", json!({"name": "term", "durable_name": "term", "filter_subject": "s.a"})).await;
    let once = json!({"name": "once", "durable_name": "once", "filter_subject": "s.a", "max_deliver": 1});
    consumer(&client, "S", once).await;
    let listening = world.command(&["doctor", "--json", "--listen", "5s"]).spawn().unwrap();
    let terminating = async {
        loop {
            store(&client, "s.a", 1).await;
            fetch(&client, "S", "term", b"+TERM").await;
            fetch(&client, "S", "once", b"-NAK").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let output = tokio::task::spawn_blocking(|| listening.wait_with_output().unwrap());
    let output = tokio::select! {
        output = output => output.unwrap(),
        () = terminating => unreachable!(),
    };
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let report = Report::of(Ended { code: output.status.code(), stdout, stderr });
    assert!(report.has("terminated", "problem").contains("messages were terminated (+TERM) just now"));
    assert!(report.has("given-up", "problem").contains("messages were delivered for the last time just now"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_of_streams_and_services_are_seen() {
    let world = World::start().await;
    let client = world.client("user").await;
    stream(&client, json!({"name": "M", "subjects": ["m.>"], "storage": "memory"})).await;
    examine(&world).await.lacks("memory-durable");
    consumer(&client, "M", json!({"name": "d", "durable_name": "d"})).await;
    examine(&world).await.has("memory-durable", "warning");

    stream(&client, json!({"name": "W", "subjects": ["w.>"], "retention": "workqueue"})).await;
    examine(&world).await.lacks("workqueue-without-consumer");
    store(&client, "w.a", 1).await;
    examine(&world).await.has("workqueue-without-consumer", "warning");

    // A micro service whose requests a stream stores as well.
    let mut infos = client.subscribe("$SRV.INFO").unwrap();
    let answering = client.clone();
    tokio::spawn(async move {
        let info = json!({"name": "adder", "endpoints": [{"name": "add", "subject": "w.add"}]}).to_string();
        while let Some(request) = infos.next().await {
            answering.publish_message(request.reply(), b"", b"", info.as_bytes()).unwrap();
        }
    });
    client.flush().await.unwrap();
    assert!(examine(&world).await.has("puback-for-service", "problem").contains("w.add"));

    let _workers = client.queue_subscribe("plain.work", "workers").unwrap();
    client.flush().await.unwrap();
    examine(&world).await.has("not-stored", "note");

    // An agent that was away has missed what nobody keeps.
    let agent = world.client("agent-7").await;
    let _news = agent.subscribe("councils.forming").unwrap();
    agent.flush().await.unwrap();
    examine(&world).await.lacks("missed-while-away");
    agent.close().await;
    let agent = world.client("agent-7").await;
    let _news = agent.subscribe("councils.forming").unwrap();
    agent.flush().await.unwrap();
    assert!(examine(&world).await.has("missed-while-away", "note").contains("agent-7 came back"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_and_streams_without_limits_are_seen() {
    let world = World::start_with(|mut config| {
        config.coordinator = false;
        config.jetstream_options.storage_bytes_max = Some(100_000);
        config
    })
    .await;
    let client = world.client("user").await;
    stream(&client, json!({"name": "U", "subjects": ["u"]})).await;
    examine(&world).await.lacks("unbounded");
    let body = vec![0; 85_000];
    client.publish_stored("u", &[], &body).unwrap().await.unwrap();
    examine(&world).await.has("unbounded", "warning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_of_tasks_are_seen() {
    let world = World::start().await;
    let client = world.client("user").await;
    world.run(&["task", "submit", "--queue", "build", "--requires", "gpu", "x"]).await.fine();
    assert!(examine(&world).await.has("nobody-can-run", "problem").contains("no agent serves queue build"));
    let register = br#"{"queues":["build"],"labels":["cpu"]}"#;
    let other = world.client("ada").await;
    let answer = other.request("$TASK.API.AGENT.REGISTER.ada", register, Duration::from_secs(10)).await.unwrap();
    assert!(!answer.is_no_responders());
    assert!(examine(&world).await.has("nobody-can-run", "problem").contains("has the labels gpu"));
    world.run(&["queue", "pause", "build"]).await.fine();
    examine(&world).await.has("paused", "warning");
    world.run(&["queue", "resume", "build"]).await.fine();
    world.run(&["queue", "purge", "build", "--yes"]).await.fine();

    // One task dies.
    world.run(&["task", "submit", "--queue", "build", "--id", "t", "y"]).await.fine();
    let task = other.puller("KV_TASK", "agent_ada", 1).unwrap().next().await.unwrap();
    let fail = task.headers().get_str("Task-Fail").unwrap().to_owned();
    other.request(&fail, br#"{"error":"broken","retry":false}"#, Duration::from_secs(10)).await.unwrap();
    assert!(examine(&world).await.has("dead-letters", "warning").contains("broken"));
    client.close().await;
}

/// A micro service that has a request in hand while its subject is deserted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_gone_with_a_task_is_seen() {
    let world = World::start().await;
    let client = world.client("user").await;
    world.run(&["queue", "put", "served", "--mode", "service"]).await.fine();
    let service = world.client("hand").await;
    let mut infos = service.subscribe("$SRV.INFO").unwrap();
    let mut requests = service.subscribe("hand.run").unwrap();
    let answering = service.clone();
    let info = json!({
        "name": "hand", "id": "H1", "metadata": {"task.queue": "served", "task.slots": "2"},
        "endpoints": [{"name": "run", "subject": "hand.run"}],
    });
    service.flush().await.unwrap();
    let introducing = tokio::spawn(async move {
        while let Some(request) = infos.next().await {
            answering.publish_message(request.reply(), b"", b"", info.to_string().as_bytes()).unwrap();
        }
    });
    world.run(&["task", "submit", "--queue", "served", "--id", "held", "x"]).await.fine();
    let _held = requests.next().await.unwrap();
    examine(&world).await.lacks("agent-offline");
    // Nobody says any more that it is there, and the next request finds nobody.
    introducing.abort();
    assert!(introducing.await.unwrap_err().is_cancelled());
    drop(requests);
    service.flush().await.unwrap();
    let mut events = client.subscribe("$TASK.E.AGENT.*").unwrap();
    client.flush().await.unwrap();
    world.run(&["task", "submit", "--queue", "served", "--id", "next", "x"]).await.fine();
    loop {
        let event: Value = serde_json::from_slice(events.next().await.unwrap().payload()).unwrap();
        if event["event"] == "offline" {
            break;
        }
    }
    let report = examine(&world).await;
    assert!(report.has("agent-offline", "warning").starts_with("it is offline and has 1 tasks"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_without_a_coordinator_are_seen() {
    let world = World::start_with(|mut config| {
        config.coordinator = false;
        config
    })
    .await;
    examine(&world).await.lacks("no-coordinator");
    let client = world.client("user").await;
    stream(&client, json!({"name": "KV_TASK", "subjects": ["$KV.TASK.>"]})).await;
    examine(&world).await.has("no-coordinator", "problem");
}

/// That it acknowledges before it syncs, and the same look at consumers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_server_is_examined_too() {
    let Some(path) = toolchain::or_skip("the doctor's look at nats-server", nats_server::find()) else { return };
    let server = tokio::task::block_in_place(|| Server::start(Program::nats_server(path))).unwrap();
    let (url, monitor) = (server.url(), server.monitoring_url());
    let client = Client::connect(&url).await.unwrap();
    stream(&client, json!({"name": "S", "subjects": ["s.>"]})).await;
    store(&client, "s.a", 2).await;
    consumer(&client, "S", json!({"name": "few", "durable_name": "few", "max_deliver": 2})).await;
    for _ in 0..2 {
        fetch(&client, "S", "few", b"-NAK").await;
    }
    fetch(&client, "S", "few", b"+ACK").await;
    let world = World::start().await;
    let examining = ["doctor", "-s", &url, "--json", "--listen", "300ms", "--monitor", &monitor];
    let report = Report::of(world.run(&examining).await);
    report.has("ack-before-sync", "warning");
    report.has("deliveries-used", "problem");
}
