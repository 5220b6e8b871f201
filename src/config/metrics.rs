//! What `/metrics` counts beside the server's own figures.

/// `metrics {}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Filters of the subjects that are counted; none by default.
    pub subjects: Vec<String>,
    /// Subjects that get series of their own; further ones are counted under their filter.
    pub subjects_max: usize,
}

impl Metrics {
    /// More filters than that are a mistake: each message on a new subject is held to all of them.
    pub const FILTERS_MAX: usize = 100;
    /// More series than that are too many for Prometheus.
    pub const SUBJECTS_MAX: usize = 10_000;
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { subjects: Vec::new(), subjects_max: 100 }
    }
}
