//! What a message has others do for whoever publishes it: with their rights, not with its own.
//!
//! The coordinator is a client and cannot know what its askers may do; the broker does. So whoever is restricted may name in
//! such a request only what is its own: an answer goes where it may itself listen or publish, a result where it may publish
//! or to an inbox of its. nats-server has no such rule; there the coordinator's `result_subjects` hold alone.

use std::borrow::Cow;

use super::permit::Permit;
use crate::protocol::ProtocolError;
use crate::types::Headers;

const TASKS: &[u8] = b"$TASK.API.";
/// Of SUBMIT, and of CRON.PUT for the tasks that it will submit.
const RESULT_TO: &str = "Task-Result-To";
const INBOXES: &[u8] = b"_INBOX.";
const FORM: &[u8] = b"$TASK.API.COUNCIL.FORM.";
/// What all the headers below begin with, too.
const SCHEDULE: &str = "Nats-Schedule";
const SCHEDULE_TARGET: &str = "Nats-Schedule-Target";
const SCHEDULE_SOURCE: &str = "Nats-Schedule-Source";
const SCHEDULE_NEXT: &str = "Nats-Schedule-Next";
const SCHEDULER: &str = "Nats-Scheduler";

/// The subject that a request names and its asker must not have published on; `None` when all is well.
#[inline]
pub fn oversteps<'a>(
    permit: &Permit,
    subject: &'a [u8],
    reply: &'a [u8],
    headers: &'a [u8],
    payload: &'a [u8],
) -> Option<Cow<'a, [u8]>> {
    if !subject.starts_with(TASKS) {
        return None;
    }
    let own = |named: &[u8]| permit.may_publish(named) || permit.may_subscribe(named, None);
    if !reply.is_empty() && !own(reply) {
        return Some(reply.into());
    }
    if subject.starts_with(FORM) {
        return Council::read(payload).map_or(Some(subject.into()), |council| council.oversteps(permit));
    }
    let to = Headers::new(headers).get(RESULT_TO)?;
    let fine = permit.may_publish(to) || to.starts_with(INBOXES) && permit.may_subscribe(to, None);
    (!fine).then_some(to.into())
}

/// What a message's schedule would reach that its publisher may not, or its wish to end one; `None` when all is well.
#[inline]
pub fn schedules_beyond(permit: &Permit, headers: &[u8]) -> Option<ProtocolError> {
    if headers.is_empty() || memchr::memmem::find(headers, SCHEDULE.as_bytes()).is_none() {
        return None;
    }
    let headers = Headers::new(headers);
    // Every line of a name is judged, whichever of them counts.
    let values = |wanted: &'static str| {
        headers
            .iter()
            .filter(move |(name, value)| *name == wanted.as_bytes() && !value.is_empty())
            .map(|(_, value)| value)
    };
    let mut published = Vec::new();
    if values(SCHEDULE).next().is_some() {
        if let Some(source) = values(SCHEDULE_SOURCE).find(|source| !permit.may_subscribe(source, None)) {
            return Some(ProtocolError::SubscribeDenied(source.into()));
        }
        published.extend(values(SCHEDULE_TARGET));
    }
    if values(SCHEDULE_NEXT).any(|next| next == b"purge") {
        published.extend(values(SCHEDULER));
    }
    let denied = published.into_iter().find(|subject| !permit.may_publish(subject))?;
    Some(ProtocolError::PublishDenied(denied.into()))
}

/// Where COUNCIL.FORM has offers and statuses published.
#[derive(serde::Deserialize)]
struct Council<'a> {
    #[serde(borrow, default)]
    offer_to: Cow<'a, str>,
    #[serde(borrow, default)]
    status_to: Cow<'a, str>,
}

