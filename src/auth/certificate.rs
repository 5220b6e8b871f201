//! The names in a client's certificate, and which user they stand for (`verify_and_map`).

use x509_parser::prelude::*;

use crate::types::Timestamp;

/// When a certificate in DER ends; `None` when it is none.
pub fn certificate_not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    certificate.validity().not_after.timestamp().checked_mul(1_000_000_000).map(Timestamp)
}

/// Every name a certificate gives its holder, in the order they are tried (nats-server `checkClientTLSCertSubject`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    emails: Vec<String>,
    dns: Vec<String>,
    uris: Vec<String>,
    /// The subject's parts as `KEY=value`, first the last of the certificate, as RFC 2253 writes it.
    subject: Vec<String>,
}

impl CertificateNames {
    /// Reads them from a certificate in DER; `None` when it is none.
    pub fn read(der: &[u8]) -> Option<CertificateNames> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut names = CertificateNames::default();
        if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
            for name in &alternatives.value.general_names {
                match name {
                    GeneralName::RFC822Name(email) => names.emails.push((*email).to_owned()),
                    GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
                    GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                    _ => {}
                }
            }
        }
        let parts = certificate.subject().iter_attributes().map(|part| {
            let oid = part.attr_type().to_id_string();
            format!("{}={}", oid_name(&oid), escaped(part.as_str().unwrap_or_default()))
        });
        names.subject = parts.collect();
        names.subject.reverse();
        Some(names)
    }

    /// The subject, as RFC 2253 writes it.
    pub fn subject(&self) -> String {
        self.subject.join(",")
    }

    /// The user that `find` knows one of the names as: emails, then DNS names, URIs, and the subject at last.
    pub fn find_user<'a, T>(
        &self,
        find: impl Fn(&str) -> Option<T>,
        mut users: impl Iterator<Item = (&'a str, T)>,
    ) -> Option<T> {
        let names = self.emails.iter().chain(&self.dns).chain(&self.uris);
        if let Some(user) = names.map(String::as_str).find_map(&find) {
            return Some(user);
        }
        if let Some(user) = find(&self.subject()) {
            return Some(user);
        }
        // A subject's parts in another order, or with spaces after the commas, are the same subject.
        let mut wanted = self.subject.clone();
        wanted.sort_unstable();
        if wanted.is_empty() {
            return None;
        }
        users.find_map(|(name, user)| {
            let mut parts: Vec<&str> = name.split(',').map(str::trim).collect();
            parts.sort_unstable();
            (parts == wanted).then_some(user)
        })
    }
}

/// A value as RFC 2253 writes it: what is in it is no end of it, so that a name cannot look like two.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, letter) in value.chars().enumerate() {
        let special = matches!(letter, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || at == 0 && matches!(letter, ' ' | '#')
            || at == last && letter == ' ';
        if special {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

/// What Go's `pkix` calls the parts of a name.
fn oid_name(oid: &str) -> &str {
    match oid {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "SERIALNUMBER",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.17" => "POSTALCODE",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_look_like_two() {
        for (value, expected) in [
            ("derek", "derek"),
            ("derek,O=admins", r"derek\,O=admins"),
            (" #a+b ", r"\ #a\+b\ "),
            ("#1", r"\#1"),
            (r#"<"\;">"#, r#"\<\"\\\;\"\>"#),
            (" ", r"\ "),
            ("", ""),
        ] {
            assert_eq!(escaped(value), expected);
        }
        let names =
            CertificateNames { subject: vec![format!("CN={}", escaped("derek,O=admins"))], ..Default::default() };
        let users = [("CN=derek,O=admins", 1), ("O=admins, CN=derek", 2), (r"CN=derek\,O=admins", 3)];
        let find = |of: &[(&'static str, i32)]| {
            let exact = |name: &str| of.iter().find(|(known, _)| *known == name).map(|(_, user)| *user);
            names.find_user(exact, of.iter().copied())
        };
        assert_eq!(find(&users[..2]), None);
        assert_eq!(find(&users), Some(3));
    }
}
