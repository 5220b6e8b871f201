//! Pull consumers: requests, statuses, acks and redelivery.

use super::*;

#[test]
fn one_request_takes_one_message_and_a_batch_takes_turns() {
    let mut world = World::new(explicit(), &["a", "b", "c", "d"]);
    world.pull("r1", "").expect(&["r1 <- 1/1 x1 +3"]);
    world.pull("r2", "5").pull("r3", "{\"batch\":2}");
    world.expect(&["r2 <- 2/2 x1 +2", "r3 <- 3/3 x1 +1", "r2 <- 4/4 x1 +0"]);
    world.expect_state("0/0", "4/4", [4, 0, 0, 2]);
    world.publish("e").expect(&["r3 <- 5/5 x1 +0"]);
    world.publish("f").expect(&["r2 <- 6/6 x1 +0"]);
}

#[test]
fn requests_end_with_their_status() {
    let mut world = World::new(explicit(), &[]);
    world.pull("r", "{\"batch\":1,\"no_wait\":true}").expect(&["r <- 404 No Messages"]);
    world.pull("r", "{\"batch\":3,\"expires\":1000000000}").publish("a").expect(&["r <- 1/1 x1 +0"]);
    world.pass(1001).expect(&["r <- 408 Request Timeout Nats-Pending-Messages=2 Nats-Pending-Bytes=0"]);
    // What does not wait but has a lifetime waits for the first message, and ends behind it.
    world.pull("r", "{\"batch\":3,\"no_wait\":true,\"expires\":1000000000}").expect(&[]);
    world.publish("b").expect(&["r <- 2/2 x1 +0", "r <- 404 No Messages"]);
    world.pull("r", "{\"batch\":3,\"no_wait\":true,\"expires\":1000000000}").expect(&[]);
    world.pass(1001).expect(&["r <- 408 Request Timeout Nats-Pending-Messages=3 Nats-Pending-Bytes=0"]);
    world.publish("c").pull("r", "{\"batch\":3,\"no_wait\":true}").expect(&["r <- 3/3 x1 +0", "r <- 404 No Messages"]);
}

#[test]
fn requests_that_do_not_fit_are_refused() {
    let limits = ConsumerConfig {
        max_request_batch: 10,
        max_request_expires: GoDuration::from_secs(90),
        max_request_max_bytes: 100,
        max_waiting: 1,
        ..explicit()
    };
    let mut world = World::new(limits, &[]);
    world.pull("r", "11").expect(&["r <- 409 Exceeded MaxRequestBatch of 10"]);
    world.pull("r", "{\"batch\":1,\"expires\":91000000000}").expect(&["r <- 409 Exceeded MaxRequestExpires of 1m30s"]);
    world.pull("r", "{\"batch\":1,\"max_bytes\":101}").expect(&["r <- 409 Exceeded MaxRequestMaxBytes of 100"]);
    world.pull("r", "{\"batch\":1,\"expires\":10,\"idle_heartbeat\":6}");
    world.expect(&["r <- 400 Bad Request - heartbeat value too large"]);
    world
        .pull("r", "{\"batch\":1,\"min_pending\":6}")
        .expect(&["r <- 400 Bad Request - Not a Overflow Priority consumer"]);
    world.pull("r", "{\"batch\":1,\"id\":\"x\"}");
    world.expect(&["r <- 400 Bad Request - Not a Pinned Client Priority consumer"]);
    world
        .pull("r", "{\"batch\":1,\"priority\":10}")
        .expect(&["r <- 400 Bad Request - Priority must be between 0 and 9"]);
    assert!(world.pull("r", "{\"batch\":").poll()[0].starts_with("r <- 400 Bad Request - "));
    world.pull("r1", "1").pull("r2", "1").expect(&["r2 <- 409 Exceeded MaxWaiting"]);
    // Who expects heartbeats notices by their absence.
    world.pull("r3", "{\"batch\":1,\"expires\":1000,\"idle_heartbeat\":500}").expect(&[]);

    let mut push = World::new(ConsumerConfig { deliver_subject: "d".into(), ..explicit() }, &[]);
    push.pull("r", "1").expect(&["r <- 409 Consumer is push based"]);
}

