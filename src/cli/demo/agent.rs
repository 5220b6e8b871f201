//! One of the demo's agents: a plain NATS client that registers, pulls its assignments and answers them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use super::ledger::Ledger;
use crate::cli::connection::{api_error, refused};
use crate::cli::failure::Failure;
use crate::client::{Client, ClientError, ConnectOptions, Incoming, Status};

/// Who an agent is.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    pub name: &'static str,
    pub labels: &'static [&'static str],
    /// Tasks it works on at once.
    pub slots: u32,
}

/// Any of them can fall without a label losing its last bearer.
pub const TROUPE: [Role; 3] = [
    Role { name: "ada", labels: &["lang=rust"], slots: 4 },
    Role { name: "grace", labels: &["lang=python"], slots: 4 },
    Role { name: "alan", labels: &["lang=rust", "lang=python"], slots: 4 },
];
/// Who dies half way.
pub const VICTIM: &str = TROUPE[0].name;

/// How long a pull waits for work before it is made again.
const PULL_EXPIRES: Duration = Duration::from_secs(1);
/// A pull that was lost with its connection is noticed after this.
const PULL_SLACK: Duration = Duration::from_millis(500);
/// The pause before a question is asked again that got no answer.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long the coordinator may take for an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// What one task takes: long enough to be interrupted.
const WORK: Duration = Duration::from_millis(90);

/// An agent at work. Dropping it ends its work.
pub struct Agent {
    pub role: Role,
    client: Client,
    working: JoinHandle<()>,
}

/// What registering told the agent.
struct Post {
    stream: String,
    consumer: String,
    resume: String,
}

impl Agent {
    /// Connects, registers and begins.
    ///
    /// # Errors
    /// The server cannot be reached, or the coordinator refuses the agent.
    pub async fn start(role: Role, id: String, url: &str, queue: &str, ledger: Arc<Ledger>) -> Result<Agent, Failure> {
        let options = ConnectOptions { name: id.clone(), ..ConnectOptions::default() };
        let client = Client::connect_with(url, options).await.map_err(|error| Failure::client(url, &error))?;
        let post = register(&client, role, &id, queue, "").await.map_err(|error| refused(&error))?;
        let life = Life { role, id, queue: queue.to_owned(), client: client.clone(), ledger };
        Ok(Agent { role, client, working: tokio::spawn(life.work(post)) })
    }

    /// Falls over: the work stops in the middle and the connection ends without a goodbye.
    pub async fn die(self) {
        self.working.abort();
        self.client.close().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.working.abort();
    }
}

struct Life {
    role: Role,
    id: String,
    queue: String,
    client: Client,
    ledger: Arc<Ledger>,
}

impl Life {
    async fn work(self, mut post: Post) {
        let mut status = self.client.watch_status();
        let mut registered_on = *status.borrow_and_update();
        // Tasks in hand; they end with the agent.
        let mut hands = JoinSet::new();
        loop {
            let now = *status.borrow_and_update();
            match now {
                Status::Closed => return,
                // After the broker was away the agent says again who it is, and keeps what it has in hand.
                Status::Connected { .. } if now != registered_on => {
                    match register(&self.client, self.role, &self.id, &self.queue, &post.resume).await {
                        Ok(renewed) => {
                            post = renewed;
                            registered_on = now;
                        }
                        Err(_) => {
                            tokio::time::sleep(RETRY_PAUSE).await;
                            continue;
                        }
                    }
                }
                _ => {}
            }
            self.pull(&post, &mut hands).await;
            while hands.try_join_next().is_some() {}
        }
    }

    /// One pull: takes up what comes until it is answered whole, expired, or lost with the connection.
    async fn pull(&self, post: &Post, hands: &mut JoinSet<()>) {
        let inbox = self.client.new_inbox();
        let Ok(mut arriving) = self.client.subscribe(&inbox) else {
            return tokio::time::sleep(RETRY_PAUSE).await;
        };
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", post.stream, post.consumer);
        let request = json!({"batch": self.role.slots, "expires": PULL_EXPIRES.as_nanos() as u64}).to_string();
        if self.client.publish_message(subject.as_bytes(), inbox.as_bytes(), b"", request.as_bytes()).is_err() {
            return tokio::time::sleep(RETRY_PAUSE).await;
        }
        for _ in 0..self.role.slots {
            match tokio::time::timeout(PULL_EXPIRES + PULL_SLACK, arriving.next()).await {
                Ok(Some(message)) if message.headers().status().is_none() => self.take_up(&message, hands),
                // Expired, or nobody answers pulls yet.
                Ok(Some(message)) if message.headers().status() != Some(408) => {
                    return tokio::time::sleep(RETRY_PAUSE).await;
                }
                _ => return,
            }
        }
    }

