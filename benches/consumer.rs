//! A consumer's hot path, without a store or a network: a delivery, and an ack, with few and with many
//! messages out, and with a thousand consumers.
//!
//! `cargo bench --bench consumer`.

#![allow(clippy::disallowed_methods, reason = "measuring is what clocks are for")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use natterjack::consumer::{Ack, AckKind, AckPolicy, Consumer, ConsumerConfig, Output, Setup, StreamTerms, View};
use natterjack::stream::{Changes, Stream, StreamConfig, StreamId};
use natterjack::types::{Message, Timestamp};

const MESSAGES: u64 = 500_000;

fn stream(subjects: u64) -> Stream {
    let config = StreamConfig { name: "S".into(), subjects: vec![">".into()], ..StreamConfig::default() };
    let mut stream = Stream::new(StreamId(1), Arc::new(config), Timestamp(1));
    let mut changes = Changes::new();
    for seq in 0..MESSAGES {
        let subject = format!("work.{}", seq % subjects);
        let message = Message::new(subject.as_bytes(), b"", b"payload");
        stream
            .handle_publish(
                &message,
                &natterjack::stream::World::new(&|_| true),
                Timestamp(seq as i64 + 1),
                &mut changes,
            )
            .expect("no limit is set");
        changes.clear();
    }
    stream
}

fn consumer(stream: &Stream, load: Load) -> Consumer {
    let mut config = ConsumerConfig {
        durable: "C".into(),
        ack_policy: AckPolicy::Explicit,
        filter_subject: load.filter.into(),
        max_ack_pending: 2 * (load.out + TURN) as i64,
        ..ConsumerConfig::default()
    };
    config.set_defaults(&StreamTerms::default(), false).expect("only pedantic defaults fail");
    let setup = Setup {
        stream: "S".into(),
        name: "C".into(),
        config: Arc::new(config),
        created: Timestamp(1),
        reports_consumed: true,
        message_bytes_max: 1 << 20,
    };
    Consumer::new(setup, stream.index(), MESSAGES, Timestamp(1))
}

/// What is measured.
#[derive(Clone, Copy)]
struct Load {
    filter: &'static str,
    /// Consumers on the stream, which take turns.
    consumers: usize,
    /// Messages out without an ack all the while, in each consumer.
    out: u64,
    /// The place of the nth ack in the order of deliveries.
    ack_order: fn(u64) -> u64,
}

/// One consumer, and how far it has come.
struct Lane {
    consumer: Consumer,
    delivered: VecDeque<Ack>,
}

#[derive(Clone, Copy, Default)]
struct Passed {
    deliver: Duration,
    ack: Duration,
}

/// Deliveries and acks before the next consumer has its turn, and in whose middle the clock is not looked at.
const TURN: u64 = 100;

/// Time for `iterations` deliveries, and for as many acks.
fn deliver_and_ack(stream: &Stream, load: Load, iterations: u64) -> Passed {
    let view = View { index: stream.index(), interest: &|_| true, interest_generation: 1, size: &|_| None };
    let mut passed = Passed::default();
    let mut left = iterations;
    while left > 0 {
        let mut now = Timestamp(1);
        let mut lanes: Vec<Lane> = (0..load.consumers)
            .map(|_| Lane { consumer: consumer(stream, load), delivered: VecDeque::new() })
            .collect();
        for lane in &mut lanes {
            lane.consumer.handle_next(Bytes::from_static(b"_INBOX.r"), b"1000000", &view, now);
            deliver(lane, load.out, &view, &mut now);
        }
        'used_up: loop {
            for lane in &mut lanes {
                let started = Instant::now();
                let count = deliver(lane, TURN.min(left), &view, &mut now);
                let delivered = Instant::now();
                let acks: Vec<Ack> = lane.delivered.drain(..count as usize).collect();
                for nth in 0..count {
                    let ack = acks[((load.ack_order)(nth) % count) as usize];
                    lane.consumer.handle_ack(ack, AckKind::Ack, Bytes::new(), &view, now);
                }
                black_box(lane.consumer.changes());
                black_box(lane.consumer.next_deadline());
                passed.ack += delivered.elapsed();
                passed.deliver += delivered - started;
                left -= count;
                if left == 0 || count < TURN {
                    break 'used_up;
                }
            }
        }
    }
    passed
}

/// Delivers up to `count` messages; how many it were.
fn deliver(lane: &mut Lane, count: u64, view: &View, now: &mut Timestamp) -> u64 {
    for nth in 0..count {
        now.0 += 100;
        loop {
            match lane.consumer.poll(view, *now) {
                Some(Output::Deliver(delivery)) => break lane.delivered.push_back(black_box(delivery).ack),
                Some(output) => drop(black_box(output)),
                None => return nth,
            }
        }
    }
    count
}

fn hot_path(criterion: &mut Criterion) {
    let stream = stream(10);
    let in_order = Load { filter: "", consumers: 1, out: 4_000, ack_order: |nth| nth };
    let loads = [
        ("in order", in_order),
        // 37 and 100 have no divisor in common, so each hundred is acked once through.
        ("out of order", Load { ack_order: |nth| nth * 37, ..in_order }),
        ("one subject of ten", Load { filter: "work.3", ..in_order }),
        ("100,000 out", Load { out: 100_000, ..in_order }),
        ("1,000 consumers with 100 out each", Load { consumers: 1_000, out: 100, ..in_order }),
    ];
    for (kind, of) in
        [("deliver", (|passed: Passed| passed.deliver) as fn(Passed) -> Duration), ("ack", |passed| passed.ack)]
    {
        let mut group = criterion.benchmark_group(kind);
        group.throughput(Throughput::Elements(1));
        for (name, load) in loads {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| of(deliver_and_ack(&stream, load, iterations)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
