use proptest::prelude::*;

use super::*;
use crate::protocol::Parser;

const START: Timestamp = Timestamp(1_000_000_000_000);

fn session(settings: Settings) -> Session {
    Session::new(Arc::new(settings), 7, START)
}

fn with_auth() -> Session {
    session(Settings { auth_required: true, ..Settings::default() })
}

/// Admits every operation in `input`; stops at an error that closes.
fn run(session: &mut Session, input: &[u8]) -> Vec<Result<Admit, ProtocolError>> {
    let mut parser = Parser::new();
    let mut results = Vec::new();
    let mut at = 0;
    loop {
        let admitted = match parser.next(&input[at..], &session.limits()) {
            Ok(None) => return results,
            Ok(Some((op, consumed))) => {
                at += consumed;
                session.admit(&op)
            }
            Err(error) => Err(error),
        };
        let closed = admitted.as_ref().is_err_and(ProtocolError::closes);
        results.push(admitted);
        if closed {
            return results;
        }
    }
}

fn check(input: &str, expected: &[Result<Admit, ProtocolError>]) {
    assert_eq!(run(&mut session(Settings::default()), input.as_bytes()), expected, "{input}");
}

const CONNECTED: Result<Admit, ProtocolError> = Ok(Admit::Connected { again: false });
const PONG: Result<Admit, ProtocolError> = Ok(Admit::Pong { info: false });

#[test]
fn without_auth_everything_is_served_before_connect() {
    check(
        "PING\r\nSUB foo 1\r\nPUB foo 0\r\n\r\nUNSUB 1\r\nPONG\r\n+OK\r\nINFO {\"a\":[1]}\r\n",
        &[
            PONG,
            Ok(Admit::Subscribe),
            Ok(Admit::Publish),
            Ok(Admit::Unsubscribe),
            Ok(Admit::Ignore),
            Ok(Admit::Ignore),
            Ok(Admit::Ignore),
        ],
    );
}

#[test]
fn connect_options() {
    check("CONNECT {}\r\n", &[CONNECTED]);
    check("CONNECT null\r\n", &[CONNECTED]);
    check("CONNECT {}\r\nCONNECT {}\r\n", &[CONNECTED, Ok(Admit::Connected { again: true })]);
    check("CONNECT\r\n", &[Err(ProtocolError::BadJson)]);
    check("CONNECT []\r\n", &[Err(ProtocolError::BadJson)]);
    check("CONNECT {\"protocol\":2}\r\n", &[Err(ProtocolError::BadClientProtocol)]);
    check("CONNECT {\"protocol\":-1}\r\n", &[Err(ProtocolError::BadClientProtocol)]);
    check("CONNECT {\"account\":\"x\"}\r\n", &[Err(ProtocolError::AuthorizationViolation)]);
    check("CONNECT {\"new_account\":true}\r\n", &[Err(ProtocolError::AuthorizationViolation)]);
    check("CONNECT {\"no_responders\":true}\r\n", &[Err(ProtocolError::NoRespondersRequiresHeaders)]);
    check("CONNECT {\"no_responders\":true,\"headers\":true}\r\n", &[CONNECTED]);
    check("INFO x\r\n", &[Err(ProtocolError::BadJson)]);
    check("INFO\r\n", &[Err(ProtocolError::BadJson)]);
    check("-ERR 'x'\r\n", &[Err(ProtocolError::ClientError)]);
}

#[test]
fn a_second_connect_changes_only_what_it_says() {
    let mut session = session(Settings::default());
    run(&mut session, b"CONNECT {\"verbose\":false,\"headers\":true}\r\nCONNECT {\"echo\":false}\r\n");
    assert!(!session.verbose() && session.headers() && !session.echo());
}

#[test]
fn the_first_ping_after_connect_asks_for_info() {
    let info = Ok(Admit::Pong { info: true });
    check("PING\r\nCONNECT {\"protocol\":1}\r\nPING\r\nPING\r\n", &[PONG, CONNECTED, info, PONG]);
    check("CONNECT {\"protocol\":0}\r\nPING\r\nPING\r\n", &[CONNECTED, PONG, PONG]);
}

