//! Which of several coordinators of one account serves: one does, and says so on `$TASK.LEAD`; the others stand by and ask
//! there until nobody answers.
//!
//! Tasks are safe without it, since every step expects the revision it was decided on. But agents and what runs are in the
//! memory of the one that serves, so two that shared the requests would each know half. Two may claim at the same instant,
//! or in halves of a cluster that are cut apart: as soon as they hear each other the older claim stays, and who stays
//! after another has served reads its state again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::client::{Client, ClientError, Incoming, Overflow};
use crate::types::Timestamp;

/// Where it is said who serves.
pub const SUBJECT: &str = "$TASK.LEAD";

/// How long one question waits for its answer.
const ASK: Duration = Duration::from_millis(150);
/// How often who stands by asks, at least; up to twice as seldom, so that not all take over at the same instant.
const STAND_BY: Duration = Duration::from_millis(150);
/// How long one may be silent that is still subscribed: its machine lost power, or it is stopped.
const SILENCE: Duration = Duration::from_secs(10);
/// How often who serves says so unasked, for those on the other side of a cut that has healed.
const REPEAT: Duration = Duration::from_secs(5);

/// Questions and claims that may wait; who asked beyond that asks again.
const WAITING: usize = 256;

/// A coordinator's word that it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claim {
    pub id: String,
    /// Since when it claims to.
    pub since: Timestamp,
    /// It has begun to serve; before that it reads its state.
    pub serves: bool,
    /// Its machine and process, for people.
    pub host: String,
}

impl Claim {
    fn goes_before(&self, other: &Claim) -> bool {
        (self.since, &self.id) < (other.since, &other.id)
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a claim is plain data")
    }
}

/// What was heard while serving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Heard {
    #[default]
    Nothing,
    /// One that has claimed before us serves.
    Older(Claim),
    /// One that now yields to us has served as well: what we know may be behind.
    Served,
}

/// What a claim makes of another's that it hears.
fn judge(ours: &Claim, theirs: &Claim) -> Heard {
    if theirs.goes_before(ours) {
        Heard::Older(theirs.clone())
    } else if theirs.serves {
        Heard::Served
    } else {
        Heard::Nothing
    }
}

/// Asks who serves; `None` when nobody does.
///
/// # Errors
/// [`ClientError::Timeout`] when somebody is there and does not answer; a lost connection.
pub async fn ask(client: &Client, ours: &Claim) -> Result<Option<Claim>, ClientError> {
    match client.request(SUBJECT, &ours.bytes(), ASK).await {
        Ok(answer) => Ok(Some(serde_json::from_slice(answer.payload()).unwrap_or_default())),
        Err(ClientError::NoResponders { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until nobody else serves. `stands_by` is told of whom it waits for, once for each.
///
/// # Errors
/// A lost connection.
pub async fn wait_for_turn(
    client: &Client,
    ours: &Claim,
    mut stands_by: impl FnMut(&Claim),
) -> Result<(), ClientError> {
    let mut heard = tokio::time::Instant::now();
    let mut other = String::new();
    loop {
        match ask(client, ours).await {
            Ok(None) => return Ok(()),
            Ok(Some(claim)) => {
                heard = tokio::time::Instant::now();
                if claim.id != other {
                    stands_by(&claim);
                    other = claim.id;
                }
                tokio::time::sleep(STAND_BY.mul_f64(1.0 + rand::random::<f64>())).await;
            }
            Err(ClientError::Timeout) if heard.elapsed() >= SILENCE => {
                tracing::warn!(
                    "the coordinator that served here has not answered for {SILENCE:?}: this one takes over"
                );
                return Ok(());
            }
            Err(ClientError::Timeout) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The claim of one that serves, kept up by a task of its own, since reading the state of many tasks takes its time.
/// Dropping it gives the claim up.
pub struct Beacon {
    client: Client,
    subscription: u64,
    ours: watch::Sender<Claim>,
    heard: watch::Receiver<Heard>,
    task: tokio::task::JoinHandle<()>,
}

impl Beacon {
    /// Claims for `ours`. `repeats` says whether to say so unasked.
    ///
    /// # Errors
    /// When the claim cannot be made: the connection is closed.
    pub fn light(client: &Client, ours: Claim, repeats: bool) -> Result<Beacon, ClientError> {
        let (sender, asked) = mpsc::channel(WAITING);
        let subscription = client.subscribe_into(SUBJECT, None, sender, Overflow::Drop)?;
        client.publish(SUBJECT, &ours.bytes())?;
        let (tell, heard) = watch::channel(Heard::Nothing);
        let (ours, claim) = watch::channel(ours);
        let task = tokio::spawn(keep(client.clone(), asked, claim, tell, repeats));
        Ok(Beacon { client: client.clone(), subscription, ours, heard, task })
    }

    /// From now on the claim says that it serves.
    pub fn serves(&self) {
        self.ours.send_modify(|claim| claim.serves = true);
        let _ = self.client.publish(SUBJECT, &self.ours.borrow().bytes());
    }

    /// The next that is heard of others. Cancel safe.
    pub async fn heard(&mut self) -> Heard {
        match self.heard.changed().await {
            Ok(()) => self.heard.borrow_and_update().clone(),
            // The connection is closed, which is for others to see.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Beacon {
    fn drop(&mut self) {
        self.client.unsubscribe(self.subscription);
        self.task.abort();
    }
}

async fn keep(
    client: Client,
    mut asked: mpsc::Receiver<Incoming>,
    ours: watch::Receiver<Claim>,
    tell: watch::Sender<Heard>,
    repeats: bool,
) {
    loop {
        let message = tokio::select! {
            message = asked.recv() => message,
            () = tokio::time::sleep(REPEAT), if repeats => {
                let claim = ours.borrow().bytes();
                let _ = client.publish(SUBJECT, &claim);
                continue;
            }
        };
        let Some(message) = message else { return };
        let ours = ours.borrow().clone();
        let theirs: Claim = serde_json::from_slice(message.payload()).unwrap_or_default();
        if theirs.id.is_empty() || theirs.id == ours.id {
            continue;
        }
        if !message.reply().is_empty() {
            // One that does not claim yet. Our answer must not become a request or a key.
            if !message.reply().starts_with(b"$") {
                let _ = client.publish_message(message.reply(), b"", b"", &ours.bytes());
            }
            continue;
        }
        let heard = judge(&ours, &theirs);
        if !matches!(heard, Heard::Older(_)) {
            // So that it yields.
            let _ = client.publish(SUBJECT, &ours.bytes());
        }
        if heard != Heard::Nothing {
            tell.send_replace(heard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_claim_stays() {
        let claim = |id: &str, since: i64, serves: bool| Claim {
            id: id.to_owned(),
            since: Timestamp(since),
            serves,
            host: String::new(),
        };
        let check = |ours: &Claim, theirs: &Claim, expected: Heard| assert_eq!(judge(ours, theirs), expected);
        let (old, young) = (claim("b", 1, true), claim("a", 2, true));
        check(&young, &old, Heard::Older(old.clone()));
        check(&old, &young, Heard::Served);
        check(&old, &claim("a", 2, false), Heard::Nothing);
        // At the same instant the ids decide, for both alike.
        let (first, second) = (claim("a", 1, true), claim("b", 1, true));
        check(&second, &first, Heard::Older(first.clone()));
        check(&first, &second, Heard::Served);
    }
}
