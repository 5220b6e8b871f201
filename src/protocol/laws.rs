//! What always holds of the parsers and writers, whatever the bytes.

use proptest::prelude::*;

use super::*;

/// What a reader that buffers gets out of `chunks`: each operation, and the error it ends with.
fn read(chunks: &[&[u8]], limits: &Limits) -> Vec<String> {
    let mut parser = Parser::new();
    let mut buffer = Vec::new();
    let mut seen = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        let mut at = 0;
        loop {
            match parser.next(&buffer[at..], limits) {
                Ok(Some((op, consumed))) => {
                    assert!(consumed > 0);
                    seen.push(format!("{op:?}"));
                    at += consumed;
                }
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
        buffer.drain(..at);
        assert_within(&buffer, &parser, limits);
    }
    seen
}

/// What an unfinished operation makes the reader hold, now and once its missing bytes have come.
fn assert_within(held: &[u8], parser: &Parser, limits: &Limits) {
    let line = "CONNECT ".len() + limits.max_control_line + "\r\n".len();
    if parser.needed() == 0 {
        assert!(held.len() <= line, "{} bytes of an unfinished line", held.len());
    } else {
        let most = line + limits.max_payload + "\r\n".len();
        assert!(held.len() + parser.needed() <= most, "{} and {} bytes", held.len(), parser.needed());
    }
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("separators", |byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    prop_oneof!["[a-z]{1,8}(\\.[a-z*>]{1,5}){0,3}".prop_map(String::into_bytes), prop::collection::vec(byte, 1..20)]
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        Just(b"\r\n".to_vec()),
        Just(b"PUB foo 0\r\n\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..300),
    ]
}

/// An operation, owned.
#[derive(Clone, Debug)]
enum Owned {
    Pub { subject: Vec<u8>, reply: Vec<u8>, headers: Vec<u8>, payload: Vec<u8> },
    Sub { subject: Vec<u8>, queue: Vec<u8>, sid: Vec<u8> },
    Unsub { sid: Vec<u8>, max: Option<u64> },
    Ping,
    Pong,
}

impl Owned {
    fn op(&self) -> ClientOp<'_> {
        match self {
            Owned::Pub { subject, reply, headers, payload } => ClientOp::Pub { subject, reply, headers, payload },
            Owned::Sub { subject, queue, sid } => ClientOp::Sub { subject, queue, sid },
            Owned::Unsub { sid, max } => ClientOp::Unsub { sid, max: *max },
            Owned::Ping => ClientOp::Ping,
            Owned::Pong => ClientOp::Pong,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Owned::Pub { subject, reply, headers, payload } => encode::publish(out, subject, reply, headers, payload),
            Owned::Sub { subject, queue, sid } => encode::sub(out, subject, queue, sid),
            Owned::Unsub { sid, max } => encode::unsub(out, sid, *max),
            Owned::Ping => encode::ping(out),
            Owned::Pong => encode::pong(out),
        }
    }
}

fn or_empty(name: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    prop::option::of(name).prop_map(Option::unwrap_or_default)
}

fn any_op() -> impl Strategy<Value = Owned> {
    prop_oneof![
        4 => (any_name(), or_empty(any_name()), any_body(), any_body())
            .prop_map(|(subject, reply, headers, payload)| Owned::Pub { subject, reply, headers, payload }),
        2 => (any_name(), or_empty(any_name()), any_name())
            .prop_map(|(subject, queue, sid)| Owned::Sub { subject, queue, sid }),
        1 => (any_name(), prop::option::of(1u64..)).prop_map(|(sid, max)| Owned::Unsub { sid, max }),
        1 => Just(Owned::Ping),
        1 => Just(Owned::Pong),
    ]
}

/// Bytes that are mostly operations, some of them damaged.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        8 => any_op().prop_map(|op| {
            let mut out = Vec::new();
            op.encode(&mut out);
            out
        }),
        1 => prop::sample::select(vec![
            "CONNECT {}\r\n", "INFO {}\r\n", "+OK\r\n", "-ERR 'x'\r\n", "PUB foo 5\nhello\r\n", "pub\tfoo 0\r\n\r\n", "PUB foo -1\r\n",
            "PUB foo 65\r\n", "UNSUB 1 x\r\n", "HPUB a 3 2\r\n", "PUB foo 5\r\nhell", "FOO\r\n", "\r\n", "PUB \r\r\n", "PING \r",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..10),
        1 => (prop::sample::select(vec!["PUB ", "SUB ", "PING", "CONNECT ", "HPUB "]), 200usize..300, any::<bool>())
            .prop_map(|(verb, length, ends)| format!("{verb}{}{}", "x".repeat(length), if ends { "\r\n" } else { "" }).into()),
    ];
    (prop::collection::vec(fragment, 1..8), prop::option::of((any::<prop::sample::Index>(), any::<u8>()))).prop_map(
        |(fragments, damage)| {
            let mut stream = fragments.concat();
            if let Some((at, byte)) = damage
                && !stream.is_empty()
            {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            stream
        },
    )
}

proptest! {
    #[test]
    fn same_operations_however_the_bytes_are_split(
        stream in any_stream(),
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let limits = Limits { max_control_line: 256, max_payload: 400, connect_only: false };
        let whole = read(&[&stream], &limits);
        let mut ends: Vec<usize> = splits.iter().map(|index| index.index(stream.len() + 1)).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let mut start = 0;
        let chunks: Vec<&[u8]> = ends.iter().map(|&end| &stream[std::mem::replace(&mut start, end)..end]).collect();
        prop_assert_eq!(&read(&chunks, &limits), &whole);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&read(&bytes, &limits), &whole);
    }

    #[test]
    fn reads_what_it_writes(ops in prop::collection::vec(any_op(), 1..10)) {
        let mut out = Vec::new();
        ops.iter().for_each(|op| op.encode(&mut out));
        let mut parser = Parser::new();
        let mut at = 0;
        for op in &ops {
            let (read, consumed) = parser.next(&out[at..], &Limits::default()).unwrap().unwrap();
            prop_assert_eq!(read, op.op());
            at += consumed;
        }
        prop_assert_eq!(at, out.len());
    }

    #[test]
    fn a_client_reads_the_messages_a_server_writes(
        subject in any_name(), sid in any_name(), reply in or_empty(any_name()), headers in any_body(), payload in any_body(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut out = Vec::new();
        encode::msg(&mut out, &subject, &sid, &reply, &headers, &payload);
        let msg = ServerOp::Msg { subject: &subject, sid: &sid, reply: &reply, headers: &headers, payload: &payload };
        let mut parser = ServerParser::new();
        prop_assert_eq!(parser.next(&out), Ok(Some((msg, out.len()))));
        prop_assert_eq!(parser.next(&out[..cut.index(out.len())]), Ok(None));
    }
}
