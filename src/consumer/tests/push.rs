//! Push consumers: interest, heartbeats, flow control, rate limit, replay.

use super::*;

fn push() -> ConsumerConfig {
    ConsumerConfig { deliver_subject: "d".into(), ..explicit() }
}

#[test]
fn delivers_while_someone_listens() {
    let mut world = World::new(push(), &["a", "b"]);
    world.expect(&[]).interest(true).expect(&["d <- 1/1 x1 +1", "d <- 2/2 x1 +0"]);
    assert!(world.info().push_bound);
    world.interest(false).publish("c").expect(&[]).interest(true).expect(&["d <- 3/3 x1 +0"]);
}

#[test]
fn an_ephemeral_goes_when_nobody_listens() {
    let mut world = World::new(ConsumerConfig { durable: "".into(), ..push() }, &[]);
    world.interest(true).pass(60_000).expect(&[]);
    world.interest(false).pass(4_999).expect(&[]);
    world.interest(true).interest(false).pass(4_999).expect(&[]).pass(1).expect(&["expired"]);
}

#[test]
fn heartbeats_when_nothing_else_is_sent() {
    let mut world = World::new(ConsumerConfig { heartbeat: GoDuration::SECOND, ..push() }, &["a"]);
    world.interest(true).expect(&["d <- 1/1 x1 +0"]);
    world.pass(999).expect(&[]).pass(1).expect(&["d <- 100 Idle Heartbeat Nats-Last-Consumer=1 Nats-Last-Stream=1"]);
    world.pass(500).publish("b").expect(&["d <- 2/2 x1 +0"]).pass(999).expect(&[]);
    assert_eq!(world.consumer.next_deadline(), Some(Timestamp(world.now.0 + 1_000_000)));
    world.pass(1).expect(&["d <- 100 Idle Heartbeat Nats-Last-Consumer=2 Nats-Last-Stream=2"]);
    world.interest(false).pass(5_000).expect(&[]);
}

#[test]
fn flow_control_asks_stalls_and_goes_on() {
    let config = ConsumerConfig { flow_control: true, heartbeat: GoDuration::SECOND, ..push() };
    let mut world = World::new(ConsumerConfig { max_ack_pending: -1, ..config }, &[]);
    let index_size = 1 << 20;
    world.interest(true);
    for _ in 0..4 {
        world.publish("a");
    }
    // Messages of 1 MiB against a window of 2 MiB to start with.
    let mut lines = Vec::new();
    let mut asked = None;
    let poll = |world: &mut World, lines: &mut Vec<String>, asked: &mut Option<Bytes>| {
        let size = |_| Some(MessageSize { subject: 1, headers: 0, payload: index_size });
        let (index, now) = (world.stream.index(), world.now);
        let view = View { index, interest: &|_| true, interest_generation: 0, size: &size };
        while let Some(output) = world.consumer.poll(&view, now) {
            if let Output::Status(status) = &output {
                *asked = Some(status.reply.clone());
            }
            lines.push(line(&output));
        }
    };
    poll(&mut world, &mut lines, &mut asked);
    assert_eq!(lines, ["d <- 1/1 x1 +3", "d <- 100 FlowControl Request asks for an answer", "d <- 2/2 x1 +2"]);
    let reply = asked.take().unwrap();
    assert!(reply.starts_with(b"$JS.FC.S.C."));
    lines.clear();
    world.pass(1_000);
    poll(&mut world, &mut lines, &mut asked);
    let stalled = String::from_utf8_lossy(&reply);
    assert_eq!(
        lines,
        [format!("d <- 100 Idle Heartbeat Nats-Last-Consumer=2 Nats-Last-Stream=2 Nats-Consumer-Stalled={stalled}")]
    );
    lines.clear();
    world.with(|consumer, view, now| consumer.handle_flow_control(&reply, b"", view, now));
    poll(&mut world, &mut lines, &mut asked);
    assert_eq!(lines, ["d <- 3/3 x1 +1", "d <- 100 FlowControl Request asks for an answer", "d <- 4/4 x1 +0"]);
}

#[test]
fn the_rate_is_limited() {
    // 800 bits are 100 bytes a second; one message is subject 1, payload 7 and its ack subject of 30.
    let mut world = World::new(ConsumerConfig { rate_limit: 800, ..push() }, &[]);
    world.consumer.setup.message_bytes_max = 40;
    let limited = setup(ConsumerConfig { rate_limit: 801, ..push() }).config;
    let (index, now) = (world.stream.index(), world.now);
    world.consumer.handle_update(limited, index, 0, now);
    world.publish("a").publish("b").interest(true).expect(&["d <- 1/1 x1 +1"]);
    assert!(world.consumer.next_deadline().unwrap().since(world.now).as_millis() > 300);
    world.pass(200).expect(&[]).pass(250).expect(&["d <- 2/2 x1 +0"]);
}

