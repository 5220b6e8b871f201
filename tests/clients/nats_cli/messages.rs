//! Messages shown in part, written to files, and answered by several.

use super::Cli;

#[test]
fn messages_are_shown_in_part_and_kept_in_files() {
    let Some(cli) = Cli::new("sub in part and to files, req of several") else { return };
    let mut headers = cli.start("sub pond.x --headers-only --count 1");
    let mut dump = cli.start("sub pond.x --dump dumped --count 1");
    let _first = cli.start("reply pond.x 'first {{Count}}' --queue one");
    let _second = cli.start("reply pond.x 'second {{Count}}' --queue two");
    cli.until("req pond.x hello -H Colour:green --replies 2 --reply-timeout 5s --raw", "second");
    while !(headers.finished() && dump.finished()) {
        let answers = cli.run("req pond.x hello -H Colour:green --replies 2 --reply-timeout 10s --raw");
        assert!(answers.contains("first") && answers.contains("second"), "{answers}");
    }
    let shown = headers.rest();
    assert!(shown.contains("Colour: green") && !shown.contains("hello"), "{shown}");
    let kept = std::fs::read_to_string(cli.home.path().join("dumped/1.json")).expect("a file for the message");
    let kept: serde_json::Value = serde_json::from_str(&kept).expect("JSON");
    assert_eq!((&kept["Subject"], &kept["Header"]["Colour"][0]), (&"pond.x".into(), &"green".into()));
}

#[test]
fn a_stream_is_read_from_a_time_on_and_from_now_on() {
    let Some(cli) = Cli::new("sub --since and --new") else { return };
    cli.run("stream add TASKS --subjects 'tasks.>' --defaults");
    cli.run("pub tasks.a 'task {{Count}}' --count 3");
    cli.check("sub --stream TASKS --since 1h --count 2 --raw", &["task 1", "task 2"]);
    let mut newest = cli.start("sub tasks.a --stream TASKS --new --count 1 --raw");
    while !newest.finished() {
        cli.run("pub tasks.a late");
    }
    assert_eq!(newest.rest().trim(), "late");
}
