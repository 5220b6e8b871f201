//! `/metrics`, read as strictly as Prometheus' text format is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use natterjack::config::Config;
use natterjack::config::file::read_text;
use natterjack::server::Server;

use super::{Endpoints, Table, connection, recorded, serve, table};

type Labels = BTreeMap<String, String>;

/// A metric with all its samples.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<(String, Labels, f64)>,
}

/// Reads a whole exposition.
///
/// # Panics
/// When it breaks a rule of the format.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    assert!(text.ends_with('\n') && !text.contains('\r'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("what it is");
            assert!(is_name(name, true) && !help.is_empty() && !help.contains('\\'), "{line}");
            assert!(families.insert(name.to_owned(), Family::default()).is_none(), "{name} is there twice");
            name.clone_into(&mut current);
            continue;
        }
        let family = families.get_mut(&current).expect("a metric begins with what it is");
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let kind = kind.strip_prefix(&format!("{current} ")).expect("TYPE follows HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(family.kind.is_empty() && family.samples.is_empty(), "{line}");
            kind.clone_into(&mut family.kind);
            continue;
        }
        let (name, labels, value) = sample(line);
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} is not of {current}"));
        match family.kind.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            kind => assert!(!kind.is_empty() && suffix.is_empty(), "{line}"),
        }
        assert!(family.kind == "gauge" || value >= 0.0, "{line}");
        assert!(seen.insert((name.clone(), labels.clone())), "{line} is there twice");
        family.samples.push((name, labels, value));
    }
    for (name, family) in families.iter().filter(|(_, family)| family.kind == "histogram") {
        check_histogram(name, family);
    }
    families
}

/// Buckets grow up to all there are.
fn check_histogram(name: &str, family: &Family) {
    let mut last: Option<(Labels, f64)> = None;
    for (sample, labels, value) in &family.samples {
        if *sample == format!("{name}_bucket") {
            let mut series = labels.clone();
            let bound = series.remove("le").expect("a bucket has a bound");
            let before = last.filter(|(before, _)| *before == series).map_or(0.0, |(_, value)| value);
            assert!(*value >= before && (bound == "+Inf" || bound.parse::<f64>().is_ok()), "{labels:?}");
            last = Some((series, *value));
        } else if *sample == format!("{name}_count") {
            assert_eq!(last, Some((labels.clone(), *value)), "the last bucket holds all");
        }
    }
}

fn is_name(name: &str, may_have_colons: bool) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (may_have_colons && byte == b':');
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(is_fine)
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (name, rest) = line.split_once('{').expect("every sample here has labels");
    assert!(is_name(name, true), "{line}");
    let (mut labels, mut rest) = (Labels::new(), rest);
    loop {
        let (label, value) = rest.split_once("=\"").expect("a label");
        assert!(is_name(label, false), "{line}");
        let mut plain = String::new();
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().expect("the value ends") {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next().expect("an escape").1 {
                    'n' => plain.push('\n'),
                    other => {
                        assert!(['\\', '"'].contains(&other), "{line}");
                        plain.push(other);
                    }
                },
                (_, other) => plain.push(other),
            }
        };
        assert!(labels.insert(label.to_owned(), plain).is_none(), "{line}");
        match value[end..].split_at(1) {
            (",", more) => rest = more,
            ("}", value) => {
                return (name.to_owned(), labels, value.strip_prefix(' ').unwrap().parse().expect("a number"));
            }
            _ => panic!("{line}"),
        }
    }
}

