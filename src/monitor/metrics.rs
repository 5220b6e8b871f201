//! `/metrics`: Prometheus text, under the names that prometheus-nats-exporter gives nats-server's reports, so that dashboards
//! made for it work. What it has no names for begins with `natterjack_`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::process;
use super::source::{Account, ByName, Identity, JetStream, Source, Stream, SubjectTraffic, TaskQueue, Tasks, Wanted};
use crate::types::Timestamp;

/// Accounts, streams, and consumers, that get series of their own; the others are counted in
/// `natterjack_metrics_left_out`.
const SERIES_MAX: usize = 1000;
/// Names of clients that get series of their own, the most frequent first.
const CLIENT_NAMES_MAX: usize = 100;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric: its name's end, its type, what it is, and its value for one row of a table.
type Figure<T> = (&'static str, &'static str, &'static str, fn(&T) -> f64);
/// What has figures, under its labels.
type Row<T> = (String, T);

/// Lines of one text, each metric's together.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.text, "{name}{{{labels}}} {value}");
    }

    /// One metric without a table.
    fn single(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: f64) {
        self.metric(name, kind, help);
        self.sample(name, labels, value);
    }

    /// A sample of every figure for every row.
    fn table<T>(&mut self, prefix: &str, rows: &[Row<T>], figures: &[Figure<T>]) {
        for (name, kind, help, figure) in figures {
            let name = format!("{prefix}{name}");
            self.metric(&name, kind, help);
            for (labels, row) in rows {
                self.sample(&name, labels, figure(row));
            }
        }
    }

    /// A metric with a sample for each name that a row has a value for.
    fn by_name<T>(&mut self, metric: [&str; 3], label: &str, rows: &[Row<T>], values: fn(&T) -> &ByName) {
        let [name, kind, help] = metric;
        self.metric(name, kind, help);
        for (of_row, row) in rows {
            for (value_of, value) in values(row) {
                self.sample(name, &format!("{of_row},{}", labels(&[(label, value_of)])), *value as f64);
            }
        }
    }
}

pub async fn report(identity: &Identity, source: &dyn Source, now: Timestamp) -> String {
    let mut page = Page::default();
    let server = labels(&[("server_id", &identity.server_name)]);
    of_server(&mut page, identity, source, &server, now);
    of_clients(&mut page, source, &server);
    let accounts_left_out = of_accounts(&mut page, source.accounts(), &server);
    of_subjects(&mut page, source.subjects(), &server);
    of_tasks(&mut page, source.tasks(), &server);
    let left_out = accounts_left_out + of_jetstream(&mut page, identity, &source.jetstream(true, true).await);
    let help = "Accounts, streams and consumers beyond the thousand each that have series.";
    page.single("natterjack_metrics_left_out", "gauge", help, &server, left_out as f64);
    page.text
}

fn of_server(page: &mut Page, identity: &Identity, source: &dyn Source, server: &str, now: Timestamp) {
    let totals = source.totals();
    let uptime = now.since(identity.start);
    let figures: [(&str, &str, &str, f64); 15] = [
        ("connections", "gauge", "Clients connected now.", totals.connections as f64),
        ("total_connections", "counter", "Clients that ever connected.", totals.total_connections as f64),
        ("subscriptions", "gauge", "Subscriptions now.", totals.subscriptions as f64),
        ("in_msgs", "counter", "Messages published by clients.", totals.in_msgs as f64),
        ("in_bytes", "counter", "Bytes published by clients.", totals.in_bytes as f64),
        ("out_msgs", "counter", "Messages delivered to clients.", totals.out_msgs as f64),
        ("out_bytes", "counter", "Bytes delivered to clients.", totals.out_bytes as f64),
        ("slow_consumers", "counter", "Clients cut because they read too slowly.", totals.slow_consumers as f64),
        ("stale_connections", "counter", "Clients cut because they answered no PING.", totals.stale_connections as f64),
        ("stalled_clients", "counter", "Times a publisher waited for its receivers.", totals.stalled_clients as f64),
        ("mem", "gauge", "Resident memory in bytes.", process::memory_bytes() as f64),
        ("cpu", "gauge", "Percent of one core since the start.", process::cpu_percent(uptime)),
        ("cores", "gauge", "Cores of the machine.", process::cores() as f64),
        ("start", "gauge", "When the server started, in milliseconds since 1970.", identity.start.nanos() as f64 / 1e6),
        ("healthy", "gauge", "1 while the server serves.", f64::from(u8::from(source.health().is_ok()))),
    ];
    for (name, kind, help, value) in figures {
        page.single(&format!("gnatsd_varz_{name}"), kind, help, server, value);
    }
    for (name, help, bytes) in [
        ("natterjack_memory_held_bytes", "What clients make the server hold.", totals.memory_held_bytes),
        ("natterjack_memory_budget_bytes", "How much that may be.", totals.memory_budget_bytes),
    ] {
        page.metric(name, "gauge", help);
        page.sample(name, server, bytes as f64);
    }
}

