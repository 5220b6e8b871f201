//! `/metrics`: Prometheus text, under the names that prometheus-nats-exporter gives nats-server's reports, so that dashboards
//! made for it work.

use std::fmt::Write;

use serde_json::Value;

use super::process;
use super::source::{Identity, JetStream, Source, Stream};
use crate::types::Timestamp;

/// Streams, and consumers, that get series of their own; the others are counted in `natterjack_metrics_left_out`.
const SERIES_MAX: usize = 1000;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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
}

pub async fn report(identity: &Identity, source: &dyn Source, now: Timestamp) -> String {
    let mut page = Page::default();
    let server = labels(&[("server_id", &identity.server_name)]);
    of_server(&mut page, identity, source, &server, now);
    let accounts = source.jetstream(true, true).await;
    of_accounts(&mut page, source, identity);
    of_jetstream(&mut page, identity, &accounts);
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
        let name = format!("gnatsd_varz_{name}");
        page.metric(&name, kind, help);
        page.sample(&name, server, value);
    }
}

fn of_accounts(page: &mut Page, source: &dyn Source, identity: &Identity) {
    let mut accounts = source.accounts();
    accounts.sort_by(|left, right| left.name.cmp(&right.name));
    accounts.truncate(SERIES_MAX);
    type Figure = fn(&super::source::Account) -> u64;
    let figures: [(&str, &str, &str, Figure); 7] = [
        ("current_connections", "gauge", "Clients in the account.", |account| account.connections),
        ("subscriptions", "gauge", "Subscriptions in the account.", |account| account.subscriptions),
        ("received_messages", "counter", "Messages its clients published.", |account| account.in_msgs),
        ("received_bytes", "counter", "Bytes its clients published.", |account| account.in_bytes),
        ("sent_messages", "counter", "Messages its clients got.", |account| account.out_msgs),
        ("sent_bytes", "counter", "Bytes its clients got.", |account| account.out_bytes),
        ("slow_consumers", "counter", "Its clients cut because they read too slowly.", |account| {
            account.slow_consumers
        }),
    ];
    for (name, kind, help, figure) in figures {
        let name = format!("gnatsd_accstatz_{name}");
        page.metric(&name, kind, help);
        for account in &accounts {
            let labels = labels(&[("server_id", &identity.server_name), ("account", &account.name)]);
            page.sample(&name, &labels, figure(account) as f64);
        }
    }
}

