//! Scripts from a seed: streams, consumers, publishes, deliveries, purges and deletes in any order. Whatever the order,
//! two servers must answer alike and end in the same state.

use crate::script::{Item, Line, Mode, Script, Step};

/// A generator that a seed determines for ever (xorshift64*), so that a seed in a report means something next year.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

/// `steps` requests of a seed, and then the questions that show the state they led to.
pub fn lines(seed: u64, steps: usize) -> Vec<String> {
    let mut random = Random::new(seed);
    let mut lines = vec![
        r#"REQ $JS.API.STREAM.CREATE.A {"name":"A","subjects":["a.>"]}"#.to_owned(),
        r#"REQ $JS.API.STREAM.CREATE.B {"name":"B","subjects":["b.>"],"storage":"memory"}"#.to_owned(),
    ];
    lines.extend((0..steps).map(|_| line(&mut random)));
    lines
}

/// What shows the state of every stream that a generated script may have made.
pub fn questions() -> Vec<String> {
    let mut lines = vec!["REQ $JS.API.STREAM.LIST".to_owned()];
    for stream in STREAMS {
        lines.push(format!(r#"REQ $JS.API.STREAM.INFO.{stream} {{"subjects_filter":">","deleted_details":true}}"#));
        lines.push(format!("REQ $JS.API.CONSUMER.LIST.{stream}"));
        lines.push(format!(r#"REQ* $JS.API.DIRECT.GET.{stream} {{"seq":1,"batch":1000}}"#));
    }
    // Only now, when the others rest: what a mirror has of an origin that changes depends on its speed.
    for (name, origin) in [
        ("M", r#""mirror":{"name":"A"}"#),
        ("N", r#""mirror":{"name":"B","opt_start_seq":3}"#),
        ("O", r#""sources":[{"name":"A","filter_subject":"a.1"}]"#),
        ("P", r#""sources":[{"name":"B","subject_transforms":[{"src":"b.*","dest":"p.{{wildcard(1)}}"}]}]"#),
    ] {
        lines.push(format!(r#"REQ $JS.API.STREAM.CREATE.{name} {{"name":"{name}","allow_direct":true,{origin}}}"#));
    }
    for (name, ms) in [("M", 400), ("N", 0), ("O", 0), ("P", 0)] {
        lines.push(format!(r#"POLL {ms} $JS.API.STREAM.INFO.{name} {{"subjects_filter":">","deleted_details":true}}"#));
        lines.push(format!(r#"REQ* $JS.API.DIRECT.GET.{name} {{"seq":1,"batch":1000}}"#));
    }
    lines
}

/// A script of lines, as a corpus file would have it.
pub fn script(lines: &[String]) -> Script {
    let items = lines.iter().enumerate().map(|(at, text)| {
        Item::Line(Box::new(Line {
            number: at + 1,
            text: text.clone(),
            mode: Mode::Plain,
            step: Step::parse(text).expect("generated lines are steps"),
            recorded: Vec::new(),
            ours: None,
            pending: None,
        }))
    });
    Script { items: std::iter::once(Item::Case("generated".to_owned())).chain(items).collect() }
}

const STREAMS: &[&str] = &["A", "B", "C"];
const CONSUMERS: &[&str] = &["x", "y", "z"];
/// Far away, over, and none: whoever is paused for now only may go on at any time.
const PAUSES: &[&str] =
    &[r#"{"pause_until":"2040-01-01T00:00:00Z"}"#, r#"{"pause_until":"2001-01-01T00:00:00Z"}"#, "{}", ""];
/// Some of each stream, some of none.
const SUBJECTS: &[&str] = &["a.1", "a.2", "a.1.x", "b.1", "b.2", "b.2.x", "c.1"];
const FILTERS: &[&str] = &["", ">", "a.*", "a.1", "b.>", "b.2", "*.1", "*.*.x", "zz", "a..b"];

fn line(random: &mut Random) -> String {
    let stream = random.pick(STREAMS);
    let consumer = random.pick(CONSUMERS);
    let subject = random.pick(SUBJECTS);
    let filter = random.pick(FILTERS);
    let seq = random.below(12);
    match random.below(27) {
        0..=6 => publish(random, subject, seq),
        7 => format!("REQ $JS.API.STREAM.CREATE.{stream} {}", stream_config(random, stream)),
        8 => format!("REQ $JS.API.STREAM.UPDATE.{stream} {}", stream_config(random, stream)),
        9 if seq == 0 => format!("REQ $JS.API.STREAM.DELETE.{stream}"),
        9 | 10 => format!(
            "REQ $JS.API.STREAM.PURGE.{stream} {}",
            match random.below(5) {
                0 => format!(r#"{{"seq":{seq}}}"#),
                1 => format!(r#"{{"keep":{}}}"#, random.below(4)),
                2 => format!(r#"{{"filter":"{filter}"}}"#),
                3 => format!(r#"{{"filter":"{filter}","seq":{seq}}}"#),
                _ => format!(r#"{{"filter":"{filter}","keep":{}}}"#, 1 + random.below(2)),
            }
        ),
        11 | 12 => format!(r#"REQ $JS.API.STREAM.MSG.DELETE.{stream} {{"seq":{seq}}}"#),
        13 => format!(r#"REQ $JS.API.STREAM.MSG.GET.{stream} {{"seq":{seq},"next_by_subj":"{filter}"}}"#),
        14 => format!(r#"REQ $JS.API.STREAM.MSG.GET.{stream} {{"last_by_subj":"{filter}"}}"#),
        15 => format!(r#"REQ $JS.API.STREAM.INFO.{stream} {{"subjects_filter":"{filter}","deleted_details":true}}"#),
        16 | 17 => {
            format!("REQ $JS.API.CONSUMER.CREATE.{stream}.{consumer} {}", consumer_config(random, stream, consumer))
        }
        18 | 19 => format!(
            r#"REQ* $JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer} {{"batch":{},"no_wait":true}}"#,
            1 + random.below(4)
        ),
        20 => format!("REQ $JS.API.CONSUMER.INFO.{stream}.{consumer}"),
        21 if seq == 0 => format!("REQ $JS.API.CONSUMER.DELETE.{stream}.{consumer}"),
        21 => format!(r#"REQ* $JS.API.DIRECT.GET.{stream} {{"multi_last":["{filter}"]}}"#),
        // The answer goes to what the last step got; the second one is often not there.
        22 => format!("REQ {{r1}} {}", random.pick(&["+ACK", "-NAK", "+TERM", "+WPI", ""])),
        23 if seq < 3 => format!("REQ $JS.API.CONSUMER.PAUSE.{stream}.{consumer} {}", random.pick(PAUSES)),
        23 => format!(r#"REQ $JS.API.CONSUMER.RESET.{stream}.{consumer} {{"seq":{seq}}}"#),
        24 => batched(random, subject),
        25 => format!("REQ {subject} <Nats-Incr: {}>", random.pick(&["+1", "-2", "40", "x", ""])),
        _ => format!("REQ $JS.ACK.{stream}.{consumer}.1.{seq}.{}.1.0 +ACK", random.below(6)),
    }
}

/// A message of an atomic batch, often not the one that is due.
fn batched(random: &mut Random, subject: &str) -> String {
    let (batch, seq) = (random.below(2), 1 + random.below(3));
    let commit = if random.below(3) == 0 { " | Nats-Batch-Commit: 1" } else { "" };
    format!("REQ {subject} <Nats-Batch-Id: b{batch} | Nats-Batch-Sequence: {seq}{commit}> batched")
}

fn publish(random: &mut Random, subject: &str, seq: u64) -> String {
    let headers = match random.below(14) {
        0 => format!("<Nats-Msg-Id: m{}> ", random.below(4)),
        1 => format!("<Nats-Expected-Last-Sequence: {seq}> "),
        2 => format!("<Nats-Expected-Last-Subject-Sequence: {seq}> "),
        3 => format!("<Nats-Rollup: {}> ", random.pick(&["all", "sub"])),
        4 => format!("<Nats-Expected-Stream: {}> ", random.pick(STREAMS)),
        5 | 6 => format!("<Nats-TTL: {}> ", random.pick(&["1h", "never", "90", "500ms", "x", "-1s"])),
        _ => String::new(),
    };
    format!("REQ {subject} {headers}{}", "x".repeat(random.below(20) as usize))
}

fn stream_config(random: &mut Random, stream: &str) -> String {
    let lower = stream.to_lowercase();
    let storage = if stream == "B" { "memory" } else { "file" };
    let mut fields = format!(r#""name":"{stream}","subjects":["{lower}.>"],"storage":"{storage}""#);
    for _ in 0..random.below(4) {
        let field = match random.below(14) {
            0 => format!(r#""max_msgs":{}"#, random.below(6)),
            1 => format!(r#""max_msgs_per_subject":{}"#, random.below(4)),
            2 => format!(r#""max_bytes":{}"#, 50 * random.below(8)),
            3 => format!(r#""discard":"{}""#, random.pick(&["old", "new"])),
            4 => r#""allow_rollup_hdrs":true"#.to_owned(),
            5 => format!(r#""retention":"{}""#, random.pick(&["limits", "interest", "workqueue"])),
            6 => format!(r#""max_msg_size":{}"#, 5 * random.below(4)),
            7 => format!(r#""discard_new_per_subject":{}"#, random.pick(&["true", "false"])),
            8 | 9 => r#""allow_msg_ttl":true"#.to_owned(),
            10 => r#""allow_msg_counter":true"#.to_owned(),
            11 | 12 => r#""allow_atomic":true"#.to_owned(),
            _ => r#""allow_direct":true"#.to_owned(),
        };
        fields.push(',');
        fields.push_str(&field);
    }
    format!("{{{fields}}}")
}

fn consumer_config(random: &mut Random, stream: &str, consumer: &str) -> String {
    let mut fields = format!(r#""durable_name":"{consumer}""#);
    for _ in 0..random.below(5) {
        let field = match random.below(7) {
            0 | 1 => format!(r#""ack_policy":"{}""#, random.pick(&["none", "all", "explicit"])),
            2 => format!(r#""filter_subject":"{}""#, random.pick(FILTERS)),
            3 => format!(r#""filter_subjects":["{}","{}"]"#, random.pick(SUBJECTS), random.pick(SUBJECTS)),
            4 => format!(r#""deliver_policy":"{}""#, random.pick(&["all", "new", "last", "last_per_subject"])),
            5 => format!(r#""max_deliver":{}"#, random.below(4)),
            _ => format!(r#""max_ack_pending":{}"#, random.below(4)),
        };
        fields.push(',');
        fields.push_str(&field);
    }
    format!(r#"{{"stream_name":"{stream}","config":{{{fields}}}}}"#)
}
