//! The task's state machine as the design states it, written down a second time so that the code is held to it: which
//! phase may follow which in a task's history, and which state each phase belongs to.

/// (from, to). A submission that an agent can take at once is stored as assigned already; an assignment that was seen to
/// be delivered counts as running, stored so or not.
const EDGES: &[(&str, &[&str])] = &[
    ("-", &["queued", "scheduled", "blocked", "assigned"]),
    // The timer; dependencies completed; CANCEL; the deadline, or a dependency that failed.
    ("scheduled", &["queued", "canceled", "dead"]),
    ("blocked", &["queued", "scheduled", "canceled", "dead"]),
    ("backing-off", &["queued", "canceled", "dead"]),
    // The scheduler.
    ("queued", &["assigned", "canceled", "dead"]),
    // Delivery; accept timeout, DECLINE or the agent's end; COMPLETE; FAIL, nak, the lease's end; attempts used, TERM,
    // timeout, deadline; CANCEL; everybody declined.
    (
        "assigned",
        &[
            "running",
            "queued",
            "completed",
            "backing-off",
            "dead",
            "cancelling",
            "canceled",
            "rejected",
            "input-required",
            "auth-required",
        ],
    ),
    (
        "running",
        &[
            "queued",
            "completed",
            "backing-off",
            "dead",
            "cancelling",
            "canceled",
            "rejected",
            "input-required",
            "auth-required",
        ],
    ),
    // ANSWER; or the agent goes on without it, gives up or is canceled.
    ("input-required", &["queued", "completed", "backing-off", "dead", "canceled", "rejected"]),
    ("auth-required", &["queued", "completed", "backing-off", "dead", "canceled", "rejected"]),
    // The agent confirms, completes all the same, or the grace ends.
    ("cancelling", &["canceled", "completed", "dead"]),
    // REQUEUE; and again the same when the end was told where the result was wanted.
    ("dead", &["queued", "blocked", "dead"]),
    ("canceled", &["queued", "blocked", "canceled"]),
    ("rejected", &["queued", "blocked", "rejected"]),
    ("completed", &["completed"]),
];

/// The same of a pull queue's tasks: nobody assigns them. What workers do is told by the broker, often late: a delivery that
/// was short is known by its ack alone.
const PULLED: &[(&str, &[&str])] = &[
    ("-", &["queued", "scheduled", "blocked"]),
    ("scheduled", &["queued", "canceled", "dead"]),
    ("blocked", &["queued", "scheduled", "canceled", "dead"]),
    // Delivery; ack; term, deliveries used, the deadline; CANCEL, at once.
    ("queued", &["running", "completed", "dead", "canceled"]),
    // Another delivery, or a nak.
    ("running", &["running", "completed", "dead", "canceled"]),
    ("dead", &["queued", "blocked", "dead"]),
    ("canceled", &["queued", "blocked", "canceled"]),
    ("completed", &["completed"]),
];

/// Whether `to` may follow `from` in a history; `-` is the time before the submission.
pub fn may_follow(from: &str, to: &str) -> bool {
    is_edge(EDGES, from, to)
}

/// As [`may_follow`], of a pull queue's task.
pub fn may_follow_pulled(from: &str, to: &str) -> bool {
    is_edge(PULLED, from, to)
}

/// Whether one of `edges` leads from one to the other.
pub fn is_edge(edges: &[(&str, &[&str])], from: &str, to: &str) -> bool {
    edges.iter().any(|(known, next)| *known == from && next.contains(&to))
}

/// The state a phase belongs to.
pub fn state_of(phase: &str) -> Option<&'static str> {
    Some(match phase {
        "queued" | "scheduled" | "blocked" | "backing-off" | "assigned" => "submitted",
        "running" | "cancelling" => "working",
        "input-required" => "input-required",
        "auth-required" => "auth-required",
        "completed" => "completed",
        "dead" => "failed",
        "canceled" => "canceled",
        "rejected" => "rejected",
        _ => return None,
    })
}

pub fn is_final(phase: &str) -> bool {
    matches!(phase, "completed" | "dead" | "canceled" | "rejected")
}

/// Whether an agent holds the task, or holds it again once it is answered.
pub fn is_leased(phase: &str) -> bool {
    matches!(phase, "assigned" | "running" | "cancelling") || is_parked(phase)
}

/// Whether an agent waits for an answer.
pub fn is_parked(phase: &str) -> bool {
    matches!(phase, "input-required" | "auth-required")
}

#[test]
fn the_table_is_closed_and_every_phase_leads_to_an_end() {
    for edges in [EDGES, PULLED] {
        let known = |phase: &str| edges.iter().any(|(from, _)| *from == phase);
        for (from, next) in edges {
            for to in *next {
                assert!(known(to) && state_of(to).is_some(), "{from} leads to {to}");
            }
            assert!(is_final(from) || *from == "-" || next.iter().any(|to| is_final(to)), "{from} ends nowhere");
        }
    }
    assert!(!may_follow("completed", "queued") && !may_follow("-", "completed") && !may_follow("queued", "completed"));
    assert!(may_follow_pulled("queued", "completed") && !may_follow_pulled("queued", "assigned"));
}
