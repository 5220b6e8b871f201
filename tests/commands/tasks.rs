//! `natterjack task|agent|queue|cron|dlq`.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use natterjack::client::Client;
use serde_json::{Value, json};

use super::support::World;

/// Registers an agent that says two words of progress and completes each task with its body reversed; a body of `fail` fails.
async fn work(client: Client, id: &str, request: Value) -> tokio::task::JoinHandle<()> {
    let subject = format!("$TASK.API.AGENT.REGISTER.{id}");
    let answer = client.request(&subject, request.to_string().as_bytes(), Duration::from_secs(10)).await.unwrap();
    let card: Value = serde_json::from_slice(answer.payload()).unwrap();
    tokio::spawn(async move {
        let mut puller = client.puller("KV_TASK", card["consumer"].as_str().unwrap(), 4).unwrap();
        while let Ok(task) = puller.next().await {
            let header = |name: &str| task.headers().get_str(name).unwrap().to_owned();
            client.publish(&header("Task-Progress"), b"one").unwrap();
            client.publish(&header("Task-Progress"), b"two").unwrap();
            if task.payload() == b"fail" {
                client.publish(&header("Task-Fail"), br#"{"error":"it broke","retry":false}"#).unwrap();
            } else {
                let mut result = task.payload().to_vec();
                result.reverse();
                client.publish(&header("Task-Complete"), &result).unwrap();
            }
            client.publish_message(task.reply(), b"", b"", b"+ACK").unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_from_its_submission_to_its_end() {
    let world = World::start().await;
    let options =
        ["--requires", "lang=rust", "--priority", "2", "--key", "k", "--sticky", "s", "--sticky-mode", "hard"];
    let more = ["--backoff", "1s,2s", "--timeout", "1m", "--max-attempts", "3", "--parent", "p", "-H", "X-Id: 7"];
    let submit = [&["task", "submit", "--id", "first", "--json"][..], &options, &more].concat();
    let answer = world.run_with(&submit, b"from a pipe").await.json();
    assert_eq!((&answer["id"], &answer["phase"]), (&json!("first"), &json!("queued")));
    let record = world.run(&["task", "get", "first", "--json"]).await.json();
    for (field, value) in [
        ("requires", json!("lang=rust")),
        ("priority", json!(2)),
        ("key", json!("k")),
        ("sticky", json!("s")),
        ("hard", json!(true)),
        ("backoff", json!([1.0, 2.0])),
        ("timeout_s", json!(60.0)),
        ("max_attempts", json!(3)),
        ("parent", json!("p")),
        ("bytes", json!(11)),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt");
    std::fs::write(&file, "from a file").unwrap();
    let after = ["task", "submit", "--id", "second", "--after", "first", "--file", file.to_str().unwrap()];
    assert_eq!(world.run(&after).await.fine(), "Task second submitted: submitted (blocked).\n");
    let none = world.run(&["task", "submit", "--must-match", "--requires", "lang=go", "x"]).await;
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("`natterjack agent ls` shows the labels there are"), "{none:?}");

    // Somebody follows before there is an agent.
    let mut follower = world.command(&["task", "follow", "second"]).spawn().unwrap();
    let mut told = BufReader::new(follower.stderr.take().unwrap());
    let (first, told) = tokio::task::spawn_blocking(move || {
        let mut first = String::new();
        told.read_line(&mut first).unwrap();
        (first, told)
    })
    .await
    .unwrap();
    assert_eq!(first, "- submitted (blocked)\n");
    let table = world.run(&["task", "ls"]).await.fine();
    assert!(table.starts_with("ID      STATE                QUEUE    ATTEMPT  AGENT  AGE\n"), "{table}");
    assert!(table.contains("\nfirst   submitted (queued)   default  0"), "{table}");
    work(world.client("ada").await, "ada", json!({"labels": ["lang=rust"], "slots": 2})).await;
    assert_eq!(world.run(&["task", "await", "first"]).await.fine(), "epip a morf");
    let followed = tokio::task::spawn_blocking(|| follower.wait_with_output().unwrap()).await.unwrap();
    let changes: Vec<String> = told.lines().map(Result::unwrap).collect();
    assert!(followed.status.success());
    assert_eq!(String::from_utf8_lossy(&followed.stdout), "one\ntwo\nelif a morf");
    assert_eq!(changes.last().map(String::as_str), Some("- completed by ada"), "{changes:?}");
    // Whoever follows later sees the same.
    assert_eq!(world.run(&["task", "follow", "second"]).await.fine(), "one\ntwo\nelif a morf");
    let lines = world.run(&["task", "follow", "second", "--json"]).await.fine();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[1..3], [json!({"progress": "one"}), json!({"progress": "two"})]);
    assert_eq!(lines[3]["result"], "elif a morf");

    let failed = world.run(&["task", "submit", "--wait", "fail"]).await;
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""));
    assert!(failed.stderr.contains("natterjack task requeue"), "{failed:?}");
    let missing = world.run(&["task", "follow", "nobody"]).await;
    assert_eq!(missing.code, Some(3), "{missing:?}");
    let queued = world.run(&["task", "submit", "--id", "third", "--requires", "gpu", "x"]).await;
    queued.fine();
    let late = world.run(&["task", "follow", "third", "--wait", "100ms"]).await;
    assert_eq!(late.code, Some(4), "{late:?}");
    assert_eq!(world.run(&["task", "cancel", "third", "--reason", "enough"]).await.fine(), "Task third is canceled.\n");
    assert!(world.run(&["task", "requeue", "third"]).await.fine().contains("submitted (queued) again"));
    let open = world.run(&["task", "ls", "--state", "submitted", "--json"]).await.json();
    assert_eq!(open["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_shown_drained_and_forgotten() {
    let world = World::start().await;
    assert!(world.run(&["agent", "ls"]).await.fine().starts_with("No agents."));
    let request = json!({"labels": {"lang": ["rust", "go"], "gpu": true}, "queues": ["build"], "slots": 3});
    work(world.client("ada").await, "ada", request).await;
    let table = world.run(&["agent", "ls"]).await.fine();
    assert!(table.contains("ada    online  0/3   0"), "{table}");
    assert!(table.contains("build   gpu lang=rust,go"), "{table}");
    assert!(world.run(&["agent", "info", "ada"]).await.fine().contains("status  online"));
    let drained = world.run(&["agent", "drain", "ada"]).await.fine();
    assert_eq!(drained, "Agent ada is draining and has 0 tasks left.\n");
    let back = world.run(&["agent", "drain", "ada", "--undo"]).await.fine();
    assert_eq!(back, "Agent ada is online and gets tasks as before.\n");
    let counts = "1 agent: 1 online, 0 draining, 0 offline; 1 with a free slot.\n";
    assert!(world.run(&["agent", "ls"]).await.fine().ends_with(counts));
    let none = world.run(&["agent", "ls", "--status", "offline"]).await.fine();
    assert_eq!(none, format!("No agents are listed. {counts}"));
    world.run(&["agent", "rm", "ada"]).await.fine();
    let gone = world.run(&["agent", "info", "ada"]).await;
    assert_eq!(gone.code, Some(3));
    assert!(gone.stderr.contains("`natterjack agent ls` shows"), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_set_up_paused_and_emptied() {
    let world = World::start().await;
    let limits = ["--max-running", "3", "--rate", "2.5", "--lease", "1m", "--backoff", "1s,500ms"];
    let put = [&["queue", "put", "build", "--json"][..], &limits].concat();
    let queue = world.run(&put).await.json();
    assert_eq!((&queue["lease_s"], &queue["backoff"]), (&json!(60.0), &json!([1.0, 0.5])));
    let queue = world.run(&["queue", "put", "build", "--keep", "--set", "max_queued=5", "--json"]).await.json();
    assert_eq!((&queue["lease_s"], &queue["max_queued"]), (&json!(60.0), &json!(5)));
    // What a queue tells of itself is no setting.
    world.run(&["queue", "put", "ask", "--mode", "service"]).await.fine();
    let kept = world.run(&["queue", "put", "ask", "--keep", "--lease", "5s", "--json"]).await.json();
    assert_eq!((&kept["mode"], &kept["lease_s"]), (&json!("service"), &json!(5.0)));
    let client = world.client("user").await;
    client.create_stream(&json!({"name": "TASKS", "subjects": ["tasks.>"]})).await.unwrap();
    let config = json!({"durable_name": "workers", "name": "workers", "ack_policy": "explicit", "max_deliver": 2});
    let body = json!({"stream_name": "TASKS", "config": config});
    let _: Value = client.api("CONSUMER.CREATE.TASKS.workers", &body).await.unwrap();
    world.run(&["queue", "put", "own", "--adopt", "TASKS/workers"]).await.fine();
    let kept = world.run(&["queue", "put", "own", "--keep", "--retention", "1h", "--json"]).await.json();
    assert_eq!((&kept["adopt"]["consumer"], &kept["retention_s"]), (&json!("workers"), &json!(3600.0)));
    let wrong = world.run(&["queue", "put", "build", "--set", "colour=red"]).await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("colour"), "{wrong:?}");

    assert!(world.run(&["queue", "pause", "build", "--refuse"]).await.fine().contains("new tasks are refused"));
    let refused = world.run(&["task", "submit", "--queue", "build", "x"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("natterjack queue resume"), "{refused:?}");
    let table = world.run(&["queue", "ls"]).await.fine();
    assert!(
        table.contains("build  inbox    0     0        refusing  4         60s    running 3, rate 2.5, open 5"),
        "{table}"
    );
    world.run(&["queue", "resume", "build"]).await.fine();
    for body in ["x", "y"] {
        world.run(&["task", "submit", "--queue", "build", body]).await.fine();
    }
    let unasked = world.run(&["queue", "purge", "build"]).await;
    assert_eq!(unasked.code, Some(2));
    assert!(unasked.stderr.contains("Cancel the 2 tasks that wait in queue build?"), "{unasked:?}");
    assert!(unasked.stderr.contains("--yes"), "{unasked:?}");
    let purged = world.run(&["queue", "purge", "build", "--yes"]).await.fine();
    assert_eq!(purged, "2 tasks of queue build are canceled.\n");
    assert_eq!(world.run(&["queue", "info", "nowhere"]).await.code, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crons_come_and_go() {
    let world = World::start().await;
    let put =
        ["cron", "put", "nightly", "0 0 3 * * *", "--time-zone", "Europe/Berlin", "--queue", "build", "cargo test"];
    assert!(world.run(&put).await.fine().starts_with("Cron nightly submits next at 20"));
    let table = world.run(&["cron", "ls"]).await.fine();
    assert!(table.contains("nightly  0 0 3 * * *") && table.contains("build"), "{table}");
    assert!(table.starts_with("CRON     SCHEDULE     NEXT"), "{table}");
    world.run(&["cron", "put", "often", "@every 1s", "body"]).await.fine();
    let mut events =
        world.command(&["task", "events", "--queue", "default", "--count", "1", "--json"]).spawn().unwrap();
    let ended = tokio::task::spawn_blocking(move || events.wait().unwrap());
    assert!(ended.await.unwrap().success(), "its first task is an event");
    let table = world.run(&["cron", "ls"]).await.fine();
    assert!(table.contains("LAST TASK") && table.contains("  often-20"), "{table}");
    let wrong = world.run(&["cron", "put", "x", "now and then", "body"]).await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    world.run(&["cron", "rm", "often"]).await.fine();
    world.run(&["cron", "rm", "nightly"]).await.fine();
    assert_eq!(world.run(&["cron", "rm", "nightly"]).await.code, Some(3));
    assert!(world.run(&["cron", "ls"]).await.fine().starts_with("No crons."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_read_requeued_and_forgotten() {
    let world = World::start().await;
    work(world.client("ada").await, "ada", json!({"slots": 4})).await;
    for id in ["a", "b", "c"] {
        let dead = world.run(&["task", "submit", "--id", id, "--wait", "-H", "X-Id: 7", "fail"]).await;
        assert_eq!(dead.code, Some(1), "{dead:?}");
    }
    let table = world.run(&["dlq", "ls"]).await.fine();
    assert!(table.contains("it broke"), "{table}");
    let letter = world.run(&["dlq", "get", "default", "b"]).await;
    assert_eq!(letter.stdout, "fail");
    assert!(letter.stderr.contains("X-Id: 7") && letter.stderr.contains("it broke"), "{letter:?}");
    world.run(&["agent", "drain", "ada"]).await.fine();
    world.run(&["dlq", "requeue", "default", "b"]).await.fine();
    assert_eq!(world.run(&["dlq", "get", "default", "b"]).await.code, Some(3));
    assert_eq!(world.run(&["dlq", "requeue", "default"]).await.code, Some(2), "nobody can be asked");
    let all = world.run(&["dlq", "requeue", "default", "--yes"]).await.fine();
    assert_eq!(all, "2 dead letters of queue default are requeued.\n");
    assert!(world.run(&["dlq", "ls"]).await.fine().starts_with("No dead letters."));
    assert_eq!(world.run(&["dlq", "purge", "default", "--yes", "--json"]).await.json()["purged"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_list_on_a_pipe_tells_changes() {
    let world = World::start().await;
    world.run(&["task", "submit", "--id", "first", "x"]).await.fine();
    let mut watching = world.command(&["task", "ls", "--watch", "50ms"]).spawn().unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || lines.map(|line| sender.send(line)).all(|sent| sent.is_ok()));
    let mut next = async || receiver.recv().await.unwrap();
    assert!(next().await.starts_with("ID     STATE"));
    assert!(next().await.starts_with("first  submitted (queued)"));
    world.run(&["task", "submit", "--id", "second", "x"]).await.fine();
    assert!(next().await.starts_with("second  submitted (queued)"));
    world.run(&["task", "cancel", "first"]).await.fine();
    assert!(next().await.starts_with("first  canceled"));
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shells_get_their_completions() {
    let world = World::start().await;
    for (shell, expected) in
        [("bash", "complete -F _natterjack"), ("zsh", "#compdef natterjack"), ("fish", "complete -c natterjack")]
    {
        let script = world.run(&["completions", shell]).await.fine();
        assert!(script.contains(expected) && script.contains("requeue"), "{shell}");
    }
    assert_eq!(world.run(&["completions", "tcsh"]).await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn councils_are_formed_and_dissolved() {
    let world = World::start().await;
    let client = world.client("ann").await;
    let mut offers = client.subscribe("councils.forming").unwrap();
    client.flush().await.unwrap();
    let form = [
        "council",
        "form",
        "c7",
        "--role",
        "tpm=1",
        "--offer-to",
        "councils.forming",
        "-H",
        "Project: pond",
        "--wait",
        r#"{"issue": 7.0, "b":1,"a" : 2}"#,
    ];
    let forming = world.command(&form).spawn().unwrap();
    let offer = offers.next().await.unwrap();
    let body = &br#"{"issue": 7.0, "b":1,"a" : 2}"#[..];
    assert_eq!((offer.headers().get_str("Project"), offer.payload()), (Some("pond"), body));
    let table = world.run(&["council", "ls"]).await.fine();
    assert!(table.contains("c7") && table.contains("forming") && table.contains("  tpm 1\n"), "{table}");
    client.kv_create("TASK_COUNCILS", "c7.tpm.1", br#"{"agent":"ann"}"#).await.unwrap();
    let formed = tokio::task::spawn_blocking(|| forming.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&formed.stdout), "Council c7 is formed.\n", "{formed:?}");
    assert!(world.run(&["council", "info", "c7"]).await.fine().contains("ann"));
    assert!(world.run(&["council", "dissolve", "c7", "--reason", "done"]).await.fine().contains("is dissolved"));
    assert_eq!(world.run(&["council", "info", "c8"]).await.code, Some(3));
    let late =
        ["council", "form", "c9", "--role", "tpm", "--offer-to", "councils.forming", "--deadline", "100ms", "--wait"];
    assert_eq!(world.run(&late).await.code, Some(1), "it expires");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_of_councils_arrive_byte_for_byte() {
    let world = World::start().await;
    let client = world.client("ann").await;
    let mut offers = client.subscribe("councils.forming").unwrap();
    client.flush().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offer");
    let form = ["council", "form", "c", "--role", "tpm", "--offer-to", "councils.forming"];
    let from_file = [&form[..], &["--file", file.to_str().unwrap()]].concat();
    for offer in [
        "{\"z\":1, \"a\":2}\n",
        "plain words",
        "\"quoted\"",
        " 1.50",
        "null",
        "1e2",
        "[1 ,2]",
        "{\"unfinished\": ",
        "a\0b\u{e9}",
    ] {
        std::fs::write(&file, offer).unwrap();
        world.run(&from_file).await.fine();
        assert_eq!(offers.next().await.unwrap().payload(), offer.as_bytes(), "{offer:?}");
        world.run(&["council", "dissolve", "c"]).await.fine();
        while offers.try_next().is_some() {}
    }
    std::fs::write(&file, b"pond \xff").unwrap();
    let binary = world.run(&from_file).await;
    assert_eq!(binary.code, Some(1), "{binary:?}");
    assert!(binary.stderr.contains("byte 5 is not UTF-8") && binary.stderr.contains("base64"), "{binary:?}");

    // A thousand seats of twenty roles are a short row, and what is not shown is told below.
    let roles: Vec<String> = (0..20).map(|role| format!("--role=role{role:02}=50")).collect();
    let mut large = vec!["council", "form", "large", "--offer-to", "councils.large"];
    large.extend(roles.iter().map(String::as_str));
    let said = world.run(&large).await.fine();
    assert_eq!(
        said,
        "Council large is forming; missing: role00 50, role01 50, role02 50, role03 50, and 16 more roles.\n"
    );
    let table = world.run(&["council", "ls", "--limit", "1", "--status", "dissolved"]).await.fine();
    assert!(table.starts_with("COUNCIL"), "{table}");
    let table = world.run(&["council", "ls", "--limit", "1"]).await.fine();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[2..], ["1 more: --limit, or --after the last one here."], "{table}");
    let table = world.run(&["council", "ls"]).await.fine();
    assert!(table.contains("role00 50, role01 50, role02 50, role03 50, and 16 more roles\n"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_can_be_a_script() {
    let world = World::start().await;
    let client = world.client("ada").await;
    let register = client.request("$TASK.API.AGENT.REGISTER.ada", br#"{"slots":9}"#, Duration::from_secs(10)).await;
    assert!(!register.unwrap().is_no_responders());
    let mut puller = client.puller("KV_TASK", "agent_ada", 1).unwrap();
    let mut next = async |id: &str| {
        world.run(&["task", "submit", "--id", id, "--parent", "all", "x"]).await.fine();
        let task = puller.next().await.unwrap();
        task.headers().get_str("Task-Complete").unwrap().rsplit('.').next().unwrap().to_owned()
    };
    let lease = next("done").await;
    let refused = world.run(&["task", "complete", "done", "--lease", "wrong", "result"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let done = world.run(&["task", "complete", "done", "--lease", &lease, "result"]).await.fine();
    assert_eq!(done, "Task done is completed.\n");
    assert_eq!(world.run(&["task", "await", "done"]).await.fine(), "result");

    let lease = next("empty").await;
    world.run(&["task", "complete", "empty", "--lease", &lease]).await.fine();
    assert_eq!(world.run(&["task", "await", "empty"]).await.fine(), "");

    let lease = next("again").await;
    let failed = world.run(&["task", "fail", "again", "--lease", &lease, "--delay", "1h", "it broke"]).await.fine();
    assert_eq!(failed, "Task again is submitted (backing-off).\n");
    let lease = next("dead").await;
    world.run(&["task", "fail", "dead", "--lease", &lease, "--no-retry", "it broke"]).await.fine();
    assert_eq!(world.run(&["task", "get", "dead", "--json"]).await.json()["fault"]["error"], "it broke");

    let lease = next("colour").await;
    let asked = world.run(&["task", "input", "colour", "--lease", &lease, "Which colour?"]).await.fine();
    assert_eq!(asked, "Task colour is input-required.\n");
    let told = world.run(&["task", "await", "colour", "--question"]).await;
    assert_eq!((told.code, told.stdout.as_str()), (Some(7), "Which colour?\n"), "{told:?}");
    assert!(told.stderr.contains("natterjack task answer colour"), "{told:?}");
    let record = world.run(&["task", "await", "colour", "--question", "--json"]).await;
    assert_eq!(record.code, Some(7));
    assert!(record.stdout.contains(r#""question":"Which colour?""#), "{record:?}");
    assert_eq!(world.run(&["task", "await", "colour", "--wait", "100ms"]).await.code, Some(4));
    let lease = next("never").await;
    let declined = world.run(&["task", "decline", "never", "--lease", &lease]).await.fine();
    assert_eq!(declined, "Task never is rejected.\n");

    let children = world.run(&["task", "ls", "--parent", "all", "--json"]).await.json();
    assert_eq!(children["total"], 6);
    assert_eq!(world.run(&["task", "ls", "--parent", "done", "--json"]).await.json()["total"], 0);
    world.run(&["task", "submit", "--id", "wait", "--requires", "gpu", "x"]).await.fine();
    let told = world.run(&["task", "explain", "wait", "--agents", "0", "--json"]).await.json();
    assert_eq!((told["agents"].as_array().unwrap().len(), &told["among"]["total"]), (0, &json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_told_line_by_line() {
    let world = World::start().await;
    let mut watching = world.command(&["task", "events", "--queue", "build", "--count", "2"]).spawn().unwrap();
    let ready = BufReader::new(watching.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(ready.contains("Ctrl-C"), "{ready}");
    world.run(&["task", "submit", "--id", "other", "x"]).await.fine();
    world.run(&["task", "submit", "--id", "mine", "--queue", "build", "x"]).await.fine();
    world.run(&["task", "cancel", "mine", "--reason", "enough"]).await.fine();
    let told = tokio::task::spawn_blocking(|| watching.wait_with_output().unwrap()).await.unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].ends_with("Z task mine: submitted (queued), queue build"), "{told}");
    assert!(lines[1].contains("task mine: canceled") && lines[1].ends_with("enough"), "{told}");
    assert_eq!(world.run(&["task", "events", "--task", "a b"]).await.code, Some(2));
}
