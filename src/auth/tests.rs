use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use nkeys::KeyPair;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::protocol::Connect;
use crate::types::{Timestamp, subject};

const NONCE: &str = "a-nonce";
const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);
const NOW_SECONDS: i64 = 1_700_000_000;
/// bcrypt of `s3cr3t`, cost 4.
const HASH: &str = "$2b$04$bmFlZXJpbHVhZWZpdWFscu9rd5n0.vHYGNHUm3MNuxwXNGzb2Czd2";

fn password_user(user: &str, password: &str) -> User {
    User {
        credential: Credential::Password { user: user.into(), password: Secret::new(password) },
        account: None,
        permissions: None,
        connection_types: Vec::new(),
    }
}

fn judge_from(book: &Book, connect: &Connect, way: ConnectionType, ip: &str) -> Verdict {
    book.judge(&Presented {
        tls: None,
        connect,
        nonce: NONCE,
        connection_type: way,
        ip: ip.parse().ok(),
        certificate: None,
        maps_certificates: false,
        now: NOW,
    })
}

/// The user that is let in, its slow hash worked out.
fn judge(book: &Book, connect: &Connect) -> Option<Arc<Grant>> {
    match judge_from(book, connect, ConnectionType::Standard, "10.0.0.7") {
        Verdict::Granted(grant) => Some(grant),
        Verdict::Refused(_) => None,
        Verdict::CheckPassword(check) => check_hash(&check.hash, &check.presented).then_some(check.grant).flatten(),
    }
}

fn with_password(user: &str, pass: &str) -> Connect {
    Connect { user: user.into(), pass: pass.into(), ..Connect::default() }
}

#[test]
fn an_open_book_lets_everybody_in() {
    let book = Book::open();
    assert!(!book.is_required(ConnectionType::Standard) && !book.needs_nonce());
    assert_eq!(judge(&book, &with_password("any", "thing")).unwrap().account, "$G");
}

#[test]
fn passwords_plain_and_hashed() {
    let plan =
        Plan { users: vec![password_user("a", "s3cr3t"), password_user("b", &hash_of("s3cr3t"))], ..Plan::default() };
    let book = Book::new(&plan).unwrap();
    for (user, pass, expected) in [
        ("a", "s3cr3t", true),
        ("a", "s3cr3", false),
        ("a", "", false),
        ("b", "s3cr3t", true),
        ("b", "wrong", false),
        ("c", "s3cr3t", false),
        ("", "s3cr3t", false),
        ("", "", false),
    ] {
        assert_eq!(judge(&book, &with_password(user, pass)).is_some(), expected, "{user}:{pass}");
    }
    // The hash itself is not the password, and who is unknown takes as long as who is known.
    assert!(judge(&book, &with_password("b", &hash_of("s3cr3t"))).is_none());
    for (user, pass) in [("c", "x"), ("a", "wrong"), ("a", "")] {
        let verdict = judge_from(&book, &with_password(user, pass), ConnectionType::Standard, "");
        assert!(matches!(verdict, Verdict::CheckPassword(PasswordCheck { grant: None, .. })), "{user}: {verdict:?}");
    }
    // Not where no password is a hash.
    let plain = Book::new(&Plan { users: vec![password_user("a", "s3cr3t")], ..Plan::default() }).unwrap();
    let wrong = judge_from(&plain, &with_password("a", "wrong"), ConnectionType::Standard, "");
    assert!(matches!(wrong, Verdict::Refused(_)), "{wrong:?}");
    assert!(!Secret::new(HASH).is("x") && Secret::new(HASH).is_hash());
    let shown = format!("{plan:?}");
    assert!(!shown.contains("s3cr3t") && !shown.contains("$2"), "{shown}");
}

