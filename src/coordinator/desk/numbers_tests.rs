//! Whatever numbers are asked for or stored, nothing panics.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Settings;
use super::rig::Rig;
use crate::client::BatchEntry;
use crate::coordinator::names;
use crate::coordinator::queue::Mode;
use crate::coordinator::record::{Phase, Record};
use crate::types::Timestamp;

const HEADERS: [&str; 7] = [
    "Task-Timeout",
    "Task-Backoff",
    "Task-Max-Attempts",
    "Task-Priority",
    "Task-Not-Before",
    "Task-Deadline",
    "Retry-After",
];
const PHASES: [Phase; 6] =
    [Phase::Queued, Phase::Scheduled, Phase::BackingOff, Phase::Assigned, Phase::Running, Phase::Completed];

/// Numbers that are none, too large or just at an edge, beside any.
fn number() -> impl Strategy<Value = String> {
    let edges = [
        "0",
        "-0",
        "-1",
        "5",
        "NaN",
        "inf",
        "1e999",
        "1e308d",
        "1e308",
        "1e-300",
        "99999999999999999999",
        "4294967295",
        "9223372036854775807",
        "18446744073709551615",
        "315360000",
        "9999-12-31T23:59:59Z",
        "2262-04-11T23:47:16Z",
        "1700-01-01T00:00:00Z",
        "1ms",
        "{}",
    ];
    prop_oneof![
        prop::sample::select(edges.to_vec()).prop_map(str::to_owned),
        any::<f64>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u8>().prop_map(|number| format!("{number}s")),
    ]
}

fn finite() -> impl Strategy<Value = f64> {
    let edges = vec![0.0, -1.0, 1e300, -1e300, 1e-300, 0.5, 30.0, 1e20, f64::MAX, f64::MIN];
    prop_oneof![prop::sample::select(edges), prop::num::f64::NORMAL]
}

fn time() -> impl Strategy<Value = Timestamp> {
    let edges = [0, 1, -1, i64::MAX, i64::MIN + 1, 1_800_000_000_000_000_000, 1_800_000_001_000_000_000];
    prop_oneof![prop::sample::select(edges.to_vec()), any::<i64>()].prop_map(Timestamp)
}

