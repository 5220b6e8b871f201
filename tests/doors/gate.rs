//! Credentials and what is answered to wrong ones, on the wire.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use nkeys::KeyPair;
use serde_json::json;

use super::{PATIENCE, World, token};

const VIOLATION: &str = "-ERR 'Authorization Violation'";
const USERS: &str = r#"authorization {
    timeout: 30
    users: [ { user: a, password: "pa" }, { user: b, password: "$2b$04$zVHmKQtGGQob.b/Nc7l9NO8UlrYcW05FiuCj/SxsFO/ZtiN9.mNzy" } ]
}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_connect_comes_before_it() {
    let world = World::start(USERS).await;
    assert!(world.wire().await.info.contains(r#""auth_required":true"#));
    for early in ["PING", "SUB x 1", "PUB x 3\r\nabc", "HPUB x 0 999999999", "INFO {}", "+OK", "FOO"] {
        let mut wire = world.wire().await;
        assert_eq!(wire.ask(early).await, [VIOLATION, ""], "{early}");
    }
    for wrong in [
        r#"CONNECT {}"#,
        r#"CONNECT {"user":"a"}"#,
        r#"CONNECT {"user":"a","pass":"pb"}"#,
        r#"CONNECT {"user":"nobody","pass":"pa"}"#,
        r#"CONNECT {"auth_token":"pa"}"#,
        r#"CONNECT {"user":"b","pass":"wrong"}"#,
        r#"CONNECT {"nkey":"UAFHG6FUD2UU4SDFVAFUL5LDFO2XM4WYM76UNXTPJYJK7EEMYRBHT2VE","sig":"AAAA"}"#,
        r#"CONNECT {"user":"a","pass":"pa","account":"B"}"#,
    ] {
        let mut wire = world.wire().await;
        assert_eq!(wire.ask(wrong).await, [VIOLATION, ""], "{wrong}");
    }
    let mut wire = world.wire().await;
    // What comes with CONNECT is done once it is judged.
    let said = "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"pa\"}\r\nSUB x 1\r\nPUB x 2\r\nhi";
    assert_eq!(wire.ask(said).await, ["MSG x 1 2", "hi", "PONG"]);
    // A second CONNECT is judged as the first: whoever is no longer let in is cut.
    assert_eq!(wire.ask(r#"CONNECT {"user":"a","pass":"no"}"#).await, [VIOLATION, ""]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashed_passwords_are_checked_beside_the_rest() {
    let hash = bcrypt::hash("s3cr3t", 4).unwrap();
    let world = World::start(&format!("authorization {{ user: u, password: '{hash}', timeout: 30 }}")).await;
    world.user("u", "s3cr3t").await.expect("the password is right");
    assert!(world.user("u", "s3cr3").await.is_err());
    assert!(world.user("v", "s3cr3t").await.is_err());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_cut_in_time() {
    let world = World::start("authorization { token: t, timeout: 0.2 }").await;
    let mut wire = world.wire().await;
    assert_eq!(wire.until_pong().await, ["-ERR 'Authentication Timeout'", ""]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nonce_is_signed_and_never_given_twice() {
    let key = KeyPair::new_user();
    let world =
        World::start(&format!("authorization {{ users: [ {{ nkey: {} }} ], timeout: 30 }}", key.public_key())).await;
    let nonce_of = |info: &str| {
        let info: serde_json::Value = serde_json::from_str(info.strip_prefix("INFO ").unwrap()).unwrap();
        info["nonce"].as_str().expect("a nonce").to_owned()
    };
    let connect = |nonce: &str| {
        let sig = URL.encode(key.sign(nonce.as_bytes()).unwrap());
        format!(r#"CONNECT {{"verbose":false,"nkey":"{}","sig":"{sig}"}}"#, key.public_key())
    };
    let (mut first, mut second) = (world.wire().await, world.wire().await);
    let nonce = nonce_of(&first.info);
    assert_ne!(nonce, nonce_of(&second.info));
    assert_eq!(first.ask(&connect(&nonce)).await, ["PONG"]);
    // A signature that was overheard is of no use.
    assert_eq!(second.ask(&connect(&nonce)).await, [VIOLATION, ""]);
    let seed = key.seed().unwrap();
    async_nats::ConnectOptions::with_nkey(seed).connect(world.server.client_url()).await.expect("the client signs");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_needs_no_credentials_is_somebody_all_the_same() {
    let world = World::start(
        r#"no_auth_user: guest
        accounts { A { users: [ { user: guest, permissions: { publish: [hello] } }, { user: boss, pass: secret } ] } }"#,
    )
    .await;
    let mut wire = world.wire().await;
    assert!(!wire.info.contains("auth_required"), "{}", wire.info);
    let said = "CONNECT {\"verbose\":false}\r\nPUB secret 0\r\n";
    assert_eq!(wire.ask(said).await, [r#"-ERR 'Permissions Violation for Publish to "secret"'"#, "PONG"]);
    assert!(world.user("boss", "wrong").await.is_err());
    assert!(world.user("boss", "").await.is_err());
    world.user("boss", "secret").await.expect("the password is right");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contradictions_are_refused_at_start() {
    for (text, expected) in [
        ("no_auth_user: x", "no_auth_user: \"x\" not present"),
        ("authorization { users: [ { user: a, password: b }, { user: a, password: c } ] }", "Duplicate user"),
        ("authorization { users: [ { nkey: UXYZ } ] }", "not a valid public nkey"),
        ("system_account: NOPE", "system_account \"NOPE\" does not exist"),
        ("operator: eyJ.x.y", "operator JWT"),
        ("tls { cert_file: /nowhere, key_file: /nowhere }", "/nowhere"),
    ] {
        let refusal = World::refusal(text).await;
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_time_is_over_is_cut() {
    let operator = KeyPair::new_operator();
    let (account, user) = (KeyPair::new_account(), KeyPair::new_user());
    let text = format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}",
        token(&operator, &operator, json!({"type": "operator"}), 0),
        account.public_key(),
        token(&operator, &account, json!({"type": "account"}), 0),
    );
    let world = World::start(&text).await;
    let now = u64::try_from(natterjack::types::Timestamp::now().0 / 1_000_000_000).unwrap();
    let jwt = token(&account, &user, json!({"type": "user"}), now + 3);
    let seed = std::sync::Arc::new(user);
    let options = async_nats::ConnectOptions::with_jwt(jwt, move |nonce| {
        let seed = seed.clone();
        async move { seed.sign(&nonce).map_err(async_nats::AuthError::new) }
    });
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let options = options.event_callback(move |event| {
        let _ = events.send(event.to_string());
        async {}
    });
    let client = options.connect(world.server.client_url()).await.expect("the user may come in");
    client.publish("x", "".into()).await.unwrap();
    let expired = async {
        while let Some(event) = seen.recv().await {
            if event.to_lowercase().contains("user authentication expired") {
                return;
            }
        }
        panic!("the client heard of no end");
    };
    tokio::time::timeout(PATIENCE, expired).await.expect("the user is cut when its JWT ends");
    world.server.stop().await;
}