#[test]
fn requests_in_waiting_are_bounded_by_what_they_hold() {
    let mut world = World::new(ConsumerConfig { max_waiting: i64::MAX, ..explicit() }, &[]);
    let reply = |number: u32| format!("{number}.{}", "r".repeat(4000));
    let full = (0..10_000).find(|number| {
        let answers = world.pull(&reply(*number), "1").poll();
        assert!(answers.is_empty() || answers[0].ends_with(" <- 409 Exceeded MaxWaiting"), "{answers:?}");
        !answers.is_empty()
    });
    assert!((900..1100).contains(&full.unwrap()), "{full:?}");
    // One that leaves makes room.
    world.publish("a").poll();
    world.pull("next", "1").expect(&[]);
    world.pull(&reply(0), "1").expect(&[]);
    world.pull("too many", "1").expect(&["too many <- 409 Exceeded MaxWaiting"]);
}

#[test]
fn no_wait_does_not_queue_behind_others() {
    let mut world = World::new(explicit(), &["a"]);
    world.pull("r1", "5").pull("r2", "{\"batch\":1,\"no_wait\":true}");
    world.expect(&["r2 <- 408 Requests Pending", "r1 <- 1/1 x1 +0"]);
}

#[test]
fn bytes_are_limited() {
    // Subject 1, payload 7 and the ack subject "$JS.ACK.S.C.1.1.1.1000000000.2".
    let size = 8 + "$JS.ACK.S.C.1.1.1.1000000000.2".len();
    let mut world = World::new(explicit(), &["a", "b", "c"]);
    world.pull("r", &format!("{{\"batch\":10,\"max_bytes\":{}}}", size - 1));
    let rest = format!("Nats-Pending-Messages=10 Nats-Pending-Bytes={}", size - 1);
    world.expect(&[&format!("r <- 409 Message Size Exceeds MaxBytes {rest}")]);
    world.pull("r", &format!("{{\"batch\":10,\"max_bytes\":{size}}}")).expect(&["r <- 1/1 x1 +2"]);
    world.pull("r", &format!("{{\"batch\":10,\"max_bytes\":{}}}", size + 5));
    let rest = "Nats-Pending-Messages=9 Nats-Pending-Bytes=5";
    world.expect(&["r <- 2/2 x1 +1", &format!("r <- 409 Message Size Exceeds MaxBytes {rest}")]);
    world.pull("r", &format!("{{\"batch\":1,\"max_bytes\":{}}}", size + 5));
    let rest = "Nats-Pending-Messages=0 Nats-Pending-Bytes=5";
    world.expect(&["r <- 3/3 x1 +0", &format!("r <- 409 Batch Completed {rest}")]);
}

#[test]
fn deserted_requests_are_dropped_without_a_word() {
    let mut world = World::new(explicit(), &[]);
    world.pull("r1", "1").pull("r2", "1").expect(&[]);
    world.leave("r1").publish("a").expect(&["r2 <- 1/1 x1 +0"]);
    world.pull("r1", "1").expect(&[]).expect_state("0/0", "1/1", [1, 0, 0, 0]);
}

#[test]
fn heartbeats_while_waiting() {
    let mut world = World::new(explicit(), &[]);
    world.pull("r", "{\"batch\":2,\"expires\":10000000000,\"idle_heartbeat\":1000000000}").expect(&[]);
    assert_eq!(world.consumer.next_deadline(), Some(Timestamp(2 * SECOND + 1)));
    world.pass(1001).expect(&["r <- 100 Idle Heartbeat Nats-Last-Consumer=0 Nats-Last-Stream=0"]);
    world.publish("a").expect(&["r <- 1/1 x1 +0"]);
    world.pass(1001).expect(&["r <- 100 Idle Heartbeat Nats-Last-Consumer=1 Nats-Last-Stream=1"]);
}

