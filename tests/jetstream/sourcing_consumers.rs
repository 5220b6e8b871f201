//! Streams that take from others through a consumer (ADR-60): one that the configuration names, one that the server makes
//! where acks decide what the origin keeps, and one under another API prefix. What is expected is what nats-server 2.15.1
//! did.

use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{Bench, soon};

fn state(info: &Value) -> [u64; 3] {
    ["messages", "first_seq", "last_seq"].map(|field| info["state"][field].as_u64().unwrap_or(0))
}

async fn names(bench: &Bench, stream: &str) -> Value {
    bench.api(&format!("CONSUMER.NAMES.{stream}"), Value::Null).await["consumers"].clone()
}

async fn payloads(bench: &Bench, stream: &str) -> Vec<String> {
    let [_, first, last] = state(&bench.info(stream).await);
    let mut found = Vec::new();
    for seq in first.max(1)..=last {
        found.push(bench.stored(stream, seq).await.payload);
    }
    found
}

/// A consumer for somebody else's source.
async fn consumer(bench: &Bench, stream: &str, name: &str, more: Value) -> Value {
    let mut config =
        json!({"durable_name": name, "deliver_subject": format!("to.{name}"), "ack_policy": "flow_control"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"stream_name": stream, "config": config});
    bench.api(&format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), body).await
}

