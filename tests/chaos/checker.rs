//! The verdict: what the store holds and what clients were told, held against the state machine. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::councils::{self, Minutes};
use super::history::{Record, Revision};
use super::ledger::{Books, Verb, Word};
use super::table;
use super::worker::DELIVERIES;

/// A dead letter as it is stored.
#[derive(Clone, Debug, Default)]
pub struct DeadLetter {
    pub body: Bytes,
    pub error: String,
}

/// A result as it arrived where `Task-Result-To` wanted it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub subject: String,
    /// `Nats-Msg-Id`, which names the task and its run.
    pub id: String,
    pub body: Bytes,
}

/// A stretch of the stream in which an agent was to be given nothing.
#[derive(Clone, Debug)]
pub struct Drain {
    pub agent: String,
    pub from: u64,
    pub to: u64,
}

/// All there is to know of a world that has come to rest.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub books: Books,
    pub history: BTreeMap<String, Vec<Revision>>,
    /// What AWAIT answers now, for the tasks that are completed.
    pub results: BTreeMap<String, Bytes>,
    /// How many results were ever stored, by task.
    pub results_stored: BTreeMap<String, u64>,
    pub dead_letters: BTreeMap<String, DeadLetter>,
    pub sent: Vec<Sent>,
    /// Subjects of assignments and pull items that are still stored.
    pub leftovers: Vec<String>,
    /// Slots that are taken, by agent.
    pub taken: Vec<(String, u64)>,
    /// Tasks that count as open and as running, by queue.
    pub open: Vec<(String, u64, u64)>,
    pub drains: Vec<Drain>,
    pub councils: Minutes,
}

/// One sentence for everything that must not be.
pub fn violations(evidence: &Evidence) -> Vec<String> {
    let mut wrong = evidence.books.wrong.clone();
    for (task, history) in &evidence.history {
        let pulled = history.first().is_some_and(|first| first.record.mode == "pull");
        wrong.extend(if pulled { walk_pulled(task, history) } else { walk(task, history) });
    }
    wrong.extend(acks(evidence));
    wrong.extend(drains(evidence));
    wrong.extend(answers(evidence));
    wrong.extend(completions(evidence));
    wrong.extend(submissions(evidence));
    wrong.extend(endings(evidence));
    wrong.extend(rest(evidence));
    wrong.extend(councils::violations(&evidence.councils));
    wrong
}

/// Each revision follows from the one before: what holds for every task, and what `rules` say of each step. They get the
/// record before, the one after, and whether it begins anew.
fn follow(
    task: &str,
    history: &[Revision],
    (may_follow, no_edge): (fn(&str, &str) -> bool, &str),
    mut rules: impl FnMut(&Record, &Record, bool, &mut dyn FnMut(String)),
) -> Vec<String> {
    let mut wrong = Vec::new();
    let nothing = Record { phase: "-".to_owned(), run: 1, ..Record::default() };
    let mut before = &nothing;
    for Revision { seq, record } in history {
        let (from, to) = (before.phase.as_str(), record.phase.as_str());
        let mut say = |what: String| wrong.push(format!("{task}@{seq} ({from} -> {to}): {what}"));
        if !may_follow(from, to) {
            say(no_edge.to_owned());
        }
        if table::state_of(to) != Some(&record.state) {
            say(format!("its state is {}", record.state));
        }
        let again = table::is_final(from) && !table::is_final(to);
        if record.run != before.run + u64::from(again) {
            say(format!("run {} after {}", record.run, before.run));
        }
        rules(before, record, again, &mut say);
        before = record;
    }
    wrong
}

