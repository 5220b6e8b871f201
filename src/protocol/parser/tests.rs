use super::*;

fn parse(input: &[u8]) -> Result<Option<(ClientOp<'_>, usize)>, ProtocolError> {
    Parser::new().next(input, &Limits::default())
}

/// One operation that takes the whole input.
fn check(input: &[u8], expected: ClientOp<'_>) {
    assert_eq!(parse(input), Ok(Some((expected, input.len()))), "{}", String::from_utf8_lossy(input));
}

fn check_error(input: &[u8], expected: ProtocolError) {
    assert_eq!(parse(input), Err(expected), "{}", String::from_utf8_lossy(input));
}

fn publish<'a>(subject: &'a [u8], reply: &'a [u8], headers: &'a [u8], payload: &'a [u8]) -> ClientOp<'a> {
    ClientOp::Pub { subject, reply, headers, payload }
}

#[test]
fn reads_every_operation() {
    check(b"PUB foo 5\r\nhello\r\n", publish(b"foo", b"", b"", b"hello"));
    check(b"PUB foo bar 2\r\n\r\n\r\n", publish(b"foo", b"bar", b"", b"\r\n"));
    check(b"pub foo 0\r\n\r\n", publish(b"foo", b"", b"", b""));
    check(b"PuB\tfoo\t5\nhello\r\n", publish(b"foo", b"", b"", b"hello"));
    check(b"PUB  foo \t bar  05 \r\nhello\r\n", publish(b"foo", b"bar", b"", b"hello"));
    check(b"HPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", publish(b"foo", b"", b"NATS/1.0\r\n\r\n", b"hi"));
    check(b"hpub foo bar 12 12\r\nNATS/1.0\r\n\r\n\r\n", publish(b"foo", b"bar", b"NATS/1.0\r\n\r\n", b""));
    check(b"HPUB foo 0 5\r\nhello\r\n", publish(b"foo", b"", b"", b"hello"));
    check(b"SUB foo 1\r\n", ClientOp::Sub { subject: b"foo", queue: b"", sid: b"1" });
    check(b"sub foo.> q  1\r\n", ClientOp::Sub { subject: b"foo.>", queue: b"q", sid: b"1" });
    check(b"SUB foo\r1\r\n", ClientOp::Sub { subject: b"foo", queue: b"", sid: b"1" });
    check(b"UNSUB 1\r\n", ClientOp::Unsub { sid: b"1", max: None });
    check(b"UNSUB 1 5\r\n", ClientOp::Unsub { sid: b"1", max: Some(5) });
    check(b"UNSUB 1 0\r\n", ClientOp::Unsub { sid: b"1", max: None });
    check(b"UNSUB 1 -1\r\n", ClientOp::Unsub { sid: b"1", max: None });
    check(b"UNSUB 1 x\r\n", ClientOp::Unsub { sid: b"1", max: None });
    check(b"UNSUB 1 9999999999\r\n", ClientOp::Unsub { sid: b"1", max: Some(9_999_999_999) });
    check(b"UNSUB 1 99999999999999999999\r\n", ClientOp::Unsub { sid: b"1", max: Some(u64::MAX) });
    check(b"PING\r\n", ClientOp::Ping);
    check(b"ping\n", ClientOp::Ping);
    check(b"PINGxx\r\n", ClientOp::Ping);
    check(b"PONG\r\n", ClientOp::Pong);
    check(b"CONNECT {}\r\n", ClientOp::Connect(b"{}"));
    check(b"connect{}  \r\n", ClientOp::Connect(b"{}"));
    check(b"CONNECT\r\n", ClientOp::Connect(b""));
    check(b"INFO {}\r\n", ClientOp::Info(b"{}"));
    check(b"+OK\r\n", ClientOp::Ok);
    check(b"-ERR 'x'\r\n", ClientOp::Err(b"'x'"));
}

#[test]
fn refuses_unknown_operations_at_their_first_wrong_byte() {
    for input in [
        &b"FOO\r\n"[..],
        b"\r\n",
        b"\n",
        b" PING\r\n",
        b"\0",
        b"F",
        b"PIX",
        b"PUX",
        b"PUBX",
        b"PUB\r\n",
        b"PUB\0foo 0\r\n\r\n",
        b"SUB\n",
        b"UNSUB\r\n",
        b"HPUB\r\n",
        b"-ERR\r\n",
        b"MSG foo 1 0\r\n\r\n",
        b"HMSG",
        b"RS+ foo\r\n",
        b"A+ foo\r\n",
        b"LS+ foo\r\n",
    ] {
        check_error(input, ProtocolError::UnknownOperation);
    }
}