#[test]
fn replay_keeps_the_distances() {
    let mut stream = new_stream();
    for (subject, at) in [("a", 0), ("b", 500), ("c", 700)] {
        publish_to(&mut stream, subject, "payload", Timestamp(SECOND + at * 1_000_000));
    }
    let mut world = World::new(push(), &[]);
    let config = ConsumerConfig { replay_policy: ReplayPolicy::Original, ..push() };
    world.pass(10_000);
    world.consumer = Consumer::new(setup(config), stream.index(), 3, world.now);
    world.stream = stream;
    world.interest(true).expect(&["d <- 1/1 x1 +2"]).pass(499).expect(&[]);
    world.pass(1).expect(&["d <- 2/2 x1 +1"]).pass(199).expect(&[]).pass(1).expect(&["d <- 3/3 x1 +0"]);
    world.pass(60).publish("d").expect(&["d <- 4/4 x1 +0"]);
}

#[test]
fn another_deliver_subject_gets_everything_unacked() {
    let mut world = World::new(push(), &["a", "b"]);
    world.interest(true).poll();
    world.ack((1, 1, 1), "");
    let new = setup(ConsumerConfig { deliver_subject: "e".into(), ..push() }).config;
    let (index, now) = (world.stream.index(), world.now);
    world.consumer.handle_update(new, index, 2, now);
    world.expect(&["e <- 2/3 x2 +0 after commit"]);
}

#[test]
fn flow_control_acks_cover_what_was_delivered() {
    let config = ConsumerConfig { ack_policy: AckPolicy::FlowControl, max_ack_pending: 2, ..push() };
    let mut world = World::new(config, &["a", "b", "c"]);
    world.interest(true);
    let (lines, asked) = poll_to_flow_control(&mut world);
    assert_eq!(lines, ["d <- 1/1 x1 +2", "d <- 2/2 x1 +1", "d <- 100 FlowControl Request asks for an answer"]);
    answer_flow_control(&mut world, &asked, 2, 2);
    world.expect(&["d <- 3/3 x1 +0"]).expect_state("2/2", "3/3", [1, 0, 0, 0]);
}

#[test]
fn flow_control_acks_may_be_ahead_of_a_consumer_that_starts_over() {
    let config = ConsumerConfig { ack_policy: AckPolicy::FlowControl, max_ack_pending: 2, ..push() };
    let mut world = World::new(config, &["a", "b", "c", "d", "e", "f"]);
    world.consumer.setup.reports_consumed = true;
    world.consumer.handle_reset(0, world.stream.index(), 6).unwrap();
    world.interest(true);
    let (lines, asked) = poll_to_flow_control(&mut world);
    assert_eq!(lines, ["d <- 1/1 x1 +5", "d <- 2/2 x1 +4", "d <- 100 FlowControl Request asks for an answer"]);
    // It has had up to 5 already; one message of those is gone.
    world.delete(4);
    answer_flow_control(&mut world, &asked, 5, 2);
    world.expect(&["consumed 1", "consumed 2", "consumed 3", "consumed 5", "d <- 6/3 x1 +0"]);
    world.expect_state("2/5", "3/6", [1, 0, 0, 0]);
}

#[test]
fn flow_control_acks_beyond_the_stream_are_not_believed() {
    let config = ConsumerConfig { ack_policy: AckPolicy::FlowControl, max_ack_pending: 1, ..push() };
    let mut world = World::new(config, &["a", "b"]);
    world.interest(true);
    let (_, asked) = poll_to_flow_control(&mut world);
    answer_flow_control(&mut world, &asked, 3, 1);
    world.expect(&[]).expect_state("0/0", "1/1", [1, 0, 1, 0]);
}

/// What is done now, and the subject on which the last flow control request is to be answered.
fn poll_to_flow_control(world: &mut World) -> (Vec<String>, Bytes) {
    let (mut lines, mut asked) = (Vec::new(), Bytes::new());
    while let Some(output) = world.with(|consumer, view, now| consumer.poll(view, now)) {
        if let Output::Status(status) = &output {
            asked = status.reply.clone();
        }
        lines.push(line(&output));
    }
    (lines, asked)
}

fn answer_flow_control(world: &mut World, asked: &[u8], stream_seq: u64, consumer_seq: u64) {
    let headers = format!("NATS/1.0\r\nNats-Last-Consumer: {consumer_seq}\r\nNats-Last-Stream: {stream_seq}\r\n\r\n");
    world.with(|consumer, view, now| consumer.handle_flow_control(asked, headers.as_bytes(), view, now));
}
