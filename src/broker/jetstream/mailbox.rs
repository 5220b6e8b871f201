//! A subscription of the server's own: keeps what is published on a subject for one task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::inbox::weight_bytes;
use crate::broker::{Account, Inbound, Service};

/// What may wait to be taken out; further messages are lost. Twice the window of flow control.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// See the module. Dropping it ends the subscription.
pub(super) struct Mailbox {
    account: Arc<Account>,
    subject: String,
    key: u64,
    letters: mpsc::UnboundedReceiver<Inbound>,
    waiting_bytes: Arc<AtomicUsize>,
}

struct Slot {
    letters: mpsc::UnboundedSender<Inbound>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Service for Slot {
    fn takes_answers(&self) -> bool {
        true
    }

    fn call(&self, letter: Inbound) {
        let weight = weight_bytes(&letter);
        let fits = |waiting: usize| (waiting < WAITING_BYTES_MAX).then_some(waiting + weight);
        if self.waiting_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
            let _ = self.letters.send(letter);
        }
    }
}

impl Mailbox {
    /// Subscribes to a subject; `None` when it is not a valid one.
    pub(super) fn open(account: &Arc<Account>, subject: String) -> Option<Mailbox> {
        let (sender, letters) = mpsc::unbounded_channel();
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let slot = Slot { letters: sender, waiting_bytes: waiting_bytes.clone() };
        let key = account.add_service(subject.as_bytes(), Arc::new(slot)).ok()?;
        Some(Mailbox { account: account.clone(), subject, key, letters, waiting_bytes })
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// The next message. Cancel safe.
    pub(super) async fn receive(&mut self) -> Inbound {
        let letter = self.letters.recv().await.expect("the sender is in the router until the mailbox is dropped");
        self.taken(letter)
    }

    /// The next message if there is one already.
    pub(super) fn receive_now(&mut self) -> Option<Inbound> {
        self.letters.try_recv().ok().map(|letter| self.taken(letter))
    }

    fn taken(&self, letter: Inbound) -> Inbound {
        self.waiting_bytes.fetch_sub(weight_bytes(&letter), Ordering::Relaxed);
        letter
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.account.remove_target(self.subject.as_bytes(), self.key);
    }
}
