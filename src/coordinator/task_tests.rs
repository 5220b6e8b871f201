//! Every row of the task table, and the laws of the machine under random events.

use proptest::prelude::*;

use super::*;
use crate::coordinator::question::Question;
use crate::coordinator::queue::Mode;
use crate::coordinator::record::State;

const NOW: Timestamp = Timestamp(1_000_000_000_000);

fn record(phase: Phase) -> Record {
    let mut record = Record { id: "t".into(), queue: "q".into(), run: 1, max_attempts: 3, ..Record::default() };
    record.set_phase(phase);
    match phase {
        Phase::Assigned | Phase::Running | Phase::Cancelling => {
            record.attempt = 1;
            record.agent = "ann".into();
            record.lease = "L1".into();
        }
        Phase::InputRequired | Phase::AuthRequired => {
            record.attempt = 1;
            record.agent = "ann".into();
            record.lease = "L1".into();
            record.questions = vec![asked(phase.state())].into();
        }
        Phase::Completed => {
            record.completion = Some(Box::new(Completion { lease: "L1".into(), digest: "d".into() }));
        }
        _ => {}
    }
    record
}

fn asked(state: State) -> Question {
    Question {
        number: 1,
        state,
        question: "Which?".into(),
        agent: "ann".into(),
        attempt: 1,
        asked: NOW,
        answer: None,
        answered: Timestamp::ZERO,
    }
}

fn ask(lease: &str, auth: bool) -> Event {
    Event::Ask { lease: lease.into(), auth, question: "Which?".into() }
}

fn answer(number: Option<u32>, answer: &str) -> Event {
    Event::Answer { number, answer: answer.into() }
}

fn step(record: &Record, event: &Event) -> Outcome {
    let mut random = Random::new(1);
    record.handle(event, &mut Context { now: NOW, pauses: &Backoff::default(), random: &mut random })
}

fn complete(lease: &str, digest: &str) -> Event {
    Event::Complete { lease: lease.into(), digest: digest.into() }
}

fn fail(lease: &str, retry: bool) -> Event {
    Event::Fail { lease: lease.into(), error: "boom".into(), retry, delay: None }
}

fn cancel(force: bool) -> Event {
    Event::Cancel { reason: "why".into(), force, descendants: Descendants::Apart }
}