#[test]
fn refuses_payloads_that_do_not_end_where_they_should() {
    for input in [
        &b"PUB foo 5\r\nhelloX"[..],
        b"PUB foo 5\r\nhello\rX",
        b"PUB foo 5\r\nhello\nPING\r\n",
        b"PUB foo 5\r\nhell\r\n\r\n",
        b"HPUB foo 12 13\r\nNATS/1.0\r\n\r\nhi\r\n",
    ] {
        check_error(input, ProtocolError::UnknownOperation);
    }
}

#[test]
fn refuses_wrong_arguments() {
    for input in [
        &b"PUB foo\r\n"[..],
        b"PUB \r\n",
        b"PUB foo a b 5\r\nhello\r\n",
        b"HPUB foo 12\r\n",
        b"HPUB a b c d e\r\n",
        b"SUB foo\r\n",
        b"SUB  \r\n",
        b"SUB foo q 1 x\r\n",
        b"UNSUB  \r\n",
        b"UNSUB 1 2 3\r\n",
    ] {
        check_error(input, ProtocolError::ArgumentCount);
    }
}

/// The numbers that have broken parsers before.
const BAD_SIZES: [&str; 12] = [
    "-1",
    "+5",
    "0x5",
    "5x",
    "1e3",
    "1.0",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "99999999999999999999",
];

#[test]
fn refuses_every_bad_number() {
    for size in BAD_SIZES {
        check_error(format!("PUB foo {size}\r\n").as_bytes(), ProtocolError::BadSize);
        check_error(format!("PUB foo bar {size}\r\n").as_bytes(), ProtocolError::BadSize);
        check_error(format!("HPUB foo 0 {size}\r\n").as_bytes(), ProtocolError::BadSize);
        check_error(format!("HPUB foo {size} 5\r\n").as_bytes(), ProtocolError::BadHeaderSize);
    }
    check_error(b"HPUB foo 13 12\r\n", ProtocolError::HeaderSizeOverTotal);
}

#[test]
fn refuses_a_payload_over_the_limit_before_it_arrives() {
    check_error(b"PUB foo 8388609\r\n", ProtocolError::MaxPayload);
    check_error(b"PUB foo 999999999\r\n", ProtocolError::MaxPayload);
    check_error(b"HPUB foo 0 8388609\r\n", ProtocolError::MaxPayload);
    assert_eq!(parse(b"PUB foo 8388608\r\n"), Ok(None));
}

#[test]
fn refuses_a_control_line_over_the_limit_before_it_ends() {
    let long = "x".repeat(4097);
    for verb in ["PUB", "HPUB", "SUB", "UNSUB", "CONNECT", "INFO", "-ERR", "PING"] {
        check_error(format!("{verb} {long}").as_bytes(), ProtocolError::MaxControlLine);
        check_error(format!("{verb} {long}\r\n").as_bytes(), ProtocolError::MaxControlLine);
    }
    let name = "x".repeat(4085);
    check(
        format!("CONNECT {{\"name\":\"{name}\"}}\r\n").as_bytes(),
        ClientOp::Connect(format!("{{\"name\":\"{name}\"}}").as_bytes()),
    );
    check_error(format!("CONNECT {{\"name\":\"x{name}\"}}\r\n").as_bytes(), ProtocolError::MaxControlLine);
    let subject = "x".repeat(4094);
    check(format!("PUB {subject} 0\r\n\r\n").as_bytes(), publish(subject.as_bytes(), b"", b"", b""));
    assert_eq!(parse(format!("PUB {subject} 0\r").as_bytes()), Ok(None));
    check_error(format!("PUB {subject} 0 \r").as_bytes(), ProtocolError::MaxControlLine);
}

#[test]
fn reads_only_connect_before_identity() {
    let limits = Limits { connect_only: true, ..Limits::default() };
    let mut parser = Parser::new();
    for input in [&b"P"[..], b"PUB foo 5\r\nhello\r\n", b"PING\r\n", b"\r\n", b"INFO {}\r\n"] {
        assert_eq!(parser.next(input, &limits), Err(ProtocolError::AuthorizationViolation));
    }
    assert_eq!(parser.next(b"", &limits), Ok(None));
    assert_eq!(parser.next(b"c", &limits), Ok(None));
    assert_eq!(parser.next(b"CX", &limits), Err(ProtocolError::UnknownOperation));
    assert_eq!(parser.next(b"connect {}\r\n", &limits), Ok(Some((ClientOp::Connect(b"{}"), 12))));
}

#[test]
fn says_how_much_of_a_payload_is_missing() {
    let mut parser = Parser::new();
    assert_eq!(parser.next(b"PUB foo 1000\r\nhel", &Limits::default()), Ok(None));
    assert_eq!(parser.needed(), 999);
    assert_eq!(parser.next(b"PUB foo 10", &Limits::default()), Ok(None));
    assert_eq!(parser.needed(), 0);
}
