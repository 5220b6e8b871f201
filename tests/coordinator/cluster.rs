//! `natterjack coordinator --replicas 3` on three nats-servers, one of which dies.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use natterjack::client::{Client, ConnectOptions};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::standalone::Program;
use super::tools::server::free_port;
use super::tools::{nats_server, toolchain};

const NODES: usize = 3;
const TASKS: usize = 60;
/// Elections take seconds, on a busy machine more of them.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// Three servers that know each other; killed when dropped.
struct Cluster {
    nodes: Vec<(Child, u16)>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start(program: &Path) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<(u16, u16)> = (0..NODES).map(|_| (free_port(), free_port())).collect();
        let routes: Vec<String> = ports.iter().map(|(_, route)| format!("nats://127.0.0.1:{route}")).collect();
        let node = |(n, (port, route)): (usize, &(u16, u16))| {
            let mut command = Command::new(program);
            command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-n", &name(n), "-js", "-sd"]);
            command.arg(folder.path().join(name(n))).args(["--cluster_name", "tasks", "--routes", &routes.join(",")]);
            command.args(["--cluster", &format!("nats://127.0.0.1:{route}")]);
            let log = std::fs::File::create(folder.path().join(format!("{}.log", name(n)))).unwrap();
            (command.stdin(Stdio::null()).stderr(log).spawn().unwrap(), *port)
        };
        let nodes = ports.iter().enumerate().map(node).collect();
        Cluster { nodes, _folder: folder }
    }

    fn urls(&self) -> String {
        self.nodes.iter().map(|(_, port)| format!("nats://127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    async fn client(&self, name: &str) -> Client {
        let options = ConnectOptions { name: name.to_owned(), ..ConnectOptions::default() };
        let begun = Instant::now();
        loop {
            match Client::connect_with(&self.urls(), options.clone()).await {
                Ok(client) => return client,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends the one of that name without warning.
    fn kill(&mut self, node: &str) {
        let at = (0..NODES).find(|n| name(*n) == node).unwrap();
        self.nodes[at].0.kill().unwrap();
        self.nodes[at].0.wait().unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (child, _) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn name(n: usize) -> String {
    format!("node-{n}")
}

/// Asks until `wanted` is content with the answer: while servers elect each other nobody answers, or with an error.
async fn insist(client: &Client, subject: &str, body: &[u8], wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = client.request(subject, body, Duration::from_secs(10)).await;
        let told = match &answer {
            Ok(answer) => serde_json::from_slice(answer.payload()).unwrap_or_default(),
            Err(error) => json!(error.to_string()),
        };
        if wanted(&told) {
            return told;
        }
        assert!(begun.elapsed() < PATIENCE, "{subject}: {told}");
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_fine(answer: &Value) -> bool {
    answer.is_object() && answer["error"].is_null()
}

async fn submit(client: &Client, n: usize) {
    let block = natterjack::types::header::HeaderBuilder::new().add("Task-Id", format!("t{n}")).build();
    let begun = Instant::now();
    loop {
        let answer = client.request_message("$TASK.API.SUBMIT", &block, b"work", Duration::from_secs(10)).await;
        if answer.is_ok_and(|answer| answer.headers().get("Nats-Service-Error").is_none()) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "t{n} is not taken");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Completes all that comes, and says so until it is answered.
async fn work(client: Client, consumer: String) {
    let mut puller = client.puller("KV_TASK", &consumer, 2).unwrap();
    while let Ok(task) = puller.next().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let complete = task.headers().get_str("Task-Complete").unwrap().to_owned();
        let lost = |answer: &Value| answer["error"]["err_code"] == 30409;
        insist(&client, &complete, b"done", |answer| is_fine(answer) || lost(answer)).await;
        let _ = client.publish_message(task.reply(), b"", b"", b"+ACK");
    }
}

#[tokio::test]
async fn all_tasks_end_though_a_server_of_the_cluster_dies() {
    const TEST: &str = "a coordinator on a cluster of nats-servers";
    let Some(program) = toolchain::or_skip(TEST, nats_server::find()) else { return };
    let mut cluster = Cluster::start(&program);
    let user = cluster.client("user").await;
    insist(&user, "$JS.API.INFO", b"", is_fine).await;
    let mut coordinator = Program::start(&cluster.urls(), &["--replicas", "3"]);
    coordinator.says("Task coordinator is ready").await;
    // Slow to lose an agent, quick to try again.
    let settings = json!({ "lease_s": 5.0, "backoff": [0.2], "max_attempts": 20 }).to_string();
    insist(&user, "$TASK.API.QUEUE.PUT.default", settings.as_bytes(), is_fine).await;
    let ann = cluster.client("ann").await;
    let card = insist(&ann, "$TASK.API.AGENT.REGISTER.ann", br#"{"slots":2}"#, is_fine).await;
    let working = tokio::spawn(work(ann, card["consumer"].as_str().unwrap().to_owned()));
    for n in 0..TASKS / 2 {
        submit(&user, n).await;
    }
    let begun = |answer: &Value| answer["tasks"].as_array().is_some_and(|done| done.len() > 2);
    insist(&user, "$TASK.API.LIST", br#"{"state":"completed"}"#, begun).await;
    let stream = insist(&user, "$JS.API.STREAM.INFO.KV_TASK", b"", is_fine).await;
    assert_eq!(stream["config"]["num_replicas"], 3);
    // The one that leads the tasks' stream is missed most.
    cluster.kill(stream["cluster"]["leader"].as_str().unwrap());
    for n in TASKS / 2..TASKS {
        submit(&user, n).await;
    }
    for n in 0..TASKS {
        let completed = |answer: &Value| answer["state"] == "completed";
        insist(&user, &format!("$TASK.API.GET.t{n}"), b"", completed).await;
    }
    let all = insist(&user, "$TASK.API.LIST", br#"{"state":"completed","limit":1}"#, is_fine).await;
    assert_eq!(all["total"], TASKS);
    working.abort();
}
