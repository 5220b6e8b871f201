//! `nats server check`: what monitoring systems run, when all is well and when it is not.

use super::Cli;

#[test]
fn an_accounts_streams_and_services_are_checked() {
    let Some((app, _)) = Cli::with_accounts("server check, in an account") else { return };
    app.run("stream add T --subjects 't.>' --defaults");
    app.run("pub t.a 'val {{Count}}' --count 4");
    app.run("consumer add T pull --pull --defaults");
    app.run("consumer add T pin --pull --defaults --pinned-groups g --pinned-ttl 10s");
    app.run("kv add B");
    app.run("kv put B k v");

    app.check("server check connection", &["OK Connection", "rtt time"]);
    app.check("server check stream --stream T --msgs-critical 1", &["OK T"]);
    app.refused("server check stream --stream T --msgs-critical 100 --msgs-warn 200", "CRITICAL T");
    app.check("server check consumer --stream T --consumer pull --unprocessed-critical 100", &["OK T_pull"]);
    app.refused("server check consumer --stream T --consumer pull --unprocessed-critical 2", "CRITICAL T_pull");
    app.refused("server check consumer --stream T --consumer pin --pinned", "0 / 1 pinned clients");
    app.check("server check message --stream T --subject t.a --content val --age-critical 1h", &["OK Stream Message"]);
    app.refused("server check message --stream T --subject t.a --content other", "CRITICAL Stream Message");
    app.check("server check kv --bucket B --key k", &["key k found", "values=1"]);
    app.refused("server check kv --bucket B --key z", "CRITICAL");
    app.check("server check jetstream", &["OK JetStream", "streams=2", "consumers=2"]);
    app.check("server check jetstream --format prometheus", &["nats_server_check_jetstream_streams"]);
    app.refused("server check request --subject nobody --payload a", "CRITICAL");
    let _replier = app.start("reply pond.echo 'pong {{Count}}'");
    app.until("server check request --subject pond.echo --payload a --match-payload pong", "OK");
    app.refused("server check request --subject pond.echo --payload a --match-payload other", "CRITICAL");
    app.refused("server check credential --credential nowhere.creds", "CRITICAL");
}

#[test]
fn the_server_is_checked() {
    let Some((_, sys)) = Cli::with_accounts("server check, in the system account") else { return };
    sys.check("server check connection", &["OK Connection"]);
    let wanted = "server check server --name pond --auth-required --js-required";
    sys.check(wanted, &["OK pond", "JetStream enabled", "Authentication required", "uptime="]);
    sys.refused("server check server --name pond --tls-required", "TLS not required");
    sys.refused("server check meta --expect 1 --lag-critical 1 --seen-critical 1s", "no cluster information");
}
