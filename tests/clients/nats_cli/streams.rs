//! `nats stream`: what an operator looks up in streams and does to them, beyond the everyday script.

use super::Cli;

#[test]
fn streams_are_searched_copied_purged_in_part_and_sealed() {
    let Some(cli) = Cli::new("streams in detail") else { return };
    cli.check("stream add TASKS --subjects 'tasks.>' --defaults --tag pond --metadata team=toads", &["pond", "toads"]);
    cli.run("stream add EMPTY --subjects empty --defaults");
    cli.run("pub tasks.a 'task {{Count}}' --count 5");
    cli.check("pub tasks.b six -J", &["Stored in Stream: TASKS Sequence: 6"]);

    cli.check("stream state TASKS", &["Messages: 6", "Last Sequence: 6", "Number of Subjects: 2"]);
    assert_eq!(cli.run("stream find --empty --names").trim(), "EMPTY");
    cli.check("stream report", &["TASKS", "EMPTY", "6"]);
    cli.refused("stream get TASKS 99", "no message found (10037)");
    cli.refused("stream cluster peer-remove TASKS other -f", "clustering support required (10010)");
    cli.refused("stream add R3 --subjects r3 --replicas 3 --defaults", "(10074)");
    cli.refused("stream add OVER --subjects tasks.a --defaults", "(10065)");

    cli.run("stream rmm TASKS 3 -f");
    cli.check("stream gaps TASKS -f", &["1 gap found"]);
    cli.check("stream purge TASKS --subject tasks.b -f", &["Messages: 4"]);
    cli.check("stream purge TASKS --seq 3 -f", &["Messages: 2", "First Sequence: 4"]);
    cli.check("stream purge TASKS --keep 1 -f", &["Messages: 1", "First Sequence: 5"]);

    cli.check("stream copy TASKS COPY --subjects 'copy.>'", &["copy.>", "pond"]);
    cli.check("stream seal COPY -f", &["Sealed: true"]);
    cli.refused("pub copy.x late -J", "sealed stream (10109)");
}