fn walk(task: &str, history: &[Revision]) -> Vec<String> {
    let mut leases = BTreeSet::new();
    follow(task, history, (table::may_follow, "no such edge"), |before, record, again, say| {
        let (from, to) = (before.phase.as_str(), record.phase.as_str());
        if record.attempt > record.max_attempts {
            say(format!("attempt {} of {}", record.attempt, record.max_attempts));
        }
        // Back in line, also after an answer: what comes then is the same attempt again.
        let returned = table::is_leased(from) && matches!(to, "queued" | "rejected");
        let attempts = match to {
            "assigned" => vec![before.attempt + 1],
            _ if again => vec![0],
            // An agent's loss counts once it had the task; DECLINE and an accept timeout do not.
            _ if returned => vec![before.attempt, before.attempt.saturating_sub(1)],
            _ => vec![before.attempt],
        };
        if !attempts.contains(&record.attempt) {
            say(format!("attempt {} after {}", record.attempt, before.attempt));
        }
        if table::is_leased(to) == record.lease.is_empty() {
            say(format!("its lease is {:?}", record.lease));
        }
        if to == "assigned" && !leases.insert(record.lease.clone()) {
            say("a lease is given twice".to_owned());
        }
        if (matches!(to, "running" | "cancelling") || table::is_parked(to)) && record.lease != before.lease {
            say("the lease changes in an attempt".to_owned());
        }
        if from != "completed" && to == "completed" {
            let lease = record.completion.as_ref().map_or("", |completion| &completion.lease);
            if lease.is_empty() || lease != before.lease {
                say(format!("completed by lease {lease:?} while {:?} holds", before.lease));
            }
        }
    })
}

/// Of a task that workers pull: the lease is the run's, and attempts are the deliveries that are known of.
fn walk_pulled(task: &str, history: &[Revision]) -> Vec<String> {
    let mut leases = BTreeSet::new();
    follow(task, history, (table::may_follow_pulled, "no such edge of a pulled task"), |before, record, again, say| {
        let to = record.phase.as_str();
        let begins = again || before.phase == "-";
        if (begins && record.attempt > 0) || (!begins && record.attempt < before.attempt) {
            say(format!("delivery {} after {}", record.attempt, before.attempt));
        }
        if record.attempt > DELIVERIES || (to == "running" && record.attempt == 0) {
            say(format!("delivery {} of {DELIVERIES}", record.attempt));
        }
        if begins && (record.lease.is_empty() || !leases.insert(record.lease.clone())) {
            say(format!("a run begins with the lease {:?}", record.lease));
        }
        if !begins && record.lease != before.lease {
            say("the lease changes in a run".to_owned());
        }
        let lease = record.completion.as_ref().map_or("", |completion| &completion.lease);
        if to == "completed" && lease != record.lease {
            say(format!("completed by lease {lease:?} in the run of {:?}", record.lease));
        }
    })
}

/// A worker's ack that the broker knows of completes the task, unless it was over already. Where another worker said
/// something else of the same run, either may have been first.
fn acks(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((task, lease), words) in &evidence.books.words {
        if !words.contains(&Word::Acked) || words.contains(&Word::Other) {
            continue;
        }
        let history = evidence.history.get(task).map(Vec::as_slice).unwrap_or_default();
        let last = history.iter().rev().map(|revision| &revision.record).find(|record| record.lease == *lease);
        let Some(last) = last else {
            wrong.push(format!("{task}: a worker was given the lease {lease}, which no run has"));
            continue;
        };
        let over = last.phase == "canceled"
            || (last.phase == "dead" && (last.reason == "deadline" || last.attempt >= DELIVERIES));
        if last.phase != "completed" && !over {
            wrong.push(format!("{task}: it was acked and is not completed: {words:?}, {last:?}"));
        }
    }
    wrong
}

/// Who drains is given nothing new.
fn drains(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for Drain { agent, from, to } in &evidence.drains {
        for (task, history) in &evidence.history {
            let mut before = "";
            for Revision { seq, record } in history {
                let given = record.phase == "assigned" && record.agent == *agent && record.lease != before;
                if given && from < seq && seq <= to {
                    wrong.push(format!("{task}@{seq}: it was given to {agent}, which drains from {from} to {to}"));
                }
                before = &record.lease;
            }
        }
    }
    wrong
}

