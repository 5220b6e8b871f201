//! Messages as lines of text in which two servers can be compared: what rightly differs between them, and between two
//! runs of one, is replaced by a word.

use crate::wire::Delivered;
use natterjack::types::Timestamp;
use serde_json::Value;

/// Values by name, which stand for what only this run knows.
pub type Words = Vec<(String, String)>;

/// Runs of one character longer than this are told, not shown.
const RUN_MAX: usize = 40;
/// A time nearer to now than this is one that the server read from its clock.
const NEAR_NANOS: u64 = 3_600_000_000_000;

/// A delivered message in one line: `subject >reply <headers> body`; the subject is left out when it is `inbox`.
pub fn message(message: &Delivered, inbox: &str, words: &Words) -> String {
    let mut parts = Vec::new();
    if message.subject != inbox {
        parts.push(substitute(&text(message.subject.as_bytes()), words));
    }
    if !message.reply.is_empty() {
        parts.push(format!(">{}", substitute(&reply(&message.reply), words)));
    }
    if !message.headers.is_empty() {
        let block = String::from_utf8_lossy(&message.headers).into_owned();
        let mut lines = block.split("\r\n").filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let status = first.strip_prefix("NATS/1.0").unwrap_or(first).trim_start();
        let lines = lines.map(|line| substitute(&header(line), words));
        let all: Vec<String> = std::iter::once(status.to_owned()).filter(|s| !s.is_empty()).chain(lines).collect();
        parts.push(format!("<{}>", text(all.join(" | ").as_bytes())));
    }
    match json(&message.body) {
        Some(mut value) => {
            settle(&mut value, "", words);
            parts.push(shorten(&value.to_string()));
        }
        None if message.body.is_empty() => {}
        None => parts.push(substitute(&text(&message.body), words)),
    }
    if parts.is_empty() { "(empty)".to_owned() } else { parts.join(" ") }
}

const UNSEEN: &[&str] = &[
    "rtt",
    "feature_flags",
    "go",
    "git_commit",
    "config_digest",
    "System recvQ",
    "subscriptions_list",
    "disk_io_wait_stats",
];

/// What a JSON body looks like: its fields, and the types of their values. Numbers are left out, because zeros are; so are
/// what changes while one looks, and what tells of clusters, of Go and of nats-server's own switches.
pub fn shape(body: &[u8]) -> String {
    fn of(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let seen = |key: &String, value: &Value| {
                    !value.is_number() && value != &serde_json::json!({}) && !UNSEEN.contains(&key.as_str())
                };
                fields
                    .iter()
                    .filter(|(key, value)| seen(key, value))
                    .map(|(key, value)| (key.clone(), of(value)))
                    .collect()
            }
            Value::Array(items) => Value::Array(items.first().map(of).into_iter().collect()),
            Value::String(_) => "text".into(),
            Value::Number(_) => "number".into(),
            Value::Bool(_) => "bool".into(),
            Value::Null => Value::Null,
        }
    }
    json(body).map_or_else(|| "no JSON".to_owned(), |value| of(&value).to_string())
}

/// The body's JSON, when it is an object or an array.
pub fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(body).ok().filter(|value| value.is_object() || value.is_array())
}

fn settle(value: &mut Value, key: &str, words: &Words) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                settle(field, key, words);
            }
            // An empty stream on disk lists sequence 0 among the deleted with nats-server; no message ever has it.
            if fields.get("deleted").is_some_and(|deleted| *deleted == serde_json::json!([0])) {
                fields.remove("deleted");
                fields.remove("num_deleted");
            }
            if key == "client" {
                fields.insert("id".to_owned(), Value::String("<id>".to_owned()));
                // Known once a PING of the server's has been answered.
                fields.remove("rtt");
            }
            // What a trace says of the server it went through.
            if key == "server" {
                for (name, value) in [("name", "<server>"), ("ver", "<ver>")] {
                    fields.entry(name).and_modify(|field| *field = value.into());
                }
                fields.retain(|name, _| !matches!(name.as_str(), "seq" | "feature_flags"));
            }
            // How often the API was used depends on what came before.
            if key == "api" {
                fields.extend(["total", "errors"].map(|count| (count.to_owned(), Value::Null)));
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| settle(item, key, words));
            // nats-server reports on sources in any order.
            if key == "sources" && items.iter().all(|item| item.get("lag").is_some()) {
                items.sort_by_key(Value::to_string);
            }
        }
        // What an audit tells of a request and its answer.
        Value::String(string) if matches!(key, "request" | "response") && json(string.as_bytes()).is_some() => {
            let mut body = json(string.as_bytes()).unwrap_or_default();
            settle(&mut body, "", words);
            *value = body;
        }
        Value::String(string) => {
            *string = match key {
                "id" | "pinned_id" | "server" | "server_id" | "server_name" | "leader" | "domain" | "_nats.ver"
                | "_nats.level"
                    if !string.is_empty() =>
                {
                    format!("<{}>", key.trim_start_matches("_nats."))
                }
                _ if is_now(string) => "<time>".to_owned(),
                _ => substitute(&reply(string), words),
            }
        }
        Value::Number(_) => {
            // How often the API was used, how long something took, and what the claimed release can do.
            if matches!(
                key,
                "cid" | "level" | "pause_remaining" | "ack_time" | "rtt" | "active" | "elapsed" | "inflight"
            ) {
                *value = Value::String(format!("<{key}>"));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn header(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, value)) if is_now(value) => format!("{name}: <time>"),
        Some((name @ "Nats-Subject", value)) => format!("{name}: {}", reply(value)),
        Some((name @ ("Nats-Stream-Identity" | "Nats-Pin-Id"), _)) => format!("{name}: <id>"),
        // Its last word is the origin's identity.
        Some((name @ "Nats-Stream-Source", value)) => {
            format!("{name}: {} <id>", value.rsplit_once(' ').map_or(value, |(before, _)| before))
        }
        _ => line.to_owned(),
    }
}

fn is_now(string: &str) -> bool {
    let now = Timestamp::now().nanos();
    Timestamp::parse_rfc3339(string).is_some_and(|time| now.abs_diff(time.nanos()) < NEAR_NANOS)
}

/// A subject without the time or id that its server put into it.
fn reply(subject: &str) -> String {
    let mut tokens: Vec<&str> = subject.split('.').collect();
    if subject.starts_with("$JS.ACK.") && tokens.len() == 9 {
        tokens[7] = "<time>";
    }
    if subject.starts_with("$JS.SNAPSHOT.RESTORE.") && tokens.len() == 5 {
        tokens[4] = "<id>";
    }
    tokens.join(".")
}

fn substitute(text: &str, words: &Words) -> String {
    let mut text = text.to_owned();
    for (word, value) in words.iter().filter(|(_, value)| !value.is_empty()) {
        text = text.replace(value, &format!("{{{word}}}"));
    }
    shorten(&text)
}

fn text(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() {
                out.push_str(&format!("\\x{:02x}", u32::from(char)));
            } else {
                out.push(char);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

fn shorten(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let mut count = 1;
        while chars.next_if_eq(&char).is_some() {
            count += 1;
        }
        if count > RUN_MAX {
            out.push_str(&format!("\\rep({char},{count})"));
        } else {
            out.extend(std::iter::repeat_n(char, count));
        }
    }
    out
}
