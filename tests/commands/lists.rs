//! Lists that are longer than one answer, from a coordinator that is played here and answers in short pages.

use natterjack::client::Client;
use serde_json::{Value, json};

use super::support::World;

/// How many a page holds here, however many are asked for.
const PAGE: usize = 7;

/// Answers requests below `$TASK.API.`: lists in short pages, and an error where `broken` names the endpoint.
async fn play(client: &Client, broken: &'static [&'static str]) {
    let mut requests = client.subscribe("$TASK.API.>").unwrap();
    client.flush().await.unwrap();
    let client = client.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let endpoint = request.subject_str().trim_start_matches("$TASK.API.").to_owned();
            let filter: Value = serde_json::from_slice(request.payload()).unwrap_or_default();
            if broken.contains(&endpoint.as_str()) {
                let headers = b"NATS/1.0\r\nNats-Service-Error: it hurts\r\nNats-Service-Error-Code: 500\r\n\r\n";
                client.publish_message(request.reply(), b"", headers, b"").unwrap();
                continue;
            }
            let (field, id) = match endpoint.as_str() {
                "AGENT.LIST" => ("agents", "id"),
                "QUEUE.LIST" => ("queues", "queue"),
                "CRON.LIST" => ("crons", "cron"),
                "DLQ.LIST" => ("letters", "id"),
                _ => ("tasks", "id"),
            };
            let all: Vec<Value> = (0..40)
                .map(|n| json!({id: format!("e{n:02}"), "status": "online", "queues": ["*"], "slots": 1}))
                .filter(|one| one[id].as_str() > filter["after"].as_str())
                .collect();
            let count = PAGE.min(filter["limit"].as_u64().unwrap_or(u64::MAX) as usize).min(all.len());
            let answer = json!({
                field: all[..count], "left": all.len() - count, "total": 40, "available": 31, "online": 38, "draining": 0,
                "offline": 2,
            });
            client.publish_message(request.reply(), b"", b"", answer.to_string().as_bytes()).unwrap();
        }
    });
}

async fn world(broken: &'static [&'static str]) -> (World, Client) {
    let world = World::start_with(|mut config| {
        config.coordinator = false;
        config
    })
    .await;
    let client = world.client("coordinator").await;
    play(&client, broken).await;
    (world, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_read_to_their_end() {
    let (world, _client) = world(&[]).await;
    let table = world.run(&["agent", "ls"]).await.fine();
    assert_eq!(table.lines().count(), 42, "{table}");
    assert!(table.contains("\ne39 "), "{table}");
    assert!(table.ends_with("\n40 agents: 38 online, 0 draining, 2 offline; 31 with a free slot.\n"), "{table}");
    let some = world.run(&["agent", "ls", "--limit", "9", "--after", "e04", "--status", "online"]).await.fine();
    let lines: Vec<&str> = some.lines().collect();
    assert_eq!(lines.len(), 12, "{some}");
    assert!(lines[9].starts_with("e13 ") && lines[10] == "26 more: --limit, or --after the last one here.", "{some}");
    let all = world.run(&["task", "ls", "--limit", "1000", "--json"]).await.json();
    assert_eq!((all["tasks"].as_array().unwrap().len(), &all["left"]), (40, &json!(0)));
    let letters = world.run(&["dlq", "ls", "--limit", "20"]).await.fine();
    assert_eq!(letters.lines().count(), 22, "{letters}");
    let crons = world.run(&["cron", "ls", "--json"]).await.json();
    assert_eq!(crons["crons"].as_array().unwrap().len(), 40);
    let queues = world.run(&["queue", "ls", "--json"]).await.json();
    assert_eq!(queues["queues"].as_array().unwrap().len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_says_what_it_could_not_read() {
    let (whole, _client) = world(&[]).await;
    let fine = whole.run(&["doctor", "--listen", "100ms", "--json"]).await;
    let findings: Value = serde_json::from_str(&fine.stdout).unwrap();
    let letters = findings["findings"].as_array().unwrap().iter().find(|one| one["check"] == "dead-letters").unwrap();
    assert!(letters["text"].as_str().unwrap().starts_with("40 tasks were given up"), "all pages: {letters}");

    let (world, _client) = world(&["AGENT.LIST"]).await;
    let ended = world.run(&["doctor", "--listen", "100ms"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("WARNING [not-examined] agents (AGENT.LIST)"), "{ended:?}");
    assert!(ended.stdout.contains("could not be examined: It hurts."), "{ended:?}");
    assert!(!ended.stdout.contains("Nothing is wrong"), "{ended:?}");
    let nobody = world.run(&["doctor", "--listen", "100ms", "--monitor", "http://127.0.0.1:1"]).await;
    assert!(nobody.stdout.contains("[not-examined] monitoring"), "{nobody:?}");
}
