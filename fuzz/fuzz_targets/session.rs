//! A session under any sequence of bytes, decisions and time, against the rules in their plainest form.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use natterjack::auth::Grant;
use natterjack::protocol::{Parser, ProtocolError};
use natterjack::session::{Admit, Phase, Session, Settings, Tick};
use natterjack::types::Timestamp;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Bytes(&'a [u8]),
    /// A whole CONNECT around any body.
    Connect(&'a str),
    Decide(bool),
    Wait(u32),
    Tick,
}

#[derive(Arbitrary, Debug)]
struct Life<'a> {
    auth_required: bool,
    id: u64,
    steps: Vec<Step<'a>>,
}

fuzz_target!(|life: Life<'_>| {
    let settings = Settings { auth_required: life.auth_required, max_payload: 4096, ..Settings::default() };
    let started = Timestamp(1_000_000_000);
    let mut now = started;
    let mut session = Session::new(Arc::new(settings.clone()), life.id, now);
    let mut parser = Parser::new();
    let mut buffer = Vec::new();
    let mut identified = !life.auth_required;
    let mut done = false;
    for step in life.steps {
        match step {
            Step::Bytes(bytes) => buffer.extend_from_slice(bytes),
            Step::Connect(body) => buffer.extend_from_slice(format!("CONNECT {body}\r\n").as_bytes()),
            Step::Decide(accepted) => {
                if session.phase() == Phase::Authenticating {
                    let result = session.handle_authenticated(accepted.then_some(&Grant::default()));
                    assert!(accepted || result == Err(ProtocolError::AuthorizationViolation));
                    identified = result.is_ok();
                }
            }
            Step::Wait(millis) => now = now + Duration::from_millis(u64::from(millis)),
            Step::Tick => {
                let due = now >= session.next_deadline();
                match session.handle_tick(now) {
                    Tick::Nothing => assert!(!due || session.next_deadline() > now || session.phase() == Phase::Closing),
                    Tick::Ping => assert!(due),
                    Tick::Close(error) => {
                        assert!(due && error.closes());
                        assert_eq!(session.phase(), Phase::Closing);
                    }
                }
            }
        }
        session.handle_input(now);
        let mut at = 0;
        while session.phase() != Phase::Authenticating && session.phase() != Phase::Closing {
            let (admitted, consumed) = match parser.next(&buffer[at..], &session.limits()) {
                Ok(None) => break,
                Ok(Some((op, consumed))) => (session.admit(&op), consumed),
                Err(error) => {
                    assert!(error.closes());
                    done = true;
                    break;
                }
            };
            at += consumed;
            match admitted {
                Ok(Admit::Authenticate) => {
                    assert!(life.auth_required);
                    identified = false;
                }
                Ok(Admit::Publish | Admit::PublishInvalid | Admit::PublishAnswer) => assert!(identified),
                Ok(_) => assert!(identified),
                Err(error) => assert_eq!(error.closes(), session.phase() == Phase::Closing),
            }
        }
        buffer.drain(..at);
        assert_eq!(session.limits().connect_only, life.auth_required && session.phase() != Phase::Connected);
        if done || session.phase() == Phase::Closing {
            return;
        }
    }
});
