//! A consumer's hot path, without a store or a network: one delivery and one ack, with thousands of messages out.
//!
//! `cargo bench --bench consumer`.

#![allow(clippy::disallowed_methods, reason = "measuring is what clocks are for")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use natterjack::consumer::{Ack, AckKind, AckPolicy, Consumer, ConsumerConfig, Output, Setup, StreamTerms, View};
use natterjack::stream::{Changes, Stream, StreamConfig, StreamId};
use natterjack::types::{Message, Timestamp};

const MESSAGES: u64 = 500_000;
const OUT: u64 = 4_000;

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

fn consumer(stream: &Stream, filter: &str) -> Consumer {
    let mut config = ConsumerConfig {
        durable: "C".into(),
        ack_policy: AckPolicy::Explicit,
        filter_subject: filter.into(),
        max_ack_pending: 2 * OUT as i64,
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

/// Time for `iterations` of one delivery and one ack, `OUT` messages after it, in the order `ack_order` gives within
/// each hundred.
fn deliver_and_ack(stream: &Stream, filter: &str, iterations: u64, ack_order: fn(u64) -> u64) -> Duration {
    let view = View { index: stream.index(), interest: &|_| true, interest_generation: 1, size: &|_| None };
    let mut passed = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let mut consumer = consumer(stream, filter);
        let mut now = Timestamp(1);
        let mut delivered: Vec<Ack> = Vec::with_capacity(MESSAGES as usize);
        let pull = |consumer: &mut Consumer, now| {
            consumer.handle_next(Bytes::from_static(b"_INBOX.r"), b"1000000", &view, now)
        };
        pull(&mut consumer, now);
        let started = Instant::now();
        let mut warm = started;
        let mut acked = 0u64;
        while acked < left {
            now.0 += 100;
            match consumer.poll(&view, now) {
                Some(Output::Deliver(delivery)) => delivered.push(black_box(delivery).ack),
                Some(output) => {
                    black_box(output);
                    continue;
                }
                None => break,
            }
            if delivered.len() as u64 == OUT {
                warm = Instant::now();
            }
            if delivered.len() as u64 > OUT {
                let ack = delivered[ack_order(acked) as usize];
                consumer.handle_ack(ack, AckKind::Ack, Bytes::new(), &view, now);
                acked += 1;
                if acked.is_multiple_of(500) {
                    black_box(consumer.changes());
                    black_box(consumer.next_deadline());
                }
            }
        }
        passed += warm.elapsed();
        left -= acked;
    }
    passed
}

fn hot_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deliver and ack");
    group.throughput(Throughput::Elements(1));
    let stream = stream(10);
    group.bench_function("in order", |bencher| {
        bencher.iter_custom(|iterations| deliver_and_ack(&stream, "", iterations, |nth| nth));
    });
    group.bench_function("out of order", |bencher| {
        // 37 and 100 have no divisor in common, so each hundred is acked once through.
        bencher.iter_custom(|iterations| {
            deliver_and_ack(&stream, "", iterations, |nth| nth / 100 * 100 + nth % 100 * 37 % 100)
        });
    });
    group.bench_function("one subject of ten", |bencher| {
        bencher.iter_custom(|iterations| deliver_and_ack(&stream, "work.3", iterations, |nth| nth));
    });
    group.finish();
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