/// The value of the only series of a metric that has these labels.
fn value(page: &BTreeMap<String, Family>, name: &str, wanted: &[(&str, &str)]) -> f64 {
    let has = |labels: &Labels| wanted.iter().all(|(label, value)| labels.get(*label).is_some_and(|has| has == value));
    let family = ["", "_count", "_sum"].iter().find_map(|end| page.get(name.strip_suffix(end)?));
    let family = family.unwrap_or_else(|| panic!("no {name}"));
    let found: Vec<_> = family.samples.iter().filter(|(sample, labels, _)| sample == name && has(labels)).collect();
    assert_eq!(found.len(), 1, "{name} {wanted:?}: {found:?}");
    found[0].2
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let strange = "a \"client\"\\with\na name";
    let connections = (0..300).map(|at| {
        let mut connection = connection(at, 0);
        connection.name = if at < 7 { strange.to_owned() } else { format!("client {at}") };
        connection
    });
    let endpoints = serve(Table { connections: connections.collect(), ..table() }).await;
    let (status, head, body) = endpoints.ask("GET", "/metrics").await;
    assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let page = parse(&body);
    let every = page.values().flat_map(|family| &family.samples);
    assert!(every.clone().count() > 60 && every.clone().all(|(_, labels, _)| labels.contains_key("server_id")));
    assert_eq!(value(&page, "natterjack_connections", &[("name", strange), ("account", "$G")]), 7.0);
    assert_eq!(page["natterjack_connections"].samples.len(), 100);
    assert_eq!(value(&page, "gnatsd_varz_connections", &[("server_id", "box")]), 300.0);
    assert_eq!(value(&page, "gnatsd_varz_in_msgs", &[]), 7.0);
    assert_eq!(value(&page, "natterjack_memory_held_bytes", &[("server_id", "box")]), 5.0);
    assert_eq!(value(&page, "natterjack_memory_budget_bytes", &[("server_id", "box")]), 9.0);
    for (name, expected) in [
        ("current_connections", 1.0),
        ("subscriptions", 2.0),
        ("received_messages", 3.0),
        ("received_bytes", 4.0),
        ("sent_messages", 5.0),
        ("sent_bytes", 6.0),
        ("slow_consumers", 7.0),
    ] {
        let labels = [("server_id", "box"), ("account", "$G")];
        assert_eq!(value(&page, &format!("gnatsd_accstatz_{name}"), &labels), expected, "{name}");
    }
    assert_eq!(value(&page, "natterjack_metrics_left_out", &[("server_id", "box")]), 0.0);
    let detail = &recorded("jsz")["account_details"][0]["stream_detail"][0];
    let labels = [("server_id", "NSERVER"), ("account", "$G"), ("stream_name", "TASKS")];
    let messages = detail["state"]["messages"].as_f64().unwrap();
    assert_eq!(value(&page, "jetstream_stream_total_messages", &labels), messages);
    let consumer = &detail["consumer_detail"][0];
    let labels = [&labels[..], &[("consumer_name", "agent")]].concat();
    let pending = consumer["num_pending"].as_f64().unwrap();
    assert_eq!(value(&page, "jetstream_consumer_num_pending", &labels), pending);
    let floor = consumer["ack_floor"]["stream_seq"].as_f64().unwrap();
    assert_eq!(value(&page, "jetstream_consumer_ack_floor_stream_seq", &labels), floor);
    assert_eq!(value(&page, "jetstream_account_total_streams", &[("account", "$G")]), 1.0);
    assert_eq!(value(&page, "jetstream_server_total_streams", &[]), 1.0);

    let endpoints = serve(Table { jetstream: false, health: Err("the disk is gone".into()), ..table() }).await;
    let (_, _, body) = endpoints.ask("GET", "/metrics").await;
    let page = parse(&body);
    assert_eq!(value(&page, "jetstream_server_jetstream_disabled", &[("server_name", "box"), ("domain", "")]), 1.0);
    assert_eq!(value(&page, "gnatsd_varz_healthy", &[("server_id", "box")]), 0.0);
}