#[test]
fn acks_move_the_floor_over_gaps() {
    let mut world = World::new(explicit(), &["a", "b", "c", "d"]);
    world.pull("r", "4").poll();
    world.ack((2, 2, 1), "+ACK").expect_state("0/0", "4/4", [3, 0, 0, 0]);
    world.ack((1, 1, 1), "").expect_state("2/2", "4/4", [2, 0, 0, 0]);
    world.ack_sync((1, 1, 1), "+ACK", "again").expect(&["again <- taken"]);
    world.ack((4, 4, 1), "+ACK").expect_state("2/2", "4/4", [1, 0, 0, 0]);
    world.ack_sync((3, 3, 1), "+ACK", "sync").expect(&["sync <- taken"]).expect_state("4/4", "4/4", [0, 0, 0, 0]);
    // Never delivered: no answer.
    world.ack_sync((9, 9, 1), "+ACK", "never").expect(&[]);
    world.ack_sync((0, 0, 0), "+WPI", "zero").expect(&[]);
}

#[test]
fn ack_all_covers_what_came_before() {
    let mut world = World::new(ConsumerConfig { ack_policy: AckPolicy::All, ..explicit() }, &["a", "b", "c", "d"]);
    world.consumer.setup.reports_consumed = true;
    world.pull("r", "4").poll();
    world.ack_sync((3, 3, 1), "+ACK", "s").expect(&["consumed 1", "consumed 2", "consumed 3", "s <- taken"]);
    world.expect_state("3/3", "4/4", [1, 0, 0, 0]);
    world.ack_sync((2, 2, 1), "+ACK", "s").expect(&["s <- taken"]);
    world.ack((4, 4, 1), "+ACK").expect(&["consumed 4"]).expect_state("4/4", "4/4", [0, 0, 0, 0]);
}

#[test]
fn ack_none_is_done_on_delivery() {
    let mut world = World::new(ConsumerConfig { ack_policy: AckPolicy::None, ..explicit() }, &["a", "b"]);
    world.consumer.setup.reports_consumed = true;
    world.pull("r", "2").expect(&["r <- 1/1 x1 +1", "consumed 1", "r <- 2/2 x1 +0", "consumed 2"]);
    world.expect_state("2/2", "2/2", [0, 0, 0, 0]);
}

#[test]
fn what_is_not_acked_in_time_comes_again_in_stream_order() {
    let mut world = World::new(explicit(), &["a", "b", "c"]);
    world.pull("r", "3").poll();
    assert_eq!(world.consumer.next_deadline(), Some(Timestamp(31 * SECOND)));
    world.ack((2, 2, 1), "+ACK").pass(30_000).pull("s", "5");
    world.expect(&["s <- 1/4 x2 +0 after commit", "s <- 3/5 x2 +0 after commit"]);
    world.expect_state("0/0", "5/3", [2, 2, 0, 1]);
    // The floor goes by the first delivery.
    world.ack((1, 4, 2), "+ACK").expect_state("2/2", "5/3", [1, 1, 0, 1]);
    world.ack((3, 3, 1), "+ACK").expect_state("5/3", "5/3", [0, 0, 0, 1]);
}

#[test]
fn redeliveries_go_before_new_messages() {
    let mut world = World::new(explicit(), &["a", "b"]);
    world.pull("r", "1").poll();
    world.ack((1, 1, 1), "-NAK").pull("r", "2");
    world.expect(&["advisory nak 1 x1", "r <- 1/2 x2 +1 after commit", "r <- 2/3 x1 +0"]);
}

#[test]
fn nak_with_delay_waits_and_progress_prolongs() {
    let mut world = World::new(explicit(), &["a", "b"]);
    world.pull("r", "2").poll();
    world.ack((1, 1, 1), "-NAK {\"delay\": 5000000000}").pull("r", "9").expect(&["advisory nak 1 x1"]);
    world.pass(4_999).expect(&[]).pass(1).expect(&["r <- 1/3 x2 +0 after commit"]);
    world.pass(20_000).ack((2, 2, 1), "+WPI").pass(29_000);
    world.ack((1, 3, 2), "+ACK").expect(&[]).pass(1_000).expect(&["r <- 2/4 x2 +0 after commit"]);
}

