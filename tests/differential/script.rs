//! Corpus files: what is sent, line by line, with what nats-server answered below each line. `main.rs` describes them.

use std::fmt;

/// What one line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A request with one answer, or (`many`) with all that comes until it is quiet.
    Request {
        many: bool,
        /// Only names and types of JSON fields are told.
        shape: bool,
        publish: Publish,
    },
    /// As `Request`, asked again until the answer is the recorded one; when recording, asked once after `ms`.
    Poll {
        ms: u64,
        publish: Publish,
    },
    /// Without a reply, or with the one given.
    Publish(Publish),
    Subscribe {
        name: String,
        subject: String,
        queue: String,
    },
    Unsubscribe {
        name: String,
    },
    /// What a subscription got since it was last looked at.
    Take {
        name: String,
    },
    /// Lets time pass that the broker has to notice.
    Wait {
        ms: u64,
    },
    /// From here on to the end of the case, a connection of this user's.
    User {
        name: String,
        password: String,
    },
    /// A word for a value of the last answer, by its path in JSON: later lines write it as `{word}`.
    Let {
        word: String,
        path: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    pub subject: String,
    pub reply: String,
    pub headers: Vec<String>,
    pub body: String,
}

/// A line of a case that does something.
#[derive(Clone, Debug)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// As written, without the mode word.
    pub text: String,
    pub mode: Mode,
    pub step: Step,
    /// What nats-server answers.
    pub recorded: Vec<String>,
    /// What we answer on purpose, and why.
    pub ours: Option<(String, Vec<String>)>,
    /// Why we do not answer alike yet.
    pub pending: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    /// Done before each `TRY` of the case, and not recorded.
    Before,
    /// Done on an otherwise empty server, after the case's `BEFORE` lines.
    Try,
}

#[derive(Clone, Debug)]
pub enum Item {
    /// A comment or an empty line, kept as it is.
    Text(String),
    /// A line of both servers' config files.
    Config(String),
    /// Begins a case: all streams are deleted.
    Case(String),
    Line(Box<Line>),
}

#[derive(Clone, Debug)]
pub struct Script {
    pub items: Vec<Item>,
}