#[test]
fn the_table() {
    // (from, event, Ok(to) | Err(err_code)); "=" stands for no change.
    let decline = |others| Event::Decline { lease: "L1".into(), others };
    let assign = || Event::Assign { agent: "ann".into(), lease: "L1".into() };
    let check = |from: Phase, event: Event, expected: Result<&str, u32>| {
        let got = step(&record(from), &event);
        let got = got.map(|next| next.map_or("=", |next| next.phase.as_str())).map_err(|error| error.err_code);
        assert_eq!(got, expected, "{from:?} {event:?}");
    };
    check(Phase::Scheduled, Event::Due, Ok("queued"));
    check(Phase::BackingOff, Event::Due, Ok("queued"));
    check(Phase::Running, Event::Due, Ok("="));
    check(Phase::Queued, assign(), Ok("assigned"));
    check(Phase::BackingOff, assign(), Ok("="));
    check(Phase::Assigned, Event::Delivered, Ok("running"));
    check(Phase::Running, Event::Delivered, Ok("="));
    check(Phase::Assigned, Event::AcceptTimeout, Ok("queued"));
    check(Phase::Running, Event::AcceptTimeout, Ok("="));
    let unserved = |lease: &str| Event::Unserved { lease: lease.into() };
    check(Phase::Assigned, unserved("L1"), Ok("queued"));
    check(Phase::Running, unserved("L1"), Ok("queued"));
    check(Phase::Running, unserved("L0"), Ok("="));
    check(Phase::Cancelling, unserved("L1"), Ok("canceled"));
    check(Phase::Queued, unserved(""), Ok("="));
    check(Phase::Assigned, decline(true), Ok("queued"));
    check(Phase::Running, decline(true), Ok("queued"));
    check(Phase::Assigned, decline(false), Ok("rejected"));
    check(Phase::Queued, decline(true), Err(30409));
    check(Phase::Assigned, complete("L1", "d"), Ok("completed"));
    check(Phase::Running, complete("L1", "d"), Ok("completed"));
    check(Phase::Cancelling, complete("L1", "d"), Ok("completed"));
    check(Phase::Running, complete("L0", "d"), Err(30409));
    check(Phase::Queued, complete("", "d"), Err(30409));
    check(Phase::Completed, complete("L1", "d"), Ok("="));
    check(Phase::Completed, complete("L1", "other"), Err(30409));
    check(Phase::Completed, complete("L2", "d"), Err(30409));
    check(Phase::Running, fail("L1", true), Ok("backing-off"));
    check(Phase::Running, fail("L1", false), Ok("dead"));
    check(Phase::Running, fail("L2", true), Err(30409));
    check(Phase::Cancelling, fail("L1", true), Ok("canceled"));
    check(Phase::Running, Event::LeaseExpired, Ok("backing-off"));
    check(Phase::Assigned, Event::LeaseExpired, Ok("backing-off"));
    check(Phase::Queued, Event::LeaseExpired, Ok("="));
    check(Phase::Running, Event::AgentLost, Ok("queued"));
    check(Phase::Assigned, Event::AgentLost, Ok("queued"));
    check(Phase::Cancelling, Event::AgentLost, Ok("canceled"));
    check(Phase::Running, Event::TimedOut, Ok("dead"));
    check(Phase::Queued, Event::DeadlinePassed, Ok("dead"));
    check(Phase::Running, Event::DeadlinePassed, Ok("dead"));
    check(Phase::Completed, Event::DeadlinePassed, Ok("="));
    check(Phase::Queued, Event::PayloadLost, Ok("dead"));
    check(Phase::Dead, Event::PayloadLost, Ok("="));
    for phase in [Phase::Queued, Phase::Scheduled, Phase::BackingOff, Phase::Assigned] {
        check(phase, cancel(false), Ok("canceled"));
    }
    check(Phase::Running, cancel(false), Ok("cancelling"));
    check(Phase::Running, cancel(true), Ok("canceled"));
    check(Phase::Cancelling, cancel(false), Ok("="));
    check(Phase::Cancelling, cancel(true), Ok("canceled"));
    check(Phase::Cancelling, Event::CancelOver, Ok("canceled"));
    check(Phase::Running, Event::CancelOver, Ok("="));
    check(Phase::Canceled, cancel(false), Ok("="));
    check(Phase::Completed, cancel(true), Err(30410));
    check(Phase::Dead, cancel(true), Err(30410));
    for phase in [Phase::Dead, Phase::Canceled, Phase::Rejected] {
        check(phase, Event::Requeue { blocked: false }, Ok("queued"));
    }
    check(Phase::Completed, Event::Requeue { blocked: false }, Err(30410));
    check(Phase::Running, Event::Requeue { blocked: false }, Err(30400));
    check(Phase::Queued, Event::Requeue { blocked: false }, Ok("="));
    check(Phase::Queued, Event::PullAcked { delivery: 1 }, Ok("="));
    check(Phase::Dead, Event::Forget, Ok("canceled"));
    check(Phase::Running, Event::Forget, Ok("="));
    let lost = || Event::DependencyFailed { fate: "t0 failed".into() };
    check(Phase::Blocked, Event::Unblocked, Ok("queued"));
    check(Phase::Queued, Event::Unblocked, Ok("="));
    check(Phase::Blocked, lost(), Ok("dead"));
    check(Phase::Queued, lost(), Ok("="));
    check(Phase::Blocked, assign(), Ok("="));
    check(Phase::Blocked, cancel(false), Ok("canceled"));
    check(Phase::Blocked, Event::DeadlinePassed, Ok("dead"));
    check(Phase::Dead, Event::Requeue { blocked: true }, Ok("blocked"));
    for phase in [Phase::Assigned, Phase::Running] {
        check(phase, ask("L1", false), Ok("input-required"));
        check(phase, ask("L1", true), Ok("auth-required"));
        check(phase, ask("L0", true), Err(30409));
        check(phase, answer(None, "a"), Err(30416));
    }
    check(Phase::Cancelling, ask("L1", false), Ok("canceled"));
    for phase in [Phase::Queued, Phase::Completed, Phase::Dead, Phase::Scheduled] {
        check(phase, ask("L1", false), Err(30409));
        check(phase, answer(None, "a"), Err(30416));
    }
    check(Phase::InputRequired, ask("L1", false), Ok("="));
    check(Phase::InputRequired, ask("L1", true), Err(30400));
    for phase in [Phase::InputRequired, Phase::AuthRequired] {
        check(phase, answer(None, "a"), Ok("queued"));
        check(phase, answer(Some(1), "a"), Ok("queued"));
        check(phase, answer(Some(2), "a"), Err(30416));
        check(phase, ask("L2", false), Err(30409));
        // The agent may find out by itself.
        check(phase, complete("L1", "d"), Ok("completed"));
        check(phase, complete("L0", "d"), Err(30409));
        check(phase, fail("L1", true), Ok("backing-off"));
        check(phase, decline(true), Ok("queued"));
        check(phase, cancel(false), Ok("canceled"));
        check(phase, Event::DeadlinePassed, Ok("dead"));
        check(phase, Event::Requeue { blocked: false }, Err(30400));
        let nak = Event::Nak { lease: "L1".into(), error: "x".into(), retry: false, delay: None };
        for event in [nak, Event::LeaseExpired, Event::AgentLost, Event::TimedOut, Event::Delivered, Event::Due] {
            check(phase, event, Ok("="));
        }
    }
    let nak = Event::Nak { lease: "L1".into(), error: "x".into(), retry: true, delay: None };
    check(Phase::Running, nak.clone(), Ok("backing-off"));
    check(Phase::Queued, nak, Err(30409));
    let purge = || Event::Purge { reason: "why".into() };
    for phase in [Phase::Queued, Phase::Scheduled, Phase::Blocked, Phase::BackingOff] {
        check(phase, purge(), Ok("canceled"));
    }
    for phase in [Phase::Assigned, Phase::Running, Phase::Completed, Phase::Dead] {
        check(phase, purge(), Ok("="));
    }
}

