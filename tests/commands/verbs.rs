//! Whatever the API can, a command can.

use std::time::Duration;

use natterjack::client::Client;
use serde_json::{Value, json};

use super::support::World;

/// A command for each endpoint. What it names need not be there: that it is asked for is what counts.
const ONE_OF_EACH: &[&str] = &[
    "queue put q",
    "queue info q",
    "queue ls",
    "queue pause q",
    "queue resume q",
    "queue purge q --yes",
    "agent register ann",
    "agent info ann",
    "agent ls",
    "agent drain ann",
    "agent rm ann",
    "task submit --id t x",
    "task get t",
    "task ls",
    "task await t --wait 10ms",
    "task complete t --lease none x",
    "task fail t --lease none x",
    "task decline t --lease none",
    "task input t --lease none x",
    "task answer t x",
    "task history t",
    "task explain t",
    "task cancel t",
    "task requeue t",
    "cron put c @hourly x",
    "cron ls",
    "cron rm c",
    "dlq ls",
    "dlq ls q",
    "dlq get q t",
    "dlq requeue q t --yes",
    "dlq requeue q --yes",
    "dlq purge q t --yes",
    "dlq purge q --yes",
    "council form c --role tpm=1 --offer-to councils.forming x",
    "council info c",
    "council ls",
    "council dissolve c",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_has_its_command() {
    let world = World::start().await;
    for line in ONE_OF_EACH {
        let arguments: Vec<&str> = line.split(' ').collect();
        let ended = world.run(&arguments).await;
        assert_ne!(ended.code, Some(2), "{line}: {ended:?}");
    }
    let client = world.client("user").await;
    let stats = client.request("$SRV.STATS.tasks", b"", Duration::from_secs(10)).await.unwrap();
    let stats: Value = serde_json::from_slice(stats.payload()).unwrap();
    let endpoints = stats["endpoints"].as_array().unwrap();
    let unasked: Vec<&Value> =
        endpoints.iter().filter(|one| one["num_requests"] == 0).map(|one| &one["name"]).collect();
    assert_eq!(unasked, [] as [&Value; 0], "no command asks for these");
    assert_eq!(endpoints.len(), ONE_OF_EACH.len());

    let script = world.run(&["completions", "bash"]).await.fine();
    for line in ONE_OF_EACH {
        let path = line.split(' ').take(2).collect::<Vec<_>>().join("__subcmd__");
        let older = path.replace("__subcmd__", "__");
        let completed = script.contains(&format!("natterjack__subcmd__{path})"))
            || script.contains(&format!("natterjack__{older})"));
        assert!(completed, "{line} is not completed");
    }
}

/// What the consumer of an agent has for it: body, lease, and how to ack.
async fn pull(client: &Client) -> (Vec<u8>, String) {
    let message = client.puller("KV_TASK", "agent_ada", 1).unwrap().next().await.unwrap();
    let lease = message.headers().get_str("Task-Complete").unwrap().rsplit('.').next().unwrap().to_owned();
    (message.payload().to_vec(), lease)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_registered_by_hand() {
    let world = World::start().await;
    let line = ["agent", "register", "ada", "--labels", "lang=rust,gpu", "--slots", "2", "--queues", "build,default"];
    let more = ["--lease-by", "presence", "--client-name", "ada's", "--set", "model=small", "--set", "weight=3"];
    let card = world.run(&[&line[..], &more, &["--json"]].concat()).await.json();
    assert_eq!((&card["agent"], &card["consumer"]), (&json!("ada"), &json!("agent_ada")));
    assert_eq!((&card["lease_by"], &card["control"]), (&json!("presence"), &json!("$TASK.X.ada")));
    let known = world.run(&["agent", "info", "ada", "--json"]).await.json();
    for (field, value) in [
        ("slots", json!(2)),
        ("queues", json!(["build", "default"])),
        ("client_name", json!("ada's")),
        ("model", json!("small")),
        ("weight", json!(3)),
    ] {
        assert_eq!(known[field], value, "{field}");
    }
    let table = world.run(&["agent", "ls"]).await.fine();
    assert!(table.contains("gpu lang=rust"), "{table}");

    // Its token makes it the same agent again; what it says now is what holds.
    let token = card["resume"].as_str().unwrap();
    let again = world.run(&["agent", "register", "ada", "--resume", token]).await.fine();
    assert!(again.trim_start().starts_with("agent  ada\n"), "{again}");
    for field in ["consumer  agent_ada", "stream  KV_TASK", "lease_by  work", "presence  $TASK.X.ada."] {
        assert!(again.contains(field), "{field}: {again}");
    }
    let instance = card["instance"].as_str().unwrap();
    assert!(again.contains(&format!("instance  {instance}")), "{again}");
    assert_eq!(world.run(&["agent", "info", "ada", "--json"]).await.json()["queues"], json!(["default"]));

    let wrong = world.run(&["agent", "register", "ada", "--slots", "0", "--resume", token]).await;
    assert!(wrong.code == Some(1) && wrong.stderr.contains("slots is 1 to 100000"), "{wrong:?}");
    assert_eq!(world.run(&["agent", "register", "ada", "--lease-by", "luck"]).await.code, Some(2));
    assert_eq!(world.run(&["agent", "register", "a.b"]).await.code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered_and_the_story_is_told() {
    let world = World::start().await;
    world.run(&["agent", "register", "ada"]).await.fine();
    let client = world.client("ada").await;
    world.run(&["task", "submit", "--id", "fence", "paint it"]).await.fine();
    let (_, lease) = pull(&client).await;
    world.run(&["task", "input", "fence", "--lease", &lease, "Which colour?"]).await.fine();
    let none = world.run(&["task", "answer", "fence", "--question", "9", "blue"]).await;
    assert_eq!(none.code, Some(1), "{none:?}");
    let answered = world.run(&["task", "answer", "fence", "--question", "1", "blue"]).await.fine();
    assert_eq!(answered, "Answered; task fence is submitted (queued).\n");
    let late = world.run(&["task", "answer", "fence", "red"]).await;
    assert_eq!(late.code, Some(1), "{late:?}");
    let (_, lease) = pull(&client).await;
    world.run(&["task", "complete", "fence", "--lease", &lease, "done"]).await.fine();

    let story = world.run(&["task", "history", "fence"]).await.fine();
    let told: Vec<&str> = ["submitted", "Which colour?", "blue", "completed"]
        .into_iter()
        .filter(|words| !story.contains(words))
        .collect();
    assert_eq!(told, [] as [&str; 0], "{story}");
    let history = world.run(&["task", "history", "fence", "--json"]).await.json();
    let history = history["history"].as_array().unwrap();
    assert_eq!(history.last().unwrap()["state"], "completed");
    assert_eq!(world.run(&["task", "history", "nothing"]).await.code, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_may_be_at_once_and_of_a_whole_family() {
    let world = World::start().await;
    world.run(&["agent", "register", "ada", "--slots", "3"]).await.fine();
    let client = world.client("ada").await;
    let mut control = client.subscribe("$TASK.X.ada").unwrap();
    client.flush().await.unwrap();
    for (id, more) in [("asked", &[][..]), ("forced", &[]), ("child", &["--parent", "forced"])] {
        world.run(&[&["task", "submit", "--id", id, "x"][..], more].concat()).await.fine();
        let (_, lease) = pull(&client).await;
        // It is known to have the task.
        client.publish(&format!("$TASK.P.{id}"), b"begun").unwrap();
        client.flush().await.unwrap();
        if id == "asked" {
            world.run(&["task", "cancel", "asked"]).await.fine();
            let said = world.run(&["task", "fail", "asked", "--lease", &lease, "stopped"]).await.fine();
            assert_eq!(said, "Task asked is canceled.\n");
        }
    }
    let grandchild = ["task", "submit", "--id", "grandchild", "--parent", "child", "--requires", "gpu", "x"];
    world.run(&grandchild).await.fine();
    let line = ["task", "cancel", "forced", "--force", "--children", "--reason", "enough"];
    assert_eq!(world.run(&line).await.fine(), "Task forced is canceled.\n");
    for id in ["child", "grandchild"] {
        let ended = world.run(&["task", "await", id]).await;
        assert_eq!(ended.code, Some(1), "{id}: {ended:?}");
        let record = world.run(&["task", "get", id, "--json"]).await.json();
        assert_eq!(
            (&record["state"], &record["reason"]),
            (&json!("canceled"), &json!("canceled with forced: enough")),
            "{id}"
        );
    }
    let mut told = async || {
        let order: Value = serde_json::from_slice(control.next().await.unwrap().payload()).unwrap();
        (order["task"].as_str().unwrap().to_owned(), order["grace_s"].as_f64().unwrap())
    };
    let orders = [told().await, told().await, told().await];
    let expected = [("asked", 30.0), ("forced", 0.0), ("child", 0.0)];
    assert_eq!(orders, expected.map(|(task, grace)| (task.to_owned(), grace)));
}
