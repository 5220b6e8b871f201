//! The log: nats-server's line format, `[pid] 2026/11/21 02:02:42.680472 [INF] text`, in local time unless told otherwise.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::log_file::LogFile;
use crate::config::{Log, LogFormat, LogLevel};

/// Events of this target end the program; their lines say `[FTL]`.
pub const FATAL: &str = "natterjack::fatal";

/// The program's log, to be changed while it runs.
#[derive(Clone)]
pub struct LogHandle {
    shared: Arc<Shared>,
}

struct Shared {
    settings: RwLock<Log>,
    sink: Mutex<Sink>,
}

enum Sink {
    Stderr { colours: bool },
    File(LogFile),
}

/// Sends the program's log where `settings` say, and panics to the log. Only our own events are shown: libraries talk to
/// their authors.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(settings: &Log) -> io::Result<LogHandle> {
    let shared = Arc::new(Shared { sink: Mutex::new(Sink::open(settings)?), settings: RwLock::new(settings.clone()) });
    let filtered = shared.clone();
    let filter = filter_fn(move |metadata| filtered.shows(metadata));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines { pid: std::process::id(), zone: TimeZone::system(), shared: shared.clone() })
        .with_writer(SharedWriter(shared.clone()));
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |at| format!(" at {at}"));
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let reason = text.unwrap_or("no reason given");
        tracing::error!("Panic{place}: {reason}");
    }));
    Ok(LogHandle { shared })
}

impl LogHandle {
    /// Goes on as `settings` say, in another file if need be.
    ///
    /// # Errors
    /// When the new log file cannot be opened; nothing changes then.
    pub fn change(&self, settings: &Log) -> io::Result<()> {
        let of_file = |log: &Log| (log.file.clone(), log.file_bytes_max, log.files_kept_max);
        if of_file(settings) != of_file(&self.shared.settings()) {
            let sink = Sink::open(settings)?;
            *self.shared.sink() = sink;
        }
        *self.shared.settings.write().unwrap_or_else(PoisonError::into_inner) = settings.clone();
        // Each place that logs remembers whether it is heard.
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Opens the log file again, if there is one: who rotates logs has moved it away.
    ///
    /// # Errors
    /// When that fails; the old file stays in use.
    pub fn reopen(&self) -> io::Result<bool> {
        match &mut *self.shared.sink() {
            Sink::Stderr { .. } => Ok(false),
            Sink::File(file) => file.reopen().map(|()| true),
        }
    }

    pub fn is_file(&self) -> bool {
        matches!(*self.shared.sink(), Sink::File(_))
    }
}

impl Sink {
    fn open(settings: &Log) -> io::Result<Sink> {
        Ok(match &settings.file {
            Some(path) => Sink::File(LogFile::open(path, settings.file_bytes_max, settings.files_kept_max)?),
            None => Sink::Stderr { colours: io::stderr().is_terminal() },
        })
    }
}

impl Shared {
    fn settings(&self) -> Log {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shows(&self, metadata: &Metadata<'_>) -> bool {
        if !metadata.target().starts_with("natterjack") {
            return false;
        }
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        match *metadata.level() {
            Level::ERROR => true,
            Level::WARN => settings.level >= LogLevel::Warn,
            Level::INFO => settings.level >= LogLevel::Info,
            Level::DEBUG => settings.debug,
            Level::TRACE => settings.trace,
        }
    }
}

struct SharedWriter(Arc<Shared>);

impl<'a> MakeWriter<'a> for SharedWriter {
    type Writer = SinkWriter<'a>;

    fn make_writer(&'a self) -> SinkWriter<'a> {
        SinkWriter(self.0.sink())
    }
}

struct SinkWriter<'a>(MutexGuard<'a, Sink>);

impl Write for SinkWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *self.0 {
            Sink::Stderr { .. } => io::stderr().lock().write(line),
            Sink::File(file) => file.write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Lines {
    pid: u32,
    zone: TimeZone,
    shared: Arc<Shared>,
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
        let colours = matches!(*self.shared.sink(), Sink::Stderr { colours: true });
        let time = {
            let settings = self.shared.settings.read().unwrap_or_else(PoisonError::into_inner);
            let zone = || if settings.utc { TimeZone::UTC } else { self.zone.clone() };
            settings.time.then(|| Timestamp::now().to_zoned(zone()))
        };
        if self.shared.settings.read().unwrap_or_else(PoisonError::into_inner).format == LogFormat::Json {
            let time = time.map(|at| at.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string());
            return writeln!(writer, "{}", json_line(self.pid, time, event));
        }
        let mut prefix = String::with_capacity(64);
        prefix_to(&mut prefix, self.pid, time.as_ref(), label(event.metadata()), colours)?;
        writer.write_str(&prefix)?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// An event as one JSON object.
fn json_line(pid: u32, time: Option<String>, event: &Event<'_>) -> Value {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let level = match *event.metadata().level() {
        Level::ERROR if event.metadata().target() == FATAL => "fatal",
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut line = fields.0;
    if let Some(text) = line.remove("message") {
        line.insert("text".to_owned(), text);
    }
    line.insert("level".to_owned(), level.into());
    line.insert("pid".to_owned(), pid.into());
    if let Some(time) = time {
        line.insert("time".to_owned(), time.into());
    }
    Value::Object(line)
}

/// What an event says, by name.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

/// nats-server's word for the level, and its colour on a terminal.
fn label(metadata: &Metadata<'_>) -> (&'static str, &'static str) {
    match *metadata.level() {
        Level::ERROR if metadata.target() == FATAL => ("FTL", "31"),
        Level::ERROR => ("ERR", "31"),
        Level::WARN => ("WRN", "0;93"),
        Level::INFO => ("INF", "32"),
        Level::DEBUG => ("DBG", "36"),
        Level::TRACE => ("TRC", "33"),
    }
}

fn prefix_to(
    line: &mut String,
    pid: u32,
    time: Option<&Zoned>,
    (word, colour): (&str, &str),
    colours: bool,
) -> std::fmt::Result {
    write!(line, "[{pid}] ")?;
    if let Some(at) = time {
        write!(
            line,
            "{:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:06} ",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.subsec_nanosecond() / 1000
        )?;
    }
    if colours { write!(line, "[\x1b[{colour}m{word}\x1b[0m] ") } else { write!(line, "[{word}] ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_nats_servers() {
        let at: Timestamp = "2026-11-21T02:02:42.680472999Z".parse().unwrap();
        let utc = at.to_zoned(TimeZone::UTC);
        let east = at.to_zoned(TimeZone::fixed(jiff::tz::offset(1)));
        for (time, label, colours, expected) in [
            (Some(&utc), ("INF", "32"), false, "[7] 2026/11/21 02:02:42.680472 [INF] "),
            (Some(&east), ("TRC", "33"), false, "[7] 2026/11/21 03:02:42.680472 [TRC] "),
            (Some(&utc), ("ERR", "31"), true, "[7] 2026/11/21 02:02:42.680472 [\x1b[31mERR\x1b[0m] "),
            (None, ("WRN", "0;93"), false, "[7] [WRN] "),
        ] {
            let mut line = String::new();
            prefix_to(&mut line, 7, time, label, colours).unwrap();
            assert_eq!(line, expected);
        }
    }
}
