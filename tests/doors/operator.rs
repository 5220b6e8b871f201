//! Operator mode: who may sign for whom, what ends with an account's token, and what such a token allows its account.

use std::time::Duration;

use async_nats::Client;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::jwt::{now, token, user};
use super::{PATIENCE, Wire, World};

fn operator_token(operator: &KeyPair, nats: Value) -> String {
    token(operator, &operator.public_key(), "operator", nats, json!({}))
}

fn preload(accounts: &[(&KeyPair, String)]) -> String {
    let lines: String = accounts.iter().map(|(key, jwt)| format!("{}: {jwt}\n", key.public_key())).collect();
    format!("resolver: MEMORY\nresolver_preload {{\n{lines}}}\nauthorization {{ timeout: 30 }}\n")
}

async fn request(client: &Client, subject: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let asked = async_nats::Request::new().payload(body.into()).timeout(Some(PATIENCE));
    let answer = client.send_request(subject.to_owned(), asked).await;
    serde_json::from_slice(&answer.unwrap_or_else(|error| panic!("{subject}: {error}")).payload).unwrap()
}

/// What a bare client with this token is told.
async fn enter(world: &World, issuer: &KeyPair) -> (Wire, Vec<String>) {
    let person = KeyPair::new_user();
    let jwt = token(issuer, &person.public_key(), "user", json!({ "bearer_token": true }), json!({}));
    let mut wire = world.wire().await;
    let lines = wire.ask(&format!("CONNECT {}", json!({ "verbose": false, "jwt": jwt }))).await;
    (wire, lines)
}

