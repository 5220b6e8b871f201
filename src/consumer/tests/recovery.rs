//! Restarts: what the rows bring back.

use super::*;

impl World {
    /// Applies what is to be written to `rows`.
    pub(super) fn commit(&mut self, rows: &mut ConsumerRows) -> &mut World {
        if let Some(changes) = self.consumer.changes() {
            rows.apply(&changes);
        }
        self
    }

    /// The server stops at once and comes back.
    pub(super) fn crash(&mut self, rows: &ConsumerRows) -> &mut World {
        self.consumer = Consumer::restore(self.consumer.setup.clone(), rows.clone(), self.stream.index(), self.now);
        self
    }

    fn stop(&mut self, rows: &mut ConsumerRows) -> &mut World {
        if let Some(changes) = self.consumer.final_changes() {
            rows.apply(&changes);
        }
        self.crash(rows)
    }
}

#[test]
fn a_first_delivery_writes_nothing() {
    let mut world = World::new(explicit(), &["a", "b"]);
    let start = world.consumer.changes().expect("a new consumer has a state row");
    assert_eq!(start.state, Some(StateRow::default()));
    world.pull("r", "2").poll();
    assert_eq!(world.consumer.changes(), None);
    world.ack((2, 2, 1), "");
    let changes = world.consumer.changes().unwrap();
    assert_eq!(changes.put_acked[0].seqs().collect::<Vec<_>>(), [2]);
    assert_eq!(world.consumer.changes(), None);
    world.ack((1, 1, 1), "");
    let changes = world.consumer.changes().unwrap();
    let state = changes.state.unwrap();
    assert_eq!((state.ack_floor_stream_seq, state.delivered_stream_seq), (2, 2));
}

#[test]
fn acked_is_done_and_the_rest_comes_again_after_its_wait() {
    let mut world = World::new(explicit(), &["a", "b", "c", "d"]);
    let mut rows = ConsumerRows::default();
    world.pull("r", "3").poll();
    world.ack((2, 2, 1), "").commit(&mut rows).crash(&rows);
    world.expect_state("0/0", "3/3", [2, 0, 1, 0]).pull("s", "9").expect(&["s <- 4/4 x1 +0"]);
    world.pass(30_000).expect(&[
        "s <- 1/5 x2 +0 after commit",
        "s <- 3/6 x2 +0 after commit",
        "s <- 4/7 x2 +0 after commit",
    ]);
    world.ack((1, 1, 1), "").ack((3, 3, 1), "").ack((4, 4, 1), "").expect_state("7/4", "7/4", [0, 0, 0, 1]);
}

#[test]
fn a_forgotten_delivery_is_made_again_but_its_ack_counts() {
    let mut world = World::new(explicit(), &["a", "b", "c"]);
    let mut rows = ConsumerRows::default();
    world.commit(&mut rows).pull("r", "3").poll();
    world.crash(&rows).expect_state("0/0", "0/0", [0, 0, 3, 0]);
    world.ack_sync((2, 2, 1), "+ACK", "s").expect(&["s <- taken"]).expect_state("0/0", "0/0", [0, 0, 2, 0]);
    world.ack_sync((2, 2, 1), "+ACK", "s").expect(&["s <- taken"]).commit(&mut rows).crash(&rows);
    world.pull("s", "9").expect(&["s <- 1/1 x1 +1", "s <- 3/2 x1 +0"]);
    world.ack((1, 1, 1), "").ack((3, 2, 1), "").expect_state("2/3", "2/3", [0, 0, 0, 1]);
    // What came after the restart is another matter.
    world.publish("d").ack_sync((4, 3, 1), "+ACK", "s").expect(&["s <- 4/3 x1 +0"]);
}

#[test]
fn a_made_up_consumer_sequence_is_not_believed() {
    let mut world = World::new(ConsumerConfig { ack_policy: AckPolicy::All, ..explicit() }, &["a", "b", "c"]);
    let mut rows = ConsumerRows::default();
    world.commit(&mut rows).pull("r", "2").poll();
    world.crash(&rows).ack((2, u64::MAX, 1), "").expect_state("2/2", "2/2", [0, 0, 1, 0]);
    world.pull("r", "2").expect(&["r <- 3/3 x1 +0"]);
}