#[tokio::test]
async fn a_thousand_accounts_streams_and_consumers_have_series_and_the_others_are_counted() {
    let endpoints = serve(Table { many: 1003, ..table() }).await;
    let (_, _, body) = endpoints.ask("GET", "/metrics").await;
    let page = parse(&body);
    for name in ["gnatsd_accstatz_subscriptions", "jetstream_stream_first_seq", "jetstream_consumer_num_pending"] {
        assert_eq!(page[name].samples.len(), 1000, "{name}");
    }
    assert_eq!(value(&page, "natterjack_metrics_left_out", &[]), 9.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subjects_and_tasks_are_counted_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let text = "metrics { subjects: [\"chorus.councils.*.status\", \"load.>\"], subjects_max: 50 }";
    let config = read_text(Config::on_free_ports(folder.path()), text).unwrap();
    let server = Server::start(config).await.unwrap();
    let endpoints = Endpoints {
        address: server.monitor_address().unwrap(),
        stop: tokio_util::sync::CancellationToken::new(),
        serving: tokio::spawn(async {}),
    };
    let client = async_nats::ConnectOptions::new().name("agent 7").connect(server.client_url()).await.unwrap();
    let mut status = client.subscribe("chorus.councils.*.status").await.unwrap();
    client.flush().await.unwrap();
    for at in 0..10_000 {
        client.publish(format!("load.{at}"), "12345".into()).await.unwrap();
        client.publish(format!("other.{at}"), "12345".into()).await.unwrap();
    }
    for _ in 0..3 {
        client.publish("chorus.councils.7.status", "formed".into()).await.unwrap();
        status.next().await.unwrap();
    }

    // One task waits, and one is done by whoever pulls.
    let ask = async |subject: &str, headers: &[(&str, &str)], body: &str| {
        let mut map = async_nats::HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        let answer = client.request_with_headers(format!("$TASK.API.{subject}"), map, body.to_owned().into());
        let answer = answer.await.unwrap().payload;
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
    };
    ask("QUEUE.PUT.pulled", &[], r#"{"mode":"pull"}"#).await;
    ask("SUBMIT", &[("Task-Queue", "pulled")], "work").await;
    ask("SUBMIT", &[], "work").await;
    ask("AGENT.REGISTER.a1", &[], r#"{"queues":["elsewhere"]}"#).await;
    let stream = async_nats::jetstream::new(client.clone()).get_stream("KV_TASK").await.unwrap();
    let consumer: async_nats::jetstream::consumer::PullConsumer = stream.get_consumer("queue_pulled").await.unwrap();
    let work = consumer.messages().await.unwrap().next().await.unwrap().unwrap();
    work.double_ack().await.unwrap();

    let done = async {
        loop {
            let (_, _, body) = endpoints.ask("GET", "/metrics").await;
            let page = parse(&body);
            let ended = &page["natterjack_tasks_ended_total"].samples;
            let is_done = |(_, labels, value): &&(String, Labels, f64)| labels["phase"] == "completed" && *value > 0.0;
            if ended.iter().any(|sample| is_done(&sample)) && page["natterjack_agents"].samples[0].2 > 0.0 {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let page = tokio::time::timeout(Duration::from_secs(60), done).await.expect("a task is counted as done");
    assert_eq!(value(&page, "natterjack_coordinator_up", &[("account", "$G")]), 1.0);
    assert_eq!(value(&page, "natterjack_agents", &[("status", "online")]), 1.0);
    assert_eq!(value(&page, "natterjack_tasks", &[("queue", "pulled"), ("phase", "completed")]), 1.0);
    assert_eq!(value(&page, "natterjack_tasks", &[("queue", "default"), ("phase", "queued")]), 1.0);
    assert_eq!(value(&page, "natterjack_tasks_submitted_total", &[("queue", "default")]), 1.0);
    assert_eq!(value(&page, "natterjack_task_seconds_count", &[("queue", "pulled")]), 1.0);
    assert_eq!(value(&page, "natterjack_task_leases_lost_total", &[("queue", "pulled"), ("reason", "expired")]), 0.0);
    assert_eq!(value(&page, "natterjack_connections", &[("name", "agent 7")]), 1.0);

    let samples = &page["natterjack_subject_in_msgs_total"].samples;
    assert_eq!(samples.len(), 52, "fifty subjects and two filters");
    assert_eq!(samples.iter().map(|(.., count)| count).sum::<f64>(), 10_003.0);
    assert_eq!(value(&page, "natterjack_subject_in_msgs_total", &[("subject", "load.>")]), 9_950.0);
    assert_eq!(value(&page, "natterjack_subject_in_bytes_total", &[("subject", "load.7"), ("account", "$G")]), 5.0);
    let council = [("subject", "chorus.councils.*.status")];
    assert_eq!(value(&page, "natterjack_subject_out_msgs_total", &council), 3.0);
    server.stop().await;
}