/// What was acknowledged is in the history, at the revision that the answer named, by the lease that held then.
fn answers(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut created = BTreeSet::new();
    for answer in &evidence.books.answers {
        let mut say = |what: &str| wrong.push(format!("{}: {what}: {answer:?}", answer.task));
        let history = evidence.history.get(&answer.task).map(Vec::as_slice).unwrap_or_default();
        let Some(at) = history.iter().position(|revision| revision.seq == answer.revision) else {
            say("an acknowledged step is not in the history");
            continue;
        };
        let record = &history[at].record;
        let seen_running = answer.phase == "running" && record.phase == "assigned";
        if answer.phase != record.phase && !seen_running {
            say("the history has another phase there");
        }
        let before = at.checked_sub(1).map(|at| &history[at].record);
        let holds = before.is_some_and(|before| before.lease == answer.lease && table::is_leased(&before.phase));
        match answer.verb {
            Verb::Complete => {
                let by = record.completion.as_ref().map(|completion| completion.lease.as_str());
                if record.phase != "completed" || by != Some(&answer.lease) {
                    say("a completion was accepted that the history does not have");
                }
            }
            Verb::Fail | Verb::Decline | Verb::Input if !holds && !table::is_parked(&record.phase) => {
                say("accepted with a lease that did not hold")
            }
            Verb::Input if record.lease != answer.lease && record.phase != "canceled" => {
                say("asked with another lease")
            }
            Verb::Answer if table::is_parked(&record.phase) => say("not answered by that"),
            Verb::Fail | Verb::Decline if record.phase == "completed" => say("it is completed by that"),
            Verb::Submit if !answer.duplicate && !created.insert(&answer.task) => say("it was submitted anew twice"),
            Verb::Cancel if !matches!(record.phase.as_str(), "canceled" | "cancelling") => say("not canceled by that"),
            Verb::Requeue if table::is_final(&record.phase) => say("not requeued by that"),
            _ => {}
        }
    }
    wrong
}

/// One completion and one result for a task, the same for whoever asks; the same again is fine.
fn completions(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    let books = &evidence.books;
    let mut accepted: BTreeMap<&str, BTreeSet<(&str, &Bytes)>> = BTreeMap::new();
    for answer in books.answers.iter().filter(|answer| answer.verb == Verb::Complete) {
        accepted.entry(&answer.task).or_default().insert((&answer.lease, &answer.body));
    }
    for (task, by) in accepted.iter().filter(|(_, by)| by.len() > 1) {
        wrong.push(format!("{task}: {} completions were accepted: {by:?}", by.len()));
    }
    for (task, history) in &evidence.history {
        let Some(completion) = history.last().and_then(|last| last.record.completion.as_ref()) else { continue };
        let stored = evidence.results_stored.get(task).copied().unwrap_or_default();
        if stored != 1 {
            wrong.push(format!("{task}: {stored} results are stored"));
        }
        let Some(result) = evidence.results.get(task) else {
            wrong.push(format!("{task}: it is completed and AWAIT has no result"));
            continue;
        };
        let sent = books.sent.get(&(task.clone(), completion.lease.clone()));
        if !sent.is_some_and(|sent| sent.contains(result)) {
            wrong.push(format!("{task}: its result {result:?} was never sent with lease {}", completion.lease));
        }
        let accepted = accepted.get(task.as_str()).into_iter().flatten();
        for (lease, body) in accepted.filter(|(lease, body)| *lease != completion.lease || *body != result) {
            wrong.push(format!("{task}: {body:?} of lease {lease} was accepted, and its result is {result:?}"));
        }
        for refusal in books.refusals.iter().filter(|refusal| refusal.verb == Verb::Complete && refusal.task == *task) {
            if refusal.lease == completion.lease && refusal.body == *result {
                wrong.push(format!("{task}: its own completion was refused ({})", refusal.code));
            }
        }
    }
    for (task, result) in &books.awaited {
        if evidence.results.get(task) != Some(result) {
            wrong.push(format!("{task}: AWAIT once told {result:?}, now {:?}", evidence.results.get(task)));
        }
    }
    wrong
}

/// What was acknowledged is there and has come to its end; what is there was submitted.
fn submissions(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for (task, submission) in evidence.books.submissions.iter().filter(|(_, submission)| submission.acknowledged) {
        if !evidence.history.contains_key(task) {
            wrong.push(format!("{task} is lost: {submission:?}"));
        }
    }
    for (task, history) in &evidence.history {
        let Some(last) = history.last() else { continue };
        if !table::is_final(&last.record.phase) {
            let phases: Vec<_> = history.iter().map(|revision| revision.record.phase.as_str()).collect();
            wrong.push(format!("{task} is stuck: {phases:?}, {:?}", last.record));
        }
    }
    wrong
}

