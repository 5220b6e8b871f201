//! Settings that change while clients are connected: who may stay, with what, and what cannot be changed.

use serde_json::json;

use crate::{Wire, World, next, settle};

/// Users `a` and `b` with these passwords, and what else `a` has.
fn users(a: &str, b: &str) -> String {
    format!("authorization {{ users: [ {{user: a, {a}}}, {{user: b, {b}}} ] }}\n")
}

const A: &str = r#"CONNECT {"verbose":false,"user":"a","pass":"pa"}"#;
const B: &str = r#"CONNECT {"verbose":false,"user":"b","pass":"pb"}"#;

async fn connected(world: &World, hello: &str) -> Wire {
    let mut wire = world.wire().await;
    assert_eq!(wire.ask(hello).await, ["PONG"], "{hello}");
    wire
}

async fn ended_silently(mut wire: Wire) {
    assert_eq!(wire.line().await, "", "closed without a word, so that the client comes again");
}

/// What has come until now.
async fn probe(wire: &mut Wire) -> Vec<String> {
    wire.say("PING\r\n").await;
    wire.until_pong().await
}

async fn still_there(wire: &mut Wire) {
    assert_eq!(probe(wire).await, ["PONG"]);
}

#[tokio::test]
async fn users_that_change_go_and_others_stay() {
    let mut world = World::start(&users("password: pa", "password: pb")).await;
    let (mut a, mut b) = (connected(&world, A).await, connected(&world, B).await);
    let lines = world.reload(&users("password: other", "password: pb")).await.unwrap();
    assert_eq!(lines, ["authorization users"]);
    assert_eq!(a.line().await, "-ERR 'Authorization Violation'");
    ended_silently(a).await;
    still_there(&mut b).await;
    // The new password holds for those who come.
    let mut late = world.wire().await;
    assert_eq!(late.ask(A).await[0], "-ERR 'Authorization Violation'");
    connected(&world, &A.replace(r#""pa""#, r#""other""#)).await;
    // A user that is no more.
    world.reload("authorization { users: [ {user: a, password: other} ] }").await.unwrap();
    ended_silently(b).await;
}

#[tokio::test]
async fn hashed_passwords_are_checked_again_only_when_they_change() {
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    let (of_a, of_b) = (hash("pa"), hash("pb"));
    let text = |a: &str| users(&format!("password: {a:?}"), &format!("password: {of_b:?}"));
    let mut world = World::start(&text(&of_a)).await;
    let (mut a, mut b) = (connected(&world, A).await, connected(&world, B).await);
    // Another hash of the same password.
    world.reload(&text(&hash("pa"))).await.unwrap();
    still_there(&mut a).await;
    world.reload(&text(&hash("other"))).await.unwrap();
    assert_eq!(a.line().await, "-ERR 'Authorization Violation'");
    still_there(&mut b).await;
}

#[tokio::test]
async fn permissions_change_under_live_subscriptions() {
    let everything = users("password: pa", "password: pb");
    let mut world = World::start(&everything).await;
    let mut a = world.wire().await;
    assert_eq!(a.ask(&format!("{A}\r\nSUB x 1\r\nSUB ok 2\r\nSUB x.y q 3\r\nSUB > 4\r\nSUB ok.> 5")).await, ["PONG"]);
    let rights = "permissions: {subscribe: {allow: [\"ok\", \"ok.>\"], deny: \"ok.secret\"}, publish: \"ok\"}";
    world.reload(&users(&format!("password: pa, {rights}"), "password: pb")).await.unwrap();
    let told = a.ask("PUB x 0\r\n").await;
    assert_eq!(
        told,
        [
            "-ERR 'Permissions Violation for Subscription to \"x\" (sid \"1\")'",
            "-ERR 'Permissions Violation for Subscription to \"x.y\" using queue \"q\" (sid \"3\")'",
            "-ERR 'Permissions Violation for Subscription to \">\" (sid \"4\")'",
            "-ERR 'Permissions Violation for Publish to \"x\"'",
            "PONG",
        ]
    );
    // What is left of its subscriptions obeys the new rules: nothing on x, nothing on ok.secret.
    let mut b = connected(&world, B).await;
    let publish = "PUB x 1\r\n1\r\nPUB ok.secret 1\r\n2\r\nPUB ok.fine 1\r\n3\r\nPUB ok 1\r\n4";
    assert_eq!(b.ask(publish).await, ["PONG"]);
    assert_eq!(probe(&mut a).await, ["MSG ok.fine 5 1", "3", "MSG ok 2 1", "4", "PONG"]);
    // And the old ones again, for the same connection.
    world.reload(&everything).await.unwrap();
    assert_eq!(b.ask("PUB ok.secret 1\r\n5").await, ["PONG"]);
    assert_eq!(probe(&mut a).await, ["MSG ok.secret 5 1", "5", "PONG"]);
}

#[tokio::test]
async fn answers_that_may_be_given_survive_a_reload_that_changes_nothing() {
    let text =
        |more: &str| users("password: pa, permissions: {subscribe: q, allow_responses: true}", "password: pb") + more;
    let mut world = World::start(&text("")).await;
    let mut a = world.wire().await;
    assert_eq!(a.ask(&format!("{A}\r\nSUB q 1")).await, ["PONG"]);
    let mut b = world.wire().await;
    assert_eq!(b.ask(&format!("{B}\r\nSUB r 1\r\nPUB q r 1\r\n?")).await, ["PONG"]);
    assert_eq!(probe(&mut a).await, ["MSG q 1 r 1", "?", "PONG"]);
    world.reload(&text("max_connections: 100\n")).await.unwrap();
    assert_eq!(a.ask("PUB r 1\r\n!").await, ["PONG"]);
    assert_eq!(probe(&mut b).await, ["MSG r 1 1", "!", "PONG"]);
}

#[tokio::test]
async fn from_nobody_asked_to_users_and_back() {
    let mut world = World::start("").await;
    let mut anonymous = connected(&world, r#"CONNECT {"verbose":false}"#).await;
    let mut named = connected(&world, A).await;
    // One that never said CONNECT, and listens already.
    let mut rude = world.wire().await;
    assert_eq!(rude.ask("SUB x 1").await, ["+OK", "PONG"]);
    let mut silent = world.wire().await;
    world.reload(&users("password: pa", "password: pb")).await.unwrap();
    for wire in [&mut anonymous, &mut rude] {
        assert_eq!(wire.line().await, "-ERR 'Authorization Violation'");
        assert_eq!(wire.line().await, "");
    }
    still_there(&mut named).await;
    assert_eq!(silent.ask(B).await, ["PONG"], "judged when it says who it is");
    assert!(world.wire().await.info.contains(r#""auth_required":true"#));
    // A guest where there is one.
    world.reload(&(users("password: pa", "password: pb") + "no_auth_user: b\n")).await.unwrap();
    connected(&world, r#"CONNECT {"verbose":false}"#).await;
    world.reload("").await.unwrap();
    still_there(&mut named).await;
    assert!(!world.wire().await.info.contains("auth_required"));
}

#[tokio::test]
async fn accounts_come_and_go_with_their_streams() {
    let accounts = |a: &str, b: &str, c: &str| {
        format!("accounts {{ A {{ jetstream: enabled, users: [{a}] }}, B {{ users: [{b}] }} {c} }}\n")
    };
    let (a, b) = ("{user: a, password: pa}", "{user: b, password: pb}");
    let mut world = World::start(&accounts(a, b, "")).await;
    let (mut of_a, mut of_b) = (connected(&world, A).await, connected(&world, B).await);
    let c = ", C { jetstream: enabled, users: [{user: c, password: pc}] }";
    assert_eq!(world.reload(&accounts(a, b, c)).await.unwrap(), ["authorization users", "accounts"]);
    still_there(&mut of_a).await;
    still_there(&mut of_b).await;
    let client = world.user("c", "pc").await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let config =
        async_nats::jetstream::stream::Config { name: "S".into(), subjects: vec!["s".into()], ..Default::default() };
    jetstream.create_stream(config).await.unwrap();
    jetstream.publish("s", "kept".into()).await.unwrap().await.unwrap();
    // Its users go with it, and what it stored waits.
    world.reload(&accounts(a, b, "")).await.unwrap();
    assert!(world.user("c", "pc").await.is_err());
    world.reload(&accounts(a, b, c)).await.unwrap();
    let jetstream = async_nats::jetstream::new(world.user("c", "pc").await.unwrap());
    let state = jetstream.get_stream("S").await.unwrap().cached_info().state.clone();
    assert_eq!(state.messages, 1);
    // Also over a restart without it.
    let mut world = World { text: accounts(a, b, ""), ..world }.restart().await;
    world.reload(&accounts(a, b, c)).await.unwrap();
    let jetstream = async_nats::jetstream::new(world.user("c", "pc").await.unwrap());
    assert_eq!(jetstream.get_stream("S").await.unwrap().cached_info().state.messages, 1);
    // A user that moves comes again.
    let of_a = connected(&world, A).await;
    world.reload(&accounts("{user: z, password: pz}", &format!("{b}, {a}"), c)).await.unwrap();
    ended_silently(of_a).await;
    connected(&world, A).await;
}

#[tokio::test]
async fn limits_hold_for_those_who_are_there() {
    let mut world = World::start("").await;
    let hello = r#"CONNECT {"verbose":false,"protocol":1}"#;
    let mut first = connected(&world, hello).await;
    let mut second = connected(&world, hello).await;
    let text = "max_payload: 10, max_subscriptions: 1, max_control_line: 256, client_advertise: \"box:7\"";
    let lines = world.reload(text).await.unwrap();
    let expected =
        ["max_subscriptions = 1", "max_control_line = 256", "max_payload = 10", "client_advertise"].map(str::to_owned);
    assert_eq!(lines, expected);
    for wire in [&mut first, &mut second] {
        let after_ping = wire.line().await;
        assert!(after_ping.contains(r#""connect_info":true"#), "{after_ping}");
        let info = wire.line().await;
        assert!(info.starts_with("INFO ") && info.contains(r#""max_payload":10,"#), "{info}");
        assert!(info.contains(r#""host":"box","port":7,"#), "{info}");
    }
    assert_eq!(first.ask("SUB a 1\r\nSUB b 2").await, ["-ERR 'maximum subscriptions exceeded'", "PONG"]);
    assert_eq!(first.ask("PUB a 11\r\n12345678901").await[0], "-ERR 'Maximum Payload Violation'");
    // The one that came last goes.
    let mut third = connected(&world, hello).await;
    world.reload("max_connections: 1").await.unwrap();
    let mut line = third.line().await;
    while line.starts_with("INFO ") {
        line = third.line().await;
    }
    assert_eq!(line, "-ERR 'maximum connections exceeded'");
    ended_silently(third).await;
    still_there(&mut second).await;
}

#[tokio::test]
async fn pings_come_as_often_as_is_said_now() {
    let mut world = World::start("ping_interval: 1h").await;
    let mut wire = connected(&world, r#"CONNECT {"verbose":false}"#).await;
    world.reload("ping_interval: 50ms, ping_max: 1").await.unwrap();
    assert_eq!(wire.line().await, "PING");
    assert_eq!(wire.line().await, "-ERR 'Stale Connection'");
}

#[tokio::test]
async fn what_takes_a_start_is_refused_and_nothing_changes() {
    let mut world = World::start("max_payload: 1000, server_name: box").await;
    let mut wire = connected(&world, r#"CONNECT {"verbose":false,"protocol":1}"#).await;
    for (text, setting) in [
        ("server_name: other, max_payload: 10", "server_name: old=box, new=other"),
        ("server_name: box, host: \"127.0.0.2\"", "host: old=127.0.0.1, new=127.0.0.2"),
        ("server_name: box, port: 1", "port: old=0, new=1"),
        ("server_name: box, jetstream: false", "jetstream: old=true, new=false"),
        ("server_name: box, store_dir: \"/nowhere\"", "store_dir: old="),
        ("server_name: box, jetstream { max_file: 1G }", "jetstream max memory and max store"),
        ("server_name: box, websocket { port: -1, no_tls: true }", "websocket"),
        ("server_name: box, http: \"127.0.0.1:-1\"", "http host: old=, new=127.0.0.1"),
        ("server_name: box, http_port: 1", "http host: old=, new=127.0.0.1"),
        ("server_name: box, jetstream { domain: hub }", "jetstream domain: old=, new=hub"),
        ("server_name: box, jetstream { max_mem: 1G }", "jetstream max memory and max store"),
        ("server_name: box, jetstream { limits { max_ack_pending: 7 } }", "jetstream limits"),
        ("server_name: box, jetstream { strict: false }", "jetstream limits"),
        ("server_name: box, metrics { subjects: x }", "metrics"),
        ("server_name: box, allowed_hosts: [ proxy ]", "allowed_hosts"),
        ("server_name: box, system_account: S, accounts { S {} }", "system_account: old=, new=S"),
        (
            &*format!("server_name: box, trusted_keys: [ {} ]", nkeys::KeyPair::new_operator().public_key()),
            "trusted_keys",
        ),
    ] {
        let error = world.reload(text).await.unwrap_err();
        assert!(error.starts_with("config reload not supported for ") && error.contains(setting), "{text}: {error}");
    }
    for (text, reason) in [
        ("server_name: box, max_payload: 10, tls { cert_file: nowhere, key_file: nowhere }", "certificate/key pair"),
        ("server_name: box, max_payload: 10, no_auth_user: nobody", "no_auth_user"),
        ("server_name: box, max_payload: 10, prot: 1", "unknown field"),
    ] {
        let error = world.reload(text).await.unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    assert_eq!(world.server.broker().info().max_payload, 1000);
    assert_eq!(probe(&mut wire).await, ["PONG"], "no news, and no end");
}

/// The same of what must be there at the start to be another afterwards.
#[tokio::test]
async fn what_was_there_at_the_start_stays_as_it_was() {
    let keys = [nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_operator()];
    let own = |key: &nkeys::KeyPair| super::jwt::token(key, &key.public_key(), "operator", json!({}), json!({}));
    let tls = super::tls::block("");
    let with_tls = format!("websocket {{ port: -1, {tls} }}");
    for (before, after, setting) in [
        ("http: \"127.0.0.1:-1\"", "", "http host: old=127.0.0.1, new="),
        ("http: \"127.0.0.1:-1\"", "http: \"127.0.0.2:-1\"", "http host: old=127.0.0.1, new=127.0.0.2"),
        ("http: \"127.0.0.1:-1\"", "http: \"127.0.0.1:1\"", "http port: old=0, new=1"),
        (&*format!("https_port: -1\n{tls}"), &*tls, "https host"),
        (&*format!("https_port: -1\n{tls}"), &*format!("https_port: 1\n{tls}"), "https port: old=0, new=1"),
        ("jetstream { domain: hub }", "jetstream { domain: spoke }", "jetstream domain: old=hub, new=spoke"),
        ("metrics { subjects: x }", "metrics { subjects: x, subjects_max: 7 }", "metrics"),
        (
            "accounts { S {}, T {} }, system_account: S",
            "accounts { S {}, T {} }, system_account: T",
            "system_account: old=S, new=T",
        ),
        (&*format!("operator: {}", own(&keys[0])), &*format!("operator: {}", own(&keys[1])), "operator"),
        (&*with_tls, "websocket { port: -1, no_tls: true }", "websocket tls"),
        ("websocket { port: -1, no_tls: true }", &*with_tls, "websocket tls"),
        (
            "websocket { port: -1, no_tls: true }",
            "websocket { port: -1, no_tls: true, same_origin: false }",
            "websocket",
        ),
    ] {
        let mut world = World::start(before).await;
        let error = world.reload(after).await.unwrap_err();
        let expected = format!("config reload not supported for {setting}");
        assert!(error.starts_with(&expected), "{before} to {after}: {error}");
        world.reload(before).await.expect("what has not changed can be read again");
        world.server.stop().await;
    }
}

#[tokio::test]
async fn clients_at_work_do_not_notice() {
    let text = |more: &str| users("password: pa", "password: pb") + more;
    let mut world = World::start(&text("")).await;
    let (sender, receiver) = (world.user("a", "pa").await.unwrap(), world.user("b", "pb").await.unwrap());
    let mut subscriber = receiver.subscribe("work").await.unwrap();
    settle(&receiver).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let publishing = tokio::spawn(async move {
        let mut sent = 0u64;
        while stopped.try_recv().is_err() {
            sender.publish("work", sent.to_string().into()).await.unwrap();
            sent += 1;
            if sent.is_multiple_of(100) {
                sender.flush().await.unwrap();
                // The client library drops what its user takes too slowly.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        sender.flush().await.unwrap();
        sent
    });
    for round in 0..20 {
        let rights = if round % 2 == 0 { "password: pb, permissions: {publish: \"_INBOX.>\"}" } else { "password: pb" };
        world.reload(&users("password: pa", rights)).await.unwrap();
        next(&mut subscriber).await;
    }
    stop.send(()).unwrap();
    let sent = publishing.await.unwrap();
    for expected in 20..sent {
        assert_eq!(next(&mut subscriber).await.payload, expected.to_string().as_bytes(), "none lost, none twice");
    }
}
