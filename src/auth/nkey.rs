//! Public keys as NATS writes them (base32, kind, checksum) and their signatures.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::{Signature, VerifyingKey};

/// Random bytes of a nonce; it is sent as base64 (nats-server `nonceRawLen`).
pub const NONCE_BYTES: usize = 11;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    Operator,
    Account,
    User,
}

/// A key that signatures are checked with.
#[derive(Clone, Debug)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a key of the wanted kind; `None` for anything else.
    pub fn parse(text: &str, kind: KeyKind) -> Option<PublicKey> {
        // The first letter is the kind; the crate checks length, alphabet and checksum.
        let letter = match kind {
            KeyKind::Operator => b'O',
            KeyKind::Account => b'A',
            KeyKind::User => b'U',
        };
        if text.as_bytes().first() != Some(&letter) {
            return None;
        }
        let (_, bytes) = nkeys::from_public_key(text).ok()?;
        // A weak key, all zeros for one, would take forged signatures for its own.
        VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak()).map(PublicKey)
    }

    /// Whether `signature` (raw) over `bytes` is this key's.
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.0.verify_strict(bytes, &signature).is_ok())
    }

    /// As [`PublicKey::verifies`], the signature in base64 of either alphabet, as clients send it.
    pub fn verifies_text(&self, bytes: &[u8], signature: &str) -> bool {
        decode_base64(signature).is_some_and(|signature| self.verifies(bytes, &signature))
    }
}

/// Whether it is the secret half of a key, which some take for the key.
pub fn is_seed(text: &str) -> bool {
    text.len() == 58 && text.starts_with('S') && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

/// A public key that is none, for a message about it.
pub fn shown_key(text: &str) -> String {
    if is_seed(text) { "a seed, which nobody needs to know".to_owned() } else { format!("{text:?}") }
}

/// Base64 of either alphabet, padded or not.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    URL.decode(text).or_else(|_| PLAIN.decode(text)).ok()
}

/// As [`decode_base64`], of the alphabet JWTs are written in.
pub(super) fn decode_base64_url(text: &str) -> Option<Vec<u8>> {
    URL.decode(text).ok()
}
