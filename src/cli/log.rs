//! The log: nats-server's line format, `[pid] 2026/11/21 02:02:42.680472 [INF] text`, in UTC.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Mutex;

use time::OffsetDateTime;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevel;
use crate::types::Timestamp;

/// Sends the program's log to `file` (appended) or standard error, and panics to the log. Only our own events are
/// shown: libraries talk to their authors.
///
/// # Errors
/// When `file` cannot be opened.
pub fn start(level: LogLevel, file: Option<&Path>) -> std::io::Result<()> {
    let filter = Targets::new().with_target("natterjack", level_filter(level));
    let colours = file.is_none() && std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().event_format(Lines { pid: std::process::id(), colours });
    let registry = tracing_subscriber::registry().with(filter);
    match file {
        Some(path) => {
            let file: File = OpenOptions::new().create(true).append(true).open(path)?;
            let _ = registry.with(lines.with_writer(Mutex::new(file))).try_init();
        }
        None => {
            let _ = registry.with(lines.with_writer(std::io::stderr)).try_init();
        }
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let reason = text.unwrap_or("no reason given");
        tracing::error!("Panic{place}: {reason}");
    }));
    Ok(())
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

struct Lines {
    pid: u32,
    colours: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut prefix = String::with_capacity(64);
        prefix_to(&mut prefix, self.pid, Timestamp::now(), *event.metadata().level(), self.colours)?;
        writer.write_str(&prefix)?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

fn prefix_to(line: &mut String, pid: u32, now: Timestamp, level: Level, colours: bool) -> std::fmt::Result {
    let at = OffsetDateTime::from_unix_timestamp_nanos(now.nanos().into()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (word, colour) = match level {
        Level::ERROR => ("ERR", 31),
        Level::WARN => ("WRN", 33),
        Level::INFO => ("INF", 32),
        Level::DEBUG => ("DBG", 36),
        Level::TRACE => ("TRC", 35),
    };
    write!(
        line,
        "[{pid}] {:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:06} ",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.microsecond()
    )?;
    if colours { write!(line, "[\x1b[{colour}m{word}\x1b[0m] ") } else { write!(line, "[{word}] ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_nats_servers() {
        let at = Timestamp::parse_rfc3339("2026-11-21T02:02:42.680472999Z").unwrap();
        for (level, colours, expected) in [
            (Level::INFO, false, "[7] 2026/11/21 02:02:42.680472 [INF] "),
            (Level::TRACE, false, "[7] 2026/11/21 02:02:42.680472 [TRC] "),
            (Level::ERROR, true, "[7] 2026/11/21 02:02:42.680472 [\x1b[31mERR\x1b[0m] "),
        ] {
            let mut line = String::new();
            prefix_to(&mut line, 7, at, level, colours).unwrap();
            assert_eq!(line, expected);
        }
    }
}
