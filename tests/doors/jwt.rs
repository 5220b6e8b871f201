//! Operator mode from outside: what ends by the clock, and what scoped keys let their users do. As nats-server 2.15.1 does,
//! but for what protocol.md names.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{Client, ConnectOptions, RequestErrorKind};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures_util::StreamExt;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::{PATIENCE, World, next, settle};

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A token that `issuer` signs; `more` goes beside `nats`.
pub fn token(issuer: &KeyPair, subject: &str, kind: &str, nats: Value, more: Value) -> String {
    let mut claims = json!({"iss": issuer.public_key(), "sub": subject, "name": "n", "iat": now() - 10, "nats": nats});
    claims["nats"]["type"] = kind.into();
    claims["nats"]["version"] = 2.into();
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let head = BASE64.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", BASE64.encode(claims.to_string()));
    format!("{signed}.{}", BASE64.encode(issuer.sign(signed.as_bytes()).unwrap()))
}

/// A config file's text: an operator and its accounts.
pub fn operator_mode(accounts: &[(&KeyPair, Value)]) -> String {
    let operator = KeyPair::new_operator();
    let own = token(&operator, &operator.public_key(), "operator", json!({}), json!({}));
    let preload = accounts.iter().map(|(key, claims)| {
        let key = key.public_key();
        format!("{key}: {}\n", token(&operator, &key, "account", claims.clone(), json!({})))
    });
    let preload: String = preload.collect();
    format!("operator: {own}\nresolver: MEMORY\nresolver_preload {{\n{preload}}}\nauthorization {{ timeout: 30 }}\n")
}

