//! What can be said of a request before anyone looks for its stream: nats-server reads and checks bodies first.

use serde::de::DeserializeOwned;

use super::endpoint::{ConsumerForm, Endpoint};
use super::json::{Strictness, decode, is_empty, is_object_or_array};
use super::request::{CreateConsumer, MsgDelete, MsgGet, Offset, Pause, Purge, StreamInfoQuery, Unpin};
use crate::consumer::ConsumerConfig;
use crate::types::ApiError;

/// What is wrong with the body of a request for something that is not there.
///
/// # Errors
/// As for the request if all were there, as far as nats-server looks at the body first.
pub fn check_body(endpoint: &Endpoint<'_>, body: &[u8], strictness: Strictness) -> Result<(), ApiError> {
    match *endpoint {
        Endpoint::StreamInfo(_) => stream_info(body, strictness).map(drop),
        Endpoint::StreamPurge(_) => purge(body, strictness).map(drop),
        Endpoint::MsgGet(_) => msg_get(body, strictness).map(drop),
        Endpoint::MsgDelete(_) => msg_delete(body, strictness).map(drop),
        Endpoint::ConsumerCreate { stream, form } => create_consumer(stream, form, body, strictness).map(drop),
        Endpoint::ConsumerNames(_) | Endpoint::ConsumerList(_) => offset(body, strictness).map(drop),
        Endpoint::ConsumerInfo(..) | Endpoint::ConsumerDelete(..) => no_body(body),
        Endpoint::ConsumerPause(..) => pause(body, strictness).map(drop),
        Endpoint::ConsumerUnpin(..) => Unpin::read(body).map(drop),
        _ => Ok(()),
    }
}

/// STREAM.INFO.
///
/// # Errors
/// `INVALID_JSON`.
pub fn stream_info(body: &[u8], strictness: Strictness) -> Result<StreamInfoQuery, ApiError> {
    optional(body, strictness)
}

/// STREAM.PURGE.
///
/// # Errors
/// `INVALID_JSON`, or contradicting fields.
pub fn purge(body: &[u8], strictness: Strictness) -> Result<Purge, ApiError> {
    let purge: Purge = optional(body, strictness)?;
    purge.check()?;
    Ok(purge)
}

/// STREAM.MSG.GET.
///
/// # Errors
/// No body, `INVALID_JSON`, or fields that contradict each other or say nothing.
pub fn msg_get(body: &[u8], strictness: Strictness) -> Result<MsgGet, ApiError> {
    let get: MsgGet = required(body, strictness)?;
    get.check()?;
    Ok(get)
}

/// STREAM.MSG.DELETE.
///
/// # Errors
/// No body, or `INVALID_JSON`.
pub fn msg_delete(body: &[u8], strictness: Strictness) -> Result<MsgDelete, ApiError> {
    required(body, strictness)
}

/// Where a page of CONSUMER.NAMES or CONSUMER.LIST begins.
///
/// # Errors
/// `INVALID_JSON`.
pub fn offset(body: &[u8], strictness: Strictness) -> Result<i64, ApiError> {
    optional::<Offset>(body, strictness).map(|page| page.offset)
}

/// CONSUMER.PAUSE.
///
/// # Errors
/// `INVALID_JSON`.
pub fn pause(body: &[u8], strictness: Strictness) -> Result<Pause, ApiError> {
    optional(body, strictness)
}

/// Requests that take no arguments.
///
/// # Errors
/// When there are some.
pub fn no_body(body: &[u8]) -> Result<(), ApiError> {
    if is_empty(body) { Ok(()) } else { Err(ApiError::NOT_EMPTY_REQUEST) }
}

/// CONSUMER.CREATE in all its forms: the configuration has the name that the subject says.
///
/// # Errors
/// `INVALID_JSON`, when subject and body name different things, or more than one replica.
pub fn create_consumer(
    stream: &str,
    form: ConsumerForm<'_>,
    body: &[u8],
    strictness: Strictness,
) -> Result<CreateConsumer, ApiError> {
    let mut request: CreateConsumer = decode(body, strictness)?;
    if request.stream_name != stream {
        return Err(ApiError::STREAM_MISMATCH);
    }
    check_form(form, &mut request.config)?;
    if request.config.replicas > 1 {
        return Err(ApiError::STREAM_REPLICAS_NOT_SUPPORTED);
    }
    Ok(request)
}

