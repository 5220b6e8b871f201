//! What becomes of agents that are slow, silent, lost or removed at a bad moment.

use std::time::Duration;

use super::rig::Rig;
use super::{ConnectionEvent, Output, Settings};
use crate::client::BatchEntry;
use crate::coordinator::agent::Link;
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

fn is_batch(output: &Output) -> bool {
    matches!(output, Output::Batch { .. })
}

#[test]
fn an_agent_that_goes_while_its_assignment_is_stored_costs_the_task_no_attempt() {
    for removed in [true, false] {
        let mut rig = Rig::new(Settings::default());
        rig.ask("AGENT.REGISTER.ann", "", "");
        rig.request("SUBMIT", "Task-Id: t\r\nTask-Max-Attempts: 1\r\n", "");
        let ann = rig.desk.roster.find("ann").unwrap();
        if removed {
            rig.request("AGENT.REMOVE.ann", "", "");
        } else {
            rig.desk.lose(ann, "it is gone");
        }
        rig.run_but(is_batch);
        assert_eq!(rig.record("t").phase, Phase::Queued, "it is not stored yet");
        rig.run();
        let record = rig.record("t");
        assert_eq!((record.phase, record.attempt, record.agent.as_str()), (Phase::Queued, 0, ""), "removed: {removed}");
        let index = rig.desk.ids["t"];
        assert_eq!(rig.desk.task(index).unwrap().holder, None);
        rig.ask("AGENT.REGISTER.bob", "", "");
        let record = rig.record("t");
        assert_eq!((record.phase, record.attempt, record.agent.as_str()), (Phase::Assigned, 1, "bob"));
        let holder = rig.desk.task(index).unwrap().holder;
        assert_eq!(holder, rig.desk.roster.find("bob"));
    }
}

#[test]
fn an_agent_removed_before_a_payload_is_read_is_given_nothing() {
    // Payloads are dropped at once, and read again for the assignment.
    let mut rig = Rig::new(Settings { payload_bytes_max: 0, ..Settings::default() });
    rig.ask("SUBMIT", "Task-Id: t\r\n", "body");
    let reply = rig.request("AGENT.REGISTER.ann", "", "");
    let reads = |output: &Output| matches!(output, Output::Publish { subject, .. } if subject.starts_with(b"$JS.API.STREAM.MSG.GET"));
    rig.run_but(reads);
    assert_eq!(rig.answer(&reply)["agent"], "ann");
    rig.request("AGENT.REMOVE.ann", "", "");
    rig.run();
    let record = rig.record("t");
    assert_eq!((record.phase, record.attempt, record.deliveries), (Phase::Queued, 0, 0));
    assert!(rig.desk.tasks.iter().flatten().all(|task| task.holder.is_none() && task.spot.is_some()));
}