fn hash_of(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

#[test]
fn tokens_and_single_users() {
    let token = Plan { simple: Some(SimpleLogin::Token(Secret::new("t0ken"))), ..Plan::default() };
    let book = Book::new(&token).unwrap();
    let with_token = |token: &str| Connect { auth_token: token.into(), ..Connect::default() };
    assert!(judge(&book, &with_token("t0ken")).is_some());
    assert!(judge(&book, &with_token("t0ke")).is_none());
    assert!(judge(&book, &with_password("t0ken", "")).is_none());
    let single = SimpleLogin::Password { user: "derek".into(), password: Secret::new("porkchop") };
    let book = Book::new(&Plan { simple: Some(single), ..Plan::default() }).unwrap();
    assert!(judge(&book, &with_password("derek", "porkchop")).is_some());
    assert!(judge(&book, &with_password("derek", "x")).is_none());
    assert!(judge(&book, &with_password("dere", "porkchop")).is_none());
}

#[test]
fn users_without_credentials() {
    let user = User { account: Some("A".into()), ..password_user("foo", "foo") };
    let accounts = vec![AccountSpec { name: "A".into(), ..AccountSpec::default() }];
    let plan = Plan { users: vec![user], accounts, no_auth_user: Some("foo".into()), ..Plan::default() };
    let book = Book::new(&plan).unwrap();
    assert!(book.is_required(ConnectionType::Standard) && !book.is_announced(ConnectionType::Standard));
    assert_eq!(judge(&book, &Connect::default()).unwrap().account, "A");
    assert!(judge(&book, &with_password("foo", "wrong")).is_none());
    let missing = Plan { no_auth_user: Some("bar".into()), ..plan };
    assert_eq!(Book::new(&missing).unwrap_err(), BookError::NoAuthUser("bar".into()));
}

#[test]
fn nkeys_sign_the_nonce() {
    let key = KeyPair::new_user();
    let credential = Credential::Nkey(key.public_key());
    let user = User { credential, account: None, permissions: None, connection_types: Vec::new() };
    let book = Book::new(&Plan { users: vec![user], ..Plan::default() }).unwrap();
    assert!(book.needs_nonce());
    let signed = |key: &KeyPair, nonce: &str| Connect {
        nkey: key.public_key(),
        sig: URL.encode(key.sign(nonce.as_bytes()).unwrap()),
        ..Connect::default()
    };
    assert_eq!(judge(&book, &signed(&key, NONCE)).unwrap().login.user, key.public_key());
    assert!(judge(&book, &signed(&key, "another nonce")).is_none());
    assert!(judge(&book, &signed(&KeyPair::new_user(), NONCE)).is_none());
    for sig in ["", "x", &"A".repeat(86), &"A".repeat(100_000)] {
        let forged = Connect { nkey: key.public_key(), sig: sig.into(), ..Connect::default() };
        assert!(judge(&book, &forged).is_none(), "{} bytes", sig.len());
    }
    // A key of all zeros would take anybody's word.
    assert!(PublicKey::parse("UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIYA", KeyKind::User).is_none());
    assert!(PublicKey::parse(&key.public_key(), KeyKind::Account).is_none());
}

#[test]
fn connection_types_are_held_to() {
    let user = User { connection_types: vec![ConnectionType::WebSocket], ..password_user("w", "w") };
    let book = Book::new(&Plan { users: vec![user], ..Plan::default() }).unwrap();
    let connect = with_password("w", "w");
    let granted = |way| matches!(judge_from(&book, &connect, way, ""), Verdict::Granted(_));
    assert!(granted(ConnectionType::WebSocket) && !granted(ConnectionType::Standard));
}

/// An operator, an account it has signed and a user of that account.
struct World {
    operator: KeyPair,
    account: KeyPair,
    user: KeyPair,
}

impl World {
    fn new() -> World {
        World { operator: KeyPair::new_operator(), account: KeyPair::new_account(), user: KeyPair::new_user() }
    }

    fn book(&self, account: serde_json::Value) -> Result<Book, BookError> {
        let key = self.operator.public_key();
        let operator = token(&self.operator, &key, "operator", json!({}), json!({}));
        let account = token(&self.operator, &self.account.public_key(), "account", json!({}), account);
        let account_jwts = vec![(self.account.public_key(), account)];
        Book::new(&Plan { operators: vec![operator], account_jwts, ..Plan::default() })
    }

    fn connect(&self, issuer: &KeyPair, times: serde_json::Value, body: serde_json::Value) -> Connect {
        let jwt = token(issuer, &self.user.public_key(), "user", times, body);
        Connect { jwt, sig: URL.encode(self.user.sign(NONCE.as_bytes()).unwrap()), ..Connect::default() }
    }
}

fn token(issuer: &KeyPair, subject: &str, kind: &str, more: serde_json::Value, body: serde_json::Value) -> String {
    let mut nats = body;
    nats["type"] = kind.into();
    nats["version"] = 2.into();
    let mut claims = json!({
        "iss": issuer.public_key(), "sub": subject, "name": "a name", "iat": NOW_SECONDS - 100, "nats": nats
    });
    for (key, value) in more.as_object().unwrap() {
        claims[key] = value.clone();
    }
    let head = URL.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", URL.encode(claims.to_string()));
    format!("{signed}.{}", URL.encode(issuer.sign(signed.as_bytes()).unwrap()))
}

#[test]
fn operator_mode_asks_for_a_chain_of_signatures() {
    let world = World::new();
    let book = world.book(json!({})).unwrap();
    let plain = world.connect(&world.account, json!({}), json!({}));
    let grant = judge(&book, &plain).unwrap();
    assert_eq!(grant.account, world.account.public_key());
    assert_eq!(grant.login.user, world.user.public_key());
    // Nobody gets in otherwise.
    assert!(judge(&book, &with_password("a", "b")).is_none());
    assert!(judge(&book, &Connect::default()).is_none());
    assert!(judge(&book, &Connect { sig: String::new(), ..plain.clone() }).is_none());
    assert!(judge(&book, &world.connect(&KeyPair::new_account(), json!({}), json!({}))).is_none());
    let issuer_account = json!({ "issuer_account": world.account.public_key() });
    assert!(judge(&book, &world.connect(&KeyPair::new_account(), json!({}), issuer_account)).is_none());
    let mut tampered = plain.clone();
    let at = tampered.jwt.len() - 3;
    tampered.jwt.replace_range(at..at + 1, if &tampered.jwt[at..=at] == "A" { "B" } else { "A" });
    assert!(judge(&book, &tampered).is_none());
    // An account that another operator has signed is no account.
    let stranger = World { operator: KeyPair::new_operator(), ..World::new() };
    let key = world.operator.public_key();
    let plan = Plan {
        operators: vec![token(&world.operator, &key, "operator", json!({}), json!({}))],
        account_jwts: vec![(
            stranger.account.public_key(),
            token(&stranger.operator, &stranger.account.public_key(), "account", json!({}), json!({})),
        )],
        ..Plan::default()
    };
    assert!(matches!(Book::new(&plan), Err(BookError::AccountJwt { .. })));
}

#[test]
fn jwts_expire_and_are_revoked_and_limit() {
    let world = World::new();
    let open = world.book(json!({})).unwrap();
    let times = |times| world.connect(&world.account, times, json!({}));
    let grant = judge(&open, &times(json!({ "exp": NOW_SECONDS + 60 }))).unwrap();
    assert_eq!(grant.expires, Some(NOW + Duration::from_secs(60)));
    assert!(judge(&open, &times(json!({ "exp": NOW_SECONDS }))).is_none());
    assert!(judge(&open, &times(json!({ "nbf": NOW_SECONDS + 1 }))).is_none());

    let user = |body| world.connect(&world.account, json!({}), body);
    for (issued_before, expected) in [(NOW_SECONDS - 101, true), (NOW_SECONDS - 100, false), (NOW_SECONDS, false)] {
        for who in [world.user.public_key(), "*".to_owned()] {
            let book = world.book(json!({ "revocations": { who: issued_before } })).unwrap();
            assert_eq!(judge(&book, &user(json!({}))).is_some(), expected);
        }
    }
    assert!(judge(&open, &user(json!({ "src": ["10.0.0.0/8"] }))).is_some());
    assert!(judge(&open, &user(json!({ "src": ["10.1.0.0/16", "::/0", "x"] }))).is_none());
    assert!(judge(&open, &user(json!({ "allowed_connection_types": ["WEBSOCKET"] }))).is_none());
    let hours = |start: &str, end: &str| {
        let times = json!({ "times": [{ "start": start, "end": end }], "times_location": "UTC" });
        judge(&open, &user(times)).map(|grant| grant.expires)
    };
    let (day, second) = (24 * 3600, |seconds: i64| {
        let seconds = seconds.rem_euclid(24 * 3600);
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    });
    let today = NOW_SECONDS % day;
    assert_eq!(hours(&second(today - 60), &second(today + 60)), Some(Some(NOW + Duration::from_secs(60))));
    assert_eq!(hours(&second(today + 60), &second(today + 120)), None);
    assert_eq!(hours("x", "23:00:00"), None);
    let bearer = Connect { sig: String::new(), ..user(json!({ "bearer_token": true })) };
    assert!(judge(&open, &bearer).is_some());
    let strict = world.book(json!({ "limits": { "disallow_bearer": true } })).unwrap();
    assert!(judge(&strict, &bearer).is_none());

    let limited =
        world.book(json!({ "limits": { "subs": 10, "payload": 100, "conn": 2, "disk_storage": -1 } })).unwrap();
    let grant = judge(&limited, &user(json!({ "subs": 20, "payload": 50 }))).unwrap();
    assert_eq!(grant.limits, UserLimits { subscriptions: Some(10), payload_bytes: Some(50) });
    let spec = &limited.accounts()[0];
    assert_eq!((spec.connections_max, spec.jetstream.is_some()), (Some(2), true));
}

/// Each token by another key of the chain: who signs whom, and who is let in.
#[test]
fn signing_keys_sign_and_where_they_are_wanted_they_alone() {
    let world = World::new();
    let (of_operator, of_account) = (KeyPair::new_operator(), KeyPair::new_account());
    let book = |strict: bool, signs: &KeyPair| {
        let (key, account) = (world.operator.public_key(), world.account.public_key());
        let keys = json!({ "signing_keys": [of_operator.public_key()], "strict_signing_key_usage": strict });
        let claims = json!({ "signing_keys": [of_account.public_key()] });
        Book::new(&Plan {
            operators: vec![token(&world.operator, &key, "operator", json!({}), keys)],
            account_jwts: vec![(account.clone(), token(signs, &account, "account", json!({}), claims))],
            ..Plan::default()
        })
    };
    let of = json!({ "issuer_account": world.account.public_key() });
    let by_account = world.connect(&world.account, json!({}), json!({}));
    let by_key = world.connect(&of_account, json!({}), of.clone());
    let account_unnamed = world.connect(&of_account, json!({}), json!({}));
    let stranger = world.connect(&KeyPair::new_account(), json!({}), of);
    for (strict, signs, expected) in [
        (false, &world.operator, Some([true, true, false, false])),
        (false, &of_operator, Some([true, true, false, false])),
        (true, &of_operator, Some([false, true, false, false])),
        (true, &world.operator, None),
        (false, &KeyPair::new_operator(), None),
    ] {
        let let_in = book(strict, signs).ok().map(|book| {
            [&by_account, &by_key, &account_unnamed, &stranger].map(|connect| judge(&book, connect).is_some())
        });
        assert_eq!(let_in, expected, "strict {strict}");
    }
}

#[test]
fn what_ends_first_is_told_from_what_ends_later() {
    let world = World::new();
    let at = |seconds: i64| json!({ "exp": NOW_SECONDS + seconds });
    for (account, user, expected) in [
        (json!({}), json!({}), (None, false)),
        (at(60), json!({}), (Some(60), true)),
        (at(60), at(30), (Some(30), false)),
        (at(30), at(60), (Some(30), true)),
        (json!({}), at(30), (Some(30), false)),
    ] {
        let (operator, key) = (world.operator.public_key(), world.account.public_key());
        let plan = Plan {
            operators: vec![token(&world.operator, &operator, "operator", json!({}), json!({}))],
            account_jwts: vec![(key.clone(), token(&world.operator, &key, "account", account, json!({})))],
            ..Plan::default()
        };
        let grant = judge(&Book::new(&plan).unwrap(), &world.connect(&world.account, user, json!({}))).unwrap();
        let expires = expected.0.map(|seconds| NOW + Duration::from_secs(seconds));
        assert_eq!((grant.expires, grant.expires_with_account), (expires, expected.1));
    }
}

#[test]
fn accounts_ask_for_the_task_coordinator_by_a_tag() {
    for (tags, expected) in [
        (json!(["team:a", "natterjack:coordinator"]), true),
        (json!(["Natterjack:Coordinator"]), true),
        (json!(["natterjack"]), false),
        (json!(null), false),
    ] {
        let book = World::new().book(json!({ "tags": tags })).unwrap();
        assert_eq!(book.accounts()[0].coordinator.is_some(), expected, "{tags}");
    }
}

#[test]
fn jwts_carry_permissions_and_scopes() {
    let world = World::new();
    let signing = KeyPair::new_account();
    let book = world
        .book(json!({
            "default_permissions": { "pub": { "allow": ["d"] } },
            "signing_keys": [{
                "kind": "user_scope", "key": signing.public_key(),
                "template": { "sub": { "deny": ["s.{{tag(team)}}", "s"] }, "pub": { "deny": ["{{name()}}"] }, "subs": 3 }
            }],
        }))
        .unwrap();
    let user = |issuer, body| judge(&book, &world.connect(issuer, json!({}), body));
    let of_default = user(&world.account, json!({})).unwrap().permit.clone().unwrap();
    assert!(of_default.may_publish(b"d") && !of_default.may_publish(b"x"));
    let own = user(&world.account, json!({ "pub": { "allow": ["x"] } })).unwrap().permit.clone().unwrap();
    assert!(own.may_publish(b"x") && !own.may_publish(b"d"));
    let account = world.account.public_key();
    let team = json!(["team:red", "team:blue"]);
    // The name has a blank and makes no subject.
    assert!(user(&signing, json!({ "issuer_account": account, "tags": team })).is_none());
    let named = |tags: serde_json::Value| {
        let body = json!({ "issuer_account": account, "tags": tags });
        judge(&book, &world.connect(&signing, json!({ "name": "ada" }), body))
    };
    assert!(named(json!([])).is_none(), "a denial without a value");
    let scoped = named(team).unwrap();
    let permit = scoped.permit.clone().unwrap();
    assert!(!permit.may_publish(b"ada") && !permit.may_subscribe(b"s.blue", None));
    assert!(permit.may_subscribe(b"s.green", None));
    assert!(permit.may_publish(b"x") && !permit.may_subscribe(b"s", None) && scoped.limits.subscriptions == Some(3));
    assert!(user(&signing, json!({ "issuer_account": account, "pub": { "allow": ["x"] } })).is_none());
}

fn rules(allow: Option<&[&str]>, deny: &[&str]) -> SubjectRules {
    let parse = |texts: &[&str]| texts.iter().map(|text| SubjectRule::parse(text).unwrap()).collect::<Vec<_>>();
    SubjectRules { allow: allow.map(parse), deny: parse(deny) }
}

#[test]
fn queue_groups_are_allowed_and_denied_by_name() {
    let subscribe = rules(Some(&["open", "foo v1", "foo v1.>", "foo *.dev"]), &["open secret"]);
    let permit = Permit::new(&Permissions { subscribe, ..Permissions::default() }).unwrap();
    for (filter, queue, expected) in [
        ("open", None, true),
        ("open", Some("any"), true),
        ("open", Some("secret"), false),
        ("foo", None, false),
        ("foo", Some("v1"), true),
        ("foo", Some("v1.prod"), true),
        ("foo", Some("v2.dev"), true),
        ("foo", Some("v2"), false),
        ("bar", Some("v1"), false),
    ] {
        assert_eq!(permit.may_subscribe(filter.as_bytes(), queue.map(str::as_bytes)), expected, "{filter} {queue:?}");
    }
    assert!(permit.may_receive(b"open", Some(b"any")) && !permit.may_receive(b"open", Some(b"secret")));
}

#[test]
fn answers_run_out() {
    let limits = ResponseLimits { msgs_max: Some(2), expires: Some(Duration::from_secs(1)) };
    let mut responses = Responses::new(limits);
    responses.note(b"r", NOW);
    assert!(responses.take(b"r", NOW) && responses.take(b"r", NOW) && !responses.take(b"r", NOW));
    responses.note(b"r", NOW);
    assert!(!responses.take(b"r", NOW + Duration::from_secs(2)) && !responses.take(b"other", NOW));
    let mut endless = Responses::new(ResponseLimits { msgs_max: None, expires: None });
    for number in 0..200_000u32 {
        endless.note(&number.to_be_bytes(), NOW);
    }
    assert!(endless.len() <= 65_536);
    // Answers alone: nothing else may be published.
    let permit = Permit::new(&Permissions { responses: Some(limits), ..Permissions::default() }).unwrap();
    assert!(!permit.may_publish(b"x") && permit.may_subscribe(b"x", None));
}

fn any_filter() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec!["a", "b", "*", "c"]);
    (prop::collection::vec(token, 1..4), any::<bool>()).prop_map(|(tokens, open)| {
        let text = tokens.join(".");
        if open { format!("{text}.>") } else { text }
    })
}