#[test]
fn pull_queues_complete_by_ack_and_end_dead() {
    let mut pull = record(Phase::Queued);
    pull.mode = Mode::Pull;
    pull.lease = "R1".into();
    let phase = |event: Event| step(&pull, &event).unwrap().map(|next| next.phase);
    assert_eq!(phase(Event::PullAcked { delivery: 1 }), Some(Phase::Completed));
    assert_eq!(phase(complete("R1", "d")), Some(Phase::Completed));
    assert_eq!(phase(Event::DeliveriesUsed { deliveries: 3 }), Some(Phase::Dead));
    assert_eq!(phase(fail("R1", false)), Some(Phase::Dead));
    assert_eq!(phase(Event::PullDelivered { delivery: 1, refused: false }), Some(Phase::Running));
    assert_eq!(phase(Event::Assign { agent: "a".into(), lease: "x".into() }), None);
    assert_eq!(phase(cancel(false)), Some(Phase::Canceled));
    let dead = step(&pull, &Event::DeliveriesUsed { deliveries: 3 }).unwrap().unwrap();
    let again = step(&dead, &Event::Requeue { blocked: false }).unwrap().unwrap();
    assert!(again.lease != "R1" && !again.lease.is_empty(), "a new run has a lease of its own");
}

#[test]
fn a_pull_task_counts_the_attempts_that_are_known_to_have_begun() {
    let mut task = record(Phase::Queued);
    task.mode = Mode::Pull;
    task.lease = "R1".into();
    let attempts = |task: &Record, event: &Event| step(task, event).unwrap().unwrap().attempt;
    // One that nobody ever had.
    assert_eq!(attempts(&task, &Event::DeadlinePassed), 0);
    assert_eq!(attempts(&task, &fail("R1", true)), 1);
    assert_eq!(attempts(&task, &Event::PullAcked { delivery: 0 }), 1);
    let running = step(&task, &Event::PullDelivered { delivery: 1, refused: false }).unwrap().unwrap();
    assert!(step(&running, &Event::PullDelivered { delivery: 1, refused: false }).unwrap().is_none());
    assert_eq!(attempts(&running, &fail("R1", true)), 1);
    assert_eq!(attempts(&running, &Event::DeadlinePassed), 1);
    // A nak ends an attempt, and whoever speaks up next is another.
    let refused = step(&task, &Event::PullDelivered { delivery: 1, refused: true }).unwrap().unwrap();
    assert_eq!(attempts(&refused, &Event::DeadlinePassed), 1);
    assert_eq!(attempts(&refused, &fail("R1", true)), 2);
    assert_eq!(attempts(&refused, &Event::PullTerminated { delivery: 2, error: "x".into() }), 2);
    // The next item counts its own deliveries.
    let paused = step(&refused, &fail("R1", true)).unwrap().unwrap();
    let again = step(&paused, &Event::Due).unwrap().unwrap();
    assert_eq!((again.attempt, again.attempts_before), (2, 2));
    assert_eq!(attempts(&again, &Event::PullAcked { delivery: 1 }), 3);
    assert_eq!(attempts(&again, &Event::DeadlinePassed), 2);
    let dead = step(&again, &Event::DeliveriesUsed { deliveries: 1 }).unwrap().unwrap();
    assert_eq!((dead.attempt, dead.fault.as_ref().unwrap().attempt), (3, 3));
    let run = step(&dead, &Event::Requeue { blocked: false }).unwrap().unwrap();
    assert_eq!((run.attempt, run.attempts_before), (0, 0));
}

