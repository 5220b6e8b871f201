//! `nats consumer`: every kind of it, and what is done to it.

use super::Cli;

#[test]
fn consumers_are_found_edited_paused_copied_and_refused() {
    let Some(cli) = Cli::new("consumers in detail") else { return };
    cli.run("stream add TASKS --subjects 'tasks.>' --defaults");
    cli.run("pub tasks.a 'task {{Count}}' --count 20");
    cli.run("consumer add TASKS pull --pull --defaults");
    cli.check("consumer add TASKS --ephemeral --pull --defaults --inactive-threshold 1h", &["Inactive Threshold: 1h"]);
    let push = "consumer add TASKS push --target push.here --deliver all --ack none --replay instant --defaults";
    cli.check(push, &["Delivery Subject: push.here", "Ack Policy: None"]);
    cli.check("consumer add TASKS pin --pull --defaults --pinned-groups a --pinned-ttl 10s", &["Pinned"]);

    cli.check("consumer state TASKS pull", &["Unprocessed Messages: 20"]);
    cli.check("consumer next TASKS pull --no-ack --raw", &["task 1"]);
    cli.check("consumer next TASKS pull --nak", &["task 2", "Negative Acknowledged message"]);
    cli.check("consumer next TASKS pull --term", &["task 2", "tries: 2", "Terminated message"]);
    assert_eq!(cli.run("consumer find TASKS --push").trim(), "push");
    assert!(!cli.run("consumer find TASKS --pull").contains("push"));

    cli.check("consumer edit TASKS pull --description hey --max-pending 7 -f", &["hey", "7"]);
    cli.check("consumer copy TASKS pull copied", &["Name: copied", "hey"]);
    cli.check("consumer pause TASKS pull 1h -f", &["Paused TASKS > pull until"]);
    cli.check("consumer info TASKS pull", &["Paused Until Deadline"]);
    cli.check("consumer resume TASKS pull -f", &["was resumed while previously paused"]);
    cli.refused("consumer unpin TASKS pin a -f", "no priority groups have pinned clients");
    let pull = r#"'{"batch":1,"group":"a","expires":1000000000}'"#;
    cli.check(&format!("req $JS.API.CONSUMER.MSG.NEXT.TASKS.pin {pull}"), &["Nats-Pin-Id: ", "task 1"]);
    cli.check("consumer info TASKS pin", &["Priority Groups: a: pinned "]);
    cli.check("server check consumer --stream TASKS --consumer pin --pinned", &["OK TASKS_pin", "pinned_groups=1"]);
    cli.check("consumer unpin TASKS pin a -f", &["Unpinned client ", "from Priority Group TASKS > pin > a"]);
    cli.check("consumer info TASKS pin", &["Priority Groups: a: No client"]);
    cli.check("consumer report TASKS", &["pull", "push", "pin", "copied"]);
    cli.refused("consumer rm TASKS nobody -f", "consumer");
}

#[test]
fn consumers_are_edited_on_trial_and_have_one_leader() {
    let Some(cli) = Cli::new("consumers on trial") else { return };
    cli.run("stream add TASKS --subjects 'tasks.>' --defaults");
    cli.run("consumer add TASKS pull --pull --defaults");
    // With a difference it fails.
    cli.refused("consumer edit TASKS pull --description hey --dry-run", "\"hey\"");
    let info = cli.json("consumer info TASKS pull --json");
    assert!(info["config"]["description"].is_null(), "it was on trial: {info}");
    let config = r#"{"durable_name":"cfg","ack_policy":"explicit","max_deliver":3,"filter_subject":"tasks.x"}"#;
    std::fs::write(cli.home.path().join("consumer.json"), config).expect("a file");
    cli.check("consumer add TASKS --config consumer.json", &["cfg", "Maximum Deliveries: 3", "tasks.x"]);
    cli.refused("consumer cluster step-down TASKS pull", "is not clustered");
    let step_down = cli.run("req $JS.API.CONSUMER.LEADER.STEPDOWN.TASKS.pull '' --raw");
    assert!(step_down.contains("10010"), "{step_down}");
}
