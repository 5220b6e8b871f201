//! Reading publishes in place and writing messages: the two functions every message passes.
//!
//! `cargo bench --bench parser`. The time is of one operation.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use natterjack::protocol::{Limits, Parser, encode};

/// Operations in one read buffer, as a busy client fills it.
const OPERATIONS: u64 = 256;

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let headers = b"NATS/1.0\r\nNats-Msg-Id: 4711\r\n\r\n";
    let payload = [b'x'; 128];
    let cases: [(&str, &[u8], &[u8], &[u8]); 4] = [
        ("pub", b"orders.eu.created", b"", b""),
        ("pub with reply", b"orders.eu.created", b"_INBOX.Xk2lq9sV3nF4.1", b""),
        ("pub, long subject", b"telemetry.plant-7.line-3.robot-12.axis-4.temperature.celsius", b"", b""),
        ("hpub", b"orders.eu.created", b"", headers),
    ];
    for (name, subject, reply, headers) in cases {
        let mut one = Vec::new();
        encode::publish(&mut one, subject, reply, headers, &payload);
        let input = one.repeat(OPERATIONS as usize);
        let limits = Limits::default();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut parser = Parser::new();
                let rounds = iterations.div_ceil(OPERATIONS);
                let start = std::time::Instant::now();
                for _ in 0..rounds {
                    let mut at = 0;
                    while let Ok(Some((op, consumed))) = parser.next(black_box(&input[at..]), &limits) {
                        black_box(op);
                        at += consumed;
                    }
                    assert_eq!(at, input.len());
                }
                start.elapsed().mul_f64(iterations as f64 / (rounds * OPERATIONS) as f64)
            });
        });
    }
    group.finish();
}

fn encode_msg(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode msg");
    for size in [16, 128, 1024] {
        let payload = vec![b'x'; size];
        let mut out = Vec::with_capacity(OPERATIONS as usize * (size + 64));
        group.bench_function(format!("{size} B"), |bencher| {
            bencher.iter(|| {
                // As an outbox: appended to until it is written whole.
                if out.len() + size + 64 > out.capacity() {
                    out.clear();
                }
                encode::msg(&mut out, black_box(b"orders.eu.created"), black_box(b"12"), b"", b"", &payload);
            });
        });
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

criterion_group! { name = benches; config = short(); targets = parse, encode_msg }
criterion_main!(benches);
