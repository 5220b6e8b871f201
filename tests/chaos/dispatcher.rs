//! Dispatchers: they submit, submit again, cancel, requeue and wait, and are killed in the middle of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use natterjack::client::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ledger::{Submission, Verb};
use super::link::{Link, Reply, call};
use super::random::Random;
use super::service;
use super::worker;
use super::world::Shared;

/// Requests that one dispatcher has under way at once.
const AT_ONCE: usize = 4;

/// Lives until the world is calm; each message on `killed` ends its connection and all that it waits for.
pub async fn live(world: Arc<Shared>, name: String, seed: u64, mut killed: mpsc::Receiver<()>) {
    let mut random = Random::new(seed);
    let mut next = 0;
    while !world.is_calm() {
        tokio::select! {
            () = connected(&world, &name, &mut random, &mut next) => {}
            order = killed.recv() => if order.is_none() { return },
        }
    }
}

/// One connection's life.
async fn connected(world: &Arc<Shared>, name: &str, random: &mut Random, next: &mut u64) {
    let link = Link::surely(&world.address, name).await;
    let mut under_way = JoinSet::new();
    while !world.is_calm() && link.client.status() != natterjack::client::Status::Closed {
        tokio::time::sleep(Duration::from_millis(random.below(50))).await;
        while under_way.len() >= AT_ONCE {
            under_way.join_next().await;
        }
        let deed = Deed::choose(world, name, random, next);
        let (world, client) = (world.clone(), link.client.clone());
        under_way.spawn(async move { deed.carry_out(&world, &client).await });
    }
    // What is under way is given up: whether it has happened is not known.
}

