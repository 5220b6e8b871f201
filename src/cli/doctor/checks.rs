//! The traps in streams, consumers and servers, each as one function of what was seen.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::delivery_checks;
use super::finding::{Finding, Severity};
use super::snapshot::Snapshot;
use super::task_checks;
use crate::cli::output::text;
use crate::types::subject::overlaps;

use Severity::{Note, Problem, Warning};

/// A worker that dies blocks its task for longer than people like to wait.
pub const LONG_ACK_WAIT: Duration = Duration::from_secs(300);
/// So many messages being delivered again at once are no accident.
const REDELIVERED: u64 = 10;
/// A disk as full as this is nearly full.
const FULL: f64 = 0.8;

/// Everything there is to say.
pub fn all(seen: &Snapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    push_copies(seen, &mut found);
    deliveries(seen, &mut found);
    waits(seen, &mut found);
    nobody_pulls(seen, &mut found);
    services_behind_streams(seen, &mut found);
    streams(seen, &mut found);
    heard(seen, &mut found);
    server(seen, &mut found);
    unstored_queues(seen, &mut found);
    delivery_checks::all(seen, &mut found);
    task_checks::all(seen, &mut found);
    found
}

/// Consumers that the coordinator keeps and looks after itself.
fn is_coordinators(consumer: &Value) -> bool {
    let stream = text(consumer, "stream_name");
    stream == "KV_TASK" || stream == "KV_TASK_AGENTS" || stream == "KV_TASK_COUNCILS" || stream == "TASK_PROGRESS"
}

pub fn place(consumer: &Value) -> String {
    format!("consumer {} of stream {}", text(consumer, "name"), text(consumer, "stream_name"))
}

/// The users' consumers that want acks.
pub fn acked(seen: &Snapshot) -> impl Iterator<Item = &Value> {
    let users = seen.consumers.iter().filter(|consumer| !is_coordinators(consumer));
    users.filter(|consumer| text(&consumer["config"], "ack_policy") != "none")
}

fn filters(consumer: &Value) -> Vec<&str> {
    let config = &consumer["config"];
    let one = config["filter_subject"].as_str().filter(|filter| !filter.is_empty());
    let many = config["filter_subjects"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let filters: Vec<&str> = one.into_iter().chain(many).collect();
    if filters.is_empty() { vec![">"] } else { filters }
}

pub fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or(0)
}

pub fn nanos(value: &Value) -> Duration {
    Duration::from_nanos(value.as_u64().unwrap_or(0))
}

/// Ephemeral push consumers: each worker its own, so each worker gets every task.
fn push_copies(seen: &Snapshot, found: &mut Vec<Finding>) {
    let ephemeral: Vec<&Value> = acked(seen)
        .filter(|consumer| {
            let config = &consumer["config"];
            !text(config, "deliver_subject").is_empty() && text(config, "durable_name").is_empty()
        })
        .collect();
    let mut told: Vec<&str> = Vec::new();
    for consumer in &ephemeral {
        let stream = text(consumer, "stream_name");
        if told.contains(&stream) {
            continue;
        }
        let same: Vec<&&Value> = ephemeral
            .iter()
            .filter(|other| text(other, "stream_name") == stream)
            .filter(|other| {
                filters(other).iter().any(|a| filters(consumer).iter().any(|b| overlaps(a.as_bytes(), b.as_bytes())))
            })
            .collect();
        let replays = text(&consumer["config"], "deliver_policy") == "all";
        let replay = if replays { " A worker that comes late gets all old ones again." } else { "" };
        let advice = "Make one durable pull consumer that all workers fetch from (nats consumer add --pull), or submit tasks \
                      to a queue: each is then done once.";
        if same.len() > 1 {
            told.push(stream);
            let text = format!(
                "{} ephemeral push consumers get the same subjects ({}): every message is worked on {} times, once by each.{replay}",
                same.len(),
                filters(consumer).join(", "),
                same.len()
            );
            found.push(Finding::new(Problem, "push-copies", format!("stream {stream}"), text, advice));
        } else if replays {
            let text = format!(
                "an ephemeral push consumer that wants acks and begins with the first message: it forgets what was done when \
                 its worker is away for a while, and a second worker gets its own copy of everything.{replay}"
            );
            found.push(Finding::new(Warning, "push-ephemeral", place(consumer), text, advice));
        }
    }
}

