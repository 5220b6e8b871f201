//! Some of the suite against the coordinator that our broker embeds, with the settings it has there: this very program again,
//! told by `NATTERJACK_EMBEDDED`. Those are left out whose times would be long with these settings, and those that end a
//! coordinator while its broker lives.

use tokio::time::Instant;

use super::again::{Again, names};
use super::tools::toolchain;

const THERE: &[&str] = &[
    "dead_letters::three_failed_attempts_end_in_a_dead_letter",
    "fencing::",
    "lifecycle::a_pull_queue_needs_nothing_but_pull_and_ack",
    "lifecycle::a_task_flows_from_submit_to_result",
    "lifecycle::agents_are_told_how_long_their_leases_last",
    "lifecycle::declining_excludes_and_the_last_decline_rejects",
    "lifecycle::failures_retry_and_end_as_a_dead_letter_that_can_be_requeued",
    "lifecycle::finished_tasks_are_purged_after_the_retention_their_queue_has_by_then",
    "lifecycle::ids_are_idempotent_and_lists_and_services_show_what_is",
    "lifecycle::leases_expire_and_signs_of_life_extend_them",
    "lifecycle::the_same_submission_twice_at_once_is_one_and_changes_nothing",
    "lifecycle::whoever_waits_for_a_result_hears_of_a_cancel_and_a_rejection",
    "scheduling::a_purge_cancels_what_nobody_works_on",
    "scheduling::many_submits_in_a_row_may_name_one_another",
    "services::errors_tell_whether_to_try_again",
];

#[test]
fn a_part_of_the_suite_holds_on_the_embedded_coordinator() {
    if Again::is() {
        return;
    }
    let all = names();
    for beginning in THERE {
        assert!(all.iter().any(|name| name.starts_with(beginning)), "no test is called {beginning}...");
    }
    let there: Vec<String> =
        all.into_iter().filter(|name| THERE.iter().any(|beginning| name.starts_with(beginning))).collect();
    let begun = Instant::now();
    let outcome = Again::run("NATTERJACK_EMBEDDED", "1".as_ref(), &there);
    toolchain::announce(&format!(
        "a part of the coordinator's suite on the embedded one: {outcome} in {:.0?}",
        begun.elapsed()
    ));
}
