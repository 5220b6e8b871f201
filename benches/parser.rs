//! Reading publishes in place and writing messages: the two functions every message passes.
//!
//! `cargo bench --bench parser`. The time is of one operation.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use natterjack::protocol::{Limits, Parser, encode};

/// Operations in one read buffer, as a busy client fills it.
const OPERATIONS: usize = 256;

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let headers = b"NATS/1.0\r\nNats-Msg-Id: 4711\r\n\r\n";
    let payload = [b'x'; 128];
    for (name, reply, with_headers) in
        [("pub", "", false), ("pub with reply", "_INBOX.Xk2lq9sV3nF4.1", false), ("hpub", "", true)]
    {
        let headers: &[u8] = if with_headers { headers } else { b"" };
        let mut one = Vec::new();
        encode::publish(&mut one, b"orders.eu.created", reply.as_bytes(), headers, &payload);
        let input = one.repeat(OPERATIONS);
        let limits = Limits::default();
        let mut parser = Parser::new();
        let mut at = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let next = parser.next(black_box(&input[at..]), &limits);
                let consumed = next.as_ref().map_or(0, |next| next.map_or(0, |(_, consumed)| consumed));
                at = if at + consumed == input.len() { 0 } else { at + consumed };
                black_box(&next);
            });
        });
    }
    group.finish();
}

fn encode_msg(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode msg");
    for size in [16, 128, 1024] {
        let payload = vec![b'x'; size];
        let mut out = Vec::with_capacity(OPERATIONS * (size + 64));
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
