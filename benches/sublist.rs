//! Matching a subject against many subscriptions, without the caches in front of it.
//!
//! `cargo bench --bench sublist`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use natterjack::router::{Matches, Sublist};

/// Subscriptions of a system of `plants`: one literal filter per plant, line and kind, and a few with wildcards.
fn subscriptions(plants: usize) -> Sublist<u64> {
    let mut list = Sublist::new();
    let mut key = 0;
    let mut insert = |filter: &str, queue: Option<&[u8]>| {
        key += 1;
        list.insert(filter.as_bytes(), queue, key).expect("filters of a benchmark are valid");
    };
    for plant in 0..plants {
        for line in 0..10 {
            insert(&format!("plant{plant}.line{line}.temperature"), None);
        }
        insert(&format!("plant{plant}.*.alarm"), None);
        insert(&format!("plant{plant}.>"), Some(b"archive"));
    }
    insert("*.*.alarm", None);
    list
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("match");
    for plants in [10, 10_000] {
        let list = subscriptions(plants);
        let count = list.count();
        for (name, subject) in
            [("literal and group", "plant7.line3.temperature"), ("wildcards", "plant7.line3.alarm"), ("none", "a.b.c")]
        {
            let mut matches = Matches::new();
            group.bench_function(format!("{name}, {count} subscriptions"), |bencher| {
                bencher.iter(|| {
                    list.match_into(black_box(subject.as_bytes()), &mut matches);
                    black_box(matches.plain.len() + matches.queues.len())
                });
            });
        }
    }
    let mut list: Sublist<u64> = Sublist::new();
    list.insert(b"orders.eu.created", None, 1).expect("valid");
    let mut matches = Matches::new();
    group.bench_function("three tokens, one subscription", |bencher| {
        bencher.iter(|| {
            list.match_into(black_box(b"orders.eu.created"), &mut matches);
            black_box(matches.plain.len())
        });
    });
    group.finish();
}

fn changing(criterion: &mut Criterion) {
    let mut list = subscriptions(10_000);
    let mut key = 1 << 32;
    criterion.bench_function("insert and remove an inbox", |bencher| {
        bencher.iter(|| {
            key += 1;
            list.insert(black_box(b"_INBOX.Xk2lq9sV3nF4.*"), None, key).expect("valid");
            list.remove(black_box(b"_INBOX.Xk2lq9sV3nF4.*"), None, key)
        });
    });
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

criterion_group! { name = benches; config = short(); targets = matching, changing }
criterion_main!(benches);