#[test]
fn of_two_that_register_one_id_at_once_the_second_is_refused() {
    for presence in [true, false] {
        let mut rig = if presence { with_presence() } else { Rig::new(Settings::default()) };
        connect(&mut rig, 7, "a");
        connect(&mut rig, 8, "b");
        let requests = [r#"{"client_id":7}"#, r#"{"client_id":8}"#, "", r#"{"client_id":7,"slots":2}"#];
        let [first, second, third, again] = requests.map(|body| rig.request("AGENT.REGISTER.ann", "", body));
        rig.run();
        assert_eq!(rig.answer(&first)["agent"], "ann");
        for other in [second, third] {
            let answer = rig.answer(&other);
            assert_eq!((&answer["error"]["code"], &answer["error"]["err_code"]), (&409.into(), &30414.into()));
        }
        assert_eq!(rig.answer(&again)["agent"], "ann", "the same connection asks again");
        assert_eq!(rig.desk.roster.iter().count(), 1);
        assert!(rig.desk.registering.is_empty());
    }
}

#[test]
fn who_registers_takes_over_when_the_one_before_it_cannot() {
    let mut rig = Rig::new(Settings::default());
    let replies = [(); 2].map(|()| rig.request("AGENT.REGISTER.ann", "", ""));
    rig.run_but(is_batch);
    // The answer to the first one's card is lost.
    rig.outputs.clear();
    rig.pass(seconds(6));
    let [first, second] = replies.map(|reply| rig.answer(&reply));
    assert!(first["error"].is_object(), "{first}");
    assert_eq!(second["agent"], "ann");
}

#[test]
fn a_drain_while_an_agent_resumes_holds() {
    let mut rig = Rig::new(Settings::default());
    let card = rig.ask("AGENT.REGISTER.ann", "", "");
    let resume = serde_json::json!({ "resume": card["resume"] }).to_string();
    let reply = rig.request("AGENT.REGISTER.ann", "", &resume);
    rig.run_but(is_batch);
    rig.request("AGENT.DRAIN.ann", "", "");
    rig.run();
    assert_eq!(rig.answer(&reply)["resume"], card["resume"]);
    assert_eq!(status(&mut rig, "ann"), "draining");
    rig.pass(seconds(1));
    rig.restart();
    assert_eq!(status(&mut rig, "ann"), "draining", "it is stored");
}

#[test]
fn a_drain_that_is_answered_outlives_the_coordinator_at_once() {
    let mut rig = Rig::new(Settings::default());
    let card = rig.ask("AGENT.REGISTER.ann", "", "");
    let reply = rig.request("AGENT.DRAIN.ann", "", "");
    rig.run_but(is_batch);
    assert!(rig.answer(&reply).is_null(), "not before it is stored");
    rig.run();
    assert_eq!(rig.answer(&reply)["status"], "draining");
    rig.restart();
    assert_eq!(status(&mut rig, "ann"), "draining");
    // Nor is it forgotten when the agent has just come back.
    rig.ask("AGENT.REGISTER.ann", "", &serde_json::json!({ "resume": card["resume"] }).to_string());
    rig.restart();
    assert_eq!(status(&mut rig, "ann"), "draining");
    // Nor when it comes while the agent is coming back.
    assert_eq!(rig.ask("AGENT.DRAIN.ann", "", r#"{"drain":false}"#)["status"], "online");
    rig.request("AGENT.REGISTER.ann", "", &serde_json::json!({ "resume": card["resume"] }).to_string());
    let reply = rig.request("AGENT.DRAIN.ann", "", "");
    rig.run();
    assert_eq!(rig.answer(&reply)["status"], "draining");
    rig.restart();
    assert_eq!(status(&mut rig, "ann"), "draining");
    assert_eq!(rig.ask("AGENT.DRAIN.ann", "", r#"{"drain":false}"#)["status"], "online");
    rig.restart();
    assert_ne!(status(&mut rig, "ann"), "draining");
}

#[test]
fn three_missed_heartbeats_end_an_agent_that_is_connected_or_subscribed() {
    let mut connected = with_presence();
    connect(&mut connected, 7, "ann");
    let mut subscribed = Rig::new(Settings::default());
    subscribed.listening.insert("ann".to_owned());
    for mut rig in [connected, subscribed] {
        rig.ask("AGENT.REGISTER.ann", "", "");
        rig.pass(seconds(120));
        assert_eq!(status(&mut rig, "ann"), "online", "it never sent any");
        rig.desk.heartbeat("ann", rig.now);
        rig.pass(seconds(40));
        assert_eq!(status(&mut rig, "ann"), "online");
        rig.desk.heartbeat("ann", rig.now);
        rig.pass(seconds(50));
        assert_eq!(status(&mut rig, "ann"), "offline");
        rig.pass(seconds(120));
        assert_eq!(status(&mut rig, "ann"), "offline", "its connection alone does not bring it back");
        let link = |rig: &Rig| rig.desk.roster.get(rig.desk.roster.find("ann").unwrap()).unwrap().link;
        rig.desk.heartbeat("ann", rig.now);
        rig.pass(seconds(20));
        assert_eq!(status(&mut rig, "ann"), "online");
        assert_ne!(link(&rig), Link::Unknown, "what is known of its connection counts again");
    }
}

/// A micro service for the queue `q`, found; its agent's id.
fn with_service(rig: &mut Rig) -> String {
    let metadata = serde_json::json!({ "task.queue": "q" });
    let endpoint = serde_json::json!({ "name": "run", "subject": "hand.run" });
    let info = serde_json::json!({ "name": "hand", "id": "H1", "metadata": metadata, "endpoints": [endpoint] });
    rig.services = vec![info];
    rig.ask("QUEUE.PUT.q", "", r#"{"mode":"service"}"#);
    rig.pass(seconds(1));
    let shown = rig.ask("QUEUE.INFO.q", "", "");
    shown["services"][0]["agent"].as_str().unwrap().to_owned()
}

#[test]
fn a_service_that_was_just_found_keeps_its_task_through_a_restart() {
    let mut rig = Rig::new(Settings::default());
    let metadata = serde_json::json!({ "task.queue": "q" });
    let endpoint = serde_json::json!({ "name": "run", "subject": "hand.run" });
    rig.services =
        vec![serde_json::json!({ "name": "hand", "id": "H1", "metadata": metadata, "endpoints": [endpoint] })];
    rig.ask("QUEUE.PUT.q", "", r#"{"mode":"service"}"#);
    // No time passes between its being found and the task.
    rig.ask("SUBMIT", "Task-Id: t\r\nTask-Queue: q\r\n", "");
    let before = rig.record("t");
    assert!(before.phase.is_leased());
    rig.restart();
    rig.pass(seconds(2));
    let record = rig.record("t");
    assert_eq!((&record.lease, record.attempt, &record.fault), (&before.lease, 1, &None), "{record:?}");
    let answer = crate::client::Incoming::new(b"inbox", b"", b"", b"done");
    rig.desk.service_answer(&format!("t.{}", record.lease), answer, rig.now);
    rig.run();
    assert_eq!(rig.record("t").phase, Phase::Completed);
}

#[test]
fn a_nameless_connection_is_nobodys() {
    let mut rig = with_presence();
    let service = with_service(&mut rig);
    connect(&mut rig, 7, "");
    let answer = rig.ask("AGENT.REGISTER.ann", "", r#"{"client_name":""}"#);
    assert_eq!(answer["heartbeat_needed"], true, "a connection without a name is not taken for its own");
    rig.pass(seconds(1));
    rig.services.clear();
    rig.restart();
    connect(&mut rig, 8, "");
    rig.desk.heartbeat(&service, rig.now);
    assert_eq!(status(&mut rig, &service), "offline", "nobody answers for the service");
    rig.desk.connection(ConnectionEvent::Disconnected { client_id: 8 }, rig.now);
    let found = rig.desk.roster.get(rig.desk.roster.find(&service).unwrap()).unwrap();
    assert_eq!((found.link, found.card.client_id), (Link::Unknown, 0));
}

#[test]
fn an_agents_consumer_that_somebody_deleted_is_made_again() {
    let mut rig = Rig::new(Settings::default());
    rig.ask("AGENT.REGISTER.ann", "", "");
    rig.consumers.clear();
    rig.ask("SUBMIT", "Task-Id: t\r\nTask-Max-Attempts: 1\r\n", "");
    rig.pass(seconds(2));
    assert!(rig.consumers.contains("ann"));
    rig.pass(seconds(10));
    let record = rig.record("t");
    assert_eq!((record.phase, record.attempt), (Phase::Queued, 0), "it was not fetched");
    rig.pulling.insert("ann".to_owned());
    rig.pass(seconds(2));
    rig.deliver("ann");
    rig.pass(seconds(1));
    assert_eq!(rig.record("t").phase, Phase::Running);
}

#[test]
fn a_drained_service_is_still_drained_after_a_restart_and_when_it_comes_back() {
    let mut rig = Rig::new(Settings::default());
    let service = with_service(&mut rig);
    rig.ask(&format!("AGENT.DRAIN.{service}"), "", "");
    rig.pass(seconds(1));
    rig.restart();
    rig.pass(seconds(25));
    assert_eq!(status(&mut rig, &service), "draining");
    let infos = std::mem::take(&mut rig.services);
    rig.pass(seconds(120));
    assert_eq!(status(&mut rig, &service), "offline");
    rig.services = infos;
    rig.pass(seconds(25));
    assert_eq!(status(&mut rig, &service), "draining");
    rig.ask(&format!("AGENT.DRAIN.{service}"), "", r#"{"drain":false}"#);
    assert_eq!(status(&mut rig, &service), "online");
}

#[test]
fn a_record_of_another_coordinator_has_its_slot_item_and_lease() {
    let mut rig = Rig::new(Settings::default());
    rig.ask("AGENT.REGISTER.ann", "", r#"{"slots":2}"#);
    rig.ask("SUBMIT", "Task-Id: t\r\nTask-Requires: gpu\r\n", "body");
    let mut record = rig.record("t");
    record.set_phase(Phase::Assigned);
    (record.agent, record.lease, record.attempt, record.deliveries) = ("ann".into(), "other".into(), 1, 1);
    let stored = serde_json::to_vec(&record).unwrap();
    rig.store(&[BatchEntry::new("$KV.TASK.s.t", stored), BatchEntry::new("$KV.TASK.a.ann.t", "body")]);
    let item = rig.last("$KV.TASK.a.ann.t").unwrap().0;
    // The next step meets it.
    rig.ask("AGENT.REGISTER.bob", "", r#"{"labels":["gpu"]}"#);
    assert_eq!(rig.record("t"), record);
    let index = rig.desk.ids["t"];
    let live = |rig: &Rig, agent: &str| rig.desk.roster.get(rig.desk.roster.find(agent).unwrap()).unwrap().live.clone();
    assert_eq!((live(&rig, "ann"), live(&rig, "bob")), (vec![index], vec![]));
    assert_eq!(rig.desk.queues["default"].running, 1);
    let task = rig.desk.task(index).unwrap();
    assert_eq!((task.holder, task.item), (rig.desk.roster.find("ann"), item));
    assert_eq!(rig.desk.items.get(&item), Some(&index));
    // Its agent is asked whether it has it, and its lease runs.
    rig.deliver("ann");
    rig.pass(seconds(2));
    assert_eq!(rig.record("t").phase, Phase::Running);
    rig.pass(seconds(35));
    let record = rig.record("t");
    assert_eq!((record.agent.as_str(), record.attempt), ("bob", 2), "the lease has expired");
    assert!(rig.last("$KV.TASK.a.ann.t").is_none(), "what is over is removed");
    assert_eq!((live(&rig, "ann"), rig.desk.queues["default"].running), (vec![], 1));
}