impl<'a> Council<'a> {
    /// `None` for what the coordinator might read in another way: no object, a field twice.
    fn read(body: &'a [u8]) -> Option<Council<'a>> {
        if !body.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        serde_json::from_slice(body).ok()
    }

    fn oversteps(self, permit: &Permit) -> Option<Cow<'a, [u8]>> {
        let other = |to: &Cow<'_, str>| !to.is_empty() && !permit.may_publish(to.as_bytes());
        [self.offer_to, self.status_to].into_iter().find(other).map(|to| match to {
            Cow::Borrowed(to) => Cow::Borrowed(to.as_bytes()),
            Cow::Owned(to) => Cow::Owned(to.into_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Permissions, SubjectRule, SubjectRules};

    #[test]
    fn a_request_names_only_what_is_its_askers() {
        let rules = |allow: &[&str], deny: &[&str]| {
            let rules = |list: &[&str]| list.iter().map(|text| SubjectRule::parse(text).unwrap()).collect::<Vec<_>>();
            SubjectRules { allow: Some(rules(allow)), deny: rules(deny) }
        };
        let permissions = Permissions {
            publish: rules(&["$TASK.API.>", "results.mine.>"], &["results.mine.not"]),
            subscribe: rules(&["_INBOX.me.>", "inbox.me.*", "alarms.>"], &[]),
            ..Permissions::default()
        };
        let permit = Permit::new(&permissions).unwrap();
        let check = |subject: &str, reply: &str, to: &str, expected: Option<&str>| {
            let headers = match to {
                "" => String::new(),
                to => format!("NATS/1.0\r\nA: b\r\nTask-Result-To: {to}\r\n\r\n"),
            };
            let found = oversteps(&permit, subject.as_bytes(), reply.as_bytes(), headers.as_bytes(), b"");
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{subject} {reply} {to}");
        };
        let submit = "$TASK.API.SUBMIT";
        check(submit, "_INBOX.me.1", "", None);
        check(submit, "inbox.me.1", "results.mine.7", None);
        check(submit, "", "_INBOX.me.2", None);
        check(submit, "", "_INBOX.you.2", Some("_INBOX.you.2"));
        check(submit, "", "results.yours", Some("results.yours"));
        check(submit, "", "results.mine.not", Some("results.mine.not"));
        check(submit, "_INBOX.me.1", "alarms.fire", Some("alarms.fire"));
        check(submit, "_INBOX.you.1", "", Some("_INBOX.you.1"));
        check("$TASK.API.AWAIT.x", "results.yours", "", Some("results.yours"));
        check("$TASK.API.AWAIT.x", "alarms.fire", "", None);
        check("other", "results.yours", "results.yours", None);
        check("$TASK.API.CRON.PUT.x", "", "results.yours", Some("results.yours"));

        let form = "$TASK.API.COUNCIL.FORM.c";
        let check = |body: &str, expected: Option<&str>| {
            let found = oversteps(&permit, form.as_bytes(), b"", b"", body.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{body}");
        };
        check(r#"{"roles":{"a":1},"offer_to":"results.mine.o","status_to":"results.mine.s"}"#, None);
        check(r#"{"offer_to":"results.yours"}"#, Some("results.yours"));
        check(r#"{"offer_to":"results.mine.o","status_to":"alarms.fire"}"#, Some("alarms.fire"));
        check(r#"{"offer\u005fto":"results.\u0079ours"}"#, Some("results.yours"));
        check(r#"{"offer_to":"results.mine.o","offer_to":"results.yours"}"#, Some(form));
        check(r#"["results.mine.o"]"#, Some(form));
        check("nonsense", Some(form));
    }

    #[test]
    fn a_schedule_reaches_what_its_publisher_may() {
        let rule = |text: &str| SubjectRule::parse(text).unwrap();
        let permissions = Permissions {
            publish: SubjectRules { allow: None, deny: vec![rule("t.theirs")] },
            subscribe: SubjectRules { allow: None, deny: vec![rule("t.secret")] },
            ..Permissions::default()
        };
        let permit = Permit::new(&permissions).unwrap();
        let check = |lines: &[&str], expected: Option<ProtocolError>| {
            let block = format!("NATS/1.0\r\n{}\r\n\r\n", lines.join("\r\n"));
            assert_eq!(schedules_beyond(&permit, block.as_bytes()), expected, "{lines:?}");
        };
        let (target, source) = ("Nats-Schedule-Target: t.theirs", "Nats-Schedule-Source: t.secret");
        let publish = || Some(ProtocolError::PublishDenied(b"t.theirs".as_slice().into()));
        let every = "Nats-Schedule: @every 1s";
        check(&[every, "Nats-Schedule-Target: t.mine"], None);
        check(&[every, target], publish());
        check(&[target, "Nats-Schedule:", every], publish());
        check(&[every, "Nats-Schedule-Target:", "Nats-Schedule-Target: t.mine", target], publish());
        check(&[every, source], Some(ProtocolError::SubscribeDenied(b"t.secret".as_slice().into())));
        check(&[target, source], None);
        check(&["Nats-Scheduler: t.theirs", "Nats-Schedule-Next: purge"], publish());
        check(&["Nats-Scheduler: t.theirs", "Nats-Schedule-Next: 2030-01-01T00:00:00Z"], None);
        check(&["Nats-Scheduler: t.mine", "Nats-Schedule-Next: purge"], None);
    }
}
