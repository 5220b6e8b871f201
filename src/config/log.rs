//! What is logged, and where to.

use std::path::PathBuf;

/// The log's settings. Debug and trace lines are switched on one by one, as in nats-server.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: LogLevel,
    /// `log_format`
    pub format: LogFormat,
    /// `-D`, `debug`: connections that come and go, refusals.
    pub debug: bool,
    /// `-V`, `trace`: every protocol operation of every client.
    pub trace: bool,
    /// `-VV`, `trace_verbose`: also what the server itself publishes, as events and answers of the system account.
    pub trace_verbose: bool,
    /// `trace_headers`: of messages only their headers.
    pub trace_headers: bool,
    /// `logtime`: date and time in each line.
    pub time: bool,
    /// `logtime_utc`: in UTC instead of the machine's time zone.
    pub utc: bool,
    /// `log_file`: lines are appended here instead of written to standard error.
    pub file: Option<PathBuf>,
    /// `log_size_limit`: bytes at which the file is put aside and a new one begun. 0: never.
    pub file_bytes_max: u64,
    /// `log_max_num`: files put aside that are kept. 0: all.
    pub files_kept_max: usize,
    /// `max_traced_msg_len`: how much of a payload a trace line shows. 0: all of it.
    pub traced_bytes_max: usize,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// nats-server's lines.
    #[default]
    Text,
    /// One JSON object a line: `time` (RFC 3339), `level`, `pid`, `text`, and what else an event says by name.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{text:?} is no log format: text or json")),
        }
    }
}

/// The least important line that is logged, debugging aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: LogLevel::Info,
            format: LogFormat::Text,
            debug: false,
            trace: false,
            trace_verbose: false,
            trace_headers: false,
            time: true,
            utc: false,
            file: None,
            file_bytes_max: 0,
            files_kept_max: 0,
            traced_bytes_max: 0,
        }
    }
}