#[test]
fn redelivery_counts_survive() {
    let mut world = World::new(ConsumerConfig { max_deliver: 3, ..explicit() }, &["a"]);
    let mut rows = ConsumerRows::default();
    world.pull("r", "9").poll();
    world.pass(30_000).expect(&["r <- 1/2 x2 +0 after commit"]).commit(&mut rows);
    assert_eq!(rows.redeliveries, [Redelivery { seq: 1, count: 2, due: None }]);
    world.crash(&rows).expect_state("0/0", "2/1", [1, 1, 0, 0]).pull("r", "9");
    world.pass(30_000).expect(&["r <- 1/3 x3 +0 after commit"]);
    world.pass(30_000).expect(&["advisory max_deliver 1 x3"]).commit(&mut rows).crash(&rows);
    world.expect_state("3/1", "3/1", [0, 1, 0, 0]).pull("r", "9").pass(60_000).expect(&[]);
    assert!(world.consumer.still_needs(1, b"a"));
    world.ack((1, 1, 1), "").commit(&mut rows);
    assert_eq!(rows.redeliveries, []);
}

#[test]
fn an_orderly_stop_remembers_deliveries() {
    let mut world = World::new(explicit(), &["a", "b"]);
    let mut rows = ConsumerRows::default();
    world.commit(&mut rows).pull("r", "2").poll();
    world.stop(&mut rows).expect_state("0/0", "2/2", [2, 0, 0, 0]);
}

#[test]
fn without_acks_a_delivery_is_the_progress_that_is_written() {
    let mut world = World::new(ConsumerConfig { ack_policy: AckPolicy::None, ..explicit() }, &["a", "b"]);
    let mut rows = ConsumerRows::default();
    world.commit(&mut rows).pull("r", "1").poll();
    world.commit(&mut rows).crash(&rows).expect_state("1/1", "1/1", [0, 0, 1, 0]);
}

#[test]
fn new_filters_do_not_bring_back_what_the_old_ones_passed() {
    let config = ConsumerConfig { filter_subject: "a".into(), ..explicit() };
    let mut world = World::new(config.clone(), &["a", "b", "a"]);
    let mut rows = ConsumerRows::default();
    world.pull("r", "9").poll();
    let new = setup(ConsumerConfig { filter_subject: ">".into(), ..config }).config;
    let (index, now) = (world.stream.index(), world.now);
    world.consumer.handle_update(new, index, 3, now);
    world.commit(&mut rows).crash(&rows).expect_state("0/0", "2/3", [2, 0, 0, 0]);
}

#[test]
fn new_filters_do_not_bring_back_what_was_passed_without_a_delivery() {
    let config = ConsumerConfig { filter_subject: "a".into(), ..explicit() };
    let mut world = World::new(config.clone(), &["b"]);
    let mut rows = ConsumerRows::default();
    world.pull("r", "9").expect(&[]).update(ConsumerConfig { filter_subject: "b".into(), ..config });
    world.publish("b").expect(&["r <- 2/1 x1 +0"]).stop(&mut rows).expect_state("0/0", "1/2", [1, 0, 0, 0]);
    world.ack((2, 1, 1), "").pull("s", "9").expect(&[]).expect_state("1/2", "1/2", [0, 0, 0, 1]);
}

#[test]
fn what_is_out_stays_out_though_a_new_filter_does_not_match_it() {
    let config = ConsumerConfig { filter_subject: "a".into(), ..explicit() };
    let mut world = World::new(config.clone(), &["a", "b", "a", "b"]);
    let mut rows = ConsumerRows::default();
    world.pull("r", "9").poll();
    world.ack((3, 2, 1), "").update(ConsumerConfig { filter_subject: "b".into(), ..config }).commit(&mut rows);
    let progress = world.consumer.progress();
    world.crash(&rows).expect_state("0/0", "2/3", [1, 0, 0, 0]).publish("b").expect_state("0/0", "2/3", [1, 0, 1, 0]);
    assert_eq!(progress.into_rows(&world.consumer.setup, world.stream.index()).redeliveries, rows.redeliveries);
    world.pull("r", "9").expect(&["r <- 5/3 x1 +0"]).pass(30_000);
    world.expect(&["r <- 1/4 x2 +0 after commit", "r <- 5/5 x2 +0 after commit"]);
    world.ack((1, 4, 2), "").ack((5, 5, 2), "").commit(&mut rows).expect_state("5/5", "5/5", [0, 0, 0, 1]);
    assert_eq!(rows.redeliveries, []);
}

