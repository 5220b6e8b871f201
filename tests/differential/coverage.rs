//! Whether the corpus has requests for all that nats-server 2.15 answers on a single server: the subjects of
//! `server/jetstream_api.go` and `server/events.go`, each asked well and badly.

use natterjack::types::subject;

use crate::script::{Item, Script, Step};

/// What each subject has to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Something that works, and something that is refused.
    Both,
    /// It works always, or never: in a cluster only, or for another account.
    Once,
}

use Asked::{Both, Once};

const SUBJECTS: &[(&str, Asked)] = &[
    ("$JS.API.INFO", Both),
    ("$JS.API.STREAM.CREATE.*", Both),
    ("$JS.API.STREAM.UPDATE.*", Both),
    ("$JS.API.STREAM.NAMES", Both),
    ("$JS.API.STREAM.LIST", Both),
    ("$JS.API.STREAM.INFO.*", Both),
    ("$JS.API.STREAM.DELETE.*", Both),
    ("$JS.API.STREAM.PURGE.*", Both),
    ("$JS.API.STREAM.SNAPSHOT.*", Both),
    ("$JS.API.STREAM.RESTORE.*", Both),
    ("$JS.API.STREAM.MSG.DELETE.*", Both),
    ("$JS.API.STREAM.MSG.GET.*", Both),
    ("$JS.API.DIRECT.GET.*", Both),
    ("$JS.API.DIRECT.GET.*.>", Both),
    ("$JS.API.CONSUMER.CREATE.*", Both),
    ("$JS.API.CONSUMER.CREATE.*.>", Both),
    ("$JS.API.CONSUMER.DURABLE.CREATE.*.*", Both),
    ("$JS.API.CONSUMER.NAMES.*", Both),
    ("$JS.API.CONSUMER.LIST.*", Both),
    ("$JS.API.CONSUMER.INFO.*.*", Both),
    ("$JS.API.CONSUMER.DELETE.*.*", Both),
    ("$JS.API.CONSUMER.PAUSE.*.*", Both),
    ("$JS.API.CONSUMER.MSG.NEXT.*.*", Both),
    ("$JS.API.CONSUMER.RESET.*.*", Both),
    ("$JS.API.CONSUMER.UNPIN.*.*", Both),
    ("$JS.API.STREAM.PEER.REMOVE.*", Once),
    ("$JS.API.STREAM.PEER.EVACUATE.*", Once),
    ("$JS.API.STREAM.CANCEL_MOVE.*", Once),
    ("$JS.API.STREAM.LEADER.STEPDOWN.*", Once),
    ("$JS.API.CONSUMER.LEADER.STEPDOWN.*.*", Once),
    ("$JS.API.META.LEADER.STEPDOWN", Once),
    ("$JS.API.SERVER.REMOVE", Once),
    ("$JS.API.SERVER.EVACUATE", Once),
    ("$JS.API.META.RESCUE", Once),
    ("$JS.API.ACCOUNT.PURGE.*", Once),
    ("$JS.API.ACCOUNT.STREAM.MOVE.*.*", Once),
    ("$JS.API.ACCOUNT.STREAM.CANCEL_MOVE.*.*", Once),
    ("$JS.hub.API.>", Both),
    ("$JS.ACK.>", Once),
    ("$JS.FC.>", Once),
    ("$SYS.REQ.SERVER.PING", Once),
    ("$SYS.REQ.SERVER.PING.IDZ", Once),
    ("$SYS.REQ.SERVER.PING.STATSZ", Both),
    ("$SYS.REQ.SERVER.PING.VARZ", Both),
    ("$SYS.REQ.SERVER.PING.SUBSZ", Both),
    ("$SYS.REQ.SERVER.PING.CONNZ", Both),
    ("$SYS.REQ.SERVER.PING.JSZ", Both),
    ("$SYS.REQ.SERVER.PING.ACCOUNTZ", Both),
    ("$SYS.REQ.SERVER.PING.HEALTHZ", Both),
    ("$SYS.REQ.SERVER.PING.PROFILEZ", Once),
    ("$SYS.REQ.SERVER.PING.GATEWAYZ", Once),
    ("$SYS.REQ.SERVER.PING.LEAFZ", Both),
    ("$SYS.REQ.SERVER.PING.ROUTEZ", Once),
    ("$SYS.REQ.SERVER.PING.IPQUEUESZ", Once),
    ("$SYS.REQ.SERVER.PING.EXPVARZ", Once),
    ("$SYS.REQ.SERVER.PING.RAFTZ", Once),
    ("$SYS.REQ.SERVER.*.VARZ", Once),
    ("$SYS.REQ.SERVER.*.RELOAD", Once),
    ("$SYS.REQ.SERVER.*.KICK", Once),
    ("$SYS.REQ.SERVER.*.LDM", Once),
    ("$SYS.REQ.ACCOUNT.PING.STATZ", Both),
    ("$SYS.REQ.ACCOUNT.PING.CONNZ", Once),
    ("$SYS.REQ.ACCOUNT.*.INFO", Both),
    ("$SYS.REQ.ACCOUNT.*.CONNZ", Both),
    ("$SYS.REQ.ACCOUNT.*.SUBSZ", Once),
    ("$SYS.REQ.ACCOUNT.*.LEAFZ", Once),
    ("$SYS.REQ.ACCOUNT.*.JSZ", Once),
    ("$SYS.REQ.ACCOUNT.*.STATZ", Once),
    ("$SYS.REQ.ACCOUNT.*.CONNS", Once),
    ("$SYS.REQ.USER.INFO", Once),
    ("$SYS.DEBUG.SUBSCRIBERS", Once),
];

/// What of [`SUBJECTS`] the scripts do not ask, in words.
pub fn missing(scripts: &[Script]) -> Vec<String> {
    let mut asked = Vec::new();
    for item in scripts.iter().flat_map(|script| &script.items) {
        let Item::Line(line) = item else { continue };
        if let Step::Request { publish, .. } | Step::Poll { publish, .. } = &line.step {
            asked.push((publish.subject.as_str(), is_refused(&line.recorded)));
        }
    }
    let mut missing = Vec::new();
    for (pattern, wanted) in SUBJECTS {
        let answers: Vec<bool> = asked
            .iter()
            .filter(|(subject, _)| subject::matches(pattern.as_bytes(), subject.as_bytes()))
            .filter_map(|(_, refused)| *refused)
            .collect();
        match wanted {
            Once if asked.iter().any(|(subject, _)| subject::matches(pattern.as_bytes(), subject.as_bytes())) => {}
            Once => missing.push(format!("{pattern}: no request")),
            Both => {
                if !answers.contains(&false) {
                    missing.push(format!("{pattern}: no request that works"));
                }
                if !answers.contains(&true) {
                    missing.push(format!("{pattern}: no request that is refused"));
                }
            }
        }
    }
    missing
}

/// Whether a recorded answer is an error; `None` when nobody answered.
fn is_refused(recorded: &[String]) -> Option<bool> {
    let first = recorded.first()?;
    if first == crate::run::NOTHING || first.contains("<503") {
        return None;
    }
    Some(first.contains(r#""error":"#) || first.starts_with("<4"))
}
