//! What a subject under `$JS.API.` asks for.

/// A request subject, read. Names are as the subject has them: any non-empty token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint<'a> {
    AccountInfo,
    StreamCreate(&'a str),
    StreamUpdate(&'a str),
    StreamNames,
    StreamList,
    StreamInfo(&'a str),
    StreamDelete(&'a str),
    StreamPurge(&'a str),
    StreamSnapshot(&'a str),
    StreamRestore(&'a str),
    MsgGet(&'a str),
    MsgDelete(&'a str),
    StreamLeaderStepDown(&'a str),
    StreamPeerRemove(&'a str),
    StreamPeerEvacuate(&'a str),
    StreamCancelMove(&'a str),
    ConsumerCreate {
        stream: &'a str,
        form: ConsumerForm<'a>,
    },
    ConsumerNames(&'a str),
    ConsumerList(&'a str),
    ConsumerInfo(&'a str, &'a str),
    ConsumerDelete(&'a str, &'a str),
    ConsumerPause(&'a str, &'a str),
    ConsumerUnpin(&'a str, &'a str),
    ConsumerReset(&'a str, &'a str),
    ConsumerLeaderStepDown(&'a str, &'a str),
    /// A pull request.
    MsgNext(&'a str, &'a str),
    /// What to get is in the body.
    DirectGet(&'a str),
    /// The last message of the subject behind the stream's name.
    DirectGetLast(&'a str, &'a str),
}

/// The ways to name a consumer that is to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerForm<'a> {
    /// `CONSUMER.CREATE.<stream>`: an ephemeral, named by the request or the server.
    Legacy,
    /// `CONSUMER.DURABLE.CREATE.<stream>.<consumer>`.
    Durable(&'a str),
    /// `CONSUMER.CREATE.<stream>.<consumer>[.<filter>]`; the filter is empty when absent.
    Named { consumer: &'a str, filter: &'a str },
}

impl<'a> Endpoint<'a> {
    /// Reads a whole subject, `$JS.API.` included. `None` when nothing listens there.
    pub fn parse(subject: &'a [u8]) -> Option<Endpoint<'a>> {
        let rest = std::str::from_utf8(subject).ok()?.strip_prefix("$JS.API.")?;
        if rest.split('.').any(str::is_empty) {
            return None;
        }
        let (group, rest) = split(rest);
        match group {
            "INFO" => rest.is_empty().then_some(Endpoint::AccountInfo),
            "STREAM" => stream(rest),
            "CONSUMER" => consumer(rest),
            "DIRECT" => match split(rest) {
                ("GET", rest) => match split(rest) {
                    ("", _) => None,
                    (stream, "") => Some(Endpoint::DirectGet(stream)),
                    (stream, subject) => Some(Endpoint::DirectGetLast(stream, subject)),
                },
                _ => None,
            },
            _ => None,
        }
    }
}

/// First token and what follows its dot, both possibly empty.
fn split(subject: &str) -> (&str, &str) {
    subject.split_once('.').unwrap_or((subject, ""))
}

/// Exactly one token.
fn one(rest: &str) -> Option<&str> {
    (!rest.is_empty() && !rest.contains('.')).then_some(rest)
}

/// Exactly two tokens.
fn two(rest: &str) -> Option<(&str, &str)> {
    let (first, second) = rest.split_once('.')?;
    Some((first, one(second)?))
}

fn stream(rest: &str) -> Option<Endpoint<'_>> {
    let (verb, rest) = split(rest);
    let endpoint = match verb {
        "NAMES" => return rest.is_empty().then_some(Endpoint::StreamNames),
        "LIST" => return rest.is_empty().then_some(Endpoint::StreamList),
        "CREATE" => Endpoint::StreamCreate,
        "UPDATE" => Endpoint::StreamUpdate,
        "INFO" => Endpoint::StreamInfo,
        "DELETE" => Endpoint::StreamDelete,
        "PURGE" => Endpoint::StreamPurge,
        "SNAPSHOT" => Endpoint::StreamSnapshot,
        "RESTORE" => Endpoint::StreamRestore,
        "CANCEL_MOVE" => Endpoint::StreamCancelMove,
        "MSG" => {
            return match split(rest) {
                ("GET", rest) => one(rest).map(Endpoint::MsgGet),
                ("DELETE", rest) => one(rest).map(Endpoint::MsgDelete),
                _ => None,
            };
        }
        "LEADER" => {
            return match split(rest) {
                ("STEPDOWN", rest) => one(rest).map(Endpoint::StreamLeaderStepDown),
                _ => None,
            };
        }
        "PEER" => {
            return match split(rest) {
                ("REMOVE", rest) => one(rest).map(Endpoint::StreamPeerRemove),
                ("EVACUATE", rest) => one(rest).map(Endpoint::StreamPeerEvacuate),
                _ => None,
            };
        }
        _ => return None,
    };
    one(rest).map(endpoint)
}

fn consumer(rest: &str) -> Option<Endpoint<'_>> {
    let (verb, rest) = split(rest);
    let endpoint = match verb {
        "CREATE" => {
            let (stream, rest) = split(rest);
            if stream.is_empty() {
                return None;
            }
            let form = match split(rest) {
                ("", _) => ConsumerForm::Legacy,
                (consumer, filter) => ConsumerForm::Named { consumer, filter },
            };
            return Some(Endpoint::ConsumerCreate { stream, form });
        }
        "DURABLE" => {
            return match split(rest) {
                ("CREATE", rest) => two(rest).map(|(stream, consumer)| Endpoint::ConsumerCreate {
                    stream,
                    form: ConsumerForm::Durable(consumer),
                }),
                _ => None,
            };
        }
        "MSG" => {
            return match split(rest) {
                ("NEXT", rest) => two(rest).map(|(stream, consumer)| Endpoint::MsgNext(stream, consumer)),
                _ => None,
            };
        }
        "LEADER" => {
            return match split(rest) {
                ("STEPDOWN", rest) => two(rest).map(|(stream, name)| Endpoint::ConsumerLeaderStepDown(stream, name)),
                _ => None,
            };
        }
        "NAMES" => return one(rest).map(Endpoint::ConsumerNames),
        "LIST" => return one(rest).map(Endpoint::ConsumerList),
        "INFO" => Endpoint::ConsumerInfo,
        "DELETE" => Endpoint::ConsumerDelete,
        "PAUSE" => Endpoint::ConsumerPause,
        "UNPIN" => Endpoint::ConsumerUnpin,
        "RESET" => Endpoint::ConsumerReset,
        _ => return None,
    };
    two(rest).map(|(stream, consumer)| endpoint(stream, consumer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_name_their_endpoint() {
        let check = |subject: &str, expected: Option<Endpoint<'_>>| {
            assert_eq!(Endpoint::parse(format!("$JS.API.{subject}").as_bytes()), expected, "{subject}");
        };
        check("INFO", Some(Endpoint::AccountInfo));
        check("INFO.X", None);
        check("STREAM.CREATE.S", Some(Endpoint::StreamCreate("S")));
        check("STREAM.CREATE", None);
        check("STREAM.CREATE.S.T", None);
        check("STREAM.UPDATE.S", Some(Endpoint::StreamUpdate("S")));
        check("STREAM.NAMES", Some(Endpoint::StreamNames));
        check("STREAM.NAMES.x", None);
        check("STREAM.LIST", Some(Endpoint::StreamList));
        check("STREAM.MSG.GET.S", Some(Endpoint::MsgGet("S")));
        check("STREAM.MSG.DELETE.S", Some(Endpoint::MsgDelete("S")));
        check("STREAM.MSG.FOO.S", None);
        check("STREAM.PEER.REMOVE.S", Some(Endpoint::StreamPeerRemove("S")));
        check("STREAM.PEER.EVACUATE.S", Some(Endpoint::StreamPeerEvacuate("S")));
        check("STREAM.CANCEL_MOVE.S", Some(Endpoint::StreamCancelMove("S")));
        check("STREAM..S", None);
        check("CONSUMER.CREATE.S", Some(Endpoint::ConsumerCreate { stream: "S", form: ConsumerForm::Legacy }));
        let named = |consumer, filter| {
            Some(Endpoint::ConsumerCreate { stream: "S", form: ConsumerForm::Named { consumer, filter } })
        };
        check("CONSUMER.CREATE.S.c", named("c", ""));
        check("CONSUMER.CREATE.S.c.a.>", named("c", "a.>"));
        check(
            "CONSUMER.DURABLE.CREATE.S.d",
            Some(Endpoint::ConsumerCreate { stream: "S", form: ConsumerForm::Durable("d") }),
        );
        check("CONSUMER.DURABLE.CREATE.S", None);
        check("CONSUMER.MSG.NEXT.S.c", Some(Endpoint::MsgNext("S", "c")));
        check("CONSUMER.MSG.NEXT.S", None);
        check("CONSUMER.NAMES.S", Some(Endpoint::ConsumerNames("S")));
        check("CONSUMER.INFO.S.c", Some(Endpoint::ConsumerInfo("S", "c")));
        check("CONSUMER.DELETE.S.c", Some(Endpoint::ConsumerDelete("S", "c")));
        check("DIRECT.GET.S", Some(Endpoint::DirectGet("S")));
        check("DIRECT.GET.S.$KV.a.b", Some(Endpoint::DirectGetLast("S", "$KV.a.b")));
        check("DIRECT.GET", None);
        check("FOO", None);
        assert_eq!(Endpoint::parse(b"$JS.API."), None);
        assert_eq!(Endpoint::parse(b"$JS.API.STREAM.INFO.\xff"), None);
        assert_eq!(Endpoint::parse(b"other"), None);
    }
}
