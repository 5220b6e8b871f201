//! Plays scripts to a server and writes down what it answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::normal::{self, Words};
use crate::script::{Item, Line, Mode, Publish, Script, Step, unescape};
use crate::wire::{Delivered, PATIENCE, Wire};

/// When nothing says how many answers come: the wait for the first one, and the quiet after which no more is expected.
#[derive(Clone, Copy)]
pub struct Pace {
    first: Duration,
    quiet: Duration,
}

impl Pace {
    pub const PATIENT: Pace = Pace { first: Duration::from_millis(1000), quiet: Duration::from_millis(250) };
    /// May miss an answer: whatever is found this way is looked at again with patience.
    pub const QUICK: Pace = Pace { first: Duration::from_millis(100), quiet: Duration::from_millis(30) };
}

/// Time for answers that should not come.
const NONE: Duration = Duration::from_millis(50);
const POLL_EVERY: Duration = Duration::from_millis(20);

pub const NOTHING: &str = "(nothing)";

/// One connection to a server, and what a script has made of it.
pub struct Player {
    address: String,
    wire: Wire,
    /// Whether the connection is one that a script asked for.
    is_user: bool,
    pace: Pace,
    subscriptions: BTreeMap<String, (u64, String)>,
    /// What the script gave words to.
    words: Words,
    /// The reply subjects of what the last step got: `{r1}`, `{r2}`, ...
    replies: Words,
    last_body: Vec<u8>,
    inboxes: u64,
}

/// How long to wait for answers.
#[derive(Clone, Copy)]
pub enum Expect<'a> {
    /// Whatever comes, until it is quiet.
    Anything,
    /// As many as these, and what else has come by then.
    Like(&'a [String]),
}

/// What a script's lines were answered, by their place among the items. Lines that are not compared have none.
pub type Answers = BTreeMap<usize, Vec<String>>;