/// What the doctor itself and a coordinator subscribe to. A coordinator looks at consumers it adopted only, and has a stream
/// for what it hears of them.
const OURS: [&str; 2] = ["$JS.EVENT.ADVISORY.CONSUMER.>", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.*.*"];

/// Messages whose deliveries are used up, and consumers where that would go unnoticed.
fn deliveries(seen: &Snapshot, found: &mut Vec<Finding>) {
    let advisory = |consumer: &Value| {
        let (stream, name) = (text(consumer, "stream_name"), text(consumer, "name"));
        format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{stream}.{name}")
    };
    let kept = |subject: &str| stream_of(seen, subject).is_some();
    let listened = |subject: &str| {
        let listeners = seen.subscriptions.iter().flatten();
        let mut filters =
            listeners.map(|subscription| text(subscription, "subject")).filter(|filter| !OURS.contains(filter));
        filters.any(|filter| overlaps(filter.as_bytes(), subject.as_bytes()))
    };
    for consumer in acked(seen) {
        let max_deliver = consumer["config"]["max_deliver"].as_i64().unwrap_or(-1);
        if max_deliver < 1 {
            continue;
        }
        let redelivered = number(consumer, "num_redelivered");
        // Those still on their way are pending; the others were delivered as often as they may be, and never acked.
        let stuck = redelivered.saturating_sub(number(consumer, "num_ack_pending"));
        let advice = "Read them by their stream sequence (nats stream get) and publish them again or delete them. For the future \
                      keep $JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.> in a stream, or use a task queue: its dead letters are \
                      listed, with payload and error.";
        if stuck > 0 {
            let text = format!(
                "{stuck} messages were delivered {max_deliver} times without an ack and will never be again: stuck, and seen by nobody."
            );
            found.push(Finding::new(Problem, "deliveries-used", place(consumer), text, advice));
        } else if max_deliver > 1 && !kept(&advisory(consumer)) && !listened(&advisory(consumer)) {
            let unsure = if seen.subscriptions.is_some() { "nobody listens to it" } else { "no stream keeps it" };
            let text = format!(
                "after {max_deliver} deliveries a message is given up, and all that tells of it is an advisory; {unsure}. A plain nak \
                 uses all of them up within milliseconds."
            );
            found.push(Finding::new(Warning, "no-dead-letters", place(consumer), text, advice));
        }
    }
}

/// How long a task waits after its worker died, or is taken from one that is alive.
fn waits(seen: &Snapshot, found: &mut Vec<Finding>) {
    for consumer in acked(seen) {
        let config = &consumer["config"];
        let ack_wait = nanos(&config["ack_wait"]);
        let backoff: Vec<Duration> = config["backoff"].as_array().into_iter().flatten().map(nanos).collect();
        if let Some(first) = backoff.first() {
            let text = format!(
                "its backoff has replaced ack_wait: whoever works longer than {first:?} without +WPI loses the message to another, \
                 who does it too. And a plain nak ignores the backoff: the message comes back at once."
            );
            let advice = "Make the first backoff longer than the work takes, or send +WPI (in_progress) meanwhile; nak with a \
                          delay (NakWithDelay).";
            found.push(Finding::new(Warning, "backoff", place(consumer), text, advice));
        } else if ack_wait >= LONG_ACK_WAIT {
            let text = format!(
                "ack_wait is {ack_wait:?}: the message of a worker that died waits that long, although its connection is closed."
            );
            let advice = "Set ack_wait to some seconds and send +WPI (in_progress) while working, or use a task queue: there the \
                          end of a connection is the end of the lease.";
            found.push(Finding::new(Warning, "long-ack-wait", place(consumer), text, advice));
        }
        let redelivered = number(consumer, "num_redelivered").min(number(consumer, "num_ack_pending"));
        if redelivered >= REDELIVERED {
            let text = format!(
                "{redelivered} messages are being delivered again: workers fail, or take longer than ack_wait ({ack_wait:?})."
            );
            let advice = "Look at what the workers say; send +WPI (in_progress) during long work, or raise ack_wait.";
            found.push(Finding::new(Warning, "redelivered", place(consumer), text, advice));
        }
    }
}

/// Pull consumers with messages and nobody who fetches, at two looks.
fn nobody_pulls(seen: &Snapshot, found: &mut Vec<Finding>) {
    let idle = |consumer: &Value| {
        number(consumer, "num_pending") > 0
            && number(consumer, "num_waiting") == 0
            && number(consumer, "num_ack_pending") == 0
            && text(&consumer["config"], "deliver_subject").is_empty()
            && consumer["paused"] != true
    };
    let agents = |consumer: &&Value| is_coordinators(consumer) && !text(consumer, "name").starts_with("queue_");
    for consumer in seen.consumers.iter().filter(|consumer| idle(consumer) && !agents(consumer)) {
        let same = |later: &&Value| {
            text(later, "name") == text(consumer, "name") && text(later, "stream_name") == text(consumer, "stream_name")
        };
        let Some(later) = seen.consumers_later.iter().find(same).filter(|later| idle(later)) else { continue };
        if number(&later["delivered"], "consumer_seq") != number(&consumer["delivered"], "consumer_seq") {
            continue;
        }
        let text = format!("{} messages wait and nobody fetches.", number(later, "num_pending"));
        let advice = "Start its workers. If there are none any more, delete the consumer (nats consumer rm): it holds back what its \
                      stream may forget.";
        found.push(Finding::new(Warning, "nobody-pulls", place(consumer), text, advice));
    }
}

pub fn subjects(stream: &Value) -> impl Iterator<Item = &str> {
    stream["config"]["subjects"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The stream that stores what is published on a subject.
pub fn stream_of<'a>(seen: &'a Snapshot, subject: &str) -> Option<&'a Value> {
    let stores = |stream: &&Value| subjects(stream).any(|filter| overlaps(filter.as_bytes(), subject.as_bytes()));
    seen.streams.iter().find(stores)
}

/// Services whose requests a stream stores too: its PubAck comes first.
fn services_behind_streams(seen: &Snapshot, found: &mut Vec<Finding>) {
    // The coordinator's own endpoints are one finding, not forty.
    for (service, subject) in seen.endpoints.iter().filter(|(_, subject)| !subject.starts_with("$TASK.API.")) {
        let Some(stream) = stream_of(seen, subject).filter(|stream| stream["config"]["no_ack"] != true) else {
            continue;
        };
        let stream = text(&stream["config"], "name");
        let text = format!(
            "stream {stream} stores its requests on {subject} too: who asks gets the PubAck as the first answer and takes it for the service's."
        );
        let advice = "Take the subject out of the stream, or set no_ack on the stream, or give the service a subject of its own.";
        found.push(Finding::new(Problem, "puback-for-service", format!("service {service}"), text, advice));
    }
}

fn streams(seen: &Snapshot, found: &mut Vec<Finding>) {
    let limits = &seen.account["limits"];
    let varz = seen.varz.as_ref().map(|varz| &varz["jetstream"]);
    let (used, room) = match limits["max_storage"].as_f64().filter(|room| *room > 0.0) {
        Some(room) => (seen.account["storage"].as_f64().unwrap_or(0.0), room),
        None => varz.map_or((0.0, 0.0), |jetstream| {
            (
                jetstream["stats"]["storage"].as_f64().unwrap_or(0.0),
                jetstream["config"]["max_storage"].as_f64().unwrap_or(0.0),
            )
        }),
    };
    let full = room > 0.0 && used / room >= FULL;
    for stream in &seen.streams {
        let (config, state) = (&stream["config"], &stream["state"]);
        let place = format!("stream {}", text(config, "name"));
        let unlimited = |field: &str| config[field].as_i64().unwrap_or(-1) <= 0;
        let unbounded = unlimited("max_msgs")
            && unlimited("max_bytes")
            && unlimited("max_age")
            && unlimited("max_msgs_per_subject");
        if full && unbounded && text(config, "storage") == "file" {
            let text = format!(
                "it has no limits, and {:.0} % of the room for streams is taken: when it is full, nothing is stored any more, by any stream.",
                100.0 * used / room
            );
            let advice = "Give it max_age, max_bytes or max_msgs (nats stream edit).";
            found.push(Finding::new(Warning, "unbounded", &place, text, advice));
        }
        let durable = seen.consumers.iter().find(|consumer| {
            text(consumer, "stream_name") == text(config, "name")
                && !text(&consumer["config"], "durable_name").is_empty()
        });
        if let Some(durable) = durable.filter(|_| text(config, "storage") == "memory") {
            let text = format!(
                "it is kept in memory, but consumer {} is durable: after a restart both are gone.",
                text(durable, "name")
            );
            let advice = "Make it with file storage (nats stream add --storage file), or do without durable consumers.";
            found.push(Finding::new(Warning, "memory-durable", &place, text, advice));
        }
        let messages = number(state, "messages");
        if text(config, "retention") == "workqueue" && number(state, "consumer_count") == 0 && messages > 0 {
            let text = format!(
                "a work queue with {messages} messages and no consumer: nobody does them, and none is ever removed."
            );
            let advice = "Make a durable pull consumer for its workers (nats consumer add --pull).";
            found.push(Finding::new(Warning, "workqueue-without-consumer", &place, text, advice));
        }
    }
}

/// What was given up while we listened.
fn heard(seen: &Snapshot, found: &mut Vec<Finding>) {
    let mut counts: BTreeMap<(&'static str, String), (u64, u64)> = BTreeMap::new();
    for advisory in &seen.advisories {
        let what = match text(advisory, "type") {
            "io.nats.jetstream.advisory.v1.terminated" => "terminated",
            "io.nats.jetstream.advisory.v1.max_deliver" => "given-up",
            _ => continue,
        };
        if text(advisory, "stream") == "KV_TASK" {
            continue;
        }
        let place = format!("consumer {} of stream {}", text(advisory, "consumer"), text(advisory, "stream"));
        let (count, last) = counts.entry((what, place)).or_default();
        *count += 1;
        *last = number(advisory, "stream_seq");
    }
    for ((what, place), (count, last)) in counts {
        let how = if what == "terminated" { "terminated (+TERM)" } else { "delivered for the last time" };
        let text = format!(
            "{count} messages were {how} just now, the last with stream sequence {last}: an advisory told of it, and nothing else will."
        );
        let advice = "Read it with `nats stream get` while it is there. Keep $JS.EVENT.ADVISORY.CONSUMER.> in a stream, or use a task \
                      queue: what is given up there is a dead letter with payload and error.";
        found.push(Finding::new(Problem, what, place, text, advice));
    }
}

/// Whether acks are promises.
fn server(seen: &Snapshot, found: &mut Vec<Finding>) {
    let Some(config) = seen.varz.as_ref().map(|varz| &varz["jetstream"]["config"]).filter(|config| config.is_object())
    else {
        return;
    };
    let interval = nanos(&config["sync_interval"]);
    if config["sync_always"] != true && !seen.streams.is_empty() {
        let text = format!(
            "JetStream acknowledges before it syncs to disk, every {interval:?}: a power cut loses what was acknowledged since."
        );
        let advice = "Set jetstream { sync_interval: always }, or have three replicas on machines that do not fail together. natterjack \
                      syncs before every ack.";
        found.push(Finding::new(Warning, "ack-before-sync", &seen.server, text, advice));
    }
}

/// Queue groups on subjects that no stream stores: work for whoever is connected at that moment.
fn unstored_queues(seen: &Snapshot, found: &mut Vec<Finding>) {
    let Some(subscriptions) = &seen.subscriptions else { return };
    let mut told: Vec<(&str, &str)> = Vec::new();
    for subscription in subscriptions {
        let (subject, queue) = (text(subscription, "subject"), text(subscription, "qgroup"));
        let service = |(_, endpoint): &(String, String)| overlaps(endpoint.as_bytes(), subject.as_bytes());
        let system =
            subject.starts_with('$') || subject.starts_with("_INBOX.") || text(subscription, "account") == "$SYS";
        if queue.is_empty() || system || told.contains(&(subject, queue)) {
            continue;
        }
        if stream_of(seen, subject).is_none() && !seen.endpoints.iter().any(service) {
            told.push((subject, queue));
        }
    }
    for (subject, queue) in told {
        let text = format!(
            "queue group {queue} subscribes to {subject}, which no stream stores: what is published while all of them reconnect is heard by nobody."
        );
        let advice = "Fine for requests whose asker sees the 503. For work that must be done, store the subject in a stream, or submit tasks.";
        found.push(Finding::new(Note, "not-stored", format!("subject {subject}"), text, advice));
    }
}