fn any_rules() -> impl Strategy<Value = (Option<Vec<String>>, Vec<String>)> {
    (prop::option::of(prop::collection::vec(any_filter(), 0..4)), prop::collection::vec(any_filter(), 0..3))
}

fn all_literals() -> Vec<String> {
    let tokens = ["a", "b", "c"];
    let mut all: Vec<String> = tokens.map(str::to_owned).to_vec();
    for _ in 0..3 {
        let longer: Vec<String> = all.iter().flat_map(|text| tokens.map(|token| format!("{text}.{token}"))).collect();
        all.extend(longer);
    }
    all.sort();
    all.dedup();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The dullest model: a subject is allowed when some allowed filter matches it and no denied one does.
    #[test]
    fn permissions_equal_a_naive_model((allow, deny) in any_rules(), filter in any_filter()) {
        let texts = |list: &[String]| list.iter().map(|text| SubjectRule::parse(text).unwrap()).collect::<Vec<_>>();
        let subjects = SubjectRules { allow: allow.as_deref().map(texts), deny: texts(&deny) };
        let permissions = Permissions { publish: subjects.clone(), subscribe: subjects, responses: None };
        let Some(permit) = Permit::new(&permissions) else {
            prop_assert!(allow.is_none() && deny.is_empty());
            return Ok(());
        };
        let mut cache = PublishCache::default();
        let matches = |list: &[String], literal: &str| {
            list.iter().any(|filter| subject::matches(filter.as_bytes(), literal.as_bytes()))
        };
        let may_subscribe = permit.may_subscribe(filter.as_bytes(), None);
        for literal in all_literals() {
            let allowed = allow.as_deref().is_none_or(|allow| matches(allow, &literal));
            let denied = matches(&deny, &literal);
            prop_assert_eq!(permit.may_publish(literal.as_bytes()), allowed && !denied);
            prop_assert_eq!(cache.may_publish(&permit, literal.as_bytes()), allowed && !denied);
            prop_assert_eq!(permit.may_receive(literal.as_bytes(), None), !denied);
            prop_assert_eq!(permit.may_subscribe(literal.as_bytes(), None), allowed && !denied);
            // What a subscription brings is never more than its user may have.
            if may_subscribe && matches(std::slice::from_ref(&filter), &literal)
                && permit.may_receive(literal.as_bytes(), None)
            {
                prop_assert!(allowed && !denied, "{} brought {}", filter, literal);
            }
        }
    }

    #[test]
    fn no_token_panics(text in ".{0,200}") {
        let _ = Claims::<UserClaims>::decode(&text);
        let _ = PublicKey::parse(&text, KeyKind::User);
        let _ = CertificateNames::read(text.as_bytes());
    }
}

