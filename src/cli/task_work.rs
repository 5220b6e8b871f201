//! `natterjack task complete|fail|decline|input`: an agent's side of a task, for agents that are scripts.

use clap::Args;
use serde_json::{Value, json};

use super::connection::{Connection, header_block};
use super::failure::Failure;
use super::output::{show, without_nulls};
use super::table;
use super::task::state;
use super::task_options::Body;

/// Which delivery of a task is spoken for.
#[derive(Debug, Args)]
pub struct Held {
    /// The task.
    id: String,
    /// The lease of the delivery: the last word of the subject in its Task-Complete header.
    #[arg(long, value_name = "LEASE")]
    lease: String,
}

/// A result.
#[derive(Debug, Args)]
pub struct Complete {
    #[command(flatten)]
    held: Held,
    #[command(flatten)]
    result: Body,
}

/// Why it did not work out.
#[derive(Debug, Args)]
pub struct Fail {
    #[command(flatten)]
    held: Held,
    /// What went wrong, for whoever looks at it later.
    error: Option<String>,
    /// Give it up at once instead of trying again.
    #[arg(long)]
    no_retry: bool,
    /// Try again after so long; without it after the pauses of its queue.
    #[arg(long, value_name = "DURATION", value_parser = table::duration, conflicts_with = "no_retry")]
    delay: Option<std::time::Duration>,
}

/// A question.
#[derive(Debug, Args)]
pub struct Ask {
    #[command(flatten)]
    held: Held,
    #[command(flatten)]
    question: Body,
    /// What is asked for is an authorization: its answer is shown to nobody but the agent.
    #[arg(long)]
    auth: bool,
}

impl Held {
    fn subject(&self, verb: &str) -> String {
        format!("{verb}.{}.{}", self.id, self.lease)
    }

    fn told(&self, answer: &Value) -> String {
        format!("Task {} is {}.", self.id, state(answer))
    }
}

impl Complete {
    /// # Errors
    /// A result that cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        self.result.read_or_nothing()
    }

    /// # Errors
    /// What the coordinator says against it.
    pub async fn send(&self, connection: &Connection, result: &[u8], json: bool) -> Result<(), Failure> {
        let answer = connection.call(&self.held.subject("COMPLETE"), b"", result).await?;
        show(&answer, json, |answer| self.held.told(answer));
        Ok(())
    }
}

impl Fail {
    /// # Errors
    /// What the coordinator says against it.
    pub async fn send(&self, connection: &Connection, json: bool) -> Result<(), Failure> {
        let delay = self.delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let body = without_nulls(json!({
            "error": self.error.as_deref().unwrap_or_default(), "retry": !self.no_retry, "delay_ms": delay,
        }));
        let answer = connection.call(&self.held.subject("FAIL"), b"", body.to_string().as_bytes()).await?;
        show(&answer, json, |answer| self.held.told(answer));
        Ok(())
    }
}

impl Ask {
    /// # Errors
    /// No question.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        self.question.read("natterjack task input ID --lease LEASE 'Which colour?'")
    }

    /// # Errors
    /// What the coordinator says against it.
    pub async fn send(&self, connection: &Connection, question: &[u8], json: bool) -> Result<(), Failure> {
        let kind = if self.auth { "auth-required" } else { "input-required" };
        let headers = header_block(&[("Task-State".to_owned(), kind.to_owned())]);
        let answer = connection.call(&self.held.subject("INPUT"), &headers, question).await?;
        show(&answer, json, |answer| self.held.told(answer));
        Ok(())
    }
}

/// Not this agent's kind of work.
///
/// # Errors
/// What the coordinator says against it.
pub async fn decline(connection: &Connection, held: &Held, json: bool) -> Result<(), Failure> {
    let answer = connection.call(&held.subject("DECLINE"), b"", b"").await?;
    show(&answer, json, |answer| held.told(answer));
    Ok(())
}