enum Deed {
    Submit(String),
    /// Another body for an id that is known to be taken.
    Usurp(String),
    Get(String),
    Await(String),
    Cancel {
        task: String,
        force: bool,
    },
    Requeue(String),
    /// One of the last dead letters, or all of a queue.
    Letter,
    Letters(&'static str),
    Answer(String),
    Queue(&'static str),
    Nothing,
}

impl Deed {
    fn choose(world: &Shared, name: &str, random: &mut Random, next: &mut u64) -> Deed {
        let mut books = world.ledger.books();
        let choice = random.below(100);
        if choice < 58 || books.submissions.is_empty() {
            *next += 1;
            let task = format!("{name}-{next}");
            let others: Vec<String> = books.submissions.keys().cloned().collect();
            let submission = compose(&task, world, random, &others);
            books.submissions.insert(task.clone(), submission);
            return Deed::Submit(task);
        }
        // Mostly one of the last: those are under way.
        let count = books.submissions.len() as u64;
        let at = if random.one_in(3) { random.below(count) } else { count - 1 - random.below(count.min(20)) };
        let chosen = books.submissions.iter().nth(at as usize);
        if let Some(task) = world.next_question().filter(|_| random.one_in(2)) {
            return Deed::Answer(task);
        }
        let (task, known) = chosen.map(|(task, known)| (task.clone(), known.clone())).unwrap_or_default();
        let unknown = books.submissions.iter().find(|(_, known)| !known.acknowledged && !known.refused);
        match choice {
            58..66 => unknown.map_or(Deed::Submit(task), |(task, _)| Deed::Submit(task.clone())),
            66..69 if known.acknowledged => Deed::Usurp(task),
            69..75 => Deed::Cancel { task, force: random.one_in(2) },
            75..80 => Deed::Requeue(task),
            80..82 if random.one_in(8) => {
                Deed::Letters(random.pick::<&str>(&["default", "limited", worker::QUEUE, service::QUEUE]))
            }
            80..82 => Deed::Letter,
            82..88 => Deed::Await(task),
            88..96 => Deed::Get(task),
            96 => Deed::Queue("PAUSE.limited"),
            97..99 => Deed::Queue("RESUME.limited"),
            99 if random.one_in(4) => Deed::Queue("PURGE.limited"),
            _ => Deed::Nothing,
        }
    }

    async fn carry_out(self, world: &Shared, client: &Client) {
        let ledger = &world.ledger;
        let nothing = Bytes::new();
        match self {
            Deed::Submit(task) => submit(world, client, &task).await,
            Deed::Usurp(task) => {
                let headers = [("Task-Id", task.clone())];
                if let Reply::Fine(answer) = call(client, "SUBMIT", &headers, b"something else").await {
                    ledger.wrong(format!("{task}: another body was taken for the same id: {answer:?}"));
                }
            }
            Deed::Get(task) => {
                let reply = call(client, &format!("GET.{task}"), &[], b"").await;
                if let Reply::Fine(_) = &reply {
                    ledger.answered(Verb::Get, &task, "", &nothing, &reply.json());
                }
            }
            Deed::Await(task) => {
                let headers = [("Task-Wait", "200ms".to_owned())];
                if let Reply::Fine(result) = call(client, &format!("AWAIT.{task}"), &headers, b"").await {
                    ledger.books().awaited.push((task, result));
                    ledger.count("results awaited");
                }
            }
            Deed::Cancel { task, force } => {
                let body = json!({ "reason": "not wanted", "force": force }).to_string();
                let reply = call(client, &format!("CANCEL.{task}"), &[], body.as_bytes()).await;
                if let Reply::Fine(_) = &reply {
                    ledger.answered(Verb::Cancel, &task, "", &nothing, &reply.json());
                    ledger.count("cancels accepted");
                }
            }
            Deed::Requeue(task) => {
                let reply = call(client, &format!("REQUEUE.{task}"), &[], b"").await;
                if let Reply::Fine(_) = &reply {
                    ledger.answered(Verb::Requeue, &task, "", &nothing, &reply.json());
                    ledger.count("requeues accepted");
                }
            }
            Deed::Letter => {
                let listed = call(client, "DLQ.LIST", &[], br#"{"limit":3}"#).await.json();
                let Some(letter) = listed["letters"].as_array().and_then(|letters| letters.last()) else { return };
                let (queue, task) = (letter["queue"].as_str().unwrap_or(""), letter["id"].as_str().unwrap_or(""));
                let reply = call(client, &format!("DLQ.REQUEUE.{queue}.{task}"), &[], b"").await;
                if let Reply::Fine(_) = &reply {
                    // Of one that somebody else has requeued meanwhile it tells where the task is now.
                    ledger.answered(Verb::Get, task, "", &nothing, &reply.json());
                    ledger.count("letters requeued");
                }
            }
            Deed::Letters(queue) => {
                if let Reply::Fine(_) = call(client, &format!("DLQ.REQUEUE.{queue}"), &[], b"").await {
                    ledger.count("queues of letters requeued");
                }
            }
            Deed::Answer(task) => answer(world, client, &task).await,
            Deed::Queue(what) => {
                call(client, &format!("QUEUE.{what}"), &[], b"").await;
            }
            Deed::Nothing => {}
        }
    }
}

/// Submits a task of the ledger's, or asks whether it was.
pub async fn submit(world: &Shared, client: &Client, task: &str) {
    let Some(submission) = world.ledger.books().submissions.get(task).cloned() else { return };
    let mut headers = vec![("Task-Id", task.to_owned())];
    headers.extend(submission.headers);
    let reply = call(client, "SUBMIT", &headers, &submission.body).await;
    let answer: Value = reply.json();
    match reply {
        Reply::Fine(_) => {
            let duplicate = answer["duplicate"] == true;
            world.ledger.answered(Verb::Submit, task, "", &Bytes::new(), &answer);
            world.ledger.count(if duplicate { "submitted again" } else { "submitted" });
            let mut books = world.ledger.books();
            books.submissions.entry(task.to_owned()).and_modify(|known| known.acknowledged = true);
        }
        Reply::Refused(code) => {
            let known = submission.acknowledged;
            if known || code != 30424 {
                world.ledger.wrong(format!("{task}: SUBMIT was refused with {code}, acknowledged before: {known}"));
            }
            world.ledger.count("refused for their dependencies");
            let mut books = world.ledger.books();
            books.submissions.entry(task.to_owned()).and_modify(|known| known.refused = true);
        }
        Reply::Unknown => world.ledger.count("answers lost"),
    }
}

/// Answers a task's question, if it has one.
pub async fn answer(world: &Shared, client: &Client, task: &str) {
    let reply = call(client, &format!("ANSWER.{task}"), &[], b"the second").await;
    if let Reply::Fine(_) = &reply {
        world.ledger.answered(Verb::Answer, task, "", &Bytes::new(), &reply.json());
        world.ledger.count("questions answered");
    }
}

/// A task of some kind: for agents, for a service, or for workers, who choose what they pull and are told no more than a
/// message tells.
fn compose(task: &str, world: &Shared, random: &mut Random, others: &[String]) -> Submission {
    let mut headers = Vec::new();
    if world.has_workers && random.one_in(4) {
        headers.push(("Task-Queue", worker::QUEUE.to_owned()));
        headers.push(("Task-Max-Attempts", (1 + random.below(worker::DELIVERIES)).to_string()));
    } else {
        headers = for_agents(random);
        if world.has_services && random.one_in(3) {
            headers.retain(|(name, _)| *name != "Task-Queue");
            headers.push(("Task-Queue", service::QUEUE.to_owned()));
        }
    }
    if random.one_in(3) {
        headers.push(("Task-Result-To", format!("results.{task}")));
    }
    if random.one_in(10) {
        headers.push(("Task-Not-Before", format!("{}ms", random.below(600))));
    }
    if random.one_in(15) {
        headers.push(("Task-Deadline", format!("{}ms", 200 + random.below(3000))));
    }
    if random.one_in(8) && !others.is_empty() {
        headers.push(("Task-After", format!("{},{}", random.pick(others), random.pick(others))));
    }
    Submission { headers, body: Bytes::from(format!("body of {task}")), acknowledged: false, refused: false }
}

/// What is said of a task that the coordinator gives to somebody.
fn for_agents(random: &mut Random) -> Vec<(&'static str, String)> {
    let mut headers = vec![("Task-Backoff", "30ms,60ms".to_owned())];
    let attempts = [1, 2, 3, 8, 20, 20, 50, 50];
    headers.push(("Task-Max-Attempts", random.pick(&attempts).to_string()));
    if random.one_in(3) {
        headers.push(("Task-Queue", "limited".to_owned()));
        headers.push(("Task-Key", format!("k{}", random.below(4))));
    }
    if random.one_in(3) {
        headers.push(("Task-Priority", random.below(10).to_string()));
    }
    if random.one_in(8) {
        headers.push(("Task-Requires", "gpu".to_owned()));
    }
    if random.one_in(8) {
        headers.push(("Task-Prefer", "fast".to_owned()));
    }
    if random.one_in(8) {
        headers.push(("Task-Sticky", format!("s{}", random.below(3))));
        headers.push(("Task-Sticky-Mode", (*random.pick(&["soft", "hard"])).to_owned()));
    }
    if random.one_in(15) {
        headers.push(("Task-Timeout", format!("{}ms", 100 + random.below(1000))));
    }
    headers
}
