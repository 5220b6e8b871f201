//! The proof: what the broker has on disk against what the agents saw.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ledger::Ledger;
use crate::cli::connection::api_error;
use crate::client::Client;
use crate::types::header::HeaderBuilder;

/// Questions under way at once.
const ASKED_AT_ONCE: usize = 32;
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What is known of one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// The record's state, empty when there is no record.
    pub state: String,
    /// The lease whose completion the record says was accepted.
    pub lease: String,
    /// Attempts begun.
    pub attempts: u64,
    /// Whether the result is the right one for this task.
    pub right: bool,
    /// How many results were ever stored under its key; `None` when the store could not be asked.
    pub results_stored: Option<u64>,
    /// Leases whose completion was accepted, by the agents' ledger.
    pub accepted: Vec<String>,
}

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub tasks: usize,
    pub completed: usize,
    pub right: usize,
    /// Tasks with one stored result.
    pub stored_once: usize,
    /// Tasks whose accepted completions, by ledger and record, are one and the same lease.
    pub accepted_once: usize,
    pub attempts: u64,
    /// One sentence per task that is not as it should be.
    pub wrong: Vec<String>,
}

impl Verdict {
    pub fn proved(&self) -> bool {
        self.wrong.is_empty() && self.tasks > 0
    }

    pub fn judge(evidence: &[(String, Evidence)]) -> Verdict {
        let mut verdict = Verdict { tasks: evidence.len(), ..Verdict::default() };
        for (task, found) in evidence {
            let completed = found.state == "completed";
            // An agent that died after its completion was accepted never learned of it: none in the ledger is fine.
            let accepted_once = completed && found.accepted.iter().all(|lease| *lease == found.lease);
            let stored_once = found.results_stored == Some(1);
            verdict.completed += usize::from(completed);
            verdict.right += usize::from(found.right);
            verdict.accepted_once += usize::from(accepted_once);
            verdict.stored_once += usize::from(stored_once);
            verdict.attempts += found.attempts;
            let fault = if found.state.is_empty() {
                Some("is lost: the coordinator knows nothing of it".to_owned())
            } else if !completed {
                Some(format!("is stuck: its state is {}", found.state))
            } else if !accepted_once {
                Some(format!("was completed more than once: leases {:?}, record {}", found.accepted, found.lease))
            } else if !found.right {
                Some("has a wrong result".to_owned())
            } else if !stored_once {
                Some(format!("has {:?} stored results instead of one", found.results_stored))
            } else {
                None
            };
            verdict.wrong.extend(fault.map(|fault| format!("{task} {fault}")));
        }
        verdict
    }
}

/// Asks the broker about every task; number `n`'s result is right when it is `n`'s square.
pub async fn gather(
    client: &Client,
    tasks: Vec<(String, u64)>,
    ledger: &Ledger,
    patience: Duration,
) -> Vec<(String, Evidence)> {
    let stored = stored_results(client).await;
    let places = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    let mut asking = JoinSet::new();
    for (index, (task, n)) in tasks.into_iter().enumerate() {
        let accepted = ledger.accepted(&task);
        let (client, places) = (client.clone(), places.clone());
        asking.spawn(async move {
            let _place = places.acquire_owned().await;
            let mut found = ask(&client, &task, n, patience).await;
            found.accepted = accepted;
            (index, task, found)
        });
    }
    let mut evidence = asking.join_all().await;
    evidence.sort_by_key(|(index, ..)| *index);
    // Tasks that were still open when the results were first counted.
    let counted_again =
        if evidence.iter().any(|(_, task, _)| !stored.contains(task)) { stored_results(client).await } else { stored };
    evidence
        .into_iter()
        .map(|(_, task, mut found)| {
            found.results_stored = counted_again.of(&task);
            (task, found)
        })
        .collect()
}

async fn ask(client: &Client, task: &str, n: u64, patience: Duration) -> Evidence {
    let mut found = Evidence::default();
    let wait = HeaderBuilder::new().add("Task-Wait", format!("{}s", patience.as_secs_f64())).build();
    let awaited =
        client.request_message(&format!("$TASK.API.AWAIT.{task}"), &wait, b"", patience + ANSWER_DEADLINE).await;
    if let Ok(answer) = awaited
        && api_error(&answer).is_none()
    {
        let result: Value = serde_json::from_slice(answer.payload()).unwrap_or_default();
        found.right = result["n"] == json!(n) && result["square"] == json!(n * n);
    }
    // As it is stored: GET keeps leases to itself.
    if let Ok(Some(entry)) = client.kv_get("TASK", &format!("s.{task}")).await {
        let record: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        found.state = record["state"].as_str().unwrap_or_default().to_owned();
        found.lease = record["completion"]["lease"].as_str().unwrap_or_default().to_owned();
        found.attempts = record["attempt"].as_u64().unwrap_or_default();
    }
    found
}

/// How many messages the task bucket's stream ever kept per result key. Its history is longer than one, so a second
/// completion would leave a second message.
struct StoredResults {
    counts: Option<serde_json::Map<String, Value>>,
}

const RESULT_KEYS: &str = "$KV.TASK.r.";

impl StoredResults {
    fn contains(&self, task: &str) -> bool {
        self.of(task).is_some_and(|count| count > 0)
    }

    fn of(&self, task: &str) -> Option<u64> {
        let counts = self.counts.as_ref()?;
        Some(counts.get(&format!("{RESULT_KEYS}{task}")).and_then(Value::as_u64).unwrap_or(0))
    }
}

async fn stored_results(client: &Client) -> StoredResults {
    let request = json!({"subjects_filter": format!("{RESULT_KEYS}>")});
    let info: Result<Value, _> = client.api("STREAM.INFO.KV_TASK", &request).await;
    let counts = info.ok().map(|info| info["state"]["subjects"].as_object().cloned().unwrap_or_default());
    StoredResults { counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exactly_once_passes() {
        let good = || Evidence {
            state: "completed".into(),
            lease: "l1".into(),
            attempts: 1,
            right: true,
            results_stored: Some(1),
            accepted: vec!["l1".into()],
        };
        let check = |found: Evidence, expected: &str| {
            let verdict = Verdict::judge(&[("t".into(), found)]);
            assert_eq!(verdict.proved(), expected.is_empty());
            assert_eq!(verdict.wrong.join(""), expected);
        };
        check(good(), "");
        check(Evidence { accepted: Vec::new(), ..good() }, "");
        check(Evidence { state: String::new(), ..good() }, "t is lost: the coordinator knows nothing of it");
        check(Evidence { state: "working".into(), ..good() }, "t is stuck: its state is working");
        check(
            Evidence { accepted: vec!["l1".into(), "l2".into()], ..good() },
            "t was completed more than once: leases [\"l1\", \"l2\"], record l1",
        );
        check(Evidence { right: false, ..good() }, "t has a wrong result");
        check(Evidence { results_stored: Some(2), ..good() }, "t has Some(2) stored results instead of one");
        assert!(!Verdict::judge(&[]).proved(), "nothing proves nothing");
    }
}