#[test]
fn a_question_costs_no_attempt_and_its_answer_comes_first() {
    let mut task = record(Phase::Queued);
    task.queued = NOW - Duration::from_secs(9);
    let assign = |lease: &str| Event::Assign { agent: "ann".into(), lease: lease.into() };
    let running = step(&task, &assign("L1")).unwrap().unwrap();
    let parked = step(&running, &ask("L1", false)).unwrap().unwrap();
    assert_eq!((parked.attempt, parked.agent.as_str(), parked.lease.as_str()), (1, "ann", "L1"));
    assert_eq!((parked.assigned, parked.state), (Timestamp::ZERO, State::InputRequired));
    assert_eq!(*parked.questions, [asked(State::InputRequired)]);
    assert!(parked.resumes().is_none());
    let queued = step(&parked, &answer(Some(1), "blue")).unwrap().unwrap();
    assert_eq!((queued.attempt, queued.agent.as_str(), queued.lease.as_str()), (0, "", ""));
    assert_eq!(queued.resumes().unwrap().answer.as_deref(), Some("blue"));
    // Who did not hear that it was taken may say it again, but not otherwise.
    assert_eq!(step(&queued, &answer(Some(1), "blue")), Ok(None));
    assert_eq!(step(&queued, &answer(None, "blue")), Ok(None));
    assert_eq!(step(&queued, &answer(None, "red")).unwrap_err().err_code, 30416);
    let again = step(&queued, &assign("L2")).unwrap().unwrap();
    assert_eq!((again.attempt, again.deliveries), (1, 2));
    assert!(again.resumes().is_none() && step(&again, &ask("L1", false)).is_err());
    assert_eq!(step(&again, &complete("L1", "d")).unwrap_err().err_code, 30409, "the parked lease is over");
    // An assignment that came to nothing keeps the place, a failure does not.
    let back = step(&again, &Event::AcceptTimeout).unwrap().unwrap();
    assert!(back.resumes().is_some() && back.attempt == 0);
    let failed = Event::Fail { lease: "L2".into(), error: "x".into(), retry: true, delay: Some(Duration::ZERO) };
    let failed = Record { questions: again.questions.clone(), ..step(&again, &failed).unwrap().unwrap() };
    assert_eq!((failed.phase, failed.attempt), (Phase::Queued, 1));
    let second = step(&again, &ask("L2", true)).unwrap().unwrap();
    assert_eq!(second.questions[1].number, 2);
    assert_eq!(step(&second, &answer(Some(1), "blue")), Ok(None));
    assert_eq!(step(&second, &answer(Some(1), "red")).unwrap_err().err_code, 30416);
    let dead = step(&second, &fail("L2", false)).unwrap().unwrap();
    assert!(step(&dead, &Event::Requeue { blocked: false }).unwrap().unwrap().questions.is_empty());
}

