//! What keeps a lease, what ends it all the same, and who is told.

use std::time::Duration;

use serde_json::Value;

use super::rig::Rig;
use super::{ConnectionEvent, Settings};
use crate::coordinator::record::Phase;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How an agent shows that it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sign {
    Connection,
    Subscription,
    Beats,
}

const SIGNS: [Sign; 3] = [Sign::Connection, Sign::Subscription, Sign::Beats];

/// A world with the agent `ann`, who is there; leases last 30 seconds.
fn with_agent(sign: Sign, request: &str) -> Rig {
    let mut rig = Rig::new(Settings { presence: sign == Sign::Connection, ..Settings::default() });
    appear(&mut rig, sign);
    assert_eq!(rig.ask("AGENT.REGISTER.ann", "", request)["agent"], "ann");
    rig.pass(seconds(1));
    rig
}

fn appear(rig: &mut Rig, sign: Sign) {
    match sign {
        Sign::Connection => {
            rig.desk.connection(ConnectionEvent::Connected { client_id: 7, name: "ann".into() }, rig.now);
        }
        Sign::Subscription => drop(rig.listening.insert("ann".into())),
        Sign::Beats => {}
    }
    rig.run();
}

fn vanish(rig: &mut Rig, sign: Sign) {
    match sign {
        Sign::Connection => rig.desk.connection(ConnectionEvent::Disconnected { client_id: 7 }, rig.now),
        Sign::Subscription => drop(rig.listening.remove("ann")),
        Sign::Beats => {}
    }
    rig.run();
}

/// Time passes while the agent is there and says nothing of its tasks.
fn linger(rig: &mut Rig, sign: Sign, time: Duration) {
    let until = rig.now + time;
    while rig.now < until {
        if sign == Sign::Beats {
            rig.desk.heartbeat("ann", rig.now);
        }
        rig.pass(seconds(10).min(until.since(rig.now)));
    }
}

fn begin(rig: &mut Rig, id: &str, headers: &str) {
    rig.ask("SUBMIT", &format!("Task-Id: {id}\r\n{headers}"), "");
    rig.deliver("ann");
    rig.pass(seconds(1));
    assert_eq!(rig.record(id).phase, Phase::Running);
}

/// What `ann` was told on her control subject.
fn told(rig: &Rig) -> Vec<Value> {
    let told = rig.published.iter().filter(|(subject, _)| subject == "$TASK.X.ann");
    told.map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
}

#[test]
fn a_lease_by_presence_lasts_as_long_as_the_agent_is_there_and_its_grace() {
    for sign in SIGNS {
        let mut rig = with_agent(sign, r#"{"lease_by":"presence"}"#);
        begin(&mut rig, "t", "");
        linger(&mut rig, sign, seconds(600));
        let record = rig.record("t");
        assert_eq!((record.phase, record.attempt), (Phase::Running, 1), "{sign:?}");
        let explained = rig.ask("EXPLAIN.t", "", "")["explanation"].to_string();
        assert!(explained.contains("as long as its agent is there"), "{explained}");
        vanish(&mut rig, sign);
        rig.pass(if sign == Sign::Beats { seconds(30) } else { seconds(4) });
        assert_eq!(rig.record("t").phase, Phase::Running, "{sign:?}: it may come back");
        rig.pass(seconds(20));
        let record = rig.record("t");
        assert_eq!((record.phase, record.fault.unwrap().error.as_str()), (Phase::Queued, "agent lost"), "{sign:?}");
        assert_eq!(told(&rig), [] as [Value; 0], "nobody is there to be told");
    }
}

#[test]
fn a_lease_by_presence_outlives_a_short_absence_and_a_restart() {
    for sign in [Sign::Connection, Sign::Subscription] {
        let mut rig = with_agent(sign, r#"{"lease_by":"presence"}"#);
        begin(&mut rig, "t", "");
        // The lease is over while nobody knows where the agent is.
        rig.pass(seconds(27));
        vanish(&mut rig, sign);
        rig.pass(seconds(4));
        appear(&mut rig, sign);
        linger(&mut rig, sign, seconds(120));
        assert_eq!(rig.record("t").phase, Phase::Running, "{sign:?}");
        rig.restart();
        appear(&mut rig, sign);
        linger(&mut rig, sign, seconds(120));
        assert_eq!((rig.record("t").phase, rig.record("t").attempt), (Phase::Running, 1), "{sign:?}");
    }
}

#[test]
fn who_does_not_ask_for_it_or_is_not_known_to_be_there_keeps_no_lease_by_presence() {
    let refused = Rig::new(Settings::default()).ask("AGENT.REGISTER.ann", "", r#"{"lease_by":"luck"}"#);
    assert_eq!(refused["error"]["err_code"], 30400);
    let unasked = with_agent(Sign::Connection, "");
    // It neither subscribes nor beats.
    let unseen = with_agent(Sign::Beats, r#"{"lease_by":"presence"}"#);
    for mut rig in [unasked, unseen] {
        begin(&mut rig, "t", "");
        rig.pass(seconds(35));
        assert_eq!(rig.record("t").fault.unwrap().error, "lease expired");
    }
}

#[test]
fn an_agent_that_is_there_is_told_when_time_takes_a_task_from_it() {
    // The reason, with the headers that bring it about.
    let check = |request: &str, headers: &str, reason: &str| {
        let mut rig = with_agent(Sign::Connection, request);
        begin(&mut rig, "t", headers);
        rig.pass(seconds(10));
        assert_eq!(told(&rig), [] as [Value; 0], "{reason}: not yet");
        rig.pass(seconds(25));
        let expected = serde_json::json!({
            "op": "cancel", "task": "t", "delivery": 1, "reason": reason, "grace_s": 0.0,
        });
        assert_eq!(told(&rig), [expected]);
        assert_eq!(rig.record("t").fault.unwrap().error, reason);
    };
    let stays = r#"{"lease_by":"presence"}"#;
    check("", "", "lease expired");
    check(stays, "Task-Timeout: 20s\r\n", "timeout");
    check(stays, "Task-Deadline: 20s\r\n", "deadline");
}

#[test]
fn a_cancel_says_why_and_how_long_there_is() {
    let mut rig = with_agent(Sign::Connection, r#"{"slots":2}"#);
    begin(&mut rig, "asked", "");
    begin(&mut rig, "forced", "");
    rig.ask("CANCEL.asked", "", r#"{"reason":"enough"}"#);
    rig.ask("CANCEL.forced", "", r#"{"reason":"at once","force":true}"#);
    let told: Vec<Value> = told(&rig);
    let shown = told.iter().map(|told| [&told["task"], &told["reason"], &told["grace_s"]].map(Value::to_string));
    let expected = [[r#""asked""#, r#""enough""#, "30.0"], [r#""forced""#, r#""at once""#, "0.0"]];
    assert_eq!(shown.collect::<Vec<_>>(), expected.map(|line| line.map(str::to_owned)));
    let phases = ["asked", "forced"].map(|id| rig.record(id).phase);
    assert_eq!(phases, [Phase::Cancelling, Phase::Canceled]);
}