#[test]
fn mirrors_and_sources_are_filled_reported_and_checked() {
    let Some(cli) = Cli::new("mirrors and sources") else { return };
    cli.run("stream add ORIGIN --subjects 'o.>' --defaults");
    cli.run("pub o.a 'm{{Count}}' --count 5");
    cli.run("pub o.b other");
    cli.check(r#"stream add COPY --mirror '{"name":"ORIGIN"}' --defaults"#, &["Mirror: ORIGIN"]);
    let add = r#"stream add SOME --source '{"name":"ORIGIN","filter_subject":"o.a"}' --defaults"#;
    cli.check(add, &["Sources: ORIGIN"]);
    cli.until("stream info COPY", "Messages: 6");
    cli.until("stream info SOME", "Messages: 5");
    cli.check("stream info COPY", &["Mirror Information", "Stream Name: ORIGIN", "Lag: 0", "Bytes: 213 B"]);
    cli.check("stream info SOME", &["Source Information", "Subject Filter: o.a", "Lag: 0", "Last Sequence: 5"]);
    cli.check("stream get COPY 6", &["other", "o.b"]);
    cli.check("stream get SOME 5", &["m5", "Nats-Stream-Source: ORIGIN 5"]);
    cli.check("stream report", &["Replication Report", "Mirror", "o.a untransformed"]);
    cli.check("server check stream --stream COPY --lag-critical 10 --seen-critical 1h", &["OK COPY", "Mirror ORIGIN"]);
    let sources = "server check stream --stream SOME --min-sources 1 --max-sources 1 --lag-critical 10";
    cli.check(sources, &["OK SOME", "1 sources current"]);
    cli.refused("server check stream --stream SOME --min-sources 2 --max-sources 3", "CRITICAL SOME");
    cli.refused("server check stream --stream ORIGIN --lag-critical 10", "not mirrored");
    let circle = r#"stream add TWICE --source '{"name":"ORIGIN"}' --source '{"name":"COPY"}' --defaults"#;
    cli.refused(circle, "detected cycle (10052)");
}

#[test]
fn counters_count() {
    let Some(cli) = Cli::new("counters") else { return };
    cli.check("stream add COUNTS --subjects 'count.>' --allow-counter --allow-direct --defaults", &["Counters: true"]);
    cli.run("pub count.a '' -H Nats-Incr:+5 -J");
    cli.run("pub count.a '' -H Nats-Incr:-2 -J");
    cli.check("stream get COUNTS -S count.a", &[r#"{"val":"3"}"#]);
}

#[test]
fn streams_are_subscribed_to_from_where_one_likes() {
    let Some(cli) = Cli::new("subscriptions to streams") else { return };
    cli.run("stream add TASKS --subjects 'tasks.>' --defaults");
    cli.run("pub tasks.a 'task {{Count}}' --count 9");
    cli.run("consumer add TASKS worker --pull --defaults");
    // The command may print more than it counts, on any server: all that it was sent before it stops.
    cli.check("sub --stream TASKS --all --count 3 --raw", &["task 1\n", "task 3"]);
    cli.check("sub --stream TASKS --durable worker --count 2", &["seq 1 /", "seq 2 /"]);
    cli.check("sub tasks.a --last --count 1 --raw", &["task 9"]);
    cli.check("sub tasks.a --last-per-subject --count 1 --raw", &["task 9"]);
    cli.check("sub tasks.a --start-sequence 8 --count 2", &["task 8", "task 9"]);
}

#[test]
fn a_stream_is_backed_up_and_restored() {
    let Some(cli) = Cli::new("stream backup and restore") else { return };
    cli.run("stream add TASKS --subjects 'tasks.>' --defaults");
    cli.run("pub tasks.a 'task {{Count}}' --count 5");
    cli.run("consumer add TASKS worker --pull --defaults");
    cli.run("consumer next TASKS worker --ack --count 2");
    cli.check("stream backup TASKS saved --no-progress --check", &["Starting backup of Stream \"TASKS\"", "Received"]);
    cli.refused("stream restore saved --no-progress", "already exist");
    cli.run("stream rm TASKS -f");
    cli.check("stream restore saved --no-progress", &["Restored stream \"TASKS\"", "Messages: 5", "tasks.>"]);
    cli.check("consumer next TASKS worker --raw", &["task 3"]);
    cli.refused("stream backup NOBODY other --no-progress", "stream not found (10059)");
}

#[test]
fn streams_are_described_in_full_and_edited_on_trial() {
    let Some(cli) = Cli::new("all about a stream") else { return };
    let more = "--republish-source 'r.>' --republish-destination 'copy.>' --first-sequence 100";
    cli.check(
        &format!("stream add R --subjects 'r.>' {more} --defaults"),
        &["Republishing: r.> to copy.>", "First Sequence: 100"],
    );
    let mut copies = cli.start("sub 'copy.>' --raw --count 1");
    while !copies.finished() {
        cli.run("pub r.a again");
    }
    assert_eq!(copies.rest().trim(), "again");
    cli.check("stream get R 100", &["r.a", "again"]);
    let transform = "--transform-source 't.*' --transform-destination 'moved.{{wildcard(1)}}'";
    let add = format!("stream add T --subjects 't.>' {transform} --defaults");
    cli.check(&add, &["Subject Transform: t.* to moved.{{wildcard(1)}}"]);
    cli.run("pub t.x here -J");
    cli.check("stream get T 1", &["moved.x"]);
    let config = r#"{"name":"CFG","subjects":["cfg.>"],"storage":"memory","retention":"workqueue","num_replicas":1}"#;
    std::fs::write(cli.home.path().join("stream.json"), config).expect("a file");
    cli.check("stream add CFG --config stream.json", &["Retention: WorkQueue", "Storage: Memory"]);

    // With a difference it fails.
    cli.refused("stream edit CFG --description toads --dry-run", "\"toads\"");
    let info = cli.json("stream info CFG --json");
    assert!(info["config"]["description"].is_null(), "it was on trial: {info}");
    cli.refused("stream cluster step-down CFG", "is not clustered");
    let step_down = cli.run("req $JS.API.STREAM.LEADER.STEPDOWN.CFG '' --raw");
    assert!(step_down.contains("10010"), "{step_down}");
}