/// How many clients of each name are connected.
fn of_clients(page: &mut Page, source: &dyn Source, server: &str) {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    for client in source.connections(&Wanted::default()) {
        *counts.entry((client.account, client.name)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(CLIENT_NAMES_MAX);
    let of = |((account, name), count): ((String, String), u64)| {
        (format!("{server},{}", labels(&[("account", &account), ("name", &name)])), count)
    };
    let rows: Vec<Row<u64>> = counts.into_iter().map(of).collect();
    let help = "Clients connected now by name, the hundred most frequent.";
    page.table("natterjack_", &rows, &[("connections", "gauge", help, |count| *count as f64)]);
}

/// Returns how many have no series.
fn of_accounts(page: &mut Page, mut accounts: Vec<Account>, server: &str) -> usize {
    let left_out = accounts.len().saturating_sub(SERIES_MAX);
    accounts.sort_by(|left, right| left.name.cmp(&right.name));
    accounts.truncate(SERIES_MAX);
    let labelled = |account: Account| (format!("{server},{}", labels(&[("account", &account.name)])), account);
    let rows: Vec<Row<Account>> = accounts.into_iter().map(labelled).collect();
    page.table(
        "gnatsd_accstatz_",
        &rows,
        &[
            ("current_connections", "gauge", "Clients in the account.", |account| account.connections as f64),
            ("subscriptions", "gauge", "Subscriptions in the account.", |account| account.subscriptions as f64),
            ("received_messages", "counter", "Messages its clients published.", |account| account.in_msgs as f64),
            ("received_bytes", "counter", "Bytes its clients published.", |account| account.in_bytes as f64),
            ("sent_messages", "counter", "Messages its clients got.", |account| account.out_msgs as f64),
            ("sent_bytes", "counter", "Bytes its clients got.", |account| account.out_bytes as f64),
            ("slow_consumers", "counter", "Its clients cut because they read too slowly.", |account| {
                account.slow_consumers as f64
            }),
        ],
    );
    left_out
}

fn of_subjects(page: &mut Page, subjects: Vec<SubjectTraffic>, server: &str) {
    let labelled = |traffic: SubjectTraffic| {
        let own = labels(&[("account", &traffic.account), ("subject", &traffic.subject)]);
        (format!("{server},{own}"), traffic)
    };
    let rows: Vec<Row<SubjectTraffic>> = subjects.into_iter().map(labelled).collect();
    page.table(
        "natterjack_subject_",
        &rows,
        &[
            ("in_msgs_total", "counter", "Messages published on the subject.", |traffic| traffic.in_msgs as f64),
            ("in_bytes_total", "counter", "Bytes published on the subject.", |traffic| traffic.in_bytes as f64),
            ("out_msgs_total", "counter", "Messages handed on to subscribers and streams.", |traffic| {
                traffic.out_msgs as f64
            }),
        ],
    );
}

fn of_tasks(page: &mut Page, accounts: Vec<Tasks>, server: &str) {
    let mut queues: Vec<Row<TaskQueue>> = Vec::new();
    let mut agents: Vec<Row<Tasks>> = Vec::new();
    for mut tasks in accounts {
        for queue in std::mem::take(&mut tasks.queues) {
            let own = labels(&[("account", &tasks.account), ("queue", &queue.name)]);
            queues.push((format!("{server},{own}"), queue));
        }
        agents.push((format!("{server},{}", labels(&[("account", &tasks.account)])), tasks));
    }
    let up: Figure<Tasks> = ("coordinator_up", "gauge", "1 while the task coordinator is at work.", |tasks| {
        f64::from(u8::from(tasks.serving))
    });
    page.table("natterjack_", &agents, &[up]);
    page.by_name(["natterjack_agents", "gauge", "Registered agents."], "status", &agents, |tasks| &tasks.agents);
    page.by_name(["natterjack_tasks", "gauge", "Tasks there are."], "phase", &queues, |queue| &queue.tasks);
    let help = "Tasks submitted.";
    page.table("natterjack_", &queues, &[("tasks_submitted_total", "counter", help, |queue| queue.submitted as f64)]);
    let ended = ["natterjack_tasks_ended_total", "counter", "Tasks that ended; dead ones left a dead letter."];
    page.by_name(ended, "phase", &queues, |queue| &queue.ended);
    let lost = ["natterjack_task_leases_lost_total", "counter", "Leases that ended without a word of the agent."];
    page.by_name(lost, "reason", &queues, |queue| &queue.leases_lost);
    let name = "natterjack_task_seconds";
    page.metric(name, "histogram", "Seconds from a task's submission to its completion.");
    for (of_queue, queue) in &queues {
        let bounds = queue.seconds.iter().map(|(bound, count)| (bound.to_string(), *count));
        for (bound, count) in bounds.chain([("+Inf".to_owned(), queue.seconds_count)]) {
            page.sample(&format!("{name}_bucket"), &format!("{of_queue},{}", labels(&[("le", &bound)])), count as f64);
        }
        page.sample(&format!("{name}_sum"), of_queue, queue.seconds_sum);
        page.sample(&format!("{name}_count"), of_queue, queue.seconds_count as f64);
    }
}

/// Returns how many streams and consumers have no series.
fn of_jetstream(page: &mut Page, identity: &Identity, accounts: &[JetStream]) -> usize {
    let server = labels(&[
        ("server_id", &identity.server_id),
        ("server_name", &identity.server_name),
        ("domain", &identity.domain),
    ]);
    let disabled = f64::from(u8::from(accounts.is_empty()));
    page.single("jetstream_server_jetstream_disabled", "gauge", "1 when JetStream is off.", &server, disabled);
    let figures: [Figure<&JetStream>; 8] = [
        ("total_streams", "gauge", "Streams.", |jetstream| jetstream.num_streams as f64),
        ("total_consumers", "gauge", "Consumers.", |jetstream| jetstream.num_consumers as f64),
        ("total_messages", "gauge", "Stored messages.", |jetstream| jetstream.messages as f64),
        ("total_message_bytes", "gauge", "Bytes of stored messages.", |jetstream| jetstream.bytes as f64),
        ("memory_used", "gauge", "Bytes of memory streams.", |jetstream| jetstream.memory_bytes as f64),
        ("storage_used", "gauge", "Bytes of file streams.", |jetstream| jetstream.storage_bytes as f64),
        ("api_requests", "counter", "API requests.", |jetstream| jetstream.api_total as f64),
        ("api_errors", "counter", "API requests that were refused.", |jetstream| jetstream.api_errors as f64),
    ];
    let of_account = |jetstream: &JetStream| format!("{server},{}", labels(&[("account", &jetstream.account)]));
    let rows: Vec<Row<&JetStream>> = accounts.iter().map(|jetstream| (of_account(jetstream), jetstream)).collect();
    page.table("jetstream_account_", &rows, &figures);
    for (name, kind, help, figure) in figures {
        let sum = accounts.iter().map(|jetstream| figure(&jetstream)).sum();
        page.single(&format!("jetstream_server_{name}"), kind, help, &server, sum);
    }
    let of_stream = |account: &JetStream, stream: &Stream| {
        labels(&[("server_id", &identity.server_id), ("account", &account.account), ("stream_name", &stream.name)])
    };
    let streams: Vec<(&JetStream, &Stream)> =
        accounts.iter().flat_map(|account| account.streams.iter().map(move |stream| (account, stream))).collect();
    let states = streams.iter().take(SERIES_MAX).map(|(account, stream)| (of_stream(account, stream), &stream.state));
    page.table(
        "jetstream_stream_",
        &states.collect::<Vec<Row<&Value>>>(),
        &[
            ("total_messages", "gauge", "Messages in the stream.", |state| number(state, "/messages")),
            ("total_bytes", "gauge", "Bytes in the stream.", |state| number(state, "/bytes")),
            ("first_seq", "gauge", "The first sequence.", |state| number(state, "/first_seq")),
            ("last_seq", "gauge", "The last sequence.", |state| number(state, "/last_seq")),
            ("subject_count", "gauge", "Subjects with messages.", |state| number(state, "/num_subjects")),
            ("consumer_count", "gauge", "Consumers of the stream.", |state| number(state, "/consumer_count")),
            ("deleted_messages", "gauge", "Sequences within the stream whose messages are gone.", |state| {
                number(state, "/num_deleted")
            }),
        ],
    );
    let consumers = streams.iter().flat_map(|(account, stream)| {
        stream.consumers.iter().map(|info| {
            let name = labels(&[("consumer_name", info["name"].as_str().unwrap_or_default())]);
            (format!("{},{name}", of_stream(account, stream)), info)
        })
    });
    page.table(
        "jetstream_consumer_",
        &consumers.take(SERIES_MAX).collect::<Vec<Row<&Value>>>(),
        &[
            ("num_pending", "gauge", "Messages not delivered yet.", |info| number(info, "/num_pending")),
            ("num_ack_pending", "gauge", "Messages delivered and not acked.", |info| number(info, "/num_ack_pending")),
            ("num_redelivered", "gauge", "Messages out more than once.", |info| number(info, "/num_redelivered")),
            ("num_waiting", "gauge", "Pull requests that wait.", |info| number(info, "/num_waiting")),
            ("delivered_consumer_seq", "gauge", "Deliveries made.", |info| number(info, "/delivered/consumer_seq")),
            ("delivered_stream_seq", "gauge", "The last sequence delivered.", |info| {
                number(info, "/delivered/stream_seq")
            }),
            ("ack_floor_consumer_seq", "gauge", "Deliveries up to which all is acked.", |info| {
                number(info, "/ack_floor/consumer_seq")
            }),
            ("ack_floor_stream_seq", "gauge", "The sequence up to which all is acked.", |info| {
                number(info, "/ack_floor/stream_seq")
            }),
        ],
    );
    let consumer_count: usize = streams.iter().map(|(_, stream)| stream.consumers.len()).sum();
    streams.len().saturating_sub(SERIES_MAX) + consumer_count.saturating_sub(SERIES_MAX)
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let label = |(name, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    pairs.iter().map(label).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out() {
        assert_eq!(labels(&[("a", "x\"y\\z\n1"), ("b", "")]), r#"a="x\"y\\z\n1",b="""#);
    }
}
