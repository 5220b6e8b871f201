//! `nats server check`: what monitoring systems run, when all is well and when it is not.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;

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
    std::fs::write(app.home.path().join("user.creds"), credential(30)).expect("a credentials file");
    app.check("server check credential --credential user.creds", &["OK Credential"]);
    app.refused("server check credential --credential user.creds --validity-critical 960h", "CRITICAL");
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

#[test]
fn a_server_with_tls_says_so() {
    let Some((app, sys)) = Cli::with_tls("server check server --tls-required") else { return };
    let wanted = "server check server --name pond --tls-required --auth-required";
    sys.check(wanted, &["OK pond", "TLS required", "Authentication required"]);
    sys.check("server info", &["TLS Required: true"]);
    app.check("account info", &["User: app", "TLS Version: 1.3"]);
    app.check("account tls", &["localhost"]);
    let varz = sys.json("server request variables")["data"].clone();
    assert_eq!((&varz["tls_required"], &varz["tls_timeout"]), (&true.into(), &20.0.into()), "{varz}");
}

/// A user's credentials that hold for so many days, as an account signs them.
fn credential(days: u64) -> String {
    let (account, user) = (KeyPair::new_account(), KeyPair::new_user());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = serde_json::json!({
        "iss": account.public_key(), "sub": user.public_key(), "name": "toad", "iat": now, "exp": now + days * 86_400,
        "nats": {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    });
    let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let jwt = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(account.sign(signed.as_bytes()).expect("a key signs")));
    let seed = user.seed().expect("a new key has a seed");
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}
