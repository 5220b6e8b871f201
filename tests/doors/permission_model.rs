//! Permissions equal a naive model on every way a message can take: live, in a queue group, answered, out of a stream, its
//! mirror and one that sources from it, by pull, push, push to a group, direct get and MSG.GET, published again, watched in
//! a key-value store, imported from another account. Tasks have `tests/coordinator/permissions.rs`.
//!
//! `NATTERJACK_PERMISSION_SEEDS` is how many brokers with made-up users are tried; each failure names its seed, which
//! `NATTERJACK_PERMISSION_SEED` tries alone.

use std::collections::BTreeSet;

use async_nats::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PATIENCE, World, round};

const SEEDS: u64 = 2;
const USERS: usize = 6;

/// The dullest model that could be right: lists of filters, looked through one by one.
mod model {
    #[derive(Clone, Debug, Default)]
    pub struct Rules {
        pub allow: Option<Vec<String>>,
        pub deny: Vec<String>,
    }

    #[derive(Clone, Debug, Default)]
    pub struct User {
        pub publish: Rules,
        pub subscribe: Rules,
        /// Answers to requests it receives, each once.
        pub answers: bool,
    }

    /// Whether all subjects that `inner` stands for are among those of `outer`.
    fn covers(outer: &str, inner: &str) -> bool {
        let (outer, inner): (Vec<&str>, Vec<&str>) = (outer.split('.').collect(), inner.split('.').collect());
        for (at, token) in outer.iter().enumerate() {
            match (*token, inner.get(at)) {
                (">", Some(_)) => return true,
                (_, None | Some(&">")) => return false,
                ("*", Some(_)) => {}
                (token, Some(other)) if token == *other => {}
                _ => return false,
            }
        }
        outer.len() == inner.len()
    }

    fn any(rules: &[String], subject: &str) -> bool {
        rules.iter().any(|rule| covers(rule, subject))
    }

    /// Whether rules for everybody cover `subject`, and what rules for queue groups that cover it say of this one.
    fn asked(rules: &[String], subject: &str, queue: &str) -> (bool, Option<bool>) {
        let (mut plain, mut named) = (false, None);
        for rule in rules {
            match rule.split_once(' ') {
                None => plain |= covers(rule, subject),
                Some((filter, group)) if !queue.is_empty() && covers(filter, subject) => {
                    named = Some(named == Some(true) || covers(group, queue));
                }
                Some(_) => {}
            }
        }
        (plain, named)
    }

    impl Rules {
        pub fn permit(&self, subject: &str) -> bool {
            self.allow.as_ref().is_none_or(|allow| any(allow, subject)) && !any(&self.deny, subject)
        }

        /// Whether somebody in this group is denied `subject`.
        fn denies(&self, subject: &str, queue: &str) -> bool {
            let (plain, named) = asked(&self.deny, subject, queue);
            plain || named == Some(true)
        }

        fn permit_in(&self, subject: &str, queue: &str) -> bool {
            let allowed = self.allow.as_ref().is_none_or(|allow| {
                let (plain, named) = asked(allow, subject, queue);
                named.unwrap_or(plain)
            });
            allowed && !self.denies(subject, queue)
        }
    }

    impl User {
        pub fn may_publish(&self, subject: &str) -> bool {
            let unnamed = self.answers && self.publish.allow.is_none();
            !unnamed && self.publish.permit(subject)
        }

        /// Alone or, with a name, in a queue group.
        pub fn may_subscribe(&self, filter: &str, queue: &str) -> bool {
            self.subscribe.permit_in(filter, queue)
        }

        /// What a subscription that it may have brings.
        pub fn hears(&self, filter: &str, queue: &str, subject: &str) -> bool {
            covers(filter, subject) && self.may_have(subject, queue)
        }

        /// What comes to it in an inbox, alone or in a queue group, and is known elsewhere as `subject`.
        pub fn may_have(&self, subject: &str, queue: &str) -> bool {
            !self.subscribe.denies(subject, queue)
        }
    }
}