#[test]
fn accounts_share_by_jwt_what_is_activated() {
    let (operator, from, to, key) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_account());
    let exports = json!({
        "exports": [
            { "subject": "open.>", "type": "stream" },
            { "subject": "asked.>", "type": "stream", "token_req": true, "revocations": {} },
            { "subject": "q.*", "type": "service", "response_type": "Stream", "response_threshold": 5_000_000_000_i64 },
        ],
        "signing_keys": [ key.public_key() ],
        "mappings": { "a": [ { "subject": "b", "weight": 30 }, { "subject": "elsewhere", "cluster": "x" } ] },
    });
    let activation = |issuer: &KeyPair, subject: &str, more: serde_json::Value| {
        let body = json!({ "subject": subject, "kind": "stream", "issuer_account": from.public_key() });
        token(issuer, &to.public_key(), "activation", more, body)
    };
    let book = |exports: &serde_json::Value, imports: serde_json::Value| {
        let account =
            |key: &KeyPair, body| (key.public_key(), token(&operator, &key.public_key(), "account", json!({}), body));
        let imports = json!({ "imports": imports });
        let operators = vec![token(&operator, &operator.public_key(), "operator", json!({}), json!({}))];
        let account_jwts = vec![account(&from, exports.clone()), account(&to, imports)];
        Book::new(&Plan { operators, account_jwts, ..Plan::default() }).unwrap()
    };
    let import = |subject: &str, kind: &str, more: serde_json::Value| {
        let mut import = json!({ "account": from.public_key(), "subject": subject, "type": kind });
        import.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        import
    };
    let check = |import: serde_json::Value, expected: Option<&str>| {
        let book = book(&exports, json!([import]));
        assert_eq!(book.routes().first().map(|route| &*route.filter), expected, "{import}");
        assert_eq!(book.complaints().is_empty(), expected.is_some());
    };
    check(import("open.x", "stream", json!({})), Some("open.x"));
    check(import("closed", "stream", json!({})), None);
    check(import("q.*", "service", json!({ "local_subject": "ask.$1" })), Some("ask.*"));
    check(import("ask", "service", json!({ "to": "q.x" })), Some("ask"));
    check(import("asked.x", "stream", json!({})), None);
    let with = |token: String| import("asked.x", "stream", json!({ "token": token }));
    check(with(activation(&from, "asked.>", json!({}))), Some("asked.x"));
    check(with(activation(&key, "asked.>", json!({}))), Some("asked.x"));
    check(with(activation(&to, "asked.>", json!({}))), None);
    check(with(activation(&from, "asked.y", json!({}))), None);
    // One that expires ends with it.
    let until = book(&exports, json!([with(activation(&from, "asked.>", json!({ "exp": NOW_SECONDS + 60 })))]));
    let open = until.routes()[0].open;
    assert!(open.is_bounded() && open.contains(NOW) && open.contains(NOW + Duration::from_secs(59)));
    assert!(!open.contains(NOW + Duration::from_secs(60)));
    check(with(activation(&from, "asked.>", json!({ "sub": key.public_key() }))), None);
    let mut revoked = exports.clone();
    revoked["exports"][1]["revocations"] = json!({ to.public_key(): NOW_SECONDS });
    assert!(book(&revoked, json!([with(activation(&from, "asked.>", json!({})))])).routes().is_empty());
    let book = book(&exports, json!([import("q.*", "service", json!({}))]));
    let route = &book.routes()[0];
    assert_eq!((route.responses, route.response_wait), (ServiceResponses::Many, Duration::from_secs(5)));
    assert_eq!(book.mappings(&from.public_key())[0].destinations, [("b".to_owned(), 30)]);
}
