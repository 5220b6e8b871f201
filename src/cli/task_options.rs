//! What is submitted: a body, and the headers that say how it is to be done. Shared by tasks and crons.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::failure::{Failure, REFUSED};
use super::table;

/// What is sent: a task, a result, a question or its answer.
#[derive(Debug, Args)]
pub struct Body {
    /// What is sent, opaque to the broker. `-`, or nothing with input from a pipe: read it from standard input.
    body: Option<String>,
    /// Read it from this file.
    #[arg(short, long, value_name = "PATH", conflicts_with = "body")]
    file: Option<PathBuf>,
}

/// Whether a task waits for the agent that its token had last.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StickyMode {
    /// Others take over when it has no free slot.
    Soft,
    /// It waits for that agent.
    Hard,
}

/// The headers of a task.
#[derive(Debug, Args)]
pub struct TaskOptions {
    /// Queue to put it in.
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Labels an agent must have: lang=rust,gpu,mem>=16.
    #[arg(short, long, value_name = "LABELS")]
    requires: Option<String>,
    /// Labels an agent had better have.
    #[arg(long, value_name = "LABELS")]
    prefer: Option<String>,
    /// 0 (first) to 9.
    #[arg(short, long, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Tasks of one key take turns with those of other keys.
    #[arg(long)]
    key: Option<String>,
    /// Give it to the agent that had the last task with this token.
    #[arg(long, value_name = "TOKEN")]
    sticky: Option<String>,
    /// Whether it waits for that agent.
    #[arg(long, value_name = "MODE", requires = "sticky")]
    sticky_mode: Option<StickyMode>,
    /// When it may begin: an RFC 3339 time, or a duration from now.
    #[arg(long, value_name = "WHEN")]
    not_before: Option<String>,
    /// When it is given up: an RFC 3339 time, or a duration from now.
    #[arg(long, value_name = "WHEN")]
    deadline: Option<String>,
    /// Longest time one attempt may take.
    #[arg(long, value_name = "DURATION", value_parser = table::duration)]
    timeout: Option<Duration>,
    /// Attempts before the task counts as dead.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// Pauses before the second attempt, the third and so on; the last repeats.
    #[arg(long, value_name = "DURATIONS", value_delimiter = ',', value_parser = table::duration)]
    backoff: Vec<Duration>,
    /// Tasks that must be completed before.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    after: Vec<String>,
    /// The task that this one is a part of.
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// Subject to publish the result on as well.
    #[arg(long, value_name = "SUBJECT")]
    result_to: Option<String>,
    /// Refuse it when no agent that is registered can do it.
    #[arg(long)]
    must_match: bool,
    /// Further headers that travel with the task.
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
}

impl Body {
    /// # Errors
    /// No body, or one that cannot be read.
    pub fn read(&self, example: &str) -> Result<Vec<u8>, Failure> {
        if let Some(path) = &self.file {
            return std::fs::read(path)
                .map_err(|error| Failure::new(REFUSED, format!("Cannot read {}: {error}.", path.display())));
        }
        match self.body.as_deref() {
            Some("-") => {}
            Some(body) => return Ok(body.as_bytes().to_vec()),
            None if std::io::stdin().is_terminal() => {
                return Err(Failure::new(
                    2,
                    format!("What is to be sent? Give it as an argument, in a --file, or pipe it in:\n  {example}"),
                ));
            }
            None => {}
        }
        let mut body = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut body);
        read.map_err(|error| Failure::new(REFUSED, format!("Cannot read from standard input: {error}.")))?;
        Ok(body)
    }

    /// As [`Body::read`], but nothing at all is no error at a terminal.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn read_or_nothing(&self) -> Result<Vec<u8>, Failure> {
        if self.body.is_none() && self.file.is_none() && std::io::stdin().is_terminal() {
            return Ok(Vec::new());
        }
        self.read("")
    }
}

impl TaskOptions {
    pub fn headers(&self) -> Vec<(String, String)> {
        let joined = |values: Vec<String>| (!values.is_empty()).then(|| values.join(","));
        let mode = self.sticky_mode.map(|mode| if matches!(mode, StickyMode::Hard) { "hard" } else { "soft" });
        let ours = [
            ("Task-Queue", self.queue.clone()),
            ("Task-Requires", self.requires.clone()),
            ("Task-Prefer", self.prefer.clone()),
            ("Task-Priority", self.priority.map(|priority| priority.to_string())),
            ("Task-Key", self.key.clone()),
            ("Task-Sticky", self.sticky.clone()),
            ("Task-Sticky-Mode", mode.map(str::to_owned)),
            ("Task-Not-Before", self.not_before.clone()),
            ("Task-Deadline", self.deadline.clone()),
            ("Task-Timeout", self.timeout.map(seconds)),
            ("Task-Max-Attempts", self.max_attempts.map(|attempts| attempts.to_string())),
            ("Task-Backoff", joined(self.backoff.iter().copied().map(seconds).collect())),
            ("Task-After", joined(self.after.clone())),
            ("Task-Parent", self.parent.clone()),
            ("Task-Result-To", self.result_to.clone()),
            ("Task-Must-Match", self.must_match.then(|| "true".to_owned())),
        ];
        let present = ours.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        present.chain(self.headers.iter().cloned()).collect()
    }
}

/// A duration as `Task-*` headers have it: `1.5s`.
pub fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// `NAME:VALUE` without anything that would end a header line.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME:VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || name.contains(char::is_whitespace) || text.contains(char::is_control) {
        return Err("a header is NAME:VALUE, on one line".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_one_line_each() {
        assert_eq!(header("X-Id: 7"), Ok(("X-Id".into(), "7".into())));
        assert_eq!(header("X:"), Ok(("X".into(), String::new())));
        for bad in ["x", ": y", "a b: c", "X: a\r\nTask-Id: b"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }
}
