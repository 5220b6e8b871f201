//! The one gate: whatever a client shows with CONNECT is judged here, whichever way it came.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Semaphore;

use crate::auth::{Book, Grant, NONCE_BYTES, PasswordCheck, Presented, Refusal, Secret, Verdict, check_hash};
use crate::protocol::ProtocolError;

/// Slow hashes worked out at the same time; others wait in line. A flood of wrong passwords must not take every core.
const HASHES_AT_ONCE: usize = 2;

/// Somebody who was let in.
pub(super) struct Admission {
    pub(super) grant: Arc<Grant>,
    /// The slow hash that its password was found to have.
    pub(super) hash: Option<Secret>,
    /// Somebody else said who it is.
    pub(super) called_out: bool,
}

/// See the module.
pub struct Gate {
    book: RwLock<Arc<Book>>,
    hashing: Arc<Semaphore>,
}

impl Gate {
    pub(super) fn new(book: Book) -> Gate {
        Gate { book: RwLock::new(Arc::new(book)), hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)) }
    }

    /// The book in force.
    pub fn book(&self) -> Arc<Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Judges by another book from now on.
    pub(super) fn replace(&self, book: Book) {
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }

    /// Something for a client to sign that nobody else is given; empty when no client signs anything.
    #[allow(clippy::disallowed_methods)]
    pub(super) fn nonce(&self) -> String {
        match self.book().needs_nonce() {
            true => URL_SAFE_NO_PAD.encode(rand::random::<[u8; NONCE_BYTES]>()),
            false => String::new(),
        }
    }

    /// Lets a client in, or says why not, in at most `patience`. `vouched` is a hash that the same password was found to
    /// have before.
    pub(super) async fn judge(
        &self,
        presented: &Presented<'_>,
        patience: Duration,
        vouched: Option<&Secret>,
    ) -> Result<Admission, (ProtocolError, Refusal)> {
        let refused = |reason| Err((ProtocolError::AuthorizationViolation, Refusal(reason)));
        match self.book().judge(presented) {
            Verdict::Granted(grant) => Ok(Admission { grant, hash: None, called_out: false }),
            Verdict::Refused(Refusal(reason)) => refused(reason),
            Verdict::CheckPassword(PasswordCheck { grant: Some(grant), hash, .. }) if vouched == Some(&hash) => {
                Ok(Admission { grant, hash: Some(hash), called_out: false })
            }
            Verdict::CheckPassword(check) => {
                let hash = check.hash.clone();
                match tokio::time::timeout(patience, self.check(check)).await {
                    Ok(Some(grant)) => Ok(Admission { grant, hash: Some(hash), called_out: false }),
                    Ok(None) => refused("wrong user or password"),
                    Err(_) => Err((ProtocolError::AuthenticationTimeout, Refusal("too many passwords to check"))),
                }
            }
        }
    }

    async fn check(&self, check: PasswordCheck) -> Option<Arc<Grant>> {
        // The place is kept until the hash is done, also when nobody waits for it any more.
        let place = self.hashing.clone().acquire_owned().await.ok()?;
        let checking = tokio::task::spawn_blocking(move || {
            let _place = place;
            check_hash(&check.hash, &check.presented).then_some(check.grant).flatten()
        });
        checking.await.ok().flatten()
    }
}