    fn take_up(&self, message: &Incoming, hands: &mut JoinSet<()>) {
        let headers = message.headers();
        let (Some(task), Some(complete)) = (headers.get_str("Task-Id"), headers.get_str("Task-Complete")) else {
            return;
        };
        let attempt = headers.get_str("Task-Attempt").and_then(|attempt| attempt.parse().ok()).unwrap_or(1_u32);
        let lease = complete.rsplit('.').next().unwrap_or_default().to_owned();
        let body: Value = serde_json::from_slice(message.payload()).unwrap_or_default();
        // After a reconnect the same delivery may come again while it is in hand.
        if !self.ledger.begin(self.role.name, task, &lease) {
            return;
        }
        let job = Job {
            agent: self.role.name,
            task: task.to_owned(),
            lease,
            complete: complete.to_owned(),
            result: result(&body, self.role.name, attempt).to_string(),
        };
        hands.spawn(job.run(self.client.clone(), self.ledger.clone()));
    }
}

/// What an agent makes of a task: the square of its number.
fn result(body: &Value, agent: &str, attempt: u32) -> Value {
    let n = body["n"].as_u64().unwrap_or_default();
    json!({"n": n, "square": n * n, "agent": agent, "attempt": attempt})
}

/// One attempt at one task.
struct Job {
    agent: &'static str,
    task: String,
    lease: String,
    complete: String,
    result: String,
}

impl Job {
    async fn run(self, client: Client, ledger: Arc<Ledger>) {
        tokio::time::sleep(WORK).await;
        loop {
            match client.request(&self.complete, self.result.as_bytes(), ANSWER_DEADLINE).await {
                Ok(answer) => match api_error(&answer) {
                    None => return ledger.accept(self.agent, &self.task, &self.lease),
                    Some(error) if error.code == 409 || error.code == 404 => return ledger.refuse(self.agent),
                    Some(_) => {}
                },
                Err(ClientError::Closed) => return,
                // Whether it was accepted is unknown; saying the same again is harmless.
                Err(_) => {}
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// `resume` is what the last registration gave, so that leases survive a reconnect.
async fn register(
    client: &Client,
    role: Role,
    id: &str,
    queue: &str,
    resume: &str,
) -> Result<Post, crate::types::ApiError> {
    let card = json!({
        "labels": role.labels,
        "slots": role.slots,
        "queues": [queue],
        "client_id": client.info().client_id,
        "resume": resume,
    });
    let unavailable = |text: String| crate::types::ApiError { code: 503, err_code: 503, description: text.into() };
    let subject = format!("$TASK.API.AGENT.REGISTER.{id}");
    let answer = client.request(&subject, card.to_string().as_bytes(), ANSWER_DEADLINE).await;
    let answer = answer.map_err(|error| unavailable(error.to_string()))?;
    if let Some(error) = api_error(&answer) {
        return Err(error);
    }
    let post: Value = serde_json::from_slice(answer.payload()).map_err(|error| unavailable(error.to_string()))?;
    let text = |field: &str| post[field].as_str().unwrap_or_default().to_owned();
    Ok(Post { stream: text("stream"), consumer: text("consumer"), resume: text("resume") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_two_bearers() {
        for label in ["lang=rust", "lang=python"] {
            assert_eq!(TROUPE.iter().filter(|role| role.labels.contains(&label)).count(), 2, "{label}");
        }
    }

    #[test]
    fn a_result_says_who_made_it() {
        assert_eq!(result(&json!({"n": 12}), "ada", 2), json!({"n": 12, "square": 144, "agent": "ada", "attempt": 2}));
    }
}
