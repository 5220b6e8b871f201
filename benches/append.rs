//! The log without its disk: rows into and out of the index, whole publishes, and readers' questions.
//!
//! `cargo bench --bench append`.

#![allow(clippy::disallowed_methods, reason = "measuring is what clocks are for")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use natterjack::stream::config::Nanos;
use natterjack::stream::{Changes, Filter, Stream, StreamConfig, StreamId};
use natterjack::types::header::HeaderBuilder;
use natterjack::types::{Message, Timestamp};

const START: i64 = 1_795_000_000_000_000_000;
/// Rows after which a growing stream starts over.
const ROWS: u64 = 1_000_000;

fn stream(change: impl FnOnce(&mut StreamConfig)) -> Stream {
    let mut config = StreamConfig { name: "S".into(), subjects: vec!["k.>".into()], ..StreamConfig::default() };
    change(&mut config);
    let config = config.check_create(false).expect("a benchmark's configuration is valid");
    Stream::new(StreamId(1), Arc::new(config), Timestamp(START))
}

/// The key of step `at`, jumping about in `keys` of them.
fn key(at: u64, keys: u64) -> String {
    format!("k.{}", at.wrapping_mul(2_654_435_761) % keys)
}

fn filled(rows: u64, keys: u64) -> Stream {
    let mut stream = stream(|_| {});
    for seq in 1..=rows {
        stream.restore(seq, Timestamp(START + seq as i64 * 1000), key(seq, keys).as_bytes(), b"", 150);
    }
    stream
}

fn index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for keys in [1, 1000, 1_000_000] {
        let names: Vec<String> = (0..ROWS.min(keys * 7)).map(|at| key(at, keys)).collect();
        group.bench_function(format!("append, {keys} subjects"), |bencher| {
            bencher.iter_custom(|steps| {
                let mut spent = Duration::ZERO;
                let mut left = steps;
                while left > 0 {
                    let rows = left.min(ROWS);
                    let mut stream = stream(|_| {});
                    let begun = Instant::now();
                    for seq in 1..=rows {
                        let subject = names[seq as usize % names.len()].as_bytes();
                        stream.restore(seq, Timestamp(START + seq as i64), subject, b"", 150);
                    }
                    spent += begun.elapsed();
                    left -= rows;
                }
                spent
            });
        });
        group.bench_function(format!("remove the oldest, {keys} subjects"), |bencher| {
            bencher.iter_custom(|steps| {
                let mut spent = Duration::ZERO;
                let mut left = steps;
                while left > 0 {
                    let rows = left.min(ROWS);
                    let mut stream = filled(rows, keys);
                    let mut changes = Changes::new();
                    changes.removes.reserve(rows as usize);
                    let begun = Instant::now();
                    for seq in 1..=rows {
                        stream.handle_delete(seq, &mut changes).expect("it lives");
                    }
                    spent += begun.elapsed();
                    left -= rows;
                }
                spent
            });
        });
    }
    group.finish();
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let plain: Vec<Message> = (0..1000).map(|at| Message::new(key(at, 1000).as_bytes(), b"", &[b'x'; 128])).collect();
    let many: Vec<Message> =
        (0..100_000).map(|at| Message::new(key(at, 100_000).as_bytes(), b"", &[b'x'; 128])).collect();
    let with_ids: Vec<Message> = (0..500_000)
        .map(|at| {
            let headers = HeaderBuilder::new().add("Nats-Msg-Id", format_args!("message-{at}")).build();
            Message::new(b"k.1", &headers, &[b'x'; 128])
        })
        .collect();
    let mut run = |name: &str, messages: &[Message], mut stream: Stream| {
        let mut changes = Changes::new();
        let mut at = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at += 1;
                let now = Timestamp(START + at as i64 * 1000);
                let published = stream.handle_publish(
                    &messages[at % messages.len()],
                    &natterjack::stream::World::new(&|_| true),
                    now,
                    &mut changes,
                );
                if at % 256 == 0 {
                    changes.clear();
                }
                black_box(published).is_ok()
            });
        });
    };
    run("plain, the newest million kept", &plain, stream(|config| config.max_msgs = ROWS as i64));
    run("last value of 100,000 keys", &many, stream(|config| config.max_msgs_per_subject = 1));
    run(
        "with a message id",
        &with_ids,
        stream(|config| {
            config.max_msgs = ROWS as i64;
            config.duplicate_window = Nanos::from_millis(400);
        }),
    );
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let stream = filled(5_000_000, 10_000);
    let index = stream.index();
    for (name, patterns) in [
        ("next of all", &[][..]),
        ("next of one subject in 10,000", &["k.77"]),
        ("next of two subjects in 10,000", &["k.77", "k.78"]),
        ("next of a wildcard", &["k.*"]),
    ] {
        let mut filter = Filter::new(patterns);
        let mut seq = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                seq = index.next(seq + 1, &mut filter).unwrap_or(0);
                black_box(seq)
            });
        });
    }
    let mut filter = Filter::new(["k.77"]);
    group.bench_function("count one subject from the middle of 5 million", |bencher| {
        bencher.iter(|| black_box(index.count_from(2_500_000, &mut filter)));
    });
    group.bench_function("sequence at a time", |bencher| {
        bencher.iter(|| black_box(index.seq_at_time(Timestamp(START + 2_345_678_901))));
    });
    group.finish();
}

criterion_group!(benches, index, publish, read);
criterion_main!(benches);