impl Script {
    /// What both servers' config files say.
    pub fn config(&self) -> String {
        let lines = self.items.iter().filter_map(|item| match item {
            Item::Config(line) => Some(line.as_str()),
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    pub fn parse(text: &str) -> Result<Script, String> {
        let mut items: Vec<Item> = Vec::new();
        for (at, raw) in text.lines().enumerate() {
            let number = at + 1;
            let wrong = |why: &str| format!("line {number}: {why}: {raw}");
            let last = items.iter_mut().rev().find_map(|item| match item {
                Item::Line(line) => Some(line),
                _ => None,
            });
            if let Some(title) = raw.strip_prefix("## ") {
                items.push(Item::Case(title.to_owned()));
            } else if let Some(line) = raw.strip_prefix("CONFIG ") {
                items.push(Item::Config(line.to_owned()));
            } else if raw.trim().is_empty() || raw.starts_with('#') {
                items.push(Item::Text(raw.to_owned()));
            } else if let Some(answer) = raw.strip_prefix("< ") {
                last.ok_or_else(|| wrong("an answer to nothing"))?.recorded.push(answer.to_owned());
            } else if let Some(answer) = raw.strip_prefix("= ") {
                let line = last.ok_or_else(|| wrong("an answer to nothing"))?;
                line.ours.as_mut().ok_or_else(|| wrong("no @ours above"))?.1.push(answer.to_owned());
            } else if let Some(reason) = raw.strip_prefix("@ours ") {
                last.ok_or_else(|| wrong("a difference in nothing"))?.ours = Some((reason.to_owned(), Vec::new()));
            } else if let Some(reason) = raw.strip_prefix("@pending ") {
                last.ok_or_else(|| wrong("a difference in nothing"))?.pending = Some(reason.to_owned());
            } else {
                let (mode, rest) = match raw.split_once(' ') {
                    Some(("BEFORE", rest)) => (Mode::Before, rest),
                    Some(("TRY", rest)) => (Mode::Try, rest),
                    _ => (Mode::Plain, raw),
                };
                let step = Step::parse(rest).map_err(|why| wrong(&why))?;
                items.push(Item::Line(Box::new(Line {
                    number,
                    text: rest.to_owned(),
                    mode,
                    step,
                    recorded: Vec::new(),
                    ours: None,
                    pending: None,
                })));
            }
        }
        Ok(Script { items })
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            match item {
                Item::Text(text) => writeln!(f, "{text}")?,
                Item::Config(line) => writeln!(f, "CONFIG {line}")?,
                Item::Case(title) => writeln!(f, "## {title}")?,
                Item::Line(line) => {
                    let mode = match line.mode {
                        Mode::Plain => "",
                        Mode::Before => "BEFORE ",
                        Mode::Try => "TRY ",
                    };
                    writeln!(f, "{mode}{}", line.text)?;
                    for answer in &line.recorded {
                        writeln!(f, "< {answer}")?;
                    }
                    if let Some((reason, answers)) = &line.ours {
                        writeln!(f, "@ours {reason}")?;
                        for answer in answers {
                            writeln!(f, "= {answer}")?;
                        }
                    }
                    if let Some(reason) = &line.pending {
                        writeln!(f, "@pending {reason}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Step {
    pub fn parse(text: &str) -> Result<Step, String> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        Ok(match (verb, words.as_slice()) {
            ("REQ", _) => Step::Request { many: false, shape: false, publish: Publish::parse(rest)? },
            ("REQ*", _) => Step::Request { many: true, shape: false, publish: Publish::parse(rest)? },
            ("SHAPE", _) => Step::Request { many: false, shape: true, publish: Publish::parse(rest)? },
            ("PUB", _) => Step::Publish(Publish::parse(rest)?),
            ("POLL", [ms, ..]) => {
                let rest = rest.split_once(' ').ok_or("nothing to ask")?.1;
                Step::Poll { ms: number(ms)?, publish: Publish::parse(rest)? }
            }
            ("SUB", [name, subject]) => {
                Step::Subscribe { name: (*name).into(), subject: (*subject).into(), queue: String::new() }
            }
            ("SUB", [name, subject, queue]) => {
                Step::Subscribe { name: (*name).into(), subject: (*subject).into(), queue: (*queue).into() }
            }
            ("UNSUB", [name]) => Step::Unsubscribe { name: (*name).into() },
            ("TAKE", [name]) => Step::Take { name: (*name).into() },
            ("WAIT", [ms]) => Step::Wait { ms: number(ms)? },
            ("USER", [name, password]) => Step::User { name: (*name).into(), password: (*password).into() },
            ("LET", [word, path]) => Step::Let { word: (*word).into(), path: (*path).into() },
            _ => return Err("not a step".to_owned()),
        })
    }
}

impl Publish {
    /// `subject [>reply] [<header: value | header: value>] [body]`
    fn parse(text: &str) -> Result<Publish, String> {
        let (subject, mut rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut publish = Publish { subject: subject.to_owned(), ..Publish::default() };
        if let Some(reply) = rest.strip_prefix('>') {
            let (reply, after) = reply.split_once(' ').unwrap_or((reply, ""));
            publish.reply = reply.to_owned();
            rest = after;
        }
        if let Some(headers) = rest.strip_prefix('<') {
            let (headers, after) = headers.split_once('>').ok_or("headers without an end")?;
            publish.headers = headers.split(" | ").map(str::to_owned).collect();
            rest = after.strip_prefix(' ').unwrap_or(after);
        }
        publish.body = rest.to_owned();
        Ok(publish)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

/// Bytes of a text with `\xNN` and `\rep(x,300)` in it.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        if let Some(hex) = rest.strip_prefix("\\x").and_then(|after| after.get(..2)) {
            bytes.push(u8::from_str_radix(hex, 16).map_err(|_| format!("\\x{hex}"))?);
            rest = &rest[4..];
        } else if let Some(after) = rest.strip_prefix("\\rep(") {
            let (inside, after) = after.split_once(')').ok_or("\\rep without an end")?;
            let (what, count) = inside.rsplit_once(',').ok_or("\\rep(what,count)")?;
            bytes.extend(what.repeat(number(count)? as usize).into_bytes());
            rest = after;
        } else {
            bytes.push(b'\\');
            rest = &rest[1..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}