#[test]
fn progress_counts_when_the_wait_is_changed() {
    let mut world = World::new(explicit(), &["a"]);
    world.pull("r", "9").poll();
    world.pass(20_000).ack((1, 1, 1), "+WPI").poll();
    world.update(ConsumerConfig { ack_wait: GoDuration::from_secs(25), ..explicit() });
    world.pass(24_999).expect(&[]).pass(1).expect(&["r <- 1/2 x2 +0 after commit"]);
}

#[test]
fn backoff_goes_by_delivery_count() {
    let backoff = vec![GoDuration::from_secs(1), GoDuration::from_secs(3)];
    let mut world = World::new(ConsumerConfig { backoff, ..explicit() }, &["a"]);
    world.pull("r", "9").expect(&["r <- 1/1 x1 +0"]);
    world.pass(999).expect(&[]).pass(1).expect(&["r <- 1/2 x2 +0 after commit"]);
    world.pass(2_999).expect(&[]).pass(1).expect(&["r <- 1/3 x3 +0 after commit"]);
    world.pass(2_999).expect(&[]).pass(1).expect(&["r <- 1/4 x4 +0 after commit"]);
}

#[test]
fn max_deliver_ends_it_with_an_advisory() {
    let mut world = World::new(ConsumerConfig { max_deliver: 2, ..explicit() }, &["a", "b"]);
    world.consumer.setup.reports_consumed = true;
    world.pull("r", "9").poll();
    world.ack((2, 2, 1), "+ACK").expect(&["consumed 2"]);
    world.pass(30_000).expect(&["r <- 1/3 x2 +0 after commit"]);
    world.pass(30_000).expect(&["advisory max_deliver 1 x2"]).expect_state("3/2", "3/2", [0, 1, 0, 1]);
    assert!(world.consumer.still_needs(1, b"a"), "a stream keeps it for the dead-letter handler");
    assert!(!world.consumer.still_needs(2, b"b"));
    world.pass(60_000).expect(&[]);
    // A late ack still lets go of it.
    world.ack((1, 1, 1), "+ACK").expect(&["consumed 1"]).expect_state("3/2", "3/2", [0, 0, 0, 1]);
}

#[test]
fn nak_of_the_last_delivery_ends_it_too() {
    let mut world = World::new(ConsumerConfig { max_deliver: 1, ..explicit() }, &["a"]);
    world.pull("r", "9").poll();
    world.ack((1, 1, 1), "-NAK").expect(&["advisory nak 1 x1", "advisory max_deliver 1 x1"]);
    world.expect_state("1/1", "1/1", [0, 0, 0, 1]);
}

#[test]
fn term_ends_it_with_its_reason() {
    let mut world = World::new(explicit(), &["a"]);
    world.consumer.setup.reports_consumed = true;
    world.pull("r", "1").poll();
    world.ack_sync((1, 1, 1), "+TERM bad input", "t");
    world
        .expect(&["consumed 1", "advisory terminated 1 \"bad input\"", "t <- taken"])
        .expect_state("1/1", "1/1", [0; 4]);
    world.ack_sync((1, 1, 1), "+TERM", "t").expect(&["t <- taken"]);
}

#[test]
fn what_ends_messages_can_be_taken_ahead_of_all_else() {
    let mut world = World::new(ConsumerConfig { max_deliver: 1, ..explicit() }, &["a", "b", "c"]);
    world.consumer.setup.reports_consumed = true;
    world.pull("r", "9").poll();
    world.ack_sync((1, 1, 1), "+ACK", "a").ack_sync((2, 2, 1), "+TERM", "t").ack((3, 3, 1), "-NAK");
    let ends: Vec<String> = world.consumer.take_ends().iter().map(line).collect();
    let expected = ["consumed 1", "consumed 2", "advisory terminated 2 \"\"", "advisory max_deliver 3 x1"];
    assert_eq!(ends, expected);
    assert_eq!(world.consumer.take_ends(), []);
    world.expect(&["a <- taken", "t <- taken", "advisory nak 3 x1"]);
}