/// Dead letters and results that are sent on belong to how the tasks ended.
fn endings(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for task in evidence.dead_letters.keys().filter(|task| !evidence.history.contains_key(*task)) {
        wrong.push(format!("{task}: a dead letter without a task"));
    }
    for (task, history) in &evidence.history {
        let Some(record) = history.last().map(|last| &last.record) else { continue };
        let submission = evidence.books.submissions.get(task);
        match (evidence.dead_letters.get(task), record.phase == "dead") {
            (None, true) => wrong.push(format!("{task}: it is dead and there is no letter")),
            (Some(_), false) => wrong.push(format!("{task}: it is {} and there is a dead letter", record.phase)),
            (Some(letter), true) => {
                let whole = submission.is_none_or(|submission| submission.body == letter.body);
                if !whole || letter.error.is_empty() {
                    wrong.push(format!("{task}: its dead letter is {letter:?}"));
                }
            }
            (None, false) => {}
        }
        let Some(to) = submission.and_then(|submission| submission.header("Task-Result-To")) else { continue };
        if !matches!(record.phase.as_str(), "completed" | "dead") {
            continue;
        }
        let id = format!("task.{task}.{}", record.run);
        let arrived: Vec<&Sent> = evidence.sent.iter().filter(|sent| sent.id == id && sent.subject == to).collect();
        if arrived.is_empty() {
            wrong.push(format!("{task}: its result never came to {to}"));
        }
        if record.phase == "completed" && arrived.iter().any(|sent| Some(&sent.body) != evidence.results.get(task)) {
            wrong.push(format!("{task}: another result came to {to}"));
        }
    }
    wrong
}

/// Nothing is held for tasks that are over.
fn rest(evidence: &Evidence) -> Vec<String> {
    let left = evidence.leftovers.iter().map(|subject| format!("{subject} is still stored"));
    let taken = evidence.taken.iter().filter(|(_, taken)| *taken > 0);
    let taken = taken.map(|(agent, taken)| format!("{taken} slots of {agent} are taken"));
    let open = evidence.open.iter().filter(|(_, open, running)| open + running > 0);
    let open =
        open.map(|(queue, open, running)| format!("{open} tasks of {queue} count as open, {running} as running"));
    left.chain(taken).chain(open).collect()
}

#[cfg(test)]
mod tests {
    use super::super::history::Completion;
    use super::super::ledger::{Answer, Refusal, Submission, Word};
    use super::*;

