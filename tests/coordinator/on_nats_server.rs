//! The same suite against the real nats-server: this very program again, told by `NATS_SERVER_BIN`. Whatever test is added
//! here runs there as well, but for those that are named below; who starts a broker of ours there is told to be named.

use tokio::time::Instant;

use super::again::{Again, names};
use super::tools::{nats_server, toolchain};

/// Tests that say nothing about nats-server, whole modules or one by one, and why.
const OURS_ALONE: &[(&str, &str)] = &[
    ("accounts::", "coordinators that our broker embeds, one for each account that asks"),
    ("adopt::the_config_file", "the config file of our broker"),
    ("cluster::", "it has nats-servers of its own"),
    ("councils::who_may_form_lends_no_rights_of_the_coordinator", "what our broker lets users name in requests"),
    ("permissions::a_restricted_user_lends_no_rights_of_the_coordinator", "the same"),
    ("permissions::tasks_are_submitted_read_and_told_of", "users and permissions of our broker's own config"),
    ("permissions::where_results_may_go_is_the_administrators_to_say", "the config file of our broker"),
    ("presence::the_end_of_a_socket_", "connections that our broker tells its own coordinator of"),
    ("supervision::a_cut_coordinator_", "how our broker starts its own coordinator again"),
    ("supervision::a_task_in_flight_", "the same, and our /healthz"),
    ("on_embedded::", "the coordinator that our broker embeds"),
    ("on_nats_server::", "this"),
];

#[test]
fn the_suite_holds_on_nats_server() {
    const TEST: &str = "the coordinator's suite on nats-server";
    if Again::is() {
        return;
    }
    let Some(server) = toolchain::or_skip(TEST, nats_server::find()) else { return };
    let all = names();
    for (beginning, _) in OURS_ALONE {
        assert!(all.iter().any(|name| name.starts_with(beginning)), "no test is called {beginning}...");
    }
    let is_ours = |name: &String| OURS_ALONE.iter().any(|(beginning, _)| name.starts_with(beginning));
    let (ours, there): (Vec<String>, Vec<String>) = all.into_iter().partition(is_ours);
    let begun = Instant::now();
    let version = std::process::Command::new(&server).arg("--version").output().expect("it tells its version").stdout;
    let outcome = Again::run("NATS_SERVER_BIN", server.as_os_str(), &there);
    toolchain::announce(&format!(
        "{TEST} ({}): {outcome}, {} are about our broker alone, in {:.0?}",
        String::from_utf8_lossy(&version).trim(),
        ours.len(),
        begun.elapsed()
    ));
}
