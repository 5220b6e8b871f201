//! Where delivery starts, by policy.

use super::*;

/// What a first pull gets, and `delivered` and pending before it.
fn check(config: ConsumerConfig, subjects: &[&str], delivered: &str, pending: u64, expected: &[&str]) {
    let mut world = World::new(config, subjects);
    world.expect_state(&delivered.replace("d", "0"), delivered, [0, 0, pending, 0]);
    world.pull("r", "99").expect(expected);
}

#[test]
fn policies() {
    let policy = |deliver_policy| ConsumerConfig { deliver_policy, ..explicit() };
    let subjects = ["a", "b", "a"];
    check(policy(DeliverPolicy::All), &subjects, "0/0", 3, &["r <- 1/1 x1 +2", "r <- 2/2 x1 +1", "r <- 3/3 x1 +0"]);
    check(policy(DeliverPolicy::Last), &subjects, "0/2", 1, &["r <- 3/1 x1 +0"]);
    check(policy(DeliverPolicy::New), &subjects, "0/3", 0, &[]);
    let by_seq = |opt_start_seq| ConsumerConfig { opt_start_seq, ..policy(DeliverPolicy::ByStartSequence) };
    check(by_seq(2), &subjects, "0/1", 2, &["r <- 2/1 x1 +1", "r <- 3/2 x1 +0"]);
    check(by_seq(9), &subjects, "0/8", 0, &[]);
    let last_b = ConsumerConfig { filter_subject: "b".into(), ..policy(DeliverPolicy::Last) };
    check(last_b, &subjects, "0/1", 1, &["r <- 2/1 x1 +0"]);
    let at = |seconds| ConsumerConfig {
        opt_start_time: Some(Timestamp(seconds * SECOND)),
        ..policy(DeliverPolicy::ByStartTime)
    };
    check(at(1), &subjects, "0/0", 3, &["r <- 1/1 x1 +2", "r <- 2/2 x1 +1", "r <- 3/3 x1 +0"]);
    check(at(2), &subjects, "0/3", 0, &[]);
    check(policy(DeliverPolicy::Last), &[], "0/0", 0, &[]);
    check(policy(DeliverPolicy::New), &[], "0/0", 0, &[]);
}

#[test]
fn a_purged_subject_leaves_the_rest_pending() {
    let mut world = World::new(explicit(), &["a", "b", "a", "c", "a", "b"]);
    world.purge_subject(Some("a")).expect_state("0/1", "0/1", [0, 0, 3, 0]);
    world.publish("a").expect_state("0/1", "0/1", [0, 0, 4, 0]);
    world.pull("r", "9").expect(&["r <- 2/1 x1 +3", "r <- 4/2 x1 +2", "r <- 6/3 x1 +1", "r <- 7/4 x1 +0"]);
}

#[test]
fn the_last_message_of_each_subject() {
    let config =
        ConsumerConfig { deliver_policy: DeliverPolicy::LastPerSubject, filter_subject: "k.*".into(), ..explicit() };
    let mut world = World::new(config, &["k.a", "k.b", "k.a", "x", "k.c", "k.b"]);
    world.expect_state("0/2", "0/2", [0, 0, 3, 0]);
    world.pull("r", "1").expect(&["r <- 3/1 x1 +2"]);
    world.publish("k.a").delete(5).expect_state("0/2", "1/3", [1, 0, 2, 0]);
    world.pull("r", "9").expect(&["r <- 6/2 x1 +1", "r <- 7/3 x1 +0"]);
    world.publish("k.d").expect(&["r <- 8/4 x1 +0"]);
}

#[test]
fn a_start_sequence_in_the_future_waits_for_it() {
    let config = ConsumerConfig { deliver_policy: DeliverPolicy::ByStartSequence, opt_start_seq: 3, ..explicit() };
    let mut world = World::new(config, &["a"]);
    world.pull("r", "9").publish("b").expect(&[]).publish("c").expect(&["r <- 3/1 x1 +0"]);
}