/// A body that may be missing; nats-server ignores what does not look like JSON.
fn optional<T: DeserializeOwned + Default>(body: &[u8], strictness: Strictness) -> Result<T, ApiError> {
    if is_object_or_array(body) { decode(body, strictness) } else { Ok(T::default()) }
}

fn required<T: DeserializeOwned>(body: &[u8], strictness: Strictness) -> Result<T, ApiError> {
    if is_empty(body) { Err(ApiError::BAD_REQUEST) } else { decode(body, strictness) }
}

/// Checks that the subject and the body of a request name the same consumer, and settles its name.
fn check_form(form: ConsumerForm<'_>, config: &mut ConsumerConfig) -> Result<(), ApiError> {
    let has_separator = |name: &str| name.contains(['\\', '/']);
    match form {
        ConsumerForm::Legacy => {
            if has_separator(&config.name) {
                return Err(ApiError::CONSUMER_NAME_CONTAINS_PATH_SEPARATORS);
            }
            if !config.durable.is_empty() {
                return Err(ApiError::CONSUMER_EPHEMERAL_WITH_DURABLE_NAME);
            }
        }
        ConsumerForm::Durable(name) => {
            if has_separator(name) {
                return Err(ApiError::CONSUMER_NAME_CONTAINS_PATH_SEPARATORS);
            }
            if config.durable.is_empty() {
                return Err(ApiError::CONSUMER_DURABLE_NAME_NOT_SET);
            }
            if name != config.durable {
                return Err(ApiError::CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT);
            }
            config.name = name.to_owned();
        }
        ConsumerForm::Named { consumer, filter } => {
            if has_separator(consumer) {
                return Err(ApiError::CONSUMER_NAME_CONTAINS_PATH_SEPARATORS);
            }
            if !config.durable.is_empty() && consumer != config.durable {
                return Err(ApiError::CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT);
            }
            config.name = consumer.to_owned();
            if !filter.is_empty() && !config.filter_subjects.is_empty() {
                return Err(ApiError::CONSUMER_MULTIPLE_FILTERS_NOT_ALLOWED);
            }
            if !filter.is_empty() && config.filter_subject != filter {
                return Err(ApiError::CONSUMER_CREATE_FILTER_SUBJECT_MISMATCH);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_and_body_name_the_same_consumer() {
        let check = |form: ConsumerForm<'_>, body: &str, expected: Result<&str, ApiError>| {
            let mut config: ConsumerConfig = serde_json::from_str(body).unwrap();
            let got = check_form(form, &mut config).map(|()| config.name);
            assert_eq!(got, expected.map(str::to_owned), "{form:?} {body}");
        };
        let named = |consumer, filter| ConsumerForm::Named { consumer, filter };
        check(ConsumerForm::Legacy, "{}", Ok(""));
        check(ConsumerForm::Legacy, r#"{"name":"e"}"#, Ok("e"));
        check(ConsumerForm::Legacy, r#"{"durable_name":"x"}"#, Err(ApiError::CONSUMER_EPHEMERAL_WITH_DURABLE_NAME));
        check(ConsumerForm::Durable("d"), "{}", Err(ApiError::CONSUMER_DURABLE_NAME_NOT_SET));
        check(
            ConsumerForm::Durable("d"),
            r#"{"durable_name":"e"}"#,
            Err(ApiError::CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT),
        );
        check(ConsumerForm::Durable("d"), r#"{"durable_name":"d"}"#, Ok("d"));
        check(named("c", ""), "{}", Ok("c"));
        check(named("a\\b", ""), "{}", Err(ApiError::CONSUMER_NAME_CONTAINS_PATH_SEPARATORS));
        check(named("c", "s.a"), "{}", Err(ApiError::CONSUMER_CREATE_FILTER_SUBJECT_MISMATCH));
        check(named("c", "s.a"), r#"{"filter_subject":"s.a"}"#, Ok("c"));
        check(
            named("c", "s.a"),
            r#"{"filter_subjects":["s.a"]}"#,
            Err(ApiError::CONSUMER_MULTIPLE_FILTERS_NOT_ALLOWED),
        );
        check(named("c", ""), r#"{"durable_name":"d"}"#, Err(ApiError::CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT));
    }
}