use model::{Rules, User};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % sides
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    /// A filter over a small alphabet, in one of the spaces that subjects come in.
    fn filter(&mut self, spaces: &[&str]) -> String {
        let mut tokens: Vec<&str> = (0..=self.roll(2)).map(|_| ["a", "b", "*"][self.roll(3)]).collect();
        if self.one_in(3) {
            tokens.push(">");
        }
        format!("{}{}", spaces[self.roll(spaces.len())], tokens.join("."))
    }

    fn filters(&mut self, most: usize, spaces: &[&str]) -> Vec<String> {
        (0..self.roll(most + 1)).map(|_| self.filter(spaces)).collect()
    }

    fn rules(&mut self, needed: &[&str]) -> Rules {
        let mut allow = match self.one_in(2) {
            true => None,
            false => Some(self.filters(5, &SPACES)),
        };
        if let Some(allow) = &mut allow {
            allow.extend(needed.iter().map(|&text| text.to_owned()));
        }
        Rules { allow, deny: self.filters(4, &SPACES) }
    }

    fn user(&mut self, name: &str) -> User {
        let inbox = format!("_INBOX_{name}.>");
        let answers = self.one_in(3);
        let publish = self.rules(&["$JS.API.>"]);
        let mut subscribe = self.rules(&[&inbox]);
        for rule in subscribe.allow.iter_mut().flatten().chain(&mut subscribe.deny) {
            if *rule != inbox && self.one_in(4) {
                *rule = format!("{rule} {}", QUEUES[self.roll(QUEUES.len())]);
            }
        }
        User { publish, subscribe, answers }
    }
}

/// What rules are about when they are about queue groups, which are called `g1.3` here.
const QUEUES: [&str; 6] = ["g0.*", "g1.*", "g2.*", "*.4", ">", "g1.7"];

fn queue(number: usize) -> String {
    format!("g{}.{number}", number % 3)
}

/// Where subjects are: published, published again, as keys, imported, and as tasks.
const SPACES: [&str; 5] = ["", "rep.", "$KV.K.", "imp.", "$TASK."];

/// All literal subjects of up to three tokens in one space.
fn literals(space: &str) -> Vec<String> {
    let mut all = Vec::new();
    for one in ["a", "b"] {
        all.push(format!("{space}{one}"));
        for two in ["a", "b"] {
            all.push(format!("{space}{one}.{two}"));
        }
    }
    all
}

fn written(rules: &Rules) -> String {
    let list = |rules: &[String]| rules.iter().map(|rule| format!("\"{rule}\"")).collect::<Vec<_>>().join(", ");
    let allow = rules.allow.as_ref().map(|allow| format!("allow: [ {} ], ", list(allow))).unwrap_or_default();
    format!("{{ {allow}deny: [ {} ] }}", list(&rules.deny))
}

fn config(users: &[(String, User)]) -> String {
    let line = |(name, user): &(String, User)| {
        let answers = if user.answers { ", allow_responses: { max: 1, expires: \"1h\" }" } else { "" };
        format!(
            "{{ user: {name}, password: p, permissions: {{ publish: {}, subscribe: {}{answers} }} }}\n",
            written(&user.publish),
            written(&user.subscribe)
        )
    };
    let of = |account: char| users.iter().filter(|(name, _)| name.starts_with(account)).map(line).collect::<String>();
    format!(
        "accounts {{\n A {{\n jetstream: enabled\n users: [ {{ user: admin, password: p }}\n {} ]\n \
         exports: [ {{ stream: \"a.>\" }}, {{ stream: \"b.>\" }}, {{ service: \"svc.>\" }} ]\n \
         mappings {{ \"map.*\": \"$KV.K.$1\", \"map.*.*\": \"$2.$1\" }}\n }}\n \
         B {{\n users: [ {{ user: boss, password: p }}\n {} ]\n imports: [ \
         {{ stream: {{ account: A, subject: \"a.>\" }}, prefix: imp }}\n {{ stream: {{ account: A, subject: \"b.>\" }}, prefix: imp }}\n \
         {{ service: {{ account: A, subject: \"svc.>\" }}, to: \"imp.>\" }} ]\n }}\n}}\nauthorization {{ timeout: 60 }}",
        of('a'),
        of('b')
    )
}

