//! `natterjack coordinator --server URL` as a process beside a server, and several coordinators on one account.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use natterjack::client::{Client, Incoming};
use natterjack::coordinator::{Coordinator, Health, Options};
use natterjack::types::header::HeaderBuilder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::agent::{Agent, LONG, ask, await_result, submit};
use super::support::{Broker, quick};

/// The program, killed when dropped.
pub struct Program {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    said: Vec<String>,
}

impl Program {
    pub fn start(server: &str, flags: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natterjack"));
        command.args(["coordinator", "--server", server]).args(flags).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Program { child, lines, said: Vec::new() }
    }

    /// Reads on until a line holds `what`.
    pub async fn says(&mut self, what: &str) -> String {
        loop {
            match tokio::time::timeout(LONG, self.lines.recv()).await {
                Ok(Some(line)) => {
                    self.said.push(line.clone());
                    if line.contains(what) {
                        return line;
                    }
                }
                ended => panic!("it does not say {what:?} ({ended:?}) but {:#?}", self.said),
            }
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code and all it said.
    async fn end(mut self) -> (Option<i32>, String) {
        while let Ok(Some(line)) = tokio::time::timeout(LONG, self.lines.recv()).await {
            self.said.push(line);
        }
        (self.child.wait().unwrap().code(), self.said.join("\n"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A task from submission to its result.
async fn round_trip(user: &Client, agent: &Agent, id: &str) {
    submit(user, &[("Task-Id", id)], id.as_bytes()).await;
    let task = agent.pull().await;
    assert_eq!(task.payload(), id.as_bytes());
    agent.complete(&task, b"done").await.unwrap();
    assert_eq!(await_result(user, id).await.unwrap(), b"done");
}

fn is_fine(answer: Incoming) -> bool {
    answer.headers().get("Nats-Service-Error").is_none()
}

#[tokio::test]
async fn it_says_what_it_serves_and_ends_in_order() {
    let broker = Broker::start();
    let mut program = Program::start(&broker.url(), &["--result-subjects", "elsewhere.>"]);
    let line = program.says("Serving tasks on").await;
    assert!(line.contains("127.0.0.1") && line.contains("nats-server 2.1") && line.contains("$TASK.API.>"), "{line}");
    program.says("Task coordinator is ready, with 0 tasks and 0 agents").await;
    let user = broker.client("user").await;
    let agent = Agent::register(broker.client("ann").await, "ann", json!({})).await;
    round_trip(&user, &agent, "one").await;
    let refused = super::agent::call(&user, "SUBMIT", &[("Task-Result-To", "results.x")], b"").await;
    assert_eq!(refused.unwrap_err().0, 30403, "the administrator has named other subjects");
    submit(&user, &[("Task-Id", "two")], b"two").await;
    let held = agent.pull().await;

    program.signal("TERM");
    let (code, said) = program.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Trapped \"terminated\" signal") && said.contains("Task coordinator exiting"), "{said}");
    assert!(user.request("$TASK.API.LIST", b"", LONG).await.is_err(), "nobody serves");

    // What ran goes on with the next.
    let mut program = Program::start(&broker.url(), &["--json"]);
    let line = program.says("is ready").await;
    assert!(line.starts_with('{') && line.contains("2 tasks and 1 agents"), "{line}");
    agent.complete(&held, b"done").await.unwrap();
    assert_eq!(await_result(&user, "two").await.unwrap(), b"done");
    program.signal("INT");
    assert_eq!(program.end().await.0, Some(0));
}

#[tokio::test]
async fn a_second_one_stands_by_and_takes_over() {
    let broker = Broker::start();
    let mut first = Program::start(&broker.url(), &[]);
    first.says("is ready").await;
    let mut second = Program::start(&broker.url(), &[]);
    let line = second.says("Standing by on").await;
    assert!(line.contains(&format!("process {}", first.child.id())), "{line}");
    let user = broker.client("user").await;
    let agent = Agent::register(broker.client("ann").await, "ann", json!({})).await;
    submit(&user, &[("Task-Id", "held")], b"").await;
    let held = agent.pull().await;
    first.signal("KILL");
    second.says("Task coordinator is ready, with 1 tasks and 1 agents").await;
    agent.complete(&held, b"done").await.unwrap();
    assert_eq!(await_result(&user, "held").await.unwrap(), b"done");
    assert_eq!(ask(&user, "GET.held", Value::Null).await["attempt"], 1);
    // The first comes back, and now it is the one that waits.
    let mut first = Program::start(&broker.url(), &[]);
    first.says("Standing by on").await;
    round_trip(&user, &agent, "after").await;
    // Told to end, it makes room at once.
    second.signal("TERM");
    first.says("is ready").await;
    assert_eq!(second.end().await.0, Some(0));
    round_trip(&user, &agent, "again").await;
}

#[tokio::test]
async fn of_many_that_start_at_once_one_serves() {
    let broker = Broker::start();
    let user = broker.client("user").await;
    for round in 0..3 {
        let starting = (0..4).map(|n| {
            let options = Options { settings: quick(), host: format!("host {n}"), ..Options::default() };
            let broker = &broker;
            async move { Coordinator::start(broker.client("coordinator").await, options).await.unwrap() }
        });
        let coordinators: Vec<Coordinator> = futures_util::future::join_all(starting).await;
        // Those that claimed at the same instant find out by themselves.
        let serving = loop {
            let count = |wanted: fn(&Health) -> bool| {
                coordinators.iter().filter(|coordinator| wanted(&coordinator.health().borrow())).count()
            };
            if count(|health| matches!(health, Health::Standby(_))) == 3
                && count(|health| *health == Health::Serving) == 1
            {
                break coordinators.iter().position(|it| *it.health().borrow() == Health::Serving).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        // All requests meet the same memory.
        for n in 0..8 {
            let id = format!("t{round}-{n}");
            // Who hears that another has served for an instant reads its state again.
            let headers = HeaderBuilder::new().add("Task-Id", &id).add("Task-Requires", "nobody").build();
            while !user.request_message("$TASK.API.SUBMIT", &headers, b"", LONG).await.is_ok_and(is_fine)
                || !user.request(&format!("$TASK.API.GET.{id}"), b"", LONG).await.is_ok_and(is_fine)
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut others = coordinators;
        others.remove(serving).stop().await;
        let mut health: Vec<_> = others.iter().map(Coordinator::health).collect();
        let next = health.iter_mut().map(|health| Box::pin(health.wait_for(|health| *health == Health::Serving)));
        futures_util::future::select_all(next).await.0.unwrap();
        // Two may have taken over at the same instant.
        let mut total = Value::Null;
        while total.is_null() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Ok(listed) = user.request("$TASK.API.LIST", b"", LONG).await {
                total = serde_json::from_slice::<Value>(listed.payload()).unwrap()["total"].take();
            }
        }
        assert_eq!(total, 8 * (round + 1));
        for other in others {
            other.stop().await;
        }
    }
}

#[tokio::test]
async fn who_meets_another_after_a_cut_yields_or_reads_its_state_again() {
    let broker = Broker::start();
    let user = broker.client("user").await;
    let options = Options { settings: quick(), ..Options::default() };
    let coordinator = Coordinator::start(broker.client("coordinator").await, options).await.unwrap();
    submit(&user, &[("Task-Id", "kept"), ("Task-Requires", "nobody")], b"").await;
    let mut claims = user.subscribe("$TASK.LEAD").unwrap();
    let ours = user.request("$TASK.LEAD", br#"{"id":"x"}"#, LONG).await.unwrap();
    let ours: Value = serde_json::from_slice(ours.payload()).unwrap();
    assert_eq!(ours["serves"], true);

    // A younger one is told, and what it did while it served is taken up.
    let record: Value = ask(&user, "GET.kept", Value::Null).await;
    let mut changed = record.clone();
    changed["priority"] = 9.into();
    for own in ["lease", "type"] {
        changed.as_object_mut().unwrap().remove(own);
    }
    user.publish("$KV.TASK.s.kept", changed.to_string().as_bytes()).unwrap();
    let younger = json!({ "id": "y", "since": "2200-01-01T00:00:00Z", "serves": true });
    user.publish("$TASK.LEAD", younger.to_string().as_bytes()).unwrap();
    while user.request("$TASK.API.GET.kept", b"", LONG).await.ok().is_none_or(|answer| {
        let record: Value = serde_json::from_slice(answer.payload()).unwrap();
        record["priority"] != 9
    }) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let heard = async {
        while let Some(claim) = claims.next().await {
            let claim: Value = serde_json::from_slice(claim.payload()).unwrap();
            if claim["id"] == ours["id"] && claim["since"] == ours["since"] {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, heard).await.expect("the younger one is told to yield");

    // An older one stays: ours stops serving, and asks who does. It is this test, until it goes.
    let mut health = coordinator.health();
    health.borrow_and_update();
    let older = json!({ "id": "z", "since": "2001-01-01T00:00:00Z", "serves": true, "host": "the test" });
    user.publish("$TASK.LEAD", older.to_string().as_bytes()).unwrap();
    let answering = tokio::spawn({
        let user = user.clone();
        async move {
            while let Some(asked) = claims.next().await {
                user.publish_message(asked.reply(), b"", b"", older.to_string().as_bytes()).ok();
            }
        }
    });
    health.wait_for(|health| *health == Health::Standby("the test".to_owned())).await.unwrap();
    assert!(user.request("$TASK.API.LIST", b"", LONG).await.is_err(), "it does not serve");
    answering.abort();
    health.wait_for(|health| *health == Health::Serving).await.unwrap();
    assert_eq!(ask(&user, "LIST", Value::Null).await["total"], 1);
    coordinator.stop().await;
}

#[tokio::test]
async fn it_outlives_its_server() {
    let mut broker = Broker::to_come();
    let mut program = Program::start(&broker.url(), &[]);
    program.says("No server yet at").await;
    broker.restart();
    program.says("is ready").await;
    let user = broker.client("user").await;
    let agent = Agent::register(broker.client("ann").await, "ann", json!({})).await;
    for round in 0..2 {
        let id = format!("t{round}");
        submit(&user, &[("Task-Id", &id)], b"").await;
        // A broker that was killed may deliver once more what is done.
        let mut held = agent.pull().await;
        while held.headers().get_str("Task-Id") != Some(&id) {
            held = agent.pull().await;
        }
        broker.kill();
        program.says("is lost").await;
        broker.restart();
        program.says("Connected again").await;
        program.says("is ready, with").await;
        // The agent has reconnected as well; its lease holds.
        while agent.complete_or_lost(&held, b"done").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(await_result(&user, &id).await.unwrap(), b"done");
    }
    program.signal("TERM");
    assert_eq!(program.end().await.0, Some(0));
}

#[tokio::test]
async fn it_says_why_it_cannot_work() {
    let bare = Broker::without_streams();
    let (code, said) = Program::start(&bare.url(), &[]).end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no JetStream"), "{said}");

    let guarded = Broker::configured(
        r#"authorization { users: [
            { user: in, password: p, permissions: { publish: ">", subscribe: ["_INBOX.>"] } },
            { user: mute, password: p, permissions: { publish: "nothing" } },
            { user: all, password: p },
        ] }"#,
    );
    let check = async |flags: &[&str], code: i32, expected: &str| {
        let (ended, said) = Program::start(&guarded.url(), flags).end().await;
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    check(&[], 5, "Authorization Violation").await;
    check(&["--user", "all", "--password", "x"], 5, "Authorization Violation").await;
    check(&["--user", "in", "--password", "p"], 1, "Permissions Violation for Subscription to \"$").await;
    check(&["--user", "mute", "--password", "p"], 1, "Permissions Violation for Publish to \"$JS.API.INFO\"").await;
    check(&["--creds", "/nowhere"], 2, "Cannot read /nowhere").await;
    let mut fine = Program::start(&guarded.url(), &["--user", "all", "--password", "p"]);
    fine.says("is ready").await;

    // An old server.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut old, _) = listener.accept().await.unwrap();
        old.write_all(b"INFO {\"version\":\"2.10.22\",\"headers\":true,\"max_payload\":1048576}\r\n").await.unwrap();
        let mut buffer = [0; 4096];
        let _ = old.read(&mut buffer).await;
        old.write_all(b"PONG\r\n").await.unwrap();
        while old.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    let (code, said) = Program::start(&url, &[]).end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nats-server 2.10.22") && said.contains("2.12 or newer"), "{said}");
}
