//! L2, pure: who may come in, into which account, and what they may do there.
//!
//! Owns the rules of credentials, permissions and JWTs. Must not know sockets, clocks or the router's subscriptions: the
//! nonce, the time and the peer's certificate come in, a [`Verdict`] goes out. A password's slow hash is the one thing it
//! does not work out itself: the verdict then says which hash to check, and the broker does so on a thread of its own.
//!
//! Source: nats-server `server/auth.go`, `server/client.go` (`setPermissions`, `canSubscribe`, `pubAllowed`).

mod book;
mod callout;
mod certificate;
mod claims;
mod connection_type;
mod daytime;
mod deputy;
mod mapping;
mod nkey;
mod operator;
mod permission;
mod permit;
mod responses;
mod secret;
mod sharing;
mod template;
mod tls_facts;

pub use book::{
    AccountSpec, AccountTrace, AdoptSpec, Book, BookError, CoordinatorSpec, Credential, Grant, Login, PasswordCheck,
    Plan, Presented, Refusal, SimpleLogin, User, UserLimits, Verdict,
};
pub use callout::{
    Asker, Callout, CalloutSpec, SUBJECT as CALLOUT_SUBJECT, is_issuer, is_xkey, request as callout_request,
};
pub use certificate::{CertificateNames, certificate_not_after};
pub use claims::{AccountClaims, Claims, ClaimsError, OperatorClaims, UserClaims};
pub use connection_type::ConnectionType;
pub use deputy::{oversteps, schedules_beyond};
pub use mapping::{Mapping, MappingSpec};
pub use nkey::{KeyKind, NONCE_BYTES, PublicKey, is_seed, shown_key};
pub use operator::Operators;
pub use permission::{Permissions, ResponseLimits, SubjectRule, SubjectRules};
pub use permit::{Permit, PublishCache};
pub use responses::Responses;
pub use secret::{HASHED_BYTES_MAX, Secret, check_hash};
pub use sharing::{
    Export, Import, Latency, RESPONSE_WAIT, Responses as ServiceResponses, Rewrite, Route, Shared, SharingError, Span,
};
pub use tls_facts::{CertificateFacts, TlsFacts};

/// The account of those who name none.
pub const DEFAULT_ACCOUNT: &str = "$G";
/// The account of the server's own services and events, unless `system_account` names another.
pub const SYSTEM_ACCOUNT: &str = "$SYS";

#[cfg(test)]
mod tests;
