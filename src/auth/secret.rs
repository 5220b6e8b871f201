//! Passwords and tokens: never shown, compared in constant time, hashed ones checked with bcrypt.

use subtle::ConstantTimeEq;

/// A password or token as the configuration has it: plain, or a bcrypt hash.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is a bcrypt hash, which takes milliseconds to check (nats-server `isBcrypt`).
    pub fn is_hash(&self) -> bool {
        let bytes = self.0.as_bytes();
        bytes.len() == 60
            && matches!(&bytes[..4], b"$2a$" | b"$2b$" | b"$2x$" | b"$2y$")
            && bytes[4].is_ascii_digit()
            && bytes[5].is_ascii_digit()
            && bytes[6] == b'$'
    }

    /// Whether a plain secret is the same; never for a hash.
    pub fn is(&self, presented: &str) -> bool {
        !self.is_hash() && bool::from(self.0.as_bytes().ct_eq(presented.as_bytes()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// So many bytes of a password count for its bcrypt hash.
pub const HASHED_BYTES_MAX: usize = 72;

/// Whether `presented` has this bcrypt hash. Takes tens of milliseconds and more, as bcrypt is meant to.
pub fn check_hash(hash: &Secret, presented: &Secret) -> bool {
    // Go refuses nothing longer when it compares: further bytes do not count.
    let bytes = presented.0.as_bytes();
    bcrypt::verify(&bytes[..bytes.len().min(HASHED_BYTES_MAX)], &hash.0).unwrap_or(false)
}
