//! What happens to messages whose worker dies, is slow or was away, as far as it shows from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::checks::{LONG_ACK_WAIT, acked, nanos, number, place, stream_of, subjects};
use super::finding::{Finding, Severity};
use super::snapshot::Snapshot;
use crate::cli::output::text;
use crate::types::subject::overlaps;

use Severity::{Note, Problem, Warning};

/// JetStream's own ack_wait: who has this or more has not thought of workers that die.
const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(30);
/// Subjects named one by one.
const SUBJECTS_SHOWN: usize = 3;

pub fn all(seen: &Snapshot, found: &mut Vec<Finding>) {
    not_examined(seen, found);
    dead_workers(seen, found);
    stale_acks(seen, found);
    retry_counts(seen, found);
    missed_while_away(seen, found);
    task_api_stored(seen, found);
}

/// What could not be read may hide anything.
fn not_examined(seen: &Snapshot, found: &mut Vec<Finding>) {
    for (place, reason) in &seen.unread {
        let text = format!("could not be examined: {reason}. Traps in it are not in this report.");
        let advice = "Give the doctor a user that may read it (and --monitor an address that answers), or ask again when the server is less busy.";
        found.push(Finding::new(Warning, "not-examined", place, text, advice));
    }
}

/// Work that is out, and comes back only when ack_wait is over should its worker die.
fn dead_workers(seen: &Snapshot, found: &mut Vec<Finding>) {
    for consumer in acked(seen) {
        let config = &consumer["config"];
        let (ack_wait, out) = (nanos(&config["ack_wait"]), number(consumer, "num_ack_pending"));
        let pulled = text(config, "deliver_subject").is_empty();
        let backoff = config["backoff"].as_array().is_some_and(|steps| !steps.is_empty());
        if !pulled || backoff || out == 0 || !(DEFAULT_ACK_WAIT..LONG_ACK_WAIT).contains(&ack_wait) {
            continue;
        }
        let text = format!(
            "{out} messages are out. Should their worker die, they wait {ack_wait:?} for the next one: the server sees the connection \
             close, but hands a message on only when ack_wait is over."
        );
        let advice = "Set ack_wait to a few seconds and send +WPI (in_progress) while working, or use a task queue: there the end of a \
                      connection is the end of the lease.";
        found.push(Finding::new(Note, "dead-worker-waits", place(consumer), text, advice));
    }
}

/// Messages that were given to a second worker while the first may still be at it.
fn stale_acks(seen: &Snapshot, found: &mut Vec<Finding>) {
    for consumer in acked(seen) {
        let again = number(consumer, "num_redelivered").min(number(consumer, "num_ack_pending"));
        if again == 0 {
            continue;
        }
        let text = format!(
            "{again} messages are out again: whoever had them before is not stopped, and its late ack counts, although another works on \
             them now. Both may finish the same work, and a nak of the second is then ignored."
        );
        let advice = "Make the work safe to do twice, and send +WPI (in_progress) before ack_wait is over. In a task queue each attempt has \
                      a lease, and what comes with an old one is refused with 409.";
        found.push(Finding::new(Note, "stale-ack", place(consumer), text, advice));
    }
}

/// A header that counts nothing.
fn retry_counts(seen: &Snapshot, found: &mut Vec<Finding>) {
    for (consumer, counts) in &seen.retry_counts {
        let Some((seq, value)) = counts.first() else { continue };
        let text = format!(
            "it delivers messages again, and those it has out carry Retry-Count (stream sequence {seq}: {value}): a nak or a passed \
             ack_wait delivers the stored message as it is, so the header never changes, and who gives up by it never does."
        );
        let advice = "Count by the delivery's own number (num_delivered of its metadata) or set max_deliver, or use a task queue: there \
                      attempts are counted, and what used them up is a dead letter.";
        found.push(Finding::new(Warning, "retry-count", place(consumer), text, advice));
    }
}

