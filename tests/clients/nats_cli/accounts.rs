//! `nats account`, `nats audit` and what of `nats server` takes in all of an account: backups, audits, checks, purges.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Cli, PATIENCE};
use crate::support::server::free_port;

#[test]
fn an_account_is_backed_up_restored_and_purged() {
    let Some((app, sys)) = Cli::with_accounts("account backup, restore and purge") else { return };
    app.run("stream add TASKS --subjects 'tasks.>' --defaults");
    app.run("pub tasks.a 'task {{Count}}' --count 5");
    app.run("consumer add TASKS worker --pull --defaults");
    app.run("consumer next TASKS worker --ack --count 2");
    app.run("kv add CONFIG");
    app.run("kv put CONFIG name toad");

    app.check("account backup saved -f", &["TASKS", "KV_CONFIG"]);
    sys.check("server account purge APP -f", &["Purge operation on account APP initiated"]);
    app.check("stream ls --all", &["No Streams defined"]);
    app.check("account restore saved", &["TASKS", "KV_CONFIG"]);
    assert_eq!(app.run("kv get CONFIG name --raw").trim(), "toad");
    app.check("consumer info TASKS worker", &["Acknowledgment Floor: Consumer sequence: 2 Stream sequence: 2"]);
    app.check("consumer next TASKS worker --ack --raw", &["task 3"]);
    app.refused("account restore saved", "exists already");

    // Nobody in there, and nobody but the system account.
    sys.check("server account purge NOBODY -f", &["initiated"]);
    app.refused("server account purge APP -f", "nats: error");
    app.check("stream state TASKS", &["Messages: 5"]);
    app.refused("account tls", "connection is not tls");
}

#[test]
fn a_deployment_is_gathered_analyzed_and_looked_through() {
    let Some((app, sys)) = Cli::with_accounts("audits") else { return };
    app.run("stream add TASKS --subjects 'tasks.>' --defaults");
    app.run("pub tasks.a 'task {{Count}}' --count 5");
    app.run("consumer add TASKS worker --pull --defaults");
    app.run("consumer next TASKS worker --count 1 --no-ack");

    sys.check("audit gather -o gathered.zip --no-server-profiles --no-progress", &["Archive created at: gathered.zip"]);
    sys.check("audit analyze gathered.zip", &["FAIL: 0", "PASS: "]);
    let hasty = sys.hasty();
    hasty.check("server stream-check", &["Streams: 1", "TASKS", "IN SYNC"]);
    hasty.check("server consumer-check", &["Consumers: 1", "worker", "ap:1, nr:0, nw:0, np:4"]);
    let latency = format!("latency --server-b nats://app:app@{} --duration 1s", app.server.address());
    app.check(&latency, &["HDR Percentiles", "Median Latency"]);
}

#[test]
fn checks_are_exported_to_prometheus() {
    let Some((app, _)) = Cli::with_accounts("server check exporter") else { return };
    app.run("stream add TASKS --subjects 'tasks.>' --defaults");
    app.run("consumer add TASKS worker --pull --defaults");
    app.run("context add here");
    app.check("context validate here --connect", &["Connection: OK"]);
    let checks = "checks:
  - {name: tasks, kind: stream, context: here, properties: {stream: TASKS}}
  - {name: worker, kind: consumer, context: here, properties: {stream: TASKS, consumer: worker}}
  - {name: all, kind: jetstream, context: here, properties: {}}
";
    std::fs::write(app.home.path().join("checks.yaml"), checks).expect("a file of checks");
    let port = free_port();
    let _exporter = app.start(&format!("server check exporter --config checks.yaml --port {port}"));
    let began = std::time::Instant::now();
    let metrics = loop {
        match get(port) {
            Ok(metrics) => break metrics,
            Err(error) => assert!(began.elapsed() < PATIENCE, "the exporter does not answer: {error}"),
        }
    };
    for wanted in [
        r#"nats_server_check_jetstream_streams{item="all"} 1"#,
        r#"nats_server_check_jetstream_consumers{item="all"} 1"#,
        r#"nats_server_check_jetstream_status_code{item="all",status="OK"} 0"#,
    ] {
        assert!(metrics.contains(wanted), "no {wanted} in\n{metrics}");
    }
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
