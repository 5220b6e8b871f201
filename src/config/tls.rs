//! TLS of one listener, as flags and config file describe it.

use std::path::PathBuf;
use std::time::Duration;

/// Certificates and the rules of the handshake (nats-server `TLSConfigOpts`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Where it stands, as `file:line:column`; empty when flags ask for it.
    pub at: String,
    /// PEM files.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The authorities that clients' certificates must come from; without it nobody's is accepted.
    pub ca: Option<PathBuf>,
    /// A client must show a certificate.
    pub verify: bool,
    /// As `verify`, and the certificate says which user the client is.
    pub map: bool,
    /// How long a handshake may take.
    pub timeout: Duration,
    pub handshake_first: HandshakeFirst,
    /// Clients that speak plainly are served as well.
    pub allow_non_tls: bool,
    /// Nothing older than TLS 1.3.
    pub only_tls13: bool,
}

/// Whether the handshake comes before INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// INFO first, in the clear.
    #[default]
    No,
    Yes,
    /// The handshake first if the client begins it within this time, else INFO first.
    Within(Duration),
}

impl HandshakeFirst {
    /// What `auto` stands for (nats-server `DEFAULT_TLS_HANDSHAKE_FIRST_FALLBACK_DELAY`).
    pub const AUTO: HandshakeFirst = HandshakeFirst::Within(Duration::from_millis(50));
}

impl Tls {
    /// With nats-server's defaults.
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Tls {
        Tls {
            at: String::new(),
            cert: cert.into(),
            key: key.into(),
            ca: None,
            verify: false,
            map: false,
            timeout: Duration::from_secs(2),
            handshake_first: HandshakeFirst::No,
            allow_non_tls: false,
            only_tls13: false,
        }
    }

    /// Whether clients are asked for certificates.
    pub fn asks_for_certificates(&self) -> bool {
        self.verify || self.map
    }
}
