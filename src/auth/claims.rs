//! NATS JWTs: what an operator, an account or a user is said to be, and whether the signature holds.
//!
//! Source: nats-io/jwt v2 (`decoder.go`, `account_claims.go`, `user_claims.go`). Version 1 tokens, which sign their body
//! alone, are read as well: their creds files are still in use.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::nkey::{KeyKind, PublicKey, decode_base64_url};

/// A longer token is refused before it is looked at (nats-io/jwt `MaxTokenSize`).
const TOKEN_BYTES_MAX: usize = 1 << 20;

/// Why a token is no good. None of the texts shows the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    #[error("a JWT has three parts in base64")]
    Form,
    #[error("the JWT's header asks for an algorithm that is not served")]
    Algorithm,
    #[error("the JWT's claims cannot be read: {0}")]
    Body(String),
    #[error("the JWT is of a newer version")]
    Version,
    #[error("the JWT is no {0} JWT")]
    Kind(&'static str),
    #[error("the JWT's issuer is no key that may sign it")]
    Issuer,
    #[error("the JWT's signature does not hold")]
    Signature,
}

/// A verified token: signed by `issuer`, about `subject`. Whether the issuer may say so is another question.
#[derive(Clone, Debug)]
pub struct Claims<T> {
    pub issuer: String,
    /// The public key it is about.
    pub subject: String,
    pub name: String,
    /// Whom it is for; empty for everybody.
    pub audience: String,
    /// Seconds since 1970.
    pub issued_at: i64,
    /// Seconds since 1970; 0 for never.
    pub expires: i64,
    pub not_before: i64,
    pub body: T,
}

impl<T> Claims<T> {
    /// Whether it holds at `now` (seconds since 1970).
    pub fn is_current(&self, now: i64) -> bool {
        (self.expires == 0 || now < self.expires) && (self.not_before == 0 || now >= self.not_before)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OperatorClaims {
    pub signing_keys: Vec<String>,
    pub system_account: String,
    /// Its own key signs no accounts, and theirs no users: signing keys do.
    pub strict_signing_key_usage: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AccountClaims {
    pub limits: AccountLimits,
    #[serde(deserialize_with = "or_default")]
    pub signing_keys: Vec<SigningKey>,
    /// Users whose tokens issued up to then count no more, by public key; `*` for all.
    #[serde(deserialize_with = "or_default")]
    pub revocations: BTreeMap<String, i64>,
    pub default_permissions: JwtPermissions,
    #[serde(deserialize_with = "or_default")]
    pub tags: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub exports: Vec<JwtExport>,
    #[serde(deserialize_with = "or_default")]
    pub imports: Vec<JwtImport>,
    /// Destinations by source.
    #[serde(deserialize_with = "or_default")]
    pub mappings: BTreeMap<String, Vec<JwtDestination>>,
    pub trace: Option<JwtTrace>,
    pub authorization: JwtAuthorization,
}

/// Who else says who this account's users are (ADR-26).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JwtAuthorization {
    /// Users that are not asked about. Without any nobody is asked.
    #[serde(deserialize_with = "or_default")]
    pub auth_users: Vec<String>,
    /// Further accounts that clients may be put into; `*` for all.
    #[serde(deserialize_with = "or_default")]
    pub allowed_accounts: Vec<String>,
    pub xkey: String,
}

/// Where sampled messages have their way told; of a hundred so many, 0 for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct JwtTrace {
    pub dest: String,
    pub sampling: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JwtExport {
    pub subject: String,
    /// `stream` or `service`.
    pub r#type: String,
    /// Importers need an activation token.
    pub token_req: bool,
    /// Activations issued up to then count no more, by account; `*` for all.
    #[serde(deserialize_with = "or_default")]
    pub revocations: BTreeMap<String, i64>,
    pub response_type: String,
    /// Nanoseconds; 0 for the default.
    pub response_threshold: i64,
    pub service_latency: Option<JwtLatency>,
    pub allow_trace: bool,
    pub account_token_position: usize,
}

/// Where it is told how long a service takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JwtLatency {
    pub sampling: JwtSampling,
    pub results: String,
}

/// Percent of the requests, 0 for those whose headers say so; or `headers` for the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum JwtSampling {
    Percent(i64),
    Text(String),
}