/// Plays a whole script; `expected` tells what each line is likely to be answered, so that nobody waits in vain.
pub fn play(
    address: &str,
    pace: Pace,
    script: &Script,
    expected: impl Fn(&Line) -> Option<Vec<String>>,
) -> Result<Answers, String> {
    let mut player = Player::connect(address, pace)?;
    let mut answers = Answers::new();
    let mut before: Vec<&Line> = Vec::new();
    for (at, item) in script.items.iter().enumerate() {
        let line = match item {
            Item::Text(_) | Item::Config(_) => continue,
            Item::Case(_) => {
                player.clear()?;
                before.clear();
                continue;
            }
            Item::Line(line) => line,
        };
        let told = |error: String| format!("line {}: {}: {error}", line.number, line.text);
        match line.mode {
            Mode::Before => {
                before.push(line);
                continue;
            }
            Mode::Try => {
                player.clear()?;
                for line in &before {
                    let got = player.perform(&line.step, Expect::Anything).map_err(told)?;
                    if let Some(error) = got.iter().find(|answer| answer.contains(r#""err_code""#)) {
                        return Err(told(format!("{} of its BEFORE lines failed: {error}", line.text)));
                    }
                }
            }
            Mode::Plain => {}
        }
        let expected = expected(line);
        let expect = expected.as_deref().map_or(Expect::Anything, Expect::Like);
        answers.insert(at, player.perform(&line.step, expect).map_err(told)?);
    }
    player.clear()?;
    Ok(answers)
}

impl Player {
    pub fn connect(address: &str, pace: Pace) -> Result<Player, String> {
        Ok(Player {
            address: address.to_owned(),
            wire: Wire::connect(address, None)?,
            is_user: false,
            pace,
            subscriptions: BTreeMap::new(),
            words: Words::new(),
            replies: Words::new(),
            last_body: Vec::new(),
            inboxes: 0,
        })
    }

    /// Forgets everything: subscriptions, words, and the server's streams.
    pub fn clear(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.is_user) {
            self.wire = Wire::connect(&self.address, None)?;
            self.subscriptions.clear();
        }
        for (_, (sid, _)) in std::mem::take(&mut self.subscriptions) {
            self.wire.unsubscribe(sid)?;
        }
        self.words.clear();
        self.replies.clear();
        self.inboxes = 0;
        loop {
            let names = self.ask("$JS.API.STREAM.NAMES")?;
            let Some(names) = names["streams"].as_array().filter(|names| !names.is_empty()) else { return Ok(()) };
            for name in names.iter().filter_map(Value::as_str) {
                let answer = self.ask(&format!("$JS.API.STREAM.DELETE.{name}"))?;
                if answer["success"] != true {
                    return Err(format!("{name} cannot be deleted: {answer}"));
                }
            }
        }
    }

    fn ask(&mut self, subject: &str) -> Result<Value, String> {
        let publish = Publish { subject: subject.to_owned(), ..Publish::default() };
        let got = self.request(&publish, Expect::Like(&[String::new()]), false)?;
        let body = got.first().map(|message| message.body.as_slice()).unwrap_or_default();
        normal::json(body).ok_or_else(|| format!("{subject}: no answer"))
    }

    /// Does one step, and tells what came of it, in lines without what differs from run to run.
    pub fn perform(&mut self, step: &Step, expect: Expect<'_>) -> Result<Vec<String>, String> {
        let got = match step {
            Step::Request { many, shape, publish } => {
                let got = self.request(publish, expect, *many)?;
                if *shape {
                    self.last_body = got.last().map(|message| message.body.clone()).unwrap_or_default();
                    return Ok(got.iter().map(|message| normal::shape(&message.body)).collect());
                }
                got
            }
            Step::User { name, password } => {
                self.subscriptions.clear();
                self.is_user = true;
                self.wire = Wire::connect(&self.address, Some((name, password)))?;
                return Ok(self.take_errors());
            }
            Step::Poll { ms, publish } => return self.poll(*ms, publish, expect),
            Step::Publish(publish) => {
                let reply = self.expand(&publish.reply);
                self.publish(publish, &reply)?;
                self.wire.flush()?;
                return Ok(self.take_errors());
            }
            Step::Subscribe { name, subject, queue } => {
                let subject = self.expand(subject);
                let sid = self.wire.subscribe(&subject, queue)?;
                self.subscriptions.insert(name.clone(), (sid, subject));
                self.wire.flush()?;
                return Ok(self.take_errors());
            }
            Step::Unsubscribe { name } => {
                let (sid, _) = self.subscriptions.remove(name).ok_or("no such subscription")?;
                self.wire.unsubscribe(sid)?;
                self.wire.flush()?;
                return Ok(self.take_errors());
            }
            Step::Take { name } => {
                let (sid, subject) = self.subscriptions.get(name).cloned().ok_or("no such subscription")?;
                let got = self.collect(sid, expect, true)?;
                return Ok(self.tell(&got, &subject));
            }
            Step::Wait { ms } => {
                std::thread::sleep(Duration::from_millis(*ms));
                return Ok(Vec::new());
            }
            Step::Let { word, path } => {
                let mut value = normal::json(&self.last_body).ok_or("the last answer is no JSON")?;
                for key in path.split('.').filter(|key| !key.is_empty()) {
                    value = match key.parse::<usize>() {
                        Ok(at) => value[at].take(),
                        Err(_) => value[key].take(),
                    };
                }
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                self.words.push((word.clone(), value));
                return Ok(Vec::new());
            }
        };
        let inbox = format!("_INBOX.d.{}", self.inboxes);
        Ok(self.tell(&got, &inbox))
    }

    fn poll(&mut self, ms: u64, publish: &Publish, expect: Expect<'_>) -> Result<Vec<String>, String> {
        let deadline = Instant::now() + PATIENCE;
        if let Expect::Anything = expect {
            std::thread::sleep(Duration::from_millis(ms));
        }
        loop {
            let got = self.request(publish, expect, false)?;
            let inbox = format!("_INBOX.d.{}", self.inboxes);
            let told = self.tell(&got, &inbox);
            match expect {
                Expect::Like(wanted) if wanted != told && Instant::now() < deadline => std::thread::sleep(POLL_EVERY),
                _ => return Ok(told),
            }
        }
    }

    fn request(&mut self, publish: &Publish, expect: Expect<'_>, many: bool) -> Result<Vec<Delivered>, String> {
        self.inboxes += 1;
        let inbox = format!("_INBOX.d.{}", self.inboxes);
        let sid = self.wire.subscribe(&inbox, "")?;
        self.publish(publish, &inbox)?;
        let got = self.collect(sid, expect, many);
        self.wire.unsubscribe(sid)?;
        got
    }

    fn publish(&mut self, publish: &Publish, reply: &str) -> Result<(), String> {
        let mut headers = Vec::new();
        if !publish.headers.is_empty() {
            headers.extend_from_slice(b"NATS/1.0\r\n");
            for header in &publish.headers {
                headers.extend(unescape(&self.expand(header))?);
                headers.extend_from_slice(b"\r\n");
            }
            headers.extend_from_slice(b"\r\n");
        }
        let subject = String::from_utf8(unescape(&self.expand(&publish.subject))?).map_err(|e| e.to_string())?;
        let body = unescape(&self.expand(&publish.body))?;
        self.wire.publish(&subject, reply, &headers, &body)
    }

    fn collect(&mut self, sid: u64, expect: Expect<'_>, many: bool) -> Result<Vec<Delivered>, String> {
        let mut got = Vec::new();
        match expect {
            Expect::Anything => {
                let mut wait = self.pace.first;
                while let Some(message) = self.wire.next(sid, Instant::now() + wait)? {
                    if !many {
                        got.push(message);
                        break;
                    }
                    wait = if ends(&message) { NONE } else { self.pace.quiet };
                    got.push(message);
                }
            }
            Expect::Like(lines) => {
                let wanted = lines.iter().filter(|line| *line != NOTHING && !line.starts_with("-ERR")).count();
                let deadline = Instant::now() + PATIENCE;
                while got.len() < wanted {
                    match self.wire.next(sid, deadline)? {
                        Some(message) => got.push(message),
                        None => break,
                    }
                }
                if wanted == 0 {
                    got.extend(self.wire.next(sid, Instant::now() + NONE)?);
                }
            }
        }
        self.wire.flush()?;
        while let Some(message) = self.wire.next(sid, Instant::now())? {
            got.push(message);
        }
        Ok(got)
    }

    fn tell(&mut self, got: &[Delivered], inbox: &str) -> Vec<String> {
        let replies = got.iter().enumerate().map(|(at, message)| (format!("r{}", at + 1), message.reply.clone()));
        self.replies = replies.filter(|(_, reply)| !reply.is_empty()).collect();
        self.last_body = got.last().map(|message| message.body.clone()).unwrap_or_default();
        let mut lines: Vec<String> = got.iter().map(|message| normal::message(message, inbox, &self.words)).collect();
        if lines.is_empty() {
            lines.push(NOTHING.to_owned());
        }
        lines.extend(self.take_errors());
        lines
    }

    fn take_errors(&mut self) -> Vec<String> {
        std::mem::take(&mut self.wire.errors)
    }

    fn expand(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, value) in self.words.iter().chain(&self.replies) {
            text = text.replace(&format!("{{{word}}}"), value);
        }
        text
    }
}

/// Whether a message says that no more come.
fn ends(message: &Delivered) -> bool {
    [&b"NATS/1.0 404"[..], b"NATS/1.0 408", b"NATS/1.0 409", b"NATS/1.0 204"]
        .iter()
        .any(|status| message.headers.starts_with(status))
}
