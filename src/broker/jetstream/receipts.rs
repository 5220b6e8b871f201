//! Advisories that other streams keep reach the store before what they tell of.
//!
//! Whoever keeps the advisories of messages that are over (`MAX_DELIVERIES`, `MSG_TERMINATED`) in a stream has a dead letter
//! queue of them: an end that is durable without its advisory is a lost letter. So a stream whose consumers tell of ends
//! submits nothing more until the streams that keep it have submitted that; the store commits in the order of submission.
//! A crash in between leaves an advisory of a message that is delivered again.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use crate::broker::Receipt;
use crate::types::Timestamp;

/// How long another stream may take. It needs one turn; after this it has stopped, or cannot store anything.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a stream's task has given away and waits for.
#[derive(Default)]
pub(super) struct Receipts {
    awaited: Option<Awaited>,
}

struct Awaited {
    until: Timestamp,
    receiver: mpsc::Receiver<Infallible>,
    sender: mpsc::WeakSender<Infallible>,
}

impl Receipts {
    /// One to give along with a message.
    pub(super) fn issue(&mut self, now: Timestamp) -> Receipt {
        if let Some(another) = self.awaited.as_ref().and_then(|awaited| awaited.sender.upgrade()) {
            return another;
        }
        let (receipt, receiver) = mpsc::channel(1);
        self.awaited = Some(Awaited { until: now + PATIENCE, receiver, sender: receipt.downgrade() });
        receipt
    }

    /// Whether some are held still.
    pub(super) fn are_awaited(&mut self, now: Timestamp) -> bool {
        let Some(awaited) = &self.awaited else { return false };
        if awaited.receiver.sender_strong_count() == 0 {
            self.awaited = None;
        } else if awaited.until <= now {
            warn!("a stream takes no advisories; what they tell of is stored without them");
            self.awaited = None;
        }
        self.awaited.is_some()
    }

    /// When patience ends.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.awaited.as_ref().map(|awaited| awaited.until)
    }

    /// Returns when none is held any more; never when none is awaited. Cancel safe.
    pub(super) async fn back(&mut self) {
        match &mut self.awaited {
            Some(awaited) => drop(awaited.receiver.recv().await),
            None => std::future::pending().await,
        }
        self.awaited = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_are_held_are_awaited() {
        let now = Timestamp::ZERO;
        let mut receipts = Receipts::default();
        assert!(!receipts.are_awaited(now));
        drop(receipts.issue(now));
        assert!(!receipts.are_awaited(now), "nobody took it");
        let first = receipts.issue(now);
        let second = receipts.issue(now);
        drop(first);
        assert!(receipts.are_awaited(now));
        drop(second);
        receipts.back().await;
        assert!(!receipts.are_awaited(now));
    }

    #[test]
    fn patience_ends() {
        let now = Timestamp::ZERO;
        let mut receipts = Receipts::default();
        let _kept = receipts.issue(now);
        let later = now + Duration::from_millis(900);
        let _too = receipts.issue(later);
        assert!(receipts.are_awaited(later));
        assert_eq!(receipts.deadline(), Some(now + PATIENCE));
        assert!(!receipts.are_awaited(now + PATIENCE), "the first one counts");
    }
}