/// A user of whoever signs for it.
pub async fn user(world: &World, issuer: &KeyPair, nats: Value, more: Value) -> Result<Client, String> {
    let key = std::sync::Arc::new(KeyPair::new_user());
    let jwt = token(issuer, &key.public_key(), "user", nats, more);
    let options = ConnectOptions::with_jwt(jwt, move |nonce| {
        let key = key.clone();
        async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
    });
    options.connect(world.server.client_url()).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_ends_with_its_activation() {
    let (a, b) = (KeyPair::new_account(), KeyPair::new_account());
    let until = now() + 4;
    let activation = |subject: &str, kind: &str| {
        let nats = json!({ "subject": subject, "kind": kind });
        token(&a, &b.public_key(), "activation", nats, json!({ "exp": until }))
    };
    let export = |subject: &str, kind: &str| json!({ "subject": subject, "type": kind, "token_req": true });
    let import = |subject: &str, kind: &str| json!({"account": a.public_key(), "subject": subject, "type": kind, "token": activation(subject, kind)});
    let text = operator_mode(&[
        (&a, json!({ "exports": [export("told", "stream"), export("asked", "service")] })),
        (&b, json!({ "imports": [import("told", "stream"), import("asked", "service")] })),
    ]);
    let world = World::start(&text).await;
    let of_a = user(&world, &a, json!({}), json!({})).await.unwrap();
    let of_b = user(&world, &b, json!({}), json!({})).await.unwrap();
    let mut told = of_b.subscribe("told").await.unwrap();
    let mut asked = of_a.subscribe("asked").await.unwrap();
    settle(&of_a).await;
    settle(&of_b).await;
    let answers = {
        let of_a = of_a.clone();
        tokio::spawn(async move {
            while let Some(request) = asked.next().await {
                let _ = of_a.publish(request.reply.unwrap(), "yes".into()).await;
            }
        })
    };
    of_a.publish("told", "1".into()).await.unwrap();
    assert_eq!(next(&mut told).await.payload, "1");
    assert_eq!(of_b.request("asked", "".into()).await.unwrap().payload, "yes");
    let ended = async {
        loop {
            match of_b.request("asked", "".into()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => break error.kind(),
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("the import ends");
    assert_eq!(ended, RequestErrorKind::NoResponders);
    assert!(now() >= until);
    of_a.publish("told", "2".into()).await.unwrap();
    settle(&of_a).await;
    of_b.publish("told", "own".into()).await.unwrap();
    assert_eq!(next(&mut told).await.payload, "own");
    answers.abort();
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scoped_key_binds_its_users_to_their_names_and_hours() {
    let (a, key) = (KeyPair::new_account(), KeyPair::new_account());
    let template =
        json!({ "pub": { "allow": ["x.{{name()}}.>", "t.{{tag(team)}}", "_INBOX.>", "nobody.home"] }, "subs": 2 });
    let scope = json!([{ "kind": "user_scope", "key": key.public_key(), "template": template }]);
    let text = operator_mode(&[(&a, json!({ "signing_keys": scope }))]);
    let world = World::start(&text).await;
    let body = json!({ "issuer_account": a.public_key(), "tags": ["team:red", "team:blue"] });
    let ada = user(&world, &key, body, json!({ "name": "ada" })).await.unwrap();
    let all = user(&world, &a, json!({}), json!({})).await.unwrap();
    let mut seen = all.subscribe("*.>").await.unwrap();
    settle(&all).await;
    for subject in ["x.bob.1", "x.ada.1", "t.green", "t.blue"] {
        ada.publish(subject, "".into()).await.unwrap();
    }
    ada.flush().await.unwrap();
    for expected in ["x.ada.1", "t.blue"] {
        loop {
            let subject = next(&mut seen).await.subject;
            if subject.starts_with("x.") || subject.starts_with("t.") {
                assert_eq!(subject.as_str(), expected);
                break;
            }
        }
    }
    // Hours of the day.
    let clock = |at: i64| format!("{:02}:{:02}:{:02}", at / 3600 % 24, at / 60 % 60, at % 60);
    let hours = |from: i64, to: i64| {
        let range = json!({ "start": clock(now() + from), "end": clock(now() + to) });
        json!({ "times": [range], "times_location": "UTC" })
    };
    let refused = user(&world, &a, hours(3600, 7200), json!({})).await.unwrap_err();
    assert!(refused.contains("authorization violation"), "{refused}");
    let mut wire = world.wire().await;
    let info: Value = serde_json::from_str(&wire.info["INFO ".len()..]).unwrap();
    let person = KeyPair::new_user();
    let jwt = token(&a, &person.public_key(), "user", hours(-60, 3), json!({}));
    let sig = BASE64.encode(person.sign(info["nonce"].as_str().unwrap().as_bytes()).unwrap());
    let connect = json!({ "verbose": false, "jwt": jwt, "sig": sig });
    assert_eq!(wire.ask(&format!("CONNECT {connect}")).await, ["PONG"]);
    let mut last = wire.line().await;
    while last == "PING" {
        last = wire.line().await;
    }
    assert_eq!(last, "-ERR 'User Authentication Expired'");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_ends_who_is_in() {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let own = token(&operator, &operator.public_key(), "operator", json!({}), json!({}));
    let text = |claims: Value| {
        let key = account.public_key();
        let account = token(&operator, &key, "account", claims, json!({}));
        format!(
            "operator: {own}\nresolver: MEMORY\nresolver_preload {{ {key}: {account} }}\nauthorization {{ timeout: 30 }}\n"
        )
    };
    let mut world = World::start(&text(json!({}))).await;
    let (gone, stays) = (KeyPair::new_user(), KeyPair::new_user());
    let enter = async |world: &World, person: &KeyPair| {
        let mut wire = world.wire().await;
        let info: Value = serde_json::from_str(&wire.info["INFO ".len()..]).unwrap();
        let jwt = token(&account, &person.public_key(), "user", json!({}), json!({}));
        let sig = BASE64.encode(person.sign(info["nonce"].as_str().unwrap().as_bytes()).unwrap());
        let lines = wire.ask(&format!("CONNECT {}", json!({ "verbose": false, "jwt": jwt, "sig": sig }))).await;
        (wire, lines)
    };
    let (mut revoked, first) = enter(&world, &gone).await;
    let (mut other, second) = enter(&world, &stays).await;
    assert_eq!([first, second].concat(), ["PONG", "PONG"]);
    world.reload(&text(json!({ "revocations": { gone.public_key(): now() } }))).await.unwrap();
    let said = revoked.until_pong().await;
    assert_eq!(
        said.into_iter().filter(|line| line != "PING").collect::<Vec<_>>(),
        ["-ERR 'Authorization Violation'", ""]
    );
    assert_eq!(other.ask("PUB x 0\r\n").await, ["PONG"]);
    assert_eq!(enter(&world, &gone).await.1[0], "-ERR 'Authorization Violation'");
    assert_eq!(enter(&world, &stays).await.1, ["PONG"]);
    world.server.stop().await;
}

/// What a message may hold is what server, account and user allow, the least of them; INFO tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_is_held_to_the_least_of_all_limits() {
    let account = KeyPair::new_account();
    let text = operator_mode(&[(&account, json!({ "limits": { "payload": 100, "subs": -1, "conn": -1 } }))]);
    let world = World::start(&format!("max_payload: 1000\n{text}")).await;
    for (of_user, expected) in [(json!({}), 100), (json!({ "payload": 50 }), 50), (json!({ "payload": 5000 }), 100)] {
        let mut wire = world.wire().await;
        let info: Value = serde_json::from_str(&wire.info["INFO ".len()..]).unwrap();
        assert_eq!(info["max_payload"], 1000, "nobody is known yet");
        let person = KeyPair::new_user();
        let jwt = token(&account, &person.public_key(), "user", of_user, json!({}));
        let sig = BASE64.encode(person.sign(info["nonce"].as_str().unwrap().as_bytes()).unwrap());
        let connect = json!({ "verbose": false, "protocol": 1, "jwt": jwt, "sig": sig });
        wire.say(&format!("CONNECT {connect}\r\nPING\r\n")).await;
        let mut line = wire.line().await;
        while !line.starts_with("INFO ") {
            assert!(line == "PONG" || line == "PING", "{line}");
            line = wire.line().await;
        }
        let info: Value = serde_json::from_str(&line["INFO ".len()..]).unwrap();
        assert_eq!(info["max_payload"], expected);
        let publish = |bytes: usize| format!("PUB x {bytes}\r\n{}\r\n", "x".repeat(bytes));
        assert_eq!(wire.ask(publish(expected).trim_end()).await.last().unwrap(), "PONG");
        let refused = wire.ask(publish(expected + 1).trim_end()).await;
        assert!(refused.contains(&"-ERR 'Maximum Payload Violation'".to_owned()), "{refused:?}");
        assert_eq!(refused.last().unwrap(), "");
    }
    world.server.stop().await;

    let text = "accounts { A { limits { max_payload: 100 }, users: [ { user: a, password: p } ] } }\n\
                max_payload: 1000\nauthorization { timeout: 30 }\n";
    let mut world = World::start(text).await;
    let mut wire = world.wire().await;
    let connect = r#"CONNECT {"verbose":false,"protocol":1,"user":"a","pass":"p"}"#;
    assert_eq!(wire.ask(connect).await.last().unwrap(), "PONG");
    let mut infos = Vec::new();
    for text in [text.to_owned(), text.replace("max_payload: 1000", "max_payload: 60")] {
        world.reload(&text).await.unwrap();
        wire.say("PING\r\n").await;
        loop {
            match &*wire.line().await {
                "PONG" => break,
                line => infos.extend(line.strip_prefix("INFO ").map(str::to_owned)),
            }
        }
    }
    let told = infos.iter().map(|info| serde_json::from_str::<Value>(info).unwrap()["max_payload"].clone());
    assert_eq!(told.collect::<Vec<_>>(), [100, 60]);
    world.server.stop().await;
}