#[test]
fn cancels_go_for_descendants_when_they_say_so() {
    let cancel = |descendants| Event::Cancel { reason: "why".into(), force: false, descendants };
    let with = |record: &Record, event: &Event| step(record, event).unwrap().map(|next| (next.phase, next.descendants));
    let running = record(Phase::Running);
    assert_eq!(with(&running, &cancel(Descendants::Apart)), Some((Phase::Cancelling, Descendants::Apart)));
    assert_eq!(with(&running, &cancel(Descendants::Due)), Some((Phase::Cancelling, Descendants::Due)));
    assert_eq!(with(&running, &Event::DescendantsCanceled), None);
    let canceled = step(&record(Phase::Queued), &cancel(Descendants::Apart)).unwrap().unwrap();
    assert_eq!(with(&canceled, &cancel(Descendants::Apart)), None);
    let due = step(&canceled, &cancel(Descendants::Due)).unwrap().unwrap();
    assert_eq!((due.phase, due.descendants), (Phase::Canceled, Descendants::Due));
    for again in [Descendants::Apart, Descendants::Due, Descendants::Done] {
        assert_eq!(with(&due, &cancel(again)), None);
    }
    let done = step(&due, &Event::DescendantsCanceled).unwrap().unwrap();
    assert_eq!((done.phase, done.descendants), (Phase::Canceled, Descendants::Done));
    assert_eq!(with(&done, &cancel(Descendants::Due)), Some((Phase::Canceled, Descendants::Due)));
    assert_eq!(with(&done, &Event::Requeue { blocked: false }), Some((Phase::Queued, Descendants::Apart)));
}

#[test]
fn blocked_tasks_keep_their_time_and_waiting_ones_their_place() {
    let mut blocked = record(Phase::Blocked);
    blocked.wake = NOW + Duration::from_secs(1);
    let next = step(&blocked, &Event::Unblocked).unwrap().unwrap();
    assert_eq!((next.phase, next.wake), (Phase::Scheduled, blocked.wake));
    let dead = step(&blocked, &Event::DependencyFailed { fate: "t0 canceled".into() }).unwrap().unwrap();
    assert_eq!((dead.reason.as_str(), dead.attempt), ("dependency", 0));
    assert_eq!(dead.fault.unwrap().error, "t0 canceled");
    let mut queued = record(Phase::Queued);
    queued.queued = NOW - Duration::from_secs(9);
    let assigned = step(&queued, &Event::Assign { agent: "ann".into(), lease: "L1".into() }).unwrap().unwrap();
    assert_eq!(assigned.had, None, "only tasks with a token remember");
    let back = step(&assigned, &Event::AcceptTimeout).unwrap().unwrap();
    assert_eq!(back.queued, queued.queued);
    assert_eq!(step(&blocked, &Event::Unblocked).unwrap().unwrap().queued, Timestamp::ZERO);
    queued.sticky = "s".into();
    let assigned = step(&queued, &Event::Assign { agent: "ann".into(), lease: "L1".into() }).unwrap().unwrap();
    assert_eq!(assigned.had, Some(Box::new(Had { agent: "ann".into(), at: NOW })));
}

