//! One thing that was found: how bad, where, what it does, and what to do.

use serde::Serialize;

use crate::cli::table::printable;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// A trap that is set: it will bite under load, at a restart, with the second worker.
    Warning,
    /// Work is stuck, lost or done twice now.
    Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// The check's name, for scripts.
    pub check: &'static str,
    /// The stream, consumer, queue or agent.
    pub place: String,
    /// What is so, and what it does.
    pub text: String,
    /// What to do.
    pub advice: String,
}

impl Finding {
    pub fn new(
        severity: Severity,
        check: &'static str,
        place: impl Into<String>,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding { severity, check, place: place.into(), text: text.into(), advice: advice.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "WARNING",
            Severity::Problem => "PROBLEM",
        };
        // What clients named must not move the cursor of who looks at it.
        let (place, text, advice) = (printable(&self.place), printable(&self.text), printable(&self.advice));
        write!(f, "\n{severity} [{}] {place}\n  {text}\n  -> {advice}", self.check)
    }
}