#[test]
fn the_last_of_each_subject_goes_on_where_it_was() {
    let config =
        ConsumerConfig { deliver_policy: DeliverPolicy::LastPerSubject, filter_subject: "k.*".into(), ..explicit() };
    let mut world = World::new(config, &["k.a", "k.b", "k.a", "k.c", "k.b"]);
    // The messages are older than the consumer.
    world.consumer.setup.created = Timestamp(2 * SECOND);
    world.pass(2_000);
    let mut rows = ConsumerRows::default();
    world.pull("r", "2").expect(&["r <- 3/1 x1 +2", "r <- 4/2 x1 +1"]);
    world.ack((3, 1, 1), "").commit(&mut rows).publish("k.d").crash(&rows);
    world.expect_state("1/3", "2/4", [1, 0, 2, 0]).pull("r", "9").expect(&["r <- 5/3 x1 +1", "r <- 6/4 x1 +0"]);
}

#[test]
fn the_last_of_a_subject_leaves_nothing_to_the_one_before_it() {
    let config = ConsumerConfig { deliver_policy: DeliverPolicy::LastPerSubject, max_ack_pending: 2, ..explicit() };
    let mut world = World::new(config, &["a", "a", "b", "b", "c", "c"]);
    let mut rows = ConsumerRows::default();
    world.consumer.setup.created = Timestamp(2 * SECOND);
    world.pull("r", "2").expect(&["r <- 2/1 x1 +2", "r <- 4/2 x1 +1"]);
    // One that is out, one that was acked, and one that was still to come.
    world.ack((2, 1, 1), "").delete(2).delete(4).delete(6).poll();
    world.expect_state("2/4", "2/4", [0, 0, 0, 0]);
    world.stop(&mut rows).expect_state("2/4", "2/4", [0, 0, 0, 0]).pull("s", "9").expect(&[]);
    world.publish("c").expect(&["s <- 7/3 x1 +0"]);
}

#[test]
fn new_filters_choose_again_what_is_left_of_the_last_of_each_subject() {
    let config = |filter: &str| ConsumerConfig {
        deliver_policy: DeliverPolicy::LastPerSubject,
        filter_subject: filter.into(),
        ..explicit()
    };
    let mut world = World::new(config("a"), &["a", "b", "c", "c"]);
    let mut rows = ConsumerRows::default();
    world.consumer.setup.created = Timestamp(2 * SECOND);
    world.delete(4).update(config("b")).update(config("")).expect_state("0/0", "0/0", [0, 0, 2, 0]);
    world.pull("r", "1").expect(&["r <- 1/1 x1 +1"]);
    world.stop(&mut rows).expect_state("0/0", "1/1", [1, 0, 1, 0]).pull("r", "9").expect(&["r <- 2/2 x1 +0"]);
}

#[test]
fn an_ack_of_all_passes_the_last_of_each_subject() {
    let mut world = World::new(
        ConsumerConfig { deliver_policy: DeliverPolicy::LastPerSubject, ack_policy: AckPolicy::All, ..explicit() },
        &["a", "b", "c"],
    );
    let mut rows = ConsumerRows::default();
    // After the stream was there, so that a restart knows where the last of each subject end.
    world.consumer.setup.created = Timestamp(2 * SECOND);
    world.commit(&mut rows).pull("r", "1").poll();
    world.crash(&rows).ack((1, 1, 1), "").expect_state("1/1", "1/1", [0, 0, 2, 0]);
    world.pull("s", "9").expect(&["s <- 2/2 x1 +1", "s <- 3/3 x1 +0"]);
}