#[test]
fn attempts_and_faults_are_counted() {
    let mut task = record(Phase::Queued);
    for attempt in 1..=3 {
        task = step(&task, &Event::Assign { agent: "ann".into(), lease: format!("L{attempt}") }).unwrap().unwrap();
        assert_eq!(task.attempt, attempt);
        task = step(&task, &fail(&format!("L{attempt}"), true)).unwrap().unwrap();
        assert_eq!(task.fault.as_ref().unwrap().attempt, attempt);
        if attempt < 3 {
            assert!(task.wake > NOW && task.lease.is_empty() && task.agent.is_empty());
            task = step(&task, &Event::Due).unwrap().unwrap();
        }
    }
    assert_eq!((task.phase, task.reason.as_str()), (Phase::Dead, "attempts used"));
    let again = step(&task, &Event::Requeue { blocked: false }).unwrap().unwrap();
    assert_eq!((again.run, again.attempt, again.excluded.len()), (2, 0, 0));
    // Neither an accept timeout nor a decline counts.
    let assigned = step(&again, &Event::Assign { agent: "bob".into(), lease: "L9".into() }).unwrap().unwrap();
    assert_eq!(step(&assigned, &Event::AcceptTimeout).unwrap().unwrap().attempt, 0);
    let declined = step(&assigned, &Event::Decline { lease: "L9".into(), others: true }).unwrap().unwrap();
    assert_eq!((declined.attempt, declined.excluded), (0, vec!["bob".to_owned()].into()));
}

fn any_event() -> impl Strategy<Value = Event> {
    let lease = (0u32..6).prop_map(|n| format!("L{n}"));
    let digest = prop_oneof![Just("d".to_owned()), Just("e".to_owned())];
    prop_oneof![
        Just(Event::Due),
        Just(Event::Assign { agent: "ann".into(), lease: String::new() }),
        Just(Event::Delivered),
        Just(Event::AcceptTimeout),
        (lease.clone(), digest).prop_map(|(lease, digest)| Event::Complete { lease, digest }),
        (lease.clone(), any::<bool>(), any::<bool>()).prop_map(|(lease, retry, now)| Event::Fail {
            lease,
            error: "x".into(),
            retry,
            delay: now.then_some(Duration::ZERO),
        }),
        (lease.clone(), any::<bool>()).prop_map(|(lease, auth)| ask(&lease, auth)),
        (proptest::option::of(1u32..4), 0u32..3).prop_map(|(number, text)| answer(number, &text.to_string())),
        lease.clone().prop_map(|lease| Event::Nak { lease, error: "x".into(), retry: true, delay: None }),
        prop_oneof![Just(Descendants::Due), Just(Descendants::Done)].prop_map(|descendants| Event::Cancel {
            reason: "why".into(),
            force: false,
            descendants
        }),
        Just(Event::DescendantsCanceled),
        (lease, any::<bool>()).prop_map(|(lease, others)| Event::Decline { lease, others }),
        Just(Event::LeaseExpired),
        Just(Event::AgentLost),
        Just(Event::TimedOut),
        Just(Event::DeadlinePassed),
        any::<bool>().prop_map(cancel),
        Just(Event::CancelOver),
        any::<bool>().prop_map(|blocked| Event::Requeue { blocked }),
        Just(Event::Unblocked),
        Just(Event::DependencyFailed { fate: "gone".into() }),
        Just(Event::Purge { reason: "why".into() }),
        Just(Event::Forget),
        (0u32..6).prop_map(|n| Event::Unserved { lease: format!("L{n}") }),
    ]
}

