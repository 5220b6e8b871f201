//! Auth callout (ADR-26): another service says who a client is. Every expectation is what nats-server 2.15.1 did with the
//! same answers, but that nobody waits where nobody listens.

use std::sync::{Arc, Mutex};

use async_nats::Client;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures_util::StreamExt;
use nkeys::{KeyPair, XKey};
use serde_json::{Value, json};

use super::jwt::{now, operator_mode, token, user};
use super::{Wire, World, next, settle};

/// How the service answers.
#[derive(Clone)]
struct Manner {
    /// Signs answers and users.
    issuer: Arc<KeyPair>,
    signer: Arc<KeyPair>,
    /// `None`: the one that was asked for.
    user: Option<String>,
    about: Option<String>,
    server: Option<String>,
    /// Beside what makes a user of account APP that may publish on `ok.>`.
    claims: Value,
    more: Value,
    error: &'static str,
    raw: Option<Vec<u8>>,
    /// The server's key for encrypted answers, and the service's own.
    sealed: Option<XKey>,
}

impl Manner {
    fn of(issuer: &Arc<KeyPair>) -> Manner {
        Manner {
            issuer: issuer.clone(),
            signer: issuer.clone(),
            user: None,
            about: None,
            server: None,
            claims: json!({ "pub": { "allow": ["ok.>", "$SYS.REQ.USER.>"] } }),
            more: json!({ "aud": "APP", "name": "bob" }),
            error: "",
            raw: None,
            sealed: None,
        }
    }

    fn answer(&self, request: &Value) -> Vec<u8> {
        let asked = request["nats"]["user_nkey"].as_str().unwrap();
        let server = request["nats"]["server_id"]["id"].as_str().unwrap();
        let subject = self.user.as_deref().unwrap_or(asked);
        let user = token(&self.issuer, subject, "user", self.claims.clone(), self.more.clone());
        let body = if self.error.is_empty() { json!({ "jwt": user }) } else { json!({ "error": self.error }) };
        let about = self.about.as_deref().unwrap_or(asked);
        let aud = json!({ "aud": self.server.as_deref().unwrap_or(server) });
        let answer = token(&self.signer, about, "authorization_response", body, aud);
        self.raw.clone().unwrap_or(answer.into_bytes())
    }
}