impl Default for JwtSampling {
    fn default() -> JwtSampling {
        JwtSampling::Percent(0)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JwtImport {
    /// Of the publisher: the exporter of a stream, the importer of a service.
    pub subject: String,
    pub account: String,
    pub token: String,
    /// Of the receiver, in older tokens.
    pub to: String,
    /// What it is called in the importing account; `subject` is then the exporter's.
    pub local_subject: String,
    pub r#type: String,
    pub share: bool,
    pub allow_trace: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JwtDestination {
    pub subject: String,
    /// Percent; 0 for 100.
    pub weight: u8,
    pub cluster: String,
}

/// Allows the account that it is about to import something.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ActivationClaims {
    /// What may be imported.
    pub subject: String,
    pub kind: String,
    pub issuer_account: String,
}

/// -1: no limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct AccountLimits {
    pub subs: i64,
    pub payload: i64,
    pub conn: i64,
    pub disallow_bearer: bool,
    pub mem_storage: i64,
    pub disk_storage: i64,
    pub streams: i64,
    pub consumer: i64,
    pub max_ack_pending: i64,
    pub mem_max_stream_bytes: i64,
    pub disk_max_stream_bytes: i64,
    pub max_bytes_required: bool,
    /// Limits by replicas; with one server only `R1` matters.
    #[serde(deserialize_with = "or_default")]
    pub tiered_limits: BTreeMap<String, serde_json::Value>,
}

impl Default for AccountLimits {
    fn default() -> AccountLimits {
        AccountLimits {
            subs: -1,
            payload: -1,
            conn: -1,
            disallow_bearer: false,
            mem_storage: 0,
            disk_storage: 0,
            streams: 0,
            consumer: 0,
            max_ack_pending: 0,
            mem_max_stream_bytes: 0,
            disk_max_stream_bytes: 0,
            max_bytes_required: false,
            tiered_limits: BTreeMap::new(),
        }
    }
}

/// A further key that signs an account's users; with a scope it says what they may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum SigningKey {
    Plain(String),
    Scoped {
        key: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        template: Box<UserClaims>,
    },
}

