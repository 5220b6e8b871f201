//! TLS from the client's side: after INFO, or before it where the server wants that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::ClientError;
use super::connection::Stream;

/// How a client does TLS. By default it trusts the system's authorities, shows no certificate, and does all that only
/// where the URL (`tls://`) or the server asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Insist on it.
    pub required: bool,
    /// Shake hands before INFO (nats-server's `handshake_first`).
    pub first: bool,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's own certificate and key.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Shakes hands over `stream` with the server at `host`.
///
/// # Errors
/// [`ClientError::Tls`] with what is wrong with the files, the certificate or the server.
pub(super) async fn secure(
    options: &TlsOptions,
    host: &str,
    stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, ClientError> {
    let bad = |reason: String| ClientError::Tls { reason };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| bad(format!("{host} is no name of a server")))?;
    let connector = TlsConnector::from(Arc::new(config(options)?));
    let stream = connector.connect(name, stream).await.map_err(|error| bad(error.to_string()))?;
    Ok(Box::new(stream))
}

fn config(options: &TlsOptions) -> Result<ClientConfig, ClientError> {
    let bad = |reason: String| ClientError::Tls { reason };
    let mut roots = RootCertStore::empty();
    match &options.ca {
        Some(path) => {
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| bad(format!("{}: {error}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring serves TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    match (&options.cert, &options.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(format!("{}: {error}", key.display())))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| bad(error.to_string()))
        }
        _ => Err(bad("a certificate and its key come together".to_owned())),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let bad = |reason: String| ClientError::Tls { reason: format!("{}: {reason}", path.display()) };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?.collect();
    match found {
        Ok(found) if found.is_empty() => Err(bad("no certificate in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(bad(error.to_string())),
    }
}
