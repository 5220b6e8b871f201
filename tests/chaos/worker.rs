//! Workers that know nothing of tasks: they pull from a queue's consumer, ack, nak, term, fall silent, come too late and are
//! killed with a message in their hands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use natterjack::client::{Client, Incoming};
use tokio::sync::mpsc;

use super::agent::Attempt;
use super::ledger::Word;
use super::link::Link;
use super::random::Random;
use super::world::{LEASE, Shared};

/// The queue they work for.
pub const QUEUE: &str = "pulled";
/// Deliveries that its consumer makes of a message.
pub const DELIVERIES: u64 = 6;
/// How long the broker has to say that it knows of an ack.
const PATIENCE: Duration = Duration::from_millis(500);

/// Lives until the world ends; each message on `killed` ends its connection and what it is at.
pub async fn live(world: Arc<Shared>, name: String, seed: u64, mut killed: mpsc::Receiver<()>) {
    let mut random = Random::new(seed);
    loop {
        tokio::select! {
            () = connected(&world, &name, &mut random) => {}
            order = killed.recv() => if order.is_none() { return },
        }
    }
}

async fn connected(world: &Arc<Shared>, name: &str, random: &mut Random) {
    let link = Link::surely(&world.address, name).await;
    let Ok(mut puller) = link.client.puller("KV_TASK", &format!("queue_{QUEUE}"), 1) else { return };
    while let Ok(message) = puller.next().await {
        world.ledger.count("deliveries of the pull queue");
        let mut work = Work::of(world, &message);
        let Some(word) = work.act(&link.client, &message, random).await else { return };
        work.word = word;
    }
}

/// One delivery in its hands. However it ends, a word of it goes into the ledger.
struct Work<'a> {
    world: &'a Shared,
    attempt: Attempt,
    word: Word,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.world.ledger.word(&self.attempt.task, &self.attempt.lease, self.word);
    }
}

impl Work<'_> {
    fn of<'a>(world: &'a Shared, message: &Incoming) -> Work<'a> {
        let attempt = Attempt::of(message, message.headers().get_str("Task-Complete").unwrap_or_default());
        if world.ledger.body_of(&attempt.task).as_deref() != Some(message.payload()) {
            world.ledger.wrong(format!("{}: a worker was given another body", attempt.task));
        }
        // Who is killed in the middle of it has said nothing, as far as anybody knows.
        Work { world, attempt, word: Word::Unsure }
    }

    /// Does the work in some way; `None` when the worker's process ends with it.
    async fn act(&self, client: &Client, message: &Incoming, random: &mut Random) -> Option<Word> {
        if self.world.is_calm() {
            return Some(self.ack(client, message).await);
        }
        let ledger = &self.world.ledger;
        tokio::time::sleep(Duration::from_millis(random.below(8))).await;
        match random.below(100) {
            0..45 => Some(self.ack(client, message).await),
            45..52 => {
                // One that has read what the headers are for.
                let result = Bytes::from(format!("result of {} by {}", self.attempt.task, self.attempt.lease));
                let completed = self.attempt.complete(client, self.world, &result).await;
                ledger.count(if completed == Some(true) { "pulled and completed" } else { "pulled and too late" });
                Some(Word::Unsure)
            }
            52..57 => {
                for _ in 0..random.below(6) {
                    say(client, message, "+WPI");
                    tokio::time::sleep(LEASE / 4).await;
                }
                Some(self.ack(client, message).await)
            }
            57..70 => {
                ledger.count("naks of the pull queue");
                say(client, message, random.pick::<&str>(&["-NAK", "-NAK {\"delay\": 20000000}"]));
                Some(Word::Other)
            }
            70..76 => {
                ledger.count("terms of the pull queue");
                say(client, message, "+TERM no use");
                Some(Word::Other)
            }
            76..84 => {
                ledger.count("silences of the pull queue");
                Some(Word::Other)
            }
            84..92 => {
                // About as long as the lease: another may have it by now.
                tokio::time::sleep(LEASE.mul_f64(0.6 + random.below(60) as f64 / 100.0)).await;
                Some(self.ack(client, message).await)
            }
            _ => {
                ledger.count("workers dead with a message");
                None
            }
        }
    }

    async fn ack(&self, client: &Client, message: &Incoming) -> Word {
        let nothing = Bytes::new();
        self.world.ledger.sending(&self.attempt.task, &self.attempt.lease, &nothing);
        let reply = String::from_utf8_lossy(message.reply()).into_owned();
        match client.request(&reply, b"+ACK", PATIENCE).await {
            Ok(answer) if !answer.is_no_responders() => {
                self.world.ledger.count("acks of the pull queue");
                Word::Acked
            }
            _ => Word::Unsure,
        }
    }
}

fn say(client: &Client, message: &Incoming, word: &str) {
    let _ = client.publish_message(message.reply(), b"", b"", word.as_bytes());
}