impl SigningKey {
    pub fn key(&self) -> &str {
        match self {
            SigningKey::Plain(key) | SigningKey::Scoped { key, .. } => key,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct UserClaims {
    #[serde(flatten)]
    pub permissions: JwtPermissions,
    pub issuer_account: String,
    pub bearer_token: bool,
    #[serde(deserialize_with = "or_default")]
    pub allowed_connection_types: Vec<String>,
    /// Networks the user may come from, in CIDR notation.
    #[serde(deserialize_with = "list_or_text")]
    pub src: Vec<String>,
    /// Times of day at which the user may connect.
    #[serde(deserialize_with = "or_default")]
    pub times: Vec<TimeRange>,
    /// The time zone of those; empty for the server's.
    #[serde(rename = "times_location")]
    pub location: String,
    pub subs: i64,
    pub payload: i64,
    #[serde(deserialize_with = "or_default")]
    pub tags: Vec<String>,
    pub proxy_required: bool,
}

impl Default for UserClaims {
    fn default() -> UserClaims {
        UserClaims {
            permissions: JwtPermissions::default(),
            issuer_account: String::new(),
            bearer_token: false,
            allowed_connection_types: Vec::new(),
            src: Vec::new(),
            times: Vec::new(),
            location: String::new(),
            subs: -1,
            payload: -1,
            tags: Vec::new(),
            proxy_required: false,
        }
    }
}

/// Times of a day, `15:04:05`; across midnight when it ends before it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TimeRange {
    pub start: String,
    pub end: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct JwtPermissions {
    #[serde(rename = "pub", deserialize_with = "or_default")]
    pub publish: JwtSubjects,
    #[serde(rename = "sub", deserialize_with = "or_default")]
    pub subscribe: JwtSubjects,
    pub resp: Option<JwtResponses>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct JwtSubjects {
    #[serde(deserialize_with = "or_default")]
    pub allow: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub deny: Vec<String>,
}

/// `ttl` is in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct JwtResponses {
    pub max: i64,
    pub ttl: i64,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list, or as in version 1 one text with commas.
fn list_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Form::List(list)) => list,
        Some(Form::Text(text)) => {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    typ: String,
    #[serde(default)]
    alg: String,
}

/// The claims every token has, its kind among them at one of two places.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    aud: String,
    #[serde(default)]
    iat: i64,
    #[serde(default)]
    exp: i64,
    #[serde(default)]
    nbf: i64,
    /// Version 1 has its kind here.
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(borrow, default)]
    nats: Option<&'a serde_json::value::RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
    version: i64,
}

/// A kind of token.
pub trait Body: for<'de> Deserialize<'de> + Default {
    const KIND: &'static str;
    const SUBJECT: KeyKind;
    /// Who may have signed it.
    const ISSUERS: &'static [KeyKind];
}

impl Body for OperatorClaims {
    const KIND: &'static str = "operator";
    const SUBJECT: KeyKind = KeyKind::Operator;
    const ISSUERS: &'static [KeyKind] = &[KeyKind::Operator];
}

impl Body for AccountClaims {
    const KIND: &'static str = "account";
    const SUBJECT: KeyKind = KeyKind::Account;
    const ISSUERS: &'static [KeyKind] = &[KeyKind::Operator, KeyKind::Account];
}

impl Body for UserClaims {
    const KIND: &'static str = "user";
    const SUBJECT: KeyKind = KeyKind::User;
    const ISSUERS: &'static [KeyKind] = &[KeyKind::Account];
}

impl Body for ActivationClaims {
    const KIND: &'static str = "activation";
    const SUBJECT: KeyKind = KeyKind::Account;
    const ISSUERS: &'static [KeyKind] = &[KeyKind::Account];
}

impl<T: Body> Claims<T> {
    /// Reads a token and checks its signature against the issuer it names.
    ///
    /// # Errors
    /// [`ClaimsError`].
    pub fn decode(token: &str) -> Result<Claims<T>, ClaimsError> {
        let token = token.trim();
        let mut parts = token.split('.');
        let (Some(head), Some(body), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ClaimsError::Form);
        };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(ClaimsError::Form);
        }
        let read = |part| decode_base64_url(part).ok_or(ClaimsError::Form);
        let header: Header = serde_json::from_slice(&read(head)?).map_err(|_| ClaimsError::Form)?;
        let algorithm = header.alg.to_ascii_lowercase();
        if !header.typ.eq_ignore_ascii_case("jwt") || !matches!(&*algorithm, "ed25519" | "ed25519-nkey") {
            return Err(ClaimsError::Algorithm);
        }
        let bytes = read(body)?;
        let unreadable = |error: serde_json::Error| ClaimsError::Body(error.to_string());
        let envelope: Envelope<'_> = serde_json::from_slice(&bytes).map_err(unreadable)?;
        let inner = envelope.nats.map_or("{}", |raw| raw.get());
        let mut kind: Kind = serde_json::from_str(inner).map_err(unreadable)?;
        if !envelope.kind.is_empty() {
            kind = Kind { kind: envelope.kind, version: 1 };
        }
        if kind.version > 2 {
            return Err(ClaimsError::Version);
        }
        if kind.kind != T::KIND {
            return Err(ClaimsError::Kind(T::KIND));
        }
        let issuer = T::ISSUERS.iter().find_map(|&kind| PublicKey::parse(&envelope.iss, kind));
        let issuer = issuer.ok_or(ClaimsError::Issuer)?;
        let signed = if kind.version <= 1 { body } else { &token[..head.len() + 1 + body.len()] };
        if !issuer.verifies(signed.as_bytes(), &read(signature)?) {
            return Err(ClaimsError::Signature);
        }
        if PublicKey::parse(&envelope.sub, T::SUBJECT).is_none() {
            return Err(ClaimsError::Kind(T::KIND));
        }
        Ok(Claims {
            issuer: envelope.iss,
            subject: envelope.sub,
            name: envelope.name,
            audience: envelope.aud,
            issued_at: envelope.iat,
            expires: envelope.exp,
            not_before: envelope.nbf,
            body: serde_json::from_str(inner).map_err(unreadable)?,
        })
    }
}
