//! What becomes of agents that are slow, silent, lost or removed at a bad moment.

use std::time::Duration;

use super::rig::Rig;
use super::{ConnectionEvent, Settings};
use crate::coordinator::record::Phase;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// With a broker that tells of connections.
fn with_presence() -> Rig {
    Rig::new(Settings { presence: true, ..Settings::default() })
}

fn connect(rig: &mut Rig, client_id: u64, name: &str) {
    rig.desk.connection(ConnectionEvent::Connected { client_id, name: name.to_owned() }, rig.now);
    rig.run();
}

fn status(rig: &mut Rig, agent: &str) -> String {
    rig.ask(&format!("AGENT.INFO.{agent}"), "", "")["status"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_agent_slow_to_its_first_fetch_gets_its_task_when_it_pulls() {
    let mut connected = with_presence();
    connect(&mut connected, 7, "ann");
    let mut subscribed = Rig::new(Settings::default());
    subscribed.listening.insert("ann".to_owned());
    for mut rig in [connected, subscribed] {
        rig.ask("AGENT.REGISTER.ann", "", r#"{"slots":2}"#);
        rig.ask("SUBMIT", "Task-Id: t\r\n", "");
        rig.pass(seconds(60));
        let record = rig.record("t");
        assert_eq!((record.phase, record.deliveries), (Phase::Queued, 1), "its being there is no reason to try again");
        assert_eq!(status(&mut rig, "ann"), "online");
        rig.pulling.insert("ann".to_owned());
        rig.pass(seconds(2));
        let record = rig.record("t");
        assert_eq!((record.phase, record.agent.as_str(), record.attempt), (Phase::Assigned, "ann", 1));
    }
}
