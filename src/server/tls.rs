//! TLS acceptors out of configuration, and what a finished handshake tells.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

use crate::auth::{TlsFacts, certificate_not_after};
use crate::broker::TlsTerms;
use crate::config::Tls;
use crate::types::Timestamp;

/// Certificates or keys that cannot be used. The text says where they are asked for, which file it is and why.
#[derive(Debug, thiserror::Error)]
#[error("{at}{}{problem}", if .at.is_empty() { "" } else { ": " })]
pub struct TlsError {
    at: String,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("error parsing X509 certificate/key pair: {path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("error parsing X509 certificate/key pair: {0}")]
    Pair(rustls::Error),
    #[error("failed to parse root ca certificate {path}: {reason}")]
    Authority { path: PathBuf, reason: String },
}

/// A listener's TLS, ready for handshakes.
#[derive(Clone)]
pub struct Handshake {
    pub acceptor: TlsAcceptor,
    pub tls: Tls,
    /// Those that clients' certificates are held to, in DER.
    authorities: Arc<Vec<Vec<u8>>>,
    not_after: Option<Timestamp>,
}

impl Handshake {
    /// Reads certificate, key and authorities.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(tls: &Tls) -> Result<Handshake, TlsError> {
        Handshake::read(tls).map_err(|problem| TlsError { at: tls.at.clone(), problem })
    }

    fn read(tls: &Tls) -> Result<Handshake, Problem> {
        let broken = |path: &Path, reason: String| Problem::File { path: path.to_owned(), reason };
        let chain = certificates(&tls.cert).map_err(|reason| broken(&tls.cert, reason))?;
        let not_after = chain.first().and_then(|own| certificate_not_after(own));
        let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| broken(&tls.key, error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(tls))
            .expect("ring serves TLS 1.2 and 1.3");
        let mut authorities = Vec::new();
        let builder = match &tls.ca {
            Some(path) if tls.asks_for_certificates() => {
                let broken = |reason: String| Problem::Authority { path: path.clone(), reason };
                let mut roots = RootCertStore::empty();
                for authority in certificates(path).map_err(broken)? {
                    authorities.push(authority.to_vec());
                    roots.add(authority).map_err(|error| broken(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| broken(error.to_string()))?)
            }
            // Nobody's certificate is trusted, so nobody gets in: a client must show one that some authority has signed.
            None if tls.asks_for_certificates() => {
                let reason = "verify needs ca_file, the authorities that clients' certificates come from".to_owned();
                return Err(Problem::Authority { path: PathBuf::from("ca_file"), reason });
            }
            _ => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain, key).map_err(Problem::Pair)?;
        Ok(Handshake {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            tls: tls.clone(),
            authorities: Arc::new(authorities),
            not_after,
        })
    }

    /// When our own certificate ends.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    /// What INFO says to a client that has not shaken hands.
    pub fn terms(&self) -> TlsTerms {
        let optional = self.tls.allow_non_tls;
        TlsTerms {
            required: !optional,
            available: optional,
            verify: self.tls.asks_for_certificates(),
            maps_certificates: self.tls.map,
        }
    }

    /// As [`Handshake::terms`], to one whose handshake came first.
    pub fn terms_after(&self) -> TlsTerms {
        TlsTerms { required: true, available: false, ..self.terms() }
    }
}

/// A listener's TLS as it is now: a reload changes it for connections to come.
#[derive(Clone, Default)]
pub struct CurrentHandshake(Arc<RwLock<Option<Arc<Handshake>>>>);

impl CurrentHandshake {
    pub fn new(handshake: Option<Handshake>) -> CurrentHandshake {
        CurrentHandshake(Arc::new(RwLock::new(handshake.map(Arc::new))))
    }

    /// `None`: in the clear.
    pub fn get(&self) -> Option<Arc<Handshake>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn replace(&self, handshake: Option<Handshake>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = handshake.map(Arc::new);
    }
}

fn versions(tls: &Tls) -> &'static [&'static SupportedProtocolVersion] {
    static NEWEST: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    if tls.only_tls13 { &NEWEST } else { rustls::ALL_VERSIONS }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let chain = read.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if chain.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(chain) }
}

/// What a finished handshake has settled. `first`: it came before INFO, on the client port.
pub fn facts(connection: &rustls::ServerConnection, handshake: &Handshake, first: bool) -> TlsFacts {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "1.2",
    };
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    let shown = connection.peer_certificates().unwrap_or_default();
    TlsFacts {
        version,
        // rustls has a prefix of its own.
        cipher: suite.replacen("TLS13_", "TLS_", 1),
        certificates: shown.iter().map(|certificate| certificate.to_vec()).collect(),
        authorities: handshake.authorities.clone(),
        first,
    }
}