#[test]
fn headers_need_header_support() {
    let publish = "HPUB foo 12 12\r\nNATS/1.0\r\n\r\n\r\n";
    check(publish, &[Err(ProtocolError::HeadersNotSupported)]);
    check(&format!("CONNECT {{\"headers\":true}}\r\n{publish}"), &[CONNECTED, Ok(Admit::Publish)]);
}

#[test]
fn subjects_that_may_not_be_used() {
    let connect = "CONNECT {\"pedantic\":false}\r\n";
    let publish =
        |arguments: &str, expected| check(&format!("{connect}PUB {arguments} 0\r\n\r\n"), &[CONNECTED, expected]);
    let denied = |subject: &str| Err(ProtocolError::PublishDenied(subject.as_bytes().into()));
    let reply_denied = |reply: &str| Err(ProtocolError::ReplyDenied(reply.as_bytes().into()));
    publish("$NRG.x", denied("$NRG.x"));
    publish("$NRG.", denied("$NRG."));
    publish("$NRG", Ok(Admit::Publish));
    publish("_GR_.x", denied("_GR_.x"));
    publish("_GR_.", Ok(Admit::Publish));
    publish("_R_.x", Ok(Admit::Publish));
    publish("foo _R_.", reply_denied("_R_."));
    publish("foo _R_.x", reply_denied("_R_.x"));
    publish("foo _GR_.", Ok(Admit::Publish));
    publish("foo _GR_.x", reply_denied("_GR_.x"));
    publish("foo $JS.ACK.", Ok(Admit::Publish));
    publish("foo $JS.ACK.x", reply_denied("$JS.ACK.x"));
    publish("foo.*", Ok(Admit::Publish));
    check("PUB foo.* 0\r\n\r\nPUB foo..x 0\r\n\r\n", &[Ok(Admit::PublishInvalid), Ok(Admit::PublishInvalid)]);
    check("SUB foo..bar 1\r\nPING\r\n", &[Err(ProtocolError::InvalidSubject), PONG]);
    check("SUB foo.>.bar 1\r\n", &[Err(ProtocolError::InvalidSubject)]);
    let queue_denied = Err(ProtocolError::QueueSubscribeDenied(b"x".as_slice().into(), b"_sys_".as_slice().into()));
    check("SUB x _sys_ 1\r\nPING\r\n", &[queue_denied, PONG]);
}

#[test]
fn with_auth_credentials_come_first() {
    for input in ["PING\r\n", "FOO\r\n", "P", "PUB foo 5\r\nhello\r\n", "\r\n"] {
        assert_eq!(run(&mut with_auth(), input.as_bytes()), [Err(ProtocolError::AuthorizationViolation)], "{input}");
    }
    let mut accepted = with_auth();
    assert_eq!(run(&mut accepted, b"CONNECT {\"user\":\"u\",\"pass\":\"p\"}\r\n"), [Ok(Admit::Authenticate)]);
    assert_eq!((accepted.options().user.as_str(), accepted.options().pass.as_str()), ("u", "p"));
    assert_eq!(accepted.handle_authenticated(Some(&Grant::default())), CONNECTED);
    assert_eq!(run(&mut accepted, b"PING\r\n"), [PONG]);
    assert_eq!(run(&mut accepted, b"CONNECT {}\r\n"), [Ok(Admit::Authenticate)]);
    assert_eq!(accepted.handle_authenticated(None), Err(ProtocolError::AuthorizationViolation));
    assert_eq!(accepted.phase(), Phase::Closing);

    let mut impatient = with_auth();
    assert_eq!(
        run(&mut impatient, b"CONNECT {}\r\nPING\r\n"),
        [Ok(Admit::Authenticate), Err(ProtocolError::AuthorizationViolation)]
    );
}

