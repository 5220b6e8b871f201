//! Who a client is by a key of its own: an nkey, alone or with the JWT of a `.creds` file. Only the server's nonce is
//! signed; the seed stays here.

use base64::Engine as _;
use nkeys::{KeyPair, KeyPairType};

use super::ClientError;

/// A user's key, and its JWT where an operator is above it.
#[derive(Clone)]
pub struct Credentials {
    jwt: Option<String>,
    key: KeyPair,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.key.public_key()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads a `.creds` file as `nsc` writes it, or a bare seed (`SU…`).
    ///
    /// # Errors
    /// [`ClientError::BadCredentials`], which repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Credentials, ClientError> {
        let mut jwt = None;
        let mut seed = None;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        while let Some(line) = lines.next() {
            if line.starts_with("---") && line.contains("BEGIN") {
                let inside = lines.next().unwrap_or_default();
                if line.contains("JWT") {
                    jwt = Some(inside.to_owned());
                } else {
                    seed = Some(inside);
                }
            } else if line.starts_with("SU") {
                seed = Some(line);
            }
        }
        let bad = |reason: &str| ClientError::BadCredentials { reason: reason.to_owned() };
        let seed = seed.ok_or_else(|| bad("there is no user's seed (SU...) in it"))?;
        let key = KeyPair::from_seed(seed).map_err(|_| bad("its seed is not one"))?;
        if key.key_pair_type() != KeyPairType::User {
            return Err(bad("its seed is not a user's"));
        }
        Ok(Credentials { jwt, key })
    }

    /// What CONNECT says for `nonce`.
    pub(super) fn present(&self, connect: &mut serde_json::Value, nonce: &str) {
        match &self.jwt {
            Some(jwt) => connect["jwt"] = jwt.as_str().into(),
            None => connect["nkey"] = self.key.public_key().into(),
        }
        if let Ok(signature) = self.key.sign(nonce.as_bytes()) {
            connect["sig"] = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature).into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creds_and_seeds_are_read_and_the_nonce_is_signed() {
        let key = KeyPair::new_user();
        let seed = key.seed().unwrap();
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\nthe.jwt\n------END NATS USER JWT------\n\n\
             *** IMPORTANT ***\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let mut connect = serde_json::json!({});
        let read = Credentials::parse(&creds).unwrap();
        read.present(&mut connect, "nonce");
        assert_eq!(connect["jwt"], "the.jwt");
        assert!(connect.get("nkey").is_none());
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(connect["sig"].as_str().unwrap());
        key.verify(b"nonce", &signature.unwrap()).unwrap();
        assert!(!format!("{read:?}").contains(&seed));

        let mut connect = serde_json::json!({});
        Credentials::parse(&format!("# mine\n{seed}\n")).unwrap().present(&mut connect, "n");
        assert_eq!(connect["nkey"], key.public_key());
        let account = KeyPair::new_account().seed().unwrap();
        let wrapped = format!("-----BEGIN ACCOUNT NKEY SEED-----\n{account}\n");
        for bad in ["", "SUX", "hello", &wrapped] {
            let error = Credentials::parse(bad).unwrap_err().to_string();
            assert!(!error.contains(&account), "{error}");
        }
    }
}
