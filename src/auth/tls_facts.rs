//! What a TLS handshake has settled: told to those who answer auth callouts and in monitoring. None of it is a secret.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::*;

use super::certificate::CertificateNames;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// As IANA names it.
    pub cipher: String,
    /// What the client has shown, its own certificate first, in DER.
    pub certificates: Vec<Vec<u8>>,
    /// The authorities they were held to, in DER; empty where nobody held them to any.
    pub authorities: Arc<Vec<Vec<u8>>>,
    /// Whether it came before INFO, on the client port.
    pub first: bool,
}

/// How monitoring shows a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub subject: String,
    /// SHA-256 of its public key's info and of all of it, in hex.
    pub key_hash: String,
    pub hash: String,
}

impl TlsFacts {
    /// The names in the client's certificate.
    pub fn names(&self) -> Option<CertificateNames> {
        CertificateNames::read(self.certificates.first()?)
    }

    pub fn certificate_facts(&self) -> Vec<CertificateFacts> {
        let facts = |der: &Vec<u8>| {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            Some(CertificateFacts {
                subject: CertificateNames::read(der)?.subject(),
                key_hash: hex(&Sha256::digest(certificate.public_key().raw)),
                hash: hex(&Sha256::digest(der)),
            })
        };
        self.certificates.iter().filter_map(facts).collect()
    }

    /// `client_tls` of an auth callout's request (nats-server `processClientOrLeafCallout`).
    pub(super) fn told(&self) -> Value {
        let mut told = json!({ "version": self.version, "cipher": self.cipher });
        let pem = |certificates: &[&[u8]]| certificates.iter().map(|der| pem(der)).collect::<Vec<_>>();
        let mut chain: Vec<&[u8]> = self.certificates.iter().map(Vec::as_slice).collect();
        if chain.is_empty() {
            return told;
        }
        if self.authorities.is_empty() {
            told["certs"] = json!(pem(&chain));
        } else {
            // It was held to one of them, so its chain ends there.
            chain.extend(self.authority());
            told["verified_chains"] = json!([pem(&chain)]);
        }
        told
    }

    /// Who has signed the last certificate shown, unless that is shown itself.
    fn authority(&self) -> Option<&[u8]> {
        let (_, last) = X509Certificate::from_der(self.certificates.last()?).ok()?;
        let issuer = last.issuer().as_raw();
        let signed = |der: &&Vec<u8>| {
            X509Certificate::from_der(der).is_ok_and(|(_, authority)| authority.subject().as_raw() == issuer)
        };
        let found = self.authorities.iter().find(signed)?;
        (self.certificates.last() != Some(found)).then_some(found.as_slice())
    }
}

/// As Go's `pem.Encode` writes it: 64 characters a line.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| format!("{}\n", String::from_utf8_lossy(line)));
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
