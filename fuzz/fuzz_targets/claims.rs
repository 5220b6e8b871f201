//! JWTs of any text and of any claims, rightly signed: reading one never panics, and nothing unsigned is believed.

#![no_main]

use arbitrary::Arbitrary;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use natterjack::auth::{AccountClaims, Claims, OperatorClaims, UserClaims};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    kind: Kind,
    text: &'a str,
    /// The byte of the token that somebody changes.
    changed: u16,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Kind {
    Operator,
    Account,
    User,
}

/// Whether the token is believed.
fn reads(token: &str) -> bool {
    Claims::<OperatorClaims>::decode(token).is_ok()
        | Claims::<AccountClaims>::decode(token).is_ok()
        | Claims::<UserClaims>::decode(token).is_ok()
}

fuzz_target!(|input: Input<'_>| {
    assert!(!reads(input.text), "nobody signed it");
    let seeded = |seed: u8| [seed; 32];
    let operator = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::Operator, seeded(1)).unwrap();
    let account = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::Account, seeded(2)).unwrap();
    let user = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, seeded(3)).unwrap();
    let (issuer, subject, kind) = match input.kind {
        Kind::Operator => (&operator, &operator, "operator"),
        Kind::Account => (&operator, &account, "account"),
        Kind::User => (&account, &user, "user"),
    };
    // Whatever is between the braces, among claims that hold.
    let body = format!(
        r#"{{"iss":"{}","sub":"{}","nats":{{"version":2,"type":"{kind}",{}}}}}"#,
        issuer.public_key(),
        subject.public_key(),
        input.text,
    );
    let head = URL_SAFE_NO_PAD.encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(body));
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap()));
    if !reads(&token) {
        return;
    }
    let mut changed = token.into_bytes();
    let at = usize::from(input.changed) % changed.len();
    // Bits of the last character of a part may mean nothing; the claims themselves always do.
    if (head.len() + 1..signed.len() - 1).contains(&at) {
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(!reads(std::str::from_utf8(&changed).unwrap()), "changed at {at}");
    }
});