fn of_jetstream(page: &mut Page, identity: &Identity, accounts: &[JetStream]) {
    let server = |account: Option<&JetStream>| {
        let mut pairs = vec![("server_id", &*identity.server_id), ("server_name", &*identity.server_name)];
        pairs.push(("domain", &*identity.domain));
        pairs.extend(account.map(|jetstream| ("account", &*jetstream.account)));
        labels(&pairs)
    };
    page.metric("jetstream_server_jetstream_disabled", "gauge", "1 when JetStream is off.");
    page.sample("jetstream_server_jetstream_disabled", &server(None), f64::from(u8::from(accounts.is_empty())));
    type Figure = fn(&JetStream) -> u64;
    let figures: [(&str, &str, &str, Figure); 8] = [
        ("total_streams", "gauge", "Streams.", |jetstream| jetstream.num_streams),
        ("total_consumers", "gauge", "Consumers.", |jetstream| jetstream.num_consumers),
        ("total_messages", "gauge", "Stored messages.", |jetstream| jetstream.messages),
        ("total_message_bytes", "gauge", "Bytes of stored messages.", |jetstream| jetstream.bytes),
        ("memory_used", "gauge", "Bytes of memory streams.", |jetstream| jetstream.memory_bytes),
        ("storage_used", "gauge", "Bytes of file streams.", |jetstream| jetstream.storage_bytes),
        ("api_requests", "counter", "API requests.", |jetstream| jetstream.api_total),
        ("api_errors", "counter", "API requests that were refused.", |jetstream| jetstream.api_errors),
    ];
    for (name, kind, help, figure) in figures {
        let of_account = format!("jetstream_account_{name}");
        page.metric(&of_account, kind, help);
        for account in accounts {
            page.sample(&of_account, &server(Some(account)), figure(account) as f64);
        }
        let of_server = format!("jetstream_server_{name}");
        page.metric(&of_server, kind, help);
        page.sample(&of_server, &server(None), accounts.iter().map(figure).sum::<u64>() as f64);
    }
    let streams: Vec<(&JetStream, &Stream)> =
        accounts.iter().flat_map(|account| account.streams.iter().map(move |stream| (account, stream))).collect();
    let of_stream = |account: &JetStream, stream: &Stream| {
        [
            ("server_id", identity.server_id.clone()),
            ("account", account.account.clone()),
            ("stream_name", stream.name.clone()),
        ]
    };
    for (name, field, help) in [
        ("total_messages", "messages", "Messages in the stream."),
        ("total_bytes", "bytes", "Bytes in the stream."),
        ("first_seq", "first_seq", "The first sequence."),
        ("last_seq", "last_seq", "The last sequence."),
        ("subject_count", "num_subjects", "Subjects with messages."),
        ("consumer_count", "consumer_count", "Consumers of the stream."),
        ("deleted_messages", "num_deleted", "Sequences within the stream whose messages are gone."),
    ] {
        let name = format!("jetstream_stream_{name}");
        page.metric(&name, "gauge", help);
        for (account, stream) in streams.iter().take(SERIES_MAX) {
            page.sample(&name, &pairs(&of_stream(account, stream)), number(&stream.state, &[field]));
        }
    }
    let consumers = || {
        let of = |(account, stream): &(&JetStream, &Stream)| {
            let labels = of_stream(account, stream).to_vec();
            let all: Vec<_> = stream.consumers.iter().map(|info| (labels.clone(), info.clone())).collect();
            all
        };
        streams.iter().flat_map(of)
    };
    for (name, path, help) in [
        ("num_pending", &["num_pending"][..], "Messages not delivered yet."),
        ("num_ack_pending", &["num_ack_pending"], "Messages delivered and not acked."),
        ("num_redelivered", &["num_redelivered"], "Messages out more than once."),
        ("num_waiting", &["num_waiting"], "Pull requests that wait."),
        ("delivered_consumer_seq", &["delivered", "consumer_seq"], "Deliveries made."),
        ("delivered_stream_seq", &["delivered", "stream_seq"], "The last sequence delivered."),
        ("ack_floor_consumer_seq", &["ack_floor", "consumer_seq"], "Deliveries up to which all is acked."),
        ("ack_floor_stream_seq", &["ack_floor", "stream_seq"], "The sequence up to which all is acked."),
    ] {
        let name = format!("jetstream_consumer_{name}");
        page.metric(&name, "gauge", help);
        for (mut labels, info) in consumers().take(SERIES_MAX) {
            labels.push(("consumer_name", info["name"].as_str().unwrap_or_default().to_owned()));
            page.sample(&name, &pairs(&labels), number(&info, path));
        }
    }
    let consumer_count: usize = streams.iter().map(|(_, stream)| stream.consumers.len()).sum();
    let left_out = streams.len().saturating_sub(SERIES_MAX) + consumer_count.saturating_sub(SERIES_MAX);
    page.metric(
        "natterjack_metrics_left_out",
        "gauge",
        "Streams and consumers beyond the thousand each that have series.",
    );
    page.sample("natterjack_metrics_left_out", &labels(&[("server_id", &identity.server_name)]), left_out as f64);
}

fn number(value: &Value, path: &[&str]) -> f64 {
    path.iter().fold(value, |value, key| &value[key]).as_f64().unwrap_or(0.0)
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let label = |(name, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    pairs.iter().map(label).collect::<Vec<_>>().join(",")
}

fn pairs(pairs: &[(&str, String)]) -> String {
    let borrowed: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, &**value)).collect();
    labels(&borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out() {
        assert_eq!(labels(&[("a", "x\"y\\z\n1"), ("b", "")]), r#"a="x\"y\\z\n1",b="""#);
    }
}
