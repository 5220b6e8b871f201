//! What the clients of a world asked for and what they were told: one half of the evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hashbrown::HashMap;
use serde_json::Value;

/// What was asked of the API about one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Submit,
    Get,
    Complete,
    Fail,
    Decline,
    Input,
    Answer,
    Cancel,
    Requeue,
}

/// An answer without an error.
#[derive(Clone, Debug)]
pub struct Answer {
    pub verb: Verb,
    pub task: String,
    /// The lease that was named; empty when none is.
    pub lease: String,
    /// The result that was sent along.
    pub body: Bytes,
    pub revision: u64,
    pub phase: String,
    pub duplicate: bool,
}

/// An answer with an error.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub verb: Verb,
    pub task: String,
    pub lease: String,
    pub body: Bytes,
    pub code: u64,
}

/// What became of one delivery in the hands of a worker that knows nothing of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It acked, and the broker said that it knows.
    Acked,
    /// It acked, and nobody said so.
    Unsure,
    /// It gave the message back, refused it or fell silent.
    Other,
}

/// A task as it was submitted.
#[derive(Clone, Debug, Default)]
pub struct Submission {
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    pub acknowledged: bool,
    pub refused: bool,
}

impl Submission {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug, Default)]
pub struct Books {
    pub submissions: BTreeMap<String, Submission>,
    pub answers: Vec<Answer>,
    pub refusals: Vec<Refusal>,
    /// The results that were sent under each task's leases, answered or not.
    pub sent: HashMap<(String, String), Vec<Bytes>>,
    /// How deliveries of pull queues' tasks ended, by task and lease, which is that of a run.
    pub words: HashMap<(String, String), Vec<Word>>,
    /// Councils and their runs, as answers to FORM name them.
    pub formings: BTreeSet<(String, u64)>,
    /// Results that AWAIT told of.
    pub awaited: Vec<(String, Bytes)>,
    /// What clients saw that must not be.
    pub wrong: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

/// Shared by everybody in a world.
#[derive(Default)]
pub struct Ledger(Mutex<Books>);

impl Ledger {
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self, what: &'static str) {
        *self.books().counts.entry(what).or_default() += 1;
    }

    pub fn wrong(&self, what: String) {
        self.books().wrong.push(what);
    }

    /// What was submitted as the task's body.
    pub fn body_of(&self, task: &str) -> Option<Bytes> {
        self.books().submissions.get(task).map(|known| known.body.clone())
    }

    /// A result leaves for the coordinator.
    pub fn sending(&self, task: &str, lease: &str, body: &Bytes) {
        let mut books = self.books();
        let sent = books.sent.entry((task.to_owned(), lease.to_owned())).or_default();
        if !sent.contains(body) {
            sent.push(body.clone());
        }
    }

    /// A delivery of a pull queue's ends.
    pub fn word(&self, task: &str, lease: &str, word: Word) {
        self.books().words.entry((task.to_owned(), lease.to_owned())).or_default().push(word);
    }

    pub fn answered(&self, verb: Verb, task: &str, lease: &str, body: &Bytes, answer: &Value) {
        let answer = Answer {
            verb,
            task: task.to_owned(),
            lease: lease.to_owned(),
            body: body.clone(),
            revision: answer["revision"].as_u64().unwrap_or_default(),
            phase: answer["phase"].as_str().unwrap_or_default().to_owned(),
            duplicate: answer["duplicate"].as_bool().unwrap_or_default(),
        };
        self.books().answers.push(answer);
    }

    pub fn refused(&self, verb: Verb, task: &str, lease: &str, body: &Bytes, code: u64) {
        let refusal = Refusal { verb, task: task.to_owned(), lease: lease.to_owned(), body: body.clone(), code };
        self.books().refusals.push(refusal);
    }
}
