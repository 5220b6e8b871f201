//! JetStream API requests: a subject in the first line, a body in the rest. Nothing panics, a configuration that was
//! read is read again from what was written of it, and checks that passed once pass on their own result.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use natterjack::api::{
    DirectGet, Endpoint, MsgDelete, MsgGet, Offset, Purge, StreamFilter, StreamInfoQuery, Strictness, decode, is_empty,
};
use natterjack::consumer::{Ack, AckKind, ConsumerConfig, PullRequest, StreamTerms};
use natterjack::stream::StreamConfig;
use natterjack::types::{ApiError, Headers};
use serde::de::DeserializeOwned;

/// As the service reads: strictly first. Where both ways read a body, they read the same. (Strict reading also takes no
/// document, or several in a row, as Go's decoder does.)
fn read<T: DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) -> Option<T> {
    let strict: Result<T, ApiError> = decode(body, Strictness::Strict);
    let lenient = decode(body, Strictness::Lenient);
    if let (Ok(strict), Ok(lenient)) = (&strict, &lenient) {
        assert_eq!(strict, lenient);
    }
    strict.or(lenient).ok()
}

fn stream(body: &[u8]) {
    if let Some(config) = read::<StreamConfig>(body) {
        let written = serde_json::to_vec(&config).expect("a configuration can be written");
        assert_eq!(serde_json::from_slice::<StreamConfig>(&written).ok(), Some(config));
    }
}

fn consumer(body: &[u8]) {
    let Some(config) = read::<ConsumerConfig>(body) else { return };
    let written = serde_json::to_vec(&config).expect("a configuration can be written");
    assert_eq!(serde_json::from_slice::<ConsumerConfig>(&written).ok().as_ref(), Some(&config));
    let subjects = ["orders.>".to_owned()];
    let terms = StreamTerms { subjects: &subjects, replicas: 1, ..StreamTerms::default() };
    let mut full = config;
    if full.set_defaults(&terms, false).is_ok() && full.check(&terms).is_ok() {
        let mut again = full.clone();
        again.set_defaults(&terms, false).expect("defaults fit what has them");
        assert_eq!(again, full);
    }
}

fuzz_target!(|input: &[u8]| {
    let line_end = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (subject, body) = (&input[..line_end], input.get(line_end + 1..).unwrap_or_default());

    let _ = Ack::parse(subject);
    let _ = AckKind::parse(body);
    let headers = Headers::new(body);
    let _ = (headers.status(), headers.description(), headers.iter().count());
    let _ = is_empty(body);

    match Endpoint::parse(subject) {
        Some(Endpoint::StreamCreate(_) | Endpoint::StreamUpdate(_)) => stream(body),
        Some(Endpoint::ConsumerCreate { .. }) => consumer(body),
        Some(Endpoint::StreamNames | Endpoint::StreamList) => {
            read::<StreamFilter>(body);
        }
        Some(Endpoint::StreamInfo(_)) => {
            read::<StreamInfoQuery>(body);
        }
        Some(Endpoint::StreamPurge(_)) => {
            let _ = read::<Purge>(body).map(|purge| purge.check());
        }
        Some(Endpoint::MsgGet(_)) => {
            let _ = read::<MsgGet>(body).map(|get| get.check());
        }
        Some(Endpoint::MsgDelete(_)) => {
            read::<MsgDelete>(body);
        }
        Some(Endpoint::ConsumerNames(_) | Endpoint::ConsumerList(_)) => {
            read::<Offset>(body);
        }
        Some(Endpoint::MsgNext(..)) => {
            let _ = PullRequest::parse(Bytes::from_static(b"_INBOX.x"), body);
        }
        Some(Endpoint::DirectGet(_)) => {
            let _ = DirectGet::parse(body);
        }
        Some(Endpoint::DirectGetLast(_, subject)) => {
            let _ = DirectGet::parse_last(subject, body);
        }
        Some(_) | None => {}
    }
});