fn rig() -> Rig {
    let mut rig = Rig::new(Settings { sweep: Duration::from_millis(200), ..Settings::default() });
    rig.ask("AGENT.REGISTER.ann", "", r#"{"queues":["*"],"slots":9}"#);
    rig
}

/// Lets a task be fetched, given back with a delay, and found again by the next coordinator.
fn live_on(mut rig: Rig, delay: &str) {
    rig.pass(Duration::from_millis(400));
    rig.deliver("ann");
    let found = rig.stored.iter().rev().find(|row| row.1.starts_with("$KV.TASK.a.ann."));
    if let Some((seq, _, lines, _)) = found.cloned() {
        let ack = format!("$JS.ACK.KV_TASK.agent_ann.1.{seq}.1.1.0");
        for word in [format!("-NAK {delay}"), format!(r#"-NAK {{"delay":{delay}}}"#)] {
            let message = crate::client::Incoming::new(ack.as_bytes(), b"", b"", word.as_bytes());
            rig.desk.ack(&message, rig.now);
            rig.run();
        }
        let block = names::block(&lines);
        let fail = crate::types::Headers::new(&block).get_str("Task-Fail").unwrap_or_default().to_owned();
        rig.ask(fail.strip_prefix("$TASK.API.").unwrap_or_default(), "", &format!(r#"{{"delay_ms":{delay}}}"#));
    }
    rig.restart();
    rig.pass(Duration::from_secs(1));
    rig.ask("LIST", "", "");
    rig.ask("CRON.LIST", "", "");
    rig.ask("QUEUE.LIST", "", "");
    rig.ask("COUNCIL.LIST", "", "");
    for (id, verb) in [("t", "GET"), ("t", "EXPLAIN"), ("t", "REQUEUE"), ("t", "CANCEL")] {
        rig.ask(&format!("{verb}.{id}"), "", "");
    }
    rig.pass(Duration::from_secs(1));
}

/// The number of the error, if it is one.
fn refused(answer: &Value) -> Option<u64> {
    answer["error"]["err_code"].as_u64()
}

#[test]
fn a_timeout_above_ten_years_is_refused_and_one_that_is_stored_counts_as_ten() {
    let mut rig = rig();
    for (line, fine) in [
        ("Task-Timeout: 99999999999999999999", false),
        ("Task-Timeout: 3651d", false),
        ("Task-Timeout: 3650d", true),
        ("Task-Deadline: 99999999999999999999", false),
        ("Task-Not-Before: 99999999999999999999", false),
        ("Task-Not-Before: 1d", true),
        ("Task-Backoff: 99999999999999999999", false),
        ("Task-Max-Attempts: 99999999999999999999", false),
    ] {
        let cron = format!("Task-Schedule: @daily\r\n{line}\r\n");
        let answers = [rig.ask("SUBMIT", &format!("{line}\r\n"), ""), rig.ask("CRON.PUT.c", &cron, "")];
        for answer in answers {
            assert_eq!(refused(&answer), (!fine).then_some(30400), "{line}: {answer}");
        }
    }
    let record = Record { timeout_s: 1e20, ..Record::default() };
    assert_eq!(record.timeout(), Some(Duration::from_secs(3650 * 86_400)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_number_in_a_header_panics(
        values in prop::collection::vec(number(), HEADERS.len()),
        only in 0..HEADERS.len() + 1,
        cron in any::<bool>(),
        schedule in number(),
        delay in number(),
    ) {
        let mut rig = rig();
        let mut lines = String::from("Task-Id: t\r\n");
        for (at, (name, value)) in HEADERS.iter().zip(&values).enumerate() {
            // One bad header would hide the others.
            if only == HEADERS.len() || only == at {
                lines.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if cron {
            let lines = lines.replace("Task-Id: t\r\n", &format!("Task-Schedule: @every {schedule}\r\n"));
            rig.ask("CRON.PUT.c", &lines, "");
            rig.ask("CRON.PUT.d", &lines.replace("@every", "@at"), "");
        } else {
            rig.ask("SUBMIT", &lines, "");
        }
        live_on(rig, &delay);
    }

    #[test]
    fn no_number_in_a_bodys_json_panics(
        field in prop::sample::select(vec![
            "max_attempts", "lease_s", "max_running", "max_per_key", "rate", "max_queued", "ageing_s", "retention_s",
            "deadline_s", "seat_ttl_s", "quorum", "slots", "client_id", "tasks_completed", "limit", "backoff",
        ]),
        value in number(),
        mode in prop::sample::select(vec!["inbox", "pull", "service"]),
    ) {
        let mut rig = rig();
        let value = if field == "backoff" { format!("[{value}]") } else { value };
        rig.ask("QUEUE.PUT.default", "", &format!(r#"{{"mode":"{mode}","{field}":{value}}}"#));
        rig.ask("AGENT.REGISTER.bob", "", &format!(r#"{{"{field}":{value}}}"#));
        rig.ask("COUNCIL.FORM.c", "", &format!(r#"{{"roles":{{"a":1}},"offer_to":"councils.c","{field}":{value}}}"#));
        for verb in ["LIST", "AGENT.LIST", "DLQ.LIST", "COUNCIL.LIST"] {
            rig.ask(verb, "", &format!(r#"{{"{field}":{value}}}"#));
        }
        rig.ask("SUBMIT", "Task-Id: t\r\nTask-Key: k\r\n", "");
        rig.ask("AWAIT.t", &format!("Task-Wait: {value}\r\n"), "");
        live_on(rig, &value);
    }

    #[test]
    fn no_stored_number_panics(
        phase in prop::sample::select(PHASES.to_vec()),
        seconds in prop::collection::vec(finite(), 6),
        times in prop::collection::vec(time(), 8),
        counts in prop::collection::vec(prop_oneof![Just(0), Just(u32::MAX), any::<u32>()], 9),
        pull in any::<bool>(),
    ) {
        let mut rig = rig();
        let mode = if pull { Mode::Pull } else { Mode::Inbox };
        let mut record = Record {
            id: "t".into(), queue: "q".into(), mode, run: counts[0], attempt: counts[1], max_attempts: counts[2],
            priority: counts[3] as u8, backoff: vec![seconds[0]].into(), created: times[0], updated: times[1],
            queued: times[2], wake: times[3], deadline: times[4], timeout_s: seconds[1], assigned: times[5],
            deliveries: counts[4], change: u64::from(counts[5]) << 32, attempts_before: counts[6],
            sticky: "s".into(), ..Record::default()
        };
        record.set_phase(phase);
        if phase.is_leased() {
            (record.agent, record.lease) = ("ann".into(), "l".into());
        }
        let queue = json!({
            "mode": mode, "max_attempts": counts[7], "backoff": [seconds[2]], "lease_s": seconds[3], "rate": seconds[4],
            "ageing_s": seconds[5], "retention_s": seconds[0], "max_running": counts[8],
        });
        let card = json!({ "id": "bob", "slots": counts[3], "completed": u64::MAX, "last_seen": times[6], "status": "online" });
        let at = json!({ "next": times[7], "last": times[6] });
        let row = |key: &str, body: &Value| BatchEntry::new(key, Bytes::from(body.to_string()));
        rig.store(&[
            row("$KV.TASK.q.q", &queue),
            row("$KV.TASK_AGENTS.bob", &card),
            BatchEntry::new(names::cron_key("c"), "").header("Task-Schedule", "@every 1h"),
            row(&names::cron_times_key("c"), &at),
            row(&names::state_key("t"), &serde_json::to_value(&record).unwrap()),
            BatchEntry::new(names::payload_key("t"), ""),
        ]);
        rig.restart();
        live_on(rig, "5");
    }
}