/// Clients that were away and came back, and what they subscribe to without anybody keeping it meanwhile.
fn missed_while_away(seen: &Snapshot, found: &mut Vec<Finding>) {
    let mut ended: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for closed in &seen.closed {
        if !text(closed, "name").is_empty() {
            *ended.entry((text(closed, "account"), text(closed, "name"))).or_default() += 1;
        }
    }
    // By what is not kept: many clients of one design subscribe to the same.
    let mut missed: BTreeMap<Vec<&str>, Vec<(&str, usize)>> = BTreeMap::new();
    for open in &seen.connections {
        let name = text(open, "name");
        let Some(times) = ended.get(&(text(open, "account"), name)).copied() else { continue };
        let subscribed = open["subscriptions_list"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let service = |subject: &str| {
            seen.endpoints.iter().any(|(_, endpoint)| overlaps(endpoint.as_bytes(), subject.as_bytes()))
        };
        let mut unkept: Vec<&str> = subscribed
            .filter(|subject| !subject.starts_with('$') && !subject.starts_with("_INBOX.") && *subject != ">")
            .filter(|subject| stream_of(seen, subject).is_none() && !service(subject))
            .collect();
        unkept.sort_unstable();
        unkept.dedup();
        if !unkept.is_empty() {
            missed.entry(unkept).or_default().push((name, times));
        }
    }
    for (subjects, clients) in missed {
        let (name, times) = &clients[0];
        let others = if clients.len() > 1 { format!(" and {} others", clients.len() - 1) } else { String::new() };
        let more = subjects.len().saturating_sub(SUBJECTS_SHOWN);
        let mut shown = subjects.iter().take(SUBJECTS_SHOWN).copied().collect::<Vec<_>>().join(", ");
        if more > 0 {
            shown.push_str(&format!(" and {more} more"));
        }
        let text = format!(
            "{name}{others} came back after {times} ended connections of that name, and listens to {shown}, which no stream stores: what \
             was published there meanwhile it has not heard and never will."
        );
        let advice = "Fine for what is only news. For what must arrive, store the subject in a stream and read it with a durable consumer, \
                      submit a task, or form a council, which is offered again until its seats are taken.";
        found.push(Finding::new(Note, "missed-while-away", format!("client {name}"), text, advice));
    }
}

/// Requests of the task API that a stream stores too.
fn task_api_stored(seen: &Snapshot, found: &mut Vec<Finding>) {
    for stream in &seen.streams {
        if !subjects(stream).any(|filter| overlaps(filter.as_bytes(), b"$TASK.API.>")) {
            continue;
        }
        let name = text(&stream["config"], "name");
        let acks = stream["config"]["no_ack"] != true;
        let first = if acks {
            "who submits a task gets the stream's PubAck as the first answer and takes it for the coordinator's"
        } else {
            "it keeps every request, leases among them, for whoever may read it"
        };
        let text = format!("it stores the requests to the task coordinator ($TASK.API.>): {first}.");
        let advice = "Take $TASK.API.> out of the stream's subjects (nats stream edit).";
        let severity = if acks { Problem } else { Warning };
        found.push(Finding::new(severity, "task-api-stored", format!("stream {name}"), text, advice));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(seen: &Snapshot, expected: &[(&str, Severity, &str)]) {
        let mut found = Vec::new();
        all(seen, &mut found);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (finding, (check, severity, text)) in found.iter().zip(expected) {
            assert_eq!((finding.check, finding.severity), (*check, *severity), "{finding:?}");
            assert!(finding.text.contains(text), "{finding:?}");
        }
    }

    #[test]
    fn what_was_not_read_is_no_clean_bill() {
        let mut seen = Snapshot::default();
        seen.unread("agents", "it hurts.\nmore");
        seen.unread("agents", "it hurts.");
        check(&seen, &[("not-examined", Warning, "could not be examined: it hurts. Traps")]);
    }

    #[test]
    fn workers_that_die_or_come_too_late() {
        let consumer = |ack_wait_s: u64, out: u64, again: u64| {
            json!({
                "stream_name": "S", "name": "c", "num_ack_pending": out, "num_redelivered": again,
                "config": { "ack_policy": "explicit", "ack_wait": ack_wait_s * 1_000_000_000 },
            })
        };
        let seen = |consumers: Vec<Value>| Snapshot { consumers, ..Snapshot::default() };
        check(&seen(vec![consumer(30, 0, 0), consumer(29, 1, 0)]), &[]);
        check(&seen(vec![consumer(30, 2, 0)]), &[("dead-worker-waits", Note, "2 messages are out")]);
        check(&seen(vec![consumer(5, 2, 1)]), &[("stale-ack", Note, "1 messages are out again")]);
        let counts = vec![(consumer(5, 0, 0), vec![(7, "0".to_owned())])];
        check(
            &Snapshot { retry_counts: counts, ..Snapshot::default() },
            &[("retry-count", Warning, "stream sequence 7: 0")],
        );
    }

    #[test]
    fn clients_that_come_back_have_missed_what_nobody_keeps() {
        let open = json!({"name": "agent-1", "account": "$G", "subscriptions_list": ["_INBOX.x", "chorus.councils.forming", "kept.a"]});
        let seen = |closed: &str| Snapshot {
            streams: vec![json!({"config": {"name": "K", "subjects": ["kept.>"]}})],
            connections: vec![open.clone()],
            closed: vec![json!({"name": closed, "account": "$G"})],
            ..Snapshot::default()
        };
        check(&seen("another"), &[]);
        check(&seen("agent-1"), &[("missed-while-away", Note, "listens to chorus.councils.forming, which no stream")]);
    }

    #[test]
    fn a_stream_over_the_task_api() {
        let seen = |subject: &str, no_ack: bool| Snapshot {
            streams: vec![json!({"config": {"name": "S", "subjects": [subject], "no_ack": no_ack}})],
            ..Snapshot::default()
        };
        check(&seen("$TASK.E.>", false), &[]);
        check(&seen("$TASK.API.SUBMIT", false), &[("task-api-stored", Problem, "PubAck as the first answer")]);
        check(&seen(">", true), &[("task-api-stored", Warning, "keeps every request")]);
    }
}