/// A message or an error, as a client reads it.
#[derive(Clone, Debug)]
struct Heard {
    sid: String,
    subject: String,
    reply: String,
    headers: String,
    payload: String,
}

/// A bare client that reads whole messages.
struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    errors: Vec<String>,
    heard: Vec<Heard>,
}

impl Peer {
    async fn enter(world: &World, user: &str) -> Peer {
        let stream = TcpStream::connect(world.address()).await.unwrap();
        // It says things in pieces, each of which would wait for the other end's word of the last.
        stream.set_nodelay(true).unwrap();
        let mut peer = Peer { stream, buffer: Vec::new(), errors: Vec::new(), heard: Vec::new() };
        let hello = format!(
            r#"CONNECT {{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"user":"{user}","pass":"p"}}"#
        );
        peer.say(&format!("{hello}\r\n")).await;
        peer.sync().await;
        assert!(peer.errors.is_empty(), "{:?}", peer.errors);
        peer
    }

    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads on until `done` says so of a line or a message.
    async fn read_until(&mut self, mut done: impl FnMut(&str, Option<&Heard>) -> bool) {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                let words: Vec<&str> = line.split(' ').collect();
                let mut message = None;
                let mut taken = end + 2;
                if let "MSG" | "HMSG" = words[0] {
                    let counts = if words[0] == "MSG" { 1 } else { 2 };
                    let total: usize = words[words.len() - 1].parse().unwrap();
                    if self.buffer.len() < taken + total + 2 {
                        break;
                    }
                    let headers = if counts == 2 { words[words.len() - 2].parse().unwrap() } else { 0 };
                    let body = &self.buffer[taken..taken + total];
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let reply = if words.len() - counts == 4 { words[3] } else { "" };
                    message = Some(Heard {
                        sid: words[2].to_owned(),
                        subject: words[1].to_owned(),
                        reply: reply.to_owned(),
                        headers: text(&body[..headers]),
                        payload: text(&body[headers..]),
                    });
                    taken += total + 2;
                }
                self.buffer.drain(..taken);
                match &message {
                    Some(message) => self.heard.push(message.clone()),
                    None if line.starts_with("-ERR") => self.errors.push(line.clone()),
                    None if line == "PING" => self.say("PONG\r\n").await,
                    None => {}
                }
                if done(&line, message.as_ref()) {
                    return;
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            assert_ne!(read.expect("an answer in time").unwrap(), 0, "cut: {:?}", self.errors);
        }
    }

    async fn sync(&mut self) {
        self.say("PING\r\n").await;
        self.read_until(|line, _| line == "PONG").await;
    }

    /// Says something; the errors it led to.
    async fn errors_of(&mut self, text: &str) -> Vec<String> {
        self.errors.clear();
        self.say(text).await;
        self.sync().await;
        std::mem::take(&mut self.errors)
    }

    /// Subscribes if it may, as the model says.
    async fn subscribe(&mut self, user: &User, filter: &str, queue: &str, sid: &str) -> bool {
        let errors = self.errors_of(&format!("SUB {filter} {queue} {sid}\r\n")).await;
        assert_eq!(errors.is_empty(), user.may_subscribe(filter, queue), "SUB {filter} {queue}: {errors:?}");
        errors.is_empty()
    }

    /// The subjects that have come to a subscription, once `end` has come to the last one.
    async fn subjects(&mut self, sid: &str) -> BTreeSet<String> {
        self.sync().await;
        // What others make sure by that they are done is none of the question's, nor is what the stream answers them.
        let of_sid = |heard: &&Heard| {
            let aside = ["_INBOX", "answer."].iter().any(|aside| heard.subject.starts_with(aside));
            heard.sid == sid && heard.payload != "end" && !aside
        };
        self.heard.iter().filter(of_sid).map(|heard| heard.subject.clone()).collect()
    }
}