/// The service, and what it was asked.
struct Service {
    manner: Arc<Mutex<Manner>>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Service {
    async fn start(client: Client, manner: Manner) -> Service {
        let service = Service { manner: Arc::new(Mutex::new(manner)), asked: Arc::default() };
        let (manner, asked) = (service.manner.clone(), service.asked.clone());
        let mut requests = client.subscribe("$SYS.REQ.USER.AUTH").await.unwrap();
        settle(&client).await;
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let manner = manner.lock().unwrap().clone();
                let server_key = request.headers.as_ref().and_then(|headers| headers.get("Nats-Server-Xkey"));
                let server_key = server_key.map(|key| XKey::from_public_key(key.as_str()).unwrap());
                let body = match (&manner.sealed, &server_key) {
                    (Some(own), Some(server)) => own.open(&request.payload, server).unwrap(),
                    _ => request.payload.to_vec(),
                };
                let claims = std::str::from_utf8(&body).unwrap().split('.').nth(1).unwrap();
                let claims: Value = serde_json::from_slice(&BASE64.decode(claims).unwrap()).unwrap();
                let mut answer = manner.answer(&claims);
                if let (Some(own), Some(server), None) = (&manner.sealed, &server_key, &manner.raw) {
                    answer = own.seal(&answer, server).unwrap();
                }
                asked.lock().unwrap().push(claims);
                client.publish(request.reply.unwrap(), answer.into()).await.unwrap();
            }
        });
        service
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn last(&self) -> Value {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

fn text(issuer: &KeyPair, more: &str) -> String {
    format!(
        r#"
accounts {{
    AUTH {{ users: [ {{ user: auth, password: p }} ] }}
    APP {{ users: [ {{ user: known, password: p }} ] }}
    OTHER {{ users: [ {{ user: other, password: p }} ] }}
    "$SYS" {{ users: [ {{ user: sys, password: p }} ] }}
}}
authorization {{
    timeout: 30
    auth_callout {{ issuer: {}, account: AUTH, auth_users: [ auth ]{more} }}
}}
"#,
        issuer.public_key()
    )
}

const JOE: &str =
    r#"CONNECT {"verbose":false,"user":"joe","pass":"secret","name":"cli","lang":"x","version":"1","protocol":1}"#;
const REFUSED: &[&str] = &["-ERR 'Authorization Violation'", ""];

async fn says(world: &World, hello: &str) -> Vec<String> {
    told(&mut world.wire().await, hello).await
}

/// What is answered, but for the server's own PINGs, which come when they come.
async fn told(wire: &mut Wire, text: &str) -> Vec<String> {
    let lines = wire.ask(text).await;
    lines.into_iter().filter(|line| line != "PING").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_says_who_comes_in_and_as_whom() {
    let issuer = Arc::new(KeyPair::new_account());
    let mut world = World::start(&text(&issuer, "")).await;
    let service = Service::start(world.user("auth", "p").await.unwrap(), Manner::of(&issuer)).await;
    assert_eq!(service.asked(), 0, "those who answer are not asked about");
    let mut joe = world.wire().await;
    let server_id = serde_json::from_str::<Value>(&joe.info["INFO ".len()..]).unwrap()["server_id"].clone();
    assert_eq!(told(&mut joe, JOE).await, ["PONG"]);
    let request = service.last();
    let nats = &request["nats"];
    assert_eq!((&request["aud"], &request["sub"]), (&json!("nats-authorization-request"), &json!(issuer.public_key())));
    assert_eq!((&request["iss"], &nats["server_id"]["id"]), (&server_id, &server_id));
    assert!(KeyPair::from_public_key(server_id.as_str().unwrap()).is_ok());
    assert_eq!(
        nats["connect_opts"],
        json!({"user": "joe", "pass": "secret", "name": "cli", "lang": "x", "version": "1", "protocol": 1})
    );
    let client = json!({"host": "127.0.0.1", "id": nats["client_info"]["id"], "user": "joe", "name": "cli", "kind": "Client", "type": "nats"});
    assert_eq!(nats["client_info"], client);
    assert_eq!((&nats["type"], &nats["version"]), (&json!("authorization_request"), &json!(2)));
    // What it may do is what it was given.
    let answers = told(&mut joe, "SUB inbox 1\r\nPUB no 0\r\n\r\nPUB $SYS.REQ.USER.INFO inbox 0\r\n").await;
    assert_eq!(answers[0], "-ERR 'Permissions Violation for Publish to \"no\"'");
    let mut lines = answers;
    while !lines.iter().any(|line| line.contains("\"user\"")) {
        lines = told(&mut joe, "PUB ok.x 0\r\n").await;
    }
    let info = lines.iter().find(|line| line.contains("\"user\"")).unwrap();
    assert!(info.contains(r#""user":"bob""#) && info.contains(r#""account":"APP""#), "{info}");
    // Whom the file knows is asked about all the same, whatever its password.
    let before = service.asked();
    for pass in ["p", "wrong"] {
        let hello = format!(r#"CONNECT {{"verbose":false,"user":"known","pass":"{pass}"}}"#);
        assert_eq!(says(&world, &hello).await, ["PONG"]);
    }
    assert_eq!(service.asked(), before + 2);
    assert_eq!(says(&world, r#"CONNECT {"user":"auth","pass":"wrong"}"#).await, REFUSED);
    assert_eq!(service.asked(), before + 2, "those who answer are known by the file alone");
    // Nobody in the account that answers asks itself.
    service.manner.lock().unwrap().more["aud"] = "AUTH".into();
    let mut inside = world.wire().await;
    assert_eq!(told(&mut inside, JOE).await, ["PONG"]);
    let refused = told(&mut inside, "PUB $SYS.REQ.USER.AUTH 0\r\n").await;
    assert_eq!(refused[0], "-ERR 'Permissions Violation for Publish to \"$SYS.REQ.USER.AUTH\"'");
    // A reload that changes nobody's rights asks nobody.
    service.manner.lock().unwrap().more["aud"] = "APP".into();
    let before = service.asked();
    world.reload(&text(&issuer, "").replace("timeout: 30", "timeout: 31")).await.unwrap();
    assert_eq!(told(&mut inside, "PUB ok.x 0\r\n").await, ["PONG"]);
    assert_eq!(service.asked(), before);
    // Another asks anew: who may stay, stays; who is somebody else now, comes again.
    world.reload(&with_another_user(&issuer)).await.unwrap();
    assert_eq!(told(&mut joe, "PUB ok.x 0\r\n").await, ["PONG"]);
    let mut last = inside.line().await;
    while last == "PING" {
        last = inside.line().await;
    }
    assert_eq!(last, "", "closed without a word");
    world.server.stop().await;
}

fn with_another_user(issuer: &KeyPair) -> String {
    text(issuer, "")
        .replace("{ user: other, password: p }", "{ user: other, password: p }, { user: more, password: p }")
}

/// A service that is away when the rules change throws nobody out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_stays_while_nobody_can_be_asked() {
    let issuer = Arc::new(KeyPair::new_account());
    let mut world = World::start(&text(&issuer, "")).await;
    let auth = world.user("auth", "p").await.unwrap();
    let service = Service::start(auth.clone(), Manner::of(&issuer)).await;
    let mut joe = world.wire().await;
    assert_eq!(told(&mut joe, JOE).await, ["PONG"]);
    service.manner.lock().unwrap().more["exp"] = (now() + 4).into();
    let mut short = world.wire().await;
    assert_eq!(told(&mut short, JOE).await, ["PONG"]);
    auth.drain().await.unwrap();
    while world.server.broker().clients().iter().any(|client| client.identity().user == "auth") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.reload(&with_another_user(&issuer)).await.unwrap();
    let denied = "-ERR 'Permissions Violation for Publish to \"no\"'";
    assert_eq!(told(&mut joe, "PUB no 0\r\n").await, [denied, "PONG"], "with the rights it had");
    assert_eq!(says(&world, JOE).await, REFUSED, "nobody new comes in");
    let mut last = short.line().await;
    while last == "PING" || last == "PONG" || last.starts_with("INFO") {
        last = short.line().await;
    }
    assert_eq!(last, "-ERR 'User Authentication Expired'");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_right_lets_nobody_in() {
    let issuer = Arc::new(KeyPair::new_account());
    let stranger = Arc::new(KeyPair::new_account());
    let world = World::start(&text(&issuer, "")).await;
    let service = Service::start(world.user("auth", "p").await.unwrap(), Manner::of(&issuer)).await;
    let good = Manner::of(&issuer);
    let own = good.clone();
    let with = |change: &dyn Fn(&mut Manner)| {
        let mut manner = own.clone();
        change(&mut manner);
        manner
    };
    let (key, server) = (KeyPair::new_user().public_key(), KeyPair::new_server().public_key());
    let hour = |from: i64| format!("{:02}:00:00", (now() / 3600 + from).rem_euclid(24));
    let manners = [
        ("an error", with(&|manner| manner.error = "no way")),
        ("signed by a stranger", Manner::of(&stranger)),
        ("a user of a stranger's", with(&|manner| manner.issuer = stranger.clone())),
        ("an answer of a stranger's", with(&|manner| manner.signer = stranger.clone())),
        ("another user", with(&|manner| manner.user = Some(key.clone()))),
        ("about another user", with(&|manner| manner.about = Some(key.clone()))),
        ("for another server", with(&|manner| manner.server = Some(server.clone()))),
        ("no such account", with(&|manner| manner.more["aud"] = "NOPE".into())),
        ("no account", with(&|manner| manner.more = json!({}))),
        ("expired", with(&|manner| manner.more["exp"] = (now() - 5).into())),
        ("an account that it issues for", with(&|manner| manner.claims["issuer_account"] = issuer.public_key().into())),
        ("another way to come", with(&|manner| manner.claims["allowed_connection_types"] = json!(["WEBSOCKET"]))),
        ("another network", with(&|manner| manner.claims["src"] = json!(["10.0.0.0/8"]))),
        (
            "another hour",
            with(&|manner| {
                manner.claims["times"] = json!([{ "start": hour(2), "end": hour(3) }]);
                manner.claims["times_location"] = "UTC".into();
            }),
        ),
        ("nothing", with(&|manner| manner.raw = Some(Vec::new()))),
        ("no JWT", with(&|manner| manner.raw = Some(b"junk".to_vec()))),
        ("no text", with(&|manner| manner.raw = Some(vec![0xff, 0xfe]))),
        ("cut short", with(&|manner| manner.raw = Some(b"eyJhbGciOiJub25lIn0.e30.".to_vec()))),
    ];
    for (what, manner) in manners {
        *service.manner.lock().unwrap() = manner;
        assert_eq!(says(&world, JOE).await, REFUSED, "{what}");
    }
    // An answer for one request is none for the next.
    let replayed = good.answer(&service.last());
    *service.manner.lock().unwrap() = with(&|manner| manner.raw = Some(replayed.clone()));
    assert_eq!(says(&world, JOE).await, REFUSED);
    *service.manner.lock().unwrap() = with(&|manner| manner.more["exp"] = (now() + 3).into());
    let mut short = world.wire().await;
    assert_eq!(told(&mut short, JOE).await, ["PONG"]);
    let mut last = short.line().await;
    while last == "PING" || last.starts_with("INFO") {
        last = short.line().await;
    }
    assert_eq!(last, "-ERR 'User Authentication Expired'");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_service_nobody_comes_in_and_some_accounts_need_none() {
    let issuer = Arc::new(KeyPair::new_account());
    let world = World::start(&text(&issuer, ", allowed_accounts: [ APP ]")).await;
    assert_eq!(says(&world, JOE).await, REFUSED);
    let known = |user: &str| format!(r#"CONNECT {{"verbose":false,"user":"{user}","pass":"p"}}"#);
    assert_eq!(says(&world, &known("known")).await, REFUSED);
    assert_eq!(says(&world, &known("other")).await, ["PONG"]);
    assert_eq!(says(&world, r#"CONNECT {"verbose":false}"#).await, REFUSED);
    world.server.stop().await;
    // One that listens and says nothing.
    let world = World::start(&text(&issuer, "").replace("timeout: 30", "timeout: 1")).await;
    let auth = world.user("auth", "p").await.unwrap();
    let mut requests = auth.subscribe("$SYS.REQ.USER.AUTH").await.unwrap();
    settle(&auth).await;
    let refused = says(&world, JOE).await;
    assert!(refused[0].starts_with("-ERR 'Auth"), "{refused:?}");
    assert!(!next(&mut requests).await.payload.is_empty());
    world.server.stop().await;
    for (text, expected) in [
        (text(&issuer, "").replace("auth_users: [ auth ]", "auth_users: [ nobody ]"), "user \"nobody\" not valid"),
        (text(&issuer, "").replace("account: AUTH", "account: NOPE"), "account \"NOPE\" not valid"),
    ] {
        let refusal = World::refusal(&text).await;
        assert!(refusal.contains(expected), "{refusal}");
    }
}

/// Nobody is spared by a name that it gives itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_asked_about_is_who_was_let_in() {
    let issuer = Arc::new(KeyPair::new_account());
    let world = World::start(&text(&issuer, "")).await;
    let service = Service::start(world.user("auth", "p").await.unwrap(), Manner::of(&issuer)).await;
    let hello = r#"CONNECT {"verbose":false,"nkey":"auth","user":"known","pass":"p"}"#;
    assert_eq!(says(&world, hello).await, ["PONG"]);
    assert_eq!(service.asked(), 1);
    // Who is none of them and says so is refused as ever.
    let hello = r#"CONNECT {"verbose":false,"nkey":"auth","user":"known","pass":"wrong"}"#;
    assert_eq!(says(&world, hello).await, REFUSED);
    world.server.stop().await;

    // A certificate says who a client is, and not its CONNECT.
    let users = "users: [ { user: \"derek@example.com\" } ]";
    let text = text(&issuer, "").replace("users: [ { user: known, password: p } ]", users);
    let mapped = format!("{}{text}", super::tls::block("verify_and_map: true"));
    let world = World::start(&mapped.replace("{ user: auth, password: p }", "{ user: auth }")).await;
    let options = async_nats::ConnectOptions::with_user_and_password("auth".into(), "p".into())
        .add_root_certificates(super::tls::file("ca.pem"))
        .add_client_certificate(super::tls::file("client.pem"), super::tls::file("client-key.pem"))
        .require_tls(true);
    // Nobody who could answer has come, so nobody comes in.
    let url = format!("tls://localhost:{}", world.address().port());
    assert!(options.connect(url).await.is_err());
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_monitoring_tell_of_tls() {
    let issuer = Arc::new(KeyPair::new_account());
    let (ca, own) = (super::tls::file("ca.pem"), super::tls::file("client.pem"));
    let pem = |path| std::fs::read_to_string(path).unwrap();
    for verify in [false, true] {
        let block = super::tls::block(if verify { "verify: true, handshake_first: true" } else { "" });
        let world = World::start(&format!("{block}{}", text(&issuer, ""))).await;
        let enter = async |user: &str| {
            let options = async_nats::ConnectOptions::with_user_and_password(user.into(), "p".into())
                .custom_inbox_prefix(format!("_INBOX_{user}"))
                .add_root_certificates(ca.clone())
                .require_tls(true);
            let options = match verify {
                true => options.tls_first().add_client_certificate(own.clone(), super::tls::file("client-key.pem")),
                false => options,
            };
            options.connect(format!("tls://localhost:{}", world.address().port())).await.unwrap()
        };
        let mut manner = Manner::of(&issuer);
        manner.claims = json!({});
        let service = Service::start(enter("auth").await, manner.clone()).await;
        let joe = enter("joe").await;
        let request = service.last();
        let told = &request["nats"]["client_tls"];
        assert_eq!(told["version"], "1.3");
        assert!(told["cipher"].as_str().unwrap().starts_with("TLS_AES_"), "{told}");
        assert_eq!(told.get("certs"), None);
        match verify {
            false => assert_eq!(told.get("verified_chains"), None),
            true => assert_eq!(told["verified_chains"], json!([[pem(&own), pem(&ca)]])),
        }
        service.manner.lock().unwrap().more["aud"] = "$SYS".into();
        let sys = enter("sys").await;
        for auth in [false, true] {
            let body = json!({ "auth": auth }).to_string();
            let answer = sys.request("$SYS.REQ.SERVER.PING.CONNZ", body.into()).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            let cid = joe.server_info().client_id;
            let connections = answer["data"]["connections"].as_array().unwrap();
            let joe = connections.iter().find(|connection| connection["cid"] == cid).unwrap();
            assert_eq!((&joe["tls_version"], &joe["tls_cipher_suite"]), (&told["version"], &told["cipher"]));
            assert_eq!(joe.get("tls_first"), verify.then_some(&json!(true)));
            let shown = joe.get("tls_peer_certs");
            assert_eq!(shown.is_some(), auth && verify, "{joe}");
            if let Some(shown) = shown {
                assert_eq!(shown[0]["subject"], "CN=derek,O=natterjack tests");
                assert!(["spki_sha256", "cert_sha256"].iter().all(|hash| shown[0][hash].as_str().unwrap().len() == 64));
            }
        }
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_answers_are_encrypted_on_request() {
    let (issuer, own) = (Arc::new(KeyPair::new_account()), XKey::new());
    let world = World::start(&text(&issuer, &format!(", xkey: {}", own.public_key()))).await;
    let auth = world.user("auth", "p").await.unwrap();
    let mut seen = auth.subscribe("$SYS.REQ.USER.AUTH").await.unwrap();
    let mut manner = Manner::of(&issuer);
    manner.sealed = Some(own);
    let service = Service::start(auth.clone(), manner.clone()).await;
    assert_eq!(says(&world, JOE).await, ["PONG"]);
    let request = next(&mut seen).await;
    let key = request.headers.unwrap().get("Nats-Server-Xkey").unwrap().to_string();
    assert!(key.starts_with('X') && !request.payload.starts_with(b"eyJ"));
    assert_eq!(service.last()["nats"]["server_id"]["xkey"], key);
    // Encrypted by somebody else, or for somebody else.
    let (server, other) = (XKey::from_public_key(&key).unwrap(), XKey::new());
    let sealing = manner.sealed.clone().unwrap();
    for answer in [other.seal(b"eyJ", &server).unwrap(), sealing.seal(b"eyJ", &other).unwrap(), b"xkv1".to_vec()] {
        manner.raw = Some(answer);
        *service.manner.lock().unwrap() = manner.clone();
        assert_eq!(says(&world, JOE).await, REFUSED);
    }
    manner.raw = None;
    *service.manner.lock().unwrap() = manner;
    assert_eq!(says(&world, JOE).await, ["PONG"]);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_operator_mode_an_account_has_its_users_asked_about() {
    let [auth, app, other] = [(); 3].map(|()| Arc::new(KeyPair::new_account()));
    let service_user = KeyPair::new_user();
    let authorization = json!({"auth_users": [service_user.public_key()], "allowed_accounts": [app.public_key()]});
    let text =
        operator_mode(&[(&auth, json!({ "authorization": authorization })), (&app, json!({})), (&other, json!({}))]);
    let world = World::start(&text).await;
    let jwt = token(&auth, &service_user.public_key(), "user", json!({}), json!({}));
    let service_user = Arc::new(service_user);
    let options = async_nats::ConnectOptions::with_jwt(jwt, move |nonce| {
        let key = service_user.clone();
        async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
    });
    let client = options.connect(world.server.client_url()).await.unwrap();
    let mut manner = Manner::of(&app);
    manner.signer = auth.clone();
    let service = Service::start(client, manner.clone()).await;
    // Everybody may show the sentinel's token: who it is, is the service's to say.
    let sentinel = token(&auth, &KeyPair::new_user().public_key(), "user", json!({"bearer_token": true}), json!({}));
    let hello = format!(r#"CONNECT {{"verbose":false,"user":"joe","pass":"secret","jwt":"{sentinel}","protocol":1}}"#);
    let mut joe = world.wire().await;
    joe.say(&format!("{hello}\r\nPING\r\nPING\r\n")).await;
    assert_eq!(joe.line().await, "PONG");
    let info = joe.line().await;
    assert!(info.contains(&format!(r#""remote_account":"{}""#, app.public_key())), "{info}");
    let request = service.last();
    assert_eq!(request["sub"], auth.public_key());
    assert_eq!(request["nats"]["connect_opts"]["user"], "joe");
    // An account that is not allowed, an answer that another account signed, an own JWT that does not hold.
    manner.issuer = other.clone();
    *service.manner.lock().unwrap() = manner.clone();
    assert_eq!(says(&world, &hello).await, REFUSED);
    manner.issuer = app.clone();
    manner.signer = other.clone();
    *service.manner.lock().unwrap() = manner.clone();
    assert_eq!(says(&world, &hello).await, REFUSED);
    manner.signer = auth.clone();
    *service.manner.lock().unwrap() = manner;
    let asked = service.asked();
    let expired = token(
        &auth,
        &KeyPair::new_user().public_key(),
        "user",
        json!({"bearer_token": true}),
        json!({"exp": now() - 1}),
    );
    assert_eq!(says(&world, &hello.replace(&sentinel, &expired)).await, REFUSED);
    assert_eq!(service.asked(), asked);
    // Users of accounts without callouts come in by their own JWTs.
    assert!(user(&world, &other, json!({}), json!({})).await.is_ok());
    assert_eq!(service.asked(), asked);
    world.server.stop().await;
    // Who shows no token at all comes with the server's sentinel.
    let world = World::start(&format!("{text}\ndefault_sentinel: {sentinel}\n")).await;
    assert_eq!(says(&world, JOE).await, REFUSED, "nobody answers yet");
    world.server.stop().await;
    let bound = token(&auth, &KeyPair::new_user().public_key(), "user", json!({}), json!({}));
    let refusal = World::refusal(&format!("{text}\ndefault_sentinel: {bound}\n")).await;
    assert!(refusal.contains("default_sentinel"), "{refusal}");
    let pinned = World::start(&format!("{text}\nresolver_pinned_accounts: [ {} ]\n", app.public_key())).await;
    assert!(user(&pinned, &app, json!({}), json!({})).await.is_ok());
    assert!(user(&pinned, &other, json!({}), json!({})).await.is_err());
    pinned.server.stop().await;
}