fn through(stream: &str, name: &str) -> Value {
    json!({"name": stream, "consumer": {"name": name, "deliver_subject": format!("to.{name}")}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interest_and_work_queue_origins_let_go_of_what_was_taken() {
    let mut bench = Bench::start().await;
    bench.create(json!({"name": "Q", "subjects": ["q"], "retention": "workqueue", "max_consumers": 1})).await;
    bench.create(json!({"name": "I", "subjects": ["i.*"], "retention": "interest"})).await;
    bench.create(json!({"name": "SQ", "sources": [{"name": "Q"}]})).await;
    bench.create(json!({"name": "SI", "sources": [{"name": "I", "filter_subject": "i.1"}]})).await;
    bench.create(json!({"name": "MI", "mirror": {"name": "I"}})).await;
    bench.info_when("I", |info| info["state"]["consumer_count"] == 2).await;
    bench.info_when("Q", |info| info["state"]["consumer_count"] == 1).await;
    assert_eq!(names(&bench, "Q").await, json!(["JS_SRC_U3bSS1wB"]));
    assert_eq!(names(&bench, "I").await, json!(["JS_MIRROR_ChU0hG3N", "JS_SRC_hG02xVUU"]));
    for subject in ["q", "q", "i.0", "i.1", "i.2"] {
        bench.publish(subject, subject).await;
    }
    bench.reached("SQ", 2).await;
    bench.reached("SI", 1).await;
    bench.reached("MI", 3).await;
    // What is durable here is acked there, with the next answer to flow control.
    bench.info_when("Q", |info| state(info) == [0, 3, 2]).await;
    bench.info_when("I", |info| state(info) == [0, 4, 3]).await;
    let info = bench.api("CONSUMER.INFO.Q.JS_SRC_U3bSS1wB", Value::Null).await;
    let config = &info["config"];
    assert_eq!((&config["ack_policy"], &config["sourcing"]), (&json!("flow_control"), &json!(true)));
    assert_eq!((&config["direct"], &config["max_ack_pending"]), (&Value::Null, &json!(1000)));
    assert_eq!(config["metadata"]["_nats.src.stream"], "SQ");
    assert_eq!(info["ack_floor"]["stream_seq"], 2);
    // It does not take a place of the origin's own consumers, and outlives a restart.
    let own = json!({"stream_name": "Q", "config": {"durable_name": "own", "ack_policy": "explicit"}});
    assert_eq!(bench.api("CONSUMER.DURABLE.CREATE.Q.own", own).await["error"], Value::Null);
    bench.restart().await;
    bench.publish("q", "after").await;
    bench.publish("i.1", "after").await;
    bench.reached("SQ", 3).await;
    bench.reached("SI", 2).await;
    assert_eq!(payloads(&bench, "SI").await, ["i.1", "after"]);
    bench.reached("MI", 4).await;
    // Both consumers of the work queue have to be done with a message.
    bench.info_when("I", |info| state(info)[0] == 0).await;
    assert_eq!(state(&bench.info("Q").await)[0], 1);
    // Whoever takes no more gives up its consumer.
    bench.api("STREAM.DELETE.SQ", Value::Null).await;
    bench.update(json!({"name": "SI", "subjects": ["si"]})).await;
    bench.update(json!({"name": "MI", "subjects": ["mi"]})).await;
    bench.info_when("I", |info| info["state"]["consumer_count"] == 0).await;
    bench.info_when("Q", |info| info["state"]["consumer_count"] == 1).await;
    assert_eq!((names(&bench, "Q").await, names(&bench, "I").await), (json!(["own"]), json!([])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_much_larger_than_the_window_moves_over_whole() {
    const COUNT: u64 = 6000;
    let mut bench = Bench::start().await;
    bench.create(json!({"name": "Q", "subjects": ["q"], "retention": "workqueue"})).await;
    bench.create(json!({"name": "S", "sources": [{"name": "Q"}]})).await;
    let payload = "x".repeat(1000);
    for number in 0..COUNT {
        bench.client.publish("q", format!("{number} {payload}").into()).await.unwrap();
        if number == COUNT / 2 {
            bench.client.flush().await.unwrap();
            bench.info_when("S", |info| state(info)[2] > COUNT / 8).await;
            bench.restart().await;
        }
    }
    let info = bench.reached("S", COUNT).await;
    assert_eq!((state(&info), &info["sources"][0]["lag"]), ([COUNT, 1, COUNT], &json!(0)));
    for seq in [1, 2, COUNT / 2, COUNT / 2 + 1, COUNT / 2 + 2, COUNT - 1, COUNT] {
        let stored = bench.stored("S", seq).await;
        assert!(stored.payload.starts_with(&format!("{} ", seq - 1)), "{seq}: {}", &stored.payload[..10]);
    }
    bench.info_when("Q", |info| state(info)[0] == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_consumer_decides_what_is_sourced_and_may_be_reset() {
    let mut bench = Bench::start().await;
    bench.create(json!({"name": "O", "subjects": ["o.*"], "retention": "interest"})).await;
    consumer(&bench, "O", "c", json!({"filter_subjects": ["o.0", "o.1"]})).await;
    for number in 0..6 {
        bench.publish(&format!("o.{}", number % 3), &number.to_string()).await;
    }
    let created = bench.create(json!({"name": "S", "sources": [through("O", "c")]})).await;
    assert_eq!(created["sources"], json!([{"name": "O", "lag": 0, "active": -1}]));
    bench.reached("S", 4).await;
    assert_eq!(payloads(&bench, "S").await, ["0", "1", "3", "4"]);
    let stored = bench.stored("S", 1).await;
    assert!(
        stored.headers.starts_with("NATS/1.0\r\nNats-Stream-Source: O:C=k1i3jIye 1 > > o.0 "),
        "{}",
        stored.headers
    );
    bench.info_when("O", |info| state(info)[0] == 0).await;
    // Held, moved ahead, and let go: what was skipped does not come.
    bench.api("CONSUMER.PAUSE.O.c", json!({"pause_until": "2040-01-01T00:00:00Z"})).await;
    for number in 6..12 {
        bench.publish(&format!("o.{}", number % 3), &number.to_string()).await;
    }
    assert_eq!(bench.api("CONSUMER.RESET.O.c", json!({"seq": 10})).await["reset_seq"], 10);
    bench.restart().await;
    bench.api("CONSUMER.PAUSE.O.c", Value::Null).await;
    bench.reached("S", 6).await;
    assert_eq!(payloads(&bench, "S").await[4..], ["9", "10"]);
    // Moved back: nothing comes twice.
    bench.publish("o.0", "12").await;
    bench.reached("S", 7).await;
    bench.api("CONSUMER.RESET.O.c", json!({"seq": 1})).await;
    bench.publish("o.0", "13").await;
    bench.reached("S", 8).await;
    assert_eq!(payloads(&bench, "S").await[6..], ["12", "13"]);
    // The consumer is its owner's: it stays.
    bench.api("STREAM.DELETE.S", Value::Null).await;
    assert_eq!(names(&bench, "O").await, json!(["c"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_through_a_consumer_keeps_sequences() {
    let bench = Bench::start().await;
    bench.plain("O", "o.*").await;
    for number in 0..6 {
        bench.publish(&format!("o.{}", number % 2), &number.to_string()).await;
    }
    bench.create(json!({"name": "M", "mirror": through("O", "m")})).await;
    // The consumer comes late, and starts with the last of each subject.
    let made = consumer(&bench, "O", "m", json!({"deliver_policy": "last_per_subject", "filter_subject": "o.*"})).await;
    assert_eq!(made["error"], Value::Null);
    assert_eq!(state(&bench.reached("M", 6).await), [2, 5, 6]);
    bench.publish("o.1", "6").await;
    let info = bench.reached("M", 7).await;
    assert_eq!((state(&info), &info["mirror"]["error"]), ([3, 5, 7], &Value::Null));
    assert_eq!(bench.stored("M", 5).await, bench.stored("O", 5).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_do_is_told() {
    let bench = Bench::start().await;
    bench.plain("O", "o").await;
    consumer(&bench, "O", "plain", json!({"ack_policy": "all"})).await;
    bench.create(json!({"name": "S", "sources": [through("O", "plain")]})).await;
    bench.create(json!({"name": "M", "mirror": through("O", "plain")})).await;
    bench.info_when("S", |info| info["sources"][0]["error"]["err_code"] == 10217).await;
    bench.info_when("M", |info| info["mirror"]["error"]["err_code"] == 10214).await;
    for more in [
        json!({"opt_start_seq": 3}),
        json!({"filter_subject": "o"}),
        json!({"opt_start_time": "2026-01-01T00:00:00Z"}),
        json!({"consumer": {"name": "", "deliver_subject": "x"}}),
        json!({"consumer": {"name": "a", "deliver_subject": "x.*"}}),
    ] {
        let mut source = through("O", "plain");
        source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let refused = bench.create(json!({"name": "B", "sources": [source]})).await;
        assert_eq!(refused["error"]["err_code"], 10215, "{more}");
    }
    // Another stream of the name is noticed by its identity.
    let create = json!({"stream_name": "O", "config": {"name": "x", "deliver_subject": "to.x", "direct": true,
        "sourcing": true}});
    let ask = |identity: &'static str| {
        let (client, create) = (bench.client.clone(), create.clone());
        async move {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Stream-Identity", identity);
            soon(client.request_with_headers("$JS.API.CONSUMER.CREATE.O", headers, create.to_string().into())).await
        }
    };
    let other = ask("11111111").await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&other.payload).unwrap()["error"]["err_code"], 10225);
    let made = ask("").await.unwrap();
    assert_eq!(made.headers.unwrap().get("Nats-Stream-Identity").unwrap().as_str().len(), 8);
    let name = serde_json::from_slice::<Value>(&made.payload).unwrap()["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("x-") && name.len() == 10, "{name}");
    // It is used by a server, and none of its owner's business.
    assert_eq!(names(&bench, "O").await, json!(["plain"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interest_stream_made_anew_is_sourced_from_its_beginning() {
    let bench = Bench::start().await;
    let origin = json!({"name": "O", "subjects": ["o"], "retention": "interest"});
    bench.create(origin.clone()).await;
    bench.create(json!({"name": "S", "sources": [{"name": "O"}]})).await;
    bench.info_when("O", |info| info["state"]["consumer_count"] == 1).await;
    for payload in ["0", "1", "2"] {
        bench.publish("o", payload).await;
    }
    bench.reached("S", 3).await;
    bench.api("STREAM.DELETE.O", Value::Null).await;
    bench.create(origin).await;
    bench.info_when("O", |info| info["state"]["consumer_count"] == 1).await;
    bench.publish("o", "new").await;
    bench.reached("S", 4).await;
    assert_eq!(payloads(&bench, "S").await, ["0", "1", "2", "new"]);
}

/// Answers under another prefix with what the API says.
async fn relay(client: Client, prefix: &'static str) -> tokio::task::JoinHandle<()> {
    let mut requests = soon(client.subscribe(format!("{prefix}.>"))).await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let subject = request.subject.replacen(prefix, "$JS.API", 1);
            let headers = request.headers.unwrap_or_default();
            let Ok(answer) = client.request_with_headers(subject, headers, request.payload).await else { continue };
            let Some(reply) = request.reply else { continue };
            let headers = answer.headers.unwrap_or_default();
            client.publish_with_headers(reply, headers, answer.payload).await.unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_under_another_prefix_is_followed_when_somebody_answers_there() {
    let bench = Bench::start().await;
    bench.plain("O", "o.*").await;
    let external =
        |api: &str| json!({"name": "O", "filter_subject": "o.1", "external": {"api": api, "deliver": "far"}});
    let config = |name: &str, api: &str| json!({"name": name, "sources": [external(api)]});
    assert_eq!(bench.create(config("S", "$JS.API")).await["error"]["err_code"], 10021);
    assert_eq!(bench.create(config("S", "a.*")).await["error"]["err_code"], 10052);
    let created = bench.create(config("S", "ELSE.API")).await;
    assert_eq!(created["sources"][0]["external"], json!({"api": "ELSE.API", "deliver": "far"}));
    bench.create(json!({"name": "M", "mirror": external("ELSE.API")})).await;
    for number in 0..4 {
        bench.publish(&format!("o.{}", number % 2), &number.to_string()).await;
    }
    // Nobody there: nothing is heard, nothing is told.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let info = bench.info("S").await;
    assert_eq!((state(&info), &info["sources"][0]["active"]), ([0, 0, 0], &json!(-1)));
    assert_eq!(info["sources"][0]["error"], Value::Null);
    let relay = relay(bench.connect().await, "ELSE.API").await;
    bench.reached("S", 2).await;
    assert_eq!(payloads(&bench, "S").await, ["1", "3"]);
    assert!(bench.stored("S", 1).await.headers.contains("Nats-Stream-Source: O:"));
    assert_eq!(state(&bench.reached("M", 4).await), [2, 2, 4]);
    let info = bench.info_when("S", |info| info["sources"][0]["active"] != -1).await;
    assert_eq!(info["sources"][0]["lag"], 0);
    bench.publish("o.1", "5").await;
    bench.reached("S", 3).await;
    bench.reached("M", 5).await;
    // Its consumers are counted in the account, and not listed.
    assert_eq!(names(&bench, "O").await, json!([]));
    assert_eq!(bench.info("O").await["state"]["consumer_count"], 0);
    assert_eq!(bench.api("INFO", Value::Null).await["consumers"], 2);
    relay.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_prefix_of_the_servers_own_domain_is_its_own_api() {
    let domain = |mut config: natterjack::config::Config| {
        config.jetstream_options.domain = Some("HUB".into());
        config
    };
    let bench = Bench::start_with(domain).await;
    bench.plain("O", "o").await;
    bench.create(json!({"name": "Q", "subjects": ["q"], "retention": "workqueue"})).await;
    let external = |name: &str| json!({"name": name, "external": {"api": "$JS.HUB.API", "deliver": ""}});
    bench.create(json!({"name": "S", "sources": [external("O"), external("Q")]})).await;
    bench.create(json!({"name": "M", "mirror": external("O")})).await;
    bench.publish("o", "x").await;
    bench.publish("q", "y").await;
    bench.reached("S", 2).await;
    bench.reached("M", 1).await;
    bench.info_when("Q", |info| state(info)[0] == 0).await;
    let names = names(&bench, "Q").await;
    let info = bench.api(&format!("CONSUMER.INFO.Q.{}", names[0].as_str().unwrap()), Value::Null).await;
    assert_eq!(info["config"]["metadata"]["_nats.src.domain"], "HUB");
}
