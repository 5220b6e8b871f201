//! What an agent says of an older attempt of its own hits nothing: neither the task nor the lease of the present attempt.

use std::time::Duration;

use super::Settings;
use super::rig::Rig;
use crate::client::Incoming;
use crate::coordinator::record::Phase;

/// Says a word about the assignment at a stream sequence, as the agent's client does.
fn ack(rig: &mut Rig, seq: u64, word: &str) {
    let subject = format!("$JS.ACK.KV_TASK.agent_ann.1.{seq}.1.1.0");
    rig.desk.ack(&Incoming::new(subject.as_bytes(), b"", b"", word.as_bytes()), rig.now);
    rig.run();
}

#[test]
fn acks_of_an_older_attempt_move_neither_phase_nor_attempt_nor_lease() {
    let mut rig = Rig::new(Settings::default());
    rig.pulling.insert("ann".to_owned());
    rig.ask("AGENT.REGISTER.ann", "", "");
    rig.ask("SUBMIT", "Task-Id: t\r\n", "body");
    let item = |rig: &Rig| rig.last("$KV.TASK.a.ann.t").unwrap().0;
    let first = item(&rig);
    let attempt = |rig: &mut Rig, number: u32| {
        rig.deliver("ann");
        rig.pass(Duration::from_secs(2));
        let record = rig.record("t");
        assert_eq!((record.phase, record.attempt), (Phase::Running, number));
    };
    attempt(&mut rig, 1);
    // Its lease of 30 seconds passes, and the pause after it.
    rig.pass(Duration::from_secs(34));
    let second = item(&rig);
    assert_ne!(first, second, "each attempt is a message of its own");
    attempt(&mut rig, 2);

    let now = |rig: &Rig| {
        let task = rig.desk.task(rig.desk.ids["t"]).unwrap();
        (task.record.clone(), task.revision, task.lease_until, task.busy.is_some(), task.line.len())
    };
    let before = now(&rig);
    for word in ["-NAK", r#"-NAK {"delay":1}"#, "+TERM no use", "+WPI", "+ACK", "", "+NXT"] {
        ack(&mut rig, first, word);
        assert_eq!(now(&rig), before, "after {word:?} of the first attempt");
    }
    // Of the second they mean what they say.
    ack(&mut rig, second, "+WPI");
    assert_eq!(now(&rig).2, rig.now + Duration::from_secs(30));
    assert!(now(&rig).2 > before.2);
    ack(&mut rig, second, "-NAK");
    assert_eq!(now(&rig).0.phase, Phase::BackingOff);
}