    /// A task's history from `phase[:lease[:attempt]]`, at sequences 10, 20, ...
    fn history(task: &str, steps: &[(&str, &str, u64)]) -> Vec<Revision> {
        let mut completion = None;
        let mut before = "";
        let record = |(at, (phase, lease, attempt)): (usize, &(&str, &'static str, u64))| {
            if *phase == "completed" {
                completion = Some(Completion { lease: before.to_owned() });
            }
            before = lease;
            let record = Record {
                id: task.to_owned(),
                queue: "q".to_owned(),
                state: table::state_of(phase).unwrap_or_default().to_owned(),
                phase: (*phase).to_owned(),
                run: 1,
                attempt: *attempt,
                max_attempts: 2,
                lease: (*lease).to_owned(),
                agent: "ann".to_owned(),
                completion: completion.clone(),
                ..Record::default()
            };
            Revision { seq: (at as u64 + 1) * 10, record }
        };
        let steps: Vec<(&str, &'static str, u64)> =
            steps.iter().map(|(phase, lease, attempt)| (*phase, &*lease.to_string().leak(), *attempt)).collect();
        steps.iter().enumerate().map(record).collect()
    }

    fn answer(verb: Verb, task: &str, lease: &str, body: &'static str, revision: u64, phase: &str) -> Answer {
        let (task, lease, phase) = (task.to_owned(), lease.to_owned(), phase.to_owned());
        Answer { verb, task, lease, body: Bytes::from_static(body.as_bytes()), revision, phase, duplicate: false }
    }

    /// A pull queue's task: given up in its first run, in its second acked at the second delivery.
    fn pulled(evidence: &mut Evidence) {
        let steps = [("queued", "P", 0), ("running", "P", 1), ("dead", "P", 2)];
        let again = [("queued", "Q", 0), ("running", "Q", 1), ("running", "Q", 2), ("completed", "Q", 2)];
        let mut history = history("p", &[&steps[..], &again[..]].concat());
        for (at, revision) in history.iter_mut().enumerate() {
            revision.record.mode = "pull".to_owned();
            revision.record.run = if at < steps.len() { 1 } else { 2 };
        }
        evidence.history.insert("p".to_owned(), history);
        evidence.results.insert("p".to_owned(), Bytes::new());
        evidence.results_stored.insert("p".to_owned(), 1);
        let books = &mut evidence.books;
        books.submissions.insert("p".to_owned(), Submission { acknowledged: true, ..Submission::default() });
        books.sent.insert(("p".into(), "Q".into()), vec![Bytes::new()]);
        books.words.insert(("p".into(), "P".into()), vec![Word::Acked, Word::Other]);
        books.words.insert(("p".into(), "Q".into()), vec![Word::Unsure, Word::Acked]);
    }

    /// One task that failed once and is completed, one that is dead, one that workers pull.
    fn good() -> Evidence {
        let mut evidence = Evidence::default();
        let done = [("queued", "", 0), ("assigned", "A", 1), ("backing-off", "", 1), ("queued", "", 1)];
        let done = [&done[..], &[("assigned", "B", 2), ("running", "B", 2), ("completed", "", 2)]].concat();
        evidence.history.insert("t".to_owned(), history("t", &done));
        let dead = [("assigned", "C", 1), ("dead", "", 1)];
        evidence.history.insert("d".to_owned(), history("d", &dead));
        let result = Bytes::from_static(b"result");
        evidence.results.insert("t".to_owned(), result.clone());
        evidence.results_stored.insert("t".to_owned(), 1);
        let letter = DeadLetter { body: Bytes::from_static(b"body"), error: "boom".to_owned() };
        evidence.dead_letters.insert("d".to_owned(), letter);
        evidence.sent.push(Sent { subject: "results.t".into(), id: "task.t.1".into(), body: result.clone() });
        evidence.taken.push(("ann".into(), 0));
        evidence.open.push(("q".into(), 0, 0));
        let books = &mut evidence.books;
        for task in ["t", "d"] {
            let headers = if task == "t" { vec![("Task-Result-To", "results.t".to_owned())] } else { Vec::new() };
            let body = Bytes::from_static(b"body");
            let submission = Submission { headers, body, acknowledged: true, refused: false };
            books.submissions.insert(task.to_owned(), submission);
        }
        books.sent.insert(("t".into(), "B".into()), vec![result.clone()]);
        books.awaited.push(("t".into(), result.clone()));
        books.answers = vec![
            answer(Verb::Submit, "t", "", "", 10, "queued"),
            answer(Verb::Fail, "t", "A", "", 30, "backing-off"),
            answer(Verb::Get, "t", "", "", 50, "running"),
            answer(Verb::Complete, "t", "B", "result", 70, "completed"),
            answer(Verb::Complete, "t", "B", "result", 70, "completed"),
        ];
        let (task, lease) = ("t".to_owned(), "A".to_owned());
        books.refusals.push(Refusal { verb: Verb::Complete, task, lease, body: result, code: 30409 });
        // Between the two assignments of `t`.
        evidence.drains.push(Drain { agent: "ann".into(), from: 20, to: 49 });
        pulled(&mut evidence);
        evidence
    }

    #[test]
    fn what_is_as_it_should_be_passes() {
        assert_eq!(violations(&good()), [""; 0]);
    }

    #[test]
    fn every_planted_violation_is_found() {
        let check = |expected: &str, plant: &dyn Fn(&mut Evidence)| {
            let mut evidence = good();
            plant(&mut evidence);
            let found = violations(&evidence);
            assert!(found.iter().any(|found| found.contains(expected)), "{expected:?} is not among {found:#?}");
        };
        // The history by itself.
        check("no such edge", &|e| drop(e.history.get_mut("t").unwrap().remove(4)));
        check("its state is working", &|e| e.history.get_mut("t").unwrap()[0].record.state = "working".into());
        check("attempt 3 of 2", &|e| e.history.get_mut("t").unwrap()[6].record.attempt = 3);
        check("attempt 1 after 1", &|e| e.history.get_mut("t").unwrap()[4].record.attempt = 1);
        check("run 2 after 1", &|e| e.history.get_mut("t").unwrap()[3].record.run = 2);
        check("its lease is", &|e| e.history.get_mut("t").unwrap()[1].record.lease.clear());
        check("a lease is given twice", &|e| e.history.get_mut("t").unwrap()[4].record.lease = "A".into());
        check("the lease changes", &|e| e.history.get_mut("t").unwrap()[5].record.lease = "X".into());
        let stale = Completion { lease: "A".into() };
        check("completed by lease \"A\" while \"B\" holds", &|e| {
            e.history.get_mut("t").unwrap()[6].record.completion = Some(stale.clone());
        });
        // What workers pull.
        let pulled = |e: &mut Evidence, at: usize, set: &dyn Fn(&mut Record)| {
            set(&mut e.history.get_mut("p").unwrap()[at].record);
        };
        check("no such edge of a pulled task", &|e| pulled(e, 1, &|record| record.phase = "assigned".into()));
        check("p@20 (queued -> running): its state is submitted", &|e| {
            pulled(e, 1, &|record| record.state = "submitted".into());
        });
        check("p@40 (dead -> queued): run 1 after 1", &|e| pulled(e, 3, &|record| record.run = 1));
        check("delivery 1 after 2", &|e| pulled(e, 6, &|record| record.attempt = 1));
        check("delivery 2 after 2", &|e| pulled(e, 3, &|record| record.attempt = 2));
        check("delivery 7 of 6", &|e| pulled(e, 6, &|record| record.attempt = 7));
        check("delivery 0 of 6", &|e| pulled(e, 4, &|record| record.attempt = 0));
        check("a run begins with the lease \"\"", &|e| pulled(e, 0, &|record| record.lease.clear()));
        check("a run begins with the lease \"P\"", &|e| pulled(e, 3, &|record| record.lease = "P".into()));
        check("the lease changes in a run", &|e| pulled(e, 4, &|record| record.lease = "X".into()));
        check("completed by lease \"A\" in the run of \"Q\"", &|e| {
            pulled(e, 6, &|record| record.completion = Some(stale.clone()));
        });
        check("it was acked and is not completed", &|e| {
            pulled(e, 6, &|record| (record.phase, record.reason) = ("dead".into(), "no use".into()));
        });
        check("which no run has", &|e| {
            e.books.words.insert(("p".into(), "R".into()), vec![Word::Acked]);
        });
        check("p: its result b\"\" was never sent", &|e| drop(e.books.sent.remove(&("p".into(), "Q".into()))));
        // Drains.
        check("t@50: it was given to ann", &|e| e.drains[0].to = 50);
        check("t@20: it was given to ann", &|e| e.drains[0].from = 19);
        // What clients were told.
        check("not in the history", &|e| e.books.answers[0].revision = 11);
        check("another phase", &|e| e.books.answers[0].phase = "completed".into());
        check("that the history does not have", &|e| e.books.answers[3].lease = "A".into());
        check("a lease that did not hold", &|e| e.books.answers[1].lease = "B".into());
        check("submitted anew twice", &|e| e.books.answers.push(e.books.answers[0].clone()));
        check("not canceled by that", &|e| e.books.answers[0].verb = Verb::Cancel);
        check("not requeued by that", &|e| e.books.answers[3].verb = Verb::Requeue);
        check("2 completions were accepted", &|e| e.books.answers[4].body = Bytes::from_static(b"other"));
        check("its own completion was refused", &|e| e.books.refusals[0].lease = "B".into());
        check("AWAIT once told", &|e| e.books.awaited[0].1 = Bytes::from_static(b"other"));
        check("seen by a client", &|e| e.books.wrong.push("seen by a client".into()));
        // Results.
        check("2 results are stored", &|e| {
            e.results_stored.insert("t".into(), 2);
        });
        check("AWAIT has no result", &|e| e.results.clear());
        check("was never sent", &|e| e.books.sent.clear());
        check("was accepted, and its result is", &|e| drop(e.results.insert("t".into(), Bytes::from_static(b"other"))));
        check("never came to results.t", &|e| e.sent.clear());
        check("another result came", &|e| e.sent[0].body = Bytes::from_static(b"other"));
        // Tasks.
        check("t is lost", &|e| drop(e.history.remove("t")));
        check("t is stuck", &|e| e.history.get_mut("t").unwrap().truncate(5));
        check("there is no letter", &|e| e.dead_letters.clear());
        check("there is a dead letter", &|e| drop(e.dead_letters.insert("t".into(), DeadLetter::default())));
        check("its dead letter is", &|e| e.dead_letters.get_mut("d").unwrap().body = Bytes::new());
        check("without a task", &|e| drop(e.dead_letters.insert("x".into(), DeadLetter::default())));
        // What is held.
        check("is still stored", &|e| e.leftovers.push("$KV.TASK.a.ann.t".into()));
        check("1 slots of ann", &|e| e.taken[0].1 = 1);
        check("count as open", &|e| e.open[0].1 = 1);
    }
}
