//! What the command line says about who may connect and how the wire is protected. The config file says more.

use std::path::PathBuf;

/// `--user`, `--pass`, `--auth`: the one user, or the one token, that may connect.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SingleUser {
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for SingleUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "…");
        f.debug_struct("SingleUser")
            .field("user", &self.user)
            .field("password", &hidden(&self.password))
            .field("token", &hidden(&self.token))
            .finish()
    }
}

/// `--tls`, `--tlscert`, `--tlskey`, `--tlscacert`, `--tlsverify`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFlags {
    /// `None`: not said. `Some(false)` switches off what the config file switches on.
    pub on: Option<bool>,
    pub verify: Option<bool>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

impl TlsFlags {
    /// Whether any of them asks for TLS (nats-server `tlsOverride`).
    pub fn asked_for(&self) -> bool {
        let some_file = self.cert.is_some() || self.key.is_some() || self.ca.is_some();
        self.on != Some(false) && (self.on.is_some() || self.verify.is_some() || some_file)
    }
}