#[test]
fn an_ack_of_all_consumes_forgotten_deliveries_too() {
    let mut world = World::new(ConsumerConfig { ack_policy: AckPolicy::All, ..explicit() }, &["a", "b", "c", "d"]);
    let mut rows = ConsumerRows::default();
    world.consumer.setup.reports_consumed = true;
    world.commit(&mut rows).pull("r", "3").poll();
    world.crash(&rows).consumer.setup.reports_consumed = true;
    world.ack((3, 3, 1), "").expect(&["consumed 1", "consumed 2", "consumed 3"]);
    world.expect_state("3/3", "3/3", [0, 0, 1, 0]).pull("s", "9").expect(&["s <- 4/4 x1 +0"]);
}

#[test]
fn an_ack_of_all_counts_for_a_message_that_is_gone() {
    let config = ConsumerConfig { ack_policy: AckPolicy::All, max_ack_pending: 1, ..explicit() };
    let mut world = World::new(config, &["a", "b", "c"]);
    let mut rows = ConsumerRows::default();
    world.commit(&mut rows).delete(2).crash(&rows).pull("r", "9").expect(&["r <- 1/1 x1 +1"]);
    world.ack((2, 2, 1), "").expect_state("2/2", "2/2", [0, 0, 1, 1]).expect(&["r <- 3/3 x1 +0"]);
}

#[test]
fn an_ack_of_all_is_for_nothing_beyond_what_was_delivered() {
    let config = ConsumerConfig { ack_policy: AckPolicy::All, filter_subject: "k.*".into(), ..explicit() };
    let mut world = World::new(config, &["k.a", "b"]);
    world.pull("r", "9").expect(&["r <- 1/1 x1 +0"]);
    world.ack((2, 2, 1), "").expect_state("0/0", "1/1", [1, 0, 0, 1]);
}

#[test]
fn a_reset_survives() {
    let mut world = World::new(explicit(), &["a", "b", "c", "d"]);
    let mut rows = ConsumerRows::default();
    world.pull("r", "{\"batch\":4}").poll();
    world.ack((4, 4, 1), "+ACK").ack((2, 2, 1), "-NAK").pull("r", "1").poll();
    rows.apply(&world.consumer.changes().unwrap());
    assert!(!rows.acked.is_empty() && !rows.redeliveries.is_empty());
    world.consumer.handle_reset(3, world.stream.index(), 4).unwrap();
    rows.apply(&world.consumer.changes().unwrap());
    assert_eq!((rows.acked.len(), rows.redeliveries.len()), (0, 0));
    world.stop(&mut rows);
    world.expect_state("0/2", "0/2", [0, 0, 2, 0]);
    world.pull("r", "{\"batch\":2}").expect(&["r <- 3/1 x1 +1", "r <- 4/2 x1 +0"]);
}

#[test]
fn the_delay_of_a_nak_survives() {
    let mut world = World::new(explicit(), &["a", "b", "c"]);
    let mut rows = ConsumerRows::default();
    world.pull("r", "{\"batch\":3}").poll();
    world.ack((1, 1, 1), "-NAK {\"delay\":3600000000000}").ack((2, 2, 1), "-NAK {\"delay\":3600000000000}");
    world.ack((2, 2, 1), "+WPI").poll();
    world.commit(&mut rows).crash(&rows);
    world.pull("r", "{\"batch\":3}");
    world.pass(31_000).expect(&["r <- 2/4 x2 +0 after commit", "r <- 3/5 x2 +0 after commit"]);
    world.commit(&mut rows).crash(&rows).pull("r", "1").ack((2, 4, 2), "").ack((3, 5, 2), "");
    world.pass(3_500_000).expect(&[]);
    world.pass(100_000).expect(&["r <- 1/6 x2 +0 after commit"]);
    world.ack((1, 6, 2), "").commit(&mut rows);
    assert!(rows.redeliveries.is_empty());

    // What fell due while the server was away goes out at once.
    world.publish("d").pull("r", "1").expect(&["r <- 4/7 x1 +0"]);
    world.ack((4, 7, 1), "-NAK 10s").poll();
    world.commit(&mut rows).pass(20_000).crash(&rows).pull("r", "1").expect(&["r <- 4/8 x2 +0 after commit"]);
}