proptest! {
    #[test]
    fn laws(events in proptest::collection::vec(any_event(), 1..120)) {
        let mut random = Random::new(3);
        let pauses = Backoff::default();
        let mut task = Record { result_to: "results.t".into(), ..record(Phase::Queued) };
        let mut leases_given = 0;
        let mut completions = 0;
        for mut event in events {
            if let Event::Assign { lease, .. } = &mut event {
                *lease = format!("L{leases_given}");
            }
            let outcome = task.handle(&event, &mut Context { now: NOW, pauses: &pauses, random: &mut random });
            if let Event::Complete { lease, .. } | Event::Fail { lease, .. } | Event::Decline { lease, .. } = &event {
                let current = (task.phase.is_leased() || task.phase.is_parked()) && task.lease == *lease;
                let repeated = matches!(&task.completion, Some(done) if done.lease == *lease);
                prop_assert!(outcome.is_err() || current || repeated, "a stale lease was accepted");
            }
            let Ok(Some(next)) = outcome else { continue };
            if matches!(event, Event::Assign { .. }) {
                leases_given += 1;
            }
            if next.phase == Phase::Completed && task.phase != Phase::Completed {
                completions += 1;
            }
            prop_assert_eq!(next.state, next.phase.state());
            prop_assert!(next.attempt <= next.max_attempts, "attempts are bounded");
            let has_lease = next.phase.is_leased() || next.phase.is_parked();
            prop_assert_eq!(has_lease, !next.lease.is_empty(), "exactly leased and parked phases have a lease");
            let family = matches!(event, Event::DescendantsCanceled);
            prop_assert!(task.phase != Phase::Completed || family, "a completed task never changes");
            let open = next.questions.last().is_some_and(|question| question.answer.is_none());
            prop_assert!(!next.phase.is_parked() || open, "a parked task has an open question");
            if matches!(event, Event::Ask { .. }) && next.phase.is_parked() {
                prop_assert_eq!(next.attempt, task.attempt);
            }
            prop_assert!(!next.result_due || next.phase.is_final(), "there is a result to send before the end");
            task = next;
        }
        prop_assert!(completions <= 1);
    }
}

#[test]
fn every_end_is_due_where_the_result_was_wanted() {
    let due = |from: Phase, event: Event| {
        let task = Record { result_to: "results.t".into(), ..record(from) };
        step(&task, &event).unwrap().unwrap().result_due
    };
    assert!(due(Phase::Running, complete("L1", "d")));
    assert!(due(Phase::Running, fail("L1", false)));
    assert!(due(Phase::Queued, cancel(false)));
    assert!(!due(Phase::Running, cancel(false)), "its agent is only told");
    assert!(due(Phase::Cancelling, Event::CancelOver));
    assert!(due(Phase::Queued, Event::Purge { reason: "why".into() }));
    assert!(due(Phase::Assigned, Event::Decline { lease: "L1".into(), others: false }));
    assert!(!due(Phase::Dead, Event::Forget), "its death was told");
    assert!(!due(Phase::Dead, Event::Requeue { blocked: false }));
}

#[test]
fn a_record_keeps_that_its_dependencies_were_completed() {
    let blocked = Record { after: vec!["first".into()].into(), ..record(Phase::Blocked) };
    let queued = step(&blocked, &Event::Unblocked).unwrap().unwrap();
    assert!(queued.met);
    let dead = step(&queued, &Event::DeadlinePassed).unwrap().unwrap();
    assert!(dead.met && step(&dead, &Event::Requeue { blocked: false }).unwrap().unwrap().met);
    let failed = step(&blocked, &Event::DependencyFailed { fate: "first failed".into() }).unwrap().unwrap();
    assert!(!failed.met && !step(&failed, &Event::Requeue { blocked: true }).unwrap().unwrap().met);
}
