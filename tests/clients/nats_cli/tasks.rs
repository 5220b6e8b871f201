//! The task coordinator's buckets and service, with commands that know nothing of tasks.

use super::Cli;

#[test]
fn tasks_and_agents_are_seen_in_their_buckets_and_the_service_in_its_figures() {
    let Some(cli) = Cli::new("tasks") else { return };
    if cli.server.is_real() {
        return; // It has no coordinator.
    }
    cli.check(r#"req $TASK.API.AGENT.REGISTER.ann '{"queues":["fix"]}' --raw"#, &[r#""agent":"ann""#]);
    cli.check("req $TASK.API.SUBMIT 'mend the fence' -H Task-Id:fence -H Task-Queue:fix --raw", &[r#""id":"fence""#]);
    cli.until("kv ls TASK", "a.ann.fence");
    let keys = cli.run("kv ls TASK");
    let mut keys: Vec<_> = keys.split_whitespace().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a.ann.fence", "p.fence", "s.fence"]);
    let status = cli.json("kv get TASK s.fence --raw");
    assert_eq!(status["queue"], "fix", "{status}");
    cli.check("kv get TASK p.fence", &["mend the fence"]);
    cli.check("kv history TASK s.fence", &["s.fence", "PUT"]);
    cli.check("kv ls TASK_AGENTS", &["ann"]);
    assert_eq!(cli.json("kv get TASK_AGENTS ann --raw")["status"], "online");
    cli.check("kv history TASK_AGENTS ann", &["ann", "PUT"]);
    cli.check("kv ls", &["TASK", "TASK_AGENTS"]);

    cli.check("micro ls", &["tasks", "Durable tasks for agents that speak NATS"]);
    cli.check("micro info tasks", &["$TASK.API.SUBMIT", "$TASK.API.AGENT.REGISTER.*"]);
    let stats = cli.run("micro stats tasks");
    let submit = stats.lines().find(|line| line.contains("SUBMIT")).unwrap_or_else(|| panic!("{stats}"));
    let columns: Vec<&str> = submit.split('│').map(str::trim).collect();
    assert_eq!((columns[2], columns[3], columns[5]), ("SUBMIT", "1", "0"), "{stats}");
    cli.check("micro ping", &["tasks"]);
}
