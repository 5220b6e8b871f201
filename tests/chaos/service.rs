//! Instances of a micro service (ADR-32) that works on tasks: they respond, refuse, fall silent, come too late and are killed
//! with requests in their hands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use natterjack::client::{Client, Incoming};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::agent::Attempt;
use super::link::Link;
use super::random::Random;
use super::world::{LEASE, Shared};

/// The queue they work for.
pub const QUEUE: &str = "served";
const SUBJECT: &str = "hands.run";
/// Requests that one instance has in hand at once.
const SLOTS: u64 = 3;

/// Lives until the world ends; each message on `killed` ends its connection and what it is at.
pub async fn live(world: Arc<Shared>, name: String, seed: u64, mut killed: mpsc::Receiver<()>) {
    let mut random = Random::new(seed);
    loop {
        let mut hands = JoinSet::new();
        tokio::select! {
            () = connected(&world, &name, &mut random, &mut hands) => {}
            order = killed.recv() => if order.is_none() { return },
        }
    }
}

async fn connected(world: &Arc<Shared>, name: &str, random: &mut Random, hands: &mut JoinSet<()>) {
    let link = Link::surely(&world.address, name).await;
    let client = &link.client;
    let Ok(mut asked) = client.subscribe("$SRV.INFO") else { return };
    let Ok(mut requests) = client.subscribe_with(SUBJECT, Some("q"), 64) else { return };
    let info = json!({
        "type": "io.nats.micro.v1.info_response", "name": "hands", "version": "1.0.0",
        "id": natterjack::types::id::unique(),
        "metadata": { "task.queue": QUEUE, "task.slots": SLOTS.to_string(), "task.caps": "gpu,fast" },
        "endpoints": [{ "name": "run", "subject": SUBJECT, "queue_group": "q", "metadata": {} }],
    });
    loop {
        tokio::select! {
            question = asked.next() => {
                let Some(question) = question else { return };
                let _ = client.publish_message(question.reply(), b"", b"", info.to_string().as_bytes());
            }
            request = requests.next() => {
                let Some(request) = request else { return };
                let hand = Hand::of(world, client, &request, Random::new(random.next()));
                hands.spawn(hand.work());
                while hands.try_join_next().is_some() {}
            }
        }
    }
}

/// One request in its hands.
struct Hand {
    world: Arc<Shared>,
    client: Client,
    attempt: Attempt,
    reply: Bytes,
    progress: String,
    random: Random,
}

impl Hand {
    fn of(world: &Arc<Shared>, client: &Client, request: &Incoming, random: Random) -> Hand {
        let attempt = Attempt::of(request, &String::from_utf8_lossy(request.reply()));
        let reply = Bytes::copy_from_slice(request.reply());
        let progress = request.headers().get_str("Task-Progress").unwrap_or_default().to_owned();
        world.ledger.count("requests to the service");
        if world.ledger.body_of(&attempt.task).as_deref() != Some(request.payload()) {
            world.ledger.wrong(format!("{}: a service was asked with another body", attempt.task));
        }
        Hand { world: world.clone(), client: client.clone(), attempt, reply, progress, random }
    }

    async fn work(mut self) {
        let result = self.attempt.result();
        if self.world.is_calm() {
            return self.respond(&result);
        }
        tokio::time::sleep(Duration::from_millis(self.random.below(8))).await;
        match self.random.below(100) {
            0..50 => self.respond(&result),
            50..56 => {
                for _ in 0..self.random.below(8) {
                    let _ = self.client.publish(&self.progress, b"a chunk");
                    tokio::time::sleep(LEASE / 4).await;
                }
                self.respond(&result);
            }
            56..70 => {
                let codes = ["500", "429\r\nRetry-After: 0.02", "none of yours"];
                let code = *self.random.pick(&codes);
                self.refuse("errors of the service", code);
            }
            70..73 => self.refuse("refusals of the service", "400"),
            73..80 => {
                self.world.ledger.count("silences of the service");
                self.world.haunt(self.attempt.clone(), Duration::from_millis(self.random.below(1500)));
            }
            80..88 => {
                // About as long as the lease: another instance may have it by now.
                tokio::time::sleep(LEASE.mul_f64(0.6 + self.random.below(60) as f64 / 100.0)).await;
                self.respond(&result);
            }
            88..94 => {
                self.respond(&result);
                self.respond(&Bytes::from(format!("other {}", self.attempt.lease)));
            }
            _ => {
                self.respond(&result);
                self.refuse("words after the response", "400");
            }
        }
    }

    fn respond(&self, result: &Bytes) {
        self.world.ledger.sending(&self.attempt.task, &self.attempt.lease, result);
        self.world.ledger.count("responses of the service");
        let _ = self.client.publish_message(&self.reply, b"", b"", result);
    }

    fn refuse(&self, what: &'static str, code: &str) {
        self.world.ledger.count(what);
        let headers = format!("NATS/1.0\r\nNats-Service-Error: no luck\r\nNats-Service-Error-Code: {code}\r\n\r\n");
        let _ = self.client.publish_message(&self.reply, b"", headers.as_bytes(), b"");
    }
}