#[test]
fn connect_has_a_deadline() {
    let timeout = Settings::default().connect_timeout;
    for (auth_required, input, in_time) in [
        (false, "", false),
        (false, "CONNECT {", false),
        (false, "PING\r\n", true),
        (false, "CONNECT {}\r\n", true),
        (true, "CONNECT {", false),
        (true, "CONNECT {}\r\n", true),
    ] {
        let mut session = session(Settings { auth_required, ..Settings::default() });
        run(&mut session, input.as_bytes());
        assert_eq!(session.next_deadline() == START + timeout, !in_time, "{input}");
        let tick = session.handle_tick(START + timeout);
        assert_eq!(tick == Tick::Close(ProtocolError::AuthenticationTimeout), !in_time, "{input}");
    }
}

#[test]
fn a_silent_client_is_pinged_and_then_stale() {
    let mut session = session(Settings::default());
    let interval = Settings::default().ping_interval;
    run(&mut session, b"CONNECT {}\r\n");
    let first = session.next_deadline();
    assert!((2_000..=2_400).contains(&first.since(START).as_millis()));
    assert_eq!(session.handle_tick(first - Duration::from_nanos(1)), Tick::Nothing);
    assert_eq!(session.handle_tick(first), Tick::Ping);
    assert_eq!(session.handle_tick(first + interval), Tick::Ping);
    assert_eq!(session.handle_tick(first + interval * 2), Tick::Close(ProtocolError::StaleConnection));
}

#[test]
fn a_client_that_is_heard_is_pinged_once_an_hour() {
    let mut session = session(Settings::default());
    run(&mut session, b"CONNECT {}\r\n");
    let mut pings = 0;
    loop {
        let now = session.next_deadline();
        if now > START + Duration::from_secs(3 * 3600 + 600) {
            break;
        }
        match session.handle_tick(now) {
            Tick::Ping => {
                pings += 1;
                session.handle_input(now + Duration::from_millis(3));
                run(&mut session, b"PONG\r\n");
                assert_eq!(session.rtt(), Duration::from_millis(3));
            }
            Tick::Nothing => {}
            Tick::Close(error) => panic!("{error}"),
        }
        run(&mut session, b"PUB foo 0\r\n\r\n");
    }
    assert_eq!(pings, 4);
}

#[test]
fn counts_messages_and_their_bytes() {
    let mut session = session(Settings::default());
    run(&mut session, b"CONNECT {\"headers\":true}\r\nPUB foo 5\r\nhello\r\nHPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
    session.handle_delivered(3, 30);
    assert_eq!(session.traffic(), SessionTraffic { in_msgs: 2, in_bytes: 19, out_msgs: 3, out_bytes: 30 });
}

fn any_input() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "PING\r\n",
        "PONG\r\n",
        "SUB foo 1\r\n",
        "UNSUB 1\r\n",
        "PUB foo 5\r\nhello\r\n",
        "HPUB foo 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        "INFO {}\r\n",
        "+OK\r\n",
        "CONNECT {}\r\n",
        "CONNECT {\"user\":\"u\"}\r\n",
        "CONNECT x\r\n",
        "FOO\r\n",
    ])
}

proptest! {
    #[test]
    fn nothing_but_connect_is_served_before_identity(
        inputs in prop::collection::vec((any_input(), any::<bool>(), any::<bool>()), 1..12)
    ) {
        let mut session = with_auth();
        let mut identified = false;
        for (input, decides, accepted) in inputs {
            for result in run(&mut session, input.as_bytes()) {
                if let Ok(admit) = result
                    && admit != Admit::Authenticate
                {
                    prop_assert!(identified, "{input:?} was served before identity: {admit:?}");
                }
            }
            if session.phase() == Phase::Authenticating {
                identified = false;
                if decides {
                    identified = session.handle_authenticated(accepted.then_some(&Grant::default())).is_ok();
                }
            }
            prop_assert_eq!(session.limits().connect_only, session.phase() != Phase::Connected);
        }
    }
}
