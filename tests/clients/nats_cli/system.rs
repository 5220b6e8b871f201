//! `nats server`, `nats account`, `nats events`, `nats trace`: the server as its operator sees it.

use super::Cli;

#[test]
fn the_operator_sees_server_accounts_connections_and_jetstream() {
    let Some((app, sys)) = Cli::with_accounts("server reports") else { return };
    app.run("stream add TASKS --subjects 'tasks.>' --defaults");
    app.run("pub tasks.a 'task {{Count}}' --count 3");
    app.run("consumer add TASKS worker --pull --defaults");
    let _subscriber = app.start("sub quiet.pond");
    sys.until("server report connections", "APP");

    sys.check("server info", &["pond", "JetStream", "Maximum Payload"]);
    sys.check("server list", &["pond", "yes"]);
    sys.check("server account info APP", &["APP"]);
    sys.refused("server account info NOBODY", "error");
    sys.check("server report accounts", &["APP", "$SYS"]);
    sys.check("server report accounts APP", &["127.0.0.1", "NATS CLI"]);
    sys.check("server report connections --state closed", &["Client Closed"]);
    sys.check("server report jetstream", &["JetStream Summary", "pond"]);
    sys.check("server report cpu", &["CPU Usage", "pond"]);
    sys.check("server report mem", &["Memory Usage", "pond"]);
    sys.check("server report health", &["ok (200)"]);
    for of_a_cluster in ["routes", "gateways", "leafnodes"] {
        sys.check(&format!("server report {of_a_cluster}"), &["Report"]);
    }
    sys.check("server report downgrade 5", &["All assets are compatible"]);
    sys.check("top pond --output first.txt", &[]);
    app.check("account info", &["Account: APP", "User: app"]);
    app.check("account report connections", &["NATS CLI"]);
    app.check("account report statistics", &["Server Statistics"]);
    app.refused("server info", "");
}

#[test]
fn the_operator_asks_for_raw_reports() {
    let Some((app, sys)) = Cli::with_accounts("server requests") else { return };
    app.run("stream add TASKS --subjects 'tasks.>' --defaults");
    let data = |what: &str| sys.json(&format!("server request {what}"))["data"].clone();
    assert_eq!(data("accounts")["system_account"], "$SYS");
    assert_eq!(data("accounts --account APP")["account_detail"]["account_name"], "APP");
    assert_eq!(data("jetstream-health")["status"], "ok");
    assert_eq!(data("jetstream")["streams"], 1);
    assert_eq!(data("jetstream --streams --account APP")["account_details"][0]["stream_detail"][0]["name"], "TASKS");
    assert_eq!(data("variables")["server_name"], "pond");
    assert_eq!(data("routes")["num_routes"], 0);
    assert_eq!(data("leafnodes")["leafnodes"], 0);
    assert!(data("subscriptions --detail")["subscriptions_list"].is_array());
    assert!(data("connections")["connections"].is_array());
    assert!(data("gateways")["outbound_gateways"].is_object());
}

#[test]
fn the_operator_ends_a_connection() {
    let Some((app, sys)) = Cli::with_accounts("server request kick") else { return };
    let _subscriber = app.start("sub quiet.pond");
    sys.until("server report accounts APP", "NATS CLI");
    let found = sys.json("server request connections --filter-account APP");
    let server = found["server"]["id"].as_str().expect("a server id").to_string();
    let client = found["data"]["connections"][0]["cid"].as_u64().expect("a connection");
    sys.run(&format!("server request kick {client} {server}"));
    sys.until("server report connections --state closed", "Kicked");
    sys.check(&format!("server request kick 99999 {server}"), &["no such client"]);
}

#[test]
fn a_messages_way_is_traced() {
    let Some((app, _)) = Cli::with_accounts("trace") else { return };
    app.run("stream add TASKS --subjects 'tasks.>' --defaults");
    app.check("trace tasks.a hello", &["stored", "TASKS", "JetStream: 1"]);
    app.check("trace nobody.home hello", &["No active interest"]);
    assert_eq!(app.json("stream info TASKS --json")["state"]["messages"], 0, "a trace only looks");
    let mut listener = app.start("sub 'pond.>' --queue toads");
    app.until("trace pond.x hello", "queue:\"toads\"");
    app.check("trace pond.x croak --deliver", &["Client: 1"]);
    listener.line_with("croak");
}

#[test]
fn events_are_shown_as_they_happen() {
    let Some((app, sys)) = Cli::with_accounts("events") else { return };
    let mut connections = sys.start("events --short --all");
    let mut advisories = app.start("events --short --js-advisory --no-srv-advisory");
    // The last thing either says before it shows events.
    connections.line_with("Authentication Errors");
    advisories.line_with("Listening for Advisories");
    // Subscribed for certain once it has been seen.
    sys.until("server report accounts APP", "NATS CLI");
    app.run("stream add TASKS --subjects 'tasks.>' --defaults");
    connections.line_with("user: app");
    app.run("stream rm TASKS -f");
    advisories.line_with("TASKS");
}

#[test]
fn the_operator_pings_reloads_and_asks_for_what_there_is() {
    let Some((app, sys)) = Cli::with_accounts("server ping, config reload, profile") else { return };
    app.run("stream add TASKS --subjects 'tasks.>' --defaults");
    app.run("pub tasks.a 'task {{Count}}' --count 3");
    sys.check("server ping 1", &["pond", "1 replies"]);
    sys.check("server report jetstream --account APP", &["JetStream Summary for Account APP", "pond"]);
    sys.check("server report health --account APP --stream TASKS", &["ok (200)"]);
    sys.check("server report health --account APP --stream NOBODY", &["error (404)", "not found on account"]);
    if !sys.server.is_real() {
        sys.check("server request profile heap", &["this server keeps no Go profiles"]);
    }
    let server = sys.json("server request variables")["server"]["id"].as_str().expect("a server id").to_owned();
    let config = sys.home.path().join("server.conf");
    let text = std::fs::read_to_string(&config).expect("the config file");
    std::fs::write(&config, format!("{text}\nmax_payload: 12345\n")).expect("the config file");
    sys.check(&format!("server config reload {server} -f"), &["Configuration Load Time", "Maximum Payload: 12 KiB"]);
    std::fs::write(&config, "max_payload: many\n").expect("the config file");
    // The command does not tell why not; what held before still does.
    sys.check(&format!("server config reload {server} -f"), &["Maximum Payload: 12 KiB"]);
    app.refused(&format!("server config reload {server} -f"), "system privileges");
    for (state, part) in [("open", "NATS CLI"), ("closed", "Client Closed")] {
        sys.check(&format!("server request connections --filter-state {state}"), &[part]);
    }
}

#[test]
fn metrics_are_shown_as_they_happen() {
    let Some(cli) = Cli::new("events --js-metric") else { return };
    cli.run("stream add TASKS --subjects 'tasks.>' --defaults");
    cli.run("pub tasks.a 'task {{Count}}' --count 100");
    cli.check("consumer add TASKS sampled --pull --sample 100 --defaults", &["Sampling Rate: 100"]);
    let mut metrics = cli.start("events --short --js-metric --no-srv-advisory");
    // The last thing it says before it listens.
    metrics.line_with("Listening for Metrics");
    let mut worker = cli.start("consumer next TASKS sampled --ack --count 100 --raw");
    metrics.line_with("[JS Ack] TASKS");
    worker.line_with("task 1");
}
