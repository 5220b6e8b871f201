//! The client parser on any bytes: it never panics, reads the same operations however the bytes are split, holds no more
//! than its limits, and reads back what the writers make of what it read. The server parser on the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use natterjack::protocol::{ClientOp, Limits, Parser, ServerParser, encode};

const LIMITS: Limits = Limits { max_control_line: 256, max_payload: 512, connect_only: false };

/// The operations in `input` when it arrives in pieces of `piece` bytes, and the error it ends with.
fn read(input: &[u8], piece: usize) -> Vec<String> {
    let mut parser = Parser::new();
    let mut seen = Vec::new();
    let mut start = 0;
    for end in (0..input.len()).step_by(piece).skip(1).chain([input.len()]) {
        loop {
            match parser.next(&input[start..end], &LIMITS) {
                Ok(Some((op, consumed))) => {
                    assert!(consumed > 0 && start + consumed <= end);
                    seen.push(format!("{op:?}"));
                    start += consumed;
                }
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
        let line = "CONNECT ".len() + LIMITS.max_control_line + "\r\n".len();
        let held = end - start + parser.needed();
        assert!(held <= line || parser.needed() > 0 && held <= line + LIMITS.max_payload + "\r\n".len());
    }
    seen
}

fn assert_reads_back(op: ClientOp<'_>) {
    let mut out = Vec::new();
    match op {
        ClientOp::Pub { subject, reply, headers, payload } => encode::publish(&mut out, subject, reply, headers, payload),
        ClientOp::Sub { subject, queue, sid } => encode::sub(&mut out, subject, queue, sid),
        ClientOp::Unsub { sid, max } => encode::unsub(&mut out, sid, max),
        ClientOp::Ping => encode::ping(&mut out),
        ClientOp::Pong => encode::pong(&mut out),
        ClientOp::Connect(_) | ClientOp::Info(_) | ClientOp::Ok | ClientOp::Err(_) => return,
    }
    // The longest count is longer than the digits it may have been written with.
    let limits = Limits { max_control_line: 300, ..LIMITS };
    assert_eq!(Parser::new().next(&out, &limits), Ok(Some((op, out.len()))));
}

fuzz_target!(|input: &[u8]| {
    let Some((&piece, input)) = input.split_first() else { return };
    let whole = read(input, usize::MAX);
    assert_eq!(read(input, 1), whole);
    assert_eq!(read(input, 1 + usize::from(piece)), whole);

    let mut parser = Parser::new();
    let mut at = 0;
    while let Ok(Some((op, consumed))) = parser.next(&input[at..], &LIMITS) {
        assert_reads_back(op);
        at += consumed;
    }

    let mut parser = ServerParser::new();
    let mut at = 0;
    while let Ok(Some((_, consumed))) = parser.next(&input[at..]) {
        assert!(consumed > 0);
        at += consumed;
    }
});