fn expected(subjects: &[String], holds: impl Fn(&str) -> bool) -> BTreeSet<String> {
    subjects.iter().filter(|subject| holds(subject)).cloned().collect()
}

async fn api(admin: &Client, subject: &str, body: String) -> serde_json::Value {
    let answer = admin.request(format!("$JS.API.{subject}"), body.into()).await.expect("the API answers");
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer.get("error").is_none(), "{subject}: {answer}");
    answer
}

struct Case {
    world: World,
    admin: Client,
    boss: Client,
    cases: usize,
}

impl Case {
    /// Publishing: what is let through is what the model lets through.
    async fn publishes(&mut self, name: &str, user: &User, peer: &mut Peer) {
        let (watcher, imported) = if name.starts_with('a') { (&self.admin, "") } else { (&self.boss, "imp.") };
        let mut all = watcher.subscribe(">").await.unwrap();
        round(watcher).await;
        let spaces: &[&str] = if imported.is_empty() { &SPACES } else { &["", "rep.", "$TASK."] };
        let subjects: Vec<String> = spaces.iter().flat_map(|space| literals(space)).collect();
        // What is mapped is judged by what it becomes.
        let mapped = literals("map.").into_iter().filter(|_| imported.is_empty()).map(|subject| {
            let to = match subject.split('.').collect::<Vec<_>>()[..] {
                [_, key] => format!("$KV.K.{key}"),
                [_, one, two] => format!("{two}.{one}"),
                _ => unreachable!("there are no longer ones"),
            };
            (subject, to)
        });
        let plain = subjects.iter().map(|subject| (subject.clone(), subject.clone()));
        for (said, subject) in plain.chain(mapped.collect::<Vec<_>>()) {
            let errors = peer.errors_of(&format!("PUB {said} 3\r\nown\r\n")).await;
            let denied = format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'");
            let wanted: Vec<String> = if user.may_publish(&subject) { vec![] } else { vec![denied] };
            assert_eq!(errors, wanted, "{name} PUB {said}");
            self.cases += 1;
        }
        watcher.publish("end", "".into()).await.unwrap();
        let mut seen = BTreeSet::new();
        loop {
            let message = super::next(&mut all).await;
            if message.subject.as_str() == "end" {
                break;
            }
            // What a stream publishes again has headers.
            let own = message.payload == "own" && message.headers.is_none();
            if own && subjects.iter().any(|subject| *subject == message.subject.as_str()) {
                seen.insert(message.subject.to_string());
            }
        }
        assert_eq!(seen, expected(&subjects, |subject| user.may_publish(subject)), "{name}");
    }

    /// Live messages, alone and in queue groups, of the own account, imported and published again.
    async fn live(&mut self, name: &str, user: &User, peer: &mut Peer, filters: &[String]) {
        let mut open = Vec::new();
        for (at, filter) in filters.iter().enumerate() {
            // A group of its own for each: of a group one member hears a message.
            for queue in [String::new(), queue(at)] {
                let sid = format!("l{at}{queue}");
                if peer.subscribe(user, filter, &queue, &sid).await {
                    open.push((sid, filter, queue));
                }
                self.cases += 1;
            }
        }
        peer.heard.clear();
        let mut subjects: Vec<String> = Vec::new();
        for subject in literals("") {
            self.admin.publish(subject.clone(), "live".into()).await.unwrap();
            subjects.push(match name.starts_with('a') {
                true => subject,
                // A stream's import has two tokens and more.
                false if subject.contains('.') => format!("imp.{subject}"),
                false => continue,
            });
        }
        if name.starts_with('a') {
            for space in ["$KV.K.", "imp.", "$TASK."] {
                for subject in literals(space) {
                    self.admin.publish(subject.clone(), "live".into()).await.unwrap();
                    subjects.push(subject);
                }
            }
            subjects.extend(literals("rep."));
        }
        round(&self.admin).await;
        self.republished().await;
        for (sid, filter, queue) in open {
            let heard = peer.subjects(&sid).await;
            let wanted = expected(&subjects, |subject| user.hears(filter, &queue, subject));
            assert_eq!(heard, wanted, "{name} {sid} {filter}");
            peer.errors_of(&format!("UNSUB {sid}\r\n")).await;
        }
    }