#[test]
fn next_acks_and_pulls() {
    let mut world = World::new(explicit(), &["a", "b", "c"]);
    world.pull("r", "1").poll();
    world.ack_sync((1, 1, 1), "+NXT", "n").expect(&["n <- 2/2 x1 +1"]).expect_state("1/1", "2/2", [1, 0, 1, 0]);
    world.ack_sync((2, 2, 1), "+NXT {\"batch\":2}", "n").expect(&["n <- 3/3 x1 +0"]).expect_state(
        "2/2",
        "3/3",
        [1, 0, 0, 1],
    );
}

#[test]
fn max_ack_pending_holds_new_messages_back_but_not_redeliveries() {
    let mut world = World::new(ConsumerConfig { max_ack_pending: 2, ..explicit() }, &["a", "b", "c"]);
    world.pull("r", "9").expect(&["r <- 1/1 x1 +2", "r <- 2/2 x1 +1"]);
    // Not the end of the stream, so who does not want to wait is not sent home.
    world.pull("n", "{\"batch\":9,\"no_wait\":true}").expect(&["n <- 408 Requests Pending"]);
    world.ack((1, 1, 1), "-NAK").expect(&["advisory nak 1 x1", "r <- 1/3 x2 +1 after commit"]);
    world.ack((2, 2, 1), "+ACK").expect(&["r <- 3/4 x1 +0"]);
}

