//! How long things last by the clock: the pauses between attempts, by whoever asked for them, times before which nothing is
//! handed out, and how long what is finished is kept.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::json;

use super::Settings;
use super::rig::Rig;
use crate::client::Incoming;
use crate::coordinator::names;
use crate::coordinator::record::Phase;

/// The clock moves by this, so times are measured up to it.
const STEP: Duration = Duration::from_millis(10);

/// An agent for every queue, which pulls.
fn rig() -> Rig {
    let mut rig = Rig::new(Settings::default());
    rig.pulling.insert("ann".to_owned());
    rig.ask("AGENT.REGISTER.ann", "", r#"{"queues":["*"]}"#);
    rig
}

/// Ends the present attempt of the task `t` in some way.
type End<'a> = &'a dyn Fn(&mut Rig);

fn fail(rig: &mut Rig, body: &str) {
    let lease = rig.record("t").lease;
    let answer = rig.ask(&format!("FAIL.t.{lease}"), "", body);
    assert_eq!(answer["error"], json!(null), "{answer}");
}

fn ack(rig: &mut Rig, word: &str) {
    let seq = rig.last("$KV.TASK.a.ann.t").unwrap().0;
    let subject = format!("$JS.ACK.KV_TASK.agent_ann.1.{seq}.1.1.0");
    rig.desk.ack(&Incoming::new(subject.as_bytes(), b"", b"", word.as_bytes()), rig.now);
    rig.run();
}

/// How long it is until somebody has the task again.
fn pause(rig: &mut Rig) -> Duration {
    let begun = rig.now;
    while !matches!(rig.record("t").phase, Phase::Assigned | Phase::Running) {
        assert!(rig.now.since(begun) < Duration::from_secs(600), "{:?}", rig.record("t"));
        rig.pass(STEP);
    }
    rig.now.since(begun)
}

fn in_range(pause: Duration, seconds: RangeInclusive<f64>, what: &str) {
    let (least, most) = (Duration::from_secs_f64(*seconds.start()), Duration::from_secs_f64(*seconds.end()) + STEP);
    assert!((least..=most).contains(&pause), "{what}: {pause:?} is not {seconds:?} seconds");
}

/// A step of a backoff takes up to a fifth longer.
fn about(seconds: f64) -> RangeInclusive<f64> {
    seconds..=seconds * 1.2
}

#[test]
fn the_pause_before_the_next_attempt_is_the_tasks_or_the_queues_or_what_the_agent_asks_for() {
    let boom: End<'_> = &|rig| fail(rig, "boom");
    let nak: End<'_> = &|rig| ack(rig, "-NAK");
    let queue = r#"{"backoff":[0.5,5],"max_attempts":9}"#;
    let own = "Task-Backoff: 1s,3s\r\n";
    let delayed: End<'_> = &|rig| fail(rig, r#"{"error":"later","delay_ms":7000}"#);
    let at_once: End<'_> = &|rig| fail(rig, r#"{"error":"now","delay_ms":0}"#);
    // As nats.go and nats.py write it, in nanoseconds.
    let nak_delayed: End<'_> = &|rig| ack(rig, r#"-NAK {"delay":4000000000}"#);
    for (what, put, lines, ends) in [
        (
            "by default",
            "",
            "Task-Max-Attempts: 9\r\n",
            vec![(boom, about(2.0)), (boom, about(10.0)), (nak, about(60.0)), (boom, about(60.0))],
        ),
        ("of the queue", queue, "", vec![(boom, about(0.5)), (nak, about(5.0)), (boom, about(5.0))]),
        ("of the task", queue, own, vec![(boom, about(1.0)), (nak, about(3.0)), (boom, about(3.0))]),
        (
            "of the agent",
            queue,
            own,
            vec![(delayed, 7.0..=7.0), (nak_delayed, 4.0..=4.0), (at_once, 0.0..=0.0), (nak, about(3.0))],
        ),
    ] {
        let mut rig = rig();
        if !put.is_empty() {
            rig.ask("QUEUE.PUT.default", "", put);
        }
        rig.ask("SUBMIT", &format!("Task-Id: t\r\n{lines}"), "");
        for (number, (end, expected)) in ends.into_iter().enumerate() {
            rig.deliver("ann");
            assert_eq!(rig.record("t").attempt as usize, number + 1);
            end(&mut rig);
            in_range(pause(&mut rig), expected, &format!("{what}, after attempt {}", number + 1));
        }
    }
}

#[test]
fn a_service_says_when_it_wants_to_be_asked_again() {
    let mut rig = Rig::new(Settings::default());
    let metadata = json!({ "task.queue": "q" });
    let endpoint = json!({ "name": "run", "subject": "hand.run" });
    rig.services = vec![json!({ "name": "hand", "id": "H1", "metadata": metadata, "endpoints": [endpoint] })];
    rig.ask("QUEUE.PUT.q", "", r#"{"mode":"service","backoff":[3]}"#);
    rig.pass(Duration::from_secs(1));
    rig.ask("SUBMIT", "Task-Id: t\r\nTask-Queue: q\r\nTask-Max-Attempts: 9\r\n", "work");
    for (lines, expected) in [
        ("Nats-Service-Error-Code: 429\r\nNats-Service-Error: busy\r\nRetry-After: 7\r\n", 7.0..=7.0),
        ("Nats-Service-Error-Code: 503\r\nNats-Service-Error: soon\r\nRetry-After: 0.5\r\n", 0.5..=0.5),
        ("Nats-Service-Error-Code: 500\r\nNats-Service-Error: boom\r\n", about(3.0)),
        ("Nats-Service-Error-Code: 500\r\nNats-Service-Error: boom\r\nRetry-After: tomorrow\r\n", about(3.0)),
    ] {
        let asked = rig.published.iter().filter(|(subject, _)| subject == "hand.run").count();
        let record = rig.record("t");
        assert_eq!(record.attempt as usize, asked, "each attempt is a request");
        let answer = Incoming::new(b"inbox", b"", &names::block(lines), b"");
        rig.desk.service_answer(&format!("t.{}", record.lease), answer, rig.now);
        rig.run();
        in_range(pause(&mut rig), expected, lines);
    }
}

#[test]
fn nothing_is_handed_out_before_its_time() {
    let mut rig = rig();
    rig.ask("QUEUE.PUT.p", "", r#"{"mode":"pull"}"#);
    rig.ask("SUBMIT", "Task-Id: t\r\nTask-Not-Before: 5s\r\n", "");
    rig.ask("SUBMIT", "Task-Id: p\r\nTask-Queue: p\r\nTask-Not-Before: 5s\r\n", "");
    let items = |rig: &Rig| ["$KV.TASK.a.ann.t", "$KV.TASK.w.p.p"].map(|key| rig.last(key).is_some());
    rig.pass(Duration::from_millis(4990));
    for id in ["t", "p"] {
        assert_eq!(rig.record(id).phase, Phase::Scheduled);
    }
    assert_eq!(items(&rig), [false, false], "there is nothing to fetch");
    rig.pass(STEP);
    assert_eq!((rig.record("t").phase, rig.record("p").phase), (Phase::Assigned, Phase::Queued));
    assert_eq!(items(&rig), [true, true]);
}

#[test]
fn what_is_finished_is_kept_for_seven_days_by_default() {
    let mut rig = rig();
    rig.ask("SUBMIT", "Task-Id: t\r\n", "");
    let lease = rig.record("t").lease;
    rig.ask(&format!("COMPLETE.t.{lease}"), "", "done");
    assert_eq!(rig.record("t").phase, Phase::Completed);
    let after = |rig: &mut Rig, time: Duration| {
        rig.now = rig.now + time;
        rig.desk.tick(rig.now);
        rig.run();
        rig.desk.ids.contains_key("t")
    };
    assert!(after(&mut rig, Duration::from_secs(7 * 86_400 - 1)), "it may be asked for");
    assert!(!after(&mut rig, Duration::from_secs(1)), "its time is over");
    assert_eq!(rig.ask("GET.t", "", "")["error"]["err_code"], 30404);
}
