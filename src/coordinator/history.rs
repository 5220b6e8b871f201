//! A task's audit trail: what happened between one stored record and the next, in words and fields, without the lease.

use serde_json::{Value, json};

use super::question::Question;
use super::record::{Descendants, Phase, Record};

/// Tells of one change: `record` is what was stored as `revision`, `before` the record it replaced, if that is still known.
pub fn change(before: Option<&Record>, record: &Record, revision: u64) -> Value {
    let fault = record.fault.as_ref().filter(|fault| before.is_none_or(|before| before.fault.as_ref() != Some(*fault)));
    // Of a task that came back, the agent it came back from.
    let from = before.map(|before| before.agent.as_str()).unwrap_or_default();
    let agent = match (record.agent.as_str(), fault) {
        ("", Some(fault)) => fault.agent.as_str(),
        ("", None) => from,
        (agent, _) => agent,
    };
    let mut told = json!({
        "change": record.change, "revision": revision, "time": record.updated, "what": what(before, record, agent),
        "state": record.state, "phase": record.phase, "run": record.run, "attempt": record.attempt,
    });
    if !agent.is_empty() {
        told["agent"] = agent.into();
    }
    if !record.reason.is_empty() {
        told["reason"] = record.reason.as_str().into();
    }
    if let Some(fault) = fault.filter(|_| record.phase != Phase::Completed) {
        told["error"] = fault.error.as_str().into();
        told["attempt"] = fault.attempt.into();
    }
    if matches!(record.phase, Phase::Scheduled | Phase::BackingOff) {
        told["until"] = json!(record.wake);
    }
    if let Some(question) = record.questions.last().filter(|_| record.phase.is_parked() || record.resumes().is_some()) {
        let Question { number, question, answer, .. } = question.shown();
        told["number"] = number.into();
        told["question"] = question.into();
        if let Some(answer) = answer {
            told["answer"] = answer.into();
        }
    }
    told
}

fn what(before: Option<&Record>, record: &Record, agent: &str) -> String {
    let by = |text: &str| if agent.is_empty() { text.to_owned() } else { format!("{text} by {agent}") };
    let because = |text: &str| match record.reason.as_str() {
        "" => text.to_owned(),
        reason => format!("{text}: {reason}"),
    };
    let was = before.map(|before| before.phase);
    if record.run > before.map_or(record.run, |before| before.run) {
        return format!("requeued for run {}", record.run);
    }
    if was == Some(record.phase)
        && let Some(before) = before
    {
        return match (record.descendants, record.phase) {
            (Descendants::Done, _) if before.descendants.are_due() => "its descendants are canceled".to_owned(),
            (descendants, _) if descendants.are_due() && !before.descendants.are_due() => {
                "its descendants are to be canceled".to_owned()
            }
            _ if before.result_due && !record.result_due => "the result was sent".to_owned(),
            (_, Phase::Running) => "delivered again".to_owned(),
            _ => "changed".to_owned(),
        };
    }
    match record.phase {
        Phase::Queued if record.resumes().is_some() && was.is_none_or(Phase::is_parked) => "answered".to_owned(),
        Phase::Queued => match (was, before) {
            (None, _) if record.change <= 1 => "submitted".to_owned(),
            (Some(Phase::Scheduled), _) => "its time has come".to_owned(),
            (Some(Phase::Blocked), _) => "all tasks it came after are completed".to_owned(),
            (Some(Phase::BackingOff), _) => "due for another attempt".to_owned(),
            (Some(_), Some(before)) if record.excluded.len() > before.excluded.len() => by("declined"),
            (Some(Phase::Assigned), _) => format!("not fetched by {agent}, queued again"),
            (Some(Phase::Running), _) => "the attempt failed, queued again".to_owned(),
            _ => "queued".to_owned(),
        },
        Phase::Scheduled if record.change <= 1 => "submitted for later".to_owned(),
        Phase::Scheduled => "scheduled".to_owned(),
        Phase::Blocked if record.change <= 1 => format!("submitted, comes after {}", record.after.join(", ")),
        Phase::Blocked => format!("comes after {}", record.after.join(", ")),
        Phase::BackingOff => "the attempt failed, another is to come".to_owned(),
        Phase::Assigned if record.change <= 1 => format!("submitted, and assigned to {agent}"),
        Phase::Assigned => format!("assigned to {agent}"),
        Phase::Running if agent.is_empty() => "delivered to a worker".to_owned(),
        Phase::Running => format!("delivered to {agent}"),
        Phase::InputRequired => by("a question was asked"),
        Phase::AuthRequired => by("an authorization was asked for"),
        Phase::Cancelling => because(&format!("{agent} was told to stop")),
        Phase::Completed => by("completed"),
        Phase::Dead => because("given up"),
        Phase::Canceled => because("canceled"),
        Phase::Rejected => because("rejected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::backoff::Backoff;
    use crate::coordinator::random::Random;
    use crate::coordinator::task::{Context, Event};
    use crate::types::Timestamp;

    #[test]
    fn a_life_is_told_change_by_change() {
        let mut random = Random::new(1);
        let mut now = Timestamp(1_000_000_000_000);
        let mut record = Record { id: "t".into(), run: 1, max_attempts: 2, change: 1, ..Record::default() };
        let mut told = vec![change(None, &record, 1)];
        let lease = || "secret".to_owned();
        let assign = || Event::Assign { agent: "ann".into(), lease: lease() };
        let fail = |retry| Event::Fail { lease: lease(), error: "boom".into(), retry, delay: None };
        let ask = Event::Ask { lease: lease(), auth: true, question: "May I?".into() };
        let events = [
            assign(),
            Event::AcceptTimeout,
            assign(),
            Event::Delivered,
            ask,
            Event::Answer { number: None, answer: "token".into() },
            assign(),
            fail(true),
            Event::Due,
            assign(),
            Event::Decline { lease: lease(), others: true },
            assign(),
            fail(false),
            Event::Requeue { blocked: false },
            assign(),
            Event::Complete { lease: lease(), digest: "d".into() },
        ];
        for event in events {
            now = now + std::time::Duration::from_secs(1);
            let mut context = Context { now, pauses: &Backoff::default(), random: &mut random };
            let mut next = record.handle(&event, &mut context).unwrap().unwrap();
            next.change += 1;
            told.push(change(Some(&record), &next, next.change * 2));
            record = next;
        }
        let what: Vec<&str> = told.iter().map(|told| told["what"].as_str().unwrap()).collect();
        assert_eq!(
            what,
            [
                "submitted",
                "assigned to ann",
                "not fetched by ann, queued again",
                "assigned to ann",
                "delivered to ann",
                "an authorization was asked for by ann",
                "answered",
                "assigned to ann",
                "the attempt failed, another is to come",
                "due for another attempt",
                "assigned to ann",
                "declined by ann",
                "assigned to ann",
                "given up: boom",
                "requeued for run 2",
                "assigned to ann",
                "completed by ann",
            ]
        );
        assert_eq!(
            (&told[8]["error"], &told[8]["attempt"], &told[8]["agent"]),
            (&json!("boom"), &json!(1), &json!("ann"))
        );
        assert_eq!((&told[6]["question"], &told[6]["number"]), (&json!("May I?"), &json!(1)));
        assert!(told[9].get("error").is_none() && told[8]["until"].is_string());
        let text = Value::from(told).to_string();
        assert!(!text.contains("secret") && !text.contains("token"), "{text}");
    }
}