#[test]
fn at_the_ack_limit_an_alarm_sends_home_who_has_got_something_and_does_not_wait() {
    let limited = ConsumerConfig { max_ack_pending: 2, ..explicit() };
    let mut world = World::new(limited.clone(), &["a", "b", "c"]);
    let pull = r#"{"batch":9,"no_wait":true,"expires":10000000000,"idle_heartbeat":1000000000}"#;
    world.pull("r", pull).expect(&["r <- 1/1 x1 +2", "r <- 2/2 x1 +1"]);
    world.pass(999).expect(&[]).pass(2).expect(&["r <- 404 No Messages"]);
    // Who got nothing yet goes on waiting, and hears that all is well.
    world.pull("r", r#"{"batch":1,"no_wait":true,"expires":10000000000,"idle_heartbeat":1000000000}"#).expect(&[]);
    world.pass(1_001).expect(&["r <- 100 Idle Heartbeat Nats-Last-Consumer=2 Nats-Last-Stream=2"]);
    world.ack((1, 1, 1), "").expect(&["r <- 3/3 x1 +0"]);

    // A message in line for redelivery is still to come.
    let mut world = World::new(limited, &["a", "b"]);
    world.pull("r", "2").expect(&["r <- 1/1 x1 +1", "r <- 2/2 x1 +0"]);
    world.pull("s", pull).expect(&[]);
    world.ack((1, 1, 1), "-NAK").ack((2, 2, 1), "-NAK").pass(1_001);
    world.expect(&[
        "advisory nak 1 x1",
        "advisory nak 2 x1",
        "s <- 100 Idle Heartbeat Nats-Last-Consumer=2 Nats-Last-Stream=2",
        "s <- 1/3 x2 +0 after commit",
        "s <- 2/4 x2 +0 after commit",
    ]);
}

#[test]
fn overflow_requests_help_out_only_when_there_is_enough() {
    let config =
        ConsumerConfig { priority_policy: PriorityPolicy::Overflow, priority_groups: vec!["g".into()], ..explicit() };
    let mut world = World::new(config, &["a", "b"]);
    world.pull("r", "{\"batch\":1}").expect(&["r <- 400 Bad Request - Priority Group missing"]);
    world.pull("r", "{\"batch\":1,\"group\":\"x\"}").expect(&["r <- 400 Bad Request - Invalid Priority Group"]);
    world.pull("helper", "{\"batch\":5,\"group\":\"g\",\"min_pending\":2,\"expires\":1000000000000}");
    world.expect(&["helper <- 1/1 x1 +1"]);
    world.pull("worker", "{\"batch\":1,\"group\":\"g\",\"expires\":1000000000000}").expect(&["worker <- 2/2 x1 +0"]);
}

#[test]
fn prioritized_requests_are_served_first() {
    let config = ConsumerConfig {
        priority_policy: PriorityPolicy::Prioritized,
        priority_groups: vec!["g".into()],
        ..explicit()
    };
    let mut world = World::new(config, &[]);
    world.pull("low", "{\"batch\":9,\"group\":\"g\",\"priority\":5}");
    world.pull("high", "{\"batch\":2,\"group\":\"g\",\"priority\":1}").expect(&[]);
    world.publish("a").publish("b").publish("c");
    world.expect(&["high <- 1/1 x1 +2", "high <- 2/2 x1 +1", "low <- 3/3 x1 +0"]);
}

#[test]
fn a_pinned_client_keeps_the_others_waiting() {
    let config = ConsumerConfig {
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec!["g".into()],
        pinned_ttl: GoDuration::from_secs(10),
        ..explicit()
    };
    let mut world = World::new(config, &[]);
    world.pull("one", "{\"batch\":2,\"group\":\"g\"}").pull("two", "{\"batch\":9,\"group\":\"g\"}");
    world.publish("a").expect(&["advisory pinned g", "one <- 1/1 x1 +0 pinned"]);
    world.publish("b").expect(&["one <- 2/2 x1 +0 pinned"]);
    world.publish("c").expect(&[]);
    world
        .pull("other", "{\"batch\":1,\"group\":\"g\",\"id\":\"nobody\"}")
        .expect(&["other <- 423 Nats-Pin-Id mismatch"]);
    world.pass(10_000).expect(&["advisory unpinned g timeout", "advisory pinned g", "two <- 3/3 x1 +0 pinned"]);
}

#[test]
fn a_pin_can_be_taken_away_and_does_not_stay_with_who_has_left() {
    let config = ConsumerConfig {
        priority_policy: PriorityPolicy::PinnedClient,
        priority_groups: vec!["g".into()],
        ..explicit()
    };
    let mut world = World::new(config, &[]);
    let wait = "{\"batch\":9,\"group\":\"g\"}";
    world.pull("one", wait).pull("two", wait).leave("one");
    world.publish("a").expect(&["advisory pinned g", "advisory pinned g", "two <- 1/1 x1 +0 pinned"]);
    let pinned = world.info().priority_groups[0].pinned_client_id.clone();
    assert_eq!(pinned.len(), 22);
    world.consumer.handle_unpin("g");
    world.expect(&["advisory unpinned g admin"]);
    assert_eq!(world.info().priority_groups[0].pinned_client_id, "");
    // The request that was pinned still carries its pin, which is not good any more.
    world.pull("three", wait).publish("b").expect(&[
        "two <- 423 Nats-Wrong-Pin-Id Nats-Pending-Messages=8 Nats-Pending-Bytes=0",
        "advisory pinned g",
        "three <- 2/2 x1 +0 pinned",
    ]);
}

#[test]
fn a_reset_starts_over_where_it_may() {
    let mut world = World::new(explicit(), &["a", "b", "c", "d"]);
    world.pull("r", "{\"batch\":3}").poll();
    world.ack((1, 1, 1), "+ACK").ack((3, 3, 1), "+ACK").expect(&[]);
    world.expect_state("1/1", "3/3", [1, 0, 1, 0]);
    let reset = |world: &mut World, seq| {
        let visible = world.stream.index().last_seq();
        world.consumer.handle_reset(seq, world.stream.index(), visible)
    };
    assert_eq!(reset(&mut world, 0), Ok(2), "back to the ack floor");
    world.expect_state("0/1", "0/1", [0, 0, 3, 0]);
    world.pull("r", "{\"batch\":2}").expect(&["r <- 2/1 x1 +2", "r <- 3/2 x1 +1"]);
    world.pass(31_000).pull("again", "1").expect(&["again <- 2/3 x2 +1 after commit"]);
    assert_eq!(reset(&mut world, 4), Ok(4), "forwards");
    world.ack((2, 1, 1), "+ACK").expect(&[]);
    world.expect_state("0/3", "0/3", [0, 0, 1, 0]);
    assert_eq!(reset(&mut world, 9), Ok(9), "beyond the end");
    world.pull("r", "1").publish("e").expect(&[]);
    assert_eq!(reset(&mut world, 1), Ok(1));
    world.expect(&["r <- 1/1 x1 +4"]);

    let from_two = ConsumerConfig { deliver_policy: DeliverPolicy::ByStartSequence, opt_start_seq: 2, ..explicit() };
    let mut world = World::new(from_two, &["a", "b", "c"]);
    assert_eq!((reset(&mut world, 1), reset(&mut world, 2)), (Err("below start seq"), Ok(2)));
    let mut world = World::new(ConsumerConfig { deliver_policy: DeliverPolicy::New, ..explicit() }, &["a"]);
    assert_eq!((reset(&mut world, 1), reset(&mut world, 0)), (Err("not allowed"), Ok(2)));
}

#[test]
fn a_delivery_nobody_got_does_not_count() {
    let mut world = World::new(explicit(), &["a"]);
    world.pull("r", "2");
    let output = world.with(|consumer, view, now| consumer.poll(view, now));
    let Some(Output::Deliver(delivery)) = output else { panic!("{output:?}") };
    let now = world.now;
    world.consumer.handle_not_delivered(&delivery, now);
    world.expect(&["r <- 1/2 x1 +0"]).expect_state("0/0", "2/1", [1, 0, 0, 1]);
}

#[test]
fn removed_messages_are_forgotten() {
    let mut world = World::new(explicit(), &["a", "b", "c", "d"]);
    world.pull("r", "2").poll();
    world.delete(1).expect(&["advisory terminated 1 \"Unacknowledged message was deleted\""]);
    world.expect_state("1/1", "2/2", [1, 0, 2, 0]);
    world.delete(3).expect_state("1/1", "2/2", [1, 0, 1, 0]).pull("r", "9").expect(&["r <- 4/3 x1 +0"]);
}

#[test]
fn a_purge_moves_both_cursors() {
    let mut world = World::new(explicit(), &["a", "b", "c"]);
    world.pull("r", "2").poll();
    world.purge().expect(&[]).expect_state("2/3", "2/3", [0, 0, 0, 0]);
    world.publish("d").pull("r", "1").expect(&["r <- 4/3 x1 +0"]);
}

#[test]
fn fewer_than_no_bytes_are_no_limit() {
    let mut world = World::new(explicit(), &["a", "b"]);
    world.pull("r", r#"{"batch":2,"max_bytes":-1}"#).expect(&["r <- 1/1 x1 +1", "r <- 2/2 x1 +0"]);
}

#[test]
fn filters_pick_messages() {
    let config = ConsumerConfig { filter_subjects: vec!["a.*".into(), "b".into()], ..explicit() };
    let mut world = World::new(config, &["a.1", "x", "b", "a", "a.2"]);
    world.expect_state("0/0", "0/0", [0, 0, 3, 0]);
    world.pull("r", "9").expect(&["r <- 1/1 x1 +2", "r <- 3/2 x1 +1", "r <- 5/3 x1 +0"]);
    world.publish("x").publish("b").expect(&["r <- 7/4 x1 +0"]);
    world.ack((7, 4, 1), "").ack((1, 1, 1), "").expect_state("1/2", "4/7", [2, 0, 0, 1]);
}

#[test]
fn new_filters_count_anew() {
    let config = ConsumerConfig { filter_subject: "a".into(), ..explicit() };
    let mut world = World::new(config.clone(), &["a", "b", "a", "b"]);
    world.pull("r", "1").poll();
    world.expect_state("0/0", "1/1", [1, 0, 1, 0]);
    let new = setup(ConsumerConfig { filter_subject: "b".into(), ..config }).config;
    let (index, now) = (world.stream.index(), world.now);
    world.consumer.handle_update(new, index, index.last_seq(), now);
    world.expect_state("0/0", "1/1", [1, 0, 2, 0]).pull("r", "9").expect(&["r <- 2/2 x1 +1", "r <- 4/3 x1 +0"]);
}

#[test]
fn an_update_of_the_ack_wait_counts_from_the_delivery() {
    let mut world = World::new(explicit(), &["a"]);
    world.pull("r", "9").poll();
    let new = setup(ConsumerConfig { ack_wait: GoDuration::from_secs(2), ..explicit() }).config;
    let (index, now) = (world.stream.index(), world.now);
    world.consumer.handle_update(new, index, index.last_seq(), now);
    world.pass(1_999).expect(&[]).pass(1).expect(&["r <- 1/2 x2 +0 after commit"]);
}

#[test]
fn a_paused_consumer_waits() {
    let config = ConsumerConfig { pause_until: Some(Timestamp(5 * SECOND)), ..explicit() };
    let mut world = World::new(config, &["a"]);
    world.pull("r", "1").expect(&["advisory paused true"]);
    assert_eq!(world.consumer.next_deadline(), Some(Timestamp(5 * SECOND)));
    assert!(world.info().paused);
    world.pass(4_000).expect(&["advisory paused false", "r <- 1/1 x1 +0"]);
}

#[test]
fn sampled_acks_are_reported() {
    let mut world = World::new(ConsumerConfig { sample_frequency: "100%".into(), ..explicit() }, &["a"]);
    world.pull("r", "1").poll();
    world.pass(3).ack((1, 1, 1), "+ACK").expect(&["metric acked 1 3000000"]);
}

#[test]
fn an_idle_ephemeral_expires() {
    let mut world =
        World::new(ConsumerConfig { durable: "".into(), ack_wait: GoDuration::from_secs(2), ..explicit() }, &["a"]);
    world.pass(4_000).pull("r", "{\"batch\":1,\"expires\":1000000000}").expect(&["r <- 1/1 x1 +0"]);
    // It may be at work until the wait ends, and then has its five seconds.
    world.pass(5_000).expect(&[]).pass(1_999).expect(&[]);
    world.pass(2_000).expect(&["expired"]).expect(&[]);
    assert_eq!(world.consumer.next_deadline(), None);

    let mut durable = World::new(explicit(), &[]);
    assert_eq!(durable.consumer.next_deadline(), None);
    durable.pass(1_000_000).expect(&[]);

    let mut waited_for = World::new(ConsumerConfig { durable: "".into(), ..explicit() }, &[]);
    waited_for.pull("r", "{\"batch\":1,\"expires\":7000000000}").pass(5_001).expect(&[]);
    waited_for
        .pass(5_001)
        .expect(&["r <- 408 Request Timeout Nats-Pending-Messages=1 Nats-Pending-Bytes=0", "expired"]);
}

#[test]
fn a_deleted_consumer_sends_everyone_home() {
    let mut world = World::new(explicit(), &[]);
    world.pull("r1", "1").pull("r2", "3").expect(&[]);
    let lines: Vec<String> = world.consumer.close(Closing::Deleted).iter().map(line).collect();
    assert_eq!(lines, ["r1 <- 409 Consumer Deleted", "r2 <- 409 Consumer Deleted"]);
    let mut world = World::new(explicit(), &[]);
    world.pull("r", "3");
    let lines: Vec<String> = world.consumer.close(Closing::Shutdown).iter().map(line).collect();
    assert_eq!(lines, ["r <- 409 Server Shutdown Nats-Pending-Messages=3 Nats-Pending-Bytes=0"]);
}

#[test]
fn headers_only_is_passed_on() {
    let mut world = World::new(ConsumerConfig { headers_only: true, ..explicit() }, &["a"]);
    world.pull("r", "1").expect(&["r <- 1/1 x1 +0 headers only"]);
}

#[test]
fn a_redelivery_overtaken_by_its_ack_is_withheld() {
    let mut world = World::new(explicit(), &["a"]);
    world.pull("one", "").expect(&["one <- 1/1 x1 +0"]);
    world.pull("two", "").ack((1, 1, 1), "-NAK");
    let mut late = None;
    while let Some(output) = world.with(|consumer, view, now| consumer.poll(view, now)) {
        if let Output::Deliver(delivery) = output {
            late = Some(delivery);
        }
    }
    let late = late.unwrap();
    assert!(late.after_commit && world.consumer.still_wants(&late));
    world.ack((1, 1, 1), "+ACK").expect(&[]);
    assert!(!world.consumer.still_wants(&late));
    world.consumer.handle_withheld(&late);
    world.expect(&["two <- 408 Request Timeout Nats-Pending-Messages=1 Nats-Pending-Bytes=0"]);
    world.expect_state("2/1", "2/1", [0, 0, 0, 0]);
}