    /// Returns once `stream` has taken all that S holds.
    async fn followed(&self, stream: &str) {
        let last = api(&self.admin, "STREAM.INFO.S", String::new()).await["state"]["last_seq"].clone();
        let info = format!("STREAM.INFO.{stream}");
        let taken = async { while api(&self.admin, &info, String::new()).await["state"]["last_seq"] != last {} };
        tokio::time::timeout(PATIENCE, taken).await.unwrap_or_else(|_| panic!("{stream} follows S"));
    }

    /// Returns once what streams publish again has been published.
    async fn republished(&self) {
        let mut again = self.admin.subscribe("rep.b.b.b").await.unwrap();
        self.admin.flush().await.unwrap();
        self.admin.publish("b.b.b", "end".into()).await.unwrap();
        super::next(&mut again).await;
    }

    /// Everything that comes out of streams, into inboxes.
    async fn stored(&mut self, name: &str, user: &User, peer: &mut Peer, stream: &str, subjects: &[String]) {
        let inbox = format!("_INBOX_{name}");
        if !user.may_subscribe(&format!("{inbox}.*"), "") || !user.may_publish("$JS.API.STREAM.MSG.GET.x") {
            return;
        }
        let wanted = expected(subjects, |subject| user.may_have(subject, ""));
        assert!(peer.subscribe(user, &format!("{inbox}.*"), "", "in").await);
        // Pulled.
        let consumer = format!(
            r#"{{"stream_name":"{stream}","config":{{"name":"pull-{name}","ack_policy":"none","inactive_threshold":3600000000000,"deliver_policy":"last_per_subject","filter_subject":">"}}}}"#
        );
        api(&self.admin, &format!("CONSUMER.CREATE.{stream}.pull-{name}"), consumer).await;
        peer.heard.clear();
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.pull-{name}");
        let body = r#"{"batch":500,"no_wait":true}"#;
        peer.say(&format!("PUB {next} {inbox}.pull {}\r\n{body}\r\n", body.len())).await;
        peer.read_until(|_, heard| heard.is_some_and(|heard| heard.headers.starts_with("NATS/1.0 4"))).await;
        let of_stream = |heard: &&Heard| heard.reply.starts_with("$JS.ACK.");
        let pulled: BTreeSet<String> = peer.heard.iter().filter(of_stream).map(|heard| heard.subject.clone()).collect();
        assert_eq!(pulled, wanted, "{name} pulls from {stream}");
        // Pushed, to it alone and to a group of which it is the only member.
        for (to, queue) in [("push", ""), ("pushed.group", "g1.4"), ("pushed.group", "g2.5")] {
            let sid = format!("to{queue}");
            if !queue.is_empty() && !peer.subscribe(user, &format!("{inbox}.{to}"), queue, &sid).await {
                continue;
            }
            let wanted = expected(subjects, |subject| user.may_have(subject, queue));
            let group = if queue.is_empty() { String::new() } else { format!(r#""deliver_group":"{queue}","#) };
            let consumer = format!(
                r#"{{"stream_name":"{stream}","config":{{"name":"push-{name}","ack_policy":"none","inactive_threshold":3600000000000,{group}"deliver_subject":"{inbox}.{to}","deliver_policy":"last_per_subject","filter_subject":">"}}}}"#
            );
            peer.heard.clear();
            api(&self.admin, &format!("CONSUMER.CREATE.{stream}.push-{name}"), consumer).await;
            let info = format!("CONSUMER.INFO.{stream}.push-{name}");
            let sent = async { while api(&self.admin, &info, String::new()).await["num_pending"] != 0 {} };
            tokio::time::timeout(PATIENCE, sent)
                .await
                .unwrap_or_else(|_| panic!("{name} {queue}: what is denied holds up the rest"));
            peer.sync().await;
            let pushed: BTreeSet<String> =
                peer.heard.iter().filter(of_stream).map(|heard| heard.subject.clone()).collect();
            assert_eq!(pushed, wanted, "{name} is pushed from {stream} {queue}");
            api(&self.admin, &format!("CONSUMER.DELETE.{stream}.push-{name}"), String::new()).await;
            peer.errors_of(&format!("UNSUB {sid}\r\n")).await;
            self.cases += 1;
        }
        self.cases += 1;
        // Got one by one.
        for subject in subjects {
            let by_subject = format!(r#"{{"last_by_subj":"{subject}"}}"#);
            let next = format!(r#"{{"seq":1,"next_by_subj":"{subject}"}}"#);
            for (what, body) in [
                (format!("$JS.API.DIRECT.GET.{stream}.{subject}"), ""),
                (format!("$JS.API.DIRECT.GET.{stream}"), &*by_subject),
                (format!("$JS.API.DIRECT.GET.{stream}"), &*next),
                (format!("$JS.API.STREAM.MSG.GET.{stream}"), &*by_subject),
                (format!("$JS.API.STREAM.MSG.GET.{stream}"), &*next),
            ] {
                peer.heard.clear();
                peer.say(&format!("PUB {what} {inbox}.get {}\r\n{body}\r\n", body.len())).await;
                peer.read_until(|_, heard| heard.is_some()).await;
                let got = &peer.heard[0];
                let found = got.headers.contains("Nats-Sequence") || got.payload.contains("\"seq\"");
                assert_eq!(found, wanted.contains(subject), "{name} {what} {body}: {got:?}");
                self.cases += 1;
            }
        }
        // Got all at once.
        for body in [r#"{"multi_last":[">"]}"#, r#"{"seq":1,"batch":1000}"#, r#"{"batch":1000,"next_by_subj":">"}"#] {
            peer.heard.clear();
            peer.say(&format!("PUB $JS.API.DIRECT.GET.{stream} {inbox}.multi {}\r\n{body}\r\n", body.len())).await;
            peer.read_until(|_, heard| heard.is_some_and(|heard| heard.headers.starts_with("NATS/1.0 2"))).await;
            let subject = |heard: &Heard| {
                let line = heard.headers.lines().find_map(|line| line.strip_prefix("Nats-Subject: "));
                line.map(str::to_owned)
            };
            let got: BTreeSet<String> = peer.heard.iter().filter_map(subject).collect();
            assert_eq!(got, wanted, "{name} gets all of {stream} by {body}");
            self.cases += 1;
        }
        peer.errors_of("UNSUB in\r\n").await;
    }

    /// Requests: who may ask whom over an import, and who may answer.
    async fn requests(&mut self, name: &str, user: &User, peer: &mut Peer) {
        if name.starts_with('b') {
            let mut service = self.admin.subscribe("svc.>").await.unwrap();
            round(&self.admin).await;
            let subjects = literals("imp.");
            for subject in &subjects {
                let errors = peer.errors_of(&format!("PUB {subject} 3\r\nask\r\n")).await;
                assert_eq!(errors.is_empty(), user.may_publish(subject), "{name} asks {subject}");
                self.cases += 1;
            }
            self.admin.publish("svc.end", "".into()).await.unwrap();
            let mut asked = BTreeSet::new();
            loop {
                let message = super::next(&mut service).await;
                match message.subject.as_str().strip_prefix("svc.").unwrap() {
                    "end" => break,
                    rest => asked.insert(format!("imp.{rest}")),
                };
            }
            assert_eq!(asked, expected(&subjects, |subject| user.may_publish(subject)), "{name}");
            return;
        }
        let (mut answers, mut asked) = (self.admin.subscribe("answer.>").await.unwrap(), 0);
        round(&self.admin).await;
        for filter in literals("") {
            if !user.may_subscribe(&filter, "") {
                continue;
            }
            assert!(peer.subscribe(user, &filter, "", "ask").await);
            let reply = format!("answer.{asked}");
            asked += 1;
            self.admin.publish_with_reply(filter.clone(), reply.clone(), "?".into()).await.unwrap();
            round(&self.admin).await;
            peer.sync().await;
            for may in [user.may_publish(&reply) || user.answers, user.may_publish(&reply)] {
                let errors = peer.errors_of(&format!("PUB {reply} 1\r\n!\r\n")).await;
                assert_eq!(errors.is_empty(), may, "{name} answers on {reply}: {errors:?}");
                if may {
                    // The stream that stores the request answers as well.
                    let mut answer = super::next(&mut answers).await;
                    while answer.payload != "!" {
                        answer = super::next(&mut answers).await;
                    }
                    assert_eq!(answer.subject.as_str(), reply);
                }
                self.cases += 1;
            }
            peer.errors_of("UNSUB ask\r\n").await;
        }
    }
}

async fn run(seed: u64) -> usize {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let users: Vec<(String, User)> = (0..USERS)
        .map(|number| {
            let name = format!("{}{number}", if number % 3 == 2 { "b" } else { "a" });
            let user = dice.user(&name);
            (name, user)
        })
        .collect();
    let text = config(&users);
    println!("seed {seed}");
    let world = World::start(&text).await;
    let (admin, boss) = (world.user("admin", "p").await.unwrap(), world.user("boss", "p").await.unwrap());
    let stream =
        r#"{"name":"S","subjects":["a","a.>","b","b.>"],"allow_direct":true,"republish":{"src":">","dest":"rep.>"}}"#;
    api(&admin, "STREAM.CREATE.S", stream.to_owned()).await;
    let bucket = r#"{"name":"KV_K","subjects":["$KV.K.>"],"allow_direct":true,"max_msgs_per_subject":1}"#;
    api(&admin, "STREAM.CREATE.KV_K", bucket.to_owned()).await;
    let mirror = r#"{"name":"M","mirror":{"name":"S"},"allow_direct":true}"#;
    api(&admin, "STREAM.CREATE.M", mirror.to_owned()).await;
    let sourcing = r#"{"name":"T","sources":[{"name":"S","subject_transforms":[{"src":">","dest":"imp.>"}]}],"allow_direct":true}"#;
    api(&admin, "STREAM.CREATE.T", sourcing.to_owned()).await;
    for subject in literals("").into_iter().chain(literals("$KV.K.")) {
        admin.request(subject, "stored".into()).await.expect("a stream answers");
    }
    let mut case = Case { world, admin, boss, cases: 0 };
    for (number, (name, user)) in users.iter().enumerate() {
        let mut peer = Peer::enter(&case.world, name).await;
        let mut filters = vec![">".to_owned(), "a.>".to_owned(), "*.*".to_owned()];
        filters.extend((0..8).map(|_| dice.filter(&SPACES)));
        case.publishes(name, user, &mut peer).await;
        case.live(name, user, &mut peer, &filters).await;
        if name.starts_with('a') {
            let stored: Vec<String> = literals("").into_iter().chain(["b.b.b".to_owned()]).collect();
            case.stored(name, user, &mut peer, "S", &stored).await;
            case.stored(name, user, &mut peer, "KV_K", &literals("$KV.K.")).await;
            // For the sake of a short run one of these each.
            if number % 2 == 0 {
                case.followed("M").await;
                case.stored(name, user, &mut peer, "M", &stored).await;
            } else {
                case.followed("T").await;
                let taken: Vec<String> = stored.iter().map(|subject| format!("imp.{subject}")).collect();
                case.stored(name, user, &mut peer, "T", &taken).await;
            }
        }
        case.requests(name, user, &mut peer).await;
    }
    case.world.server.stop().await;
    case.cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_a_message_takes_is_judged_as_the_model_judges() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("NATTERJACK_PERMISSION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("NATTERJACK_PERMISSION_SEEDS").unwrap_or(SEEDS),
    };
    let mut cases = 0;
    for seed in seeds.clone() {
        cases += run(seed).await;
    }
    println!("{cases} questions, {} brokers of {USERS} users", seeds.count());
}

/// Each answer as nats-server 2.15.1 gave it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_is_judged_by_what_it_is_routed_as() {
    let text = r#"
jetstream { domain: hub }
accounts {
    A {
        jetstream: enabled
        users: [
            { user: admin, password: p }
            { user: less, password: p, permissions { publish { deny: [ "$JS.API.>", "secret.>" ] } } }
            { user: only, password: p, permissions { publish { allow: [ "new.>" ] } } }
            { user: hub, password: p, permissions { publish { allow: [ "$JS.hub.API.>", "old.>" ] } } }
            { user: answers, password: p, permissions { publish { allow: [ "none" ] }, allow_responses: true } }
        ]
        mappings {
            "alias.*": "secret.$1"
            "alias.*.*": "secret.$2"
            "old.*": "new.$1"
            "nowhere": { destination: "nowhere", weight: 0 }
        }
    }
}
authorization { timeout: 30 }
"#;
    let world = World::start(text).await;
    let admin = world.user("admin", "p").await.unwrap();
    api(&admin, "STREAM.CREATE.S", r#"{"name":"S","subjects":["s"]}"#.to_owned()).await;
    let mut all = admin.subscribe(">").await.unwrap();
    round(&admin).await;
    let denied = |subject: &str| vec![format!("-ERR 'Permissions Violation for Publish to \"{subject}\"'")];
    for (user, said, expected) in [
        ("less", "$JS.hub.API.STREAM.DELETE.S", denied("$JS.API.STREAM.DELETE.S")),
        ("less", "$JS.API.STREAM.DELETE.S", denied("$JS.API.STREAM.DELETE.S")),
        ("less", "secret.x", denied("secret.x")),
        ("less", "alias.x", denied("secret.x")),
        ("less", "alias..x", vec![]),
        ("less", "old.x", vec![]),
        ("less", "nowhere", vec![]),
        ("only", "new.x", vec![]),
        ("only", "old.x", vec![]),
        ("only", "alias.x", denied("secret.x")),
        ("only", "nowhere", denied("")),
        ("hub", "old.x", denied("new.x")),
        ("hub", "$JS.hub.API.STREAM.DELETE.S", denied("$JS.API.STREAM.DELETE.S")),
        ("answers", "old.x", denied("new.x")),
    ] {
        let mut peer = Peer::enter(&world, user).await;
        assert_eq!(peer.errors_of(&format!("PUB {said} 0\r\n\r\n")).await, expected, "{user} PUB {said}");
    }
    api(&admin, "STREAM.INFO.S", String::new()).await;
    // An answer is allowed by where it comes out, too.
    let mut peer = Peer::enter(&world, "answers").await;
    peer.errors_of("SUB ask 1\r\n").await;
    admin.publish_with_reply("ask", "new.reply", "".into()).await.unwrap();
    peer.read_until(|_, heard| heard.is_some()).await;
    assert_eq!(peer.errors_of("PUB old.reply 0\r\n\r\n").await, Vec::<String>::new());
    admin.publish("end", "".into()).await.unwrap();
    let mut heard = Vec::new();
    loop {
        let message = super::next(&mut all).await;
        match message.subject.as_str() {
            "end" => break,
            subject if subject.starts_with("new.") || subject.starts_with("secret.") => heard.push(subject.to_owned()),
            _ => {}
        }
    }
    assert_eq!(heard, ["new.x", "new.x", "new.x", "new.reply"]);
    world.server.stop().await;
}