/// The last words to a client, and the end.
async fn last_words(mut wire: Wire) -> String {
    loop {
        match &*wire.line().await {
            "PING" => wire.say("PONG\r\n").await,
            line if line.starts_with("INFO ") => {}
            line => {
                assert_eq!(wire.line().await, "");
                return line.to_owned();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_ends_with_its_token_unless_it_is_renewed() {
    // A busy machine may take longer than that to have clients in and the token renewed.
    for seconds in [5, 20, 60] {
        if is_seen_to_end_after(seconds).await {
            return;
        }
    }
    panic!("the machine is too slow for this test");
}

/// False when the end came too soon for it to be seen.
async fn is_seen_to_end_after(seconds: i64) -> bool {
    let (operator, ends, renewed, stays) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_account());
    let until = now() + seconds;
    let own = operator_token(&operator, json!({}));
    let account = |key: &KeyPair, more: Value| token(&operator, &key.public_key(), "account", json!({}), more);
    let text = |of_renewed: i64| {
        let accounts = [
            (&ends, account(&ends, json!({ "exp": until }))),
            (&renewed, account(&renewed, json!({ "exp": of_renewed }))),
            (&stays, account(&stays, json!({}))),
        ];
        format!("operator: {own}\n{}", preload(&accounts))
    };
    let mut world = World::start(&text(until)).await;
    let (mut wire, first) = enter(&world, &ends).await;
    let (mut of_renewed, second) = enter(&world, &renewed).await;
    let (mut other, third) = enter(&world, &stays).await;
    world.reload(&text(until + 3600)).await.unwrap();
    let before = wire.ask("PUB x 0\r\n").await;
    if now() >= until {
        world.server.stop().await;
        return false;
    }
    assert_eq!([first, second, third, before].concat(), ["PONG", "PONG", "PONG", "PONG"]);
    while now() < until {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last_words(wire).await, "-ERR 'Account Authentication Expired'");
    assert_eq!(enter(&world, &ends).await.1, ["-ERR 'Authorization Violation'", ""]);
    assert_eq!(enter(&world, &renewed).await.1, ["PONG"]);
    for wire in [&mut of_renewed, &mut other] {
        assert_eq!(wire.ask("PUB x 0\r\n").await.last().unwrap(), "PONG");
    }
    world.server.stop().await;
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_sign_is_said_by_the_operator_in_the_file_or_in_one_of_its_own() {
    let (operator, of_operator, account) = (KeyPair::new_operator(), KeyPair::new_operator(), KeyPair::new_account());
    let own = operator_token(&operator, json!({ "signing_keys": [of_operator.public_key()] }));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("operator.jwt");
    std::fs::write(&file, format!("-----BEGIN NATS OPERATOR JWT-----\n{own}\n------END NATS OPERATOR JWT------\n"))
        .unwrap();
    let signed = |issuer: &KeyPair| {
        let jwt = token(issuer, &account.public_key(), "account", json!({}), json!({}));
        preload(&[(&account, jwt)])
    };
    let keys = format!("trusted_keys: [ {}, {} ]", KeyPair::new_operator().public_key(), operator.public_key());
    for (says, issuer) in [
        (format!("operator: {own}"), &operator),
        (format!("operator: {own}"), &of_operator),
        (format!("operator: {file:?}"), &operator),
        (format!("operator: [ {file:?} ]"), &of_operator),
        (keys.clone(), &operator),
    ] {
        let world = World::start(&format!("{says}\n{}", signed(issuer))).await;
        assert_eq!(enter(&world, &account).await.1, ["PONG"], "{says}");
        assert_eq!(enter(&world, &KeyPair::new_account()).await.1[0], "-ERR 'Authorization Violation'", "{says}");
        world.server.stop().await;
    }
    for (says, issuer) in [(format!("operator: {own}"), &KeyPair::new_operator()), (keys, &of_operator)] {
        let refusal = World::refusal(&format!("{says}\n{}", signed(issuer))).await;
        assert!(refusal.contains("no trusted operator has signed it"), "{refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_says_which_account_is_the_systems() {
    let (operator, system, account) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let own = operator_token(&operator, json!({ "system_account": system.public_key() }));
    let jwt = |key: &KeyPair| token(&operator, &key.public_key(), "account", json!({}), json!({}));
    let accounts = preload(&[(&system, jwt(&system)), (&account, jwt(&account))]);
    let world = World::start(&format!("operator: {own}\n{accounts}")).await;
    let boss = user(&world, &system, json!({}), json!({})).await.unwrap();
    let other = user(&world, &account, json!({}), json!({})).await.unwrap();
    let varz = request(&boss, "$SYS.REQ.SERVER.PING.VARZ", Value::Null).await;
    assert_eq!(varz["data"]["system_account"], system.public_key());
    let mut events = boss.subscribe(format!("$SYS.ACCOUNT.{}.CONNECT", account.public_key())).await.unwrap();
    request(&boss, "$SYS.REQ.SERVER.PING.IDZ", Value::Null).await;
    let _another = user(&world, &account, json!({}), json!({})).await.unwrap();
    let event: Value = serde_json::from_slice(&super::next(&mut events).await.payload).unwrap();
    assert_eq!(event["client"]["acc"], account.public_key());
    let asked = other.request("$SYS.REQ.SERVER.PING.VARZ", "".into()).await;
    assert_eq!(asked.unwrap_err().kind(), async_nats::RequestErrorKind::NoResponders);
    world.server.stop().await;
}

/// Error code of the creation of a stream, null when it is there.
async fn create(client: &Client, name: &str, more: Value) -> Value {
    let mut config = json!({ "name": name, "subjects": [name] });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request(client, &format!("$JS.API.STREAM.CREATE.{name}"), config).await["error"]["err_code"].clone()
}

async fn consume(client: &Client, name: &str) -> Value {
    let body =
        json!({ "stream_name": "A", "config": { "name": name, "durable_name": name, "ack_policy": "explicit" } });
    request(client, &format!("$JS.API.CONSUMER.CREATE.A.{name}"), body).await["error"]["err_code"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_is_limited_by_the_accounts_token_with_tiers_and_without() {
    let (operator, flat, tiered, none) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_account());
    let limits = json!({ "mem_storage": 1000, "disk_storage": 4000, "streams": 2, "consumer": 1,
        "disk_max_stream_bytes": 3000, "max_bytes_required": true });
    let jwt = |key: &KeyPair, limits: Value| {
        token(&operator, &key.public_key(), "account", json!({ "limits": limits }), json!({}))
    };
    let accounts = preload(&[
        (&flat, jwt(&flat, limits.clone())),
        (&tiered, jwt(&tiered, json!({ "tiered_limits": { "R1": limits, "R3": { "disk_storage": -1 } } }))),
        (&none, jwt(&none, json!({}))),
    ]);
    let world = World::start(&format!("operator: {}\n{accounts}", operator_token(&operator, json!({})))).await;
    for key in [&flat, &tiered] {
        let client = user(&world, key, json!({}), json!({})).await.unwrap();
        assert_eq!(create(&client, "A", json!({})).await, 10113, "max_bytes is required");
        assert_eq!(create(&client, "A", json!({ "max_bytes": 3500 })).await, 10122, "more than a stream may have");
        assert_eq!(create(&client, "A", json!({ "max_bytes": 3000 })).await, Value::Null);
        assert_eq!(create(&client, "B", json!({ "max_bytes": 2000 })).await, 10047, "more than is left");
        let memory = json!({ "max_bytes": 2000, "storage": "memory" });
        assert_eq!(create(&client, "B", memory).await, 10028, "more memory than there is");
        assert_eq!(create(&client, "B", json!({ "max_bytes": 500 })).await, Value::Null);
        assert_eq!(create(&client, "C", json!({ "max_bytes": 500 })).await, 10027, "as many streams as there may be");
        assert_eq!(consume(&client, "one").await, Value::Null);
        assert_eq!(consume(&client, "two").await, 10026, "as many consumers as there may be");
    }
    let client = user(&world, &none, json!({}), json!({})).await.unwrap();
    assert_eq!(request(&client, "$JS.API.INFO", Value::Null).await["error"]["err_code"], 10039, "no JetStream there");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_of_the_accounts_token_brings_it_a_task_coordinator() {
    let (operator, tasks, streams) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let own = operator_token(&operator, json!({}));
    let jwt = |key: &KeyPair, tags: Value| {
        let nats = json!({ "limits": { "mem_storage": -1, "disk_storage": -1 }, "tags": tags });
        token(&operator, &key.public_key(), "account", nats, json!({ "name": "a team" }))
    };
    let text = |tag: &str| {
        let accounts = [(&tasks, jwt(&tasks, json!([tag]))), (&streams, jwt(&streams, json!(["team:a"])))];
        format!("operator: {own}\n{}", preload(&accounts))
    };
    let mut world = World::start(&text("natterjack:coordinator")).await;
    assert_eq!(world.server.task_accounts(), ["a team"]);
    let client = user(&world, &tasks, json!({}), json!({})).await.unwrap();
    let submitted = request(&client, "$TASK.API.SUBMIT", json!("a task")).await;
    assert_eq!(submitted["phase"], "queued", "{submitted}");
    let other = user(&world, &streams, json!({}), json!({})).await.unwrap();
    let asked = other.request("$TASK.API.LIST", "".into()).await;
    assert_eq!(asked.unwrap_err().kind(), async_nats::RequestErrorKind::NoResponders);
    // It goes with the tag.
    world.reload(&text("team:b")).await.unwrap();
    assert!(world.server.task_accounts().is_empty());
    let asked = client.request("$TASK.API.LIST", "".into()).await;
    assert_eq!(asked.unwrap_err().kind(), async_nats::RequestErrorKind::NoResponders);
    world.server.stop().await;
}
